//! The recurrent kernels compared with the f64 reference: `lstm_scan`, `lstm_step`, `gru_scan`, `gru_step`, `rnn_scan`,
//! `rnn_step`, `slstm_scan`, `slstm_step`, `general_scan`, `general_step`, `pointwise_scan`, `linear_scan`,
//! `linear_carry` and their CPU counterparts.

use recurve::testing::{Tolerance, compare};
use recurve::{
    Activation, Cell, CellKind, Device, Direction, ForwardArgs, MaskedOutput, Outputs, Recurrent, RecurrentConfig,
    Strategy, Tensor, WeightStorage, Zoneout,
};
use recurve_tests::skips::has_f16;
use recurve_tests::{Case, Random, compare_f32, own_gpu, paths, wanted_gpu, wide};

const ALL: usize = 64 << 20;
const BOTH: [Direction; 2] = [Direction::Forward, Direction::Reverse];

/// Cells that the fused kernels run.
fn fused() -> Vec<Cell> {
    let coupled = Cell { kind: CellKind::Lstm { coupled: true }, ..Cell::LSTM };
    vec![Cell::RNN, Cell::LSTM, coupled, Cell::GRU, Cell::GRU_RESET_BEFORE, Cell::SLSTM, slstm(1, true)]
}

fn slstm(heads: usize, exponential_forget: bool) -> Cell {
    Cell::with_kind(CellKind::SLstm { heads, exponential_forget })
}

/// Cells with one option each that changes the computation of a timestep.
fn optional() -> Vec<Cell> {
    let zoneout = Some(Zoneout { h: 0.2, c: 0.3 });
    let h_only = Some(Zoneout { h: 0.4, c: 0.0 });
    let coupled = CellKind::Lstm { coupled: true };
    vec![
        Cell { zoneout: h_only, ..Cell::RNN },
        Cell { zoneout, ..Cell::LSTM },
        Cell { zoneout: h_only, ..Cell::GRU },
        Cell { zoneout: h_only, ..Cell::GRU_RESET_BEFORE },
        Cell { layer_norm: Some(1e-5), ..Cell::LSTM },
        Cell { layer_norm: Some(1e-3), ..Cell::GRU },
        Cell { layer_norm: Some(1e-5), zoneout, kind: coupled, ..Cell::LSTM },
        Cell { layer_norm: Some(1e-5), zoneout: h_only, clip: Some(0.7), ..Cell::GRU },
        Cell::INDRNN,
        Cell { candidate: Activation::Tanh, clip: Some(0.7), ..Cell::INDRNN },
        Cell::MINGRU,
        Cell { candidate: Activation::Positive, ..Cell::MINGRU },
        Cell::MINLSTM,
        Cell { candidate: Activation::Tanh, clip: Some(0.7), ..Cell::MINLSTM },
        Cell { candidate: Activation::Softsign, clip: Some(0.7), ..Cell::SLSTM },
        Cell { gates: [Activation::HARD_SIGMOID_KERAS2, Activation::Softsign, Activation::Sigmoid], ..Cell::LSTM },
        Cell { gates: [Activation::HARD_SIGMOID_KERAS2, Activation::Sigmoid, Activation::Tanh], ..Cell::GRU },
    ]
}

fn cells() -> Vec<Cell> {
    [fused(), optional()].concat()
}

/// LSTM cells with a projection of h, for H hidden units.
fn projected(hidden: usize) -> Vec<Cell> {
    let projection = Some((hidden / 2).max(1));
    let zoneout = Some(Zoneout { h: 0.2, c: 0.3 });
    vec![
        Cell { projection, ..Cell::LSTM },
        Cell { projection, layer_norm: Some(1e-5), zoneout, clip: Some(1.5), ..Cell::LSTM },
    ]
}

/// The size of the projection of two timesteps, in bytes, so that a sequence takes many chunks.
fn two_steps(case: &Case) -> usize {
    let [b, _, _, h] = case.sizes;
    2 * case.directions.len() * b * case.cell.kind.gates() * h * 4
}

fn check(case: &Case, tolerance: Tolerance) {
    let want = case.reference();
    for (device, strategy) in paths() {
        for budget in [ALL, two_steps(case)] {
            case.check(&want, &device, strategy, budget, tolerance);
        }
    }
}

/// Layer normalization divides by a standard deviation that may be small, which magnifies rounding errors.
fn bound(cell: &Cell) -> Tolerance {
    Tolerance::new(if cell.layer_norm.is_some() { 2e-5 } else { 3e-6 })
}

#[test]
fn every_cell_at_sizes_around_every_edge() {
    // H around the lanes of a vector (16), multiples of 32 (workgroups) and of 4 (vec4); B around tiles of 4.
    for (n, h) in [1, 3, 15, 16, 17, 31, 32, 33, 65, 130].into_iter().enumerate() {
        let b = [1, 2, 3, 4, 5, 9][n % 6];
        let t = [1, 2, 17][n % 3];
        // With a single element, layer normalization would divide by a standard deviation of zero.
        let rest = if [3, 17, 32, 130].contains(&h) { [optional(), projected(h)].concat() } else { Vec::new() };
        for cell in [fused(), rest].concat() {
            check(&Case::random(n as u64, cell, &BOTH, [b, t, 1 + n % 5, h]).with_states(99), bound(&cell));
        }
    }
}

#[test]
fn heads_read_themselves_only() {
    for (heads, h) in [(2, 6), (4, 20), (3, 33), (33, 33), (4, 300)] {
        for exponential_forget in [false, true] {
            let cell = slstm(heads, exponential_forget);
            let case = Case::random(17, cell, &BOTH, [3, 5, 3, h]).with_states(18).with_lengths();
            check(&case, bound(&cell));
            check(&case.with_mask(19, MaskedOutput::Repeat).without_lengths(), bound(&cell));
        }
    }
}

#[test]
fn lengths_cut_every_direction() {
    for cell in cells().into_iter().chain(projected(20)) {
        check(&Case::random(5, cell, &BOTH, [6, 5, 3, 20]).with_states(6).with_lengths(), bound(&cell));
    }
    for cell in fused() {
        check(&Case::random(5, cell, &BOTH, [3, 9, 3, 33]).with_states(6).with_lengths(), bound(&cell));
    }
}

#[test]
fn masks_with_holes_hold_the_state() {
    for cell in cells().into_iter().chain(projected(20)) {
        for shown in [MaskedOutput::Zero, MaskedOutput::Repeat] {
            let case = Case::random(5, cell, &BOTH, [6, 40, 3, 20]).with_states(6).with_mask(7, shown);
            check(&case, bound(&cell));
        }
    }
}

