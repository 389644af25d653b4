//! Elements around a value.

use super::moves::{
    Elements, Fill, Moves, Numbers, Sizes, along, axis_of, bad, content, fault, numbers, partly, product, whole,
};
use super::prelude::*;
use crate::{Data, IntArray};
use smallvec::SmallVec;

/// What stands beside a value that is padded.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum PadMode {
    /// The third input, or this number without it.
    Constant(f64),
    /// The elements mirrored at the first and the last, which are not repeated.
    Reflect,
    /// The first or the last element.
    Edge,
    /// The elements from the other end.
    Wrap,
}

/// `x` with so many elements before each axis and behind it as the second input has, first those before all of the
/// axes that the fourth input names (without it all axes). Negative numbers cut elements off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pad(pub PadMode);

const PAD: &str = "Pad";

impl Pad {
    /// Elements before and behind each axis.
    fn amounts(pads: &[i64], axes: Option<&[i64]>, rank: usize) -> Result<SmallVec<[(i64, i64); 6]>> {
        let named = axes.map_or(rank, <[i64]>::len);
        if pads.len() != 2 * named {
            let message = format!("must be two numbers for each of {named} axes, but they are {pads:?}");
            return Err(bad(PAD, "pads", message));
        }
        let mut all = smallvec::smallvec![(0, 0); rank];
        for n in 0..named {
            let axis = axis_of(PAD, axes.map_or(n as i64, |a| a[n]), rank)?;
            all[axis] = (pads[n], pads[n + named]);
        }
        Ok(all)
    }

    /// What stands before and behind an axis of `n` elements, if each is one slice of it.
    fn sides(self, n: i64, before: i64, behind: i64) -> Option<[Side; 2]> {
        let side = |first, step, len| Side { first, step, len };
        match self.0 {
            PadMode::Edge => Some([side(0, 0, before), side(n - 1, 0, behind)]),
            PadMode::Wrap if before.max(behind) <= n => Some([side(n - before, 1, before), side(0, 1, behind)]),
            PadMode::Reflect if before.max(behind) < n => Some([side(before, -1, before), side(n - 2, -1, behind)]),
            _ => None,
        }
    }

    /// The element of an axis of so many that stands at a place beside it, of [`PadMode::Constant`] none.
    fn place(self, i: i64, n: i64) -> i64 {
        match self.0 {
            PadMode::Constant(_) if (0..n).contains(&i) => i,
            PadMode::Constant(_) => -1,
            PadMode::Edge => i.clamp(0, n - 1),
            PadMode::Wrap => i.rem_euclid(n),
            PadMode::Reflect if n == 1 => 0,
            PadMode::Reflect => match i.rem_euclid(2 * (n - 1)) {
                i if i < n => i,
                i => 2 * (n - 1) - i,
            },
        }
    }

    fn padded<E: Elements>(self, x: &E, numbers: &Numbers, fill: Fill) -> Result<E> {
        let get = |n: usize| numbers.get(n - 1).and_then(Option::as_ref).map(IntArray::data);
        let rank = x.dims().len();
        let amounts = Self::amounts(get(1).unwrap_or_default(), get(3), rank)?;
        // Negative amounts cut first.
        let mut x = x.clone();
        if amounts.iter().any(|&(b, e)| b < 0 || e < 0) {
            let steps = super::moves::strides(x.dims());
            let (mut dims, mut offset): (Sizes, usize) = (x.dims().into(), 0);
            for (axis, &(b, e)) in amounts.iter().enumerate() {
                let cut = |n: i64| usize::try_from(n.min(0).unsigned_abs()).unwrap_or(usize::MAX);
                let both = cut(b).saturating_add(cut(e));
                let Some(left) = dims[axis].checked_sub(both) else {
                    let message = format!("cut {both} elements off axis {axis}, which has {}", dims[axis]);
                    return Err(bad(PAD, "pads", message));
                };
                dims[axis] = left;
                offset += cut(b) * steps[axis] as usize;
            }
            x = match product(&dims) {
                0 => x.empty(PAD, &dims)?,
                _ => x.strided(PAD, &dims, offset, &steps)?,
            };
        }
        let add = |n: i64| usize::try_from(n.max(0)).unwrap_or(usize::MAX);
        let whole = |(&d, &(b, e)): (&usize, &(i64, i64))| d.saturating_add(add(b)).saturating_add(add(e));
        let dims: Sizes = x.dims().iter().zip(&amounts).map(whole).collect();
        if dims[..] == *x.dims() {
            return Ok(x);
        }
        // Tables of places are as long as an axis.
        super::moves::count(PAD, &dims)?;
        if let PadMode::Constant(_) = self.0 {
            let at: Sizes = amounts.iter().map(|&(b, _)| add(b)).collect();
            return x.padded(PAD, &dims, &at, fill);
        }
        for (axis, &(b, e)) in amounts.iter().enumerate() {
            if dims[axis] == x.dims()[axis] {
                continue;
            }
            let n = x.dims()[axis] as i64;
            if n == 0 {
                return Err(bad(PAD, "data", format!("has no elements along axis {axis} to pad with")));
            }
            if let Some(sides) = self.sides(n, b.max(0), e.max(0)) {
                x = beside(&x, axis, sides)?;
                continue;
            }
            let mut places = super::moves::room(PAD, dims[axis])?;
            places.iter_mut().zip(0..).for_each(|(p, i)| *p = self.place(i - b.max(0), n));
            x = along(PAD, &x, axis, (&places, &[dims[axis]]), Fill::ZERO)?;
        }
        Ok(x)
    }
}

