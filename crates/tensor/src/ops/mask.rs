//! Masks as in Keras (`mask.wgsl`).

use crate::tensor::check_u32;
use crate::{DType, Device, Error, Result, Tensor};

impl Tensor {
    /// A U32 tensor that is 0 at padding and 1 elsewhere. For ids (U32) of any shape, an id equal to `value` is
    /// padding. For floats `[…, W]`, a position whose W elements all equal `value` is padding, and the result is `[…]`.
    /// Keras's `Embedding(mask_zero=True)` and `Masking(mask_value)` compute this.
    ///
    /// # Errors
    /// [`Error::Shape`] for floats without dimensions; [`Error::Argument`] if `self` are ids and `value` is not a whole
    /// number in the range of U32; errors of the device.
    pub fn mask(&self, value: f32) -> Result<Self> {
        let ids = self.dtype() == DType::U32;
        if ids {
            check_u32("mask", value)?;
        }
        let rank = self.shape().rank();
        if !ids && rank == 0 {
            return Err(Error::shape("mask", "self", "[…, features]", self.shape()));
        }
        let width = if ids { 1 } else { self.shape().last() };
        let shape = if ids { *self.shape() } else { self.shape().leading(rank - 1) };
        match self.device() {
            Device::Cpu if ids => Self::cpu_u32_write(shape, 1, |out| {
                let x = self.cpu_u32().expect("u32 on the CPU");
                out.iter_mut().zip(x).for_each(|(o, &v)| *o = u32::from(v != value as u32));
            }),
            Device::Cpu => {
                let wide = self.to_dtype(DType::F32)?;
                let x = wide.cpu_f32().expect("f32 on the CPU");
                Self::cpu_u32_write(shape, 1, |out| {
                    out.iter_mut()
                        .zip(x.chunks_exact(width))
                        .for_each(|(o, row)| *o = u32::from(row.iter().any(|&v| v != value)));
                })
            }
            Device::Gpu(gpu) => Ok(gpu.mask(self, value, shape, width)?.with_bound(1)),
        }
    }
}
