//! Convolution over up to three axes, and its transpose (`conv.wgsl`).

use super::window::{Sliding, Window};
use crate::cpu::{self, Gemm, simd_arch};
use crate::{DType, Device, Error, MAX_RANK, Result, Shape, Tensor};

/// Elements of the columns that a product takes at a time: they stay in the cache.
const COLUMNS: usize = 1 << 18;

/// Windows in a row from where on a row is long.
const LONG_ROW: usize = 16;

/// A convolution: every operand has been checked.
#[cfg_attr(not(feature = "gpu"), expect(dead_code, reason = "some fields are for GPUs only"))]
pub(crate) struct Conv<'a> {
    pub(crate) x: &'a Tensor,
    pub(crate) weight: &'a Tensor,
    pub(crate) bias: Option<&'a Tensor>,
    pub(crate) batch: usize,
    pub(crate) groups: usize,
    /// Channels of x of a group.
    pub(crate) inputs: usize,
    /// Channels of the result of a group.
    pub(crate) outputs: usize,
    /// Of a transpose the windows look at the result.
    pub(crate) sliding: Sliding,
    pub(crate) transposed: bool,
    pub(crate) shape: Shape,
}

impl Tensor {
    /// The sums of the windows of x, weighted: `[N, C, …]` with a weight `[M, C / groups, …]`, whose last axes are
    /// the windows, and a bias `[M]` gives `[N, M, …]`.
    ///
    /// Sums of n products are off by at most `n · 2⁻²⁴ · Σ|x w|`.
    ///
    /// # Errors
    /// [`Error::DType`] unless all are f32; [`Error::Shape`] and [`Error::Argument`] if they do not fit each other, or
    /// there is no window; [`Error::Device`] if they are on different devices.
    pub fn conv(&self, weight: &Self, bias: Option<&Self>, windows: &[Window], groups: usize) -> Result<Self> {
        let operation = "conv";
        let spatial = self.spatial(operation, windows)?;
        let counts: smallvec::SmallVec<[usize; 3]> =
            windows.iter().zip(spatial).map(|(w, &n)| w.count(n).unwrap_or(0)).collect();
        if counts.contains(&0) {
            let expected = format!("large enough for the windows {windows:?}");
            return Err(Error::shape(operation, "self", expected, self.shape()));
        }
        let sliding = Sliding::new(operation, self, windows, spatial, &counts)?;
        self.convolve(operation, weight, bias, sliding, groups, &counts, false)
    }

    /// The transpose of [`Self::conv`]: `[N, C, …]` with a weight `[C, M / groups, …]` gives `[N, M, …]`, whose last
    /// dimensions are `sizes`: what the windows of a convolution with these would have looked at. Padding is what it
    /// cuts off before them; `after` is not read.
    ///
    /// # Errors
    /// As [`Self::conv`].
    pub fn conv_transpose(
        &self,
        weight: &Self,
        bias: Option<&Self>,
        windows: &[Window],
        groups: usize,
        sizes: &[usize],
    ) -> Result<Self> {
        let operation = "conv_transpose";
        let spatial = self.spatial(operation, windows)?;
        if sizes.len() != windows.len() || sizes.contains(&0) {
            let message = format!("is {sizes:?}, but must be {} sizes of at least 1", windows.len());
            return Err(Error::Argument { operation, argument: "sizes", message });
        }
        let sliding = Sliding::new(operation, self, windows, sizes, spatial)?;
        self.convolve(operation, weight, bias, sliding, groups, sizes, true)
    }

    /// The axes that windows move over.
    fn spatial(&self, operation: &'static str, windows: &[Window]) -> Result<&[usize]> {
        self.check_dtype(operation, "self", "f32", self.dtype() == DType::F32)?;
        if self.shape().rank() != windows.len() + 2 {
            let expected = format!("[N, C, …] with {} more dimensions", windows.len());
            return Err(Error::shape(operation, "self", expected, self.shape()));
        }
        Ok(&self.dims()[2..])
    }

