//! Softmax over the last axis (`softmax.wgsl`).

use super::reduce::Axis;
use crate::cpu::functions::{Vectors, map};
use crate::cpu::threads::prelude::*;
use crate::{DType, Device, Result, Tensor};

/// Elements of the rows that a thread goes through at a time, at least.
const PART: usize = 1 << 15;

/// The logarithm of the sum of a row's exponentials.
fn log_sum(row: &[f32]) -> f32 {
    let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let highest = if highest.is_infinite() { 0.0 } else { highest };
    let (mut x, mut powers) = ([0.0; 256], [0.0; 256]);
    let mut sum = 0.0;
    for part in row.chunks(256) {
        let (x, powers) = (&mut x[..part.len()], &mut powers[..part.len()]);
        x.iter_mut().zip(part).for_each(|(x, v)| *x = v - highest);
        map(Vectors::Exp, x, powers);
        sum += super::reduce::sum(powers.iter().copied());
    }
    (f64::from(highest) + sum.ln()) as f32
}

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

    /// `ln Σ e^x` of rows of f32, without a copy of them; `None` where a GPU cannot go through such wide rows at once.
    pub(super) fn log_sums(&self, a: &Axis) -> Result<Option<Self>> {
        match self.device() {
            Device::Cpu => {
                let x = self.cpu_f32().expect("f32 on the CPU");
                let rows = PART.div_ceil(a.len);
                let out = Self::cpu_write(a.result, |out| {
                    out.par_chunks_mut(rows).enumerate().for_each(|(n, out)| {
                        let x = x[n * rows * a.len..].chunks_exact(a.len);
                        out.iter_mut().zip(x).for_each(|(o, row)| *o = log_sum(row));
                    });
                    Ok(())
                });
                out.map(Some)
            }
            Device::Gpu(gpu) => gpu.log_sums(self, a.result, a.len),
        }
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
