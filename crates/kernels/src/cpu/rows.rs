//! The recurrence of a span of batch rows over a span of timesteps, on one thread.

use super::pack::Packed;
use super::product::{accumulate, normalize};
use super::team::Team;
use crate::CellKind;
use core::ops::Range;
use pulp::{Simd, WithSimd};
use recurve_tensor::Activation;
use recurve_tensor::cpu::simd::{activate, sigmoid, tanh};

/// A task's memory. Every array is `[rows, H padded]` but `y`, `[steps, rows, H]`.
pub(super) struct Rows<'a> {
    /// Rows of each array.
    rows: usize,
    /// H padded.
    hp: usize,
    /// Current h.
    pub(super) h: &'a mut [f32],
    /// Next h.
    next: &'a mut [f32],
    /// c of an LSTM; z of a GRU without reset_after.
    pub(super) c: &'a mut [f32],
    /// r ∘ h of a GRU without reset_after; what an LSTM projects.
    reset: &'a mut [f32],
    /// `[rows, raw]`: sums before they are normalised or projected.
    raw: &'a mut [f32],
    /// Outputs in reading order.
    pub(super) y: &'a mut [f32],
}

impl<'a> Rows<'a> {
    /// Floats that a task needs; `raw` is [`Packed::raw`].
    pub(super) fn floats(rows: usize, packed: &Packed, y_steps: usize) -> usize {
        rows * (4 * packed.padded_hidden() + packed.raw() + y_steps * packed.width)
    }

    pub(super) fn split(memory: &'a mut [f32], rows: usize, packed: &Packed) -> Self {
        let hp = packed.padded_hidden();
        let n = rows * hp;
        let (h, rest) = memory.split_at_mut(n);
        let (next, rest) = rest.split_at_mut(n);
        let (c, rest) = rest.split_at_mut(n);
        let (reset, rest) = rest.split_at_mut(n);
        let (raw, y) = rest.split_at_mut(rows * packed.raw());
        Self { rows, hp, h, next, c, reset, raw, y }
    }

    /// Sets the initial state of the first `count` rows; `h0` and `c0` are `[count, H]`.
    pub(super) fn start(self, count: usize, h0: Option<&[f32]>, c0: Option<&[f32]>) {
        for (state, initial) in [(self.h, h0), (self.c, c0)] {
            state.fill(0.0);
            if let Some(initial) = initial {
                let hidden = initial.len() / count;
                for (row, values) in state.chunks_exact_mut(self.hp).zip(initial.chunks_exact(hidden)) {
                    row[..hidden].copy_from_slice(values);
                }
            }
        }
    }
}

/// Which timesteps are valid, for the rows of a task.
#[derive(Clone, Copy)]
pub(super) enum Valid<'a> {
    All,
    /// Lengths, `[rows]`.
    Lengths(&'a [u32]),
    /// A mask, `[rows, T]`, and whether outputs repeat h where it is zero.
    Mask(&'a [u32], bool),
}

/// A job's place in a team of threads that share one sequence.
#[derive(Clone)]
pub(super) struct Member<'a> {
    pub(super) team: &'a Team,
    /// 0 is the first, who may begin alone.
    pub(super) index: usize,
    /// The member's tiles once the team is complete.
    pub(super) own: Range<usize>,
}

/// One call of the kernel.
pub(super) struct Job<'a> {
    pub(super) packed: &'a Packed,
    pub(super) rows: Rows<'a>,
    pub(super) count: usize,
    pub(super) projection: &'a [f32],
    /// Strides of the projection.
    pub(super) p_row: usize,
    pub(super) p_slot: usize,
    /// First step, in reading order.
    pub(super) first: usize,
    pub(super) steps: usize,
    pub(super) timesteps: usize,
    pub(super) reverse: bool,
    pub(super) valid: Valid<'a>,
    /// The tiles that are run: all, or a member's share of them.
    pub(super) tiles: Range<usize>,
    pub(super) member: Option<Member<'a>>,
    pub(super) wants_y: bool,
}

