//! What a recurrent cell computes, as data.

use crate::file::CellFile;
use crate::{Activation, Rest};
use serde::{Deserialize, Serialize};

/// The kind of a cell, with the options that change its equations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CellKind {
    /// Elman network: `h = f(W_ih x + b_ih + W_hh h + b_hh)`.
    Rnn,
    /// Independently recurrent network: `h = f(W_ih x + b_ih + u ∘ h + b_hh)`, u a vector (Li et
    /// al. 2018).
    IndRnn,
    /// Long short-term memory, gates i f g o.
    Lstm {
        /// Coupled gates: `f = 1 - i` (ONNX `input_forget`). The weights of f are not used.
        coupled: bool,
    },
    /// Gated recurrent unit, gates r z n.
    Gru {
        /// `true`: `n = g(W_in x + b_in + r ∘ (W_hn h + b_hn))` (PyTorch, cuDNN, Keras's default).
        /// `false`: `n = g(W_in x + b_in + W_hn (r ∘ h) + b_hn)` (ONNX's default, the paper).
        reset_after: bool,
    },
    /// Minimal GRU, gates z n of the input alone: `h = (1 - z) ∘ h + z ∘ n` (Feng et al. 2024).
    MinGru,
    /// Minimal LSTM, gates f i n of the input alone: `h = (f ∘ h + i ∘ n) / (f + i)` (Feng et al.
    /// 2024).
    MinLstm,
    /// The sLSTM of xLSTM without its surrounding block: gates i f z o, where i is exponential and f may be (Beck et
    /// al. 2024). Its states are h, c, the normalizer n and the stabilizer m.
    SLstm {
        /// Number of heads: groups of equally many hidden units. A unit reads only the h of its own head. Must divide
        /// the number of hidden units.
        heads: usize,
        /// Whether the forget gate f is exponential instead of a sigmoid.
        exponential_forget: bool,
    },
}

impl CellKind {
    /// Number of gates, `G`.
    pub const fn gates(self) -> usize {
        match self {
            Self::Rnn | Self::IndRnn => 1,
            Self::MinGru => 2,
            Self::Gru { .. } | Self::MinLstm => 3,
            Self::Lstm { .. } | Self::SLstm { .. } => 4,
        }
    }

    /// Whether each unit depends on no other unit's state.
    pub const fn is_pointwise(self) -> bool {
        matches!(self, Self::IndRnn | Self::MinGru | Self::MinLstm)
    }

    /// Number of elements of `W_hh` for `hidden` units whose h has `width` elements: those of a matrix, in which a row
    /// of an sLSTM has only the columns of its own head; of a vector for an IndRNN; 0 for the minimal cells.
    pub const fn recurrent_weights(self, hidden: usize, width: usize) -> usize {
        match self {
            Self::MinGru | Self::MinLstm => 0,
            Self::IndRnn => hidden,
            _ => self.gates() * hidden * self.columns(width),
        }
    }

    /// Number of columns of `W_hh` where it is a matrix, for an h of `width` elements.
    pub const fn columns(self, width: usize) -> usize {
        match self {
            // Zero heads are an error, reported elsewhere; here only the division by zero is avoided.
            Self::SLstm { heads, .. } if heads > 0 => width / heads,
            _ => width,
        }
    }

    /// How many states of H elements the cell has besides h: c of an LSTM; c, n and m of an sLSTM. They are stored one
    /// after the other and together called c.
    pub const fn carried(self) -> usize {
        match self {
            Self::Lstm { .. } => 1,
            Self::SLstm { .. } => 3,
            _ => 0,
        }
    }

    /// Whether the cell has a second state c besides h.
    pub const fn has_cell_state(self) -> bool {
        self.carried() > 0
    }

    /// The gate whose recurrent bias is not added to the projection of the input, if there is one: with `reset_after`
    /// the candidate of a GRU, where the reset gate multiplies that bias. For all other gates both biases are summed.
    pub const fn separate_bias(self) -> Option<usize> {
        match self {
            Self::Gru { reset_after: true } => Some(2),
            _ => None,
        }
    }

