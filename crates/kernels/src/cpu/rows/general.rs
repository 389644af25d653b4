//! A step of an LSTM or GRU with layer normalization, or of an LSTM with a projection of h: the sums
//! of all units before the gates of any.

use super::{At, Job, accumulate, act, normalize};
use crate::CellKind;
use pulp::Simd;

#[inline(always)]
pub(super) fn step<S: Simd>(job: &mut Job<'_>, s: S, at: At) {
    match job.packed.kind {
        CellKind::Lstm { coupled } => {
            blocks!(job, 0..job.packed.tiles, four(s), one row 2, many rows 1);
            for row in 0..job.count {
                lstm(job, s, at, row, coupled);
            }
            if job.packed.cell.projection.is_some() {
                blocks!(job, 0..job.packed.width_tiles(), project(s, at), one row 8, many rows 4);
            }
        }
        _ => {
            blocks!(job, 0..job.packed.tiles, three(s), one row 3, many rows 1);
            for row in 0..job.count {
                gru(job, s, at, row);
            }
        }
    }
}

#[inline(always)]
fn four<S: Simd, const V: usize, const R: usize>(job: &mut Job<'_>, s: S, tile: usize, row: usize) {
    sums::<S, 4, V, R>(job, s, tile, row);
}

#[inline(always)]
fn three<S: Simd, const V: usize, const R: usize>(job: &mut Job<'_>, s: S, tile: usize, row: usize) {
    sums::<S, 3, V, R>(job, s, tile, row);
}

/// `W_hh h`
#[inline(always)]
fn sums<S: Simd, const G: usize, const V: usize, const R: usize>(job: &mut Job<'_>, s: S, tile: usize, row: usize) {
    let p = job.packed;
    let acc = accumulate::<S, G, V, R>(s, p.w_hh(), p.width, tile, job.rows.h, job.rows.hp, row);
    let (raw, _) = S::as_mut_simd_f32s(job.rows.raw);
    for v in 0..V {
        for g in 0..G {
            for r in 0..R {
                raw[((row + r) * p.tiles + tile + v) * G + g] = acc[v][g][r];
            }
        }
    }
}

#[inline(always)]
fn normalize_sums<S: Simd>(job: &mut Job<'_>, s: S, row: usize) {
    let p = job.packed;
    if let Some(norm) = &p.norm {
        let raw = &mut job.rows.raw[row * p.columns()..][..p.columns()];
        normalize(s, raw, p.kind.gates(), p.hidden, &norm.hh, norm.epsilon);
    }
}

#[inline(always)]
fn lstm<S: Simd>(job: &mut Job<'_>, s: S, at: At, row: usize, coupled: bool) {
    let p = job.packed;
    normalize_sums(job, s, row);
    let peepholes = S::as_simd_f32s(p.extra()).0;
    for tile in 0..p.tiles {
        let place = row * p.tiles + tile;
        let old = S::as_simd_f32s(job.rows.c).0[place];
        let raw = &S::as_simd_f32s(job.rows.raw).0[place * 4..][..4];
        let mut i = s.add_f32s(raw[0], job.input::<S>(at.slot, row, tile, 0, 4));
        let mut f = s.add_f32s(raw[1], job.input::<S>(at.slot, row, tile, 1, 4));
        let g = s.add_f32s(raw[2], job.input::<S>(at.slot, row, tile, 2, 4));
        let mut o = s.add_f32s(raw[3], job.input::<S>(at.slot, row, tile, 3, 4));
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
        S::as_mut_simd_f32s(job.rows.raw).0[place * 4] = o;
        S::as_mut_simd_f32s(job.rows.reset).0[place] = c;
        job.store_c(s, at, row, tile, c);
    }
    if let Some(norm) = &p.norm {
        let seen = &mut job.rows.reset[row * job.rows.hp..][..job.rows.hp];
        normalize(s, seen, 1, p.hidden, &norm.c, norm.epsilon);
    }
    for tile in 0..p.tiles {
        let place = row * p.tiles + tile;
        let c = S::as_simd_f32s(job.rows.reset).0[place];
        let o = S::as_simd_f32s(job.rows.raw).0[place * 4];
        let h = s.mul_f32s(o, act(s, p.cell.output, None, c));
        if p.cell.projection.is_some() {
            S::as_mut_simd_f32s(job.rows.reset).0[place] = h;
        } else {
            job.store(s, at, row, tile, h);
        }
    }
}

#[inline(always)]
fn project<S: Simd, const V: usize, const R: usize>(job: &mut Job<'_>, s: S, at: At, tile: usize, row: usize) {
    let p = job.packed;
    let acc = accumulate::<S, 1, V, R>(s, p.w_hr(), p.hidden, tile, job.rows.reset, job.rows.hp, row);
    for (v, acc) in acc.iter().enumerate() {
        for r in 0..R {
            job.store(s, at, row + r, tile + v, acc[0][r]);
        }
    }
}

#[inline(always)]
fn gru<S: Simd>(job: &mut Job<'_>, s: S, at: At, row: usize) {
    let p = job.packed;
    normalize_sums(job, s, row);
    for tile in 0..p.tiles {
        let place = row * p.tiles + tile;
        let raw = &S::as_simd_f32s(job.rows.raw).0[place * 3..][..3];
        let (sum_z, sum_n) = (raw[1], raw[2]);
        let reset = s.add_f32s(raw[0], job.input::<S>(at.slot, row, tile, 0, 3));
        let reset = job.act(s, p.cell.gates[0], reset);
        let z = s.add_f32s(sum_z, job.input::<S>(at.slot, row, tile, 1, 3));
        let z = job.act(s, p.cell.gates[1], z);
        let n = s.mul_add_f32s(reset, sum_n, job.input::<S>(at.slot, row, tile, 2, 3));
        let n = job.act(s, p.cell.candidate, n);
        let old = S::as_simd_f32s(job.rows.h).0[place];
        let h = s.mul_add_f32s(s.sub_f32s(s.splat_f32s(1.0), z), n, s.mul_f32s(z, old));
        job.store(s, at, row, tile, h);
    }
}
