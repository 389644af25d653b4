//! `cargo xtask fuzz READER`: libFuzzer on one of the readers of files, starting with its corpus.

use crate::{Outcome, cargo, command, root, run};
use std::env;
use std::process::{Command, ExitCode};

/// The targets of `fuzz/`.
pub(crate) const READERS: [&str; 7] = ["npy", "npz", "model", "keras", "onnx", "pytorch", "text"];

/// The packages that are instrumented, so that libFuzzer sees which branches a run took: those that parse files.
const INSTRUMENTED: [&str; 18] = [
    "recurve_formats",
    "recurve_graph",
    "recurve_layers",
    "recurve_weights",
    "recurve_fuzz_readers",
    "rawzip",
    "flate2",
    "miniz_oxide",
    "safetensors",
    "hdf5_reader",
    "npy",
    "npz",
    "prost",
    "model",
    "pytorch",
    "onnx",
    "keras",
    "text",
];

/// Stable compiler flags for coverage. Compared with `cargo fuzz` only the address sanitizer is missing, and no reader
/// contains unsafe code.
const COVERAGE: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// Set while building: this program then acts as the compiler.
const AS_COMPILER: &str = "RECURVE_XTASK_IS_RUSTC";

/// If this program was called as the compiler, runs the compiler, with additional flags for instrumented packages, and
/// returns its exit code.
pub(crate) fn as_compiler() -> Option<ExitCode> {
    env::var_os(AS_COMPILER)?;
    let mut arguments = env::args_os().skip(1);
    let mut rustc = Command::new(arguments.next()?);
    let arguments: Vec<_> = arguments.collect();
    let name = arguments.iter().position(|a| a == "--crate-name").and_then(|at| arguments.get(at + 1));
    if name.is_some_and(|name| INSTRUMENTED.iter().any(|i| name == i)) {
        rustc.args(COVERAGE);
    }
    let status = rustc.args(arguments).status();
    Some(
        status.ok().and_then(|s| s.code()).and_then(|c| u8::try_from(c).ok()).map_or(ExitCode::FAILURE, ExitCode::from),
    )
}

/// Builds the instrumented target and runs it. Failing inputs are written to `fuzz/artifacts`.
pub(crate) fn fuzz(reader: &str, arguments: &[String]) -> Outcome {
    let usage = || format!("usage: cargo xtask fuzz {reader} [--runs N] [--seed S]");
    let (mut runs, mut seed) = (100_000, 1);
    for pair in arguments.chunks(2) {
        let number = || pair.get(1).and_then(|v| v.parse::<u32>().ok()).ok_or_else(usage);
        match pair[0].as_str() {
            "--runs" => runs = number()?,
            "--seed" => seed = number()?,
            _ => return Err(usage()),
        }
    }
    let this = env::current_exe().map_err(|e| e.to_string())?;
    let mut build = cargo();
    build.args(["build", "--release", "--manifest-path", "fuzz/Cargo.toml", "--target-dir", "fuzz/target"]);
    build.args(["--bin", reader]).env("RUSTC_WRAPPER", this).env(AS_COMPILER, "1");
    run(build)?;
    let (work, corpus) = (format!("fuzz/work/{reader}"), format!("fuzz/corpus/{reader}"));
    for folder in [&work, "fuzz/artifacts"] {
        std::fs::create_dir_all(root().join(folder)).map_err(|e| format!("{folder}: {e}"))?;
    }
    let mut target = command(root().join("fuzz/target/release").join(reader));
    // New inputs are written to the first folder.
    target.args([&work, &corpus]).args([format!("-runs={runs}"), format!("-seed={seed}")]);
    target.args(["-timeout=10", "-rss_limit_mb=2048", "-max_len=65536", "-print_final_stats=1"]);
    target.arg(format!("-artifact_prefix=fuzz/artifacts/{reader}-"));
    run(target)
}
