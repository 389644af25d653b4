//! Tokens out of logits (`sample.wgsl`).

use super::reduce::is_above;
use crate::gpu::{Dispatch, Gpu};
use crate::{DType, Device, Error, Result, Shape, Tensor};
use recurve_shaders::{SampleStage, Variant, params};

/// How [`Tensor::sample`] draws.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleOptions {
    /// Logits are divided by it: below 1 the likely ones become likelier. Above 0.
    pub temperature: f32,
    /// Only this many of the largest logits take part, and those equal to the last of them; `None`
    /// for all.
    pub top_k: Option<usize>,
    /// The same seed and position draw the same tokens, on every device up to rounding.
    pub seed: u32,
    /// Number of the draw, which gives every step of a sequence its own random numbers.
    pub position: u32,
}

impl Tensor {
    /// A token a row out of logits `[B, V]`, drawn from `softmax(logits / temperature)`: U32 `[B]`.
    ///
    /// By Gumbel's method: the largest of `logit / temperature + g`, where g is Gumbel distributed,
    /// is a draw from the softmax. The noise is a hash of seed, position, row and token. A row with a NaN
    /// gives the place of its first, as [`Self::argmax`] does.
    ///
    /// # Errors
    /// [`Error::DType`] unless it is f32; [`Error::Shape`] unless it has two dimensions;
    /// [`Error::Argument`] unless the temperature is finite and above 0 and `top_k` at least 1.
    pub fn sample(&self, o: &SampleOptions) -> Result<Self> {
        self.check_dtype("sample", "self", "f32", self.dtype() == DType::F32)?;
        let &[rows, width] = self.dims() else {
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
            Device::Gpu(gpu) => {
                let p = params::Sample {
                    rows: rows as u32,
                    width: width as u32,
                    groups_x: 0,
                    top_k: top_k as u32,
                    inverse_temperature,
                    seed: o.seed,
                    position: o.position,
                    round: 0,
                };
                let out = if width as u64 > widest(&gpu) {
                    self.sample_wide(&gpu, p)?.reshape(&[rows])?
                } else {
                    self.sample_whole(&gpu, p, shape)?
                };
                Ok(out.with_bound(bound))
            }
        }
    }

    /// A workgroup a row.
    fn sample_whole(&self, gpu: &Gpu, p: params::Sample, shape: Shape) -> Result<Self> {
        let out = Self::gpu_uninit(gpu, shape, DType::U32, "sample")?;
        let pipeline = gpu.pipeline(&Variant::sample(SampleStage::Whole))?;
        let p = params::Sample { groups_x: p.rows.min(gpu.max_workgroups()), ..p };
        gpu.record(Dispatch {
            pipeline: &pipeline,
            buffers: &[self.gpu_buffer(), out.gpu_buffer()],
            params: bytemuck::bytes_of(&p),
            groups: [p.groups_x, p.rows.div_ceil(p.groups_x), 1],
            work: 34 * self.shape().count() as u64,
        })?;
        Ok(out)
    }

    /// Many workgroups a row: the threshold of the largest logits bit by bit, then the logits with their noise.
    fn sample_wide(&self, gpu: &Gpu, p: params::Sample) -> Result<Self> {
        let count = self.shape().count();
        let counts = Self::zeros(&[32, p.rows as usize], DType::U32, &self.device())?;
        if p.top_k < p.width {
            let pipeline = gpu.pipeline(&Variant::sample(SampleStage::Count))?;
            for round in 0..32 {
                gpu.record(Dispatch {
                    pipeline: &pipeline,
                    buffers: &[self.gpu_buffer(), counts.gpu_buffer()],
                    params: bytemuck::bytes_of(&params::Sample { round, ..p }),
                    groups: [p.width.div_ceil(Variant::SAMPLE_SPAN), p.rows, 1],
                    work: count as u64,
                })?;
            }
        }
        let noisy = Self::gpu_uninit(gpu, *self.shape(), DType::F32, "sample")?;
        let pipeline = gpu.pipeline(&Variant::sample(SampleStage::Noise))?;
        let (groups, groups_x) = gpu.elementwise_groups(count);
        gpu.record(Dispatch {
            pipeline: &pipeline,
            buffers: &[self.gpu_buffer(), counts.gpu_buffer(), noisy.gpu_buffer()],
            params: bytemuck::bytes_of(&params::Sample { groups_x, ..p }),
            groups,
            work: count as u64,
        })?;
        noisy.argmax(1)
    }
}

/// The widest row for one workgroup of 64 lanes, by the iterations of a lane: 32 bits of a threshold, each with a
/// sweep and a sum, and the sweep and the sum of the result. Wider ones are for all of the device.
fn widest(gpu: &Gpu) -> u64 {
    let sweeps = gpu.max_loop_iterations().saturating_sub(32 + 33 * 6) / 33;
    (64 * u64::from(sweeps)).min(1 << 16)
}

/// PCG's output function as a hash, as in the shader.
fn pcg(v: u32) -> u32 {
    let s = v.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let w = ((s >> ((s >> 28) + 4)) ^ s).wrapping_mul(277_803_737);
    (w >> 22) ^ w
}

/// A number in (0, 1), as in the shader.
fn uniform(seed: u32, position: u32, row: u32, i: u32) -> f32 {
    let bits = pcg(pcg(pcg(pcg(seed) ^ position) ^ row) ^ i);
    ((bits >> 9) as f32 + 0.5) / 8_388_608.0
}
