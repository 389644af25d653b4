//! What goes wrong in training elsewhere: rates of dropout, batches without a valid timestep, biases, what is drawn, and
//! numbers that are not finite.

use recurve::{
    Activation, Attention, BatchNormalization, Bidirectional, Cell, Dense, Device, Dropout, Embedding, Functional,
    GlobalAveragePooling1d, Gru, LayerConfig, Lstm, Masking, MinLstm, Network, RecurrentSpec, Sequential, SimpleRnn,
    SpatialDropout1d, Tensor, Weights,
};
use recurve_tests::devices;
use recurve_train::{
    Adam, Array, Batch, Clip, Dataset, Error, Form, Loss, LossReduction, Origin, Sgd, StepOptions, Trainer, Training,
};
use std::sync::Arc;

const ANY: [Option<usize>; 3] = [None, None, Some(3)];

fn tensor(data: &[f32], dims: &[usize], device: &Device) -> Tensor {
    Tensor::from_f32(data, dims, device).unwrap()
}

fn draw(dims: &[usize], seed: u64, device: &Device) -> Tensor {
    Tensor::rand_uniform(dims, -1.0..1.0, seed, device).unwrap()
}

fn train(network: &Network, loss: Loss) -> Training {
    Training::new(network, StepOptions::new(loss, Adam::keras().learning_rate(0.05))).unwrap()
}

fn finite(training: &Training) -> bool {
    training.names().all(|n| training.weight(n).unwrap().to_vec().unwrap().iter().all(|v| v.is_finite()))
}

/// A network with other weights, by the end of their names.
fn with(network: &Network, change: impl Fn(&str, &mut [f32])) -> Network {
    let mut weights = Weights::new();
    for (name, w) in network.weights().iter() {
        let mut data = w.to_vec().unwrap();
        change(name, &mut data);
        weights.insert(name, w.shape(), data).unwrap();
    }
    Network::new(network.config(), Arc::new(weights), network.device()).unwrap()
}

/// With a rate of 1 everything is dropped: zeros, and no NaN in the loss, in gradients and in weights. (Keras's Dropout
/// does the same; its recurrent layers ignore a rate of 1.)
#[test]
fn a_rate_of_one_gives_zeros() {
    for device in devices() {
        let build = |s: Sequential| s.add(Dense::new(2)).seed(3).build(&ANY, &device).unwrap();
        let mut module = RecurrentSpec::new(Cell::LSTM, 4);
        (module.num_layers, module.dropout) = (2, 1.0);
        let mut net = Functional::new();
        let x = net.input("x", &ANY);
        let sequence = net.add(Gru::new(3).return_sequences(true), &[&x]).unwrap().remove(0);
        let attended = net.add(Attention::new().dropout(1.0), &[&sequence, &sequence]).unwrap().remove(0);
        let y = net.add(Dense::new(2), &[&attended]).unwrap().remove(0);
        let attention = net.output("y", &y).build(&device).unwrap();
        // Of the first ones nothing but the last layer's bias reaches the output.
        let cases = [
            ("Dropout", true, build(Sequential::new().add(Lstm::new(4)).add(Dropout::new(1.0)))),
            (
                "SpatialDropout1D",
                true,
                build(Sequential::new().add(Gru::new(4).return_sequences(true)).add(SpatialDropout1d::new(1.0))),
            ),
            ("Attention", true, attention),
            ("LSTM", false, build(Sequential::new().add(Lstm::new(4).dropout(1.0).recurrent_dropout(1.0)))),
            ("GRU", false, build(Sequential::new().add(Gru::new(4).dropout(1.0).recurrent_dropout(1.0)))),
            ("GRU before", false, build(Sequential::new().add(Gru::new(4).reset_after(false).recurrent_dropout(1.0)))),
            ("SimpleRNN", false, build(Sequential::new().add(SimpleRnn::new(4).dropout(1.0).recurrent_dropout(1.0)))),
            ("two layers", false, build(Sequential::new().add(LayerConfig::Recurrent(module)))),
        ];
        for (what, all, network) in cases {
            let mut training = train(&network, Loss::mean_squared_error());
            let x = draw(&[4, 5, 3], 1, &device);
            let y = if network.output_shapes()[0].len() == 3 { &[4, 5, 2][..] } else { &[4, 2] };
            let y = draw(y, 2, &device);
            let (inputs, targets) = ([&x], [&y]);
            let batch = Batch::new(&inputs, &targets);
            let (result, gradients) = training.gradients(&batch).unwrap();
            assert!(result.loss.to_vec().unwrap()[0].is_finite(), "{what}");
            let last = network.config().layers.len() - 1;
            let names: Vec<String> = training.names().map(str::to_owned).collect();
            for (name, g) in names.iter().zip(&gradients) {
                let g = g.to_vec().unwrap();
                assert!(g.iter().all(|v| v.is_finite()), "{what}: {name}: {g:?}");
                let of_inputs = name.contains("weight_ih_l0") && ["LSTM", "GRU", "SimpleRNN"].contains(&what);
                let zero = all && *name != format!("layers.{last}.bias") || of_inputs;
                assert!(!zero || g.iter().all(|v| *v == 0.0), "{what}: {name}: {g:?}");
            }
            if all {
                let outputs = result.outputs[0].to_vec().unwrap();
                let bias = training.weight(&format!("layers.{last}.bias")).unwrap().to_vec().unwrap();
                assert!(outputs.chunks(2).all(|o| o == bias), "{what}: {outputs:?}");
            }
            for _ in 0..3 {
                training.step(&batch).unwrap();
            }
            assert!(finite(&training), "{what}");
        }
    }
    for bad in [-0.1, 1.5, f32::NAN] {
        let layers: [LayerConfig; 3] =
            [Dropout::new(bad).into(), SpatialDropout1d::new(bad).into(), Lstm::new(2).dropout(bad).into()];
        for layer in layers {
            let e = Sequential::new().add(layer).build(&ANY, &Device::Cpu).unwrap_err().to_string();
            assert!(e.contains("rate") || e.contains("dropout"), "{e}");
        }
    }
}

