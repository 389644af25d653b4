//! Random numbers that a device draws itself (`noise.wgsl`).
//!
//! The generator is Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): the numbers of a
//! draw are a function of the seed, of the draw's own number and of the place of an element, so they are the same on
//! every device and with any number of threads.

use crate::cpu::threads::prelude::*;
use crate::{DType, Device, Error, Result, Shape, Tensor};

/// What is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Noise {
    /// 0 with probability `rate`, else `1 / (1 - rate)`: the factors of dropout. With a rate of 1 all are 0.
    Dropout {
        /// The share that is dropped, in `[0, 1]`.
        rate: f32,
    },
    /// 1 with probability `rate`, else 0.
    Bernoulli {
        /// The share of ones, in `[0, 1]`.
        rate: f32,
    },
    /// Uniform in `[0, 1)`.
    Uniform,
    /// Normal with mean 0 and standard deviation 1.
    Normal,
}

impl Noise {
    /// The number that the shader uses.
    #[cfg_attr(not(feature = "gpu"), expect(dead_code, reason = "only GPUs use it"))]
    pub(crate) const fn code(self) -> u32 {
        match self {
            Self::Dropout { .. } => 0,
            Self::Bernoulli { .. } => 1,
            Self::Uniform => 2,
            Self::Normal => 3,
        }
    }

    /// Its rate, as the number of 24 bits below which a draw counts as dropped, or as one; and the value of what is not
    /// dropped.
    pub(crate) fn parameters(self) -> (u32, f32) {
        const STEPS: f32 = (1u32 << 24) as f32;
        match self {
            Self::Dropout { rate } => {
                ((rate * STEPS).round() as u32, if rate < 1.0 { 1.0 / (1.0 - rate) } else { 0.0 })
            }
            Self::Bernoulli { rate } => ((rate * STEPS).round() as u32, 1.0),
            Self::Uniform | Self::Normal => (0, 1.0),
        }
    }

    /// The four elements of a block of random bits.
    fn elements(self, bits: [u32; 4]) -> [f32; 4] {
        const STEP: f32 = 1.0 / (1u32 << 24) as f32;
        let (limit, value) = self.parameters();
        let unit = bits.map(|b| (b >> 8) as f32 * STEP);
        match self {
            Self::Dropout { .. } => bits.map(|b| if b >> 8 < limit { 0.0 } else { value }),
            Self::Bernoulli { .. } => bits.map(|b| if b >> 8 < limit { 1.0 } else { 0.0 }),
            Self::Uniform => unit,
            Self::Normal => {
                // Box and Muller; 1 - u is above 0.
                let pair = |u: f32, v: f32| {
                    let radius = (-2.0 * (1.0 - u).ln()).sqrt();
                    let angle = core::f32::consts::TAU * v;
                    [radius * angle.cos(), radius * angle.sin()]
                };
                let ([a, b], [c, d]) = (pair(unit[0], unit[1]), pair(unit[2], unit[3]));
                [a, b, c, d]
            }
        }
    }
}

/// Ten rounds of Philox4x32.
pub(crate) fn philox([mut k0, mut k1]: [u32; 2], mut c: [u32; 4]) -> [u32; 4] {
    let wide = |a: u32, b: u32| {
        let product = u64::from(a) * u64::from(b);
        ((product >> 32) as u32, product as u32)
    };
    for _ in 0..10 {
        let ((h0, l0), (h1, l1)) = (wide(0xD251_1F53, c[0]), wide(0xCD9E_8D57, c[2]));
        c = [h1 ^ c[1] ^ k0, l1, h0 ^ c[3] ^ k1, l0];
        (k0, k1) = (k0.wrapping_add(0x9E37_79B9), k1.wrapping_add(0xBB67_AE85));
    }
    c
}

/// Elements that one thread draws at a time.
const PART: usize = 1 << 14;

impl Tensor {
    /// Draws f32 numbers in these dimensions. `seed` is U32 `[2]`; `stream` tells the draws of one seed apart.
    /// ```
    /// use recurve_tensor::{Device, Noise, Tensor};
    /// let seed = Tensor::from_u32(&[1, 2], &[2], &Device::Cpu)?;
    /// let factors = Tensor::noise(&[1000], Noise::Dropout { rate: 0.25 }, &seed, 0)?.to_vec()?;
    /// let dropped = factors.iter().filter(|v| **v == 0.0).count();
    /// assert!((200..300).contains(&dropped) && factors.iter().all(|v| *v == 0.0 || (*v - 4.0 / 3.0).abs() < 1e-6));
    /// # Ok::<(), recurve_tensor::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] if dimensions are zero or too many, or a rate is not in `[0, 1]`; [`Error::DType`] and
    /// [`Error::Shape`] for another seed; errors of the device.
    pub fn noise(dims: &[usize], noise: Noise, seed: &Self, stream: u32) -> Result<Self> {
        const NAME: &str = "Tensor::noise";
        seed.check_dtype(NAME, "seed", "u32", seed.dtype() == DType::U32)?;
        if seed.dims() != [2] {
            return Err(Error::shape(NAME, "seed", "[2]", seed.shape()));
        }
        let shape = Shape::new(dims).ok_or_else(|| Error::Argument {
            operation: NAME,
            argument: "dims",
            message: format!("must be at most 6 dimensions, none of them 0, but they are {dims:?}"),
        })?;
        if let Noise::Dropout { rate } | Noise::Bernoulli { rate } = noise
            && !(0.0..=1.0).contains(&rate)
        {
            let message = format!("must be in [0, 1], but it is {rate}");
            return Err(Error::Argument { operation: NAME, argument: "rate", message });
        }
        match seed.device() {
            Device::Cpu => {
                let key = seed.cpu_u32().expect("u32 on the CPU");
                let key = [key[0], key[1]];
                Self::cpu_write(shape, |out| {
                    out.par_chunks_mut(PART).enumerate().for_each(|(part, out)| {
                        let first = part * PART / 4;
                        for (n, four) in out.chunks_mut(4).enumerate() {
                            let block = (first + n) as u64;
                            let bits = philox(key, [block as u32, (block >> 32) as u32, stream, 0]);
                            four.copy_from_slice(&noise.elements(bits)[..four.len()]);
                        }
                    });
                    Ok(())
                })
            }
            Device::Gpu(gpu) => gpu.noise(shape, noise, seed, stream),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of Random123's `kat_vectors`.
    #[test]
    fn bits_are_those_of_philox() {
        let all = u32::MAX;
        for (key, counter, want) in [
            ([0, 0], [0; 4], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([all, all], [all; 4], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0xa409_3822, 0x299f_31d0],
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(philox(key, counter), want);
        }
    }

    #[test]
    fn a_rate_of_one_drops_all_and_of_zero_none() {
        let seed = Tensor::from_u32(&[3, 4], &[2], &Device::Cpu).unwrap();
        let draw = |rate| Tensor::noise(&[1000], Noise::Dropout { rate }, &seed, 1).unwrap().to_vec().unwrap();
        assert!(draw(1.0).iter().all(|v| *v == 0.0));
        assert!(draw(0.0).iter().all(|v| *v == 1.0));
    }
}
