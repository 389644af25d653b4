//! The same elements with other dimensions.

use super::prelude::*;
use smallvec::SmallVec;

/// A dimension of the result of a [`Reshape`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Extent {
    /// A fixed size.
    Size(usize),
    /// The product of the sizes of some adjacent axes of `x`: the first axis, and how many.
    Axes(usize, usize),
    /// The size of this axis of the second input.
    Like(usize),
}

/// Gives `x` other dimensions and keeps the order of its elements. Dimensions may be taken from `x` or from a second
/// input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reshape(pub Vec<Extent>);

impl Reshape {
    /// Removes an axis of size 1 from a value with `rank` dimensions.
    pub fn without(axis: usize, rank: usize) -> Self {
        Self((0..rank).filter(|&n| n != axis).map(|n| Extent::Axes(n, 1)).collect())
    }
}

impl Operator for Reshape {
    fn name(&self) -> &'static str {
        "Reshape"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("x"), Slot::Optional("like")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let x = required(inputs, 0)?;
        let bad = |message: String| Fault::Attribute("dims", message);
        let dims = self.0.iter().map(|extent| match *extent {
            Extent::Size(n) => Ok(Dim::Size(n)),
            Extent::Axes(first, count) => {
                let axes = x.dims.get(first..first.saturating_add(count));
                let axes = axes.ok_or_else(|| bad(format!("reach beyond the dimensions of {x}")))?;
                Ok(axes.iter().fold(Dim::Size(1), |product, d| product.times(d)))
            }
            Extent::Like(axis) => {
                let like = required(inputs, 1)?;
                like.dims.get(axis).cloned().ok_or_else(|| bad(format!("reach beyond the dimensions of {like}")))
            }
        });
        let dims = dims.collect::<Result<Vec<_>, _>>()?;
        let count = |dims: &[Dim]| dims.iter().map(Dim::size).try_fold(1usize, |n, d| n.checked_mul(d?));
        if let (Some(a), Some(b)) = (count(&x.dims), count(&dims))
            && a != b
        {
            return Err(bad(format!("have {b} elements, but {x} has {a}")));
        }
        Ok(vec![x.with_dims(dims)])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let x = call.input(0);
        let dims: SmallVec<[usize; 6]> = self.0.iter().map(|e| e.size(x.dims(), || call.input(1).dims())).collect();
        Ok(one(x.reshape(&dims)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let dims: Vec<usize> = self.0.iter().map(|e| e.size(&x.dims, || &array(inputs, 1).dims)).collect();
        vec![Some(x.reshaped(&dims))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let dy = g.of_only_output();
        g.give_reshaped(0, dy)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Extent {
    pub(super) fn size<'a>(self, x: &[usize], like: impl Fn() -> &'a [usize]) -> usize {
        match self {
            Self::Size(n) => n,
            Self::Axes(first, count) => x[first..first + count].iter().product(),
            Self::Like(axis) => like()[axis],
        }
    }
}
