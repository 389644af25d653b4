//! One recurrent layer: the public door of the kernels, where everything is checked.

use crate::cpu::CpuLayer;
use crate::gpu::GpuLayer;
use crate::{Cell, CellKind, Direction, DirectionWeights};
use recurve_tensor::{DType, Device, Error, Result, Shape, Tensor};

/// How a GPU runs the recurrence. Results agree within the bounds of the kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Chosen by shape and adapter.
    #[default]
    Auto,
    /// The whole sequence in one dispatch (more where the device limits loops): h in workgroup
    /// memory, one workgroup per tile of batch rows and direction. For small and middling H.
    Scan,
    /// One dispatch per timestep over tiles of hidden units, batch rows and directions. For large H
    /// and large batches.
    Step,
}

impl Strategy {
    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Scan => "scan",
            Self::Step => "step",
        }
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
    /// Initial h, `[D, B, H]`; zeros if `None`.
    pub h0: Option<&'a Tensor>,
    /// Initial c, `[D, B, H]`; zeros if `None`. LSTM only.
    pub c0: Option<&'a Tensor>,
    /// Valid timesteps of each sequence, `[B]`, U32, at most T. Outputs past the end are zero, the
    /// final state is that of the last valid step, and the reverse direction starts there.
    pub lengths: Option<&'a Tensor>,
    /// The input is `[T, B, I]` and the output `[T, B, D·H]`.
    pub time_major: bool,
    /// Which outputs to compute.
    pub outputs: Outputs,
    /// Outputs of a reverse direction in the order in which they were computed, as Keras's
    /// `go_backwards` returns them, in place of the order of the input.
    pub reading_order: bool,
    /// How a GPU runs the recurrence; without effect on the CPU.
    pub strategy: Strategy,
    /// Bytes that the input projection of a chunk of timesteps may take.
    pub projection_budget: usize,
}

impl Default for ForwardArgs<'_> {
    fn default() -> Self {
        Self {
            h0: None,
            c0: None,
            lengths: None,
            time_major: false,
            outputs: Outputs::All,
            reading_order: false,
            strategy: Strategy::Auto,
            projection_budget: 64 << 20,
        }
    }
}

/// The results of [`Recurrent::forward`].
#[derive(Clone, Debug)]
pub struct RecurrentOutput {
    /// `[B, T, D·H]` (or `[T, B, D·H]`), unless only the last was asked for.
    pub y: Option<Tensor>,
    /// Final h, `[D, B, H]`.
    pub h: Tensor,
    /// Final c, `[D, B, H]`; LSTM only.
    pub c: Option<Tensor>,
}

/// The sizes of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) batch: usize,
    pub(crate) timesteps: usize,
    pub(crate) input: usize,
    pub(crate) hidden: usize,
    pub(crate) directions: usize,
}

impl Sizes {
    /// The shape of all outputs, and its strides by batch row and by timestep.
    pub(crate) fn output(&self, time_major: bool) -> Result<(Shape, usize, usize)> {
        let (b, t, width) = (self.batch, self.timesteps, self.directions * self.hidden);
        let dims = if time_major { [t, b, width] } else { [b, t, width] };
        let shape = Shape::new(&dims).ok_or_else(|| Error::Argument {
            operation: FORWARD,
            argument: "x",
            message: "is too large for its output to be counted".into(),
        })?;
        let (row, time) = if time_major { (width, b * width) } else { (t * width, width) };
        Ok((shape, row, time))
    }

    pub(crate) fn state_shape(&self) -> Shape {
        Shape::new(&[self.directions, self.batch, self.hidden]).expect("smaller than tensors that exist")
    }
}

/// One layer of recurrent cells in one or two directions, on a device.
///
/// The equations, gate order and sources are those of [`recurve_reference::recurrence`]. Bounds
/// against the f64 definition, for weights of usual scale (uniform in ±1/√H) and T up to 1024: 2e-5
/// for LSTM and GRU, 1e-4 for a SimpleRNN, on every device and by every strategy. The error of a
/// step is a few ULP of sums of H products, plus 3e-7 of the activation; it does not grow with T
/// because the gates contract, which a SimpleRNN's tanh does least.
#[derive(Debug)]
pub struct Recurrent {
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
}

const NEW: &str = "Recurrent::new";
const FORWARD: &str = "Recurrent::forward";

