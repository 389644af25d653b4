//! `update.wgsl`

use crate::gpu::{Dispatch, Gpu};
use crate::ops::Span;
use crate::{Decay, Descent, Result, Tensor};
use recurve_shaders::{Variant, params};
use std::sync::Arc;

impl Gpu {
    /// Steps of an optimiser: of a parameter and its states, in place.
    pub(crate) fn descend(
        &self,
        tensors: Vec<Tensor>,
        gradient: &Tensor,
        rates: &Tensor,
        rule: Descent,
        decay: Decay,
    ) -> Result<Vec<Tensor>> {
        let tensors = tensors.into_iter().map(|t| self.own(t)).collect::<Result<Vec<_>>>()?;
        let pipeline = self.pipeline(&Variant::update(rule, decay))?;
        let count = gradient.shape().count();
        let (groups, groups_x) = self.elementwise_groups(count);
        let p = params::Update { count: count as u32, groups_x, ..Default::default() };
        let buffers: Vec<_> = [rates, gradient].into_iter().chain(&tensors).map(|t| t.gpu_buffer()).collect();
        self.record(Dispatch {
            pipeline: &pipeline,
            buffers: &buffers,
            params: bytemuck::bytes_of(&p),
            groups,
            work: count as u64,
        })?;
        Ok(tensors)
    }

    /// A tensor in memory that no other tensor has: itself, or a copy.
    fn own(&self, t: Tensor) -> Result<Tensor> {
        // The pool has a reference to every buffer, and gives away only those to which nobody else has one.
        if Arc::strong_count(t.gpu_buffer()) <= 2 {
            return Ok(t);
        }
        self.assemble(*t.shape(), &[&t], [Span::whole(*t.shape())].into_iter(), "descend")
    }
}
