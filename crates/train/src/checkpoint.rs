//! Files from which a training goes on: a model file with one more entry in its metadata and more tensors.
//! `docs/model-file.md` specifies them.

use crate::snapshot::Parts;
use crate::{CallbackState, Error, History, Logs, Result, Snapshot, StepOptions, Training};
use recurve_formats::{Model, TrainingRecord};
use recurve_layers::{NetworkConfig, Weights};
use recurve_tensor::Tensor;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// The latest version of the record that this program reads.
const VERSION: u64 = 1;

/// What `fit` keeps besides weights, states and steps.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct FitState {
    /// The number of the epoch to go on with.
    pub epoch: usize,
    /// Whether a callback has ended the training.
    pub stopped: bool,
    /// The epochs so far.
    pub history: History,
    /// What those callbacks kept that keep something, in their order.
    pub callbacks: Vec<CallbackState>,
}

/// Its form in a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u64,
    epoch: usize,
    stopped: bool,
    /// What must be the same to go on.
    options: Options,
    numbers: BTreeMap<String, String>,
    history: Vec<Row>,
    callbacks: Vec<Kept>,
}

/// The options on which the bits of a training depend.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    optimizer: Value,
    schedule: Value,
    clip: Value,
    accumulate: usize,
    average: Value,
    /// Not in files of trainings without.
    #[serde(default)]
    mixed_precision: Value,
    seed: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    frozen: Vec<String>,
}

/// The numbers of an epoch, as text, which is exact and may be infinite.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    epoch: usize,
    logs: Vec<(String, String)>,
}

/// What a callback kept. Its tensors are named after its place.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    value: Value,
    /// The numbers of its weights, if it keeps some.
    numbers: Option<BTreeMap<String, String>>,
}

impl Options {
    fn of(options: &StepOptions) -> Self {
        let value = |v: serde_json::Result<Value>| v.expect("options have a form in JSON");
        Self {
            optimizer: value(serde_json::to_value(options.optimizer)),
            schedule: value(serde_json::to_value(&options.schedule)),
            clip: value(serde_json::to_value(options.clip)),
            accumulate: options.accumulate,
            average: value(serde_json::to_value(options.average)),
            mixed_precision: value(serde_json::to_value(options.mixed_precision)),
            seed: options.seed,
            frozen: options.frozen.clone(),
        }
    }
}

/// A value as it is after it was written and read, which may change the last bits of its numbers.
fn reread<T: Serialize + DeserializeOwned>(value: &T) -> serde_json::Result<T> {
    serde_json::from_str(&serde_json::to_string(value)?)
}

/// The key of a number that stands in a file as text, because a number there need not be exact.
const EXACT: &str = "f64";

/// A value with its floats as text.
fn sealed(value: Value) -> Value {
    match value {
        Value::Number(n) if n.is_f64() => {
            let text = n.as_f64().unwrap_or_default().to_string();
            Value::Object(Map::from_iter([(EXACT.to_owned(), Value::String(text))]))
        }
        Value::Array(all) => all.into_iter().map(sealed).collect(),
        Value::Object(all) => all.into_iter().map(|(name, v)| (name, sealed(v))).collect(),
        other => other,
    }
}

/// The value that was sealed.
fn unsealed(value: Value) -> Value {
    match value {
        Value::Object(all) => match all.get(EXACT).and_then(Value::as_str).map(str::parse::<f64>) {
            Some(Ok(v)) if all.len() == 1 => Value::from(v),
            _ => all.into_iter().map(|(name, v)| (name, unsealed(v))).collect(),
        },
        Value::Array(all) => all.into_iter().map(unsealed).collect(),
        other => other,
    }
}

/// What the names of a callback's tensors start with.
fn prefix(place: usize) -> String {
    format!("callbacks.{place}.")
}

