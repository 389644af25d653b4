//! Recurrent layers: their description, weights and shapes.

use crate::layer::{LayerModule, Shape, bad_input, bad_option, is_default, last, sequence};
use crate::lowering::{Flow, Lowered, Lowering, Place};
use crate::weight_options::own_weights;
use crate::{Initializer, Result, WeightOptions, Weights, init};
use recurve_graph::ops;
use recurve_tensor::Noise;
use recurve_vocabulary::{
    Activation, Bias, Cell, CellKind, Direction, DirectionWeights, MaskedOutput, Merge, WeightStorage,
};
use recurve_weights::Weight;
use serde::{Deserialize, Serialize};

/// Everything about a recurrent layer but its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RecurrentSpec {
    /// The cell.
    pub cell: Cell,
    /// Number of hidden units of each layer and direction.
    pub units: usize,
    /// Number of stacked layers.
    #[serde(default = "one")]
    pub num_layers: usize,
    /// For a layer with both directions, how their outputs are joined; `None` for one direction.
    #[serde(default)]
    pub bidirectional: Option<Merge>,
    /// The biases.
    pub bias: Bias,
    /// Whether to return the h of every timestep instead of only the last.
    #[serde(default)]
    pub return_sequences: bool,
    /// Whether to return the final state too.
    #[serde(default)]
    pub return_state: bool,
    /// Whether each call starts with the final state of the previous call.
    #[serde(default)]
    pub stateful: bool,
    /// Whether to read the sequence backwards and return outputs in that order.
    #[serde(default)]
    pub go_backwards: bool,
    /// Whether input and output are `[T, B, …]` instead of `[B, T, …]`.
    #[serde(default)]
    pub time_major: bool,
    /// Whether outputs at masked timesteps are zero instead of the unchanged h.
    #[serde(default, skip_serializing_if = "is_default")]
    pub zero_output_for_mask: bool,
    /// Share of the input (of a stacked layer's input where there are several) that training drops;
    /// nothing happens at inference.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dropout: f32,
    /// The share of h that training drops; no effect at inference.
    #[serde(default, skip_serializing_if = "is_default")]
    pub recurrent_dropout: f32,
    /// How the weight matrices are stored; sums are f32 in every case. In a file `f32`, `f16` or `int8`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub weight_storage: WeightStorage,
    /// LSTM: whether the bias of the forget gate is initialized to 1 (Jozefowicz et al. 2015).
    #[serde(default, skip_serializing_if = "is_default")]
    pub unit_forget_bias: bool,
    /// How W_ih is initialised.
    #[serde(default = "glorot")]
    pub kernel_initializer: Initializer,
    /// How W_hh is initialised.
    #[serde(default = "orthogonal")]
    pub recurrent_initializer: Initializer,
    /// How biases are initialised.
    #[serde(default = "zeros")]
    pub bias_initializer: Initializer,
    /// How the weights are trained.
    #[serde(default, skip_serializing_if = "is_default")]
    pub weight_options: WeightOptions,
}

fn one() -> usize {
    1
}
fn glorot() -> Initializer {
    Initializer::GlorotUniform
}
fn orthogonal() -> Initializer {
    Initializer::Orthogonal
}
fn zeros() -> Initializer {
    Initializer::Zeros
}

impl RecurrentSpec {
    /// A layer of `units` cells with Keras's defaults.
    pub fn new(cell: Cell, units: usize) -> Self {
        let normal = if cell.kind == CellKind::IndRnn { Initializer::Uniform { limit: 1.0 } } else { orthogonal() };
        Self {
            cell,
            units,
            num_layers: 1,
            bidirectional: None,
            bias: Bias::keras(cell.kind),
            return_sequences: false,
            return_state: false,
            stateful: false,
            go_backwards: false,
            time_major: false,
            zero_output_for_mask: false,
            dropout: 0.0,
            recurrent_dropout: 0.0,
            weight_storage: WeightStorage::F32,
            unit_forget_bias: matches!(cell.kind, CellKind::Lstm { .. }),
            kernel_initializer: glorot(),
            recurrent_initializer: normal,
            bias_initializer: zeros(),
            weight_options: WeightOptions::default(),
        }
    }

