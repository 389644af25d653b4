//! A recurrent layer with its weights on a device.

use crate::layer::LayerModule;
use crate::recurrent::{check_spec, layer_input, name_of, parts};
use crate::{Error, Gru, Lstm, RecurrentSpec, Result, SimpleRnn, Weights};
use recurve_kernels::{ForwardArgs, Outputs, Recurrent, RecurrentConfig, Strategy};
use recurve_tensor::{Device, Error as TensorError, Tensor, concat};
use recurve_vocabulary::{Activation, Bias, Cell, CellKind, Merge, Rest};
use smallvec::{SmallVec, smallvec};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The state of a recurrent layer.
#[derive(Clone, Debug)]
pub struct State {
    /// The hidden state h, `[L·D, B, H]` for L stacked layers with D directions; with `proj_size`, `[L·D, B, P]`.
    pub h: Tensor,
    /// The cell state c of an LSTM, `[L·D, B, H]`, or c, n and m of an sLSTM, `[L·D, B, 3·H]`; `None` for other cells.
    pub c: Option<Tensor>,
}

/// The arguments of a call besides the input.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallArgs<'a> {
    /// The initial state; zeros if `None`.
    pub state: Option<&'a State>,
    /// The number of valid timesteps of each sequence, `[B]`, U32.
    pub lengths: Option<&'a Tensor>,
    /// Which timesteps are valid, `[B, T]`, U32: Keras's mask. Not together with `lengths`.
    pub mask: Option<&'a Tensor>,
    /// How a GPU runs the recurrence.
    pub strategy: Strategy,
    /// For stateful layers: whether to start with `state` or zeros instead of the kept state, and to leave the kept
    /// state as it is.
    pub ignore_memory: bool,
    /// Keeps the struct open for more fields: a literal ends in `..` and a default.
    #[doc(hidden)]
    pub rest: Rest,
}

/// A recurrent layer on a device.
///
/// [`Self::forward`] and [`Self::step`] work as in PyTorch: they return all outputs and the state. [`Self::call`] works
/// as in Keras: it returns what `return_sequences` and `return_state` ask for, and heeds `stateful`.
#[derive(Debug)]
pub struct RecurrentLayer {
    name: String,
    spec: RecurrentSpec,
    input_size: usize,
    kernel: Recurrent,
    /// The kept state of a stateful layer.
    kept: Mutex<Option<State>>,
}

macro_rules! pytorch {
    ($name:ident, $cell:expr, $module:literal) => {
        impl $name {
            #[doc = concat!("The layer stored as a PyTorch `", $module, "` under `prefix`: `{prefix}.weight_ih_l0`, …, stacked and bidirectional as the names say, with or without biases. Every weight under the prefix is used, and every one that the names ask for must be there: all layers up to the highest, both directions of each if one has them, both biases of each if there is any bias.")]
            ///
            /// # Errors
            /// [`Error::MissingWeight`], [`Error::ExtraWeight`], [`Error::WeightShape`],
            /// [`Error::WeightRank`] and [`Error::Unsupported`], each with the name of the weight; errors of
            /// the device.
            pub fn from_weights(weights: &Weights, prefix: &str, device: &Device) -> Result<RecurrentLayer> {
                RecurrentLayer::from_pytorch($cell, weights, prefix, device)
            }
        }
    };
}
pytorch!(SimpleRnn, Cell::RNN, "nn.RNN");
pytorch!(Lstm, Cell::LSTM, "nn.LSTM");
pytorch!(Gru, Cell::GRU, "nn.GRU");

/// Splits the name of a weight of a PyTorch module: `weight_hh_l1_reverse` is part `weight_hh` of layer 1 in the
/// backward direction.
fn parse(name: &str) -> Option<(&str, usize, bool)> {
    let (name, reverse) = name.strip_suffix("_reverse").map_or((name, false), |n| (n, true));
    let (part, layer) = name.rsplit_once("_l")?;
    Some((part, layer.parse().ok()?, reverse))
}

