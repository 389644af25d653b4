//! Normalization of batches and of layers.

use crate::layer::{
    LayerModule, Shape, axis_of, bad_input, bad_option, is_default, is_last, is_yes, last_axis, setters, yes,
};
use crate::lowering::{Flow, Lowered, Lowering, Place};
use crate::weight_options::{own_weights, weight_setters};
use crate::{Result, WeightOptions, Weights, init};
use recurve_graph::ops::{self, Extent, Together};
use recurve_tensor::Reduction;
use recurve_vocabulary::Activation;
use serde::{Deserialize, Serialize};

const EPSILON: f32 = 1e-3;

fn epsilon() -> f32 {
    EPSILON
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_usual(epsilon: &f32) -> bool {
    *epsilon == EPSILON
}

fn momentum() -> f32 {
    0.99
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_usual_momentum(share: &f32) -> bool {
    *share == momentum()
}

fn check_epsilon(name: &str, epsilon: f32) -> Result<()> {
    if epsilon.is_finite() && epsilon >= 0.0 {
        return Ok(());
    }
    Err(bad_option(name, "epsilon", format!("must be finite and at least 0, but it is {epsilon}")))
}

/// Initial weights that change nothing: 1 for factors and variances, 0 for the others.
fn neutral(weights: Vec<(String, Vec<usize>)>, into: &mut Weights) -> Result<()> {
    for (name, dims) in weights {
        let mut data = init::zeros(&dims)?;
        if name.ends_with(".weight") || name.ends_with(".running_var") {
            data.fill(1.0);
        }
        into.insert(name, &dims, data)?;
    }
    Ok(())
}

/// The named weight, or a constant in its place where the layer has none.
fn or_constant(
    at: &Place<'_>,
    weights: &[String],
    part: &str,
    dims: &[usize],
    number: f32,
    into: &mut Lowering,
) -> Result<String> {
    let wanted = format!("{}.{part}", at.prefix);
    if let Some(name) = weights.iter().find(|w| **w == wanted) {
        return Ok(name.clone());
    }
    let mut numbers = init::zeros(dims)?;
    numbers.fill(number);
    Ok(into.constant(at.name, dims, &numbers))
}

/// Batch normalization: `(x - running_mean) / √(running_var + epsilon) · weight + bias`, with a number of
/// each for every index of one axis. In training mean and variance are those of the batch, and the running ones move
/// towards them; if its weights are not [trained](WeightOptions::trainable), training is as inference. Both as in Keras.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct BatchNormalization {
    /// The axis whose indices have their own numbers; a negative one counts from the end. It cannot be the batch axis.
    #[serde(default = "last_axis", skip_serializing_if = "is_last")]
    pub axis: isize,
    /// Added to the variance.
    #[serde(default = "epsilon", skip_serializing_if = "is_usual")]
    pub epsilon: f32,
    /// Whether there is a `bias`, Keras's beta.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub center: bool,
    /// Whether there is a `weight`, Keras's gamma.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub scale: bool,
    /// In training, the share of the old running mean and variance in the new ones.
    #[serde(default = "momentum", skip_serializing_if = "is_usual_momentum")]
    pub momentum: f32,
    /// How the weights are trained.
    #[serde(default, skip_serializing_if = "is_default")]
    pub weight_options: WeightOptions,
}

impl Default for BatchNormalization {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchNormalization {
    /// Normalization of the last axis, with Keras's defaults.
    pub fn new() -> Self {
        let weight_options = WeightOptions::default();
        Self { axis: -1, epsilon: EPSILON, center: true, scale: true, momentum: momentum(), weight_options }
    }
    /// The share of the old running mean and variance in the new ones, 0.99 by default.
    #[must_use]
    pub fn momentum(mut self, momentum: f32) -> Self {
        self.momentum = momentum;
        self
    }
    setters! {
        /// The axis whose indices have their own numbers.
        axis: isize;
        /// Added to the variance, 1e-3 by default.
        epsilon: f32;
        /// Whether there is a `bias`.
        center: bool;
        /// Whether there is a `weight`.
        scale: bool;
    }
    weight_setters!(
        Gamma gamma_regularizer gamma_constraint,
        Beta beta_regularizer beta_constraint
    );

    /// Mean and variance of a batch `[N, C, …]` for each channel, with which the running ones move on. Timesteps that a
    /// mask of `x` leaves out do not count.
    fn of_batch(
        &self,
        at: &Place<'_>,
        (x, y): (&Flow, &str),
        rank: usize,
        running: [String; 2],
        into: &mut Lowering,
    ) -> (String, String) {
        let axes: Vec<i64> = (0..rank as i64).filter(|&a| a != 1).collect();
        let over = |reduction, x: &str, into: &mut Lowering| {
            let over = ops::ReduceOver { reduction, axes: axes.clone(), keep_dims: true, noop: false, int: None };
            into.node(at.name, over, &[x])
        };
        let plain_mean = over(Reduction::Mean, y, into);
        // A mask has the axes of the batch and of time, and the channels stand behind them.
        let mask = (at.shape.len() == 3).then(|| into.mask_alone(at.name, x));
        let masked = match mask {
            Some((Some(mask), always)) => {
                let mut valid = into.factors(at.name, &mask);
                if into.time_major {
                    valid = into.node(at.name, ops::Transpose(vec![1, 0, 2]), &[&valid]);
                }
                if rank == 2 {
                    let rows = vec![Extent::Axes(0, 2), Extent::Size(1)];
                    valid = into.node(at.name, ops::Reshape(rows), &[&valid]);
                }
                let counted = into.node(at.name, ops::ExpandLike, &[&valid, y]);
                let count = over(Reduction::Sum, &counted, into);
                let least = into.constant(at.name, &[1], &[1.0]);
                let count = into.node(at.name, ops::Binary::Max, &[&count, &least]);
                let zero = into.constant(at.name, &[1], &[0.0]);
                Some((valid, count, zero, always))
            }
            _ => None,
        };
        let mean_of = |x: &str, plain: String, into: &mut Lowering| match &masked {
            None => plain,
            Some((valid, count, zero, always)) => {
                let x = into.node(at.name, ops::Where, &[valid, x, zero]);
                let sum = over(Reduction::Sum, &x, into);
                let mean = into.node(at.name, ops::Binary::Div, &[&sum, count]);
                into.if_masked(at.name, *always, mean, &plain)
            }
        };
        let mean = mean_of(y, plain_mean, into);
        let centered = into.node(at.name, ops::Binary::Sub, &[y, &mean]);
        let squared = into.node(at.name, ops::Binary::Mul, &[&centered, &centered]);
        let plain_variance = over(Reduction::Mean, &squared, into);
        let variance = mean_of(&squared, plain_variance, into);
        let flat = ops::Reshape(vec![Extent::Axes(1, 1)]);
        let both = [mean, variance].map(|v| into.node(at.name, flat.clone(), &[&v]));
        for (running, new) in running.into_iter().zip(&both) {
            let share = |v: &str, alpha: f32, into: &mut Lowering| {
                into.node(at.name, ops::Activate(Activation::Affine { alpha, beta: 0.0 }), &[v])
            };
            // Another call of the layer may have moved it.
            let earlier = into.training.get_or_insert_default().updates.iter().position(|(w, _)| *w == running);
            let old = earlier.map_or(running.clone(), |n| into.training.get_or_insert_default().updates[n].1.clone());
            let (old, new) = (share(&old, self.momentum, into), share(new, 1.0 - self.momentum, into));
            let moved = into.node(at.name, ops::Binary::Add, &[&old, &new]);
            let updates = &mut into.training.get_or_insert_default().updates;
            match earlier {
                Some(n) => updates[n].1 = moved,
                None => updates.push((running, moved)),
            }
        }
        let [mean, variance] = both;
        (mean, variance)
    }

    fn size(&self, name: &str, shape: &Shape) -> Result<(usize, usize)> {
        let axis = axis_of(name, "axis", self.axis, shape.len())?;
        let size = shape[axis].ok_or_else(|| bad_input(name, &format!("known elements on axis {axis}"), shape))?;
        Ok((axis, size))
    }
}

impl LayerModule for BatchNormalization {
    own_weights!();
    fn class_name(&self) -> &'static str {
        "BatchNormalization"
    }
    fn features(&self, name: &str, shape: &Shape) -> Result<usize> {
        check_epsilon(name, self.epsilon)?;
        Ok(self.size(name, shape)?.1)
    }
    fn weights(&self, shapes: &[&Shape], prefix: &str) -> Vec<(String, Vec<usize>)> {
        let (_, size) = self.size("", shapes[0]).expect("checked before");
        let parts = [("weight", self.scale), ("bias", self.center), ("running_mean", true), ("running_var", true)];
        parts.iter().filter(|p| p.1).map(|(part, _)| (format!("{prefix}.{part}"), vec![size])).collect()
    }
    fn initialize(&self, shapes: &[&Shape], prefix: &str, _: u64, into: &mut Weights) -> Result<()> {
        neutral(self.weights(shapes, prefix), into)
    }
    fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
        self.features(name, shape)?;
        Ok(vec![shape.to_vec()])
    }
    fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
        let (axis, size) = self.size(at.name, at.shape)?;
        let rank = at.shape.len();
        let own = into.parameters(self.weights(at.shapes, at.prefix));
        into.normalizes(&own);
        let scale = or_constant(at, &own, "weight", &[size], 1.0, into)?;
        let offset = or_constant(at, &own, "bias", &[size], 0.0, into)?;
        let [mean, variance] = ["running_mean", "running_var"].map(|part| format!("{}.{part}", at.prefix));
        // The operator has the axis second.
        let mut second = vec![Extent::Axes(0, axis), Extent::Axes(axis, 1)];
        if axis + 1 < rank {
            second.push(Extent::Axes(axis + 1, rank - axis - 1));
        }
        let y = into.node(at.name, ops::Reshape(second), &[&x.value]);
        let (mean, variance) = if into.trains() && self.weight_options.trainable {
            self.of_batch(at, (x, &y), if axis + 1 < rank { 3 } else { 2 }, [mean, variance], into)
        } else {
            (mean, variance)
        };
        let inputs: [&str; 5] = [&y, &scale, &offset, &mean, &variance];
        let y = into.node(at.name, ops::BatchNorm { epsilon: self.epsilon }, &inputs);
        let back = (0..rank).map(Extent::Like).collect();
        Ok(Lowered::one(into.node(at.name, ops::Reshape(back), &[&y, &x.value]), x.mask.clone()))
    }
    fn per_timestep(&self) -> bool {
        self.axis == -1 || self.axis > 1
    }
    fn keeps_time(&self, x: &Flow) -> bool {
        x.time
    }
}

