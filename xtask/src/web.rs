//! `cargo xtask web [PART OF A NAME...]`: builds the npm package `recurve-web` into `web/dist` and tests it in a
//! browser, by the files of `web/tests` whose names have such a part.
//! `cargo xtask web build`: builds it only. `cargo xtask web serve`: builds it and serves the demo page.
//!
//! What is missing is installed: the target of Rust by rustup, Node.js and Chromium from Debian's packages, the rest from
//! npm's registry into `web/tests/node_modules`.

use crate::{Outcome, cargo, command, drivers, output, root, run};
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const TARGET: &str = "wasm32-unknown-unknown";
const MANIFEST: &str = "web/Cargo.toml";

/// A module of the package. Of one that computes the first part of its name tells what it contains, the second for which
/// browsers it is compiled.
struct Variant {
    name: &'static str,
    package: &'static str,
    features: &'static str,
    /// Instructions besides those of 128-bit SIMD.
    relaxed: bool,
    /// Whether it has threads. Such a module has its own build of the standard library, for shared memory.
    threads: bool,
    /// Bytes that it may have when it is compressed by gzip.
    most: u64,
}

impl Variant {
    /// A module that computes, on one thread.
    const fn new(name: &'static str, features: &'static str, relaxed: bool, most: u64) -> Self {
        Self { name, package: "recurve-web", features, relaxed, threads: false, most }
    }
}

const VARIANTS: [Variant; 6] = [
    Variant::new("gpu_relaxed", "gpu,relaxed-simd", true, 1_750_000),
    Variant::new("gpu_simd", "gpu", false, 1_750_000),
    Variant::new("cpu_relaxed", "relaxed-simd", true, 1_000_000),
    Variant::new("cpu_simd", "", false, 1_000_000),
    Variant { threads: true, ..Variant::new("cpu_threads_relaxed", "relaxed-simd,threads", true, 1_050_000) },
    Variant { package: "recurve-web-keras", ..Variant::new("keras", "", false, 750_000) },
];

/// Extensions of WebAssembly that every browser with 128-bit SIMD has, and that Rust's target uses.
const INSTRUCTIONS: [&str; 7] =
    ["simd", "bulk-memory", "nontrapping-float-to-int", "sign-ext", "mutable-globals", "reference-types", "multivalue"];

/// What the linker needs for memory that threads share: its limit, and what `wasm-bindgen` uses to start a thread.
const SHARED_MEMORY: [&str; 8] = [
    "--shared-memory",
    "--import-memory",
    "--max-memory=4294967296",
    "--export=__wasm_init_tls",
    "--export=__tls_size",
    "--export=__tls_align",
    "--export=__tls_base",
    "--export=__heap_base",
];

/// Files of the repository that the demo page shows.
const MODELS: [&str; 4] = ["silero_vad.onnx", "gtcrn.onnx", "g2pm.safetensors", "noisy_speech.wav"];

fn folder() -> PathBuf {
    root().join("target/web")
}

/// Cargo for the packages in `web`.
fn cargo_web(task: &str) -> Command {
    let mut c = cargo();
    c.args([task, "--release", "--locked", "--manifest-path", MANIFEST]).env("CARGO_TARGET_DIR", folder());
    c
}

