//! The backward pass.

use super::general::{self, Back};
use super::pointwise::{CandidateBackward, GruBackward, LstmBackward, ResetBackward, RnnBackward, each};
use super::products::{self, Table, column_sums, outer, time_first};
use super::rows::Rows;
use super::{
    CpuTraining, Drawn, Fast, Packed, Params, Plan, Scratch, Valid, at_time, blocks, blocks_mut, by_rows, carve,
    constants, elements, floats, padded,
};
use crate::cpu::dense::DenseCall;
use crate::cpu::weights::Plain;
use crate::training::{BackwardCall, Gradients, TrainingWeights};
use crate::{CellKind, Direction};
use pulp::{Simd, WithSimd};
use recurve_tensor::cpu::simd_arch;
use recurve_tensor::cpu::threads::prelude::*;
use recurve_tensor::kernel::TensorKernels;
use recurve_tensor::{Activation, Result, Shape, Tensor};

impl CpuTraining {
    pub(crate) fn backward(&self, call: &BackwardCall<'_>) -> Result<Gradients> {
        self.with_scratch(|scratch| backward(call, scratch))
    }
}

/// The part of a direction.
fn of_direction(all: &[f32], direction: usize, directions: usize) -> &[f32] {
    let n = all.len() / directions;
    &all[direction * n..(direction + 1) * n]
}

/// The memory in which the tasks leave what the gradients are made from, of all directions.
struct Traces<'a> {
    /// The gradients of the sums, `[D, T, B, K·H]`; with layer normalization of `W_ih x`, `[D, T, B, G·H]`.
    d: &'a mut [f32],
    /// With layer normalization, those of `W_hh h`, `[D, T, B, G·H]`.
    hidden: &'a mut [f32],
    /// With a projection what comes back to h, `[D, T, B, W]`.
    dh: &'a mut [f32],
    /// What is projected, or `r ∘ h` of a GRU that multiplies it, `[D, T, B, H]`.
    second: &'a mut [f32],
    /// What rows add up over time, `[D, B, sums]`.
    sums: &'a mut [f32],
    dh0: &'a mut [f32],
    dc0: &'a mut [f32],
}

/// The places of what a row adds up: peepholes, normalizations of c, of `W_ih x` and of `W_hh h`, and u.
fn sum_sizes(plan: &Plan) -> [usize; 5] {
    let (h, cell) = (plan.h, &plan.cell);
    let norm = |n: usize| if plan.norm() { 2 * n } else { 0 };
    [
        if cell.peepholes { 3 * h } else { 0 },
        if plan.c > 0 { norm(h) } else { 0 },
        norm(plan.g * h),
        norm(plan.g * h),
        if cell.kind == CellKind::IndRnn { h } else { 0 },
    ]
}

