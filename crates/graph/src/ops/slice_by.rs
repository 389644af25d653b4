//! Parts of a value by numbers that are computed: `Slice` and `Split`.

use super::moves::{
    Elements, Moves, Numbers, Sizes, Sketch, axis_of, bad, content, fault, from_start, known, moves, numbers, partly,
    product, strides, whole,
};
use super::prelude::*;
use crate::IntArray;
use crate::operator::given;
use smallvec::SmallVec;

/// The elements from `starts` to before `ends` in `steps` along `axes`, or along the first ones. Numbers count from
/// the end if they are negative, what is beyond either end is left out, and negative steps go backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceBy;

const SLICE: &str = "Slice";

/// First element and number of elements along an axis of so many.
fn part(size: usize, start: i64, end: i64, step: i64) -> (usize, usize) {
    let n = size as i64;
    let from_end = |i: i64| if i < 0 { i.saturating_add(n) } else { i };
    let (start, end) = (from_end(start), from_end(end));
    let (start, distance) = if step > 0 {
        let (start, end) = (start.clamp(0, n), end.clamp(0, n));
        (start, end - start)
    } else {
        let (start, end) = (start.clamp(-1, n - 1), end.clamp(-1, n - 1));
        (start, start - end)
    };
    match distance {
        d if d > 0 => (start as usize, (d as u64).div_ceil(step.unsigned_abs()) as usize),
        _ => (0, 0),
    }
}

/// The axis of a slice, its start, end and step.
type Cut = (usize, i64, i64, i64);

/// Of each slice the axis, start, end and step.
fn slices(rank: usize, numbers: [Option<&[i64]>; 4]) -> Result<SmallVec<[Cut; 4]>> {
    let [starts, ends, axes, steps] = numbers;
    let (starts, ends) = (starts.unwrap_or_default(), ends.unwrap_or_default());
    let other = |n: Option<&[i64]>| n.is_some_and(|n| n.len() != starts.len());
    if ends.len() != starts.len() || other(axes) || other(steps) {
        let message = format!("must be as many as the {} starts, like axes and steps", starts.len());
        return Err(bad(SLICE, "ends", message));
    }
    let mut all: SmallVec<[Cut; 4]> = SmallVec::new();
    for n in 0..starts.len() {
        let axis = axis_of(SLICE, axes.map_or(n as i64, |a| a[n]), rank)?;
        let step = steps.map_or(1, |s| s[n]);
        if step == 0 {
            return Err(bad(SLICE, "steps", "must not be 0"));
        }
        if all.iter().any(|&(a, ..)| a == axis) {
            return Err(bad(SLICE, "axes", format!("name axis {axis} twice")));
        }
        all.push((axis, starts[n], ends[n], step));
    }
    Ok(all)
}

impl Moves for SliceBy {
    fn moved<E: Elements>(&self, x: &E, numbers: &Numbers) -> Result<E> {
        let get = |n: usize| numbers.get(n - 1).and_then(Option::as_ref).map(IntArray::data);
        let mut dims: Sizes = x.dims().into();
        let mut steps = strides(&dims);
        let mut offset = 0;
        for (axis, start, end, step) in slices(dims.len(), [1, 2, 3, 4].map(get))? {
            let (first, len) = part(dims[axis], start, end, step);
            dims[axis] = len;
            offset += first.saturating_mul(steps[axis] as usize);
            // A single element has no step.
            steps[axis] = if len > 1 { steps[axis].saturating_mul(step as isize) } else { 0 };
        }
        if dims.contains(&0) {
            return x.empty(SLICE, &dims);
        }
        if dims[..] == *x.dims() && offset == 0 && steps.iter().all(|&s| s >= 0) {
            return Ok(x.clone());
        }
        x.strided(SLICE, &dims, offset, &steps)
    }
    fn open(&self, x: &ValueType, inputs: &[Option<&ValueType>]) -> Result<ValueType, Fault> {
        if x.unranked {
            return Ok(ValueType::unranked(x.dtype));
        }
        let named = |n: usize| inputs.get(n).copied().flatten().is_some();
        let all = [1, 2, 3, 4].map(|n| content(inputs, n));
        let axes = match (&all[2], named(3), partly(inputs, 1)) {
            (Some(axes), ..) => axes.clone(),
            (None, false, Some(starts)) => (0..starts.len() as i64).collect(),
            // Any axis may be cut.
            _ => return Ok(x.with_dims(vec![Dim::Any; x.rank()])),
        };
        let mut dims = x.dims.clone();
        let element = |n: usize, i: usize| match partly(inputs, n) {
            Some(all) => all.get(i).copied().flatten(),
            None => None,
        };
        for (i, &axis) in axes.iter().enumerate() {
            let axis = axis_of(SLICE, axis, x.rank()).map_err(fault)?;
            let step = if named(4) { element(4, i) } else { Some(1) };
            dims[axis] = match (x.dims[axis].size(), element(1, i), element(2, i), step) {
                (_, _, _, Some(0)) => return Err(Fault::Attribute("steps", "must not be 0".into())),
                (Some(n), Some(start), Some(end), Some(step)) => Dim::Size(part(n, start, end, step).1),
                // The whole axis, however long it is.
                (_, Some(0), Some(end), Some(1)) if end >= i64::from(i32::MAX) => x.dims[axis].clone(),
                (_, Some(-1), Some(end), Some(-1)) if end <= -i64::from(i32::MAX) => x.dims[axis].clone(),
                _ => Dim::Any,
            };
        }
        Ok(x.with_dims(dims))
    }
}

