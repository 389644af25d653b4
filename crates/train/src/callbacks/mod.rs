//! What happens beside training: between epochs and batches.

mod csv_logger;
mod early_stopping;
mod lambda;
mod model_checkpoint;
mod monitor;
mod plateau;
#[cfg(all(feature = "progress", not(target_family = "wasm")))]
mod progress;
mod scheduler;
mod template;
mod tensor_board;

pub use csv_logger::CsvLogger;
pub use early_stopping::EarlyStopping;
pub use lambda::LambdaCallback;
pub use model_checkpoint::ModelCheckpoint;
pub use monitor::MonitorMode;
pub use plateau::ReduceLrOnPlateau;
#[cfg(all(feature = "progress", not(target_family = "wasm")))]
pub use progress::ProgressBar;
pub use scheduler::LearningRateScheduler;
pub use tensor_board::TensorBoard;

use crate::error::check;
use crate::{Logs, Result, Snapshot, Trainer};
use serde::{Deserialize, Serialize};

/// What a callback of this name kept.
fn kept<T: for<'a> Deserialize<'a>>(of: &'static str, state: &CallbackState) -> Result<T> {
    let own = state.value.get(of).cloned().and_then(|v| serde_json::from_value(v).ok());
    own.ok_or_else(|| crate::Error::Option { of, argument: "state", message: "is that of another callback".into() })
}

/// What a callback of this name keeps.
fn keep(of: &'static str, value: impl Serialize) -> CallbackState {
    let value = serde_json::to_value(value).expect("numbers and names have a form in JSON");
    CallbackState::new(serde_json::Value::Object([(of.to_owned(), value)].into_iter().collect()))
}

/// Checks that a callback may set the learning rate.
fn check_rate(of: &'static str, trainer: &Trainer) -> Result<()> {
    check(of, "learning_rate", trainer.training().options().schedule.is_none(), || {
        "cannot be set, because a schedule gives it".into()
    })
}

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
    /// Whether there are samples to validate with.
    pub validates: bool,
    /// Whether this training goes on from a checkpoint. What callbacks kept comes back after [`Callback::train_begin`].
    pub resumed: bool,
}

impl Position {
    /// At the beginning of an epoch of so many, for a loop of one's own. Of batches and validation nothing is known.
    pub const fn new(epoch: usize, epochs: usize) -> Self {
        Self { epoch, epochs, batch: 0, batches: None, validates: false, resumed: false }
    }
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

impl CallbackState {
    /// A value without weights.
    pub fn new(value: serde_json::Value) -> Self {
        Self { value, weights: None }
    }

    /// The same with weights, if there are some.
    #[must_use]
    pub fn weights(self, weights: Option<Snapshot>) -> Self {
        Self { weights, ..self }
    }

    /// Whether a callback keeps nothing.
    pub fn is_empty(&self) -> bool {
        self.value.is_null() && self.weights.is_none()
    }
}

/// Something that is told of the beginnings and ends of training, epochs and batches, as Keras's `Callback`. It may change
/// the learning rate, stop the training or save it.
///
/// An error ends the training, and comes out of `fit`: an error of one's own as [`Error::Callback`](crate::Error::Callback).
/// The trainer keeps the weights that it has reached, and can go on.
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

    /// What the callback keeps, for a checkpoint. One that keeps something always gives a value.
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
