//! Matrix products (`matmul.wgsl`).

use super::{matmul_direct, matvec, parts};
use crate::gpu::{Dispatch, Gpu};
use crate::{Activation, DType, MatmulOptions, Result, Shape, Tensor};
use recurve_shaders::{MatmulTile, Variant, params};

impl Gpu {
    /// `batch` products of `[m, k]` and `[k, n]`, or `[n, k]` if the second operand is transposed.
    pub(crate) fn matmul(
        &self,
        a: &Tensor,
        b: &Tensor,
        options: &MatmulOptions<'_>,
        shape: Shape,
        [batch, m, k, n]: [usize; 4],
    ) -> Result<Tensor> {
        // If the sum over k takes several dispatches, partial sums are kept in the result, which must then be f32.
        if a.dtype() == DType::F16 && k as u64 > 16 * u64::from(longest_sum(self)) {
            let bias = options.bias.map(|b| b.to_dtype(DType::F32)).transpose()?;
            let options = MatmulOptions { bias: bias.as_ref(), ..*options };
            return a.to_dtype(DType::F32)?.matmul_with(b, &options)?.to_dtype(DType::F16);
        }
        let out = Tensor::gpu_uninit(self, shape, a.dtype(), "matmul")?;
        let p = params::Matmul {
            m: m as u32,
            n: n as u32,
            k: k as u32,
            a_inner: m as u32,
            a_inner_stride: k as u32,
            a_batch: (m * k) as u32,
            b_batch: (k * n) as u32,
            c_batch: (m * n) as u32,
            columns: n as u32,
            depth: k as u32,
            ..Default::default()
        };
        let MatmulOptions { transpose_rhs: transposed, bias, activation: act, rest: _ } = *options;
        let product = Product { a, b, transposed, bias, act, out: &out };
        // On a software rasteriser every load is one per lane, so tiles already pay from two rows on.
        let few = if self.is_software() { 1 } else { FEW_ROWS };
        // A batch with more products than the device allows workgroups takes several dispatches.
        let most = self.max_workgroups() as usize;
        for first in (0..batch).step_by(most) {
            let p = params::Matmul {
                a_offset: (first * m * k) as u32,
                b_offset: (first * k * n) as u32,
                c_offset: (first * m * n) as u32,
                ..p
            };
            let batch = most.min(batch - first) as u32;
            if transposed && m <= few {
                matvec::record(self, &product, p, batch)?;
            } else {
                record(self, &product, p, batch)?;
            }
        }
        Ok(out)
    }
}

pub(super) struct Product<'a> {
    pub(super) a: &'a Tensor,
    pub(super) b: &'a Tensor,
    pub(super) transposed: bool,
    pub(super) bias: Option<&'a Tensor>,
    pub(super) act: Activation,
    pub(super) out: &'a Tensor,
}

/// Whether a kernel can read four elements along k at a time of both operands, of which the right one is `[n, k]`.
pub(super) fn is_wide(p: &params::Matmul) -> bool {
    [p.k, p.depth, p.a_offset, p.a_outer_stride, p.a_inner_stride, p.b_offset, p.a_batch, p.b_batch]
        .iter()
        .all(|v| v.is_multiple_of(4))
}

/// The tile shape for a product: large if that makes enough workgroups to fill the device, but small where large tiles
/// take seconds to compile.
fn tile_for(gpu: &Gpu, p: &params::Matmul) -> MatmulTile {
    let software = gpu.is_software();
    let enough = if software { 2 } else { 128 };
    if p.m <= 16 {
        let wide = software && MatmulTile::WIDE.workgroup_bytes() <= gpu.max_workgroup_bytes();
        if wide { MatmulTile::WIDE } else { MatmulTile::FLAT }
    } else if p.m.div_ceil(64) * p.n.div_ceil(64) >= enough && (software || !gpu.compiles_slowly()) {
        MatmulTile::LARGE
    } else {
        MatmulTile::SMALL
    }
}

