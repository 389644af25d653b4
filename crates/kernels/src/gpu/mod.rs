//! Recurrent layers on a GPU: packed weights, the input projection, and the choice of strategy.

mod general;
mod grid;
mod pointwise;
mod scan;
mod stack;
mod step;
mod tuning;

pub(crate) use stack::GpuStack;

use crate::recurrent::{Input, Layout, Sizes, TableRows, gpu_dtype};
use crate::{
    Cell, CellKind, Direction, ForwardArgs, MaskedOutput, Outputs, RecurrentConfig, RecurrentOutput, Strategy, Tuning,
};
use recurve_shaders::{CellCode, Element, Grid, Kept, Scan, Valid, params};
use recurve_tensor::cpu::host;
use recurve_tensor::gpu::Gpu;
use recurve_tensor::kernel::{
    Dispatch, GpuKernels, Rows, StridedMatmul, TensorKernels, gather_rows, layer_norm_rows, strided_matmul,
};
use recurve_tensor::{AdapterKind, DType, Device, Error, Result, Shape, Tensor};

/// A layer's weights as the kernels read them.
#[derive(Debug)]
pub(crate) struct GpuLayer {
    gpu: Gpu,
    code: CellCode,
    gates: usize,
    hidden: usize,
    /// Elements of h.
    width: usize,
    directions: usize,
    kernels: Kernels,
    /// `[D, G·H, I]`
    w_ih: Tensor,
    /// What is added to the projection, `[D, G·H]`.
    bias: Tensor,
    /// `[D, K4, G, H, 4]`; one zero where no unit reads another.
    w_hh: Tensor,
    /// Peepholes `[D, 3, H]`, recurrent bias `[D, H]` or u `[D, H]`, or what `general_*` keeps
    /// there; one zero where there is nothing.
    extra: Tensor,
}

/// Which kernels run a cell.
#[derive(Debug)]
enum Kernels {
    /// `lstm_*`, `gru_*`, `rnn_*`
    Fused,
    /// `general_*`: layer normalization, or a projection of h.
    General(Box<general::Weights>),
    /// `pointwise_scan`, and for the minimal cells `linear_*`.
    Pointwise,
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
    /// Lengths or a mask.
    valid: Option<&'a Tensor>,
    code: CellCode,
    /// The outputs, or anything to bind where there are none.
    y: &'a Tensor,
    params: params::Recurrent,
}

