//! Cases with expected values from other frameworks: PyTorch, Keras, cells from papers, and ONNX nodes. The tests run
//! them, and the conformance table counts them.

use crate::onnx::{self, CaseError, OnnxCase};
use crate::{Arrays, Golden, How, fixtures, golden, poison, wide};
use recurve::testing::{Tolerance, compare};
use recurve::{
    Activation, Bidirectional, CallArgs, CellKind, Dense, Device, Embedding, GateOrder, Gru, LayerConfig, LayerError,
    Lstm, Masking, Merge, Network, NetworkConfig, NetworkState, RecurrentLayer, RecurrentSpec, SimpleRnn,
    StackedRnnCells, State, Tensor, TensorError, TimeDistributed, Weights,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The expected values were rounded to f32; Recurve's results contain the kernels' own rounding errors.
pub const TOLERANCE: Tolerance = Tolerance::new(3e-6);

/// Layer normalization divides by a standard deviation that may be small, which magnifies rounding errors.
const NORMALISED: Tolerance = Tolerance::new(1e-5);

/// With exponential gates, the rounding error of a sum becomes a relative error: a few ULP of sums of about 4.
const EXPONENTIAL: Tolerance = Tolerance::new(1e-5);

/// The same for sums of about 200.
const EXTREME: Tolerance = Tolerance::new(2e-4);

/// A case from a framework.
#[derive(Clone, Debug)]
pub struct Parity {
    /// Its name.
    pub name: String,
    /// The options that it uses.
    pub options: Vec<String>,
    subject: Subject,
}

#[derive(Clone, Debug)]
enum Subject {
    Layer(LayerCase),
    Network(NetworkCase),
    Onnx(std::path::PathBuf),
}

/// A layer called as in PyTorch.
#[derive(Clone, Debug)]
struct LayerCase {
    spec: RecurrentSpec,
    weights: Weights,
    arrays: Arrays,
}

/// Layers called as in Keras.
#[derive(Clone, Debug)]
struct NetworkCase {
    configs: Vec<LayerConfig>,
    weights: Weights,
    x: Golden,
    mask: Option<Golden>,
    states: Vec<Golden>,
    calls: u64,
    want: Vec<Golden>,
}

impl Parity {
    /// Runs the case and compares all outputs. Returns the largest error.
    ///
    /// # Errors
    /// What differs, or why the case cannot run.
    pub fn check(&self, device: &Device, how: impl Into<How>) -> Result<f64, CaseError> {
        self.check_mutated(device, how, &mut |_, _| ())
    }

    /// For negative controls: [`Self::check`] after a change to the description and the weights of every recurrent
    /// layer. No effect on ONNX cases.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn check_mutated(
        &self,
        device: &Device,
        how: impl Into<How>,
        change: &mut dyn FnMut(&mut RecurrentSpec, &mut Weights),
    ) -> Result<f64, CaseError> {
        let how = how.into();
        match &self.subject {
            Subject::Layer(c) => c.check(device, how, change),
            Subject::Network(c) => c.check(device, how, change),
            Subject::Onnx(folder) => Ok(OnnxCase::read(folder)?.check_readings(device, how, onnx::TOLERANCE)?.0),
        }
    }
}

fn fail(e: impl std::fmt::Display) -> CaseError {
    CaseError::Failed(e.to_string())
}

/// If a strategy has no kernel for a layer, the case is refused and has not failed.
fn refuse(e: LayerError) -> CaseError {
    match e {
        LayerError::Tensor(TensorError::Argument { argument: "strategy", .. }) => CaseError::Refused(e.to_string()),
        e => fail(e),
    }
}

fn tensor(g: &Golden, device: &Device) -> Result<Tensor, CaseError> {
    Tensor::from_f32(&g.data, &g.shape, device).map_err(fail)
}

fn integers(g: &Golden, device: &Device) -> Result<Tensor, CaseError> {
    let v: Vec<u32> = g.data.iter().map(|&v| v as u32).collect();
    Tensor::from_u32(&v, &g.shape, device).map_err(fail)
}

