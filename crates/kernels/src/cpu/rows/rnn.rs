//! A SimpleRNN step.

use super::{At, Job, accumulate};
use pulp::Simd;

#[inline(always)]
pub(super) fn step<S: Simd>(job: &mut Job<'_>, s: S, at: At) {
    blocks!(job, job.tiles.clone(), block(s, at), one row 8, many rows 4);
}

#[inline(always)]
fn block<S: Simd, const V: usize, const R: usize>(job: &mut Job<'_>, s: S, at: At, tile: usize, row: usize) {
    let p = job.packed;
    let acc = accumulate::<S, 1, V, R>(s, p.w_hh(), p.hidden, tile, job.rows.h, job.rows.hp, row);
    for (v, acc) in acc.iter().enumerate() {
        let tile = tile + v;
        for r in 0..R {
            let row = row + r;
            let pre = s.add_f32s(acc[0][r], job.input::<S>(at.slot, row, tile, 0, 1));
            let h = job.act(s, p.cell.candidate, pre);
            job.store(s, at, row, tile, h);
        }
    }
}
