//! One weight.

use crate::map::give_back;
use crate::{Error, Result};
use half::{bf16, f16};
use memmap2::Mmap;
use recurve_tensor::cpu::host;
use recurve_vocabulary::WeightSource;
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How the elements of a weight are stored. They are f32 where they are used: F64 and whole numbers are rounded to the
/// nearest f32, and a truth value is 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WeightType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats of IEEE 754.
    F16,
    /// The upper 16 bits of 32-bit floats.
    Bf16,
    /// 64-bit floats.
    F64,
    /// Signed integers of 64 bits.
    I64,
    /// Signed integers of 32 bits.
    I32,
    /// Signed integers of 16 bits.
    I16,
    /// Signed integers of 8 bits.
    I8,
    /// Unsigned integers of 64 bits.
    U64,
    /// Unsigned integers of 32 bits.
    U32,
    /// Unsigned integers of 16 bits.
    U16,
    /// Unsigned integers of 8 bits.
    U8,
    /// Truth values, of a byte each.
    Bool,
}

/// Writes elements of N bytes as f32.
fn decode<const N: usize>(bytes: &[u8], out: &mut [f32], f: impl Fn([u8; N]) -> f32) {
    out.iter_mut().zip(bytes.as_chunks().0).for_each(|(o, b)| *o = f(*b));
}

impl WeightType {
    /// Bytes of an element.
    pub const fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// The name that safetensors files have for the type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::F64 => "F64",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::I16 => "I16",
            Self::I8 => "I8",
            Self::U64 => "U64",
            Self::U32 => "U32",
            Self::U16 => "U16",
            Self::U8 => "U8",
            Self::Bool => "BOOL",
        }
    }

    /// Whether elements become f32 without being rounded: the types of floats of at most 32 bits.
    pub const fn is_narrow_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::Bf16)
    }

    /// The floats that little-endian bytes stand for.
    fn decode(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            Self::F32 => decode(bytes, out, f32::from_le_bytes),
            Self::F16 => decode(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
            Self::Bf16 => decode(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
            Self::F64 => decode(bytes, out, |b| f64::from_le_bytes(b) as f32),
            Self::I64 => decode(bytes, out, |b| i64::from_le_bytes(b) as f32),
            Self::I32 => decode(bytes, out, |b| i32::from_le_bytes(b) as f32),
            Self::I16 => decode(bytes, out, |b| i16::from_le_bytes(b).into()),
            Self::I8 => decode(bytes, out, |b| i8::from_le_bytes(b).into()),
            Self::U64 => decode(bytes, out, |b| u64::from_le_bytes(b) as f32),
            Self::U32 => decode(bytes, out, |b| u32::from_le_bytes(b) as f32),
            Self::U16 => decode(bytes, out, |b| u16::from_le_bytes(b).into()),
            Self::U8 => decode(bytes, out, |[b]| b.into()),
            Self::Bool => decode(bytes, out, |[b]| f32::from(u8::from(b != 0))),
        }
    }
}

impl TryFrom<safetensors::Dtype> for WeightType {
    type Error = safetensors::Dtype;

    /// The type, unless weights do not have it.
    fn try_from(t: safetensors::Dtype) -> Result<Self, safetensors::Dtype> {
        use safetensors::Dtype;
        Ok(match t {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::Bf16,
            Dtype::F64 => Self::F64,
            Dtype::I64 => Self::I64,
            Dtype::I32 => Self::I32,
            Dtype::I16 => Self::I16,
            Dtype::I8 => Self::I8,
            Dtype::U64 => Self::U64,
            Dtype::U32 => Self::U32,
            Dtype::U16 => Self::U16,
            Dtype::U8 => Self::U8,
            Dtype::BOOL => Self::Bool,
            other => return Err(other),
        })
    }
}

