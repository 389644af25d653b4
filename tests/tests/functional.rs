//! Networks built with `Functional`: several inputs and outputs, shared layers, branches that join.

use recurve::testing::{Tolerance, compare, cross_check, reference_outputs};
use recurve::{
    Activation, Add, Average, Bidirectional, CallArgs, Concatenate, Dense, Device, Embedding, Functional, Gru,
    HostArray, HostData, Input, LayerError, Lstm, Masking, Model, Multiply, Network, NetworkConfig, Sequential,
    SimpleRnn, Subtract, Tensor, Weights, read_array,
};
use recurve_tests::{devices, fixtures, wide};
use std::path::PathBuf;
use std::sync::Arc;

fn file() -> PathBuf {
    fixtures().join("functional.npz")
}

fn array(name: &str) -> HostArray {
    read_array(&file(), name).unwrap()
}

/// The network of a description, with the weights from the fixture.
fn with_weights(net: &str, config: &NetworkConfig, device: &Device) -> Network {
    let mut weights = Weights::new();
    let mut read = Vec::new();
    config
        .visit_weights(|name, dims| {
            read.push((name.to_owned(), dims.to_vec()));
            Ok(())
        })
        .unwrap();
    for (name, dims) in read {
        let HostData::Float(data) = array(&format!("{net}.{name}")).data else { panic!("{name}") };
        weights.insert(name, &dims, data).unwrap();
    }
    Network::new(config, Arc::new(weights), device).unwrap()
}

fn seq2seq() -> NetworkConfig {
    let mut net = Functional::new();
    let source = net.input("source", &[None, None, Some(3)]);
    let target = net.ids("target", &[None, None]);
    let words = net.add(Embedding::new(7, 4), &[&target]).unwrap();
    let code = net.add(Lstm::new(5).return_state(true), &[&source]).unwrap();
    assert_eq!(code.len(), 3);
    let y = net.add(Lstm::new(5).return_sequences(true), &[&words[0], &code[1], &code[2]]).unwrap();
    let logits = net.add(Dense::new(7), &[&y[0]]).unwrap();
    net.output("logits", &logits[0]).output("memory", &code[2]);
    net.config().clone()
}

fn siamese() -> NetworkConfig {
    let mut net = Functional::new();
    let left = net.input("left", &[None, None, Some(3)]);
    let right = net.input("right", &[None, None, Some(3)]);
    let encoder = net.layer("encoder", Gru::new(4));
    let a = net.call(encoder, &[&left]).unwrap().remove(0);
    let b = net.call(encoder, &[&right]).unwrap().remove(0);
    let difference = net.add(Subtract::new(), &[&a, &b]).unwrap();
    let product = net.add(Multiply::new(), &[&a, &b]).unwrap();
    let both = net.add(Concatenate::new(), &[&difference[0], &product[0]]).unwrap();
    let score = net.add(Dense::new(2).activation(Activation::Sigmoid), &[&both[0]]).unwrap();
    net.output("code", &a).output("score", &score[0]);
    net.config().clone()
}

fn meeting() -> NetworkConfig {
    let mut net = Functional::new();
    let x = net.input("x", &[None, None, Some(3)]);
    let start = net.input("start", &[None, Some(4)]);
    let g = net.add(Gru::new(4).return_sequences(true), &[&x, &start]).unwrap().remove(0);
    let d = net.add(Dense::new(4), &[&x]).unwrap().remove(0);
    let sum = net.add(Add::new(), &[&g, &d]).unwrap().remove(0);
    let mean = net.add(Average::new(), &[&g, &d, &sum]).unwrap().remove(0);
    let s = net.add(Dense::new(3), &[&start]).unwrap().remove(0);
    let both = Bidirectional::new(Lstm::new(3).return_sequences(true));
    let y = net.add(both, &[&mean, &s, &s, &s, &s]).unwrap().remove(0);
    let wide = net.add(Concatenate::new().axis(2), &[&sum, &x]).unwrap().remove(0);
    net.output("y", &y).output("sum", &wide);
    net.config().clone()
}

