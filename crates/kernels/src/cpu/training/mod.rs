//! Recurrent layers with their gradients on the CPU.
//!
//! A task is one direction and a range of batch rows, over all timesteps. The input product of all timesteps comes
//! before the tasks, and the gradients of weights and input after them. What a task adds up over time it adds up for
//! each row, and the rows are added at the end, so that no bit depends on how rows are shared among threads.

mod backward;
mod forward;
mod general;
mod pointwise;
mod products;
mod rows;
mod slopes;

use super::cores;
use super::dense::Dense;
use super::pack::Line;
use super::weights::Plain;
use crate::call::ValidSteps;
use crate::training::{TrainingCall, TrainingWeights, keeps_sums, kept_blocks};
use crate::{Cell, CellKind};
use recurve_tensor::cpu::{host, simd_lanes};
use recurve_tensor::{Activation, Result, Tensor};
use std::sync::{Mutex, PoisonError};

/// The memory of a layer's calls.
#[derive(Debug, Default)]
pub(crate) struct CpuTraining {
    scratch: Mutex<Vec<Scratch>>,
}

/// The memory of one call, which the next one uses again.
#[derive(Debug, Default)]
struct Scratch {
    directions: [Packed; 2],
    /// The input weights of the direction at hand.
    input: Dense,
    buffers: [Vec<Line>; 11],
}

impl CpuTraining {
    fn with_scratch<T>(&self, run: impl FnOnce(&mut Scratch) -> Result<T>) -> Result<T> {
        let lock = || self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = lock().pop().unwrap_or_default();
        let out = run(&mut scratch);
        lock().push(scratch);
        out
    }
}

/// `count` floats of a buffer, with unspecified contents.
fn floats(buffer: &mut Vec<Line>, count: usize) -> Result<&mut [f32]> {
    let lines = count.div_ceil(Line::FLOATS);
    if buffer.len() < lines {
        *buffer = Vec::new();
        *buffer = host("TrainingLayer", lines)?;
    }
    Ok(&mut bytemuck::cast_slice_mut(buffer)[..count])
}

/// The elements of a tensor that was checked to be f32 on the CPU; none where there is no tensor.
fn elements(t: Option<&Tensor>) -> &[f32] {
    t.map_or(&[], |t| t.cpu_f32().expect("checked to be f32 on the CPU"))
}

/// The weights of one direction; empty where the layer has none.
#[derive(Clone, Copy)]
struct Params<'a> {
    w_ih: &'a [f32],
    w_hh: &'a [f32],
    b_ih: &'a [f32],
    b_hh: &'a [f32],
    peepholes: &'a [f32],
    w_hr: &'a [f32],
    norm_ih: &'a [f32],
    norm_hh: &'a [f32],
    norm_c: &'a [f32],
}

impl<'a> Params<'a> {
    fn new(w: &TrainingWeights<&'a Tensor>) -> Self {
        let [w_ih, w_hh, b_ih, b_hh, peepholes, w_hr, norm_ih, norm_hh, norm_c] = w.into_list().map(elements);
        Self { w_ih, w_hh, b_ih, b_hh, peepholes, w_hr, norm_ih, norm_hh, norm_c }
    }
}

/// Cells without options, whose gates are computed on vectors in one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fast {
    Rnn,
    Lstm,
    Gru,
    GruBefore,
}

/// What a call computes, as numbers.
#[derive(Clone, Copy)]
struct Plan {
    cell: Cell,
    fast: Option<Fast>,
    /// Whether the sums of gates are kept instead of the gates.
    sums: bool,
    batch: usize,
    timesteps: usize,
    input: usize,
    h: usize,
    /// Elements of h of a row.
    w: usize,
    /// Elements of c of a row.
    c: usize,
    /// Gates.
    g: usize,
    /// Blocks of H that are kept.
    k: usize,
    /// Number of gates with dropout factors of their own: 0, 1 or G.
    dropout: usize,
}

impl Plan {
    fn new(call: &TrainingCall<'_>) -> Self {
        let cell = call.cell;
        let plain = cell.gates == [Activation::Sigmoid; 3]
            && cell.candidate == Activation::Tanh
            && cell.output == Activation::Tanh
            && cell.clip.is_none()
            && cell.layer_norm.is_none()
            && cell.projection.is_none()
            && cell.zoneout.is_none()
            && !cell.peepholes
            && call.zoneout_h.is_none()
            && call.zoneout_c.is_none();
        let dropout = call.recurrent_dropout.map_or(0, |t| t.dims()[1]);
        let fast = match cell.kind {
            CellKind::Rnn => Some(Fast::Rnn),
            CellKind::Lstm { coupled: false } => Some(Fast::Lstm),
            CellKind::Gru { reset_after: true } => Some(Fast::Gru),
            CellKind::Gru { reset_after: false } if dropout == 0 => Some(Fast::GruBefore),
            _ => None,
        };
        Self {
            cell,
            fast: fast.filter(|_| plain),
            sums: keeps_sums(&cell),
            batch: call.batch,
            timesteps: call.timesteps,
            input: call.input,
            h: call.hidden,
            w: call.width,
            c: call.carried,
            g: cell.kind.gates(),
            k: kept_blocks(cell.kind),
            dropout,
        }
    }

