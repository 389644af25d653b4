//! Products with packed weights: the core of the recurrence, and the input projection.

use super::pack::{Affine, Packed};
use super::weights::{Elements, F16, F32, Int8, Matrix, Stored};
use crate::recurrent::Sizes;
use core::ops::Range;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use recurve_tensor::cpu::{simd_arch, threads_for};

/// Sums of `V` tiles, `G` gates and `R` rows: `acc[v][g][r] = Σ_k w[tile + v][k][g] · x[row + r][k]`.
/// Each weight is read once for all rows, and `G · V · R` independent sums hide the latency of the
/// multiply-add.
#[inline(always)]
fn accumulate<S: Simd, W: Stored, const G: usize, const V: usize, const R: usize>(
    s: S,
    w: W,
    k: usize,
    tile: usize,
    x: Operand<'_>,
    row: usize,
) -> [[[S::f32s; R]; G]; V] {
    let w: [W::Tile<S, G>; V] = core::array::from_fn(|v| w.tile::<S, G>(tile + v, k));
    let x: [&[f32]; R] = core::array::from_fn(|r| &x.data[x.offset(row + r)..][..k]);
    let mut acc = [[[s.splat_f32s(0.0); R]; G]; V];
    for i in 0..k {
        // Weights in registers and a row's value at a time: with the rows' values in registers instead, a
        // GRU's eight rows leave none for the weights.
        let mut ws = [[s.splat_f32s(0.0); G]; V];
        for v in 0..V {
            ws[v] = W::load::<S, G>(s, w[v], i);
        }
        for r in 0..R {
            let x = s.splat_f32s(x[r][i]);
            for v in 0..V {
                for g in 0..G {
                    acc[v][g][r] = s.mul_add_e_f32s(ws[v][g], x, acc[v][g][r]);
                }
            }
        }
    }
    acc
}

/// Rows of floats: row `r` begins at `r / inner · outer_stride + r % inner · inner_stride`.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    data: &'a [f32],
    inner: usize,
    outer_stride: usize,
    inner_stride: usize,
}

impl<'a> Operand<'a> {
    /// Rows one behind the other.
    pub(super) fn dense(data: &'a [f32], stride: usize) -> Self {
        Self { data, inner: usize::MAX, outer_stride: 0, inner_stride: stride }
    }

    #[inline(always)]
    fn offset(&self, row: usize) -> usize {
        if self.inner == usize::MAX {
            row * self.inner_stride
        } else {
            row / self.inner * self.outer_stride + row % self.inner * self.inner_stride
        }
    }
}

/// Products of rows with some tiles of a matrix of `G` gates, as sums `[rows][tiles][G]` of vectors, with
/// a bias `[tiles of the matrix][G]` added if there is one.
pub(super) struct Sums<'a, const G: usize> {
    pub(super) matrix: &'a Matrix,
    pub(super) tiles: Range<usize>,
    /// `rows` rows of K floats, from `first_row` on.
    pub(super) x: Operand<'a>,
    pub(super) first_row: usize,
    pub(super) rows: usize,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) out: &'a mut [f32],
}

impl<const G: usize> WithSimd for Sums<'_, G> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        match &self.matrix.elements {
            Elements::F32(w) => self.all(s, F32(w)),
            Elements::F16(w) => self.all(s, F16(w)),
            Elements::Int8(w, scale) => self.all(s, Int8(w, scale)),
        }
    }
}

impl<const G: usize> Sums<'_, G> {
    #[inline(always)]
    fn all<S: Simd, W: Stored>(mut self, s: S, w: W) {
        // As many independent sums as 32 vector registers hold beside the operands; one row takes as many
        // tiles at once as hide the latency of the multiply-add.
        match (G, self.rows) {
            (4, 1) => self.cover::<S, W, 2, 1>(s, w),
            (4, _) => self.cover::<S, W, 1, 6>(s, w),
            (3, 1) => self.cover::<S, W, 3, 1>(s, w),
            (3, _) => self.cover::<S, W, 1, 8>(s, w),
            (2, 1) => self.cover::<S, W, 4, 1>(s, w),
            (2, _) => self.cover::<S, W, 2, 6>(s, w),
            (_, 1) => self.cover::<S, W, 8, 1>(s, w),
            _ => self.cover::<S, W, 4, 6>(s, w),
        }
    }

    /// Blocks of V tiles and R rows. A tile's weights stay in the nearest cache while the rows pass by.
    #[inline(always)]
    fn cover<S: Simd, W: Stored, const V: usize, const R: usize>(&mut self, s: S, w: W) {
        let mut tile = self.tiles.start;
        while tile < self.tiles.end {
            if self.tiles.end - tile >= V {
                self.rows::<S, W, V, R>(s, w, tile);
                tile += V;
            } else {
                self.rows::<S, W, 1, R>(s, w, tile);
                tile += 1;
            }
        }
    }

    #[inline(always)]
    fn rows<S: Simd, W: Stored, const V: usize, const R: usize>(&mut self, s: S, w: W, tile: usize) {
        let mut row = 0;
        while self.rows - row >= R {
            self.block::<S, W, V, R>(s, w, tile, row);
            row += R;
        }
        if R > 4 && self.rows - row >= 4 {
            self.block::<S, W, V, 4>(s, w, tile, row);
            row += 4;
        }
        if R > 2 && self.rows - row >= 2 {
            self.block::<S, W, V, 2>(s, w, tile, row);
            row += 2;
        }
        while row < self.rows {
            self.block::<S, W, V, 1>(s, w, tile, row);
            row += 1;
        }
    }

    #[inline(always)]
    fn block<S: Simd, W: Stored, const V: usize, const R: usize>(&mut self, s: S, w: W, tile: usize, row: usize) {
        let acc = accumulate::<S, W, G, V, R>(s, w, self.matrix.k, tile, self.x, self.first_row + row);
        let width = self.tiles.len() * G;
        let first = (tile - self.tiles.start) * G;
        let out = S::as_mut_simd_f32s(self.out).0;
        for r in 0..R {
            let out = &mut out[(row + r) * width + first..][..V * G];
            for v in 0..V {
                for g in 0..G {
                    let sum = w.finish(s, tile + v, g, G, acc[v][g][r]);
                    out[v * G + g] = match self.bias {
                        Some(b) => s.add_f32s(sum, S::as_simd_f32s(b).0[(tile + v) * G + g]),
                        None => sum,
                    };
                }
            }
        }
    }
}