impl Operator for SliceBy {
    fn name(&self) -> &'static str {
        SLICE
    }
    fn slots(&self) -> &[Slot] {
        &[
            Slot::Required("data"),
            Slot::Required("starts"),
            Slot::Required("ends"),
            Slot::Optional("axes"),
            Slot::Optional("steps"),
        ]
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let places = chosen(&x.dims, &inputs[1..]);
        let dims: Vec<usize> = places.iter().map(Vec::len).collect();
        vec![Some(Array::from_fn(&dims, |i| {
            let at: Vec<usize> = i.iter().zip(&places).map(|(&i, p)| p[i]).collect();
            x.at(&at)
        }))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (dy, x) = (g.of_only_output(), g.input(0));
        let mut inputs = vec![Some(dy), Some(x)];
        inputs.extend((1..g.inputs()).map(|i| g.get(i)));
        let dx = g.nodes(SliceBack, &inputs, 1)?[0];
        g.give(0, dx);
        Ok(())
    }
    moves!();
}

/// The places of x that slices choose, axis by axis, in f64's definition; the inputs are those behind x.
fn chosen(dims: &[usize], inputs: &[Option<&Array>]) -> Vec<Vec<usize>> {
    let get = |n: usize| inputs.get(n).copied().flatten().map(whole);
    let (starts, ends) = (get(0).unwrap_or_default(), get(1).unwrap_or_default());
    let axes = get(2).unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = get(3).unwrap_or_else(|| vec![1; starts.len()]);
    let mut places: Vec<Vec<usize>> = dims.iter().map(|&d| (0..d).collect()).collect();
    for n in 0..starts.len() {
        let axis = if axes[n] < 0 { axes[n] + dims.len() as i64 } else { axes[n] } as usize;
        let size = dims[axis] as i64;
        let place = |i: i64| if i < 0 { i.saturating_add(size) } else { i };
        let (mut at, end) = (place(starts[n]), place(ends[n]));
        at = if steps[n] > 0 { at.max(0) } else { at.min(size - 1) };
        let mut chosen = Vec::new();
        while (0..size).contains(&at) && (if steps[n] > 0 { at < end } else { at > end }) {
            chosen.push(at as usize);
            at = at.saturating_add(steps[n]);
        }
        places[axis] = chosen;
    }
    places
}

/// The gradient of the data of a [`SliceBy`]: zeros in the shape of the second input, with the first where the slices
/// were taken. The other inputs are those of the slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceBack;

const BACK: &str = "SliceBack";

