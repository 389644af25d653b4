//! Training: networks with losses, optimisers and metrics, data in host memory, and the callbacks that Rust has.
//!
//! The loop over epochs and batches is Python's (`recurve/_fit.py`), so that callbacks run between two calls of these
//! classes, where they may use the trainer for anything, and their exceptions never pass through Rust.

use crate::device::PyDevice;
use crate::error::{OrRaise, compute};
use crate::runner::{Loaded, Runner};
use numpy::{PyArray1, PyReadonlyArray1, PyReadonlyArrayDyn};
use pyo3::exceptions::{PyRuntimeError, PyStopIteration, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use recurve::Model;
use recurve::train::{
    Array, Average, Batches, Callback, Clip, CsvLogger, Dataset, EarlyStopping, Error, Evaluation, FitEpoch, FitState,
    History, HostBatch, Logs, Loss, LossScale, Metric, ModelCheckpoint, MonitorMode, Optimizer, OutputMetric, Position,
    ReduceLrOnPlateau, Schedule, StepOptions, TensorBoard, Trainer,
};
use serde::Deserialize;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, ThreadId};

pyo3::create_exception!(
    recurve,
    NotFinite,
    PyValueError,
    "The loss of a step is not finite. The text says where a number first was not; the weights are those before the step."
);

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("NotFinite", m.py().get_type::<NotFinite>())?;
    m.add_class::<PyDataset>()?;
    m.add_class::<BatchIterator>()?;
    m.add_class::<PyBatch>()?;
    m.add_class::<PyTrainer>()?;
    m.add_class::<EpochRun>()?;
    m.add_class::<EvaluationRun>()?;
    m.add_class::<NativeCallback>()?;
    m.add_function(wrap_pyfunction!(loss_named, m)?)?;
    m.add_function(wrap_pyfunction!(optimizer_named, m)?)?;
    m.add_function(wrap_pyfunction!(metric_named, m)?)?;
    m.add_function(wrap_pyfunction!(schedule_at, m)?)?;
    m.add_function(wrap_pyfunction!(plot_history, m)?)?;
    m.add_function(wrap_pyfunction!(save_history_plot, m)?)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// What `compile` was given

/// A value by its name, or itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Named<T> {
    Name(String),
    Of(T),
}

impl<T: FromStr<Err = Error>> Named<T> {
    fn get(self) -> Result<T, Error> {
        match self {
            Self::Name(name) => name.parse(),
            Self::Of(value) => Ok(value),
        }
    }
}

/// A metric of an output, under a name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetricSpec {
    name: String,
    output: usize,
    metric: Named<Metric>,
    weighted: bool,
}

/// What `compile` was given, as JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    optimizer: Named<Optimizer>,
    schedule: Option<Schedule>,
    clip: Option<Clip>,
    accumulate: usize,
    average: Option<Average>,
    mixed_precision: Option<LossScale>,
    losses: Vec<Named<Loss>>,
    loss_weights: Vec<f32>,
    metrics: Vec<MetricSpec>,
    checkpoints: bool,
    seed: u64,
    frozen: Vec<String>,
}

impl Spec {
    /// The options for a network whose outputs' last axes have these sizes.
    fn options(self, widths: &[Option<usize>]) -> Result<StepOptions, Error> {
        let losses = self.losses.into_iter().map(Named::get).collect::<Result<Vec<Loss>, _>>()?;
        let first = losses.first().cloned().unwrap_or_else(Loss::mean_squared_error);
        let mut options = StepOptions::new(first, self.optimizer.get()?)
            .losses(losses)
            .loss_weights(self.loss_weights)
            .accumulate(self.accumulate)
            .checkpoints(self.checkpoints)
            .seed(self.seed)
            .frozen(self.frozen);
        for m in self.metrics {
            let (loss, width) = (options.losses.get(m.output), widths.get(m.output).copied().flatten());
            let metric = match (m.metric, loss) {
                (Named::Name(name), Some(loss)) => OutputMetric::by_name(&name, loss, width)?.metric,
                (named, _) => named.get()?,
            };
            let metric = OutputMetric::new(metric).name(m.name).output(m.output);
            options = options.metric(if m.weighted { metric.weighted() } else { metric });
        }
        (options.schedule, options.clip, options.average) = (self.schedule, self.clip, self.average);
        options.mixed_precision = self.mixed_precision;
        Ok(options)
    }
}

