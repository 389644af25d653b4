//! The same value, and one that holds everywhere.

use super::prelude::*;
use crate::operator::given;
use crate::{Element, IntArray};

/// `x`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity;

impl Operator for Identity {
    fn name(&self) -> &'static str {
        "Identity"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("x")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        Ok(vec![given(inputs, 0)?.clone()])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        Ok(one(call.data(0).clone()))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        vec![Some(array(inputs, 0).clone())]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let dy = g.of_only_output();
        g.give(0, dy);
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Truth values in the shape of `x` that all hold: the mask of a dropout that drops nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllTrue;

impl Operator for AllTrue {
    fn name(&self) -> &'static str {
        "Dropout"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("x")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        Ok(vec![ValueType { dtype: Element::Bool, known: None, ..given(inputs, 0)?.clone() }])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let dims = call.data(0).dims();
        Ok(one(IntArray::new(dims, vec![1; dims.iter().product()])))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        vec![Some(Array::from_fn(&array(inputs, 0).dims, |_| 1.0))]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
