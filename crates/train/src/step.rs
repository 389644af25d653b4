//! Steps of training.

use crate::builder::Builder;
use crate::error::check;
use crate::mixed::{self, Scaling};
use crate::scores::{Compared, OutputMetric, Scores};
use crate::{
    Average, BatchGradients, Clip, Error, Loss, LossScale, Optimizer, Origin, Parameter, Result, Schedule, accumulated,
    mean_of,
};
use recurve_graph::ops::{ExpandLike, Transpose};
use recurve_graph::{Assembly, Data, Executor, RunOptions, ValueId, ValueType};
use recurve_layers::{Network, NetworkConfig, State, TrainingGraph, TrainingGraphOptions, Weights};
use recurve_tensor::{DType, Descent, Device, Tensor};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What a network learns from in one step.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Batch<'a> {
    /// The inputs of the network, in order.
    pub inputs: &'a [&'a Tensor],
    /// What each of its outputs should be, as its [`Loss`] wants it.
    pub targets: &'a [&'a Tensor],
    /// Weights of the samples, for every output, as [`Loss::add`] takes them.
    pub sample_weights: Option<&'a Tensor>,
    /// Which timesteps are valid, `[B, T]`, U32: Keras's mask. It also says which timesteps of a sequence count in the
    /// loss.
    pub mask: Option<&'a Tensor>,
    /// The number of valid timesteps of each sequence, `[B]`, U32, as a mask. Not together with one.
    pub lengths: Option<&'a Tensor>,
    /// The initial states of the recurrent layers, one each. Without them layers begin with zeros, and those that are
    /// stateful with what they keep.
    pub states: Option<&'a [State]>,
}

impl<'a> Batch<'a> {
    /// Inputs with their targets.
    pub const fn new(inputs: &'a [&'a Tensor], targets: &'a [&'a Tensor]) -> Self {
        Self { inputs, targets, sample_weights: None, mask: None, lengths: None, states: None }
    }

    /// The same with weights of the samples.
    #[must_use]
    pub const fn sample_weights(self, weights: &'a Tensor) -> Self {
        Self { sample_weights: Some(weights), ..self }
    }

    /// The same with a mask.
    #[must_use]
    pub const fn mask(self, mask: &'a Tensor) -> Self {
        Self { mask: Some(mask), ..self }
    }

    /// The same with lengths.
    #[must_use]
    pub const fn lengths(self, lengths: &'a Tensor) -> Self {
        Self { lengths: Some(lengths), ..self }
    }

    /// The same with initial states.
    #[must_use]
    pub const fn states(self, states: &'a [State]) -> Self {
        Self { states: Some(states), ..self }
    }

    /// Everything but the states, in the order of the plan's own inputs.
    pub(crate) fn all(&self) -> impl Iterator<Item = &'a Tensor> {
        let more = [self.sample_weights, self.mask, self.lengths].into_iter().flatten();
        self.inputs.iter().chain(self.targets).copied().chain(more)
    }
}

/// What a step computed. Nothing has been read from the device yet.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StepResult {
    /// The loss before the step, `[1]`; of a network with several outputs the sum of their losses with their weights.
    pub loss: Tensor,
    /// The loss of each output, if there are several.
    pub losses: Vec<Tensor>,
    /// For each metric its weighted sum and the sum of the weights, `[2]`, if it is a mean
    /// ([`MetricState::add`](crate::MetricState::add)). Others are computed in host memory.
    pub metrics: Vec<Option<Tensor>>,
    /// The outputs of the network before the step.
    pub outputs: Vec<Tensor>,
    /// For each output the mask by which it counts, f32 of 0 and 1, if there is one.
    pub masks: Vec<Option<Tensor>>,
    /// The final states of the recurrent layers, one each.
    pub states: Vec<State>,
}

/// How a network is trained.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StepOptions {
    /// The loss of each output.
    pub losses: Vec<Loss>,
    /// What the loss of each output is multiplied by; 1 if there are none.
    pub loss_weights: Vec<f32>,
    /// What else is computed of each batch.
    pub metrics: Vec<OutputMetric>,
    /// The optimiser.
    pub optimizer: Optimizer,
    /// The learning rate by the number of the step, in place of the optimiser's own.
    pub schedule: Option<Schedule>,
    /// The limit of the gradients.
    pub clip: Option<Clip>,
    /// How the loss is scaled for weights in f16; none for weights in f32.
    pub mixed_precision: Option<LossScale>,
    /// Over how many batches gradients are added up before a step is taken with their mean: Keras's
    /// `gradient_accumulation_steps`.
    pub accumulate: usize,
    /// Keeps a moving average of the weights, as Keras's `use_ema`.
    pub average: Option<Average>,
    /// What is drawn in training depends on this number and on the number of the step alone.
    pub seed: u64,
    /// Whether recurrent layers keep the states of every ⌈√T⌉-th timestep for the gradient and compute all else again:
    /// less memory for long sequences, and a second forward pass.
    pub checkpoints: bool,
}

impl StepOptions {
    /// A loss for the only output, an optimiser, no limit of the gradients, seed 0.
    pub fn new(loss: Loss, optimizer: impl Into<Optimizer>) -> Self {
        Self {
            losses: vec![loss],
            loss_weights: Vec::new(),
            metrics: Vec::new(),
            optimizer: optimizer.into(),
            schedule: None,
            clip: None,
            mixed_precision: None,
            accumulate: 1,
            average: None,
            seed: 0,
            checkpoints: false,
        }
    }

    /// The same for a network with several outputs.
    #[must_use]
    pub fn losses(self, losses: impl Into<Vec<Loss>>) -> Self {
        Self { losses: losses.into(), ..self }
    }

    /// The same with weights of the losses.
    #[must_use]
    pub fn loss_weights(self, weights: impl Into<Vec<f32>>) -> Self {
        Self { loss_weights: weights.into(), ..self }
    }

    /// The same with one more metric.
    #[must_use]
    pub fn metric(mut self, metric: impl Into<OutputMetric>) -> Self {
        self.metrics.push(metric.into());
        self
    }

    /// The same with a learning rate by the number of the step.
    #[must_use]
    pub fn schedule(self, schedule: Schedule) -> Self {
        Self { schedule: Some(schedule), ..self }
    }

