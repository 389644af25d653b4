//! The activation functions.

use crate::Real;
use recurve_vocabulary::Activation;

/// The value of the function at `x`.
///
/// # Panics
/// If the function has no definition here; a test calls it with every function.
pub fn activate<R: Real>(f: Activation, x: R) -> R {
    let r = R::from_f32;
    match f {
        Activation::Linear => x,
        Activation::Sigmoid => R::ONE / (R::ONE + (-x).exp()),
        Activation::Tanh => x.tanh(),
        Activation::Relu => {
            if x <= R::ZERO {
                R::ZERO
            } else {
                x
            }
        }
        Activation::HardSigmoid { alpha, beta } => {
            let v = r(alpha) * x + r(beta);
            if v <= R::ZERO {
                R::ZERO
            } else if v >= R::ONE {
                R::ONE
            } else {
                v
            }
        }
        Activation::Affine { alpha, beta } => r(alpha) * x + r(beta),
        Activation::LeakyRelu { alpha } => {
            if x <= R::ZERO {
                r(alpha) * x
            } else {
                x
            }
        }
        Activation::ThresholdedRelu { alpha } => {
            if x <= r(alpha) {
                R::ZERO
            } else {
                x
            }
        }
        Activation::ScaledTanh { alpha, beta } => r(alpha) * (r(beta) * x).tanh(),
        Activation::Elu { alpha } => {
            if x <= R::ZERO {
                r(alpha) * x.exp_m1()
            } else {
                x
            }
        }
        Activation::Softsign => x / (R::ONE + x.abs()),
        Activation::Softplus => {
            // ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|), which does not overflow.
            let tail = (-x.abs()).exp().ln_1p();
            if x > R::ZERO { x + tail } else { tail }
        }
        Activation::Positive => {
            if x < R::ZERO {
                activate(Activation::Sigmoid, x)
            } else {
                x + r(0.5)
            }
        }
        other => panic!("{other:?} has no definition"),
    }
}

/// The derivative of the function at `x`. At a corner it is what PyTorch has: 0 for ReLU at 0 and for a hard sigmoid at
/// its ends, alpha for leaky ReLU and ELU at 0.
///
/// # Panics
/// If the function has no definition here.
pub fn slope<R: Real>(f: Activation, x: R) -> R {
    let r = R::from_f32;
    let holds = |yes: bool, then: R, or: R| if yes { then } else { or };
    match f {
        _ if x.to_f64().is_nan() => x,
        Activation::Linear => R::ONE,
        Activation::Sigmoid => {
            let y = activate(f, x);
            y * (R::ONE - y)
        }
        Activation::Tanh => R::ONE - x.tanh() * x.tanh(),
        Activation::Relu => holds(x > R::ZERO, R::ONE, R::ZERO),
        Activation::HardSigmoid { alpha, beta } => {
            let v = r(alpha) * x + r(beta);
            holds(v > R::ZERO && v < R::ONE, r(alpha), R::ZERO)
        }
        Activation::Affine { alpha, .. } => r(alpha),
        Activation::LeakyRelu { alpha } => holds(x > R::ZERO, R::ONE, r(alpha)),
        Activation::ThresholdedRelu { alpha } => holds(x > r(alpha), R::ONE, R::ZERO),
        Activation::ScaledTanh { alpha, beta } => {
            let t = (r(beta) * x).tanh();
            r(alpha) * r(beta) * (R::ONE - t * t)
        }
        Activation::Elu { alpha } => holds(x > R::ZERO, R::ONE, r(alpha) * x.exp()),
        Activation::Softsign => {
            let d = R::ONE + x.abs();
            R::ONE / (d * d)
        }
        Activation::Softplus => activate(Activation::Sigmoid, x),
        Activation::Positive => holds(x < R::ZERO, slope(Activation::Sigmoid, x), R::ONE),
        other => panic!("{other:?} has no definition"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Activation::*;

    #[test]
    fn slopes_are_those_of_differences() {
        let more = [LeakyRelu { alpha: -0.5 }, Elu { alpha: -2.0 }, ThresholdedRelu { alpha: -1.0 }];
        for f in Activation::ALL.into_iter().chain(more) {
            for x in [-3.1, -0.7, 0.2, 0.9, 1.3, 4.0] {
                let (h, s) = (1e-6, slope(f, x));
                let difference = (activate(f, x + h) - activate(f, x - h)) / (2.0 * h);
                assert!((s - difference).abs() < 1e-8, "{f:?} at {x}: {s}, {difference}");
            }
            assert!(slope(f, f64::NAN).is_nan(), "{f:?}");
        }
    }

    #[test]
    fn values_by_hand() {
        let cases: [(Activation, f64, f64); 21] = [
            (Linear, -1.5, -1.5),
            (Sigmoid, 0.0, 0.5),
            (Sigmoid, 2.0, 0.880_797_077_977_882_3),
            (Tanh, 0.5, 0.462_117_157_260_009_7),
            (Relu, -2.0, 0.0),
            (Relu, 3.0, 3.0),
            (HardSigmoid { alpha: 0.25, beta: 0.5 }, 1.0, 0.75),
            (HardSigmoid { alpha: 0.25, beta: 0.5 }, 9.0, 1.0),
            (Affine { alpha: 2.0, beta: -1.0 }, 3.0, 5.0),
            (LeakyRelu { alpha: 0.5 }, -2.0, -1.0),
            (ThresholdedRelu { alpha: 1.0 }, 0.9, 0.0),
            (ThresholdedRelu { alpha: 1.0 }, 1.5, 1.5),
            (ThresholdedRelu { alpha: 0.75 }, 0.75, 0.0),
            (Activation::thresholded_relu_from(0.75), 0.75, 0.75),
            (Activation::thresholded_relu_from(0.75), f64::from(0.75f32.next_down()), 0.0),
            (ScaledTanh { alpha: 2.0, beta: 0.5 }, 1.0, 0.924_234_314_520_019_5),
            (Elu { alpha: 1.0 }, -1.0, -0.632_120_558_828_557_7),
            (Softsign, -3.0, -0.75),
            (Softplus, 100.0, 100.0),
            (Positive, 2.0, 2.5),
            (Positive, -2.0, 0.119_202_922_022_117_57),
        ];
        for (f, x, want) in cases {
            let got = activate(f, x);
            assert!((got - want).abs() <= 1e-14, "{f:?}({x}) = {got}, expected {want}");
        }
    }

    #[test]
    fn nan_stays_nan() {
        for f in Activation::ALL {
            assert!(activate(f, f64::NAN).is_nan(), "{f:?}");
        }
    }
}
