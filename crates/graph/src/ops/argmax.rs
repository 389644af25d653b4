//! The index of the largest element.

use super::check_axis;
use super::prelude::*;

/// The index of the largest element along `axis`, whose size becomes 1. Of equal elements the first counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgMax {
    /// The axis.
    pub axis: usize,
}

impl Operator for ArgMax {
    fn name(&self) -> &'static str {
        "ArgMax"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("x")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let x = float(inputs, 0)?;
        check_axis(x, self.axis)?;
        let mut dims = x.dims.clone();
        dims[self.axis] = Dim::Size(1);
        Ok(vec![ValueType::new(DType::U32, dims)])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        Ok(one(call.input(0).argmax(self.axis)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let mut dims = x.dims.clone();
        dims[self.axis] = 1;
        vec![Some(Array::from_fn(&dims, |index| {
            let mut at = index.to_vec();
            let mut best = (0, f64::NEG_INFINITY);
            for i in 0..x.dims[self.axis] {
                at[self.axis] = i;
                let v = x.at(&at);
                if v > best.1 || (v.is_nan() && !best.1.is_nan()) {
                    best = (i, v);
                }
            }
            best.0 as f64
        }))]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