    /// The number of directions, 1 or 2.
    pub fn directions(&self) -> usize {
        if self.bidirectional.is_some() { 2 } else { 1 }
    }

    /// The directions of each layer.
    pub(crate) fn reading(&self) -> &'static [Direction] {
        match (self.bidirectional, self.go_backwards) {
            (Some(_), _) => &[Direction::Forward, Direction::Reverse],
            (None, false) => &[Direction::Forward],
            (None, true) => &[Direction::Reverse],
        }
    }

    /// The number of states of a direction: h, or h and c.
    fn parts(&self) -> usize {
        if self.cell.kind.has_cell_state() { 2 } else { 1 }
    }

    /// The number of elements of h: the units, or the size of the projection.
    pub fn state_size(&self) -> usize {
        self.cell.state_size(self.units)
    }

    /// The output at masked timesteps.
    pub fn masked_output(&self) -> MaskedOutput {
        if self.zero_output_for_mask { MaskedOutput::Zero } else { MaskedOutput::Repeat }
    }

    /// The size of the last dimension of the output.
    pub fn output_size(&self) -> usize {
        match self.bidirectional {
            Some(Merge::Concat) => 2 * self.state_size(),
            _ => self.state_size(),
        }
    }

    /// The weights of one stacked layer, a direction each, named as PyTorch names them under
    /// `prefix`.
    ///
    /// # Errors
    /// [`crate::Error::MissingWeight`] or [`crate::Error::WeightShape`]; lack of memory.
    pub fn direction_weights(
        &self,
        input_size: usize,
        weights: &Weights,
        prefix: &str,
        layer: usize,
    ) -> Result<Vec<DirectionWeights<f32>>> {
        self.weights_of(input_size, weights, prefix, layer, |w| Ok(w.to_vec()?))
    }

    /// [`Self::direction_weights`] with matrices as `matrix` makes them.
    pub(crate) fn weights_of<M: Default>(
        &self,
        input_size: usize,
        weights: &Weights,
        prefix: &str,
        layer: usize,
        matrix: impl Fn(&Weight) -> Result<M>,
    ) -> Result<Vec<DirectionWeights<f32, M>>> {
        (0..self.directions())
            .map(|d| {
                let mut w = DirectionWeights::of(M::default(), M::default(), M::default());
                for (part, shape) in parts(self, input_size, layer) {
                    let weight = weights.expect(&name_of(prefix, part, layer, d == 1), &shape)?;
                    match part {
                        "weight_ih" => w.w_ih = matrix(weight)?,
                        "weight_hh" => w.w_hh = matrix(weight)?,
                        "bias_ih" => w.b_ih = weight.to_vec()?,
                        "bias_hh" => w.b_hh = weight.to_vec()?,
                        "weight_hr" => w.w_hr = matrix(weight)?,
                        "weight_peephole" => w.peepholes = weight.to_vec()?,
                        "norm_ih" => w.norm_ih = weight.to_vec()?,
                        "norm_hh" => w.norm_hh = weight.to_vec()?,
                        _ => w.norm_c = weight.to_vec()?,
                    }
                }
                Ok(w)
            })
            .collect()
    }

    /// Number of weight elements for an input of this many features.
    pub fn param_count(&self, input_size: usize) -> usize {
        self.weight_shapes(input_size, "").iter().map(|(_, dims)| dims.iter().product::<usize>()).sum()
    }

    /// The names and shapes of its weights for so many features.
    pub(crate) fn weight_shapes(&self, features: usize, prefix: &str) -> Vec<(String, Vec<usize>)> {
        let mut all = Vec::new();
        for l in 0..self.num_layers {
            for d in 0..self.directions() {
                let parts = parts(self, features, l).into_iter();
                all.extend(parts.map(|(part, dims)| (name_of(prefix, part, l, d == 1), dims)));
            }
        }
        all
    }

    /// Adds the penalty of an output, if the layer has one. Each direction has its own, as Keras's two layers.
    fn penalize(&self, at: &Place<'_>, output: (&str, usize, usize), into: &mut Lowering) {
        if let Some(regularizer) = self.weight_options.activity_regularizer.filter(|_| into.penalizes_outputs()) {
            regularizer.of_outputs(at.name, output, into);
        }
    }

    /// Makes initial weights, as the initializers say.
    pub(crate) fn initial_weights(&self, features: usize, prefix: &str, seed: u64, into: &mut Weights) -> Result<()> {
        let mut rng = recurve_tensor::random::rng(seed);
        let lstm = matches!(self.cell.kind, CellKind::Lstm { .. });
        for l in 0..self.num_layers {
            for d in 0..self.directions() {
                for (part, shape) in parts(self, features, l) {
                    let columns = shape.get(1).copied().unwrap_or(1);
                    let mut fill = |how: Initializer| how.kernel(&shape, self.units, &mut rng);
                    let data = match part {
                        "weight_ih" | "weight_hr" => fill(self.kernel_initializer)?,
                        "weight_hh" => fill(self.recurrent_initializer)?,
                        "weight_peephole" => fill(Initializer::Zeros)?,
                        // Gain 1, offset 0.
                        "norm_ih" | "norm_hh" | "norm_c" => {
                            let mut affine = init::zeros(&shape)?;
                            affine[..columns].fill(1.0);
                            affine
                        }
                        _ => {
                            let mut b = fill(self.bias_initializer)?;
                            if lstm && self.unit_forget_bias && part == "bias_ih" {
                                b[self.units..2 * self.units].fill(1.0);
                            }
                            b
                        }
                    };
                    into.insert(name_of(prefix, part, l, d == 1), &shape, data)?;
                }
            }
        }
        Ok(())
    }
}

