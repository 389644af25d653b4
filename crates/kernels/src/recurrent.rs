//! One recurrent layer: the public door of the kernels, where everything is checked.

use crate::cpu::CpuLayer;
use crate::gpu::GpuLayer;
use crate::{Cell, CellKind, Direction, DirectionWeights, MaskedOutput, WeightStorage};
use half::f16;
use recurve_tensor::cpu::host;
use recurve_tensor::{DType, Device, Error, Result, Shape, Tensor, concat};
use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a GPU runs the recurrence. Results agree within the bounds of the kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Chosen by shape and adapter.
    #[default]
    Auto,
    /// The whole sequence in one dispatch (more where the device limits loops): h in workgroup
    /// memory, one workgroup per tile of batch rows and direction. For small and middling H. The
    /// minimal cells compose their steps instead, in a depth of O(log T).
    Scan,
    /// One dispatch per timestep over tiles of hidden units, batch rows and directions. For large H
    /// and large batches.
    Step,
    /// The whole sequence in one dispatch of several workgroups, each with its own hidden units, that
    /// exchange h through memory after every step. No API promises that they run at the same time: it is
    /// refused where more would be needed than a probe saw run together. They wait a bounded time, and if in vain
    /// the same call ends by `step`, with the right result, and later ones that need as many are refused. A call
    /// waits for the device. Never chosen by the default rule, but by [`Tuning::Measure`].
    Grid,
}

impl Strategy {
    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Scan => "scan",
            Self::Step => "step",
            Self::Grid => "grid",
        }
    }
}

/// How [`Strategy::Auto`] chooses on a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tuning {
    /// By a rule from the shape and the adapter.
    #[default]
    Rule,
    /// The first call of a shape times every [`Candidate`] and takes the fastest. The choice is kept in a
    /// file for this adapter, driver, version, layer size and shape (batch and timesteps up to the next
    /// power of two): `recurve/tuning.tsv` in the user's cache folder, or `RECURVE_TUNING_FILE`, which may
    /// be empty to keep nothing.
    Measure,
}

/// One way to run a layer at some shape on a GPU: a strategy with a layout, as [`Recurrent::candidates`] lists
/// them. They differ in speed only; their results agree within the bounds of the kernels.
///
/// A candidate belongs to the layer and the shape it was listed for, and is refused by every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub(crate) layout: Layout,
    layer: LayerId,
    batch: usize,
    timesteps: usize,
}

impl Candidate {
    /// Its strategy.
    pub const fn strategy(&self) -> Strategy {
        self.layout.strategy()
    }
}

/// The strategy and what distinguishes its layouts, like `scan rows 1 split 4 subgroups registers`.
impl core::fmt::Display for Candidate {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.layout.fmt(f)
    }
}

/// A strategy with its layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One workgroup a tile of rows.
    Scan(recurve_shaders::Scan),
    /// A dispatch a step.
    Step(recurve_shaders::Step),
    /// Workgroups that exchange h.
    Grid(recurve_shaders::Grid),
    /// The one layout of a strategy, for the cells that have no other.
    Other(Strategy),
}

impl Layout {
    pub(crate) const fn strategy(&self) -> Strategy {
        match self {
            Self::Scan(_) => Strategy::Scan,
            Self::Step(_) => Strategy::Step,
            Self::Grid(_) => Strategy::Grid,
            Self::Other(s) => *s,
        }
    }
}

impl core::fmt::Display for Layout {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.strategy().name())?;
        match self {
            Self::Scan(s) => {
                write!(f, " rows {} split {}", s.batch_tile, s.k_split)?;
                f.write_str(if s.k_split > 1 && s.subgroups { " subgroups" } else { "" })?;
                f.write_str(match s.kept {
                    recurve_shaders::Kept::Memory => "",
                    recurve_shaders::Kept::Registers => " registers",
                    recurve_shaders::Kept::Array => " array",
                })
            }
            Self::Step(s) => write!(f, " rows {} units {} split {}", s.batch_tile, s.unit_tile, s.k_split),
            Self::Grid(g) => {
                write!(f, " rows {} units {} split {}", g.batch_tile, g.unit_tile, g.k_split)?;
                f.write_str(if g.registers { " registers" } else { "" })
            }
            Self::Other(_) => Ok(()),
        }
    }
}

/// Tells the layers of a process apart, so that what was made for one is not used with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayerId(u64);

impl LayerId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What a layer is made of.
#[derive(Clone, Debug)]
pub struct RecurrentConfig<'a> {
    /// The cell.
    pub cell: Cell,
    /// I
    pub input_size: usize,
    /// H
    pub hidden_size: usize,
    /// One or two directions with their weights. Gates in Recurve's order.
    pub directions: &'a [(Direction, &'a DirectionWeights<f32>)],
    /// The cell of the second direction where it is another, as ONNX's `activations` may say; of
    /// the same kind and state size.
    pub second_cell: Option<Cell>,
    /// How the weight matrices are stored.
    pub weights: WeightStorage,
}

