//! `top_k.wgsl`

use super::parts;
use crate::gpu::{Dispatch, Gpu};
use crate::{DType, Result, Shape, Tensor};
use recurve_shaders::{Variant, params};

impl Gpu {
    /// Values and places of the best, of `shape`.
    pub(crate) fn top_k(&self, x: &Tensor, shape: Shape, k: usize, largest: bool) -> Result<(Tensor, Tensor)> {
        let ranks = Tensor::gpu_uninit(self, *x.shape(), DType::U32, "top_k")?;
        let values = Tensor::gpu_uninit(self, shape, DType::F32, "top_k")?;
        let places = Tensor::gpu_uninit(self, shape, DType::U32, "top_k")?;
        let pipeline = self.pipeline(&Variant::top_k())?;
        let (count, width) = (x.shape().count(), x.shape().last());
        let (groups, groups_x) = self.elementwise_groups(count);
        for (first, columns) in parts(width as u32, self.max_loop_iterations()) {
            let p = params::TopK {
                count: count as u32,
                groups_x,
                width: width as u32,
                k: k as u32,
                first,
                columns,
                sign: if largest { 1.0 } else { -1.0 },
                unused: 0,
            };
            self.record(Dispatch {
                pipeline: &pipeline,
                buffers: &[x.gpu_buffer(), ranks.gpu_buffer(), values.gpu_buffer(), places.gpu_buffer()],
                params: bytemuck::bytes_of(&p),
                groups,
                work: count as u64 * u64::from(columns),
            })?;
        }
        Ok((values, places))
    }
}
