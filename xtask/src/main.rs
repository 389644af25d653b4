//! `cargo xtask test`: installs what the tests need, runs all of them, and prints what was skipped.
//! `cargo xtask test --driver swiftshader`: the tests that use a GPU, on another Vulkan driver than lavapipe.
//! `cargo xtask conformance`: ONNX cases, the project's own or those of RECURVE_ONNX_CASES=DIR.
//! `cargo xtask fuzz READER`: libFuzzer on one of the readers of files: npy, npz, model, keras, onnx, pytorch, text.
//! `cargo xtask docs`: writes the generated pages of `docs/`.
//! `cargo xtask compare`: the CPU compared with ONNX Runtime and PyTorch; a table, and CSV and SVG in
//! `benches/results`.
//! `cargo xtask gpu`: for a machine with a GPU: the tests on it, then the benchmarks.
//! `cargo xtask portability [PART...]`: other targets, shader compilers and drivers.
//! `cargo xtask fuzz cells`: random recurrent layers on every device compared with the f64 reference; `--runs N` or
//! `--minutes M`, `--seed S`, `--device cpu|NAME`, `--plan JSON` to run one plan.
//! `cargo xtask python [ARGUMENTS FOR PYTEST]`: the wheel of the Python package, tested in an empty environment.
//! `cargo xtask web [build|serve|PARTS OF NAMES OF TESTS]`: the package for browsers, tested in Chromium.
//! `cargo xtask lint`: formatting, and clippy with warnings denied, with the library's features and without.

#![forbid(unsafe_code)]

mod drivers;
mod portability;
mod python;
mod readers;
mod web;

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

fn main() -> ExitCode {
    if let Some(code) = readers::as_compiler() {
        return code;
    }
    let task = env::args().nth(1);
    let outcome = match task.as_deref() {
        Some("test") => test(&env::args().skip(2).collect::<Vec<_>>()),
        Some("setup") => setup(),
        Some("conformance") => return conformance(),
        Some("fuzz") => return fuzz(&env::args().skip(2).collect::<Vec<_>>()),
        Some("docs") => setup().and_then(|()| suites("recurve-conformance")).and_then(|mut c| {
            // The cases are tuned too, without changing the user's stored choices.
            c.args(["docs", "docs"]).env("RECURVE_TUNING_FILE", "");
            run(c)
        }),
        Some("compare") => compare(&env::args().skip(2).collect::<Vec<_>>()),
        Some("gpu") => gpu(&env::args().skip(2).collect::<Vec<_>>()),
        Some("portability") => portability::portability(&env::args().skip(2).collect::<Vec<_>>()),
        Some("python") => python::python_package(&env::args().skip(2).collect::<Vec<_>>()),
        Some("web") => web::web(&env::args().skip(2).collect::<Vec<_>>()),
        Some("lint") => lint(),
        _ => Err(
            "usage: cargo xtask test [--driver swiftshader] [ARGUMENTS FOR CARGO TEST] | setup | conformance | fuzz | docs \
             | compare | gpu | portability [PARTS] | python [ARGUMENTS FOR PYTEST] | web [build|serve] | lint"
                .into(),
        ),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: {e}");
            ExitCode::FAILURE
        }
    }
}

type Outcome<T = ()> = Result<T, String>;

/// The root of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace").into()
}

/// A command that runs in the root of the workspace.
fn command(program: impl AsRef<OsStr>) -> Command {
    let mut c = Command::new(program);
    c.current_dir(root());
    // Without a graphical session, Mesa's device selection prints an error for every instance.
    if env::var_os("XDG_RUNTIME_DIR").is_none() {
        c.env("NODEVICE_SELECT", "1");
    }
    c
}

fn cargo() -> Command {
    command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The `recurve` program from the last build.
fn program() -> Command {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), std::path::PathBuf::from);
    command(target.join("release").join(format!("recurve{}", env::consts::EXE_SUFFIX)))
}

