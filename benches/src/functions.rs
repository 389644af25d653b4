//! Measures the largest errors of the activation functions over all f32. The results are stated in the doc comments of
//! `tanh_ratio` and its neighbours and in `docs/numerics.md`.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use recurve::{Activation, Device, Tensor};
use recurve_tensor::cpu::simd::{exp, log_sigmoid, sigmoid, simd_arch, simd_name, tanh, tanh_ratio};

/// The functions of the CPU that are measured.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Function {
    Exp,
    Sigmoid,
    Tanh,
    LogSigmoid,
    /// `p / q` of [`tanh_ratio`].
    RatioTanh,
    /// `(q + p) / 2q` of half the argument.
    RatioSigmoid,
    /// The product of both at the same argument, with a common denominator, as an LSTM's h is computed.
    RatioProduct,
    /// `p / q` with an exact division: the error that the polynomials have before the division.
    ExactTanh,
    /// `(q + p) / 2q` with an exact division.
    ExactSigmoid,
}

const ALL: [(Function, &str); 9] = [
    (Function::Exp, "exp"),
    (Function::Sigmoid, "sigmoid"),
    (Function::Tanh, "tanh"),
    (Function::LogSigmoid, "log_sigmoid"),
    (Function::RatioTanh, "tanh_ratio"),
    (Function::RatioSigmoid, "sigmoid of tanh_ratio"),
    (Function::RatioProduct, "sigmoid(x) tanh(x) on one denominator"),
    (Function::ExactTanh, "tanh_ratio, exact division"),
    (Function::ExactSigmoid, "sigmoid of tanh_ratio, exact division"),
];

/// Number of floats of one task.
const BLOCK: usize = 1 << 16;

/// The exact value. Where f64 needs no function call, it uses none, because this runs 2^32 times.
fn truth(function: Function, x: f64) -> f64 {
    let tanh = |x: f64| match x.abs() {
        a if a < 1e-4 => x - x * x * x / 3.0,
        a if a > 20.0 => x.signum(),
        _ => x.tanh(),
    };
    let sigmoid = |x: f64| match x {
        x if x > 40.0 => 1.0,
        x if x < -800.0 => 0.0,
        x if x.abs() < 1e-4 => 0.5 + x / 4.0 - x * x * x / 48.0,
        x => 1.0 / (1.0 + (-x).exp()),
    };
    match function {
        Function::Exp => x.exp(),
        Function::Sigmoid | Function::RatioSigmoid | Function::ExactSigmoid => sigmoid(x),
        Function::LogSigmoid => x.min(0.0) - (-x.abs()).exp().ln_1p(),
        Function::Tanh | Function::RatioTanh | Function::ExactTanh => tanh(x),
        Function::RatioProduct => sigmoid(x) * tanh(x),
    }
}

/// Evaluates the function at a block of arguments. Where the division is to be exact, the result is a numerator and a
/// denominator.
struct Evaluate<'a>(Function, &'a [f32], &'a mut [f32], &'a mut [f32]);

impl WithSimd for Evaluate<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let Self(function, x, top, bottom) = self;
        let (half, one) = (s.splat_f32s(0.5), s.splat_f32s(1.0));
        let lanes = S::F32_LANES;
        for ((x, top), bottom) in x.chunks(lanes).zip(top.chunks_mut(lanes)).zip(bottom.chunks_mut(lanes)) {
            let x = s.partial_load_f32s(x);
            let (a, b) = match function {
                Function::Exp => (exp(s, x), one),
                Function::Sigmoid => (sigmoid(s, x), one),
                Function::Tanh => (tanh(s, x), one),
                Function::LogSigmoid => (log_sigmoid(s, x), one),
                Function::RatioTanh | Function::ExactTanh => {
                    let (p, q) = tanh_ratio(s, x);
                    if function == Function::RatioTanh { (s.div_f32s(p, q), one) } else { (p, q) }
                }
                Function::RatioSigmoid | Function::ExactSigmoid => {
                    let (p, q) = tanh_ratio(s, s.mul_f32s(half, x));
                    let top = s.mul_f32s(half, s.add_f32s(q, p));
                    if function == Function::RatioSigmoid { (s.div_f32s(top, q), one) } else { (top, q) }
                }
                Function::RatioProduct => {
                    let (po, qo) = tanh_ratio(s, s.mul_f32s(half, x));
                    let (pc, qc) = tanh_ratio(s, x);
                    let top = s.mul_f32s(s.mul_f32s(half, s.add_f32s(qo, po)), pc);
                    (s.div_f32s(top, s.mul_f32s(qo, qc)), one)
                }
            };
            s.partial_store_f32s(top, a);
            s.partial_store_f32s(bottom, b);
        }
    }
}

