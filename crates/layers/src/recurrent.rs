//! A recurrent layer with weights, on a device: stacked and bidirectional as its description says.

use crate::{Bias, Error, Gru, Lstm, Merge, RecurrentSpec, Result, SimpleRnn, Weights, init};
use recurve_kernels::{Cell, Direction, DirectionWeights, ForwardArgs, Outputs, Recurrent, RecurrentConfig, Strategy};
use recurve_tensor::{Activation, Device, Error as TensorError, Tensor, concat};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The state of a recurrent layer.
#[derive(Clone, Debug)]
pub struct State {
    /// `[L·D, B, H]`
    pub h: Tensor,
    /// `[L·D, B, H]`; LSTM only.
    pub c: Option<Tensor>,
}

/// What a call takes beside the input.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallArgs<'a> {
    /// The initial state; zeros if `None`.
    pub state: Option<&'a State>,
    /// Valid timesteps of each sequence, `[B]`, U32.
    pub lengths: Option<&'a Tensor>,
    /// How a GPU runs the recurrence.
    pub strategy: Strategy,
}

/// A recurrent layer on a device.
///
/// [`Self::forward`] and [`Self::step`] are PyTorch's way: all outputs and the state. [`Self::call`]
/// is Keras's way: what `return_sequences`, `return_state` and `stateful` ask for.
#[derive(Debug)]
pub struct RecurrentLayer {
    name: String,
    spec: RecurrentSpec,
    input_size: usize,
    layers: Vec<Recurrent>,
    /// What a stateful layer remembers.
    kept: Mutex<Option<State>>,
}

macro_rules! pytorch {
    ($name:ident, $cell:expr, $module:literal) => {
        impl $name {
            #[doc = concat!("The layer stored as a PyTorch `", $module, "` under `prefix`: `{prefix}.weight_ih_l0`, …, stacked and bidirectional as the names say, with or without biases.")]
            ///
            /// # Errors
            /// [`Error::MissingWeight`], [`Error::WeightShape`], [`Error::Unsupported`] for
            /// `proj_size`; errors of the device.
            pub fn from_weights(weights: &Weights, prefix: &str, device: &Device) -> Result<RecurrentLayer> {
                RecurrentLayer::from_pytorch($cell, weights, prefix, device)
            }
        }
    };
}
pytorch!(SimpleRnn, Cell::RNN, "nn.RNN");
pytorch!(Lstm, Cell::LSTM, "nn.LSTM");
pytorch!(Gru, Cell::GRU, "nn.GRU");

/// The names of one direction's weights in PyTorch's modules.
fn names(prefix: &str, layer: usize, reverse: bool) -> [String; 4] {
    let dot = if prefix.is_empty() { "" } else { "." };
    let end = if reverse { "_reverse" } else { "" };
    ["weight_ih", "weight_hh", "bias_ih", "bias_hh"].map(|n| format!("{prefix}{dot}{n}_l{layer}{end}"))
}

impl RecurrentLayer {
    fn from_pytorch(cell: Cell, weights: &Weights, prefix: &str, device: &Device) -> Result<Self> {
        let [ih, hh, bias, _] = names(prefix, 0, false);
        let head = if prefix.is_empty() { String::new() } else { format!("{prefix}.") };
        if let Some((name, _)) =
            weights.iter().find(|(n, _)| n.strip_prefix(&head).is_some_and(|n| n.starts_with("weight_hr_l")))
        {
            return Err(Error::Unsupported { name: name.into(), feature: "a projection of h (`proj_size`)" });
        }
        let rank2 = |name: &str| -> Result<(usize, usize)> {
            let a = weights.require(name)?;
            match a.shape[..] {
                [r, c] => Ok((r, c)),
                _ => Err(Error::WeightShape { name: name.into(), expected: vec![0, 0], got: a.shape.clone() }),
            }
        };
        let (_, input_size) = rank2(&ih)?;
        let (_, units) = rank2(&hh)?;
        let mut spec = RecurrentSpec::new(cell, units);
        spec.num_layers = (0..).take_while(|&l| weights.get(&names(prefix, l, false)[1]).is_some()).count();
        spec.bidirectional = weights.get(&names(prefix, 0, true)[1]).map(|_| Merge::Concat);
        spec.bias = if weights.get(&bias).is_some() { Bias::Double } else { Bias::None };
        spec.return_sequences = true;
        Self::new(prefix, &spec, input_size, weights, prefix, device)
    }

