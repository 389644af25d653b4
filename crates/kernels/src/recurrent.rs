//! `Recurrent`: stacked recurrent layers on a device.

use crate::call::{Call, ForwardArgs, Input, Outputs, RecurrentOutput};
use crate::config::{LevelConfig, RecurrentConfig, check_config};
use crate::cpu::CpuLayer;
use crate::gpu::{GpuLayer, Layout, Wave};
use crate::strategy::{Candidate, Strategy};
use crate::{Cell, Direction, WeightSource};
use recurve_tensor::{DType, Device, Error, Result, Tensor, concat};
use smallvec::SmallVec;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Identifies a layer in this process, so that objects made for one layer are not used with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayerId(u64);

impl LayerId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The contribution of each token of a vocabulary to the gates: `E · W_ihᵀ + b` for an embedding `E` of shape `[V, I]`.
/// With it, sequences of ids need no input product. Made by [`Recurrent::token_table`], and usable only with that
/// layer.
#[derive(Debug)]
pub struct TokenTable {
    pub(crate) layer: LayerId,
    pub(crate) vocabulary: usize,
    pub(crate) rows: TableRows,
}

#[derive(Debug)]
pub(crate) enum TableRows {
    Cpu(crate::cpu::TokenRows),
    Gpu(crate::gpu::TokenRows),
    Pair(Box<[TableRows; 2]>),
}

/// Stacked recurrent layers in one or two directions, on a device, like PyTorch's `nn.RNN`, `nn.LSTM` and `nn.GRU`.
///
/// Equations, gate order and sources are those of `recurve_reference::recurrence`. The error against the f64
/// definition, for weights of usual scale (uniform in ±1/√H) and T up to 1024, is at most 2e-5 for LSTM and GRU and
/// 1e-4 for a SimpleRNN, on every device and with every strategy. The error of a timestep is a few ULP of sums of H
/// products, plus that of the activation ([`recurve_tensor::bounds`]). It does not grow with T, because each timestep
/// multiplies earlier errors by less than 1; this effect is weakest in a SimpleRNN.
#[derive(Debug)]
pub struct Recurrent {
    id: LayerId,
    cell: Cell,
    input_size: usize,
    hidden_size: usize,
    directions: Vec<Direction>,
    device: Device,
    levels: Vec<Level>,
    /// All layers as a wavefront, packed when it is first used; `None` if there is no such kernel.
    wave: Option<OnceLock<Wave>>,
}

/// One layer.
#[derive(Debug)]
enum Level {
    Cpu(CpuLayer),
    Gpu(Box<GpuLayer>),
    /// Two directions whose cells differ, each as a layer.
    Pair(Box<[Level; 2]>),
}

/// The states of the layers. Up to four are stored inline, so that a step of a stream allocates nothing.
type States = SmallVec<[Tensor; 4]>;

const STACK: &str = "Recurrent::stack";
const STEP: &str = "Recurrent::step_in_place";
const TABLE: &str = "Recurrent::token_table";

fn table_shape(got: &Tensor, input: usize) -> Error {
    let expected = format!("[vocabulary, features] with {input} features");
    Error::Shape { operation: TABLE, argument: "embeddings", expected, got: *got.shape() }
}

impl Level {
    fn new(config: &LevelConfig<'_>, device: &Device) -> Result<Self> {
        Ok(match device {
            Device::Cpu => Self::Cpu(CpuLayer::new(config)?),
            Device::Gpu(gpu) => Self::Gpu(Box::new(GpuLayer::new(config, gpu)?)),
        })
    }

    /// The layer on a GPU, if it is a single one there.
    fn gpu(&self) -> Option<&GpuLayer> {
        match self {
            Self::Gpu(l) => Some(l),
            _ => None,
        }
    }

    fn token_rows(&self, embeddings: &Tensor) -> Result<TableRows> {
        Ok(match self {
            Self::Cpu(l) => TableRows::Cpu(l.token_rows(embeddings)?),
            Self::Gpu(l) => TableRows::Gpu(l.token_rows(embeddings)?),
            Self::Pair(p) => TableRows::Pair(Box::new([p[0].token_rows(embeddings)?, p[1].token_rows(embeddings)?])),
        })
    }

