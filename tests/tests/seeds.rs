//! The examples and numbers of Keras's and PyTorch's chapters on recurrent networks, one test per row of a list.

use recurve::testing::{Tolerance, compare};
use recurve::{
    Activation, Bidirectional, CallArgs, Cell, Dense, Device, Embedding, Gru, HostArray, HostData, LayerConfig, Lstm,
    Merge, Model, Network, RecurrentLayer, RecurrentSpec, Sequential, SimpleRnn, State, Tensor, TensorError, Weights,
    testing,
};
use recurve_tests::{Random, compare_f32, devices, wide};

const CLOSE: Tolerance = Tolerance::new(3e-6);

fn build(layer: impl Into<LayerConfig>, input: &[Option<usize>], device: &Device) -> Network {
    Sequential::new().add(layer).seed(1).build(input, device).unwrap()
}

fn random(dims: &[usize], seed: u64, device: &Device) -> Tensor {
    Tensor::from_f32(&Random(seed).floats(dims.iter().product(), 1.0), dims, device).unwrap()
}

/// Compares a network's output with the f64 reference on every device.
fn checked(network: Network, x: &[f32], shape: &[usize]) {
    let model = Model::new("row", network);
    let x = HostArray { shape: shape.to_vec(), data: HostData::Float(x.to_vec()) };
    testing::cross_check(&model, &[("input", x)], &devices(), Tolerance::F32).unwrap();
}

/// A PyTorch-style module with initial weights.
fn torch(spec: impl Into<RecurrentSpec>, input: usize, device: &Device) -> RecurrentLayer {
    let mut spec = spec.into();
    spec.return_sequences = true;
    let network = Sequential::new()
        .add(LayerConfig::Recurrent(spec.clone()))
        .seed(3)
        .build(&[None, None, Some(input)], &Device::Cpu)
        .unwrap();
    RecurrentLayer::new("module", &spec, input, network.weights(), "layers.0", device).unwrap()
}

#[test]
fn seed_row_1_plain_recurrence_as_a_loop() {
    let (t, i, h) = (100, 32, 64);
    let x = Random(1).floats(t * i, 1.0);
    for device in devices() {
        let network = build(SimpleRnn::new(h).return_sequences(true), &[None, None, Some(i)], &device);
        let w = network.weights();
        let (wx, wh, b) = (
            w.expect("layers.0.weight_ih_l0", &[h, i]).unwrap().values().unwrap(),
            w.expect("layers.0.weight_hh_l0", &[h, h]).unwrap().values().unwrap(),
            w.expect("layers.0.bias_ih_l0", &[h]).unwrap().values().unwrap(),
        );
        let mut state = vec![0f64; h];
        let mut all = Vec::new();
        for x in x.chunks(i) {
            state = (0..h)
                .map(|j| {
                    let from_x: f64 = (0..i).map(|k| f64::from(wx[j * i + k]) * f64::from(x[k])).sum();
                    let from_h: f64 = (0..h).map(|k| f64::from(wh[j * h + k]) * state[k]).sum();
                    (from_x + from_h + f64::from(b[j])).tanh()
                })
                .collect();
            all.extend_from_slice(&state);
        }
        let y = network.forward(&Tensor::from_f32(&x, &[1, t, i], &device).unwrap()).unwrap();
        let y = y.reshape(&[t, h]).unwrap();
        assert_eq!(*y.shape(), [100, 64]);
        compare(&y.to_vec().unwrap(), &all, Tolerance::new(1e-4)).unwrap();
    }
}

#[test]
fn seed_row_2_last_output_or_every_output() {
    for device in devices() {
        let x = random(&[3, 6, 4], 2, &device);
        let last = build(SimpleRnn::new(5), &[None, None, Some(4)], &device).forward(&x).unwrap();
        let all = build(SimpleRnn::new(5).return_sequences(true), &[None, None, Some(4)], &device).forward(&x).unwrap();
        assert_eq!(*last.shape(), [3, 5]);
        assert_eq!(*all.shape(), [3, 6, 5]);
        let end = all.slice(1, 5..6).unwrap().reshape(&[3, 5]).unwrap();
        assert_eq!(end.to_vec().unwrap(), last.to_vec().unwrap());
    }
}

