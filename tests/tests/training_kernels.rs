//! Recurrent layers for training against the exact gradients of the f64 reference.

use recurve::{Activation, Cell, CellKind, DType, Device, Direction, MaskedOutput, Tensor, TensorError, Zoneout};
use recurve_kernels::{OutputGradients, Reserve, TrainingArgs, TrainingForm, TrainingLayer, TrainingWeights, Wanted};
use recurve_tests::training::{DIRECTIONS, Named, TrainingCase, cells, named};
use recurve_tests::{Arrays, golden, own_gpu, wanted_gpu};

/// The error that an element may have, as a share of the largest element of its gradient or 1: some ten roundings of
/// f32 (6e-8) for each of the timesteps and terms of the sums of these sizes.
const BOUND: f64 = 2e-5;

/// The same on a GPU, whose functions may have ten times the error of the CPU's, and which standardizes in f32.
const GPU_BOUND: f64 = 1e-4;

/// The CPU and, unless tests are for the CPU alone, the GPU, with their bounds.
fn devices() -> impl Iterator<Item = (Device, f64)> {
    [(Some(Device::Cpu), BOUND), (wanted_gpu(), GPU_BOUND)].into_iter().filter_map(|(d, bound)| Some((d?, bound)))
}

/// What is wrong with results of the CPU, by name.
fn differences(got: &Named<f32>, want: &Named<f64>) -> Vec<String> {
    beyond(BOUND, got, want)
}

/// What is beyond a bound, by name.
fn beyond(bound: f64, got: &Named<f32>, want: &Named<f64>) -> Vec<String> {
    let names = |v: &mut dyn Iterator<Item = &String>| v.cloned().collect::<Vec<_>>();
    let mut wrong = Vec::new();
    let (had, wanted) = (names(&mut got.iter().map(|g| &g.0)), names(&mut want.iter().map(|g| &g.0)));
    if had != wanted {
        wrong.push(format!("came {had:?}, expected {wanted:?}"));
        return wrong;
    }
    for ((name, got), (_, want)) in got.iter().zip(want) {
        if got.len() != want.len() {
            wrong.push(format!("{name} has {} elements, expected {}", got.len(), want.len()));
            continue;
        }
        let scale = want.iter().fold(1.0f64, |m, v| m.max(v.abs()));
        let far = |(_, (g, w)): &(usize, (&f32, &f64))| {
            let error = (f64::from(**g) - **w).abs();
            error.is_nan() || error > bound * scale
        };
        let want_len = want.len();
        let all = got.iter().zip(want).enumerate();
        let bad: Vec<_> = all.filter(far).collect();
        if let Some((n, (got, want))) = bad.first() {
            wrong.push(format!("{name}: {} of {}, the first [{n}]: {got}, expected {want}", bad.len(), want_len));
        }
    }
    wrong
}

fn right(case: &TrainingCase) {
    right_on(case, ways(case));
}

/// The devices with their bounds, and the forms in which each must run a case. A software adapter, which takes long to
/// compile kernels, runs single steps of the usual sizes only with lengths.
fn ways(case: &TrainingCase) -> impl Iterator<Item = (Device, f64, TrainingForm)> {
    devices().flat_map(|(device, bound)| {
        let mut forms = if device == Device::Cpu { vec![TrainingForm::Auto] } else { case.forms() };
        if is_software(&device) && case.case.sizes == SIZES && case.case.lengths.is_none() {
            forms.retain(|&form| form != TrainingForm::Step);
        }
        forms.into_iter().map(move |form| (device.clone(), bound, form))
    })
}

fn is_software(device: &Device) -> bool {
    device.gpu().is_some_and(|gpu| gpu.is_software())
}