impl LayerModule for RecurrentSpec {
    own_weights!();
    fn class_name(&self) -> &'static str {
        if self.bidirectional.is_some() { "Bidirectional" } else { self.cell.kind.class_name() }
    }
    fn cell_kind(&self) -> Option<CellKind> {
        Some(self.cell.kind)
    }
    fn features(&self, name: &str, shape: &Shape) -> Result<usize> {
        sequence(name, self.time_major, shape)
    }
    fn weights(&self, shapes: &[&Shape], prefix: &str) -> Vec<(String, Vec<usize>)> {
        self.weight_shapes(last(shapes), prefix)
    }
    fn initialize(&self, shapes: &[&Shape], prefix: &str, seed: u64, into: &mut Weights) -> Result<()> {
        self.initial_weights(last(shapes), prefix, seed, into)
    }
    fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
        self.features(name, shape)?;
        let batch = shape[usize::from(self.time_major)];
        let last = Some(self.output_size());
        let output = if self.return_sequences { vec![shape[0], shape[1], last] } else { vec![batch, last] };
        let outputs = if self.bidirectional == Some(Merge::None) { 2 } else { 1 };
        let (h, c) = self.cell.state_sizes(self.units);
        let states: Vec<_> = std::iter::once(h).chain(c).map(|n| vec![batch, Some(n)]).collect();
        let count = if self.return_state { self.directions() } else { 0 };
        Ok(std::iter::repeat_n(output, outputs).chain(std::iter::repeat_n(states, count).flatten()).collect())
    }
    fn all_output_shapes(&self, name: &str, shapes: &[&Shape]) -> Result<Vec<Vec<Option<usize>>>> {
        let Some((x, states)) = shapes.split_first() else {
            return Err(bad_option(name, "inputs", "must be at least one"));
        };
        let outputs = self.output_shapes(name, x)?;
        if states.is_empty() {
            return Ok(outputs);
        }
        let (h, c) = self.cell.state_sizes(self.units);
        let sizes: Vec<usize> = std::iter::once(h).chain(c).cycle().take(self.directions() * self.parts()).collect();
        if self.num_layers != 1 {
            return Err(bad_option(name, "inputs", "must be one for stacked layers: they begin with zeros"));
        }
        if self.stateful {
            return Err(bad_option(name, "stateful", "starts with its kept state, so initial states cannot be given"));
        }
        if states.len() != sizes.len() {
            let message = format!("must have {} initial states or none, but there are {}", sizes.len(), states.len());
            return Err(bad_option(name, "inputs", message));
        }
        for (state, size) in states.iter().zip(sizes) {
            if !matches!(state, &&[_, s] if s.is_none_or(|s| s == size)) {
                return Err(bad_input(name, &format!("an initial state [batch, {size}]"), state));
            }
        }
        Ok(outputs)
    }
    fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
        let (mut outputs, ends) = lower(self, at, x, into, self.go_backwards)?;
        if self.return_state {
            for n in 0..self.directions() {
                for state in ends.iter().flatten() {
                    let state = top(self, at, state, n, into);
                    self.penalize(at, (&state, 2, 0), into);
                    outputs.push(state);
                }
            }
        }
        Ok(Lowered { outputs, mask: x.mask.clone().filter(|_| self.return_sequences) })
    }
    fn adds_penalty(&self) -> bool {
        true
    }
    fn keeps_time(&self, x: &Flow) -> bool {
        self.return_sequences && x.time
    }
    fn time_major(&self) -> bool {
        self.time_major
    }
    fn is_stateful(&self) -> bool {
        self.stateful
    }
    fn check_step(&self, name: &str) -> Result<()> {
        if self.bidirectional.is_none() && !self.go_backwards {
            return Ok(());
        }
        Err(bad_option(name, "step", "needs a layer that reads forwards only: the end of a stream is not known"))
    }
}

