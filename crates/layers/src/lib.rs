//! Layers in the vocabulary of Keras and PyTorch.
//!
//! [`Sequential`] stacks layers as Keras does and checks every shape before anything runs.
//! [`RecurrentLayer`] is what [`SimpleRnn`], [`Lstm`] and [`Gru`] build; on its own it behaves like
//! a PyTorch module: weights by name, state in and out.

mod config;
mod error;
mod init;
mod network;
mod recurrent;
mod summary;
mod weights;

pub use config::{
    ActivationSpec, Bias, Bidirectional, CellName, CellSpec, Dense, Dropout, Embedding, Gru, LayerConfig, Lstm, Merge,
    RecurrentSpec, SimpleRnn,
};
pub use error::{Error, Result};
pub use init::Initializer;
pub use network::{Layer, Network, Sequential};
pub use recurrent::{CallArgs, RecurrentLayer, State};
pub use summary::{LayerSummary, Summary, thousands};
pub use weights::{Array, Weights};
