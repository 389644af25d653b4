//! Layers as data: what Keras calls a layer's config. They say what a layer is; building gives it
//! weights and a device.

use crate::Initializer;
use recurve_vocabulary::{
    Activation, Bias, Cell, CellKind, DirectionWeights, MaskedOutput, Merge, WeightStorage, Zoneout,
};
use serde::{Deserialize, Serialize};

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
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(v: &f32) -> bool {
    *v == 0.0
}

/// Everything about a recurrent layer but its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecurrentSpec {
    /// The cell.
    pub cell: Cell,
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
    /// Outputs at masked timesteps are zero, in place of h as it stands.
    #[serde(default, skip_serializing_if = "is_no")]
    pub zero_output_for_mask: bool,
    /// Share of the input (of a stacked layer's input where there are several) that training drops;
    /// nothing happens at inference.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropout: f32,
    /// Share of h that training drops; nothing happens at inference.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub recurrent_dropout: f32,
    /// How the weight matrices are kept; sums are f32 whatever it is. In a file `f32`, `f16` or `int8`.
    #[serde(default, skip_serializing_if = "is_f32")]
    pub weight_storage: WeightStorage,
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

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_f32(s: &WeightStorage) -> bool {
    *s == WeightStorage::F32
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
        let normal = if cell.kind == CellKind::IndRnn { Initializer::Uniform { limit: 1.0 } } else { orthogonal() };
        Self {
            cell,
            units,
            num_layers: 1,
            bidirectional: None,
            bias: Bias::keras(cell.kind),
            return_sequences: false,
            return_state: false,
            stateful: false,
            go_backwards: false,
            time_major: false,
            zero_output_for_mask: false,
            dropout: 0.0,
            recurrent_dropout: 0.0,
            weight_storage: WeightStorage::F32,
            unit_forget_bias: matches!(cell.kind, CellKind::Lstm { .. }),
            kernel_initializer: glorot(),
            recurrent_initializer: normal,
            bias_initializer: zeros(),
        }
    }

    /// D
    pub fn directions(&self) -> usize {
        if self.bidirectional.is_some() { 2 } else { 1 }
    }

    /// Elements of h: the units, or those of its projection.
    pub fn state_size(&self) -> usize {
        self.cell.state_size(self.units)
    }

    /// The output at masked timesteps.
    pub fn masked_output(&self) -> MaskedOutput {
        if self.zero_output_for_mask { MaskedOutput::Zero } else { MaskedOutput::Repeat }
    }

    /// The last dimension of the output.
    pub fn output_size(&self) -> usize {
        match self.bidirectional {
            Some(Merge::Concat) => 2 * self.state_size(),
            _ => self.state_size(),
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
    ) -> crate::Result<Vec<DirectionWeights<f32>>> {
        crate::recurrent::layer_weights(self, input_size, weights, prefix, layer)
    }

    /// Number of weights for an input of this many features.
    pub fn param_count(&self, input_size: usize) -> usize {
        crate::recurrent::weight_shapes(self, input_size, "")
            .iter()
            .map(|(_, dims)| dims.iter().product::<usize>())
            .sum()
    }
}

