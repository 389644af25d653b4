//! Softmax over the last axis (`softmax.wgsl`).

use crate::gpu::Dispatch;
use crate::{DType, Device, Result, Tensor};
use recurve_shaders::{Variant, params};

impl Tensor {
    /// `e^x / Σ e^x` over the last axis.
    ///
    /// # Errors
    /// [`crate::Error::DType`] unless it is a float.
    pub fn softmax(&self) -> Result<Self> {
        self.check_float("softmax", "self")?;
        let width = self.shape().last();
        match self.device() {
            Device::Cpu if self.dtype() == DType::F16 => self.to_dtype(DType::F32)?.softmax()?.to_dtype(DType::F16),
            Device::Cpu => Self::cpu_write(*self.shape(), |out| {
                let x = self.cpu_f32().expect("f32 on the CPU");
                for (row, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
                    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let mut sum = 0.0;
                    for (o, &v) in out.iter_mut().zip(row) {
                        *o = (v - max).exp();
                        sum += *o;
                    }
                    out.iter_mut().for_each(|o| *o /= sum);
                }
                Ok(())
            }),
            Device::Gpu(gpu) => {
                let out = Self::gpu_uninit(&gpu, *self.shape(), self.dtype(), "softmax")?;
                let pipeline = gpu.pipeline(&Variant::softmax(self.dtype().element()))?;
                let rows = (self.shape().count() / width) as u32;
                let groups_x = rows.min(gpu.max_workgroups());
                let p = params::Softmax { rows, width: width as u32, groups_x, unused: 0 };
                gpu.record(Dispatch {
                    pipeline: &pipeline,
                    buffers: &[self.gpu_buffer(), out.gpu_buffer()],
                    params: bytemuck::bytes_of(&p),
                    groups: [groups_x, rows.div_ceil(groups_x), 1],
                })?;
                Ok(out)
            }
        }
    }
}
