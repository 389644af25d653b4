//! Reductions along one axis (`reduce.wgsl`).

use crate::{DType, Device, Error, Result, Shape, Tensor};

/// Whether a precedes b when looking for the largest element: NaN precedes every number.
pub(super) fn is_above(a: f32, b: f32) -> bool {
    !b.is_nan() && (a.is_nan() || a > b)
}

/// The function computed by a reduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reduction {
    /// Sum.
    Sum,
    /// Arithmetic mean.
    Mean,
    /// Largest element.
    Max,
    /// Smallest element.
    Min,
}

/// Which element [`Tensor::arg_extreme`] looks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extreme {
    /// The smallest in place of the largest.
    pub smallest: bool,
    /// The last of several in place of the first.
    pub last: bool,
}

impl Tensor {
    /// Reduces `axis` to size 1.
    ///
    /// A sum of n elements has an error of at most `2⁻²³ · Σ|x|` on the CPU, which adds in f64, and of `20 · ⌈log₁₂₈ n⌉
    /// · 2⁻²⁴ · Σ|x|` on a GPU, which adds blocks of 128 elements, then blocks of the sums. A mean is the sum divided
    /// by n. f16 is summed in f32 and rounded once.
    ///
    /// # Errors
    /// [`crate::Error::DType`] unless `self` is a float tensor; [`crate::Error::Argument`] if there is no such axis.
    pub fn reduce(&self, reduction: Reduction, axis: usize) -> Result<Self> {
        self.check_float("reduce", "self")?;
        self.check_axis("reduce", axis)?;
        let a = Axis::of(self, axis);
        match self.device() {
            Device::Cpu if self.dtype() == DType::F16 => {
                self.to_dtype(DType::F32)?.reduce(reduction, axis)?.to_dtype(DType::F16)
            }
            Device::Cpu => {
                let x = self.cpu_f32().expect("f32 on the CPU");
                Self::cpu_write(a.result, |out| {
                    for (e, o) in out.iter_mut().enumerate() {
                        let values = a.values(e).map(|i| x[i]);
                        // A NaN anywhere makes the result NaN.
                        *o = match reduction {
                            Reduction::Sum => sum(values) as f32,
                            Reduction::Mean => (sum(values) / a.len as f64) as f32,
                            Reduction::Max => {
                                values.fold(f32::NEG_INFINITY, |m, v| if m.is_nan() || v <= m { m } else { v })
                            }
                            Reduction::Min => {
                                values.fold(f32::INFINITY, |m, v| if m.is_nan() || v >= m { m } else { v })
                            }
                        };
                    }
                    Ok(())
                })
            }
            Device::Gpu(gpu) => gpu.reduce(self, reduction, &a),
        }
    }

    /// The index of the largest element along `axis`, whose size becomes 1. Of equal elements the first counts; if
    /// there are NaNs, the result is the index of the first NaN, as in PyTorch and NumPy. A U32 tensor, usable with
    /// [`Self::gather`].
    ///
    /// # Errors
    /// As [`Self::reduce`].
    pub fn argmax(&self, axis: usize) -> Result<Self> {
        self.arg_extreme(axis, Extreme::default())
    }

    /// [`Self::argmax`] of the smallest element, or of the last of several.
    ///
    /// # Errors
    /// As [`Self::argmax`].
    pub fn arg_extreme(&self, axis: usize, which: Extreme) -> Result<Self> {
        self.check_float("argmax", "self")?;
        self.check_axis("argmax", axis)?;
        let a = Axis::of(self, axis);
        let Ok(bound) = u32::try_from(a.len - 1) else {
            return Err(Error::shape("argmax", "self", "of at most 2^32 elements along the axis", self.shape()));
        };
        match self.device() {
            Device::Cpu => {
                let wide = self.to_dtype(DType::F32)?;
                let x = wide.cpu_f32().expect("f32 on the CPU");
                Self::cpu_u32_write(a.result, bound, |out| {
                    for (e, o) in out.iter_mut().enumerate() {
                        let mut best = (0, f32::NEG_INFINITY);
                        for (n, i) in a.values(e).enumerate() {
                            let v = if which.smallest { -x[i] } else { x[i] };
                            if is_above(v, best.1) || (which.last && !is_above(best.1, v)) {
                                best = (n as u32, v);
                            }
                        }
                        *o = best.0;
                    }
                })
            }
            Device::Gpu(gpu) => Ok(gpu.argmax(self, &a, which)?.with_bound(bound)),
        }
    }
}

/// A sum in f64. Its error is smaller than that of rounding the result to f32.
pub(super) fn sum(values: impl Iterator<Item = f32>) -> f64 {
    values.map(f64::from).sum()
}

/// A tensor viewed as [outer, axis, inner].
pub(crate) struct Axis {
    pub(crate) len: usize,
    pub(crate) inner: usize,
    pub(crate) result: Shape,
}

impl Axis {
    pub(super) fn of(t: &Tensor, axis: usize) -> Self {
        let dims = t.dims();
        Self { len: dims[axis], inner: dims[axis + 1..].iter().product(), result: t.shape().with(axis, 1) }
    }

    /// The offsets of the elements that result `e` is computed from.
    pub(super) fn values(&self, e: usize) -> impl DoubleEndedIterator<Item = usize> + use<> {
        let base = (e / self.inner) * self.len * self.inner + e % self.inner;
        let inner = self.inner;
        (0..self.len).map(move |n| base + n * inner)
    }
}
