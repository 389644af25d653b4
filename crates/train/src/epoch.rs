//! An epoch in the hands of a caller, who gives the batches one by one: what [`Trainer::fit`] and [`Trainer::evaluate`] do
//! between callbacks.

use crate::data::{DeviceBatch, HostBatch};
use crate::error::check;
use crate::tally::{Tally, read};
use crate::{Logs, Result, Snapshot, StepResult, Trainer};
use recurve_tensor::Device;

/// How many steps a GPU takes before their losses are read.
const STEPS_AHEAD: usize = 8;

/// A step whose loss has not been read yet.
#[derive(Debug)]
struct Pending {
    batch: HostBatch,
    on_device: DeviceBatch,
    result: StepResult,
}

/// An epoch of training whose batches come one by one. It borrows nothing, so that between two batches the trainer can be
/// used for anything else: to evaluate, to save, to set the learning rate or the weights.
///
/// ```
/// use recurve_layers::{Dense, Sequential, SimpleRnn};
/// use recurve_tensor::Device;
/// use recurve_train::{Adam, Array, HostBatch, Loss, StepOptions, Trainer};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network =
///     Sequential::new().add(SimpleRnn::new(4)).add(Dense::new(1)).build(&[None, None, Some(1)], &Device::Cpu)?;
/// let mut trainer = Trainer::compile(&network, StepOptions::new(Loss::mean_squared_error(), Adam::keras()))?;
/// let mut epoch = trainer.begin_epoch()?;
/// for n in 0..3 {
///     let x = Array::f32(vec![n as f32; 6], &[2, 3, 1])?;
///     trainer.train_batch(&mut epoch, HostBatch::new(vec![x], vec![Array::f32(vec![0.0; 2], &[2, 1])?]))?;
///     println!("{:?}", epoch.logs().get("loss"));
/// }
/// let logs = trainer.end_epoch(epoch)?;
/// assert!(logs.get("loss").is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct FitEpoch {
    tally: Tally,
    pending: Vec<Pending>,
    /// How many steps may be pending.
    ahead: usize,
    /// The state before the first step that is pending.
    before: Snapshot,
    /// Of the trainer after the last step: the revision of its weights and the learning rate that was set.
    seen: (u64, Option<f64>),
    logs: Option<Logs>,
}

impl FitEpoch {
    /// Loss and metrics of the batches so far. On a GPU they may be those of a few batches before, because they are not
    /// read after every batch; [`Trainer::read_losses`] reads them.
    pub fn logs(&mut self) -> &Logs {
        self.logs.get_or_insert_with(|| self.tally.logs(""))
    }
}

/// An evaluation whose batches come one by one.
#[derive(Debug)]
pub struct Evaluation {
    tally: Tally,
}

impl Evaluation {
    /// Loss and metrics of the batches so far.
    pub fn logs(&self) -> Logs {
        self.tally.logs("")
    }

    /// Loss and metrics of all batches.
    ///
    /// # Errors
    /// [`crate::Error::Option`] if there was none.
    pub fn end(self) -> Result<Logs> {
        check("evaluate", "data", self.tally.is_used(), || "must have at least one batch, but there is none".into())?;
        Ok(self.logs())
    }
}

impl Trainer {
    /// Begins an epoch of which no batch has been seen.
    ///
    /// # Errors
    /// [`crate::Error::Option`] for metrics out of range.
    pub fn begin_epoch(&self) -> Result<FitEpoch> {
        let ahead = if matches!(self.training().device(), Device::Cpu) { 1 } else { STEPS_AHEAD };
        let (tally, before) = (self.tally()?, self.training().snapshot());
        Ok(FitEpoch { tally, pending: Vec::new(), ahead, before, seen: self.seen(), logs: None })
    }

