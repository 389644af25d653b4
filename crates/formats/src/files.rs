//! Reading elements without trusting a file's stated sizes, and replacing files safely.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) use recurve_weights::files::{MEMORY, open, short, short_message, some_names};

/// Memory for `count` elements; an error if there is not enough.
pub(crate) fn room<T>(count: usize) -> Result<Vec<T>, String> {
    let mut v = Vec::new();
    match v.try_reserve_exact(count) {
        Ok(()) => Ok(v),
        Err(_) => Err(format!("needs memory for {count} elements, but there is not enough")),
    }
}

/// Reads `count` elements of N bytes each and converts them with `decode`.
pub(crate) fn elements<T, const N: usize>(
    r: &mut dyn Read,
    count: usize,
    decode: impl Fn([u8; N]) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let mut out = room(count)?;
    let mut buffer = [0; 1 << 14];
    while out.len() < count {
        let bytes = &mut buffer[..((count - out.len()) * N).min(1 << 14)];
        r.read_exact(bytes).map_err(cut)?;
        for element in bytes.as_chunks::<N>().0 {
            out.push(decode(*element)?);
        }
    }
    Ok(out)
}

/// The message for data that ends too early or cannot be read.
pub(crate) fn cut(e: io::Error) -> String {
    match e.kind() {
        io::ErrorKind::UnexpectedEof => "is cut short".into(),
        _ => e.to_string(),
    }
}

/// A temporary file beside the file that it will replace once it is complete. It is deleted if it is dropped before.
pub(crate) struct Beside {
    temporary: PathBuf,
    /// The file to replace; `None` for a pipe or a device, which is written to directly.
    place: Option<PathBuf>,
}

impl Beside {
    /// Creates an empty temporary file beside `path`.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let old = match fs::metadata(path) {
            Ok(m) if m.is_dir() => return Err(io::Error::other("is a folder, but a file is to be written")),
            Ok(m) if !m.is_file() => return Ok(Self { temporary: path.into(), place: None }),
            Ok(m) if m.permissions().readonly() => return Err(io::ErrorKind::PermissionDenied.into()),
            Ok(m) => Some(m),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        // A symbolic link is kept; the file that it points to is replaced.
        let place = if old.is_some() { fs::canonicalize(path)? } else { path.to_owned() };
        let name = place.file_name().ok_or_else(|| io::Error::other("names no file"))?.to_string_lossy();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        loop {
            let n = COUNT.fetch_add(1, Ordering::Relaxed);
            // Shortened, because file names have a length limit and the temporary name is longer.
            let stem: String = name.chars().take(40).collect();
            let temporary = place.with_file_name(format!(".{stem}.{}.{n}.part", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&temporary) {
                Ok(file) => {
                    let this = Self { temporary, place: Some(place) };
                    if let Some(old) = old {
                        file.set_permissions(old.permissions())?;
                    }
                    return Ok(this);
                }
                // Such a file may remain from a killed process with the same process id; the next name is tried.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// The path to write to.
    pub(crate) fn path(&self) -> &Path {
        &self.temporary
    }

    /// Renames the complete temporary file to its final name.
    pub(crate) fn keep(mut self) -> io::Result<()> {
        if let Some(place) = &self.place {
            // Flushed first, because otherwise the new name could reach the disk before the contents.
            OpenOptions::new().write(true).open(&self.temporary)?.sync_all()?;
            fs::rename(&self.temporary, place)?;
            self.place = None;
        }
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if self.place.is_some() {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Writes a file completely or not at all: to a temporary file, which is flushed and then renamed to `path`. An
/// existing file is replaced only once the new one is complete. A pipe or a device is written to directly.
///
/// # Errors
/// Errors of the operating system.
pub fn write_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let beside = Beside::create(path)?;
    let mut file = io::BufWriter::new(OpenOptions::new().write(true).open(beside.path())?);
    write(&mut file)?;
    file.into_inner().map_err(io::IntoInnerError::into_error)?;
    beside.keep()
}

/// Checks that [`write_file`] can create files at `path`, so that a long computation whose result goes there can be
/// refused before it starts. Leaves no file behind.
///
/// # Errors
/// Errors of the operating system.
pub fn check_writable(path: &Path) -> io::Result<()> {
    let beside = Beside::create(path)?;
    OpenOptions::new().write(true).open(beside.path()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        write_file(&path, |w| w.write_all(b"first")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first");
        let failed = write_file(&path, |w| {
            w.write_all(&[b'x'; 100_000])?;
            Err(io::Error::other("the disk is full"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"first");
        check_writable(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first");
        write_file(&path, |w| w.write_all(b"second")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        // No other file is left, and an unwritable path is detected in advance.
        assert_eq!(names(dir.path()), ["a.txt"]);
        assert!(check_writable(&dir.path().join("none/a.txt")).is_err());
        assert!(check_writable(dir.path()).is_err());
        check_writable(&dir.path().join("b.txt")).unwrap();
        assert_eq!(names(dir.path()), ["a.txt"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_permissions_and_devices_stay_what_they_are() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("a"), dir.path().join("l"));
        write_file(&path, |w| w.write_all(b"1")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("a", &link).unwrap();
        write_file(&link, |w| w.write_all(b"2")).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"2");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        let null = Path::new("/dev/null");
        write_file(null, |w| w.write_all(b"3")).unwrap();
        assert!(!fs::metadata(null).unwrap().is_file());
    }
}
