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
        match self.reduction {
            Reduction::Sum => "ReduceSum",
            Reduction::Mean => "ReduceMean",
            Reduction::Max => "ReduceMax",
            Reduction::Min => "ReduceMin",
            _ => "Reduce",
        }
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
        let (mut dims, len) = (x.dims.clone(), x.dims[self.axis]);
        dims[self.axis] = 1;
        vec![Some(Array::from_fn(&dims, |index| {
            let mut at = index.to_vec();
            let values = (0..len).map(|i| {
                at[self.axis] = i;
                x.at(&at)
            });
            match self.reduction {
                Reduction::Sum => values.sum(),
                Reduction::Mean => values.sum::<f64>() / len as f64,
                Reduction::Max => values.fold(f64::NEG_INFINITY, |m, v| if m.is_nan() || v <= m { m } else { v }),
                Reduction::Min => values.fold(f64::INFINITY, |m, v| if m.is_nan() || v >= m { m } else { v }),
                // A reduction without a definition here gives NaN, which agrees with nothing.
                _ => f64::NAN,
            }
        }))]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
