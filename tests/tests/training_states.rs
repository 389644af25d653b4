//! States in training: initial and final states with their gradients, stateful layers, truncated backpropagation through
//! time, and padded positions, beside PyTorch and Keras (`golden/make_training_states.py`).

use recurve::testing::{Tolerance, compare};
use recurve::{
    Bias, Bidirectional, Cell, Conv1d, DType, Dense, Device, Embedding, Gru, LayerConfig, Lstm, Masking, Merge,
    Network, NetworkConfig, RecurrentSpec, Sequential, SimpleRnn, StackedRnnCells, State, Tensor, TimeDistributed,
    Weights,
};
use recurve_tests::{Arrays, Random, golden, wanted_gpu, wide};
use recurve_train::{Adam, Batch, Error, Loss, RmsProp, Sgd, StepOptions, StepResult, Training};
use std::sync::Arc;

/// The results are computed in f32, those of the fixture in f64.
const BOUND: f64 = 1e-5;

fn devices() -> impl Iterator<Item = Device> {
    std::iter::once(Device::Cpu).chain(wanted_gpu())
}

fn tensor(arrays: &Arrays, name: &str, device: &Device) -> Tensor {
    let a = &arrays[name];
    Tensor::from_f32(&a.data, &a.shape, device).unwrap()
}

/// A network with the weights of a case.
fn network(arrays: &Arrays, layers: &[LayerConfig], device: &Device) -> Network {
    let mut weights = Weights::new();
    for (name, a) in arrays.iter().filter_map(|(n, a)| Some((n.strip_prefix("w.")?, a))) {
        weights.insert(name, &a.shape, a.data.clone()).unwrap();
    }
    let features = arrays["w.layers.0.weight_ih_l0"].shape[1];
    let config = NetworkConfig::sequential(layers, &[None, None, Some(features)]).unwrap();
    Network::new(&config, Arc::new(weights), device).unwrap()
}

/// Two stacked layers of PyTorch and a linear layer.
fn two_layers(cell: Cell, units: usize, both: bool) -> [LayerConfig; 2] {
    let mut spec = RecurrentSpec::new(cell, units);
    (spec.num_layers, spec.bias, spec.return_sequences) = (2, Bias::Double, true);
    spec.bidirectional = both.then_some(Merge::Concat);
    [LayerConfig::Recurrent(spec), Dense::new(2).into()]
}

fn agrees(what: &str, got: &Tensor, want: &Arrays, name: &str) -> Result<(), String> {
    let want = &want[name];
    let result = compare(&got.to_vec().unwrap(), &wide(&want.data), Tolerance::new(BOUND));
    result.map(|_| ()).map_err(|e| format!("{what}: {name}: {e}"))
}

fn given(arrays: &Arrays, device: &Device) -> State {
    let part = |name: &str| arrays.contains_key(name).then(|| tensor(arrays, name, device));
    State { h: part("in.h0").unwrap(), c: part("in.c0") }
}

fn squares() -> StepOptions {
    StepOptions::new(Loss::mean_squared_error(), Sgd::pytorch().learning_rate(0.1))
}

/// Everything that PyTorch computes for a case, from these states and lengths.
fn all_agree(arrays: &Arrays, training: &mut Training, state: &State, lengths: Option<&Tensor>) -> Result<(), String> {
    let device = training.device().clone();
    let [x, y] = ["in.x", "in.y"].map(|n| tensor(arrays, n, &device));
    let (inputs, targets, states) = ([&x], [&y], [state.clone()]);
    let mut batch = Batch::new(&inputs, &targets).states(&states);
    if let Some(lengths) = lengths {
        batch = batch.lengths(lengths);
    }
    let (result, gradients) = training.all_gradients(&batch).unwrap();
    agrees("loss", &result.loss, arrays, "loss")?;
    agrees("x", gradients.inputs[0].as_ref().unwrap(), arrays, "g.x")?;
    for (of, state, g) in [("end", &result.states[0], false), ("g", &gradients.states[0], true)] {
        let [h, c] = if g { ["g.h0", "g.c0"] } else { ["end.h", "end.c"] };
        agrees(of, &state.h, arrays, h)?;
        assert_eq!(state.c.is_some(), arrays.contains_key(c));
        state.c.as_ref().map_or(Ok(()), |own| agrees(of, own, arrays, c))?;
    }
    let names: Vec<String> = training.names().map(str::to_owned).collect();
    assert_eq!(names.len(), gradients.weights.len());
    for (name, g) in names.iter().zip(&gradients.weights) {
        agrees("weight", g, arrays, &format!("g.{name}"))?;
    }
    let count = arrays.keys().filter(|n| n.starts_with("g.layers")).count();
    assert_eq!(count, names.len());
    Ok(())
}

