//! Elementwise functions on vectors that are not activations of cells.

use super::simd::{exp, sigmoid, simd_arch, tanh};
use core::f32::consts::FRAC_1_SQRT_2;
use pulp::{Simd, WithSimd};

/// A function that is computed on vectors.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Vectors {
    Erf,
    Exp,
    /// `above · x` if `x > 0`, else `below (e^(inner x) - 1)`
    ExpBelow {
        inner: f32,
        below: f32,
        above: f32,
    },
    Gelu,
    GeluTanh,
    Mish,
    Swish {
        alpha: f32,
    },
}

/// `out = f(x)`, elementwise.
pub(crate) fn map(f: Vectors, x: &[f32], out: &mut [f32]) {
    struct Op<'a>(Vectors, &'a [f32], &'a mut [f32]);
    impl WithSimd for Op<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, s: S) {
            let (x, x_tail) = S::as_simd_f32s(self.1);
            let (out, out_tail) = S::as_mut_simd_f32s(self.2);
            for (o, &x) in out.iter_mut().zip(x) {
                *o = apply(s, self.0, x);
            }
            if !x_tail.is_empty() {
                s.partial_store_f32s(out_tail, apply(s, self.0, s.partial_load_f32s(x_tail)));
            }
        }
    }
    simd_arch().dispatch(Op(f, x, out));
}

#[inline(always)]
fn apply<S: Simd>(s: S, f: Vectors, x: S::f32s) -> S::f32s {
    let c = |v: f32| s.splat_f32s(v);
    match f {
        Vectors::Erf => erf(s, x),
        Vectors::Exp => exp(s, x),
        Vectors::ExpBelow { inner, below, above } => {
            let low = s.mul_f32s(c(below), exp_m1(s, s.mul_f32s(c(inner), x)));
            s.select_f32s(s.greater_than_f32s(x, c(0.0)), s.mul_f32s(c(above), x), low)
        }
        Vectors::Gelu => {
            let v = s.mul_f32s(c(0.5), s.add_f32s(c(1.0), erf(s, s.mul_f32s(x, c(FRAC_1_SQRT_2)))));
            s.mul_f32s(x, v)
        }
        Vectors::GeluTanh => {
            let cube = s.mul_f32s(s.mul_f32s(x, x), x);
            let inner = s.mul_f32s(c(0.797_884_6), s.mul_add_f32s(c(0.044_715), cube, x));
            s.mul_f32s(x, s.mul_f32s(c(0.5), s.add_f32s(c(1.0), tanh(s, inner))))
        }
        Vectors::Mish => {
            // tanh(ln(1 + e)) = n / (n + 2), n = e (e + 2); x itself where e is large.
            let e = exp(s, s.select_f32s(s.greater_than_f32s(x, c(20.0)), c(20.0), x));
            let n = s.mul_f32s(e, s.add_f32s(e, c(2.0)));
            s.mul_f32s(x, s.div_f32s(n, s.add_f32s(n, c(2.0))))
        }
        Vectors::Swish { alpha } => s.mul_f32s(x, sigmoid(s, s.mul_f32s(c(alpha), x))),
    }
}

/// `e^x - 1`, near zero by its series.
#[inline(always)]
fn exp_m1<S: Simd>(s: S, x: S::f32s) -> S::f32s {
    let c = |v: f32| s.splat_f32s(v);
    let p = s.mul_add_f32s(c(1.0 / 5040.0), x, c(1.0 / 720.0));
    let p = s.mul_add_f32s(p, x, c(1.0 / 120.0));
    let p = s.mul_add_f32s(p, x, c(1.0 / 24.0));
    let p = s.mul_add_f32s(p, x, c(1.0 / 6.0));
    let p = s.mul_add_f32s(p, x, c(0.5));
    let near = s.mul_add_f32s(s.mul_f32s(p, x), x, x);
    s.select_f32s(s.less_than_f32s(s.abs_f32s(x), c(0.5)), near, s.sub_f32s(exp(s, x), c(1.0)))
}

/// The error function, relative error below 2e-7: near zero a polynomial in x², else `1 - e^p` with a polynomial p
/// in |x|. The coefficients are those of N. Juffa.
#[inline(always)]
fn erf<S: Simd>(s: S, x: S::f32s) -> S::f32s {
    let c = |v: f32| s.splat_f32s(v);
    let (t, u) = (s.abs_f32s(x), s.mul_f32s(x, x));
    let near = s.mul_add_f32s(c(-5.967_617e-4), u, c(4.991_194_2e-3));
    let near = s.mul_add_f32s(near, u, c(-2.676_813_5e-2));
    let near = s.mul_add_f32s(near, u, c(1.128_199_25e-1));
    let near = s.mul_add_f32s(near, u, c(-3.761_253_4e-1));
    let near = s.mul_add_f32s(near, u, c(1.283_791_7e-1));
    let near = s.mul_add_f32s(near, x, x);
    // From 4 on it is 1 to all digits.
    let t = s.select_f32s(s.greater_than_f32s(t, c(4.0)), c(4.0), t);
    let u = s.mul_f32s(t, t);
    let low = s.mul_add_f32s(c(-3.883_964_4e-3), t, c(2.425_462_2e-2));
    let far = s.mul_add_f32s(c(-1.728_534_7e-5), t, c(3.831_971_3e-4));
    let far = s.mul_add_f32s(far, u, low);
    let far = s.mul_add_f32s(far, t, c(-1.067_778_8e-1));
    let far = s.mul_add_f32s(far, t, c(-6.348_467e-1));
    let far = s.mul_add_f32s(far, t, c(-1.287_175_1e-1));
    let far = s.mul_add_f32s(far, t, s.neg_f32s(t));
    let far = s.sub_f32s(c(1.0), exp(s, far));
    let far = s.select_f32s(s.less_than_f32s(x, c(0.0)), s.neg_f32s(far), far);
    s.select_f32s(s.greater_than_f32s(t, c(0.927_734_4)), far, near)
}