    /// The name of Keras's class for such a layer.
    pub const fn class_name(self) -> &'static str {
        match self {
            Self::Rnn => "SimpleRNN",
            Self::IndRnn => "IndRNN",
            Self::Lstm { .. } => "LSTM",
            Self::Gru { .. } => "GRU",
            Self::MinGru => "MinGRU",
            Self::MinLstm => "MinLSTM",
            Self::SLstm { .. } => "sLSTM",
        }
    }

    /// The name in lower case, used by the command line and in model files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rnn => "rnn",
            Self::IndRnn => "indrnn",
            Self::Lstm { .. } => "lstm",
            Self::Gru { .. } => "gru",
            Self::MinGru => "mingru",
            Self::MinLstm => "minlstm",
            Self::SLstm { .. } => "slstm",
        }
    }
}

/// The order of the gates along the first axis of a weight matrix.
///
/// Recurve's order is PyTorch's: LSTM `i f g o`, GRU `r z n`. Files in another order are converted when they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GateOrder {
    /// LSTM `i f g o`, GRU `r z n`.
    PyTorch,
    /// LSTM `i o f c`, GRU `z r h`.
    Onnx,
    /// LSTM `i f c o`, GRU `z r h`.
    Keras,
}

impl GateOrder {
    /// For each gate in Recurve's order, its position in this order.
    pub const fn places(self, kind: CellKind) -> &'static [usize] {
        match (kind, self) {
            (CellKind::Rnn | CellKind::IndRnn, _) => &[0],
            // No framework has these cells, so there is only one order.
            (CellKind::MinGru, _) => &[0, 1],
            (CellKind::MinLstm, _) => &[0, 1, 2],
            // The order of the authors' code (NX-AI/xlstm).
            (CellKind::SLstm { .. }, _) => &[0, 1, 2, 3],
            (CellKind::Lstm { .. }, Self::Onnx) => &[0, 2, 3, 1],
            (CellKind::Lstm { .. }, _) => &[0, 1, 2, 3],
            (CellKind::Gru { .. }, Self::PyTorch) => &[0, 1, 2],
            (CellKind::Gru { .. }, _) => &[1, 0, 2],
        }
    }

    /// Reorders `rows` (G blocks of equal length) from this order to Recurve's. Elements beyond G equal blocks are kept
    /// at the end; checking the length is left to the caller.
    pub fn to_native<T: Copy>(self, kind: CellKind, rows: &[T]) -> Vec<T> {
        let block = rows.len() / kind.gates();
        let (blocks, rest) = rows.split_at(block * kind.gates());
        let gates = self.places(kind).iter().flat_map(|&g| &blocks[g * block..(g + 1) * block]);
        gates.chain(rest).copied().collect()
    }

    /// The inverse of [`Self::to_native`]: from Recurve's order to this one.
    pub fn from_native<T: Copy>(self, kind: CellKind, rows: &[T]) -> Vec<T> {
        let block = rows.len() / kind.gates();
        let mut all = rows.to_vec();
        for (gate, &place) in self.places(kind).iter().enumerate() {
            all[place * block..][..block].copy_from_slice(&rows[gate * block..][..block]);
        }
        all
    }
}

/// Zoneout at inference (Krueger et al. 2016): the new state is a mean of old and new state, weighted by the share of
/// units that training would keep. Stored in files as `[h, c]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f32; 2]", into = "[f32; 2]")]
pub struct Zoneout {
    /// Weight of the old h, in `[0, 1)`.
    pub h: f32,
    /// Weight of the old c, in `[0, 1)`; LSTM only. The new h is computed from the new c before it is mixed with the
    /// old one.
    pub c: f32,
}

impl From<[f32; 2]> for Zoneout {
    fn from([h, c]: [f32; 2]) -> Self {
        Self { h, c }
    }
}

impl From<Zoneout> for [f32; 2] {
    fn from(z: Zoneout) -> Self {
        [z.h, z.c]
    }
}

