//! Products and sums over all timesteps, and the recurrent product of one.

use super::super::dense::Dense;
use super::super::pack::Line;
use super::super::product::{Operand, Sums, sums};
use super::{Valid, elements, floats, padded};
use crate::training::TrainingCall;
use pulp::{Simd, WithSimd};
use recurve_tensor::Result;
use recurve_tensor::cpu::threads::prelude::*;
use recurve_tensor::cpu::{Gemm, gemm, simd_arch, simd_lanes, threads_for};

/// `x · Mᵀ` for some rows of x at a stride, into rows padded to whole vectors.
#[inline(always)]
pub(super) fn recurrent<S: Simd>(
    s: S,
    dense: &Dense,
    (x, stride): (&[f32], usize),
    rows: usize,
    out: &mut [f32],
    backwards: bool,
) {
    let wide = padded(dense.units());
    sums(
        s,
        Sums {
            matrix: &dense.matrix,
            gates: 1,
            vectors: 0..wide / S::F32_LANES,
            x: Operand::dense(x, stride),
            first_row: 0,
            rows,
            bias: None,
            out: &mut out[..rows * wide],
            backwards,
        },
    );
}

/// The input with time first, `[T, B, I]`. With `clear`, timesteps that are not valid are zero, so that nothing in them
/// reaches a sum.
pub(super) fn time_first<'a>(call: &TrainingCall<'a>, memory: &'a mut Vec<Line>, clear: bool) -> Result<&'a [f32]> {
    let valid = Valid::new(call);
    let (b, t, n) = (call.batch, call.timesteps, call.input);
    let x = elements(Some(call.x));
    let clear = clear && !valid.all();
    if !clear && (call.time_major || b == 1 || t == 1) {
        return Ok(x);
    }
    let out = floats(memory, b * t * n)?;
    let each = |time: usize, out: &mut [f32]| {
        for (row, out) in out.chunks_exact_mut(n).enumerate() {
            let at = if call.time_major { time * b + row } else { row * t + time };
            if clear && !valid.at(row, time) {
                out.fill(0.0);
            } else {
                out.copy_from_slice(&x[at * n..][..n]);
            }
        }
    };
    if out.len() > 1 << 16 {
        out.par_chunks_mut(b * n).enumerate().for_each(|(time, out)| each(time, out));
    } else {
        out.chunks_mut(b * n).enumerate().for_each(|(time, out)| each(time, out));
    }
    Ok(out)
}

/// Rows of floats at a stride.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    pub(super) data: &'a [f32],
    pub(super) stride: usize,
    /// Number of columns.
    pub(super) width: usize,
    pub(super) rows: usize,
}

impl<'a> Table<'a> {
    /// Some columns.
    pub(super) fn columns(self, first: usize, width: usize) -> Self {
        Self { data: &self.data[first..], width, ..self }
    }

    /// A row.
    #[inline(always)]
    pub(super) fn row(&self, n: usize) -> &'a [f32] {
        &self.data[n * self.stride..][..self.width]
    }

    /// Rows without gaps.
    pub(super) fn dense(data: &'a [f32], width: usize) -> Self {
        Self { data, stride: width, width, rows: data.len() / width }
    }
}

/// `out = aᵀ · b`: the sum over all rows of the products of their elements. Rows of `out` are `stride` apart.
pub(super) fn outer(a: Table<'_>, b: Table<'_>, out: &mut [f32], stride: usize) {
    let (m, n, k) = (a.width, b.width, a.rows);
    let g = Gemm {
        m,
        n,
        k,
        a: (a.data, 1, a.stride),
        b: (b.data, b.stride, 1),
        c_row: stride,
        accumulate: false,
        threads: threads_for(m * n * k),
    };
    gemm(g, out);
}

/// Vectors of columns that are added up at a time, so that other threads can have others.
const VECTORS: usize = 8;

/// Rows whose sum is one term of the whole sum, so that rounding grows with the root of the number of rows.
pub(super) const ROWS: usize = 64;

/// `out[j] = Σ a[row, j]`, always in the same order.
pub(super) fn column_sums(a: Table<'_>, out: &mut [f32]) {
    let width = VECTORS * simd_lanes();
    let each = |(n, out): (usize, &mut [f32])| simd_arch().dispatch(ColumnSums { a, first: n * width, out });
    if threads_for(a.rows * a.width) > 1 {
        out.par_chunks_mut(width).enumerate().for_each(each);
    } else {
        out.chunks_mut(width).enumerate().for_each(each);
    }
}

/// The sums of a few columns.
struct ColumnSums<'a> {
    a: Table<'a>,
    first: usize,
    out: &'a mut [f32],
}

impl WithSimd for ColumnSums<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let Self { a, first, out } = self;
        let (zero, lanes, width) = (s.splat_f32s(0.0), S::F32_LANES, out.len());
        let full = width == VECTORS * lanes;
        let mut total = [zero; VECTORS];
        for start in (0..a.rows).step_by(ROWS) {
            let mut sum = [zero; VECTORS];
            for row in start..a.rows.min(start + ROWS) {
                let row = &a.data[row * a.stride + first..][..width];
                if full {
                    let row = &S::as_simd_f32s(row).0[..VECTORS];
                    for n in 0..VECTORS {
                        sum[n] = s.add_f32s(sum[n], row[n]);
                    }
                } else {
                    for n in 0..width.div_ceil(lanes) {
                        let v = s.partial_load_f32s(&row[n * lanes..width.min((n + 1) * lanes)]);
                        sum[n] = s.add_f32s(sum[n], v);
                    }
                }
            }
            for n in 0..VECTORS {
                total[n] = s.add_f32s(total[n], sum[n]);
            }
        }
        for n in 0..width.div_ceil(lanes) {
            s.partial_store_f32s(&mut out[n * lanes..width.min((n + 1) * lanes)], total[n]);
        }
    }
}