/// A slice of an axis: its first element, from one to the next, and how many there are.
#[derive(Clone, Copy)]
struct Side {
    first: i64,
    step: isize,
    len: i64,
}

/// x with slices of an axis before and behind it.
fn beside<E: Elements>(x: &E, axis: usize, sides: [Side; 2]) -> Result<E> {
    let own = super::moves::strides(x.dims());
    let slice = |side: Side| {
        let (mut dims, mut steps): (Sizes, _) = (x.dims().into(), own.clone());
        dims[axis] = side.len as usize;
        steps[axis] *= side.step;
        x.strided(PAD, &dims, side.first as usize * own[axis] as usize, &steps)
    };
    let mut parts: SmallVec<[E; 3]> = SmallVec::new();
    let [before, behind] = sides;
    if before.len > 0 {
        parts.push(slice(before)?);
    }
    parts.push(x.clone());
    if behind.len > 0 {
        parts.push(slice(behind)?);
    }
    E::joined(&parts, axis)
}

impl Moves for Pad {
    fn moved<E: Elements>(&self, x: &E, numbers: &Numbers) -> Result<E> {
        let v = if let PadMode::Constant(v) = self.0 { v } else { 0.0 };
        self.padded(x, numbers, Fill { int: v as i64, float: v as f32 })
    }
    fn open(&self, x: &ValueType, inputs: &[Option<&ValueType>]) -> Result<ValueType, Fault> {
        if x.unranked {
            return Ok(ValueType::unranked(x.dtype));
        }
        let named = inputs.get(3).copied().flatten().is_some();
        let axes = content(inputs, 3);
        let (Some(pads), true) = (content(inputs, 1), !named || axes.is_some()) else {
            if let (false, Some(pads)) = (named, partly(inputs, 1))
                && pads.len() == 2 * x.rank()
            {
                let same = |n: usize| pads[n] == Some(0) && pads[n + x.rank()] == Some(0);
                let dim = |n: usize| if same(n) { x.dims[n].clone() } else { Dim::Any };
                return Ok(x.with_dims((0..x.rank()).map(dim).collect()));
            }
            return Ok(x.with_dims(vec![Dim::Any; x.rank()]));
        };
        let amounts = Self::amounts(&pads, axes.as_deref(), x.rank()).map_err(fault)?;
        let dim = |(d, &(b, e)): (&Dim, &(i64, i64))| match d.size() {
            _ if (b, e) == (0, 0) => d.clone(),
            Some(n) => usize::try_from((n as i64).saturating_add(b).saturating_add(e)).ok().into(),
            None => Dim::Any,
        };
        Ok(x.with_dims(x.dims.iter().zip(&amounts).map(dim).collect()))
    }
    fn is_number(&self, input: usize) -> bool {
        matches!(input, 1 | 3)
    }
}

