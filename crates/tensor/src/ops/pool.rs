//! Pooling: maxima, means and norms of windows over up to three axes (`pool.wgsl`).

use super::window::{Sliding, Window};
use crate::cpu::simd_arch;
use crate::{DType, Device, Error, MAX_RANK, Result, Shape, Tensor};

/// What a pooling makes of the elements of a window that stand on the axes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pooling {
    /// The largest; NaN if there is one.
    Max,
    /// Their mean. With `padded` also the padding counts, as zeros, not what lies behind it.
    Average {
        /// See above.
        padded: bool,
    },
    /// The p-th root of the sum of the p-th powers of their absolute values.
    Norm {
        /// p
        p: u32,
    },
}

/// A pooling: every operand has been checked.
pub(crate) struct Pool<'a> {
    pub(crate) x: &'a Tensor,
    pub(crate) sliding: Sliding,
    pub(crate) shape: Shape,
}

impl Tensor {
    /// A number for each of `counts` windows over the last axes of `[N, C, …]`. More windows than there are whole
    /// ones go beyond the padding behind an axis.
    ///
    /// # Errors
    /// [`Error::DType`] unless it is f32; [`Error::Argument`] if windows and axes do not fit each other, a norm's p is
    /// 0, or windows have more elements than an invocation of this GPU goes through.
    pub fn pool(&self, pooling: Pooling, windows: &[Window], counts: &[usize]) -> Result<Self> {
        let pool = self.pooled("pool", windows, counts)?;
        if pooling == (Pooling::Norm { p: 0 }) {
            let message = "is 0, but must be at least 1".into();
            return Err(Error::Argument { operation: "pool", argument: "p", message });
        }
        match self.device() {
            Device::Cpu => Self::cpu_write(pool.shape, |out| {
                simd_arch().dispatch(|| pool.on_cpu(pooling, out));
                Ok(())
            }),
            Device::Gpu(gpu) => gpu.pool(&pool, pooling),
        }
    }

    /// Where the largest element of each window stands in the whole tensor, the first of several: a U32 tensor. With
    /// `column_major` the last axes are counted as if the first of them were the innermost.
    ///
    /// # Errors
    /// As [`Self::pool`]; [`Error::Shape`] if there are more than 2^32 elements.
    pub fn max_pool_indices(&self, windows: &[Window], counts: &[usize], column_major: bool) -> Result<Self> {
        let pool = self.pooled("max_pool_indices", windows, counts)?;
        let Ok(bound) = u32::try_from(self.shape().count() - 1) else {
            return Err(Error::shape("max_pool_indices", "self", "of at most 2^32 elements", self.shape()));
        };
        match self.device() {
            Device::Cpu => Self::cpu_u32_write(pool.shape, bound, |out| pool.indices(column_major, out)),
            Device::Gpu(gpu) => Ok(gpu.max_pool_indices(&pool, column_major)?.with_bound(bound)),
        }
    }

    fn pooled(&self, operation: &'static str, windows: &[Window], counts: &[usize]) -> Result<Pool<'_>> {
        self.check_dtype(operation, "self", "f32", self.dtype() == DType::F32)?;
        if self.shape().rank() != windows.len() + 2 || counts.len() != windows.len() || counts.contains(&0) {
            let message =
                format!("are {} for {counts:?} windows over the last axes of {}", windows.len(), self.shape());
            return Err(Error::Argument { operation, argument: "windows", message });
        }
        let sliding = Sliding::new(operation, self, windows, &self.dims()[2..], counts)?;
        let mut dims = [1; MAX_RANK];
        dims[..2].copy_from_slice(&self.dims()[..2]);
        dims[2..2 + counts.len()].copy_from_slice(counts);
        Ok(Pool { x: self, sliding, shape: Shape::checked(operation, &dims[..2 + counts.len()])? })
    }
}

impl Pool<'_> {
    #[inline(always)]
    fn on_cpu(&self, pooling: Pooling, out: &mut [f32]) {
        match pooling {
            Pooling::Max => self.fold(f32::NEG_INFINITY, out, |m, v| if m.is_nan() || v <= m { m } else { v }),
            Pooling::Average { padded } => {
                self.fold(0.0, out, |s, v| s + v);
                self.divide(padded, out);
            }
            Pooling::Norm { p: 1 } => self.fold(0.0, out, |s, v| s + v.abs()),
            Pooling::Norm { p: 2 } => {
                self.fold(0.0, out, |s, v| s + v * v);
                out.iter_mut().for_each(|o| *o = o.sqrt());
            }
            Pooling::Norm { p } => {
                let p = p as f32;
                self.fold(0.0, out, |s, v| s + v.abs().powf(p));
                out.iter_mut().for_each(|o| *o = o.powf(1.0 / p));
            }
        }
    }