fn one_hot(words: &[&str]) -> Vec<f32> {
    words
        .iter()
        .flat_map(|w| w.chars())
        .flat_map(|c| ['h', 'e', 'l', 'o'].map(|v| f32::from(u8::from(v == c))))
        .collect()
}

#[test]
fn seed_row_3_hello_one_hot() {
    for device in devices() {
        for (words, b) in [(&["hello"][..], 1), (&["hello", "eolll", "lleel"][..], 3)] {
            let x = one_hot(words);
            for layer in [
                LayerConfig::from(SimpleRnn::new(2).return_sequences(true)),
                Lstm::new(2).return_sequences(true).into(),
            ] {
                let network = build(layer, &[None, None, Some(4)], &device);
                let y = network.forward(&Tensor::from_f32(&x, &[b, 5, 4], &device).unwrap()).unwrap();
                assert_eq!(*y.shape(), [b, 5, 2]);
                checked(network, &x, &[b, 5, 4]);
            }
        }
    }
}

#[test]
fn seed_row_4_one_node() {
    let x = one_hot(&["h"]);
    for device in devices() {
        let network = build(Lstm::new(2).return_sequences(true), &[None, None, Some(4)], &device);
        let y = network.forward(&Tensor::from_f32(&x, &[1, 1, 4], &device).unwrap()).unwrap();
        assert_eq!(*y.shape(), [1, 1, 2]);
        checked(network, &x, &[1, 1, 4]);
    }
}

#[test]
fn seed_row_5_simple_rnn_3_on_2_timesteps_of_10() {
    for device in devices() {
        let x = random(&[8, 2, 10], 5, &device);
        for (sequences, shape) in [(false, &[8, 3][..]), (true, &[8, 2, 3])] {
            let network = build(SimpleRnn::new(3).return_sequences(sequences), &[Some(8), Some(2), Some(10)], &device);
            assert_eq!(network.summary().total_params, 42);
            assert_eq!(network.forward(&x).unwrap().dims(), shape);
        }
    }
}

#[test]
fn seed_row_6_embedding_and_simple_rnn() {
    for device in devices() {
        for (sequences, shape) in [(false, "(None, 32)"), (true, "(None, None, 32)")] {
            let network = Sequential::new()
                .add(Embedding::new(10_000, 32))
                .add(SimpleRnn::new(32).return_sequences(sequences))
                .build(&[None, None], &device)
                .unwrap();
            let text = network.summary().to_string();
            for part in [
                "embedding (Embedding)",
                "320,000",
                "simple_rnn (SimpleRNN)",
                "2,080",
                shape,
                "Total params: 322,080",
                "Trainable params: 322,080",
                "Non-trainable params: 0",
            ] {
                assert!(text.contains(part), "{part} in\n{text}");
            }
            let ids = Tensor::from_u32(&[1, 5, 9_999, 0], &[2, 2], &device).unwrap();
            let y = network.forward(&ids).unwrap();
            assert_eq!(y.dims(), if sequences { &[2, 2, 32][..] } else { &[2, 32] });
        }
    }
}

#[test]
fn seed_row_7_four_stacked() {
    for device in devices() {
        let network = Sequential::new()
            .add(Embedding::new(10_000, 32))
            .add(SimpleRnn::new(32).return_sequences(true))
            .add(SimpleRnn::new(32).return_sequences(true))
            .add(SimpleRnn::new(32).return_sequences(true))
            .add(SimpleRnn::new(32))
            .build(&[None, None], &device)
            .unwrap();
        let summary = network.summary();
        assert_eq!(summary.total_params, 328_320);
        assert_eq!(summary.layers[4].name, "simple_rnn_3");
        let ids = Tensor::from_u32(&[7; 12], &[3, 4], &device).unwrap();
        assert_eq!(*network.forward(&ids).unwrap().shape(), [3, 32]);
    }
}

