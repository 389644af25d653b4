//! Products on software rasterisers (`matmul_direct.wgsl`). Their workgroup memory is ordinary memory and a barrier
//! switches between lanes, so that sharing loaded elements costs more than loading them again; and the unrolled tiles
//! of `matmul.wgsl` take them seconds to compile.

use super::matmul::{Kernel, Product, is_wide, longest_sum};
use crate::gpu::Gpu;
use recurve_shaders::{DirectTile, Variant, params};

/// The kernel for a product whose right operand is `[n, k]`; `None` if tiles in workgroup memory are faster.
pub(super) fn kernel(gpu: &Gpu, x: &Product<'_>, p: &params::Matmul) -> Option<Kernel> {
    if !gpu.is_software() || !x.transposed {
        return None;
    }
    let wide = is_wide(p);
    let tile = DirectTile::for_product(p.m, p.n);
    let (a, b) = (x.a.dtype().element(), x.b.dtype().element());
    Some(Kernel {
        variant: Variant::matmul_direct(a, b, x.bias.is_some(), x.act, tile, wide),
        tile: tile.size(),
        // An iteration reads four elements along k, or one.
        k_most: if wide { 4 } else { 1 } * longest_sum(gpu),
    })
}
