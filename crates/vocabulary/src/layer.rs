//! Options of a recurrent layer besides its cell.

use crate::CellKind;
use serde::{Deserialize, Serialize};

/// The direction in which a sequence is read. There is no third.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the first timestep to the last.
    Forward,
    /// From the last valid timestep of each sequence to its first. Each output stays at its own timestep, as in PyTorch
    /// and ONNX.
    Reverse,
}

/// The output at a timestep that a mask excludes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MaskedOutput {
    /// Zero, as Keras's `zero_output_for_mask`.
    #[default]
    Zero,
    /// The unchanged h, as Keras does by default.
    Repeat,
}

/// Which biases a recurrent layer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bias {
    /// No bias.
    None,
    /// One bias, `b_ih` (Keras, except a GRU with `reset_after`).
    Single,
    /// Two biases, `b_ih` and `b_hh` (PyTorch; Keras's GRU with `reset_after`).
    Double,
}

impl Bias {
    /// The biases that Keras's layer has: two for a GRU with `reset_after`, else one.
    pub const fn keras(kind: CellKind) -> Self {
        if kind.separate_bias().is_some() { Self::Double } else { Self::Single }
    }
}

/// How a bidirectional layer joins the outputs of its directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Merge {
    /// Concatenated, forward first: the last dimension is twice as long.
    #[default]
    Concat,
    /// Their sum.
    Sum,
    /// Their mean.
    Average,
    /// Their elementwise product.
    Multiply,
    /// Not joined: two outputs, forward first.
    None,
}