#[test]
fn gradients_by_states_and_inputs_are_those_of_pytorch() {
    let cases = golden("training_states.safetensors");
    for device in devices() {
        for (name, cell, both) in [("states_lstm", Cell::LSTM, true), ("states_gru", Cell::GRU, false)] {
            let arrays = &cases[name];
            for checkpoints in [false, true] {
                let network = network(arrays, &two_layers(cell, 4, both), &device);
                let mut training = Training::new(&network, squares().checkpoints(checkpoints)).unwrap();
                let state = given(arrays, &device);
                let whole: Vec<u32> = arrays["in.lengths"].data.iter().map(|&v| v as u32).collect();
                let lengths = Tensor::from_u32(&whole, &[3], &device).unwrap();
                all_agree(arrays, &mut training, &state, Some(&lengths)).unwrap_or_else(|e| panic!("{device}: {e}"));
                // What the comparison must tell apart.
                assert!(all_agree(arrays, &mut training, &state, None).is_err(), "{name}: lengths");
                let zeros = Tensor::zeros(state.h.dims(), DType::F32, &device).unwrap();
                let other = State { h: zeros, ..state.clone() };
                assert!(all_agree(arrays, &mut training, &other, Some(&lengths)).is_err(), "{name}: states");
            }
        }
    }
}

/// The gradients by the weights are those of a call that asks for no others, and by states those of differences.
#[test]
fn other_gradients_change_no_gradient_by_weights() {
    let device = Device::Cpu;
    let layers = Sequential::new()
        .add(Embedding::new(9, 3))
        .add(Gru::new(4).return_sequences(true))
        .add(StackedRnnCells::new().add(SimpleRnn::new(3)).add(Lstm::new(2)))
        .add(Dense::new(1));
    let network = layers.build(&[None, None], &device).unwrap();
    let mut training = Training::new(&network, squares()).unwrap();
    let x = Tensor::from_u32(&[1, 5, 8, 0, 2, 2, 7, 3], &[2, 4], &device).unwrap();
    let y = Tensor::from_f32(&[0.5, -0.5], &[2, 1], &device).unwrap();
    let random = |dims: [usize; 3], seed| Tensor::rand_uniform(&dims, -1.0..1.0, seed, &device).unwrap();
    let states = [
        State { h: random([1, 2, 4], 1), c: None },
        State { h: random([1, 2, 3], 2), c: None },
        State { h: random([1, 2, 2], 3), c: Some(random([1, 2, 2], 4)) },
    ];
    let (inputs, targets) = ([&x], [&y]);
    let batch = Batch::new(&inputs, &targets).states(&states);
    let (result, weights) = training.gradients(&batch).unwrap();
    let (_, all) = training.all_gradients(&batch).unwrap();
    assert!(all.inputs.iter().all(Option::is_none), "ids have no gradient");
    assert_eq!((all.states.len(), result.states.len()), (3, 3));
    for (a, b) in weights.iter().zip(&all.weights) {
        assert_eq!(a.to_vec().unwrap(), b.to_vec().unwrap());
    }
    // By differences, in f32: the loss is near 1, so a difference of 2e-2 is known to 1e-5 of it.
    let loss = |states: &[State], training: &mut Training| {
        f64::from(
            training.gradients(&Batch::new(&inputs, &targets).states(states)).unwrap().0.loss.to_vec().unwrap()[0],
        )
    };
    for n in 0..3 {
        let values = states[n].h.to_vec().unwrap();
        let by = all.states[n].h.to_vec().unwrap();
        for e in 0..values.len() {
            let mut moved = |step: f32| {
                let mut v = values.clone();
                v[e] += step;
                let mut all = states.clone();
                all[n].h = Tensor::from_f32(&v, states[n].h.dims(), &device).unwrap();
                loss(&all, &mut training)
            };
            let difference = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!((difference - f64::from(by[e])).abs() < 1e-3, "state {n}[{e}]: {} and {difference}", by[e]);
        }
    }
    // Without states there are none by them, and the layers begin with zeros.
    let (plain, none) = training.all_gradients(&Batch::new(&inputs, &targets)).unwrap();
    assert!(none.states.is_empty());
    let zeros = |dims: [usize; 3]| Tensor::zeros(&dims, DType::F32, &device).unwrap();
    let zero = [
        State { h: zeros([1, 2, 4]), c: None },
        State { h: zeros([1, 2, 3]), c: None },
        State { h: zeros([1, 2, 2]), c: None },
    ];
    assert_eq!(f64::from(plain.loss.to_vec().unwrap()[0]), loss(&zero, &mut training));
    assert_ne!(f64::from(plain.loss.to_vec().unwrap()[0]), loss(&states, &mut training));
}

