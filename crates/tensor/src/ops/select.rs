//! A choice between two tensors, elementwise with broadcasting (`select.wgsl`).

use super::broadcast::{Broadcast, in_parts};
use crate::{DType, Device, Error, Result, Tensor};

impl Tensor {
    /// `x` where `self` is not 0, else `y`, elementwise, broadcasting as NumPy and PyTorch do.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes cannot be broadcast, [`Error::DType`] unless `self` is a float and `x` and `y`
    /// are of one float type, [`Error::Device`] if they are on different devices.
    pub fn select(&self, x: &Self, y: &Self) -> Result<Self> {
        const NAME: &str = "select";
        self.check_float(NAME, "self")?;
        x.check_float(NAME, "x")?;
        let expected = if x.dtype() == DType::F32 { "f32" } else { "f16" };
        y.check_dtype(NAME, "y", expected, x.dtype() == y.dtype())?;
        self.check_same_device(x, NAME, "x")?;
        self.check_same_device(y, NAME, "y")?;
        let common = Broadcast::of([self.shape(), x.shape(), y.shape()]).ok_or_else(|| {
            let expected = format!("broadcastable with the condition {} and with {}", self.shape(), x.shape());
            Error::shape(NAME, "y", expected, y.shape())
        })?;
        if x.dtype() == DType::F16 || self.dtype() == DType::F16 {
            let [condition, a, b] = [self, x, y].map(|t| t.to_dtype(DType::F32));
            return condition?.select(&a?, &b?)?.to_dtype(x.dtype());
        }
        match self.device() {
            Device::Cpu => {
                let [c, x, y] = [self, x, y].map(|t| t.cpu_f32().expect("f32 on the CPU"));
                let runs = common.runs();
                let steps = runs.steps();
                Self::cpu_write(common.shape, |out| {
                    in_parts(out, 1, |start, out| {
                        runs.each(start, out.len(), |at, n, [i, j, k]| {
                            let out = &mut out[at..at + n];
                            match steps {
                                [0, ..] => {
                                    let (from, first, step) =
                                        if c[i] != 0.0 { (x, j, steps[1]) } else { (y, k, steps[2]) };
                                    match step {
                                        1 => out.copy_from_slice(&from[first..first + n]),
                                        _ => out.fill(from[first]),
                                    }
                                }
                                [_, 1, 1] => {
                                    let operands = c[i..i + n].iter().zip(&x[j..j + n]).zip(&y[k..k + n]);
                                    for (o, ((&c, &x), &y)) in out.iter_mut().zip(operands) {
                                        *o = if c != 0.0 { x } else { y };
                                    }
                                }
                                [_, a, b] => {
                                    for (e, (o, &c)) in out.iter_mut().zip(&c[i..i + n]).enumerate() {
                                        *o = if c != 0.0 { x[j + a * e] } else { y[k + b * e] };
                                    }
                                }
                            }
                        });
                    });
                    Ok(())
                })
            }
            Device::Gpu(gpu) => gpu.select([self, x, y], &common),
        }
    }
}
