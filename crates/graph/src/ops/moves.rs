//! What operators share that only move elements, by whole numbers: the same code moves the values of a run and what
//! types know of elements.

use super::prelude::*;
use crate::operator::given;
use crate::{Data, IntArray};
use recurve_tensor::kernel::Span;
use recurve_tensor::{Error, Indices, Shape, Take};
use smallvec::SmallVec;

/// Dimensions of a value.
pub(super) type Sizes = SmallVec<[usize; 6]>;

/// Whole numbers that say how elements are moved: the inputs behind the first.
pub(super) type Numbers = SmallVec<[Option<IntArray>; 4]>;

/// Elements that a type knows.
const MAX_KNOWN: usize = 1024;

/// An element that was nowhere before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fill {
    pub int: i64,
    pub float: f32,
}

impl Fill {
    pub(super) const ZERO: Self = Self { int: 0, float: 0.0 };
}

/// Elements that can be moved.
pub(super) trait Elements: Sized + Clone {
    fn dims(&self) -> &[usize];
    /// None at all, in these dimensions.
    fn empty(&self, operation: &'static str, dims: &[usize]) -> Result<Self>;
    /// The same number of them in other dimensions.
    fn reshaped(&self, operation: &'static str, dims: &[usize]) -> Result<Self>;
    /// As [`Tensor::strided`].
    fn strided(&self, operation: &'static str, dims: &[usize], offset: usize, strides: &[isize]) -> Result<Self>;
    /// As [`Tensor::padded`].
    fn padded(&self, operation: &'static str, dims: &[usize], at: &[usize], fill: Fill) -> Result<Self>;
    /// As [`Tensor::take`].
    fn taken(&self, operation: &'static str, take: &Take, places: &[i64], fill: Fill) -> Result<Self>;
    /// As [`recurve_tensor::concat`].
    fn joined(parts: &[Self], axis: usize) -> Result<Self>;
}

/// A bad argument.
pub(super) fn bad(operation: &'static str, argument: &'static str, message: impl Into<String>) -> Error {
    Error::Argument { operation, argument, message: message.into() }
}

/// What the types of operands show to be wrong.
pub(super) fn fault(e: Error) -> Fault {
    match e {
        Error::Argument { argument, message, .. } => Fault::Attribute(argument, message),
        Error::Shape { argument, expected, got, .. } => {
            Fault::Attribute(argument, format!("must be {expected}, but its shape is {got}"))
        }
        other => Fault::Attribute("inputs", other.to_string()),
    }
}

/// An axis, from the end if it is negative.
pub(super) fn axis_of(operation: &'static str, axis: i64, rank: usize) -> Result<usize> {
    let from = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
    match usize::try_from(from) {
        Ok(a) if a < rank => Ok(a),
        _ => Err(bad(
            operation,
            "axis",
            format!("must be -{rank} to {}, for {rank} dimensions, but it is {axis}", rank as i64 - 1),
        )),
    }
}

/// An index of an axis or of an element, from the end if it is negative. It has been checked.
pub(super) fn from_start(index: i64, size: usize) -> usize {
    let from = if index < 0 { index + size as i64 } else { index };
    from as usize
}

/// The shape of elements that there are.
pub(super) fn shape(operation: &'static str, dims: &[usize]) -> Result<Shape> {
    Shape::new(dims)
        .ok_or_else(|| bad(operation, "dims", format!("{dims:?} must have 1 to 6 dimensions, none of them zero")))
}

/// How many elements dimensions hold.
pub(super) fn count(operation: &'static str, dims: &[usize]) -> Result<usize> {
    let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= isize::MAX as usize / 8);
    count.ok_or_else(|| bad(operation, "dims", format!("{dims:?} are more elements than can be counted")))
}

/// Row-major strides.
pub(super) fn strides(dims: &[usize]) -> SmallVec<[isize; 6]> {
    let mut strides: SmallVec<[isize; 6]> = smallvec::smallvec![0; dims.len()];
    let mut next = 1;
    for (s, &d) in strides.iter_mut().zip(dims).rev() {
        *s = next;
        next = next.saturating_mul(isize::try_from(d).unwrap_or(isize::MAX));
    }
    strides
}

/// Whole numbers in host memory, of a result or of a table, at most.
const MAX_WHOLE: usize = 1 << 28;

/// Memory for whole numbers, all zero.
pub(super) fn room(operation: &'static str, count: usize) -> Result<Vec<i64>> {
    if count > MAX_WHOLE {
        return Err(bad(
            operation,
            "dims",
            format!("would be {count} whole numbers, but at most {MAX_WHOLE} are held"),
        ));
    }
    recurve_tensor::cpu::host(operation, count)
}

/// The product of dimensions.
pub(super) fn product(dims: &[usize]) -> usize {
    dims.iter().fold(1, |n: usize, &d| n.saturating_mul(d))
}

impl Elements for Data {
    fn dims(&self) -> &[usize] {
        Self::dims(self)
    }
    fn empty(&self, operation: &'static str, dims: &[usize]) -> Result<Self> {
        match self {
            Self::Ints(_) => Ok(IntArray::new(dims, []).into()),
            Self::Tensor(_) => Err(no_elements(operation, dims)),
        }
    }
    fn reshaped(&self, operation: &'static str, dims: &[usize]) -> Result<Self> {
        match self {
            Self::Tensor(t) => Ok(t.reshape(dims)?.into()),
            Self::Ints(i) if count(operation, dims)? == i.data().len() => Ok(i.reshaped(dims).into()),
            Self::Ints(i) => {
                let message = format!("{dims:?} must have as many elements as {:?}", i.dims());
                Err(bad(operation, "dims", message))
            }
        }
    }
    fn strided(&self, operation: &'static str, dims: &[usize], offset: usize, strides: &[isize]) -> Result<Self> {
        match self {
            Self::Tensor(t) => Ok(t.strided(dims, offset, strides)?.into()),
            Self::Ints(i) => {
                let span = Span::view(operation, i.data().len(), dims, offset, strides)?;
                let mut out = room(operation, span.shape.count())?;
                span.copy(i.data(), &mut out);
                Ok(IntArray::new(dims, out).into())
            }
        }
    }
    fn padded(&self, operation: &'static str, dims: &[usize], at: &[usize], fill: Fill) -> Result<Self> {
        match self {
            Self::Tensor(t) => Ok(t.padded(dims, at, fill.float)?.into()),
            Self::Ints(i) => {
                let mut out = room(operation, count(operation, dims)?)?;
                out.fill(fill.int);
                if !i.data().is_empty() {
                    let span = Span::inside(operation, &shape(operation, dims)?, &shape(operation, i.dims())?, at)?;
                    span.copy(i.data(), &mut out);
                }
                Ok(IntArray::new(dims, out).into())
            }
        }
    }
    fn taken(&self, operation: &'static str, take: &Take, places: &[i64], fill: Fill) -> Result<Self> {
        match self {
            Self::Tensor(t) => Ok(t.take(take, Indices::Host(places), fill.float)?.into()),
            Self::Ints(i) => {
                let mut out = room(operation, take.shape().count())?;
                take.look_up(i.data(), |at, size| host_place(places[at], size), fill.int, &mut out);
                Ok(IntArray::new(take.shape().dims(), out).into())
            }
        }
    }
    fn joined(parts: &[Self], axis: usize) -> Result<Self> {
        let tensors: Option<SmallVec<[&Tensor; 8]>> = parts.iter().map(Self::as_tensor).collect();
        if let Some(tensors) = tensors {
            return Ok(recurve_tensor::concat(&tensors, axis)?.into());
        }
        let ints = parts.iter().map(|p| match p {
            Self::Ints(i) => Ok((i.dims(), i.data())),
            Self::Tensor(_) => Err(bad("Concat", "inputs", "must all be in one place")),
        });
        let (dims, data) = joined(&ints.collect::<Result<SmallVec<[_; 8]>>>()?, axis)?;
        Ok(IntArray::new(&dims, data).into())
    }
}

fn host_place(index: i64, size: usize) -> Option<usize> {
    usize::try_from(index).ok().filter(|&i| i < size)
}

/// That a result would have no elements, which tensors cannot.
pub(super) fn no_elements(operation: &'static str, dims: &[usize]) -> Error {
    bad(operation, "dims", format!("would be {dims:?}, but a tensor of floats has at least one element"))
}

/// Arrays in host memory one after another along an axis.
fn joined<T: Copy>(parts: &[(&[usize], &[T])], axis: usize) -> Result<(Sizes, Vec<T>)> {
    let operation = "Concat";
    let Some((first, _)) = parts.first() else { return Err(bad(operation, "inputs", "are none")) };
    let mut dims = Sizes::from_slice(first);
    if axis >= dims.len() {
        return Err(bad(operation, "axis", format!("is {axis}, but there are {} dimensions", dims.len())));
    }
    for (other, _) in &parts[1..] {
        let same = |(d, (a, b)): (usize, (&usize, &usize))| d == axis || a == b;
        if other.len() != dims.len() || !dims.iter().zip(*other).enumerate().all(same) {
            let message = format!("must be like {first:?} but along axis {axis}, but one is {other:?}");
            return Err(bad(operation, "inputs", message));
        }
        dims[axis] = dims[axis].saturating_add(other[axis]);
    }
    let mut data = Vec::with_capacity(count(operation, &dims)?);
    for outer in 0..product(&dims[..axis]) {
        for (dims, part) in parts {
            let run = product(&dims[axis..]);
            data.extend_from_slice(&part[outer * run..][..run]);
        }
    }
    Ok((dims, data))
}

/// What a type says of a value whose dimensions are known: those, and elements as far as they are known.
#[derive(Clone, Debug)]
pub(super) struct Sketch {
    dims: Sizes,
    data: Option<Vec<Option<i64>>>,
}

impl Sketch {
    /// That of a type.
    pub(super) fn of(t: &ValueType) -> Option<Self> {
        let dims = t.shape()?;
        let data = t.known.as_ref().filter(|k| k.len() == product(&dims)).map(|k| k.to_vec());
        Some(Self { dims: dims.into(), data })
    }

    /// The type.
    pub(super) fn kind(self, dtype: crate::Element) -> ValueType {
        let known = self.data.filter(|d| self.dims.len() <= 1 && d.len() <= MAX_KNOWN && dtype.is_whole());
        ValueType::new(dtype, self.dims).with_known(known)
    }
}

impl Elements for Sketch {
    fn dims(&self) -> &[usize] {
        &self.dims
    }
    fn empty(&self, _: &'static str, dims: &[usize]) -> Result<Self> {
        Ok(Self { dims: dims.into(), data: self.data.as_ref().map(|_| Vec::new()) })
    }
    fn reshaped(&self, operation: &'static str, dims: &[usize]) -> Result<Self> {
        if count(operation, dims)? != product(&self.dims) {
            let message = format!("{dims:?} must have as many elements as {:?}", &self.dims[..]);
            return Err(bad(operation, "dims", message));
        }
        Ok(Self { dims: dims.into(), data: self.data.clone() })
    }
    fn strided(&self, operation: &'static str, dims: &[usize], offset: usize, strides: &[isize]) -> Result<Self> {
        let span = Span::view(operation, product(&self.dims), dims, offset, strides)?;
        let data = self.data.as_ref().filter(|_| span.shape.count() <= MAX_KNOWN).map(|data| {
            let mut out = vec![None; span.shape.count()];
            span.copy(data, &mut out);
            out
        });
        Ok(Self { dims: dims.into(), data })
    }
    fn padded(&self, operation: &'static str, dims: &[usize], at: &[usize], fill: Fill) -> Result<Self> {
        let count = count(operation, dims)?;
        let data = match &self.data {
            Some(data) if count <= MAX_KNOWN => {
                let mut out = vec![Some(fill.int); count];
                if !data.is_empty() {
                    let span = Span::inside(operation, &shape(operation, dims)?, &shape(operation, &self.dims)?, at)?;
                    span.copy(data, &mut out);
                }
                Some(out)
            }
            _ => None,
        };
        Ok(Self { dims: dims.into(), data })
    }
    fn taken(&self, _: &'static str, take: &Take, places: &[i64], fill: Fill) -> Result<Self> {
        let data = self.data.as_ref().filter(|_| take.shape().count() <= MAX_KNOWN).map(|data| {
            let mut out = vec![None; take.shape().count()];
            take.look_up(data, |at, size| host_place(places[at], size), Some(fill.int), &mut out);
            out
        });
        Ok(Self { dims: take.shape().dims().into(), data })
    }
    fn joined(parts: &[Self], axis: usize) -> Result<Self> {
        // Of those without known elements the dimensions are joined alone.
        let known = parts.iter().any(|p| p.data.is_some())
            && parts.iter().fold(0usize, |n, p| n.saturating_add(product(&p.dims))) <= MAX_KNOWN;
        let none: Vec<Vec<()>> = parts.iter().map(|p| vec![(); product(&p.dims)]).collect();
        if known {
            let data = |p: &Self| p.data.clone().unwrap_or_else(|| vec![None; product(&p.dims)]);
            let data: Vec<_> = parts.iter().map(data).collect();
            let all: Vec<_> = parts.iter().zip(&data).map(|(p, d)| (&p.dims[..], &d[..])).collect();
            let (dims, data) = joined(&all, axis)?;
            return Ok(Self { dims, data: Some(data) });
        }
        let all: Vec<_> = parts.iter().zip(&none).map(|(p, n)| (&p.dims[..], &n[..])).collect();
        Ok(Self { dims: joined(&all, axis)?.0, data: None })
    }
}

/// Axes in another order.
pub(super) fn permuted<E: Elements>(operation: &'static str, x: &E, axes: &[usize]) -> Result<E> {
    let own = strides(x.dims());
    let dims: Sizes = axes.iter().map(|&a| x.dims()[a]).collect();
    if dims.contains(&0) {
        return x.empty(operation, &dims);
    }
    let strides: SmallVec<[isize; 6]> = axes.iter().map(|&a| own[a]).collect();
    x.strided(operation, &dims, 0, &strides)
}

/// Whether places, of which none is fill, are one after another in even steps.
pub(super) fn are_even(places: &[i64]) -> bool {
    let step = if places.len() > 1 { places[1] - places[0] } else { 1 };
    places.windows(2).all(|w| w[1] - w[0] == step) && places.iter().all(|&p| p >= 0)
}

/// Whole slices along an axis by places, which are below its size, or below zero for `fill`; the axis becomes the
/// dimensions of the places.
pub(super) fn along<E: Elements>(
    operation: &'static str,
    x: &E,
    axis: usize,
    (places, dims): (&[i64], &[usize]),
    fill: Fill,
) -> Result<E> {
    let own: Sizes = x.dims().into();
    let result: Sizes = own[..axis].iter().chain(dims).chain(&own[axis + 1..]).copied().collect();
    if result.contains(&0) {
        return x.empty(operation, &result);
    }
    let (outer, inner) = (product(&own[..axis]), product(&own[axis + 1..]));
    // One after another in even steps they are a slice.
    if are_even(places) {
        let step = if places.len() > 1 { places[1] - places[0] } else { 1 };
        let (inner_step, size) = (inner as isize, own[axis] as isize);
        let offset = (places[0] as usize).saturating_mul(inner);
        let strides = [size.saturating_mul(inner_step), (step as isize).saturating_mul(inner_step), 1];
        return x.strided(operation, &[outer, places.len(), inner], offset, &strides)?.reshaped(operation, &result);
    }
    // Slices of nothing but fill are taken from an axis of size 0 too.
    if own.contains(&0) {
        return Err(bad(operation, "x", "has no elements to take from"));
    }
    let flat = x.reshaped(operation, &[outer, own[axis], inner])?;
    let take = Take::along(&shape(operation, flat.dims())?, 1, &shape(operation, &[places.len()])?)?;
    flat.taken(operation, &take, places, fill)?.reshaped(operation, &result)
}

/// Rows of `[outer, rows, inner]` added by their ids, in order: `[outer, size, inner]`, zero where there are none.
pub(super) fn sum_along(x: &Tensor, ids: &Tensor, size: usize) -> Result<Tensor> {
    let &[outer, rows, inner] = x.dims() else {
        return Err(bad("sum_along", "x", format!("must be [outer, rows, inner], but its shape is {}", x.shape())));
    };
    let ids = ids.reshape(&[rows])?;
    if outer == 1 {
        return x.reshape(&[rows, inner])?.sum_rows(&ids, size)?.reshape(&[1, size, inner]);
    }
    let turned = x.transpose(&[1, 0, 2])?.reshape(&[rows, outer * inner])?;
    turned.sum_rows(&ids, size)?.reshape(&[size, outer, inner])?.transpose(&[1, 0, 2])
}

/// Slices along an axis added at their places, in order; the axis becomes that long. What is below zero is left out:
/// the transpose of [`along`].
pub(super) fn added(x: &Tensor, axis: usize, places: &[i64], size: usize) -> Result<Tensor> {
    let mut dims: Sizes = x.dims().into();
    let parts = [product(&dims[..axis]), places.len(), product(&dims[axis + 1..])];
    dims[axis] = size;
    // A row more takes what is left out.
    let rows = size + usize::from(places.iter().any(|&p| p < 0));
    let ids: Vec<i64> = places.iter().map(|&p| if p < 0 { size as i64 } else { p }).collect();
    let ids = Tensor::from_i64(&ids, &[ids.len()], &x.device())?;
    let sums = sum_along(&x.reshape(&parts)?, &ids, rows)?;
    let sums = if rows > size { sums.slice(1, 0..size)? } else { sums };
    sums.reshape(&dims)
}

/// An operator that moves the elements of its first input by whole numbers in the others.
pub(super) trait Moves: Operator {
    /// The elements moved. `numbers` are the other inputs.
    fn moved<E: Elements>(&self, x: &E, numbers: &Numbers) -> Result<E>;

    /// The type of the result where dimensions or numbers are not all known.
    fn open(&self, x: &ValueType, inputs: &[Option<&ValueType>]) -> Result<ValueType, Fault>;

    /// Whether types follow elements that are known. If not, dimensions are the same as those of the first input.
    fn follows(&self) -> bool {
        true
    }

    /// Whether an input says how elements are moved.
    fn is_number(&self, input: usize) -> bool {
        input > 0
    }
}

/// The type of a result like `x`, two dimensions or more, whose elements are not known.
pub(super) fn like_matrices(x: &ValueType) -> Result<ValueType, Fault> {
    if !x.unranked && x.rank() < 2 {
        return Err(Fault::Input(0, "of two dimensions or more".into()));
    }
    Ok(ValueType { known: None, ..x.clone() })
}

/// What a type knows to be whole numbers.
pub(super) fn known(t: &ValueType) -> Option<IntArray> {
    let (dims, content) = (t.shape()?, t.content()?);
    (product(&dims) == content.len()).then(|| IntArray::new(&dims, content))
}

/// Elements of an input as far as they are known; `None` if not even their number is.
pub(super) fn partly(inputs: &[Option<&ValueType>], index: usize) -> Option<Vec<Option<i64>>> {
    let t = inputs.get(index).copied().flatten()?;
    if let Some(known) = &t.known {
        return Some(known.to_vec());
    }
    match &t.dims[..] {
        [Dim::Size(n)] if !t.unranked && *n <= MAX_KNOWN => Some(vec![None; *n]),
        _ => None,
    }
}

/// All elements of an input, if they are known.
pub(super) fn content(inputs: &[Option<&ValueType>], index: usize) -> Option<Vec<i64>> {
    inputs.get(index).copied().flatten()?.content()
}

/// The output type of an operator that moves elements.
pub(super) fn types<M: Moves>(m: &M, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
    let x = given(inputs, 0)?;
    for (i, t) in inputs.iter().enumerate().skip(1) {
        if t.is_some_and(|t| m.is_number(i) && !t.dtype.is_whole()) {
            return Err(Fault::Input(i, "whole numbers".into()));
        }
    }
    if !m.follows() {
        return Ok(vec![m.open(x, inputs)?]);
    }
    let numbers: Option<Numbers> = inputs[1..]
        .iter()
        .enumerate()
        .map(|(i, t)| match t {
            Some(t) if m.is_number(i + 1) => known(t).map(Some),
            _ => Some(None),
        })
        .collect();
    if let (Some(sketch), Some(numbers)) = (Sketch::of(x), numbers) {
        let whole = sketch.data.is_some();
        let t = m.moved(&sketch, &numbers).map_err(fault)?.kind(x.dtype);
        return Ok(vec![if whole { t } else { t.with_known(None::<Vec<_>>) }]);
    }
    Ok(vec![m.open(x, inputs)?])
}

/// The whole numbers of a call.
pub(super) fn numbers(call: &Call<'_>, is_number: impl Fn(usize) -> bool) -> Result<Numbers> {
    (1..call.inputs.len())
        .map(|i| if is_number(i) && call.get(i).is_some() { call.ints(i).map(Some) } else { Ok(None) })
        .collect()
}

/// A run of an operator that moves elements.
pub(super) fn run<M: Moves>(m: &M, call: &Call<'_>) -> Result<Outputs> {
    Ok(one(m.moved(call.data(0), &numbers(call, |i| m.is_number(i))?)?))
}

/// A required input among the whole numbers.
pub(super) fn number(numbers: &Numbers, index: usize) -> &IntArray {
    numbers[index - 1].as_ref().expect("the executor runs no node without its required inputs")
}

/// Whole numbers of the reference.
pub(super) fn whole(a: &Array) -> Vec<i64> {
    a.data.iter().map(|&v| v as i64).collect()
}

/// The body of an operator that moves elements, but for its name, inputs and truth.
macro_rules! moves {
    () => {
        fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
            super::moves::types(self, inputs)
        }
        fn run(&self, call: &Call<'_>) -> Result<Outputs> {
            super::moves::run(self, call)
        }
        fn as_any(&self) -> &dyn Any {
            self
        }
    };
}
pub(super) use moves;
