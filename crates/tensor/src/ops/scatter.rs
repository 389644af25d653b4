//! Updates at indices (`scatter.wgsl`).

use super::copy::Span;
use super::take::Indices;
use crate::{DType, Device, Error, MAX_RANK, Result, Shape, Tensor};

/// What an update makes of the element that it meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// The update.
    Replace,
    /// Their sum.
    Add,
    /// Their product.
    Mul,
    /// The larger.
    Max,
    /// The smaller.
    Min,
}

impl Update {
    #[cfg_attr(not(feature = "gpu"), expect(dead_code, reason = "only GPUs use it"))]
    pub(crate) const fn code(self) -> u32 {
        self as u32
    }

    /// Of f32: NaN wins.
    fn apply(self, old: f32, update: f32) -> f32 {
        match self {
            Self::Replace => update,
            Self::Add => old + update,
            Self::Mul => old * update,
            Self::Max if old.is_nan() || old >= update => old,
            Self::Min if old.is_nan() || old <= update => old,
            Self::Max | Self::Min => update,
        }
    }
}

/// Where updates go: a lane makes `steps` of them one after the other, and lanes do not meet.
#[derive(Clone, Copy, Debug)]
pub struct Scatter {
    pub(crate) lanes: Shape,
    pub(crate) data: Shape,
    pub(crate) indices: Shape,
    pub(crate) updates: Shape,
    pub(crate) data_strides: [usize; MAX_RANK],
    pub(crate) index_strides: [usize; MAX_RANK],
    #[cfg_attr(not(feature = "gpu"), expect(dead_code, reason = "only GPUs use it"))]
    pub(crate) update_strides: [usize; MAX_RANK],
    pub(crate) steps: usize,
    pub(crate) index_step: usize,
    #[cfg_attr(not(feature = "gpu"), expect(dead_code, reason = "only GPUs use it"))]
    pub(crate) update_step: usize,
    /// Of each index the size of its axis and the stride of the data.
    pub(crate) axes: [(usize, usize); MAX_RANK],
    pub(crate) components: usize,
}

const SCATTER: &str = "scatter";

impl Scatter {
    /// An update for each index, at its own place but along one axis, where the index says.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such axis; [`Error::Shape`] if the indices have other dimensions than the
    /// data, or larger ones.
    pub fn elements(data: &Shape, axis: usize, indices: &Shape) -> Result<Self> {
        if axis >= data.rank() {
            let message = format!("is {axis}, but the shape {data} has {} dimensions", data.rank());
            return Err(Error::Argument { operation: SCATTER, argument: "axis", message });
        }
        let fits = |(d, (&i, &n)): (usize, (&usize, &usize))| d == axis || i <= n;
        if indices.rank() != data.rank() || !indices.iter().zip(data.iter()).enumerate().all(fits) {
            let expected = format!("no larger than {data} but along axis {axis}");
            return Err(Error::shape(SCATTER, "indices", expected, indices));
        }
        let mut data_strides = data.strides();
        let mut axes = [(1, 0); MAX_RANK];
        axes[0] = (data[axis], core::mem::take(&mut data_strides[axis]));
        let strides = indices.strides();
        Ok(Self {
            lanes: indices.with(axis, 1),
            data: *data,
            indices: *indices,
            updates: *indices,
            data_strides,
            index_strides: strides,
            update_strides: strides,
            steps: indices[axis],
            index_step: strides[axis],
            update_step: strides[axis],
            axes,
            components: 1,
        })
    }

    /// A slice of updates for each tuple of indices, the last dimension of the indices, into the first axes.
    ///
    /// # Errors
    /// [`Error::Shape`] if a tuple is longer than the data has axes; [`Error::Argument`] if there is no shape of the
    /// updates.
    pub fn tuples(data: &Shape, indices: &Shape) -> Result<Self> {
        let components = indices.last();
        if indices.rank() == 0 || components > data.rank() {
            let expected = format!("[…, n] with at most as many indices as {data} has axes");
            return Err(Error::shape(SCATTER, "indices", expected, indices));
        }
        let (indexed, rest) = data.split_at(components);
        let inner: usize = rest.iter().product();
        let mut dims = [0; 2 * MAX_RANK];
        let rank = indices.rank() - 1 + rest.len();
        let all = indices[..indices.rank() - 1].iter().chain(rest);
        dims.iter_mut().zip(all).for_each(|(o, &d)| *o = d);
        let mut axes = [(1, 0); MAX_RANK];
        let mut stride = inner;
        for (k, &size) in indexed.iter().enumerate().rev() {
            axes[k] = (size, stride);
            stride *= size;
        }
        let ones = [1, 0, 0, 0, 0, 0];
        Ok(Self {
            lanes: Shape::checked(SCATTER, &[inner])?,
            data: *data,
            indices: *indices,
            updates: Shape::checked(SCATTER, &dims[..rank])?,
            data_strides: ones,
            index_strides: [0; MAX_RANK],
            update_strides: ones,
            steps: indices.count() / components,
            index_step: components,
            update_step: inner,
            axes,
            components,
        })
    }