impl<'a> RecurrentConfig<'a> {
    /// A layer with one cell and f32 weights.
    pub const fn new(
        cell: Cell,
        input_size: usize,
        hidden_size: usize,
        directions: &'a [(Direction, &'a DirectionWeights<f32>)],
    ) -> Self {
        Self { cell, input_size, hidden_size, directions, second_cell: None, weights: WeightStorage::F32 }
    }
}

/// Which outputs a call computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outputs {
    /// h of every timestep, and the final states.
    #[default]
    All,
    /// The final states only.
    Last,
}

/// The arguments of [`Recurrent::forward`] beside the input.
#[derive(Clone, Copy, Debug)]
pub struct ForwardArgs<'a> {
    /// Initial h, `[D, B, H]` (`[D, B, P]` with a projection); zeros if `None`.
    pub h0: Option<&'a Tensor>,
    /// Initial c, `[D, B, H]`; zeros if `None`. LSTM only.
    pub c0: Option<&'a Tensor>,
    /// Valid timesteps of each sequence, `[B]`, U32, at most T. Outputs past the end are zero, the
    /// final state is that of the last valid step, and the reverse direction starts there.
    pub lengths: Option<&'a Tensor>,
    /// Which timesteps are valid, `[B, T]` whatever the layout of the input, U32: not zero where
    /// they are. The state stands still at the others, wherever they are. Not together with
    /// lengths.
    pub mask: Option<&'a Tensor>,
    /// The output where the mask is zero.
    pub masked_output: MaskedOutput,
    /// The input is `[T, B, I]` and the output `[T, B, D·H]`.
    pub time_major: bool,
    /// Which outputs to compute.
    pub outputs: Outputs,
    /// Outputs of a reverse direction in the order in which they were computed, as Keras's
    /// `go_backwards` returns them, in place of the order of the input.
    pub reading_order: bool,
    /// How a GPU runs the recurrence; without effect on the CPU.
    pub strategy: Strategy,
    /// How [`Strategy::Auto`] chooses on a GPU.
    pub tuning: Tuning,
    /// One of [`Recurrent::candidates`] in place of a strategy.
    pub candidate: Option<Candidate>,
    /// Bytes that the input projection of a chunk of timesteps may take.
    pub projection_budget: usize,
}

impl Default for ForwardArgs<'_> {
    fn default() -> Self {
        Self {
            h0: None,
            c0: None,
            lengths: None,
            mask: None,
            masked_output: MaskedOutput::Zero,
            time_major: false,
            outputs: Outputs::All,
            reading_order: false,
            strategy: Strategy::Auto,
            tuning: Tuning::Rule,
            candidate: None,
            projection_budget: 64 << 20,
        }
    }
}

/// The results of [`Recurrent::forward`].
#[derive(Clone, Debug)]
pub struct RecurrentOutput {
    /// `[B, T, D·W]` (or `[T, B, D·W]`), W being H or P with a projection, unless only the last was
    /// asked for.
    pub y: Option<Tensor>,
    /// Final h, `[D, B, W]`.
    pub h: Tensor,
    /// Final c, `[D, B, H]`; LSTM only.
    pub c: Option<Tensor>,
    /// The strategy by which a GPU came to the result: `Step` also where `Grid` was asked for and had to be
    /// given up. `Auto` on the CPU.
    pub strategy: Strategy,
}

/// What every token of a vocabulary contributes to the gates: `E · W_ihᵀ + b` for an embedding `E` of
/// `[V, I]`, so that sequences of ids need no input product. Made by [`Recurrent::token_table`], for that
/// layer only.
#[derive(Debug)]
pub struct TokenTable {
    layer: LayerId,
    vocabulary: usize,
    pub(crate) rows: TableRows,
}

#[derive(Debug)]
pub(crate) enum TableRows {
    Cpu(crate::cpu::TokenRows),
    /// `[V, G·H]` a direction.
    Gpu(Vec<Tensor>),
    Pair(Box<[TokenTable; 2]>),
}

/// What a layer reads.
#[derive(Clone, Copy)]
pub(crate) enum Input<'a> {
    /// `[B, T, I]`, or with `time_major` `[T, B, I]`.
    Features(&'a Tensor),
    /// Ids `[B, T]`, or with `time_major` `[T, B]`.
    Tokens(&'a Tensor, &'a TokenTable),
}

/// The sizes of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) batch: usize,
    pub(crate) timesteps: usize,
    pub(crate) input: usize,
    pub(crate) hidden: usize,
    /// Elements of h.
    pub(crate) width: usize,
    pub(crate) directions: usize,
}

