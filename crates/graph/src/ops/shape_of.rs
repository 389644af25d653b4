//! The dimensions of a value as whole numbers.

use super::moves::product;
use super::prelude::*;
use crate::operator::given;
use crate::{Element, Int, IntArray};

/// The dimensions of `x` from `start` to before `end`, which count from the end if they are negative; what is beyond
/// is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShapeOf {
    /// The first.
    pub start: i64,
    /// The one behind the last; none for all.
    pub end: Option<i64>,
}

impl ShapeOf {
    fn range(self, rank: usize) -> core::ops::Range<usize> {
        let place = |i: i64| {
            let from = if i < 0 { i.saturating_add(rank as i64) } else { i };
            from.clamp(0, rank as i64) as usize
        };
        let start = place(self.start);
        start..self.end.map_or(rank, place).max(start)
    }
}

impl Operator for ShapeOf {
    fn name(&self) -> &'static str {
        "Shape"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("data")]
    }
    fn sees_dims_only(&self) -> bool {
        true
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let x = given(inputs, 0)?;
        let dtype = Element::Int(Int::I64);
        if x.unranked {
            return Ok(vec![ValueType::new(dtype, [Dim::Any])]);
        }
        let known: Vec<_> = x.dims[self.range(x.rank())].iter().map(|d| d.size().map(|n| n as i64)).collect();
        Ok(vec![ValueType::new(dtype, [known.len()]).with_known(Some(known))])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let dims = call.data(0).dims();
        let all: Vec<i64> = dims[self.range(dims.len())].iter().map(|&d| d as i64).collect();
        Ok(one(IntArray::vector(all)))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let dims = &array(inputs, 0).dims;
        let rank = dims.len() as i64;
        let inside = |i: &i64| {
            let beyond = |at: i64| if at < 0 { at + rank } else { at };
            *i >= beyond(self.start) && self.end.is_none_or(|end| *i < beyond(end))
        };
        let all: Vec<f64> = (0..rank).filter(inside).map(|i| dims[i as usize] as f64).collect();
        vec![Some(Array::new(&[all.len()], all))]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The number of elements of `x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size;

impl Operator for Size {
    fn name(&self) -> &'static str {
        "Size"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("data")]
    }
    fn sees_dims_only(&self) -> bool {
        true
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let size = given(inputs, 0)?.shape().map(|dims| product(&dims) as i64);
        Ok(vec![ValueType::new(Element::Int(Int::I64), [0usize; 0]).with_known(Some(vec![size]))])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        Ok(one(IntArray::scalar(product(call.data(0).dims()) as i64)))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        vec![Some(Array::new(&[], vec![array(inputs, 0).data.len() as f64]))]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
