//! Opening files, and quoting their contents in errors at limited length.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::Path;

/// What error messages call bytes in memory in place of a file name.
pub const MEMORY: &str = "bytes in memory";

/// Largest number of characters of a file's text that an error shows.
const SHOWN: usize = 200;

/// The beginning of a text that came from a file, for an error message.
pub fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
    }
}

/// Shortens a message that may quote a long text from a file: keeps its beginning, and its end, which states the place.
pub fn short_message(message: &str) -> String {
    const END: usize = 150;
    let count = message.chars().count();
    if count <= 2 * SHOWN + END {
        return message.to_owned();
    }
    let cut = |n: usize| message.char_indices().nth(n).map_or(message.len(), |(at, _)| at);
    format!("{} … {}", &message[..cut(2 * SHOWN)], &message[cut(count - END)..])
}

/// The first few of a list of names, for an error message.
pub fn some_names<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const FEW: usize = 8;
    let count = names.len();
    let list: Vec<_> = names.take(FEW).map(short).collect();
    match count {
        0 => "nothing".into(),
        n if n > FEW => format!("{} and {} more", list.join(", "), n - FEW),
        _ => list.join(", "),
    }
}

/// A file for reading, and its length. Only a regular file has a length that its contents can be held against;
/// reading a pipe or a device may never end.
///
/// # Errors
/// Errors of the operating system, and for anything but a regular file.
pub fn open(path: &Path) -> io::Result<(File, u64)> {
    // Checked before opening too, because opening a pipe waits until another process writes into it.
    regular(&fs::metadata(path)?)?;
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    regular(&metadata)?;
    Ok((file, metadata.len()))
}

fn regular(metadata: &Metadata) -> io::Result<()> {
    match metadata {
        m if m.is_file() => Ok(()),
        m if m.is_dir() => Err(io::Error::other("is a folder, but a file is needed")),
        _ => Err(io::Error::other("is a pipe or a device, but a regular file is needed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        assert!(open(dir.path()).unwrap_err().to_string().contains("folder"));
        assert_eq!(open(&dir.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        if cfg!(unix) {
            assert!(open(Path::new("/dev/zero")).unwrap_err().to_string().contains("device"));
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(short("a\nb"), "a\nb");
        let long = "了".repeat(1000);
        assert_eq!(short(&long), format!("{}… (3000 bytes)", "了".repeat(200)));
        let message = format!("unknown field `{long}`, expected `a` at line 1 column 2");
        let shown = short_message(&message);
        assert!(
            shown.starts_with("unknown field `了") && shown.ends_with("expected `a` at line 1 column 2"),
            "{shown}"
        );
        assert_eq!(shown.chars().count(), 400 + 3 + 150);
        assert_eq!(short_message("bad"), "bad");
        assert_eq!(some_names([].into_iter()), "nothing");
        assert_eq!(some_names(["a", "b"].into_iter()), "a, b");
        assert_eq!(some_names(["n"; 10].into_iter()), "n, n, n, n, n, n, n, n and 2 more");
    }
}
