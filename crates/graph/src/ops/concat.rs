//! Concatenation along an axis.

use super::check_axis;
use super::prelude::*;
use smallvec::SmallVec;

/// Concatenates the inputs along `axis`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concat {
    /// The axis.
    pub axis: usize,
}

impl Operator for Concat {
    fn name(&self) -> &'static str {
        "Concat"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Many("inputs")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let mut sum = required(inputs, 0)?.clone();
        check_axis(&sum, self.axis)?;
        for i in 1..inputs.len() {
            let next = required(inputs, i)?;
            let bad =
                |sum: &ValueType| Fault::Input(i, format!("like the first except along axis {}, {sum}", self.axis));
            if next.dtype != sum.dtype || next.rank() != sum.rank() {
                return Err(bad(&sum));
            }
            for n in 0..sum.rank() {
                let (a, b) = (&sum.dims[n], &next.dims[n]);
                sum.dims[n] = match (n == self.axis, a.size(), b.size()) {
                    (true, Some(a), Some(b)) => Dim::Size(a.saturating_add(b)),
                    (true, ..) => Dim::Any,
                    (false, ..) => a.meet(b).ok_or_else(|| bad(&sum))?,
                };
            }
        }
        Ok(vec![sum])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let parts: SmallVec<[&Tensor; 8]> = (0..call.inputs.len()).map(|i| call.input(i)).collect();
        Ok(one(recurve_tensor::concat(&parts, self.axis)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let mut dims = array(inputs, 0).dims.clone();
        dims[self.axis] = inputs.iter().flatten().map(|x| x.dims[self.axis]).sum();
        vec![Some(Array::from_fn(&dims, |i| {
            let mut at = i.to_vec();
            for x in inputs.iter().flatten() {
                if at[self.axis] < x.dims[self.axis] {
                    return x.at(&at);
                }
                at[self.axis] -= x.dims[self.axis];
            }
            unreachable!("an index below the sum of the sizes")
        }))]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
