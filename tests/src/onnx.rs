//! ONNX node tests: a folder with `model.onnx` and `test_data_set_0/{input,output}_N.pb`, one RNN,
//! GRU or LSTM node each, run at the level of cells.

use crate::{SENTINEL, poison};
use prost::Message;
use recurve::testing::{Tolerance, compare};
use recurve::{
    Activation, Cell, CellKind, Device, Direction, DirectionWeights, ForwardArgs, GateOrder, Recurrent,
    RecurrentConfig, Strategy, Tensor,
};
use std::path::Path;

// The parts of onnx.proto3 that these files use, by its field numbers.

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
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
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

/// A tensor of a case; integers are widened to f32, which holds the lengths exactly.
#[derive(Clone, Debug)]
struct Array {
    dims: Vec<usize>,
    data: Vec<f32>,
}

impl Array {
    fn read(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let t = TensorProto::decode(&*bytes).map_err(|e| format!("{}: {e}", path.display()))?;
        let words = || t.raw_data.chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
        let data = match (t.data_type, t.raw_data.is_empty()) {
            (1, false) => words().map(f32::from_le_bytes).collect(),
            (1, true) => t.float_data,
            (6, false) => words().map(|b| i32::from_le_bytes(b) as f32).collect(),
            (6, true) => t.int32_data.iter().map(|&v| v as f32).collect(),
            (other, _) => return Err(format!("{}: element type {other}", path.display())),
        };
        Ok(Self { dims: t.dims.iter().map(|&d| d as usize).collect(), data })
    }
}

/// A node with its inputs and expected outputs.
#[derive(Debug)]
pub struct OnnxCase {
    cell: Cell,
    layout: i64,
    hidden: usize,
    directions: Vec<Direction>,
    /// X, W, R, B, sequence_lens, initial_h, initial_c, P
    inputs: [Option<Array>; 8],
    /// Y, Y_h, Y_c
    outputs: [Option<Array>; 3],
}

fn activation(name: &str, alpha: Option<f32>, beta: Option<f32>) -> Result<Activation, String> {
    // Defaults of the ONNX operators.
    let (a, b) = (|d: f32| alpha.unwrap_or(d), |d: f32| beta.unwrap_or(d));
    Ok(match name {
        "Sigmoid" => Activation::Sigmoid,
        "Tanh" => Activation::Tanh,
        "Relu" => Activation::Relu,
        "Softsign" => Activation::Softsign,
        "Softplus" => Activation::Softplus,
        "HardSigmoid" => Activation::HardSigmoid { alpha: a(0.2), beta: b(0.5) },
        "Affine" => Activation::Affine { alpha: a(1.0), beta: b(0.0) },
        "LeakyRelu" => Activation::LeakyRelu { alpha: a(0.01) },
        "ThresholdedRelu" => Activation::ThresholdedRelu { alpha: a(1.0) },
        "ScaledTanh" => Activation::ScaledTanh { alpha: a(1.0), beta: b(1.0) },
        "Elu" => Activation::Elu { alpha: a(1.0) },
        other => return Err(format!("activation {other} is not supported")),
    })
}

impl OnnxCase {
    /// Reads a case.
    ///
    /// # Errors
    /// What is missing, damaged or not supported, in words.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let path = folder.join("model.onnx");
        let bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let graph = ModelProto::decode(&*bytes).map_err(|e| e.to_string())?.graph.ok_or("no graph")?;
        let [node] = &graph.node[..] else { return Err("not a single node".into()) };

        let mut kind = match node.op_type.as_str() {
            "RNN" => CellKind::Rnn,
            "LSTM" => CellKind::Lstm { coupled: false },
            "GRU" => CellKind::Gru { reset_after: false },
            other => return Err(format!("operator {other} is not supported")),
        };
        let (mut clip, mut layout, mut hidden) = (None, 0, 0);
        let (mut names, mut alphas, mut betas) = (Vec::new(), Vec::new(), Vec::new());
        let mut directions = vec![Direction::Forward];
        for a in &node.attribute {
            match (a.name.as_str(), &mut kind) {
                ("hidden_size", _) => hidden = a.i as usize,
                ("layout", _) => layout = a.i,
                ("clip", _) => clip = Some(a.f),
                ("direction", _) => {
                    directions = match &a.s[..] {
                        b"forward" => vec![Direction::Forward],
                        b"reverse" => vec![Direction::Reverse],
                        b"bidirectional" => vec![Direction::Forward, Direction::Reverse],
                        other => return Err(format!("direction {other:?}")),
                    };
                }
                ("input_forget", CellKind::Lstm { coupled }) => *coupled = a.i != 0,
                ("linear_before_reset", CellKind::Gru { reset_after }) => *reset_after = a.i != 0,
                ("activations", _) => {
                    names = a.strings.iter().map(|s| String::from_utf8_lossy(s).into_owned()).collect();
                }
                ("activation_alpha", _) => alphas.clone_from(&a.floats),
                ("activation_beta", _) => betas.clone_from(&a.floats),
                (other, _) => return Err(format!("attribute {other} is not supported")),
            }
        }
        let mut cell = Cell { clip, ..Cell::with_kind(kind) };
        if !names.is_empty() {
            let per = names.len() / directions.len();
            if names.chunks(per).any(|n| n != &names[..per]) {
                return Err("activations that differ by direction are not supported".into());
            }
            let at = |n: usize| activation(&names[n], alphas.get(n).copied(), betas.get(n).copied());
            match kind {
                CellKind::Rnn => cell.candidate = at(0)?,
                _ => {
                    cell.gate = at(0)?;
                    cell.candidate = at(1)?;
                    if per > 2 {
                        cell.output = at(2)?;
                    }
                }
            }
        }

