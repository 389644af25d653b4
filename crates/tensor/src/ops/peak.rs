//! What a device can do at most, measured: multiply-adds (`peak.wgsl` without READ) and reads from memory
//! of some size (with READ).

use crate::cpu::host;
use crate::cpu::simd::{fma_chain, read_sum};
use crate::cpu::threads::{current_num_threads, prelude::*};
use crate::gpu::{Dispatch, Gpu};
use crate::{DType, Device, Result, Shape, Tensor};
use recurve_shaders::{Variant, params};
use std::hint::black_box;
use std::time::Instant;

/// Seconds of a measurement, at least.
const LEAST: f64 = 0.02;
/// The best of so many.
const RUNS: usize = 3;

impl Device {
    /// Floating-point operations a second, in f32, a multiply-add being two: measured now, on all threads
    /// that the CPU kernels may use.
    ///
    /// # Errors
    /// Those of the device.
    pub fn peak_flops(&self) -> Result<f64> {
        match self {
            Self::Cpu => {
                let threads = current_num_threads();
                rate(|n| {
                    let flops = (0..threads).into_par_iter().map(|_| fma_chain(n << 10)).sum::<u64>();
                    Ok(flops as f64)
                })
            }
            Self::Gpu(gpu) => {
                let source = Tensor::full(&[4], 1.0, DType::F32, self)?;
                // Eight vec4 of multiply-adds.
                on_gpu(gpu, false, &source, 64.0)
            }
        }
    }

    /// Bytes a second that are read from memory of this size again and again, so from the cache it fits
    /// into: by all threads together, each its part, or by a whole GPU.
    ///
    /// # Errors
    /// Those of the device.
    pub fn peak_bandwidth(&self, bytes: usize) -> Result<f64> {
        let floats = (bytes / 4).next_multiple_of(1024).max(1024);
        match self {
            Self::Cpu => {
                let part = floats.div_ceil(current_num_threads()).next_multiple_of(256);
                let mut data = host::<f32>("peak_bandwidth", floats)?;
                data.fill(1.0);
                rate(|n| {
                    let read = data.par_chunks(part).map(|d| {
                        (0..n).for_each(|_| {
                            black_box(read_sum(black_box(d)));
                        });
                        size_of_val(d) as u64 * n as u64
                    });
                    Ok(read.sum::<u64>() as f64)
                })
            }
            Self::Gpu(gpu) => {
                let floats = floats.min(gpu.max_buffer_bytes() as usize / 4);
                let source = Tensor::full(&[floats], 1.0, DType::F32, self)?;
                on_gpu(gpu, true, &source, 16.0)
            }
        }
    }
}

/// The most that `work` does in a second; it is told how often to repeat itself.
fn rate(mut work: impl FnMut(usize) -> Result<f64>) -> Result<f64> {
    let mut repeats = 1;
    let mut best = 0.0f64;
    let mut left = RUNS;
    while left > 0 {
        let start = Instant::now();
        let done = work(repeats)?;
        let seconds = start.elapsed().as_secs_f64();
        if seconds < LEAST && repeats < 1 << 30 {
            repeats *= 2;
        } else {
            best = best.max(done / seconds);
            left -= 1;
        }
    }
    Ok(best)
}

fn on_gpu(gpu: &Gpu, read: bool, source: &Tensor, per_iteration: f64) -> Result<f64> {
    let most = gpu.max_loop_iterations() - 1;
    let pipeline = gpu.pipeline(&Variant::peak(read))?;
    let iterations = 1024.min(most);
    rate(|n| {
        let groups = n.min(1 << 14) as u32;
        // Beyond that many lanes more dispatches.
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
        // Ones summed, or the fixed point of a / 2 + 1, in eight vec4s.
        let want = if read { 4.0 * iterations as f32 } else { 64.0 };
        if (first[0] - want).abs() > 1e-3 * want {
            return Err(crate::Error::Gpu { operation: "peak", message: format!("{} in place of {want}", first[0]) });
        }
        Ok(f64::from(lanes) * f64::from(iterations) * per_iteration * dispatches as f64)
    })
}
