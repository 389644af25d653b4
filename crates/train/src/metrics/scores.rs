//! The metrics themselves.

use super::counts::Counts;
use super::{Averaging, Curve, Metric, MetricBatch, Summation, Targets};

/// Keras's `backend.epsilon()`.
const EPSILON: f64 = 1e-7;

/// a / b, or 0 if b is 0.
fn ratio(a: f64, b: f64) -> f64 {
    if b == 0.0 { 0.0 } else { a / b }
}

/// The place of the first of the largest elements; of the first NaN if there is one.
fn largest(row: &[f32]) -> usize {
    let mut best = 0;
    for (n, v) in row.iter().enumerate() {
        if row[best].is_nan() {
            break;
        }
        if v.is_nan() || *v > row[best] {
            best = n;
        }
    }
    best
}

/// Adds a batch that fits.
pub(super) fn add(metric: &Metric, batch: &MetricBatch<'_>, c: &mut Counts) {
    let width = batch.width;
    let values = |n: usize| match batch.targets {
        Targets::Values(v) => &v[n * width..][..width],
        _ => &[],
    };
    let class = |n: usize| match batch.targets {
        Targets::Labels(l) => l[n] as usize,
        _ => largest(values(n)),
    };
    let part = |holds: bool| f64::from(u8::from(holds));
    if let Metric::F1 { .. } = metric {
        c.widen(width);
    }
    for (n, row, weight) in batch.counted() {
        let mut mean = |value: f64| {
            c.sum += weight * value;
            c.weight += weight;
        };
        match *metric {
            Metric::Mean => mean(row.iter().map(|&v| f64::from(v)).sum::<f64>() / width as f64),
            Metric::BinaryAccuracy { threshold } => {
                let right = row.iter().zip(values(n)).filter(|(p, t)| part(**p > threshold) == f64::from(**t));
                mean(right.count() as f64 / width as f64);
            }
            Metric::CategoricalAccuracy | Metric::SparseCategoricalAccuracy => {
                mean(part(largest(row) == class(n)));
            }
            Metric::TopKCategoricalAccuracy { k } => {
                let own = row[class(n)];
                mean(part(own.is_finite() && row.iter().filter(|v| **v > own || v.is_nan()).count() < k));
            }
            Metric::MeanSquaredError | Metric::RootMeanSquaredError => {
                let errors = row.iter().zip(values(n)).map(|(p, t)| f64::from(*p) - f64::from(*t));
                mean(errors.map(|e| e * e).sum::<f64>() / width as f64);
            }
            Metric::MeanAbsoluteError => {
                let errors = row.iter().zip(values(n)).map(|(p, t)| (f64::from(*p) - f64::from(*t)).abs());
                mean(errors.sum::<f64>() / width as f64);
            }
            Metric::Perplexity { from_logits } => {
                let wide = row.iter().map(|&v| f64::from(v));
                let own = f64::from(row[class(n)]);
                mean(if from_logits {
                    let most = wide.clone().fold(f64::NEG_INFINITY, f64::max);
                    wide.map(|v| (v - most).exp()).sum::<f64>().ln() + most - own
                } else {
                    -(own / wide.sum::<f64>()).clamp(EPSILON, 1.0 - EPSILON).ln()
                });
            }
            Metric::Precision { threshold } | Metric::Recall { threshold } => {
                row.iter().zip(values(n)).for_each(|(p, t)| c.count(0, *p > threshold, *t != 0.0, weight));
            }
            Metric::F1 { threshold, .. } => {
                let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                for (k, (&p, &t)) in row.iter().zip(values(n)).enumerate() {
                    let predicted = threshold.map_or(p >= most && p.abs() > 1e-9, |limit| p > limit);
                    c.count(k, predicted, t != 0.0, weight);
                }
            }
            Metric::Auc { from_logits, .. } => {
                let places = c.positive.len();
                for (&p, &t) in row.iter().zip(values(n)) {
                    let p = if from_logits { 1.0 / (1.0 + (-p).exp()) } else { p };
                    // The highest threshold that it is above, of which the first is below 0. NaN is above none.
                    let bucket = (p.clamp(0.0, 1.0) * (places - 1) as f32).ceil() - 1.0;
                    c.count(bucket.max(0.0) as usize, !p.is_nan(), t != 0.0, weight);
                }
            }
        }
    }
}

