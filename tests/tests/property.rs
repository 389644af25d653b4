//! Random shapes, directions, lengths and states: every path compared with the reference.

use proptest::prelude::*;
use recurve::testing::Tolerance;
use recurve::{Activation, Cell, CellKind, Direction, MaskedOutput, Zoneout};
use recurve_tests::{Case, paths};

fn activation() -> impl Strategy<Value = Activation> {
    prop_oneof![
        Just(Activation::Sigmoid),
        Just(Activation::Tanh),
        Just(Activation::HARD_SIGMOID_KERAS2),
        Just(Activation::Softsign),
        Just(Activation::ScaledTanh { alpha: 0.9, beta: 0.7 }),
        Just(Activation::LeakyRelu { alpha: 0.1 }),
    ]
}

/// Cells with random options of their kind; projection and peepholes are added later, with the sizes.
fn cell() -> impl Strategy<Value = Cell> {
    let kinds = prop_oneof![
        Just(Cell::RNN),
        Just(Cell::LSTM),
        Just(Cell { kind: CellKind::Lstm { coupled: true }, ..Cell::LSTM }),
        Just(Cell::GRU),
        Just(Cell::GRU_RESET_BEFORE),
        Just(Cell::INDRNN),
        Just(Cell::MINGRU),
        Just(Cell::MINLSTM),
        Just(Cell::SLSTM),
        Just(Cell::with_kind(CellKind::SLstm { heads: 1, exponential_forget: true })),
    ];
    let gate = prop_oneof![Just(Activation::Sigmoid), Just(Activation::HARD_SIGMOID_KERAS3)];
    let options = (
        [gate.clone(), gate.clone(), gate],
        proptest::option::of(activation()),
        proptest::option::of(Just(0.5f32)),
        proptest::option::of(Just(1e-3f32)),
        proptest::option::of((0.0f32..0.5, 0.0f32..0.5)),
    );
    (kinds, options).prop_map(|(cell, (gates, candidate, clip, layer_norm, zoneout))| {
        let lstm = matches!(cell.kind, CellKind::Lstm { .. });
        let normal = lstm || cell.kind == (CellKind::Gru { reset_after: true });
        let zones = lstm || matches!(cell.kind, CellKind::Rnn | CellKind::Gru { .. });
        // A minimal LSTM divides by the sum of its gates, which must not both be 0.
        let gates = match cell.kind {
            CellKind::MinLstm => cell.gates,
            CellKind::SLstm { .. } => [cell.gates[0], cell.gates[1], gates[2]],
            _ => gates,
        };
        Cell {
            gates,
            candidate: candidate.unwrap_or(cell.candidate),
            clip,
            layer_norm: layer_norm.filter(|_| normal),
            zoneout: zoneout.filter(|_| zones).map(|(h, c)| Zoneout { h, c: if lstm { c } else { 0.0 } }),
            ..cell
        }
    })
}

fn directions() -> impl Strategy<Value = Vec<Direction>> {
    use Direction::{Forward, Reverse};
    prop_oneof![Just(vec![Forward]), Just(vec![Reverse]), Just(vec![Forward, Reverse]), Just(vec![Reverse, Forward])]
}

proptest! {
    // Failures are stored in `property.proptest-regressions` and run first in later runs.
    #![proptest_config(ProptestConfig { cases: 80, ..ProptestConfig::default() })]

    #[test]
    fn every_path_agrees_with_the_reference(
        seed in any::<u64>(),
        cell in cell(),
        directions in directions(),
        (b, t, i, h) in (1usize..7, 1usize..9, 1usize..6, 2usize..48),
        states in any::<bool>(),
        (lengths, mask, repeat) in (any::<bool>(), any::<bool>(), any::<bool>()),
        (projection, peepholes, half) in (any::<bool>(), any::<bool>(), any::<bool>()),
        chunk in 1usize..4,
    ) {
        let lstm = matches!(cell.kind, CellKind::Lstm { .. });
        let cell = Cell { projection: (lstm && projection).then_some(h.div_ceil(3)), ..cell };
        let mut case = Case::random(seed, cell, &directions, [b, t, i, h]);
        if lstm && peepholes {
            case = case.with_peepholes(seed ^ 2);
        }
        if states {
            case = case.with_states(seed ^ 1);
        }
        if lengths {
            case = case.with_lengths();
        } else if mask {
            case = case.with_mask(seed ^ 3, if repeat { MaskedOutput::Repeat } else { MaskedOutput::Zero });
        }
        if half {
            case = case.with_f16_weights();
        }
        let want = case.reference();
        let budget = chunk * directions.len() * b * cell.kind.gates() * h * 4;
        let tolerance = Tolerance::new(if cell.layer_norm.is_some() { 3e-5 } else { 5e-6 });
        for (device, strategy) in paths() {
            case.check(&want, &device, strategy, budget, tolerance);
        }
    }
}
