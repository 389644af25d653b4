//! Stacked layers as a wavefront (`stack_wave.wgsl`): all layers run at once, layer l at timestep s - l in dispatch s.
//! This takes T + L - 1 dispatches instead of L · T.

use super::{GpuLayer, Kernels, span, valid_by};
use crate::call::{Call, Input, Outputs, RecurrentOutput, Sizes};
use crate::{Cell, CellKind, Strategy};
use recurve_shaders::params::{self, Flags};
use recurve_shaders::{CellCode, Step};
use recurve_tensor::kernel::{Dispatch, GpuKernels, StridedMatmul, TensorKernels, strided_copy, strided_matmul};
use recurve_tensor::{DType, Device, Result, Shape, Tensor};

/// The weights of stacked layers with one direction, packed for the kernel. Each layer reads the output of the layer
/// below.
#[derive(Debug)]
pub(crate) struct Wave {
    layers: usize,
    code: CellCode,
    /// Input and recurrent weights, `[L, 2, K4, G, H, 4]`.
    weights: Tensor,
    /// Biases and further weights, `[L, G + 3, H]`.
    extra: Tensor,
}

/// The number of vec4s along k is padded to a multiple of this, which the slices divide.
const K_SPLIT: u32 = 4;
const UNIT_TILE: u32 = 16;
const FORWARD: &str = "Recurrent::forward";

impl Wave {
    /// Whether the wavefront kernel exists for a cell: a SimpleRNN, an LSTM or a GRU with `reset_after`, without
    /// projection and layer normalization. The layers must read forward.
    /// after the product, without projection and layer normalization.
    pub(crate) fn fits(cell: Cell) -> bool {
        let fused = match cell.kind {
            CellKind::Rnn | CellKind::Lstm { .. } => true,
            CellKind::Gru { reset_after } => reset_after,
            _ => false,
        };
        fused && cell.projection.is_none() && cell.layer_norm.is_none()
    }

    /// Packs the weights from those of the layers, which are on the device already.
    pub(crate) fn new(levels: &[&GpuLayer]) -> Result<Self> {
        let GpuLayer { gpu, hidden: h, gates: g, code, .. } = levels[0];
        let (h, g, device) = (*h, *g, Device::Gpu(gpu.clone()));
        let k4 = CellCode::k4(h as u32, K_SPLIT) as usize;
        let (rows, part, more) = (g * h, 4 * k4 * g * h, (g + 3) * h);
        // Zeros in place of the first layer's input weights, which are not used, and of weights that a cell does not
        // have.
        let weights = Tensor::zeros(&[levels.len() * 2 * part], levels[0].w_hh.dtype(), &device)?;
        let extra = Tensor::zeros(&[levels.len() * more], DType::F32, &device)?;
        for (n, level) in levels.iter().enumerate() {
            if n > 0 {
                // Copied from [G·H, H]; groups of four adjacent k stay together.
                let (whole, rest, at) = (h / 4, h % 4, 2 * n * part);
                if whole > 0 {
                    let copy = span(&[whole, rows, 4], (0, &[4, h, 1]), (at, &[4 * rows, 4, 1]));
                    strided_copy(gpu, &copy, &level.w_ih, &weights)?;
                }
                if rest > 0 {
                    let copy = span(&[rows, rest], (4 * whole, &[h, 1]), (at + 4 * whole * rows, &[4, 1]));
                    strided_copy(gpu, &copy, &level.w_ih, &weights)?;
                }
            }
            // The layers' own layout, with less padding.
            strided_copy(gpu, &span(&[part], (0, &[1]), ((2 * n + 1) * part, &[1])), &level.w_hh, &weights)?;
            strided_copy(gpu, &span(&[rows], (0, &[1]), (n * more, &[1])), &level.bias, &extra)?;
            if level.code.extra {
                let count = level.extra.shape().count();
                strided_copy(gpu, &span(&[count], (0, &[1]), (n * more + rows, &[1])), &level.extra, &extra)?;
            }
        }
        let code = CellCode { extra: levels.iter().any(|l| l.code.extra), ..*code };
        Ok(Self { layers: levels.len(), code, weights, extra })
    }

    /// Whether the layers would otherwise run by `step`, one after the other.
    pub(crate) fn is_chosen(levels: &[&GpuLayer], call: &Call<'_>, strategy: Strategy) -> bool {
        let bottom = levels[0];
        debug_assert!(matches!(bottom.kernels, Kernels::Fused));
        let Sizes { batch, timesteps, .. } = call.sizes;
        2 * wave(&call.sizes).iterations() <= bottom.gpu.max_loop_iterations()
            && !call.reading_order
            && levels.iter().all(|l| l.code.weights == bottom.code.weights)
            && bottom.choose(strategy, batch, timesteps).is_ok_and(|c| c.strategy() == Strategy::Step)
    }