impl RecurrentLayer {
    /// Finds the number of layers, directions, biases and the projection from the names under `prefix`. Then every
    /// weight that this layer needs must exist, and no other may.
    fn from_pytorch(cell: Cell, weights: &Weights, prefix: &str, device: &Device) -> Result<Self> {
        let lstm = matches!(cell.kind, CellKind::Lstm { .. });
        let start = if prefix.is_empty() { String::new() } else { format!("{prefix}.") };
        let under = || weights.iter().filter_map(|(name, _)| Some((name, name.strip_prefix(&start)?)));
        let (mut top, mut reverse, mut bias, mut projected) = (0, false, false, false);
        for (name, own) in under() {
            let Some((part, layer, backwards)) = parse(own) else {
                return Err(Error::ExtraWeight { name: name.into() });
            };
            match part {
                "weight_ih" | "weight_hh" => {}
                "bias_ih" | "bias_hh" => bias = true,
                "weight_hr" if lstm => projected = true,
                "weight_hr" => {
                    return Err(Error::Unsupported {
                        name: name.into(),
                        feature: "a projection of h (`proj_size`), which only an LSTM has",
                    });
                }
                _ => return Err(Error::ExtraWeight { name: name.into() }),
            }
            top = top.max(layer);
            reverse |= backwards;
        }
        let matrix = |part: &str| -> Result<[usize; 2]> {
            let name = name_of(prefix, part, 0, false);
            let a = weights.require(&name)?;
            a.shape().try_into().map_err(|_| Error::WeightRank { name, expected: 2, got: a.shape().to_vec() })
        };
        let [_, input_size] = matrix("weight_ih")?;
        let [_, width] = matrix("weight_hh")?;
        let projection = if projected { Some(matrix("weight_hr")?) } else { None };
        let units = projection.map_or(width, |[_, units]| units);
        let mut spec = RecurrentSpec::new(Cell { projection: projection.map(|[p, _]| p), ..cell }, units);
        spec.bidirectional = reverse.then_some(Merge::Concat);
        spec.bias = if bias { Bias::Double } else { Bias::None };
        spec.return_sequences = true;
        // Stops at the first missing layer, so that a large number in a name does not cause a long loop.
        for layer in 0..=top {
            for backwards in [false, true].into_iter().take(spec.directions()) {
                for (part, _) in parts(&spec, input_size, layer) {
                    weights.require(&name_of(prefix, part, layer, backwards))?;
                }
            }
        }
        spec.num_layers = top + 1;
        let expected = spec.weight_shapes(input_size, prefix);
        let extra = under().count() > expected.len();
        if let Some((name, _)) = under().find(|(name, _)| extra && expected.iter().all(|(e, _)| e != name)) {
            return Err(Error::ExtraWeight { name: name.into() });
        }
        Self::new(prefix, &spec, input_size, weights, prefix, device)
    }

    /// Makes the layer that `spec` describes from weights with PyTorch's names under `prefix` (gates in PyTorch's
    /// order).
    ///
    /// # Errors
    /// [`Error::Option`] if options contradict each other, [`Error::MissingWeight`], [`Error::WeightShape`]; errors of
    /// the device.
    pub fn new(
        name: &str,
        spec: &RecurrentSpec,
        input_size: usize,
        weights: &Weights,
        prefix: &str,
        device: &Device,
    ) -> Result<Self> {
        check_spec(name, spec)?;
        // A device that needs whole weights in host memory has those of one layer at a time.
        let layer = |l: usize| {
            let own = spec.weights_of(input_size, weights, prefix, l, |w| Ok(Some(w.clone())))?;
            let pairs: Vec<_> = spec.reading().iter().copied().zip(&own).collect();
            let config = RecurrentConfig {
                weights: spec.weight_storage,
                ..RecurrentConfig::new(spec.cell, layer_input(spec, input_size, l), spec.units, &pairs)
            };
            Ok::<_, Error>(Recurrent::new(&config, device)?)
        };
        let kernel = Recurrent::stack((0..spec.num_layers).map(layer).collect::<Result<_>>()?)?;
        Ok(Self { name: name.into(), spec: spec.clone(), input_size, kernel, kept: Mutex::new(None) })
    }

    /// The description of the layer.
    pub fn spec(&self) -> &RecurrentSpec {
        &self.spec
    }

    /// The number of features of the input.
    pub fn input_size(&self) -> usize {
        self.input_size
    }

    /// The device.
    pub fn device(&self) -> Device {
        self.kernel.device()
    }

    /// The layer's kernels.
    pub fn kernel(&self) -> &Recurrent {
        &self.kernel
    }

