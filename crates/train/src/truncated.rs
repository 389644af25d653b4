//! Backpropagation through time that ends after some timesteps.

use crate::error::check;
use crate::step::TRAINING;
use crate::{Batch, Error, Result, StepResult, Training};
use recurve_tensor::Tensor;

const TRUNCATED: &str = "step_truncated";

impl Training {
    /// Truncated backpropagation through time: cuts the sequences of a batch in pieces of so many timesteps, of which the
    /// last may have fewer, and takes a step for each. A piece begins with the final states of the one before, through
    /// which no gradient flows; PyTorch programs call `detach` on them. The first piece begins as a step of the whole
    /// batch does.
    ///
    /// Inputs, targets, weights of samples, the mask and the lengths are cut. Weights that have no axis of timesteps hold
    /// for every piece. What is drawn, such as a dropout, is drawn anew for each piece.
    ///
    /// The whole batch is checked before the first step. If a later step fails on the device, the steps before it remain.
    ///
    /// # Errors
    /// [`Error::Option`] if `timesteps` is 0, and for an output without the timesteps of the input; the network's error
    /// for a layer that reads backwards or several timesteps at once; otherwise as [`Self::step`].
    pub fn step_truncated(&mut self, batch: &Batch<'_>, timesteps: usize) -> Result<Vec<StepResult>> {
        let all = self.check_truncated(batch, timesteps)?;
        let axis = usize::from(!self.graph.time_major);
        let mut results: Vec<StepResult> = Vec::new();
        for first in (0..all).step_by(timesteps) {
            let range = first..all.min(first.saturating_add(timesteps));
            let cut = |t: &Tensor| t.slice(axis, range.clone());
            let inputs = batch.inputs.iter().copied().map(cut).collect::<Result<Vec<_>, _>>()?;
            let targets = batch.targets.iter().copied().map(cut).collect::<Result<Vec<_>, _>>()?;
            let of_time = |t: &&Tensor| t.dims().get(axis) == Some(&all) && t.dims().len() > 1;
            let weights = batch.sample_weights.filter(of_time).map(cut).transpose()?;
            let mask = batch.mask.map(|t| t.slice(1, range.clone())).transpose()?;
            let lengths = batch.lengths.map(|t| t.lengths_within(range.clone())).transpose()?;
            let [inputs, targets] = [&inputs, &targets].map(|all| all.iter().collect::<Vec<_>>());
            let piece = Batch {
                inputs: &inputs,
                targets: &targets,
                sample_weights: weights.as_ref().or(batch.sample_weights),
                mask: mask.as_ref(),
                lengths: lengths.as_ref(),
                states: results.last().map(|r| &r.states[..]).or(batch.states),
            };
            results.push(self.step(&piece)?);
        }
        Ok(results)
    }

    /// The number of timesteps of a batch that can be cut.
    fn check_truncated(&self, batch: &Batch<'_>, timesteps: usize) -> Result<usize> {
        check(TRUNCATED, "timesteps", timesteps > 0, || "must be at least 1".into())?;
        self.network.check_parts()?;
        for (output, timed) in self.network.config().outputs.iter().zip(&self.graph.keeps_time) {
            check(TRUNCATED, "network", *timed, || {
                format!("must have outputs with the timesteps of the input, which `{}` has not", output.name)
            })?;
        }
        let axis = usize::from(!self.graph.time_major);
        let time = |t: &Tensor| t.dims().get(axis).copied().filter(|_| t.dims().len() > 1);
        let all = batch.inputs.first().and_then(|t| time(t));
        let Some(all) = all else {
            check(TRAINING, "inputs", !batch.inputs.is_empty(), || "must be at least 1, but there are 0".into())?;
            let got = batch.inputs[0].shape().to_string();
            return Err(Error::Operand { of: TRUNCATED, argument: "inputs", expected: "of sequences".into(), got });
        };
        let each = |argument, tensors: &[&Tensor], axis: usize| {
            for t in tensors {
                if t.dims().get(axis) != Some(&all) {
                    let expected = format!("of {all} timesteps along axis {axis}");
                    return Err(Error::Operand { of: TRUNCATED, argument, expected, got: t.shape().to_string() });
                }
            }
            Ok(())
        };
        each("inputs", batch.inputs, axis)?;
        each("targets", batch.targets, axis)?;
        batch.mask.map_or(Ok(()), |mask| each("mask", &[mask], 1))?;
        if let Some(lengths) = batch.lengths {
            check(TRUNCATED, "lengths", lengths.bound() as usize <= all, || {
                format!("may be {}, but there are only {all} timesteps", lengths.bound())
            })?;
        }
        Ok(all)
    }
}
