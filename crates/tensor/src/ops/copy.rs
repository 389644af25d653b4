//! Slices, transposes, repetition, padding and concatenation, all by strided copies (`copy.wgsl`).

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
    pub source_strides: [isize; MAX_RANK],
    /// Index of the first element in the target.
    pub target: usize,
    /// Strides of the target in elements, for each dimension of `shape`.
    pub target_strides: [usize; MAX_RANK],
}

/// Strides as differences.
fn signed(strides: [usize; MAX_RANK]) -> [isize; MAX_RANK] {
    strides.map(|s| isize::try_from(s).expect("an offset into memory"))
}

impl Span {
    /// All of a tensor of this shape, in order.
    pub(crate) fn whole(shape: Shape) -> Self {
        let strides = shape.strides();
        Self { shape, source: 0, source_strides: signed(strides), target: 0, target_strides: strides }
    }

    /// A result of these dimensions, of which every element stands at `offset` and the sum of its indices times the
    /// strides, among `count` elements.
    ///
    /// # Errors
    /// [`Error::Argument`] if the result has no shape or one of its elements stands nowhere.
    pub fn view(
        operation: &'static str,
        count: usize,
        dims: &[usize],
        offset: usize,
        strides: &[isize],
    ) -> Result<Self> {
        let shape = Shape::checked(operation, dims)?;
        let (mut first, mut last) = (offset as i128, offset as i128);
        for (&d, &s) in dims.iter().zip(strides) {
            let reach = (d - 1) as i128 * s as i128;
            *(if reach < 0 { &mut first } else { &mut last }) += reach;
        }
        if strides.len() != dims.len() || first < 0 || last >= count as i128 {
            let message =
                format!("are {strides:?} from {offset} on for {dims:?}, which reach beyond the {count} elements");
            return Err(Error::Argument { operation, argument: "strides", message });
        }
        let mut source_strides = [0; MAX_RANK];
        source_strides[..strides.len()].copy_from_slice(strides);
        Ok(Self { shape, source: offset, source_strides, target: 0, target_strides: shape.strides() })
    }

    /// Whether source and target are the same elements in the same order.
    fn is_whole(&self, count: usize) -> bool {
        let same = |d: usize| self.shape[d] == 1 || self.source_strides[d] as usize == self.target_strides[d];
        self.source == 0 && self.shape.count() == count && (0..self.shape.rank()).all(same)
    }

    /// Copies in host memory.
    ///
    /// # Panics
    /// If it reaches beyond the slices.
    pub fn copy<T: Copy>(&self, source: &[T], out: &mut [T]) {
        // Dimensions that are one in both are one run.
        let mut dims = [(1, 0, 0); MAX_RANK];
        let mut rank = 0;
        for (d, &n) in self.shape.dims().iter().enumerate() {
            let (s, t) = (self.source_strides[d], self.target_strides[d]);
            if n == 1 {
                continue;
            }
            if rank > 0 {
                let (outer, os, ot) = dims[rank - 1];
                if os == s * n as isize && ot == t * n {
                    dims[rank - 1] = (outer * n, s, t);
                    continue;
                }
            }
            dims[rank] = (n, s, t);
            rank += 1;
        }
        let (run, s, t) = dims[rank.saturating_sub(1)];
        let mut at = [0usize; MAX_RANK];
        let (mut from, mut to) = (self.source as isize, self.target);
        loop {
            match (s, t) {
                (1, 1) => out[to..][..run].copy_from_slice(&source[from as usize..][..run]),
                (0, 1) => out[to..][..run].fill(source[from as usize]),
                (_, 1) => {
                    let mut i = from;
                    for o in &mut out[to..][..run] {
                        *o = source[i as usize];
                        i += s;
                    }
                }
                _ => {
                    for n in 0..run {
                        out[to + n * t] = source[(from + n as isize * s) as usize];
                    }
                }
            }
            let mut d = rank.saturating_sub(1);
            loop {
                if d == 0 {
                    return;
                }
                d -= 1;
                let (n, s, t) = dims[d];
                at[d] += 1;
                from += s;
                to += t;
                if at[d] < n {
                    break;
                }
                from -= s * n as isize;
                to -= t * n;
                at[d] = 0;
            }
        }
    }
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
        let span = Span { source: range.start * strides[axis], source_strides: signed(strides), ..Span::whole(shape) };
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
        let own = signed(self.shape().strides());
        let (mut dims, mut strides) = ([1; MAX_RANK], [0; MAX_RANK]);
        for (d, &a) in axes.iter().enumerate() {
            dims[d] = self.dims()[a];
            strides[d] = own[a];
        }
        let shape = Shape::new(&dims[..rank]).expect("as many elements as before");
        let span = Span { source_strides: strides, ..Span::whole(shape) };
        assemble(shape, &[self], [span].into_iter(), "transpose")
    }

    /// A tensor of other dimensions whose elements stand in this one at `offset` and the sum of their indices times
    /// the strides: slices with steps, backwards too, and repetition. It is the same tensor where that is all of it
    /// in order.
    /// ```
    /// use recurve_tensor::{Device, Tensor};
    /// let t = Tensor::from_f32(&[0.0, 1.0, 2.0, 3.0, 4.0], &[5], &Device::Cpu)?;
    /// assert_eq!(t.strided(&[2, 3], 4, &[0, -2])?.to_vec()?, [4.0, 2.0, 0.0, 4.0, 2.0, 0.0]);
    /// # Ok::<(), recurve_tensor::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no shape of these dimensions, or an element stands nowhere.
    pub fn strided(&self, dims: &[usize], offset: usize, strides: &[isize]) -> Result<Self> {
        let span = Span::view("strided", self.shape().count(), dims, offset, strides)?;
        if span.is_whole(self.shape().count()) {
            return self.reshape(dims);
        }
        assemble(span.shape, &[self], [span].into_iter(), "strided")
    }

    /// A tensor of these dimensions, of one value but for this tensor from the place `at` on. For U32 the value is
    /// rounded towards zero.
    /// ```
    /// use recurve_tensor::{Device, Tensor};
    /// let t = Tensor::from_f32(&[1.0, 2.0], &[2], &Device::Cpu)?;
    /// assert_eq!(t.padded(&[4], &[1], 0.5)?.to_vec()?, [0.5, 1.0, 2.0, 0.5]);
    /// # Ok::<(), recurve_tensor::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no shape of these dimensions or the tensor reaches beyond it; those of
    /// [`Self::full`].
    pub fn padded(&self, dims: &[usize], at: &[usize], value: f32) -> Result<Self> {
        let operation = "padded";
        let shape = Shape::checked(operation, dims)?;
        let span = Span::inside(operation, &shape, self.shape(), at)?;
        if self.shape() == &shape {
            return Ok(self.clone());
        }
        if self.dtype() == DType::U32 {
            crate::tensor::check_u32(operation, value)?;
        }
        match self.device() {
            Device::Cpu => match self.dtype() {
                DType::F32 => Self::cpu_write(shape, |out| {
                    out.fill(value);
                    span.copy(self.cpu_f32().expect("f32 on the CPU"), out);
                    Ok(())
                }),
                DType::U32 => Self::cpu_u32_write(shape, self.bound().max(value as u32), |out| {
                    out.fill(value as u32);
                    span.copy(self.cpu_u32().expect("u32 on the CPU"), out);
                }),
                DType::F16 => self.to_dtype(DType::F32)?.padded(dims, at, value)?.to_dtype(DType::F16),
            },
            Device::Gpu(gpu) => {
                let out = gpu.fill(shape, value, self.dtype())?;
                gpu.copy_into(&out, self, &span)?;
                Ok(out.with_bound(self.bound().max(value as u32)))
            }
        }
    }
}

