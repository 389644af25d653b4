//! What a condition chooses, and where something is not zero: shapes that depend on values.

use super::moves::{Elements, Fill, Moves, Numbers, along, axis_of, bad, fault, moves, number, product, whole};
use super::prelude::*;
use super::{ReshapeTo, SumAlong};
use crate::operator::given;
use crate::{Data, Element, Int, IntArray};

/// The slices of `x` along an axis, or without one its elements, for which the second input is not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compress {
    /// The axis, from the end if it is negative.
    pub axis: Option<i64>,
}

const COMPRESS: &str = "Compress";

impl Moves for Compress {
    fn moved<E: Elements>(&self, x: &E, numbers: &Numbers) -> Result<E> {
        let (x, axis) = match self.axis {
            Some(axis) => (x.clone(), axis_of(COMPRESS, axis, x.dims().len())?),
            None => (x.reshaped(COMPRESS, &[product(x.dims())])?, 0),
        };
        let condition = number(numbers, 1).data();
        let places: Vec<i64> = (0..condition.len()).filter(|&i| condition[i] != 0).map(|i| i as i64).collect();
        if let Some(&beyond) = places.last().filter(|&&p| p >= x.dims()[axis] as i64) {
            let message = format!("chooses element {beyond} of {}", x.dims()[axis]);
            return Err(bad(COMPRESS, "condition", message));
        }
        along(COMPRESS, &x, axis, (&places, &[places.len()]), Fill::ZERO)
    }
    fn open(&self, x: &ValueType, _: &[Option<&ValueType>]) -> Result<ValueType, Fault> {
        let Some(axis) = self.axis else { return Ok(x.with_dims(vec![Dim::Any])) };
        if x.unranked {
            return Ok(ValueType::unranked(x.dtype));
        }
        let mut dims = x.dims.clone();
        dims[axis_of(COMPRESS, axis, x.rank()).map_err(fault)?] = Dim::Any;
        Ok(x.with_dims(dims))
    }
}

impl Operator for Compress {
    fn name(&self) -> &'static str {
        COMPRESS
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("input"), Slot::Required("condition")]
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let chosen: Vec<usize> =
            array(inputs, 1).data.iter().enumerate().filter(|(_, c)| **c != 0.0).map(|(i, _)| i).collect();
        let Some(axis) = self.axis else {
            return vec![Some(Array::new(&[chosen.len()], chosen.iter().map(|&i| x.data[i]).collect()))];
        };
        let axis = if axis < 0 { axis + x.dims.len() as i64 } else { axis } as usize;
        let mut dims = x.dims.clone();
        dims[axis] = chosen.len();
        vec![Some(Array::from_fn(&dims, |i| {
            let mut at = i.to_vec();
            at[axis] = chosen[at[axis]];
            x.at(&at)
        }))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (dy, x, condition) = (g.of_only_output(), g.input(0), g.input(1));
        let all = g.whole(&[-1])?;
        let places = g.node(NonZero, &[condition])?;
        let places = g.node(ReshapeTo::default(), &[places, all])?;
        let Some(axis) = self.axis else {
            let flat = g.node(ReshapeTo::default(), &[x, all])?;
            let dx = g.node(SumAlong { axis: 0 }, &[dy, places, flat])?;
            return g.give_reshaped(0, dx);
        };
        let dx = g.node(SumAlong { axis }, &[dy, places, x])?;
        g.give(0, dx);
        Ok(())
    }
    moves!();
}

/// The places of the elements that are not zero, in order: one dimension for each axis of `x`, and one for the
/// places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NonZero;

impl Operator for NonZero {
    fn name(&self) -> &'static str {
        "NonZero"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("X")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let x = given(inputs, 0)?;
        let rank = if x.unranked { Dim::Any } else { Dim::Size(x.rank().max(1)) };
        Ok(vec![ValueType::new(Element::Int(Int::I64), [rank, Dim::Any])])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        // A scalar is seen as one element along one dimension.
        let x = call.data(0);
        let dims = if x.dims().is_empty() { &[1][..] } else { x.dims() };
        let places: Vec<usize> = match x {
            Data::Ints(i) => (0..i.data().len()).filter(|&n| i.data()[n] != 0).collect(),
            Data::Tensor(t) if t.dtype() == DType::U32 => {
                let all = t.to_vec_u32()?;
                (0..all.len()).filter(|&n| all[n] != 0).collect()
            }
            Data::Tensor(t) => {
                let all = t.to_vec()?;
                (0..all.len()).filter(|&n| all[n] != 0.0).collect()
            }
        };
        let mut out = Vec::with_capacity(dims.len() * places.len());
        for axis in 0..dims.len() {
            let inner = product(&dims[axis + 1..]);
            out.extend(places.iter().map(|&p| (p / inner % dims[axis]) as i64));
        }
        Ok(one(IntArray::new(&[dims.len(), places.len()], out)))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let dims = if x.dims.is_empty() { vec![1] } else { x.dims.clone() };
        let mut found: Vec<Vec<f64>> = vec![Vec::new(); dims.len()];
        Array::from_fn(&dims, |i| {
            if x.at(i) != 0.0 {
                i.iter().zip(&mut found).for_each(|(&i, f)| f.push(i as f64));
            }
            0.0
        });
        vec![Some(Array::new(&[dims.len(), found[0].len()], found.concat()))]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Values at indices and another value elsewhere, along a new axis as long as `depth`. The third input has the value
/// elsewhere, then the one at indices. Negative indices count from the end; those that are outside are nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneHot {
    /// The new axis, from the end if it is negative.
    pub axis: i64,
}

