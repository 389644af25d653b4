//! The door for Recurve's kernels: tensors to be written, and dispatches.
//!
//! It is not part of what users get: the crate `recurve` re-exports the types, but not these traits and
//! functions, and without them nothing can be written to a tensor that exists. Nothing here can make a GPU
//! read or write outside its buffers, because [`GpuKernels::record`] refuses a dispatch that would. What is
//! left to its callers is to write only to tensors that nobody has seen yet.

pub use crate::gpu::{Dispatch, GpuBuffer, Pipeline};
pub use crate::ops::{
    Rows, Span, StridedMatmul, check_activation, gather_rows, layer_norm_rows, strided_copy, strided_matmul,
};

use crate::gpu::Gpu;
use crate::{DType, Error, Result, Shape, Tensor};
use recurve_shaders::Variant;
use std::sync::Arc;

/// Pipelines and dispatches.
pub trait GpuKernels {
    /// The pipeline of a variant, compiled on first use.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the variant needs more workgroup memory or lanes than there are;
    /// [`Error::Gpu`] if the driver refuses it.
    fn pipeline(&self, variant: &Variant) -> Result<Arc<Pipeline>>;

    /// Records a dispatch; nothing runs yet.
    ///
    /// # Errors
    /// [`Error::Argument`] if it would reach beyond a buffer, its buffers or parameters are not those of the
    /// kernel, or a buffer that is written appears twice; [`Error::Device`] if one is of another device;
    /// [`Error::Workgroups`] if there are more workgroups than the device can count; [`Error::DeviceLost`];
    /// or what an earlier recording did wrong, if the ring was full.
    fn record(&self, dispatch: Dispatch<'_>) -> Result<()>;

    /// The first elements of a tensor as bytes, running everything recorded so far.
    ///
    /// # Errors
    /// [`Error::Argument`] if there are not so many; whatever went wrong in what was recorded.
    fn read_head(&self, tensor: &Tensor, out: &mut [u8]) -> Result<()>;
}

impl GpuKernels for Gpu {
    fn pipeline(&self, variant: &Variant) -> Result<Arc<Pipeline>> {
        Self::pipeline(self, variant)
    }

    fn record(&self, dispatch: Dispatch<'_>) -> Result<()> {
        Self::record(self, dispatch)
    }

    fn read_head(&self, tensor: &Tensor, out: &mut [u8]) -> Result<()> {
        let bytes = tensor.shape().count() * tensor.dtype().size();
        if out.len() > bytes {
            let message = format!("wants {} bytes, but the tensor has {bytes}", out.len());
            return Err(Error::Argument { operation: "read", argument: "out", message });
        }
        self.read(tensor.gpu_buffer(), out)
    }
}

/// Tensors to be written.
pub trait TensorKernels: Sized {
    /// The buffer of a tensor on a GPU.
    ///
    /// # Panics
    /// If the tensor is on the CPU; callers have matched the device.
    fn gpu_buffer(&self) -> &Arc<GpuBuffer>;

    /// A tensor on a GPU with unspecified contents, for a kernel to fill. The bound of a U32 tensor is that of
    /// its type.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::OutOfMemory`], [`Error::DeviceLost`].
    fn gpu_uninit(gpu: &Gpu, shape: Shape, dtype: DType, operation: &'static str) -> Result<Self>;

    /// An f32 tensor on the CPU whose elements `write` sets, every one of them.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; what `write` returns.
    fn cpu_write(shape: Shape, write: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<Self>;

    /// The bits of a tensor on a GPU taken for another type of the same size. The bound of a U32 tensor is
    /// that of its type.
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
