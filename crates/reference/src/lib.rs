//! The reference: every operation of Recurve as a plain scalar loop, generic over [`f32`] and [`f64`].
//!
//! The code is not optimised. Of Recurve's packages it uses only the vocabulary, so that it shares no code with the
//! kernels that are checked against it.

#![forbid(unsafe_code)]

mod activation;
mod ctc;
mod dense;
mod descent;
mod layer;
mod real;
mod recurrence;
mod tape;

pub use activation::{activate, slope};
pub use ctc::{Ctc, ctc};
pub use dense::{embedding, matmul, softmax};
pub use descent::descend;
pub use layer::{Layer, layer, masking};
pub use real::Real;
pub use recurrence::{Drawn, Recurrence, RecurrenceOutput, layer_norm, recurrence, recurrence_with};
pub use tape::{RecurrenceGradient, Var, gradient, recurrence_gradient};
