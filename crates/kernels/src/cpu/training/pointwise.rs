//! The arithmetic within units of cells without options, on vectors.
//!
//! No vector arithmetic is written inside closures: a closure that is not inlined is compiled without the vector
//! instructions of the function around it.

use pulp::{Simd, WithSimd};
use recurve_tensor::cpu::simd::{mul_add, tanh_ratio};

/// Arithmetic within a unit: `I` values of each are read, and `O` are changed.
pub(super) trait Pointwise<const I: usize, const O: usize> {
    fn apply<S: Simd>(&self, s: S, x: [S::f32s; I], out: [S::f32s; O]) -> [S::f32s; O];
}

/// Applies `f` to the units of a row; all slices are of one length. In a function that is not inlined, as the sums are,
/// so that the compiler does not have to share registers between both.
#[inline(never)]
pub(super) fn each<S: Simd, const I: usize, const O: usize>(
    s: S,
    f: &impl Pointwise<I, O>,
    x: [&[f32]; I],
    out: [&mut [f32]; O],
) {
    s.vectorize(Each { f, x, out });
}

struct Each<'a, F, const I: usize, const O: usize> {
    f: &'a F,
    x: [&'a [f32]; I],
    out: [&'a mut [f32]; O],
}

impl<F: Pointwise<I, O>, const I: usize, const O: usize> WithSimd for Each<'_, F, I, O> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let zero = s.splat_f32s(0.0);
        let full = self.out[0].len() / S::F32_LANES;
        let at = full * S::F32_LANES;
        let x_heads: [&[S::f32s]; I] = self.x.map(|x| &S::as_simd_f32s(x).0[..full]);
        let out = self.out.map(|out| out.split_at_mut(at));
        let (mut heads, mut tails): ([&mut [S::f32s]; O], [&mut [f32]; O]) =
            ([(); O].map(|()| Default::default()), [(); O].map(|()| Default::default()));
        for (n, (head, tail)) in out.into_iter().enumerate() {
            heads[n] = &mut S::as_mut_simd_f32s(head).0[..full];
            tails[n] = tail;
        }
        for t in 0..full {
            let (mut x, mut old) = ([zero; I], [zero; O]);
            for n in 0..I {
                x[n] = x_heads[n][t];
            }
            for n in 0..O {
                old[n] = heads[n][t];
            }
            let new = self.f.apply(s, x, old);
            for n in 0..O {
                heads[n][t] = new[n];
            }
        }
        if tails[0].is_empty() {
            return;
        }
        let (mut x, mut old) = ([zero; I], [zero; O]);
        for n in 0..I {
            x[n] = s.partial_load_f32s(&self.x[n][at..]);
        }
        for n in 0..O {
            old[n] = s.partial_load_f32s(tails[n]);
        }
        let new = self.f.apply(s, x, old);
        for n in 0..O {
            s.partial_store_f32s(tails[n], new[n]);
        }
    }
}

#[inline(always)]
fn sigmoid<S: Simd>(s: S, x: S::f32s) -> S::f32s {
    let half = s.splat_f32s(0.5);
    let (p, q) = tanh_ratio(s, s.mul_f32s(half, x));
    s.div_f32s(s.mul_f32s(half, s.add_f32s(q, p)), q)
}

#[inline(always)]
fn tanh<S: Simd>(s: S, x: S::f32s) -> S::f32s {
    let (p, q) = tanh_ratio(s, x);
    s.div_f32s(p, q)
}

/// A gradient, or 0 if it is below 1e-30. Gradients that vanish over many timesteps would become subnormal numbers, with
/// which processors compute many times slower.
#[inline(always)]
fn flushed<S: Simd>(s: S, d: S::f32s) -> S::f32s {
    s.select_f32s(s.less_than_f32s(s.abs_f32s(d), s.splat_f32s(1e-30)), s.splat_f32s(0.0), d)
}

/// `d y (1 - y)`: back through a sigmoid with value y.
#[inline(always)]
fn by_sigmoid<S: Simd>(s: S, d: S::f32s, y: S::f32s) -> S::f32s {
    s.mul_f32s(s.mul_f32s(d, y), s.sub_f32s(s.splat_f32s(1.0), y))
}

/// `d (1 - y²)`: back through a tanh with value y.
#[inline(always)]
fn by_tanh<S: Simd>(s: S, d: S::f32s, y: S::f32s) -> S::f32s {
    s.mul_f32s(d, s.sub_f32s(s.splat_f32s(1.0), s.mul_f32s(y, y)))
}

/// Reads the recurrent sum; changes the projected input to h, which stands in two places.
pub(super) struct RnnForward;

impl Pointwise<1, 2> for RnnForward {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [raw]: [S::f32s; 1], [input, _]: [S::f32s; 2]) -> [S::f32s; 2] {
        let h = tanh(s, s.add_f32s(raw, input));
        [h, h]
    }
}

/// Reads h and what comes back to it in three parts; writes the gradient of its sum.
pub(super) struct RnnBackward;

impl Pointwise<4, 1> for RnnBackward {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [h, a, b, c]: [S::f32s; 4], _: [S::f32s; 1]) -> [S::f32s; 1] {
        [by_tanh(s, flushed(s, s.add_f32s(s.add_f32s(a, b), c)), h)]
    }
}

/// Reads four recurrent sums and c; changes four projected inputs to gates, and writes c and h.
pub(super) struct LstmForward;

