//! Recurrent layers on a GPU: packed weights, the input projection, and the choice of strategy.

mod general;
mod grid;
mod layout;
mod pointwise;
mod scan;
mod stack;
mod step;
pub(crate) mod training;
mod tuning;

pub(crate) use layout::Layout;
pub(crate) use stack::Wave;

use crate::call::{Call, Input, Outputs, RecurrentOutput, Sizes, ValidSteps};
use crate::config::{LevelConfig, NEW, WeightsView, Whole, check_int8, to_f16};
use crate::recurrent::TableRows;
use crate::strategy::Strategy;
use crate::{Cell, CellKind, Direction, DirectionWeights, WeightSource, WeightStorage};
use recurve_shaders::params::{self, Flags};
use recurve_shaders::{CellCode, Element, Grid, Kept, Scan, Valid};
use recurve_tensor::cpu::host;
use recurve_tensor::gpu::Gpu;
use recurve_tensor::kernel::{
    Dispatch, GpuKernels, Rows, Span, StridedMatmul, TensorKernels, gather_rows, layer_norm_rows, strided_matmul,
};
use recurve_tensor::{DType, Device, Error, MAX_RANK, Result, Shape, Tensor};
use std::sync::Mutex;

/// The contents of a [`crate::TokenTable`] on a GPU: `[V, G·H]` for each direction.
pub(crate) type TokenRows = Vec<Tensor>;

/// A layer's weights packed for the GPU kernels.
#[derive(Debug)]
pub(crate) struct GpuLayer {
    gpu: Gpu,
    code: CellCode,
    gates: usize,
    hidden: usize,
    /// Number of elements of h.
    width: usize,
    /// Number of features of the input.
    input: usize,
    directions: Vec<Direction>,
    kernels: Kernels,
    /// The layouts found by tuning.
    plans: Mutex<tuning::Plans>,
    /// Input weights, `[D, G·H, I]`.
    w_ih: Tensor,
    /// The bias that is added to the projection, `[D, G·H]`.
    bias: Tensor,
    /// Recurrent weights, `[D, K4, G, H, 4]`; a single zero for cells whose units do not depend on each other.
    w_hh: Tensor,
    /// Further weights: peepholes `[D, 3, H]`, recurrent bias `[D, H]`, u `[D, H]`, or those of `general_*`; a single
    /// zero if there are none.
    extra: Tensor,
}

/// The family of kernels that runs a cell.
#[derive(Debug)]
enum Kernels {
    /// `lstm_*`, `gru_*`, `rnn_*`
    Fused,
    /// `general_*`: with layer normalization or a projection of h.
    General(Box<general::Weights>),
    /// `pointwise_scan`, and `linear_*` for the minimal cells.
    Pointwise,
}

/// The number of vec4s along k is padded to a multiple of this, which all unrolled loops and slices divide.
const K4_MULTIPLE: u32 = 8;

/// The timesteps of one dispatch or projection, in reading order.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    first: usize,
    steps: usize,
}

/// The state of one call that all strategies use.
struct Run<'a> {
    layer: &'a GpuLayer,
    call: &'a Call<'a>,
    code: CellCode,
    /// The outputs; if there are none, any buffer to bind.
    y: Tensor,
    /// The initial c, which the kernels overwrite with the final one; any buffer to bind for cells without c.
    c: Tensor,
    /// The ids in the order of the projection, if the input is ids.
    ids: Option<Tensor>,
    /// The input projection of a chunk, `[D, chunk, B, G·H]`.
    projection: Tensor,
    /// Number of timesteps of a chunk.
    chunk: usize,
    params: params::Recurrent,
}