fn right_on(case: &TrainingCase, ways: impl IntoIterator<Item = (Device, f64, TrainingForm)>) {
    let want = case.reference();
    for (device, bound, form) in ways {
        let got = TrainingCase { form, ..case.clone() }.run(&device).expect("a valid call");
        let wrong = beyond(bound, &got, &want);
        let c = &case.case;
        let directions: Vec<_> = c.directions.iter().map(|d| d.0).collect();
        assert!(
            wrong.is_empty(),
            "{device} {form:?} {:?} {directions:?} B,T,I,H {:?} lengths {:?} mask {:?} states {}: {wrong:#?}",
            c.cell,
            c.sizes,
            c.lengths,
            c.mask,
            c.h0.is_some(),
        );
    }
}

const SIZES: [usize; 4] = [3, 5, 4, 10];

fn has_zoneout(cell: &Cell) -> bool {
    matches!(cell.kind, CellKind::Rnn | CellKind::Lstm { .. } | CellKind::Gru { .. })
}

#[test]
fn every_cell_and_option() {
    for (n, cell) in cells().into_iter().enumerate() {
        let case = TrainingCase::random(500 + n as u64, cell, DIRECTIONS[n % 4], SIZES);
        right(&case);
        let mut states = case.clone();
        states.case = states.case.with_states(3);
        right(&states);
        let mut lengths = states.clone();
        lengths.case = lengths.case.with_lengths();
        right(&lengths);
        for output in [MaskedOutput::Zero, MaskedOutput::Repeat] {
            let mut masked = states.clone();
            masked.case = masked.case.with_mask(5, output);
            right(&masked);
        }
    }
}

/// The sizes at which vectors, panels and blocks of rows end, with the cells that have code of their own.
#[test]
fn sizes_at_edges() {
    for cell in [Cell::RNN, Cell::LSTM, Cell::GRU, Cell::GRU_RESET_BEFORE, Cell::SLSTM, Cell::MINGRU] {
        for (n, sizes) in
            [[1, 1, 1, 1], [1, 9, 3, 16], [2, 3, 1, 17], [7, 2, 16, 32], [13, 2, 5, 33], [1, 40, 8, 64], [33, 3, 7, 48]]
                .into_iter()
                .enumerate()
        {
            let case = TrainingCase::random(n as u64, cell, DIRECTIONS[n % 4], sizes);
            // Every second size is enough for the ends of a step's tiles.
            let needed = |(device, _, form): &(Device, f64, TrainingForm)| {
                *form != TrainingForm::Step || n % 2 == 0 || !is_software(device)
            };
            right_on(&case, ways(&case).filter(needed));
        }
    }
}

/// Several dispatches for the timesteps, gradients of weights that are added up in parts, and cells that a form has no
/// kernel for.
#[test]
fn forms_of_long_sequences() {
    let Some(device) = wanted_gpu() else { return };
    for (n, cell) in [Cell::RNN, Cell::LSTM, Cell::GRU, Cell::GRU_RESET_BEFORE].into_iter().enumerate() {
        let mut case = TrainingCase::random(n as u64, cell, DIRECTIONS[2], [3, 96, 5, 36]);
        case.case = case.case.with_states(1).with_mask(2, MaskedOutput::Repeat);
        right(&case);
    }
    let peepholes = Cell { peepholes: true, ..Cell::LSTM };
    for (cell, form) in [
        (peepholes, TrainingForm::Scan),
        (peepholes, TrainingForm::Step),
        (Cell::SLSTM, TrainingForm::Scan),
        (Cell::GRU_RESET_BEFORE, TrainingForm::Step),
    ] {
        let case = TrainingCase { form, ..TrainingCase::random(1, cell, DIRECTIONS[0], SIZES) };
        let text = case.run(&device).expect_err("no kernel").to_string();
        assert!(text.contains("`form`") && text.contains(form.name()), "{text}");
    }
}

