//! Networks: layers with their weights on a device.

use crate::config::{NetworkConfig, ValueRef};
use crate::layer::bad_option;
use crate::lowering::{Flow, LENGTHS, Level, Lowering, MASK, Place, input_name};
use crate::module::check_state;
use crate::summary::{LayerSummary, Summary, show};
#[cfg(feature = "training")]
use crate::training::{TrainingGraph, TrainingGraphOptions, TrainingState};
use crate::variables::NetworkVariable;
use crate::{CallArgs, ConstrainedWeights, Error, LayerConfig, Result, State, Weights};
use recurve_graph::{Executor, Frame, Graph, RunOptions, Source, ValueId};
use recurve_tensor::{DType, Device, MAX_RANK, Tensor};
use smallvec::{SmallVec, smallvec};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A chain of layers, as Keras's `Sequential`.
///
/// ```
/// use recurve_layers::{Dense, Embedding, Sequential, SimpleRnn};
/// use recurve_tensor::{Activation, Device};
/// # fn main() -> Result<(), recurve_layers::Error> {
/// let network = Sequential::new()
///     .add(Embedding::new(10_000, 32))
///     .add(SimpleRnn::new(32).return_sequences(true))
///     .add(SimpleRnn::new(32))
///     .add(Dense::new(1).activation(Activation::Sigmoid))
///     .build(&[None, None], &Device::Cpu)?;
/// assert_eq!(network.summary().total_params, 320_000 + 2 * 2_080 + 33);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Sequential {
    layers: Vec<LayerConfig>,
    seed: u64,
}

impl Sequential {
    /// A chain without layers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a layer.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "Keras's name")]
    pub fn add(mut self, layer: impl Into<LayerConfig>) -> Self {
        self.layers.push(layer.into());
        self
    }

    /// Sets the seed of the initial weights, which is 0 by default. The same seed gives the same weights on every
    /// machine.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Builds the network with initial weights for an input of this shape; `None` stands for any size. The input is ids
    /// `[batch, timesteps]` if the first layer is an [`crate::Embedding`], else `[batch, timesteps, features]`.
    ///
    /// # Errors
    /// [`Error::Input`] if a layer cannot take the output of the one before it, [`Error::Option`] if options contradict
    /// each other; errors of the device.
    pub fn build(&self, input_shape: &[Option<usize>], device: &Device) -> Result<Network> {
        initialized(&NetworkConfig::sequential(&self.layers, input_shape)?, self.seed, device)
    }
}

/// Makes another seed for what the options of weights draw than for what the layer draws.
const OF_OPTIONS: u64 = 0x6F70_7469_6F6E_7300;