/// The final state of the top layer in one direction, `[B, H]`.
fn top(spec: &RecurrentSpec, at: &Place<'_>, state: &str, direction: usize, into: &mut Lowering) -> String {
    let first = (spec.num_layers - 1) * spec.directions() + direction;
    let without = ops::Reshape::without(0, 3);
    if spec.num_layers * spec.directions() == 1 {
        return into.node(at.name, without, &[state]);
    }
    let own = into.node(at.name, ops::Slice { axis: 0, start: first as isize, len: 1 }, &[state]);
    into.node(at.name, without, &[&own])
}

/// The initial h or c, part `n` of `parts`, of values `[B, H]` that go into the layer, a direction after the other; what
/// the caller gives comes first.
fn initial_state(
    at: &Place<'_>,
    values: &[Flow],
    (n, parts): (usize, usize),
    given: &str,
    into: &mut Lowering,
) -> String {
    let one = ops::Reshape(vec![ops::Extent::Size(1), ops::Extent::Axes(0, 1), ops::Extent::Axes(1, 1)]);
    let own = values.iter().skip(n).step_by(parts);
    let each: Vec<String> = own.map(|v| into.node(at.name, one.clone(), &[&v.value])).collect();
    let each: Vec<&str> = each.iter().map(String::as_str).collect();
    let joined = match each[..] {
        [one] => one.to_owned(),
        _ => into.node(at.name, ops::Concat { axis: 0 }, &each),
    };
    if given.is_empty() { joined } else { into.node(at.name, ops::FirstGiven, &[given, &joined]) }
}

