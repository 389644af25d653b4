//! Keras's `Masking`.

use crate::Result;
use crate::layer::{LayerModule, Shape, bad_input, bad_option};
use crate::lowering::{Flow, Lowered, Lowering, Place};
use recurve_graph::ops;
use serde::{Deserialize, Serialize};

/// Treats timesteps whose features all equal one value as padding: they become zero, and later layers skip them.
/// Keras's `Masking`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Masking {
    /// The value of padding.
    #[serde(default)]
    pub mask_value: f32,
}

impl Masking {
    /// Masking where padding has this value.
    pub fn new(mask_value: f32) -> Self {
        Self { mask_value }
    }
}

impl LayerModule for Masking {
    fn class_name(&self) -> &'static str {
        "Masking"
    }
    fn features(&self, name: &str, shape: &Shape) -> Result<usize> {
        if !self.mask_value.is_finite() {
            return Err(bad_option(name, "mask_value", format!("must be finite, but it is {}", self.mask_value)));
        }
        match shape {
            &[_, _, Some(f)] => Ok(f),
            _ => Err(bad_input(name, "[batch, timesteps, features] with known features", shape)),
        }
    }
    fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
        self.features(name, shape)?;
        Ok(vec![shape.to_vec()])
    }
    fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
        let valid = into.node(at.name, ops::Mask::Features(self.mask_value), &[&x.value]);
        let factors = into.factors(at.name, &valid);
        let y = into.node(at.name, ops::Binary::Mul, &[&x.value, &factors]);
        let mask = into.found(at.name, valid);
        Ok(Lowered::one(y, Some(mask)))
    }
    fn check_streams(&self, name: &str) -> Result<()> {
        Err(bad_option(name, "mask_value", "computes a mask, but streams use masks of their own"))
    }
}
