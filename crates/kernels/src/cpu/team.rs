//! One sequence split over a team of threads by hidden unit. Each member computes its own tiles of units; after every
//! timestep all members exchange their parts of h. The sums of a unit are the same on every thread, so the result is
//! the same to the bit.
//!
//! The first member starts alone. The others join at the next timestep once all of them have arrived, so a busy thread
//! pool never blocks the call. From then on all members meet after every timestep. A member other than the first sleeps
//! if it has to wait long. The first member measures its waiting: if the others keep it waiting for too large a part of
//! the time, because other programs use their cores, or if one of them panics, it dissolves the team and continues
//! alone from the current timestep. This is possible because members exchange c as well as h.
//!
//! What a timestep calls here is never inlined: it would enlarge the loops of the kernels and slow down calls without a
//! team.

use super::sync::{AtomicU32, AtomicUsize, CHECKS, Condvar, Mutex, Ordering, SPINS, fence, now, pause};
use core::ops::Range;

/// The state that the members of a team share.
#[derive(Debug)]
pub(super) struct Team {
    members: usize,
    /// h after even and after odd timesteps, so that a member that writes one does not disturb a member that still
    /// reads the other.
    h: [Vec<AtomicU32>; 2],
    /// c and the other states besides h, likewise; empty for cells without them.
    c: [Vec<AtomicU32>; 2],
    /// Number of members other than the first that have arrived.
    arrived: AtomicUsize,
    /// 0 while the first member is alone; then 1 plus the timestep at which the others join, or [`CLOSED`].
    start: AtomicUsize,
    /// The total number of times that members have reached the end of a timestep, and the bit [`DISSOLVED`].
    meetings: AtomicUsize,
    /// The timestep that the first member had to finish alone.
    dissolved: AtomicUsize,
    asleep: AtomicUsize,
    sleep: Mutex<()>,
    awake: Condvar,
}

const CLOSED: usize = usize::MAX;
/// The bit of `meetings` that is set when the team is dissolved.
const DISSOLVED: usize = 1 << (usize::BITS - 1);

/// The first member waits for the others for at most so many nanoseconds, plus this part (1 / `PATIENCE_PART`) of the
/// time since they joined. With one half, a team of two would be no faster than one thread.
const PATIENCE: u64 = 100_000;
const PATIENCE_PART: u64 = 4;

/// How a member's meeting at the end of a timestep went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meeting {
    /// All members came; h is complete.
    Held,
    /// The team is dissolved: the first member also runs the tiles of the others for this timestep, and the other
    /// members stop.
    Dissolved,
}

/// How long the first member has waited in total.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Patience {
    joined: u64,
    waited: i64,
}

impl Patience {
    /// For tests: never runs out.
    #[cfg(test)]
    pub(super) const ENDLESS: Self = Self { joined: 0, waited: i64::MIN / 2 };

    /// Whether to go on with a wait that began at time `since`.
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

/// Copies everything except the range `own`.
fn take_others(from: &[AtomicU32], own: Range<usize>, to: &mut [f32]) {
    if !from.is_empty() {
        take(&from[..own.start], &mut to[..own.start]);
        take(&from[own.end..], &mut to[own.end..]);
    }
}

impl Team {
    /// A team for a state h of `width` floats and other states of `carried` times as many.
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

    /// The range of c that belongs to a range of h.
    fn of_c(&self, own: &Range<usize>) -> Range<usize> {
        let carried = self.c[0].len() / self.h[0].len();
        own.start * carried..own.end * carried
    }

    /// Whether it has this number of members and this size of h.
    pub(super) fn fits(&self, members: usize, width: usize) -> bool {
        self.members == members && self.h[0].len() == width
    }

    pub(super) fn members(&self) -> usize {
        self.members
    }

    /// Resets the team for another sequence.
    pub(super) fn reset(&mut self) {
        self.arrived = AtomicUsize::new(0);
        self.start = AtomicUsize::new(0);
        self.meetings = AtomicUsize::new(0);
        self.dissolved = AtomicUsize::new(CLOSED);
    }

