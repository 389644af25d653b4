//! The activation of a SimpleRNN.

use super::{At, Job, Row, Run};
use core::ops::Range;
use pulp::Simd;
use recurve_tensor::cpu::simd::tanh_ratio;

pub(super) struct Rnn {
    /// Whether the activation is tanh and there are no options.
    pub(super) plain: bool,
}

impl Run for Rnn {
    #[inline(always)]
    fn run<S: Simd>(self, job: &mut Job<'_>, s: S, at: At, band: Range<usize>) {
        for row in 0..job.count {
            if self.plain && job.alive(row, at.time) {
                let Row { sums, input, next, .. } = job.row::<S, 1>(at, row, &band);
                for (([sum], [input]), next) in sums.iter().zip(input).zip(next) {
                    let (p, q) = tanh_ratio(s, s.add_f32s(*sum, *input));
                    *next = s.div_f32s(p, q);
                }
                job.put::<S>(at, row, &band);
                continue;
            }
            for tile in band.clone() {
                let [pre] = job.raw::<S, 1>(&band, row, tile);
                let pre = s.add_f32s(pre, job.input::<S>(at.slot, row, tile, 0, 1));
                let h = job.act(s, job.packed.cell.candidate, pre);
                job.store(s, at, row, tile, h);
            }
        }
    }
}
