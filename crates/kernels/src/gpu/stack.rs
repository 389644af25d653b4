//! Stacked layers as a wavefront (`stack_wave.wgsl`): in T + L - 1 dispatches, layer l a timestep behind the
//! one below, where one after the other they would take L · T.

use super::{GpuLayer, Kernels, cell_code, packed, valid_by};
use crate::recurrent::{Sizes, gpu_dtype};
use crate::{CellKind, Direction, ForwardArgs, MaskedOutput, Outputs, RecurrentConfig, RecurrentOutput, Strategy};
use recurve_shaders::{CellCode, Step, params};
use recurve_tensor::cpu::host;
use recurve_tensor::kernel::{Dispatch, GpuKernels, Span, StridedMatmul, TensorKernels, strided_copy, strided_matmul};
use recurve_tensor::{DType, Device, MAX_RANK, Result, Shape, Tensor};

/// Layers of one direction, each reading what the one below returns.
#[derive(Debug)]
pub(crate) struct GpuStack {
    layers: usize,
    code: CellCode,
    /// `[L, 2, K4, G, H, 4]`
    weights: Tensor,
    /// Biases and what else a cell adds, `[L, G + 3, H]`.
    extra: Tensor,
}

/// Vec4s of k are padded to this, which the slices divide.
const K_SPLIT: u32 = 4;
const UNIT_TILE: u32 = 16;