fn agree(what: &str, got: &Tensor, want: &Golden, tolerance: Tolerance) -> Result<f64, CaseError> {
    if got.dims() != want.shape {
        return Err(fail(format!("{what} has shape {}, expected {:?}", got.shape(), want.shape)));
    }
    compare(&got.to_vec().map_err(fail)?, &wide(&want.data), tolerance)
        .map(|a| a.worst_error)
        .map_err(|e| fail(format!("{what}: {e}")))
}

impl LayerCase {
    fn check(
        &self,
        device: &Device,
        How { strategy, tuned }: How,
        change: &mut dyn FnMut(&mut RecurrentSpec, &mut Weights),
    ) -> Result<f64, CaseError> {
        let (mut spec, mut weights) = (self.spec.clone(), self.weights.clone());
        change(&mut spec, &mut weights);
        let a = &self.arrays;
        let input = *a["x"].shape.last().expect("x has dimensions");
        let layer = RecurrentLayer::new("case", &spec, input, &weights, "net", device).map_err(fail)?;
        let c0 = a.get("c0").map(|c| tensor(c, device)).transpose()?;
        let state = a.get("h0").map(|h| Ok(State { h: tensor(h, device)?, c: c0.clone() })).transpose()?;
        let [lengths, mask] = ["lengths", "mask"].map(|n| a.get(n).map(|l| integers(l, device)).transpose());
        let (lengths, mask) = (lengths?, mask?);
        let outputs: Vec<_> = ["y", "h", "c"].iter().filter_map(|n| a.get(*n)).collect();
        poison(device, &outputs.iter().map(|g| g.data.len()).collect::<Vec<_>>());
        let (lengths, mask) = (lengths.as_ref(), mask.as_ref());
        let args = CallArgs { state: state.as_ref(), lengths, mask, strategy, ..CallArgs::default() };
        let x = tensor(&a["x"], device)?;
        if tuned {
            let time = usize::from(!spec.time_major);
            layer.tune(x.dims()[1 - time], x.dims()[time]).map_err(refuse)?;
        }
        let (y, last) = layer.forward_with(&x, &args).map_err(refuse)?;
        let tolerance = match spec.cell.kind {
            CellKind::SLstm { .. } => {
                let extreme = a["weights.bias_ih_l0"].data.iter().any(|v| v.abs() > 100.0);
                if extreme { EXTREME } else { EXPONENTIAL }
            }
            _ if spec.cell.layer_norm.is_some() => NORMALISED,
            _ => TOLERANCE,
        };
        let mut worst = agree("y", &y, &a["y"], tolerance)?.max(agree("h", &last.h, &a["h"], tolerance)?);
        match (&last.c, a.get("c")) {
            (Some(c), Some(want)) => worst = worst.max(agree("c", c, want, tolerance)?),
            (None, None) => {}
            _ => return Err(fail("c is there where it is not expected, or the reverse")),
        }
        Ok(worst)
    }
}

impl NetworkCase {
    fn check(
        &self,
        device: &Device,
        How { strategy, tuned }: How,
        change: &mut dyn FnMut(&mut RecurrentSpec, &mut Weights),
    ) -> Result<f64, CaseError> {
        let (mut configs, mut weights) = (self.configs.clone(), self.weights.clone());
        for config in &mut configs {
            match config {
                LayerConfig::Recurrent(r) => change(r, &mut weights),
                LayerConfig::StackedRnnCells(s) => s.cells.iter_mut().for_each(|c| change(c, &mut weights)),
                _ => {}
            }
        }
        let ids = matches!(configs[0], LayerConfig::Embedding(_));
        let mut shape: Vec<Option<usize>> = self.x.shape.iter().map(|&d| Some(d)).collect();
        shape[0] = None;
        let config = NetworkConfig::sequential(&configs, &shape).map_err(fail)?;
        let network = Network::new(&config, Arc::new(weights), device).map_err(fail)?;
        let x = if ids { integers(&self.x, device)? } else { tensor(&self.x, device)? };
        let mask = self.mask.as_ref().map(|m| integers(m, device)).transpose()?;
        let state = self.state(&configs, device)?;
        let args = CallArgs { mask: mask.as_ref(), strategy, ..CallArgs::default() };
        poison(device, &self.want.iter().map(|g| g.data.len()).collect::<Vec<_>>());
        if tuned {
            network.tune(&[("input", &x)]).map_err(refuse)?;
        }
        let mut got = Vec::new();
        for _ in 0..self.calls {
            got = network.forward_from(&x, &args, state.as_ref()).map_err(refuse)?.0;
        }
        if got.len() != self.want.len() {
            return Err(fail(format!("{} outputs, expected {}", got.len(), self.want.len())));
        }
        let mut worst = 0.0f64;
        for (n, (got, want)) in got.iter().zip(&self.want).enumerate() {
            worst = worst.max(agree(&format!("output {n}"), got, want, TOLERANCE)?);
        }
        Ok(worst)
    }

