//! The headers of safetensors files.

use crate::file::{Contents, Entry, MAX_DIMENSIONS, MAX_NAME, MAX_TENSORS};
use crate::weight::Bytes;
use crate::{Error, Result, WeightFormat, WeightType, files};
use safetensors::Dtype;
use serde::de::value::Error as Unknown;
use serde::de::{DeserializeSeed, Error as _, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

/// Largest size of a header in bytes: enough for a vocabulary of a million words.
const MAX_HEADER: u64 = 1 << 24;
/// Limit on the number of metadata entries.
const MAX_METADATA: usize = 1 << 10;

/// Reads the header, which must account for every byte of the file.
pub(crate) fn parse(path: &Path, bytes: &Bytes) -> Result<Contents> {
    let damaged = |message: String| Error::Damaged { path: path.into(), message };
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
            Some(name) => {
                Error::Tensor { path: path.into(), name: files::short(&name), message: format!("reads: {message}") }
            }
            None => damaged(message),
        });
    }
    if let Some(name) = header.twice {
        return Err(Error::Twice { path: path.into(), name: files::short(&name) });
    }
    let start = all.len() - data.len();
    let mut order: Vec<_> = header.tensors.into_iter().collect();
    order.sort_by_key(|(_, t)| t.data_offsets);
    let (mut tensors, mut end) = (BTreeMap::new(), 0);
    for (name, tensor) in order {
        let known = Dtype::deserialize(IntoDeserializer::<Unknown>::into_deserializer(&*tensor.dtype));
        let Ok(dtype) = known else {
            return Err(Error::DType { path: path.into(), name, got: files::short(&tensor.dtype) });
        };
        let (from, to) = tensor.data_offsets;
        if let Err(message) = tensor.check(dtype, end, data.len()) {
            return Err(Error::Tensor { path: path.into(), name, message });
        }
        end = to;
        let dtype = WeightType::try_from(dtype).map_err(|other| format!("{other:?}"));
        tensors.insert(name, Entry::at(dtype, tensor.shape, start + from..start + to));
    }
    if end != data.len() {
        return Err(damaged(format!("the tensors take {end} bytes, but {} follow the header", data.len())));
    }
    Ok(Contents { format: WeightFormat::Safetensors, metadata: header.metadata, tensors, notes: Vec::new() })
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
