//! Fully connected layers.

use crate::layer::{LayerModule, Shape, bad_input, is_default, is_yes, last, setters, yes};
use crate::lowering::{Flow, Lowered, Lowering, Place};
use crate::weight_options::{own_weights, weight_setters};
use crate::{Result, WeightOptions};
use recurve_graph::ops;
use recurve_vocabulary::Activation;
use serde::{Deserialize, Serialize};

/// A fully connected layer over the last dimension: `f(x · Wᵀ + b)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Dense {
    /// Number of outputs.
    pub units: usize,
    /// The activation function `f`.
    pub activation: Activation,
    /// Whether there is a bias `b`.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub use_bias: bool,
    /// How the weights are trained.
    #[serde(default, skip_serializing_if = "is_default")]
    pub weight_options: WeightOptions,
}

impl Dense {
    /// A layer with `units` outputs, linear activation and a bias.
    pub fn new(units: usize) -> Self {
        Self { units, activation: Activation::Linear, use_bias: true, weight_options: WeightOptions::default() }
    }
    setters! {
        /// The activation.
        activation: Activation;
        /// Whether there is a bias.
        use_bias: bool;
    }
    weight_setters!(
        Kernel kernel_regularizer kernel_constraint,
        Bias bias_regularizer bias_constraint
    );
}

impl LayerModule for Dense {
    own_weights!();
    fn class_name(&self) -> &'static str {
        "Dense"
    }
    fn features(&self, name: &str, shape: &Shape) -> Result<usize> {
        match shape {
            [_, .., Some(f)] => Ok(*f),
            _ => Err(bad_input(name, "[batch, …, features] with known features", shape)),
        }
    }
    fn weights(&self, shapes: &[&Shape], prefix: &str) -> Vec<(String, Vec<usize>)> {
        let mut all = vec![(format!("{prefix}.weight"), vec![self.units, last(shapes)])];
        if self.use_bias {
            all.push((format!("{prefix}.bias"), vec![self.units]));
        }
        all
    }
    fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
        self.features(name, shape)?;
        let mut out = shape.to_vec();
        *out.last_mut().expect("checked to have a last dimension") = Some(self.units);
        Ok(vec![out])
    }
    fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
        let weights = into.parameters(self.weights(at.shapes, at.prefix));
        let inputs: Vec<&str> = std::iter::once(&x.value).chain(&weights).map(String::as_str).collect();
        let linear = ops::Linear { transposed: true, activation: self.activation };
        Ok(Lowered::one(into.node(at.name, linear, &inputs), x.mask.clone()))
    }
}
