//! CTC (`ctc_labels.wgsl`, `ctc_paths.wgsl`, `ctc_gradient.wgsl`).

use super::parts;
use crate::gpu::{Dispatch, Gpu};
use crate::{CtcRule, DType, Error, Reduction, Result, Shape, Tensor, concat};
use recurve_shaders::{Valid, Variant, params};

/// What the passes read.
struct Batch<'a> {
    gpu: &'a Gpu,
    x: &'a Tensor,
    info: Tensor,
    /// For logits.
    sums: Option<Tensor>,
    valid: Option<&'a Tensor>,
    rule: CtcRule,
    labels: usize,
}

const CTC: &str = "ctc";

impl<'a> Batch<'a> {
    fn new(gpu: &'a Gpu, x: &'a Tensor, labels: &Tensor, valid: Option<&'a Tensor>, rule: CtcRule) -> Result<Self> {
        let most = labels.shape().last();
        gpu.check_iterations(most)?;
        let shape = Shape::checked(CTC, &[x.dims()[0], 2 * most + 1])?;
        let info = Tensor::gpu_uninit(gpu, shape, DType::U32, CTC)?;
        let pipeline = gpu.pipeline(&Variant::ctc_labels(labels.dtype().element()))?;
        let (groups, groups_x) = gpu.elementwise_groups(shape.count());
        let p = params::CtcLabels {
            count: shape.count() as u32,
            groups_x,
            labels: most as u32,
            classes: x.dims()[2] as u32,
            blank: rule.blank as u32,
            ..Default::default()
        };
        gpu.record(Dispatch {
            pipeline: &pipeline,
            buffers: &[labels.gpu_buffer(), info.gpu_buffer()],
            params: bytemuck::bytes_of(&p),
            groups,
            work: (shape.count() * most) as u64,
        })?;
        let sums = if rule.from_logits { Some(x.reduce(Reduction::LogSumExp, 2)?) } else { None };
        Ok(Self { gpu, x, info, sums, valid, rule, labels: most })
    }

    fn how(&self) -> Valid {
        match self.valid {
            None => Valid::All,
            Some(v) if v.shape().rank() == 1 => Valid::Lengths,
            Some(_) => Valid::Mask,
        }
    }

    /// What all passes bind first. A buffer that a variant does not read must still be bound.
    fn inputs(&self) -> [&Tensor; 4] {
        [&self.info, self.x, self.sums.as_ref().unwrap_or(self.x), self.valid.unwrap_or(&self.info)]
    }

    /// Goes through the timesteps, from the last one on if `reverse`.
    fn pass(&self, losses: &Tensor, reverse: bool) -> Result<Tensor> {
        let &[batch, timesteps, classes] = self.x.dims() else { unreachable!("checked to have three dimensions") };
        let width = 2 * self.labels + 1;
        let paths = Tensor::gpu_uninit(self.gpu, Shape::checked(CTC, &[batch, timesteps, width])?, DType::F32, CTC)?;
        let pipeline = self.gpu.pipeline(&Variant::ctc_paths(self.rule.from_logits, self.how(), reverse))?;
        let groups_x = (batch as u32).min(self.gpu.max_workgroups());
        let groups = [groups_x, (batch as u32).div_ceil(groups_x), 1];
        // Two more loops through the places, and one through the lanes, where the largest is taken away.
        let per_step = 3 * width.div_ceil(Variant::CTC_LANES as usize) + 8;
        self.gpu.check_iterations(per_step)?;
        let step_work = (batch * width) as u64;
        let steps = (self.gpu.max_work() / step_work).clamp(1, u32::MAX.into()) as u32;
        let steps = steps.min(self.gpu.max_loop_iterations() / per_step as u32);
        let [info, x, sums, valid] = self.inputs().map(Tensor::gpu_buffer);
        for (first, steps) in parts(timesteps as u32, steps) {
            let p = params::CtcPaths {
                batch: batch as u32,
                timesteps: timesteps as u32,
                classes: classes as u32,
                labels: self.labels as u32,
                blank: self.rule.blank as u32,
                first,
                steps,
                groups_x,
                zero_infinity: self.rule.zero_infinity.into(),
                ..Default::default()
            };
            self.gpu.record(Dispatch {
                pipeline: &pipeline,
                buffers: &[info, x, sums, valid, paths.gpu_buffer(), losses.gpu_buffer()],
                params: bytemuck::bytes_of(&p),
                groups,
                work: step_work * u64::from(steps),
            })?;
        }
        Ok(paths)
    }
}

impl Gpu {
    /// Losses and paths.
    pub(crate) fn ctc(
        &self,
        x: &Tensor,
        labels: &Tensor,
        valid: Option<&Tensor>,
        rule: CtcRule,
    ) -> Result<(Tensor, Tensor)> {
        let batch = Batch::new(self, x, labels, valid, rule)?;
        let losses = Tensor::gpu_uninit(self, Shape::checked(CTC, &x.dims()[..1])?, DType::F32, CTC)?;
        let paths = batch.pass(&losses, false)?;
        Ok((losses, paths))
    }

    /// The gradient, from losses, paths and the gradients of the losses.
    pub(crate) fn ctc_gradient(
        &self,
        x: &Tensor,
        labels: &Tensor,
        valid: Option<&Tensor>,
        rule: CtcRule,
        [losses, paths, dy]: [&Tensor; 3],
    ) -> Result<Tensor> {
        let batch = Batch::new(self, x, labels, valid, rule)?;
        let &[rows, timesteps, classes] = x.dims() else { unreachable!("checked to have three dimensions") };
        let lanes = Variant::CTC_LANES as usize;
        // Three sums over the lanes; one lane may add all labels.
        let places = (2 * batch.labels + 1).div_ceil(lanes);
        self.check_iterations(2 * places + classes.div_ceil(lanes) + 2 * batch.labels + 3 * 8)?;
        let ends = concat(&[losses, dy], 0)?;
        let shares = batch.pass(losses, true)?;
        let out = Tensor::gpu_uninit(self, *x.shape(), DType::F32, CTC)?;
        let pipeline = self.pipeline(&Variant::ctc_gradient(rule.from_logits, batch.how()))?;
        let all = rows * timesteps;
        let groups_x = (all as u32).min(self.max_workgroups());
        let p = params::CtcGradient {
            batch: rows as u32,
            timesteps: timesteps as u32,
            classes: classes as u32,
            labels: batch.labels as u32,
            blank: rule.blank as u32,
            groups_x,
            ..Default::default()
        };
        let [info, x, sums, valid] = batch.inputs().map(Tensor::gpu_buffer);
        let (ends, shares) = (ends.gpu_buffer(), shares.gpu_buffer());
        self.record(Dispatch {
            pipeline: &pipeline,
            buffers: &[info, x, sums, valid, paths.gpu_buffer(), shares, ends, out.gpu_buffer()],
            params: bytemuck::bytes_of(&p),
            groups: [groups_x, (all as u32).div_ceil(groups_x), 1],
            work: (all * (classes + 4 * batch.labels)) as u64,
        })?;
        Ok(out)
    }

    /// Checks that a lane may go through loops so many times.
    fn check_iterations(&self, count: usize) -> Result<()> {
        if count <= self.max_loop_iterations() as usize {
            return Ok(());
        }
        let (feature, device) = ("loops of so many iterations, one for each label", self.summary().name.clone());
        Err(Error::Unsupported { operation: CTC, feature, device })
    }
}
