//! Training in Keras's words: `compile`, `fit`, `evaluate`, `predict`.

use crate::callbacks::{Callback, Position};
use crate::checkpoint::FitState;
use crate::data::{Dataset, HostBatch, Source, check_ids};
use crate::error::check;
use crate::evaluate::Evaluator;
use crate::{Array, Error, History, Logs, LossKind, Result, Snapshot, StepOptions, Training};
use recurve_layers::Network;
use std::path::{Path, PathBuf};

/// How [`Trainer::fit`] goes over the data, with Keras's defaults.
#[non_exhaustive]
pub struct FitOptions<'a> {
    /// The number of epochs.
    pub epochs: usize,
    /// The number of the first epoch, for a training that goes on.
    pub initial_epoch: usize,
    /// How many samples a step has.
    pub batch_size: usize,
    /// Whether the samples come in another order in every epoch, which depends on the seed of [`StepOptions`].
    pub shuffle: bool,
    /// Puts sequences of about one length together: see [`crate::Batches::by_length`].
    pub by_length: Option<usize>,
    /// Samples to validate with.
    pub validation_data: Option<Dataset>,
    /// The part of the samples at the end that are kept to validate with.
    pub validation_split: f64,
    /// After every so many epochs there is a validation.
    pub validation_frequency: usize,
    /// What is told of epochs and batches, in this order.
    pub callbacks: Vec<Box<dyn Callback + 'a>>,
    /// A file from which the training can go on, and after how many epochs it is written.
    pub checkpoint: Option<(PathBuf, usize)>,
    /// Such a file, from which this training goes on.
    pub resume: Option<PathBuf>,
}

impl Default for FitOptions<'_> {
    fn default() -> Self {
        Self {
            epochs: 1,
            initial_epoch: 0,
            batch_size: 32,
            shuffle: true,
            by_length: None,
            validation_data: None,
            validation_split: 0.0,
            validation_frequency: 1,
            callbacks: Vec::new(),
            checkpoint: None,
            resume: None,
        }
    }
}

impl<'a> FitOptions<'a> {
    /// One epoch of batches of 32 in random order.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with so many epochs.
    #[must_use]
    pub fn epochs(self, epochs: usize) -> Self {
        Self { epochs, ..self }
    }

    /// The same from another epoch on.
    #[must_use]
    pub fn initial_epoch(self, initial_epoch: usize) -> Self {
        Self { initial_epoch, ..self }
    }

    /// The same with batches of so many samples.
    #[must_use]
    pub fn batch_size(self, batch_size: usize) -> Self {
        Self { batch_size, ..self }
    }

    /// The same with the samples in their own order, or not.
    #[must_use]
    pub fn shuffle(self, shuffle: bool) -> Self {
        Self { shuffle, ..self }
    }

    /// The same with sequences of about one length together.
    #[must_use]
    pub fn by_length(self, window: usize) -> Self {
        Self { by_length: Some(window), ..self }
    }

    /// The same with samples to validate with.
    #[must_use]
    pub fn validation_data(self, data: Dataset) -> Self {
        Self { validation_data: Some(data), ..self }
    }

    /// The same with a part of the samples kept to validate with.
    #[must_use]
    pub fn validation_split(self, part: f64) -> Self {
        Self { validation_split: part, ..self }
    }

    /// The same with a validation after every so many epochs.
    #[must_use]
    pub fn validation_frequency(self, epochs: usize) -> Self {
        Self { validation_frequency: epochs, ..self }
    }

    /// The same with one more callback. One that is to be read afterwards is given as a `&mut`.
    #[must_use]
    pub fn callback(mut self, callback: impl Callback + 'a) -> Self {
        self.callbacks.push(Box::new(callback));
        self
    }

    /// The same with a file that is written after every so many epochs, and after the last one, once the callbacks have
    /// seen the epoch: a model file ([`Model::open`](recurve_formats::Model::open)) that also has what [`Self::resume`]
    /// needs. It is replaced only when the new one is complete. An epoch that was ended amid its batches writes none.
    #[must_use]
    pub fn checkpoint(self, path: impl Into<PathBuf>, every_epochs: usize) -> Self {
        Self { checkpoint: Some((path.into(), every_epochs)), ..self }
    }

