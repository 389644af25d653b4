//! Recurrent layers with their gradients on a GPU (`train_scan.wgsl`, `train_scan_back.wgsl`, `train_forward.wgsl`,
//! `train_backward.wgsl`, `train_norm.wgsl`, `train_input.wgsl`).
//!
//! The input product of all timesteps comes first. For the usual cells the timesteps follow in dispatches that contain
//! their products (`scan.rs`). For the others, a timestep is one product for each direction and one dispatch for both of
//! what is within units; cells with a second product within a timestep have two. After the backward pass the gradients
//! of weights and input are products over all timesteps.

mod backward;
mod forward;
mod scan;

pub(crate) use backward::backward;
pub(crate) use forward::forward;

use super::span;
use crate::call::ValidSteps;
use crate::training::{TrainingCall, TrainingWeights, keeps_sums};
use crate::{CellKind, Direction};
use recurve_shaders::params::{self, Flags};
use recurve_shaders::{CellCode, Element, TrainScan, Training, Valid, Variant};
use recurve_tensor::gpu::Gpu;
use recurve_tensor::kernel::{
    Dispatch, GpuKernels, Pipeline, StridedMatmul, TensorKernels, strided_copy, strided_matmul_within,
};
use recurve_tensor::{DType, Device, Error, Result, Shape, Tensor, concat};
use std::sync::Arc;

/// What both passes of a call use.
struct Plan<'a> {
    gpu: &'a Gpu,
    operation: &'static str,
    call: &'a TrainingCall<'a>,
    kernels: Training,
    params: params::Recurrent,
    /// Weights that are vectors and what was drawn; see `shared/training.wgsl`.
    extra: Tensor,
    /// The bias of products without one.
    zeros: Tensor,
    /// Any buffers to bind where a kernel writes nothing.
    spare: [Tensor; 2],
    /// The layouts of both passes if the products are part of the dispatches.
    scans: Option<[TrainScan; 2]>,
    /// Directions, timesteps, batch rows, hidden units, elements of h, gates.
    d: usize,
    t: usize,
    b: usize,
    h: usize,
    w: usize,
    g: usize,
}

impl<'a> Plan<'a> {
    fn new(gpu: &'a Gpu, operation: &'static str, call: &'a TrainingCall<'a>, writes_y: bool) -> Result<Self> {
        let (cell, h, w) = (call.cell, call.hidden, call.width);
        let (d, t, b) = (call.directions.len(), call.timesteps, call.batch);
        let valid = match call.valid {
            ValidSteps::All => Valid::All,
            ValidSteps::Lengths(_) => Valid::Lengths,
            ValidSteps::Mask(..) => Valid::Mask,
        };
        let separate = cell.kind.separate_bias().is_some() && call.weights.iter().any(|w| w.b_hh.is_some());
        let lanes = (h as u32).next_power_of_two().clamp(32, 256).min(1 << gpu.max_workgroup_lanes().ilog2());
        let kernels = Training {
            code: CellCode { cell, extra: separate, valid, weights: Element::F32 },
            hidden: h as u32,
            workgroup: lanes,
            sums: keeps_sums(&cell),
            dropout: call.recurrent_dropout.map_or(0, |t| t.dims()[1] as u32),
            drawn_h: call.zoneout_h.is_some(),
            drawn_c: call.zoneout_c.is_some(),
        };
        let device = Device::Gpu(gpu.clone());
        // A lane of a normalization passes over its part of a row three times and adds sums up.
        let of_norm = cell.layer_norm.map_or(0, |_| 3 * (cell.kind.gates() * h).div_ceil(64) as u32 + 32);
        if kernels.iterations().max(of_norm) > gpu.max_loop_iterations() {
            let feature = "rows this wide in one workgroup";
            return Err(Error::Unsupported { operation, feature, device: device.to_string() });
        }
        let scans = scan::chosen(gpu, operation, call, &kernels)?;
        let zeros = |n: usize| Tensor::zeros(&[n], DType::F32, &device);
        let flat = |t: &Tensor| t.reshape(&[t.shape().count()]);
        let mut parts: Vec<Tensor> = Vec::new();
        if kernels.extra() > 0 {
            for own in call.weights {
                match cell.kind {
                    CellKind::Lstm { .. } => {
                        parts.push(own.peepholes.map_or_else(|| zeros(3 * h), |t| Ok(t.clone()))?);
                        parts.push(own.norm_c.map_or_else(|| zeros(2 * h), flat)?);
                    }
                    CellKind::Gru { .. } => {
                        parts.push(own.b_hh.map_or_else(|| zeros(h), |t| t.slice(0, 2 * h..3 * h))?);
                    }
                    _ => parts.extend(own.w_hh.cloned()),
                }
            }
        }
        let mut at: usize = parts.iter().map(|t| t.shape().count()).sum();
        let places = [call.zoneout_h, call.zoneout_c, call.recurrent_dropout].map(|drawn| {
            let first = at as u32;
            at += drawn.map_or(0, |t| t.shape().count());
            first
        });
        for drawn in [call.zoneout_h, call.zoneout_c, call.recurrent_dropout].into_iter().flatten() {
            parts.push(flat(drawn)?);
        }
        if parts.is_empty() {
            parts.push(zeros(1)?);
        }
        let extra = if parts.len() == 1 { parts.remove(0) } else { concat(&parts.iter().collect::<Vec<_>>(), 0)? };
        let flags = Flags {
            writes_y,
            reading_order: call.reading_order,
            reverse: [0, 1].map(|n| call.directions.get(n) == Some(&Direction::Reverse)),
            repeats: call.valid.repeats(),
            ..Flags::default()
        };
        let columns = d * w;
        let (y_batch, y_time) = if call.time_major { (columns, b * columns) } else { (t * columns, columns) };
        let spare = || Tensor::gpu_uninit(gpu, Shape::new(&[1]).expect("one element"), DType::F32, operation);
        Ok(Self {
            gpu,
            operation,
            call,
            kernels,
            params: params::Recurrent {
                steps: 1,
                timesteps: t as u32,
                batch: b as u32,
                chunk_steps: t as u32,
                y_batch: y_batch as u32,
                y_time: y_time as u32,
                flags: flags.bits(),
                directions: d as u32,
                zoneout_h: places[0],
                zoneout_c: places[1],
                dropout: places[2],
                spread: if kernels.is_whole() { 1 } else { (h as u32).div_ceil(lanes) },
                ..Default::default()
            },
            extra,
            zeros: zeros(cell.kind.gates() * h)?,
            spare: [spare()?, spare()?],
            scans,
            d,
            t,
            b,
            h,
            w,
            g: cell.kind.gates(),
        })
    }

