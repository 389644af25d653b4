//! What a description says about how weights are trained, beside Keras: weights that are not trained.

use recurve::testing::{Tolerance, compare};
use recurve::{
    BatchNormalization, Bidirectional, Dense, Device, Gru, HostArray, HostData, LayerConfig, Lstm, Merge, Model,
    Network, RecurrentSpec, Sequential, SimpleRnn, Tensor, TimeDistributed, Weights, read_array,
};
use recurve_tests::{devices, fixtures, wide};
use recurve_train::{Adam, Average, Batch, Clip, Error, Form, Loss, Optimizer, Sgd, StepOptions, Training};
use serde_json::Value;
use std::sync::Arc;

fn array(name: &str) -> HostArray {
    read_array(&fixtures().join("weight_options.npz"), name).unwrap()
}

fn bytes(name: &str) -> Vec<u8> {
    let HostData::Int(v) = array(name).data else { panic!("{name}") };
    v.into_iter().map(|v| u8::try_from(v).unwrap()).collect()
}

fn index() -> Value {
    serde_json::from_slice(&bytes("index")).unwrap()
}

fn model(name: &str, device: &Device) -> Model {
    Model::from_bytes(&bytes(name), device).unwrap()
}

fn tensor(name: &str, device: &Device) -> Tensor {
    let a = array(name);
    match &a.data {
        HostData::Float(v) => Tensor::from_f32(v, &a.shape, device).unwrap(),
        HostData::Int(v) => {
            Tensor::from_u32(&v.iter().map(|&v| v as u32).collect::<Vec<_>>(), &a.shape, device).unwrap()
        }
        other => panic!("{name}: {other:?}"),
    }
}

fn options(optimizer: &str) -> StepOptions {
    let optimizer: Optimizer = match optimizer {
        "sgd" => Sgd::keras().learning_rate(0.05).momentum(0.9).into(),
        _ => Adam::keras().learning_rate(0.02).into(),
    };
    StepOptions::new(Loss::mean_squared_error(), optimizer)
}

/// The largest error: Keras computes in f64.
const BOUND: f64 = 1e-5;