/// Up to this many rows a product is computed row by row (`matvec`). With more rows, tiles are faster because they
/// reuse B.
const FEW_ROWS: usize = 4;

/// A kernel that computes a product in tiles.
pub(super) struct Kernel {
    pub(super) variant: Variant,
    /// Numbers of rows and columns of results of a workgroup.
    pub(super) tile: (u32, u32),
    /// The most elements along k in one dispatch.
    pub(super) k_most: u32,
}

/// The kernel with tiles in workgroup memory.
fn tiled(gpu: &Gpu, x: &Product<'_>, p: &params::Matmul) -> Kernel {
    // A software rasteriser limits loop iterations, so its inner loop is unrolled.
    let unrolled = !gpu.compiles_slowly() || gpu.is_software();
    let shape = MatmulTile { unrolled, ..tile_for(gpu, p) };
    let (a, b) = (x.a.dtype().element(), x.b.dtype().element());
    Kernel {
        variant: Variant::matmul(a, b, x.transposed, x.bias.is_some(), x.act, shape),
        tile: shape.size(),
        k_most: 16 * longest_sum(gpu),
    }
}

/// Records `batch` products.
fn record(gpu: &Gpu, x: &Product<'_>, p: params::Matmul, batch: u32) -> Result<()> {
    let Kernel { variant, tile: (tile_m, tile_n), k_most } =
        matmul_direct::kernel(gpu, x, &p).unwrap_or_else(|| tiled(gpu, x, &p));
    let pipeline = gpu.pipeline(&variant)?;
    let [alpha, beta] = x.act.parameters();
    // The largest number of whole tiles within the device's limits on workgroups and work.
    let most = gpu.max_workgroups();
    let within = |tile: u32, of: u32, work: u64| {
        let tiles = gpu.max_work() / (u64::from(tile) * work);
        of.min(tile.saturating_mul(tiles.clamp(1, most.into()) as u32))
    };
    let k_part = p.k.min(k_most);
    let n_part = within(tile_n, p.n, u64::from(tile_m) * u64::from(k_part));
    let m_part = within(tile_m, p.m, u64::from(n_part) * u64::from(k_part));
    let z_part = within(1, batch, u64::from(m_part) * u64::from(n_part) * u64::from(k_part));
    let b_strides = if x.transposed { (1, p.depth) } else { (p.columns, 1) };
    for (z, matrices) in parts(batch, z_part) {
        let mut row = 0;
        while row < p.m {
            // Parts start at a multiple of a_inner rows, or lie inside one group of a_inner rows.
            let rows = if p.a_inner <= m_part {
                m_part / p.a_inner * p.a_inner
            } else {
                m_part.min(p.a_inner - row % p.a_inner)
            };
            let rows = rows.min(p.m - row);
            let a_row = (row / p.a_inner) * p.a_outer_stride + (row % p.a_inner) * p.a_inner_stride;
            for (column, columns) in parts(p.n, n_part) {
                for (k, ks) in parts(p.k, k_most) {
                    let q = params::Matmul {
                        m: rows,
                        n: columns,
                        k: ks,
                        a_offset: p.a_offset + z * p.a_batch + a_row + k,
                        b_offset: p.b_offset + z * p.b_batch + k * b_strides.0 + column * b_strides.1,
                        bias_offset: p.bias_offset + column,
                        c_offset: p.c_offset + z * p.c_batch + row * p.columns + column,
                        part: part_of(k, ks, p.k),
                        alpha,
                        beta,
                        ..p
                    };
                    gpu.record(Dispatch {
                        pipeline: &pipeline,
                        // Without a bias, the binding gets the left operand, which is not read.
                        buffers: &[
                            x.a.gpu_buffer(),
                            x.b.gpu_buffer(),
                            x.bias.unwrap_or(x.a).gpu_buffer(),
                            x.out.gpu_buffer(),
                        ],
                        params: bytemuck::bytes_of(&q),
                        groups: [columns.div_ceil(tile_n), rows.div_ceil(tile_m), matrices],
                        work: [rows, columns, ks, matrices].into_iter().map(u64::from).product(),
                    })?;
                }
            }
            row += rows;
        }
    }
    Ok(())
}

