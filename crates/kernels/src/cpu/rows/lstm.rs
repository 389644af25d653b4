//! An LSTM step: gates i f g o of a tile in registers, c in place.
//!
//! Vector arithmetic stays out of closures here and in its neighbours: a closure that is not
//! inlined loses the vector instructions of the function around it.

use super::{At, Job, accumulate, act};
use pulp::Simd;

#[inline(always)]
pub(super) fn step<S: Simd>(job: &mut Job<'_>, s: S, at: At, coupled: bool) {
    blocks!(job, job.tiles.clone(), block(s, at, coupled), one row 2, many rows 1);
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
            let place = row * p.tiles + tile;
            let old = S::as_simd_f32s(job.rows.c).0[place];
            let mut i = s.add_f32s(acc[0][r], job.input::<S>(at.slot, row, tile, 0, 4));
            let mut f = s.add_f32s(acc[1][r], job.input::<S>(at.slot, row, tile, 1, 4));
            let g = s.add_f32s(acc[2][r], job.input::<S>(at.slot, row, tile, 2, 4));
            let mut o = s.add_f32s(acc[3][r], job.input::<S>(at.slot, row, tile, 3, 4));
            if p.has_peepholes {
                i = s.mul_add_f32s(peepholes[tile * 3], old, i);
                f = s.mul_add_f32s(peepholes[tile * 3 + 1], old, f);
            }
            let i = job.act(s, p.cell.gates[0], i);
            let f = if coupled { s.sub_f32s(s.splat_f32s(1.0), i) } else { job.act(s, p.cell.gates[1], f) };
            let g = job.act(s, p.cell.candidate, g);
            let c = s.mul_add_f32s(f, old, s.mul_f32s(i, g));
            if p.has_peepholes {
                o = s.mul_add_f32s(peepholes[tile * 3 + 2], c, o);
            }
            let o = job.act(s, p.cell.gates[2], o);
            let h = s.mul_f32s(o, act(s, p.cell.output, None, c));
            job.store_c(s, at, row, tile, c);
            job.store(s, at, row, tile, h);
        }
    }
}
