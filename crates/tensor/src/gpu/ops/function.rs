//! `function.wgsl`

use crate::gpu::{Dispatch, Gpu};
use crate::{DType, Function, Result, Tensor};
use recurve_shaders::{Variant, params};

impl Gpu {
    /// `f(x)` of f32, or of U32 taken for f32.
    pub(crate) fn function(&self, x: &Tensor, f: Function) -> Result<Tensor> {
        let out = Tensor::gpu_uninit(self, *x.shape(), DType::F32, "function")?;
        let pipeline = self.pipeline(&Variant::function(x.dtype().element(), f.code()))?;
        let (groups, groups_x) = self.elementwise_groups(x.shape().count());
        let [alpha, beta] = f.parameters();
        let p = params::Unary { count: x.shape().count() as u32, groups_x, alpha, beta };
        self.record(Dispatch {
            pipeline: &pipeline,
            buffers: &[x.gpu_buffer(), out.gpu_buffer()],
            params: bytemuck::bytes_of(&p),
            groups,
            work: x.shape().count() as u64,
        })?;
        Ok(out)
    }
}