/// Reads JSON that this package's own Python has written.
fn parsed<'a, T: Deserialize<'a>>(what: &str, json: &'a str) -> PyResult<T> {
    serde_json::from_str(json).map_err(|e| PyValueError::new_err(format!("{what}: {e}")))
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("options have a form in JSON")
}

/// The options of a loss of this name, as JSON.
#[pyfunction]
fn loss_named(name: &str) -> PyResult<String> {
    Ok(json(&name.parse::<Loss>().or_raise()?))
}

/// The options of an optimiser of this name, as JSON.
#[pyfunction]
fn optimizer_named(name: &str) -> PyResult<String> {
    Ok(json(&name.parse::<Optimizer>().or_raise()?))
}

/// The options of a metric of this name, as JSON. Which accuracy ``"accuracy"`` is depends on more than its name.
#[pyfunction]
fn metric_named(name: &str) -> PyResult<String> {
    let metric = OutputMetric::by_name(name, &Loss::mean_squared_error(), None).or_raise()?;
    Ok(json(&metric.metric))
}

/// The learning rate of a schedule, given as JSON, at a step.
#[pyfunction]
fn schedule_at(schedule: &str, step: u64) -> PyResult<f64> {
    let schedule: Schedule = parsed("schedule", schedule)?;
    schedule.check().or_raise()?;
    Ok(schedule.at(step))
}

// Data

/// An array of f32 or u32 in C order, copied.
fn array(value: &Bound<'_, PyAny>) -> PyResult<Array> {
    let shape: Vec<usize> = value.getattr("shape")?.extract()?;
    if let Ok(floats) = value.extract::<PyReadonlyArrayDyn<'_, f32>>() {
        return Array::f32(floats.as_slice()?.to_vec(), &shape).or_raise();
    }
    let ids = value.extract::<PyReadonlyArrayDyn<'_, u32>>();
    let ids = ids.map_err(|_| PyTypeError::new_err("data must be float32 or uint32 by now"))?;
    Array::u32(ids.as_slice()?.to_vec(), &shape).or_raise()
}

fn arrays(values: &[Bound<'_, PyAny>]) -> PyResult<Vec<Array>> {
    values.iter().map(array).collect()
}

/// Samples in host memory, a copy of the arrays that they are made of.
#[pyclass(name = "Dataset", module = "recurve._recurve", frozen)]
struct PyDataset {
    data: Dataset,
}

#[pymethods]
impl PyDataset {
    #[new]
    #[pyo3(signature = (inputs, targets, sample_weight = None))]
    fn new(
        inputs: Vec<Bound<'_, PyAny>>,
        targets: Vec<Bound<'_, PyAny>>,
        sample_weight: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let columns = |values: &[Bound<'_, PyAny>]| -> PyResult<Vec<_>> {
            Ok(arrays(values)?.into_iter().map(Into::into).collect())
        };
        let mut data = Dataset::of(columns(&inputs)?, columns(&targets)?).or_raise()?;
        if let Some(weights) = sample_weight {
            data = data.sample_weights(array(&weights)?).or_raise()?;
        }
        Ok(Self { data })
    }

    fn __len__(&self) -> usize {
        self.data.len()
    }

    /// The batches of an epoch, in an order that the seed and the number of the epoch make, or in their own.
    fn epoch(&self, batch_size: usize, seed: Option<u64>, epoch: usize) -> PyResult<BatchIterator> {
        let mut batches: Batches = self.data.batches(batch_size).or_raise()?;
        if let Some(seed) = seed {
            batches = batches.shuffle(seed);
        }
        Ok(BatchIterator { batches: Mutex::new(Box::new(batches.of_epoch(epoch))) })
    }
}

/// The batches of an epoch.
#[pyclass(module = "recurve._recurve", frozen)]
struct BatchIterator {
    batches: Mutex<Box<dyn Iterator<Item = Result<HostBatch, Error>> + Send>>,
}

#[pymethods]
impl BatchIterator {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<PyBatch> {
        match compute(py, || locked(&self.batches).next())? {
            Some(batch) => Ok(PyBatch { batch: batch.or_raise()? }),
            None => Err(PyStopIteration::new_err(())),
        }
    }
}

/// A batch in host memory, a copy of the arrays that it is made of.
#[pyclass(name = "Batch", module = "recurve._recurve", frozen)]
struct PyBatch {
    batch: HostBatch,
}

#[pymethods]
impl PyBatch {
    #[new]
    #[pyo3(signature = (inputs, targets, sample_weight = None))]
    fn new(
        inputs: Vec<Bound<'_, PyAny>>,
        targets: Vec<Bound<'_, PyAny>>,
        sample_weight: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let mut batch = HostBatch::new(arrays(&inputs)?, arrays(&targets)?);
        batch.sample_weights = sample_weight.as_ref().map(array).transpose()?;
        Ok(Self { batch })
    }

    fn __len__(&self) -> usize {
        self.batch.len()
    }
}

// Training

/// The numbers of an epoch by name.
type Row = Vec<(String, f64)>;
/// A history: the numbers of the epochs, and what was measured in each.
type Curves = (Vec<usize>, Vec<Row>);
/// A weight in a flat array: name, shape, first element, the one behind the last, whether it is a gradient.
type Part<'py> = (String, Bound<'py, PyTuple>, usize, usize, bool);

