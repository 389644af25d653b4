//! Devices, tensors and general operations of Recurve.
//!
//! A [`Tensor`] lives on one [`Device`], the CPU or a GPU. Operations on a GPU are recorded and run
//! together in one submission when a result is read; nothing is read back before that. Operands on
//! different devices are an error, never a silent copy.
//!
//! NaN: a NaN in an operand comes out as NaN in what depends on it, and `argmax` and `sample` give its
//! place. WGSL lets drivers assume that NaN does not occur, so the shaders ask an element's bits wherever
//! they would compare it, clamp it or choose by it; that sums and products keep NaN is left to the driver,
//! and holds on those that the tests run on.

pub mod bounds;
pub mod cpu;
mod device;
mod display;
mod dtype;
mod error;
#[cfg(feature = "gpu")]
pub mod gpu;
#[cfg(not(feature = "gpu"))]
#[path = "gpu/absent.rs"]
pub mod gpu;
pub mod kernel;
mod operators;
mod ops;
mod pool;
pub mod random;
mod shape;
mod tensor;

pub use device::{AdapterKind, AdapterSummary, Device, DeviceSelector};
pub use dtype::DType;
pub use error::{Error, Result};
pub use half::{bf16, f16};
pub use ops::{MatmulOptions, Reduction, SampleOptions, concat};
pub use recurve_vocabulary::Activation;
pub use shape::{MAX_RANK, Shape};
pub use tensor::Tensor;
