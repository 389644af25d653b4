//! An LSTM step: gates i f g o of a tile in registers, c in place.

use super::{At, Job, accumulate};
use pulp::Simd;

#[inline(always)]
pub(super) fn step<S: Simd>(job: &mut Job<'_>, s: S, at: At, coupled: bool) {
    blocks!(job, block(s, at, coupled), 1, 2, 2);
}

#[inline(always)]
fn block<S: Simd, const V: usize, const R: usize>(
    job: &mut Job<'_>,
    s: S,
    at: At,
    coupled: bool,
    tile: usize,
    row: usize,
) {
    let p = job.packed;
    let acc = accumulate::<S, 4, V, R>(s, p.w_hh(), p.hidden, tile, job.rows.h, job.rows.hp, row);
    let peepholes = S::as_simd_f32s(p.extra()).0;
    for (v, acc) in acc.iter().enumerate() {
        let tile = tile + v;
        for r in 0..R {
            let row = row + r;
            let pre = |g: usize| s.add_f32s(acc[g][r], job.input(s, at.slot, row, tile, g, 4));
            let peep = |n: usize, c, x| {
                if p.has_peepholes { s.mul_add_f32s(peepholes[tile * 3 + n], c, x) } else { x }
            };
            let place = row * p.tiles + tile;
            let old = S::as_simd_f32s(job.rows.c).0[place];
            let i = job.act(s, p.cell.gate, peep(0, old, pre(0)));
            let f = if coupled {
                s.sub_f32s(s.splat_f32s(1.0), i)
            } else {
                job.act(s, p.cell.gate, peep(1, old, pre(1)))
            };
            let g = job.act(s, p.cell.candidate, pre(2));
            let c = s.mul_add_f32s(f, old, s.mul_f32s(i, g));
            let o = job.act(s, p.cell.gate, peep(2, c, pre(3)));
            let h = s.mul_f32s(o, job.act(s, p.cell.output, c));
            if job.alive(row, at.time) {
                S::as_mut_simd_f32s(job.rows.c).0[place] = c;
            }
            job.store(s, at, row, tile, h);
        }
    }
}