/// The value of what was counted.
pub(super) fn result(metric: &Metric, c: &Counts) -> f64 {
    match metric {
        Metric::Precision { .. } => ratio(c.positive[0], c.positive[0] + c.false_positive[0]),
        Metric::Recall { .. } => ratio(c.positive[0], c.positive[0] + c.false_negative[0]),
        Metric::F1 { averaging, .. } => f1(*averaging, c),
        Metric::Auc { curve, summation, .. } => area(*curve, *summation, c),
        Metric::RootMeanSquaredError => ratio(c.sum, c.weight).sqrt(),
        Metric::Perplexity { .. } if c.weight == 0.0 => 0.0,
        Metric::Perplexity { .. } => (c.sum / c.weight).exp(),
        _ => ratio(c.sum, c.weight),
    }
}

fn f1(averaging: Averaging, c: &Counts) -> f64 {
    // As Keras, which adds 1e-7 to every divisor.
    let score = |positive: f64, wrong: f64, missed: f64| {
        let precision = positive / (positive + wrong + EPSILON);
        let recall = positive / (positive + missed + EPSILON);
        2.0 * precision * recall / (precision + recall + EPSILON)
    };
    let sum = |v: &[f64]| v.iter().sum::<f64>();
    let all = || (0..c.positive.len()).map(|k| score(c.positive[k], c.false_positive[k], c.false_negative[k]));
    match averaging {
        Averaging::Micro => score(sum(&c.positive), sum(&c.false_positive), sum(&c.false_negative)),
        Averaging::Macro => all().sum::<f64>() / c.positive.len() as f64,
        Averaging::Weighted => {
            let own = |k: usize| c.positive[k] + c.false_negative[k];
            let total = (0..c.positive.len()).map(own).sum::<f64>() + EPSILON;
            all().enumerate().map(|(k, score)| score * own(k) / total).sum()
        }
    }
}

fn area(curve: Curve, summation: Summation, c: &Counts) -> f64 {
    let places = c.positive.len();
    // What is above a threshold is above all lower ones.
    let c = &c.of_the_last();
    let recall = |n: usize| ratio(c.positive[n], c.positive[n] + c.false_negative[n]);
    let predicted = |n: usize| c.positive[n] + c.false_positive[n];
    if curve == Curve::PrecisionRecall && summation == Summation::Interpolation {
        // Between two thresholds true positives and positives change along a line, whose area has this closed form.
        let between = |n: usize| {
            let (change, of) = (c.positive[n] - c.positive[n + 1], predicted(n) - predicted(n + 1));
            let slope = ratio(change, of.max(0.0));
            let start = c.positive[n + 1] - slope * predicted(n + 1);
            let both = predicted(n) > 0.0 && predicted(n + 1) > 0.0;
            let factor = if both { predicted(n) / predicted(n + 1) } else { 1.0 };
            ratio(slope * (change + start * factor.ln()), c.positive[n + 1] + c.false_negative[n + 1])
        };
        return (0..places - 1).map(between).sum();
    }
    let point = |n: usize| match curve {
        Curve::Roc => (ratio(c.false_positive[n], c.false_positive[n] + c.negative[n]), recall(n)),
        Curve::PrecisionRecall => (recall(n), ratio(c.positive[n], predicted(n))),
    };
    let step = |n: usize| {
        let ((x, y), (next, other)) = (point(n), point(n + 1));
        let height = match summation {
            Summation::Interpolation => (y + other) / 2.0,
            Summation::Minoring => y.min(other),
            Summation::Majoring => y.max(other),
        };
        (x - next) * height
    };
    (0..places - 1).map(step).sum()
}
