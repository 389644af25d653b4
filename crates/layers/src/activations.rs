//! Layers that apply a function to each element, and softmax.

use crate::layer::{LayerModule, Shape, axis_of, bad_input, bad_option, is_default, is_last, last_axis, setters};
use crate::lowering::{Flow, Lowered, Lowering, Place};
use crate::weight_options::{own_weights, weight_setters};
use crate::{Initializer, Result, WeightOptions, Weights};
use recurve_graph::ops::{self, Shares};
use recurve_tensor::Function;
use recurve_vocabulary::Activation;
use serde::{Deserialize, Serialize};

/// A function that an [`ActivationLayer`] applies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ActivationFunction {
    /// A function that other layers have too.
    Elementwise(Activation),
    /// `e^x / Σ e^x` over the last axis.
    Softmax,
    /// The logarithm of the softmax over the last axis.
    LogSoftmax,
    /// `x · Φ(x)`, with the distribution function of the normal distribution.
    Gelu,
    /// The approximation of [`Self::Gelu`] by tanh.
    GeluTanh,
    /// `x · sigmoid(x)`, also called swish.
    Silu,
    /// Self-normalizing: ELU with its fixed alpha and scale.
    Selu,
    /// `x · tanh(ln(1 + e^x))`
    Mish,
    /// `e^x`
    Exponential,
    /// `x · clamp(x / 6 + 1/2, 0, 1)`, also called hard swish.
    HardSilu,
    /// `clamp(x, 0, 6)`
    Relu6,
    /// `x` if `x >= 0`, else `alpha · (e^(x / alpha) - 1)`
    Celu {
        /// The least value is `-alpha`.
        alpha: f32,
    },
    /// `clamp(x, -1, 1)`
    HardTanh,
    /// `ln(sigmoid(x))`
    LogSigmoid,
    /// `x - tanh(x)`
    TanhShrink,
    /// `x` moved towards 0 by the threshold, but not beyond it.
    SoftShrink {
        /// The threshold.
        threshold: f32,
    },
    /// `(x + √(x² + b)) / 2`
    SquarePlus {
        /// How round it is.
        b: f32,
    },
    /// `√x`, for magnitudes of spectra; NaN below 0.
    Sqrt,
}

impl From<Activation> for ActivationFunction {
    fn from(f: Activation) -> Self {
        Self::Elementwise(f)
    }
}

/// SELU's constants.
const SELU_ALPHA: f32 = 1.673_263_2;
const SELU_SCALE: f32 = 1.050_701;

/// Applies a function. Keras's `Activation`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ActivationLayer {
    /// The function.
    pub activation: ActivationFunction,
}

impl ActivationLayer {
    /// Applies this function.
    pub fn new(activation: impl Into<ActivationFunction>) -> Self {
        Self { activation: activation.into() }
    }
}

