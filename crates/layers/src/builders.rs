//! Builders of recurrent layers, with Keras's names and options.

use crate::weight_options::weight_setters;
use crate::{Initializer, LayerConfig, RecurrentSpec, StackedRnnCells};
use recurve_vocabulary::{Activation, Bias, Cell, CellKind, Merge, WeightStorage, Zoneout};

/// The options of every layer over sequences; `$spec` is the field that holds them, if they are not fields of the
/// builder itself.
macro_rules! switches {
    ($name:ident $(. $spec:tt)?) => {
        impl $name {
            /// Whether to return the h of every timestep, `[B, T, H]`, instead of only the last, `[B, H]`.
            #[must_use]
            pub fn return_sequences(mut self, on: bool) -> Self {
                self$(.$spec)?.return_sequences = on;
                self
            }
            /// Whether to return the final state after the output.
            #[must_use]
            pub fn return_state(mut self, on: bool) -> Self {
                self$(.$spec)?.return_state = on;
                self
            }
            /// Whether each call starts with the final state of the previous call.
            #[must_use]
            pub fn stateful(mut self, on: bool) -> Self {
                self$(.$spec)?.stateful = on;
                self
            }
            /// Whether to read the sequence backwards and return outputs in that order.
            #[must_use]
            pub fn go_backwards(mut self, on: bool) -> Self {
                self$(.$spec)?.go_backwards = on;
                self
            }
            /// Whether input and output are `[T, B, …]` instead of `[B, T, …]`.
            #[must_use]
            pub fn time_major(mut self, on: bool) -> Self {
                self$(.$spec)?.time_major = on;
                self
            }
            /// PyTorch's name for the opposite of [`Self::time_major`]: whether input and output are `[B, T, …]`, which
            /// is the default.
            #[must_use]
            pub fn batch_first(self, on: bool) -> Self {
                self.time_major(!on)
            }
            /// Whether outputs at masked timesteps are zero instead of the unchanged h.
            #[must_use]
            pub fn zero_output_for_mask(mut self, on: bool) -> Self {
                self$(.$spec)?.zero_output_for_mask = on;
                self
            }
        }
    };
}

switches!(StackedRnnCells);

