//! The forward pass.

use super::general::{self, Sides};
use super::pointwise::{CandidateForward, GruForward, LstmForward, ResetForward, RnnForward, each};
use super::products::{self, time_first};
use super::rows::Rows;
use super::{
    CpuTraining, Drawn, Fast, Packed, Params, Plan, Scratch, Valid, around, at_time, blocks, blocks_mut, by_rows,
    carve, constants, elements, floats, padded,
};
use crate::cpu::dense::{Dense, DenseCall};
use crate::cpu::weights::Plain;
use crate::training::{Reserve, Trained, TrainingCall};
use crate::{CellKind, Direction};
use pulp::{Simd, WithSimd};
use recurve_tensor::cpu::simd_arch;
use recurve_tensor::cpu::threads::prelude::*;
use recurve_tensor::kernel::TensorKernels;
use recurve_tensor::{Activation, Result, Shape, Tensor};

impl CpuTraining {
    pub(crate) fn forward(&self, call: &TrainingCall<'_>) -> Result<Trained> {
        self.with_scratch(|scratch| forward(call, scratch))
    }
}

/// Tensors of these shapes, which `run` fills.
fn write_all(
    shapes: &[Shape],
    held: Vec<&mut [f32]>,
    run: &mut dyn FnMut(Vec<&mut [f32]>) -> Result<()>,
) -> Result<Vec<Tensor>> {
    let Some((first, rest)) = shapes.split_first() else {
        run(held)?;
        return Ok(Vec::new());
    };
    let mut others = Vec::new();
    let own = Tensor::cpu_write(*first, |memory| {
        let mut held: Vec<&mut [f32]> = held;
        held.push(memory);
        others = write_all(rest, held, run)?;
        Ok(())
    })?;
    others.insert(0, own);
    Ok(others)
}

fn forward(call: &TrainingCall<'_>, scratch: &mut Scratch) -> Result<Trained> {
    let plan = Plan::new(call);
    let shapes: Vec<Shape> = [Some(call.shapes.gates), Some(call.shapes.h), call.shapes.c, call.shapes.norms]
        .into_iter()
        .flatten()
        .collect();
    let mut kept = write_all(&shapes, Vec::new(), &mut |memory| {
        let mut memory = memory.into_iter();
        let gates = memory.next().expect("always kept");
        let h = memory.next().expect("always kept");
        let c = if plan.c > 0 { memory.next().expect("kept with a c") } else { &mut [] };
        let norms = memory.next().unwrap_or(&mut []);
        fill(call, &plan, scratch, [gates, h, c, norms])
    })?
    .into_iter();
    let gates = kept.next().expect("always kept");
    let h = kept.next().expect("always kept");
    let c = if plan.c > 0 { kept.next() } else { None };
    let norms = kept.next();
    let y = outputs(call, &plan, elements(Some(&h)))?;
    let last = |shape: Shape, states: &[f32], width: usize| {
        Tensor::cpu_write(shape, |out| {
            let rows = call.batch * width;
            let states = states.chunks_exact((call.timesteps + 1) * rows);
            for ((out, states), direction) in out.chunks_exact_mut(rows).zip(states).zip(call.directions) {
                let at = if *direction == Direction::Reverse { 0 } else { call.timesteps };
                out.copy_from_slice(&states[at * rows..][..rows]);
            }
            Ok(())
        })
    };
    let h_last = last(call.h_shape(), elements(Some(&h)), plan.w)?;
    let c_last = call.c_shape().map(|shape| last(shape, elements(c.as_ref()), plan.c)).transpose()?;
    Ok(Trained { y, h: h_last, c: c_last, reserve: Reserve::new(gates, h, c, norms) })
}

