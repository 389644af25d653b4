//! Networks written as ONNX files: what ONNX Runtime computes from the very bytes (`golden/make_onnx_export.py`), and
//! what comes of reading them again.

use recurve::testing::{Tolerance, compare};
use recurve::{
    Activation, Bidirectional, CallArgs, Cell, CellKind, Dense, Device, Dropout, Embedding, Error, ExportOptions,
    Functional, Gru, HostArray, HostData, LayerConfig, Lstm, Masking, Merge, Model, Network, NetworkConfig,
    NetworkState, OnnxModel, RecurrentSpec, Sequential, SimpleRnn, StackedRnnCells, State, Tensor, TimeDistributed,
    WeightStorage, Weights, Zoneout, npz_from_bytes,
};
use recurve_tests::devices;
use recurve_tests::skips::has_f16;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const EXPECTED: &[u8] = include_bytes!("../fixtures/onnx_export.npz");

/// A network, how it is exported, and what goes into it.
struct Case {
    name: String,
    model: Model,
    options: ExportOptions,
    inputs: Vec<(String, HostArray)>,
}

/// Numbers in [-1, 1), the same every time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
    fn array(&mut self, shape: &[usize], scale: f32) -> HostArray {
        let data = (0..shape.iter().product()).map(|_| self.next() * scale).collect();
        HostArray { shape: shape.to_vec(), data: HostData::Float(data) }
    }
}

fn ints(shape: &[usize], data: &[i64]) -> HostArray {
    HostArray { shape: shape.to_vec(), data: HostData::Int(data.to_vec()) }
}

const B: usize = 3;
const T: usize = 6;
const I: usize = 4;

/// A model with weights that are not the initial ones, so that biases count.
fn model(name: &str, config: &NetworkConfig) -> Model {
    let mut numbers = Numbers(name.bytes().fold(7, |n, b| n * 31 + u64::from(b)));
    let mut weights = Weights::new();
    config
        .visit_weights(|name, dims| {
            let data = (0..dims.iter().product()).map(|_| numbers.next() * 0.8).collect();
            weights.insert(name, dims, data)
        })
        .unwrap();
    Model::new(name, Network::new(config, Arc::new(weights), &Device::Cpu).unwrap())
}

fn chain(layers: &[LayerConfig], features: usize) -> NetworkConfig {
    NetworkConfig::sequential(layers, &[None, None, Some(features)]).unwrap()
}

fn cells() -> Vec<(&'static str, Cell)> {
    let hard = Activation::HARD_SIGMOID_KERAS2;
    let lstm = Cell { gates: [hard, hard, hard], candidate: Activation::Softsign, ..Cell::LSTM };
    let scaled = Activation::ScaledTanh { alpha: 0.7, beta: 1.3 };
    vec![
        ("rnn", Cell::RNN),
        ("rnn_relu", Cell { candidate: Activation::Relu, ..Cell::RNN }),
        ("rnn_linear", Cell { candidate: Activation::Linear, ..Cell::RNN }),
        ("rnn_zoneout", Cell { zoneout: Some(Zoneout { h: 0.3, c: 0.0 }), ..Cell::RNN }),
        ("lstm", Cell::LSTM),
        ("lstm_hard", lstm),
        ("lstm_scaled", Cell { output: scaled, candidate: Activation::Elu { alpha: 0.4 }, ..Cell::LSTM }),
        ("lstm_mixed_gates", Cell { gates: [Activation::Sigmoid, hard, Activation::Softsign], ..Cell::LSTM }),
        ("lstm_peepholes", Cell { peepholes: true, ..Cell::LSTM }),
        ("lstm_coupled", Cell::with_kind(CellKind::Lstm { coupled: true })),
        ("lstm_clip", Cell { clip: Some(0.4), ..Cell::LSTM }),
        ("lstm_clip_output", Cell { clip: Some(0.2), clip_output: true, ..Cell::LSTM }),
        ("lstm_projection", Cell { projection: Some(2), ..Cell::LSTM }),
        ("lstm_norm", Cell { layer_norm: Some(1e-3), ..Cell::LSTM }),
        ("lstm_zoneout", Cell { zoneout: Some(Zoneout { h: 0.1, c: 0.4 }), peepholes: true, ..Cell::LSTM }),
        ("gru", Cell::GRU),
        ("gru_before", Cell::GRU_RESET_BEFORE),
        ("gru_before_mixed", Cell { gates: [hard, Activation::Sigmoid, hard], ..Cell::GRU_RESET_BEFORE }),
        ("gru_norm", Cell { layer_norm: Some(1e-3), ..Cell::GRU }),
        ("gru_leaky", Cell { candidate: Activation::LeakyRelu { alpha: 0.2 }, ..Cell::GRU }),
        ("indrnn", Cell::INDRNN),
        ("mingru", Cell { candidate: Activation::Positive, ..Cell::MINGRU }),
        ("minlstm", Cell::MINLSTM),
        ("slstm", Cell::with_kind(CellKind::SLstm { heads: 2, exponential_forget: false })),
        ("slstm_exponential", Cell::with_kind(CellKind::SLstm { heads: 1, exponential_forget: true })),
    ]
}

