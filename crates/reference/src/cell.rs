//! What a recurrent cell computes, as data.

use crate::Activation;

/// The family of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CellKind {
    /// Elman network: `h = f(W_ih x + b_ih + W_hh h + b_hh)`.
    Rnn,
    /// Long short-term memory, gates i f g o.
    Lstm {
        /// Coupled gates: `f = 1 - i` (ONNX `input_forget`). The weights of f are then unused.
        coupled: bool,
    },
    /// Gated recurrent unit, gates r z n.
    Gru {
        /// `true`: `n = g(W_in x + b_in + r ∘ (W_hn h + b_hn))` (PyTorch, cuDNN, Keras's default).
        /// `false`: `n = g(W_in x + b_in + W_hn (r ∘ h) + b_hn)` (ONNX's default, the paper).
        reset_after: bool,
    },
}

impl CellKind {
    /// Number of gates G.
    pub const fn gates(self) -> usize {
        match self {
            Self::Rnn => 1,
            Self::Lstm { .. } => 4,
            Self::Gru { .. } => 3,
        }
    }

    /// Whether the cell carries a second state c beside h.
    pub const fn has_cell_state(self) -> bool {
        matches!(self, Self::Lstm { .. })
    }

    /// Lower-case name used by the command line and by files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rnn => "rnn",
            Self::Lstm { .. } => "lstm",
            Self::Gru { .. } => "gru",
        }
    }
}

/// The order of the gates along the first axis of a weight matrix.
///
/// Recurve's own order is PyTorch's: LSTM `i f g o`, GRU `r z n`. Files are converted on load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateOrder {
    /// LSTM `i f g o`, GRU `r z n`.
    PyTorch,
    /// LSTM `i o f c`, GRU `z r h`.
    Onnx,
    /// LSTM `i f c o`, GRU `z r h`.
    Keras,
}

impl GateOrder {
    /// For each gate in Recurve's order, its place in this order.
    pub const fn places(self, kind: CellKind) -> &'static [usize] {
        match (kind, self) {
            (CellKind::Rnn, _) => &[0],
            (CellKind::Lstm { .. }, Self::Onnx) => &[0, 2, 3, 1],
            (CellKind::Lstm { .. }, _) => &[0, 1, 2, 3],
            (CellKind::Gru { .. }, Self::PyTorch) => &[0, 1, 2],
            (CellKind::Gru { .. }, _) => &[1, 0, 2],
        }
    }

    /// Reorders `rows` (G blocks of equal length) from this order to Recurve's.
    pub fn to_native<T: Copy>(self, kind: CellKind, rows: &[T]) -> Vec<T> {
        let block = rows.len() / kind.gates();
        self.places(kind).iter().flat_map(|&g| rows[g * block..(g + 1) * block].iter().copied()).collect()
    }
}

/// A recurrent cell: its kind, activations and clip.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// The family.
    pub kind: CellKind,
    /// Activation of the gates (LSTM i, f, o; GRU r, z). The SimpleRNN has none.
    pub gate: Activation,
    /// Activation of the candidate (LSTM g, GRU n), and the only one of the SimpleRNN.
    pub candidate: Activation,
    /// Activation of the cell state on its way out (LSTM only).
    pub output: Activation,
    /// Clamps the inputs of the gates and of the candidate to `[-clip, clip]`, ONNX Runtime's
    /// reading of ONNX's `clip`. The cell state is never clamped, nor is what the output activation
    /// makes of it.
    pub clip: Option<f32>,
}

impl Cell {
    /// A SimpleRNN cell with tanh.
    pub const RNN: Self = Self::with_kind(CellKind::Rnn);
    /// An LSTM cell as PyTorch and Keras have it.
    pub const LSTM: Self = Self::with_kind(CellKind::Lstm { coupled: false });
    /// A GRU cell with the reset gate after the product (PyTorch, Keras's default).
    pub const GRU: Self = Self::with_kind(CellKind::Gru { reset_after: true });
    /// A GRU cell with the reset gate before the product (ONNX's default, the paper).
    pub const GRU_RESET_BEFORE: Self = Self::with_kind(CellKind::Gru { reset_after: false });

    /// A cell with sigmoid gates, tanh candidate and output, no clip.
    pub const fn with_kind(kind: CellKind) -> Self {
        Self { kind, gate: Activation::Sigmoid, candidate: Activation::Tanh, output: Activation::Tanh, clip: None }
    }
}
