//! ONNX's own node tests, and random nodes on which ONNX Runtime and numpy agree.

use recurve::{CellKind, Direction};
use recurve_tests::onnx::{CaseError, OnnxCase, Reading, TOLERANCE, cases};
use recurve_tests::{fixtures, paths};
use std::path::{Path, PathBuf};

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

/// All except two agree with ONNX Runtime's reading. Those two contain values by the specification's text, so they must
/// differ from it.
#[test]
fn all_71_cases_of_reports() {
    for (device, strategy) in paths() {
        let mut by_the_letter = Vec::new();
        for folder in folders("onnx_reports", 71) {
            let case = OnnxCase::read(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
            match case.check_readings(&device, strategy, TOLERANCE) {
                Ok((_, Reading::OnnxRuntime)) => {}
                Ok((_, Reading::Specification)) => {
                    by_the_letter.push(folder.parent().unwrap().file_name().unwrap().to_owned());
                }
                Err(e) => panic!("{} on {device} by {}: {e}", folder.display(), strategy.name()),
            }
        }
        assert_eq!(by_the_letter, ["onnx_thresholded_relu_at_alpha", "ort27224_clip_h_too"]);
    }
}

/// A case with one of its arrays replaced.
fn changed(into: &Path, case: &str, file: &str, bytes: &[u8]) -> PathBuf {
    let from = fixtures().join("onnx_node").join(case);
    let to = into.join(case);
    let data = to.join("test_data_set_0");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::copy(from.join("model.onnx"), to.join("model.onnx")).unwrap();
    for entry in std::fs::read_dir(from.join("test_data_set_0")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), data.join(entry.file_name())).unwrap();
    }
    std::fs::write(data.join(file), bytes).unwrap();
    data
}

/// The fields `dims` and `data_type` (float) of a TensorProto, without data.
fn empty_tensor(dims: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = dims.iter().flat_map(|&d| [8, d]).collect();
    bytes.extend([16, 1]);
    bytes
}

#[test]
fn no_timesteps_and_no_sequences_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for dims in [[0, 3, 2], [1, 0, 2], [1, 3, 0]] {
        let data = changed(dir.path(), "test_lstm_defaults", "input_0.pb", &empty_tensor(&dims));
        let e = OnnxCase::read(&data).unwrap_err();
        assert!(matches!(&e, CaseError::Refused(why) if why.contains("dimension of 0")), "{e}");
    }
    // Sizes that are negative or overflow.
    let minus = [8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 8, 3, 8, 2, 16, 1];
    let data = changed(dir.path(), "test_lstm_defaults", "input_0.pb", &minus);
    let e = OnnxCase::read(&data).unwrap_err();
    assert!(matches!(&e, CaseError::Failed(why) if why.contains("-1")), "{e}");
    let huge = [8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 8, 3, 8, 2, 16, 1];
    let data = changed(dir.path(), "test_lstm_defaults", "input_0.pb", &huge);
    assert!(matches!(OnnxCase::read(&data), Err(CaseError::Failed(_))));
}

/// The runner reports every case on every path, even after a case that cannot be read.
#[test]
fn cases_behind_a_bad_one_are_run() {
    let dir = tempfile::tempdir().unwrap();
    changed(&dir.path().join("a"), "test_lstm_defaults", "input_0.pb", &empty_tensor(&[0, 3, 2]));
    changed(&dir.path().join("b"), "test_lstm_defaults", "input_0.pb", b"no tensor");
    let whole = std::fs::read(fixtures().join("onnx_node/test_gru_defaults/test_data_set_0/input_0.pb")).unwrap();
    changed(&dir.path().join("c"), "test_gru_defaults", "input_0.pb", &whole);
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_recurve-conformance"))
        .arg("onnx")
        .arg(dir.path())
        .env("RECURVE_TEST_PATHS", "cpu")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert_eq!(out.status.code(), Some(1), "{text}");
    assert!(text.contains("refused  a/test_lstm_defaults/test_data_set_0 on cpu"), "{text}");
    assert!(text.contains("FAILED   b/test_lstm_defaults/test_data_set_0 on cpu"), "{text}");
    assert!(text.contains("passed   c/test_gru_defaults/test_data_set_0 on cpu"), "{text}");
    assert!(text.ends_with("1 passed, 1 refused, 1 failed\n"), "{text}");
    let panicked = recurve_tests::onnx::caught::<()>(|| panic!("at case {}", 7));
    assert_eq!(panicked, Err(CaseError::Failed("panicked: at case 7".into())));
}

/// A wrong reading of a node must be noticed by some case; otherwise the suite would not test it.
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

/// The expected values show what `clip` means: an LSTM written only for this test agrees with them if it clamps the
/// inputs of the activations, and does not if it clamps the cell state.
#[test]
fn a_clamped_cell_state_in_place_of_clip_is_caught() {
    let cases: Vec<_> = folders("onnx_random", 19).iter().map(|f| OnnxCase::read(f).unwrap()).collect();
    let by_hand = |clamp_state| cases.iter().filter_map(|c| c.lstm_by_hand(clamp_state)).collect::<Vec<_>>();
    assert!(!by_hand(false).is_empty());
    assert!(by_hand(false).iter().all(|&e| e < 2e-6), "{:?}", by_hand(false));
    assert!(by_hand(true).iter().all(|&e| e > 1e-2), "{:?}", by_hand(true));
}