/// Networks of sequences that compute a mask, or get one.
fn masked(device: &Device) -> Vec<(&'static str, Network, Tensor)> {
    let zeros = tensor(&[0.0; 60], &[4, 5, 3], device);
    let head = |s: Sequential, shape: &[Option<usize>]| s.add(Dense::new(2)).seed(5).build(shape, device).unwrap();
    let ids = Tensor::from_u32(&[0; 20], &[4, 5], device).unwrap();
    let lstm = || Lstm::new(4).return_sequences(true);
    let norm = || BatchNormalization::new();
    let stack = Sequential::new().add(Masking::new(0.0)).add(norm()).add(Bidirectional::new(lstm())).add(norm());
    vec![
        ("masking", head(Sequential::new().add(Masking::new(0.0)).add(lstm()), &ANY), zeros.clone()),
        ("stack", head(stack.add(Gru::new(3).return_sequences(true)), &ANY), zeros.clone()),
        (
            "embedding",
            head(Sequential::new().add(Embedding::new(5, 3).mask_zero(true)).add(lstm()), &[None, None]),
            ids,
        ),
        ("of the caller", head(Sequential::new().add(lstm()), &ANY), zeros.clone()),
        ("lengths of the caller", head(Sequential::new().add(lstm()), &ANY), zeros),
    ]
}

/// Where nothing is valid nothing is learned: a loss of 0, gradients of exactly 0, and no NaN.
#[test]
fn a_batch_without_a_valid_timestep_teaches_nothing() {
    for device in devices() {
        for reduction in [LossReduction::Mean, LossReduction::WeightedMean, LossReduction::Sum] {
            for (what, network, x) in masked(&device) {
                let mut training = train(&network, Loss::mean_squared_error().reduction(reduction));
                let y = draw(&[4, 5, 2], 2, &device);
                let (inputs, targets) = ([&x], [&y]);
                let none = Tensor::from_u32(&[0; 20], &[4, 5], &device).unwrap();
                let lengths = Tensor::from_u32(&[0; 4], &[4], &device).unwrap();
                let weights = tensor(&[1.0, 2.0, 3.0, 4.0], &[4], &device);
                let mut batch = Batch::new(&inputs, &targets);
                match what {
                    "of the caller" => batch = batch.mask(&none),
                    "lengths of the caller" => batch = batch.lengths(&lengths),
                    _ => batch = batch.sample_weights(&weights),
                }
                let (result, gradients) = training.gradients(&batch).unwrap();
                assert_eq!(result.loss.to_vec().unwrap(), [0.0], "{what}");
                for (name, g) in training.names().zip(&gradients) {
                    assert!(g.to_vec().unwrap().iter().all(|v| *v == 0.0), "{what} on {device}: {name}");
                }
                training.step(&batch).unwrap();
                assert!(finite(&training), "{what}");
                for (name, w) in training.weights().unwrap().iter().filter(|(n, _)| n.contains("running_")) {
                    assert!(w.to_vec().unwrap().iter().all(|v| v.is_finite()), "{what}: {name}");
                }
            }
        }
        // A mean over no timestep.
        let pooled = Sequential::new()
            .add(Masking::new(0.0))
            .add(Lstm::new(3).return_sequences(true))
            .add(GlobalAveragePooling1d::new())
            .add(Dense::new(1))
            .build(&ANY, &device)
            .unwrap();
        let mut x = draw(&[2, 4, 3], 1, &device).to_vec().unwrap();
        x[..12].fill(0.0);
        let (x, y) = (tensor(&x, &[2, 4, 3], &device), draw(&[2, 1], 2, &device));
        let mut training = train(&pooled, Loss::mean_squared_error());
        training.step(&Batch::new(&[&x], &[&y])).unwrap();
        assert!(finite(&training));
    }
}

