//! Products with packed weights, used by the recurrence and by the input projection.

use super::pack::{Affine, Packed};
use super::weights::{Elements, F16, F32, GROUP, Int8, Matrix, Stored};
use core::ops::Range;
use pulp::{Simd, WithSimd};
use recurve_tensor::cpu::simd::mul_add;
use recurve_tensor::cpu::threads::prelude::*;
use recurve_tensor::cpu::{simd_arch, threads_for};

/// The size of the block that the inner loop computes: the number of vectors of a panel of weights, and the number of
/// rows that are multiplied with it at once. The sums, the panel's weights and one value of a row must fit into the
/// registers of the instruction set:
///
/// | registers | gates | vectors × rows | in use |
/// |---|---|---|---|
/// | 16 (AVX2, WebAssembly) | any | 2 × 6 | 12 + 2 + 1 |
/// | 32 (AVX-512, NEON) | 3 | 3 × 8 | 24 + 3 + 1 |
/// | 32 | others | 4 × 6 | 24 + 4 + 1 |
///
/// With one row there are too few independent sums to hide the latency of a multiply-add, so several panels are used at
/// once.
const fn tile<S: Simd>(gates: usize) -> (usize, usize) {
    match (has_32_registers::<S>(), gates) {
        (false, _) => (2, 6),
        (true, 3) => (3, 8),
        (true, _) => (4, 6),
    }
}

/// Whether there are 32 registers. WebAssembly has no number of its own, and on x86-64 browsers use 16.
const fn has_32_registers<S: Simd>() -> bool {
    S::REGISTER_COUNT >= 32 && !cfg!(target_arch = "wasm32")
}

/// The number of vectors in a panel ([`tile`]) for the instruction set in use.
pub(super) fn panel_width(gates: usize) -> usize {
    struct Width(usize);
    impl WithSimd for Width {
        type Output = usize;
        fn with_simd<S: Simd>(self, _: S) -> usize {
            tile::<S>(self.0).0
        }
    }
    simd_arch().dispatch(Width(gates))
}

/// The sums of `P` panels of `N` vectors and `R` rows: `acc[p][n][r] = Σ_k w[panel + p][k][n] · x[row + r][k]`. Each
/// sum adds its terms in order of k, for every P and R, so the bits of a row do not depend on the other rows.
#[inline(always)]
fn accumulate<S: Simd, W: Stored, const N: usize, const P: usize, const R: usize>(
    s: S,
    w: W,
    k: usize,
    panel: usize,
    x: Operand<'_>,
    row: usize,
) -> [[[S::f32s; R]; N]; P] {
    let w: [W::Panel<S, N>; P] = core::array::from_fn(|p| w.panel::<S, N>(panel + p, k));
    let x: [&[f32]; R] = core::array::from_fn(|r| &x.data[x.offset(row + r)..][..k]);
    let mut acc = [[[s.splat_f32s(0.0); R]; N]; P];
    if P > 1 {
        // Fewer rows than weights, so the rows' values are held and one weight is loaded at a time.
        for i in 0..k {
            let mut xs = [s.splat_f32s(0.0); R];
            for r in 0..R {
                xs[r] = s.splat_f32s(x[r][i]);
            }
            for p in 0..P {
                let ws = W::load::<S, N>(s, w[p], i);
                for n in 0..N {
                    for r in 0..R {
                        acc[p][n][r] = s.mul_add_e_f32s(ws[n], xs[r], acc[p][n][r]);
                    }
                }
            }
        }
        return acc;
    }
    // All weights are held in registers and one value of a row is loaded at a time. Holding eight rows' values instead
    // would leave no registers for the weights.
    let groups: [&[[f32; GROUP]]; R] = core::array::from_fn(|r| &x[r].as_chunks().0[..k / GROUP]);
    for i in 0..k / GROUP {
        for u in 0..GROUP {
            let ws = W::load_of::<S, N>(s, w[0], i, u);
            for r in 0..R {
                let x = s.splat_f32s(groups[r][i][u]);
                for n in 0..N {
                    acc[0][n][r] = s.mul_add_e_f32s(ws[n], x, acc[0][n][r]);
                }
            }
        }
    }
    for i in k / GROUP * GROUP..k {
        let ws = W::load::<S, N>(s, w[0], i);
        for r in 0..R {
            let x = s.splat_f32s(x[r][i]);
            for n in 0..N {
                acc[0][n][r] = s.mul_add_e_f32s(ws[n], x, acc[0][n][r]);
            }
        }
    }
    acc
}

/// Rows of floats. Row `r` starts at `r / inner · outer_stride + r % inner · inner_stride`.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    data: &'a [f32],
    inner: usize,
    outer_stride: usize,
    inner_stride: usize,
}

impl<'a> Operand<'a> {
    /// Rows with a single stride.
    pub(super) fn dense(data: &'a [f32], stride: usize) -> Self {
        Self { data, inner: usize::MAX, outer_stride: 0, inner_stride: stride }
    }