/// An epoch of training whose batches come one by one.
#[pyclass(module = "recurve._recurve", frozen)]
struct EpochRun {
    /// `None` once it has ended.
    epoch: Mutex<Option<FitEpoch>>,
}

/// An evaluation whose batches come one by one.
#[pyclass(module = "recurve._recurve", frozen)]
struct EvaluationRun {
    /// `None` once it has ended.
    evaluation: Mutex<Option<Evaluation>>,
}

fn ended() -> PyErr {
    PyRuntimeError::new_err("this epoch or evaluation has ended")
}

/// Numbers by name as a dictionary.
fn dictionary<'py>(py: Python<'py>, logs: &Logs) -> PyResult<Bound<'py, PyDict>> {
    let all = PyDict::new(py);
    logs.iter().try_for_each(|(name, value)| all.set_item(name, value))?;
    Ok(all)
}

#[pymethods]
impl EpochRun {
    /// Loss and metrics of the steps so far, without those that a GPU has not finished.
    fn logs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        dictionary(py, locked(&self.epoch).as_mut().ok_or_else(ended)?.logs())
    }
}

#[pymethods]
impl EvaluationRun {
    /// Loss and metrics of the batches so far.
    fn logs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        dictionary(py, &locked(&self.evaluation).as_ref().ok_or_else(ended)?.logs())
    }

    /// Loss and metrics of all batches, of which there must have been one.
    fn end<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        dictionary(py, &locked(&self.evaluation).take().ok_or_else(ended)?.end().or_raise()?)
    }
}

/// A network in training.
///
/// One thread at a time uses it. A call while another thread's runs is a `RuntimeError`, and so is any call of another
/// thread between `claim` and `release`.
#[pyclass(name = "Trainer", module = "recurve._recurve", frozen)]
struct PyTrainer {
    trainer: Mutex<Trainer>,
    /// The thread that has claimed it.
    owner: Mutex<Option<ThreadId>>,
    /// The model whose network is trained, for its name.
    name: String,
    /// The text that the device was asked for with.
    selector: String,
}

