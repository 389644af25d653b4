//! Gradients of activation functions (`slope.wgsl`).

use super::unary::check_activation;
use crate::{Activation, DType, Device, Error, Result, Tensor, cpu};

impl Tensor {
    /// The gradient of `x` for `y = f(x)`, where `self` is that of y: `self · f'(x)`, elementwise. `value` is y; it is x
    /// if [`Activation::slope_needs_input`]. At a corner f' is what PyTorch has.
    ///
    /// # Errors
    /// [`Error::DType`] unless both are f32, [`Error::Shape`] unless they have the same shape, [`Error::Device`] if they
    /// are on different devices, [`Error::Argument`] if alpha or beta is not finite.
    pub fn activation_gradient(&self, value: &Self, f: Activation) -> Result<Self> {
        const NAME: &str = "activation_gradient";
        self.check_dtype(NAME, "self", "f32", self.dtype() == DType::F32)?;
        value.check_dtype(NAME, "value", "f32", value.dtype() == DType::F32)?;
        self.check_same_device(value, NAME, "value")?;
        check_activation(f)?;
        if self.dims() != value.dims() {
            return Err(Error::shape(NAME, "value", self.shape().to_string(), value.shape()));
        }
        if f == Activation::Linear {
            return Ok(self.clone());
        }
        match self.device() {
            Device::Cpu => Self::cpu_write(*self.shape(), |out| {
                let (dy, v) = (self.cpu_f32().expect("f32 on the CPU"), value.cpu_f32().expect("f32 on the CPU"));
                cpu::functions::multiply_slopes(f, dy, v, out);
                Ok(())
            }),
            Device::Gpu(gpu) => gpu.slope(self, value, f),
        }
    }
}