/// The losses of the steps and the weights after them.
fn after(training: &Training, results: &[StepResult], arrays: &Arrays) -> Result<(), String> {
    let losses: Vec<f32> = results.iter().map(|r| r.loss.to_vec().unwrap()[0]).collect();
    compare(&losses, &wide(&arrays["loss"].data), Tolerance::new(BOUND)).map_err(|e| format!("losses: {e}"))?;
    let mut moved = 0.0f32;
    for (name, a) in arrays.iter().filter_map(|(n, a)| Some((n.strip_prefix("after.")?, a))) {
        agrees("after", training.weight(name).unwrap(), arrays, &format!("after.{name}"))?;
        let before = &arrays[&format!("w.{name}")].data;
        moved = a.data.iter().zip(before).map(|(a, b)| (a - b).abs()).fold(moved, f32::max);
    }
    assert!(moved > 0.01, "{moved}");
    Ok(())
}

#[test]
fn truncated_steps_are_those_of_a_loop_that_detaches() {
    let cases = golden("training_states.safetensors");
    for device in devices() {
        for (name, cell) in [("truncated_lstm", Cell::LSTM), ("truncated_gru", Cell::GRU)] {
            let arrays = &cases[name];
            let options = match cell == Cell::LSTM {
                true => StepOptions::new(Loss::mean_squared_error(), Adam::pytorch().learning_rate(0.01)),
                false => StepOptions::new(Loss::mean_squared_error(), Sgd::pytorch().learning_rate(0.05).momentum(0.9)),
            };
            let timesteps = arrays["in.k"].data[0] as usize;
            let [x, y] = ["in.x", "in.y"].map(|n| tensor(arrays, n, &device));
            let new = |options: &StepOptions| {
                Training::new(&network(arrays, &two_layers(cell, 5, false), &device), options.clone()).unwrap()
            };
            for options in [options.clone(), options.clone().checkpoints(true)] {
                let mut training = new(&options);
                let results = training.step_truncated(&Batch::new(&[&x], &[&y]), timesteps).unwrap();
                after(&training, &results, arrays).unwrap_or_else(|e| panic!("{name} on {device}: {e}"));
                assert_eq!(training.steps(), 23u64.div_ceil(timesteps as u64));
                let last = &results.last().unwrap().states[0];
                agrees("end", &last.h, arrays, "end.h").unwrap_or_else(|e| panic!("{name} on {device}: {e}"));
            }
            // Pieces of another length, and pieces that begin with zeros, are something else.
            let mut other = new(&options);
            let results = other.step_truncated(&Batch::new(&[&x], &[&y]), timesteps - 1).unwrap();
            assert!(after(&other, &results, arrays).is_err());
            let mut fresh = new(&options);
            let pieces: Vec<StepResult> = (0..23usize)
                .step_by(timesteps)
                .map(|first| {
                    let cut = |t: &Tensor| t.slice(1, first..23.min(first + timesteps)).unwrap();
                    fresh.step(&Batch::new(&[&cut(&x)], &[&cut(&y)])).unwrap()
                })
                .collect();
            assert!(after(&fresh, &pieces, arrays).is_err());
        }
    }
}

fn stateful_layers(stateful: bool) -> Vec<LayerConfig> {
    vec![
        Lstm::new(4).return_sequences(true).stateful(stateful).into(),
        SimpleRnn::new(3).return_sequences(true).stateful(stateful).into(),
        Dense::new(2).into(),
    ]
}