impl Run<'_> {
    fn gpu(&self) -> &Gpu {
        &self.layer.gpu
    }

    fn sizes(&self) -> &Sizes {
        &self.call.sizes
    }

    /// The lengths or the mask; any buffer to bind if all timesteps are valid.
    fn valid(&self) -> &Tensor {
        self.call.valid.tensor().unwrap_or(&self.layer.extra)
    }

    fn uninit(&self, shape: Shape) -> Result<Tensor> {
        Tensor::gpu_uninit(self.gpu(), shape, DType::F32, FORWARD)
    }

    /// A copy of the initial h, for kernels that overwrite it with the final one.
    fn h(&self) -> Result<Tensor> {
        match self.call.h0 {
            Some(h) => h.slice(0, 0..self.sizes().directions),
            None => Tensor::zeros(&self.sizes().h_shape(), DType::F32, &Device::Gpu(self.gpu().clone())),
        }
    }

    /// Like [`Self::h`], for kernels that take a flag instead of zeros.
    fn h_or_flag(&self) -> Result<Tensor> {
        if self.call.h0.is_some() { self.h() } else { self.uninit(self.sizes().h_shape()) }
    }

    /// The chunks in which the sequence is projected and run.
    fn chunks(&self) -> impl Iterator<Item = Chunk> + use<> {
        let (t, chunk) = (self.sizes().timesteps, self.chunk);
        (0..t).step_by(chunk).map(move |first| Chunk { first, steps: chunk.min(t - first) })
    }

    /// Computes the projection of a chunk.
    fn project(&self, chunk: Chunk) -> Result<()> {
        let (layer, gpu) = (self.layer, self.gpu());
        let Sizes { batch: b, timesteps: t, input: i, .. } = *self.sizes();
        let row = layer.gates * layer.hidden;
        for (n, &direction) in layer.directions.iter().enumerate() {
            let from = match direction {
                Direction::Forward => chunk.first,
                Direction::Reverse => t - chunk.first - chunk.steps,
            };
            let out_offset = n * chunk.steps * b * row;
            let x = match (self.call.input, &self.ids) {
                (Input::Tokens(_, TableRows::Gpu(tables)), Some(ids)) => {
                    let span = from * b..(from + chunk.steps) * b;
                    gather_rows(gpu, &tables[n], ids, span, &self.projection, out_offset)?;
                    continue;
                }
                (Input::Features(x) | Input::Tokens(x, _), _) => x,
            };
            let (sb, st) = if self.call.time_major { (i, b * i) } else { (t * i, i) };
            strided_matmul(
                gpu,
                &StridedMatmul {
                    a: x,
                    m: chunk.steps * b,
                    k: i,
                    a_inner: b,
                    a_outer_stride: st,
                    a_inner_stride: sb,
                    a_offset: from * st,
                    w: &layer.w_ih,
                    w_offset: n * row * i,
                    n: row,
                    bias: &layer.bias,
                    bias_offset: n * row,
                    out: &self.projection,
                    out_offset,
                },
            )?;
            layer.normalize(n, out_offset, chunk.steps * b, &self.projection)?;
        }
        Ok(())
    }

    /// The parameters of a chunk's dispatches, each of at most `most` timesteps.
    fn dispatches(&self, chunk: Chunk, most: usize) -> impl Iterator<Item = params::Recurrent> {
        let end = chunk.first + chunk.steps;
        let params = self.params;
        (chunk.first..end).step_by(most).map(move |first| params::Recurrent {
            steps: most.min(end - first) as u32,
            first_step: first as u32,
            chunk_first: chunk.first as u32,
            chunk_steps: chunk.steps as u32,
            ..params
        })
    }

    /// Projects every chunk and records one kernel for it, at most `most` timesteps per dispatch. Fills in the
    /// parameters of `kernel`, whose `work` is that of one timestep.
    fn record(&self, kernel: &Dispatch<'_>, most: usize) -> Result<()> {
        for chunk in self.chunks() {
            self.project(chunk)?;
            for p in self.dispatches(chunk, most) {
                let work = kernel.work * u64::from(p.steps);
                self.gpu().record(Dispatch { params: bytemuck::bytes_of(&p), work, ..*kernel })?;
            }
        }
        Ok(())
    }

    /// Records a kernel that has one workgroup per row along `axis`, in several dispatches if the device allows fewer
    /// workgroups. The kernel's `work` is that of one timestep of all rows.
    fn record_rows(&self, kernel: &Dispatch<'_>, axis: usize, p: params::Recurrent) -> Result<()> {
        let gpu = self.gpu();
        let most = gpu.max_workgroups();
        for first_row in (0..p.batch).step_by(most as usize) {
            let mut groups = kernel.groups;
            groups[axis] = most.min(p.batch - first_row);
            let p = params::Recurrent { first_row, ..p };
            let share = u64::from(groups[axis]) * u64::from(p.steps);
            let work = kernel.work.saturating_mul(share) / u64::from(p.batch);
            gpu.record(Dispatch { params: bytemuck::bytes_of(&p), groups, work, ..*kernel })?;
        }
        Ok(())
    }
}

