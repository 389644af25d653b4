//! A recurrent layer whose weights are arguments, with its gradient: for training.
//!
//! The arguments of a call are checked and resolved once (`call.rs`); the kernels are in `cpu/training` and
//! `gpu/training`. Calls that keep little and compute it again are made of other calls (`checkpoints.rs`).
//!
//! Inside, time runs first. For each direction, the forward pass keeps what the gates were at each timestep ([`Reserve`])
//! and all states, in order of time and not of processing: a forward direction has its initial state at index 0 and the
//! state after timestep t at t + 1; a reverse direction has its initial state at T and the state after timestep t at t.
//! The states that the timesteps read are thus one range of memory, `[T, B, W]`, and the gradient of `W_hh` is one
//! product over all timesteps.

mod call;
mod checkpoints;

pub(crate) use call::{BackwardCall, TrainingCall};
pub use checkpoints::{Checkpointed, Checkpoints};

use crate::cpu::training::CpuTraining;
use crate::{Cell, Direction, MaskedOutput};
use recurve_tensor::{Activation, Device, Error, Result, Shape, Tensor};
use recurve_vocabulary::{CellKind, Rest};

/// The weights of one direction, or their gradients. Gates are in Recurve's order; shapes are those of
/// [`crate::DirectionWeights`]. An option of the cell needs its weights, and a cell without the option has none; biases
/// may be left out in any cell.
#[derive(Clone, Copy, Debug)]
pub struct TrainingWeights<T> {
    /// `[G·H, I]`
    pub w_ih: T,
    /// `[G·H, W]`, where W is H, or P with a projection; `[G·H, H / heads]` for an sLSTM, `[H]` for an IndRNN. The
    /// minimal cells have none.
    pub w_hh: Option<T>,
    /// `[G·H]`
    pub b_ih: Option<T>,
    /// Recurrent bias, `[G·H]`.
    pub b_hh: Option<T>,
    /// LSTM peepholes p_i, p_f, p_o: `[3·H]`.
    pub peepholes: Option<T>,
    /// The projection of h, `[P, H]`.
    pub w_hr: Option<T>,
    /// With layer normalization: gain and offset of `W_ih x`, `[2, G·H]`.
    pub norm_ih: Option<T>,
    /// With layer normalization: gain and offset of `W_hh h`, `[2, G·H]`.
    pub norm_hh: Option<T>,
    /// With layer normalization of an LSTM: gain and offset of c before the output gate, `[2, H]`.
    pub norm_c: Option<T>,
    /// Keeps the struct open for more fields: [`Self::new`] fills it.
    #[doc(hidden)]
    pub rest: Rest,
}

