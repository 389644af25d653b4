//! Permutation of axes.

use super::moves::{Elements, Moves, Numbers, Sizes, bad, moves, permuted};
use super::prelude::*;

/// Permutes axes: each axis of the result is given by its index in `x`. An empty list reverses the order of the axes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transpose(pub Vec<usize>);

impl Transpose {
    /// The axes for so many dimensions; `None` if they are not each of them once.
    fn axes(&self, rank: usize) -> Option<Sizes> {
        if self.0.is_empty() {
            return Some((0..rank).rev().collect());
        }
        let mut sorted: Sizes = self.0.as_slice().into();
        sorted.sort_unstable();
        sorted.into_iter().eq(0..rank).then(|| self.0.as_slice().into())
    }
}

impl Moves for Transpose {
    fn moved<E: Elements>(&self, x: &E, _: &Numbers) -> Result<E> {
        let rank = x.dims().len();
        let message = || format!("must be each of {rank} axes once, but they are {:?}", self.0);
        let axes = self.axes(rank).ok_or_else(|| bad("Transpose", "axes", message()))?;
        permuted("Transpose", x, &axes)
    }
    fn open(&self, x: &ValueType, _: &[Option<&ValueType>]) -> Result<ValueType, Fault> {
        if x.unranked {
            let ranked = || x.with_dims(vec![Dim::Any; self.0.len()]);
            return Ok(if self.0.is_empty() { ValueType::unranked(x.dtype) } else { ranked() });
        }
        let message = || format!("must be each axis of {x} once, but they are {:?}", self.0);
        let axes = self.axes(x.rank()).ok_or_else(|| Fault::Attribute("axes", message()))?;
        Ok(x.with_dims(axes.iter().map(|&a| x.dims[a].clone()).collect()))
    }
}

impl Operator for Transpose {
    fn name(&self) -> &'static str {
        "Transpose"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("x")]
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let axes = self.axes(x.dims.len()).expect("axes that fit");
        let dims: Vec<usize> = axes.iter().map(|&a| x.dims[a]).collect();
        vec![Some(Array::from_fn(&dims, |i| {
            let mut at = vec![0; i.len()];
            axes.iter().zip(i).for_each(|(&a, &i)| at[a] = i);
            x.at(&at)
        }))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let dy = g.of_only_output();
        let rank = g.kind(dy).rank();
        let axes = self.axes(rank).ok_or_else(|| g.missing("its number of dimensions is not known"))?;
        let mut back = vec![0; rank];
        axes.iter().enumerate().for_each(|(n, &a)| back[a] = n);
        let dx = g.node(Self(back), &[dy])?;
        g.give(0, dx);
        Ok(())
    }
    moves!();
}
