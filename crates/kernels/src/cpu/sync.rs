//! The synchronization primitives of a [`Team`](super::team::Team). The loom test replaces this module with loom's
//! types.

use super::clock::Instant;
pub(super) use core::hint::spin_loop as pause;
pub(super) use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};
use std::sync::LazyLock;
pub(super) use std::sync::{Condvar, Mutex};

/// How often a waiting member checks a condition before it sleeps: about ten microseconds.
pub(super) const SPINS: usize = 512;

/// How often a condition is checked before the clock is read, about a microsecond. Shorter waits are not counted.
pub(super) const CHECKS: usize = 64;

/// Nanoseconds since a fixed time.
pub(super) fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_nanos() as u64
}
