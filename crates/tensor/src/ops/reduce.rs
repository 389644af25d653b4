//! Reductions along axes (`reduce.wgsl`).

use super::binary::Operation;
use crate::cpu::simd_arch;
use crate::{DType, Device, Error, MAX_RANK, Result, Shape, Tensor};

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
    /// Product.
    Product,
    /// Sum of absolute values.
    L1,
    /// Root of the sum of squares.
    L2,
    /// Sum of squares.
    SumSquare,
    /// Logarithm of the sum.
    LogSum,
    /// Logarithm of the sum of `e^x`.
    LogSumExp,
}

/// What is done to elements before they are reduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "gpu"), expect(dead_code, reason = "steps of GPUs"))]
pub(crate) enum Before {
    Nothing,
    Absolute,
    Square,
}

/// What is done to what they are reduced to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "gpu"), expect(dead_code, reason = "steps of GPUs"))]
pub(crate) enum After {
    Nothing,
    Root,
    Logarithm,
    /// 0 in place of an infinity.
    Finite,
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
        self.reduced(reduction, &Axis::of(self, axis))
    }

    /// Reduces each of `axes` to size 1, all together. With no axes elements are reduced each by itself: to its
    /// square, for example.
    ///
    /// # Errors
    /// As [`Self::reduce`]; [`Error::Argument`] if an axis is named twice.
    pub fn reduce_axes(&self, reduction: Reduction, axes: &[usize]) -> Result<Self> {
        let operation = "reduce";
        self.check_float(operation, "self")?;
        let rank = self.shape().rank();
        let mut is_reduced = [false; MAX_RANK];
        for &axis in axes {
            self.check_axis(operation, axis)?;
            if std::mem::replace(&mut is_reduced[axis], true) {
                let message = format!("name {axis} more than once: {axes:?}");
                return Err(Error::Argument { operation, argument: "axes", message });
            }
        }
        let result = axes.iter().fold(*self.shape(), |shape, &axis| shape.with(axis, 1));
        // Axes of size 1 are anything.
        let counted = || (0..rank).filter(|&n| self.dims()[n] > 1);
        let Some(first) = counted().find(|&n| is_reduced[n]) else {
            return self.reduced(reduction, &Axis { len: 1, inner: 1, result });
        };
        let last = counted().rfind(|&n| is_reduced[n]).expect("there is a first");
        if counted().all(|n| is_reduced[n] == (first..=last).contains(&n)) {
            let sizes = |range: std::ops::Range<usize>| self.dims()[range].iter().product();
            let axis = Axis { len: sizes(first..last + 1), inner: sizes(last + 1..rank), result };
            return self.reduced(reduction, &axis);
        }
        let mut order: smallvec::SmallVec<[usize; MAX_RANK]> = (0..rank).filter(|&n| !is_reduced[n]).collect();
        order.extend((0..rank).filter(|&n| is_reduced[n]));
        let len = self.shape().count() / result.count();
        self.transpose(&order)?.reduced(reduction, &Axis { len, inner: 1, result })
    }

    fn reduced(&self, reduction: Reduction, a: &Axis) -> Result<Self> {
        if self.dtype() == DType::F16 && (self.device() == Device::Cpu || reduction == Reduction::LogSumExp) {
            return self.to_dtype(DType::F32)?.reduced(reduction, a)?.to_dtype(DType::F16);
        }
        if reduction == Reduction::LogSumExp {
            if a.inner == 1
                && let Some(sums) = self.log_sums(a)?
            {
                return Ok(sums);
            }
            // e^(x - m) cannot overflow, where m is the maximum.
            let x = self.reshape(&[a.result.count() / a.inner, a.len, a.inner])?;
            let part = Axis::of(&x, 1);
            let highest = x.extreme(&part)?;
            let powers = x.binary(&highest, Operation::ExpSub)?;
            return powers.reduced(Reduction::LogSum, &part)?.add(&highest)?.reshape(a.result.dims());
        }
        match self.device() {
            Device::Cpu => {
                let x = self.cpu_f32().expect("f32 on the CPU");
                Self::cpu_write(a.result, |out| {
                    let n = a.len as f64;
                    simd_arch().dispatch(|| match reduction {
                        Reduction::Sum => a.fold(x, out, (0.0, |s, v| s + v, |a, b| a + b, |s| s)),
                        Reduction::Mean => a.fold(x, out, (0.0, |s, v| s + v, |a, b| a + b, |s| s / n)),
                        Reduction::L1 => a.fold(x, out, (0.0, |s, v| s + v.abs(), |a, b| a + b, |s| s)),
                        Reduction::L2 => a.fold(x, out, (0.0, |s, v| s + v * v, |a, b| a + b, f64::sqrt)),
                        Reduction::SumSquare => a.fold(x, out, (0.0, |s, v| s + v * v, |a, b| a + b, |s| s)),
                        Reduction::LogSum | Reduction::LogSumExp => {
                            a.fold(x, out, (0.0, |s, v| s + v, |a, b| a + b, f64::ln));
                        }
                        Reduction::Product => a.fold(x, out, (1.0, |s, v| s * v, |a, b| a * b, |s| s)),
                        Reduction::Max => a.fold(x, out, (f64::NEG_INFINITY, highest, highest, |s| s)),
                        Reduction::Min => a.fold(x, out, (f64::INFINITY, lowest, lowest, |s| s)),
                    });
                    Ok(())
                })
            }
            Device::Gpu(gpu) => gpu.reduce(self, reduction, After::Nothing, a),
        }
    }

    /// The maximum along an axis, 0 where that is infinite.
    fn extreme(&self, a: &Axis) -> Result<Self> {
        match self.device() {
            Device::Cpu => {
                let x = self.cpu_f32().expect("f32 on the CPU");
                let finite = |m: f64| if m.is_infinite() { 0.0 } else { m };
                Self::cpu_write(a.result, |out| {
                    a.fold(x, out, (f64::NEG_INFINITY, highest, highest, finite));
                    Ok(())
                })
            }
            Device::Gpu(gpu) => gpu.reduce(self, Reduction::Max, After::Finite, a),
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

// A NaN anywhere makes the result NaN.
#[inline(always)]
fn highest(m: f64, v: f64) -> f64 {
    if m.is_nan() || v <= m { m } else { v }
}

#[inline(always)]
fn lowest(m: f64, v: f64) -> f64 {
    if m.is_nan() || v >= m { m } else { v }
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

    /// Reduces in f64: `step` takes an element, `join` what several have come to, from `start` on.
    #[inline(always)]
    fn fold(
        &self,
        x: &[f32],
        out: &mut [f32],
        (start, step, join, end): (f64, impl Fn(f64, f64) -> f64, impl Fn(f64, f64) -> f64, impl Fn(f64) -> f64),
    ) {
        const LANES: usize = 8;
        const COLUMNS: usize = 64;
        if self.inner == 1 {
            for (o, row) in out.iter_mut().zip(x.chunks_exact(self.len)) {
                let (lanes, rest) = row.as_chunks::<LANES>();
                let mut all = [start; LANES];
                if !lanes.is_empty() {
                    for lane in lanes {
                        all.iter_mut().zip(lane).for_each(|(a, &v)| *a = step(*a, f64::from(v)));
                    }
                    all[0] = all[1..].iter().fold(all[0], |a, &b| join(a, b));
                }
                *o = end(rest.iter().fold(all[0], |a, &v| step(a, f64::from(v)))) as f32;
            }
            return;
        }
        let rows = x.chunks_exact(self.len * self.inner).zip(out.chunks_exact_mut(self.inner));
        for (x, out) in rows {
            for (n, out) in out.chunks_mut(COLUMNS).enumerate() {
                let mut all = [start; COLUMNS];
                let all = &mut all[..out.len()];
                for row in x.chunks_exact(self.inner) {
                    all.iter_mut().zip(&row[n * COLUMNS..]).for_each(|(a, &v)| *a = step(*a, f64::from(v)));
                }
                out.iter_mut().zip(all).for_each(|(o, a)| *o = end(*a) as f32);
            }
        }
    }

    /// The offsets of the elements that result `e` is computed from.
    pub(super) fn values(&self, e: usize) -> impl DoubleEndedIterator<Item = usize> + use<> {
        let base = (e / self.inner) * self.len * self.inner + e % self.inner;
        let inner = self.inner;
        (0..self.len).map(move |n| base + n * inner)
    }
}
