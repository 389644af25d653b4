//! Activation functions: ONNX's list for recurrent operators, with its alpha and beta.

use crate::Real;

/// An activation function.
///
/// The list and the defaults of alpha and beta are those of the ONNX operators `RNN`, `GRU` and
/// `LSTM`; Keras's and PyTorch's functions are special cases (see the constants).
#[derive(Clone, Copy, Debug, PartialEq, Default)]
#[non_exhaustive]
pub enum Activation {
    /// `x`
    #[default]
    Linear,
    /// `1 / (1 + e^-x)`
    Sigmoid,
    /// `tanh(x)`
    Tanh,
    /// `max(0, x)`
    Relu,
    /// `clamp(alpha x + beta, 0, 1)`. ONNX and Keras 2: alpha 0.2, beta 0.5; Keras 3 and
    /// PyTorch's `relu6(x + 3) / 6`: alpha 1/6, beta 0.5.
    HardSigmoid {
        /// Slope.
        alpha: f32,
        /// Offset.
        beta: f32,
    },
    /// `alpha x + beta`
    Affine {
        /// Slope.
        alpha: f32,
        /// Offset.
        beta: f32,
    },
    /// `x` if `x >= 0`, else `alpha x`
    LeakyRelu {
        /// Slope below zero.
        alpha: f32,
    },
    /// `x` if `x > alpha`, else `0`: the operator `ThresholdedRelu`, and ONNX Runtime in recurrent
    /// operators. Their own text says `x >= alpha`: [`Self::thresholded_relu_from`].
    ThresholdedRelu {
        /// Threshold.
        alpha: f32,
    },
    /// `alpha tanh(beta x)`
    ScaledTanh {
        /// Output scale.
        alpha: f32,
        /// Input scale.
        beta: f32,
    },
    /// `x` if `x >= 0`, else `alpha (e^x - 1)`
    Elu {
        /// Scale below zero.
        alpha: f32,
    },
    /// `x / (1 + |x|)`
    Softsign,
    /// `ln(1 + e^x)`
    Softplus,
    /// `x + 0.5` if `x >= 0`, else sigmoid(x): positive and monotonic, the g of the minimal cells
    /// in log-space (Feng et al. 2024, appendix B). Not in ONNX's list.
    Positive,
}

impl Activation {
    /// Keras 2's `hard_sigmoid`, also ONNX's default: `clamp(0.2 x + 0.5, 0, 1)`.
    pub const HARD_SIGMOID_KERAS2: Self = Self::HardSigmoid { alpha: 0.2, beta: 0.5 };
    /// Keras 3's and PyTorch's `hard_sigmoid`: `clamp(x / 6 + 0.5, 0, 1)`.
    pub const HARD_SIGMOID_KERAS3: Self = Self::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 };

    /// `x` if `x >= alpha`, else `0`: ThresholdedRelu by the letter of ONNX's recurrent operators. It is
    /// the one whose threshold is the next lower f32, which is the same for every f32 x.
    pub const fn thresholded_relu_from(alpha: f32) -> Self {
        Self::ThresholdedRelu { alpha: alpha.next_down() }
    }

    /// The value of the function at `x`.
    pub fn apply<R: Real>(self, x: R) -> R {
        let r = R::from_f32;
        match self {
            Self::Linear => x,
            Self::Sigmoid => R::ONE / (R::ONE + (-x).exp()),
            Self::Tanh => x.tanh(),
            Self::Relu => {
                if x < R::ZERO {
                    R::ZERO
                } else {
                    x
                }
            }
            Self::HardSigmoid { alpha, beta } => {
                let v = r(alpha) * x + r(beta);
                if v < R::ZERO {
                    R::ZERO
                } else if v > R::ONE {
                    R::ONE
                } else {
                    v
                }
            }
            Self::Affine { alpha, beta } => r(alpha) * x + r(beta),
            Self::LeakyRelu { alpha } => {
                if x < R::ZERO {
                    r(alpha) * x
                } else {
                    x
                }
            }
            Self::ThresholdedRelu { alpha } => {
                if x <= r(alpha) {
                    R::ZERO
                } else {
                    x
                }
            }
            Self::ScaledTanh { alpha, beta } => r(alpha) * (r(beta) * x).tanh(),
            Self::Elu { alpha } => {
                if x < R::ZERO {
                    r(alpha) * x.exp_m1()
                } else {
                    x
                }
            }
            Self::Softsign => x / (R::ONE + x.abs()),
            Self::Softplus => {
                // ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|), which does not overflow.
                let tail = (-x.abs()).exp().ln_1p();
                if x > R::ZERO { x + tail } else { tail }
            }
            Self::Positive => {
                if x < R::ZERO {
                    Self::Sigmoid.apply(x)
                } else {
                    x + r(0.5)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Activation::{self, *};

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
            let got = f.apply(x);
            assert!((got - want).abs() <= 1e-14, "{f:?}({x}) = {got}, expected {want}");
        }
    }

    #[test]
    fn nan_stays_nan() {
        for f in [
            Linear,
            Sigmoid,
            Tanh,
            Relu,
            Activation::HARD_SIGMOID_KERAS2,
            Softsign,
            Softplus,
            Positive,
            Elu { alpha: 1.0 },
            LeakyRelu { alpha: 0.1 },
            ThresholdedRelu { alpha: 1.0 },
        ] {
            assert!(f.apply(f64::NAN).is_nan(), "{f:?}");
        }
    }
}