#[test]
fn f16_weights_are_rounded_and_summed_in_f32() {
    for cell in cells().into_iter().chain(projected(20)) {
        let case = Case::random(8, cell, &BOTH, [3, 9, 5, 20]).with_states(9).with_f16_weights();
        check(&case, bound(&cell));
        // The rounding has an effect: the same layer with f32 weights gives other results.
        let exact = Case { weights: WeightStorage::F32, ..Case::random(8, cell, &BOTH, [3, 9, 5, 20]).with_states(9) };
        let error = compare(&case.run(&Device::Cpu, Strategy::Auto, ALL).y, &exact.reference().y, Tolerance::F16);
        let error = error.expect("within the bound of f16 storage").worst_error;
        assert!(error > 1e-6, "{cell:?}: nothing was rounded");
    }
}

/// All layouts of `scan` and `step`, and `grid`, not only the one the device would choose: sums shared by lanes with
/// and without subgroups, weights in registers, tiles of rows.
#[test]
fn every_candidate_gives_the_same_result() {
    let Some(gpu) = wanted_gpu() else { return };
    let f16 = has_f16(&gpu);
    let mut layouts = std::collections::BTreeSet::new();
    let clipped = Cell { clip: Some(0.5), candidate: Activation::Softsign, ..Cell::LSTM };
    let coupled = Cell { kind: CellKind::Lstm { coupled: true }, ..Cell::LSTM };
    // One shape for each cell, with all its layouts, because compiling takes long.
    let cases = [
        (Cell::RNN, [1, 7, 5, 32], false),
        (Cell::GRU, [9, 5, 3, 33], true),
        (clipped, [3, 4, 2, 70], false),
        (Cell::GRU_RESET_BEFORE, [2, 3, 4, 130], true),
        (Cell::LSTM, [5, 2, 3, 17], false),
        (coupled, [4, 3, 1, 64], false),
        (slstm(2, false), [3, 4, 2, 34], false),
    ];
    for (n, (cell, sizes, half)) in cases.into_iter().enumerate() {
        let case = Case::random(60 + n as u64, cell, &BOTH, sizes).with_states(61);
        let case = match (n % 3, half) {
            (0, false) => case.with_lengths(),
            (1, _) => case.with_mask(5, MaskedOutput::Repeat),
            _ => case,
        };
        let case = if half && f16 { case.with_f16_weights() } else { case };
        let want = case.reference();
        let layer = case.layer(&gpu);
        for candidate in layer.candidates(sizes[0], sizes[1]).unwrap() {
            layouts.insert(candidate.to_string());
            // Also with chunks of two timesteps.
            let row = 4 * 2 * sizes[0] * cell.kind.gates() * sizes[3];
            for budget in [ALL, 2 * row] {
                let (got, by) = case.run_with(&layer, Strategy::Auto, Some(candidate), budget);
                // Only `grid` may give up and be replaced by `step`.
                let gave_up = candidate.strategy() == Strategy::Grid && by == Strategy::Step;
                assert!(by == candidate.strategy() || gave_up, "{candidate} by {by:?}");
                for (got, want) in [(&got.y, &want.y), (&got.h, &want.h), (&got.c, &want.c)] {
                    if want.is_empty() {
                        continue;
                    }
                    compare(got, want, bound(&cell)).unwrap_or_else(|e| panic!("{cell:?} {sizes:?} {candidate}: {e}"));
                }
            }
        }
    }
    // A layout of another size is refused.
    let [small, large] = [16, 300].map(|h| Case::random(1, Cell::LSTM, &[Direction::Forward], [1, 1, 2, h]));
    let x = Tensor::from_f32(&small.x, &[1, 1, 2], &gpu).unwrap();
    for candidate in large.layer(&gpu).candidates(1, 1).unwrap() {
        let args = ForwardArgs { candidate: Some(candidate), ..ForwardArgs::default() };
        assert!(small.layer(&gpu).forward(&x, &args).unwrap_err().to_string().contains("another layer"));
    }
    for part in ["split 8", "rows 4", "registers", "step rows 1 units 32", "step rows 8"] {
        assert!(layouts.iter().any(|l| l.contains(part)), "{part} not in {layouts:?}");
    }
}

/// `lstm_grid`, `gru_grid`, `rnn_grid`, `slstm_grid`: the result is right whether or not the workgroups run at the same
/// time, or the call is refused if the probe did not see that. `limits.rs` tests what happens if the probe saw it and
/// they do not.
#[test]
fn grid_is_right_or_falls_back_to_step() {
    let Some(gpu) = wanted_gpu() else { return };
    let mut ways = Vec::new();
    for (cell, h) in [
        (Cell::LSTM, 16),
        (Cell::GRU, 32),
        (Cell::RNN, 64),
        (Cell::LSTM, 600),
        (Cell::RNN, 1000),
        (slstm(4, false), 16),
    ] {
        let case = Case::random(70, cell, &[Direction::Forward], [2, 9, 3, h]).with_states(71);
        let want = case.reference();
        let x = Tensor::from_f32(&case.x, &[2, 9, 3], &gpu).unwrap();
        let grid = ForwardArgs { strategy: Strategy::Grid, ..ForwardArgs::default() };
        if let Err(e) = case.layer(&gpu).forward(&x, &grid) {
            assert!(h > 16 && e.to_string().contains("workgroups at the same time"), "{e}");
            continue;
        }
        // Workgroups that ran at the same time before need not do so again.
        let by_grid = Strategy::Grid;
        let still = gpu.gpu().unwrap().concurrent_workgroups().unwrap() as usize >= h.div_ceil(16);
        let (got, by) =
            case.run_with(&case.layer(&gpu), if still || h <= 16 { by_grid } else { Strategy::Step }, None, ALL);
        for (got, want) in [(&got.y, &want.y), (&got.h, &want.h), (&got.c, &want.c)] {
            if want.is_empty() {
                continue;
            }
            compare(got, want, bound(&cell)).unwrap_or_else(|e| panic!("{cell:?} H={h} by {by:?}: {e}"));
        }
        ways.push(by);
    }
    // A single workgroup never waits in vain.
    assert_eq!(ways[0], Strategy::Grid, "{ways:?}");
    let refused = Case::random(72, Cell::GRU_RESET_BEFORE, &[Direction::Forward], [1, 2, 3, 4]);
    let x = Tensor::from_f32(&refused.x, &[1, 2, 3], &gpu).unwrap();
    let args = ForwardArgs { strategy: Strategy::Grid, ..ForwardArgs::default() };
    assert!(refused.layer(&gpu).forward(&x, &args).unwrap_err().to_string().contains("grid"));
}

