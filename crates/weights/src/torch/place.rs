//! Where in a file the elements of a tensor are.

use super::pickle::{Id, Pickle, Rebuild, Value};
use crate::WeightType;
use crate::file::{Entry, MAX_DIMENSIONS, Storage};
use std::sync::Arc;

/// Tensors whose elements do not follow each other are copied; all copies together may have this many bytes more than
/// twice the file.
pub(super) const COPIES: usize = 8 << 20;

/// A type of elements, with its size.
pub(super) struct Kind {
    pub(super) dtype: Result<WeightType, String>,
    pub(super) size: usize,
}

impl Kind {
    fn known(t: WeightType) -> Self {
        Self { dtype: Ok(t), size: t.size() }
    }

    /// The elements of a class of storages; `None` for one that holds bytes.
    fn of_storage(class: &str) -> Result<Option<Self>, String> {
        let name = class.strip_prefix("torch.cuda.").or_else(|| class.strip_prefix("torch."));
        Ok(Some(Self::known(match name {
            Some("FloatStorage") => WeightType::F32,
            Some("DoubleStorage") => WeightType::F64,
            Some("HalfStorage") => WeightType::F16,
            Some("BFloat16Storage") => WeightType::Bf16,
            Some("LongStorage") => WeightType::I64,
            Some("IntStorage") => WeightType::I32,
            Some("ShortStorage") => WeightType::I16,
            Some("CharStorage") => WeightType::I8,
            Some("ByteStorage") => WeightType::U8,
            Some("BoolStorage") => WeightType::Bool,
            Some("storage.UntypedStorage" | "UntypedStorage") => return Ok(None),
            Some(other @ ("ComplexFloatStorage" | "ComplexDoubleStorage")) => {
                let size = if other == "ComplexFloatStorage" { 8 } else { 16 };
                return Ok(Some(Self { dtype: Err(other.replace("Storage", "")), size }));
            }
            _ => return Err(format!("has its elements in a `{class}`, which is not read")),
        })))
    }

    /// The elements of a `torch.dtype`.
    fn of_dtype(name: &str) -> Result<Self, String> {
        Ok(Self::known(match name.strip_prefix("torch.").unwrap_or(name) {
            "float32" => WeightType::F32,
            "float64" => WeightType::F64,
            "float16" => WeightType::F16,
            "bfloat16" => WeightType::Bf16,
            "int64" => WeightType::I64,
            "int32" => WeightType::I32,
            "int16" => WeightType::I16,
            "int8" => WeightType::I8,
            "uint64" => WeightType::U64,
            "uint32" => WeightType::U32,
            "uint16" => WeightType::U16,
            "uint8" => WeightType::U8,
            "bool" => WeightType::Bool,
            other if other.starts_with("float8_") => return Ok(Self { dtype: Err(other.into()), size: 1 }),
            other => return Err(format!("has element type {other}, which is not read")),
        }))
    }

    /// The elements of a number of PyTorch's `ScalarType`, as `torch.export` writes it.
    pub(super) fn of_export(number: u32) -> Result<Self, String> {
        Ok(Self::known(match number {
            1 => WeightType::U8,
            2 => WeightType::I8,
            3 => WeightType::I16,
            4 => WeightType::I32,
            5 => WeightType::I64,
            6 => WeightType::F16,
            7 => WeightType::F32,
            8 => WeightType::F64,
            12 => WeightType::Bool,
            13 => WeightType::Bf16,
            28 => WeightType::U16,
            34 => WeightType::U32,
            35 => WeightType::U64,
            other => return Err(format!("has element type {other} of torch.export, which is not read")),
        }))
    }
}

/// The bytes of an element of a class of storages.
pub(super) fn storage_size(class: &str) -> Result<usize, String> {
    Ok(Kind::of_storage(class)?.map_or(1, |k| k.size))
}

/// A request for a storage: its key, the size of its elements, its bytes.
pub(super) struct Wanted<'a> {
    pub(super) key: &'a str,
    pub(super) size: usize,
    pub(super) len: usize,
    /// Whether elements have an order of bytes that is known.
    pub(super) typed: bool,
}

/// The storages of a file by their keys.
pub(super) trait Storages {
    fn storage(&mut self, wanted: &Wanted<'_>) -> Result<Arc<Storage>, Failure>;
}

/// What can be wrong with a storage.
pub(super) enum Failure {
    Message(String),
    Memory(recurve_tensor::Error),
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Message(message)
    }
}

