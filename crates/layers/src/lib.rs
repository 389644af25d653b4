//! Layers, named as in Keras and PyTorch.
//!
//! [`Sequential`] makes chains of layers, as in Keras, and [`Functional`] connects layers in other ways; both check all
//! shapes when a network is built. [`RecurrentLayer`] is the layer that [`SimpleRnn`], [`Lstm`] and [`Gru`] describe.
//! On its own it works like a PyTorch module: weights by name, state in and state out.

#![forbid(unsafe_code)]

mod activations;
mod activity;
mod attention;
mod borders;
mod builders;
mod config;
mod constraints;
mod conv;
mod dense;
mod dot;
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
mod normalization;
mod pooling;
mod recurrent;
mod regularizers;
mod replicas;
mod reshaping;
mod spatial;
mod stacked;
mod streams;
mod summary;
mod time_distributed;
mod training;
mod variables;
mod weight_options;
mod weights;

pub use activations::{ActivationFunction, ActivationLayer, Elu, LeakyRelu, PRelu, Relu, Softmax};
pub use activity::ActivityRegularization;
pub use attention::{AdditiveAttention, Attention, ScoreMode};
pub use borders::{Cropping1d, Cropping2d, UpSampling, UpSampling1d, UpSampling2d, ZeroPadding1d, ZeroPadding2d};
pub use builders::{Bidirectional, Gru, IndRnn, Lstm, MinGru, MinLstm, SLstm, SimpleRnn};
pub use config::{InputConfig, NamedLayer, NetworkConfig, OutputConfig, ValueRef};
pub use constraints::{ConstrainedWeights, Constraint};
pub use conv::{
    Conv1d, Conv1dTranspose, Conv2d, Conv2dTranspose, DepthwiseConv1d, DepthwiseConv2d, SeparableConv1d,
    SeparableConv2d,
};
pub use dense::Dense;
pub use dot::Dot;
pub use dropout::{AlphaDropout, Dropout, GaussianDropout, GaussianNoise, SpatialDropout1d, SpatialDropout2d};
pub use embedding::Embedding;
pub use error::{Error, Result};
pub use functional::{Functional, SharedLayer};
pub use generate::{GenerateOptions, Sampling};
pub use init::{Fan, Initializer, Spread};
pub use joins::{Add, Average, Concatenate, Maximum, Minimum, Multiply, Subtract};
pub use layer::LayerConfig;
pub use masking::Masking;
pub use module::{CallArgs, RecurrentLayer, State};
pub use network::{Evaluated, Network, NetworkState, Sequential};
pub use normalization::{BatchNormalization, LayerNormalization};
pub use pooling::{
    AveragePooling1d, AveragePooling2d, GlobalAveragePooling1d, GlobalAveragePooling2d, GlobalMaxPooling1d,
    GlobalMaxPooling2d, MaxPooling1d, MaxPooling2d,
};
pub use recurrent::RecurrentSpec;
pub use regularizers::{OrthogonalMode, Regularizer};
pub use replicas::Replicas;
pub use reshaping::{Flatten, Permute, RepeatVector, Reshape};
pub use spatial::{DataFormat, Padding};
pub use stacked::StackedRnnCells;
pub use streams::{StreamId, StreamOutputs, Streams};
pub use summary::{LayerSummary, Summary, thousands};
pub use time_distributed::TimeDistributed;
pub use training::{TrainingGraph, TrainingGraphOptions, TrainingState};
pub use variables::NetworkVariable;
pub use weight_options::{Variable, WeightOptions};
pub use weights::Weights;
