//! What a recurrent layer does with its cell over a sequence.

use crate::CellKind;
use serde::{Deserialize, Serialize};

/// The direction in which a sequence is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the first timestep to the last.
    Forward,
    /// From the last valid timestep of each sequence to its first. Outputs stand at the timestep
    /// they belong to, as in PyTorch and ONNX.
    Reverse,
}

/// The output at a timestep that a mask leaves out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MaskedOutput {
    /// Zero: Keras's `zero_output_for_mask`.
    #[default]
    Zero,
    /// h as it stands: Keras's default.
    Repeat,
}

/// Which biases a recurrent layer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bias {
    /// None.
    None,
    /// One, `b_ih` (Keras, but for a GRU with reset_after).
    Single,
    /// Two, `b_ih` and `b_hh` (PyTorch; Keras's GRU with reset_after).
    Double,
}

impl Bias {
    /// The biases of Keras's layers: two where one of them is not summed with the other.
    pub const fn keras(kind: CellKind) -> Self {
        if kind.separate_bias().is_some() { Self::Double } else { Self::Single }
    }
}

/// How a bidirectional layer joins its two outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Merge {
    /// One after the other, forward first: the last dimension is 2·H.
    #[default]
    Concat,
    /// Their sum.
    Sum,
    /// Their mean.
    Average,
    /// Their elementwise product.
    Multiply,
    /// Not at all: two outputs, forward first.
    None,
}