/// Adds a recurrence: the names of its outputs without states, and those of the final h and c. With
/// `reading_order` the outputs of a layer that goes backwards come in the order in which they were computed.
pub(crate) fn lower(
    spec: &RecurrentSpec,
    at: &Place<'_>,
    x: &Flow,
    into: &mut Lowering,
    reading_order: bool,
) -> Result<(Vec<String>, [Option<String>; 2])> {
    check_spec(at.name, spec)?;
    let recurrence = ops::Recurrent {
        num_layers: spec.num_layers,
        directions: spec.reading().to_vec(),
        masked_output: spec.masked_output(),
        time_major: spec.time_major,
        reading_order,
        weights: spec.weight_storage,
        ..ops::Recurrent::new(spec.cell, at.features, spec.units)
    };
    let (mask, always_masked) = into.mask(at.name, x);
    let y = into.value(at.name);
    let h = into.value(at.name);
    let c = spec.cell.kind.has_cell_state().then(|| into.value(at.name));
    let [mut h0, mut c0] = into.level(at, spec, [Some(&h), c.as_ref()]);
    if !x.others.is_empty() {
        let parts = 1 + usize::from(c.is_some());
        for (n, state) in [&mut h0, &mut c0].into_iter().enumerate().take(parts) {
            *state = initial_state(at, &x.others, (n, parts), state, into);
        }
    }
    into.parameters(spec.weight_shapes(at.features, at.prefix));
    let ends = [Some(&h), c.as_ref()];
    if into.trains() {
        let mask = mask.as_deref().unwrap_or_default();
        train(spec, at, &[&x.value, &h0, &c0, into.lengths(x), mask], (&y, ends), into, reading_order);
    } else {
        let given = [&x.value, &h0, &c0, into.lengths(x), mask.as_deref().unwrap_or_default(), ""];
        let inputs = recurrence.inputs(given, |part, layer, direction| {
            let there = parts(spec, at.features, layer).iter().any(|(p, _)| *p == part);
            if there { name_of(at.prefix, part, layer, direction == 1) } else { String::new() }
        });
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let outputs: Vec<&str> = [Some(&y), Some(&h), c.as_ref()].into_iter().flatten().map(String::as_str).collect();
        into.graph.node(at.name, recurrence, &inputs, &outputs);
    }

    let (d, w) = (spec.directions(), spec.state_size());
    let output = |n: usize, into: &mut Lowering| {
        let own = |into: &mut Lowering| match d {
            1 => y.clone(),
            _ => into.node(at.name, ops::Slice { axis: 2, start: (n * w) as isize, len: w }, &[&y]),
        };
        if spec.return_sequences {
            return own(into);
        }
        // Keras's last output is that of the last step read, which a mask may have made zero.
        let zeroed = match (&mask, spec.zero_output_for_mask) {
            (Some(mask), true) => {
                let own = own(into);
                let axis = usize::from(!spec.time_major);
                let backwards = n == 1 || (spec.go_backwards && !reading_order);
                let step = ops::Slice { axis, start: if backwards { 0 } else { -1 }, len: 1 };
                let last = into.node(at.name, step, &[&own]);
                let last = into.node(at.name, ops::Reshape::without(axis, 3), &[&last]);
                if always_masked {
                    return last;
                }
                Some(into.node(at.name, ops::IfGiven, &[&last, mask]))
            }
            _ => None,
        };
        let last = top(spec, at, &h, n, into);
        match zeroed {
            Some(zeroed) => into.node(at.name, ops::FirstGiven, &[&zeroed, &last]),
            None => last,
        }
    };
    let own: Vec<String> = match spec.bidirectional {
        Some(Merge::Concat) if spec.return_sequences => vec![y.clone()],
        _ => (0..d).map(|n| output(n, into)).collect(),
    };
    let (rank, axis) = if spec.return_sequences { (3, usize::from(spec.time_major)) } else { (2, 0) };
    own.iter().for_each(|value| spec.penalize(at, (value, rank, axis), into));
    let outputs = match (spec.bidirectional, &own[..]) {
        (Some(Merge::Concat), [a, b]) => vec![into.node(at.name, ops::Concat { axis: 1 }, &[a, b])],
        (Some(Merge::Sum), [a, b]) => vec![into.node(at.name, ops::Binary::Add, &[a, b])],
        (Some(Merge::Multiply), [a, b]) => vec![into.node(at.name, ops::Binary::Mul, &[a, b])],
        (Some(Merge::Average), [a, b]) => {
            let sum = into.node(at.name, ops::Binary::Add, &[a, b]);
            let half = Activation::Affine { alpha: 0.5, beta: 0.0 };
            vec![into.node(at.name, ops::Activate(half), &[&sum])]
        }
        _ => own,
    };
    Ok((outputs, [Some(h), c]))
}