    /// Measures the fastest way of running this shape on a GPU, as [`Recurrent::tune`] does. Later calls with
    /// [`Strategy::Auto`] use it.
    ///
    /// # Errors
    /// As [`Recurrent::tune`].
    pub fn tune(&self, batch: usize, timesteps: usize) -> Result<()> {
        Ok(self.kernel.tune(batch, timesteps)?)
    }

    /// Returns all outputs `[B, T, D·H]` (`[T, B, D·H]` with `time_major`) and the final state. Starts with `state` or
    /// zeros; the kept state of a stateful layer is neither used nor changed.
    ///
    /// # Errors
    /// [`recurve_tensor::Error::Shape`] and the other errors of [`Recurrent::forward`].
    pub fn forward(&self, x: &Tensor, state: Option<&State>) -> Result<(Tensor, State)> {
        self.forward_with(x, &CallArgs { state, ..CallArgs::default() })
    }

    /// [`Self::forward`] with lengths or a mask, and a strategy.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_with(&self, x: &Tensor, args: &CallArgs<'_>) -> Result<(Tensor, State)> {
        let (y, state) = self.run(x, args, Outputs::All)?;
        Ok((y.expect("all outputs were asked for"), state))
    }

    /// Runs one timestep of a stream: takes `[B, I]`, returns the output `[B, H]` and the next state. Nothing is read
    /// back.
    ///
    /// # Errors
    /// [`Error::Option`] for a layer that reads backwards, which cannot run on streams; otherwise as [`Self::forward`].
    pub fn step(&self, x: &Tensor, state: Option<&State>) -> Result<(Tensor, State)> {
        self.spec.check_step(&self.name)?;
        let &[b, i] = x.dims() else {
            return Err(TensorError::Shape {
                operation: "RecurrentLayer::step",
                argument: "x",
                expected: format!("[batch, features] with {} features", self.input_size),
                got: *x.shape(),
            }
            .into());
        };
        let dims = if self.spec.time_major { [1, b, i] } else { [b, 1, i] };
        let (_, state) = self.run(&x.reshape(&dims)?, &CallArgs { state, ..CallArgs::default() }, Outputs::Last)?;
        let last = self.spec.num_layers - 1;
        let h = if last == 0 { state.h.clone() } else { state.h.slice(0, last..last + 1)? };
        Ok((h.reshape(&[b, self.spec.state_size()])?, state))
    }

    /// Returns what Keras's layer returns: the output (all timesteps with `return_sequences`), then with `return_state`
    /// h, and c of an LSTM, each `[B, H]`. A bidirectional layer returns the states of the forward direction, then
    /// those of the backward direction. With [`Merge::None`] there are two outputs.
    ///
    /// # Errors
    /// [`Error::Option`] if a stateful layer is called with another batch size than that of its kept state; otherwise
    /// as [`Self::forward`].
    pub fn call(&self, x: &Tensor, args: &CallArgs<'_>) -> Result<Vec<Tensor>> {
        Ok(self.outputs(x, args)?.0)
    }

    /// Returns [`Self::call`]'s outputs and the final state of all stacked layers and directions.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn outputs(&self, x: &Tensor, args: &CallArgs<'_>) -> Result<(Vec<Tensor>, State)> {
        let (values, state) = self.values(x, args)?;
        Ok((values.into_vec(), state))
    }

    /// [`Self::outputs`] without heap allocation.
    pub(crate) fn values(&self, x: &Tensor, args: &CallArgs<'_>) -> Result<(Values, State)> {
        let mut kept = None;
        let remembers = self.spec.stateful && !args.ignore_memory;
        if remembers && args.state.is_none() {
            kept = self.kept().clone();
            let batch = x.dims().get(usize::from(self.spec.time_major)).copied();
            if let Some(s) = &kept
                && batch != Some(s.h.dims()[1])
            {
                return Err(Error::Option {
                    layer: self.name.clone(),
                    argument: "stateful",
                    message: format!(
                        "keeps a state of {} sequences, but the input has shape {}; call reset_states first",
                        s.h.dims()[1],
                        x.shape()
                    ),
                });
            }
        }
        let args = CallArgs { state: args.state.or(kept.as_ref()), ..*args };
        // Keras's last output is that of the last timestep read, which is zero if it is masked and
        // `zero_output_for_mask` is set.
        let zeroed = self.spec.zero_output_for_mask && args.mask.is_some();
        let all = self.spec.return_sequences || zeroed;
        let (y, state) = self.run(x, &args, if all { Outputs::All } else { Outputs::Last })?;
        let d = self.spec.directions();
        let (b, w) = (state.h.dims()[1], self.spec.state_size());
        // The states of the top layer.
        let first = (self.spec.num_layers - 1) * d;
        let part = |s: &Tensor, n: usize| -> Result<Tensor> {
            let one = if s.dims()[0] == 1 { s.clone() } else { s.slice(0, first + n..first + n + 1)? };
            Ok(one.reshape(&[b, s.dims()[2]])?)
        };
        let output = |n: usize| -> Result<Tensor> {
            match &y {
                Some(y) => {
                    let own = if d == 1 { y.clone() } else { y.slice(2, n * w..(n + 1) * w)? };
                    if self.spec.return_sequences {
                        return Ok(own);
                    }
                    let axis = usize::from(!self.spec.time_major);
                    let last = if n == 1 { 0 } else { own.dims()[axis] - 1 };
                    Ok(own.slice(axis, last..last + 1)?.reshape(&[b, w])?)
                }
                None => part(&state.h, n),
            }
        };
        let mut results: Values = match (&y, self.spec.bidirectional) {
            (_, None) => smallvec![output(0)?],
            (Some(y), Some(Merge::Concat)) if self.spec.return_sequences => smallvec![y.clone()],
            (_, Some(Merge::None)) => smallvec![output(0)?, output(1)?],
            (_, Some(merge)) => smallvec![join(merge, &output(0)?, &output(1)?)?],
        };
        if self.spec.return_state {
            for n in 0..d {
                results.push(part(&state.h, n)?);
                if let Some(c) = &state.c {
                    results.push(part(c, n)?);
                }
            }
        }
        if remembers {
            *self.kept() = Some(state.clone());
        }
        Ok((results, state))
    }

    /// Drops the kept state of a stateful layer.
    pub fn reset_states(&self) {
        *self.kept() = None;
    }

    fn kept(&self) -> MutexGuard<'_, Option<State>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, x: &Tensor, args: &CallArgs<'_>, outputs: Outputs) -> Result<(Option<Tensor>, State)> {
        args.state.map(|s| check_state(&self.spec, s)).transpose()?;
        let args = ForwardArgs {
            h0: args.state.map(|s| &s.h),
            c0: args.state.and_then(|s| s.c.as_ref()),
            lengths: args.lengths,
            mask: args.mask,
            masked_output: self.spec.masked_output(),
            time_major: self.spec.time_major,
            outputs,
            reading_order: self.spec.go_backwards,
            strategy: args.strategy,
            ..ForwardArgs::default()
        };
        let out = self.kernel.forward(x, &args)?;
        Ok((out.y, State { h: out.h, c: out.c }))
    }
}

