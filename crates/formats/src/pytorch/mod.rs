//! Weights with PyTorch's names: the modules that they make, and descriptions that assemble networks from them.

mod assemble;
mod modules;
mod names;

pub(crate) use assemble::{is_description, open};
pub use modules::{WeightModule, WeightSummary};