    #[inline(always)]
    fn fold(&self, start: f32, out: &mut [f32], f: impl Fn(f32, f32) -> f32) {
        let Sliding { windows, seen, counts } = &self.sliding;
        let x = self.x.cpu_f32().expect("f32 on the CPU");
        let spans = self.sliding.spans();
        let planes = x.chunks_exact(self.sliding.seen_count()).zip(out.chunks_exact_mut(self.sliding.window_count()));
        for (x, out) in planes {
            for (row, out) in out.chunks_exact_mut(counts[2]).enumerate() {
                out.fill(start);
                for s0 in &spans[0] {
                    let Some(i0) = s0.place(row / counts[1], windows[0].stride) else { continue };
                    for s1 in &spans[1] {
                        let Some(i1) = s1.place(row % counts[1], windows[1].stride) else { continue };
                        let x = &x[(i0 * seen[1] + i1) * seen[2]..][..seen[2]];
                        for s in spans[2].iter().filter(|s| s.first < s.end) {
                            let (out, x) = (&mut out[s.first..s.end], &x[s.at..]);
                            match windows[2].stride {
                                1 => out.iter_mut().zip(x).for_each(|(o, &x)| *o = f(*o, x)),
                                by => out.iter_mut().zip(x.iter().step_by(by)).for_each(|(o, &x)| *o = f(*o, x)),
                            }
                        }
                    }
                }
            }
        }
    }

    /// Divides sums by the number of elements of their windows.
    fn divide(&self, padded: bool, out: &mut [f32]) {
        let Sliding { windows, seen, counts } = &self.sliding;
        // Elements that count along an axis, for each window.
        let along: [Vec<f32>; 3] = core::array::from_fn(|n| {
            let w = windows[n];
            let (begin, end) = if padded { (0, w.before + seen[n] + w.after) } else { (w.before, w.before + seen[n]) };
            let inside =
                |o: usize| (0..w.size).filter(move |t| (begin..end).contains(&(o * w.stride + t * w.dilation)));
            (0..counts[n]).map(|o| inside(o).count() as f32).collect()
        });
        for (row, out) in out.chunks_exact_mut(counts[2]).enumerate() {
            let row = row % (counts[0] * counts[1]);
            let outer = along[0][row / counts[1]] * along[1][row % counts[1]];
            out.iter_mut().zip(&along[2]).for_each(|(o, &n)| *o /= (outer * n).max(1.0));
        }
    }

    fn indices(&self, column_major: bool, out: &mut [u32]) {
        let Sliding { windows, seen, counts } = &self.sliding;
        let x = self.x.cpu_f32().expect("f32 on the CPU");
        let plane = self.sliding.seen_count();
        let spans = self.sliding.spans();
        for (e, o) in out.iter_mut().enumerate() {
            let (channel, window) = (e / self.sliding.window_count(), e % self.sliding.window_count());
            let at = [window / counts[2] / counts[1], window / counts[2] % counts[1], window % counts[2]];
            let x = &x[channel * plane..][..plane];
            let mut best: Option<(f32, usize)> = None;
            for i0 in spans[0].iter().filter_map(|s| s.place(at[0], windows[0].stride)) {
                for i1 in spans[1].iter().filter_map(|s| s.place(at[1], windows[1].stride)) {
                    for i2 in spans[2].iter().filter_map(|s| s.place(at[2], windows[2].stride)) {
                        let v = x[(i0 * seen[1] + i1) * seen[2] + i2];
                        if best.is_none_or(|(b, _)| super::reduce::is_above(v, b)) {
                            let place = match column_major {
                                true => (i2 * seen[1] + i1) * seen[0] + i0,
                                false => (i0 * seen[1] + i1) * seen[2] + i2,
                            };
                            best = Some((v, place));
                        }
                    }
                }
            }
            *o = (channel * plane + best.map_or(0, |(_, place)| place)) as u32;
        }
    }
}
