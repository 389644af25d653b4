//! Weights in host memory: elements shared by their clones, in memory or in a mapped file, and the safetensors files
//! that contain weights by name.

mod error;
mod file;
pub mod files;
#[expect(unsafe_code, reason = "Rust cannot know that nobody changes a mapped file")]
mod map;
mod weight;

pub use error::{Error, Result};
pub use file::WeightFile;
pub use weight::{Weight, WeightType};