    /// Runs a call with a strategy, or with the layout of a candidate.
    fn run(&self, call: &Call<'_>, strategy: Strategy, layout: Option<Layout>) -> Result<RecurrentOutput> {
        let pair = match self {
            Self::Cpu(l) => return l.forward(call),
            Self::Gpu(l) => {
                let layout = match layout {
                    Some(layout) => l.admitted(layout, call.sizes.batch)?,
                    None => l.choose(strategy, call.sizes.batch, call.sizes.timesteps)?,
                };
                return l.forward(layout, call);
            }
            Self::Pair(pair) => pair,
        };
        let one = |n: usize| {
            let part = |s: Option<&Tensor>| s.map(|s| s.slice(0, n..n + 1)).transpose();
            let (h0, c0) = (part(call.h0)?, part(call.c0)?);
            let input = match call.input {
                Input::Tokens(ids, TableRows::Pair(tables)) => Input::Tokens(ids, &tables[n]),
                other => other,
            };
            let sizes = crate::call::Sizes { directions: 1, ..call.sizes };
            pair[n].run(&Call { input, sizes, h0: h0.as_ref(), c0: c0.as_ref(), ..*call }, strategy, layout)
        };
        let (a, b) = (one(0)?, one(1)?);
        let join = |a: Option<&Tensor>, b: Option<&Tensor>, axis| match (a, b) {
            (Some(a), Some(b)) => concat(&[a, b], axis).map(Some),
            _ => Ok(None),
        };
        Ok(RecurrentOutput {
            y: join(a.y.as_ref(), b.y.as_ref(), 2)?,
            h: concat(&[&a.h, &b.h], 0)?,
            c: join(a.c.as_ref(), b.c.as_ref(), 0)?,
            strategy: a.strategy,
        })
    }
}

impl Recurrent {
    /// A layer with its weights packed for `device`. The CPU reads a few rows of a matrix at a time.
    ///
    /// # Errors
    /// [`Error::Argument`] if a size is zero, a weight has the wrong number of elements, there are
    /// not one or two directions, a clip or another parameter is out of its range, or the cell has
    /// an option or a weight that its kind does not know; [`Error::Unsupported`] for f16 weights on
    /// an adapter without f16; errors of the device.
    pub fn new<M: WeightSource>(config: &RecurrentConfig<'_, M>, device: &Device) -> Result<Self> {
        check_config(config)?;
        let cells = config.cells();
        let level = |layer: usize| {
            let one = |n: usize, directions| {
                let (input_size, hidden_size, weights) = (config.features(layer), config.hidden_size, config.weights);
                Level::new(&LevelConfig { cell: cells[n], input_size, hidden_size, directions, weights }, device)
            };
            let views: Vec<_> = config.layers[layer].iter().map(|(d, w)| (*d, w.view())).collect();
            let directions = &views[..];
            match directions {
                [_, _] if cells[0] != cells[1] => {
                    Ok(Level::Pair(Box::new([one(0, &directions[..1])?, one(1, &directions[1..])?])))
                }
                _ => one(0, directions),
            }
        };
        Ok(Self {
            id: LayerId::next(),
            cell: config.cell,
            input_size: config.input_size,
            hidden_size: config.hidden_size,
            directions: config.layers[0].iter().map(|d| d.0).collect(),
            device: device.clone(),
            levels: (0..config.layers.len()).map(level).collect::<Result<_>>()?,
            wave: wave(device, config.cell, config.layers.len(), config.layers[0].iter().map(|d| d.0)),
        })
    }

    /// Stacks layers. The result is the same as that of [`Self::new`] with all weights, but they need not be in host
    /// memory at the same time.
    ///
    /// # Errors
    /// [`Error::Argument`] if there are none, if they differ in cell, hidden units or directions, or if one does not
    /// read as many features as the one below returns; [`Error::Device`] if they are on different devices.
    pub fn stack(layers: Vec<Self>) -> Result<Self> {
        let bad = |message: String| Error::Argument { operation: STACK, argument: "layers", message };
        let mut layers = layers.into_iter();
        let Some(mut all) = layers.next() else { return Err(bad("must be at least one, but there is none".into())) };
        let features = all.directions.len() * all.cell.state_size(all.hidden_size);
        for (n, layer) in layers.enumerate() {
            let n = n + 1;
            if layer.device != all.device {
                return Err(Error::device(STACK, "layers", &all.device, &layer.device));
            }
            if (layer.cell, layer.hidden_size, &layer.directions) != (all.cell, all.hidden_size, &all.directions) {
                return Err(bad(format!(
                    "must be alike, but layer {n} has another cell, size or direction than the first"
                )));
            }
            if layer.input_size != features {
                let got = layer.input_size;
                return Err(bad(format!(
                    "must fit, but layer {n} takes {got} features and the one below has {features}"
                )));
            }
            all.levels.extend(layer.levels);
        }
        all.wave = wave(&all.device, all.cell, all.levels.len(), all.directions.iter().copied());
        Ok(all)
    }