    /// The layer that `spec` describes, with its weights under `prefix` by PyTorch's names (gates
    /// in PyTorch's order).
    ///
    /// # Errors
    /// [`Error::Option`] if the description contradicts itself, [`Error::MissingWeight`],
    /// [`Error::WeightShape`]; errors of the device.
    pub fn new(
        name: &str,
        spec: &RecurrentSpec,
        input_size: usize,
        weights: &Weights,
        prefix: &str,
        device: &Device,
    ) -> Result<Self> {
        check_spec(name, spec)?;
        let directions: &[Direction] = match (spec.bidirectional, spec.go_backwards) {
            (Some(_), _) => &[Direction::Forward, Direction::Reverse],
            (None, false) => &[Direction::Forward],
            (None, true) => &[Direction::Reverse],
        };
        let layers = (0..spec.num_layers)
            .map(|l| {
                let w = spec.direction_weights(input_size, weights, prefix, l)?;
                let pairs: Vec<_> = directions.iter().copied().zip(&w).collect();
                let config = RecurrentConfig {
                    cell: spec.cell.into(),
                    input_size: layer_input(spec, input_size, l),
                    hidden_size: spec.units,
                    directions: &pairs,
                };
                Ok(Recurrent::new(&config, device)?)
            })
            .collect::<Result<_>>()?;
        Ok(Self { name: name.into(), spec: spec.clone(), input_size, layers, kept: Mutex::new(None) })
    }

    /// The description.
    pub fn spec(&self) -> &RecurrentSpec {
        &self.spec
    }

    /// I
    pub fn input_size(&self) -> usize {
        self.input_size
    }

    /// The device.
    pub fn device(&self) -> Device {
        self.layers[0].device()
    }

    /// The kernels, one a stacked layer.
    pub fn kernels(&self) -> &[Recurrent] {
        &self.layers
    }

    /// All outputs `[B, T, D·H]` (`[T, B, D·H]` with `time_major`) and the final state, beginning
    /// with `state` or zeros. What `stateful` remembers is neither used nor changed.
    ///
    /// # Errors
    /// [`recurve_tensor::Error::Shape`] and others of [`Recurrent::forward`].
    pub fn forward(&self, x: &Tensor, state: Option<&State>) -> Result<(Tensor, State)> {
        self.forward_with(x, &CallArgs { state, ..CallArgs::default() })
    }

