//! Concatenation along an axis.

use super::moves::{Elements, Sketch, axis_of, fault};
use super::prelude::*;
use super::{ShapeOf, Split};
use crate::Data;
use crate::operator::given;
use recurve_tensor::Error;
use smallvec::SmallVec;

/// Concatenates the inputs along `axis`, which counts from the end if it is negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concat {
    /// The axis.
    pub axis: isize,
}

const CONCAT: &str = "Concat";

impl Operator for Concat {
    fn name(&self) -> &'static str {
        CONCAT
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Many("inputs")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let first = given(inputs, 0)?;
        let mut sum: Option<ValueType> = None;
        for i in 0..inputs.len() {
            let next = given(inputs, i)?;
            if next.dtype != first.dtype {
                return Err(Fault::Input(i, format!("{}, as the first", first.dtype)));
            }
            if next.unranked {
                continue;
            }
            let axis = axis_of(CONCAT, self.axis as i64, next.rank()).map_err(fault)?;
            let Some(sum) = &mut sum else {
                sum = Some(next.with_dims(next.dims.clone()));
                continue;
            };
            let bad = |sum: &ValueType| Fault::Input(i, format!("like the first but along axis {axis}, {sum}"));
            if next.rank() != sum.rank() {
                return Err(bad(sum));
            }
            for n in 0..sum.rank() {
                let (a, b) = (&sum.dims[n], &next.dims[n]);
                sum.dims[n] = match (n == axis, a.size(), b.size()) {
                    (true, Some(a), Some(b)) => Dim::Size(a.saturating_add(b)),
                    (true, ..) => Dim::Any,
                    (false, ..) => a.meet(b).ok_or_else(|| bad(sum))?,
                };
            }
        }
        let Some(mut sum) = sum else { return Ok(vec![ValueType::unranked(first.dtype)]) };
        if inputs.iter().flatten().any(|t| t.unranked) {
            let axis = axis_of(CONCAT, self.axis as i64, sum.rank()).map_err(fault)?;
            sum.dims[axis] = Dim::Any;
            return Ok(vec![sum]);
        }
        let parts: Option<Vec<Sketch>> = inputs.iter().flatten().map(|t| Sketch::of(t)).collect();
        if let (Some(parts), 1, true) = (parts, sum.rank(), sum.dtype.is_whole()) {
            return Ok(vec![Sketch::joined(&parts, 0).map_err(fault)?.kind(sum.dtype)]);
        }
        Ok(vec![sum])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let axis = axis_of(CONCAT, self.axis as i64, call.data(0).dims().len())?;
        let mut parts: SmallVec<[&Tensor; 8]> = SmallVec::new();
        for d in call.inputs.iter().flatten() {
            match d {
                Data::Tensor(t) => parts.push(t),
                Data::Ints(_) => break,
            }
        }
        if parts.len() == call.inputs.len() && parts.iter().all(|t| t.dtype() == parts[0].dtype()) {
            return Ok(one(recurve_tensor::concat(&parts, axis)?));
        }
        if call.all_ints().is_some() {
            let parts: SmallVec<[Data; 8]> = call.inputs.iter().flatten().map(|&d| d.clone()).collect();
            return Ok(one(Data::joined(&parts, axis)?));
        }
        // Whole numbers without any elements have nothing to add.
        let given = (0..call.inputs.len()).filter(|&i| !call.data(i).dims().contains(&0));
        let parts = given.map(|i| call.floats(i)).collect::<Result<SmallVec<[_; 8]>, Error>>()?;
        let parts: SmallVec<[&Tensor; 8]> = parts.iter().map(|p| &**p).collect();
        Ok(one(recurve_tensor::concat(&parts, axis)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let mut dims = array(inputs, 0).dims.clone();
        let axis = if self.axis < 0 { self.axis + dims.len() as isize } else { self.axis } as usize;
        dims[axis] = inputs.iter().flatten().map(|x| x.dims[axis]).sum();
        vec![Some(Array::from_fn(&dims, |i| {
            let mut at = i.to_vec();
            for x in inputs.iter().flatten() {
                if at[axis] < x.dims[axis] {
                    return x.at(&at);
                }
                at[axis] -= x.dims[axis];
            }
            unreachable!("an index below the sum of the sizes")
        }))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let dy = g.of_only_output();
        let axis = axis_of(CONCAT, self.axis as i64, g.kind(dy).rank())?;
        let parts: Vec<_> = (0..g.inputs()).map(|i| g.input(i)).collect();
        let sizes: Option<Vec<_>> = parts.iter().map(|&p| g.kind(p).dims.get(axis).and_then(Dim::size)).collect();
        let Some(sizes) = sizes else {
            let place = ShapeOf { start: axis as i64, end: Some(axis as i64 + 1) };
            let sizes = parts.iter().map(|&p| g.node(place, &[p])).collect::<crate::Result<Vec<_>>>()?;
            let sizes = g.node(Self { axis: 0 }, &sizes)?;
            let split = Split { axis: axis as i64, parts: parts.len() };
            let all = g.nodes(split, &[Some(dy), Some(sizes)], parts.len())?;
            all.into_iter().enumerate().for_each(|(i, d)| g.give(i, d));
            return Ok(());
        };
        let mut start = 0;
        for (i, len) in sizes.into_iter().enumerate() {
            if g.wants(i) {
                let d = g.node(super::Slice { axis, start, len }, &[dy])?;
                g.give(i, d);
            }
            start += len as isize;
        }
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