// Row 8, the picture of a model, is tested with the command that draws it (`crates/cli/tests/cli.rs`).

const BOOK: [f32; 20] =
    [0.1, 4.2, 1.5, 1.1, 2.8, 1.0, 3.1, 2.5, 0.7, 1.1, 0.3, 2.1, 1.5, 2.1, 0.1, 2.2, 1.4, 0.5, 0.9, 1.1];

#[test]
fn seed_row_9_return_sequences_and_return_state() {
    for device in devices() {
        let x = Tensor::from_f32(&BOOK, &[1, 4, 5], &device).unwrap();
        let run = |sequences: bool, state: bool| {
            let layer = SimpleRnn::new(3).return_sequences(sequences).return_state(state);
            let network = build(layer, &[None, None, Some(5)], &device);
            let out = network.forward_all(&x, &CallArgs::default()).unwrap();
            out.iter().map(|t| (t.dims().to_vec(), t.to_vec().unwrap())).collect::<Vec<_>>()
        };
        let [last] = &run(false, false)[..] else { panic!("one output") };
        let [all] = &run(true, false)[..] else { panic!("one output") };
        let [all_again, state] = &run(true, true)[..] else { panic!("two outputs") };
        let [last_again, last_state] = &run(false, true)[..] else { panic!("two outputs") };
        assert_eq!(last.0, [1, 3]);
        assert_eq!(all.0, [1, 4, 3]);
        assert_eq!(all, all_again);
        assert_eq!(&all.1[9..], state.1, "the last row of all outputs equals the state");
        assert_eq!((last, last_again), (last_state, last_state), "the last output twice");
        assert_eq!(last, state);
    }
}

#[test]
fn seed_row_10_a_2d_input_is_refused_with_the_shape_wanted() {
    for device in devices() {
        let network = build(SimpleRnn::new(3), &[None, None, Some(5)], &device);
        let x = Tensor::from_f32(&BOOK, &[4, 5], &device).unwrap();
        let e = network.forward(&x).unwrap_err().to_string();
        assert!(e.contains("[batch, timesteps, features]") && e.contains("[4, 5]"), "{e}");
        let e = torch(SimpleRnn::new(3), 5, &device).forward(&x, None).unwrap_err().to_string();
        assert!(e.contains("[batch, timesteps, features]") && e.contains("[4, 5]"), "{e}");
    }
}

#[test]
fn seed_rows_11_to_13_pytorch_style_shapes() {
    for device in devices() {
        let x = random(&[1, 10, 5], 11, &device);
        for (layers, both, y_shape, h_shape) in
            [(1, false, [1, 10, 8], [1, 1, 8]), (2, false, [1, 10, 8], [2, 1, 8]), (2, true, [1, 10, 16], [4, 1, 8])]
        {
            let mut spec: RecurrentSpec = SimpleRnn::new(8).num_layers(layers).into();
            spec.bidirectional = both.then_some(Merge::Concat);
            let layer = torch(spec, 5, &device);
            let (y, state) = layer.forward(&x, None).unwrap();
            assert_eq!(*y.shape(), y_shape);
            assert_eq!(*state.h.shape(), h_shape);
            let h = state.h.to_vec().unwrap();
            let y = y.to_vec().unwrap();
            let top = (layers - 1) * if both { 2 } else { 1 };
            assert_eq!(y[9 * y_shape[2]..][..8], h[top * 8..][..8], "the last output is the top layer's state");
        }
    }
}

#[test]
fn seed_row_11_pytorch_style_one_layer() {
    seed_row_shape(1, false, 8);
}

