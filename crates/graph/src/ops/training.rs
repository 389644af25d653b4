//! Recurrent layers whose weights change from run to run, and their gradient.

use super::prelude::*;
use super::recurrent::{PARTS, swapped};
use crate::Data;
use recurve_kernels::{Checkpoints, OutputGradients, Reserve, TrainingArgs, TrainingLayer, TrainingWeights, Wanted};
use recurve_reference::{Drawn, Recurrence, RecurrenceGradient, RecurrenceOutput};
use recurve_vocabulary::{Cell, Direction, DirectionWeights, MaskedOutput};
use smallvec::SmallVec;
use std::borrow::Cow;

/// One recurrent layer in one or two directions for training. All weights are values of a run, in the shapes of
/// `TrainingLayer::weight_dims`.
///
/// Inputs:
/// - `x` `[batch, time, features]`; with `ids` a table `[rows, features]`
/// - `h0` `[directions, batch, state]`, `c0` of a cell that has one
/// - `lengths` `[batch]` or `mask` `[batch, time]`: which timesteps are valid
/// - `recurrent_dropout` `[directions, gates or 1, batch, state]`: factors on the h of the recurrent product
/// - `zoneout_h`, `zoneout_c` `[directions, time, batch, …]`: what was drawn for a zoneout in training
/// - `ids` `[batch, time]`: which row of the table each timestep reads
/// - the weights, in the order of [`PARTS`] for each direction
///
/// Outputs: `y`, the final `h`, the final `c` of a cell that has one; then what the gradient needs.
#[derive(Clone, Debug, PartialEq)]
pub struct RecurrentTraining {
    /// The cell.
    pub cell: Cell,
    /// Number of features of the input.
    pub input_size: usize,
    /// Number of hidden units.
    pub hidden_size: usize,
    /// One or two directions.
    pub directions: Vec<Direction>,
    /// The output at a timestep that the mask excludes.
    pub masked_output: MaskedOutput,
    /// Whether `x` or `ids`, and `y`, are `[time, batch, …]`.
    pub time_major: bool,
    /// Whether the outputs of a reverse direction come in the order in which they were computed.
    pub reading_order: bool,
    /// Whether the states of a few timesteps are kept for the gradient, which computes all else again.
    pub checkpoints: bool,
}

/// The gradient of a [`RecurrentTraining`]. Inputs: its inputs but for the weights, what it kept, the gradients of its
/// outputs `y`, `h`, `c`, which may be left out where the loss does not depend on them, and the weights. Outputs: the
/// gradients of `x`, `h0`, `c0` and of each weight.
#[derive(Clone, Debug, PartialEq)]
pub struct RecurrentGradient(pub RecurrentTraining);

/// Inputs of both before the weights.
const X: usize = 0;
const H0: usize = 1;
const C0: usize = 2;
const LENGTHS: usize = 3;
const MASK: usize = 4;
const DROPOUT: usize = 5;
const ZONEOUT_H: usize = 6;
const ZONEOUT_C: usize = 7;
const IDS: usize = 8;
/// Inputs of the forward operator before the weights.
const WEIGHTS: usize = 9;
/// What the gradient reads besides: gates, h, c and norms of the reserve, and the gradients of y, h and c.
const RESERVE: usize = 9;
const BY: usize = 13;
const GRADIENT_WEIGHTS: usize = 16;

/// For each of the kernels' weights its place in [`PARTS`].
fn part(name: &str) -> usize {
    let part = match name {
        "w_ih" => "weight_ih",
        "w_hh" => "weight_hh",
        "b_ih" => "bias_ih",
        "b_hh" => "bias_hh",
        "w_hr" => "weight_hr",
        "peepholes" => "weight_peephole",
        norm => norm,
    };
    PARTS.iter().position(|p| *p == part).expect("a part of every cell")
}

impl RecurrentTraining {
    /// The inputs in front of the weights.
    pub const BEFORE: usize = WEIGHTS;

    fn layer(&self) -> Result<TrainingLayer> {
        TrainingLayer::new(self.cell, self.input_size, self.hidden_size, &self.directions)
    }

