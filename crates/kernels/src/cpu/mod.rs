//! Recurrent layers on the CPU: packed weights, the input projection, and threads.

mod clock;
mod cores;
pub(crate) mod dense;
mod pack;
mod product;
mod rows;
mod step;
mod sync;
mod team;
#[cfg(test)]
mod team_tests;
pub(crate) mod training;
mod weights;

use crate::call::{Call, Input, Outputs, RecurrentOutput, Sizes, ValidSteps};
use crate::config::LevelConfig;
use crate::recurrent::TableRows;
use crate::{CellKind, Direction, Strategy};
use pack::{Line, Packed};
use product::Operand;
use recurve_tensor::cpu::threads::{join, prelude::*};
use recurve_tensor::cpu::{host, simd_arch, simd_lanes};
use recurve_tensor::kernel::TensorKernels;
use recurve_tensor::{Error, Result, Shape, Tensor};
use rows::{Extent, Member, Output, Rows, Valid};
use std::sync::{Mutex, PoisonError};
use team::{OnPanic, Team, share};

/// A layer's weights packed for the CPU kernels, and memory that is kept between calls.
#[derive(Debug)]
pub(crate) struct CpuLayer {
    directions: Vec<Packed>,
    reading: Vec<Direction>,
    scratch: Mutex<Vec<Scratch>>,
}

/// The memory of one call, reused by the next call of the same size.
#[derive(Debug, Default)]
struct Scratch {
    projection: Vec<Line>,
    tasks: Vec<Line>,
    team: Option<Team>,
}

/// The projections of all tokens, `[V, columns]` for each direction.
#[derive(Debug)]
pub(crate) struct TokenRows {
    directions: Vec<Vec<Line>>,
}

impl TokenRows {
    fn row(&self, direction: usize, id: usize, columns: usize) -> &[f32] {
        &bytemuck::cast_slice(&self.directions[direction])[id * columns..][..columns]
    }
}

/// What a chunk is projected from.
#[derive(Clone, Copy)]
enum Source<'a> {
    Features(&'a [f32]),
    Tokens(&'a [u32], &'a TokenRows),
}

/// Target size of the projection of a chunk, in bytes: small enough to stay in a core's own cache until it is read.
const PROJECTION_BYTES: usize = 256 << 10;

/// Smallest number of rows of the projection of a chunk, even if that exceeds the target size. With so many rows,
/// reading the input weights takes little time compared with multiplying by them.
const PROJECTION_ROWS: usize = 128;

/// Largest size of a projection, in bytes, whatever its number of rows.
const PROJECTION_LIMIT: usize = 4 << 20;

/// Target size of the outputs that a task keeps until they are copied, in bytes.
const OUTPUT_BYTES: usize = 1 << 20;

/// A call of fewer multiply-adds runs on one thread, because a second one costs more than it saves.
const WORTH_A_THREAD: usize = 1 << 19;

/// A thread joins a team only if its share of a timestep has at least so many multiply-adds: an exchange between
/// threads takes a quarter of a microsecond.
const WORTH_A_MEMBER: usize = 24_000;

/// A recurrence of fewer multiply-adds runs without a team, because it would end before the other threads arrive.
const WORTH_A_TEAM: usize = 1 << 21;

impl CpuLayer {
    pub(crate) fn new(config: &LevelConfig<'_>) -> Result<Self> {
        let lanes = simd_lanes();
        let directions = config
            .directions
            .iter()
            .map(|(_, w)| Packed::new(&config.cell, w, config.input_size, config.hidden_size, lanes, config.weights))
            .collect::<Result<_>>()?;
        Ok(Self { directions, reading: config.reading(), scratch: Mutex::new(Vec::new()) })
    }

