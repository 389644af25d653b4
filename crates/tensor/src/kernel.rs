//! The interface for Recurve's kernels: tensors whose elements they write, and dispatches.
//!
//! Users do not get it: the crate `recurve` re-exports the types but not these traits and functions, and without them
//! the elements of an existing tensor cannot be changed. Nothing here can make a GPU read or write outside its buffers,
//! because [`GpuKernels::record`] refuses a dispatch that would. Callers must only write to tensors that have not been
//! handed out yet.

pub use crate::gpu::GpuBuffer;
#[cfg(feature = "gpu")]
pub use crate::gpu::{
    Dispatch, GpuKernels, Pipeline, Rows, StridedMatmul, gather_rows, layer_norm_rows, strided_copy, strided_matmul,
    strided_matmul_within,
};
pub use crate::ops::{Span, check_activation};

use crate::gpu::Gpu;
use crate::{DType, Result, Shape, Tensor};
use std::sync::Arc;

/// Making tensors whose elements a kernel writes.
pub trait TensorKernels: Sized {
    /// The buffer of a tensor on a GPU.
    ///
    /// # Panics
    /// If the tensor is on the CPU; callers have checked the device.
    fn gpu_buffer(&self) -> &Arc<GpuBuffer>;

    /// A tensor on a GPU with unspecified contents, which a kernel is to fill. The bound of a U32 tensor is `u32::MAX`.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::OutOfMemory`], [`Error::DeviceLost`].
    fn gpu_uninit(gpu: &Gpu, shape: Shape, dtype: DType, operation: &'static str) -> Result<Self>;

    /// An f32 tensor on the CPU. `write` must set every element.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; errors that `write` returns.
    fn cpu_write(shape: Shape, write: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<Self>;

    /// The bits of a tensor on a GPU, read as another element type of the same size. The bound of a U32 tensor is
    /// `u32::MAX`.
    ///
    /// # Errors
    /// [`Error::DType`] if the sizes differ.
    fn reinterpreted(self, dtype: DType) -> Result<Self>;
}

impl TensorKernels for Tensor {
    fn gpu_buffer(&self) -> &Arc<GpuBuffer> {
        Self::gpu_buffer(self)
    }

    fn gpu_uninit(gpu: &Gpu, shape: Shape, dtype: DType, operation: &'static str) -> Result<Self> {
        Self::gpu_uninit(gpu, shape, dtype, operation)
    }

    fn cpu_write(shape: Shape, write: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<Self> {
        Self::cpu_write(shape, write)
    }

    fn reinterpreted(self, dtype: DType) -> Result<Self> {
        Self::reinterpreted(self, dtype)
    }
}