/// The layouts of hardware GPUs, on any device: 8, 4, 2 or 1 lanes for a unit, weights in registers, tiles of 1, 2 and
/// 4 rows.
#[test]
fn layouts_of_hardware() {
    if wanted_gpu().is_none() {
        return;
    }
    let device = own_gpu();
    let gpu = device.gpu().unwrap();
    gpu.assume_hardware();
    let any = [3, 5, 4, 10];
    for (cell, sizes) in [
        (Cell::RNN, [any, [1, 2, 2, 300], [130, 2, 3, 9]]),
        (Cell::LSTM, [any, [2, 3, 3, 100], [70, 2, 3, 9]]),
        (Cell::GRU, [any, [1, 2, 2, 200], [130, 2, 3, 9]]),
        (Cell::GRU_RESET_BEFORE, [any, [2, 3, 3, 70], [70, 2, 3, 9]]),
    ] {
        for (n, sizes) in sizes.into_iter().enumerate() {
            let mut case = TrainingCase::random(n as u64, cell, DIRECTIONS[2], sizes);
            case.case = case.case.with_states(1).with_lengths();
            let forms = case.forms().into_iter().filter(|&form| form != TrainingForm::Products);
            right_on(&case, forms.map(|form| (device.clone(), GPU_BOUND, form)));
        }
    }
    // A software rasteriser does not scan so many rows by itself.
    let case = TrainingCase::random(1, Cell::LSTM, DIRECTIONS[0], [64, 9, 2, 8]);
    let dispatches = |form| {
        let before = gpu.work_counts().0;
        TrainingCase { form, ..case.clone() }.run(&device).unwrap();
        gpu.work_counts().0 - before
    };
    assert_eq!(dispatches(TrainingForm::Auto), dispatches(TrainingForm::Scan));
    assert!(dispatches(TrainingForm::Auto) < dispatches(TrainingForm::Products));
}

/// Inputs that are rows of a table, of which several timesteps read the same.
#[test]
fn rows_of_a_table() {
    for (n, cell) in cells().into_iter().enumerate() {
        let mut case = TrainingCase::random(n as u64, cell, DIRECTIONS[n % 4], SIZES).with_table(n as u64, 6);
        case.time_major = n % 3 == 0;
        match n % 5 {
            1 => case.case.lengths = Some(vec![5, 1, 3]),
            2 => case.case.mask = Some(vec![0, 1, 1, 0, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 0]),
            3 if !cell.kind.is_pointwise() => case = case.with_recurrent_dropout(n as u64, 1),
            _ => {}
        }
        right(&case);
    }
    // More timesteps than are added up at a time read a row; one that no valid timestep reads has no gradient.
    let mut case = TrainingCase::random(7, Cell::LSTM, DIRECTIONS[2], [9, 24, 7, 12]).with_table(7, 2);
    right(&case);
    case.case.mask = Some(vec![0; 9 * 24]);
    right(&case);
    // Nothing that is not read reaches a sum.
    let mut unread = case.clone();
    unread.table.as_mut().unwrap().0.fill(f32::NAN);
    right_on(&unread, [(Device::Cpu, 1e-5, TrainingForm::Auto)]);
    let (table, ids) = case.table.as_mut().unwrap();
    ids.fill(0);
    table[7..].fill(f32::NAN);
    case.case.mask = None;
    let got = case.run(&Device::Cpu).unwrap();
    assert!(got.iter().all(|(_, v)| v.iter().all(|v| v.is_finite())), "a row that is not read has no part");
}

#[test]
fn directions_layouts_and_missing_gradients() {
    for cell in [Cell::RNN, Cell::LSTM, Cell::GRU, Cell::GRU_RESET_BEFORE, Cell::SLSTM, Cell::INDRNN] {
        for directions in DIRECTIONS {
            let mut case = TrainingCase::random(1, cell, directions, SIZES);
            case.case = case.case.with_states(2).with_lengths();
            right(&case);
            right(&TrainingCase { time_major: true, ..case.clone() });
            right(&TrainingCase { reading_order: true, ..case.clone() });
            right(&TrainingCase { reading_order: true, time_major: true, ..case.clone() });
            right(&TrainingCase { dy: None, ..case.clone() });
            right(&TrainingCase { dh: None, ..case.clone() });
            right(&TrainingCase { dc: None, ..case.clone() });
            right(&TrainingCase { dy: None, dh: None, dc: None, ..case });
        }
    }
}