impl<T> TrainingWeights<T> {
    /// The fields, in the order of [`Self::into_list`].
    pub const NAMES: [&'static str; 9] =
        ["w_ih", "w_hh", "b_ih", "b_hh", "peepholes", "w_hr", "norm_ih", "norm_hh", "norm_c"];

    /// `w_ih`, and no other weights.
    pub fn new(w_ih: T) -> Self {
        Self {
            w_ih,
            w_hh: None,
            b_ih: None,
            b_hh: None,
            peepholes: None,
            w_hr: None,
            norm_ih: None,
            norm_hh: None,
            norm_c: None,
            rest: Rest::default(),
        }
    }

    /// The weights of a list in the order of [`Self::NAMES`]; `None` if `w_ih` is missing.
    pub fn from_list(list: [Option<T>; 9]) -> Option<Self> {
        let [w_ih, w_hh, b_ih, b_hh, peepholes, w_hr, norm_ih, norm_hh, norm_c] = list;
        let w_ih = w_ih?;
        Some(Self { w_ih, w_hh, b_ih, b_hh, peepholes, w_hr, norm_ih, norm_hh, norm_c, rest: Rest::default() })
    }

    /// The weights in the order of [`Self::NAMES`].
    pub fn into_list(self) -> [Option<T>; 9] {
        let Self { w_ih, w_hh, b_ih, b_hh, peepholes, w_hr, norm_ih, norm_hh, norm_c, .. } = self;
        [Some(w_ih), w_hh, b_ih, b_hh, peepholes, w_hr, norm_ih, norm_hh, norm_c]
    }

    /// The same weights by reference.
    pub fn as_ref(&self) -> TrainingWeights<&T> {
        TrainingWeights {
            w_ih: &self.w_ih,
            w_hh: self.w_hh.as_ref(),
            b_ih: self.b_ih.as_ref(),
            b_hh: self.b_hh.as_ref(),
            peepholes: self.peepholes.as_ref(),
            w_hr: self.w_hr.as_ref(),
            norm_ih: self.norm_ih.as_ref(),
            norm_hh: self.norm_hh.as_ref(),
            norm_c: self.norm_c.as_ref(),
            rest: self.rest,
        }
    }
}

/// The arguments of [`TrainingLayer::forward`] and [`TrainingLayer::backward`] besides input and weights. Both must get
/// the same.
#[derive(Clone, Copy, Debug, Default)]
pub struct TrainingArgs<'a> {
    /// Which row of the input each timestep reads, U32 `[B, T]` or with `time_major` `[T, B]`: the look-up of an
    /// embedding. The input is then a table `[V, I]`, and so is its gradient. On the CPU what depends on a row alone is
    /// computed once for each row that is read; a GPU, and passes with checkpoints, look the rows up first.
    pub ids: Option<&'a Tensor>,
    /// The initial h, `[D, B, W]`. Zeros if `None`.
    pub h0: Option<&'a Tensor>,
    /// The initial c, `[D, B, C·H]`: c of an LSTM; c, n and m of an sLSTM. Zeros if `None`; other cells have none.
    pub c0: Option<&'a Tensor>,
    /// The number of valid timesteps of each sequence, `[B]`, U32, at most T.
    pub lengths: Option<&'a Tensor>,
    /// Which timesteps are valid, U32 `[B, T]` whatever the layout of the input; nonzero means valid. Other timesteps
    /// leave the state unchanged. Not together with `lengths`.
    pub mask: Option<&'a Tensor>,
    /// The output at timesteps where the mask is zero.
    pub masked_output: MaskedOutput,
    /// Whether the input is `[T, B, I]` and the output `[T, B, D·W]`, instead of `[B, T, I]` and `[B, T, D·W]`.
    pub time_major: bool,
    /// Whether the outputs of a reverse direction come in the order in which they were computed.
    pub reading_order: bool,
    /// Factors on the h that the recurrent product of each gate reads, `[D, G, B, W]`, or `[D, 1, B, W]` for all gates:
    /// 0 for what is dropped. They are the same at every timestep. Whatever else reads h has the whole of it. Not for
    /// the minimal cells, which have no recurrent product.
    pub recurrent_dropout: Option<&'a Tensor>,
    /// For each timestep the share of the old h in the new one, `[D, T, B, W]`, instead of the cell's zoneout: 1 keeps
    /// the old value, 0 takes the new one. SimpleRNN, LSTM and GRU.
    pub zoneout_h: Option<&'a Tensor>,
    /// The same for c of an LSTM, `[D, T, B, H]`.
    pub zoneout_c: Option<&'a Tensor>,
    /// How a GPU runs the timesteps. Forward and backward pass need not have the same form. The CPU has one way.
    pub form: TrainingForm,
    /// Keeps the struct open for more fields: a literal ends in `..` and a default.
    #[doc(hidden)]
    pub rest: Rest,
}

/// How a GPU runs the timesteps of a [`TrainingLayer`]. All forms give the same results within the error bounds of the
/// kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrainingForm {
    /// Chosen by the cell, its options, the sizes and the device.
    #[default]
    Auto,
    /// One workgroup for some batch rows of a direction runs over many timesteps: SimpleRNN, LSTM and GRU without
    /// further options, of sizes that a workgroup can hold.
    Scan,
    /// One dispatch for each timestep, with its product: the same cells, but a GRU with the reset gate after the
    /// product.
    Step,
    /// Products and a dispatch for the rest in each timestep: every cell and option.
    Products,
}

