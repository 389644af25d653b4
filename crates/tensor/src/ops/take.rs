//! Elements by indices along axes (`take.wgsl`).

use super::walk;
use crate::{DType, Device, Error, MAX_RANK, Result, Shape, Tensor};

/// Indices into axes.
#[derive(Clone, Copy, Debug)]
pub enum Indices<'a> {
    /// In host memory; those below zero, or beyond the axis, are outside.
    Host(&'a [i64]),
    /// On the operands' device, f32 or U32. Negative ones count from the end, fractions are cut off.
    Device(&'a Tensor),
}

impl Indices<'_> {
    /// Runs `f` with what gives the place of an index in an axis, on the CPU.
    pub(super) fn on_cpu<R>(self, f: impl FnOnce(&dyn Fn(usize, usize) -> Option<usize>) -> R) -> R {
        match self {
            Self::Host(i) => f(&|at, size| usize::try_from(i[at]).ok().filter(|&i| i < size)),
            Self::Device(t) => match (t.cpu_f32(), t.cpu_u32()) {
                (Some(i), _) => f(&|at, size| place(i[at], size)),
                (_, Some(i)) => f(&|at, size| Some(i[at] as usize).filter(|&i| i < size)),
                _ => unreachable!("checked to be f32 or U32 on the CPU"),
            },
        }
    }

    /// Checks that there are as many as `shape` says.
    pub(super) fn check(self, operation: &'static str, on: &Tensor, shape: &Shape) -> Result<()> {
        let argument = "indices";
        match self {
            Self::Host(i) if i.len() == shape.count() => Ok(()),
            Self::Host(i) => {
                let message = format!("are {}, but must be {}", i.len(), shape.count());
                Err(Error::Argument { operation, argument, message })
            }
            Self::Device(t) => {
                on.check_same_device(t, operation, argument)?;
                t.check_dtype(operation, argument, "f32 or u32", t.dtype() != DType::F16)?;
                match t.shape().count() == shape.count() {
                    true => Ok(()),
                    false => Err(Error::shape(operation, argument, shape.to_string(), t.shape())),
                }
            }
        }
    }

    /// As a tensor on a device.
    pub(super) fn to_tensor(self, device: &Device) -> Result<Tensor> {
        match self {
            Self::Device(t) => Ok(t.clone()),
            Self::Host(i) => {
                let mut all = crate::cpu::host("indices", i.len())?;
                // What is outside is outside of every axis.
                all.iter_mut().zip(i).for_each(|(o, &i)| *o = u32::try_from(i).unwrap_or(u32::MAX));
                Tensor::from_u32(&all, &[i.len()], device)
            }
        }
    }
}

/// The place of an index in an axis of so many, from the end if it is negative.
fn place(index: f32, size: usize) -> Option<usize> {
    let v = index.trunc();
    let most = size as f32;
    let v = if v >= -most && v < 0.0 { v + most } else { v };
    (v >= 0.0 && v < most).then_some(v as usize).filter(|&i| i < size)
}

/// Where the elements of a look-up stand: at indices into some axes of the data, and at places of the others that
/// follow from the element's own.
#[derive(Clone, Copy, Debug)]
pub struct Take {
    /// What is gone through; the result has the same elements.
    pub(crate) view: Shape,
    pub(crate) data: Shape,
    pub(crate) indices: Shape,
    pub(crate) data_strides: [usize; MAX_RANK],
    pub(crate) index_strides: [usize; MAX_RANK],
    /// Of each index the size of its axis and the stride of the data.
    pub(crate) axes: [(usize, usize); MAX_RANK],
    pub(crate) components: usize,
    result: Shape,
}

const TAKE: &str = "take";

fn bad(argument: &'static str, message: String) -> Error {
    Error::Argument { operation: TAKE, argument, message }
}