    fn has_c(&self) -> bool {
        self.cell.kind.has_cell_state()
    }

    /// The index of the first output that only the gradient needs.
    fn reserve(&self) -> usize {
        2 + usize::from(self.has_c())
    }

    /// The weights of a call, from the input `first` on, in the shapes that the layer wants.
    fn weights(&self, layer: &TrainingLayer, call: &Call<'_>, first: usize) -> Result<Vec<TrainingWeights<Tensor>>> {
        let dims = layer.weight_dims();
        let one = |direction: usize| {
            let mut list = [const { None }; 9];
            for ((own, name), dims) in list.iter_mut().zip(TrainingWeights::<()>::NAMES).zip(&dims) {
                if let (Some(t), Some(dims)) = (call.optional(first + direction * PARTS.len() + part(name)), dims) {
                    *own = Some(t.reshape(dims)?);
                }
            }
            TrainingWeights::from_list(list).ok_or_else(|| recurve_tensor::Error::Argument {
                operation: self.name(),
                argument: "weights",
                message: "must contain weight_ih of each direction".into(),
            })
        };
        (0..self.directions.len()).map(one).collect()
    }

    fn args<'a>(&self, call: &Call<'a>) -> TrainingArgs<'a> {
        TrainingArgs {
            ids: call.optional(IDS),
            h0: call.optional(H0),
            c0: call.optional(C0),
            lengths: call.optional(LENGTHS),
            mask: call.optional(MASK),
            masked_output: self.masked_output,
            time_major: self.time_major,
            reading_order: self.reading_order,
            recurrent_dropout: call.optional(DROPOUT),
            zoneout_h: call.optional(ZONEOUT_H),
            zoneout_c: call.optional(ZONEOUT_C),
            ..TrainingArgs::default()
        }
    }

    /// The number of outputs that only the gradient needs.
    pub fn kept(&self) -> usize {
        self.reserved().iter().filter(|there| **there).count()
    }

    /// Which of gates, h, c and norms it keeps.
    fn reserved(&self) -> [bool; 4] {
        let whole = !self.checkpoints;
        [whole, true, self.has_c(), whole && self.cell.layer_norm.is_some()]
    }

    /// The types of the inputs before the weights, checked, and the batch and time of `x`.
    fn check(&self, inputs: &[Option<&ValueType>]) -> Result<(Dim, Dim), Fault> {
        let mut axes = if self.time_major { "time, batch" } else { "batch, time" };
        let x = float(inputs, X)?;
        let read = inputs.get(IDS).copied().flatten();
        let (first, second, features) = match (&x.dims[..], read.map(|t| (t.dtype == DType::U32, &t.dims[..]))) {
            ([first, second, features], None) => (first, second, features),
            ([_, features], Some((true, [first, second]))) => (first, second, features),
            ([_, _], Some(_)) => return Err(Fault::Input(IDS, format!("u32, [{axes}]"))),
            (_, Some(_)) => return Err(Fault::Input(X, "a table [rows, features]".into())),
            (_, None) => return Err(Fault::Input(X, format!("[{axes}, features]"))),
        };
        if read.is_some() {
            axes = "rows";
        }
        if features.meet(&Dim::Size(self.input_size)).is_none() {
            return Err(Fault::Input(X, format!("[{axes}, features] with {} features", self.input_size)));
        }
        let (batch, time) = if self.time_major { (second, first) } else { (first, second) };
        for (n, dtype, dims) in [(LENGTHS, DType::U32, vec![batch]), (MASK, DType::U32, vec![batch, time])] {
            let Some(t) = inputs.get(n).copied().flatten() else { continue };
            let fits = t.dtype == dtype
                && t.dims.len() == dims.len()
                && t.dims.iter().zip(dims).all(|(a, b)| a.meet(b).is_some());
            if !fits {
                return Err(Fault::Input(n, "u32, a number for each sequence, or for each timestep".into()));
            }
        }
        Ok((batch.clone(), time.clone()))
    }

    fn check_weights(&self, inputs: &[Option<&ValueType>], first: usize) -> Result<(), Fault> {
        let layer = self.layer().map_err(super::moves::fault)?;
        let dims = layer.weight_dims();
        for direction in 0..self.directions.len() {
            for (name, dims) in TrainingWeights::<()>::NAMES.iter().zip(&dims) {
                let place = first + direction * PARTS.len() + part(name);
                let Some(t) = inputs.get(place).copied().flatten() else { continue };
                let Some(dims) = dims else {
                    return Err(Fault::Input(place, format!("left out: the cell has no {}", PARTS[part(name)])));
                };
                let count = |d: &[usize]| d.iter().product::<usize>();
                if t.shape().is_none_or(|s| count(&s) != count(dims)) {
                    return Err(Fault::Input(place, format!("{} with shape {dims:?}", PARTS[part(name)])));
                }
            }
        }
        Ok(())
    }

    /// What the timesteps read, in f64.
    fn read<'a>(&self, inputs: &[Option<&'a Array>]) -> Cow<'a, Array> {
        let x = array(inputs, X);
        let Some(ids) = inputs.get(IDS).copied().flatten() else { return Cow::Borrowed(x) };
        let rows = recurve_reference::embedding(&x.data, x.last(), &ids.ids());
        Cow::Owned(Array::new(&[&ids.dims[..], &[x.last()]].concat(), rows))
    }

    /// The weights of a direction in f64.
    fn wide(&self, inputs: &[Option<&Array>], first: usize, direction: usize) -> DirectionWeights<f64> {
        let get = |p: usize| {
            let a = inputs.get(first + direction * PARTS.len() + p).copied().flatten();
            a.map(|a| a.data.clone()).unwrap_or_default()
        };
        DirectionWeights {
            w_ih: get(0),
            w_hh: get(1),
            b_ih: get(2),
            b_hh: get(3),
            w_hr: get(4),
            peepholes: get(5),
            norm_ih: get(6),
            norm_hh: get(7),
            norm_c: get(8),
            rest: recurve_vocabulary::Rest::default(),
        }
    }

    /// Runs `f` for each direction with its definition in f64.
    fn each<T>(
        &self,
        inputs: &[Option<&Array>],
        first: usize,
        mut f: impl FnMut(usize, &Recurrence<'_, f64>, &Drawn<'_, f64>) -> T,
    ) -> Vec<T> {
        let given = |n: usize| inputs.get(n).copied().flatten();
        let x = self.read(inputs);
        let x = if self.time_major { swapped(&x) } else { x.into_owned() };
        let &[b, t, _] = &x.dims[..] else { unreachable!("checked to have three dimensions") };
        let lengths: Option<Vec<usize>> = given(LENGTHS).map(|l| l.data.iter().map(|&v| v as usize).collect());
        let mask: Option<Vec<bool>> = given(MASK).map(|m| m.data.iter().map(|&v| v != 0.0).collect());
        let one = |n: usize| {
            let weights = self.wide(inputs, first, n);
            let own = |input: usize| {
                given(input).map(|a| {
                    let size = a.data.len() / self.directions.len();
                    &a.data[n * size..][..size]
                })
            };
            let a = Recurrence {
                cell: self.cell,
                direction: self.directions[n],
                weights: &weights,
                x: &x.data,
                batch: b,
                timesteps: t,
                input_size: self.input_size,
                hidden_size: self.hidden_size,
                h0: own(H0),
                c0: own(C0),
                lengths: lengths.as_deref(),
                mask: mask.as_deref(),
                masked_output: self.masked_output,
            };
            let drawn = Drawn { recurrent_dropout: own(DROPOUT), zoneout_h: own(ZONEOUT_H), zoneout_c: own(ZONEOUT_C) };
            f(n, &a, &drawn)
        };
        (0..self.directions.len()).map(one).collect()
    }

    /// Where the element of y of a direction at a time stands in an output of these dimensions.
    fn place(&self, [b, t, w]: [usize; 3], direction: usize, at: [usize; 3]) -> usize {
        let turned = self.reading_order && self.directions[direction] == Direction::Reverse;
        let time = if turned { t - 1 - at[1] } else { at[1] };
        let row = if self.time_major { time * b + at[0] } else { at[0] * t + time };
        (row * self.directions.len() + direction) * w + at[2]
    }
}