/// Largest number of multiply-adds of one workgroup in one dispatch. A slow integrated GPU does about 2e9 per second in
/// one workgroup, and drivers reset a device after about two seconds.
const MAX_WORK: u64 = 1 << 30;

impl GpuLayer {
    pub(crate) fn new(config: &LevelConfig<'_>, gpu: &Gpu) -> Result<Self> {
        let device = Device::Gpu(gpu.clone());
        let directions: Vec<_> = config.directions.iter().map(|(_, w)| stored(w, config)).collect::<Result<_>>()?;
        let weights = gpu_dtype(config.weights, &gpu.summary().name)?;
        let (i, h, cell) = (config.input_size, config.hidden_size, &config.cell);
        let kind = cell.kind;
        let (g, width) = (kind.gates(), cell.state_size(h));
        let tensor = |data: &[f32]| Tensor::from_f32(data, &[data.len().max(1)], &device);
        let spare = |v: Vec<f32>| if v.is_empty() { vec![0.0] } else { v };
        let general = cell.projection.is_some() || cell.layer_norm.is_some();
        let mut w_ih = host::<f32>(NEW, directions.len() * g * h * i)?;
        for (part, w) in w_ih.chunks_exact_mut(g * h * i).zip(&directions) {
            part.copy_from_slice(&w.w_ih);
        }
        let mut bias = Vec::with_capacity(directions.len() * g * h);
        let mut extra = Vec::new();
        for w in &directions {
            if cell.layer_norm.is_some() {
                // With layer normalization the biases are added after it, as part of its offsets.
                bias.resize(bias.len() + g * h, 0.0);
            } else {
                bias.extend((0..g * h).map(|r| w.projection_bias(kind, h, r)));
            }
            match kind {
                _ if general => extra.extend(general::extra(w, kind, h)),
                CellKind::Gru { reset_after: true } => extra.extend((0..h).map(|j| w.separate_bias(kind, h, j))),
                CellKind::Lstm { .. } if cell.peepholes => extra.extend_from_slice(&w.peepholes),
                CellKind::IndRnn => extra.extend_from_slice(&w.w_hh),
                _ => {}
            }
        }
        let kernels = match kind {
            _ if kind.is_pointwise() => Kernels::Pointwise,
            _ if general => Kernels::General(Box::new(general::Weights::new(config, &directions, weights, &device)?)),
            _ => Kernels::Fused,
        };
        let w_hh = match kernels {
            Kernels::Pointwise => Vec::new(),
            _ => {
                let all: Vec<_> = directions.iter().map(|w| &w.w_hh[..]).collect();
                packed(&all, g * h, width, CellCode::k4(width as u32, K4_MULTIPLE) as usize)?
            }
        };
        let has_extra = extra.iter().any(|&v| v != 0.0);
        // The kernels of these cells always read the buffer.
        if !has_extra && !general && kind != CellKind::IndRnn {
            extra.clear();
        }
        Ok(Self {
            gpu: gpu.clone(),
            code: cell_code(*cell, has_extra, weights),
            gates: g,
            hidden: h,
            width,
            input: i,
            directions: config.reading(),
            kernels,
            plans: Mutex::default(),
            w_ih: tensor(&w_ih)?.to_dtype(weights)?,
            bias: tensor(&bias)?,
            w_hh: tensor(&spare(w_hh))?.to_dtype(weights)?,
            extra: tensor(&spare(extra))?,
        })
    }

