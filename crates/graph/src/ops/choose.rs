//! A choice between two operands, elementwise.

use super::broadcast::{broadcast_arrays, broadcast_ints, broadcast_type};
use super::prelude::*;
use crate::operator::given;
use crate::{Data, Element};

/// `x` where the condition holds, else `y`, broadcasting as NumPy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Where;

impl Operator for Where {
    fn name(&self) -> &'static str {
        "Where"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("condition"), Slot::Required("x"), Slot::Required("y")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let (condition, x, y) = (given(inputs, 0)?, given(inputs, 1)?, given(inputs, 2)?);
        if condition.dtype != Element::Bool && condition.dtype != Element::F32 {
            return Err(Fault::Input(0, "bool, or f32 that is not 0 where it holds".into()));
        }
        if x.dtype != y.dtype {
            return Err(Fault::Input(2, format!("{}, as `x`", x.dtype)));
        }
        let kind = broadcast_type(inputs, x.dtype)?;
        let known = || {
            let [c, x, y] = [condition, x, y].map(|t| t.known.as_deref());
            let (c, x, y) = (c?, x?, y?);
            let n = [c.len(), x.len(), y.len()].into_iter().find(|&n| n != 1).unwrap_or(1);
            let at = |v: &[Option<i64>], n: usize| v.get(if v.len() == 1 { 0 } else { n }).copied();
            let one = |n: usize| match at(c, n)? {
                Some(0) => at(y, n),
                Some(_) => at(x, n),
                None if at(x, n)? == at(y, n)? => at(x, n),
                None => Some(None),
            };
            (0..n).map(one).collect::<Option<Vec<_>>>()
        };
        Ok(vec![kind.with_known(known())])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        if let (Data::Ints(c), Data::Ints(x), Data::Ints(y)) = (call.data(0), call.data(1), call.data(2)) {
            return Ok(one(broadcast_ints("Where", [c, x, y], |[c, x, y]| Ok(if c != 0 { x } else { y }))?));
        }
        Ok(one(call.floats(0)?.select(&*call.floats(1)?, &*call.floats(2)?)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let all = [0, 1, 2].map(|n| array(inputs, n));
        vec![Some(broadcast_arrays(&all, |at| if at(0) != 0.0 { at(1) } else { at(2) }))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (dy, condition) = (g.of_only_output(), g.input(0));
        let zero = g.number(0.0)?;
        if g.wants(1) {
            let dx = g.node(Self, &[condition, dy, zero])?;
            g.give_sum(1, dx)?;
        }
        if g.wants(2) {
            let d = g.node(Self, &[condition, zero, dy])?;
            g.give_sum(2, d)?;
        }
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
