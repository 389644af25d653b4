//! Passes that keep the states of a few timesteps and compute all else again (checkpointing; Chen et al. 2016, "Training
//! deep nets with sublinear memory cost").
//!
//! Time is cut in segments of ⌈√T⌉ timesteps, of which the last may have fewer. The forward pass keeps the state before
//! each segment. The backward pass takes the segments from the last one read to the first: it runs a segment forwards
//! again, then backwards from the gradient by the state behind it. Directions run one after the other, because they
//! reach a segment at different times.

use super::{FORWARD, Gradients, OutputGradients, TrainingArgs, TrainingCall, TrainingLayer, TrainingWeights, Wanted};
use crate::Direction;
use core::ops::Range;
use recurve_tensor::{DType, Result, Tensor, concat};
use recurve_vocabulary::Rest;

/// What a forward pass with checkpoints keeps: the states before each segment, in order of time. N is the number of
/// segments.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    /// h, `[D, N, B, W]`.
    pub h: Tensor,
    /// c, `[D, N, B, C·H]`, for cells with one.
    pub c: Option<Tensor>,
    /// Keeps the struct open for more fields: [`Self::new`] fills it.
    #[doc(hidden)]
    pub rest: Rest,
}

impl Checkpoints {
    /// Checkpoints of these tensors.
    pub fn new(h: Tensor, c: Option<Tensor>) -> Self {
        Self { h, c, rest: Rest::default() }
    }
}

/// The results of [`TrainingLayer::forward_with_checkpoints`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Checkpointed {
    /// The outputs, `[B, T, D·W]` (or `[T, B, D·W]`).
    pub y: Tensor,
    /// The final h, `[D, B, W]`.
    pub h: Tensor,
    /// The final c, `[D, B, C·H]`; `None` for cells without one.
    pub c: Option<Tensor>,
    /// What [`TrainingLayer::backward_from_checkpoints`] needs.
    pub checkpoints: Checkpoints,
}

/// The timesteps of a segment: ⌈√T⌉.
fn length(timesteps: usize) -> usize {
    let root = timesteps.isqrt();
    root + usize::from(root * root < timesteps)
}

/// The number of segments.
pub(super) fn segments(timesteps: usize) -> usize {
    timesteps.div_ceil(length(timesteps))
}

/// A part of a tensor along an axis.
fn part(t: &Tensor, axis: usize, range: Range<usize>) -> Result<Tensor> {
    if range == (0..t.dims()[axis]) { Ok(t.clone()) } else { t.slice(axis, range) }
}

/// Tensors one after the other along an axis.
fn join(mut parts: Vec<Tensor>, axis: usize) -> Result<Tensor> {
    match parts.len() {
        1 => Ok(parts.remove(0)),
        _ => concat(&parts.iter().collect::<Vec<_>>(), axis),
    }
}

/// [`join`] of parts that are all there or all missing.
fn join_all(parts: Vec<Option<Tensor>>, axis: usize) -> Result<Option<Tensor>> {
    let parts: Option<Vec<Tensor>> = parts.into_iter().collect();
    parts.map(|p| join(p, axis)).transpose()
}

/// The state of one direction: h `[1, B, W]` and c `[1, B, C·H]`; zeros if `None`.
type Carried = [Option<Tensor>; 2];

/// One direction of a call.
struct Track<'a> {
    layer: &'a TrainingLayer,
    call: TrainingCall<'a>,
    args: TrainingArgs<'a>,
    direction: usize,
}

/// The arguments of one segment of a direction.
struct Segment {
    x: Tensor,
    state: Carried,
    lengths: Option<Tensor>,
    mask: Option<Tensor>,
    recurrent_dropout: Option<Tensor>,
    zoneout_h: Option<Tensor>,
    zoneout_c: Option<Tensor>,
}

