//! Metrics that are means, as nodes of a graph.

use super::Metric;
use crate::builder::Builder;
use crate::{Loss, Result};
use recurve_graph::ops::{ArgMax, Binary, Concat, ExpandLike};
use recurve_graph::{Assembly, Element, ValueId};
use recurve_tensor::{Function, Reduction};

impl Metric {
    /// Adds nodes that compute what a batch adds to a metric that is a mean: the weighted sum of its values and the sum of
    /// their weights, `[2]`, which [`MetricState::add`](super::MetricState::add) takes, so that predictions need not be
    /// read. `None` for a metric that is no mean, or is only computed in host memory.
    ///
    /// Predictions, weights and mask are as for [`Loss::add`], and so are targets: labels for
    /// [`Self::SparseCategoricalAccuracy`] and [`Self::Perplexity`], none for [`Self::Mean`]. Numbers are counted in f32,
    /// exactly up to 2^24 in a batch.
    ///
    /// # Errors
    /// [`crate::Error::Option`] for options out of range, [`crate::Error::Operand`] for values that do not fit; errors of
    /// the graph.
    pub fn add(
        &self,
        assembly: &mut Assembly,
        prediction: ValueId,
        target: Option<ValueId>,
        weights: Option<ValueId>,
        mask: Option<ValueId>,
    ) -> Result<Option<ValueId>> {
        self.check()?;
        let mut b = Builder { assembly, name: self.name() };
        let kind = b.kind(prediction);
        if kind.dtype != Element::F32 || kind.unranked || kind.rank() == 0 {
            return Err(b.operand("prediction", "f32 of one or more dimensions", prediction));
        }
        let p = if b.rank(prediction) == 1 { b.column(prediction)? } else { prediction };
        let target = || target.ok_or_else(|| missing(self.name()));
        let values = match *self {
            Self::Mean => b.over_last(Reduction::Mean, p, false)?,
            Self::BinaryAccuracy { threshold } => {
                let y = of_shape(&mut b, target()?, p)?;
                let threshold = b.number(threshold)?;
                let above = b.binary(Binary::Greater, p, threshold)?;
                let above = b.as_f32("prediction", above)?;
                let right = b.binary(Binary::Equal, above, y)?;
                let right = b.as_f32("prediction", right)?;
                b.over_last(Reduction::Mean, right, false)?
            }
            Self::CategoricalAccuracy | Self::SparseCategoricalAccuracy => {
                let axis = b.rank(p) - 1;
                let y = target()?;
                let place = b.node(ArgMax { axis }, &[p])?;
                let place = b.without_last(place)?;
                let place = b.as_f32("prediction", place)?;
                let own = if *self == Self::CategoricalAccuracy {
                    let y = b.as_f32("target", y)?;
                    b.same_shape("target", y, p)?;
                    let own = b.node(ArgMax { axis }, &[y])?;
                    b.without_last(own)?
                } else {
                    match b.last(y) {
                        Some(1) if b.rank(y) == b.rank(p) => b.without_last(y)?,
                        _ => y,
                    }
                };
                let own = b.as_f32("target", own)?;
                b.same_shape("target", own, place)?;
                let right = b.binary(Binary::Equal, place, own)?;
                b.as_f32("prediction", right)?
            }
            Self::MeanSquaredError | Self::MeanAbsoluteError | Self::RootMeanSquaredError => {
                let y = of_shape(&mut b, target()?, p)?;
                let error = b.binary(Binary::Sub, p, y)?;
                let error = match self {
                    Self::MeanAbsoluteError => b.map(Function::Abs, error)?,
                    _ => b.binary(Binary::Mul, error, error)?,
                };
                b.over_last(Reduction::Mean, error, false)?
            }
            Self::Perplexity { from_logits } => {
                let y = target()?;
                let loss = Loss::sparse_categorical_crossentropy();
                let loss = if from_logits { loss.from_logits() } else { loss };
                loss.values(&mut b, p, y)?.0
            }
            _ => return Ok(None),
        };
        let weights = match weights {
            Some(w) => {
                let w = b.as_f32("weights", w)?;
                let w = b.in_shape_of("weights", w, values, true)?;
                b.node(ExpandLike, &[w, values])?
            }
            None => {
                let one = b.number(1.0)?;
                b.node(ExpandLike, &[one, values])?
            }
        };
        let (mut values, mut weights) = (b.binary(Binary::Mul, values, weights)?, weights);
        if let Some(mask) = mask {
            let mask = b.as_bool("mask", mask)?;
            let mask = b.in_shape_of("mask", mask, values, false)?;
            let zero = b.number(0.0)?;
            values = b.choose(mask, values, zero)?;
            weights = b.choose(mask, weights, zero)?;
        }
        let sums = [b.over_all(Reduction::Sum, values)?, b.over_all(Reduction::Sum, weights)?];
        Ok(Some(b.node(Concat { axis: 0 }, &sums)?))
    }
}

/// A target in the shape of the prediction.
fn of_shape(b: &mut Builder<'_>, target: ValueId, prediction: ValueId) -> Result<ValueId> {
    let y = b.as_f32("target", target)?;
    let y = if b.rank(y) + 1 == b.rank(prediction) { b.column(y)? } else { y };
    b.same_shape("target", y, prediction)?;
    Ok(y)
}

fn missing(of: &'static str) -> crate::Error {
    crate::Error::Operand { of, argument: "target", expected: "given".into(), got: "left out".into() }
}