#[test]
fn stateful_steps_are_those_of_keras() {
    let cases = golden("training_states.safetensors");
    let arrays = &cases["stateful"];
    let reset = arrays["in.reset"].data[0] as usize;
    for device in devices() {
        let [x, y] = ["in.x", "in.y"].map(|n| tensor(arrays, n, &device));
        let piece = |t: &Tensor, n: usize| {
            let one = t.slice(0, n..n + 1).unwrap();
            one.reshape(&one.dims()[1..]).unwrap()
        };
        let run = |stateful: bool, reset: Option<usize>| {
            let options = StepOptions::new(Loss::mean_squared_error(), RmsProp::keras().learning_rate(0.01));
            let network = network(arrays, &stateful_layers(stateful), &device);
            let mut training = Training::new(&network, options).unwrap();
            let mut results = Vec::new();
            for n in 0..6 {
                if Some(n) == reset {
                    training.reset_states();
                }
                results.push(training.step(&Batch::new(&[&piece(&x, n)], &[&piece(&y, n)])).unwrap());
            }
            after(&training, &results, arrays)
        };
        run(true, Some(reset)).unwrap_or_else(|e| panic!("{device}: {e}"));
        assert!(run(true, None).is_err() && run(false, None).is_err() && run(true, Some(reset - 1)).is_err());
    }
}

/// A stateful network passes its states on, and no gradient goes through them: its gradients are those of the same
/// network that is given the states as numbers.
#[test]
fn stateful_training_carries_states_and_no_gradient() {
    for device in devices() {
        let build = |stateful: bool| {
            let layers = stateful_layers(stateful).into_iter().fold(Sequential::new(), Sequential::add);
            layers.seed(3).build(&[None, None, Some(2)], &device).unwrap()
        };
        let x = |seed| Tensor::rand_uniform(&[3, 5, 2], -1.0..1.0, seed, &device).unwrap();
        let y = Tensor::rand_uniform(&[3, 5, 2], -1.0..1.0, 9, &device).unwrap();
        let [mut own, mut given] = [true, false].map(|s| Training::new(&build(s), squares()).unwrap());
        assert!(own.kept_states().is_none());
        let mut states: Option<Vec<State>> = None;
        for seed in 0..4 {
            let x = x(seed);
            let (inputs, targets) = ([&x], [&y]);
            let plain = Batch::new(&inputs, &targets);
            let with = match &states {
                Some(states) => plain.states(states),
                None => plain,
            };
            let [(_, a), (_, b)] = [own.gradients(&plain).unwrap(), given.gradients(&with).unwrap()];
            for (a, b) in a.iter().zip(&b) {
                assert_eq!(a.to_vec().unwrap(), b.to_vec().unwrap(), "step {seed} on {device}");
            }
            // Gradients change no state.
            let a = own.step(&plain).unwrap();
            let b = given.step(&with).unwrap();
            assert_eq!(a.loss.to_vec().unwrap(), b.loss.to_vec().unwrap());
            assert_eq!(a.states.len(), 2);
            let ends = |states: &[State]| states.iter().map(|s| s.h.to_vec().unwrap()).collect::<Vec<_>>();
            assert_eq!(ends(own.kept_states().unwrap()), ends(&b.states));
            assert!(given.kept_states().is_none());
            if seed > 0 {
                let fresh = given.gradients(&plain).unwrap().1;
                assert_ne!(fresh[0].to_vec().unwrap(), own.gradients(&with).unwrap().1[0].to_vec().unwrap());
            }
            states = Some(b.states);
        }
        // Another number of sequences needs a reset; after an error nothing has changed.
        let x4 = Tensor::rand_uniform(&[4, 5, 2], -1.0..1.0, 1, &device).unwrap();
        let y4 = Tensor::rand_uniform(&[4, 5, 2], -1.0..1.0, 2, &device).unwrap();
        let (inputs, targets) = ([&x4], [&y4]);
        let error = own.step(&Batch::new(&inputs, &targets)).unwrap_err();
        assert!(matches!(error, Error::Option { argument: "stateful", .. }), "{error}");
        let text = error.to_string();
        assert!(["lstm", "3 sequences", "has 4", "reset_states"].iter().all(|p| text.contains(p)), "{text}");
        assert_eq!(own.kept_states().unwrap()[0].h.dims(), [1, 3, 4]);
        // States of a checkpoint are those of a program that never stopped.
        let kept = own.kept_states().unwrap().to_vec();
        own.reset_states();
        own.step(&Batch::new(&inputs, &targets)).unwrap();
        assert!(own.set_kept_states(&kept[..1]).is_err());
        own.set_kept_states(&kept).unwrap();
        assert!(own.step(&Batch::new(&inputs, &targets)).is_err());
        own.step(&Batch::new(&[&x(1)], &[&y])).unwrap();
    }
}

