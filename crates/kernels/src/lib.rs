//! Fused recurrent kernels over whole sequences.
//!
//! [`Recurrent`] is one or several stacked recurrent layers (SimpleRNN, LSTM, GRU, IndRNN, minGRU, minLSTM, sLSTM and
//! their options) in one or two directions. Weights are packed once for the device. A call multiplies all timesteps by
//! `W_ih` in one product (in chunks of time, to limit its memory), then runs the recurrence with fused gates.
//!
//! [`TrainingLayer`] is such a layer whose weights are arguments, with its gradient.
//!
//! The arguments of a call are checked and resolved once (`call.rs`), then its layout is chosen (`gpu/mod.rs`,
//! `cpu/mod.rs`); running it makes no further choices.

#![forbid(unsafe_code)]

mod call;
mod config;
mod cpu;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(not(feature = "gpu"))]
#[path = "gpu/absent.rs"]
mod gpu;
mod recurrent;
mod strategy;
mod training;

pub use call::{ForwardArgs, Outputs, RecurrentOutput};
pub use config::RecurrentConfig;
pub use cpu::dense::{Dense, DenseCall, DenseConv};
pub use recurrent::{Recurrent, TokenTable};
pub use recurve_vocabulary::{
    Cell, CellKind, Direction, DirectionWeights, GateOrder, MaskedOutput, WeightSource, WeightStorage, Zoneout,
};
pub use strategy::{Candidate, Strategy};
pub use training::{
    Checkpointed, Checkpoints, Gradients, OutputGradients, Reserve, ReserveShapes, Trained, TrainingArgs, TrainingForm,
    TrainingLayer, TrainingWeights, Wanted, keeps_sums,
};
