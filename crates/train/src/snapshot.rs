//! Weights and states of a training at some time.

use crate::error::check;
use crate::mixed::Scaling;
use crate::step::TRAINING;
use crate::{Result, Training};
use recurve_layers::State;
use recurve_tensor::Tensor;
use std::collections::BTreeMap;

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

impl Training {
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
}
