//! Activation functions and conversions (`unary.wgsl`).

use crate::gpu::{Dispatch, Gpu};
use crate::{Activation, DType, Result, Tensor};
use recurve_shaders::{Variant, params};

impl Gpu {
    /// `f(x)`, with elements of type `result`.
    pub(crate) fn unary(&self, x: &Tensor, result: DType, f: Activation) -> Result<Tensor> {
        let variant = Variant::unary(x.dtype().element(), result.element(), f);
        self.of_each("unary", x, result, &variant, f.parameters())
    }

    /// What a kernel makes of each element of `x`, with elements of type `result`.
    pub(super) fn of_each(
        &self,
        operation: &'static str,
        x: &Tensor,
        result: DType,
        variant: &Variant,
        [alpha, beta]: [f32; 2],
    ) -> Result<Tensor> {
        let out = Tensor::gpu_uninit(self, *x.shape(), result, operation)?;
        let pipeline = self.pipeline(variant)?;
        let (groups, groups_x) = self.elementwise_groups(x.shape().count());
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