const ONE_HOT: &str = "OneHot";

impl OneHot {
    fn axis(self, rank: usize) -> Result<usize> {
        axis_of(ONE_HOT, self.axis, rank + 1)
    }
}

impl Operator for OneHot {
    fn name(&self) -> &'static str {
        ONE_HOT
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("indices"), Slot::Required("depth"), Slot::Required("values")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let (x, depth, values) = (given(inputs, 0)?, given(inputs, 1)?, given(inputs, 2)?);
        if values.shape().is_some_and(|s| s != [2]) {
            return Err(Fault::Input(2, "two values".into()));
        }
        if x.unranked {
            return Ok(vec![ValueType::unranked(values.dtype)]);
        }
        let depth = match depth.content().as_deref() {
            Some(&[n]) => usize::try_from(n).ok().into(),
            _ => Dim::Any,
        };
        let mut dims = x.dims.clone();
        dims.insert(self.axis(x.rank()).map_err(fault)?, depth);
        Ok(vec![ValueType::new(values.dtype, dims)])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let indices = call.data(0);
        let axis = self.axis(indices.dims().len())?;
        let depth = call.ints(1)?;
        let depth = match depth.data() {
            &[n] => {
                usize::try_from(n).map_err(|_| bad(ONE_HOT, "depth", format!("must not be negative, but it is {n}")))
            }
            other => Err(bad(ONE_HOT, "depth", format!("must be one number, but it is {other:?}"))),
        }?;
        let values = call.data(2);
        if product(values.dims()) != 2 {
            return Err(bad(ONE_HOT, "values", format!("must be two, but they are {:?}", values.dims())));
        }
        let mut dims = indices.dims().to_vec();
        dims.insert(axis, depth);
        let count = super::moves::count(ONE_HOT, &dims)?;
        if count == 0 {
            return Ok(one(values.empty(ONE_HOT, &dims)?));
        }
        let values = values.reshaped(ONE_HOT, &[2])?;
        if let Data::Ints(i) = indices {
            let mut places = super::moves::room(ONE_HOT, count)?;
            let inner = product(&dims[axis + 1..]);
            for (n, &index) in i.data().iter().enumerate() {
                let index = if index < 0 { index.saturating_add(depth as i64) } else { index };
                if let Some(index) = usize::try_from(index).ok().filter(|&i| i < depth) {
                    places[(n / inner * depth + index) * inner + n % inner] = 1;
                }
            }
            return Ok(one(along(ONE_HOT, &values, 0, (&places, &dims), Fill::ZERO)?));
        }
        let values = values.to_f32(call.device)?;
        let zeros = vec![0; dims.len()];
        let off = values.strided(&dims, 0, &zeros)?;
        dims[axis] = 1;
        let at = indices.as_tensor().expect("not whole numbers of the host").reshape(&dims)?;
        let on = values.strided(&dims, 1, &zeros)?;
        let s = recurve_tensor::Scatter::elements(off.shape(), axis, at.shape())?;
        let indices = recurve_tensor::Indices::Device(&at);
        Ok(one(off.scatter(&s, indices, &on, recurve_tensor::Update::Replace)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (x, depth, values) = (array(inputs, 0), whole(array(inputs, 1))[0], array(inputs, 2));
        let rank = x.dims.len() as i64;
        let axis = if self.axis < 0 { self.axis + rank + 1 } else { self.axis } as usize;
        let mut dims = x.dims.clone();
        dims.insert(axis, depth as usize);
        vec![Some(Array::from_fn(&dims, |i| {
            let mut at = i.to_vec();
            let here = at.remove(axis) as i64;
            let index = x.at(&at) as i64;
            values.data[usize::from(index == here || index + depth == here)]
        }))]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
