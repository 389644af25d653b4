//! `cumulate.wgsl`

use super::parts;
use crate::gpu::{Dispatch, Gpu};
use crate::ops::Axis;
use crate::{Result, Tensor};
use recurve_shaders::{Variant, params};

impl Gpu {
    pub(crate) fn cumulate(&self, x: &Tensor, a: &Axis, exclusive: bool, reverse: bool) -> Result<Tensor> {
        let out = Tensor::gpu_uninit(self, *x.shape(), x.dtype(), "cumulate")?;
        let pipeline = self.pipeline(&Variant::cumulate())?;
        let count = a.result.count();
        let (groups, groups_x) = self.elementwise_groups(count);
        for (first, steps) in parts(a.len as u32, self.max_loop_iterations()) {
            let p = params::Cumulate {
                count: count as u32,
                groups_x,
                axis: a.len as u32,
                inner: a.inner as u32,
                first,
                steps,
                exclusive: exclusive.into(),
                reverse: reverse.into(),
            };
            self.record(Dispatch {
                pipeline: &pipeline,
                buffers: &[x.gpu_buffer(), out.gpu_buffer()],
                params: bytemuck::bytes_of(&p),
                groups,
                work: count as u64 * u64::from(steps),
            })?;
        }
        Ok(out)
    }
}
