//! Windows that move over axes, as ONNX says where they stand: what convolutions and poolings share.

use super::prelude::*;
use recurve_tensor::{Error, MAX_WINDOWS, Window};
use smallvec::SmallVec;

/// What stands before and behind the axes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Padding {
    /// So much before and behind each axis; nothing if there are no numbers.
    Explicit(Vec<[usize; 2]>),
    /// As much as makes a window for every `stride` elements; of an odd number more behind (`auto_pad` SAME_UPPER).
    SameUpper,
    /// The same with more before (`auto_pad` SAME_LOWER).
    SameLower,
}

/// Windows over the axes behind the second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Their sizes; those of the weight if there are no numbers.
    pub sizes: Vec<usize>,
    /// From one to the next; 1 if there are no numbers.
    pub strides: Vec<usize>,
    /// Between elements; 1 if there are no numbers.
    pub dilations: Vec<usize>,
    /// What stands before and behind the axes.
    pub padding: Padding,
    /// A last window that goes beyond the padding counts, if it begins before it.
    pub ceil: bool,
}

/// Windows on tensors, with how many of them there are or how large the result is.
pub(super) type Placed = (SmallVec<[Window; MAX_WINDOWS]>, SmallVec<[usize; MAX_WINDOWS]>);

impl Default for Windows {
    fn default() -> Self {
        let padding = Padding::Explicit(Vec::new());
        Self { sizes: Vec::new(), strides: Vec::new(), dilations: Vec::new(), padding, ceil: false }
    }
}

impl Windows {
    /// Whether each attribute has a number for each axis, of what it can be.
    pub(super) fn check(&self, axes: usize) -> Result<(), Fault> {
        let bad = |what, message: String| Err(Fault::Attribute(what, message));
        if axes == 0 || axes > MAX_WINDOWS {
            return Err(Fault::Input(0, format!("of 3 to {} dimensions", MAX_WINDOWS + 2)));
        }
        for (what, numbers) in
            [("kernel_shape", &self.sizes), ("strides", &self.strides), ("dilations", &self.dilations)]
        {
            if !numbers.is_empty() && (numbers.len() != axes || numbers.contains(&0)) {
                return bad(what, format!("must be {axes} numbers of at least 1, but they are {numbers:?}"));
            }
        }
        match &self.padding {
            Padding::Explicit(pads) if !pads.is_empty() && pads.len() != axes => {
                bad("pads", format!("must be two for each of {axes} axes, but there are {}", 2 * pads.len()))
            }
            _ => Ok(()),
        }
    }

    /// The window along axis `n` with these elements, before any padding that depends on the axis.
    fn plain(&self, n: usize, size: usize) -> Window {
        let number = |numbers: &[usize]| numbers.get(n).copied().unwrap_or(1);
        let [before, after] = match &self.padding {
            Padding::Explicit(pads) => pads.get(n).copied().unwrap_or_default(),
            _ => [0, 0],
        };
        Window { size, stride: number(&self.strides), dilation: number(&self.dilations), before, after }
    }

    /// The window along axis `n`, of `len` elements, and how many of them there are; `None` if there is none.
    pub(super) fn along(&self, n: usize, size: usize, len: usize) -> Option<(Window, usize)> {
        let mut w = self.plain(n, size);
        let extent = w.extent()?;
        if self.is_same() {
            let count = len.div_ceil(w.stride);
            let total = (count.checked_sub(1)?.checked_mul(w.stride)?.checked_add(extent)?).saturating_sub(len);
            self.split(&mut w, total);
            return Some((w, count));
        }
        let mut count = w.count(len)?;
        if self.ceil {
            let padded = len + w.before + w.after;
            count = (padded - extent).div_ceil(w.stride) + 1;
            if (count - 1).checked_mul(w.stride)? >= len + w.before {
                count -= 1;
            }
        }
        (count > 0).then_some((w, count))
    }

    fn is_same(&self) -> bool {
        !matches!(self.padding, Padding::Explicit(_))
    }

    fn split(&self, w: &mut Window, total: usize) {
        w.before = if self.padding == Padding::SameUpper { total / 2 } else { total - total / 2 };
        w.after = total - w.before;
    }

    /// The window along axis `n` of a transpose, and how large its result is; `None` if it is nothing.
    pub(super) fn transposed(
        &self,
        n: usize,
        size: usize,
        len: usize,
        extra: usize,
        wanted: Option<usize>,
    ) -> Option<(Window, usize)> {
        let mut w = self.plain(n, size);
        let whole = len.checked_sub(1)?.checked_mul(w.stride)?.checked_add(w.extent()?)?.checked_add(extra)?;
        let out = match (wanted, self.is_same()) {
            (Some(size), _) => size,
            (None, true) => len.checked_mul(w.stride)?,
            (None, false) => whole.checked_sub(w.before)?.checked_sub(w.after)?,
        };
        if wanted.is_some() || self.is_same() {
            self.split(&mut w, whole.saturating_sub(out));
        }
        (out > 0).then_some((w, out))
    }

    /// All windows for the last axes of a tensor.
    pub(super) fn place(
        &self,
        operation: &'static str,
        sizes: &[usize],
        dims: &[usize],
        along: impl Fn(usize, usize, usize) -> Option<(Window, usize)>,
    ) -> Result<Placed> {
        let bad = |message: String| Err(Error::Argument { operation, argument: "windows", message });
        let Some(spatial) = dims.get(2..).filter(|s| s.len() == sizes.len() && !s.is_empty()) else {
            return bad(format!("are over {} axes, but the tensor is {dims:?}", sizes.len()));
        };
        let mut placed = Placed::default();
        for (n, (&len, &size)) in spatial.iter().zip(sizes).enumerate() {
            match along(n, size, len) {
                Some((window, count)) => {
                    placed.0.push(window);
                    placed.1.push(count);
                }
                None => return bad(format!("of {sizes:?} elements find no place in {dims:?}")),
            }
        }
        Ok(placed)
    }

    /// Sizes of the axes behind the second, as far as they are known.
    pub(super) fn types(
        &self,
        x: &[Dim],
        sizes: &[Option<usize>],
        along: impl Fn(usize, usize, usize) -> Option<(Window, usize)>,
    ) -> Result<Vec<Dim>, Fault> {
        let one = |(n, (dim, size)): (usize, (&Dim, &Option<usize>))| match (dim.size(), size) {
            (Some(len), &Some(size)) => match along(n, size, len) {
                Some((_, count)) => Ok(Dim::Size(count)),
                None => Err(Fault::Input(0, format!("large enough for windows of {size} elements on axis {}", n + 2))),
            },
            _ => Ok(Dim::Any),
        };
        x.iter().zip(sizes).enumerate().map(one).collect()
    }
}

/// Where element `tap` of window `o` stands on an axis of `len` elements.
pub(super) fn tap_place(w: &Window, o: usize, tap: usize, len: usize) -> Option<usize> {
    (o * w.stride + tap * w.dilation).checked_sub(w.before).filter(|&i| i < len)
}

/// Calls `f` with every combination of indices below `sizes`.
pub(super) fn each(sizes: &[usize], mut f: impl FnMut(&[usize])) {
    Array::from_fn(sizes, |at| {
        f(at);
        0.0
    });
}
