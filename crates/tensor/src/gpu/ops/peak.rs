//! Measuring the peak rates of a GPU (`peak.wgsl`).

use crate::gpu::{Dispatch, Gpu};
use crate::ops::peak::rate;
use crate::{DType, Device, Result, Shape, Tensor};
use recurve_shaders::{Variant, params};

impl Gpu {
    pub(crate) fn peak_flops(&self) -> Result<f64> {
        let source = Tensor::full(&[4], 1.0, DType::F32, &Device::Gpu(self.clone()))?;
        // Each iteration does eight vec4 multiply-adds: 64 operations.
        measure(self, false, &source, 64.0)
    }

    pub(crate) fn peak_bandwidth(&self, floats: usize) -> Result<f64> {
        let floats = floats.min(self.max_buffer_bytes() as usize / 4);
        let source = Tensor::full(&[floats], 1.0, DType::F32, &Device::Gpu(self.clone()))?;
        measure(self, true, &source, 16.0)
    }
}

fn measure(gpu: &Gpu, read: bool, source: &Tensor, per_iteration: f64) -> Result<f64> {
    let most = gpu.max_loop_iterations() - 1;
    let pipeline = gpu.pipeline(&Variant::peak(read))?;
    let iterations = 1024.min(most);
    rate(|n| {
        let groups = n.min(1 << 14) as u32;
        // Larger measurements take several dispatches.
        let dispatches = n.div_ceil(1 << 14);
        let lanes = groups * 256;
        let out = Tensor::gpu_uninit(gpu, Shape::new(&[lanes as usize]).expect("small"), DType::F32, "peak")?;
        let count = (source.shape().count() / 4) as u32;
        let p = params::Peak { iterations, count, lanes, factor: 0.5 };
        for _ in 0..dispatches {
            gpu.record(Dispatch {
                pipeline: &pipeline,
                buffers: &[source.gpu_buffer(), out.gpu_buffer()],
                params: bytemuck::bytes_of(&p),
                groups: [groups, 1, 1],
                work: u64::from(lanes) * u64::from(iterations) * if read { 4 } else { 32 },
            })?;
        }
        let mut first = [0.0f32];
        gpu.read(out.gpu_buffer(), bytemuck::cast_slice_mut(&mut first))?;
        // The expected result: a sum of ones, or the fixed point of a / 2 + 1, in eight vec4s.
        let want = if read { 4.0 * iterations as f32 } else { 64.0 };
        if (first[0] - want).abs() > 1e-3 * want {
            return Err(crate::Error::Gpu { operation: "peak", message: format!("{} in place of {want}", first[0]) });
        }
        Ok(f64::from(lanes) * f64::from(iterations) * per_iteration * dispatches as f64)
    })
}
