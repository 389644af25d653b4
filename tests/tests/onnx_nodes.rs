//! The node tests of the `onnx` package, on every device and by the operators' truth in f64.

use recurve::testing::{Tolerance, compare};
use recurve::{Device, OnnxOptions};
use recurve_tests::devices;
use recurve_tests::node_tests::{APART, NodeTest, PATHS, document, is_apart, run_all};
use recurve_tests::onnx::CaseError;
use std::collections::BTreeSet;

/// Every case passes but those that are listed as refused, and a refusal is the same everywhere. The page of operators
/// shows just that.
#[test]
fn node_tests_pass_or_are_refused_as_listed() {
    let listed: BTreeSet<&str> = include_str!("../fixtures/onnx_nodes_refused.txt").lines().collect();
    let all = run_all();
    assert!(all.len() > 800, "{} cases", all.len());
    let (mut refused, mut wrong) = (BTreeSet::new(), Vec::new());
    let (mut passed, mut apart) = (0, 0);
    for ran in &all {
        let name = &ran.name[..];
        for (path, outcome) in PATHS.iter().zip(&ran.outcomes) {
            match outcome {
                Ok(_) => passed += 1,
                Err(CaseError::Refused(why)) => {
                    if !listed.contains(name) {
                        println!("refused {name} on {path}: {why}");
                    }
                    refused.insert(name);
                }
                Err(CaseError::Failed(_)) if is_apart(name, path) => apart += 1,
                Err(CaseError::Failed(why)) => wrong.push(format!("{name} on {path}: {why}")),
            }
        }
    }
    println!("{passed} passed, {} cases refused, {} failed", refused.len(), wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(refused, listed);
    assert_eq!(apart, APART.iter().map(|(_, paths, _)| paths.len()).sum::<usize>(), "cases that do not agree");
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/onnx-operators.md");
    let page = std::fs::read_to_string(page).unwrap_or_default();
    assert!(page == document(&all), "docs/onnx-operators.md is not up to date: run `cargo xtask docs`");
}

/// A case whose output is another one fails.
#[test]
fn a_changed_output_fails() {
    let (_, case) = NodeTest::fixtures().into_iter().find(|(name, _)| name == "test_sigmoid").expect("a case");
    let device = recurve::Device::Cpu;
    case.run(&device).expect("the right output");
    for change in [0, 1, 2] {
        let case = case.clone().spoiled(change);
        assert!(matches!(case.run(&device), Err(CaseError::Failed(_))), "change {change}");
        assert!(matches!(case.reference(), Err(CaseError::Failed(_))), "change {change}");
    }
}

const RUNTIME: &[u8] = include_bytes!("../fixtures/onnx_runtime.bin.gz");

/// Operators beside ONNX Runtime (`golden/make_onnx_runtime.py`): whole numbers and rounding to short floats exactly.
#[test]
fn operators_agree_with_onnx_runtime() {
    let cases = NodeTest::from_file(RUNTIME);
    assert_eq!(cases.len(), 11);
    for (name, case) in &cases {
        // ONNX Runtime rounds what it multiplies with quantized weights to 8 bits, as the note says.
        let tolerance = Tolerance::new(if name.starts_with("quantized") { 3e-2 } else { 0.0 });
        for device in devices() {
            let model = case.model(&device, &OnnxOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(model.notes().len(), usize::from(name.starts_with("quantized")), "{name}: {:?}", model.notes());
            let got = case.outputs(&device, &OnnxOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(got.len(), case.expected().len());
            for (got, want) in got.iter().zip(case.expected()) {
                assert_eq!(got.shape, want.shape, "{name}");
                compare(&got.to_f32(), &want.to_f64(), tolerance).unwrap_or_else(|e| panic!("{name} on {device}: {e}"));
            }
        }
    }
}

/// Weights that a quantized LSTM reads wrongly are seen.
#[test]
fn quantized_weights_are_told_apart() {
    for (name, case) in NodeTest::from_file(RUNTIME).into_iter().filter(|(n, _)| n.starts_with("quantized")) {
        let got = case.outputs(&Device::Cpu, &OnnxOptions::default()).unwrap();
        // h in the place of c, and the rows of a batch exchanged.
        assert!(compare(&got[1].to_f32(), &case.expected()[2].to_f64(), Tolerance::new(3e-2)).is_err(), "{name}");
        let mut turned = case.expected()[1].to_f64();
        turned.rotate_left(4);
        assert!(compare(&got[1].to_f32(), &turned, Tolerance::new(3e-2)).is_err(), "{name}");
    }
}
