//! ONNX node tests: folders with `model.onnx` and `test_data_set_0/{input,output}_N.pb`, each with one RNN, GRU or LSTM
//! node, which is run directly by the kernels.

use crate::{How, SENTINEL, poison};
use prost::Message;
use recurve::testing::{Tolerance, compare};
use recurve::{
    Activation, Cell, CellKind, Device, Direction, DirectionWeights, ForwardArgs, GateOrder, Recurrent,
    RecurrentConfig, Tensor,
};
use std::path::{Path, PathBuf};

// The parts of onnx.proto3 that these files use, with its field numbers.

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfoProto>,
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfoProto {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<AttributeProto>,
    #[prost(string, tag = "7")]
    domain: String,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(float, tag = "2")]
    f: f32,
    #[prost(int64, tag = "3")]
    i: i64,
    #[prost(bytes = "vec", tag = "4")]
    s: Vec<u8>,
    #[prost(float, repeated, tag = "7")]
    floats: Vec<f32>,
    #[prost(bytes = "vec", repeated, tag = "9")]
    strings: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(float, repeated, tag = "4")]
    float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    int32_data: Vec<i32>,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

/// A tensor of a case. Integers are converted to f32, which represents the lengths exactly.
#[derive(Clone, Debug)]
struct Array {
    dims: Vec<usize>,
    data: Vec<f32>,
}

/// The expected values are f32 computed by other programs, whose sums differ in their last bits.
pub const TOLERANCE: Tolerance = Tolerance::new(5e-6);

/// Why a case failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CaseError {
    /// The case was refused with a typed error: it uses something that Recurve does not support, or is not valid ONNX.
    #[error("refused: {0}")]
    Refused(String),
    /// The values are wrong, or the case cannot be read.
    #[error("{0}")]
    Failed(String),
}

fn refused<T>(message: impl Into<String>) -> Result<T, CaseError> {
    Err(CaseError::Refused(message.into()))
}

fn failed(message: impl Into<String>) -> CaseError {
    CaseError::Failed(message.into())
}

/// The result of `run`, with a panic treated as a failure, so that later cases run too.
///
/// # Errors
/// Those of `run`, or [`CaseError::Failed`] with the message of the panic.
pub fn caught<T>(run: impl FnOnce() -> Result<T, CaseError>) -> Result<T, CaseError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(failed(format!("panicked: {text}")))
    })
}

impl Array {
    fn read(path: &Path) -> Result<Self, CaseError> {
        let at = |e: &dyn std::fmt::Display| failed(format!("{}: {e}", path.display()));
        let bytes = std::fs::read(path).map_err(|e| at(&e))?;
        Self::of(TensorProto::decode(&*bytes).map_err(|e| at(&e))?)
    }

    fn of(t: TensorProto) -> Result<Self, CaseError> {
        let words = || t.raw_data.chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
        let data: Vec<f32> = match (t.data_type, t.raw_data.is_empty()) {
            (1, false) => words().map(f32::from_le_bytes).collect(),
            (1, true) => t.float_data,
            (6, false) => words().map(|b| i32::from_le_bytes(b) as f32).collect(),
            (6, true) => t.int32_data.iter().map(|&v| v as f32).collect(),
            (other, _) => return refused(format!("element type {other} is neither float nor int32")),
        };
        if t.dims.contains(&0) {
            return refused(format!(
                "`{}` has shape {:?}: a dimension of 0, and there are no tensors without elements",
                t.name, t.dims
            ));
        }
        let dims = t.dims.iter().map(|&d| usize::try_from(d)).collect::<Result<Vec<_>, _>>();
        match dims {
            Ok(dims) if dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)) == Some(data.len()) => {
                Ok(Self { dims, data })
            }
            _ => Err(failed(format!("`{}` of shape {:?} has {} elements", t.name, t.dims, data.len()))),
        }
    }
}

/// The two readings of `clip` and ThresholdedRelu: the text of the operators and ONNX Runtime differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reading {
    /// `clip` does not apply to the input of an LSTM's output activation; ThresholdedRelu(alpha) is 0.
    #[default]
    OnnxRuntime,
    /// `clip` applies to the inputs of all activations; ThresholdedRelu(alpha) is alpha.
    Specification,
}