/// Checks that a state has one row per layer and direction, and a c only if the cell has one.
pub(crate) fn check_state(spec: &RecurrentSpec, state: &State) -> Result<()> {
    let rows = spec.num_layers * spec.directions();
    let (h, c) = spec.cell.state_sizes(spec.units);
    for (t, argument, size) in [(Some(&state.h), "state.h", h), (state.c.as_ref(), "state.c", c.unwrap_or(spec.units))]
    {
        if let Some(t) = t
            && t.dims().first() != Some(&rows)
        {
            return Err(TensorError::Shape {
                operation: "RecurrentLayer::forward",
                argument,
                expected: format!("[layers · directions, batch, hidden] = [{rows}, batch, {size}]"),
                got: *t.shape(),
            }
            .into());
        }
    }
    let kind = spec.cell.kind;
    if state.c.is_some() && !kind.has_cell_state() {
        return Err(TensorError::Argument {
            operation: "Recurrent::forward",
            argument: "c0",
            message: format!("belongs to an LSTM or sLSTM, but the cell is a {}", kind.name()),
        }
        .into());
    }
    Ok(())
}

/// The outputs of a layer, stored inline.
pub(crate) type Values = SmallVec<[Tensor; 3]>;

fn join(merge: Merge, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(match merge {
        Merge::Concat | Merge::None => concat(&[a, b], a.shape().rank() - 1)?,
        Merge::Sum => a.add(b)?,
        Merge::Multiply => a.mul(b)?,
        Merge::Average => a.add(b)?.activation(Activation::Affine { alpha: 0.5, beta: 0.0 })?,
    })
}
