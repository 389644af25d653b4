//! Layer normalization over the last axis (`layer_norm.wgsl`).

use crate::gpu::{Dispatch, Gpu};
use crate::{DType, Device, Error, Result, Tensor};
use recurve_shaders::{Variant, params};

impl Tensor {
    /// `(x - mean) / √(variance + epsilon) ∘ gain + offset` over the last axis of n elements (Ba et
    /// al. 2016), the variance that of the n elements themselves; `affine` is gain and offset,
    /// `[2, n]`.
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
                    let n = width as f32;
                    let mean = x.iter().sum::<f32>() / n;
                    let variance = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / n;
                    let scale = 1.0 / (variance + epsilon).sqrt();
                    for (((o, &v), &g), &b) in out.iter_mut().zip(x).zip(gain).zip(offset) {
                        *o = (v - mean) * scale * g + b;
                    }
                }
                Ok(())
            }),
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

/// Records the normalization of some rows in place.
///
/// # Errors
/// Those of [`crate::kernel::GpuKernels::record`].
pub fn layer_norm_rows(gpu: &Gpu, r: &Rows, affine: &Tensor, x: &Tensor) -> Result<()> {
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
    })
}
