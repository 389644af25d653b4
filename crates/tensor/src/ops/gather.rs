//! Rows of a table by id: the embedding look-up (`gather.wgsl`).

use crate::{DType, Device, Error, MAX_RANK, Result, Shape, Tensor};

impl Tensor {
    /// Selects rows of `self`, a table `[V, W]`, by `ids` of any shape. The result has the shape of `ids`, followed by
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
            Device::Gpu(gpu) => gpu.gather(self, ids, shape),
        }
    }
}
