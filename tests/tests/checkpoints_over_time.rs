//! Recurrent layers for training that keep the states of a few timesteps, against those that keep everything.

use recurve::{Cell, CellKind, Device, MaskedOutput, Tensor};
use recurve_kernels::{Checkpoints, OutputGradients, TrainingWeights, Wanted};
use recurve_tests::training::{DIRECTIONS, Named, TrainingCase, cells, named};
use recurve_tests::wanted_gpu;

/// The gradients by the weights are sums over segments in place of sums over all timesteps, and the others come of products
/// of fewer rows, with the carried gradient rounded once between segments. Each sum of n terms of f32 may differ by some
/// roundings (6e-8) of the largest term for each of them.
const BOUND: f64 = 4e-6;

/// Everything that both forms compute: with all kept, and with checkpoints.
fn both(case: &TrainingCase, device: &Device) -> [Named<f32>; 2] {
    let layer = case.layer();
    let t = case.tensors(&layer, device).unwrap();
    let (weights, args) = (t.weights(), t.args());
    let (out, g) = t.run(&layer).unwrap();
    let few = layer.forward_with_checkpoints(&t.x, &weights, &args).unwrap();
    let wanted = Wanted::default();
    let h = layer.backward_from_checkpoints(&t.x, &weights, &args, &few.checkpoints, &t.by(), wanted).unwrap();
    let mut other = Named::new();
    let mut add = |name: &str, t: Option<&Tensor>| other.extend(t.map(|t| (name.into(), t.to_vec().unwrap())));
    add("y", Some(&few.y));
    add("x", h.x.as_ref());
    add("h", Some(&few.h));
    add("c", few.c.as_ref());
    add("h0", h.h0.as_ref());
    add("c0", h.c0.as_ref());
    for (n, w) in h.weights.iter().enumerate() {
        for (name, t) in TrainingWeights::<()>::NAMES.iter().zip(w.as_ref().into_list()) {
            add(&format!("{name} {n}"), t);
        }
    }
    [named(&out, &g).unwrap(), other]
}

/// Checks both forms of a case. On the CPU outputs and final states have the same bits.
fn check(what: &str, case: &TrainingCase, device: &Device) {
    let [whole, few] = both(case, device);
    let names = |all: &Named<f32>| all.iter().map(|v| v.0.clone()).collect::<Vec<_>>();
    assert_eq!(names(&whole), names(&few), "{what}");
    for ((name, a), (_, b)) in whole.iter().zip(&few) {
        assert_eq!(a.len(), b.len(), "{what}: {name}");
        let same = ["y", "h", "c"].contains(&&**name);
        if same && *device == Device::Cpu {
            assert_eq!(a, b, "{what}: {name}");
        }
        let scale = a.iter().fold(1.0f64, |m, v| m.max(f64::from(v.abs())));
        for (n, (a, b)) in a.iter().zip(b).enumerate() {
            let error = (f64::from(*a) - f64::from(*b)).abs();
            assert!(error <= BOUND * scale, "{what}: {name}[{n}]: {a} and {b}");
        }
    }
}

fn devices() -> Vec<Device> {
    std::iter::once(Device::Cpu).chain(wanted_gpu()).collect()
}

/// Eleven timesteps: segments of 4, 4 and 3.
const SIZES: [usize; 4] = [3, 11, 4, 6];

#[test]
fn every_cell_has_the_gradients_that_it_has_with_everything_kept() {
    for device in devices() {
        // Each cell has pipelines of its own, which a GPU that is a program compiles for seconds.
        let every = if device.gpu().is_some() { 8 } else { 1 };
        for (n, cell) in cells().into_iter().enumerate().step_by(every) {
            let case = TrainingCase::random(n as u64, cell, DIRECTIONS[n % 4], SIZES);
            check(&format!("{cell:?} on {device}"), &case, &device);
        }
    }
}

#[test]
fn states_lengths_masks_draws_and_layouts() {
    for device in devices() {
        let cells = [Cell::LSTM, Cell::GRU, Cell::RNN, Cell::MINGRU, Cell::SLSTM];
        let few = if device.gpu().is_some() { 1 } else { cells.len() };
        for cell in cells.into_iter().take(few) {
            for (n, directions) in DIRECTIONS.into_iter().enumerate() {
                let plain = TrainingCase::random(7, cell, directions, SIZES);
                let with = |change: &dyn Fn(&mut TrainingCase)| {
                    let mut case = plain.clone();
                    change(&mut case);
                    case
                };
                let mut all = vec![
                    ("states", with(&|c| c.case = c.case.clone().with_states(8))),
                    ("lengths", with(&|c| c.case.lengths = Some(vec![11, 5, 0]))),
                    ("short", with(&|c| c.case.lengths = Some(vec![3, 4, 1]))),
                    ("mask", with(&|c| c.case = c.case.clone().with_mask(9, MaskedOutput::Repeat))),
                    ("mask, zeros", with(&|c| c.case = c.case.clone().with_mask(9, MaskedOutput::Zero))),
                    ("time first", with(&|c| c.time_major = true)),
                    ("reading order", with(&|c| c.reading_order = true)),
                    ("both", with(&|c| (c.time_major, c.reading_order) = (true, true))),
                    ("no dy", with(&|c| c.dy = None)),
                    ("dy alone", with(&|c| (c.dh, c.dc) = (None, None))),
                ];
                if !cell.kind.is_pointwise() {
                    all.push(("table", plain.clone().with_table(3, 6)));
                    all.push(("dropout", plain.clone().with_recurrent_dropout(3, 1)));
                    all.push(("dropout of gates", plain.clone().with_recurrent_dropout(3, cell.kind.gates())));
                }
                if matches!(cell.kind, CellKind::Rnn | CellKind::Lstm { .. } | CellKind::Gru { .. }) {
                    let zoneout = plain.clone().with_zoneout(5);
                    all.push(("zoneout", TrainingCase { case: zoneout.case.clone().with_states(2), ..zoneout }));
                }
                for (name, case) in all {
                    check(&format!("{name}: {cell:?}, directions {n}, on {device}"), &case, &device);
                }
            }
        }
    }
}