/// A stateful layer inside a `TimeDistributed` keeps a state of each of its sequences.
#[test]
fn layers_inside_others_keep_their_states() {
    let device = Device::Cpu;
    let build = |stateful: bool| {
        let inner = Gru::new(3).stateful(stateful);
        let layers = Sequential::new().add(TimeDistributed::new(inner)).add(Lstm::new(2)).add(Dense::new(1));
        layers.seed(5).build(&[None, None, None, Some(2)], &device).unwrap()
    };
    let x = Tensor::rand_uniform(&[2, 4, 3, 2], -1.0..1.0, 1, &device).unwrap();
    let y = Tensor::rand_uniform(&[2, 1], -1.0..1.0, 2, &device).unwrap();
    let mut training = Training::new(&build(true), squares()).unwrap();
    let first = training.step(&Batch::new(&[&x], &[&y])).unwrap();
    assert_eq!(first.states.len(), 1, "that of the LSTM");
    assert_eq!(training.kept_states().unwrap()[0].h.dims(), [1, 8, 3]);
    let second = training.step(&Batch::new(&[&x], &[&y])).unwrap();
    let mut fresh = Training::new(&build(false), squares()).unwrap();
    fresh.step(&Batch::new(&[&x], &[&y])).unwrap();
    let other = fresh.step(&Batch::new(&[&x], &[&y])).unwrap();
    assert_ne!(second.loss.to_vec().unwrap(), other.loss.to_vec().unwrap());
    let wide = Tensor::rand_uniform(&[2, 5, 3, 2], -1.0..1.0, 1, &device).unwrap();
    let error = training.step(&Batch::new(&[&wide], &[&y])).unwrap_err().to_string();
    assert!(error.contains("8 sequences") && error.contains("has 10"), "{error}");
}

#[test]
fn bad_states_and_pieces_are_refused() {
    let device = Device::Cpu;
    let any = [None, None, Some(2)];
    let build = |layers: Sequential| layers.build(&any, &device).unwrap();
    let lstm = || Lstm::new(4).return_sequences(true);
    let x = Tensor::rand_uniform(&[3, 6, 2], -1.0..1.0, 1, &device).unwrap();
    let y = Tensor::rand_uniform(&[3, 6, 2], -1.0..1.0, 2, &device).unwrap();
    let (inputs, targets) = ([&x], [&y]);
    let batch = Batch::new(&inputs, &targets);
    let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &device).unwrap();
    let refused = |network: &Network, batch: &Batch<'_>, k: Option<usize>, parts: &[&str]| {
        let mut training = Training::new(network, squares()).unwrap();
        let error = match k {
            Some(k) => training.step_truncated(batch, k).map(|_| ()),
            None => training.step(batch).map(|_| ()),
        };
        let text = error.expect_err("refused").to_string();
        assert!(parts.iter().all(|p| text.contains(p)), "{text:?} does not contain {parts:?}");
        assert_eq!(training.steps(), 0);
    };
    let plain = build(Sequential::new().add(lstm()).add(Dense::new(2)));
    refused(&plain, &batch.states(&[]), None, &["`states`", "1 recurrent layers", "there are 0"]);
    let state = |h: &[usize], c: &[usize]| [State { h: zeros(h), c: Some(zeros(c)) }];
    refused(&plain, &batch.states(&state(&[1, 3, 5], &[1, 3, 4])), None, &["`states`", "[1, 3, 4]", "h of"]);
    refused(&plain, &batch.states(&state(&[1, 3, 4], &[1, 2, 4])), None, &["`states`", "[1, 3, 4]", "c of"]);
    refused(&plain, &batch.states(&state(&[1, 2, 4], &[1, 2, 4])), None, &["`states`", "[1, 3, 4]"]);
    let gru = build(Sequential::new().add(Gru::new(4).return_sequences(true)).add(Dense::new(2)));
    refused(&gru, &batch.states(&state(&[1, 3, 4], &[1, 3, 4])), None, &["`states`", "without c"]);

    refused(&plain, &batch, Some(0), &["step_truncated", "`timesteps`", "at least 1"]);
    let last = build(Sequential::new().add(Lstm::new(4)).add(Dense::new(2)));
    refused(&last, &batch, Some(2), &["step_truncated", "timesteps of the input", "output"]);
    let both = build(Sequential::new().add(Bidirectional::new(lstm())).add(Dense::new(2)));
    refused(&both, &batch, Some(2), &["reads forwards only"]);
    let conv = build(Sequential::new().add(Conv1d::new(3, 3).padding(recurve::Padding::Same)).add(lstm()));
    refused(&conv, &batch, Some(2), &["several at once"]);
    let few = Tensor::rand_uniform(&[3, 5, 2], -1.0..1.0, 2, &device).unwrap();
    refused(&plain, &Batch::new(&inputs, &[&few]), Some(2), &["`targets`", "6 timesteps"]);
    let lengths = Tensor::from_u32(&[7, 1, 2], &[3], &device).unwrap();
    refused(&plain, &batch.lengths(&lengths), Some(2), &["`lengths`", "7"]);
    let mask = Tensor::from_u32(&[1; 15], &[3, 5], &device).unwrap();
    refused(&plain, &batch.mask(&mask), Some(2), &["`mask`", "6 timesteps"]);
    refused(&plain, &Batch::new(&[], &targets), Some(2), &["`inputs`"]);
}