/// An activation that is not the usual sigmoid or tanh, or has a clip.
#[inline(always)]
fn unusual<S: Simd>(s: S, f: Activation, clip: Option<f32>, x: S::f32s) -> S::f32s {
    struct Op<'a>(Activation, Option<f32>, &'a mut [f32]);
    impl WithSimd for Op<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, s: S) {
            let mut x = s.partial_load_f32s(self.2);
            if let Some(limit) = self.1 {
                // By selection, so that NaN stays NaN.
                let (high, low) = (s.splat_f32s(limit), s.splat_f32s(-limit));
                x = s.select_f32s(s.greater_than_f32s(x, high), high, x);
                x = s.select_f32s(s.less_than_f32s(x, low), low, x);
            }
            s.partial_store_f32s(self.2, activate(s, self.0, x));
        }
    }
    // Through memory, because only there can a vector pass into a function of its own.
    let mut lanes = [0.0; 16];
    let lanes = &mut lanes[..S::F32_LANES];
    s.partial_store_f32s(lanes, x);
    s.vectorize(Op(f, clip, lanes));
    s.partial_load_f32s(lanes)
}

/// The usual functions inline, the others by [`unusual`].
#[inline(always)]
fn act<S: Simd>(s: S, f: Activation, clip: Option<f32>, x: S::f32s) -> S::f32s {
    match (f, clip) {
        (Activation::Sigmoid, None) => sigmoid(s, x),
        (Activation::Tanh, None) => tanh(s, x),
        _ => unusual(s, f, clip, x),
    }
}

impl Job<'_> {
    /// An activation behind the cell's clip.
    #[inline(always)]
    fn act<S: Simd>(&self, s: S, f: Activation, x: S::f32s) -> S::f32s {
        act(s, f, self.packed.cell.clip, x)
    }

    /// The first step of this job; `None` for a member that came too late.
    fn begin(&mut self) -> Option<usize> {
        match &self.member {
            Some(m) if m.index > 0 => m.team.join(self.rows.h, self.rows.c),
            _ => Some(0),
        }
    }

    /// Before a step: the first member lets the others in, and keeps its share.
    #[inline(always)]
    fn admit(&mut self, step: usize) {
        if let Some(m) = &self.member
            && self.tiles != m.own
            && m.team.admit(step, self.rows.h, self.rows.c)
        {
            self.tiles = m.own.clone();
        }
    }

    /// After a step of a team: the next h of every member.
    #[inline(always)]
    fn exchange(&mut self, step: usize) {
        if let Some(m) = &self.member
            && self.tiles == m.own
        {
            let lanes = self.rows.hp / self.packed.tiles;
            m.team.exchange(step, m.own.start * lanes..m.own.end * lanes, self.rows.next);
        }
    }

    /// After the last step.
    fn end(&mut self) {
        if let Some(m) = &self.member {
            let lanes = self.rows.hp / self.packed.tiles;
            if m.index == 0 {
                m.team.close();
            } else {
                m.team.leave_c(m.own.start * lanes..m.own.end * lanes, self.rows.c);
            }
        }
    }

    /// The projection of gate `g` of `gates`.
    #[inline(always)]
    fn input<S: Simd>(&self, slot: usize, row: usize, tile: usize, g: usize, gates: usize) -> S::f32s {
        S::as_simd_f32s(&self.projection[row * self.p_row + slot * self.p_slot..]).0[tile * gates + g]
    }

    /// Stores a new h and writes the output, or keeps the old h where a timestep is not valid.
    #[inline(always)]
    fn store<S: Simd>(&mut self, s: S, at: At, row: usize, tile: usize, h: S::f32s) {
        let alive = self.alive(row, at.time);
        let place = row * self.packed.tiles + tile;
        let zoneout = self.packed.cell.zoneout;
        if alive && zoneout.is_none() {
            S::as_mut_simd_f32s(self.rows.next).0[place] = h;
            self.show(s, at, row, tile, h);
            return;
        }
        let kept = S::as_simd_f32s(self.rows.h).0[place];
        let h = match zoneout {
            Some(z) if alive => mix(s, z.h, kept, h),
            _ if alive => h,
            _ => kept,
        };
        S::as_mut_simd_f32s(self.rows.next).0[place] = h;
        let shown = alive || matches!(self.valid, Valid::Mask(_, true));
        self.show(s, at, row, tile, if shown { h } else { s.splat_f32s(0.0) });
    }

    /// Writes the output of a tile.
    #[inline(always)]
    fn show<S: Simd>(&mut self, s: S, at: At, row: usize, tile: usize, h: S::f32s) {
        if self.wants_y {
            let width = self.packed.width;
            let lanes = S::F32_LANES.min(width - tile * S::F32_LANES);
            let y = &mut self.rows.y[(at.step * self.rows.rows + row) * width + tile * S::F32_LANES..][..lanes];
            s.partial_store_f32s(y, h);
        }
    }

    /// Stores a new c of an LSTM, or keeps the old one where a timestep is not valid.
    #[inline(always)]
    fn store_c<S: Simd>(&mut self, s: S, at: At, row: usize, tile: usize, c: S::f32s) {
        if self.alive(row, at.time) {
            let stored = &mut S::as_mut_simd_f32s(self.rows.c).0[row * self.packed.tiles + tile];
            *stored = match self.packed.cell.zoneout {
                Some(z) => mix(s, z.c, *stored, c),
                None => c,
            };
        }
    }

    #[inline(always)]
    fn alive(&self, row: usize, time: usize) -> bool {
        match self.valid {
            Valid::All => true,
            Valid::Lengths(l) => time < l[row] as usize,
            Valid::Mask(m, _) => m[row * self.timesteps + time] != 0,
        }
    }
}

