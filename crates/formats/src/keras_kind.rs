//! What tells a Keras file from others, and what is wrong with one. It is there without the feature `keras` too, so that
//! such a file is refused by its kind.

use crate::files;
use crate::native::ModelInfo;
use recurve_layers::Network;
use std::io::{Read, Seek};
use std::path::Path;
use std::{fmt, io};

/// A part of a Keras file that cannot be run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerProblem {
    /// The layer's name; empty where the whole file is meant.
    pub layer: String,
    /// Its class.
    pub class: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for LayerProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.layer[..], &self.class[..]) {
            ("", _) => f.write_str(&self.message),
            (layer, "") => write!(f, "layer `{layer}`: {}", self.message),
            (layer, class) => write!(f, "layer `{layer}` ({class}): {}", self.message),
        }
    }
}

/// The first bytes of an HDF5 file.
pub(crate) const HDF5: &[u8; 8] = b"\x89HDF\r\n\x1a\n";

/// The files of an archive that describe the model.
pub(crate) const CONFIG: &str = "config.json";
pub(crate) const METADATA: &str = "metadata.json";

/// The kinds of Keras files, by their contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// HDF5.
    Hdf5,
    /// A zip archive.
    Archive,
    /// A description as JSON.
    Json,
    /// A folder with the files of an archive.
    Folder,
}

/// How many bytes of a file say what it is.
const START: usize = 64;

/// The kind of a file that begins with these bytes and has `len` of them; `None` if it is no Keras file.
fn kind(start: &[u8; START], len: u64) -> Option<Kind> {
    // A text; a safetensors file begins with the length of its header, which has zero bytes.
    let text = start[..8].iter().all(|b| *b >= b'\t') || len < 8;
    let first = start.iter().find(|b| !b.is_ascii_whitespace());
    match start {
        s if s.starts_with(HDF5) => Some(Kind::Hdf5),
        // Behind a header of 30 bytes, the name of the first file in the archive.
        s if s.starts_with(b"PK\x03\x04") => {
            let names = [CONFIG, METADATA, "model.weights", "assets/"];
            names.iter().any(|n| s[30..].starts_with(n.as_bytes())).then_some(Kind::Archive)
        }
        _ if first == Some(&b'{') && text => Some(Kind::Json),
        _ => None,
    }
}

/// The kind of a file in memory.
pub(crate) fn kind_of_bytes(bytes: &[u8]) -> Option<Kind> {
    let mut start = [0; START];
    let count = bytes.len().min(START);
    start[..count].copy_from_slice(&bytes[..count]);
    kind(&start, bytes.len() as u64)
}

/// The kind of a file; `None` also for what cannot be read, which whoever reads it will say.
pub(crate) fn kind_of(path: &Path) -> Option<Kind> {
    if path.is_dir() {
        return path.join(CONFIG).is_file().then_some(Kind::Folder);
    }
    let (mut file, len) = files::open(path).ok()?;
    let mut start = [0; START];
    let count = io::Read::by_ref(&mut file).take(START as u64).read(&mut start).ok()?;
    // An HDF5 file may begin behind a block of the user's.
    if start[..count] != *HDF5 && path.extension().is_some_and(|e| e.eq_ignore_ascii_case("h5")) {
        for offset in [512, 1024, 2048] {
            let mut magic = [0; 8];
            let found = file.seek(io::SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut magic));
            if found.is_ok() && magic == *HDF5 {
                return Some(Kind::Hdf5);
            }
        }
    }
    kind(&start, len)
}

/// A network from a Keras file.
pub(crate) struct Imported {
    pub(crate) info: ModelInfo,
    pub(crate) network: Network,
    pub(crate) notes: Vec<String>,
}