        let data = folder.join("test_data_set_0");
        let mut inputs = [const { None }; 8];
        for (n, name) in node.input.iter().enumerate().filter(|(_, n)| !n.is_empty()) {
            let at = graph.input.iter().position(|i| i.name == *name).ok_or("an input without a value")?;
            inputs[n] = Some(Array::read(&data.join(format!("input_{at}.pb")))?);
        }
        let mut outputs = [const { None }; 3];
        for (n, name) in node.output.iter().enumerate().filter(|(_, n)| !n.is_empty()) {
            let at = graph.output.iter().position(|o| o.name == *name).ok_or("an output without a value")?;
            outputs[n] = Some(Array::read(&data.join(format!("output_{at}.pb")))?);
        }
        Ok(Self { cell, layout, hidden, directions, inputs, outputs })
    }

    /// Changes the case's own reading of a node, for negative controls.
    pub fn mutate(&mut self, change: impl FnOnce(&mut Cell, &mut Vec<Direction>)) {
        change(&mut self.cell, &mut self.directions);
    }

    /// Exchanges two gates in every weight, for negative controls.
    pub fn swap_gates(&mut self, a: usize, b: usize) {
        let (h, g) = (self.hidden, self.cell.kind.gates());
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

    /// Forgets the lengths, for negative controls. Returns whether there were any.
    pub fn drop_lengths(&mut self) -> bool {
        self.inputs[4].take().is_some()
    }

    /// Runs the case and compares every output it has.
    ///
    /// # Errors
    /// What differs, or what could not be run.
    pub fn check(&self, device: &Device, strategy: Strategy, tolerance: Tolerance) -> Result<(), String> {
        let [x, w, r, b, lengths, h0, c0, p] = &self.inputs;
        let (x, w, r) = (x.as_ref().ok_or("no X")?, w.as_ref().ok_or("no W")?, r.as_ref().ok_or("no R")?);
        let (d, h, kind) = (self.directions.len(), self.hidden, self.cell.kind);
        let rows = kind.gates() * h;
        let part = |a: &Array, n: usize| -> Vec<f32> {
            let len = a.data.len() / d;
            a.data[n * len..(n + 1) * len].to_vec()
        };
        let native = |v: &[f32]| GateOrder::Onnx.to_native(kind, v);
        let weights: Vec<_> = (0..d)
            .map(|n| {
                let bias = b.as_ref().map(|b| part(b, n)).unwrap_or_default();
                // P is i o f; ours is i f o.
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
                }
            })
            .collect();
        let pairs: Vec<_> = self.directions.iter().copied().zip(&weights).collect();
        let input = *x.dims.last().ok_or("X has no shape")?;
        let config = RecurrentConfig { cell: self.cell, input_size: input, hidden_size: h, directions: &pairs };

        let batch_first = self.layout == 1;
        let (batch, steps) = if batch_first { (x.dims[0], x.dims[1]) } else { (x.dims[1], x.dims[0]) };
        let fail = |e: recurve::TensorError| e.to_string();
        let tensor = |a: &Array| Tensor::from_f32(&a.data, &a.dims, device).map_err(fail);
        // With layout 1 states are [B, D, H].
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
        let out = layer.forward(&tensor(x)?, &args).map_err(fail)?;

        // ONNX has Y as [T, D, B, H], or [B, T, D, H] with layout 1.
        let y = out.y.ok_or("no outputs")?;
        let y = if batch_first {
            y.reshape(&[batch, steps, d, h])
        } else {
            y.reshape(&[steps, batch, d, h]).and_then(|y| y.transpose(&[0, 2, 1, 3]))
        };
        let swap = |t: Tensor| if batch_first { t.transpose(&[1, 0, 2]) } else { Ok(t) };
        let got = [Some(y), Some(swap(out.h)), out.c.map(swap)];
        let mut compared = 0;
        for ((name, got), want) in ["Y", "Y_h", "Y_c"].iter().zip(got).zip(&self.outputs) {
            let Some(want) = want else { continue };
            let got = got.ok_or(format!("{name} is expected, but the cell has none"))?.map_err(fail)?;
            if got.dims() != want.dims {
                return Err(format!("{name} has shape {}, expected {:?}", got.shape(), want.dims));
            }
            let data = got.to_vec().map_err(fail)?;
            if data.contains(&SENTINEL) {
                return Err(format!("{name} has elements that were never written"));
            }
            let want: Vec<f64> = want.data.iter().map(|&v| v.into()).collect();
            compare(&data, &want, tolerance).map_err(|e| format!("{name}: {e}"))?;
            compared += 1;
        }
        if compared == 0 { Err("no output to compare".into()) } else { Ok(()) }
    }
}