    /// `E · W_ihᵀ + b` for each direction, with columns in packed order.
    pub(crate) fn token_rows(&self, embeddings: &Tensor) -> Result<TokenRows> {
        let e = embeddings.cpu_f32().expect("checked to be f32 on the CPU");
        let (vocabulary, input) = (embeddings.dims()[0], embeddings.shape().last());
        let rows = |packed: &Packed| {
            let np = packed.columns();
            let lines = vocabulary.saturating_mul(np).div_ceil(Line::FLOATS);
            let mut out = host::<Line>("Recurrent::token_table", lines)?;
            let p: &mut [f32] = bytemuck::cast_slice_mut(&mut out);
            product::project_shared(packed, Operand::dense(e, input), &mut p[..vocabulary * np]);
            Ok(out)
        };
        Ok(TokenRows { directions: self.directions.iter().map(rows).collect::<Result<_>>()? })
    }

    pub(crate) fn forward(&self, call: &Call<'_>) -> Result<RecurrentOutput> {
        let lock = || self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = lock().pop().unwrap_or_default();
        let out = self.run(call, &mut scratch);
        lock().push(scratch);
        out
    }

    fn run(&self, call: &Call<'_>, scratch: &mut Scratch) -> Result<RecurrentOutput> {
        let sizes = &call.sizes;
        let Sizes { batch: b, timesteps: t, directions: d, .. } = *sizes;
        let directions = &self.reading[..];
        let source = match call.input {
            Input::Features(x) => Source::Features(x.cpu_f32().expect("checked to be f32 on the CPU")),
            Input::Tokens(ids, TableRows::Cpu(rows)) => {
                Source::Tokens(ids.cpu_u32().expect("checked to be u32 on the CPU"), rows)
            }
            Input::Tokens(..) => unreachable!("checked to be this layer's"),
        };
        let [h0, c0] = [call.h0, call.c0].map(|s| s.map(|s| s.cpu_f32().expect("checked to be f32 on the CPU")));
        let valid = call.valid.tensor().map(|v| v.cpu_u32().expect("checked to be u32 on the CPU"));
        // The valid timesteps of some batch rows.
        let valid = |first: usize, count: usize| match (call.valid, valid) {
            (ValidSteps::Lengths(_), Some(l)) => Valid::Lengths(&l[first..first + count]),
            (ValidSteps::Mask(..), Some(m)) => Valid::Mask(&m[first * t..(first + count) * t], call.valid.repeats()),
            _ => Valid::All,
        };
        let layout = &self.directions[0];
        let (np, hp, w) = (layout.columns(), layout.padded_hidden(), sizes.width);

        // Each task is one direction and a range of batch rows.
        let inputs = if matches!(source, Source::Features(_)) { sizes.input } else { 0 };
        let work = d * b * t * np * (inputs + hp);
        let threads = cores::threads().min(work / WORTH_A_THREAD).max(1);
        let parts = b.min(threads.div_ceil(d));
        let rows = b.div_ceil(parts);
        let parts = b.div_ceil(rows);

        // The direction, first row and number of rows of task `n`.
        let place = |n: usize| {
            let first_row = n % parts * rows;
            (n / parts, first_row, rows.min(b - first_row))
        };

        // A single sequence with one direction: threads share its hidden units instead of batch rows.
        let products = layout.kind.recurrent_weights(hp, hp);
        let members = match (d * b, layout.kind) {
            // A reset gate before the product would need an exchange in the middle of a timestep.
            (_, CellKind::Gru { reset_after: false }) => 1,
            (1, _) if !layout.whole_rows() && !layout.kind.is_pointwise() && t * products >= WORTH_A_TEAM => {
                threads.min(products / WORTH_A_MEMBER).min(layout.tiles).max(1)
            }
            _ => 1,
        };

        let bytes = rows * np * size_of::<f32>();
        let most = PROJECTION_LIMIT.min(call.projection_budget) / (d * parts * bytes);
        let few = (PROJECTION_BYTES / bytes).max(PROJECTION_ROWS.div_ceil(rows));
        // Forming a team costs time for every chunk, so chunks are as large as possible.
        let chunk = if members > 1 { most } else { few.min(most) }.clamp(1, t);
        let wants_y = call.outputs == Outputs::All;
        // Whether tasks run at the same time.
        let shared = d * parts > 1 && threads > 1;
        // Whether a task writes to the output tensor directly: no other task runs at the same time, or the outputs of
        // each task are one range of the tensor.
        let direct = !shared || (d == 1 && !call.time_major);
        // Tasks that share nothing run the whole sequence at once. The others synchronize after every group of
        // timesteps: a team after every chunk, tasks whose outputs are then copied as seldom as their memory allows.
        let group = if members > 1 {
            chunk
        } else if direct || !wants_y {
            t
        } else {
            let together = OUTPUT_BYTES / (chunk * rows * w * size_of::<f32>());
            chunk.saturating_mul(together.max(1)).min(t)
        };
        let extent = Extent::new(rows, layout);
        let task_floats = extent.floats(layout, if wants_y && (!direct || members > 1) { group } else { 0 });
        let stride = task_floats.div_ceil(Line::FLOATS);
        let p_stride = (chunk * rows * np).div_ceil(Line::FLOATS);
        grow(&mut scratch.projection, d * parts * p_stride)?;
        let count = if members > 1 { members } else { d * parts };
        grow(&mut scratch.tasks, count * stride)?;
        let (tasks, helpers) = scratch.tasks[..count * stride].split_at_mut(d * parts * stride);
        if members > 1 && !scratch.team.as_ref().is_some_and(|t| t.fits(members, hp)) {
            scratch.team = Some(Team::new(members, hp, layout.kind.carried()));
        }
        let projections = &mut scratch.projection[..d * parts * p_stride];

        for (n, task) in tasks.chunks_exact_mut(stride).enumerate() {
            let (dir, first_row, count) = place(n);
            let row = dir * b + first_row;
            Rows::split(bytemuck::cast_slice_mut(task), extent, layout).start(
                count,
                h0.map(|s| &s[row * w..(row + count) * w]),
                c0.map(|s| &s[row * sizes.carried..(row + count) * sizes.carried]),
            );
        }

        let (shape, y_batch, y_time) = sizes.output(call.time_major)?;

        // Projects a task's rows for as many timesteps as fit into `p`, from step `first` on.
        let project = |n: usize, first: usize, p: &mut [f32]| {
            let (dir, first_row, count) = place(n);
            let steps = p.len() / (count * np);
            let packed = &self.directions[dir];
            let from = match directions[dir] {
                Direction::Forward => first,
                Direction::Reverse => t - first - steps,
            };
            let start = if call.time_major { from * b + first_row } else { first_row * t + from };
            match source {
                Source::Features(x) => {
                    let i = sizes.input;
                    let (outer, inner) = if call.time_major { (b * i, i) } else { (i, t * i) };
                    let x = Operand::groups(&x[start * i..], count, outer, inner);
                    if members > 1 {
                        product::project_shared(packed, x, p);
                    } else {
                        product::project(packed, x, p);
                    }
                }
                Source::Tokens(ids, rows) => {
                    for (n, p) in p.chunks_exact_mut(np).enumerate() {
                        let (time, row) = (n / count, n % count);
                        let id = ids[start + if call.time_major { time * b + row } else { row * t + time }];
                        p.copy_from_slice(rows.row(dir, id as usize, np));
                    }
                }
            }
        };

        // Whether the outputs of a direction are stored from the last timestep to the first.
        let reversed = |dir: usize| directions[dir] == Direction::Reverse && !call.reading_order;
        // Runs the recurrence of a task's rows, or of a team member's share of their units, from step `first` on. The
        // outputs are written to `own`, or to the task's memory, which has those of a group.
        let recur = |n: usize,
                     task: &mut [Line],
                     p: &[f32],
                     first: usize,
                     own: Option<&mut [f32]>,
                     member: Option<Member<'_>>| {
            let (dir, first_row, count) = place(n);
            let steps = p.len() / (count * np);
            let mut memory = Rows::split(bytemuck::cast_slice_mut(task), extent, layout);
            let y = match own {
                Some(y) => {
                    let start = if shared { 0 } else { first_row * y_batch + dir * w };
                    let (time, sign) = if reversed(dir) { (t - 1 - first, -1) } else { (first, 1) };
                    let (first, step_stride) = (start + time * y_time, sign * y_time as isize);
                    Some(Output { y, row_stride: y_batch, first, step_stride })
                }
                None if wants_y => {
                    let y = core::mem::take(&mut memory.y);
                    let first = first % group * rows * w;
                    Some(Output { y, row_stride: w, first, step_stride: (rows * w) as isize })
                }
                None => None,
            };
            let job = rows::Job {
                packed: &self.directions[dir],
                rows: memory,
                count,
                projection: p,
                p_row: np,
                p_slot: count * np,
                first,
                steps,
                timesteps: t,
                reverse: directions[dir] == Direction::Reverse,
                valid: valid(first_row, count),
                y,
                tiles: match &member {
                    Some(Member { index: 1.., own, .. }) => own.clone(),
                    _ => 0..layout.tiles,
                },
                member,
            };
            simd_arch().dispatch(job);
        };

