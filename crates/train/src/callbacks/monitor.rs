//! A number that callbacks watch, and what counts as better.

use super::Position;
use crate::error::check;
use crate::{Error, Logs, Metric, Result, Trainer};

/// Which values of a number are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum MonitorMode {
    /// As the number's name tells: less of a loss and of the perplexity, more of the other metrics.
    #[default]
    Auto,
    /// Less is better.
    Min,
    /// More is better.
    Max,
}

/// A number of the logs that is watched.
#[derive(Clone, Debug)]
pub(super) struct Monitor {
    of: &'static str,
    pub(super) name: String,
    pub(super) mode: MonitorMode,
    pub(super) min_delta: f64,
    larger: bool,
}

impl Monitor {
    /// Keras's default, `val_loss`.
    pub(super) fn new(of: &'static str) -> Self {
        Self { of, name: "val_loss".into(), mode: MonitorMode::Auto, min_delta: 0.0, larger: false }
    }

    /// Decides what is better, and refuses a number that there will not be.
    pub(super) fn begin(&mut self, trainer: &Trainer, at: Position) -> Result<()> {
        let (of, name) = (self.of, &self.name);
        check(of, "min_delta", self.min_delta.is_finite(), || format!("must be finite, but it is {}", self.min_delta))?;
        check(of, "monitor", at.validates || !name.starts_with("val_"), || {
            format!("is `{name}`, but there are no samples to validate with")
        })?;
        self.larger = match self.mode {
            MonitorMode::Min => false,
            MonitorMode::Max => true,
            MonitorMode::Auto => {
                let plain = name.strip_prefix("val_").unwrap_or(name);
                let training = trainer.training();
                let metric = training.options().metrics.iter().find(|m| m.name == plain);
                let mut outputs = training.config().outputs.iter();
                let larger = match metric {
                    // A mean may be of anything.
                    Some(m) if m.metric == Metric::Mean => None,
                    Some(m) => Some(m.metric.larger_is_better()),
                    None if plain == "loss" || outputs.any(|o| plain.strip_suffix("_loss") == Some(&*o.name)) => {
                        Some(false)
                    }
                    None => None,
                };
                larger.ok_or_else(|| Error::Option {
                    of,
                    argument: "monitor",
                    message: format!("is `{name}`, of which it is not known whether more is better: give a mode"),
                })?
            }
        };
        Ok(())
    }

    /// Whether more is better.
    pub(super) fn larger_is_better(&self) -> bool {
        self.larger
    }

    /// The number in an epoch; none if there was no validation in it.
    pub(super) fn value(&self, logs: &Logs) -> Result<Option<f64>> {
        let value = logs.get(&self.name);
        check(self.of, "monitor", value.is_some() || self.name.starts_with("val_"), || {
            let names: Vec<&str> = logs.iter().map(|(name, _)| name).collect();
            format!("is `{}`, but there are {}", self.name, names.join(", "))
        })?;
        Ok(value)
    }

    /// Whether a value is better than another one by more than `min_delta`. NaN is not.
    pub(super) fn better(&self, value: f64, than: Option<f64>) -> bool {
        let delta = self.min_delta.abs();
        match than {
            None => !value.is_nan(),
            Some(than) if self.larger => value - delta > than,
            Some(than) => value + delta < than,
        }
    }
}

/// The methods of a callback that set what it watches.
macro_rules! monitored {
    ($kind:ident) => {
        impl $kind {
            /// The same for another number than `val_loss`.
            #[must_use]
            pub fn monitor(mut self, name: impl Into<String>) -> Self {
                self.monitor.name = name.into();
                self
            }

            /// The same with a mode, where the name does not tell what is better.
            #[must_use]
            pub fn mode(mut self, mode: MonitorMode) -> Self {
                self.monitor.mode = mode;
                self
            }
        }
    };
}
pub(super) use monitored;