#[test]
fn seed_row_12_two_layers_have_weights_of_their_own() {
    let network =
        Sequential::new().add(SimpleRnn::new(8).num_layers(2)).build(&[None, None, Some(5)], &Device::Cpu).unwrap();
    let w = network.weights();
    let first = w.expect("layers.0.weight_hh_l0", &[8, 8]).unwrap();
    let second = w.expect("layers.0.weight_hh_l1", &[8, 8]).unwrap();
    assert_ne!(first, second);
    assert_eq!(network.summary().total_params, 5 * 8 + 8 * 8 + 8 + 2 * 8 * 8 + 8);
    seed_row_shape(2, false, 8);
}

#[test]
fn seed_row_13_two_layers_both_directions() {
    seed_row_shape(2, true, 8);
}

/// Compares stacked modules with the reference.
fn seed_row_shape(layers: usize, both: bool, seed: u64) {
    let x = Random(seed).floats(50, 1.0);
    for device in devices() {
        let mut spec: RecurrentSpec = Lstm::new(8).num_layers(layers).return_sequences(true).into();
        spec.bidirectional = both.then_some(Merge::Concat);
        checked(build(LayerConfig::Recurrent(spec), &[None, None, Some(5)], &device), &x, &[1, 10, 5]);
    }
}

#[test]
fn seed_row_14_bidirectional_once_and_four_times() {
    for device in devices() {
        for depth in [1, 4] {
            for inner in [
                LayerConfig::from(Bidirectional::new(Lstm::new(6).return_sequences(true))),
                Bidirectional::new(Gru::new(6).return_sequences(true)).into(),
                Bidirectional::new(SimpleRnn::new(6).return_sequences(true)).into(),
            ] {
                let stack = (0..depth).fold(Sequential::new(), |s, _| s.add(inner.clone()));
                let network = stack.build(&[None, None, Some(4)], &device).unwrap();
                let x = Random(14).floats(2 * 7 * 4, 1.0);
                let y = network.forward(&Tensor::from_f32(&x, &[2, 7, 4], &device).unwrap()).unwrap();
                assert_eq!(*y.shape(), [2, 7, 12], "the last dimension is 2·H");
                checked(network, &x, &[2, 7, 4]);
            }
        }
    }
}