/// A recurrent cell: everything except sizes and weights. Whether it has biases is decided by whether the weights
/// contain them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "CellFile", into = "CellFile")]
pub struct Cell {
    /// The kind of cell.
    pub kind: CellKind,
    /// Activations of the gates: LSTM i, f, o; GRU r, z; minimal GRU z; minimal LSTM f, i. For an sLSTM only the third
    /// is used, for o. Entries beyond the cell's gates are not used.
    pub gates: [Activation; 3],
    /// Activation of the candidate (LSTM g, sLSTM z, the others n), and the only one of a SimpleRNN.
    pub candidate: Activation,
    /// Activation of the cell state c before the output gate (LSTM only).
    pub output: Activation,
    /// LSTM: peepholes, that is, gates that read c through weights of their own (Gers & Schmidhuber 2000).
    pub peepholes: bool,
    /// Clamps the inputs of the gates and of the candidate to `[-clip, clip]`, as ONNX Runtime implements ONNX's
    /// `clip`. The c passed to the next timestep is never clamped.
    pub clip: Option<f32>,
    /// LSTM: `clip` also clamps the input of the output activation, as the text of the ONNX operator says ("applied to
    /// the input of activations"). ONNX Runtime does not do so.
    pub clip_output: bool,
    /// LSTM: h is `W_hr` times the cell's output and has this many elements (PyTorch's `proj_size`; Sak et al. 2014).
    pub projection: Option<usize>,
    /// Layer normalization with this epsilon (Ba et al. 2016); LSTM, and GRU with `reset_after`.
    pub layer_norm: Option<f32>,
    /// Zoneout; SimpleRNN, LSTM and GRU.
    pub zoneout: Option<Zoneout>,
    /// Keeps the struct open for more fields: a literal ends in `..` and a default.
    #[doc(hidden)]
    pub rest: Rest,
}

impl Cell {
    /// A SimpleRNN cell with tanh.
    pub const RNN: Self = Self::with_kind(CellKind::Rnn);
    /// An IndRNN cell with ReLU, as in its paper.
    pub const INDRNN: Self = Self { candidate: Activation::Relu, ..Self::with_kind(CellKind::IndRnn) };
    /// An LSTM cell as PyTorch and Keras have it.
    pub const LSTM: Self = Self::with_kind(CellKind::Lstm { coupled: false });
    /// A GRU cell with the reset gate after the product (PyTorch, Keras's default).
    pub const GRU: Self = Self::with_kind(CellKind::Gru { reset_after: true });
    /// A GRU cell with the reset gate before the product (ONNX's default, the paper).
    pub const GRU_RESET_BEFORE: Self = Self::with_kind(CellKind::Gru { reset_after: false });
    /// A minimal GRU with a linear candidate.
    pub const MINGRU: Self = Self { candidate: Activation::Linear, ..Self::with_kind(CellKind::MinGru) };
    /// A minimal LSTM with a linear candidate.
    pub const MINLSTM: Self = Self { candidate: Activation::Linear, ..Self::with_kind(CellKind::MinLstm) };

    /// An sLSTM cell with one head and a sigmoid forget gate.
    pub const SLSTM: Self = Self::with_kind(CellKind::SLstm { heads: 1, exponential_forget: false });

    /// A cell with sigmoid gates, tanh candidate and output, and no options.
    pub const fn with_kind(kind: CellKind) -> Self {
        Self {
            kind,
            gates: [Activation::Sigmoid; 3],
            candidate: Activation::Tanh,
            output: Activation::Tanh,
            peepholes: false,
            clip: None,
            clip_output: false,
            projection: None,
            layer_norm: None,
            zoneout: None,
            rest: Rest(()),
        }
    }

    /// Number of elements of h for `hidden` units.
    pub const fn state_size(&self, hidden: usize) -> usize {
        match self.projection {
            Some(p) => p,
            None => hidden,
        }
    }

    /// Number of elements of h, and of c if the cell has one, for `hidden` units. The c of an sLSTM is its c, n and m
    /// one after the other.
    pub const fn state_sizes(&self, hidden: usize) -> (usize, Option<usize>) {
        let carried = self.kind.carried();
        (self.state_size(hidden), if carried > 0 { Some(carried.saturating_mul(hidden)) } else { None })
    }
}