#[test]
fn weights_without_biases() {
    for cell in cells() {
        for keep in [(false, false), (true, false), (false, true)] {
            let mut case = TrainingCase::random(1, cell, &[Direction::Forward], SIZES);
            let w = &mut case.case.directions[0].1;
            if !keep.0 {
                w.b_ih.clear();
            }
            if !keep.1 {
                w.b_hh.clear();
            }
            right(&case);
        }
    }
}

#[test]
fn what_training_draws() {
    for (n, cell) in cells().into_iter().enumerate() {
        let mut case = TrainingCase::random(300 + n as u64, cell, DIRECTIONS[n % 4], SIZES);
        case.case = case.case.with_states(1).with_mask(2, MaskedOutput::Repeat);
        if !matches!(cell.kind, CellKind::MinGru | CellKind::MinLstm) {
            right(&case.clone().with_recurrent_dropout(3, 1));
            right(&case.clone().with_recurrent_dropout(4, cell.kind.gates()));
        }
        if has_zoneout(&cell) {
            right(&case.clone().with_zoneout(5));
            right(&case.with_zoneout(6).with_recurrent_dropout(7, cell.kind.gates()));
        }
    }
}

/// Dropping everything stops what comes back through products, and zoneout of everything keeps the state.
#[test]
fn dropping_everything_gives_zeros() {
    for cell in [Cell::RNN, Cell::LSTM, Cell::GRU, Cell::GRU_RESET_BEFORE] {
        let mut case = TrainingCase::random(1, cell, &[Direction::Forward], SIZES).with_recurrent_dropout(1, 1);
        case.draws.recurrent_dropout.as_mut().unwrap().1.fill(0.0);
        right(&case);
        let got = case.run(&Device::Cpu).unwrap();
        let of = |name: &str| &got.iter().find(|g| g.0 == name).unwrap().1;
        assert!(of("w_hh 0").iter().all(|&v| v == 0.0));
        let mut case = TrainingCase::random(1, cell, &[Direction::Forward], SIZES).with_zoneout(1);
        case.draws.zoneout_h.as_mut().unwrap().fill(1.0);
        if let Some(c) = &mut case.draws.zoneout_c {
            c.fill(1.0);
        }
        right(&case);
        let got = case.run(&Device::Cpu).unwrap();
        assert!(got.iter().find(|g| g.0 == "w_ih 0").unwrap().1.iter().all(|&v| v == 0.0));
    }
}

/// Nothing that stands where a timestep is not valid reaches a gradient, and its own gradient is exactly zero.
#[test]
fn padding_has_no_part() {
    for (n, cell) in cells().into_iter().enumerate() {
        for mask in [false, true] {
            let mut case = TrainingCase::random(n as u64, cell, DIRECTIONS[n % 4], SIZES);
            case.case = if mask { case.case.with_mask(4, MaskedOutput::Zero) } else { case.case.with_lengths() };
            let [b, t, i, _] = SIZES;
            let valid = |row: usize, time: usize| match (&case.case.lengths, &case.case.mask) {
                (Some(l), _) => time < l[row] as usize,
                (_, Some(m)) => m[row * t + time] != 0,
                _ => true,
            };
            let clean = case.run(&Device::Cpu).unwrap();
            let mut dirty = case.clone();
            let mut padded = 0;
            for (place, x) in dirty.case.x.chunks_exact_mut(i).enumerate() {
                if !valid(place / t, place % t) {
                    x.fill(f32::NAN);
                    padded += 1;
                }
            }
            assert!(padded > 0 && padded < b * t);
            assert_eq!(dirty.run(&Device::Cpu).unwrap(), clean, "{cell:?}");
            let dx = &clean.iter().find(|g| g.0 == "x").unwrap().1;
            for (place, dx) in dx.chunks_exact(i).enumerate() {
                assert!(valid(place / t, place % t) || dx.iter().all(|&v| v == 0.0), "{cell:?}");
            }
        }
    }
}

