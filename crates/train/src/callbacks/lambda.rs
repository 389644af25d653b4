//! Callbacks that are closures.

use super::{Callback, Position};
use crate::{Logs, Result, Trainer};
use std::fmt;

/// What happens at a place in training.
type At<'a> = Box<dyn FnMut(&mut Trainer, Position) -> Result<()> + 'a>;
/// What happens after a batch.
type AfterBatch<'a> = Box<dyn FnMut(&mut Trainer, Position, &Logs) -> Result<()> + 'a>;
/// What happens after an epoch.
type AfterEpoch<'a> = Box<dyn FnMut(&mut Trainer, Position, &mut Logs) -> Result<()> + 'a>;

/// A callback of closures: Keras's `LambdaCallback`.
///
/// ```
/// use recurve_train::{FitOptions, LambdaCallback};
/// let enough = LambdaCallback::new().on_epoch_end(|trainer, _, logs| {
///     if logs.get("accuracy") > Some(0.99) {
///         trainer.stop_training();
///     }
///     Ok(())
/// });
/// let options = FitOptions::new().epochs(100).callback(enough);
/// ```
#[derive(Default)]
pub struct LambdaCallback<'a> {
    train_begin: Option<At<'a>>,
    epoch_begin: Option<At<'a>>,
    batch_end: Option<AfterBatch<'a>>,
    epoch_end: Option<AfterEpoch<'a>>,
    train_end: Option<At<'a>>,
}

impl<'a> LambdaCallback<'a> {
    /// Nothing happens.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with what happens before the first epoch.
    #[must_use]
    pub fn on_train_begin(self, f: impl FnMut(&mut Trainer, Position) -> Result<()> + 'a) -> Self {
        Self { train_begin: Some(Box::new(f)), ..self }
    }

    /// The same with what happens before an epoch.
    #[must_use]
    pub fn on_epoch_begin(self, f: impl FnMut(&mut Trainer, Position) -> Result<()> + 'a) -> Self {
        Self { epoch_begin: Some(Box::new(f)), ..self }
    }

    /// The same with what happens after a batch.
    #[must_use]
    pub fn on_batch_end(self, f: impl FnMut(&mut Trainer, Position, &Logs) -> Result<()> + 'a) -> Self {
        Self { batch_end: Some(Box::new(f)), ..self }
    }

    /// The same with what happens after an epoch.
    #[must_use]
    pub fn on_epoch_end(self, f: impl FnMut(&mut Trainer, Position, &mut Logs) -> Result<()> + 'a) -> Self {
        Self { epoch_end: Some(Box::new(f)), ..self }
    }

    /// The same with what happens after the last epoch.
    #[must_use]
    pub fn on_train_end(self, f: impl FnMut(&mut Trainer, Position) -> Result<()> + 'a) -> Self {
        Self { train_end: Some(Box::new(f)), ..self }
    }
}

impl fmt::Debug for LambdaCallback<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LambdaCallback").finish_non_exhaustive()
    }
}

impl Callback for LambdaCallback<'_> {
    fn train_begin(&mut self, trainer: &mut Trainer, at: Position) -> Result<()> {
        self.train_begin.as_mut().map_or(Ok(()), |f| f(trainer, at))
    }

    fn epoch_begin(&mut self, trainer: &mut Trainer, at: Position) -> Result<()> {
        self.epoch_begin.as_mut().map_or(Ok(()), |f| f(trainer, at))
    }

    fn batch_end(&mut self, trainer: &mut Trainer, at: Position, logs: &Logs) -> Result<()> {
        self.batch_end.as_mut().map_or(Ok(()), |f| f(trainer, at, logs))
    }

    fn epoch_end(&mut self, trainer: &mut Trainer, at: Position, logs: &mut Logs) -> Result<()> {
        self.epoch_end.as_mut().map_or(Ok(()), |f| f(trainer, at, logs))
    }

    fn train_end(&mut self, trainer: &mut Trainer, at: Position) -> Result<()> {
        self.train_end.as_mut().map_or(Ok(()), |f| f(trainer, at))
    }
}