impl Sizes {
    /// The shape of all outputs, and its strides by batch row and by timestep.
    pub(crate) fn output(&self, time_major: bool) -> Result<(Shape, usize, usize)> {
        let (b, t, width) = (self.batch, self.timesteps, self.directions * self.width);
        let dims = if time_major { [t, b, width] } else { [b, t, width] };
        let shape = Shape::new(&dims).ok_or_else(|| Error::Argument {
            operation: FORWARD,
            argument: "x",
            message: "is too large for its output to be counted".into(),
        })?;
        let (row, time) = if time_major { (width, b * width) } else { (t * width, width) };
        Ok((shape, row, time))
    }

    /// The shape of h.
    pub(crate) fn h_shape(&self) -> Shape {
        Shape::new(&[self.directions, self.batch, self.width]).expect("smaller than tensors that exist")
    }

    /// The shape of c.
    pub(crate) fn c_shape(&self) -> Shape {
        Shape::new(&[self.directions, self.batch, self.hidden]).expect("smaller than tensors that exist")
    }
}

/// One layer of recurrent cells in one or two directions, on a device.
///
/// The equations, gate order and sources are those of `recurve_reference::recurrence`. Bounds
/// against the f64 definition, for weights of usual scale (uniform in ±1/√H) and T up to 1024: 2e-5
/// for LSTM and GRU, 1e-4 for a SimpleRNN, on every device and by every strategy. The error of a
/// step is a few ULP of sums of H products, plus that of the activation ([`recurve_tensor::bounds`]); it does not grow with T
/// because the gates contract, which a SimpleRNN's tanh does least.
#[derive(Debug)]
pub struct Recurrent {
    id: LayerId,
    cell: Cell,
    input_size: usize,
    hidden_size: usize,
    directions: Vec<Direction>,
    layer: Layer,
}

#[derive(Debug)]
enum Layer {
    Cpu(CpuLayer),
    Gpu(Box<GpuLayer>),
    /// Two directions with cells of their own.
    Pair(Box<[Recurrent; 2]>),
}

/// The element type of a GPU's buffers of weights.
///
/// # Errors
/// [`Error::Unsupported`] for int8.
pub(crate) fn gpu_dtype(weights: WeightStorage, device: &str) -> Result<DType> {
    match weights {
        WeightStorage::F32 => Ok(DType::F32),
        WeightStorage::F16 => Ok(DType::F16),
        WeightStorage::Int8 => {
            Err(Error::Unsupported { operation: NEW, feature: "int8 weights", device: device.to_owned() })
        }
    }
}

const NEW: &str = "Recurrent::new";
const FORWARD: &str = "Recurrent::forward";
const STEP: &str = "Recurrent::step_in_place";
const TABLE: &str = "Recurrent::token_table";

fn table_shape(got: &Tensor, input: usize) -> Error {
    let expected = format!("[vocabulary, features] with {input} features");
    Error::Shape { operation: TABLE, argument: "embeddings", expected, got: *got.shape() }
}

impl Recurrent {
    /// A layer with its weights packed for `device`.
    ///
    /// # Errors
    /// [`Error::Argument`] if a size is zero, a weight has the wrong number of elements, there are
    /// not one or two directions, a clip or another parameter is out of its range, or the cell has
    /// an option or a weight that its kind does not know; [`Error::Unsupported`] for f16 weights on
    /// an adapter without f16; errors of the device.
    pub fn new(config: &RecurrentConfig<'_>, device: &Device) -> Result<Self> {
        let cells = check_config(config)?;
        let layer = if config.directions.len() == 2 && cells[0] != cells[1] {
            let one = |n: usize| {
                let directions = &config.directions[n..=n];
                Self::new(&RecurrentConfig { cell: cells[n], directions, second_cell: None, ..*config }, device)
            };
            Layer::Pair(Box::new([one(0)?, one(1)?]))
        } else {
            let weights: Vec<_> = config
                .directions
                .iter()
                .map(|(_, w)| stored(w, config.cell.kind, config.weights))
                .collect::<Result<_>>()?;
            let directions: Vec<_> = config.directions.iter().zip(&weights).map(|((d, _), w)| (*d, &**w)).collect();
            let config = RecurrentConfig { directions: &directions, ..*config };
            match device {
                Device::Cpu => Layer::Cpu(CpuLayer::new(&config)?),
                Device::Gpu(gpu) => Layer::Gpu(Box::new(GpuLayer::new(&config, gpu)?)),
            }
        };
        Ok(Self {
            id: LayerId::next(),
            cell: config.cell,
            input_size: config.input_size,
            hidden_size: config.hidden_size,
            directions: config.directions.iter().map(|d| d.0).collect(),
            layer,
        })
    }

    /// The cell.
    pub fn cell(&self) -> Cell {
        self.cell
    }

    /// I
    pub fn input_size(&self) -> usize {
        self.input_size
    }

    /// H
    pub fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    /// D
    pub fn directions(&self) -> &[Direction] {
        &self.directions
    }