impl FitState {
    /// Writes a file with the present state of a training.
    pub(crate) fn write(self, path: &Path, training: &Training) -> Result<()> {
        let mut tensors = Weights::new();
        let mut keep = |prefix: &str, parts: Parts, skip: Option<&str>| -> Result<BTreeMap<String, String>> {
            for (name, t) in parts.tensors {
                if skip.is_none_or(|s| !name.starts_with(s)) {
                    tensors.insert(format!("{prefix}{name}"), t.dims(), t.to_vec()?)?;
                }
            }
            Ok(parts.numbers)
        };
        // The weights are those of the model.
        let numbers = keep("", training.snapshot().parts()?, Some("weight."))?;
        let mut callbacks = Vec::new();
        for (n, state) in self.callbacks.into_iter().enumerate() {
            let numbers = state.weights.map(|w| keep(&prefix(n), w.parts()?, None)).transpose()?;
            callbacks.push(Kept { value: sealed(state.value), numbers });
        }
        let rows = self.history.epochs.iter().zip(&self.history.logs);
        let row = |(epoch, logs): (&usize, &Logs)| Row {
            epoch: *epoch,
            logs: logs.iter().map(|(name, v)| (name.to_owned(), v.to_string())).collect(),
        };
        let record = Record {
            version: VERSION,
            epoch: self.epoch,
            stopped: self.stopped,
            options: Options::of(training.options()),
            numbers,
            history: rows.map(row).collect(),
            callbacks,
        };
        let text = serde_json::to_string(&record).expect("a record has a form in JSON");
        Ok(Model::new("model", training.network()?).save_training(path, &TrainingRecord::new(text, tensors))?)
    }

    /// Reads a file for a training, with which it is compared. Nothing of the training changes.
    pub(crate) fn read(path: &Path, training: &Training) -> Result<(Snapshot, Self)> {
        let bad = |message: String| Error::Checkpoint { path: path.into(), message };
        let invalid = |e: serde_json::Error| bad(format!("has a bad record of its training: {e}"));
        let (info, model, file) = TrainingRecord::open(path)?;

        // The version is read first, because a later version may have fields that this program does not know.
        #[derive(Deserialize)]
        struct Version {
            version: u64,
        }
        let Version { version } = serde_json::from_str(&file.text).map_err(invalid)?;
        if version == 0 || version > VERSION {
            return Err(bad(format!("has a training of version {version}, and this program reads up to {VERSION}")));
        }
        let record: Record = serde_json::from_str(&file.text).map_err(invalid)?;

        let own = reread::<NetworkConfig>(training.config()).map_err(invalid)?;
        if info.network != own {
            return Err(bad("is of another network".into()));
        }
        let options = reread(&Options::of(training.options())).map_err(invalid)?;
        let saved = &record.options;
        for (what, saved, own) in [
            ("optimizer", &saved.optimizer, &options.optimizer),
            ("schedule", &saved.schedule, &options.schedule),
            ("clip", &saved.clip, &options.clip),
            ("accumulate", &saved.accumulate.into(), &options.accumulate.into()),
            ("average", &saved.average, &options.average),
            ("mixed_precision", &saved.mixed_precision, &options.mixed_precision),
            ("seed", &saved.seed.into(), &options.seed.into()),
            ("frozen", &saved.frozen.clone().into(), &options.frozen.clone().into()),
        ] {
            if saved != own {
                return Err(bad(format!("has another `{what}`: {saved} in place of {own}")));
            }
        }

        let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
        for (name, w) in file.tensors.iter() {
            tensors.insert(name.to_owned(), Tensor::from_f32(&w.to_vec()?, w.shape(), training.device())?);
        }
        let mut callbacks = Vec::new();
        for (n, kept) in record.callbacks.into_iter().enumerate() {
            let prefix = prefix(n);
            let (named, rest) =
                tensors.into_iter().partition::<BTreeMap<_, _>, _>(|(name, _)| name.starts_with(&prefix));
            tensors = rest;
            let own: BTreeMap<_, _> = named.into_iter().map(|(name, t)| (name[prefix.len()..].to_owned(), t)).collect();
            let weights = match kept.numbers {
                Some(numbers) => Some(Snapshot::of_parts(Parts { tensors: own, numbers }, training).map_err(bad)?),
                None if own.is_empty() => None,
                None => return Err(bad(format!("has tensors of callback {n}, which keeps none"))),
            };
            if let Some(weights) = &weights {
                training.fits(weights, false)?;
            }
            callbacks.push(CallbackState::new(unsealed(kept.value)).weights(weights));
        }
        for (name, w) in model.iter() {
            let value = Tensor::from_f32(&w.to_vec()?, w.shape(), training.device())?;
            tensors.insert(format!("weight.{name}"), value);
        }
        let snapshot = Snapshot::of_parts(Parts { tensors, numbers: record.numbers }, training).map_err(bad)?;
        training.fits(&snapshot, true)?;

        let mut history = History::default();
        for row in record.history {
            let mut logs = Logs::default();
            for (name, text) in row.logs {
                logs.set(&name, text.parse().map_err(|_| bad(format!("has `{text}` as a number of its history")))?);
            }
            history.push(row.epoch, logs);
        }
        Ok((snapshot, Self { epoch: record.epoch, stopped: record.stopped, history, callbacks }))
    }
}