macro_rules! recurrent {
    ($(#[$doc:meta])* $name:ident, $cell:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name(pub(crate) RecurrentSpec);

        impl $name {
            /// A layer of `units` hidden units, with Keras's defaults.
            pub fn new(units: usize) -> Self {
                Self(RecurrentSpec::new($cell, units))
            }
            /// Whether the layer has biases.
            #[must_use]
            pub fn use_bias(mut self, on: bool) -> Self {
                self.0.bias = if on { Bias::keras(self.0.cell.kind) } else { Bias::None };
                self
            }
            /// Activation of the candidate, and of an LSTM's cell state before the output gate.
            #[must_use]
            pub fn activation(mut self, f: Activation) -> Self {
                self.0.cell.candidate = f;
                self.0.cell.output = f;
                self
            }
            /// Clamps the inputs of the gates and the candidate to `[-clip, clip]`.
            #[must_use]
            pub fn clip(mut self, clip: f32) -> Self {
                self.0.cell.clip = Some(clip);
                self
            }
            /// The share of the input that training drops; with `num_layers`, that of each stacked layer's input. No
            /// effect at inference.
            #[must_use]
            pub fn dropout(mut self, rate: f32) -> Self {
                self.0.dropout = rate;
                self
            }
            /// The share of h that training drops. No effect at inference.
            #[must_use]
            pub fn recurrent_dropout(mut self, rate: f32) -> Self {
                self.0.recurrent_dropout = rate;
                self
            }
            /// Stores the weight matrices as f16, or on the CPU as int8. Sums stay f32.
            #[must_use]
            pub fn weight_storage(mut self, storage: WeightStorage) -> Self {
                self.0.weight_storage = storage;
                self
            }
            /// Number of stacked layers, as PyTorch's `num_layers`.
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
            weight_setters!(
                .0 Kernel kernel_regularizer kernel_constraint,
                Recurrent recurrent_regularizer recurrent_constraint,
                Bias bias_regularizer bias_constraint
            );
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
impl SimpleRnn {
    /// PyTorch's name for [`Self::activation`].
    #[must_use]
    pub fn nonlinearity(self, f: Activation) -> Self {
        self.activation(f)
    }
}

recurrent!(
    /// An LSTM layer.
    Lstm,
    Cell::LSTM
);
recurrent!(
    /// A GRU layer. By default the reset gate is applied after the product.
    Gru,
    Cell::GRU
);

recurrent!(
    /// An IndRNN layer: `h = relu(W_ih x + u ∘ h + b)` (Li et al. 2018).
    IndRnn,
    Cell::INDRNN
);
recurrent!(
    /// A minimal GRU layer (Feng et al. 2024). Its gates read only the input, so a GPU runs all timesteps with a
    /// parallel scan of depth O(log T). The candidate's activation is linear by default; [`Activation::Positive`] is
    /// that of the paper's log-space form.
    MinGru,
    Cell::MINGRU
);
recurrent!(
    /// A minimal LSTM layer (Feng et al. 2024); the notes on [`MinGru`] apply.
    MinLstm,
    Cell::MINLSTM
);

recurrent!(
    /// The sLSTM of xLSTM without its surrounding block (Beck et al. 2024): exponential gates, kept in range by a
    /// stabilizer, and recurrent weights in which a unit reads only its own head. By default there is one head, and the
    /// forget gate is a sigmoid. The final state c contains c, n and m one after the other, `[B, 3·H]`.
    SLstm,
    Cell::SLSTM
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
            /// Zoneout (Krueger et al. 2016) at inference: the weight of the old h in the new state.
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
    /// Separate activations for the gates i, f and o.
    #[must_use]
    pub fn gate_activations(mut self, i: Activation, f: Activation, o: Activation) -> Self {
        self.0.cell.gates = [i, f, o];
        self
    }
    /// Coupled gates: f = 1 - i (ONNX's `input_forget`).
    #[must_use]
    pub fn input_forget(mut self, on: bool) -> Self {
        self.0.cell.kind = CellKind::Lstm { coupled: on };
        self
    }
    /// Whether the clip also applies to the input of the output activation, as the text of the ONNX operator says.
    #[must_use]
    pub fn clip_output(mut self, on: bool) -> Self {
        self.0.cell.clip_output = on;
        self
    }
    /// Whether the gates read c through peephole weights (Gers & Schmidhuber 2000).
    #[must_use]
    pub fn peepholes(mut self, on: bool) -> Self {
        self.0.cell.peepholes = on;
        self
    }
    /// The number of elements to which h is projected (Sak et al. 2014), as PyTorch's `proj_size`.
    #[must_use]
    pub fn proj_size(mut self, size: usize) -> Self {
        self.0.cell.projection = Some(size);
        self
    }
    /// Zoneout (Krueger et al. 2016) at inference: the weights of the old h and the old c in the new state.
    #[must_use]
    pub fn zoneout(mut self, h: f32, c: f32) -> Self {
        self.0.cell.zoneout = Some(Zoneout { h, c });
        self
    }
    /// Whether the bias of the forget gate is initialized to 1, which is the default.
    #[must_use]
    pub fn unit_forget_bias(mut self, on: bool) -> Self {
        self.0.unit_forget_bias = on;
        self
    }
}

impl SLstm {
    /// Number of heads: groups of hidden units that read only each other. Must divide the number of units.
    #[must_use]
    pub fn num_heads(mut self, heads: usize) -> Self {
        if let CellKind::SLstm { heads: own, .. } = &mut self.0.cell.kind {
            *own = heads;
        }
        self
    }
    /// Whether the forget gate is exponential, like the input gate, instead of a sigmoid.
    #[must_use]
    pub fn exponential_forget(mut self, on: bool) -> Self {
        if let CellKind::SLstm { exponential_forget, .. } = &mut self.0.cell.kind {
            *exponential_forget = on;
        }
        self
    }
}

impl Gru {
    /// Whether the reset gate is applied after the product (PyTorch, cuDNN, Keras's default) or before it.
    #[must_use]
    pub fn reset_after(mut self, on: bool) -> Self {
        self.0.cell.kind = CellKind::Gru { reset_after: on };
        if self.0.bias != Bias::None {
            self.0.bias = Bias::keras(self.0.cell.kind);
        }
        self
    }
}

/// A recurrent layer that runs in both directions.
#[derive(Clone, Debug, PartialEq)]
pub struct Bidirectional(RecurrentSpec);

impl Bidirectional {
    /// Runs `layer` forward and a copy with its own weights backward, and concatenates the outputs. As in Keras, if the
    /// layer returns sequences, outputs at masked timesteps are zero, whatever its `zero_output_for_mask` is.
    pub fn new(layer: impl Into<RecurrentSpec>) -> Self {
        let mut spec = layer.into();
        spec.bidirectional = Some(Merge::Concat);
        spec.zero_output_for_mask = spec.return_sequences;
        Self(spec)
    }

    /// How the outputs of the directions are joined.
    #[must_use]
    pub fn merge_mode(mut self, merge: Merge) -> Self {
        self.0.bidirectional = Some(merge);
        self
    }
    weight_setters!(
        .0 Kernel kernel_regularizer kernel_constraint,
        Recurrent recurrent_regularizer recurrent_constraint,
        Bias bias_regularizer bias_constraint
    );
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
