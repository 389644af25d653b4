//! Random shapes, directions, lengths and states: every path against the reference.

use proptest::prelude::*;
use recurve::testing::Tolerance;
use recurve::{Cell, CellKind, Direction};
use recurve_tests::{Case, paths};

fn cell() -> impl Strategy<Value = Cell> {
    prop_oneof![
        Just(Cell::RNN),
        Just(Cell::LSTM),
        Just(Cell { kind: CellKind::Lstm { coupled: true }, ..Cell::LSTM }),
        Just(Cell::GRU),
        Just(Cell::GRU_RESET_BEFORE),
        Just(Cell { clip: Some(0.5), ..Cell::LSTM }),
        Just(Cell { clip: Some(0.5), ..Cell::GRU }),
    ]
}

fn directions() -> impl Strategy<Value = Vec<Direction>> {
    use Direction::{Forward, Reverse};
    prop_oneof![Just(vec![Forward]), Just(vec![Reverse]), Just(vec![Forward, Reverse]), Just(vec![Reverse, Forward])]
}

proptest! {
    // Failures are kept in `property.proptest-regressions` and run first from then on.
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn every_path_agrees_with_the_reference(
        seed in any::<u64>(),
        cell in cell(),
        directions in directions(),
        (b, t, i, h) in (1usize..7, 1usize..9, 1usize..6, 1usize..48),
        states in any::<bool>(),
        lengths in any::<bool>(),
        chunk in 1usize..4,
    ) {
        let mut case = Case::random(seed, cell, &directions, [b, t, i, h]);
        if states {
            case = case.with_states(seed ^ 1);
        }
        if lengths {
            case = case.with_lengths();
        }
        let want = case.reference();
        let budget = chunk * directions.len() * b * cell.kind.gates() * h * 4;
        for (device, strategy) in paths() {
            case.check(&want, &device, strategy, budget, Tolerance::new(5e-6));
        }
    }
}