/// Each network, with its name in the fixture and the names of its inputs and outputs.
fn networks() -> [(&'static str, NetworkConfig, [&'static str; 2], [&'static str; 2]); 3] {
    [
        ("seq2seq", seq2seq(), ["source", "target"], ["logits", "memory"]),
        ("siamese", siamese(), ["left", "right"], ["code", "score"]),
        ("meeting", meeting(), ["x", "start"], ["y", "sum"]),
    ]
}

#[test]
fn several_inputs_and_outputs_have_pytorchs_numbers_on_every_device() {
    for device in devices() {
        for (name, config, inputs, outputs) in networks() {
            let model = Model::new(name, with_weights(name, &config, &device));
            let given = inputs.map(|i| (i, Input::Host(array(&format!("{name}.{i}")))));
            let got = model.run_all(given).unwrap();
            assert_eq!(got.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), outputs);
            for (output, y) in got {
                let want = array(&format!("{name}.{output}"));
                assert_eq!(y.dims(), want.shape, "{name}.{output}");
                let HostData::Float(want) = want.data else { panic!("floats") };
                compare(&y.to_vec().unwrap(), &wide(&want), Tolerance::new(2e-6))
                    .unwrap_or_else(|e| panic!("{name}.{output} on {device}: {e}"));
            }
        }
    }
}

/// The cross-check uses the operators' references, call by call; a wrong weight is reported.
#[test]
fn the_cross_check_knows_them() {
    for (name, config, inputs, outputs) in networks() {
        let mut model = Model::new(name, with_weights(name, &config, &Device::Cpu));
        let given = inputs.map(|i| (i, array(&format!("{name}.{i}"))));
        let report = cross_check(&model, &given, &devices(), Tolerance::new(1e-5)).unwrap();
        let calls: usize = config.layers.iter().map(|l| l.calls.len()).sum();
        assert!(report.devices.iter().all(|d| d.layers.len() == calls), "{name}");
        let truth = reference_outputs(&model, &given).unwrap();
        // The first output of the network is the output of one of the layers.
        let HostData::Float(want) = array(&format!("{name}.{}", outputs[0])).data else { panic!("floats") };
        let near =
            |t: &Vec<f64>| t.len() == want.len() && t.iter().zip(&want).all(|(a, b)| (a - f64::from(*b)).abs() < 1e-6);
        assert!(truth.iter().any(near), "{name}");
        if name == "meeting" {
            model.network_mut().set_weight("layers.1.weight", &[4, 3], vec![9.0; 12]).unwrap();
            assert!(!reference_outputs(&model, &given).unwrap().iter().any(near));
            cross_check(&model, &given, &devices(), Tolerance::new(1e-5)).unwrap();
        }
    }
}

