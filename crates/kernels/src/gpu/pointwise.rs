//! Cells whose units do not depend on each other: IndRNN, minGRU and minLSTM. They run timestep by timestep
//! (`pointwise_scan.wgsl`); for the minimal cells, `scan` is a parallel scan of depth O(log T) (`linear_scan.wgsl`,
//! `linear_carry.wgsl`).

use super::{GpuLayer, Kernels, Run};
use crate::{CellKind, Strategy};
use recurve_shaders::{Pointwise, params};
use recurve_tensor::kernel::{Dispatch, GpuKernels, TensorKernels};
use recurve_tensor::{Result, Shape, Tensor};

impl GpuLayer {
    fn is_linear(&self, strategy: Strategy) -> bool {
        let minimal = matches!(self.code.cell.kind, CellKind::MinGru | CellKind::MinLstm);
        matches!(self.kernels, Kernels::Pointwise) && minimal && strategy == Strategy::Scan
    }

    /// Memory of `linear_scan` per timestep, in bytes, for the prefixes of all levels.
    pub(super) fn linear_bytes(&self, strategy: Strategy, rows: usize) -> usize {
        if self.is_linear(strategy) { rows * self.hidden * 9 } else { 0 }
    }
}

/// Runs the cell. Returns the final h.
pub(super) fn run(run: &Run<'_>, strategy: Strategy) -> Result<Tensor> {
    let (layer, sizes, gpu) = (run.layer, run.sizes(), run.gpu());
    let h = if strategy == Strategy::Scan { run.h_or_flag()? } else { run.h()? };
    let pointwise = Pointwise { hidden: layer.hidden as u32 };
    // If there are more columns than a dispatch can count, they fill any device, and running timestep by timestep is
    // enough.
    let columns = (sizes.batch * sizes.hidden).div_ceil(Pointwise::COLUMNS as usize);
    if layer.is_linear(strategy) && columns <= gpu.max_workgroups() as usize {
        return linear(run, pointwise, h);
    }
    let work = layer.step_work(sizes);
    let most = match strategy {
        Strategy::Step => 1,
        _ => layer.steps_per_dispatch(1, 1, 1, [work.min(u32::MAX.into()) as u32, 1, 1]),
    };
    let pipeline = gpu.pipeline(&pointwise.scan(&run.code))?;
    let buffers = [
        run.projection.gpu_buffer(),
        layer.extra.gpu_buffer(),
        run.valid().gpu_buffer(),
        h.gpu_buffer(),
        run.y.gpu_buffer(),
    ];
    let groups = [pointwise.hidden.div_ceil(Pointwise::LANES), 0, sizes.directions as u32];
    let kernel = Dispatch { pipeline: &pipeline, buffers: &buffers, params: &[], groups, work };
    for chunk in run.chunks() {
        run.project(chunk)?;
        for p in run.dispatches(chunk, most) {
            run.record_rows(&kernel, 1, p)?;
        }
    }
    Ok(h)
}

/// A level of the parallel scan: the prefixes inside each block, and one composed map per block.
struct Level {
    items: usize,
    prefixes: Tensor,
    wholes: Tensor,
}

fn linear(run: &Run<'_>, pointwise: Pointwise, h: Tensor) -> Result<Tensor> {
    let (sizes, gpu) = (run.sizes(), run.gpu());
    let columns = sizes.batch * sizes.hidden;
    let block = Pointwise::BLOCK as usize;
    let pair = |items: usize| {
        let shape = Shape::new(&[sizes.directions, items, columns, 2]).expect("smaller than tensors that exist");
        run.uninit(shape)
    };
    let [gates, blocks] = [true, false].map(|first| gpu.pipeline(&pointwise.linear_scan(&run.code, first)));
    let [apply, complete] = [true, false].map(|first| gpu.pipeline(&pointwise.linear_carry(&run.code, first)));
    let (gates, blocks, apply, complete) = (gates?, blocks?, apply?, complete?);
    let valid = run.valid().gpu_buffer();
    let x = (columns as u32).div_ceil(Pointwise::COLUMNS);
    let groups = |items: usize| [x, items.div_ceil(block) as u32, sizes.directions as u32];
    let most = (gpu.max_workgroups() as usize).saturating_mul(block);

    // The states before and after a dispatch are in two tensors: every block reads the first, the last block writes the
    // second.
    let mut now = h;
    let mut next = run.uninit(sizes.h_shape())?;
    for chunk in run.chunks() {
        run.project(chunk)?;
        for p in run.dispatches(chunk, most) {
            let with = |items: usize| params::Recurrent { steps: items as u32, ..p };
            let mut levels: Vec<Level> = Vec::new();
            let mut items = p.steps as usize;
            loop {
                let level = Level { items, prefixes: pair(items)?, wholes: pair(items.div_ceil(block))? };
                let (pipeline, source) = match levels.last() {
                    None => (&gates, &run.projection),
                    Some(below) => (&blocks, &below.wholes),
                };
                gpu.record(Dispatch {
                    pipeline,
                    buffers: &[level.prefixes.gpu_buffer(), level.wholes.gpu_buffer(), valid, source.gpu_buffer()],
                    params: bytemuck::bytes_of(&with(items)),
                    groups: groups(items),
                    work: (sizes.directions * items * columns) as u64,
                })?;
                levels.push(level);
                if items <= block {
                    break;
                }
                items = items.div_ceil(block);
            }
            for n in (0..levels.len()).rev() {
                let level = &levels[n];
                // With a single block this buffer is not used; any readable buffer is bound.
                let above = levels.get(n + 1).map_or(&now, |l| &l.prefixes).gpu_buffer();
                if n > 0 && n + 1 < levels.len() {
                    gpu.record(Dispatch {
                        pipeline: &complete,
                        buffers: &[above, level.prefixes.gpu_buffer(), valid],
                        params: bytemuck::bytes_of(&with(level.items)),
                        groups: groups(level.items),
                        work: (sizes.directions * level.items * columns) as u64,
                    })?;
                } else if n == 0 {
                    gpu.record(Dispatch {
                        pipeline: &apply,
                        buffers: &[
                            above,
                            level.prefixes.gpu_buffer(),
                            valid,
                            now.gpu_buffer(),
                            next.gpu_buffer(),
                            run.y.gpu_buffer(),
                        ],
                        params: bytemuck::bytes_of(&with(level.items)),
                        groups: groups(level.items),
                        work: (sizes.directions * level.items * columns) as u64,
                    })?;
                }
            }
            core::mem::swap(&mut now, &mut next);
        }
    }
    Ok(now)
}
