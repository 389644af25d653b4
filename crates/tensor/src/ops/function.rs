//! Elementwise functions of one operand that are not activations of cells (`function.wgsl`).

use super::binary::SLOW;
use super::broadcast::in_parts;
use crate::cpu::{functions, simd_arch};
use crate::{DType, Device, Result, Tensor, bf16, f16};
use pulp::{Simd, WithSimd};

/// A function of one number x. What says whether something holds gives 1 or 0.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Function {
    /// x: U32 as f32.
    Identity,
    /// `|x|`
    Abs,
    /// arc cosine; NaN beyond [-1, 1].
    Acos,
    /// arc hyperbolic cosine; NaN below 1.
    Acosh,
    /// arc sine; NaN beyond [-1, 1].
    Asin,
    /// arc hyperbolic sine.
    Asinh,
    /// arc tangent.
    Atan,
    /// arc hyperbolic tangent; NaN beyond [-1, 1].
    Atanh,
    /// The next whole number that is not below.
    Ceil,
    /// cosine
    Cos,
    /// hyperbolic cosine
    Cosh,
    /// The error function.
    Erf,
    /// `e^x`
    Exp,
    /// The next whole number that is not above.
    Floor,
    /// Whether x is an infinity of a sign that is looked for.
    IsInf {
        /// Minus infinity is looked for.
        negative: bool,
        /// Plus infinity is looked for.
        positive: bool,
    },
    /// Whether x is NaN.
    IsNan,
    /// `ln x`; NaN below 0.
    Log,
    /// `-x`
    Neg,
    /// Whether x is 0.
    Not,
    /// `1 / x`
    Reciprocal,
    /// The nearest whole number, of two the even one.
    Round,
    /// -1, 0 or 1, by the sign of x.
    Sign,
    /// sine
    Sin,
    /// hyperbolic sine
    Sinh,
    /// `√x`; NaN below 0.
    Sqrt,
    /// tangent
    Tan,
    /// `x` if `x ≥ 0`, else `alpha (e^(x / alpha) - 1)`
    Celu {
        /// Scale below zero; not 0.
        alpha: f32,
    },
    /// `gamma x` if `x > 0`, else `gamma alpha (e^x - 1)`
    Selu {
        /// Scale below zero.
        alpha: f32,
        /// Scale everywhere.
        gamma: f32,
    },
    /// `x clamp(x / 6 + 0.5, 0, 1)`
    HardSwish,
    /// `x (1 + erf(x / √2)) / 2`
    Gelu,
    /// `x (1 + tanh(√(2 / π) (x + 0.044715 x³))) / 2`
    GeluTanh,
    /// `x tanh(ln(1 + e^x))`
    Mish,
    /// `x / (1 + e^(-alpha x))`
    Swish {
        /// Scale of the exponent.
        alpha: f32,
    },
    /// `min(max(x, low), high)`
    Clip {
        /// The least result, if it is not above `high`.
        low: f32,
        /// The largest result.
        high: f32,
    },
    /// x without its fraction, as a whole number of so many bits. What is too large for them comes out as x86-64
    /// computers and ONNX Runtime have it: with 64 and 32 bits as the least number, with fewer as its last bits.
    Whole {
        /// 8, 16, 32 or 64.
        bits: u8,
        /// Whether there are negative ones.
        signed: bool,
    },
    /// Whether x is not 0.
    NonZero,
    /// The nearest f16, ties to even; infinite above the largest.
    RoundF16,
    /// The nearest bf16, ties to even; infinite above the largest.
    RoundBf16,
}

impl Function {
    /// Each function once, by its [`Self::code`].
    pub const ALL: [Self; 38] = [
        Self::Identity,
        Self::Abs,
        Self::Acos,
        Self::Acosh,
        Self::Asin,
        Self::Asinh,
        Self::Atan,
        Self::Atanh,
        Self::Ceil,
        Self::Cos,
        Self::Cosh,
        Self::Erf,
        Self::Exp,
        Self::Floor,
        Self::IsInf { negative: true, positive: true },
        Self::IsNan,
        Self::Log,
        Self::Neg,
        Self::Not,
        Self::Reciprocal,
        Self::Round,
        Self::Sign,
        Self::Sin,
        Self::Sinh,
        Self::Sqrt,
        Self::Tan,
        Self::Celu { alpha: 1.0 },
        Self::Selu { alpha: 1.673_263_2, gamma: 1.050_701 },
        Self::HardSwish,
        Self::Gelu,
        Self::GeluTanh,
        Self::Mish,
        Self::Swish { alpha: 1.0 },
        Self::Clip { low: 0.0, high: 1.0 },
        Self::Whole { bits: 32, signed: true },
        Self::NonZero,
        Self::RoundF16,
        Self::RoundBf16,
    ];

