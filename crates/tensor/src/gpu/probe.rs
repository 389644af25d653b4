//! What an adapter does that its limits do not tell: found out by running a kernel, at most once a device.

use super::{Dispatch, Gpu, lock};
use crate::{DType, Result, Shape, Tensor};
use recurve_shaders::{Variant, params};
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

    /// Finds out how many loop iterations this device really executes (`loop_probe.wgsl`).
    pub(super) async fn probe_loop_limit(&self) -> Result<()> {
        let wanted = 1u32 << 17;
        let pipeline = self.pipeline(&Variant::loop_probe())?;
        let out = self.buffer(16, "loop_probe")?;
        let p = params::LoopProbe { iterations: wanted, ..Default::default() };
        self.record(Dispatch {
            pipeline: &pipeline,
            buffers: &[&out],
            params: bytemuck::bytes_of(&p),
            groups: [1, 1, 1],
            work: wanted.into(),
        })?;
        let mut done = [0u32; 4];
        self.read_async([(&out, bytemuck::cast_slice_mut(&mut done))]).await?;
        // Iterations of nested loops count together, and compilers may add some of their own:
        // a margin of one eighth below what was seen.
        let limit = if done[1] >= wanted { u32::MAX } else { done[1] - done[1] / 8 };
        self.0.max_loop_iterations.store(limit.max(1), Ordering::Relaxed);
        Ok(())
    }

    /// Whether kernels may add over groups of up to eight neighbouring lanes by shuffles: the device has
    /// subgroups, and neighbours in a workgroup are neighbours in them (`subgroup_probe.wgsl`).
    ///
    /// # Errors
    /// Those of the device.
    pub fn has_neighbour_sums(&self) -> Result<bool> {
        if let Some(&known) = self.0.neighbour_sums.get() {
            return Ok(known);
        }
        let usable = self.0.features.contains(wgpu::Features::SUBGROUP) && self.0.summary.subgroup.0 >= 8;
        let found = usable && {
            const LANES: u32 = 256;
            let pipeline = self.pipeline(&Variant::subgroup_probe())?;
            let out = self.buffer(u64::from(LANES) * 4, "subgroup_probe")?;
            let p = params::SubgroupProbe { seed: 7, ..Default::default() };
            self.record(Dispatch {
                pipeline: &pipeline,
                buffers: &[&out],
                params: bytemuck::bytes_of(&p),
                groups: [1, 1, 1],
                work: LANES.into(),
            })?;
            let mut sums = [0u32; LANES as usize];
            self.read(&out, bytemuck::cast_slice_mut(&mut sums))?;
            (0..LANES).zip(sums).all(|(lane, sum)| sum == 7 + (lane / 8 * 8..lane / 8 * 8 + 8).sum::<u32>())
        };
        Ok(*self.0.neighbour_sums.get_or_init(|| found))
    }

    /// Workgroups that were seen to run at the same time and exchange numbers (`grid_probe.wgsl`): a power
    /// of two up to 256, or 1 where even two do not. What the `grid` strategy relies on and no API promises.
    ///
    /// # Errors
    /// Those of the device.
    pub fn concurrent_workgroups(&self) -> Result<u32> {
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
                self.read(exchange.gpu_buffer(), bytemuck::cast_slice_mut(&mut gave_up))?;
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
