//! Reading and writing arrays in `.npy` and `.npz` files.

use crate::files::{self, short, some_names};
use crate::{Error, Result, npy};
use flate2::bufread::DeflateDecoder;
use rawzip::{CompressionMethod, ReaderAt, ZipArchiveEntryWayfinder, ZipArchiveWriter, ZipLocator};
use recurve_tensor::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};
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
#[non_exhaustive]
pub enum HostData {
    /// Floats of any width.
    Float(Vec<f32>),
    /// Integers of any width.
    Int(Vec<i64>),
}

impl HostData {
    /// The elements, if they are integers.
    pub fn ints(&self) -> Option<&[i64]> {
        match self {
            Self::Int(v) => Some(v),
            Self::Float(_) => None,
        }
    }
}

impl HostArray {
    /// The elements as f64.
    pub fn to_f64(&self) -> Vec<f64> {
        match &self.data {
            HostData::Float(v) => v.iter().map(|&v| v.into()).collect(),
            HostData::Int(v) => v.iter().map(|&v| v as f64).collect(),
        }
    }

    /// The elements as f32, integers rounded where f32 does not hold them.
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.data {
            HostData::Float(v) => v.clone(),
            HostData::Int(v) => v.iter().map(|&v| v as f32).collect(),
        }
    }

    /// The array as a tensor of this type. Integers are converted to floats where floats are needed; floats are never
    /// converted to integers.
    ///
    /// # Errors
    /// [`Error::Input`] if the elements cannot be represented in the type; errors of the device.
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

/// Largest size of a compressed array in memory, in bytes: 1 GiB. An array that is not compressed is limited by the
/// size of its file.
const MAX_INFLATED: u64 = 1 << 30;

/// Deflate produces at most this many bytes from one.
const MAX_RATIO: u64 = 1032;

/// Limits on the arrays of a `.npz` file and on the bytes of a name.
const MAX_ARRAYS: usize = 1 << 16;
const MAX_NAME: usize = 1 << 10;

