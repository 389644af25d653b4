//! Softmax over the last axis (`softmax.wgsl`).

use super::Reduction;
use super::binary::Operation;
use crate::gpu::{Dispatch, Gpu};
use crate::{DType, Device, Result, Tensor};
use recurve_shaders::{Variant, params};

impl Tensor {
    /// `e^x / Σ e^x` over the last axis.
    ///
    /// The sum of n elements is off by at most `2⁻²³` of itself on the CPU, `1100 · 2⁻²⁴` on a GPU, whatever n
    /// is, beside the error of the exponentials.
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
                    out.iter_mut().zip(row).for_each(|(o, &v)| *o = (v - max).exp());
                    let sum = super::reduce::sum(out.iter().copied()) as f32;
                    out.iter_mut().for_each(|o| *o /= sum);
                }
                Ok(())
            }),
            Device::Gpu(gpu) if width as u64 > widest(&gpu) => {
                let axis = self.shape().rank() - 1;
                let x = self.to_dtype(DType::F32)?;
                let e = x.binary(&x.reduce(Reduction::Max, axis)?, Operation::ExpSub)?;
                e.div(&e.reduce(Reduction::Sum, axis)?)?.to_dtype(self.dtype())
            }
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
                    work: 3 * self.shape().count() as u64,
                })?;
                Ok(out)
            }
        }
    }
}

/// The widest row for one workgroup of 64 lanes, by the iterations of a lane's three sweeps and two sums. Wider
/// ones are for all of the device.
fn widest(gpu: &Gpu) -> u64 {
    let sweeps = gpu.max_loop_iterations().saturating_sub(2 * 6) / 3;
    (64 * u64::from(sweeps)).min(1 << 16)
}
