//! Initializers of weights.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use recurve_tensor::cpu::host;
use recurve_tensor::random::normal;
use recurve_tensor::{Error, Result};
use serde::{Deserialize, Serialize};

/// How a weight is initialized. Names in files are those of Keras where it has the same.
///
/// Weights have PyTorch's layout, `[out, in, …]`. The fans of a weight are `in` and `out`, each times the elements of a
/// window; of a vector both are its length, as in Keras.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Initializer {
    /// Uniform in ±√(6 / (fan_in + fan_out)) (Glorot & Bengio 2010): Keras's default for kernels, PyTorch's
    /// `xavier_uniform_`.
    GlorotUniform,
    /// A truncated normal distribution with the variance 2 / (fan_in + fan_out). PyTorch's `xavier_normal_` is not
    /// truncated, see [`Self::xavier_normal`].
    GlorotNormal,
    /// Uniform in ±√(6 / fan_in) (He et al. 2015): PyTorch's `kaiming_uniform_`.
    HeUniform,
    /// A truncated normal distribution with the variance 2 / fan_in. PyTorch's `kaiming_normal_` is not truncated, see
    /// [`Self::kaiming_normal`].
    HeNormal,
    /// Uniform in ±√(3 / fan_in) (LeCun et al. 1998).
    LecunUniform,
    /// A truncated normal distribution with the variance 1 / fan_in.
    LecunNormal,
    /// Orthonormal rows or columns (Saxe et al. 2013): Keras's default for recurrent kernels. The elements of a window
    /// belong to the inputs.
    Orthogonal,
    /// [`Self::Orthogonal`] times a number: Keras's `Orthogonal(gain)`, PyTorch's `orthogonal_`.
    ScaledOrthogonal {
        /// The number.
        gain: f32,
    },
    /// Uniform in ±1/√H, where H is the number of hidden units: PyTorch's default for recurrent layers, biases
    /// included.
    TorchUniform,
    /// Uniform in ±1/√fan_in: PyTorch's default for `Linear` and convolutions.
    TorchLinear,
    /// Uniform in ±`limit`.
    Uniform {
        /// The largest absolute value.
        limit: f32,
    },
    /// Uniform between two numbers.
    RandomUniform {
        /// The smallest number.
        low: f32,
        /// The largest number.
        high: f32,
    },
    /// A normal distribution.
    RandomNormal {
        /// Its mean.
        mean: f32,
        /// Its standard deviation.
        std: f32,
    },
    /// A normal distribution of which what is more than two standard deviations away from its mean is drawn again.
    TruncatedNormal {
        /// The mean.
        mean: f32,
        /// The standard deviation before it is truncated; that of the numbers is 0.88 times as large.
        std: f32,
    },
    /// A distribution with mean 0 and the variance `scale / fan`: Keras's `VarianceScaling`.
    VarianceScaling {
        /// What is divided by the fan.
        scale: f32,
        /// Which fan.
        mode: Fan,
        /// Which distribution.
        distribution: Spread,
    },
    /// A number where row and column are equal, 0 elsewhere; for matrices.
    Identity {
        /// The number.
        gain: f32,
    },
    /// Zero.
    Zeros,
    /// One.
    Ones,
    /// A number.
    Constant {
        /// The number.
        value: f32,
    },
}

/// What a variance is divided by ([`Initializer::VarianceScaling`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fan {
    /// The inputs of an output.
    FanIn,
    /// The outputs of an input.
    FanOut,
    /// The mean of both.
    FanAvg,
}

/// How numbers of a variance are distributed ([`Initializer::VarianceScaling`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Spread {
    /// As [`Initializer::TruncatedNormal`], with the variance after it is truncated.
    TruncatedNormal,
    /// Normal.
    UntruncatedNormal,
    /// Uniform.
    Uniform,
}

/// The standard deviation of a standard normal distribution between -2 and 2, as in Keras.
const TRUNCATED: f64 = 0.879_625_661_034_239_8;