/// The largest absolute and relative errors, with their arguments. Relative errors are only counted where the exact
/// value is a normal number.
#[derive(Clone, Copy, Debug, Default)]
struct Worst {
    points: u64,
    absolute: (f64, f32),
    relative: (f64, f32),
}

impl Worst {
    fn see(&mut self, x: f32, got: f64, want: f64) {
        self.points += 1;
        let error = (got - want).abs();
        // A NaN counts as the largest error.
        if error.is_nan() || error > self.absolute.0 {
            self.absolute = (if error.is_nan() { f64::INFINITY } else { error }, x);
        }
        let relative = error / want.abs();
        if want.abs() >= f64::from(f32::MIN_POSITIVE) && relative > self.relative.0 {
            self.relative = (relative, x);
        }
    }

    fn join(self, other: Self) -> Self {
        let larger = |a: (f64, f32), b: (f64, f32)| if b.0 > a.0 { b } else { a };
        Self {
            points: self.points + other.points,
            absolute: larger(self.absolute, other.absolute),
            relative: larger(self.relative, other.relative),
        }
    }

    fn print(&self, name: &str, device: &str, how: &str) {
        let ((abs, at), (rel, place)) = (self.absolute, self.relative);
        println!("{name},{device},{how},{},{abs:.4e},{at:?},{rel:.4e},{place:?}", self.points);
    }
}

/// Every `stride`-th finite float, of both signs.
fn blocks(stride: usize) -> impl IndexedParallelIterator<Item = Vec<f32>> {
    let count = (f32::INFINITY.to_bits() as usize).div_ceil(stride);
    (0..2 * count.div_ceil(BLOCK)).into_par_iter().map(move |n| {
        let (sign, first) = ((n % 2) as u32, n / 2 * BLOCK);
        let at = |i: usize| f32::from_bits(((first + i) * stride) as u32 | sign << 31);
        (0..BLOCK.min(count - first)).map(at).collect()
    })
}

pub(crate) fn run(stride: usize) {
    println!("function,device,instructions,points,worst_absolute,at,worst_relative,at");
    for (function, name) in ALL {
        let worst = blocks(stride)
            .map(|mut x| {
                // Outside this range the results are 0 and infinity.
                match function {
                    Function::Exp => x.retain(|x| (-87.3..=88.37).contains(x)),
                    Function::LogSigmoid => x.retain(|x| *x <= 87.3),
                    _ => {}
                }
                let (mut top, mut bottom) = (vec![0.0; x.len()], vec![0.0; x.len()]);
                simd_arch().dispatch(Evaluate(function, &x, &mut top, &mut bottom));
                let mut worst = Worst::default();
                for ((&x, &a), &b) in x.iter().zip(&top).zip(&bottom) {
                    worst.see(x, f64::from(a) / f64::from(b), truth(function, x.into()));
                }
                worst
            })
            .reduce(Worst::default, Worst::join);
        worst.print(name, "cpu", simd_name());
    }
    for device in Device::all().into_iter().filter(|d| d.gpu().is_some()) {
        for (function, name) in [(Activation::Sigmoid, "sigmoid"), (Activation::Tanh, "tanh")] {
            let same = if function == Activation::Tanh { Function::Tanh } else { Function::Sigmoid };
            let mut worst = Worst::default();
            // Only a sample, because a software GPU would take minutes for all floats.
            let x: Vec<f32> = blocks(stride * 32).flatten_iter().filter(|x| x.abs() <= 90.0).collect();
            for x in x.chunks(1 << 22) {
                let tensor = Tensor::from_f32(x, &[x.len()], &device).expect("memory for a bench");
                let y = tensor.activation(function).and_then(|y| y.to_vec()).expect("a working device");
                let part = x.par_iter().zip(&y).fold(Worst::default, |mut w, (&x, &y)| {
                    w.see(x, y.into(), truth(same, x.into()));
                    w
                });
                worst = worst.join(part.reduce(Worst::default, Worst::join));
            }
            worst.print(name, &device.to_string(), "WGSL");
        }
    }
}
