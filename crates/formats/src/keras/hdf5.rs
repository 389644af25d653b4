//! HDF5 files, read by the crate `hdf5-reader` with limits on memory. Nothing outside the file is opened.

use crate::files::{room, short, short_message};
use half::{bf16, f16};
use hdf5_reader::error::{Error, Result as Found};
use hdf5_reader::group::Group;
use hdf5_reader::storage::DynStorage;
use hdf5_reader::{ExternalFileResolver, ExternalLinkResolver, Hdf5File, OpenOptions};
use std::cell::Cell;
use std::sync::Arc;

/// Elements of weights may take this many times the file in memory as f32, and this many bytes more, whatever the
/// file's compression claims.
const GROWTH: u64 = 2;
const SPARE: u64 = 16 << 20;
/// Largest chunk of a dataset, in bytes.
const MAX_CHUNK: usize = 16 << 20;
/// Largest header of an object, in bytes.
const MAX_HEADER: usize = 8 << 20;
/// Longest list of names in numbered attributes, and their number.
const MAX_LISTS: usize = 1 << 10;

/// An array of floats.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Array {
    pub(super) shape: Vec<usize>,
    pub(super) data: Vec<f32>,
}

/// An open HDF5 file.
pub(super) struct Hdf5 {
    file: Hdf5File,
    /// Bytes of elements that may still be read.
    left: Cell<u64>,
}

/// Refuses every file that another file points to.
struct Refuse;

impl ExternalLinkResolver for Refuse {
    fn resolve_external_link(&self, name: &str) -> Found<Option<Hdf5File>> {
        Err(Error::Other(format!("is a link to the file `{}`, which is not followed", short(name))))
    }
}

impl ExternalFileResolver for Refuse {
    fn resolve_external_file(&self, name: &str) -> Found<Option<DynStorage>> {
        Err(Error::Other(format!("has its elements in the file `{}`, which is not opened", short(name))))
    }
}

/// The reader's message, of limited length, without the paths that it repeats.
fn message(mut e: Error) -> String {
    while let Error::Context { source, .. } = e {
        e = *source;
    }
    match e {
        Error::UnsupportedLayoutClass(3) => "is a virtual dataset, which is not read".into(),
        e => short_message(&e.to_string()),
    }
}

/// A part of the file that may be missing.
fn optional<T>(found: Found<T>) -> Result<Option<T>, String> {
    fn missing(e: &Error) -> bool {
        match e {
            Error::GroupNotFound(_) | Error::DatasetNotFound(_) | Error::AttributeNotFound(_) => true,
            Error::Context { source, .. } => missing(source),
            _ => false,
        }
    }
    match found {
        Ok(found) => Ok(Some(found)),
        Err(e) if missing(&e) => Ok(None),
        Err(e) => Err(message(e)),
    }
}

impl Hdf5 {
    /// Opens a file of `len` bytes.
    pub(super) fn open(storage: DynStorage, len: u64) -> Result<Self, String> {
        let left = len.saturating_mul(GROWTH).saturating_add(SPARE);
        let options = OpenOptions::default()
            .with_chunk_cache_bytes(0)
            .with_max_chunk_bytes(MAX_CHUNK)
            .with_max_read_bytes(usize::try_from(left).unwrap_or(usize::MAX))
            .with_max_object_header_bytes(MAX_HEADER)
            .with_external_link_resolver(Arc::new(Refuse))
            .with_external_file_resolver(Arc::new(Refuse));
        let file = Hdf5File::from_storage_with_options(storage, options).map_err(message)?;
        Ok(Self { file, left: Cell::new(left) })
    }

    fn group(&self, path: &str) -> Result<Option<Group>, String> {
        let path_of = |e: String| if path.is_empty() { e } else { format!("`{}`: {e}", short(path)) };
        optional(self.file.group(path)).map_err(path_of)
    }

    /// Whether there is a group.
    pub(super) fn has(&self, path: &str) -> Result<bool, String> {
        Ok(self.group(path)?.is_some())
    }

    /// An attribute that is a text.
    pub(super) fn text(&self, path: &str, name: &str) -> Result<Option<String>, String> {
        let Some(group) = self.group(path)? else { return Ok(None) };
        let text = optional(group.attribute(name).and_then(|a| a.read_string()));
        text.map_err(|e| format!("attribute `{name}` of `/{}`: {e}", short(path)))
    }

