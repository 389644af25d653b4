//! Functions of two operands, elementwise.

use super::broadcast::{broadcast_arrays, broadcast_ints, broadcast_known, broadcast_type};
use super::prelude::*;
use crate::operator::given;
use crate::{Data, Element, Int};
use recurve_tensor::{Error, Function, Operation};

/// A function of two floats, elementwise, broadcasting as NumPy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Binary {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a · b`
    Mul,
    /// `a / b`; of whole numbers without the fraction.
    Div,
    /// `a^b`
    Pow,
    /// The larger one.
    Max,
    /// The smaller one.
    Min,
    /// `a - ⌊a / b⌋ b`
    Modulo,
    /// What is left of a division whose quotient's fraction is cut off.
    Remainder,
    /// Whether `a = b`.
    Equal,
    /// Whether `a < b`.
    Less,
    /// Whether `a ≤ b`.
    LessOrEqual,
    /// Whether `a > b`.
    Greater,
    /// Whether `a ≥ b`.
    GreaterOrEqual,
    /// Whether both hold.
    And,
    /// Whether one holds.
    Or,
    /// Whether exactly one holds.
    Xor,
    /// The bits that both have.
    BitAnd,
    /// The bits that one has.
    BitOr,
    /// The bits that exactly one has.
    BitXor,
    /// The bits moved towards the high ones.
    ShiftLeft,
    /// The bits moved towards the low ones, the sign going along.
    ShiftRight,
    /// `a` if `a ≥ 0`, else `a · b`.
    PRelu,
}