fn backward(call: &BackwardCall<'_>, scratch: &mut Scratch) -> Result<Gradients> {
    let forward = &call.forward;
    let plan = &Plan::new(forward);
    let (b, t, d) = (plan.batch, plan.timesteps, forward.directions.len());
    let all = d * t * b;
    let (gh, dk) = (plan.g * plan.h, if plan.norm() { plan.g } else { plan.k } * plan.h);
    let second = plan.reset_before() || plan.cell.projection.is_some();
    let sums: usize = sum_sizes(plan).iter().sum();
    let params: Vec<Params<'_>> = forward.weights.iter().map(Params::new).collect();
    let Scratch { directions, input, buffers } = scratch;
    let [d_memory, hidden, dh, seconds, whole, memory, sum_memory, ends, x_memory, masked, row_memory] = buffers;
    let ends = floats(ends, d * b * (plan.w + plan.c))?;
    let (dh0, dc0) = ends.split_at_mut(d * b * plan.w);
    let mut traces = Traces {
        d: floats(d_memory, all * dk)?,
        hidden: floats(hidden, if plan.norm() { all * gh } else { 0 })?,
        dh: floats(dh, if plan.cell.projection.is_some() { all * plan.w } else { 0 })?,
        second: floats(seconds, if second { all * plan.h } else { 0 })?,
        sums: floats(sum_memory, d * b * sums)?,
        dh0,
        dc0,
    };
    for (packed, p) in directions.iter_mut().zip(&params) {
        packed.set(plan, p, true, whole)?;
    }
    run(call, plan, &params, directions, &mut traces, memory)?;

    let states = |shape: Shape, from: &[f32]| {
        Tensor::cpu_write(shape, |out| {
            out.copy_from_slice(from);
            Ok(())
        })
    };
    let (mut h0, mut c0, mut dx) = (None, None, None);
    if call.wanted.states {
        h0 = Some(states(forward.h_shape(), traces.dh0)?);
        c0 = forward.c_shape().map(|shape| states(shape, traces.dc0)).transpose()?;
    }
    // The gradients of the input products. With a table: for each row the sum over the timesteps that read it.
    let table = if call.wanted.weights || call.wanted.x { Rows::new(forward)? } else { None };
    let row_sums = floats(row_memory, table.as_ref().map_or(0, |table| d * table.count() * gh))?;
    if let Some(table) = &table {
        let readers = table.readers(Valid::new(forward), b)?;
        for (dir, out) in row_sums.chunks_exact_mut(table.count() * gh).enumerate() {
            readers.sums(Table::dense(of_direction(traces.d, dir, d), dk).columns(0, gh), out);
        }
    }
    let by_input = |dir: usize| match &table {
        Some(_) => Table::dense(of_direction(row_sums, dir, d), gh),
        None => Table::dense(of_direction(traces.d, dir, d), dk).columns(0, gh),
    };
    let mut weights = Vec::new();
    if call.wanted.weights {
        let x = match &table {
            Some(table) => table.gather(x_memory)?,
            None => time_first(forward, x_memory, true)?,
        };
        for dir in 0..d {
            let inputs = (by_input(dir), Table::dense(x, plan.input));
            weights.push(weight_gradients(call, plan, dir, &traces, inputs, masked)?);
        }
    }
    if call.wanted.x {
        let count = by_input(0).rows;
        let out = floats(x_memory, count * plan.input)?;
        let sum = floats(masked, if d > 1 { count * plan.input } else { 0 })?;
        for (dir, p) in params.iter().enumerate() {
            let Table { data: x, stride, .. } = by_input(dir);
            input.set(Plain { data: p.w_ih, stride: plan.input, units: plan.input, k: gh, transposed: true })?;
            let call = DenseCall { x, stride, count, bias: None, activation: Activation::Linear };
            if dir == 0 {
                input.rows(&call, out)?;
            } else {
                input.rows(&call, sum)?;
                general::add(sum, out);
            }
        }
        dx = Some(match &table {
            Some(table) => table.scatter(out)?,
            None => batch_first(forward.x, forward.time_major, out)?,
        });
    }
    Ok(Gradients { x: dx, h0, c0, weights })
}

/// The gradient by x, in the layout of x, from one with time first.
fn batch_first(x: &Tensor, time_major: bool, dx: &[f32]) -> Result<Tensor> {
    let &[b, t, n] = x.dims() else { unreachable!("checked to have three dimensions") };
    Tensor::cpu_write(*x.shape(), |out| {
        if time_major || b == 1 || t == 1 {
            out.copy_from_slice(dx);
            return Ok(());
        }
        let each = |row: usize, out: &mut [f32]| {
            for (time, out) in out.chunks_exact_mut(n).enumerate() {
                out.copy_from_slice(&dx[(time * b + row) * n..][..n]);
            }
        };
        if out.len() > 1 << 16 {
            out.par_chunks_mut(t * n).enumerate().for_each(|(row, out)| each(row, out));
        } else {
            out.chunks_mut(t * n).enumerate().for_each(|(row, out)| each(row, out));
        }
        Ok(())
    })
}