impl From<WeightType> for safetensors::Dtype {
    fn from(t: WeightType) -> Self {
        match t {
            WeightType::F32 => Self::F32,
            WeightType::F16 => Self::F16,
            WeightType::Bf16 => Self::BF16,
            WeightType::F64 => Self::F64,
            WeightType::I64 => Self::I64,
            WeightType::I32 => Self::I32,
            WeightType::I16 => Self::I16,
            WeightType::I8 => Self::I8,
            WeightType::U64 => Self::U64,
            WeightType::U32 => Self::U32,
            WeightType::U16 => Self::U16,
            WeightType::U8 => Self::U8,
            WeightType::Bool => Self::BOOL,
        }
    }
}

/// Bytes that several weights share.
#[derive(Clone)]
pub(crate) enum Bytes {
    Owned(Arc<Vec<u8>>),
    Mapped(Arc<Mmap>),
}

impl Bytes {
    pub(crate) fn get(&self) -> &[u8] {
        match self {
            Self::Owned(v) => v,
            Self::Mapped(m) => m,
        }
    }

    pub(crate) fn give_back(&self, range: Range<usize>) {
        if let Self::Mapped(m) = self {
            give_back(m, range);
        }
    }
}

#[derive(Clone)]
enum Elements {
    /// Floats of this machine.
    Floats(Arc<Vec<f32>>),
    /// Little-endian elements within the bytes of a file.
    Stored(Bytes, Range<usize>),
}

/// A weight: a shape and its elements, row-major. Clones share the elements.
#[derive(Clone)]
pub struct Weight {
    shape: Vec<usize>,
    dtype: WeightType,
    elements: Elements,
    version: u64,
}

/// How many elements are converted at a time before the memory of the mapped file is given back.
const CHUNK: usize = 1 << 18;

impl Weight {
    /// A weight of f32.
    ///
    /// # Errors
    /// [`Error::Elements`] if `data` does not have the elements of `shape`.
    pub fn new(shape: &[usize], data: Vec<f32>) -> Result<Self> {
        if shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)) != Some(data.len()) {
            return Err(Error::Elements { shape: shape.to_vec(), got: data.len() });
        }
        Ok(Self::with(shape.to_vec(), WeightType::F32, Elements::Floats(Arc::new(data))))
    }

    /// Elements within the bytes of a file, as many as the shape has.
    pub(crate) fn stored(shape: Vec<usize>, dtype: WeightType, bytes: Bytes, at: Range<usize>) -> Self {
        Self::with(shape, dtype, Elements::Stored(bytes, at))
    }

    fn with(shape: Vec<usize>, dtype: WeightType, elements: Elements) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { shape, dtype, elements, version: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    /// The dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How the elements are stored.
    pub fn dtype(&self) -> WeightType {
        self.dtype
    }

    /// The number of elements.
    pub fn count(&self) -> usize {
        match &self.elements {
            Elements::Floats(v) => v.len(),
            Elements::Stored(_, at) => at.len() / self.dtype.size(),
        }
    }

    /// A number that only this weight and its clones have in this process: what was made of a weight is stale once
    /// another one has taken its place.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether the elements are in a mapped file.
    pub fn is_mapped(&self) -> bool {
        matches!(self.elements, Elements::Stored(Bytes::Mapped(_), _))
    }

    /// The elements as f32: borrowed if they are stored as f32, aligned, on a little-endian machine; otherwise converted.
    ///
    /// # Errors
    /// [`recurve_tensor::Error::OutOfMemory`] if they must be converted and there is no memory.
    pub fn values(&self) -> recurve_tensor::Result<Cow<'_, [f32]>> {
        match self.floats() {
            Some(v) => Ok(Cow::Borrowed(v)),
            None => self.to_vec().map(Cow::Owned),
        }
    }

    fn floats(&self) -> Option<&[f32]> {
        match &self.elements {
            Elements::Floats(v) => Some(v),
            Elements::Stored(bytes, at) if self.dtype == WeightType::F32 && cfg!(target_endian = "little") => {
                bytemuck::try_cast_slice(&bytes.get()[at.clone()]).ok()
            }
            Elements::Stored(..) => None,
        }
    }

    /// A copy of the elements as f32. Memory of a mapped file is given back to the system while it is made.
    ///
    /// # Errors
    /// [`recurve_tensor::Error::OutOfMemory`].
    pub fn to_vec(&self) -> recurve_tensor::Result<Vec<f32>> {
        let mut out = host("Weight::to_vec", self.count())?;
        self.read(0, &mut out);
        Ok(out)
    }

    /// Writes the elements as f32. Memory of a mapped file is given back to the system meanwhile.
    ///
    /// # Errors
    /// [`recurve_tensor::Error::Argument`] unless `out` has as many elements.
    pub fn read_into(&self, out: &mut [f32]) -> recurve_tensor::Result<()> {
        if out.len() != self.count() {
            return Err(recurve_tensor::Error::Argument {
                operation: "Weight::read_into",
                argument: "out",
                message: format!("has {} elements, but the weight has {}", out.len(), self.count()),
            });
        }
        self.read(0, out);
        Ok(())
    }

    /// The elements as a file has them, little-endian.
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        match &self.elements {
            Elements::Floats(v) if cfg!(target_endian = "little") => Cow::Borrowed(bytemuck::cast_slice(v)),
            Elements::Floats(v) => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Elements::Stored(bytes, at) => Cow::Borrowed(&bytes.get()[at.clone()]),
        }
    }

    /// Gives the memory that reading a mapped file took back to the system, on Unix. Reading the weight again
    /// reads the file again.
    pub fn give_back(&self) {
        if let Elements::Stored(bytes, at) = &self.elements {
            bytes.give_back(at.clone());
        }
    }
}

