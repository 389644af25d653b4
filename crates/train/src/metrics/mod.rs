//! Metrics: numbers about predictions that are added up over batches, in host memory.

mod counts;
mod nodes;
mod scores;

use crate::error::{check, check_range};
use crate::loss::is_class;
use crate::{Error, Result};
use counts::Counts;
use serde::{Deserialize, Serialize};

/// A curve of two rates at many thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Curve {
    /// The rate of true positives over that of false ones.
    #[default]
    Roc,
    /// Precision over recall.
    PrecisionRecall,
}

/// How the area under a curve is added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Summation {
    /// Trapezes; between two points of precision and recall the curve of Davis and Goadrich (2006).
    #[default]
    Interpolation,
    /// The lower end of each step.
    Minoring,
    /// The upper end of each step.
    Majoring,
}

/// How the scores of classes become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Averaging {
    /// Their mean.
    #[default]
    Macro,
    /// The score of all classes counted together.
    Micro,
    /// Their mean, each weighted by the number of its samples.
    Weighted,
}

/// A metric, with Keras's definition; [`Self::Perplexity`] is not in Keras.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Metric {
    /// How often a prediction is on the same side of a threshold as its target, which is 0 or 1.
    BinaryAccuracy {
        /// The threshold, which itself is on the side of 0.
        threshold: f32,
    },
    /// How often the largest prediction is that of the largest target.
    CategoricalAccuracy,
    /// How often the largest prediction is that of the label.
    SparseCategoricalAccuracy,
    /// How often the prediction of the class is among the k largest; the class is that of the largest target or the
    /// label.
    TopKCategoricalAccuracy {
        /// How many.
        k: usize,
    },
    /// The part of the positive predictions that are right.
    Precision {
        /// Predictions above it are positive.
        threshold: f32,
    },
    /// The part of the positive targets that are found.
    Recall {
        /// Predictions above it are positive.
        threshold: f32,
    },
    /// The harmonic mean of precision and recall, for each class.
    F1 {
        /// Predictions above it are positive; without one only the largest of a row, unless that is 0.
        threshold: Option<f32>,
        /// How the scores of the classes become one.
        averaging: Averaging,
    },
    /// The area under a curve, by thresholds evenly spread from 0 to 1, as Keras.
    Auc {
        /// How many thresholds; Keras's default is 200.
        thresholds: usize,
        /// The curve.
        curve: Curve,
        /// How the area is added up.
        summation: Summation,
        /// Predictions are logits, of which the sigmoid is taken.
        from_logits: bool,
    },
    /// The mean of the squared differences of predictions and targets.
    MeanSquaredError,
    /// The mean of the absolute differences of predictions and targets.
    MeanAbsoluteError,
    /// The root of the mean of the squared differences.
    RootMeanSquaredError,
    /// e to the power of the mean cross-entropy of labels.
    Perplexity {
        /// Predictions are logits; otherwise probabilities, as for
        /// [`LossKind::SparseCategoricalCrossentropy`](crate::LossKind::SparseCategoricalCrossentropy).
        from_logits: bool,
    },
    /// The mean of the predictions themselves: of losses and the like.
    Mean,
}

/// The targets of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Targets<'a> {
    /// Of the shape of the predictions.
    Values(&'a [f32]),
    /// The number of a class for each row of predictions.
    Labels(&'a [i64]),
    /// There are none, as [`Metric::Mean`] needs none.
    None,
}

/// A batch of predictions, `[rows, width]`: every axis but the last counts rows.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct MetricBatch<'a> {
    /// The predictions, row by row.
    pub predictions: &'a [f32],
    /// The size of the last axis.
    pub width: usize,
    /// The targets.
    pub targets: Targets<'a>,
    /// The weight of each row.
    pub weights: Option<&'a [f32]>,
    /// Whether each row counts.
    pub mask: Option<&'a [bool]>,
}

impl<'a> MetricBatch<'a> {
    /// A batch in which all rows count alike.
    pub const fn new(predictions: &'a [f32], width: usize, targets: Targets<'a>) -> Self {
        Self { predictions, width, targets, weights: None, mask: None }
    }

