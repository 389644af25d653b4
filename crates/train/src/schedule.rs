//! Learning rates that change from step to step.

use crate::error::{check, check_range};
use crate::{Form, Result};
use core::f64::consts::PI;
use serde::{Deserialize, Serialize};

/// A learning rate as a function of the step, of which the first is 0. Steps are those of an optimiser, as for Keras's
/// schedules, or epochs, as for PyTorch's: whatever the caller counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Schedule {
    /// The same in every step.
    Constant(f64),
    /// Multiplied by a factor after every so many steps: PyTorch's `StepLR`.
    Step {
        /// The first learning rate.
        initial: f64,
        /// The factor.
        factor: f64,
        /// How many steps.
        every: u64,
    },
    /// A value for the steps up to each boundary, that one included, and one for those behind the last: Keras's
    /// `PiecewiseConstantDecay`.
    Piecewise {
        /// The boundaries, in order.
        boundaries: Vec<u64>,
        /// The values, one more than boundaries.
        values: Vec<f64>,
    },
    /// `initial · rate^(step / steps)`: Keras's `ExponentialDecay`; with `steps` 1 PyTorch's `ExponentialLR`.
    Exponential {
        /// The first learning rate.
        initial: f64,
        /// The rate.
        rate: f64,
        /// The number of steps in which the rate is reached.
        steps: u64,
        /// Cuts the fraction off the exponent.
        staircase: bool,
    },
    /// Half a cosine from `initial` to `alpha · initial` in so many steps, then constant: Keras's `CosineDecay`;
    /// PyTorch's `CosineAnnealingLR` up to `T_max`.
    Cosine {
        /// The first learning rate.
        initial: f64,
        /// The number of steps.
        steps: u64,
        /// The part of the first learning rate that is left.
        alpha: f64,
    },
    /// [`Self::Cosine`] again and again: Keras's `CosineDecayRestarts`; without `height` PyTorch's
    /// `CosineAnnealingWarmRestarts`.
    CosineRestarts {
        /// The first learning rate.
        initial: f64,
        /// The number of steps of the first period.
        steps: u64,
        /// How much longer each period is than the one before.
        length: f64,
        /// How much higher each period begins.
        height: f64,
        /// The part of the first learning rate that is left.
        alpha: f64,
    },
    /// A line from `initial` to the first learning rate of another schedule, which then begins: Keras's `warmup_target`.
    WarmUp {
        /// The first learning rate.
        initial: f64,
        /// The number of steps of the line.
        steps: u64,
        /// What follows.
        then: Box<Schedule>,
    },
}

const SCHEDULE: &str = "schedule";

fn rate(argument: &'static str, v: f64) -> Result<()> {
    check_range(SCHEDULE, argument, v, 0.0, f64::INFINITY)
}

fn steps(argument: &'static str, n: u64) -> Result<()> {
    check(SCHEDULE, argument, n > 0, || "must be at least 1, but it is 0".into())
}

impl Schedule {
    /// Checks the options.
    ///
    /// # Errors
    /// [`crate::Error::Option`].
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Constant(v) => rate("learning rate", *v),
            Self::Step { initial, factor, every } => {
                rate("initial", *initial)?;
                rate("factor", *factor)?;
                steps("every", *every)
            }
            Self::Piecewise { boundaries, values } => {
                check(SCHEDULE, "values", values.len() == boundaries.len() + 1, || {
                    format!(
                        "must be {}, one more than boundaries, but there are {}",
                        boundaries.len() + 1,
                        values.len()
                    )
                })?;
                let rising = boundaries.is_sorted_by(|a, b| a < b);
                check(SCHEDULE, "boundaries", rising, || format!("must rise, but they are {boundaries:?}"))?;
                values.iter().try_for_each(|v| rate("values", *v))
            }
            Self::Exponential { initial, rate: r, steps: n, .. } => {
                rate("initial", *initial)?;
                rate("rate", *r)?;
                steps("steps", *n)
            }
            Self::Cosine { initial, steps: n, alpha } => {
                rate("initial", *initial)?;
                rate("alpha", *alpha)?;
                steps("steps", *n)
            }
            Self::CosineRestarts { initial, steps: n, length, height, alpha } => {
                rate("initial", *initial)?;
                rate("alpha", *alpha)?;
                rate("height", *height)?;
                check_range(SCHEDULE, "length", *length, 1.0, f64::INFINITY)?;
                steps("steps", *n)
            }
            Self::WarmUp { initial, steps: n, then } => {
                rate("initial", *initial)?;
                steps("steps", *n)?;
                then.check()
            }
        }
    }

    /// The learning rate at a step. It is only defined for options that pass [`Self::check`].
    pub fn at(&self, step: u64) -> f64 {
        let half_cosine = |part: f64| 0.5 * (1.0 + (PI * part).cos());
        match self {
            Self::Constant(v) => *v,
            Self::Step { initial, factor, every } => initial * factor.powf((step / every) as f64),
            Self::Piecewise { boundaries, values } => values[boundaries.partition_point(|&b| b < step)],
            Self::Exponential { initial, rate, steps, staircase } => {
                let exponent = step as f64 / *steps as f64;
                initial * rate.powf(if *staircase { exponent.floor() } else { exponent })
            }
            Self::Cosine { initial, steps, alpha } => {
                let part = step.min(*steps) as f64 / *steps as f64;
                initial * ((1.0 - alpha) * half_cosine(part) + alpha)
            }
            Self::CosineRestarts { initial, steps, length, height, alpha } => {
                let done = step as f64 / *steps as f64;
                let (period, part) = if *length == 1.0 {
                    (done.floor(), done.fract())
                } else {
                    // Periods of 1, l, l², … first periods: n of them are (l^n - 1) / (l - 1).
                    let ends = |n: f64| (length.powf(n) - 1.0) / (length - 1.0);
                    let mut n = ((1.0 + done * (length - 1.0)).ln() / length.ln()).floor();
                    // A boundary may be missed by rounding.
                    if ends(n + 1.0) <= done {
                        n += 1.0;
                    } else if ends(n) > done {
                        n -= 1.0;
                    }
                    (n, (done - ends(n)) / length.powf(n))
                };
                initial * ((1.0 - alpha) * height.powf(period) * half_cosine(part) + alpha)
            }
            Self::WarmUp { initial, steps, then } => match step.checked_sub(*steps) {
                None => initial + (then.at(0) - initial) * step as f64 / *steps as f64,
                Some(step) => then.at(step),
            },
        }
    }
}

