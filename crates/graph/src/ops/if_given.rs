//! A value that is there only where another is.

use super::prelude::*;

/// `x` where `condition` was given, whatever its elements; else nothing. With [`super::FirstGiven`] behind it, a
/// choice by which optional inputs a caller gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IfGiven;

impl Operator for IfGiven {
    fn name(&self) -> &'static str {
        "IfGiven"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("x"), Slot::Required("condition")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        required(inputs, 1)?;
        Ok(vec![required(inputs, 0)?.clone()])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        Ok(one(call.input(0).clone()))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        vec![Some(array(inputs, 0).clone())]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
