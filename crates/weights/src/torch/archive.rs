//! Zip archives of `torch.save` and `torch.jit.save`: the saved object in `data.pkl`, each storage in a file of its own.
//! A file that is stored as it is, as PyTorch writes all of them, is used where it is; a compressed one is unpacked.

use super::pickle::Pickle;
use super::place::{COPIES, Failure, Storages, Wanted, entry};
use super::state::find;
use super::{Wrong, export};
use crate::WeightFormat;
use crate::file::{Contents, Storage};
use crate::files::{short, some_names};
use crate::weight::Bytes;
use flate2::bufread::DeflateDecoder;
use rawzip::{CompressionMethod, ZipArchive};
use recurve_tensor::cpu::host;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// Limits on the files of an archive and the bytes of their names.
const MAX_FILES: usize = 1 << 17;
const MAX_NAME: usize = 1 << 10;
/// What is unpacked may have this many bytes more than the archive.
const UNPACKED: usize = 16 << 20;

/// A file of an archive.
struct File {
    at: Range<usize>,
    size: usize,
    method: CompressionMethod,
    encrypted: bool,
    /// The checksum of what is unpacked; PyTorch can leave it out.
    crc: Option<u32>,
}

/// An archive within a range of the bytes of a file.
pub(super) struct Archive<'a> {
    bytes: &'a Bytes,
    files: BTreeMap<String, File>,
    /// How many bytes may still be unpacked.
    left: usize,
}

impl<'a> Archive<'a> {
    pub(super) fn open(bytes: &'a Bytes, range: Range<usize>) -> Result<Self, Wrong> {
        let damaged = |e: rawzip::Error| Wrong::File(format!("is not a zip archive, or is damaged ({e})"));
        let own = &bytes.get()[range.clone()];
        let archive = ZipArchive::from_slice(own).map_err(damaged)?;
        let mut files = BTreeMap::new();
        let mut entries = archive.entries();
        while let Some(e) = entries.next_entry().map_err(damaged)? {
            let name = e.file_path();
            let name = name.as_ref();
            if files.len() == MAX_FILES || name.len() > MAX_NAME {
                let message = format!("has more than {MAX_FILES} files in it, or a name of more than {MAX_NAME} bytes");
                return Err(Wrong::File(message));
            }
            let name = String::from_utf8_lossy(name).into_owned();
            let place = archive.get_entry(e.wayfinder());
            let place = place.map_err(|e| Wrong::File(format!("file `{}` is damaged ({e})", short(&name))))?;
            let (start, end) = place.compressed_data_range();
            let crc = e.crc32();
            let size = usize::try_from(e.uncompressed_size_hint()).unwrap_or(usize::MAX);
            let file = File {
                at: range.start + start as usize..range.start + end as usize,
                size,
                method: e.compression_method(),
                encrypted: e.flags().is_encrypted(),
                crc: (crc != 0).then_some(crc),
            };
            if file.method == CompressionMethod::STORE && file.at.len() != size {
                let message = format!("file `{}` should have {size} bytes, but has {}", short(&name), file.at.len());
                return Err(Wrong::File(message));
            }
            if files.insert(name.clone(), file).is_some() {
                return Err(Wrong::Twice(name));
            }
        }
        Ok(Self { bytes, files, left: own.len().saturating_add(UNPACKED) })
    }

    /// The folder in which the files are whose names end so, with the slash: `archive/` of `archive/data.pkl`.
    fn root(&self, of: &str) -> Option<String> {
        let roots = self.files.keys().filter_map(|name| name.strip_suffix(of));
        roots.filter(|r| r.is_empty() || r.find('/') == Some(r.len() - 1)).map(str::to_owned).next()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// The contents of a file, checked.
    pub(super) fn contents(&mut self, name: &str) -> Result<Cow<'a, [u8]>, Failure> {
        let Some(file) = self.files.get(name) else {
            return Err(format!("the archive has no file `{}`", short(name)).into());
        };
        let raw = &self.bytes.get()[file.at.clone()];
        let wrong = |what: &str| Failure::from(format!("file `{}` {what}", short(name)));
        let out = match file.method {
            _ if file.encrypted => return Err(wrong("is encrypted")),
            CompressionMethod::STORE => Cow::Borrowed(raw),
            CompressionMethod::DEFLATE => {
                let Some(left) = self.left.checked_sub(file.size) else {
                    return Err(wrong(&format!("has {} bytes, too many for a file of this size", file.size)));
                };
                self.left = left;
                let mut out = host::<u8>("WeightFile::open", file.size).map_err(Failure::Memory)?;
                let mut unpacked = DeflateDecoder::new(raw);
                let whole = unpacked.read_exact(&mut out).is_ok() && matches!(unpacked.read(&mut [0]), Ok(0));
                if !whole {
                    return Err(wrong("is damaged: it does not have the size that the archive says"));
                }
                Cow::Owned(out)
            }
            other => return Err(wrong(&format!("is compressed by method {other}, but stored and deflated are read"))),
        };
        match file.crc {
            Some(crc) if rawzip::crc32(&out) != crc => Err(wrong("is damaged: its checksum is another one")),
            _ => Ok(out),
        }
    }

