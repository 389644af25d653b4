//! Converting layers to a graph.

use crate::config::InputConfig;
use crate::layer::{Shape, bad_option};
use crate::{RecurrentSpec, Result, State, TrainingGraphOptions};
use recurve_graph::ops::Extent;
use recurve_graph::{Constant, Dim, Element, GraphBuilder, Int, Operator, ValueType, ops};
use recurve_tensor::{DType, Function, MAX_RANK, Noise, Tensor};
use smallvec::SmallVec;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The name of a network's input in the graph.
pub(crate) fn input_name(inputs: &[InputConfig], n: usize) -> String {
    if inputs.len() == 1 { "input".into() } else { format!("input.{}", inputs[n].name) }
}

/// The name of the optional input with the mask, `[B, T]`.
pub(crate) const MASK: &str = "mask";
/// The name of the optional input with the lengths, `[B]`.
pub(crate) const LENGTHS: &str = "lengths";

/// The position of a layer in a network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// The layer's name, which its nodes get too.
    pub(crate) name: &'a str,
    /// The prefix of the names of its weights.
    pub(crate) prefix: &'a str,
    /// The result of [`crate::layer::LayerModule::features`].
    pub(crate) features: usize,
    /// The shape of its first input.
    pub(crate) shape: &'a Shape,
    /// The shapes of all inputs.
    pub(crate) shapes: &'a [&'a Shape],
}

/// The input of a layer.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    /// The name of the value.
    pub(crate) value: String,
    /// The name of the mask that earlier layers computed, `[B, T]`.
    pub(crate) mask: Option<String>,
    /// Whether its timesteps are those of the network's input.
    pub(crate) time: bool,
    /// The further inputs.
    pub(crate) others: Vec<Flow>,
}

/// The outputs of a layer.
#[derive(Debug)]
pub(crate) struct Lowered {
    /// The names of its outputs.
    pub(crate) outputs: Vec<String>,
    /// The mask for later layers.
    pub(crate) mask: Option<String>,
}

impl Flow {
    /// An input with no further inputs.
    pub(crate) fn new(value: String, mask: Option<String>, time: bool) -> Self {
        Self { value, mask, time, others: Vec::new() }
    }
}

impl Lowered {
    pub(crate) fn one(value: String, mask: Option<String>) -> Self {
        Self { outputs: vec![value], mask }
    }
}

/// A recurrent layer in the graph, and the state that it keeps between calls.
#[derive(Debug)]
pub(crate) struct Level {
    /// The layer's name.
    name: String,
    /// The shape of its input.
    pub(crate) shape: Vec<Option<usize>>,
    /// The number of leading axes of the network's input that surrounding layers have merged into one.
    pub(crate) folded: usize,
    /// The description of the layer.
    pub(crate) spec: RecurrentSpec,
    /// The names of the inputs of the graph with the initial h and c; empty where there is none.
    pub(crate) starts: [String; 2],
    /// The names of the final h and c.
    pub(crate) ends: [Option<String>; 2],
    /// The kept state of a stateful layer.
    kept: Mutex<Option<State>>,
}

impl Level {
    /// Whether callers give and receive its state; false for a layer inside another.
    pub(crate) fn visible(&self) -> bool {
        self.folded == 0
    }

    /// The layer's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The names of the outputs of the graph with its final h and c, for the level's place among all levels.
    pub(crate) fn end_names(&self, place: usize) -> [String; 2] {
        ["h", "c"].map(|part| format!("end.{place}.{part}"))
    }

    /// Whether the graph has its state as an input and an output.
    pub(crate) fn keeps_state(&self) -> bool {
        self.visible() || self.spec.stateful
    }

    /// The kept state of a stateful layer.
    pub(crate) fn kept(&self) -> MutexGuard<'_, Option<State>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kept state of a stateful layer, for a call with this input of the network.
    ///
    /// # Errors
    /// [`crate::Error::Option`] if the kept state is of another number of sequences.
    pub(crate) fn remembered(&self, x: &Tensor) -> Result<Option<State>> {
        let kept = self.kept();
        let Some(state) = kept.as_ref() else { return Ok(None) };
        let (dims, sequences) = (self.input_dims(x.dims()), state.h.dims()[1]);
        if dims.get(usize::from(self.spec.time_major)) != Some(&sequences) {
            let shape = recurve_tensor::Shape::new(&dims).unwrap_or(*x.shape());
            return Err(bad_option(
                &self.name,
                "stateful",
                format!(
                    "keeps a state of {sequences} sequences, but the input has shape {shape}; call reset_states first"
                ),
            ));
        }
        Ok(kept.clone())
    }

