//! The first of two optional values that was given.

use super::prelude::*;

/// The first of two optional inputs that was given. Used for masks: one given by the caller takes precedence over one
/// computed by a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstGiven;

impl Operator for FirstGiven {
    fn name(&self) -> &'static str {
        "FirstGiven"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Optional("first"), Slot::Optional("second")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let mut given = inputs.iter().flatten();
        let mut t = (*given.next().ok_or_else(|| Fault::Input(0, "given".into()))?).clone();
        if let Some(other) = given.next() {
            if other.dtype != t.dtype || other.rank() != t.rank() {
                return Err(Fault::Input(1, format!("as the first, {t}")));
            }
            for (a, b) in t.dims.iter_mut().zip(&other.dims) {
                *a = if a == b { a.clone() } else { Dim::Any };
            }
        }
        Ok(vec![t])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        Ok(smallvec::smallvec![call.inputs.iter().flatten().next().map(|&t| t.clone())])
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        vec![inputs.iter().flatten().next().map(|&a| a.clone())]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        // [`crate::Graph::open`] decides what is given.
        Err(g.missing("optional values are only decided when the graph is opened"))
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