/// A look-up replaces the input product: `gather` into the projection. On the CPU the bits are those of the product, on
/// a GPU the result is within rounding, for every cell and layout.
#[test]
fn token_tables_stand_for_embedding_and_input_product() {
    const VOCABULARY: usize = 11;
    for (n, cell) in cells().into_iter().chain(projected(20)).enumerate() {
        let [b, t, i, h] = [3, 6, 5, 20];
        let mut case = Case::random(90 + n as u64, cell, &BOTH, [b, t, i, h]).with_states(91).with_lengths();
        let embeddings = Random(92).floats(VOCABULARY * i, 1.0);
        let ids: Vec<u32> = (0..b * t).map(|n| (n * 7 % VOCABULARY) as u32).collect();
        case.x = ids.iter().flat_map(|&id| embeddings[id as usize * i..][..i].to_vec()).collect();
        let want = case.reference();
        for (device, strategy) in paths() {
            let layer = case.layer(&device);
            let tensor = |v: &[f32], dims: &[usize]| Tensor::from_f32(v, dims, &device).unwrap();
            let table = layer.token_table(&tensor(&embeddings, &[VOCABULARY, i])).unwrap();
            let lengths = Tensor::from_u32(case.lengths.as_ref().unwrap(), &[b], &device).unwrap();
            let h0 = tensor(case.h0.as_ref().unwrap(), &[2, b, cell.state_size(h)]);
            let c0 = case.c0.as_ref().map(|c| tensor(c, &[2, b, case.c_width()]));
            // Also with chunks of one timestep, and with time as the first dimension.
            for (time_major, projection_budget) in [(false, ALL), (false, 1), (true, ALL)] {
                let args = ForwardArgs {
                    h0: Some(&h0),
                    c0: c0.as_ref(),
                    lengths: Some(&lengths),
                    strategy,
                    time_major,
                    projection_budget,
                    ..ForwardArgs::default()
                };
                let tokens = Tensor::from_u32(&ids, &[b, t], &device).unwrap();
                let tokens = if time_major { tokens.transpose(&[1, 0]).unwrap() } else { tokens };
                let out = layer.forward_tokens(&tokens, &table, &args).unwrap();
                let y = out.y.unwrap();
                let y = if time_major { y.transpose(&[1, 0, 2]).unwrap() } else { y };
                compare(&y.to_vec().unwrap(), &want.y, bound(&cell))
                    .unwrap_or_else(|e| panic!("{cell:?} {device}: {e}"));
                compare(&out.h.to_vec().unwrap(), &want.h, bound(&cell)).unwrap();
                if device == Device::Cpu {
                    let x = tensor(&case.x, &[b, t, i]);
                    let plain = layer.forward(&x, &ForwardArgs { time_major: false, ..args }).unwrap();
                    assert_eq!(y.to_vec().unwrap(), plain.y.unwrap().to_vec().unwrap(), "{cell:?}");
                }
            }
            // Errors.
            let args = ForwardArgs::default();
            let outside = Tensor::from_u32(&[0, VOCABULARY as u32], &[1, 2], &device).unwrap();
            assert!(layer.forward_tokens(&outside, &table, &args).unwrap_err().to_string().contains("11"));
            let other = Case::random(1, cell, &[Direction::Forward], [1, 1, i, h]).layer(&device);
            let one = Tensor::from_u32(&[0], &[1, 1], &device).unwrap();
            assert!(other.forward_tokens(&one, &table, &args).unwrap_err().to_string().contains("another layer"));
            assert!(layer.forward_tokens(&tensor(&[0.0], &[1, 1]), &table, &args).is_err());
            assert!(layer.token_table(&tensor(&[0.0; 4], &[2, 2])).unwrap_err().to_string().contains("vocabulary"));
        }
    }
}

