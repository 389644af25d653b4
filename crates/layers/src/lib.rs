//! Layers in the vocabulary of Keras and PyTorch.
//!
//! [`Sequential`] stacks layers as Keras does and checks every shape before anything runs.
//! [`RecurrentLayer`] is what [`SimpleRnn`], [`Lstm`] and [`Gru`] build; on its own it behaves like
//! a PyTorch module: weights by name, state in and out.

#![forbid(unsafe_code)]

mod config;
mod error;
mod generate;
mod init;
mod network;
mod recurrent;
mod replicas;
mod stacked;
mod streams;
mod summary;
mod weights;

pub use config::{
    Bidirectional, Dense, Dropout, Embedding, Gru, IndRnn, LayerConfig, Lstm, Masking, MinGru, MinLstm, RecurrentSpec,
    SimpleRnn, StackedRnnCells, TimeDistributed,
};
pub use error::{Error, Result};
pub use generate::{GenerateOptions, Sampling};
pub use init::Initializer;
pub use network::{Layer, Network, NetworkState, Sequential};
pub use recurrent::{CallArgs, RecurrentLayer, State};
pub use replicas::Replicas;
pub use stacked::StackedLayer;
pub use streams::{StreamId, StreamOutputs, Streams};
pub use summary::{LayerSummary, Summary, thousands};
pub use weights::{Array, Weights};
