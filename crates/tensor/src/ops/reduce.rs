//! Reductions over one axis (`reduce.wgsl`).

use crate::gpu::{Dispatch, Gpu};
use crate::{DType, Device, Error, Result, Shape, Tensor};
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
                            Reduction::Sum => values.sum(),
                            Reduction::Mean => values.sum::<f32>() / a.len as f32,
                            Reduction::Max => values.fold(f32::NEG_INFINITY, |m, v| if v <= m { m } else { v }),
                            Reduction::Min => values.fold(f32::INFINITY, |m, v| if v >= m { m } else { v }),
                        };
                    }
                    Ok(())
                })
            }
            Device::Gpu(gpu) => {
                let out = Self::gpu_uninit(&gpu, a.result, self.dtype(), "reduce")?;
                let variant = Variant::reduce(self.dtype().element(), reduction as u32);
                self.reduce_on(&gpu, &a, &variant, &out)?;
                Ok(out)
            }
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
            Device::Gpu(gpu) => {
                let out = Self::gpu_uninit(&gpu, a.result, DType::U32, "argmax")?;
                self.reduce_on(&gpu, &a, &Variant::argmax(self.dtype().element()), &out)?;
                Ok(out.with_bound(bound))
            }
        }
    }

    fn reduce_on(&self, gpu: &Gpu, a: &Axis, variant: &Variant, out: &Self) -> Result<()> {
        let pipeline = gpu.pipeline(variant)?;
        let results = a.result.count();
        let (groups, groups_x) = gpu.elementwise_groups(results);
        let most = gpu.max_loop_iterations().min(1 << 20) as usize;
        for first in (0..a.len).step_by(most) {
            let p = params::Reduce {
                results: results as u32,
                groups_x,
                axis: a.len as u32,
                inner: a.inner as u32,
                first: first as u32,
                count: most.min(a.len - first) as u32,
                ..Default::default()
            };
            gpu.record(Dispatch {
                pipeline: &pipeline,
                buffers: &[self.gpu_buffer(), out.gpu_buffer()],
                params: bytemuck::bytes_of(&p),
                groups,
            })?;
        }
        Ok(())
    }
}

/// A tensor seen as [outer, axis, inner].
struct Axis {
    len: usize,
    inner: usize,
    result: Shape,
}

impl Axis {
    fn of(t: &Tensor, axis: usize) -> Self {
        let dims = t.dims();
        Self { len: dims[axis], inner: dims[axis + 1..].iter().product(), result: t.shape().with(axis, 1) }
    }

    /// Where the elements of result `e` are.
    fn values(&self, e: usize) -> impl Iterator<Item = usize> + use<> {
        let base = (e / self.inner) * self.len * self.inner + e % self.inner;
        (base..).step_by(self.inner).take(self.len)
    }
}
