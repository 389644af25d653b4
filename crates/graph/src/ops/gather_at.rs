//! Elements by indices: `Gather`, `GatherElements`, `GatherND`.

use super::ScatterElements;
use super::moves::{
    Elements, Fill, Sizes, Sketch, along, are_even, axis_of, bad, fault, from_start, known, product, shape,
};
use super::prelude::*;
use crate::operator::given;
use crate::{Data, IntArray};
use recurve_tensor::{Device, Indices, Take, Update};

/// Indices in host memory as places, the negative ones from the end. `sizes` gives the size of the axis of an index
/// by its place among the indices.
pub(super) fn places(operation: &'static str, indices: &IntArray, sizes: impl Fn(usize) -> usize) -> Result<Vec<i64>> {
    let place = |(at, &i): (usize, &i64)| {
        let size = sizes(at) as i64;
        if i >= -size && i < size {
            return Ok(if i < 0 { i + size } else { i });
        }
        let message = format!("must be from -{size} to {}, but element {at} is {i}", size - 1);
        Err(bad(operation, "indices", message))
    };
    indices.data().iter().enumerate().map(place).collect()
}

/// Places on a device that is a GPU, where tables are kept too.
pub(super) fn on_gpu(places: &[i64], device: &Device) -> Result<Option<Tensor>> {
    match device {
        Device::Cpu => Ok(None),
        Device::Gpu(_) => Tensor::from_i64(places, &[places.len()], device).map(Some),
    }
}

/// The places of indices, as a node keeps them from run to run.
struct Table {
    indices: IntArray,
    size: usize,
    places: Vec<i64>,
    on_device: Option<Tensor>,
}

/// The result of a look-up whose indices are on the device; those that are outside give NaN.
fn on_device(
    call: &Call<'_>,
    take: impl Fn(&recurve_tensor::Shape, &recurve_tensor::Shape) -> Result<Take>,
) -> Result<Outputs> {
    let indices = call.data(1).as_tensor().expect("asked for");
    let data = match call.data(0) {
        Data::Tensor(t) => std::borrow::Cow::Borrowed(t),
        Data::Ints(_) => call.floats(0)?,
    };
    let fill = if data.dtype() == DType::U32 { 0.0 } else { f32::NAN };
    Ok(one(data.take(&take(data.shape(), indices.shape())?, Indices::Device(indices), fill)?))
}

/// Checks the types of data and indices.
fn operands<'a>(inputs: &[Option<&'a ValueType>]) -> Result<(&'a ValueType, &'a ValueType), Fault> {
    let (x, i) = (given(inputs, 0)?, given(inputs, 1)?);
    if !i.dtype.is_whole() && i.dtype != DType::U32 {
        return Err(Fault::Input(1, "whole numbers".into()));
    }
    Ok((x, i))
}

/// Slices of `data` along an axis by indices of any dimensions, which take the place of the axis. Negative indices
/// count from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatherAt {
    /// The axis, from the end if it is negative.
    pub axis: i64,
}

const GATHER: &str = "Gather";

impl GatherAt {
    fn gather<E: Elements>(self, x: &E, indices: &IntArray) -> Result<E> {
        let axis = axis_of(GATHER, self.axis, x.dims().len())?;
        let size = x.dims()[axis];
        along(GATHER, x, axis, (&places(GATHER, indices, |_| size)?, indices.dims()), Fill::ZERO)
    }

    /// The same of a tensor, by places that are kept.
    fn of_tensor(self, call: &Call<'_>, x: &Tensor, indices: &IntArray) -> Result<Data> {
        let axis = axis_of(GATHER, self.axis, x.dims().len())?;
        let size = x.dims()[axis];
        let table = call.kept(
            |t: &Table| t.size == size && t.indices.is_same(indices),
            || {
                let places = places(GATHER, indices, |_| size)?;
                let on_device = if are_even(&places) { None } else { on_gpu(&places, call.device)? };
                Ok(Table { indices: indices.clone(), size, places, on_device })
            },
        )?;
        match &table.on_device {
            None => along(GATHER, call.data(0), axis, (&table.places, indices.dims()), Fill::ZERO),
            Some(places) => {
                let take = Take::along(x.shape(), axis, &shape(GATHER, indices.dims())?)?;
                Ok(x.take(&take, Indices::Device(places), 0.0)?.into())
            }
        }
    }
}

