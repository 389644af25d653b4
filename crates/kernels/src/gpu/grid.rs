//! `grid`: the whole sequence in one dispatch by several workgroups (`grid.wgsl`), each with its own units and
//! their weights, that exchange h after every step.
//!
//! No API promises that the workgroups of a dispatch run at the same time. The kernels wait a bounded time
//! and give up together; then [`run`] says so and the call goes another way. That needs to be known before
//! the call returns, so this is the one strategy that waits for the device.

use super::{GpuLayer, Run, span};
use recurve_shaders::{Grid, params};
use recurve_tensor::gpu::Gpu;
use recurve_tensor::kernel::{Dispatch, GpuKernels, TensorKernels, strided_copy};
use recurve_tensor::{DType, Device, Result, Shape, Tensor};

/// Bits of an h that has not been stored, `NOT_YET` in `shared/exchange.wgsl`, which f32 has exactly.
const NOT_YET: f32 = 0xffff_ff00_u32 as f32;
/// What stands at the head of the exchange buffer when somebody gave up.
const GAVE_UP: u32 = 1;

impl GpuLayer {
    /// How the kernel is laid out for this size, if there is a `grid` kernel for the cell.
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

    /// Workgroups of a dispatch.
    pub(super) fn grid_groups(&self, grid: &Grid, batch: usize) -> [u32; 3] {
        [grid.hidden.div_ceil(grid.unit_tile), (batch as u32).div_ceil(grid.batch_tile), self.directions.len() as u32]
    }
}

/// Loop iterations of an invocation before its first step.
const AT_START: u32 = 64;

/// Loads in vain that a lane may make in steps that it waits for as usual: a tenth of a millisecond or so each.
const USUAL_WAIT: u32 = 256;

/// Loads in vain after which a lane of a dispatch of some steps gives up: one long wait and the usual ones, or what a
/// device that ends loops leaves for them.
fn patience(gpu: &Gpu, grid: &Grid, steps: u32) -> u32 {
    let own = steps.saturating_mul(grid.iterations_per_step()).saturating_add(AT_START);
    let wanted = gpu.spin_limit().saturating_add(steps.saturating_mul(USUAL_WAIT));
    wanted.min(gpu.max_loop_iterations().saturating_sub(own))
}

/// Returns the last h, or `None` if the workgroups did not run at the same time; outputs and c are then
/// anything.
pub(super) fn run(run: &Run<'_>, grid: &Grid) -> Result<Option<Tensor>> {
    let (layer, sizes, gpu) = (run.layer, run.sizes(), run.gpu());
    let mut h = run.h()?;
    let device = Device::Gpu(gpu.clone());
    let pipeline = gpu.pipeline(&grid.variant(&run.code))?;
    let row = sizes.directions * sizes.batch * sizes.hidden;
    let states = |source: usize, target: usize| span(&[row], (source, &[1]), (target, &[1]));

    let work = (layer.gates * sizes.hidden * sizes.hidden) as u64 * u64::from(grid.batch_tile)
        / u64::from(grid.hidden.div_ceil(grid.unit_tile));
    // Some of the iterations of a dispatch are for waiting.
    let groups = layer.grid_groups(grid, sizes.batch);
    let most = layer.steps_per_dispatch(AT_START, 2 * grid.iterations_per_step(), work, groups);
    let valid = run.valid().gpu_buffer();
    for chunk in run.chunks() {
        run.project(chunk)?;
        // As integers for the kernel, as f32 for the copies: the same bits.
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
