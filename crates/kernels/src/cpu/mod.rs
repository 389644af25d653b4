//! Recurrent layers on the CPU: packed weights, the input projection, and threads.

mod pack;
mod product;
mod rows;
mod team;

use crate::recurrent::Sizes;
use crate::{CellKind, Direction, ForwardArgs, MaskedOutput, Outputs, RecurrentConfig, RecurrentOutput};
use pack::{Line, Packed};
use rayon::prelude::*;
use recurve_tensor::cpu::{simd_arch, simd_lanes, threads_for};
use recurve_tensor::{Error, Result, Shape, Tensor};
use rows::{Member, Rows, Valid};
use std::sync::{Mutex, PoisonError};
use team::{Team, share};

/// A layer's weights as the CPU kernels read them, and memory kept between calls.
#[derive(Debug)]
pub(crate) struct CpuLayer {
    directions: Vec<Packed>,
    scratch: Mutex<Vec<Scratch>>,
}

/// Memory of one call; a second call of the same size finds it here.
#[derive(Debug, Default)]
struct Scratch {
    projection: Vec<Line>,
    tasks: Vec<Line>,
    team: Option<Team>,
}

/// Bytes of the projection of a chunk of timesteps. Below this a whole `[B, T, I]` input is one product;
/// above it each sequence is projected on its own, chunk by chunk.
const PROJECTION_BYTES: usize = 32 << 20;

/// Multiply-adds of a whole call below which a second thread costs more than it brings.
const WORTH_A_THREAD: usize = 1 << 19;

/// Multiply-adds of a timestep below which a thread that shares it costs more than it brings: an exchange
/// takes a quarter of a microsecond.
const WORTH_A_MEMBER: usize = 24_000;

/// Multiply-adds of a recurrence below which it is over before others have come to share it.
const WORTH_A_TEAM: usize = 1 << 21;

impl CpuLayer {
    pub(crate) fn new(config: &RecurrentConfig<'_>) -> Self {
        let lanes = simd_lanes();
        let directions = config
            .directions
            .iter()
            .map(|(_, w)| Packed::new(&config.cell, w, config.input_size, config.hidden_size, lanes))
            .collect();
        Self { directions, scratch: Mutex::new(Vec::new()) }
    }

    pub(crate) fn forward(
        &self,
        x: &Tensor,
        args: &ForwardArgs<'_>,
        sizes: &Sizes,
        directions: &[Direction],
    ) -> Result<RecurrentOutput> {
        let lock = || self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = lock().pop().unwrap_or_default();
        let out = self.run(x, args, sizes, directions, &mut scratch);
        lock().push(scratch);
        out
    }