#[test]
fn a_batch_without_a_valid_timestep_has_no_gradient() {
    for (n, cell) in cells().into_iter().enumerate() {
        let mut case = TrainingCase::random(n as u64, cell, DIRECTIONS[n % 4], SIZES);
        case.case.mask = Some(vec![0; SIZES[0] * SIZES[1]]);
        case.case.x.fill(f32::NAN);
        for (name, v) in case.run(&Device::Cpu).unwrap() {
            // What comes back to the final states goes to the initial ones.
            if !matches!(&name[..], "h0" | "c0") {
                assert!(v.iter().all(|&v| v == 0.0), "{cell:?}: {name} is {v:?}");
            } else {
                assert!(v.iter().all(|v| v.is_finite()));
            }
        }
    }
}

/// Sizes that are shared among threads.
fn shared_cases() -> Vec<TrainingCase> {
    let mut all = Vec::new();
    let peepholes = Cell { peepholes: true, layer_norm: Some(0.01), ..Cell::LSTM };
    for cell in [Cell::RNN, Cell::LSTM, Cell::GRU, Cell::GRU_RESET_BEFORE, peepholes, Cell::SLSTM, Cell::INDRNN] {
        for directions in [DIRECTIONS[0], DIRECTIONS[2]] {
            let case = TrainingCase::random(1, cell, directions, [9, 24, 40, 72]);
            all.push(case.clone().with_table(2, 30));
            all.push(case);
        }
    }
    all
}

#[test]
fn bits_are_the_same_with_any_number_of_threads() {
    let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
    for case in shared_cases() {
        let first = pool(1).install(|| case.run(&Device::Cpu).unwrap());
        for n in [1, 2, 4] {
            let again = pool(n).install(|| case.run(&Device::Cpu).unwrap());
            for ((name, a), (_, b)) in first.iter().zip(&again) {
                assert!(a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits()), "{:?}: {name}", case.case.cell);
            }
        }
    }
}

/// A layer whose memory was used by a call of another size, and gradients that are not asked for.
#[test]
fn calls_of_one_layer_do_not_touch_each_other() {
    for cell in cells() {
        let small = TrainingCase::random(1, cell, DIRECTIONS[2], [2, 3, 4, 10]);
        let mut large = TrainingCase::random(2, cell, DIRECTIONS[2], [5, 6, 4, 10]);
        large.case = large.case.with_mask(3, MaskedOutput::Repeat);
        let layer = small.layer();
        let run = |case: &TrainingCase| {
            let (out, g) = case.tensors(&layer, &Device::Cpu).unwrap().run(&layer).unwrap();
            named(&out, &g).unwrap()
        };
        let first = run(&small);
        run(&large);
        assert_eq!(run(&small), first, "{cell:?}");
        let tensors = small.tensors(&layer, &Device::Cpu).unwrap();
        let out = layer.forward(&tensors.x, &tensors.weights(), &tensors.args()).unwrap();
        for (x, states, weights) in [(true, false, false), (false, true, false), (false, false, true)] {
            let wanted = Wanted { x, states, weights, ..Wanted::default() };
            let weight_list = tensors.weights();
            let g =
                layer.backward(&tensors.x, &weight_list, &tensors.args(), &out.reserve, &tensors.by(), wanted).unwrap();
            assert_eq!((g.x.is_some(), g.h0.is_some(), g.weights.len()), (x, states, 2 * usize::from(weights)));
            for (name, v) in named(&out, &g).unwrap() {
                assert_eq!(first.iter().find(|f| f.0 == name).unwrap().1, v, "{cell:?}: {name}");
            }
        }
    }
}