/// Numbers with their distribution.
enum Numbers {
    /// Between two numbers.
    Uniform(f32, f32),
    /// With a mean and a standard deviation.
    Normal(f64, f64),
    Truncated(f64, f64),
}

impl Initializer {
    /// PyTorch's `xavier_normal_`: a normal distribution with the variance 2 / (fan_in + fan_out).
    pub const fn xavier_normal() -> Self {
        Self::VarianceScaling { scale: 1.0, mode: Fan::FanAvg, distribution: Spread::UntruncatedNormal }
    }

    /// PyTorch's `kaiming_normal_`: a normal distribution with the variance 2 / fan_in.
    pub const fn kaiming_normal() -> Self {
        Self::VarianceScaling { scale: 2.0, mode: Fan::FanIn, distribution: Spread::UntruncatedNormal }
    }

    /// Keras's `RandomNormal` with its defaults: mean 0, standard deviation 0.05.
    pub const fn random_normal() -> Self {
        Self::RandomNormal { mean: 0.0, std: 0.05 }
    }

    /// Keras's `RandomUniform` with its defaults: between -0.05 and 0.05.
    pub const fn random_uniform() -> Self {
        Self::RandomUniform { low: -0.05, high: 0.05 }
    }

    /// Keras's `TruncatedNormal` with its defaults: mean 0, standard deviation 0.05.
    pub const fn truncated_normal() -> Self {
        Self::TruncatedNormal { mean: 0.0, std: 0.05 }
    }

    /// Draws a weight `[out, in, …]`, or a vector. The same seed gives the same bits. For [`Self::TorchUniform`] the
    /// number of hidden units is `in`.
    ///
    /// ```
    /// use recurve_layers::Initializer;
    /// let w = Initializer::HeNormal.draw(&[64, 32], 7)?;
    /// assert_eq!(w, Initializer::HeNormal.draw(&[64, 32], 7)?);
    /// # Ok::<(), recurve_tensor::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] for numbers that are not finite, a negative standard deviation or scale, ends in the wrong
    /// order, dimensions that are 0 or none, and an identity that is no matrix; [`Error::OutOfMemory`].
    pub fn draw(self, dims: &[usize], seed: u64) -> Result<Vec<f32>> {
        let named = !dims.is_empty() && !dims.contains(&0);
        check("dims", named, || format!("must be one or more, none of them 0, but they are {dims:?}"))?;
        self.kernel(dims, dims.get(1).copied().unwrap_or(dims[0]), &mut recurve_tensor::random::rng(seed))
    }

