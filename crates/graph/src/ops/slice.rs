//! A part of a tensor along an axis.

use super::check_axis;
use super::prelude::*;

/// `len` elements along `axis`, from `start` on. A negative start counts from the end: -1 is the last element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The axis.
    pub axis: usize,
    /// The index of the first element; negative from the end.
    pub start: isize,
    /// The number of elements.
    pub len: usize,
}

impl Slice {
    /// The last element along an axis, which keeps size 1.
    pub const fn last(axis: usize) -> Self {
        Self { axis, start: -1, len: 1 }
    }

    /// The index of the first element, along an axis of this size.
    fn first(&self, size: usize) -> usize {
        if self.start < 0 { size.saturating_sub(self.start.unsigned_abs()) } else { self.start.unsigned_abs() }
    }
}

impl Operator for Slice {
    fn name(&self) -> &'static str {
        "Slice"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("x")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let mut x = required(inputs, 0)?.clone();
        check_axis(&x, self.axis)?;
        if let Some(size) = x.dims[self.axis].size() {
            let end = self.first(size).checked_add(self.len);
            if self.len == 0 || end.is_none_or(|end| end > size) || self.start.unsigned_abs() > size {
                let message =
                    format!("is {} elements from {} on, but axis {} has {size}", self.len, self.start, self.axis);
                return Err(Fault::Attribute("start", message));
            }
        }
        x.dims[self.axis] = Dim::Size(self.len);
        Ok(vec![x])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let x = call.input(0);
        let first = self.first(x.dims()[self.axis]);
        if x.dims()[self.axis] == self.len && first == 0 {
            return Ok(one(x.clone()));
        }
        Ok(one(x.slice(self.axis, first..first.saturating_add(self.len))?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let first = self.first(x.dims[self.axis]);
        let mut dims = x.dims.clone();
        dims[self.axis] = self.len;
        vec![Some(Array::from_fn(&dims, |i| {
            let mut at = i.to_vec();
            at[self.axis] += first;
            x.at(&at)
        }))]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
