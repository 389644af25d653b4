//! Layer normalization over the last axis (`layer_norm.wgsl`).

use super::reduce::sum;
use crate::{DType, Device, Error, Result, Tensor};

impl Tensor {
    /// `(x - mean) / √(variance + epsilon) ∘ gain + offset` over the last axis of n elements (Ba et al. 2016). The
    /// variance is that of the n elements themselves (divisor n); `affine` holds gain and offset, `[2, n]`.
    ///
    /// Mean and variance are computed from sums over elements `v`. A sum has an error of at most `2⁻²³ · Σ|v|` on the
    /// CPU and `1100 · 2⁻²⁴ · Σ|v|` on a GPU, before it is divided by n.
    ///
    /// # Errors
    /// [`Error::DType`] unless both are f32; [`Error::Shape`] if `self` has no dimension or `affine` does not have
    /// shape `[2, n]`; [`Error::Argument`] unless epsilon is finite and above 0; [`Error::Device`] if they are on
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
            Device::Gpu(gpu) => gpu.layer_norm(self, affine, epsilon),
        }
    }
}