    /// [`Self::forward`] with lengths and a strategy.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_with(&self, x: &Tensor, args: &CallArgs<'_>) -> Result<(Tensor, State)> {
        let (y, state) = self.run(x, args, Outputs::All)?;
        Ok((y.expect("all outputs were asked for"), state))
    }

    /// One timestep `[B, I]` for streaming: the output `[B, H]` and the next state. Nothing leaves
    /// the device.
    ///
    /// # Errors
    /// [`Error::Option`] for a layer that reads backwards, which cannot stream; otherwise as
    /// [`Self::forward`].
    pub fn step(&self, x: &Tensor, state: Option<State>) -> Result<(Tensor, State)> {
        if self.spec.bidirectional.is_some() || self.spec.go_backwards {
            return Err(Error::Option {
                layer: self.name.clone(),
                argument: "step",
                message: "needs a layer that reads forwards only: the end of a stream is not known".into(),
            });
        }
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
        let (_, state) =
            self.run(&x.reshape(&dims)?, &CallArgs { state: state.as_ref(), ..CallArgs::default() }, Outputs::Last)?;
        let last = self.spec.num_layers - 1;
        let h = if last == 0 { state.h.clone() } else { state.h.slice(0, last..last + 1)? };
        Ok((h.reshape(&[b, self.spec.units])?, state))
    }

    /// What Keras's layer returns: the output (all timesteps with `return_sequences`), then with
    /// `return_state` h, and c of an LSTM, each `[B, H]`; for a bidirectional layer those of the
    /// forward direction, then those of the backward one.
    ///
    /// # Errors
    /// [`Error::Option`] if a stateful layer is called with another batch size than it remembers;
    /// otherwise as [`Self::forward`].
    pub fn call(&self, x: &Tensor, args: &CallArgs<'_>) -> Result<Vec<Tensor>> {
        let mut kept = None;
        if self.spec.stateful && args.state.is_none() {
            kept = self.kept().clone();
            let batch = x.dims().get(usize::from(self.spec.time_major)).copied();
            if let Some(s) = &kept
                && batch != Some(s.h.dims()[1])
            {
                return Err(Error::Option {
                    layer: self.name.clone(),
                    argument: "stateful",
                    message: format!(
                        "remembers a state of {} sequences, but the input has shape {}; call reset_states first",
                        s.h.dims()[1],
                        x.shape()
                    ),
                });
            }
        }
        let args = CallArgs { state: args.state.or(kept.as_ref()), ..*args };
        let outputs = if self.spec.return_sequences { Outputs::All } else { Outputs::Last };
        let (y, state) = self.run(x, &args, outputs)?;
        let d = self.spec.directions();
        let (b, h) = (state.h.dims()[1], self.spec.units);
        // The states of the top layer.
        let first = (self.spec.num_layers - 1) * d;
        let part = |s: &Tensor, n: usize| -> Result<Tensor> {
            let one = if s.dims()[0] == 1 { s.clone() } else { s.slice(0, first + n..first + n + 1)? };
            Ok(one.reshape(&[b, h])?)
        };
        let output = match (y, self.spec.bidirectional) {
            (Some(y), None | Some(Merge::Concat)) => y,
            (Some(y), Some(merge)) => {
                let split = |n: usize| y.slice(2, n * h..(n + 1) * h);
                join(merge, &split(0)?, &split(1)?)?
            }
            (None, None) => part(&state.h, 0)?,
            (None, Some(merge)) => join(merge, &part(&state.h, 0)?, &part(&state.h, 1)?)?,
        };
        let mut all = vec![output];
        if self.spec.return_state {
            for n in 0..d {
                all.push(part(&state.h, n)?);
                if let Some(c) = &state.c {
                    all.push(part(c, n)?);
                }
            }
        }
        if self.spec.stateful {
            *self.kept() = Some(state);
        }
        Ok(all)
    }

    /// Forgets what a stateful layer remembers.
    pub fn reset_states(&self) {
        *self.kept() = None;
    }

    fn kept(&self) -> MutexGuard<'_, Option<State>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, x: &Tensor, args: &CallArgs<'_>, outputs: Outputs) -> Result<(Option<Tensor>, State)> {
        let (l, d) = (self.layers.len(), self.spec.directions());
        if let Some(s) = args.state {
            for (t, argument) in [(Some(&s.h), "state.h"), (s.c.as_ref(), "state.c")] {
                if let Some(t) = t
                    && t.dims().first() != Some(&(l * d))
                {
                    return Err(TensorError::Shape {
                        operation: "RecurrentLayer::forward",
                        argument,
                        expected: format!(
                            "[layers · directions, batch, hidden] = [{}, batch, {}]",
                            l * d,
                            self.spec.units
                        ),
                        got: *t.shape(),
                    }
                    .into());
                }
            }
        }
        let (mut hs, mut cs) = (Vec::with_capacity(l), Vec::with_capacity(l));
        let mut y = None;
        for (n, layer) in self.layers.iter().enumerate() {
            let part = |s: &Tensor| if l == 1 { Ok(s.clone()) } else { s.slice(0, n * d..(n + 1) * d) };
            let h0 = args.state.map(|s| part(&s.h)).transpose()?;
            let c0 = args.state.and_then(|s| s.c.as_ref()).map(part).transpose()?;
            let out = layer.forward(
                y.as_ref().unwrap_or(x),
                &ForwardArgs {
                    h0: h0.as_ref(),
                    c0: c0.as_ref(),
                    lengths: args.lengths,
                    time_major: self.spec.time_major,
                    outputs: if n + 1 < l { Outputs::All } else { outputs },
                    reading_order: self.spec.go_backwards,
                    strategy: args.strategy,
                    ..ForwardArgs::default()
                },
            )?;
            y = out.y;
            hs.push(out.h);
            cs.extend(out.c);
        }
        Ok((y, State { h: stack(&mut hs)?, c: if cs.is_empty() { None } else { Some(stack(&mut cs)?) } }))
    }
}

fn stack(parts: &mut Vec<Tensor>) -> Result<Tensor> {
    match parts.len() {
        1 => Ok(parts.remove(0)),
        _ => Ok(concat(&parts.iter().collect::<Vec<_>>(), 0)?),
    }
}

