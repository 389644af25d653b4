//! The same elements in dimensions that are computed: `Reshape`, `Flatten`, `Squeeze`, `Unsqueeze`.

use super::moves::{
    Elements, Moves, Numbers, Sizes, axis_of, bad, content, fault, from_start, moves, number, partly, product, whole,
};
use super::prelude::*;

/// The elements of `x` in order in the dimensions of the second input: -1 stands for what is left, 0 for the
/// dimension of `x` at the same place unless `allow_zero`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReshapeTo {
    /// 0 is a dimension without elements.
    pub allow_zero: bool,
}

const RESHAPE: &str = "Reshape";

impl Moves for ReshapeTo {
    fn moved<E: Elements>(&self, x: &E, numbers: &Numbers) -> Result<E> {
        let shape = number(numbers, 1).data();
        let mut dims = Sizes::new();
        let mut open = None;
        for (n, &d) in shape.iter().enumerate() {
            dims.push(match d {
                0 if !self.allow_zero => *x.dims().get(n).ok_or_else(|| {
                    bad(RESHAPE, "shape", format!("{shape:?} copies dimension {n}, but x has {}", x.dims().len()))
                })?,
                -1 if open.is_none() => {
                    open = Some(n);
                    1
                }
                d => usize::try_from(d)
                    .map_err(|_| bad(RESHAPE, "shape", format!("must be sizes, 0, or -1 once, but it is {shape:?}")))?,
            });
        }
        if let Some(n) = open {
            let (all, rest) = (product(x.dims()), dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)));
            match rest {
                Some(rest) if rest > 0 && all.is_multiple_of(rest) => dims[n] = all / rest,
                _ => {
                    let message = format!("{shape:?} does not divide the {all} elements of x, {:?}", x.dims());
                    return Err(bad(RESHAPE, "shape", message));
                }
            }
        }
        x.reshaped(RESHAPE, &dims)
    }
    fn open(&self, x: &ValueType, inputs: &[Option<&ValueType>]) -> Result<ValueType, Fault> {
        let Some(shape) = partly(inputs, 1) else { return Ok(ValueType::unranked(x.dtype)) };
        let copied = |n: usize| if x.unranked { None } else { x.dims.get(n) };
        let mut dims = Vec::new();
        let mut open = None;
        for (n, d) in shape.iter().enumerate() {
            dims.push(match d {
                None => Dim::Any,
                Some(0) if !self.allow_zero => copied(n).cloned().unwrap_or(Dim::Any),
                Some(-1) => {
                    open = Some(n);
                    Dim::Any
                }
                Some(d) => usize::try_from(*d)
                    .map(Dim::Size)
                    .map_err(|_| Fault::Attribute("shape", format!("must be sizes, 0, or -1 once, but it has {d}")))?,
            });
        }
        // What is left is known if the dimensions that are not known are the same before and after.
        if let (Some(n), false) = (open, x.unranked)
            && shape.iter().all(Option::is_some)
        {
            let mut unknown: Vec<&Dim> = x.dims.iter().filter(|d| d.size().is_none()).collect();
            let mut same = true;
            for (m, d) in dims.iter().enumerate().filter(|(m, d)| *m != n && d.size().is_none()) {
                let place = unknown.iter().position(|u| *u == d && (*d != Dim::Any || copied(m) == Some(d)));
                match place {
                    Some(place) => drop(unknown.swap_remove(place)),
                    None => same = false,
                }
            }
            let product = |dims: &[Dim]| dims.iter().filter_map(Dim::size).try_fold(1usize, |n, d| n.checked_mul(d));
            if let (true, [], Some(all), Some(rest)) = (same, &unknown[..], product(&x.dims), product(&dims))
                && rest > 0
                && all.is_multiple_of(rest)
            {
                dims[n] = Dim::Size(all / rest);
            } else if let (true, [one], Some(all), Some(rest)) = (same, &unknown[..], product(&x.dims), product(&dims))
                && all == rest
            {
                dims[n] = (*one).clone();
            }
        }
        Ok(x.with_dims(dims))
    }
}