/// A node with its inputs and expected outputs.
#[derive(Clone, Debug)]
pub struct OnnxCase {
    cells: [Cell; 2],
    layout: i64,
    hidden: usize,
    directions: Vec<Direction>,
    /// The inputs X, W, R, B, sequence_lens, initial_h, initial_c, P.
    inputs: [Option<Array>; 8],
    /// The expected outputs Y, Y_h, Y_c.
    outputs: [Option<Array>; 3],
}

/// The values of `activation_alpha` or `activation_beta`. Only the functions that have the parameter consume a value,
/// in order, as ONNX Runtime reads the specification.
struct Consumed<'a>(&'a [f32]);

impl Consumed<'_> {
    fn next(&mut self, default: f32) -> f32 {
        match self.0.split_first() {
            Some((&v, rest)) => {
                self.0 = rest;
                v
            }
            None => default,
        }
    }
}

fn activation(name: &str, alpha: &mut Consumed<'_>, beta: &mut Consumed<'_>) -> Result<Activation, CaseError> {
    // Names are compared without case, and the defaults are those of the ONNX operators.
    Ok(match name.to_ascii_lowercase().as_str() {
        "sigmoid" => Activation::Sigmoid,
        "tanh" => Activation::Tanh,
        "relu" => Activation::Relu,
        "softsign" => Activation::Softsign,
        "softplus" => Activation::Softplus,
        "hardsigmoid" => Activation::HardSigmoid { alpha: alpha.next(0.2), beta: beta.next(0.5) },
        "affine" => Activation::Affine { alpha: alpha.next(1.0), beta: beta.next(0.0) },
        "leakyrelu" => Activation::LeakyRelu { alpha: alpha.next(0.01) },
        "thresholdedrelu" => Activation::ThresholdedRelu { alpha: alpha.next(1.0) },
        "scaledtanh" => Activation::ScaledTanh { alpha: alpha.next(1.0), beta: beta.next(1.0) },
        "elu" => Activation::Elu { alpha: alpha.next(1.0) },
        other => return refused(format!("attribute `activations`: {other} is not supported")),
    })
}

/// The folders `test_data_set_N` of the cases below `folder`, in order.
///
/// # Errors
/// If a folder cannot be read.
pub fn cases(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut children: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|e| Ok(e?.path())).collect::<std::io::Result<_>>()?;
    children.sort();
    let here = folder.join("model.onnx").exists();
    let mut all = Vec::new();
    for child in children.into_iter().filter(|c| c.is_dir()) {
        let set = child.file_name().is_some_and(|n| n.to_string_lossy().starts_with("test_data_set_"));
        match (here, set) {
            (true, true) => all.push(child),
            (true, false) | (false, true) => {}
            (false, false) => all.extend(cases(&child)?),
        }
    }
    Ok(all)
}