        let mut groups = |mut y: Option<&mut [f32]>| {
            for start in (0..t).step_by(group) {
                let end = (start + group).min(t);
                let mut whole = if direct { y.as_deref_mut() } else { None };
                let each = |n: usize, task: &mut [Line], p: &mut [Line], mut y: Option<&mut [f32]>| {
                    let p: &mut [f32] = bytemuck::cast_slice_mut(p);
                    for first in (start..end).step_by(chunk) {
                        let p = &mut p[..chunk.min(end - first) * place(n).2 * np];
                        project(n, first, p);
                        recur(n, task, p, first, y.as_deref_mut(), None);
                    }
                };
                if members > 1 && cores::teams_pay() {
                    let p: &mut [f32] = &mut bytemuck::cast_slice_mut(projections)[..(end - start) * np];
                    project(0, start, p);
                    let p = &*p;
                    let team = scratch.team.as_mut().expect("made above");
                    team.reset();
                    let begin = (&mut *tasks, whole.as_deref_mut());
                    together((team, layout.tiles), 0, begin, helpers, stride, &|(task, y), m| {
                        recur(0, task, p, start, y, Some(m))
                    });
                    let shared = team.shared(end - start);
                    if team.was_joined() {
                        cores::note_team(!team.was_dissolved());
                    }
                    let lanes = hp / layout.tiles;
                    if !shared.is_empty() && shared.end == end - start {
                        let r = Rows::split(bytemuck::cast_slice_mut(tasks), extent, layout);
                        let own = share(layout.tiles, members, 0);
                        team.collect_c(end - start, own.start * lanes..own.end * lanes, r.c);
                    }
                    for (n, helper) in helpers.chunks_exact_mut(stride).enumerate() {
                        let Some(y) = &mut whole else { break };
                        let theirs = Rows::split(bytemuck::cast_slice_mut(helper), extent, layout);
                        let own = share(layout.tiles, members, n + 1);
                        let columns = own.start * lanes..(own.end * lanes).min(w);
                        for s in shared.clone() {
                            let time = if reversed(0) { t - 1 - start - s } else { start + s };
                            y[time * w..][columns.clone()].copy_from_slice(&theirs.y[s * w..][columns.clone()]);
                        }
                    }
                } else if shared {
                    let tasks = tasks.par_chunks_exact_mut(stride);
                    let all = tasks.zip(projections.par_chunks_exact_mut(p_stride)).enumerate();
                    match whole {
                        Some(y) => all
                            .zip(y.par_chunks_mut(rows * t * w))
                            .for_each(|((n, (task, p)), y)| each(n, task, p, Some(y))),
                        None => all.for_each(|(n, (task, p))| each(n, task, p, None)),
                    }
                } else {
                    let all = tasks.chunks_exact_mut(stride).zip(projections.chunks_exact_mut(p_stride));
                    for (n, (task, p)) in all.enumerate() {
                        each(n, task, p, whole.as_deref_mut());
                    }
                }
                let Some(y) = y.as_deref_mut().filter(|_| !direct) else { continue };
                // Copies the outputs of one timestep or, where the batch comes first, of one row.
                let tasks = &*tasks;
                let copy = |(index, y): (usize, &mut [f32])| {
                    for n in 0..d * parts {
                        let (dir, first_row, count) = place(n);
                        let task: &[f32] = bytemuck::cast_slice(&tasks[n * stride..][..stride]);
                        let outputs = &task[extent.floats(layout, 0)..];
                        let step = |time: usize| if reversed(dir) { t - 1 - time } else { time };
                        let own = first_row..first_row + count;
                        let (rows_here, steps_here) = match call.time_major {
                            true => (own, step(index)..step(index) + 1),
                            false if own.contains(&index) => (index..index + 1, start..end),
                            false => continue,
                        };
                        for row in rows_here {
                            for s in steps_here.clone().filter(|s| (start..end).contains(s)) {
                                let to = if call.time_major { row * y_batch } else { step(s) * y_time } + dir * w;
                                let from = ((s - start) * rows + row - first_row) * w;
                                y[to..to + w].copy_from_slice(&outputs[from..][..w]);
                            }
                        }
                    }
                };
                y.par_chunks_mut(if call.time_major { y_time } else { y_batch }).enumerate().for_each(copy);
            }
            Ok::<_, Error>(())
        };
        // On a thread of the pool, where parallel work can be started without waiting for it to wake up.
        let mut run = |y: Option<&mut [f32]>| if shared { join(|| groups(y), || ()).0 } else { groups(y) };
        let y = if wants_y {
            Some(Tensor::cpu_write(shape, |y| run(Some(y)))?)
        } else {
            run(None)?;
            None
        };

