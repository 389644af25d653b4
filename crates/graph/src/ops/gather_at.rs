//! Elements by indices: `Gather`, `GatherElements`, `GatherND`.

use super::moves::{
    Elements, Fill, Sizes, Sketch, along, are_even, axis_of, bad, fault, from_start, known, product, shape,
};
use super::prelude::*;
use crate::operator::given;
use crate::{Data, IntArray};
use recurve_tensor::{Device, Indices, Take};

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
    fn as_any(&self) -> &dyn Any {
        self
    }
}