    #[expect(clippy::too_many_arguments, reason = "all that a convolution is told")]
    fn convolve(
        &self,
        operation: &'static str,
        weight: &Self,
        bias: Option<&Self>,
        sliding: Sliding,
        groups: usize,
        last: &[usize],
        transposed: bool,
    ) -> Result<Self> {
        let axes = last.len();
        let (batch, channels) = (self.dims()[0], self.dims()[1]);
        if groups == 0 || !channels.is_multiple_of(groups) {
            let message = format!("is {groups}, but must divide the {channels} channels of {}", self.shape());
            return Err(Error::Argument { operation, argument: "groups", message });
        }
        weight.check_dtype(operation, "weight", "f32", weight.dtype() == DType::F32)?;
        self.check_same_device(weight, operation, "weight")?;
        let inputs = channels / groups;
        let windows = &sliding.windows[3 - axes..];
        let fits = weight.shape().rank() == axes + 2
            && weight.dims()[2..].iter().zip(windows).all(|(&n, w)| n == w.size)
            && if transposed { weight.dims()[0] == channels } else { weight.dims()[1] == inputs };
        if !fits || (!transposed && !weight.dims()[0].is_multiple_of(groups)) {
            let sizes: Vec<usize> = windows.iter().map(|w| w.size).collect();
            let expected = match transposed {
                true => format!("[{channels}, M / {groups}] and then {sizes:?}"),
                false => format!("[M, {inputs}] and then {sizes:?}, with M a multiple of {groups}"),
            };
            return Err(Error::shape(operation, "weight", expected, weight.shape()));
        }
        let outputs = if transposed { weight.dims()[1] } else { weight.dims()[0] / groups };
        let all = outputs.saturating_mul(groups);
        if let Some(b) = bias {
            b.check_dtype(operation, "bias", "f32", b.dtype() == DType::F32)?;
            self.check_same_device(b, operation, "bias")?;
            if b.dims() != [all] {
                return Err(Error::shape(operation, "bias", format!("[{all}]"), b.shape()));
            }
        }
        let mut dims = [1; MAX_RANK];
        dims[..2].copy_from_slice(&[batch, all]);
        dims[2..2 + axes].copy_from_slice(last);
        let shape = Shape::checked(operation, &dims[..2 + axes])?;
        let conv = Conv { x: self, weight, bias, batch, groups, inputs, outputs, sliding, transposed, shape };
        match self.device() {
            Device::Cpu => conv.on_cpu(),
            Device::Gpu(gpu) => gpu.conv(&conv),
        }
    }
}

