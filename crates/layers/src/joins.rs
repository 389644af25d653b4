//! Layers that join several values.

use crate::layer::{LayerModule, Shape, axis_of, bad_option, is_last, last_axis};
use crate::lowering::{Flow, Lowered, Lowering, Place};
use crate::summary::show;
use crate::{Error, Result};
use recurve_graph::ops;
use recurve_vocabulary::Activation;
use serde::{Deserialize, Serialize};

/// Concatenates values along an axis, by default the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Concatenate {
    /// The axis; a negative one counts from the end. It cannot be the batch axis.
    #[serde(default = "last_axis", skip_serializing_if = "is_last")]
    pub axis: isize,
}

impl Default for Concatenate {
    fn default() -> Self {
        Self::new()
    }
}

impl Concatenate {
    /// Concatenation along the last axis.
    pub fn new() -> Self {
        Self { axis: -1 }
    }
    /// The axis; a negative one counts from the end.
    #[must_use]
    pub fn axis(mut self, axis: isize) -> Self {
        self.axis = axis;
        self
    }
}

/// Checks that there are at least two inputs of the same rank.
fn several<'a>(name: &str, shapes: &[&'a Shape]) -> Result<&'a Shape> {
    match shapes {
        [first, _, ..] => match shapes.iter().find(|s| s.len() != first.len()) {
            None => Ok(first),
            Some(other) => Err(differ(name, first, other)),
        },
        _ => Err(bad_option(name, "inputs", format!("must be at least two, but there are {}", shapes.len()))),
    }
}

fn differ(name: &str, first: &Shape, other: &Shape) -> Error {
    Error::Input { layer: name.into(), expected: format!("{}, as the first input", show(first)), got: show(other) }
}

/// The common size of two dimensions; `None` if both are known and differ.
fn meet(a: Option<usize>, b: Option<usize>) -> Option<Option<usize>> {
    match (a, b) {
        (Some(a), Some(b)) => (a == b).then_some(Some(a)),
        (a, b) => Some(a.or(b)),
    }
}

/// The mask of the joined values: what is valid in one of them. None if a value has no mask.
fn common_mask(name: &str, x: &Flow, into: &mut Lowering) -> Option<String> {
    let mut common = x.mask.clone()?;
    for other in &x.others {
        common = into.either(name, &common, other.mask.as_ref()?);
    }
    Some(common)
}

/// The mask of a value as factors in the layout of the data, if it has one.
fn factors(at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Option<String>> {
    let Some(mask) = &x.mask else { return Ok(None) };
    if at.shape.len() != 3 {
        let message = "must be [batch, timesteps, features] if one of them has a mask";
        return Err(bad_option(at.name, "inputs", message));
    }
    let mask = into.found(at.name, mask.clone());
    Ok(Some(into.factors(at.name, &mask)))
}

impl LayerModule for Concatenate {
    fn class_name(&self) -> &'static str {
        "Concatenate"
    }
    fn features(&self, _name: &str, _shape: &Shape) -> Result<usize> {
        Ok(0)
    }
    fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
        self.all_output_shapes(name, &[shape])
    }
    fn all_output_shapes(&self, name: &str, shapes: &[&Shape]) -> Result<Vec<Vec<Option<usize>>>> {
        let first = several(name, shapes)?;
        let axis = axis_of(name, "axis", self.axis, first.len())?;
        let mut sum = first.to_vec();
        for other in &shapes[1..] {
            for (n, (sum, &own)) in sum.iter_mut().zip(*other).enumerate() {
                *sum = match (n == axis, *sum, own) {
                    (true, Some(a), Some(b)) => Some(a.saturating_add(b)),
                    (true, ..) => None,
                    (false, a, b) => meet(a, b).ok_or_else(|| differ(name, first, other))?,
                };
            }
        }
        Ok(vec![sum])
    }
    fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
        let rank = at.shape.len();
        let axis = axis_of(at.name, "axis", self.axis, rank)?;
        let flows = || std::iter::once(x).chain(&x.others);
        let masked = flows().any(|f| f.mask.is_some());
        let mask = match axis {
            _ if !masked => None,
            // A value without a mask is valid everywhere.
            _ if axis + 1 == rank => common_mask(at.name, x, into),
            1 if rank == 3 && !into.time_major => {
                let masks: Vec<String> =
                    flows().map(|f| f.mask.clone().unwrap_or_else(|| into.all_valid(at.name, &f.value))).collect();
                let masks: Vec<&str> = masks.iter().map(String::as_str).collect();
                Some(into.node(at.name, ops::Concat { axis: 1 }, &masks))
            }
            _ => {
                let message = "must be the last axis, or the timesteps of values [batch, timesteps, features], if one \
                               of them has a mask";
                return Err(bad_option(at.name, "axis", message));
            }
        };
        let values: Vec<&str> = flows().map(|f| &f.value[..]).collect();
        Ok(Lowered::one(into.node(at.name, ops::Concat { axis: axis as isize }, &values), mask))
    }
}