impl Recurrent {
    /// A layer with its weights packed for `device`.
    ///
    /// # Errors
    /// [`Error::Argument`] if a size is zero, a weight has the wrong number of elements, there are
    /// not one or two directions, a clip or an activation's parameter is not finite, or peepholes
    /// are given for a cell that is no LSTM; errors of the device.
    pub fn new(config: &RecurrentConfig<'_>, device: &Device) -> Result<Self> {
        let bad = |argument, message: String| Error::Argument { operation: NEW, argument, message };
        let (i, h) = (config.input_size, config.hidden_size);
        if i == 0 || h == 0 {
            return Err(bad("input_size, hidden_size", format!("must be at least 1, but they are {i} and {h}")));
        }
        if !matches!(config.directions.len(), 1 | 2) {
            return Err(bad("directions", format!("must be one or two, but there are {}", config.directions.len())));
        }
        if let Some(clip) = config.cell.clip
            && !(clip.is_finite() && clip > 0.0)
        {
            return Err(bad("clip", format!("must be finite and above 0, but it is {clip}")));
        }
        for f in [config.cell.gate, config.cell.candidate, config.cell.output] {
            recurve_tensor::activation_code(f)?;
        }
        let rows = config.cell.kind.gates() * h;
        for (_, w) in config.directions {
            let check = |argument, got: usize, wanted: usize, letters: &str, optional: bool| {
                if got == wanted || (optional && got == 0) {
                    return Ok(());
                }
                Err(bad(argument, format!("must have {wanted} elements, {letters}, but it has {got}")))
            };
            check("w_ih", w.w_ih.len(), rows * i, "[G·H, I]", false)?;
            check("w_hh", w.w_hh.len(), rows * h, "[G·H, H]", false)?;
            check("b_ih", w.b_ih.len(), rows, "[G·H]", true)?;
            check("b_hh", w.b_hh.len(), rows, "[G·H]", true)?;
            check("peepholes", w.peepholes.len(), 3 * h, "[3·H]", true)?;
            if !w.peepholes.is_empty() && !matches!(config.cell.kind, CellKind::Lstm { .. }) {
                return Err(bad(
                    "peepholes",
                    format!("belong to an LSTM, but the cell is a {}", config.cell.kind.name()),
                ));
            }
        }
        let layer = match device {
            Device::Cpu => Layer::Cpu(CpuLayer::new(config)),
            Device::Gpu(gpu) => Layer::Gpu(Box::new(GpuLayer::new(config, gpu)?)),
        };
        Ok(Self {
            cell: config.cell,
            input_size: i,
            hidden_size: h,
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
        }
    }

    /// The strategy that [`Strategy::Auto`] stands for at this size; on the CPU always
    /// [`Strategy::Auto`] itself.
    pub fn strategy(&self, batch: usize, timesteps: usize) -> Strategy {
        match &self.layer {
            Layer::Cpu(_) => Strategy::Auto,
            Layer::Gpu(l) => l.choose(Strategy::Auto, batch, timesteps).unwrap_or(Strategy::Step),
        }
    }

    /// Runs the layer over `x`, `[B, T, I]` or with `time_major` `[T, B, I]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x`, a state or the lengths have the wrong shape; [`Error::DType`] if
    /// `x` or a state is not f32 or the lengths are not U32; [`Error::Device`] if an operand is on
    /// another device; [`Error::Argument`] if a length exceeds T, a c is given to a cell without
    /// one, or the strategy asked for cannot run this size; errors of the device.
    pub fn forward(&self, x: &Tensor, args: &ForwardArgs<'_>) -> Result<RecurrentOutput> {
        let sizes = self.check(x, args)?;
        match &self.layer {
            Layer::Cpu(l) => l.forward(x, args, &sizes, &self.directions),
            Layer::Gpu(l) => l.forward(x, args, &sizes, &self.directions),
        }
    }

    fn check(&self, x: &Tensor, args: &ForwardArgs<'_>) -> Result<Sizes> {
        let here = self.device();
        let device = |t: &Tensor, argument| {
            if t.device() == here {
                return Ok(());
            }
            let (expected, got) = (here.to_string(), t.device().to_string());
            Err(Error::Device { operation: FORWARD, argument, expected, got })
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
        let (batch, timesteps) = match *x.dims() {
            [a, b, i] if i == self.input_size => {
                if args.time_major {
                    (b, a)
                } else {
                    (a, b)
                }
            }
            _ => return shape(x, "x", format!("{layout} with {} features", self.input_size)),
        };
        float(x, "x")?;
        device(x, "x")?;
        let sizes = Sizes {
            batch,
            timesteps,
            input: self.input_size,
            hidden: self.hidden_size,
            directions: self.directions.len(),
        };
        if args.c0.is_some() && !self.cell.kind.has_cell_state() {
            let message = format!("belongs to an LSTM, but the cell is a {}", self.cell.kind.name());
            return Err(Error::Argument { operation: FORWARD, argument: "c0", message });
        }
        for (state, argument) in [(args.h0, "h0"), (args.c0, "c0")] {
            if let Some(t) = state {
                if *t.shape() != sizes.state_shape() {
                    return shape(t, argument, format!("[directions, batch, hidden] = {}", sizes.state_shape()));
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
        Ok(sizes)
    }
}