/// The comparison finds a changed element of every gradient, and what another reading of the equations would give.
#[test]
fn wrong_gradients_are_found() {
    let mut case = TrainingCase::random(1, Cell::LSTM, DIRECTIONS[2], SIZES);
    case.case = case.case.with_states(1);
    let (got, want) = (case.run(&Device::Cpu).unwrap(), case.reference());
    assert!(differences(&got, &want).is_empty());
    for n in 0..got.len() {
        let mut changed = got.clone();
        let scale = want[n].1.iter().fold(1.0f64, |m, v| m.max(v.abs())) as f32;
        changed[n].1[1] += 1e-4 * scale;
        assert_eq!(differences(&changed, &want).len(), 1, "{}", got[n].0);
        changed[n].1[1] = f32::NAN;
        assert_eq!(differences(&changed, &want).len(), 1, "{}", got[n].0);
    }
    let other = |cell: Cell, change: &dyn Fn(&mut TrainingCase)| {
        let case = TrainingCase::random(2, cell, DIRECTIONS[2], SIZES).with_recurrent_dropout(1, cell.kind.gates());
        let mut changed = case.clone();
        change(&mut changed);
        assert!(!differences(&case.run(&Device::Cpu).unwrap(), &changed.reference()).is_empty(), "{cell:?}");
    };
    other(Cell::LSTM, &|c| c.dc = None);
    other(Cell::LSTM, &|c| c.dh = None);
    other(Cell::GRU, &|c| c.dy = None);
    other(Cell::GRU, &|c| c.reading_order = true);
    other(Cell::GRU, &|c| c.draws.recurrent_dropout = None);
    other(Cell::GRU, &|c| c.case.cell.kind = CellKind::Gru { reset_after: false });
    other(Cell { zoneout: Some(Zoneout { h: 0.5, c: 0.25 }), ..Cell::LSTM }, &|c| c.case.cell.zoneout = None);
    other(Cell { clip: Some(0.1), ..Cell::RNN }, &|c| c.case.cell.clip = None);
}