fn run(mut c: Command) -> Outcome {
    eprintln!("xtask: {}", show(&c));
    match c.status() {
        Ok(s) if s.success() => Ok(()),
        Ok(s) => Err(format!("{} ended with {s}", show(&c))),
        Err(e) => Err(format!("{}: {e}", show(&c))),
    }
}

fn show(c: &Command) -> String {
    std::iter::once(c.get_program()).chain(c.get_args()).map(|a| a.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// The vector instructions of this machine except the widest, by their names in `RECURVE_SIMD`.
fn narrower() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
        return vec!["avx2", "scalar"];
    }
    vec!["scalar"]
}

/// Runs all tests: unit tests, doc tests, cross-checks, golden values, conformance, the command line, the Python
/// package.
fn test(arguments: &[String]) -> Outcome {
    if let [option, driver, rest @ ..] = arguments
        && option == "--driver"
    {
        return match driver.as_str() {
            "swiftshader" => test_on_swiftshader(rest),
            _ => Err(format!("--driver: expected swiftshader, got {driver:?}")),
        };
    }
    build_tests()?;
    setup_with(program)?;
    let mut c = cargo();
    // Optimised, because the f64 reference and the software rasteriser are slow.
    c.args(["test", "--release", "--workspace"]).args(arguments);
    run_tests(c)?;
    if !arguments.is_empty() {
        return Ok(());
    }
    // The CPU kernels again, with fewer vector instructions.
    for simd in narrower() {
        let mut c = cargo();
        // The whole workspace is selected, so that nothing is built again.
        c.args(["test", "--release", "--workspace", "--test", "kernels", "--test", "golden"]);
        eprintln!("xtask: RECURVE_SIMD={simd} RECURVE_TEST_PATHS=cpu");
        c.env("RECURVE_SIMD", simd).env("RECURVE_TEST_PATHS", "cpu");
        run_tests(c)?;
    }
    python::python_package(&[])?;
    web::web(&[])
}

/// Builds the tests, which includes the program. Building the program alone would compile most dependencies again,
/// because the tests enable more of their features.
fn build_tests() -> Outcome {
    let mut c = cargo();
    c.args(["test", "--release", "--workspace", "--no-run"]);
    run(c)
}

/// Runs the tests that use a GPU on SwiftShader.
fn test_on_swiftshader(arguments: &[String]) -> Outcome {
    let icd = drivers::swiftshader()?;
    build_tests()?;
    setup_with(|| {
        let mut c = program();
        c.env("VK_DRIVER_FILES", &icd);
        c
    })?;
    let mut c = cargo();
    c.env("VK_DRIVER_FILES", &icd);
    c.args(["test", "--release", "--workspace", "--no-fail-fast"]);
    if arguments.is_empty() {
        for test in ["kernels", "tensor_ops", "golden", "onnx", "options", "forms", "errors", "seeds"] {
            c.args(["--test", test]);
        }
    }
    c.args(arguments).env("RECURVE_TEST_DEVICE", "vulkan:SwiftShader");
    run_tests(c)
}

/// Runs tests, then prints which parts of them were skipped because the device lacks something.
fn run_tests(mut c: Command) -> Outcome {
    let file = root().join("target/test-skips.txt");
    match std::fs::remove_file(&file) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(format!("{}: {e}", file.display())),
        _ => {}
    }
    c.env("RECURVE_TEST_SKIPS", &file);
    let outcome = run(c);
    let skips = match std::fs::read_to_string(&file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        skips => skips.map_err(|e| format!("{}: {e}", file.display()))?,
    };
    let mut counts: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for (test, what) in skips.lines().filter_map(|l| l.split_once('\t')) {
        *counts.entry(what).or_default().entry(test).or_default() += 1;
    }
    if counts.is_empty() {
        eprintln!("xtask: nothing was skipped");
    }
    for (what, tests) in counts {
        let parts: usize = tests.values().sum();
        eprintln!("xtask: skipped for want of {what}: {parts} parts of {} tests:", tests.len());
        for (test, parts) in tests {
            eprintln!("xtask:   {test}: {parts}");
        }
    }
    outcome
}

