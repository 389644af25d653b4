//! Losses.

use crate::builder::Builder;
use crate::error::check;
use crate::{Error, Form, Result};
use recurve_graph::ops::{Activate, Binary, Cast, CrossEntropy, Ctc, GatherAt, OneHot, Shares, SoftmaxOver, Target};
use recurve_graph::{Assembly, Constant, Element, Int, ValueId};
use recurve_tensor::{Activation, CtcRule, Function, Reduction};
use serde::{Deserialize, Serialize};

/// Keras's `backend.epsilon()`: probabilities are kept this far from 0 and 1.
const EPSILON: f32 = 1e-7;

/// What a loss measures, for each sample or each timestep: a number for each row of the last axis of a prediction.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LossKind {
    /// `-y ln p - (1 - y) ln(1 - p)`, the mean over the last axis; targets in the shape of the prediction.
    BinaryCrossentropy {
        /// Predictions are logits, of which p is the sigmoid. Otherwise they are p, kept 1e-7 away from 0 and 1 as in
        /// Keras.
        from_logits: bool,
    },
    /// `-Σ y ln p` over the last axis, which has the classes; targets in the shape of the prediction.
    CategoricalCrossentropy {
        /// Predictions are logits, of which p is the softmax. Otherwise they are p, divided by their sum and kept 1e-7
        /// away from 0 and 1 as in Keras.
        from_logits: bool,
    },
    /// The same with the number of its class as the target: the shape of the prediction without the last axis, or with
    /// size 1 there. On a device a label is not checked, but one that is no class gives NaN; see [`check_labels`].
    SparseCategoricalCrossentropy {
        /// As for [`Self::CategoricalCrossentropy`].
        from_logits: bool,
    },
    /// `(p - y)²`, the mean over the last axis.
    MeanSquaredError,
    /// `|p - y|`, the mean over the last axis.
    MeanAbsoluteError,
    /// `½ (p - y)²` up to a difference of delta, from there on a line; the mean over the last axis.
    Huber {
        /// Where the line begins.
        delta: f64,
    },
    /// Connectionist temporal classification of predictions `[batch, time, classes]`, one value for each sequence
    /// ([`recurve_tensor::Tensor::ctc`]). Targets are labels `[batch, most labels]`; those of a sequence end with the
    /// first blank, behind which there are only blanks. On a device labels are not checked, but those that are no
    /// classes, and lengths beyond the timesteps, give NaN; see [`crate::CtcTargets`].
    Ctc {
        /// The class that stands between labels.
        blank: usize,
        /// Predictions are logits. Otherwise they are logarithms of probabilities.
        from_logits: bool,
        /// The value of labels that no path has, because there are too few timesteps, is 0, with gradient 0. Otherwise
        /// it is infinite, with gradient NaN.
        zero_infinity: bool,
        /// As PyTorch's `mean`, of which each value is divided by its number of labels, or as Keras, which does not.
        form: Form,
    },
}

/// How the values of samples become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LossReduction {
    /// `Σ w v` over the number of values, of those that the mask has if there is one, whatever their weights: Keras's
    /// default, `sum_over_batch_size`. Without weights it is PyTorch's `mean`.
    #[default]
    Mean,
    /// `Σ w v` over `Σ w`: Keras's `mean_with_sample_weight`, and PyTorch's `mean` of a cross-entropy with weights of
    /// classes or `ignore_index`.
    WeightedMean,
    /// `Σ w v`: `sum` in both.
    Sum,
}

/// A loss: what is measured, and how it is weighted and reduced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Loss {
    /// What is measured.
    pub kind: LossKind,
    /// How values become one number.
    #[serde(default)]
    pub reduction: LossReduction,
    /// How far the targets of a cross-entropy are moved towards equal probabilities, from 0 to 1: `(1 - s) y + s / n`
    /// with the number of classes n, 2 if they are binary.
    #[serde(default)]
    pub label_smoothing: f64,
    /// A weight for each class, which multiplies the weight of a sample of this class, as Keras's `class_weight`; 2 for
    /// a binary cross-entropy, whose last axis must then have size 1. They are applied to the targets before these are
    /// smoothed.
    #[serde(default)]
    pub class_weights: Option<Vec<f32>>,
}

const LOSS: &str = "loss";

impl Loss {
    /// The mean of what is measured, without label smoothing and weights of classes.
    pub fn new(kind: LossKind) -> Self {
        Self { kind, reduction: LossReduction::Mean, label_smoothing: 0.0, class_weights: None }
    }