impl<'a> Track<'a> {
    fn weights(&self) -> &'a [TrainingWeights<&'a Tensor>] {
        &self.call.weights[self.direction..=self.direction]
    }

    fn is_reverse(&self) -> bool {
        self.call.directions[self.direction] == Direction::Reverse
    }

    fn time_axis(&self) -> usize {
        usize::from(!self.call.time_major)
    }

    /// The segments in the order in which they are read.
    fn order(&self) -> Vec<usize> {
        let all = 0..segments(self.call.timesteps);
        if self.is_reverse() { all.rev().collect() } else { all.collect() }
    }

    /// The timesteps of a segment.
    fn timesteps(&self, segment: usize) -> Range<usize> {
        let (all, length) = (self.call.timesteps, length(self.call.timesteps));
        segment * length..((segment + 1) * length).min(all)
    }

    /// Where the outputs of a segment stand.
    fn outputs(&self, segment: usize) -> Range<usize> {
        let Range { start, end } = self.timesteps(segment);
        let all = self.call.timesteps;
        if self.call.reading_order && self.is_reverse() { all - end..all - start } else { start..end }
    }

    /// This direction of a tensor with all of them.
    fn own(&self, t: Option<&Tensor>) -> Result<Option<Tensor>> {
        t.map(|t| part(t, 0, self.direction..self.direction + 1)).transpose()
    }

    /// The state with which the direction begins.
    fn start(&self) -> Result<Carried> {
        Ok([self.own(self.args.h0)?, self.own(self.args.c0)?])
    }

    /// A state as tensors.
    fn given(&self, state: &Carried) -> Result<Carried> {
        let zeros = |width: usize| Tensor::zeros(&[1, self.call.batch, width], DType::F32, &self.call.x.device());
        let [h, c] = state;
        let h = h.clone().map_or_else(|| zeros(self.call.width), Ok)?;
        let c = match self.call.carried {
            0 => None,
            width => Some(c.clone().map_or_else(|| zeros(width), Ok)?),
        };
        Ok([Some(h), c])
    }

    fn segment(&self, segment: usize, state: Carried) -> Result<Segment> {
        let range = self.timesteps(segment);
        let of_time = |t: Option<&Tensor>| -> Result<Option<Tensor>> {
            self.own(t.map(|t| part(t, 1, range.clone())).transpose()?.as_ref())
        };
        Ok(Segment {
            x: part(self.call.x, self.time_axis(), range.clone())?,
            state,
            lengths: self.args.lengths.map(|t| t.lengths_within(range.clone())).transpose()?,
            mask: self.args.mask.map(|t| part(t, 1, range.clone())).transpose()?,
            recurrent_dropout: self.own(self.args.recurrent_dropout)?,
            zoneout_h: of_time(self.args.zoneout_h)?,
            zoneout_c: of_time(self.args.zoneout_c)?,
        })
    }

    fn args<'s>(&self, s: &'s Segment) -> TrainingArgs<'s> {
        TrainingArgs {
            ids: None,
            h0: s.state[0].as_ref(),
            c0: s.state[1].as_ref(),
            lengths: s.lengths.as_ref(),
            mask: s.mask.as_ref(),
            recurrent_dropout: s.recurrent_dropout.as_ref(),
            zoneout_h: s.zoneout_h.as_ref(),
            zoneout_c: s.zoneout_c.as_ref(),
            masked_output: self.args.masked_output,
            time_major: self.args.time_major,
            reading_order: self.args.reading_order,
            form: self.args.form,
            rest: self.args.rest,
        }
    }

    fn forward(&self) -> Result<Checkpointed> {
        let order = self.order();
        let mut outputs = vec![None; order.len()];
        let mut before = [vec![None; order.len()], vec![None; order.len()]];
        let mut state = self.start()?;
        for &n in &order {
            let [h, c] = self.given(&state)?;
            (before[0][n], before[1][n]) = (h, c);
            let segment = self.segment(n, state)?;
            let out = self.layer.forward(&segment.x, self.weights(), &self.args(&segment))?;
            outputs[n] = Some(out.y);
            state = [Some(out.h), out.c];
        }
        if self.outputs(0).start > 0 {
            outputs.reverse();
        }
        let y = join_all(outputs, self.time_axis())?.expect("each segment has outputs");
        let stack = |states: Vec<Option<Tensor>>| -> Result<Option<Tensor>> {
            let joined = join_all(states, 0)?;
            joined.map(|t| t.reshape(&[1, t.dims()[0], t.dims()[1], t.dims()[2]])).transpose()
        };
        let [h, c] = before;
        let h = stack(h)?.expect("each segment has a state before it");
        let checkpoints = Checkpoints::new(h, stack(c)?);
        let [h, c] = state;
        Ok(Checkpointed { y, h: h.expect("there is a segment"), c, checkpoints })
    }

    fn backward(&self, kept: &Checkpoints, by: &OutputGradients<'_>, wanted: Wanted) -> Result<Gradients> {
        let mut order = self.order();
        let first = order[0];
        order.reverse();
        let mut dx = vec![None; order.len()];
        let mut carried = [self.own(by.h)?, self.own(by.c)?];
        let mut weights: Option<TrainingWeights<Tensor>> = None;
        for n in order {
            let checkpoint = |t: Option<&Tensor>| -> Result<Option<Tensor>> {
                let before = t.map(|t| part(t, 1, n..n + 1)).transpose()?;
                let own = self.own(before.as_ref())?;
                own.map(|t| t.reshape(&[1, t.dims()[2], t.dims()[3]])).transpose()
            };
            let state = match n == first {
                true => self.start()?,
                false => [checkpoint(Some(&kept.h))?, checkpoint(kept.c.as_ref())?],
            };
            let segment = self.segment(n, state)?;
            let args = self.args(&segment);
            let out = self.layer.forward(&segment.x, self.weights(), &args)?;
            let width = self.call.width;
            let dy = by.y.map(|dy| {
                let own = part(dy, self.time_axis(), self.outputs(n))?;
                part(&own, 2, self.direction * width..(self.direction + 1) * width)
            });
            let dy = dy.transpose()?;
            let [dh, dc] = &carried;
            let by = OutputGradients { y: dy.as_ref(), h: dh.as_ref(), c: dc.as_ref(), rest: by.rest };
            let wanted = Wanted { states: wanted.states || n != first, ..wanted };
            let g = self.layer.backward(&segment.x, self.weights(), &args, &out.reserve, &by, wanted)?;
            dx[n] = g.x;
            carried = [g.h0, g.c0];
            if let Some(own) = g.weights.into_iter().next() {
                weights = Some(match weights {
                    Some(sum) => add(sum, own)?,
                    None => own,
                });
            }
        }
        let [h0, c0] = carried;
        Ok(Gradients { x: join_all(dx, self.time_axis())?, h0, c0, weights: weights.into_iter().collect() })
    }
}

