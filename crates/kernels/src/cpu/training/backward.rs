//! The backward pass.

use super::general::{self, Back};
use super::pointwise::{CandidateBackward, GruBackward, LstmBackward, ResetBackward, RnnBackward, each};
use super::products::{self, Table, column_sums, outer, time_first};
use super::{
    CpuTraining, Drawn, Fast, Packed, Params, Plan, Scratch, Valid, blocks, blocks_mut, by_rows, carve, constants,
    elements, floats, padded,
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
fn of_direction<'a>(all: &'a [f32], direction: usize, directions: usize) -> &'a [f32] {
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
    let [d_memory, hidden, dh, seconds, whole, memory, sum_memory, ends, x_memory, masked] = buffers;
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
    let (mut h0, mut c0, mut x) = (None, None, None);
    if call.wanted.states {
        h0 = Some(states(forward.h_shape(), traces.dh0)?);
        c0 = forward.c_shape().map(|shape| states(shape, traces.dc0)).transpose()?;
    }
    let mut weights = Vec::new();
    if call.wanted.weights {
        let x = time_first(forward, x_memory, true)?;
        for dir in 0..d {
            weights.push(weight_gradients(call, plan, dir, &traces, x, masked)?);
        }
    }
    if call.wanted.x {
        let dx = floats(x_memory, t * b * plan.input)?;
        let sum = floats(masked, if d > 1 { t * b * plan.input } else { 0 })?;
        for (dir, p) in params.iter().enumerate() {
            let d = of_direction(traces.d, dir, d);
            input.set(Plain { data: p.w_ih, stride: plan.input, units: plan.input, k: gh, transposed: true })?;
            let call = DenseCall { x: d, stride: dk, count: t * b, bias: None, activation: Activation::Linear };
            if dir == 0 {
                input.rows(&call, dx)?;
            } else {
                input.rows(&call, sum)?;
                general::add(sum, dx);
            }
        }
        x = Some(batch_first(forward.x, forward.time_major, dx)?);
    }
    Ok(Gradients { x, h0, c0, weights })
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