    /// Indices into all elements of the data, in so many parts of neighbouring indices, of which none names an element
    /// that another names.
    ///
    /// # Errors
    /// [`Error::Argument`] if the parts are not equal.
    pub fn apart(data: &Shape, indices: &Shape, parts: usize) -> Result<Self> {
        let steps = indices.count().checked_div(parts).filter(|steps| steps * parts == indices.count());
        let steps = steps.ok_or_else(|| Error::Argument {
            operation: SCATTER,
            argument: "parts",
            message: format!("is {parts}, but must divide the {} indices of {indices}", indices.count()),
        })?;
        let mut strides = [0; MAX_RANK];
        strides[0] = steps;
        let mut axes = [(1, 0); MAX_RANK];
        axes[0] = (data.count(), 1);
        Ok(Self {
            lanes: Shape::checked(SCATTER, &[parts])?,
            data: *data,
            indices: *indices,
            updates: *indices,
            data_strides: [0; MAX_RANK],
            index_strides: strides,
            update_strides: strides,
            steps,
            index_step: 1,
            update_step: 1,
            axes,
            components: 1,
        })
    }

    /// The shape that updates must have.
    pub fn updates(&self) -> &Shape {
        &self.updates
    }

    /// The updates in host memory; `place` gives where an index stands in an axis, by its place among the indices
    /// and the axis's size.
    ///
    /// # Panics
    /// If a slice has another length than the shapes say.
    pub fn update<T: Copy>(
        &self,
        place: impl Fn(usize, usize) -> Option<usize>,
        updates: &[T],
        out: &mut [T],
        f: impl Fn(T, T) -> T,
    ) {
        let goal = |at: usize| {
            let mut axes = self.axes[..self.components].iter().enumerate();
            axes.try_fold(0, |goal, (k, &(size, stride))| Some(goal + place(at + k, size)? * stride))
        };
        if self.index_strides == [0; MAX_RANK] {
            let run = self.lanes.count();
            for (step, updates) in updates.chunks_exact(run).enumerate() {
                if let Some(goal) = goal(step * self.index_step) {
                    out[goal..][..run].iter_mut().zip(updates).for_each(|(o, &u)| *o = f(*o, u));
                }
            }
            return;
        }
        // Indices and updates have the same strides.
        super::walk(&self.lanes, &self.data_strides, &self.index_strides, |origin, at| {
            for step in 0..self.steps {
                let at = at + step * self.index_step;
                if let Some(goal) = goal(at) {
                    let o = &mut out[origin + goal];
                    *o = f(*o, updates[at]);
                }
            }
        });
    }
}

impl Tensor {
    /// This tensor with updates at the places that `s` and the indices say, one after the other where several meet.
    /// Indices that are outside change nothing.
    ///
    /// # Errors
    /// [`Error::Shape`] if the tensor, the indices or the updates have another shape than `s` was made for,
    /// [`Error::DType`] unless tensor and updates are f32 and indices f32 or U32, [`Error::Device`] if they are on
    /// different devices; errors of the device.
    pub fn scatter(&self, s: &Scatter, indices: Indices<'_>, updates: &Self, update: Update) -> Result<Self> {
        self.clone().scatter_into(s, indices, updates, update)
    }

    /// [`Self::scatter`] into the memory of this tensor, if it is on the CPU and no other tensor has the same memory.
    ///
    /// # Errors
    /// As [`Self::scatter`].
    pub fn scatter_into(self, s: &Scatter, indices: Indices<'_>, updates: &Self, update: Update) -> Result<Self> {
        for (argument, t, shape) in [("self", &self, &s.data), ("updates", updates, &s.updates)] {
            t.check_dtype(SCATTER, argument, "f32", t.dtype() == DType::F32)?;
            if t.shape() != shape {
                return Err(Error::shape(SCATTER, argument, shape.to_string(), t.shape()));
            }
        }
        self.check_same_device(updates, SCATTER, "updates")?;
        indices.check(SCATTER, &self, &s.indices)?;
        match self.device() {
            Device::Cpu => self.cpu_update(|out| {
                let updates = updates.cpu_f32().expect("f32 on the CPU");
                indices.on_cpu(|place| match update {
                    Update::Replace => s.update(place, updates, out, |_, u| u),
                    _ => s.update(place, updates, out, |old, u| update.apply(old, u)),
                });
            }),
            Device::Gpu(gpu) => {
                let out = gpu.assemble(s.data, &[&self], [Span::whole(s.data)].into_iter(), SCATTER)?;
                gpu.scatter(&out, &indices.to_tensor(&self.device())?, updates, s, update)?;
                Ok(out)
            }
        }
    }
}
