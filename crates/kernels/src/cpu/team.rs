//! Several threads at one sequence. Each runs its own tiles of hidden units, and after every step all
//! exchange what they made of h; a unit's sums are the same whoever runs it, so the bits are too.
//!
//! Nobody waits for a thread that may never come: the first member begins alone, and the others join
//! at a step once all of them have arrived. From there on every member runs on a thread of its own
//! until the end, so a barrier that spins always ends.
//!
//! What a step calls is never inlined: it would swell the kernels' loops, which costs those who are in
//! no team.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// What the members of a team share.
#[derive(Debug)]
pub(super) struct Team {
    members: usize,
    /// h after even and after odd steps: whoever writes the one cannot disturb who still reads the
    /// other.
    h: [Vec<AtomicU32>; 2],
    c: Vec<AtomicU32>,
    arrived: AtomicUsize,
    /// 0 while the first member is alone, one more than the step at which the others join, or
    /// [`CLOSED`].
    start: AtomicUsize,
    waiting: AtomicUsize,
    round: AtomicUsize,
}

const CLOSED: usize = usize::MAX;

/// Checks of a condition before a thread that waits offers its core to others.
const SPINS: usize = 4096;

fn wait(mut ready: impl FnMut() -> bool) {
    let mut spins = 0;
    while !ready() {
        if spins < SPINS {
            spins += 1;
            core::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

fn publish(to: &[AtomicU32], from: &[f32]) {
    to.iter().zip(from).for_each(|(t, f)| t.store(f.to_bits(), Ordering::Relaxed));
}

fn take(from: &[AtomicU32], to: &mut [f32]) {
    from.iter().zip(to).for_each(|(f, t)| *t = f32::from_bits(f.load(Ordering::Relaxed)));
}

impl Team {
    /// A team for a state of `width` floats.
    pub(super) fn new(members: usize, width: usize) -> Self {
        let zeros = || (0..width).map(|_| AtomicU32::new(0)).collect();
        Self {
            members,
            h: [zeros(), zeros()],
            c: zeros(),
            arrived: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            round: AtomicUsize::new(0),
        }
    }

    /// Whether it serves this many members and this state.
    pub(super) fn fits(&self, members: usize, width: usize) -> bool {
        self.members == members && self.c.len() == width
    }

    pub(super) fn members(&self) -> usize {
        self.members
    }

    /// Ready for another sequence.
    pub(super) fn reset(&mut self) {
        *self.arrived.get_mut() = 0;
        *self.start.get_mut() = 0;
    }

    /// The step at which the others joined, if they did.
    pub(super) fn joined(&self) -> Option<usize> {
        match self.start.load(Ordering::Acquire) {
            0 | CLOSED => None,
            s => Some(s - 1),
        }
    }

    /// The first member, before a step: lets the others in once all have arrived. They begin with this
    /// state.
    #[inline(never)]
    pub(super) fn admit(&self, step: usize, h: &[f32], c: &[f32]) -> bool {
        if self.arrived.load(Ordering::Acquire) + 1 < self.members {
            return false;
        }
        publish(&self.h[(step + 1) % 2], h);
        publish(&self.c, c);
        self.start.store(step + 1, Ordering::Release);
        true
    }

    /// The first member, at its end: whoever comes now is too late. A team that was joined stays so.
    #[inline(never)]
    pub(super) fn close(&self) {
        let _ = self.start.compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Another member: arrives, waits to be let in, and takes over the state. Returns its first step,
    /// or `None` if it came too late.
    #[inline(never)]
    pub(super) fn join(&self, h: &mut [f32], c: &mut [f32]) -> Option<usize> {
        self.arrived.fetch_add(1, Ordering::AcqRel);
        wait(|| self.start.load(Ordering::Acquire) != 0);
        let step = self.joined()?;
        take(&self.h[(step + 1) % 2], h);
        take(&self.c, c);
        Some(step)
    }

    /// After a step: hands out the member's own part of h and takes the others'.
    #[inline(never)]
    pub(super) fn exchange(&self, step: usize, own: core::ops::Range<usize>, h: &mut [f32]) {
        let shared = &self.h[step % 2];
        publish(&shared[own.clone()], &h[own.clone()]);
        let round = self.round.load(Ordering::Acquire);
        if self.waiting.fetch_add(1, Ordering::AcqRel) + 1 == self.members {
            self.waiting.store(0, Ordering::Relaxed);
            self.round.store(round.wrapping_add(1), Ordering::Release);
        } else {
            wait(|| self.round.load(Ordering::Acquire) != round);
        }
        take(&shared[..own.start], &mut h[..own.start]);
        take(&shared[own.end..], &mut h[own.end..]);
    }

    /// A member's own part of c at its end, for the first one to collect.
    #[inline(never)]
    pub(super) fn leave_c(&self, own: core::ops::Range<usize>, c: &[f32]) {
        publish(&self.c[own.clone()], &c[own]);
    }

    /// The others' parts of c, after all have ended.
    pub(super) fn collect_c(&self, own: core::ops::Range<usize>, c: &mut [f32]) {
        take(&self.c[..own.start], &mut c[..own.start]);
        take(&self.c[own.end..], &mut c[own.end..]);
    }
}

/// The tiles of a member.
pub(super) fn share(tiles: usize, members: usize, member: usize) -> core::ops::Range<usize> {
    tiles * member / members..tiles * (member + 1) / members
}