    /// The device that the layer is on.
    pub fn device(&self) -> Device {
        match &self.layer {
            Layer::Cpu(_) => Device::Cpu,
            Layer::Gpu(l) => Device::Gpu(l.gpu().clone()),
            Layer::Pair(p) => p[0].device(),
        }
    }

    /// The strategy that [`Strategy::Auto`] stands for at this size by the default rule; on the CPU always
    /// [`Strategy::Auto`] itself.
    pub fn strategy(&self, batch: usize, timesteps: usize) -> Strategy {
        let [batch, timesteps] = [batch, timesteps].map(|n| n.clamp(1, u32::MAX as usize));
        match &self.layer {
            Layer::Cpu(_) => Strategy::Auto,
            Layer::Gpu(l) => l.choose(Strategy::Auto, batch, timesteps).map_or(Strategy::Step, |c| c.strategy()),
            Layer::Pair(p) => p[0].strategy(batch, timesteps),
        }
    }

    /// The ways in which a GPU can run this size, what the default rule takes first; none on the CPU, and
    /// for two directions with cells of their own.
    ///
    /// # Errors
    /// [`Error::Argument`] if a size is zero or not below 2^32; those of the device, which is probed for what it can do.
    pub fn candidates(&self, batch: usize, timesteps: usize) -> Result<Vec<Candidate>> {
        let counted = 1..=u32::MAX as usize;
        if !counted.contains(&batch) || !counted.contains(&timesteps) {
            let message = format!("must be at least 1 and below 2^32, but they are {batch} and {timesteps}");
            return Err(Error::Argument { operation: "Recurrent::candidates", argument: "batch, timesteps", message });
        }
        let Layer::Gpu(l) = &self.layer else { return Ok(Vec::new()) };
        let layouts = l.every_layout(batch, timesteps)?;
        Ok(layouts.into_iter().map(|layout| Candidate { layout, layer: self.id, batch, timesteps }).collect())
    }

    /// Runs the layer over `x`, `[B, T, I]` or with `time_major` `[T, B, I]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x`, a state or the lengths have the wrong shape; [`Error::DType`] if
    /// `x` or a state is not f32 or the lengths are not U32; [`Error::Device`] if an operand is on
    /// another device; [`Error::Argument`] if a length exceeds T, a c is given to a cell without
    /// one, or the strategy asked for cannot run this size; errors of the device.
    pub fn forward(&self, x: &Tensor, args: &ForwardArgs<'_>) -> Result<RecurrentOutput> {
        self.run(Input::Features(x), args)
    }

    /// One timestep on the CPU in the caller's memory: `x` is `[B, I]`, and the new h `[B, W]` and c `[B, H]`
    /// take the place of the old ones (c is empty for cells without one). For audio and control loops: it runs
    /// on the calling thread, makes no tensor, and allocates nothing after the first call of a batch size.
    /// Results have the bits of [`Self::forward`] over one timestep.
    ///
    /// # Errors
    /// [`Error::Argument`] if `x` is empty or no multiple of I, a state has another size, or the layer has two
    /// directions; [`Error::Unsupported`] if the layer is on a GPU; [`Error::OutOfMemory`] for lack of memory.
    pub fn step_in_place(&self, x: &[f32], h: &mut [f32], c: &mut [f32]) -> Result<()> {
        let bad = |argument, message| Error::Argument { operation: STEP, argument, message };
        let layer = match &self.layer {
            Layer::Cpu(l) if self.directions.len() == 1 => l,
            Layer::Gpu(_) => {
                let device = self.device().to_string();
                return Err(Error::Unsupported { operation: STEP, feature: "states in host memory", device });
            }
            _ => return Err(bad("self", "has two directions, and the end of a stream is not known".into())),
        };
        let batch = x.len() / self.input_size;
        if batch == 0 || x.len() != batch * self.input_size {
            let message = format!("must have a multiple of {} elements, [B, I], not {}", self.input_size, x.len());
            return Err(bad("x", message));
        }
        let (width, cells) = self.cell.state_sizes(self.hidden_size);
        for (state, argument, size) in [(&*h, "h", width), (&*c, "c", cells.unwrap_or(0))] {
            let wanted = batch.saturating_mul(size);
            if state.len() != wanted {
                return Err(bad(argument, format!("must have [{batch}, {size}] elements, but it has {}", state.len())));
            }
        }
        layer.step(batch, x, h, c)
    }