/// A padded position has no gradient: what stands there, NaN too, changes no bit of the gradients.
#[test]
fn padding_changes_nothing() {
    for device in devices() {
        let network = Sequential::new()
            .add(Bidirectional::new(Lstm::new(4).return_sequences(true)))
            .add(Gru::new(3).return_sequences(true))
            .add(Dense::new(2))
            .seed(8)
            .build(&ANY, &device)
            .unwrap();
        let lengths = [5, 2, 3, 0u32];
        let valid: Vec<u32> = lengths.iter().flat_map(|l| (0..5).map(move |t| u32::from(t < *l))).collect();
        let [x, y] = [3, 2].map(|f| draw(&[4, 5, f], 4, &Device::Cpu).to_vec().unwrap());
        let gradients = |fill: f32, by_mask: bool| {
            let filled = |data: &[f32], f: usize| {
                let value = |(n, v): (usize, &f32)| if valid[n / f] == 1 { *v } else { fill };
                tensor(&data.iter().enumerate().map(value).collect::<Vec<_>>(), &[4, 5, f], &device)
            };
            let x = filled(&x, 3);
            let y = tensor(&y, &[4, 5, 2], &device);
            let mut training = train(&network, Loss::mean_squared_error());
            let mask = Tensor::from_u32(&valid, &[4, 5], &device).unwrap();
            let lengths = Tensor::from_u32(&lengths, &[4], &device).unwrap();
            let (inputs, targets) = ([&x], [&y]);
            let batch = Batch::new(&inputs, &targets);
            let batch = if by_mask { batch.mask(&mask) } else { batch.lengths(&lengths) };
            let (result, gradients) = training.gradients(&batch).unwrap();
            let all = gradients.iter().flat_map(|g| g.to_vec().unwrap()).chain(result.loss.to_vec().unwrap());
            all.collect::<Vec<f32>>()
        };
        let plain = gradients(0.0, true);
        assert!(plain.iter().any(|v| *v != 0.0));
        for fill in [0.0, 7.0, f32::NAN] {
            assert_eq!(gradients(fill, true), plain, "a mask on {device}");
            assert_eq!(gradients(fill, false), plain, "lengths on {device}");
        }
    }
}

/// A network whose sequences come with time first has the loss of the same network with the batch first, also where both
/// axes have the same size.
#[test]
fn masks_fit_networks_with_time_first() {
    let device = Device::Cpu;
    let build = |time_major: bool| {
        let mut spec = RecurrentSpec::from(Lstm::new(4).return_sequences(true));
        spec.time_major = time_major;
        let layers = Sequential::new().add(LayerConfig::Recurrent(spec)).add(Dense::new(2)).seed(4);
        layers.build(&ANY, &device).unwrap()
    };
    let [x, y] = [3, 2].map(|f| draw(&[5, 5, f], 4, &device));
    let turned = |t: &Tensor| t.transpose(&[1, 0, 2]).unwrap();
    let (x_time, y_time) = (turned(&x), turned(&y));
    let mask: Vec<u32> = (0..25).map(|n| u32::from(n % 5 < 1 + n / 5)).collect();
    let mask = Tensor::from_u32(&mask, &[5, 5], &device).unwrap();
    let lengths = Tensor::from_u32(&[1, 2, 3, 4, 5], &[5], &device).unwrap();
    let run = |time_major: bool, by_mask: bool| {
        let mut training = train(&build(time_major), Loss::mean_squared_error());
        let (inputs, targets) = if time_major { ([&x_time], [&y_time]) } else { ([&x], [&y]) };
        let batch = Batch::new(&inputs, &targets);
        let batch = if by_mask { batch.mask(&mask) } else { batch.lengths(&lengths) };
        let (result, gradients) = training.gradients(&batch).unwrap();
        let all = gradients.iter().flat_map(|g| g.to_vec().unwrap());
        result.loss.to_vec().unwrap().into_iter().chain(all).collect::<Vec<_>>()
    };
    let want = run(false, true);
    for (time_major, by_mask) in [(false, false), (true, true), (true, false)] {
        let got = run(time_major, by_mask);
        // Sums in another order.
        let close = got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(close, "{time_major} {by_mask}: {got:?} {want:?}");
    }
}

