//! Safetensors files.

use crate::map::map;
use crate::weight::Bytes;
use crate::{Error, Result, Weight, WeightType, files};
use recurve_tensor::cpu::host;
use safetensors::Dtype;
use serde::de::value::Error as Unknown;
use serde::de::{DeserializeSeed, Error as _, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest size of a header in bytes: enough for a vocabulary of a million words.
const MAX_HEADER: u64 = 1 << 24;
/// Limits on the numbers of tensors, of metadata entries, of bytes of a name and of dimensions.
const MAX_TENSORS: usize = 1 << 16;
const MAX_METADATA: usize = 1 << 10;
const MAX_NAME: usize = 1 << 8;
const MAX_DIMENSIONS: usize = 8;

/// A safetensors file of which the header has been read and checked, and no tensor yet.
#[derive(Clone)]
pub struct WeightFile {
    path: PathBuf,
    bytes: Bytes,
    metadata: HashMap<String, String>,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Clone)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    /// The range of its bytes in the file.
    at: Range<usize>,
}

impl WeightFile {
    /// Opens a file by mapping it: a tensor is read when its elements are needed. If the system cannot map the file, it
    /// is read.
    ///
    /// The file must not be changed while this or a [`Weight`] from it exists: its weights would change too, and reading
    /// past the end of a file that was shortened ends the process. To replace the file, write another one in the same
    /// folder and rename that, as Recurve does itself.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read; [`Error::Damaged`], [`Error::Tensor`], [`Error::Twice`] and
    /// [`Error::DType`] for what is wrong with its header.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let io = |e| Error::Io { path: path.into(), source: Arc::new(e) };
        let (file, len) = files::open(path).map_err(io)?;
        let bytes = match map(&file) {
            Ok(map) => Bytes::Mapped(Arc::new(map)),
            Err(_) => Bytes::Owned(Arc::new(read(&file, len)?.map_err(io)?)),
        };
        Self::parse(path.into(), bytes)
    }

    /// Reads a file from its bytes.
    ///
    /// # Errors
    /// As [`Self::open`]; they name "bytes in memory" as their file.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        Self::parse(files::MEMORY.into(), Bytes::Owned(Arc::new(bytes)))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The metadata of the file: its `__metadata__` entries.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// The names of the tensors, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|t| &t.shape[..])
    }

    /// A tensor as a weight, if there is one with this name. Nothing is copied.
    ///
    /// # Errors
    /// [`Error::DType`] if its elements are not F32, F16 or BF16.
    pub fn weight(&self, name: &str) -> Result<Option<Weight>> {
        let Some(tensor) = self.tensors.get(name) else { return Ok(None) };
        let dtype = match tensor.dtype {
            Dtype::F32 => WeightType::F32,
            Dtype::F16 => WeightType::F16,
            Dtype::BF16 => WeightType::Bf16,
            other => {
                let got = format!("{other:?}");
                return Err(Error::DType { path: self.path.clone(), name: name.into(), got });
            }
        };
        Ok(Some(Weight::stored(tensor.shape.clone(), dtype, self.bytes.clone(), tensor.at.clone())))
    }

    /// All tensors as weights, by name.
    ///
    /// # Errors
    /// As [`Self::weight`].
    pub fn weights(&self) -> impl Iterator<Item = Result<(&str, Weight)>> {
        self.names().filter_map(|name| Some(self.weight(name).transpose()?.map(|w| (name, w))))
    }

    /// Reads the header, which must account for every byte of the file.
    fn parse(path: PathBuf, bytes: Bytes) -> Result<Self> {
        let damaged = |message: String| Error::Damaged { path: path.clone(), message };
        let all = bytes.get();
        let Some((size, rest)) = all.split_first_chunk() else { return Err(damaged("is cut short".into())) };
        let size = u64::from_le_bytes(*size);
        if size > MAX_HEADER || size > rest.len() as u64 {
            return Err(damaged(format!(
                "the header should have {size} bytes, the file has {}, at most {MAX_HEADER} are read",
                all.len()
            )));
        }
        let (text, data) = rest.split_at(size as usize);
        let text = str::from_utf8(text).map_err(|_| damaged("the header is no text".into()))?;
        let mut header = Header::default();
        let mut json = serde_json::Deserializer::from_str(text);
        if let Err(e) = header.deserialize(&mut json).and_then(|()| json.end()) {
            let message = files::short_message(&e.to_string());
            return Err(match header.reading {
                Some(name) => Error::Tensor {
                    path: path.clone(),
                    name: files::short(&name),
                    message: format!("reads: {message}"),
                },
                None => damaged(message),
            });
        }
        if let Some(name) = header.twice {
            return Err(Error::Twice { path, name: files::short(&name) });
        }
        let start = all.len() - data.len();
        let mut order: Vec<_> = header.tensors.into_iter().collect();
        order.sort_by_key(|(_, t)| t.data_offsets);
        let (mut tensors, mut end) = (BTreeMap::new(), 0);
        for (name, tensor) in order {
            let known = Dtype::deserialize(IntoDeserializer::<Unknown>::into_deserializer(&*tensor.dtype));
            let Ok(dtype) = known else {
                return Err(Error::DType { path, name, got: files::short(&tensor.dtype) });
            };
            let (from, to) = tensor.data_offsets;
            if let Err(message) = tensor.check(dtype, end, data.len()) {
                return Err(Error::Tensor { path, name, message });
            }
            end = to;
            tensors.insert(name, Entry { dtype, shape: tensor.shape, at: start + from..start + to });
        }
        if end != data.len() {
            return Err(damaged(format!("the tensors take {end} bytes, but {} follow the header", data.len())));
        }
        Ok(Self { path, bytes, metadata: header.metadata, tensors })
    }
}

