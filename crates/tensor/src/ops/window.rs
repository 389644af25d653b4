//! Windows that move over the last axes of a tensor, which `conv` and `pool` share.

use crate::{Error, Result, Tensor};

/// Most axes that windows move over.
pub const MAX_WINDOWS: usize = 3;

/// How a window moves along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Elements of the window.
    pub size: usize,
    /// From one window to the next.
    pub stride: usize,
    /// From one element of a window to the next.
    pub dilation: usize,
    /// Elements that are taken to stand before the axis.
    pub before: usize,
    /// Elements that are taken to stand behind the axis.
    pub after: usize,
}

impl Window {
    /// A window that moves by one element, over neighbouring elements of an axis without padding.
    pub const fn new(size: usize) -> Self {
        Self { size, stride: 1, dilation: 1, before: 0, after: 0 }
    }

    /// From its first element to behind its last, if that can be counted.
    pub fn extent(&self) -> Option<usize> {
        self.size.checked_sub(1)?.checked_mul(self.dilation)?.checked_add(1)
    }

    /// The whole windows of an axis of `len` elements; `None` if there is none.
    pub fn count(&self, len: usize) -> Option<usize> {
        let padded = len.checked_add(self.before)?.checked_add(self.after)?;
        Some(padded.checked_sub(self.extent()?)?.checked_div(self.stride)? + 1)
    }

    /// Whether it is one element that moves by one, without padding.
    pub(crate) const fn is_pointwise(&self) -> bool {
        self.size == 1 && self.stride == 1 && self.before == 0 && self.after == 0
    }

    /// Of the first `windows` windows those whose element `tap` stands on an axis of `len` elements, and where that
    /// of the first of them does.
    pub(crate) fn span(&self, tap: usize, len: usize, windows: usize) -> TapSpan {
        let at = tap * self.dilation;
        let end = (len - 1 + self.before).checked_sub(at).map_or(0, |v| (v / self.stride + 1).min(windows));
        let first = self.before.saturating_sub(at).div_ceil(self.stride).min(end);
        TapSpan { first, end, at: (first * self.stride + at).saturating_sub(self.before) }
    }
}

/// See [`Window::span`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct TapSpan {
    pub(crate) first: usize,
    pub(crate) end: usize,
    pub(crate) at: usize,
}

impl TapSpan {
    /// Where the element of a window stands on the axis, if it does.
    pub(crate) fn place(&self, window: usize, stride: usize) -> Option<usize> {
        (self.first..self.end).contains(&window).then(|| self.at + (window - self.first) * stride)
    }
}

/// Windows over three axes, leading ones of size 1 where there are fewer: those of the tensor that they look at, and
/// how many windows there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sliding {
    pub(crate) windows: [Window; MAX_WINDOWS],
    pub(crate) seen: [usize; MAX_WINDOWS],
    pub(crate) counts: [usize; MAX_WINDOWS],
}

impl Sliding {
    /// Elements that the windows look at, of one channel.
    pub(crate) fn seen_count(&self) -> usize {
        self.seen.iter().product()
    }

    pub(crate) fn window_count(&self) -> usize {
        self.counts.iter().product()
    }

    /// Elements of a window.
    pub(crate) fn taps(&self) -> usize {
        self.windows.iter().map(|w| w.size).product()
    }

    /// The spans of all taps, axis by axis.
    pub(crate) fn spans(&self) -> [smallvec::SmallVec<[TapSpan; 8]>; MAX_WINDOWS] {
        core::array::from_fn(|n| {
            let w = self.windows[n];
            (0..w.size).map(|tap| w.span(tap, self.seen[n], self.counts[n])).collect()
        })
    }

    /// Windows over the axes of `x` behind the second. `counts` are how many of them there are, and `seen` the axes
    /// that they look at.
    pub(crate) fn new(
        operation: &'static str,
        x: &Tensor,
        windows: &[Window],
        seen: &[usize],
        counts: &[usize],
    ) -> Result<Self> {
        let bad = |message: String| Err(Error::Argument { operation, argument: "windows", message });
        let axes = windows.len();
        if axes == 0 || axes > MAX_WINDOWS || x.shape().rank() != axes + 2 {
            return bad(format!("are {axes}, but must be one for each of the last axes of {} but two", x.shape()));
        }
        let mut all = Self { windows: [Window::new(1); 3], seen: [1; 3], counts: [1; 3] };
        let skip = MAX_WINDOWS - axes;
        all.windows[skip..].copy_from_slice(windows);
        all.seen[skip..].copy_from_slice(seen);
        all.counts[skip..].copy_from_slice(counts);
        for (w, (&len, &count)) in windows.iter().zip(seen.iter().zip(counts)) {
            // Places, padding included, are below 2^31 wherever they are counted.
            let reach = count.checked_sub(1).and_then(|last| last.checked_mul(w.stride)?.checked_add(w.extent()?));
            let mut places = [reach, len.checked_add(w.before), Some(w.after)].into_iter();
            let fits = places.all(|v| v.is_some_and(|v| v < 1 << 31));
            if w.size == 0 || w.stride == 0 || w.dilation == 0 || !fits {
                return bad(format!(
                    "must have sizes, strides and dilations of at least 1, and places below 2^31, but one is {w:?}"
                ));
            }
        }
        Ok(all)
    }
}