impl Operator for Pad {
    fn name(&self) -> &'static str {
        PAD
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("data"), Slot::Required("pads"), Slot::Optional("constant_value"), Slot::Optional("axes")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let mut types = super::moves::types(self, inputs)?;
        if inputs.get(2).copied().flatten().is_some() {
            // What is padded with is not known here.
            types.iter_mut().for_each(|t| t.known = None);
        }
        Ok(types)
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let numbers = numbers(call, |i| self.is_number(i))?;
        let x = call.data(0);
        let v = match (self.0, call.get(2)) {
            (PadMode::Constant(_), Some(v)) => match v {
                Data::Ints(i) => i.data().first().map(|&v| Fill { int: v, float: v as f32 }),
                Data::Tensor(_) => {
                    let v = call.floats(2)?.to_vec()?.first().copied();
                    v.map(|v| Fill { int: v as i64, float: v })
                }
            },
            (PadMode::Constant(v), None) => Some(Fill { int: v as i64, float: v as f32 }),
            _ => Some(Fill::ZERO),
        };
        let fill = v.ok_or_else(|| bad(PAD, "constant_value", "has no element"))?;
        Ok(one(self.padded(x, &numbers, fill)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let get = |n: usize| inputs.get(n).copied().flatten();
        let rank = x.dims.len();
        let pads = whole(array(inputs, 1));
        let axes = get(3).map_or_else(|| (0..rank as i64).collect(), whole);
        let (mut before, mut behind) = (vec![0; rank], vec![0; rank]);
        for (n, &a) in axes.iter().enumerate() {
            let axis = if a < 0 { a + rank as i64 } else { a } as usize;
            (before[axis], behind[axis]) = (pads[n], pads[n + axes.len()]);
        }
        let value = match self.0 {
            PadMode::Constant(v) => get(2).map_or(v, |v| v.data[0]),
            _ => 0.0,
        };
        let dims: Vec<usize> = (0..rank).map(|n| (x.dims[n] as i64 + before[n] + behind[n]) as usize).collect();
        vec![Some(Array::from_fn(&dims, |i| {
            let mut at = vec![0; rank];
            for n in 0..rank {
                // What is cut off is not mirrored.
                let first = (-before[n]).max(0);
                let size = x.dims[n] as i64 - first - (-behind[n]).max(0);
                let mut place = i[n] as i64 - before[n].max(0);
                while !(0..size).contains(&place) {
                    place = match self.0 {
                        PadMode::Constant(_) => return value,
                        PadMode::Edge => place.clamp(0, size - 1),
                        PadMode::Wrap => place + if place < 0 { size } else { -size },
                        PadMode::Reflect if size == 1 => 0,
                        PadMode::Reflect => {
                            if place < 0 {
                                -place
                            } else {
                                2 * (size - 1) - place
                            }
                        }
                    };
                }
                at[n] = (first + place) as usize;
            }
            x.at(&at)
        }))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (dy, x, pads, axes) = (g.of_only_output(), g.input(0), g.input(1), g.get(3));
        let PadMode::Constant(_) = self.0 else {
            let dx = g.nodes(PadBack(self.0), &[Some(dy), Some(x), Some(pads), axes], 1)?[0];
            g.give(0, dx);
            return Ok(());
        };
        if g.wants(0) {
            // What was added is cut off, and what was cut off is zero.
            let back = g.negative(pads)?;
            let dx = g.nodes(Self(PadMode::Constant(0.0)), &[Some(dy), Some(back), None, axes], 1)?[0];
            g.give(0, dx);
        }
        if g.wants(2) {
            let (zeros, value) = (g.zeros_like(x)?, g.input(2));
            let beside = g.nodes(Self(PadMode::Constant(1.0)), &[Some(zeros), Some(pads), None, axes], 1)?[0];
            let d = g.times(dy, beside)?;
            let d = g.node(super::SumTo, &[d, value])?;
            g.give(2, d);
        }
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The gradient of the data of a [`Pad`] that repeats elements: of each the sum of what stands where it went. Inputs:
/// `dy`, the data, of which only the shape matters, the pads and their axes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PadBack(pub PadMode);

const BACK: &str = "PadBack";

impl Operator for PadBack {
    fn name(&self) -> &'static str {
        BACK
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("dy"), Slot::Required("like"), Slot::Required("pads"), Slot::Optional("axes")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        super::like::like(inputs, 1)
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let (mut x, like) = (call.input(0).clone(), call.data(1).dims());
        let numbers = numbers(call, |i| i > 1)?;
        let get = |n: usize| numbers.get(n - 1).and_then(Option::as_ref).map(IntArray::data);
        if x.dims().len() != like.len() {
            return Err(bad(BACK, "dy", format!("must be {like:?} with padding, but its shape is {}", x.shape())));
        }
        let amounts = Pad::amounts(get(2).unwrap_or_default(), get(3), like.len())?;
        for (axis, &(before, behind)) in amounts.iter().enumerate() {
            if (before, behind) == (0, 0) {
                continue;
            }
            // Of what is left after cutting.
            let n = like[axis] as i64 + before.min(0) + behind.min(0);
            let count = n + before.max(0) + behind.max(0);
            if n <= 0 || count != x.dims()[axis] as i64 {
                let message = format!("must have {count} elements along axis {axis}, but has {}", x.dims()[axis]);
                return Err(bad(BACK, "dy", message));
            }
            let place = |i: i64| Pad(self.0).place(i - before.max(0), n) - before.min(0);
            let places: Vec<i64> = (0..count).map(place).collect();
            x = super::moves::added(&x, axis, &places, like[axis])?;
        }
        Ok(one(x))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (dy, like) = (array(inputs, 0), array(inputs, 1));
        // Where each element came from: the padding of the elements' own places.
        let own = Array::new(&like.dims, (0..like.data.len()).map(|i| i as f64).collect());
        let from = Pad(self.0).reference(&[Some(&own), inputs[2], None, inputs.get(3).copied().flatten()]);
        let mut out = Array::from_fn(&like.dims, |_| 0.0);
        let from = from[0].as_ref().expect("an output");
        from.data.iter().zip(&dy.data).for_each(|(&p, v)| out.data[p as usize] += v);
        vec![Some(out)]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let inputs = [Some(g.of_only_output()), g.get(2), None, g.get(3)];
        let d = g.nodes(Pad(self.0), &inputs, 1)?[0];
        g.give(0, d);
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