    /// A kernel `[out, in, …]`, or a vector. `hidden` is the number of hidden units, for [`Self::TorchUniform`].
    ///
    /// # Errors
    /// As [`Self::draw`].
    pub(crate) fn kernel(self, dims: &[usize], hidden: usize, rng: &mut ChaCha8Rng) -> Result<Vec<f32>> {
        self.check(dims)?;
        let mut out = zeros(dims)?;
        let window: usize = dims.iter().skip(2).product();
        let (fan_out, inputs) = (dims[0] * window, dims.get(1).copied().unwrap_or(dims[0]));
        let fan_in = inputs * window;
        // Rows and columns of a matrix, of which a vector is one column.
        let columns = if dims.len() == 1 { 1 } else { fan_in };
        let orthogonal = |gain: f32, rng: &mut ChaCha8Rng, mut out: Vec<f32>| -> Result<Vec<f32>> {
            orthogonal(dims[0], columns, rng, &mut out)?;
            if gain != 1.0 {
                out.iter_mut().for_each(|o| *o *= gain);
            }
            Ok(out)
        };
        let symmetric = |limit: f32| Numbers::Uniform(-limit, limit);
        let numbers = match self {
            Self::Zeros => return Ok(out),
            Self::Ones => {
                out.fill(1.0);
                return Ok(out);
            }
            Self::Constant { value } => {
                out.fill(value);
                return Ok(out);
            }
            Self::Identity { gain } => {
                out.iter_mut().step_by(columns + 1).take(dims[0].min(columns)).for_each(|o| *o = gain);
                return Ok(out);
            }
            Self::Orthogonal => return orthogonal(1.0, rng, out),
            Self::ScaledOrthogonal { gain } => return orthogonal(gain, rng, out),
            Self::GlorotUniform => symmetric((6.0 / (fan_in + fan_out) as f32).sqrt()),
            Self::GlorotNormal => scaled(1.0, Fan::FanAvg, Spread::TruncatedNormal, [fan_in, fan_out]),
            Self::HeUniform => scaled(2.0, Fan::FanIn, Spread::Uniform, [fan_in, fan_out]),
            Self::HeNormal => scaled(2.0, Fan::FanIn, Spread::TruncatedNormal, [fan_in, fan_out]),
            Self::LecunUniform => scaled(1.0, Fan::FanIn, Spread::Uniform, [fan_in, fan_out]),
            Self::LecunNormal => scaled(1.0, Fan::FanIn, Spread::TruncatedNormal, [fan_in, fan_out]),
            Self::VarianceScaling { scale, mode, distribution } => scaled(scale, mode, distribution, [fan_in, fan_out]),
            Self::TorchUniform => symmetric(1.0 / (hidden as f32).sqrt()),
            Self::TorchLinear => symmetric(1.0 / (fan_in as f32).sqrt()),
            Self::Uniform { limit } => symmetric(limit),
            Self::RandomUniform { low, high } => Numbers::Uniform(low, high),
            Self::RandomNormal { mean, std } => Numbers::Normal(mean.into(), std.into()),
            Self::TruncatedNormal { mean, std } => Numbers::Truncated(mean.into(), std.into()),
        };
        match numbers {
            Numbers::Uniform(low, high) if low == -high => {
                out.iter_mut().for_each(|o| *o = (rng.random::<f32>() * 2.0 - 1.0) * high);
            }
            Numbers::Uniform(low, high) => {
                out.iter_mut().for_each(|o| *o = low + rng.random::<f32>() * (high - low));
            }
            Numbers::Normal(mean, std) => out.iter_mut().for_each(|o| *o = (mean + std * normal(rng)) as f32),
            Numbers::Truncated(mean, std) => out.iter_mut().for_each(|o| {
                let mut v = normal(rng);
                while v.abs() > 2.0 {
                    v = normal(rng);
                }
                *o = (mean + std * v) as f32;
            }),
        }
        Ok(out)
    }

    fn check(self, dims: &[usize]) -> Result<()> {
        let finite = |argument, v: f32| check(argument, v.is_finite(), || format!("must be finite, but it is {v}"));
        let positive = |argument, v: f32| {
            check(argument, v >= 0.0 && v.is_finite(), || format!("must be finite and not negative, but it is {v}"))
        };
        match self {
            Self::ScaledOrthogonal { gain } => finite("gain", gain),
            Self::Identity { gain } => {
                finite("gain", gain)?;
                check("dims", dims.len() == 2, || format!("of an identity must be two, but they are {dims:?}"))
            }
            Self::Constant { value } => finite("value", value),
            Self::Uniform { limit } => positive("limit", limit),
            Self::RandomUniform { low, high } => {
                finite("low", low)?;
                check("high", high >= low && (high - low).is_finite(), || {
                    format!("must be at least `low`, {low}, and not too far from it, but it is {high}")
                })
            }
            Self::RandomNormal { mean, std } | Self::TruncatedNormal { mean, std } => {
                finite("mean", mean)?;
                positive("std", std)
            }
            Self::VarianceScaling { scale, .. } => positive("scale", scale),
            _ => Ok(()),
        }
    }
}