    fn k4(&self) -> u32 {
        CellCode::k4(self.width as u32, K4_MULTIPLE)
    }

    /// The number of timesteps of one dispatch, at least 1. It is limited by the loop iterations of an invocation (at
    /// the start and per timestep), and by the multiply-adds of a workgroup's timestep and of all workgroups.
    fn steps_per_dispatch(&self, at_start: u32, per_step: u32, work: u64, groups: [u32; 3]) -> usize {
        let by_loops = self.gpu.max_loop_iterations().saturating_sub(at_start) / per_step;
        let all = groups.into_iter().map(u64::from).product::<u64>().saturating_mul(work);
        u64::from(by_loops).min(MAX_WORK / work).min(self.gpu.max_work() / all).max(1) as usize
    }

    /// The multiply-adds of a timestep, for all rows and directions.
    fn step_work(&self, sizes: &Sizes) -> u64 {
        let state = if self.is_pointwise() { 1 } else { sizes.width };
        [sizes.directions, sizes.batch, self.gates, sizes.hidden, state].into_iter().map(|n| n as u64).product()
    }

    fn is_pointwise(&self) -> bool {
        matches!(self.kernels, Kernels::Pointwise)
    }

    /// The number of workgroups of a dispatch of `grid`.
    fn workgroups(&self, grid: &recurve_shaders::Grid, batch: usize) -> u32 {
        self.grid_groups(grid, batch).into_iter().fold(1, u32::saturating_mul)
    }

    /// Refuses a layout of `grid` with more workgroups than were seen to run at the same time.
    fn check_concurrent(&self, grid: &recurve_shaders::Grid, batch: usize) -> Result<()> {
        let needed = self.workgroups(grid, batch);
        // A single workgroup waits for no other.
        let seen = if needed == 1 { 1 } else { self.gpu.concurrent_workgroups()? };
        if needed <= seen {
            return Ok(());
        }
        Err(Error::Argument {
            operation: FORWARD,
            argument: "strategy",
            message: format!(
                "`grid` needs {needed} workgroups at the same time, but only {seen} were seen to do so on {}",
                self.gpu.summary().name
            ),
        })
    }

    /// Whether a lane's share of the weights fits into registers: `k_slice` vec4s of every gate, for each of `lanes`
    /// lanes. On most GPUs a compute unit has 256 KiB of registers, and a lane at most 255 of them. False where long
    /// code is slow to compile, because every weight becomes a variable.
    fn fits_registers(&self, k_slice: u32, lanes: u32) -> bool {
        let each = k_slice * self.gates as u32 * if self.code.weights == Element::F16 { 2 } else { 4 };
        each <= 96 && each * lanes * 4 <= 160 << 10 && !self.gpu.compiles_slowly()
    }

    /// The layouts that may be the fastest for this shape, the default one first. Cells outside the fused family have
    /// one layout per strategy.
    pub(crate) fn layouts(&self, batch: usize, timesteps: usize) -> Result<Vec<Layout>> {
        let mut all = vec![self.choose_by_rule(Strategy::Auto, batch, timesteps)?];
        let mut add = |c: Option<Layout>| all.extend(c.filter(|c| !all.contains(c)));
        if !matches!(self.kernels, Kernels::Fused) {
            for s in [Strategy::Scan, Strategy::Step] {
                add(self.choose_by_rule(s, batch, timesteps).ok());
            }
            return Ok(all);
        }
        for scan in self.scan_geometries(batch, timesteps) {
            add(Some(Layout::Scan(scan)));
        }
        for step in self.step_geometries(batch) {
            add(Some(Layout::Step(step)));
        }
        for unit_tile in [8, 16, 32] {
            if let Some(grid) = self.grid_geometry(batch, unit_tile)
                && self.check_concurrent(&grid, batch).is_ok()
            {
                add(Some(Layout::Grid(grid)));
            }
        }
        Ok(all)
    }

