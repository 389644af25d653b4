//! Strided copies (`copy.wgsl`).

use super::padded;
use crate::gpu::{Dispatch, Gpu};
use crate::ops::Span;
use crate::{Result, Shape, Tensor};
use recurve_shaders::{Variant, params};

impl Gpu {
    /// A tensor assembled from copies: one span of each of `sources`. Together the spans cover every element.
    pub(crate) fn assemble(
        &self,
        shape: Shape,
        sources: &[&Tensor],
        spans: impl Iterator<Item = Span>,
        operation: &'static str,
    ) -> Result<Tensor> {
        let out = Tensor::gpu_uninit(self, shape, sources[0].dtype(), operation)?;
        for (t, s) in sources.iter().zip(spans) {
            strided_copy(self, &s, t, &out)?;
        }
        Ok(out)
    }

    /// Copies into a tensor that nobody else has seen.
    pub(crate) fn copy_into(&self, out: &Tensor, source: &Tensor, span: &Span) -> Result<()> {
        strided_copy(self, span, source, out)
    }
}

/// Records a strided copy between two tensors on one GPU.
///
/// # Errors
/// [`Error::DType`] if the element types differ; those of [`crate::kernel::GpuKernels::record`].
pub fn strided_copy(gpu: &Gpu, s: &Span, source: &Tensor, out: &Tensor) -> Result<()> {
    out.check_dtype("copy", "out", "of the type of the source", source.dtype() == out.dtype())?;
    let pipeline = gpu.pipeline(&Variant::copy(source.dtype().element()))?;
    let (groups, groups_x) = gpu.elementwise_groups(s.shape.count());
    let p = params::Copy {
        count: s.shape.count() as u32,
        groups_x,
        source_offset: s.source as u32,
        target_offset: s.target as u32,
        dims: padded(&s.shape, &s.source_strides.map(|s| s as usize), &s.target_strides),
    };
    gpu.record(Dispatch {
        pipeline: &pipeline,
        buffers: &[source.gpu_buffer(), out.gpu_buffer()],
        params: bytemuck::bytes_of(&p),
        groups,
        work: s.shape.count() as u64,
    })
}
