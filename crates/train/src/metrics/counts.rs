//! What is counted of the batches.

/// Weighted counts at some thresholds, or of some classes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Counts {
    /// Of a mean: the weighted sum of the values and the sum of the weights.
    pub(super) sum: f64,
    pub(super) weight: f64,
    /// Positive targets and negative ones with a positive prediction; positive targets without.
    pub(super) positive: Vec<f64>,
    pub(super) false_positive: Vec<f64>,
    pub(super) false_negative: Vec<f64>,
    /// Negative targets without a positive prediction.
    pub(super) negative: Vec<f64>,
}

impl Counts {
    pub(super) fn new(places: usize) -> Self {
        let none = vec![0.0; places];
        Self {
            sum: 0.0,
            weight: 0.0,
            positive: none.clone(),
            false_positive: none.clone(),
            false_negative: none.clone(),
            negative: none,
        }
    }

    /// Makes room for so many classes.
    pub(super) fn widen(&mut self, places: usize) {
        let all = [&mut self.positive, &mut self.false_positive, &mut self.false_negative, &mut self.negative];
        all.into_iter().for_each(|v| v.resize(places, 0.0));
    }

    /// The positive predictions at each place and those behind it, and of the targets those without.
    pub(super) fn of_the_last(&self) -> Self {
        let cumulated = |v: &[f64]| {
            let mut all = v.to_vec();
            (0..all.len().saturating_sub(1)).rev().for_each(|n| all[n] += all[n + 1]);
            all
        };
        let rest = |counted: &[f64], others: &[f64], above: &[f64]| {
            let total: f64 = counted.iter().chain(others).sum();
            above.iter().map(|a| total - a).collect()
        };
        let (positive, false_positive) = (cumulated(&self.positive), cumulated(&self.false_positive));
        let false_negative = rest(&self.positive, &self.false_negative, &positive);
        let negative = rest(&self.false_positive, &self.negative, &false_positive);
        Self { sum: self.sum, weight: self.weight, positive, false_positive, false_negative, negative }
    }

    pub(super) fn count(&mut self, place: usize, predicted: bool, target: bool, weight: f64) {
        let of = match (predicted, target) {
            (true, true) => &mut self.positive,
            (true, false) => &mut self.false_positive,
            (false, true) => &mut self.false_negative,
            (false, false) => &mut self.negative,
        };
        of[place] += weight;
    }
}
