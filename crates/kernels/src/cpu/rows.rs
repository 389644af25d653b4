//! The recurrence for a range of batch rows over a range of timesteps, on one thread. Each timestep computes the sums
//! of a band of tiles, then their gates, and goes on with the next band.
//!
//! Sums and gates are separate functions that are not inlined: in one function the compiler runs out of registers.
//! the compiler to keep in registers.

use super::pack::Packed;
use super::product::{Operand, Sums, normalize, sums};
use super::team::{Meeting, Patience, Team};
use super::weights::Matrix;
use crate::CellKind;
use core::ops::Range;
use pulp::{Simd, WithSimd};
use recurve_tensor::Activation;
use recurve_tensor::cpu::simd::{activate, mul_add, sigmoid, tanh};

/// The memory of a task. Arrays are `[rows, padded H]` unless they say otherwise.
pub(super) struct Rows<'a> {
    extent: Extent,
    /// Number of hidden units, padded to whole tiles.
    hp: usize,
    /// Number of units of a tile.
    lanes: usize,
    /// Number of vectors of c of a tile.
    carried: usize,
    /// The current h.
    pub(super) h: &'a mut [f32],
    /// The h of the next timestep.
    next: &'a mut [f32],
    /// The states besides h, `[rows, tiles, carried]` vectors: c of an LSTM; c, n and m of an sLSTM. A GRU without
    /// `reset_after` stores its z here.
    pub(super) c: &'a mut [f32],
    /// `r ∘ h` of a GRU without `reset_after`; the input of an LSTM's projection.
    reset: &'a mut [f32],
    /// The sums before their gates, `[rows, tiles of a band, G]` vectors.
    raw: &'a mut [f32],
    /// The rest: outputs `[steps, rows, W]` in reading order, if they are not written to the output tensor directly.
    pub(super) y: &'a mut [f32],
}

/// Where outputs are written. That of a row and step of this call is W floats at `row · row_stride + first + step ·
/// step_stride`.
pub(super) struct Output<'a> {
    pub(super) y: &'a mut [f32],
    pub(super) row_stride: usize,
    pub(super) first: usize,
    pub(super) step_stride: isize,
}

/// The sizes of a task.
#[derive(Clone, Copy)]
pub(super) struct Extent {
    /// Number of rows of each array.
    rows: usize,
    /// Number of tiles of a band.
    band: usize,
}

impl Extent {
    pub(super) fn new(rows: usize, packed: &Packed) -> Self {
        Self { rows, band: packed.band(rows) }
    }

    /// Number of floats of `raw`.
    fn sums(self, packed: &Packed) -> usize {
        self.rows * self.band * packed.tile_floats()
    }

    /// Number of floats that a task needs, with room for the outputs of `y_steps` timesteps.
    pub(super) fn floats(self, packed: &Packed, y_steps: usize) -> usize {
        let states = 3 + packed.carried();
        self.rows * (states * packed.padded_hidden() + y_steps * packed.width) + self.sums(packed)
    }
}

impl<'a> Rows<'a> {
    pub(super) fn split(memory: &'a mut [f32], extent: Extent, packed: &Packed) -> Self {
        let hp = packed.padded_hidden();
        let n = extent.rows * hp;
        let (h, rest) = memory.split_at_mut(n);
        let (next, rest) = rest.split_at_mut(n);
        let carried = packed.carried();
        let (c, rest) = rest.split_at_mut(n * carried);
        let (reset, rest) = rest.split_at_mut(n);
        let (raw, y) = rest.split_at_mut(extent.sums(packed));
        Self { extent, hp, lanes: hp / packed.tiles, carried, h, next, c, reset, raw, y }
    }

