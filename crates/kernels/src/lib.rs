//! Fused recurrent kernels over whole sequences.
//!
//! [`Recurrent`] is one layer of recurrent cells (SimpleRNN, LSTM, GRU, IndRNN, minGRU, minLSTM and
//! their options) in one or two directions. Its weights
//! are packed once for the device; every call multiplies all timesteps by `W_ih` in one product
//! (in chunks of time, so that the product stays within a budget), then runs the recurrence with
//! the gates fused.

#![forbid(unsafe_code)]

mod cpu;
mod gpu;
mod recurrent;

pub use recurrent::{
    Candidate, ForwardArgs, Outputs, Recurrent, RecurrentConfig, RecurrentOutput, RecurrentStack, Strategy, TokenTable,
    Tuning,
};
pub use recurve_vocabulary::{
    Cell, CellKind, Direction, DirectionWeights, GateOrder, MaskedOutput, WeightStorage, Zoneout,
};