/// The gradients by the weights of one direction. `input` are the gradients of the input products, `x` is what the
/// products read.
fn weight_gradients(
    call: &BackwardCall<'_>,
    plan: &Plan,
    dir: usize,
    traces: &Traces<'_>,
    (input, x): (Table<'_>, Table<'_>),
    masked: &mut Vec<super::Line>,
) -> Result<TrainingWeights<Tensor>> {
    let forward = &call.forward;
    let given = &forward.weights[dir];
    let (b, t, h, w, n) = (plan.batch, plan.timesteps, plan.h, plan.w, plan.input);
    let directions = forward.directions.len();
    let gh = plan.g * h;
    let part = |all: &'_ [f32]| -> std::ops::Range<usize> {
        let n = all.len() / directions;
        dir * n..(dir + 1) * n
    };
    let dk = if plan.norm() { gh } else { plan.k * h };
    let d = Table::dense(&traces.d[part(traces.d)], dk);
    let like = |t: &Tensor, fill: &mut dyn FnMut(&mut [f32])| {
        Tensor::cpu_write(*t.shape(), |out| {
            fill(out);
            Ok(())
        })
    };
    let w_ih = like(given.w_ih, &mut |out| outer(input, x, out, n))?;

    // The gradients of the recurrent sums of some gates.
    let hidden = |first: usize, count: usize| match () {
        () if plan.norm() => Table::dense(&traces.hidden[part(traces.hidden)], gh).columns(first * h, count * h),
        // The recurrent sum of the candidate has a block of its own.
        () if plan.reset_after() && first == 2 => d.columns(3 * h, h),
        () => d.columns(first * h, count * h),
    };
    let states = elements(Some(&call.reserve.h));
    let states = &states[part(states)];
    let reverse = forward.directions[dir] == Direction::Reverse;
    let old_h = &states[if reverse { b * w } else { 0 }..][..t * b * w];
    let sums = &traces.sums[part(traces.sums)];
    let row_sums = sum_sizes(plan).iter().sum::<usize>();
    // Adds up what the rows have of weight `which` of those that rows add up.
    let of_rows = |which: usize, out: &mut [f32]| {
        let sizes = sum_sizes(plan);
        let first = sizes[..which].iter().sum();
        column_sums(Table::dense(sums, row_sums).columns(first, sizes[which]), out);
    };
    let w_hh = match given.w_hh {
        None => None,
        Some(w_hh) if plan.cell.kind == CellKind::IndRnn => Some(like(w_hh, &mut |out| of_rows(4, out))?),
        Some(w_hh) => {
            let masked = floats(masked, if plan.dropout > 0 { t * b * w } else { 0 })?;
            let drawn = Drawn::new(forward, dir, [&[], &[]]);
            let columns = plan.cell.kind.columns(w);
            let second = if plan.reset_before() { &traces.second[part(traces.second)] } else { &[] };
            Some(like(w_hh, &mut |out| {
                // Gates that read the same h, and whose gradients stand side by side, have one product.
                let groups = match plan.cell.kind {
                    _ if plan.dropout > 1 => (0..plan.g).map(|gate| (gate, 1)).collect(),
                    CellKind::Gru { .. } => vec![(0, 2), (2, 1)],
                    _ => vec![(0, plan.g)],
                };
                for (first, count) in groups {
                    let out = &mut out[first * h * columns..(first + count) * h * columns];
                    let read: &[f32] = if plan.reset_before() && first == 2 {
                        second
                    } else if plan.dropout > 0 {
                        for (n, (out, h)) in masked.chunks_exact_mut(w).zip(old_h.chunks_exact(w)).enumerate() {
                            let factors = drawn.factors(plan, first, n % b).expect("there is dropout");
                            general::product(h, factors, out);
                        }
                        masked
                    } else {
                        old_h
                    };
                    let (d, read) = (hidden(first, count), Table::dense(read, w));
                    if columns == w {
                        outer(d, read, out, w);
                        continue;
                    }
                    // The rows of each head have its units alone.
                    for (n, out) in out.chunks_exact_mut(columns * columns).enumerate() {
                        let unit = n * columns;
                        outer(d.columns(unit, columns), read.columns(unit % h, columns), out, columns);
                    }
                }
            })?)
        }
    };
    let bias = |given: Option<&Tensor>, recurrent: bool| {
        let Some(given) = given else { return Ok(None) };
        like(given, &mut |out| {
            if plan.norm() {
                // They are added where the offsets are.
                let sizes = sum_sizes(plan);
                let which = if recurrent { 3 } else { 2 };
                let first = sizes[..which].iter().sum::<usize>() + gh;
                column_sums(Table::dense(sums, row_sums).columns(first, gh), out);
            } else if recurrent && plan.reset_after() {
                let (two, one) = out.split_at_mut(2 * h);
                column_sums(hidden(0, 2), two);
                column_sums(hidden(2, 1), one);
            } else {
                column_sums(input, out);
            }
        })
        .map(Some)
    };
    let summed = |given: Option<&Tensor>, which: usize| {
        given.map(|given| like(given, &mut |out| of_rows(which, out))).transpose()
    };
    let w_hr = given.w_hr.map(|w_hr| {
        let dh = Table::dense(&traces.dh[part(traces.dh)], w);
        let m = Table::dense(&traces.second[part(traces.second)], h);
        like(w_hr, &mut |out| outer(dh, m, out, h))
    });
    Ok(TrainingWeights {
        w_ih,
        w_hh,
        b_ih: bias(given.b_ih, false)?,
        b_hh: bias(given.b_hh, true)?,
        peepholes: summed(given.peepholes, 0)?,
        w_hr: w_hr.transpose()?,
        norm_ih: summed(given.norm_ih, 2)?,
        norm_hh: summed(given.norm_hh, 3)?,
        norm_c: summed(given.norm_c, 1)?,
        rest: given.rest,
    })
}

