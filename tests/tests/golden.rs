//! Expected values from PyTorch, Keras and papers.

use recurve::{Activation, Bias, CellKind, GateOrder, RecurrentSpec, Weights};
use recurve_tests::onnx::CaseError;
use recurve_tests::parity::{Parity, cells, keras, pytorch, readings, slstm};
use recurve_tests::paths;

fn run(cases: &[Parity], at_least: usize) {
    assert!(cases.len() >= at_least, "{} cases", cases.len());
    for (device, strategy) in paths() {
        let wrong: Vec<String> =
            cases.iter().filter_map(|c| c.check(&device, strategy).err().map(|e| format!("{}: {e}", c.name))).collect();
        assert!(
            wrong.is_empty(),
            "{} of {} on {device} by {}:\n{}",
            wrong.len(),
            cases.len(),
            strategy.name(),
            wrong.join("\n")
        );
    }
}

#[test]
fn all_pytorch_cases() {
    run(&pytorch(), 336);
}

#[test]
fn all_keras_cases() {
    run(&keras(), 474);
}

#[test]
fn all_cells_of_papers() {
    run(&cells(), 73);
}

#[test]
fn both_readings_of_clip_and_thresholded_relu() {
    run(&readings(), 22);
    caught("the clip of the output activation exchanged", &readings(), |spec, _| {
        let clipped = spec.cell.clip.is_some();
        spec.cell.clip_output = clipped && !spec.cell.clip_output;
        clipped
    });
    caught("the threshold exchanged", &readings(), |spec, _| {
        let Activation::ThresholdedRelu { alpha } = &mut spec.cell.candidate else { return false };
        *alpha = if *alpha == 0.5 { 0.5f32.next_down() } else { 0.5 };
        true
    });
}

/// A wrong reading of the weights or options must be noticed by some case; otherwise the suite would not test it.
fn caught(name: &str, cases: &[Parity], change: impl Fn(&mut RecurrentSpec, &mut Weights) -> bool) {
    for (device, strategy) in paths() {
        let (mut changed, mut wrong) = (0, 0);
        for case in cases {
            let mut applies = false;
            let outcome = case.check_mutated(&device, strategy, &mut |s, w| applies |= change(s, w));
            if applies {
                changed += 1;
                // Counts wrong values, not layers that cannot be built any more.
                wrong += usize::from(matches!(&outcome, Err(CaseError::Failed(m)) if m.contains("exceeds")));
            }
        }
        assert!(changed > 0, "{name}: applies to no case");
        // A change may have no effect on some cases, such as another gate order where all gates are equal.
        assert!(2 * wrong > changed, "{name}: {wrong} of {changed} cases noticed on {device} by {}", strategy.name());
    }
}

#[test]
fn wrong_readings_of_the_slstm_are_caught() {
    let cases = slstm();
    caught("the other forget gate", &cases, |s, _| {
        let CellKind::SLstm { exponential_forget, .. } = &mut s.cell.kind else { return false };
        *exponential_forget = !*exponential_forget;
        true
    });
    caught("the paper's order of gates, z i f o", &cases, |s, w| {
        let names: Vec<_> = w.iter().map(|(n, _)| n.to_owned()).collect();
        for name in names {
            let a = w.get(&name).unwrap().clone();
            let values = a.values().unwrap();
            let gate = values.len() / 4;
            let data = [2, 0, 1, 3].iter().flat_map(|g| values[g * gate..][..gate].to_vec()).collect();
            w.insert(name, a.shape(), data).unwrap();
        }
        matches!(s.cell.kind, CellKind::SLstm { .. })
    });
    caught("heads that read the next head", &cases, |s, w| {
        let CellKind::SLstm { heads: 2.., .. } = s.cell.kind else { return false };
        let names: Vec<_> = w.iter().map(|(n, _)| n.to_owned()).filter(|n| n.contains("weight_hh")).collect();
        for name in names {
            let a = w.get(&name).unwrap().clone();
            let (mut data, size) = (a.values().unwrap().to_vec(), a.shape()[1]);
            // Moves the rows by one head.
            data.chunks_mut(s.units * size).for_each(|gate| gate.rotate_right(size * size));
            w.insert(name, a.shape(), data).unwrap();
        }
        true
    });
}

