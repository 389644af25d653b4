//! Gradients and weights as one array in host memory, for any engine that sums arrays.

use crate::error::check;
use crate::plan::{Ran, Wanted};
use crate::{Batch, Result, Training};
use core::ops::Range;
use recurve_tensor::Tensor;

const FLAT: &str = "flat";

/// A weight in a flat array.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FlatPart {
    /// Its name.
    pub name: String,
    /// Its dimensions, row-major.
    pub shape: Vec<usize>,
    /// Where its elements are.
    pub range: Range<usize>,
    /// Whether the part is a gradient. Otherwise it is what a running mean or variance becomes.
    pub trained: bool,
}

impl Training {
    /// What is where in the arrays of [`Self::flat_gradients`]: the gradients in the order of [`Self::names`], then the
    /// weights that a step changes by itself. Equal networks have equal layouts, on any device and in any process.
    pub fn flat_layout(&self) -> Vec<FlatPart> {
        let trained = self.weights.iter().filter(|w| w.trained);
        let moved = self.graph.updates.iter().filter_map(|(name, _)| self.weights.iter().find(|w| w.name == *name));
        let mut next = 0;
        let parts = trained.chain(moved).map(|w| {
            let first = next;
            next += w.value.shape().count();
            FlatPart { name: w.name.clone(), shape: w.value.dims().to_vec(), range: first..next, trained: w.trained }
        });
        parts.collect()
    }

    /// The length of the arrays of [`Self::flat_gradients`]: the elements of [`Self::flat_layout`], then the loss and the
    /// weight.
    pub fn flat_len(&self) -> usize {
        self.flat_layout().last().map_or(0, |part| part.range.end) + 2
    }

    /// The loss of a part of a batch, and an array with its gradients times `weight`, without a limit, with the loss times
    /// `weight` and `weight` itself at the end. The sum of such arrays from all parts goes to [`Self::apply_flat`] in every
    /// process. Nothing changes here.
    ///
    /// With the number of samples of the part as `weight`, the step is that of the whole batch if the loss is the mean
    /// over samples, or over samples and timesteps. Where the loss is the mean over what a mask or lengths let count, the
    /// weight is the number of what counts. A part without samples gives zeros. What is drawn depends on the seed, so each
    /// process should have another one.
    ///
    /// # Errors
    /// [`Error::Option`] for a weight that is not finite and above 0; otherwise as [`Self::step`].
    pub fn flat_gradients(&mut self, batch: &Batch<'_>, weight: f32) -> Result<(f32, Vec<f32>)> {
        check(FLAT, "weight", weight > 0.0 && weight.is_finite(), || {
            format!("must be finite and above 0, but it is {weight}")
        })?;
        let Ran { result, rest: parts, .. } = self.run(batch, Wanted::Parts)?;
        let mut flat = recurve_tensor::cpu::host::<f32>("Training::flat_gradients", self.flat_len())?;
        let loss = result.loss.to_vec()?[0];
        for (part, tensor) in self.flat_layout().into_iter().zip(parts) {
            let own = &mut flat[part.range];
            tensor.read_into(own)?;
            own.iter_mut().for_each(|v| *v *= weight);
        }
        let end = flat.len() - 2;
        flat[end..].copy_from_slice(&[weight * loss, weight]);
        Ok((loss, flat))
    }

    /// Takes a step by the sum of the arrays of [`Self::flat_gradients`]: divides it by the sum of the weights at its end,
    /// limits the gradients as [`StepOptions`](crate::StepOptions) say, and updates weights and states. Returns the mean
    /// loss. As the array is divided by its own last element, the mean of the arrays does as well as their sum. In mixed
    /// precision a gradient that is not finite makes it a step that is skipped, in every process.
    ///
    /// # Errors
    /// [`Error::Option`] for another length, for a sum of weights that is not above 0, and for elements that are not finite,
    /// with the weight's name; errors of the device. After an error nothing has changed.
    pub fn apply_flat(&mut self, sum: &[f32]) -> Result<f32> {
        let layout = self.flat_layout();
        let len = self.flat_len();
        check(FLAT, "sum", sum.len() == len, || format!("must have {len} elements, but it has {}", sum.len()))?;
        let (loss, weight) = (sum[len - 2], sum[len - 1]);
        check(FLAT, "sum", weight > 0.0 && weight.is_finite(), || {
            format!("must end with a weight that is finite and above 0, but it is {weight}")
        })?;
        let device = self.device().clone();
        let (mut gradients, mut moved) = (Vec::new(), Vec::new());
        for part in &layout {
            let mean: Vec<f32> = sum[part.range.clone()].iter().map(|v| v / weight).collect();
            let skips = part.trained && self.options().mixed_precision.is_some();
            check(FLAT, "sum", skips || mean.iter().all(|v| v.is_finite()), || {
                format!("is not finite in `{}`", part.name)
            })?;
            let mean = Tensor::from_f32(&mean, &part.shape, &device)?;
            match part.trained {
                true => gradients.push(mean),
                false => moved.push((&part.name, mean)),
            }
        }
        self.apply(&gradients.iter().collect::<Vec<_>>(), self.options().clip)?;
        for (name, mean) in moved {
            let own = self.weights.iter_mut().find(|w| w.name == *name);
            own.expect("a weight of the layout").value = mean;
        }
        self.revise();
        Ok(loss / weight)
    }

    /// All weights as one array, those that are not trained too: what one process gives to the others before the first
    /// step, so that all begin with the same.
    ///
    /// # Errors
    /// Errors of reading the device.
    pub fn flat_weights(&self) -> Result<Vec<f32>> {
        let len = self.weights.iter().map(|w| w.value.shape().count()).sum();
        let mut flat = recurve_tensor::cpu::host::<f32>("Training::flat_weights", len)?;
        let mut next = 0;
        for w in &self.weights {
            let own = next..next + w.value.shape().count();
            next = own.end;
            w.value.read_into(&mut flat[own])?;
        }
        Ok(flat)
    }

    /// Takes over the weights of [`Self::flat_weights`] of an equal network. The states of the optimiser and the number of
    /// steps stay.
    ///
    /// # Errors
    /// [`Error::Option`] for another length or an element that is not finite; errors of the device. After an error nothing
    /// has changed.
    pub fn set_flat_weights(&mut self, weights: &[f32]) -> Result<()> {
        let len: usize = self.weights.iter().map(|w| w.value.shape().count()).sum();
        check(FLAT, "weights", weights.len() == len, || {
            format!("must have {len} elements, but there are {}", weights.len())
        })?;
        let device = self.device().clone();
        let mut rest = weights;
        let mut values = Vec::with_capacity(self.weights.len());
        for w in &self.weights {
            let (own, others) = rest.split_at(w.value.shape().count());
            check(FLAT, "weights", own.iter().all(|v| v.is_finite()), || format!("is not finite in `{}`", w.name))?;
            values.push(Tensor::from_f32(own, w.value.dims(), &device)?);
            rest = others;
        }
        for (w, value) in self.weights.iter_mut().zip(values) {
            w.value = value;
        }
        self.revise();
        Ok(())
    }
}