fn spec(cell: Cell, change: impl FnOnce(&mut RecurrentSpec)) -> LayerConfig {
    let mut spec = RecurrentSpec::new(cell, 4);
    change(&mut spec);
    LayerConfig::Recurrent(spec)
}

/// The states of each layer, by the names that an exported file has for them.
fn states(model: &Model, numbers: &mut Numbers) -> Vec<(String, HostArray)> {
    let bytes = model.to_onnx(&ExportOptions { states: true, ..ExportOptions::default() }).unwrap();
    let file = OnnxModel::from_bytes(bytes, &Device::Cpu).unwrap();
    let state = |n: &str| n.ends_with("_in");
    let sized = |i: &recurve::OnnxValue| {
        let dims: Vec<usize> = i.kind.dims.iter().map(|d| d.size().unwrap_or(B)).collect();
        dims
    };
    let own = file.inputs().iter().filter(|i| state(&i.name));
    // n of an sLSTM is a sum of positive numbers.
    own.map(|i| {
        (i.name.clone(), {
            let mut a = numbers.array(&sized(i), 0.5);
            positive(&mut a);
            a
        })
    })
    .collect()
}

fn positive(a: &mut HostArray) {
    if let HostData::Float(v) = &mut a.data {
        v.iter_mut().for_each(|v| *v = v.abs() + 0.1);
    }
}

