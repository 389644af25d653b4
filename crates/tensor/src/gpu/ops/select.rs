//! `select.wgsl`

use crate::gpu::{Dispatch, Gpu};
use crate::ops::Broadcast;
use crate::{DType, MAX_RANK, Result, Tensor};
use recurve_shaders::{Variant, params};

impl Gpu {
    /// The second tensor where the first is not 0, else the third.
    pub(crate) fn select(&self, [condition, x, y]: [&Tensor; 3], common: &Broadcast<3>) -> Result<Tensor> {
        let Broadcast { shape, strides } = common;
        let out = Tensor::gpu_uninit(self, *shape, DType::F32, "select")?;
        let pipeline = self.pipeline(&Variant::select())?;
        let (groups, groups_x) = self.elementwise_groups(shape.count());
        let mut dims = [[1, 0, 0, 0]; MAX_RANK];
        let skip = MAX_RANK - shape.rank();
        for (d, &size) in shape.dims().iter().enumerate() {
            dims[skip + d] = [size, strides[0][d], strides[1][d], strides[2][d]].map(|n| n as u32);
        }
        let p = params::Select { count: shape.count() as u32, groups_x, dims, ..Default::default() };
        self.record(Dispatch {
            pipeline: &pipeline,
            buffers: &[condition.gpu_buffer(), x.gpu_buffer(), y.gpu_buffer(), out.gpu_buffer()],
            params: bytemuck::bytes_of(&p),
            groups,
            work: shape.count() as u64,
        })?;
        Ok(out)
    }
}
