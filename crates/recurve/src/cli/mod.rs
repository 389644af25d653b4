//! The commands, a file each. Exit codes: 0 good, 1 a check failed, 2 wrong use or bad input.

pub(crate) mod bench;
pub(crate) mod check;
pub(crate) mod devices;
pub(crate) mod picture;
pub(crate) mod plot;
#[expect(unsafe_code, reason = "one environment variable is set before there are threads")]
pub(crate) mod quiet;
pub(crate) mod run;
pub(crate) mod summary;

use indicatif::{ProgressBar, ProgressStyle};
use recurve::{DeviceSelector, HostArray, read_array};
use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
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
            _ => Err(format!("`{s}` is not NAME=FILE")),
        }
    }
}

pub(crate) fn read_inputs(files: &[NamedFile]) -> Result<Vec<(String, HostArray)>, Box<dyn Error>> {
    files.iter().map(|f| Ok((f.name.clone(), read_array(&f.path, f.array.as_ref().unwrap_or(&f.name))?))).collect()
}

pub(crate) fn parse_device(s: &str) -> Result<DeviceSelector, String> {
    s.parse().map_err(|e: recurve::TensorError| e.to_string())
}

/// Prints a line; a reader that has gone away is no error of ours.
pub(crate) fn say(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

pub(crate) fn print_json(value: &serde_json::Value) {
    say(value);
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
