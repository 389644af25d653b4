//! Attention of queries to the timesteps of a value.

use crate::layer::{LayerModule, Shape, bad_input, bad_option, is_default, is_yes, last, setters, yes};
use crate::lowering::{Flow, Lowered, Lowering, Place};
use crate::weight_options::{own_weights, weight_setters};
use crate::{Initializer, Result, WeightOptions, Weights};
use recurve_graph::ops::{self, Extent, Shares};
use recurve_tensor::Reduction;
use recurve_vocabulary::Activation;
use serde::{Deserialize, Serialize};

/// How a query is compared with a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ScoreMode {
    /// `query · key`
    #[default]
    Dot,
    /// The sum of `tanh(query + key)` over the features, times a weight.
    Concat,
}

/// Dot-product attention. Its inputs are the query `[batch, Tq, features]`, the value `[batch, Tv, …]` and, if it is
/// not the value, the key `[batch, Tv, features]`.
///
/// A mask of the value keeps its padding out of the mean, and padding of the query gives zeros.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Attention {
    /// Whether there is a weight `scale` by which scores are multiplied; with [`ScoreMode::Concat`] the sums before
    /// tanh.
    #[serde(default, skip_serializing_if = "is_default")]
    pub use_scale: bool,
    /// How a query is compared with a key.
    #[serde(default, skip_serializing_if = "is_default")]
    pub score_mode: ScoreMode,
    /// Whether a query sees no timestep of the value behind its own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub use_causal_mask: bool,
    /// The share of the scores that training drops. No effect at inference.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dropout: f32,
    /// How the weights are trained.
    #[serde(default, skip_serializing_if = "is_default")]
    pub weight_options: WeightOptions,
}

/// Additive attention (Bahdanau et al. 2015): as [`Attention`], with the scores `Σ scale · tanh(query + key)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct AdditiveAttention {
    /// Whether there is a weight `scale` for each feature.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub use_scale: bool,
    /// Whether a query sees no timestep of the value behind its own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub use_causal_mask: bool,
    /// The share of the scores that training drops. No effect at inference.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dropout: f32,
    /// How the weights are trained.
    #[serde(default, skip_serializing_if = "is_default")]
    pub weight_options: WeightOptions,
}

impl Default for AdditiveAttention {
    fn default() -> Self {
        Self::new()
    }
}

macro_rules! options {
    () => {
        setters! {
            /// Whether there is a weight `scale`.
            use_scale: bool;
            /// Whether a query sees no timestep of the value behind its own.
            use_causal_mask: bool;
            /// The share of the scores that training drops. No effect at inference.
            dropout: f32;
        }
        weight_setters!();
    };
}

impl Attention {
    /// Dot products without weights, as is Keras's default.
    pub fn new() -> Self {
        Self::default()
    }
    setters! {
        /// How a query is compared with a key.
        score_mode: ScoreMode;
    }
    options!();
}

impl AdditiveAttention {
    /// With a weight for each feature, as is Keras's default.
    pub fn new() -> Self {
        Self { use_scale: true, use_causal_mask: false, dropout: 0.0, weight_options: WeightOptions::default() }
    }
    options!();
}

/// Checks the inputs, and that the value that training drops is one. Returns the shape of the output.
fn checked(name: &str, dropout: f32, shapes: &[&Shape]) -> Result<Vec<Option<usize>>> {
    if !(0.0..=1.0).contains(&dropout) {
        return Err(bad_option(name, "dropout", format!("must be in [0, 1], but it is {dropout}")));
    }
    let (query, value, key) = match shapes {
        [query, value] => (query, value, value),
        [query, value, key] => (query, value, key),
        _ => {
            let message = format!("must be query, value and possibly key, but there are {}", shapes.len());
            return Err(bad_option(name, "inputs", message));
        }
    };
    let &[batch, queries, Some(features)] = *query else {
        return Err(bad_input(name, "a query [batch, timesteps, features] with known features", query));
    };
    let fits = |a: Option<usize>, b: Option<usize>| a.is_none() || b.is_none() || a == b;
    let &[b, timesteps, width] = *value else {
        return Err(bad_input(name, "a value [batch, timesteps, features]", value));
    };
    if !fits(b, batch) {
        return Err(bad_input(name, "a value of the query's batch", value));
    }
    match **key {
        [b, t, Some(f)] if fits(b, batch) && fits(t, timesteps) && f == features => {}
        _ => {
            let expected = format!("a key [batch, timesteps, {features}] with the timesteps of the value");
            return Err(bad_input(name, &expected, key));
        }
    }
    Ok(vec![batch.or(b), queries, width])
}

/// Adds what both layers share: from the scores `[batch, Tq, Tv]` to the output, with the options of the layer.
fn attend(at: &Place<'_>, x: &Flow, scores: String, (causal, dropout): (bool, f32), into: &mut Lowering) -> Lowered {
    let value = &x.others[0];
    let low = into.constant(at.name, &[1], &[-1e9]);
    let mut scores = scores;
    if causal {
        let ones = into.ones_like(at.name, &scores);
        let seen = into.node(at.name, ops::Trilu { upper: false }, &[&ones]);
        scores = into.node(at.name, ops::Where, &[&seen, &scores, &low]);
    }
    if let (Some(mask), always) = into.mask_alone(at.name, value) {
        let valid = into.factors(at.name, &mask);
        let row = ops::Reshape(vec![Extent::Axes(0, 1), Extent::Size(1), Extent::Axes(1, 2)]);
        let valid = into.node(at.name, row, &[&valid]);
        let masked = into.node(at.name, ops::Where, &[&valid, &scores, &low]);
        scores = into.if_masked(at.name, always, masked, &scores);
    }
    let softmax = ops::SoftmaxOver { shares: Shares::Softmax, axis: -1, flattened: false };
    let mut weights = into.node(at.name, softmax, &[&scores]);
    if into.trains() {
        weights = into.dropped(at.name, dropout, &weights, 3, &[]);
    }
    let mut y = into.node(at.name, ops::MatMul, &[&weights, &value.value]);
    if let (Some(mask), always) = into.mask_alone(at.name, x) {
        let valid = into.factors(at.name, &mask);
        let zero = into.constant(at.name, &[1], &[0.0]);
        let masked = into.node(at.name, ops::Where, &[&valid, &y, &zero]);
        y = into.if_masked(at.name, always, masked, &y);
    }
    Lowered::one(y, x.mask.clone())
}