impl Pointwise<5, 6> for LstmForward {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [ri, rf, rg, ro, c]: [S::f32s; 5], [i, f, g, o, ..]: [S::f32s; 6]) -> [S::f32s; 6] {
        let i = sigmoid(s, s.add_f32s(i, ri));
        let f = sigmoid(s, s.add_f32s(f, rf));
        let g = tanh(s, s.add_f32s(g, rg));
        let o = sigmoid(s, s.add_f32s(o, ro));
        let c = mul_add(s, f, c, s.mul_f32s(i, g));
        [i, f, g, o, c, s.mul_f32s(o, tanh(s, c))]
    }
}

/// Reads four gates, c before and after, and what comes back to h in three parts; writes the gradients of the four sums
/// and changes that of the new c to that of the old one.
pub(super) struct LstmBackward;

impl Pointwise<9, 5> for LstmBackward {
    #[inline(always)]
    fn apply<S: Simd>(
        &self,
        s: S,
        [i, f, g, o, old, c, a, b, d]: [S::f32s; 9],
        [.., dc]: [S::f32s; 5],
    ) -> [S::f32s; 5] {
        let dh = flushed(s, s.add_f32s(s.add_f32s(a, b), d));
        let t = tanh(s, c);
        let dc = flushed(s, s.add_f32s(dc, by_tanh(s, s.mul_f32s(dh, o), t)));
        let di = by_sigmoid(s, s.mul_f32s(dc, g), i);
        let df = by_sigmoid(s, s.mul_f32s(dc, old), f);
        let dg = by_tanh(s, s.mul_f32s(dc, i), g);
        let d_o = by_sigmoid(s, s.mul_f32s(dh, t), o);
        [di, df, dg, d_o, s.mul_f32s(dc, f)]
    }
}

/// Reads three projected inputs, three recurrent sums, the candidate's recurrent bias and h; writes r, z, n, the
/// candidate's recurrent sum and the new h.
pub(super) struct GruForward;

impl Pointwise<8, 5> for GruForward {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [r, z, n, rr, rz, rn, bias, h]: [S::f32s; 8], _: [S::f32s; 5]) -> [S::f32s; 5] {
        let r = sigmoid(s, s.add_f32s(r, rr));
        let z = sigmoid(s, s.add_f32s(z, rz));
        let q = s.add_f32s(rn, bias);
        let n = tanh(s, mul_add(s, r, q, n));
        let h = mul_add(s, z, h, s.mul_f32s(s.sub_f32s(s.splat_f32s(1.0), z), n));
        [r, z, n, q, h]
    }
}

/// Reads r, z, n, the candidate's recurrent sum, the old h, and what comes back to the new one in two parts; writes the
/// gradients of the sums of r, z and n, and of the recurrent sums of r, z and n, and changes the third part of what
/// comes back to what the old h gets without a product.
pub(super) struct GruBackward;

impl Pointwise<7, 8> for GruBackward {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [r, z, n, q, h, a, b]: [S::f32s; 7], [.., c]: [S::f32s; 8]) -> [S::f32s; 8] {
        let dh = flushed(s, s.add_f32s(s.add_f32s(a, b), c));
        let dn = by_tanh(s, s.mul_f32s(dh, s.sub_f32s(s.splat_f32s(1.0), z)), n);
        let dz = by_sigmoid(s, s.mul_f32s(dh, s.sub_f32s(h, n)), z);
        let dr = by_sigmoid(s, s.mul_f32s(dn, q), r);
        let dq = s.mul_f32s(dn, r);
        [dr, dz, dn, dq, dr, dz, dq, s.mul_f32s(dh, z)]
    }
}

/// Reset gate before the product. Reads the recurrent sums of r and z, and h; changes the projected inputs to r and z,
/// and writes `r ∘ h`.
pub(super) struct ResetForward;

impl Pointwise<3, 3> for ResetForward {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [rr, rz, h]: [S::f32s; 3], [r, z, _]: [S::f32s; 3]) -> [S::f32s; 3] {
        let r = sigmoid(s, s.add_f32s(r, rr));
        [r, sigmoid(s, s.add_f32s(z, rz)), s.mul_f32s(r, h)]
    }
}

/// Reads the candidate's recurrent sum, z and h; changes the projected input to n and writes the new h.
pub(super) struct CandidateForward;

impl Pointwise<3, 2> for CandidateForward {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [raw, z, h]: [S::f32s; 3], [n, _]: [S::f32s; 2]) -> [S::f32s; 2] {
        let n = tanh(s, s.add_f32s(n, raw));
        [n, mul_add(s, z, h, s.mul_f32s(s.sub_f32s(s.splat_f32s(1.0), z), n))]
    }
}

/// Reads z, n, the old h and what comes back to the new one in two parts; writes the gradients of the sums of z and n,
/// and changes the third part as [`GruBackward`] does.
pub(super) struct CandidateBackward;

impl Pointwise<5, 3> for CandidateBackward {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [z, n, h, a, b]: [S::f32s; 5], [.., c]: [S::f32s; 3]) -> [S::f32s; 3] {
        let dh = flushed(s, s.add_f32s(s.add_f32s(a, b), c));
        let dn = by_tanh(s, s.mul_f32s(dh, s.sub_f32s(s.splat_f32s(1.0), z)), n);
        let dz = by_sigmoid(s, s.mul_f32s(dh, s.sub_f32s(h, n)), z);
        [dz, dn, s.mul_f32s(dh, z)]
    }
}

/// Reads r, the old h and the gradient of `r ∘ h`; writes the gradient of the sum of r and `r ∘ h`, and adds to what the
/// old h gets without a product.
pub(super) struct ResetBackward;

impl Pointwise<3, 3> for ResetBackward {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, [r, h, d]: [S::f32s; 3], [_, _, direct]: [S::f32s; 3]) -> [S::f32s; 3] {
        [by_sigmoid(s, s.mul_f32s(d, h), r), s.mul_f32s(r, h), mul_add(s, d, r, direct)]
    }
}
