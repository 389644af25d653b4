//! Records parts of tests that a device cannot run. `cargo xtask test` counts them and prints them after the tests.

use recurve::Device;
use std::io::Write;

/// Records that the rest of this part of a test is left out because `what` is missing: on standard error, and as a line
/// in the file that `RECURVE_TEST_SKIPS` names, which contains the test's name, a tab and `what`.
///
/// # Panics
/// If the file cannot be written, because a skip must never be silent.
pub fn skip(what: &str) {
    let thread = std::thread::current();
    let line = format!("{}\t{what}\n", thread.name().unwrap_or("unnamed"));
    eprint!("skipped: {line}");
    if let Some(file) = std::env::var_os("RECURVE_TEST_SKIPS") {
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(&file);
        // One write per line, so that lines of several threads and processes do not mix.
        let written = opened.and_then(|mut f| f.write_all(line.as_bytes()));
        written.unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }
}

/// Whether a device can store f16. If not, that is recorded as a [`skip`].
pub fn has_f16(device: &Device) -> bool {
    let has = device.gpu().is_none_or(|g| g.has_f16());
    if !has {
        skip(&format!("f16 on {device}"));
    }
    has
}
