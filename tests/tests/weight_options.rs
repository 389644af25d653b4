//! What a description says about how weights are trained, beside Keras: weights that are not trained, penalties,
//! constraints.

use recurve::testing::{Tolerance, compare};
use recurve::{
    ActivityRegularization, BatchNormalization, Bidirectional, Constraint, Dense, Device, Gru, HostArray, HostData,
    LayerConfig, Lstm, Merge, Model, Network, OrthogonalMode, RecurrentSpec, Regularizer, Sequential, SimpleRnn,
    Tensor, TimeDistributed, Variable, WeightOptions, Weights, read_array,
};
use recurve_tests::{devices, fixtures, wide};
use recurve_train::{
    Adam, Array, Average, Batch, Clip, Dataset, Error, Form, Loss, Optimizer, Sgd, StepOptions, Trainer, Training,
};
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

fn options(case: &str, optimizer: &str) -> StepOptions {
    let optimizer: Optimizer = match optimizer {
        "sgd" => Sgd::keras().learning_rate(0.05).momentum(0.9).into(),
        _ => Adam::keras().learning_rate(0.02).into(),
    };
    let options = StepOptions::new(Loss::mean_squared_error(), optimizer);
    match case {
        "regularized_outputs" => {
            options.losses([Loss::mean_squared_error(), Loss::mean_absolute_error()]).loss_weights([1.0, 0.5])
        }
        "constrained_average" => options.average(Average::new(0.7).unwrap()),
        "constrained_accumulated" => options.accumulate(2),
        _ => options,
    }
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
    let mut training = Training::new(network, options(case, optimizer)).map_err(|e| e.to_string())?;
    let want: Vec<f64> = about[optimizer]["losses"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    let losses: Vec<f32> = want.iter().map(|_| training.step(&batch).unwrap().loss.to_vec().unwrap()[0]).collect();
    compare(&losses, &want, Tolerance::new(BOUND)).map_err(|e| format!("losses: {e}"))?;
    scores_are_those_of_keras(case, optimizer, &training, about)?;
    training.use_averages();
    let after = model(&format!("{case}.{optimizer}"), device);
    for (name, want) in after.network().weights().iter() {
        let got = training.weight(name).unwrap().to_vec().unwrap();
        let want = wide(&want.to_vec().unwrap());
        compare(&got, &want, Tolerance::new(BOUND)).map_err(|e| format!("{name}: {e}"))?;
    }
    Ok(())
}

/// The loss of an evaluation has the penalties, and those of single outputs have not.
fn scores_are_those_of_keras(case: &str, optimizer: &str, training: &Training, about: &Value) -> Result<(), String> {
    let options = options(case, optimizer);
    let network = training.network().map_err(|e| e.to_string())?;
    let mut trainer = Trainer::compile(&network, options).map_err(|e| e.to_string())?;
    let host = |name: String| {
        let a = array(&name);
        match a.data {
            HostData::Float(v) => Array::f32(v, &a.shape).unwrap(),
            HostData::Int(v) => Array::u32(v.iter().map(|&v| v as u32).collect(), &a.shape).unwrap(),
            other => panic!("{name}: {other:?}"),
        }
    };
    let ys = (0..about["outputs"].as_u64().unwrap()).map(|n| host(format!("{case}.y{n}")).into()).collect();
    let data = Dataset::of(vec![host(format!("{case}.x")).into()], ys).unwrap();
    let scores = trainer.evaluate(&data, 4).map_err(|e| e.to_string())?;
    let want = about[optimizer]["scores"].as_object().unwrap();
    for (name, want) in want.iter().filter(|(name, _)| name.ends_with("loss")) {
        let got = scores.get(name).ok_or(format!("no {name} among {scores:?}"))?;
        compare(&[got as f32], &[want.as_f64().unwrap()], Tolerance::new(BOUND)).map_err(|e| format!("{name}: {e}"))?;
    }
    Ok(())
}

fn cases(start: &str) -> Vec<(String, Value)> {
    let index = index();
    let cases = index["cases"].as_object().unwrap();
    cases.iter().filter(|(name, _)| name.starts_with(start)).map(|(name, v)| (name.clone(), v.clone())).collect()
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
    steps_are_those_of_keras("frozen", 8, |layer| layer.clone().trainable(true));
}

/// A layer without one kind of its options, those of layers inside it too.
fn without(layer: &LayerConfig, change: impl Fn(&mut WeightOptions)) -> LayerConfig {
    let mut layer = layer.clone();
    layer.weight_options_mut().into_iter().for_each(change);
    layer
}

#[test]
fn penalties_are_those_of_keras() {
    let plain = |o: &mut WeightOptions| {
        o.regularizers.clear();
        o.activity_regularizer = None;
    };
    steps_are_those_of_keras("regularized", 9, |layer| without(layer, plain));
}

#[test]
fn constraints_are_those_of_keras() {
    steps_are_those_of_keras("constrained", 9, |layer| without(layer, |o| o.constraints.clear()));
}

/// Every single penalty and constraint of all cases matters: without it the numbers are others.
#[test]
fn each_option_is_noticed() {
    let device = Device::Cpu;
    let mut seen = 0;
    for (case, about) in cases("regularized").into_iter().chain(cases("constrained")) {
        let before = model(&format!("{case}.before"), &device);
        let config = before.network().config();
        let tried = |layer: usize, own: usize, change: &dyn Fn(&mut WeightOptions)| {
            let mut config = config.clone();
            change(config.layers[layer].layer.weight_options_mut().swap_remove(own));
            let other = Network::new(&config, before.network().weights().clone(), &device).unwrap();
            assert!(against_keras(&case, "sgd", &other, &about).is_err(), "{case}: layer {layer}: nothing was noticed");
        };
        for n in 0..config.layers.len() {
            let mut layer = config.layers[n].layer.clone();
            let inside = matches!(layer, LayerConfig::TimeDistributed(_));
            for (own, options) in layer.weight_options_mut().into_iter().enumerate() {
                for &variable in options.regularizers.keys() {
                    tried(n, own, &|o| o.regularizers.retain(|v, _| *v != variable));
                    seen += 1;
                }
                for &variable in options.constraints.keys() {
                    tried(n, own, &|o| o.constraints.retain(|v, _| *v != variable));
                    seen += 1;
                }
                // Keras does not count that of a layer inside a TimeDistributed.
                if options.activity_regularizer.is_some() && !inside {
                    tried(n, own, &|o| o.activity_regularizer = None);
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 50, "{seen}");
}

/// Penalties and constraints of somebody's own: the file runs, and its training is refused by name, also once the model
/// was saved.
#[test]
fn what_is_not_known_is_refused_in_training_alone() {
    let device = Device::Cpu;
    let names = index()["files"].as_array().unwrap().clone();
    assert_eq!(names.len(), 3);
    let dir = tempfile::tempdir().unwrap();
    for (name, option) in names.iter().zip(["kernel_constraint", "bias_regularizer", "activity_regularizer"]) {
        let opened = model(&format!("{}.before", name.as_str().unwrap()), &device);
        let (x, y) = data(&device);
        assert_eq!(opened.network().forward(&x).unwrap().dims(), y.dims());
        let path = dir.path().join("model.safetensors");
        opened.save(&path).unwrap();
        for model in [opened, Model::open(&path, &device).unwrap()] {
            match Training::new(model.network(), StepOptions::new(Loss::mean_squared_error(), Sgd::keras())) {
                Err(Error::Network(e)) => {
                    let text = e.to_string();
                    assert!(text.contains(option) && text.contains("dense"), "{text}");
                }
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}

/// The options in Keras's words, in Rust: what is out of range, and what a layer does not have, is refused by name when a
/// training begins.
#[test]
fn bad_options_of_weights_are_refused() {
    let device = Device::Cpu;
    let refused = |layer: LayerConfig, argument: &str, words: &str| {
        let network = Sequential::new().add(layer).add(Dense::new(2)).build(&[None, Some(3)], &device).unwrap();
        let x = Tensor::rand_uniform(&[2, 3], -1.0..1.0, 1, &device).unwrap();
        network.forward(&x).unwrap();
        match Training::new(&network, StepOptions::new(Loss::mean_squared_error(), Sgd::keras())) {
            Err(Error::Network(e)) => {
                let text = e.to_string();
                assert!(text.contains(&format!("`{argument}`")) && text.contains(words), "{text}");
            }
            other => panic!("{argument}: {other:?}"),
        }
    };
    let dense = || Dense::new(4);
    refused(dense().kernel_regularizer(Regularizer::l2(-0.1)).into(), "kernel_regularizer", "-0.1");
    refused(dense().bias_regularizer(Regularizer::l1(f32::NAN)).into(), "bias_regularizer", "NaN");
    let orthogonal = Regularizer::orthogonal(0.1, OrthogonalMode::Rows);
    refused(dense().bias_regularizer(orthogonal).into(), "bias_regularizer", "matrices");
    refused(dense().activity_regularizer(orthogonal).into(), "activity_regularizer", "weights only");
    refused(
        Dense::new(1).kernel_regularizer(Regularizer::orthogonal(0.1, OrthogonalMode::Columns)).into(),
        "kernel_regularizer",
        "two or more",
    );
    for (constraint, words) in [
        (Constraint::max_norm(f32::INFINITY), "inf"),
        (Constraint::max_norm(1.0).axis(&[2]), "2"),
        (Constraint::max_norm(1.0).axis(&[0, -2]), "different"),
        (Constraint::unit_norm().axis(&[]), "at least one"),
        (Constraint::min_max_norm(2.0, 1.0, 1.0), "in order"),
        (Constraint::min_max_norm(0.0, 1.0, 1.5), "1.5"),
    ] {
        refused(dense().kernel_constraint(constraint).into(), "kernel_constraint", words);
    }
    let mut wrong = LayerConfig::from(dense());
    wrong.weight_options_mut()[0].regularizers.insert(Variable::Recurrent, Regularizer::l2(0.1));
    refused(wrong, "recurrent_regularizer", "Dense");
    // Both biases are constrained together, so one alone cannot be left out.
    let network =
        Sequential::new().add(Gru::new(3).bias_constraint(Constraint::unit_norm())).build(&ANY, &device).unwrap();
    let options = || StepOptions::new(Loss::mean_squared_error(), Sgd::keras());
    match Training::new(&network, options().frozen(["layers.0.bias_hh_l0"])) {
        Err(Error::Option { argument: "frozen", message, .. }) => assert!(message.contains("bias_ih_l0"), "{message}"),
        other => panic!("{other:?}"),
    }
    Training::new(&network, options().frozen(["layers.0.bias_hh_l0", "layers.0.bias_ih_l0"])).unwrap();
}

/// Gradients that come from elsewhere are followed by the constraints too, and a file keeps all options.
#[test]
fn options_of_weights_stay_with_a_network() {
    let device = Device::Cpu;
    let lstm = Lstm::new(4)
        .kernel_regularizer(Regularizer::l1_l2(0.01, 0.02))
        .recurrent_regularizer(Regularizer::orthogonal(0.1, OrthogonalMode::Columns))
        .recurrent_constraint(Constraint::min_max_norm(0.1, 0.5, 0.5).axis(&[1]))
        .activity_regularizer(Regularizer::l2(0.1));
    let network = Sequential::new()
        .add(lstm)
        .add(Dense::new(2).kernel_constraint(Constraint::NonNeg))
        .add(ActivityRegularization::new(0.1, 0.0))
        .seed(5)
        .build(&ANY, &device)
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    Model::new("model", network.to_device(&device).unwrap()).save(&path).unwrap();
    let read = Model::open(&path, &device).unwrap();
    assert_eq!(read.network().config(), network.config());
    let (x, y) = data(&device);
    let (inputs, targets) = ([&x], [&y]);
    let batch = Batch::new(&inputs, &targets);
    let options = || StepOptions::new(Loss::mean_squared_error(), Adam::keras().learning_rate(0.1));
    let mut whole = Training::new(&network, options()).unwrap();
    let mut parts = Training::new(read.network(), options()).unwrap();
    for _ in 0..3 {
        whole.step(&batch).unwrap();
        let (_, flat) = parts.flat_gradients(&batch, 8.0).unwrap();
        parts.apply_flat(&flat).unwrap();
    }
    // An evaluation has the penalties of the weights as they are then.
    let mut trainer = Trainer::compile(&network, options()).unwrap();
    let host = |t: &Tensor| Array::f32(t.to_vec().unwrap(), t.dims()).unwrap();
    let samples = Dataset::new(host(&x), host(&y)).unwrap();
    let first = trainer.evaluate(&samples, 8).unwrap().get("loss").unwrap();
    (0..3).for_each(|_| drop(trainer.training_mut().step(&batch).unwrap()));
    let later = trainer.evaluate(&samples, 8).unwrap().get("loss").unwrap();
    let mut fresh = Trainer::compile(&whole.network().unwrap(), options()).unwrap();
    assert_eq!(later, fresh.evaluate(&samples, 8).unwrap().get("loss").unwrap());
    assert!((later - first).abs() > 1e-3, "{first} {later}");
    let kernel = whole.weight("layers.1.weight").unwrap().to_vec().unwrap();
    assert!(kernel.iter().all(|v| *v >= 0.0) && kernel.contains(&0.0), "{kernel:?}");
    for name in whole.names() {
        let [a, b] = [&whole, &parts].map(|t| t.weight(name).unwrap().to_vec().unwrap());
        compare(&a, &wide(&b), Tolerance::new(1e-5)).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
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
            let one = |n: usize| if name.contains("weight_ih") && n.is_multiple_of(17) { 1.0 } else { 0.0 };
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
