//! Vector instructions: choosing them, and activation functions on vectors. All `unsafe` code of this crate's CPU part
//! is here.

use super::Gemm;
#[cfg(doc)]
use crate::bounds;
use crate::{Activation, Error, Result};
use pulp::{Arch, Simd, WithSimd};
use std::ffi::OsStr;
use std::sync::LazyLock;

/// The vector instructions that `RECURVE_SIMD` names; the widest available if it is unset or empty.
fn choice(text: Option<&OsStr>) -> Result<Arch> {
    let Some(text) = text.filter(|t| !t.is_empty()) else { return Ok(Arch::new()) };
    let choices = choices();
    let found = choices.iter().find(|(name, _)| text == *name);
    found.map(|(_, arch)| *arch).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        let shown: String = text.to_string_lossy().chars().take(40).collect();
        Error::Argument {
            operation: "environment",
            argument: "RECURVE_SIMD",
            message: format!("is `{shown}`, but this processor can do {}", names.join(", ")),
        }
    })
}

/// The vector instructions of this processor, by their names in `RECURVE_SIMD`.
fn choices() -> Vec<(&'static str, Arch)> {
    #[cfg_attr(
        not(any(target_arch = "x86_64", target_arch = "aarch64")),
        expect(unused_mut, reason = "other processors have nothing else")
    )]
    let mut all = vec![("scalar", Arch::Scalar)];
    #[cfg(target_arch = "x86_64")]
    {
        all.extend(pulp::x86::V3::try_new().map(|v| ("avx2", Arch::V3(v))));
        all.extend(pulp::x86::V4::try_new().map(|v| ("avx512", Arch::V4(v))));
    }
    #[cfg(target_arch = "aarch64")]
    if !matches!(Arch::new(), Arch::Scalar) {
        all.push(("neon", Arch::new()));
    }
    all
}

static CHOICE: LazyLock<Result<Arch>> = LazyLock::new(|| choice(std::env::var_os("RECURVE_SIMD").as_deref()));

/// The vector instructions in use: those that the environment variable `RECURVE_SIMD` names (`avx512`, `avx2`, `neon`
/// or `scalar`), else the widest of the processor. If the name is invalid, [`check_simd`] returns an error and nothing
/// is computed on the CPU.
#[cfg(not(target_arch = "wasm32"))]
pub fn simd_arch() -> Arch {
    CHOICE.as_ref().map_or_else(|_| Arch::new(), |arch| *arch)
}

/// The vector instructions that a module for browsers is compiled for. There is nothing to choose: a module with
/// instructions that a browser lacks cannot be loaded there at all.
#[cfg(target_arch = "wasm32")]
pub fn simd_arch() -> Compiled {
    Compiled
}

/// See [`simd_arch`].
#[cfg(target_arch = "wasm32")]
#[derive(Clone, Copy, Debug)]
pub struct Compiled;

#[cfg(target_arch = "wasm32")]
impl Compiled {
    /// Runs an operation with these instructions.
    #[inline(always)]
    pub fn dispatch<Op: WithSimd>(self, op: Op) -> Op::Output {
        // SAFETY: the module as a whole is compiled for these instructions, so where it runs there are these.
        #[cfg(all(feature = "relaxed-simd", target_feature = "relaxed-simd"))]
        let simd = unsafe { pulp::wasm::RelaxedSimd::new_unchecked() };
        // SAFETY: as above.
        #[cfg(all(not(feature = "relaxed-simd"), target_feature = "simd128"))]
        let simd = unsafe { pulp::wasm::Simd128::new_unchecked() };
        #[cfg(not(any(
            all(feature = "relaxed-simd", target_feature = "relaxed-simd"),
            all(not(feature = "relaxed-simd"), target_feature = "simd128")
        )))]
        let simd = pulp::Scalar;
        Simd::vectorize(simd, op)
    }
}

/// Checks that `RECURVE_SIMD` names vector instructions of this processor. Making a tensor on the CPU calls this.
///
/// # Errors
/// [`Error::Argument`] if it does not.
pub fn check_simd() -> Result<()> {
    CHOICE.as_ref().map(|_| ()).map_err(Clone::clone)
}

/// Number of f32 elements in a vector register of [`simd_arch`].
pub fn simd_lanes() -> usize {
    simd_arch().dispatch(Lanes)
}

struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