impl PyTrainer {
    /// Runs `f` on the trainer, without holding the interpreter.
    fn with<T: Send>(&self, py: Python<'_>, f: impl FnOnce(&mut Trainer) -> Result<T, Error> + Send) -> PyResult<T> {
        let busy =
            || PyRuntimeError::new_err("another thread is training or evaluating this model; wait until it is done");
        if locked(&self.owner).is_some_and(|owner| owner != thread::current().id()) {
            return Err(busy());
        }
        let done = compute(py, || match self.trainer.try_lock() {
            Ok(mut trainer) => Some(f(&mut trainer)),
            // After a panic the weights are those of the last step that was complete.
            Err(TryLockError::Poisoned(e)) => Some(f(&mut e.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        })?;
        match done.ok_or_else(busy)? {
            Err(e @ Error::NotFinite { .. }) => Err(NotFinite::new_err(e.to_string())),
            done => done.or_raise(),
        }
    }
}

#[pymethods]
impl PyTrainer {
    /// A trainer of a runner's network, with its present weights; `spec` is JSON.
    #[new]
    fn new(py: Python<'_>, runner: &Runner, spec: &str) -> PyResult<Self> {
        let spec: Spec = parsed("compile", spec)?;
        let model = runner.network()?;
        let widths: Vec<_> = model.network().output_shapes().iter().map(|s| s.last().copied().flatten()).collect();
        let trainer = compute(py, || Trainer::compile(model.network(), spec.options(&widths)?))?.or_raise()?;
        Ok(Self {
            trainer: Mutex::new(trainer),
            owner: Mutex::new(None),
            name: model.info().name.clone(),
            selector: runner.selector.clone(),
        })
    }

    /// Keeps other threads out until `release`; says whether this thread had claimed it before.
    fn claim(&self) -> PyResult<bool> {
        let mut owner = locked(&self.owner);
        let own = thread::current().id();
        match *owner {
            Some(other) if other != own => Err(PyRuntimeError::new_err(
                "another thread is training or evaluating this model; wait until it is done",
            )),
            Some(_) => Ok(true),
            None => {
                *owner = Some(own);
                Ok(false)
            }
        }
    }

    /// Lets other threads in again.
    fn release(&self) {
        *locked(&self.owner) = None;
    }

    /// Whether another thread has claimed it.
    fn is_elsewhere(&self) -> bool {
        locked(&self.owner).is_some_and(|owner| owner != thread::current().id())
    }

    /// Begins an epoch.
    fn begin_epoch(&self, py: Python<'_>) -> PyResult<EpochRun> {
        let epoch = self.with(py, |t| t.begin_epoch())?;
        Ok(EpochRun { epoch: Mutex::new(Some(epoch)) })
    }

    /// Takes a step.
    fn train_batch(&self, py: Python<'_>, epoch: &EpochRun, batch: &PyBatch) -> PyResult<()> {
        let mut epoch = locked(&epoch.epoch);
        let epoch = epoch.as_mut().ok_or_else(ended)?;
        self.with(py, |t| t.train_batch(epoch, batch.batch.clone()))
    }

    /// Ends an epoch.
    fn end_epoch<'py>(&self, py: Python<'py>, epoch: &EpochRun) -> PyResult<Bound<'py, PyDict>> {
        let epoch = locked(&epoch.epoch).take().ok_or_else(ended)?;
        dictionary(py, &self.with(py, |t| t.end_epoch(epoch))?)
    }

    /// Begins an evaluation.
    fn begin_evaluation(&self, py: Python<'_>) -> PyResult<EvaluationRun> {
        let evaluation = self.with(py, Trainer::begin_evaluation)?;
        Ok(EvaluationRun { evaluation: Mutex::new(Some(evaluation)) })
    }

    /// Adds a batch to an evaluation.
    fn evaluate_batch(&self, py: Python<'_>, evaluation: &EvaluationRun, batch: &PyBatch) -> PyResult<()> {
        let mut evaluation = locked(&evaluation.evaluation);
        let evaluation = evaluation.as_mut().ok_or_else(ended)?;
        self.with(py, |t| t.evaluate_batch(evaluation, &batch.batch))
    }

    /// The learning rate of the next step.
    #[getter]
    fn learning_rate(&self, py: Python<'_>) -> PyResult<f64> {
        self.with(py, |t| Ok(t.training().learning_rate()))
    }

    #[setter]
    fn set_learning_rate(&self, py: Python<'_>, rate: f64) -> PyResult<()> {
        self.with(py, |t| t.training_mut().set_learning_rate(rate))
    }

