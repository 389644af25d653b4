//! Steps of training.

use crate::error::check;
use crate::limits::check_constraints;
use crate::mixed::Scaling;
use crate::plan::{Plan, Ran, Signature, Wanted, signature};
use crate::snapshot::Weight;
use crate::{Batch, BatchGradients, Error, Origin, Result, StepOptions, StepResult};
use recurve_layers::{Network, NetworkConfig, State, TrainingGraph, TrainingGraphOptions, Weights};
use recurve_tensor::{DType, Device, Tensor};
use std::collections::HashMap;
use std::sync::Arc;
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
    pub(crate) options: StepOptions,
    pub(crate) weights: Vec<Weight>,
    pub(crate) learning_rate: f64,
    /// Steps so far.
    pub(crate) steps: u64,
    /// Batches since the last step, if gradients are added up.
    pub(crate) batches: usize,
    /// How often weights have changed.
    pub(crate) revision: u64,
    /// The states that stateful layers keep.
    pub(crate) kept: Option<Vec<State>>,
    /// The loss scale of mixed precision.
    pub(crate) scaling: Option<Scaling>,
    pub(crate) plans: HashMap<Signature, Plan>,
    /// The optimiser alone, for gradients from elsewhere: as they are, and with the limit.
    pub(crate) update: [Option<Plan>; 2],
}

pub(crate) const TRAINING: &str = "training";

impl Training {
    /// A network on its device, with its present weights and fresh states of the optimiser.
    ///
    /// # Errors
    /// [`Error::Option`] for options out of range, another number of losses than outputs, and a name of no weight; errors
    /// of the network and of the device.
    pub fn new(network: &Network, options: StepOptions) -> Result<Self> {
        options.check(network.output_shapes().len())?;
        let graph = network.training_graph_with(TrainingGraphOptions::default().checkpoints(options.checkpoints))?;
        let device = network.device().clone();
        let names = graph.graph.parameters().map(|v| v.name.clone()).collect::<Vec<_>>();
        options.check_frozen(&names)?;
        let mut weights = Vec::with_capacity(names.len());
        for name in names {
            let weight = network.weights().get(&name).expect("a weight of the network");
            let value = Tensor::from_f32(&weight.to_vec()?, weight.shape(), &device)?;
            let trained = graph.trainable.contains(&name) && !options.freezes(&name);
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
        check_constraints(&graph, |name| weights.iter().any(|w: &Weight| w.trained && w.name == *name))?;
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
    pub(crate) fn rate_at(&self, steps: u64) -> f64 {
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
    pub(crate) fn advance(&mut self, results: &[(usize, usize)], outputs: Vec<Tensor>) {
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

    /// Says that weights have changed.
    pub(crate) fn revise(&mut self) {
        self.revision += 1;
    }

    /// A number that changes whenever weights do.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The error for a batch whose loss is not finite.
    pub(crate) fn not_finite(&mut self, batch: &Batch<'_>) -> Error {
        let origin = Origin::Loss { operator: "loss" };
        self.diagnose(batch).err().unwrap_or(Error::NotFinite { step: self.steps + 1, origin })
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

    /// Takes over the weights of an equal network by their names. The states of the optimiser and the number of steps stay.
    ///
    /// # Errors
    /// [`Error::Network`] for a weight that is not there or has another shape; errors of the device. After an error
    /// nothing has changed.
    pub fn set_weights(&mut self, weights: &Weights) -> Result<()> {
        let device = self.device().clone();
        let value = |w: &Weight| -> Result<Tensor> {
            let own = weights.expect(&w.name, w.value.dims())?;
            Ok(Tensor::from_f32(&own.to_vec()?, w.value.dims(), &device)?)
        };
        let values = self.weights.iter().map(value).collect::<Result<Vec<_>>>()?;
        self.weights.iter_mut().zip(values).for_each(|(w, value)| w.value = value);
        self.revise();
        Ok(())
    }

    /// The present value of a weight on the device.
    pub fn weight(&self, name: &str) -> Option<&Tensor> {
        self.weights.iter().find(|w| w.name == name).map(|w| &w.value)
    }
}
