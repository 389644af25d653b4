//! What happens beside training: between epochs and batches.

use crate::{Logs, Result, Snapshot, Trainer};

/// Where training is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Position {
    /// The number of the epoch, of which the first is 0.
    pub epoch: usize,
    /// How many epochs there are to be.
    pub epochs: usize,
    /// The number of the batch in its epoch, of which the first is 0.
    pub batch: usize,
    /// How many batches an epoch has, if that is known.
    pub batches: Option<usize>,
}

/// What a callback keeps from epoch to epoch, for an exact resume.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CallbackState {
    /// Anything but weights.
    pub value: serde_json::Value,
    /// Weights of the network, such as the best ones.
    pub weights: Option<Snapshot>,
}

/// Something that is told of the beginnings and ends of training, epochs and batches, as Keras's `Callback`. It may change
/// the learning rate, stop the training or save it.
///
/// An error ends the training.
#[expect(unused_variables, reason = "by default nothing happens")]
pub trait Callback {
    /// Before the first epoch.
    ///
    /// # Errors
    /// Whatever keeps the callback from doing its work.
    fn train_begin(&mut self, trainer: &mut Trainer, at: Position) -> Result<()> {
        Ok(())
    }

    /// Before an epoch.
    ///
    /// # Errors
    /// As [`Self::train_begin`].
    fn epoch_begin(&mut self, trainer: &mut Trainer, at: Position) -> Result<()> {
        Ok(())
    }

    /// After a batch. On a GPU the numbers may be those of a few batches before, because they are not read after every
    /// batch.
    ///
    /// # Errors
    /// As [`Self::train_begin`].
    fn batch_end(&mut self, trainer: &mut Trainer, at: Position, logs: &Logs) -> Result<()> {
        Ok(())
    }

    /// After an epoch and its validation. What is added to the numbers is in the history, and the callbacks behind this one
    /// see it.
    ///
    /// # Errors
    /// As [`Self::train_begin`].
    fn epoch_end(&mut self, trainer: &mut Trainer, at: Position, logs: &mut Logs) -> Result<()> {
        Ok(())
    }

    /// After the last epoch, also if the training was stopped.
    ///
    /// # Errors
    /// As [`Self::train_begin`].
    fn train_end(&mut self, trainer: &mut Trainer, at: Position) -> Result<()> {
        Ok(())
    }

    /// What the callback keeps, for a checkpoint.
    fn state(&self) -> CallbackState {
        CallbackState::default()
    }

    /// Takes over what it kept in a training that is resumed.
    ///
    /// # Errors
    /// [`crate::Error::Option`] for the state of another callback.
    fn restore(&mut self, state: CallbackState) -> Result<()> {
        Ok(())
    }
}

impl<C: Callback + ?Sized> Callback for &mut C {
    fn train_begin(&mut self, trainer: &mut Trainer, at: Position) -> Result<()> {
        (**self).train_begin(trainer, at)
    }

    fn epoch_begin(&mut self, trainer: &mut Trainer, at: Position) -> Result<()> {
        (**self).epoch_begin(trainer, at)
    }

    fn batch_end(&mut self, trainer: &mut Trainer, at: Position, logs: &Logs) -> Result<()> {
        (**self).batch_end(trainer, at, logs)
    }

    fn epoch_end(&mut self, trainer: &mut Trainer, at: Position, logs: &mut Logs) -> Result<()> {
        (**self).epoch_end(trainer, at, logs)
    }

    fn train_end(&mut self, trainer: &mut Trainer, at: Position) -> Result<()> {
        (**self).train_end(trainer, at)
    }

    fn state(&self) -> CallbackState {
        (**self).state()
    }

    fn restore(&mut self, state: CallbackState) -> Result<()> {
        (**self).restore(state)
    }
}
