//! The numbers of training as a table.

use super::{Callback, CallbackState, Position, keep, kept};
use crate::error::{check, io};
use crate::{Logs, Result, Trainer};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

/// Writes a row of a CSV file after every epoch: Keras's `CSVLogger`, with its defaults and its form. The columns are
/// `epoch` and the names of the first epoch's numbers, sorted; where there are none of validation among them, columns for
/// these follow. A number that is not there is `NA`.
///
/// A training that goes on from a checkpoint goes on with the file: rows behind the checkpoint are taken away.
#[derive(Debug)]
pub struct CsvLogger {
    path: PathBuf,
    separator: char,
    append: bool,
    file: Option<File>,
    written: Written,
}

/// What has been written so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    columns: Option<Vec<String>>,
    /// The length of the file.
    bytes: u64,
}

const OF: &str = "csv_logger";

impl CsvLogger {
    /// Writes to this file, in place of what it had.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), separator: ',', append: false, file: None, written: Written::default() }
    }

    /// The same with another character between columns.
    #[must_use]
    pub fn separator(self, separator: char) -> Self {
        Self { separator, ..self }
    }

    /// The same behind what the file has. A file with something in it gets no line of names.
    #[must_use]
    pub fn append(self, append: bool) -> Self {
        Self { append, ..self }
    }

    /// A field, in quotes where it needs them.
    fn field(&self, text: &str) -> String {
        if text.contains([self.separator, '"', '\r', '\n']) {
            format!("\"{}\"", text.replace('"', "\"\""))
        } else {
            text.to_owned()
        }
    }

    fn row(&self, fields: impl Iterator<Item = String>) -> String {
        let fields: Vec<String> = fields.map(|f| self.field(&f)).collect();
        fields.join(&self.separator.to_string()) + "\r\n"
    }
}

impl Callback for CsvLogger {
    fn train_begin(&mut self, _: &mut Trainer, at: Position) -> Result<()> {
        check(OF, "separator", !['"', '\r', '\n'].contains(&self.separator), || {
            format!("must be no quote and no end of a line, but it is {:?}", self.separator)
        })?;
        self.written = Written::default();
        let keeps = self.append || at.resumed;
        let mut open = OpenOptions::new();
        open.create(true).write(true).truncate(!keeps);
        let file = open.open(&self.path).map_err(io(&self.path))?;
        self.written.bytes = file.metadata().map_err(io(&self.path))?.len();
        self.file = Some(file);
        Ok(())
    }

    fn epoch_end(&mut self, _: &mut Trainer, at: Position, logs: &mut Logs) -> Result<()> {
        let mut text = String::new();
        if self.written.columns.is_none() {
            let mut columns: Vec<String> = logs.iter().map(|(name, _)| name.to_owned()).collect();
            columns.sort();
            if !columns.iter().any(|c| c.starts_with("val_")) {
                columns.extend(columns.clone().iter().map(|c| format!("val_{c}")));
            }
            if self.written.bytes == 0 {
                text = self.row(std::iter::once("epoch".to_owned()).chain(columns.iter().cloned()));
            }
            self.written.columns = Some(columns);
        }
        let columns = self.written.columns.iter().flatten();
        let numbers = columns.map(|name| logs.get(name).map_or("NA".to_owned(), |v| format!("{v:?}")));
        text += &self.row(std::iter::once(at.epoch.to_string()).chain(numbers));
        let file = self.file.as_mut().expect("opened at the beginning of training");
        write_at(file, self.written.bytes, text.as_bytes()).map_err(io(&self.path))?;
        self.written.bytes += text.len() as u64;
        Ok(())
    }

    fn train_end(&mut self, _: &mut Trainer, _: Position) -> Result<()> {
        self.file = None;
        Ok(())
    }

    fn state(&self) -> CallbackState {
        keep(OF, &self.written)
    }

    fn restore(&mut self, state: CallbackState) -> Result<()> {
        let mut written: Written = kept(OF, &state)?;
        if let Some(file) = &mut self.file {
            // Of a file that is shorter, what it has is kept.
            written.bytes = written.bytes.min(self.written.bytes);
            file.set_len(written.bytes).map_err(io(&self.path))?;
        }
        self.written = written;
        Ok(())
    }
}

fn write_at(file: &mut File, at: u64, bytes: &[u8]) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    file.write_all(bytes)?;
    file.flush()
}