/// A mask or lengths that no layer can use are refused.
#[test]
fn masks_that_reach_nothing_are_refused() {
    let device = Device::Cpu;
    let [x, y] = [draw(&[4, 5, 3], 1, &device), draw(&[4, 1], 2, &device)];
    let lengths = Tensor::from_u32(&[5, 4, 3, 2], &[4], &device).unwrap();
    let pooled = Sequential::new()
        .add(Lstm::new(3).return_sequences(true))
        .add(GlobalAveragePooling1d::new())
        .add(Dense::new(1))
        .build(&ANY, &device)
        .unwrap();
    let mut training = train(&pooled, Loss::mean_squared_error());
    let e = training.step(&Batch::new(&[&x], &[&y]).lengths(&lengths)).unwrap_err().to_string();
    assert!(e.contains("lengths"), "{e}");
    let plain = Sequential::new().add(Lstm::new(3)).add(Dense::new(1)).build(&ANY, &device).unwrap();
    let mut training = train(&plain, Loss::mean_squared_error());
    for dims in [vec![4, 1], vec![4, 6], vec![20]] {
        let mask = Tensor::from_u32(&vec![1; dims.iter().product()], &dims, &device).unwrap();
        let e = training.step(&Batch::new(&[&x], &[&y]).mask(&mask)).unwrap_err().to_string();
        assert!(e.contains("mask") && e.contains("[4, 5]"), "{e}");
    }
    let few = Tensor::from_u32(&[5, 4, 3], &[3], &device).unwrap();
    assert!(training.step(&Batch::new(&[&x], &[&y]).lengths(&few)).is_err());
    assert_eq!(training.steps(), 0);
}

/// A task that biases alone solve: the input is zero, and the target is a constant.
#[test]
fn biases_learn() {
    let device = Device::Cpu;
    let x = tensor(&[0.0; 24], &[2, 4, 3], &device);
    let y = tensor(&[0.7, -0.4, 0.7, -0.4], &[2, 2], &device);
    let layers: [(&str, LayerConfig); 5] = [
        ("SimpleRNN", SimpleRnn::new(4).into()),
        ("LSTM", Lstm::new(4).into()),
        ("GRU", Gru::new(4).into()),
        ("GRU before", Gru::new(4).reset_after(false).into()),
        ("Dense", GlobalAveragePooling1d::new().into()),
    ];
    for (what, layer) in layers {
        // The last layer has no bias, so that those of the recurrent layer must do it.
        let own = what == "Dense";
        let network = Sequential::new().add(layer).add(Dense::new(2).use_bias(own)).seed(2);
        let mut training = train(&network.build(&ANY, &device).unwrap(), Loss::mean_squared_error());
        let loss =
            |training: &mut Training| training.step(&Batch::new(&[&x], &[&y])).unwrap().loss.to_vec().unwrap()[0];
        let first = loss(&mut training);
        let last = (0..300).map(|_| loss(&mut training)).last().unwrap();
        assert!(first > 0.1 && last < 1e-4, "{what}: {first} to {last}");
    }
}

/// Mean, variance, and that only 0 and `1 / (1 - rate)` occur. The standard error of a mean of n factors is
/// `√(rate / (1 - rate) / n)`; the bounds are five of it.
fn check_factors(what: &str, factors: &[f32], rate: f32) {
    let n = factors.len() as f32;
    let kept = 1.0 / (1.0 - rate);
    assert!(factors.iter().all(|f| f.abs() < 1e-5 || (f - kept).abs() < 1e-4), "{what}: {factors:?}");
    let mean = factors.iter().sum::<f32>() / n;
    let variance = factors.iter().map(|f| (f - mean).powi(2)).sum::<f32>() / n;
    let expected = rate / (1.0 - rate);
    assert!((mean - 1.0).abs() < 5.0 * (expected / n).sqrt(), "{what}: mean {mean}");
    assert!((variance - expected).abs() < 0.1, "{what}: variance {variance}, expected {expected}");
}

