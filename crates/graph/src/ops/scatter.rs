//! Updates at indices: `ScatterElements` and `ScatterND`.

use super::gather_at::{on_gpu, places};
use super::moves::{Sizes, axis_of, bad, fault, from_start, product, shape, whole};
use super::prelude::*;
use super::{Binary, CumSum, ExpandLike, Extent, GatherElements, GatherTuples, Reshape, ReshapeTo, Where};
use crate::operator::given;
use crate::{Data, Int, IntArray};
use recurve_tensor::{Device, Indices, Scatter, Shape, Update};

/// `data` with updates, each at the place of its index but along an axis, where the index says. Negative indices
/// count from the end; updates that meet are made one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScatterElements {
    /// The axis, from the end if it is negative.
    pub axis: i64,
    /// What an update makes of the element that it meets.
    pub update: Update,
    /// The type of the elements, for whole numbers that wrap.
    pub int: Option<Int>,
}

/// `data` with slices of updates, one for each tuple of indices, the last dimension of the indices, into the first
/// axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScatterTuples {
    update: Update,
    int: Option<Int>,
}

impl ScatterTuples {
    /// Updates that make something of the elements that they meet; of whole numbers their type, by which they wrap.
    pub fn new(update: Update, int: Option<Int>) -> Self {
        Self { update, int }
    }
}

/// Tuples of indices as rows: neighbours that are updated one after the other are one row, so that there are few.
#[derive(Debug)]
struct Rows {
    indices: IntArray,
    dims: Sizes,
    /// Rows of the data, and elements of one.
    count: usize,
    width: usize,
    places: Vec<i64>,
    /// The places on a device that is a GPU.
    on_device: Option<Tensor>,
}

impl Rows {
    fn of(dims: &[usize], indices: &IntArray, device: &Device) -> Result<Self> {
        let k = indices.dims().last().copied().unwrap_or(0);
        let places = places(TUPLES, indices, |at| dims[at % k])?;
        let inner: usize = dims[k..].iter().product();
        let all: usize = dims[..k].iter().product();
        let row = |t: &[i64]| t.iter().zip(dims).fold(0, |n, (&i, &d)| n * d + i as usize);
        let rows: Vec<usize> = places.chunks_exact(k).map(row).collect();
        // What divides the beginning and the length of every run of neighbours, and the rows of the data.
        let mut joined = all;
        let mut first = 0;
        for n in 1..=rows.len() {
            if n == rows.len() || rows[n] != rows[n - 1] + 1 {
                joined = gcd(gcd(joined, rows[first]), n - first);
                first = n;
            }
        }
        let joined = joined.max(1);
        let places: Vec<i64> = rows.iter().step_by(joined).map(|&r| (r / joined) as i64).collect();
        let (count, width) = (all / joined, inner * joined);
        let on_device = on_gpu(&places, device)?;
        Ok(Self { indices: indices.clone(), dims: dims.into(), count, width, places, on_device })
    }

    /// Whether every row is named once, in order.
    fn are_all(&self) -> bool {
        self.places.len() == self.count && self.places.iter().enumerate().all(|(n, &p)| p == n as i64)
    }
}

const fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

const ELEMENTS: &str = "ScatterElements";
const TUPLES: &str = "ScatterND";

const SLOTS: &[Slot] = &[Slot::Required("data"), Slot::Required("indices"), Slot::Required("updates")];

fn types<'a>(inputs: &[Option<&'a ValueType>]) -> Result<&'a ValueType, Fault> {
    let (x, i, u) = (given(inputs, 0)?, given(inputs, 1)?, given(inputs, 2)?);
    if !i.dtype.is_whole() && i.dtype != DType::U32 {
        return Err(Fault::Input(1, "whole numbers".into()));
    }
    if u.dtype != x.dtype {
        return Err(Fault::Input(2, format!("{}, as the data", x.dtype)));
    }
    Ok(x)
}

fn check_updates(operation: &'static str, s: &Scatter, call: &Call<'_>) -> Result<()> {
    let (wanted, got) = (s.updates(), call.data(2).dims());
    if got == wanted.dims() {
        return Ok(());
    }
    Err(bad(operation, "updates", format!("must be {wanted}, but they are {got:?}")))
}