impl LayerModule for ActivationLayer {
    fn class_name(&self) -> &'static str {
        "Activation"
    }
    fn features(&self, name: &str, shape: &Shape) -> Result<usize> {
        use ActivationFunction::{Celu, LogSoftmax, SoftShrink, Softmax, SquarePlus};
        let (argument, number, fits) = match self.activation {
            Celu { alpha } => ("alpha", alpha, alpha.is_finite() && alpha > 0.0),
            SoftShrink { threshold } => ("threshold", threshold, threshold.is_finite() && threshold >= 0.0),
            SquarePlus { b } => ("b", b, b.is_finite() && b >= 0.0),
            Softmax | LogSoftmax if shape.len() < 2 => {
                return Err(bad_input(name, "[batch, …] with at least two dimensions", shape));
            }
            _ => return Ok(0),
        };
        if fits { Ok(0) } else { Err(bad_option(name, argument, format!("is {number}, for which it is not defined"))) }
    }
    fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
        self.features(name, shape)?;
        Ok(vec![shape.to_vec()])
    }
    fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
        use ActivationFunction as F;
        let negative = Activation::Affine { alpha: -1.0, beta: 0.0 };
        let v = &x.value;
        let shares = |shares| ops::SoftmaxOver { shares, axis: -1, flattened: false };
        let y = match self.activation {
            F::Elementwise(Activation::Linear) => v.clone(),
            F::Elementwise(f) => into.node(at.name, ops::Activate(f), &[v]),
            F::Softmax => into.node(at.name, shares(Shares::Softmax), &[v]),
            F::LogSoftmax => into.node(at.name, shares(Shares::LogSoftmax), &[v]),
            F::Gelu => into.map(at.name, Function::Gelu, v),
            F::GeluTanh => into.map(at.name, Function::GeluTanh, v),
            F::Silu => into.map(at.name, Function::Swish { alpha: 1.0 }, v),
            F::Selu => into.map(at.name, Function::Selu { alpha: SELU_ALPHA, gamma: SELU_SCALE }, v),
            F::Mish => into.map(at.name, Function::Mish, v),
            F::Exponential => into.map(at.name, Function::Exp, v),
            F::HardSilu => into.map(at.name, Function::HardSwish, v),
            F::Relu6 => into.map(at.name, Function::Clip { low: 0.0, high: 6.0 }, v),
            F::Celu { alpha } => into.map(at.name, Function::Celu { alpha }, v),
            F::HardTanh => into.map(at.name, Function::Clip { low: -1.0, high: 1.0 }, v),
            F::LogSigmoid => {
                let minus = into.node(at.name, ops::Activate(negative), &[v]);
                let soft = into.node(at.name, ops::Activate(Activation::Softplus), &[&minus]);
                into.node(at.name, ops::Activate(negative), &[&soft])
            }
            F::TanhShrink => {
                let tanh = into.node(at.name, ops::Activate(Activation::Tanh), &[v]);
                into.node(at.name, ops::Binary::Sub, &[v, &tanh])
            }
            F::SoftShrink { threshold } => {
                let near = into.map(at.name, Function::Clip { low: -threshold, high: threshold }, v);
                into.node(at.name, ops::Binary::Sub, &[v, &near])
            }
            F::Sqrt => into.root(at.name, v),
            F::SquarePlus { b } => {
                let square = into.node(at.name, ops::Binary::Mul, &[v, v]);
                let sum = into.node(at.name, ops::Activate(Activation::Affine { alpha: 1.0, beta: b }), &[&square]);
                let root = into.root(at.name, &sum);
                let both = into.node(at.name, ops::Binary::Add, &[v, &root]);
                into.node(at.name, ops::Activate(Activation::Affine { alpha: 0.5, beta: 0.0 }), &[&both])
            }
        };
        Ok(Lowered::one(y, x.mask.clone()))
    }
}

/// Checks that a number is finite and not negative.
fn not_negative(name: &str, argument: &'static str, number: f32) -> Result<()> {
    if number.is_finite() && number >= 0.0 {
        return Ok(());
    }
    Err(bad_option(name, argument, format!("must be finite and at least 0, but it is {number}")))
}

/// `x` if `x >= 0`, else `negative_slope · x`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LeakyRelu {
    /// The slope below zero.
    pub negative_slope: f32,
}

impl LeakyRelu {
    /// With this slope below zero. Keras's default is 0.3.
    pub fn new(negative_slope: f32) -> Self {
        Self { negative_slope }
    }
}

impl LayerModule for LeakyRelu {
    fn class_name(&self) -> &'static str {
        "LeakyReLU"
    }
    fn features(&self, name: &str, _: &Shape) -> Result<usize> {
        not_negative(name, "negative_slope", self.negative_slope).map(|()| 0)
    }
    fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
        self.features(name, shape)?;
        Ok(vec![shape.to_vec()])
    }
    fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
        let f = Activation::LeakyRelu { alpha: self.negative_slope };
        Ok(Lowered::one(into.node(at.name, ops::Activate(f), &[&x.value]), x.mask.clone()))
    }
}

