//! One sequence split over a team of threads by hidden unit. Each thread runs its own tiles of units, and
//! after every step all exchange what they made of h. A unit's sums are the same whoever runs it, so the
//! bits are too.
//!
//! The first member starts alone; the others join at a step once all of them have arrived, so a busy pool
//! never blocks the call. From there on all meet after every step. A member other than the first that waits
//! goes to sleep after a short while. The first one has only so much patience: when the others have kept it
//! waiting for too long a part of the time, because their cores are taken by something else, or when one of
//! them panics, it dissolves the team and goes on alone from the step at hand. Nothing is lost by that,
//! because everyone hands out c as well as h.
//!
//! What a step calls is never inlined: it would swell the kernels' loops, which costs those who are in
//! no team.

use super::sync::{AtomicU32, AtomicUsize, CHECKS, Condvar, Mutex, Ordering, SPINS, fence, now, pause};
use core::ops::Range;

/// What the members of a team share.
#[derive(Debug)]
pub(super) struct Team {
    members: usize,
    /// h after even and after odd steps: whoever writes the one cannot disturb who still reads the
    /// other.
    h: [Vec<AtomicU32>; 2],
    /// c likewise, and what else a unit carries beside h; empty for a cell without.
    c: [Vec<AtomicU32>; 2],
    /// Members other than the first that have come.
    arrived: AtomicUsize,
    /// 0 while the first member is alone, one more than the step at which the others join, or
    /// [`CLOSED`].
    start: AtomicUsize,
    /// How many times a member has come to the end of a step, all members together, and [`DISSOLVED`].
    meetings: AtomicUsize,
    /// The step that the first member had to finish alone.
    dissolved: AtomicUsize,
    asleep: AtomicUsize,
    sleep: Mutex<()>,
    awake: Condvar,
}

const CLOSED: usize = usize::MAX;
/// A bit of `meetings`: nobody meets any more.
const DISSOLVED: usize = 1 << (usize::BITS - 1);

/// Nanoseconds that the first member waits for the others in any case, and the part of the time since they
/// joined. A half would be where a team of two is no faster than one thread.
const PATIENCE: u64 = 100_000;
const PATIENCE_PART: u64 = 4;

/// How the end of a step went for a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meeting {
    /// All came; h is whole.
    Held,
    /// The team is dissolved: the first member runs the tiles of the others for this step too, and the
    /// other members end.
    Dissolved,
}

/// How long the first member has waited.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Patience {
    joined: u64,
    waited: i64,
}

impl Patience {
    /// One that lasts.
    #[cfg(test)]
    pub(super) const ENDLESS: Self = Self { joined: 0, waited: i64::MIN / 2 };

    /// Whether to wait on, having begun to wait at this time.
    fn lasts(&self, since: u64) -> bool {
        let now = now();
        self.waited + ((now - since) as i64) < (PATIENCE + (now - self.joined) / PATIENCE_PART) as i64
    }
}

fn publish(to: &[AtomicU32], from: &[f32]) {
    to.iter().zip(from).for_each(|(t, f)| t.store(f.to_bits(), Ordering::Relaxed));
}

fn take(from: &[AtomicU32], to: &mut [f32]) {
    from.iter().zip(to).for_each(|(f, t)| *t = f32::from_bits(f.load(Ordering::Relaxed)));
}

/// Everything but `own`.
fn take_others(from: &[AtomicU32], own: Range<usize>, to: &mut [f32]) {
    if !from.is_empty() {
        take(&from[..own.start], &mut to[..own.start]);
        take(&from[own.end..], &mut to[own.end..]);
    }
}

impl Team {
    /// A team for a state of `width` floats, and `carried` times as many beside it.
    pub(super) fn new(members: usize, width: usize, carried: usize) -> Self {
        let zeros = |n: usize| (0..n).map(|_| AtomicU32::new(0)).collect();
        let c = carried * width;
        Self {
            members,
            h: [zeros(width), zeros(width)],
            c: [zeros(c), zeros(c)],
            arrived: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            meetings: AtomicUsize::new(0),
            dissolved: AtomicUsize::new(CLOSED),
            asleep: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            awake: Condvar::new(),
        }
    }

