//! Products of rows with a packed matrix, and convolutions with few windows as such products.

use super::grow;
use super::pack::Line;
use super::product::{Operand, Sums, panel_width, sums};
use super::weights::{Matrix, Plain};
use crate::{WeightSource, WeightStorage};
use core::ops::Range;
use pulp::{Simd, WithSimd};
use recurve_tensor::cpu::simd::activate_slice;
use recurve_tensor::cpu::threads::prelude::*;
use recurve_tensor::cpu::{simd_arch, simd_lanes, threads_for};
use recurve_tensor::kernel::TensorKernels;
use recurve_tensor::{MAX_RANK, Result, Shape, Tensor, Window};
use recurve_vocabulary::Activation;
use std::cell::RefCell;

thread_local! {
    /// Memory for sums, of each thread; no other task runs while it is borrowed.
    static SUMS: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
    /// Memory for the elements of windows. It is taken out while it is in use, because the thread may run other tasks
    /// while it waits for those that share a product.
    static WINDOWS: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// Rows whose sums are computed at a time where they cannot stand in the result at once.
const BLOCK: usize = 48;

/// Floats of rows that are multiplied with all panels before the next rows are, about.
const ROWS_FLOATS: usize = 1 << 15;

/// A matrix `[units, k]` packed for products on the CPU.
#[derive(Debug, Default)]
pub struct Dense {
    pub(super) matrix: Matrix,
    units: usize,
}

/// What is multiplied with a [`Dense`].
#[derive(Clone, Copy, Debug)]
pub struct DenseCall<'a> {
    /// The rows, of k elements each.
    pub x: &'a [f32],
    /// From the first element of a row to that of the next.
    pub stride: usize,
    /// The number of rows.
    pub count: usize,
    /// A bias for each unit.
    pub bias: Option<&'a [f32]>,
    /// Applied to every element of the result.
    pub activation: Activation,
}

impl Dense {
    /// Packs the rows of a matrix `[units, k]`.
    ///
    /// # Errors
    /// [`recurve_tensor::Error::OutOfMemory`].
    pub fn new(rows: &dyn WeightSource, units: usize, k: usize) -> Result<Self> {
        Ok(Self { matrix: Matrix::new(rows, 0, [1, units, k], simd_lanes(), WeightStorage::F32)?, units })
    }

    /// Packs another matrix in the memory of this one.
    pub(super) fn set(&mut self, matrix: Plain<'_>) -> Result<()> {
        self.units = matrix.units;
        self.matrix.set(matrix)
    }