impl TrainingForm {
    /// The name in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Scan => "scan",
            Self::Step => "step",
            Self::Products => "products",
        }
    }
}

/// The results of [`TrainingLayer::forward`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Trained {
    /// The outputs, `[B, T, D·W]` (or `[T, B, D·W]`).
    pub y: Tensor,
    /// The final h, `[D, B, W]`.
    pub h: Tensor,
    /// The final c, `[D, B, C·H]`; `None` for cells without one.
    pub c: Option<Tensor>,
    /// What [`TrainingLayer::backward`] needs.
    pub reserve: Reserve,
}

/// What the forward pass keeps for the backward pass. The shapes are those of [`TrainingLayer::reserve_shapes`]; the
/// contents at timesteps that are not valid are unspecified, except for the states.
#[derive(Clone, Debug)]
pub struct Reserve {
    /// The gates of every timestep, `[D, T, B, K·H]`, K blocks of H:
    ///
    /// | cell | blocks |
    /// |---|---|
    /// | SimpleRNN, IndRNN | h before zoneout |
    /// | LSTM | i f g o |
    /// | GRU, reset gate after the product | r z n, and `W_hn h + b_hn` |
    /// | GRU, reset gate before the product | r z n |
    /// | minGRU | z n |
    /// | minLSTM | f i n |
    /// | sLSTM | the sums of i and f, without clip; z o |
    ///
    /// Gates are kept with their activations applied, or as the sums before clip and activation where
    /// [`keeps_sums`] says so.
    pub gates: Tensor,
    /// h, `[D, T + 1, B, W]`, in order of time.
    pub h: Tensor,
    /// c, `[D, T + 1, B, C·H]`, in order of time, for cells with one.
    pub c: Option<Tensor>,
    /// With layer normalization, `[D, T, B, 2·G·H + 2]`: `W_ih x` and `W_hh h`, each with mean 0 and variance 1 (without
    /// gain and offset), and what each was multiplied by for that.
    pub norms: Option<Tensor>,
    /// Keeps the struct open for more fields: [`Self::new`] fills it.
    #[doc(hidden)]
    pub rest: Rest,
}

impl Reserve {
    /// A reserve of these tensors.
    pub fn new(gates: Tensor, h: Tensor, c: Option<Tensor>, norms: Option<Tensor>) -> Self {
        Self { gates, h, c, norms, rest: Rest::default() }
    }
}

/// The shapes of a [`Reserve`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReserveShapes {
    /// That of the gates.
    pub gates: Shape,
    /// That of h.
    pub h: Shape,
    /// That of c, for cells with one.
    pub c: Option<Shape>,
    /// That of the norms, with layer normalization.
    pub norms: Option<Shape>,
}

/// The gradient of a loss by the results of [`TrainingLayer::forward`], in their shapes; zeros where one is `None`.
#[derive(Clone, Copy, Debug, Default)]
pub struct OutputGradients<'a> {
    /// By the outputs.
    pub y: Option<&'a Tensor>,
    /// By the final h.
    pub h: Option<&'a Tensor>,
    /// By the final c.
    pub c: Option<&'a Tensor>,
    /// Keeps the struct open for more fields: a literal ends in `..` and a default.
    #[doc(hidden)]
    pub rest: Rest,
}

/// Which gradients [`TrainingLayer::backward`] computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Those by the input.
    pub x: bool,
    /// Those by the initial states.
    pub states: bool,
    /// Those by the weights.
    pub weights: bool,
    /// Keeps the struct open for more fields: a literal ends in `..` and a default.
    #[doc(hidden)]
    pub rest: Rest,
}

/// All.
impl Default for Wanted {
    fn default() -> Self {
        Self { x: true, states: true, weights: true, rest: Rest::default() }
    }
}

