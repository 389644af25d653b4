//! How many threads are worth using at the moment.

use recurve_tensor::cpu::threads::current_num_threads;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Threads that can run at the same time: those of the pool, but no more than the process has cores, for
/// those that share a core only wait for each other.
pub(super) fn threads() -> usize {
    static CORES: LazyLock<usize> =
        LazyLock::new(|| std::thread::available_parallelism().map_or(usize::MAX, std::num::NonZero::get));
    current_num_threads().min(*CORES)
}

/// Milliseconds without teams after the first one that had to be dissolved, and at most: they double while
/// teams fail, and begin anew after one that did not.
const PAUSE: u64 = 100;
const LONGEST_PAUSE: u64 = 3200;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);
/// When teams are tried again, in milliseconds since `START`, and the pause before.
static AGAIN: AtomicU64 = AtomicU64::new(0);
static LAST_PAUSE: AtomicU64 = AtomicU64::new(0);

fn milliseconds() -> u64 {
    START.elapsed().as_millis() as u64
}

/// Whether to share a sequence among threads. Not for a while after others on these cores kept a team
/// waiting, for finding that out again costs time.
pub(super) fn teams_pay() -> bool {
    let again = AGAIN.load(Ordering::Relaxed);
    again == 0 || milliseconds() >= again
}

/// Notes whether a team ran to its end.
pub(super) fn note_team(whole: bool) {
    if whole {
        LAST_PAUSE.store(0, Ordering::Relaxed);
        AGAIN.store(0, Ordering::Relaxed);
    } else {
        let pause = (2 * LAST_PAUSE.load(Ordering::Relaxed)).clamp(PAUSE, LONGEST_PAUSE);
        LAST_PAUSE.store(pause, Ordering::Relaxed);
        AGAIN.store(milliseconds() + pause, Ordering::Relaxed);
    }
}
