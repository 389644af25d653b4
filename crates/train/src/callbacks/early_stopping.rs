//! Ends training that no longer improves.

use super::monitor::{Monitor, monitored};
use super::{Callback, CallbackState, MonitorMode, Position, keep, kept};
use crate::{Logs, Result, Snapshot, Trainer};
use serde::{Deserialize, Serialize};

/// Ends the training when a number has stopped improving: Keras's `EarlyStopping`, with its defaults.
///
/// An epoch without validation does not count where the number is one of validation. NaN is no improvement, not even over
/// nothing.
///
/// ```
/// use recurve_train::{EarlyStopping, FitOptions};
/// let mut stopping = EarlyStopping::new().patience(3).restore_best_weights(true);
/// let options = FitOptions::new().epochs(100).validation_split(0.2).callback(&mut stopping);
/// ```
#[derive(Debug)]
pub struct EarlyStopping {
    monitor: Monitor,
    patience: usize,
    baseline: Option<f64>,
    restore_best_weights: bool,
    start_from_epoch: usize,
    best_weights: Option<Snapshot>,
    seen: Seen,
}

/// What has been seen so far.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    /// The bits of the best value, which may be infinite.
    best: Option<u64>,
    best_epoch: Option<usize>,
    waited: usize,
    stopped: Option<usize>,
}

monitored!(EarlyStopping);

const OF: &str = "early_stopping";

impl Default for EarlyStopping {
    fn default() -> Self {
        Self::new()
    }
}

impl EarlyStopping {
    /// Watches `val_loss` with a patience of 0.
    pub fn new() -> Self {
        Self {
            monitor: Monitor::new(OF),
            patience: 0,
            baseline: None,
            restore_best_weights: false,
            start_from_epoch: 0,
            best_weights: None,
            seen: Seen::default(),
        }
    }

    /// The same where only a change by more than this is an improvement.
    #[must_use]
    pub fn min_delta(mut self, min_delta: f64) -> Self {
        self.monitor.min_delta = min_delta;
        self
    }

    /// The same with so many epochs without improvement after which training ends.
    #[must_use]
    pub fn patience(self, patience: usize) -> Self {
        Self { patience, ..self }
    }

    /// The same where an improvement only counts if it is better than this value too.
    #[must_use]
    pub fn baseline(self, baseline: f64) -> Self {
        Self { baseline: Some(baseline), ..self }
    }

    /// The same where the network has the weights of the best epoch at the end, whatever ends the training.
    #[must_use]
    pub fn restore_best_weights(self, restore_best_weights: bool) -> Self {
        Self { restore_best_weights, ..self }
    }

    /// The same where the epochs before this one do not count.
    #[must_use]
    pub fn start_from_epoch(self, start_from_epoch: usize) -> Self {
        Self { start_from_epoch, ..self }
    }

    /// The epoch after which it ended the training.
    pub fn stopped_epoch(&self) -> Option<usize> {
        self.seen.stopped
    }

    /// The epoch with the best value.
    pub fn best_epoch(&self) -> Option<usize> {
        self.seen.best_epoch
    }

    /// The best value.
    pub fn best(&self) -> Option<f64> {
        self.seen.best.map(f64::from_bits)
    }
}

impl Callback for EarlyStopping {
    fn train_begin(&mut self, trainer: &mut Trainer, at: Position) -> Result<()> {
        (self.seen, self.best_weights) = (Seen::default(), None);
        self.monitor.begin(trainer, at)
    }

    fn epoch_end(&mut self, trainer: &mut Trainer, at: Position, logs: &mut Logs) -> Result<()> {
        let Some(value) = self.monitor.value(logs)? else { return Ok(()) };
        if at.epoch < self.start_from_epoch {
            return Ok(());
        }
        let improved = self.monitor.better(value, self.best());
        if self.restore_best_weights && (improved || self.best_weights.is_none()) {
            self.best_weights = Some(trainer.training().snapshot().without_states());
            self.seen.best_epoch = Some(at.epoch);
        }
        self.seen.waited += 1;
        if improved {
            (self.seen.best, self.seen.best_epoch) = (Some(value.to_bits()), Some(at.epoch));
            if self.baseline.is_none_or(|b| self.monitor.better(value, Some(b))) {
                self.seen.waited = 0;
            }
        } else if self.seen.waited >= self.patience && at.epoch > 0 {
            self.seen.stopped = Some(at.epoch);
            trainer.stop_training();
        }
        Ok(())
    }

    fn train_end(&mut self, trainer: &mut Trainer, _: Position) -> Result<()> {
        self.best_weights.as_ref().map_or(Ok(()), |best| trainer.training_mut().restore_weights(best))
    }

    fn state(&self) -> CallbackState {
        keep(OF, self.seen).weights(self.best_weights.clone())
    }

    fn restore(&mut self, state: CallbackState) -> Result<()> {
        self.seen = kept(OF, &state)?;
        self.best_weights = state.weights;
        Ok(())
    }
}
