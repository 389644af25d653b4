//! Shapes of up to six dimensions, stored inline.

use crate::{Error, Result};
use core::{fmt, ops::Deref};

/// Largest number of dimensions of a tensor.
pub const MAX_RANK: usize = 6;

/// The dimensions of a tensor, outermost first. None is zero, and the size in bytes does not overflow.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; MAX_RANK],
    rank: u8,
}

impl Shape {
    /// The shape with these dimensions; `None` if there are more than [`MAX_RANK`], one is zero, or the size in bytes
    /// overflows.
    pub fn new(dims: &[usize]) -> Option<Self> {
        if dims.len() > MAX_RANK || dims.contains(&0) {
            return None;
        }
        // Unused dimensions are 1, so that shapes can be compared by value and the product of all six is the count.
        let mut padded = [1; MAX_RANK];
        padded[..dims.len()].copy_from_slice(dims);
        let bytes = padded.iter().try_fold(4usize, |n, &d| n.checked_mul(d))?;
        // Rust allows no larger allocation.
        isize::try_from(bytes).ok()?;
        Some(Self { dims: padded, rank: dims.len() as u8 })
    }

    /// The shape of an operation's result.
    ///
    /// # Errors
    /// [`Error::Argument`] where [`Self::new`] gives `None`.
    pub(crate) fn checked(operation: &'static str, dims: &[usize]) -> Result<Self> {
        let bad = |message: String| Error::Argument { operation, argument: "dims", message };
        if dims.contains(&0) {
            return Err(bad(format!("{dims:?} has no elements; every dimension must be at least 1")));
        }
        Self::new(dims).ok_or_else(|| bad(format!("{dims:?} has more than {MAX_RANK} dimensions or too many elements")))
    }

    /// The dimensions.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..usize::from(self.rank)]
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        usize::from(self.rank)
    }

    /// Number of elements.
    pub fn count(&self) -> usize {
        self.dims.iter().product()
    }

    /// The last dimension; 1 for a scalar.
    pub fn last(&self) -> usize {
        self.dims().last().copied().unwrap_or(1)
    }

    /// The first `rank` dimensions.
    pub(crate) fn leading(&self, rank: usize) -> Self {
        Self::new(&self.dims()[..rank]).expect("no larger than a shape that exists")
    }

    /// Row-major strides in elements.
    pub(crate) fn strides(&self) -> [usize; MAX_RANK] {
        let mut strides = [0; MAX_RANK];
        let mut next = 1;
        for d in (0..self.rank()).rev() {
            strides[d] = next;
            next *= self.dims[d];
        }
        strides
    }

    /// The same shape with dimension `axis` replaced.
    pub(crate) fn with(&self, axis: usize, size: usize) -> Self {
        let mut s = *self;
        s.dims[axis] = size;
        s
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        self.dims()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const N: usize> PartialEq<[usize; N]> for Shape {
    fn eq(&self, other: &[usize; N]) -> bool {
        self.dims() == other
    }
}
