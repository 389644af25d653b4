//! One recurrent layer as ONNX's RNN, GRU and LSTM have it.

use super::gather_at::places;
use super::prelude::*;
use crate::operator::given;
use crate::{Data, HostInputs, IntArray, Packed};
use recurve_kernels::{ForwardArgs, Outputs as Wanted, RecurrentConfig, TokenTable, WeightSource};
use recurve_tensor::{Device, Error};
use recurve_vocabulary::{Cell, CellKind, Direction, DirectionWeights, GateOrder, MaskedOutput};
use smallvec::{SmallVec, smallvec};
use std::borrow::Cow;

const X: usize = 0;
const LENGTHS: usize = 1;
const H0: usize = 2;
const C0: usize = 3;
const W: usize = 4;
const R: usize = 5;
const B: usize = 6;
const P: usize = 7;

/// A recurrent layer of ONNX in one or two directions.
///
/// Inputs: `X` `[time, batch, features]`, `sequence_lens` `[batch]`, `initial_h` and of an LSTM `initial_c`
/// `[directions, batch, hidden]`; the weights `W` `[directions, gates · hidden, features]`, `R`
/// `[directions, gates · hidden, hidden]`, `B` `[directions, 2 · gates · hidden]`, of an LSTM the peepholes `P`
/// `[directions, 3 · hidden]`, with ONNX's order of gates (LSTM i o f c, GRU z r h). Outputs: `Y`
/// `[time, directions, batch, hidden]`, `Y_h` and `Y_c` `[directions, batch, hidden]`. With `batch_first`
/// (`layout` 1) the first two dimensions of `X` are exchanged, the states are `[batch, directions, hidden]` and `Y` is
/// `[batch, time, directions, hidden]`. A further input `table` is that of `tokens`.
///
/// Source: <https://onnx.ai/onnx/operators/onnx__LSTM.html> and its neighbours.
#[derive(Clone, Debug, PartialEq)]
pub struct Rnn {
    /// The directions, one or two, each with its cell; all of one kind.
    pub directions: Vec<(Direction, Cell)>,
    /// Hidden units.
    pub hidden_size: usize,
    /// ONNX's `layout` 1.
    pub batch_first: bool,
    /// Whether `Y` is `[time, batch, directions, hidden]`: a transposition is merged into the layer. Not with
    /// `batch_first`.
    pub merged: bool,
    /// Whether an embedding is merged into the layer.
    pub tokens: Option<Tokens>,
}

/// An embedding that is merged into a layer: `X` is then ids of two dimensions, and the input `table`
/// `[ids, features]` holds the features of each id. The table is multiplied by the input weights once, so that a run
/// looks up products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Whether the two dimensions of the ids are exchanged in the layer's input.
    pub turned: bool,
}

/// The packed layer on a device.
struct Ready {
    layer: recurve_kernels::Recurrent,
    /// The products of all ids, and their number.
    table: Option<(TokenTable, usize)>,
}

/// Ids as a node keeps them from run to run.
struct Ids {
    indices: IntArray,
    ids: Tensor,
}

impl Rnn {
    /// The index of the input `table`.
    pub(crate) const TABLE: usize = 8;

    /// The index of the first weight.
    pub(crate) const WEIGHTS: usize = W;

    fn kind(&self) -> CellKind {
        self.directions[0].1.kind
    }

    fn rows(&self) -> usize {
        self.kind().gates().saturating_mul(self.hidden_size)
    }

