//! `function.wgsl`

use crate::gpu::Gpu;
use crate::{DType, Function, Result, Tensor};
use recurve_shaders::Variant;

impl Gpu {
    /// `f(x)` of f32, or of U32 taken for f32.
    pub(crate) fn function(&self, x: &Tensor, f: Function) -> Result<Tensor> {
        let variant = Variant::function(x.dtype().element(), f.code());
        self.of_each("function", x, DType::F32, &variant, f.parameters())
    }
}
