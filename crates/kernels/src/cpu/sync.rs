//! What a [`Team`](super::team::Team) synchronises by. The `loom` test puts loom's twins in its place.

pub(super) use core::hint::spin_loop as pause;
pub(super) use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};
pub(super) use std::sync::{Condvar, Mutex};

/// Checks of a condition before a member that waits goes to sleep: some ten microseconds.
pub(super) const SPINS: usize = 512;

/// Checks of a condition between looks at the clock, about a microsecond: waits that are shorter are not
/// counted.
pub(super) const CHECKS: usize = 64;

/// Nanoseconds since some moment.
pub(super) fn now() -> u64 {
    static START: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    START.elapsed().as_nanos() as u64
}