    /// The number by which `function.wgsl` knows the function.
    pub const fn code(self) -> u32 {
        match self {
            Self::Identity => 0,
            Self::Abs => 1,
            Self::Acos => 2,
            Self::Acosh => 3,
            Self::Asin => 4,
            Self::Asinh => 5,
            Self::Atan => 6,
            Self::Atanh => 7,
            Self::Ceil => 8,
            Self::Cos => 9,
            Self::Cosh => 10,
            Self::Erf => 11,
            Self::Exp => 12,
            Self::Floor => 13,
            Self::IsInf { .. } => 14,
            Self::IsNan => 15,
            Self::Log => 16,
            Self::Neg => 17,
            Self::Not => 18,
            Self::Reciprocal => 19,
            Self::Round => 20,
            Self::Sign => 21,
            Self::Sin => 22,
            Self::Sinh => 23,
            Self::Sqrt => 24,
            Self::Tan => 25,
            Self::Celu { .. } => 26,
            Self::Selu { .. } => 27,
            Self::HardSwish => 28,
            Self::Gelu => 29,
            Self::GeluTanh => 30,
            Self::Mish => 31,
            Self::Swish { .. } => 32,
            Self::Clip { .. } => 33,
            Self::Whole { .. } => 34,
            Self::NonZero => 35,
            Self::RoundF16 => 36,
            Self::RoundBf16 => 37,
        }
    }

    /// Its parameters; zero where it has none.
    pub const fn parameters(self) -> [f32; 2] {
        match self {
            Self::IsInf { negative, positive } => [negative as u8 as f32, positive as u8 as f32],
            Self::Celu { alpha } | Self::Swish { alpha } => [alpha, 0.0],
            Self::Selu { alpha, gamma } => [alpha, gamma],
            Self::Clip { low, high } => [low, high],
            Self::Whole { bits, signed } => [bits as f32, signed as u8 as f32],
            _ => [0.0, 0.0],
        }
    }

    fn apply(self, x: &[f32], out: &mut [f32]) {
        let as_float = |holds: bool| f32::from(u8::from(holds));
        macro_rules! each {
            ($cost:expr, $f:expr) => {
                in_parts(out, $cost, |start, out| {
                    simd_arch().dispatch(Scalar { x: &x[start..start + out.len()], out, f: $f });
                })
            };
        }
        macro_rules! vectors {
            ($f:expr) => {
                in_parts(out, SLOW / 2, |start, out| {
                    functions::map($f, &x[start..start + out.len()], out);
                })
            };
        }
        match self {
            Self::Identity => out.copy_from_slice(x),
            Self::Abs => each!(1, f32::abs),
            Self::Acos => each!(SLOW, f32::acos),
            Self::Acosh => each!(SLOW, acosh),
            Self::Asin => each!(SLOW, f32::asin),
            Self::Asinh => each!(SLOW, f32::asinh),
            Self::Atan => each!(SLOW, f32::atan),
            Self::Atanh => each!(SLOW, f32::atanh),
            Self::Ceil => each!(1, f32::ceil),
            Self::Cos => each!(SLOW, f32::cos),
            Self::Cosh => each!(SLOW, f32::cosh),
            Self::Erf => vectors!(functions::Vectors::Erf),
            Self::Exp => vectors!(functions::Vectors::Exp),
            Self::Floor => each!(1, f32::floor),
            Self::IsInf { negative, positive } => {
                each!(1, |v: f32| { as_float(negative && v == f32::NEG_INFINITY || positive && v == f32::INFINITY) })
            }
            Self::IsNan => each!(1, |v: f32| as_float(v.is_nan())),
            Self::Log => each!(SLOW, f32::ln),
            Self::Neg => each!(1, |v: f32| -v),
            Self::Not => each!(1, |v| as_float(v == 0.0)),
            Self::Reciprocal => each!(1, |v| 1.0 / v),
            Self::Round => each!(1, f32::round_ties_even),
            Self::Sign => each!(1, |v: f32| if v > 0.0 {
                1.0
            } else if v < 0.0 {
                -1.0
            } else {
                // 0, or NaN.
                v + 0.0
            }),
            Self::Sin => each!(SLOW, f32::sin),
            Self::Sinh => each!(SLOW, f32::sinh),
            Self::Sqrt => each!(1, f32::sqrt),
            Self::Tan => each!(SLOW, f32::tan),
            Self::Celu { alpha } => {
                vectors!(functions::Vectors::ExpBelow { inner: 1.0 / alpha, below: alpha, above: 1.0 })
            }
            Self::Selu { alpha, gamma } => {
                vectors!(functions::Vectors::ExpBelow { inner: 1.0, below: gamma * alpha, above: gamma });
            }
            Self::HardSwish => each!(1, |v: f32| {
                let h = v + 3.0;
                let h = if h < 0.0 { 0.0 } else { h };
                v * (if h > 6.0 { 6.0 } else { h } * (1.0 / 6.0))
            }),
            Self::Gelu => vectors!(functions::Vectors::Gelu),
            Self::GeluTanh => vectors!(functions::Vectors::GeluTanh),
            Self::Mish => vectors!(functions::Vectors::Mish),
            Self::Swish { alpha } => vectors!(functions::Vectors::Swish { alpha }),
            Self::Clip { low, high } => each!(1, |v: f32| {
                let v = if v < low { low } else { v };
                if v > high { high } else { v }
            }),
            Self::Whole { bits, signed } => match (bits, signed) {
                (64.., true) => each!(4, |v: f32| whole(v, 64) as f32),
                (64.., false) => each!(4, |v: f32| whole(v, 64) as u64 as f32),
                (32.., true) => each!(4, |v: f32| whole(v, 32) as f32),
                (32.., false) => each!(4, |v: f32| whole(v, 64) as u32 as f32),
                (16.., true) => each!(4, |v: f32| f32::from(whole(v, 32) as i16)),
                (16.., false) => each!(4, |v: f32| f32::from(whole(v, 32) as u16)),
                (_, true) => each!(4, |v: f32| f32::from(whole(v, 32) as i8)),
                (_, false) => each!(4, |v: f32| f32::from(whole(v, 32) as u8)),
            },
            Self::NonZero => each!(1, |v| as_float(v != 0.0)),
            Self::RoundF16 => each!(4, |v| f16::from_f32(v).to_f32()),
            Self::RoundBf16 => each!(4, |v| bf16::from_f32(v).to_f32()),
        }
    }
}