    /// The cell.
    pub fn cell(&self) -> Cell {
        self.cell
    }

    /// Number of features of the input.
    pub fn input_size(&self) -> usize {
        self.input_size
    }

    /// Number of hidden units of each layer and direction.
    pub fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    /// The directions of each layer.
    pub fn directions(&self) -> &[Direction] {
        &self.directions
    }

    /// Number of stacked layers.
    pub fn num_layers(&self) -> usize {
        self.levels.len()
    }

    /// The device that the layers are on.
    pub fn device(&self) -> Device {
        self.device.clone()
    }

    pub(crate) fn id(&self) -> LayerId {
        self.id
    }

    /// The strategy that [`Strategy::Auto`] uses for this shape; on the CPU [`Strategy::Auto`] itself.
    pub fn strategy(&self, batch: usize, timesteps: usize) -> Strategy {
        let [batch, timesteps] = [batch, timesteps].map(|n| n.clamp(1, u32::MAX as usize));
        let mut level = &self.levels[0];
        loop {
            level = match level {
                Level::Cpu(_) => return Strategy::Auto,
                Level::Gpu(l) => {
                    let chosen = l.choose(Strategy::Auto, batch, timesteps);
                    return chosen.map_or(Strategy::Step, |c| c.strategy());
                }
                Level::Pair(p) => &p[0],
            }
        }
    }

    /// The ways in which a GPU can run this shape, the default one first. Empty on the CPU, for stacked layers, and for
    /// two directions with different cells.
    ///
    /// # Errors
    /// [`Error::Argument`] if a size is zero or not below 2^32; errors of the device.
    pub fn candidates(&self, batch: usize, timesteps: usize) -> Result<Vec<Candidate>> {
        counted("Recurrent::candidates", batch, timesteps)?;
        let [Level::Gpu(l)] = &self.levels[..] else { return Ok(Vec::new()) };
        let layouts = l.every_layout(batch, timesteps)?;
        Ok(layouts.into_iter().map(|layout| Candidate { layout, layer: self.id, batch, timesteps }).collect())
    }

    /// Measures the fastest way of running this shape on a GPU, which [`Strategy::Auto`] then uses. Every [`Candidate`]
    /// is timed in turn, unless the choice is known already. Choices are stored in a file by adapter, driver, version
    /// of Recurve, layer size and shape (batch and timesteps rounded up to powers of two): `recurve/tuning.tsv` in the
    /// user's cache folder, or the file named by `RECURVE_TUNING_FILE`; if that variable is empty, nothing is stored.
    /// On the CPU this does nothing.
    ///
    /// # Errors
    /// [`Error::Argument`] if a size is zero or not below 2^32; errors of the device.
    pub fn tune(&self, batch: usize, timesteps: usize) -> Result<()> {
        counted("Recurrent::tune", batch, timesteps)?;
        let mut rest: Vec<&Level> = self.levels.iter().collect();
        while let Some(level) = rest.pop() {
            match level {
                Level::Cpu(_) => {}
                Level::Gpu(l) => l.tune(batch, timesteps)?,
                Level::Pair(p) => rest.extend(&p[..]),
            }
        }
        Ok(())
    }

    /// Runs the layers over `x`, `[B, T, I]` or with `time_major` `[T, B, I]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x`, a state or the lengths have the wrong shape; [`Error::DType`] if `x` or a state is not
    /// f32 or the lengths are not U32; [`Error::Device`] if an operand is on another device; [`Error::Argument`] if a
    /// length exceeds T, a c is given to a cell without one, or the requested strategy cannot run this shape; errors of
    /// the device.
    pub fn forward(&self, x: &Tensor, args: &ForwardArgs<'_>) -> Result<RecurrentOutput> {
        self.run(&self.resolve(x, None, args)?, args)
    }

