//! Which rows differ from a value: Keras's masks (`mask.wgsl`).

use super::parts;
use crate::gpu::Dispatch;
use crate::tensor::check_u32;
use crate::{DType, Device, Error, Result, Tensor};
use recurve_shaders::{Variant, params};

impl Tensor {
    /// For ids (U32) of any shape: 1 where an id differs from `value`, else 0, in the same shape. For
    /// floats `[…, W]`: 1 where any of the W elements does, of shape `[…]`. What Keras's
    /// `Embedding(mask_zero=True)` and `Masking(mask_value)` compute.
    ///
    /// # Errors
    /// [`Error::Shape`] for floats without dimensions; [`Error::Argument`] for ids if the value is not one of
    /// their numbers; errors of the device.
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
            Device::Gpu(gpu) => {
                let out = Self::gpu_uninit(&gpu, shape, DType::U32, "mask")?;
                let pipeline = gpu.pipeline(&Variant::mask(self.dtype().element()))?;
                let (groups, groups_x) = gpu.elementwise_groups(shape.count());
                for (first, columns) in parts(width as u32, gpu.max_loop_iterations()) {
                    let p = params::Mask {
                        count: shape.count() as u32,
                        groups_x,
                        width: width as u32,
                        value,
                        first,
                        columns,
                        ..Default::default()
                    };
                    gpu.record(Dispatch {
                        pipeline: &pipeline,
                        buffers: &[self.gpu_buffer(), out.gpu_buffer()],
                        params: bytemuck::bytes_of(&p),
                        groups,
                        work: shape.count() as u64 * u64::from(columns),
                    })?;
                }
                Ok(out.with_bound(1))
            }
        }
    }
}