    /// The weight of each row.
    #[must_use]
    pub const fn weights(self, weights: &'a [f32]) -> Self {
        Self { weights: Some(weights), ..self }
    }

    /// Whether each row counts.
    #[must_use]
    pub const fn mask(self, mask: &'a [bool]) -> Self {
        Self { mask: Some(mask), ..self }
    }

    fn rows(&self) -> usize {
        self.predictions.len() / self.width
    }

    /// The rows that count: place, predictions, weight.
    fn counted(&self) -> impl Iterator<Item = (usize, &'a [f32], f64)> + '_ {
        let rows = self.predictions.chunks_exact(self.width).enumerate();
        rows.filter(|(n, _)| self.mask.is_none_or(|m| m[*n])).map(|(n, row)| {
            let weight = self.weights.map_or(1.0, |w| w[n].into());
            (n, row, weight)
        })
    }
}

const METRIC: &str = "metric";

impl Metric {
    /// Its name, as in Keras.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::BinaryAccuracy { .. } => "binary_accuracy",
            Self::CategoricalAccuracy => "categorical_accuracy",
            Self::SparseCategoricalAccuracy => "sparse_categorical_accuracy",
            Self::TopKCategoricalAccuracy { .. } => "top_k_categorical_accuracy",
            Self::Precision { .. } => "precision",
            Self::Recall { .. } => "recall",
            Self::F1 { .. } => "f1_score",
            Self::Auc { .. } => "auc",
            Self::MeanSquaredError => "mean_squared_error",
            Self::MeanAbsoluteError => "mean_absolute_error",
            Self::RootMeanSquaredError => "root_mean_squared_error",
            Self::Perplexity { .. } => "perplexity",
            Self::Mean => "mean",
        }
    }

    /// Keras's `BinaryAccuracy`.
    pub const fn binary_accuracy() -> Self {
        Self::BinaryAccuracy { threshold: 0.5 }
    }

    /// Keras's `Precision`.
    pub const fn precision() -> Self {
        Self::Precision { threshold: 0.5 }
    }

    /// Keras's `Recall`.
    pub const fn recall() -> Self {
        Self::Recall { threshold: 0.5 }
    }

    /// Keras's `AUC`.
    pub const fn auc() -> Self {
        Self::Auc { thresholds: 200, curve: Curve::Roc, summation: Summation::Interpolation, from_logits: false }
    }

    /// Whether a larger value is better.
    pub const fn larger_is_better(&self) -> bool {
        !matches!(
            self,
            Self::MeanSquaredError
                | Self::MeanAbsoluteError
                | Self::RootMeanSquaredError
                | Self::Perplexity { .. }
                | Self::Mean
        )
    }

    /// Checks the options.
    ///
    /// # Errors
    /// [`Error::Option`].
    pub fn check(&self) -> Result<()> {
        let finite = |v: f32| check(METRIC, "threshold", v.is_finite(), || format!("must be finite, but it is {v}"));
        match *self {
            Self::BinaryAccuracy { threshold } | Self::Precision { threshold } | Self::Recall { threshold } => {
                finite(threshold)
            }
            Self::F1 { threshold, .. } => threshold.map_or(Ok(()), finite),
            Self::TopKCategoricalAccuracy { k } => {
                check(METRIC, "k", k > 0, || "must be at least 1, but it is 0".into())
            }
            Self::Auc { thresholds, .. } => check_range(METRIC, "thresholds", thresholds as f64, 2.0, 1e6),
            _ => Ok(()),
        }
    }

    /// The metric of no batch.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn start(&self) -> Result<MetricState> {
        self.check()?;
        Ok(MetricState { metric: *self, counts: Counts::new(self.places()), width: None })
    }
}

/// A metric of the batches so far.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricState {
    metric: Metric,
    counts: Counts,
    /// The width of the predictions, once there is a batch.
    width: Option<usize>,
}

impl MetricState {
    /// The metric.
    pub const fn metric(&self) -> &Metric {
        &self.metric
    }

