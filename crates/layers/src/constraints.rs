//! What is made of weights after each step.

use crate::Result;
use crate::layer::bad_option;
use crate::weight_options::KerasVariable;
use recurve_graph::ops::{Activate, Binary, Concat, Extent, Map, ReduceOver, Reshape, Slice};
use recurve_graph::{Assembly, Element, Operator, ValueId};
use recurve_tensor::{Function, Reduction};
use recurve_vocabulary::Activation;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What training makes of a variable after each step, in Keras's words. The norms are those along some axes of the variable
/// as Keras has it: a `Dense` has a kernel `[inputs, units]`, a convolution `[…, inputs, filters]`. Negative axes count
/// from the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Constraint {
    /// A norm is at most this large.
    MaxNorm {
        /// The largest norm.
        max_value: f32,
        /// The axes.
        axis: Vec<isize>,
    },
    /// No element is below 0.
    NonNeg,
    /// Each norm is 1.
    UnitNorm {
        /// The axes.
        axis: Vec<isize>,
    },
    /// A norm comes closer to a range.
    MinMaxNorm {
        /// The least norm.
        min_value: f32,
        /// The largest norm.
        max_value: f32,
        /// The share of the way into the range that a step goes, 1 for all of it.
        rate: f32,
        /// The axes.
        axis: Vec<isize>,
    },
}

/// What Keras adds to norms.
const EPSILON: f32 = 1e-7;

impl Constraint {
    /// Keras's `MaxNorm` along axis 0. Its default is 2.
    pub fn max_norm(max_value: f32) -> Self {
        Self::MaxNorm { max_value, axis: vec![0] }
    }

    /// Keras's `UnitNorm` along axis 0.
    pub fn unit_norm() -> Self {
        Self::UnitNorm { axis: vec![0] }
    }

    /// Keras's `MinMaxNorm` along axis 0. Its defaults are 0, 1 and 1.
    pub fn min_max_norm(min_value: f32, max_value: f32, rate: f32) -> Self {
        Self::MinMaxNorm { min_value, max_value, rate, axis: vec![0] }
    }

    /// The same along other axes; without effect on [`Self::NonNeg`].
    #[must_use]
    pub fn axis(mut self, axes: &[isize]) -> Self {
        if let Self::MaxNorm { axis, .. } | Self::UnitNorm { axis } | Self::MinMaxNorm { axis, .. } = &mut self {
            *axis = axes.to_vec();
        }
        self
    }

    pub(crate) fn check(&self, layer: &str, argument: &'static str) -> Result<()> {
        let bad = |message: String| Err(bad_option(layer, argument, message));
        let (low, high, rate) = match *self {
            Self::MaxNorm { max_value, .. } => (0.0, max_value, 1.0),
            Self::MinMaxNorm { min_value, max_value, rate, .. } => (min_value, max_value, rate),
            Self::NonNeg | Self::UnitNorm { .. } => return Ok(()),
        };
        if !(low >= 0.0 && high >= low && high.is_finite()) {
            return bad(format!(
                "must have norms that are finite, not negative and in order, but they are {low} and {high}"
            ));
        }
        if !(0.0..=1.0).contains(&rate) {
            return bad(format!("must have a `rate` in [0, 1], but it is {rate}"));
        }
        Ok(())
    }
}

/// A variable that is constrained.
#[derive(Clone, Debug)]
pub struct ConstrainedWeights {
    layer: String,
    variable: KerasVariable,
    constraint: Constraint,
    /// The axes of the norms, among those of Recurve.
    axes: Vec<i64>,
}

