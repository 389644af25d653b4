//! Layers as data: what Keras calls a layer's config. They say what a layer is; building gives it
//! weights and a device.

use crate::Initializer;
use recurve_kernels::{Cell, CellKind};
use recurve_tensor::Activation;
use serde::{Deserialize, Serialize};

/// An activation function as files write it: its name, and alpha and beta where it has them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the variants are those of Activation, documented there")]
pub enum ActivationSpec {
    Linear,
    Sigmoid,
    Tanh,
    Relu,
    HardSigmoid { alpha: f32, beta: f32 },
    Affine { alpha: f32, beta: f32 },
    LeakyRelu { alpha: f32 },
    ThresholdedRelu { alpha: f32 },
    ScaledTanh { alpha: f32, beta: f32 },
    Elu { alpha: f32 },
    Softsign,
    Softplus,
}

macro_rules! activations {
    ($($name:ident $({ $($field:ident),* })?),* $(,)?) => {
        impl From<ActivationSpec> for Activation {
            fn from(a: ActivationSpec) -> Self {
                match a { $(ActivationSpec::$name $({ $($field),* })? => Self::$name $({ $($field),* })?),* }
            }
        }
        impl From<Activation> for ActivationSpec {
            fn from(a: Activation) -> Self {
                match a {
                    $(Activation::$name $({ $($field),* })? => Self::$name $({ $($field),* })?,)*
                    // Activation is open to additions; a new one is added here with it.
                    other => unreachable!("{other:?} has no name in files"),
                }
            }
        }
    };
}
activations!(
    Linear,
    Sigmoid,
    Tanh,
    Relu,
    HardSigmoid { alpha, beta },
    Affine { alpha, beta },
    LeakyRelu { alpha },
    ThresholdedRelu { alpha },
    ScaledTanh { alpha, beta },
    Elu { alpha },
    Softsign,
    Softplus,
);

/// A recurrent cell as files write it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellSpec {
    /// `rnn`, `lstm` or `gru`.
    pub kind: CellName,
    /// GRU: the reset gate after the product.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub reset_after: bool,
    /// LSTM: f = 1 - i.
    #[serde(default, skip_serializing_if = "is_no")]
    pub input_forget: bool,
    /// Activation of the gates.
    pub recurrent_activation: ActivationSpec,
    /// Activation of the candidate.
    pub activation: ActivationSpec,
    /// Activation of the cell state on its way out.
    pub output_activation: ActivationSpec,
    /// Clip of activation inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<f32>,
}

fn yes() -> bool {
    true
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_yes(b: &bool) -> bool {
    *b
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_no(b: &bool) -> bool {
    !*b
}

/// The family of a cell as files write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CellName {
    /// SimpleRNN.
    Rnn,
    /// LSTM.
    Lstm,
    /// GRU.
    Gru,
}

impl From<CellSpec> for Cell {
    fn from(s: CellSpec) -> Self {
        Self {
            kind: match s.kind {
                CellName::Rnn => CellKind::Rnn,
                CellName::Lstm => CellKind::Lstm { coupled: s.input_forget },
                CellName::Gru => CellKind::Gru { reset_after: s.reset_after },
            },
            gate: s.recurrent_activation.into(),
            candidate: s.activation.into(),
            output: s.output_activation.into(),
            clip: s.clip,
        }
    }
}

impl From<Cell> for CellSpec {
    fn from(c: Cell) -> Self {
        let (kind, reset_after, input_forget) = match c.kind {
            CellKind::Lstm { coupled } => (CellName::Lstm, true, coupled),
            CellKind::Gru { reset_after } => (CellName::Gru, reset_after, false),
            _ => (CellName::Rnn, true, false),
        };
        Self {
            kind,
            reset_after,
            input_forget,
            recurrent_activation: c.gate.into(),
            activation: c.candidate.into(),
            output_activation: c.output.into(),
            clip: c.clip,
        }
    }
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
}

/// Everything about a recurrent layer but its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecurrentSpec {
    /// The cell.
    pub cell: CellSpec,
    /// H
    pub units: usize,
    /// L
    #[serde(default = "one")]
    pub num_layers: usize,
    /// Both directions, joined this way.
    #[serde(default)]
    pub bidirectional: Option<Merge>,
    /// The biases.
    pub bias: Bias,
    /// Return h of every timestep, not only the last.
    #[serde(default)]
    pub return_sequences: bool,
    /// Return the final state too.
    #[serde(default)]
    pub return_state: bool,
    /// Begin each call with the state in which the last one ended.
    #[serde(default)]
    pub stateful: bool,
    /// Read the sequence backwards, and return outputs in that order.
    #[serde(default)]
    pub go_backwards: bool,
    /// Input and output are `[T, B, …]`.
    #[serde(default)]
    pub time_major: bool,
    /// LSTM: the bias of the forget gate begins at 1 (Jozefowicz et al. 2015).
    #[serde(default, skip_serializing_if = "is_no")]
    pub unit_forget_bias: bool,
    /// How W_ih is initialised.
    #[serde(default = "glorot")]
    pub kernel_initializer: Initializer,
    /// How W_hh is initialised.
    #[serde(default = "orthogonal")]
    pub recurrent_initializer: Initializer,
    /// How biases are initialised.
    #[serde(default = "zeros")]
    pub bias_initializer: Initializer,
}

