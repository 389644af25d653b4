//! Reductions over one axis (`reduce.wgsl`).

use crate::gpu::{Dispatch, Gpu};
use crate::{DType, Device, Error, MAX_RANK, Result, Shape, Tensor};
use recurve_shaders::{Variant, params};

/// Whether a comes before b where the largest is looked for: NaN comes before every number.
pub(super) fn is_above(a: f32, b: f32) -> bool {
    !b.is_nan() && (a.is_nan() || a > b)
}

/// What a reduction computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Sum.
    Sum,
    /// Arithmetic mean.
    Mean,
    /// Largest element.
    Max,
    /// Smallest element.
    Min,
}

impl Tensor {
    /// Reduces `axis` to size 1.
    ///
    /// Sums of n elements are off by at most `2⁻²³ · Σ|x|` on the CPU, which adds in f64, and by
    /// `20 · ⌈log₁₂₈ n⌉ · 2⁻²⁴ · Σ|x|` on a GPU, which adds blocks of 128, and the sums of blocks in blocks; a mean
    /// is the sum divided by n. f16 is summed in f32 and rounded once.
    ///
    /// # Errors
    /// [`crate::Error::DType`] unless it is a float; [`crate::Error::Argument`] if there is no such axis.
    pub fn reduce(&self, reduction: Reduction, axis: usize) -> Result<Self> {
        self.check_float("reduce", "self")?;
        self.check_axis("reduce", axis)?;
        let a = Axis::of(self, axis);
        match self.device() {
            Device::Cpu if self.dtype() == DType::F16 => {
                self.to_dtype(DType::F32)?.reduce(reduction, axis)?.to_dtype(DType::F16)
            }
            Device::Cpu => {
                let x = self.cpu_f32().expect("f32 on the CPU");
                Self::cpu_write(a.result, |out| {
                    for (e, o) in out.iter_mut().enumerate() {
                        let values = a.values(e).map(|i| x[i]);
                        // Comparisons that NaN wins, so that it is not lost.
                        *o = match reduction {
                            Reduction::Sum => sum(values) as f32,
                            Reduction::Mean => (sum(values) / a.len as f64) as f32,
                            Reduction::Max => values.fold(f32::NEG_INFINITY, |m, v| if v <= m { m } else { v }),
                            Reduction::Min => values.fold(f32::INFINITY, |m, v| if v >= m { m } else { v }),
                        };
                    }
                    Ok(())
                })
            }
            Device::Gpu(gpu) => self.reduce_on(&gpu, reduction, &a),
        }
    }

    /// The index of the largest element along `axis`, which is reduced to size 1; the first of
    /// several, and of the first NaN if there is one, as in PyTorch and NumPy. A U32 tensor, fit for [`Self::gather`].
    ///
    /// # Errors
    /// As [`Self::reduce`].
    pub fn argmax(&self, axis: usize) -> Result<Self> {
        self.check_float("argmax", "self")?;
        self.check_axis("argmax", axis)?;
        let a = Axis::of(self, axis);
        let Ok(bound) = u32::try_from(a.len - 1) else {
            return Err(Error::shape("argmax", "self", "of at most 2^32 elements along the axis", self.shape()));
        };
        match self.device() {
            Device::Cpu => {
                let wide = self.to_dtype(DType::F32)?;
                let x = wide.cpu_f32().expect("f32 on the CPU");
                Self::cpu_u32_write(a.result, bound, |out| {
                    for (e, o) in out.iter_mut().enumerate() {
                        let mut best = (0, f32::NEG_INFINITY);
                        for (n, i) in a.values(e).enumerate() {
                            if is_above(x[i], best.1) {
                                best = (n as u32, x[i]);
                            }
                        }
                        *o = best.0;
                    }
                })
            }
            Device::Gpu(gpu) => Ok(self.argmax_on(&gpu, &a)?.with_bound(bound)),
        }
    }