/// A network with initial weights.
pub(crate) fn initialized(config: &NetworkConfig, seed: u64, device: &Device) -> Result<Network> {
    let mut weights = Weights::new();
    config.walk(|v| {
        if v.call > 0 {
            return Ok(());
        }
        let seed = seed.wrapping_add((v.index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        v.layer.module().features(v.name, v.shapes[0])?;
        v.layer.module().initialize(v.shapes, v.prefix, seed, &mut weights)?;
        let mut rng = recurve_tensor::random::rng(seed ^ OF_OPTIONS);
        let groups = v.layer.module().weight_groups(v.shapes, v.prefix);
        groups.iter().try_for_each(|group| group.draw(v.name, &mut rng, &mut weights))
    })?;
    Network::new(config, Arc::new(weights), device)
}

/// The states of a network's recurrent layers, first to last. A layer of stacked cells has one per cell. Layers inside
/// a [`crate::TimeDistributed`] are not included.
#[derive(Clone, Debug)]
pub struct NetworkState(States);

/// States stored inline, so that a step of a stream allocates nothing.
pub(crate) type States = SmallVec<[State; 4]>;

impl NetworkState {
    /// The states.
    pub fn states(&self) -> &[State] {
        &self.0
    }
}

impl From<Vec<State>> for NetworkState {
    fn from(states: Vec<State>) -> Self {
        Self(states.into())
    }
}

impl FromIterator<State> for NetworkState {
    fn from_iter<I: IntoIterator<Item = State>>(states: I) -> Self {
        Self(states.into_iter().collect())
    }
}

/// Checks that some layer reads the mask or the lengths of a call.
pub(crate) fn check_given(
    unreached: &[Option<String>; 2],
    reads_mask: Option<&String>,
    given: [bool; 2],
) -> Result<()> {
    for ((argument, given), layer) in [MASK, LENGTHS].into_iter().zip(given).zip(unreached) {
        if let (true, Some(layer)) = (given, layer) {
            let message = "would reach no layer: this one gives other timesteps than those of the input";
            return Err(bad_option(layer, argument, message));
        }
    }
    match reads_mask {
        Some(layer) if given[1] => {
            Err(bad_option(layer, LENGTHS, "are not supported by this layer: give a mask in their place"))
        }
        _ => Ok(()),
    }
}

/// The layers of a network as a graph.
#[cfg_attr(not(feature = "training"), expect(dead_code, reason = "some fields are for training"))]
struct Lowered {
    graph: Graph,
    levels: Vec<Level>,
    reads_mask: Option<String>,
    summaries: Vec<LayerSummary>,
    traced: Vec<(String, String)>,
    changes_time: Option<String>,
    /// The shapes of the outputs.
    shapes: Vec<Vec<Option<usize>>>,
    /// For each output whether it has the timesteps of the input.
    times: Vec<bool>,
    time_major: bool,
    /// The weights that the layers have.
    needed: HashSet<String>,
    /// Those of them that training does not change by gradients.
    frozen: HashSet<String>,
    masks: Vec<Option<String>>,
    updates: Vec<(String, String)>,
    normalizing: Vec<String>,
    /// The name of the output with the sum of penalties.
    penalty: Option<String>,
    constraints: Vec<ConstrainedWeights>,
}

/// The name of the output with the sum of penalties.
const PENALTY: &str = "penalty";

/// What a graph of layers is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Inference,
    /// Inference with the masks of the outputs and the penalties, which a loss needs.
    Evaluation,
    #[cfg(feature = "training")]
    Training(TrainingGraphOptions),
}

/// Converts the layers of a network to a graph. The shapes of `weights` are checked if they are given.
fn lower(config: &NetworkConfig, weights: Option<&Weights>, purpose: Purpose) -> Result<Lowered> {
    let training = match purpose {
        #[cfg(feature = "training")]
        Purpose::Training(options) => Some(options),
        _ => None,
    };
    // A contradiction in the description is reported before a missing weight.
    config.walk(|_| Ok(()))?;
    let time_major = config.layers.iter().any(|l| l.layer.module().time_major());
    let mut into = Lowering::new(&config.inputs, time_major, training);
    let mut flows: HashMap<ValueRef, Flow> = (0..config.inputs.len())
        .map(|n| {
            let name = ValueRef::new(config.inputs[n].name.as_str());
            (name, Flow::new(input_name(&config.inputs, n), None, true))
        })
        .collect();
    let mut traced = Vec::new();
    let mut summaries: Vec<Option<LayerSummary>> = vec![None; config.layers.len()];
    let (mut needed, mut frozen) = (HashSet::new(), HashSet::new());
    let mut constraints = Vec::new();
    let penalized = purpose != Purpose::Inference;
    into.penalized = penalized;
    let mut changes_time: Option<String> = None;
    let shapes = config.walk(|v| {
        let module = v.layer.module();
        let (name, prefix, shape) = (v.name, v.prefix, v.shapes[0]);
        let features = module.features(name, shape)?;
        let shapes = v.weights()?;
        let groups = module.weight_groups(v.shapes, prefix);
        for group in &groups {
            if training.is_some() {
                group.check(name)?;
            }
            frozen.extend(group.frozen().map(str::to_owned));
        }
        let mut x = flows[&v.inputs[0]].clone();
        x.others = v.inputs[1..].iter().map(|i| flows[i].clone()).collect();
        let time = module.keeps_time(&x);
        if x.time && !time {
            changes_time.get_or_insert_with(|| name.to_owned());
        }
        if x.time && time_major && !module.per_timestep() {
            let message =
                "is false for this layer, which reads the batch first, but a layer of the network is time-major";
            return Err(bad_option(name, "time_major", message));
        }
        let place = Place { name, prefix, features, shape, shapes: v.shapes };
        let lowered = module.lower(&place, &x, &mut into)?;
        for group in groups.iter().filter(|g| penalized && g.options.trainable && v.call == 0) {
            for variable in group.variables() {
                if let Some(regularizer) = group.options.regularizers.get(&variable.variable) {
                    regularizer.of_variable(name, &variable, &mut into)?;
                }
                if let Some(constraint) = group.options.constraints.get(&variable.variable) {
                    constraints.push(ConstrainedWeights::new(name, variable, constraint.clone())?);
                }
            }
        }
        let activity = module.weight_options().and_then(|o| o.activity_regularizer);
        if let Some(regularizer) = activity.filter(|_| penalized && !module.adds_penalty()) {
            for (value, shape) in lowered.outputs.iter().zip(v.outputs) {
                let axis = usize::from(time_major && time && shape.len() > 2);
                regularizer.of_outputs(name, (value, shape.len(), axis), &mut into);
            }
        }
        traced.push((ValueRef { call: v.call, ..ValueRef::new(name) }.to_string(), lowered.outputs[0].clone()));
        for (output, value) in lowered.outputs.into_iter().enumerate() {
            // Final states have no time dimension.
            let like_the_first = v.outputs[output].len() == v.outputs[0].len();
            let mask = lowered.mask.clone().filter(|_| like_the_first);
            let place = ValueRef { of: name.into(), call: v.call, output };
            flows.insert(place, Flow::new(value, mask, time && like_the_first));
        }
        let count = |(_, dims): &(String, Vec<usize>)| dims.iter().product::<usize>();
        let summary = summaries[v.index].get_or_insert_with(|| LayerSummary {
            name: name.into(),
            class: module.class_name(),
            input_shape: shape.to_vec(),
            output_shapes: v.outputs.to_vec(),
            params: shapes.iter().map(count).sum(),
            non_trainable: shapes.iter().filter(|(name, _)| frozen.contains(name)).map(count).sum(),
            connected_to: Vec::new(),
        });
        summary.connected_to.extend_from_slice(v.inputs);
        for (name, dims) in shapes {
            if let Some(weights) = weights {
                weights.expect(&name, &dims)?;
            }
            needed.insert(name);
        }
        Ok(())
    })?;
    let Lowering { graph: mut builder, levels, reads_mask, training, penalty, .. } = into;
    let mut masks = Vec::new();
    let training = training.unwrap_or_default();
    let (updates, normalizing) = (training.updates, training.normalizing);
    for o in &config.outputs {
        builder.output(&format!("output.{}", o.name), &flows[&o.value].value);
        masks.push(flows[&o.value].mask.clone().filter(|_| purpose != Purpose::Inference));
    }
    for (n, level) in levels.iter().enumerate().filter(|(_, l)| l.keeps_state()) {
        for (name, end) in level.end_names(n).into_iter().zip(&level.ends) {
            end.iter().for_each(|end| builder.output(&name, end));
        }
    }
    for (n, mask) in masks.iter_mut().enumerate() {
        if let Some(value) = mask {
            let name = format!("mask.{}", config.outputs[n].name);
            builder.output(&name, value);
            *mask = Some(name);
        }
    }
    let updates = updates.into_iter().map(|(weight, value)| {
        let name = format!("update.{weight}");
        builder.output(&name, &value);
        (weight, name)
    });
    let updates = updates.collect();
    let penalty = penalty.map(|value| {
        builder.output(PENALTY, &value);
        PENALTY.to_owned()
    });
    Ok(Lowered {
        graph: builder.build()?,
        levels,
        reads_mask,
        summaries: summaries.into_iter().flatten().collect(),
        traced,
        changes_time,
        shapes: config.outputs.iter().map(|o| shapes[&o.value].clone()).collect(),
        times: config.outputs.iter().map(|o| flows[&o.value].time).collect(),
        time_major,
        needed,
        frozen,
        masks,
        updates,
        normalizing,
        penalty,
        constraints,
    })
}

/// The layer that keeps the mask, or the lengths, from every node of a graph.
fn unreached(graph: &Graph, changes_time: Option<&String>) -> [Option<String>; 2] {
    let unused = |input: &str| graph.find(input).is_some_and(|id| graph.users(id).next().is_none());
    [MASK, LENGTHS].map(|input| changes_time.cloned().filter(|_| unused(input)))
}

/// What a network [for evaluation](Network::for_evaluation) gives.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Evaluated {
    /// The outputs in the order of the description.
    pub outputs: Vec<Tensor>,
    /// For each the mask `[B, T]` that layers have computed for it.
    pub masks: Vec<Option<Tensor>>,
    /// The sum of all penalties, `[1]`, if there are some.
    pub penalty: Option<Tensor>,
}