impl OnnxCase {
    /// Reads a case from its data folder, `…/CASE/test_data_set_N`.
    ///
    /// # Errors
    /// Something is missing, damaged or not supported.
    pub fn read(data: &Path) -> Result<Self, CaseError> {
        let path = data.parent().ok_or_else(|| failed("a case is a folder"))?.join("model.onnx");
        let at = |e: &dyn std::fmt::Display| failed(format!("{}: {e}", path.display()));
        let bytes = std::fs::read(&path).map_err(|e| at(&e))?;
        let graph = ModelProto::decode(&*bytes).map_err(|e| at(&e))?.graph.ok_or_else(|| failed("no graph"))?;
        let [node] = &graph.node[..] else {
            return refused(format!("the graph has {} nodes; a case is one RNN, GRU or LSTM", graph.node.len()));
        };
        if !matches!(node.domain.as_str(), "" | "ai.onnx") {
            return refused(format!("operator {}.{} is not supported", node.domain, node.op_type));
        }
        let mut kind = match node.op_type.as_str() {
            "RNN" => CellKind::Rnn,
            "LSTM" => CellKind::Lstm { coupled: false },
            "GRU" => CellKind::Gru { reset_after: false },
            other => return refused(format!("operator {other} is not supported")),
        };
        let (mut clip, mut layout, mut hidden) = (None, 0, 0);
        let (mut names, mut alphas, mut betas) = (Vec::new(), Vec::new(), Vec::new());
        let mut directions = vec![Direction::Forward];
        for a in &node.attribute {
            match (a.name.as_str(), &mut kind) {
                ("hidden_size", _) => {
                    hidden = match usize::try_from(a.i) {
                        Ok(h) if h > 0 => h,
                        _ => return refused(format!("attribute `hidden_size` is {}", a.i)),
                    };
                }
                ("layout", _) if matches!(a.i, 0 | 1) => layout = a.i,
                ("clip", _) => clip = Some(a.f),
                ("direction", _) => {
                    directions = match &a.s[..] {
                        b"forward" => vec![Direction::Forward],
                        b"reverse" => vec![Direction::Reverse],
                        b"bidirectional" => vec![Direction::Forward, Direction::Reverse],
                        other => return refused(format!("attribute `direction`: {}", String::from_utf8_lossy(other))),
                    };
                }
                ("input_forget", CellKind::Lstm { coupled }) => *coupled = a.i != 0,
                ("linear_before_reset", CellKind::Gru { reset_after }) => *reset_after = a.i != 0,
                ("activations", _) => {
                    names = a.strings.iter().map(|s| String::from_utf8_lossy(s).into_owned()).collect();
                }
                ("activation_alpha", _) => alphas.clone_from(&a.floats),
                ("activation_beta", _) => betas.clone_from(&a.floats),
                (other, _) => return refused(format!("attribute `{other}` is not supported")),
            }
        }
        let per = match kind {
            CellKind::Rnn => 1,
            CellKind::Lstm { .. } => 3,
            _ => 2,
        };
        let mut cells = [Cell { clip, ..Cell::with_kind(kind) }; 2];
        if names.is_empty() && !(alphas.is_empty() && betas.is_empty()) {
            return refused("attribute `activation_alpha` or `activation_beta` without `activations`");
        }
        if !names.is_empty() {
            if names.len() != per * directions.len() {
                let wanted = per * directions.len();
                return refused(format!("attribute `activations` has {} functions, not {wanted}", names.len()));
            }
            let (mut alpha, mut beta) = (Consumed(&alphas), Consumed(&betas));
            for (cell, names) in cells.iter_mut().zip(names.chunks(per)) {
                let all = names.iter().map(|n| activation(n, &mut alpha, &mut beta)).collect::<Result<Vec<_>, _>>()?;
                match all[..] {
                    [f] => cell.candidate = f,
                    [f, g] => (cell.gates, cell.candidate) = ([f; 3], g),
                    [f, g, h, ..] => (cell.gates, cell.candidate, cell.output) = ([f; 3], g, h),
                    [] => {}
                }
            }
            if !(alpha.0.is_empty() && beta.0.is_empty()) {
                return refused("attribute `activation_alpha` or `activation_beta` has more values than are used");
            }
        }
        if directions.len() == 1 {
            cells[1] = cells[0];
        }

        // A value comes from a file, or from the model if it is a constant there.
        let constants = &graph.initializer;
        let fed: Vec<&str> =
            graph.input.iter().map(|i| i.name.as_str()).filter(|n| constants.iter().all(|c| c.name != *n)).collect();
        let mut inputs = [const { None }; 8];
        for (n, name) in node.input.iter().enumerate().filter(|(_, n)| !n.is_empty()) {
            let slot = inputs.get_mut(n).ok_or_else(|| failed("the node has too many inputs"))?;
            *slot = Some(match fed.iter().position(|i| i == name) {
                Some(at) => Array::read(&data.join(format!("input_{at}.pb")))?,
                None => {
                    // Several inputs may be the same constant.
                    let constant = constants.iter().find(|c| c.name == *name);
                    Array::of(constant.ok_or_else(|| failed(format!("`{name}` has no value")))?.clone())?
                }
            });
        }
        let mut outputs = [const { None }; 3];
        for (n, name) in node.output.iter().enumerate().filter(|(_, n)| !n.is_empty()) {
            let slot = outputs.get_mut(n).ok_or_else(|| failed("the node has too many outputs"))?;
            if let Some(at) = graph.output.iter().position(|o| o.name == *name) {
                *slot = Some(Array::read(&data.join(format!("output_{at}.pb")))?);
            }
        }
        let case = Self { cells, layout, hidden, directions, inputs, outputs };
        case.check_shapes()
    }

