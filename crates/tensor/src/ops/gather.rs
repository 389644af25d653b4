//! Rows of a table by id: the embedding look-up (`gather.wgsl`), and its gradient (`sum_rows.wgsl`).

use crate::{DType, Device, Error, MAX_RANK, Result, Shape, Tensor};

impl Tensor {
    /// Sums the rows of `self`, `[…, W]`, by `ids`, which have the shape of `self` without W: row r of the result, `[rows,
    /// W]`, is the sum of the rows whose id is r; zero if there are none. An id beyond counts as the last.
    /// The order of additions is always the same: the same tensors on the same device give the same bits.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not fit, [`Error::DType`], [`Error::Device`]; [`Error::Argument`] if `rows` is 0.
    pub fn sum_rows(&self, ids: &Self, rows: usize) -> Result<Self> {
        const NAME: &str = "sum_rows";
        self.check_dtype(NAME, "self", "f32", self.dtype() == DType::F32)?;
        ids.check_dtype(NAME, "ids", "u32", ids.dtype() == DType::U32)?;
        self.check_same_device(ids, NAME, "ids")?;
        let width = self.shape().last();
        if self.dims().split_last().is_none_or(|(_, outer)| outer != ids.dims()) {
            return Err(Error::shape(
                NAME,
                "ids",
                format!("that of {} without its last dimension", self.shape()),
                ids.shape(),
            ));
        }
        let shape = Shape::new(&[rows, width]).ok_or_else(|| Error::Argument {
            operation: NAME,
            argument: "rows",
            message: "must be at least 1, but it is 0".into(),
        })?;
        match self.device() {
            Device::Cpu => Self::cpu_write(shape, |out| {
                let (x, ids) = (self.cpu_f32().expect("f32 on the CPU"), ids.cpu_u32().expect("u32 on the CPU"));
                out.fill(0.0);
                for (row, &id) in x.chunks_exact(width).zip(ids) {
                    let id = (id as usize).min(rows - 1);
                    out[id * width..][..width].iter_mut().zip(row).for_each(|(o, v)| *o += v);
                }
                Ok(())
            }),
            Device::Gpu(gpu) => gpu.sum_rows(self, ids, rows),
        }
    }

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