fn cases() -> Vec<Case> {
    let mut numbers = Numbers(1);
    let x = numbers.array(&[B, T, I], 1.5);
    let lengths = ints(&[B], &[6, 1, 4]);
    let mask = ints(&[B, T], &[1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1]);
    let plain = ExportOptions::default();
    let mut all = Vec::new();
    let mut add = |name: String, config: &NetworkConfig, options: ExportOptions, inputs: Vec<(&str, HostArray)>| {
        let model = model(&name, config);
        let mut inputs: Vec<(String, HostArray)> = inputs.into_iter().map(|(n, a)| (n.to_owned(), a)).collect();
        if options.states {
            inputs.extend(states(&model, &mut numbers));
        }
        all.push(Case { name, model, options, inputs });
    };
    for (name, cell) in cells() {
        let x = || ("input", x.clone());
        let last = chain(&[spec(cell, |_| {})], I);
        add(format!("{name}/last"), &last, plain, vec![x()]);
        let both = spec(cell, |s| {
            s.bidirectional = Some(Merge::Concat);
            s.num_layers = 2;
            s.return_sequences = true;
            s.return_state = true;
        });
        let counted = ExportOptions { lengths: true, ..plain };
        add(format!("{name}/lengths"), &chain(&[both], I), counted, vec![x(), ("lengths", lengths.clone())]);
        let back = spec(cell, |s| {
            s.go_backwards = true;
            s.return_sequences = true;
            s.zero_output_for_mask = true;
        });
        let masked = ExportOptions { mask: true, ..plain };
        add(format!("{name}/mask"), &chain(&[back], I), masked, vec![x(), ("mask", mask.clone())]);
        let stream = spec(cell, |s| s.return_sequences = true);
        add(format!("{name}/states"), &chain(&[stream], I), ExportOptions { states: true, ..plain }, vec![x()]);
    }

    let ids = ints(&[B, T], &[3, 1, 4, 1, 5, 0, 2, 6, 5, 0, 0, 0, 0, 3, 5, 8, 0, 7]);
    let tagger = [
        Embedding::new(9, 5).mask_zero(true).into(),
        Bidirectional::new(Lstm::new(4).return_sequences(true)).into(),
        Dropout::new(0.5).into(),
        Bidirectional::new(Gru::new(3)).merge_mode(Merge::Multiply).into(),
        Dense::new(3).activation(Activation::Tanh).into(),
    ];
    let config = NetworkConfig::sequential(&tagger, &[None, None]).unwrap();
    add("tagger".into(), &config, plain, vec![("input", ids.clone())]);
    let config = NetworkConfig::sequential(&tagger, &[Some(B), Some(T)]).unwrap();
    add("tagger_fixed".into(), &config, plain, vec![("input", ids)]);
    let mut holes = x.clone();
    if let HostData::Float(v) = &mut holes.data {
        v.chunks_mut(I).step_by(4).for_each(|row| row.fill(0.0));
    }
    let layers = [
        Masking::new(0.0).into(),
        SimpleRnn::new(3).return_sequences(true).into(),
        TimeDistributed::new(Dense::new(2)).into(),
        StackedRnnCells::new().add(Gru::new(3)).add(Gru::new(4)).return_sequences(true).into(),
        Lstm::new(3).into(),
    ];
    add("masking".into(), &chain(&layers, I), plain, vec![("input", holes)]);
    for storage in [WeightStorage::F16, WeightStorage::Int8] {
        let layer = spec(Cell::LSTM, |s| s.weight_storage = storage);
        add(format!("lstm_{storage:?}"), &chain(&[layer], I), plain, vec![("input", x.clone())]);
    }
    let stateful = spec(Cell::GRU, |s| s.stateful = true);
    let config = NetworkConfig::sequential(&[stateful], &[Some(B), None, Some(I)]).unwrap();
    add("stateful".into(), &config, ExportOptions { states: true, ..plain }, vec![("input", x.clone())]);
    let major = spec(Cell::LSTM, |s| {
        s.time_major = true;
        s.return_sequences = true;
    });
    add("time_major".into(), &chain(&[major], I), plain, vec![("input", x.clone())]);

    let mut net = Functional::new();
    let (source, target) = (net.input("source", &[None, None, Some(I)]), net.ids("target", &[None, None]));
    let words = net.add(Embedding::new(7, 4), &[&target]).unwrap();
    let code = net.add(Lstm::new(5).return_state(true), &[&source]).unwrap();
    let y = net.add(Lstm::new(5).return_sequences(true), &[&words[0], &code[1], &code[2]]).unwrap();
    let twice = net.layer("twice", Gru::new(5).return_sequences(true));
    let a = net.call(twice, &[&y[0]]).unwrap().remove(0);
    let b = net.call(twice, &[&a]).unwrap().remove(0);
    let sum = net.add(recurve::Average::new(), &[&a, &b, &y[0]]).unwrap().remove(0);
    net.output("logits", &sum).output("memory", &code[2]);
    let target = ints(&[B, 4], &[1, 2, 3, 4, 5, 6, 0, 1, 1, 1, 2, 2]);
    add("functional".into(), net.config(), plain, vec![("source", x), ("target", target)]);
    all
}