/// `stack_wave`: stacked layers as a wavefront give the results of layers run one after the other, and of the
/// reference, in T + L - 1 dispatches plus those before and after.
#[test]
fn stacked_layers_run_as_a_wavefront() {
    if wanted_gpu().is_none() {
        return;
    }
    // A separate device, so that other dispatches are not counted.
    let gpu = own_gpu();
    let waves = || gpu.gpu().unwrap().dispatches_by_kernel().get("stack_wave").copied().unwrap_or_default();
    let f16 = has_f16(&gpu);
    let options = Cell { clip: Some(0.8), zoneout: Some(Zoneout { h: 0.1, c: 0.2 }), ..Cell::LSTM };
    for (n, cell) in [Cell::LSTM, Cell::GRU, Cell::RNN, options].into_iter().enumerate() {
        for (b, t, i, h, half) in [(1, 7, 5, 33, false), (5, 4, 20, 20, true), (2, 1, 3, 64, false)] {
            const LAYERS: usize = 3;
            let cases: Vec<_> = (0..LAYERS)
                .map(|l| {
                    let input = if l == 0 { i } else { h };
                    let case = Case::random(100 + l as u64, cell, &[Direction::Forward], [b, t, input, h])
                        .with_states(l as u64);
                    let case = if n == 0 { case.with_peepholes(9) } else { case };
                    if half && f16 { case.with_f16_weights() } else { case }
                })
                .collect();
            let mut want = Vec::new();
            for (l, case) in cases.iter().enumerate() {
                let mut case = case.clone();
                if l > 0 {
                    let below: &recurve_tests::Outputs<f64> = &want[l - 1];
                    case.x = below.y.iter().map(|&v| v as f32).collect();
                }
                case.lengths = Some((0..b).map(|n| ((n + 1) * 3 % (t + 1)) as u32).collect());
                want.push(case.reference());
            }
            let pairs: Vec<_> = cases.iter().map(|c| [(Direction::Forward, &c.directions[0].1)]).collect();
            let config = RecurrentConfig {
                layers: pairs.iter().map(|p| &p[..]).collect(),
                weights: cases[0].weights,
                ..RecurrentConfig::new(cases[0].cell, i, h, &[])
            };
            let stack = Recurrent::new(&config, &gpu).unwrap();
            let on_cpu = Recurrent::new(&config, &Device::Cpu).unwrap();
            let all = |pick: fn(&Case) -> &Option<Vec<f32>>| -> Vec<f32> {
                cases.iter().flat_map(|c| pick(c).clone().unwrap_or_default()).collect()
            };
            let (h0, c0) = (all(|c| &c.h0), all(|c| &c.c0));
            let tensor = |v: &[f32], dims: &[usize]| Tensor::from_f32(v, dims, &gpu).unwrap();
            let h0 = tensor(&h0, &[LAYERS, b, h]);
            let c0 = (!c0.is_empty()).then(|| tensor(&c0, &[LAYERS, b, h]));
            let lengths: Vec<u32> = (0..b).map(|n| ((n + 1) * 3 % (t + 1)) as u32).collect();
            let lengths = Tensor::from_u32(&lengths, &[b], &gpu).unwrap();
            let x = tensor(&cases[0].x, &[b, t, i]);
            for (projection_budget, time_major) in [(ALL, false), (1, false), (ALL, true)] {
                let args = ForwardArgs {
                    h0: Some(&h0),
                    c0: c0.as_ref(),
                    lengths: Some(&lengths),
                    strategy: Strategy::Step,
                    projection_budget,
                    time_major,
                    ..ForwardArgs::default()
                };
                let x = if time_major { x.transpose(&[1, 0, 2]).unwrap() } else { x.clone() };
                let before = waves();
                let out = stack.forward(&x, &args).unwrap();
                assert_eq!(waves() - before, (t + LAYERS - 1) as u64);
                let y = out.y.unwrap();
                let y = if time_major { y.transpose(&[1, 0, 2]).unwrap() } else { y };
                let said = |e| panic!("{cell:?} B={b} T={t} H={h}: {e}");
                compare(&y.to_vec().unwrap(), &want[LAYERS - 1].y, bound(&cell)).unwrap_or_else(said);
                let h: Vec<f64> = want.iter().flat_map(|w| w.h.clone()).collect();
                compare(&out.h.to_vec().unwrap(), &h, bound(&cell)).unwrap_or_else(said);
                let c: Vec<f64> = want.iter().flat_map(|w| w.c.clone()).collect();
                if let Some(got) = out.c {
                    compare(&got.to_vec().unwrap(), &c, bound(&cell)).unwrap_or_else(said);
                }
            }
            let scan =
                ForwardArgs { strategy: Strategy::Scan, h0: Some(&h0), c0: c0.as_ref(), ..ForwardArgs::default() };
            let out = stack.forward(&x, &scan).unwrap();
            assert_eq!(out.strategy, Strategy::Scan, "layers that run by `scan` run one after the other");
            let [h0, c0] = [Some(&h0), c0.as_ref()].map(|s| s.map(|s| s.to_device(&Device::Cpu).unwrap()));
            let args = ForwardArgs { h0: h0.as_ref(), c0: c0.as_ref(), ..ForwardArgs::default() };
            let same = on_cpu.forward(&x.to_device(&Device::Cpu).unwrap(), &args).unwrap();
            let wide: Vec<f64> = same.h.to_vec().unwrap().iter().map(|&v| f64::from(v)).collect();
            compare(&out.h.to_vec().unwrap(), &wide, Tolerance::new(1e-4)).unwrap();
            let wrong = ForwardArgs { h0: Some(&x), strategy: Strategy::Step, ..ForwardArgs::default() };
            assert!(stack.forward(&x, &wrong).unwrap_err().to_string().contains("h0"));
        }
    }
    // Bidirectional layers, and layers that read ids, run one after the other.
    let cases: Vec<_> = [5, 8].map(|i| Case::random(i, Cell::LSTM, &BOTH, [2, 6, i as usize, 4])).into();
    let mut top = cases[1].clone();
    let below = cases[0].reference();
    top.x = below.y.iter().map(|&v| v as f32).collect();
    let want = top.reference();
    let pairs: Vec<Vec<_>> = cases.iter().map(|c| c.directions.iter().map(|(d, w)| (*d, w)).collect()).collect();
    let layers = pairs.iter().map(Vec::as_slice).collect();
    let config = RecurrentConfig { layers, ..RecurrentConfig::new(Cell::LSTM, 5, 4, &[]) };
    for device in [Device::Cpu, gpu.clone()] {
        let stack = Recurrent::new(&config, &device).unwrap();
        assert_eq!((stack.num_layers(), stack.directions()), (2, &BOTH[..]));
        assert!(stack.candidates(2, 6).unwrap().is_empty());
        let x = Tensor::from_f32(&cases[0].x, &[2, 6, 5], &device).unwrap();
        let before = waves();
        let args = ForwardArgs { strategy: Strategy::Step, ..ForwardArgs::default() };
        let out = stack.forward(&x, &args).unwrap();
        assert_eq!(waves(), before);
        compare(&out.y.unwrap().to_vec().unwrap(), &want.y, bound(&Cell::LSTM)).unwrap();
        let h: Vec<f64> = below.h.iter().chain(&want.h).copied().collect();
        compare(&out.h.to_vec().unwrap(), &h, bound(&Cell::LSTM)).unwrap();
        let c: Vec<f64> = below.c.iter().chain(&want.c).copied().collect();
        compare(&out.c.unwrap().to_vec().unwrap(), &c, bound(&Cell::LSTM)).unwrap();
        let table = stack.token_table(&x.reshape(&[12, 5]).unwrap()).unwrap();
        let ids = Tensor::from_u32(&(0..12).collect::<Vec<_>>(), &[2, 6], &device).unwrap();
        let y = stack.forward_tokens(&ids, &table, &args).unwrap().y.unwrap();
        compare(&y.to_vec().unwrap(), &want.y, bound(&Cell::LSTM)).unwrap();
        // Single timesteps in the caller's memory are only for one layer.
        if device == Device::Cpu {
            assert!(stack.step_in_place(&[0.5; 5], &mut [0.5; 4], &mut [0.5; 4]).is_err());
        }
        let other = [(Direction::Reverse, pairs[1][0].1), (Direction::Forward, pairs[1][1].1)];
        let mixed = RecurrentConfig { layers: vec![&pairs[0], &other], ..config.clone() };
        assert!(Recurrent::new(&mixed, &device).unwrap_err().to_string().contains("same directions"));
        // Layers that are made one by one and then stacked give the same results.
        let one =
            |n: usize, i: usize| Recurrent::new(&RecurrentConfig::new(Cell::LSTM, i, 4, &pairs[n]), &device).unwrap();
        let joined = Recurrent::stack(vec![one(0, 5), one(1, 8)]).unwrap();
        let y = joined.forward(&x, &args).unwrap().y.unwrap();
        assert_eq!(y.to_vec().unwrap(), stack.forward(&x, &args).unwrap().y.unwrap().to_vec().unwrap());
        let refused = |layers| Recurrent::stack(layers).unwrap_err().to_string();
        assert!(refused(Vec::new()).contains("at least one"));
        assert!(refused(vec![one(1, 8), one(0, 5)]).contains("takes 5 features and the one below has 8"));
        let single = Recurrent::new(&RecurrentConfig::new(Cell::LSTM, 8, 4, &pairs[1][..1]), &device).unwrap();
        assert!(refused(vec![one(0, 5), single]).contains("another cell, size or direction"));
        let none = RecurrentConfig { layers: Vec::new(), ..config.clone() };
        assert!(Recurrent::new(&none, &device).unwrap_err().to_string().contains("at least one"));
    }
}

