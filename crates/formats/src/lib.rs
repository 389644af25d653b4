//! File formats: Recurve's native model file, ONNX and Keras files, and arrays in `.npy` and `.npz` files.

#![forbid(unsafe_code)]

mod any;
mod arrays;
mod error;
mod files;
#[cfg(feature = "keras")]
mod keras;
#[cfg(not(feature = "keras"))]
#[path = "keras_absent.rs"]
mod keras;
mod keras_kind;
mod model;
mod native;
mod npy;
mod onnx;
mod pytorch;
mod text;

pub use any::{AnyModel, AnySession};
pub use arrays::{
    HostArray, HostData, npy_from_bytes, npz_from_bytes, read_array, read_named_array, write_array, write_host_array,
};
pub use error::{Error, Result};
pub use files::{check_writable, write_file};
pub use keras_kind::LayerProblem;
pub use model::{Input, IntoInput, Model, ModelInputs};
pub use native::{FORMAT_VERSION, ModelInfo, TrainingRecord};
pub use onnx::{
    ExportOptions, OnnxModel, OnnxOptions, OnnxSession, OnnxStreams, OnnxValue, Problem, StatePair, read_tensor,
    tensor_from_bytes,
};
pub use pytorch::{WeightModule, WeightSummary};
pub use text::{Reading, TextSpec};
