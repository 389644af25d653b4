//! The arguments of one call of a [`TrainingLayer`], checked and resolved once.

use super::checkpoints::{Checkpoints, segments};
use super::{
    BACKWARD, NEW, OutputGradients, Reserve, TrainingArgs, TrainingForm, TrainingLayer, TrainingWeights, Wanted,
};
use crate::call::ValidSteps;
use crate::config::check_cell;
use crate::{Cell, Direction};
use recurve_tensor::{DType, Device, Error, Result, Shape, Tensor};
use recurve_vocabulary::CellKind;

/// A forward call. Its arguments have been checked; no code below checks them again.
#[derive(Clone, Copy)]
pub(crate) struct TrainingCall<'a> {
    pub(crate) cell: Cell,
    pub(crate) directions: &'a [Direction],
    pub(crate) x: &'a Tensor,
    /// Which row of x each timestep reads. Kernels of a GPU never get it: [`TrainingLayer`] looks the rows up first.
    pub(crate) ids: Option<&'a Tensor>,
    pub(crate) weights: &'a [TrainingWeights<&'a Tensor>],
    pub(crate) batch: usize,
    pub(crate) timesteps: usize,
    pub(crate) input: usize,
    pub(crate) hidden: usize,
    /// Number of elements of h.
    pub(crate) width: usize,
    /// Number of elements of c; 0 for cells without one.
    pub(crate) carried: usize,
    pub(crate) h0: Option<&'a Tensor>,
    pub(crate) c0: Option<&'a Tensor>,
    pub(crate) valid: ValidSteps<'a>,
    pub(crate) time_major: bool,
    pub(crate) reading_order: bool,
    pub(crate) recurrent_dropout: Option<&'a Tensor>,
    pub(crate) zoneout_h: Option<&'a Tensor>,
    pub(crate) zoneout_c: Option<&'a Tensor>,
    #[cfg_attr(not(feature = "gpu"), expect(dead_code, reason = "only a GPU has several forms"))]
    pub(crate) form: TrainingForm,
    pub(crate) shapes: super::ReserveShapes,
}

/// A backward call.
#[derive(Clone, Copy)]
pub(crate) struct BackwardCall<'a> {
    pub(crate) forward: TrainingCall<'a>,
    pub(crate) reserve: &'a Reserve,
    pub(crate) dy: Option<&'a Tensor>,
    pub(crate) dh: Option<&'a Tensor>,
    pub(crate) dc: Option<&'a Tensor>,
    pub(crate) wanted: Wanted,
}

impl TrainingCall<'_> {
    /// The shape of the outputs.
    pub(crate) fn y_shape(&self) -> Shape {
        let (b, t, width) = (self.batch, self.timesteps, self.directions.len() * self.width);
        let dims = if self.time_major { [t, b, width] } else { [b, t, width] };
        Shape::new(&dims).expect("no larger than the kept states")
    }

    /// The shape of h.
    pub(crate) fn h_shape(&self) -> Shape {
        Shape::new(&[self.directions.len(), self.batch, self.width]).expect("smaller than the kept states")
    }

    /// The shape of c, for cells with one.
    pub(crate) fn c_shape(&self) -> Option<Shape> {
        (self.carried > 0).then(|| {
            Shape::new(&[self.directions.len(), self.batch, self.carried]).expect("smaller than the kept states")
        })
    }
}

pub(super) fn check_layer(cell: &Cell, input: usize, hidden: usize, directions: &[Direction]) -> Result<()> {
    let bad = |argument, message: String| Err(Error::Argument { operation: NEW, argument, message });
    if input == 0 || hidden == 0 {
        return bad("input_size, hidden_size", format!("must be at least 1, but they are {input} and {hidden}"));
    }
    if !matches!(directions.len(), 1 | 2) {
        return bad("directions", format!("must be one or two, but there are {}", directions.len()));
    }
    if input.max(hidden).checked_mul(hidden).and_then(|n| n.checked_mul(64)).is_none() {
        return bad("input_size, hidden_size", format!("are too large to be counted: {input} and {hidden}"));
    }
    check_cell(cell, hidden).map_err(|e| match e {
        Error::Argument { argument, message, .. } => Error::Argument { operation: NEW, argument, message },
        other => other,
    })
}