    /// A storage of elements of this size in a file; `swap` if its bytes are in big-endian order.
    pub(super) fn storage(&mut self, name: &str, swap: Option<usize>) -> Result<Arc<Storage>, Failure> {
        let Some(file) = self.files.get(name) else {
            return Err(format!("is in a file `{}` that the archive does not have", short(name)).into());
        };
        let (at, crc) = (file.at.clone(), file.crc);
        if file.method == CompressionMethod::STORE && !file.encrypted && swap.is_none() {
            return Ok(Arc::new(Storage { at, crc, checked: OnceLock::new(), own: None }));
        }
        let mut own = match self.contents(name)? {
            Cow::Owned(own) => own,
            Cow::Borrowed(own) => {
                let mut copy = host::<u8>("WeightFile::open", own.len()).map_err(Failure::Memory)?;
                copy.copy_from_slice(own);
                copy
            }
        };
        if let Some(size) = swap {
            own.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        let own = Some(Bytes::Owned(Arc::new(own)));
        Ok(Arc::new(Storage { at, crc: None, checked: OnceLock::new(), own }))
    }

    /// Whether the numbers in the archive are big-endian.
    pub(super) fn is_big_endian(&mut self, root: &str) -> Result<bool, Wrong> {
        let name = format!("{root}byteorder");
        if !self.has(&name) {
            return Ok(false);
        }
        match &*self.contents(&name).map_err(file_wrong)? {
            b"little" => Ok(false),
            b"big" => Ok(true),
            _ => Err(Wrong::File("file `byteorder` is neither `little` nor `big`".into())),
        }
    }

    /// The range of a file that is stored as it is.
    pub(super) fn stored(&self, name: &str) -> Option<Range<usize>> {
        let file = self.files.get(name)?;
        (file.method == CompressionMethod::STORE && !file.encrypted).then(|| file.at.clone())
    }
}

pub(super) fn file_wrong(f: Failure) -> Wrong {
    match f {
        Failure::Message(m) => Wrong::File(m),
        Failure::Memory(e) => Wrong::Memory(e),
    }
}

/// The storages of `torch.save`, each in a file `data/KEY`.
struct Saved<'z, 'a> {
    archive: &'z mut Archive<'a>,
    root: &'z str,
    big_endian: bool,
    made: HashMap<String, Arc<Storage>>,
}

impl Storages for Saved<'_, '_> {
    fn storage(&mut self, wanted: &Wanted<'_>) -> Result<Arc<Storage>, Failure> {
        let key = wanted.key;
        let storage = match self.made.get(key) {
            Some(storage) => storage.clone(),
            None => {
                if self.big_endian && !wanted.typed {
                    return Err("is in a big-endian storage without a type, which is not read".to_owned().into());
                }
                let swap = (self.big_endian && wanted.size > 1).then_some(wanted.size);
                let storage = self.archive.storage(&format!("{}data/{key}", self.root), swap)?;
                self.made.insert(key.to_owned(), storage.clone());
                storage
            }
        };
        let has = storage.own.as_ref().map_or(storage.at.len(), |o| o.get().len());
        if has != wanted.len {
            return Err(format!("needs a storage of {} bytes, but it has {has}", wanted.len).into());
        }
        Ok(storage)
    }
}

/// Reads the archive in a range of a file.
pub(super) fn read(bytes: &Bytes, range: Range<usize>, part: Option<&str>) -> Result<Contents, Wrong> {
    let size = range.len();
    let mut archive = Archive::open(bytes, range)?;
    match archive.root("data.pkl") {
        Some(root) => saved(&mut archive, &root, size, part),
        None => export::read(&mut archive, bytes, size, part),
    }
}

/// Reads an archive inside another one, which must be one of `torch.save`.
pub(super) fn read_inner(bytes: &Bytes, range: Range<usize>, part: Option<&str>) -> Result<Contents, Wrong> {
    let size = range.len();
    let mut archive = Archive::open(bytes, range)?;
    match archive.root("data.pkl") {
        Some(root) => saved(&mut archive, &root, size, part),
        None => Err(unknown(&archive)),
    }
}

/// Reads an archive of `size` bytes whose files are in the folder `root`.
fn saved(archive: &mut Archive<'_>, root: &str, size: usize, part: Option<&str>) -> Result<Contents, Wrong> {
    let script = archive.has(&format!("{root}constants.pkl"));
    let text = archive.contents(&format!("{root}data.pkl")).map_err(file_wrong)?;
    let object = Pickle::read(&text)?;
    let found = find(&object, part)?;
    let big_endian = archive.is_big_endian(root)?;
    let mut storages = Saved { archive, root, big_endian, made: HashMap::new() };
    let mut copies = size.saturating_mul(2).saturating_add(COPIES);
    let mut tensors = BTreeMap::new();
    for (name, id) in found.tensors {
        match entry(&object, id, &mut storages, &mut copies) {
            Ok(e) => drop(tensors.insert(name, e)),
            Err(Failure::Message(message)) => return Err(Wrong::Tensor(name, message)),
            Err(Failure::Memory(e)) => return Err(Wrong::Memory(e)),
        }
    }
    let mut notes = found.notes;
    if script {
        notes.push("a TorchScript archive: its code is not run, only its tensors are read".into());
    }
    let format = if script { WeightFormat::TorchScript } else { WeightFormat::PyTorch };
    Ok(Contents { format, metadata: HashMap::new(), tensors, notes })
}

/// What an archive that no PyTorch wrote has in it.
pub(super) fn unknown(archive: &Archive<'_>) -> Wrong {
    let names: Vec<&str> = archive.names().collect();
    Wrong::File(format!(
        "is a zip archive, but not one of PyTorch: it has no `data.pkl`; it has {}",
        some_names(names.iter().copied())
    ))
}