/// The results of [`TrainingLayer::backward`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Gradients {
    /// By the input, in its shape; zero at timesteps that are not valid.
    pub x: Option<Tensor>,
    /// By the initial h, `[D, B, W]`.
    pub h0: Option<Tensor>,
    /// By the initial c, `[D, B, C·H]`, for cells with one.
    pub c0: Option<Tensor>,
    /// By the weights of each direction; empty if they were not asked for.
    pub weights: Vec<TrainingWeights<Tensor>>,
}

/// Whether the reserve of a cell holds the sums of its gates, before clip and activation, instead of the gates: with a
/// `clip`, or if one of its gates or its candidate has an activation whose derivative needs them
/// ([`Activation::slope_needs_input`]).
pub fn keeps_sums(cell: &Cell) -> bool {
    let [a, b, c] = cell.gates;
    let used: &[Activation] = match cell.kind {
        CellKind::Lstm { coupled: false } => &[a, b, c],
        CellKind::Lstm { coupled: true } => &[a, c],
        CellKind::Gru { .. } | CellKind::MinLstm => &[a, b],
        CellKind::MinGru => &[a],
        CellKind::SLstm { .. } => &[c],
        _ => &[],
    };
    cell.clip.is_some() || cell.candidate.slope_needs_input() || used.iter().any(|f| f.slope_needs_input())
}

/// The number of blocks of H that a cell keeps for each timestep.
pub(crate) fn kept_blocks(kind: CellKind) -> usize {
    kind.gates() + usize::from(kind == CellKind::Gru { reset_after: true })
}

/// A recurrent layer in one or two directions whose weights are arguments: for training, where they change with every
/// step. Equations are those of `recurve_reference::recurrence_with`.
///
/// The bits of all results are the same from run to run, and on the CPU with any number of threads.
#[derive(Debug)]
pub struct TrainingLayer {
    cell: Cell,
    input_size: usize,
    hidden_size: usize,
    directions: Vec<Direction>,
    /// Of a layer in two directions each of them, for calls with checkpoints.
    apart: Vec<TrainingLayer>,
    cpu: CpuTraining,
}

const NEW: &str = "TrainingLayer::new";
const FORWARD: &str = "TrainingLayer::forward";
const BACKWARD: &str = "TrainingLayer::backward";

impl TrainingLayer {
    /// A layer of a cell with `hidden_size` units that reads `input_size` features.
    ///
    /// # Errors
    /// [`Error::Argument`] if a size is zero or too large, there are not one or two directions, a parameter of the cell
    /// is out of its range, or the cell has an option that its kind does not know.
    pub fn new(cell: Cell, input_size: usize, hidden_size: usize, directions: &[Direction]) -> Result<Self> {
        call::check_layer(&cell, input_size, hidden_size, directions)?;
        let layer = |directions: &[Direction], apart| Self {
            cell,
            input_size,
            hidden_size,
            directions: directions.to_vec(),
            apart,
            cpu: CpuTraining::default(),
        };
        let apart = match directions {
            [_, _] => directions.iter().map(|d| layer(&[*d], Vec::new())).collect(),
            _ => Vec::new(),
        };
        Ok(layer(directions, apart))
    }

    /// The cell.
    pub fn cell(&self) -> Cell {
        self.cell
    }

    /// Number of features of the input, `I`.
    pub fn input_size(&self) -> usize {
        self.input_size
    }

    /// Number of hidden units of each direction, `H`.
    pub fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    /// The directions.
    pub fn directions(&self) -> &[Direction] {
        &self.directions
    }

    /// The dimensions of each weight of a direction, in the order of [`TrainingWeights::NAMES`]; none for a weight that
    /// the layer does not have. Biases may be left out.
    pub fn weight_dims(&self) -> [Option<Vec<usize>>; 9] {
        let (i, h, cell) = (self.input_size, self.hidden_size, &self.cell);
        let (rows, width) = (cell.kind.gates() * h, cell.state_size(h));
        let norm = cell.layer_norm.is_some();
        let w_hh = match cell.kind {
            CellKind::MinGru | CellKind::MinLstm => None,
            CellKind::IndRnn => Some(vec![h]),
            kind => Some(vec![rows, kind.columns(width)]),
        };
        [
            Some(vec![rows, i]),
            w_hh,
            Some(vec![rows]),
            Some(vec![rows]),
            cell.peepholes.then(|| vec![3 * h]),
            cell.projection.map(|p| vec![p, h]),
            norm.then(|| vec![2, rows]),
            norm.then(|| vec![2, rows]),
            (norm && cell.kind.has_cell_state()).then(|| vec![2, h]),
        ]
    }