/// Dimensions, stored inline.
type Dims = SmallVec<[usize; MAX_RANK]>;

/// Layers with weights, on a device.
///
/// The layers are converted to one graph of operators. A call checks its inputs, passes the states in and out, and runs
/// the graph.
#[derive(Debug)]
pub struct Network {
    config: NetworkConfig,
    /// The graph as the layers made it.
    graph: Arc<Graph>,
    /// The simplified graph, on the device.
    executor: Executor,
    /// The recurrent layers of the graph.
    levels: Vec<Level>,
    /// For each output its mask in the executor's graph, of a network for evaluation.
    masks: Vec<Option<ValueId>>,
    /// The sum of its penalties, likewise.
    penalty: Option<ValueId>,
    /// The first output of every call of a layer, in the executor's graph.
    firsts: Vec<ValueId>,
    /// For these outputs, the name of the layer and the name of the value in the graph.
    traced: Vec<(String, String)>,
    /// A layer that reads the caller's mask, but cannot read lengths.
    reads_mask: Option<String>,
    /// The layer that keeps the caller's mask, or lengths, from every layer that could read them.
    unreached: [Option<String>; 2],
    /// Whether the first output has a time dimension.
    keeps_time: bool,
    /// The shapes of the outputs in the description.
    output_shapes: Vec<Vec<Option<usize>>>,
    summaries: Vec<LayerSummary>,
    weights: Arc<Weights>,
    device: Device,
}

impl Network {
    /// Makes a network from a description and weights, whose names start with `layers.N.`.
    ///
    /// # Errors
    /// [`Error::Input`], [`Error::Option`], [`Error::MissingWeight`], [`Error::ExtraWeight`],
    /// [`Error::WeightShape`]; errors of the device.
    pub fn new(config: &NetworkConfig, weights: Arc<Weights>, device: &Device) -> Result<Self> {
        Self::make(config, weights, device, Purpose::Inference)
    }

    /// Makes a network from a description, with initial weights. The same seed gives the same weights on every machine.
    ///
    /// # Errors
    /// As [`Self::new`]; those of the initializers.
    pub fn initial(config: &NetworkConfig, seed: u64, device: &Device) -> Result<Self> {
        initialized(config, seed, device)
    }

    /// The variables of the layers, as Keras has them: in the order of `Model.weights`.
    ///
    /// # Errors
    /// [`Error::Input`] and [`Error::Option`] as [`Self::new`].
    pub fn variables(&self) -> Result<Vec<NetworkVariable>> {
        let mut all: Vec<(usize, Vec<NetworkVariable>)> = Vec::new();
        self.config.walk(|v| {
            if v.call == 0 {
                let groups = v.layer.module().weight_groups(v.shapes, v.prefix);
                all.push((v.index, groups.iter().flat_map(|g| NetworkVariable::of(v.name, g)).collect()));
            }
            Ok(())
        })?;
        all.sort_by_key(|(index, _)| *index);
        Ok(all.into_iter().flat_map(|(_, own)| own).collect())
    }

    /// A network of which [`Self::forward_evaluated`] also gives the masks of the outputs and the penalties. Otherwise it
    /// is that of [`Self::new`].
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn for_evaluation(config: &NetworkConfig, weights: Arc<Weights>, device: &Device) -> Result<Self> {
        Self::make(config, weights, device, Purpose::Evaluation)
    }