/// The name of [`simd_arch`].
pub fn simd_name() -> &'static str {
    match (simd_lanes(), cfg!(target_arch = "x86_64")) {
        (16, _) => "AVX-512",
        (8, _) => "AVX2",
        (4, true) => "SSE",
        (4, false) if cfg!(target_feature = "relaxed-simd") => "WebAssembly SIMD, relaxed",
        (4, false) if cfg!(target_arch = "wasm32") => "WebAssembly SIMD",
        (4, false) => "NEON",
        _ => "scalar",
    }
}

pub(super) fn gemm(g: &Gemm<'_>, c: &mut [f32], parallelism: gemm_common::Parallelism) {
    let [ars, acs, brs, bcs, crs] = [g.a.1, g.a.2, g.b.1, g.b.2, g.c_row].map(|s| s as isize);
    // SAFETY: `gemm` above has checked that every element addressed by these sizes and strides
    // lies inside its slice, and `c` is borrowed mutably, so it overlaps neither operand.
    unsafe {
        gemm_f32::gemm::f32::get_gemm_fn()(
            g.m,
            g.n,
            g.k,
            c.as_mut_ptr(),
            1,
            crs,
            g.accumulate,
            g.a.0.as_ptr(),
            acs,
            ars,
            g.b.0.as_ptr(),
            bcs,
            brs,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// Converts four f16, given as their bits, to f32; exact.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub fn widen_f16(_: pulp::aarch64::Neon, v: [u16; 4]) -> core::arch::aarch64::float32x4_t {
    let v: core::arch::aarch64::uint16x4_t = bytemuck::cast(v);
    let wide;
    // Rust's intrinsic for this instruction needs a newer compiler than this crate requires.
    // SAFETY: a `Neon` value exists only where the CPU has NEON, which includes this instruction. It reads one register
    // and writes another, and does nothing else.
    unsafe {
        core::arch::asm!(
            "fcvtl {0:v}.4s, {1:v}.4h",
            lateout(vreg) wide,
            in(vreg) v,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    wide
}

/// `a · b + c`, rounded once where the processor has an instruction for it. A browser has one only with relaxed SIMD;
/// elsewhere a single rounding is computed, which is slow there.
#[inline(always)]
pub fn mul_add<S: Simd>(s: S, a: S::f32s, b: S::f32s, c: S::f32s) -> S::f32s {
    if cfg!(target_arch = "wasm32") { s.mul_add_e_f32s(a, b, c) } else { s.mul_add_f32s(a, b, c) }
}

/// `e^x` on a vector. Valid for every x; relative error below [`bounds::EXP_RELATIVE`] where the result is
/// normal; 0 below -87.3, infinity above 88.37, NaN for NaN.
#[inline(always)]
pub fn exp<S: Simd>(s: S, x: S::f32s) -> S::f32s {
    let c = |v: f32| s.splat_f32s(v);
    // Clamped by comparing and selecting instead of min and max, whose result for NaN differs between processors.
    let high = s.greater_than_f32s(x, c(88.37));
    let low = s.less_than_f32s(x, c(-87.3));
    let v = s.select_f32s(high, c(88.0), x);
    let v = s.select_f32s(low, c(-87.0), v);
    // x = n ln 2 + r: n rounded to the nearest integer by adding and subtracting 1.5 · 2^23.
    let magic = c(12_582_912.0);
    let shifted = mul_add(s, v, c(core::f32::consts::LOG2_E), magic);
    let n = s.sub_f32s(shifted, magic);
    let r = mul_add(s, n, c(-0.693_359_4), v);
    let r = mul_add(s, n, c(2.121_944_4e-4), r);
    // Taylor to r^7 / 7! on |r| <= ln(2) / 2, truncation error below 6e-9 relative.
    let p = c(1.0 / 5040.0);
    let p = mul_add(s, p, r, c(1.0 / 720.0));
    let p = mul_add(s, p, r, c(1.0 / 120.0));
    let p = mul_add(s, p, r, c(1.0 / 24.0));
    let p = mul_add(s, p, r, c(1.0 / 6.0));
    let p = mul_add(s, p, r, c(0.5));
    let p = mul_add(s, p, r, c(1.0));
    let p = mul_add(s, p, r, c(1.0));
    // 2^n: the low bits of `shifted` are n; shifted into the exponent, they multiply p by 2^n.
    let bits = s.transmute_u32s_f32s(shifted);
    let bits = s.add_u32s(bits, s.splat_u32s(127));
    let scale = s.transmute_f32s_u32s(s.wrapping_dyn_shl_u32s(bits, s.splat_u32s(23)));
    let e = s.mul_f32s(p, scale);
    let e = s.select_f32s(high, c(f32::INFINITY), e);
    s.select_f32s(low, c(0.0), e)
}

/// `1 / (1 + e^-x)`, absolute error below [`bounds::SIGMOID`].
#[inline(always)]
pub fn sigmoid<S: Simd>(s: S, x: S::f32s) -> S::f32s {
    let one = s.splat_f32s(1.0);
    s.div_f32s(one, s.add_f32s(one, exp(s, s.neg_f32s(x))))
}

/// `tanh(x)`, absolute error below [`bounds::TANH`], within [-1, 1].
#[inline(always)]
pub fn tanh<S: Simd>(s: S, x: S::f32s) -> S::f32s {
    let one = s.splat_f32s(1.0);
    // 1 - 2 / (e^2x + 1), which is right also where e^2x is infinite or zero.
    let e = exp(s, s.add_f32s(x, x));
    s.sub_f32s(one, s.div_f32s(s.splat_f32s(2.0), s.add_f32s(e, one)))
}

/// `ln(sigmoid(x))`, valid for every x; relative error below [`bounds::LOG_SIGMOID`] where the result is normal.
/// NaN for NaN.
#[inline(always)]
pub fn log_sigmoid<S: Simd>(s: S, x: S::f32s) -> S::f32s {
    let c = |v: f32| s.splat_f32s(v);
    // min(x, 0) - ln(1 + e) with e = e^-|x|. With v = e / (2 + e), which is at most 1/3, the logarithm is 2 artanh(v),
    // computed by its series up to v^13; truncation error below 2e-8 relative.
    let e = exp(s, s.neg_f32s(s.abs_f32s(x)));
    let v = s.div_f32s(e, s.add_f32s(c(2.0), e));
    let u = s.mul_f32s(v, v);
    let p = c(2.0 / 13.0);
    let p = mul_add(s, p, u, c(2.0 / 11.0));
    let p = mul_add(s, p, u, c(2.0 / 9.0));
    let p = mul_add(s, p, u, c(2.0 / 7.0));
    let p = mul_add(s, p, u, c(2.0 / 5.0));
    let p = mul_add(s, p, u, c(2.0 / 3.0));
    let p = mul_add(s, p, u, c(2.0));
    let below = s.select_f32s(s.less_than_f32s(x, c(0.0)), x, c(0.0));
    s.sub_f32s(below, s.mul_f32s(p, v))
}

/// `tanh(x)` as a numerator and denominator `(p, q)`, so that a product of gates needs one division. The error of `p /
/// q` is below [`bounds::RATIO_TANH`]; `(q + p) / 2q` is `sigmoid(2x)` with an error below [`bounds::RATIO_SIGMOID`],
/// and the product of a sigmoid and a tanh over a common denominator has an error below [`bounds::RATIO_PRODUCT`]. q is
/// between 1 and 256, |p| is at most q and equals q for |x| ≥ 8.1, so that tanh reaches ±1 and sigmoid 0 and 1 exactly.
/// NaN for NaN.
///
/// p and q are polynomials of degree 4 in x², with the smallest relative error of their quotient over |x| ≤ 8.1 (2e-8,
/// less than rounding causes). Their last bits were chosen among a thousand neighbouring polynomials for the smallest
/// error over every f32. x is clamped to ±8.1, where p first reaches q; tanh differs from ±1 by 2e-7 there.
#[inline(always)]
pub fn tanh_ratio<S: Simd>(s: S, x: S::f32s) -> (S::f32s, S::f32s) {
    const END: f32 = 8.097_313;
    let c = |v: f32| s.splat_f32s(v);
    let x = if S::IS_SCALAR {
        // Scalar min and max would return the number instead of the NaN.
        let x = s.select_f32s(s.greater_than_f32s(x, c(END)), c(END), x);
        s.select_f32s(s.less_than_f32s(x, c(-END)), c(-END), x)
    } else {
        // NaN stays NaN: with a NaN operand, x86 returns the second operand, other processors return the NaN.
        s.max_f32s(c(-END), s.min_f32s(c(END), x))
    };
    let u = s.mul_f32s(x, x);
    let p = mul_add(s, c(1.503_480_2e-8), u, c(2.176_615e-5));
    let q = mul_add(s, c(8.446_478e-7), u, c(3.398_903_6e-4));
    let p = mul_add(s, p, u, c(3.564_172_4e-3));
    let q = mul_add(s, q, u, c(2.613_649_9e-2));
    let p = mul_add(s, p, u, c(1.343_834e-1));
    let q = mul_add(s, q, u, c(4.677_166_6e-1));
    let p = mul_add(s, p, u, c(1.0));
    let q = mul_add(s, q, u, c(1.0));
    (s.mul_f32s(p, x), q)
}

/// An activation function on a vector. Sigmoid, tanh and those built on `e^x` use [`exp`]; the others are exact up to
/// rounding. Softplus is computed element by element.
#[inline(always)]
pub fn activate<S: Simd>(s: S, f: Activation, x: S::f32s) -> S::f32s {
    let c = |v: f32| s.splat_f32s(v);
    let zero = c(0.0);
    match f {
        Activation::Linear => x,
        Activation::Sigmoid => sigmoid(s, x),
        Activation::Tanh => tanh(s, x),
        Activation::Relu => s.select_f32s(s.less_than_f32s(x, zero), zero, x),
        Activation::HardSigmoid { alpha, beta } => {
            let v = mul_add(s, c(alpha), x, c(beta));
            let v = s.select_f32s(s.less_than_f32s(v, zero), zero, v);
            s.select_f32s(s.greater_than_f32s(v, c(1.0)), c(1.0), v)
        }
        Activation::Affine { alpha, beta } => mul_add(s, c(alpha), x, c(beta)),
        Activation::LeakyRelu { alpha } => s.select_f32s(s.less_than_f32s(x, zero), s.mul_f32s(c(alpha), x), x),
        Activation::ThresholdedRelu { alpha } => s.select_f32s(s.less_than_or_equal_f32s(x, c(alpha)), zero, x),
        Activation::ScaledTanh { alpha, beta } => s.mul_f32s(c(alpha), tanh(s, s.mul_f32s(c(beta), x))),
        Activation::Elu { alpha } => {
            let below = s.mul_f32s(c(alpha), s.sub_f32s(exp(s, x), c(1.0)));
            s.select_f32s(s.less_than_f32s(x, zero), below, x)
        }
        Activation::Positive => s.select_f32s(s.less_than_f32s(x, zero), sigmoid(s, x), s.add_f32s(x, c(0.5))),
        Activation::Softsign => s.div_f32s(x, s.add_f32s(c(1.0), s.abs_f32s(x))),
        Activation::Softplus => {
            let mut lanes = [0.0f32; 16];
            let lanes = &mut lanes[..S::F32_LANES];
            s.partial_store_f32s(lanes, x);
            for v in lanes.iter_mut() {
                // ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|), which does not overflow.
                let tail = (-v.abs()).exp().ln_1p();
                *v = if *v > 0.0 { *v + tail } else { tail };
            }
            s.partial_load_f32s(lanes)
        }
        // A function without a definition here gives NaN, never the result of another function.
        _ => c(f32::NAN),
    }
}

/// The derivative of a function, told from its result v, or from its input if [`Activation::slope_needs_input`]. NaN
/// where v is NaN.
#[inline(always)]
pub fn slope<S: Simd>(s: S, f: Activation, v: S::f32s) -> S::f32s {
    let c = |v: f32| s.splat_f32s(v);
    let above = |limit: f32, then: S::f32s, or: S::f32s| s.select_f32s(s.greater_than_f32s(v, c(limit)), then, or);
    let d = match f {
        Activation::Linear => c(1.0),
        Activation::Sigmoid => s.mul_f32s(v, s.sub_f32s(c(1.0), v)),
        Activation::Tanh => s.sub_f32s(c(1.0), s.mul_f32s(v, v)),
        Activation::Relu => above(0.0, c(1.0), c(0.0)),
        Activation::HardSigmoid { alpha, .. } => {
            above(0.0, s.select_f32s(s.less_than_f32s(v, c(1.0)), c(alpha), c(0.0)), c(0.0))
        }
        Activation::Affine { alpha, .. } => c(alpha),
        Activation::LeakyRelu { alpha } => above(0.0, c(1.0), c(alpha)),
        Activation::ThresholdedRelu { alpha } => above(alpha.min(0.0), c(1.0), c(0.0)),
        Activation::ScaledTanh { alpha: 0.0, .. } => c(0.0),
        Activation::ScaledTanh { alpha, beta } => {
            s.mul_f32s(c(beta), s.sub_f32s(c(alpha), s.div_f32s(s.mul_f32s(v, v), c(alpha))))
        }
        Activation::Elu { alpha } if alpha < 0.0 => above(0.0, c(1.0), s.mul_f32s(c(alpha), exp(s, v))),
        Activation::Elu { alpha } => above(0.0, c(1.0), s.add_f32s(v, c(alpha))),
        Activation::Softsign => {
            let rest = s.sub_f32s(c(1.0), s.abs_f32s(v));
            s.mul_f32s(rest, rest)
        }
        Activation::Softplus => s.sub_f32s(c(1.0), exp(s, s.neg_f32s(v))),
        Activation::Positive => {
            let below = s.mul_f32s(v, s.sub_f32s(c(1.0), v));
            s.select_f32s(s.less_than_f32s(v, c(0.5)), below, c(1.0))
        }
        _ => c(f32::NAN),
    };
    s.select_f32s(s.equal_f32s(v, v), d, v)
}

/// `out = f(out)`, elementwise.
pub fn activate_slice(f: Activation, out: &mut [f32]) {
    struct Op<'a>(Activation, &'a mut [f32]);
    impl WithSimd for Op<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, s: S) {
            let (head, tail) = S::as_mut_simd_f32s(self.1);
            for v in head {
                *v = activate(s, self.0, *v);
            }
            if !tail.is_empty() {
                let v = s.partial_load_f32s(tail);
                s.partial_store_f32s(tail, activate(s, self.0, v));
            }
        }
    }
    if f != Activation::Linear {
        simd_arch().dispatch(Op(f, out));
    }
}

/// Runs `n` rounds of independent multiply-adds in registers, at the highest rate of the processor. Returns the number
/// of floating-point operations.
pub fn fma_chain(n: usize) -> u64 {
    struct Op(usize);
    impl WithSimd for Op {
        type Output = u64;
        #[inline(always)]
        fn with_simd<S: Simd>(self, s: S) -> u64 {
            const SUMS: usize = 12;
            let (half, one) = (s.splat_f32s(0.5), s.splat_f32s(1.0));
            let mut a = [s.splat_f32s(1.0); SUMS];
            for _ in 0..core::hint::black_box(self.0) {
                for v in &mut a {
                    *v = s.mul_add_e_f32s(*v, half, one);
                }
            }
            for v in a {
                core::hint::black_box(s.reduce_sum_f32s(v));
            }
            (2 * SUMS * S::F32_LANES * self.0) as u64
        }
    }
    simd_arch().dispatch(Op(n))
}

/// The sum of all elements, at the highest rate at which memory can be read.
pub fn read_sum(x: &[f32]) -> f32 {
    struct Op<'a>(&'a [f32]);
    impl WithSimd for Op<'_> {
        type Output = f32;
        #[inline(always)]
        fn with_simd<S: Simd>(self, s: S) -> f32 {
            let (head, tail) = S::as_simd_f32s(self.0);
            let (blocks, rest) = head.as_chunks::<8>();
            let mut a = [s.splat_f32s(0.0); 8];
            for b in blocks {
                for n in 0..8 {
                    a[n] = s.add_f32s(a[n], b[n]);
                }
            }
            let mut sum = s.splat_f32s(0.0);
            for v in a.iter().chain(rest) {
                sum = s.add_f32s(sum, *v);
            }
            s.reduce_sum_f32s(sum) + tail.iter().sum::<f32>()
        }
    }
    simd_arch().dispatch(Op(x))
}

