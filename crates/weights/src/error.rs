//! What can go wrong with weights and their files.

use crate::files;
use std::path::PathBuf;
use std::sync::Arc;

/// The result of an operation on weights.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// What went wrong with a weight or a file of weights.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: Arc<std::io::Error>,
    },
    /// The file is not a safetensors file, or is cut short or damaged.
    #[error("{path}: not a valid safetensors file ({message})")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The header's entry for a tensor is wrong.
    #[error("{path}: not a valid safetensors file (tensor `{name}` {message})")]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// Two tensors, or two entries of the metadata, have the same name.
    #[error("{path}: `{name}` is there twice")]
    Twice {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// A tensor has an element type that weights, or the weights of this kind of file, do not have.
    #[error("{path}: tensor `{name}` has element type {got}, which is not read here")]
    DType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its element type.
        got: String,
    },
    /// A file of PyTorch cannot be read, or is damaged.
    #[error("{path}: {message}")]
    PyTorch {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A tensor in a file of PyTorch cannot be read, or is damaged.
    #[error("{path}: tensor `{name}` {message}")]
    PyTorchTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// A pickle would call functions, or has objects of classes among its weights, that have no place in a file of
    /// weights. Nothing of it was executed.
    #[error(
        "{path}: its pickle asks for {}, and no code from files is executed; save the weights alone, \
         `torch.save(model.state_dict(), …)`",
        files::some_names(names.iter().map(String::as_str))
    )]
    PyTorchCalls {
        /// The file.
        path: PathBuf,
        /// What it would call or make.
        names: Vec<String>,
    },
    /// The number of elements given for a weight does not match its shape.
    #[error("a weight of shape {shape:?} cannot have {got} elements")]
    Elements {
        /// The shape.
        shape: Vec<usize>,
        /// The number of elements that came.
        got: usize,
    },
    /// Out of memory.
    #[error(transparent)]
    Memory(#[from] recurve_tensor::Error),
}

/// Two errors are equal if their messages are.
impl PartialEq for Error {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}
