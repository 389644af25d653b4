//! Activation functions and conversion between element types (`unary.wgsl`).

use crate::tensor::check_f16;
use crate::{Activation, DType, Device, Error, Result, Tensor, cpu};
use half::slice::HalfFloatSliceExt;

/// Checks the parameters of an activation function.
///
/// # Errors
/// [`Error::Argument`] if alpha or beta is not finite.
pub fn check_activation(f: Activation) -> Result<()> {
    let [alpha, beta] = f.parameters();
    if alpha.is_finite() && beta.is_finite() {
        return Ok(());
    }
    Err(Error::Argument {
        operation: "activation",
        argument: "alpha, beta",
        message: format!("must be finite, but they are {alpha} and {beta}"),
    })
}

impl Tensor {
    /// `f(self)`, elementwise.
    ///
    /// # Errors
    /// [`Error::DType`] unless `self` is a float tensor; [`Error::Argument`] if alpha or beta is not finite.
    pub fn activation(&self, f: Activation) -> Result<Self> {
        self.check_float("activation", "self")?;
        check_activation(f)?;
        match self.device() {
            Device::Cpu if self.dtype() == DType::F16 => self.to_dtype(DType::F32)?.activation(f)?.to_dtype(DType::F16),
            Device::Cpu => Self::cpu_write(*self.shape(), |out| {
                out.copy_from_slice(self.cpu_f32().expect("f32 on the CPU"));
                cpu::simd::activate_slice(f, out);
                Ok(())
            }),
            Device::Gpu(gpu) => gpu.unary(self, self.dtype(), f),
        }
    }

    /// Converts the elements to another float type. Returns the same tensor if it already has that type.
    ///
    /// # Errors
    /// [`Error::DType`] for U32 on either side; [`Error::Unsupported`] if the adapter has no f16.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        if self.dtype() == dtype {
            return Ok(self.clone());
        }
        self.check_float("to_dtype", "self")?;
        if !dtype.is_float() {
            return Err(Error::DType { operation: "to_dtype", argument: "dtype", expected: "f32 or f16", got: dtype });
        }
        check_f16(&self.device(), "to_dtype")?;
        match (self.device(), dtype) {
            (Device::Cpu, DType::F16) => Self::cpu_f16_write(*self.shape(), |out| {
                out.convert_from_f32_slice(self.cpu_f32().expect("f32 on the CPU"));
            }),
            (Device::Cpu, _) => Self::cpu_write(*self.shape(), |out| self.read_into(out)),
            (Device::Gpu(gpu), _) => gpu.unary(self, dtype, Activation::Linear),
        }
    }
}