impl Binary {
    const fn onnx(self) -> &'static str {
        match self {
            Self::Add => "Add",
            Self::Sub => "Sub",
            Self::Mul => "Mul",
            Self::Div => "Div",
            Self::Pow => "Pow",
            Self::Max => "Max",
            Self::Min => "Min",
            Self::Modulo | Self::Remainder => "Mod",
            Self::Equal => "Equal",
            Self::Less => "Less",
            Self::LessOrEqual => "LessOrEqual",
            Self::Greater => "Greater",
            Self::GreaterOrEqual => "GreaterOrEqual",
            Self::And => "And",
            Self::Or => "Or",
            Self::Xor => "Xor",
            Self::BitAnd => "BitwiseAnd",
            Self::BitOr => "BitwiseOr",
            Self::BitXor => "BitwiseXor",
            Self::ShiftLeft | Self::ShiftRight => "BitShift",
            Self::PRelu => "PRelu",
        }
    }

    /// Whether it says whether something holds.
    const fn is_test(self) -> bool {
        use Binary::{And, Equal, Greater, GreaterOrEqual, Less, LessOrEqual, Or, Xor};
        matches!(self, Equal | Less | LessOrEqual | Greater | GreaterOrEqual | And | Or | Xor)
    }

    /// The operation of tensors, and whether its operands change places; `None` for those of bits.
    const fn operation(self) -> Option<(Operation, bool)> {
        Some(match self {
            Self::Add => (Operation::Add, false),
            Self::Sub => (Operation::Sub, false),
            Self::Mul => (Operation::Mul, false),
            Self::Div => (Operation::Div, false),
            Self::Pow => (Operation::Pow, false),
            Self::Max => (Operation::Max, false),
            Self::Min => (Operation::Min, false),
            Self::Modulo => (Operation::Modulo, false),
            Self::Remainder => (Operation::Remainder, false),
            Self::Equal => (Operation::Equal, false),
            Self::Less => (Operation::Less, false),
            Self::LessOrEqual => (Operation::LessOrEqual, false),
            Self::Greater => (Operation::Less, true),
            Self::GreaterOrEqual => (Operation::LessOrEqual, true),
            Self::And => (Operation::And, false),
            Self::Or => (Operation::Or, false),
            Self::Xor => (Operation::Xor, false),
            Self::PRelu => (Operation::PRelu, false),
            Self::BitAnd | Self::BitOr | Self::BitXor | Self::ShiftLeft | Self::ShiftRight => return None,
        })
    }

    /// Of real numbers.
    fn real(self, a: f64, b: f64) -> f64 {
        let holds = |v: bool| f64::from(u8::from(v));
        match self {
            Self::Add => a + b,
            Self::Sub => a - b,
            Self::Mul => a * b,
            Self::Div => a / b,
            Self::Pow => a.powf(b),
            Self::Max if a.is_nan() || b.is_nan() => f64::NAN,
            Self::Max => a.max(b),
            Self::Min if a.is_nan() || b.is_nan() => f64::NAN,
            Self::Min => a.min(b),
            // a - ⌊a / b⌋ b, without the rounding of the quotient.
            Self::Modulo => match a % b {
                r if r != 0.0 && (r < 0.0) != (b < 0.0) => r + b,
                r => r,
            },
            Self::Remainder => a % b,
            Self::Equal => holds(a == b),
            Self::Less => holds(a < b),
            Self::LessOrEqual => holds(a <= b),
            Self::Greater => holds(a > b),
            Self::GreaterOrEqual => holds(a >= b),
            Self::And => holds(a != 0.0 && b != 0.0),
            Self::Or => holds(a != 0.0 || b != 0.0),
            Self::Xor => holds((a != 0.0) != (b != 0.0)),
            Self::PRelu => {
                if a < 0.0 {
                    a * b
                } else {
                    a
                }
            }
            Self::BitAnd | Self::BitOr | Self::BitXor | Self::ShiftLeft | Self::ShiftRight => {
                unreachable!("only of whole numbers")
            }
        }
    }

    /// Of whole numbers of a type, or of truth values; `None` for a division by zero.
    fn whole(self, element: Element, a: i64, b: i64) -> Option<i64> {
        let (int, unsigned) = match element {
            Element::Int(int) => (int, int == Int::U64),
            _ => (Int::I64, false),
        };
        let less = |a: i64, b: i64| if unsigned { (a as u64) < b as u64 } else { a < b };
        // A shift by more bits than there are leaves the sign alone.
        let shift = u32::try_from(b).ok().filter(|&b| b < int.bits());
        let v = match self {
            Self::Add => a.wrapping_add(b),
            Self::Sub => a.wrapping_sub(b),
            Self::Mul => a.wrapping_mul(b),
            Self::Div | Self::Modulo | Self::Remainder if b == 0 => return None,
            Self::Div if unsigned => (a as u64 / b as u64) as i64,
            Self::Div => a.wrapping_div(b),
            Self::Modulo | Self::Remainder if unsigned => (a as u64 % b as u64) as i64,
            Self::Remainder => a.wrapping_rem(b),
            Self::Modulo => {
                let r = a.wrapping_rem(b);
                if r != 0 && (r < 0) != (b < 0) { r + b } else { r }
            }
            Self::Pow => match u32::try_from(b) {
                Ok(b) => a.wrapping_pow(b),
                Err(_) if a == 1 || (a == -1 && b % 2 == 0) => 1,
                Err(_) if a == -1 => -1,
                // Beyond 2^32 nothing but 0 and these is left of a number's last bits; below 0 it is a fraction.
                Err(_) => 0,
            },
            Self::Max => {
                if less(a, b) {
                    b
                } else {
                    a
                }
            }
            Self::Min => {
                if less(b, a) {
                    b
                } else {
                    a
                }
            }
            Self::Equal => (a == b).into(),
            Self::Less => less(a, b).into(),
            Self::LessOrEqual => (!less(b, a)).into(),
            Self::Greater => less(b, a).into(),
            Self::GreaterOrEqual => (!less(a, b)).into(),
            Self::And => (a != 0 && b != 0).into(),
            Self::Or => (a != 0 || b != 0).into(),
            Self::Xor => ((a != 0) != (b != 0)).into(),
            Self::BitAnd => a & b,
            Self::BitOr => a | b,
            Self::BitXor => a ^ b,
            Self::ShiftLeft => shift.map_or(0, |b| a << b),
            Self::ShiftRight if unsigned => shift.map_or(0, |b| (a as u64 >> b) as i64),
            Self::ShiftRight => shift.map_or(if a < 0 { -1 } else { 0 }, |b| a >> b),
            Self::PRelu if a < 0 => a.wrapping_mul(b),
            Self::PRelu => a,
        };
        Some(if self.is_test() { v } else { int.wrap(v) })
    }
}

