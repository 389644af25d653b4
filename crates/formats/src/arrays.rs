//! Arrays in `.npy` and `.npz` files.

use crate::{Error, Result};
use npyz::{DType as NpyType, NpyFile, TypeChar, WriterBuilder};
use recurve_tensor::{DType, Device, Tensor};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read};
use std::path::Path;
use std::sync::Arc;

/// An array in host memory.
#[derive(Clone, Debug, PartialEq)]
pub struct HostArray {
    /// The dimensions.
    pub shape: Vec<usize>,
    /// The elements, row-major.
    pub data: HostData,
}

/// The elements of a [`HostArray`].
#[derive(Clone, Debug, PartialEq)]
pub enum HostData {
    /// Floats of any width.
    Float(Vec<f32>),
    /// Integers of any width.
    Int(Vec<i64>),
}

impl HostArray {
    /// The array as a tensor of this type. Integers become floats where floats are needed; floats
    /// never become integers.
    ///
    /// # Errors
    /// [`Error::Input`] if the elements do not fit the type; errors of the device.
    pub fn to_tensor(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let bad = |message: String| Error::Input { name: name.into(), message };
        match (&self.data, dtype) {
            (HostData::Int(v), DType::U32) => {
                let ids: Vec<u32> = v
                    .iter()
                    .map(|&v| {
                        u32::try_from(v).map_err(|_| bad(format!("contains {v}, but ids and lengths are 0 or more")))
                    })
                    .collect::<Result<_>>()?;
                Ok(Tensor::from_u32(&ids, &self.shape, device)?)
            }
            (HostData::Float(_), DType::U32) => Err(bad("holds floats, but integers are needed".into())),
            (HostData::Float(v), _) => Ok(Tensor::from_f32(v, &self.shape, device)?.to_dtype(dtype)?),
            (HostData::Int(v), _) => {
                let v: Vec<f32> = v.iter().map(|&v| v as f32).collect();
                Ok(Tensor::from_f32(&v, &self.shape, device)?.to_dtype(dtype)?)
            }
        }
    }
}

/// Reads a `.npy` file, or the array `name` of a `.npz` file (its only one if there is one).
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Array`] if it is not what it should be.
pub fn read_array(path: &Path, name: &str) -> Result<HostArray> {
    let io = |e: std::io::Error| Error::Io { path: path.into(), source: Arc::new(e) };
    let bad = |message: String| Error::Array { path: path.into(), message };
    let file = BufReader::new(File::open(path).map_err(io)?);
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npz")) {
        let mut zip = npyz::npz::NpzArchive::new(file).map_err(|e| bad(format!("not a .npz file ({e})")))?;
        let names: Vec<String> = zip.array_names().map(str::to_owned).collect();
        let pick = match &names[..] {
            [only] => only.clone(),
            _ if names.iter().any(|n| n == name) => name.to_owned(),
            _ => return Err(bad(format!("has no array `{name}`; it has {}", names.join(", ")))),
        };
        let npy = zip.by_name(&pick).map_err(|e| bad(e.to_string()))?;
        decode(npy.ok_or_else(|| bad(format!("has no array `{pick}`")))?).map_err(bad)
    } else {
        decode(NpyFile::new(file).map_err(|e| bad(format!("not a .npy file ({e})")))?).map_err(bad)
    }
}

fn decode<R: Read>(npy: NpyFile<R>) -> Result<HostArray, String> {
    let shape: Vec<usize> = npy
        .shape()
        .iter()
        .map(|&d| usize::try_from(d).map_err(|_| format!("dimension {d} is too large")))
        .collect::<Result<_, _>>()?;
    if npy.order() != npyz::Order::C && shape.len() > 1 {
        return Err("is in Fortran order; save it with numpy.ascontiguousarray".into());
    }
    let NpyType::Plain(t) = npy.dtype() else {
        return Err("holds records, but plain numbers are needed".into());
    };
    let e = |e: std::io::Error| e.to_string();
    let data = match (t.type_char(), t.size_field()) {
        (TypeChar::Float, 4) => HostData::Float(npy.into_vec::<f32>().map_err(e)?),
        (TypeChar::Float, 8) => {
            HostData::Float(npy.into_vec::<f64>().map_err(e)?.into_iter().map(|v| v as f32).collect())
        }
        (TypeChar::Int, 1) => ints(npy.into_vec::<i8>().map_err(e)?),
        (TypeChar::Int, 2) => ints(npy.into_vec::<i16>().map_err(e)?),
        (TypeChar::Int, 4) => ints(npy.into_vec::<i32>().map_err(e)?),
        (TypeChar::Int, 8) => HostData::Int(npy.into_vec::<i64>().map_err(e)?),
        (TypeChar::Uint, 1) => ints(npy.into_vec::<u8>().map_err(e)?),
        (TypeChar::Uint, 2) => ints(npy.into_vec::<u16>().map_err(e)?),
        (TypeChar::Uint, 4) => ints(npy.into_vec::<u32>().map_err(e)?),
        _ => return Err(format!("has element type {t}, but f4, f8, i1 to i8 or u1 to u4 is needed")),
    };
    Ok(HostArray { shape, data })
}

fn ints<T: Into<i64>>(v: Vec<T>) -> HostData {
    HostData::Int(v.into_iter().map(Into::into).collect())
}

/// Writes floats as a `.npy` file, or as the array `name` of a `.npz` file.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written.
pub fn write_array(path: &Path, name: &str, shape: &[usize], data: &[f32]) -> Result<()> {
    let io = |e: std::io::Error| Error::Io { path: path.into(), source: Arc::new(e) };
    let shape: Vec<u64> = shape.iter().map(|&d| d as u64).collect();
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npz")) {
        let mut zip = npyz::npz::NpzWriter::create(path).map_err(io)?;
        let mut array = zip
            .array(name, npyz::zip::write::FileOptions::default())
            .map_err(io)?
            .default_dtype()
            .shape(&shape)
            .begin_nd()
            .map_err(io)?;
        array.extend(data.iter().copied()).map_err(io)?;
        array.finish().map_err(io)
    } else {
        let file = BufWriter::new(File::create(path).map_err(io)?);
        let mut array = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(file).begin_nd().map_err(io)?;
        array.extend(data.iter().copied()).map_err(io)?;
        array.finish().map_err(io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_survive_both_kinds_of_file() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["a.npy", "a.npz"] {
            let path = dir.path().join(file);
            write_array(&path, "x", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.5]).unwrap();
            let a = read_array(&path, "x").unwrap();
            assert_eq!(a.shape, [2, 3]);
            assert_eq!(a.data, HostData::Float(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.5]));
        }
    }

    #[test]
    fn bad_files_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        assert!(matches!(read_array(&path, "x"), Err(Error::Io { .. })));
        std::fs::write(&path, b"no array").unwrap();
        assert!(matches!(read_array(&path, "x"), Err(Error::Array { .. })));
        let zip = dir.path().join("a.npz");
        std::fs::write(&zip, b"PK no zip").unwrap();
        assert!(matches!(read_array(&zip, "x"), Err(Error::Array { .. })));
    }
}
