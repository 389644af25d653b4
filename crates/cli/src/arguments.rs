//! Arguments that several commands have, and the files that they name.

use recurve::{DeviceSelector, HostArray, read_array, read_named_array};
use std::error::Error;
use std::path::{Path, PathBuf};

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
