//! Elementwise functions on vectors that are not activations of cells.

use super::simd::{exp, mul_add, sigmoid, simd_arch, slope, tanh};
use crate::{Activation, Decay, Descent};
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

/// `out = dy · f'`, told from v by [`slope`].
pub(crate) fn multiply_slopes(f: Activation, dy: &[f32], v: &[f32], out: &mut [f32]) {
    struct Op<'a>(Activation, &'a [f32], &'a [f32], &'a mut [f32]);
    impl WithSimd for Op<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, s: S) {
            let (dy, dy_tail) = S::as_simd_f32s(self.1);
            let (v, v_tail) = S::as_simd_f32s(self.2);
            let (out, out_tail) = S::as_mut_simd_f32s(self.3);
            for ((o, &dy), &v) in out.iter_mut().zip(dy).zip(v) {
                *o = s.mul_f32s(dy, slope(s, self.0, v));
            }
            if !v_tail.is_empty() {
                let [dy, v] = [dy_tail, v_tail].map(|t| s.partial_load_f32s(t));
                s.partial_store_f32s(out_tail, s.mul_f32s(dy, slope(s, self.0, v)));
            }
        }
    }
    simd_arch().dispatch(Op(f, dy, v, out));
}

/// Steps of an optimiser, of a parameter and its states together.
///
/// # Panics
/// If there are not as many slices as the rule has states, and one.
pub(crate) fn descend(
    rule: Descent,
    decay: Decay,
    rates: &[f32; Descent::RATES],
    gradient: &[f32],
    slices: Vec<&mut [f32]>,
) {
    struct Op<'a, const N: usize>(Descent, Decay, &'a [f32; Descent::RATES], &'a [f32], [&'a mut [f32]; N]);
    impl<const N: usize> WithSimd for Op<'_, N> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, s: S) {
            let Self(rule, decay, rates, gradient, slices) = self;
            let rates = rates.map(|r| s.splat_f32s(r));
            let (g, g_tail) = S::as_simd_f32s(gradient);
            let mut slices = slices.map(S::as_mut_simd_f32s);
            for (n, &g) in g.iter().enumerate() {
                let old: [_; N] = core::array::from_fn(|k| slices[k].0[n]);
                let new = step(s, rule, decay, &rates, g, old);
                slices.iter_mut().zip(new).for_each(|(slice, new)| slice.0[n] = new);
            }
            if !g_tail.is_empty() {
                let old: [_; N] = core::array::from_fn(|k| s.partial_load_f32s(slices[k].1));
                let new = step(s, rule, decay, &rates, s.partial_load_f32s(g_tail), old);
                slices.iter_mut().zip(new).for_each(|(slice, new)| s.partial_store_f32s(slice.1, new));
            }
        }
    }
    fn run<const N: usize>(
        (rule, decay, rates): (Descent, Decay, &[f32; Descent::RATES]),
        gradient: &[f32],
        slices: Vec<&mut [f32]>,
    ) {
        let slices = <[&mut [f32]; N]>::try_from(slices).expect("a slice for each state");
        simd_arch().dispatch(Op(rule, decay, rates, gradient, slices));
    }
    let how = (rule, decay, rates);
    match rule.states() {
        0 => run::<1>(how, gradient, slices),
        1 => run::<2>(how, gradient, slices),
        2 => run::<3>(how, gradient, slices),
        _ => run::<4>(how, gradient, slices),
    }
}

