//! Elementwise arithmetic with broadcasting (`binary.wgsl`).

use super::walk;
use crate::{DType, Device, Error, MAX_RANK, Result, Shape, Tensor};

#[derive(Clone, Copy)]
#[cfg_attr(not(feature = "gpu"), expect(dead_code, reason = "the last two are steps of GPUs"))]
pub(crate) enum Operation {
    Add,
    Sub,
    Mul,
    Div,
    /// `e^(self - other)`
    ExpSub,
    /// `self / √other`
    DivRoot,
}

impl Operation {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Sub => "sub",
            Self::Mul => "mul",
            Self::Div => "div",
            Self::ExpSub => "exp_sub",
            Self::DivRoot => "div_root",
        }
    }
}

impl Tensor {
    /// `self + other`, with the broadcasting of NumPy and PyTorch.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes cannot be broadcast, [`Error::DType`] unless both have the same float type,
    /// [`Error::Device`] if they are on different devices.
    pub fn add(&self, other: &Self) -> Result<Self> {
        self.binary(other, Operation::Add)
    }

    /// `self - other`, with the broadcasting of NumPy and PyTorch.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn sub(&self, other: &Self) -> Result<Self> {
        self.binary(other, Operation::Sub)
    }

    /// `self * other`, elementwise, with the broadcasting of NumPy and PyTorch.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn mul(&self, other: &Self) -> Result<Self> {
        self.binary(other, Operation::Mul)
    }

    /// `self / other`, elementwise, with the broadcasting of NumPy and PyTorch.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn div(&self, other: &Self) -> Result<Self> {
        self.binary(other, Operation::Div)
    }

    /// `self op number`, or `number op self` with `number_first`. f16 is computed in f32: the number is not rounded,
    /// and the result is rounded once.
    pub(crate) fn with_number(&self, number: f32, op: Operation, number_first: bool) -> Result<Self> {
        self.check_float(op.name(), "self")?;
        let wide = self.to_dtype(DType::F32)?;
        let number = Self::full(&[], number, DType::F32, &self.device())?;
        let out = if number_first { number.binary(&wide, op) } else { wide.binary(&number, op) }?;
        out.to_dtype(self.dtype())
    }

    pub(crate) fn binary(&self, other: &Self, op: Operation) -> Result<Self> {
        let name = op.name();
        self.check_float(name, "self")?;
        let same = self.dtype() == other.dtype();
        other.check_dtype(name, "other", if self.dtype() == DType::F32 { "f32" } else { "f16" }, same)?;
        self.check_same_device(other, name, "other")?;
        let common = Broadcast::of(self.shape(), other.shape()).ok_or_else(|| {
            Error::shape(name, "other", format!("broadcastable with {}", self.shape()), other.shape())
        })?;
        match self.device() {
            Device::Cpu if self.dtype() == DType::F16 => {
                let wide = self.to_dtype(DType::F32)?.binary(&other.to_dtype(DType::F32)?, op)?;
                wide.to_dtype(DType::F16)
            }
            Device::Cpu => {
                let a = self.cpu_f32().expect("f32 on the CPU");
                let b = other.cpu_f32().expect("f32 on the CPU");
                let f = match op {
                    Operation::Add => |a, b| a + b,
                    Operation::Sub => |a, b| a - b,
                    Operation::Mul => |a: f32, b: f32| a * b,
                    Operation::Div => |a, b| a / b,
                    Operation::ExpSub => |a: f32, b: f32| (a - b).exp(),
                    Operation::DivRoot => |a: f32, b: f32| a / b.sqrt(),
                };
                Self::cpu_write(common.shape, |out| {
                    if self.shape() == other.shape() {
                        out.iter_mut().zip(a.iter().zip(b)).for_each(|(o, (&a, &b))| *o = f(a, b));
                    } else {
                        let mut out = out.iter_mut();
                        walk(&common.shape, &common.left, &common.right, |i, j| {
                            *out.next().expect("as many as the shape has") = f(a[i], b[j]);
                        });
                    }
                    Ok(())
                })
            }
            Device::Gpu(gpu) => gpu.binary([self, other], op, &common),
        }
    }
}

/// The common shape of two operands, and the strides of each in it; the stride is 0 along dimensions that are repeated.
pub(crate) struct Broadcast {
    pub(crate) shape: Shape,
    pub(crate) left: [usize; MAX_RANK],
    pub(crate) right: [usize; MAX_RANK],
}

impl Broadcast {
    fn of(a: &Shape, b: &Shape) -> Option<Self> {
        let rank = a.rank().max(b.rank());
        let mut dims = [1; MAX_RANK];
        let (mut left, mut right) = ([0; MAX_RANK], [0; MAX_RANK]);
        let mut place = |s: &Shape, strides: &mut [usize; MAX_RANK]| {
            let own = s.strides();
            let skip = rank - s.rank();
            for (d, &size) in s.dims().iter().enumerate() {
                if size != 1 {
                    if dims[skip + d] != 1 && dims[skip + d] != size {
                        return false;
                    }
                    dims[skip + d] = size;
                    strides[skip + d] = own[d];
                }
            }
            true
        };
        let fits = place(a, &mut left) && place(b, &mut right);
        fits.then(|| Shape::new(&dims[..rank])).flatten().map(|shape| Self { shape, left, right })
    }
}
