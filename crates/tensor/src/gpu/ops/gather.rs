//! Rows of a table by id (`gather.wgsl`).

use crate::gpu::{Dispatch, Gpu};
use crate::{Result, Shape, Tensor};
use core::ops::Range;
use recurve_shaders::{Variant, params};

impl Gpu {
    pub(crate) fn gather(&self, table: &Tensor, ids: &Tensor, shape: Shape) -> Result<Tensor> {
        let out = Tensor::gpu_uninit(self, shape, table.dtype(), "gather")?;
        gather_rows(self, table, ids, 0..ids.shape().count(), &out, 0)?;
        Ok(out)
    }
}

/// Records the look-up of a range of ids in a table `[V, W]`, written to `out` from element `out_offset` on. The caller
/// has checked the sizes, and that all ids are below V.
///
/// # Errors
/// Those of [`crate::kernel::GpuKernels::record`].
pub fn gather_rows(
    gpu: &Gpu,
    table: &Tensor,
    ids: &Tensor,
    span: Range<usize>,
    out: &Tensor,
    out_offset: usize,
) -> Result<()> {
    let pipeline = gpu.pipeline(&Variant::gather(table.dtype().element()))?;
    let width = table.shape().last();
    let count = span.len() * width;
    let (groups, groups_x) = gpu.elementwise_groups(count);
    let p = params::Gather {
        count: count as u32,
        groups_x,
        width: width as u32,
        ids_offset: span.start as u32,
        out_offset: out_offset as u32,
        rows: (table.shape().count() / width) as u32,
        ..Default::default()
    };
    gpu.record(Dispatch {
        pipeline: &pipeline,
        buffers: &[table.gpu_buffer(), ids.gpu_buffer(), out.gpu_buffer()],
        params: bytemuck::bytes_of(&p),
        groups,
        work: count as u64,
    })
}
