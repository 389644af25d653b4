//! `cargo xtask portability [PART...]`: checks with other targets, compilers and drivers, on Debian 12. Without a name
//! the cheap parts run, with `all` every part. Debian's packages of the Rust toolchain, and packages from npm and PyPI,
//! are unpacked below `target/portability`; cross compilers, QEMU and Wine are installed, as root or through sudo.

use crate::drivers::{self, apt_download, unpack};
use crate::{Outcome, built, cargo, command, output, root, run, run_tests, show};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

struct Part {
    name: &'static str,
    about: &'static str,
    cheap: bool,
    run: fn() -> Outcome<String>,
}

const PARTS: [Part; 10] = [
    Part {
        name: "dependencies",
        about: "neither the library nor the Python package compiles C",
        cheap: true,
        run: dependencies,
    },
    Part {
        name: "features",
        about: "the library without its features but `reference` computes right",
        cheap: true,
        run: features,
    },
    Part { name: "tint", about: "WGSL samples in Tint, Chromium's compiler", cheap: true, run: tint },
    Part { name: "dxc", about: "HLSL samples in DXC", cheap: false, run: dxc },
    Part { name: "fxc", about: "HLSL samples in FXC, under Wine", cheap: false, run: fxc },
    Part { name: "wasm", about: "the library compiles for wasm32-unknown-unknown", cheap: false, run: wasm },
    Part { name: "macos", about: "checks for both macOS targets, with Metal", cheap: false, run: macos },
    Part { name: "aarch64", about: "CPU tests under QEMU, with NEON", cheap: false, run: aarch64 },
    Part { name: "windows", about: "CPU and Vulkan tests under Wine", cheap: false, run: windows },
    Part { name: "swiftshader", about: "GPU tests on SwiftShader", cheap: false, run: swiftshader },
];

/// Runs the named parts and prints the result of each; fails if one failed.
pub(crate) fn portability(arguments: &[String]) -> Outcome {
    let known = PARTS.iter().map(|p| format!("  {}: {}{}", p.name, p.about, if p.cheap { " (cheap)" } else { "" }));
    let known = known.collect::<Vec<_>>().join("\n");
    let all = arguments.iter().any(|a| a == "all");
    if let Some(unknown) = arguments.iter().find(|a| *a != "all" && PARTS.iter().all(|p| p.name != a.as_str())) {
        return Err(format!("portability: no part {unknown:?}; there are all, or\n{known}"));
    }
    let chosen = |p: &&Part| all || if arguments.is_empty() { p.cheap } else { arguments.iter().any(|a| a == p.name) };
    let outcomes: Vec<_> = PARTS.iter().filter(chosen).map(|p| (p, (p.run)())).collect();
    let failed = outcomes.iter().filter(|(_, o)| o.is_err()).count();
    for (part, outcome) in outcomes {
        match outcome {
            Ok(seen) => eprintln!("xtask: {}: {seen}", part.name),
            Err(e) => eprintln!("xtask: {} FAILED: {e}", part.name),
        }
    }
    if failed > 0 { Err(format!("{failed} parts of portability failed")) } else { Ok(()) }
}

/// A folder below `target/portability`.
fn folder(name: &str) -> PathBuf {
    root().join("target/portability").join(name)
}

/// Crates with names of system libraries that only contain declarations and compile nothing.
const DECLARATIONS: [&str; 9] = [
    "glutin_wgl_sys",
    "jni-sys",
    "js-sys",
    "linux-raw-sys",
    "ndk-sys",
    "renderdoc-sys",
    "wayland-sys",
    "web-sys",
    "windows-sys",
];

/// No dependency may need a compiler for another language, because a cross build may have none. The Python package is
/// a workspace of its own.
fn dependencies() -> Outcome<String> {
    let command = compiled(&["--package", "recurve-cli"])?;
    let python = compiled(&["--manifest-path", "python/Cargo.toml"])?;
    Ok(format!("{command} packages of the command, {python} of the Python package, no C"))
}

