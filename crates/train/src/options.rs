//! How a network is trained.

use crate::error::check;
use crate::scores::OutputMetric;
use crate::{Average, Clip, Loss, LossScale, Optimizer, Result, Schedule};

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
    /// Weights that are not trained, as PyTorch's `requires_grad = False`: names of weights, or what these begin with up
    /// to a point, such as `layers.0`.
    pub frozen: Vec<String>,
}

/// Whether a name is that of a weight, or what its name begins with up to a point.
fn names(name: &str, weight: &str) -> bool {
    weight.strip_prefix(name).is_some_and(|rest| !name.is_empty() && (rest.is_empty() || rest.starts_with('.')))
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
            frozen: Vec::new(),
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

    /// The same with more weights that are not trained.
    #[must_use]
    pub fn frozen(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.frozen.extend(names.into_iter().map(Into::into));
        self
    }

    /// Whether a weight is not trained because its name, or what it begins with, is among those of the options.
    pub(crate) fn freezes(&self, weight: &str) -> bool {
        self.frozen.iter().any(|f| names(f, weight))
    }

    /// Checks that each name of weights that are not trained is that of a weight, or what one begins with.
    pub(crate) fn check_frozen(&self, weights: &[String]) -> Result<()> {
        let unknown = self.frozen.iter().find(|f| !weights.iter().any(|w| names(f, w)));
        check("training", "frozen", unknown.is_none(), || {
            let few = weights.iter().take(8).map(String::as_str).collect::<Vec<_>>().join(", ");
            format!("has `{}`, which no weight is named; there are {few}", unknown.map_or("", |u| u))
        })
    }

    /// Checks the options for a network with so many outputs.
    pub(crate) fn check(&self, outputs: usize) -> Result<()> {
        const OF: &str = "training";
        self.optimizer.check()?;
        self.losses.iter().try_for_each(Loss::check)?;
        self.clip.iter().try_for_each(Clip::check)?;
        self.mixed_precision.iter().try_for_each(LossScale::check)?;
        self.schedule.iter().try_for_each(Schedule::check)?;
        check(OF, "accumulate", self.accumulate > 0, || "must be at least 1, but it is 0".into())?;
        check(OF, "losses", self.losses.len() == outputs, || {
            format!("must be one for each of {outputs} outputs, but there are {}", self.losses.len())
        })?;
        let weights = &self.loss_weights;
        check(OF, "loss_weights", weights.is_empty() || weights.len() == outputs, || {
            format!("must be one for each of {outputs} outputs, but there are {}", weights.len())
        })?;
        check(OF, "loss_weights", weights.iter().all(|w| w.is_finite()), || {
            format!("must be finite, but they are {weights:?}")
        })?;
        for (n, m) in self.metrics.iter().enumerate() {
            m.metric.check()?;
            check(OF, "metrics", m.output < outputs, || {
                format!("`{}` is of output {}, but there are {outputs}", m.name, m.output)
            })?;
            let twice = self.metrics[..n].iter().any(|other| other.name == m.name) || m.name == "loss";
            check(OF, "metrics", !twice, || format!("must differ in their names, but `{}` is there twice", m.name))?;
        }
        Ok(())
    }
}