/// Runs the tasks.
fn run(
    call: &BackwardCall<'_>,
    plan: &Plan,
    params: &[Params<'_>],
    packed: &[Packed],
    traces: &mut Traces<'_>,
    memory: &mut Vec<super::Line>,
) -> Result<()> {
    let forward = &call.forward;
    let (b, t, d) = (plan.batch, plan.timesteps, forward.directions.len());
    let rows = plan.rows(d);
    let sizes = sizes(plan, rows);
    let each = sizes.iter().sum::<usize>().next_multiple_of(16);
    let memory = floats(memory, d * b.div_ceil(rows) * each)?;
    let mut memory = memory.chunks_exact_mut(each);
    let constants = constants(forward);
    let constants = [&constants[0][..], &constants[1][..]];
    traces.sums.fill(0.0);
    let kinds = [&mut *traces.d, traces.hidden, traces.dh, traces.second];
    // For each direction, task and time the rows of what the tasks leave.
    let mut lists = kinds.map(|all| {
        let n = all.len() / d;
        let width = n / (t * b);
        let mut parts = Vec::new();
        for part in all.chunks_mut(n.max(1)) {
            parts.extend(by_rows(part, b, width, rows));
        }
        parts.resize_with(d * b.div_ceil(rows), Vec::new);
        parts.into_iter()
    });
    fn rows_of<'a>(all: &'a mut [f32], d: usize, b: usize, rows: usize) -> std::vec::IntoIter<&'a mut [f32]> {
        let width = all.len() / (d * b);
        let mut parts: Vec<&'a mut [f32]> = Vec::new();
        for part in all.chunks_mut((b * width).max(1)) {
            parts.extend(part.chunks_mut((rows * width).max(1)));
        }
        parts.resize_with(d * b.div_ceil(rows), Default::default);
        parts.into_iter()
    }
    let mut row_sums = rows_of(traces.sums, d, b, rows);
    let mut dh0 = rows_of(traces.dh0, d, b, rows);
    let mut dc0 = rows_of(traces.dc0, d, b, rows);
    let mut tasks = Vec::new();
    for (dir, params) in params.iter().enumerate() {
        for first in (0..b).step_by(rows) {
            let [traces, hidden, dh, second] = lists.each_mut().map(|l| l.next().expect("of each task"));
            let source = Source {
                plan,
                params,
                packed: &packed[dir],
                drawn: Drawn::new(forward, dir, constants),
                valid: Valid::new(forward),
                reverse: forward.directions[dir] == Direction::Reverse,
                reading_order: forward.reading_order,
                first,
                rows: rows.min(b - first),
                gates: of_direction(elements(Some(&call.reserve.gates)), dir, d),
                h: of_direction(elements(Some(&call.reserve.h)), dir, d),
                c: of_direction(elements(call.reserve.c.as_ref()), dir, d),
                norms: of_direction(elements(call.reserve.norms.as_ref()), dir, d),
                dy: elements(call.dy),
                y: match forward.time_major {
                    true => [d * plan.w, b * d * plan.w, dir * plan.w],
                    false => [t * d * plan.w, d * plan.w, dir * plan.w],
                },
                dh: of_direction(elements(call.dh), dir, d),
                dc: of_direction(elements(call.dc), dir, d),
            };
            tasks.push(Task {
                source,
                d: traces,
                hidden,
                dh,
                second,
                sums: row_sums.next().expect("of each task"),
                dh0: dh0.next().expect("of each task"),
                dc0: dc0.next().expect("of each task"),
                sizes,
                memory: memory.next().expect("of each task"),
            });
        }
    }
    if tasks.len() > 1 {
        tasks.into_par_iter().for_each(|task| simd_arch().dispatch(task));
    } else {
        tasks.into_iter().for_each(|task| simd_arch().dispatch(task));
    }
    Ok(())
}

