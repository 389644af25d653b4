//! Dropout.

use crate::Result;
use crate::layer::{LayerModule, Shape, bad_option};
use crate::lowering::{Flow, Lowered, Lowering, Place};
use serde::{Deserialize, Serialize};

/// Dropout. It does nothing, because Recurve only runs inference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Dropout {
    /// The share of elements that training drops, in `[0, 1)`.
    pub rate: f32,
}

impl Dropout {
    /// Dropout with this rate.
    pub fn new(rate: f32) -> Self {
        Self { rate }
    }
}

impl LayerModule for Dropout {
    fn class_name(&self) -> &'static str {
        "Dropout"
    }
    fn features(&self, name: &str, _: &Shape) -> Result<usize> {
        if (0.0..1.0).contains(&self.rate) {
            return Ok(0);
        }
        Err(bad_option(name, "rate", format!("must be in [0, 1), but it is {}", self.rate)))
    }
    fn weights(&self, _: usize, _: &str) -> Vec<(String, Vec<usize>)> {
        Vec::new()
    }
    fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
        self.features(name, shape)?;
        Ok(vec![shape.to_vec()])
    }
    fn lower(&self, _: &Place<'_>, x: &Flow, _: &mut Lowering) -> Result<Lowered> {
        Ok(Lowered::one(x.value.clone(), x.mask.clone()))
    }
}