/// Which array of a `.npz` file to read.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    /// The array with this name.
    Named(&'a str),
    /// The array with this name, or the only array of the file.
    NamedOrOnly(&'a str),
}

/// Reads a `.npy` file, or the array `name` of a `.npz` file. If a `.npz` file has only one array, its name does not
/// matter.
///
/// Element types f2, f4 and f8 are read as f32; i1 to i8, u1 to u8 and b1 as i64; in both byte orders and both orders
/// of dimensions. A compressed array may take up to 1 GiB of memory. The size of the data must be exactly what the
/// header states.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Array`] if it is damaged or of an unsupported kind.
pub fn read_array(path: &Path, name: &str) -> Result<HostArray> {
    read_wanted(path, Wanted::NamedOrOnly(name))
}

/// Reads the array `name` of a `.npz` file. A `.npy` file has no names, so its array is read whatever the name.
///
/// # Errors
/// As [`read_array`].
pub fn read_named_array(path: &Path, name: &str) -> Result<HostArray> {
    read_wanted(path, Wanted::Named(name))
}

/// Reads an array from the bytes of a `.npy` file.
///
/// # Errors
/// [`Error::Array`].
pub fn npy_from_bytes(bytes: &[u8]) -> Result<HostArray> {
    npy::read(&mut &bytes[..], bytes.len() as u64, u64::MAX).map_err(in_memory)
}

/// Reads the array `name` from the bytes of a `.npz` file.
///
/// # Errors
/// [`Error::Array`].
pub fn npz_from_bytes(bytes: &[u8], name: &str) -> Result<HostArray> {
    read_npz(bytes, bytes.len() as u64, Wanted::Named(name)).map_err(in_memory)
}

fn in_memory(message: String) -> Error {
    Error::Array { path: files::MEMORY.into(), message }
}

fn read_wanted(path: &Path, wanted: Wanted<'_>) -> Result<HostArray> {
    let (file, len) = files::open(path).map_err(|e| Error::Io { path: path.into(), source: Arc::new(e) })?;
    let array = if is_npz(path) {
        read_npz(rawzip::FileReader::from(file), len, wanted)
    } else {
        npy::read(&mut BufReader::new(file), len, u64::MAX)
    };
    array.map_err(|message| Error::Array { path: path.into(), message })
}

fn is_npz(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npz"))
}

/// Reads an array of an archive of `len` bytes.
fn read_npz(file: impl ReaderAt, len: u64, wanted: Wanted<'_>) -> Result<HostArray, String> {
    let damaged = |e: rawzip::Error| format!("is not a .npz file, or is damaged ({e})");
    let mut buffer = vec![0; rawzip::MAX_CENTRAL_DIRECTORY_RECORD_SIZE];
    let archive = ZipLocator::new().locate_in_reader(file, &mut buffer, len).map_err(|(_, e)| damaged(e))?;

    struct Entry {
        place: ZipArchiveEntryWayfinder,
        method: CompressionMethod,
        encrypted: bool,
    }
    let mut arrays: BTreeMap<String, Entry> = BTreeMap::new();
    let mut entries = archive.entries(&mut buffer);
    let mut count = 0;
    while let Some(entry) = entries.next_entry().map_err(damaged)? {
        count += 1;
        let path = entry.file_path();
        if count > MAX_ARRAYS || path.as_ref().len() > MAX_NAME {
            return Err(format!("has more than {MAX_ARRAYS} files in it, or a name of more than {MAX_NAME} bytes"));
        }
        let path = String::from_utf8_lossy(path.as_ref());
        // Like numpy, which only treats files with this extension as arrays.
        let Some(name) = path.strip_suffix(".npy") else { continue };
        let (method, encrypted) = (entry.compression_method(), entry.flags().is_encrypted());
        let entry = Entry { place: entry.wayfinder(), method, encrypted };
        if arrays.insert(name.to_owned(), entry).is_some() {
            return Err(format!("has the array `{}` twice", short(name)));
        }
    }
    let found = match wanted {
        Wanted::Named(name) => arrays.get_key_value(name),
        Wanted::NamedOrOnly(name) => {
            arrays.get_key_value(name).or_else(|| arrays.iter().next().filter(|_| arrays.len() == 1))
        }
    };
    let (Wanted::Named(name) | Wanted::NamedOrOnly(name)) = wanted;
    let Some((name, Entry { place, method, encrypted })) = found else {
        let there = some_names(arrays.keys().map(String::as_str));
        return Err(format!("has no array `{}`; it has {there}", short(name)));
    };
    let at = |message: String| format!("array `{}`: {message}", short(name));
    let entry = archive.get_entry(*place).map_err(|e| at(damaged(e)))?;
    let (begin, end) = entry.compressed_data_range();
    let (stored, size) = (end.saturating_sub(begin), place.uncompressed_size_hint());
    let raw = BufReader::new(entry.reader());
    match *method {
        _ if *encrypted => Err("is encrypted".into()),
        CompressionMethod::STORE if size != stored => Err(format!("should have {size} bytes, but has {stored}")),
        CompressionMethod::STORE => whole(entry.verifying_reader(raw), size, u64::MAX),
        CompressionMethod::DEFLATE if size / MAX_RATIO > stored => {
            Err(format!("should have {size} bytes, which {stored} compressed bytes cannot contain"))
        }
        CompressionMethod::DEFLATE => whole(entry.verifying_reader(DeflateDecoder::new(raw)), size, MAX_INFLATED),
        other => Err(format!("is compressed by method {other}, but stored and deflated arrays are read")),
    }
    .map_err(at)
}

/// Reads an array from `r`, which must contain nothing else.
fn whole(mut r: impl Read, size: u64, limit: u64) -> Result<HostArray, String> {
    let array = npy::read(&mut r, size, limit)?;
    // Reading past the end makes the decompressor compare the checksum.
    match r.read(&mut [0]) {
        Ok(0) => Ok(array),
        Ok(_) => Err("has data after its end".into()),
        Err(e) => Err(e.to_string()),
    }
}

/// Writes floats as a `.npy` file, or as the only array `name` of a `.npz` file. An existing file is replaced only once
/// the new one is complete.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written, [`Error::Array`] if `data` does not match `shape` or `name` cannot be
/// the name of an array.
pub fn write_array(path: &Path, name: &str, shape: &[usize], data: &[f32]) -> Result<()> {
    write_as(path, name, shape, data.len(), &|w| npy::write(w, shape, data))
}

/// [`write_array`] for an array of floats or integers; integers are written as 64-bit ones.
///
/// # Errors
/// As [`write_array`].
pub fn write_host_array(path: &Path, name: &str, array: &HostArray) -> Result<()> {
    let shape = &array.shape;
    match &array.data {
        HostData::Float(v) => write_array(path, name, shape, v),
        HostData::Int(v) => write_as(path, name, shape, v.len(), &|w| npy::write_ints(w, shape, v)),
    }
}

type Writes<'a> = &'a dyn Fn(&mut dyn Write) -> io::Result<()>;

fn write_as(path: &Path, name: &str, shape: &[usize], count: usize, write: Writes<'_>) -> Result<()> {
    let bad = |message: String| Error::Array { path: path.into(), message };
    if shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)) != Some(count) {
        return Err(bad(format!("{count} elements do not fill the shape {shape:?}")));
    }
    let written = if is_npz(path) {
        let entry = format!("{name}.npy");
        // The archive would store such a name in another form, under which it would not be found.
        if entry.len() > MAX_NAME || rawzip::path::ZipFilePath::from_str(&entry).as_str() != entry {
            return Err(bad(format!("`{}` cannot be the name of an array in a .npz file", short(name))));
        }
        files::write_file(path, |w| write_npz(w, &entry, write))
    } else {
        files::write_file(path, write)
    };
    written.map_err(|e| Error::Io { path: path.into(), source: Arc::new(e) })
}