    /// How many steps there have been.
    #[getter]
    fn steps(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |t| Ok(t.training().steps()))
    }

    /// The device.
    #[getter]
    fn device(&self, py: Python<'_>) -> PyResult<PyDevice> {
        let device = self.with(py, |t| Ok(t.training().device().clone()))?;
        Ok(PyDevice { device, selector: self.selector.clone() })
    }

    /// A runner with the present weights.
    fn runner(&self, py: Python<'_>) -> PyResult<Runner> {
        let network = self.with(py, |t| t.network())?;
        Ok(Runner::new(Loaded::network(Model::new(&self.name, network)), self.selector.clone()))
    }

    /// Takes over the weights of a runner of an equal network.
    fn take_weights(&self, py: Python<'_>, runner: &Runner) -> PyResult<()> {
        let model = runner.network()?;
        self.with(py, |t| t.training_mut().set_weights(model.network().weights()))
    }

    /// Whether a runner has the network that is trained.
    fn is_of(&self, py: Python<'_>, runner: &Runner) -> PyResult<bool> {
        let model = runner.network()?;
        self.with(py, |t| Ok(*t.training().config() == *model.network().config()))
    }

    /// Goes on from a file of `save_fit`; returns the epoch to go on with.
    fn load_state(&self, py: Python<'_>, path: PathBuf) -> PyResult<usize> {
        self.with(py, |t| t.load_state(&path))
    }

    /// Replaces the weights by their moving averages, if there are some.
    fn use_averages(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |t| {
            t.training_mut().use_averages();
            Ok(())
        })
    }

    /// Forgets the states that stateful layers keep.
    fn reset_states(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |t| {
            t.training_mut().reset_states();
            Ok(())
        })
    }

    /// The names of the numbers of an epoch, in order.
    fn metric_names(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.with(py, |t| {
            let logs = t.begin_epoch()?.logs().clone();
            Ok(logs.iter().map(|(name, _)| name.to_owned()).collect())
        })
    }

    /// Writes a file from which the training can go on: with which epoch, whether a callback has ended it, and the
    /// history, are its `progress`.
    fn save_fit(
        &self,
        py: Python<'_>,
        path: PathBuf,
        progress: (usize, bool, Curves),
        callbacks: Vec<Bound<'_, NativeCallback>>,
    ) -> PyResult<()> {
        let mut state = FitState::default();
        (state.epoch, state.stopped) = (progress.0, progress.1);
        state.history = history_of(progress.2);
        let kept = callbacks.iter().map(|c| locked(&c.get().callback).as_callback().state());
        state.callbacks = kept.filter(|s| !s.is_empty()).collect();
        self.with(py, |t| t.save_fit(&path, state))
    }

    /// Goes on from such a file: with its weights, states and learning rate. Returns the epoch to go on with, whether a
    /// callback had ended the training, and the history.
    fn load_fit(
        &self,
        py: Python<'_>,
        path: PathBuf,
        callbacks: Vec<Bound<'_, NativeCallback>>,
    ) -> PyResult<(usize, bool, Curves)> {
        let keeping: Vec<_> =
            callbacks.iter().filter(|c| !locked(&c.get().callback).as_callback().state().is_empty()).collect();
        let count = keeping.len();
        let state = self.with(py, |t| {
            let before = t.training().snapshot();
            let state = t.load_fit(&path)?;
            if state.callbacks.len() != count {
                t.training_mut().restore(&before)?;
                let saved = state.callbacks.len();
                return Err(Error::Checkpoint {
                    path: path.clone(),
                    message: format!(
                        "has what {saved} callbacks kept, but of the callbacks of this training {count} keep something"
                    ),
                });
            }
            Ok(state)
        })?;
        for (callback, kept) in keeping.iter().zip(state.callbacks) {
            locked(&callback.get().callback).as_callback().restore(kept).or_raise()?;
        }
        let rows = state.history.logs.iter().map(|l| l.iter().map(|(n, v)| (n.to_owned(), v)).collect()).collect();
        Ok((state.epoch, state.stopped, (state.history.epochs, rows)))
    }

    /// Of the flat array: name, shape, first and last element, and whether it is a gradient.
    fn flat_layout<'py>(&self, py: Python<'py>) -> PyResult<Vec<Part<'py>>> {
        let layout = self.with(py, |t| Ok(t.training().flat_layout()))?;
        let parts = layout.into_iter();
        parts.map(|p| Ok((p.name, PyTuple::new(py, p.shape)?, p.range.start, p.range.end, p.trained))).collect()
    }

    /// The loss of a part of a batch, and its flat gradients.
    fn flat_gradients<'py>(
        &self,
        py: Python<'py>,
        batch: &PyBatch,
        weight: f32,
    ) -> PyResult<(f32, Bound<'py, PyArray1<f32>>)> {
        let (loss, flat) = self.with(py, |t| t.flat_gradients(&batch.batch, weight))?;
        Ok((loss, PyArray1::from_vec(py, flat)))
    }

    /// A part without samples: zeros.
    fn flat_zeros<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<f32>>> {
        let len = self.with(py, |t| Ok(t.training().flat_len()))?;
        Ok(PyArray1::from_vec(py, vec![0.0; len]))
    }

    /// Takes a step by the sum of the arrays of `flat_gradients` and returns the mean loss.
    fn apply_flat(&self, py: Python<'_>, sum: PyReadonlyArray1<'_, f32>) -> PyResult<f32> {
        let sum = sum.as_slice()?.to_vec();
        self.with(py, |t| t.training_mut().apply_flat(&sum))
    }

    /// All weights as one array.
    fn flat_weights<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<f32>>> {
        Ok(PyArray1::from_vec(py, self.with(py, |t| t.training().flat_weights())?))
    }

    /// Takes over the weights of `flat_weights`.
    fn set_flat_weights(&self, py: Python<'_>, weights: PyReadonlyArray1<'_, f32>) -> PyResult<()> {
        let weights = weights.as_slice()?.to_vec();
        self.with(py, |t| t.training_mut().set_flat_weights(&weights))
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err("a training cannot be pickled; pickle the model, or write a checkpoint"))
    }
}

