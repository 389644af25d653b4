//! A value that exists only if another was given.

use super::prelude::*;

/// `x` if `condition` was given, whatever its elements; otherwise nothing. Followed by [`super::FirstGiven`] it chooses
/// between values by which optional inputs the caller gave.
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
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        // [`crate::Graph::open`] decides what is given.
        Err(g.missing("optional values are only decided when the graph is opened"))
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