/// The switches that every layer over sequences has; `$spec` is the field they stand in, if any.
macro_rules! switches {
    ($name:ident $(. $spec:tt)?) => {
        impl $name {
            /// Return h of every timestep, `[B, T, H]`, not only the last, `[B, H]`.
            #[must_use]
            pub fn return_sequences(mut self, on: bool) -> Self {
                self$(.$spec)?.return_sequences = on;
                self
            }
            /// Return the final state after the output.
            #[must_use]
            pub fn return_state(mut self, on: bool) -> Self {
                self$(.$spec)?.return_state = on;
                self
            }
            /// Begin each call with the state in which the last one ended.
            #[must_use]
            pub fn stateful(mut self, on: bool) -> Self {
                self$(.$spec)?.stateful = on;
                self
            }
            /// Read the sequence backwards, and return outputs in that order.
            #[must_use]
            pub fn go_backwards(mut self, on: bool) -> Self {
                self$(.$spec)?.go_backwards = on;
                self
            }
            /// Input and output are `[T, B, …]`.
            #[must_use]
            pub fn time_major(mut self, on: bool) -> Self {
                self$(.$spec)?.time_major = on;
                self
            }
            /// Outputs at masked timesteps are zero, in place of h as it stands.
            #[must_use]
            pub fn zero_output_for_mask(mut self, on: bool) -> Self {
                self$(.$spec)?.zero_output_for_mask = on;
                self
            }
        }
    };
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
            /// Whether there are biases.
            #[must_use]
            pub fn use_bias(mut self, on: bool) -> Self {
                self.0.bias = if on { Bias::keras(self.0.cell.kind) } else { Bias::None };
                self
            }
            /// Activation of the candidate (and of an LSTM's output).
            #[must_use]
            pub fn activation(mut self, f: Activation) -> Self {
                self.0.cell.candidate = f;
                self.0.cell.output = f;
                self
            }
            /// Clamp the inputs of the gates and the candidate to `[-clip, clip]`.
            #[must_use]
            pub fn clip(mut self, clip: f32) -> Self {
                self.0.cell.clip = Some(clip);
                self
            }
            /// Share of the input that training drops, with `num_layers` that of each stacked layer's
            /// input. Nothing happens at inference.
            #[must_use]
            pub fn dropout(mut self, rate: f32) -> Self {
                self.0.dropout = rate;
                self
            }
            /// Share of h that training drops. Nothing happens at inference.
            #[must_use]
            pub fn recurrent_dropout(mut self, rate: f32) -> Self {
                self.0.recurrent_dropout = rate;
                self
            }
            /// Keep the weight matrices as f16, or on the CPU as int8; sums stay f32.
            #[must_use]
            pub fn weight_storage(mut self, storage: WeightStorage) -> Self {
                self.0.weight_storage = storage;
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

        switches!($name.0);

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

recurrent!(
    /// An IndRNN layer: `h = relu(W_ih x + u ∘ h + b)` (Li et al. 2018).
    IndRnn,
    Cell::INDRNN
);
recurrent!(
    /// A minimal GRU layer (Feng et al. 2024): its gates read only the input, so that a GPU runs all
    /// timesteps in a depth of O(log T). The candidate is linear unless told otherwise;
    /// [`Activation::Positive`] is that of the paper's log-space form.
    MinGru,
    Cell::MINGRU
);
recurrent!(
    /// A minimal LSTM layer (Feng et al. 2024), as [`MinGru`].
    MinLstm,
    Cell::MINLSTM
);

macro_rules! gated {
    ($($name:ident),*) => { $(
        impl $name {
            /// Activation of the gates.
            #[must_use]
            pub fn recurrent_activation(mut self, f: Activation) -> Self {
                self.0.cell.gates = [f; 3];
                self
            }
        }
    )* };
}
gated!(Lstm, Gru, MinGru, MinLstm);

macro_rules! zoneout {
    ($($name:ident),*) => { $(
        impl $name {
            /// Zoneout (Krueger et al. 2016): the share of the old h that stays, as training expects
            /// of inference.
            #[must_use]
            pub fn zoneout(mut self, h: f32) -> Self {
                self.0.cell.zoneout = Some(Zoneout { h, c: 0.0 });
                self
            }
        }
    )* };
}
zoneout!(SimpleRnn, Gru);

macro_rules! layer_norm {
    ($($name:ident),*) => { $(
        impl $name {
            /// Layer normalization (Ba et al. 2016) with this epsilon.
            #[must_use]
            pub fn layer_norm(mut self, epsilon: f32) -> Self {
                self.0.cell.layer_norm = Some(epsilon);
                self
            }
        }
    )* };
}
layer_norm!(Lstm, Gru);

impl Lstm {
    /// Activations of the gates i, f and o, each its own.
    #[must_use]
    pub fn gate_activations(mut self, i: Activation, f: Activation, o: Activation) -> Self {
        self.0.cell.gates = [i, f, o];
        self
    }
    /// f = 1 - i (ONNX's `input_forget`).
    #[must_use]
    pub fn input_forget(mut self, on: bool) -> Self {
        self.0.cell.kind = CellKind::Lstm { coupled: on };
        self
    }
    /// The clip clamps the input of the output activation too, as the text of the ONNX operator has it.
    #[must_use]
    pub fn clip_output(mut self, on: bool) -> Self {
        self.0.cell.clip_output = on;
        self
    }
    /// The gates see c (Gers & Schmidhuber 2000).
    #[must_use]
    pub fn peepholes(mut self, on: bool) -> Self {
        self.0.cell.peepholes = on;
        self
    }
    /// h is projected to this many elements (Sak et al. 2014), as PyTorch's `proj_size`.
    #[must_use]
    pub fn proj_size(mut self, size: usize) -> Self {
        self.0.cell.projection = Some(size);
        self
    }
    /// Zoneout (Krueger et al. 2016): the shares of the old h and c that stay, as training expects
    /// of inference.
    #[must_use]
    pub fn zoneout(mut self, h: f32, c: f32) -> Self {
        self.0.cell.zoneout = Some(Zoneout { h, c });
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
    /// The reset gate after the product (PyTorch, cuDNN, Keras's default) or before it.
    #[must_use]
    pub fn reset_after(mut self, on: bool) -> Self {
        self.0.cell.kind = CellKind::Gru { reset_after: on };
        if self.0.bias != Bias::None {
            self.0.bias = Bias::keras(self.0.cell.kind);
        }
        self
    }
}

/// A recurrent layer in both directions.
#[derive(Clone, Debug, PartialEq)]
pub struct Bidirectional(RecurrentSpec);

impl Bidirectional {
    /// `layer` forwards beside another like it backwards, joined by concatenation. As in Keras, masked
    /// outputs are zero if the layer returns sequences, whatever it said of them.
    pub fn new(layer: impl Into<RecurrentSpec>) -> Self {
        let mut spec = layer.into();
        spec.bidirectional = Some(Merge::Concat);
        spec.zero_output_for_mask = spec.return_sequences;
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
    /// Id 0 is padding: later layers skip it.
    #[serde(default, skip_serializing_if = "is_no")]
    pub mask_zero: bool,
}

impl Embedding {
    /// `input_dim` vectors of `output_dim` elements.
    pub fn new(input_dim: usize, output_dim: usize) -> Self {
        Self { input_dim, output_dim, mask_zero: false }
    }
    /// Whether id 0 is padding that later layers skip.
    #[must_use]
    pub fn mask_zero(mut self, on: bool) -> Self {
        self.mask_zero = on;
        self
    }
}

/// Timesteps whose features all have one value are padding: they become zero, and later layers skip
/// them. Keras's `Masking`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Masking {
    /// The value.
    #[serde(default)]
    pub mask_value: f32,
}

impl Masking {
    /// Padding has this value.
    pub fn new(mask_value: f32) -> Self {
        Self { mask_value }
    }
}

/// A layer applied to every timestep on its own: `[B, T, …]` as if it were `[B·T, …]`. Keras's
/// `TimeDistributed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeDistributed {
    /// The layer.
    pub layer: Box<LayerConfig>,
}

impl TimeDistributed {
    /// `layer` at every timestep.
    pub fn new(layer: impl Into<LayerConfig>) -> Self {
        Self { layer: Box::new(layer.into()) }
    }
}

/// Several cells in one layer, each reading the one below at the same timestep: Keras's
/// `RNN(StackedRNNCells([…]))`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StackedRnnCells {
    /// The cells, lowest first. Of each only the cell, the units, the biases and the initialisers
    /// count; what the layer returns and how it reads is said below.
    pub cells: Vec<RecurrentSpec>,
    /// Return h of the last cell at every timestep.
    #[serde(default)]
    pub return_sequences: bool,
    /// Return the final states of every cell too.
    #[serde(default)]
    pub return_state: bool,
    /// Begin each call with the states in which the last one ended.
    #[serde(default)]
    pub stateful: bool,
    /// Read the sequence backwards, and return outputs in that order.
    #[serde(default)]
    pub go_backwards: bool,
    /// Input and output are `[T, B, …]`.
    #[serde(default)]
    pub time_major: bool,
    /// Outputs at masked timesteps are zero, in place of h as it stands.
    #[serde(default)]
    pub zero_output_for_mask: bool,
}

impl StackedRnnCells {
    /// No cells yet.
    pub fn new() -> Self {
        Self {
            cells: Vec::new(),
            return_sequences: false,
            return_state: false,
            stateful: false,
            go_backwards: false,
            time_major: false,
            zero_output_for_mask: false,
        }
    }
    /// Adds a cell on top.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "the name that Sequential has")]
    pub fn add(mut self, cell: impl Into<RecurrentSpec>) -> Self {
        self.cells.push(cell.into());
        self
    }
}

switches!(StackedRnnCells);

impl Default for StackedRnnCells {
    fn default() -> Self {
        Self::new()
    }
}

/// A fully connected layer over the last dimension: `f(x · Wᵀ + b)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dense {
    /// Outputs.
    pub units: usize,
    /// The activation.
    pub activation: Activation,
    /// Whether there is a bias.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub use_bias: bool,
}

