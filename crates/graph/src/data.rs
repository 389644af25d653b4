//! What stands at a value of a graph during a run: a tensor on the device, or whole numbers in host memory.

use crate::Int;
use recurve_tensor::{Device, Error, Result, Tensor};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::sync::Arc;

/// Whole numbers in host memory, row-major: shapes, indices, ids as the caller gave them. They are exact, and may be
/// none at all, as tensors may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntArray {
    dims: SmallVec<[usize; 4]>,
    data: Arc<[i64]>,
}

impl IntArray {
    /// An array with these elements.
    ///
    /// # Panics
    /// If their number is not that of the dimensions.
    pub fn new(dims: &[usize], data: impl Into<Arc<[i64]>>) -> Self {
        let data = data.into();
        assert_eq!(dims.iter().product::<usize>(), data.len(), "elements of {dims:?}");
        Self { dims: dims.into(), data }
    }

    /// One number, without dimensions.
    pub fn scalar(v: i64) -> Self {
        Self::new(&[], [v])
    }

    /// Numbers along one dimension.
    pub fn vector(data: impl Into<Arc<[i64]>>) -> Self {
        let data = data.into();
        Self { dims: SmallVec::from_slice(&[data.len()]), data }
    }

    /// Whether both are one array in memory, as a constant is in every run.
    pub fn is_same(&self, other: &Self) -> bool {
        self.dims == other.dims && Arc::ptr_eq(&self.data, &other.data)
    }

    /// The dimensions.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The numbers.
    pub fn data(&self) -> &[i64] {
        &self.data
    }

    /// The same numbers in other dimensions.
    ///
    /// # Panics
    /// If their number is not that of the dimensions.
    pub fn reshaped(&self, dims: &[usize]) -> Self {
        Self::new(dims, self.data.clone())
    }

    /// The numbers as f32 on a device.
    ///
    /// # Errors
    /// [`Error::Range`] for a number that f32 does not hold exactly, [`Error::Argument`] if there are none; those of
    /// [`Tensor::from_f32`].
    pub fn to_tensor(&self, device: &Device) -> Result<Tensor> {
        let mut all = recurve_tensor::cpu::host("integers as f32", self.data.len())?;
        for (index, (out, &got)) in all.iter_mut().zip(&*self.data).enumerate() {
            *out = got as f32;
            if *out as i64 != got {
                let (operation, argument, expected) = ("integers as f32", "x", "whole numbers that f32 holds exactly");
                return Err(Error::Range { operation, argument, expected, got, index });
            }
        }
        Tensor::from_f32(&all, &self.dims, device)
    }

    /// The numbers as U32 on a device.
    ///
    /// # Errors
    /// Those of [`Tensor::from_i64`].
    pub fn to_ids(&self, device: &Device) -> Result<Tensor> {
        Tensor::from_i64(&self.data, &self.dims, device)
    }
}

/// What stands at a value during a run.
#[derive(Clone, Debug)]
pub enum Data {
    /// Elements on the device. Whole numbers and truth values that a device computed are f32 or U32 there.
    Tensor(Tensor),
    /// Whole numbers in host memory; truth values are 0 and 1.
    Ints(IntArray),
}

impl Data {
    /// The dimensions.
    pub fn dims(&self) -> &[usize] {
        match self {
            Self::Tensor(t) => t.dims(),
            Self::Ints(i) => i.dims(),
        }
    }

    /// The tensor, if it is one.
    pub fn as_tensor(&self) -> Option<&Tensor> {
        match self {
            Self::Tensor(t) => Some(t),
            Self::Ints(_) => None,
        }
    }

    /// The elements as f32 on a device.
    ///
    /// # Errors
    /// Those of [`IntArray::to_tensor`] and of [`Tensor::to_dtype`].
    pub fn to_f32(&self, device: &Device) -> Result<Cow<'_, Tensor>> {
        match self {
            Self::Tensor(t) if t.dtype() == recurve_tensor::DType::F32 => Ok(Cow::Borrowed(t)),
            Self::Tensor(t) if t.dtype().is_float() => t.to_dtype(recurve_tensor::DType::F32).map(Cow::Owned),
            Self::Tensor(t) => t.map(recurve_tensor::Function::Identity).map(Cow::Owned),
            Self::Ints(i) => i.to_tensor(device).map(Cow::Owned),
        }
    }

    /// The elements as whole numbers in host memory, read back if they are on a device; fractions are cut off.
    ///
    /// # Errors
    /// Those of reading a tensor.
    pub fn to_ints(&self) -> Result<IntArray> {
        match self {
            Self::Ints(i) => Ok(i.clone()),
            Self::Tensor(t) if t.dtype() == recurve_tensor::DType::U32 => Ok(IntArray::new(t.dims(), t.to_vec_i64()?)),
            Self::Tensor(t) => {
                Ok(IntArray::new(t.dims(), t.to_vec()?.into_iter().map(|v| v as i64).collect::<Vec<_>>()))
            }
        }
    }
}

impl From<Tensor> for Data {
    fn from(t: Tensor) -> Self {
        Self::Tensor(t)
    }
}

impl From<IntArray> for Data {
    fn from(i: IntArray) -> Self {
        Self::Ints(i)
    }
}

impl Int {
    /// The smallest and the largest of its numbers; of U64 those that an i64 holds.
    pub const fn range(self) -> (i64, i64) {
        match self {
            Self::I8 => (i8::MIN as i64, i8::MAX as i64),
            Self::U8 => (0, u8::MAX as i64),
            Self::I16 => (i16::MIN as i64, i16::MAX as i64),
            Self::U16 => (0, u16::MAX as i64),
            Self::I32 => (i32::MIN as i64, i32::MAX as i64),
            Self::U32 => (0, u32::MAX as i64),
            Self::I64 => (i64::MIN, i64::MAX),
            Self::U64 => (0, i64::MAX),
        }
    }

    /// The number of this type with the same last bits, as C wraps what is too large.
    pub const fn wrap(self, v: i64) -> i64 {
        match self {
            Self::I8 => v as i8 as i64,
            Self::U8 => v as u8 as i64,
            Self::I16 => v as i16 as i64,
            Self::U16 => v as u16 as i64,
            Self::I32 => v as i32 as i64,
            Self::U32 => v as u32 as i64,
            Self::I64 | Self::U64 => v,
        }
    }
}