/// The share of places where two arrays of factors are the same.
fn alike(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).filter(|(a, b)| (**a - **b).abs() < 1e-3).count() as f32 / a.len() as f32
}

const UNITS: usize = 32;
const ROWS: usize = 64;

/// What a network with `set` weights computes in training, `[B, T, H]`.
fn outputs(spec: RecurrentSpec, set: impl Fn(&str, &mut [f32]), x: &Tensor, seed: u64) -> Vec<f32> {
    let network = Sequential::new().add(LayerConfig::Recurrent(spec));
    let network = network.build(&[None, None, x.dims().last().copied()], &x.device()).unwrap();
    let network = with(&network, |name, data| {
        data.fill(0.0);
        set(name, data);
    });
    let options = StepOptions::new(Loss::mean_squared_error(), Sgd::keras()).seed(seed);
    let width = network.output_shapes()[0][2].unwrap();
    let y = tensor(&vec![0.0; ROWS * x.dims()[1] * width], &[ROWS, x.dims()[1], width], &x.device());
    let (result, _) = Training::new(&network, options).unwrap().gradients(&Batch::new(&[x], &[&y])).unwrap();
    result.outputs[0].to_vec().unwrap()
}

/// The elements of one timestep of `[B, T, H]`.
fn at(y: &[f32], steps: usize, t: usize) -> Vec<f32> {
    let rows = y.chunks_exact(steps * UNITS);
    rows.flat_map(|row| row[t * UNITS..(t + 1) * UNITS].to_vec()).collect()
}

/// The dropout of a recurrent layer's input drops the same features at all timesteps of a sequence (Gal and Ghahramani
/// 2016), others in each sequence, and others in the next step.
#[test]
fn dropout_of_inputs_is_one_mask_a_sequence() {
    let rate = 0.25;
    for device in devices() {
        let x = tensor(&vec![1.0; ROWS * 3 * UNITS], &[ROWS, 3, UNITS], &device);
        let cell = Cell { candidate: Activation::Linear, ..Cell::RNN };
        let mut spec = RecurrentSpec::new(cell, UNITS);
        (spec.return_sequences, spec.dropout) = (true, rate);
        let identity = |name: &str, data: &mut [f32]| {
            if name.ends_with("weight_ih_l0") {
                (0..UNITS).for_each(|n| data[n * UNITS + n] = 1.0);
            }
        };
        let y = outputs(spec.clone(), identity, &x, 1);
        let first = at(&y, 3, 0);
        check_factors("input", &first, rate);
        assert_eq!(at(&y, 3, 1), first);
        assert_eq!(at(&y, 3, 2), first);
        let by_chance = rate * rate + (1.0 - rate) * (1.0 - rate);
        let (a, b) = first.split_at(first.len() / 2);
        assert!((alike(a, b) - by_chance).abs() < 0.1, "sequences are alike: {}", alike(a, b));
        let other = at(&outputs(spec, identity, &x, 2), 3, 0);
        assert!((alike(&first, &other) - by_chance).abs() < 0.1, "steps are alike: {}", alike(&first, &other));
    }
}