fn run(
    data: &Data,
    call: &Call<'_>,
    operation: &'static str,
    (update, int): (Update, Option<Int>),
    geometry: impl Fn(&Shape, &Shape) -> Result<Scatter>,
    sizes: impl Fn(&[usize], usize) -> usize,
) -> Result<Outputs> {
    let indices = call.data(1);
    let host = match indices {
        Data::Ints(i) => Some(places(operation, i, |at| sizes(data.dims(), at))?),
        Data::Tensor(_) => None,
    };
    if product(indices.dims()) == 0 {
        return Ok(one(data.clone()));
    }
    let s = geometry(&shape(operation, data.dims())?, &shape(operation, indices.dims())?)?;
    check_updates(operation, &s, call)?;
    if let (Data::Ints(x), Some(places), Data::Ints(u)) = (data, &host, call.data(2)) {
        let mut out = x.data().to_vec();
        let place = |at: usize, _: usize| Some(places[at] as usize);
        let wrap = |v: i64| int.map_or(v, |int| int.wrap(v));
        s.update(place, u.data(), &mut out, |old, new| match update {
            Update::Replace => new,
            Update::Add => wrap(old.wrapping_add(new)),
            Update::Mul => wrap(old.wrapping_mul(new)),
            Update::Max => old.max(new),
            Update::Min => old.min(new),
        });
        return Ok(one(IntArray::new(x.dims(), out)));
    }
    let (x, u) = (data.to_f32(call.device)?, call.floats(2)?);
    let indices = match (&host, indices) {
        (Some(places), _) => Indices::Host(places),
        (None, Data::Tensor(t)) => Indices::Device(t),
        _ => unreachable!("whole numbers have their places"),
    };
    Ok(one(x.scatter(&s, indices, &u, update)?))
}

/// A tensor as f32.
fn into_f32(t: Tensor) -> Result<Tensor> {
    if t.dtype() == DType::F32 { Ok(t) } else { Ok(Data::from(t.clone()).to_f32(&t.device())?.into_owned()) }
}

/// What an update makes of an element in f64.
fn updated(update: Update, old: f64, new: f64) -> f64 {
    match update {
        Update::Replace => new,
        Update::Add => old + new,
        Update::Mul => old * new,
        Update::Max => old.max(new),
        Update::Min => old.min(new),
    }
}

