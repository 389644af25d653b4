//! The node tests of the `onnx` package, on every device and by the operators' truth in f64.

use recurve_tests::devices;
use recurve_tests::node_tests::NodeTest;
use recurve_tests::onnx::CaseError;
use std::collections::BTreeSet;

/// Cases that do not agree, and why that is right.
const APART: [(&str, &str, &str); 2] = [
    ("test_averagepool_2d_ceil_last_window_starts_on_pad", "", "four digits of each output are given"),
    ("test_dynamicquantizelinear_expanded", "f64", "a number half-way between two, which f64 is just below"),
];

/// Every case passes but those that are listed as refused, and a refusal is the same everywhere.
#[test]
fn node_tests_pass_or_are_refused_as_listed() {
    let listed: BTreeSet<&str> = include_str!("../fixtures/onnx_nodes_refused.txt").lines().collect();
    let cases = NodeTest::fixtures();
    assert!(cases.len() > 800, "{} cases", cases.len());
    let (mut refused, mut wrong) = (BTreeSet::new(), Vec::new());
    let (mut passed, mut apart) = (0, 0);
    for (name, case) in &cases {
        let on_devices = devices().into_iter().map(|d| (d.to_string(), case.run(&d)));
        for (path, outcome) in on_devices.chain([("f64".into(), case.reference())]) {
            match outcome {
                Ok(_) => passed += 1,
                Err(CaseError::Refused(why)) => {
                    if !listed.contains(&name[..]) {
                        println!("refused {name} on {path}: {why}");
                    }
                    refused.insert(&name[..]);
                }
                Err(CaseError::Failed(_)) if APART.iter().any(|(n, p, _)| n == name && path.contains(p)) => apart += 1,
                Err(CaseError::Failed(why)) => wrong.push(format!("{name} on {path}: {why}")),
            }
        }
    }
    println!("{passed} passed, {} cases refused, {} failed", refused.len(), wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(refused, listed);
    assert_eq!(apart, devices().len() + 2, "cases that do not agree");
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
