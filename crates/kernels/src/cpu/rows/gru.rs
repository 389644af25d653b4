//! The gates of a GRU, with the reset gate after or before the product.

use super::{At, Job, Row, Run};
use core::ops::Range;
use pulp::Simd;
use recurve_tensor::cpu::simd::{mul_add, tanh_ratio};

/// Reset gate after the product; sigmoid and tanh, no options.
pub(super) struct PlainAfter;

impl Run for PlainAfter {
    #[inline(always)]
    fn run<S: Simd>(self, job: &mut Job<'_>, s: S, at: At, band: Range<usize>) {
        let half = s.splat_f32s(0.5);
        let b_hn = S::as_simd_f32s(job.packed.extra()).0;
        for row in 0..job.count {
            if !job.alive(row, at.time) {
                job.keep(s, at, row, band.clone());
                continue;
            }
            let Row { sums, input, h, next, .. } = job.row::<S, 3>(at, row, &band);
            // Two loops, because the chain of operations from the sums to h is longer than a processor looks ahead.
            for (((sums, input), b_hn), next) in sums.iter().zip(input).zip(&b_hn[band.clone()]).zip(next.iter_mut()) {
                let r = s.add_f32s(sums[0], input[0]);
                let (pr, qr) = tanh_ratio(s, s.mul_f32s(half, r));
                let r = s.div_f32s(s.mul_f32s(half, s.add_f32s(qr, pr)), qr);
                *next = mul_add(s, r, s.add_f32s(sums[2], *b_hn), input[2]);
            }
            for (((sums, input), old), next) in sums.iter().zip(input).zip(h).zip(next) {
                let z = s.add_f32s(sums[1], input[1]);
                let (pz, qz) = tanh_ratio(s, s.mul_f32s(half, z));
                let (pn, qn) = tanh_ratio(s, *next);
                // z is computed by itself, so that z = 1 keeps h exactly; (1 - sigmoid(z)) tanh(n) shares one
                // denominator.
                let z = s.div_f32s(s.mul_f32s(half, s.add_f32s(qz, pz)), qz);
                let new = s.div_f32s(s.mul_f32s(s.mul_f32s(half, s.sub_f32s(qz, pz)), pn), s.mul_f32s(qz, qn));
                *next = mul_add(s, z, *old, new);
            }
            job.put::<S>(at, row, &band);
        }
    }
}

/// Reset gate after the product, with any activations, options and layer normalization.
pub(super) struct After;

impl Run for After {
    #[inline(always)]
    fn run<S: Simd>(self, job: &mut Job<'_>, s: S, at: At, band: Range<usize>) {
        let p = job.packed;
        let b_hn = S::as_simd_f32s(p.extra()).0;
        for row in 0..job.count {
            job.normalize_sums(s, row);
            for tile in band.clone() {
                let [r, z, n] = job.raw::<S, 3>(&band, row, tile);
                let r = job.act(s, p.cell.gates[0], s.add_f32s(r, job.input::<S>(at.slot, row, tile, 0, 3)));
                let z = job.act(s, p.cell.gates[1], s.add_f32s(z, job.input::<S>(at.slot, row, tile, 1, 3)));
                // With layer normalization this bias is part of the offset already.
                let n = if p.norm.is_some() { n } else { s.add_f32s(n, b_hn[tile]) };
                let n = mul_add(s, r, n, job.input::<S>(at.slot, row, tile, 2, 3));
                let n = job.act(s, p.cell.candidate, n);
                finish(job, s, at, tile, row, [z, n]);
            }
        }
    }
}

/// Reset gate before the product, first pass: r ∘ h and z.
pub(super) struct Before;

impl Run for Before {
    #[inline(always)]
    fn run<S: Simd>(self, job: &mut Job<'_>, s: S, at: At, band: Range<usize>) {
        let p = job.packed;
        for row in 0..job.count {
            for tile in band.clone() {
                let [r, z] = job.raw::<S, 2>(&band, row, tile);
                let r = job.act(s, p.cell.gates[0], s.add_f32s(r, job.input::<S>(at.slot, row, tile, 0, 3)));
                let z = job.act(s, p.cell.gates[1], s.add_f32s(z, job.input::<S>(at.slot, row, tile, 1, 3)));
                let place = row * p.tiles + tile;
                let h = S::as_simd_f32s(job.rows.h).0[place];
                S::as_mut_simd_f32s(job.rows.reset).0[place] = s.mul_f32s(r, h);
                S::as_mut_simd_f32s(job.rows.c).0[place] = z;
            }
        }
    }
}

/// Reset gate before the product, second pass: the candidate, and h.
pub(super) struct Candidate;

impl Run for Candidate {
    #[inline(always)]
    fn run<S: Simd>(self, job: &mut Job<'_>, s: S, at: At, band: Range<usize>) {
        let p = job.packed;
        for row in 0..job.count {
            for tile in band.clone() {
                let [n] = job.raw::<S, 1>(&band, row, tile);
                let n = s.add_f32s(n, job.input::<S>(at.slot, row, tile, 2, 3));
                let n = job.act(s, p.cell.candidate, n);
                let z = S::as_simd_f32s(job.rows.c).0[row * p.tiles + tile];
                finish(job, s, at, tile, row, [z, n]);
            }
        }
    }
}

/// `h = (1 - z) ∘ n + z ∘ h`
#[inline(always)]
fn finish<S: Simd>(job: &mut Job<'_>, s: S, at: At, tile: usize, row: usize, [z, n]: [S::f32s; 2]) {
    let old = S::as_simd_f32s(job.rows.h).0[row * job.packed.tiles + tile];
    let h = mul_add(s, s.sub_f32s(s.splat_f32s(1.0), z), n, s.mul_f32s(z, old));
    job.store(s, at, row, tile, h);
}