/// Recurrent dropout of an LSTM has a mask of its own for each gate, which is the same at all timesteps.
///
/// All functions are the identity. At the first timestep every unit becomes 1. At the second the recurrent product of
/// one gate adds the dropped h, which shows in h what that gate's mask is.
#[test]
fn recurrent_dropout_is_one_mask_a_sequence_and_gate() {
    let rate = 0.25;
    for device in devices() {
        let linear = Activation::Linear;
        let cell = Cell { gates: [linear; 3], candidate: linear, output: linear, ..Cell::LSTM };
        let mut spec = RecurrentSpec::new(cell, UNITS);
        (spec.return_sequences, spec.recurrent_dropout) = (true, rate);
        // Gates i f g o.
        let masks: Vec<Vec<f32>> = (0..4)
            .map(|gate| {
                // The candidate is x: 1 at first, then 1 for the gates that multiply it, else 0.
                let later = if gate == 0 || gate == 3 { 1.0 } else { 0.0 };
                let row = [1.0, later, 0.0, 0.0];
                let x = tensor(&row.repeat(ROWS), &[ROWS, 4, 1], &device);
                let set = |name: &str, data: &mut [f32]| {
                    if name.ends_with("weight_ih_l0") {
                        data[2 * UNITS..3 * UNITS].fill(1.0);
                    }
                    if name.ends_with("bias_ih_l0") {
                        data[..UNITS].fill(1.0);
                        data[3 * UNITS..].fill(1.0);
                    }
                    if name.ends_with("weight_hh_l0") {
                        (0..UNITS).for_each(|n| data[(gate * UNITS + n) * UNITS + n] = 1.0);
                    }
                };
                let y = outputs(spec.clone(), set, &x, 7);
                assert!(at(&y, 4, 0).iter().all(|v| *v == 1.0));
                // c = i · g + f · c and h = o · c, where i and o are 1 plus what their product adds.
                let less = if gate == 0 || gate == 3 { 1.0 } else { 0.0 };
                let mask: Vec<f32> = at(&y, 4, 1).iter().map(|v| v - less).collect();
                if gate == 2 {
                    // h = g = m · h before: powers of one factor.
                    let next = at(&y, 4, 2);
                    assert!(mask.iter().zip(&next).all(|(m, n)| (m * m - n).abs() < 1e-4), "the mask has changed");
                }
                mask
            })
            .collect();
        let by_chance = rate * rate + (1.0 - rate) * (1.0 - rate);
        for (n, mask) in masks.iter().enumerate() {
            check_factors(&format!("gate {n} on {device}"), mask, rate);
            for other in &masks[..n] {
                assert!((alike(mask, other) - by_chance).abs() < 0.1, "gates are alike: {}", alike(mask, other));
            }
        }
    }
}

/// What is drawn is the same along the axes of which Keras's `noise_shape` says so.
#[test]
fn noise_shape_is_honoured() {
    for device in devices() {
        let run = |layer: Dropout| {
            let network = Sequential::new().add(layer).add(Dense::new(UNITS).use_bias(false));
            let network = network.build(&[None, None, Some(UNITS)], &device).unwrap();
            let network = with(&network, |_, data| {
                data.fill(0.0);
                (0..UNITS).for_each(|n| data[n * UNITS + n] = 1.0);
            });
            let x = tensor(&vec![1.0; ROWS * 3 * UNITS], &[ROWS, 3, UNITS], &device);
            let mut training = train(&network, Loss::mean_squared_error());
            training.gradients(&Batch::new(&[&x], &[&x])).unwrap().0.outputs[0].to_vec().unwrap()
        };
        let plain = run(Dropout::new(0.5));
        check_factors("all", &plain, 0.5);
        assert!(alike(&at(&plain, 3, 0), &at(&plain, 3, 1)) < 0.6);
        let y = run(Dropout::new(0.5).noise_shape(&[None, Some(1), None]));
        check_factors("channels", &at(&y, 3, 0), 0.5);
        assert_eq!(at(&y, 3, 0), at(&y, 3, 1));
        assert_eq!(at(&y, 3, 0), at(&y, 3, 2));
        let y = run(Dropout::new(0.5).noise_shape(&[Some(1), None, Some(UNITS)]));
        assert!(y.chunks(3 * UNITS).all(|row| row == &y[..3 * UNITS]), "sequences differ");
        assert!(alike(&at(&y, 3, 0)[..UNITS], &at(&y, 3, 1)[..UNITS]) < 1.0);
    }
    // A fixed number of sequences, another size, or too few axes.
    for (shape, words) in [
        (vec![Some(8), None, None], "differs from batch to batch"),
        (vec![None, None, Some(5)], "which has 3 elements"),
        (vec![None, None], "one for each axis"),
    ] {
        let network = Sequential::new().add(Dropout::new(0.5).noise_shape(&shape)).add(Dense::new(1));
        let network = network.build(&ANY, &Device::Cpu).unwrap();
        let e = Training::new(&network, StepOptions::new(Loss::mean_squared_error(), Sgd::keras())).unwrap_err();
        assert!(e.to_string().contains("noise_shape") && e.to_string().contains(words), "{e}");
    }
}