    /// Sets the initial state of the first `count` rows; `h0` is `[count, W]`, `c0` `[count, carried, H]`.
    pub(super) fn start(self, count: usize, h0: Option<&[f32]>, c0: Option<&[f32]>) {
        self.h.fill(0.0);
        if let Some(h0) = h0 {
            let width = h0.len() / count;
            for (row, values) in self.h.chunks_exact_mut(self.hp).zip(h0.chunks_exact(width)) {
                row[..width].copy_from_slice(values);
            }
        }
        self.c.fill(0.0);
        if let Some(c0) = c0 {
            let (stride, size) = (self.hp * self.carried, c0.len() / count);
            let hidden = size / self.carried;
            for (row, values) in self.c.chunks_exact_mut(stride).zip(c0.chunks_exact(size)) {
                for (n, values) in values.chunks_exact(hidden).enumerate() {
                    let tiles = row.chunks_exact_mut(self.lanes * self.carried);
                    for (tile, values) in tiles.zip(values.chunks(self.lanes)) {
                        tile[n * self.lanes..][..values.len()].copy_from_slice(values);
                    }
                }
            }
        }
    }

    /// Copies the h of a row, `[W]`.
    pub(super) fn h_of(&self, row: usize, out: &mut [f32]) {
        out.copy_from_slice(&self.h[row * self.hp..][..out.len()]);
    }

    /// Copies the states of a row besides h, `[carried, H]`; nothing if there are none.
    pub(super) fn c_of(&self, row: usize, out: &mut [f32]) {
        let row = &self.c[row * self.hp * self.carried..][..self.hp * self.carried];
        let hidden = (out.len() / self.carried).max(1);
        for (n, out) in out.chunks_exact_mut(hidden).enumerate() {
            let tiles = row.chunks_exact(self.lanes * self.carried);
            for (tile, out) in tiles.zip(out.chunks_mut(self.lanes)) {
                out.copy_from_slice(&tile[n * self.lanes..][..out.len()]);
            }
        }
    }
}

/// Which timesteps are valid for the rows of a task.
#[derive(Clone, Copy)]
pub(super) enum Valid<'a> {
    All,
    /// The number of valid timesteps of each row, `[rows]`.
    Lengths(&'a [u32]),
    /// A mask, `[rows, T]`, and whether the output is the unchanged h where it is zero.
    Mask(&'a [u32], bool),
}

/// A job's place in a team of threads that share one sequence.
#[derive(Clone)]
pub(super) struct Member<'a> {
    pub(super) team: &'a Team,
    /// The index in the team. Member 0 may start alone.
    pub(super) index: usize,
    /// The member's tiles, once all members have joined.
    pub(super) own: Range<usize>,
    /// For the first member, once all have joined: how long it has waited.
    pub(super) patience: Option<Patience>,
}

/// What a member does after a timestep.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Go on with the next timestep.
    Step,
    /// Run the same timestep for other tiles.
    Again,
    /// Stop.
    End,
}

/// One call of the kernel.
pub(super) struct Job<'a> {
    pub(super) packed: &'a Packed,
    pub(super) rows: Rows<'a>,
    pub(super) count: usize,
    pub(super) projection: &'a [f32],
    /// Stride of the projection from row to row, in floats.
    pub(super) p_row: usize,
    pub(super) p_slot: usize,
    /// The first timestep, in reading order.
    pub(super) first: usize,
    pub(super) steps: usize,
    pub(super) timesteps: usize,
    pub(super) reverse: bool,
    pub(super) valid: Valid<'a>,
    /// The tiles to run: all, or a member's share.
    pub(super) tiles: Range<usize>,
    pub(super) member: Option<Member<'a>>,
    pub(super) y: Option<Output<'a>>,
}

/// An activation other than plain sigmoid or tanh, or one with a clip.
#[inline(always)]
fn unusual<S: Simd>(s: S, f: Activation, clip: Option<f32>, x: S::f32s) -> S::f32s {
    struct Op<'a>(Activation, Option<f32>, &'a mut [f32]);
    impl WithSimd for Op<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, s: S) {
            let mut x = s.partial_load_f32s(self.2);
            if let Some(limit) = self.1 {
                // By comparing and selecting, so that NaN stays NaN.
                let (high, low) = (s.splat_f32s(limit), s.splat_f32s(-limit));
                x = s.select_f32s(s.greater_than_f32s(x, high), high, x);
                x = s.select_f32s(s.less_than_f32s(x, low), low, x);
            }
            s.partial_store_f32s(self.2, activate(s, self.0, x));
        }
    }
    // Through memory, because a vector cannot be passed to a function that is not inlined.
    let mut lanes = [0.0; 16];
    let lanes = &mut lanes[..S::F32_LANES];
    s.partial_store_f32s(lanes, x);
    s.vectorize(Op(f, clip, lanes));
    s.partial_load_f32s(lanes)
}