    /// The weights of each direction in Recurve's order; `matrix` makes a matrix of one whose gates are in ONNX's.
    fn weights<'a, T: Copy, M>(
        &self,
        [w, r, b, p]: [&'a [T]; 4],
        matrix: impl Fn(&'a [T]) -> M,
    ) -> Vec<DirectionWeights<T, M>> {
        let (count, h, kind) = (self.directions.len(), self.hidden_size, self.kind());
        let part = |all: &'a [T], n: usize| &all[all.len() / count * n..all.len() / count * (n + 1)];
        let native = |v: &[T]| GateOrder::Onnx.to_native(kind, v);
        let one = |n: usize| {
            let bias = part(b, n);
            let (b_ih, b_hh) = bias.split_at(bias.len() / 2);
            // P is i o f; ours is i f o.
            let peepholes = match part(p, n) {
                [] => Vec::new(),
                p => [0, 2, 1].iter().flat_map(|&g| p[g * h..(g + 1) * h].to_vec()).collect(),
            };
            DirectionWeights {
                b_ih: native(b_ih),
                b_hh: native(b_hh),
                peepholes,
                ..DirectionWeights::of(matrix(part(w, n)), matrix(part(r, n)), matrix(&[]))
            }
        };
        (0..count).map(one).collect()
    }

    /// The layer on a device.
    fn ready(&self, parts: [&[f32]; 4], device: &Device) -> Result<recurve_kernels::Recurrent> {
        let (count, rows) = (self.directions.len(), self.rows());
        let features = parts[0].len() / (count * rows).max(1);
        let wanted = [
            ("W", features.max(1).checked_mul(rows)),
            ("R", rows.checked_mul(self.hidden_size)),
            ("B", Some(if parts[2].is_empty() { 0 } else { 2 * rows })),
            ("P", Some(if parts[3].is_empty() { 0 } else { 3 * self.hidden_size })),
        ];
        for ((argument, each), got) in wanted.into_iter().zip(parts) {
            let wanted = each.and_then(|n| n.checked_mul(count));
            if wanted != Some(got.len()) {
                let message = format!(
                    "has {} elements, which do not fit {count} directions of {} hidden units",
                    got.len(),
                    self.hidden_size
                );
                return Err(Error::Argument { operation: self.name(), argument, message });
            }
        }
        let order = GateOrder::Onnx.to_native(self.kind(), &[0, 1, 2, 3][..self.kind().gates()]);
        let weights = self.weights(parts, |data| Gates { data, order: &order });
        let pairs: Vec<_> = self.directions.iter().map(|(d, _)| *d).zip(&weights).collect();
        let peepholes = !parts[3].is_empty();
        let cell = |n: usize| Cell { peepholes, ..self.directions[n].1 };
        let config = RecurrentConfig {
            second_cell: Some(cell(count - 1)),
            ..RecurrentConfig::new(cell(0), features, self.hidden_size, &pairs)
        };
        recurve_kernels::Recurrent::new(&config, device)
    }

    /// A state from ONNX's layout to the kernels', or back.
    fn state(&self, t: Tensor) -> Result<Tensor> {
        match *t.dims() {
            _ if !self.batch_first => Ok(t),
            // Nothing moves where a dimension is 1.
            [a, b, h] if a == 1 || b == 1 => t.reshape(&[b, a, h]),
            _ => t.transpose(&[1, 0, 2]),
        }
    }
}

impl Operator for Rnn {
    fn name(&self) -> &'static str {
        match self.kind() {
            CellKind::Lstm { .. } => "LSTM",
            CellKind::Gru { .. } => "GRU",
            _ => "RNN",
        }
    }
    fn slots(&self) -> &[Slot] {
        &[
            Slot::Required("X"),
            Slot::Optional("sequence_lens"),
            Slot::Optional("initial_h"),
            Slot::Optional("initial_c"),
            Slot::Required("W"),
            Slot::Required("R"),
            Slot::Optional("B"),
            Slot::Optional("P"),
            Slot::Optional("table"),
        ]
    }
    fn host_inputs(&self) -> Option<usize> {
        Some(W)
    }
    fn takes_any_weights(&self) -> bool {
        true
    }
    fn packs_like(&self, other: &dyn Operator) -> bool {
        // The order of the outputs does not matter to the weights.
        other.as_any().downcast_ref::<Self>().is_some_and(|o| Self { merged: self.merged, ..o.clone() } == *self)
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        if self.hidden_size == 0 {
            return Err(Fault::Attribute("hidden_size", "must be at least 1".into()));
        }
        let lstm = matches!(self.kind(), CellKind::Lstm { .. });
        for (n, words) in [(C0, "an LSTM's only"), (P, "an LSTM's only")] {
            if !lstm && inputs.get(n).copied().flatten().is_some() {
                return Err(Fault::Input(n, words.into()));
            }
        }
        let floats =
            if self.tokens.is_some() { &[H0, C0, W, R, B, P, Self::TABLE][..] } else { &[X, H0, C0, W, R, B, P] };
        for &n in floats {
            if inputs.get(n).copied().flatten().is_some_and(|t| t.dtype != DType::F32) {
                return Err(Fault::Input(n, "of a float type".into()));
            }
        }
        let (d, h, rows) = (self.directions.len(), self.hidden_size, self.rows());
        let x = given(inputs, X)?;
        let (first, second, features) = match (&x.dims[..], self.tokens) {
            ([a, b], Some(tokens)) => {
                let (_, features) = match &given(inputs, Self::TABLE)?.dims[..] {
                    [ids, features] => (ids, features.clone()),
                    _ => return Err(Fault::Input(Self::TABLE, "[ids, features]".into())),
                };
                let (a, b) = if tokens.turned { (b, a) } else { (a, b) };
                (a.clone(), b.clone(), features)
            }
            (_, Some(_)) => return Err(Fault::Input(X, "ids of two dimensions".into())),
            _ if x.unranked => (Dim::Any, Dim::Any, Dim::Any),
            ([a, b, f], None) => (a.clone(), b.clone(), f.clone()),
            _ => {
                return Err(Fault::Input(
                    X,
                    "[time, batch, features], or with layout 1 [batch, time, features]".into(),
                ));
            }
        };
        let (time, batch) = if self.batch_first { (second, first) } else { (first, second) };
        let fits = |n: usize, dims: &[Dim]| match inputs.get(n).copied().flatten() {
            Some(t) if !t.unranked => {
                let same = t.dims.len() == dims.len() && t.dims.iter().zip(dims).all(|(a, b)| a.meet(b).is_some());
                let shown = ValueType::new(t.dtype, dims.iter().cloned());
                if same { Ok(()) } else { Err(Fault::Input(n, shown.to_string())) }
            }
            _ => Ok(()),
        };
        let size = Dim::Size;
        let states =
            if self.batch_first { [batch.clone(), size(d), size(h)] } else { [size(d), batch.clone(), size(h)] };
        fits(LENGTHS, core::slice::from_ref(&batch))?;
        fits(H0, &states)?;
        fits(C0, &states)?;
        fits(W, &[size(d), size(rows), features])?;
        fits(R, &[size(d), size(rows), size(h)])?;
        fits(B, &[size(d), size(rows.saturating_mul(2))])?;
        fits(P, &[size(d), size(h.saturating_mul(3))])?;
        let y = match self.batch_first {
            true => [batch, time, size(d), size(h)],
            false if self.merged => [time, batch, size(d), size(h)],
            false => [time, size(d), batch, size(h)],
        };
        let f32 = |dims: &[Dim]| ValueType::new(DType::F32, dims.iter().cloned());
        Ok([f32(&y), f32(&states)].into_iter().chain(lstm.then(|| f32(&states))).collect())
    }
    fn pack(&self, host: &HostInputs<'_>, device: &Device) -> crate::Result<Option<Packed>> {
        let mut parts = [const { Cow::Borrowed(&[] as &[f32]) }; 4];
        for (n, part) in (W..Self::TABLE).zip(&mut parts) {
            if !host.is_given(n) {
                continue;
            }
            if !host.is_fixed(n) {
                return Ok(None);
            }
            *part = host.floats(n)?.unwrap_or_default();
        }
        let layer = self.ready(parts.each_ref().map(|v| &v[..]), device).map_err(|e| host.error(e))?;
        let table = match (self.tokens, host.tensor(Self::TABLE)?) {
            (Some(_), Some(rows)) => {
                let table = layer.token_table(&rows).map_err(|e| host.error(e))?;
                Some((table, rows.dims()[0]))
            }
            _ => None,
        };
        Ok(Some(Box::new(Ready { layer, table })))
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let made;
        let packed = call.packed.and_then(|p| p.downcast_ref::<Ready>());
        let layer = match packed {
            Some(packed) => &packed.layer,
            None => {
                // Weights that a run computes; those that stand in the graph come with them.
                let part = |n: usize| match call.get(n) {
                    Some(d) => d.to_f32(call.device)?.to_vec(),
                    None => Ok(Vec::new()),
                };
                let parts = [part(W)?, part(R)?, part(B)?, part(P)?];
                made = self.ready(parts.each_ref().map(|v| &v[..]), call.device)?;
                &made
            }
        };
        let table = packed.and_then(|p| p.table.as_ref());
        let x = match (table, self.tokens) {
            (Some((_, count)), Some(tokens)) => Cow::Owned(tokens.ids(call, *count)?),
            _ => call.floats(X)?,
        };
        let (first, second) = match *x.dims() {
            [first, second] if table.is_some() => (first, second),
            [first, second, _] => (first, second),
            _ => {
                let (operation, argument) = (self.name(), "X");
                let message = format!("must have three dimensions, but it is {}", x.shape());
                return Err(Error::Argument { operation, argument, message });
            }
        };
        let (batch, time) = if self.batch_first { (first, second) } else { (second, first) };
        let state = |n: usize| -> Result<Option<Tensor>> {
            call.get(n).map(|d| self.state(d.to_f32(call.device)?.into_owned())).transpose()
        };
        let (h0, c0) = (state(H0)?, state(C0)?);
        for (state, argument) in [(&h0, "initial_h"), (&c0, "initial_c")] {
            if let Some(&[_, rows, _]) = state.as_ref().map(Tensor::dims)
                && rows != batch
            {
                let message = format!(
                    "is of a batch of {rows}, but X is of {batch}; if it stands in the file, the file fixes the batch at {rows}"
                );
                return Err(Error::Argument { operation: self.name(), argument, message });
            }
        }
        let lengths = call.get(LENGTHS).map(|d| d.to_ints()?.to_ids(call.device)).transpose()?;
        if call.options.tune {
            layer.tune(batch, time)?;
        }
        let args = ForwardArgs {
            h0: h0.as_ref(),
            c0: c0.as_ref(),
            lengths: lengths.as_ref(),
            time_major: !self.batch_first,
            outputs: if call.wanted[0] { Wanted::All } else { Wanted::Last },
            strategy: call.options.strategy,
            ..ForwardArgs::default()
        };
        let out = match table {
            Some((table, _)) => layer.forward_tokens(&x, table, &args)?,
            None => layer.forward(&x, &args)?,
        };
        let (d, h) = (self.directions.len(), self.hidden_size);
        let y = out.y.map(|y| match self.batch_first {
            true => y.reshape(&[batch, time, d, h]),
            false if self.merged => y.reshape(&[time, batch, d, h]),
            false if d == 1 => y.reshape(&[time, 1, batch, h]),
            false => y.reshape(&[time, batch, d, h])?.transpose(&[0, 2, 1, 3]),
        });
        let y = y.transpose()?.map(Data::from);
        let c = out.c.map(|c| self.state(c)).transpose()?;
        Ok(smallvec![y, Some(self.state(out.h)?.into()), c.map(Data::from)])
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let get = |n: usize| inputs.get(n).copied().flatten();
        let turned = |a: &Array| match self.batch_first {
            true => Array::from_fn(&[a.dims[1], a.dims[0], a.dims[2]], |i| a.at(&[i[1], i[0], i[2]])),
            false => a.clone(),
        };
        // The truth about a recurrence has its input with the batch first.
        let x = match self.tokens {
            Some(tokens) => {
                let (ids, table) = (array(inputs, X), array(inputs, Self::TABLE));
                let count = table.dims[0] as f64;
                let places: Vec<f64> = ids.data.iter().map(|&i| if i < 0.0 { i + count } else { i }).collect();
                let places = Array::new(&ids.dims, places);
                let rows = recurve_reference::embedding(&table.data, table.last(), &places.ids());
                let rows = Array::new(&[ids.dims[0], ids.dims[1], table.last()], rows);
                if tokens.turned { swapped(&rows) } else { rows }
            }
            None => array(inputs, X).clone(),
        };
        let x = if self.batch_first { x } else { swapped(&x) };
        let &[batch, time, features] = &x.dims[..] else { unreachable!("checked to have three dimensions") };
        let (d, h) = (self.directions.len(), self.hidden_size);
        let data = |n: usize| get(n).map_or(&[][..], |a| &a.data[..]);
        let native = |m: &[f64]| GateOrder::Onnx.to_native(self.kind(), m);
        let weights = self.weights([data(W), data(R), data(B), data(P)], native);
        let lengths: Option<Vec<usize>> = get(LENGTHS).map(|l| l.data.iter().map(|&v| v as usize).collect());
        let (h0, c0) = (get(H0).map(turned), get(C0).map(turned));
        let outs: Vec<_> = (0..d)
            .map(|n| {
                let start = |a: &Option<Array>| a.as_ref().map(|a| a.data[n * batch * h..(n + 1) * batch * h].to_vec());
                let (h0, c0) = (start(&h0), start(&c0));
                recurve_reference::recurrence(&recurve_reference::Recurrence {
                    cell: Cell { peepholes: get(P).is_some(), ..self.directions[n].1 },
                    direction: self.directions[n].0,
                    weights: &weights[n],
                    x: &x.data,
                    batch,
                    timesteps: time,
                    input_size: features,
                    hidden_size: h,
                    h0: h0.as_deref(),
                    c0: c0.as_deref(),
                    lengths: lengths.as_deref(),
                    mask: None,
                    masked_output: MaskedOutput::Zero,
                })
            })
            .collect();
        let y = |n: usize, row: usize, t: usize, j: usize| outs[n].y[(row * time + t) * h + j];
        let all = match self.batch_first {
            true => Array::from_fn(&[batch, time, d, h], |i| y(i[2], i[0], i[1], i[3])),
            false if self.merged => Array::from_fn(&[time, batch, d, h], |i| y(i[2], i[1], i[0], i[3])),
            false => Array::from_fn(&[time, d, batch, h], |i| y(i[1], i[2], i[0], i[3])),
        };
        let ends = |parts: SmallVec<[&[f64]; 2]>| turned(&Array::new(&[d, batch, h], parts.concat()));
        let c = self.kind().has_cell_state().then(|| ends(outs.iter().map(|o| &o.c[..]).collect()));
        vec![Some(all), Some(ends(outs.iter().map(|o| &o.h[..]).collect())), c]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Tokens {
    /// The ids of a call as the layer reads them, the negative ones counted from the end of `count` rows.
    fn ids(self, call: &Call<'_>, count: usize) -> Result<Tensor> {
        let turned = |ids: Tensor| if self.turned { ids.transpose(&[1, 0]) } else { Ok(ids) };
        let indices = match call.data(X) {
            Data::Ints(i) => Cow::Borrowed(i),
            Data::Tensor(t) if t.dtype() == recurve_tensor::DType::U32 => return turned(t.clone()),
            other => Cow::Owned(other.to_ints()?),
        };
        let kept = call.kept(
            |k: &Ids| k.indices.is_same(&indices),
            || {
                let places = places("Gather", &indices, |_| count)?;
                let ids = turned(Tensor::from_i64(&places, indices.dims(), call.device)?)?;
                Ok(Ids { indices: (*indices).clone(), ids })
            },
        )?;
        Ok(kept.ids.clone())
    }
}

/// A matrix whose gates are in ONNX's order, read in Recurve's from where it is.
struct Gates<'a> {
    data: &'a [f32],
    /// Where Recurve's gates stand.
    order: &'a [usize],
}

impl WeightSource for Gates<'_> {
    fn count(&self) -> usize {
        self.data.len()
    }
    fn read(&self, start: usize, mut out: &mut [f32]) {
        let size = self.data.len() / self.order.len();
        let mut at = start;
        while !out.is_empty() {
            let (gate, within) = (self.order[at / size], at % size);
            let (part, rest) = out.split_at_mut(out.len().min(size - within));
            part.copy_from_slice(&self.data[gate * size + within..][..part.len()]);
            at += part.len();
            out = rest;
        }
    }
}

/// The first two axes exchanged.
fn swapped(a: &Array) -> Array {
    Array::from_fn(&[a.dims[1], a.dims[0], a.dims[2]], |i| a.at(&[i[1], i[0], i[2]]))
}
