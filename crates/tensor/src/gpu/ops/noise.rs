//! Random numbers (`noise.wgsl`).

use crate::gpu::{Dispatch, Gpu};
use crate::ops::Noise;
use crate::{DType, Result, Shape, Tensor};
use recurve_shaders::{Variant, params};

impl Gpu {
    pub(crate) fn noise(&self, shape: Shape, noise: Noise, seed: &Tensor, stream: u32) -> Result<Tensor> {
        let out = Tensor::gpu_uninit(self, shape, DType::F32, "Tensor::noise")?;
        let pipeline = self.pipeline(&Variant::noise(noise.code()))?;
        let (groups, groups_x) = self.elementwise_groups(shape.count().div_ceil(4));
        let (limit, value) = noise.parameters();
        let p = params::Noise { count: shape.count() as u32, groups_x, stream, limit, value, ..Default::default() };
        self.record(Dispatch {
            pipeline: &pipeline,
            buffers: &[seed.gpu_buffer(), out.gpu_buffer()],
            params: bytemuck::bytes_of(&p),
            groups,
            work: shape.count() as u64,
        })?;
        Ok(out)
    }
}