/// The outputs, from the states of all timesteps.
fn outputs(call: &TrainingCall<'_>, plan: &Plan, h: &[f32]) -> Result<Tensor> {
    let valid = Valid::new(call);
    let (b, t, w, d) = (plan.batch, plan.timesteps, plan.w, call.directions.len());
    Tensor::cpu_write(call.y_shape(), |y| {
        // A part is a row or a timestep.
        let each = |n: usize, out: &mut [f32]| {
            for (m, out) in out.chunks_exact_mut(d * w).enumerate() {
                let (row, place) = if call.time_major { (m, n) } else { (n, m) };
                for (dir, out) in out.chunks_exact_mut(w).enumerate() {
                    let reverse = call.directions[dir] == Direction::Reverse;
                    let time = if reverse && call.reading_order { t - 1 - place } else { place };
                    if valid.at(row, time) || valid.repeats {
                        let at = if reverse { time } else { time + 1 };
                        out.copy_from_slice(&h[((dir * (t + 1) + at) * b + row) * w..][..w]);
                    } else {
                        out.fill(0.0);
                    }
                }
            }
        };
        let part = if call.time_major { b * d * w } else { t * d * w };
        if y.len() > 1 << 16 {
            y.par_chunks_mut(part).enumerate().for_each(|(n, out)| each(n, out));
        } else {
            y.chunks_mut(part).enumerate().for_each(|(n, out)| each(n, out));
        }
        Ok(())
    })
}

/// The projected inputs of one direction with the biases that are added to them, `[T, B, G·H]`, or a row for each of the
/// rows that the timesteps read. With layer normalization the biases are added after it.
fn project(plan: &Plan, p: &Params<'_>, input: &mut Dense, x: &[f32], bias: &mut [f32], out: &mut [f32]) -> Result<()> {
    let (units, k) = (plan.g * plan.h, plan.input);
    input.set(Plain { data: p.w_ih, stride: k, units, k, transposed: false })?;
    for (n, bias) in bias.iter_mut().enumerate() {
        let separate = plan.reset_after() && n / plan.h == 2;
        let at = |b: &[f32]| b.get(n).copied().unwrap_or(0.0);
        *bias = if plan.norm() { 0.0 } else { at(p.b_ih) + if separate { 0.0 } else { at(p.b_hh) } };
    }
    let count = x.len() / k;
    input.rows(&DenseCall { x, stride: k, count, bias: Some(bias), activation: Activation::Linear }, out)
}

