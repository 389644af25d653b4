//! The optimiser's part of a step.

use crate::error::check;
use crate::limits::Values;
use crate::mixed::{self, Scaling};
use crate::plan::{Ends, Feed, Layout, Plan};
use crate::snapshot::Weight;
use crate::step::TRAINING;
use crate::{Average, Clip, Error, Parameter, Result, Training};
use recurve_graph::ops::ExpandLike;
use recurve_graph::{Assembly, ValueId, ValueType};
use recurve_tensor::{DType, Descent, Tensor};
use std::collections::HashMap;
use std::sync::Arc;

impl Training {
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
        let trained: Vec<usize> = self.trained().collect();
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

    /// The places of the weights that are trained.
    pub(crate) fn trained(&self) -> impl Iterator<Item = usize> {
        (0..self.weights.len()).filter(|&n| self.weights[n].trained)
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
    pub(crate) fn optimize(
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
        let mut all = Vec::new();
        for n in self.trained() {
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
        let name = |n: usize| &self.weights[n].name;
        let after: Values = self.trained().zip(&updated).map(|(n, u)| (name(n).clone(), u.value)).collect();
        let mut values = after.clone();
        self.constrain(a, &mut values)?;
        if let Some(finite) = finite {
            for (name, value) in values.iter_mut().filter(|(name, value)| after[*name] != **value) {
                *value = mixed::unless_skipped(a, finite, [*value, after[name]])?;
            }
        }
        for ((n, u), states) in self.trained().zip(&updated).zip(&all) {
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
            ends.named.push((format!("weight.{n}"), values[name(n)]));
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
    pub(crate) fn sums(&self, a: &mut Assembly, feeds: &mut HashMap<ValueId, Feed>) -> Result<Vec<(usize, ValueId)>> {
        self.trained().map(|n| Ok((n, self.state(a, feeds, n, self.weights[n].states.len() - 1)?))).collect()
    }

    /// What changes from step to step: the numbers of the optimiser, and the part of a weight in its new average. In
    /// mixed precision each is a table with a row for each number of steps that may have been skipped unread.
    pub(crate) fn numbers(&self) -> Result<[Tensor; 2]> {
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
}

fn state_name(weight: &str, state: usize) -> String {
    format!("state {state} of {weight}")
}