/// `share ∘ old + (1 - share) ∘ new`
#[inline(always)]
fn mix<S: Simd>(s: S, share: f32, old: S::f32s, new: S::f32s) -> S::f32s {
    s.mul_add_f32s(s.splat_f32s(share), old, s.mul_f32s(s.splat_f32s(1.0 - share), new))
}

/// Where a step stands.
#[derive(Clone, Copy)]
struct At {
    /// In this call, from 0.
    step: usize,
    /// In the projection.
    slot: usize,
    /// In the input.
    time: usize,
}

/// Runs every step of a job, each by `$step`.
macro_rules! every_step {
    ($job:expr, $s:expr, $step:path $(, $arg:expr)*) => {{
        let job = $job;
        let Some(from) = job.begin() else { return };
        for step in from..job.steps {
            job.admit(step);
            let (slot, time) = if job.reverse {
                (job.steps - 1 - step, job.timesteps - 1 - job.first - step)
            } else {
                (step, job.first + step)
            };
            $step(job, $s, At { step, slot, time } $(, $arg)*);
            job.exchange(step);
            core::mem::swap(&mut job.rows.h, &mut job.rows.next);
        }
        if job.steps % 2 == 1 {
            // The current h stands where the next one belongs.
            job.rows.next.copy_from_slice(job.rows.h);
        }
        job.end();
    }};
}

impl WithSimd for Job<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, s: S) {
        match self.packed.kind {
            CellKind::Lstm { coupled } => every_step!(&mut self, s, lstm::step, coupled),
            CellKind::Gru { reset_after: true } => every_step!(&mut self, s, gru::step_after),
            CellKind::Gru { reset_after: false } => every_step!(&mut self, s, gru::step_before),
            _ => every_step!(&mut self, s, rnn::step),
        }
    }
}

/// A job of the other cells: a type of its own, so that the usual cells' code stays small.
pub(super) struct Other<'a>(pub(super) Job<'a>);

impl WithSimd for Other<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, s: S) {
        if self.0.packed.raw() > 0 {
            every_step!(&mut self.0, s, general::step);
        } else {
            every_step!(&mut self.0, s, pointwise::step);
        }
    }
}

/// Covers a range of tiles and all rows with blocks of V tiles and R rows. One row takes as many tiles at once as
/// hide the latency of the multiply-add; several rows share a tile while it is in the nearest cache.
macro_rules! blocks {
    ($job:expr, $tiles:expr, $block:ident ($($arg:expr),*), one row $v1:literal, many rows $v:literal) => {{
        let rows = $job.count;
        let core::ops::Range { start: mut tile, end: tiles } = $tiles;
        while tile < tiles {
            macro_rules! over_rows {
                ($width:literal) => {{
                    let mut row = 0;
                    while row < rows {
                        match rows - row {
                            1 => $block::<S, $width, 1>($job, $($arg,)* tile, row),
                            2 | 3 => $block::<S, $width, 2>($job, $($arg,)* tile, row),
                            4 | 5 => $block::<S, $width, 4>($job, $($arg,)* tile, row),
                            _ => $block::<S, $width, 6>($job, $($arg,)* tile, row),
                        }
                        row += match rows - row {
                            1 => 1,
                            2 | 3 => 2,
                            4 | 5 => 4,
                            _ => 6,
                        };
                    }
                    tile += $width;
                }};
            }
            if rows == 1 && tiles - tile >= $v1 {
                $block::<S, $v1, 1>($job, $($arg,)* tile, 0);
                tile += $v1;
            } else if tiles - tile >= $v {
                over_rows!($v);
            } else {
                over_rows!(1);
            }
        }
    }};
}

mod general;
mod gru;
mod lstm;
mod pointwise;
mod rnn;