#[test]
fn bad_arguments_are_errors() {
    let refused = |result: Result<TrainingLayer, TensorError>, part: &str| {
        let text = result.expect_err("refused").to_string();
        assert!(text.contains(part), "{text}");
    };
    let forward = &[Direction::Forward][..];
    refused(TrainingLayer::new(Cell::LSTM, 0, 4, forward), "input_size, hidden_size");
    refused(TrainingLayer::new(Cell::LSTM, 4, usize::MAX, forward), "too large");
    refused(TrainingLayer::new(Cell::LSTM, 4, 4, &[]), "directions");
    refused(TrainingLayer::new(Cell { clip: Some(-1.0), ..Cell::LSTM }, 4, 4, forward), "TrainingLayer::new: `clip`");
    refused(TrainingLayer::new(Cell { projection: Some(4), ..Cell::LSTM }, 4, 4, forward), "projection");
    refused(TrainingLayer::new(Cell { peepholes: true, ..Cell::GRU }, 4, 4, forward), "peepholes");

    let case = TrainingCase::random(1, Cell::LSTM, forward, SIZES);
    let layer = case.layer();
    let all = case.tensors(&layer, &Device::Cpu).unwrap();
    let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
    let whole = |dims: &[usize], v: f32| Tensor::full(dims, v, DType::U32, &Device::Cpu).unwrap();
    let call = |x: &Tensor, weights: &[TrainingWeights<&Tensor>], args: &TrainingArgs<'_>| {
        layer.forward(x, weights, args).err().map(|e| e.to_string()).unwrap_or_default()
    };
    let with = |args: TrainingArgs<'_>| call(&all.x, &all.weights(), &args);
    let [b, t, i, h] = SIZES;
    let contains = |text: String, parts: &[&str]| {
        assert!(parts.iter().all(|p| text.contains(p)), "{text:?} does not contain {parts:?}");
    };
    contains(call(&zeros(&[b, t, i + 1]), &all.weights(), &all.args()), &["`x`", "4 features"]);
    contains(call(&whole(&[b, t, i], 0.0), &all.weights(), &all.args()), &["`x`", "f32"]);
    contains(call(&all.x, &[], &all.args()), &["`weights`", "1 directions"]);
    let square = zeros(&[4 * h, h]);
    let mut w = all.weights();
    w[0].w_ih = &square;
    contains(call(&all.x, &w, &all.args()), &["`w_ih`", "[G·H, I] = [40, 4]"]);
    let mut w = all.weights();
    w[0].w_hh = None;
    contains(call(&all.x, &w, &all.args()), &["`w_hh`", "needed"]);
    let mut w = all.weights();
    w[0].peepholes = Some(&square);
    contains(call(&all.x, &w, &all.args()), &["`peepholes`", "belongs to no option"]);
    let state = zeros(&[1, b, h + 1]);
    contains(with(TrainingArgs { h0: Some(&state), ..all.args() }), &["`h0`", "[1, 3, 10]"]);
    contains(with(TrainingArgs { c0: Some(&state), ..all.args() }), &["`c0`", "[1, 3, 10]"]);
    let lengths = whole(&[b], t as f32 + 1.0);
    contains(with(TrainingArgs { lengths: Some(&lengths), ..all.args() }), &["`lengths`", "contains 6"]);
    let lengths = whole(&[b + 1], 1.0);
    contains(with(TrainingArgs { lengths: Some(&lengths), ..all.args() }), &["`lengths`", "[batch] = [3]"]);
    let (mask, lengths) = (whole(&[b, t], 1.0), whole(&[b], 1.0));
    let both = TrainingArgs { lengths: Some(&lengths), mask: Some(&mask), ..all.args() };
    contains(with(both), &["`mask`", "together with lengths"]);
    let factors = zeros(&[1, 2, b, h]);
    contains(
        with(TrainingArgs { recurrent_dropout: Some(&factors), ..all.args() }),
        &["recurrent_dropout", "[1, 4, 3, 10]"],
    );
    let shares = zeros(&[1, t, b, h + 1]);
    contains(with(TrainingArgs { zoneout_c: Some(&shares), ..all.args() }), &["`zoneout_c`", "[1, 5, 3, 10]"]);

    // Rows of a table.
    let (table, ids) = (zeros(&[7, i]), whole(&[b, t], 6.0));
    let read = |x: &Tensor, ids: &Tensor| call(x, &all.weights(), &TrainingArgs { ids: Some(ids), ..all.args() });
    assert_eq!(read(&table, &ids), "");
    contains(read(&all.x, &ids), &["`x`", "[rows, features]"]);
    contains(read(&table, &whole(&[b], 1.0)), &["`ids`", "[batch, timesteps]"]);
    contains(read(&table, &zeros(&[b, t])), &["`ids`", "u32"]);
    contains(read(&table, &whole(&[b, t], 7.0)), &["`ids`", "7"]);

    // Options that a cell does not have.
    for (cell, change, part) in [
        (Cell::GRU, (|a, s| a.c0 = Some(s)) as for<'a> fn(&mut TrainingArgs<'a>, &'a Tensor), "`c0`"),
        (Cell::MINGRU, |a, s| a.recurrent_dropout = Some(s), "`recurrent_dropout`"),
        (Cell::INDRNN, |a, s| a.zoneout_h = Some(s), "`zoneout_h`"),
        (Cell::GRU, |a, s| a.zoneout_c = Some(s), "`zoneout_c`"),
    ] {
        let case = TrainingCase::random(1, cell, forward, SIZES);
        let layer = case.layer();
        let own = case.tensors(&layer, &Device::Cpu).unwrap();
        let mut args = own.args();
        change(&mut args, &state);
        let text = layer.forward(&own.x, &own.weights(), &args).err().map(|e| e.to_string()).unwrap_or_default();
        contains(text, &[part, "cell"].map(|p| if p == "cell" && cell == Cell::MINGRU { "mingru" } else { p }));
    }

    let out = layer.forward(&all.x, &all.weights(), &all.args()).unwrap();
    let back = |reserve: &Reserve, by: OutputGradients<'_>| {
        let all_weights = all.weights();
        let g = layer.backward(&all.x, &all_weights, &all.args(), reserve, &by, Wanted::default());
        g.err().map(|e| e.to_string()).unwrap_or_default()
    };
    let kept = &out.reserve;
    let less = Reserve::new(kept.h.clone(), kept.h.clone(), kept.c.clone(), None);
    contains(back(&less, all.by()), &["TrainingLayer::backward", "`reserve.gates`"]);
    let less = Reserve::new(kept.gates.clone(), kept.h.clone(), None, None);
    contains(back(&less, all.by()), &["`reserve.c`", "missing"]);
    let more = Reserve::new(kept.gates.clone(), kept.h.clone(), kept.c.clone(), Some(kept.h.clone()));
    contains(back(&more, all.by()), &["`reserve.norms`", "not kept"]);
    contains(back(kept, OutputGradients { y: Some(&state), ..all.by() }), &["`dy`"]);
    contains(back(kept, OutputGradients { h: Some(&state), ..all.by() }), &["`dh`"]);
    contains(back(kept, OutputGradients { c: Some(&state), ..all.by() }), &["`dc`"]);
}