    /// A tensor to be filled.
    fn uninit(&self, dims: &[usize]) -> Result<Tensor> {
        let shape = Shape::new(dims).ok_or_else(|| Error::TooLarge {
            operation: self.operation,
            bytes: dims.iter().fold(4, |n, &d| n.saturating_mul(d as u64)),
            limit: self.gpu.max_buffer_bytes(),
            device: self.gpu.summary().name.clone(),
        })?;
        Tensor::gpu_uninit(self.gpu, shape, DType::F32, self.operation)
    }

    /// The lengths or the mask; any buffer to bind if all timesteps are valid.
    fn valid(&self) -> &Tensor {
        self.call.valid.tensor().unwrap_or(&self.extra)
    }

    fn device(&self) -> Device {
        Device::Gpu(self.gpu.clone())
    }

    fn reverse(&self, dir: usize) -> bool {
        self.call.directions[dir] == Direction::Reverse
    }

    /// The timestep of step `s` of a direction.
    fn time(&self, dir: usize, s: usize) -> usize {
        if self.reverse(dir) { self.t - 1 - s } else { s }
    }

    /// Records `train_forward` or `train_backward` for step `s`.
    fn step(&self, pipeline: &Arc<Pipeline>, buffers: [&Tensor; 8], s: usize) -> Result<()> {
        let buffers = buffers.map(|t| t.gpu_buffer());
        let most = self.gpu.max_workgroups() as usize;
        for first in (0..self.b).step_by(most) {
            let rows = most.min(self.b - first);
            let p = params::Recurrent { first_step: s as u32, first_row: first as u32, ..self.params };
            self.gpu.record(Dispatch {
                pipeline,
                buffers: &buffers,
                params: bytemuck::bytes_of(&p),
                groups: [rows as u32, self.d as u32, p.spread],
                work: (self.d * rows * self.g * self.h) as u64,
            })?;
        }
        Ok(())
    }

    /// Records a product of the batch rows of one timestep, `out = a · wᵀ`: rows of `n` and of `k` elements.
    fn multiply(&self, a: Rows<'_>, w: Rows<'_>, out: Rows<'_>, [n, k]: [usize; 2]) -> Result<()> {
        let product = StridedMatmul {
            a: a.of,
            m: self.b,
            k,
            a_inner: self.b,
            a_outer_stride: 0,
            a_inner_stride: a.stride,
            a_offset: a.first,
            w: w.of,
            w_offset: w.first,
            n,
            bias: &self.zeros,
            bias_offset: 0,
            out: out.of,
            out_offset: out.first,
        };
        strided_matmul_within(self.gpu, &product, [w.stride, out.stride])
    }

    /// Records `train_norm` for `rows` rows, of which the first is the first batch row of a timestep of a direction.
    /// `side` is 0 for the sums of the input and 1 for the recurrent ones.
    /// With a `goal` it is the backward pass, whose gradients go there.
    fn norm(
        &self,
        affine: &Tensor,
        norms: &Tensor,
        table: Rows<'_>,
        goal: Option<usize>,
        [dir, time, rows, side]: [usize; 4],
    ) -> Result<()> {
        let pipeline = self.gpu.pipeline(&self.kernels.layer_norm(goal.is_some()))?;
        let width = self.g * self.h;
        let first = (dir * self.t + time) * self.b * (2 * width + 2);
        let groups_x = (rows as u32).min(self.gpu.max_workgroups());
        let p = params::TrainNorm {
            rows: rows as u32,
            groups_x,
            width: width as u32,
            batch: self.b as u32,
            timesteps: self.t as u32,
            first_time: time as u32,
            source: table.first as u32,
            goal: goal.unwrap_or(0) as u32,
            stride: table.stride as u32,
            standard: (first + side * width) as u32,
            scale: (first + 2 * width + side) as u32,
            norm_stride: (2 * width + 2) as u32,
            epsilon: self.call.cell.layer_norm.unwrap_or(0.0),
            ..Default::default()
        };
        let buffers = [affine, self.valid(), table.of, norms].map(|t| t.gpu_buffer());
        self.gpu.record(Dispatch {
            pipeline: &pipeline,
            buffers: &buffers,
            params: bytemuck::bytes_of(&p),
            groups: [groups_x, (rows as u32).div_ceil(groups_x), 1],
            work: 3 * (rows * width) as u64,
        })
    }