/// Adds the stacked layers one by one in their form for training: `x`, `h0`, `c0`, `lengths` and `mask` become `y` and
/// the final states, whose names are given.
///
/// A single layer has one set of dropped features for all timesteps, and each direction its own, as in Keras; between
/// stacked layers every element is drawn by itself, as in PyTorch. Dropped units of h are the same at all timesteps, but
/// each gate has its own.
fn train(
    spec: &RecurrentSpec,
    at: &Place<'_>,
    &[x, h0, c0, lengths, mask]: &[&str; 5],
    (y, ends): (&str, [Option<&String>; 2]),
    into: &mut Lowering,
    reading_order: bool,
) {
    let (d, layers) = (spec.directions(), spec.num_layers);
    let batch = usize::from(spec.time_major);
    let mut value = x.to_owned();
    let mut finals = [Vec::new(), Vec::new()];
    // Directions whose inputs differ are nodes of their own.
    let apart = d == 2 && layers == 1 && spec.dropout > 0.0;
    let together = if apart { 1 } else { d };
    for layer in 0..layers {
        let top = layer + 1 == layers;
        let mut outputs = Vec::new();
        for first in (0..d).step_by(together) {
            let mut input = value.clone();
            if layer > 0 || layers == 1 {
                let shared: &[usize] = if layers == 1 { &[1 - batch] } else { &[] };
                input = into.dropped(at.name, spec.dropout, &value, 3, shared);
            }
            let rows = layer * d + first;
            let own = |state: &str, into: &mut Lowering| match state {
                "" => String::new(),
                _ if together == layers * d => state.to_owned(),
                _ => into.node(at.name, ops::Slice { axis: 0, start: rows as isize, len: together }, &[state]),
            };
            let (h, c) = (own(h0, into), own(c0, into));
            let whole = together == d;
            let whole_ends = layers == 1 && whole;
            let mut names = vec![if whole && top { y.to_owned() } else { into.value(at.name) }];
            for (end, finals) in ends.iter().zip(&mut finals).filter_map(|(e, f)| Some((e.as_ref()?, f))) {
                let own = if whole_ends { (*end).clone() } else { into.value(at.name) };
                finals.push(own.clone());
                names.push(own);
            }
            let step = Step { layer, directions: first..first + together, reading_order: reading_order && top };
            let given = [&input, &h, &c, lengths, mask];
            outputs.push(names[0].clone());
            step.add(spec, at, given, names, into);
        }
        value = match &outputs[..] {
            [one] => one.clone(),
            both => {
                let both: Vec<&str> = both.iter().map(String::as_str).collect();
                into.graph.node(at.name, ops::Concat { axis: 2 }, &both, &[y]);
                y.to_owned()
            }
        };
    }
    for (end, finals) in ends.iter().zip(&finals).filter_map(|(e, f)| Some((e.as_ref()?, f))) {
        if finals.len() > 1 {
            let finals: Vec<&str> = finals.iter().map(String::as_str).collect();
            into.graph.node(at.name, ops::Concat { axis: 0 }, &finals, &[end]);
        }
    }
}

/// Directions of a stacked layer that are one node in training.
struct Step {
    layer: usize,
    directions: std::ops::Range<usize>,
    reading_order: bool,
}

impl Step {
    /// Adds the node. Its inputs are x, h0, c0, lengths and a mask; `outputs` are the names of y, h and c.
    fn add(
        &self,
        spec: &RecurrentSpec,
        at: &Place<'_>,
        [x, h0, c0, lengths, mask]: [&str; 5],
        mut outputs: Vec<String>,
        into: &mut Lowering,
    ) {
        let d = self.directions.len();
        let (width, _) = spec.cell.state_sizes(spec.units);
        let batch = usize::from(spec.time_major);
        // Rows of an embedding are looked up by the layer itself.
        let looked_up = into.training.as_ref().and_then(|t| t.looked_up.get(x));
        let [read, ids] = looked_up.cloned().unwrap_or_else(|| [x.to_owned(), String::new()]);
        let like = if ids.is_empty() { &read } else { &ids };
        let size = ops::Extent::Size;
        let rows = ops::Extent::Axes(batch, 1);
        let dropout = match spec.recurrent_dropout {
            rate if rate > 0.0 && !matches!(spec.cell.kind, CellKind::MinGru | CellKind::MinLstm) => {
                let gates = size(spec.cell.kind.gates());
                into.draw(at.name, Noise::Dropout { rate }, vec![size(d), gates, rows, size(width)], like)
            }
            _ => String::new(),
        };
        let kept = |rate: f32, n: usize, into: &mut Lowering| {
            let dims = vec![size(d), ops::Extent::Axes(1 - batch, 1), rows, size(n)];
            into.draw(at.name, Noise::Bernoulli { rate }, dims, like)
        };
        let zoneout = spec.cell.zoneout;
        let zoneout_h = zoneout.map(|z| kept(z.h, width, into)).unwrap_or_default();
        let has_c = spec.cell.kind.has_cell_state();
        let zoneout_c = zoneout.filter(|_| has_c).map(|z| kept(z.c, spec.units, into)).unwrap_or_default();
        let operator = ops::RecurrentTraining {
            cell: spec.cell,
            input_size: layer_input(spec, at.features, self.layer),
            hidden_size: spec.units,
            directions: spec.reading()[self.directions.clone()].to_vec(),
            masked_output: spec.masked_output(),
            time_major: spec.time_major,
            reading_order: self.reading_order,
            checkpoints: into.training.as_ref().is_some_and(|t| t.options.checkpoints),
        };
        let there = parts(spec, at.features, self.layer);
        let weights = self.directions.clone().flat_map(|direction| {
            let there = &there;
            ops::PARTS.iter().map(move |part| match there.iter().any(|(p, _)| p == part) {
                true => name_of(at.prefix, part, self.layer, direction == 1),
                false => String::new(),
            })
        });
        let inputs: Vec<String> = [&read, h0, c0, lengths, mask, &dropout, &zoneout_h, &zoneout_c, &ids]
            .map(str::to_owned)
            .into_iter()
            .chain(weights)
            .collect();
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        outputs.extend((0..operator.kept()).map(|_| into.value(at.name)));
        let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
        into.graph.node(at.name, operator, &inputs, &outputs);
    }
}

