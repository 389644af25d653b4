//! Products with packed weights: the core of the recurrence, and the input projection.

use super::pack::{Affine, Packed};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use recurve_tensor::cpu::simd_arch;

/// Sums of `V` tiles, `G` gates and `R` rows: `acc[v][g][r] = Σ_k w[tile + v][k][g] · h[row + r][k]`.
/// Each weight is read once for all rows, and `G · V · R` independent sums hide the latency of the
/// multiply-add.
#[inline(always)]
pub(super) fn accumulate<S: Simd, const G: usize, const V: usize, const R: usize>(
    s: S,
    w: &[f32],
    k: usize,
    tile: usize,
    h: &[f32],
    stride: usize,
    row: usize,
) -> [[[S::f32s; R]; G]; V] {
    let (gates, _) = S::as_simd_f32s(w).0.as_chunks::<G>();
    let w: [&[[S::f32s; G]]; V] = core::array::from_fn(|v| &gates[(tile + v) * k..][..k]);
    let h: [&[f32]; R] = core::array::from_fn(|r| &h[(row + r) * stride..][..k]);
    let mut acc = [[[s.splat_f32s(0.0); R]; G]; V];
    for i in 0..k {
        let mut x = [s.splat_f32s(0.0); R];
        for r in 0..R {
            x[r] = s.splat_f32s(h[r][i]);
        }
        for v in 0..V {
            for g in 0..G {
                for r in 0..R {
                    acc[v][g][r] = s.mul_add_e_f32s(w[v][i][g], x[r], acc[v][g][r]);
                }
            }
        }
    }
    acc
}

/// `P = X · W_ihᵀ + b` for `x`, rows of I floats, into rows of `columns()` floats in packed order.
///
/// The GEMM crate behind `Tensor::matmul` would do the same product at a third of the speed for
/// the small inner dimensions that recurrent layers have (`benches/NOTES.md`), and the recurrence
/// needs this kernel anyway.
pub(super) fn project(packed: &Packed, x: &[f32], input: usize, p: &mut [f32], threads: usize) {
    let np = packed.columns();
    let run = |x: &[f32], p: &mut [f32]| simd_arch().dispatch(Project { packed, x, input, p });
    let rows = p.len() / np;
    if threads > 1 && rows > 1 {
        let part = rows.div_ceil(threads).next_multiple_of(24);
        p.par_chunks_mut(part * np).zip(x.par_chunks(part * input)).for_each(|(p, x)| run(x, p));
    } else {
        run(x, p);
    }
}

struct Project<'a> {
    packed: &'a Packed,
    x: &'a [f32],
    input: usize,
    p: &'a mut [f32],
}

impl WithSimd for Project<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, s: S) {
        // As many independent sums as 32 vector registers hold beside the operands.
        match self.packed.kind.gates() {
            4 => self.all::<S, 4, 1, 6>(s),
            3 => self.all::<S, 3, 1, 8>(s),
            2 => self.all::<S, 2, 2, 6>(s),
            _ => self.all::<S, 1, 4, 6>(s),
        }
        if let Some(norm) = &self.packed.norm {
            let (gates, hidden) = (self.packed.kind.gates(), self.packed.hidden);
            for row in self.p.chunks_exact_mut(self.packed.columns()) {
                normalize(s, row, gates, hidden, &norm.ih, norm.epsilon);
            }
        }
    }
}

impl Project<'_> {
    #[inline(always)]
    fn all<S: Simd, const G: usize, const V: usize, const R: usize>(&mut self, s: S) {
        let (tiles, rows) = (self.packed.tiles, self.p.len() / self.packed.columns());
        let mut tile = 0;
        // A tile's weights stay in the nearest cache while the rows pass by.
        while tile < tiles {
            let wide = tile + V <= tiles;
            let mut row = 0;
            while row < rows {
                match (wide, row + R <= rows) {
                    (true, true) => self.block::<S, G, V, R>(s, tile, row),
                    (true, false) => self.block::<S, G, V, 1>(s, tile, row),
                    (false, true) => self.block::<S, G, 1, R>(s, tile, row),
                    (false, false) => self.block::<S, G, 1, 1>(s, tile, row),
                }
                row += if row + R <= rows { R } else { 1 };
            }
            tile += if wide { V } else { 1 };
        }
    }

    #[inline(always)]
    fn block<S: Simd, const G: usize, const V: usize, const R: usize>(&mut self, s: S, tile: usize, row: usize) {
        let acc = accumulate::<S, G, V, R>(s, self.packed.w_ih(), self.input, tile, self.x, self.input, row);
        let np = self.packed.columns();
        let bias = S::as_simd_f32s(self.packed.bias()).0;
        for r in 0..R {
            let (p, _) = S::as_mut_simd_f32s(&mut self.p[(row + r) * np..][..np]);
            for v in 0..V {
                for g in 0..G {
                    let at = (tile + v) * G + g;
                    p[at] = s.add_f32s(acc[v][g][r], bias[at]);
                }
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