impl Operator for ReshapeTo {
    fn name(&self) -> &'static str {
        RESHAPE
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("data"), Slot::Required("shape")]
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let shape = whole(array(inputs, 1));
        let size = |(n, &d): (usize, &i64)| if d == 0 && !self.allow_zero { x.dims[n] as i64 } else { d };
        let sizes: Vec<i64> = shape.iter().enumerate().map(size).collect();
        let rest: i64 = sizes.iter().filter(|&&d| d != -1).product();
        let dims: Vec<usize> =
            sizes.iter().map(|&d| if d == -1 { x.data.len() / rest as usize } else { d as usize }).collect();
        vec![Some(x.reshaped(&dims))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let dy = g.of_only_output();
        g.give_reshaped(0, dy)
    }
    moves!();
}

/// Two dimensions: the product of those before `axis`, which counts from the end if it is negative, and of the
/// others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flatten {
    /// The first axis of the second dimension; may be the number of dimensions.
    pub axis: i64,
}

impl Flatten {
    fn split(self, rank: usize) -> Result<usize> {
        if self.axis == rank as i64 {
            return Ok(rank);
        }
        if rank == 0 && self.axis == 0 {
            return Ok(0);
        }
        axis_of("Flatten", self.axis, rank)
    }
}

impl Moves for Flatten {
    fn moved<E: Elements>(&self, x: &E, _: &Numbers) -> Result<E> {
        let split = self.split(x.dims().len())?;
        let (a, b) = x.dims().split_at(split);
        x.reshaped("Flatten", &[product(a), product(b)])
    }
    fn open(&self, x: &ValueType, _: &[Option<&ValueType>]) -> Result<ValueType, Fault> {
        if x.unranked {
            return Ok(x.with_dims(vec![Dim::Any, Dim::Any]));
        }
        let (a, b) = x.dims.split_at(self.split(x.rank()).map_err(fault)?);
        let all = |dims: &[Dim]| dims.iter().fold(Dim::Size(1), |product, d| product.times(d));
        Ok(x.with_dims(vec![all(a), all(b)]))
    }
}

impl Operator for Flatten {
    fn name(&self) -> &'static str {
        "Flatten"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("input")]
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let axis = from_start(self.axis, x.dims.len());
        vec![Some(x.reshaped(&[x.dims[..axis].iter().product(), x.dims[axis..].iter().product()]))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let dy = g.of_only_output();
        g.give_reshaped(0, dy)
    }
    moves!();
}

/// Without the axes of the second input, which are of size 1 and count from the end if they are negative; without
/// it, without all of size 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Squeeze;

const SQUEEZE: &str = "Squeeze";

/// Which of so many axes are named.
fn marked(operation: &'static str, axes: &[i64], rank: usize) -> Result<smallvec::SmallVec<[bool; 8]>> {
    let mut marks = smallvec::smallvec![false; rank];
    for &axis in axes {
        if core::mem::replace(&mut marks[axis_of(operation, axis, rank)?], true) {
            return Err(bad(operation, "axes", format!("must be different ones, but they are {axes:?}")));
        }
    }
    Ok(marks)
}

