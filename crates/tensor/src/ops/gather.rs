//! Rows of a table by id: the embedding look-up (`gather.wgsl`).

use crate::gpu::{Dispatch, Gpu};
use crate::{DType, Device, Error, MAX_RANK, Result, Shape, Tensor};
use core::ops::Range;
use recurve_shaders::{Variant, params};

impl Tensor {
    /// Rows of `self`, a table `[V, W]`, by `ids` of any shape; the result has one dimension more,
    /// W.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `self` has two dimensions, [`Error::DType`] unless `ids` is U32,
    /// [`Error::Index`] if an id is V or larger, [`Error::Device`] if they are on different devices.
    pub fn gather(&self, ids: &Self) -> Result<Self> {
        let &[rows, width] = self.dims() else {
            return Err(Error::shape("gather", "self", "a table [V, W]", self.shape()));
        };
        self.check_float("gather", "self")?;
        ids.check_dtype("gather", "ids", "u32", ids.dtype() == DType::U32)?;
        self.check_same_device(ids, "gather", "ids")?;
        if ids.bound() as usize >= rows {
            return Err(Error::Index { operation: "gather", argument: "ids", index: ids.bound().into(), len: rows });
        }
        let rank = ids.shape().rank();
        let mut dims = [0; MAX_RANK + 1];
        dims[..rank].copy_from_slice(ids.dims());
        dims[rank] = width;
        let shape = Shape::new(&dims[..=rank])
            .ok_or_else(|| Error::shape("gather", "ids", "of fewer dimensions", ids.shape()))?;
        match self.device() {
            Device::Cpu if self.dtype() == DType::F16 => self.to_dtype(DType::F32)?.gather(ids)?.to_dtype(DType::F16),
            Device::Cpu => Self::cpu_write(shape, |out| {
                let table = self.cpu_f32().expect("f32 on the CPU");
                let ids = ids.cpu_u32().expect("u32 on the CPU");
                for (&id, out) in ids.iter().zip(out.chunks_exact_mut(width)) {
                    out.copy_from_slice(&table[id as usize * width..][..width]);
                }
                Ok(())
            }),
            Device::Gpu(gpu) => {
                let out = Self::gpu_uninit(&gpu, shape, self.dtype(), "gather")?;
                gather_rows(&gpu, self, ids, 0..ids.shape().count(), &out, 0)?;
                Ok(out)
            }
        }
    }
}

/// Records the look-up of a span of ids in a table `[V, W]`, into `out` from the element `out_offset` on. The
/// caller has checked sizes, and that ids are below V.
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