/// Adds the gradients of data and updates, by the same scatter that replaces, and its look-up.
fn gradient<S, T>(g: &mut Gradients<'_>, update: Update, replace: S, gather: T) -> crate::Result<()>
where
    S: Operator + Copy + 'static,
    T: Operator + Copy + 'static,
{
    let (dy, data, indices, updates) = (g.of_only_output(), g.input(0), g.input(1), g.input(2));
    if !matches!(update, Update::Add | Update::Replace) {
        return Err(g.missing(&format!("{update:?} of what meets has none")));
    }
    if g.wants(0) {
        let d = if update == Update::Add {
            dy
        } else {
            let zeros = g.zeros_like(updates)?;
            g.node(replace, &[dy, indices, zeros])?
        };
        g.give(0, d);
    }
    if !g.wants(2) {
        return Ok(());
    }
    let mut d = g.node(gather, &[dy, indices])?;
    if update == Update::Replace {
        // Of updates that meet the last one stays: numbers that were scattered in the same way tell which.
        if g.kind(updates).unranked {
            return Err(g.missing("the number of dimensions of the updates is not known before a run"));
        }
        let (zero, one, all, first) = (g.number(0.0)?, g.number(1.0)?, g.whole(&[-1])?, g.whole(&[0])?);
        let ones = g.node(ExpandLike, &[one, updates])?;
        let ones = g.node(ReshapeTo::default(), &[ones, all])?;
        let numbers = g.node(CumSum { exclusive: false, reverse: false, int: None }, &[ones, first])?;
        let like = Reshape((0..g.kind(updates).rank()).map(Extent::Like).collect());
        let numbers = g.node(like, &[numbers, updates])?;
        let zeros = g.zeros_like(data)?;
        let last = g.node(replace, &[zeros, indices, numbers])?;
        let last = g.node(gather, &[last, indices])?;
        let stays = g.node(Binary::Equal, &[last, numbers])?;
        d = g.node(Where, &[stays, d, zero])?;
    }
    g.give(2, d);
    Ok(())
}

impl Operator for ScatterElements {
    fn name(&self) -> &'static str {
        ELEMENTS
    }
    fn slots(&self) -> &[Slot] {
        SLOTS
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let x = types(inputs)?;
        if x.unranked {
            return Ok(vec![x.clone()]);
        }
        axis_of(ELEMENTS, self.axis, x.rank()).map_err(fault)?;
        let i = given(inputs, 1)?;
        if !i.unranked && i.rank() != x.rank() {
            return Err(Fault::Input(1, format!("of as many dimensions as {x}")));
        }
        Ok(vec![x.with_dims(x.dims.clone())])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let axis = axis_of(ELEMENTS, self.axis, call.data(0).dims().len())?;
        run(
            call.data(0),
            call,
            ELEMENTS,
            (self.update, self.int),
            |x, i| Scatter::elements(x, axis, i),
            |dims, _| dims[axis],
        )
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (x, indices, updates) = (array(inputs, 0), array(inputs, 1), array(inputs, 2));
        let axis = from_start(self.axis, x.dims.len());
        let mut y = x.clone();
        let flat = |dims: &[usize], at: &[usize]| dims.iter().zip(at).fold(0, |n, (&d, &i)| n * d + i);
        Array::from_fn(&indices.dims, |i| {
            let (mut at, index) = (i.to_vec(), indices.data[flat(&indices.dims, i)]);
            at[axis] = from_start(index as i64, x.dims[axis]);
            let goal = flat(&x.dims, &at);
            y.data[goal] = updated(self.update, y.data[goal], updates.data[flat(&updates.dims, i)]);
            0.0
        });
        vec![Some(y)]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let replace = Self { axis: self.axis, update: Update::Replace, int: None };
        gradient(g, self.update, replace, GatherElements { axis: self.axis })
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Operator for ScatterTuples {
    fn name(&self) -> &'static str {
        TUPLES
    }
    fn slots(&self) -> &[Slot] {
        SLOTS
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let x = types(inputs)?;
        let i = given(inputs, 1)?;
        if !x.unranked && !i.unranked {
            let k = i.dims.last().map(Dim::size);
            if k.is_none_or(|k| k.is_some_and(|k| k > x.rank() || k == 0)) {
                return Err(Fault::Input(1, format!("[…, n] with at most as many indices as {x} has axes")));
            }
        }
        Ok(vec![if x.unranked { x.clone() } else { x.with_dims(x.dims.clone()) }])
    }
    fn reuses_first(&self) -> bool {
        true
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let data = call.take_first().unwrap_or_else(|| call.data(0).clone());
        let dims: Sizes = data.dims().into();
        let (rank, k) = (dims.len(), call.data(1).dims().last().copied().unwrap_or(0));
        if k == 0 || k > rank {
            let message = format!("must be tuples of 1 to {rank} indices, but they are {:?}", call.data(1).dims());
            return Err(bad(TUPLES, "indices", message));
        }
        match (data, call.data(1)) {
            (Data::Tensor(data), Data::Ints(indices)) if product(indices.dims()) > 0 => {
                let s = Scatter::tuples(&shape(TUPLES, &dims)?, &shape(TUPLES, indices.dims())?)?;
                check_updates(TUPLES, &s, call)?;
                let rows = call.kept(
                    |r: &Rows| r.indices.is_same(indices) && r.dims == dims,
                    || Rows::of(&dims, indices, call.device),
                )?;
                let u = call.floats(2)?;
                if self.update == Update::Replace && rows.are_all() {
                    return Ok(one(u.reshape(&dims)?));
                }
                let x = into_f32(data)?.into_shape(&[rows.count, rows.width])?;
                let u = u.reshape(&[rows.places.len(), rows.width])?;
                let s = Scatter::tuples(x.shape(), &shape(TUPLES, &[rows.places.len(), 1])?)?;
                let indices = rows.on_device.as_ref().map_or(Indices::Host(&rows.places), Indices::Device);
                Ok(one(x.scatter_into(&s, indices, &u, self.update)?.into_shape(&dims)?))
            }
            (data, _) => run(&data, call, TUPLES, (self.update, self.int), Scatter::tuples, |dims, at| dims[at % k]),
        }
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (x, indices, updates) = (array(inputs, 0), array(inputs, 1), array(inputs, 2));
        let k = indices.last();
        let run: usize = x.dims[k..].iter().product();
        let mut y = x.clone();
        for (tuple, slice) in whole(indices).chunks_exact(k).zip(updates.data.chunks_exact(run)) {
            let row = tuple.iter().zip(&x.dims).fold(0, |n, (&i, &d)| n * d + from_start(i, d));
            for (old, &new) in y.data[row * run..][..run].iter_mut().zip(slice) {
                *old = updated(self.update, *old, new);
            }
        }
        vec![Some(y)]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        gradient(g, self.update, Self::new(Update::Replace, None), GatherTuples { batch_dims: 0 })
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
