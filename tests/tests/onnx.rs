//! ONNX's own node tests, and random nodes on which ONNX Runtime and numpy agree.

use recurve::{CellKind, Direction};
use recurve_tests::onnx::{OnnxCase, TOLERANCE, cases};
use recurve_tests::{fixtures, paths};
use std::path::PathBuf;

fn folders(suite: &str, count: usize) -> Vec<PathBuf> {
    let all = cases(&fixtures().join(suite)).unwrap();
    assert_eq!(all.len(), count, "{suite}");
    all
}

fn run(suite: &str, count: usize) {
    for (device, strategy) in paths() {
        for folder in folders(suite, count) {
            let case = OnnxCase::read(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
            if let Err(e) = case.check(&device, strategy, TOLERANCE) {
                panic!("{} on {device} by {}: {e}", folder.display(), strategy.name());
            }
        }
    }
}

#[test]
fn all_18_onnx_node_cases() {
    run("onnx_node", 18);
}

#[test]
fn all_19_onnx_random_cases() {
    run("onnx_random", 19);
}

/// A wrong reading of a node must be caught by some case, else the suite proves nothing about it.
fn caught(name: &str, change: impl Fn(&mut OnnxCase) -> bool) {
    for (device, strategy) in paths() {
        let mut changed = 0;
        let mut wrong = 0;
        for folder in folders("onnx_random", 19) {
            let mut case = OnnxCase::read(&folder).unwrap();
            if change(&mut case) {
                changed += 1;
                wrong += usize::from(case.check(&device, strategy, TOLERANCE).is_err());
            }
        }
        assert!(changed > 0, "{name}: applies to no case");
        assert!(wrong > 0, "{name}: {changed} cases did not notice on {device} by {}", strategy.name());
    }
}

#[test]
fn wrong_readings_are_caught() {
    caught("gates f and o exchanged", |c| {
        let mut lstm = false;
        c.mutate(|cell, _| lstm = matches!(cell.kind, CellKind::Lstm { .. }));
        if lstm {
            c.swap_gates(1, 2);
        }
        lstm
    });
    caught("reset variant exchanged", |c| {
        let mut gru = false;
        c.mutate(|cell, _| {
            if let CellKind::Gru { reset_after } = &mut cell.kind {
                *reset_after = !*reset_after;
                gru = true;
            }
        });
        gru
    });
    caught("clip ignored", |c| {
        let mut clipped = false;
        c.mutate(|cell, _| clipped = cell.clip.take().is_some());
        clipped
    });
    caught("forward in place of reverse", |c| {
        let mut reversed = false;
        c.mutate(|_, d| {
            for d in d.iter_mut().filter(|d| **d == Direction::Reverse) {
                *d = Direction::Forward;
                reversed = true;
            }
        });
        reversed
    });
    caught("lengths ignored", OnnxCase::drop_lengths);
    caught("input_forget ignored", |c| {
        let mut coupled = false;
        c.mutate(|cell, _| {
            if cell.kind == (CellKind::Lstm { coupled: true }) {
                cell.kind = CellKind::Lstm { coupled: false };
                coupled = true;
            }
        });
        coupled
    });
}

/// The values themselves say what `clip` is: an LSTM written here for nothing else agrees with them if it
/// clamps the activations' inputs, and does not if it clamps the cell state.
#[test]
fn a_clamped_cell_state_in_place_of_clip_is_caught() {
    let cases: Vec<_> = folders("onnx_random", 19).iter().map(|f| OnnxCase::read(f).unwrap()).collect();
    let by_hand = |clamp_state| cases.iter().filter_map(|c| c.lstm_by_hand(clamp_state)).collect::<Vec<_>>();
    assert!(!by_hand(false).is_empty());
    assert!(by_hand(false).iter().all(|&e| e < 2e-6), "{:?}", by_hand(false));
    assert!(by_hand(true).iter().all(|&e| e > 1e-2), "{:?}", by_hand(true));
}
