//! Sums, means, maxima and minima along an axis.

use super::check_axis;
use super::prelude::*;
use recurve_tensor::Reduction;

/// Reduces `axis` to size 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reduce {
    /// The kind of reduction.
    pub reduction: Reduction,
    /// The axis.
    pub axis: usize,
}

impl Operator for Reduce {
    fn name(&self) -> &'static str {
        super::reduce_over::name(self.reduction)
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("x")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let mut x = float(inputs, 0)?.clone();
        check_axis(&x, self.axis)?;
        x.dims[self.axis] = Dim::Size(1);
        Ok(vec![x])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        Ok(one(call.input(0).reduce(self.reduction, self.axis)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        vec![Some(super::reduce_over::reduced(x, self.reduction, &[self.axis]))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        super::reduce_over::gradient(g, self.reduction, &[self.axis])
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