/// Permutes the gates of every matrix and bias of a layer, as if they had been in another order.
fn reorder(spec: &RecurrentSpec, weights: &mut Weights, order: GateOrder) {
    let kind = spec.cell.kind;
    let all: Vec<_> = weights.iter().map(|(n, a)| (n.to_owned(), a.clone())).collect();
    for (name, a) in all {
        let parts = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"];
        if a.shape()[0] == kind.gates() * spec.units && parts.iter().any(|p| name.contains(p)) {
            weights.insert(name, a.shape(), order.to_native(kind, &a.values().unwrap())).unwrap();
        }
    }
}

#[test]
fn wrong_readings_of_pytorch_are_caught() {
    let cases = pytorch();
    caught("ONNX's gate order", &cases, |s, w| {
        let gated = matches!(s.cell.kind, CellKind::Lstm { .. } | CellKind::Gru { .. });
        if gated {
            reorder(s, w, GateOrder::Onnx);
        }
        gated
    });
    caught("the other reset variant", &cases, |s, _| {
        let gru = matches!(s.cell.kind, CellKind::Gru { .. });
        // Without biases the variants still differ in what r multiplies.
        if gru {
            s.cell.kind = CellKind::Gru { reset_after: false };
        }
        gru
    });
    caught("tanh in place of relu", &cases, |s, _| {
        let relu = s.cell.candidate == Activation::Relu;
        if relu {
            s.cell.candidate = Activation::Tanh;
        }
        relu
    });
    caught("the second direction's weights in the first", &cases, |s, w| {
        let both = s.bidirectional.is_some();
        let names: Vec<_> = w.iter().map(|(n, _)| n.to_owned()).filter(|n| n.ends_with("_reverse")).collect();
        for reverse in names {
            let forward = reverse.trim_end_matches("_reverse").to_owned();
            let (a, b) = (w.get(&forward).unwrap().clone(), w.get(&reverse).unwrap().clone());
            w.extend([(forward, b), (reverse, a)]);
        }
        both
    });
}

#[test]
fn wrong_readings_of_keras_are_caught() {
    let cases = keras();
    caught("PyTorch's gate order of a GRU", &cases, |s, w| {
        let gru = matches!(s.cell.kind, CellKind::Gru { .. }) && s.bias != Bias::None;
        if gru {
            reorder(s, w, GateOrder::Keras);
        }
        gru
    });
    caught("zeros for masked outputs where h stands, or the reverse", &cases, |s, _| {
        // Only a mask that affects a visible output makes a difference.
        let masked = s.zero_output_for_mask && s.return_sequences && s.bidirectional.is_none();
        s.zero_output_for_mask &= !masked;
        masked
    });
    caught("Keras 2's hard_sigmoid", &cases, |s, _| {
        let three = Activation::HARD_SIGMOID_KERAS3;
        let applies = s.cell.gates == [three; 3];
        if applies {
            s.cell.gates = [Activation::HARD_SIGMOID_KERAS2; 3];
        }
        applies
    });
    caught("the state forgotten between calls", &cases, |s, _| {
        let stateful = s.stateful;
        s.stateful = false;
        stateful
    });
    caught("forwards in place of backwards", &cases, |s, _| {
        let back = s.go_backwards;
        s.go_backwards = false;
        back
    });
}

#[test]
fn wrong_readings_of_cells_are_caught() {
    let cases = cells();
    caught("layer normalization with another epsilon", &cases, |s, _| {
        let applies = s.cell.layer_norm.is_some();
        s.cell.layer_norm = s.cell.layer_norm.map(|_| 0.5);
        applies
    });
    caught("no zoneout", &cases, |s, _| s.cell.zoneout.take().is_some());
    caught("zoneout of h and c exchanged", &cases, |s, _| match &mut s.cell.zoneout {
        Some(z) if z.c != 0.0 => {
            std::mem::swap(&mut z.h, &mut z.c);
            true
        }
        _ => false,
    });
    caught("a linear candidate in place of log-space's", &cases, |s, _| {
        let applies = s.cell.candidate == Activation::Positive;
        if applies {
            s.cell.candidate = Activation::Linear;
        }
        applies
    });
}