    /// Of predictions between 0 and 1.
    pub fn binary_crossentropy() -> Self {
        Self::new(LossKind::BinaryCrossentropy { from_logits: false })
    }

    /// Of predictions that are probabilities.
    pub fn categorical_crossentropy() -> Self {
        Self::new(LossKind::CategoricalCrossentropy { from_logits: false })
    }

    /// Of predictions that are probabilities, with numbers of classes as targets.
    pub fn sparse_categorical_crossentropy() -> Self {
        Self::new(LossKind::SparseCategoricalCrossentropy { from_logits: false })
    }

    /// The squared difference.
    pub fn mean_squared_error() -> Self {
        Self::new(LossKind::MeanSquaredError)
    }

    /// The absolute difference.
    pub fn mean_absolute_error() -> Self {
        Self::new(LossKind::MeanAbsoluteError)
    }

    /// The squared difference up to `delta`, which is 1 in Keras and PyTorch, and a line from there on.
    pub fn huber(delta: f64) -> Self {
        Self::new(LossKind::Huber { delta })
    }

    /// Of predictions that are logits; changes nothing for other losses than cross-entropies and CTC.
    #[must_use]
    pub fn from_logits(self) -> Self {
        let kind = match self.kind {
            LossKind::BinaryCrossentropy { .. } => LossKind::BinaryCrossentropy { from_logits: true },
            LossKind::CategoricalCrossentropy { .. } => LossKind::CategoricalCrossentropy { from_logits: true },
            LossKind::SparseCategoricalCrossentropy { .. } => {
                LossKind::SparseCategoricalCrossentropy { from_logits: true }
            }
            LossKind::Ctc { blank, zero_infinity, form, .. } => {
                LossKind::Ctc { blank, from_logits: true, zero_infinity, form }
            }
            other => other,
        };
        Self { kind, ..self }
    }

    /// How values become one number.
    #[must_use]
    pub fn reduction(self, reduction: LossReduction) -> Self {
        Self { reduction, ..self }
    }

    /// How far targets are moved towards equal probabilities.
    #[must_use]
    pub fn label_smoothing(self, label_smoothing: f64) -> Self {
        Self { label_smoothing, ..self }
    }

    /// A weight for each class.
    #[must_use]
    pub fn class_weights(self, weights: impl Into<Vec<f32>>) -> Self {
        Self { class_weights: Some(weights.into()), ..self }
    }

    /// Keras's `CTC`: of logits, with blank 0, which is also what labels are padded with.
    pub fn ctc_keras() -> Self {
        Self::new(LossKind::Ctc { blank: 0, from_logits: true, zero_infinity: false, form: Form::Keras })
    }

    /// PyTorch's `CTCLoss`: of logarithms of probabilities, with blank 0.
    pub fn ctc_pytorch() -> Self {
        Self::new(LossKind::Ctc { blank: 0, from_logits: false, zero_infinity: false, form: Form::Pytorch })
    }

    fn is_crossentropy(&self) -> bool {
        matches!(
            self.kind,
            LossKind::BinaryCrossentropy { .. }
                | LossKind::CategoricalCrossentropy { .. }
                | LossKind::SparseCategoricalCrossentropy { .. }
        )
    }

    /// Checks the options.
    ///
    /// # Errors
    /// [`Error::Option`].
    pub fn check(&self) -> Result<()> {
        let s = self.label_smoothing;
        check(LOSS, "label_smoothing", (0.0..=1.0).contains(&s), || format!("must be from 0 to 1, but it is {s}"))?;
        check(LOSS, "label_smoothing", s == 0.0 || self.is_crossentropy(), || "is of cross-entropies only".into())?;
        if let LossKind::Huber { delta } = self.kind {
            check(LOSS, "delta", delta > 0.0 && delta < f64::INFINITY, || {
                format!("must be finite and above 0, but it is {delta}")
            })?;
        }
        if let Some(weights) = &self.class_weights {
            check(LOSS, "class_weights", self.is_crossentropy(), || "are of cross-entropies only".into())?;
            let bad = weights.iter().find(|w| !(w.is_finite() && **w >= 0.0));
            check(LOSS, "class_weights", bad.is_none(), || {
                format!("must be finite and not negative, but one is {}", bad.expect("there is one"))
            })?;
        }
        Ok(())
    }