fn one() -> usize {
    1
}
fn glorot() -> Initializer {
    Initializer::GlorotUniform
}
fn orthogonal() -> Initializer {
    Initializer::Orthogonal
}
fn zeros() -> Initializer {
    Initializer::Zeros
}

impl RecurrentSpec {
    /// A layer of `units` cells with Keras's defaults.
    pub fn new(cell: Cell, units: usize) -> Self {
        let double = cell.kind == CellKind::Gru { reset_after: true };
        Self {
            cell: cell.into(),
            units,
            num_layers: 1,
            bidirectional: None,
            bias: if double { Bias::Double } else { Bias::Single },
            return_sequences: false,
            return_state: false,
            stateful: false,
            go_backwards: false,
            time_major: false,
            unit_forget_bias: matches!(cell.kind, CellKind::Lstm { .. }),
            kernel_initializer: glorot(),
            recurrent_initializer: orthogonal(),
            bias_initializer: zeros(),
        }
    }

    /// D
    pub fn directions(&self) -> usize {
        if self.bidirectional.is_some() { 2 } else { 1 }
    }

    /// The last dimension of the output.
    pub fn output_size(&self) -> usize {
        match self.bidirectional {
            Some(Merge::Concat) => 2 * self.units,
            _ => self.units,
        }
    }

    /// The weights of one stacked layer, a direction each, named as PyTorch names them under
    /// `prefix`.
    ///
    /// # Errors
    /// [`crate::Error::MissingWeight`] or [`crate::Error::WeightShape`].
    pub fn direction_weights(
        &self,
        input_size: usize,
        weights: &crate::Weights,
        prefix: &str,
        layer: usize,
    ) -> crate::Result<Vec<recurve_kernels::DirectionWeights<f32>>> {
        crate::recurrent::layer_weights(self, input_size, weights, prefix, layer)
    }

    /// Number of weights for an input of this many features.
    pub fn param_count(&self, input_size: usize) -> usize {
        let g = Cell::from(self.cell).kind.gates();
        let (d, h) = (self.directions(), self.units);
        let biases = match self.bias {
            Bias::None => 0,
            Bias::Single => 1,
            Bias::Double => 2,
        };
        (0..self.num_layers)
            .map(|l| if l == 0 { input_size } else { d * h })
            .map(|i| d * g * h * (i + h + biases))
            .sum()
    }
}

