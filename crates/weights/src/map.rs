//! Files mapped into memory.

use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::ops::Range;

/// Maps a file for reading.
///
/// The file must not be changed while the map exists ([`crate::WeightFile::open`] passes this on to its callers). If it
/// is changed, the map yields other numbers; if it is shortened, reading past its end ends the process.
///
/// # Errors
/// Errors of the operating system, also if it cannot map files, or not those of this file system.
pub(crate) fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the documentation requires that nobody changes the file. This crate only reads the map, as bytes and as
    // floats, for which every bit pattern is valid.
    unsafe { Mmap::map(file) }
}

/// Bytes that Linux maps around a page that is read, at most: an aligned block of them.
#[cfg(unix)]
const AROUND: usize = 2 << 20;

/// Lets the system have the memory of these bytes again, and of what it has mapped around them. Whoever reads them
/// later reads the file again.
pub(crate) fn give_back(map: &Mmap, range: Range<usize>) {
    #[cfg(unix)]
    {
        let base = map.as_ptr().addr();
        let start = ((base + range.start) / AROUND * AROUND).max(base) - base;
        let end = (base + range.end).next_multiple_of(AROUND).min(base + map.len()) - base;
        // SAFETY: the map is shared and only read, so its pages hold nothing that the file does not hold, and a
        // reader of a page that is gone gets the same bytes. That the system may refuse loses nothing but memory.
        let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
    }
    #[cfg(not(unix))]
    let _ = (map, range);
}
