//! Files of weights by name: safetensors files, and those of PyTorch.

use crate::map::map;
use crate::weight::Bytes;
use crate::{Error, Result, Weight, WeightType, files, header, torch};
use recurve_tensor::cpu::host;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Limits on the numbers of tensors, of bytes of a name and of dimensions.
pub(crate) const MAX_TENSORS: usize = 1 << 16;
pub(crate) const MAX_NAME: usize = 1 << 8;
pub(crate) const MAX_DIMENSIONS: usize = 8;

/// A file of weights of which the description has been read and checked, and no tensor yet: a safetensors file, or one
/// that PyTorch wrote. Which of them it is is told by its contents.
#[derive(Clone)]
pub struct WeightFile {
    path: PathBuf,
    bytes: Bytes,
    contents: Contents,
    /// For tensors that another one before them equals, the first of those.
    tied: HashMap<String, String>,
}

/// The kind of a [`WeightFile`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WeightFormat {
    /// A safetensors file.
    Safetensors,
    /// A zip archive of `torch.save`, since PyTorch 1.6.
    PyTorch,
    /// The pickles one after the other that `torch.save` wrote before PyTorch 1.6.
    PyTorchLegacy,
    /// A TorchScript archive of `torch.jit.save`.
    TorchScript,
    /// An archive of `torch.export.save`, `.pt2`.
    PyTorchExport,
}

impl fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::PyTorch => "PyTorch",
            Self::PyTorchLegacy => "PyTorch, legacy form",
            Self::TorchScript => "TorchScript",
            Self::PyTorchExport => "torch.export",
        })
    }
}

/// What a file contains.
#[derive(Clone)]
pub(crate) struct Contents {
    pub(crate) format: WeightFormat,
    pub(crate) metadata: HashMap<String, String>,
    pub(crate) tensors: BTreeMap<String, Entry>,
    pub(crate) notes: Vec<String>,
}

/// Where a tensor is that shares a storage: the beginning of the storage, its own range there, shape and strides.
type Place<'a> = (usize, &'a Range<usize>, &'a [usize], Option<&'a [usize]>);

/// A tensor of a file.
#[derive(Clone)]
pub(crate) struct Entry {
    /// The type, or the name of one that weights do not have.
    pub(crate) dtype: Result<WeightType, String>,
    pub(crate) shape: Vec<usize>,
    /// The range of its bytes in the file or in the storage's own bytes: of all of them if it is row-major, else from
    /// its first element to its last.
    pub(crate) at: Range<usize>,
    /// The distance of neighbours along each axis, in elements, unless it is row-major.
    pub(crate) strides: Option<Vec<usize>>,
    /// What it shares with other tensors.
    pub(crate) storage: Option<Arc<Storage>>,
}

/// Elements that several tensors may share.
pub(crate) struct Storage {
    /// Its bytes in the file.
    pub(crate) at: Range<usize>,
    /// Its checksum, if the file has one.
    pub(crate) crc: Option<u32>,
    /// Whether that is right.
    pub(crate) checked: OnceLock<bool>,
    /// The bytes, little-endian and not compressed, where the file's are not.
    pub(crate) own: Option<Bytes>,
}

impl Entry {
    /// A row-major tensor that shares nothing.
    pub(crate) fn at(dtype: Result<WeightType, String>, shape: Vec<usize>, at: Range<usize>) -> Self {
        Self { dtype, shape, at, strides: None, storage: None }
    }

    /// Where it is, if other tensors may be there too.
    fn place(&self) -> Option<Place<'_>> {
        self.storage
            .as_ref()
            .filter(|_| !self.at.is_empty())
            .map(|s| (s.at.start, &self.at, &self.shape[..], self.strides.as_deref()))
    }
}

