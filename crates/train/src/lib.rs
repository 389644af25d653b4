//! What training adds to a network: losses, optimisers, learning rates, metrics.
//!
//! A [`Loss`] adds nodes to a graph that compute one number from predictions and targets;
//! [`Assembly::gradients`](recurve_graph::Assembly::gradients) adds those of its gradients, a [`Clip`] limits them, and
//! an [`Optimizer`] adds the nodes that update parameters and states. All of a step is then one run of one graph. What
//! changes from step to step, such as the [learning rate](Schedule), is a small input of that run. [`Training`] makes
//! such steps of a network, for loops in the manner of PyTorch; [`Trainer`] has Keras's `fit`, `evaluate` and `predict`.

#![forbid(unsafe_code)]

mod average;
mod batch;
mod builder;
mod callbacks;
mod checkpoint;
mod clip;
mod ctc;
mod data;
mod epoch;
mod error;
mod evaluate;
mod flat;
mod health;
mod history;
mod limits;
mod loss;
mod metrics;
mod mixed;
mod names;
mod optimizer;
mod options;
#[cfg(feature = "plots")]
mod picture;
mod plan;
#[cfg(feature = "plots")]
mod plot;
mod schedule;
mod scores;
mod snapshot;
mod states;
mod step;
mod tally;
mod trainer;
mod truncated;
mod update;

pub use average::{Average, accumulated, mean_of};
pub use batch::{Batch, StepResult};
#[cfg(all(feature = "progress", not(target_family = "wasm")))]
pub use callbacks::ProgressBar;
pub use callbacks::{
    Callback, CallbackState, CsvLogger, EarlyStopping, LambdaCallback, LearningRateScheduler, ModelCheckpoint,
    MonitorMode, Position, ReduceLrOnPlateau, TensorBoard,
};
pub use checkpoint::FitState;
pub use clip::Clip;
pub use ctc::CtcTargets;
pub use data::{Array, Batches, Column, Dataset, Epoch, HostBatch, Padding, Sequences, Side, Source};
pub use epoch::{Evaluation, FitEpoch};
pub use error::{Error, Origin, Result};
pub use flat::FlatPart;
pub use history::{History, Logs};
pub use loss::{Loss, LossKind, LossReduction, check_labels};
pub use metrics::{Averaging, Curve, Metric, MetricBatch, MetricState, Summation, Targets};
pub use mixed::LossScale;
pub use optimizer::{Adagrad, Adam, Form, Lion, Optimizer, Parameter, RmsProp, Sgd, Updated};
pub use options::StepOptions;
#[cfg(feature = "plots")]
pub use picture::png;
pub use schedule::{Plateau, Schedule, Threshold};
pub use scores::OutputMetric;
pub use snapshot::Snapshot;
pub use states::BatchGradients;
pub use step::Training;
pub use trainer::{FitOptions, Trainer};
