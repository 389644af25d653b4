//! Operands that are repeated along dimensions in which others are larger, as NumPy and PyTorch do.

use crate::cpu::threads::prelude::*;
use crate::{MAX_RANK, Shape, cpu};

/// The common shape of operands, and the strides of each under it: 0 along dimensions that it repeats.
pub(crate) struct Broadcast<const N: usize> {
    pub(crate) shape: Shape,
    pub(crate) strides: [[usize; MAX_RANK]; N],
}

impl<const N: usize> Broadcast<N> {
    /// Of these shapes, if they have a common one.
    pub(crate) fn of(shapes: [&Shape; N]) -> Option<Self> {
        let rank = shapes.iter().map(|s| s.rank()).max().unwrap_or(0);
        let mut dims = [1; MAX_RANK];
        let mut strides = [[0; MAX_RANK]; N];
        for (s, strides) in shapes.into_iter().zip(&mut strides) {
            let own = s.strides();
            let skip = rank - s.rank();
            for (d, &size) in s.dims().iter().enumerate() {
                if size != 1 {
                    if dims[skip + d] != 1 && dims[skip + d] != size {
                        return None;
                    }
                    dims[skip + d] = size;
                    strides[skip + d] = own[d];
                }
            }
        }
        Shape::new(&dims[..rank]).map(|shape| Self { shape, strides })
    }

    /// The same as runs of elements.
    pub(crate) fn runs(&self) -> Runs<N> {
        let mut runs = Runs { dims: [(1, [0; N]); MAX_RANK], rank: 0 };
        for d in (0..self.shape.rank()).rev() {
            let size = self.shape[d];
            if size == 1 {
                continue;
            }
            let strides = self.strides.map(|s| s[d]);
            if let Some((inner, within)) = runs.dims[..runs.rank].last_mut()
                && (0..N).all(|n| strides[n] == within[n] * *inner)
            {
                *inner *= size;
                continue;
            }
            runs.dims[runs.rank] = (size, strides);
            runs.rank += 1;
        }
        runs
    }
}

/// Elements in order as runs, in each of which an operand either goes on or repeats one element.
pub(crate) struct Runs<const N: usize> {
    /// Size and strides, innermost first, of dimensions that cannot be taken together.
    dims: [(usize, [usize; N]); MAX_RANK],
    rank: usize,
}

impl<const N: usize> Runs<N> {
    /// How far each operand goes on from one element of a run to the next: 0 or 1.
    pub(crate) fn steps(&self) -> [usize; N] {
        self.dims[0].1
    }

    /// Calls `f` for each run among `len` elements from `start` on: with its place among them, its length and the
    /// offset of its first element in each operand.
    #[inline(always)]
    pub(crate) fn each(&self, start: usize, len: usize, mut f: impl FnMut(usize, usize, [usize; N])) {
        let (inner, steps) = self.dims[0];
        let outer = &self.dims[1..self.rank.max(1)];
        let (mut within, mut rest) = (start % inner, start / inner);
        let mut at = [0; MAX_RANK];
        let mut base = [0; N];
        for ((size, strides), at) in outer.iter().zip(&mut at) {
            *at = rest % size;
            rest /= size;
            base.iter_mut().zip(strides).for_each(|(b, s)| *b += *at * s);
        }
        let mut done = 0;
        while done < len {
            let n = (inner - within).min(len - done);
            f(done, n, core::array::from_fn(|i| base[i] + within * steps[i]));
            done += n;
            within = 0;
            for ((size, strides), at) in outer.iter().zip(&mut at) {
                *at += 1;
                base.iter_mut().zip(strides).for_each(|(b, s)| *b += s);
                if *at < *size {
                    break;
                }
                base.iter_mut().zip(strides).for_each(|(b, s)| *b -= s * size);
                *at = 0;
            }
        }
    }
}

/// Calls `f` with parts of `out` and the place of each, on several threads if `cost` multiply-adds an element are
/// worth them.
pub(crate) fn in_parts(out: &mut [f32], cost: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    let threads = cpu::threads_for(out.len().saturating_mul(cost));
    if threads == 1 {
        return f(0, out);
    }
    let size = out.len().div_ceil(threads).next_multiple_of(16);
    out.par_chunks_mut(size).enumerate().for_each(|(n, part)| f(n * size, part));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs from any element on give the offsets that indices give.
    #[test]
    fn runs_are_what_indices_are() {
        let shapes: [[&[usize]; 3]; 5] = [
            [&[2, 3, 4], &[3, 4], &[]],
            [&[2, 1, 4], &[3, 1], &[1]],
            [&[5], &[1], &[2, 1, 5]],
            [&[], &[], &[]],
            [&[2, 3, 1, 2], &[1, 3, 4, 1], &[2]],
        ];
        for dims in shapes {
            let shapes = dims.map(|d| Shape::new(d).unwrap());
            let common = Broadcast::of(shapes.each_ref()).unwrap();
            let offsets = |e: usize| {
                let mut rest = e;
                let mut offsets = [0; 3];
                for d in (0..common.shape.rank()).rev() {
                    let at = rest % common.shape[d];
                    rest /= common.shape[d];
                    (0..3).for_each(|n| offsets[n] += at * common.strides[n][d]);
                }
                offsets
            };
            let (runs, count) = (common.runs(), common.shape.count());
            let steps = runs.steps();
            for start in 0..count {
                for len in [1, count - start] {
                    let mut seen = 0;
                    runs.each(start, len, |at, n, first| {
                        assert_eq!(at, seen);
                        for e in 0..n {
                            let got: [usize; 3] = core::array::from_fn(|i| first[i] + e * steps[i]);
                            assert_eq!(got, offsets(start + at + e), "{dims:?} from {start}");
                        }
                        seen += n;
                    });
                    assert_eq!(seen, len);
                }
            }
        }
        let s = |d: &[usize]| Shape::new(d).unwrap();
        assert!(Broadcast::of([&s(&[2]), &s(&[3])]).is_none());
        assert_eq!(Broadcast::of([&s(&[2, 1]), &s(&[3])]).unwrap().shape, [2, 3]);
    }
}