/// What counts at padding of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
enum AtPadding {
    /// The value.
    AsItIs,
    /// 1; the result is 0 where all values have padding.
    One,
    /// The other values.
    OtherValue,
}

/// Adds an operation on one value after the other, with masks as Keras applies them.
fn joined(at: &Place<'_>, x: &Flow, operation: ops::Binary, padding: AtPadding, into: &mut Lowering) -> Result<String> {
    let masked = padding != AtPadding::AsItIs;
    let own = |flow: &Flow, into: &mut Lowering| if masked { factors(at, flow, into) } else { Ok(None) };
    let one = |value: String, valid: Option<&String>, into: &mut Lowering| match (padding, valid) {
        (AtPadding::One, Some(valid)) => {
            let ones = into.constant(at.name, &[1], &[1.0]);
            into.node(at.name, ops::Where, &[valid, &value, &ones])
        }
        _ => value,
    };
    let mut valid = own(x, into)?;
    let mut value = one(x.value.clone(), valid.as_ref(), into);
    for other in &x.others {
        let next_valid = own(other, into)?;
        let mut next = one(other.value.clone(), next_valid.as_ref(), into);
        if padding == AtPadding::OtherValue {
            if let Some(own) = &next_valid {
                next = into.node(at.name, ops::Where, &[own, &next, &value]);
            }
            if let Some(valid) = &valid {
                value = into.node(at.name, ops::Where, &[valid, &value, &next]);
            }
        }
        valid = valid.zip(next_valid).map(|(a, b)| into.node(at.name, ops::Binary::Max, &[&a, &b]));
        value = into.node(at.name, operation, &[&value, &next]);
    }
    if let (AtPadding::One, Some(valid)) = (padding, &valid) {
        let zero = into.constant(at.name, &[1], &[0.0]);
        value = into.node(at.name, ops::Where, &[valid, &value, &zero]);
    }
    Ok(value)
}

macro_rules! elementwise {
    ($($(#[$doc:meta])* $name:ident, $op:expr, $most:expr, $after:expr, $padding:expr;)*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {}

        impl $name {
            /// The layer, which has no options.
            pub const fn new() -> Self {
                Self {}
            }
        }

        impl LayerModule for $name {
            fn class_name(&self) -> &'static str {
                stringify!($name)
            }
            fn features(&self, _name: &str, _shape: &Shape) -> Result<usize> {
                Ok(0)
            }
            fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
                self.all_output_shapes(name, &[shape])
            }
            fn all_output_shapes(&self, name: &str, shapes: &[&Shape]) -> Result<Vec<Vec<Option<usize>>>> {
                let first = several(name, shapes)?;
                if shapes.len() > $most {
                    return Err(bad_option(name, "inputs", format!("must be two, but there are {}", shapes.len())));
                }
                let mut all = first.to_vec();
                for other in &shapes[1..] {
                    for (all, &own) in all.iter_mut().zip(*other) {
                        *all = match (*all, own) {
                            (Some(1), b) => b,
                            (a, Some(1)) => a,
                            (a, b) => meet(a, b).ok_or_else(|| differ(name, first, other))?,
                        };
                    }
                }
                Ok(vec![all])
            }
            fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
                let mask = common_mask(at.name, x, into);
                let mut value = joined(at, x, $op, $padding, into)?;
                let after: fn(usize) -> Option<Activation> = $after;
                if let Some(f) = after(1 + x.others.len()) {
                    value = into.node(at.name, ops::Activate(f), &[&value]);
                }
                Ok(Lowered::one(value, mask))
            }
        }
    )* };
}

elementwise! {
    /// The sum of several values of equal shape; sizes of 1 are broadcast, as in Keras.
    Add, ops::Binary::Add, usize::MAX, |_| None, AtPadding::AsItIs;
    /// The first value minus the second, of equal shape; sizes of 1 are broadcast.
    Subtract, ops::Binary::Sub, 2, |_| None, AtPadding::AsItIs;
    /// The elementwise product of several values of equal shape; sizes of 1 are broadcast. Padding of a value counts as
    /// 1, and where all have padding the product is 0.
    Multiply, ops::Binary::Mul, usize::MAX, |_| None, AtPadding::One;
    /// The mean of several values of equal shape; sizes of 1 are broadcast.
    Average, ops::Binary::Add, usize::MAX, |n| Some(Activation::Affine { alpha: 1.0 / n as f32, beta: 0.0 }),
        AtPadding::AsItIs;
    /// The elementwise maximum of several values of equal shape; sizes of 1 are broadcast. At padding of one value the
    /// other ones count.
    Maximum, ops::Binary::Max, usize::MAX, |_| None, AtPadding::OtherValue;
    /// The elementwise minimum of several values of equal shape; sizes of 1 are broadcast. At padding of one value the
    /// other ones count.
    Minimum, ops::Binary::Min, usize::MAX, |_| None, AtPadding::OtherValue;
}
