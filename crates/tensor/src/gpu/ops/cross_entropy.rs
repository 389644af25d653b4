//! `cross_entropy.wgsl`

use crate::gpu::{Dispatch, Gpu};
use crate::ops::shares;
use crate::{DType, Result, Shape, Tensor};
use recurve_shaders::{Variant, params};

impl Gpu {
    /// The values, from the sums and the means of the rows.
    pub(crate) fn cross_entropy(&self, x: &Tensor, labels: &Tensor, of: [&Tensor; 2], s: f32) -> Result<Tensor> {
        self.cross_entropy_pass(x, labels, of, s, false)
    }

    /// The gradient, from the sums of the rows and the gradients of their values.
    pub(crate) fn cross_entropy_gradient(
        &self,
        x: &Tensor,
        labels: &Tensor,
        of: [&Tensor; 2],
        s: f32,
    ) -> Result<Tensor> {
        self.cross_entropy_pass(x, labels, of, s, true)
    }

    fn cross_entropy_pass(
        &self,
        x: &Tensor,
        labels: &Tensor,
        [sums, rows]: [&Tensor; 2],
        smoothing: f32,
        backward: bool,
    ) -> Result<Tensor> {
        let width = x.shape().last();
        let shape: Shape = if backward { *x.shape() } else { x.shape().leading(x.shape().rank() - 1) };
        let out = Tensor::gpu_uninit(self, shape, DType::F32, "cross_entropy")?;
        let smooth = smoothing > 0.0 && !backward;
        let pipeline = self.pipeline(&Variant::cross_entropy(labels.dtype().element(), backward, smooth))?;
        let (groups, groups_x) = self.elementwise_groups(shape.count());
        let (own, share) = shares(smoothing, width);
        let p = params::CrossEntropy {
            count: shape.count() as u32,
            groups_x,
            width: width as u32,
            own,
            share,
            ..Default::default()
        };
        let buffers = [x, labels, sums, rows, &out].map(Tensor::gpu_buffer);
        self.record(Dispatch {
            pipeline: &pipeline,
            buffers: &buffers,
            params: bytemuck::bytes_of(&p),
            groups,
            work: shape.count() as u64,
        })?;
        Ok(out)
    }
}