/// The product of a matrix and a vector: `out[j] = dot(w[j], x)`, w row-major. [`crate::cpu::gemm`] uses it for a
/// single row.
pub fn matvec(w: &[f32], x: &[f32], out: &mut [f32]) {
    struct Op<'a>(&'a [f32], &'a [f32], &'a mut [f32]);
    impl WithSimd for Op<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, s: S) {
            let Self(w, x, out) = self;
            let (head, tail) = S::as_simd_f32s(x);
            for (row, o) in w.chunks_exact(x.len()).zip(out) {
                let (wh, wt) = S::as_simd_f32s(row);
                let mut acc = [s.splat_f32s(0.0); 4];
                for (w4, x4) in wh.chunks(4).zip(head.chunks(4)) {
                    for ((a, &w), &x) in acc.iter_mut().zip(w4).zip(x4) {
                        *a = mul_add(s, w, x, *a);
                    }
                }
                let sum = s.add_f32s(s.add_f32s(acc[0], acc[1]), s.add_f32s(acc[2], acc[3]));
                let sum = mul_add(s, s.partial_load_f32s(wt), s.partial_load_f32s(tail), sum);
                *o = s.reduce_sum_f32s(sum);
            }
        }
    }
    simd_arch().dispatch(Op(w, x, out));
}

