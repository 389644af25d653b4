//! The largest elements and their places: `TopK`, `ArgMax`, `ArgMin`.

use super::moves::{Elements, axis_of, bad, fault, from_start, permuted, product, whole};
use super::prelude::*;
use crate::operator::given;
use crate::{Data, Element, Int, IntArray};
use core::cmp::Ordering;
use recurve_tensor::Extreme;

/// The largest or the smallest elements along an axis, in order, as many as the second input says, and their places.
/// Of equal ones the first comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopK {
    /// The axis, from the end if it is negative.
    pub axis: i64,
    /// The largest.
    pub largest: bool,
}

const TOP_K: &str = "TopK";

/// Axes with one of them last, and in their own order again: the same axes, for the two change places.
fn last(axis: usize, rank: usize) -> Vec<usize> {
    let mut axes: Vec<usize> = (0..rank).collect();
    axes.swap(axis, rank - 1);
    axes
}

impl Operator for TopK {
    fn name(&self) -> &'static str {
        TOP_K
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("X"), Slot::Required("K")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let (x, k) = (given(inputs, 0)?, given(inputs, 1)?);
        if !k.dtype.is_whole() {
            return Err(Fault::Input(1, "whole numbers".into()));
        }
        let places = Element::Int(Int::I64);
        if x.unranked {
            return Ok(vec![ValueType::unranked(x.dtype), ValueType::unranked(places)]);
        }
        let axis = axis_of(TOP_K, self.axis, x.rank()).map_err(fault)?;
        let mut dims = x.dims.clone();
        dims[axis] = match k.content().as_deref() {
            Some(&[k]) => {
                let fits = |k: &usize| x.dims[axis].size().is_none_or(|n| *k <= n);
                let message = || Fault::Attribute("k", format!("must be 0 to {}, but it is {k}", x.dims[axis]));
                Dim::Size(usize::try_from(k).ok().filter(fits).ok_or_else(message)?)
            }
            _ => Dim::Any,
        };
        Ok(vec![x.with_dims(dims.clone()), ValueType::new(places, dims)])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let x = call.data(0);
        let rank = x.dims().len();
        let axis = axis_of(TOP_K, self.axis, rank)?;
        let k = call.ints(1)?;
        let size = x.dims()[axis];
        let wanted = match k.data() {
            &[k] => usize::try_from(k).ok().filter(|&k| k <= size),
            _ => None,
        };
        let message = || format!("must be one number from 0 to {size}, the size of the axis, but it is {:?}", k.data());
        let k = wanted.ok_or_else(|| bad(TOP_K, "k", message()))?;
        let mut dims = x.dims().to_vec();
        dims[axis] = k;
        if product(&dims) == 0 {
            let places: Data = IntArray::new(&dims, []).into();
            return Ok(smallvec::smallvec![Some(x.empty(TOP_K, &dims)?), Some(places)]);
        }
        let (moved, axes) = (axis + 1 < rank, last(axis, rank));
        let turned = if moved { permuted(TOP_K, x, &axes)? } else { x.clone() };
        let (values, places): (Data, Data) = match &turned {
            Data::Tensor(_) => {
                let (values, places) = turned.to_f32(call.device)?.top_k(k, self.largest)?;
                (values.into(), places.into())
            }
            Data::Ints(i) => {
                let (mut values, mut places) = (Vec::new(), Vec::new());
                for row in i.data().chunks_exact(size) {
                    let mut order: Vec<usize> = (0..size).collect();
                    // Sorting keeps the order of equal ones.
                    order.sort_by(|&a, &b| if self.largest { row[b].cmp(&row[a]) } else { row[a].cmp(&row[b]) });
                    values.extend(order[..k].iter().map(|&i| row[i]));
                    places.extend(order[..k].iter().map(|&i| i as i64));
                }
                let mut dims = i.dims().to_vec();
                dims[rank - 1] = k;
                (IntArray::new(&dims, values).into(), IntArray::new(&dims, places).into())
            }
        };
        let back = |d: Data| if moved { permuted(TOP_K, &d, &axes) } else { Ok(d) };
        Ok(smallvec::smallvec![Some(back(values)?), Some(back(places)?)])
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (x, k) = (array(inputs, 0), whole(array(inputs, 1))[0] as usize);
        let axis = from_start(self.axis, x.dims.len());
        let mut dims = x.dims.clone();
        dims[axis] = k;
        let best = |i: &[usize]| {
            let mut at = i.to_vec();
            let mut line: Vec<(usize, f64)> = (0..x.dims[axis])
                .map(|n| {
                    at[axis] = n;
                    (n, x.at(&at))
                })
                .collect();
            line.sort_by(|a, b| {
                let order = a.1.partial_cmp(&b.1).unwrap_or(Ordering::Equal);
                if self.largest { order.reverse() } else { order }
            });
            line[i[axis]]
        };
        vec![Some(Array::from_fn(&dims, |i| best(i).1)), Some(Array::from_fn(&dims, |i| best(i).0 as f64))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let Some(dy) = g.of_output(0) else { return Ok(()) };
        let (x, k) = (g.input(0), g.input(1));
        let places = if g.outputs() > 1 { g.output(1) } else { g.nodes(*self, &[Some(x), Some(k)], 2)?[1] };
        let zeros = g.zeros_like(x)?;
        let add = super::ScatterElements { axis: self.axis, update: recurve_tensor::Update::Add, int: None };
        let dx = g.node(add, &[zeros, places, dy])?;
        g.give(0, dx);
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The place of the largest or the smallest element along an axis: the first, or the last, of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgExtreme {
    /// The axis, from the end if it is negative.
    pub axis: i64,
    /// Which element.
    pub which: Extreme,
    /// The axis stays, with size 1.
    pub keep: bool,
}

impl Operator for ArgExtreme {
    fn name(&self) -> &'static str {
        if self.which.smallest { "ArgMin" } else { "ArgMax" }
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("data")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let x = given(inputs, 0)?;
        let places = Element::Int(Int::I64);
        if x.unranked {
            return Ok(vec![ValueType::unranked(places)]);
        }
        let axis = axis_of(self.name(), self.axis, x.rank()).map_err(fault)?;
        let mut dims = x.dims.clone();
        dims[axis] = Dim::Size(1);
        if !self.keep {
            dims.remove(axis);
        }
        Ok(vec![ValueType::new(places, dims)])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let x = call.data(0);
        let name = self.name();
        let axis = axis_of(name, self.axis, x.dims().len())?;
        let mut dims = x.dims().to_vec();
        if core::mem::replace(&mut dims[axis], 1) == 0 {
            return Err(bad(name, "data", "has no elements along the axis"));
        }
        let places: Data = match x {
            Data::Tensor(_) => call.floats(0)?.arg_extreme(axis, self.which)?.into(),
            Data::Ints(i) => {
                let (len, inner) = (i.dims()[axis], product(&i.dims()[axis + 1..]));
                let place = |line: usize| {
                    let base = line / inner * len * inner + line % inner;
                    let mut best = 0;
                    for n in 1..len {
                        let (v, highest) = (i.data()[base + n * inner], i.data()[base + best * inner]);
                        let order = if self.which.smallest { highest.cmp(&v) } else { v.cmp(&highest) };
                        if order == Ordering::Greater || (order == Ordering::Equal && self.which.last) {
                            best = n;
                        }
                    }
                    best as i64
                };
                IntArray::new(&dims, (0..product(&dims)).map(place).collect::<Vec<_>>()).into()
            }
        };
        if !self.keep {
            dims.remove(axis);
        }
        Ok(one(places.reshaped(name, &dims)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let axis = from_start(self.axis, x.dims.len());
        let mut dims = x.dims.clone();
        dims[axis] = 1;
        let places = Array::from_fn(&dims, |i| {
            let mut at = i.to_vec();
            let line: Vec<f64> = (0..x.dims[axis])
                .map(|n| {
                    at[axis] = n;
                    x.at(&at)
                })
                .collect();
            let best = line.iter().copied().fold(line[0], if self.which.smallest { f64::min } else { f64::max });
            let found = if self.which.last {
                line.iter().rposition(|&v| v == best)
            } else {
                line.iter().position(|&v| v == best)
            };
            found.expect("one of them") as f64
        });
        if !self.keep {
            dims.remove(axis);
        }
        vec![Some(places.reshaped(&dims))]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
