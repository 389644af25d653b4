//! Broadcasting to the shape of another value, and its gradient.

use super::prelude::*;
use crate::operator::given;
use recurve_tensor::{Error, Reduction};
use smallvec::SmallVec;

/// `x` summed over the axes along which `like` was repeated to give the shape of `x`: the shape of `like`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SumTo;

/// `x` repeated to the shape of `like`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpandLike;

const SLOTS: [Slot; 2] = [Slot::Required("x"), Slot::Required("like")];

/// The type of floats in the shape of another input.
pub(super) fn like(inputs: &[Option<&ValueType>], index: usize) -> Result<Vec<ValueType>, Fault> {
    let (x, like) = (given(inputs, 0)?, given(inputs, index)?);
    if !x.dtype.is_float() {
        return Err(Fault::Input(0, "f32 or f16".into()));
    }
    Ok(vec![ValueType { dtype: x.dtype, known: None, ..like.clone() }])
}

/// The axes along which a value of the first dimensions is repeated to give the second; `None` if it is not.
fn repeated(few: &[usize], many: &[usize]) -> Option<SmallVec<[usize; 6]>> {
    let skip = many.len().checked_sub(few.len())?;
    let fits = few.iter().zip(&many[skip..]).all(|(&f, &m)| f == m || f == 1);
    let is_repeated = |&n: &usize| n < skip || (few[n - skip] == 1 && many[n] != 1);
    fits.then(|| (0..many.len()).filter(is_repeated).collect())
}

/// [`repeated`], or an error that names the operands of a run.
fn axes(operation: &'static str, few: &[usize], many: &[usize]) -> Result<SmallVec<[usize; 6]>> {
    let message = || format!("must fit `x`: {few:?} cannot be broadcast to {many:?}");
    repeated(few, many).ok_or_else(|| Error::Argument { operation, argument: "like", message: message() })
}

impl Operator for SumTo {
    fn name(&self) -> &'static str {
        "SumTo"
    }
    fn slots(&self) -> &[Slot] {
        &SLOTS
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        like(inputs, 1)
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let (x, like) = (call.input(0), call.data(1).dims());
        let axes = axes(self.name(), like, x.dims())?;
        if axes.is_empty() {
            return Ok(one(x.reshape(like)?));
        }
        Ok(one(x.reduce_axes(Reduction::Sum, &axes)?.reshape(like)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (x, like) = (array(inputs, 0), array(inputs, 1));
        let axes = repeated(&like.dims, &x.dims).expect("inputs that fit");
        vec![Some(super::reduce_over::reduced(x, Reduction::Sum, &axes).reshaped(&like.dims))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let dy = g.of_only_output();
        g.give_repeated(0, dy)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Operator for ExpandLike {
    fn name(&self) -> &'static str {
        "ExpandLike"
    }
    fn slots(&self) -> &[Slot] {
        &SLOTS
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        like(inputs, 1)
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let (x, like) = (call.input(0), call.data(1).dims());
        if axes(self.name(), x.dims(), like)?.is_empty() && x.dims().len() == like.len() {
            return Ok(one(x.clone()));
        }
        let own = super::moves::strides(x.dims());
        let skip = like.len() - x.dims().len();
        let step = |n: usize| n.checked_sub(skip).map_or(0, |n| if x.dims()[n] == 1 { 0 } else { own[n] });
        let steps: SmallVec<[isize; 6]> = (0..like.len()).map(step).collect();
        Ok(one(x.strided(like, 0, &steps)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (x, like) = (array(inputs, 0), array(inputs, 1));
        vec![Some(Array::from_fn(&like.dims, |i| x.at(i)))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let dy = g.of_only_output();
        g.give_sum(0, dy)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
