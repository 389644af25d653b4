//! The truth: every operation of Recurve as a plain scalar loop, generic over [`f32`] and [`f64`].
//!
//! Nothing here is optimised, and of our own packages it uses none but the vocabulary, so what checks a
//! kernel can never be the kernel.

#![forbid(unsafe_code)]

mod activation;
mod dense;
mod layer;
mod real;
mod recurrence;

pub use activation::activate;
pub use dense::{embedding, matmul, softmax};
pub use layer::{Layer, layer, masking};
pub use real::Real;
pub use recurrence::{Recurrence, RecurrenceOutput, layer_norm, recurrence};