/// Layer normalization: `(x - mean) / √(variance + epsilon) · weight + bias`, with the mean and variance of all elements
/// along some axes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LayerNormalization {
    /// The axes that are normalized together; negative ones count from the end. The batch cannot be one of them.
    #[serde(default = "last_axes", skip_serializing_if = "are_last")]
    pub axis: Vec<isize>,
    /// Added to the variance.
    #[serde(default = "epsilon", skip_serializing_if = "is_usual")]
    pub epsilon: f32,
    /// Whether there is a `bias`, Keras's beta. There is none with `rms_scaling`.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub center: bool,
    /// Whether there is a `weight`, Keras's gamma. There always is one with `rms_scaling`.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub scale: bool,
    /// Keras's option of that name: the mean is not subtracted, but the variance is about the mean.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rms_scaling: bool,
    /// How the weights are trained.
    #[serde(default, skip_serializing_if = "is_default")]
    pub weight_options: WeightOptions,
}

fn last_axes() -> Vec<isize> {
    vec![-1]
}
fn are_last(axes: &[isize]) -> bool {
    *axes == [-1]
}

impl Default for LayerNormalization {
    fn default() -> Self {
        Self::new()
    }
}

impl LayerNormalization {
    /// Normalization along the last axis, with Keras's defaults.
    pub fn new() -> Self {
        let weight_options = WeightOptions::default();
        Self { axis: vec![-1], epsilon: EPSILON, center: true, scale: true, rms_scaling: false, weight_options }
    }
    /// The axes that are normalized together.
    #[must_use]
    pub fn axis(mut self, axes: &[isize]) -> Self {
        self.axis = axes.to_vec();
        self
    }
    setters! {
        /// Added to the variance, 1e-3 by default.
        epsilon: f32;
        /// Whether there is a `bias`.
        center: bool;
        /// Whether there is a `weight`.
        scale: bool;
        /// Whether the mean is not subtracted, but the variance is about the mean.
        rms_scaling: bool;
    }
    weight_setters!(
        Gamma gamma_regularizer gamma_constraint,
        Beta beta_regularizer beta_constraint
    );