/// The sums of the gradients of two segments by each weight.
fn add(a: TrainingWeights<Tensor>, b: TrainingWeights<Tensor>) -> Result<TrainingWeights<Tensor>> {
    let mut sums = [const { None }; 9];
    for ((sum, a), b) in sums.iter_mut().zip(a.into_list()).zip(b.into_list()) {
        *sum = a.zip(b).map(|(a, b)| a.add(&b)).transpose()?;
    }
    Ok(TrainingWeights::from_list(sums).expect("both have a w_ih"))
}

impl TrainingLayer {
    fn tracks<'a>(
        &'a self,
        call: TrainingCall<'a>,
        args: &TrainingArgs<'a>,
    ) -> impl ExactSizeIterator<Item = Track<'a>> {
        let args = *args;
        (0..self.directions.len()).map(move |direction| {
            let layer = self.apart.get(direction).unwrap_or(self);
            Track { layer, call, args, direction }
        })
    }

    /// [`Self::forward`] that keeps the states of every ⌈√T⌉-th timestep alone. It computes the same bits on the CPU.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_with_checkpoints(
        &self,
        x: &Tensor,
        weights: &[TrainingWeights<&Tensor>],
        args: &TrainingArgs<'_>,
    ) -> Result<Checkpointed> {
        let call = self.resolve(FORWARD, x, weights, args)?;
        if let Some(ids) = args.ids {
            let args = TrainingArgs { ids: None, ..*args };
            return self.forward_with_checkpoints(&x.gather(ids)?, weights, &args);
        }
        let mut all = Vec::new();
        for track in self.tracks(call, args) {
            all.push(track.forward()?);
        }
        let each = |of: fn(&Checkpointed) -> Option<&Tensor>| all.iter().map(|t| of(t).cloned()).collect::<Vec<_>>();
        let required = |of: fn(&Checkpointed) -> Option<&Tensor>, axis: usize| -> Result<Tensor> {
            Ok(join_all(each(of), axis)?.expect("each direction has it"))
        };
        let checkpoints = Checkpoints::new(
            required(|t| Some(&t.checkpoints.h), 0)?,
            join_all(each(|t| t.checkpoints.c.as_ref()), 0)?,
        );
        Ok(Checkpointed {
            y: required(|t| Some(&t.y), 2)?,
            h: required(|t| Some(&t.h), 0)?,
            c: join_all(each(|t| t.c.as_ref()), 0)?,
            checkpoints,
        })
    }

    /// [`Self::backward`] of a call of [`Self::forward_with_checkpoints`], which has returned `kept` for the same input,
    /// weights and arguments. Gradients by weights are sums over the segments, and the carried gradient is rounded between
    /// them, so the last bits may differ from those of [`Self::backward`].
    ///
    /// # Errors
    /// As [`Self::forward`].
    #[expect(clippy::too_many_arguments, reason = "what forward took, what it kept, and what is asked for")]
    pub fn backward_from_checkpoints(
        &self,
        x: &Tensor,
        weights: &[TrainingWeights<&Tensor>],
        args: &TrainingArgs<'_>,
        kept: &Checkpoints,
        by: &OutputGradients<'_>,
        wanted: Wanted,
    ) -> Result<Gradients> {
        let call = self.resolve_checkpoints(x, weights, args, kept, by)?;
        if let Some(ids) = args.ids {
            let args = TrainingArgs { ids: None, ..*args };
            let mut out = self.backward_from_checkpoints(&x.gather(ids)?, weights, &args, kept, by, wanted)?;
            out.x = out.x.map(|dx| dx.sum_rows(ids, x.dims()[0])).transpose()?;
            return Ok(out);
        }
        let mut all = Vec::new();
        for track in self.tracks(call, args) {
            all.push(track.backward(kept, by, wanted)?);
        }
        let states = |of: fn(&Gradients) -> Option<&Tensor>| {
            let given = all.iter().map(|g| of(g).cloned().filter(|_| wanted.states)).collect();
            join_all(given, 0)
        };
        let (h0, c0) = (states(|g| g.h0.as_ref())?, states(|g| g.c0.as_ref())?);
        let mut x = None;
        let mut weights = Vec::new();
        for g in all {
            x = match (x, g.x) {
                (None, own) => own,
                (Some(sum), Some(own)) => Some(Tensor::add(&sum, &own)?),
                (sum, None) => sum,
            };
            weights.extend(g.weights);
        }
        Ok(Gradients { x, h0, c0, weights })
    }
}
