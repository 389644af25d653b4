//! Tensors of an ONNX file, and their element types.

use super::proto::{DataLocation, TensorProto};
use crate::files::short;
use half::{bf16, f16};
use recurve_graph::{Constant, Element, Int};
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

/// An element type of ONNX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DataType {
    Float,
    Float16,
    BFloat16,
    Double,
    Int(Int),
    Bool,
}

impl DataType {
    /// By its number in `TensorProto.DataType`, or why it is not supported.
    pub(crate) fn of(number: i32) -> Result<Self, String> {
        let unsupported = match number {
            1 => return Ok(Self::Float),
            2 => return Ok(Self::Int(Int::U8)),
            3 => return Ok(Self::Int(Int::I8)),
            4 => return Ok(Self::Int(Int::U16)),
            5 => return Ok(Self::Int(Int::I16)),
            6 => return Ok(Self::Int(Int::I32)),
            7 => return Ok(Self::Int(Int::I64)),
            8 => "string",
            9 => return Ok(Self::Bool),
            10 => return Ok(Self::Float16),
            11 => return Ok(Self::Double),
            12 => return Ok(Self::Int(Int::U32)),
            13 => return Ok(Self::Int(Int::U64)),
            14 => "complex64",
            15 => "complex128",
            16 => return Ok(Self::BFloat16),
            17..=20 => "float8",
            21 | 22 => "int4",
            23 => "float4",
            24 => "float8e8m0",
            other => return Err(format!("element type number {other} is unknown")),
        };
        Err(format!("element type {unsupported} is not supported"))
    }

    /// How its elements stand in a graph: every float as f32.
    pub(crate) const fn element(self) -> Element {
        match self {
            Self::Float | Self::Float16 | Self::BFloat16 | Self::Double => Element::F32,
            Self::Int(int) => Element::Int(int),
            Self::Bool => Element::Bool,
        }
    }

    /// Bytes of an element.
    const fn size(self) -> usize {
        match self {
            Self::Bool | Self::Int(Int::I8 | Int::U8) => 1,
            Self::Float16 | Self::BFloat16 | Self::Int(Int::I16 | Int::U16) => 2,
            Self::Float | Self::Int(Int::I32 | Int::U32) => 4,
            Self::Double | Self::Int(Int::I64 | Int::U64) => 8,
        }
    }
}

/// A tensor of a file as a constant of a graph, with its dimensions.
///
/// # Errors
/// In words what is wrong with it.
pub(crate) fn constant(t: &TensorProto, folder: Option<&Path>) -> Result<(Vec<usize>, Constant), String> {
    let fail = |what: String| format!("tensor `{}`: {what}", short(&t.name));
    let kind = DataType::of(t.data_type).map_err(fail)?;
    let dims: Option<Vec<usize>> = t.dims.iter().map(|&d| usize::try_from(d).ok()).collect();
    let count = dims.as_ref().and_then(|d| d.iter().try_fold(1usize, |n, &d| n.checked_mul(d)));
    let (Some(dims), Some(count)) = (dims, count) else {
        return Err(fail(format!("has shape {:?}", t.dims)));
    };
    let raw = if t.data_location == DataLocation::External as i32 {
        Some(Cow::Owned(external(t, count.saturating_mul(kind.size()), folder).map_err(fail)?))
    } else {
        t.raw_data.as_deref().map(Cow::Borrowed)
    };
    let got = |n: usize| fail(format!("of shape {dims:?} has {count} elements, but its data has {n}"));
    if let Some(raw) = raw {
        if raw.len() != count.saturating_mul(kind.size()) {
            return Err(got(raw.len() / kind.size()));
        }
        return Ok((dims, from_raw(kind, &raw)));
    }
    let ints = || -> Vec<i64> { t.int32_data.iter().map(|&v| v.into()).collect() };
    let numbers = match kind {
        DataType::Float => Constant::Float(t.float_data.as_slice().into()),
        DataType::Double => Constant::Float(t.double_data.iter().map(|&v| v as f32).collect()),
        DataType::Float16 => Constant::Float(t.int32_data.iter().map(|&v| f16::from_bits(v as u16).to_f32()).collect()),
        DataType::BFloat16 => {
            Constant::Float(t.int32_data.iter().map(|&v| bf16::from_bits(v as u16).to_f32()).collect())
        }
        DataType::Int(int @ Int::I64) => Constant::Int(int, t.int64_data.as_slice().into()),
        DataType::Int(int @ (Int::U32 | Int::U64)) => {
            let all: Option<Vec<i64>> = t.uint64_data.iter().map(|&v| i64::try_from(v).ok()).collect();
            let all = all.ok_or_else(|| fail("holds an integer above 2^63 - 1, which is not supported".into()))?;
            Constant::Int(int, all.into())
        }
        DataType::Int(int) => Constant::Int(int, ints().into_iter().map(|v| int.wrap(v)).collect()),
        DataType::Bool => Constant::Bool(ints().into_iter().map(|v| (v != 0).into()).collect()),
    };
    if numbers.count() != count {
        return Err(got(numbers.count()));
    }
    Ok((dims, numbers))
}

