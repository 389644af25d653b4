//! An activation function, elementwise.

use super::prelude::*;
use crate::operator::given;
use recurve_vocabulary::Activation;

/// `y = f(x)`, elementwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Activate(pub Activation);

impl Operator for Activate {
    fn name(&self) -> &'static str {
        "Activate"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("x")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let x = given(inputs, 0)?;
        if x.dtype.is_float() { Ok(vec![x.clone()]) } else { Err(Fault::Input(0, "f32 or f16".into())) }
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        Ok(one(call.input(0).activation(self.0)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let y = x.data.iter().map(|&v| recurve_reference::activate(self.0, v)).collect();
        vec![Some(Array::new(&x.dims, y))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (dy, x, y) = (g.of_only_output(), g.input(0), g.output(0));
        let dx = g.activation(self.0, dy, Some(x), y)?;
        g.give(0, dx);
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