impl ConstrainedWeights {
    /// # Errors
    /// [`crate::Error::Option`] for an axis that the variable does not have, or that is named twice.
    pub(crate) fn new(layer: &str, variable: KerasVariable, constraint: Constraint) -> Result<Self> {
        let rank = variable.order.len();
        let mut axes = Vec::new();
        if let Constraint::MaxNorm { axis, .. } | Constraint::UnitNorm { axis } | Constraint::MinMaxNorm { axis, .. } =
            &constraint
        {
            for &axis in axis {
                let place = if axis < 0 { axis.checked_add_unsigned(rank) } else { Some(axis) };
                let place = place.and_then(|n| usize::try_from(n).ok()).and_then(|n| variable.order.get(n));
                match place.map(|&n| n as i64).filter(|n| !axes.contains(n)) {
                    Some(place) => axes.push(place),
                    None => {
                        let message = format!("must be along different ones of {rank} axes, but one is {axis}");
                        return Err(bad_option(layer, variable.variable.constraint(), message));
                    }
                }
            }
            if axes.is_empty() {
                return Err(bad_option(layer, variable.variable.constraint(), "must be along at least one axis"));
            }
        }
        Ok(Self { layer: layer.into(), variable, constraint, axes })
    }

    /// The names of the weights, which are constrained together.
    pub fn weights(&self) -> &[String] {
        &self.variable.weights
    }

    /// Adds nodes that make the constrained weights of the weights after a step.
    ///
    /// # Errors
    /// Errors of the graph.
    pub fn add(&self, assembly: &mut Assembly, weights: &[ValueId]) -> recurve_graph::Result<Vec<ValueId>> {
        let name = format!("constraint of {}", self.layer);
        let mut node = |operator: Arc<dyn Operator>, inputs: &[ValueId]| {
            let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
            Ok::<_, recurve_graph::Error>(assembly.derived(&name, operator, &inputs, 1)?[0])
        };
        let whole = if self.variable.is_weight() {
            weights[0]
        } else {
            let part = Arc::new(self.variable.part());
            let parts = weights.iter().map(|&w| node(part.clone(), &[w])).collect::<Result<Vec<_>, _>>()?;
            match parts[..] {
                [one] => one,
                _ => node(Arc::new(Concat { axis: 0 }), &parts)?,
            }
        };
        let affine = |alpha: f32, beta: f32| Arc::new(Activate(Activation::Affine { alpha, beta }));
        let norm =
            ReduceOver { reduction: Reduction::L2, axes: self.axes.clone(), keep_dims: true, noop: false, int: None };
        let clip =
            |low: f32, high: f32| Arc::new(Map { function: Function::Clip { low, high }, element: Element::F32 });
        let limited = match self.constraint {
            Constraint::NonNeg => node(Arc::new(Activate(Activation::Relu)), &[whole])?,
            Constraint::UnitNorm { .. } => {
                let norms = node(Arc::new(norm), &[whole])?;
                let divisors = node(affine(1.0, EPSILON), &[norms])?;
                node(Arc::new(Binary::Div), &[whole, divisors])?
            }
            Constraint::MaxNorm { max_value: high, .. } | Constraint::MinMaxNorm { max_value: high, .. } => {
                let norms = node(Arc::new(norm), &[whole])?;
                let desired = match self.constraint {
                    Constraint::MinMaxNorm { min_value, rate, .. } => {
                        let inside = node(clip(min_value, high), &[norms])?;
                        let inside = node(affine(rate, 0.0), &[inside])?;
                        let rest = node(affine(1.0 - rate, 0.0), &[norms])?;
                        node(Arc::new(Binary::Add), &[inside, rest])?
                    }
                    _ => node(clip(0.0, high), &[norms])?,
                };
                let divisors = node(affine(1.0, EPSILON), &[norms])?;
                let factors = node(Arc::new(Binary::Div), &[desired, divisors])?;
                node(Arc::new(Binary::Mul), &[whole, factors])?
            }
        };
        if self.variable.is_weight() {
            return Ok(vec![limited]);
        }
        let own = Arc::new(Reshape(self.variable.own.iter().copied().map(Extent::Size).collect()));
        let count = weights.len();
        (0..count)
            .map(|n| {
                let part = match count {
                    1 => limited,
                    _ => node(Arc::new(Slice { axis: 0, start: n as isize, len: 1 }), &[limited])?,
                };
                node(own.clone(), &[part])
            })
            .collect()
    }
}
