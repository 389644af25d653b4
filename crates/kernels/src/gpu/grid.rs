//! The strategy `grid`: the whole sequence in one dispatch of several workgroups (`grid.wgsl`). Each workgroup has its
//! own units and their weights, and they exchange h after every timestep.
//!
//! No GPU API guarantees that the workgroups of a dispatch run at the same time. The kernels wait for a limited time;
//! if they give up, [`run`] reports that, and the call is computed by `step`. This must be known before the call
//! returns, so this is the only strategy that waits for the device.

use super::{GpuLayer, Run, span};
use recurve_shaders::{Grid, params};
use recurve_tensor::gpu::Gpu;
use recurve_tensor::kernel::{Dispatch, GpuKernels, TensorKernels, strided_copy};
use recurve_tensor::{DType, Device, Result, Shape, Tensor};

/// The bits of an h that has not been stored yet, as a number that f32 represents exactly; `NOT_YET` in
/// `shared/exchange.wgsl`.
const NOT_YET: f32 = 0xffff_ff00_u32 as f32;
/// The value at the start of the exchange buffer after a lane gave up.
const GAVE_UP: u32 = 1;

impl GpuLayer {
    /// The layout of the kernel for this size; `None` if the cell has no `grid` kernel or the size does not fit.
    pub(super) fn grid_geometry(&self, batch: usize, unit_tile: u32) -> Option<Grid> {
        if self.code.exchanges() {
            return None;
        }
        let lanes = 256.min(self.gpu.max_workgroup_lanes());
        let k4 = self.k4();
        let mut k_split = 32;
        while !k4.is_multiple_of(k_split) || k_split * unit_tile > lanes {
            k_split /= 2;
        }
        let batch_tile = (batch.min(4).next_power_of_two() as u32).min(k_split);
        let mut grid = Grid { hidden: self.hidden as u32, k4, unit_tile, k_split, batch_tile, registers: false };
        grid.registers = self.fits_registers(grid.k_slice(), unit_tile * k_split);
        let fits = grid.workgroup_bytes(&self.code) <= self.gpu.max_workgroup_bytes()
            && 2 * grid.iterations_per_step() + 64 < self.gpu.max_loop_iterations();
        fits.then_some(grid)
    }

    /// The number of workgroups of a dispatch in each dimension.
    pub(super) fn grid_groups(&self, grid: &Grid, batch: usize) -> [u32; 3] {
        [grid.hidden.div_ceil(grid.unit_tile), (batch as u32).div_ceil(grid.batch_tile), self.directions.len() as u32]
    }
}

/// Loop iterations of an invocation before its first timestep.
const AT_START: u32 = 64;

/// How many unsuccessful loads per timestep a lane may need in normal operation: about a tenth of a millisecond.
const USUAL_WAIT: u32 = 256;

/// The number of unsuccessful loads after which a lane gives up in a dispatch of `steps` timesteps: one long wait and
/// the normal ones, limited by the loop iterations that the device allows.
fn patience(gpu: &Gpu, grid: &Grid, steps: u32) -> u32 {
    let own = steps.saturating_mul(grid.iterations_per_step()).saturating_add(AT_START);
    let wanted = gpu.spin_limit().saturating_add(steps.saturating_mul(USUAL_WAIT));
    wanted.min(gpu.max_loop_iterations().saturating_sub(own))
}

/// Runs the strategy. Returns the final h, or `None` if the workgroups did not run at the same time; the contents of
/// outputs and c are then unspecified.
pub(super) fn run(run: &Run<'_>, grid: &Grid) -> Result<Option<Tensor>> {
    let (layer, sizes, gpu) = (run.layer, run.sizes(), run.gpu());
    let mut h = run.h()?;
    let device = Device::Gpu(gpu.clone());
    let pipeline = gpu.pipeline(&grid.variant(&run.code))?;
    let row = sizes.directions * sizes.batch * sizes.hidden;
    let states = |source: usize, target: usize| span(&[row], (source, &[1]), (target, &[1]));

    let work = (layer.gates * sizes.hidden * sizes.hidden) as u64 * u64::from(grid.batch_tile)
        / u64::from(grid.hidden.div_ceil(grid.unit_tile));
    // Part of a dispatch's loop iterations is used for waiting.
    let groups = layer.grid_groups(grid, sizes.batch);
    let most = layer.steps_per_dispatch(AT_START, 2 * grid.iterations_per_step(), work, groups);
    let valid = run.valid().gpu_buffer();
    for chunk in run.chunks() {
        run.project(chunk)?;
        // The kernel uses this buffer as integers, the copies use it as f32; the bits are the same.
        let count = Grid::HEAD + (chunk.steps + 1) * row;
        let shape = Shape::new(&[count]).expect("smaller than the projection");
        let exchange = Tensor::full(&shape, NOT_YET, DType::U32, &device)?.reinterpreted(DType::F32)?;
        strided_copy(gpu, &states(0, Grid::HEAD), &h, &exchange)?;
        let (weights, extra) = (layer.w_hh.gpu_buffer(), layer.extra.gpu_buffer());
        let (xb, cb) = (exchange.gpu_buffer(), run.c.gpu_buffer());
        let (yb, pb) = (run.y.gpu_buffer(), run.projection.gpu_buffer());
        let buffers = &[pb, weights, extra, valid, xb, cb, yb];
        for p in run.dispatches(chunk, most) {
            let p = params::Recurrent { patience: patience(gpu, grid, p.steps), ..p };
            let work = layer.step_work(sizes) * u64::from(p.steps);
            gpu.record(Dispatch { pipeline: &pipeline, buffers, params: bytemuck::bytes_of(&p), groups, work })?;
        }
        h = run.uninit(sizes.h_shape())?;
        strided_copy(gpu, &states(Grid::HEAD + chunk.steps * row, 0), &exchange, &h)?;
        let mut head = [0u32];
        gpu.read_head(&exchange, bytemuck::cast_slice_mut(&mut head))?;
        if head[0] == GAVE_UP {
            return Ok(None);
        }
    }
    Ok(Some(h))
}