/// Compares one timestep of a cell, written as in the textbook, with the layer.
fn textbook(cell: Cell, step: impl Fn(&[Vec<f64>], &[Vec<f64>], &[f64], &[f64]) -> (Vec<f64>, Vec<f64>)) {
    let (i, h) = (3, 4);
    let g = cell.kind.gates();
    let mut r = Random(15);
    let mut weights = Weights::new();
    let (ih, hh, b) = (r.floats(g * h * i, 0.7), r.floats(g * h * h, 0.7), r.floats(g * h, 0.7));
    weights.insert("weight_ih_l0", &[g * h, i], ih.clone()).unwrap();
    weights.insert("weight_hh_l0", &[g * h, h], hh.clone()).unwrap();
    weights.insert("bias_ih_l0", &[g * h], b.clone()).unwrap();
    weights.insert("bias_hh_l0", &[g * h], vec![0.0; g * h]).unwrap();
    let mut spec = RecurrentSpec::new(cell, h);
    spec.bias = recurve::Bias::Double;
    let x = r.floats(5 * i, 1.0);

    // For gate k: W x + b, and the rows of W_h for the closure.
    let (mut hs, mut cs) = (vec![0f64; h], vec![0f64; h]);
    for x in x.chunks(i) {
        let input: Vec<Vec<f64>> = (0..g)
            .map(|k| {
                (0..h)
                    .map(|j| {
                        let row = k * h + j;
                        f64::from(b[row]) + (0..i).map(|n| f64::from(ih[row * i + n]) * f64::from(x[n])).sum::<f64>()
                    })
                    .collect()
            })
            .collect();
        let matrices: Vec<Vec<f64>> = (0..g).map(|k| wide(&hh[k * h * h..(k + 1) * h * h])).collect();
        (hs, cs) = step(&input, &matrices, &hs, &cs);
    }
    for device in devices() {
        let layer = RecurrentLayer::new("cell", &spec, i, &weights, "", &device).unwrap();
        let (_, state) = layer.forward(&Tensor::from_f32(&x, &[1, 5, i], &device).unwrap(), None).unwrap();
        compare(&state.h.to_vec().unwrap(), &hs, CLOSE).unwrap();
        if let Some(c) = state.c {
            compare(&c.to_vec().unwrap(), &cs, CLOSE).unwrap();
        }
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn times(matrix: &[f64], v: &[f64]) -> Vec<f64> {
    matrix.chunks(v.len()).map(|row| row.iter().zip(v).map(|(a, b)| a * b).sum()).collect()
}

#[test]
fn seed_row_15_lstm_as_the_textbook_has_it() {
    // Equality with PyTorch and Keras for equal weights is tested in golden.rs.
    textbook(Cell::LSTM, |x, w, h, c| {
        let gate = |k: usize| -> Vec<f64> { times(&w[k], h).iter().zip(&x[k]).map(|(a, b)| a + b).collect() };
        let (i, f, g, o) = (gate(0), gate(1), gate(2), gate(3));
        let c: Vec<f64> = (0..h.len()).map(|j| sigmoid(f[j]) * c[j] + sigmoid(i[j]) * g[j].tanh()).collect();
        let h = (0..h.len()).map(|j| sigmoid(o[j]) * c[j].tanh()).collect();
        (h, c)
    });
}

#[test]
fn seed_row_16_gru_with_the_reset_gate_before_and_after() {
    for after in [false, true] {
        textbook(if after { Cell::GRU } else { Cell::GRU_RESET_BEFORE }, |x, w, h, c| {
            let gate =
                |k: usize| -> Vec<f64> { times(&w[k], h).iter().zip(&x[k]).map(|(a, b)| sigmoid(a + b)).collect() };
            let (r, z) = (gate(0), gate(1));
            let product: Vec<f64> = if after {
                times(&w[2], h).iter().zip(&r).map(|(p, r)| p * r).collect()
            } else {
                times(&w[2], &r.iter().zip(h).map(|(r, h)| r * h).collect::<Vec<_>>())
            };
            let next = (0..h.len()).map(|j| (1.0 - z[j]) * (product[j] + x[2][j]).tanh() + z[j] * h[j]).collect();
            (next, c.to_vec())
        });
    }
}

#[test]
fn seed_row_17_tanh_or_relu() {
    let x = Random(17).floats(2 * 6 * 3, 1.0);
    for device in devices() {
        for f in [Activation::Tanh, Activation::Relu] {
            let network =
                build(SimpleRnn::new(5).activation(f).return_sequences(true), &[None, None, Some(3)], &device);
            let y = network.forward(&Tensor::from_f32(&x, &[2, 6, 3], &device).unwrap()).unwrap().to_vec().unwrap();
            let negative = y.iter().any(|&v| v < 0.0);
            assert_eq!(negative, f == Activation::Tanh);
            checked(network, &x, &[2, 6, 3]);
        }
    }
}

#[test]
fn seed_row_18_stateful_batches_of_fixed_size() {
    for device in devices() {
        for layer in [
            LayerConfig::from(SimpleRnn::new(4).stateful(true)),
            Lstm::new(4).stateful(true).into(),
            Gru::new(4).stateful(true).into(),
        ] {
            let network = build(layer, &[Some(2), Some(3), Some(5)], &device);
            let (a, b) = (random(&[2, 3, 5], 1, &device), random(&[2, 3, 5], 2, &device));
            let run = |x: &Tensor| network.forward(x).unwrap().to_vec().unwrap();
            let (first, second) = (run(&a), run(&b));
            // The two calls together are one sequence of six timesteps.
            let whole = recurve::concat(&[&a, &b], 1).unwrap();
            let Some(LayerConfig::Recurrent(spec)) = network.layers().next() else { panic!("recurrent") };
            let r = RecurrentLayer::new("layer", spec, 5, network.weights(), "layers.0", &device).unwrap();
            let (_, state) = r.forward(&whole, None).unwrap();
            compare_f32(&second, &state.h.to_vec().unwrap(), Tolerance::new(1e-6)).unwrap();
            assert_ne!(first, run(&a), "the state is carried from one call to the next");
            network.reset_states();
            assert_eq!(first, run(&a), "and forgotten on request");
            let wrong = random(&[3, 3, 5], 3, &device);
            assert!(network.forward(&wrong).is_err(), "the batch size is fixed");
        }
    }
}

#[test]
fn seed_row_18_a_remembered_batch_size_is_kept() {
    let network = build(SimpleRnn::new(4).stateful(true), &[None, None, Some(5)], &Device::Cpu);
    network.forward(&random(&[2, 3, 5], 1, &Device::Cpu)).unwrap();
    let e = network.forward(&random(&[3, 3, 5], 1, &Device::Cpu)).unwrap_err().to_string();
    assert!(e.contains("reset_states"), "{e}");
}

#[test]
fn streaming_steps_equal_one_forward() {
    for device in devices() {
        for spec in [RecurrentSpec::from(Lstm::new(6).num_layers(2)), Gru::new(6).into(), SimpleRnn::new(6).into()] {
            let layer = torch(spec, 3, &device);
            let x = random(&[2, 5, 3], 19, &device);
            let (y, end) = layer.forward(&x, None).unwrap();
            let mut state: Option<State> = None;
            let mut steps = Vec::new();
            for t in 0..5 {
                let x = x.slice(1, t..t + 1).unwrap().reshape(&[2, 3]).unwrap();
                let (y, next) = layer.step(&x, state.as_ref()).unwrap();
                steps.push(y.reshape(&[2, 1, 6]).unwrap());
                state = Some(next);
            }
            let steps = recurve::concat(&steps.iter().collect::<Vec<_>>(), 1).unwrap();
            compare_f32(&steps.to_vec().unwrap(), &y.to_vec().unwrap(), Tolerance::new(1e-6)).unwrap();
            compare_f32(&state.unwrap().h.to_vec().unwrap(), &end.h.to_vec().unwrap(), Tolerance::new(1e-6)).unwrap();
        }
    }
    let backwards = torch(Bidirectional::new(SimpleRnn::new(2)), 3, &Device::Cpu);
    assert!(backwards.step(&random(&[1, 3], 1, &Device::Cpu), None).is_err());
}

#[test]
fn descriptions_that_contradict_themselves_are_refused() {
    let cpu = &Device::Cpu;
    let input = [None, None, Some(4)];
    let refused = |s: Sequential| s.build(&input, cpu).unwrap_err().to_string();
    assert!(refused(Sequential::new()).contains("empty"));
    assert!(refused(Sequential::new().add(SimpleRnn::new(0))).contains("units"));
    assert!(
        refused(Sequential::new().add(SimpleRnn::new(2)).add(SimpleRnn::new(2)))
            .contains("[batch, timesteps, features]")
    );
    assert!(
        refused(Sequential::new().add(SimpleRnn::new(2).return_state(true)).add(Dense::new(1)))
            .contains("return_state")
    );
    assert!(
        refused(Sequential::new().add(Bidirectional::new(SimpleRnn::new(2).go_backwards(true))))
            .contains("go_backwards")
    );
    assert!(refused(Sequential::new().add(Lstm::new(2).clip(-1.0))).contains("clip"));
    assert!(refused(Sequential::new().add(Embedding::new(5, 2))).contains("[batch, timesteps]"));
    let e = torch(SimpleRnn::new(2), 4, cpu).forward(&random(&[1, 2, 3], 1, cpu), None).unwrap_err();
    assert!(matches!(e, recurve::LayerError::Tensor(TensorError::Shape { .. })));
}