    /// The shape of its input, for an input of the network with these dimensions.
    fn input_dims(&self, network: &[usize]) -> SmallVec<[usize; MAX_RANK]> {
        input_dims(&self.shape, self.folded, network)
    }
}

/// The dimensions of the input of a layer of this shape, inside of `folded` others, for an input of the network with
/// these dimensions.
pub(crate) fn input_dims(shape: &Shape, folded: usize, network: &[usize]) -> SmallVec<[usize; MAX_RANK]> {
    let rest = &network[folded.min(network.len())..];
    let mut dims: SmallVec<_> = shape.iter().zip(rest).map(|(known, &given)| known.unwrap_or(given)).collect();
    if let Some(first) = dims.first_mut()
        && folded > 0
    {
        *first = network.iter().take(folded + 1).product();
    }
    dims
}

/// A graph under construction, to which layers add their nodes.
#[derive(Debug)]
pub(crate) struct Lowering {
    pub(crate) graph: GraphBuilder,
    pub(crate) levels: Vec<Level>,
    /// Whether the network's layers read `[T, B, …]`.
    pub(crate) time_major: bool,
    /// The first layer that reads the caller's mask and cannot read lengths.
    pub(crate) reads_mask: Option<String>,
    /// Whether callers may give lengths or a mask; only if the network has one input.
    counted: bool,
    /// The weights that are in the graph already; calls of a layer share them.
    known: HashSet<String>,
    /// The number of layers around the current one.
    depth: usize,
    /// The number of values made so far.
    made: usize,
    /// Whether penalties are added.
    pub(crate) penalized: bool,
    /// The sum of the penalties so far, `[1]`.
    pub(crate) penalty: Option<String>,
    /// What only training has; `None` for inference.
    pub(crate) training: Option<Training>,
}

/// What a graph for training has besides that for inference.
#[derive(Debug, Default)]
pub(crate) struct Training {
    /// The number of draws so far.
    draws: u32,
    /// What the caller asked for.
    pub(crate) options: TrainingGraphOptions,
    /// Of values that are rows of a table: the table and which rows.
    pub(crate) looked_up: HashMap<String, [String; 2]>,
    /// Weights that a run changes by themselves, each with the value that it becomes.
    pub(crate) updates: Vec<(String, String)>,
    /// The weights of normalizations.
    pub(crate) normalizing: Vec<String>,
}

/// The name of the seed of a training graph's draws, u32 `[2]`.
pub(crate) const SEED: &str = "seed";

impl Lowering {
    /// A graph with the inputs of a network, for training or for inference.
    pub(crate) fn new(inputs: &[InputConfig], time_major: bool, training: Option<TrainingGraphOptions>) -> Self {
        let mut graph = GraphBuilder::new();
        let counted = inputs.len() == 1;
        for (k, input) in inputs.iter().enumerate() {
            // Sequences of different inputs may have different lengths.
            let time = if k == 0 { "time".to_owned() } else { format!("time.{}", input.name) };
            let axes = if time_major { [&time, "batch"] } else { ["batch", &time] };
            let dim = |(n, d): (usize, &Option<usize>)| match (d, axes.get(n)) {
                (Some(size), _) => Dim::Size(*size),
                (None, Some(name)) => Dim::symbol(name),
                (None, None) => Dim::Any,
            };
            graph.input(&input_name(inputs, k), ValueType::new(input.dtype(), input.shape.iter().enumerate().map(dim)));
        }
        if counted {
            graph.optional_input(MASK, ValueType::new(DType::U32, [None, None]));
            graph.optional_input(LENGTHS, ValueType::new(DType::U32, [None]));
        }
        if training.is_some() {
            graph.input(SEED, ValueType::new(DType::U32, [2usize]));
        }
        Self {
            graph,
            levels: Vec::new(),
            time_major,
            reads_mask: None,
            counted,
            known: HashSet::new(),
            depth: 0,
            made: 0,
            penalized: false,
            penalty: None,
            training: training.map(|options| Training { options, ..Training::default() }),
        }
    }