/// A product that is small enough to stay in the cache, without packing: columns of b are adjacent.
///
/// # Panics
/// If columns of b are not adjacent, or a slice is too short for its strides.
pub fn small_product(g: &Gemm<'_>, c: &mut [f32]) {
    struct Op<'a, 'b>(&'a Gemm<'b>, &'a mut [f32]);
    impl WithSimd for Op<'_, '_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, s: S) {
            let Self(g, c) = self;
            let mut column = 0;
            // Few rows have few sums at a time, which wait for each other.
            let wide = 4 * S::F32_LANES;
            while g.m < 4 && column + wide <= g.n {
                block::<S, 4>(s, g, c, column, wide);
                column += wide;
            }
            let wide = 2 * S::F32_LANES;
            while column + wide <= g.n {
                block::<S, 2>(s, g, c, column, wide);
                column += wide;
            }
            while column < g.n {
                let width = S::F32_LANES.min(g.n - column);
                block::<S, 1>(s, g, c, column, width);
                column += width;
            }
        }
    }
    assert_eq!(g.b.2, 1, "columns of b are adjacent");
    simd_arch().dispatch(Op(g, c));
}

/// All rows of some columns of a product: V vectors, or a part of one.
#[inline(always)]
fn block<S: Simd, const V: usize>(s: S, g: &Gemm<'_>, c: &mut [f32], column: usize, width: usize) {
    const ROWS: usize = 4;
    let mut row = 0;
    while row + ROWS <= g.m {
        rows::<S, V, ROWS>(s, g, c, row, column, width);
        row += ROWS;
    }
    while row < g.m {
        rows::<S, V, 1>(s, g, c, row, column, width);
        row += 1;
    }
}