impl Take {
    /// Whole slices of `data` by indices into one axis: the axis becomes the dimensions of the indices.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such axis, or no shape of so many dimensions.
    pub fn along(data: &Shape, axis: usize, indices: &Shape) -> Result<Self> {
        let Some(&size) = data.get(axis) else {
            return Err(bad("axis", format!("is {axis}, but the shape {data} has {} dimensions", data.rank())));
        };
        let (outer, inner): (usize, usize) = (data[..axis].iter().product(), data[axis + 1..].iter().product());
        let mut dims = [0; 2 * MAX_RANK];
        let rank = data.rank() - 1 + indices.rank();
        let all = data[..axis].iter().chain(indices.iter()).chain(&data[axis + 1..]);
        dims.iter_mut().zip(all).for_each(|(o, &d)| *o = d);
        let result = Shape::checked(TAKE, &dims[..rank])?;
        let shape = Shape::checked(TAKE, &[outer, indices.count(), inner])?;
        let mut axes = [(1, 0); MAX_RANK];
        axes[0] = (size, inner);
        Ok(Self {
            view: shape,
            data: *data,
            indices: *indices,
            data_strides: [size * inner, 0, 1, 0, 0, 0],
            index_strides: [0, 1, 0, 0, 0, 0],
            axes,
            components: 1,
            result,
        })
    }

    /// Elements of `data` at the places of the indices but along one axis, where the indices say.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such axis; [`Error::Shape`] if the indices have other dimensions than the
    /// data, or larger ones.
    pub fn elements(data: &Shape, axis: usize, indices: &Shape) -> Result<Self> {
        if axis >= data.rank() {
            return Err(bad("axis", format!("is {axis}, but the shape {data} has {} dimensions", data.rank())));
        }
        let fits = |(d, (&i, &n)): (usize, (&usize, &usize))| d == axis || i <= n;
        if indices.rank() != data.rank() || !indices.iter().zip(data.iter()).enumerate().all(fits) {
            let expected = format!("no larger than {data} but along axis {axis}");
            return Err(Error::shape(TAKE, "indices", expected, indices));
        }
        let mut data_strides = data.strides();
        let mut axes = [(1, 0); MAX_RANK];
        axes[0] = (data[axis], core::mem::take(&mut data_strides[axis]));
        Ok(Self {
            view: *indices,
            data: *data,
            indices: *indices,
            data_strides,
            index_strides: indices.strides(),
            axes,
            components: 1,
            result: *indices,
        })
    }

    /// Slices of `data` by tuples of indices, the last dimension of the indices, into the axes behind the first
    /// `batch`, which both have in common.
    ///
    /// # Errors
    /// [`Error::Shape`] if the indices have no such dimensions; [`Error::Argument`] if there is no shape of so many.
    pub fn tuples(data: &Shape, batch: usize, indices: &Shape) -> Result<Self> {
        let components = indices.last();
        let common = batch < indices.rank() && batch < data.rank() && data[..batch] == indices[..batch];
        if !common || components > data.rank() - batch {
            let expected = format!(
                "[…, n] with at most as many indices as {data} has axes behind the first {batch}, which are the same"
            );
            return Err(Error::shape(TAKE, "indices", expected, indices));
        }
        let (indexed, rest) = data[batch..].split_at(components);
        let inner: usize = rest.iter().product();
        let mut dims = [0; 2 * MAX_RANK];
        let rank = indices.rank() - 1 + rest.len();
        let all = indices[..indices.rank() - 1].iter().chain(rest);
        dims.iter_mut().zip(all).for_each(|(o, &d)| *o = d);
        let result = Shape::checked(TAKE, &dims[..rank])?;
        let outer: usize = data[..batch].iter().product();
        let tuples = indices.count() / components / outer;
        let shape = Shape::checked(TAKE, &[outer, tuples, inner])?;
        let mut axes = [(1, 0); MAX_RANK];
        let mut stride = inner;
        for (k, &size) in indexed.iter().enumerate().rev() {
            axes[k] = (size, stride);
            stride *= size;
        }
        Ok(Self {
            view: shape,
            data: *data,
            indices: *indices,
            data_strides: [stride, 0, 1, 0, 0, 0],
            index_strides: [tuples * components, components, 0, 0, 0, 0],
            axes,
            components,
            result,
        })
    }