#[test]
fn model_files_hold_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    for (name, config, inputs, _) in networks() {
        let model = Model::new(name, with_weights(name, &config, &Device::Cpu));
        model.save(&path).unwrap();
        let read = Model::open(&path, &Device::Cpu).unwrap();
        assert_eq!(read.info(), model.info());
        let run = |m: &Model| -> Vec<Vec<f32>> {
            let given = inputs.map(|i| (i, Input::Host(array(&format!("{name}.{i}")))));
            m.run_all(given).unwrap().iter().map(|(_, y)| y.to_vec().unwrap()).collect()
        };
        assert_eq!(run(&read), run(&model), "{name}");
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        assert!(text.contains(r#"\"version\":2"#), "{name}");
    }
    // A chain is written as version 1, which earlier programs read.
    let chain = Sequential::new().add(Gru::new(3)).add(Dense::new(2)).build(&[None, None, Some(3)], &Device::Cpu);
    Model::new("chain", chain.unwrap()).save(&path).unwrap();
    let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
    assert!(text.contains(r#"\"version\":1"#) && !text.contains("network"));
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let refused = |e: LayerError, words: &[&str]| {
        let e = e.to_string();
        assert!(words.iter().all(|w| e.contains(w)), "{e}, expected {words:?}");
    };
    let mut net = Functional::new();
    let x = net.input("x", &[None, None, Some(3)]);
    let z = net.input("z", &[None, None, Some(5)]);
    let ids = net.ids("ids", &[None, None]);
    let h = net.add(Gru::new(4), &[&x]).unwrap().remove(0);
    refused(net.add(Gru::new(4), &[&ids]).unwrap_err(), &["gru_1", "floats", "`ids` holds ids"]);
    refused(net.add(Embedding::new(4, 4), &[&x]).unwrap_err(), &["embedding", "`x` holds floats"]);
    refused(net.add(Gru::new(4), &[&h]).unwrap_err(), &["gru_1", "features"]);
    refused(net.add(Dense::new(4), &[&x, &z]).unwrap_err(), &["dense", "must be one, but there are 2"]);
    refused(net.add(Dense::new(4), &[]).unwrap_err(), &["dense"]);
    refused(net.add(Add::new(), &[&x]).unwrap_err(), &["add", "must be at least two"]);
    refused(net.add(Add::new(), &[&x, &z]).unwrap_err(), &["add", "(None, None, 3)", "(None, None, 5)"]);
    refused(net.add(Subtract::new(), &[&x, &x, &x]).unwrap_err(), &["subtract", "must be two"]);
    refused(net.add(Concatenate::new(), &[&x, &h]).unwrap_err(), &["concatenate", "as the first input"]);
    refused(net.add(Concatenate::new().axis(0), &[&x, &z]).unwrap_err(), &["concatenate", "axis"]);
    refused(net.add(Concatenate::new().axis(3), &[&x, &z]).unwrap_err(), &["concatenate", "axis"]);
    refused(net.add(Concatenate::new().axis(isize::MIN), &[&x, &z]).unwrap_err(), &["concatenate", "axis"]);
    refused(net.add(Concatenate::new().axis(1), &[&x, &z]).unwrap_err(), &["concatenate", "as the first input"]);
    refused(net.add(Lstm::new(4), &[&x, &h]).unwrap_err(), &["lstm", "2 initial states"]);
    refused(net.add(Gru::new(5), &[&x, &h]).unwrap_err(), &["gru_1", "[batch, 5]"]);
    refused(net.add(Gru::new(4).num_layers(2), &[&x, &h]).unwrap_err(), &["gru_1", "stacked"]);
    refused(net.add(Gru::new(4).stateful(true), &[&x, &h]).unwrap_err(), &["gru_1", "stateful"]);
    let shared = net.layer("shared", Dense::new(2));
    net.call(shared, &[&x]).unwrap();
    refused(net.call(shared, &[&z]).unwrap_err(), &["shared", "5 features and with 3"]);
    let stranger = recurve::ValueRef::new("stranger");
    refused(net.add(Dense::new(4), &[&stranger]).unwrap_err(), &["dense", "`stranger` is neither"]);
    // A refused call leaves no layer behind.
    assert_eq!(net.config().layers.len(), 2);
    assert_eq!(net.config().layers[1].calls.len(), 1);
    refused(net.build(&Device::Cpu).unwrap_err(), &["outputs", "is empty"]);
    net.output("h", &h);
    let idle = net.layer("idle", Dense::new(2));
    refused(net.build(&Device::Cpu).unwrap_err(), &["idle", "calls"]);
    net.call(idle, &[&h]).unwrap();
    net.build(&Device::Cpu).unwrap();
    net.output("h", &h);
    refused(net.build(&Device::Cpu).unwrap_err(), &["`h`", "twice"]);

    // Descriptions that no builder makes.
    let good = siamese();
    let build = |change: &dyn Fn(&mut NetworkConfig)| {
        let mut config = good.clone();
        change(&mut config);
        Network::new(&config, Arc::new(Weights::new()), &Device::Cpu).unwrap_err()
    };
    refused(build(&|c| c.inputs[1].name = "left".into()), &["inputs", "`left`"]);
    refused(build(&|c| c.layers[1].name = "encoder".into()), &["layers", "`encoder`"]);
    let shapes_of = |c: &NetworkConfig| c.visit_weights(|_, _| Ok(())).unwrap_err();
    let mut config = good.clone();
    config.outputs[0].value.output = 3;
    refused(shapes_of(&config), &["code", "fewer outputs"]);
    config.outputs[0].value = recurve::ValueRef::new("encoder");
    config.outputs[0].value.call = 3;
    refused(shapes_of(&config), &["code", "called 2 times"]);
    refused(build(&|c| c.layers[3].calls[0][0] = recurve::ValueRef::new("dense")), &["layers that wait for"]);
    refused(build(&|c| c.inputs.clear()), &["inputs", "is empty"]);
    refused(build(&|_| {}), &["layers.0"]);
}

#[test]
fn calls_are_checked_by_name() {
    let network = with_weights("siamese", &siamese(), &Device::Cpu);
    let x = Tensor::from_f32(&[0.5; 6], &[1, 2, 3], &Device::Cpu).unwrap();
    let refused = |e: LayerError, words: &str| assert!(e.to_string().contains(words), "{e}, expected {words}");
    refused(network.forward(&x).unwrap_err(), "`left`, `right`");
    refused(network.forward_named(&[("left", &x)]).unwrap_err(), "`right` is missing");
    refused(network.forward_named(&[("left", &x), ("left", &x)]).unwrap_err(), "`left` is given twice");
    refused(network.forward_named(&[("left", &x), ("up", &x)]).unwrap_err(), "`up` is given");
    let both = [("left", &x), ("right", &x)];
    let lengths = Tensor::from_u32(&[1], &[1], &Device::Cpu).unwrap();
    let args = CallArgs { lengths: Some(&lengths), ..CallArgs::default() };
    refused(network.forward_named_from(&both, &args, None).unwrap_err(), "one input");
    assert!(!network.takes_lengths());
    let flat = x.reshape(&[2, 3]).unwrap();
    refused(network.forward_named(&[("left", &x), ("right", &flat)]).unwrap_err(), "right");
    // Equal inputs have no difference.
    let out = network.forward_named(&both).unwrap();
    assert_eq!(out[1].dims(), [1, 2]);
    // A model reports the same, with its own error type.
    let model = Model::new("siamese", network);
    let e = model.run([("left", &x)]).unwrap_err().to_string();
    assert!(e.contains("right") && e.contains("missing"), "{e}");
    let e = model.run([("lengths", &lengths)]).unwrap_err().to_string();
    assert!(e.contains("`left`, `right`"), "{e}");
}

/// A description may list layers in any order; here there are thousands, the last one first.
#[test]
fn layers_in_any_order() {
    let layer = |n: usize| {
        let input = recurve::ValueRef::new(if n == 0 { "x".into() } else { format!("d{}", n - 1) });
        recurve::NamedLayer::new(format!("d{n}"), Dense::new(2), vec![vec![input]])
    };
    const LAYERS: usize = 4096;
    let config = NetworkConfig::new(
        vec![recurve::InputConfig::new("x", &[None, Some(2)])],
        (0..LAYERS).rev().map(layer).collect(),
        vec![recurve::OutputConfig::new("y", recurve::ValueRef::new(format!("d{}", LAYERS - 1)))],
    );
    let mut count = 0;
    let visit = |_: &str, _: &[usize]| {
        count += 1;
        Ok(())
    };
    config.visit_weights(visit).unwrap();
    let chain = vec![recurve::LayerConfig::from(Dense::new(2)); LAYERS];
    let chain = NetworkConfig::sequential(&chain, &[None, Some(2)]).unwrap();
    assert_eq!(chain.layers[LAYERS - 1].name, format!("dense_{}", LAYERS - 1));
    assert_eq!(count, 2 * LAYERS);
}

/// Single steps give the result of one pass, and a state from the caller takes precedence over one from another layer.
#[test]
fn branches_step_and_begin_with_the_callers_state() {
    for device in devices() {
        let mut net = Functional::new();
        let x = net.input("x", &[None, None, Some(3)]);
        let g = net.add(Gru::new(4).return_sequences(true), &[&x]).unwrap().remove(0);
        let d = net.add(Dense::new(4), &[&x]).unwrap().remove(0);
        let sum = net.add(Add::new(), &[&g, &d]).unwrap().remove(0);
        let network = net.output("sum", &sum).seed(3).build(&device).unwrap();
        let data: Vec<f32> = (0..2 * 5 * 3).map(|n| (n * 7 % 11) as f32 * 0.1 - 0.5).collect();
        let x = Tensor::from_f32(&data, &[2, 5, 3], &device).unwrap();
        let whole = network.forward(&x).unwrap();
        let mut state = None;
        for t in 0..5 {
            let now = x.slice(1, t..t + 1).unwrap().reshape(&[2, 3]).unwrap();
            let (y, next) = network.step(&now, state.as_ref()).unwrap();
            assert_eq!(y.dims(), [2, 4]);
            let want = whole.slice(1, t..t + 1).unwrap().to_vec().unwrap();
            compare(&y.to_vec().unwrap(), &wide(&want), Tolerance::new(1e-6)).unwrap();
            state = Some(next);
        }

        let network = with_weights("meeting", &meeting(), &device);
        let tensor = |name: &str| {
            let a = array(&format!("meeting.{name}"));
            let HostData::Float(v) = a.data else { panic!("floats") };
            Tensor::from_f32(&v, &a.shape, &device).unwrap()
        };
        let (x, start) = (tensor("x"), tensor("start"));
        let zeros = Tensor::zeros(&[2, 4], recurve::DType::F32, &device).unwrap();
        let run = |start: &Tensor, state| {
            let (out, state) =
                network.forward_named_from(&[("x", &x), ("start", start)], &CallArgs::default(), state).unwrap();
            (out[1].to_vec().unwrap(), state)
        };
        let (from_start, ends) = run(&start, None);
        assert_eq!(ends.states().len(), 2);
        let (from_zeros, _) = run(&zeros, None);
        assert_ne!(from_start, from_zeros);
        let mut given = ends.states().to_vec();
        given[0].h = Tensor::zeros(&[1, 2, 4], recurve::DType::F32, &device).unwrap();
        assert_eq!(run(&start, Some(&given.into())).0, from_zeros);
    }
}

/// A mask is passed on by branches that share it. If one of them has none, what joins them has none either.
#[test]
fn masks_of_branches() {
    let network = |same: bool| {
        let mut net = Functional::new();
        let x = net.input("x", &[None, None, Some(2)]);
        let m = net.add(Masking::new(0.0), &[&x]).unwrap().remove(0);
        let other = if same { m.clone() } else { x.clone() };
        let a = net.add(Dense::new(3), &[&m]).unwrap().remove(0);
        let b = net.add(SimpleRnn::new(3).return_sequences(true), &[&other]).unwrap().remove(0);
        let sum = net.add(Add::new(), &[&a, &b]).unwrap().remove(0);
        let last = net.add(Gru::new(2), &[&sum]).unwrap().remove(0);
        net.output("last", &last).build(&Device::Cpu)
    };
    let x = |v: &[f32]| Tensor::from_f32(v, &[1, v.len() / 2, 2], &Device::Cpu).unwrap();
    for same in [true, false] {
        let network = network(same).unwrap();
        let cut = network.forward(&x(&[0.5, 1.0, -0.3, 0.2])).unwrap().to_vec().unwrap();
        let padded = network.forward(&x(&[0.5, 1.0, -0.3, 0.2, 0.0, 0.0, 0.0, 0.0])).unwrap().to_vec().unwrap();
        assert_eq!(cut == padded, same);
    }
}

#[test]
fn the_summary_says_what_is_connected() {
    let summary = with_weights("siamese", &siamese(), &Device::Cpu).summary();
    let text = summary.to_string();
    assert!(text.contains("Model: \"functional\""));
    assert!(text.contains("Connected to"));
    let row = |name: &str| text.lines().find(|l| l.trim_start().starts_with(name)).unwrap().to_owned();
    assert!(row("encoder (GRU)").contains("left, right"), "{text}");
    assert!(row("subtract (Subtract)").contains("encoder, encoder call 1"), "{text}");
    let chain = Sequential::new().add(Gru::new(3)).build(&[None, None, Some(3)], &Device::Cpu).unwrap();
    assert!(!chain.summary().to_string().contains("Connected"));
}
