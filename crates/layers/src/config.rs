//! Layers as data: what Keras calls a layer's config. They say what a layer is; building gives it
//! weights and a device.

use crate::Initializer;
use recurve_kernels::{Cell, CellKind, WeightStorage, Zoneout};
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
    Positive,
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
    Positive,
);

/// A recurrent cell as files write it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellSpec {
    /// `rnn`, `lstm`, `gru`, `indrnn`, `mingru` or `minlstm`.
    pub kind: CellName,
    /// GRU: the reset gate after the product.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub reset_after: bool,
    /// LSTM: f = 1 - i.
    #[serde(default, skip_serializing_if = "is_no")]
    pub input_forget: bool,
    /// LSTM: the gates see c.
    #[serde(default, skip_serializing_if = "is_no")]
    pub peepholes: bool,
    /// Activation of the gates.
    pub recurrent_activation: ActivationSpec,
    /// Activations of the gates where they differ, in place of `recurrent_activation`: LSTM i, f, o;
    /// GRU r, z.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate_activations: Option<[ActivationSpec; 3]>,
    /// Activation of the candidate.
    pub activation: ActivationSpec,
    /// Activation of the cell state on its way out.
    pub output_activation: ActivationSpec,
    /// Clip of activation inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<f32>,
    /// LSTM: the clip is for the input of the output activation too.
    #[serde(default, skip_serializing_if = "is_no")]
    pub clip_output: bool,
    /// LSTM: h is projected to this many elements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proj_size: Option<usize>,
    /// LSTM, GRU: layer normalization with this epsilon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_norm: Option<f32>,
    /// Zoneout: the shares of h and c that stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zoneout: Option<[f32; 2]>,
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
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(v: &f32) -> bool {
    *v == 0.0
}

/// The family of a cell as files write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CellName {
    /// SimpleRNN.
    Rnn,
    /// IndRNN.
    IndRnn,
    /// LSTM.
    Lstm,
    /// GRU.
    Gru,
    /// Minimal GRU.
    MinGru,
    /// Minimal LSTM.
    MinLstm,
}

impl From<CellSpec> for Cell {
    fn from(s: CellSpec) -> Self {
        Self {
            kind: match s.kind {
                CellName::Rnn => CellKind::Rnn,
                CellName::IndRnn => CellKind::IndRnn,
                CellName::Lstm => CellKind::Lstm { coupled: s.input_forget },
                CellName::Gru => CellKind::Gru { reset_after: s.reset_after },
                CellName::MinGru => CellKind::MinGru,
                CellName::MinLstm => CellKind::MinLstm,
            },
            gates: s.gate_activations.unwrap_or([s.recurrent_activation; 3]).map(Activation::from),
            candidate: s.activation.into(),
            output: s.output_activation.into(),
            clip: s.clip,
            clip_output: s.clip_output,
            projection: s.proj_size,
            layer_norm: s.layer_norm,
            zoneout: s.zoneout.map(|[h, c]| Zoneout { h, c }),
        }
    }
}

impl From<Cell> for CellSpec {
    fn from(c: Cell) -> Self {
        let (kind, reset_after, input_forget) = match c.kind {
            CellKind::Lstm { coupled } => (CellName::Lstm, true, coupled),
            CellKind::Gru { reset_after } => (CellName::Gru, reset_after, false),
            CellKind::IndRnn => (CellName::IndRnn, true, false),
            CellKind::MinGru => (CellName::MinGru, true, false),
            CellKind::MinLstm => (CellName::MinLstm, true, false),
            _ => (CellName::Rnn, true, false),
        };
        let gates = c.gates.map(ActivationSpec::from);
        Self {
            kind,
            reset_after,
            input_forget,
            peepholes: false,
            recurrent_activation: gates[0],
            gate_activations: (gates != [gates[0]; 3]).then_some(gates),
            activation: c.candidate.into(),
            output_activation: c.output.into(),
            clip: c.clip,
            clip_output: c.clip_output,
            proj_size: c.projection,
            layer_norm: c.layer_norm,
            zoneout: c.zoneout.map(|z| [z.h, z.c]),
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
    /// Not at all: two outputs, forward first.
    None,
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
    #[serde(default, with = "storage", skip_serializing_if = "storage::is_f32")]
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

/// The names of weight storage in a file.
mod storage {
    use recurve_kernels::WeightStorage;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn is_f32(s: &WeightStorage) -> bool {
        *s == WeightStorage::F32
    }

    pub(super) fn serialize<S: Serializer>(s: &WeightStorage, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(s.name())
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<WeightStorage, D::Error> {
        let name = String::deserialize(from)?;
        let all = [WeightStorage::F32, WeightStorage::F16, WeightStorage::Int8];
        let found = all.into_iter().find(|s| s.name() == name);
        found.ok_or_else(|| D::Error::custom(format!("`weight_storage` must be f32, f16 or int8, but it is {name}")))
    }
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
        let normal = if cell.kind == CellKind::IndRnn { Initializer::Uniform { limit: 1.0 } } else { orthogonal() };
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

    /// Elements of h: the units, or `proj_size`.
    pub fn state_size(&self) -> usize {
        self.cell.proj_size.unwrap_or(self.units)
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
    ) -> crate::Result<Vec<recurve_kernels::DirectionWeights<f32>>> {
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
                self.0.cell.recurrent_activation = f.into();
                self.0.cell.gate_activations = None;
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
                self.0.cell.zoneout = Some([h, 0.0]);
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
        self.0.cell.gate_activations = Some([i.into(), f.into(), o.into()]);
        self
    }
    /// f = 1 - i (ONNX's `input_forget`).
    #[must_use]
    pub fn input_forget(mut self, on: bool) -> Self {
        self.0.cell.input_forget = on;
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
        self.0.cell.proj_size = Some(size);
        self
    }
    /// Zoneout (Krueger et al. 2016): the shares of the old h and c that stay, as training expects
    /// of inference.
    #[must_use]
    pub fn zoneout(mut self, h: f32, c: f32) -> Self {
        self.0.cell.zoneout = Some([h, c]);
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
            Self::Recurrent(r) => match r.cell.kind {
                CellName::Rnn => "SimpleRNN",
                CellName::Lstm => "LSTM",
                CellName::Gru => "GRU",
                CellName::IndRnn => "IndRNN",
                CellName::MinGru => "MinGRU",
                CellName::MinLstm => "MinLSTM",
            },
            Self::StackedRnnCells(_) => "RNN",
            Self::TimeDistributed(_) => "TimeDistributed",
            Self::Masking(_) => "Masking",
        }
    }
}
