//! Layer normalization over the last axis (`layer_norm.wgsl`).

use super::Reduction;
use super::binary::Operation;
use super::reduce::sum;
use crate::gpu::{Dispatch, Gpu};
use crate::{Activation, DType, Device, Error, Result, Tensor};
use recurve_shaders::{Variant, params};

impl Tensor {
    /// `(x - mean) / √(variance + epsilon) ∘ gain + offset` over the last axis of n elements (Ba et
    /// al. 2016), the variance that of the n elements themselves; `affine` is gain and offset,
    /// `[2, n]`.
    ///
    /// Mean and variance are sums, off by at most `2⁻²³ · Σ|v|` of what they add on the CPU and
    /// `1100 · 2⁻²⁴ · Σ|v|` on a GPU, divided by n.
    ///
    /// # Errors
    /// [`Error::DType`] unless both are f32; [`Error::Shape`] if `self` has no dimension or `affine` another shape;
    /// [`Error::Argument`] unless epsilon is finite and above 0; [`Error::Device`] if they are on
    /// different devices.
    pub fn layer_norm(&self, affine: &Self, epsilon: f32) -> Result<Self> {
        self.check_dtype("layer_norm", "self", "f32", self.dtype() == DType::F32)?;
        affine.check_dtype("layer_norm", "affine", "f32", affine.dtype() == DType::F32)?;
        self.check_same_device(affine, "layer_norm", "affine")?;
        if self.shape().rank() == 0 {
            return Err(Error::shape("layer_norm", "self", "[…, n]", self.shape()));
        }
        let width = self.shape().last();
        if affine.dims() != [2, width] {
            return Err(Error::shape("layer_norm", "affine", format!("[2, {width}]"), affine.shape()));
        }
        if !(epsilon.is_finite() && epsilon > 0.0) {
            return Err(Error::Argument {
                operation: "layer_norm",
                argument: "epsilon",
                message: format!("must be finite and above 0, but it is {epsilon}"),
            });
        }
        match self.device() {
            Device::Cpu => Self::cpu_write(*self.shape(), |out| {
                let x = self.cpu_f32().expect("f32 on the CPU");
                let (gain, offset) = affine.cpu_f32().expect("f32 on the CPU").split_at(width);
                for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
                    let n = width as f64;
                    let mean = (sum(x.iter().copied()) / n) as f32;
                    let variance = (sum(x.iter().map(|v| (v - mean) * (v - mean))) / n) as f32;
                    let scale = 1.0 / (variance + epsilon).sqrt();
                    for (((o, &v), &g), &b) in out.iter_mut().zip(x).zip(gain).zip(offset) {
                        *o = (v - mean) * scale * g + b;
                    }
                }
                Ok(())
            }),
            Device::Gpu(gpu) if width as u64 > widest(&gpu) => {
                let axis = self.shape().rank() - 1;
                let part = |n: usize| affine.slice(0, n..n + 1)?.reshape(&[width]);
                let centred = self.sub(&self.reduce(Reduction::Mean, axis)?)?;
                let variance = centred.mul(&centred)?.reduce(Reduction::Mean, axis)?;
                let variance = variance.activation(Activation::Affine { alpha: 1.0, beta: epsilon })?;
                centred.binary(&variance, Operation::DivRoot)?.mul(&part(0)?)?.add(&part(1)?)
            }
            Device::Gpu(gpu) => {
                // A copy, for the kernel works in place.
                let out = self.slice(0, 0..self.dims()[0])?;
                let rows = Rows { first: 0, rows: self.shape().count() / width, width, affine_offset: 0, epsilon };
                layer_norm_rows(&gpu, &rows, affine, &out)?;
                Ok(out)
            }
        }
    }
}

/// Rows of a tensor to normalise in place.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// First element.
    pub first: usize,
    /// Rows.
    pub rows: usize,
    /// Elements of a row.
    pub width: usize,
    /// First element of gain and offset in their tensor.
    pub affine_offset: usize,
    /// Added to the variance.
    pub epsilon: f32,
}

/// Records the normalization of some rows in place, by a workgroup each.
///
/// # Errors
/// [`Error::Unsupported`] if the device ends loops before a row does; those of
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

/// The widest row that a workgroup of 64 lanes can run, by the iterations of a lane's three sweeps and two sums.
fn widest_that_runs(gpu: &Gpu) -> u64 {
    64 * u64::from(gpu.max_loop_iterations().saturating_sub(2 * 6) / 3)
}

/// The widest row for one workgroup. Wider ones are for all of the device.
fn widest(gpu: &Gpu) -> u64 {
    widest_that_runs(gpu).min(1 << 16)
}