// Callbacks

/// A callback of Rust's and its options, as JSON.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum NativeSpec {
    EarlyStopping {
        monitor: String,
        mode: String,
        min_delta: f64,
        patience: usize,
        baseline: Option<f64>,
        restore_best_weights: bool,
        start_from_epoch: usize,
    },
    ReduceLrOnPlateau {
        monitor: String,
        mode: String,
        factor: f64,
        patience: u32,
        min_delta: f64,
        cooldown: u32,
        min_lr: f64,
    },
    ModelCheckpoint {
        path: String,
        monitor: String,
        mode: String,
        save_best_only: bool,
        every_batches: Option<usize>,
        threshold: Option<f64>,
    },
    CsvLogger {
        path: PathBuf,
        separator: char,
        append: bool,
    },
    TensorBoard {
        folder: PathBuf,
        every_batches: Option<u64>,
    },
}

enum Native {
    EarlyStopping(Box<EarlyStopping>),
    Plateau(Box<ReduceLrOnPlateau>),
    Checkpoint(Box<ModelCheckpoint>),
    Csv(Box<CsvLogger>),
    Board(Box<TensorBoard>),
}

impl Native {
    fn as_callback(&mut self) -> &mut dyn Callback {
        match self {
            Self::EarlyStopping(c) => &mut **c,
            Self::Plateau(c) => &mut **c,
            Self::Checkpoint(c) => &mut **c,
            Self::Csv(c) => &mut **c,
            Self::Board(c) => &mut **c,
        }
    }
}

fn mode(name: &str) -> PyResult<MonitorMode> {
    match name {
        "auto" => Ok(MonitorMode::Auto),
        "min" => Ok(MonitorMode::Min),
        "max" => Ok(MonitorMode::Max),
        _ => Err(PyValueError::new_err(format!("`mode` must be \"auto\", \"min\" or \"max\", but it is {name:?}"))),
    }
}

impl NativeSpec {
    fn make(self) -> PyResult<Native> {
        Ok(match self {
            Self::EarlyStopping {
                monitor,
                mode: m,
                min_delta,
                patience,
                baseline,
                restore_best_weights,
                start_from_epoch,
            } => {
                let mut c = EarlyStopping::new()
                    .monitor(monitor)
                    .mode(mode(&m)?)
                    .min_delta(min_delta)
                    .patience(patience)
                    .restore_best_weights(restore_best_weights)
                    .start_from_epoch(start_from_epoch);
                if let Some(baseline) = baseline {
                    c = c.baseline(baseline);
                }
                Native::EarlyStopping(Box::new(c))
            }
            Self::ReduceLrOnPlateau { monitor, mode: m, factor, patience, min_delta, cooldown, min_lr } => {
                let c = ReduceLrOnPlateau::new()
                    .monitor(monitor)
                    .mode(mode(&m)?)
                    .factor(factor)
                    .patience(patience)
                    .min_delta(min_delta)
                    .cooldown(cooldown)
                    .min_lr(min_lr);
                Native::Plateau(Box::new(c))
            }
            Self::ModelCheckpoint { path, monitor, mode: m, save_best_only, every_batches, threshold } => {
                let mut c = ModelCheckpoint::new(path).monitor(monitor).mode(mode(&m)?).save_best_only(save_best_only);
                if let Some(n) = every_batches {
                    c = c.every_batches(n);
                }
                if let Some(threshold) = threshold {
                    c = c.initial_value_threshold(threshold);
                }
                Native::Checkpoint(Box::new(c))
            }
            Self::CsvLogger { path, separator, append } => {
                Native::Csv(Box::new(CsvLogger::new(path).separator(separator).append(append)))
            }
            Self::TensorBoard { folder, every_batches } => {
                let mut c = TensorBoard::new(folder);
                if let Some(n) = every_batches {
                    c = c.every_batches(n);
                }
                Native::Board(Box::new(c))
            }
        })
    }
}