    /// Adds nodes that compute the loss, `[1]`, of a prediction, `[batch, …, n]` of f32.
    ///
    /// `weights` are of the samples: f32 in the shape of the values, which is that of the prediction without its last
    /// axis, with size 1 in place of that axis, or of its first axes only, such as one weight for each sequence. `mask`
    /// has the shape of the values; what is 0 or false does not count. If nothing counts, the loss is 0, and so are the
    /// gradients. For a CTC loss, which has a value for each sequence, `mask` is of its timesteps: `[batch, time]`, or
    /// lengths, `[batch]` of whole numbers.
    ///
    /// # Errors
    /// [`Error::Option`] for options that do not fit, [`Error::Operand`] for values that do not fit; errors of the graph.
    pub fn add(
        &self,
        assembly: &mut Assembly,
        prediction: ValueId,
        target: ValueId,
        weights: Option<ValueId>,
        mask: Option<ValueId>,
    ) -> Result<ValueId> {
        self.check()?;
        let mut b = Builder { assembly, name: LOSS };
        let (mut values, of_classes, mask) = match self.kind {
            LossKind::Ctc { form, .. } => {
                let values = self.ctc(&mut b, [prediction, target], mask)?;
                let divided = form == Form::Pytorch && self.reduction == LossReduction::Mean;
                (if divided { self.by_label(&mut b, values, target)? } else { values }, None, None)
            }
            _ => {
                let (values, of_classes) = self.values(&mut b, prediction, target)?;
                (values, of_classes, mask)
            }
        };
        let mut weight = match weights {
            Some(w) => {
                if b.kind(w).dtype != Element::F32 {
                    return Err(b.operand("weights", "f32", w));
                }
                Some(b.in_shape_of("weights", w, values, true)?)
            }
            None => None,
        };
        if let Some(of_classes) = of_classes {
            weight = Some(match weight {
                Some(w) => b.binary(Binary::Mul, w, of_classes)?,
                None => of_classes,
            });
        }
        if let Some(w) = weight {
            values = b.binary(Binary::Mul, values, w)?;
        }
        let Some(mask) = mask else {
            return match (self.reduction, weight) {
                (LossReduction::Sum, _) => b.over_all(Reduction::Sum, values),
                (LossReduction::WeightedMean, Some(w)) => b.weighted_mean(values, w),
                _ => b.over_all(Reduction::Mean, values),
            };
        };
        let mask = b.as_bool("mask", mask)?;
        let mask = b.in_shape_of("mask", mask, values, false)?;
        let zero = b.number(0.0)?;
        let values = b.choose(mask, values, zero)?;
        match (self.reduction, weight) {
            (LossReduction::Sum, _) => b.over_all(Reduction::Sum, values),
            (LossReduction::WeightedMean, Some(w)) => {
                // Weights may be repeated to the shape of the values.
                let one = b.number(1.0)?;
                let counts = b.choose(mask, one, zero)?;
                let w = b.binary(Binary::Mul, counts, w)?;
                b.weighted_mean(values, w)
            }
            _ => {
                let one = b.number(1.0)?;
                let counts = b.choose(mask, one, zero)?;
                let count = b.over_all(Reduction::Sum, counts)?;
                let count = b.binary(Binary::Max, count, one)?;
                let sum = b.over_all(Reduction::Sum, values)?;
                b.binary(Binary::Div, sum, count)
            }
        }
    }

