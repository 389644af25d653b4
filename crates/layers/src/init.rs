//! Initializers of weights.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use recurve_tensor::Result;
use recurve_tensor::cpu::host;
use recurve_tensor::random::normal;
use serde::{Deserialize, Serialize};

/// How a weight matrix is initialized.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Initializer {
    /// Uniform in ±√(6 / (fan_in + fan_out)) (Glorot & Bengio 2010): Keras's default for kernels.
    GlorotUniform,
    /// Orthonormal rows or columns (Saxe et al. 2013): Keras's default for recurrent kernels.
    Orthogonal,
    /// Uniform in ±1/√H, where H is the number of hidden units: PyTorch's default for recurrent layers, biases
    /// included.
    TorchUniform,
    /// Uniform in ±`limit`.
    Uniform {
        /// The largest absolute value.
        limit: f32,
    },
    /// Zero.
    Zeros,
}

impl Initializer {
    /// A matrix `[fan_out, fan_in]`, the layout of PyTorch's weights. `hidden` is the number of hidden units, for
    /// [`Self::TorchUniform`].
    ///
    /// # Errors
    /// [`recurve_tensor::Error::OutOfMemory`], also if the number of elements overflows.
    pub(crate) fn matrix(self, fan_out: usize, fan_in: usize, hidden: usize, rng: &mut ChaCha8Rng) -> Result<Vec<f32>> {
        self.kernel(&[fan_out, fan_in], hidden, rng)
    }

    /// A kernel `[out, in, …]`: a matrix for each element of the window.
    ///
    /// # Errors
    /// As [`Self::matrix`].
    pub(crate) fn kernel(self, dims: &[usize], hidden: usize, rng: &mut ChaCha8Rng) -> Result<Vec<f32>> {
        let mut out = zeros(dims)?;
        let window: usize = dims[2..].iter().product();
        let limit = match self {
            Self::Zeros => return Ok(out),
            Self::Orthogonal => {
                orthogonal(dims[0], dims[1] * window, rng, &mut out)?;
                return Ok(out);
            }
            Self::GlorotUniform => (6.0 / ((dims[1] + dims[0]) * window) as f32).sqrt(),
            Self::TorchUniform => 1.0 / (hidden as f32).sqrt(),
            Self::Uniform { limit } => limit,
        };
        out.iter_mut().for_each(|o| *o = (rng.random::<f32>() * 2.0 - 1.0) * limit);
        Ok(out)
    }
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
            let m = Initializer::Orthogonal.matrix(r, c, c, &mut rng(3)).unwrap();
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
        let m = Initializer::GlorotUniform.matrix(30, 20, 30, &mut rng(1)).unwrap();
        let limit = (6.0f32 / 50.0).sqrt();
        assert!(m.iter().all(|v| v.abs() <= limit) && m.iter().any(|v| v.abs() > 0.9 * limit));
        let mean: f32 = m.iter().sum::<f32>() / 600.0;
        assert!(mean.abs() < 0.05, "{mean}");
        assert_eq!(m, Initializer::GlorotUniform.matrix(30, 20, 30, &mut rng(1)).unwrap());
        assert_ne!(m, Initializer::GlorotUniform.matrix(30, 20, 30, &mut rng(2)).unwrap());
        let t = Initializer::TorchUniform.matrix(8, 8, 16, &mut rng(1)).unwrap();
        assert!(t.iter().all(|v| v.abs() <= 0.25));
    }
}
