//! Running sums (`cumulate.wgsl`).

use super::Axis;
use crate::{DType, Device, Result, Tensor};

impl Tensor {
    /// The sums along an axis up to each element: with the element, or without it if `exclusive`; from the end if
    /// `reverse`.
    ///
    /// # Errors
    /// [`crate::Error::DType`] unless it is f32; [`crate::Error::Argument`] if there is no such axis; errors of the
    /// device.
    pub fn cumulate(&self, axis: usize, exclusive: bool, reverse: bool) -> Result<Self> {
        self.check_dtype("cumulate", "self", "f32", self.dtype() == DType::F32)?;
        self.check_axis("cumulate", axis)?;
        let a = Axis::of(self, axis);
        match self.device() {
            Device::Cpu => Self::cpu_write(*self.shape(), |out| {
                let x = self.cpu_f32().expect("f32 on the CPU");
                for line in 0..a.result.count() {
                    let mut sum = 0.0;
                    let mut add = |i: usize| {
                        let next = sum + f64::from(x[i]);
                        out[i] = (if exclusive { sum } else { next }) as f32;
                        sum = next;
                    };
                    match reverse {
                        false => a.values(line).for_each(&mut add),
                        true => a.values(line).rev().for_each(&mut add),
                    }
                }
                Ok(())
            }),
            Device::Gpu(gpu) => gpu.cumulate(self, &a, exclusive, reverse),
        }
    }
}
