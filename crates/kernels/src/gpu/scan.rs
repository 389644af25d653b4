//! `scan`: the whole sequence in one dispatch (`scan.wgsl`).

use super::{GpuLayer, K4_MULTIPLE, Run};
use recurve_shaders::{Kept, Scan};
use recurve_tensor::kernel::{Dispatch, GpuKernels, TensorKernels};
use recurve_tensor::{Result, Tensor};

/// Largest number of hidden units per lane. With more, one workgroup is slower than several.
const MAX_UNITS: u32 = 4;

/// Largest size of the weights that a lane of a software rasteriser keeps, in bytes, and the number of timesteps from
/// which loading them first is faster.
const MAX_RESIDENT: u32 = 8 << 10;
const MIN_RESIDENT_STEPS: usize = 8;

/// Largest number of batch rows per lane if a software rasteriser keeps weights in variables. The code is unrolled for
/// each row, and takes longer to compile.
const MAX_RESIDENT_ROWS: u32 = 2;

impl GpuLayer {
    /// The layout of the kernel for this size; `None` if H does not fit into a workgroup.
    ///
    /// On a software rasteriser, where a load costs more than a multiply-add, a lane computes a unit alone: few batch rows
    /// from weights that it keeps in variables, more rows from weights in an array, of which a load serves all rows. On a
    /// hardware GPU several lanes share a unit if there are enough lanes, which hides the latency of their loads, and
    /// weights are kept in registers if they fit.
    pub(super) fn scan_geometry(&self, batch: usize, timesteps: usize) -> Option<Scan> {
        if self.gpu.is_software() {
            let rows = if batch >= 8 { 8 } else { MAX_RESIDENT_ROWS };
            return self.scan_with(batch, timesteps, 1, false, rows);
        }
        let subgroups = self.gpu.has_neighbour_sums();
        let shared = [4, 2].into_iter().find_map(|split| self.scan_with(batch, timesteps, split, subgroups, 4));
        shared.or_else(|| self.scan_with(batch, timesteps, 1, false, 4))
    }

    /// All layouts for this size.
    pub(super) fn scan_geometries(&self, batch: usize, timesteps: usize) -> Vec<Scan> {
        let mut all = Vec::new();
        let neighbours = self.gpu.has_neighbour_sums();
        for k_split in [1, 2, 4, 8] {
            for subgroups in [true, false] {
                if subgroups && (!neighbours || k_split == 1) {
                    continue;
                }
                for batch_tile in [1, 2, 4, 8] {
                    if batch_tile > 1 && batch_tile as usize >= batch.saturating_mul(2) {
                        continue;
                    }
                    if let Some(scan) = self.scan_with(batch, timesteps, k_split, subgroups, batch_tile)
                        && scan.batch_tile == batch_tile
                    {
                        all.push(scan);
                        if scan.kept != Kept::Memory {
                            all.push(Scan { kept: Kept::Memory, ..scan });
                        }
                    }
                }
            }
        }
        all
    }

    /// Where a lane has the weights of its units.
    fn kept(&self, scan: &Scan, timesteps: usize) -> Kept {
        let alone = !self.code.exchanges() && scan.units() == 1;
        if !self.gpu.is_software() {
            let fit = alone && self.fits_registers(scan.k_slice(), scan.workgroup);
            return if fit { Kept::Registers } else { Kept::Memory };
        }
        let own = scan.units() * scan.k4 * self.gates as u32 * 16;
        if self.gpu.compiles_slowly() || scan.k_split > 1 || own > MAX_RESIDENT || timesteps < MIN_RESIDENT_STEPS {
            Kept::Memory
        } else if alone && scan.batch_tile <= MAX_RESIDENT_ROWS {
            Kept::Registers
        } else {
            Kept::Array
        }
    }

    fn scan_with(
        &self,
        batch: usize,
        timesteps: usize,
        k_split: u32,
        subgroups: bool,
        batch_tile: u32,
    ) -> Option<Scan> {
        let hidden = self.hidden as u32;
        let exchanges = self.code.exchanges();
        let software = self.gpu.is_software();
        let lanes = self.gpu.max_workgroup_lanes();
        let workgroup = match k_split {
            1 => hidden.next_multiple_of(if software { 8 } else { 32 }).min(lanes),
            _ => (hidden * k_split).next_multiple_of(32),
        };
        if k_split > 1 && (exchanges || workgroup > lanes) {
            return None;
        }
        let k_unroll = if software { 2 } else { 4 };
        let k_unroll = k_unroll.min(K4_MULTIPLE / k_split);
        let kept = Kept::Memory;
        let mut scan = Scan { hidden, k4: self.k4(), workgroup, batch_tile, k_unroll, k_split, subgroups, kept };
        while scan.batch_tile > 1 && scan.batch_tile as usize >= batch.saturating_mul(2) {
            scan.batch_tile /= 2;
        }
        scan.kept = self.kept(&scan, timesteps);
        let bytes = self.gpu.max_workgroup_bytes();
        let scan = scan.within(bytes, &self.code);
        let possible = scan.units() <= MAX_UNITS
            && scan.workgroup_bytes(&self.code) <= bytes
            && scan.iterations_per_step(&self.code) + scan.iterations_at_start() < self.gpu.max_loop_iterations();
        possible.then_some(scan)
    }
}

/// Runs the strategy. Returns the final h.
pub(super) fn run(run: &Run<'_>, scan: &Scan) -> Result<Tensor> {
    let (layer, sizes, gpu) = (run.layer, run.sizes(), run.gpu());
    let code = run.code;
    let pipeline = gpu.pipeline(&scan.variant(&code))?;
    let h = run.h_or_flag()?;

    let work = (layer.gates * sizes.hidden * sizes.hidden) as u64 * u64::from(scan.batch_tile);
    let groups = [(sizes.batch as u32).div_ceil(scan.batch_tile), sizes.directions as u32, 1];
    let (at_start, per_step) = (scan.iterations_at_start(), scan.iterations_per_step(&code));
    let most = layer.steps_per_dispatch(at_start, per_step, work, groups);

    // A buffer that a variant does not read must still be bound.
    let valid = run.valid().gpu_buffer();
    let (weights, extra) = (layer.w_hh.gpu_buffer(), layer.extra.gpu_buffer());
    let (hb, cb, yb, pb) = (h.gpu_buffer(), run.c.gpu_buffer(), run.y.gpu_buffer(), run.projection.gpu_buffer());
    let buffers = &[pb, weights, extra, valid, hb, cb, yb];
    let work = layer.step_work(sizes);
    run.record(&Dispatch { pipeline: &pipeline, buffers, params: &[], groups, work }, most)?;
    Ok(h)
}