    /// Packs the rows of a matrix `[units, k]` in memory.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_rows(matrix: &[f32], units: usize, k: usize) -> Result<Self> {
        Self::new(&Rows(matrix), units, k)
    }

    /// Packs the columns of a matrix `[k, units]` in memory.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_columns(matrix: &[f32], units: usize, k: usize) -> Result<Self> {
        Self::new(&Columns { matrix, units, k }, units, k)
    }

    /// The number of units.
    pub fn units(&self) -> usize {
        self.units
    }

    /// The elements of a row.
    pub fn k(&self) -> usize {
        self.matrix.k
    }

    fn vectors(&self) -> usize {
        self.units.div_ceil(simd_lanes())
    }

    fn sums(&self, vectors: Range<usize>, call: &DenseCall<'_>, rows: Range<usize>, bias: bool, out: &mut [f32]) {
        struct Run<'a>(Sums<'a>);
        impl WithSimd for Run<'_> {
            type Output = ();
            #[inline(always)]
            fn with_simd<S: Simd>(self, s: S) {
                sums(s, self.0);
            }
        }
        simd_arch().dispatch(Run(Sums {
            matrix: &self.matrix,
            gates: 1,
            vectors,
            x: Operand::dense(call.x, call.stride),
            first_row: rows.start,
            rows: rows.len(),
            bias: call.bias.filter(|_| bias),
            out,
            backwards: false,
        }));
    }

    /// `out[row, unit] = f(Σ_i w[unit, i] · x[row, i] + bias[unit])`, each sum in order of i, so that a row has the
    /// same bits alone and among others.
    ///
    /// # Errors
    /// [`recurve_tensor::Error::OutOfMemory`].
    ///
    /// # Panics
    /// If a slice has another length than the sizes say.
    pub fn rows(&self, call: &DenseCall<'_>, out: &mut [f32]) -> Result<()> {
        assert_eq!(out.len(), call.count * self.units, "an element for each row and unit");
        let threads = threads_for(self.units.saturating_mul(self.k()).saturating_mul(call.count));
        let (lanes, vectors) = (simd_lanes(), self.vectors());
        let whole = self.units.is_multiple_of(lanes);
        if whole && call.count == 1 && threads > 1 {
            let part = vectors.div_ceil(threads).next_multiple_of(panel_width(1));
            out.par_chunks_mut(part * lanes).enumerate().for_each(|(n, out)| {
                self.sums(n * part..n * part + out.len() / lanes, call, 0..1, true, out);
                activate_slice(call.activation, out);
            });
            return Ok(());
        }
        let block = |first: usize, out: &mut [f32]| {
            let rows = first..first + out.len() / self.units;
            if whole {
                // As many rows as stay in a core's own cache while all panels pass by.
                let together = (ROWS_FLOATS / self.k()).max(1).next_multiple_of(BLOCK);
                for (n, out) in out.chunks_mut(together * self.units).enumerate() {
                    let first = rows.start + n * together;
                    self.sums(0..vectors, call, first..first + out.len() / self.units, true, out);
                }
            } else {
                SUMS.with_borrow_mut(|all| {
                    let size = BLOCK.min(rows.len()) * vectors * lanes;
                    grow(all, size.div_ceil(Line::FLOATS))?;
                    let mut first = rows.start;
                    for out in out.chunks_mut(BLOCK * self.units) {
                        let n = out.len() / self.units;
                        let sums = &mut bytemuck::cast_slice_mut(all)[..n * vectors * lanes];
                        self.sums(0..vectors, call, first..first + n, false, sums);
                        for (out, sums) in out.chunks_exact_mut(self.units).zip(sums.chunks_exact(vectors * lanes)) {
                            match call.bias {
                                Some(b) => out.iter_mut().zip(sums).zip(b).for_each(|((o, s), b)| *o = s + b),
                                None => out.copy_from_slice(&sums[..self.units]),
                            }
                        }
                        first += n;
                    }
                    Ok(())
                })?;
            }
            activate_slice(call.activation, out);
            Ok(())
        };
        if threads == 1 || call.count == 1 {
            return block(0, out);
        }
        let part = call.count.div_ceil(threads);
        out.par_chunks_mut(part * self.units).enumerate().try_for_each(|(n, out)| block(n * part, out))
    }

    /// The same as [`Self::rows`] with a row of the result for each unit: `out[unit, row]`.
    ///
    /// # Errors
    /// As [`Self::rows`].
    ///
    /// # Panics
    /// As [`Self::rows`].
    pub fn columns(&self, call: &DenseCall<'_>, out: &mut [f32]) -> Result<()> {
        if call.count == 1 {
            return self.rows(call, out);
        }
        assert_eq!(out.len(), call.count * self.units, "an element for each unit and row");
        let threads = threads_for(self.units.saturating_mul(self.k()).saturating_mul(call.count));
        let lanes = simd_lanes();
        let part = self.vectors().div_ceil(threads).next_multiple_of(panel_width(1));
        let block = |n: usize, out: &mut [f32]| {
            let units = out.len() / call.count;
            let vectors = n * part..n * part + units.div_ceil(lanes);
            let width = vectors.len() * lanes;
            SUMS.with_borrow_mut(|all| {
                grow(all, (width * call.count).div_ceil(Line::FLOATS))?;
                let sums = &mut bytemuck::cast_slice_mut(all)[..width * call.count];
                self.sums(vectors, call, 0..call.count, false, sums);
                for (unit, out) in out.chunks_exact_mut(call.count).enumerate() {
                    let bias = call.bias.map_or(0.0, |b| b[n * part * lanes + unit]);
                    for (o, sums) in out.iter_mut().zip(sums.chunks_exact(width)) {
                        *o = sums[unit] + bias;
                    }
                }
                activate_slice(call.activation, out);
                Ok(())
            })
        };
        if threads == 1 {
            return block(0, out);
        }
        let size = part * lanes * call.count;
        out.par_chunks_mut(size).enumerate().try_for_each(|(n, out)| block(n, out))
    }
}

/// Rows in memory.
struct Rows<'a>(&'a [f32]);

impl WeightSource for Rows<'_> {
    fn count(&self) -> usize {
        self.0.len()
    }
    fn read(&self, start: usize, out: &mut [f32]) {
        out.copy_from_slice(&self.0[start..][..out.len()]);
    }
}

/// The columns of a matrix `[k, units]` as rows.
struct Columns<'a> {
    matrix: &'a [f32],
    units: usize,
    k: usize,
}

impl WeightSource for Columns<'_> {
    fn count(&self) -> usize {
        self.matrix.len()
    }
    fn read(&self, start: usize, out: &mut [f32]) {
        for (n, o) in out.iter_mut().enumerate() {
            let (unit, i) = ((start + n) / self.k, (start + n) % self.k);
            *o = self.matrix[i * self.units + unit];
        }
    }
}

/// The weight of a convolution packed for calls with few windows, in which products with vectors of windows would
/// leave most of a vector empty: here vectors are of channels.
#[derive(Debug)]
pub struct DenseConv {
    groups: Vec<Dense>,
    /// Channels of x in a group.
    inputs: usize,
    taps: usize,
}

