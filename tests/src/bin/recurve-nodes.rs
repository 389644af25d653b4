//! Runs ONNX's node tests: `recurve-nodes FOLDER [PART OF A NAME...]`. Each case runs on the CPU, on every GPU and by
//! the operators' truth in f64.

#![forbid(unsafe_code)]

use recurve::Device;
use recurve_tests::node_tests::{NodeTest, folders};
use recurve_tests::onnx::CaseError;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(folder) = arguments.next().map(PathBuf::from) else {
        eprintln!("usage: recurve-nodes FOLDER [PART OF A NAME...]");
        return ExitCode::from(2);
    };
    let parts: Vec<String> = arguments.collect();
    let cases = match folders(&folder) {
        Ok(all) if !all.is_empty() => all,
        Ok(_) => {
            eprintln!("{}: no cases", folder.display());
            return ExitCode::from(2);
        }
        Err(e) => {
            eprintln!("{}: {e}", folder.display());
            return ExitCode::from(2);
        }
    };
    let cpu_only = std::env::var("RECURVE_TEST_PATHS").is_ok_and(|p| p == "cpu");
    let devices = if cpu_only { vec![Device::Cpu] } else { Device::all() };
    // Passed, refused, failed, by what ran.
    let mut counts: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    for case in cases {
        let name = case.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !parts.is_empty() && !parts.iter().any(|p| name.contains(&p[..])) {
            continue;
        }
        let test = NodeTest::read(&case);
        let mut note = |path: String, outcome: Result<f64, CaseError>| {
            let (place, text) = match outcome {
                Ok(_) => (0, None),
                Err(CaseError::Refused(why)) => (1, Some(format!("refused {name} on {path}: {why}"))),
                Err(CaseError::Failed(why)) => (2, Some(format!("FAILED  {name} on {path}: {why}"))),
            };
            counts.entry(path).or_default()[place] += 1;
            if let Some(text) = text {
                println!("{text}");
            }
        };
        for device in &devices {
            note(device.to_string(), test.clone().and_then(|t| t.run(device)));
        }
        note("f64".into(), test.and_then(|t| t.reference()));
    }
    for (path, [passed, refused, failed]) in &counts {
        println!("{path}: {passed} passed, {refused} refused, {failed} failed");
    }
    let failed: usize = counts.values().map(|c| c[2]).sum();
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
