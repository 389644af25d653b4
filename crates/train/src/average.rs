//! Moving averages of parameters, and gradients of several batches together.

use crate::Result;
use crate::builder::Builder;
use crate::error::check_range;
use recurve_graph::ops::Binary;
use recurve_graph::{Assembly, ValueId};
use serde::{Deserialize, Serialize};

/// An exponential moving average of parameters, as Keras's `use_ema`: `m · average + (1 - m) · parameter`, which is the
/// parameter itself after the first step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Average {
    /// The part of the old average.
    pub momentum: f64,
}

impl Default for Average {
    /// With the momentum 0.99, as Keras.
    fn default() -> Self {
        Self { momentum: 0.99 }
    }
}

impl Average {
    /// With this momentum.
    ///
    /// # Errors
    /// [`crate::Error::Option`] unless it is in `[0, 1)`.
    pub fn new(momentum: f64) -> Result<Self> {
        check_range("average", "momentum", momentum, 0.0, 1.0)?;
        Ok(Self { momentum })
    }

    /// The part of the parameter in the new average, the input `rate` of [`Self::add`], at a step, of which the first is
    /// 1.
    pub fn rate(&self, step: u64) -> f32 {
        if step <= 1 { 1.0 } else { (1.0 - self.momentum) as f32 }
    }

    /// Adds nodes that move averages towards parameters. `rate` is one number.
    ///
    /// # Errors
    /// Errors of the graph.
    pub fn add(assembly: &mut Assembly, average: ValueId, parameter: ValueId, rate: ValueId) -> Result<ValueId> {
        let mut b = Builder { assembly, name: "average" };
        let difference = b.binary(Binary::Sub, parameter, average)?;
        let part = b.binary(Binary::Mul, difference, rate)?;
        b.binary(Binary::Add, average, part)
    }
}

/// Adds a node that adds a gradient to the sum of those of earlier batches.
///
/// # Errors
/// Errors of the graph.
pub fn accumulated(assembly: &mut Assembly, sum: ValueId, gradient: ValueId) -> Result<ValueId> {
    Builder { assembly, name: "accumulated gradient" }.binary(Binary::Add, sum, gradient)
}

/// Adds a node that divides a sum of gradients by the number of batches, as Keras's `gradient_accumulation_steps`.
///
/// # Errors
/// [`crate::Error::Option`] if there are none; errors of the graph.
pub fn mean_of(assembly: &mut Assembly, sum: ValueId, batches: usize) -> Result<ValueId> {
    crate::error::check("accumulated gradient", "batches", batches > 0, || "must be at least 1, but it is 0".into())?;
    let mut b = Builder { assembly, name: "accumulated gradient" };
    let count = b.number(batches as f32)?;
    b.binary(Binary::Div, sum, count)
}
