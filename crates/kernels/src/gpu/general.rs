//! Cells with layer normalization or a projection of h (`general_scan.wgsl`, `general_step.wgsl`).

use super::{GpuLayer, K4_MULTIPLE, Kernels, Run, packed};
use crate::config::LevelConfig;
use crate::{CellKind, DirectionWeights};
use recurve_shaders::{CellCode, General};
use recurve_tensor::cpu::host;
use recurve_tensor::kernel::{Dispatch, GpuKernels, StridedMatmul, TensorKernels, strided_matmul};
use recurve_tensor::{DType, Device, Error, Result, Shape, Tensor};

/// The weights of these cells besides those that all cells have.
#[derive(Debug)]
pub(super) struct Weights {
    /// Gain and offset of the input projection's normalization, `[D, 2, G·H]`, and epsilon.
    pub(super) norm_ih: Option<(Tensor, f32)>,
    /// `W_hh` in the layout of the matrix product, `[D, G·H, W]`.
    w_hh: Tensor,
    /// `W_hr` as `[D, H / 4, W]` vectors of four adjacent units; a single zero without a projection.
    w_hr: Tensor,
    /// `W_hr` in the layout of the matrix product, `[D, W, H]`.
    w_hr_rows: Option<Tensor>,
    /// G·H zeros, used as the matrix product's bias.
    zeros: Tensor,
}

impl Weights {
    pub(super) fn new(
        config: &LevelConfig<'_>,
        directions: &[DirectionWeights<f32>],
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let (cell, h) = (&config.cell, config.hidden_size);
        let (rows, width) = (cell.kind.gates() * h, cell.state_size(h));
        let tensor = |data: &[f32]| Tensor::from_f32(data, &[data.len()], device);
        let weights = |data: &[f32]| tensor(data)?.to_dtype(dtype);
        let all = |pick: fn(&DirectionWeights<f32>) -> &[f32]| -> Vec<&[f32]> { directions.iter().map(pick).collect() };
        let norm_ih = match cell.layer_norm {
            Some(epsilon) => {
                let mut affine = Vec::new();
                for w in directions {
                    affine.extend(affine_with_bias(&w.norm_ih, &w.b_ih));
                }
                Some((tensor(&affine)?, epsilon))
            }
            None => None,
        };
        let w_hr = all(|w| &w.w_hr);
        let (w_hr, w_hr_rows) = match cell.projection {
            Some(_) => (packed(&w_hr, width, h, h.div_ceil(4))?, Some(weights(&joined(&w_hr)?)?)),
            None => (vec![0.0; 4], None),
        };
        Ok(Self {
            norm_ih,
            w_hh: weights(&joined(&all(|w| &w.w_hh))?)?,
            w_hr: weights(&w_hr)?,
            w_hr_rows,
            zeros: Tensor::zeros(&[rows], DType::F32, device)?,
        })
    }
}

/// Concatenates matrices.
fn joined(matrices: &[&[f32]]) -> Result<Vec<f32>> {
    let mut out = host("Recurrent::new", matrices.iter().map(|m| m.len()).sum())?;
    let mut rest = &mut out[..];
    for m in matrices {
        let (own, behind) = rest.split_at_mut(m.len());
        own.copy_from_slice(m);
        rest = behind;
    }
    Ok(out)
}

/// Gain and offset `[2, n]`, with a bias, if there is one, added to the offset.
fn affine_with_bias(affine: &[f32], bias: &[f32]) -> Vec<f32> {
    let n = affine.len() / 2;
    (0..2 * n).map(|i| affine[i] + if i < n { 0.0 } else { bias.get(i - n).copied().unwrap_or(0.0) }).collect()
}

/// One direction's part of the buffer `extra`: peepholes, then gain and offset of `W_hh h` and of c; zeros for those
/// that the cell does not have.
pub(super) fn extra(w: &DirectionWeights<f32>, kind: CellKind, hidden: usize) -> Vec<f32> {
    let mut out = w.peepholes.clone();
    out.resize(3 * hidden, 0.0);
    out.extend(affine_with_bias(&w.norm_hh, &w.b_hh));
    out.resize((3 + 2 * kind.gates()) * hidden, 0.0);
    out.extend_from_slice(&w.norm_c);
    out.resize(General::extra(kind.gates() as u32, hidden as u32) as usize, 0.0);
    out
}

impl GpuLayer {
    fn general(&self) -> General {
        let (hidden, width) = (self.hidden as u32, self.width as u32);
        let lanes = (self.gates as u32 * hidden).next_power_of_two().clamp(32, 256);
        let lanes = lanes.min(1 << self.gpu.max_workgroup_lanes().ilog2());
        let layer_norm = match &self.kernels {
            Kernels::General(w) => w.norm_ih.as_ref().map(|n| n.1),
            _ => None,
        };
        General {
            hidden,
            width,
            k4: CellCode::k4(width, K4_MULTIPLE),
            workgroup: lanes,
            projection: width != hidden,
            layer_norm,
        }
    }

