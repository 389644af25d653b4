//! Elementwise arithmetic (`binary.wgsl`).

use super::padded;
use crate::gpu::{Dispatch, Gpu};
use crate::ops::{Broadcast, Operation};
use crate::{Result, Tensor};
use recurve_shaders::{Variant, params};

impl Gpu {
    pub(crate) fn binary(&self, [a, b]: [&Tensor; 2], op: Operation, common: &Broadcast<2>) -> Result<Tensor> {
        let Broadcast { shape, strides: [left, right] } = common;
        let out = Tensor::gpu_uninit(self, *shape, a.dtype(), op.name())?;
        let pipeline = self.pipeline(&Variant::binary(a.dtype().element(), op as u32))?;
        let (groups, groups_x) = self.elementwise_groups(shape.count());
        let p = params::Binary {
            count: shape.count() as u32,
            groups_x,
            dims: padded(shape, left, right),
            ..Default::default()
        };
        self.record(Dispatch {
            pipeline: &pipeline,
            buffers: &[a.gpu_buffer(), b.gpu_buffer(), out.gpu_buffer()],
            params: bytemuck::bytes_of(&p),
            groups,
            work: shape.count() as u64,
        })?;
        Ok(out)
    }
}