    /// An attribute that is a list of texts. One that was too long for an attribute is in several, `name0`, `name1`, …
    pub(super) fn texts(&self, path: &str, name: &str) -> Result<Option<Vec<String>>, String> {
        let Some(group) = self.group(path)? else { return Ok(None) };
        let at = |e: String| format!("attribute `{name}` of `/{}`: {e}", short(path));
        let attributes = group.attributes().map_err(|e| at(message(e)))?;
        let read = |name: &str| {
            attributes.iter().find(|a| a.name == name).map(|a| match a.num_elements() {
                // An empty list has the type that numpy gives an array without elements.
                Ok(0) => Ok(Vec::new()),
                _ => a.read_strings().map_err(|e| at(message(e))),
            })
        };
        if let Some(all) = read(name) {
            return all.map(Some);
        }
        let mut all = None;
        for n in 0..MAX_LISTS {
            let Some(part) = read(&format!("{name}{n}")) else { break };
            all.get_or_insert_with(Vec::new).extend(part?);
        }
        Ok(all)
    }

    /// The names of the groups and of the datasets in a group; none if there is no such group.
    pub(super) fn members(&self, path: &str) -> Result<(Vec<String>, Vec<String>), String> {
        match self.group(path)? {
            Some(group) => group.member_names().map_err(|e| format!("`{}`: {}", short(path), message(e))),
            None => Ok(Default::default()),
        }
    }

    /// A dataset of floats.
    pub(super) fn array(&self, path: &str) -> Result<Array, String> {
        self.read(path).map_err(|e| format!("`{}`: {e}", short(path)))
    }

    fn read(&self, path: &str) -> Result<Array, String> {
        let dataset = optional(self.file.dataset(path))?.ok_or("is missing")?;
        let shape = dataset.shape().iter().map(|&n| usize::try_from(n).ok()).collect::<Option<Vec<_>>>();
        let count = shape.as_ref().and_then(|s| s.iter().try_fold(1usize, |n, &d| n.checked_mul(d)));
        let (Some(shape), Some(count)) = (shape, count) else {
            return Err(format!("has the shape {:?}, which exceeds any memory", dataset.shape()));
        };
        let (element, big_endian) = Element::of(&dataset.raw_datatype().map_err(message)?)?;
        let bytes = (count as u64).saturating_mul(element.width().max(4) as u64);
        let Some(left) = self.left.get().checked_sub(bytes) else {
            return Err(format!(
                "has the shape {shape:?}, but the weights may take {GROWTH} times the file and {} MiB",
                SPARE >> 20
            ));
        };
        self.left.set(left);
        let raw = dataset.read_raw_bytes().map_err(message)?;
        if raw.len() != count * element.width() {
            return Err(format!("has the shape {shape:?} and {} bytes of elements", raw.len()));
        }
        let mut data = room(count)?;
        let order = |bytes: &mut [u8]| {
            if big_endian {
                bytes.reverse();
            }
        };
        macro_rules! all {
            ($width:literal, $decode:expr) => {
                data.extend(raw.as_chunks::<$width>().0.iter().map(|&bytes| {
                    let mut bytes = bytes;
                    order(&mut bytes);
                    $decode(bytes)
                }))
            };
        }
        match element {
            Element::F16 => all!(2, |b| f16::from_le_bytes(b).to_f32()),
            Element::Bf16 => all!(2, |b| bf16::from_le_bytes(b).to_f32()),
            Element::F32 => all!(4, f32::from_le_bytes),
            Element::F64 => all!(8, |b| f64::from_le_bytes(b) as f32),
        }
        Ok(Array { shape, data })
    }
}

/// The element types that weights have.
#[derive(Clone, Copy)]
enum Element {
    F16,
    Bf16,
    F32,
    F64,
}

impl Element {
    const fn width(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// The type of a datatype message, and whether it is big-endian. The positions and sizes of exponent and mantissa
    /// decide, because types of one size may have different ones.
    fn of(datatype: &[u8]) -> Result<(Self, bool), String> {
        let Some(([class, order, ..], layout)) = datatype.split_first_chunk::<8>() else {
            return Err("has a damaged type".into());
        };
        let known = [
            (Self::F16, [0, 0, 16, 0, 10, 5, 0, 10]),
            (Self::Bf16, [0, 0, 16, 0, 7, 8, 0, 7]),
            (Self::F32, [0, 0, 32, 0, 23, 8, 0, 23]),
            (Self::F64, [0, 0, 64, 0, 52, 11, 0, 52]),
        ];
        // Bit 6 of the order marks a third order of bytes, that of the VAX.
        let element = known.iter().find(|(_, bits)| class & 0xf == 1 && order & 0x40 == 0 && layout.starts_with(bits));
        match element {
            Some((element, _)) => Ok((*element, order & 1 == 1)),
            None => Err("has no type of weights: floats of 16, 32 or 64 bits, or bfloat16".into()),
        }
    }
}