    /// The same with a limit of the gradients.
    #[must_use]
    pub fn clip(self, clip: Clip) -> Self {
        Self { clip: Some(clip), ..self }
    }

    /// The same with a step for so many batches.
    #[must_use]
    pub fn accumulate(self, batches: usize) -> Self {
        Self { accumulate: batches, ..self }
    }

    /// The same with a moving average of the weights.
    #[must_use]
    pub fn average(self, average: Average) -> Self {
        Self { average: Some(average), ..self }
    }

    /// The same with mixed precision. Forward and backward passes see the weights rounded to f16, except those of
    /// normalizations, and their gradients are rounded to f16 too; activations are f32. The loss is multiplied by a scale
    /// before its gradients are computed, which are divided by it. The optimiser updates the weights in f32. A step with
    /// a gradient that is not finite changes neither weights nor states of the optimiser, and is no step of the optimiser,
    /// the schedule and the average. `docs/training-arithmetic.md` has the details.
    #[must_use]
    pub fn mixed_precision(self, scale: LossScale) -> Self {
        Self { mixed_precision: Some(scale), ..self }
    }

    /// The same with another seed.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The same with or without checkpoints.
    #[must_use]
    pub fn checkpoints(self, checkpoints: bool) -> Self {
        Self { checkpoints, ..self }
    }
}

/// A weight during training.
#[derive(Clone, Debug)]
pub(crate) struct Weight {
    pub(crate) name: String,
    pub(crate) value: Tensor,
    /// The states of the optimiser, then the moving average if there is one, then the sum of gradients if they are added
    /// up over batches; none for a weight that is not trained.
    pub(crate) states: Vec<Tensor>,
    pub(crate) trained: bool,
}

/// Weights, states of the optimiser and of stateful layers, and the number of steps at some time. It shares the elements
/// with the training until that changes them.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(crate) weights: Vec<Weight>,
    pub(crate) steps: u64,
    /// The batches since the last step.
    pub(crate) batches: usize,
    pub(crate) learning_rate: f64,
    /// The states that stateful layers keep.
    pub(crate) kept: Option<Vec<State>>,
    /// The loss scale of mixed precision.
    pub(crate) scaling: Option<Scaling>,
}

/// What a snapshot consists of, by name, in the form in which files keep it.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) tensors: BTreeMap<String, Tensor>,
    /// Numbers as text that is exact.
    pub(crate) numbers: BTreeMap<String, String>,
}

impl Snapshot {
    /// How many steps there had been.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The same without the states of the optimiser, for [`Training::restore_weights`] alone.
    #[must_use]
    pub fn without_states(mut self) -> Self {
        self.weights.iter_mut().for_each(|w| w.states = Vec::new());
        self
    }

    /// Everything in it. The weight `w` is named `weight.w`.
    pub(crate) fn parts(&self) -> Result<Parts> {
        let mut parts = Parts::default();
        for w in &self.weights {
            parts.tensors.insert(format!("weight.{}", w.name), w.value.clone());
            for (n, state) in w.states.iter().enumerate() {
                parts.tensors.insert(format!("state.{n}.{}", w.name), state.clone());
            }
        }
        for (n, state) in self.kept.iter().flatten().enumerate() {
            parts.tensors.insert(format!("kept.{n}.h"), state.h.clone());
            state.c.iter().for_each(|c| drop(parts.tensors.insert(format!("kept.{n}.c"), c.clone())));
        }
        parts.numbers.insert("steps".into(), self.steps.to_string());
        parts.numbers.insert("batches".into(), self.batches.to_string());
        parts.numbers.insert("learning_rate".into(), self.learning_rate.to_string());
        if let Some(scaling) = &self.scaling {
            parts.numbers.extend(scaling.numbers()?);
        }
        Ok(parts)
    }

    /// The snapshot of these parts, for a training. The error says what is missing or left.
    pub(crate) fn of_parts(mut parts: Parts, training: &Training) -> Result<Self, String> {
        let mut weights = Vec::new();
        for own in &training.weights {
            let (name, trained) = (own.name.clone(), own.trained);
            let value = parts.tensors.remove(&format!("weight.{name}"));
            let value = value.ok_or_else(|| format!("has no weight `{name}`"))?;
            let mut states = Vec::new();
            while let Some(state) = parts.tensors.remove(&format!("state.{}.{name}", states.len())) {
                states.push(state);
            }
            weights.push(Weight { name, value, states, trained });
        }
        let mut kept = Vec::new();
        while let Some(h) = parts.tensors.remove(&format!("kept.{}.h", kept.len())) {
            let c = parts.tensors.remove(&format!("kept.{}.c", kept.len()));
            kept.push(State { h, c });
        }
        training.check_kept(&kept)?;
        let scaling = training.scaling.as_ref().map(|s| s.of_numbers(&mut parts.numbers)).transpose()?;
        let mut number = |name: &str| parts.numbers.remove(name).ok_or_else(|| format!("has no number `{name}`"));
        let bad = |name: &str, text: &str| format!("has `{text}` as its number `{name}`");
        let (steps, batches, rate) = (number("steps")?, number("batches")?, number("learning_rate")?);
        let learning_rate = rate.parse::<f64>().ok().filter(|r| *r >= 0.0 && r.is_finite());
        let snapshot = Self {
            weights,
            steps: steps.parse().map_err(|_| bad("steps", &steps))?,
            batches: batches.parse().map_err(|_| bad("batches", &batches))?,
            learning_rate: learning_rate.ok_or_else(|| bad("learning_rate", &rate))?,
            kept: Some(kept).filter(|k| !k.is_empty()),
            scaling,
        };
        match parts.tensors.keys().chain(parts.numbers.keys()).next() {
            Some(name) => Err(format!("has `{name}`, which is no part of this training")),
            None => Ok(snapshot),
        }
    }
}

/// What decides a step's graph: which parts a batch has, the types of its tensors, and which of their sizes are 1.
type Signature = (Vec<(DType, Vec<bool>)>, [bool; 4], Wanted);

/// What a run computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wanted {
    /// New weights and states.
    Step,
    /// New sums of gradients.
    Accumulate,
    /// Gradients by the weights.
    Gradients,
    /// Gradients by the inputs and the initial states too.
    All,
    /// Gradients without a limit, and what the weights become that a run changes by itself.
    Parts,
    /// Gradients without a limit, computed without a loss scale.
    Unscaled,
}

