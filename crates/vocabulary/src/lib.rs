//! The types that all of Recurve's packages share, each defined once: cells and their options, activations, gate
//! orders, biases, directions, merge modes, weight storage, rules of optimisers.
//!
//! They are data, with the rules for reading them; nothing here computes a layer. Their serde form is what model files
//! contain.

#![forbid(unsafe_code)]

mod activation;
mod cell;
mod descent;
mod file;
mod layer;
mod rest;
mod weights;

pub use activation::Activation;
pub use cell::{Cell, CellKind, GateOrder, Zoneout};
pub use descent::{Decay, Descent};
pub use layer::{Bias, Direction, MaskedOutput, Merge};
pub use rest::Rest;
pub use weights::{DirectionWeights, WeightSource, WeightStorage, int8, int8_scale, round_to_int8};
