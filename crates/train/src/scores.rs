//! What a batch is worth: its losses and the parts of its metrics, as nodes of a graph.

use crate::{Error, Loss, LossKind, Metric, Result, StepOptions};
use recurve_graph::ops::{Activate, Binary};
use recurve_graph::{Assembly, ValueId};
use recurve_tensor::Activation;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A metric of one of a network's outputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OutputMetric {
    /// The name under which it is reported.
    pub name: String,
    /// The place of the output.
    pub output: usize,
    /// The metric.
    pub metric: Metric,
    /// Whether samples count with their weights, as Keras's `weighted_metrics`. A mask counts in any case.
    pub weighted: bool,
}

impl OutputMetric {
    /// A metric of the first output under its own name, without the weights of samples.
    pub fn new(metric: Metric) -> Self {
        Self { name: metric.name().to_owned(), output: 0, metric, weighted: false }
    }

    /// Keras's `"accuracy"`: that of labels, of one-hot targets, or on the two sides of one half, as the loss tells.
    ///
    /// # Errors
    /// [`Error::Option`] for a loss of other targets.
    pub fn accuracy(loss: &Loss) -> Result<Self> {
        let metric = match loss.kind {
            // The sigmoid of a logit is above one half where the logit is above 0.
            LossKind::BinaryCrossentropy { from_logits } => {
                Metric::BinaryAccuracy { threshold: if from_logits { 0.0 } else { 0.5 } }
            }
            LossKind::CategoricalCrossentropy { .. } => Metric::CategoricalAccuracy,
            LossKind::SparseCategoricalCrossentropy { .. } => Metric::SparseCategoricalAccuracy,
            _ => {
                let message = "is of cross-entropies only; name a metric".into();
                return Err(Error::Option { of: "metric", argument: "accuracy", message });
            }
        };
        Ok(Self { name: "accuracy".into(), ..Self::new(metric) })
    }

    /// The same of another output.
    #[must_use]
    pub fn output(self, output: usize) -> Self {
        Self { output, ..self }
    }

    /// The same under another name.
    #[must_use]
    pub fn name(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// The same with the weights of samples.
    #[must_use]
    pub fn weighted(self) -> Self {
        Self { weighted: true, ..self }
    }
}

impl From<Metric> for OutputMetric {
    fn from(metric: Metric) -> Self {
        Self::new(metric)
    }
}

/// What the outputs of a network are compared with.
pub(crate) struct Compared<'a> {
    pub(crate) predictions: &'a [ValueId],
    pub(crate) targets: &'a [ValueId],
    pub(crate) weights: Option<ValueId>,
    /// For each output.
    pub(crate) masks: &'a [Option<ValueId>],
}

/// The nodes of losses and metrics.
pub(crate) struct Scores {
    /// The sum of the losses with their weights, and of the penalties.
    pub(crate) loss: ValueId,
    /// The loss of each output, if there are several.
    pub(crate) losses: Vec<ValueId>,
    /// Of each metric that is a mean its weighted sum and the sum of the weights.
    pub(crate) metrics: Vec<Option<ValueId>>,
}

impl Scores {
    /// Adds the losses and metrics of a batch.
    pub(crate) fn add(a: &mut Assembly, options: &StepOptions, of: &Compared<'_>) -> Result<Self> {
        let mut total = None;
        let mut losses = Vec::new();
        for (n, loss) in options.losses.iter().enumerate() {
            let own = loss.add(a, of.predictions[n], of.targets[n], of.weights, of.masks[n])?;
            losses.push(own);
            let weighted = match options.loss_weights.get(n) {
                None | Some(1.0) => own,
                Some(&alpha) => {
                    let scale = Arc::new(Activate(Activation::Affine { alpha, beta: 0.0 }));
                    a.derived("weighted loss", scale, &[Some(own)], 1)?[0]
                }
            };
            total = Some(match total {
                None => weighted,
                Some(sum) => a.derived("sum of losses", Arc::new(Binary::Add), &[Some(sum), Some(weighted)], 1)?[0],
            });
        }
        let mut metrics = Vec::new();
        for m in &options.metrics {
            let weights = of.weights.filter(|_| m.weighted);
            let prediction = of.predictions[m.output];
            metrics.push(m.metric.add(a, prediction, Some(of.targets[m.output]), weights, of.masks[m.output])?);
        }
        losses.truncate(if losses.len() > 1 { losses.len() } else { 0 });
        Ok(Self { loss: total.expect("a network has an output"), losses, metrics })
    }

    /// Adds a penalty, `[1]`, to the sum of the losses.
    pub(crate) fn penalize(&mut self, a: &mut Assembly, penalty: ValueId) -> Result<()> {
        self.loss = a.derived("penalized loss", Arc::new(Binary::Add), &[Some(self.loss), Some(penalty)], 1)?[0];
        Ok(())
    }
}
