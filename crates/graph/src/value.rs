//! The type of a value: element type and shape, in which dimensions may be unknown until a run.

use core::fmt;
use recurve_tensor::DType;
use std::sync::Arc;

/// A type of whole numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Int {
    /// 8 bits, signed
    I8,
    /// 8 bits
    U8,
    /// 16 bits, signed
    I16,
    /// 16 bits
    U16,
    /// 32 bits, signed
    I32,
    /// 32 bits
    U32,
    /// 64 bits, signed
    I64,
    /// 64 bits
    U64,
}

/// The type of a value's elements.
///
/// Floats, and U32, stand in tensors of that type. Whole numbers and truth values that come from the caller, from
/// constants and from shapes are exact and in host memory; those that a device computes from floats stay there, as
/// f32 or U32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Element {
    /// 32-bit float
    F32,
    /// 16-bit float
    F16,
    /// ids and lengths in a U32 tensor
    U32,
    /// whole numbers
    Int(Int),
    /// truth values, 0 and 1
    Bool,
}

impl Element {
    /// Whether its elements are floats.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16)
    }

    /// Whether its elements may stand in host memory.
    pub const fn is_whole(self) -> bool {
        matches!(self, Self::Int(_) | Self::Bool)
    }

    /// NumPy's name of the type of arrays that such elements come from and go to. f16 is float32 there.
    pub const fn array_type(self) -> &'static str {
        match self {
            Self::F32 | Self::F16 => "float32",
            Self::U32 | Self::Int(Int::U32) => "uint32",
            Self::Bool => "bool",
            Self::Int(Int::I8) => "int8",
            Self::Int(Int::I16) => "int16",
            Self::Int(Int::I32) => "int32",
            Self::Int(Int::I64) => "int64",
            Self::Int(Int::U8) => "uint8",
            Self::Int(Int::U16) => "uint16",
            Self::Int(Int::U64) => "uint64",
        }
    }
}

impl From<DType> for Element {
    fn from(t: DType) -> Self {
        match t {
            DType::F32 => Self::F32,
            DType::F16 => Self::F16,
            DType::U32 => Self::U32,
            other => unreachable!("{other} is an element type that graphs do not know"),
        }
    }
}

impl PartialEq<DType> for Element {
    fn eq(&self, other: &DType) -> bool {
        *self == Self::from(*other)
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::U32 => "u32",
            Self::Int(Int::I8) => "int8",
            Self::Int(Int::U8) => "uint8",
            Self::Int(Int::I16) => "int16",
            Self::Int(Int::U16) => "uint16",
            Self::Int(Int::I32) => "int32",
            Self::Int(Int::U32) => "uint32",
            Self::Int(Int::I64) => "int64",
            Self::Int(Int::U64) => "uint64",
            Self::Bool => "bool",
        })
    }
}

/// A dimension as far as it is known before a run.
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
    pub dtype: Element,
    /// The dimensions, outermost first; none if [`Self::unranked`].
    pub dims: Vec<Dim>,
    /// How many dimensions there are is known only when the graph runs.
    pub unranked: bool,
    /// Of whole numbers along at most one dimension: those that are known before a run.
    pub known: Option<Arc<[Option<i64>]>>,
}

impl ValueType {
    /// A type with these dimensions.
    pub fn new(dtype: impl Into<Element>, dims: impl IntoIterator<Item = impl Into<Dim>>) -> Self {
        let dims = dims.into_iter().map(Into::into).collect();
        Self { dtype: dtype.into(), dims, unranked: false, known: None }
    }

    /// A type whose number of dimensions is not known.
    pub fn unranked(dtype: impl Into<Element>) -> Self {
        Self { dtype: dtype.into(), dims: Vec::new(), unranked: true, known: None }
    }

    /// The same type without what is known of its elements, of other dimensions.
    #[must_use]
    pub fn with_dims(&self, dims: Vec<Dim>) -> Self {
        Self { dtype: self.dtype, dims, unranked: false, known: None }
    }

    /// The same type with what is known of its elements.
    #[must_use]
    pub fn with_known(mut self, known: Option<impl Into<Arc<[Option<i64>]>>>) -> Self {
        self.known = known.map(Into::into);
        self
    }

    /// Number of dimensions, of a type where it is known.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// The known sizes among its dimensions; for parameters and constants all of them.
    pub fn sizes(&self) -> impl Iterator<Item = usize> + '_ {
        self.dims.iter().filter_map(Dim::size)
    }

    /// The sizes of all its dimensions, if they are known.
    pub fn shape(&self) -> Option<Vec<usize>> {
        if self.unranked { None } else { self.dims.iter().map(Dim::size).collect() }
    }

    /// All of its elements, if they are known.
    pub fn content(&self) -> Option<Vec<i64>> {
        self.known.as_ref()?.iter().copied().collect()
    }

    /// Whether a tensor has this type.
    pub fn admits(&self, dtype: impl Into<Element>, dims: &[usize]) -> bool {
        self.dtype == dtype.into() && self.has_dims(dims)
    }

    /// Whether dimensions are of this type.
    pub fn has_dims(&self, dims: &[usize]) -> bool {
        self.unranked
            || self.dims.len() == dims.len()
                && self.dims.iter().zip(dims).all(|(d, &n)| d.size().is_none_or(|s| s == n))
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.unranked {
            return write!(f, "{} of any shape", self.dtype);
        }
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