/// The devices on which a case runs.
fn devices_of(case: &Case) -> impl Iterator<Item = Device> {
    let storage = case.name.strip_prefix("lstm_").unwrap_or_default().to_owned();
    devices().into_iter().filter(move |d| match storage.as_str() {
        // GPUs have no int8 weights.
        "Int8" => d.gpu().is_none(),
        "F16" => has_f16(d),
        _ => true,
    })
}

/// The outputs of Recurve itself, by the names in the file.
fn own(case: &Case, device: &Device) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let model = case.model.to_device(device).unwrap();
    let is_state = |name: &String| name.ends_with("_in");
    let inputs = case.inputs.iter().filter(|(n, _)| !is_state(n)).map(|(n, a)| (n.as_str(), a.clone()));
    let inputs = model.inputs(inputs).unwrap();
    let given: Vec<&(String, HostArray)> = case.inputs.iter().filter(|(n, _)| is_state(n)).collect();
    let tensor = |a: &HostArray| Tensor::from_f32(&a.to_f32(), &a.shape, device).unwrap();
    let mut states: Vec<State> = Vec::new();
    for (name, a) in &given {
        match name.strip_suffix("_in").unwrap().rsplit_once('_').unwrap().1 {
            "h" => states.push(State { h: tensor(a), c: None }),
            _ => states.last_mut().unwrap().c = Some(tensor(a)),
        }
    }
    let start = (!states.is_empty()).then(|| NetworkState::from(states));
    let args = CallArgs { ignore_memory: true, ..inputs.args() };
    let (outputs, end) = model.network().forward_named_from(&inputs.named(), &args, start.as_ref()).unwrap();
    let read = |t: &Tensor| (t.dims().to_vec(), t.to_vec().unwrap());
    let names = case.model.info().network.outputs.iter().map(|o| o.name.clone());
    let mut all: BTreeMap<_, _> = names.zip(outputs.iter().map(read)).collect();
    if case.options.states {
        let ends = end.states().iter().flat_map(|s| std::iter::once(&s.h).chain(&s.c));
        all.extend(
            given
                .iter()
                .zip(ends)
                .map(|((name, _), t)| (format!("{}_out", name.strip_suffix("_in").unwrap()), read(t))),
        );
    }
    all
}

fn sum_of(bytes: &[u8]) -> i64 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    i64::from(crc.sum())
}

/// Both sides compute in f32, in another order; states of hundreds never come up.
const TOLERANCE: Tolerance = Tolerance::new(1e-5);

#[test]
fn onnx_runtime_computes_the_same() {
    let mut outputs = 0;
    for case in cases() {
        let expected = |name: &str| npz_from_bytes(EXPECTED, &format!("{}/{name}", case.name)).unwrap();
        let bytes = case.model.to_onnx(&case.options).unwrap();
        let HostData::Int(crc) = expected("crc").data else { panic!("a number") };
        assert_eq!(crc, [sum_of(&bytes)], "{}: other bytes than ONNX Runtime ran; run make_onnx_export.py", case.name);
        for device in devices_of(&case) {
            let own = own(&case, &device);
            for (name, (shape, y)) in &own {
                let want = expected(&format!("out/{name}"));
                assert_eq!(*shape, want.shape, "{}: {name}", case.name);
                compare(y, &want.to_f64(), TOLERANCE)
                    .unwrap_or_else(|e| panic!("{}: {name} on {device}: {e}", case.name));
                outputs += 1;
                // Another element must show.
                let mut wrong = want.to_f64();
                wrong[0] += 1e-3;
                assert!(compare(y, &wrong, TOLERANCE).is_err());
            }
        }
    }
    assert!(outputs > 2 * 160, "{outputs}");
}

