//! The GPU part of the interface for kernels; see [`crate::kernel`].

use super::{Dispatch, Gpu, Pipeline};
use crate::{Error, Result, Tensor};
use recurve_shaders::Variant;
use std::sync::Arc;

/// Compiling pipelines and recording dispatches.
pub trait GpuKernels {
    /// The pipeline of a variant, compiled on first use.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the variant needs more workgroup memory or lanes than the device has; [`Error::Gpu`]
    /// if the driver rejects it.
    fn pipeline(&self, variant: &Variant) -> Result<Arc<Pipeline>>;

    /// Records a dispatch, which runs later.
    ///
    /// # Errors
    /// [`Error::Argument`] if it would access memory outside a buffer, if its buffers or parameters do not match the
    /// kernel, or if a buffer that is written appears twice; [`Error::Device`] if a buffer is on another device;
    /// [`Error::Workgroups`] if there are too many workgroups for the device; [`Error::DeviceLost`]; if the recording
    /// was full and had to be submitted, errors of the earlier commands.
    fn record(&self, dispatch: Dispatch<'_>) -> Result<()>;

    /// Copies the first elements of a tensor into `out` as bytes, after running all recorded commands.
    ///
    /// # Errors
    /// [`Error::Argument`] if the tensor has fewer bytes; errors of the recorded commands.
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
