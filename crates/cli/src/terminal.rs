//! Printing results to standard output and errors to standard error.

use crate::BAD_INPUT;
use clap::error::ErrorKind;
use indicatif::{ProgressBar, ProgressStyle};
use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

/// Prints a line. If the reader has closed its end, as `head` does, that is not an error; a full disk is.
pub(crate) fn say(text: impl Display) -> Result<(), Box<dyn Error>> {
    match writeln!(io::stdout(), "{text}") {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(format!("standard output: {e}").into()),
        _ => Ok(()),
    }
}

pub(crate) fn print_json(value: &serde_json::Value) -> Result<(), Box<dyn Error>> {
    say(value)
}

/// Largest length of an error message in characters, because messages quote files and arguments.
const LONGEST: usize = 1000;

/// Prints an error message in one line. Failure to print it is ignored.
pub(crate) fn complain(message: impl Display) {
    let message = message.to_string();
    let mut line = String::new();
    for c in message.chars().take(LONGEST) {
        // Names in a file may contain control characters that a terminal would interpret.
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    if message.chars().nth(LONGEST).is_some() {
        line.push('…');
    }
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints help, the version, or a usage error: in one line if a value is wrong, else with a hint.
pub(crate) fn usage(e: &clap::Error) -> ExitCode {
    let text = e.render().to_string();
    let long = text.chars().nth(LONGEST).is_some();
    match e.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => match e.print() {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
                complain(format_args!("error: standard output: {e}"));
                ExitCode::from(BAD_INPUT)
            }
            _ => ExitCode::SUCCESS,
        },
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            // The hint to use `--help` follows an empty line.
            let message = text.rsplit_once("\n\n").map_or(&*text, |(message, _)| message);
            let lines: Vec<_> = message.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
            complain(lines.join(" "));
            ExitCode::from(BAD_INPUT)
        }
        _ if !long || e.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = e.print();
            ExitCode::from(BAD_INPUT)
        }
        _ => {
            complain(text);
            ExitCode::from(BAD_INPUT)
        }
    }
}

/// A progress bar if standard error is a terminal, otherwise nothing.
pub(crate) fn progress(steps: usize) -> ProgressBar {
    let bar = ProgressBar::new(steps as u64);
    bar.set_style(
        ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} ({elapsed})")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar
}
