//! Products with few rows (`matvec.wgsl`). The CPU's counterpart is `cpu::simd::matvec`.

use super::matmul::{Product, is_wide, longest_sum, part_of};
use super::parts;
use crate::Result;
use crate::gpu::{Dispatch, Gpu};
use recurve_shaders::{Variant, params};

/// Records `batch` products whose right operand is `[n, k]`; each row has its own workgroups.
pub(super) fn record(gpu: &Gpu, x: &Product<'_>, p: params::Matmul, batch: u32) -> Result<()> {
    let wide = is_wide(&p);
    let (a, b) = (x.a.dtype().element(), x.b.dtype().element());
    let pipeline = gpu.pipeline(&Variant::matvec(a, b, x.bias.is_some(), x.act, wide))?;
    let [alpha, beta] = x.act.parameters();
    // An iteration reads four elements per lane, or one.
    let k_most = Variant::MATVEC_LANES_K * if wide { 4 } else { 1 } * longest_sum(gpu);
    let k_part = u64::from(p.k.min(k_most));
    // Several dispatches if there are too many columns for the limits on workgroups or work.
    let tile = Variant::MATVEC_COLUMNS;
    let one_each = u64::from(p.m) * k_part;
    let most = |work: u64| (gpu.max_work() / work).clamp(1, gpu.max_workgroups().into()) as u32;
    let n_part = tile.saturating_mul(most(u64::from(tile) * one_each));
    let z_part = most(one_each * u64::from(p.n.min(n_part)));
    for (z, matrices) in parts(batch, z_part) {
        for (column, columns) in parts(p.n, n_part) {
            for (k, ks) in parts(p.k, k_most) {
                let q = params::Matmul {
                    n: columns,
                    k: ks,
                    a_offset: p.a_offset + z * p.a_batch + k,
                    b_offset: p.b_offset + z * p.b_batch + column * p.depth + k,
                    bias_offset: p.bias_offset + column,
                    c_offset: p.c_offset + z * p.c_batch + column,
                    part: part_of(k, ks, p.k),
                    alpha,
                    beta,
                    ..p
                };
                gpu.record(Dispatch {
                    pipeline: &pipeline,
                    // Without a bias, the binding gets the right operand, which is not read.
                    buffers: &[
                        x.a.gpu_buffer(),
                        x.b.gpu_buffer(),
                        x.bias.unwrap_or(x.b).gpu_buffer(),
                        x.out.gpu_buffer(),
                    ],
                    params: bytemuck::bytes_of(&q),
                    groups: [columns.div_ceil(tile), p.m, matrices],
                    work: [p.m, columns, ks, matrices].into_iter().map(u64::from).product(),
                })?;
            }
        }
    }
    Ok(())
}
