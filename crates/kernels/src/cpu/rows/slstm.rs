//! The gates i f z o of an sLSTM, and its states c, n and m.

use super::{At, Job, Run, unusual};
use core::ops::Range;
use pulp::Simd;
use recurve_tensor::Activation;
use recurve_tensor::cpu::simd::{exp, log_sigmoid, mul_add};

pub(super) struct SLstm {
    pub(super) exponential_forget: bool,
}

impl Run for SLstm {
    #[inline(always)]
    fn run<S: Simd>(self, job: &mut Job<'_>, s: S, at: At, band: Range<usize>) {
        let p = job.packed;
        let zero = s.splat_f32s(0.0);
        for row in 0..job.count {
            let alive = job.alive(row, at.time);
            for tile in band.clone() {
                let place = row * p.tiles + tile;
                let [i, f, z, o] = job.raw::<S, 4>(&band, row, tile);
                let mut i = s.add_f32s(i, job.input::<S>(at.slot, row, tile, 0, 4));
                let mut f = s.add_f32s(f, job.input::<S>(at.slot, row, tile, 1, 4));
                let z = s.add_f32s(z, job.input::<S>(at.slot, row, tile, 2, 4));
                let o = s.add_f32s(o, job.input::<S>(at.slot, row, tile, 3, 4));
                if p.cell.clip.is_some() {
                    i = unusual(s, Activation::Linear, p.cell.clip, i);
                    f = unusual(s, Activation::Linear, p.cell.clip, f);
                }
                let z = job.act(s, p.cell.candidate, z);
                let o = job.act(s, p.cell.gates[2], o);
                let f = if self.exponential_forget { f } else { log_sigmoid(s, f) };

                let states = &mut S::as_mut_simd_f32s(job.rows.c).0[place * 3..][..3];
                let [c, n, m] = [states[0], states[1], states[2]];
                // The stabilizer is the larger of `f + m` and `i`, NaN if either is NaN; for an empty state (n = 0) it
                // is `i`.
                let kept = s.add_f32s(f, m);
                let top = s.select_f32s(s.greater_than_f32s(kept, i), kept, i);
                let top = s.select_f32s(s.equal_f32s(kept, kept), top, kept);
                let top = s.select_f32s(s.equal_f32s(n, zero), i, top);
                let i = exp(s, s.sub_f32s(i, top));
                let f = s.sub_f32s(kept, top);
                let f = exp(s, s.select_f32s(s.greater_than_f32s(f, zero), zero, f));
                let c = mul_add(s, f, c, s.mul_f32s(i, z));
                let n = mul_add(s, f, n, i);
                if alive {
                    (states[0], states[1], states[2]) = (c, n, top);
                }
                job.store(s, at, row, tile, s.mul_f32s(o, s.div_f32s(c, n)));
            }
        }
    }
}