/// The lengths of the parts of a task's memory: what comes back to h by products, by further ones, without them, in sum,
/// through the projection or to `r ∘ h`; the gradients of a GRU's recurrent sums, memory for rows of general cells, and
/// zeros.
fn sizes(plan: &Plan, rows: usize) -> [usize; 8] {
    let (h, w) = (plan.h, plan.w);
    let second = plan.reset_before() || plan.cell.projection.is_some();
    let general = 12 * h + if plan.norm() { 4 * h } else { 0 };
    [
        rows * padded(w),
        if plan.dropout > 0 { rows * padded(w) } else { 0 },
        rows * w,
        rows * w,
        if second { rows * padded(h) } else { 0 },
        if plan.reset_after() { rows * 3 * h } else { 0 },
        general,
        w.max(h),
    ]
}

/// What the rows of a task are computed from.
#[derive(Clone, Copy)]
struct Source<'a> {
    plan: &'a Plan,
    params: &'a Params<'a>,
    packed: &'a Packed,
    drawn: Drawn<'a>,
    valid: Valid<'a>,
    reverse: bool,
    reading_order: bool,
    /// The first batch row, and the number of rows.
    first: usize,
    rows: usize,
    /// What was kept for this direction.
    gates: &'a [f32],
    h: &'a [f32],
    c: &'a [f32],
    norms: &'a [f32],
    /// What comes back to the outputs, empty for nothing, with the strides of rows and timesteps and the first column.
    dy: &'a [f32],
    y: [usize; 3],
    /// What comes back to the final states; empty for nothing.
    dh: &'a [f32],
    dc: &'a [f32],
}

/// A range of batch rows of one direction.
struct Task<'a> {
    source: Source<'a>,
    /// For each timestep, the rows of [`Traces`].
    d: Vec<&'a mut [f32]>,
    hidden: Vec<&'a mut [f32]>,
    dh: Vec<&'a mut [f32]>,
    second: Vec<&'a mut [f32]>,
    sums: &'a mut [f32],
    /// What comes back to h and to c; at the end to the initial ones.
    dh0: &'a mut [f32],
    dc0: &'a mut [f32],
    sizes: [usize; 8],
    memory: &'a mut [f32],
}

/// One timestep of a task.
struct Step<'a> {
    time: usize,
    /// Whether products go from the last unit to the first; every other timestep does.
    backwards: bool,
    d: &'a mut [f32],
    hidden: &'a mut [f32],
    dh: &'a mut [f32],
    second: &'a mut [f32],
    sums: &'a mut [f32],
    /// What comes back to c.
    dc: &'a mut [f32],
    /// What comes back to h by products, in rows of whole vectors.
    raw: &'a mut [f32],
    /// The same of one gate.
    more: &'a mut [f32],
    /// What comes back to h without a product.
    direct: &'a mut [f32],
    /// Both and what comes back to the outputs.
    total: &'a mut [f32],
    /// What comes back through the projection or to `r ∘ h`, in rows of whole vectors.
    second_sums: &'a mut [f32],
    /// The gradients of the recurrent sums of a GRU.
    recurrent: &'a mut [f32],
    row_memory: &'a mut [f32],
    zeros: &'a [f32],
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let Self { source, mut d, mut hidden, mut dh, mut second, sums, dh0, dc0, sizes, memory } = self;
        let plan = source.plan;
        let (w, c, wide) = (plan.w, plan.c, padded(plan.w));
        let [raw, _, direct, .., zeros] = carve(memory, sizes);
        raw.fill(0.0);
        direct.fill(0.0);
        zeros.fill(0.0);
        dc0.fill(0.0);
        if !source.dh.is_empty() {
            let given = source.dh[source.first * w..].chunks_exact(w);
            raw.chunks_exact_mut(wide).zip(given).for_each(|(row, given)| row[..w].copy_from_slice(given));
        }
        if !source.dc.is_empty() {
            dc0.copy_from_slice(&source.dc[source.first * c..][..source.rows * c]);
        }
        for step in (0..plan.timesteps).rev() {
            let time = if source.reverse { plan.timesteps - 1 - step } else { step };
            let [raw, more, direct, total, second_sums, recurrent, row_memory, zeros] = carve(memory, sizes);
            let mut at = Step {
                time,
                backwards: step % 2 == 1,
                d: at_time(&mut d, time),
                hidden: at_time(&mut hidden, time),
                dh: at_time(&mut dh, time),
                second: at_time(&mut second, time),
                sums,
                dc: dc0,
                raw,
                more,
                direct,
                total,
                second_sums,
                recurrent,
                row_memory,
                zeros,
            };
            let any = source.valid.all() || (0..source.rows).any(|row| source.alive(row, time));
            match plan.fast {
                Some(fast) => source.fast(s, fast, any, &mut at),
                None => source.general(s, any, &mut at),
            }
            if any {
                source.products(s, &mut at);
            } else {
                raw.fill(0.0);
            }
        }
        let [raw, _, direct, ..] = carve(memory, sizes);
        let parts = raw.chunks_exact(wide).zip(direct.chunks_exact(w));
        for (out, (raw, direct)) in dh0.chunks_exact_mut(w).zip(parts) {
            out.copy_from_slice(&raw[..w]);
            general::add(direct, out);
        }
    }
}

