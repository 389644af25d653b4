//! The forward pass.

use super::general::{self, Sides};
use super::pointwise::{CandidateForward, GruForward, LstmForward, ResetForward, RnnForward, each};
use super::products::{self, time_first};
use super::{
    CpuTraining, Drawn, Fast, Packed, Params, Plan, Scratch, Valid, around, blocks, blocks_mut, by_rows, carve,
    constants, elements, floats, padded,
};
use crate::Direction;
use crate::cpu::dense::DenseCall;
use crate::cpu::weights::Plain;
use crate::training::{Reserve, Trained, TrainingCall};
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

/// Computes what is kept of a call.
fn fill(call: &TrainingCall<'_>, plan: &Plan, scratch: &mut Scratch, kept: [&mut [f32]; 4]) -> Result<()> {
    let [gates, h, c, norms] = kept;
    let (b, t, d) = (plan.batch, plan.timesteps, call.directions.len());
    let (gh, kh) = (plan.g * plan.h, plan.k * plan.h);
    let Scratch { directions, input, buffers } = scratch;
    let [x, projected, whole, memory, bias, ..] = buffers;
    let x = time_first(call, x, false)?;
    // Sums that are not changed in place stand apart from the gates.
    let apart = plan.k != plan.g || plan.norm();
    let projected = floats(projected, if apart { d * t * b * gh } else { 0 })?;
    let params: Vec<Params<'_>> = call.weights.iter().map(Params::new).collect();
    for (dir, p) in params.iter().enumerate() {
        directions[dir].set(plan, p, false, whole)?;
        input.set(Plain { data: p.w_ih, stride: plan.input, units: gh, k: plan.input, transposed: false })?;
        let bias = floats(bias, gh)?;
        for (n, bias) in bias.iter_mut().enumerate() {
            let separate = plan.reset_after() && n / plan.h == 2;
            let at = |b: &[f32]| b.get(n).copied().unwrap_or(0.0);
            *bias = if plan.norm() { 0.0 } else { at(p.b_ih) + if separate { 0.0 } else { at(p.b_hh) } };
        }
        let out = if apart { &mut projected[dir * t * b * gh..] } else { &mut gates[dir * t * b * kh..] };
        let call = DenseCall { x, stride: plan.input, count: t * b, bias: Some(bias), activation: Activation::Linear };
        input.rows(&call, &mut out[..t * b * gh])?;
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
            tasks.push(Task {
                plan,
                params,
                packed: &directions[dir],
                drawn,
                valid: Valid::new(call),
                reverse: call.directions[dir] == Direction::Reverse,
                first,
                rows: rows.min(b - first),
                projected: if apart { &projected[dir * t * b * gh..][..t * b * gh] } else { &[] },
                gates,
                h,
                c,
                norms,
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

/// A range of batch rows of one direction.
struct Task<'a> {
    plan: &'a Plan,
    params: &'a Params<'a>,
    packed: &'a Packed,
    drawn: Drawn<'a>,
    valid: Valid<'a>,
    reverse: bool,
    first: usize,
    rows: usize,
    /// The projected inputs `[T, B, G·H]` of the direction, if they do not stand where the gates will.
    projected: &'a [f32],
    /// For each timestep, `[rows, K·H]`.
    gates: Vec<&'a mut [f32]>,
    h: Vec<&'a mut [f32]>,
    c: Vec<&'a mut [f32]>,
    norms: Vec<&'a mut [f32]>,
    sizes: [usize; 7],
    memory: &'a mut [f32],
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, s: S) {
        let [.., zeros] = carve(self.memory, self.sizes);
        zeros.fill(0.0);
        for step in 0..self.plan.timesteps {
            self.step(s, step);
        }
    }
}

/// Where the recurrent sums of a gate stand.
fn sum_of<'a>(plan: &Plan, packed: &Packed, raw: &'a [f32], rows: usize, gate: usize, row: usize) -> &'a [f32] {
    let mut before = 0;
    for (dense, (first, count)) in packed.parts.iter().zip(packed.gates.iter().copied()) {
        let wide = padded(dense.units());
        if (first..first + count).contains(&gate) {
            return &raw[before + row * wide + (gate - first) * plan.h..][..plan.h];
        }
        before += rows * wide;
    }
    unreachable!("every gate of such a cell has a product")
}

