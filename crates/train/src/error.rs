//! What can go wrong with training.

use recurve_tensor::Tensor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The result of an operation of training.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// What went wrong with training.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error of a graph.
    #[error(transparent)]
    Graph(#[from] recurve_graph::Error),
    /// An error of a network.
    #[error(transparent)]
    Network(#[from] recurve_layers::Error),
    /// An error of a device or a tensor.
    #[error(transparent)]
    Tensor(#[from] recurve_tensor::Error),
    /// The device has too little memory for a batch.
    #[error(
        "inputs of shape {shapes} need too much memory: {source}; lower the batch size (`accumulate` adds up the \
         gradients of several batches) or the number of timesteps (`checkpoints` keeps less of each)"
    )]
    OutOfMemory {
        /// The shapes of the inputs.
        shapes: String,
        /// What did not fit: [`recurve_tensor::Error::OutOfMemory`] or [`recurve_tensor::Error::TooLarge`].
        source: recurve_tensor::Error,
    },
    /// An option has an invalid value.
    #[error("{of}: `{argument}` {message}")]
    Option {
        /// What has the option.
        of: &'static str,
        /// The option.
        argument: &'static str,
        /// What is wrong with the value, and which values are valid.
        message: String,
    },
    /// A value does not have the type or the shape that it needs.
    #[error("{of}: `{argument}` must be {expected}, but it is {got}")]
    Operand {
        /// What needs it.
        of: &'static str,
        /// The value.
        argument: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// A number that is not finite.
    #[error("step {step}: {origin} is not finite")]
    NotFinite {
        /// The number of the step, from 1.
        step: u64,
        /// What is not finite although all that it is computed from is.
        origin: Origin,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: Arc<std::io::Error>,
    },
    /// An error of a model file.
    #[error(transparent)]
    Model(#[from] recurve_formats::Error),
    /// A file has no state from which this training can go on.
    #[error("{path}: {message}")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A picture cannot be drawn.
    #[error("the picture {message}")]
    Picture {
        /// What is wrong.
        message: String,
    },
    /// What a callback of one's own, or a source of batches, failed with: [`Self::callback`].
    #[error("{source}")]
    Callback {
        /// The error itself.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// A label is no class.
    #[error("label {index} is {label}, but the classes are 0 to {}", classes - 1)]
    Label {
        /// Its place.
        index: usize,
        /// The label.
        label: i64,
        /// How many classes there are.
        classes: usize,
    },
}

/// The error of an operation on a file.
pub(crate) fn io(path: &Path) -> impl Fn(std::io::Error) -> Error {
    move |e| Error::Io { path: path.into(), source: Arc::new(e) }
}

/// Where a number that is not finite first appeared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Origin {
    /// An input of the batch.
    #[error("input {0} of the batch")]
    Input(usize),
    /// Targets of the batch.
    #[error("target {0} of the batch")]
    Target(usize),
    /// The weights of the samples.
    #[error("the batch's `sample_weights`")]
    SampleWeights,
    /// A weight of the network, before the step.
    #[error("the weight `{0}` before the step")]
    Weight(String),
    /// What a layer computes.
    #[error("what the layer `{layer}` computes ({operator})")]
    Layer {
        /// The layer.
        layer: String,
        /// The operator in it.
        operator: &'static str,
    },
    /// The loss.
    #[error("the loss ({operator})")]
    Loss {
        /// The operator in it.
        operator: &'static str,
    },
    /// A gradient inside a layer, in the backward pass.
    #[error("a gradient in the layer `{layer}` ({operator})")]
    Gradient {
        /// The layer.
        layer: String,
        /// The operator of the backward pass.
        operator: &'static str,
    },
}

impl Error {
    /// Any error, for a callback or a source of batches of one's own.
    ///
    /// ```
    /// use recurve_train::{Error, LambdaCallback};
    /// let asks = LambdaCallback::new().on_epoch_end(|_, _, _| {
    ///     std::fs::write("/no/such/folder", "").map_err(Error::callback)
    /// });
    /// ```
    pub fn callback(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Callback { source: error.into().into() }
    }

    /// The error of a run with these inputs: lack of memory names their shapes.
    pub(crate) fn of_run<'a>(self, inputs: impl IntoIterator<Item = &'a Tensor>) -> Self {
        match self {
            Self::Network(recurve_layers::Error::OutOfMemory { shapes, source }) => {
                Self::OutOfMemory { shapes, source }
            }
            Self::Tensor(source)
            | Self::Network(recurve_layers::Error::Tensor(source))
            | Self::Graph(recurve_graph::Error::Tensor(source) | recurve_graph::Error::Run { source, .. })
                if source.is_lack_of_memory() =>
            {
                let shapes = inputs.into_iter().map(|x| x.shape().to_string()).collect::<Vec<_>>().join(", ");
                Self::OutOfMemory { shapes, source }
            }
            other => other,
        }
    }
}

/// Checks an option.
pub(crate) fn check(
    of: &'static str,
    argument: &'static str,
    holds: bool,
    message: impl FnOnce() -> String,
) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Option { of, argument, message: message() }) }
}

/// Checks that a number is in a range that contains its least one.
pub(crate) fn check_range(of: &'static str, argument: &'static str, v: f64, least: f64, below: f64) -> Result<()> {
    check(of, argument, v >= least && v < below, || match below {
        f64::INFINITY => format!("must be finite and at least {least}, but it is {v}"),
        _ => format!("must be at least {least} and less than {below}, but it is {v}"),
    })
}
