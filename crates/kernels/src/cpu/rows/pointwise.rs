//! One timestep of the cells whose units do not depend on each other: IndRNN, minGRU and minLSTM.

use super::{At, Job, Run};
use crate::CellKind;
use core::ops::Range;
use pulp::Simd;
use recurve_tensor::cpu::simd::mul_add;

pub(super) struct Pointwise;

impl Run for Pointwise {
    #[inline(always)]
    fn run<S: Simd>(self, job: &mut Job<'_>, s: S, at: At, band: Range<usize>) {
        let p = job.packed;
        for row in 0..job.count {
            for tile in band.clone() {
                let old = S::as_simd_f32s(job.rows.h).0[row * p.tiles + tile];
                let h = match p.kind {
                    CellKind::IndRnn => {
                        let u = S::as_simd_f32s(p.extra()).0[tile];
                        let pre = mul_add(s, u, old, job.input::<S>(at.slot, row, tile, 0, 1));
                        job.act(s, p.cell.candidate, pre)
                    }
                    CellKind::MinGru => {
                        let z = job.act(s, p.cell.gates[0], job.input::<S>(at.slot, row, tile, 0, 2));
                        let n = job.act(s, p.cell.candidate, job.input::<S>(at.slot, row, tile, 1, 2));
                        mul_add(s, s.sub_f32s(s.splat_f32s(1.0), z), old, s.mul_f32s(z, n))
                    }
                    _ => {
                        let f = job.act(s, p.cell.gates[0], job.input::<S>(at.slot, row, tile, 0, 3));
                        let i = job.act(s, p.cell.gates[1], job.input::<S>(at.slot, row, tile, 1, 3));
                        let n = job.act(s, p.cell.candidate, job.input::<S>(at.slot, row, tile, 2, 3));
                        // If both gates round to 0, the quotient must not be NaN. Done by comparing and selecting, so
                        // that a NaN in the input stays NaN.
                        let least = s.splat_f32s(1e-37);
                        let sum = s.add_f32s(f, i);
                        let sum = s.select_f32s(s.less_than_f32s(sum, least), least, sum);
                        s.div_f32s(mul_add(s, f, old, s.mul_f32s(i, n)), sum)
                    }
                };
                job.store(s, at, row, tile, h);
            }
        }
    }
}