/// The number of packages that a package is built from; an error if one compiles C.
fn compiled(package: &[&str]) -> Outcome<usize> {
    let mut c = cargo();
    c.arg("tree").args(package).args(["--edges", "normal,build", "--target", "all"]);
    c.args(["--prefix", "none", "--format", "{p}"]);
    let tree = output(c)?;
    let mut names: Vec<&str> = tree.lines().filter_map(|l| l.split(' ').next()).collect();
    names.sort_unstable();
    names.dedup();
    let compiles = ["cc", "cmake", "bindgen", "autotools", "nasm-rs", "psm"];
    let wrong: Vec<_> = names
        .iter()
        .filter(|n| {
            let binding = n.ends_with("-sys") || n.ends_with("_sys");
            compiles.contains(n) || binding && !DECLARATIONS.contains(n)
        })
        .collect();
    if names.len() < 50 {
        return Err(format!("cargo tree showed {} packages only", names.len()));
    }
    if wrong.is_empty() { Ok(names.len()) } else { Err(format!("C or unknown: {wrong:?}")) }
}

/// Writes all shader samples in a target's language.
fn samples(target: &str, model: Option<&str>) -> Outcome<PathBuf> {
    let name = format!("samples/{target}{}", model.map(|m| format!("_{m}")).unwrap_or_default());
    let out = folder(&name);
    if out.exists() {
        // Samples of earlier runs must not be compiled.
        std::fs::remove_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    }
    let mut c = cargo();
    // The whole workspace is selected, so that nothing is built again.
    c.args(["build", "--release", "--workspace", "--example", "samples", "--message-format", "json"]);
    let mut samples = command(built(c, "samples")?);
    samples.args(["--target", target]).args(model.into_iter().flat_map(|m| ["--shader-model", m])).arg(&out);
    run(samples)?;
    Ok(out)
}

/// Installs Debian packages for missing programs or files.
fn need(wanted: &[(&str, &str)]) -> Outcome {
    let there = |what: &str| {
        if what.starts_with('/') {
            return Path::new(what).exists();
        }
        std::env::var_os("PATH").is_some_and(|p| std::env::split_paths(&p).any(|d| d.join(what).exists()))
    };
    let packages: Vec<&str> = wanted.iter().filter(|(what, _)| !there(what)).map(|(_, package)| *package).collect();
    if packages.is_empty() { Ok(()) } else { drivers::install(&packages) }
}