impl Span {
    /// All of a tensor into a larger one, from the place `at` on.
    ///
    /// # Errors
    /// [`Error::Argument`] if it does not fit there.
    pub fn inside(operation: &'static str, whole: &Shape, part: &Shape, at: &[usize]) -> Result<Self> {
        let fits = |((&w, &p), &at): ((&usize, &usize), &usize)| at.checked_add(p).is_some_and(|end| end <= w);
        let same = whole.rank() == part.rank() && at.len() == part.rank();
        if !same || !whole.iter().zip(part.iter()).zip(at).all(fits) {
            let message = format!("is {at:?}, but {part} from there on does not fit {whole}");
            return Err(Error::Argument { operation, argument: "at", message });
        }
        let target_strides = whole.strides();
        let target = target_strides.iter().zip(at).map(|(s, a)| s * a).sum();
        Ok(Self { target, target_strides, ..Self::whole(*part) })
    }
}

impl Tensor {
    /// Elements of other places in these dimensions: by strides, which the caller has checked to stay inside.
    pub(super) fn view(&self, operation: &'static str, dims: &[usize], strides: &[usize; MAX_RANK]) -> Result<Self> {
        let shape = Shape::checked(operation, dims)?;
        let span = Span {
            shape,
            source: 0,
            source_strides: strides.map(|s| s as isize),
            target: 0,
            target_strides: shape.strides(),
        };
        assemble(shape, &[self], [span].into_iter(), operation)
    }

    /// Overlapping parts of an axis: `count` of them, each `len` elements long, one every `step` elements. The axis
    /// becomes two, `[count, len]`.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such axis, or parts go past its end or are none; if the result would have
    /// too many dimensions.
    pub fn frames(&self, axis: usize, len: usize, step: usize, count: usize) -> Result<Self> {
        let operation = "frames";
        self.check_axis(operation, axis)?;
        let end = count.checked_sub(1).and_then(|last| last.checked_mul(step)?.checked_add(len));
        if len == 0 || end.is_none_or(|end| end > self.dims()[axis]) {
            let message =
                format!("is {count}, of {len} elements every {step}, but dimension {axis} has {}", self.dims()[axis]);
            return Err(Error::Argument { operation, argument: "count", message });
        }
        let rank = self.shape().rank() + 1;
        if rank > MAX_RANK {
            let message = format!("is {axis}, but one more dimension than those of {} is too many", self.shape());
            return Err(Error::Argument { operation, argument: "axis", message });
        }
        let own = self.shape().strides();
        let (mut dims, mut strides) = ([1; MAX_RANK], [0; MAX_RANK]);
        dims[..axis].copy_from_slice(&self.dims()[..axis]);
        strides[..axis].copy_from_slice(&own[..axis]);
        dims[axis + 1..rank].copy_from_slice(&self.dims()[axis..]);
        strides[axis + 1..rank].copy_from_slice(&own[axis..rank - 1]);
        (dims[axis], strides[axis], dims[axis + 1]) = (count, step * own[axis], len);
        self.view(operation, &dims[..rank], &strides)
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
        Some(Span { target, target_strides, ..Span::whole(*t.shape()) })
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
                    s.copy(t.cpu_f32().expect("f32 on the CPU"), out);
                }
                Ok(())
            }),
            DType::U32 => Tensor::cpu_u32_write(shape, bound, |out| {
                for (t, s) in sources.iter().zip(spans) {
                    s.copy(t.cpu_u32().expect("u32 on the CPU"), out);
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