/// Writes an archive of one uncompressed array, as `numpy.savez` does.
fn write_npz(w: &mut dyn Write, entry: &str, write: Writes<'_>) -> io::Result<()> {
    let system = |e: rawzip::Error| match e.into_kind() {
        rawzip::ErrorKind::IO(e) => e,
        other => io::Error::other(other.to_string()),
    };
    let mut archive = ZipArchiveWriter::new(w);
    let (mut file, config) = archive.new_file(entry).start().map_err(system)?;
    let mut body = config.wrap(&mut file);
    write(&mut body)?;
    let (_, descriptor) = body.finish().map_err(system)?;
    file.finish(descriptor).map_err(system)?;
    archive.finish().map(drop).map_err(system)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::DeflateEncoder};

    #[test]
    fn arrays_survive_both_kinds_of_file() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["a.npy", "a.npz"] {
            let path = dir.path().join(file);
            write_array(&path, "x/了", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.5]).unwrap();
            let a = read_array(&path, "x/了").unwrap();
            assert_eq!(a.shape, [2, 3]);
            assert_eq!(a.data, HostData::Float(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.5]));
            assert_eq!(read_named_array(&path, "x/了").unwrap(), a);
            assert_eq!(read_array(&path, "y").unwrap(), a);
        }
        for file in ["i.npy", "i.npz"] {
            let a = HostArray { shape: vec![2], data: HostData::Int(vec![i64::MIN, 1 << 60]) };
            write_host_array(&dir.path().join(file), "i", &a).unwrap();
            assert_eq!(read_array(&dir.path().join(file), "i").unwrap(), a);
        }
        let npz = dir.path().join("a.npz");
        let e = read_named_array(&npz, "y").unwrap_err().to_string();
        assert!(e.contains("has no array `y`; it has x/了"), "{e}");
        for name in ["../x", "/x", "a//b", "c:\\x", &"x".repeat(2000)] {
            assert!(matches!(write_array(&npz, name, &[1], &[0.0]), Err(Error::Array { .. })), "{name}");
        }
        assert!(matches!(write_array(&npz, "x", &[2], &[0.0]), Err(Error::Array { .. })));
        assert!(read_named_array(&npz, "x/了").is_ok(), "what could not be written left the file alone");
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
        assert!(matches!(read_array(dir.path(), "x"), Err(Error::Io { .. })));
    }

    /// An archive of these files, compressed or stored.
    fn archive(deflated: bool, files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut archive = ZipArchiveWriter::new(&mut bytes);
        for (name, data) in files {
            let method = if deflated { CompressionMethod::DEFLATE } else { CompressionMethod::STORE };
            let (mut file, config) = archive.new_file(*name).compression_method(method).start().unwrap();
            let descriptor = if deflated {
                let mut body = config.wrap(DeflateEncoder::new(&mut file, Compression::default()));
                body.write_all(data).unwrap();
                let (encoder, descriptor) = body.finish().unwrap();
                encoder.finish().unwrap();
                descriptor
            } else {
                let mut body = config.wrap(&mut file);
                body.write_all(data).unwrap();
                body.finish().unwrap().1
            };
            file.finish(descriptor).unwrap();
        }
        archive.finish().unwrap();
        bytes
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        npy::write(&mut bytes, &[values.len()], values).unwrap();
        bytes
    }

    fn named(bytes: &[u8], name: &str) -> Result<HostArray, String> {
        read_npz(bytes, bytes.len() as u64, Wanted::Named(name))
    }

    #[test]
    fn archives_are_held_to_what_they_say() {
        let (a, b) = (floats(&[1.0, 2.0]), floats(&[3.0]));
        for deflated in [false, true] {
            let good = archive(deflated, &[("a.npy", &a), ("readme", b"no array"), ("b.npy", &b)]);
            assert_eq!(named(&good, "b").unwrap().data, HostData::Float(vec![3.0]));
            assert!(named(&good, "readme").unwrap_err().ends_with("it has a, b"));
            assert!(named(&archive(deflated, &[("a.npy", &a), ("a.npy", &b)]), "a").unwrap_err().contains("twice"));
            let long = [&a[..], b"more"].concat();
            assert!(named(&archive(deflated, &[("a.npy", &long)]), "a").unwrap_err().contains("12 follow"));
            // The checksum reveals a changed element; any other changed byte is either detected or has no effect.
            let at = good.windows(a.len()).position(|w| w == a);
            for n in 0..good.len() {
                let mut bad = good.clone();
                bad[n] ^= 0x10;
                let read = named(&bad, "a");
                if at.is_some_and(|at| (at..at + a.len()).contains(&n)) {
                    assert!(read.is_err(), "{n}");
                } else if let Ok(read) = read {
                    assert_eq!(read.data, HostData::Float(vec![1.0, 2.0]), "{n}");
                }
            }
            for len in 0..good.len() {
                assert!(named(&good[..len], "a").is_err(), "{len}");
            }
        }
        assert!(named(&archive(false, &[]), "a").unwrap_err().ends_with("it has nothing"));
    }

    #[test]
    fn bombs_are_refused() {
        // 256 MiB of bytes, which would take 2 GiB as i64.
        let n = 1usize << 28;
        let mut bomb = Vec::new();
        npy::write(&mut bomb, &[n], &[]).unwrap();
        let text = String::from_utf8_lossy(&bomb[10..]).replace("<f4", "|u1");
        bomb.truncate(10);
        bomb.extend(text.as_bytes());
        bomb.resize(bomb.len() + n, 0);
        let zip = archive(true, &[("a.npy", &bomb)]);
        assert!(zip.len() < n / 900);
        let e = named(&zip, "a").unwrap_err();
        assert!(e.contains("2147483648 bytes of memory, but at most 1073741824"), "{e}");
        // A file whose header states more data than it can contain.
        let mut zip = archive(true, &[("a.npy", &floats(&[0.0; 1000]))]);
        let directory = zip.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap();
        zip[directory + 24..directory + 28].copy_from_slice(&0xf000_0000u32.to_le_bytes());
        let e = named(&zip, "a").unwrap_err();
        assert!(e.contains("compressed bytes cannot contain"), "{e}");
    }

    #[test]
    fn many_names_do_not_make_a_long_message() {
        let names: Vec<String> = (0..500).map(|n| format!("{n}{}.npy", "x".repeat(900))).collect();
        let files: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), &b""[..])).collect();
        let e = named(&archive(false, &files), "none").unwrap_err();
        assert!(e.len() < 2500 && e.ends_with("and 492 more"), "{e}");
        let long = "x".repeat(2000) + ".npy";
        assert!(named(&archive(false, &[(&long, b"")]), "x").unwrap_err().contains("1024 bytes"));
    }
}
