//! Repetition: `Expand` and `Tile`.

use super::moves::{
    Elements, Moves, Numbers, Sizes, bad, content, count, moves, number, partly, product, strides, whole,
};
use super::prelude::*;
use recurve_tensor::Reduction;
use smallvec::SmallVec;

/// `x` broadcast with the dimensions of the second input, as NumPy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expand;

const EXPAND: &str = "Expand";

impl Moves for Expand {
    fn moved<E: Elements>(&self, x: &E, numbers: &Numbers) -> Result<E> {
        let shape = number(numbers, 1).data();
        let rank = x.dims().len().max(shape.len());
        let (before, skip) = (rank - x.dims().len(), rank - shape.len());
        let own = strides(x.dims());
        let (mut dims, mut steps) = (Sizes::new(), SmallVec::<[isize; 6]>::new());
        for n in 0..rank {
            let (size, step) = if n < before { (1, 0) } else { (x.dims()[n - before], own[n - before]) };
            let wanted = if n < skip { 1 } else { shape[n - skip] };
            let (d, s) = match usize::try_from(wanted) {
                Ok(1) => (size, step),
                Ok(w) if w == size => (size, step),
                Ok(w) if size == 1 => (w, 0),
                _ => {
                    let message = format!("is {shape:?}, which {:?} cannot be broadcast with", x.dims());
                    return Err(bad(EXPAND, "shape", message));
                }
            };
            dims.push(d);
            steps.push(s);
        }
        if dims[..] == *x.dims() {
            return Ok(x.clone());
        }
        if count(EXPAND, &dims)? == 0 {
            return x.empty(EXPAND, &dims);
        }
        x.strided(EXPAND, &dims, 0, &steps)
    }
    fn open(&self, x: &ValueType, inputs: &[Option<&ValueType>]) -> Result<ValueType, Fault> {
        let Some(shape) = partly(inputs, 1).filter(|_| !x.unranked) else {
            return Ok(ValueType::unranked(x.dtype));
        };
        let rank = x.rank().max(shape.len());
        let dims = (0..rank).map(|n| {
            let own = (n + x.rank()).checked_sub(rank).map_or(Dim::Size(1), |n| x.dims[n].clone());
            match (n + shape.len()).checked_sub(rank).map(|n| shape[n]) {
                None => Ok(own),
                Some(Some(d)) => {
                    let d = usize::try_from(d).map(Dim::Size).ok();
                    let message = || Fault::Attribute("shape", format!("cannot be broadcast with {x}"));
                    d.and_then(|d| own.broadcast(&d)).ok_or_else(message)
                }
                Some(None) => Ok(if own.size().is_some_and(|n| n > 1) { own } else { Dim::Any }),
            }
        });
        Ok(x.with_dims(dims.collect::<Result<_, _>>()?))
    }
}

impl Operator for Expand {
    fn name(&self) -> &'static str {
        EXPAND
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("input"), Slot::Required("shape")]
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let shape = whole(array(inputs, 1));
        let rank = x.dims.len().max(shape.len());
        let mut dims = vec![1; rank];
        x.dims.iter().rev().zip(dims.iter_mut().rev()).for_each(|(&d, o)| *o = d);
        shape.iter().rev().zip(dims.iter_mut().rev()).filter(|(d, _)| **d != 1).for_each(|(&d, o)| *o = d as usize);
        vec![Some(Array::from_fn(&dims, |i| x.at(i)))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let dy = g.of_only_output();
        g.give_sum(0, dy)
    }
    moves!();
}

/// `x` as often along each axis as the second input says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile;

const TILE: &str = "Tile";

