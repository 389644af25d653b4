//! Drawing tokens from logits (`sample.wgsl`).

use super::reduce::is_above;
use crate::{DType, Device, Error, Result, Tensor};
use recurve_vocabulary::Rest;

/// Options of [`Tensor::sample`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleOptions {
    /// Logits are divided by it; above 0. Values below 1 favour likely tokens.
    pub temperature: f32,
    /// Only the k largest logits, and those equal to the k-th, can be drawn; `None` for all.
    pub top_k: Option<usize>,
    /// Equal seeds and positions draw equal tokens, on all devices up to rounding.
    pub seed: u32,
    /// The number of the draw: different positions have different random numbers.
    pub position: u32,
    /// Keeps the struct open for more fields: a literal ends in `..` and a default.
    #[doc(hidden)]
    pub rest: Rest,
}

impl Default for SampleOptions {
    /// Temperature 1, all logits, seed and position 0.
    fn default() -> Self {
        Self { temperature: 1.0, top_k: None, seed: 0, position: 0, rest: Rest::default() }
    }
}

impl Tensor {
    /// Draws one token per row of logits `[B, V]` from `softmax(logits / temperature)`. The result is U32 `[B]`.
    ///
    /// Uses Gumbel's method: the index of the largest `logit / temperature + g`, where g is Gumbel-distributed noise,
    /// is distributed as the softmax. The noise is a hash of seed, position, row and token. For a row with NaN the
    /// result is the index of the first NaN, as with [`Self::argmax`].
    ///
    /// # Errors
    /// [`Error::DType`] unless `self` is f32; [`Error::Shape`] unless it has two dimensions; [`Error::Argument`] unless
    /// the temperature is finite and above 0 and `top_k` is at least 1.
    pub fn sample(&self, o: &SampleOptions) -> Result<Self> {
        self.check_dtype("sample", "self", "f32", self.dtype() == DType::F32)?;
        let &[_, width] = self.dims() else {
            return Err(Error::shape("sample", "self", "logits [B, V]", self.shape()));
        };
        let bad = |argument, message| Err(Error::Argument { operation: "sample", argument, message });
        if !(o.temperature.is_finite() && o.temperature > 0.0 && (1.0 / o.temperature).is_finite()) {
            return bad("temperature", format!("must be finite and above 0, but it is {}", o.temperature));
        }
        let top_k = o.top_k.unwrap_or(width);
        if top_k == 0 {
            return bad("top_k", "must be at least 1, but it is 0".into());
        }
        let (top_k, inverse_temperature) = (top_k.min(width), 1.0 / o.temperature);
        let shape = self.shape().leading(1);
        let Ok(bound) = u32::try_from(width - 1) else {
            return Err(Error::shape(
                "sample",
                "self",
                "logits [B, V] with at most 2^32 of them in a row",
                self.shape(),
            ));
        };
        match self.device() {
            Device::Cpu => {
                let logits = self.cpu_f32().expect("f32 on the CPU");
                let mut sorted = Vec::new();
                Self::cpu_u32_write(shape, bound, |out| {
                    for (row, (logits, out)) in logits.chunks_exact(width).zip(out).enumerate() {
                        let mut least = f32::NEG_INFINITY;
                        if top_k < width {
                            sorted.clear();
                            sorted.extend_from_slice(logits);
                            least = *sorted.select_nth_unstable_by(top_k - 1, |a, b| b.total_cmp(a)).1;
                        }
                        let mut best = (0, f32::NEG_INFINITY);
                        for (i, &x) in
                            logits.iter().enumerate().filter(|(_, x)| x.is_nan() || x.total_cmp(&least).is_ge())
                        {
                            let u = uniform(o.seed, o.position, row as u32, i as u32);
                            let noisy = x * inverse_temperature - (-u.ln()).ln();
                            if is_above(noisy, best.1) {
                                best = (i as u32, noisy);
                            }
                        }
                        *out = best.0;
                    }
                })
            }
            Device::Gpu(gpu) => Ok(gpu.sample(self, o, top_k)?.with_bound(bound)),
        }
    }
}

/// PCG's output function, used as a hash; the same as in the shader.
fn pcg(v: u32) -> u32 {
    let s = v.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let w = ((s >> ((s >> 28) + 4)) ^ s).wrapping_mul(277_803_737);
    (w >> 22) ^ w
}

/// A pseudo-random number in (0, 1); the same as in the shader.
fn uniform(seed: u32, position: u32, row: u32, i: u32) -> f32 {
    let bits = pcg(pcg(pcg(pcg(seed) ^ position) ^ row) ^ i);
    ((bits >> 9) as f32 + 0.5) / 8_388_608.0
}