/// Where a loss that is not finite comes from is found and named.
#[test]
fn the_first_number_that_is_not_finite_is_found() {
    for device in devices() {
        let network = Sequential::new()
            .add(Masking::new(9.0))
            .add(Lstm::new(4).return_sequences(true))
            .add(Dense::new(4).activation(Activation::Relu))
            .add(Lstm::new(3))
            .add(Dense::new(2))
            .seed(6)
            .build(&ANY, &device)
            .unwrap();
        let layer = |n: usize| network.config().layers[n].name.clone();
        let [x, y] = [draw(&[4, 5, 3], 1, &device), draw(&[4, 2], 2, &device)];
        let spoiled = |t: &Tensor| {
            let mut data = t.to_vec().unwrap();
            data[4] = f32::NAN;
            tensor(&data, t.dims(), &device)
        };
        let find = |network: &Network, x: &Tensor, y: &Tensor, loss: Loss| {
            let mut training = train(network, loss);
            training.diagnose(&Batch::new(&[x], &[y]))
        };
        let mse = Loss::mean_squared_error;
        find(&network, &x, &y, mse()).unwrap();
        let origin = |found: Result<(), Error>| match found {
            Err(Error::NotFinite { step: 1, origin }) => origin,
            other => panic!("{other:?}"),
        };
        assert_eq!(origin(find(&network, &spoiled(&x), &y, mse())), Origin::Input(0));
        assert_eq!(origin(find(&network, &x, &spoiled(&y), mse())), Origin::Target(0));
        let weights = spoiled(&draw(&[5], 1, &device));
        let mut training = train(&network, mse());
        let (inputs, targets) = ([&x], [&y]);
        let few = tensor(&weights.to_vec().unwrap()[1..], &[4], &device);
        let found = training.diagnose(&Batch::new(&inputs, &targets).sample_weights(&few));
        assert_eq!(origin(found), Origin::SampleWeights);

        let bad = with(&network, |name, data| {
            if name == "layers.3.weight_hh_l0" {
                data[1] = f32::INFINITY;
            }
        });
        assert_eq!(origin(find(&bad, &x, &y, mse())), Origin::Weight("layers.3.weight_hh_l0".into()));
        // Finite numbers whose products are too large.
        let large = with(&network, |name, data| {
            if name.starts_with("layers.1.bias") {
                data.fill(3.0);
            }
            if name.starts_with("layers.2.") {
                data.fill(3e38);
            }
        });
        let found = find(&large, &x, &y, mse());
        let Origin::Layer { layer: found, .. } = origin(found.clone()) else { panic!("{found:?}") };
        assert_eq!(found, layer(2));
        let far = tensor(&[1e30; 8], &[4, 2], &device);
        let found = find(&network, &x, &far, mse());
        assert!(matches!(origin(found.clone()), Origin::Loss { .. }), "{found:?}");
        let message = find(&network, &spoiled(&x), &y, mse()).unwrap_err().to_string();
        assert_eq!(message, "step 1: input 0 of the batch is not finite");

        // What a mask leaves out may be NaN.
        let plain = Sequential::new().add(Lstm::new(3)).add(Dense::new(2)).build(&ANY, &device).unwrap();
        let mut training = train(&plain, mse());
        let mask: Vec<u32> = (0..20).map(|n| u32::from(n != 1)).collect();
        let mask = Tensor::from_u32(&mask, &[4, 5], &device).unwrap();
        let bad = spoiled(&x);
        training.diagnose(&Batch::new(&[&bad], &[&y]).mask(&mask)).unwrap();

        // The step that went wrong is looked at from before it.
        let mut training = train(&plain, mse());
        training.step(&Batch::new(&[&x], &[&y])).unwrap();
        let before = training.snapshot();
        let loss = training.step(&Batch::new(&[&bad], &[&y])).unwrap().loss.to_vec().unwrap()[0];
        assert!(loss.is_nan() && !finite(&training));
        let found = training.diagnose(&Batch::new(&[&x], &[&y]));
        let Err(Error::NotFinite { step: 3, origin: Origin::Weight(_) }) = found else { panic!("{found:?}") };
        training.restore(&before).unwrap();
        let found = training.diagnose(&Batch::new(&[&bad], &[&y]));
        let wanted = Error::NotFinite { step: 2, origin: Origin::Input(0) };
        assert_eq!(found.unwrap_err().to_string(), wanted.to_string());
    }
}

