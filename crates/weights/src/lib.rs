//! Weights in host memory: elements shared by their clones, in memory or in a mapped file, and the files that contain
//! weights by name: safetensors files and those of PyTorch.

mod error;
mod file;
pub mod files;
mod header;
#[expect(unsafe_code, reason = "Rust cannot know that nobody changes a mapped file")]
mod map;
mod torch;
mod weight;

pub use error::{Error, Result};
pub use file::{WeightFile, WeightFormat};
pub use weight::{Weight, WeightType};