    /// Gain and offset of both normalizations of a direction, with the biases added to the offsets.
    fn affines(&self, own: &TrainingWeights<&Tensor>) -> Result<[Tensor; 2]> {
        let of = |norm: Option<&Tensor>, bias: Option<&Tensor>| {
            let norm = norm.expect("checked: a cell with layer normalization has gains and offsets");
            let Some(bias) = bias else { return Ok(norm.clone()) };
            let (gain, offset) = (norm.slice(0, 0..1)?, norm.slice(0, 1..2)?);
            concat(&[&gain, &offset.add(bias)?], 0)
        };
        Ok([of(own.norm_ih, own.b_ih)?, of(own.norm_hh, own.b_hh)?])
    }

    /// The recurrent products of h in a timestep: the first gate of each and the number of its gates. Gates that read h
    /// with other factors have products of their own.
    fn parts(&self) -> Vec<(usize, usize)> {
        match self.kernels.products() as usize {
            0 => Vec::new(),
            n if self.kernels.dropout > 1 => (0..n).map(|gate| (gate, 1)).collect(),
            n => vec![(0, n)],
        }
    }

    /// The recurrent matrix of a direction, `[G·H, W]`; that of an sLSTM with zeros outside of its heads.
    fn w_hh(&self, own: &TrainingWeights<&Tensor>) -> Result<Tensor> {
        let matrix = own.w_hh.expect("checked: cells with a recurrent product have a matrix");
        let columns = self.call.cell.kind.columns(self.w);
        if columns == self.w {
            return Ok(matrix.clone());
        }
        let heads = self.w / columns;
        let same: Vec<f32> = (0..heads * heads).map(|n| f32::from(u8::from(n / heads == n % heads))).collect();
        let same = Tensor::from_f32(&same, &[1, heads, 1, heads, 1], &self.device())?;
        let zero = Tensor::zeros(&[1], DType::F32, &self.device())?;
        let matrix = matrix.reshape(&[self.g, heads, columns, 1, columns])?;
        same.select(&matrix, &zero)?.reshape(&[self.g * self.h, self.w])
    }

    /// The input with time first, `[T·B, I]`, without what stands at timesteps that are not valid.
    fn input(&self) -> Result<Tensor> {
        let &TrainingCall { x, input: i, time_major, .. } = self.call;
        let (t, b) = (self.t, self.b);
        if matches!(self.call.valid, ValidSteps::All) {
            let x = if time_major { x.clone() } else { x.transpose(&[1, 0, 2])? };
            return x.reshape(&[t * b, i]);
        }
        let out = self.uninit(&[t * b, i])?;
        let pipeline = self.gpu.pipeline(&self.kernels.input())?;
        let groups = (t * b * i).div_ceil(Variant::ELEMENTWISE_LANES as usize);
        let groups_x = groups.min(self.gpu.max_workgroups() as usize);
        let (row_stride, time_stride) = if time_major { (i, b * i) } else { (t * i, i) };
        let p = params::TrainInput {
            count: (t * b * i) as u32,
            groups_x: groups_x as u32,
            width: i as u32,
            batch: b as u32,
            timesteps: t as u32,
            row_stride: row_stride as u32,
            time_stride: time_stride as u32,
            unused: 0,
        };
        self.gpu.record(Dispatch {
            pipeline: &pipeline,
            buffers: &[x.gpu_buffer(), self.valid().gpu_buffer(), out.gpu_buffer()],
            params: bytemuck::bytes_of(&p),
            groups: [groups_x as u32, groups.div_ceil(groups_x) as u32, 1],
            work: (t * b * i) as u64,
        })?;
        Ok(out)
    }

    /// Copies the states of all batch rows, `[B, width]`, from element `from` to element `to`.
    fn copy(&self, source: &Tensor, from: usize, out: &Tensor, to: usize, width: usize) -> Result<()> {
        strided_copy(self.gpu, &span(&[self.b * width], (from, &[1]), (to, &[1])), source, out)
    }
}

/// Rows of a tensor, from an element on.
#[derive(Clone, Copy)]
struct Rows<'a> {
    of: &'a Tensor,
    first: usize,
    stride: usize,
}

fn rows(of: &Tensor, first: usize, stride: usize) -> Rows<'_> {
    Rows { of, first, stride }
}
