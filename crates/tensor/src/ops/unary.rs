//! Activations and conversion between element types (`unary.wgsl`).

use crate::gpu::Dispatch;
use crate::tensor::check_f16;
use crate::{Activation, DType, Device, Error, Result, Tensor, cpu};
use half::slice::HalfFloatSliceExt;
use recurve_shaders::{ActivationCode, Variant, params};

/// An activation as the shaders know it.
///
/// # Errors
/// [`Error::Argument`] if alpha or beta is not finite, or the function is not known to the shaders.
pub fn activation_code(f: Activation) -> Result<ActivationCode> {
    let (code, alpha, beta) = match f {
        Activation::Linear => (0, 0.0, 0.0),
        Activation::Sigmoid => (1, 0.0, 0.0),
        Activation::Tanh => (2, 0.0, 0.0),
        Activation::Relu => (3, 0.0, 0.0),
        Activation::HardSigmoid { alpha, beta } => (4, alpha, beta),
        Activation::Affine { alpha, beta } => (5, alpha, beta),
        Activation::LeakyRelu { alpha } => (6, alpha, 0.0),
        Activation::ThresholdedRelu { alpha } => (7, alpha, 0.0),
        Activation::ScaledTanh { alpha, beta } => (8, alpha, beta),
        Activation::Elu { alpha } => (9, alpha, 0.0),
        Activation::Softsign => (10, 0.0, 0.0),
        Activation::Softplus => (11, 0.0, 0.0),
        Activation::Positive => (12, 0.0, 0.0),
        _ => {
            return Err(Error::Argument {
                operation: "activation",
                argument: "activation",
                message: format!("{f:?} has no kernel"),
            });
        }
    };
    if !(alpha.is_finite() && beta.is_finite()) {
        return Err(Error::Argument {
            operation: "activation",
            argument: "alpha, beta",
            message: format!("must be finite, but they are {alpha} and {beta}"),
        });
    }
    Ok(ActivationCode { code, alpha, beta })
}

impl Tensor {
    /// `f(self)`, elementwise.
    ///
    /// # Errors
    /// [`Error::DType`] unless it is a float; [`Error::Argument`] if alpha or beta is not finite.
    pub fn activation(&self, f: Activation) -> Result<Self> {
        self.check_float("activation", "self")?;
        let code = activation_code(f)?;
        match self.device() {
            Device::Cpu if self.dtype() == DType::F16 => self.to_dtype(DType::F32)?.activation(f)?.to_dtype(DType::F16),
            Device::Cpu => Self::cpu_write(*self.shape(), |out| {
                out.copy_from_slice(self.cpu_f32().expect("f32 on the CPU"));
                cpu::simd::activate_slice(f, out);
                Ok(())
            }),
            Device::Gpu(_) => self.unary(self.dtype(), code),
        }
    }

    /// The same numbers as another float type; the same tensor if it has it already.
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
            (Device::Gpu(_), _) => self.unary(dtype, ActivationCode { code: 0, alpha: 0.0, beta: 0.0 }),
        }
    }

    fn unary(&self, result: DType, f: ActivationCode) -> Result<Self> {
        let Device::Gpu(gpu) = self.device() else { unreachable!("callers have matched the device") };
        let out = Self::gpu_uninit(&gpu, *self.shape(), result, "unary")?;
        let pipeline = gpu.pipeline(&Variant::unary(self.dtype().element(), result.element(), f.code))?;
        let (groups, groups_x) = gpu.elementwise_groups(self.shape().count());
        let p = params::Unary { count: self.shape().count() as u32, groups_x, alpha: f.alpha, beta: f.beta };
        gpu.record(Dispatch {
            pipeline: &pipeline,
            buffers: &[self.gpu_buffer(), out.gpu_buffer()],
            params: bytemuck::bytes_of(&p),
            groups,
            work: self.shape().count() as u64,
        })?;
        Ok(out)
    }
}
