//! What a device can do at most, measured: multiply-adds (`peak.wgsl` without READ) and reads from memory
//! of some size (with READ).

use crate::cpu::host;
use crate::cpu::simd::{fma_chain, read_sum};
use crate::cpu::threads::{current_num_threads, prelude::*};
use crate::{Device, Result};
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
            Self::Gpu(gpu) => gpu.peak_flops(),
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
            Self::Gpu(gpu) => gpu.peak_bandwidth(floats),
        }
    }
}

/// The most that `work` does in a second; it is told how often to repeat itself.
pub(crate) fn rate(mut work: impl FnMut(usize) -> Result<f64>) -> Result<f64> {
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