    /// Groups of `inner` rows, with one stride inside a group and another between groups.
    pub(super) fn groups(data: &'a [f32], inner: usize, outer_stride: usize, inner_stride: usize) -> Self {
        match inner {
            1 => Self::dense(data, outer_stride),
            _ if inner * inner_stride == outer_stride => Self::dense(data, inner_stride),
            _ => Self { data, inner, outer_stride, inner_stride },
        }
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

/// Multiplies rows with some vectors of a matrix. The result is `[rows][vectors]`; if there is a bias, it has one
/// element for each vector of the matrix.
pub(super) struct Sums<'a> {
    pub(super) matrix: &'a Matrix,
    /// Number of gates of the matrix, which determines the block size ([`tile`]).
    pub(super) gates: usize,
    pub(super) vectors: Range<usize>,
    /// The operand: `rows` rows of K floats, from `first_row` on.
    pub(super) x: Operand<'a>,
    pub(super) first_row: usize,
    pub(super) rows: usize,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) out: &'a mut [f32],
    /// Whether to go from the last panel to the first. If every other pass does so, each pass starts with the weights
    /// that the pass before has left in the caches.
    pub(super) backwards: bool,
}

impl WithSimd for Sums<'_> {
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

impl Sums<'_> {
    #[inline(always)]
    fn all<S: Simd, W: Stored>(mut self, s: S, w: W) {
        // Only the panel widths that `tile` gives for this instruction set are compiled.
        if cfg!(target_arch = "wasm32") {
            // Smaller than on AVX2: browsers keep some registers for themselves.
            match self.rows {
                1 => self.thin::<S, W, 2, 3, 1>(s, w),
                2 => self.thin::<S, W, 2, 2, 2>(s, w),
                _ => self.thick::<S, W, 2>(s, w),
            }
        } else if !has_32_registers::<S>() {
            match self.rows {
                1 => self.thin::<S, W, 2, 4, 1>(s, w),
                2 => self.thin::<S, W, 2, 3, 2>(s, w),
                3 => self.thin::<S, W, 2, 2, 3>(s, w),
                _ => self.thick::<S, W, 2>(s, w),
            }
        } else if self.gates == 3 {
            match self.rows {
                1 => self.thin::<S, W, 3, 3, 1>(s, w),
                _ => self.thick::<S, W, 3>(s, w),
            }
        } else {
            match self.rows {
                1 if S::F32_LANES > 4 => self.thin::<S, W, 4, 2, 1>(s, w),
                // Some ARM cores have four multiply-add units, so four panels are used at once.
                1 => self.thin::<S, W, 4, 4, 1>(s, w),
                _ => self.thick::<S, W, 4>(s, w),
            }
        }
    }

    /// The range of panels that contain the vectors.
    fn panels(&self, n: usize) -> Range<usize> {
        self.vectors.start / n..self.vectors.end.div_ceil(n)
    }

    /// Multiplies all rows, `R` of them, with `P` panels at a time.
    #[inline(always)]
    fn thin<S: Simd, W: Stored, const N: usize, const P: usize, const R: usize>(&mut self, s: S, w: W) {
        let panels = self.panels(N);
        let (groups, rest) = (panels.len() / P, panels.len() % P);
        for n in 0..groups + rest {
            let n = if self.backwards { groups + rest - 1 - n } else { n };
            if n < groups {
                self.block::<S, W, N, P, R>(s, w, panels.start + n * P, 0);
            } else {
                self.block::<S, W, N, 1, R>(s, w, panels.start + groups * P + n - groups, 0);
            }
        }
    }

    /// Multiplies many rows, one panel at a time: its weights stay in the first cache.
    #[inline(always)]
    fn thick<S: Simd, W: Stored, const N: usize>(&mut self, s: S, w: W) {
        // Blocks differ by at most one row. A small last block would have too few independent sums.
        let blocks = self.rows.div_ceil(tile::<S>(self.gates).1);
        let (size, larger) = (self.rows / blocks, self.rows % blocks);
        let panels = self.panels(N);
        for n in 0..panels.len() {
            let panel = if self.backwards { panels.end - 1 - n } else { panels.start + n };
            let mut row = 0;
            for block in 0..blocks {
                let rows = size + usize::from(block < larger);
                match rows {
                    1 => self.block::<S, W, N, 1, 1>(s, w, panel, row),
                    2 => self.block::<S, W, N, 1, 2>(s, w, panel, row),
                    3 => self.block::<S, W, N, 1, 3>(s, w, panel, row),
                    4 => self.block::<S, W, N, 1, 4>(s, w, panel, row),
                    5 => self.block::<S, W, N, 1, 5>(s, w, panel, row),
                    6 => self.block::<S, W, N, 1, 6>(s, w, panel, row),
                    7 if N == 3 => self.block::<S, W, N, 1, 7>(s, w, panel, row),
                    8 if N == 3 => self.block::<S, W, N, 1, 8>(s, w, panel, row),
                    _ => unreachable!("no more rows than a tile has"),
                }
                row += rows;
            }
        }
    }

    #[inline(always)]
    fn block<S: Simd, W: Stored, const N: usize, const P: usize, const R: usize>(
        &mut self,
        s: S,
        w: W,
        panel: usize,
        row: usize,
    ) {
        let acc = accumulate::<S, W, N, P, R>(s, w, self.matrix.k, panel, self.x, self.first_row + row);
        let out = S::as_mut_simd_f32s(self.out).0;
        let (start, count) = (self.vectors.start, self.vectors.len());
        for p in 0..P {
            let first = (panel + p) * N;
            let mut sums = acc[p];
            for n in 0..N {
                for r in 0..R {
                    sums[n][r] = w.finish(s, first + n, sums[n][r]);
                }
            }
            if let Some(b) = self.bias {
                // A bias has no elements for vectors that only fill the last panel.
                let b = &S::as_simd_f32s(b).0[first..];
                for (sums, b) in sums.iter_mut().zip(b) {
                    for r in 0..R {
                        sums[r] = s.add_f32s(sums[r], *b);
                    }
                }
            }
            if start <= first && first + N <= self.vectors.end {
                for r in 0..R {
                    let out = &mut out[(row + r) * count + first - start..][..N];
                    for n in 0..N {
                        out[n] = sums[n][r];
                    }
                }
            } else {
                // The first or the last panel contains vectors that are not wanted.
                for n in (0..N).filter(|n| self.vectors.contains(&(first + n))) {
                    for r in 0..R {
                        out[(row + r) * count + first + n - start] = sums[n][r];
                    }
                }
            }
        }
    }
}