    fn make(config: &NetworkConfig, weights: Arc<Weights>, device: &Device, purpose: Purpose) -> Result<Self> {
        let lowered = lower(config, Some(&weights), purpose)?;
        let Lowered { graph, levels, reads_mask, summaries, traced, changes_time, shapes, times, .. } = lowered;
        let Lowered { needed, masks, penalty, .. } = lowered;
        if let Some((name, _)) = weights.iter().find(|(n, _)| !needed.contains(*n)) {
            return Err(Error::ExtraWeight { name: name.into() });
        }
        let graph = Arc::new(graph);
        let simple = Arc::new(Graph::clone(&graph).simplified()?);
        let firsts = traced.iter().map(|(_, v)| simple.find(v).expect("a value of the graph")).collect();
        let unreached = unreached(&simple, changes_time.as_ref());
        let of_output = |name: &String| simple.outputs().iter().find(|(n, _)| n == name).map(|(_, id)| *id);
        let masks = masks.iter().map(|m| m.as_ref().and_then(of_output)).collect();
        let penalty = penalty.as_ref().and_then(of_output);
        let executor = Executor::new(simple.clone(), |name| weights.get(name).cloned(), device)?;
        executor.prepare()?;
        Ok(Self {
            masks,
            penalty,
            output_shapes: shapes,
            reads_mask,
            unreached,
            keeps_time: times[0],
            config: config.clone(),
            graph,
            executor,
            levels,
            firsts,
            traced,
            summaries,
            weights,
            device: device.clone(),
        })
    }

    /// The graph of the network in training: with dropout and noise, and recurrent layers in the form that has a
    /// gradient.
    ///
    /// # Errors
    /// [`Error::Option`] for a layer that cannot be trained, or asks for what training cannot do.
    #[cfg(feature = "training")]
    pub fn training_graph(&self) -> Result<TrainingGraph> {
        self.training_graph_with(TrainingGraphOptions::default())
    }

    /// [`Self::training_graph`] with options.
    ///
    /// # Errors
    /// As [`Self::training_graph`].
    #[cfg(feature = "training")]
    pub fn training_graph_with(&self, options: TrainingGraphOptions) -> Result<TrainingGraph> {
        let lowered = lower(&self.config, Some(&self.weights), Purpose::Training(options))?;
        let Lowered { graph, levels, masks, times, time_major, updates, normalizing, .. } = lowered;
        let Lowered { reads_mask, changes_time, frozen, penalty, constraints, .. } = lowered;
        let parameters = graph.parameters().map(|v| v.name.clone());
        let trainable = parameters.filter(|name| !frozen.contains(name)).collect();
        let states = levels.iter().enumerate().filter_map(|(n, l)| TrainingState::of(l, n)).collect();
        // What no layer reads may still say what counts in a loss.
        let unreached = unreached(&graph, changes_time.filter(|_| !times.contains(&true)).as_ref());
        let keeps_time = times;
        Ok(TrainingGraph {
            graph,
            trainable,
            normalizing,
            masks,
            keeps_time,
            time_major,
            updates,
            penalty,
            constraints,
            states,
            reads_mask,
            unreached,
        })
    }

    /// Checks that the network can run a sequence part after part, each with the state behind the part before.
    ///
    /// # Errors
    /// [`Error::Option`] for a layer that reads backwards or more than one timestep at once, and for an input whose
    /// number of timesteps is fixed.
    pub fn check_parts(&self) -> Result<()> {
        self.check_steps()
    }

    /// The same network on another device.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        Self::new(&self.config, self.weights.clone(), device)
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The description of the network.
    pub fn config(&self) -> &NetworkConfig {
        &self.config
    }

    /// The descriptions of the layers.
    pub fn layers(&self) -> impl ExactSizeIterator<Item = &LayerConfig> {
        self.config.layers.iter().map(|l| &l.layer)
    }

    /// The graph that the layers make.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The shapes of the outputs; `None` stands for any size.
    pub fn output_shapes(&self) -> &[Vec<Option<usize>>] {
        &self.output_shapes
    }

    /// The shape of the first input; `None` stands for any size.
    pub fn input_shape(&self) -> &[Option<usize>] {
        &self.config.inputs[0].shape
    }

    /// The element type of the first input: U32 for ids, else F32.
    pub fn input_dtype(&self) -> DType {
        self.config.inputs[0].dtype()
    }

    /// The weights by name, in their storage type. What the device computes with is packed from them.
    pub fn weights(&self) -> &Arc<Weights> {
        &self.weights
    }

    /// Replaces a weight. The next run packs the new weight for the device; other packed weights and the kept states of
    /// stateful layers are untouched.
    ///
    /// # Errors
    /// [`Error::ExtraWeight`] if no layer has this weight; [`Error::WeightShape`] if its shape is wrong, or `data` does
    /// not match `shape`. After an error the network is unchanged.
    pub fn set_weight(&mut self, name: &str, shape: &[usize], data: Vec<f32>) -> Result<()> {
        let mut weights = Weights::clone(&self.weights);
        weights.insert(name, shape, data)?;
        self.set_weights(Arc::new(weights))
    }

    /// Replaces all weights. The next run packs those that have changed (by [`recurve_weights::Weight::version`]); what
    /// was packed from the others is kept.
    ///
    /// # Errors
    /// [`Error::MissingWeight`], [`Error::ExtraWeight`], [`Error::WeightShape`]. After an error the network is
    /// unchanged.
    pub fn set_weights(&mut self, weights: Arc<Weights>) -> Result<()> {
        for (name, old) in self.weights.iter() {
            weights.expect(name, old.shape())?;
        }
        if let Some((name, _)) = weights.iter().find(|(name, _)| self.weights.get(name).is_none()) {
            return Err(Error::ExtraWeight { name: name.into() });
        }
        for (name, weight) in weights.iter() {
            self.executor.set_parameter(name, weight.clone())?;
        }
        self.weights = weights;
        Ok(())
    }

