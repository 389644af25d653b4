//! Sequences backwards, each of its own length.

use super::moves::{Elements, Fill, Moves, Numbers, Sizes, along, bad, like_matrices, moves, number, product, whole};
use super::prelude::*;

/// The first timesteps of each sequence, as many as the second input says, backwards, and the rest as it was. Batch
/// and time are the first two axes, in either order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReverseSequence {
    /// Time is the first axis, not the batch.
    pub time_major: bool,
}

const REVERSE: &str = "ReverseSequence";

impl Moves for ReverseSequence {
    fn moved<E: Elements>(&self, x: &E, numbers: &Numbers) -> Result<E> {
        let lengths = number(numbers, 1).data();
        let dims: Sizes = x.dims().into();
        let [first, second, rest @ ..] = &dims[..] else {
            return Err(bad(REVERSE, "input", format!("must have two dimensions or more, but it is {dims:?}")));
        };
        let (batch, time) = if self.time_major { (*second, *first) } else { (*first, *second) };
        if lengths.len() != batch || lengths.iter().any(|&l| l < 0 || l > time as i64) {
            let message = format!("must be {batch} numbers from 0 to {time}, but they are {lengths:?}");
            return Err(bad(REVERSE, "sequence_lens", message));
        }
        if dims.contains(&0) {
            return Ok(x.clone());
        }
        let place = |i: usize| {
            let (b, t) = if self.time_major { (i % batch, i / batch) } else { (i / time, i % time) };
            let t = if (t as i64) < lengths[b] { lengths[b] as usize - 1 - t } else { t };
            (if self.time_major { t * batch + b } else { b * time + t }) as i64
        };
        let places: Vec<i64> = (0..batch * time).map(place).collect();
        let flat = x.reshaped(REVERSE, &[batch * time, product(rest)])?;
        along(REVERSE, &flat, 0, (&places, &[batch * time]), Fill::ZERO)?.reshaped(REVERSE, &dims)
    }
    fn open(&self, x: &ValueType, _: &[Option<&ValueType>]) -> Result<ValueType, Fault> {
        like_matrices(x)
    }
    fn follows(&self) -> bool {
        false
    }
}

impl Operator for ReverseSequence {
    fn name(&self) -> &'static str {
        REVERSE
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("input"), Slot::Required("sequence_lens")]
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let lengths = whole(array(inputs, 1));
        let (b, t) = if self.time_major { (1, 0) } else { (0, 1) };
        vec![Some(Array::from_fn(&x.dims, |i| {
            let mut at = i.to_vec();
            let length = lengths[i[b]] as usize;
            if i[t] < length {
                at[t] = length - 1 - i[t];
            }
            x.at(&at)
        }))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (dy, lengths) = (g.of_only_output(), g.input(1));
        let dx = g.node(*self, &[dy, lengths])?;
        g.give(0, dx);
        Ok(())
    }
    moves!();
}