/// The target of Rust, by rustup.
fn target() -> Outcome {
    let libraries = output({
        let mut c = command(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        c.args(["--print", "target-libdir", "--target", TARGET]);
        c
    })?;
    if Path::new(libraries.trim()).exists() {
        return Ok(());
    }
    let mut c = command("rustup");
    c.args(["target", "add", TARGET]);
    run(c).map_err(|e| format!("{e}; the package for browsers needs Rust's target {TARGET}"))
}

/// Whether there is the source of Rust's standard library, which rustup installs.
fn has_source() -> Outcome<bool> {
    let sysroot = output({
        let mut c = command(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        c.args(["--print", "sysroot"]);
        c
    })?;
    if Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/Cargo.lock").exists() {
        return Ok(true);
    }
    let mut c = command("rustup");
    c.args(["component", "add", "rust-src"]);
    Ok(run(c).is_ok())
}

/// Installs Debian packages unless a program is there.
fn need(program: &str, packages: &[&str]) -> Outcome {
    if command(program).arg("--version").output().is_ok_and(|o| o.status.success()) {
        return Ok(());
    }
    drivers::install(packages)
}

/// The packages of npm that the build and the tests use, in `web/tests/node_modules`.
fn npm() -> Outcome {
    need("node", &["nodejs", "npm"])?;
    need("npm", &["npm"])?;
    let tests = root().join("web/tests");
    let stamp = tests.join("node_modules/.package-lock.json");
    let time = |p: &Path| std::fs::metadata(p).and_then(|m| m.modified()).ok();
    if time(&stamp) > time(&tests.join("package-lock.json")) {
        return Ok(());
    }
    let mut c = command("npm");
    c.args(["ci", "--no-audit", "--no-fund"]).current_dir(tests);
    run(c)
}

fn copy(from: &Path, to: &Path) -> Outcome {
    std::fs::copy(from, to).map(|_| ()).map_err(|e| format!("{} to {}: {e}", from.display(), to.display()))
}

fn folder_at(at: &Path) -> Outcome {
    std::fs::create_dir_all(at).map_err(|e| format!("{}: {e}", at.display()))
}

/// Builds one module and checks its size.
fn module(variant: &Variant, to: &Path) -> Outcome {
    let mut flags = "-C target-feature=".to_owned();
    if variant.threads {
        flags.push_str("+atomics,+bulk-memory,");
    }
    flags.push_str("+simd128");
    if variant.relaxed {
        flags.push_str(",+relaxed-simd");
    }
    if variant.threads {
        flags.extend(SHARED_MEMORY.map(|argument| format!(" -C link-arg={argument}")));
    }
    let mut c = cargo_web("build");
    c.args(["--package", variant.package, "--target", TARGET, "--features", variant.features]).env("RUSTFLAGS", flags);
    if variant.threads {
        // Only nightly compilers build the standard library, unless this is set.
        c.args(["-Z", "build-std=std,panic_abort"]).env("RUSTC_BOOTSTRAP", "1");
    }
    run(c)?;
    let name = format!("recurve_{}", variant.name);
    let mut c = command(folder().join("release/recurve-web-bindgen"));
    let made = format!("release/{}.wasm", variant.package.replace('-', "_"));
    c.arg(folder().join(TARGET).join(made)).arg(to).arg(&name);
    run(c)?;
    let wasm = to.join(format!("{name}_bg.wasm"));
    let mut c = command("node");
    c.arg("web/tests/node_modules/binaryen/bin/wasm-opt")
        .arg("-O3")
        .args(INSTRUCTIONS.map(|i| format!("--enable-{i}")));
    if variant.relaxed {
        c.arg("--enable-relaxed-simd");
    }
    if variant.threads {
        c.arg("--enable-threads");
    }
    c.arg(&wasm).arg("-o").arg(&wasm);
    run(c)?;
    let compressed = output({
        let mut c = command("node");
        let gzip =
            "console.log(require('zlib').gzipSync(require('fs').readFileSync(process.argv[1]),{level:9}).length)";
        c.args(["-e", gzip]).arg(&wasm);
        c
    })?;
    let bytes: u64 = compressed.trim().parse().map_err(|e| format!("{compressed:?}: {e}"))?;
    eprintln!("xtask: {name}: {:.2} MB when compressed", bytes as f64 / 1e6);
    if bytes > variant.most {
        return Err(format!("{name} has {bytes} bytes when compressed, but may have {}", variant.most));
    }
    Ok(())
}

/// Builds the package.
fn build() -> Outcome {
    let begun = Instant::now();
    target()?;
    npm()?;
    let dist = root().join("web/dist");
    if dist.exists() {
        std::fs::remove_dir_all(&dist).map_err(|e| format!("{}: {e}", dist.display()))?;
    }
    let wasm = dist.join("wasm");
    folder_at(&wasm)?;
    let mut c = cargo_web("build");
    c.args(["--package", "recurve-web-bindgen"]);
    run(c)?;
    let threads = has_source()?;
    for variant in &VARIANTS {
        if variant.threads && !threads {
            eprintln!(
                "xtask: recurve_{} is left out: it needs Rust's component rust-src, which rustup did not install; \
                 the package works without it, on one thread",
                variant.name
            );
            continue;
        }
        module(variant, &wasm)?;
    }
    let files = std::fs::read_dir(root().join("web/js")).map_err(|e| format!("web/js: {e}"))?;
    for file in files.flatten() {
        copy(&file.path(), &dist.join(file.file_name()))?;
    }
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        copy(&root().join(licence), &dist.join(licence))?;
    }
    let models = root().join("web/demo/models");
    folder_at(&models)?;
    for model in MODELS {
        copy(&root().join("models").join(model), &models.join(model))?;
    }
    eprintln!("xtask: the package is in web/dist, after {} s", begun.elapsed().as_secs());
    Ok(())
}