impl Int {
    /// Bits of a number.
    pub const fn bits(self) -> u32 {
        match self {
            Self::I8 | Self::U8 => 8,
            Self::I16 | Self::U16 => 16,
            Self::I32 | Self::U32 => 32,
            Self::I64 | Self::U64 => 64,
        }
    }

    /// Whether there are negative ones.
    pub const fn is_signed(self) -> bool {
        matches!(self, Self::I8 | Self::I16 | Self::I32 | Self::I64)
    }

    /// What makes numbers of this type of floats.
    pub(super) const fn function(self) -> Function {
        Function::Whole { bits: self.bits() as u8, signed: self.is_signed() }
    }
}

impl Operator for Binary {
    fn name(&self) -> &'static str {
        self.onnx()
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("a"), Slot::Required("b")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let (a, b) = (given(inputs, 0)?, given(inputs, 1)?);
        if !a.dtype.is_float() || self.operation().is_none() {
            return Err(Fault::Input(0, "f32 or f16".into()));
        }
        if a.dtype != b.dtype {
            return Err(Fault::Input(1, format!("{}, as the other operand", a.dtype)));
        }
        Ok(vec![broadcast_type(inputs, if self.is_test() { Element::Bool } else { a.dtype })?])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let (operation, swapped) = self.operation().expect("no operation of bits, as was checked");
        let (a, b) = (call.input(0), call.input(1));
        let out = if swapped { b.binary(a, operation) } else { a.binary(b, operation) }?;
        // Truth values are f32.
        Ok(one(if self.is_test() { out.to_dtype(DType::F32)? } else { out }))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (a, b) = (array(inputs, 0), array(inputs, 1));
        vec![Some(broadcast_arrays(&[a, b], |at| self.real(at(0), at(1))))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (dy, a, b) = (g.of_only_output(), g.input(0), g.input(1));
        let (left, right) = (g.wants(0), g.wants(1));
        match self {
            Self::Add | Self::Sub => {
                if left {
                    g.give_sum(0, dy)?;
                }
                if right {
                    let db = if *self == Self::Sub { g.map(Function::Neg, dy)? } else { dy };
                    g.give_sum(1, db)?;
                }
            }
            Self::Mul => {
                for (own, other, wanted) in [(0, b, left), (1, a, right)] {
                    if wanted {
                        let d = g.times(dy, other)?;
                        g.give_sum(own, d)?;
                    }
                }
            }
            Self::Div => {
                let da = g.node(Self::Div, &[dy, b])?;
                if left {
                    g.give_sum(0, da)?;
                }
                if right {
                    // -a / b^2 = -y / b
                    let y = g.output(0);
                    let d = g.times(da, y)?;
                    let db = g.map(Function::Neg, d)?;
                    g.give_sum(1, db)?;
                }
            }
            Self::Pow => {
                if left {
                    // b a^(b - 1)
                    let one = g.number(1.0)?;
                    let less = g.node(Self::Sub, &[b, one])?;
                    let power = g.node(Self::Pow, &[a, less])?;
                    let slope = g.times(b, power)?;
                    let da = g.times(dy, slope)?;
                    g.give_sum(0, da)?;
                }
                if right {
                    // y ln a, but 0 where a is 0, as PyTorch has it
                    let y = g.output(0);
                    let log = g.map(Function::Log, a)?;
                    let slope = g.times(y, log)?;
                    let zero = g.number(0.0)?;
                    let empty = g.node(Self::Equal, &[a, zero])?;
                    let slope = g.node(super::Where, &[empty, zero, slope])?;
                    let db = g.times(dy, slope)?;
                    g.give_sum(1, db)?;
                }
            }
            Self::Max | Self::Min => {
                // Equal operands share the gradient.
                let half = g.number(0.5)?;
                let equal = g.node(Self::Equal, &[a, b])?;
                let shared = g.times(dy, half)?;
                let zero = g.number(0.0)?;
                let wins = if *self == Self::Max { Self::Greater } else { Self::Less };
                for (own, first, second, wanted) in [(0, a, b, left), (1, b, a, right)] {
                    if wanted {
                        let wins = g.node(wins, &[first, second])?;
                        let d = g.node(super::Where, &[wins, dy, zero])?;
                        let d = g.node(super::Where, &[equal, shared, d])?;
                        g.give_sum(own, d)?;
                    }
                }
            }
            Self::Modulo | Self::Remainder => {
                if left {
                    g.give_sum(0, dy)?;
                }
                if right {
                    // The quotient without its fraction, which is (a - y) / b.
                    let y = g.output(0);
                    let whole = g.node(Self::Sub, &[y, a])?;
                    let slope = g.node(Self::Div, &[whole, b])?;
                    let db = g.times(dy, slope)?;
                    g.give_sum(1, db)?;
                }
            }
            Self::PRelu => {
                let zero = g.number(0.0)?;
                let below = g.node(Self::Less, &[a, zero])?;
                if left {
                    let scaled = g.times(dy, b)?;
                    let da = g.node(super::Where, &[below, scaled, dy])?;
                    g.give_sum(0, da)?;
                }
                if right {
                    let d = g.times(dy, a)?;
                    let db = g.node(super::Where, &[below, d, zero])?;
                    g.give_sum(1, db)?;
                }
            }
            // What is true does not change smoothly.
            _ => {}
        }
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A function of two whole numbers of a type, or of truth values, elementwise, broadcasting as NumPy does. In host
/// memory it is exact and wraps as the type does. What a device holds as f32 stays there, except for operations of
/// bits, for which it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    /// The function.
    pub operation: Binary,
    /// The type of the operands.
    pub element: Element,
}

impl Whole {
    fn apply(&self, [a, b]: [i64; 2]) -> Result<i64> {
        self.operation.whole(self.element, a, b).ok_or_else(|| Error::Argument {
            operation: self.operation.onnx(),
            argument: "b",
            message: "contains 0, by which whole numbers cannot be divided".into(),
        })
    }
}

impl Operator for Whole {
    fn name(&self) -> &'static str {
        self.operation.onnx()
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("a"), Slot::Required("b")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let (a, b) = (given(inputs, 0)?, given(inputs, 1)?);
        for (n, t) in [a, b].into_iter().enumerate() {
            if t.dtype != self.element || !t.dtype.is_whole() {
                return Err(Fault::Input(n, self.element.to_string()));
            }
        }
        let dtype = if self.operation.is_test() { Element::Bool } else { self.element };
        let known = broadcast_known(a, b, |a, b| self.operation.whole(self.element, a, b));
        Ok(vec![broadcast_type(inputs, dtype)?.with_known(known)])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        if let (Data::Ints(a), Data::Ints(b)) = (call.data(0), call.data(1)) {
            return Ok(one(broadcast_ints(self.operation.onnx(), [a, b], |v| self.apply(v))?));
        }
        let Some((operation, swapped)) = self.operation.operation() else {
            let (a, b) = (call.ints(0)?, call.ints(1)?);
            return Ok(one(broadcast_ints(self.operation.onnx(), [&a, &b], |v| self.apply(v))?));
        };
        let operation = if self.operation == Binary::Div { Operation::Quotient } else { operation };
        let (a, b) = (call.floats(0)?, call.floats(1)?);
        let out = if swapped { b.binary(&a, operation) } else { a.binary(&b, operation) }?;
        let wraps = matches!(self.operation, Binary::Add | Binary::Sub | Binary::Mul | Binary::Pow);
        Ok(one(match self.element {
            Element::Int(int) if wraps && int.bits() < 32 => out.map(int.function())?,
            _ => out,
        }))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (a, b) = (array(inputs, 0), array(inputs, 1));
        let whole = |a: f64, b: f64| self.operation.whole(self.element, a as i64, b as i64);
        vec![Some(broadcast_arrays(&[a, b], |at| whole(at(0), at(1)).map_or(f64::NAN, |v| v as f64)))]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