    /// Converts Keras's list of initial states, direction by direction, to Recurve's.
    fn state(&self, configs: &[LayerConfig], device: &Device) -> Result<Option<NetworkState>, CaseError> {
        let LayerConfig::Recurrent(spec) = &configs[0] else { return Ok(None) };
        if self.states.is_empty() {
            return Ok(None);
        }
        let per = self.states.len() / spec.directions();
        let part = |offset: usize| {
            let all: Vec<&Golden> = self.states.iter().skip(offset).step_by(per).collect();
            let data: Vec<f32> = all.iter().flat_map(|g| g.data.clone()).collect();
            tensor(&Golden { shape: [&[all.len()], &all[0].shape[..]].concat(), data }, device)
        };
        let c = if per == 2 { Some(part(1)?) } else { None };
        Ok(Some(vec![State { h: part(0)?, c }].into()))
    }
}

/// The entry `cases` of a fixture's metadata.
fn described(file: &str) -> serde_json::Map<String, Value> {
    let bytes = std::fs::read(fixtures().join(file)).expect("the fixture is in the repository");
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).expect("a safetensors file");
    let text = &header.metadata().as_ref().expect("the fixture describes its cases")["cases"];
    serde_json::from_str(text).expect("the description is JSON")
}

fn module_weights(arrays: &Arrays) -> Weights {
    let mut weights = Weights::new();
    for (name, g) in arrays {
        if let Some(name) = name.strip_prefix("weights.") {
            weights.insert(format!("net.{name}"), &g.shape, g.data.clone()).expect("the shape is the data's");
        }
    }
    weights
}

