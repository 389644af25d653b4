//! Cross-entropies of logits with the numbers of their classes (`cross_entropy.wgsl`).

use crate::cpu::functions::{Vectors, map};
use crate::cpu::threads::prelude::*;
use crate::{DType, Device, Error, Reduction, Result, Tensor};

const NAME: &str = "cross_entropy";

/// Elements of the rows that a thread computes at a time, at least.
const PART: usize = 1 << 15;

/// What a target that is smoothed by `s` has more in its own class than in the others, and what it has in those.
pub(crate) fn shares(s: f32, classes: usize) -> (f32, f32) {
    (1.0 - s, s / classes as f32)
}

impl Tensor {
    /// The cross-entropies `-Σ y ln p` of rows of logits `[…, C]` with the numbers of their classes, `[…]`: p is the
    /// softmax, y 1 in the class, or with the smoothing s `1 - s + s / C` there and `s / C` elsewhere. Also the
    /// logarithms of the sums of exponentials, `[…]`, which [`Self::cross_entropy_gradient`] needs. Nothing else of the
    /// size of the logits is computed. A label that is no class gives NaN.
    ///
    /// # Errors
    /// [`Error::DType`] unless the logits are f32 and the labels f32 or U32, [`Error::Shape`] unless there is a label
    /// for each row, [`Error::Argument`] for a smoothing outside of `[0, 1]`, [`Error::Device`] for operands on
    /// different devices.
    pub fn cross_entropy(&self, labels: &Self, smoothing: f32) -> Result<(Self, Self)> {
        self.check_labels(labels, smoothing)?;
        let last = self.shape().rank() - 1;
        let result = self.shape().leading(last);
        let sums = self.reduce(Reduction::LogSumExp, last)?.reshape(result.dims())?;
        let means = if smoothing > 0.0 { self.reduce(Reduction::Mean, last)? } else { sums.clone() };
        let values = match self.device() {
            Device::Cpu => {
                let classes = self.shape().last();
                let (own, share) = shares(smoothing, classes);
                let x = self.cpu_f32().expect("f32 on the CPU");
                let [s, m] = [&sums, &means].map(|t| t.cpu_f32().expect("f32 on the CPU"));
                let class = class_of(labels, classes);
                Self::cpu_write(result, |out| {
                    for (row, o) in out.iter_mut().enumerate() {
                        let mean = if share > 0.0 { share * classes as f32 * m[row] } else { 0.0 };
                        *o = class(row).map_or(f32::NAN, |c| s[row] - own * x[row * classes + c] - mean);
                    }
                    Ok(())
                })?
            }
            Device::Gpu(gpu) => gpu.cross_entropy(self, labels, [&sums, &means], smoothing)?,
        };
        Ok((values, sums))
    }

    /// The gradient of the logits of [`Self::cross_entropy`], from those of its values and from the sums that it gave:
    /// `dy (p - y)`, exactly 0 where dy is 0.
    ///
    /// # Errors
    /// As [`Self::cross_entropy`]; [`Error::Shape`] unless sums and gradients are one for each row.
    pub fn cross_entropy_gradient(&self, labels: &Self, [sums, dy]: [&Self; 2], smoothing: f32) -> Result<Self> {
        self.check_labels(labels, smoothing)?;
        for (argument, t) in [("sums", sums), ("dy", dy)] {
            t.check_dtype(NAME, argument, "f32", t.dtype() == DType::F32)?;
            self.check_same_device(t, NAME, argument)?;
            if t.shape().count() != labels.shape().count() {
                return Err(Error::shape(NAME, argument, labels.shape().to_string(), t.shape()));
            }
        }
        match self.device() {
            Device::Cpu => {
                let classes = self.shape().last();
                let (own, share) = shares(smoothing, classes);
                let x = self.cpu_f32().expect("f32 on the CPU");
                let [s, dy] = [sums, dy].map(|t| t.cpu_f32().expect("f32 on the CPU"));
                let class = class_of(labels, classes);
                let rows = PART.div_ceil(classes);
                Self::cpu_write(*self.shape(), |out| {
                    out.par_chunks_mut(rows * classes).enumerate().for_each(|(n, out)| {
                        for (row, out) in out.chunks_exact_mut(classes).enumerate() {
                            let row = n * rows + row;
                            if dy[row] == 0.0 {
                                out.fill(0.0);
                                continue;
                            }
                            shares_into(&x[row * classes..][..classes], s[row], out);
                            if let Some(c) = class(row) {
                                out[c] -= own;
                            }
                            out.iter_mut().for_each(|o| *o = dy[row] * (*o - share));
                        }
                    });
                    Ok(())
                })
            }
            Device::Gpu(gpu) => gpu.cross_entropy_gradient(self, labels, [sums, dy], smoothing),
        }
    }

    fn check_labels(&self, labels: &Self, smoothing: f32) -> Result<()> {
        self.check_dtype(NAME, "self", "f32", self.dtype() == DType::F32)?;
        labels.check_dtype(NAME, "labels", "f32 or u32", labels.dtype() != DType::F16)?;
        self.check_same_device(labels, NAME, "labels")?;
        let rank = self.shape().rank();
        if rank == 0 || labels.shape().count() != self.shape().count() / self.shape().last() {
            let expected = format!("one for each row of {}", self.shape());
            return Err(Error::shape(NAME, "labels", expected, labels.shape()));
        }
        if !(0.0..=1.0).contains(&smoothing) {
            let message = format!("must be in [0, 1], but it is {smoothing}");
            return Err(Error::Argument { operation: NAME, argument: "smoothing", message });
        }
        Ok(())
    }
}

/// `e^(x - sum)`
pub(super) fn shares_into(x: &[f32], sum: f32, out: &mut [f32]) {
    let mut less = [0.0; 256];
    for (x, out) in x.chunks(256).zip(out.chunks_mut(256)) {
        let less = &mut less[..x.len()];
        less.iter_mut().zip(x).for_each(|(l, v)| *l = v - sum);
        map(Vectors::Exp, less, out);
    }
}

/// The classes of labels on the CPU, by their place; `None` for a label that is none. Fractions are cut off.
pub(super) fn class_of(labels: &Tensor, classes: usize) -> Box<dyn Fn(usize) -> Option<usize> + Sync + '_> {
    match (labels.cpu_u32(), labels.cpu_f32()) {
        (Some(l), _) => Box::new(move |n| Some(l[n] as usize).filter(|&c| c < classes)),
        (_, Some(l)) => Box::new(move |n| (l[n] >= 0.0).then_some(l[n] as usize).filter(|&c| c < classes)),
        _ => unreachable!("checked to be f32 or U32 on the CPU"),
    }
}
