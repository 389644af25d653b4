//! The gates i f g o of an LSTM.
//!
//! No vector arithmetic is written inside closures, here and in the other cells: a closure that is not inlined is
//! compiled without the vector instructions of the function around it.

use super::{At, Job, Row, Run, act, normalize};
use core::ops::Range;
use pulp::Simd;
use recurve_tensor::cpu::simd::{mul_add, tanh_ratio};

/// Sigmoid and tanh, no options.
pub(super) struct Plain;

impl Run for Plain {
    #[inline(always)]
    fn run<S: Simd>(self, job: &mut Job<'_>, s: S, at: At, band: Range<usize>) {
        let half = s.splat_f32s(0.5);
        for row in 0..job.count {
            if !job.alive(row, at.time) {
                job.keep(s, at, row, band.clone());
                continue;
            }
            let Row { sums, input, c, next, .. } = job.row::<S, 4>(at, row, &band);
            // Two loops, because the chain of operations from the sums to h is longer than a processor looks ahead.
            for ((sums, input), c) in sums.iter().zip(input).zip(c.iter_mut()) {
                let i = s.add_f32s(sums[0], input[0]);
                let f = s.add_f32s(sums[1], input[1]);
                let g = s.add_f32s(sums[2], input[2]);
                let (pi, qi) = tanh_ratio(s, s.mul_f32s(half, i));
                let (pf, qf) = tanh_ratio(s, s.mul_f32s(half, f));
                let (pg, qg) = tanh_ratio(s, g);
                // f is computed by itself, so that f = 1 keeps c exactly; sigmoid(i) tanh(g) shares one denominator.
                let f = s.div_f32s(s.mul_f32s(half, s.add_f32s(qf, pf)), qf);
                let new = s.div_f32s(s.mul_f32s(s.mul_f32s(half, s.add_f32s(qi, pi)), pg), s.mul_f32s(qi, qg));
                *c = mul_add(s, f, *c, new);
            }
            for (((sums, input), c), next) in sums.iter().zip(input).zip(c.iter()).zip(next) {
                let (po, qo) = tanh_ratio(s, s.mul_f32s(half, s.add_f32s(sums[3], input[3])));
                let (pc, qc) = tanh_ratio(s, *c);
                *next = s.div_f32s(s.mul_f32s(s.mul_f32s(half, s.add_f32s(qo, po)), pc), s.mul_f32s(qo, qc));
            }
            job.put::<S>(at, row, &band);
        }
    }
}

/// Any activations and options, layer normalization, and the input of a projection.
pub(super) struct Any {
    pub(super) coupled: bool,
}

impl Run for Any {
    #[inline(always)]
    fn run<S: Simd>(self, job: &mut Job<'_>, s: S, at: At, band: Range<usize>) {
        let p = job.packed;
        let peepholes = S::as_simd_f32s(p.extra()).0;
        for row in 0..job.count {
            job.normalize_sums(s, row);
            for tile in band.clone() {
                let place = row * p.tiles + tile;
                let old = S::as_simd_f32s(job.rows.c).0[place];
                let [i, f, g, o] = job.raw::<S, 4>(&band, row, tile);
                let mut i = s.add_f32s(i, job.input::<S>(at.slot, row, tile, 0, 4));
                let mut f = s.add_f32s(f, job.input::<S>(at.slot, row, tile, 1, 4));
                let g = s.add_f32s(g, job.input::<S>(at.slot, row, tile, 2, 4));
                let mut o = s.add_f32s(o, job.input::<S>(at.slot, row, tile, 3, 4));
                if p.has_peepholes {
                    i = mul_add(s, peepholes[tile * 3], old, i);
                    f = mul_add(s, peepholes[tile * 3 + 1], old, f);
                }
                let i = job.act(s, p.cell.gates[0], i);
                let f = if self.coupled { s.sub_f32s(s.splat_f32s(1.0), i) } else { job.act(s, p.cell.gates[1], f) };
                let g = job.act(s, p.cell.candidate, g);
                let c = mul_add(s, f, old, s.mul_f32s(i, g));
                if p.has_peepholes {
                    o = mul_add(s, peepholes[tile * 3 + 2], c, o);
                }
                let o = job.act(s, p.cell.gates[2], o);
                S::as_mut_simd_f32s(job.rows.raw).0[(row * band.len() + tile - band.start) * 4] = o;
                S::as_mut_simd_f32s(job.rows.reset).0[place] = c;
                job.store_c(s, at, row, tile, c);
            }
            if let Some(norm) = &p.norm {
                let seen = &mut job.rows.reset[row * job.rows.hp..][..job.rows.hp];
                normalize(s, seen, 1, p.hidden, &norm.c, norm.epsilon);
            }
            for tile in band.clone() {
                let place = row * p.tiles + tile;
                let c = S::as_simd_f32s(job.rows.reset).0[place];
                let [o, ..] = job.raw::<S, 4>(&band, row, tile);
                let h = s.mul_f32s(o, act(s, p.cell.output, p.cell.clip.filter(|_| p.cell.clip_output), c));
                if p.cell.projection.is_some() {
                    S::as_mut_simd_f32s(job.rows.reset).0[place] = h;
                } else {
                    job.store(s, at, row, tile, h);
                }
            }
        }
    }
}

/// With a projection: h is its sums.
pub(super) struct Projected;

impl Run for Projected {
    #[inline(always)]
    fn run<S: Simd>(self, job: &mut Job<'_>, s: S, at: At, band: Range<usize>) {
        for row in 0..job.count {
            for tile in band.clone() {
                let [h] = job.raw::<S, 1>(&band, row, tile);
                job.store(s, at, row, tile, h);
            }
        }
    }
}