impl Operator for RecurrentTraining {
    fn name(&self) -> &'static str {
        self.cell.kind.class_name()
    }
    fn slots(&self) -> &[Slot] {
        const SLOTS: [Slot; WEIGHTS + 1] = [
            Slot::Required("x"),
            Slot::Optional("h0"),
            Slot::Optional("c0"),
            Slot::Optional("lengths"),
            Slot::Optional("mask"),
            Slot::Optional("recurrent_dropout"),
            Slot::Optional("zoneout_h"),
            Slot::Optional("zoneout_c"),
            Slot::Optional("ids"),
            Slot::Rest("weights"),
        ];
        &SLOTS
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let (batch, time) = self.check(inputs)?;
        self.check_weights(inputs, WEIGHTS)?;
        let x = float(inputs, X)?;
        let d = self.directions.len();
        let (w, c) = self.cell.state_sizes(self.hidden_size);
        let (first, second) = if self.time_major { (&time, &batch) } else { (&batch, &time) };
        let y = vec![first.clone(), second.clone(), Dim::Size(d * w)];
        let state = |size: usize| x.with_dims(vec![Dim::Size(d), batch.clone(), Dim::Size(size)]);
        let mut all = vec![x.with_dims(y), state(w)];
        all.extend(c.map(state));
        // One timestep more than there are, unless their number is known; or one for each segment.
        let more = time.size().filter(|_| !self.checkpoints).map_or(Dim::Any, |t| Dim::Size(t + 1));
        let widths = [Dim::Any, Dim::Size(w), Dim::Size(c.unwrap_or(0)), Dim::Any];
        for (n, (width, there)) in widths.into_iter().zip(self.reserved()).enumerate() {
            let time = if matches!(n, 1 | 2) { more.clone() } else { time.clone() };
            if there {
                all.push(x.with_dims(vec![Dim::Size(d), time, batch.clone(), width]));
            }
        }
        Ok(all)
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let layer = call.kept(|_: &TrainingLayer| true, || self.layer())?;
        let weights = self.weights(&layer, call, WEIGHTS)?;
        let weights: SmallVec<[_; 2]> = weights.iter().map(TrainingWeights::as_ref).collect();
        let (x, args) = (call.input(X), self.args(call));
        let (outputs, kept) = if self.checkpoints {
            let out = layer.forward_with_checkpoints(x, &weights, &args)?;
            let Checkpoints { h, c, .. } = out.checkpoints;
            ([Some(out.y), Some(out.h), out.c], [None, Some(h), c, None])
        } else {
            let out = layer.forward(x, &weights, &args)?;
            let Reserve { gates, h, c, norms, .. } = out.reserve;
            ([Some(out.y), Some(out.h), out.c], [Some(gates), Some(h), c, norms])
        };
        Ok(outputs.into_iter().chain(kept).flatten().map(|t| Some(Data::from(t))).collect())
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let outs: Vec<RecurrenceOutput<f64>> =
            self.each(inputs, WEIGHTS, |_, a, drawn| recurve_reference::recurrence_with(a, drawn));
        let d = self.directions.len();
        let (w, carried) = self.cell.state_sizes(self.hidden_size);
        let mut dims = self.read(inputs).dims.clone();
        dims[2] = d * w;
        let (b, t) = if self.time_major { (dims[1], dims[0]) } else { (dims[0], dims[1]) };
        let mut y = Array::new(&dims, vec![0.0; b * t * d * w]);
        for (n, out) in outs.iter().enumerate() {
            for (flat, &v) in out.y.iter().enumerate() {
                y.data[self.place([b, t, w], n, [flat / (t * w), flat / w % t, flat % w])] = v;
            }
        }
        let states = |of: fn(&RecurrenceOutput<f64>) -> &Vec<f64>, size: usize| {
            Some(Array::new(&[d, b, size], outs.iter().flat_map(|o| of(o).clone()).collect()))
        };
        let mut all = vec![Some(y), states(|o| &o.h, w)];
        all.extend(carried.map(|c| states(|o| &o.c, c)));
        // The truth of the gradient is computed anew.
        all.resize_with(self.reserve() + self.kept(), || None);
        all
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let reserve = self.reserve();
        if g.outputs() <= reserve {
            return Err(g.missing("what it keeps for the gradient is not among its outputs"));
        }
        if (reserve..g.outputs()).any(|n| g.of_output(n).is_some()) {
            return Err(g.missing("the loss depends on what it keeps"));
        }
        let mut inputs: Vec<_> = (0..WEIGHTS).map(|n| g.get(n)).collect();
        inputs.resize(GRADIENT_WEIGHTS, None);
        let mut next = reserve;
        for (place, there) in self.reserved().into_iter().enumerate() {
            if there {
                inputs[RESERVE + place] = Some(g.output(next));
                next += 1;
            }
        }
        for n in 0..reserve {
            inputs[BY + n] = g.of_output(n);
        }
        inputs.extend((WEIGHTS..g.inputs()).map(|n| g.get(n)));
        let weights = g.inputs() - WEIGHTS;
        let made = g.nodes(RecurrentGradient(self.clone()), &inputs, 3 + weights)?;
        for (n, input) in [X, H0, C0].into_iter().enumerate().chain((0..weights).map(|n| (3 + n, WEIGHTS + n))) {
            if g.wants(input) {
                g.give(input, made[n]);
            }
        }
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Operator for RecurrentGradient {
    fn name(&self) -> &'static str {
        "RecurrentGradient"
    }
    fn slots(&self) -> &[Slot] {
        const SLOTS: [Slot; GRADIENT_WEIGHTS + 1] = [
            Slot::Required("x"),
            Slot::Optional("h0"),
            Slot::Optional("c0"),
            Slot::Optional("lengths"),
            Slot::Optional("mask"),
            Slot::Optional("recurrent_dropout"),
            Slot::Optional("zoneout_h"),
            Slot::Optional("zoneout_c"),
            Slot::Optional("ids"),
            // The reference needs none of what was kept.
            Slot::Optional("gates"),
            Slot::Optional("kept_h"),
            Slot::Optional("kept_c"),
            Slot::Optional("norms"),
            Slot::Optional("dy"),
            Slot::Optional("dh"),
            Slot::Optional("dc"),
            Slot::Rest("weights"),
        ];
        &SLOTS
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let (batch, _) = self.0.check(inputs)?;
        self.0.check_weights(inputs, GRADIENT_WEIGHTS)?;
        let x = float(inputs, X)?;
        let (w, c) = self.0.cell.state_sizes(self.0.hidden_size);
        let d = Dim::Size(self.0.directions.len());
        let state = |size: usize| x.with_dims(vec![d.clone(), batch.clone(), Dim::Size(size)]);
        let mut all = vec![x.clone(), state(w), state(c.unwrap_or(0))];
        all.extend((GRADIENT_WEIGHTS..inputs.len()).map(|n| match inputs[n] {
            Some(t) => t.clone(),
            // It does not exist.
            None => ValueType::new(DType::F32, [0usize; 0]),
        }));
        Ok(all)
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let layer = call.kept(|_: &TrainingLayer| true, || self.0.layer())?;
        let needed = |n: usize| {
            call.optional(n).cloned().ok_or_else(|| recurve_tensor::Error::Argument {
                operation: "RecurrentGradient",
                argument: "gates",
                message: "must be what the layer kept".into(),
            })
        };
        let by = OutputGradients {
            y: call.optional(BY),
            h: call.optional(BY + 1),
            c: call.optional(BY + 2),
            ..OutputGradients::default()
        };
        let is_wanted = |n: usize| call.wanted.get(n).copied().unwrap_or(false);
        let wanted = Wanted {
            x: is_wanted(0),
            states: is_wanted(1) || is_wanted(2),
            weights: (3..call.wanted.len()).any(is_wanted),
            ..Wanted::default()
        };
        let weights = self.0.weights(&layer, call, GRADIENT_WEIGHTS)?;
        let weights: SmallVec<[_; 2]> = weights.iter().map(TrainingWeights::as_ref).collect();
        let (x, args) = (call.input(X), self.0.args(call));
        let (h, c) = (needed(RESERVE + 1)?, call.optional(RESERVE + 2).cloned());
        let out = if self.0.checkpoints {
            layer.backward_from_checkpoints(x, &weights, &args, &Checkpoints::new(h, c), &by, wanted)?
        } else {
            let reserve = Reserve::new(needed(RESERVE)?, h, c, call.optional(RESERVE + 3).cloned());
            layer.backward(x, &weights, &args, &reserve, &by, wanted)?
        };
        let mut all: Outputs = [out.x, out.h0, out.c0].into_iter().map(|t| t.map(Data::from)).collect();
        for weights in out.weights {
            let list = weights.into_list();
            let mut parts: SmallVec<[Option<Data>; 9]> = smallvec::smallvec![None; PARTS.len()];
            for (name, t) in TrainingWeights::<()>::NAMES.iter().zip(list) {
                // In the shape of the weight, of which only the number of elements was asked.
                let place = GRADIENT_WEIGHTS + (all.len() - 3) + part(name);
                parts[part(name)] = match (t, call.optional(place)) {
                    (Some(t), Some(w)) => Some(t.reshape(w.dims())?.into()),
                    _ => None,
                };
            }
            all.extend(parts);
        }
        Ok(all)
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let layer = &self.0;
        let d = layer.directions.len();
        let (w, carried) = layer.cell.state_sizes(layer.hidden_size);
        let x = layer.read(inputs);
        let (b, t) = if layer.time_major { (x.dims[1], x.dims[0]) } else { (x.dims[0], x.dims[1]) };
        let by = |n: usize| inputs.get(BY + n).copied().flatten();
        let grads: Vec<RecurrenceGradient> = layer.each(inputs, GRADIENT_WEIGHTS, |n, a, drawn| {
            let dy: Option<Vec<f64>> = by(0).map(|dy| {
                let at = |flat: usize| layer.place([b, t, w], n, [flat / (t * w), flat / w % t, flat % w]);
                (0..b * t * w).map(|flat| dy.data[at(flat)]).collect()
            });
            let own = |of: usize| {
                by(of).map(|v| {
                    let size = v.data.len() / d;
                    &v.data[n * size..][..size]
                })
            };
            recurve_reference::recurrence_gradient(a, drawn, dy.as_deref(), own(1), own(2))
        });
        let mut dx = Array::new(&[b, t, layer.input_size], vec![0.0; b * t * layer.input_size]);
        for g in &grads {
            dx.data.iter_mut().zip(&g.x).for_each(|(o, v)| *o += v);
        }
        let states = |of: fn(&RecurrenceGradient) -> &Vec<f64>, size: usize| {
            Some(Array::new(&[d, b, size], grads.iter().flat_map(|g| of(g).clone()).collect()))
        };
        let mut dx = if layer.time_major { swapped(&dx) } else { dx };
        if let Some(ids) = inputs.get(IDS).copied().flatten() {
            dx = super::gather::sum_rows(&dx, ids, array(inputs, X));
        }
        let mut all = vec![Some(dx), states(|g| &g.h0, w), carried.and_then(|c| states(|g| &g.c0, c))];
        for (n, g) in grads.iter().enumerate() {
            let w = &g.weights;
            let parts = [&w.w_ih, &w.w_hh, &w.b_ih, &w.b_hh, &w.w_hr, &w.peepholes, &w.norm_ih, &w.norm_hh, &w.norm_c];
            for (p, data) in parts.into_iter().enumerate() {
                let like = inputs.get(GRADIENT_WEIGHTS + n * PARTS.len() + p).copied().flatten();
                all.push(like.map(|like| Array::new(&like.dims, data.clone())));
            }
        }
        all
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