/// A graph on the device, with what goes in and comes out.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) executor: Executor,
    pub(crate) inputs: Vec<Feed>,
    layout: Layout,
    /// Tensors of the final states of the layers, which come behind it.
    states: usize,
    /// The weights that come out, with the number of their states.
    results: Vec<(usize, usize)>,
}

/// What a run gives first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    /// How many losses there are besides the sum.
    losses: usize,
    /// Which metrics come out.
    metrics: Vec<bool>,
    /// Outputs of the network.
    outputs: usize,
    /// Which of them have a mask.
    masks: Vec<bool>,
}

impl Layout {
    /// Adds the losses, metrics, outputs and masks of a batch to what a graph gives, in this order.
    pub(crate) fn add(
        a: &mut Assembly,
        scores: &Scores,
        of: &Compared<'_>,
        named: &mut Vec<(String, ValueId)>,
    ) -> Result<Self> {
        let of_each = |name: &'static str, ids: &[ValueId]| {
            ids.iter().enumerate().map(|(n, id)| (format!("{name}.{n}"), *id)).collect::<Vec<_>>()
        };
        named.push(("loss".to_owned(), scores.loss));
        named.extend(of_each("loss", &scores.losses));
        named.extend(of_each("metric", &scores.metrics.iter().flatten().copied().collect::<Vec<_>>()));
        named.extend(of_each("prediction", of.predictions));
        let mut masks = Vec::new();
        for id in of.masks.iter().flatten() {
            masks.push(Builder { assembly: a, name: "mask of an output" }.as_f32("mask", *id)?);
        }
        named.extend(of_each("mask", &masks));
        Ok(Self {
            losses: scores.losses.len(),
            metrics: scores.metrics.iter().map(Option::is_some).collect(),
            outputs: of.predictions.len(),
            masks: of.masks.iter().map(Option::is_some).collect(),
        })
    }

    /// Takes them from the outputs of a run.
    pub(crate) fn take(&self, outputs: &mut impl Iterator<Item = Tensor>) -> StepResult {
        let loss = outputs.next().expect("the loss comes first");
        let losses = outputs.take(self.losses).collect();
        let mut given = |which: &[bool]| which.iter().map(|g| g.then(|| outputs.next()).flatten()).collect::<Vec<_>>();
        let metrics = given(&self.metrics);
        let own = given(&vec![true; self.outputs]).into_iter().flatten().collect();
        let masks = given(&self.masks);
        StepResult { loss, losses, metrics, outputs: own, masks, states: Vec::new() }
    }
}

/// What comes out of a graph.
#[derive(Debug, Default)]
struct Ends {
    /// The outputs with their names.
    named: Vec<(String, ValueId)>,
    /// The weights among them, which come last, with the number of their states.
    results: Vec<(usize, usize)>,
    /// The state of the loss scale, which comes after them.
    scaling: Vec<ValueId>,
}

/// What a run gave.
pub(crate) struct Ran {
    pub(crate) result: StepResult,
    /// The final states of all layers in [`TrainingGraph::states`].
    ends: Vec<State>,
    /// The plan's other outputs.
    pub(crate) rest: Vec<Tensor>,
}

/// What an input of a graph is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Feed {
    /// A tensor of the batch.
    Batch(usize),
    Seed,
    Rates,
    /// The part of a weight in its new average.
    AverageRate,
    Weight(usize),
    State(usize, usize),
    /// A weight, rounded to f16.
    Rounded(usize),
    /// A part of the state of the loss scale.
    Scaling(usize),
}

/// A network in training, with the low-level calls of PyTorch: a [`step`](Self::step) is forward, backward and the
/// optimiser's update in one run of one graph, from which nothing is read back.
///
/// ```
/// use recurve_layers::{Dense, Sequential, SimpleRnn};
/// use recurve_tensor::{Device, Tensor};
/// use recurve_train::{Adam, Batch, Loss, StepOptions, Training};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let device = Device::Cpu;
/// let network = Sequential::new().add(SimpleRnn::new(8)).add(Dense::new(1)).build(&[None, None, Some(1)], &device)?;
/// let mut training = Training::new(&network, StepOptions::new(Loss::mean_squared_error(), Adam::keras()))?;
/// let x = Tensor::rand_uniform(&[16, 10, 1], -1.0..1.0, 1, &device)?;
/// let y = Tensor::rand_uniform(&[16, 1], -1.0..1.0, 2, &device)?;
/// let first = training.step(&Batch::new(&[&x], &[&y]))?.loss.to_vec()?[0];
/// for _ in 0..50 {
///     training.step(&Batch::new(&[&x], &[&y]))?;
/// }
/// assert!(training.step(&Batch::new(&[&x], &[&y]))?.loss.to_vec()?[0] < first);
/// let trained = training.network()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Training {
    pub(crate) network: Network,
    /// The network's graph in training, from which the plans are made.
    pub(crate) graph: TrainingGraph,
    options: StepOptions,
    pub(crate) weights: Vec<Weight>,
    learning_rate: f64,
    /// Steps so far.
    steps: u64,
    /// Batches since the last step, if gradients are added up.
    batches: usize,
    /// How often weights have changed.
    revision: u64,
    /// The states that stateful layers keep.
    pub(crate) kept: Option<Vec<State>>,
    /// The loss scale of mixed precision.
    pub(crate) scaling: Option<Scaling>,
    plans: HashMap<Signature, Plan>,
    /// The optimiser alone, for gradients from elsewhere: as they are, and with the limit.
    update: [Option<Plan>; 2],
}

pub(crate) const TRAINING: &str = "training";