/// Computes what is kept of a call.
fn fill(call: &TrainingCall<'_>, plan: &Plan, scratch: &mut Scratch, kept: [&mut [f32]; 4]) -> Result<()> {
    let [gates, h, c, norms] = kept;
    let (b, t, d) = (plan.batch, plan.timesteps, call.directions.len());
    let (gh, kh) = (plan.g * plan.h, plan.k * plan.h);
    let Scratch { directions, input, buffers } = scratch;
    let [x, projected, whole, memory, bias, ..] = buffers;
    let table = Rows::new(call)?;
    let (x, count) = match &table {
        Some(table) => (table.gather(x)?, table.count()),
        None => (time_first(call, x, false)?, t * b),
    };
    // Sums that are not changed in place stand apart from the gates.
    let apart = plan.k != plan.g || plan.norm() || table.is_some();
    let projected = floats(projected, if apart { d * count * gh } else { 0 })?;
    let params: Vec<Params<'_>> = call.weights.iter().map(Params::new).collect();
    let sums = if apart { &mut *projected } else { &mut *gates };
    for ((p, packed), sums) in params.iter().zip(&mut *directions).zip(sums.chunks_exact_mut(count * gh)) {
        packed.set(plan, p, false, whole)?;
        project(plan, p, input, x, floats(bias, gh)?, sums)?;
    }
    let rows = plan.rows(d);
    let sizes = sizes(plan, &directions[0], rows);
    let each = sizes.iter().sum::<usize>().next_multiple_of(16);
    let parts = b.div_ceil(rows);
    let memory = floats(memory, d * parts * each)?;
    let constants = constants(call);
    let constants = [&constants[0][..], &constants[1][..]];
    let projected = &*projected;
    let mut memory = memory.chunks_exact_mut(each);
    let mut tasks = Vec::new();
    let mut gates = gates.chunks_exact_mut(t * b * kh);
    let mut h = h.chunks_exact_mut((t + 1) * b * plan.w);
    let mut c = c.chunks_exact_mut(((t + 1) * b * plan.c).max(1));
    let mut norms = norms.chunks_exact_mut((t * b * plan.norms()).max(1));
    for (dir, params) in params.iter().enumerate() {
        let drawn = Drawn::new(call, dir, constants);
        let gates = by_rows(gates.next().expect("of each direction"), b, kh, rows);
        let h = by_rows(h.next().expect("of each direction"), b, plan.w, rows);
        let c = by_rows(c.next().unwrap_or(&mut []), b, plan.c, rows);
        let norms = by_rows(norms.next().unwrap_or(&mut []), b, plan.norms(), rows);
        for (n, (((gates, h), c), norms)) in gates.into_iter().zip(h).zip(c).zip(norms).enumerate() {
            let first = n * rows;
            let last = (first + rows).min(b);
            let [h0, c0] = [(call.h0, plan.w), (call.c0, plan.c)]
                .map(|(t, width)| elements(t).get((dir * b + first) * width..(dir * b + last) * width));
            let [mut h, mut c] = [h, c];
            let at = if call.directions[dir] == Direction::Reverse { t } else { 0 };
            for (states, given) in [(&mut h, h0), (&mut c, c0)] {
                match (states.get_mut(at), given) {
                    (Some(start), Some(given)) if !given.is_empty() => start.copy_from_slice(given),
                    (Some(start), _) => start.fill(0.0),
                    (None, _) => {}
                }
            }
            let source = Source {
                plan,
                params,
                packed: &directions[dir],
                drawn,
                valid: Valid::new(call),
                reverse: call.directions[dir] == Direction::Reverse,
                first,
                rows: rows.min(b - first),
                projected: if apart { &projected[dir * count * gh..][..count * gh] } else { &[] },
                places: table.as_ref().map(|table| &table.places[..]),
            };
            tasks.push(Task { source, gates, h, c, norms, sizes, memory: memory.next().expect("of each task") });
        }
    }
    if tasks.len() > 1 {
        tasks.into_par_iter().for_each(|task| simd_arch().dispatch(task));
    } else {
        tasks.into_iter().for_each(|task| simd_arch().dispatch(task));
    }
    Ok(())
}

/// The lengths of the parts of a task's memory: recurrent sums, h with factors, what a second product reads, its sums, z
/// of a GRU, memory for rows of general cells, and zeros.
fn sizes(plan: &Plan, packed: &Packed, rows: usize) -> [usize; 7] {
    let (h, w) = (plan.h, plan.w);
    let raw: usize = packed.parts.iter().map(|p| padded(p.units())).sum();
    let second = plan.reset_before() || plan.cell.projection.is_some();
    [
        rows * raw,
        if plan.dropout > 0 { rows * w } else { 0 },
        if second { rows * h } else { 0 },
        if plan.cell.projection.is_some() { rows * padded(w) } else { 0 },
        if plan.reset_before() { rows * h } else { 0 },
        (2 * plan.g + 1) * h,
        h,
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
    /// The first batch row, and the number of rows.
    first: usize,
    rows: usize,
    /// The projected inputs `[T, B, G·H]` of the direction, if they do not stand where the gates will.
    projected: &'a [f32],
    /// For each timestep and batch row, `[T, B]`, which row of `projected` it reads; `None` if `projected` is `[T, B]`.
    places: Option<&'a [u32]>,
}

/// A range of batch rows of one direction.
struct Task<'a> {
    source: Source<'a>,
    /// For each timestep, `[rows, K·H]`.
    gates: Vec<&'a mut [f32]>,
    /// States in order of time, `[rows, W]` and `[rows, C·H]`.
    h: Vec<&'a mut [f32]>,
    c: Vec<&'a mut [f32]>,
    norms: Vec<&'a mut [f32]>,
    sizes: [usize; 7],
    memory: &'a mut [f32],
}

