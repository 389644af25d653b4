//! The arguments of one call, checked and resolved once.

use crate::recurrent::{TableRows, TokenTable};
use crate::{Candidate, MaskedOutput, Recurrent, Strategy};
use recurve_tensor::{DType, Error, Result, Shape, Tensor};
use recurve_vocabulary::Rest;

/// Which outputs a call computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outputs {
    /// The h of every timestep, and the final states.
    #[default]
    All,
    /// Only the final states.
    Last,
}

/// The arguments of [`Recurrent::forward`] besides the input.
#[derive(Clone, Copy, Debug)]
pub struct ForwardArgs<'a> {
    /// The initial h, `[L·D, B, H]` for L stacked layers with D directions (`[L·D, B, P]` with a projection to P
    /// elements). The directions of a layer are adjacent. Zeros if `None`.
    pub h0: Option<&'a Tensor>,
    /// The initial c of an LSTM `[L·D, B, H]`, or c, n and m of an sLSTM `[L·D, B, 3·H]`. Zeros if `None`; other cells
    /// have none.
    pub c0: Option<&'a Tensor>,
    /// The number of valid timesteps of each sequence, `[B]`, U32, at most T. Outputs past the end are zero, the final
    /// state is that of the last valid timestep, and the reverse direction starts there.
    pub lengths: Option<&'a Tensor>,
    /// Which timesteps are valid, U32 `[B, T]` whatever the layout of the input; nonzero means valid. Other timesteps
    /// leave the state unchanged. Not together with `lengths`.
    pub mask: Option<&'a Tensor>,
    /// The output at timesteps where the mask is zero.
    pub masked_output: MaskedOutput,
    /// Whether the input is `[T, B, I]` and the output `[T, B, D·H]`, instead of `[B, T, I]` and `[B, T, D·H]`.
    pub time_major: bool,
    /// Which outputs to compute.
    pub outputs: Outputs,
    /// Whether the outputs of a reverse direction come in the order in which they were computed, as Keras's
    /// `go_backwards` returns them, instead of at their own timesteps.
    pub reading_order: bool,
    /// How a GPU runs the recurrence; no effect on the CPU.
    pub strategy: Strategy,
    /// One of [`Recurrent::candidates`], instead of a strategy.
    pub candidate: Option<Candidate>,
    /// Largest size of the input projection of a chunk of timesteps, in bytes.
    pub projection_budget: usize,
    /// Keeps the struct open for more fields: a literal ends in `..` and a default.
    #[doc(hidden)]
    pub rest: Rest,
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
            candidate: None,
            projection_budget: 64 << 20,
            rest: Rest::default(),
        }
    }
}

/// The results of [`Recurrent::forward`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RecurrentOutput {
    /// The outputs, `[B, T, D·W]` (or `[T, B, D·W]`), where W is H, or P with a projection. `None` if only the final
    /// states were asked for.
    pub y: Option<Tensor>,
    /// The final h, `[L·D, B, W]`.
    pub h: Tensor,
    /// The final c of an LSTM `[L·D, B, H]`, or c, n and m of an sLSTM `[L·D, B, 3·H]`; `None` for other cells.
    pub c: Option<Tensor>,
    /// The strategy that computed the result on a GPU. It is `Step` also if `Grid` was asked for and gave up. `Auto` on
    /// the CPU.
    pub strategy: Strategy,
}

/// The input of a layer.
#[derive(Clone, Copy)]
pub(crate) enum Input<'a> {
    /// Features, `[B, T, I]`, or with `time_major` `[T, B, I]`.
    Features(&'a Tensor),
    /// Ids, `[B, T]`, or with `time_major` `[T, B]`, and the token table.
    Tokens(&'a Tensor, &'a TableRows),
}

/// The sizes of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) batch: usize,
    pub(crate) timesteps: usize,
    pub(crate) input: usize,
    #[cfg_attr(not(feature = "gpu"), expect(dead_code, reason = "only kernels of GPUs ask for it"))]
    pub(crate) hidden: usize,
    /// Number of elements of h.
    pub(crate) width: usize,
    /// Number of elements of c, or of c, n and m of an sLSTM; H for cells that have none of these.
    pub(crate) carried: usize,
    pub(crate) directions: usize,
}

impl Sizes {
    /// The shape of the outputs, and its strides from batch row to batch row and from timestep to timestep.
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
        Shape::new(&[self.directions, self.batch, self.carried]).expect("smaller than tensors that exist")
    }
}

/// Which timesteps of a call are valid, and the output at the others.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ValidSteps<'a> {
    All,
    /// The number of valid timesteps of each sequence, `[B]`.
    Lengths(&'a Tensor),
    /// Nonzero where a timestep is valid, `[B, T]`.
    Mask(&'a Tensor, MaskedOutput),
}

impl<'a> ValidSteps<'a> {
    /// The tensor of lengths or of the mask, if there is one.
    pub(crate) fn tensor(self) -> Option<&'a Tensor> {
        match self {
            Self::All => None,
            Self::Lengths(t) | Self::Mask(t, _) => Some(t),
        }
    }

    /// Whether the output at timesteps that are not valid is the unchanged h.
    pub(crate) fn repeats(self) -> bool {
        matches!(self, Self::Mask(_, MaskedOutput::Repeat))
    }
}