impl<'a> Source<'a> {
    fn alive(&self, row: usize, time: usize) -> bool {
        self.valid.at(self.first + row, time)
    }

    /// The place of a row.
    fn place(row: usize, width: usize) -> core::ops::Range<usize> {
        row * width..(row + 1) * width
    }

    /// A row of what was kept of each timestep.
    fn row(&self, all: &'a [f32], time: usize, row: usize, width: usize) -> &'a [f32] {
        all.get(Self::place(time * self.plan.batch + self.first + row, width)).unwrap_or(&[])
    }

    /// h and c before a timestep, and c after it.
    fn states(&self, time: usize, row: usize) -> [&'a [f32]; 3] {
        let (before, after) = if self.reverse { (time + 1, time) } else { (time, time + 1) };
        let (w, c) = (self.plan.w, self.plan.c);
        [self.row(self.h, before, row, w), self.row(self.c, before, row, c), self.row(self.c, after, row, c)]
    }

    /// What comes back to the output of a row.
    fn dy<'s>(&self, time: usize, row: usize, zeros: &'s [f32]) -> &'s [f32]
    where
        'a: 's,
    {
        if self.dy.is_empty() {
            return &zeros[..self.plan.w];
        }
        let place = if self.reverse && self.reading_order { self.plan.timesteps - 1 - time } else { time };
        let [row_stride, step_stride, first] = self.y;
        &self.dy[(self.first + row) * row_stride + place * step_stride + first..][..self.plan.w]
    }

    /// A row whose timestep is not valid: what comes back to h passes on.
    fn pass(&self, at: &mut Step<'_>, row: usize) {
        let plan = self.plan;
        let direct = &mut at.direct[Self::place(row, plan.w)];
        general::add(&at.raw[row * padded(plan.w)..][..plan.w], direct);
        if self.valid.repeats {
            general::add(self.dy(at.time, row, at.zeros), direct);
        }
        for all in [&mut *at.d, at.hidden, at.dh, at.second] {
            let width = all.len() / self.rows;
            all[Self::place(row, width)].fill(0.0);
        }
        at.total[Self::place(row, plan.w)].fill(0.0);
        if plan.reset_after() {
            at.recurrent[Self::place(row, plan.g * plan.h)].fill(0.0);
        }
    }