    /// The same, going on from such a file: with its weights, states of the optimiser, callbacks' states, history and
    /// epoch, which takes the place of [`Self::initial_epoch`]. With the same data, options and callbacks the training
    /// gives the same bits as one that never ended. If a callback had stopped it after an epoch, no other epoch runs.
    #[must_use]
    pub fn resume(self, path: impl Into<PathBuf>) -> Self {
        Self { resume: Some(path.into()), ..self }
    }
}

/// A network that is trained in Keras's words. [`Self::training`] has the calls in PyTorch's.
///
/// ```
/// use recurve_layers::{Dense, Embedding, Lstm, Sequential};
/// use recurve_tensor::{Activation, Device};
/// use recurve_train::{Adam, Array, Dataset, FitOptions, Loss, OutputMetric, Padding, Sequences, StepOptions, Trainer};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = Sequential::new()
///     .add(Embedding::new(10, 4).mask_zero(true))
///     .add(Lstm::new(8))
///     .add(Dense::new(1).activation(Activation::Sigmoid))
///     .build(&[None, None], &Device::Cpu)?;
/// // Is there a 7 in the sequence?
/// let words = [vec![1, 7, 3], vec![2, 4], vec![7], vec![5, 6, 1, 2]];
/// let words = Sequences::of_ids(words, Padding::new())?;
/// let data = Dataset::new(words, Array::f32(vec![1.0, 0.0, 1.0, 0.0], &[4, 1])?)?;
///
/// let loss = Loss::binary_crossentropy();
/// let accuracy = OutputMetric::accuracy(&loss)?;
/// let options = StepOptions::new(loss, Adam::keras().learning_rate(0.05)).metric(accuracy);
/// let mut trainer = Trainer::compile(&network, options)?;
/// let history = trainer.fit(&data, FitOptions::new().epochs(30).batch_size(2))?;
/// assert!(history.get("loss")[29] < history.get("loss")[0]);
/// assert_eq!(trainer.evaluate(&data, 4)?.get("accuracy"), Some(1.0));
/// let probabilities = &trainer.predict(&data, 4)?[0];
/// assert_eq!(probabilities.shape(), [4, 1]);
/// let trained = trainer.network()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Trainer {
    training: Training,
    evaluator: Option<Evaluator>,
    /// The revision of the training whose weights the evaluator has.
    evaluated: u64,
    stop: bool,
    /// The number of the epoch with which training would go on.
    epoch: usize,
}

const FIT: &str = "fit";

impl Trainer {
    /// A network with a loss, an optimiser and metrics.
    ///
    /// # Errors
    /// As [`Training::new`].
    pub fn compile(network: &Network, options: StepOptions) -> Result<Self> {
        let training = Training::new(network, options)?;
        Ok(Self { training, evaluator: None, evaluated: 0, stop: false, epoch: 0 })
    }

    /// The training itself, with the calls of a loop of one's own.
    pub fn training(&self) -> &Training {
        &self.training
    }

    /// The training, to step, or to set the learning rate or the weights.
    pub fn training_mut(&mut self) -> &mut Training {
        &mut self.training
    }

    /// The network with its present weights, for inference and for saving.
    ///
    /// # Errors
    /// Errors of reading the device.
    pub fn network(&self) -> Result<Network> {
        self.training.network()
    }

    /// Ends [`Self::fit`] after the present batch.
    pub fn stop_training(&mut self) {
        self.stop = true;
    }

    /// Whether [`Self::stop_training`] was called since `fit` began or this was last asked, for a loop of one's own.
    pub fn take_stop(&mut self) -> bool {
        std::mem::take(&mut self.stop)
    }