/// A case of the fixture, and PyTorch's results by name. A state that is not given has no gradient there.
fn pytorch(name: &str, arrays: &Arrays) -> (TrainingCase, Named<f64>) {
    let [b, t, i, h, d, w] = arrays["in.size"].data[..] else { panic!("six sizes") };
    let cell = match name {
        _ if name.starts_with("lstm_projection") => Cell { projection: Some(w as usize), ..Cell::LSTM },
        _ if name.starts_with("lstm") => Cell::LSTM,
        _ if name.starts_with("gru") => Cell::GRU,
        _ if name.starts_with("rnn_tanh") => Cell::RNN,
        _ => Cell { candidate: Activation::Relu, ..Cell::RNN },
    };
    let given = |array: &str| arrays.get(&format!("in.{array}")).map(|a| a.data.clone());
    let directions = if d == 2.0 { DIRECTIONS[2] } else { DIRECTIONS[0] };
    let mut case = TrainingCase::random(1, cell, directions, [b, t, i, h].map(|n| n as usize));
    case.case.x = given("x").unwrap();
    (case.case.h0, case.case.c0) = (given("h0"), given("c0"));
    case.case.lengths = given("lengths").map(|l| l.into_iter().map(|v| v as u32).collect());
    (case.dy, case.dh, case.dc) = (given("dy"), given("dh"), given("dc"));
    for (n, (_, weights)) in case.case.directions.iter_mut().enumerate() {
        let own = |array: &str| given(&format!("{array} {n}")).unwrap_or_default();
        (weights.w_ih, weights.w_hh, weights.w_hr) = (own("w_ih"), own("w_hh"), own("w_hr"));
        (weights.b_ih, weights.b_hh) = (own("b_ih"), own("b_hh"));
    }
    let results = arrays.iter().filter_map(|(name, a)| Some((name.strip_prefix("out.")?, a)));
    (case, results.map(|(name, a)| (name.to_owned(), a.data.iter().map(|&v| v.into()).collect())).collect())
}

#[test]
fn pytorch_has_the_same_gradients() {
    let cases = golden("gradients.safetensors");
    assert_eq!(cases.len(), 25);
    for (name, arrays) in &cases {
        let (case, want) = pytorch(name, arrays);
        // The results that PyTorch gives, in its order.
        let got = |case: &TrainingCase| {
            let all = case.run(&Device::Cpu).unwrap();
            let missing = all.iter().filter(|g| !want.iter().any(|w| w.0 == g.0)).map(|g| &g.0[..]);
            assert!(missing.into_iter().all(|n| matches!(n, "h0" | "c0")), "{name}");
            want.iter().map(|w| all.iter().find(|g| g.0 == w.0).unwrap().clone()).collect::<Named<f32>>()
        };
        let wrong = differences(&got(&case), &want);
        assert!(wrong.is_empty(), "{name}: {wrong:#?}");
        // Wrong readings that the fixture must tell apart.
        let mut other = case.clone();
        other.dh = None;
        assert!(!differences(&got(&other), &want).is_empty(), "{name}");
        if case.case.lengths.is_some() {
            let other = TrainingCase { case: case.case.clone().without_lengths(), ..case.clone() };
            assert!(!differences(&got(&other), &want).is_empty(), "{name}");
        }
        if case.case.cell == Cell::GRU {
            let mut other = case.clone();
            other.case.cell = Cell::GRU_RESET_BEFORE;
            assert!(!differences(&got(&other), &want).is_empty(), "{name}");
        }
    }
}