#[test]
fn int8_weights_have_a_scale_for_each_row() {
    for cell in cells().into_iter().chain(projected(20)) {
        for sizes in [[1, 9, 5, 20], [3, 9, 5, 20], [13, 4, 7, 33]] {
            let case = Case::random(8, cell, &BOTH, sizes).with_states(9);
            let int8 = Case { directions: case.directions.clone(), ..case.clone() }.with_int8_weights();
            let got = int8.run(&Device::Cpu, Strategy::Auto, ALL);
            let want = int8.reference();
            let bound = bound(&cell);
            compare(&got.y, &want.y, bound).unwrap_or_else(|e| panic!("{cell:?} {sizes:?}: {e}"));
            compare(&got.h, &want.h, bound).unwrap_or_else(|e| panic!("{cell:?} {sizes:?}: {e}"));
            // The rounding has an effect, and a small one.
            let error = compare(&got.y, &case.reference().y, Tolerance::new(0.5)).expect("close").worst_error;
            assert!(error > 1e-5, "{cell:?}: nothing was rounded");
        }
    }
}

#[test]
fn two_directions_may_have_two_cells() {
    let second = Cell { candidate: Activation::Relu, clip: Some(0.5), ..Cell::LSTM };
    let case = Case::random(50, Cell::LSTM, &BOTH, [3, 6, 4, 12]).with_states(51).with_lengths();
    let mut other = case.clone();
    other.cell = second;
    let (first, other) = (case.reference(), other.reference());
    let pairs: Vec<_> = case.directions.iter().map(|(d, w)| (*d, w)).collect();
    let config = RecurrentConfig { second_cell: Some(second), ..RecurrentConfig::new(Cell::LSTM, 4, 12, &pairs) };
    for (device, strategy) in paths() {
        let layer = Recurrent::new(&config, &device).unwrap();
        let tensor = |v: &[f32], dims: &[usize]| Tensor::from_f32(v, dims, &device).unwrap();
        let h0 = tensor(case.h0.as_ref().unwrap(), &[2, 3, 12]);
        let c0 = tensor(case.c0.as_ref().unwrap(), &[2, 3, 12]);
        let lengths = Tensor::from_u32(case.lengths.as_ref().unwrap(), &[3], &device).unwrap();
        let args =
            ForwardArgs { h0: Some(&h0), c0: Some(&c0), lengths: Some(&lengths), strategy, ..ForwardArgs::default() };
        let out = layer.forward(&tensor(&case.x, &[3, 6, 4]), &args).unwrap();
        // The forward half comes from one run, the backward half from the other.
        let y: Vec<f64> = (0..3 * 6 * 24).map(|i| if i % 24 < 12 { first.y[i] } else { other.y[i] }).collect();
        compare(&out.y.unwrap().to_vec().unwrap(), &y, Tolerance::new(3e-6)).unwrap();
        let h = [&first.h[..36], &other.h[36..]].concat();
        compare(&out.h.to_vec().unwrap(), &h, Tolerance::new(3e-6)).unwrap();
        let c = [&first.c[..36], &other.c[36..]].concat();
        compare(&out.c.unwrap().to_vec().unwrap(), &c, Tolerance::new(3e-6)).unwrap();
    }
}

#[test]
fn minimal_cells_scan_any_number_of_blocks() {
    let Some(gpu) = wanted_gpu() else { return };
    // Blocks of 32 timesteps: one, several, several levels of them, and chunks that end inside a block.
    for cell in [Cell::MINGRU, Cell::MINLSTM] {
        for t in [31, 32, 33, 1024, 1100, 2500] {
            let mut case = Case::random(60, cell, &BOTH, [2, t, 2, 5]).with_states(61);
            let want = case.reference();
            let budgets = [ALL, 700 * 2 * 2 * (cell.kind.gates() * 5 * 4 + 5 * 9)];
            for budget in budgets {
                case.check(&want, &gpu, Strategy::Scan, budget, Tolerance::new(3e-6));
            }
            case = case.with_lengths();
            case.check(&case.reference(), &gpu, Strategy::Scan, ALL, Tolerance::new(3e-6));
        }
    }
}

#[test]
fn minimal_cells_run_more_columns_than_a_dispatch_counts() {
    let Some(gpu) = wanted_gpu() else { return };
    // 4096 · 140 / 8 workgroups along x, which exceeds the limit of 65,535.
    let case = Case::random(63, Cell::MINGRU, &[Direction::Forward], [4096, 2, 1, 140]);
    case.check(&case.reference(), &gpu, Strategy::Scan, ALL, Tolerance::new(3e-6));
}

#[test]
fn a_minimal_cell_whose_gates_are_shut_gives_no_nan() {
    let mut case = Case::random(62, Cell::MINLSTM, &[Direction::Forward], [1, 3, 2, 4]);
    for (_, w) in &mut case.directions {
        w.b_ih[..8].fill(-1e4);
    }
    for (device, strategy) in paths() {
        // f + i is at least 1e-37, and the numerator is zero.
        assert_eq!(case.run(&device, strategy, ALL).y, [0.0; 12], "{device} {}", strategy.name());
    }
}

#[test]
fn peepholes_clip_and_every_activation() {
    for cell in [Cell::LSTM, Cell { layer_norm: Some(1e-5), ..Cell::LSTM }, projected(21)[0], projected(21)[1]] {
        let lstm = Case::random(1, cell, &BOTH, [3, 7, 4, 21]).with_peepholes(2);
        check(&lstm, bound(&cell));
        check(&lstm.with_lengths().with_states(3), bound(&cell));
    }
    let functions = [
        Activation::Linear,
        Activation::Relu,
        Activation::HARD_SIGMOID_KERAS2,
        Activation::HARD_SIGMOID_KERAS3,
        Activation::Affine { alpha: 0.5, beta: 0.1 },
        Activation::LeakyRelu { alpha: 0.1 },
        Activation::ThresholdedRelu { alpha: 0.2 },
        Activation::ScaledTanh { alpha: 1.2, beta: 0.7 },
        Activation::Elu { alpha: 0.8 },
        Activation::Softsign,
        Activation::Softplus,
        Activation::Positive,
    ];
    for (n, f) in functions.into_iter().enumerate() {
        for cell in [Cell::RNN, Cell::LSTM, Cell::GRU, Cell::GRU_RESET_BEFORE] {
            // A step function of the state may give either value near its step; as a gate it has less effect.
            let gate = if matches!(f, Activation::ThresholdedRelu { .. }) { Activation::Sigmoid } else { f };
            let cell = Cell { gates: [gate; 3], candidate: f, clip: Some(0.9), ..cell };
            let tolerance = if matches!(f, Activation::ThresholdedRelu { .. }) {
                Tolerance::new(1e-4)
            } else {
                Tolerance::new(1e-5)
            };
            check(&Case::random(n as u64 + 40, cell, &BOTH, [2, 4, 3, 10]), tolerance);
        }
    }
}