    /// A table of layers, shapes and numbers of parameters, as Keras prints it.
    pub fn summary(&self) -> Summary {
        Summary::new(if self.config.is_sequential() { "sequential" } else { "functional" }, self.summaries.clone())
    }

    /// Returns the output for an input.
    ///
    /// # Errors
    /// [`Error::Input`] if `x` has the wrong shape; errors of the layers and the device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.forward_all(x, &CallArgs::default())?.swap_remove(0))
    }

    /// Returns all outputs: one, or with `return_state` in the last layer also its states.
    ///
    /// # Errors
    /// As [`Self::forward`]; [`Error::Option`] if a state is given and the network does not have exactly one recurrent
    /// layer.
    pub fn forward_all(&self, x: &Tensor, args: &CallArgs<'_>) -> Result<Vec<Tensor>> {
        let state = args.state.map(|s| NetworkState(smallvec![s.clone()]));
        Ok(self.forward_from(x, args, state.as_ref())?.0)
    }

    /// Returns all outputs and the final states of all recurrent layers. Starts with `state`; if it is `None`, with
    /// zeros, and in stateful layers with the kept state.
    ///
    /// # Errors
    /// As [`Self::forward`]; [`Error::Option`] unless `state` holds one state per recurrent layer.
    pub fn forward_from(
        &self,
        x: &Tensor,
        args: &CallArgs<'_>,
        state: Option<&NetworkState>,
    ) -> Result<(Vec<Tensor>, NetworkState)> {
        self.run_all(&[self.only(x)?], args, state)
    }

    /// Runs a network with several inputs, given by name. Returns the outputs in the order of the description.
    ///
    /// # Errors
    /// [`Error::Option`] if an input is missing, unknown or given twice; otherwise as [`Self::forward_from`].
    pub fn forward_named(&self, inputs: &[(&str, &Tensor)]) -> Result<Vec<Tensor>> {
        Ok(self.forward_named_from(inputs, &CallArgs::default(), None)?.0)
    }

    /// [`Self::forward_named`] that starts with given states and returns the final ones, as [`Self::forward_from`].
    ///
    /// # Errors
    /// As [`Self::forward_named`].
    pub fn forward_named_from(
        &self,
        inputs: &[(&str, &Tensor)],
        args: &CallArgs<'_>,
        state: Option<&NetworkState>,
    ) -> Result<(Vec<Tensor>, NetworkState)> {
        self.run_all(&self.by_name(inputs)?, args, state)
    }

    /// The outputs for inputs in the order of the description, with what a loss needs besides: of a network
    /// [for evaluation](Self::for_evaluation), otherwise there is nothing of it.
    ///
    /// # Errors
    /// [`Error::Option`] for another number of inputs; otherwise as [`Self::forward_from`].
    pub fn forward_evaluated(&self, inputs: &[&Tensor], args: &CallArgs<'_>) -> Result<Evaluated> {
        if inputs.len() != self.config.inputs.len() {
            let message = format!("are {}, but there are {}", self.input_names(), inputs.len());
            return Err(bad_option("network", "inputs", message));
        }
        let frame = self.run(inputs, args, None, &[])?;
        let ids = self.executor.graph().outputs()[..self.config.outputs.len()].iter();
        let outputs = ids.map(|(_, id)| value(&frame, *id)).collect();
        let masks = self.masks.iter().map(|m| m.map(|id| value(&frame, id))).collect();
        let penalty = self.penalty.map(|id| value(&frame, id));
        self.end(frame, args);
        Ok(Evaluated { outputs, masks, penalty })
    }

    fn run_all(
        &self,
        xs: &[&Tensor],
        args: &CallArgs<'_>,
        state: Option<&NetworkState>,
    ) -> Result<(Vec<Tensor>, NetworkState)> {
        let frame = self.run(xs, args, state, &[])?;
        let ids = self.executor.graph().outputs()[..self.config.outputs.len()].iter();
        let values = ids.map(|(_, id)| value(&frame, *id)).collect();
        Ok((values, self.end(frame, args)))
    }

    /// The input of a network with one input.
    fn only<'a>(&self, x: &'a Tensor) -> Result<&'a Tensor> {
        match self.config.inputs.len() {
            1 => Ok(x),
            _ => {
                let message = format!("are {}; give each by its name to `forward_named`", self.input_names());
                Err(bad_option("network", "inputs", message))
            }
        }
    }

    fn input_names(&self) -> String {
        self.config.inputs.iter().map(|i| format!("`{}`", i.name)).collect::<Vec<_>>().join(", ")
    }

    /// Sorts inputs into the order of the description.
    fn by_name<'a>(&self, inputs: &[(&str, &'a Tensor)]) -> Result<SmallVec<[&'a Tensor; 4]>> {
        let bad = |name: &str, what: &str| {
            Err(bad_option("network", "inputs", format!("are {}, but `{name}` {what}", self.input_names())))
        };
        for (n, (name, _)) in inputs.iter().enumerate() {
            if self.config.inputs.iter().all(|i| i.name != *name) {
                return bad(name, "is given");
            }
            if inputs[..n].iter().any(|(other, _)| other == name) {
                return bad(name, "is given twice");
            }
        }
        let mut all = SmallVec::new();
        for i in &self.config.inputs {
            match inputs.iter().find(|(name, _)| *name == i.name) {
                Some((_, x)) => all.push(*x),
                None => return bad(&i.name, "is missing"),
            }
        }
        Ok(all)
    }

    /// Returns the first output of every call of a layer with the name of the layer, in the order in which they run.
    ///
    /// # Errors
    /// As [`Self::forward_named`].
    pub fn forward_traced(&self, inputs: &[(&str, &Tensor)], args: &CallArgs<'_>) -> Result<Vec<(String, Tensor)>> {
        let state = args.state.map(|s| NetworkState(smallvec![s.clone()]));
        let frame = self.run(&self.by_name(inputs)?, args, state.as_ref(), &self.firsts)?;
        let values = self.firsts.iter().map(|id| value(&frame, *id));
        let values = self.traced.iter().map(|(layer, _)| layer.clone()).zip(values).collect();
        self.end(frame, args);
        Ok(values)
    }

    /// [`Self::forward_traced`] in which the calls of layers before call `at` run on this network's device, and the
    /// others on `device`. It shows the error of a single layer on that device, because the layer's inputs are right.
    ///
    /// # Errors
    /// As [`Self::forward_named`]; errors of the other device.
    pub fn forward_traced_across(
        &self,
        at: usize,
        device: &Device,
        inputs: &[(&str, &Tensor)],
        args: &CallArgs<'_>,
    ) -> Result<Vec<(String, Tensor)>> {
        let there = self.to_device(device)?;
        let mut options = RunOptions::default();
        options.strategy = args.strategy;
        let state = args.state.map(|s| NetworkState(smallvec![s.clone()]));
        let mut frame = self.start(&self.by_name(inputs)?, args, state.as_ref(), &self.firsts)?;
        let before = at.checked_sub(1).and_then(|before| self.firsts.get(before));
        let first = before.map_or(0, |id| match self.graph().value(*id).source {
            Source::Node { node, .. } => node + 1,
            _ => 0,
        });
        self.executor.advance(&mut frame, first, &options)?;
        let mut frame = frame.to_device(device)?;
        there.executor.advance(&mut frame, usize::MAX, &options)?;
        let values = there.firsts.iter().map(|id| value(&frame, *id));
        Ok(self.traced.iter().map(|(layer, _)| layer.clone()).zip(values).collect())
    }

    /// The names in [`Self::graph`] of the values that [`Self::forward_traced`] returns.
    pub fn traced_values(&self) -> impl Iterator<Item = &str> {
        self.traced.iter().map(|(_, value)| &value[..])
    }

    /// Runs one timestep of a stream: takes ids `[B]` or features `[B, …]`, and the states after the timestep before.
    /// The output has no time dimension. Nothing is read back.
    ///
    /// # Errors
    /// [`Error::Option`] for a layer that reads backwards, which cannot run on streams; otherwise as
    /// [`Self::forward_from`].
    pub fn step(&self, x: &Tensor, state: Option<&NetworkState>) -> Result<(Tensor, NetworkState)> {
        self.step_with(x, &CallArgs::default(), state)
    }

    /// [`Self::step`] with lengths (0 leaves the state of a row unchanged) and a strategy.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn step_with(
        &self,
        x: &Tensor,
        args: &CallArgs<'_>,
        state: Option<&NetworkState>,
    ) -> Result<(Tensor, NetworkState)> {
        self.check_steps()?;
        let time = usize::from(!self.time_major());
        let mut dims = Dims::from_slice(x.dims());
        let x = &self.only(x)?;
        if dims.len() + 1 != self.input_shape().len() {
            return Err(Error::Input {
                layer: self.config.layers[0].name.clone(),
                expected: "one timestep: [batch] of ids or [batch, features]".into(),
                got: x.shape().to_string(),
            });
        }
        dims.insert(time, 1);
        let frame = self.run(&[&x.reshape(&dims)?], args, state, &[])?;
        let y = value(&frame, self.executor.graph().outputs()[0].1);
        let state = self.end(frame, args);
        // If only the last output is returned, there is no time dimension to remove.
        if !self.keeps_time {
            return Ok((y, state));
        }
        let mut dims = Dims::from_slice(y.dims());
        dims.remove(time);
        Ok((y.reshape(&dims)?, state))
    }

    /// Checks that a call can go on where another one ended ([`Self::forward_from`]) and give what one call would: no
    /// layer reads backwards or needs all timesteps at once.
    ///
    /// # Errors
    /// [`Error::Option`] with the name of the layer.
    pub fn check_goes_on(&self) -> Result<()> {
        self.config.layers.iter().try_for_each(|l| l.layer.module().check_step(&l.name))
    }

    /// Checks that a single timestep can run.
    fn check_steps(&self) -> Result<()> {
        self.check_goes_on()?;
        match self.input_shape().get(usize::from(!self.time_major())) {
            Some(&Some(steps)) if steps != 1 => Err(Error::Option {
                layer: self.summaries[0].name.clone(),
                argument: "input_shape",
                message: format!("fixes the number of timesteps at {steps}, so a single one cannot run"),
            }),
            _ => Ok(()),
        }
    }

    /// Checks that rows of a batch can be separate streams whose states the caller keeps: single timesteps can run
    /// ([`Self::check_steps`]), any number of rows is allowed, no layer computes a mask, and no layer keeps a state
    /// that is not in a [`NetworkState`].
    pub(crate) fn check_streams(&self) -> Result<()> {
        self.check_steps()?;
        if let Some(&Some(rows)) = self.input_shape().get(usize::from(self.time_major())) {
            let message = format!("fixes the number of sequences at {rows}, but streams join and leave");
            return Err(bad_option(&self.summaries[0].name, "input_shape", message));
        }
        if self.config.inputs.len() > 1 {
            return Err(bad_option("network", "inputs", "must be one: streams have one input per timestep"));
        }
        self.config.layers.iter().try_for_each(|l| l.layer.module().check_streams(&l.name))
    }

    /// Whether a call changes what the next one computes: a layer is stateful ([`Self::reset_states`] ends that).
    pub fn is_stateful(&self) -> bool {
        self.layers().any(|l| l.module().is_stateful())
    }

    pub(crate) fn time_major(&self) -> bool {
        self.layers().any(|l| l.module().time_major())
    }

    /// Runs a call up to its last node.
    fn run(
        &self,
        xs: &[&Tensor],
        args: &CallArgs<'_>,
        state: Option<&NetworkState>,
        watched: &[ValueId],
    ) -> Result<Frame> {
        let run = || -> Result<Frame> {
            let mut frame = self.start(xs, args, state, watched)?;
            let mut options = RunOptions::default();
            options.strategy = args.strategy;
            self.executor.advance(&mut frame, usize::MAX, &options)?;
            Ok(frame)
        };
        run().map_err(|e| e.of_call(xs))
    }

    /// Measures the fastest way of running each recurrent layer for inputs of these shapes on a GPU, as
    /// [`recurve_kernels::Recurrent::tune`] does. Later calls with [`recurve_kernels::Strategy::Auto`] use it.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn tune(&self, inputs: &[(&str, &Tensor)]) -> Result<()> {
        let inputs = self.by_name(inputs)?;
        let mut frame = self.start(&inputs, &CallArgs { ignore_memory: true, ..CallArgs::default() }, None, &[])?;
        let mut options = RunOptions::default();
        options.tune = true;
        self.executor.advance(&mut frame, usize::MAX, &options)?;
        self.executor.recycle(frame);
        Ok(())
    }

    /// Prepares a call, up to its first node.
    fn start(
        &self,
        xs: &[&Tensor],
        args: &CallArgs<'_>,
        state: Option<&NetworkState>,
        watched: &[ValueId],
    ) -> Result<Frame> {
        let count = self.levels.iter().filter(|l| l.visible()).count();
        if let Some(s) = state
            && s.0.len() != count
        {
            let message = format!("must hold {count} states, one per recurrent layer, but it holds {}", s.0.len());
            return Err(bad_option("network", "state", message));
        }
        for (n, x) in xs.iter().enumerate() {
            self.check(n, x)?;
        }
        let counted = xs.len() == 1;
        if !counted && (args.mask.is_some() || args.lengths.is_some()) {
            let message = "belong to networks with one input; use Masking or mask_zero for each of several";
            return Err(bad_option("network", "mask, lengths", message));
        }
        self.check_valid(xs[0], args)?;
        let mut given = state.map_or(&[][..], |s| &s.0).iter();
        let mut states: SmallVec<[Option<State>; 4]> = SmallVec::new();
        for level in self.levels.iter().filter(|l| l.keeps_state()) {
            let own = if level.visible() { given.next() } else { None };
            own.map(|s| check_state(&level.spec, s)).transpose()?;
            states.push(match own {
                None if !args.ignore_memory => level.remembered(xs[0])?,
                _ => own.cloned(),
            });
        }
        let mut inputs: SmallVec<[Option<&Tensor>; 16]> = xs.iter().map(|&x| Some(x)).collect();
        if counted {
            inputs.extend([args.mask, args.lengths]);
        }
        for (level, state) in self.levels.iter().filter(|l| l.keeps_state()).zip(&states) {
            inputs.push(state.as_ref().map(|s| &s.h));
            if level.ends[1].is_some() {
                inputs.push(state.as_ref().and_then(|s| s.c.as_ref()));
            }
        }
        Ok(self.executor.start(&inputs, watched))
    }

    /// Collects the final states of a call. Those of stateful layers are kept.
    fn end(&self, frame: Frame, args: &CallArgs<'_>) -> NetworkState {
        let mut ids = self.executor.graph().outputs()[self.config.outputs.len()..].iter();
        let mut next = || value(&frame, ids.next().expect("an output for each state").1);
        let mut ends = States::new();
        for level in self.levels.iter().filter(|l| l.keeps_state()) {
            let h = next();
            let end = State { h, c: level.ends[1].as_ref().map(|_| next()) };
            if level.spec.stateful && !args.ignore_memory {
                *level.kept() = Some(end.clone());
            }
            if level.visible() {
                ends.push(end);
            }
        }
        self.executor.recycle(frame);
        NetworkState(ends)
    }

    /// The names of the stateful layers, which keep their state from call to call.
    pub fn stateful_layers(&self) -> impl Iterator<Item = &str> {
        self.levels.iter().filter(|l| l.spec.stateful).map(Level::name)
    }

    /// Drops the kept states of all stateful layers.
    pub fn reset_states(&self) {
        self.levels.iter().for_each(|l| *l.kept() = None);
    }

    /// Whether a call may give the lengths of padded sequences: the network has one input, no layer keeps the lengths from
    /// those that follow or needs a mask in their place, and none finds the padding by itself (`Masking`, `mask_zero` of an
    /// embedding), since a layer takes either a mask or lengths.
    pub fn takes_lengths(&self) -> bool {
        let masks = |layer: &LayerConfig| match layer {
            LayerConfig::Masking(_) => true,
            LayerConfig::Embedding(embedding) => embedding.mask_zero,
            _ => false,
        };
        self.config.inputs.len() == 1
            && !self.config.layers.iter().any(|named| masks(&named.layer))
            && check_given(&self.unreached, self.reads_mask.as_ref(), [false, true]).is_ok()
    }

    /// Checks that some layer reads the mask or the lengths that are given.
    fn check_valid(&self, x: &Tensor, args: &CallArgs<'_>) -> Result<()> {
        let given = [args.mask.is_some(), args.lengths.is_some()];
        check_given(&self.unreached, self.reads_mask.as_ref(), given)?;
        let Some(layer) = &self.reads_mask else { return Ok(()) };
        match args.mask {
            Some(mask) if Some(mask.dims()) != x.dims().get(..2) => Err(Error::Input {
                layer: layer.clone(),
                expected: "a mask [batch, timesteps] of the input".into(),
                got: mask.shape().to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// Checks the shape and type of an input.
    fn check(&self, n: usize, x: &Tensor) -> Result<()> {
        let input = &self.config.inputs[n];
        let fits = x.dims().len() == input.shape.len()
            && x.dims().iter().zip(&input.shape).all(|(d, s)| s.is_none_or(|s| s == *d));
        if fits {
            return Ok(());
        }
        let letters = if input.ids { "[batch, timesteps]" } else { "[batch, timesteps, features]" };
        let single = self.config.inputs.len() == 1;
        Err(Error::Input {
            layer: if single { self.config.layers[0].name.clone() } else { input.name.clone() },
            expected: format!("{letters} = {}", show(&input.shape)),
            got: x.shape().to_string(),
        })
    }
}

/// A value of a finished run.
fn value(frame: &Frame, id: ValueId) -> Tensor {
    frame.value(id).expect("a run has all its outputs").clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dense, Embedding, Gru};
    use recurve_graph::{Constant, GraphBuilder, ops};

    /// The same graph with another table in which recurrent layers look up ids.
    fn with_other_table(graph: &Graph, parameter: &str, table: &[f32]) -> Graph {
        let mut g = GraphBuilder::new();
        for (_, v) in graph.values() {
            let dims: Vec<usize> = v.kind.sizes().collect();
            match &v.source {
                Source::Input(_) if v.optional => g.optional_input(&v.name, v.kind.clone()),
                Source::Input(_) => g.input(&v.name, v.kind.clone()),
                Source::Parameter => g.parameter(&v.name, &dims),
                Source::Constant(c) => g.constant(&v.name, &dims, c.clone()),
                Source::Node { .. } => {}
                other => unreachable!("{other:?}"),
            }
            if v.name == parameter {
                g.constant("other", &dims, Constant::Float(table.into()));
            }
        }
        for node in graph.nodes() {
            let operator = node.operator.as_any();
            let recurrent = operator.downcast_ref::<ops::Recurrent>();
            let name = |id: ValueId| &*graph.value(id).name;
            let input = |id: &Option<ValueId>| match id.map_or("", name) {
                table if table == parameter && recurrent.is_some() => "other",
                name => name,
            };
            let inputs: Vec<_> = node.inputs.iter().map(input).collect();
            let outputs: Vec<_> = node.outputs.iter().copied().map(name).collect();
            match (recurrent, operator.downcast_ref::<ops::Linear>()) {
                (Some(r), _) => g.node(&node.name, r.clone(), &inputs, &outputs),
                (_, Some(linear)) => g.node(&node.name, *linear, &inputs, &outputs),
                _ => g.node(&node.name, ops::Gather, &inputs, &outputs),
            }
        }
        graph.outputs().iter().for_each(|(name, id)| g.output(name, &graph.value(*id).name));
        g.build().expect("the same graph but for a table")
    }

    /// A trace runs what a call runs: a wrong token table shows in the trace as it does in a call.
    #[test]
    fn a_wrong_token_table_shows_in_a_trace() {
        let layers =
            Sequential::new().add(Embedding::new(5, 3)).add(Gru::new(4).return_sequences(true)).add(Dense::new(2));
        let mut network = layers.build(&[None, None], &Device::Cpu).expect("a network");
        let ids = Tensor::from_u32(&[1, 4, 0, 2], &[2, 2], &Device::Cpu).expect("memory");
        let last = |n: &Network| {
            let trace = n.forward_traced(&[("input", &ids)], &CallArgs::default()).expect("a call");
            assert_eq!(*trace[0].1.shape(), [2, 2, 3], "the rows of the embedding, not ids");
            let traced = trace.last().expect("layers").1.to_vec().expect("a read");
            assert_eq!(traced, n.forward(&ids).expect("a call").to_vec().expect("a read"));
            (trace[0].1.to_vec().expect("a read"), traced)
        };
        let right = last(&network);
        let weights = network.weights().clone();
        let (graph, firsts) = (network.executor.graph().clone(), network.firsts.clone());
        let mut other = |table: &[f32]| {
            let other = Arc::new(with_other_table(&graph, "layers.0.weight", table));
            let find = |id: &ValueId| other.find(&graph.value(*id).name).expect("a value of both");
            network.firsts = firsts.iter().map(find).collect();
            network.executor =
                Executor::new(other, |n| weights.get(n).cloned(), &Device::Cpu).expect("the same weights");
            last(&network)
        };
        let own = weights.get("layers.0.weight").expect("the embedding's").to_vec().expect("memory");
        assert_eq!(other(&own), right, "the same table by another name");
        let wrong = other(&[0.5; 15]);
        assert_eq!(wrong.0, right.0, "the embedding itself is right");
        assert_ne!(wrong.1, right.1);
    }
}