impl fmt::Debug for WeightFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeightFile")
            .field("path", &self.path)
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}

/// The contents of a file that cannot be mapped.
fn read(mut file: &File, len: u64) -> Result<std::io::Result<Vec<u8>>> {
    let mut out = host("WeightFile::open", usize::try_from(len).unwrap_or(usize::MAX))?;
    Ok(file.read_exact(&mut out).map(|()| out))
}

/// An entry of the header for a tensor.
#[derive(Deserialize)]
struct Described {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

impl Described {
    /// Whether it begins where the one before it ends, lies within `len` bytes, and has the size of its shape.
    fn check(&self, dtype: Dtype, begin: usize, len: usize) -> Result<(), String> {
        let (from, to) = self.data_offsets;
        if self.shape.len() > MAX_DIMENSIONS {
            return Err(format!("has {} dimensions, but at most {MAX_DIMENSIONS} are read", self.shape.len()));
        }
        if to < from {
            return Err(format!("ends at byte {to}, before it begins at {from}"));
        }
        if to > len {
            return Err(format!("ends at byte {to}, but only {len} follow the header"));
        }
        if from < begin {
            return Err(format!("begins at byte {from}, within the tensor before it, which ends at {begin}"));
        }
        if from > begin {
            return Err(format!("begins at byte {from}, but the tensor before it ends at {begin}"));
        }
        let bits = self.shape.iter().try_fold(dtype.bitsize(), |n, &d| n.checked_mul(d));
        match bits {
            Some(bits) if bits.is_multiple_of(8) && bits / 8 == to - from => Ok(()),
            Some(_) => {
                Err(format!("takes {} bytes, which is not the size of shape {:?} of {dtype:?}", to - from, self.shape))
            }
            None => Err(format!("has shape {:?}, whose size overflows", self.shape)),
        }
    }
}

/// The contents of a header.
#[derive(Default)]
struct Header {
    metadata: HashMap<String, String>,
    tensors: BTreeMap<String, Described>,
    /// The first name that occurs twice, among tensors or in the metadata.
    twice: Option<String>,
    /// The tensor that is being read.
    reading: Option<String>,
}

impl<'de> DeserializeSeed<'de> for &mut Header {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Header {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let mut described = false;
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                if described {
                    self.twice.get_or_insert(name);
                }
                described = true;
                map.next_value_seed(Pairs(self))?;
                continue;
            }
            if self.tensors.len() == MAX_TENSORS || name.len() > MAX_NAME {
                return Err(M::Error::custom(format_args!(
                    "at most {MAX_TENSORS} tensors are read, with names of at most {MAX_NAME} bytes"
                )));
            }
            self.reading = Some(name.clone());
            let tensor = map.next_value()?;
            self.reading = None;
            if self.tensors.insert(name.clone(), tensor).is_some() {
                self.twice.get_or_insert(name);
            }
        }
        Ok(())
    }
}

/// The metadata of a header.
struct Pairs<'a>(&'a mut Header);

impl<'de> DeserializeSeed<'de> for Pairs<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Pairs<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let Header { metadata, twice, .. } = self.0;
        while let Some((name, value)) = map.next_entry::<String, String>()? {
            if metadata.len() == MAX_METADATA {
                return Err(M::Error::custom(format_args!("at most {MAX_METADATA} entries of metadata are read")));
            }
            if metadata.insert(name.clone(), value).is_some() {
                twice.get_or_insert(name);
            }
        }
        Ok(())
    }
}