#[test]
fn activations_at_plus_and_minus_100_saturate_without_nan() {
    for cell in [Cell::RNN, Cell::LSTM, Cell::GRU, Cell::GRU_RESET_BEFORE] {
        let mut case = Case::random(3, cell, &[Direction::Forward], [1, 3, 2, 8]);
        for (_, w) in &mut case.directions {
            w.b_ih.iter_mut().enumerate().for_each(|(i, b)| *b = if i % 2 == 0 { 100.0 } else { -100.0 });
        }
        check(&case, Tolerance::new(1e-6));
    }
}

#[test]
fn long_sequences_stay_within_the_stated_bound() {
    for cell in [fused(), optional(), projected(64)].concat() {
        // More iterations than a software rasteriser executes in one dispatch.
        let case = Case::random(11, cell, &[Direction::Forward], [1, 1024, 8, 64]);
        let want = case.reference();
        for (device, strategy) in paths() {
            let abs = if cell.layer_norm.is_some() { 1e-4 } else { 2e-5 };
            // With an exponential forget gate the stabilizer grows with T, and its rounding error with it, which is a
            // relative error of c and n.
            let grows = matches!(cell.kind, CellKind::SLstm { exponential_forget: true, .. });
            let rel = if grows { 1e-5 } else { 0.0 };
            let worst = case.check(&want, &device, strategy, ALL, Tolerance { abs, rel });
            assert!(worst > 0.0, "suspiciously exact");
        }
    }
}

#[test]
fn the_loop_limit_of_a_software_rasteriser_is_respected() {
    let Some(gpu) = wanted_gpu() else { return };
    // 2000 timesteps of 32 or more iterations exceed lavapipe's limit per dispatch (65,535).
    let case = Case::random(12, Cell::GRU_RESET_BEFORE, &[Direction::Forward], [1, 2000, 1, 130]);
    let want = case.reference();
    case.check(&want, &gpu, Strategy::Scan, ALL, Tolerance::new(2e-5));
}

#[test]
fn batch_rows_are_independent() {
    for cell in cells() {
        let case = Case::random(20, cell, &BOTH, [5, 6, 3, 18]);
        for (device, strategy) in paths() {
            let together = case.run(&device, strategy, ALL);
            for row in 0..5 {
                let mut alone = case.clone();
                alone.sizes[0] = 1;
                alone.x = case.x[row * 18..(row + 1) * 18].to_vec();
                let y = alone.run(&device, strategy, ALL).y;
                compare_f32(&y, &together.y[row * 6 * 36..(row + 1) * 6 * 36], Tolerance::new(1e-6)).unwrap();
            }
        }
    }
}

/// Sizes for which blocks have every number of rows and panels, on every instruction set.
#[test]
fn a_row_has_the_same_bits_on_the_cpu_whatever_rows_are_beside_it() {
    for weights in [WeightStorage::F32, WeightStorage::F16, WeightStorage::Int8] {
        for cell in [fused(), projected(37), vec![Cell::MINGRU]].concat() {
            for hidden in [37, 72] {
                let (rows, t, i) = (19, 3, 5);
                let case = Case { weights, ..Case::random(46, cell, &BOTH, [rows, t, i, hidden]) };
                let wide = case.run(&Device::Cpu, Strategy::Auto, ALL).y;
                let width = wide.len() / rows;
                for count in 1..rows {
                    let mut fewer = case.clone();
                    fewer.sizes[0] = count;
                    fewer.x.truncate(count * t * i);
                    let y = fewer.run(&Device::Cpu, Strategy::Auto, ALL).y;
                    assert_eq!(y, wide[..count * width], "{cell:?} {count} rows, H = {hidden}, {}", weights.name());
                }
            }
        }
    }
}

#[test]
fn a_step_in_place_has_the_bits_of_a_forward() {
    for cell in cells().into_iter().chain(projected(20)) {
        for b in [1, 3] {
            let (t, i, hidden) = (6, 4, 20);
            let case = Case::random(47, cell, &[Direction::Forward], [b, t, i, hidden]);
            let layer = case.layer(&Device::Cpu);
            let whole = case.run(&Device::Cpu, Strategy::Auto, ALL);
            let mut h = vec![0.0; whole.h.len()];
            let mut c = vec![0.0; whole.c.len()];
            for s in 0..t {
                let x: Vec<f32> = (0..b).flat_map(|b| case.x[(b * t + s) * i..][..i].to_vec()).collect();
                layer.step_in_place(&x, &mut h, &mut c).unwrap();
            }
            assert_eq!((h, c), (whole.h, whole.c), "{cell:?} {b} rows");
        }
    }
}

#[test]
fn a_step_in_place_refuses_what_does_not_fit() {
    let case = Case::random(48, Cell::LSTM, &[Direction::Forward], [1, 1, 4, 8]);
    let layer = case.layer(&Device::Cpu);
    for (x, h, c, argument) in [(0, 8, 8, "x"), (5, 8, 8, "x"), (4, 7, 8, "h"), (4, 8, 0, "c"), (8, 8, 8, "h")] {
        let e = layer.step_in_place(&vec![0.5; x], &mut vec![0.5; h], &mut vec![0.5; c]).unwrap_err();
        assert!(matches!(e, recurve::TensorError::Argument { argument: a, .. } if a == argument), "{e}");
    }
    let gru = Case::random(48, Cell::GRU, &[Direction::Forward], [1, 1, 4, 8]).layer(&Device::Cpu);
    assert!(gru.step_in_place(&[0.5; 4], &mut [0.5; 8], &mut [0.5; 8]).is_err(), "a GRU has no c");
    let both = Case::random(48, Cell::LSTM, &BOTH, [1, 1, 4, 8]).layer(&Device::Cpu);
    assert!(both.step_in_place(&[0.5; 4], &mut [0.5; 8], &mut [0.5; 8]).is_err(), "two directions");
}