impl Task<'_> {
    fn step<S: Simd>(&mut self, s: S, step: usize) {
        let plan = self.plan;
        let (rows, hn, w, c_width) = (self.rows, plan.h, plan.w, plan.c);
        let time = if self.reverse { plan.timesteps - 1 - step } else { step };
        let backwards = step % 2 == 1;
        let [raw, seen, second, second_sums, zs, row_memory, zeros] = carve(self.memory, self.sizes);
        let zeros = &*zeros;
        let (h, next_h) = around(&mut self.h, time, self.reverse);
        let (c, next_c) = around(&mut self.c, time, self.reverse);
        let gates = &mut *self.gates[time];
        let (kh, gh) = (plan.k * hn, plan.g * hn);
        let packed = self.packed;
        let alive = |row: usize| self.valid.at(self.first + row, time);

        // The recurrent products, but that of a candidate that reads `r ∘ h`.
        let mut at = 0;
        let mut candidate = 0;
        for (n, (dense, (gate, _))) in packed.parts.iter().zip(packed.gates.iter().copied()).enumerate() {
            let wide = rows * padded(dense.units());
            if plan.reset_before() && n + 1 == packed.parts.len() {
                candidate = at;
                continue;
            }
            let x = match plan.dropout {
                0 => h,
                _ => {
                    for row in 0..rows {
                        let factors = self.drawn.factors(plan, gate, self.first + row).expect("there is dropout");
                        general::product(&h[row * w..][..w], factors, &mut seen[row * w..][..w]);
                    }
                    &*seen
                }
            };
            products::recurrent(s, dense, (x, w), rows, &mut raw[at..at + wide], backwards);
            at += wide;
        }
        match plan.fast {
            None => {}
            Some(fast) => {
                for row in 0..rows {
                    let place = row * w..(row + 1) * w;
                    if !alive(row) {
                        next_h[place.clone()].copy_from_slice(&h[place]);
                        if c_width > 0 {
                            let place = row * c_width..(row + 1) * c_width;
                            next_c[place.clone()].copy_from_slice(&c[place]);
                        }
                        continue;
                    }
                    let own = &mut gates[row * kh..][..kh];
                    let sum = |gate: usize| sum_of(plan, packed, raw, rows, gate, row);
                    match fast {
                        Fast::Rnn => each(s, &RnnForward, [sum(0)], [own, &mut next_h[place]]),
                        Fast::Lstm => {
                            let [i, f, g, o] = blocks_mut(own, hn);
                            let out = [i, f, g, o, &mut next_c[place.clone()], &mut next_h[place.clone()]];
                            each(s, &LstmForward, [sum(0), sum(1), sum(2), sum(3), &c[place]], out);
                        }
                        Fast::Gru => {
                            let input = &self.projected[(time * plan.batch + self.first + row) * gh..][..gh];
                            let [r, z, n] = blocks(input, hn);
                            let bias = self.params.b_hh.get(2 * hn..).unwrap_or(zeros);
                            let x = [r, z, n, sum(0), sum(1), sum(2), bias, &h[place.clone()]];
                            let [r, z, n, q] = blocks_mut(own, hn);
                            each(s, &GruForward, x, [r, z, n, q, &mut next_h[place]]);
                        }
                        Fast::GruBefore => {
                            let x = [sum(0), sum(1), &h[place]];
                            let [r, z] = blocks_mut(&mut own[..2 * hn], hn);
                            each(s, &ResetForward, x, [r, z, &mut second[row * hn..][..hn]]);
                        }
                    }
                }
                if fast == Fast::GruBefore {
                    let (dense, wide) = (&packed.parts[1], padded(hn));
                    products::recurrent(s, dense, (second, hn), rows, &mut raw[candidate..], backwards);
                    for row in (0..rows).filter(|&row| alive(row)) {
                        let place = row * w..(row + 1) * w;
                        let (rz, n) = gates[row * kh..][..kh].split_at_mut(2 * hn);
                        let x = [&raw[candidate + row * wide..][..hn], &rz[hn..], &h[place.clone()]];
                        each(s, &CandidateForward, x, [n, &mut next_h[place]]);
                    }
                }
                return;
            }
        }

        for row in (0..rows).filter(|&row| alive(row)) {
            let batch_row = self.first + row;
            let [input, hidden, shown] = carve(row_memory, [gh, gh, hn]);
            let own = &mut gates[row * kh..][..kh];
            let h = &h[row * w..][..w];
            if self.projected.is_empty() {
                input.copy_from_slice(own);
            } else {
                input.copy_from_slice(&self.projected[(time * plan.batch + batch_row) * gh..][..gh]);
            }
            let products = if plan.reset_before() { plan.g - 1 } else { plan.g };
            if plan.cell.kind.is_pointwise() {
                hidden.fill(0.0);
                if plan.cell.kind == crate::CellKind::IndRnn {
                    general::product(self.params.w_hh, h, hidden);
                    if let Some(f) = self.drawn.factors(plan, 0, batch_row) {
                        hidden.iter_mut().zip(f).for_each(|(v, f)| *v *= f);
                    }
                }
            } else {
                for gate in 0..products {
                    let sum = sum_of(plan, packed, raw, rows, gate, row);
                    hidden[gate * hn..][..hn].copy_from_slice(sum);
                }
            }
            let norms: &mut [f32] = match self.norms.get_mut(time) {
                Some(all) => &mut all[row * plan.norms()..][..plan.norms()],
                None => &mut [],
            };
            general::normalize_sides(plan, self.params, input, hidden, norms);
            let c = c.get(row * c_width..(row + 1) * c_width).unwrap_or(&[]);
            let next_c = next_c.get_mut(row * c_width..(row + 1) * c_width).unwrap_or(&mut []);
            if plan.reset_before() {
                let factors = self.drawn.factors(plan, 2, batch_row);
                let (r, z) = (&mut second[row * hn..][..hn], &mut zs[row * hn..][..hn]);
                general::reset(plan, Sides { input, hidden }, own, [h, factors.unwrap_or(&[])], [r, z]);
                continue;
            }
            let out = match plan.cell.projection {
                Some(_) => &mut second[row * hn..][..hn],
                None => &mut next_h[row * w..][..w],
            };
            general::forward(plan, self.params, Sides { input, hidden }, own, [h, c], [out, next_c, shown]);
            if let Some(shares) = self.drawn.zoneout_c {
                general::mix(shares.at(time, batch_row), c, next_c);
            }
        }
        if plan.reset_before() {
            let dense = packed.parts.last().expect("of the candidate");
            let wide = padded(hn);
            products::recurrent(s, dense, (second, hn), rows, &mut raw[candidate..], backwards);
            for row in (0..rows).filter(|&row| alive(row)) {
                let n = &mut gates[row * kh..][2 * hn..3 * hn];
                let sum = &raw[candidate + row * wide..][..hn];
                let (z, h) = (&zs[row * hn..][..hn], &h[row * w..][..w]);
                general::candidate(plan, sum, n, [z, h], &mut next_h[row * w..][..w], &mut row_memory[..hn]);
            }
        }
        if plan.cell.projection.is_some() {
            products::recurrent(s, &packed.w_hr, (second, hn), rows, second_sums, backwards);
        }
        for row in 0..rows {
            let place = row * w..(row + 1) * w;
            let (h, next) = (&h[place.clone()], &mut next_h[place]);
            if !alive(row) {
                next.copy_from_slice(h);
                let place = row * c_width..(row + 1) * c_width;
                if c_width > 0 {
                    next_c[place.clone()].copy_from_slice(&c[place]);
                }
                continue;
            }
            if plan.cell.projection.is_some() {
                next.copy_from_slice(&second_sums[row * padded(w)..][..w]);
            }
            if let Some(shares) = self.drawn.zoneout_h {
                general::mix(shares.at(time, self.first + row), h, next);
            }
        }
    }
}
