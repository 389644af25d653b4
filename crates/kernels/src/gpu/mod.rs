//! Recurrent layers on a GPU: packed weights, the input projection, and the choice of strategy.

mod scan;
mod step;

use crate::recurrent::Sizes;
use crate::{Cell, CellKind, Direction, ForwardArgs, Outputs, RecurrentConfig, RecurrentOutput, Strategy};
use recurve_shaders::{CellCode, Element, Family, params};
use recurve_tensor::gpu::Gpu;
use recurve_tensor::{
    AdapterKind, DType, Device, Error, Result, Shape, StridedMatmul, Tensor, activation_code, strided_matmul,
};

/// A layer's weights as the kernels read them.
#[derive(Debug)]
pub(crate) struct GpuLayer {
    gpu: Gpu,
    code: CellCode,
    gates: usize,
    hidden: usize,
    /// `[D, G·H, I]`
    w_ih: Tensor,
    /// What is added to the projection, `[D, G·H]`.
    bias: Tensor,
    /// `[D, K4, G, H, 4]`
    w_hh: Tensor,
    /// Peepholes `[D, 3, H]` or recurrent bias `[D, H]`; one zero where there is neither.
    extra: Tensor,
}

/// The number of vec4 of k is padded to this, which every unrolling and slicing divides.
const K4_MULTIPLE: u32 = 8;

/// One kernel launch's share of a sequence, in reading order.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    first: usize,
    steps: usize,
}

/// What the strategies share in one call.
struct Run<'a> {
    layer: &'a GpuLayer,
    sizes: &'a Sizes,
    lengths: Option<&'a Tensor>,
    /// The outputs, or anything to bind where there are none.
    y: &'a Tensor,
    params: params::Recurrent,
}

impl GpuLayer {
    pub(crate) fn new(config: &RecurrentConfig<'_>, gpu: &Gpu) -> Result<Self> {
        let device = Device::Gpu(gpu.clone());
        let (i, h) = (config.input_size, config.hidden_size);
        let kind = config.cell.kind;
        let g = kind.gates();
        let d = config.directions.len();
        let k4 = CellCode::k4(h as u32, K4_MULTIPLE) as usize;
        let mut w_ih = Vec::with_capacity(d * g * h * i);
        let mut bias = Vec::with_capacity(d * g * h);
        let mut w_hh = vec![0.0; d * k4 * g * h * 4];
        let mut extra = Vec::new();
        for (n, (_, w)) in config.directions.iter().enumerate() {
            w_ih.extend_from_slice(&w.w_ih);
            let at = |b: &[f32], r: usize| b.get(r).copied().unwrap_or(0.0);
            let separate = kind == CellKind::Gru { reset_after: true };
            bias.extend((0..g * h).map(|r| at(&w.b_ih, r) + if separate && r >= 2 * h { 0.0 } else { at(&w.b_hh, r) }));
            if separate {
                extra.extend((2 * h..3 * h).map(|r| at(&w.b_hh, r)));
            } else if matches!(kind, CellKind::Lstm { .. }) {
                extra.extend((0..3 * h).map(|r| at(&w.peepholes, r)));
            }
            for (row, values) in w.w_hh.chunks_exact(h).enumerate() {
                for (k, &v) in values.iter().enumerate() {
                    w_hh[(((n * k4 + k / 4) * g * h) + row) * 4 + k % 4] = v;
                }
            }
        }
        let has_extra = extra.iter().any(|&v| v != 0.0);
        if !has_extra {
            extra = vec![0.0];
        }
        let tensor = |data: &[f32]| Tensor::from_f32(data, &[data.len()], &device);
        Ok(Self {
            gpu: gpu.clone(),
            code: cell_code(&config.cell, has_extra)?,
            gates: g,
            hidden: h,
            w_ih: tensor(&w_ih)?,
            bias: tensor(&bias)?,
            w_hh: tensor(&w_hh)?,
            extra: tensor(&extra)?,
        })
    }

    pub(crate) fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    fn k4(&self) -> u32 {
        CellCode::k4(self.hidden as u32, K4_MULTIPLE)
    }

    /// The strategy for this size, or why the one asked for cannot run.
    ///
    /// The rule: `scan` while a step is short. One workgroup reads all of `W_hh` at every step, so
    /// on hardware its time grows with H² while a dispatch costs a few microseconds whatever its
    /// size; a software rasteriser pays more for a dispatch and its barriers.
    pub(crate) fn choose(&self, wanted: Strategy, batch: usize, timesteps: usize) -> Result<Strategy> {
        let scan = self.scan_geometry(batch, timesteps);
        match (wanted, scan) {
            (Strategy::Step, _) | (Strategy::Auto, None) => Ok(Strategy::Step),
            (Strategy::Scan, Some(_)) => Ok(Strategy::Scan),
            (Strategy::Scan, None) => Err(Error::Argument {
                operation: "Recurrent::forward",
                argument: "strategy",
                message: format!(
                    "`scan` cannot hold {} hidden units in one workgroup of {}",
                    self.hidden,
                    self.gpu.summary().name
                ),
            }),
            (Strategy::Auto, Some(_)) => {
                let software = self.gpu.summary().kind == AdapterKind::Software;
                let longest = if software { 512 } else { 256 };
                Ok(if self.hidden <= longest { Strategy::Scan } else { Strategy::Step })
            }
        }
    }