    /// All layouts of [`Self::layouts`], and those that are correct here but never fast: weights in registers on a
    /// software rasteriser, or in memory where registers would hold them. Tests run all of them.
    pub(crate) fn every_layout(&self, batch: usize, timesteps: usize) -> Result<Vec<Layout>> {
        let mut all = self.layouts(batch, timesteps)?;
        let before = self.code.cell.kind == (CellKind::Gru { reset_after: false });
        for layout in all.clone() {
            let other = match layout {
                Layout::Scan(s) if !before && s.units() == 1 && s.kept == Kept::Memory && s.k_slice() <= 8 => {
                    Layout::Scan(Scan { kept: Kept::Registers, ..s })
                }
                Layout::Grid(g) if g.registers || g.k_slice() <= 8 => {
                    Layout::Grid(Grid { registers: !g.registers, ..g })
                }
                _ => continue,
            };
            if !all.contains(&other) {
                all.push(other);
            }
        }
        Ok(all)
    }

    /// Checks that a layout can run with this batch size.
    pub(crate) fn admitted(&self, layout: Layout, batch: usize) -> Result<Layout> {
        if let Layout::Grid(g) = &layout {
            self.check_concurrent(g, batch)?;
        }
        Ok(layout)
    }

    /// The layout for this shape: the one that [`Self::tune`] found, else the default one. An error if the strategy
    /// that was asked for cannot run this shape.
    pub(crate) fn choose(&self, wanted: Strategy, batch: usize, timesteps: usize) -> Result<Layout> {
        match wanted {
            Strategy::Auto => match self.tuned(batch, timesteps) {
                Some(layout) => Ok(layout),
                None => self.choose_by_rule(wanted, batch, timesteps),
            },
            _ => self.choose_by_rule(wanted, batch, timesteps),
        }
    }

    /// The default layout for this shape.
    ///
    /// `scan` is used while a timestep is short. One workgroup reads all of `W_hh` in every timestep, so on a hardware
    /// GPU its time grows with H², while a dispatch costs a few microseconds for every size. On a software rasteriser,
    /// a dispatch and its barriers cost more. `grid` is only used if it is asked for or was found by tuning.
    fn choose_by_rule(&self, wanted: Strategy, batch: usize, timesteps: usize) -> Result<Layout> {
        let cannot = |message: String| Error::Argument {
            operation: FORWARD,
            argument: "strategy",
            message: format!("{message} on {}", self.gpu.summary().name),
        };
        if !matches!(self.kernels, Kernels::Fused) {
            let scan = matches!(self.kernels, Kernels::Pointwise) || self.general_fits();
            return match wanted {
                Strategy::Grid => Err(cannot("`grid` has no kernel for this cell".into())),
                Strategy::Scan if !scan => {
                    Err(cannot(format!("`scan` cannot hold {} hidden units in one workgroup", self.hidden)))
                }
                Strategy::Scan => Ok(Layout::Other(Strategy::Scan)),
                Strategy::Step if !self.general_steps() => Err(cannot(too_long(self.hidden))),
                Strategy::Step => Ok(Layout::Other(Strategy::Step)),
                Strategy::Auto if matches!(self.kernels, Kernels::Pointwise) => Ok(Layout::Other(Strategy::Scan)),
                Strategy::Auto if scan && self.hidden <= self.longest_scan() => Ok(Layout::Other(Strategy::Scan)),
                Strategy::Auto if !self.general_steps() => Err(cannot(too_long(self.hidden))),
                Strategy::Auto => Ok(Layout::Other(Strategy::Step)),
            };
        }
        let step = || match self.step_geometry(batch) {
            s if s.iterations() <= self.gpu.max_loop_iterations() => Ok(Layout::Step(s)),
            _ => Err(cannot(too_long(self.hidden))),
        };
        match wanted {
            Strategy::Step => step(),
            Strategy::Grid => match self.grid_geometry(batch, 16) {
                Some(grid) => self.check_concurrent(&grid, batch).map(|()| Layout::Grid(grid)),
                None => Err(cannot("`grid` has no kernel for this cell or size".into())),
            },
            Strategy::Scan => match self.scan_geometry(batch, timesteps) {
                Some(scan) => Ok(Layout::Scan(scan)),
                None => Err(cannot(format!("`scan` cannot hold {} hidden units in one workgroup", self.hidden))),
            },
            Strategy::Auto if self.hidden > self.longest_scan() => step(),
            Strategy::Auto => self.scan_geometry(batch, timesteps).map_or_else(step, |s| Ok(Layout::Scan(s))),
        }
    }