    /// The contribution of every token to the gates, for [`Self::forward_tokens`]: as many bytes as
    /// V · D · G · H floats.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `embeddings` is `[V, I]`, [`Error::DType`] unless it is f32,
    /// [`Error::Device`] if it is on another device; errors of the device.
    pub fn token_table(&self, embeddings: &Tensor) -> Result<TokenTable> {
        let &[vocabulary, i] = embeddings.dims() else {
            return Err(table_shape(embeddings, self.input_size));
        };
        if i != self.input_size {
            return Err(table_shape(embeddings, self.input_size));
        }
        if embeddings.dtype() != DType::F32 {
            let got = embeddings.dtype();
            return Err(Error::DType { operation: TABLE, argument: "embeddings", expected: "f32", got });
        }
        if embeddings.device() != self.device() {
            return Err(Error::device(TABLE, "embeddings", &self.device(), &embeddings.device()));
        }
        let rows = match &self.layer {
            Layer::Cpu(l) => TableRows::Cpu(l.token_rows(embeddings)?),
            Layer::Gpu(l) => TableRows::Gpu(l.token_rows(embeddings)?),
            Layer::Pair(p) => TableRows::Pair(Box::new([p[0].token_table(embeddings)?, p[1].token_table(embeddings)?])),
        };
        Ok(TokenTable { layer: self.id, vocabulary, rows })
    }

    /// [`Self::forward`] over ids `[B, T]`, or with `time_major` `[T, B]`, whose embeddings are in a table:
    /// a look-up takes the place of the input product, with the same result up to rounding.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::DType`] unless `ids` are that, [`Error::Index`] if an id is not in the
    /// table, [`Error::Argument`] if the table was made by another layer; otherwise as [`Self::forward`].
    pub fn forward_tokens(&self, ids: &Tensor, table: &TokenTable, args: &ForwardArgs<'_>) -> Result<RecurrentOutput> {
        self.run(Input::Tokens(ids, table), args)
    }

    fn run(&self, input: Input<'_>, args: &ForwardArgs<'_>) -> Result<RecurrentOutput> {
        let sizes = self.check(input, args)?;
        match &self.layer {
            Layer::Cpu(l) => l.forward(input, args, &sizes, &self.directions),
            Layer::Gpu(l) => l.forward(input, args, &sizes, &self.directions),
            Layer::Pair(pair) => {
                let mut out = Vec::with_capacity(2);
                for (n, layer) in pair.iter().enumerate() {
                    let [h0, c0] = [args.h0, args.c0].map(|s| s.map(|s| s.slice(0, n..n + 1)).transpose());
                    let (h0, c0) = (h0?, c0?);
                    let args = ForwardArgs { h0: h0.as_ref(), c0: c0.as_ref(), ..*args };
                    let input = match input {
                        Input::Tokens(ids, TokenTable { rows: TableRows::Pair(tables), .. }) => {
                            Input::Tokens(ids, &tables[n])
                        }
                        other => other,
                    };
                    out.push(layer.run(input, &args)?);
                }
                let join = |parts: [Option<&Tensor>; 2], axis| match parts {
                    [Some(a), Some(b)] => concat(&[a, b], axis).map(Some),
                    _ => Ok(None),
                };
                Ok(RecurrentOutput {
                    y: join([out[0].y.as_ref(), out[1].y.as_ref()], 2)?,
                    h: concat(&[&out[0].h, &out[1].h], 0)?,
                    c: join([out[0].c.as_ref(), out[1].c.as_ref()], 0)?,
                    strategy: out[0].strategy,
                })
            }
        }
    }

    fn check(&self, input: Input<'_>, args: &ForwardArgs<'_>) -> Result<Sizes> {
        self.check_with(input, args, self.directions.len())
    }

