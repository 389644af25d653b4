//! `slope.wgsl`

use crate::gpu::{Dispatch, Gpu};
use crate::{Activation, DType, Result, Tensor};
use recurve_shaders::{Variant, params};

impl Gpu {
    /// `dy · f'`, told from `value`.
    pub(crate) fn slope(&self, dy: &Tensor, value: &Tensor, f: Activation) -> Result<Tensor> {
        let out = Tensor::gpu_uninit(self, *dy.shape(), DType::F32, "activation_gradient")?;
        let pipeline = self.pipeline(&Variant::slope(f))?;
        let count = dy.shape().count();
        let (groups, groups_x) = self.elementwise_groups(count);
        let [alpha, beta] = f.parameters();
        let p = params::Unary { count: count as u32, groups_x, alpha, beta };
        self.record(Dispatch {
            pipeline: &pipeline,
            buffers: &[dy.gpu_buffer(), value.gpu_buffer(), out.gpu_buffer()],
            params: bytemuck::bytes_of(&p),
            groups,
            work: count as u64,
        })?;
        Ok(out)
    }
}