impl Operator for GatherAt {
    fn name(&self) -> &'static str {
        GATHER
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("data"), Slot::Required("indices")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let (x, i) = operands(inputs)?;
        if let (Some(sketch), Some(indices)) = (Sketch::of(x), known(i)) {
            return Ok(vec![self.gather(&sketch, &indices).map_err(fault)?.kind(x.dtype)]);
        }
        if x.unranked || i.unranked {
            return Ok(vec![ValueType::unranked(x.dtype)]);
        }
        let axis = axis_of(GATHER, self.axis, x.rank()).map_err(fault)?;
        let dims = x.dims[..axis].iter().chain(&i.dims).chain(&x.dims[axis + 1..]).cloned().collect();
        Ok(vec![x.with_dims(dims)])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        match (call.data(0), call.data(1)) {
            (Data::Tensor(x), Data::Ints(i)) if product(i.dims()) > 0 => Ok(one(self.of_tensor(call, x, i)?)),
            (x, Data::Ints(i)) => Ok(one(self.gather(x, i)?)),
            (_, Data::Tensor(_)) => on_device(call, |x, i| Take::along(x, axis_of(GATHER, self.axis, x.rank())?, i)),
        }
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (x, indices) = (array(inputs, 0), array(inputs, 1));
        let axis = from_start(self.axis, x.dims.len());
        let dims = [&x.dims[..axis], &indices.dims, &x.dims[axis + 1..]].concat();
        let q = indices.dims.len();
        vec![Some(Array::from_fn(&dims, |i| {
            let index = indices.at(&i[axis..axis + q]);
            let index = from_start(index as i64, x.dims[axis]);
            x.at(&[&i[..axis], &[index], &i[axis + q..]].concat())
        }))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (dy, x, indices) = (g.of_only_output(), g.input(0), g.input(1));
        let dx = g.node(SumAlong { axis: self.axis }, &[dy, indices, x])?;
        g.give(0, dx);
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Elements of `data`, each at the place of its index but along an axis, where the index says. Negative indices count
/// from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatherElements {
    /// The axis, from the end if it is negative.
    pub axis: i64,
}

const ELEMENTS: &str = "GatherElements";

impl GatherElements {
    fn gather<E: Elements>(self, x: &E, indices: &IntArray) -> Result<E> {
        let axis = axis_of(ELEMENTS, self.axis, x.dims().len())?;
        if product(indices.dims()) == 0 {
            return x.empty(ELEMENTS, indices.dims());
        }
        let size = x.dims()[axis];
        let take = Take::elements(&shape(ELEMENTS, x.dims())?, axis, &shape(ELEMENTS, indices.dims())?)?;
        x.taken(ELEMENTS, &take, &places(ELEMENTS, indices, |_| size)?, Fill::ZERO)
    }
}

impl Operator for GatherElements {
    fn name(&self) -> &'static str {
        ELEMENTS
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("data"), Slot::Required("indices")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let (x, i) = operands(inputs)?;
        if let (Some(sketch), Some(indices)) = (Sketch::of(x), known(i)) {
            return Ok(vec![self.gather(&sketch, &indices).map_err(fault)?.kind(x.dtype)]);
        }
        if !x.unranked && !i.unranked {
            axis_of(ELEMENTS, self.axis, x.rank()).map_err(fault)?;
            if x.rank() != i.rank() {
                return Err(Fault::Input(1, format!("of as many dimensions as {x}")));
            }
        }
        Ok(vec![if i.unranked { ValueType::unranked(x.dtype) } else { x.with_dims(i.dims.clone()) }])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        match call.data(1) {
            Data::Ints(i) => Ok(one(self.gather(call.data(0), i)?)),
            Data::Tensor(_) => on_device(call, |x, i| Take::elements(x, axis_of(ELEMENTS, self.axis, x.rank())?, i)),
        }
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (x, indices) = (array(inputs, 0), array(inputs, 1));
        let axis = from_start(self.axis, x.dims.len());
        vec![Some(Array::from_fn(&indices.dims, |i| {
            let (mut at, index) = (i.to_vec(), indices.at(i));
            at[axis] = from_start(index as i64, x.dims[axis]);
            x.at(&at)
        }))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (dy, x, indices) = (g.of_only_output(), g.input(0), g.input(1));
        let zeros = g.zeros_like(x)?;
        let add = ScatterElements { axis: self.axis, update: Update::Add, int: None };
        let dx = g.node(add, &[zeros, indices, dy])?;
        g.give(0, dx);
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Slices of `data` by tuples of indices, the last dimension of the indices, into the axes behind the first
/// `batch_dims`, which both have in common. Negative indices count from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatherTuples {
    /// Axes in common.
    pub batch_dims: usize,
}

const TUPLES: &str = "GatherND";

impl GatherTuples {
    fn gather<E: Elements>(self, x: &E, indices: &IntArray) -> Result<E> {
        let (b, q) = (self.batch_dims, indices.dims().len());
        let k = indices.dims().last().copied().unwrap_or(0);
        let dims = x.dims();
        if q == 0 || b >= q || b + k > dims.len() || dims[..b] != indices.dims()[..b] {
            let message = format!("of {:?} do not fit data of {dims:?} with {b} axes in common", indices.dims());
            return Err(bad(TUPLES, "indices", message));
        }
        let result: Sizes = indices.dims()[..q - 1].iter().chain(&dims[b + k..]).copied().collect();
        if result.contains(&0) {
            return x.empty(TUPLES, &result);
        }
        if k == 0 {
            return Err(bad(TUPLES, "indices", "must have at least one index in a tuple"));
        }
        let sizes: Sizes = dims[b..b + k].into();
        let take = Take::tuples(&shape(TUPLES, dims)?, b, &shape(TUPLES, indices.dims())?)?;
        x.taken(TUPLES, &take, &places(TUPLES, indices, |at| sizes[at % k])?, Fill::ZERO)
    }
}

impl Operator for GatherTuples {
    fn name(&self) -> &'static str {
        TUPLES
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("data"), Slot::Required("indices")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let (x, i) = operands(inputs)?;
        if let (Some(sketch), Some(indices)) = (Sketch::of(x), known(i)) {
            return Ok(vec![self.gather(&sketch, &indices).map_err(fault)?.kind(x.dtype)]);
        }
        let (Some((last, outer)), false, false) = (i.dims.split_last(), x.unranked, i.unranked) else {
            return Ok(vec![ValueType::unranked(x.dtype)]);
        };
        let Some(k) = last.size() else { return Ok(vec![ValueType::unranked(x.dtype)]) };
        let Some(rest) = self.batch_dims.checked_add(k).and_then(|n| x.dims.get(n..)) else {
            return Err(Fault::Input(1, format!("of at most as many indices in a tuple as {x} has axes")));
        };
        Ok(vec![x.with_dims(outer.iter().chain(rest).cloned().collect())])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        match call.data(1) {
            Data::Ints(i) => Ok(one(self.gather(call.data(0), i)?)),
            Data::Tensor(_) => on_device(call, |x, i| Take::tuples(x, self.batch_dims, i)),
        }
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (x, indices) = (array(inputs, 0), array(inputs, 1));
        let (b, q, k) = (self.batch_dims, indices.dims.len(), indices.last());
        let dims = [&indices.dims[..q - 1], &x.dims[b + k..]].concat();
        vec![Some(Array::from_fn(&dims, |i| {
            let mut at = i[..b].to_vec();
            for n in 0..k {
                let index = indices.at(&[&i[..q - 1], &[n]].concat());
                at.push(from_start(index as i64, x.dims[b + n]));
            }
            at.extend(&i[q - 1..]);
            x.at(&at)
        }))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (dy, x, indices) = (g.of_only_output(), g.input(0), g.input(1));
        let dx = g.node(SumTuples { batch_dims: self.batch_dims }, &[dy, indices, x])?;
        g.give(0, dx);
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The gradient of the data of a [`GatherAt`]: slices of `dy` added where they were taken from, in order, so that the
/// same indices give the same bits. Inputs: `dy`, the indices, and the data, of which only the shape matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SumAlong {
    /// The axis of the data, from the end if it is negative.
    pub axis: i64,
}

/// The gradient of the data of a [`GatherTuples`], as [`SumAlong`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SumTuples {
    /// Axes in common.
    pub batch_dims: usize,
}

const SUM_SLOTS: [Slot; 3] = [Slot::Required("dy"), Slot::Required("indices"), Slot::Required("like")];

impl Operator for SumAlong {
    fn name(&self) -> &'static str {
        "SumAlong"
    }
    fn slots(&self) -> &[Slot] {
        &SUM_SLOTS
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        super::like::like(inputs, 2)
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let (dy, like) = (call.input(0), call.data(2).dims());
        let axis = axis_of("SumAlong", self.axis, like.len())?;
        let size = like[axis];
        let table;
        let ids = match call.data(1) {
            Data::Tensor(t) if t.dtype() == DType::U32 => t,
            _ => {
                let indices = call.ints(1)?;
                table = call.kept(
                    |t: &Table| t.size == size && t.indices.is_same(&indices),
                    || {
                        let places = places("SumAlong", &indices, |_| size)?;
                        let ids = Tensor::from_i64(&places, &[places.len()], call.device)?;
                        Ok(Table { indices: indices.clone(), size, places: Vec::new(), on_device: Some(ids) })
                    },
                )?;
                table.on_device.as_ref().expect("made above")
            }
        };
        let [outer, inner] = [product(&like[..axis]), product(&like[axis + 1..])];
        let rows = dy.reshape(&[outer, ids.shape().count(), inner])?;
        Ok(one(super::moves::sum_along(&rows, ids, size)?.reshape(like)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let [dy, indices, like] = [0, 1, 2].map(|n| array(inputs, n));
        let axis = if self.axis < 0 { self.axis + like.dims.len() as i64 } else { self.axis } as usize;
        let (size, inner) = (like.dims[axis], product(&like.dims[axis + 1..]));
        let mut out = Array::from_fn(&like.dims, |_| 0.0);
        for (n, row) in dy.data.chunks_exact(inner).enumerate() {
            let (outer, index) = (n / indices.data.len(), indices.data[n % indices.data.len()]);
            let index = if index < 0.0 { index + size as f64 } else { index } as usize;
            let place = (outer * size + index) * inner;
            out.data[place..place + inner].iter_mut().zip(row).for_each(|(o, v)| *o += v);
        }
        vec![Some(out)]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (dy, indices) = (g.of_only_output(), g.input(1));
        let d = g.node(GatherAt { axis: self.axis }, &[dy, indices])?;
        g.give(0, d);
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Operator for SumTuples {
    fn name(&self) -> &'static str {
        "SumTuples"
    }
    fn slots(&self) -> &[Slot] {
        &SUM_SLOTS
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        super::like::like(inputs, 2)
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let (dy, dims, b) = (call.input(0), call.data(2).dims(), self.batch_dims);
        let indices = call.ints(1)?;
        let k = indices.dims().last().copied().unwrap_or(0);
        if k == 0 || b + k > dims.len() || b >= indices.dims().len() || dims[..b] != indices.dims()[..b] {
            let message = format!("of {:?} do not fit data of {dims:?} with {b} axes in common", indices.dims());
            return Err(bad("SumTuples", "indices", message));
        }
        let sizes = &dims[b..b + k];
        let places = places("SumTuples", &indices, |at| sizes[at % k])?;
        let of_batch = places.len() / k / product(&dims[..b]).max(1);
        let row = |(n, tuple): (usize, &[i64])| {
            let batch = (n / of_batch.max(1)) as i64;
            tuple.iter().zip(sizes).fold(batch, |row, (&i, &d)| row * d as i64 + i)
        };
        let rows: Vec<i64> = places.chunks_exact(k).enumerate().map(row).collect();
        let ids = Tensor::from_i64(&rows, &[rows.len()], call.device)?;
        let dy = dy.reshape(&[1, rows.len(), product(&dims[b + k..])])?;
        Ok(one(super::moves::sum_along(&dy, &ids, product(&dims[..b + k]))?.reshape(dims)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let [dy, indices, like] = [0, 1, 2].map(|n| array(inputs, n));
        let (b, q, k) = (self.batch_dims, indices.dims.len(), indices.last());
        let mut out = Array::from_fn(&like.dims, |_| 0.0);
        super::window::each(&dy.dims, |i| {
            let mut at = i[..b].to_vec();
            for n in 0..k {
                let index = indices.at(&[&i[..q - 1], &[n]].concat());
                at.push(if index < 0.0 { index + like.dims[b + n] as f64 } else { index } as usize);
            }
            at.extend(&i[q - 1..]);
            let place = at.iter().zip(&like.dims).fold(0, |n, (&i, &d)| n * d + i);
            out.data[place] += dy.at(i);
        });
        vec![Some(out)]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (dy, indices) = (g.of_only_output(), g.input(1));
        let d = g.node(GatherTuples { batch_dims: self.batch_dims }, &[dy, indices])?;
        g.give(0, d);
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
