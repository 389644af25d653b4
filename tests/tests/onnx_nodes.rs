//! The node tests of the `onnx` package, on every device and by the operators' truth in f64.

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