/// Pieces of one timestep, of the whole sequence and of more; masks, lengths and weights of samples are cut with it.
#[test]
fn pieces_are_cut_with_all_that_belongs_to_them() {
    for device in devices() {
        let layers = Sequential::new().add(Gru::new(3).return_sequences(true)).add(Dense::new(2));
        let network = layers.seed(6).build(&[None, None, Some(2)], &device).unwrap();
        let x = Tensor::rand_uniform(&[3, 5, 2], -1.0..1.0, 1, &device).unwrap();
        let y = Tensor::rand_uniform(&[3, 5, 2], -1.0..1.0, 2, &device).unwrap();
        let lengths = Tensor::from_u32(&[5, 0, 3], &[3], &device).unwrap();
        let mask = Tensor::from_u32(&[1, 0, 1, 1, 1, 0, 1, 1, 0, 1, 1, 1, 1, 0, 0], &[3, 5], &device).unwrap();
        let of_steps = Tensor::rand_uniform(&[3, 5], 0.5..1.0, 3, &device).unwrap();
        let of_rows = Tensor::rand_uniform(&[3], 0.5..1.0, 4, &device).unwrap();
        let (inputs, targets) = ([&x], [&y]);
        let plain = Batch::new(&inputs, &targets);
        for (name, batch) in [
            ("plain", plain),
            ("lengths", plain.lengths(&lengths)),
            ("mask", plain.mask(&mask)),
            ("weights", plain.sample_weights(&of_steps)),
            ("weights of rows", plain.sample_weights(&of_rows)),
        ] {
            for k in [1, 2, 5, 9] {
                let mut pieces = Training::new(&network, squares()).unwrap();
                let mut by_hand = Training::new(&network, squares()).unwrap();
                let results = pieces.step_truncated(&batch, k).unwrap();
                let mut states: Option<Vec<State>> = None;
                for (n, result) in results.iter().enumerate() {
                    let range = n * k..5.min((n + 1) * k);
                    let cut = |t: &Tensor| t.slice(1, range.clone()).unwrap();
                    let own: Vec<u32> = lengths.to_vec_u32().unwrap();
                    let inside = |l: &u32| (*l as usize).clamp(range.start, range.end) - range.start;
                    let own: Vec<u32> = own.iter().map(|l| inside(l) as u32).collect();
                    let own = Tensor::from_u32(&own, &[3], &device).unwrap();
                    let (px, py, pm, pw) = (cut(&x), cut(&y), cut(&mask), cut(&of_steps));
                    let (inputs, targets) = ([&px], [&py]);
                    let mut piece = Batch::new(&inputs, &targets);
                    piece.lengths = batch.lengths.map(|_| &own);
                    piece.mask = batch.mask.map(|_| &pm);
                    piece.sample_weights = batch.sample_weights.map(|w| if w.dims().len() == 1 { w } else { &pw });
                    piece.states = states.as_deref();
                    let want = by_hand.step(&piece).unwrap();
                    assert_eq!(result.loss.to_vec().unwrap(), want.loss.to_vec().unwrap(), "{name}, {k} on {device}");
                    states = Some(want.states);
                }
                assert_eq!(results.len(), 5usize.div_ceil(k));
                let name = pieces.names().next().unwrap().to_owned();
                let [a, b] = [&pieces, &by_hand].map(|t| t.weight(&name).unwrap().to_vec().unwrap());
                assert_eq!(a, b);
            }
        }
    }
}