fn words(v: &Value) -> Vec<String> {
    v.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Modules of PyTorch, opened by the names of their weights.
pub fn pytorch() -> Vec<Parity> {
    let all = golden("pytorch.safetensors");
    described("pytorch.safetensors")
        .into_iter()
        .map(|(name, case)| {
            let weights = module_weights(&all[case["net"].as_str().expect("a name")]);
            let open = match case["kind"].as_str().expect("a kind") {
                "lstm" => Lstm::from_weights,
                "gru" => Gru::from_weights,
                _ => SimpleRnn::from_weights,
            };
            let mut spec = open(&weights, "net", &Device::Cpu).expect("a module").spec().clone();
            // A state_dict contains neither the nonlinearity nor the layout; these come from the description.
            if case["nonlinearity"] == "relu" {
                spec.cell.candidate = Activation::Relu;
            }
            spec.time_major = case["batch_first"] == false;
            let kind = match case["kind"].as_str() {
                Some("lstm") => "LSTM",
                Some("gru") => "GRU",
                _ => "RNN",
            };
            let options = [vec![kind.to_owned()], words(&case["options"])].concat();
            let arrays = all[&name].clone();
            Parity { name, options, subject: Subject::Layer(LayerCase { spec, weights, arrays }) }
        })
        .collect()
}

/// Cells from papers that no framework has.
pub fn cells() -> Vec<Parity> {
    [layers("cells.safetensors"), slstm()].concat()
}

/// The sLSTM, from its paper's code.
pub fn slstm() -> Vec<Parity> {
    layers("slstm.safetensors")
}

/// `clip` and ThresholdedRelu as in ONNX Runtime and as in the text of the ONNX operators.
pub fn readings() -> Vec<Parity> {
    layers("clip.safetensors")
}

/// Layers that a fixture describes in the form of a model file.
fn layers(file: &str) -> Vec<Parity> {
    let all = golden(file);
    described(file)
        .into_iter()
        .map(|(name, case)| {
            let spec: RecurrentSpec = serde_json::from_value(case).expect("a description of a layer");
            let arrays = all[&name].clone();
            let c = &spec.cell;
            let kind = match c.kind.name() {
                "rnn" => "RNN".to_owned(),
                "lstm" => "LSTM".to_owned(),
                "gru" => "GRU".to_owned(),
                "indrnn" => "IndRNN".to_owned(),
                "mingru" => "minGRU".to_owned(),
                "slstm" => "sLSTM".to_owned(),
                _ => "minLSTM".to_owned(),
            };
            let listed = [
                (c.layer_norm.is_some(), "layer normalization"),
                (c.zoneout.is_some(), "zoneout"),
                (c.clip.is_some(), "clip"),
                (c.clip_output, "clip of the output activation"),
                (matches!(c.candidate, Activation::ThresholdedRelu { .. }), "activations"),
                (c.projection.is_some(), "proj_size"),
                (c.peepholes, "peepholes"),
                (matches!(c.kind, CellKind::SLstm { heads: 2.., .. }), "num_heads"),
                (matches!(c.kind, CellKind::SLstm { exponential_forget: true, .. }), "exponential forget gate"),
                (spec.bidirectional.is_some(), "bidirectional"),
                (arrays.contains_key("h0"), "initial state"),
            ];
            let options = std::iter::once(kind)
                .chain(listed.into_iter().filter(|(on, _)| *on).map(|(_, name)| name.to_owned()))
                .collect();
            let weights = module_weights(&arrays);
            Parity { name, options, subject: Subject::Layer(LayerCase { spec, weights, arrays }) }
        })
        .collect()
}

/// Converts Keras's `[in, G·H]` to Recurve's `[G·H, in]`, with gates in Recurve's order.
fn keras_matrix(order: &dyn Fn(&[f32]) -> Vec<f32>, g: &Golden) -> Vec<f32> {
    let (columns, rows) = (g.shape[0], g.shape[1]);
    let t: Vec<f32> = (0..rows * columns).map(|i| g.data[i % columns * rows + i / columns]).collect();
    order(&t)
}

/// Reads a recurrent layer's weights from Keras's list: kernel, recurrent kernel and bias of each direction; both
/// biases of a GRU with `reset_after` are one array `[2, 3·H]`.
fn keras_recurrent(into: &mut Weights, prefix: &str, spec: &RecurrentSpec, list: &mut impl Iterator<Item = Golden>) {
    let kind = spec.cell.kind;
    let order = |v: &[f32]| GateOrder::Keras.to_native(kind, v);
    let rows = kind.gates() * spec.units;
    for end in ["", "_reverse"].iter().take(spec.directions()) {
        let mut put = |name: &str, shape: &[usize], data: Vec<f32>| {
            into.insert(format!("{prefix}.{name}_l0{end}"), shape, data).expect("the shape is the data's");
        };
        for name in ["weight_ih", "weight_hh"] {
            let g = list.next().expect("a kernel");
            put(name, &[rows, g.shape[0]], keras_matrix(&order, &g));
        }
        if spec.bias != recurve::Bias::None {
            let g = list.next().expect("a bias");
            for (bias, name) in g.data.chunks_exact(rows).zip(["bias_ih", "bias_hh"]) {
                put(name, &[rows], order(bias));
            }
        }
    }
}

fn keras_dense(into: &mut Weights, prefix: &str, bias: bool, list: &mut impl Iterator<Item = Golden>) {
    let g = list.next().expect("a kernel");
    let shape = [g.shape[1], g.shape[0]];
    into.insert(format!("{prefix}.weight"), &shape, keras_matrix(&|v| v.to_vec(), &g)).expect("the data's shape");
    if bias {
        keep(into, &format!("{prefix}.bias"), list);
    }
}

/// Reads an array that Recurve has as Keras does; a number is an array of one.
fn keep(into: &mut Weights, name: &str, list: &mut impl Iterator<Item = Golden>) {
    let g = list.next().expect("an array");
    let shape = if g.shape.is_empty() { vec![1] } else { g.shape };
    into.insert(name, &shape, g.data).expect("the data's shape");
}

/// Reads a kernel `[window…, a, b]` as `[b, a, window…]`; of a depthwise convolution as `[a · b, 1, window…]`.
fn keras_kernel(into: &mut Weights, name: &str, depthwise: bool, list: &mut impl Iterator<Item = Golden>) {
    let g = list.next().expect("a kernel");
    let (window, last) = g.shape.split_at(g.shape.len() - 2);
    let (a, b, n) = (last[0], last[1], window.iter().product::<usize>());
    let at = |k: usize, i: usize, j: usize| g.data[(k * a + i) * b + j];
    let (shape, data): (_, Vec<f32>) = if depthwise {
        ([a * b, 1], (0..a * b * n).map(|m| at(m % n, m / n / b, m / n % b)).collect())
    } else {
        ([b, a], (0..a * b * n).map(|m| at(m % n, m / n % a, m / n / a)).collect())
    };
    into.insert(name, &[&shape[..], window].concat(), data).expect("the data's shape");
}

fn keras_activation(name: &str) -> Activation {
    match name {
        "relu" => Activation::Relu,
        "elu" => Activation::Elu { alpha: 1.0 },
        "softsign" => Activation::Softsign,
        "softplus" => Activation::Softplus,
        "linear" => Activation::Linear,
        "sigmoid" => Activation::Sigmoid,
        "hard_sigmoid" => Activation::HARD_SIGMOID_KERAS3,
        other => panic!("Keras's activation {other}"),
    }
}

fn keras_spec(kind: &str, units: usize, options: &Value) -> RecurrentSpec {
    let flag = |name: &str, default: bool| options.get(name).and_then(Value::as_bool).unwrap_or(default);
    macro_rules! build {
        ($layer:expr) => {{
            let mut l = $layer
                .return_sequences(flag("return_sequences", false))
                .return_state(flag("return_state", false))
                .go_backwards(flag("go_backwards", false))
                .stateful(flag("stateful", false))
                .zero_output_for_mask(flag("zero_output_for_mask", false))
                .use_bias(flag("use_bias", true));
            if let Some(f) = options.get("activation").and_then(Value::as_str) {
                l = l.activation(keras_activation(f));
            }
            l
        }};
    }
    let gates = options.get("recurrent_activation").and_then(Value::as_str).map(keras_activation);
    let gates = gates.unwrap_or(Activation::Sigmoid);
    match kind {
        "lstm" => build!(Lstm::new(units).recurrent_activation(gates)).into(),
        "gru" => build!(Gru::new(units).recurrent_activation(gates)).into(),
        "gru_before" => build!(Gru::new(units).recurrent_activation(gates).reset_after(false)).into(),
        _ => build!(SimpleRnn::new(units)).into(),
    }
}

/// The networks of `make_keras.py`.
fn keras_network(name: &str) -> Vec<LayerConfig> {
    match name {
        "mask_zero" => vec![
            Embedding::new(6, 4).mask_zero(true).into(),
            Lstm::new(3).return_sequences(true).into(),
            Gru::new(3).into(),
        ],
        "mask_zero_bi" => vec![
            Embedding::new(6, 4).mask_zero(true).into(),
            Bidirectional::new(Gru::new(3).return_sequences(true)).into(),
            Dense::new(2).into(),
        ],
        "masking" => {
            vec![Masking::new(0.0).into(), SimpleRnn::new(3).return_sequences(true).into(), Lstm::new(3).into()]
        }
        "masking_dense" => vec![
            Masking::new(0.0).into(),
            Dense::new(4).into(),
            Gru::new(3).return_sequences(true).into(),
            SimpleRnn::new(2).into(),
        ],
        "time_distributed" => vec![
            TimeDistributed::new(Dense::new(3)).into(),
            SimpleRnn::new(3).return_sequences(true).into(),
            TimeDistributed::new(Dense::new(2)).into(),
        ],
        "time_distributed_rnn" => vec![TimeDistributed::new(Gru::new(3)).into(), Lstm::new(2).into()],
        other => panic!("no network {other}"),
    }
}

/// Reads a layer's weights from those of Keras's layer, in its order and layout.
///
/// # Panics
/// If the list is too short.
pub fn keras_layer(weights: &mut Weights, prefix: &str, config: &LayerConfig, list: &mut impl Iterator<Item = Golden>) {
    let name = |part: &str| format!("{prefix}.{part}");
    macro_rules! kernel_and_bias {
        ($layer:expr, $depthwise:expr) => {{
            keras_kernel(weights, &name("weight"), $depthwise, list);
            if $layer.use_bias {
                keep(weights, &name("bias"), list);
            }
        }};
    }
    macro_rules! separable {
        ($layer:expr) => {{
            keras_kernel(weights, &name("depthwise.weight"), true, list);
            keras_kernel(weights, &name("pointwise.weight"), false, list);
            if $layer.use_bias {
                keep(weights, &name("pointwise.bias"), list);
            }
        }};
    }
    let mut each = |parts: &[(&str, bool)], list: &mut dyn Iterator<Item = Golden>| {
        let mut list = list;
        parts.iter().filter(|p| p.1).for_each(|(part, _)| keep(weights, &name(part), &mut list));
    };
    match config {
        LayerConfig::Recurrent(r) => keras_recurrent(weights, prefix, r, list),
        LayerConfig::StackedRnnCells(s) => {
            for (n, cell) in s.cells.iter().enumerate() {
                keras_recurrent(weights, &format!("{prefix}.cells.{n}"), cell, list);
            }
        }
        LayerConfig::TimeDistributed(t) => keras_layer(weights, prefix, &t.layer, list),
        LayerConfig::Dense(d) => keras_dense(weights, prefix, d.use_bias, list),
        LayerConfig::Embedding(_) | LayerConfig::PRelu(_) => each(&[("weight", true)], list),
        LayerConfig::Conv1d(c) => kernel_and_bias!(c, false),
        LayerConfig::Conv2d(c) => kernel_and_bias!(c, false),
        LayerConfig::Conv1dTranspose(c) => kernel_and_bias!(c, false),
        LayerConfig::Conv2dTranspose(c) => kernel_and_bias!(c, false),
        LayerConfig::DepthwiseConv1d(c) => kernel_and_bias!(c, true),
        LayerConfig::DepthwiseConv2d(c) => kernel_and_bias!(c, true),
        LayerConfig::SeparableConv1d(c) => separable!(c),
        LayerConfig::SeparableConv2d(c) => separable!(c),
        LayerConfig::BatchNormalization(b) => {
            let parts = [("weight", b.scale), ("bias", b.center), ("running_mean", true), ("running_var", true)];
            each(&parts, list);
        }
        LayerConfig::LayerNormalization(l) => {
            each(&[("weight", l.scale || l.rms_scaling), ("bias", l.center && !l.rms_scaling)], list);
        }
        LayerConfig::Attention(a) => {
            let concat = a.score_mode == recurve::ScoreMode::Concat;
            each(&[("scale", a.use_scale), ("concat_score_weight", concat)], list);
        }
        LayerConfig::AdditiveAttention(a) => each(&[("scale", a.use_scale)], list),
        _ => {}
    }
}

fn keras_weights(configs: &[LayerConfig], list: Vec<Golden>) -> Weights {
    let mut weights = Weights::new();
    let mut list = list.into_iter();
    for (n, config) in configs.iter().enumerate() {
        keras_layer(&mut weights, &format!("layers.{n}"), config, &mut list);
    }
    assert!(list.next().is_none(), "Keras has more weights than the layers");
    weights
}

/// Layers and networks of Keras.
pub fn keras() -> Vec<Parity> {
    let all = golden("keras.safetensors");
    let numbered = |arrays: Option<&Arrays>, letter: char| -> Vec<Golden> {
        (0..).map_while(|n| arrays.and_then(|a| a.get(&format!("{letter}{n}"))).cloned()).collect()
    };
    described("keras.safetensors")
        .into_iter()
        .map(|(name, case)| {
            let (kind, options) = (case["kind"].as_str().expect("a kind"), &case["options"]);
            let on = |flag: &str| options.get(flag).and_then(Value::as_bool).unwrap_or(false);
            let merge = case["merge"].as_str().unwrap_or_default();
            let configs = match kind {
                "network" => keras_network(case["name"].as_str().expect("a name")),
                "stack" => {
                    let mut stack = StackedRnnCells::new()
                        .return_sequences(on("return_sequences"))
                        .return_state(on("return_state"))
                        .go_backwards(on("go_backwards"));
                    for (cell, units) in words(&case["cells"]).iter().zip(case["units"].as_array().expect("units")) {
                        let units = units.as_u64().expect("a number") as usize;
                        stack = stack.add(keras_spec(cell, units, &Value::Null));
                    }
                    vec![stack.into()]
                }
                _ => {
                    let mut spec = keras_spec(kind, 3, options);
                    let merge = match merge {
                        "concat" => Some(Merge::Concat),
                        "sum" => Some(Merge::Sum),
                        "ave" => Some(Merge::Average),
                        "mul" => Some(Merge::Multiply),
                        "none" => Some(Merge::None),
                        _ => None,
                    };
                    if let Some(merge) = merge {
                        spec = Bidirectional::new(spec).merge_mode(merge).into();
                    }
                    vec![LayerConfig::Recurrent(spec)]
                }
            };
            let states = numbered(all.get(&name), 's');
            let mask = case["mask"].as_str();
            let padding = matches!(name.as_str(), n if n.starts_with("network_mask"));
            let class = match kind {
                "lstm" => "LSTM",
                "gru" | "gru_before" => "GRU",
                "rnn" => "RNN",
                "stack" => "stacked cells",
                _ => "networks",
            };
            let listed = [
                (kind == "gru", "reset after the product".to_owned()),
                (kind == "gru_before", "reset before the product".to_owned()),
                (on("return_sequences"), "return_sequences".into()),
                (on("return_state"), "return_state".into()),
                (on("go_backwards"), "go_backwards".into()),
                (on("stateful"), "stateful".into()),
                (on("zero_output_for_mask"), "zero_output_for_mask".into()),
                (mask.is_some(), format!("mask: {}", mask.unwrap_or_default())),
                (padding, "mask found by a layer".into()),
                (!merge.is_empty(), "bidirectional".into()),
                (!merge.is_empty(), format!("merge_mode {merge}")),
                (options.get("use_bias").is_none_or(|v| v != false), "bias".into()),
                (
                    options.get("activation").is_some() || options.get("recurrent_activation").is_some(),
                    "activations".into(),
                ),
                (!states.is_empty(), "initial state".into()),
                (name.starts_with("network_time_distributed"), "TimeDistributed".into()),
            ];
            let options = std::iter::once(class.to_owned())
                .chain(listed.into_iter().filter(|(on, _)| *on).map(|(_, name)| name))
                .collect();
            let input = |name: &str| all["inputs"][name].clone();
            let weights = keras_weights(&configs, numbered(all.get(case["net"].as_str().expect("a name")), 'w'));
            let subject = Subject::Network(NetworkCase {
                configs,
                weights,
                x: input(case["x"].as_str().expect("a name")),
                mask: mask.map(input),
                states,
                calls: case["calls"].as_u64().expect("a number"),
                want: numbered(all.get(&name), 'y'),
            });
            Parity { name, options, subject }
        })
        .collect()
}

/// Nodes of ONNX: its own tests, and random ones on which ONNX Runtime and numpy agree.
pub fn onnx() -> Vec<Parity> {
    nodes(&["onnx_node", "onnx_random"])
}

/// Nodes made from public bug reports.
pub fn reports() -> Vec<Parity> {
    nodes(&["onnx_reports"])
}

fn nodes(suites: &[&str]) -> Vec<Parity> {
    let mut all = Vec::new();
    for suite in suites {
        for folder in onnx::cases(&fixtures().join(suite)).expect("the fixtures are in the repository") {
            let case = OnnxCase::read(&folder).expect("a case that can be read");
            let name = folder.parent().and_then(|p| p.file_name()).map(|n| n.to_string_lossy().into_owned());
            all.push(Parity {
                name: format!("{suite}/{}", name.unwrap_or_default()),
                options: case.options().into_iter().map(str::to_owned).collect(),
                subject: Subject::Onnx(folder),
            });
        }
    }
    all
}

/// All cases by framework.
pub fn all() -> BTreeMap<&'static str, Vec<Parity>> {
    BTreeMap::from([
        ("ONNX", onnx()),
        ("reports", reports()),
        ("ONNX readings", readings()),
        ("PyTorch", pytorch()),
        ("Keras", keras()),
        ("papers", cells()),
    ])
}
