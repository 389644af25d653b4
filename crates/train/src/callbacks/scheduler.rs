//! Learning rates by epoch.

use super::{Callback, Position, check_rate};
use crate::{Logs, Result, Schedule, Trainer};
use std::fmt;

/// Sets the learning rate before each epoch: Keras's `LearningRateScheduler`. Adds `learning_rate` to the numbers of the
/// epoch.
///
/// ```
/// use recurve_train::{FitOptions, LearningRateScheduler, Schedule};
/// let halved = LearningRateScheduler::new(|epoch, rate| if epoch % 5 == 4 { rate / 2.0 } else { rate });
/// let cosine = LearningRateScheduler::by_epoch(Schedule::Cosine { initial: 0.001, steps: 20, alpha: 0.0 });
/// let options = FitOptions::new().epochs(20).callback(cosine);
/// ```
pub struct LearningRateScheduler<'a> {
    rate: Rate<'a>,
}

/// A learning rate by the number of the epoch and the learning rate before.
type RateOf<'a> = Box<dyn FnMut(usize, f64) -> f64 + 'a>;

enum Rate<'a> {
    Of(RateOf<'a>),
    Schedule(Schedule),
}

const OF: &str = "learning_rate_scheduler";

impl<'a> LearningRateScheduler<'a> {
    /// The learning rate of an epoch, of which the first is 0, by its number and the learning rate before it.
    pub fn new(rate: impl FnMut(usize, f64) -> f64 + 'a) -> Self {
        Self { rate: Rate::Of(Box::new(rate)) }
    }

    /// A schedule whose steps are epochs.
    pub fn by_epoch(schedule: Schedule) -> Self {
        Self { rate: Rate::Schedule(schedule) }
    }
}

impl fmt::Debug for LearningRateScheduler<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LearningRateScheduler").finish_non_exhaustive()
    }
}

impl Callback for LearningRateScheduler<'_> {
    fn train_begin(&mut self, trainer: &mut Trainer, _: Position) -> Result<()> {
        check_rate(OF, trainer)?;
        if let Rate::Schedule(s) = &self.rate { s.check() } else { Ok(()) }
    }

    fn epoch_begin(&mut self, trainer: &mut Trainer, at: Position) -> Result<()> {
        let rate = match &mut self.rate {
            Rate::Of(rate) => rate(at.epoch, trainer.training().learning_rate()),
            Rate::Schedule(s) => s.at(at.epoch as u64),
        };
        trainer.training_mut().set_learning_rate(rate)
    }

    fn epoch_end(&mut self, trainer: &mut Trainer, _: Position, logs: &mut Logs) -> Result<()> {
        logs.set("learning_rate", trainer.training().learning_rate());
        Ok(())
    }
}
