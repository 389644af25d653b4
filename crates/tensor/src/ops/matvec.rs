//! The product with few rows on a GPU (`matvec.wgsl`); on the CPU it is `cpu::simd::matvec`.

use super::matmul::Product;
use crate::Result;
use crate::gpu::{Dispatch, Gpu};
use recurve_shaders::{Variant, params};

/// Records `batch` products whose right operand is `[n, k]`, a row of workgroups for each row.
pub(super) fn record(gpu: &Gpu, x: &Product<'_>, p: params::Matmul, batch: u32) -> Result<()> {
    let wide = [p.k, p.a_offset, p.a_outer_stride, p.a_inner_stride, p.b_offset, p.a_batch, p.b_batch]
        .iter()
        .all(|v| v.is_multiple_of(4));
    let (a, b) = (x.a.dtype().element(), x.b.dtype().element());
    let pipeline = gpu.pipeline(&Variant::matvec(a, b, x.bias.is_some(), x.act.code, wide))?;
    // More columns than the device counts workgroups for are done in several dispatches.
    let most = gpu.max_workgroups().saturating_mul(Variant::MATVEC_COLUMNS);
    let mut first = 0;
    while first < p.n {
        let n = most.min(p.n - first);
        // The columns of a part stand where they do in the whole, which only one row can tell by offsets.
        let rows = if n == p.n { 0..1 } else { 0..p.m };
        for row in rows {
            let at = (row / p.a_inner) * p.a_outer_stride + (row % p.a_inner) * p.a_inner_stride;
            let part = params::Matmul {
                n,
                m: if n == p.n { p.m } else { 1 },
                a_offset: p.a_offset + at,
                b_offset: p.b_offset + first * p.k,
                bias_offset: p.bias_offset + first,
                c_offset: p.c_offset + row * p.n + first,
                alpha: x.act.alpha,
                beta: x.act.beta,
                ..p
            };
            gpu.record(Dispatch {
                pipeline: &pipeline,
                // Without a bias the right operand stands in for it, unread.
                buffers: &[x.a.gpu_buffer(), x.b.gpu_buffer(), x.bias.unwrap_or(x.b).gpu_buffer(), x.out.gpu_buffer()],
                params: bytemuck::bytes_of(&part),
                groups: [n.div_ceil(Variant::MATVEC_COLUMNS), part.m, batch],
            })?;
        }
        first += n;
    }
    Ok(())
}
