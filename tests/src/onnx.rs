//! ONNX node tests: folders with `model.onnx` and `test_data_set_0/{input,output}_N.pb`, each with one RNN, GRU or LSTM
//! node. [`OnnxModel`] reads the node, and the kernels run it by each strategy, as it is or changed.

use crate::{How, SENTINEL, poison};
use recurve::testing::{Tolerance, compare};
use recurve::{
    Activation, Cell, CellKind, Device, Direction, DirectionWeights, Error, ForwardArgs, GateOrder, HostArray,
    HostData, OnnxModel, Recurrent, RecurrentConfig, Tensor, read_tensor,
};
use recurve_graph::{Constant, Source, ValueId, ops};
use std::path::{Path, PathBuf};

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
        let HostArray { shape: dims, data } = read_tensor(path).map_err(|e| failed(e.to_string()))?;
        if dims.contains(&0) {
            return refused(format!(
                "{} has shape {dims:?}: a dimension of 0, and there are no tensors without elements",
                path.display()
            ));
        }
        let data = match data {
            HostData::Float(v) => v,
            HostData::Int(v) => v.iter().map(|&v| v as f32).collect(),
            other => return Err(failed(format!("{} holds {other:?}", path.display()))),
        };
        Ok(Self { dims, data })
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
    batch_first: bool,
    hidden: usize,
    directions: Vec<Direction>,
    /// The inputs X, W, R, B, sequence_lens, initial_h, initial_c, P.
    inputs: [Option<Array>; 8],
    /// The expected outputs Y, Y_h, Y_c.
    outputs: [Option<Array>; 3],
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
        let model = OnnxModel::open(path, &Device::Cpu).map_err(|e| match e {
            Error::Onnx { .. } => CaseError::Refused(e.to_string()),
            e => failed(e.to_string()),
        })?;
        let graph = model.graph();
        let [node] = graph.nodes() else {
            return refused(format!("the graph has {} nodes; a case is one RNN, GRU or LSTM", graph.nodes().len()));
        };
        let Some(rnn) = node.operator.as_any().downcast_ref::<ops::Rnn>() else {
            return refused(format!("operator {} is not RNN, GRU or LSTM", node.operator.name()));
        };
        let value = |id: ValueId| match &graph.value(id).source {
            Source::Input(n) => Array::read(&data.join(format!("input_{n}.pb"))),
            Source::Constant(c) => {
                let data = match c {
                    Constant::Float(v) => v.to_vec(),
                    Constant::Int(_, v) => v.iter().map(|&v| v as f32).collect(),
                    other => return refused(format!("a constant of {}", other.dtype())),
                };
                Ok(Array { dims: graph.value(id).kind.sizes().collect(), data })
            }
            other => Err(failed(format!("`{}` has no value: {other:?}", graph.value(id).name))),
        };
        let mut inputs = [const { None }; 8];
        for (id, place) in node.inputs.iter().zip([0, 4, 5, 6, 1, 2, 3, 7]) {
            inputs[place] = id.map(value).transpose()?;
        }
        let mut outputs = [const { None }; 3];
        for (id, slot) in node.outputs.iter().zip(&mut outputs) {
            if let Some(at) = graph.outputs().iter().position(|(_, o)| o == id) {
                *slot = Some(Array::read(&data.join(format!("output_{at}.pb")))?);
            }
        }
        let cell = |n: usize| rnn.directions[n].1;
        let case = Self {
            cells: [cell(0), cell(rnn.directions.len() - 1)],
            batch_first: rnn.batch_first,
            hidden: rnn.hidden_size,
            directions: rnn.directions.iter().map(|d| d.0).collect(),
            inputs,
            outputs,
        };
        case.check_shapes()?;
        Ok(case)
    }

    /// Checks every shape against the operator's definition, so that no later index can be out of range.
    fn check_shapes(&self) -> Result<(), CaseError> {
        let [x, w, r, b, lengths, h0, c0, p] = &self.inputs;
        let Some(&[x0, x1, input]) = x.as_ref().map(|x| &x.dims[..]) else {
            return refused("input X must have three dimensions");
        };
        let (d, h) = (self.directions.len(), self.hidden);
        let (rows, batch) = (self.cells[0].kind.gates() * h, if self.batch_first { x0 } else { x1 });
        let state = if self.batch_first { vec![batch, d, h] } else { vec![d, batch, h] };
        let wanted = [
            ("W", w, vec![d, rows, input]),
            ("R", r, vec![d, rows, h]),
            ("B", b, vec![d, 2 * rows]),
            ("sequence_lens", lengths, vec![batch]),
            ("initial_h", h0, state.clone()),
            ("initial_c", c0, state),
            ("P", p, vec![d, 3 * h]),
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
        Ok(())
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
            (self.batch_first, "batch first"),
            (!self.batch_first, "time major"),
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
        if self.cells[0] != plain || self.directions != [Direction::Forward] || self.batch_first {
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

        let batch_first = self.batch_first;
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
