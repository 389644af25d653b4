//! Graphs of steps: what goes in, what comes out, and how a batch becomes one.

use crate::builder::Builder;
use crate::error::check;
use crate::mixed;
use crate::scores::{Compared, Scores};
use crate::step::TRAINING;
use crate::{Batch, Error, Result, StepResult, Training, accumulated, mean_of};
use recurve_graph::ops::{ExpandLike, Transpose};
use recurve_graph::{Assembly, Data, Dim, Executor, RunOptions, ValueId, ValueType};
use recurve_layers::State;
use recurve_tensor::{DType, Tensor};
use std::collections::HashMap;
use std::sync::Arc;

/// What decides a step's graph: which parts a batch has, the types of its tensors, and which of their sizes are 1.
pub(crate) type Signature = (Vec<(DType, Vec<bool>)>, [bool; 4], Wanted);

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
    pub(crate) results: Vec<(usize, usize)>,
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

/// Which sizes of a batch's tensor are known to a graph: that of 1, because a loss may want one, and what stands beside a
/// size of 1 of the prediction `of`, which would be broadcast to it. The others may change from step to step.
pub(crate) fn known_sizes(dims: &[usize], of: &[Option<usize>]) -> Vec<Option<usize>> {
    let beside_one = |n: usize| of.len() == dims.len() && of[n] == Some(1);
    dims.iter().enumerate().map(|(n, &d)| (d == 1 || beside_one(n)).then_some(d)).collect()
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
pub(crate) struct Ends {
    /// The outputs with their names.
    pub(crate) named: Vec<(String, ValueId)>,
    /// The weights among them, which come last, with the number of their states.
    pub(crate) results: Vec<(usize, usize)>,
    /// The state of the loss scale, which comes after them.
    pub(crate) scaling: Vec<ValueId>,
}

/// What a run gave.
pub(crate) struct Ran {
    pub(crate) result: StepResult,
    /// The final states of all layers in [`recurve_layers::TrainingGraph::states`].
    pub(crate) ends: Vec<State>,
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

impl Training {
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
        let mut own = |a: &mut Assembly, name: &str, t: &Tensor, of: Option<ValueId>| -> Result<ValueId> {
            let of: Vec<_> = of.map_or_else(Vec::new, |id| a.value(id).kind.dims.iter().map(Dim::size).collect());
            let dims = known_sizes(t.dims(), &of);
            let id = a.input(name, ValueType::new(t.dtype(), dims), false)?;
            feeds.insert(id, Feed::Batch(next));
            next += 1;
            Ok(id)
        };
        let targets = batch.targets.iter().zip(&outputs).enumerate();
        let targets = targets.map(|(n, (t, (_, of)))| own(&mut a, &format!("target.{n}"), t, Some(*of)));
        let targets = targets.collect::<Result<Vec<_>>>()?;
        let weights = batch.sample_weights.map(|t| own(&mut a, "sample_weights", t, None)).transpose()?;
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
        let mut scores = Scores::add(&mut a, &self.options, &of)?;
        if let Some(name) = &training.penalty {
            scores.penalize(&mut a, output(name).expect("an output of the graph"))?;
        }
        let loss = scores.loss;

        let trained: Vec<usize> = self.trained().collect();
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
                if !training.constraints.is_empty() {
                    let values = self.in_f32(&mut a, &mut feeds, (&trained, &ids))?;
                    self.constrain_weights(&mut a, (&trained, &values), &mut ends)?;
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

    /// A finished graph on the device.
    pub(crate) fn finish(
        &self,
        a: Assembly,
        ends: Ends,
        feeds: &HashMap<ValueId, Feed>,
        layout: Layout,
    ) -> Result<Plan> {
        let Ends { mut named, results, scaling } = ends;
        named.extend(scaling.iter().enumerate().map(|(n, id)| (format!("scaling.{n}"), *id)));
        let graph = a.finish(named)?;
        let inputs = graph.inputs().iter().map(|id| feeds[id]).collect();
        let executor = Executor::new(Arc::new(graph), |_| None, self.device())?;
        let states = if layout.outputs > 0 { self.graph.states.iter().map(|s| s.outputs.len()).sum() } else { 0 };
        Ok(Plan { executor, inputs, layout, states, results })
    }

    /// Runs a plan with these tensors as its batch.
    pub(crate) fn outputs(&self, plan: &Plan, batch: &[&Tensor]) -> Result<Vec<Tensor>> {
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
}

pub(crate) fn signature(batch: &Batch<'_>, wanted: Wanted) -> Signature {
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