    /// Whether the graph is one for training, for which a build without the feature `training` contains no code.
    pub(crate) fn trains(&self) -> bool {
        cfg!(feature = "training") && self.training.is_some()
    }

    /// Notes that weights are those of a normalization.
    pub(crate) fn normalizes(&mut self, weights: &[String]) {
        self.training.iter_mut().for_each(|t| t.normalizing.extend_from_slice(weights));
    }

    /// Random numbers in dimensions that may be those of a value. Each call draws other numbers.
    pub(crate) fn draw(&mut self, layer: &str, noise: Noise, dims: Vec<Extent>, like: &str) -> String {
        let training = self.training.get_or_insert_default();
        let stream = training.draws;
        training.draws += 1;
        self.node(layer, ops::Draw { noise, dims, stream }, &[SEED, like])
    }

    /// A value times the factors of a dropout, which are the same along some axes.
    pub(crate) fn dropped(&mut self, layer: &str, rate: f32, x: &str, rank: usize, shared: &[usize]) -> String {
        if rate == 0.0 {
            return x.into();
        }
        let extent = |n: usize| if shared.contains(&n) { Extent::Size(1) } else { Extent::Axes(n, 1) };
        let factors = self.draw(layer, Noise::Dropout { rate }, (0..rank).map(extent).collect(), x);
        self.node(layer, ops::Binary::Mul, &[x, &factors])
    }

    /// Whether the layer's outputs can have a penalty. As in Keras, those of a layer inside another have none.
    pub(crate) fn penalizes_outputs(&self) -> bool {
        self.penalized && self.depth == 0
    }

    /// Adds a penalty, `[1]`.
    pub(crate) fn add_penalty(&mut self, layer: &str, penalty: &str) {
        self.penalty = Some(match self.penalty.take() {
            Some(sum) => self.node(layer, ops::Binary::Add, &[&sum, penalty]),
            None => penalty.to_owned(),
        });
    }

    /// A new name for a value of a layer.
    pub(crate) fn value(&mut self, layer: &str) -> String {
        self.made += 1;
        format!("{layer}:{}", self.made)
    }

    /// Adds a node with one output and returns the name of the output.
    pub(crate) fn node(&mut self, layer: &str, operator: impl Operator + 'static, inputs: &[&str]) -> String {
        let output = self.value(layer);
        self.graph.node(layer, operator, inputs, &[&output]);
        output
    }

    /// Adds a constant of floats.
    pub(crate) fn constant(&mut self, layer: &str, dims: &[usize], numbers: &[f32]) -> String {
        let name = self.value(layer);
        self.graph.constant(&name, dims, Constant::Float(numbers.into()));
        name
    }

    /// Adds weights and returns their names.
    pub(crate) fn parameters(&mut self, weights: Vec<(String, Vec<usize>)>) -> Vec<String> {
        weights
            .into_iter()
            .map(|(name, dims)| {
                if self.known.insert(name.clone()) {
                    self.graph.parameter(&name, &dims);
                }
                name
            })
            .collect()
    }

    /// Converts a mask computed by a layer from the layout of the data to `[B, T]`.
    pub(crate) fn found(&mut self, layer: &str, mask: String) -> String {
        if self.time_major { self.node(layer, ops::Transpose(vec![1, 0]), &[&mask]) } else { mask }
    }

    /// Runs `add` for a layer inside another.
    pub(crate) fn inside<T>(&mut self, add: impl FnOnce(&mut Self) -> T) -> T {
        self.depth += 1;
        let result = add(self);
        self.depth -= 1;
        result
    }

    /// The mask of a value `[B, T]`, and whether it always exists. A mask given by the caller takes precedence over
    /// one computed by a layer, but only belongs to values whose timesteps are those of the input.
    pub(crate) fn mask(&mut self, layer: &str, x: &Flow) -> (Option<String>, bool) {
        let given = self.counted && x.time;
        match &x.mask {
            Some(found) if given => (Some(self.node(layer, ops::FirstGiven, &[MASK, found])), true),
            Some(found) => (Some(found.clone()), true),
            None if given => (Some(MASK.into()), false),
            None => (None, false),
        }
    }