/// Adds `tanh(scale · (query + key))` for each pair of timesteps, `[batch, Tq, Tv, features]`.
fn pairs(at: &Place<'_>, query: &str, key: &str, scale: Option<&str>, into: &mut Lowering) -> String {
    let apart = |axis: usize| {
        let mut dims: Vec<Extent> = (0..3).map(|n| Extent::Axes(n, 1)).collect();
        dims.insert(axis, Extent::Size(1));
        ops::Reshape(dims)
    };
    let query = into.node(at.name, apart(2), &[query]);
    let key = into.node(at.name, apart(1), &[key]);
    let mut sum = into.node(at.name, ops::Binary::Add, &[&query, &key]);
    if let Some(scale) = scale {
        sum = into.node(at.name, ops::Binary::Mul, &[&sum, scale]);
    }
    into.node(at.name, ops::Activate(Activation::Tanh), &[&sum])
}

/// Adds the sum over the features.
fn summed(at: &Place<'_>, x: &str, into: &mut Lowering) -> String {
    let sum = ops::ReduceOver { reduction: Reduction::Sum, axes: vec![-1], keep_dims: false, noop: false, int: None };
    into.node(at.name, sum, &[x])
}

/// What the two layers have in common as [`LayerModule`]s.
macro_rules! attention {
    ($class:literal) => {
        fn class_name(&self) -> &'static str {
            $class
        }
        fn features(&self, name: &str, shape: &Shape) -> Result<usize> {
            match shape {
                &[_, _, Some(f)] => Ok(f),
                _ => Err(bad_input(name, "a query [batch, timesteps, features] with known features", shape)),
            }
        }
        fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
            self.all_output_shapes(name, &[shape])
        }
        fn all_output_shapes(&self, name: &str, shapes: &[&Shape]) -> Result<Vec<Vec<Option<usize>>>> {
            Ok(vec![checked(name, self.dropout, shapes)?])
        }
        fn per_timestep(&self) -> bool {
            false
        }
        fn keeps_time(&self, x: &Flow) -> bool {
            x.time
        }
    };
}

impl LayerModule for Attention {
    own_weights!();
    attention!("Attention");

    fn weights(&self, _: &[&Shape], prefix: &str) -> Vec<(String, Vec<usize>)> {
        let parts = [("scale", self.use_scale), ("concat_score_weight", self.score_mode == ScoreMode::Concat)];
        parts.iter().filter(|p| p.1).map(|(part, _)| (format!("{prefix}.{part}"), vec![1])).collect()
    }
    fn initialize(&self, shapes: &[&Shape], prefix: &str, _: u64, into: &mut Weights) -> Result<()> {
        self.weights(shapes, prefix).into_iter().try_for_each(|(name, dims)| into.insert(name, &dims, vec![1.0]))?;
        Ok(())
    }
    fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
        let weights = into.parameters(self.weights(at.shapes, at.prefix));
        let scale = self.use_scale.then(|| &weights[0][..]);
        let key = &x.others.last().expect("checked to be there").value;
        let scores = match self.score_mode {
            ScoreMode::Dot => {
                let columns = into.node(at.name, ops::Transpose(vec![0, 2, 1]), &[key]);
                let scores = into.node(at.name, ops::MatMul, &[&x.value, &columns]);
                match scale {
                    Some(scale) => into.node(at.name, ops::Binary::Mul, &[&scores, scale]),
                    None => scores,
                }
            }
            ScoreMode::Concat => {
                let pairs = pairs(at, &x.value, key, scale, into);
                let sums = summed(at, &pairs, into);
                let weight = weights.last().expect("it has that weight");
                into.node(at.name, ops::Binary::Mul, &[&sums, weight])
            }
        };
        Ok(attend(at, x, scores, (self.use_causal_mask, self.dropout), into))
    }
}

impl LayerModule for AdditiveAttention {
    own_weights!();
    attention!("AdditiveAttention");

    fn weights(&self, shapes: &[&Shape], prefix: &str) -> Vec<(String, Vec<usize>)> {
        if self.use_scale { vec![(format!("{prefix}.scale"), vec![last(shapes)])] } else { Vec::new() }
    }
    fn initialize(&self, shapes: &[&Shape], prefix: &str, seed: u64, into: &mut Weights) -> Result<()> {
        let mut rng = recurve_tensor::random::rng(seed);
        self.weights(shapes, prefix).into_iter().try_for_each(|(name, dims)| {
            let data = Initializer::GlorotUniform.kernel(&dims, 1, &mut rng)?;
            into.insert(name, &dims, data)
        })?;
        Ok(())
    }
    fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
        let weights = into.parameters(self.weights(at.shapes, at.prefix));
        let key = &x.others.last().expect("checked to be there").value;
        let mut pairs = pairs(at, &x.value, key, None, into);
        if let Some(scale) = weights.first() {
            pairs = into.node(at.name, ops::Binary::Mul, &[&pairs, scale]);
        }
        let scores = summed(at, &pairs, into);
        Ok(attend(at, x, scores, (self.use_causal_mask, self.dropout), into))
    }
}
