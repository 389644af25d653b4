//! Progress in a terminal.

use super::{Callback, Position};
use crate::error::io;
use crate::{Logs, Result, Trainer};
use indicatif::{ProgressBar as Bar, ProgressDrawTarget, ProgressStyle};
use std::fmt;
use std::io::{self as std_io, IsTerminal, Write};
use std::path::Path;
use std::time::Instant;

/// Shows how far training is, as Keras does: a bar with the batches, the time that is left, the loss and the metrics, and
/// after each epoch a line that also has the numbers of validation. It is written to standard output. Where that is no
/// terminal, nothing is written unless [`Self::lines`] asks for it.
pub struct ProgressBar {
    lines: Option<Box<dyn Write>>,
    bar: Option<Bar>,
    begun: Instant,
}

impl Default for ProgressBar {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ProgressBar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgressBar").finish_non_exhaustive()
    }
}

impl ProgressBar {
    /// A bar in a terminal, nothing elsewhere.
    pub fn new() -> Self {
        Self { lines: None, bar: None, begun: Instant::now() }
    }

    /// One line an epoch on standard output, whatever that is, and no bar.
    #[must_use]
    pub fn lines(self) -> Self {
        self.lines_to(std_io::stdout())
    }

    /// One line an epoch somewhere else.
    #[must_use]
    pub fn lines_to(mut self, to: impl Write + 'static) -> Self {
        self.lines = Some(Box::new(to));
        self
    }
}

/// Numbers as Keras shows them.
fn numbers(logs: &Logs) -> String {
    let number = |(name, v): (&str, f64)| match v.abs() > 1e-3 || v == 0.0 || !v.is_finite() {
        true => format!(" - {name}: {v:.4}"),
        false => format!(" - {name}: {v:.4e}"),
    };
    logs.iter().map(number).collect()
}

fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{seconds:.1}s"),
        60..3600 => format!("{}:{:02}", whole / 60, whole % 60),
        _ => format!("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60),
    }
}

/// A line, unless the reader has closed its end.
fn say(to: &mut dyn Write, text: &str) -> Result<()> {
    match writeln!(to, "{text}").and_then(|()| to.flush()) {
        Err(e) if e.kind() != std_io::ErrorKind::BrokenPipe => Err(io(Path::new("standard output"))(e)),
        _ => Ok(()),
    }
}

impl Callback for ProgressBar {
    fn epoch_begin(&mut self, _: &mut Trainer, at: Position) -> Result<()> {
        self.begun = Instant::now();
        if self.lines.is_some() || !std_io::stdout().is_terminal() {
            return Ok(());
        }
        say(&mut std_io::stdout(), &format!("Epoch {}/{}", at.epoch + 1, at.epochs))?;
        let (bar, template) = match at.batches {
            Some(n) => (Bar::new(n as u64), "{pos}/{len} {bar:30} {eta} left{msg}"),
            None => (Bar::no_length(), "{pos} {spinner} {elapsed}{msg}"),
        };
        bar.set_draw_target(ProgressDrawTarget::stdout());
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("━━╌"));
        self.bar = Some(bar);
        Ok(())
    }

    fn batch_end(&mut self, _: &mut Trainer, at: Position, logs: &Logs) -> Result<()> {
        if let Some(bar) = &self.bar {
            bar.set_message(numbers(logs));
            bar.set_position(at.batch as u64 + 1);
        }
        Ok(())
    }

    fn epoch_end(&mut self, _: &mut Trainer, at: Position, logs: &mut Logs) -> Result<()> {
        let time = duration(self.begun.elapsed().as_secs_f64());
        if let Some(bar) = self.bar.take() {
            let batches = bar.position();
            bar.finish_and_clear();
            say(&mut std_io::stdout(), &format!("{batches}/{batches} {time}{}", numbers(logs)))?;
        } else if let Some(to) = &mut self.lines {
            say(to, &format!("Epoch {}/{} - {time}{}", at.epoch + 1, at.epochs, numbers(logs)))?;
        }
        Ok(())
    }
}

impl Drop for ProgressBar {
    /// After an error in an epoch the bar is taken away.
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