/// A minimal LSTM divides by the sum of two gates. Where both round to 0 its h is 0, and so are its gradients, at
/// inference and in training.
#[test]
fn gates_that_are_both_zero_give_no_nan() {
    for device in devices() {
        let network = Sequential::new().add(MinLstm::new(3).return_sequences(true)).add(Dense::new(2)).seed(1);
        let network = with(&network.build(&ANY, &device).unwrap(), |name, data| {
            if name.ends_with("bias_ih_l0") {
                data[..6].fill(-200.0);
            }
        });
        let [x, y] = [draw(&[4, 5, 3], 1, &device), tensor(&[1e4; 40], &[4, 5, 2], &device)];
        let inference = network.forward(&x).unwrap().to_vec().unwrap();
        let mut training = train(&network, Loss::mean_squared_error());
        let (inputs, targets) = ([&x], [&y]);
        let batch = Batch::new(&inputs, &targets);
        let (result, gradients) = training.gradients(&batch).unwrap();
        assert_eq!(result.outputs[0].to_vec().unwrap(), inference, "on {device}");
        for (name, g) in training.names().zip(&gradients) {
            let g = g.to_vec().unwrap();
            assert!(g.iter().all(|v| v.is_finite()), "{name} on {device}: {g:?}");
            assert!(!name.starts_with("layers.0") || g.iter().all(|v| *v == 0.0), "{name} on {device}: {g:?}");
        }
        training.diagnose(&batch).unwrap();
    }
}

/// Gradients that are too large in the backward pass alone are found there.
#[test]
fn gradients_that_overflow_are_found() {
    let device = Device::Cpu;
    let network =
        Sequential::new().add(Lstm::new(3)).add(Dense::new(2)).add(Dense::new(1)).build(&ANY, &device).unwrap();
    // The two layers cancel each other: 1e-30 forwards, and 1e38 backwards.
    let network = with(&network, |name, data| match name {
        "layers.1.weight" => data.fill(1e-30),
        "layers.2.weight" => data.fill(3e38),
        _ => {}
    });
    let x = draw(&[4, 5, 3], 1, &device);
    let y = tensor(&[3e9, 3e9, 3e9, 3e9], &[4, 1], &device);
    let options = StepOptions::new(Loss::mean_squared_error(), Sgd::keras());
    let options = options.clip(Clip::GlobalNorm { norm: 1.0, form: Form::Keras });
    let found = Training::new(&network, options).unwrap().diagnose(&Batch::new(&[&x], &[&y]));
    let Err(Error::NotFinite { step: 1, origin: Origin::Gradient { layer, .. } }) = found else { panic!("{found:?}") };
    assert_eq!(layer, network.config().layers[2].name);
}

/// A target that is wider than a prediction of one number is refused, and is not compared with that number again and
/// again; the first step decides nothing about the next.
#[test]
fn targets_are_not_broadcast() {
    for device in devices() {
        let network = Sequential::new().add(Gru::new(2)).add(Dense::new(1)).build(&ANY, &device).unwrap();
        let x = draw(&[2, 4, 3], 1, &device);
        let (fits, wide, long) = (draw(&[2, 1], 2, &device), draw(&[2, 2], 3, &device), draw(&[4, 1], 4, &device));
        for loss in [Loss::mean_squared_error(), Loss::mean_absolute_error(), Loss::huber(1.0)] {
            let mut training = train(&network, loss.clone());
            for good_first in [false, true] {
                if good_first {
                    training.step(&Batch::new(&[&x], &[&fits])).unwrap();
                }
                let before = training.flat_weights().unwrap();
                for bad in [&wide, &long] {
                    assert!(training.step(&Batch::new(&[&x], &[bad])).is_err(), "{device}");
                }
                let e = training.step(&Batch::new(&[&x], &[&wide])).unwrap_err();
                assert!(matches!(&e, Error::Operand { argument: "target", .. }), "{e}");
                assert_eq!(training.flat_weights().unwrap(), before);
            }
            let mut trainer = Trainer::compile(&network, StepOptions::new(loss, Adam::keras())).unwrap();
            let array = |t: &Tensor| Array::f32(t.to_vec().unwrap(), t.dims()).unwrap();
            let data = |y: &Tensor| Dataset::new(array(&x), array(y)).unwrap();
            trainer.evaluate(&data(&fits), 2).unwrap();
            let e = trainer.evaluate(&data(&wide), 2).unwrap_err();
            assert!(matches!(&e, Error::Operand { argument: "target", .. }), "{e}");
        }
    }
}