    /// Checks every shape against the operator's definition, so that no later index can be out of range, and determines
    /// the hidden size if the node does not state it.
    fn check_shapes(mut self) -> Result<Self, CaseError> {
        let [x, w, r, b, lengths, h0, c0, p] = &self.inputs;
        let (Some(x), Some(w), Some(r)) = (x, w, r) else { return refused("inputs X, W and R are required") };
        let (&[x0, x1, input], &[_, _, hidden]) = (&x.dims[..], &r.dims[..]) else {
            return refused("inputs X and R must have three dimensions");
        };
        if self.hidden == 0 {
            self.hidden = hidden;
        }
        if self.hidden != hidden {
            return refused(format!("attribute `hidden_size` is {}, but R has shape {:?}", self.hidden, r.dims));
        }
        let (d, h, kind) = (self.directions.len(), self.hidden, self.cells[0].kind);
        let (rows, batch) = (kind.gates() * h, if self.layout == 1 { x0 } else { x1 });
        let state = if self.layout == 1 { vec![batch, d, h] } else { vec![d, batch, h] };
        let wanted = [
            ("W", Some(w), vec![d, rows, input]),
            ("R", Some(r), vec![d, rows, h]),
            ("B", b.as_ref(), vec![d, 2 * rows]),
            ("sequence_lens", lengths.as_ref(), vec![batch]),
            ("initial_h", h0.as_ref(), state.clone()),
            ("initial_c", c0.as_ref(), state),
            ("P", p.as_ref(), vec![d, 3 * h]),
        ];
        for (name, array, dims) in wanted {
            if let Some(a) = array
                && a.dims != dims
            {
                return refused(format!("input {name} has shape {:?}, expected {dims:?}", a.dims));
            }
        }
        if let Some(l) = lengths
            && l.data.iter().any(|&v| v < 0.0)
        {
            return refused("input sequence_lens has a negative length");
        }
        Ok(self)
    }

    /// The same case with another reading of the operators; `None` if the reading makes no difference.
    pub fn read_as(&self, reading: Reading) -> Option<Self> {
        let mut other = self.clone();
        if reading == Reading::Specification {
            for cell in &mut other.cells {
                cell.clip_output = cell.clip.is_some() && matches!(cell.kind, CellKind::Lstm { .. });
                let functions = cell.gates.iter_mut().chain([&mut cell.candidate, &mut cell.output]);
                for f in functions {
                    if let Activation::ThresholdedRelu { alpha } = *f {
                        *f = Activation::thresholded_relu_from(alpha);
                    }
                }
            }
        }
        (other.cells != self.cells).then_some(other)
    }

    /// Runs [`Self::check`] with ONNX Runtime's reading and, if the values differ, with the reading of the
    /// specification. Never panics. Returns the largest error and the reading that agreed.
    ///
    /// # Errors
    /// As [`Self::check`] with ONNX Runtime's reading; [`CaseError::Failed`] for a panic.
    pub fn check_readings(
        &self,
        device: &Device,
        how: impl Into<How>,
        tolerance: Tolerance,
    ) -> Result<(f64, Reading), CaseError> {
        let how = how.into();
        let check = |case: &Self| caught(|| case.check(device, how, tolerance));
        match check(self) {
            Ok(worst) => Ok((worst, Reading::OnnxRuntime)),
            Err(CaseError::Failed(why)) => match self.read_as(Reading::Specification).map(|c| check(&c)) {
                Some(Ok(worst)) => Ok((worst, Reading::Specification)),
                _ => Err(CaseError::Failed(why)),
            },
            Err(e) => Err(e),
        }
    }