impl Run<'_> {
    /// The parameters of a chunk's dispatches of at most `most` steps each.
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

    /// Projects and records every chunk with one kernel, at most `most` steps a dispatch. The parameters
    /// of `kernel` are filled in here; its work is that of a step.
    fn record(
        &self,
        kernel: &Dispatch<'_>,
        most: usize,
        chunks: impl Iterator<Item = Chunk>,
        project: &mut dyn FnMut(Chunk) -> Result<()>,
    ) -> Result<()> {
        for chunk in chunks {
            project(chunk)?;
            for p in self.dispatches(chunk, most) {
                let work = kernel.work * u64::from(p.steps);
                self.layer.gpu.record(Dispatch { params: bytemuck::bytes_of(&p), work, ..*kernel })?;
            }
        }
        Ok(())
    }

    /// Records a kernel that has a workgroup a row, counted along `axis`: more rows than the device counts
    /// workgroups for go in several dispatches. The kernel's work is that of a step of all rows.
    fn record_rows(&self, kernel: &Dispatch<'_>, axis: usize, p: params::Recurrent) -> Result<()> {
        let gpu = &self.layer.gpu;
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

/// Multiply-adds of one workgroup in one dispatch. A slow integrated GPU does some 2e9 a second in
/// one workgroup, and watchdogs wait about two seconds.
const MAX_WORK: u64 = 1 << 30;

impl GpuLayer {
    pub(crate) fn new(config: &RecurrentConfig<'_>, gpu: &Gpu) -> Result<Self> {
        let device = Device::Gpu(gpu.clone());
        let weights = gpu_dtype(config.weights, &gpu.summary().name)?;
        let (i, h, cell) = (config.input_size, config.hidden_size, &config.cell);
        let kind = cell.kind;
        let (g, width) = (kind.gates(), cell.state_size(h));
        let tensor = |data: &[f32]| Tensor::from_f32(data, &[data.len().max(1)], &device);
        let spare = |v: Vec<f32>| if v.is_empty() { vec![0.0] } else { v };
        let general = cell.projection.is_some() || cell.layer_norm.is_some();
        let mut w_ih = host::<f32>("Recurrent::new", config.directions.len() * g * h * i)?;
        for (part, (_, w)) in w_ih.chunks_exact_mut(g * h * i).zip(config.directions) {
            part.copy_from_slice(&w.w_ih);
        }
        let mut bias = Vec::with_capacity(config.directions.len() * g * h);
        let mut extra = Vec::new();
        for (_, w) in config.directions {
            if cell.layer_norm.is_some() {
                // The biases come behind the normalization, as part of its offset.
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
            _ if general => Kernels::General(Box::new(general::Weights::new(config, weights, &device)?)),
            _ => Kernels::Fused,
        };
        let w_hh = match kernels {
            Kernels::Pointwise => Vec::new(),
            _ => {
                let all: Vec<_> = config.directions.iter().map(|(_, w)| &w.w_hh[..]).collect();
                packed(&all, g * h, width, CellCode::k4(width as u32, K4_MULTIPLE) as usize)?
            }
        };
        let has_extra = extra.iter().any(|&v| v != 0.0);
        // Kernels of these read it whatever is in it.
        if !has_extra && !general && kind != CellKind::IndRnn {
            extra.clear();
        }
        Ok(Self {
            gpu: gpu.clone(),
            code: cell_code(*cell, has_extra, weights),
            gates: g,
            hidden: h,
            width,
            directions: config.directions.len(),
            kernels,
            w_ih: tensor(&w_ih)?.to_dtype(weights)?,
            bias: tensor(&bias)?,
            w_hh: tensor(&spare(w_hh))?.to_dtype(weights)?,
            extra: tensor(&spare(extra))?,
        })
    }

    pub(crate) fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    fn k4(&self) -> u32 {
        CellCode::k4(self.width as u32, K4_MULTIPLE)
    }

    /// Timesteps of one dispatch, by the iterations of an invocation at the start and in each step, the
    /// multiply-adds of a workgroup's step, and the number of workgroups. One at least.
    fn steps_per_dispatch(&self, at_start: u32, per_step: u32, work: u64, groups: [u32; 3]) -> usize {
        let by_loops = self.gpu.max_loop_iterations().saturating_sub(at_start) / per_step;
        let all = groups.into_iter().map(u64::from).product::<u64>().saturating_mul(work);
        u64::from(by_loops).min(MAX_WORK / work).min(self.gpu.max_work() / all).max(1) as usize
    }

    /// Multiply-adds of a timestep, of all rows and directions.
    fn step_work(&self, sizes: &Sizes) -> u64 {
        let state = if self.is_pointwise() { 1 } else { sizes.width };
        [sizes.directions, sizes.batch, self.gates, sizes.hidden, state].into_iter().map(|n| n as u64).product()
    }

    fn is_pointwise(&self) -> bool {
        matches!(self.kernels, Kernels::Pointwise)
    }

    /// Workgroups of a dispatch of `grid`.
    fn workgroups(&self, grid: &recurve_shaders::Grid, batch: usize) -> u32 {
        self.grid_groups(grid, batch).into_iter().fold(1, u32::saturating_mul)
    }

    /// Refuses a layout of `grid` that needs more workgroups at the same time than were seen to run so.
    fn check_concurrent(&self, grid: &recurve_shaders::Grid, batch: usize) -> Result<()> {
        let needed = self.workgroups(grid, batch);
        // One alone waits for nobody.
        let seen = if needed == 1 { 1 } else { self.gpu.concurrent_workgroups()? };
        if needed <= seen {
            return Ok(());
        }
        Err(Error::Argument {
            operation: "Recurrent::forward",
            argument: "strategy",
            message: format!(
                "`grid` needs {needed} workgroups at the same time, but {seen} were seen to run so on {}",
                self.gpu.summary().name
            ),
        })
    }

    /// Whether the weights of a lane fit into registers beside everything else: a slice of `k_slice` vec4 of
    /// every gate, in each of `lanes` lanes. A compute unit has 256 KiB of registers on most GPUs, and a
    /// lane 255 of them at most. Not where code is slow to compile, for each weight has a name of its own.
    fn fits_registers(&self, k_slice: u32, lanes: u32) -> bool {
        let each = k_slice * self.gates as u32 * if self.code.weights == Element::F16 { 2 } else { 4 };
        each <= 96 && each * lanes * 4 <= 160 << 10 && !self.gpu.compiles_slowly()
    }

    /// The ways of running this shape that may be the fastest here, what the rule would take first. Cells that
    /// are not fused have one a strategy.
    pub(crate) fn layouts(&self, batch: usize, timesteps: usize) -> Result<Vec<Layout>> {
        let mut all = vec![self.choose(Strategy::Auto, batch, timesteps)?];
        let mut add = |c: Option<Layout>| all.extend(c.filter(|c| !all.contains(c)));
        if !matches!(self.kernels, Kernels::Fused) {
            for s in [Strategy::Scan, Strategy::Step] {
                add(self.choose(s, batch, timesteps).ok());
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

    /// [`Self::layouts`], and those that are right here but never fast: weights in registers on a software
    /// rasteriser, or in memory where registers would hold them. Tests run them all.
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

    /// How to run this size, or why what was asked for cannot run.
    ///
    /// The rule: `scan` while a step is short. One workgroup reads all of `W_hh` at every step, so
    /// on hardware its time grows with H² while a dispatch costs a few microseconds whatever its
    /// size; a software rasteriser pays more for a dispatch and its barriers. `grid` is only taken if asked
    /// for, or measured.
    pub(crate) fn choose(&self, wanted: Strategy, batch: usize, timesteps: usize) -> Result<Layout> {
        let cannot = |message: String| Error::Argument {
            operation: "Recurrent::forward",
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

    /// Hidden units up to which the rule takes `scan`.
    fn longest_scan(&self) -> usize {
        if self.gpu.summary().kind == AdapterKind::Software { 512 } else { 256 }
    }

    pub(crate) fn forward(
        &self,
        input: Input<'_>,
        args: &ForwardArgs<'_>,
        sizes: &Sizes,
        directions: &[Direction],
    ) -> Result<RecurrentOutput> {
        let layout = match (args.candidate, args.strategy, args.tuning) {
            (Some(c), ..) => {
                if let Layout::Grid(g) = &c.layout {
                    self.check_concurrent(g, sizes.batch)?;
                }
                c.layout
            }
            (None, Strategy::Auto, Tuning::Measure) => self.tuned(sizes, directions)?,
            (None, wanted, _) => self.choose(wanted, sizes.batch, sizes.timesteps)?,
        };
        self.forward_as(layout, input, args, sizes, directions)
    }

    /// [`Self::forward`] by one layout, whatever the arguments ask for.
    pub(crate) fn forward_as(
        &self,
        layout: Layout,
        input: Input<'_>,
        args: &ForwardArgs<'_>,
        sizes: &Sizes,
        directions: &[Direction],
    ) -> Result<RecurrentOutput> {
        match self.forward_by(layout, input, args, sizes, directions)? {
            Some(out) => Ok(out),
            // Workgroups that did not run at the same time: the dispatches of `step` need not.
            None => {
                if let Layout::Grid(g) = &layout {
                    self.gpu.note_not_concurrent(self.workgroups(g, sizes.batch));
                }
                let step = Layout::Step(self.step_geometry(sizes.batch));
                let out = self.forward_by(step, input, args, sizes, directions)?;
                Ok(out.expect("only `grid` gives up"))
            }
        }
    }

    /// `E · W_ihᵀ + b` for each direction, normalised where the cell has that.
    pub(crate) fn token_rows(&self, embeddings: &Tensor) -> Result<Vec<Tensor>> {
        let (row, i, v) = (self.gates * self.hidden, embeddings.shape().last(), embeddings.dims()[0]);
        (0..self.directions)
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
                if let Kernels::General(weights) = &self.kernels
                    && let Some((affine, epsilon)) = &weights.norm_ih
                {
                    let rows = Rows { first: 0, rows: v, width: row, affine_offset: n * 2 * row, epsilon: *epsilon };
                    layer_norm_rows(&self.gpu, &rows, affine, &out)?;
                }
                Ok(out)
            })
            .collect()
    }

    /// `None` if `grid` gave up.
    fn forward_by(
        &self,
        layout: Layout,
        input: Input<'_>,
        args: &ForwardArgs<'_>,
        sizes: &Sizes,
        directions: &[Direction],
    ) -> Result<Option<RecurrentOutput>> {
        let strategy = layout.strategy();
        let gpu = &self.gpu;
        let Sizes { batch: b, timesteps: t, hidden: h, directions: d, .. } = *sizes;
        let (shape, y_batch, y_time) = sizes.output(args.time_major)?;
        let y = match args.outputs {
            Outputs::Last => None,
            Outputs::All => Some(Tensor::gpu_uninit(gpu, shape, DType::F32, "Recurrent::forward")?),
        };
        let state = |s: Option<&Tensor>, shape: Shape| match s {
            // A copy, for the kernels update it in place.
            Some(s) => s.slice(0, 0..d),
            // `scan` is told by a flag that it begins with zeros.
            None if strategy == Strategy::Scan => Tensor::gpu_uninit(gpu, shape, DType::F32, "Recurrent::forward"),
            None => Tensor::zeros(&shape, DType::F32, &Device::Gpu(gpu.clone())),
        };
        // What a cell without c binds in its place is written before it is read, if at all.
        let c = match self.code.cell.kind.has_cell_state() {
            true => state(args.c0, sizes.c_shape())?,
            false => Tensor::gpu_uninit(gpu, sizes.c_shape(), DType::F32, "Recurrent::forward")?,
        };
        let unwritten = Shape::new(&[1]).expect("one element");
        let spare = Tensor::gpu_uninit(gpu, unwritten, DType::F32, "Recurrent::forward")?;
        let row = self.gates * h;
        let per_step = d * b * row * 4 + self.linear_bytes(strategy, d * b);
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
            valid: args.lengths.or(args.mask),
            code: CellCode { valid: valid_by(args), ..self.code },
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
                    | u32::from(args.c0.is_none()) << 5
                    | u32::from(args.mask.is_some() && args.masked_output == MaskedOutput::Repeat) << 6,
                directions: d as u32,
                ..Default::default()
            },
        };
        // Ids in the order of the projection.
        let by_time = match input {
            Input::Tokens(ids, _) if !args.time_major && b > 1 => Some(ids.transpose(&[1, 0])?),
            Input::Tokens(ids, _) => Some(ids.clone()),
            Input::Features(_) => None,
        };
        let mut project = |c: Chunk| {
            for (n, &direction) in directions.iter().enumerate() {
                let from = match direction {
                    Direction::Forward => c.first,
                    Direction::Reverse => t - c.first - c.steps,
                };
                let x = match (input, &by_time) {
                    (Input::Tokens(_, table), Some(ids)) => {
                        let TableRows::Gpu(tables) = &table.rows else { unreachable!("checked to be this layer's") };
                        let span = from * b..(from + c.steps) * b;
                        gather_rows(gpu, &tables[n], ids, span, &projection, n * c.steps * b * row)?;
                        continue;
                    }
                    (Input::Features(x) | Input::Tokens(x, _), _) => x,
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
                if let Kernels::General(weights) = &self.kernels
                    && let Some((affine, epsilon)) = &weights.norm_ih
                {
                    let rows = Rows {
                        first: n * c.steps * b * row,
                        rows: c.steps * b,
                        width: row,
                        affine_offset: n * 2 * row,
                        epsilon: *epsilon,
                    };
                    layer_norm_rows(gpu, &rows, affine, &projection)?;
                }
            }
            Ok(())
        };
        let chunks = (0..t).step_by(chunk).map(|first| Chunk { first, steps: chunk.min(t - first) });
        let project: &mut dyn FnMut(Chunk) -> Result<()> = &mut project;
        let h0 = || state(args.h0, sizes.h_shape());
        let h = match (&self.kernels, layout) {
            (Kernels::Fused, Layout::Scan(g)) => scan::run(&run, &g, &projection, chunks, project, h0()?, &c)?,
            (Kernels::Fused, Layout::Step(g)) => step::run(&run, &g, &projection, chunks, project, args.h0, &c)?,
            (Kernels::Fused, Layout::Grid(g)) => match grid::run(&run, &g, &projection, chunks, project, h0()?, &c)? {
                Some(h) => h,
                None => return Ok(None),
            },
            (Kernels::General(w), Layout::Other(Strategy::Scan)) => {
                general::scan(&run, w, &projection, chunks, project, h0()?, &c)?
            }
            (Kernels::General(w), Layout::Other(_)) => general::step(&run, w, &projection, chunks, project, h0()?, &c)?,
            (Kernels::Pointwise, Layout::Other(s)) => pointwise::run(&run, s, &projection, chunks, project, h0()?)?,
            _ => unreachable!("a layer lists layouts of its own kernels"),
        };
        let c = self.code.cell.kind.has_cell_state().then_some(c);
        Ok(Some(RecurrentOutput { y, h, c, strategy }))
    }
}

/// Why a layer cannot run by `step`.
fn too_long(hidden: usize) -> String {
    format!("`step` with {hidden} hidden units takes more loop iterations than an invocation may run")
}

/// What says which timesteps of a call are valid.
fn valid_by(args: &ForwardArgs<'_>) -> Valid {
    match (args.lengths, args.mask) {
        (Some(_), _) => Valid::Lengths,
        (None, Some(_)) => Valid::Mask,
        (None, None) => Valid::All,
    }
}

/// A matrix `[rows, k]` per direction as `[D, K4, rows]` of four neighbouring k, padded with zeros.
fn packed(matrices: &[&[f32]], rows: usize, k: usize, k4: usize) -> Result<Vec<f32>> {
    let mut out = host("Recurrent::new", matrices.len() * k4 * rows * 4)?;
    for (n, matrix) in matrices.iter().enumerate() {
        for (row, values) in matrix.chunks_exact(k).enumerate() {
            for (k, &v) in values.iter().enumerate() {
                out[((n * k4 + k / 4) * rows + row) * 4 + k % 4] = v;
            }
        }
    }
    Ok(out)
}

fn cell_code(cell: Cell, extra: bool, weights: DType) -> CellCode {
    CellCode { cell, extra, valid: Valid::All, weights: weights.element() }
}
