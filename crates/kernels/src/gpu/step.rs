//! The strategy `step`: one dispatch per timestep (`step.wgsl`), or two for a cell with an exchange in the middle of a
//! step.

use super::{GpuLayer, Run, span};
use recurve_shaders::Step;
use recurve_tensor::kernel::{Dispatch, GpuKernels, TensorKernels, strided_copy};
use recurve_tensor::{DType, Device, Result, Tensor};

impl GpuLayer {
    pub(super) fn step_geometry(&self, batch: usize) -> Step {
        let batch_tile = match batch {
            1 => 1,
            2 => 2,
            _ => 4,
        };
        Step { hidden: self.hidden as u32, k4: self.k4(), unit_tile: 16, k_split: 4, batch_tile, k_unroll: 2 }
    }

    /// All layouts for this size.
    pub(super) fn step_geometries(&self, batch: usize) -> impl Iterator<Item = Step> {
        let base = self.step_geometry(batch);
        let lanes = self.gpu.max_workgroup_lanes();
        let bytes = self.gpu.max_workgroup_bytes();
        [(16, 8, 1), (32, 4, 2), (32, 8, 1), (64, 4, 2)]
            .into_iter()
            .flat_map(move |(unit_tile, k_split, k_unroll)| {
                [base.batch_tile, 8].map(|batch_tile| Step { unit_tile, k_split, k_unroll, batch_tile, ..base })
            })
            .filter(move |s| {
                let wide = s.batch_tile == base.batch_tile || batch >= s.batch_tile as usize;
                let iterations = s.iterations() <= self.gpu.max_loop_iterations();
                let fits = s.unit_tile * s.k_split <= lanes && s.workgroup_bytes(&self.code) <= bytes;
                wide && iterations && fits
            })
    }
}

/// Runs the strategy. Returns the final h.
pub(super) fn run(run: &Run<'_>, step: &Step) -> Result<Tensor> {
    let (layer, sizes, gpu) = (run.layer, run.sizes(), run.gpu());
    let code = run.code;
    let phases = if code.exchanges() { 1..3 } else { 0..1 };
    let pipelines =
        phases.map(|phase| gpu.pipeline(&step.variant(&code, phase))).collect::<Result<arrayvec::ArrayVec<_, 2>>>()?;

    // The current h and the next, which swap after every timestep, padded with zeros to whole vec4s. They are two
    // buffers, because one is read four elements at a time and the other is written one by one. Values that units
    // exchange in the middle of a timestep have a third buffer.
    let width = 4 * step.k4 as usize;
    let rows = sizes.directions * sizes.batch;
    let padded = || Tensor::zeros(&[rows, width], DType::F32, &Device::Gpu(gpu.clone()));
    let h = [padded()?, padded()?];
    let handed = if pipelines.len() == 2 { Some(padded()?) } else { None };
    let hidden = sizes.hidden;
    if let Some(h0) = run.call.h0 {
        strided_copy(gpu, &span(&[rows, hidden], (0, &[hidden, 1]), (0, &[width, 1])), h0, &h[0])?;
    }

    let valid = run.valid().gpu_buffer();
    let (weights, extra) = (layer.w_hh.gpu_buffer(), layer.extra.gpu_buffer());
    let (cb, yb, pb) = (run.c.gpu_buffer(), run.y.gpu_buffer(), run.projection.gpu_buffer());
    let buffers = |now: usize, phase: usize| {
        let (h, next) = (h[now].gpu_buffer(), h[1 - now].gpu_buffer());
        let mut all = arrayvec::ArrayVec::<_, 8>::new();
        all.extend([pb, weights, valid, h]);
        match &handed {
            None => all.extend([extra, next, cb, yb]),
            // The value that each unit keeps is stored in the buffer for c, which such a cell does not have.
            Some(handed) => {
                all.extend([handed.gpu_buffer(), cb]);
                if phase == 1 {
                    all.extend([next, yb]);
                }
            }
        }
        all
    };
    let groups =
        [step.hidden.div_ceil(step.unit_tile), (sizes.batch as u32).div_ceil(step.batch_tile), sizes.directions as u32];
    let work = layer.step_work(sizes);
    for chunk in run.chunks() {
        run.project(chunk)?;
        for p in run.dispatches(chunk, 1) {
            for (phase, pipeline) in pipelines.iter().enumerate() {
                let buffers = &buffers(p.first_step as usize % 2, phase);
                gpu.record(Dispatch { pipeline, buffers, params: bytemuck::bytes_of(&p), groups, work })?;
            }
        }
    }

    let last = run.uninit(sizes.h_shape())?;
    let copy = span(&[rows, hidden], (0, &[width, 1]), (0, &[hidden, 1]));
    strided_copy(gpu, &copy, &h[sizes.timesteps % 2], &last)?;
    Ok(last)
}