/// The most iterations over k in one dispatch: limited by the device, and so that rounding errors of sums stay small.
pub(super) fn longest_sum(gpu: &Gpu) -> u32 {
    gpu.max_loop_iterations().clamp(1, LONGEST_SUM)
}

const LONGEST_SUM: u32 = 1 << 12;

/// The part of the sum over k that a dispatch computes, as the kernels take it: `ks` columns from column `k` on.
pub(super) fn part_of(k: u32, ks: u32, all: u32) -> u32 {
    u32::from(k > 0) | u32::from(k + ks < all) << 1
}

/// A product on a GPU whose left rows have two strides, as the timesteps of a `[B, T, I]` tensor do: `out[r] = a[row r]
/// · wᵀ + bias`.
#[derive(Clone, Copy, Debug)]
pub struct StridedMatmul<'a> {
    /// Left operand.
    pub a: &'a Tensor,
    /// Number of rows.
    pub m: usize,
    /// Number of columns of the left operand.
    pub k: usize,
    /// Number of rows of an inner group. Row r starts at `a_offset + (r / a_inner) * a_outer_stride + (r % a_inner) *
    /// a_inner_stride`, in elements.
    pub a_inner: usize,
    /// See `a_inner`.
    pub a_outer_stride: usize,
    /// See `a_inner`.
    pub a_inner_stride: usize,
    /// See `a_inner`.
    pub a_offset: usize,
    /// Right operand, `[…, n, k]`.
    pub w: &'a Tensor,
    /// Index of the first element of the `[n, k]` matrix in `w`.
    pub w_offset: usize,
    /// Number of columns of the result.
    pub n: usize,
    /// Bias, `[…, n]`.
    pub bias: &'a Tensor,
    /// Index of the first element of the bias in its tensor.
    pub bias_offset: usize,
    /// Result, `[m, n]`, written from element `out_offset` on.
    pub out: &'a Tensor,
    /// Index of the first element of the result in `out`.
    pub out_offset: usize,
}

/// Records a [`StridedMatmul`]. It always uses tiles, even for few rows, so that the bits of a row do not depend on the
/// number of rows: a sequence computed step by step equals one computed as a whole.
///
/// # Errors
/// Those of [`crate::kernel::GpuKernels::record`].
pub fn strided_matmul(gpu: &Gpu, s: &StridedMatmul<'_>) -> Result<()> {
    strided_matmul_within(gpu, s, [s.k, s.n])
}

/// A [`StridedMatmul`] in which rows of `w` and of the result are this far apart.
///
/// # Errors
/// Those of [`crate::kernel::GpuKernels::record`].
pub fn strided_matmul_within(gpu: &Gpu, s: &StridedMatmul<'_>, [w_stride, out_stride]: [usize; 2]) -> Result<()> {
    let p = params::Matmul {
        m: s.m as u32,
        n: s.n as u32,
        k: s.k as u32,
        a_inner: s.a_inner as u32,
        a_outer_stride: s.a_outer_stride as u32,
        a_inner_stride: s.a_inner_stride as u32,
        a_offset: s.a_offset as u32,
        b_offset: s.w_offset as u32,
        bias_offset: s.bias_offset as u32,
        c_offset: s.out_offset as u32,
        columns: out_stride as u32,
        depth: w_stride as u32,
        ..Default::default()
    };
    let act = Activation::Linear;
    record(gpu, &Product { a: s.a, b: s.w, transposed: true, bias: Some(s.bias), act, out: s.out }, p, 1)
}