    /// Adds nodes that compute the values before they are weighted and reduced, PyTorch's `reduction="none"`. `mask` is
    /// read by a CTC loss alone, as [`Self::add`] says.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn unreduced(
        &self,
        assembly: &mut Assembly,
        prediction: ValueId,
        target: ValueId,
        mask: Option<ValueId>,
    ) -> Result<ValueId> {
        self.check()?;
        let mut b = Builder { assembly, name: LOSS };
        match self.kind {
            LossKind::Ctc { .. } => self.ctc(&mut b, [prediction, target], mask),
            _ => Ok(self.values(&mut b, prediction, target)?.0),
        }
    }

    /// The values, and the weights of their classes.
    pub(crate) fn values(
        &self,
        b: &mut Builder<'_>,
        prediction: ValueId,
        target: ValueId,
    ) -> Result<(ValueId, Option<ValueId>)> {
        let kind = b.kind(prediction);
        if kind.dtype != Element::F32 || kind.unranked || kind.rank() == 0 {
            return Err(b.operand("prediction", "f32 of one or more dimensions", prediction));
        }
        let s = self.label_smoothing as f32;
        let of_classes = matches!(
            self.kind,
            LossKind::CategoricalCrossentropy { .. } | LossKind::SparseCategoricalCrossentropy { .. }
        );
        if of_classes && b.rank(prediction) < 2 {
            return Err(b.operand(
                "prediction",
                "of two or more dimensions, of which the last has the classes",
                prediction,
            ));
        }
        if let LossKind::SparseCategoricalCrossentropy { from_logits } = self.kind {
            return self.sparse(b, prediction, target, from_logits);
        }
        // One number a sample is a row of its own.
        let prediction = if b.rank(prediction) == 1 { b.column(prediction)? } else { prediction };
        let y = b.as_f32("target", target)?;
        let y = if b.rank(y) + 1 == b.rank(prediction) { b.column(y)? } else { y };
        if !b.fits(y, prediction) {
            let expected = format!("of the shape of the prediction, {}", b.kind(prediction));
            return Err(b.operand("target", expected, target));
        }
        let last = b.last(prediction);
        let values = match self.kind {
            LossKind::BinaryCrossentropy { from_logits } => {
                let of_classes = match &self.class_weights {
                    None => None,
                    Some(weights) => {
                        check(LOSS, "class_weights", weights.len() == 2 && last == Some(1), || {
                            "must be two, for predictions whose last axis has size 1".into()
                        })?;
                        let w = b.affine(y, weights[1] - weights[0], weights[0])?;
                        Some(b.without_last(w)?)
                    }
                };
                let y = if s > 0.0 { b.affine(y, 1.0 - s, 0.5 * s)? } else { y };
                let values = if from_logits {
                    // -y ln σ(x) - (1 - y) ln(1 - σ(x)) = ln(1 + e^x) - y x
                    let soft = b.node(Activate(Activation::Softplus), &[prediction])?;
                    let part = b.binary(Binary::Mul, y, prediction)?;
                    b.binary(Binary::Sub, soft, part)?
                } else {
                    let p = b.map(Function::Clip { low: EPSILON, high: 1.0 - EPSILON }, prediction)?;
                    let log = b.map(Function::Log, p)?;
                    let rest = b.affine(p, -1.0, 1.0)?;
                    let rest = b.map(Function::Log, rest)?;
                    let not = b.affine(y, -1.0, 1.0)?;
                    let first = b.binary(Binary::Mul, y, log)?;
                    let second = b.binary(Binary::Mul, not, rest)?;
                    let sum = b.binary(Binary::Add, first, second)?;
                    b.map(Function::Neg, sum)?
                };
                return Ok((b.over_last(Reduction::Mean, values, false)?, of_classes));
            }
            LossKind::CategoricalCrossentropy { from_logits } => {
                let classes = b.classes(prediction)?;
                let of_classes = match &self.class_weights {
                    None => None,
                    Some(weights) => {
                        let weights = b.floats(count_of(weights, classes)?)?;
                        let w = b.binary(Binary::Mul, y, weights)?;
                        Some(b.over_last(Reduction::Sum, w, false)?)
                    }
                };
                let y = if s > 0.0 { b.affine(y, 1.0 - s, s / classes as f32)? } else { y };
                let logs = b.log_shares(prediction, from_logits)?;
                let parts = b.binary(Binary::Mul, y, logs)?;
                let sum = b.over_last(Reduction::Sum, parts, false)?;
                return Ok((b.map(Function::Neg, sum)?, of_classes));
            }
            LossKind::MeanSquaredError => {
                let e = b.binary(Binary::Sub, prediction, y)?;
                b.binary(Binary::Mul, e, e)?
            }
            LossKind::MeanAbsoluteError => {
                let e = b.binary(Binary::Sub, prediction, y)?;
                b.map(Function::Abs, e)?
            }
            LossKind::Huber { delta } => {
                let delta = delta as f32;
                let e = b.binary(Binary::Sub, prediction, y)?;
                let size = b.map(Function::Abs, e)?;
                let square = b.binary(Binary::Mul, e, e)?;
                let near = b.affine(square, 0.5, 0.0)?;
                let far = b.affine(size, delta, -0.5 * delta * delta)?;
                let limit = b.number(delta)?;
                let inside = b.binary(Binary::LessOrEqual, size, limit)?;
                b.choose(inside, near, far)?
            }
            LossKind::Ctc { .. } => return Ok((self.ctc(b, [prediction, target], None)?, None)),
            LossKind::SparseCategoricalCrossentropy { .. } => unreachable!("has returned"),
        };
        Ok((b.over_last(Reduction::Mean, values, false)?, None))
    }

    fn sparse(
        &self,
        b: &mut Builder<'_>,
        prediction: ValueId,
        target: ValueId,
        from_logits: bool,
    ) -> Result<(ValueId, Option<ValueId>)> {
        let classes = b.classes(prediction)?;
        let expected = || format!("labels in the shape of the prediction, without its last axis of {classes}");
        if b.kind(target).unranked {
            return Err(b.operand("target", expected(), target));
        }
        let labels = match b.last(target) {
            Some(1) if b.rank(target) == b.rank(prediction) => b.without_last(target)?,
            _ => target,
        };
        let s = self.label_smoothing as f32;
        if from_logits {
            let known = matches!(b.kind(labels).dtype, Element::F32 | Element::U32 | Element::Int(_));
            let (rank, dims) = (b.rank(prediction), &b.kind(prediction).dims);
            let fits =
                b.rank(labels) + 1 == rank && dims.iter().zip(&b.kind(labels).dims).all(|(a, b)| a.meet(b).is_some());
            if !known || !fits {
                return Err(b.operand("target", expected(), target));
            }
            let values = b.nodes(CrossEntropy { smoothing: s }, &[prediction, labels], 2)?[0];
            return Ok((values, self.weights_of(b, labels, classes)?));
        }
        let logs = b.log_shares(prediction, from_logits)?;
        let numbers = b.as_f32("target", labels)?;
        let labels = b.whole(labels)?;
        let depth = b.constant(&[1], Constant::Int(Int::I64, [classes as i64].into()))?;
        let other = s / classes as f32;
        let shares = b.floats(&[other, 1.0 - s + other])?;
        let y = b.node(OneHot { axis: -1 }, &[labels, depth, shares])?;
        if !b.fits(y, logs) {
            return Err(b.operand("target", expected(), target));
        }
        let parts = b.binary(Binary::Mul, y, logs)?;
        let sum = b.over_last(Reduction::Sum, parts, false)?;
        let values = b.map(Function::Neg, sum)?;
        // A label that is no class has a row of its own kind.
        let (zero, end, nan) = (b.number(0.0)?, b.number(classes as f32)?, b.number(f32::NAN)?);
        let below = b.binary(Binary::Less, numbers, zero)?;
        let values = b.choose(below, nan, values)?;
        let beyond = b.binary(Binary::GreaterOrEqual, numbers, end)?;
        let values = b.choose(beyond, nan, values)?;
        Ok((values, self.weights_of(b, labels, classes)?))
    }

    /// The weights of the classes of labels.
    fn weights_of(&self, b: &mut Builder<'_>, labels: ValueId, classes: usize) -> Result<Option<ValueId>> {
        let Some(weights) = &self.class_weights else { return Ok(None) };
        let weights = b.floats(count_of(weights, classes)?)?;
        let labels = b.whole(labels)?;
        Ok(Some(b.node(GatherAt { axis: 0 }, &[weights, labels])?))
    }

    /// The values of a CTC loss.
    fn ctc(&self, b: &mut Builder<'_>, [x, labels]: [ValueId; 2], mask: Option<ValueId>) -> Result<ValueId> {
        let LossKind::Ctc { blank, from_logits, zero_infinity, .. } = self.kind else { unreachable!("asked before") };
        if b.kind(x).dtype != Element::F32 || b.kind(x).unranked || b.rank(x) != 3 {
            return Err(b.operand("prediction", "f32 of three dimensions, [batch, time, classes]", x));
        }
        let classes = b.classes(x)?;
        check(LOSS, "blank", blank < classes, || format!("must be one of {classes} classes, but it is {blank}"))?;
        let rows = b.kind(x).dims[0].clone();
        let kind = b.kind(labels);
        let known = matches!(kind.dtype, Element::F32 | Element::U32 | Element::Int(_));
        if !known || kind.unranked || kind.rank() != 2 || kind.dims[0].meet(&rows).is_none() {
            return Err(b.operand("target", "labels of the shape [batch, labels]", labels));
        }
        let mut inputs = vec![x, labels];
        if let Some(mask) = mask {
            let expected = "of the shape [batch, time], or lengths [batch] of whole numbers";
            let floats = b.kind(mask).dtype == Element::F32 && b.rank(mask) == 2;
            let whole = b.kind(mask).dtype == Element::U32 || b.kind(mask).dtype.is_whole();
            let dims = &b.kind(x).dims;
            let fits = b.kind(mask).dims.iter().zip(dims).all(|(a, b)| a.meet(b).is_some());
            if !(floats || whole) || !fits || !(1..=2).contains(&b.rank(mask)) {
                return Err(b.operand("mask", expected, mask));
            }
            inputs.push(if floats { b.as_bool("mask", mask)? } else { mask });
        }
        let rule = CtcRule { blank, from_logits, zero_infinity };
        Ok(b.nodes(Ctc(rule), &inputs, 2)?[0])
    }

    /// The values of a CTC loss, each divided by its number of labels, at least 1.
    fn by_label(&self, b: &mut Builder<'_>, values: ValueId, labels: ValueId) -> Result<ValueId> {
        let LossKind::Ctc { blank, .. } = self.kind else { unreachable!("asked before") };
        let labels = b.as_f32("target", labels)?;
        let (blank, zero, one) = (b.number(blank as f32)?, b.number(0.0)?, b.number(1.0)?);
        let padding = b.binary(Binary::Equal, labels, blank)?;
        let counts = b.choose(padding, zero, one)?;
        let count = b.over_last(Reduction::Sum, counts, false)?;
        let count = b.binary(Binary::Max, count, one)?;
        b.binary(Binary::Div, values, count)
    }
}