    /// Whether the whole sequence can run with one workgroup per row.
    pub(super) fn general_fits(&self) -> bool {
        let (general, gates) = (self.general(), self.gates as u32);
        general.workgroup_bytes(gates) <= self.gpu.max_workgroup_bytes()
            && general.iterations_per_step(gates) + general.iterations_at_start() < self.gpu.max_loop_iterations()
    }

    /// Whether a timestep can run with one workgroup per row; false for cells of other families.
    pub(super) fn general_steps(&self) -> bool {
        let iterations = self.general().iterations_of_step(self.gates as u32);
        matches!(self.kernels, Kernels::Pointwise) || iterations <= self.gpu.max_loop_iterations()
    }
}

/// Runs `general_scan`. Returns the final h.
pub(super) fn scan(run: &Run<'_>, weights: &Weights) -> Result<Tensor> {
    let (layer, sizes, gpu, h) = (run.layer, run.sizes(), run.gpu(), run.h_or_flag()?);
    let general = layer.general();
    let gates = layer.gates as u32;
    let pipeline = gpu.pipeline(&general.scan(&run.code))?;
    let work = ((layer.gates * sizes.hidden + sizes.hidden) * sizes.width) as u64;
    let groups = [sizes.batch as u32, sizes.directions as u32, 1];
    let (at_start, per_step) = (general.iterations_at_start(), general.iterations_per_step(gates));
    let most = layer.steps_per_dispatch(at_start, per_step, work, groups);
    let buffers = [
        run.projection.gpu_buffer(),
        layer.w_hh.gpu_buffer(),
        weights.w_hr.gpu_buffer(),
        layer.extra.gpu_buffer(),
        run.valid().gpu_buffer(),
        h.gpu_buffer(),
        run.c.gpu_buffer(),
        run.y.gpu_buffer(),
    ];
    let work = layer.step_work(sizes);
    let kernel =
        Dispatch { pipeline: &pipeline, buffers: &buffers, params: &[], groups: [0, sizes.directions as u32, 1], work };
    for chunk in run.chunks() {
        run.project(chunk)?;
        for p in run.dispatches(chunk, most) {
            run.record_rows(&kernel, 0, p)?;
        }
    }
    Ok(h)
}

/// Runs `general_step`. Returns the final h.
pub(super) fn step(run: &Run<'_>, weights: &Weights) -> Result<Tensor> {
    let (layer, sizes, gpu, h) = (run.layer, run.sizes(), run.gpu(), run.h()?);
    let general = layer.general();
    let phases = if general.projection { 1..3 } else { 0..1 };
    let pipelines = phases
        .map(|phase| gpu.pipeline(&general.step(&run.code, phase)))
        .collect::<Result<arrayvec::ArrayVec<_, 2>>>()?;
    let (b, d, rows) = (sizes.batch, sizes.directions, layer.gates * sizes.hidden);
    let uninit = |dims: &[usize]| run.uninit(Shape::new(dims).expect("smaller than tensors that exist"));
    let sums = uninit(&[d, b, rows])?;
    let m = uninit(&[d, b, sizes.hidden])?;
    let projected = uninit(&[d, b, sizes.width])?;
    let multiply = |a: &Tensor, k: usize, w: &Tensor, n: usize, out: &Tensor| {
        for dir in 0..d {
            strided_matmul(
                gpu,
                &StridedMatmul {
                    a,
                    m: b,
                    k,
                    a_inner: b,
                    a_outer_stride: 0,
                    a_inner_stride: k,
                    a_offset: dir * b * k,
                    w,
                    w_offset: dir * n * k,
                    n,
                    bias: &weights.zeros,
                    bias_offset: 0,
                    out,
                    out_offset: dir * b * n,
                },
            )?;
        }
        Ok::<_, Error>(())
    };
    let groups = [0, d as u32, 1];
    let valid = run.valid().gpu_buffer();
    let (pb, hb, cb, yb) = (run.projection.gpu_buffer(), h.gpu_buffer(), run.c.gpu_buffer(), run.y.gpu_buffer());
    for chunk in run.chunks() {
        run.project(chunk)?;
        for p in run.dispatches(chunk, 1) {
            multiply(&h, sizes.width, &weights.w_hh, rows, &sums)?;
            for (n, pipeline) in pipelines.iter().enumerate() {
                let product = if n == 0 { &sums } else { &projected };
                let buffers = [pb, product.gpu_buffer(), layer.extra.gpu_buffer(), valid, hb, cb, m.gpu_buffer(), yb];
                let work = (d * b * rows) as u64;
                run.record_rows(&Dispatch { pipeline, buffers: &buffers, params: &[], groups, work }, 0, p)?;
                if n == 0
                    && let Some(w_hr) = &weights.w_hr_rows
                {
                    multiply(&m, sizes.hidden, w_hr, sizes.width, &projected)?;
                }
            }
        }
    }
    Ok(h)
}