/// `x` if `x >= 0`, else `weight · x`, with a weight for every element behind the batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PRelu {
    /// Axes along which the elements share a weight, from 1.
    #[serde(default, skip_serializing_if = "is_default")]
    pub shared_axes: Vec<usize>,
    /// How the weights are trained.
    #[serde(default, skip_serializing_if = "is_default")]
    pub weight_options: WeightOptions,
}

impl PRelu {
    /// With a weight for every element.
    pub fn new() -> Self {
        Self::default()
    }
    /// Axes along which the elements share a weight, from 1.
    #[must_use]
    pub fn shared_axes(mut self, axes: &[usize]) -> Self {
        self.shared_axes = axes.to_vec();
        self
    }
    weight_setters!(
        Alpha alpha_regularizer alpha_constraint
    );

    /// The shape of the weight.
    fn dims(&self, name: &str, shape: &Shape) -> Result<Vec<usize>> {
        if shape.len() < 2 {
            return Err(bad_input(name, "[batch, …] with at least two dimensions", shape));
        }
        if let Some(axis) = self.shared_axes.iter().find(|&&a| a == 0 || a >= shape.len()) {
            let message = format!("must be axes from 1 to {}, but one is {axis}", shape.len() - 1);
            return Err(bad_option(name, "shared_axes", message));
        }
        let size = |axis: usize| if self.shared_axes.contains(&axis) { Some(1) } else { shape[axis] };
        let dims: Option<Vec<usize>> = (1..shape.len()).map(size).collect();
        dims.ok_or_else(|| bad_input(name, "known elements on every axis that is not in shared_axes", shape))
    }
}

impl LayerModule for PRelu {
    own_weights!();
    fn class_name(&self) -> &'static str {
        "PReLU"
    }
    fn features(&self, name: &str, shape: &Shape) -> Result<usize> {
        Ok(self.dims(name, shape)?.iter().fold(1, |all: usize, &n| all.saturating_mul(n)))
    }
    fn weights(&self, shapes: &[&Shape], prefix: &str) -> Vec<(String, Vec<usize>)> {
        vec![(format!("{prefix}.weight"), self.dims("", shapes[0]).expect("checked before"))]
    }
    fn initialize(&self, shapes: &[&Shape], prefix: &str, seed: u64, into: &mut Weights) -> Result<()> {
        crate::layer::initialize(self.weights(shapes, prefix), Initializer::Zeros, seed, into)
    }
    fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
        self.features(name, shape)?;
        Ok(vec![shape.to_vec()])
    }
    fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
        let weight = into.parameters(self.weights(at.shapes, at.prefix)).swap_remove(0);
        Ok(Lowered::one(into.node(at.name, ops::Binary::PRelu, &[&x.value, &weight]), x.mask.clone()))
    }
    fn per_timestep(&self) -> bool {
        self.shared_axes.contains(&1)
    }
    fn keeps_time(&self, x: &Flow) -> bool {
        x.time
    }
}

/// `x` if `x >= 0`, else `alpha · (e^x - 1)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Elu {
    /// The least value is `-alpha`.
    pub alpha: f32,
}

impl Elu {
    /// With this alpha. Keras's default is 1.
    pub fn new(alpha: f32) -> Self {
        Self { alpha }
    }
}

impl LayerModule for Elu {
    fn class_name(&self) -> &'static str {
        "ELU"
    }
    fn features(&self, name: &str, _: &Shape) -> Result<usize> {
        if self.alpha.is_finite() {
            return Ok(0);
        }
        Err(bad_option(name, "alpha", format!("must be finite, but it is {}", self.alpha)))
    }
    fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
        self.features(name, shape)?;
        Ok(vec![shape.to_vec()])
    }
    fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
        let f = Activation::Elu { alpha: self.alpha };
        Ok(Lowered::one(into.node(at.name, ops::Activate(f), &[&x.value]), x.mask.clone()))
    }
}

