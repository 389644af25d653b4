//! Error bounds of the activation functions. They are defined here only: tests check the functions against them,
//! `docs/numerics.md` is generated from them, and comments elsewhere refer to them.
//!
//! Each bound was found by comparing the function with f64 at every f32 where it is neither constant nor the identity.
//! `cargo run --release -p recurve-benches -- functions` repeats that. The tests evaluate a sample and the surroundings
//! of the worst values.

/// `e^x` on the CPU ([`crate::cpu::simd::exp`]), relative. Found: 7.90e-8 at x = -5.891124.
pub const EXP_RELATIVE: f64 = 1e-7;

/// `sigmoid(x)` by `e^x` on the CPU ([`crate::cpu::simd::sigmoid`]), absolute. Found: 8.94e-8 at x = 7.859211.
pub const SIGMOID: f64 = 1e-7;

/// `tanh(x)` by `e^x` on the CPU ([`crate::cpu::simd::tanh`]), absolute. Found: 1.79e-7 at x = -3.9296055.
pub const TANH: f64 = 2e-7;

/// `tanh(x)` as a quotient of polynomials ([`crate::cpu::simd::tanh_ratio`]), absolute and relative. Found:
/// 2.99e-7 at x = 5.903596.
pub const RATIO_TANH: f64 = 3e-7;

/// `sigmoid(x)` as a quotient of polynomials, absolute. Found: 2.14e-7 at x = 14.103169.
pub const RATIO_SIGMOID: f64 = 2.2e-7;

/// `sigmoid(x) tanh(y)` with a common denominator, absolute, for any x and y. There are too many pairs to evaluate all
/// of them. The bound is the sum of the errors of both quotients before their division, each found by evaluating every
/// f32 (sigmoid 1.91e-7, tanh 2.76e-7 relative), and of the three roundings that follow: 6.46e-7. The worst found for x
/// = y: 4.19e-7 at 6.6701937.
pub const RATIO_PRODUCT: f64 = 6.5e-7;

/// `ln(sigmoid(x))` on the CPU ([`crate::cpu::simd::log_sigmoid`]), relative.
pub const LOG_SIGMOID: f64 = 4e-7;

/// `sigmoid(x)` and `tanh(x)` on a GPU, absolute, if `exp` and division are only as accurate as WGSL requires (3 + 2
/// |x| ULP and 2.5 ULP). Drivers are more accurate.
pub const GPU: f64 = 5e-7;
