//! Recurrent layers, stacked and bidirectional, as in PyTorch's modules.

use super::prelude::*;
use crate::{Data, HostInputs, Packed};
use core::convert::Infallible;
use half::f16;
use recurve_kernels::{ForwardArgs, Outputs as Wanted, RecurrentConfig, TokenTable};
use recurve_tensor::Device;
use recurve_vocabulary::{Cell, Direction, DirectionWeights, MaskedOutput, WeightStorage, int8, int8_scale};
use smallvec::smallvec;

/// The weights of one direction of one layer, in the order of a node's inputs. Those that a cell does not have are left
/// out. Gates are in Recurve's order (LSTM i f g o, GRU r z n, sLSTM i f z o).
pub const PARTS: [&str; 9] =
    ["weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "weight_peephole", "norm_ih", "norm_hh", "norm_c"];

const X: usize = 0;
const H0: usize = 1;
const C0: usize = 2;
const LENGTHS: usize = 3;
const MASK: usize = 4;
const WEIGHTS: usize = 6;

/// A recurrent layer: `num_layers` stacked layers, each reading the output of the one below, in one or two directions.
///
/// Inputs:
/// - `x` `[batch, time, features]`
/// - `h0` `[layers · directions, batch, state]`
/// - `c0`, of an LSTM `[layers · directions, batch, hidden]`, of an sLSTM `[layers · directions, batch, 3 · hidden]`
/// - `lengths` `[batch]` or `mask` `[batch, time]`: which timesteps are valid
/// - the weights
///
/// Outputs: `y` `[batch, time, directions · state]`, the final `h`, and the final `c` of a cell that has one.
#[derive(Clone, Debug, PartialEq)]
pub struct Recurrent {
    /// The cell.
    pub cell: Cell,
    /// Number of features of the input.
    pub input_size: usize,
    /// Number of hidden units.
    pub hidden_size: usize,
    /// Number of stacked layers.
    pub num_layers: usize,
    /// The directions of each layer: one or two.
    pub directions: Vec<Direction>,
    /// The output at a timestep that the mask excludes.
    pub masked_output: MaskedOutput,
    /// Whether `x` and `y` are `[time, batch, …]`.
    pub time_major: bool,
    /// Whether the outputs of a reverse direction come in the order in which they were computed, instead of at their
    /// own timesteps.
    pub reading_order: bool,
    /// How the weight matrices are stored.
    pub weights: WeightStorage,
    /// Whether an embedding is merged into the layer: `x` is then ids `[batch, time]`, and a further input `table`
    /// `[ids, features]` holds the features of each id. The table is multiplied by the input weights once, so that a
    /// run looks up products.
    pub tokens: bool,
}

/// The packed layer on a device.
struct Ready {
    layers: recurve_kernels::Recurrent,
    table: Option<TokenTable>,
}

impl Recurrent {
    /// The index of the input `table`.
    pub(crate) const TABLE: usize = 5;

    /// A single layer in the forward direction, with f32 weights.
    pub fn new(cell: Cell, input_size: usize, hidden_size: usize) -> Self {
        Self {
            cell,
            input_size,
            hidden_size,
            num_layers: 1,
            directions: vec![Direction::Forward],
            masked_output: MaskedOutput::Repeat,
            time_major: false,
            reading_order: false,
            weights: WeightStorage::F32,
            tokens: false,
        }
    }

    /// The names of a node's inputs. `weight` names each weight by its part, layer and direction; an empty name leaves
    /// it out.
    pub fn inputs(
        &self,
        before: [&str; WEIGHTS],
        mut weight: impl FnMut(&'static str, usize, usize) -> String,
    ) -> Vec<String> {
        let mut all: Vec<String> = before.iter().map(|&s| s.to_owned()).collect();
        for layer in 0..self.num_layers {
            for direction in 0..self.directions.len() {
                all.extend(PARTS.iter().map(|part| weight(part, layer, direction)));
            }
        }
        all
    }

    /// Number of elements of h.
    fn state(&self) -> usize {
        self.cell.state_size(self.hidden_size)
    }

    /// Number of features that a stacked layer reads.
    fn features(&self, layer: usize) -> usize {
        if layer == 0 { self.input_size } else { self.directions.len().saturating_mul(self.state()) }
    }

    /// The number of elements that a weight must have; `None` if the cell does not have it.
    fn elements(&self, part: &str, layer: usize) -> usize {
        let (h, w) = (self.hidden_size, self.state());
        let rows = self.cell.kind.gates().saturating_mul(h);
        match part {
            "weight_ih" => rows.saturating_mul(self.features(layer)),
            "weight_hh" => self.cell.kind.recurrent_weights(h, w),
            "bias_ih" | "bias_hh" => rows,
            "weight_hr" => w.saturating_mul(h),
            "weight_peephole" => h.saturating_mul(3),
            "norm_ih" | "norm_hh" => rows.saturating_mul(2),
            _ => h.saturating_mul(2),
        }
    }

    /// The index of a weight among a node's inputs.
    fn place(&self, part: usize, layer: usize, direction: usize) -> usize {
        WEIGHTS + (layer * self.directions.len() + direction) * PARTS.len() + part
    }

    /// The weights of each direction of a layer, from their places among a node's inputs.
    fn gather<T, M, E>(
        &self,
        layer: usize,
        matrix: impl Fn(usize) -> Result<M, E>,
        vector: impl Fn(usize) -> Result<Vec<T>, E>,
    ) -> Result<Vec<DirectionWeights<T, M>>, E> {
        let one = |direction| {
            let matrix = |n| matrix(self.place(n, layer, direction));
            let part = |n| vector(self.place(n, layer, direction));
            Ok(DirectionWeights {
                w_ih: matrix(0)?,
                w_hh: matrix(1)?,
                b_ih: part(2)?,
                b_hh: part(3)?,
                w_hr: matrix(4)?,
                peepholes: part(5)?,
                norm_ih: part(6)?,
                norm_hh: part(7)?,
                norm_c: part(8)?,
                rest: recurve_vocabulary::Rest::default(),
            })
        };
        (0..self.directions.len()).map(one).collect()
    }

    /// The weights of each direction of a layer, with matrices rounded to their storage type. `get` returns the elements
    /// of the node's input with this index, none if it is left out.
    ///
    /// # Errors
    /// Those of `get`.
    pub fn stored_weights<E>(
        &self,
        layer: usize,
        get: impl Fn(usize) -> Result<Vec<f64>, E>,
    ) -> Result<Vec<DirectionWeights<f64>>, E> {
        Ok(self.gather(layer, &get, &get)?.iter().map(|w| self.stored(w)).collect())
    }

    fn ready(&self, host: &HostInputs<'_>, device: &Device) -> crate::Result<Ready> {
        let wrap = |e| host.error(e);
        // A device that needs whole weights in host memory has those of one layer at a time.
        let layer = |layer: usize| {
            let vector = |n| host.weight(n)?.map_or(Ok(Vec::new()), |w| Ok(w.to_vec()?));
            let weights = self.gather(layer, |n| host.weight(n), vector)?;
            let pairs: Vec<_> = self.directions.iter().copied().zip(&weights).collect();
            let config = RecurrentConfig {
                weights: self.weights,
                ..RecurrentConfig::new(self.cell, self.features(layer), self.hidden_size, &pairs)
            };
            recurve_kernels::Recurrent::new(&config, device).map_err(wrap)
        };
        let layers = (0..self.num_layers).map(layer).collect::<crate::Result<Vec<_>>>()?;
        let layers = recurve_kernels::Recurrent::stack(layers).map_err(wrap)?;
        let table = match (self.tokens, host.tensor(Self::TABLE)?) {
            (true, Some(rows)) => Some(layers.token_table(&rows).map_err(wrap)?),
            _ => None,
        };
        Ok(Ready { layers, table })
    }
}

impl Operator for Recurrent {
    fn name(&self) -> &'static str {
        self.cell.kind.class_name()
    }
    fn slots(&self) -> &[Slot] {
        &[
            Slot::Required("x"),
            Slot::Optional("h0"),
            Slot::Optional("c0"),
            Slot::Optional("lengths"),
            Slot::Optional("mask"),
            Slot::Optional("table"),
            Slot::Rest("weights"),
        ]
    }
    fn host_inputs(&self) -> Option<usize> {
        Some(Self::TABLE)
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        for (n, name) in [(self.num_layers, "num_layers"), (self.hidden_size, "hidden_size")] {
            if n == 0 {
                return Err(Fault::Attribute(name, "must be at least 1".into()));
            }
        }
        if !(1..=2).contains(&self.directions.len()) {
            let message = format!("must be one or two, but there are {}", self.directions.len());
            return Err(Fault::Attribute("directions", message));
        }
        let axes = if self.time_major { "time, batch" } else { "batch, time" };
        let (first, second) = match (self.tokens, &required(inputs, X)?.dims[..]) {
            (true, [a, b]) if required(inputs, X)?.dtype == DType::U32 => (a, b),
            (false, [a, b, f]) if f.meet(&Dim::Size(self.input_size)).is_some() => {
                float(inputs, X)?;
                (a, b)
            }
            (true, _) => return Err(Fault::Input(X, format!("ids [{axes}]"))),
            (false, _) => {
                return Err(Fault::Input(X, format!("[{axes}, features] with {} features", self.input_size)));
            }
        };
        let (batch, time) = if self.time_major { (second, first) } else { (first, second) };
        let (d, w) = (self.directions.len(), self.state());
        let count = self.num_layers.saturating_mul(d);
        let (h_size, c_size) = self.cell.state_sizes(self.hidden_size);
        let state = |size: usize| vec![Dim::Size(count), batch.clone(), Dim::Size(size)];
        let fits = |input: usize, dtype: DType, dims: &[Dim], words: &str| match inputs.get(input).copied().flatten() {
            Some(t) => {
                let same = t.dims.len() == dims.len() && t.dims.iter().zip(dims).all(|(a, b)| a.meet(b).is_some());
                if same && t.dtype == dtype {
                    Ok(())
                } else {
                    let shown = ValueType::new(dtype, dims.iter().cloned());
                    Err(Fault::Input(input, format!("{words}, {shown}")))
                }
            }
            None => Ok(()),
        };
        fits(H0, DType::F32, &state(h_size), "[layers · directions, batch, state]")?;
        match c_size {
            Some(size) => fits(C0, DType::F32, &state(size), "[layers · directions, batch, hidden]")?,
            None if inputs.get(C0).copied().flatten().is_some() => {
                return Err(Fault::Input(C0, "left out: the cell has no second state".into()));
            }
            None => {}
        }
        fits(LENGTHS, DType::U32, core::slice::from_ref(batch), "[batch]")?;
        fits(MASK, DType::U32, &[batch.clone(), time.clone()], "[batch, time]")?;
        if self.tokens {
            fits(Self::TABLE, DType::F32, &[Dim::Any, Dim::Size(self.input_size)], "a table [ids, features]")?;
            required(inputs, Self::TABLE)?;
        }
        for layer in 0..self.num_layers {
            for direction in 0..d {
                for (n, part) in PARTS.iter().enumerate() {
                    let place = self.place(n, layer, direction);
                    let Some(t) = inputs.get(place).copied().flatten() else { continue };
                    let wanted = self.elements(part, layer);
                    let got = t.dims.iter().filter_map(Dim::size).fold(1usize, usize::saturating_mul);
                    if got != wanted {
                        return Err(Fault::Input(place, format!("{part} of layer {layer} with {wanted} elements")));
                    }
                }
            }
        }
        let y = ValueType::new(DType::F32, vec![first.clone(), second.clone(), Dim::Size(d * w)]);
        let states = core::iter::once(h_size).chain(c_size).map(|n| ValueType::new(DType::F32, state(n)));
        Ok(core::iter::once(y).chain(states).collect())
    }
    fn pack(&self, host: &HostInputs<'_>, device: &Device) -> crate::Result<Option<Packed>> {
        Ok(Some(Box::new(self.ready(host, device)?)))
    }
    fn packs_like(&self, other: &dyn Operator) -> bool {
        other.as_any().downcast_ref() == Some(self)
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let packed = call.packed.and_then(|p| p.downcast_ref::<Ready>());
        let Ready { layers, table } = packed.expect("what `pack` made");
        let input = |n: usize| call.optional(n);
        let x = call.input(X);
        if call.options.tune
            && let [first, second, ..] = *x.dims()
        {
            let (batch, timesteps) = if self.time_major { (second, first) } else { (first, second) };
            layers.tune(batch, timesteps)?;
        }
        let args = ForwardArgs {
            h0: input(H0),
            c0: input(C0),
            lengths: input(LENGTHS),
            mask: input(MASK),
            masked_output: self.masked_output,
            time_major: self.time_major,
            outputs: if call.wanted[0] { Wanted::All } else { Wanted::Last },
            reading_order: self.reading_order,
            strategy: call.options.strategy,
            ..ForwardArgs::default()
        };
        let out = match table {
            Some(table) => layers.forward_tokens(x, table, &args)?,
            None => layers.forward(x, &args)?,
        };
        Ok(smallvec![out.y.map(Data::from), Some(out.h.into()), out.c.map(Data::from)])
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let given = |n: usize| inputs.get(n).copied().flatten();
        let x = match self.tokens {
            true => {
                let (ids, table) = (array(inputs, X), array(inputs, Self::TABLE));
                let rows = recurve_reference::embedding(&table.data, table.last(), &ids.ids());
                Array::new(&[ids.dims[0], ids.dims[1], table.last()], rows)
            }
            false => array(inputs, X).clone(),
        };
        let x = if self.time_major { swapped(&x) } else { x };
        let &[b, t, _] = &x.dims[..] else { unreachable!("checked to have three dimensions") };
        let (d, w, h) = (self.directions.len(), self.state(), self.hidden_size);
        let c_size = self.cell.state_sizes(h).1.unwrap_or(h);
        let lengths: Option<Vec<usize>> = given(LENGTHS).map(|l| l.data.iter().map(|&v| v as usize).collect());
        let mask: Option<Vec<bool>> = given(MASK).map(|m| m.data.iter().map(|&v| v != 0.0).collect());
        let get = |n: usize| Ok(given(n).map(|a| a.data.clone()).unwrap_or_default());
        let weights = (0..self.num_layers).map(|l| self.stored_weights(l, get)).collect::<Result<Vec<_>, Infallible>>();
        let Ok(weights) = weights;
        let (mut hs, mut cs) = (Vec::new(), Vec::new());
        let mut value = x;
        for (l, layer) in weights.iter().enumerate() {
            let mut ys = Vec::new();
            for (n, direction) in self.directions.iter().enumerate() {
                let first = l * d + n;
                let start = |input: usize, size: usize| given(input).map(|s| &s.data[first * b * size..][..b * size]);
                let out = recurve_reference::recurrence(&recurve_reference::Recurrence {
                    cell: self.cell,
                    direction: *direction,
                    weights: &layer[n],
                    x: &value.data,
                    batch: b,
                    timesteps: t,
                    input_size: self.features(l),
                    hidden_size: h,
                    h0: start(H0, w),
                    c0: start(C0, c_size),
                    lengths: lengths.as_deref(),
                    mask: mask.as_deref(),
                    masked_output: self.masked_output,
                });
                ys.push(out.y);
                hs.extend(out.h);
                cs.extend(out.c);
            }
            let turned =
                |n: usize| self.reading_order && l + 1 == weights.len() && self.directions[n] == Direction::Reverse;
            value = Array::from_fn(&[b, t, d * w], |i| {
                let n = i[2] / w;
                let time = if turned(n) { t - 1 - i[1] } else { i[1] };
                ys[n][(i[0] * t + time) * w + i[2] % w]
            });
        }
        let y = if self.time_major { swapped(&value) } else { value };
        let states = |v: Vec<f64>, size: usize| Array::new(&[self.num_layers * d, b, size], v);
        let c = if cs.is_empty() { None } else { Some(states(cs, c_size)) };
        vec![Some(y), Some(states(hs, w)), c]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Recurrent {
    /// The weights after rounding to their storage type. Vectors keep f32, the `u` of an IndRNN included.
    fn stored(&self, w: &DirectionWeights<f64>) -> DirectionWeights<f64> {
        let round = |m: &[f64], rows: usize| -> Vec<f64> {
            match self.weights {
                WeightStorage::F32 => m.to_vec(),
                WeightStorage::F16 => m.iter().map(|&v| f16::from_f32(v as f32).to_f64()).collect(),
                WeightStorage::Int8 => m
                    .chunks((m.len() / rows.max(1)).max(1))
                    .flat_map(|row| {
                        let row: Vec<f32> = row.iter().map(|&v| v as f32).collect();
                        let scale = int8_scale(&row);
                        row.into_iter().map(move |v| f64::from(int8(v, scale)) * f64::from(scale))
                    })
                    .collect(),
                // A storage type without a definition here gives NaN, which agrees with nothing.
                _ => vec![f64::NAN; m.len()],
            }
        };
        let rows = self.cell.kind.gates() * self.hidden_size;
        DirectionWeights {
            w_ih: round(&w.w_ih, rows),
            w_hh: if self.cell.kind.is_pointwise() { w.w_hh.clone() } else { round(&w.w_hh, rows) },
            w_hr: round(&w.w_hr, self.state()),
            ..w.clone()
        }
    }
}

/// The array with its first two axes exchanged.
pub(super) fn swapped(a: &Array) -> Array {
    Array::from_fn(&[a.dims[1], a.dims[0], a.dims[2]], |i| a.at(&[i[1], i[0], i[2]]))
}