/// Runs [`Sums`] in a function that is not inlined, so that the compiler does not have to share registers between it
/// and the surrounding code.
#[inline(never)]
pub(super) fn sums<S: Simd>(s: S, sums: Sums<'_>) {
    s.vectorize(sums);
}

/// `P = X · W_ihᵀ + b` for some rows, on the calling thread. The result is `[rows, columns()]` with columns in packed
/// order.
///
/// The GEMM crate behind `Tensor::matmul` would take three times as long for the small inner dimensions of recurrent
/// layers (`benches/NOTES.md`), and the recurrence needs this kernel anyway.
pub(super) fn project(packed: &Packed, x: Operand<'_>, p: &mut [f32]) {
    simd_arch().dispatch(Project { packed, x, first_row: 0, p });
}

/// [`project`] on as many threads as are useful.
pub(super) fn project_shared(packed: &Packed, x: Operand<'_>, p: &mut [f32]) {
    let np = packed.columns();
    let rows = p.len() / np;
    let threads = threads_for(rows * np * packed.w_ih.k);
    if threads == 1 || rows == 1 {
        return project(packed, x, p);
    }
    let part = rows.div_ceil(threads).next_multiple_of(24);
    p.par_chunks_mut(part * np).enumerate().for_each(|(n, p)| {
        simd_arch().dispatch(Project { packed, x, first_row: n * part, p });
    });
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
        let packed = self.packed;
        let gates = packed.kind.gates();
        sums(
            s,
            Sums {
                matrix: &packed.w_ih,
                gates,
                vectors: 0..packed.tiles * gates,
                x: self.x,
                first_row: self.first_row,
                rows: self.p.len() / packed.columns(),
                bias: Some(packed.bias()),
                out: self.p,
                backwards: false,
            },
        );
        if let Some(norm) = &packed.norm {
            for row in self.p.chunks_exact_mut(packed.columns()) {
                normalize(s, row, gates, packed.hidden, &norm.ih, norm.epsilon);
            }
        }
    }
}

/// Layer normalization of a row in packed order, `[tiles, gates, lanes]`, over its `gates · hidden` elements. The
/// padding becomes zero.
#[inline(always)]
pub(super) fn normalize<S: Simd>(s: S, row: &mut [f32], gates: usize, hidden: usize, affine: &Affine, epsilon: f32) {
    let lanes = S::F32_LANES;
    let (full, rest) = (hidden / lanes * gates, hidden % lanes);
    let n = (gates * hidden) as f32;
    // The vectors of the last tile, in which only `rest` lanes are units.
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
        sum = mul_add(s, d, d, sum);
    }
    let mut total = s.reduce_sum_f32s(sum);
    for v in partial {
        total += row[v * lanes..][..rest].iter().map(|x| (x - mean) * (x - mean)).sum::<f32>();
    }
    let scale = s.splat_f32s(1.0 / (total / n + epsilon).sqrt());
    let (gain, offset) = (S::as_simd_f32s(affine.gain()).0, S::as_simd_f32s(affine.offset()).0);
    for (v, x) in S::as_mut_simd_f32s(row).0.iter_mut().enumerate() {
        *x = mul_add(s, s.mul_f32s(s.sub_f32s(*x, center), scale), gain[v], offset[v]);
    }
}