/// Plain sigmoid and tanh inline; other functions through [`unusual`].
#[inline(always)]
pub(super) fn act<S: Simd>(s: S, f: Activation, clip: Option<f32>, x: S::f32s) -> S::f32s {
    match (f, clip) {
        (Activation::Sigmoid, None) => sigmoid(s, x),
        (Activation::Tanh, None) => tanh(s, x),
        _ => unusual(s, f, clip, x),
    }
}

impl Job<'_> {
    /// Applies the cell's clip, then an activation.
    #[inline(always)]
    fn act<S: Simd>(&self, s: S, f: Activation, x: S::f32s) -> S::f32s {
        act(s, f, self.packed.cell.clip, x)
    }

    /// The first timestep of this job; `None` for a member that arrived after the team was closed.
    fn begin(&mut self) -> Option<usize> {
        match &self.member {
            Some(m) if m.index > 0 => m.team.join(self.rows.h, self.rows.c),
            _ => Some(0),
        }
    }

    /// Before a timestep: the first member lets the others join if they have arrived, and keeps its share of the tiles.
    #[inline(always)]
    fn admit(&mut self, step: usize) {
        if let Some(m) = &mut self.member
            && self.tiles != m.own
        {
            m.patience = m.team.admit(step, self.rows.h, self.rows.c);
            if m.patience.is_some() {
                self.tiles = m.own.clone();
            }
        }
    }

    /// After a timestep of a team: exchanges the next h of all members. If the team is dissolved, the first member runs
    /// the others' tiles of this timestep too, and all tiles from then on.
    #[inline(always)]
    fn exchange(&mut self, step: usize) -> Next {
        let Some(m) = &mut self.member else {
            self.tiles = 0..self.packed.tiles;
            return Next::Step;
        };
        if self.tiles != m.own {
            return Next::Step;
        }
        let lanes = self.rows.hp / self.packed.tiles;
        let own = m.own.start * lanes..m.own.end * lanes;
        match m.team.exchange(step, own, self.rows.next, self.rows.c, m.patience.as_mut()) {
            Meeting::Held => Next::Step,
            Meeting::Dissolved if m.index > 0 => Next::End,
            Meeting::Dissolved => {
                self.tiles = m.own.end..self.packed.tiles;
                self.member = None;
                Next::Again
            }
        }
    }

    /// After the last timestep.
    fn end(&mut self) {
        if let Some(m) = &self.member
            && m.index == 0
        {
            m.team.close();
        }
    }

    /// The projection for gate `g` of `gates`.
    #[inline(always)]
    fn input<S: Simd>(&self, slot: usize, row: usize, tile: usize, g: usize, gates: usize) -> S::f32s {
        S::as_simd_f32s(&self.projection[row * self.p_row + slot * self.p_slot..]).0[tile * gates + g]
    }

    /// Stores a new h and writes the output, or keeps the old h where the timestep is not valid.
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
        if let Some(o) = &mut self.y {
            let width = self.packed.width;
            let lanes = S::F32_LANES.min(width - tile * S::F32_LANES);
            let first = o.first.wrapping_add_signed(at.step as isize * o.step_stride);
            let y = &mut o.y[row * o.row_stride + first + tile * S::F32_LANES..][..lanes];
            // A masked store takes dozens of cycles on some processors, so whole vectors are stored plainly.
            match S::as_mut_simd_f32s(y).0 {
                [whole] => *whole = h,
                _ => s.partial_store_f32s(y, h),
            }
        }
    }

    /// Stores a new c of an LSTM, or keeps the old one where the timestep is not valid.
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

/// One row of a band: sums and projections of `G` gates, and states.
struct Row<'a, S: Simd, const G: usize> {
    sums: &'a [[S::f32s; G]],
    input: &'a [[S::f32s; G]],
    h: &'a [S::f32s],
    c: &'a mut [S::f32s],
    next: &'a mut [S::f32s],
}