/// One step, of a parameter followed by its states.
#[inline(always)]
fn step<S: Simd, const N: usize>(
    s: S,
    rule: Descent,
    decay: Decay,
    rates: &[S::f32s; Descent::RATES],
    g: S::f32s,
    mut all: [S::f32s; N],
) -> [S::f32s; N] {
    let r = rates;
    let zero = s.splat_f32s(0.0);
    let mul = |a, b| s.mul_f32s(a, b);
    let sum = |a, b, c, d| mul_add(s, a, b, s.mul_f32s(c, d));
    let g = if decay == Decay::Gradient { mul_add(s, all[0], r[0], g) } else { g };
    if decay == Decay::Parameter {
        all[0] = s.sub_f32s(all[0], mul(all[0], r[0]));
    }
    match rule {
        Descent::Gradient { momentum } => {
            let mut change = mul(g, r[4]);
            if momentum {
                all[1] = sum(all[1], r[1], g, r[2]);
                change = mul_add(s, all[1], r[3], change);
            }
            all[0] = s.add_f32s(all[0], change);
        }
        Descent::Root { momentum, centered } => {
            all[1] = sum(all[1], r[1], mul(g, g), r[2]);
            let mut mean = all[1];
            if centered {
                let place = if momentum { 3 } else { 2 };
                all[place] = sum(all[place], r[1], g, r[2]);
                mean = s.sub_f32s(mean, mul(all[place], all[place]));
                mean = s.select_f32s(s.less_than_f32s(mean, zero), zero, mean);
            }
            let root = s.add_f32s(s.sqrt_f32s(s.add_f32s(mean, r[3])), r[4]);
            let mut change = s.div_f32s(mul(g, r[6]), root);
            if momentum {
                all[2] = mul_add(s, all[2], r[5], change);
                change = all[2];
            }
            all[0] = s.sub_f32s(all[0], mul(change, r[7]));
        }
        Descent::Moments { amsgrad } => {
            all[1] = mul_add(s, s.sub_f32s(g, all[1]), r[1], all[1]);
            all[2] = mul_add(s, s.sub_f32s(mul(g, g), all[2]), r[2], all[2]);
            let mut mean = all[2];
            if amsgrad {
                // The new one too where it is NaN.
                mean = s.select_f32s(s.less_than_or_equal_f32s(mean, all[3]), all[3], mean);
                all[3] = mean;
            }
            let root = mul_add(s, s.sqrt_f32s(mean), r[4], r[5]);
            all[0] = s.sub_f32s(all[0], s.div_f32s(mul(all[1], r[3]), root));
        }
        Descent::Sign => {
            let u = sum(all[1], r[1], g, r[2]);
            all[1] = sum(all[1], r[3], g, r[4]);
            let (one, less) = (s.splat_f32s(1.0), s.splat_f32s(-1.0));
            let sign = s.select_f32s(s.less_than_f32s(u, zero), less, u);
            let sign = s.select_f32s(s.greater_than_f32s(u, zero), one, sign);
            all[0] = s.sub_f32s(all[0], mul(r[5], sign));
        }
        _ => all[0] = s.splat_f32s(f32::NAN),
    }
    all
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
            let inner = s.mul_f32s(c(0.797_884_6), mul_add(s, c(0.044_715), cube, x));
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
    let p = mul_add(s, c(1.0 / 5040.0), x, c(1.0 / 720.0));
    let p = mul_add(s, p, x, c(1.0 / 120.0));
    let p = mul_add(s, p, x, c(1.0 / 24.0));
    let p = mul_add(s, p, x, c(1.0 / 6.0));
    let p = mul_add(s, p, x, c(0.5));
    let near = mul_add(s, s.mul_f32s(p, x), x, x);
    s.select_f32s(s.less_than_f32s(s.abs_f32s(x), c(0.5)), near, s.sub_f32s(exp(s, x), c(1.0)))
}

/// The error function, relative error below 2e-7: near zero a polynomial in x², else `1 - e^p` with a polynomial p
/// in |x|. The coefficients are those of N. Juffa.
#[inline(always)]
fn erf<S: Simd>(s: S, x: S::f32s) -> S::f32s {
    let c = |v: f32| s.splat_f32s(v);
    let (t, u) = (s.abs_f32s(x), s.mul_f32s(x, x));
    let near = mul_add(s, c(-5.967_617e-4), u, c(4.991_194_2e-3));
    let near = mul_add(s, near, u, c(-2.676_813_5e-2));
    let near = mul_add(s, near, u, c(1.128_199_25e-1));
    let near = mul_add(s, near, u, c(-3.761_253_4e-1));
    let near = mul_add(s, near, u, c(1.283_791_7e-1));
    let near = mul_add(s, near, x, x);
    // From 4 on it is 1 to all digits.
    let t = s.select_f32s(s.greater_than_f32s(t, c(4.0)), c(4.0), t);
    let u = s.mul_f32s(t, t);
    let low = mul_add(s, c(-3.883_964_4e-3), t, c(2.425_462_2e-2));
    let far = mul_add(s, c(-1.728_534_7e-5), t, c(3.831_971_3e-4));
    let far = mul_add(s, far, u, low);
    let far = mul_add(s, far, t, c(-1.067_778_8e-1));
    let far = mul_add(s, far, t, c(-6.348_467e-1));
    let far = mul_add(s, far, t, c(-1.287_175_1e-1));
    let far = mul_add(s, far, t, s.neg_f32s(t));
    let far = s.sub_f32s(c(1.0), exp(s, far));
    let far = s.select_f32s(s.less_than_f32s(x, c(0.0)), s.neg_f32s(far), far);
    s.select_f32s(s.greater_than_f32s(t, c(0.927_734_4)), far, near)
}
