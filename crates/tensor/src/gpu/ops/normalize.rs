//! `normalize.wgsl`

use crate::gpu::{Dispatch, Gpu};
use crate::{DType, Normalization, Normalized, Result, Shape, Tensor};
use recurve_shaders::{Variant, params};

impl Gpu {
    pub(crate) fn normalize(&self, x: &Tensor, how: &Normalization<'_>) -> Result<Normalized> {
        if how.width as u64 > widest(self) {
            return x.normalize_in_steps(how);
        }
        let rows = x.shape().count() / how.width;
        let y = Tensor::gpu_uninit(self, *x.shape(), DType::F32, "normalize")?;
        let vector = || Tensor::gpu_uninit(self, Shape::checked("normalize", &[rows])?, DType::F32, "normalize");
        let (mean, inverse) = (vector()?, vector()?);
        let pipeline = self.pipeline(&Variant::normalize(how.centered, how.scale.is_some(), how.offset.is_some()))?;
        let groups_x = (rows as u32).min(self.max_workgroups());
        let p = params::Normalize {
            rows: rows as u32,
            width: how.width as u32,
            groups_x,
            channels: how.channels() as u32,
            inner: how.inner as u32,
            epsilon: how.epsilon,
            ..Default::default()
        };
        // Where there is no scale or offset, x stands in for it, unread.
        let [scale, offset] = [how.scale, how.offset].map(|t| t.unwrap_or(x).gpu_buffer());
        self.record(Dispatch {
            pipeline: &pipeline,
            buffers: &[x.gpu_buffer(), scale, offset, y.gpu_buffer(), mean.gpu_buffer(), inverse.gpu_buffer()],
            params: bytemuck::bytes_of(&p),
            groups: [groups_x, (rows as u32).div_ceil(groups_x), 1],
            work: 3 * x.shape().count() as u64,
        })?;
        Ok(Normalized { y, mean, inverse })
    }
}

/// The widest row for one workgroup of 64 lanes, by the iterations of a lane's three sweeps and two sums. Wider ones
/// are for all of the device.
fn widest(gpu: &Gpu) -> u64 {
    let sweeps = gpu.max_loop_iterations().saturating_sub(2 * 6) / 3;
    (64 * u64::from(sweeps)).min(1 << 16)
}