    /// The part of c that belongs to a part of h.
    fn of_c(&self, own: &Range<usize>) -> Range<usize> {
        let carried = self.c[0].len() / self.h[0].len();
        own.start * carried..own.end * carried
    }

    /// Whether it serves this many members and this state.
    pub(super) fn fits(&self, members: usize, width: usize) -> bool {
        self.members == members && self.h[0].len() == width
    }

    pub(super) fn members(&self) -> usize {
        self.members
    }

    /// Ready for another sequence.
    pub(super) fn reset(&mut self) {
        self.arrived = AtomicUsize::new(0);
        self.start = AtomicUsize::new(0);
        self.meetings = AtomicUsize::new(0);
        self.dissolved = AtomicUsize::new(CLOSED);
    }

    /// Whether the others joined.
    pub(super) fn was_joined(&self) -> bool {
        !matches!(self.start.load(Ordering::Acquire), 0 | CLOSED)
    }

    /// The steps that the members ran together, of `steps`; after all have ended.
    pub(super) fn shared(&self, steps: usize) -> Range<usize> {
        match self.start.load(Ordering::Acquire) {
            0 | CLOSED => steps..steps,
            s => s - 1..self.dissolved.load(Ordering::Acquire).min(steps),
        }
    }

    /// Whether the first member had to go on alone.
    pub(super) fn was_dissolved(&self) -> bool {
        self.meetings.load(Ordering::Acquire) & DISSOLVED != 0
    }

    /// Waits until something holds, asleep if it takes long.
    fn wait(&self, ready: impl Fn() -> bool) {
        for _ in 0..SPINS {
            if ready() {
                return;
            }
            pause();
        }
        let mut lock = self.sleep.lock().unwrap_or_else(|e| e.into_inner());
        self.asleep.fetch_add(1, Ordering::Relaxed);
        // Either this sees what `wake` announces, or `wake` sees who is asleep.
        fence(Ordering::SeqCst);
        while !ready() {
            lock = self.awake.wait(lock).unwrap_or_else(|e| e.into_inner());
        }
        self.asleep.fetch_sub(1, Ordering::Relaxed);
    }