/// Numbers with the variance `scale / fan`.
fn scaled(scale: f32, mode: Fan, distribution: Spread, [fan_in, fan_out]: [usize; 2]) -> Numbers {
    let fan = match mode {
        Fan::FanIn => fan_in as f64,
        Fan::FanOut => fan_out as f64,
        Fan::FanAvg => (fan_in + fan_out) as f64 / 2.0,
    };
    let variance = f64::from(scale) / fan.max(1.0);
    match distribution {
        Spread::TruncatedNormal => Numbers::Truncated(0.0, variance.sqrt() / TRUNCATED),
        Spread::UntruncatedNormal => Numbers::Normal(0.0, variance.sqrt()),
        Spread::Uniform => {
            let limit = (3.0 * variance).sqrt() as f32;
            Numbers::Uniform(-limit, limit)
        }
    }
}

fn check(argument: &'static str, holds: bool, message: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Argument { operation: "initializer", argument, message: message() }) }
}
/// Zeros of this shape.
///
/// # Errors
/// [`recurve_tensor::Error::OutOfMemory`], also if the number of elements overflows.
pub(crate) fn zeros(dims: &[usize]) -> Result<Vec<f32>> {
    host("build", dims.iter().fold(1, |n: usize, &d| n.saturating_mul(d)))
}

/// A random matrix `[rows, columns]` whose shorter side is orthonormal, by modified Gram-Schmidt
/// over normally distributed vectors.
fn orthogonal(rows: usize, columns: usize, rng: &mut ChaCha8Rng, out: &mut [f32]) -> Result<()> {
    let (count, width) = (rows.min(columns), rows.max(columns));
    let mut basis: Vec<Vec<f64>> = Vec::new();
    while basis.len() < count {
        let mut v: Vec<f64> = host("build", width)?;
        v.iter_mut().for_each(|v| *v = normal(rng));
        // Done twice, because after one pass rounding errors leave the vectors slightly non-orthogonal.
        for _ in 0..2 {
            for b in &basis {
                let dot: f64 = b.iter().zip(&v).map(|(b, v)| b * v).sum();
                v.iter_mut().zip(b).for_each(|(v, b)| *v -= dot * b);
            }
        }
        let norm = v.iter().map(|v| v * v).sum::<f64>().sqrt();
        if norm > 1e-6 {
            v.iter_mut().for_each(|v| *v /= norm);
            basis.push(v);
        }
    }
    for (i, out) in out.iter_mut().enumerate() {
        let (r, c) = (i / columns, i % columns);
        *out = (if rows <= columns { basis[r][c] } else { basis[c][r] }) as f32;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use recurve_tensor::random::rng;

    #[test]
    fn orthogonal_is_orthonormal_on_its_short_side() {
        for (r, c) in [(4, 4), (3, 7), (12, 5)] {
            let m = Initializer::Orthogonal.kernel(&[r, c], c, &mut rng(3)).unwrap();
            let at =
                |long: usize, short: usize| f64::from(if r <= c { m[short * c + long] } else { m[long * c + short] });
            let (short, long) = (r.min(c), r.max(c));
            for i in 0..short {
                for j in 0..short {
                    let dot: f64 = (0..long).map(|k| at(k, i) * at(k, j)).sum();
                    let want = f64::from(u8::from(i == j));
                    assert!((dot - want).abs() < 1e-6, "{r}×{c} {i} {j}: {dot}");
                }
            }
        }
    }

    #[test]
    fn limits_and_seeds() {
        let m = Initializer::GlorotUniform.kernel(&[30, 20], 30, &mut rng(1)).unwrap();
        let limit = (6.0f32 / 50.0).sqrt();
        assert!(m.iter().all(|v| v.abs() <= limit) && m.iter().any(|v| v.abs() > 0.9 * limit));
        let mean: f32 = m.iter().sum::<f32>() / 600.0;
        assert!(mean.abs() < 0.05, "{mean}");
        assert_eq!(m, Initializer::GlorotUniform.kernel(&[30, 20], 30, &mut rng(1)).unwrap());
        assert_ne!(m, Initializer::GlorotUniform.kernel(&[30, 20], 30, &mut rng(2)).unwrap());
        let t = Initializer::TorchUniform.kernel(&[8, 8], 16, &mut rng(1)).unwrap();
        assert!(t.iter().all(|v| v.abs() <= 0.25));
    }
}