/// The weights, if there is one for each class.
fn count_of(weights: &[f32], classes: usize) -> Result<&[f32]> {
    check(LOSS, "class_weights", weights.len() == classes, || {
        format!("must be {classes}, one for each class, but there are {}", weights.len())
    })?;
    Ok(weights)
}

impl Builder<'_> {
    fn classes(&self, prediction: ValueId) -> Result<usize> {
        self.last(prediction).ok_or_else(|| self.operand("prediction", "of a known number of classes", prediction))
    }

    /// Labels as whole numbers.
    fn whole(&mut self, labels: ValueId) -> Result<ValueId> {
        match self.kind(labels).dtype {
            Element::F32 => self.node(Cast { from: Element::F32, to: Target::Int(Int::I32) }, &[labels]),
            _ => Ok(labels),
        }
    }

    /// The logarithms of probabilities over the last axis.
    fn log_shares(&mut self, prediction: ValueId, from_logits: bool) -> Result<ValueId> {
        if from_logits {
            return self.node(SoftmaxOver { shares: Shares::LogSoftmax, axis: -1, flattened: false }, &[prediction]);
        }
        let sum = self.over_last(Reduction::Sum, prediction, true)?;
        let p = self.binary(Binary::Div, prediction, sum)?;
        let p = self.map(Function::Clip { low: EPSILON, high: 1.0 - EPSILON }, p)?;
        self.map(Function::Log, p)
    }

    /// The sum of values, which are weighted already, over that of the weights; 0 if that is 0.
    fn weighted_mean(&mut self, values: ValueId, weights: ValueId) -> Result<ValueId> {
        // Weights of whole sequences count for each of their values.
        let weights = match self.fits(weights, values) && !self.kind(weights).dims.contains(&1usize.into()) {
            true => weights,
            false => self.node(recurve_graph::ops::ExpandLike, &[weights, values])?,
        };
        let sum = self.over_all(Reduction::Sum, values)?;
        let total = self.over_all(Reduction::Sum, weights)?;
        let (zero, one) = (self.number(0.0)?, self.number(1.0)?);
        let none = self.binary(Binary::Equal, total, zero)?;
        let divisor = self.choose(none, one, total)?;
        let mean = self.binary(Binary::Div, sum, divisor)?;
        self.choose(none, zero, mean)
    }
}

/// Whether a label is one of so many classes.
pub(crate) fn is_class(label: i64, classes: usize) -> bool {
    usize::try_from(label).is_ok_and(|l| l < classes)
}

/// Checks labels in host memory.
///
/// # Errors
/// [`Error::Label`] with the first that is no class.
pub fn check_labels(labels: &[i64], classes: usize) -> Result<()> {
    check("labels", "classes", classes > 0, || "must be at least 1, but it is 0".into())?;
    match labels.iter().position(|&l| !is_class(l, classes)) {
        Some(index) => Err(Error::Label { index, label: labels[index], classes }),
        None => Ok(()),
    }
}
