//! Layers that join several values.

use crate::layer::{LayerModule, Shape, bad_option};
use crate::lowering::{Flow, Lowered, Lowering, Place};
use crate::summary::show;
use crate::{Error, Result};
use recurve_graph::ops;
use recurve_vocabulary::Activation;
use serde::{Deserialize, Serialize};

fn last_axis() -> isize {
    -1
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_last(axis: &isize) -> bool {
    *axis == -1
}

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

    /// The axis as a non-negative index, for values of this rank.
    fn axis_of(&self, name: &str, rank: usize) -> Result<usize> {
        let axis = if self.axis < 0 { self.axis.checked_add_unsigned(rank) } else { Some(self.axis) };
        match axis.and_then(|a| usize::try_from(a).ok()) {
            Some(axis) if axis > 0 && axis < rank => Ok(axis),
            _ => {
                let message =
                    format!("must be one of {rank} axes except the first, the batch, but it is {}", self.axis);
                Err(bad_option(name, "axis", message))
            }
        }
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

/// The mask of the joined values. All that have a mask must have the same one.
fn common_mask(name: &str, x: &Flow) -> Result<Option<String>> {
    let masks = || std::iter::once(&x.mask).chain(x.others.iter().map(|o| &o.mask));
    match masks().find(|m| **m != x.mask) {
        None => Ok(x.mask.clone()),
        Some(_) => {
            Err(bad_option(name, "inputs", "must have the same mask, but Masking layers gave them different ones"))
        }
    }
}

impl LayerModule for Concatenate {
    fn class_name(&self) -> &'static str {
        "Concatenate"
    }
    fn features(&self, _name: &str, _shape: &Shape) -> Result<usize> {
        Ok(0)
    }
    fn weights(&self, _features: usize, _prefix: &str) -> Vec<(String, Vec<usize>)> {
        Vec::new()
    }
    fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
        self.all_output_shapes(name, &[shape])
    }
    fn all_output_shapes(&self, name: &str, shapes: &[&Shape]) -> Result<Vec<Vec<Option<usize>>>> {
        let first = several(name, shapes)?;
        let axis = self.axis_of(name, first.len())?;
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
        let axis = self.axis_of(at.name, rank)?;
        let mask = common_mask(at.name, x)?;
        if mask.is_some() && axis + 1 < rank {
            return Err(bad_option(at.name, "axis", "must be the last axis if there is a mask"));
        }
        let values: Vec<&str> =
            std::iter::once(&x.value).chain(x.others.iter().map(|o| &o.value)).map(String::as_str).collect();
        Ok(Lowered::one(into.node(at.name, ops::Concat { axis: axis as isize }, &values), mask))
    }
}

macro_rules! elementwise {
    ($($(#[$doc:meta])* $name:ident, $op:expr, $most:expr, $after:expr;)*) => { $(
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
            fn weights(&self, _features: usize, _prefix: &str) -> Vec<(String, Vec<usize>)> {
                Vec::new()
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
                let mask = common_mask(at.name, x)?;
                let mut value = x.value.clone();
                for other in &x.others {
                    value = into.node(at.name, $op, &[&value, &other.value]);
                }
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
    Add, ops::Binary::Add, usize::MAX, |_| None;
    /// The first value minus the second, of equal shape; sizes of 1 are broadcast.
    Subtract, ops::Binary::Sub, 2, |_| None;
    /// The elementwise product of several values of equal shape; sizes of 1 are broadcast.
    Multiply, ops::Binary::Mul, usize::MAX, |_| None;
    /// The mean of several values of equal shape; sizes of 1 are broadcast.
    Average, ops::Binary::Add, usize::MAX, |n| Some(Activation::Affine { alpha: 1.0 / n as f32, beta: 0.0 });
}
