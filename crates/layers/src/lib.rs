//! Layers, named as in Keras and PyTorch.
//!
//! [`Sequential`] makes chains of layers, as in Keras, and [`Functional`] connects layers in other ways; both check all
//! shapes when a network is built. [`RecurrentLayer`] is the layer that [`SimpleRnn`], [`Lstm`] and [`Gru`] describe.
//! On its own it works like a PyTorch module: weights by name, state in and state out.

#![forbid(unsafe_code)]

mod builders;
mod config;
mod dense;
mod dropout;
mod embedding;
mod error;
mod functional;
mod generate;
mod init;
mod joins;
mod layer;
mod lowering;
mod masking;
mod module;
mod network;
mod recurrent;
mod replicas;
mod stacked;
mod streams;
mod summary;
mod time_distributed;
mod weights;

pub use builders::{Bidirectional, Gru, IndRnn, Lstm, MinGru, MinLstm, SLstm, SimpleRnn};
pub use config::{InputConfig, NamedLayer, NetworkConfig, OutputConfig, ValueRef};
pub use dense::Dense;
pub use dropout::Dropout;
pub use embedding::Embedding;
pub use error::{Error, Result};
pub use functional::{Functional, SharedLayer};
pub use generate::{GenerateOptions, Sampling};
pub use init::Initializer;
pub use joins::{Add, Average, Concatenate, Multiply, Subtract};
pub use layer::LayerConfig;
pub use masking::Masking;
pub use module::{CallArgs, RecurrentLayer, State};
pub use network::{Network, NetworkState, Sequential};
pub use recurrent::RecurrentSpec;
pub use replicas::Replicas;
pub use stacked::StackedRnnCells;
pub use streams::{StreamId, StreamOutputs, Streams};
pub use summary::{LayerSummary, Summary, thousands};
pub use time_distributed::TimeDistributed;
pub use weights::Weights;