impl Dense {
    /// `units` outputs, linear, with a bias.
    pub fn new(units: usize) -> Self {
        Self { units, activation: Activation::Linear, use_bias: true }
    }
    /// The activation.
    #[must_use]
    pub fn activation(mut self, f: Activation) -> Self {
        self.activation = f;
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
    /// [`SimpleRnn`], [`Lstm`], [`Gru`], [`IndRnn`], [`MinGru`], [`MinLstm`], [`Bidirectional`]
    Recurrent(RecurrentSpec),
    /// [`StackedRnnCells`]
    StackedRnnCells(StackedRnnCells),
    /// [`TimeDistributed`]
    TimeDistributed(TimeDistributed),
    /// [`Masking`]
    Masking(Masking),
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
into_config!(Embedding, StackedRnnCells, TimeDistributed, Masking, Dense, Dropout);

impl LayerConfig {
    /// Keras's name of the class.
    pub fn class_name(&self) -> &'static str {
        match self {
            Self::Embedding(_) => "Embedding",
            Self::Dense(_) => "Dense",
            Self::Dropout(_) => "Dropout",
            Self::Recurrent(r) if r.bidirectional.is_some() => "Bidirectional",
            Self::Recurrent(r) => r.cell.kind.class_name(),
            Self::StackedRnnCells(_) => "RNN",
            Self::TimeDistributed(_) => "TimeDistributed",
            Self::Masking(_) => "Masking",
        }
    }
}