/// The checks of the tensors of a call.
struct Checks<'a> {
    operation: &'static str,
    device: &'a Device,
}

impl Checks<'_> {
    fn shape(&self, argument: &'static str, t: &Tensor, letters: &str, dims: &[usize]) -> Result<()> {
        if t.dims() == dims {
            return Ok(());
        }
        let expected = format!("{letters} = {dims:?}");
        Err(Error::Shape { operation: self.operation, argument, expected, got: *t.shape() })
    }

    fn of(&self, argument: &'static str, t: &Tensor, dtype: DType) -> Result<()> {
        if t.dtype() != dtype {
            let expected = if dtype == DType::F32 { "f32" } else { "u32" };
            return Err(Error::DType { operation: self.operation, argument, expected, got: t.dtype() });
        }
        if t.device() != *self.device {
            return Err(Error::device(self.operation, argument, self.device, &t.device()));
        }
        Ok(())
    }

    /// A tensor of floats, if it is given.
    fn floats(&self, argument: &'static str, t: Option<&Tensor>, letters: &str, dims: &[usize]) -> Result<()> {
        let Some(t) = t else { return Ok(()) };
        self.shape(argument, t, letters, dims)?;
        self.of(argument, t, DType::F32)
    }

    fn bad<T>(&self, argument: &'static str, message: impl Into<String>) -> Result<T> {
        Err(Error::Argument { operation: self.operation, argument, message: message.into() })
    }

    /// The gradients by the outputs of a call.
    fn outputs(&self, forward: &TrainingCall<'_>, by: &OutputGradients<'_>) -> Result<()> {
        self.floats("dy", by.y, "the shape of y", forward.y_shape().dims())?;
        self.floats("dh", by.h, "[directions, batch, hidden]", forward.h_shape().dims())?;
        match forward.c_shape() {
            Some(shape) => self.floats("dc", by.c, "[directions, batch, hidden]", shape.dims()),
            None if by.c.is_some() => {
                let name = forward.cell.kind.name();
                self.bad("dc", format!("belongs to an LSTM or sLSTM, but the cell is a {name}"))
            }
            None => Ok(()),
        }
    }
}

/// The letters of the dimensions of each weight, in the order of [`TrainingWeights::NAMES`].
const LETTERS: [&str; 9] =
    ["[G·H, I]", "[G·H, H]", "[G·H]", "[G·H]", "[3·H]", "[P, H]", "[2, G·H]", "[2, G·H]", "[2, H]"];

