//! `scan`: the whole sequence in one dispatch (`lstm_scan.wgsl`, `gru_scan.wgsl`, `rnn_scan.wgsl`).

use super::{Chunk, GpuLayer, Run};
use recurve_shaders::{Family, Scan};
use recurve_tensor::gpu::Dispatch;
use recurve_tensor::{AdapterKind, Result, Tensor};

/// Hidden units of a lane, at most: beyond that a workgroup is slower than many.
const MAX_UNITS: u32 = 4;

/// Bytes of weights that a lane of a software rasteriser keeps for itself, at most, and timesteps
/// after which fetching them has paid.
const MAX_RESIDENT: u32 = 8 << 10;
const MIN_RESIDENT_STEPS: usize = 8;

impl GpuLayer {
    /// How the kernel is laid out for this size, if H fits into a workgroup.
    pub(super) fn scan_geometry(&self, batch: usize, timesteps: usize) -> Option<Scan> {
        let hidden = self.hidden as u32;
        let family = self.code.family;
        let software = self.gpu.summary().kind == AdapterKind::Software;
        let workgroup = hidden.next_multiple_of(32).min(self.gpu.max_workgroup_lanes());
        let k_unroll = if software { 2 } else { 4 };
        let mut scan = Scan { hidden, k4: self.k4(), workgroup, batch_tile: 4, k_unroll, resident: false };
        let own = scan.units() * scan.k4 * self.gates as u32 * 16;
        scan.resident = software && own <= MAX_RESIDENT && timesteps >= MIN_RESIDENT_STEPS;
        let fits = |s: &Scan| u64::from(s.tile(family)) * 16 <= u64::from(self.gpu.max_workgroup_bytes());
        while scan.batch_tile > 1 && (scan.batch_tile as usize >= 2 * batch || !fits(&scan)) {
            scan.batch_tile /= 2;
        }
        let possible = scan.units() <= MAX_UNITS
            && fits(&scan)
            && scan.iterations_per_step(family) + scan.iterations_at_start(family) < self.gpu.max_loop_iterations();
        possible.then_some(scan)
    }
}

pub(super) fn run(
    run: &Run<'_>,
    projection: &Tensor,
    chunks: impl Iterator<Item = Chunk>,
    project: &mut dyn FnMut(Chunk) -> Result<()>,
    h: Tensor,
    c: &Tensor,
) -> Result<Tensor> {
    let Run { layer, sizes, .. } = run;
    let gpu = &layer.gpu;
    let scan = layer.scan_geometry(sizes.batch, sizes.timesteps).expect("the strategy was chosen because it fits");
    let code = run.code;
    let pipeline = gpu.pipeline(&scan.variant(&code))?;

    let family = code.family;
    let work = (layer.gates * sizes.hidden * sizes.hidden) as u64 * u64::from(scan.batch_tile);
    let most = layer.steps_per_dispatch(scan.iterations_at_start(family), scan.iterations_per_step(family), work);

    // Buffers that a variant does not read still need something bound.
    let valid = run.valid.unwrap_or(&layer.extra).gpu_buffer();
    let (weights, extra) = (layer.w_hh.gpu_buffer(), layer.extra.gpu_buffer());
    let (hb, cb, yb, pb) = (h.gpu_buffer(), c.gpu_buffer(), run.y.gpu_buffer(), projection.gpu_buffer());
    let lstm = [pb, weights, extra, valid, hb, cb, yb];
    let gru = [pb, weights, extra, valid, hb, yb];
    let rnn = [pb, weights, valid, hb, yb];
    let buffers: &[_] = match family {
        Family::Lstm { .. } => &lstm,
        Family::Gru { .. } => &gru,
        _ => &rnn,
    };
    let groups = [(sizes.batch as u32).div_ceil(scan.batch_tile), sizes.directions as u32, 1];
    run.record(&Dispatch { pipeline: &pipeline, buffers, params: &[], groups }, most, chunks, project)?;
    Ok(h)
}
