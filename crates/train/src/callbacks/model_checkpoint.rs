//! Saves the network while it is trained.

use super::monitor::{Monitor, monitored};
use super::template::Template;
use super::{Callback, CallbackState, MonitorMode, Position, keep, kept};
use crate::error::{check, io};
use crate::{Logs, Result, Trainer};
use recurve_formats::Model;
use std::path::{Path, PathBuf};

/// Writes a model file after every epoch or every so many batches: Keras's `ModelCheckpoint`, with its defaults. `recurve
/// run` and [`Model::open`] read the file; a training cannot go on from it, as it can from that of
/// [`FitOptions::checkpoint`](crate::FitOptions::checkpoint).
///
/// The path may name numbers as in Python: `{epoch}`, of which the first is 1, `{batch}`, `{loss}`, `{val_accuracy:.3f}`.
/// Folders that are not there are made. With `save_best_only` nothing is written in an epoch without the number that is
/// watched.
///
/// ```
/// use recurve_train::{FitOptions, ModelCheckpoint};
/// let saving = ModelCheckpoint::new("models/{epoch:02d}-{val_loss:.3f}.safetensors").save_best_only(true);
/// let options = FitOptions::new().epochs(10).validation_split(0.2).callback(saving);
/// ```
#[derive(Debug)]
pub struct ModelCheckpoint {
    path: String,
    template: Option<Template>,
    monitor: Monitor,
    save_best_only: bool,
    threshold: Option<f64>,
    every_batches: Option<usize>,
    best: Option<f64>,
    batches: usize,
    last: Option<PathBuf>,
}

monitored!(ModelCheckpoint);

const OF: &str = "model_checkpoint";

impl ModelCheckpoint {
    /// Writes after every epoch.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            template: None,
            monitor: Monitor::new(OF),
            save_best_only: false,
            threshold: None,
            every_batches: None,
            best: None,
            batches: 0,
            last: None,
        }
    }

    /// The same where only the best network so far is written.
    #[must_use]
    pub fn save_best_only(self, save_best_only: bool) -> Self {
        Self { save_best_only, ..self }
    }

    /// The same where the first network is only the best one if it is better than this value.
    #[must_use]
    pub fn initial_value_threshold(self, threshold: f64) -> Self {
        Self { threshold: Some(threshold), ..self }
    }

    /// The same after every so many batches in place of every epoch: Keras's `save_freq`.
    #[must_use]
    pub fn every_batches(self, batches: usize) -> Self {
        Self { every_batches: Some(batches), ..self }
    }

    /// The best value so far, with `save_best_only`.
    pub fn best(&self) -> Option<f64> {
        self.best
    }

    /// The file that was written last.
    pub fn last_file(&self) -> Option<&Path> {
        self.last.as_deref()
    }

    fn save(&mut self, trainer: &Trainer, logs: &Logs, whole: &[(&str, usize)]) -> Result<()> {
        if self.save_best_only {
            match self.monitor.value(logs)? {
                Some(value) if self.monitor.better(value, self.best) => self.best = Some(value),
                _ => return Ok(()),
            }
        }
        let template = self.template.as_ref().expect("made at the beginning of training");
        let path = PathBuf::from(template.fill(whole, &logs.iter().collect::<Vec<_>>())?);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(io(folder))?;
        }
        Model::new("model", trainer.network()?).save(&path)?;
        self.last = Some(path);
        Ok(())
    }
}

impl Callback for ModelCheckpoint {
    fn train_begin(&mut self, trainer: &mut Trainer, at: Position) -> Result<()> {
        self.template = Some(Template::new(OF, &self.path)?);
        check(OF, "every_batches", self.every_batches != Some(0), || "must be at least 1, but it is 0".into())?;
        (self.best, self.batches) = (self.threshold, 0);
        if self.save_best_only { self.monitor.begin(trainer, at) } else { Ok(()) }
    }

    fn batch_end(&mut self, trainer: &mut Trainer, at: Position, logs: &Logs) -> Result<()> {
        let Some(every) = self.every_batches else { return Ok(()) };
        self.batches += 1;
        if self.batches < every {
            return Ok(());
        }
        self.batches = 0;
        self.save(trainer, logs, &[("epoch", at.epoch + 1), ("batch", at.batch + 1)])
    }

    fn epoch_end(&mut self, trainer: &mut Trainer, at: Position, logs: &mut Logs) -> Result<()> {
        if self.every_batches.is_some() { Ok(()) } else { self.save(trainer, logs, &[("epoch", at.epoch + 1)]) }
    }

    fn state(&self) -> CallbackState {
        keep(OF, (self.best.map(f64::to_bits), self.batches))
    }

    fn restore(&mut self, state: CallbackState) -> Result<()> {
        let (best, batches) = kept::<(Option<u64>, usize)>(OF, &state)?;
        (self.best, self.batches) = (best.map(f64::from_bits), batches);
        Ok(())
    }
}