    /// After a change that others may be waiting for.
    fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) > 0 {
            // Whoever is between its look and its sleep holds the lock.
            drop(self.sleep.lock().unwrap_or_else(|e| e.into_inner()));
            self.awake.notify_all();
        }
    }

    /// The first member, before a step: lets the others in once all have arrived. They begin with this
    /// state.
    #[inline(never)]
    pub(super) fn admit(&self, step: usize, h: &[f32], c: &[f32]) -> Option<Patience> {
        if self.arrived.load(Ordering::Acquire) + 1 < self.members {
            return None;
        }
        publish(&self.h[(step + 1) % 2], h);
        publish(&self.c[(step + 1) % 2], c);
        self.start.store(step + 1, Ordering::Release);
        self.wake();
        Some(Patience { joined: now(), waited: 0 })
    }

    /// The first member, at its end: whoever comes now is too late. A team that was joined stays so.
    #[inline(never)]
    pub(super) fn close(&self) {
        let _ = self.start.compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Acquire);
        self.wake();
    }

    /// Another member: arrives, waits to be let in, and takes over the state. Returns its first step,
    /// or `None` if it came too late.
    #[inline(never)]
    pub(super) fn join(&self, h: &mut [f32], c: &mut [f32]) -> Option<usize> {
        self.arrived.fetch_add(1, Ordering::AcqRel);
        self.wait(|| self.start.load(Ordering::Acquire) != 0);
        let step = match self.start.load(Ordering::Acquire) {
            CLOSED => return None,
            s => s - 1,
        };
        take(&self.h[(step + 1) % 2], h);
        take(&self.c[(step + 1) % 2], c);
        Some(step)
    }

    /// Nobody meets any more: a member panicked.
    pub(super) fn abandon(&self) {
        self.meetings.fetch_or(DISSOLVED, Ordering::AcqRel);
        self.close();
    }

    /// After a step: hands out the member's own part of h and c, and takes the others' h. `patience` is that
    /// of the first member. If the team is dissolved the first member has the others' c from before the step.
    #[inline(never)]
    pub(super) fn exchange(
        &self,
        step: usize,
        own: Range<usize>,
        h: &mut [f32],
        c: &mut [f32],
        patience: Option<&mut Patience>,
    ) -> Meeting {
        let shared = &self.h[step % 2];
        publish(&shared[own.clone()], &h[own.clone()]);
        if patience.is_none() && !self.c[0].is_empty() {
            publish(&self.c[step % 2][self.of_c(&own)], &c[self.of_c(&own)]);
        }
        let first = self.start.load(Ordering::Relaxed) - 1;
        let all = (step - first + 1) * self.members;
        let met = |seen: usize| seen & !DISSOLVED >= all;
        let mut seen = self.meetings.load(Ordering::Acquire);
        // Whoever comes after the end is not counted, so that the count tells which steps are whole.
        while seen & DISSOLVED == 0 {
            match self.meetings.compare_exchange_weak(seen, seen + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    seen += 1;
                    break;
                }
                Err(now) => seen = now,
            }
        }
        if met(seen) {
            self.wake();
        } else if let Some(patience) = patience {
            seen = self.wait_or_dissolve(seen, met, patience);
            if !met(seen) {
                self.dissolved.store(step, Ordering::Release);
                take_others(&self.c[(step + 1) % 2], self.of_c(&own), c);
                return Meeting::Dissolved;
            }
        } else {
            self.wait(|| {
                let seen = self.meetings.load(Ordering::Acquire);
                met(seen) || seen & DISSOLVED != 0
            });
            if !met(self.meetings.load(Ordering::Acquire)) {
                return Meeting::Dissolved;
            }
        }
        take_others(shared, own, h);
        Meeting::Held
    }

    /// The first member: waits for the others while its patience lasts, and dissolves the team after that.
    /// Returns what became of `meetings`.
    fn wait_or_dissolve(&self, mut seen: usize, met: impl Fn(usize) -> bool, patience: &mut Patience) -> usize {
        let mut began = None;
        loop {
            for _ in 0..CHECKS {
                if met(seen) || seen & DISSOLVED != 0 {
                    if let Some(began) = began {
                        patience.waited += (now() - began) as i64;
                    }
                    return seen;
                }
                pause();
                seen = self.meetings.load(Ordering::Acquire);
            }
            // All may have come at the last look.
            if !met(seen) && !patience.lasts(*began.get_or_insert_with(now)) {
                let ended = self.meetings.compare_exchange(seen, seen | DISSOLVED, Ordering::AcqRel, Ordering::Acquire);
                match ended {
                    Ok(_) => {
                        self.wake();
                        return seen | DISSOLVED;
                    }
                    // Somebody has come after all.
                    Err(now) => seen = now,
                }
            }
        }
    }

    /// The others' parts of c after the last of `steps`, once all have ended.
    pub(super) fn collect_c(&self, steps: usize, own: Range<usize>, c: &mut [f32]) {
        take_others(&self.c[(steps + 1) % 2], self.of_c(&own), c);
    }
}

/// The tiles of a member.
pub(super) fn share(tiles: usize, members: usize, member: usize) -> Range<usize> {
    tiles * member / members..tiles * (member + 1) / members
}

/// Ends a team if its member panics, so that nobody waits for it.
pub(super) struct OnPanic<'a>(pub(super) &'a Team);

impl Drop for OnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.abandon();
        }
    }
}
