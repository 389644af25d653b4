//! Lengths of sequences of which a part is read.

use super::Operation;
use crate::{DType, Error, Function, Result, Tensor};
use core::ops::Range;

/// Numbers up to this one are exact in f32.
const EXACT: usize = 1 << 24;

impl Tensor {
    /// How many of the first `length` timesteps of each sequence are in `range`, for lengths `[B]` of U32: the lengths
    /// of the part of the sequences that has only these timesteps.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::DType`] unless `self` is U32 `[B]`; [`Error::Argument`] if the range is empty or
    /// ends behind 2^24.
    pub fn lengths_within(&self, range: Range<usize>) -> Result<Self> {
        let operation = "lengths_within";
        let &[rows] = self.dims() else {
            return Err(Error::shape(operation, "self", "[batch]", self.shape()));
        };
        self.check_dtype(operation, "self", "u32", self.dtype() == DType::U32)?;
        if range.is_empty() || range.end > EXACT {
            let message = format!("must not be empty and end at {EXACT} at most, but it is {range:?}");
            return Err(Error::Argument { operation, argument: "range", message });
        }
        let (first, count) = (range.start, range.len());
        if let Some(lengths) = self.cpu_u32() {
            let bound = (self.bound() as usize).saturating_sub(first).min(count) as u32;
            return Self::cpu_u32_write(*self.shape(), bound, |out| {
                for (o, &l) in out.iter_mut().zip(lengths) {
                    *o = (l as usize).saturating_sub(first).min(count) as u32;
                }
            });
        }
        // Of the numbers 0 to `count` the one that equals the length.
        let device = self.device();
        let numbers: Vec<f32> = (0..=count).map(|n| n as f32).collect();
        let numbers = Self::from_f32(&numbers, &[1, count + 1], &device)?;
        let first = Self::full(&[1], first as f32, DType::F32, &device)?;
        let inside = self.map(Function::Identity)?.binary(&first, Operation::Sub)?;
        let inside = inside.map(Function::Clip { low: 0.0, high: count as f32 })?.reshape(&[rows, 1])?;
        inside.binary(&numbers, Operation::Equal)?.argmax(1)?.reshape(&[rows])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    #[test]
    fn lengths_are_cut_at_both_ends() {
        let lengths = Tensor::from_u32(&[0, 3, 4, 5, 9], &[5], &Device::Cpu).expect("memory");
        let within = |range| lengths.lengths_within(range).expect("a valid range");
        assert_eq!(within(0..4).to_vec_u32().expect("a read"), [0, 3, 4, 4, 4]);
        assert_eq!(within(4..7).to_vec_u32().expect("a read"), [0, 0, 0, 1, 3]);
        assert_eq!((within(4..7).bound(), within(7..20).bound()), (3, 2));
        assert!(lengths.lengths_within(4..4).is_err() && lengths.lengths_within(0..EXACT + 1).is_err());
        assert!(Tensor::zeros(&[2], DType::F32, &Device::Cpu).expect("memory").lengths_within(0..2).is_err());
    }
}
