//! Masks (`mask.wgsl`).

use super::parts;
use crate::gpu::{Dispatch, Gpu};
use crate::{DType, Result, Shape, Tensor};
use recurve_shaders::{Variant, params};

impl Gpu {
    /// The mask of a tensor: one element for each row of `width` elements.
    pub(crate) fn mask(&self, x: &Tensor, value: f32, shape: Shape, width: usize) -> Result<Tensor> {
        let out = Tensor::gpu_uninit(self, shape, DType::U32, "mask")?;
        let pipeline = self.pipeline(&Variant::mask(x.dtype().element()))?;
        let (groups, groups_x) = self.elementwise_groups(shape.count());
        for (first, columns) in parts(width as u32, self.max_loop_iterations()) {
            let p = params::Mask {
                count: shape.count() as u32,
                groups_x,
                width: width as u32,
                value,
                first,
                columns,
                ..Default::default()
            };
            self.record(Dispatch {
                pipeline: &pipeline,
                buffers: &[x.gpu_buffer(), out.gpu_buffer()],
                params: bytemuck::bytes_of(&p),
                groups,
                work: shape.count() as u64 * u64::from(columns),
            })?;
        }
        Ok(out)
    }
}