        let mut last = |shape: Shape, size: usize, pick: fn(&Rows<'_>, usize, &mut [f32])| {
            Tensor::cpu_write(shape, |out| {
                for (n, task) in tasks.chunks_exact_mut(stride).enumerate() {
                    let (dir, first_row, count) = place(n);
                    let r = Rows::split(bytemuck::cast_slice_mut(task), extent, layout);
                    for row in 0..count {
                        pick(&r, row, &mut out[(dir * b + first_row + row) * size..][..size]);
                    }
                }
                Ok::<_, Error>(())
            })
        };
        let h_last = last(sizes.h_shape(), w, |r, row, out| r.h_of(row, out))?;
        let has_c = layout.kind.has_cell_state();
        let c_last =
            if has_c { Some(last(sizes.c_shape(), sizes.carried, |r, row, out| r.c_of(row, out))?) } else { None };
        Ok(RecurrentOutput { y, h: h_last, c: c_last, strategy: Strategy::Auto })
    }
}

/// Runs a job with the members of a team from `index` on, on as many threads as are available. The first member writes
/// the outputs; the others write to memory of their own.
fn together(
    (team, tiles): (&Team, usize),
    index: usize,
    task: (&mut [Line], Option<&mut [f32]>),
    others: &mut [Line],
    stride: usize,
    body: &(impl Fn((&mut [Line], Option<&mut [f32]>), Member<'_>) + Sync),
) {
    let member = Member { team, index, own: share(tiles, team.members(), index), patience: None };
    let run = move || {
        let _guard = OnPanic(team);
        body(task, member);
    };
    if others.is_empty() {
        return run();
    }
    let (next, rest) = others.split_at_mut(stride);
    join(run, || together((team, tiles), index + 1, (next, None), rest, stride, body));
}

fn grow(v: &mut Vec<Line>, len: usize) -> Result<()> {
    if v.len() < len {
        // The old contents are not needed, so they are freed first; two buffers are never held at once.
        *v = Vec::new();
        *v = host("Recurrent::forward", len)?;
    }
    Ok(())
}
