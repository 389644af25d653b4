//! How many threads to use at the moment.

use super::clock::Instant;
use recurve_tensor::cpu::threads::current_num_threads;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The number of threads that can run at the same time: those of the pool, but no more than the process has cores,
/// because threads that share a core would wait for each other.
pub(super) fn threads() -> usize {
    static CORES: LazyLock<usize> =
        LazyLock::new(|| std::thread::available_parallelism().map_or(usize::MAX, std::num::NonZero::get));
    current_num_threads().min(*CORES)
}

/// Milliseconds for which no team is formed after one was dissolved. The pause doubles with every further failure, up
/// to the limit, and is reset by a success.
const PAUSE: u64 = 100;
const LONGEST_PAUSE: u64 = 3200;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);
/// The time from which teams are tried again, in milliseconds since `START`, and the last pause.
static AGAIN: AtomicU64 = AtomicU64::new(0);
static LAST_PAUSE: AtomicU64 = AtomicU64::new(0);

fn milliseconds() -> u64 {
    START.elapsed().as_millis() as u64
}

/// Whether to split a sequence among threads. After a team was dissolved because other programs used the cores, this is
/// false for a while, because every failed attempt costs time.
pub(super) fn teams_pay() -> bool {
    let again = AGAIN.load(Ordering::Relaxed);
    again == 0 || milliseconds() >= again
}

/// Records whether a team ran to its end.
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