/// One timestep of a task.
struct Step<'a> {
    time: usize,
    /// Whether products go from the last unit to the first; every other timestep does.
    backwards: bool,
    h: &'a [f32],
    c: &'a [f32],
    next_h: &'a mut [f32],
    next_c: &'a mut [f32],
    gates: &'a mut [f32],
    norms: &'a mut [f32],
    /// The recurrent sums of each part of the product.
    raw: &'a mut [f32],
    /// h with factors.
    seen: &'a mut [f32],
    /// What a second product reads: `r ∘ h`, or what is projected to h.
    second: &'a mut [f32],
    second_sums: &'a mut [f32],
    z: &'a mut [f32],
    row_memory: &'a mut [f32],
    zeros: &'a [f32],
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let Self { source, mut gates, mut h, mut c, mut norms, sizes, memory } = self;
        let [.., zeros] = carve(memory, sizes);
        zeros.fill(0.0);
        for step in 0..source.plan.timesteps {
            let time = if source.reverse { source.plan.timesteps - 1 - step } else { step };
            let [raw, seen, second, second_sums, z, row_memory, zeros] = carve(memory, sizes);
            let (h, next_h) = around(&mut h, time, source.reverse);
            let (c, next_c) = around(&mut c, time, source.reverse);
            let gates = &mut *gates[time];
            let norms = at_time(&mut norms, time);
            let backwards = step % 2 == 1;
            let mut at = Step {
                time,
                backwards,
                h,
                c,
                next_h,
                next_c,
                gates,
                norms,
                raw,
                seen,
                second,
                second_sums,
                z,
                row_memory,
                zeros,
            };
            source.products(s, &mut at);
            match source.plan.fast {
                Some(fast) => source.fast(s, fast, &mut at),
                None => source.general(s, &mut at),
            }
        }
    }
}

