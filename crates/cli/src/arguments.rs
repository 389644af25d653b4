//! Arguments shared by several commands, and reading and writing the files that they name.

use recurve::{DeviceSelector, HostArray, read_array, read_named_array};
use std::error::Error;
use std::path::{Path, PathBuf};

/// An argument `NAME=FILE`, or `NAME=FILE:ARRAY` for an array of a `.npz` file.
#[derive(Clone, Debug)]
pub(crate) struct NamedFile {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// The name of the array in a `.npz` file; NAME by default.
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

/// Checks that an output file can be written, so that a command fails before its work and not after it.
pub(crate) fn check_output(path: &Path) -> Result<(), String> {
    recurve_formats::check_writable(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Writes a file, completely or not at all.
pub(crate) fn write_output(path: &Path, bytes: &[u8]) -> Result<(), String> {
    recurve_formats::write_file(path, |w| w.write_all(bytes)).map_err(|e| format!("{}: {e}", path.display()))
}

/// Larger sizes are refused: no layer or input has them.
const MAX_SIZE: usize = 1 << 24;

/// Parses a size of a batch, a sequence or a layer.
pub(crate) fn parse_size(s: &str) -> Result<usize, String> {
    match s.trim().parse() {
        Ok(n) if (1..=MAX_SIZE).contains(&n) => Ok(n),
        _ => Err(format!("a whole number of at least 1 and at most {MAX_SIZE} is needed")),
    }
}

pub(crate) fn parse_device(s: &str) -> Result<DeviceSelector, String> {
    s.parse().map_err(|e: recurve::TensorError| e.to_string())
}
