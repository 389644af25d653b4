//! Keras's `ActivityRegularization`.

use crate::layer::{LayerModule, Shape, is_default};
use crate::lowering::{Flow, Lowered, Lowering, Place};
use crate::weight_options::own_weights;
use crate::{Regularizer, Result, WeightOptions};
use serde::{Deserialize, Serialize};

/// A penalty for its input, which it passes on as it is. It has no weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ActivityRegularization {
    /// The penalty, as its `activity_regularizer`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub weight_options: WeightOptions,
}

impl ActivityRegularization {
    /// The penalty `l1 · Σ |x| + l2 · Σ x²`, divided by the number of sequences.
    pub fn new(l1: f32, l2: f32) -> Self {
        let activity_regularizer = Some(Regularizer::l1_l2(l1, l2));
        Self { weight_options: WeightOptions { activity_regularizer, ..WeightOptions::default() } }
    }
}

impl LayerModule for ActivityRegularization {
    own_weights!();
    fn class_name(&self) -> &'static str {
        "ActivityRegularization"
    }
    fn features(&self, _: &str, _: &Shape) -> Result<usize> {
        Ok(0)
    }
    fn output_shapes(&self, _: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
        Ok(vec![shape.to_vec()])
    }
    fn lower(&self, _: &Place<'_>, x: &Flow, _: &mut Lowering) -> Result<Lowered> {
        Ok(Lowered::one(x.value.clone(), x.mask.clone()))
    }
}