/// Trains a network as Keras did and compares losses and weights. The error says what differs.
fn against_keras(case: &str, optimizer: &str, network: &Network, about: &Value) -> Result<(), String> {
    let device = network.device();
    let x = tensor(&format!("{case}.x"), device);
    let ys: Vec<Tensor> =
        (0..about["outputs"].as_u64().unwrap()).map(|n| tensor(&format!("{case}.y{n}"), device)).collect();
    let (inputs, targets) = ([&x], ys.iter().collect::<Vec<_>>());
    let batch = Batch::new(&inputs, &targets);
    let mut training = Training::new(network, options(optimizer)).map_err(|e| e.to_string())?;
    let want: Vec<f64> = about[optimizer]["losses"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    let losses: Vec<f32> = want.iter().map(|_| training.step(&batch).unwrap().loss.to_vec().unwrap()[0]).collect();
    compare(&losses, &want, Tolerance::new(BOUND)).map_err(|e| format!("losses: {e}"))?;
    training.use_averages();
    let after = model(&format!("{case}.{optimizer}"), device);
    for (name, want) in after.network().weights().iter() {
        let got = training.weight(name).unwrap().to_vec().unwrap();
        let want = wide(&want.to_vec().unwrap());
        compare(&got, &want, Tolerance::new(BOUND)).map_err(|e| format!("{name}: {e}"))?;
    }
    Ok(())
}

fn cases(start: &str) -> Vec<(String, Value)> {
    let index = index();
    let cases = index["cases"].as_object().unwrap();
    let cases = cases.iter().filter(|(name, _)| *name != "frozen_first");
    cases.filter(|(name, _)| name.starts_with(start)).map(|(name, v)| (name.clone(), v.clone())).collect()
}

/// Some steps of SGD and Adam give Keras's losses and weights, on every device; networks without what the description
/// says about their weights do not.
fn steps_are_those_of_keras(start: &str, count: usize, plain: impl Fn(&LayerConfig) -> LayerConfig) {
    let cases = cases(start);
    assert_eq!(cases.len(), count);
    for device in devices() {
        for (case, about) in &cases {
            let before = model(&format!("{case}.before"), &device);
            let network = before.network();
            for optimizer in ["sgd", "adam"] {
                against_keras(case, optimizer, network, about)
                    .unwrap_or_else(|e| panic!("{case} with {optimizer} on {device}: {e}"));
            }
            let mut config = network.config().clone();
            config.layers.iter_mut().for_each(|l| l.layer = plain(&l.layer));
            let other = Network::new(&config, network.weights().clone(), &device).unwrap();
            assert!(against_keras(case, "sgd", &other, about).is_err(), "{case} on {device}: nothing was noticed");
        }
    }
}

#[test]
fn weights_that_are_not_trained_are_those_of_keras() {
    steps_are_those_of_keras("frozen", 7, |layer| layer.clone().trainable(true));
}

fn data(device: &Device) -> (Tensor, Tensor) {
    let x = Tensor::rand_uniform(&[8, 5, 3], -1.0..1.0, 1, device).unwrap();
    (x, Tensor::rand_uniform(&[8, 2], -1.0..1.0, 2, device).unwrap())
}

const ANY: [Option<usize>; 3] = [None, None, Some(3)];

/// PyTorch's `requires_grad = False`: a weight that is not trained has no gradient, no state of the optimiser, no part in
/// a common norm and no average, and no weight decay. A batch normalization goes on as it was.
#[test]
fn weights_can_be_left_out_of_training_by_name() {
    for device in devices() {
        let network = Sequential::new()
            .add(Lstm::new(4).return_sequences(true))
            .add(BatchNormalization::new())
            .add(SimpleRnn::new(3))
            .add(Dense::new(2))
            .seed(3)
            .build(&ANY, &device)
            .unwrap();
        let (x, y) = data(&device);
        let options = || {
            StepOptions::new(Loss::mean_squared_error(), Adam::adamw_keras().weight_decay(0.1))
                .clip(Clip::GlobalNorm { norm: 0.01, form: Form::Keras })
                .average(Average::default())
        };
        let names = ["layers.0", "layers.1.weight", "layers.3.bias"];
        let mut training = Training::new(&network, options().frozen(names)).unwrap();
        let all = Training::new(&network, options()).unwrap();
        let trained: Vec<String> = training.names().map(str::to_owned).collect();
        let want: Vec<&str> = all.names().filter(|n| !n.starts_with("layers.0.") && !names[1..].contains(n)).collect();
        assert_eq!(trained, want);
        assert_eq!(all.names().count() - trained.len(), 3 + 2);
        let before = training.weights().unwrap();
        let (inputs, targets) = ([&x], [&y]);
        let batch = Batch::new(&inputs, &targets);
        let (_, gradients) = training.gradients(&batch).unwrap();
        assert_eq!(gradients.len(), trained.len());
        // The limit is of the gradients that there are.
        let square: f32 = gradients.iter().flat_map(|g| g.to_vec().unwrap()).map(|v| v * v).sum();
        assert!((square.sqrt() - 0.01).abs() < 1e-6, "{square}");
        for _ in 0..3 {
            training.step(&batch).unwrap();
        }
        training.use_averages();
        for (name, old) in before.iter() {
            let same = training.weight(name).unwrap().to_vec().unwrap() == old.to_vec().unwrap();
            // Running means move.
            let fixed = name.starts_with("layers.0.") || names.contains(&name);
            assert_eq!(same, fixed, "{name} on {device}");
        }
        assert!(training.flat_layout().iter().all(|part| part.trained == trained.contains(&part.name)));
        for bad in ["layers.9", "layers", "layers.3.", "", "layers.3.bia"] {
            let result = Training::new(&network, options().frozen([bad]));
            match result {
                // Everything is named `layers.N`.
                Ok(t) => assert!(bad == "layers" && t.names().next().is_none(), "{bad}"),
                Err(Error::Option { argument: "frozen", message, .. }) => assert!(message.contains(bad), "{message}"),
                Err(e) => panic!("{bad}: {e}"),
            }
        }
    }
}

/// A layer that is not trained costs no node of its gradient, wherever it stands.
#[test]
fn weights_that_are_not_trained_cost_nothing() {
    let device = Device::Cpu;
    let layers = |first: bool, last: bool| {
        Sequential::new()
            .add(Dense::new(4).trainable(first))
            .add(Gru::new(4).trainable(first))
            .add(Dense::new(2).trainable(last))
            .build(&ANY, &device)
            .unwrap()
    };
    let count = |network: &Network| {
        let graph = network.training_graph().unwrap();
        let (mut assembly, outputs) = graph.graph.open(|_| false).unwrap();
        let y = outputs[0].1;
        let over = recurve_graph::ops::ReduceOver {
            reduction: recurve_tensor::Reduction::Sum,
            axes: vec![],
            keep_dims: false,
            noop: false,
            int: None,
        };
        let loss = assembly.derived("loss", Arc::new(over), &[Some(y)], 1).unwrap()[0];
        let before = assembly.nodes().len();
        let by: Vec<_> = graph.trainable.iter().map(|name| assembly.find(name).unwrap()).collect();
        assembly.gradients(loss, &by).unwrap();
        let names = assembly.nodes()[before..].iter().map(|n| n.name.clone()).collect::<Vec<_>>();
        (names.iter().filter(|n| n.contains("gru") || n.contains("dense_1") || n.ends_with("dense")).count(), names)
    };
    let (all, names) = count(&layers(true, true));
    assert!(all > 4 && names.iter().any(|n| n == "gradient of gru"), "{names:?}");
    // In front nothing is left, behind what leads to the front.
    let (front, names) = count(&layers(false, true));
    assert!(front < all && !names.iter().any(|n| n == "gradient of gru" || n == "gradient of dense"), "{names:?}");
    let (back, names) = count(&layers(true, false));
    assert!(back < all && names.iter().any(|n| n == "gradient of gru"), "{names:?}");
    let (none, names) = count(&layers(false, false));
    assert_eq!(none, 0, "{names:?}");
    // A step without anything to train changes nothing.
    let mut training =
        Training::new(&layers(false, false), StepOptions::new(Loss::mean_squared_error(), Adam::keras())).unwrap();
    let (x, y) = data(&device);
    let before = training.weights().unwrap();
    training.step(&Batch::new(&[&x], &[&y])).unwrap();
    assert_eq!(training.steps(), 1);
    assert!(before.iter().all(|(n, w)| training.weight(n).unwrap().to_vec().unwrap() == w.to_vec().unwrap()));
}

/// The summary counts weights that are not trained, and a file keeps what a layer says of its weights.
#[test]
fn options_of_weights_are_counted_and_kept() {
    let device = Device::Cpu;
    let both = Bidirectional::new(Lstm::new(2).return_sequences(true)).trainable(false);
    let network = Sequential::new()
        .add(both)
        .add(TimeDistributed::new(BatchNormalization::new().trainable(false)))
        .add(Dense::new(2))
        .build(&ANY, &device)
        .unwrap();
    let text = network.summary().to_string();
    let lstm = 2 * (8 * 3 + 8 * 2 + 8);
    let rows = [("Total", lstm + 16 + 10), ("Trainable", 10), ("Non-trainable", lstm + 16)];
    for (what, n) in rows {
        assert!(text.contains(&format!("{what} params: {n}\n")), "{what} {n}: {text}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    Model::new("model", network).save(&path).unwrap();
    let read = Model::open(&path, &device).unwrap();
    let training = Training::new(read.network(), StepOptions::new(Loss::mean_squared_error(), Sgd::keras())).unwrap();
    assert_eq!(training.names().collect::<Vec<_>>(), ["layers.2.weight", "layers.2.bias"]);
}

/// Each direction of a layer drops features of its own, the same at all timesteps; Keras's two layers do so too.
#[test]
fn each_direction_drops_its_own_features() {
    for device in devices() {
        let rnn = SimpleRnn::new(16).activation(recurve::Activation::Linear).use_bias(false).return_sequences(true);
        let both = Bidirectional::new(rnn.dropout(0.5)).merge_mode(Merge::Concat);
        let network = Sequential::new().add(both).build(&[None, None, Some(16)], &device).unwrap();
        let mut weights = Weights::new();
        for (name, w) in network.weights().iter() {
            // The input goes through as it is, and nothing comes from the timestep before.
            let one = |n: usize| if name.contains("weight_ih") && n % 17 == 0 { 1.0 } else { 0.0 };
            weights.insert(name, w.shape(), (0..w.count()).map(one).collect()).unwrap();
        }
        let network = Network::new(network.config(), Arc::new(weights), &device).unwrap();
        let options = StepOptions::new(Loss::mean_squared_error(), Sgd::keras());
        let mut training = Training::new(&network, options).unwrap();
        let (b, t) = (32, 3);
        let x = Tensor::full(&[b, t, 16], 1.0, recurve::DType::F32, &device).unwrap();
        let y = Tensor::full(&[b, t, 32], 0.0, recurve::DType::F32, &device).unwrap();
        let outputs = training.gradients(&Batch::new(&[&x], &[&y])).unwrap().0.outputs[0].to_vec().unwrap();
        let (mut same, mut dropped) = (0, [0; 2]);
        for row in 0..b {
            let at = |time: usize, unit: usize| outputs[(row * t + time) * 32 + unit];
            for unit in 0..16 {
                for direction in 0..2 {
                    let first = at(0, direction * 16 + unit);
                    assert!(first == 0.0 || (first - 2.0).abs() < 1e-6, "{first}");
                    assert!((1..t).all(|time| at(time, direction * 16 + unit) == first), "drawn anew at a timestep");
                    dropped[direction] += usize::from(first == 0.0);
                }
                same += usize::from((at(0, unit) == 0.0) == (at(0, 16 + unit) == 0.0));
            }
        }
        // Of 512 pairs about one half agree by chance; six standard deviations are 68.
        assert!((188..=324).contains(&same), "{same} of 512 on {device}");
        assert!(dropped.iter().all(|n| (188..=324).contains(n)), "{dropped:?}");
        // States and their gradients are those of both directions.
        let mut spec = RecurrentSpec::from(Bidirectional::new(Lstm::new(4).dropout(0.3)));
        spec.return_state = true;
        let network = Sequential::new().add(Lstm::new(3).return_sequences(true)).add(LayerConfig::Recurrent(spec));
        let network = network.build(&ANY, &device).unwrap();
        assert_eq!(network.output_shapes().len(), 5);
        let losses = vec![Loss::mean_squared_error(); 5];
        let options = StepOptions::new(Loss::mean_squared_error(), Sgd::keras()).losses(losses);
        let mut training = Training::new(&network, options).unwrap();
        let x = Tensor::rand_uniform(&[2, 5, 3], -1.0..1.0, 1, &device).unwrap();
        let ys: Vec<Tensor> =
            [8, 4, 4, 4, 4].map(|n| Tensor::full(&[2, n], 0.5, recurve::DType::F32, &device).unwrap()).into();
        let (result, gradients) = training.gradients(&Batch::new(&[&x], &ys.iter().collect::<Vec<_>>())).unwrap();
        assert_eq!(result.states[1].h.dims(), [2, 2, 4]);
        assert!(gradients.iter().all(|g| g.to_vec().unwrap().iter().any(|v| *v != 0.0)));
        let reads = |out: usize, n: usize| result.outputs[out].to_vec().unwrap()[n];
        let state = result.states[1].h.to_vec().unwrap();
        assert_eq!((reads(1, 0), reads(3, 0)), (state[0], state[8]));
    }
}
