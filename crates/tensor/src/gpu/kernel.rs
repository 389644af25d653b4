//! What kernels do with a GPU; see [`crate::kernel`].

use super::{Dispatch, Gpu, Pipeline};
use crate::{Error, Result, Tensor};
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
