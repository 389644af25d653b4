//! Softmax (`softmax.wgsl`).

use crate::gpu::{Dispatch, Gpu};
use crate::ops::Operation;
use crate::{DType, Reduction, Result, Shape, Tensor};
use recurve_shaders::{Variant, params};

impl Gpu {
    pub(crate) fn softmax(&self, x: &Tensor, logarithm: bool) -> Result<Tensor> {
        let width = x.shape().last();
        if width as u64 > widest(self) {
            let axis = x.shape().rank() - 1;
            let wide = x.to_dtype(DType::F32)?;
            let highest = wide.reduce(Reduction::Max, axis)?;
            let e = wide.binary(&highest, Operation::ExpSub)?;
            if logarithm {
                return wide.sub(&highest)?.sub(&e.reduce(Reduction::LogSum, axis)?)?.to_dtype(x.dtype());
            }
            return e.div(&e.reduce(Reduction::Sum, axis)?)?.to_dtype(x.dtype());
        }
        let out = Tensor::gpu_uninit(self, *x.shape(), x.dtype(), "softmax")?;
        let pipeline = self.pipeline(&Variant::softmax(x.dtype().element(), logarithm))?;
        let rows = (x.shape().count() / width) as u32;
        let groups_x = rows.min(self.max_workgroups());
        let p = params::Softmax { rows, width: width as u32, groups_x, unused: 0 };
        self.record(Dispatch {
            pipeline: &pipeline,
            buffers: &[x.gpu_buffer(), out.gpu_buffer()],
            params: bytemuck::bytes_of(&p),
            groups: [groups_x, rows.div_ceil(groups_x), 1],
            work: 3 * x.shape().count() as u64,
        })?;
        Ok(out)
    }

    /// The logarithms of the sums of exponentials of rows, if a workgroup can go through one.
    pub(crate) fn log_sums(&self, x: &Tensor, result: Shape, width: usize) -> Result<Option<Tensor>> {
        if width as u64 > widest(self) {
            return Ok(None);
        }
        let out = Tensor::gpu_uninit(self, result, DType::F32, "reduce")?;
        let pipeline = self.pipeline(&Variant::log_sum())?;
        let rows = result.count() as u32;
        let groups_x = rows.min(self.max_workgroups());
        let p = params::Softmax { rows, width: width as u32, groups_x, unused: 0 };
        self.record(Dispatch {
            pipeline: &pipeline,
            buffers: &[x.gpu_buffer(), out.gpu_buffer()],
            params: bytemuck::bytes_of(&p),
            groups: [groups_x, rows.div_ceil(groups_x), 1],
            work: 2 * x.shape().count() as u64,
        })?;
        Ok(Some(out))
    }
}

/// The widest row for which one workgroup of 64 lanes stays within the device's loop iterations: three passes and two
/// sums per lane. Wider rows use the whole device.
fn widest(gpu: &Gpu) -> u64 {
    let sweeps = gpu.max_loop_iterations().saturating_sub(2 * 6) / 3;
    (64 * u64::from(sweeps)).min(1 << 16)
}