    /// Everything that is asked of a call; h0 and c0 have `states` parts, one a direction or stacked layer.
    fn check_with(&self, input: Input<'_>, args: &ForwardArgs<'_>, states: usize) -> Result<Sizes> {
        let here = self.device();
        let device = |t: &Tensor, argument| {
            if t.device() == here {
                return Ok(());
            }
            Err(Error::device(FORWARD, argument, &here, &t.device()))
        };
        let float = |t: &Tensor, argument| {
            if t.dtype() == DType::F32 {
                return Ok(());
            }
            Err(Error::DType { operation: FORWARD, argument, expected: "f32", got: t.dtype() })
        };
        let shape = |t: &Tensor, argument, expected: String| {
            Err(Error::Shape { operation: FORWARD, argument, expected, got: *t.shape() })
        };
        let layout = if args.time_major { "[timesteps, batch, features]" } else { "[batch, timesteps, features]" };
        let (first, second) = match input {
            Input::Features(x) => {
                let &[a, b, i] = x.dims() else {
                    return shape(x, "x", format!("{layout} with {} features", self.input_size));
                };
                if i != self.input_size {
                    return shape(x, "x", format!("{layout} with {} features", self.input_size));
                }
                float(x, "x")?;
                device(x, "x")?;
                (a, b)
            }
            Input::Tokens(ids, table) => {
                let &[a, b] = ids.dims() else {
                    let expected = if args.time_major { "[timesteps, batch]" } else { "[batch, timesteps]" };
                    return shape(ids, "ids", expected.into());
                };
                if ids.dtype() != DType::U32 {
                    return Err(Error::DType {
                        operation: FORWARD,
                        argument: "ids",
                        expected: "u32",
                        got: ids.dtype(),
                    });
                }
                device(ids, "ids")?;
                if table.layer != self.id {
                    return Err(Error::Argument {
                        operation: FORWARD,
                        argument: "table",
                        message: "was made by another layer".into(),
                    });
                }
                if ids.bound() as usize >= table.vocabulary {
                    let (index, len) = (ids.bound().into(), table.vocabulary);
                    return Err(Error::Index { operation: FORWARD, argument: "ids", index, len });
                }
                (a, b)
            }
        };
        let (batch, timesteps) = if args.time_major { (second, first) } else { (first, second) };
        let sizes = Sizes {
            batch,
            timesteps,
            input: self.input_size,
            hidden: self.hidden_size,
            width: self.cell.state_size(self.hidden_size),
            directions: self.directions.len(),
        };
        // A timestep of all gates can be counted, and so can all states.
        let gates = 4 * self.cell.kind.gates() * self.hidden_size;
        if Shape::new(&[states.max(sizes.directions), batch, gates]).is_none() {
            return Err(Error::Argument {
                operation: FORWARD,
                argument: "x",
                message: format!("has a batch of {batch}, whose states are too large to be counted"),
            });
        }
        if let Some(c) = args.candidate
            && (c.layer, c.batch, c.timesteps) != (self.id, batch, timesteps)
        {
            let whose = if c.layer == self.id { "shape" } else { "layer" };
            let message = format!("`{c}` was listed for another {whose}");
            return Err(Error::Argument { operation: FORWARD, argument: "candidate", message });
        }
        if args.c0.is_some() && !self.cell.kind.has_cell_state() {
            let message = format!("belongs to an LSTM, but the cell is a {}", self.cell.kind.name());
            return Err(Error::Argument { operation: FORWARD, argument: "c0", message });
        }
        let parts = if states == sizes.directions { "directions" } else { "layers" };
        for (state, argument, width) in [(args.h0, "h0", sizes.width), (args.c0, "c0", sizes.hidden)] {
            if let Some(t) = state {
                let want = [states, batch, width];
                if t.dims() != want {
                    return shape(t, argument, format!("[{parts}, batch, hidden] = {want:?}"));
                }
                float(t, argument)?;
                device(t, argument)?;
            }
        }
        if let Some(t) = args.lengths {
            if t.dims() != [batch] {
                return shape(t, "lengths", format!("[batch] = [{batch}]"));
            }
            if t.dtype() != DType::U32 {
                return Err(Error::DType { operation: FORWARD, argument: "lengths", expected: "u32", got: t.dtype() });
            }
            device(t, "lengths")?;
            if t.bound() as usize > timesteps {
                let message = format!("contains {}, but there are only {timesteps} timesteps", t.bound());
                return Err(Error::Argument { operation: FORWARD, argument: "lengths", message });
            }
        }
        if let Some(t) = args.mask {
            if t.dims() != [batch, timesteps] {
                return shape(t, "mask", format!("[batch, timesteps] = [{batch}, {timesteps}]"));
            }
            if t.dtype() != DType::U32 {
                return Err(Error::DType { operation: FORWARD, argument: "mask", expected: "u32", got: t.dtype() });
            }
            device(t, "mask")?;
            if args.lengths.is_some() {
                return Err(Error::Argument {
                    operation: FORWARD,
                    argument: "mask",
                    message: "cannot be given together with lengths".into(),
                });
            }
        }
        Ok(sizes)
    }
}

fn bad(argument: &'static str, message: String) -> Error {
    Error::Argument { operation: NEW, argument, message }
}

/// Everything that [`Recurrent::new`] asks of its description; returns the cell of each direction.
fn check_config(config: &RecurrentConfig<'_>) -> Result<[Cell; 2]> {
    let (i, h) = (config.input_size, config.hidden_size);
    if i == 0 || h == 0 {
        return Err(bad("input_size, hidden_size", format!("must be at least 1, but they are {i} and {h}")));
    }
    if !matches!(config.directions.len(), 1 | 2) {
        return Err(bad("directions", format!("must be one or two, but there are {}", config.directions.len())));
    }
    // No product of sizes below overflows: not that of the largest matrix, nor that of all its gates.
    if i.max(h).checked_mul(h).and_then(|n| n.checked_mul(64)).is_none() {
        return Err(bad("input_size, hidden_size", format!("are too large to be counted: {i} and {h}")));
    }
    let cells = [config.cell, config.second_cell.unwrap_or(config.cell)];
    if cells[0].kind != cells[1].kind || cells[0].projection != cells[1].projection {
        return Err(bad("second_cell", "must be of the first one's kind and state size".into()));
    }
    for (cell, (_, w)) in cells.iter().zip(config.directions) {
        check_cell(cell, h)?;
        check_weights(cell, w, i, h)?;
    }
    Ok(cells)
}