/// `share ∘ old + (1 - share) ∘ new`
#[inline(always)]
fn mix<S: Simd>(s: S, share: f32, old: S::f32s, new: S::f32s) -> S::f32s {
    mul_add(s, s.splat_f32s(share), old, s.mul_f32s(s.splat_f32s(1.0 - share), new))
}

/// The position of a timestep.
#[derive(Clone, Copy)]
struct At {
    /// Index in this call, from 0.
    step: usize,
    /// Index in the projection.
    slot: usize,
    /// Index in the input.
    time: usize,
}

impl At {
    /// Whether this step runs from the last unit to the first; every other step does.
    fn backwards(self) -> bool {
        self.step % 2 == 1
    }
}

impl WithSimd for Job<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, s: S) {
        let Some(from) = self.begin() else { return };
        for step in from..self.steps {
            self.admit(step);
            let (slot, time) = if self.reverse {
                (self.steps - 1 - step, self.timesteps - 1 - self.first - step)
            } else {
                (step, self.first + step)
            };
            loop {
                self.step(s, At { step, slot, time });
                match self.exchange(step) {
                    Next::Step => break,
                    Next::Again => {}
                    Next::End => return,
                }
            }
            core::mem::swap(&mut self.rows.h, &mut self.rows.next);
        }
        if self.steps % 2 == 1 {
            // The current h is where the next h belongs.
            self.rows.next.copy_from_slice(self.rows.h);
        }
        self.end();
    }
}

/// The operand of a product.
#[derive(Clone, Copy)]
enum Of {
    H,
    Reset,
}

/// The gates of a band of tiles, as one function that is not inlined.
struct Gates<'a, 'b, F> {
    job: &'a mut Job<'b>,
    at: At,
    band: Range<usize>,
    run: F,
}

/// What [`Gates`] runs.
trait Run {
    fn run<S: Simd>(self, job: &mut Job<'_>, s: S, at: At, band: Range<usize>);
}

impl<F: Run> WithSimd for Gates<'_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        self.run.run(self.job, s, self.at, self.band);
    }
}

