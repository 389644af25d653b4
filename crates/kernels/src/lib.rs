//! Fused recurrent kernels over whole sequences.
//!
//! [`Recurrent`] is one or several stacked layers of recurrent cells (SimpleRNN, LSTM, GRU, IndRNN, minGRU, minLSTM
//! and their options) in one or two directions. Weights are packed once for the device; every call multiplies all
//! timesteps by `W_ih` in one product (in chunks of time, so that the product stays within a budget), then runs the
//! recurrence with the gates fused.
//!
//! A call is checked and resolved once (`call.rs`), then it is decided how to run it (`gpu/mod.rs`, `cpu/mod.rs`), then
//! it runs without further choices.

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

pub use call::{ForwardArgs, Outputs, RecurrentOutput};
pub use config::RecurrentConfig;
pub use recurrent::{Recurrent, TokenTable};
pub use recurve_vocabulary::{
    Cell, CellKind, Direction, DirectionWeights, GateOrder, MaskedOutput, WeightSource, WeightStorage, Zoneout,
};
pub use strategy::{Candidate, Strategy};
