//! Activation functions of ONNX's recurrent operators, with their parameters alpha and beta.

use serde::{Deserialize, Serialize};

/// An activation function.
///
/// The list and the defaults of alpha and beta are those of the ONNX operators `RNN`, `GRU` and `LSTM`. The functions
/// of Keras and PyTorch are special cases; some have constants below. Model files store the name, and alpha and beta of
/// the functions that have them.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
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
    /// `x` if `x > alpha`, else `0`, as in the operator `ThresholdedRelu` and in ONNX Runtime's recurrent operators.
    /// The text of the recurrent operators says `x >= alpha`: [`Self::thresholded_relu_from`].
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
    /// `x + 0.5` if `x >= 0`, else sigmoid(x). It is positive and monotonic, and is the candidate's activation g of the
    /// minimal cells in log-space (Feng et al. 2024, appendix B). Not in ONNX's list.
    Positive,
}

impl Activation {
    /// Keras 2's `hard_sigmoid`, also ONNX's default: `clamp(0.2 x + 0.5, 0, 1)`.
    pub const HARD_SIGMOID_KERAS2: Self = Self::HardSigmoid { alpha: 0.2, beta: 0.5 };
    /// Keras 3's and PyTorch's `hard_sigmoid`: `clamp(x / 6 + 0.5, 0, 1)`.
    pub const HARD_SIGMOID_KERAS3: Self = Self::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 };

    /// `x` if `x >= alpha`, else `0`: ThresholdedRelu as the text of ONNX's recurrent operators defines it. It is
    /// stored with the next lower f32 as its threshold, which gives the same result for every f32 x.
    pub const fn thresholded_relu_from(alpha: f32) -> Self {
        Self::ThresholdedRelu { alpha: alpha.next_down() }
    }

    /// Every function once, in the order of [`Self::code`], with ONNX's defaults of alpha and beta.
    pub const ALL: [Self; 13] = [
        Self::Linear,
        Self::Sigmoid,
        Self::Tanh,
        Self::Relu,
        Self::HARD_SIGMOID_KERAS2,
        Self::Affine { alpha: 1.0, beta: 0.0 },
        Self::LeakyRelu { alpha: 0.01 },
        Self::ThresholdedRelu { alpha: 1.0 },
        Self::ScaledTanh { alpha: 1.0, beta: 1.0 },
        Self::Elu { alpha: 1.0 },
        Self::Softsign,
        Self::Softplus,
        Self::Positive,
    ];

    /// Whether the derivative can only be told from the input of the function, not from its result.
    pub const fn slope_needs_input(self) -> bool {
        match self {
            Self::LeakyRelu { alpha } | Self::ThresholdedRelu { alpha } | Self::Elu { alpha } => alpha < 0.0,
            _ => false,
        }
    }

    /// The number that shaders use for this function: its case in `shared/activations.wgsl`.
    pub const fn code(self) -> u32 {
        match self {
            Self::Linear => 0,
            Self::Sigmoid => 1,
            Self::Tanh => 2,
            Self::Relu => 3,
            Self::HardSigmoid { .. } => 4,
            Self::Affine { .. } => 5,
            Self::LeakyRelu { .. } => 6,
            Self::ThresholdedRelu { .. } => 7,
            Self::ScaledTanh { .. } => 8,
            Self::Elu { .. } => 9,
            Self::Softsign => 10,
            Self::Softplus => 11,
            Self::Positive => 12,
        }
    }

    /// Alpha and beta; zero where the function does not have them.
    pub const fn parameters(self) -> [f32; 2] {
        match self {
            Self::HardSigmoid { alpha, beta } | Self::Affine { alpha, beta } | Self::ScaledTanh { alpha, beta } => {
                [alpha, beta]
            }
            Self::LeakyRelu { alpha } | Self::ThresholdedRelu { alpha } | Self::Elu { alpha } => [alpha, 0.0],
            Self::Linear
            | Self::Sigmoid
            | Self::Tanh
            | Self::Relu
            | Self::Softsign
            | Self::Softplus
            | Self::Positive => [0.0, 0.0],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_stand_at_their_codes() {
        for (code, f) in (0..).zip(Activation::ALL) {
            assert_eq!(f.code(), code, "{f:?}");
        }
    }

    #[test]
    fn files_have_names_and_parameters() {
        for (f, text) in [
            (Activation::Softsign, r#"{"name":"softsign"}"#),
            (Activation::HardSigmoid { alpha: 0.25, beta: 0.5 }, r#"{"name":"hard_sigmoid","alpha":0.25,"beta":0.5}"#),
        ] {
            assert_eq!(serde_json::to_string(&f).unwrap(), text);
            assert_eq!(serde_json::from_str::<Activation>(text).unwrap(), f);
        }
        let e = serde_json::from_str::<Activation>(r#"{"name":"swish"}"#).unwrap_err().to_string();
        assert!(e.contains("swish"), "{e}");
    }
}
