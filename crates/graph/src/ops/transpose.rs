//! Permutation of axes.

use super::prelude::*;

/// Permutes axes: each axis of the result is given by its index in `x`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transpose(pub Vec<usize>);

impl Operator for Transpose {
    fn name(&self) -> &'static str {
        "Transpose"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("x")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let x = required(inputs, 0)?;
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        if sorted.into_iter().ne(0..x.rank()) {
            let message = format!("must be each of 0 to {} once, for {x}, but they are {:?}", x.rank() - 1, self.0);
            return Err(Fault::Attribute("axes", message));
        }
        let dims = self.0.iter().map(|&a| x.dims[a].clone()).collect();
        Ok(vec![x.with_dims(dims)])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        Ok(one(call.input(0).transpose(&self.0)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let dims: Vec<usize> = self.0.iter().map(|&a| x.dims[a]).collect();
        vec![Some(Array::from_fn(&dims, |i| {
            let mut at = vec![0; i.len()];
            self.0.iter().zip(i).for_each(|(&a, &i)| at[a] = i);
            x.at(&at)
        }))]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
