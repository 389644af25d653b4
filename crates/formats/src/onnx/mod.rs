//! ONNX files as graphs of operators.

mod export;
mod import;
mod model;
mod node;
mod nodes;
mod proto;
mod session;
mod streams;
mod tensor;
mod weigh;

pub use export::ExportOptions;
pub use import::Problem;
pub use model::{OnnxModel, OnnxOptions, OnnxValue, read_tensor, tensor_from_bytes};
pub use session::{OnnxSession, StatePair};
pub use streams::OnnxStreams;