fn check_cell(cell: &Cell, hidden: usize) -> Result<()> {
    let name = cell.kind.name();
    let known = matches!(cell.kind, CellKind::Rnn | CellKind::Lstm { .. } | CellKind::Gru { .. });
    if !known && !matches!(cell.kind, CellKind::IndRnn | CellKind::MinGru | CellKind::MinLstm) {
        return Err(bad("cell", format!("is a {name}, which has no kernels")));
    }
    if let Some(clip) = cell.clip
        && !(clip.is_finite() && clip > 0.0)
    {
        return Err(bad("clip", format!("must be finite and above 0, but it is {clip}")));
    }
    if cell.peepholes && !matches!(cell.kind, CellKind::Lstm { .. }) {
        return Err(bad("peepholes", format!("belong to an LSTM, but the cell is a {name}")));
    }
    if cell.clip_output && !matches!(cell.kind, CellKind::Lstm { .. }) {
        return Err(bad("clip_output", format!("belongs to an LSTM, but the cell is a {name}")));
    }
    if cell.clip_output && cell.clip.is_none() {
        return Err(bad("clip_output", "needs a `clip`, but there is none".into()));
    }
    for f in cell.gates.into_iter().chain([cell.candidate, cell.output]) {
        recurve_tensor::kernel::check_activation(f)?;
    }
    let lstm = matches!(cell.kind, CellKind::Lstm { .. });
    match cell.projection {
        Some(_) if !lstm => return Err(bad("projection", format!("belongs to an LSTM, but the cell is a {name}"))),
        Some(p) if p == 0 || p >= hidden => {
            return Err(bad(
                "projection",
                format!("must be at least 1 and below {hidden} hidden units, but it is {p}"),
            ));
        }
        _ => {}
    }
    if let Some(epsilon) = cell.layer_norm {
        if !(lstm || cell.kind == (CellKind::Gru { reset_after: true })) {
            let kind = if matches!(cell.kind, CellKind::Gru { .. }) { "gru without reset_after" } else { name };
            return Err(bad(
                "layer_norm",
                format!("belongs to an LSTM or to a GRU with reset_after, but the cell is a {kind}"),
            ));
        }
        if !(epsilon.is_finite() && epsilon > 0.0) {
            return Err(bad("layer_norm", format!("needs a finite epsilon above 0, but it is {epsilon}")));
        }
    }
    if let Some(z) = cell.zoneout {
        if !(lstm || matches!(cell.kind, CellKind::Rnn | CellKind::Gru { .. })) {
            return Err(bad("zoneout", format!("belongs to a SimpleRNN, LSTM or GRU, but the cell is a {name}")));
        }
        if !((0.0..1.0).contains(&z.h) && (0.0..1.0).contains(&z.c)) {
            return Err(bad("zoneout", format!("must be in [0, 1), but it is {} and {}", z.h, z.c)));
        }
        if z.c != 0.0 && !lstm {
            return Err(bad("zoneout", format!("of c belongs to an LSTM, but the cell is a {name}")));
        }
    }
    Ok(())
}

fn check_weights(cell: &Cell, w: &DirectionWeights<f32>, i: usize, h: usize) -> Result<()> {
    let kind = cell.kind;
    let width = cell.state_size(h);
    let rows = kind.gates() * h;
    let check = |argument, got: usize, wanted: usize, letters: &str| {
        if got == wanted {
            return Ok(());
        }
        Err(bad(argument, format!("must have {wanted} elements, {letters}, but it has {got}")))
    };
    let optional = |argument, got: usize, wanted: usize, letters: &str| {
        if got == 0 { Ok(()) } else { check(argument, got, wanted, letters) }
    };
    check("w_ih", w.w_ih.len(), rows * i, "[G·H, I]")?;
    let letters = match kind {
        CellKind::IndRnn => "[H]",
        _ if cell.projection.is_some() => "[G·H, P]",
        _ => "[G·H, H]",
    };
    check("w_hh", w.w_hh.len(), kind.recurrent_weights(h, width), letters)?;
    optional("b_ih", w.b_ih.len(), rows, "[G·H]")?;
    optional("b_hh", w.b_hh.len(), rows, "[G·H]")?;
    if !w.peepholes.is_empty() && !matches!(kind, CellKind::Lstm { .. }) {
        return Err(bad("peepholes", format!("belong to an LSTM, but the cell is a {}", kind.name())));
    }
    check("peepholes", w.peepholes.len(), if cell.peepholes { 3 * h } else { 0 }, "[3·H] with peepholes")?;
    check("w_hr", w.w_hr.len(), cell.projection.map_or(0, |p| p * h), "[P, H] with a projection")?;
    let norm = |n: usize| if cell.layer_norm.is_some() { 2 * n } else { 0 };
    check("norm_ih", w.norm_ih.len(), norm(rows), "[2, G·H] with layer normalization")?;
    check("norm_hh", w.norm_hh.len(), norm(rows), "[2, G·H] with layer normalization")?;
    let c = if kind.has_cell_state() { norm(h) } else { 0 };
    check("norm_c", w.norm_c.len(), c, "[2, H] with layer normalization of an LSTM")
}

