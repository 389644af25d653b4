//! Lowers the learning rate of training that no longer improves.

use super::monitor::{Monitor, monitored};
use super::{Callback, CallbackState, MonitorMode, Position, check_rate, keep, kept};
use crate::{Logs, Plateau, Result, Threshold, Trainer};

/// Lowers the learning rate when a number has stopped improving: Keras's `ReduceLROnPlateau`, with its defaults. Adds
/// `learning_rate`, that of the epoch, to the numbers of the epoch.
#[derive(Debug)]
pub struct ReduceLrOnPlateau {
    monitor: Monitor,
    plateau: Plateau,
}

monitored!(ReduceLrOnPlateau);

const OF: &str = "reduce_lr_on_plateau";

impl Default for ReduceLrOnPlateau {
    fn default() -> Self {
        Self::new()
    }
}

impl From<Plateau> for ReduceLrOnPlateau {
    /// Watches `val_loss`. Whether larger is better follows from the number or the mode, not from the plateau.
    fn from(plateau: Plateau) -> Self {
        Self { monitor: Monitor::new(OF), plateau }
    }
}

impl ReduceLrOnPlateau {
    /// Watches `val_loss`: factor 0.1, patience 10, `min_delta` 1e-4.
    pub fn new() -> Self {
        Plateau::keras().into()
    }

    /// The same with what the learning rate is multiplied by.
    #[must_use]
    pub fn factor(mut self, factor: f64) -> Self {
        self.plateau.factor = factor;
        self
    }

    /// The same with so many epochs without improvement after which the learning rate is lowered.
    #[must_use]
    pub fn patience(mut self, patience: u32) -> Self {
        self.plateau.patience = patience;
        self
    }

    /// The same where only a change by more than this is an improvement.
    #[must_use]
    pub fn min_delta(mut self, min_delta: f64) -> Self {
        self.plateau.threshold = Threshold::Absolute(min_delta.abs());
        self
    }

    /// The same with so many epochs after a change that do not count.
    #[must_use]
    pub fn cooldown(mut self, cooldown: u32) -> Self {
        self.plateau.cooldown = cooldown;
        self
    }

    /// The same with the least learning rate.
    #[must_use]
    pub fn min_lr(mut self, min_lr: f64) -> Self {
        self.plateau.least = min_lr;
        self
    }
}

impl Callback for ReduceLrOnPlateau {
    fn train_begin(&mut self, trainer: &mut Trainer, at: Position) -> Result<()> {
        self.plateau.check()?;
        self.plateau.reset();
        check_rate(OF, trainer)?;
        self.monitor.begin(trainer, at)?;
        self.plateau.larger_is_better = self.monitor.larger_is_better();
        Ok(())
    }

    fn epoch_end(&mut self, trainer: &mut Trainer, _: Position, logs: &mut Logs) -> Result<()> {
        let rate = trainer.training().learning_rate();
        logs.set("learning_rate", rate);
        let Some(value) = self.monitor.value(logs)? else { return Ok(()) };
        let lower = self.plateau.observe(value, rate);
        if lower == rate { Ok(()) } else { trainer.training_mut().set_learning_rate(lower) }
    }

    fn state(&self) -> CallbackState {
        keep(OF, self.plateau.state())
    }

    fn restore(&mut self, state: CallbackState) -> Result<()> {
        self.plateau.set_state(kept(OF, &state)?);
        Ok(())
    }
}