#[test]
fn any_number_of_timesteps() {
    for t in [1, 2, 3, 4, 5, 9, 10, 16, 17, 40] {
        for directions in [DIRECTIONS[0], DIRECTIONS[2]] {
            let case = TrainingCase::random(1, Cell::LSTM, directions, [2, t, 3, 17]);
            check(&format!("{t}"), &case, &Device::Cpu);
            let layer = case.layer();
            let tensors = case.tensors(&layer, &Device::Cpu).unwrap();
            let out = layer.forward_with_checkpoints(&tensors.x, &tensors.weights(), &tensors.args()).unwrap();
            // One state for each segment of ⌈√T⌉ timesteps.
            let length = (t as f64).sqrt().ceil() as usize;
            let want = [directions.len(), t.div_ceil(length), 2, 17];
            assert_eq!(out.checkpoints.h.dims(), want);
            assert_eq!(out.checkpoints.c.unwrap().dims(), want);
        }
    }
}

/// What is not asked for is not computed, and the rest does not change.
#[test]
fn parts_of_the_gradients() {
    let case = TrainingCase::random(2, Cell::LSTM, DIRECTIONS[2], SIZES);
    let layer = case.layer();
    let t = case.tensors(&layer, &Device::Cpu).unwrap();
    let (weights, args) = (t.weights(), t.args());
    let kept = layer.forward_with_checkpoints(&t.x, &weights, &args).unwrap().checkpoints;
    let run = |wanted| layer.backward_from_checkpoints(&t.x, &weights, &args, &kept, &t.by(), wanted).unwrap();
    let all = run(Wanted::default());
    for [x, states, own] in [[true, false, false], [false, true, false], [false, false, true]] {
        let g = run(Wanted { x, states, weights: own, ..Wanted::default() });
        assert_eq!((g.x.is_some(), g.h0.is_some(), g.c0.is_some()), (x, states, states));
        assert_eq!(g.weights.len(), if own { 2 } else { 0 });
        let same = |a: Option<&Tensor>, b: Option<&Tensor>| {
            if let (Some(a), Some(b)) = (a, b) {
                assert_eq!(a.to_vec().unwrap(), b.to_vec().unwrap());
            }
        };
        same(g.x.as_ref(), all.x.as_ref());
        same(g.h0.as_ref(), all.h0.as_ref());
        same(g.weights.first().map(|w| &w.w_ih), Some(&all.weights[0].w_ih));
    }
}

#[test]
fn bad_checkpoints_are_errors() {
    let case = TrainingCase::random(2, Cell::LSTM, DIRECTIONS[0], SIZES);
    let layer = case.layer();
    let t = case.tensors(&layer, &Device::Cpu).unwrap();
    let (weights, args) = (t.weights(), t.args());
    let kept = layer.forward_with_checkpoints(&t.x, &weights, &args).unwrap().checkpoints;
    let refused = |kept: &Checkpoints, by: OutputGradients<'_>, parts: &[&str]| {
        let g = layer.backward_from_checkpoints(&t.x, &weights, &args, kept, &by, Wanted::default());
        let text = g.expect_err("refused").to_string();
        assert!(parts.iter().all(|p| text.contains(p)), "{text:?} does not contain {parts:?}");
    };
    let less = |t: &Tensor| t.slice(1, 0..2).unwrap();
    refused(&Checkpoints::new(less(&kept.h), kept.c.clone()), t.by(), &["`checkpoints.h`", "[1, 3, 3, 6]"]);
    refused(&Checkpoints::new(kept.h.clone(), None), t.by(), &["`checkpoints.c`", "missing"]);
    let c = kept.c.as_ref().map(less);
    refused(&Checkpoints::new(kept.h.clone(), c), t.by(), &["`checkpoints.c`", "[1, 3, 3, 6]"]);
    refused(&kept, OutputGradients { y: Some(&kept.h), ..t.by() }, &["`dy`"]);
    let gru = TrainingCase::random(2, Cell::GRU, DIRECTIONS[0], SIZES);
    let (layer, t) = (gru.layer(), gru.tensors(&gru.layer(), &Device::Cpu).unwrap());
    let g = layer.backward_from_checkpoints(&t.x, &t.weights(), &t.args(), &kept, &t.by(), Wanted::default());
    assert!(g.expect_err("refused").to_string().contains("`checkpoints.c` is not kept"));
}