    /// The largest number of hidden units for which `scan` is the default.
    fn longest_scan(&self) -> usize {
        if self.gpu.is_software() { 512 } else { 256 }
    }

    /// Runs a call with a layout.
    pub(crate) fn forward(&self, layout: Layout, call: &Call<'_>) -> Result<RecurrentOutput> {
        if let Some(out) = self.forward_by(layout, call)? {
            return Ok(out);
        }
        // The workgroups did not run at the same time; `step` does not need that.
        let batch = call.sizes.batch;
        if let Layout::Grid(g) = &layout {
            self.gpu.note_not_concurrent(self.workgroups(g, batch));
        }
        let out = self.forward_by(Layout::Step(self.step_geometry(batch)), call)?;
        Ok(out.expect("only `grid` gives up"))
    }

    /// Normalizes rows of the projection of one direction from element `first` on, if the cell has layer normalization.
    fn normalize(&self, direction: usize, first: usize, rows: usize, projection: &Tensor) -> Result<()> {
        let Kernels::General(weights) = &self.kernels else { return Ok(()) };
        let Some((affine, epsilon)) = &weights.norm_ih else { return Ok(()) };
        let width = self.gates * self.hidden;
        let rows = Rows { first, rows, width, affine_offset: direction * 2 * width, epsilon: *epsilon };
        layer_norm_rows(&self.gpu, &rows, affine, projection)
    }

    /// `E · W_ihᵀ + b` for each direction, normalized if the cell has layer normalization.
    pub(crate) fn token_rows(&self, embeddings: &Tensor) -> Result<TokenRows> {
        let (row, i, v) = (self.gates * self.hidden, embeddings.shape().last(), embeddings.dims()[0]);
        (0..self.directions.len())
            .map(|n| {
                let shape = Shape::new(&[v, row]).ok_or_else(|| Error::TooLarge {
                    operation: "Recurrent::token_table",
                    bytes: u64::MAX,
                    limit: self.gpu.max_buffer_bytes(),
                    device: self.gpu.summary().name.clone(),
                })?;
                let out = Tensor::gpu_uninit(&self.gpu, shape, DType::F32, "Recurrent::token_table")?;
                strided_matmul(
                    &self.gpu,
                    &StridedMatmul {
                        a: embeddings,
                        m: v,
                        k: i,
                        a_inner: v,
                        a_outer_stride: 0,
                        a_inner_stride: i,
                        a_offset: 0,
                        w: &self.w_ih,
                        w_offset: n * row * i,
                        n: row,
                        bias: &self.bias,
                        bias_offset: n * row,
                        out: &out,
                        out_offset: 0,
                    },
                )?;
                self.normalize(n, 0, v, &out)?;
                Ok(out)
            })
            .collect()
    }

