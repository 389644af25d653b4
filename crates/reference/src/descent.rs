//! Steps of optimisers.

use crate::Real;
use recurve_vocabulary::{Decay, Descent};

/// Changes a parameter by its gradient, and the optimiser's states. The rates are those of [`Descent::RATES`].
///
/// # Panics
/// If there are fewer states than the rule has.
pub fn descend<R: Real>(rule: Descent, decay: Decay, rates: &[R; Descent::RATES], w: R, g: R, states: &mut [R]) -> R {
    let r = rates;
    let g = if decay == Decay::Gradient { g + r[0] * w } else { g };
    let w = if decay == Decay::Parameter { w - r[0] * w } else { w };
    match rule {
        Descent::Gradient { momentum: false } => w + r[4] * g,
        Descent::Gradient { momentum: true } => {
            states[0] = r[1] * states[0] + r[2] * g;
            w + r[3] * states[0] + r[4] * g
        }
        Descent::Root { momentum, centered } => {
            states[0] = r[1] * states[0] + r[2] * g * g;
            let mut mean = states[0];
            if centered {
                let place = if momentum { 2 } else { 1 };
                states[place] = r[1] * states[place] + r[2] * g;
                // A variance, which is below zero by rounding only.
                mean = mean - states[place] * states[place];
                if mean < R::ZERO {
                    mean = R::ZERO;
                }
            }
            let mut change = r[6] * g / ((mean + r[3]).sqrt() + r[4]);
            if momentum {
                states[1] = r[5] * states[1] + change;
                change = states[1];
            }
            w - r[7] * change
        }
        Descent::Moments { amsgrad } => {
            states[0] = states[0] + r[1] * (g - states[0]);
            states[1] = states[1] + r[2] * (g * g - states[1]);
            let mut mean = states[1];
            if amsgrad {
                if mean > states[2] || mean.to_f64().is_nan() {
                    states[2] = mean;
                }
                mean = states[2];
            }
            w - r[3] * states[0] / (r[4] * mean.sqrt() + r[5])
        }
        Descent::Sign => {
            let u = r[1] * states[0] + r[2] * g;
            states[0] = r[3] * states[0] + r[4] * g;
            let sign = if u > R::ZERO {
                R::ONE
            } else if u < R::ZERO {
                -R::ONE
            } else {
                u
            };
            w - r[5] * sign
        }
        // A rule without a definition here gives NaN, which agrees with nothing.
        _ => R::from_f32(f32::NAN),
    }
}
