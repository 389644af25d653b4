//! Devices, tensors and general operations of Recurve.
//!
//! A [`Tensor`] lives on one [`Device`], the CPU or a GPU. Operations on a GPU are recorded and run
//! together in one submission when a result is read; nothing is read back before that. Operands on
//! different devices are an error, never a silent copy.
//!
//! NaN: on the CPU a NaN in an operand comes out as NaN. On a GPU, WGSL lets drivers assume that
//! NaN and infinity do not occur, so there a NaN may come out as any value.

pub mod bounds;
pub mod cpu;
mod device;
mod dtype;
mod error;
pub mod gpu;
pub mod kernel;
mod ops;
mod pool;
mod shape;
mod tensor;

pub use device::{AdapterKind, AdapterSummary, Device, DeviceSelector};
pub use dtype::DType;
pub use error::{Error, Result};
pub use ops::{MatmulOptions, Reduction, SampleOptions, concat};
pub use recurve_reference::Activation;
pub use shape::{MAX_RANK, Shape};
pub use tensor::Tensor;