impl Training {
    /// A network on its device, with its present weights and fresh states of the optimiser.
    ///
    /// # Errors
    /// [`Error::Option`] for options out of range or another number of losses than outputs; errors of the network and of
    /// the device.
    pub fn new(network: &Network, options: StepOptions) -> Result<Self> {
        options.check(network.output_shapes().len())?;
        let graph = network.training_graph_with(TrainingGraphOptions::default().checkpoints(options.checkpoints))?;
        let device = network.device().clone();
        let names = graph.graph.parameters().map(|v| v.name.clone()).collect::<Vec<_>>();
        let mut weights = Vec::with_capacity(names.len());
        for name in names {
            let weight = network.weights().get(&name).expect("a weight of the network");
            let value = Tensor::from_f32(&weight.to_vec()?, weight.shape(), &device)?;
            let trained = graph.trainable.contains(&name);
            let mut states = Vec::new();
            if trained {
                let all = |first| Tensor::full(weight.shape(), first, DType::F32, &device);
                for _ in options.optimizer.states() {
                    states.push(all(options.optimizer.initial_state())?);
                }
                if options.average.is_some() {
                    // If every step so far was skipped, the average is the weight.
                    states.push(if options.mixed_precision.is_some() { value.clone() } else { all(0.0)? });
                }
                if options.accumulate > 1 {
                    states.push(all(0.0)?);
                }
            }
            weights.push(Weight { name, value, states, trained });
        }
        let learning_rate = options.optimizer.learning_rate();
        let scale = options.mixed_precision;
        let scaling = scale.map(|s| Scaling::new(&s, &options, &device)).transpose()?;
        Ok(Self {
            network: network.to_device(&device)?,
            graph,
            options,
            weights,
            learning_rate,
            steps: 0,
            batches: 0,
            revision: 0,
            kept: None,
            scaling,
            plans: HashMap::new(),
            update: [None, None],
        })
    }

    /// The device.
    pub fn device(&self) -> &Device {
        self.network.device()
    }

    /// The description of the network.
    pub fn config(&self) -> &NetworkConfig {
        self.network.config()
    }

    /// The shapes of the outputs; `None` stands for any size.
    pub(crate) fn output_shapes(&self) -> &[Vec<Option<usize>>] {
        self.network.output_shapes()
    }

    /// How many steps there have been, with those that mixed precision has [skipped](Self::skipped_steps).
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// How the network is trained.
    pub fn options(&self) -> &StepOptions {
        &self.options
    }

    /// The learning rate of the next step. In mixed precision a schedule does not count skipped steps, so far as their
    /// number has been read ([`Self::skipped_steps`]).
    pub fn learning_rate(&self) -> f64 {
        self.rate_at(self.counted_steps())
    }

    /// The learning rate after so many steps of the optimiser.
    fn rate_at(&self, steps: u64) -> f64 {
        self.options.schedule.as_ref().map_or(self.learning_rate, |s| s.at(steps))
    }

    /// Sets the learning rate of the next steps.
    ///
    /// # Errors
    /// [`Error::Option`] unless it is finite and not negative, and if there is a schedule.
    pub fn set_learning_rate(&mut self, rate: f64) -> Result<()> {
        check(TRAINING, "learning_rate", self.options.schedule.is_none(), || {
            "cannot be set, because a schedule gives it".into()
        })?;
        check(TRAINING, "learning_rate", rate >= 0.0 && rate.is_finite(), || {
            format!("must be finite and not negative, but it is {rate}")
        })?;
        self.learning_rate = rate;
        Ok(())
    }

    /// Takes a step: the loss of a batch, its gradients, and the update of weights and states. If gradients are
    /// [added up](StepOptions::accumulate), only the last of so many batches makes a step. After an error nothing has
    /// changed.
    ///
    /// # Errors
    /// [`Error::Option`] and [`Error::Operand`] for a batch that does not fit; errors of the graph and of the device.
    pub fn step(&mut self, batch: &Batch<'_>) -> Result<StepResult> {
        if self.batches + 1 < self.options.accumulate {
            let Ran { result, ends, rest } = self.run(batch, Wanted::Accumulate)?;
            let mut rest = rest.into_iter();
            for weight in self.weights.iter_mut().filter(|w| w.trained) {
                *weight.states.last_mut().expect("a sum") = rest.next().expect("a sum for each weight");
            }
            // What a run changes by itself changes with every batch.
            for (&(n, _), value) in self.plans[&signature(batch, Wanted::Accumulate)].results.iter().zip(rest) {
                self.weights[n].value = value;
            }
            (self.batches, self.revision) = (self.batches + 1, self.revision + 1);
            self.keep(&ends);
            return Ok(result);
        }
        self.count_skipped()?;
        let ran = self.run(batch, Wanted::Step)?;
        let results = self.plans[&signature(batch, Wanted::Step)].results.clone();
        self.advance(&results, ran.rest);
        self.keep(&ran.ends);
        Ok(ran.result)
    }

    /// Takes over the weights and states that a run gave.
    fn advance(&mut self, results: &[(usize, usize)], outputs: Vec<Tensor>) {
        let mut outputs = outputs.into_iter();
        for &(weight, states) in results {
            let own = &mut self.weights[weight];
            own.value = outputs.next().expect("an output for each weight");
            own.states = outputs.by_ref().take(states).collect();
        }
        if let Some(s) = &mut self.scaling {
            s.advance(&mut outputs);
        }
        (self.steps, self.batches) = (self.steps + 1, 0);
        self.revision += 1;
    }

