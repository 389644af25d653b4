//! The largest elements of each row (`top_k.wgsl`).

use super::reduce::is_above;
use crate::{DType, Device, Error, Result, Tensor};
use core::cmp::Ordering;

impl Tensor {
    /// The `k` largest elements along the last axis, or the smallest, in order, and their places as U32: the first
    /// of those that are equal comes first, and NaN before every number.
    ///
    /// # Errors
    /// [`Error::DType`] unless it is f32; [`Error::Shape`] without dimensions; [`Error::Argument`] unless k is at
    /// least 1 and at most the size of the axis; errors of the device.
    pub fn top_k(&self, k: usize, largest: bool) -> Result<(Self, Self)> {
        let operation = "top_k";
        self.check_dtype(operation, "self", "f32", self.dtype() == DType::F32)?;
        let Some((&width, outer)) = self.dims().split_last() else {
            return Err(Error::shape(operation, "self", "[…, n]", self.shape()));
        };
        if k == 0 || k > width {
            let message = format!("must be 1 to {width}, the size of the axis, but it is {k}");
            return Err(Error::Argument { operation, argument: "k", message });
        }
        let Ok(bound) = u32::try_from(width - 1) else {
            return Err(Error::shape(operation, "self", "of at most 2^32 elements along the axis", self.shape()));
        };
        let shape = self.shape().with(outer.len(), k);
        match self.device() {
            Device::Cpu => {
                let x = self.cpu_f32().expect("f32 on the CPU");
                let mut places = crate::cpu::host::<u32>(operation, shape.count())?;
                let mut order: Vec<u32> = Vec::with_capacity(width);
                let values = Self::cpu_write(shape, |out| {
                    for ((row, out), places) in
                        x.chunks_exact(width).zip(out.chunks_exact_mut(k)).zip(places.chunks_exact_mut(k))
                    {
                        let above = |a: f32, b: f32| if largest { is_above(a, b) } else { is_above(-a, -b) };
                        let first = |&a: &u32, &b: &u32| {
                            let (v, w) = (row[a as usize], row[b as usize]);
                            match (above(v, w), above(w, v)) {
                                (true, _) => Ordering::Less,
                                (_, true) => Ordering::Greater,
                                _ => a.cmp(&b),
                            }
                        };
                        order.clear();
                        order.extend(0..=bound);
                        if k < width {
                            order.select_nth_unstable_by(k - 1, first);
                        }
                        order[..k].sort_unstable_by(first);
                        places.copy_from_slice(&order[..k]);
                        out.iter_mut().zip(&order).for_each(|(o, &i)| *o = row[i as usize]);
                    }
                    Ok(())
                })?;
                let places = Self::cpu_u32_write(shape, bound, |out| out.copy_from_slice(&places))?;
                Ok((values, places))
            }
            Device::Gpu(gpu) => {
                let (values, places) = gpu.top_k(self, shape, k, largest)?;
                Ok((values, places.with_bound(bound)))
            }
        }
    }
}