    /// [`Self::mask`] for a layer that cannot read lengths.
    pub(crate) fn mask_alone(&mut self, layer: &str, x: &Flow) -> (Option<String>, bool) {
        if self.counted && x.time {
            self.reads_mask.get_or_insert_with(|| layer.into());
        }
        self.mask(layer, x)
    }

    /// The name of the lengths of a recurrent layer.
    pub(crate) fn lengths(&self, x: &Flow) -> &'static str {
        if x.time && self.counted { LENGTHS } else { "" }
    }

    /// A mask `[B, T]` as floats `[B, T, 1]`, 0 at padding and 1 elsewhere.
    pub(crate) fn factors(&mut self, layer: &str, mask: &str) -> String {
        let factors = self.constant(layer, &[2, 1], &[0.0, 1.0]);
        self.node(layer, ops::Gather, &[&factors, mask])
    }

    /// The mask of what is valid in one of two masks.
    pub(crate) fn either(&mut self, layer: &str, a: &str, b: &str) -> String {
        if a == b {
            return a.into();
        }
        let (a, b) = (self.factors(layer, a), self.factors(layer, b));
        let larger = self.node(layer, ops::Binary::Max, &[&a, &b]);
        self.node(layer, ops::Mask::Features(0.0), &[&larger])
    }

    /// A mask in which every timestep of a value `[B, T, F]` is valid.
    pub(crate) fn all_valid(&mut self, layer: &str, x: &str) -> String {
        let ones = self.ones_like(layer, x);
        self.node(layer, ops::Mask::Features(0.0), &[&ones])
    }

    /// 1 for every number of a value. NaN stays NaN, which is not 0 either.
    pub(crate) fn ones_like(&mut self, layer: &str, x: &str) -> String {
        self.map(layer, Function::Clip { low: 1.0, high: 1.0 }, x)
    }

    /// A value that takes the place of another where a mask was given.
    pub(crate) fn if_masked(&mut self, layer: &str, always: bool, masked: String, plain: &str) -> String {
        if always { masked } else { self.node(layer, ops::FirstGiven, &[&masked, plain]) }
    }

    /// Adds a function of one operand.
    pub(crate) fn map(&mut self, layer: &str, function: Function, x: &str) -> String {
        self.node(layer, ops::Map { function, element: Element::F32 }, &[x])
    }

    /// Adds the square root.
    pub(crate) fn root(&mut self, layer: &str, x: &str) -> String {
        self.map(layer, Function::Sqrt, x)
    }

    /// Adds a constant of whole numbers.
    pub(crate) fn ints(&mut self, layer: &str, numbers: &[i64]) -> String {
        let name = self.value(layer);
        self.graph.constant(&name, &[numbers.len()], Constant::Int(Int::I64, numbers.into()));
        name
    }

    /// Adds a recurrent layer with the names of its final h and c. Returns the names of its initial h and c; empty if
    /// it has none.
    pub(crate) fn level(&mut self, at: &Place<'_>, spec: &RecurrentSpec, ends: [Option<&String>; 2]) -> [String; 2] {
        let mut level = Level {
            name: at.name.into(),
            shape: at.shape.to_vec(),
            folded: self.depth,
            spec: spec.clone(),
            starts: Default::default(),
            ends: ends.map(Option::<&String>::cloned),
            kept: Mutex::new(None),
        };
        let scope = if level.visible() { "state" } else { "memory" };
        let n = self.levels.iter().filter(|l| l.visible() == level.visible()).count();
        let mut input = |part: &str, end: Option<&String>| {
            if !level.keeps_state() || end.is_none() {
                return String::new();
            }
            let name = format!("{scope}.{n}.{part}");
            // The kernels check the shapes of states in every call.
            self.graph.optional_input(&name, ValueType::new(DType::F32, [None, None, None]));
            name
        };
        let names = [input("h", ends[0]), input("c", ends[1])];
        level.starts = names.clone();
        self.levels.push(level);
        names
    }
}
