//! Measuring the peak rates of a device: multiply-adds (`peak.wgsl` without READ) and reading memory of a given size
//! (with READ).

use crate::cpu::host;
use crate::cpu::simd::{fma_chain, read_sum};
use crate::cpu::threads::{current_num_threads, prelude::*};
use crate::{Device, Result};
use std::hint::black_box;
use std::time::Instant;

/// Shortest time of a measurement, in seconds.
const LEAST: f64 = 0.02;
/// Number of measurements, of which the best counts.
const RUNS: usize = 3;

impl Device {
    /// Peak floating-point operations per second in f32 (a multiply-add is two), measured now, on all threads that the
    /// CPU kernels may use.
    ///
    /// # Errors
    /// Errors of the device.
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

    /// Peak bytes per second when reading memory of this size again and again, that is, from the smallest cache that
    /// holds it. All threads of the CPU together, each reading its own part, or a whole GPU.
    ///
    /// # Errors
    /// Errors of the device.
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

/// The highest rate per second of `work`, whose argument says how often it repeats.
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
