//! Slices, transposes and concatenation, all by strided copies (`copy.wgsl`).

use super::walk;
use crate::{DType, Device, Error, MAX_RANK, Result, Shape, Tensor};
use std::ops::Range;

/// A strided copy of elements from one place to another.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The shape of the copied elements.
    pub shape: Shape,
    /// Index of the first element in the source.
    pub source: usize,
    /// Strides of the source in elements, for each dimension of `shape`.
    pub source_strides: [usize; MAX_RANK],
    /// Index of the first element in the target.
    pub target: usize,
    /// Strides of the target in elements, for each dimension of `shape`.
    pub target_strides: [usize; MAX_RANK],
}

impl Tensor {
    /// The elements with an index in `range` along `axis`.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such axis, or the range is empty or exceeds the axis.
    pub fn slice(&self, axis: usize, range: Range<usize>) -> Result<Self> {
        self.check_axis("slice", axis)?;
        if range.is_empty() || range.end > self.dims()[axis] {
            let message = format!("is {range:?}, but dimension {axis} has size {}", self.dims()[axis]);
            return Err(Error::Argument { operation: "slice", argument: "range", message });
        }
        let shape = self.shape().with(axis, range.len());
        let strides = self.shape().strides();
        let span = Span {
            shape,
            source: range.start * strides[axis],
            source_strides: strides,
            target: 0,
            target_strides: shape.strides(),
        };
        assemble(shape, &[self], [span].into_iter(), "slice")
    }

    /// Permutes the dimensions: dimension `d` of the result is dimension `axes[d]`.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `axes` contains every dimension once.
    pub fn transpose(&self, axes: &[usize]) -> Result<Self> {
        let rank = self.shape().rank();
        let mut seen = [false; MAX_RANK];
        let valid = axes.len() == rank && axes.iter().all(|&a| a < rank && !std::mem::replace(&mut seen[a], true));
        if !valid {
            let message = format!("is {axes:?}, but must name each dimension of {} once", self.shape());
            return Err(Error::Argument { operation: "transpose", argument: "axes", message });
        }
        let own = self.shape().strides();
        let (mut dims, mut strides) = ([1; MAX_RANK], [0; MAX_RANK]);
        for (d, &a) in axes.iter().enumerate() {
            dims[d] = self.dims()[a];
            strides[d] = own[a];
        }
        let shape = Shape::new(&dims[..rank]).expect("as many elements as before");
        let span = Span { shape, source: 0, source_strides: strides, target: 0, target_strides: shape.strides() };
        assemble(shape, &[self], [span].into_iter(), "transpose")
    }
}

/// Concatenates tensors along `axis`.
///
/// # Errors
/// [`Error::Argument`] if there are no tensors; [`Error::Shape`], [`Error::DType`] or [`Error::Device`] if one differs
/// from the first in more than the size of `axis`.
pub fn concat(tensors: &[&Tensor], axis: usize) -> Result<Tensor> {
    let operation = "concat";
    let argument = "tensors";
    let Some(first) = tensors.first() else {
        return Err(Error::Argument { operation, argument, message: "is empty".into() });
    };
    first.check_axis(operation, axis)?;
    let mut size = 0;
    for t in tensors {
        first.check_same_device(t, operation, argument)?;
        t.check_dtype(operation, argument, "of one element type", t.dtype() == first.dtype())?;
        if t.shape().rank() != first.shape().rank() || t.shape().with(axis, 1) != first.shape().with(axis, 1) {
            let expected = format!("like {} but for dimension {axis}", first.shape());
            return Err(Error::shape(operation, argument, expected, t.shape()));
        }
        size += t.dims()[axis];
    }
    let mut dims = [1; MAX_RANK];
    let rank = first.shape().rank();
    dims[..rank].copy_from_slice(first.dims());
    dims[axis] = size;
    let shape = Shape::new(&dims[..rank]).ok_or_else(|| Error::shape(operation, argument, "smaller", first.shape()))?;
    let target_strides = shape.strides();
    let spans = tensors.iter().scan(0, |at, t| {
        let target = *at * target_strides[axis];
        *at += t.dims()[axis];
        Some(Span { shape: *t.shape(), source: 0, source_strides: t.shape().strides(), target, target_strides })
    });
    let bound = tensors.iter().map(|t| t.bound()).max().unwrap_or(0);
    Ok(assemble(shape, tensors, spans, operation)?.with_bound(bound))
}

/// A tensor assembled from copies: one span of each of `sources`. Together the spans cover every element.
fn assemble(
    shape: Shape,
    sources: &[&Tensor],
    spans: impl Iterator<Item = Span>,
    operation: &'static str,
) -> Result<Tensor> {
    let dtype = sources[0].dtype();
    let bound = sources[0].bound();
    match sources[0].device() {
        Device::Cpu => match dtype {
            DType::F32 => Tensor::cpu_write(shape, |out| {
                for (t, s) in sources.iter().zip(spans) {
                    copy(&s, t.cpu_f32().expect("f32 on the CPU"), out);
                }
                Ok(())
            }),
            DType::U32 => Tensor::cpu_u32_write(shape, bound, |out| {
                for (t, s) in sources.iter().zip(spans) {
                    copy(&s, t.cpu_u32().expect("u32 on the CPU"), out);
                }
            }),
            DType::F16 => {
                let wide: Vec<_> = sources.iter().map(|t| t.to_dtype(DType::F32)).collect::<Result<_>>()?;
                let wide: Vec<_> = wide.iter().collect();
                assemble(shape, &wide, spans, operation)?.to_dtype(DType::F16)
            }
        },
        Device::Gpu(gpu) => Ok(gpu.assemble(shape, sources, spans, operation)?.with_bound(bound)),
    }
}

fn copy<T: Copy>(s: &Span, source: &[T], out: &mut [T]) {
    let last = s.shape.rank().saturating_sub(1);
    let run = s.shape.last();
    if s.shape.rank() > 0 && s.source_strides[last] == 1 && s.target_strides[last] == 1 {
        walk(&s.shape.with(last, 1), &s.source_strides, &s.target_strides, |i, o| {
            out[s.target + o..][..run].copy_from_slice(&source[s.source + i..][..run]);
        });
    } else {
        walk(&s.shape, &s.source_strides, &s.target_strides, |i, o| out[s.target + o] = source[s.source + i]);
    }
}
