//! `take.wgsl`

use super::{axes, padded};
use crate::gpu::{Dispatch, Gpu};
use crate::ops::Take;
use crate::{Result, Tensor};
use recurve_shaders::{Variant, params};

impl Gpu {
    pub(crate) fn take(&self, data: &Tensor, indices: &Tensor, t: &Take, fill: f32) -> Result<Tensor> {
        let out = Tensor::gpu_uninit(self, *t.shape(), data.dtype(), "take")?;
        let pipeline = self.pipeline(&Variant::take(data.dtype().element(), indices.dtype().element()))?;
        let count = t.view.count();
        let (groups, groups_x) = self.elementwise_groups(count);
        let p = params::Take {
            count: count as u32,
            groups_x,
            components: t.components as u32,
            component_stride: 1,
            fill,
            dims: padded(&t.view, &t.data_strides, &t.index_strides),
            axes: axes(&t.axes),
            ..Default::default()
        };
        self.record(Dispatch {
            pipeline: &pipeline,
            buffers: &[data.gpu_buffer(), indices.gpu_buffer(), out.gpu_buffer()],
            params: bytemuck::bytes_of(&p),
            groups,
            work: count as u64,
        })?;
        Ok(out)
    }
}
