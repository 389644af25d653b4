//! Layer normalization (`layer_norm.wgsl`).

use crate::gpu::{Dispatch, Gpu};
use crate::ops::Operation;
use crate::{Activation, Error, Reduction, Result, Tensor};
use recurve_shaders::{Variant, params};

impl Gpu {
    pub(crate) fn layer_norm(&self, x: &Tensor, affine: &Tensor, epsilon: f32) -> Result<Tensor> {
        let width = x.shape().last();
        if width as u64 > widest(self) {
            let axis = x.shape().rank() - 1;
            let part = |n: usize| affine.slice(0, n..n + 1)?.reshape(&[width]);
            let centred = x.sub(&x.reduce(Reduction::Mean, axis)?)?;
            let variance = centred.mul(&centred)?.reduce(Reduction::Mean, axis)?;
            let variance = variance.activation(Activation::Affine { alpha: 1.0, beta: epsilon })?;
            return centred.binary(&variance, Operation::DivRoot)?.mul(&part(0)?)?.add(&part(1)?);
        }
        // Works on a copy, because the kernel overwrites its operand.
        let out = x.slice(0, 0..x.dims()[0])?;
        let rows = Rows { first: 0, rows: x.shape().count() / width, width, affine_offset: 0, epsilon };
        layer_norm_rows(self, &rows, affine, &out)?;
        Ok(out)
    }
}

/// Rows of a tensor that are normalized in place.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// Index of the first element.
    pub first: usize,
    /// Number of rows.
    pub rows: usize,
    /// Number of elements of a row.
    pub width: usize,
    /// Index of the first element of gain and offset in their tensor.
    pub affine_offset: usize,
    /// Added to the variance before the square root.
    pub epsilon: f32,
}

/// Records the normalization of some rows in place, one workgroup per row.
///
/// # Errors
/// [`Error::Unsupported`] if a row needs more loop iterations than the device runs; those of
/// [`crate::kernel::GpuKernels::record`].
pub fn layer_norm_rows(gpu: &Gpu, r: &Rows, affine: &Tensor, x: &Tensor) -> Result<()> {
    if r.width as u64 > widest_that_runs(gpu) {
        let device = gpu.summary().name.clone();
        return Err(Error::Unsupported { operation: "layer_norm", feature: "rows this wide in one workgroup", device });
    }
    let pipeline = gpu.pipeline(&Variant::layer_norm())?;
    let groups_x = (r.rows as u32).min(gpu.max_workgroups());
    let p = params::LayerNorm {
        rows: r.rows as u32,
        width: r.width as u32,
        groups_x,
        offset: r.first as u32,
        affine_offset: r.affine_offset as u32,
        epsilon: r.epsilon,
        ..Default::default()
    };
    gpu.record(Dispatch {
        pipeline: &pipeline,
        buffers: &[affine.gpu_buffer(), x.gpu_buffer()],
        params: bytemuck::bytes_of(&p),
        groups: [groups_x, (r.rows as u32).div_ceil(groups_x), 1],
        work: 3 * (r.rows * r.width) as u64,
    })
}

/// The widest row for which a workgroup of 64 lanes stays within the device's loop iterations: three passes and two
/// sums per lane.
fn widest_that_runs(gpu: &Gpu) -> u64 {
    64 * u64::from(gpu.max_loop_iterations().saturating_sub(2 * 6) / 3)
}

/// The widest row that one workgroup normalizes. Wider rows use reductions over the whole device.
fn widest(gpu: &Gpu) -> u64 {
    widest_that_runs(gpu).min(1 << 16)
}