    /// The options that the case uses, for tables.
    pub fn options(&self) -> Vec<&'static str> {
        let [_, _, _, b, lengths, h0, c0, p] = &self.inputs;
        let cell = &self.cells[0];
        let mut all = vec![match cell.kind {
            CellKind::Rnn => "RNN",
            CellKind::Lstm { .. } => "LSTM",
            _ => "GRU",
        }];
        let usual = Cell::with_kind(cell.kind);
        let unusual =
            self.cells.iter().any(|c| (c.gates, c.candidate, c.output) != (usual.gates, usual.candidate, usual.output));
        let listed = [
            (self.directions == [Direction::Reverse], "reverse"),
            (self.directions.len() == 2, "bidirectional"),
            (b.is_some(), "bias"),
            (lengths.is_some(), "lengths"),
            (h0.is_some() || c0.is_some(), "initial state"),
            (p.is_some(), "peepholes"),
            (cell.clip.is_some(), "clip"),
            (unusual, "activations"),
            (cell.kind == CellKind::Lstm { coupled: true }, "input_forget"),
            (cell.kind == CellKind::Gru { reset_after: true }, "reset after the product"),
            (cell.kind == CellKind::Gru { reset_after: false }, "reset before the product"),
            (self.layout == 1, "batch first"),
            (self.layout == 0, "time major"),
        ];
        all.extend(listed.into_iter().filter(|(on, _)| *on).map(|(_, name)| name));
        all
    }

    /// The largest error of a plain forward LSTM, computed here in f64, against Y. This checks the meaning of `clip`:
    /// it clamps the inputs of the activations, or with `clamp_state` the cell state c, as one framework reads it.
    /// `None` for cases that use more than that.
    pub fn lstm_by_hand(&self, clamp_state: bool) -> Option<f64> {
        let [Some(x), Some(w), Some(r), Some(b), None, None, None, None] = &self.inputs else { return None };
        let plain = Cell { clip: self.cells[0].clip, ..Cell::LSTM };
        if self.cells[0] != plain || self.directions != [Direction::Forward] || self.layout != 0 {
            return None;
        }
        let limit = f64::from(plain.clip?);
        let (h, i, batch) = (self.hidden, x.dims[2], x.dims[1]);
        let at = |a: &Array, n: usize| f64::from(a.data[n]);
        let held = |on: bool, v: f64| if on { v.clamp(-limit, limit) } else { v };
        let sigmoid = |v: f64| 1.0 / (1.0 + (-held(!clamp_state, v)).exp());
        let y = self.outputs[0].as_ref()?;
        let mut worst = 0.0f64;
        for row in 0..batch {
            let (mut hs, mut cs) = (vec![0.0; h], vec![0.0; h]);
            for t in 0..x.dims[0] {
                // Gates i o f c, each with the biases Wb and Rb.
                let pre = |g: usize, j: usize| {
                    let k = g * h + j;
                    let from_x: f64 = (0..i).map(|n| at(w, k * i + n) * at(x, (t * batch + row) * i + n)).sum();
                    let from_h: f64 = (0..h).map(|n| at(r, k * h + n) * hs[n]).sum();
                    from_x + from_h + at(b, k) + at(b, 4 * h + k)
                };
                let next: Vec<(f64, f64)> = (0..h)
                    .map(|j| {
                        let g = held(!clamp_state, pre(3, j)).tanh();
                        let c = held(clamp_state, sigmoid(pre(2, j)) * cs[j] + sigmoid(pre(0, j)) * g);
                        (sigmoid(pre(1, j)) * c.tanh(), c)
                    })
                    .collect();
                (hs, cs) = next.into_iter().unzip();
                for (j, h_j) in hs.iter().enumerate() {
                    worst = worst.max((h_j - at(y, (t * batch + row) * h + j)).abs());
                }
            }
        }
        Some(worst)
    }

    /// For negative controls: changes the cell and the directions that were read.
    pub fn mutate(&mut self, mut change: impl FnMut(&mut Cell, &mut Vec<Direction>)) {
        for cell in &mut self.cells {
            change(cell, &mut self.directions);
        }
    }

    /// For negative controls: exchanges two gates in every weight.
    pub fn swap_gates(&mut self, a: usize, b: usize) {
        let (h, g) = (self.hidden, self.cells[0].kind.gates());
        for (input, blocks) in [(1, 1), (2, 1), (3, 2)] {
            if let Some(w) = &mut self.inputs[input] {
                let rows = self.directions.len() * blocks * g;
                let block = w.data.len() / rows;
                debug_assert_eq!(block % h, 0);
                for first in (0..rows).step_by(g) {
                    for n in 0..block {
                        w.data.swap((first + a) * block + n, (first + b) * block + n);
                    }
                }
            }
        }
    }

    /// For negative controls: removes the lengths. Returns whether there were any.
    pub fn drop_lengths(&mut self) -> bool {
        self.inputs[4].take().is_some()
    }

    /// Runs the case and compares all its outputs. Returns the largest error.
    ///
    /// # Errors
    /// What differs, or why the case cannot run.
    pub fn check(&self, device: &Device, how: impl Into<How>, tolerance: Tolerance) -> Result<f64, CaseError> {
        let How { strategy, tuned } = how.into();
        let [x, w, r, b, lengths, h0, c0, p] = &self.inputs;
        let (Some(x), Some(w), Some(r)) = (x, w, r) else { unreachable!("checked when the case was read") };
        let (d, h, kind) = (self.directions.len(), self.hidden, self.cells[0].kind);
        let rows = kind.gates() * h;
        let part = |a: &Array, n: usize| -> Vec<f32> {
            let len = a.data.len() / d;
            a.data[n * len..(n + 1) * len].to_vec()
        };
        let native = |v: &[f32]| GateOrder::Onnx.to_native(kind, v);
        let weights: Vec<_> = (0..d)
            .map(|n| {
                let bias = b.as_ref().map(|b| part(b, n)).unwrap_or_default();
                // P is in the order i o f; Recurve's peepholes are i f o.
                let peepholes = p.as_ref().map(|p| part(p, n)).unwrap_or_default();
                let peepholes = match peepholes.len() {
                    0 => peepholes,
                    _ => [0, 2, 1].iter().flat_map(|&g| peepholes[g * h..(g + 1) * h].to_vec()).collect(),
                };
                DirectionWeights {
                    w_ih: native(&part(w, n)),
                    w_hh: native(&part(r, n)),
                    b_ih: if bias.is_empty() { bias.clone() } else { native(&bias[..rows]) },
                    b_hh: if bias.is_empty() { bias } else { native(&bias[rows..]) },
                    peepholes,
                    ..DirectionWeights::default()
                }
            })
            .collect();
        let pairs: Vec<_> = self.directions.iter().copied().zip(&weights).collect();
        let [first, second] = self.cells.map(|cell| Cell { peepholes: p.is_some(), ..cell });
        let config = RecurrentConfig { second_cell: Some(second), ..RecurrentConfig::new(first, x.dims[2], h, &pairs) };

        let batch_first = self.layout == 1;
        let (batch, steps) = if batch_first { (x.dims[0], x.dims[1]) } else { (x.dims[1], x.dims[0]) };
        // Recurve refuses what it does not support with a typed error.
        let fail = |e: recurve::TensorError| CaseError::Refused(e.to_string());
        let tensor = |a: &Array| Tensor::from_f32(&a.data, &a.dims, device).map_err(fail);
        // With layout 1, states are [B, D, H].
        let state = |a: &Option<Array>| {
            let swap = |t: Tensor| if batch_first { t.transpose(&[1, 0, 2]) } else { Ok(t) };
            a.as_ref().map(|a| tensor(a).and_then(|t| swap(t).map_err(fail))).transpose()
        };
        let (h0, c0) = (state(h0)?, state(c0)?);
        let lengths = lengths
            .as_ref()
            .map(|l| Tensor::from_u32(&l.data.iter().map(|&v| v as u32).collect::<Vec<_>>(), &[batch], device))
            .transpose()
            .map_err(fail)?;
        poison(device, &[batch * steps * d * h, d * batch * h]);
        let layer = Recurrent::new(&config, device).map_err(fail)?;
        let args = ForwardArgs {
            h0: h0.as_ref(),
            c0: c0.as_ref(),
            lengths: lengths.as_ref(),
            time_major: !batch_first,
            strategy,
            ..ForwardArgs::default()
        };
        let x = tensor(x)?;
        if tuned {
            layer.tune(batch, steps).map_err(fail)?;
        }
        let out = layer.forward(&x, &args).map_err(fail)?;

        // Y is [T, D, B, H], or [B, T, D, H] with layout 1.
        let y = out.y.ok_or_else(|| failed("no outputs"))?;
        let y = if batch_first {
            y.reshape(&[batch, steps, d, h])
        } else {
            y.reshape(&[steps, batch, d, h]).and_then(|y| y.transpose(&[0, 2, 1, 3]))
        };
        let swap = |t: Tensor| if batch_first { t.transpose(&[1, 0, 2]) } else { Ok(t) };
        let got = [Some(y), Some(swap(out.h)), out.c.map(swap)];
        let mut worst = None;
        for ((name, got), want) in ["Y", "Y_h", "Y_c"].iter().zip(got).zip(&self.outputs) {
            let Some(want) = want else { continue };
            let got = got.ok_or_else(|| failed(format!("{name} is expected, but the cell has none")))?.map_err(fail)?;
            if got.dims() != want.dims {
                return Err(failed(format!("{name} has shape {}, expected {:?}", got.shape(), want.dims)));
            }
            let data = got.to_vec().map_err(fail)?;
            if data.contains(&SENTINEL) {
                return Err(failed(format!("{name} has elements that were never written")));
            }
            let want: Vec<f64> = want.data.iter().map(|&v| v.into()).collect();
            let a = compare(&data, &want, tolerance).map_err(|e| failed(format!("{name}: {e}")))?;
            worst = Some(a.worst_error.max(worst.unwrap_or(0.0)));
        }
        worst.ok_or_else(|| failed("no output to compare"))
    }
}