/// A program of the tests, built with the whole workspace selected, so that nothing is built again.
fn suites(program: &str) -> Outcome<Command> {
    let mut c = cargo();
    c.args(["build", "--release", "--workspace", "--bin", program, "--message-format", "json"]);
    Ok(command(built(c, program)?))
}

/// The path of the last program that Cargo built whose file name starts with `name`, from Cargo's JSON output.
fn built(mut c: Command, name: &str) -> Outcome<PathBuf> {
    c.stderr(Stdio::inherit());
    let text = output(c)?;
    let paths = text.split("\"executable\":\"").skip(1).filter_map(|rest| rest.split('"').next());
    let paths = paths.map(|p| PathBuf::from(p.replace("\\\\", "\\")));
    let ours = paths.filter(|p| p.file_name().is_some_and(|f| f.to_string_lossy().starts_with(name)));
    ours.last().ok_or(format!("{name} was not built"))
}

/// The standard output of a command, if it succeeds.
fn output(mut c: Command) -> Outcome<String> {
    eprintln!("xtask: {}", show(&c));
    let out = c.output().map_err(|e| format!("{}: {e}", show(&c)))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    Err(format!("{} ended with {}: {}", show(&c), out.status, String::from_utf8_lossy(&out.stderr).trim()))
}

/// Runs ONNX cases. The exit code is 1 if a case failed or there were none.
fn conformance() -> ExitCode {
    let folder = env::var_os("RECURVE_ONNX_CASES").map(|d| std::path::absolute(d).unwrap_or_default());
    let outcome = setup().and_then(|()| suites("recurve-conformance")).and_then(|mut c| {
        c.arg("onnx").args(folder);
        c.status().map_err(|e| format!("{}: {e}", show(&c)))
    });
    exit_code(outcome)
}