    fn reduce_on(&self, gpu: &Gpu, reduction: Reduction, a: &Axis) -> Result<Self> {
        let operation = match reduction {
            Reduction::Sum | Reduction::Mean => 0,
            Reduction::Max => 2,
            Reduction::Min => 3,
        };
        let mut source = self.clone();
        for pass in a.passes(gpu) {
            let last = pass.blocks == 1;
            // Sums of blocks are f32 whatever the elements are.
            let dtype = if last { self.dtype() } else { DType::F32 };
            let out = Self::gpu_uninit(gpu, a.shape(pass.blocks), dtype, "reduce")?;
            let pipeline = gpu.pipeline(&Variant::reduce(source.dtype().element(), dtype.element(), operation))?;
            let divisor = if last && reduction == Reduction::Mean { a.len as f32 } else { 1.0 };
            let (p, groups) = a.params(gpu, &pass, divisor);
            gpu.record(Dispatch {
                pipeline: &pipeline,
                buffers: &[source.gpu_buffer(), out.gpu_buffer()],
                params: bytemuck::bytes_of(&p),
                groups,
                work: source.shape().count() as u64,
            })?;
            source = out;
        }
        Ok(source)
    }

    fn argmax_on(&self, gpu: &Gpu, a: &Axis) -> Result<Self> {
        let mut places: Option<Self> = None;
        for pass in a.passes(gpu) {
            let out = Self::gpu_uninit(gpu, a.shape(pass.blocks), DType::U32, "argmax")?;
            let pipeline = gpu.pipeline(&Variant::argmax(self.dtype().element(), places.is_some()))?;
            let (p, groups) = a.params(gpu, &pass, 1.0);
            // In the first pass any buffer that is read stands in for the places.
            let source = places.as_ref().unwrap_or(self);
            gpu.record(Dispatch {
                pipeline: &pipeline,
                buffers: &[self.gpu_buffer(), source.gpu_buffer(), out.gpu_buffer()],
                params: bytemuck::bytes_of(&p),
                groups,
                work: source.shape().count() as u64,
            })?;
            places = Some(out);
        }
        Ok(places.expect("an axis has at least one element, so one pass"))
    }
}

/// A sum in f64: of f32 it is off by less than rounding to f32 is.
pub(super) fn sum(values: impl Iterator<Item = f32>) -> f64 {
    values.map(f64::from).sum()
}

/// A tensor seen as [outer, axis, inner].
struct Axis {
    len: usize,
    outer: usize,
    inner: usize,
    result: Shape,
}

/// One dispatch: `len` elements of the axis become one for each of `blocks`.
struct Pass {
    len: usize,
    blocks: usize,
}

impl Axis {
    fn of(t: &Tensor, axis: usize) -> Self {
        let dims = t.dims();
        Self {
            len: dims[axis],
            outer: dims[..axis].iter().product(),
            inner: dims[axis + 1..].iter().product(),
            result: t.shape().with(axis, 1),
        }
    }

    /// Where the elements of result `e` are.
    fn values(&self, e: usize) -> impl Iterator<Item = usize> + use<> {
        let base = (e / self.inner) * self.len * self.inner + e % self.inner;
        (base..).step_by(self.inner).take(self.len)
    }

    /// The dispatches that it takes.
    fn passes(&self, gpu: &Gpu) -> impl Iterator<Item = Pass> + use<> {
        let block = Variant::REDUCE_BLOCK.min(gpu.max_loop_iterations()).max(2) as usize;
        let pass = move |len: usize| Pass { len, blocks: len.div_ceil(block) };
        core::iter::successors(Some(pass(self.len)), move |p| (p.blocks > 1).then(|| pass(p.blocks)))
    }

    /// The shape of what a pass puts out: that of the result at the end.
    fn shape(&self, blocks: usize) -> Shape {
        const { assert!(MAX_RANK >= 3) };
        match blocks {
            1 => self.result,
            _ => Shape::new(&[self.outer, blocks, self.inner]).expect("smaller than a tensor that exists"),
        }
    }

    fn params(&self, gpu: &Gpu, pass: &Pass, divisor: f32) -> (params::Reduce, [u32; 3]) {
        let results = self.outer * pass.blocks * self.inner;
        let (groups, groups_x) = gpu.elementwise_groups(results);
        let p = params::Reduce {
            results: results as u32,
            groups_x,
            axis: pass.len as u32,
            inner: self.inner as u32,
            blocks: pass.blocks as u32,
            divisor,
            whole: self.len as u32,
            unused: 0,
        };
        (p, groups)
    }
}