/// The name of one direction's weight, as PyTorch's modules have it.
pub(crate) fn name_of(prefix: &str, part: &str, layer: usize, reverse: bool) -> String {
    let dot = if prefix.is_empty() { "" } else { "." };
    let end = if reverse { "_reverse" } else { "" };
    format!("{prefix}{dot}{part}_l{layer}{end}")
}

/// Checks that the options do not contradict each other.
pub(crate) fn check_spec(name: &str, spec: &RecurrentSpec) -> Result<()> {
    let bad = |argument, message: &str| Err(bad_option(name, argument, message));
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
    for (argument, rate) in [("dropout", spec.dropout), ("recurrent_dropout", spec.recurrent_dropout)] {
        if !(0.0..=1.0).contains(&rate) {
            return bad(argument, "must be in [0, 1]");
        }
    }
    let kind = spec.cell.kind;
    if spec.cell.peepholes && !matches!(kind, CellKind::Lstm { .. }) {
        return bad("peepholes", "belong to an LSTM");
    }
    if let CellKind::SLstm { heads, .. } = kind
        && (heads == 0 || !spec.units.is_multiple_of(heads))
    {
        return bad("num_heads", "must divide the units");
    }
    if matches!(kind, CellKind::MinGru | CellKind::MinLstm) && spec.bias == Bias::Double {
        return bad("bias", "of the minimal cells is single: they have no recurrent weights");
    }
    Ok(())
}

/// The number of features that a stacked layer reads.
pub(crate) fn layer_input(spec: &RecurrentSpec, input_size: usize, layer: usize) -> usize {
    if layer == 0 { input_size } else { spec.directions().saturating_mul(spec.state_size()) }
}

/// The weights of one direction, by part and shape, in PyTorch's order.
pub(crate) fn parts(spec: &RecurrentSpec, input_size: usize, layer: usize) -> Vec<(&'static str, Vec<usize>)> {
    let cell = spec.cell;
    let (units, width) = (spec.units, spec.state_size());
    // A number that overflows is replaced by the largest: there is no memory for either.
    let rows = cell.kind.gates().saturating_mul(units);
    let mut all = vec![("weight_ih", vec![rows, layer_input(spec, input_size, layer)])];
    match cell.kind {
        CellKind::MinGru | CellKind::MinLstm => {}
        CellKind::IndRnn => all.push(("weight_hh", vec![units])),
        kind => all.push(("weight_hh", vec![rows, kind.columns(width)])),
    }
    if spec.bias != Bias::None {
        all.push(("bias_ih", vec![rows]));
    }
    if spec.bias == Bias::Double {
        all.push(("bias_hh", vec![rows]));
    }
    if let Some(p) = cell.projection {
        all.push(("weight_hr", vec![p, units]));
    }
    if cell.peepholes {
        all.push(("weight_peephole", vec![3, units]));
    }
    if cell.layer_norm.is_some() {
        all.extend([("norm_ih", vec![2, rows]), ("norm_hh", vec![2, rows])]);
        if cell.kind.has_cell_state() {
            all.push(("norm_c", vec![2, units]));
        }
    }
    all
}
