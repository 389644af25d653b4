//! `recurve-conformance onnx [DIR]` runs ONNX cases, `recurve-conformance docs DIR` writes the generated pages,
//! `recurve-conformance page DIR` writes only the page of all cases. `cargo xtask conformance` and `cargo xtask docs`
//! call it.

#![forbid(unsafe_code)]

use recurve::Device;
use recurve_tests::onnx::{CaseError, OnnxCase, Reading, TOLERANCE, cases, caught};
use recurve_tests::{conformance, fixtures, gpu, node_tests, numerics, paths};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["onnx"] => Ok(onnx(&fixtures())),
        ["onnx", folder] => Ok(onnx(Path::new(folder))),
        ["docs", folder] => docs(Path::new(folder)).and_then(|()| page(Path::new(folder))),
        ["page", folder] => page(Path::new(folder)),
        _ => Err("usage: recurve-conformance onnx [DIR] | docs DIR | page DIR".into()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::from(2)
        }
    }
}

/// Runs every case below a folder on every path. Prints a line for each and the counts at the end. Returns whether at
/// least one case ran and none failed.
fn onnx(folder: &Path) -> bool {
    let all = cases(folder).unwrap_or_else(|e| {
        eprintln!("{}: {e}", folder.display());
        Vec::new()
    });
    let (mut passed, mut refused, mut failed) = (0, 0, 0);
    for data in &all {
        let name = data.strip_prefix(folder).unwrap_or(data).display();
        let case = caught(|| OnnxCase::read(data));
        for (device, strategy) in paths() {
            let path = match device.gpu() {
                Some(_) => format!("gpu {}", strategy.name()),
                None => "cpu".into(),
            };
            // A case that cannot be read is still printed once per path, so that the lines of two runs can be compared.
            let outcome = match &case {
                Ok(case) => case.check_readings(&device, strategy, TOLERANCE),
                Err(e) => Err(e.clone()),
            };
            match outcome {
                Ok((worst, reading)) => {
                    passed += 1;
                    let how = match reading {
                        Reading::OnnxRuntime => "",
                        Reading::Specification => ", by the letter of the specification",
                    };
                    println!("passed   {name} on {path}: worst error {worst:.1e}{how}");
                }
                Err(CaseError::Refused(why)) => {
                    refused += 1;
                    println!("refused  {name} on {path}: {why}");
                }
                Err(CaseError::Failed(why)) => {
                    failed += 1;
                    println!("FAILED   {name} on {path}: {why}");
                }
            }
        }
    }
    println!("{passed} passed, {refused} refused, {failed} failed");
    failed == 0 && passed > 0
}

fn write(folder: &Path, name: &str, text: String) -> Result<(), String> {
    let path: PathBuf = folder.join(name);
    std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))
}

fn docs(folder: &Path) -> Result<(), String> {
    write(folder, "onnx-operators.md", node_tests::document(&node_tests::run_all()))?;
    write(folder, "numerics.md", numerics::document(numerics::Row::worst_seen))
}

/// Runs every case on every path, writes the page with the results and prints the failures. Returns whether there were
/// none.
fn page(folder: &Path) -> Result<bool, String> {
    // Tuning during this run must not change the user's stored choices.
    if std::env::var_os("RECURVE_TUNING_FILE").is_none() {
        return Err("RECURVE_TUNING_FILE must be set, perhaps to nothing: the cases are tuned too".into());
    }
    // A separate device, so that other users of the GPU do not change its counters.
    let device = Device::by_name(&format!("{}:{}", gpu().backend(), gpu().name())).map_err(|e| e.to_string())?;
    let runs = conformance::run(&device);
    write(folder, "conformance.md", conformance::document(&runs))?;
    let failures = conformance::failures(&runs);
    failures.iter().for_each(|line| println!("FAILED   {line}"));
    Ok(failures.is_empty() && !runs.is_empty())
}
