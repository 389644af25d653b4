//! Elementwise arithmetic of two operands.

use super::prelude::*;

/// Elementwise arithmetic, with NumPy's broadcasting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Binary {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a · b`
    Mul,
    /// `a / b`
    Div,
}

impl Operator for Binary {
    fn name(&self) -> &'static str {
        match self {
            Self::Add => "Add",
            Self::Sub => "Sub",
            Self::Mul => "Mul",
            Self::Div => "Div",
        }
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("a"), Slot::Required("b")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let (a, b) = (float(inputs, 0)?, float(inputs, 1)?);
        if a.dtype != b.dtype {
            return Err(Fault::Input(1, format!("{}, as the other operand", a.dtype)));
        }
        let rank = a.rank().max(b.rank());
        let dim =
            |t: &ValueType, n: usize| (n + t.rank()).checked_sub(rank).map_or(Dim::Size(1), |n| t.dims[n].clone());
        let dims: Option<Vec<Dim>> = (0..rank).map(|n| dim(a, n).broadcast(&dim(b, n))).collect();
        let dims = dims.ok_or_else(|| Fault::Input(1, format!("of a shape that can be broadcast with {a}")))?;
        Ok(vec![a.with_dims(dims)])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let (a, b) = (call.input(0), call.input(1));
        Ok(one(match self {
            Self::Add => a.add(b)?,
            Self::Sub => a.sub(b)?,
            Self::Mul => a.mul(b)?,
            Self::Div => a.div(b)?,
        }))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (a, b) = (array(inputs, 0), array(inputs, 1));
        let rank = a.dims.len().max(b.dims.len());
        let dim = |x: &Array, n: usize| (n + x.dims.len()).checked_sub(rank).map_or(1, |n| x.dims[n]);
        let dims: Vec<usize> = (0..rank).map(|n| dim(a, n).max(dim(b, n))).collect();
        vec![Some(Array::from_fn(&dims, |i| match self {
            Self::Add => a.at(i) + b.at(i),
            Self::Sub => a.at(i) - b.at(i),
            Self::Mul => a.at(i) * b.at(i),
            Self::Div => a.at(i) / b.at(i),
        }))]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