    /// Runs a call with a layout; `None` if `grid` gave up.
    fn forward_by(&self, layout: Layout, call: &Call<'_>) -> Result<Option<RecurrentOutput>> {
        let strategy = layout.strategy();
        let gpu = &self.gpu;
        let Sizes { batch: b, timesteps: t, hidden: h, directions: d, .. } = call.sizes;
        let (shape, y_batch, y_time) = call.sizes.output(call.time_major)?;
        let uninit = |shape: Shape| Tensor::gpu_uninit(gpu, shape, DType::F32, FORWARD);
        let y = match call.outputs {
            Outputs::Last => None,
            Outputs::All => Some(uninit(shape)?),
        };
        // Cells without c write the buffer bound in its place before reading it, if they use it at all; `scan` takes a
        // flag instead of zeros.
        let has_c = self.code.cell.kind.has_cell_state();
        let c = match call.c0 {
            // A copy, because the kernels overwrite it.
            Some(c) => c.slice(0, 0..d)?,
            None if has_c && strategy != Strategy::Scan => {
                Tensor::zeros(&call.sizes.c_shape(), DType::F32, &Device::Gpu(gpu.clone()))?
            }
            None => uninit(call.sizes.c_shape())?,
        };
        let row = self.gates * h;
        let per_step = d * b * row * 4 + self.linear_bytes(strategy, d * b);
        let budget = (call.projection_budget as u64).min(gpu.max_buffer_bytes()) as usize;
        let chunk = (budget / per_step).clamp(1, t);
        let shape = Shape::new(&[d, chunk, b, row]).ok_or_else(|| Error::TooLarge {
            operation: FORWARD,
            bytes: per_step as u64,
            limit: gpu.max_buffer_bytes(),
            device: gpu.summary().name.clone(),
        })?;
        let flags = Flags {
            writes_y: y.is_some(),
            reading_order: call.reading_order,
            reverse: [0, 1].map(|n| self.directions.get(n) == Some(&Direction::Reverse)),
            zero_h: call.h0.is_none(),
            zero_c: call.c0.is_none(),
            repeats: call.valid.repeats(),
        };
        let run = Run {
            layer: self,
            call,
            code: CellCode { valid: valid_by(call), ..self.code },
            y: match &y {
                Some(y) => y.clone(),
                None => uninit(Shape::new(&[1]).expect("one element"))?,
            },
            c,
            ids: match call.input {
                Input::Tokens(ids, _) if !call.time_major && b > 1 => Some(ids.transpose(&[1, 0])?),
                Input::Tokens(ids, _) => Some(ids.clone()),
                Input::Features(_) => None,
            },
            projection: uninit(shape)?,
            chunk,
            params: params::Recurrent {
                timesteps: t as u32,
                batch: b as u32,
                y_batch: y_batch as u32,
                y_time: y_time as u32,
                flags: flags.bits(),
                directions: d as u32,
                ..Default::default()
            },
        };
        let h = match (&self.kernels, layout) {
            (Kernels::Fused, Layout::Scan(g)) => scan::run(&run, &g)?,
            (Kernels::Fused, Layout::Step(g)) => step::run(&run, &g)?,
            (Kernels::Fused, Layout::Grid(g)) => match grid::run(&run, &g)? {
                Some(h) => h,
                None => return Ok(None),
            },
            (Kernels::General(w), Layout::Other(Strategy::Scan)) => general::scan(&run, w)?,
            (Kernels::General(w), Layout::Other(_)) => general::step(&run, w)?,
            (Kernels::Pointwise, Layout::Other(s)) => pointwise::run(&run, s)?,
            _ => unreachable!("a layer lists layouts of its own kernels"),
        };
        let c = has_c.then_some(run.c);
        Ok(Some(RecurrentOutput { y, h, c, strategy }))
    }
}

const FORWARD: &str = "Recurrent::forward";

