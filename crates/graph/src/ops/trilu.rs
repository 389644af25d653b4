//! Triangles of matrices.

use super::moves::{Elements, Fill, Moves, Numbers, Sizes, along, bad, like_matrices, moves, product, whole};
use super::prelude::*;

/// The upper or the lower triangle of the matrices in the last two dimensions, zero elsewhere. The second input says
/// which diagonal it reaches to: above the main one, or below it if it is negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trilu {
    /// The upper one.
    pub upper: bool,
}

const TRILU: &str = "Trilu";

impl Moves for Trilu {
    fn moved<E: Elements>(&self, x: &E, numbers: &Numbers) -> Result<E> {
        let k = match numbers.first().and_then(Option::as_ref) {
            None => 0,
            Some(k) => *k.data().first().ok_or_else(|| bad(TRILU, "k", "has no element"))?,
        };
        let dims: Sizes = x.dims().into();
        let [outer @ .., rows, columns] = &dims[..] else {
            return Err(bad(TRILU, "input", format!("must have two dimensions or more, but it is {dims:?}")));
        };
        if dims.contains(&0) {
            return Ok(x.clone());
        }
        let mut places = Vec::with_capacity(rows * columns);
        for row in 0..*rows as i64 {
            for column in 0..*columns as i64 {
                let diagonal = column - row;
                let stays = if self.upper { diagonal >= k } else { diagonal <= k };
                places.push(if stays { row * *columns as i64 + column } else { -1 });
            }
        }
        let flat = x.reshaped(TRILU, &[product(outer), rows * columns])?;
        along(TRILU, &flat, 1, (&places, &[rows * columns]), Fill::ZERO)?.reshaped(TRILU, &dims)
    }
    fn open(&self, x: &ValueType, _: &[Option<&ValueType>]) -> Result<ValueType, Fault> {
        like_matrices(x)
    }
    fn follows(&self) -> bool {
        false
    }
}

impl Operator for Trilu {
    fn name(&self) -> &'static str {
        TRILU
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("input"), Slot::Optional("k")]
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let k = inputs.get(1).copied().flatten().map_or(0, |k| whole(k)[0]);
        vec![Some(Array::from_fn(&x.dims, |i| {
            let [.., row, column] = *i else { unreachable!("two dimensions or more") };
            let diagonal = column as i64 - row as i64;
            if (self.upper && diagonal >= k) || (!self.upper && diagonal <= k) { x.at(i) } else { 0.0 }
        }))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (dy, k) = (g.of_only_output(), g.get(1));
        let dx = g.nodes(*self, &[Some(dy), k], 1)?[0];
        g.give(0, dx);
        Ok(())
    }
    moves!();
}