/// npm's `webgpu` package: Dawn for Node.js, and for Windows Direct3D's compilers.
fn dawn() -> Outcome<PathBuf> {
    let modules = folder("node/node_modules");
    if !modules.join("webgpu/index.js").exists() {
        need(&[("node", "nodejs"), ("npm", "npm")])?;
        std::fs::create_dir_all(folder("node")).map_err(|e| e.to_string())?;
        let mut npm = command("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]).arg(folder("node"));
        npm.arg("webgpu@0.6");
        run(npm)?;
    }
    Ok(modules)
}

/// Runs a checker over samples; its last line of output is the result.
fn checked(mut c: Command) -> Outcome<String> {
    eprintln!("xtask: {}", show(&c));
    let out = c.stderr(Stdio::inherit()).output().map_err(|e| format!("{}: {e}", show(&c)))?;
    let text = String::from_utf8_lossy(&out.stdout);
    let last = text.trim_end().lines().last().unwrap_or_default().to_owned();
    if out.status.success() {
        return Ok(last);
    }
    eprint!("{text}");
    Err(format!("{last} ({})", out.status))
}

fn tint() -> Outcome<String> {
    let (modules, samples) = (dawn()?, samples("wgsl", None)?);
    need(&[("node", "nodejs")])?;
    let mut node = command("node");
    node.arg("xtask/portability/tint.mjs").arg(modules).arg(samples);
    checked(node)
}

fn dxc() -> Outcome<String> {
    const VERSION: &str = "0.17.5";
    let at = folder("python");
    let library = at
        .join(format!("compushady-{VERSION}/compushady/backends"))
        .join(format!("libdxcompiler_{}.so.3.7", std::env::consts::ARCH));
    if !library.exists() {
        need(&[("python3", "python3"), ("pip3", "python3-pip")])?;
        std::fs::create_dir_all(&at).map_err(|e| e.to_string())?;
        let mut pip = command("pip3");
        pip.args(["download", "--no-deps", "--no-binary", "compushady", "--no-build-isolation", "--dest"]).arg(&at);
        pip.arg(format!("compushady=={VERSION}"));
        run(pip)?;
        let mut tar = command("tar");
        tar.arg("--extract").arg("--directory").arg(&at);
        tar.arg("--file").arg(at.join(format!("compushady-{VERSION}.tar.gz")));
        run(tar)?;
    }
    let samples = samples("hlsl", None)?;
    let mut python = command("python3");
    python.arg("xtask/portability/dxc.py").arg(library).arg(samples);
    checked(python)
}

const MINGW: (&str, &str) = ("x86_64-w64-mingw32-gcc", "gcc-mingw-w64-x86-64");
/// The path in Debian; the program `wine` needs 32-bit packages.
const WINE: &str = "/usr/lib/wine/wine64";

/// A Windows program under Wine, with its own home folder.
fn wine() -> Outcome<Command> {
    need(&[(WINE, "wine64")])?;
    let mut c = command(WINE);
    c.env("WINEPREFIX", folder("wine")).env("WINEDEBUG", "-all").env_remove("DISPLAY");
    Ok(c)
}

fn fxc() -> Outcome<String> {
    // An application would appear to hang if compiling a pipeline took longer.
    const SECONDS: &str = "3";
    let dll = dawn()?.join("webgpu/dist/win32-x64/d3dcompiler_47.dll");
    let samples = samples("hlsl", Some("5_1"))?;
    need(&[MINGW])?;
    let program = folder("fxc.exe");
    let mut gcc = command(MINGW.0);
    gcc.args(["-O2", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&program).arg("xtask/portability/fxc.c");
    run(gcc)?;
    // Files are given by name from their folder, because Windows paths differ.
    let mut files: Vec<OsString> = std::fs::read_dir(&samples)
        .map_err(|e| e.to_string())?
        .flatten()
        .map(|f| f.file_name())
        .filter(|n| Path::new(n).extension().is_some_and(|e| e == "hlsl"))
        .collect();
    files.sort();
    // Windows searches the program's folder first, Wine its own.
    std::fs::copy(&dll, folder("d3dcompiler_47.dll")).map_err(|e| format!("{}: {e}", dll.display()))?;
    let mut c = wine()?;
    // "n" (native): use this DLL instead of Wine's own.
    c.env("WINEDLLOVERRIDES", "d3dcompiler_47=n");
    c.current_dir(&samples).arg(program).args(["d3dcompiler_47.dll", SECONDS]).args(files);
    checked(c)
}

/// Debian's Rust with its source, unpacked, and the standard library of another architecture.
struct Toolchain {
    at: PathBuf,
}

impl Toolchain {
    /// All packages come from one list, so their versions match.
    fn new() -> Outcome<Self> {
        let at = folder("rust");
        let done = at.join("complete");
        if !done.exists() {
            if at.exists() {
                std::fs::remove_dir_all(&at).map_err(|e| format!("{}: {e}", at.display()))?;
            }
            // Only the source of the standard library.
            apt_download(&["rust-web-src"], &at, "amd64")?;
            unpack(&at, &["*/library/*", "*/rustlib/src/*"])?;
            let compiler = apt_download(&["rustc-web", "libstd-rust-web-dev"], &at, "amd64")?;
            // These packages have versions in their names: the compiler as a library, and its LLVM.
            let library = apt_download(&[&depends(&compiler, "libstd-rust-web-1")?], &at, "amd64")?;
            apt_download(&[&depends(&library, "libllvm")?], &at, "amd64")?;
            apt_download(&["libstd-rust-web-dev"], &at, "arm64")?;
            unpack(&at, &[])?;
            std::fs::write(&done, "").map_err(|e| format!("{}: {e}", done.display()))?;
        }
        Ok(Self { at })
    }

    /// Cargo for a target. If there is no standard library for it, `standard` names the parts to build from source.
    fn cargo(&self, task: &str, target: &str, standard: Option<&str>) -> Command {
        let mut c = cargo();
        c.args([task, "--target", target, "--target-dir"]).arg(folder("build"));
        if let Some(parts) = standard {
            // A stable compiler builds its standard library only with this variable.
            c.arg("-Zbuild-std=".to_owned() + parts).env("RUSTC_BOOTSTRAP", "1");
        }
        c.env("RUSTC", self.at.join("usr/bin/rustc")).env("RUSTDOC", self.at.join("usr/bin/rustdoc"));
        c.env("LD_LIBRARY_PATH", self.at.join("usr/lib/x86_64-linux-gnu"));
        c
    }
}

/// The first dependency of these packages whose name starts with `prefix`.
fn depends(packages: &[PathBuf], prefix: &str) -> Outcome<String> {
    for package in packages {
        let mut c = command("dpkg-deb");
        c.arg("--field").arg(package).arg("Depends");
        let depends = output(c)?;
        let mut names = depends.split(',').filter_map(|d| d.split_whitespace().next());
        if let Some(name) = names.find(|n| n.starts_with(prefix)) {
            return Ok(name.into());
        }
    }
    Err(format!("none of {packages:?} depends on {prefix}"))
}

/// The packages that make up the library.
const LIBRARY: [&str; 11] = [
    "recurve-vocabulary",
    "recurve-reference",
    "recurve-shaders",
    "recurve-tensor",
    "recurve-weights",
    "recurve-kernels",
    "recurve-graph",
    "recurve-layers",
    "recurve-formats",
    "recurve-train",
    "recurve",
];

fn features() -> Outcome<String> {
    let mut c = cargo();
    // Their expected values come from files and from the f64 references.
    c.args(["test", "--release", "--package", "recurve", "--no-default-features"]);
    c.args(["--features", "reference", "--test", "features"]);
    run(c)?;
    Ok("built without GPUs, threads, training and Keras files, the library computes what PyTorch and g2pM do".into())
}

fn wasm() -> Outcome<String> {
    let toolchain = Toolchain::new()?;
    let mut c = toolchain.cargo("check", "wasm32-unknown-unknown", Some("std,panic_abort"));
    c.arg("--lib").args(LIBRARY.iter().flat_map(|p| ["--package", p]));
    run(c)?;
    Ok(format!("{} packages of the library check", LIBRARY.len()))
}

fn macos() -> Outcome<String> {
    let toolchain = Toolchain::new()?;
    let targets = ["aarch64-apple-darwin", "x86_64-apple-darwin"];
    for target in targets {
        let mut c = toolchain.cargo("check", target, Some("std"));
        // No C compiler may be used by mistake.
        c.env("CC", "/bin/false").args(["--package", "recurve-cli"]);
        run(c)?;
    }
    Ok(format!("library and command check for {}", targets.join(" and ")))
}

fn aarch64() -> Outcome<String> {
    const TARGET: &str = "aarch64-unknown-linux-gnu";
    need(&[
        ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
        ("/usr/aarch64-linux-gnu/lib/ld-linux-aarch64.so.1", "libc6-dev-arm64-cross"),
        ("qemu-aarch64", "qemu-user"),
    ])?;
    let toolchain = Toolchain::new()?;
    let test = |arguments: &[&str]| {
        let mut c = toolchain.cargo("test", TARGET, None);
        c.arg("--release").args(arguments).env("RECURVE_TEST_PATHS", "cpu");
        c.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
        c.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", "qemu-aarch64 -L /usr/aarch64-linux-gnu");
        c
    };
    let packages = LIBRARY.iter().filter(|p| **p != "recurve").flat_map(|p| ["--package", p]);
    run_tests(test(&packages.chain(["--lib"]).collect::<Vec<_>>()))?;
    let suites = ["--package", "recurve-tests", "--test", "kernels", "--test", "golden", "--test", "onnx"];
    // All except a test that starts a program, which the emulator cannot do by itself.
    run_tests(test(&[&suites[..], &["--", "--skip", "cases_behind_a_bad_one_are_run"]].concat()))?;

    // The machine code shows that NEON is used for products and for f16 and int8 weights.
    let program = built(test(&[&suites[..4], &["--no-run", "--message-format", "json"]].concat()), "kernels")?;
    let code = output({
        let mut c = command("aarch64-linux-gnu-objdump");
        c.args(["--disassemble", "--no-show-raw-insn"]).arg(program);
        c
    })?;
    let mut seen = Vec::new();
    for (instruction, least) in [("fmla", 500), ("fcvtl", 10), ("sxtl", 10)] {
        let count = code.lines().filter(|l| l.split('\t').nth(1).is_some_and(|i| i.trim() == instruction)).count();
        if count < least {
            return Err(format!("{count} {instruction} in the machine code, expected {least} at least"));
        }
        seen.push(format!("{count} {instruction}"));
    }
    Ok(format!("CPU tests pass under QEMU; {}", seen.join(", ")))
}

fn windows() -> Outcome<String> {
    const TARGET: &str = "x86_64-pc-windows-gnu";
    need(&[MINGW, (WINE, "wine64"), ("/usr/lib/x86_64-linux-gnu/libvulkan.so.1", "libvulkan1")])?;
    need(&[("/usr/share/vulkan/icd.d/lvp_icd.x86_64.json", "mesa-vulkan-drivers")])?;
    // Wine supports Vulkan only with a display.
    need(&[("xvfb-run", "xvfb"), ("xauth", "xauth")])?;
    let toolchain = Toolchain::new()?;
    let in_wine = |mut c: Command| {
        c.env("WINEPREFIX", folder("wine")).env("WINEDEBUG", "-all");
        c
    };
    let cargo = |task: &str| {
        let mut c = in_wine(toolchain.cargo(task, TARGET, Some("std,panic_unwind,test")));
        c.env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER", format!("xvfb-run --auto-servernum {WINE}"));
        c.arg("--release");
        c
    };
    // The command by itself: all kinds of files that it reads, on the CPU and through Vulkan.
    let mut build = cargo("build");
    build.args(["--package", "recurve-cli"]);
    run(build)?;
    let programs = folder("build").join(TARGET).join("release");
    // In the programs' own folder, which Windows searches first.
    for at in [programs.clone(), programs.join("deps")] {
        let mut gcc = command(MINGW.0);
        gcc.args(["-shared", "-O2", "-Wall", "-Wextra", "-Werror", "-o"]).arg(at.join("bcryptprimitives.dll"));
        gcc.args(["xtask/portability/bcryptprimitives.c", "-ladvapi32"]);
        run(gcc)?;
    }
    for device in ["cpu", "vulkan:llvmpipe"] {
        let mut c = in_wine(command("xvfb-run"));
        c.args(["--auto-servernum", WINE]).arg(programs.join("recurve.exe"));
        c.args(["check", "models/g2pm.safetensors", "--device", device]);
        run(c)?;
    }
    let mut tests = cargo("test");
    tests.args(["--package", "recurve-tests", "--test", "kernels", "--test", "tensor_ops"]);
    tests.env("RECURVE_TEST_DEVICE", "vulkan:llvmpipe");
    run_tests(tests)?;
    Ok("checks, links; tests of kernels and tensors pass under Wine on the CPU and through Vulkan".into())
}

fn swiftshader() -> Outcome<String> {
    crate::test_on_swiftshader(&[])?;
    Ok("GPU tests pass".into())
}
