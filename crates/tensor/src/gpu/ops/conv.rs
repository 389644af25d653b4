//! `conv.wgsl`

use super::parts;
use crate::gpu::{Dispatch, Gpu};
use crate::ops::{Conv, Sliding};
use crate::{DType, Result, Tensor};
use recurve_shaders::{Variant, params};

impl Gpu {
    pub(crate) fn conv(&self, c: &Conv<'_>) -> Result<Tensor> {
        if let Some(y) = pointwise(c)? {
            return Ok(y);
        }
        let out = Tensor::gpu_uninit(self, c.shape, DType::F32, "conv")?;
        let many = c.outputs >= Variant::CONV_CHANNELS as usize;
        let channels = if many { Variant::CONV_CHANNELS as usize } else { 1 };
        let pipeline = self.pipeline(&Variant::conv(c.transposed, c.bias.is_some(), many))?;
        let (_, to) = c.planes();
        let lanes = (c.batch * c.groups * c.outputs.div_ceil(channels) * to) as u32;
        let all = (c.inputs * c.sliding.taps()) as u32;
        let (sizes, mut steps) = axes(&c.sliding);
        steps[0][3] = c.batch as u32;
        for (first, terms) in parts(all, self.max_loop_iterations()) {
            let work = u64::from(terms) * channels as u64;
            let most = (self.max_work() / work).clamp(1, u32::MAX.into()) as u32;
            for (base, count) in parts(lanes, most) {
                let (groups, groups_x) = self.elementwise_groups(count as usize);
                let p = params::Conv {
                    count,
                    groups_x,
                    base,
                    groups: c.groups as u32,
                    inputs: c.inputs as u32,
                    outputs: c.outputs as u32,
                    first,
                    terms,
                    sizes,
                    steps,
                };
                // Without a bias the weight stands in for it, unread.
                let bias = c.bias.unwrap_or(c.weight);
                self.record(Dispatch {
                    pipeline: &pipeline,
                    buffers: &[c.x.gpu_buffer(), c.weight.gpu_buffer(), bias.gpu_buffer(), out.gpu_buffer()],
                    params: bytemuck::bytes_of(&p),
                    groups,
                    work: u64::from(count) * work,
                })?;
            }
        }
        Ok(out)
    }
}

/// A convolution that is a product of its weight with x, as that: where it is worth it.
fn pointwise(c: &Conv<'_>) -> Result<Option<Tensor>> {
    /// Multiply-adds.
    const WORTH_A_PRODUCT: usize = 1 << 22;
    let (from, to) = c.planes();
    let work = c.inputs.saturating_mul(c.outputs).saturating_mul(from);
    let is_product = c.sliding.windows.iter().all(crate::Window::is_pointwise) && from == to;
    if !is_product || c.transposed || c.batch != 1 || c.groups != 1 || work < WORTH_A_PRODUCT {
        return Ok(None);
    }
    let y = c.weight.reshape(&[c.outputs, c.inputs])?.matmul(&c.x.reshape(&[c.inputs, from])?)?;
    let y = match c.bias {
        Some(bias) => y.add(&bias.reshape(&[c.outputs, 1])?)?,
        None => y,
    };
    y.reshape(c.shape.dims()).map(Some)
}

/// Windows as the kernels read them.
pub(super) fn axes(s: &Sliding) -> ([[u32; 4]; 3], [[u32; 4]; 3]) {
    let sizes = [0, 1, 2].map(|n| {
        let w = &s.windows[n];
        [s.seen[n] as u32, s.counts[n] as u32, w.size as u32, w.stride as u32]
    });
    (sizes, s.windows.map(|w| [w.dilation as u32, w.before as u32, w.after as u32, 0]))
}
