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

/// Lets the system reclaim the memory of these bytes. Reading them later reads the file again.
pub(crate) fn give_back(map: &Mmap, range: Range<usize>) {
    #[cfg(unix)]
    {
        // SAFETY: the map is shared and only read, so its pages contain nothing that is not in the file, and reading a
        // reclaimed page gives the same bytes. If the system refuses, only memory is lost.
        let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len()) };
    }
    #[cfg(not(unix))]
    let _ = (map, range);
}