    fn run(
        &self,
        x: &Tensor,
        args: &ForwardArgs<'_>,
        sizes: &Sizes,
        directions: &[Direction],
        scratch: &mut Scratch,
    ) -> Result<RecurrentOutput> {
        let Sizes { batch: b, timesteps: t, hidden: h, directions: d, .. } = *sizes;
        let x = x.cpu_f32().expect("checked to be f32 on the CPU");
        let [h0, c0] = [args.h0, args.c0].map(|s| s.map(|s| s.cpu_f32().expect("checked to be f32 on the CPU")));
        let [lengths, mask] =
            [args.lengths, args.mask].map(|v| v.map(|v| v.cpu_u32().expect("checked to be u32 on the CPU")));
        let repeat = args.masked_output == MaskedOutput::Repeat;
        let layout = &self.directions[0];
        let (np, hp, w) = (layout.columns(), layout.padded_hidden(), sizes.width);

        // Tasks: a direction and a span of batch rows each.
        let work = d * b * t * np * (sizes.input + hp);
        let threads = rayon::current_num_threads().min(work / WORTH_A_THREAD).max(1);
        let parts = b.min(threads.div_ceil(d));
        let rows = b.div_ceil(parts);
        let parts = b.div_ceil(rows);

        // The direction, first row and number of rows of task n.
        let place = |n: usize| {
            let first_row = n % parts * rows;
            (n / parts, first_row, rows.min(b - first_row))
        };

        // One sequence in one direction: threads share its hidden units instead.
        let products = layout.kind.recurrent_weights(hp, hp);
        let members = match (d * b, layout.kind) {
            // The reset gate before the product would need an exchange in the middle of a step.
            (_, CellKind::Gru { reset_after: false }) => 1,
            (1, _) if layout.is_usual() && t * products >= WORTH_A_TEAM => {
                threads.min(products / WORTH_A_MEMBER).min(layout.tiles).max(1)
            }
            _ => 1,
        };

        let budget = PROJECTION_BYTES.min(args.projection_budget);
        let chunk = (budget / (d * b * np * 4)).clamp(1, t);
        let wants_y = args.outputs == Outputs::All;
        let task_floats = Rows::floats(rows, layout, if wants_y { chunk } else { 0 });
        let stride = task_floats.div_ceil(Line::FLOATS);
        grow(&mut scratch.projection, (d * chunk * b * np).div_ceil(Line::FLOATS));
        let count = if members > 1 { members } else { d * parts };
        grow(&mut scratch.tasks, count * stride);
        let (tasks, helpers) = scratch.tasks[..count * stride].split_at_mut(d * parts * stride);
        if members > 1 && !scratch.team.as_ref().is_some_and(|t| t.fits(members, hp)) {
            scratch.team = Some(Team::new(members, hp));
        }
        let projection: &mut [f32] = bytemuck::cast_slice_mut(&mut scratch.projection);

        for (n, task) in tasks.chunks_exact_mut(stride).enumerate() {
            let (dir, first_row, count) = place(n);
            let row = dir * b + first_row;
            Rows::split(bytemuck::cast_slice_mut(task), rows, layout).start(
                count,
                h0.map(|s| &s[row * w..(row + count) * w]),
                c0.map(|s| &s[row * h..(row + count) * h]),
            );
        }

        let (shape, y_batch, y_time) = sizes.output(args.time_major)?;

        let mut steps = |y: Option<&mut [f32]>| {
            let mut y = y;
            for first in (0..t).step_by(chunk) {
                let steps = chunk.min(t - first);
                for (dir, packed) in self.directions.iter().enumerate() {
                    let from = match directions[dir] {
                        Direction::Forward => first,
                        Direction::Reverse => t - first - steps,
                    };
                    let p = &mut projection[dir * steps * b * np..][..steps * b * np];
                    project(packed, x, sizes, args.time_major, from, steps, p);
                }
                let (p_row, p_slot) = if args.time_major { (np, b * np) } else { (steps * np, np) };
                let body = |(n, task): (usize, &mut [Line]), member: Option<Member<'_>>| {
                    let (dir, first_row, count) = place(n);
                    let p = &projection[dir * steps * b * np..][..steps * b * np];
                    let job = rows::Job {
                        packed: &self.directions[dir],
                        rows: Rows::split(bytemuck::cast_slice_mut(task), rows, layout),
                        count,
                        projection: &p[first_row * p_row..],
                        p_row,
                        p_slot,
                        first,
                        steps,
                        timesteps: t,
                        reverse: directions[dir] == Direction::Reverse,
                        valid: match (lengths, mask) {
                            (Some(l), _) => Valid::Lengths(&l[first_row..first_row + count]),
                            (_, Some(m)) => Valid::Mask(&m[first_row * t..(first_row + count) * t], repeat),
                            _ => Valid::All,
                        },
                        wants_y,
                        tiles: match &member {
                            Some(m) if m.index > 0 => m.own.clone(),
                            _ => 0..layout.tiles,
                        },
                        member,
                    };
                    if job.packed.is_usual() {
                        simd_arch().dispatch(job);
                    } else {
                        simd_arch().dispatch(rows::Other(job));
                    }
                };
                if members > 1 {
                    let team = scratch.team.as_mut().expect("made above");
                    team.reset();
                    together(team, layout.tiles, 0, tasks, helpers, stride, &|task, m| body((0, task), Some(m)));
                    if let Some(from) = team.joined() {
                        let lanes = hp / layout.tiles;
                        let r = Rows::split(bytemuck::cast_slice_mut(tasks), rows, layout);
                        let own = share(layout.tiles, members, 0);
                        team.collect_c(own.start * lanes..own.end * lanes, r.c);
                        for (n, helper) in helpers.chunks_exact_mut(stride).enumerate().filter(|_| wants_y) {
                            let theirs = Rows::split(bytemuck::cast_slice_mut(helper), rows, layout);
                            let own = share(layout.tiles, members, n + 1);
                            let columns = own.start * lanes..(own.end * lanes).min(w);
                            for s in from..steps {
                                let at = s * w + columns.start..s * w + columns.end;
                                r.y[at.clone()].copy_from_slice(&theirs.y[at]);
                            }
                        }
                    }
                } else if d * parts > 1 && threads > 1 {
                    tasks.par_chunks_exact_mut(stride).enumerate().for_each(|t| body(t, None));
                } else {
                    tasks.chunks_exact_mut(stride).enumerate().for_each(|t| body(t, None));
                }
                if let Some(y) = &mut y {
                    for (n, task) in tasks.chunks_exact_mut(stride).enumerate() {
                        let (dir, first_row, count) = place(n);
                        let r = Rows::split(bytemuck::cast_slice_mut(task), rows, layout);
                        for row in 0..count {
                            for s in 0..steps {
                                let time = match directions[dir] {
                                    Direction::Reverse if !args.reading_order => t - 1 - first - s,
                                    _ => first + s,
                                };
                                let to = (first_row + row) * y_batch + time * y_time + dir * w;
                                y[to..to + w].copy_from_slice(&r.y[(s * rows + row) * w..][..w]);
                            }
                        }
                    }
                }
            }
            Ok::<_, Error>(())
        };
        let y = if wants_y {
            Some(Tensor::cpu_write(shape, |y| steps(Some(y)))?)
        } else {
            steps(None)?;
            None
        };