/// Steps that are cut and steps of a stateful network are the same.
#[test]
fn pieces_of_a_stateful_network_go_on_where_it_stopped() {
    let device = Device::Cpu;
    let network = |stateful| {
        let layers = stateful_layers(stateful).into_iter().fold(Sequential::new(), Sequential::add);
        layers.seed(8).build(&[None, None, Some(2)], &device).unwrap()
    };
    let x = Tensor::rand_uniform(&[2, 12, 2], -1.0..1.0, 1, &device).unwrap();
    let y = Tensor::rand_uniform(&[2, 12, 2], -1.0..1.0, 2, &device).unwrap();
    let mut whole = Training::new(&network(false), squares()).unwrap();
    let want = whole.step_truncated(&Batch::new(&[&x], &[&y]), 3).unwrap();
    assert!(whole.kept_states().is_none());
    let mut halves = Training::new(&network(true), squares()).unwrap();
    let mut got = Vec::new();
    for range in [0..6, 6..12] {
        let cut = |t: &Tensor| t.slice(1, range.clone()).unwrap();
        got.extend(halves.step_truncated(&Batch::new(&[&cut(&x)], &[&cut(&y)]), 3).unwrap());
    }
    let losses = |all: &[StepResult]| all.iter().map(|r| r.loss.to_vec().unwrap()[0]).collect::<Vec<_>>();
    assert_eq!(losses(&got), losses(&want));
}

