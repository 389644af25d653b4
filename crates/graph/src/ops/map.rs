//! Functions of one operand, elementwise.

use super::prelude::*;
use crate::operator::given;
use crate::{Data, Element, Int, IntArray};
use core::f64::consts::{FRAC_1_SQRT_2, PI};
use half::{bf16, f16};
use recurve_tensor::Function;

/// `y = f(x)`, elementwise, of floats; some functions also of whole numbers or truth values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Map {
    /// The function.
    pub function: Function,
    /// The type of x.
    pub element: Element,
}

impl Map {
    /// Of whole numbers of a type, if it has a meaning there.
    fn whole(&self, v: i64) -> Option<i64> {
        let int = match self.element {
            Element::Int(int) => int,
            _ => Int::I64,
        };
        match self.function {
            Function::Abs if int.is_signed() => Some(int.wrap(v.wrapping_abs())),
            Function::Abs => Some(v),
            Function::Neg => Some(int.wrap(v.wrapping_neg())),
            Function::Sign if int.is_signed() => Some(v.signum()),
            Function::Sign => Some((v != 0).into()),
            Function::Not => Some((v == 0).into()),
            _ => None,
        }
    }
}

impl Operator for Map {
    fn name(&self) -> &'static str {
        name(self.function)
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("x")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let x = given(inputs, 0)?;
        let fits = x.dtype == self.element && (x.dtype.is_float() || self.whole(0).is_some());
        if !fits {
            return Err(Fault::Input(0, "f32 or f16".into()));
        }
        let test = matches!(self.function, Function::IsInf { .. } | Function::IsNan | Function::Not);
        let known = x.known.as_ref().map(|k| k.iter().map(|v| v.and_then(|v| self.whole(v))).collect::<Vec<_>>());
        Ok(vec![ValueType { dtype: if test { Element::Bool } else { x.dtype }, ..x.clone() }.with_known(known)])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        match call.data(0) {
            Data::Ints(x) => {
                let y: Vec<i64> = x.data().iter().map(|&v| self.whole(v).expect("checked by its type")).collect();
                Ok(one(IntArray::new(x.dims(), y)))
            }
            Data::Tensor(x) => Ok(one(x.map(self.function)?)),
        }
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let f = |&v: &f64| match self.element {
            Element::Int(_) | Element::Bool => self.whole(v as i64).map_or(f64::NAN, |v| v as f64),
            _ => real(self.function, v),
        };
        vec![Some(Array::new(&x.dims, x.data.iter().map(f).collect()))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (dy, x) = (g.of_only_output(), g.input(0));
        super::slope::of_function(g, self.function, dy, x)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// ONNX's name.
const fn name(f: Function) -> &'static str {
    match f {
        Function::Identity => "Identity",
        Function::Abs => "Abs",
        Function::Acos => "Acos",
        Function::Acosh => "Acosh",
        Function::Asin => "Asin",
        Function::Asinh => "Asinh",
        Function::Atan => "Atan",
        Function::Atanh => "Atanh",
        Function::Ceil => "Ceil",
        Function::Cos => "Cos",
        Function::Cosh => "Cosh",
        Function::Erf => "Erf",
        Function::Exp => "Exp",
        Function::Floor => "Floor",
        Function::IsInf { .. } => "IsInf",
        Function::IsNan => "IsNaN",
        Function::Log => "Log",
        Function::Neg => "Neg",
        Function::Not => "Not",
        Function::Reciprocal => "Reciprocal",
        Function::Round => "Round",
        Function::Sign => "Sign",
        Function::Sin => "Sin",
        Function::Sinh => "Sinh",
        Function::Sqrt => "Sqrt",
        Function::Tan => "Tan",
        Function::Celu { .. } => "Celu",
        Function::Selu { .. } => "Selu",
        Function::HardSwish => "HardSwish",
        Function::Gelu | Function::GeluTanh => "Gelu",
        Function::Mish => "Mish",
        Function::Swish { .. } => "Swish",
        Function::Clip { .. } => "Clip",
        Function::Whole { .. } | Function::NonZero | Function::RoundF16 | Function::RoundBf16 => "Cast",
        _ => "Map",
    }
}

/// The function in f64.
pub(super) fn real(f: Function, x: f64) -> f64 {
    let holds = |v: bool| f64::from(u8::from(v));
    let wide = f64::from;
    match f {
        Function::Identity => x,
        Function::Abs => x.abs(),
        Function::Acos => x.acos(),
        Function::Acosh => x.acosh(),
        Function::Asin => x.asin(),
        Function::Asinh => x.asinh(),
        Function::Atan => x.atan(),
        Function::Atanh => x.atanh(),
        Function::Ceil => x.ceil(),
        Function::Cos => x.cos(),
        Function::Cosh => x.cosh(),
        Function::Erf => libm::erf(x),
        Function::Exp => x.exp(),
        Function::Floor => x.floor(),
        Function::IsInf { negative, positive } => {
            holds(x == f64::NEG_INFINITY && negative || x == f64::INFINITY && positive)
        }
        Function::IsNan => holds(x.is_nan()),
        Function::Log => x.ln(),
        Function::Neg => -x,
        Function::Not => holds(x == 0.0),
        Function::Reciprocal => 1.0 / x,
        Function::Round => x.round_ties_even(),
        Function::Sign if x == 0.0 || x.is_nan() => x,
        Function::Sign => x.signum(),
        Function::Sin => x.sin(),
        Function::Sinh => x.sinh(),
        Function::Sqrt => x.sqrt(),
        Function::Tan => x.tan(),
        Function::Celu { alpha } if x < 0.0 => wide(alpha) * (x / wide(alpha)).exp_m1(),
        Function::Celu { .. } => x,
        Function::Selu { alpha, gamma } if x <= 0.0 => wide(gamma) * (wide(alpha) * x.exp() - wide(alpha)),
        Function::Selu { gamma, .. } => wide(gamma) * x,
        Function::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        Function::Gelu => 0.5 * x * (1.0 + libm::erf(x * FRAC_1_SQRT_2)),
        Function::GeluTanh => 0.5 * x * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()),
        Function::Mish => x * (x.max(0.0) + (-x.abs()).exp().ln_1p()).tanh(),
        Function::Swish { alpha } => x / (1.0 + (-wide(alpha) * x).exp()),
        Function::Clip { .. } if x.is_nan() => x,
        Function::Clip { low, high } => x.max(wide(low)).min(wide(high)),
        Function::Whole { bits, signed } => {
            let bits = u32::from(bits);
            // As x86-64 converts: what a signed number of 32 bits, or 64, does not hold is the least one.
            let wide = if bits == 64 || bits == 32 && !signed { 64 } else { 32 };
            let end = 2f64.powi(wide - 1);
            let v = if x >= -end && x < end { x as i64 } else { -(end as i128) as i64 };
            let last = (v as u64) << (64 - bits);
            if signed { (last as i64 >> (64 - bits)) as f64 } else { (last >> (64 - bits)) as f64 }
        }
        Function::NonZero => holds(x != 0.0),
        Function::RoundF16 => f16::from_f64(x).to_f64(),
        Function::RoundBf16 => bf16::from_f64(x).to_f64(),
        // A function without a truth here is wrong wherever it is checked.
        _ => f64::NAN,
    }
}
