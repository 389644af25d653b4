//! Networks in their form for training.

use crate::ConstrainedWeights;
#[cfg(feature = "training")]
use crate::lowering::Level;
use recurve_graph::Graph;

/// How `Network::training_graph_with` makes a graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrainingGraphOptions {
    /// Whether recurrent layers keep the states of every ⌈√T⌉-th timestep for the gradient and compute all else again.
    pub checkpoints: bool,
}

impl TrainingGraphOptions {
    /// The same with or without checkpoints.
    #[must_use]
    pub fn checkpoints(self, checkpoints: bool) -> Self {
        Self { checkpoints }
    }
}

/// A network in training, for `Network::training_graph`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TrainingGraph {
    /// The graph. Its inputs are those of the network, its optional `mask` and `lengths`, the `seed` of what is drawn (u32
    /// `[2]`), and the initial states. Its first outputs are those of the network, `output.NAME` each.
    pub graph: Graph,
    /// The weights that training changes.
    pub trainable: Vec<String>,
    /// The weights of [`crate::BatchNormalization`] and [`crate::LayerNormalization`], which mixed precision leaves in f32.
    pub normalizing: Vec<String>,
    /// For each output of the network the name of the output with its mask, `[B, T]`, if layers have computed one.
    pub masks: Vec<Option<String>>,
    /// For each output whether it has the timesteps of the input.
    pub keeps_time: Vec<bool>,
    /// Whether inputs and outputs are `[T, B, …]`; masks are `[B, T]` nevertheless.
    pub time_major: bool,
    /// Weights that a run changes by itself, such as running means: the weight, and the name of the output with what it
    /// becomes.
    pub updates: Vec<(String, String)>,
    /// The name of the output with the sum of the penalties of all regularizers, `[1]`, which is added to the loss.
    pub penalty: Option<String>,
    /// The weights that are constrained after each step.
    pub constraints: Vec<ConstrainedWeights>,
    /// The states of the recurrent layers, first to last. A layer of stacked cells has one for each cell. Of layers
    /// inside a [`crate::TimeDistributed`] those that are stateful are here.
    pub states: Vec<TrainingState>,
    pub(crate) reads_mask: Option<String>,
    pub(crate) unreached: [Option<String>; 2],
}

impl TrainingGraph {
    /// Checks that a mask and lengths, if they are given, reach a layer or an output.
    ///
    /// # Errors
    /// [`crate::Error::Option`] with the layer that cannot read them.
    pub fn check_given(&self, mask: bool, lengths: bool) -> crate::Result<()> {
        crate::network::check_given(&self.unreached, self.reads_mask.as_ref(), [mask, lengths])
    }
}

/// The state of a recurrent layer in a [`TrainingGraph`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TrainingState {
    /// The layer's name.
    pub layer: String,
    /// Whether the layer starts with the final state of the call before.
    pub stateful: bool,
    /// Whether it is among the states of a call; not if the layer is inside a [`crate::TimeDistributed`].
    pub visible: bool,
    /// The names of the optional inputs of the graph with the initial h, and c of a cell with one.
    pub inputs: Vec<String>,
    /// The names of the outputs with the final ones.
    pub outputs: Vec<String>,
    /// The number of rows of each: layers times directions.
    rows: usize,
    /// The number of elements of h, and of c.
    widths: Vec<usize>,
    /// The shape of the layer's input.
    shape: Vec<Option<usize>>,
    folded: usize,
    time_major: bool,
}

impl TrainingState {
    /// The state of the level with this place among all levels, if it is an input and an output of the graph.
    #[cfg(feature = "training")]
    pub(crate) fn of(level: &Level, n: usize) -> Option<Self> {
        let spec = &level.spec;
        let (h, c) = spec.cell.state_sizes(spec.units);
        let there = |names: [String; 2]| names.into_iter().take(1 + usize::from(c.is_some())).collect();
        level.keeps_state().then(|| Self {
            layer: level.name().into(),
            stateful: spec.stateful,
            visible: level.visible(),
            inputs: there(level.starts.clone()),
            outputs: there(level.end_names(n)),
            rows: spec.num_layers * spec.directions(),
            widths: std::iter::once(h).chain(c).collect(),
            shape: level.shape.clone(),
            folded: level.folded,
            time_major: spec.time_major,
        })
    }

    /// The dimensions of h, and of c of a cell with one, for an input of the network with these dimensions; `None` if
    /// these are not the dimensions of an input.
    pub fn dims(&self, input: &[usize]) -> Option<Vec<[usize; 3]>> {
        let dims = crate::lowering::input_dims(&self.shape, self.folded, input);
        let sequences = *dims.get(usize::from(self.time_major))?;
        Some(self.widths.iter().map(|&w| [self.rows, sequences, w]).collect())
    }
}
