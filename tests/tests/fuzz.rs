//! A limited run of the differential fuzzer: a fixed number of random cells on the CPU and on the GPU, and a list of
//! plans, including those that have failed before. `cargo xtask fuzz cells` runs as many as it is told.

use recurve::Device;
use recurve_tests::fuzz::{Choice, Plan, seed_of};
use recurve_tests::{devices, fixtures, gpu};

/// Runs plans. Returns how many ran, or panics with the names of all plans that failed.
fn run(device: &Device, plans: impl Iterator<Item = Plan>, choice: Choice<'_>) -> (usize, usize) {
    let (mut passed, mut useless, mut wrong) = (0, 0, Vec::new());
    for plan in plans {
        let Some(report) = plan.check(device, choice) else {
            useless += 1;
            continue;
        };
        passed += report.passed;
        wrong.extend(report.faults.iter().map(|f| format!("`{}`: {}\n--plan '{plan}'", f.way, f.message)));
    }
    assert!(wrong.is_empty(), "{} wrong on {device}:\n{}", wrong.len(), wrong.join("\n"));
    (passed, useless)
}

#[test]
fn random_cells_on_the_cpu() {
    let (passed, useless) = run(&Device::Cpu, (0..400).map(|n| Plan::draw(seed_of(8, n), 3_000_000)), Choice::Some);
    assert!(passed > 300 && useless < 60, "{passed} passed, {useless} could not be compared");
}

#[test]
fn random_cells_on_the_gpu() {
    let (passed, useless) = run(&gpu(), (0..30).map(|n| Plan::draw(seed_of(9, n), 1_000_000)), Choice::Some);
    assert!(passed > 20 && useless < 8, "{passed} passed, {useless} could not be compared");
}

/// The fixture has a comment after `#`, then the plan.
#[test]
fn plans_that_every_run_includes() {
    let text = std::fs::read_to_string(fixtures().join("fuzz_cells.txt")).unwrap();
    let plans: Vec<Plan> = text
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .map(|l| l.parse().unwrap_or_else(|e| panic!("{l}: {e}")))
        .collect();
    assert!(!plans.is_empty());
    for device in devices() {
        let (_, useless) = run(&device, plans.iter().cloned(), Choice::All);
        assert_eq!(useless, 0, "a plan that cannot be compared proves nothing");
    }
}

#[test]
fn a_plan_is_the_line_that_it_is_written_as() {
    for n in 0..1000 {
        let plan = Plan::draw(seed_of(3, n), 1_000_000);
        assert_eq!(plan.to_string().parse::<Plan>().unwrap(), plan);
    }
}