    /// The shape of the result.
    pub fn shape(&self) -> &Shape {
        &self.result
    }

    /// The look-up in host memory; `place` gives where an index stands in an axis, by its place among the indices
    /// and the axis's size.
    ///
    /// # Panics
    /// If a slice has another length than the shapes say.
    pub fn look_up<T: Copy>(&self, data: &[T], place: impl Fn(usize, usize) -> Option<usize>, fill: T, out: &mut [T]) {
        if self.index_strides == [0, 1, 0, 0, 0, 0] && self.components == 1 {
            // Slices along one axis.
            let [count, inner] = [self.view[1], self.view[2]];
            let (size, stride) = self.axes[0];
            for (n, out) in out.chunks_exact_mut(count * inner).enumerate() {
                let data = &data[n * self.data_strides[0]..];
                for (at, out) in out.chunks_exact_mut(inner).enumerate() {
                    match place(at, size).map(|i| i * stride) {
                        Some(from) if inner == 1 => out[0] = data[from],
                        Some(from) => out.copy_from_slice(&data[from..][..inner]),
                        None => out.fill(fill),
                    }
                }
            }
            return;
        }
        let last = self.view.rank().saturating_sub(1);
        let rows = self.view.rank() > 0 && self.data_strides[last] == 1 && self.index_strides[last] == 0;
        let (run, outer) = if rows { (self.view[last], self.view.with(last, 1)) } else { (1, self.view) };
        let mut out = out.chunks_exact_mut(run);
        walk(&outer, &self.data_strides, &self.index_strides, |source, at| {
            let out = out.next().expect("as many as the shape has");
            let from = self.axes[..self.components]
                .iter()
                .enumerate()
                .try_fold(source, |from, (k, &(size, stride))| place(at + k, size).map(|i| from + i * stride));
            match from {
                Some(from) if run == 1 => out[0] = data[from],
                Some(from) => out.copy_from_slice(&data[from..][..run]),
                None => out.fill(fill),
            }
        });
    }
}

impl Tensor {
    /// The elements that `t` says, `fill` where an index is outside: NaN says that it is no element, of U32 it is
    /// rounded towards zero.
    ///
    /// # Errors
    /// [`Error::Shape`] if the tensor or the indices have another shape than `t` was made for, [`Error::DType`] if
    /// indices are f16, [`Error::Device`] if they are on another device; errors of the device.
    pub fn take(&self, t: &Take, indices: Indices<'_>, fill: f32) -> Result<Self> {
        if *self.shape() != t.data {
            return Err(Error::shape(TAKE, "self", t.data.to_string(), self.shape()));
        }
        indices.check(TAKE, self, &t.indices)?;
        let whole = if (0.0..4_294_967_296.0).contains(&fill) { fill as u32 } else { 0 };
        match self.device() {
            Device::Cpu => match self.dtype() {
                DType::F32 => Self::cpu_write(t.result, |out| {
                    let data = self.cpu_f32().expect("f32 on the CPU");
                    indices.on_cpu(|place| t.look_up(data, place, fill, out));
                    Ok(())
                }),
                DType::U32 => Self::cpu_u32_write(t.result, self.bound().max(whole), |out| {
                    let data = self.cpu_u32().expect("u32 on the CPU");
                    indices.on_cpu(|place| t.look_up(data, place, whole, out));
                }),
                DType::F16 => self.to_dtype(DType::F32)?.take(t, indices, fill)?.to_dtype(DType::F16),
            },
            Device::Gpu(gpu) => {
                let fill = if self.dtype() == DType::U32 { whole as f32 } else { fill };
                let out = gpu.take(self, &indices.to_tensor(&self.device())?, t, fill)?;
                Ok(out.with_bound(self.bound().max(whole)))
            }
        }
    }
}