    /// Whether the others have joined.
    pub(super) fn was_joined(&self) -> bool {
        !matches!(self.start.load(Ordering::Acquire), 0 | CLOSED)
    }

    /// The timesteps, of `steps`, that the members ran together. Call it after all have ended.
    pub(super) fn shared(&self, steps: usize) -> Range<usize> {
        match self.start.load(Ordering::Acquire) {
            0 | CLOSED => steps..steps,
            s => s - 1..self.dissolved.load(Ordering::Acquire).min(steps),
        }
    }

    /// Whether the first member had to continue alone.
    pub(super) fn was_dissolved(&self) -> bool {
        self.meetings.load(Ordering::Acquire) & DISSOLVED != 0
    }

    /// Waits for a condition, sleeping if that takes long.
    fn wait(&self, ready: impl Fn() -> bool) {
        for _ in 0..SPINS {
            if ready() {
                return;
            }
            pause();
        }
        let mut lock = self.sleep.lock().unwrap_or_else(|e| e.into_inner());
        self.asleep.fetch_add(1, Ordering::Relaxed);
        // The fence ensures that either this thread sees the change that `wake` announces, or `wake` sees that it
        // sleeps.
        fence(Ordering::SeqCst);
        while !ready() {
            lock = self.awake.wait(lock).unwrap_or_else(|e| e.into_inner());
        }
        self.asleep.fetch_sub(1, Ordering::Relaxed);
    }

    /// Wakes sleeping members after a change.
    fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) > 0 {
            // A member between its last check and its sleep holds the lock, so taking the lock once waits for it.
            drop(self.sleep.lock().unwrap_or_else(|e| e.into_inner()));
            self.awake.notify_all();
        }
    }

    /// For the first member, before a timestep: lets the others join once all have arrived. They start with this state.
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

    /// For the first member, at its end: members that arrive later do not join. A team that was joined stays joined.
    #[inline(never)]
    pub(super) fn close(&self) {
        let _ = self.start.compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Acquire);
        self.wake();
    }

    /// For other members: arrives, waits until it may join, and copies the state. Returns its first timestep, or `None`
    /// if it arrived after the team was closed.
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

    /// Dissolves the team after a panic of a member.
    pub(super) fn abandon(&self) {
        self.meetings.fetch_or(DISSOLVED, Ordering::AcqRel);
        self.close();
    }

    /// After a timestep: publishes the member's part of h and c, and reads the others' h. `patience` is given by the
    /// first member. If the team is dissolved, the first member gets the others' c from before the timestep.
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
        // A member that arrives after the team is dissolved is not counted, so that the count shows which timesteps are
        // complete.
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

    /// For the first member: waits for the others while its patience lasts, then dissolves the team. Returns the
    /// resulting value of `meetings`.
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
            // All members may have arrived since the last check.
            if !met(seen) && !patience.lasts(*began.get_or_insert_with(now)) {
                let ended = self.meetings.compare_exchange(seen, seen | DISSOLVED, Ordering::AcqRel, Ordering::Acquire);
                match ended {
                    Ok(_) => {
                        self.wake();
                        return seen | DISSOLVED;
                    }
                    // A member arrived in the meantime.
                    Err(now) => seen = now,
                }
            }
        }
    }

    /// Copies the others' parts of c after the last of `steps` timesteps, once all members have ended.
    pub(super) fn collect_c(&self, steps: usize, own: Range<usize>, c: &mut [f32]) {
        take_others(&self.c[(steps + 1) % 2], self.of_c(&own), c);
    }
}

/// The range of tiles of a member.
pub(super) fn share(tiles: usize, members: usize, member: usize) -> Range<usize> {
    tiles * member / members..tiles * (member + 1) / members
}

/// Dissolves a team if a member panics, so that the other members do not wait for it.
pub(super) struct OnPanic<'a>(pub(super) &'a Team);

impl Drop for OnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.abandon();
        }
    }
}
