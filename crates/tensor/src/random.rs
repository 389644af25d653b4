//! Random tensors. The numbers are drawn on the host, so a seed gives the same tensor on every device.

use crate::cpu::host;
use crate::{Device, Error, Result, Shape, Tensor};
use core::ops::Range;
use rand::distr::{Distribution, Uniform};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The random number generator for a seed.
pub fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Draws a normally distributed number (Box-Muller).
pub fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (core::f64::consts::TAU * v).cos()
}

impl Tensor {
    /// A tensor of f32 elements drawn uniformly from `range`, whose end is excluded. A seed gives the same elements on
    /// every device.
    /// ```
    /// use recurve_tensor::{Device, Tensor};
    /// let t = Tensor::rand_uniform(&[2, 3], -1.0..1.0, 7, &Device::Cpu)?;
    /// assert!(t.to_vec()?.iter().all(|v| (-1.0..1.0).contains(v)));
    /// assert_eq!(t.to_vec()?, Tensor::rand_uniform(&[2, 3], -1.0..1.0, 7, &Device::Cpu)?.to_vec()?);
    /// # Ok::<(), recurve_tensor::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::from_f32`]; [`Error::Argument`] if the range is empty, or its ends or its width are not finite.
    pub fn rand_uniform(dims: &[usize], range: Range<f32>, seed: u64, device: &Device) -> Result<Self> {
        const OPERATION: &str = "Tensor::rand_uniform";
        let numbers = Uniform::new(range.start, range.end).map_err(|e| Error::Argument {
            operation: OPERATION,
            argument: "range",
            message: format!("is {range:?}: {e}"),
        })?;
        let mut rng = rng(seed);
        // In a narrow range a number may be rounded up to the end, which is excluded.
        Self::drawn(OPERATION, dims, device, || {
            loop {
                let v = numbers.sample(&mut rng);
                if v < range.end {
                    return v;
                }
            }
        })
    }

    /// A tensor of f32 elements drawn from a normal distribution with this mean and standard deviation. A seed gives
    /// the same elements on every device.
    /// ```
    /// use recurve_tensor::{Device, Tensor};
    /// let t = Tensor::rand_normal(&[1000], 5.0, 0.1, 7, &Device::Cpu)?;
    /// let mean = t.to_vec()?.iter().sum::<f32>() / 1000.0;
    /// assert!((mean - 5.0).abs() < 0.02);
    /// # Ok::<(), recurve_tensor::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::from_f32`]; [`Error::Argument`] if the mean or the deviation is not finite, or the deviation is
    /// below 0.
    pub fn rand_normal(dims: &[usize], mean: f32, deviation: f32, seed: u64, device: &Device) -> Result<Self> {
        const OPERATION: &str = "Tensor::rand_normal";
        let bad = |argument, message| Err(Error::Argument { operation: OPERATION, argument, message });
        if !mean.is_finite() {
            return bad("mean", format!("must be finite, but it is {mean}"));
        }
        if !(deviation.is_finite() && deviation >= 0.0) {
            return bad("deviation", format!("must be finite and at least 0, but it is {deviation}"));
        }
        let mut rng = rng(seed);
        Self::drawn(OPERATION, dims, device, || (f64::from(mean) + f64::from(deviation) * normal(&mut rng)) as f32)
    }

    fn drawn(operation: &'static str, dims: &[usize], device: &Device, mut draw: impl FnMut() -> f32) -> Result<Self> {
        let shape = Shape::checked(operation, dims)?;
        let mut numbers = host(operation, shape.count())?;
        numbers.fill_with(&mut draw);
        Self::from_f32(&numbers, dims, device)
    }
}
