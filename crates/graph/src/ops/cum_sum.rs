//! Running sums.

use super::moves::{axis_of, bad, product, whole};
use super::prelude::*;
use crate::operator::given;
use crate::{Data, Int, IntArray};

/// The sums of `x` along the axis that the second input names, up to each element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CumSum {
    /// Without the element itself.
    pub exclusive: bool,
    /// From the end.
    pub reverse: bool,
    /// The type of the elements, for whole numbers that wrap.
    pub int: Option<Int>,
}

const CUM_SUM: &str = "CumSum";

impl Operator for CumSum {
    fn name(&self) -> &'static str {
        CUM_SUM
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("x"), Slot::Required("axis")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let (x, axis) = (given(inputs, 0)?, given(inputs, 1)?);
        if !axis.dtype.is_whole() {
            return Err(Fault::Input(1, "whole numbers".into()));
        }
        Ok(vec![ValueType { known: None, ..x.clone() }])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let x = call.data(0);
        let axis = call.ints(1)?;
        let &[axis] = axis.data() else {
            return Err(bad(CUM_SUM, "axis", format!("must be one number, but it is {:?}", axis.data())));
        };
        let axis = axis_of(CUM_SUM, axis, x.dims().len())?;
        let Data::Ints(i) = x else {
            return Ok(one(call.floats(0)?.cumulate(axis, self.exclusive, self.reverse)?));
        };
        let (len, inner) = (i.dims()[axis], product(&i.dims()[axis + 1..]));
        let mut out = i.data().to_vec();
        for line in 0..product(&i.dims()[..axis]) * inner {
            let base = line / inner * len * inner + line % inner;
            let mut sum = 0i64;
            for step in 0..len {
                let at = base + if self.reverse { len - 1 - step } else { step } * inner;
                let next = sum.wrapping_add(out[at]);
                let next = self.int.map_or(next, |int| int.wrap(next));
                out[at] = if self.exclusive { sum } else { next };
                sum = next;
            }
        }
        Ok(one(IntArray::new(i.dims(), out)))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (x, axis) = (array(inputs, 0), whole(array(inputs, 1))[0]);
        let axis = if axis < 0 { axis + x.dims.len() as i64 } else { axis } as usize;
        vec![Some(Array::from_fn(&x.dims, |i| {
            let here = i[axis];
            let counts = |n: usize| match (self.reverse, self.exclusive) {
                (false, false) => n <= here,
                (false, true) => n < here,
                (true, false) => n >= here,
                (true, true) => n > here,
            };
            let mut at = i.to_vec();
            let value = |n: usize| {
                at[axis] = n;
                x.at(&at)
            };
            (0..x.dims[axis]).filter(|&n| counts(n)).map(value).sum()
        }))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (dy, axis) = (g.of_only_output(), g.input(1));
        let dx = g.node(Self { reverse: !self.reverse, ..*self }, &[dy, axis])?;
        g.give(0, dx);
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
