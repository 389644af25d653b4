//! Errors as Python's exceptions, with the same text.

use crate::fork;
use pyo3::exceptions::{
    PyFileNotFoundError, PyIsADirectoryError, PyMemoryError, PyOSError, PyPermissionError, PyRuntimeError, PyTypeError,
    PyValueError,
};
use pyo3::prelude::*;
use recurve::train;
use recurve::{Error, LayerError, TensorError, WeightError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

pyo3::create_exception!(
    recurve,
    DeviceLost,
    PyRuntimeError,
    "The device was lost. Its arrays and models are gone; load the model again, on a device that is opened anew."
);
pyo3::create_exception!(recurve, InternalError, PyRuntimeError, "A fault in Recurve itself. Please report it.");
pyo3::create_exception!(
    recurve,
    Unsupported,
    PyValueError,
    "A file asks for something that Recurve does not compute, or a device lacks something."
);

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("DeviceLost", m.py().get_type::<DeviceLost>())?;
    m.add("InternalError", m.py().get_type::<InternalError>())?;
    m.add("Unsupported", m.py().get_type::<Unsupported>())
}

/// Which exception an error becomes.
#[derive(Clone, Copy)]
pub(crate) enum Class {
    Value,
    Type,
    Memory,
    Lost,
    Unsupported,
    Runtime,
    File(io::ErrorKind),
}

impl Class {
    fn with(self, text: String) -> PyErr {
        match self {
            Self::Value => PyValueError::new_err(text),
            Self::Type => PyTypeError::new_err(text),
            Self::Memory => PyMemoryError::new_err(text),
            Self::Lost => DeviceLost::new_err(text),
            Self::Unsupported => Unsupported::new_err(text),
            Self::Runtime => PyRuntimeError::new_err(text),
            Self::File(io::ErrorKind::NotFound) => PyFileNotFoundError::new_err(text),
            Self::File(io::ErrorKind::PermissionDenied) => PyPermissionError::new_err(text),
            Self::File(io::ErrorKind::IsADirectory) => PyIsADirectoryError::new_err(text),
            Self::File(_) => PyOSError::new_err(text),
        }
    }
}

/// An error of Recurve's.
pub(crate) trait Raised: ToString {
    /// Which exception it becomes.
    fn class(&self) -> Class;
}

impl Raised for TensorError {
    fn class(&self) -> Class {
        match self {
            Self::Shape { .. }
            | Self::Device { .. }
            | Self::Argument { .. }
            | Self::Index { .. }
            | Self::Range { .. }
            | Self::NoDevice { .. } => Class::Value,
            Self::DType { .. } => Class::Type,
            Self::TooLarge { .. } | Self::OutOfMemory { .. } => Class::Memory,
            Self::Unsupported { .. } => Class::Unsupported,
            Self::DeviceLost { .. } => Class::Lost,
            _ => Class::Runtime,
        }
    }
}

impl Raised for recurve_graph::Error {
    fn class(&self) -> Class {
        match self {
            Self::Run { source, .. } | Self::Tensor(source) => source.class(),
            _ => Class::Value,
        }
    }
}

impl Raised for WeightError {
    fn class(&self) -> Class {
        match self {
            Self::Io { source, .. } => Class::File(source.kind()),
            Self::Memory(source) => source.class(),
            Self::DType { .. } | Self::PyTorchCalls { .. } => Class::Unsupported,
            _ => Class::Value,
        }
    }
}

impl Raised for LayerError {
    fn class(&self) -> Class {
        match self {
            Self::Tensor(source) | Self::OutOfMemory { source, .. } => source.class(),
            Self::File(source) => source.class(),
            Self::Graph(source) => source.class(),
            Self::Unsupported { .. } => Class::Unsupported,
            _ => Class::Value,
        }
    }
}

impl Raised for Error {
    fn class(&self) -> Class {
        match self {
            Self::Io { source, .. } => Class::File(source.kind()),
            Self::Weights(source) => source.class(),
            Self::Layers { source, .. } | Self::Run(source) => source.class(),
            Self::Onnx { .. }
            | Self::Keras { .. }
            | Self::Network { .. }
            | Self::Export { .. }
            | Self::Version { .. } => Class::Unsupported,
            _ => Class::Value,
        }
    }
}

impl Raised for train::Error {
    fn class(&self) -> Class {
        match self {
            Self::Graph(source) => source.class(),
            Self::Network(source) => source.class(),
            Self::Tensor(source) | Self::OutOfMemory { source, .. } => source.class(),
            Self::Io { source, .. } => Class::File(source.kind()),
            Self::Model(source) => source.class(),
            _ => Class::Value,
        }
    }
}

/// Turns errors into exceptions.
pub(crate) trait OrRaise<T> {
    /// The value, or the exception.
    fn or_raise(self) -> PyResult<T>;
}

impl<T, E: Raised> OrRaise<T> for Result<T, E> {
    fn or_raise(self) -> PyResult<T> {
        self.map_err(|e| e.class().with(e.to_string()))
    }
}

/// Computes without holding the interpreter, so that other threads of Python run meanwhile. A panic is an exception.
pub(crate) fn compute<T: Send>(py: Python<'_>, f: impl FnOnce() -> T + Send) -> PyResult<T> {
    let done = py.detach(|| catch_unwind(AssertUnwindSafe(|| fork::on_threads(f))));
    let done = done.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        InternalError::new_err(text.unwrap_or_else(|| "a panic without a message".into()))
    })?;
    done.map_err(|e| PyRuntimeError::new_err(format!("a forked process has no threads to compute with: {e}")))
}
