//! Embeddings.

use crate::layer::{LayerModule, Shape, bad_input, bad_option, initialize, is_default, setters};
use crate::lowering::{Flow, Lowered, Lowering, Place};
use crate::weight_options::{own_weights, weight_setters};
use crate::{Initializer, Result, WeightOptions, Weights};
use recurve_graph::ops;
use serde::{Deserialize, Serialize};

/// An embedding: looks up a vector for each id, `[B, T]` to `[B, T, output_dim]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Embedding {
    /// Number of ids, V.
    pub input_dim: usize,
    /// Number of elements of a vector.
    pub output_dim: usize,
    /// Whether id 0 is padding, which later layers skip.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mask_zero: bool,
    /// How the weights are trained.
    #[serde(default, skip_serializing_if = "is_default")]
    pub weight_options: WeightOptions,
}

impl Embedding {
    /// An embedding of `input_dim` vectors of `output_dim` elements.
    pub fn new(input_dim: usize, output_dim: usize) -> Self {
        Self { input_dim, output_dim, mask_zero: false, weight_options: WeightOptions::default() }
    }
    setters! {
        /// Whether id 0 is padding that later layers skip.
        mask_zero: bool;
    }
    weight_setters!(
        Embeddings embeddings_regularizer embeddings_constraint
    );
}

impl LayerModule for Embedding {
    own_weights!();
    fn class_name(&self) -> &'static str {
        "Embedding"
    }
    fn features(&self, name: &str, shape: &Shape) -> Result<usize> {
        match shape.len() {
            2 => Ok(self.input_dim),
            _ => Err(bad_input(name, "ids of shape [batch, timesteps]", shape)),
        }
    }
    fn weights(&self, _: &[&Shape], prefix: &str) -> Vec<(String, Vec<usize>)> {
        vec![(format!("{prefix}.weight"), vec![self.input_dim, self.output_dim])]
    }
    fn initialize(&self, shapes: &[&Shape], prefix: &str, seed: u64, into: &mut Weights) -> Result<()> {
        // Keras's default for embeddings: uniform in ±0.05.
        initialize(self.weights(shapes, prefix), Initializer::Uniform { limit: 0.05 }, seed, into)
    }
    fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
        self.features(name, shape)?;
        Ok(vec![vec![shape[0], shape[1], Some(self.output_dim)]])
    }
    fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
        let table = into.parameters(self.weights(at.shapes, at.prefix)).swap_remove(0);
        let y = into.node(at.name, ops::Gather, &[&table, &x.value]);
        if let Some(training) = &mut into.training {
            training.looked_up.insert(y.clone(), [table, x.value.clone()]);
        }
        if !self.mask_zero {
            return Ok(Lowered::one(y, x.mask.clone()));
        }
        let valid = into.node(at.name, ops::Mask::Ids(0), &[&x.value]);
        let mask = into.found(at.name, valid);
        Ok(Lowered::one(y, Some(mask)))
    }
    fn takes_ids(&self) -> bool {
        true
    }
    fn check_streams(&self, name: &str) -> Result<()> {
        if !self.mask_zero {
            return Ok(());
        }
        Err(bad_option(name, "mask_zero", "computes a mask, but streams use masks of their own"))
    }
}