    /// Takes a step of an epoch.
    ///
    /// # Errors
    /// As [`Self::fit`]. A loss that is not finite may be that of one of the last few batches; the weights are those
    /// before its step. After errors of a batch that does not fit, nothing has changed.
    pub fn train_batch(&mut self, epoch: &mut FitEpoch, batch: HostBatch) -> Result<()> {
        self.check_batch(&batch)?;
        if epoch.seen != self.seen() {
            // Steps that are repeated to find a loss that is not finite have the weights and the rate of their snapshot.
            self.read_losses(epoch)?;
        }
        let on_device = batch.to_device(self.training().device())?;
        let result = on_device.with(|b| self.training_mut().step(b))?;
        epoch.pending.push(Pending { batch, on_device, result });
        epoch.seen = self.seen();
        if epoch.pending.len() == epoch.ahead { self.read_losses(epoch) } else { Ok(()) }
    }

    /// Ends an epoch.
    ///
    /// # Errors
    /// [`crate::Error::Option`] if it had no batch; otherwise as [`Self::train_batch`].
    pub fn end_epoch(&mut self, mut epoch: FitEpoch) -> Result<Logs> {
        self.read_losses(&mut epoch)?;
        check("fit", "data", epoch.tally.is_used(), || {
            "must have at least one batch in an epoch, but there is none".into()
        })?;
        Ok(epoch.tally.logs(""))
    }

    /// Reads the losses of the steps so far, which [`FitEpoch::logs`] then has.
    ///
    /// # Errors
    /// As [`Self::train_batch`].
    pub fn read_losses(&mut self, epoch: &mut FitEpoch) -> Result<()> {
        let pending = std::mem::take(&mut epoch.pending);
        let numbers = read(&pending.iter().map(|p| &p.result).collect::<Vec<_>>())?;
        if let Some(n) = numbers.iter().position(|v| !v[0].is_finite()) {
            // The steps before it are taken again, which gives the same weights.
            self.training_mut().restore(&epoch.before)?;
            for p in &pending[..n] {
                p.on_device.with(|b| self.training_mut().step(b))?;
            }
            return Err(pending[n].on_device.with(|b| self.training_mut().not_finite(b)));
        }
        if let Some(last) = pending.last()
            && self.training_mut().scale_is_least()?
        {
            return Err(last.on_device.with(|b| self.training_mut().not_finite(b)));
        }
        for (p, numbers) in pending.iter().zip(&numbers) {
            epoch.tally.add(numbers, &p.result, &p.batch)?;
        }
        if !pending.is_empty() {
            epoch.logs = None;
        }
        (epoch.before, epoch.seen) = (self.training().snapshot(), self.seen());
        Ok(())
    }

    /// What a caller can change between two steps, which repeated steps would not know of.
    fn seen(&self) -> (u64, Option<f64>) {
        let training = self.training();
        let rate = training.options().schedule.is_none().then(|| training.learning_rate());
        (training.revision(), rate)
    }

    fn tally(&self) -> Result<Tally> {
        let outputs: Vec<String> = self.training().config().outputs.iter().map(|o| o.name.clone()).collect();
        Tally::new(self.training().options(), &outputs)
    }

    /// [`Training::flat_gradients`](crate::Training::flat_gradients) of a batch in host memory.
    ///
    /// # Errors
    /// As [`Training::flat_gradients`](crate::Training::flat_gradients), and as [`Self::fit`] for a batch that does not
    /// fit.
    pub fn flat_gradients(&mut self, batch: &HostBatch, weight: f32) -> Result<(f32, Vec<f32>)> {
        self.check_batch(batch)?;
        let on_device = batch.to_device(self.training().device())?;
        on_device.with(|b| self.training_mut().flat_gradients(b, weight))
    }

    /// Begins an evaluation with the present weights, of which no batch has been seen. Stateful layers begin with zeros.
    ///
    /// # Errors
    /// As [`Self::evaluate`].
    pub fn begin_evaluation(&mut self) -> Result<Evaluation> {
        self.refresh()?.reset();
        Ok(Evaluation { tally: self.tally()? })
    }

    /// Adds a batch to an evaluation, with the present weights.
    ///
    /// # Errors
    /// As [`Self::evaluate`].
    pub fn evaluate_batch(&mut self, evaluation: &mut Evaluation, batch: &HostBatch) -> Result<()> {
        self.check_batch(batch)?;
        let on_device = batch.to_device(self.training().device())?;
        let options = self.training().options().clone();
        let result = self.refresh()?.evaluate(&on_device, &options)?;
        evaluation.tally.add(&read(&[&result])?[0], &result, batch)
    }
}
