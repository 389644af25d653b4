//! Layer normalization.

use super::prelude::*;

/// `(x - mean) / √(variance + epsilon) ∘ gain + offset` over the last axis (Ba et al. 2016).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerNorm {
    /// Added to the variance before the square root.
    pub epsilon: f32,
}

impl Operator for LayerNorm {
    fn name(&self) -> &'static str {
        "LayerNormalization"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("x"), Slot::Required("affine")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let (x, affine) = (float(inputs, 0)?, float(inputs, 1)?);
        let fits = match (&x.dims[..], &affine.dims[..]) {
            ([.., n], [two, m]) => two.meet(&Dim::Size(2)).is_some() && n.meet(m).is_some(),
            _ => false,
        };
        if !(self.epsilon.is_finite() && self.epsilon > 0.0) {
            let message = format!("must be finite and above 0, but it is {}", self.epsilon);
            return Err(Fault::Attribute("epsilon", message));
        }
        if fits { Ok(vec![x.clone()]) } else { Err(Fault::Input(1, format!("gain and offset, [2, n], for {x}"))) }
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        Ok(one(call.input(0).layer_norm(call.input(1), self.epsilon)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let mut x = array(inputs, 0).clone();
        let width = x.last();
        for row in x.data.chunks_exact_mut(width) {
            recurve_reference::layer_norm(row, &array(inputs, 1).data, self.epsilon);
        }
        vec![Some(x)]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