/// A part of a storage: where its elements begin, in elements, and how they are arranged.
pub(super) struct View {
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

impl View {
    /// The tensor of elements of this kind in a storage that has `len` bytes from byte `start` of what holds them.
    pub(super) fn entry(
        self,
        kind: Kind,
        storage: Arc<Storage>,
        part: std::ops::Range<usize>,
        copies: &mut usize,
    ) -> Result<Entry, String> {
        let Self { offset, shape, strides } = self;
        if shape.len() > MAX_DIMENSIONS {
            return Err(format!("has {} dimensions, but at most {MAX_DIMENSIONS} are read", shape.len()));
        }
        if strides.len() != shape.len() {
            return Err(format!("has {} dimensions and {} strides", shape.len(), strides.len()));
        }
        let overflow = || format!("has shape {shape:?}, whose size overflows");
        let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or_else(overflow)?;
        let bytes = count.checked_mul(kind.size).ok_or_else(overflow)?;
        // The distance of the last element from the first.
        let last =
            shape.iter().zip(&strides).try_fold(0usize, |n, (&d, &s)| n.checked_add((d.max(1) - 1).checked_mul(s)?));
        let has = part.len() / kind.size;
        let end = last.and_then(|last| last.checked_add(offset)?.checked_add(usize::from(count > 0)));
        let Some(end) = end.filter(|&end| end <= has) else {
            return Err(format!(
                "reaches past its storage of {has} elements: offset {offset}, shape {shape:?}, strides {strides:?}"
            ));
        };
        let start = part.start + offset * kind.size;
        let mut dense = 1;
        let row_major = shape.iter().zip(&strides).rev().all(|(&d, &s)| {
            let fits = d == 1 || s == dense;
            dense *= d;
            fits
        });
        if count == 0 || row_major {
            let at = start..start + bytes;
            return Ok(Entry { dtype: kind.dtype, shape, at, strides: None, storage: Some(storage) });
        }
        let Some(left) = copies.checked_sub(bytes) else {
            return Err(format!("is a view of shape {shape:?} and strides {strides:?}, too large for this file"));
        };
        *copies = left;
        let at = start..part.start + end * kind.size;
        Ok(Entry { dtype: kind.dtype, shape, at, strides: Some(strides), storage: Some(storage) })
    }
}

/// The tensor that a pickle made.
pub(super) fn entry(
    p: &Pickle<'_>,
    tensor: Id,
    storages: &mut dyn Storages,
    copies: &mut usize,
) -> Result<Entry, Failure> {
    let &Value::Tensor(form, arguments) = p.get(tensor) else { return Err("is no tensor".to_owned().into()) };
    let odd = || Failure::from("is made of arguments that are not understood".to_owned());
    let own = p.tuple(arguments).ok_or_else(odd)?;
    let &[storage, offset, shape, strides, ..] = own else { return Err(odd()) };
    let (dtype, metadata) = match form {
        Rebuild::V1 => (None, None),
        Rebuild::V2 => (None, own.get(6)),
        Rebuild::V3 => (Some(own.get(6).and_then(|&id| p.global(id)).ok_or_else(odd)?), own.get(7)),
    };
    // Such as `conj` and `neg`: the elements are those of the storage, but for a sign.
    let plain = metadata.is_none_or(|&m| match p.get(m) {
        Value::None => true,
        Value::Dict(v) => v.iter().all(|(_, v)| matches!(p.get(*v), Value::Bool(false))),
        _ => false,
    });
    if !plain {
        return Err("is a view that negates or conjugates its storage, which is not read".to_owned().into());
    }
    let sizes = |id: Id| -> Option<Vec<usize>> {
        let own = p.tuple(id).filter(|own| own.len() <= 64)?;
        own.iter().map(|&d| p.size(d)).collect()
    };
    let view = View {
        offset: p.size(offset).ok_or_else(odd)?,
        shape: sizes(shape).ok_or_else(odd)?,
        strides: sizes(strides).ok_or_else(odd)?,
    };
    let &Value::Storage(fields) = p.get(storage) else { return Err(odd()) };
    let &[_, class, key, _, count, ref rest @ ..] = p.tuple(fields).ok_or_else(odd)? else { return Err(odd()) };
    let class = p.global(class).ok_or_else(odd)?;
    let stored = Kind::of_storage(&class)?;
    let kind = match (&stored, dtype) {
        (None, None) => return Err("has no element type".to_owned().into()),
        (Some(_), None) => Kind::of_storage(&class)?.ok_or_else(odd)?,
        (_, Some(dtype)) => Kind::of_dtype(&dtype)?,
    };
    let size = stored.as_ref().map_or(1, |k| k.size);
    let len = p.size(count).and_then(|n| n.checked_mul(size)).ok_or_else(odd)?;
    let key = p.text(key).ok_or_else(odd)?;
    let storage = storages.storage(&Wanted { key, size, len, typed: stored.is_some() })?;
    // Before PyTorch 0.4 a storage could be a part of another one.
    let part = match rest.first().map(|&id| (p.get(id), p.tuple(id))) {
        None | Some((Value::None, _)) => Some(0..len),
        Some((_, Some(&[_, from, count]))) => (|| {
            let from = p.size(from)?.checked_mul(size)?;
            let to = from.checked_add(p.size(count)?.checked_mul(size)?)?;
            (to <= len).then_some(from..to)
        })(),
        _ => None,
    };
    let part = part.ok_or_else(odd)?;
    let base = if storage.own.is_some() { 0 } else { storage.at.start };
    let part = base + part.start..base + part.end;
    Ok(view.entry(kind, storage, part, copies)?)
}