impl Conv<'_> {
    /// Elements of a channel of x and of the result.
    pub(crate) fn planes(&self) -> (usize, usize) {
        let (seen, windows) = (self.sliding.seen_count(), self.sliding.window_count());
        if self.transposed { (windows, seen) } else { (seen, windows) }
    }

    fn on_cpu(&self) -> Result<Tensor> {
        let x = self.x.cpu_f32().expect("f32 on the CPU");
        let w = self.weight.cpu_f32().expect("f32 on the CPU");
        let bias = self.bias.map(|b| b.cpu_f32().expect("f32 on the CPU"));
        let (from, to) = self.planes();
        let taps = self.sliding.taps();
        let part = self.inputs * self.outputs * taps;
        // Row by row where a channel is on its own, or rows are long enough for vectors; else products are faster.
        let windows = &self.sliding;
        let long = windows.windows[2].stride == 1 && windows.counts[2] >= LONG_ROW;
        let few = self.inputs == 1 || self.outputs == 1 && !self.transposed;
        let direct = self.inputs * self.outputs == 1 || few && long;
        Tensor::cpu_write(self.shape, |out| {
            if let Some(bias) = bias {
                out.chunks_exact_mut(to).zip(bias.iter().cycle()).for_each(|(row, &b)| row.fill(b));
            }
            let accumulate = bias.is_some();
            let xs = x.chunks_exact(self.inputs * from);
            let ws = w.chunks_exact(part).cycle();
            for ((x, w), out) in xs.zip(ws).zip(out.chunks_exact_mut(self.outputs * to)) {
                if direct {
                    if !accumulate {
                        out.fill(0.0);
                    }
                    simd_arch().dispatch(|| self.directly(x, w, out));
                } else if self.transposed {
                    if !accumulate {
                        out.fill(0.0);
                    }
                    self.scatter(x, w, out)?;
                } else if self.sliding.windows.iter().all(Window::is_pointwise) {
                    product(self.outputs, self.inputs, (w, self.inputs, 1), (x, from), out, to, to, accumulate);
                } else {
                    self.in_columns(x, w, out, accumulate)?;
                }
            }
            Ok(())
        })
    }

    /// A group without columns: for few channels, such as those of a depthwise convolution.
    #[inline(always)]
    fn directly(&self, x: &[f32], w: &[f32], out: &mut [f32]) {
        let (from, to) = self.planes();
        let taps = self.sliding.taps();
        let spans = self.sliding.spans();
        for (m, out) in out.chunks_exact_mut(to).enumerate() {
            for (c, x) in x.chunks_exact(from).enumerate() {
                let filter = if self.transposed { c * self.outputs + m } else { m * self.inputs + c };
                let w = &w[filter * taps..][..taps];
                let stride = self.sliding.windows[2].stride;
                self.rows(&spans, |first_tap, seen, windows| {
                    for (s, &w) in spans[2].iter().zip(&w[first_tap..]) {
                        let n = s.end - s.first;
                        if n == 0 {
                            continue;
                        }
                        let (windows, seen) = (windows + s.first..windows + s.end, seen + s.at);
                        match (self.transposed, stride) {
                            (false, 1) => add(&mut out[windows], &x[seen..seen + n], w),
                            (false, _) => {
                                let x = x[seen..].iter().step_by(stride);
                                out[windows].iter_mut().zip(x).for_each(|(o, &x)| *o += w * x);
                            }
                            (true, 1) => add(&mut out[seen..seen + n], &x[windows], w),
                            (true, _) => {
                                let out = out[seen..].iter_mut().step_by(stride);
                                out.zip(&x[windows]).for_each(|(o, &x)| *o += w * x);
                            }
                        }
                    }
                });
            }
        }
    }

    /// Calls `f` for every row of windows and every tap of the two outer axes that stands on the axes: with the first
    /// tap of the row, the first element that it looks at, and the first window.
    #[inline(always)]
    fn rows(
        &self,
        spans: &[smallvec::SmallVec<[super::window::TapSpan; 8]>; 3],
        mut f: impl FnMut(usize, usize, usize),
    ) {
        let Sliding { windows, seen, counts } = &self.sliding;
        for (a, first) in spans[0].iter().enumerate() {
            for o0 in first.first..first.end {
                let i0 = first.at + (o0 - first.first) * windows[0].stride;
                for (b, second) in spans[1].iter().enumerate() {
                    for o1 in second.first..second.end {
                        let i1 = second.at + (o1 - second.first) * windows[1].stride;
                        let tap = (a * windows[1].size + b) * windows[2].size;
                        f(tap, (i0 * seen[1] + i1) * seen[2], (o0 * counts[1] + o1) * counts[2]);
                    }
                }
            }
        }
    }

    /// A group as a product with the windows as columns, as many of them at a time as stay in the cache.
    fn in_columns(&self, x: &[f32], w: &[f32], out: &mut [f32], accumulate: bool) -> Result<()> {
        let Sliding { windows, seen, counts } = &self.sliding;
        let (from, to) = self.planes();
        let depth = self.inputs * self.sliding.taps();
        let (rows, width) = (counts[0] * counts[1], counts[2]);
        let columns = (COLUMNS / depth).clamp(1, width);
        let block = if columns == width { (COLUMNS / (depth * width)).clamp(1, rows) } else { 1 };
        let spans = self.sliding.spans();
        scratch(depth * block * columns, |all| {
            for row in (0..rows).step_by(block) {
                for first in (0..width).step_by(columns) {
                    let (row_end, end) = ((row + block).min(rows), (first + columns).min(width));
                    let n = (row_end - row) * (end - first);
                    let mut column = all.chunks_exact_mut(n);
                    for x in x.chunks_exact(from) {
                        for s0 in &spans[0] {
                            for s1 in &spans[1] {
                                for s2 in &spans[2] {
                                    let column = column.next().expect("a row for each tap of each channel");
                                    let parts = column.chunks_exact_mut(end - first);
                                    for (o, part) in (row..row_end).zip(parts) {
                                        let i0 = s0.place(o / counts[1], windows[0].stride);
                                        let i1 = s1.place(o % counts[1], windows[1].stride);
                                        let (Some(i0), Some(i1)) = (i0, i1) else {
                                            part.fill(0.0);
                                            continue;
                                        };
                                        let x = &x[(i0 * seen[1] + i1) * seen[2]..][..seen[2]];
                                        let low = s2.first.clamp(first, end);
                                        let high = s2.end.clamp(low, end);
                                        part[..low - first].fill(0.0);
                                        part[high - first..].fill(0.0);
                                        let part = &mut part[low - first..high - first];
                                        if part.is_empty() {
                                            continue;
                                        }
                                        let stride = windows[2].stride;
                                        let x = &x[s2.at + (low - s2.first) * stride..];
                                        if stride == 1 {
                                            part.copy_from_slice(&x[..part.len()]);
                                        } else {
                                            part.iter_mut().zip(x.iter().step_by(stride)).for_each(|(p, &x)| *p = x);
                                        }
                                    }
                                }
                            }
                        }
                    }
                    let out = &mut out[row * width + first..];
                    product(self.outputs, depth, (w, depth, 1), (all, n), out, to, n, accumulate);
                }
            }
            Ok(())
        })
    }

    /// A group of a transpose: products for every tap, which are then added where they belong.
    fn scatter(&self, x: &[f32], w: &[f32], out: &mut [f32]) -> Result<()> {
        let (from, to) = self.planes();
        let taps = self.sliding.taps();
        let channels = (COLUMNS / (taps * from).max(1)).clamp(1, self.outputs);
        let spans = self.sliding.spans();
        let stride = self.sliding.windows[2].stride;
        scratch(channels * taps * from, |all| {
            for first in (0..self.outputs).step_by(channels) {
                let channels = channels.min(self.outputs - first);
                let w = &w[first * taps..];
                let rows = channels * taps;
                product(rows, self.inputs, (w, 1, self.outputs * taps), (x, from), all, from, from, false);
                for m in 0..channels {
                    let (all, out) = (&all[m * taps * from..], &mut out[(first + m) * to..][..to]);
                    self.rows(&spans, |tap, seen, windows| {
                        for (n, s) in spans[2].iter().enumerate() {
                            if s.end == s.first {
                                continue;
                            }
                            let part = &all[(tap + n) * from + windows..][s.first..s.end];
                            let out = &mut out[seen + s.at..];
                            match stride {
                                1 => out.iter_mut().zip(part).for_each(|(o, &v)| *o += v),
                                _ => out.iter_mut().step_by(stride).zip(part).for_each(|(o, &v)| *o += v),
                            }
                        }
                    });
                }
            }
            Ok(())
        })
    }
}

/// `out += w · x`
#[inline(always)]
fn add(out: &mut [f32], x: &[f32], w: f32) {
    out.iter_mut().zip(x).for_each(|(o, &x)| *o += w * x);
}

/// `[m, k]` with any strides times `[k, n]`, into rows of `out` that are `c_row` apart.
#[expect(clippy::too_many_arguments, reason = "all that a product is told")]
fn product(
    m: usize,
    k: usize,
    a: (&[f32], usize, usize),
    b: (&[f32], usize),
    out: &mut [f32],
    c_row: usize,
    n: usize,
    accumulate: bool,
) {
    let threads = cpu::threads_for(m.saturating_mul(n).saturating_mul(k));
    cpu::product(Gemm { m, n, k, a, b: (b.0, b.1, 1), c_row, accumulate, threads }, out);
}

/// Memory for `count` elements whose contents are not known, from the pool.
fn scratch(count: usize, f: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<()> {
    Tensor::cpu_write(Shape::checked("conv", &[count])?, f).map(|_| ())
}