/// A call of one layer. Its arguments have been checked; no code below checks them again.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) input: Input<'a>,
    pub(crate) sizes: Sizes,
    /// The initial h, `[D, B, W]`.
    pub(crate) h0: Option<&'a Tensor>,
    /// The initial c, `[D, B, H]`.
    pub(crate) c0: Option<&'a Tensor>,
    pub(crate) valid: ValidSteps<'a>,
    pub(crate) time_major: bool,
    pub(crate) outputs: Outputs,
    pub(crate) reading_order: bool,
    pub(crate) projection_budget: usize,
}

const FORWARD: &str = "Recurrent::forward";

impl Recurrent {
    /// Checks the arguments of a call. The states are those of all layers, `[L·D, B, …]`.
    pub(crate) fn resolve<'a>(
        &self,
        x: &'a Tensor,
        table: Option<&'a TokenTable>,
        args: &ForwardArgs<'a>,
    ) -> Result<Call<'a>> {
        let directions = self.directions().len();
        let states = self.num_layers() * directions;
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
        let whole = |t: &Tensor, argument| {
            if t.dtype() == DType::U32 {
                return Ok(());
            }
            Err(Error::DType { operation: FORWARD, argument, expected: "u32", got: t.dtype() })
        };
        let shape = |t: &Tensor, argument, expected: String| {
            Err(Error::Shape { operation: FORWARD, argument, expected, got: *t.shape() })
        };
        let layout = if args.time_major { "[timesteps, batch, features]" } else { "[batch, timesteps, features]" };
        let (first, second, input) = match table {
            None => {
                let features = self.input_size();
                let &[a, b, i] = x.dims() else {
                    return shape(x, "x", format!("{layout} with {features} features"));
                };
                if i != features {
                    return shape(x, "x", format!("{layout} with {features} features"));
                }
                float(x, "x")?;
                device(x, "x")?;
                (a, b, Input::Features(x))
            }
            Some(table) => {
                let &[a, b] = x.dims() else {
                    let expected = if args.time_major { "[timesteps, batch]" } else { "[batch, timesteps]" };
                    return shape(x, "ids", expected.into());
                };
                whole(x, "ids")?;
                device(x, "ids")?;
                if table.layer != self.id() {
                    return Err(Error::Argument {
                        operation: FORWARD,
                        argument: "table",
                        message: "was made by another layer".into(),
                    });
                }
                if x.bound() as usize >= table.vocabulary {
                    let (index, len) = (x.bound().into(), table.vocabulary);
                    return Err(Error::Index { operation: FORWARD, argument: "ids", index, len });
                }
                (a, b, Input::Tokens(x, &table.rows))
            }
        };
        let (batch, timesteps) = if args.time_major { (second, first) } else { (first, second) };
        let sizes = Sizes {
            batch,
            timesteps,
            input: self.input_size(),
            hidden: self.hidden_size(),
            width: self.cell().state_size(self.hidden_size()),
            carried: self.cell().state_sizes(self.hidden_size()).1.unwrap_or(self.hidden_size()),
            directions,
        };
        // The elements of all gates of a timestep, and those of all states, must not overflow the index type.
        let gates = 4 * self.cell().kind.gates() * self.hidden_size();
        if Shape::new(&[states, batch, gates]).is_none() {
            return Err(Error::Argument {
                operation: FORWARD,
                argument: "x",
                message: format!("has a batch of {batch}, whose states are too large to be counted"),
            });
        }
        if let Some(c) = args.candidate
            && (c.layer, c.batch, c.timesteps) != (self.id(), batch, timesteps)
        {
            let whose = if c.layer == self.id() { "shape" } else { "layer" };
            let message = format!("`{c}` was listed for another {whose}");
            return Err(Error::Argument { operation: FORWARD, argument: "candidate", message });
        }
        if args.c0.is_some() && !self.cell().kind.has_cell_state() {
            let message = format!("belongs to an LSTM or sLSTM, but the cell is a {}", self.cell().kind.name());
            return Err(Error::Argument { operation: FORWARD, argument: "c0", message });
        }
        let parts = match (self.num_layers(), directions) {
            (1, _) => "directions",
            (_, 1) => "layers",
            _ => "layers · directions",
        };
        for (state, argument, width) in [(args.h0, "h0", sizes.width), (args.c0, "c0", sizes.carried)] {
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
            whole(t, "lengths")?;
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
            whole(t, "mask")?;
            device(t, "mask")?;
            if args.lengths.is_some() {
                return Err(Error::Argument {
                    operation: FORWARD,
                    argument: "mask",
                    message: "cannot be given together with lengths".into(),
                });
            }
        }
        let valid = match (args.lengths, args.mask) {
            (Some(lengths), _) => ValidSteps::Lengths(lengths),
            (None, Some(mask)) => ValidSteps::Mask(mask, args.masked_output),
            (None, None) => ValidSteps::All,
        };
        let ForwardArgs { h0, c0, time_major, outputs, reading_order, projection_budget, .. } = *args;
        Ok(Call { input, sizes, h0, c0, valid, time_major, outputs, reading_order, projection_budget })
    }
}
