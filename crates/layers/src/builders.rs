//! Recurrent layers by Keras's names and options.

use crate::{Initializer, LayerConfig, RecurrentSpec, StackedRnnCells};
use recurve_vocabulary::{Activation, Bias, Cell, CellKind, Merge, WeightStorage, Zoneout};

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
            /// PyTorch's words for the opposite of [`Self::time_major`]: input and output are `[B, T, …]`, as they are
            /// unless told otherwise.
            #[must_use]
            pub fn batch_first(self, on: bool) -> Self {
                self.time_major(!on)
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

switches!(StackedRnnCells);

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
impl SimpleRnn {
    /// PyTorch's name of [`Self::activation`].
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

recurrent!(
    /// The recurrent core of an sLSTM (Beck et al. 2024): exponential gates, held in range by a stabilizer, and
    /// recurrent weights that see a unit's own head only. There is one head unless told otherwise, and the forget
    /// gate is a sigmoid. Its final state c are c, n and m one after the other, `[B, 3·H]`.
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

impl SLstm {
    /// Groups of hidden units whose recurrent weights see only each other; they must divide the units.
    #[must_use]
    pub fn num_heads(mut self, heads: usize) -> Self {
        if let CellKind::SLstm { heads: own, .. } = &mut self.0.cell.kind {
            *own = heads;
        }
        self
    }
    /// The forget gate is exponential, as the input gate.
    #[must_use]
    pub fn exponential_forget(mut self, on: bool) -> Self {
        if let CellKind::SLstm { exponential_forget, .. } = &mut self.0.cell.kind {
            *exponential_forget = on;
        }
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
