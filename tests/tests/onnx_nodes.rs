//! The node tests of the `onnx` package, on every device and by the operators' truth in f64.

use recurve_tests::devices;
use recurve_tests::node_tests::NodeTest;
use recurve_tests::onnx::CaseError;
use std::collections::BTreeSet;

/// Every case passes but those that are listed as refused, and a refusal is the same everywhere.
#[test]
fn node_tests_pass_or_are_refused_as_listed() {
    let listed: BTreeSet<&str> = include_str!("../fixtures/onnx_nodes_refused.txt").lines().collect();
    let cases = NodeTest::fixtures();
    assert!(cases.len() > 800, "{} cases", cases.len());
    let (mut refused, mut wrong) = (BTreeSet::new(), Vec::new());
    let mut passed = 0;
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
                Err(CaseError::Failed(why)) => wrong.push(format!("{name} on {path}: {why}")),
            }
        }
    }
    println!("{passed} passed, {} cases refused, {} failed", refused.len(), wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(refused, listed);
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