/// Builds the package and tests it.
fn test(arguments: &[String]) -> Outcome {
    build()?;
    let browser = env::var("CHROMIUM").unwrap_or_else(|_| "chromium".into());
    need(&browser, &["chromium"])?;
    let tests = root().join("web/tests");
    let mut types = command("node");
    types.args(["node_modules/typescript/bin/tsc", "-p", "."]).current_dir(&tests);
    run(types)?;
    let files = std::fs::read_dir(&tests).map_err(|e| format!("{}: {e}", tests.display()))?;
    let names = files.flatten().filter_map(|f| f.file_name().into_string().ok());
    let is_test = |n: &String| n.ends_with(".test.js") || n.ends_with(".test.mjs");
    let mut names: Vec<_> = names
        .filter(is_test)
        .filter(|n| arguments.is_empty() || arguments.iter().any(|a| n.contains(&a[..])))
        .collect();
    names.sort();
    if names.is_empty() {
        return Err(format!("no file of tests in web/tests has a name with {}", arguments.join(" or ")));
    }
    // One file after the other: they share the cores.
    let mut failed = Vec::new();
    for name in names {
        let begun = Instant::now();
        let mut c = command("node");
        c.args(["--test", &name]).current_dir(&tests);
        if let Err(e) = run(c) {
            eprintln!("xtask: {e}");
            failed.push(name.clone());
        }
        eprintln!("xtask: {name}: {} s", begun.elapsed().as_secs());
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("tests failed in {}", failed.join(", "))) }
}

pub(crate) fn web(arguments: &[String]) -> Outcome {
    match arguments.split_first() {
        Some((task, [])) if task == "build" => build(),
        Some((task, rest)) if task == "serve" => {
            build()?;
            let mut c = command("node");
            c.arg("web/tests/server.mjs").args(rest);
            run(c)
        }
        _ => test(arguments),
    }
}

/// Formatting, and clippy for the package's own target.
pub(crate) fn lint() -> Outcome {
    let mut fmt = cargo();
    fmt.args(["fmt", "--all", "--check", "--manifest-path", MANIFEST]);
    run(fmt)?;
    target()?;
    let all = ["gpu", "relaxed-simd", "relaxed-simd,threads"].map(|features| ("recurve-web", features));
    for (package, features) in all.into_iter().chain([("recurve-web-errors", ""), ("recurve-web-keras", "")]) {
        let mut c = cargo_web("clippy");
        c.args(["--package", package, "--target", TARGET, "--features", features]);
        c.args(["--", "--deny", "warnings"]);
        run(c)?;
    }
    let mut c = cargo_web("clippy");
    c.args(["--package", "recurve-web-bindgen", "--", "--deny", "warnings"]);
    run(c)
}