    fn norm(&self) -> bool {
        self.cell.layer_norm.is_some()
    }

    /// Elements of the kept norms of a row.
    fn norms(&self) -> usize {
        if self.norm() { 2 * self.g * self.h + 2 } else { 0 }
    }

    fn reset_before(&self) -> bool {
        self.cell.kind == CellKind::Gru { reset_after: false }
    }

    fn reset_after(&self) -> bool {
        self.cell.kind == CellKind::Gru { reset_after: true }
    }

    /// The recurrent products of a timestep: the first gate of each and the number of its gates. Gates that read h with
    /// other factors have products of their own, and so has the candidate of a GRU that reads `r ∘ h`: the last one.
    fn parts(&self) -> Vec<(usize, usize)> {
        match self.cell.kind {
            kind if kind.is_pointwise() => Vec::new(),
            _ if self.dropout > 1 => (0..self.g).map(|gate| (gate, 1)).collect(),
            CellKind::Gru { reset_after: false } => vec![(0, 2), (2, 1)],
            _ => vec![(0, self.g)],
        }
    }

    /// The number of batch rows of a task.
    fn rows(&self, directions: usize) -> usize {
        /// A call of fewer multiply-adds runs on one thread.
        const WORTH_A_THREAD: usize = 1 << 19;
        let work = directions * self.batch * self.timesteps * self.g * self.h * (self.w + 64);
        let threads = cores::threads().min(work / WORTH_A_THREAD).max(1);
        self.batch.div_ceil(self.batch.min(threads.div_ceil(directions)))
    }
}

/// The recurrent weights of one direction, packed for the products of a pass.
#[derive(Debug, Default)]
struct Packed {
    /// The first gate of each part and its number of gates.
    gates: Vec<(usize, usize)>,
    parts: Vec<Dense>,
    w_hr: Dense,
}

impl Packed {
    /// Packs what the forward pass multiplies h by, or `transposed` what the backward pass multiplies gradients by.
    /// `whole` is memory for the matrix of a cell with heads.
    fn set(&mut self, plan: &Plan, p: &Params<'_>, transposed: bool, whole: &mut Vec<Line>) -> Result<()> {
        let (h, w) = (plan.h, plan.w);
        let columns = plan.cell.kind.columns(w);
        let w_hh = if columns == w || plan.cell.kind.is_pointwise() {
            p.w_hh
        } else {
            let whole = floats(whole, plan.g * h * w)?;
            whole.fill(0.0);
            for (row, (whole, own)) in whole.chunks_exact_mut(w).zip(p.w_hh.chunks_exact(columns)).enumerate() {
                whole[row % h / columns * columns..][..columns].copy_from_slice(own);
            }
            whole
        };
        let plain = |data, out: usize, from: usize| {
            let (units, k) = if transposed { (from, out) } else { (out, from) };
            Plain { data, stride: from, units, k, transposed }
        };
        self.gates = plan.parts();
        self.parts.resize_with(self.gates.len(), Dense::default);
        for (&(first, count), dense) in self.gates.iter().zip(&mut self.parts) {
            dense.set(plain(&w_hh[first * h * w..][..count * h * w], count * h, w))?;
        }
        if plan.cell.projection.is_some() {
            self.w_hr.set(plain(p.w_hr, w, h))?;
        }
        Ok(())
    }
}

/// The number of floats of a row of a product with so many units.
fn padded(units: usize) -> usize {
    units.next_multiple_of(simd_lanes())
}

/// Which timesteps of a call are valid.
#[derive(Clone, Copy)]
struct Valid<'a> {
    lengths: Option<&'a [u32]>,
    mask: Option<&'a [u32]>,
    repeats: bool,
    timesteps: usize,
}

impl<'a> Valid<'a> {
    fn new(call: &TrainingCall<'a>) -> Self {
        let of = |t: &'a Tensor| Some(t.cpu_u32().expect("checked to be u32 on the CPU"));
        let (lengths, mask) = match call.valid {
            ValidSteps::All => (None, None),
            ValidSteps::Lengths(t) => (of(t), None),
            ValidSteps::Mask(t, _) => (None, of(t)),
        };
        Self { lengths, mask, repeats: call.valid.repeats(), timesteps: call.timesteps }
    }

    fn all(&self) -> bool {
        self.lengths.is_none() && self.mask.is_none()
    }