/// `max_value` where x is larger, `x` above the threshold, else `negative_slope · (x - threshold)`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Relu {
    /// The largest value; `None` for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_value: Option<f32>,
    /// The slope below the threshold.
    #[serde(default, skip_serializing_if = "is_default")]
    pub negative_slope: f32,
    /// The largest element that does not stay as it is.
    #[serde(default, skip_serializing_if = "is_default")]
    pub threshold: f32,
}

impl Relu {
    /// `max(x, 0)`.
    pub fn new() -> Self {
        Self::default()
    }
    /// The largest value.
    #[must_use]
    pub fn max_value(mut self, value: f32) -> Self {
        self.max_value = Some(value);
        self
    }
    setters! {
        /// The slope below the threshold, 0 by default.
        negative_slope: f32;
        /// The largest element that does not stay as it is, 0 by default.
        threshold: f32;
    }
}

impl LayerModule for Relu {
    fn class_name(&self) -> &'static str {
        "ReLU"
    }
    fn features(&self, name: &str, _: &Shape) -> Result<usize> {
        not_negative(name, "max_value", self.max_value.unwrap_or(0.0))?;
        not_negative(name, "negative_slope", self.negative_slope)?;
        not_negative(name, "threshold", self.threshold)?;
        Ok(0)
    }
    fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
        self.features(name, shape)?;
        Ok(vec![shape.to_vec()])
    }
    fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
        let (threshold, slope) = (self.threshold, self.negative_slope);
        let above = if threshold == 0.0 { Activation::Relu } else { Activation::ThresholdedRelu { alpha: threshold } };
        let mut y = into.node(at.name, ops::Activate(above), &[&x.value]);
        if let Some(high) = self.max_value {
            y = into.map(at.name, Function::Clip { low: 0.0, high }, &y);
        }
        if slope != 0.0 {
            let affine = |alpha, beta| ops::Activate(Activation::Affine { alpha, beta });
            let below = into.node(at.name, affine(-1.0, threshold), &[&x.value]);
            let below = into.node(at.name, ops::Activate(Activation::Relu), &[&below]);
            let below = into.node(at.name, affine(slope, 0.0), &[&below]);
            y = into.node(at.name, ops::Binary::Sub, &[&y, &below]);
        }
        Ok(Lowered::one(y, x.mask.clone()))
    }
}

/// `e^x / Σ e^x` along an axis, by default the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Softmax {
    /// The axis; a negative one counts from the end. It cannot be the batch axis.
    #[serde(default = "last_axis", skip_serializing_if = "is_last")]
    pub axis: isize,
}

impl Default for Softmax {
    fn default() -> Self {
        Self::new()
    }
}

impl Softmax {
    /// Along the last axis.
    pub fn new() -> Self {
        Self { axis: -1 }
    }
    setters! {
        /// The axis; a negative one counts from the end.
        axis: isize;
    }
}

impl LayerModule for Softmax {
    fn class_name(&self) -> &'static str {
        "Softmax"
    }
    fn features(&self, name: &str, shape: &Shape) -> Result<usize> {
        axis_of(name, "axis", self.axis, shape.len()).map(|_| 0)
    }
    fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
        self.features(name, shape)?;
        Ok(vec![shape.to_vec()])
    }
    fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
        // Keras aligns a mask [batch, timesteps] with the last axes, for which it has the wrong shape.
        if x.mask.is_some() {
            let message =
                "must have no mask: Keras would apply it to the last axis. The layer `Activation` leaves it alone";
            return Err(bad_option(at.name, "inputs", message));
        }
        let axis = axis_of(at.name, "axis", self.axis, at.shape.len())? as i64;
        let softmax = ops::SoftmaxOver { shares: Shares::Softmax, axis, flattened: false };
        Ok(Lowered::one(into.node(at.name, softmax, &[&x.value]), None))
    }
    fn per_timestep(&self) -> bool {
        self.axis == -1 || self.axis > 1
    }
    fn keeps_time(&self, x: &Flow) -> bool {
        x.time
    }
}
