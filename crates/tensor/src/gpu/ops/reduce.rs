//! Reductions along an axis (`reduce.wgsl`).

use crate::gpu::{Dispatch, Gpu};
use crate::ops::{After, Axis, Before};
use crate::{DType, Extreme, MAX_RANK, Reduction, Result, Shape, Tensor};
use recurve_shaders::{Variant, params};

impl Gpu {
    /// `after` is what is done to a maximum; the others say so themselves.
    pub(crate) fn reduce(&self, x: &Tensor, reduction: Reduction, after: After, a: &Axis) -> Result<Tensor> {
        let (operation, before, after) = match reduction {
            Reduction::Sum | Reduction::Mean => (0, Before::Nothing, after),
            Reduction::Product => (1, Before::Nothing, after),
            Reduction::Max => (2, Before::Nothing, after),
            Reduction::Min => (3, Before::Nothing, after),
            Reduction::L1 => (0, Before::Absolute, after),
            Reduction::L2 => (0, Before::Square, After::Root),
            Reduction::SumSquare => (0, Before::Square, after),
            Reduction::LogSum | Reduction::LogSumExp => (0, Before::Nothing, After::Logarithm),
        };
        let mut source = x.clone();
        let mut before = before;
        for pass in a.passes(self) {
            let last = pass.blocks == 1;
            // Partial results are f32, whatever the element type.
            let dtype = if last { x.dtype() } else { DType::F32 };
            let out = Tensor::gpu_uninit(self, a.shape(pass.blocks), dtype, "reduce")?;
            let after = if last { after } else { After::Nothing };
            let (element, result) = (source.dtype().element(), dtype.element());
            let variant = Variant::reduce(element, result, operation, before as u32, after as u32);
            let pipeline = self.pipeline(&variant)?;
            let divisor = if last && reduction == Reduction::Mean { a.len as f32 } else { 1.0 };
            let (p, groups) = a.params(self, &pass, divisor);
            self.record(Dispatch {
                pipeline: &pipeline,
                buffers: &[source.gpu_buffer(), out.gpu_buffer()],
                params: bytemuck::bytes_of(&p),
                groups,
                work: source.shape().count() as u64,
            })?;
            source = out;
            before = Before::Nothing;
        }
        Ok(source)
    }

    pub(crate) fn argmax(&self, x: &Tensor, a: &Axis, which: Extreme) -> Result<Tensor> {
        let mut places: Option<Tensor> = None;
        for pass in a.passes(self) {
            let out = Tensor::gpu_uninit(self, a.shape(pass.blocks), DType::U32, "argmax")?;
            let pipeline = self.pipeline(&Variant::argmax(x.dtype().element(), places.is_some()))?;
            let (p, groups) = a.params(self, &pass, if which.smallest { -1.0 } else { 1.0 });
            let p = params::Reduce { last: which.last.into(), ..p };
            // The first pass has no indices yet; the binding gets another buffer, which is not read.
            let source = places.as_ref().unwrap_or(x);
            self.record(Dispatch {
                pipeline: &pipeline,
                buffers: &[x.gpu_buffer(), source.gpu_buffer(), out.gpu_buffer()],
                params: bytemuck::bytes_of(&p),
                groups,
                work: source.shape().count() as u64,
            })?;
            places = Some(out);
        }
        Ok(places.expect("an axis has at least one element, so one pass"))
    }
}

/// One dispatch: reduces the `len` elements along the axis to one for each of `blocks`.
struct Pass {
    len: usize,
    blocks: usize,
}

impl Axis {
    fn outer(&self) -> usize {
        self.result.count() / self.inner
    }

    /// The passes of the reduction, in order.
    fn passes(&self, gpu: &Gpu) -> impl Iterator<Item = Pass> + use<> {
        let block = Variant::REDUCE_BLOCK.min(gpu.max_loop_iterations()).max(2) as usize;
        let pass = move |len: usize| Pass { len, blocks: len.div_ceil(block) };
        core::iter::successors(Some(pass(self.len)), move |p| (p.blocks > 1).then(|| pass(p.blocks)))
    }

    /// The shape of a pass's output; that of the last pass is the shape of the result.
    fn shape(&self, blocks: usize) -> Shape {
        const { assert!(MAX_RANK >= 3) };
        match blocks {
            1 => self.result,
            _ => Shape::new(&[self.outer(), blocks, self.inner]).expect("smaller than a tensor that exists"),
        }
    }

    fn params(&self, gpu: &Gpu, pass: &Pass, divisor: f32) -> (params::Reduce, [u32; 3]) {
        let results = self.outer() * pass.blocks * self.inner;
        let (groups, groups_x) = gpu.elementwise_groups(results);
        let p = params::Reduce {
            results: results as u32,
            groups_x,
            axis: pass.len as u32,
            inner: self.inner as u32,
            blocks: pass.blocks as u32,
            divisor,
            whole: self.len as u32,
            last: 0,
        };
        (p, groups)
    }
}