    /// The shapes of the reserve of a call.
    ///
    /// # Errors
    /// [`Error::Argument`] if a size is zero or one of the shapes is too large to be counted.
    pub fn reserve_shapes(&self, batch: usize, timesteps: usize) -> Result<ReserveShapes> {
        let (d, h, cell) = (self.directions.len(), self.hidden_size, &self.cell);
        let (width, carried) = cell.state_sizes(h);
        let shape = |time: usize, last: usize| {
            Shape::new(&[d, time, batch, last]).ok_or_else(|| Error::Argument {
                operation: "TrainingLayer::reserve_shapes",
                argument: "batch, timesteps",
                message: format!(
                    "must be at least 1 and small enough to be counted, but they are {batch}, {timesteps}"
                ),
            })
        };
        let states = timesteps.saturating_add(1);
        let norms = cell.layer_norm.map(|_| 2 * cell.kind.gates() * h + 2);
        Ok(ReserveShapes {
            gates: shape(timesteps, kept_blocks(cell.kind) * h)?,
            h: shape(states, width)?,
            c: carried.map(|c| shape(states, c)).transpose()?,
            norms: norms.map(|n| shape(timesteps, n)).transpose()?,
        })
    }

    /// Runs the layer over `x`, `[B, T, I]` or with `time_major` `[T, B, I]`, or with `ids` a table `[V, I]`, with the
    /// weights of each direction.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DType`] and [`Error::Device`] for a tensor of the wrong shape, type or device;
    /// [`Error::Argument`] if a weight is missing or belongs to no option of the cell, if a length exceeds T, or if an
    /// argument does not belong to the cell or a GPU cannot run it in the `form` that was asked for;
    /// [`Error::OutOfMemory`] and other errors of the device.
    pub fn forward(
        &self,
        x: &Tensor,
        weights: &[TrainingWeights<&Tensor>],
        args: &TrainingArgs<'_>,
    ) -> Result<Trained> {
        let call = self.resolve(FORWARD, x, weights, args)?;
        if let (Some(ids), true) = (args.ids, x.device() != Device::Cpu) {
            return self.forward(&x.gather(ids)?, weights, &TrainingArgs { ids: None, ..*args });
        }
        match x.device() {
            Device::Cpu => self.cpu.forward(&call),
            Device::Gpu(gpu) => crate::gpu::training::forward(&gpu, &call),
        }
    }

    /// The gradient of a loss by input, initial states and weights, from its gradient `by` the results of
    /// [`Self::forward`], which has returned `reserve` for the same input, weights and arguments.
    ///
    /// # Errors
    /// As [`Self::forward`].
    #[expect(clippy::too_many_arguments, reason = "what forward took, what it kept, and what is asked for")]
    pub fn backward(
        &self,
        x: &Tensor,
        weights: &[TrainingWeights<&Tensor>],
        args: &TrainingArgs<'_>,
        reserve: &Reserve,
        by: &OutputGradients<'_>,
        wanted: Wanted,
    ) -> Result<Gradients> {
        let call = self.resolve_backward(x, weights, args, reserve, by, wanted)?;
        if let (Some(ids), true) = (args.ids, x.device() != Device::Cpu) {
            let args = TrainingArgs { ids: None, ..*args };
            let mut out = self.backward(&x.gather(ids)?, weights, &args, reserve, by, wanted)?;
            out.x = out.x.map(|dx| dx.sum_rows(ids, x.dims()[0])).transpose()?;
            return Ok(out);
        }
        match x.device() {
            Device::Cpu => self.cpu.backward(&call),
            Device::Gpu(gpu) => crate::gpu::training::backward(&gpu, &call),
        }
    }
}