/// Bit for bit, with every strategy except the minimal cells' `scan`, in which the order of composing timesteps depends
/// on T.
#[test]
fn t_steps_in_one_call_are_t_calls_of_one_step() {
    for cell in cells().into_iter().chain(projected(20)) {
        for (b, t) in [(3, 7), (1, 20)] {
            let case = Case::random(21, cell, &[Direction::Forward], [b, t, 4, 20]);
            for (device, strategy) in paths() {
                let whole = case.run(&device, strategy, ALL);
                let layer = case.layer(&device);
                let (mut h, mut c) = (None, None);
                for s in 0..t {
                    let x: Vec<f32> = (0..b).flat_map(|b| case.x[(b * t + s) * 4..][..4].to_vec()).collect();
                    let x = Tensor::from_f32(&x, &[b, 1, 4], &device).unwrap();
                    let args = ForwardArgs {
                        h0: h.as_ref(),
                        c0: c.as_ref(),
                        strategy,
                        outputs: Outputs::Last,
                        ..ForwardArgs::default()
                    };
                    let out = layer.forward(&x, &args).unwrap();
                    assert!(out.y.is_none());
                    (h, c) = (Some(out.h), out.c);
                }
                let minimal = matches!(cell.kind, CellKind::MinGru | CellKind::MinLstm);
                let (h, at) = (h.unwrap().to_vec().unwrap(), format!("{cell:?} {device} {}", strategy.name()));
                if minimal && strategy == Strategy::Scan {
                    compare_f32(&h, &whole.h, Tolerance::new(1e-6)).unwrap();
                } else {
                    assert_eq!(h, whole.h, "{at}");
                }
                if let Some(c) = c {
                    assert_eq!(c.to_vec().unwrap(), whole.c, "{at}");
                }
            }
        }
    }
}

#[test]
fn an_lstm_that_forgets_nothing_and_takes_nothing_keeps_c() {
    let mut case = Case::random(22, Cell::LSTM, &[Direction::Forward], [2, 50, 3, 24]).with_states(23);
    for (_, w) in &mut case.directions {
        w.b_ih[..24].fill(-1000.0); // i = 0
        w.b_ih[24..48].fill(1000.0); // f = 1
    }
    for (device, strategy) in paths() {
        let out = case.run(&device, strategy, ALL);
        assert_eq!(out.c, case.c0.clone().unwrap(), "{device} {}", strategy.name());
    }
}

#[test]
fn time_major_is_the_same_numbers_transposed() {
    for cell in [Cell::RNN, Cell::LSTM, Cell::GRU] {
        let case = Case::random(24, cell, &BOTH, [3, 5, 4, 10]);
        let want = case.reference();
        for (device, strategy) in paths() {
            let x = Tensor::from_f32(&case.x, &[3, 5, 4], &device).unwrap().transpose(&[1, 0, 2]).unwrap();
            for projection_budget in [ALL, two_steps(&case)] {
                let args = ForwardArgs { time_major: true, strategy, projection_budget, ..ForwardArgs::default() };
                let y = case.layer(&device).forward(&x, &args).unwrap().y.unwrap();
                assert_eq!(*y.shape(), [5, 3, 20]);
                let y = y.transpose(&[1, 0, 2]).unwrap().to_vec().unwrap();
                compare(&y, &want.y, Tolerance::new(3e-6)).unwrap();
            }
        }
    }
}

#[test]
fn reading_order_reverses_the_outputs_of_a_reverse_direction() {
    let case = Case::random(25, Cell::GRU, &[Direction::Reverse], [2, 4, 3, 5]);
    let want = case.reference();
    for (device, strategy) in paths() {
        let x = Tensor::from_f32(&case.x, &[2, 4, 3], &device).unwrap();
        let args = ForwardArgs { reading_order: true, strategy, ..ForwardArgs::default() };
        let y = case.layer(&device).forward(&x, &args).unwrap().y.unwrap().to_vec().unwrap();
        let reversed: Vec<f64> = (0..2)
            .flat_map(|b| (0..4).rev().flat_map(move |t| (0..5).map(move |j| (b * 4 + t) * 5 + j)))
            .map(|i| want.y[i])
            .collect();
        compare(&y, &reversed, Tolerance::new(3e-6)).unwrap();
    }
}

#[test]
fn same_input_same_device_same_bits_in_100_runs() {
    for cell in cells().into_iter().chain(projected(20)) {
        let case = Case::random(26, cell, &BOTH, [3, 12, 8, 20]);
        let x = &case.x;
        for (device, strategy) in paths() {
            let layer = case.layer(&device);
            let x = Tensor::from_f32(x, &[3, 12, 8], &device).unwrap();
            let args = ForwardArgs { strategy, ..ForwardArgs::default() };
            let run = || layer.forward(&x, &args).unwrap().y.unwrap();
            let bits = |y: Tensor| y.to_vec().unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>();
            let first = bits(run());
            for n in 1..100 {
                assert_eq!(first, bits(run()), "{cell:?} {device} {} run {n}", strategy.name());
            }
        }
    }
}

#[test]
fn nan_in_the_input_comes_out_as_nan_on_the_cpu() {
    for cell in [Cell::RNN, Cell::LSTM, Cell::GRU, Cell::GRU_RESET_BEFORE, Cell { clip: Some(1.0), ..Cell::LSTM }] {
        let mut case = Case::random(27, cell, &[Direction::Forward], [1, 3, 2, 7]);
        case.x[2] = f32::NAN;
        let y = case.run(&Device::Cpu, Strategy::Auto, ALL).y;
        assert!(y[..7].iter().all(|v| v.is_finite()), "{cell:?}: before the NaN");
        assert!(y[7..].iter().all(|v| v.is_nan()), "{cell:?}: from the NaN on");
    }
}

#[test]
fn a_second_forward_makes_no_buffer_and_no_bind_group() {
    for (device, strategy) in paths() {
        let case = Case::random(28, Cell::LSTM, &BOTH, [4, 33, 8, 40]);
        let layer = case.layer(&device);
        let args = ForwardArgs { strategy, ..ForwardArgs::default() };
        let mut y = vec![0.0; 4 * 33 * 80];
        let mut run = || {
            let x = Tensor::from_f32(&case.x, &[4, 33, 8], &device).unwrap();
            let out = layer.forward(&x, &args).unwrap();
            out.y.unwrap().read_into(&mut y).unwrap();
        };
        run();
        run();
        if device == Device::Cpu {
            // Other tests of this process use the CPU's pool too; `benches` counts its allocations.
            continue;
        }
        let own = Device::by_name(&format!("{}:{}", device.backend(), device.name())).unwrap();
        let layer = case.layer(&own);
        let mut y = vec![0.0; 4 * 33 * 80];
        let mut run = || {
            let x = Tensor::from_f32(&case.x, &[4, 33, 8], &own).unwrap();
            layer.forward(&x, &args).unwrap().y.unwrap().read_into(&mut y).unwrap();
        };
        run();
        run();
        let counts = || (own.buffers_made(), own.gpu().unwrap().bind_groups_made());
        let before = counts();
        for _ in 0..3 {
            run();
        }
        assert_eq!(counts(), before, "{}", strategy.name());
    }
}

