//! How layers become a graph.

use crate::config::InputConfig;
use crate::layer::{Shape, bad_option};
use crate::{RecurrentSpec, Result, State};
use recurve_graph::{Constant, Dim, GraphBuilder, Operator, ValueType, ops};
use recurve_tensor::{DType, MAX_RANK, Tensor};
use smallvec::SmallVec;
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The name that an input of a network has in its graph.
pub(crate) fn input_name(inputs: &[InputConfig], n: usize) -> String {
    if inputs.len() == 1 { "input".into() } else { format!("input.{}", inputs[n].name) }
}

/// The name of the optional mask, `[B, T]`.
const MASK: &str = "mask";
/// The name of the optional lengths, `[B]`.
const LENGTHS: &str = "lengths";

/// Where a layer stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// The layer's name, which its nodes get.
    pub(crate) name: &'a str,
    /// What the names of its weights begin with.
    pub(crate) prefix: &'a str,
    /// What [`crate::layer::LayerModule::features`] says of its input.
    pub(crate) features: usize,
    /// The shape of its input.
    pub(crate) shape: &'a Shape,
}

/// What goes into a layer.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    /// The name of the value.
    pub(crate) value: String,
    /// The name of the mask that layers before found, `[B, T]`.
    pub(crate) mask: Option<String>,
    /// Whether it has a time dimension.
    pub(crate) time: bool,
    /// What else goes in.
    pub(crate) others: Vec<Flow>,
}

/// What comes out of a layer.
#[derive(Debug)]
pub(crate) struct Lowered {
    /// The names of its outputs.
    pub(crate) outputs: Vec<String>,
    /// The mask for the layers behind it.
    pub(crate) mask: Option<String>,
}

impl Flow {
    /// A value alone.
    pub(crate) fn new(value: String, mask: Option<String>, time: bool) -> Self {
        Self { value, mask, time, others: Vec::new() }
    }
}

impl Lowered {
    pub(crate) fn one(value: String, mask: Option<String>) -> Self {
        Self { outputs: vec![value], mask }
    }
}

/// A recurrence of a network and the state that it keeps between calls.
#[derive(Debug)]
pub(crate) struct Level {
    /// The layer's name.
    name: String,
    /// The shape that goes in, as the layer sees it.
    shape: Vec<Option<usize>>,
    /// Leading axes of the network's input that layers around it have folded into one.
    folded: usize,
    /// The description.
    pub(crate) spec: RecurrentSpec,
    /// The names of the final h and c.
    pub(crate) ends: [Option<String>; 2],
    /// What a stateful layer remembers.
    kept: Mutex<Option<State>>,
}

impl Level {
    /// Whether its state is the caller's: not that of a layer inside another.
    pub(crate) fn visible(&self) -> bool {
        self.folded == 0
    }

    /// Whether the graph has its state as an input and an output.
    pub(crate) fn keeps_state(&self) -> bool {
        self.visible() || self.spec.stateful
    }

    /// What a stateful layer remembers.
    pub(crate) fn kept(&self) -> MutexGuard<'_, Option<State>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a stateful layer remembers, for an input of the network.
    ///
    /// # Errors
    /// [`crate::Error::Option`] if that is of another number of sequences.
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
                    "remembers a state of {sequences} sequences, but the input has shape {shape}; call reset_states first"
                ),
            ));
        }
        Ok(kept.clone())
    }

    /// The shape of its input, for an input of the network.
    fn input_dims(&self, network: &[usize]) -> SmallVec<[usize; MAX_RANK]> {
        let rest = &network[self.folded.min(network.len())..];
        let mut dims: SmallVec<_> = self.shape.iter().zip(rest).map(|(known, &given)| known.unwrap_or(given)).collect();
        if let Some(first) = dims.first_mut()
            && !self.visible()
        {
            *first = network.iter().take(self.folded + 1).product();
        }
        dims
    }
}

/// A graph to which layers add their nodes.
#[derive(Debug)]
pub(crate) struct Lowering {
    pub(crate) graph: GraphBuilder,
    pub(crate) levels: Vec<Level>,
    /// The network's layers read `[T, B, …]`.
    time_major: bool,
    /// Whether the caller may say which timesteps count: of the only input.
    counted: bool,
    /// Weights that are in the graph: calls of a layer share them.
    known: HashSet<String>,
    /// How many layers are around the one that is added.
    depth: usize,
    /// Values made so far.
    made: usize,
}

impl Lowering {
    /// The inputs of a network.
    pub(crate) fn new(inputs: &[InputConfig], time_major: bool) -> Self {
        let mut graph = GraphBuilder::new();
        let counted = inputs.len() == 1;
        for (k, input) in inputs.iter().enumerate() {
            // Sequences of several inputs may be of different lengths.
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
        Self { graph, levels: Vec::new(), time_major, counted, known: HashSet::new(), depth: 0, made: 0 }
    }

    /// A new name for a value of a layer.
    pub(crate) fn value(&mut self, layer: &str) -> String {
        self.made += 1;
        format!("{layer}:{}", self.made)
    }

    /// A node with one output, whose name comes back.
    pub(crate) fn node(&mut self, layer: &str, operator: impl Operator + 'static, inputs: &[&str]) -> String {
        let output = self.value(layer);
        self.graph.node(layer, operator, inputs, &[&output]);
        output
    }

    /// Floats that stand in the graph.
    pub(crate) fn constant(&mut self, layer: &str, dims: &[usize], numbers: &[f32]) -> String {
        let name = self.value(layer);
        self.graph.constant(&name, dims, Constant::Float(numbers.into()));
        name
    }

    /// Weights, whose names come back.
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

    /// A mask that a layer found, in the layout of the data, as `[B, T]`.
    pub(crate) fn found(&mut self, layer: &str, mask: String) -> String {
        if self.time_major { self.node(layer, ops::Transpose(vec![1, 0]), &[&mask]) } else { mask }
    }

    /// Adds a layer that stands inside another.
    pub(crate) fn inside<T>(&mut self, add: impl FnOnce(&mut Self) -> T) -> T {
        self.depth += 1;
        let result = add(self);
        self.depth -= 1;
        result
    }

    /// The mask of a recurrence, and whether it is always there: the caller's before the one found. Those of the
    /// network do not reach layers inside others.
    pub(crate) fn mask(&mut self, layer: &str, found: Option<&String>) -> (Option<String>, bool) {
        match found {
            Some(found) if self.counted => (Some(self.node(layer, ops::FirstGiven, &[MASK, found])), true),
            Some(found) => (Some(found.clone()), true),
            None if self.depth == 0 && self.counted => (Some(MASK.into()), false),
            None => (None, false),
        }
    }

    /// The lengths of a recurrence.
    pub(crate) fn lengths(&self) -> &'static str {
        if self.depth == 0 && self.counted { LENGTHS } else { "" }
    }

    /// A recurrence with the names of its final h and c; the names of its initial ones come back, empty where
    /// there are none.
    pub(crate) fn level(&mut self, at: &Place<'_>, spec: &RecurrentSpec, ends: [Option<&String>; 2]) -> [String; 2] {
        let level = Level {
            name: at.name.into(),
            shape: at.shape.to_vec(),
            folded: self.depth,
            spec: spec.clone(),
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
            // The kernels check them, as those of any call.
            self.graph.optional_input(&name, ValueType::new(DType::F32, [None, None, None]));
            name
        };
        let names = [input("h", ends[0]), input("c", ends[1])];
        self.levels.push(level);
        names
    }
}
