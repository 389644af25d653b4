//! The commands, a file each. Exit codes: 0 good, 1 a check failed, 2 wrong use, bad input or an output that
//! cannot be written.

pub(crate) mod bench;
pub(crate) mod check;
pub(crate) mod devices;
pub(crate) mod picture;
pub(crate) mod plot;
#[expect(unsafe_code, reason = "one environment variable is set before there are threads")]
pub(crate) mod quiet;
pub(crate) mod run;
pub(crate) mod summary;

use clap::error::ErrorKind;
use indicatif::{ProgressBar, ProgressStyle};
use recurve::{DeviceSelector, HostArray, read_array, read_named_array};
use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub(crate) const FAILED: u8 = 1;
pub(crate) const BAD_INPUT: u8 = 2;

pub(crate) type Outcome = Result<ExitCode, Box<dyn Error>>;

/// `NAME=FILE`, for a `.npz` also `NAME=FILE:ARRAY`.
#[derive(Clone, Debug)]
pub(crate) struct NamedFile {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// The array of a `.npz`; by default the one called NAME.
    pub(crate) array: Option<String>,
}

impl std::str::FromStr for NamedFile {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s.split_once('=') {
            Some((name, path)) if !name.is_empty() && !path.is_empty() => {
                let (path, array) = match path.rsplit_once(':') {
                    Some((file, array)) if file.ends_with(".npz") => (file, Some(array.to_owned())),
                    _ => (path, None),
                };
                Ok(Self { name: name.into(), path: path.into(), array })
            }
            _ => Err("NAME=FILE is needed".into()),
        }
    }
}

pub(crate) fn read_inputs(files: &[NamedFile]) -> Result<Vec<(String, HostArray)>, Box<dyn Error>> {
    if let Some((_, f)) = files.iter().enumerate().find(|(n, f)| files[..*n].iter().any(|g| g.name == f.name)) {
        return Err(format!("input `{}` is given twice", f.name).into());
    }
    let read = |f: &NamedFile| match &f.array {
        Some(array) => read_named_array(&f.path, array),
        None => read_array(&f.path, &f.name),
    };
    files.iter().map(|f| Ok((f.name.clone(), read(f)?))).collect()
}

/// What can be written there is written at the end; what cannot is better known before the work.
pub(crate) fn check_output(path: &Path) -> Result<(), String> {
    recurve_formats::check_writable(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Writes a file, whole or not at all.
pub(crate) fn write_output(path: &Path, bytes: &[u8]) -> Result<(), String> {
    recurve_formats::write_file(path, |w| w.write_all(bytes)).map_err(|e| format!("{}: {e}", path.display()))
}

/// Sizes of more are no layer and no input that anybody has.
const MAX_SIZE: usize = 1 << 24;

/// A size: of a batch, of a sequence, of a layer.
pub(crate) fn parse_size(s: &str) -> Result<usize, String> {
    match s.trim().parse() {
        Ok(n) if (1..=MAX_SIZE).contains(&n) => Ok(n),
        _ => Err(format!("a whole number of at least 1 and at most {MAX_SIZE} is needed")),
    }
}

pub(crate) fn parse_device(s: &str) -> Result<DeviceSelector, String> {
    s.parse().map_err(|e: recurve::TensorError| e.to_string())
}

/// Prints a line. A reader that has gone away, as `head` does, is no error of ours; a full disk is.
pub(crate) fn say(text: impl Display) -> Result<(), Box<dyn Error>> {
    match writeln!(io::stdout(), "{text}") {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(format!("standard output: {e}").into()),
        _ => Ok(()),
    }
}

pub(crate) fn print_json(value: &serde_json::Value) -> Result<(), Box<dyn Error>> {
    say(value)
}

/// Characters of an error message, at most: it may quote a file or an argument.
const LONGEST: usize = 1000;

/// Says what is wrong, in one line. There may be nobody to hear it.
pub(crate) fn complain(message: impl Display) {
    let message = message.to_string();
    let mut line = String::new();
    for c in message.chars().take(LONGEST) {
        // Names in a file may hold what a terminal takes for commands.
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    if message.chars().nth(LONGEST).is_some() {
        line.push('…');
    }
    let _ = writeln!(io::stderr(), "{line}");
}

/// Help, the version, or what is wrong with the arguments: in one line if it is a value, else with a hint.
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
            // The hint to `--help` stands behind an empty line.
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

/// A progress bar on a terminal, silence in a pipe.
pub(crate) fn progress(steps: usize) -> ProgressBar {
    let bar = ProgressBar::new(steps as u64);
    bar.set_style(
        ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} ({elapsed})")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar
}