        let mut last = |shape: Shape, size: usize, pick: fn(Rows<'_>) -> &[f32]| {
            Tensor::cpu_write(shape, |out| {
                for (n, task) in tasks.chunks_exact_mut(stride).enumerate() {
                    let (dir, first_row, count) = place(n);
                    let r = Rows::split(bytemuck::cast_slice_mut(task), rows, layout);
                    let state = pick(r);
                    for row in 0..count {
                        out[(dir * b + first_row + row) * size..][..size].copy_from_slice(&state[row * hp..][..size]);
                    }
                }
                Ok::<_, Error>(())
            })
        };
        let h_last = last(sizes.h_shape(), w, |r| r.h)?;
        let c_last = if layout.kind.has_cell_state() { Some(last(sizes.c_shape(), h, |r| r.c)?) } else { None };
        Ok(RecurrentOutput { y, h: h_last, c: c_last })
    }
}

/// Runs a job by the members of a team from `index` on, on as many threads as come.
fn together(
    team: &Team,
    tiles: usize,
    index: usize,
    task: &mut [Line],
    others: &mut [Line],
    stride: usize,
    body: &(impl Fn(&mut [Line], Member<'_>) + Sync),
) {
    let member = Member { team, index, own: share(tiles, team.members(), index) };
    if others.is_empty() {
        return body(task, member);
    }
    let (next, rest) = others.split_at_mut(stride);
    rayon::join(|| body(task, member), || together(team, tiles, index + 1, next, rest, stride, body));
}

fn grow(v: &mut Vec<Line>, len: usize) {
    if v.len() < len {
        v.resize(len, Line::default());
    }
}

/// `P = X · W_ihᵀ + b` for the timesteps `from..from + steps`, columns in packed order.
fn project(packed: &Packed, x: &[f32], sizes: &Sizes, time_major: bool, from: usize, steps: usize, p: &mut [f32]) {
    let Sizes { batch: b, timesteps: t, input: i, .. } = *sizes;
    let np = packed.columns();
    let threads = threads_for(steps * b * np * i);
    if time_major {
        product::project(packed, &x[from * b * i..][..steps * b * i], i, p, threads);
    } else if steps == t {
        product::project(packed, x, i, p, threads);
    } else {
        for (row, p) in p.chunks_exact_mut(steps * np).enumerate() {
            product::project(packed, &x[(row * t + from) * i..][..steps * i], i, p, threads);
        }
    }
}