/// What counts as better.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Threshold {
    /// By more than this: Keras's `min_delta`, PyTorch's mode `abs`.
    Absolute(f64),
    /// By more than this part of the best value: PyTorch's mode `rel`.
    Relative(f64),
}

/// Lowers the learning rate when a value has stopped improving: Keras's and PyTorch's `ReduceLROnPlateau`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Plateau {
    /// What the learning rate is multiplied by.
    pub factor: f64,
    /// How many values without improvement are waited for: in Keras's form the learning rate is lowered at the last of
    /// them, in PyTorch's at the next one.
    pub patience: u32,
    /// What counts as better.
    pub threshold: Threshold,
    /// For how many values after the learning rate was lowered none is counted; in Keras's form the last of them is.
    pub cooldown: u32,
    /// The least learning rate.
    pub least: f64,
    /// Whether a larger value is better.
    pub larger_is_better: bool,
    /// Whose way of counting it is. In PyTorch's form a change of the learning rate by at most 1e-8 is not made.
    pub form: Form,
    best: Option<f64>,
    waited: u32,
    cooling: u32,
}

impl Plateau {
    /// With Keras's defaults: factor 0.1, patience 10, an absolute threshold of 1e-4.
    pub const fn keras() -> Self {
        Self {
            factor: 0.1,
            patience: 10,
            threshold: Threshold::Absolute(1e-4),
            cooldown: 0,
            least: 0.0,
            larger_is_better: false,
            form: Form::Keras,
            best: None,
            waited: 0,
            cooling: 0,
        }
    }

    /// With PyTorch's defaults: factor 0.1, patience 10, a relative threshold of 1e-4.
    pub const fn pytorch() -> Self {
        Self { threshold: Threshold::Relative(1e-4), form: Form::Pytorch, ..Self::keras() }
    }

    /// Checks the options.
    ///
    /// # Errors
    /// [`crate::Error::Option`].
    pub fn check(&self) -> Result<()> {
        check_range("plateau", "factor", self.factor, 0.0, 1.0)?;
        check_range("plateau", "least", self.least, 0.0, f64::INFINITY)?;
        let (Threshold::Absolute(t) | Threshold::Relative(t)) = self.threshold;
        check_range("plateau", "threshold", t, 0.0, f64::INFINITY)
    }

    /// The learning rate after one more value, from the one before. A value that is NaN is no improvement.
    pub fn observe(&mut self, value: f64, learning_rate: f64) -> f64 {
        let keras = self.form == Form::Keras;
        if keras && self.cooling > 0 {
            self.cooling -= 1;
            self.waited = 0;
        }
        let sign = if self.larger_is_better { -1.0 } else { 1.0 };
        let better = self.best.is_none_or(|best| match self.threshold {
            Threshold::Absolute(t) => sign * value < sign * best - t,
            Threshold::Relative(t) => sign * value < sign * best * (1.0 - sign * t),
        });
        if better && !value.is_nan() {
            self.best = Some(value);
            self.waited = 0;
        } else if self.cooling == 0 {
            self.waited += 1;
        }
        if !keras && self.cooling > 0 {
            self.cooling -= 1;
            self.waited = 0;
        }
        let most = if keras { self.patience.max(1) } else { self.patience.saturating_add(1) };
        let least_change = if keras { 0.0 } else { 1e-8 };
        let lower = (learning_rate * self.factor).max(self.least);
        if self.waited < most || (keras && learning_rate <= self.least) {
            return learning_rate;
        }
        self.cooling = self.cooldown;
        self.waited = 0;
        if learning_rate - lower > least_change { lower } else { learning_rate }
    }

    /// What has been seen: the bits of the best value, and how many values were waited for and are not counted yet.
    pub(crate) fn state(&self) -> (Option<u64>, u32, u32) {
        (self.best.map(f64::to_bits), self.waited, self.cooling)
    }

    pub(crate) fn set_state(&mut self, (best, waited, cooling): (Option<u64>, u32, u32)) {
        (self.best, self.waited, self.cooling) = (best.map(f64::from_bits), waited, cooling);
    }

    /// Forgets all values.
    pub fn reset(&mut self) {
        (self.best, self.waited, self.cooling) = (None, 0, 0);
    }
}

impl Default for Plateau {
    /// With Keras's defaults.
    fn default() -> Self {
        Self::keras()
    }
}