    /// The axes in order, and their sizes.
    fn axes(&self, name: &str, shape: &Shape) -> Result<(Vec<usize>, Vec<usize>)> {
        let bad = |message: &str| Err(bad_option(name, "axis", format!("{message}, but it is {:?}", self.axis)));
        if self.axis.is_empty() {
            return bad("must be at least one axis");
        }
        // Keras sorts them as they are, which gives the weights another order than the axes.
        if self.axis.iter().any(|&a| a < 0) && self.axis.iter().any(|&a| a >= 0) {
            return bad("must count all axes from the same end");
        }
        let place = |&a| axis_of(name, "axis", a, shape.len());
        let mut axes = self.axis.iter().map(place).collect::<Result<Vec<_>>>()?;
        axes.sort_unstable();
        if axes.windows(2).any(|pair| pair[0] == pair[1]) {
            return bad("must name no axis twice");
        }
        let expected = || format!("known elements on the axes {axes:?}");
        let sizes: Option<Vec<usize>> = axes.iter().map(|&a| shape[a]).collect();
        let sizes = sizes.ok_or_else(|| bad_input(name, &expected(), shape))?;
        Ok((axes, sizes))
    }
}

impl LayerModule for LayerNormalization {
    own_weights!();
    fn class_name(&self) -> &'static str {
        "LayerNormalization"
    }
    fn features(&self, name: &str, shape: &Shape) -> Result<usize> {
        check_epsilon(name, self.epsilon)?;
        let (_, sizes) = self.axes(name, shape)?;
        Ok(sizes.iter().fold(1, |all: usize, &n| all.saturating_mul(n)))
    }
    fn weights(&self, shapes: &[&Shape], prefix: &str) -> Vec<(String, Vec<usize>)> {
        let (_, sizes) = self.axes("", shapes[0]).expect("checked before");
        let parts = [("weight", self.scale || self.rms_scaling), ("bias", self.center && !self.rms_scaling)];
        parts.iter().filter(|p| p.1).map(|(part, _)| (format!("{prefix}.{part}"), sizes.clone())).collect()
    }
    fn initialize(&self, shapes: &[&Shape], prefix: &str, _: u64, into: &mut Weights) -> Result<()> {
        neutral(self.weights(shapes, prefix), into)
    }
    fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
        self.features(name, shape)?;
        Ok(vec![shape.to_vec()])
    }
    fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
        let (axes, sizes) = self.axes(at.name, at.shape)?;
        let (rank, first) = (at.shape.len(), at.shape.len() - axes.len());
        let own = into.parameters(self.weights(at.shapes, at.prefix));
        into.normalizes(&own);
        // The operator normalizes the last axes.
        let order: Vec<usize> = (0..rank).filter(|n| !axes.contains(n)).chain(axes.iter().copied()).collect();
        let moved = !order.iter().copied().eq(0..rank);
        let last = if moved { into.node(at.name, ops::Transpose(order.clone()), &[&x.value]) } else { x.value.clone() };
        let mut y = if self.rms_scaling {
            let over = || ops::ReduceOver {
                reduction: Reduction::Mean,
                axes: (first as i64..rank as i64).collect(),
                keep_dims: true,
                noop: false,
                int: None,
            };
            let mean = into.node(at.name, over(), &[&last]);
            let apart = into.node(at.name, ops::Binary::Sub, &[&last, &mean]);
            let square = into.node(at.name, ops::Binary::Mul, &[&apart, &apart]);
            let variance = into.node(at.name, over(), &[&square]);
            let sum = Activation::Affine { alpha: 1.0, beta: self.epsilon };
            let sum = into.node(at.name, ops::Activate(sum), &[&variance]);
            let root = into.root(at.name, &sum);
            let scaled = into.node(at.name, ops::Binary::Div, &[&last, &root]);
            into.node(at.name, ops::Binary::Mul, &[&scaled, &own[0]])
        } else {
            let scale = or_constant(at, &own, "weight", &sizes, 1.0, into)?;
            let normalize = ops::Normalize { together: Together::Layer(first as i64), epsilon: self.epsilon };
            let mut inputs = vec![&last[..], &scale];
            inputs.extend(own.iter().filter(|w| w.ends_with(".bias")).map(String::as_str));
            into.node(at.name, normalize, &inputs)
        };
        if moved {
            let mut back = vec![0; rank];
            order.iter().enumerate().for_each(|(to, &from)| back[from] = to);
            y = into.node(at.name, ops::Transpose(back), &[&y]);
        }
        Ok(Lowered::one(y, x.mask.clone()))
    }
    fn per_timestep(&self) -> bool {
        self.axis.iter().all(|&a| a == -1 || a > 1)
    }
    fn keeps_time(&self, x: &Flow) -> bool {
        x.time
    }
}