/// Runs [`Sums`] in a function of its own: inlined, the compiler would share registers between it and
/// whatever surrounds it.
#[inline(never)]
pub(super) fn sums<S: Simd, const G: usize>(s: S, sums: Sums<'_, G>) {
    s.vectorize(sums);
}

/// `P = X · W_ihᵀ + b` for the timesteps `from..from + steps` of `x`, into `[steps, B, columns()]`, columns
/// in packed order.
///
/// The GEMM crate behind `Tensor::matmul` would do the same product at a third of the speed for
/// the small inner dimensions that recurrent layers have (`benches/NOTES.md`), and the recurrence
/// needs this kernel anyway.
pub(super) fn project(packed: &Packed, x: &[f32], sizes: &Sizes, time_major: bool, from: usize, p: &mut [f32]) {
    let Sizes { batch: b, timesteps: t, input: i, .. } = *sizes;
    let np = packed.columns();
    let x = if time_major || b == 1 {
        Operand::dense(&x[from * b * i..], i)
    } else {
        Operand { data: &x[from * i..], inner: b, outer_stride: i, inner_stride: t * i }
    };
    let run = |first_row: usize, p: &mut [f32]| simd_arch().dispatch(Project { packed, x, first_row, p });
    let rows = p.len() / np;
    let threads = threads_for(rows * np * i);
    if threads > 1 && rows > 1 {
        let part = rows.div_ceil(threads).next_multiple_of(24);
        p.par_chunks_mut(part * np).enumerate().for_each(|(n, p)| run(n * part, p));
    } else {
        run(0, p);
    }
}

struct Project<'a> {
    packed: &'a Packed,
    x: Operand<'a>,
    first_row: usize,
    p: &'a mut [f32],
}

impl WithSimd for Project<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        match self.packed.kind.gates() {
            4 => self.all::<S, 4>(s),
            3 => self.all::<S, 3>(s),
            2 => self.all::<S, 2>(s),
            _ => self.all::<S, 1>(s),
        }
    }
}

impl Project<'_> {
    #[inline(always)]
    fn all<S: Simd, const G: usize>(self, s: S) {
        let packed = self.packed;
        sums::<S, G>(
            s,
            Sums {
                matrix: &packed.w_ih,
                tiles: 0..packed.tiles,
                x: self.x,
                first_row: self.first_row,
                rows: self.p.len() / packed.columns(),
                bias: Some(packed.bias()),
                out: self.p,
            },
        );
        if let Some(norm) = &packed.norm {
            for row in self.p.chunks_exact_mut(packed.columns()) {
                normalize(s, row, G, packed.hidden, &norm.ih, norm.epsilon);
            }
        }
    }
}

/// Layer normalization of a row in packed order, `[tiles, gates, lanes]`, over its `gates · hidden`
/// elements; the padding becomes zero.
#[inline(always)]
pub(super) fn normalize<S: Simd>(s: S, row: &mut [f32], gates: usize, hidden: usize, affine: &Affine, epsilon: f32) {
    let lanes = S::F32_LANES;
    let (full, rest) = (hidden / lanes * gates, hidden % lanes);
    let n = (gates * hidden) as f32;
    // The vectors of the last tile, of which `rest` lanes count.
    let partial = if rest > 0 { full..full + gates } else { 0..0 };
    let mut sum = s.splat_f32s(0.0);
    for v in &S::as_simd_f32s(row).0[..full] {
        sum = s.add_f32s(sum, *v);
    }
    let mut total = s.reduce_sum_f32s(sum);
    for v in partial.clone() {
        total += row[v * lanes..][..rest].iter().sum::<f32>();
    }
    let mean = total / n;
    let center = s.splat_f32s(mean);
    let mut sum = s.splat_f32s(0.0);
    for v in &S::as_simd_f32s(row).0[..full] {
        let d = s.sub_f32s(*v, center);
        sum = s.mul_add_f32s(d, d, sum);
    }
    let mut total = s.reduce_sum_f32s(sum);
    for v in partial {
        total += row[v * lanes..][..rest].iter().map(|x| (x - mean) * (x - mean)).sum::<f32>();
    }
    let scale = s.splat_f32s(1.0 / (total / n + epsilon).sqrt());
    let (gain, offset) = (S::as_simd_f32s(affine.gain()).0, S::as_simd_f32s(affine.offset()).0);
    for (v, x) in S::as_mut_simd_f32s(row).0.iter_mut().enumerate() {
        *x = s.mul_add_f32s(s.mul_f32s(s.sub_f32s(*x, center), scale), gain[v], offset[v]);
    }
}
