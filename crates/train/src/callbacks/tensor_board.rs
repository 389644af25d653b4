//! The numbers of training as event files of TensorBoard.

use super::{Callback, CallbackState, Position, keep, kept};
use crate::error::{check, io};
use crate::{Logs, Result, Trainer};
use crc::{CRC_32_ISCSI, Crc};
use prost::Message;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes event files that TensorBoard draws: Keras's `TensorBoard`, with its folders and names. In `train` there are
/// `epoch_loss`, the other numbers of an epoch and `epoch_learning_rate` by epoch, in `validation` those of validation, and
/// the same as `evaluation_loss_vs_iterations` by the number of the step. They are scalars in the form `simple_value`,
/// which every version of TensorBoard reads. Graphs, histograms, images and embeddings are not written.
#[derive(Debug)]
pub struct TensorBoard {
    folder: PathBuf,
    every_batches: Option<u64>,
    batches: u64,
    files: [Option<Events>; 2],
}

const OF: &str = "tensor_board";
const RUNS: [&str; 2] = ["train", "validation"];

impl TensorBoard {
    /// Writes below this folder after every epoch.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), every_batches: None, batches: 0, files: [None, None] }
    }

    /// The same with the numbers of every so many batches too, as `batch_loss` by the number of the batch: Keras's
    /// `update_freq`.
    #[must_use]
    pub fn every_batches(self, batches: u64) -> Self {
        Self { every_batches: Some(batches), ..self }
    }

    /// Writes numbers for training (0) or validation (1), whose file is made when it is first needed.
    fn write(&mut self, run: usize, step: u64, scalars: Vec<(String, f64)>, resumed: bool) -> Result<()> {
        let folder = self.folder.join(RUNS[run]);
        if self.files[run].is_none() {
            self.files[run] = Some(Events::create(&folder, resumed.then_some(step)).map_err(io(&folder))?);
        }
        let file = self.files[run].as_mut().expect("made above");
        file.scalars(step, scalars).map_err(io(&folder))
    }
}

impl Callback for TensorBoard {
    fn train_begin(&mut self, _: &mut Trainer, _: Position) -> Result<()> {
        check(OF, "every_batches", self.every_batches != Some(0), || "must be at least 1, but it is 0".into())?;
        (self.batches, self.files) = (0, [None, None]);
        Ok(())
    }

    fn batch_end(&mut self, _: &mut Trainer, at: Position, logs: &Logs) -> Result<()> {
        self.batches += 1;
        if self.every_batches.is_none_or(|every| !self.batches.is_multiple_of(every)) {
            return Ok(());
        }
        let scalars = logs.iter().map(|(name, v)| (format!("batch_{name}"), v)).collect();
        self.write(0, self.batches, scalars, at.resumed)
    }

    fn epoch_end(&mut self, trainer: &mut Trainer, at: Position, logs: &mut Logs) -> Result<()> {
        let (mut train, mut validation, mut steps) = (Vec::new(), Vec::new(), Vec::new());
        for (name, value) in logs.iter() {
            match name.strip_prefix("val_") {
                None => train.push((format!("epoch_{name}"), value)),
                Some(name) => {
                    validation.push((format!("epoch_{name}"), value));
                    steps.push((format!("evaluation_{name}_vs_iterations"), value));
                }
            }
        }
        if logs.get("learning_rate").is_none() {
            train.push(("epoch_learning_rate".into(), trainer.training().learning_rate()));
        }
        let epoch = at.epoch as u64;
        self.write(0, epoch, train, at.resumed)?;
        if !validation.is_empty() {
            self.write(1, epoch, validation, at.resumed)?;
            self.write(1, trainer.training().steps(), steps, at.resumed)?;
        }
        Ok(())
    }

    fn train_end(&mut self, _: &mut Trainer, _: Position) -> Result<()> {
        self.files = [None, None];
        Ok(())
    }

    fn state(&self) -> CallbackState {
        keep(OF, self.batches)
    }

    fn restore(&mut self, state: CallbackState) -> Result<()> {
        self.batches = kept(OF, &state)?;
        Ok(())
    }
}

/// The messages of an event file: the parts of TensorFlow's `event.proto` and `summary.proto` that are written.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Scalar>,
}

#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// An event file.
#[derive(Debug)]
struct Events(BufWriter<File>);

impl Events {
    /// Creates one. Of a run that goes on from a step, what other files have from there on does not count.
    fn create(folder: &Path, from: Option<u64>) -> std::io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        std::fs::create_dir_all(folder)?;
        let seconds = now() as u64;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("events.out.tfevents.{seconds:010}.recurve.{}.{count}.v2", std::process::id());
        let mut events = Self(BufWriter::new(File::create(folder.join(name))?));
        events.write(&Event { file_version: Some("brain.Event:2".into()), ..Event::default() })?;
        if let Some(step) = from {
            const START: i32 = 1;
            let session_log = Some(SessionLog { status: START });
            events.write(&Event { step: step as i64, session_log, ..Event::default() })?;
        }
        Ok(events)
    }

    fn scalars(&mut self, step: u64, scalars: Vec<(String, f64)>) -> std::io::Result<()> {
        for (tag, v) in scalars {
            let value = vec![Scalar { tag, simple_value: Some(v as f32) }];
            self.write(&Event { step: step as i64, summary: Some(Summary { value }), ..Event::default() })?;
        }
        self.0.flush()
    }

    /// Writes a record of a TFRecord file: its length, its bytes, and a checksum of each.
    fn write(&mut self, event: &Event) -> std::io::Result<()> {
        let bytes = Event { wall_time: now(), ..event.clone() }.encode_to_vec();
        let length = (bytes.len() as u64).to_le_bytes();
        self.0.write_all(&length)?;
        self.0.write_all(&checksum(&length).to_le_bytes())?;
        self.0.write_all(&bytes)?;
        self.0.write_all(&checksum(&bytes).to_le_bytes())
    }
}

/// CRC-32C, rotated and with a constant added, as TFRecord files have it.
fn checksum(bytes: &[u8]) -> u32 {
    static SUM: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
    SUM.checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}
