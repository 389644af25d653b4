//! Softmax over the last axis (`softmax.wgsl`).

use crate::{DType, Device, Result, Tensor};

impl Tensor {
    /// `e^x / Σ e^x` over the last axis.
    ///
    /// The sum of n exponentials has a relative error of at most `2⁻²³` on the CPU and `1100 · 2⁻²⁴` on a GPU for every
    /// n, in addition to the errors of the exponentials.
    ///
    /// # Errors
    /// [`crate::Error::DType`] unless `self` is a float tensor.
    pub fn softmax(&self) -> Result<Self> {
        self.softmax_or_log(false)
    }

    /// `ln(e^x / Σ e^x)` over the last axis, which does not overflow.
    ///
    /// The sum is off as that of [`Self::softmax`].
    ///
    /// # Errors
    /// As [`Self::softmax`].
    pub fn log_softmax(&self) -> Result<Self> {
        self.softmax_or_log(true)
    }

    fn softmax_or_log(&self, logarithm: bool) -> Result<Self> {
        self.check_float("softmax", "self")?;
        let width = self.shape().last();
        match self.device() {
            Device::Cpu if self.dtype() == DType::F16 => {
                self.to_dtype(DType::F32)?.softmax_or_log(logarithm)?.to_dtype(DType::F16)
            }
            Device::Cpu => Self::cpu_write(*self.shape(), |out| {
                let x = self.cpu_f32().expect("f32 on the CPU");
                for (row, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
                    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    out.iter_mut().zip(row).for_each(|(o, &v)| *o = v - max);
                    if logarithm {
                        let sum = super::reduce::sum(out.iter().map(|v| v.exp()));
                        let part = sum.ln() as f32;
                        out.iter_mut().for_each(|o| *o -= part);
                        continue;
                    }
                    out.iter_mut().for_each(|o| *o = o.exp());
                    let sum = super::reduce::sum(out.iter().copied()) as f32;
                    out.iter_mut().for_each(|o| *o /= sum);
                }
                Ok(())
            }),
            Device::Gpu(gpu) => gpu.softmax(self, logarithm),
        }
    }
}