impl Operator for SliceBack {
    fn name(&self) -> &'static str {
        BACK
    }
    fn slots(&self) -> &[Slot] {
        &[
            Slot::Required("dy"),
            Slot::Required("like"),
            Slot::Required("starts"),
            Slot::Required("ends"),
            Slot::Optional("axes"),
            Slot::Optional("steps"),
        ]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        super::like::like(inputs, 1)
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let (mut x, like) = (call.input(0).clone(), call.data(1).dims());
        let numbers = numbers(call, |i| i > 1)?;
        let get = |n: usize| numbers.get(n - 1).and_then(Option::as_ref).map(IntArray::data);
        if x.dims().len() != like.len() {
            return Err(bad(BACK, "dy", format!("must be slices of {like:?}, but its shape is {}", x.shape())));
        }
        for (axis, start, end, step) in slices(like.len(), [2, 3, 4, 5].map(get))? {
            let (size, mut dims) = (like[axis], Sizes::from(x.dims()));
            let (first, len) = part(size, start, end, step);
            if dims[axis] != len {
                return Err(bad(
                    BACK,
                    "dy",
                    format!("must have {len} elements along axis {axis}, but has {}", dims[axis]),
                ));
            }
            if len == size && step > 0 {
                continue;
            }
            let (outer, inner) = (product(&dims[..axis]), product(&dims[axis + 1..]));
            let mut rows = x.reshape(&[outer, len, inner])?;
            let mut lowest = first;
            if len > 1 {
                let gap = step.unsigned_abs() as usize;
                if step < 0 {
                    lowest -= (len - 1) * gap;
                    let strides = [(len * inner) as isize, -(inner as isize), 1];
                    rows = rows.strided(&[outer, len, inner], (len - 1) * inner, &strides)?;
                }
                if gap > 1 {
                    // Zeros behind each, but for the last.
                    let wide =
                        rows.reshape(&[outer, len, 1, inner])?.padded(&[outer, len, gap, inner], &[0; 4], 0.0)?;
                    rows = wide.reshape(&[outer, len * gap, inner])?.slice(1, 0..(len - 1) * gap + 1)?;
                }
            }
            dims[axis] = size;
            x = rows.padded(&[outer, size, inner], &[0, lowest, 0], 0.0)?.reshape(&dims)?;
        }
        Ok(one(x))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (dy, like) = (array(inputs, 0), array(inputs, 1));
        let places = chosen(&like.dims, &inputs[2..]);
        let mut out = Array::from_fn(&like.dims, |_| 0.0);
        super::window::each(&dy.dims, |i| {
            let place = i.iter().zip(&places).zip(&like.dims).fold(0, |n, ((&i, p), &d)| n * d + p[i]);
            out.data[place] += dy.at(i);
        });
        vec![Some(out)]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let mut inputs = vec![Some(g.of_only_output())];
        inputs.extend((2..g.inputs()).map(|i| g.get(i)));
        let d = g.nodes(SliceBy, &inputs, 1)?[0];
        g.give(0, d);
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Parts along an axis one after another, of the sizes that the second input has. Without it they are equal but for
/// the last, which may be smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// The axis, from the end if it is negative.
    pub axis: i64,
    /// How many parts.
    pub parts: usize,
}

const SPLIT: &str = "Split";

impl Split {
    /// The sizes of the parts of so many.
    fn sizes(self, size: usize, given: Option<&[i64]>) -> Result<Sizes> {
        let Some(sizes) = given else {
            let each = size.div_ceil(self.parts.max(1));
            let rest = |n: usize| size.saturating_sub(n.saturating_mul(each)).min(each);
            return Ok((0..self.parts).map(rest).collect());
        };
        let all: Option<Sizes> = sizes.iter().map(|&n| usize::try_from(n).ok()).collect();
        let sum = |all: &Sizes| all.iter().try_fold(0usize, |s, &n| s.checked_add(n)) == Some(size);
        all.filter(|all| all.len() == self.parts && sum(all)).ok_or_else(|| {
            let message = format!("must be {} sizes whose sum is {size}, but it is {sizes:?}", self.parts);
            bad(SPLIT, "split", message)
        })
    }

