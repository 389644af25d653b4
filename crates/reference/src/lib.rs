//! The truth: every operation of Recurve as a plain scalar loop, generic over [`f32`] and [`f64`].
//!
//! Nothing here is optimised and nothing here depends on any other crate, so what checks a kernel
//! can never be the kernel. The vocabulary of the project ([`Activation`], [`Cell`]) is defined
//! here too, because the definitions need it and everyone else may depend on this crate.

#![forbid(unsafe_code)]

mod activation;
mod cell;
mod dense;
mod real;
mod recurrence;

pub use activation::Activation;
pub use cell::{Cell, CellKind, GateOrder, Zoneout};
pub use dense::{embedding, matmul, softmax};
pub use real::Real;
pub use recurrence::{Direction, DirectionWeights, MaskedOutput, Recurrence, RecurrenceOutput, layer_norm, recurrence};