    pub(crate) fn forward(
        &self,
        x: &Tensor,
        args: &ForwardArgs<'_>,
        sizes: &Sizes,
        directions: &[Direction],
    ) -> Result<RecurrentOutput> {
        let strategy = self.choose(args.strategy, sizes.batch, sizes.timesteps)?;
        let gpu = &self.gpu;
        let Sizes { batch: b, timesteps: t, hidden: h, directions: d, .. } = *sizes;
        let (shape, y_batch, y_time) = sizes.output(args.time_major)?;
        let y = match args.outputs {
            Outputs::Last => None,
            Outputs::All => Some(Tensor::gpu_uninit(gpu, shape, DType::F32, "Recurrent::forward")?),
        };
        let state = |s: Option<&Tensor>| match s {
            // A copy, for the kernels update it in place.
            Some(s) => s.slice(0, 0..d),
            // `scan` is told by a flag that it begins with zeros.
            None if strategy == Strategy::Scan => {
                Tensor::gpu_uninit(gpu, sizes.state_shape(), DType::F32, "Recurrent::forward")
            }
            None => Tensor::zeros(&[d, b, h], DType::F32, &Device::Gpu(gpu.clone())),
        };
        // What a cell without c binds in its place is written before it is read, if at all.
        let c = match self.code.family {
            Family::Lstm { .. } => state(args.c0)?,
            _ => Tensor::gpu_uninit(gpu, sizes.state_shape(), DType::F32, "Recurrent::forward")?,
        };
        let unwritten = Shape::new(&[1]).expect("one element");
        let spare = Tensor::gpu_uninit(gpu, unwritten, DType::F32, "Recurrent::forward")?;
        let row = self.gates * h;
        let per_step = d * b * row * 4;
        let budget = (args.projection_budget as u64).min(gpu.max_buffer_bytes()) as usize;
        let chunk = (budget / per_step).clamp(1, t);
        let shape = Shape::new(&[d, chunk, b, row]).ok_or_else(|| Error::TooLarge {
            operation: "Recurrent::forward",
            bytes: per_step as u64,
            limit: gpu.max_buffer_bytes(),
            device: gpu.summary().name.clone(),
        })?;
        let projection = Tensor::gpu_uninit(gpu, shape, DType::F32, "Recurrent::forward")?;

        let reverse: u32 =
            directions.iter().enumerate().map(|(n, &r)| if r == Direction::Reverse { 4 << n } else { 0 }).sum();
        let run = Run {
            layer: self,
            sizes,
            lengths: args.lengths,
            y: y.as_ref().unwrap_or(&spare),
            params: params::Recurrent {
                timesteps: t as u32,
                batch: b as u32,
                y_batch: y_batch as u32,
                y_time: y_time as u32,
                flags: u32::from(y.is_some())
                    | u32::from(args.reading_order) << 1
                    | reverse
                    | u32::from(args.h0.is_none()) << 4
                    | u32::from(args.c0.is_none()) << 5,
                directions: d as u32,
                ..Default::default()
            },
        };
        let mut project = |c: Chunk| {
            for (n, &direction) in directions.iter().enumerate() {
                let from = match direction {
                    Direction::Forward => c.first,
                    Direction::Reverse => t - c.first - c.steps,
                };
                let (sb, st) =
                    if args.time_major { (sizes.input, b * sizes.input) } else { (t * sizes.input, sizes.input) };
                strided_matmul(
                    gpu,
                    &StridedMatmul {
                        a: x,
                        m: c.steps * b,
                        k: sizes.input,
                        a_inner: b,
                        a_outer_stride: st,
                        a_inner_stride: sb,
                        a_offset: from * st,
                        w: &self.w_ih,
                        w_offset: n * row * sizes.input,
                        n: row,
                        bias: &self.bias,
                        bias_offset: n * row,
                        out: &projection,
                        out_offset: n * c.steps * b * row,
                    },
                )?;
            }
            Ok(())
        };
        let chunks = (0..t).step_by(chunk).map(|first| Chunk { first, steps: chunk.min(t - first) });
        let h = match strategy {
            Strategy::Scan => scan::run(&run, &projection, chunks, &mut project, state(args.h0)?, &c)?,
            _ => step::run(&run, &projection, chunks, &mut project, args.h0, &c)?,
        };
        let c = matches!(self.code.family, Family::Lstm { .. }).then_some(c);
        Ok(RecurrentOutput { y, h, c })
    }
}

fn cell_code(cell: &Cell, extra: bool) -> Result<CellCode> {
    Ok(CellCode {
        family: match cell.kind {
            CellKind::Rnn => Family::Rnn,
            CellKind::Lstm { coupled } => Family::Lstm { coupled },
            CellKind::Gru { reset_after } => Family::Gru { reset_after },
            other => {
                return Err(Error::Argument {
                    operation: "Recurrent::new",
                    argument: "cell",
                    message: format!("{other:?} has no GPU kernel"),
                });
            }
        },
        gate: activation_code(cell.gate)?,
        candidate: activation_code(cell.candidate)?,
        output: activation_code(cell.output)?,
        clip: cell.clip,
        extra,
        lengths: false,
        weights: Element::F32,
    })
}