#[inline(always)]
fn rows<S: Simd, const V: usize, const R: usize>(
    s: S,
    g: &Gemm<'_>,
    c: &mut [f32],
    row: usize,
    column: usize,
    width: usize,
) {
    let full = width == V * S::F32_LANES;
    let mut sums = [[s.splat_f32s(0.0); V]; R];
    for p in 0..g.k {
        let b = &g.b.0[p * g.b.1 + column..][..width];
        let mut columns = [s.splat_f32s(0.0); V];
        if full {
            columns.copy_from_slice(&S::as_simd_f32s(b).0[..V]);
        } else {
            columns[0] = s.partial_load_f32s(b);
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            let a = s.splat_f32s(g.a.0[(row + r) * g.a.1 + p * g.a.2]);
            for (sum, b) in sums.iter_mut().zip(columns) {
                *sum = mul_add(s, a, b, *sum);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        let c = &mut c[(row + r) * g.c_row + column..][..width];
        if full {
            for (out, &sum) in S::as_mut_simd_f32s(c).0.iter_mut().zip(sums) {
                *out = if g.accumulate { s.add_f32s(*out, sum) } else { sum };
            }
        } else {
            let old = if g.accumulate { s.partial_load_f32s(c) } else { s.splat_f32s(0.0) };
            s.partial_store_f32s(c, s.add_f32s(old, sums[0]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounds;

    fn archs() -> Vec<Arch> {
        let mut all = vec![Arch::Scalar, Arch::new()];
        #[cfg(target_arch = "x86_64")]
        all.extend(pulp::x86::V3::try_new().map(Arch::V3));
        all
    }

    #[test]
    fn a_choice_that_there_is_not_is_refused() {
        let lanes = |text: &str| choice(Some(OsStr::new(text))).map(|arch| arch.dispatch(Lanes));
        assert_eq!(lanes("scalar"), Ok(1));
        assert_eq!(lanes(""), Ok(Arch::new().dispatch(Lanes)));
        for bad in ["bogus", "AVX2", "avx2 ", "1", &"x".repeat(100_000)] {
            let e = lanes(bad).unwrap_err().to_string();
            assert!(e.contains("RECURVE_SIMD") && e.contains("scalar") && e.len() < 200, "{e}");
        }
        // Names of instructions that this processor lacks are refused too.
        let here: Vec<_> = choices().iter().map(|(name, _)| *name).collect();
        for name in ["avx2", "avx512", "neon"] {
            assert_eq!(lanes(name).is_ok(), here.contains(&name), "{name}");
        }
    }

    struct Run<'a>(fn(f64) -> f64, u8, &'a [f32]);
    impl WithSimd for Run<'_> {
        type Output = (f64, f64);
        fn with_simd<S: Simd>(self, s: S) -> (f64, f64) {
            let (mut abs, mut rel) = (0f64, 0f64);
            for &x in self.2 {
                let v = s.splat_f32s(x);
                let y = match self.1 {
                    0 => exp(s, v),
                    1 => sigmoid(s, v),
                    2 => tanh(s, v),
                    3 => {
                        let (p, q) = tanh_ratio(s, v);
                        s.div_f32s(p, q)
                    }
                    6 => log_sigmoid(s, v),
                    4 => {
                        let (p, q) = tanh_ratio(s, s.mul_f32s(v, s.splat_f32s(0.5)));
                        s.div_f32s(s.add_f32s(q, p), s.add_f32s(q, q))
                    }
                    _ => {
                        let half = s.splat_f32s(0.5);
                        let (po, qo) = tanh_ratio(s, s.mul_f32s(v, half));
                        let (pc, qc) = tanh_ratio(s, v);
                        let top = s.mul_f32s(s.mul_f32s(half, s.add_f32s(qo, po)), pc);
                        s.div_f32s(top, s.mul_f32s(qo, qc))
                    }
                };
                let got = f64::from(s.reduce_max_f32s(y));
                if (3..6).contains(&self.1) {
                    assert!((if self.1 == 4 { 0.0 } else { -1.0 }..=1.0).contains(&got), "{got} at {x}");
                }
                let want = (self.0)(f64::from(x));
                abs = abs.max((got - want).abs());
                rel = rel.max((got - want).abs() / want.abs().max(f64::from(f32::MIN_POSITIVE)));
            }
            (abs, rel)
        }
    }

    /// The inputs with the largest errors among all f32, as `recurve-benches functions` finds them.
    const WORST: [f32; 7] = [-5.891_124, 7.859_211, -3.929_605_5, 5.903_596, 14.103_169, 11.807_192, 6.670_193_7];

    /// Floats of all relevant exponents, dense where the functions bend, and the neighbours of [`WORST`].
    fn sample() -> Vec<f32> {
        let coarse = (2f32.powi(-30).to_bits()..87f32.to_bits()).step_by(9973);
        let fine = (0.25f32.to_bits()..16f32.to_bits()).step_by(503);
        let near = WORST.iter().flat_map(|w| w.abs().to_bits() - 500..w.abs().to_bits() + 500);
        let positive: Vec<f32> = coarse.chain(fine).chain(near).map(f32::from_bits).collect();
        positive.iter().flat_map(|&x| [x, -x]).collect()
    }

    #[test]
    fn stated_errors_hold_on_every_path() {
        let xs = sample();
        for arch in archs() {
            let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
            let (_, rel) = arch.dispatch(Run(f64::exp, 0, &xs));
            assert!(rel < bounds::EXP_RELATIVE, "exp {rel:e} {arch:?}");
            let (abs, _) = arch.dispatch(Run(sigmoid, 1, &xs));
            assert!(abs < bounds::SIGMOID, "sigmoid {abs:e} {arch:?}");
            let (abs, _) = arch.dispatch(Run(f64::tanh, 2, &xs));
            assert!(abs < bounds::TANH, "tanh {abs:e} {arch:?}");
            let (abs, rel) = arch.dispatch(Run(f64::tanh, 3, &xs));
            assert!(abs.max(rel) < bounds::RATIO_TANH, "tanh_ratio {abs:e} {rel:e} {arch:?}");
            // The sample contains the worst f32, so this is the largest error of all.
            assert!((abs - 2.983_107_688_6e-7).abs() < 1e-15, "tanh_ratio {abs:e} {arch:?}");
            let (abs, _) = arch.dispatch(Run(sigmoid, 4, &xs));
            assert!(abs < bounds::RATIO_SIGMOID, "sigmoid of tanh_ratio {abs:e} {arch:?}");
            let (abs, _) = arch.dispatch(Run(|x| x.tanh() / (1.0 + (-x).exp()), 5, &xs));
            assert!(abs < bounds::RATIO_PRODUCT, "their product {abs:e} {arch:?}");
            let (_, rel) = arch.dispatch(Run(|x: f64| x.min(0.0) - (-x.abs()).exp().ln_1p(), 6, &xs));
            assert!(rel < bounds::LOG_SIGMOID, "log_sigmoid {rel:e} {arch:?}");
            struct Nan;
            impl WithSimd for Nan {
                type Output = ();
                fn with_simd<S: Simd>(self, s: S) {
                    let (p, q) = tanh_ratio(s, s.splat_f32s(f32::NAN));
                    let mut y = vec![0.0; S::F32_LANES];
                    s.partial_store_f32s(&mut y, s.div_f32s(p, q));
                    assert!(y.iter().all(|y| y.is_nan()));
                    s.partial_store_f32s(&mut y, log_sigmoid(s, s.splat_f32s(f32::NAN)));
                    assert!(y.iter().all(|y| y.is_nan()));
                    for x in [f32::INFINITY, -f32::INFINITY, 1e30] {
                        let (p, q) = tanh_ratio(s, s.splat_f32s(x));
                        s.partial_store_f32s(&mut y, s.div_f32s(p, q));
                        assert!(y.iter().all(|y| *y == x.signum()));
                    }
                }
            }
            arch.dispatch(Nan);
        }
    }

    #[test]
    fn extremes() {
        let f = |a, x: f32| {
            let mut v = vec![x; 37];
            activate_slice(a, &mut v);
            assert!(v.iter().all(|y| y.to_bits() == v[0].to_bits()));
            v[0]
        };
        for x in [100.0, 1e30, f32::INFINITY] {
            assert_eq!(f(Activation::Tanh, x), 1.0);
            assert_eq!(f(Activation::Tanh, -x), -1.0);
            assert_eq!(f(Activation::Sigmoid, x), 1.0);
            assert_eq!(f(Activation::Sigmoid, -x), 0.0);
        }
        for a in [
            Activation::Tanh,
            Activation::Sigmoid,
            Activation::Relu,
            Activation::Softplus,
            Activation::Positive,
            Activation::Softsign,
            Activation::HARD_SIGMOID_KERAS2,
            Activation::Elu { alpha: 1.0 },
            Activation::LeakyRelu { alpha: 0.1 },
            Activation::ThresholdedRelu { alpha: 1.0 },
        ] {
            assert!(f(a, f32::NAN).is_nan(), "{a:?}");
        }
    }

    #[test]
    fn activations_agree_with_their_definition() {
        let others = [
            Activation::HARD_SIGMOID_KERAS3,
            Activation::Affine { alpha: 1.5, beta: -0.25 },
            Activation::ScaledTanh { alpha: 1.7, beta: 0.6 },
            Activation::Elu { alpha: 0.7 },
        ];
        let xs: Vec<f32> = (-203..=203).map(|i| i as f32 * 0.0493).collect();
        for a in Activation::ALL.into_iter().chain(others) {
            let mut ys = xs.clone();
            activate_slice(a, &mut ys);
            for (&x, &y) in xs.iter().zip(&ys) {
                let want = recurve_reference::activate(a, f64::from(x));
                assert!((f64::from(y) - want).abs() <= 6e-7 * want.abs().max(1.0), "{a:?}({x}) = {y}, want {want}");
            }
        }
    }

    #[test]
    fn matvec_by_hand() {
        for k in [1, 3, 16, 17, 100] {
            let x: Vec<f32> = (0..k).map(|i| i as f32).collect();
            let w: Vec<f32> = (0..3 * k).map(|i| (i % 7) as f32).collect();
            let mut out = [f32::NAN; 3];
            matvec(&w, &x, &mut out);
            for j in 0..3 {
                let want: f32 = (0..k).map(|i| w[j * k + i] * x[i]).sum();
                assert_eq!(out[j], want);
            }
        }
    }
}