/// The element type of the weight buffers on a GPU.
///
/// # Errors
/// [`Error::Unsupported`] for int8.
fn gpu_dtype(weights: WeightStorage, device: &str) -> Result<DType> {
    match weights {
        WeightStorage::F32 => Ok(DType::F32),
        WeightStorage::F16 => Ok(DType::F16),
        WeightStorage::Int8 => {
            Err(Error::Unsupported { operation: "Recurrent::new", feature: "int8 weights", device: device.to_owned() })
        }
        other => {
            Err(Error::Unsupported { operation: "Recurrent::new", feature: other.name(), device: device.to_owned() })
        }
    }
}

/// The message for a layer that is too large for `step`.
fn too_long(hidden: usize) -> String {
    format!("`step` with {hidden} hidden units takes more loop iterations than an invocation may run")
}

/// How the valid timesteps of a call are given to the kernels.
fn valid_by(call: &Call<'_>) -> Valid {
    match call.valid {
        ValidSteps::All => Valid::All,
        ValidSteps::Lengths(_) => Valid::Lengths,
        ValidSteps::Mask(..) => Valid::Mask,
    }
}

/// A copy between tensors of different layouts: sizes, then the first element and the strides of source and target.
fn span(dims: &[usize], (source, from): (usize, &[usize]), (target, to): (usize, &[usize])) -> Span {
    let strides = |s: &[usize]| {
        let mut all = [0; MAX_RANK];
        all[..s.len()].copy_from_slice(s);
        all
    };
    let shape = Shape::new(dims).expect("smaller than tensors that exist");
    let source_strides = strides(from).map(|s| s as isize);
    Span { shape, source, source_strides, target, target_strides: strides(to) }
}

/// Packs a matrix `[rows, k]` per direction as `[D, K4, rows]` vectors of four adjacent k, padded with zeros.
fn packed(matrices: &[&[f32]], rows: usize, k: usize, k4: usize) -> Result<Vec<f32>> {
    let mut out = host(NEW, matrices.len() * k4 * rows * 4)?;
    for (n, matrix) in matrices.iter().enumerate() {
        for (row, values) in matrix.chunks_exact(k).enumerate() {
            for (k, &v) in values.iter().enumerate() {
                out[((n * k4 + k / 4) * rows + row) * 4 + k % 4] = v;
            }
        }
    }
    Ok(out)
}

/// One direction's weights in host memory, matrices rounded to f16 if they are stored so, and known to fit their
/// storage.
fn stored(w: &WeightsView<'_>, config: &LevelConfig<'_>) -> Result<DirectionWeights<f32>> {
    let read = |m: &dyn WeightSource, storage: WeightStorage| -> Result<Vec<f32>> {
        let mut out = host(NEW, m.count())?;
        m.read(0, &mut out);
        match storage {
            WeightStorage::F32 => {}
            WeightStorage::F16 => {
                for v in &mut out {
                    *v = to_f16(*v)?.to_f32();
                }
            }
            WeightStorage::Int8 => check_int8(&out)?,
            other => {
                let device = "a GPU".to_owned();
                return Err(Error::Unsupported { operation: NEW, feature: other.name(), device });
            }
        }
        Ok(out)
    };
    let w_hh = match config.cell.kind {
        // The u of an IndRNN is a vector; the minimal cells have none.
        kind if kind.is_pointwise() => read(w.w_hh, WeightStorage::F32)?,
        _ => read(&Whole::new(w, &config.cell, config.hidden_size), config.weights)?,
    };
    Ok(DirectionWeights {
        w_ih: read(w.w_ih, config.weights)?,
        w_hh,
        w_hr: read(w.w_hr, config.weights)?,
        b_ih: w.b_ih.clone(),
        b_hh: w.b_hh.clone(),
        peepholes: w.peepholes.clone(),
        norm_ih: w.norm_ih.clone(),
        norm_hh: w.norm_hh.clone(),
        norm_c: w.norm_c.clone(),
        rest: w.rest,
    })
}

fn cell_code(cell: Cell, extra: bool, weights: DType) -> CellCode {
    CellCode { cell, extra, valid: Valid::All, weights: weights.element() }
}
