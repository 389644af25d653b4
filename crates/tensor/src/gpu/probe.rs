//! Properties of an adapter that its limits do not state, found by running a kernel.

use super::{Dispatch, Gpu, GpuBuffer, lock};
use crate::device::AdapterKind;
use crate::{DType, Result, Shape, Tensor};
use recurve_shaders::{Variant, params};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Gpu {
    /// The number of loop iterations that an invocation may execute in one dispatch, summed over all its loops.
    /// `u32::MAX` unless the adapter is a software rasteriser that was found to stop earlier.
    pub fn max_loop_iterations(&self) -> u32 {
        self.0.max_loop_iterations.load(Ordering::Relaxed)
    }

    /// For tests: makes the library assume that this device's loops end after so many iterations.
    #[doc(hidden)]
    pub fn assume_loop_limit(&self, limit: u32) {
        self.0.max_loop_iterations.store(limit, Ordering::Relaxed);
    }

    /// For tests: sets [`Self::max_work`].
    #[doc(hidden)]
    pub fn limit_work(&self, work: u64) {
        self.0.max_work.store(work, Ordering::Relaxed);
    }

    /// For tests: makes an invocation's loops end after `limit` iterations, as some software rasterisers do after many
    /// more.
    #[doc(hidden)]
    pub fn end_loops_after(&self, limit: u32) {
        // Pipelines compiled before do not have the limit.
        lock(&self.0.pipelines).clear();
        self.0.ended_loops.store(limit, Ordering::Relaxed);
        self.0.max_loop_iterations.store(limit, Ordering::Relaxed);
    }

    /// For tests: lays kernels out as for a hardware GPU of the same limits.
    #[doc(hidden)]
    pub fn assume_hardware(&self) {
        self.0.software.store(false, Ordering::Relaxed);
    }

    /// Whether kernels may sum over groups of up to eight adjacent lanes with subgroup shuffles: the device has
    /// subgroups, and a probe at opening found that adjacent lanes of a workgroup are adjacent in their subgroup.
    pub fn has_neighbour_sums(&self) -> bool {
        self.0.neighbour_sums.load(Ordering::Relaxed)
    }

    /// Measures how many loop iterations a software rasteriser really executes (`loop_probe.wgsl`), and how lanes are
    /// arranged in subgroups (`subgroup_probe.wgsl`). Runs in one submission when the device is opened.
    pub(super) async fn probe(&self) -> Result<()> {
        const ITERATIONS: u32 = 1 << 17;
        const LANES: u32 = 256;
        let loops = self.0.summary.kind == AdapterKind::Software;
        let lanes = self.0.features.contains(wgpu::Features::SUBGROUP) && self.0.summary.subgroup.0 >= 8;
        if !loops && !lanes {
            return Ok(());
        }
        let (done, sums) = (self.buffer(16, "loop_probe")?, self.buffer(u64::from(LANES) * 4, "subgroup_probe")?);
        let run = |variant: &Variant, out: &Arc<GpuBuffer>, params: &[u8], work: u32| {
            let pipeline = self.pipeline(variant)?;
            self.record(Dispatch { pipeline: &pipeline, buffers: &[out], params, groups: [1, 1, 1], work: work.into() })
        };
        if loops {
            let p = params::LoopProbe { iterations: ITERATIONS, ..Default::default() };
            run(&Variant::loop_probe(), &done, bytemuck::bytes_of(&p), ITERATIONS)?;
        }
        // If the driver rejects this kernel, subgroups are not used.
        let p = params::SubgroupProbe { seed: 7, ..Default::default() };
        let lanes = lanes && run(&Variant::subgroup_probe(), &sums, bytemuck::bytes_of(&p), LANES).is_ok();
        let (mut iterations, mut sum_of) = ([0u32; 4], [0u32; LANES as usize]);
        let [out_done, out_sums] = [bytemuck::cast_slice_mut(&mut iterations), bytemuck::cast_slice_mut(&mut sum_of)];
        self.read_async([(&done, out_done), (&sums, out_sums)]).await?;
        if loops {
            // Iterations of nested loops are counted together, and compilers may add some of their own, so the limit is
            // one eighth below the number seen.
            let seen = iterations[1];
            let limit = if seen >= ITERATIONS { u32::MAX } else { seen - seen / 8 };
            self.0.max_loop_iterations.store(limit.max(1), Ordering::Relaxed);
        }
        let of_eight = |lane: u32| 7 + (lane / 8 * 8..lane / 8 * 8 + 8).sum::<u32>();
        let found = lanes && (0..LANES).zip(sum_of).all(|(lane, sum)| sum == of_eight(lane));
        self.0.neighbour_sums.store(found, Ordering::Relaxed);
        Ok(())
    }

    /// The number of workgroups that were seen to run at the same time and exchange values (`grid_probe.wgsl`): a power
    /// of two up to 256, or 1 if not even two do. The `grid` strategy relies on this, and no GPU API guarantees it.
    ///
    /// The first call measures; that takes some milliseconds, and up to a second where workgroups do not run at the
    /// same time. The result is kept for the device. Opening a device does not measure, and a layer does so only if
    /// `grid` is asked for, or candidates are listed or tuned.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn concurrent_workgroups(&self) -> Result<u32> {
        self.block_on(self.concurrent_workgroups_async())
    }

    /// [`Self::concurrent_workgroups`] as a future. A later use of `grid` finds the result and does not measure.
    ///
    /// # Errors
    /// Errors of the device.
    pub async fn concurrent_workgroups_async(&self) -> Result<u32> {
        let known = self.0.concurrent_workgroups.load(Ordering::Relaxed);
        if known > 0 {
            return Ok(known);
        }
        const ROUNDS: u32 = 16;
        let pipeline = self.pipeline(&Variant::grid_probe())?;
        let mut most = 1;
        'sizes: for groups in (1..9).map(|n| 1u32 << n) {
            // Measured three times, because a single success may be chance.
            for _ in 0..3 {
                let shape = Shape::new(&[(1 + (ROUNDS + 1) * groups) as usize]).expect("a small buffer");
                let exchange = Tensor::zeros(&shape, DType::U32, &crate::Device::Gpu(self.clone()))?;
                let p = params::GridProbe { groups, rounds: ROUNDS, spin_limit: self.spin_limit(), unused: 0 };
                self.record(Dispatch {
                    pipeline: &pipeline,
                    buffers: &[exchange.gpu_buffer()],
                    params: bytemuck::bytes_of(&p),
                    groups: [groups, 1, 1],
                    work: u64::from(64 * groups * groups * ROUNDS),
                })?;
                let mut gave_up = [0u32];
                self.read_async([(exchange.gpu_buffer(), bytemuck::cast_slice_mut(&mut gave_up))]).await?;
                if gave_up[0] != 0 {
                    break 'sizes;
                }
            }
            most = groups;
        }
        self.0.concurrent_workgroups.store(most, Ordering::Relaxed);
        Ok(most)
    }

    /// Records that this many workgroups did not run at the same time, whatever the probe saw, so that `grid` is not
    /// tried with as many again.
    pub fn note_not_concurrent(&self, groups: u32) {
        let _ = self.0.concurrent_workgroups.fetch_min((groups / 2).max(1), Ordering::Relaxed);
    }

    /// For tests: sets the result of the probe.
    #[doc(hidden)]
    pub fn assume_concurrent_workgroups(&self, groups: u32) {
        self.0.concurrent_workgroups.store(groups, Ordering::Relaxed);
    }

    /// How often a waiting kernel checks for a value before it gives up: a fraction of a second, well below the time
    /// after which a driver resets the device.
    pub fn spin_limit(&self) -> u32 {
        (self.max_loop_iterations() / 4).min(1 << 18)
    }
}
