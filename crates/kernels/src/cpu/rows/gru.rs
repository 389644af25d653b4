//! A GRU step, with the reset gate after or before the product.

use super::{At, Job, accumulate};
use pulp::Simd;

#[inline(always)]
pub(super) fn step_after<S: Simd>(job: &mut Job<'_>, s: S, at: At) {
    blocks!(job, job.tiles.clone(), after(s, at), one row 3, many rows 1);
}

/// With the reset gate before the product, r ∘ h of every unit is needed before the candidate of
/// any: two sweeps.
#[inline(always)]
pub(super) fn step_before<S: Simd>(job: &mut Job<'_>, s: S, at: At) {
    blocks!(job, job.tiles.clone(), gates(s, at), one row 4, many rows 2);
    blocks!(job, job.tiles.clone(), candidate(s, at), one row 8, many rows 4);
}

#[inline(always)]
fn after<S: Simd, const V: usize, const R: usize>(job: &mut Job<'_>, s: S, at: At, tile: usize, row: usize) {
    let p = job.packed;
    let acc = accumulate::<S, 3, V, R>(s, p.w_hh(), p.hidden, tile, job.rows.h, job.rows.hp, row);
    let b_hn = S::as_simd_f32s(p.extra()).0;
    for (v, acc) in acc.iter().enumerate() {
        let tile = tile + v;
        for r in 0..R {
            let row = row + r;
            let reset = s.add_f32s(acc[0][r], job.input::<S>(at.slot, row, tile, 0, 3));
            let reset = job.act(s, p.cell.gates[0], reset);
            let z = s.add_f32s(acc[1][r], job.input::<S>(at.slot, row, tile, 1, 3));
            let z = job.act(s, p.cell.gates[1], z);
            let hidden = s.add_f32s(acc[2][r], b_hn[tile]);
            let n = s.mul_add_f32s(reset, hidden, job.input::<S>(at.slot, row, tile, 2, 3));
            let n = job.act(s, p.cell.candidate, n);
            finish(job, s, at, tile, row, z, n);
        }
    }
}

#[inline(always)]
fn gates<S: Simd, const V: usize, const R: usize>(job: &mut Job<'_>, s: S, at: At, tile: usize, row: usize) {
    let p = job.packed;
    let acc = accumulate::<S, 2, V, R>(s, p.w_hh(), p.hidden, tile, job.rows.h, job.rows.hp, row);
    for (v, acc) in acc.iter().enumerate() {
        let tile = tile + v;
        for r in 0..R {
            let row = row + r;
            let reset = s.add_f32s(acc[0][r], job.input::<S>(at.slot, row, tile, 0, 3));
            let reset = job.act(s, p.cell.gates[0], reset);
            let z = s.add_f32s(acc[1][r], job.input::<S>(at.slot, row, tile, 1, 3));
            let z = job.act(s, p.cell.gates[1], z);
            let place = row * p.tiles + tile;
            let h = S::as_simd_f32s(job.rows.h).0[place];
            S::as_mut_simd_f32s(job.rows.reset).0[place] = s.mul_f32s(reset, h);
            S::as_mut_simd_f32s(job.rows.c).0[place] = z;
        }
    }
}

#[inline(always)]
fn candidate<S: Simd, const V: usize, const R: usize>(job: &mut Job<'_>, s: S, at: At, tile: usize, row: usize) {
    let p = job.packed;
    let acc = accumulate::<S, 1, V, R>(s, p.w_hn(), p.hidden, tile, job.rows.reset, job.rows.hp, row);
    for (v, acc) in acc.iter().enumerate() {
        let tile = tile + v;
        for r in 0..R {
            let row = row + r;
            let pre = s.add_f32s(acc[0][r], job.input::<S>(at.slot, row, tile, 2, 3));
            let n = job.act(s, p.cell.candidate, pre);
            let z = S::as_simd_f32s(job.rows.c).0[row * p.tiles + tile];
            finish(job, s, at, tile, row, z, n);
        }
    }
}

/// `h = (1 - z) ∘ n + z ∘ h`
#[inline(always)]
fn finish<S: Simd>(job: &mut Job<'_>, s: S, at: At, tile: usize, row: usize, z: S::f32s, n: S::f32s) {
    let old = S::as_simd_f32s(job.rows.h).0[row * job.packed.tiles + tile];
    let h = s.mul_add_f32s(s.sub_f32s(s.splat_f32s(1.0), z), n, s.mul_f32s(z, old));
    job.store(s, at, row, tile, h);
}
