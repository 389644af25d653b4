//! Values of numbers alone: `ConstantOfShape`, `Range`, `EyeLike`.

use super::moves::{bad, content, count, no_elements, partly, whole};
use super::prelude::*;
use crate::operator::given;
use crate::{Data, Element, IntArray};

/// Whole numbers, or floats, as an element type has them.
fn made(operation: &'static str, call: &Call<'_>, dtype: Element, dims: &[usize], data: Vec<f64>) -> Result<Outputs> {
    if dtype.is_whole() {
        return Ok(one(IntArray::new(dims, data.into_iter().map(|v| v as i64).collect::<Vec<_>>())));
    }
    if dims.contains(&0) {
        return Err(no_elements(operation, dims));
    }
    let data: Vec<f32> = data.into_iter().map(|v| v as f32).collect();
    Ok(one(Tensor::from_f32(&data, dims, call.device)?))
}

/// One number everywhere, in the dimensions that the input has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConstantOfShape {
    /// The element type.
    pub dtype: Element,
    /// The number, of floats.
    pub float: f32,
    /// The number, of whole numbers.
    pub int: i64,
}

const CONSTANT: &str = "ConstantOfShape";

impl Operator for ConstantOfShape {
    fn name(&self) -> &'static str {
        CONSTANT
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("input")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let shape = given(inputs, 0)?;
        if !shape.dtype.is_whole() {
            return Err(Fault::Input(0, "whole numbers".into()));
        }
        let Some(shape) = partly(inputs, 0) else { return Ok(vec![ValueType::unranked(self.dtype)]) };
        let dim = |d: &Option<i64>| match d.map(usize::try_from) {
            None => Ok(Dim::Any),
            Some(Ok(n)) => Ok(Dim::Size(n)),
            Some(Err(_)) => Err(Fault::Attribute("shape", format!("must be sizes, but it is {shape:?}"))),
        };
        let dims = shape.iter().map(dim).collect::<Result<Vec<_>, _>>()?;
        let known = match &dims[..] {
            [] => Some(1),
            [Dim::Size(n)] if *n <= 1024 => Some(*n),
            _ => None,
        };
        let known = known.filter(|_| self.dtype.is_whole()).map(|n| vec![Some(self.int); n]);
        Ok(vec![ValueType::new(self.dtype, dims).with_known(known)])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let shape = call.ints(0)?;
        let dims: Option<Vec<usize>> = shape.data().iter().map(|&d| usize::try_from(d).ok()).collect();
        let message = || bad(CONSTANT, "shape", format!("must be sizes, but it is {:?}", shape.data()));
        let dims = dims.ok_or_else(message)?;
        let n = count(CONSTANT, &dims)?;
        if self.dtype.is_whole() {
            let mut all = super::moves::room(CONSTANT, n)?;
            all.fill(self.int);
            return Ok(one(IntArray::new(&dims, all)));
        }
        if n == 0 {
            return Err(no_elements(CONSTANT, &dims));
        }
        Ok(one(Tensor::full(&dims, self.float, DType::F32, call.device)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let dims: Vec<usize> = whole(array(inputs, 0)).iter().map(|&d| d as usize).collect();
        let value = if self.dtype.is_whole() { self.int as f64 } else { self.float.into() };
        vec![Some(Array::from_fn(&dims, |_| value))]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The numbers from the first input on in steps of the third, before the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range;

const RANGE: &str = "Range";

/// Numbers of a range, at most: more is a mistake.
const MOST: i128 = 1 << 28;

/// How many whole numbers are in a range.
fn range_len(start: i64, limit: i64, delta: i64) -> Result<usize> {
    if delta == 0 {
        return Err(bad(RANGE, "delta", "must not be 0"));
    }
    let (distance, delta) = (i128::from(limit) - i128::from(start), i128::from(delta));
    let n = if (distance > 0) == (delta > 0) { (distance.abs() + delta.abs() - 1) / delta.abs() } else { 0 };
    if n > MOST {
        return Err(bad(RANGE, "limit", format!("is {n} numbers away, which are too many")));
    }
    Ok(n as usize)
}

impl Operator for Range {
    fn name(&self) -> &'static str {
        RANGE
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("start"), Slot::Required("limit"), Slot::Required("delta")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let dtype = given(inputs, 0)?.dtype;
        for i in 1..3 {
            if given(inputs, i)?.dtype != dtype {
                return Err(Fault::Input(i, format!("{dtype}, as the start")));
            }
        }
        let [start, limit, delta] = [0, 1, 2].map(|i| match content(inputs, i).as_deref() {
            Some(&[v]) => Some(v),
            _ => None,
        });
        let open = ValueType::new(dtype, [Dim::Any]);
        let (Some(start), Some(limit), Some(delta)) = (start, limit, delta) else { return Ok(vec![open]) };
        let n = range_len(start, limit, delta).map_err(super::moves::fault)?;
        let known = (n <= 1024).then(|| (0..n as i64).map(|i| Some(start + i * delta)).collect::<Vec<_>>());
        Ok(vec![ValueType::new(dtype, [n]).with_known(known)])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let one_number = |i: usize| bad(RANGE, ["start", "limit", "delta"][i], "must be one number");
        if let Some(ints) = call.all_ints() {
            let mut all = [0; 3];
            for (i, v) in all.iter_mut().enumerate() {
                *v = *ints[i].data().first().ok_or_else(|| one_number(i))?;
            }
            let [start, limit, delta] = all;
            let n = range_len(start, limit, delta)?;
            return Ok(one(IntArray::vector((0..n as i64).map(|i| start + i * delta).collect::<Vec<_>>())));
        }
        let mut all = [0.0; 3];
        for (i, v) in all.iter_mut().enumerate() {
            *v = call.floats(i)?.to_vec()?.first().copied().map(f64::from).ok_or_else(|| one_number(i))?;
        }
        let [start, limit, delta] = all;
        let n = ((limit - start) / delta).ceil();
        if !n.is_finite() || n > MOST as f64 {
            let message = format!("must divide the way from {start} to {limit}, but it is {delta}");
            return Err(bad(RANGE, "delta", message));
        }
        let n = n.max(0.0) as usize;
        if n == 0 {
            return Err(no_elements(RANGE, &[0]));
        }
        let data: Vec<f32> = (0..n).map(|i| (start + i as f64 * delta) as f32).collect();
        Ok(one(Tensor::from_f32(&data, &[n], call.device)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let [start, limit, delta] = [0, 1, 2].map(|i| array(inputs, i).data[0]);
        let n = ((limit - start) / delta).ceil().max(0.0) as usize;
        vec![Some(Array::new(&[n], (0..n).map(|i| start + i as f64 * delta).collect()))]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Ones on a diagonal and zeros elsewhere, in the dimensions of `x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EyeLike {
    /// Which diagonal: above the main one, or below it if it is negative.
    pub k: i64,
    /// The element type; that of `x` without one.
    pub dtype: Option<Element>,
}

const EYE: &str = "EyeLike";

impl Operator for EyeLike {
    fn name(&self) -> &'static str {
        EYE
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("input")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let x = given(inputs, 0)?;
        let dims = match &x.dims[..] {
            _ if x.unranked => vec![Dim::Any, Dim::Any],
            [_, _] => x.dims.clone(),
            _ => return Err(Fault::Input(0, "of two dimensions".into())),
        };
        Ok(vec![ValueType::new(self.dtype.unwrap_or(x.dtype), dims)])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let x = call.data(0);
        let &[rows, columns] = x.dims() else {
            return Err(bad(EYE, "input", format!("must have two dimensions, but it is {:?}", x.dims())));
        };
        let mut data = vec![0.0; count(EYE, &[rows, columns])?];
        for row in 0..rows {
            let column = (row as i64).saturating_add(self.k);
            if (0..columns as i64).contains(&column) {
                data[row * columns + column as usize] = 1.0;
            }
        }
        let own = if matches!(x, Data::Ints(_)) { Element::Bool } else { Element::F32 };
        made(EYE, call, self.dtype.unwrap_or(own), &[rows, columns], data)
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let dims = &array(inputs, 0).dims;
        vec![Some(Array::from_fn(dims, |i| f64::from(u8::from(i[1] as i64 - i[0] as i64 == self.k))))]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
