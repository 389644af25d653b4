//! What an adapter does that its limits do not tell: found out by running a kernel.

use super::{Dispatch, Gpu, GpuBuffer, lock};
use crate::device::AdapterKind;
use crate::{DType, Result, Shape, Tensor};
use recurve_shaders::{Variant, params};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Gpu {
    /// Loop iterations that an invocation may execute in one dispatch, all its loops together.
    /// `u32::MAX` unless the adapter is a software rasteriser that was found to stop earlier.
    pub fn max_loop_iterations(&self) -> u32 {
        self.0.max_loop_iterations.load(Ordering::Relaxed)
    }

    /// Makes this device one whose loops are thought to end after so many iterations, whatever they do: for tests.
    #[doc(hidden)]
    pub fn assume_loop_limit(&self, limit: u32) {
        self.0.max_loop_iterations.store(limit, Ordering::Relaxed);
    }

    /// Makes this device one of so little work a submission: for tests.
    #[doc(hidden)]
    pub fn limit_work(&self, work: u64) {
        self.0.max_work.store(work, Ordering::Relaxed);
    }

    /// Makes this device one that ends an invocation's loops after `limit` iterations, as some software rasterisers
    /// do after a good many more: for tests.
    #[doc(hidden)]
    pub fn end_loops_after(&self, limit: u32) {
        // Pipelines that exist know nothing of it.
        lock(&self.0.pipelines).clear();
        self.0.ended_loops.store(limit, Ordering::Relaxed);
        self.0.max_loop_iterations.store(limit, Ordering::Relaxed);
    }

    /// Whether kernels may add over groups of up to eight neighbouring lanes by shuffles: the device has
    /// subgroups, and when it was opened neighbours in a workgroup were found to be neighbours in them.
    pub fn has_neighbour_sums(&self) -> bool {
        self.0.neighbour_sums.load(Ordering::Relaxed)
    }

    /// Finds out how many loop iterations a software rasteriser really executes (`loop_probe.wgsl`), and how lanes
    /// lie in subgroups (`subgroup_probe.wgsl`): in one submission, once, when the device is opened.
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
        // A driver that refuses this kernel has nothing that others could use.
        let p = params::SubgroupProbe { seed: 7, ..Default::default() };
        let lanes = lanes && run(&Variant::subgroup_probe(), &sums, bytemuck::bytes_of(&p), LANES).is_ok();
        let (mut iterations, mut sum_of) = ([0u32; 4], [0u32; LANES as usize]);
        let [out_done, out_sums] = [bytemuck::cast_slice_mut(&mut iterations), bytemuck::cast_slice_mut(&mut sum_of)];
        self.read_async([(&done, out_done), (&sums, out_sums)]).await?;
        if loops {
            // Iterations of nested loops count together, and compilers may add some of their own:
            // a margin of one eighth below what was seen.
            let seen = iterations[1];
            let limit = if seen >= ITERATIONS { u32::MAX } else { seen - seen / 8 };
            self.0.max_loop_iterations.store(limit.max(1), Ordering::Relaxed);
        }
        let of_eight = |lane: u32| 7 + (lane / 8 * 8..lane / 8 * 8 + 8).sum::<u32>();
        let found = lanes && (0..LANES).zip(sum_of).all(|(lane, sum)| sum == of_eight(lane));
        self.0.neighbour_sums.store(found, Ordering::Relaxed);
        Ok(())
    }

    /// Workgroups that were seen to run at the same time and exchange numbers (`grid_probe.wgsl`): a power
    /// of two up to 256, or 1 where even two do not. What the `grid` strategy relies on and no API promises.
    ///
    /// The first call measures, which takes some milliseconds and up to a second where workgroups do not run
    /// together; the device remembers. Opening a device does not ask, nor does a layer unless `grid` is a choice:
    /// it was asked for, or candidates are listed or measured.
    ///
    /// # Errors
    /// Those of the device.
    pub fn concurrent_workgroups(&self) -> Result<u32> {
        self.block_on(self.concurrent_workgroups_async())
    }

    /// [`Self::concurrent_workgroups`] without blocking the executor. A call of `grid` that comes later finds the
    /// answer there.
    ///
    /// # Errors
    /// Those of the device.
    pub async fn concurrent_workgroups_async(&self) -> Result<u32> {
        let known = self.0.concurrent_workgroups.load(Ordering::Relaxed);
        if known > 0 {
            return Ok(known);
        }
        const ROUNDS: u32 = 16;
        let pipeline = self.pipeline(&Variant::grid_probe())?;
        let mut most = 1;
        'sizes: for groups in (1..9).map(|n| 1u32 << n) {
            // Three times, for luck is no property of a device.
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

    /// Notes that this many workgroups did not run at the same time, whatever the probe saw: nobody is to wait for
    /// that again.
    pub fn note_not_concurrent(&self, groups: u32) {
        let _ = self.0.concurrent_workgroups.fetch_min((groups / 2).max(1), Ordering::Relaxed);
    }

    /// Makes this device one on which the probe saw so many workgroups together: for tests.
    #[doc(hidden)]
    pub fn assume_concurrent_workgroups(&self, groups: u32) {
        self.0.concurrent_workgroups.store(groups, Ordering::Relaxed);
    }

    /// Loads of a value that is not there before a waiting kernel gives up: a fraction of a second, well
    /// below what a driver's watchdog allows.
    pub fn spin_limit(&self) -> u32 {
        (self.max_loop_iterations() / 4).min(1 << 18)
    }
}