impl WeightFile {
    /// Opens a file by mapping it: a tensor is read when its elements are needed. If the system cannot map the file, it
    /// is read.
    ///
    /// Of a file of PyTorch only numbers are read; no pickle is executed. A checkpoint that has its weights under a key
    /// such as `state_dict` gives these; [`Self::notes`] says which.
    ///
    /// The file must not be changed while this or a [`Weight`] from it exists: its weights would change too, and reading
    /// past the end of a file that was shortened ends the process. To replace the file, write another one in the same
    /// folder and rename that, as Recurve does itself.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read; [`Error::Damaged`], [`Error::Tensor`], [`Error::Twice`] and
    /// [`Error::DType`] for what is wrong with the header of a safetensors file; [`Error::PyTorch`],
    /// [`Error::PyTorchTensor`], [`Error::PyTorchCalls`] and [`Error::Twice`] for what is wrong with a file of PyTorch.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_part(path, None)
    }

    /// [`Self::open`] for the weights under `part` of a PyTorch checkpoint: its keys, joined by dots.
    ///
    /// # Errors
    /// As [`Self::open`]; [`Error::PyTorch`] if there is no such part, or the file has no parts.
    pub fn open_part(path: impl AsRef<Path>, part: Option<&str>) -> Result<Self> {
        let path = path.as_ref();
        let io = |e| Error::Io { path: path.into(), source: Arc::new(e) };
        let (file, len) = files::open(path).map_err(io)?;
        let bytes = match map(&file) {
            Ok(map) => Bytes::Mapped(Arc::new(map)),
            Err(_) => Bytes::Owned(Arc::new(read(&file, len)?.map_err(io)?)),
        };
        Self::parse(path.into(), bytes, part)
    }

    /// Reads a file from its bytes.
    ///
    /// # Errors
    /// As [`Self::open`]; they name "bytes in memory" as their file.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        Self::parse(files::MEMORY.into(), Bytes::Owned(Arc::new(bytes)), None)
    }

    fn parse(path: PathBuf, bytes: Bytes, part: Option<&str>) -> Result<Self> {
        let contents = match torch::container(bytes.get()) {
            Some(container) => torch::parse(&path, &bytes, container, part)?,
            None if part.is_some() => {
                let message = "a safetensors file has no parts".into();
                return Err(Error::PyTorch { path, message });
            }
            None => header::parse(&path, &bytes)?,
        };
        let (mut first, mut tied) = (HashMap::new(), HashMap::new());
        for (name, tensor) in &contents.tensors {
            if let Some(place) = tensor.place() {
                let before: &mut &String = first.entry(place).or_insert(name);
                if *before != name {
                    tied.insert(name.clone(), (*before).clone());
                }
            }
        }
        Ok(Self { path, bytes, contents, tied })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The kind of the file.
    pub fn format(&self) -> WeightFormat {
        self.contents.format
    }

    /// The metadata of a safetensors file: its `__metadata__` entries.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.contents.metadata
    }

    /// What is worth knowing about a file of PyTorch: the part that its weights come from, and what was left out.
    pub fn notes(&self) -> &[String] {
        &self.contents.notes
    }

    /// The names of the tensors, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.contents.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.contents.tensors.get(name).map(|t| &t.shape[..])
    }

    /// The name of a tensor's type, as safetensors files have it; of a type that weights do not have, that of the file.
    pub fn dtype(&self, name: &str) -> Option<&str> {
        self.contents.tensors.get(name).map(|t| match &t.dtype {
            Ok(t) => t.name(),
            Err(other) => other,
        })
    }

    /// The first of the tensors, by name, that has the same elements in the file as this one, if that is another one:
    /// both are one parameter.
    pub fn tied(&self, name: &str) -> Option<&str> {
        self.tied.get(name).map(String::as_str)
    }

    /// A tensor as a weight, if there is one with this name. Nothing is copied, but a tensor whose elements do not
    /// follow each other in the file; where the file has a checksum, it is compared the first time.
    ///
    /// # Errors
    /// [`Error::DType`] if weights do not have its type, [`Error::PyTorchTensor`] if its checksum is wrong; lack of
    /// memory.
    pub fn weight(&self, name: &str) -> Result<Option<Weight>> {
        let Some(tensor) = self.contents.tensors.get(name) else { return Ok(None) };
        let dtype = tensor.dtype.clone().map_err(|got| Error::DType {
            path: self.path.clone(),
            name: name.into(),
            got: files::short(&got),
        })?;
        if let Some(s) = &tensor.storage
            && !s.is_whole(&self.bytes)
        {
            let message = "is damaged: its checksum is another one".into();
            return Err(Error::PyTorchTensor { path: self.path.clone(), name: name.into(), message });
        }
        let bytes = tensor.storage.as_ref().and_then(|s| s.own.as_ref()).unwrap_or(&self.bytes);
        let shape = tensor.shape.clone();
        let Some(strides) = &tensor.strides else {
            return Ok(Some(Weight::stored(shape, dtype, bytes.clone(), tensor.at.clone())));
        };
        let mut out: Vec<u8> = host("WeightFile::weight", shape.iter().product::<usize>() * dtype.size())?;
        gather(&bytes.get()[tensor.at.clone()], dtype.size(), &shape, strides, &mut out);
        bytes.give_back(tensor.at.clone());
        let at = 0..out.len();
        Ok(Some(Weight::stored(shape, dtype, Bytes::Owned(Arc::new(out)), at)))
    }

    /// All tensors as weights, by name.
    ///
    /// # Errors
    /// As [`Self::weight`].
    pub fn weights(&self) -> impl Iterator<Item = Result<(&str, Weight)>> {
        self.names().filter_map(|name| Some(self.weight(name).transpose()?.map(|w| (name, w))))
    }
}

impl Storage {
    /// Whether the checksum is right, if there is one.
    fn is_whole(&self, file: &Bytes) -> bool {
        const BLOCK: usize = 1 << 22;
        let Some(crc) = self.crc else { return true };
        *self.checked.get_or_init(|| {
            let mut sum = rawzip::Crc32::new();
            for start in self.at.clone().step_by(BLOCK) {
                let block = start..(start + BLOCK).min(self.at.end);
                sum.update(&file.get()[block.clone()]);
                file.give_back(block);
            }
            sum.checksum() == crc
        })
    }
}

/// Copies the elements of a tensor in row-major order.
fn gather(from: &[u8], size: usize, shape: &[usize], strides: &[usize], out: &mut [u8]) {
    let mut at = vec![0; shape.len()];
    let mut element = 0;
    for place in out.chunks_exact_mut(size) {
        place.copy_from_slice(&from[element * size..][..size]);
        for axis in (0..shape.len()).rev() {
            at[axis] += 1;
            element += strides[axis];
            if at[axis] < shape[axis] {
                break;
            }
            element -= strides[axis] * at[axis];
            at[axis] = 0;
        }
    }
}

impl fmt::Debug for WeightFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeightFile")
            .field("path", &self.path)
            .field("tensors", &self.contents.tensors.len())
            .finish_non_exhaustive()
    }
}

/// The contents of a file that cannot be mapped.
fn read(mut file: &File, len: u64) -> Result<std::io::Result<Vec<u8>>> {
    let mut out = host("WeightFile::open", usize::try_from(len).unwrap_or(usize::MAX))?;
    Ok(file.read_exact(&mut out).map(|()| out))
}