/// Elements from their bytes, little-endian, a whole number of them.
fn from_raw(kind: DataType, raw: &[u8]) -> Constant {
    // The length is known, so the numbers are written where they stay.
    fn each<const N: usize, T>(raw: &[u8], f: impl Fn([u8; N]) -> T) -> Arc<[T]> {
        raw.as_chunks::<N>().0.iter().map(|b| f(*b)).collect()
    }
    let ints = |int: Int| -> Arc<[i64]> {
        match int {
            Int::I8 => each(raw, |b| i8::from_le_bytes(b).into()),
            Int::U8 => each(raw, |b| u8::from_le_bytes(b).into()),
            Int::I16 => each(raw, |b| i16::from_le_bytes(b).into()),
            Int::U16 => each(raw, |b| u16::from_le_bytes(b).into()),
            Int::I32 => each(raw, |b| i32::from_le_bytes(b).into()),
            Int::U32 => each(raw, |b| u32::from_le_bytes(b).into()),
            Int::I64 | Int::U64 => each(raw, i64::from_le_bytes),
        }
    };
    match kind {
        DataType::Float => Constant::Float(each(raw, f32::from_le_bytes)),
        DataType::Double => Constant::Float(each(raw, |b| f64::from_le_bytes(b) as f32)),
        DataType::Float16 => Constant::Float(each(raw, |b| f16::from_le_bytes(b).to_f32())),
        DataType::BFloat16 => Constant::Float(each(raw, |b| bf16::from_le_bytes(b).to_f32())),
        DataType::Int(int) => Constant::Int(int, ints(int)),
        DataType::Bool => Constant::Bool(each(raw, |[b]: [u8; 1]| (b != 0).into())),
    }
}

/// The bytes of a tensor that stands in a file of its own, which must be in the model's folder.
fn external(t: &TensorProto, bytes: usize, folder: Option<&Path>) -> Result<Vec<u8>, String> {
    use std::io::{Read, Seek, SeekFrom};
    let get = |key: &str| t.external_data.iter().find(|e| e.key == key).map(|e| &*e.value);
    let number = |key: &str| match get(key).map(str::parse::<u64>) {
        None => Ok(None),
        Some(Ok(n)) => Ok(Some(n)),
        Some(Err(_)) => Err(format!("has an {key} of external data that is no number")),
    };
    let location = get("location").ok_or("has external data without a location")?;
    let folder = folder.ok_or("has external data, which bytes in memory cannot have")?;
    let refused = || format!("has external data at `{}`, which is not in the model's folder", short(location));
    let full = folder.join(location).canonicalize().map_err(|e| format!("external data `{}`: {e}", short(location)))?;
    let inside = folder.canonicalize().map_err(|e| format!("the model's folder: {e}"))?;
    if Path::new(location).is_absolute() || !full.starts_with(&inside) {
        return Err(refused());
    }
    let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
    if length.is_some_and(|l| l != bytes as u64) {
        return Err(format!("has {} bytes of external data, expected {bytes}", length.unwrap_or(0)));
    }
    let io = |e: std::io::Error| format!("external data `{}`: {e}", short(location));
    let mut file = std::fs::File::open(&full).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    if offset.checked_add(bytes as u64).is_none_or(|end| end > size) {
        return Err(format!("needs {bytes} bytes from {offset} on of external data, but the file has {size}"));
    }
    let mut all = recurve_tensor::cpu::host("external data", bytes).map_err(|e| e.to_string())?;
    file.seek(SeekFrom::Start(offset)).map_err(io)?;
    file.read_exact(&mut all).map_err(io)?;
    Ok(all)
}