impl GpuStack {
    /// Whether these layers can run as a wavefront: forwards, all of one fused cell and size.
    pub(crate) fn fits(layers: &[RecurrentConfig<'_>]) -> bool {
        let first = &layers[0];
        let cell = first.cell;
        let fused = match cell.kind {
            CellKind::Rnn | CellKind::Lstm { .. } => true,
            CellKind::Gru { reset_after } => reset_after,
            _ => false,
        };
        fused
            && layers.len() > 1
            && cell.projection.is_none()
            && cell.layer_norm.is_none()
            && layers.iter().enumerate().all(|(n, l)| {
                l.cell == cell
                    && l.second_cell.is_none()
                    && l.hidden_size == first.hidden_size
                    && l.weights == first.weights
                    && (n == 0 || l.input_size == l.hidden_size)
                    && matches!(l.directions, [(Direction::Forward, _)])
            })
    }

    pub(crate) fn new(layers: &[RecurrentConfig<'_>], gpu: &recurve_tensor::gpu::Gpu) -> Result<Self> {
        let device = Device::Gpu(gpu.clone());
        let (h, g) = (layers[0].hidden_size, layers[0].cell.kind.gates());
        let k4 = CellCode::k4(h as u32, K_SPLIT) as usize;
        // Zeros where the first layer's input weights would stand.
        let mut weights = host::<f32>("RecurrentStack::new", layers.len() * 2 * 4 * k4 * g * h)?;
        let (mut extra, mut has_extra) = (Vec::new(), false);
        for (n, layer) in layers.iter().enumerate() {
            let w = layer.directions[0].1;
            let part = 4 * k4 * g * h;
            if n > 0 {
                weights[2 * n * part..][..part].copy_from_slice(&packed(&[&w.w_ih], g * h, h, k4)?);
            }
            weights[(2 * n + 1) * part..][..part].copy_from_slice(&packed(&[&w.w_hh], g * h, h, k4)?);
            let kind = layer.cell.kind;
            extra.extend((0..g * h).map(|r| w.projection_bias(kind, h, r)));
            let more = extra.len();
            match kind {
                CellKind::Gru { .. } => extra.extend((0..h).map(|j| w.separate_bias(kind, h, j))),
                _ => extra.extend_from_slice(&w.peepholes),
            }
            extra.resize(more + 3 * h, 0.0);
            has_extra |= extra[more..].iter().any(|&v| v != 0.0);
        }
        let tensor = |v: &[f32]| Tensor::from_f32(v, &[v.len()], &device);
        let dtype = gpu_dtype(layers[0].weights, &gpu.summary().name)?;
        Ok(Self {
            layers: layers.len(),
            code: cell_code(layers[0].cell, has_extra, dtype),
            weights: tensor(&weights)?.to_dtype(dtype)?,
            extra: tensor(&extra)?,
        })
    }

    /// Whether the layers would run by `step` one after the other.
    pub(crate) fn is_chosen(&self, bottom: &GpuLayer, args: &ForwardArgs<'_>, sizes: &Sizes) -> bool {
        debug_assert!(matches!(bottom.kernels, Kernels::Fused));
        let runs = 2 * wave(sizes).iterations() <= bottom.gpu.max_loop_iterations();
        let by_rule = |s| bottom.choose(s, sizes.batch, sizes.timesteps).is_ok_and(|c| c.strategy() == Strategy::Step);
        runs && args.candidate.is_none()
            && args.tuning == crate::Tuning::Rule
            && !args.reading_order
            && by_rule(args.strategy)
    }

    /// States are `[L, B, H]`. `bottom` is the first layer, for its input product.
    pub(crate) fn forward(
        &self,
        bottom: &GpuLayer,
        x: &Tensor,
        args: &ForwardArgs<'_>,
        sizes: &Sizes,
    ) -> Result<RecurrentOutput> {
        let gpu = &bottom.gpu;
        let device = Device::Gpu(gpu.clone());
        let Sizes { batch: b, timesteps: t, hidden: h, input: i, .. } = *sizes;
        let (shape, y_batch, y_time) = sizes.output(args.time_major)?;
        let uninit = |shape: Shape| Tensor::gpu_uninit(gpu, shape, DType::F32, "RecurrentStack::forward");
        let y = match args.outputs {
            Outputs::Last => None,
            Outputs::All => Some(uninit(shape)?),
        };
        // What is bound where nothing is read or written; no buffer that a kernel may write is bound twice.
        let spare = || uninit(Shape::new(&[1]).expect("one element"));
        let step = wave(sizes);
        let (batch_tile, k4) = (step.batch_tile, step.k4);
        let code = CellCode { valid: valid_by(args), ..self.code };
        let pipeline = gpu.pipeline(&step.wave(&code))?;

        let rows = self.layers * b;
        let width = 4 * k4 as usize;
        let state = Shape::new(&[self.layers, b, h]).expect("smaller than tensors that exist");
        let dense = Shape::new(&[rows, h]).expect("smaller than tensors that exist");
        let strides = |row: usize| {
            let mut s = [0; MAX_RANK];
            s[..2].copy_from_slice(&[row, 1]);
            s
        };
        // The current h and the next, in turn.
        let zeros = || Tensor::zeros(&[rows, width], DType::F32, &device);
        let h_state = [zeros()?, zeros()?];
        if let Some(h0) = args.h0 {
            let span =
                Span { shape: dense, source: 0, source_strides: strides(h), target: 0, target_strides: strides(width) };
            strided_copy(gpu, &span, h0, &h_state[0])?;
        }
        let is_lstm = self.code.cell.kind.has_cell_state();
        let c = match args.c0 {
            // A copy, for the kernel updates it in place.
            Some(c) => c.slice(0, 0..self.layers)?,
            None if is_lstm => Tensor::zeros(&state, DType::F32, &device)?,
            None => spare()?,
        };

        let row = bottom.gates * h;
        let budget = (args.projection_budget as u64).min(gpu.max_buffer_bytes()) as usize;
        let chunk = (budget / (b * row * 4)).clamp(1, t);
        let shape = Shape::new(&[chunk, b, row]).ok_or_else(|| recurve_tensor::Error::TooLarge {
            operation: "RecurrentStack::forward",
            bytes: (b * row * 4) as u64,
            limit: gpu.max_buffer_bytes(),
            device: gpu.summary().name.clone(),
        })?;
        let projection = uninit(shape)?;
        let (sb, st) = if args.time_major { (i, b * i) } else { (t * i, i) };
        let valid = args.lengths.or(args.mask).unwrap_or(&self.extra);
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
                flags: u32::from(y.is_some())
                    | u32::from(args.mask.is_some() && args.masked_output == MaskedOutput::Repeat) << 6,
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
        let span =
            Span { shape: dense, source: 0, source_strides: strides(width), target: 0, target_strides: strides(h) };
        strided_copy(gpu, &span, &h_state[waves % 2], &last)?;
        Ok(RecurrentOutput { y, h: last, c: is_lstm.then_some(c), strategy: Strategy::Step })
    }
}

/// How a wave is laid out.
fn wave(sizes: &Sizes) -> Step {
    let (hidden, batch_tile) = (sizes.hidden as u32, sizes.batch.min(4).next_power_of_two() as u32);
    let k4 = CellCode::k4(hidden, K_SPLIT);
    Step { hidden, k4, unit_tile: UNIT_TILE, k_split: K_SPLIT, batch_tile, k_unroll: 1 }
}