/// As exact near 1, where the standard library's is not.
fn acosh(x: f32) -> f32 {
    let t = x - 1.0;
    if x < 1.0 {
        f32::NAN
    } else if x > 1e9 {
        x.ln() + core::f32::consts::LN_2
    } else {
        (t + (t * (t + 2.0)).sqrt()).ln_1p()
    }
}

/// The signed whole number of so many bits that x86-64 makes of a float: the least one for what it does not hold.
fn whole(v: f32, bits: u32) -> i64 {
    let end = (1u64 << (bits - 1)) as f32;
    if v >= -end && v < end { v as i64 } else { i64::MIN >> (64 - bits) }
}

impl Tensor {
    /// `f(self)`, elementwise, as f32 if it is U32.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn map(&self, f: Function) -> Result<Self> {
        if self.dtype() == DType::F16 {
            return self.to_dtype(DType::F32)?.map(f)?.to_dtype(DType::F16);
        }
        match self.device() {
            Device::Cpu => Self::cpu_write(*self.shape(), |out| {
                match self.cpu_u32() {
                    None => f.apply(self.cpu_f32().expect("f32 on the CPU"), out),
                    Some(x) => {
                        out.iter_mut().zip(x).for_each(|(o, &v)| *o = v as f32);
                        if f != Function::Identity {
                            let wide = out.to_vec();
                            f.apply(&wide, out);
                        }
                    }
                }
                Ok(())
            }),
            Device::Gpu(gpu) => match self.dtype() {
                DType::U32 if f != Function::Identity => gpu.function(&gpu.function(self, Function::Identity)?, f),
                _ => gpu.function(self, f),
            },
        }
    }
}

/// `out = f(x)`, in the instructions of the processor as far as the compiler finds them.
struct Scalar<'a, F> {
    x: &'a [f32],
    out: &'a mut [f32],
    f: F,
}

impl<F: Fn(f32) -> f32> WithSimd for Scalar<'_, F> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.out.iter_mut().zip(self.x).for_each(|(o, &v)| *o = (self.f)(v));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_stand_at_their_codes() {
        for (code, f) in (0..).zip(Function::ALL) {
            assert_eq!(f.code(), code, "{f:?}");
        }
        #[cfg(feature = "gpu")]
        {
            assert_eq!(Function::ALL.len(), recurve_shaders::Variant::FUNCTIONS as usize);
            assert_eq!(crate::Operation::ALL.len(), recurve_shaders::Variant::OPERATIONS as usize);
        }
        for (n, operation) in crate::Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, n, "{operation:?}");
        }
    }
}
