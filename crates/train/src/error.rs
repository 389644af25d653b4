//! What can go wrong with training.

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
    /// The loss is not finite.
    #[error("the loss of step {step} is not finite")]
    NotFinite {
        /// The number of the step, of which the first is 1.
        step: u64,
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