/// The exit code of a program, or the reason why it did not run.
fn exit_code(outcome: Outcome<std::process::ExitStatus>) -> ExitCode {
    match outcome {
        Ok(status) => status.code().and_then(|c| u8::try_from(c).ok()).map_or(ExitCode::FAILURE, ExitCode::from),
        Err(e) => {
            eprintln!("xtask: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a fuzzer. The exit code is 1 if it found a failure.
fn fuzz(arguments: &[String]) -> ExitCode {
    match arguments.split_first() {
        Some((target, rest)) if readers::READERS.contains(&target.as_str()) => match readers::fuzz(target, rest) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => exit_code(Err(e)),
        },
        Some((target, _)) if target == "cells" => {
            exit_code(setup().and_then(|()| suites("recurve-fuzz")).and_then(|mut c| {
                c.args(arguments);
                c.status().map_err(|e| format!("{}: {e}", show(&c)))
            }))
        }
        _ => exit_code(Err(format!(
            "usage: cargo xtask fuzz cells [--runs N | --minutes M] [--seed S] [--device all|cpu|NAME] [--plan JSON \
             [--way NAME]] | {} [--runs N] [--seed S]",
            readers::READERS.join("|")
        ))),
    }
}

/// Ensures that there is a GPU adapter, a software one if necessary, and builds the program with its default features.
fn setup() -> Outcome {
    setup_with(|| {
        let mut c = cargo();
        c.args(["run", "--quiet", "--release", "--package", "recurve-cli", "--"]);
        c
    })
}

/// Ensures that there is a GPU adapter, a software one if necessary; `recurve` runs the program that lists the
/// adapters.
fn setup_with(recurve: impl Fn() -> Command) -> Outcome {
    if has_adapter(recurve())? {
        return Ok(());
    }
    let packages = ["mesa-vulkan-drivers", "libvulkan1"];
    let hint = format!(
        "no GPU adapter was found, and the tests of the GPU kernels never go without; install a driver \
         for your GPU, or a software one (Debian and Ubuntu: apt-get install {}; Fedora: dnf install \
         mesa-vulkan-drivers; Windows has WARP built in)",
        packages.join(" ")
    );
    drivers::install(&packages).map_err(|e| format!("{e}; {hint}"))?;
    if has_adapter(recurve())? { Ok(()) } else { Err(hint) }
}

fn has_adapter(mut c: Command) -> Outcome<bool> {
    c.args(["devices", "--json"]);
    eprintln!("xtask: {}", show(&c));
    // Standard error is passed through, to show the progress of a first build.
    let out = c.stderr(Stdio::inherit()).output().map_err(|e| e.to_string())?;
    if !out.status.success() {
        return Err(format!("{} ended with {}", show(&c), out.status));
    }
    let text = String::from_utf8_lossy(&out.stdout);
    Ok(text.contains("\"adapters\":[{"))
}

/// Builds the program with its default features.
fn build() -> Outcome {
    let mut c = cargo();
    c.args(["build", "--release", "--package", "recurve-cli"]);
    run(c)
}

/// Runs the comparison script; the caller's arguments follow the default ones.
fn peers(defaults: &[&str], arguments: &[String]) -> Outcome {
    let mut c = command(env::var_os("PYTHON").unwrap_or_else(|| "python3".into()));
    c.arg("benches/peers/run.py").args(defaults).args(arguments);
    run(c).map_err(|e| {
        format!("{e}; it needs Python with the peers: pip install numpy onnx onnxruntime torch matplotlib (PYTHON names another python3)")
    })
}

/// Compares with the peers in one run, on the CPU unless `--device` says otherwise.
fn compare(arguments: &[String]) -> Outcome {
    build()?;
    peers(&[], arguments)
}

/// Runs the tests first, because times of wrong results are worthless; then every strategy over common shapes, compared
/// with cuDNN if torch has it, and every layout for a few of them.
fn gpu(arguments: &[String]) -> Outcome {
    build()?;
    let mut devices = program();
    devices.args(["devices", "--json", "--device", "gpu"]);
    let out = devices.output().map_err(|e| e.to_string())?;
    if !out.status.success() {
        return Err(format!("there is no GPU: {}", String::from_utf8_lossy(&out.stderr).trim()));
    }
    let mut tests = cargo();
    tests.args(["test", "--release", "--workspace"]).env("RECURVE_TEST_DEVICE", "gpu");
    run_tests(tests)?;
    let folder = "benches/results";
    let mut candidates = program();
    candidates.args(["bench", "--device", "gpu", "--strategy", "candidates", "--cell", "lstm,gru,rnn"]);
    candidates.args(["--seq", "256", "--batch", "1,16", "--input", "128", "--hidden", "64,128,256,512,768,1024"]);
    candidates.args(["--seconds", "0.1", "--csv", &format!("{folder}/gpu_candidates.csv")]);
    run(candidates)?;
    let out = format!("{folder}/gpu_peers");
    peers(
        &[
            "--device",
            "gpu",
            "--grid",
            "--weights",
            "f32,f16",
            "--strategy",
            "all",
            "--rounds",
            "3",
            "--seconds",
            "0.05",
            "--out",
            &out,
        ],
        arguments,
    )
}

fn lint() -> Outcome {
    let mut fmt = cargo();
    fmt.args(["fmt", "--all", "--check"]);
    run(fmt)?;
    let mut clippy = cargo();
    clippy.args(["clippy", "--release", "--workspace", "--all-targets", "--", "--deny", "warnings"]);
    run(clippy)?;
    // The library without its features.
    let mut clippy = cargo();
    clippy.args(["clippy", "--release", "--package", "recurve", "--no-default-features", "--", "--deny", "warnings"]);
    run(clippy)?;
    python::lint()?;
    web::lint()
}
