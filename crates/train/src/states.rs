//! States of recurrent layers in training.

use crate::error::check;
use crate::step::TRAINING;
use crate::{Batch, Error, Result, Training};
use recurve_layers::{State, TrainingState};
use recurve_tensor::{DType, Tensor};

/// The gradients of the loss of a batch.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BatchGradients {
    /// By each weight that is trained, in the order of [`Training::names`], limited as for a step.
    pub weights: Vec<Tensor>,
    /// By each input; `None` for ids.
    pub inputs: Vec<Option<Tensor>>,
    /// By the initial states of the batch, one for each recurrent layer; none if the batch has no states.
    pub states: Vec<State>,
}

impl Training {
    /// The states that stateful layers keep from step to step, first to last; `None` before the first step and after
    /// [`Self::reset_states`].
    pub fn kept_states(&self) -> Option<&[State]> {
        self.kept.as_deref()
    }

    /// Sets the states with which stateful layers begin the next step, one for each stateful layer.
    ///
    /// # Errors
    /// [`Error::Option`] for another number of states than stateful layers.
    pub fn set_kept_states(&mut self, states: &[State]) -> Result<()> {
        let layers = self.graph.states.iter().filter(|s| s.stateful).count();
        check(TRAINING, "states", states.len() == layers, || {
            format!("must be one for each of {layers} stateful layers, but there are {}", states.len())
        })?;
        self.kept = Some(states.to_vec());
        Ok(())
    }

    /// Checks states of a file: none, or those of all stateful layers. Their shapes are checked in the next step.
    pub(crate) fn check_kept(&self, kept: &[State]) -> Result<(), String> {
        let mut layers = self.graph.states.iter().filter(|s| s.stateful);
        let fits = layers.clone().count() == kept.len()
            && kept.iter().all(|k| layers.next().is_some_and(|l| l.inputs.len() == 1 + usize::from(k.c.is_some())));
        if kept.is_empty() || fits { Ok(()) } else { Err("has states of other stateful layers".into()) }
    }

    /// Lets stateful layers begin the next step with zeros: a new sequence follows.
    pub fn reset_states(&mut self) {
        self.kept = None;
    }

    /// The states that a step of a batch begins with. All others are zeros, or what the network itself computes.
    pub(crate) fn started(&self, batch: &Batch<'_>) -> impl Iterator<Item = &TrainingState> {
        let given = batch.states.is_some();
        self.graph.states.iter().filter(move |s| s.stateful || (s.visible && given))
    }

    /// The tensors of these states, in the order of their inputs.
    pub(crate) fn starts(&self, batch: &Batch<'_>) -> Result<Vec<Tensor>> {
        let visible = self.graph.states.iter().filter(|s| s.visible).count();
        if let Some(states) = batch.states {
            check(TRAINING, "states", states.len() == visible, || {
                format!("must be one for each of {visible} recurrent layers, but there are {}", states.len())
            })?;
        }
        let Some(first) = batch.inputs.first() else { return Ok(Vec::new()) };
        let mut given = batch.states.unwrap_or_default().iter();
        let mut kept = self.kept.iter().flatten();
        let mut all = Vec::new();
        for state in &self.graph.states {
            let own = if state.visible { given.next() } else { None };
            let old = if state.stateful { kept.next() } else { None };
            if own.is_none() && !state.stateful {
                continue;
            }
            let Some(dims) = state.dims(first.dims()) else {
                let (expected, got) = ("of the shape of the network's input".into(), first.shape().to_string());
                return Err(Error::Operand { of: TRAINING, argument: "inputs", expected, got });
            };
            match (own, old) {
                (Some(own), _) => given_state(state, own, &dims)?,
                (None, Some(old)) => kept_state(state, old, &dims)?,
                (None, None) => {}
            }
            let from = own.or(old);
            let parts = [from.map(|s| &s.h), from.and_then(|s| s.c.as_ref())];
            for (part, dims) in parts.into_iter().zip(&dims) {
                let zeros = || Tensor::zeros(dims, DType::F32, self.device());
                all.push(part.cloned().map_or_else(zeros, Ok)?);
            }
        }
        Ok(all)
    }

    /// States of the layers from the tensors of a run.
    pub(crate) fn ends(&self, tensors: Vec<Tensor>) -> Vec<State> {
        states(self.graph.states.iter(), &mut tensors.into_iter())
    }

    /// Keeps the final states of the stateful layers among those of all.
    pub(crate) fn keep(&mut self, ends: &[State]) {
        let stateful = ends.iter().zip(&self.graph.states).filter(|(_, s)| s.stateful);
        let stateful: Vec<State> = stateful.map(|(end, _)| end.clone()).collect();
        self.kept = Some(stateful).filter(|s| !s.is_empty());
    }

    /// The gradients of a run by what they are for.
    pub(crate) fn sorted(&self, batch: &Batch<'_>, all: Vec<Tensor>) -> BatchGradients {
        let mut all = all.into_iter();
        let weights = all.by_ref().take(self.names().count()).collect();
        let floats = |t: &&Tensor| (t.dtype() == DType::F32).then(|| all.next().expect("one for each input"));
        let inputs = batch.inputs.iter().map(floats).collect();
        let mut by_states = Vec::new();
        for state in self.started(batch) {
            let own = states(std::iter::once(state), &mut all);
            by_states.extend(own.into_iter().filter(|_| state.visible && batch.states.is_some()));
        }
        BatchGradients { weights, inputs, states: by_states }
    }
}

/// States from tensors, one part after the other.
fn states<'a>(of: impl Iterator<Item = &'a TrainingState>, tensors: &mut impl Iterator<Item = Tensor>) -> Vec<State> {
    let mut next = || tensors.next().expect("a tensor for each part of a state");
    of.map(|s| {
        let h = next();
        State { h, c: (s.inputs.len() > 1).then(&mut next) }
    })
    .collect()
}

/// Checks a state that a caller gave.
fn given_state(state: &TrainingState, own: &State, dims: &[[usize; 3]]) -> Result<()> {
    let layer = &state.layer;
    for (part, name, dims) in [(Some(&own.h), "h", dims.first()), (own.c.as_ref(), "c", dims.get(1))] {
        let Some(t) = part else { continue };
        let fits = dims.is_some_and(|d| t.dims() == d) && t.dtype() == DType::F32;
        if !fits {
            let expected = match dims {
                Some(dims) => format!("f32 {dims:?} for {name} of `{layer}`"),
                None => format!("without c for `{layer}`, whose cell has none"),
            };
            let got = format!("{} {}", t.dtype(), t.shape());
            return Err(Error::Operand { of: TRAINING, argument: "states", expected, got });
        }
    }
    Ok(())
}

/// Checks that a batch has as many sequences as a layer keeps states of.
fn kept_state(state: &TrainingState, old: &State, dims: &[[usize; 3]]) -> Result<()> {
    let (kept, wanted) = (old.h.dims().get(1).copied().unwrap_or(0), dims[0][1]);
    check(TRAINING, "stateful", kept == wanted, || {
        let layer = &state.layer;
        format!(
            "layer `{layer}` keeps a state of {kept} sequences, but the batch has {wanted}; call reset_states first"
        )
    })?;
    given_state(state, old, dims)
}
