//! Losses and metrics of batches without training.

use crate::data::DeviceBatch;
use crate::plan::{Layout, known_sizes, tensor};
use crate::scores::{Compared, Scores};
use crate::{Error, Result, StepOptions, StepResult, Training};
use recurve_graph::{Assembly, Data, Executor, RunOptions, ValueId, ValueType};
use recurve_layers::{CallArgs, Evaluated, Network};
use recurve_tensor::{DType, Tensor};
use std::collections::HashMap;
use std::sync::Arc;

/// What decides a graph of scores: of each of its inputs the type and which sizes are 1, and whether it is there.
type Signature = Vec<Option<(DType, Vec<bool>)>>;

/// A graph of losses and metrics.
#[derive(Debug)]
struct Plan {
    executor: Executor,
    layout: Layout,
}

/// A network for inference with the weights of a training, and graphs of the losses and metrics of its outputs.
#[derive(Debug)]
pub(crate) struct Evaluator {
    network: Network,
    /// For each output whether it has the timesteps of the input.
    keeps_time: Vec<bool>,
    time_major: bool,
    plans: HashMap<Signature, Plan>,
}

impl Evaluator {
    /// The network of a training with its present weights.
    pub(crate) fn new(training: &Training) -> Result<Self> {
        let config = training.config();
        let network = Network::for_evaluation(config, Arc::new(training.weights_in_use()?), training.device())?;
        let graph = &training.graph;
        let (keeps_time, time_major) = (graph.keeps_time.clone(), graph.time_major);
        Ok(Self { network, keeps_time, time_major, plans: HashMap::new() })
    }

    /// Takes over the present weights of the training.
    pub(crate) fn update(&mut self, training: &Training) -> Result<()> {
        Ok(self.network.set_weights(Arc::new(training.weights_in_use()?))?)
    }

    /// Forgets the states of stateful layers.
    pub(crate) fn reset(&self) {
        self.network.reset_states();
    }

    /// The outputs for a batch, their masks, and the penalties.
    pub(crate) fn predict(&self, batch: &DeviceBatch) -> Result<Evaluated> {
        let mut args = CallArgs::default();
        (args.mask, args.lengths) = (batch.mask.as_ref(), batch.lengths.as_ref());
        let result = self.network.forward_evaluated(&batch.inputs.iter().collect::<Vec<_>>(), &args);
        result.map_err(|e| Error::from(e).of_run(&batch.inputs))
    }

    /// The mask `[B, T]` of lengths.
    fn by_lengths(&self, lengths: &Tensor, x: &Tensor) -> Result<Tensor> {
        let steps = x.dims()[usize::from(!self.time_major)];
        let valid = lengths.to_vec_u32()?.into_iter().flat_map(|n| (0..steps).map(move |t| u32::from(t < n as usize)));
        Ok(Tensor::from_u32(&valid.collect::<Vec<_>>(), &[lengths.dims()[0], steps], &lengths.device())?)
    }

    /// The losses and metrics of a batch. Weights of classes do not count, as in Keras.
    pub(crate) fn evaluate(&mut self, batch: &DeviceBatch, options: &StepOptions) -> Result<StepResult> {
        let Evaluated { outputs: predictions, masks, penalty, .. } = self.predict(batch)?;
        let lengths = batch.lengths.as_ref().map(|lengths| self.by_lengths(lengths, &batch.inputs[0])).transpose()?;
        let callers = |n: usize| batch.mask.as_ref().or(lengths.as_ref()).filter(|_| self.keeps_time[n]);
        let masks = masks.iter().enumerate().map(|(n, m)| match m.as_ref().or_else(|| callers(n)) {
            Some(mask) if self.time_major => turned(mask).map(Some),
            mask => Ok(mask.cloned()),
        });
        let masks = masks.collect::<Result<Vec<_>>>()?;
        let masks: Vec<Option<&Tensor>> = masks.iter().map(Option::as_ref).collect();
        let groups = predictions.iter().chain(&batch.targets).map(Some);
        let inputs: Vec<Option<&Tensor>> =
            groups.chain([batch.sample_weights.as_ref()]).chain(masks.iter().copied()).collect();
        let signature: Signature =
            inputs.iter().map(|t| t.map(|t| (t.dtype(), t.dims().iter().map(|&d| d == 1).collect()))).collect();
        if !self.plans.contains_key(&signature) {
            let plan = plan(&inputs, [predictions.len(), batch.targets.len()], options, &self.network)?;
            self.plans.insert(signature.clone(), plan);
        }
        let plan = &self.plans[&signature];
        let given: Vec<Option<Data>> = inputs.into_iter().flatten().map(|t| Some(t.clone().into())).collect();
        let outputs = plan.executor.run_data(&given, &RunOptions::default());
        let outputs = outputs.map_err(|e| Error::from(e).of_run(&batch.inputs))?;
        let outputs = outputs.into_iter().map(tensor).collect::<Result<Vec<_>>>()?;
        let mut result = plan.layout.take(&mut outputs.into_iter());
        if let Some(penalty) = penalty {
            result.loss = (&result.loss + &penalty)?;
        }
        Ok(result)
    }
}

/// A mask `[B, T]` as `[T, B]`.
fn turned(mask: &Tensor) -> Result<Tensor> {
    let (b, t) = (mask.dims()[0], mask.dims()[1]);
    let own = mask.to_vec_u32()?;
    let other: Vec<u32> = (0..b * t).map(|n| own[n % b * t + n / b]).collect();
    Ok(Tensor::from_u32(&other, &[t, b], &mask.device())?)
}

/// The graph of losses and metrics for tensors like these: predictions, targets, weights, masks.
fn plan(
    inputs: &[Option<&Tensor>],
    [predictions, targets]: [usize; 2],
    options: &StepOptions,
    network: &Network,
) -> Result<Plan> {
    let mut a = Assembly::new(false);
    let ids = inputs
        .iter()
        .enumerate()
        .map(|(n, t)| {
            let Some(t) = t else { return Ok(None) };
            let prediction = n.checked_sub(predictions).filter(|n| *n < targets).and_then(|n| inputs[n]);
            let of: Vec<_> = prediction.iter().flat_map(|p| p.dims()).map(|&d| Some(d)).collect();
            let mut dims = known_sizes(t.dims(), &of);
            // The number of classes is known.
            if let (Some(own), Some(last)) = (network.output_shapes().get(n), dims.last_mut()) {
                *last = last.or(own.last().copied().flatten());
            }
            Ok(Some(a.input(&format!("value.{n}"), ValueType::new(t.dtype(), dims), false)?))
        })
        .collect::<Result<Vec<Option<ValueId>>>>()?;
    let all = |from: usize, n: usize| ids[from..from + n].iter().flatten().copied().collect::<Vec<_>>();
    let (predicted, wanted) = (all(0, predictions), all(predictions, targets));
    let of = Compared {
        predictions: &predicted,
        targets: &wanted,
        weights: ids[predictions + targets],
        masks: &ids[predictions + targets + 1..],
    };
    let mut options = options.clone();
    options.losses.iter_mut().for_each(|loss| loss.class_weights = None);
    let scores = Scores::add(&mut a, &options, &of)?;
    let mut named = Vec::new();
    let layout = Layout::add(&mut a, &scores, &of, &mut named)?;
    let executor = Executor::new(Arc::new(a.finish(named)?), |_| None, network.device())?;
    Ok(Plan { executor, layout })
}