#[test]
fn what_is_written_is_read_again() {
    for case in cases() {
        let bytes = case.model.to_onnx(&case.options).unwrap();
        for device in devices_of(&case) {
            let file = OnnxModel::from_bytes(bytes.clone(), &device).unwrap_or_else(|e| panic!("{}: {e}", case.name));
            let got = file
                .run(case.inputs.iter().map(|(n, a)| (n.as_str(), a)))
                .unwrap_or_else(|e| panic!("{} on {device}: {e}", case.name));
            let own = own(&case, &device);
            assert_eq!(got.len(), own.len(), "{}", case.name);
            for (name, y) in got {
                let (shape, want) = &own[&name];
                assert_eq!(y.shape, *shape, "{}: {name}", case.name);
                let want: Vec<f64> = want.iter().map(|&v| v.into()).collect();
                compare(&y.to_f32(), &want, TOLERANCE)
                    .unwrap_or_else(|e| panic!("{}: {name} on {device}: {e}", case.name));
            }
        }
    }
}

#[test]
fn states_are_wired_by_their_names() {
    let layers = [Lstm::new(3).return_sequences(true).into(), Gru::new(2).return_sequences(true).into()];
    let model = model("stream", &chain(&layers, I));
    let bytes = model.to_onnx(&ExportOptions { states: true, ..ExportOptions::default() }).unwrap();
    let file = OnnxModel::from_bytes(bytes, &Device::Cpu).unwrap();
    let pairs: Vec<_> = file.states().into_iter().map(|s| format!("{} {}", s.input, s.output)).collect();
    assert_eq!(pairs, ["lstm_h_in lstm_h_out", "lstm_c_in lstm_c_out", "gru_h_in gru_h_out"]);
}

#[test]
fn what_cannot_be_written_is_named() {
    let refused = |model: &Model, options: ExportOptions| match model.to_onnx(&options).unwrap_err() {
        Error::Export { node, message } => format!("{node}: {message}"),
        e => panic!("{e}"),
    };
    let plain = ExportOptions::default();
    let dense =
        Model::new("d", Sequential::new().add(Dense::new(2)).build(&[None, None, Some(3)], &Device::Cpu).unwrap());
    for (options, name) in [
        (ExportOptions { lengths: true, ..plain }, "lengths: is taken by no recurrent layer"),
        (ExportOptions { mask: true, ..plain }, "mask: is taken by no recurrent layer"),
        (ExportOptions { mask: true, lengths: true, ..plain }, "lengths: cannot be an input together with `mask`"),
    ] {
        let e = refused(&dense, options);
        assert!(e.starts_with(name), "{e}");
    }
    let stateful = spec(Cell::GRU, |s| s.stateful = true);
    let config = NetworkConfig::sequential(&[stateful], &[Some(B), None, Some(I)]).unwrap();
    let e = refused(&model("s", &config), plain);
    assert!(e.starts_with("gru: is stateful"), "{e}");
}

/// Writes every case for `golden/make_onnx_export.py`, which says where.
#[test]
#[ignore = "writes the files that ONNX Runtime runs"]
fn write_cases() {
    let folder = std::env::var("RECURVE_EXPORTS").expect("RECURVE_EXPORTS names a folder");
    for case in cases() {
        let folder = Path::new(&folder).join(case.name.replace('/', "__"));
        std::fs::create_dir_all(&folder).unwrap();
        let bytes = case.model.to_onnx(&case.options).unwrap();
        std::fs::write(folder.join("model.onnx"), &bytes).unwrap();
        std::fs::write(folder.join("crc"), sum_of(&bytes).to_string()).unwrap();
        for (name, a) in &case.inputs {
            let numbers: Vec<String> = match &a.data {
                HostData::Int(v) => v.iter().map(ToString::to_string).collect(),
                _ => a.to_f64().iter().map(|v| format!("{v:e}")).collect(),
            };
            let shape: Vec<String> = a.shape.iter().map(ToString::to_string).collect();
            std::fs::write(folder.join(format!("{name}.txt")), [shape.join(" "), numbers.join(" ")].join("\n"))
                .unwrap();
        }
    }
}