impl Moves for Tile {
    fn moved<E: Elements>(&self, x: &E, numbers: &Numbers) -> Result<E> {
        let repeats = number(numbers, 1).data();
        let rank = x.dims().len();
        let times: Option<Sizes> = repeats.iter().map(|&r| usize::try_from(r).ok()).collect();
        let Some(times) = times.filter(|t| t.len() == rank) else {
            let message =
                format!("must be a number for each of {rank} dimensions, none negative, but it is {repeats:?}");
            return Err(bad(TILE, "repeats", message));
        };
        let dims: Sizes = x.dims().iter().zip(&times).map(|(&d, &t)| d.saturating_mul(t)).collect();
        if count(TILE, &dims)? == 0 {
            return x.empty(TILE, &dims);
        }
        let mut y = x.clone();
        for axis in (0..rank).filter(|&a| times[a] > 1) {
            let (outer, inner) = (product(&y.dims()[..axis]), product(&y.dims()[axis..]));
            let mut dims: Sizes = y.dims().into();
            dims[axis] *= times[axis];
            let steps = [inner as isize, 0, 1];
            y = y.strided(TILE, &[outer, times[axis], inner], 0, &steps)?.reshaped(TILE, &dims)?;
        }
        Ok(y)
    }
    fn open(&self, x: &ValueType, inputs: &[Option<&ValueType>]) -> Result<ValueType, Fault> {
        if x.unranked {
            return Ok(partly(inputs, 1).map_or(ValueType::unranked(x.dtype), |r| x.with_dims(vec![Dim::Any; r.len()])));
        }
        match content(inputs, 1) {
            Some(r) if r.len() == x.rank() => {
                let times = |(d, &r): (&Dim, &i64)| usize::try_from(r).map_or(Dim::Any, |r| d.times(&Dim::Size(r)));
                Ok(x.with_dims(x.dims.iter().zip(&r).map(times).collect()))
            }
            _ => Ok(x.with_dims(vec![Dim::Any; x.rank()])),
        }
    }
}

impl Operator for Tile {
    fn name(&self) -> &'static str {
        TILE
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("input"), Slot::Required("repeats")]
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let dims: Vec<usize> = x.dims.iter().zip(whole(array(inputs, 1))).map(|(&d, r)| d * r as usize).collect();
        vec![Some(Array::from_fn(&dims, |i| {
            let at: Vec<usize> = i.iter().zip(&x.dims).map(|(&i, &d)| i % d).collect();
            x.at(&at)
        }))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (dy, x) = (g.of_only_output(), g.input(0));
        let dx = g.node(SumTiles, &[dy, x])?;
        g.give(0, dx);
        Ok(())
    }
    moves!();
}

/// The gradient of the input of a [`Tile`]: the sum of the repetitions of the second input's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SumTiles;

impl Operator for SumTiles {
    fn name(&self) -> &'static str {
        "SumTiles"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("dy"), Slot::Required("like")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        super::like::like(inputs, 1)
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let (mut x, like) = (call.input(0).clone(), call.data(1).dims());
        let whole = |(&many, &few): (&usize, &usize)| many.is_multiple_of(few.max(1));
        if x.dims().len() != like.len() || !x.dims().iter().zip(like).all(whole) {
            return Err(bad(
                "SumTiles",
                "dy",
                format!("must be repetitions of {like:?}, but its shape is {}", x.shape()),
            ));
        }
        for axis in 0..like.len() {
            let times = x.dims()[axis] / like[axis];
            if times > 1 {
                let mut dims: Sizes = x.dims().into();
                dims[axis] = like[axis];
                let parts = [product(&dims[..axis]), times, product(&dims[axis..])];
                x = x.reshape(&parts)?.reduce(Reduction::Sum, 1)?.reshape(&dims)?;
            }
        }
        Ok(one(x))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (dy, like) = (array(inputs, 0), array(inputs, 1));
        let mut out = Array::from_fn(&like.dims, |_| 0.0);
        super::window::each(&dy.dims, |i| {
            let place = i.iter().zip(&like.dims).fold(0, |n, (&i, &d)| n * d + i % d);
            out.data[place] += dy.at(i);
        });
        vec![Some(out)]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
