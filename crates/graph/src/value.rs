//! The type of a value: element type and shape, in which dimensions may be unknown until a run.

use core::fmt;
use recurve_tensor::DType;
use std::sync::Arc;

/// The size of a dimension, as far as it is known before a run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dim {
    /// A known size.
    Size(usize),
    /// An unknown size with a name; it is the same wherever the name occurs.
    Symbol(Arc<str>),
    /// An unknown size.
    Any,
}

impl Dim {
    /// A dimension of unknown size with this name.
    pub fn symbol(name: &str) -> Self {
        Self::Symbol(name.into())
    }

    /// The size, if it is known.
    pub fn size(&self) -> Option<usize> {
        match self {
            Self::Size(n) => Some(*n),
            _ => None,
        }
    }

    /// The more exact of two dimensions that must be equal; `None` if both are known and differ. Two different names
    /// may stand for the same size.
    pub fn meet(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Size(a), Self::Size(b)) => (a == b).then(|| self.clone()),
            (Self::Size(_), _) => Some(self.clone()),
            (_, Self::Size(_)) => Some(other.clone()),
            (Self::Symbol(_), _) => Some(self.clone()),
            (Self::Any, _) => Some(other.clone()),
        }
    }

    /// The dimension that broadcasting makes of two; `None` if they cannot be broadcast.
    pub fn broadcast(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Size(1), d) | (d, Self::Size(1)) => Some(d.clone()),
            // Either size may be 1 in a run.
            (Self::Symbol(_) | Self::Any, Self::Symbol(_) | Self::Any) if self != other => Some(Self::Any),
            _ => self.meet(other),
        }
    }

    /// The product of both sizes, if both are known or one is 1.
    #[must_use]
    pub fn times(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Size(1), d) | (d, Self::Size(1)) => d.clone(),
            (Self::Size(a), Self::Size(b)) => Self::Size(a.saturating_mul(*b)),
            _ => Self::Any,
        }
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Self {
        Self::Size(n)
    }
}

impl From<Option<usize>> for Dim {
    fn from(n: Option<usize>) -> Self {
        n.map_or(Self::Any, Self::Size)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(n) => write!(f, "{n}"),
            Self::Symbol(name) => f.write_str(name),
            Self::Any => f.write_str("?"),
        }
    }
}

/// The element type and the shape of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ValueType {
    /// The element type.
    pub dtype: DType,
    /// The dimensions, outermost first.
    pub dims: Vec<Dim>,
}

impl ValueType {
    /// A type with these dimensions.
    pub fn new(dtype: DType, dims: impl IntoIterator<Item = impl Into<Dim>>) -> Self {
        Self { dtype, dims: dims.into_iter().map(Into::into).collect() }
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// The known sizes among its dimensions; for parameters and constants all of them.
    pub fn sizes(&self) -> impl Iterator<Item = usize> + '_ {
        self.dims.iter().filter_map(Dim::size)
    }

    /// Whether a tensor of this element type and shape is of this type.
    pub fn admits(&self, dtype: DType, dims: &[usize]) -> bool {
        self.dtype == dtype
            && self.dims.len() == dims.len()
            && self.dims.iter().zip(dims).all(|(d, &n)| d.size().is_none_or(|s| s == n))
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [", self.dtype)?;
        for (n, d) in self.dims.iter().enumerate() {
            write!(f, "{}{d}", if n > 0 { ", " } else { "" })?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_meet_and_broadcast() {
        let (two, three, one) = (Dim::Size(2), Dim::Size(3), Dim::Size(1));
        let (b, t) = (Dim::symbol("batch"), Dim::symbol("time"));
        assert_eq!(two.meet(&three), None);
        assert_eq!(two.meet(&b), Some(two.clone()));
        assert_eq!(b.meet(&Dim::Any), Some(b.clone()));
        assert_eq!(one.meet(&two), None);
        assert_eq!(one.broadcast(&b), Some(b.clone()));
        assert_eq!(b.broadcast(&b), Some(b.clone()));
        assert_eq!(b.broadcast(&t), Some(Dim::Any));
        assert_eq!(b.broadcast(&two), Some(two.clone()));
        assert_eq!(two.broadcast(&three), None);
        assert_eq!(two.times(&three), Dim::Size(6));
        assert_eq!(b.times(&two), Dim::Any);
    }

    #[test]
    fn a_type_shows_open_dimensions() {
        let t = ValueType::new(DType::F32, [Dim::symbol("batch"), Dim::Any, Dim::Size(4)]);
        assert_eq!(t.to_string(), "f32 [batch, ?, 4]");
        assert!(t.admits(DType::F32, &[7, 1, 4]) && !t.admits(DType::F32, &[7, 1, 5]));
        assert!(!t.admits(DType::U32, &[7, 1, 4]) && !t.admits(DType::F32, &[7, 4]));
    }
}
