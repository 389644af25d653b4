//! The words that all of Recurve shares, each defined once: cells with their options, activations,
//! orders of gates, biases, directions, merges, how weights are stored.
//!
//! This is data with the rules that everyone must read alike; nothing here computes a layer. What stands
//! in model files stands in them as serde has it here.

#![forbid(unsafe_code)]

mod activation;
mod cell;
mod file;
mod layer;
mod weights;

pub use activation::Activation;
pub use cell::{Cell, CellKind, GateOrder, Zoneout};
pub use layer::{Bias, Direction, MaskedOutput, Merge};
pub use weights::{DirectionWeights, WeightSource, WeightStorage, int8, int8_scale, round_to_int8};