fn join(merge: Merge, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(match merge {
        Merge::Concat => concat(&[a, b], a.shape().rank() - 1)?,
        Merge::Sum => a.add(b)?,
        Merge::Multiply => a.mul(b)?,
        Merge::Average => a.add(b)?.activation(Activation::Affine { alpha: 0.5, beta: 0.0 })?,
    })
}

fn check_spec(name: &str, spec: &RecurrentSpec) -> Result<()> {
    let bad = |argument, message: &str| Err(Error::Option { layer: name.into(), argument, message: message.into() });
    if spec.units == 0 {
        return bad("units", "must be at least 1");
    }
    if spec.num_layers == 0 {
        return bad("num_layers", "must be at least 1");
    }
    if spec.bidirectional.is_some() && spec.go_backwards {
        return bad("go_backwards", "cannot be combined with both directions");
    }
    if spec.num_layers > 1 && !matches!(spec.bidirectional, None | Some(Merge::Concat)) {
        return bad("merge_mode", "must be concat where layers are stacked inside one module");
    }
    if spec.num_layers > 1 && spec.go_backwards {
        return bad("go_backwards", "cannot be combined with num_layers; stack single layers instead");
    }
    Ok(())
}

/// I of a stacked layer.
pub(crate) fn layer_input(spec: &RecurrentSpec, input_size: usize, layer: usize) -> usize {
    if layer == 0 { input_size } else { spec.directions() * spec.units }
}

/// The weights of one stacked layer, a direction each.
pub(crate) fn layer_weights(
    spec: &RecurrentSpec,
    input_size: usize,
    weights: &Weights,
    prefix: &str,
    layer: usize,
) -> Result<Vec<DirectionWeights<f32>>> {
    let rows = Cell::from(spec.cell).kind.gates() * spec.units;
    let i = layer_input(spec, input_size, layer);
    (0..spec.directions())
        .map(|d| {
            let [ih, hh, b_ih, b_hh] = names(prefix, layer, d == 1);
            let bias = |name: &str, there: bool| -> Result<Vec<f32>> {
                if there { Ok(weights.expect(name, &[rows])?.to_vec()) } else { Ok(Vec::new()) }
            };
            Ok(DirectionWeights {
                w_ih: weights.expect(&ih, &[rows, i])?.to_vec(),
                w_hh: weights.expect(&hh, &[rows, spec.units])?.to_vec(),
                b_ih: bias(&b_ih, spec.bias != Bias::None)?,
                b_hh: bias(&b_hh, spec.bias == Bias::Double)?,
                peepholes: Vec::new(),
            })
        })
        .collect()
}

/// Names and shapes of a recurrent layer's weights.
pub(crate) fn weight_shapes(spec: &RecurrentSpec, input_size: usize, prefix: &str) -> Vec<(String, Vec<usize>)> {
    let rows = Cell::from(spec.cell).kind.gates() * spec.units;
    let mut all = Vec::new();
    for l in 0..spec.num_layers {
        for d in 0..spec.directions() {
            let [ih, hh, b_ih, b_hh] = names(prefix, l, d == 1);
            all.push((ih, vec![rows, layer_input(spec, input_size, l)]));
            all.push((hh, vec![rows, spec.units]));
            if spec.bias != Bias::None {
                all.push((b_ih, vec![rows]));
            }
            if spec.bias == Bias::Double {
                all.push((b_hh, vec![rows]));
            }
        }
    }
    all
}

/// Fresh weights for a recurrent layer.
pub(crate) fn initialize(
    spec: &RecurrentSpec,
    input_size: usize,
    prefix: &str,
    seed: u64,
    into: &mut Weights,
) -> Result<()> {
    let mut rng = init::rng(seed);
    let lstm = matches!(Cell::from(spec.cell).kind, recurve_kernels::CellKind::Lstm { .. });
    for (name, shape) in weight_shapes(spec, input_size, prefix) {
        let data = match shape[..] {
            [rows, columns] => {
                let hidden_kernel = name.contains("weight_hh");
                let how = if hidden_kernel { spec.recurrent_initializer } else { spec.kernel_initializer };
                how.matrix(rows, columns, spec.units, &mut rng)
            }
            _ => {
                let mut b = spec.bias_initializer.matrix(shape[0], 1, spec.units, &mut rng);
                if lstm && spec.unit_forget_bias && name.contains("bias_ih") {
                    b[spec.units..2 * spec.units].fill(1.0);
                }
                b
            }
        };
        into.insert(name, &shape, data)?;
    }
    Ok(())
}