#[test]
fn a_forward_is_one_submission_and_scan_takes_a_constant_number_of_dispatches() {
    let Some(gpu) = wanted_gpu() else { return };
    let gpu = Device::by_name(&format!("{}:{}", gpu.backend(), gpu.name())).unwrap();
    let count = |t: usize, strategy: Strategy| {
        let case = Case::random(29, Cell::LSTM, &[Direction::Forward], [1, t, 4, 32]);
        let layer = case.layer(&gpu);
        let x = Tensor::from_f32(&case.x, &[1, t, 4], &gpu).unwrap();
        let args = ForwardArgs { strategy, ..ForwardArgs::default() };
        gpu.synchronize().unwrap();
        let before = gpu.gpu().unwrap().work_counts();
        layer.forward(&x, &args).unwrap().y.unwrap().to_vec().unwrap();
        let after = gpu.gpu().unwrap().work_counts();
        (after.0 - before.0, after.1 - before.1)
    };
    assert_eq!(count(10, Strategy::Scan), count(1000, Strategy::Scan));
    assert_eq!(count(1000, Strategy::Scan).1, 1);
    assert_eq!(count(1000, Strategy::Step).1, 1);
    assert_eq!(count(110, Strategy::Step).0 - count(10, Strategy::Step).0, 100);

    // A wavefront through three layers: T + 2 dispatches, where one layer after the other would take 3 T.
    let network = |layers: usize| {
        let lstm = recurve::Lstm::new(32).num_layers(layers).return_sequences(true);
        recurve::Sequential::new().add(lstm).build(&[None, None, Some(32)], &gpu).unwrap()
    };
    let waves = |layers: usize, t: usize| {
        let (network, x) = (network(layers), Tensor::zeros(&[1, t, 32], recurve::DType::F32, &gpu).unwrap());
        let args = recurve::CallArgs { strategy: Strategy::Step, ..recurve::CallArgs::default() };
        // The first call packs the weights.
        network.forward_all(&x, &args).unwrap()[0].to_vec().unwrap();
        gpu.synchronize().unwrap();
        let before = gpu.gpu().unwrap().work_counts();
        network.forward_all(&x, &args).unwrap()[0].to_vec().unwrap();
        let after = gpu.gpu().unwrap().work_counts();
        assert_eq!(after.1 - before.1, 1);
        after.0 - before.0
    };
    assert_eq!(waves(3, 110) - waves(3, 10), 100);
    assert_eq!(waves(4, 10) - waves(3, 10), 1);
}

/// Threads share one long sequence, each with its own hidden units.
#[test]
fn threads_that_share_a_sequence_give_the_bits_of_one() {
    let zoneout = Some(Zoneout { h: 0.1, c: 0.2 });
    for cell in [Cell::LSTM, Cell::GRU, Cell::RNN, Cell::SLSTM, Cell { zoneout, ..Cell::LSTM }] {
        // Tiles that do not divide evenly among threads, and a last one that is not full.
        let plain = Case::random(40, cell, &[Direction::Reverse], [1, 150, 5, 170]).with_states(41);
        let mut cut = plain.clone();
        cut.lengths = Some(vec![97]);
        for case in [plain.clone(), cut, plain.with_mask(42, MaskedOutput::Repeat)] {
            // In a batch of two, each row has its own thread.
            let mut two = case.clone();
            two.sizes[0] = 2;
            let twice = |v: &mut Option<Vec<f32>>| *v = v.as_ref().map(|v| v.repeat(2));
            two.x = case.x.repeat(2);
            twice(&mut two.h0);
            twice(&mut two.c0);
            two.lengths = case.lengths.as_ref().map(|v| v.repeat(2));
            two.mask = case.mask.as_ref().map(|v| v.repeat(2));
            let alone = two.run(&Device::Cpu, Strategy::Auto, ALL);
            let want = case.reference();
            for budget in [ALL, 40 * cell.kind.gates() * 176 * 4] {
                case.check(&want, &Device::Cpu, Strategy::Auto, budget, Tolerance::new(5e-6));
                let shared = case.run(&Device::Cpu, Strategy::Auto, budget);
                assert_eq!(shared.y, alone.y[..shared.y.len()], "{cell:?}");
                assert_eq!(shared.h, alone.h[..shared.h.len()], "{cell:?}");
                assert_eq!(shared.c, alone.c[..shared.c.len()], "{cell:?}");
            }
        }
    }
}

/// More callers than cores, each with sequences that threads would share: none may wait forever.
#[test]
fn many_callers_with_long_sequences_all_end() {
    let case = Case::random(43, Cell::LSTM, &[Direction::Forward], [1, 120, 4, 160]);
    let (layer, first) = (case.layer(&Device::Cpu), case.run(&Device::Cpu, Strategy::Auto, ALL).y);
    std::thread::scope(|s| {
        for _ in 0..6 {
            s.spawn(|| {
                let x = Tensor::from_f32(&case.x, &[1, 120, 4], &Device::Cpu).unwrap();
                for _ in 0..40 {
                    let y = layer.forward(&x, &ForwardArgs::default()).unwrap().y.unwrap();
                    assert_eq!(y.to_vec().unwrap(), first);
                }
            });
        }
    });
}

#[test]
fn many_threads_share_a_device() {
    let Some(device) = wanted_gpu() else { return };
    std::thread::scope(|s| {
        for n in 0..4 {
            let device = device.clone();
            s.spawn(move || {
                let case = Case::random(30 + n, Cell::GRU, &BOTH, [2, 12, 5, 20]);
                let want = case.reference();
                for (d, strategy) in
                    [(Device::Cpu, Strategy::Auto), (device.clone(), Strategy::Scan), (device, Strategy::Step)]
                {
                    case.check(&want, &d, strategy, ALL, Tolerance::new(3e-6));
                }
            });
        }
    });
}

#[test]
fn an_upload_never_overtakes_a_recorded_reader_of_its_buffer() {
    let Some(device) = wanted_gpu() else { return };
    let mut r = Random(31);
    let inputs: Vec<Vec<f32>> = (0..20).map(|_| r.floats(64, 1.0)).collect();
    // Each input's tensor is dropped before its operation has run, so the next upload may reuse its buffer.
    let outputs: Vec<Tensor> = inputs
        .iter()
        .map(|x| {
            Tensor::from_f32(x, &[64], &device)
                .unwrap()
                .activation(Activation::Affine { alpha: 2.0, beta: 1.0 })
                .unwrap()
        })
        .collect();
    for (x, y) in inputs.iter().zip(&outputs) {
        let want: Vec<f64> = wide(x).iter().map(|v| 2.0 * v + 1.0).collect();
        compare(&y.to_vec().unwrap(), &want, Tolerance::new(1e-6)).unwrap();
    }
}