/// Memory of a mapped file is given back to the system once it has been read.
impl WeightSource for Weight {
    fn count(&self) -> usize {
        self.count()
    }
    fn read(&self, start: usize, out: &mut [f32]) {
        match &self.elements {
            Elements::Floats(v) => v.read(start, out),
            Elements::Stored(bytes, at) => {
                let own = &bytes.get()[at.clone()];
                let mut start = start * self.dtype.size();
                for part in out.chunks_mut(CHUNK) {
                    let end = start + part.len() * self.dtype.size();
                    self.dtype.decode(&own[start..end], part);
                    bytes.give_back(at.start + start..at.start + end);
                    start = end;
                }
            }
        }
    }
}

/// Whether shape, type and bits are the same.
impl PartialEq for Weight {
    fn eq(&self, other: &Self) -> bool {
        self.shape == other.shape
            && self.dtype == other.dtype
            && (self.version == other.version || self.bytes() == other.bytes())
    }
}

impl fmt::Debug for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Weight")
            .field("shape", &self.shape)
            .field("dtype", &self.dtype)
            .field("mapped", &self.is_mapped())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_borrowed_where_they_can_be() {
        // At four places one after another, of which one is an address that floats may have.
        let at = |begin: usize| {
            let floats = [1.5f32, -2.0];
            let all: Vec<u8> = vec![0; begin].into_iter().chain(floats.iter().flat_map(|v| v.to_le_bytes())).collect();
            let w = Weight::stored(vec![2], WeightType::F32, Bytes::Owned(Arc::new(all)), begin..begin + 8);
            let values = w.values().unwrap();
            assert_eq!(values[..], floats);
            (matches!(values, Cow::Borrowed(_)), w.bytes().as_ptr().align_offset(4) == 0)
        };
        for start in 0..4 {
            let (borrowed, aligned) = at(start);
            assert_eq!(borrowed, aligned && cfg!(target_endian = "little"), "{start}");
        }
    }

    #[test]
    fn halves_become_the_floats_that_they_are() {
        let bytes: Vec<u8> = [0x3c00u16, 0xc000, 0x0001].iter().flat_map(|v| v.to_le_bytes()).collect();
        let stored = |dtype| Weight::stored(vec![3], dtype, Bytes::Owned(Arc::new(bytes.clone())), 0..6);
        assert_eq!(stored(WeightType::F16).to_vec().unwrap(), [1.0, -2.0, 2f32.powi(-24)]);
        let upper = [0x3c00u32, 0xc000, 0x0001].map(|b| f32::from_bits(b << 16));
        assert_eq!(stored(WeightType::Bf16).to_vec().unwrap(), upper);
        assert_ne!(stored(WeightType::F16), stored(WeightType::Bf16));
        assert_eq!(stored(WeightType::F16), stored(WeightType::F16));
    }

    #[test]
    fn other_types_are_rounded_to_floats() {
        fn read<const N: usize>(dtype: WeightType, elements: &[[u8; N]]) -> Vec<f32> {
            assert_eq!(N, dtype.size());
            let all = elements.concat();
            let len = all.len();
            let w = Weight::stored(vec![elements.len()], dtype, Bytes::Owned(Arc::new(all)), 0..len);
            let safetensors = safetensors::Dtype::from(dtype);
            assert_eq!(WeightType::try_from(safetensors), Ok(dtype));
            assert_eq!(format!("{safetensors:?}"), dtype.name());
            w.to_vec().unwrap()
        }
        assert_eq!(read(WeightType::F64, &[0.1f64.to_le_bytes(), (-1e300f64).to_le_bytes()]), [0.1, f32::NEG_INFINITY]);
        assert_eq!(read(WeightType::I64, &[(-5i64).to_le_bytes(), 16_777_217i64.to_le_bytes()]), [-5.0, 16_777_216.0]);
        assert_eq!(read(WeightType::I32, &[i32::MIN.to_le_bytes()]), [-2_147_483_648.0]);
        assert_eq!(read(WeightType::I16, &[(-7i16).to_le_bytes()]), [-7.0]);
        assert_eq!(read(WeightType::I8, &[[0xff], [3]]), [-1.0, 3.0]);
        assert_eq!(read(WeightType::U64, &[u64::MAX.to_le_bytes()]), [18_446_744_073_709_551_616.0]);
        assert_eq!(read(WeightType::U32, &[u32::MAX.to_le_bytes()]), [4_294_967_296.0]);
        assert_eq!(read(WeightType::U16, &[u16::MAX.to_le_bytes()]), [65535.0]);
        assert_eq!(read(WeightType::U8, &[[0xff]]), [255.0]);
        assert_eq!(read(WeightType::Bool, &[[0], [1], [2]]), [0.0, 1.0, 1.0]);
        assert!(WeightType::try_from(safetensors::Dtype::F8_E4M3).is_err());
    }

    #[test]
    fn a_weight_has_the_elements_of_its_shape_and_a_version_of_its_own() {
        let e = Weight::new(&[2, 3], vec![0.0; 5]).unwrap_err();
        assert_eq!(e, Error::Elements { shape: vec![2, 3], got: 5 });
        assert!(Weight::new(&[usize::MAX, 2], vec![0.0; 2]).is_err());
        let (a, b) = (Weight::new(&[1], vec![0.5]).unwrap(), Weight::new(&[1], vec![0.5]).unwrap());
        assert_eq!(a, b);
        assert_ne!(a.version(), b.version());
        assert_eq!(a.version(), a.clone().version());
        assert!(a.read_into(&mut [0.0; 2]).is_err());
    }

    #[test]
    fn parts_are_read_from_where_they_stand() {
        let floats: Vec<f32> = (0..5).map(|v| v as f32).collect();
        let bytes = |f: fn(f32) -> Vec<u8>| Bytes::Owned(Arc::new(floats.iter().flat_map(|&v| f(v)).collect()));
        let (full, half) = (bytes(|v| v.to_le_bytes().into()), bytes(|v| f16::from_f32(v).to_le_bytes().into()));
        for w in [
            Weight::new(&[5], floats.clone()).unwrap(),
            Weight::stored(vec![4], WeightType::F32, full, 4..20),
            Weight::stored(vec![4], WeightType::F16, half, 2..10),
        ] {
            let first = if w.count() == 5 { 0.0 } else { 1.0 };
            let mut out = [0.0; 2];
            w.read(2, &mut out);
            assert_eq!(out, [first + 2.0, first + 3.0]);
            let past = std::panic::catch_unwind(|| w.read(w.count() - 1, &mut [0.0; 2]));
            assert!(past.is_err(), "no elements of another weight");
        }
    }
}
