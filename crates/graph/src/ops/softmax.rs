//! Softmax.

use super::prelude::*;

/// `e^x / Σ e^x` over the last axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Softmax;

impl Operator for Softmax {
    fn name(&self) -> &'static str {
        "Softmax"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("x")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let x = float(inputs, 0)?;
        if x.rank() == 0 { Err(Fault::Input(0, "[…, classes]".into())) } else { Ok(vec![x.clone()]) }
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        Ok(one(call.input(0).softmax()?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        vec![Some(Array::new(&x.dims, recurve_reference::softmax(&x.data, x.last())))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (dy, y) = (g.of_only_output(), g.output(0));
        let last = g.kind(y).rank() - 1;
        let dx = super::softmax_over::gradient(g, dy, y, last)?;
        g.give(0, dx);
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
