//! Elementwise functions of two operands with broadcasting (`binary.wgsl`).

use super::broadcast::{Broadcast, Runs, in_parts};
use crate::cpu::simd_arch;
use crate::{DType, Device, Error, Result, Tensor};
use pulp::{Simd, WithSimd};

/// A function of two numbers a and b. What says whether something holds gives 1 or 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a · b`
    Mul,
    /// `a / b`
    Div,
    /// `e^(a - b)`
    ExpSub,
    /// `a / √b`
    DivRoot,
    /// `a^b`
    Pow,
    /// The larger one; NaN if one is.
    Max,
    /// The smaller one; NaN if one is.
    Min,
    /// Whether `a = b`.
    Equal,
    /// Whether `a < b`.
    Less,
    /// Whether `a ≤ b`.
    LessOrEqual,
    /// Whether neither is 0.
    And,
    /// Whether one is not 0.
    Or,
    /// Whether one is 0 and the other is not.
    Xor,
    /// What is left of a after whole multiples of b, of b's sign: `a - ⌊a / b⌋ b`.
    Modulo,
    /// What is left of a after whole multiples of b, of a's sign, as C's `fmod`. It is exact; on GPUs where `a / b` is
    /// finite.
    Remainder,
    /// `a / b` without its fraction, of whole numbers.
    Quotient,
    /// `a` if `a ≥ 0`, else `a · b`.
    PRelu,
}

impl Operation {
    /// Every one.
    pub const ALL: [Self; 19] = [
        Self::Add,
        Self::Sub,
        Self::Mul,
        Self::Div,
        Self::ExpSub,
        Self::DivRoot,
        Self::Pow,
        Self::Max,
        Self::Min,
        Self::Equal,
        Self::Less,
        Self::LessOrEqual,
        Self::And,
        Self::Or,
        Self::Xor,
        Self::Modulo,
        Self::Remainder,
        Self::Quotient,
        Self::PRelu,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Sub => "sub",
            Self::Mul => "mul",
            Self::Div => "div",
            Self::ExpSub => "exp_sub",
            Self::DivRoot => "div_root",
            Self::Pow => "pow",
            Self::Max => "max",
            Self::Min => "min",
            Self::Equal => "equal",
            Self::Less => "less",
            Self::LessOrEqual => "less_or_equal",
            Self::And => "and",
            Self::Or => "or",
            Self::Xor => "xor",
            Self::Modulo => "modulo",
            Self::Remainder => "remainder",
            Self::Quotient => "quotient",
            Self::PRelu => "prelu",
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

    /// `op(self, other)`, elementwise, broadcasting as NumPy and PyTorch do.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn binary(&self, other: &Self, op: Operation) -> Result<Self> {
        let name = op.name();
        self.check_float(name, "self")?;
        let same = self.dtype() == other.dtype();
        other.check_dtype(name, "other", if self.dtype() == DType::F32 { "f32" } else { "f16" }, same)?;
        self.check_same_device(other, name, "other")?;
        let common = Broadcast::of([self.shape(), other.shape()]).ok_or_else(|| {
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
                let runs = common.runs();
                Self::cpu_write(common.shape, |out| {
                    op.apply(a, b, &runs, out);
                    Ok(())
                })
            }
            Device::Gpu(gpu) => gpu.binary([self, other], op, &common),
        }
    }
}

/// Multiply-adds that an element of a function of the standard library is worth.
pub(crate) const SLOW: usize = 16;

impl Operation {
    fn apply(self, a: &[f32], b: &[f32], runs: &Runs<2>, out: &mut [f32]) {
        let as_float = |holds: bool| f32::from(u8::from(holds));
        macro_rules! each {
            ($cost:expr, $f:expr) => {
                in_parts(out, $cost, |start, out| simd_arch().dispatch(Combine { a, b, runs, start, out, f: $f }))
            };
        }
        match self {
            Self::Add => each!(1, |a, b| a + b),
            Self::Sub => each!(1, |a, b| a - b),
            Self::Mul => each!(1, |a, b| a * b),
            Self::Div => each!(1, |a, b| a / b),
            Self::ExpSub => each!(SLOW, |a: f32, b: f32| (a - b).exp()),
            Self::DivRoot => each!(1, |a, b: f32| a / b.sqrt()),
            Self::Pow => match *b {
                // What there is a faster way for, with the same result.
                [1.0] => each!(1, |a, _| a),
                [2.0] => each!(1, |a, _| a * a),
                [-1.0] => each!(1, |a, _| 1.0 / a),
                // The root of -0 is -0, and that of minus infinity NaN.
                [0.5] => each!(1, |a: f32, _| if a == f32::NEG_INFINITY { f32::INFINITY } else { a.sqrt() + 0.0 }),
                _ => each!(SLOW, |a: f32, b: f32| a.powf(b)),
            },
            Self::Max => each!(1, |a: f32, b: f32| if a > b || a.is_nan() { a } else { b }),
            Self::Min => each!(1, |a: f32, b: f32| if a < b || a.is_nan() { a } else { b }),
            Self::Equal => each!(1, |a, b| as_float(a == b)),
            Self::Less => each!(1, |a, b| as_float(a < b)),
            Self::LessOrEqual => each!(1, |a, b| as_float(a <= b)),
            Self::And => each!(1, |a, b| as_float(a != 0.0 && b != 0.0)),
            Self::Or => each!(1, |a, b| as_float(a != 0.0 || b != 0.0)),
            Self::Xor => each!(1, |a, b| as_float((a != 0.0) != (b != 0.0))),
            Self::Modulo => each!(SLOW, modulo),
            Self::Remainder => each!(SLOW, |a: f32, b: f32| a % b),
            Self::Quotient => each!(SLOW, quotient),
            Self::PRelu => each!(1, |a: f32, b: f32| if a < 0.0 { a * b } else { a }),
        }
    }
}

fn modulo(a: f32, b: f32) -> f32 {
    let r = a % b;
    // A remainder of zero has the sign of b.
    if r == 0.0 {
        0.0f32.copysign(b)
    } else if (r < 0.0) != (b < 0.0) {
        r + b
    } else {
        r
    }
}

/// The quotient of whole numbers is further from the next whole number than f32 rounds, except where it is large.
fn quotient(a: f32, b: f32) -> f32 {
    (f64::from(a) / f64::from(b)).trunc() as f32
}

/// `out = f(a, b)`, the elements from `start` on.
struct Combine<'a, F> {
    a: &'a [f32],
    b: &'a [f32],
    runs: &'a Runs<2>,
    start: usize,
    out: &'a mut [f32],
    f: F,
}

impl<F: Fn(f32, f32) -> f32> WithSimd for Combine<'_, F> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { a, b, runs, start, out, f } = self;
        let steps = runs.steps();
        runs.each(start, out.len(), |at, n, [i, j]| {
            let out = &mut out[at..at + n];
            match steps {
                [1, 1] => out.iter_mut().zip(&a[i..i + n]).zip(&b[j..j + n]).for_each(|((o, &a), &b)| *o = f(a, b)),
                [1, _] => {
                    let b = b[j];
                    out.iter_mut().zip(&a[i..i + n]).for_each(|(o, &a)| *o = f(a, b));
                }
                [_, 1] => {
                    let a = a[i];
                    out.iter_mut().zip(&b[j..j + n]).for_each(|(o, &b)| *o = f(a, b));
                }
                _ => out.fill(f(a[i], b[j])),
            }
        });
    }
}