    #[inline(always)]
    fn at(&self, row: usize, time: usize) -> bool {
        self.lengths.is_none_or(|l| time < l[row] as usize)
            && self.mask.is_none_or(|m| m[row * self.timesteps + time] != 0)
    }
}

/// The shares of the old state in the new one, for each timestep and row, or the same for all.
#[derive(Clone, Copy)]
struct Shares<'a> {
    data: &'a [f32],
    width: usize,
    /// Number of batch rows; 0 if all shares are the same.
    batch: usize,
}

impl<'a> Shares<'a> {
    fn at(&self, time: usize, row: usize) -> &'a [f32] {
        let n = if self.batch == 0 { 0 } else { time * self.batch + row };
        &self.data[n * self.width..][..self.width]
    }
}

/// What a call has drawn for one direction.
#[derive(Clone, Copy)]
struct Drawn<'a> {
    /// Factors on h, `[gates, B, W]`.
    dropout: &'a [f32],
    zoneout_h: Option<Shares<'a>>,
    zoneout_c: Option<Shares<'a>>,
}

impl<'a> Drawn<'a> {
    /// `constants` are the cell's own shares, of W and H elements.
    fn new(call: &TrainingCall<'a>, direction: usize, constants: [&'a [f32]; 2]) -> Self {
        let part = |t: &'a Tensor| {
            let all = elements(Some(t));
            let n = all.len() / call.directions.len();
            &all[direction * n..(direction + 1) * n]
        };
        let shares = |t: Option<&'a Tensor>, width, constant: &'a [f32]| match t {
            Some(t) => Some(Shares { data: part(t), width, batch: call.batch }),
            None => call.cell.zoneout.map(|_| Shares { data: constant, width, batch: 0 }),
        };
        let lstm = matches!(call.cell.kind, CellKind::Lstm { .. });
        Self {
            dropout: call.recurrent_dropout.map_or(&[], part),
            zoneout_h: shares(call.zoneout_h, call.width, constants[0]),
            zoneout_c: if lstm { shares(call.zoneout_c, call.hidden, constants[1]) } else { None },
        }
    }

    /// The factors on h that a gate reads, `[W]`.
    fn factors(&self, plan: &Plan, gate: usize, row: usize) -> Option<&'a [f32]> {
        let gate = match plan.dropout {
            0 => return None,
            1 => 0,
            _ => gate,
        };
        Some(&self.dropout[(gate * plan.batch + row) * plan.w..][..plan.w])
    }
}

/// The cell's own zoneout as shares of all units.
fn constants(call: &TrainingCall<'_>) -> [Vec<f32>; 2] {
    let z = call.cell.zoneout.map_or([0.0; 2], Into::into);
    [vec![z[0]; call.width], vec![z[1]; call.hidden]]
}

/// Parts of memory `[times, batch, width]`: for each range of `rows` batch rows a list of its rows at each time.
fn by_rows<'a>(all: &'a mut [f32], batch: usize, width: usize, rows: usize) -> Vec<Vec<&'a mut [f32]>> {
    let mut parts: Vec<Vec<&'a mut [f32]>> = (0..batch.div_ceil(rows)).map(|_| Vec::new()).collect();
    if width > 0 {
        for at in all.chunks_exact_mut(batch * width) {
            parts.iter_mut().zip(at.chunks_mut(rows * width)).for_each(|(part, rows)| part.push(rows));
        }
    }
    parts
}

/// The blocks of a row.
fn blocks<const N: usize>(row: &[f32], h: usize) -> [&[f32]; N] {
    let mut parts = row.chunks_exact(h);
    [(); N].map(|()| parts.next().expect("a row of this many blocks"))
}

/// The same, to be changed.
fn blocks_mut<const N: usize>(row: &mut [f32], h: usize) -> [&mut [f32]; N] {
    let mut parts = row.chunks_exact_mut(h);
    [(); N].map(|()| parts.next().expect("a row of this many blocks"))
}

/// Splits memory into parts of these lengths.
fn carve<const N: usize>(mut memory: &mut [f32], lengths: [usize; N]) -> [&mut [f32]; N] {
    lengths.map(|n| {
        let (part, rest) = core::mem::take(&mut memory).split_at_mut(n);
        memory = rest;
        part
    })
}

/// The state before and after a timestep, of states in order of time.
fn around<'s>(states: &'s mut [&mut [f32]], time: usize, reverse: bool) -> (&'s [f32], &'s mut [f32]) {
    if states.is_empty() {
        return (&[], &mut []);
    }
    let (first, second) = states.split_at_mut(time + 1);
    if reverse { (&*second[0], &mut *first[time]) } else { (&*first[time], &mut *second[0]) }
}

/// The part of a timestep, which is empty where nothing is kept.
fn at_time<'s>(all: &'s mut [&mut [f32]], time: usize) -> &'s mut [f32] {
    match all.get_mut(time) {
        Some(part) => part,
        None => &mut [],
    }
}
