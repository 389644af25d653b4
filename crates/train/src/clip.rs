//! Limits of gradients.

use crate::builder::Builder;
use crate::error::check;
use crate::{Form, Result};
use recurve_graph::ops::Binary;
use recurve_graph::{Assembly, ValueId};
use recurve_tensor::{Function, Reduction};
use serde::{Deserialize, Serialize};

/// A limit of gradients.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Clip {
    /// Each element is at most this far from 0: Keras's `clipvalue`, PyTorch's `clip_grad_value_`.
    Value(f64),
    /// Each gradient whose norm is larger is scaled to this norm: Keras's `clipnorm`. The two biases of a recurrent layer
    /// are two weights here and in PyTorch; in a GRU of Keras they are one.
    Norm(f64),
    /// All gradients are scaled together if their common norm is larger.
    GlobalNorm {
        /// The largest norm.
        norm: f64,
        /// As Keras's `global_clipnorm`, by which a gradient that is not finite makes all of them NaN, or as PyTorch's
        /// `clip_grad_norm_`, which divides by the norm and 1e-6.
        form: Form,
    },
}

impl Clip {
    /// Checks the limit.
    ///
    /// # Errors
    /// [`crate::Error::Option`].
    pub fn check(&self) -> Result<()> {
        let (Self::Value(v) | Self::Norm(v) | Self::GlobalNorm { norm: v, .. }) = *self;
        check("clipping", "limit", v > 0.0 && v < f64::INFINITY, || {
            format!("must be finite and above 0, but it is {v}")
        })
    }

    /// Adds nodes that limit gradients.
    ///
    /// # Errors
    /// As [`Self::check`]; errors of the graph.
    pub fn add(&self, assembly: &mut Assembly, gradients: &[ValueId]) -> Result<Vec<ValueId>> {
        self.check()?;
        let mut b = Builder { assembly, name: "clipping" };
        match *self {
            Self::Value(v) => {
                let function = Function::Clip { low: -v as f32, high: v as f32 };
                gradients.iter().map(|&g| b.map(function, g)).collect()
            }
            Self::Norm(limit) => gradients
                .iter()
                .map(|&g| {
                    let norm = b.over_all(Reduction::L2, g)?;
                    let limit = b.number(limit as f32)?;
                    let larger = b.binary(Binary::Max, norm, limit)?;
                    let factor = b.binary(Binary::Div, limit, larger)?;
                    b.binary(Binary::Mul, g, factor)
                })
                .collect(),
            Self::GlobalNorm { norm: limit, form } => {
                let mut total = None;
                for &g in gradients {
                    let sum = b.over_all(Reduction::SumSquare, g)?;
                    total = Some(match total {
                        Some(total) => b.binary(Binary::Add, total, sum)?,
                        None => sum,
                    });
                }
                let Some(total) = total else { return Ok(Vec::new()) };
                let norm = b.map(Function::Sqrt, total)?;
                let limit_value = b.number(limit as f32)?;
                let factor = match form {
                    Form::Keras => {
                        let larger = b.binary(Binary::Max, norm, limit_value)?;
                        let factor = b.binary(Binary::Div, limit_value, larger)?;
                        // NaN if the norm is not finite, else 0
                        let spoiled = b.binary(Binary::Sub, norm, norm)?;
                        b.binary(Binary::Add, factor, spoiled)?
                    }
                    Form::Pytorch => {
                        let more = b.affine(norm, 1.0, 1e-6)?;
                        let factor = b.binary(Binary::Div, limit_value, more)?;
                        let one = b.number(1.0)?;
                        b.binary(Binary::Min, factor, one)?
                    }
                };
                gradients.iter().map(|&g| b.binary(Binary::Mul, g, factor)).collect()
            }
        }
    }
}
