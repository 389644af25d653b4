//! Drawing tokens (`sample.wgsl`).

use crate::gpu::{Dispatch, Gpu};
use crate::{DType, Result, SampleOptions, Tensor};
use recurve_shaders::{SampleStage, Variant, params};

impl Gpu {
    pub(crate) fn sample(&self, logits: &Tensor, o: &SampleOptions, top_k: usize) -> Result<Tensor> {
        let width = logits.shape().last();
        let rows = logits.shape().count() / width;
        let p = params::Sample {
            rows: rows as u32,
            width: width as u32,
            groups_x: 0,
            top_k: top_k as u32,
            inverse_temperature: 1.0 / o.temperature,
            seed: o.seed,
            position: o.position,
            round: 0,
        };
        if width as u64 > widest(self) {
            self.sample_wide(logits, p)?.reshape(&[rows])
        } else {
            self.sample_whole(logits, p)
        }
    }

    /// One workgroup per row.
    fn sample_whole(&self, logits: &Tensor, p: params::Sample) -> Result<Tensor> {
        let out = Tensor::gpu_uninit(self, logits.shape().leading(1), DType::U32, "sample")?;
        let pipeline = self.pipeline(&Variant::sample(SampleStage::Whole))?;
        let p = params::Sample { groups_x: p.rows.min(self.max_workgroups()), ..p };
        self.record(Dispatch {
            pipeline: &pipeline,
            buffers: &[logits.gpu_buffer(), out.gpu_buffer()],
            params: bytemuck::bytes_of(&p),
            groups: [p.groups_x, p.rows.div_ceil(p.groups_x), 1],
            work: 34 * logits.shape().count() as u64,
        })?;
        Ok(out)
    }

    /// Many workgroups per row: finds the threshold of the top k bit by bit, then the largest logit with its noise.
    fn sample_wide(&self, logits: &Tensor, p: params::Sample) -> Result<Tensor> {
        let count = logits.shape().count();
        let counts = Tensor::zeros(&[32, p.rows as usize], DType::U32, &logits.device())?;
        if p.top_k < p.width {
            let pipeline = self.pipeline(&Variant::sample(SampleStage::Count))?;
            for round in 0..32 {
                self.record(Dispatch {
                    pipeline: &pipeline,
                    buffers: &[logits.gpu_buffer(), counts.gpu_buffer()],
                    params: bytemuck::bytes_of(&params::Sample { round, ..p }),
                    groups: [p.width.div_ceil(Variant::SAMPLE_SPAN), p.rows, 1],
                    work: count as u64,
                })?;
            }
        }
        let noisy = Tensor::gpu_uninit(self, *logits.shape(), DType::F32, "sample")?;
        let pipeline = self.pipeline(&Variant::sample(SampleStage::Noise))?;
        let (groups, groups_x) = self.elementwise_groups(count);
        self.record(Dispatch {
            pipeline: &pipeline,
            buffers: &[logits.gpu_buffer(), counts.gpu_buffer(), noisy.gpu_buffer()],
            params: bytemuck::bytes_of(&params::Sample { groups_x, ..p }),
            groups,
            work: count as u64,
        })?;
        noisy.argmax(1)
    }
}

/// The widest row for which one workgroup of 64 lanes stays within the device's loop iterations: 32 bits of the
/// threshold with a pass and a sum each, then a pass and a sum for the result. Wider rows use the whole device.
fn widest(gpu: &Gpu) -> u64 {
    let sweeps = gpu.max_loop_iterations().saturating_sub(32 + 33 * 6) / 33;
    (64 * u64::from(sweeps)).min(1 << 16)
}