    /// Runs a call. States are `[L, B, H]`. `bottom` is the first layer, which computes the input projection.
    pub(crate) fn forward(&self, bottom: &GpuLayer, call: &Call<'_>) -> Result<RecurrentOutput> {
        let Input::Features(x) = call.input else { unreachable!("ids are looked up by one layer alone") };
        let sizes = &call.sizes;
        let gpu = &bottom.gpu;
        let device = Device::Gpu(gpu.clone());
        let Sizes { batch: b, timesteps: t, hidden: h, input: i, .. } = *sizes;
        let (shape, y_batch, y_time) = sizes.output(call.time_major)?;
        let uninit = |shape: Shape| Tensor::gpu_uninit(gpu, shape, DType::F32, FORWARD);
        let y = match call.outputs {
            Outputs::Last => None,
            Outputs::All => Some(uninit(shape)?),
        };
        // Bound where nothing is read or written. Each binding has its own, because no buffer that a kernel may write
        // can be bound twice.
        let spare = || uninit(Shape::new(&[1]).expect("one element"));
        let step = wave(sizes);
        let (batch_tile, k4) = (step.batch_tile, step.k4);
        let code = CellCode { valid: valid_by(call), ..self.code };
        let pipeline = gpu.pipeline(&step.wave(&code))?;

        let rows = self.layers * b;
        let width = 4 * k4 as usize;
        let state = Shape::new(&[self.layers, b, h]).expect("smaller than tensors that exist");
        // The current h and the next, which swap after every dispatch.
        let zeros = || Tensor::zeros(&[rows, width], DType::F32, &device);
        let h_state = [zeros()?, zeros()?];
        if let Some(h0) = call.h0 {
            strided_copy(gpu, &span(&[rows, h], (0, &[h, 1]), (0, &[width, 1])), h0, &h_state[0])?;
        }
        let is_lstm = self.code.cell.kind.has_cell_state();
        let c = match call.c0 {
            // A copy, because the kernel overwrites it.
            Some(c) => c.slice(0, 0..self.layers)?,
            None if is_lstm => Tensor::zeros(&state, DType::F32, &device)?,
            None => spare()?,
        };

        let row = bottom.gates * h;
        let budget = (call.projection_budget as u64).min(gpu.max_buffer_bytes()) as usize;
        let chunk = (budget / (b * row * 4)).clamp(1, t);
        let shape = Shape::new(&[chunk, b, row]).ok_or_else(|| recurve_tensor::Error::TooLarge {
            operation: FORWARD,
            bytes: (b * row * 4) as u64,
            limit: gpu.max_buffer_bytes(),
            device: gpu.summary().name.clone(),
        })?;
        let projection = uninit(shape)?;
        let (sb, st) = if call.time_major { (i, b * i) } else { (t * i, i) };
        let valid = call.valid.tensor().unwrap_or(&self.extra);
        let written = match &y {
            Some(y) => y.clone(),
            None => spare()?,
        };
        let buffers = |now: usize| {
            [
                projection.gpu_buffer(),
                self.weights.gpu_buffer(),
                self.extra.gpu_buffer(),
                valid.gpu_buffer(),
                h_state[now].gpu_buffer(),
                h_state[1 - now].gpu_buffer(),
                c.gpu_buffer(),
                written.gpu_buffer(),
            ]
        };
        let groups = [step.hidden.div_ceil(UNIT_TILE), (b as u32).div_ceil(batch_tile), self.layers as u32];
        let work = (2 * self.layers * b * row * h) as u64;
        let waves = t + self.layers - 1;
        for s in 0..waves {
            let first = s / chunk * chunk;
            if s < t && s == first {
                strided_matmul(
                    gpu,
                    &StridedMatmul {
                        a: x,
                        m: chunk.min(t - first) * b,
                        k: i,
                        a_inner: b,
                        a_outer_stride: st,
                        a_inner_stride: sb,
                        a_offset: first * st,
                        w: &bottom.w_ih,
                        w_offset: 0,
                        n: row,
                        bias: &bottom.bias,
                        bias_offset: 0,
                        out: &projection,
                        out_offset: 0,
                    },
                )?;
            }
            let p = params::Recurrent {
                steps: 1,
                first_step: s as u32,
                timesteps: t as u32,
                batch: b as u32,
                chunk_first: first as u32,
                chunk_steps: chunk as u32,
                y_batch: y_batch as u32,
                y_time: y_time as u32,
                flags: Flags { writes_y: y.is_some(), repeats: call.valid.repeats(), ..Flags::default() }.bits(),
                directions: self.layers as u32,
                ..Default::default()
            };
            gpu.record(Dispatch {
                pipeline: &pipeline,
                buffers: &buffers(s % 2),
                params: bytemuck::bytes_of(&p),
                groups,
                work,
            })?;
        }
        let last = uninit(state)?;
        strided_copy(gpu, &span(&[rows, h], (0, &[width, 1]), (0, &[h, 1])), &h_state[waves % 2], &last)?;
        Ok(RecurrentOutput { y, h: last, c: is_lstm.then_some(c), strategy: Strategy::Step })
    }
}

/// The layout of a wavefront.
fn wave(sizes: &Sizes) -> Step {
    let (hidden, batch_tile) = (sizes.hidden as u32, sizes.batch.min(4).next_power_of_two() as u32);
    let k4 = CellCode::k4(hidden, K_SPLIT);
    Step { hidden, k4, unit_tile: UNIT_TILE, k_split: K_SPLIT, batch_tile, k_unroll: 1 }
}
