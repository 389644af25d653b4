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

/// The gradient of the input of a [`Slice`]: zeros in the shape of the second input, with the first in the place from
/// which it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PadLike {
    /// The axis.
    pub axis: usize,
    /// The index of the first element; negative from the end.
    pub start: isize,
}

impl PadLike {
    fn first(&self, size: usize) -> usize {
        Slice { axis: self.axis, start: self.start, len: 1 }.first(size)
    }
}

impl Operator for PadLike {
    fn name(&self) -> &'static str {
        "PadLike"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("x"), Slot::Required("like")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let (x, like) = (float(inputs, 0)?, required(inputs, 1)?);
        check_axis(like, self.axis)?;
        if x.rank() != like.rank() {
            return Err(Fault::Input(0, format!("a part of {like}")));
        }
        Ok(vec![x.with_dims(like.dims.clone())])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let (x, like) = (call.input(0), call.data(1).dims());
        if x.dims() == like {
            return Ok(one(x.clone()));
        }
        let mut at: smallvec::SmallVec<[usize; 6]> = smallvec::smallvec![0; like.len()];
        at[self.axis] = self.first(like[self.axis]);
        Ok(one(x.padded(like, &at, 0.0)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (x, like) = (array(inputs, 0), array(inputs, 1));
        let first = self.first(like.dims[self.axis]);
        vec![Some(Array::from_fn(&like.dims, |i| {
            let inside = i[self.axis] >= first && i[self.axis] < first + x.dims[self.axis];
            let mut at = i.to_vec();
            at[self.axis] = at[self.axis].wrapping_sub(first);
            if inside { x.at(&at) } else { 0.0 }
        }))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (dy, x) = (g.of_only_output(), g.input(0));
        let len = g.kind(x).dims[self.axis].size();
        let len = len.ok_or_else(|| g.missing("the size of the part is not known before a run"))?;
        let dx = g.node(Slice { axis: self.axis, start: self.start, len }, &[dy])?;
        g.give(0, dx);
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
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
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (dy, x) = (g.of_only_output(), g.input(0));
        let dx = g.node(PadLike { axis: self.axis, start: self.start }, &[dy, x])?;
        g.give(0, dx);
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