impl Moves for Squeeze {
    fn moved<E: Elements>(&self, x: &E, numbers: &Numbers) -> Result<E> {
        let dims: Sizes = match numbers.first().and_then(Option::as_ref) {
            None => x.dims().iter().copied().filter(|&d| d != 1).collect(),
            Some(axes) => {
                let out = marked(SQUEEZE, axes.data(), x.dims().len())?;
                if let Some(n) = (0..out.len()).find(|&n| out[n] && x.dims()[n] != 1) {
                    let message = format!("name axis {n}, whose size is {}, not 1", x.dims()[n]);
                    return Err(bad(SQUEEZE, "axes", message));
                }
                x.dims().iter().zip(out).filter(|(_, out)| !out).map(|(&d, _)| d).collect()
            }
        };
        x.reshaped(SQUEEZE, &dims)
    }
    fn open(&self, x: &ValueType, inputs: &[Option<&ValueType>]) -> Result<ValueType, Fault> {
        let named = inputs.get(1).copied().flatten().is_some();
        match (content(inputs, 1), x.unranked) {
            (Some(axes), false) => {
                let out = marked(SQUEEZE, &axes, x.rank()).map_err(fault)?;
                if let Some(n) = (0..out.len()).find(|&n| out[n] && x.dims[n].size().is_some_and(|d| d != 1)) {
                    let message = format!("name axis {n}, whose size is {}, not 1", x.dims[n]);
                    return Err(Fault::Attribute("axes", message));
                }
                Ok(x.with_dims(x.dims.iter().zip(out).filter(|(_, out)| !out).map(|(d, _)| d.clone()).collect()))
            }
            (None, false) if named => match partly(inputs, 1) {
                Some(axes) if axes.len() <= x.rank() => Ok(x.with_dims(vec![Dim::Any; x.rank() - axes.len()])),
                _ => Ok(ValueType::unranked(x.dtype)),
            },
            _ => Ok(ValueType::unranked(x.dtype)),
        }
    }
}

impl Operator for Squeeze {
    fn name(&self) -> &'static str {
        SQUEEZE
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("data"), Slot::Optional("axes")]
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let rank = x.dims.len() as i64;
        let gone = |n: usize| match inputs.get(1).copied().flatten() {
            Some(axes) => whole(axes).iter().any(|&a| (if a < 0 { a + rank } else { a }) == n as i64),
            None => x.dims[n] == 1,
        };
        let dims: Vec<usize> = (0..x.dims.len()).filter(|&n| !gone(n)).map(|n| x.dims[n]).collect();
        vec![Some(x.reshaped(&dims))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let dy = g.of_only_output();
        g.give_reshaped(0, dy)
    }
    moves!();
}

/// With axes of size 1 at the places in the result that the second input has, which count from the end if they are
/// negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsqueeze;

const UNSQUEEZE: &str = "Unsqueeze";

impl Moves for Unsqueeze {
    fn moved<E: Elements>(&self, x: &E, numbers: &Numbers) -> Result<E> {
        let axes = number(numbers, 1).data();
        let new = marked(UNSQUEEZE, axes, x.dims().len() + axes.len())?;
        let mut own = x.dims().iter();
        let dims: Sizes = new.iter().map(|new| if *new { 1 } else { *own.next().expect("as many as x has") }).collect();
        x.reshaped(UNSQUEEZE, &dims)
    }
    fn open(&self, x: &ValueType, inputs: &[Option<&ValueType>]) -> Result<ValueType, Fault> {
        match (content(inputs, 1), partly(inputs, 1), x.unranked) {
            (Some(axes), _, false) => {
                let new = marked(UNSQUEEZE, &axes, x.rank() + axes.len()).map_err(fault)?;
                let mut own = x.dims.iter().cloned();
                let dims =
                    new.iter().map(|&new| if new { Dim::Size(1) } else { own.next().expect("as many as x has") });
                Ok(x.with_dims(dims.collect()))
            }
            (None, Some(axes), false) => Ok(x.with_dims(vec![Dim::Any; x.rank() + axes.len()])),
            _ => Ok(ValueType::unranked(x.dtype)),
        }
    }
}

impl Operator for Unsqueeze {
    fn name(&self) -> &'static str {
        UNSQUEEZE
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("data"), Slot::Required("axes")]
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let axes = whole(array(inputs, 1));
        let rank = x.dims.len() + axes.len();
        let mut dims = x.dims.clone();
        let mut sorted: Vec<usize> = axes.iter().map(|&a| if a < 0 { a + rank as i64 } else { a } as usize).collect();
        sorted.sort_unstable();
        sorted.into_iter().for_each(|a| dims.insert(a, 1));
        vec![Some(x.reshaped(&dims))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let dy = g.of_only_output();
        g.give_reshaped(0, dy)
    }
    moves!();
}