impl Source<'_> {
    fn alive(&self, row: usize, time: usize) -> bool {
        self.valid.at(self.first + row, time)
    }

    /// The projected input of a row, if it does not stand where the gates will.
    #[inline(always)]
    fn input(&self, time: usize, row: usize) -> Option<&[f32]> {
        let (n, gh) = (time * self.plan.batch + self.first + row, self.plan.g * self.plan.h);
        let n = self.places.map_or(n, |places| places[n] as usize);
        self.projected.get(n * gh..(n + 1) * gh)
    }

    /// The places of a row of h or c.
    fn place(row: usize, width: usize) -> core::ops::Range<usize> {
        row * width..(row + 1) * width
    }

    /// Where the recurrent sums of a gate stand.
    fn sum<'r>(&self, raw: &'r [f32], gate: usize, row: usize) -> &'r [f32] {
        let mut before = 0;
        for (dense, &(first, count)) in self.packed.parts.iter().zip(&self.packed.gates) {
            let wide = padded(dense.units());
            if (first..first + count).contains(&gate) {
                return &raw[before + row * wide + (gate - first) * self.plan.h..][..self.plan.h];
            }
            before += self.rows * wide;
        }
        unreachable!("every gate of such a cell has a product")
    }

    /// The recurrent products, but that of a candidate that reads `r ∘ h`.
    fn products<S: Simd>(&self, s: S, at: &mut Step<'_>) {
        let (plan, w) = (self.plan, self.plan.w);
        let count = self.packed.parts.len() - usize::from(plan.reset_before());
        let mut raw = &mut *at.raw;
        for (dense, &(gate, _)) in self.packed.parts[..count].iter().zip(&self.packed.gates) {
            let (out, rest) = raw.split_at_mut(self.rows * padded(dense.units()));
            raw = rest;
            let mut x = at.h;
            if plan.dropout > 0 {
                for row in 0..self.rows {
                    let factors = self.drawn.factors(plan, gate, self.first + row).expect("there is dropout");
                    general::product(&at.h[Self::place(row, w)], factors, &mut at.seen[Self::place(row, w)]);
                }
                x = &*at.seen;
            }
            products::recurrent(s, dense, (x, w), self.rows, out, at.backwards);
        }
    }

    /// The product of the candidate that reads `r ∘ h`.
    fn candidate_product<S: Simd>(&self, s: S, at: &mut Step<'_>) {
        let (dense, before) = self.packed.parts.split_last().expect("of the candidate");
        let first = self.rows * before.iter().map(|p| padded(p.units())).sum::<usize>();
        products::recurrent(s, dense, (at.second, self.plan.h), self.rows, &mut at.raw[first..], at.backwards);
    }

    /// The states of a row whose timestep is not valid.
    fn keep(&self, at: &mut Step<'_>, row: usize) {
        let (h, c) = (Self::place(row, self.plan.w), Self::place(row, self.plan.c));
        at.next_h[h.clone()].copy_from_slice(&at.h[h]);
        if self.plan.c > 0 {
            at.next_c[c.clone()].copy_from_slice(&at.c[c]);
        }
    }

    /// The gates of a cell without options.
    fn fast<S: Simd>(&self, s: S, fast: Fast, at: &mut Step<'_>) {
        let plan = self.plan;
        let (hn, kh) = (plan.h, plan.k * plan.h);
        for row in 0..self.rows {
            if !self.alive(row, at.time) {
                self.keep(at, row);
                continue;
            }
            let place = Self::place(row, hn);
            let own = &mut at.gates[row * kh..][..kh];
            let input = self.input(at.time, row);
            if let Some(input) = input.filter(|_| fast != Fast::Gru) {
                own.copy_from_slice(input);
            }
            let (h, next_h) = (&at.h[place.clone()], &mut at.next_h[place.clone()]);
            let raw = &*at.raw;
            match fast {
                Fast::Rnn => each(s, &RnnForward, [self.sum(raw, 0, row)], [own, next_h]),
                Fast::Lstm => {
                    let [i, f, g, o] = [0, 1, 2, 3].map(|gate| self.sum(raw, gate, row));
                    let x = [i, f, g, o, &at.c[place.clone()]];
                    let [i, f, g, o] = blocks_mut(own, hn);
                    each(s, &LstmForward, x, [i, f, g, o, &mut at.next_c[place], next_h]);
                }
                Fast::Gru => {
                    let [r, z, n] = blocks(input.expect("it stands apart"), hn);
                    let [hr, hz, hn_] = [0, 1, 2].map(|gate| self.sum(raw, gate, row));
                    let bias = self.params.b_hh.get(2 * hn..).unwrap_or(at.zeros);
                    let x = [r, z, n, hr, hz, hn_, bias, h];
                    let [r, z, n, q] = blocks_mut(own, hn);
                    each(s, &GruForward, x, [r, z, n, q, next_h]);
                }
                Fast::GruBefore => {
                    let x = [self.sum(raw, 0, row), self.sum(raw, 1, row), h];
                    let [r, z] = blocks_mut(&mut own[..2 * hn], hn);
                    each(s, &ResetForward, x, [r, z, &mut at.second[place]]);
                }
            }
        }
        if fast == Fast::GruBefore {
            self.candidate_product(s, at);
            for row in (0..self.rows).filter(|&row| self.alive(row, at.time)) {
                let place = Self::place(row, hn);
                let (rz, n) = at.gates[row * kh..][..kh].split_at_mut(2 * hn);
                let x = [self.sum(at.raw, 2, row), &rz[hn..], &at.h[place.clone()]];
                each(s, &CandidateForward, x, [n, &mut at.next_h[place]]);
            }
        }
    }

    /// The gates of any cell.
    fn general<S: Simd>(&self, s: S, at: &mut Step<'_>) {
        let (plan, time) = (self.plan, at.time);
        let (hn, w, kh) = (plan.h, plan.w, plan.k * plan.h);
        for row in (0..self.rows).filter(|&row| self.alive(row, time)) {
            self.general_row(at, row);
        }
        if plan.reset_before() {
            self.candidate_product(s, at);
            for row in (0..self.rows).filter(|&row| self.alive(row, time)) {
                let (z, h) = (&at.z[Self::place(row, hn)], &at.h[Self::place(row, hn)]);
                let n = &mut at.gates[row * kh..][2 * hn..kh];
                let (sum, out) = (self.sum(at.raw, 2, row), &mut at.next_h[Self::place(row, hn)]);
                general::candidate(plan, sum, n, [z, h], out, &mut at.row_memory[..hn]);
            }
        }
        if plan.cell.projection.is_some() {
            let (x, out) = ((&*at.second, hn), &mut *at.second_sums);
            products::recurrent(s, &self.packed.w_hr, x, self.rows, out, at.backwards);
        }
        for row in 0..self.rows {
            if !self.alive(row, time) {
                self.keep(at, row);
                continue;
            }
            let (h, next) = (&at.h[Self::place(row, w)], &mut at.next_h[Self::place(row, w)]);
            if plan.cell.projection.is_some() {
                next.copy_from_slice(&at.second_sums[row * padded(w)..][..w]);
            }
            if let Some(shares) = self.drawn.zoneout_h {
                general::mix(shares.at(time, self.first + row), h, next);
            }
        }
    }

    /// The gates of a row, up to a second product if the cell has one.
    fn general_row(&self, at: &mut Step<'_>, row: usize) {
        let (plan, time, batch_row) = (self.plan, at.time, self.first + row);
        let (hn, w, cw, kh, gh) = (plan.h, plan.w, plan.c, plan.k * plan.h, plan.g * plan.h);
        let [input, hidden, shown] = carve(at.row_memory, [gh, gh, hn]);
        let own = &mut at.gates[row * kh..][..kh];
        let h = &at.h[Self::place(row, w)];
        match self.input(time, row) {
            Some(at) => input.copy_from_slice(at),
            None => input.copy_from_slice(own),
        }
        // A GRU that multiplies `r ∘ h` reads the candidate's input sum there once its product is known.
        if plan.reset_before() {
            own.copy_from_slice(input);
        }
        if plan.cell.kind == CellKind::IndRnn {
            general::product(self.params.w_hh, h, hidden);
            if let Some(f) = self.drawn.factors(plan, 0, batch_row) {
                hidden.iter_mut().zip(f).for_each(|(v, f)| *v *= f);
            }
        } else if plan.cell.kind.is_pointwise() {
            hidden.fill(0.0);
        } else {
            let products = plan.g - usize::from(plan.reset_before());
            for (gate, hidden) in hidden.chunks_exact_mut(hn).take(products).enumerate() {
                hidden.copy_from_slice(self.sum(at.raw, gate, row));
            }
        }
        let norms = &mut at.norms[..];
        let norms = norms.get_mut(Self::place(row, plan.norms())).unwrap_or(&mut []);
        general::normalize_sides(plan, self.params, input, hidden, norms);
        let sides = Sides { input, hidden };
        if plan.reset_before() {
            let factors = self.drawn.factors(plan, 2, batch_row).unwrap_or(&[]);
            let out = [&mut at.second[Self::place(row, hn)], &mut at.z[Self::place(row, hn)]];
            return general::reset(plan, sides, own, [h, factors], out);
        }
        let c = at.c.get(Self::place(row, cw)).unwrap_or(&[]);
        let next_c = at.next_c.get_mut(Self::place(row, cw)).unwrap_or(&mut []);
        let out = match plan.cell.projection {
            Some(_) => &mut at.second[Self::place(row, hn)],
            None => &mut at.next_h[Self::place(row, w)],
        };
        general::forward(plan, self.params, sides, own, [h, c], [out, next_c, shown]);
        if let Some(shares) = self.drawn.zoneout_c {
            general::mix(shares.at(time, batch_row), c, next_c);
        }
    }
}