    /// The gates of a cell without options.
    fn fast<S: Simd>(&self, s: S, fast: Fast, any: bool, at: &mut Step<'_>) {
        let (plan, time) = (self.plan, at.time);
        let (hn, kh, gh) = (plan.h, plan.k * plan.h, plan.g * plan.h);
        for row in 0..self.rows {
            if !self.alive(row, time) {
                self.pass(at, row);
                continue;
            }
            let place = Self::place(row, hn);
            let own = &mut at.d[Self::place(row, kh)];
            let direct = &mut at.direct[place.clone()];
            let product = &at.raw[row * padded(hn)..][..hn];
            let (kept, dy) = (self.row(self.gates, time, row, kh), self.dy(time, row, at.zeros));
            let [h, c, new_c] = self.states(time, row);
            match fast {
                Fast::Rnn => each(s, &RnnBackward, [kept, product, direct, dy], [own]),
                Fast::Lstm => {
                    let [i, f, g, o] = blocks(kept, hn);
                    let x = [i, f, g, o, c, new_c, product, direct, dy];
                    let [i, f, g, o] = blocks_mut(own, hn);
                    each(s, &LstmBackward, x, [i, f, g, o, &mut at.dc[place]]);
                }
                Fast::Gru => {
                    let [r, z, n, q] = blocks(kept, hn);
                    let x = [r, z, n, q, h, product, dy];
                    let [r, z, n, q] = blocks_mut(own, hn);
                    let [hr, hz, hq] = blocks_mut(&mut at.recurrent[Self::place(row, gh)], hn);
                    each(s, &GruBackward, x, [r, z, n, q, hr, hz, hq, direct]);
                }
                Fast::GruBefore => {
                    let [_, z, n] = blocks(kept, hn);
                    let x = [z, n, h, product, dy];
                    let [_, dz, dn] = blocks_mut(own, hn);
                    each(s, &CandidateBackward, x, [dz, dn, direct]);
                }
            }
            // Without a mask nothing ever comes back to these cells' h without a product.
            if matches!(fast, Fast::Rnn | Fast::Lstm) && !self.valid.all() {
                at.direct[Self::place(row, hn)].fill(0.0);
            }
        }
        if fast == Fast::GruBefore && any {
            self.candidate_product(s, at);
            for row in (0..self.rows).filter(|&row| self.alive(row, time)) {
                let (place, [h, ..]) = (Self::place(row, hn), self.states(time, row));
                let r = &self.row(self.gates, time, row, kh)[..hn];
                let x = [r, h, &at.second_sums[row * padded(hn)..][..hn]];
                let out = [&mut at.d[row * kh..][..hn], &mut at.second[place.clone()], &mut at.direct[place]];
                each(s, &ResetBackward, x, out);
            }
        }
    }

    /// What comes back to `r ∘ h` of a GRU that multiplies it.
    fn candidate_product<S: Simd>(&self, s: S, at: &mut Step<'_>) {
        let dense = self.packed.parts.last().expect("of the candidate");
        let (h, width) = (self.plan.h, at.d.len() / self.rows);
        products::recurrent(s, dense, (&at.d[2 * h..], width), self.rows, at.second_sums, at.backwards);
    }

    /// The gates of any cell.
    fn general<S: Simd>(&self, s: S, any: bool, at: &mut Step<'_>) {
        let (plan, time) = (self.plan, at.time);
        let (hn, w) = (plan.h, plan.w);
        for row in 0..self.rows {
            if !self.alive(row, time) {
                self.pass(at, row);
                continue;
            }
            let (total, direct) = (&mut at.total[Self::place(row, w)], &mut at.direct[Self::place(row, w)]);
            total.copy_from_slice(&at.raw[row * padded(w)..][..w]);
            general::add(direct, total);
            general::add(self.dy(time, row, at.zeros), total);
            direct.fill(0.0);
            if let Some(shares) = self.drawn.zoneout_h {
                general::unmix(shares.at(time, self.first + row), total, direct);
            }
            if plan.cell.projection.is_some() {
                at.dh[Self::place(row, w)].copy_from_slice(total);
            }
        }
        if !any {
            return;
        }
        if plan.cell.projection.is_some() {
            products::recurrent(s, &self.packed.w_hr, (at.total, w), self.rows, at.second_sums, at.backwards);
        }
        for row in (0..self.rows).filter(|&row| self.alive(row, time)) {
            self.general_row(at, row);
        }
        if plan.reset_before() {
            self.candidate_product(s, at);
            for row in (0..self.rows).filter(|&row| self.alive(row, time)) {
                let [h, ..] = self.states(time, row);
                let width = at.d.len() / self.rows;
                let back = Back {
                    kept: self.row(self.gates, time, row, plan.k * hn),
                    h,
                    c: &[],
                    dh: &at.second_sums[row * padded(hn)..][..hn],
                    dc: &mut [],
                    direct: &mut at.direct[Self::place(row, w)],
                    output: &mut at.second[Self::place(row, hn)],
                    d: &mut at.d[Self::place(row, width)],
                    zoneout_c: None,
                    sum_peepholes: &mut [],
                    sum_norm_c: &mut [],
                    memory: at.row_memory,
                };
                general::by_reset(plan, back, self.drawn.factors(plan, 2, self.first + row).unwrap_or(&[]));
            }
        }
    }