macro_rules! recurrent {
    ($(#[$doc:meta])* $name:ident, $cell:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name(pub(crate) RecurrentSpec);

        impl $name {
            /// A layer of `units` hidden units with Keras's defaults.
            pub fn new(units: usize) -> Self {
                Self(RecurrentSpec::new($cell, units))
            }
            /// Return h of every timestep, `[B, T, H]`, not only the last, `[B, H]`.
            #[must_use]
            pub fn return_sequences(mut self, on: bool) -> Self {
                self.0.return_sequences = on;
                self
            }
            /// Return the final state after the output.
            #[must_use]
            pub fn return_state(mut self, on: bool) -> Self {
                self.0.return_state = on;
                self
            }
            /// Begin each call with the state in which the last one ended.
            #[must_use]
            pub fn stateful(mut self, on: bool) -> Self {
                self.0.stateful = on;
                self
            }
            /// Read the sequence backwards, and return outputs in that order.
            #[must_use]
            pub fn go_backwards(mut self, on: bool) -> Self {
                self.0.go_backwards = on;
                self
            }
            /// Input and output are `[T, B, …]`.
            #[must_use]
            pub fn time_major(mut self, on: bool) -> Self {
                self.0.time_major = on;
                self
            }
            /// Whether there are biases.
            #[must_use]
            pub fn use_bias(mut self, on: bool) -> Self {
                let fresh = RecurrentSpec::new(self.0.cell.into(), 1).bias;
                self.0.bias = if on { fresh } else { Bias::None };
                self
            }
            /// Activation of the candidate (and of an LSTM's output).
            #[must_use]
            pub fn activation(mut self, f: Activation) -> Self {
                self.0.cell.activation = f.into();
                self.0.cell.output_activation = f.into();
                self
            }
            /// Clamp the inputs of the gates and the candidate to `[-clip, clip]`.
            #[must_use]
            pub fn clip(mut self, clip: f32) -> Self {
                self.0.cell.clip = Some(clip);
                self
            }
            /// Layers stacked in one module, as PyTorch's `num_layers`.
            #[must_use]
            pub fn num_layers(mut self, layers: usize) -> Self {
                self.0.num_layers = layers;
                self
            }
            /// How W_ih is initialised.
            #[must_use]
            pub fn kernel_initializer(mut self, i: Initializer) -> Self {
                self.0.kernel_initializer = i;
                self
            }
            /// How W_hh is initialised.
            #[must_use]
            pub fn recurrent_initializer(mut self, i: Initializer) -> Self {
                self.0.recurrent_initializer = i;
                self
            }
            /// How biases are initialised.
            #[must_use]
            pub fn bias_initializer(mut self, i: Initializer) -> Self {
                self.0.bias_initializer = i;
                self
            }
        }

        impl From<$name> for RecurrentSpec {
            fn from(l: $name) -> Self {
                l.0
            }
        }
        impl From<$name> for LayerConfig {
            fn from(l: $name) -> Self {
                Self::Recurrent(l.0)
            }
        }
    };
}

recurrent!(
    /// A SimpleRNN (Elman) layer: `h = tanh(W_ih x + W_hh h + b)`.
    SimpleRnn,
    Cell::RNN
);
recurrent!(
    /// An LSTM layer.
    Lstm,
    Cell::LSTM
);
recurrent!(
    /// A GRU layer, with the reset gate after the product unless told otherwise.
    Gru,
    Cell::GRU
);

impl Lstm {
    /// Activation of the gates.
    #[must_use]
    pub fn recurrent_activation(mut self, f: Activation) -> Self {
        self.0.cell.recurrent_activation = f.into();
        self
    }
    /// Whether the bias of the forget gate begins at 1; it does unless told otherwise.
    #[must_use]
    pub fn unit_forget_bias(mut self, on: bool) -> Self {
        self.0.unit_forget_bias = on;
        self
    }
}

impl Gru {
    /// Activation of the gates.
    #[must_use]
    pub fn recurrent_activation(mut self, f: Activation) -> Self {
        self.0.cell.recurrent_activation = f.into();
        self
    }
    /// The reset gate after the product (PyTorch, cuDNN, Keras's default) or before it.
    #[must_use]
    pub fn reset_after(mut self, on: bool) -> Self {
        self.0.cell.reset_after = on;
        if self.0.bias != Bias::None {
            self.0.bias = if on { Bias::Double } else { Bias::Single };
        }
        self
    }
}

/// A recurrent layer in both directions.
#[derive(Clone, Debug, PartialEq)]
pub struct Bidirectional(RecurrentSpec);

impl Bidirectional {
    /// `layer` forwards beside another like it backwards, joined by concatenation.
    pub fn new(layer: impl Into<RecurrentSpec>) -> Self {
        let mut spec = layer.into();
        spec.bidirectional = Some(Merge::Concat);
        Self(spec)
    }

    /// How the outputs are joined.
    #[must_use]
    pub fn merge_mode(mut self, merge: Merge) -> Self {
        self.0.bidirectional = Some(merge);
        self
    }
}

impl From<Bidirectional> for RecurrentSpec {
    fn from(l: Bidirectional) -> Self {
        l.0
    }
}
impl From<Bidirectional> for LayerConfig {
    fn from(l: Bidirectional) -> Self {
        Self::Recurrent(l.0)
    }
}

/// A look-up of vectors by id: `[B, T]` to `[B, T, width]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embedding {
    /// Number of ids.
    pub input_dim: usize,
    /// Width of a vector.
    pub output_dim: usize,
}