/// The gradients by the weights of one direction.
fn weight_gradients(
    call: &BackwardCall<'_>,
    plan: &Plan,
    dir: usize,
    traces: &Traces<'_>,
    x: &[f32],
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
    let input = d.columns(0, gh);
    let like = |t: &Tensor, fill: &mut dyn FnMut(&mut [f32])| {
        Tensor::cpu_write(*t.shape(), |out| {
            fill(out);
            Ok(())
        })
    };
    let x = Table::dense(x, n);
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
    let sums = traces.sums.len() / (d * b);
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
    let dy = elements(call.dy);
    for (dir, params) in params.iter().enumerate() {
        for first in (0..b).step_by(rows) {
            let [traces, hidden, dh, second] = lists.each_mut().map(|l| l.next().expect("of each task"));
            let task = Task {
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
                dy,
                y: match forward.time_major {
                    true => [d * plan.w, b * d * plan.w, dir * plan.w],
                    false => [t * d * plan.w, d * plan.w, dir * plan.w],
                },
                dh: of_direction(elements(call.dh), dir, d),
                dc: of_direction(elements(call.dc), dir, d),
                d: traces,
                hidden,
                kept_dh: dh,
                second,
                sums: row_sums.next().expect("of each task"),
                sum_width: sums,
                dh0: dh0.next().expect("of each task"),
                dc0: dc0.next().expect("of each task"),
                sizes,
                memory: memory.next().expect("of each task"),
            };
            tasks.push(task);
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

/// A range of batch rows of one direction.
struct Task<'a> {
    plan: &'a Plan,
    params: &'a Params<'a>,
    packed: &'a Packed,
    drawn: Drawn<'a>,
    valid: Valid<'a>,
    reverse: bool,
    reading_order: bool,
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
    d: Vec<&'a mut [f32]>,
    hidden: Vec<&'a mut [f32]>,
    kept_dh: Vec<&'a mut [f32]>,
    second: Vec<&'a mut [f32]>,
    sums: &'a mut [f32],
    sum_width: usize,
    /// What comes back to h and to c; at the end to the initial ones.
    dh0: &'a mut [f32],
    dc0: &'a mut [f32],
    sizes: [usize; 8],
    memory: &'a mut [f32],
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, s: S) {
        let (w, c) = (self.plan.w, self.plan.c);
        let wide = padded(w);
        {
            let [raw, _, direct, .., zeros] = carve(self.memory, self.sizes);
            raw.fill(0.0);
            direct.fill(0.0);
            zeros.fill(0.0);
            self.dc0.fill(0.0);
            for row in 0..self.rows {
                let place = self.first + row;
                if !self.dh.is_empty() {
                    raw[row * wide..][..w].copy_from_slice(&self.dh[place * w..][..w]);
                }
                if !self.dc.is_empty() {
                    self.dc0[row * c..][..c].copy_from_slice(&self.dc[place * c..][..c]);
                }
            }
        }
        for step in (0..self.plan.timesteps).rev() {
            self.step(s, step);
        }
        let [raw, _, direct, ..] = carve(self.memory, self.sizes);
        for row in 0..self.rows {
            let out = &mut self.dh0[row * w..][..w];
            out.copy_from_slice(&raw[row * wide..][..w]);
            general::add(&direct[row * w..][..w], out);
        }
    }
}

impl Task<'_> {
    fn step<S: Simd>(&mut self, s: S, step: usize) {
        let plan = self.plan;
        let (rows, hn, w, cw) = (self.rows, plan.h, plan.w, plan.c);
        let (kh, gh) = (plan.k * hn, plan.g * hn);
        let time = if self.reverse { plan.timesteps - 1 - step } else { step };
        let (before, after) = if self.reverse { (time + 1, time) } else { (time, time + 1) };
        let backwards = step % 2 == 1;
        let wide = padded(w);
        let [raw, more, direct, total, second_sums, recurrent, row_memory, zeros] = carve(self.memory, self.sizes);
        let zeros = &*zeros;
        let (valid, first, batch) = (self.valid, self.first, plan.batch);
        let alive = |row: usize| valid.at(first + row, time);
        let any = valid.all() || (0..rows).any(alive);
        let y_time = if self.reverse && self.reading_order { plan.timesteps - 1 - time } else { time };
        let [y_row, y_step, y_first] = self.y;
        let dy = |row: usize| match self.dy {
            [] => &zeros[..w],
            dy => &dy[(first + row) * y_row + y_time * y_step + y_first..][..w],
        };
        let kept = |row: usize| &self.gates[(time * batch + first + row) * kh..][..kh];
        let h = |row: usize| &self.h[(before * batch + first + row) * w..][..w];
        let c = |at: usize, row: usize| self.c.get((at * batch + first + row) * cw..).map_or(&[][..], |c| &c[..cw]);
        let d = &mut *self.d[time];
        let dk = d.len() / rows;

        // What a row that is not valid passes on.
        let pass = |row: usize, raw: &[f32], direct: &mut [f32], d: &mut [f32]| {
            general::add(&raw[row * wide..][..w], direct);
            if valid.repeats {
                general::add(dy(row), direct);
            }
            d.fill(0.0);
        };
        if let Some(fast) = plan.fast {
            for row in 0..rows {
                let own = &mut d[row * dk..][..dk];
                let direct_row = &mut direct[row * w..][..w];
                if !alive(row) {
                    pass(row, raw, direct_row, own);
                    if plan.reset_after() {
                        recurrent[row * gh..][..gh].fill(0.0);
                    }
                    if fast == Fast::GruBefore {
                        self.second[time][row * hn..][..hn].fill(0.0);
                    }
                    continue;
                }
                let product = &raw[row * wide..][..w];
                match fast {
                    Fast::Rnn => each(s, &RnnBackward, [kept(row), product, direct_row, dy(row)], [own]),
                    Fast::Lstm => {
                        let [i, f, g, o] = blocks(kept(row), hn);
                        let x = [i, f, g, o, c(before, row), c(after, row), product, direct_row, dy(row)];
                        let [i, f, g, o] = blocks_mut(own, hn);
                        each(s, &LstmBackward, x, [i, f, g, o, &mut self.dc0[row * hn..][..hn]]);
                    }
                    Fast::Gru => {
                        let [r, z, n, q] = blocks(kept(row), hn);
                        let x = [r, z, n, q, h(row), product, dy(row)];
                        let [r, z, n, q] = blocks_mut(own, hn);
                        let [hr, hz, hq] = blocks_mut(&mut recurrent[row * gh..][..gh], hn);
                        each(s, &GruBackward, x, [r, z, n, q, hr, hz, hq, direct_row]);
                        continue;
                    }
                    Fast::GruBefore => {
                        let [_, z, n] = blocks(kept(row), hn);
                        let [_, dz, dn] = blocks_mut(own, hn);
                        let x = [z, n, h(row), product, dy(row)];
                        each(s, &CandidateBackward, x, [dz, dn, direct_row]);
                        continue;
                    }
                }
                if !valid.all() {
                    direct_row.fill(0.0);
                }
            }
            if fast == Fast::GruBefore && any {
                let x = (&d[2 * hn..], dk);
                products::recurrent(s, &self.packed.parts[1], x, rows, second_sums, backwards);
                for row in (0..rows).filter(|&row| alive(row)) {
                    let [r] = blocks(&kept(row)[..hn], hn);
                    let x = [r, h(row), &second_sums[row * padded(hn)..][..hn]];
                    let out = &mut self.second[time][row * hn..][..hn];
                    each(s, &ResetBackward, x, [&mut d[row * dk..][..hn], out, &mut direct[row * w..][..w]]);
                }
            }
        } else {
            for row in 0..rows {
                let own = &mut d[row * dk..][..dk];
                let (total, direct) = (&mut total[row * w..][..w], &mut direct[row * w..][..w]);
                if !alive(row) {
                    pass(row, raw, direct, own);
                    total.fill(0.0);
                } else {
                    total.copy_from_slice(&raw[row * wide..][..w]);
                    general::add(direct, total);
                    general::add(dy(row), total);
                    direct.fill(0.0);
                    if let Some(shares) = self.drawn.zoneout_h {
                        general::unmix(shares.at(time, first + row), total, direct);
                    }
                }
                if let Some(kept) = self.kept_dh.get_mut(time) {
                    kept[row * w..][..w].copy_from_slice(total);
                }
            }
            if plan.cell.projection.is_some() && any {
                products::recurrent(s, &self.packed.w_hr, (total, w), rows, second_sums, backwards);
            }
            let sum_sizes = sum_sizes(plan);
            for row in 0..rows {
                let hidden = match self.hidden.get_mut(time) {
                    Some(all) => &mut all[row * gh..][..gh],
                    None => &mut [],
                };
                let output = match self.second.get_mut(time) {
                    Some(all) => &mut all[row * hn..][..hn],
                    None => &mut [],
                };
                if !alive(row) {
                    hidden.fill(0.0);
                    output.fill(0.0);
                    if plan.reset_after() {
                        recurrent[row * gh..][..gh].fill(0.0);
                    }
                    continue;
                }
                let own = &mut d[row * dk..][..dk];
                let sums = &mut self.sums[row * self.sum_width..][..self.sum_width];
                let [sum_peepholes, sum_norm_c, sum_ih, sum_hh, sum_u] = carve(sums, sum_sizes);
                let (work, norm_work) = row_memory.split_at_mut(12 * hn);
                let dh = match plan.cell.projection {
                    Some(_) => &second_sums[row * padded(hn)..][..hn],
                    None => &total[row * w..][..w],
                };
                // With layer normalization the gradients of what it returns come first.
                let sums_of = if plan.norm() { &mut norm_work[..kh] } else { &mut *own };
                let back = Back {
                    kept: kept(row),
                    h: h(row),
                    c: c(before, row),
                    dh,
                    dc: self.dc0.get_mut(row * cw..(row + 1) * cw).unwrap_or(&mut []),
                    direct: &mut direct[row * w..][..w],
                    output: if plan.cell.projection.is_some() { output } else { &mut [] },
                    d: sums_of,
                    zoneout_c: self.drawn.zoneout_c.map(|shares| shares.at(time, first + row)),
                    sum_peepholes,
                    sum_norm_c,
                    memory: work,
                };
                if plan.reset_before() {
                    general::by_candidate(plan, back);
                    continue;
                }
                general::backward(plan, self.params, back);
                if plan.norm() {
                    own.copy_from_slice(&norm_work[..gh]);
                    hidden.copy_from_slice(&norm_work[..gh]);
                    if plan.reset_after() {
                        hidden[2 * hn..].copy_from_slice(&norm_work[3 * hn..kh]);
                    }
                    let norms = &self.norms[(time * batch + first + row) * plan.norms()..][..plan.norms()];
                    general::by_sides(self.params, own, hidden, norms, [sum_ih, sum_hh]);
                } else if plan.reset_after() {
                    let to = &mut recurrent[row * gh..][..gh];
                    to[..2 * hn].copy_from_slice(&own[..2 * hn]);
                    to[2 * hn..].copy_from_slice(&own[3 * hn..]);
                } else if plan.cell.kind == CellKind::IndRnn {
                    let direct = &mut direct[row * w..][..w];
                    let u = self.params.w_hh;
                    let factors = self.drawn.factors(plan, 0, first + row);
                    for (j, h) in h(row).iter().enumerate() {
                        let d = own[j] * factors.map_or(1.0, |f| f[j]);
                        sum_u[j] += d * h;
                        direct[j] += d * u[j];
                    }
                }
            }
            if plan.reset_before() && any {
                let dense = self.packed.parts.last().expect("of the candidate");
                products::recurrent(s, dense, (&d[2 * hn..], dk), rows, second_sums, backwards);
                for row in (0..rows).filter(|&row| alive(row)) {
                    let back = Back {
                        kept: kept(row),
                        h: h(row),
                        c: &[],
                        dh: &second_sums[row * padded(hn)..][..hn],
                        dc: &mut [],
                        direct: &mut direct[row * w..][..w],
                        output: &mut self.second[time][row * hn..][..hn],
                        d: &mut d[row * dk..][..dk],
                        zoneout_c: None,
                        sum_peepholes: &mut [],
                        sum_norm_c: &mut [],
                        memory: row_memory,
                    };
                    general::by_reset(plan, back, self.drawn.factors(plan, 2, first + row).unwrap_or(&[]));
                }
            }
        }

        // What comes back to h through the recurrent products.
        let count = self.packed.parts.len() - usize::from(plan.reset_before());
        if !any || count == 0 {
            raw.fill(0.0);
            return;
        }
        let (x, stride): (&[f32], usize) = match self.hidden.get(time) {
            Some(hidden) => (hidden, gh),
            None if plan.reset_after() => (recurrent, gh),
            None => (d, dk),
        };
        for (n, dense) in self.packed.parts[..count].iter().enumerate() {
            let gate = self.packed.gates[n].0;
            let out = if n == 0 { &mut *raw } else { &mut *more };
            products::recurrent(s, dense, (&x[gate * hn..], stride), rows, out, backwards);
            for row in 0..rows {
                if let Some(factors) = self.drawn.factors(plan, gate, first + row) {
                    out[row * wide..][..w].iter_mut().zip(factors).for_each(|(v, f)| *v *= f);
                }
            }
            if n > 0 {
                general::add(more, raw);
            }
        }
    }
}