/// The gradient by the input is exactly 0 where a sequence has ended and where the mask is 0, and what stands there changes
/// no bit of any other.
#[test]
fn padded_positions_have_no_gradient() {
    type Make = fn() -> Sequential;
    let layers: [(&str, Make); 4] = [
        ("rnn", || Sequential::new().add(SimpleRnn::new(3).return_sequences(true)).add(Lstm::new(4))),
        ("both", || Sequential::new().add(Bidirectional::new(Gru::new(3).return_sequences(true))).add(Gru::new(2))),
        ("stacked", || Sequential::new().add(Lstm::new(3).num_layers(2).return_sequences(true))),
        ("backwards", || Sequential::new().add(Gru::new(3).go_backwards(true))),
    ];
    let lengths = [4u32, 1, 0, 6];
    let mut r = Random(3);
    let mask: Vec<u32> = (0..24).map(|_| u32::from(r.below(2) == 0)).collect();
    for device in devices() {
        for (name, layers) in layers {
            for by_lengths in [true, false] {
                for checkpoints in [false, true] {
                    let network = layers().add(Dense::new(2)).seed(4).build(&[None, None, Some(3)], &device).unwrap();
                    let valid = |row: usize, time: usize| match by_lengths {
                        true => time < lengths[row] as usize,
                        false => mask[row * 6 + time] != 0,
                    };
                    let run = |padding: f32| {
                        let mut values = Random(1).floats(4 * 6 * 3, 1.0);
                        for (n, v) in values.iter_mut().enumerate() {
                            if !valid(n / 18, n / 3 % 6) {
                                *v = padding;
                            }
                        }
                        let x = Tensor::from_f32(&values, &[4, 6, 3], &device).unwrap();
                        let dims: &[usize] = if name == "stacked" { &[4, 6, 2] } else { &[4, 2] };
                        let y = Tensor::rand_uniform(dims, -1.0..1.0, 2, &device).unwrap();
                        let given = [
                            Tensor::from_u32(&lengths, &[4], &device).unwrap(),
                            Tensor::from_u32(&mask, &[4, 6], &device).unwrap(),
                        ];
                        let (inputs, targets) = ([&x], [&y]);
                        let batch = Batch::new(&inputs, &targets);
                        let batch = if by_lengths { batch.lengths(&given[0]) } else { batch.mask(&given[1]) };
                        let mut training = Training::new(&network, squares().checkpoints(checkpoints)).unwrap();
                        let (_, g) = training.all_gradients(&batch).unwrap();
                        let weights: Vec<Vec<f32>> = g.weights.iter().map(|t| t.to_vec().unwrap()).collect();
                        (g.inputs[0].as_ref().unwrap().to_vec().unwrap(), weights)
                    };
                    let (dx, weights) = run(0.5);
                    let mut counts = [0, 0];
                    for (n, v) in dx.iter().enumerate() {
                        let valid = valid(n / 18, n / 3 % 6);
                        counts[usize::from(valid)] += usize::from(*v != 0.0);
                    }
                    assert_eq!(counts[0], 0, "{name} on {device}, lengths {by_lengths}, checkpoints {checkpoints}");
                    assert!(counts[1] > 15, "{name}: {counts:?}");
                    let (other, theirs) = run(-2.5e4);
                    assert_eq!((other, theirs), (dx, weights), "{name} on {device}, lengths {by_lengths}");
                }
            }
        }
        // The row of a table that stands for padding.
        let layers = Sequential::new().add(Embedding::new(5, 3).mask_zero(true)).add(Lstm::new(3));
        let network = layers.add(Dense::new(1)).build(&[None, None], &device).unwrap();
        let x = Tensor::from_u32(&[1, 3, 0, 0, 2, 0, 1, 4], &[2, 4], &device).unwrap();
        let y = Tensor::from_f32(&[0.5, -0.5], &[2, 1], &device).unwrap();
        let mut training = Training::new(&network, squares()).unwrap();
        let (_, g) = training.gradients(&Batch::new(&[&x], &[&y])).unwrap();
        let table = training.names().position(|n| n == "layers.0.weight").unwrap();
        let table = g[table].to_vec().unwrap();
        assert!(table[..3].iter().all(|v| *v == 0.0) && table[3..].iter().all(|v| *v != 0.0), "{table:?}");
        // A layer that computes the mask from the values.
        let layers = Sequential::new().add(Masking::new(9.0)).add(Gru::new(3)).add(Dense::new(1));
        let network = layers.build(&[None, None, Some(2)], &device).unwrap();
        let x = Tensor::from_f32(&[1.0, 2.0, 9.0, 9.0, -1.0, 0.5], &[1, 3, 2], &device).unwrap();
        let y = Tensor::from_f32(&[0.5], &[1, 1], &device).unwrap();
        let (_, g) = Training::new(&network, squares()).unwrap().all_gradients(&Batch::new(&[&x], &[&y])).unwrap();
        let dx = g.inputs[0].as_ref().unwrap().to_vec().unwrap();
        assert!(dx[2..4] == [0.0, 0.0] && dx[0] != 0.0 && dx[5] != 0.0, "{dx:?}");
    }
}

/// A batch of which nothing is valid has the loss 0 and gradients of 0, none of which is NaN.
#[test]
fn a_batch_without_a_valid_timestep_has_no_gradient() {
    for device in devices() {
        let layers = Sequential::new().add(Lstm::new(3).return_sequences(true)).add(Dense::new(2));
        let network = layers.build(&[None, None, Some(2)], &device).unwrap();
        let x = Tensor::rand_uniform(&[2, 4, 2], -1.0..1.0, 1, &device).unwrap();
        let y = Tensor::rand_uniform(&[2, 4, 2], -1.0..1.0, 2, &device).unwrap();
        let mask = Tensor::from_u32(&[0; 8], &[2, 4], &device).unwrap();
        for checkpoints in [false, true] {
            let mut training = Training::new(&network, squares().checkpoints(checkpoints)).unwrap();
            let (inputs, targets) = ([&x], [&y]);
            let (result, g) = training.all_gradients(&Batch::new(&inputs, &targets).mask(&mask)).unwrap();
            assert_eq!(result.loss.to_vec().unwrap(), [0.0]);
            for t in g.weights.iter().chain(g.inputs.iter().flatten()) {
                assert!(t.to_vec().unwrap().iter().all(|v| *v == 0.0), "on {device}");
            }
        }
    }
}
