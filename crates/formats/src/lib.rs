//! Files: Recurve's native model file, and arrays in `.npy` and `.npz`.

#![forbid(unsafe_code)]

mod arrays;
mod error;
mod model;
mod native;
mod text;

pub use arrays::{HostArray, HostData, read_array, write_array};
pub use error::{Error, Result};
pub use model::{Input, IntoInput, Model, ModelInputs};
pub use native::{FORMAT_VERSION, ModelInfo};
pub use text::{Reading, TextSpec};
