//! `pool.wgsl`

use super::conv::axes;
use crate::gpu::{Dispatch, Gpu};
use crate::ops::Pool;
use crate::{DType, Error, Pooling, Result, Tensor};
use recurve_shaders::{Variant, params};

impl Gpu {
    pub(crate) fn pool(&self, pool: &Pool<'_>, pooling: Pooling) -> Result<Tensor> {
        let (operation, options, power) = match pooling {
            Pooling::Max => (0, 0, 0.0),
            Pooling::Average { padded } => (1, u32::from(padded), 0.0),
            Pooling::Norm { p } => (2, 0, p as f32),
        };
        record(self, pool, DType::F32, operation, params::Pool { options, power, ..Default::default() })
    }

    pub(crate) fn max_pool_indices(&self, pool: &Pool<'_>, column_major: bool) -> Result<Tensor> {
        let options = 2 * u32::from(column_major);
        record(self, pool, DType::U32, 3, params::Pool { options, ..Default::default() })
    }
}

fn record(gpu: &Gpu, pool: &Pool<'_>, dtype: DType, operation: u32, p: params::Pool) -> Result<Tensor> {
    let taps = pool.sliding.taps();
    if taps as u64 > gpu.max_loop_iterations().into() {
        let device = gpu.summary().name.clone();
        return Err(Error::Unsupported { operation: "pool", feature: "windows of so many elements", device });
    }
    let out = Tensor::gpu_uninit(gpu, pool.shape, dtype, "pool")?;
    let pipeline = gpu.pipeline(&Variant::pool(operation))?;
    let count = pool.shape.count();
    let (groups, groups_x) = gpu.elementwise_groups(count);
    let (sizes, steps) = axes(&pool.sliding);
    let planes = (count / pool.sliding.window_count()) as u32;
    let lowest = f32::NEG_INFINITY;
    let p = params::Pool { count: count as u32, groups_x, planes, lowest, sizes, steps, ..p };
    gpu.record(Dispatch {
        pipeline: &pipeline,
        buffers: &[pool.x.gpu_buffer(), out.gpu_buffer()],
        params: bytemuck::bytes_of(&p),
        groups,
        work: count as u64 * taps as u64,
    })?;
    Ok(out)
}
