//! `scatter.wgsl`

use super::{axes, padded, parts};
use crate::gpu::{Dispatch, Gpu};
use crate::ops::{Scatter, Update};
use crate::{Result, Tensor};
use recurve_shaders::{Variant, params};

impl Gpu {
    /// Makes updates in `out`, which nobody else has seen.
    pub(crate) fn scatter(
        &self,
        out: &Tensor,
        indices: &Tensor,
        updates: &Tensor,
        s: &Scatter,
        update: Update,
    ) -> Result<()> {
        let pipeline = self.pipeline(&Variant::scatter(indices.dtype().element(), update.code()))?;
        let count = s.lanes.count();
        let (groups, groups_x) = self.elementwise_groups(count);
        let mut dims = padded(&s.lanes, &s.data_strides, &s.index_strides);
        let update_strides = padded(&s.lanes, &s.update_strides, &s.update_strides);
        dims.iter_mut().zip(update_strides).for_each(|(d, u)| d[3] = u[1]);
        // Each update takes an iteration, and one for each index.
        let most = self.max_loop_iterations() / (1 + s.components as u32);
        for (first, steps) in parts(s.steps as u32, most) {
            let p = params::Scatter {
                count: count as u32,
                groups_x,
                components: s.components as u32,
                component_stride: 1,
                first,
                steps,
                index_step: s.index_step as u32,
                update_step: s.update_step as u32,
                dims,
                axes: axes(&s.axes),
            };
            self.record(Dispatch {
                pipeline: &pipeline,
                buffers: &[indices.gpu_buffer(), updates.gpu_buffer(), out.gpu_buffer()],
                params: bytemuck::bytes_of(&p),
                groups,
                work: count as u64 * u64::from(steps),
            })?;
        }
        Ok(())
    }
}
