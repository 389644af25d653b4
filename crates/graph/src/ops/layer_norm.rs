//! Layer normalization.

use super::normalize::Normal;
use super::prelude::*;
use super::{Concat, Extent, Reshape, Slice, SumTo};

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
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (dy, x, affine) = (g.of_only_output(), g.input(0), g.input(1));
        let last = g.kind(x).rank() - 1;
        let normal = Normal::new(g, x, vec![last], true, self.epsilon)?;
        let row = |g: &mut Gradients<'_>, start| {
            let row = g.node(Slice { axis: 0, start, len: 1 }, &[affine])?;
            g.node(Reshape(vec![Extent::Axes(0, 2)]), &[row])
        };
        let gain = row(g, 0)?;
        if g.wants(0) {
            let d = g.times(dy, gain)?;
            let dx = normal.back(g, d)?;
            g.give(0, dx);
        }
        if g.wants(1) {
            let weighted = g.times(dy, normal.y)?;
            let mut rows = Vec::new();
            for d in [weighted, dy] {
                let sum = g.node(SumTo, &[d, gain])?;
                rows.push(g.node(Reshape(vec![Extent::Size(1), Extent::Axes(0, 1)]), &[sum])?);
            }
            let d = g.node(Concat { axis: 0 }, &rows)?;
            g.give(1, d);
        }
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
