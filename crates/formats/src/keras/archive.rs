//! Reading files of a zip archive whole.

use crate::files::{room, short};
use flate2::bufread::DeflateDecoder;
use rawzip::{CompressionMethod, ReaderAt, ZipLocator};
use std::io::{BufReader, Read};

/// Files of an archive, and bytes of a name, at most.
const MAX_FILES: usize = 1 << 12;
const MAX_NAME: usize = 1 << 10;

/// Reads the files with these names from an archive of `len` bytes; `None` for one that is not in it. A file may take
/// as many bytes as `limits` says.
pub(super) fn read<const N: usize>(
    file: impl ReaderAt,
    len: u64,
    names: [&str; N],
    limits: [u64; N],
) -> Result<[Option<Vec<u8>>; N], String> {
    let damaged = |e: rawzip::Error| format!("is not a .keras file, or is damaged ({e})");
    let mut buffer = vec![0; rawzip::MAX_CENTRAL_DIRECTORY_RECORD_SIZE];
    let archive = ZipLocator::new().locate_in_reader(file, &mut buffer, len).map_err(|(_, e)| damaged(e))?;
    let mut places = [const { None }; N];
    let mut entries = archive.entries(&mut buffer);
    let mut count = 0;
    while let Some(entry) = entries.next_entry().map_err(damaged)? {
        count += 1;
        let path = entry.file_path();
        if count > MAX_FILES || path.as_ref().len() > MAX_NAME {
            return Err(format!("has more than {MAX_FILES} files in it, or a name of more than {MAX_NAME} bytes"));
        }
        let Some(n) = names.iter().position(|n| n.as_bytes() == path.as_ref()) else { continue };
        let place = (entry.wayfinder(), entry.compression_method(), entry.flags().is_encrypted());
        if places[n].replace(place).is_some() {
            return Err(format!("has the file `{}` twice", names[n]));
        }
    }
    let mut found = [const { None }; N];
    for (n, place) in places.into_iter().enumerate() {
        let Some((place, method, encrypted)) = place else { continue };
        let at = |message: String| format!("file `{}` in it: {message}", short(names[n]));
        let entry = archive.get_entry(place).map_err(|e| at(damaged(e)))?;
        let (begin, end) = entry.compressed_data_range();
        let (stored, size) = (end.saturating_sub(begin), place.uncompressed_size_hint());
        let raw = BufReader::new(entry.reader());
        let bytes = match method {
            _ if encrypted => Err("is encrypted".into()),
            CompressionMethod::STORE if size != stored => Err(format!("should have {size} bytes, but has {stored}")),
            _ if size > limits[n] => Err(format!("has {size} bytes, but at most {} are read", limits[n])),
            CompressionMethod::STORE => whole(entry.verifying_reader(raw), size),
            CompressionMethod::DEFLATE => whole(entry.verifying_reader(DeflateDecoder::new(raw)), size),
            other => Err(format!("is compressed by method {other}, but stored and deflated files are read")),
        };
        found[n] = Some(bytes.map_err(at)?);
    }
    Ok(found)
}

/// Reads `size` bytes, which must be all there are. Memory grows with what is there, not with what is claimed.
fn whole(mut r: impl Read, size: u64) -> Result<Vec<u8>, String> {
    const STEP: usize = 1 << 20;
    let size = usize::try_from(size).map_err(|_| "is larger than memory".to_owned())?;
    let mut bytes: Vec<u8> = room(size.min(STEP))?;
    let mut step = (&mut r).take(size as u64);
    step.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() != size {
        return Err("is cut short".into());
    }
    // Reading past the end compares the checksum.
    match r.read(&mut [0]) {
        Ok(0) => Ok(bytes),
        Ok(_) => Err("has data after its end".into()),
        Err(e) => Err(e.to_string()),
    }
}