/// A callback of Rust's.
#[pyclass(module = "recurve._recurve", frozen)]
struct NativeCallback {
    callback: Mutex<Native>,
}

#[pymethods]
impl NativeCallback {
    /// The callback that JSON describes.
    #[new]
    fn new(spec: &str) -> PyResult<Self> {
        Ok(Self { callback: Mutex::new(parsed::<NativeSpec>("callback", spec)?.make()?) })
    }

    /// Tells it of an event at a place, `(epoch, epochs, batch, validates, resumed)`, with the numbers so far. Returns
    /// whether it ends the training, and the numbers as it leaves them.
    fn call<'py>(
        &self,
        py: Python<'py>,
        event: &str,
        trainer: &PyTrainer,
        place: (usize, usize, usize, bool, bool),
        logs: Vec<(String, f64)>,
    ) -> PyResult<(bool, Bound<'py, PyDict>)> {
        let mut at = Position::new(place.0, place.1);
        (at.batch, at.validates, at.resumed) = (place.2, place.3, place.4);
        let mut numbers = Logs::default();
        logs.iter().for_each(|(name, value)| numbers.set(name, *value));
        let (stop, numbers) = trainer.with(py, |t| {
            let mut callback = locked(&self.callback);
            let callback = callback.as_callback();
            t.take_stop();
            match event {
                "train_begin" => callback.train_begin(t, at)?,
                "epoch_begin" => callback.epoch_begin(t, at)?,
                "batch_end" => callback.batch_end(t, at, &numbers)?,
                "epoch_end" => callback.epoch_end(t, at, &mut numbers)?,
                "train_end" => callback.train_end(t, at)?,
                other => return Err(Error::callback(format!("there is no event {other}"))),
            }
            Ok((t.take_stop(), numbers))
        })?;
        Ok((stop, dictionary(py, &numbers)?))
    }

    /// The best value so far.
    #[getter]
    fn best(&self) -> Option<f64> {
        match &*locked(&self.callback) {
            Native::EarlyStopping(c) => c.best(),
            Native::Checkpoint(c) => c.best(),
            _ => None,
        }
    }

    /// The epoch with the best value.
    #[getter]
    fn best_epoch(&self) -> Option<usize> {
        if let Native::EarlyStopping(c) = &*locked(&self.callback) { c.best_epoch() } else { None }
    }

    /// The epoch after which it ended the training.
    #[getter]
    fn stopped_epoch(&self) -> Option<usize> {
        if let Native::EarlyStopping(c) = &*locked(&self.callback) { c.stopped_epoch() } else { None }
    }

    /// The file that was written last.
    #[getter]
    fn last_file(&self) -> Option<PathBuf> {
        if let Native::Checkpoint(c) = &*locked(&self.callback) { c.last_file().map(Into::into) } else { None }
    }
}

// Curves

fn history_of((epochs, logs): Curves) -> History {
    let mut history = History::default();
    history.epochs = epochs;
    history.logs = logs
        .into_iter()
        .map(|row| {
            let mut logs = Logs::default();
            row.iter().for_each(|(name, value)| logs.set(name, *value));
            logs
        })
        .collect();
    history
}

/// Curves of a history as SVG.
#[pyfunction]
fn plot_history(py: Python<'_>, epochs: Vec<usize>, logs: Vec<Row>) -> PyResult<String> {
    let history = history_of((epochs, logs));
    compute(py, || history.plot())?.or_raise()
}

/// Writes such curves to a file, .svg or .png.
#[pyfunction]
fn save_history_plot(py: Python<'_>, epochs: Vec<usize>, logs: Vec<Row>, path: PathBuf) -> PyResult<()> {
    let history = history_of((epochs, logs));
    compute(py, || history.save_plot(&path))?.or_raise()
}