impl Job<'_> {
    /// Computes `W x` of every row for a band of tiles, into `raw`.
    fn sums<S: Simd>(&mut self, s: S, at: At, (matrix, gates): (&Matrix, usize), of: Of, tiles: Range<usize>) {
        let x: &[f32] = match of {
            Of::H => self.rows.h,
            Of::Reset => self.rows.reset,
        };
        let (x, out) = (Operand::dense(x, self.rows.hp), &mut *self.rows.raw);
        let vectors = tiles.start * gates..tiles.end * gates;
        let (rows, backwards) = (self.count, at.backwards());
        sums(s, Sums { matrix, gates, vectors, x, first_row: 0, rows, bias: None, out, backwards });
    }

    /// Computes the gates of a band in a function that is not inlined.
    #[inline(never)]
    fn gates<S: Simd>(&mut self, s: S, at: At, band: Range<usize>, run: impl Run) {
        s.vectorize(Gates { job: self, at, band, run });
    }

    /// One timestep of all rows.
    fn step<S: Simd>(&mut self, s: S, at: At) {
        let packed = self.packed;
        let band = self.rows.extent.band;
        let tiles = self.tiles.clone();
        let bands = move || {
            let count = tiles.len().div_ceil(band);
            let (start, end) = (tiles.start, tiles.end);
            (0..count).map(move |n| {
                let first = start + band * if at.backwards() { count - 1 - n } else { n };
                first..(first + band).min(end)
            })
        };
        match packed.kind {
            CellKind::Lstm { coupled } => {
                for band in bands() {
                    self.sums(s, at, (&packed.w_hh, 4), Of::H, band.clone());
                    if packed.is_plain() {
                        self.gates(s, at, band, lstm::Plain);
                    } else {
                        self.gates(s, at, band, lstm::Any { coupled });
                    }
                }
                if packed.cell.projection.is_some() {
                    self.sums(s, at, (&packed.w_hr, 1), Of::Reset, 0..packed.width_tiles());
                    self.gates(s, at, 0..packed.width_tiles(), lstm::Projected);
                }
            }
            CellKind::Gru { reset_after: true } => {
                for band in bands() {
                    self.sums(s, at, (&packed.w_hh, 3), Of::H, band.clone());
                    if packed.is_plain() {
                        self.gates(s, at, band, gru::PlainAfter);
                    } else {
                        self.gates(s, at, band, gru::After);
                    }
                }
            }
            // `r ∘ h` of all units is needed before any candidate, so there are two passes.
            CellKind::Gru { reset_after: false } => {
                for band in bands() {
                    self.sums(s, at, (&packed.w_hh, 2), Of::H, band.clone());
                    self.gates(s, at, band, gru::Before);
                }
                for band in bands() {
                    self.sums(s, at, (&packed.w_hn, 1), Of::Reset, band.clone());
                    self.gates(s, at, band, gru::Candidate);
                }
            }
            CellKind::SLstm { exponential_forget, .. } => {
                for band in bands() {
                    self.sums(s, at, (&packed.w_hh, 4), Of::H, band.clone());
                    self.gates(s, at, band, slstm::SLstm { exponential_forget });
                }
            }
            CellKind::Rnn => {
                for band in bands() {
                    self.sums(s, at, (&packed.w_hh, 1), Of::H, band.clone());
                    self.gates(s, at, band, rnn::Rnn { plain: packed.is_plain() });
                }
            }
            _ => self.gates(s, at, self.tiles.clone(), pointwise::Pointwise),
        }
    }

    /// The sums of a row and a tile of a band.
    #[inline(always)]
    fn raw<S: Simd, const G: usize>(&self, band: &Range<usize>, row: usize, tile: usize) -> [S::f32s; G] {
        S::as_simd_f32s(self.rows.raw).0.as_chunks::<G>().0[row * band.len() + tile - band.start]
    }

    /// Layer normalization of the sums of a row, if the cell has it.
    #[inline(always)]
    fn normalize_sums<S: Simd>(&mut self, s: S, row: usize) {
        let p = self.packed;
        if let Some(norm) = &p.norm {
            let raw = &mut self.rows.raw[row * p.columns()..][..p.columns()];
            normalize(s, raw, p.kind.gates(), p.hidden, &norm.hh, norm.epsilon);
        }
    }

    /// The operands and results of a band's gates for one row, where all timesteps are valid and the cell has no
    /// options. [`Self::put`] must be called afterwards.
    #[inline(always)]
    fn row<S: Simd, const G: usize>(&mut self, at: At, row: usize, band: &Range<usize>) -> Row<'_, S, G> {
        let (first, count) = (row * self.packed.tiles + band.start, band.len());
        let input = &self.projection[row * self.p_row + at.slot * self.p_slot..];
        Row {
            sums: &S::as_simd_f32s(self.rows.raw).0.as_chunks().0[row * count..][..count],
            input: &S::as_simd_f32s(input).0.as_chunks().0[band.start..][..count],
            h: &S::as_simd_f32s(self.rows.h).0[first..][..count],
            c: &mut S::as_mut_simd_f32s(self.rows.c).0[first..][..count],
            next: &mut S::as_mut_simd_f32s(self.rows.next).0[first..][..count],
        }
    }

    /// Writes a band of the next h of a row to the outputs.
    #[inline(always)]
    fn put<S: Simd>(&mut self, at: At, row: usize, band: &Range<usize>) {
        if let Some(o) = &mut self.y {
            let units = band.start * S::F32_LANES..(band.end * S::F32_LANES).min(self.packed.width);
            let first = o.first.wrapping_add_signed(at.step as isize * o.step_stride);
            let y = &mut o.y[row * o.row_stride + first..][units.clone()];
            y.copy_from_slice(&self.rows.next[row * self.rows.hp..][units]);
        }
    }

    /// Keeps the state of a row whose timestep is not valid.
    #[inline(always)]
    fn keep<S: Simd>(&mut self, s: S, at: At, row: usize, band: Range<usize>) {
        for tile in band {
            let kept = S::as_simd_f32s(self.rows.h).0[row * self.packed.tiles + tile];
            self.store(s, at, row, tile, kept);
        }
    }
}

mod gru;
mod lstm;
mod pointwise;
mod rnn;
mod slstm;