    fn split<E: Elements>(
        self,
        x: &E,
        sizes: Option<&[i64]>,
        wanted: impl Fn(usize) -> bool,
    ) -> Result<SmallVec<[Option<E>; 4]>> {
        let axis = axis_of(SPLIT, self.axis, x.dims().len())?;
        let steps = strides(x.dims());
        let mut offset = 0;
        let parts = self.sizes(x.dims()[axis], sizes)?.into_iter().enumerate().map(|(n, size)| {
            let mut dims: Sizes = x.dims().into();
            dims[axis] = size;
            let first = offset;
            offset += size.saturating_mul(steps[axis] as usize);
            match (wanted(n), product(&dims)) {
                (false, _) => Ok(None),
                (true, 0) => x.empty(SPLIT, &dims).map(Some),
                _ => x.strided(SPLIT, &dims, first, &steps).map(Some),
            }
        });
        parts.collect()
    }
}

impl Operator for Split {
    fn name(&self) -> &'static str {
        SPLIT
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("input"), Slot::Optional("split")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let x = given(inputs, 0)?;
        let second = inputs.get(1).copied().flatten();
        if second.is_some_and(|t| !t.dtype.is_whole()) {
            return Err(Fault::Input(1, "whole numbers".into()));
        }
        let sizes = second.map(known);
        if let (Some(sketch), None | Some(Some(_))) = (Sketch::of(x), &sizes) {
            let sizes = sizes.as_ref().and_then(Option::as_ref).map(IntArray::data);
            let parts = self.split(&sketch, sizes, |_| true).map_err(fault)?;
            return Ok(parts.into_iter().flatten().map(|p| p.kind(x.dtype)).collect());
        }
        if x.unranked {
            return Ok(vec![ValueType::unranked(x.dtype); self.parts]);
        }
        let axis = axis_of(SPLIT, self.axis, x.rank()).map_err(fault)?;
        let each = match (x.dims[axis].size(), &sizes) {
            (Some(n), None) => Some(self.sizes(n, None).map_err(fault)?),
            (_, Some(Some(i))) => i.data().iter().map(|&n| usize::try_from(n).ok()).collect(),
            _ => None,
        };
        let kind = |n: usize| {
            let mut dims = x.dims.clone();
            dims[axis] = each.as_ref().and_then(|e| e.get(n).copied()).into();
            x.with_dims(dims)
        };
        Ok((0..self.parts).map(kind).collect())
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let sizes = numbers(call, |_| true)?;
        let sizes = sizes.first().and_then(Option::as_ref).map(IntArray::data);
        let wanted = |n: usize| call.wanted.get(n).copied().unwrap_or(false);
        self.split(call.data(0), sizes, wanted)
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let axis = from_start(self.axis, x.dims.len());
        let size = x.dims[axis];
        let sizes: Vec<usize> = match inputs.get(1).copied().flatten() {
            Some(sizes) => whole(sizes).iter().map(|&n| n as usize).collect(),
            None => {
                let each = size.div_ceil(self.parts);
                (0..self.parts).map(|n| ((n + 1) * each).min(size).saturating_sub(n * each)).collect()
            }
        };
        let mut first = 0;
        let part = |&n: &usize| {
            let mut dims = x.dims.clone();
            dims[axis] = n;
            let from = first;
            first += n;
            Some(Array::from_fn(&dims, |i| {
                let mut at = i.to_vec();
                at[axis] += from;
                x.at(&at)
            }))
        };
        sizes.iter().map(part).collect()
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let mut parts = Vec::new();
        for i in 0..g.outputs() {
            let y = g.output(i);
            parts.push(match g.of_output(i) {
                Some(d) => d,
                None => g.zeros_like(y)?,
            });
        }
        let dx = g.node(super::Concat { axis: self.axis as isize }, &parts)?;
        g.give(0, dx);
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn parts_of_an_axis() {
        for (size, start, end, step, want) in [
            (5, 0, i64::MAX, 1, (0, 5)),
            (5, -2, i64::MAX, 1, (3, 2)),
            (5, i64::MIN, 3, 2, (0, 2)),
            (5, -1, i64::MIN, -1, (4, 5)),
            (5, 100, -100, -2, (4, 3)),
            (5, 3, 1, 1, (0, 0)),
            (5, 2, 2, -1, (0, 0)),
            (0, 0, 5, 1, (0, 0)),
            (0, -1, i64::MIN, -1, (0, 0)),
            (5, 1, 5, i64::MAX, (1, 1)),
            (5, 4, 0, i64::MIN, (4, 1)),
        ] {
            assert_eq!(part(size, start, end, step), want, "{start}..{end} by {step} of {size}");
        }
    }
}