    /// The loss of a batch with the gradient of each weight that is trained, in the order of [`Self::names`], limited as
    /// for a step. Nothing changes, the states that layers keep neither. What is drawn is what the next step draws. In
    /// mixed precision they are divided by the loss scale, and not limited if one is not finite.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn gradients(&mut self, batch: &Batch<'_>) -> Result<(StepResult, Vec<Tensor>)> {
        let ran = self.run(batch, Wanted::Gradients)?;
        Ok((ran.result, ran.rest))
    }

    /// [`Self::gradients`] with those by the inputs and by the initial states of the batch.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn all_gradients(&mut self, batch: &Batch<'_>) -> Result<(StepResult, BatchGradients)> {
        let ran = self.run(batch, Wanted::All)?;
        let gradients = self.sorted(batch, ran.rest);
        Ok((ran.result, gradients))
    }

    /// The names of the weights that are trained. The order is that of the network's graph and always the same.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.weights.iter().filter(|w| w.trained).map(|w| &*w.name)
    }

    /// Updates weights and states by gradients, in the order of [`Self::names`]: a step whose gradients come from
    /// elsewhere, such as the mean over several machines. In mixed precision a gradient that is not finite makes it a
    /// step that is skipped.
    ///
    /// # Errors
    /// [`Error::Option`] for another number of gradients; [`Error::Operand`] for one of another shape; errors of the
    /// device. After an error nothing has changed. Gradients that were [added up](StepOptions::accumulate) are dropped.
    pub fn apply_gradients(&mut self, gradients: &[&Tensor]) -> Result<()> {
        self.apply(gradients, None)
    }

    /// [`Self::apply_gradients`] with a limit of the gradients, which is that of the options.
    pub(crate) fn apply(&mut self, gradients: &[&Tensor], clip: Option<Clip>) -> Result<()> {
        let trained: Vec<usize> = (0..self.weights.len()).filter(|&n| self.weights[n].trained).collect();
        check(TRAINING, "gradients", gradients.len() == trained.len(), || {
            format!("must be one for each of {} weights, but there are {}", trained.len(), gradients.len())
        })?;
        for (&n, gradient) in trained.iter().zip(gradients) {
            let weight = &self.weights[n];
            if gradient.dims() != weight.value.dims() || gradient.dtype() != DType::F32 {
                return Err(Error::Operand {
                    of: TRAINING,
                    argument: "gradients",
                    expected: format!("f32 {} for `{}`", weight.value.shape(), weight.name),
                    got: format!("{} {}", gradient.dtype(), gradient.shape()),
                });
            }
        }
        if trained.is_empty() {
            return Ok(());
        }
        self.count_skipped()?;
        let kind = usize::from(clip.is_some());
        if self.update[kind].is_none() {
            self.update[kind] = Some(self.update_plan(&trained, clip)?);
        }
        let plan = self.update[kind].as_ref().expect("made above");
        let outputs = self.outputs(plan, gradients)?;
        let results = plan.results.clone();
        self.advance(&results, outputs);
        Ok(())
    }

    /// The graph of the optimiser alone. Its batch is the gradients.
    fn update_plan(&self, trained: &[usize], clip: Option<Clip>) -> Result<Plan> {
        let mut a = Assembly::new(false);
        let mut feeds = HashMap::new();
        let (mut values, mut gradients) = (Vec::new(), Vec::new());
        for (place, &n) in trained.iter().enumerate() {
            let weight = &self.weights[n];
            let kind = ValueType::new(DType::F32, weight.value.dims().iter().copied());
            let value = a.input(&weight.name, kind.clone(), false)?;
            let gradient = a.input(&format!("gradient of {}", weight.name), kind, false)?;
            feeds.insert(value, Feed::Weight(n));
            feeds.insert(gradient, Feed::Batch(place));
            values.push(value);
            gradients.push(gradient);
        }
        let mut ends = Ends::default();
        self.optimize(&mut a, &mut feeds, [&values, &gradients], clip, &mut ends)?;
        self.finish(a, ends, &feeds, Layout::default())
    }

    /// Adds the optimiser's step for the weights that are trained, with their values and gradients.
    fn optimize(
        &self,
        a: &mut Assembly,
        feeds: &mut HashMap<ValueId, Feed>,
        [values, gradients]: [&[ValueId]; 2],
        clip: Option<Clip>,
        ends: &mut Ends,
    ) -> Result<()> {
        let scaling = self.scaling_inputs(a, feeds)?;
        let finite = scaling.map(|_| mixed::finite(a, gradients)).transpose()?;
        let rates = self.of_step(a, feeds, ("rates", Feed::Rates, Descent::RATES))?;
        let trained = (0..self.weights.len()).filter(|&n| self.weights[n].trained);
        let mut all = Vec::new();
        for n in trained.clone() {
            let mut states = Vec::new();
            for s in 0..self.weights[n].states.len() {
                states.push(self.state(a, feeds, n, s)?);
            }
            all.push(states);
        }
        let mut parameters = Vec::new();
        let own = self.options.optimizer.states().len();
        for ((states, &value), &gradient) in all.iter().zip(values).zip(gradients) {
            parameters.push(Parameter::new(value, gradient, states[..own].to_vec()));
        }
        let mut updated = self.options.optimizer.add(a, &parameters, rates, clip)?;
        if let Some(finite) = finite {
            for (u, p) in updated.iter_mut().zip(&parameters) {
                u.value = mixed::unless_skipped(a, finite, [u.value, p.value])?;
                for (new, &old) in u.states.iter_mut().zip(&p.states) {
                    *new = mixed::unless_skipped(a, finite, [*new, old])?;
                }
            }
        }
        ends.scaling = self.scaling_after(a, scaling, finite)?;
        let rate = match self.options.average {
            Some(_) => Some(self.of_step(a, feeds, ("average rate", Feed::AverageRate, 1))?),
            None => None,
        };
        for ((n, u), states) in trained.zip(&updated).zip(&all) {
            let mut new = u.states.clone();
            let mut others = states[own..].iter().copied();
            if let Some(rate) = rate {
                let old = others.next().expect("an average");
                let moved = Average::add(a, old, u.value, rate)?;
                new.push(finite.map_or(Ok(moved), |finite| mixed::unless_skipped(a, finite, [moved, old]))?);
            }
            if let Some(sum) = others.next() {
                let zero = a.number(0.0)?;
                new.push(a.derived("sum of gradients", Arc::new(ExpandLike), &[Some(zero), Some(sum)], 1)?[0]);
            }
            ends.named.push((format!("weight.{n}"), u.value));
            ends.results.push((n, new.len()));
            ends.named.extend(new.into_iter().enumerate().map(|(s, id)| (format!("state.{n}.{s}"), id)));
        }
        Ok(())
    }

    /// The input that is a state of a weight.
    fn state(
        &self,
        a: &mut Assembly,
        feeds: &mut HashMap<ValueId, Feed>,
        weight: usize,
        state: usize,
    ) -> Result<ValueId> {
        let Weight { name, value, .. } = &self.weights[weight];
        let name = state_name(name, state);
        if let Some(id) = a.find(&name) {
            return Ok(id);
        }
        let id = a.input(&name, ValueType::new(DType::F32, value.dims().iter().copied()), false)?;
        feeds.insert(id, Feed::State(weight, state));
        Ok(id)
    }

    /// The inputs that are the sums of gradients, with the places of their weights.
    fn sums(&self, a: &mut Assembly, feeds: &mut HashMap<ValueId, Feed>) -> Result<Vec<(usize, ValueId)>> {
        let trained = self.weights.iter().enumerate().filter(|(_, w)| w.trained);
        trained.map(|(n, w)| Ok((n, self.state(a, feeds, n, w.states.len() - 1)?))).collect()
    }

    /// A finished graph on the device.
    fn finish(&self, a: Assembly, ends: Ends, feeds: &HashMap<ValueId, Feed>, layout: Layout) -> Result<Plan> {
        let Ends { mut named, results, scaling } = ends;
        named.extend(scaling.iter().enumerate().map(|(n, id)| (format!("scaling.{n}"), *id)));
        let graph = a.finish(named)?;
        let inputs = graph.inputs().iter().map(|id| feeds[id]).collect();
        let executor = Executor::new(Arc::new(graph), |_| None, self.device())?;
        let states = if layout.outputs > 0 { self.graph.states.iter().map(|s| s.outputs.len()).sum() } else { 0 };
        Ok(Plan { executor, inputs, layout, states, results })
    }

    /// Runs a plan with these tensors as its batch.
    fn outputs(&self, plan: &Plan, batch: &[&Tensor]) -> Result<Vec<Tensor>> {
        let inputs = self.inputs(plan, batch)?;
        plan.executor.run_data(&inputs, &RunOptions::default())?.into_iter().map(tensor).collect()
    }

    /// The inputs of a plan with these tensors as its batch.
    pub(crate) fn inputs(&self, plan: &Plan, batch: &[&Tensor]) -> Result<Vec<Option<Data>>> {
        let [rates, average] = self.numbers()?;
        // Every batch draws anew.
        let number = self.steps.wrapping_mul(self.options.accumulate as u64).wrapping_add(self.batches as u64);
        let seed = self.options.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let seed = Tensor::from_u32(&[seed as u32, (seed >> 32) as u32], &[2], self.device())?;
        let input = |feed: &Feed| -> Result<Option<Data>> {
            let t = match *feed {
                Feed::Batch(n) => batch[n],
                Feed::Seed => &seed,
                Feed::Rates => &rates,
                Feed::AverageRate => &average,
                Feed::Weight(n) => &self.weights[n].value,
                Feed::State(n, s) => &self.weights[n].states[s],
                Feed::Rounded(n) => return Ok(Some(self.rounded(n)?.into())),
                Feed::Scaling(n) => &self.scaling.as_ref().expect("asked when the plan was made").state[n],
            };
            Ok(Some(t.clone().into()))
        };
        plan.inputs.iter().map(input).collect()
    }

    /// Weights and states as they are now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            weights: self.weights.clone(),
            steps: self.steps,
            batches: self.batches,
            learning_rate: self.learning_rate,
            kept: self.kept.clone(),
            scaling: self.scaling.clone(),
        }
    }

    /// Says that weights have changed.
    pub(crate) fn revise(&mut self) {
        self.revision += 1;
    }

    /// A number that changes whenever weights do.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// The error for a batch whose loss is not finite.
    pub(crate) fn not_finite(&mut self, batch: &Batch<'_>) -> Error {
        let origin = Origin::Loss { operator: "loss" };
        self.diagnose(batch).err().unwrap_or(Error::NotFinite { step: self.steps + 1, origin })
    }

    /// Goes back to a snapshot: of this training, or of one of an equal network with the same optimiser.
    ///
    /// # Errors
    /// [`Error::Option`] for a snapshot of another network or optimiser. Nothing has changed then.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.fits(snapshot, true)?;
        self.weights.clone_from(&snapshot.weights);
        self.scaling.clone_from(&snapshot.scaling);
        (self.steps, self.batches, self.learning_rate) = (snapshot.steps, snapshot.batches, snapshot.learning_rate);
        self.kept.clone_from(&snapshot.kept);
        self.revision += 1;
        Ok(())
    }

    /// Replaces the weights by their moving averages, if there are some, as Keras does at the end of `fit`.
    pub fn use_averages(&mut self) {
        if self.options.average.is_none() || self.steps == 0 {
            return;
        }
        let place = self.options.optimizer.states().len();
        for weight in self.weights.iter_mut().filter(|w| w.trained) {
            weight.value = weight.states[place].clone();
        }
        self.revision += 1;
    }

    /// Takes over the weights of a snapshot, but neither the states of its optimiser nor its steps.
    ///
    /// # Errors
    /// [`Error::Option`] for a snapshot of another network. Nothing has changed then.
    pub fn restore_weights(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.fits(snapshot, false)?;
        for (own, other) in self.weights.iter_mut().zip(&snapshot.weights) {
            own.value = other.value.clone();
        }
        self.revision += 1;
        Ok(())
    }

    pub(crate) fn fits(&self, snapshot: &Snapshot, states: bool) -> Result<()> {
        let alike = !states || self.scaling.is_some() == snapshot.scaling.is_some();
        check(TRAINING, "snapshot", alike, || "has another precision".into())?;
        let same = |a: &Weight, b: &Weight| {
            let shapes = |w: &Weight| w.states.iter().map(|s| s.dims().to_vec()).collect::<Vec<_>>();
            a.name == b.name && a.value.dims() == b.value.dims() && (!states || shapes(a) == shapes(b))
        };
        let other = self.weights.iter().zip(&snapshot.weights).find(|(a, b)| !same(a, b));
        check(TRAINING, "snapshot", self.weights.len() == snapshot.weights.len() && other.is_none(), || match other {
            Some((own, _)) => format!("is of another network or optimiser: `{}` differs", own.name),
            None => {
                let (own, other) = (self.weights.len(), snapshot.weights.len());
                format!("is of another network: it has {other} weights in place of {own}")
            }
        })
    }

    /// The present weights in host memory.
    ///
    /// # Errors
    /// Errors of reading the device.
    pub fn weights(&self) -> Result<Weights> {
        let mut weights = Weights::new();
        for w in &self.weights {
            weights.insert(&w.name, w.value.dims(), w.value.to_vec()?)?;
        }
        Ok(weights)
    }

    /// The network with its present weights, for inference.
    ///
    /// # Errors
    /// Errors of reading the device.
    pub fn network(&self) -> Result<Network> {
        Ok(Network::new(self.network.config(), Arc::new(self.weights()?), self.device())?)
    }

    /// The present value of a weight on the device.
    pub fn weight(&self, name: &str) -> Option<&Tensor> {
        self.weights.iter().find(|w| w.name == name).map(|w| &w.value)
    }

    /// What changes from step to step: the numbers of the optimiser, and the part of a weight in its new average. In
    /// mixed precision each is a table with a row for each number of steps that may have been skipped unread.
    fn numbers(&self) -> Result<[Tensor; 2]> {
        let (steps, rows) = (self.counted_steps(), self.scaling.as_ref().map_or(1, Scaling::rows));
        let (mut rates, mut parts) = (Vec::new(), Vec::new());
        for skipped in 0..rows {
            let steps = steps.saturating_sub(skipped);
            rates.extend(self.options.optimizer.rates(self.rate_at(steps), steps + 1)?);
            parts.push(self.options.average.map_or(0.0, |average| average.rate(steps + 1)));
        }
        let tensor = |mut numbers: Vec<f32>, width: usize| {
            let dims = self.table(width);
            numbers.resize(dims.iter().product(), 0.0);
            Tensor::from_f32(&numbers, &dims, self.device())
        };
        Ok([tensor(rates, Descent::RATES)?, tensor(parts, 1)?])
    }

    /// Runs the plan of a batch.
    pub(crate) fn run(&mut self, batch: &Batch<'_>, wanted: Wanted) -> Result<Ran> {
        let starts = self.starts(batch)?;
        let (this, plan) = self.planned(batch, wanted)?;
        let tensors: Vec<&Tensor> = batch.all().chain(&starts).collect();
        let outputs = this.outputs(plan, &tensors).map_err(|e| e.of_run(batch.inputs.iter().copied()))?;
        let mut all = outputs.into_iter();
        let mut result = plan.layout.take(&mut all);
        let ends = this.ends(all.by_ref().take(plan.states).collect());
        let states = ends.iter().zip(&this.graph.states).filter(|(_, s)| s.visible).map(|(end, _)| end.clone());
        result.states = states.collect();
        Ok(Ran { result, ends, rest: all.collect() })
    }

    /// The plan of a batch, with the training itself.
    pub(crate) fn planned(&mut self, batch: &Batch<'_>, wanted: Wanted) -> Result<(&Self, &Plan)> {
        self.check_valid_steps(batch)?;
        let key = signature(batch, wanted);
        if !self.plans.contains_key(&key) {
            let plan = self.plan(batch, wanted)?;
            self.plans.insert(key.clone(), plan);
        }
        let this = &*self;
        Ok((this, &this.plans[&key]))
    }

    /// Checks the mask and the lengths of a batch against its first input.
    fn check_valid_steps(&self, batch: &Batch<'_>) -> Result<()> {
        self.graph.check_given(batch.mask.is_some(), batch.lengths.is_some())?;
        let Some(&[first, second, ..]) = batch.inputs.first().map(|x| x.dims()) else { return Ok(()) };
        let (b, t) = if self.graph.time_major { (second, first) } else { (first, second) };
        let given = [("mask", batch.mask, vec![b, t]), ("lengths", batch.lengths, vec![b])];
        for (argument, given, dims) in given.into_iter().filter_map(|(a, g, d)| Some((a, g?, d))) {
            if given.dims() != dims || given.dtype() != DType::U32 {
                let (expected, got) = (format!("u32 {dims:?}"), format!("{} {}", given.dtype(), given.shape()));
                return Err(Error::Operand { of: TRAINING, argument, expected, got });
            }
        }
        Ok(())
    }

    /// The graph for batches like this one.
    fn plan(&self, batch: &Batch<'_>, wanted: Wanted) -> Result<Plan> {
        let training = &self.graph;
        let counts = [
            ("inputs", batch.inputs.len(), self.network.config().inputs.len()),
            ("targets", batch.targets.len(), self.options.losses.len()),
        ];
        for (argument, got, wanted) in counts {
            check(TRAINING, argument, got == wanted, || format!("must be {wanted}, but there are {got}"))?;
        }
        check(TRAINING, "lengths", batch.lengths.is_none() || batch.mask.is_none(), || {
            "cannot be given together with a mask".into()
        })?;
        let has = |name: &str| training.graph.find(name).is_some();
        for (argument, given) in [("mask", batch.mask.is_some()), ("lengths", batch.lengths.is_some())] {
            check(TRAINING, argument, !given || has(argument), || {
                "is not taken by a network with several inputs".into()
            })?;
        }
        let starts: Vec<&str> = self.started(batch).flat_map(|s| &s.inputs).map(String::as_str).collect();
        let given = |name: &str| match name {
            "mask" => batch.mask.is_some(),
            "lengths" => batch.lengths.is_some(),
            name => starts.contains(&name),
        };
        let (mut a, outputs) = training.graph.open(given)?;
        let find = |a: &Assembly, name: &str| a.find(name);
        let mut feeds: HashMap<ValueId, Feed> = HashMap::new();
        for (n, input) in training.graph.inputs().iter().take(batch.inputs.len()).enumerate() {
            let id = find(&a, &training.graph.value(*input).name).expect("an input of the network");
            feeds.insert(id, Feed::Batch(n));
        }
        let mut next = batch.inputs.len();
        let mut own = |a: &mut Assembly, name: &str, t: &Tensor| -> Result<ValueId> {
            // A size of 1 is known, because a loss may want one; the others may change from step to step.
            let dims = t.dims().iter().map(|&d| (d == 1).then_some(1usize));
            let id = a.input(name, ValueType::new(t.dtype(), dims), false)?;
            feeds.insert(id, Feed::Batch(next));
            next += 1;
            Ok(id)
        };
        let targets = batch.targets.iter().enumerate();
        let targets = targets.map(|(n, t)| own(&mut a, &format!("target.{n}"), t)).collect::<Result<Vec<_>>>()?;
        let weights = batch.sample_weights.map(|t| own(&mut a, "sample_weights", t)).transpose()?;
        for name in ["mask", "lengths"].into_iter().filter(|n| given(n)).chain(starts.iter().copied()) {
            let id = find(&a, name).expect("an input of the graph");
            feeds.insert(id, Feed::Batch(next));
            next += 1;
        }
        if let Some(seed) = find(&a, "seed") {
            feeds.insert(seed, Feed::Seed);
        }

        let output = |name: &str| outputs.iter().find(|(n, _)| n == name).map(|(_, id)| *id);
        let predictions: Vec<ValueId> = outputs.iter().take(self.options.losses.len()).map(|(_, id)| *id).collect();
        let mut masks = Vec::new();
        for (n, &prediction) in predictions.iter().enumerate() {
            let of_layers = training.masks[n].as_deref().and_then(output);
            // What the caller gives counts where an output has the timesteps of the input.
            let callers = |name: &str| find(&a, name).filter(|_| given(name) && training.keeps_time[n]);
            let (mask, lengths) = (of_layers.or(callers("mask")), callers("lengths"));
            let mut b = Builder { assembly: &mut a, name: "mask of an output" };
            masks.push(match (mask, lengths) {
                (Some(mask), _) if training.time_major => Some(b.node(Transpose(vec![1, 0]), &[mask])?),
                (Some(mask), _) => Some(mask),
                (None, Some(lengths)) => Some(b.valid_steps(prediction, lengths, training.time_major)?),
                (None, None) => None,
            });
        }
        let of = Compared { predictions: &predictions, targets: &targets, weights, masks: &masks };
        let scores = Scores::add(&mut a, &self.options, &of)?;
        let loss = scores.loss;

        let trained: Vec<usize> = (0..self.weights.len()).filter(|&n| self.weights[n].trained).collect();
        for (n, weight) in self.weights.iter().enumerate() {
            let id = find(&a, &weight.name).expect("a weight of the graph");
            feeds.insert(id, if self.rounds(weight) { Feed::Rounded(n) } else { Feed::Weight(n) });
        }
        let ids: Vec<ValueId> =
            trained.iter().map(|&n| find(&a, &self.weights[n].name).expect("a weight of the graph")).collect();
        // Inputs that are floats, and initial states.
        let inputs = training.graph.inputs().iter().take(batch.inputs.len()).zip(batch.inputs);
        let inputs = inputs.filter(|(_, t)| t.dtype() == DType::F32).map(|(id, _)| &*training.graph.value(*id).name);
        let own: Vec<&str> = inputs.chain(starts.iter().copied()).filter(|_| wanted == Wanted::All).collect();
        let own = own.into_iter().map(|name| find(&a, name).expect("an input of the graph"));
        let by: Vec<ValueId> = ids.iter().copied().chain(own).collect();
        let scale = match wanted {
            Wanted::Unscaled => None,
            _ => self.scaling_inputs(&mut a, &mut feeds)?.map(|[scale, ..]| scale),
        };
        let scaled = scale.map_or(Ok(loss), |scale| mixed::scaled(&mut a, loss, scale))?;
        let found = a.gradients(scaled, &by)?;
        // A weight on which the loss does not depend has the gradient 0.
        let mut gradients = Vec::with_capacity(found.len());
        for (gradient, &id) in found.into_iter().zip(&by) {
            gradients.push(match gradient {
                Some(g) => g,
                None => {
                    let zero = a.number(0.0)?;
                    let like = Arc::new(ExpandLike);
                    a.derived("no gradient", like, &[Some(zero), Some(id)], 1)?[0]
                }
            });
        }
        if let Some(scale) = scale {
            let rounds = trained.iter().map(|&n| self.rounds(&self.weights[n])).chain(std::iter::repeat(false));
            let each: Vec<(ValueId, bool)> = gradients.into_iter().zip(rounds).collect();
            gradients = mixed::unscaled(&mut a, &each, scale)?;
        }
        let mut ends = Ends::default();
        let layout = Layout::add(&mut a, &scores, &of, &mut ends.named)?;
        let states = training.states.iter().flat_map(|s| &s.outputs);
        ends.named.extend(states.map(|name| (name.clone(), output(name).expect("an output of the graph"))));
        match wanted {
            Wanted::Gradients | Wanted::All => {
                if let Some(clip) = self.options.clip {
                    let own = &gradients[..ids.len()];
                    let mut limited = clip.add(&mut a, own)?;
                    if scale.is_some() {
                        let finite = mixed::finite(&mut a, own)?;
                        for (limited, &all) in limited.iter_mut().zip(own) {
                            *limited = mixed::unless_skipped(&mut a, finite, [*limited, all])?;
                        }
                    }
                    gradients.splice(..ids.len(), limited);
                }
                ends.named.extend(gradients.iter().enumerate().map(|(n, id)| (format!("gradient.{n}"), *id)));
            }
            Wanted::Parts | Wanted::Unscaled => {
                ends.named.extend(gradients.iter().enumerate().map(|(n, id)| (format!("gradient.{n}"), *id)));
            }
            Wanted::Accumulate => {
                for ((n, sum), gradient) in self.sums(&mut a, &mut feeds)?.into_iter().zip(gradients) {
                    ends.named.push((format!("sum.{n}"), accumulated(&mut a, sum, gradient)?));
                }
            }
            Wanted::Step => {
                if self.options.accumulate > 1 {
                    let sums = self.sums(&mut a, &mut feeds)?;
                    for ((_, sum), gradient) in sums.into_iter().zip(&mut gradients) {
                        let all = accumulated(&mut a, sum, *gradient)?;
                        *gradient = mean_of(&mut a, all, self.options.accumulate)?;
                    }
                }
                let values = self.in_f32(&mut a, &mut feeds, (&trained, &ids))?;
                self.optimize(&mut a, &mut feeds, [&values, &gradients], self.options.clip, &mut ends)?;
            }
        }
        if matches!(wanted, Wanted::Accumulate | Wanted::Step | Wanted::Parts) {
            for (weight, name) in &training.updates {
                let n = self.weights.iter().position(|w| w.name == *weight).expect("a weight of the network");
                ends.named.push((format!("weight.{n}"), output(name).expect("an output of the graph")));
                ends.results.push((n, 0));
            }
        }
        self.finish(a, ends, &feeds, layout)
    }
}

fn state_name(weight: &str, state: usize) -> String {
    format!("state {state} of {weight}")
}

fn signature(batch: &Batch<'_>, wanted: Wanted) -> Signature {
    let types = batch.all().map(|t| (t.dtype(), t.dims().iter().map(|&d| d == 1).collect())).collect();
    let parts = [batch.sample_weights.is_some(), batch.mask.is_some(), batch.lengths.is_some(), batch.states.is_some()];
    (types, parts, wanted)
}

/// An output, which is a tensor because it is f32.
pub(crate) fn tensor(output: Option<Data>) -> Result<Tensor> {
    match output {
        Some(Data::Tensor(t)) => Ok(t),
        _ => Err(Error::Option { of: TRAINING, argument: "outputs", message: "must be floats".into() }),
    }
}
