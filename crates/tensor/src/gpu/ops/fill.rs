//! Tensors of one value (`fill.wgsl`).

use crate::gpu::{Dispatch, Gpu};
use crate::{DType, Result, Shape, Tensor};
use recurve_shaders::{Variant, params};

impl Gpu {
    /// A tensor whose elements all have this value, rounded towards zero for U32.
    pub(crate) fn fill(&self, shape: Shape, value: f32, dtype: DType) -> Result<Tensor> {
        let out = Tensor::gpu_uninit(self, shape, dtype, "full")?;
        let pipeline = self.pipeline(&Variant::fill(dtype.element()))?;
        let (groups, groups_x) = self.elementwise_groups(shape.count());
        let p = params::Fill { count: shape.count() as u32, groups_x, value, unused: 0 };
        self.record(Dispatch {
            pipeline: &pipeline,
            buffers: &[out.gpu_buffer()],
            params: bytemuck::bytes_of(&p),
            groups,
            work: shape.count() as u64,
        })?;
        Ok(out)
    }
}