impl Embedding {
    /// `input_dim` vectors of `output_dim` elements.
    pub fn new(input_dim: usize, output_dim: usize) -> Self {
        Self { input_dim, output_dim }
    }
}

/// A fully connected layer over the last dimension: `f(x · Wᵀ + b)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dense {
    /// Outputs.
    pub units: usize,
    /// The activation.
    pub activation: ActivationSpec,
    /// Whether there is a bias.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub use_bias: bool,
}

impl Dense {
    /// `units` outputs, linear, with a bias.
    pub fn new(units: usize) -> Self {
        Self { units, activation: ActivationSpec::Linear, use_bias: true }
    }
    /// The activation.
    #[must_use]
    pub fn activation(mut self, f: Activation) -> Self {
        self.activation = f.into();
        self
    }
    /// Whether there is a bias.
    #[must_use]
    pub fn use_bias(mut self, on: bool) -> Self {
        self.use_bias = on;
        self
    }
}

/// Dropout: the identity at inference, which is all there is so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dropout {
    /// Share of elements that training drops, in `[0, 1)`.
    pub rate: f32,
}

impl Dropout {
    /// Dropout with this rate.
    pub fn new(rate: f32) -> Self {
        Self { rate }
    }
}

/// A layer of a [`crate::Sequential`] as data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum LayerConfig {
    /// [`Embedding`]
    Embedding(Embedding),
    /// [`SimpleRnn`], [`Lstm`], [`Gru`], [`Bidirectional`]
    Recurrent(RecurrentSpec),
    /// [`Dense`]
    Dense(Dense),
    /// [`Dropout`]
    Dropout(Dropout),
}

macro_rules! into_config {
    ($($name:ident),*) => { $(
        impl From<$name> for LayerConfig {
            fn from(l: $name) -> Self {
                Self::$name(l)
            }
        }
    )* };
}
into_config!(Embedding, Dense, Dropout);

impl LayerConfig {
    /// Keras's name of the class.
    pub fn class_name(&self) -> &'static str {
        match self {
            Self::Embedding(_) => "Embedding",
            Self::Dense(_) => "Dense",
            Self::Dropout(_) => "Dropout",
            Self::Recurrent(r) if r.bidirectional.is_some() => "Bidirectional",
            Self::Recurrent(r) => match r.cell.kind {
                CellName::Rnn => "SimpleRNN",
                CellName::Lstm => "LSTM",
                CellName::Gru => "GRU",
            },
        }
    }
}
