//! Keras's `TimeDistributed`.

use crate::layer::{LayerModule, Shape, bad_input, bad_option};
use crate::lowering::{Flow, Lowered, Lowering, Place};
use crate::weight_options::WeightGroup;
use crate::{LayerConfig, Result, WeightOptions, Weights};
use recurve_graph::ops::{self, Extent};
use serde::{Deserialize, Serialize};

/// Applies a layer to every timestep separately: `[B, T, …]` is run as `[B·T, …]`. Keras's `TimeDistributed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TimeDistributed {
    /// The layer that is applied.
    pub layer: Box<LayerConfig>,
}

impl TimeDistributed {
    /// Applies `layer` to every timestep.
    pub fn new(layer: impl Into<LayerConfig>) -> Self {
        Self { layer: Box::new(layer.into()) }
    }
}

impl LayerModule for TimeDistributed {
    fn class_name(&self) -> &'static str {
        "TimeDistributed"
    }
    fn features(&self, name: &str, shape: &Shape) -> Result<usize> {
        self.layer.module().features(name, &at_a_timestep(name, shape)?)
    }
    fn weights(&self, shapes: &[&Shape], prefix: &str) -> Vec<(String, Vec<usize>)> {
        self.layer.module().weights(&[&inner(shapes)], prefix)
    }
    fn weight_groups<'a>(&'a self, shapes: &[&Shape], prefix: &str) -> Vec<WeightGroup<'a>> {
        self.layer.module().weight_groups(&[&inner(shapes)], prefix)
    }
    fn weight_options_mut(&mut self) -> Vec<&mut WeightOptions> {
        self.layer.module_mut().weight_options_mut()
    }
    fn initialize(&self, shapes: &[&Shape], prefix: &str, seed: u64, into: &mut Weights) -> Result<()> {
        self.layer.module().initialize(&[&inner(shapes)], prefix, seed, into)
    }
    fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
        let mut inner = self.layer.module().output_shapes(name, &at_a_timestep(name, shape)?)?;
        if inner.len() > 1 {
            return Err(bad_option(name, "layer", "gives several outputs, which cannot be distributed over time"));
        }
        Ok(vec![[&shape[..2], &inner.swap_remove(0)[1..]].concat()])
    }
    fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
        let axes = |from: usize, rank: usize| (from..rank).map(|n| Extent::Axes(n, 1));
        let folded = std::iter::once(Extent::Axes(0, 2)).chain(axes(2, at.shape.len())).collect();
        let value = into.node(at.name, ops::Reshape(folded), &[&x.value]);
        let shape = at_a_timestep(at.name, at.shape)?;
        let rank = self.layer.module().output_shapes(at.name, &shape)?[0].len();
        let inside = Place { shape: &shape, shapes: &[&shape], ..*at };
        // The masks and lengths of the outer sequences do not apply to the inner layer.
        let flow = Flow::new(value, None, false);
        let inner = into.inside(|into| self.layer.module().lower(&inside, &flow, into))?;
        let unfolded = [Extent::Like(0), Extent::Like(1)].into_iter().chain(axes(1, rank)).collect();
        let y = into.node(at.name, ops::Reshape(unfolded), &[&inner.outputs[0], &x.value]);
        Ok(Lowered::one(y, x.mask.clone()))
    }
    fn takes_ids(&self) -> bool {
        self.layer.module().takes_ids()
    }
    fn is_stateful(&self) -> bool {
        self.layer.module().is_stateful()
    }
    fn check_streams(&self, name: &str) -> Result<()> {
        if !self.is_stateful() {
            return Ok(());
        }
        Err(bad_option(name, "stateful", "keeps the state of a row, but streams change their rows"))
    }
}

/// The shape that the inner layer reads, once `features` has checked it.
fn inner(shapes: &[&Shape]) -> Vec<Option<usize>> {
    [&[None], &shapes[0][2..]].concat()
}

/// The shape that the inner layer reads.
fn at_a_timestep(name: &str, shape: &Shape) -> Result<Vec<Option<usize>>> {
    match shape {
        [_, _, _, ..] => Ok([&[None], &shape[2..]].concat()),
        _ => Err(bad_input(name, "[batch, timesteps, …] with at least three dimensions", shape)),
    }
}
