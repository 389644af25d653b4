//! What can go wrong with files.

use std::path::PathBuf;
use std::sync::Arc;

/// The result of a file operation.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// What went wrong with a file or a model.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: Arc<std::io::Error>,
    },
    /// A file of weights cannot be read, or one of its tensors is invalid.
    #[error(transparent)]
    Weights(#[from] recurve_weights::Error),
    /// The file contains no description of a Recurve model.
    #[error(
        "{path}: has weights, but no description of layers: its metadata has no `recurve` entry, so this is no Recurve \
         model; `recurve summary` lists the weights, and a TOML file can assemble a network from them (docs/pytorch.md)"
    )]
    NoDescription {
        /// The file.
        path: PathBuf,
    },
    /// The file is a model, but no training can go on from it.
    #[error("{path}: has no record of a training: its metadata has no `recurve_training` entry")]
    NoTraining {
        /// The file.
        path: PathBuf,
    },
    /// The file is of a kind that something else opens.
    #[error("{path}: this is {kind}; open it with `{with}`")]
    OtherKind {
        /// The file.
        path: PathBuf,
        /// Its kind.
        kind: &'static str,
        /// What opens it.
        with: &'static str,
    },
    /// The file is not one of Keras.
    #[error("{path}: this is no Keras file: it is neither HDF5, nor an archive of Keras, nor a description in JSON")]
    NoKeras {
        /// The file.
        path: PathBuf,
    },
    /// The file is of a kind that this build does not read.
    #[error("{path}: this is {kind}, which this build of Recurve does not read: it has no feature `{feature}`")]
    NoFeature {
        /// The file.
        path: PathBuf,
        /// Its kind.
        kind: &'static str,
        /// The feature of the package that reads it.
        feature: &'static str,
    },
    /// The description of the model is invalid.
    #[error("{path}: bad model description: {message}")]
    Description {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The description was written by a later version.
    #[error("{path}: the model description has version {got}, but this program reads versions up to {supported}")]
    Version {
        /// The file.
        path: PathBuf,
        /// The file's version.
        got: u64,
        /// The latest version that this program reads.
        supported: u64,
    },
    /// A size in the description exceeds the limit that is accepted.
    #[error("{path}: `{field}` is {got}, but at most {limit} is accepted")]
    Absurd {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// Its value.
        got: usize,
        /// The largest accepted value.
        limit: usize,
    },
    /// The layers and the weights do not match, or a device failed while they were loaded.
    #[error("{path}: {source}")]
    Layers {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: recurve_layers::Error,
    },
    /// Running a model failed.
    #[error(transparent)]
    Run(#[from] recurve_layers::Error),
    /// An input is missing, unknown or of the wrong kind.
    #[error("input `{name}`: {message}")]
    Input {
        /// Its name.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// Parts of an ONNX file that cannot be run, all of them.
    #[error("{path}: this ONNX file cannot be run: {}", list(problems))]
    Onnx {
        /// The file.
        path: PathBuf,
        /// What, and why.
        problems: Vec<crate::Problem>,
    },
    /// A part of a network that cannot be written as ONNX.
    #[error("`{node}`: {message}")]
    Export {
        /// The layer, input or output.
        node: String,
        /// What is wrong.
        message: String,
    },
    /// Parts of a Keras file that cannot be run, all of them.
    #[error("{path}: this Keras file cannot be run: {}", list(problems))]
    Keras {
        /// The file.
        path: PathBuf,
        /// What, and why.
        problems: Vec<crate::LayerProblem>,
    },
    /// Parts of a description of a network that cannot be built, all of them.
    #[error("this network cannot be built: {}", list(problems))]
    Network {
        /// What, and why.
        problems: Vec<crate::LayerProblem>,
    },
    /// An array file is not what is needed.
    #[error("{path}: {message}")]
    Array {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

impl From<recurve_tensor::Error> for Error {
    fn from(e: recurve_tensor::Error) -> Self {
        Self::Run(e.into())
    }
}

/// Problems, of many of them the first.
fn list(problems: &[impl ToString]) -> String {
    const MOST: usize = 8;
    let shown: Vec<_> = problems.iter().take(MOST).map(ToString::to_string).collect();
    match problems.len().checked_sub(MOST) {
        Some(more @ 1..) => format!("{}; and {more} more", shown.join("; ")),
        _ => shown.join("; "),
    }
}