    /// Adds a batch.
    ///
    /// # Errors
    /// [`Error::Operand`] if predictions, targets, weights and mask do not fit together or to earlier batches,
    /// [`Error::Label`] for a label that is no class and counts. Nothing is added then.
    pub fn update(&mut self, batch: &MetricBatch<'_>) -> Result<()> {
        self.fits(batch)?;
        self.width = Some(batch.width);
        scores::add(&self.metric, batch, &mut self.counts);
        Ok(())
    }

    /// Adds values that were computed elsewhere, of a metric that is a mean: their weighted sum, and the sum of the
    /// weights.
    ///
    /// # Errors
    /// [`Error::Option`] for a metric that is no mean.
    pub fn add(&mut self, sum: f64, weight: f64) -> Result<()> {
        check(self.metric.name(), "sum", self.metric.is_mean(), || "can only be added to a mean".into())?;
        self.counts.sum += sum;
        self.counts.weight += weight;
        Ok(())
    }

    /// The value; 0 if nothing counts.
    pub fn result(&self) -> f64 {
        scores::result(&self.metric, &self.counts)
    }

    /// Forgets all batches.
    pub fn reset(&mut self) {
        (self.counts, self.width) = (Counts::new(self.metric.places()), None);
    }

    fn fits(&self, batch: &MetricBatch<'_>) -> Result<()> {
        let of = self.metric.name();
        let bad = |argument, expected: String, got: String| Err(Error::Operand { of, argument, expected, got });
        let (count, width) = (batch.predictions.len(), batch.width);
        if width == 0 || !count.is_multiple_of(width) {
            return bad("predictions", format!("rows of {width}"), format!("of {count} elements"));
        }
        if matches!(self.metric, Metric::F1 { .. })
            && let Some(before) = self.width.filter(|w| *w != width)
        {
            return bad("predictions", format!("rows of {before}, as before"), format!("rows of {width}"));
        }
        let rows = batch.rows();
        let sizes = [("weights", batch.weights.map(<[f32]>::len)), ("mask", batch.mask.map(<[bool]>::len))];
        for (argument, size) in sizes {
            if let Some(got) = size.filter(|n| *n != rows) {
                return bad(argument, format!("{rows}, one for each row"), got.to_string());
            }
        }
        use Metric as M;
        match (self.metric, batch.targets) {
            (M::Mean, _) => Ok(()),
            (
                M::SparseCategoricalAccuracy | M::TopKCategoricalAccuracy { .. } | M::Perplexity { .. },
                Targets::Labels(l),
            ) => {
                if l.len() != rows {
                    return bad("targets", format!("{rows} labels, one for each row"), l.len().to_string());
                }
                let bad = |n: &usize| !is_class(l[*n], width);
                match batch.counted().map(|(n, ..)| n).find(bad) {
                    Some(index) => Err(Error::Label { index, label: l[index], classes: width }),
                    None => Ok(()),
                }
            }
            (M::SparseCategoricalAccuracy | M::Perplexity { .. }, _) => {
                bad("targets", "labels".into(), "others".into())
            }
            (_, Targets::Values(v)) if v.len() == count => Ok(()),
            (_, Targets::Values(v)) => bad("targets", format!("{count} values"), v.len().to_string()),
            _ => bad("targets", "values in the shape of the predictions".into(), "others".into()),
        }
    }
}

impl Metric {
    /// Places of what is counted, before any batch.
    const fn places(&self) -> usize {
        match self {
            Self::Auc { thresholds, .. } => *thresholds,
            _ => 1,
        }
    }

    const fn is_mean(&self) -> bool {
        matches!(
            self,
            Self::BinaryAccuracy { .. }
                | Self::CategoricalAccuracy
                | Self::SparseCategoricalAccuracy
                | Self::TopKCategoricalAccuracy { .. }
                | Self::MeanSquaredError
                | Self::MeanAbsoluteError
                | Self::RootMeanSquaredError
                | Self::Perplexity { .. }
                | Self::Mean
        )
    }
}