    /// The gates of a row, up to a second product if the cell has one.
    fn general_row(&self, at: &mut Step<'_>, row: usize) {
        let (plan, time) = (self.plan, at.time);
        let (hn, w, cw, kh, gh) = (plan.h, plan.w, plan.c, plan.k * plan.h, plan.g * plan.h);
        let [h, c, _] = self.states(time, row);
        let (d_width, sum_width) = (at.d.len() / self.rows, at.sums.len() / self.rows);
        let own = &mut at.d[Self::place(row, d_width)];
        let sums = &mut at.sums[Self::place(row, sum_width)];
        let [sum_peepholes, sum_norm_c, sum_ih, sum_hh, sum_u] = carve(sums, sum_sizes(plan));
        let (work, norm_work) = at.row_memory.split_at_mut(12 * hn);
        let projection = plan.cell.projection.is_some();
        let back = Back {
            kept: self.row(self.gates, time, row, kh),
            h,
            c,
            dh: if projection { &at.second_sums[row * padded(hn)..][..hn] } else { &at.total[Self::place(row, w)] },
            dc: &mut at.dc[Self::place(row, cw)],
            direct: &mut at.direct[Self::place(row, w)],
            output: if projection { &mut at.second[Self::place(row, hn)] } else { &mut [] },
            // With layer normalization the gradients of what it returns come first.
            d: if plan.norm() { &mut norm_work[..kh] } else { &mut *own },
            zoneout_c: self.drawn.zoneout_c.map(|shares| shares.at(time, self.first + row)),
            sum_peepholes,
            sum_norm_c,
            memory: work,
        };
        if plan.reset_before() {
            return general::by_candidate(plan, back);
        }
        general::backward(plan, self.params, back);
        if plan.norm() {
            let hidden = &mut at.hidden[Self::place(row, gh)];
            own.copy_from_slice(&norm_work[..gh]);
            hidden.copy_from_slice(&norm_work[..gh]);
            if plan.reset_after() {
                hidden[2 * hn..].copy_from_slice(&norm_work[3 * hn..kh]);
            }
            let norms = self.row(self.norms, time, row, plan.norms());
            general::by_sides(self.params, own, hidden, norms, [sum_ih, sum_hh]);
        } else if plan.reset_after() {
            let to = &mut at.recurrent[Self::place(row, gh)];
            to[..2 * hn].copy_from_slice(&own[..2 * hn]);
            to[2 * hn..].copy_from_slice(&own[3 * hn..]);
        } else if plan.cell.kind == CellKind::IndRnn {
            let direct = &mut at.direct[Self::place(row, w)];
            let factors = self.drawn.factors(plan, 0, self.first + row);
            for j in 0..hn {
                let d = own[j] * factors.map_or(1.0, |f| f[j]);
                sum_u[j] += d * h[j];
                direct[j] += d * self.params.w_hh[j];
            }
        }
    }

    /// What comes back to h through the recurrent products.
    fn products<S: Simd>(&self, s: S, at: &mut Step<'_>) {
        let (plan, w) = (self.plan, self.plan.w);
        let count = self.packed.parts.len() - usize::from(plan.reset_before());
        if count == 0 {
            return at.raw.fill(0.0);
        }
        let (x, stride): (&[f32], usize) = if plan.norm() {
            (at.hidden, plan.g * plan.h)
        } else if plan.reset_after() {
            (at.recurrent, plan.g * plan.h)
        } else {
            (at.d, plan.k * plan.h)
        };
        for (n, (dense, &(gate, _))) in self.packed.parts[..count].iter().zip(&self.packed.gates).enumerate() {
            let out = if n == 0 { &mut *at.raw } else { &mut *at.more };
            products::recurrent(s, dense, (&x[gate * plan.h..], stride), self.rows, out, at.backwards);
            for (row, out) in out.chunks_exact_mut(padded(w)).take(self.rows).enumerate() {
                if let Some(factors) = self.drawn.factors(plan, gate, self.first + row) {
                    out[..w].iter_mut().zip(factors).for_each(|(v, f)| *v *= f);
                }
            }
            if n > 0 {
                general::add(at.more, at.raw);
            }
        }
    }
}
