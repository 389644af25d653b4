//! The gradients of the f64 reference against central differences of its own forward pass.

use recurve::{Cell, CellKind, Direction, MaskedOutput};
use recurve_reference::{Recurrence, activate, gradient};
use recurve_tests::Random;
use recurve_tests::training::{DIRECTIONS, TrainingCase, cells, list};
use recurve_vocabulary::{Activation, DirectionWeights};

/// The distance of the points of a difference.
const STEP: f64 = 1e-5;

/// The truncation of a difference of four points is some `STEP`⁴ (1e-20) times the fifth derivative; rounding is that of
/// a loss of up to 100 in f64 (1e-14) by `STEP`.
const BOUND: f64 = 2e-8;

/// The derivative at 0 of a function.
fn slope(f: impl Fn(f64) -> f64) -> f64 {
    (8.0 * (f(STEP) - f(-STEP)) - (f(2.0 * STEP) - f(-2.0 * STEP))) / (12.0 * STEP)
}

fn close(got: f64, want: f64) -> bool {
    (got - want).abs() <= BOUND * (1.0 + want.abs())
}

/// The largest number of elements that are not close; the names of the parts that have one.
fn wrong(case: &TrainingCase, change: f64) -> Vec<String> {
    let mut wrong = Vec::new();
    case.differences(|a, drawn, g, n| {
        let mut check = |name: &str, values: &[f64], by: &[f64], loss: &dyn Fn(&[f64]) -> f64| {
            assert_eq!(values.len(), by.len(), "{name}");
            for e in 0..values.len() {
                let want = slope(|by| {
                    let mut v = values.to_vec();
                    v[e] += by;
                    loss(&v)
                });
                if !close(by[e] + change, want) {
                    wrong.push(format!("{name}[{e}] of direction {n}: {} by the tape, {want} by differences", by[e]));
                }
            }
        };
        let state = |s: Option<&[f64]>, len: usize| s.map_or_else(|| vec![0.0; len], <[f64]>::to_vec);
        let (h0, c0) = (state(a.h0, g.h0.len()), state(a.c0, g.c0.len()));
        check("x", a.x, &g.x, &|x| case.loss(n, &Recurrence { x, ..*a }, drawn));
        check("h0", &h0, &g.h0, &|h0| case.loss(n, &Recurrence { h0: Some(h0), ..*a }, drawn));
        // The states of an empty sLSTM are where its definition has a step.
        if a.c0.is_some() || !matches!(a.cell.kind, CellKind::SLstm { .. }) {
            check("c0", &c0, &g.c0, &|c0| case.loss(n, &Recurrence { c0: Some(c0), ..*a }, drawn));
        }
        let weights = list(a.weights.clone());
        for (part, by) in list(g.weights.clone()).iter().enumerate() {
            check(recurve_kernels::TrainingWeights::<()>::NAMES[part], &weights[part], by, &|v| {
                let mut parts = weights.clone();
                parts[part] = v.to_vec();
                let [w_ih, w_hh, b_ih, b_hh, peepholes, w_hr, norm_ih, norm_hh, norm_c] = parts;
                let rest = a.weights.rest;
                let w = DirectionWeights { w_ih, w_hh, b_ih, b_hh, peepholes, w_hr, norm_ih, norm_hh, norm_c, rest };
                case.loss(n, &Recurrence { weights: &w, ..*a }, drawn)
            });
        }
    });
    wrong
}

fn right(case: &TrainingCase) {
    let wrong = wrong(case, 0.0);
    assert!(wrong.is_empty(), "{:?} {:?}: {wrong:#?}", case.case.cell, case.case.directions[0].0);
}

const SIZES: [usize; 4] = [3, 4, 2, 4];

#[test]
fn every_cell_and_option() {
    for (n, cell) in cells().into_iter().enumerate() {
        let mut case = TrainingCase::random(100 + n as u64, cell, DIRECTIONS[n % 2], SIZES);
        right(&case);
        case.case = case.case.with_states(7);
        right(&case);
        let mut lengths = case.clone();
        lengths.case = lengths.case.with_lengths();
        right(&lengths);
        for output in [MaskedOutput::Zero, MaskedOutput::Repeat] {
            let mut masked = case.clone();
            masked.case = masked.case.with_mask(5, output);
            right(&masked);
        }
    }
}

#[test]
fn both_directions_and_missing_gradients() {
    for cell in [Cell::LSTM, Cell::GRU, Cell::SLSTM] {
        for directions in DIRECTIONS {
            let case = TrainingCase::random(1, cell, directions, SIZES);
            right(&case);
            right(&TrainingCase { dy: None, ..case.clone() });
            right(&TrainingCase { dh: None, ..case.clone() });
            right(&TrainingCase { dc: None, ..case });
        }
    }
}

#[test]
fn what_training_draws() {
    for (n, cell) in cells().into_iter().enumerate() {
        let case = TrainingCase::random(300 + n as u64, cell, DIRECTIONS[n % 2], SIZES);
        if !matches!(cell.kind, CellKind::MinGru | CellKind::MinLstm) {
            right(&case.clone().with_recurrent_dropout(3, 1));
            right(&case.clone().with_recurrent_dropout(4, cell.kind.gates()));
        }
        if matches!(cell.kind, CellKind::Rnn | CellKind::Lstm { .. } | CellKind::Gru { .. }) {
            right(&case.with_zoneout(5));
        }
    }
}

/// The derivative of every activation, away from corners.
#[test]
fn every_activation() {
    for f in Activation::ALL {
        for x in Random(9).floats(64, 3.0).into_iter().map(f64::from) {
            let got = gradient(&[x], |v| vec![(activate(f, v[0]), 1.0)])[0];
            let want = slope(|by| activate(f, x + by));
            assert!(close(got, want), "{f:?} at {x}: {got}, expected {want}");
        }
    }
}

/// The comparison finds a gradient that is wrong by little, and a loss that is another.
#[test]
fn a_wrong_gradient_is_found() {
    let case = TrainingCase::random(1, Cell::LSTM, &[Direction::Forward], SIZES);
    right(&case);
    let all = wrong(&case, 1e-5).len();
    assert!(all > 100, "{all} were found");
}