/// The weights as they are packed: matrices rounded to f16 if they are stored so, and known to fit their
/// storage.
fn stored(w: &DirectionWeights<f32>, kind: CellKind, weights: WeightStorage) -> Result<Cow<'_, DirectionWeights<f32>>> {
    // The u of an IndRNN is a vector.
    let recurrent = if kind.is_pointwise() { &[][..] } else { &w.w_hh };
    match weights {
        WeightStorage::F32 => return Ok(Cow::Borrowed(w)),
        WeightStorage::Int8 => {
            return match [&w.w_ih, recurrent, &w.w_hr].into_iter().flatten().find(|v| !v.is_finite()) {
                None => Ok(Cow::Borrowed(w)),
                Some(v) => Err(bad("weights", format!("cannot be int8: they must be finite, but one is {v}"))),
            };
        }
        WeightStorage::F16 => {}
    }
    let round = |v: &[f32]| -> Result<Vec<f32>> {
        let mut out = host(NEW, v.len())?;
        for (out, &v) in out.iter_mut().zip(v) {
            *out = f16::from_f32(v).to_f32();
            if !out.is_finite() {
                return Err(bad("weights", format!("cannot be f16: the largest number is 65504, but one is {v}")));
            }
        }
        Ok(out)
    };
    Ok(Cow::Owned(DirectionWeights {
        w_ih: round(&w.w_ih)?,
        w_hh: if kind.is_pointwise() { w.w_hh.clone() } else { round(&w.w_hh)? },
        w_hr: round(&w.w_hr)?,
        b_ih: w.b_ih.clone(),
        b_hh: w.b_hh.clone(),
        peepholes: w.peepholes.clone(),
        norm_ih: w.norm_ih.clone(),
        norm_hh: w.norm_hh.clone(),
        norm_c: w.norm_c.clone(),
    }))
}

/// Stacked layers of one direction on a GPU, run as a wavefront: all layers at once, each a timestep behind
/// the one below, in T + L - 1 dispatches. What [`Recurrent`]s by `step` would do one after the other in
/// L · T.
#[derive(Debug)]
pub struct RecurrentStack {
    /// Checks the arguments of a call and makes the input product.
    first: Recurrent,
    stack: crate::gpu::GpuStack,
    layers: usize,
}

impl RecurrentStack {
    /// The stack of these layers, or `None` where there is no wavefront: on the CPU, for a single layer, for
    /// layers that differ in cell, size or storage or read backwards, and for cells other than a
    /// SimpleRNN, LSTM or GRU with the reset gate after the product, without projection and layer
    /// normalization.
    ///
    /// # Errors
    /// As [`Recurrent::new`], for the first layer that it would refuse.
    pub fn new(layers: &[RecurrentConfig<'_>], device: &Device) -> Result<Option<Self>> {
        let Device::Gpu(gpu) = device else { return Ok(None) };
        for layer in layers {
            check_config(layer)?;
        }
        if layers.is_empty() || !crate::gpu::GpuStack::fits(layers) {
            return Ok(None);
        }
        let weights: Vec<_> =
            layers.iter().map(|l| stored(l.directions[0].1, l.cell.kind, l.weights)).collect::<Result<_>>()?;
        let pairs: Vec<_> = weights.iter().map(|w| [(Direction::Forward, &**w)]).collect();
        let rounded: Vec<_> =
            layers.iter().zip(&pairs).map(|(l, p)| RecurrentConfig { directions: p, ..l.clone() }).collect();
        Ok(Some(Self {
            first: Recurrent::new(&layers[0], device)?,
            stack: crate::gpu::GpuStack::new(&rounded, gpu)?,
            layers: layers.len(),
        }))
    }

    /// The outputs of the last layer and the states of all, `[L, B, H]`, or `None` if the layers should run
    /// one after the other: where that is not by `step`. h0 and c0 are `[L, B, H]`.
    ///
    /// # Errors
    /// As [`Recurrent::forward`].
    pub fn forward(&self, x: &Tensor, args: &ForwardArgs<'_>) -> Result<Option<RecurrentOutput>> {
        let sizes = self.first.check_with(Input::Features(x), args, self.layers)?;
        let Layer::Gpu(first) = &self.first.layer else { unreachable!("made on a GPU, in one direction") };
        if !self.stack.is_chosen(first, args, &sizes) {
            return Ok(None);
        }
        self.stack.forward(first, x, args, &sizes).map(Some)
    }
}