impl TrainingLayer {
    pub(super) fn resolve<'a>(
        &'a self,
        operation: &'static str,
        x: &'a Tensor,
        weights: &'a [TrainingWeights<&'a Tensor>],
        args: &TrainingArgs<'a>,
    ) -> Result<TrainingCall<'a>> {
        let device = x.device();
        let check = Checks { operation, device: &device };
        let (cell, h, d) = (self.cell, self.hidden_size, self.directions.len());
        let (width, carried) = cell.state_sizes(h);
        let name = cell.kind.name();
        let input = self.input_size;
        let layout = if args.time_major { "[timesteps, batch, features]" } else { "[batch, timesteps, features]" };
        let (first, second) = match (x.dims(), args.ids.map(Tensor::dims)) {
            (&[first, second, i], None) if i == input => (first, second),
            (&[_, i], Some(&[first, second])) if i == input => (first, second),
            (&[_, i], Some(_)) if i == input => {
                let got = args.ids.map_or(*x.shape(), |ids| *ids.shape());
                let expected = layout.replace(", features", "");
                return Err(Error::Shape { operation, argument: "ids", expected, got });
            }
            (_, ids) => {
                let layout = if ids.is_some() { "[rows, features]" } else { layout };
                let expected = format!("{layout} with {input} features");
                return Err(Error::Shape { operation, argument: "x", expected, got: *x.shape() });
            }
        };
        check.of("x", x, DType::F32)?;
        if let Some(ids) = args.ids {
            check.of("ids", ids, DType::U32)?;
            let (index, len) = (ids.bound().into(), x.dims()[0]);
            if ids.bound() as usize >= len {
                return Err(Error::Index { operation, argument: "ids", index, len });
            }
        }
        let (batch, timesteps) = if args.time_major { (second, first) } else { (first, second) };
        let shapes = self.reserve_shapes(batch, timesteps).ok().filter(|_| {
            // Rows of a product, and rows of the sums of a timestep, must be counted too.
            Shape::new(&[timesteps, batch, 8 * cell.kind.gates() * h]).is_some()
        });
        let Some(shapes) = shapes else {
            return check.bad("x", "is too large for what is kept of it to be counted");
        };

        if weights.len() != d {
            return check.bad("weights", format!("must be those of {d} directions, but there are {}", weights.len()));
        }
        let dims = self.weight_dims();
        for w in weights {
            for (n, t) in w.into_list().into_iter().enumerate() {
                let argument = TrainingWeights::<Tensor>::NAMES[n];
                match (t, &dims[n]) {
                    (Some(t), Some(dims)) => check.floats(argument, Some(t), LETTERS[n], dims)?,
                    (Some(_), None) => {
                        return check.bad(argument, format!("belongs to no option of this {name}, but was given"));
                    }
                    (None, Some(_)) if !matches!(argument, "b_ih" | "b_hh") => {
                        return check.bad(argument, format!("is needed by this {name}, but was not given"));
                    }
                    (None, _) => {}
                }
            }
        }

        if args.c0.is_some() && carried.is_none() {
            return check.bad("c0", format!("belongs to an LSTM or sLSTM, but the cell is a {name}"));
        }
        let carried = carried.unwrap_or(0);
        check.floats("h0", args.h0, "[directions, batch, hidden]", &[d, batch, width])?;
        check.floats("c0", args.c0, "[directions, batch, hidden]", &[d, batch, carried])?;
        if let Some(t) = args.lengths {
            check.shape("lengths", t, "[batch]", &[batch])?;
            check.of("lengths", t, DType::U32)?;
            if t.bound() as usize > timesteps {
                let message = format!("contains {}, but there are only {timesteps} timesteps", t.bound());
                return check.bad("lengths", message);
            }
        }
        if let Some(t) = args.mask {
            check.shape("mask", t, "[batch, timesteps]", &[batch, timesteps])?;
            check.of("mask", t, DType::U32)?;
            if args.lengths.is_some() {
                return check.bad("mask", "cannot be given together with lengths");
            }
        }
        let valid = match (args.lengths, args.mask) {
            (Some(lengths), _) => ValidSteps::Lengths(lengths),
            (None, Some(mask)) => ValidSteps::Mask(mask, args.masked_output),
            (None, None) => ValidSteps::All,
        };

        if let Some(t) = args.recurrent_dropout {
            if matches!(cell.kind, CellKind::MinGru | CellKind::MinLstm) {
                return check.bad("recurrent_dropout", format!("needs a recurrent product, which a {name} has not"));
            }
            let gates = if t.dims().get(1) == Some(&1) { 1 } else { cell.kind.gates() };
            let letters = "[directions, gates or 1, batch, hidden]";
            check.floats("recurrent_dropout", Some(t), letters, &[d, gates, batch, width])?;
        }
        let lstm = matches!(cell.kind, CellKind::Lstm { .. });
        if args.zoneout_h.is_some() && !(lstm || matches!(cell.kind, CellKind::Rnn | CellKind::Gru { .. })) {
            return check.bad("zoneout_h", format!("belongs to a SimpleRNN, LSTM or GRU, but the cell is a {name}"));
        }
        if args.zoneout_c.is_some() && !lstm {
            return check.bad("zoneout_c", format!("belongs to an LSTM, but the cell is a {name}"));
        }
        let letters = "[directions, timesteps, batch, hidden]";
        check.floats("zoneout_h", args.zoneout_h, letters, &[d, timesteps, batch, width])?;
        check.floats("zoneout_c", args.zoneout_c, letters, &[d, timesteps, batch, h])?;

        let TrainingArgs { h0, c0, time_major, reading_order, recurrent_dropout, zoneout_h, zoneout_c, form, .. } =
            *args;
        Ok(TrainingCall {
            cell,
            directions: &self.directions,
            x,
            ids: args.ids,
            weights,
            batch,
            timesteps,
            input,
            hidden: h,
            width,
            carried,
            h0,
            c0,
            valid,
            time_major,
            reading_order,
            recurrent_dropout,
            zoneout_h,
            zoneout_c,
            form,
            shapes,
        })
    }

    #[expect(clippy::too_many_arguments, reason = "those of `TrainingLayer::backward`")]
    pub(super) fn resolve_backward<'a>(
        &'a self,
        x: &'a Tensor,
        weights: &'a [TrainingWeights<&'a Tensor>],
        args: &TrainingArgs<'a>,
        reserve: &'a Reserve,
        by: &OutputGradients<'a>,
        wanted: Wanted,
    ) -> Result<BackwardCall<'a>> {
        let forward = self.resolve(BACKWARD, x, weights, args)?;
        let device = x.device();
        let check = Checks { operation: BACKWARD, device: &device };
        let shapes = forward.shapes;
        for (argument, t, shape) in [
            ("reserve.gates", Some(&reserve.gates), Some(shapes.gates)),
            ("reserve.h", Some(&reserve.h), Some(shapes.h)),
            ("reserve.c", reserve.c.as_ref(), shapes.c),
            ("reserve.norms", reserve.norms.as_ref(), shapes.norms),
        ] {
            match (t, shape) {
                (Some(t), Some(shape)) => check.floats(argument, Some(t), "that of the forward call", shape.dims())?,
                (None, None) => {}
                (given, _) => {
                    let (needed, given) =
                        if given.is_some() { ("is not kept", "given") } else { ("is kept", "missing") };
                    return check.bad(argument, format!("{needed} by this cell, but it is {given}"));
                }
            }
        }
        check.outputs(&forward, by)?;
        Ok(BackwardCall { forward, reserve, dy: by.y, dh: by.h, dc: by.c, wanted })
    }

    /// [`Self::resolve_backward`] of a call that kept the states before each segment alone.
    pub(super) fn resolve_checkpoints<'a>(
        &'a self,
        x: &'a Tensor,
        weights: &'a [TrainingWeights<&'a Tensor>],
        args: &TrainingArgs<'a>,
        kept: &Checkpoints,
        by: &OutputGradients<'a>,
    ) -> Result<TrainingCall<'a>> {
        let forward = self.resolve(BACKWARD, x, weights, args)?;
        let device = x.device();
        let check = Checks { operation: BACKWARD, device: &device };
        let [d, n] = [self.directions.len(), segments(forward.timesteps)];
        let letters = "[directions, segments, batch, hidden]";
        check.floats("checkpoints.h", Some(&kept.h), letters, &[d, n, forward.batch, forward.width])?;
        if (forward.carried > 0) != kept.c.is_some() {
            let (needed, given) = if kept.c.is_some() { ("is not kept", "given") } else { ("is kept", "missing") };
            return check.bad("checkpoints.c", format!("{needed} by this cell, but it is {given}"));
        }
        check.floats("checkpoints.c", kept.c.as_ref(), letters, &[d, n, forward.batch, forward.carried])?;
        check.outputs(&forward, by)?;
        Ok(forward)
    }
}
