//! Recurve's devices, tensors and general operations.
//!
//! A [`Tensor`] is on one [`Device`], the CPU or a GPU. Operations on a GPU are recorded, and run together in one
//! submission when a result is read; nothing is read back before that. Operands on different devices are an error,
//! never a silent copy.
//!
//! NaN: if an operand contains NaN, everything computed from it is NaN, and `argmax` and `sample` return the index of
//! the first NaN. WGSL lets drivers assume that NaN does not occur, so the shaders test the bits of an element wherever
//! they compare, clamp or select. That sums and products keep NaN depends on the driver; it holds on the drivers that
//! the tests run on.

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
mod waiting;

pub use device::{AdapterKind, AdapterSummary, Device, DeviceSelector, PciAddress};
pub use dtype::DType;
pub use error::{Error, Result};
pub use half::{bf16, f16};
pub use ops::{
    CtcRule, Equation, Extreme, Function, Indices, Label, Labels, MAX_WINDOWS, MatmulOptions, Noise, Normalization,
    Normalized, Operation, Pooling, Reduction, SampleOptions, Scatter, Take, Update, Window, concat, einsum,
};
pub use recurve_vocabulary::{Activation, Decay, Descent};
pub use shape::{MAX_RANK, Shape};
pub use tensor::Tensor;
pub use waiting::without_blocking;