    /// Writes a model file that also has the states of the optimiser, the number of steps and the learning rate:
    /// [`Self::load_state`] takes them over, and [`Model::open`](recurve_formats::Model::open) opens the model.
    ///
    /// # Errors
    /// [`Error::Model`] if the file cannot be written; errors of reading the device.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        FitState { epoch: self.epoch, ..FitState::default() }.write(path.as_ref(), &self.training)
    }

    /// [`Self::save`] with all that a loop of one's own needs to go on: what [`FitOptions::checkpoint`] writes.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub fn save_fit(&self, path: impl AsRef<Path>, state: FitState) -> Result<()> {
        state.write(path.as_ref(), &self.training)
    }

    /// Takes over weights, states of the optimiser, the number of steps and the learning rate from a file of
    /// [`Self::save`] or [`FitOptions::checkpoint`], and returns the epoch to go on with, for
    /// [`FitOptions::initial_epoch`]. After an error nothing has changed.
    ///
    /// # Errors
    /// [`Error::Model`] for a file that is no model or is damaged; [`Error::Checkpoint`] for a model without a training,
    /// or that of another network, optimiser, schedule, limit of gradients or seed.
    pub fn load_state(&mut self, path: impl AsRef<Path>) -> Result<usize> {
        Ok(self.load_fit(path)?.epoch)
    }

    /// [`Self::load_state`], with all that the file has. What the callbacks kept is theirs to take over
    /// ([`Callback::restore`]).
    ///
    /// # Errors
    /// As [`Self::load_state`].
    pub fn load_fit(&mut self, path: impl AsRef<Path>) -> Result<FitState> {
        let (snapshot, saved) = FitState::read(path.as_ref(), &self.training)?;
        self.training.restore(&snapshot)?;
        self.epoch = saved.epoch;
        Ok(saved)
    }

    /// Trains with samples in host memory and returns what was measured in each epoch.
    ///
    /// # Errors
    /// [`Error::Option`], [`Error::Operand`] and [`Error::Label`] for data or options that do not fit, before anything is
    /// trained; [`Error::Model`] and [`Error::Checkpoint`] for a file from which the training cannot go on, likewise;
    /// [`Error::NotFinite`] if the loss is not finite, with the weights as they were before that step, and in mixed
    /// precision if no loss scale gives finite gradients; errors of callbacks and of the device.
    pub fn fit(&mut self, data: &Dataset, mut options: FitOptions<'_>) -> Result<History> {
        let (data, validation) = match (options.validation_data.take(), options.validation_split) {
            (Some(validation), split) => {
                check(FIT, "validation_split", split == 0.0, || "cannot be given together with data".into())?;
                (data.clone(), Some(validation))
            }
            (None, 0.0) => (data.clone(), None),
            (None, split) => {
                let (first, last) = data.split(split)?;
                (first, Some(last))
            }
        };
        options.validation_split = 0.0;
        check(FIT, "batch_size", options.batch_size <= data.len(), || {
            format!("must be at most {}, the number of samples, but it is {}", data.len(), options.batch_size)
        })?;
        self.check_data(&data)?;
        validation.iter().try_for_each(|v| self.check_data(v))?;
        let mut batches = data.batches(options.batch_size)?;
        if options.shuffle {
            batches = batches.shuffle(self.training.options().seed);
        }
        if let Some(window) = options.by_length {
            batches = batches.by_length(window);
        }
        let mut validation = validation.map(|v| v.batches(options.batch_size)).transpose()?;
        self.fit_batches(&mut batches, validation.as_mut().map(|v| v as &mut dyn Source), options)
    }

    /// [`Self::fit`] with batches from anywhere. Of the options those about samples do not count.
    ///
    /// # Errors
    /// As [`Self::fit`].
    pub fn fit_batches(
        &mut self,
        source: &mut dyn Source,
        mut validation: Option<&mut dyn Source>,
        options: FitOptions<'_>,
    ) -> Result<History> {
        let FitOptions { epochs, initial_epoch, validation_frequency, mut callbacks, checkpoint, .. } = options;
        check(FIT, "validation_frequency", validation_frequency > 0, || "must be at least 1, but it is 0".into())?;
        check(FIT, "validation_split", options.validation_split == 0.0, || "is of samples, not of batches".into())?;
        check(FIT, "validation_data", options.validation_data.is_none(), || "is of samples, not of batches".into())?;
        check(FIT, "checkpoint", checkpoint.as_ref().is_none_or(|(_, every)| *every > 0), || {
            "must be written after at least 1 epoch, but it is 0".into()
        })?;
        let saved = options.resume.as_deref().map(|p| FitState::read(p, &self.training)).transpose()?;
        let (first, resumed) = (saved.as_ref().map_or(initial_epoch, |(_, s)| s.epoch), saved.is_some());
        check(FIT, "initial_epoch", !resumed || initial_epoch == 0, || "is that of the checkpoint".into())?;
        check(FIT, "epochs", epochs > first || resumed && epochs == first, || {
            format!("must be more than the number of the first epoch, {first}, but it is {epochs}")
        })?;
        self.stop = false;
        let mut at = Position {
            epoch: first,
            epochs,
            batch: 0,
            batches: source.count(),
            validates: validation.is_some(),
            resumed,
        };
        let before = self.training.snapshot();
        let mut history = match self.begin(saved, &mut callbacks, at) {
            Ok(history) => history,
            Err(e) => {
                self.training.restore(&before)?;
                return Err(e);
            }
        };
        drop(before);
        self.epoch = first;
        for epoch in first..epochs {
            if self.stop {
                break;
            }
            at = Position { epoch, batch: 0, batches: source.count(), ..at };
            callbacks.iter_mut().try_for_each(|c| c.epoch_begin(self, at))?;
            let mut logs = self.epoch(source, at, &mut callbacks)?;
            let cut = self.stop;
            if let Some(validation) = validation.as_deref_mut()
                && (epoch + 1).is_multiple_of(validation_frequency)
            {
                for (name, value) in self.evaluate_batches(validation)?.iter() {
                    logs.set(&format!("val_{name}"), value);
                }
            }
            callbacks.iter_mut().try_for_each(|c| c.epoch_end(self, at, &mut logs))?;
            history.push(epoch, logs);
            self.epoch = epoch + 1;
            if let Some((path, every)) = &checkpoint
                && !cut
                && (self.stop || epoch + 1 == epochs || (epoch + 1).is_multiple_of(*every))
            {
                let callbacks = callbacks.iter().map(|c| c.state()).filter(|s| !s.is_empty()).collect();
                let stopped = self.stop;
                let saved = FitState { epoch: epoch + 1, stopped, history: history.clone(), callbacks };
                saved.write(path, &self.training)?;
            }
        }
        self.training.use_averages();
        callbacks.iter_mut().try_for_each(|c| c.train_end(self, at))?;
        Ok(history)
    }

    /// What comes before the first epoch, of a training that goes on with what was saved. Returns the history so far.
    fn begin(
        &mut self,
        saved: Option<(Snapshot, FitState)>,
        callbacks: &mut [Box<dyn Callback + '_>],
        at: Position,
    ) -> Result<History> {
        let Some((snapshot, saved)) = saved else {
            callbacks.iter_mut().try_for_each(|c| c.train_begin(self, at))?;
            return Ok(History::default());
        };
        let keeping = callbacks.iter().filter(|c| !c.state().is_empty()).count();
        check(FIT, "resume", saved.callbacks.len() == keeping, || {
            let saved = saved.callbacks.len();
            format!("has what {saved} callbacks kept, but of the callbacks of this training {keeping} keep something")
        })?;
        self.training.restore(&snapshot)?;
        callbacks.iter_mut().try_for_each(|c| c.train_begin(self, at))?;
        let keeping = callbacks.iter_mut().filter(|c| !c.state().is_empty());
        keeping.zip(saved.callbacks).try_for_each(|(c, state)| c.restore(state))?;
        self.stop |= saved.stopped;
        Ok(saved.history)
    }

    /// Trains for one epoch.
    fn epoch(
        &mut self,
        source: &mut dyn Source,
        mut at: Position,
        callbacks: &mut [Box<dyn Callback + '_>],
    ) -> Result<Logs> {
        let mut epoch = self.begin_epoch()?;
        for (n, batch) in source.epoch(at.epoch)?.enumerate() {
            self.train_batch(&mut epoch, batch?)?;
            at.batch = n;
            if !callbacks.is_empty() {
                let logs = epoch.logs();
                callbacks.iter_mut().try_for_each(|c| c.batch_end(self, at, logs))?;
            }
            if self.stop {
                break;
            }
        }
        self.end_epoch(epoch)
    }

    /// The loss and the metrics of samples, without dropout and the like.
    ///
    /// # Errors
    /// As [`Self::fit`].
    pub fn evaluate(&mut self, data: &Dataset, batch_size: usize) -> Result<Logs> {
        self.check_data(data)?;
        self.evaluate_batches(&mut data.batches(batch_size)?)
    }

    /// [`Self::evaluate`] with batches from anywhere: those of epoch 0. Stateful layers begin with zeros.
    ///
    /// # Errors
    /// As [`Self::fit`].
    pub fn evaluate_batches(&mut self, source: &mut dyn Source) -> Result<Logs> {
        let mut evaluation = self.begin_evaluation()?;
        for batch in source.epoch(0)? {
            self.evaluate_batch(&mut evaluation, &batch?)?;
        }
        evaluation.end()
    }

    /// The outputs for samples, whose targets are not read. The samples follow each other as in the data.
    ///
    /// # Errors
    /// [`Error::Option`] if outputs of batches differ in their number of timesteps, because sequences were padded to
    /// different lengths; otherwise as [`Self::evaluate`].
    pub fn predict(&mut self, data: &Dataset, batch_size: usize) -> Result<Vec<Array>> {
        self.check_inputs(data)?;
        let device = self.training.device().clone();
        let evaluator = self.refresh()?;
        evaluator.reset();
        let mut outputs: Vec<Vec<Array>> = Vec::new();
        for batch in data.batches(batch_size)?.epoch(0)? {
            let mut batch = batch?;
            batch.targets.clear();
            let predictions = evaluator.predict(&batch.to_device(&device)?)?.outputs;
            outputs.resize_with(predictions.len(), Vec::new);
            for (all, one) in outputs.iter_mut().zip(&predictions) {
                all.push(Array::read(one)?);
            }
        }
        let joined = outputs.iter().map(|parts| Array::joined(parts)).collect::<Option<Vec<_>>>();
        joined.ok_or_else(|| Error::Option {
            of: "predict",
            argument: "data",
            message: "has batches of different lengths, whose outputs do not form one array: pad to one length".into(),
        })
    }

    /// The evaluator with the present weights.
    pub(crate) fn refresh(&mut self) -> Result<&mut Evaluator> {
        let revision = self.training.revision();
        match &mut self.evaluator {
            Some(e) if self.evaluated != revision => e.update(&self.training)?,
            Some(_) => {}
            none => *none = Some(Evaluator::new(&self.training)?),
        }
        self.evaluated = revision;
        Ok(self.evaluator.as_mut().expect("made above"))
    }

    fn check_inputs(&self, data: &Dataset) -> Result<()> {
        let (got, wanted) = (data.inputs(), self.training.config().inputs.len());
        check(FIT, "inputs", got == wanted, || format!("must be {wanted}, one for each of the network, not {got}"))
    }

    /// Checks samples before anything runs.
    fn check_data(&self, data: &Dataset) -> Result<()> {
        self.check_inputs(data)?;
        let (got, wanted) = (data.targets(), self.training.options().losses.len());
        check(FIT, "targets", got == wanted, || format!("must be {wanted}, one for each output, not {got}"))?;
        self.labelled().try_for_each(|(output, classes)| data.check_labels(output, classes))
    }

    /// The outputs whose targets are labels, with the number of classes of each, where it is known.
    fn labelled(&self) -> impl Iterator<Item = (usize, usize)> {
        let outputs = self.training.options().losses.iter().zip(self.training.output_shapes()).enumerate();
        outputs.filter_map(|(n, (loss, shape))| match loss.kind {
            LossKind::SparseCategoricalCrossentropy { .. } => Some((n, shape.last().copied().flatten()?)),
            _ => None,
        })
    }

    /// Checks a batch in host memory.
    pub(crate) fn check_batch(&self, batch: &HostBatch) -> Result<()> {
        check(FIT, "batch", !batch.is_empty(), || "must have at least one sample, but there are none".into())?;
        let same = batch.inputs.iter().chain(&batch.targets).all(|a| a.len() == batch.len());
        check(FIT, "batch", same, || "must have the same number of samples in all inputs and targets".into())?;
        self.labelled().try_for_each(|(output, classes)| {
            let labels = batch.targets.get(output).and_then(Array::as_u32).unwrap_or_default();
            check_ids(labels, 0, classes)
        })
    }
}