    /// Runs one timestep on the CPU in the caller's memory: `x` is `[B, I]`; the new h `[B, W]` and c `[B, H]` (c, n
    /// and m of an sLSTM `[B, 3·H]`) overwrite the old ones; c is empty for cells without one. For audio and control
    /// loops: it runs on the calling thread, makes no tensors, and allocates nothing after the first call with a batch
    /// size. The results are bit-identical to those of [`Self::forward`] over one timestep.
    ///
    /// # Errors
    /// [`Error::Argument`] if `x` is empty or its length is no multiple of I, a state has the wrong size, or there are
    /// two directions or stacked layers; [`Error::Unsupported`] if the layer is on a GPU; [`Error::OutOfMemory`].
    pub fn step_in_place(&self, x: &[f32], h: &mut [f32], c: &mut [f32]) -> Result<()> {
        let bad = |argument, message| Error::Argument { operation: STEP, argument, message };
        if let Device::Gpu(_) = self.device {
            let device = self.device.to_string();
            return Err(Error::Unsupported { operation: STEP, feature: "states in host memory", device });
        }
        let layer = match (&self.levels[..], &self.directions[..]) {
            ([Level::Cpu(l)], [_]) => l,
            ([_], _) => return Err(bad("self", "has two directions, and the end of a stream is not known".into())),
            _ => return Err(bad("self", "has stacked layers, each with a state of its own".into())),
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

    /// The contribution of each token to the gates, for [`Self::forward_tokens`]. It takes V · D · G · H floats of
    /// memory.
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
        let rows = self.levels[0].token_rows(embeddings)?;
        Ok(TokenTable { layer: self.id, vocabulary, rows })
    }

    /// [`Self::forward`] over ids `[B, T]`, or with `time_major` `[T, B]`. The input product is replaced by a look-up
    /// in the table; the result is the same up to rounding.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::DType`] unless `ids` are U32 ids of that shape, [`Error::Index`] if an id is not
    /// in the table, [`Error::Argument`] if the table was made by another layer; otherwise as [`Self::forward`].
    pub fn forward_tokens(&self, ids: &Tensor, table: &TokenTable, args: &ForwardArgs<'_>) -> Result<RecurrentOutput> {
        self.run(&self.resolve(ids, Some(table), args)?, args)
    }

    fn run(&self, call: &Call<'_>, args: &ForwardArgs<'_>) -> Result<RecurrentOutput> {
        let layout = args.candidate.map(|c| c.layout);
        if let Some(wave) = &self.wave
            && let Some(levels) = self.in_a_wave(call, args.strategy)
        {
            if wave.get().is_none() {
                // Two simultaneous calls may both pack it; one result is kept.
                let _ = wave.set(Wave::new(&levels)?);
            }
            return wave.get().expect("was set").forward(levels[0], call);
        }
        let (count, d) = (self.levels.len(), self.directions.len());
        if count == 1 {
            return self.levels[0].run(call, args.strategy, layout);
        }
        let (mut hs, mut cs) = (States::new(), States::new());
        let mut y = None;
        let mut strategy = Strategy::Auto;
        for (n, level) in self.levels.iter().enumerate() {
            let part = |s: Option<&Tensor>| s.map(|s| s.slice(0, n * d..(n + 1) * d)).transpose();
            let (h0, c0) = (part(call.h0)?, part(call.c0)?);
            let mut own = Call { h0: h0.as_ref(), c0: c0.as_ref(), ..*call };
            if let Some(below) = &y {
                own.input = Input::Features(below);
                own.sizes.input = d * call.sizes.width;
            }
            if n + 1 < count {
                own.outputs = Outputs::All;
                own.reading_order = false;
            }
            let out = level.run(&own, args.strategy, layout)?;
            strategy = out.strategy;
            hs.push(out.h);
            cs.extend(out.c);
            y = out.y;
        }
        let join = |parts: &[Tensor]| concat(&parts.iter().collect::<SmallVec<[&Tensor; 4]>>(), 0);
        let c = if cs.is_empty() { None } else { Some(join(&cs)?) };
        Ok(RecurrentOutput { y, h: join(&hs)?, c, strategy })
    }

    /// The layers on the GPU, if a wavefront runs them: where each would otherwise run by `step`.
    fn in_a_wave(&self, call: &Call<'_>, strategy: Strategy) -> Option<SmallVec<[&GpuLayer; 4]>> {
        let levels: SmallVec<[_; 4]> = self.levels.iter().map(Level::gpu).collect::<Option<_>>()?;
        (matches!(call.input, Input::Features(_)) && Wave::is_chosen(&levels, call, strategy)).then_some(levels)
    }
}

/// A place for the packed wavefront, if there is a kernel for these layers.
fn wave(
    device: &Device,
    cell: Cell,
    layers: usize,
    directions: impl Iterator<Item = Direction>,
) -> Option<OnceLock<Wave>> {
    let forwards = directions.eq([Direction::Forward]);
    (device.gpu().is_some() && layers > 1 && forwards && Wave::fits(cell)).then(OnceLock::new)
}

/// Checks that sizes are in the range of a call.
fn counted(operation: &'static str, batch: usize, timesteps: usize) -> Result<()> {
    let counted = 1..=u32::MAX as usize;
    if counted.contains(&batch) && counted.contains(&timesteps) {
        return Ok(());
    }
    let message = format!("must be at least 1 and below 2^32, but they are {batch} and {timesteps}");
    Err(Error::Argument { operation, argument: "batch, timesteps", message })
}