impl DenseConv {
    /// Windows in a call, at most.
    pub const WINDOWS: usize = 15;

    /// Whether a weight `[M, C / groups, …]` is large enough to be packed.
    pub fn suits(weight: &[usize], groups: usize) -> bool {
        let depth: usize = weight[1..].iter().product();
        weight[0] / groups >= 8 && depth >= 8
    }

    /// Packs a weight `[M, C / groups, …]`.
    ///
    /// # Errors
    /// [`recurve_tensor::Error::OutOfMemory`].
    pub fn new(weight: &[f32], dims: &[usize], groups: usize) -> Result<Self> {
        let depth: usize = dims[1..].iter().product();
        let units = dims[0] / groups;
        let groups = weight.chunks_exact(units * depth).map(|part| Dense::of_rows(part, units, depth));
        Ok(Self { groups: groups.collect::<Result<_>>()?, inputs: dims[1], taps: dims[2..].iter().product() })
    }

    /// The convolution of x `[N, C, …]`, which has been checked to fit; `counts` are how many windows there are along
    /// each axis.
    ///
    /// # Errors
    /// [`recurve_tensor::Error::OutOfMemory`].
    ///
    /// # Panics
    /// If x is not f32 on the CPU, or sizes do not fit.
    pub fn forward(
        &self,
        x: &Tensor,
        bias: Option<&[f32]>,
        windows: &[Window],
        counts: &[usize],
        activation: Activation,
    ) -> Result<Tensor> {
        let (batch, seen) = (x.dims()[0], &x.dims()[2..]);
        let from: usize = seen.iter().product();
        let count: usize = counts.iter().product();
        let units = self.groups[0].units();
        let depth = self.inputs * self.taps;
        let mut dims = [1; MAX_RANK];
        dims[..2].copy_from_slice(&[batch, units * self.groups.len()]);
        dims[2..2 + counts.len()].copy_from_slice(counts);
        let shape = Shape::new(&dims[..2 + counts.len()]).expect("no larger than was checked");
        let x = x.cpu_f32().expect("f32 on the CPU");
        let call = |group: usize| {
            let bias = bias.map(|b| &b[group * units..][..units]);
            DenseCall { x, stride: depth, count, bias, activation }
        };
        // Windows that are in x as they are.
        let inside = windows.iter().all(|w| w.before == 0 && w.dilation == 1);
        let plain = windows.len() == 1 && self.inputs == 1 && inside && (count - 1) * windows[0].stride + depth <= from;
        let same = from == self.taps && count == 1 && inside;
        Tensor::cpu_write(shape, |out| {
            if same && self.groups.len() == 1 {
                return self.groups[0].rows(&DenseCall { count: batch, ..call(0) }, out);
            }
            let parts = x.chunks_exact(self.inputs * from).zip(out.chunks_exact_mut(units * count));
            for (n, (x, out)) in parts.enumerate() {
                let group = n % self.groups.len();
                let dense = &self.groups[group];
                if plain {
                    dense.columns(&DenseCall { x, stride: windows[0].stride, ..call(group) }, out)?;
                    continue;
                }
                let mut all = WINDOWS.take();
                grow(&mut all, (count * depth).div_ceil(Line::FLOATS))?;
                let rows = &mut bytemuck::cast_slice_mut(&mut all)[..count * depth];
                self.gather(x, windows, seen, counts, rows);
                dense.columns(&DenseCall { x: rows, ..call(group) }, out)?;
                WINDOWS.set(all);
            }
            Ok(())
        })
    }

    /// The elements of each window, `[count, channels, taps]`, zero where a window goes beyond the axes.
    fn gather(&self, x: &[f32], windows: &[Window], seen: &[usize], counts: &[usize], rows: &mut [f32]) {
        let from: usize = seen.iter().product();
        let depth = self.inputs * self.taps;
        for (n, row) in rows.chunks_exact_mut(depth).enumerate() {
            for tap in 0..self.taps {
                let place = place(n, tap, windows, seen, counts);
                let column = row[tap..].iter_mut().step_by(self.taps);
                match place {
                    Some(place) => column.zip(x[place..].iter().step_by(from)).for_each(|(o, &x)| *o = x),
                    None => column.for_each(|o| *o = 0.0),
                }
            }
        }
    }
}

/// Where an element of a window stands on axes of these sizes, if it does.
fn place(window: usize, tap: usize, windows: &[Window], seen: &[usize], counts: &[usize]) -> Option<usize> {
    let (mut window, mut tap) = (window, tap);
    let (mut at, mut step) = (0, 1);
    for ((w, &len), &count) in windows.iter().zip(seen).zip(counts).rev() {
        let (o, t) = (window % count, tap % w.size);
        (window, tap) = (window / count, tap / w.size);
        at += (o * w.stride + t * w.dilation).checked_sub(w.before).filter(|&i| i < len)? * step;
        step *= len;
    }
    Some(at)
}
