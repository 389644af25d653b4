//! Weight matrices in panels of a few vector registers, as f32, f16 or int8, and how vectors of them come
//! into registers.

use super::pack::Line;
use super::product::panel_width;
use crate::WeightStorage;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use core::any::Any;
use half::f16;
use pulp::Simd;
use recurve_tensor::cpu::host;
#[cfg(target_arch = "aarch64")]
use recurve_tensor::cpu::simd;
use recurve_tensor::{Device, Error, Result};
use recurve_vocabulary::{int8, int8_scale};

/// A matrix `[G·units, K]` as vectors of `lanes` neighbouring units, in the order `[tiles, G]`, of which
/// `width` neighbours are a panel: `[panels, K, width, lanes]`. The last tile and the last panel are padded
/// with zeros. A panel is what a product's inner loop reads, so its width suits the registers, not the gates.
#[derive(Debug, Default)]
pub(super) struct Matrix {
    /// Number of columns, `K`.
    pub(super) k: usize,
    /// Number of vectors in a panel.
    pub(super) width: usize,
    pub(super) elements: Elements,
}

#[derive(Debug)]
pub(super) enum Elements {
    F32(Vec<Line>),
    F16(Vec<Line>),
    /// The integers, and the scales: for each vector of the matrix one vector with the scales of its rows.
    Int8(Vec<Line>, Vec<Line>),
}

impl Default for Elements {
    fn default() -> Self {
        Self::F32(Vec::new())
    }
}

/// Memory whose elements are `f` of their index.
pub(super) fn memory<T: bytemuck::Pod>(count: usize, f: impl Fn(usize) -> T) -> Result<Vec<Line>> {
    let mut v = host::<Line>("Recurrent::new", (count * size_of::<T>()).div_ceil(size_of::<Line>()))?;
    let data: &mut [T] = bytemuck::cast_slice_mut(&mut v);
    data[..count].iter_mut().enumerate().for_each(|(i, o)| *o = f(i));
    Ok(v)
}

impl Matrix {
    pub(super) fn new(
        m: &[f32],
        units: usize,
        k: usize,
        gates: usize,
        lanes: usize,
        weights: WeightStorage,
    ) -> Result<Self> {
        let width = panel_width(gates);
        let panel = k * width * lanes;
        let count = (units.div_ceil(lanes) * gates).div_ceil(width) * panel;
        // The row and column of an element in packed order, unless it is padding.
        let place = |n: usize| {
            let rest = n % panel;
            let vector = n / panel * width + rest / lanes % width;
            let unit = vector / gates * lanes + rest % lanes;
            (unit < units).then_some((vector % gates * units + unit, rest / (width * lanes)))
        };
        let elements = match weights {
            WeightStorage::F32 => Elements::F32(memory(count, |n| place(n).map_or(0.0, |(r, c)| m[r * k + c]))?),
            WeightStorage::F16 => {
                Elements::F16(memory(count, |n| place(n).map_or(f16::ZERO, |(r, c)| f16::from_f32(m[r * k + c])))?)
            }
            WeightStorage::Int8 => {
                let scales: Vec<f32> = m.chunks_exact(k).map(int8_scale).collect();
                let values = memory(count, |n| place(n).map_or(0, |(r, c)| int8(m[r * k + c], scales[r])))?;
                // A matrix of one column has the same order of rows.
                let scale = Self::new(&scales, units, 1, gates, lanes, WeightStorage::F32)?;
                let Elements::F32(scale) = scale.elements else { unreachable!("made as f32") };
                Elements::Int8(values, scale)
            }
            other => {
                let (operation, feature) = ("Recurrent::new", other.name());
                return Err(Error::Unsupported { operation, feature, device: Device::Cpu.to_string() });
            }
        };
        Ok(Self { k, width, elements })
    }
}

/// Elements of a matrix whose panels are `N` vectors wide.
pub(super) trait Stored: Copy {
    /// A panel's elements.
    type Panel<S: Simd, const N: usize>: Copy;

    fn panel<S: Simd, const N: usize>(self, panel: usize, k: usize) -> Self::Panel<S, N>;

    /// The weights of input `i`.
    fn load<S: Simd, const N: usize>(s: S, panel: Self::Panel<S, N>, i: usize) -> [S::f32s; N];

    /// Turns sums of loaded values into sums of weights (int8 multiplies by the scale).
    fn finish<S: Simd>(self, _s: S, _vector: usize, sum: S::f32s) -> S::f32s {
        sum
    }
}

#[derive(Clone, Copy)]
pub(super) struct F32<'a>(pub(super) &'a [Line]);

impl<'a> Stored for F32<'a> {
    type Panel<S: Simd, const N: usize> = &'a [[S::f32s; N]];

    #[inline(always)]
    fn panel<S: Simd, const N: usize>(self, panel: usize, k: usize) -> &'a [[S::f32s; N]] {
        let (all, _) = S::as_simd_f32s(bytemuck::cast_slice(self.0)).0.as_chunks::<N>();
        &all[panel * k..][..k]
    }

    #[inline(always)]
    fn load<S: Simd, const N: usize>(_: S, panel: &'a [[S::f32s; N]], i: usize) -> [S::f32s; N] {
        panel[i]
    }
}

#[derive(Clone, Copy)]
pub(super) struct F16<'a>(pub(super) &'a [Line]);

impl<'a> Stored for F16<'a> {
    type Panel<S: Simd, const N: usize> = &'a [u16];

    #[inline(always)]
    fn panel<S: Simd, const N: usize>(self, panel: usize, k: usize) -> &'a [u16] {
        let size = k * N * S::F32_LANES;
        &bytemuck::cast_slice::<_, u16>(self.0)[panel * size..][..size]
    }

    #[inline(always)]
    fn load<S: Simd, const N: usize>(s: S, panel: &'a [u16], i: usize) -> [S::f32s; N] {
        let row = &panel[i * N * S::F32_LANES..][..N * S::F32_LANES];
        let mut out = [s.splat_f32s(0.0); N];
        for n in 0..N {
            out[n] = f16s(s, &row[n * S::F32_LANES..][..S::F32_LANES]);
        }
        out
    }
}

#[derive(Clone, Copy)]
pub(super) struct Int8<'a>(pub(super) &'a [Line], pub(super) &'a [Line]);

impl<'a> Stored for Int8<'a> {
    type Panel<S: Simd, const N: usize> = &'a [i8];

    #[inline(always)]
    fn panel<S: Simd, const N: usize>(self, panel: usize, k: usize) -> &'a [i8] {
        let size = k * N * S::F32_LANES;
        &bytemuck::cast_slice::<_, i8>(self.0)[panel * size..][..size]
    }

    #[inline(always)]
    fn load<S: Simd, const N: usize>(s: S, panel: &'a [i8], i: usize) -> [S::f32s; N] {
        let row = &panel[i * N * S::F32_LANES..][..N * S::F32_LANES];
        let mut out = [s.splat_f32s(0.0); N];
        for n in 0..N {
            out[n] = int8s(s, &row[n * S::F32_LANES..][..S::F32_LANES]);
        }
        out
    }

    #[inline(always)]
    fn finish<S: Simd>(self, s: S, vector: usize, sum: S::f32s) -> S::f32s {
        let scale: &[f32] = bytemuck::cast_slice(self.1);
        s.mul_f32s(sum, S::as_simd_f32s(scale).0[vector])
    }
}

/// `s` as the instruction set `T`, if it is that one.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline(always)]
fn known<S: Simd, T: Copy + 'static>(s: S) -> Option<T> {
    (&s as &dyn Any).downcast_ref::<T>().copied()
}

/// `s` as NEON, with or without the instructions for complex numbers.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn neon<S: Simd>(s: S) -> Option<pulp::aarch64::Neon> {
    known::<S, pulp::aarch64::Neon>(s).or_else(|| known::<S, pulp::aarch64::NeonFcma>(s).map(|n| *n))
}

/// Converts f16 to f32; exact.
#[inline(always)]
fn f16s<S: Simd>(s: S, v: &[u16]) -> S::f32s {
    #[cfg(target_arch = "x86_64")]
    {
        if let (Some(v4), Some(v)) = (known::<S, pulp::x86::V4>(s), v.first_chunk::<16>()) {
            let x: pulp::f32x16 = pulp::cast(v4.avx512f._mm512_cvtph_ps(pulp::cast(pulp::u16x16(
                v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10], v[11], v[12], v[13], v[14], v[15],
            ))));
            return bytemuck::cast(x);
        }
        if let (Some(v3), Some(v)) = (known::<S, pulp::x86::V3>(s), v.first_chunk::<8>()) {
            let x = v3.avx2._mm256_cvtepu16_epi32(pulp::cast(*v));
            let x: S::u32s = bytemuck::cast(pulp::cast::<_, pulp::u32x8>(x));
            // Exponent and mantissa are shifted to their places in an f32, whose exponent is then too small by 112.
            let magnitude = s.wrapping_dyn_shl_u32s(s.and_u32s(x, s.splat_u32s(0x7fff)), s.splat_u32s(13));
            let sign = s.wrapping_dyn_shl_u32s(s.and_u32s(x, s.splat_u32s(0x8000)), s.splat_u32s(16));
            let value = s.mul_f32s(s.transmute_f32s_u32s(magnitude), s.splat_f32s(f32::from_bits((112 + 127) << 23)));
            return s.transmute_f32s_u32s(s.or_u32s(s.transmute_u32s_f32s(value), sign));
        }
    }
    #[cfg(target_arch = "aarch64")]
    if let (Some(neon), Some(v)) = (neon(s), v.first_chunk::<4>()) {
        return bytemuck::cast(simd::widen_f16(neon, *v));
    }
    let mut lanes = [0.0; 16];
    for (o, v) in lanes.iter_mut().zip(v) {
        *o = f16::from_bits(*v).to_f32();
    }
    s.partial_load_f32s(&lanes[..S::F32_LANES])
}

/// Converts int8 to f32.
#[inline(always)]
fn int8s<S: Simd>(s: S, v: &[i8]) -> S::f32s {
    #[cfg(target_arch = "x86_64")]
    {
        if let (Some(v4), Some(v)) = (known::<S, pulp::x86::V4>(s), v.first_chunk::<16>()) {
            let x = v4.avx512f._mm512_cvtepi32_ps(v4.avx512f._mm512_cvtepi8_epi32(pulp::cast(*v)));
            return bytemuck::cast(pulp::cast::<_, pulp::f32x16>(x));
        }
        if let (Some(v3), Some(v)) = (known::<S, pulp::x86::V3>(s), v.first_chunk::<8>()) {
            let mut wide = [0i8; 16];
            wide[..8].copy_from_slice(v);
            let x = v3.avx._mm256_cvtepi32_ps(v3.avx2._mm256_cvtepi8_epi32(pulp::cast(wide)));
            return bytemuck::cast(pulp::cast::<_, pulp::f32x8>(x));
        }
    }
    #[cfg(target_arch = "aarch64")]
    if let (Some(neon), Some(v)) = (neon(s), v.first_chunk::<4>()) {
        let neon = neon.neon;
        let narrow: core::arch::aarch64::int8x8_t = bytemuck::cast([v[0], v[1], v[2], v[3], 0, 0, 0, 0]);
        let [x, _]: [core::arch::aarch64::int16x4_t; 2] = bytemuck::cast(neon.vmovl_s8(narrow));
        return bytemuck::cast(neon.vcvtq_f32_s32(neon.vmovl_s16(x)));
    }
    let mut lanes = [0.0; 16];
    for (o, v) in lanes.iter_mut().zip(v) {
        *o = f32::from(*v);
    }
    s.partial_load_f32s(&lanes[..S::F32_LANES])
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulp::{Arch, WithSimd};

    fn archs() -> Vec<Arch> {
        #[cfg(target_arch = "x86_64")]
        let less = pulp::x86::V3::try_new().map(Arch::V3);
        #[cfg(target_arch = "aarch64")]
        let less = pulp::aarch64::Neon::try_new().map(Arch::Neon);
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let less = None;
        [Arch::Scalar, Arch::new()].into_iter().chain(less).collect()
    }

    #[test]
    fn every_f16_and_int8_widens_exactly() {
        struct Halves;
        impl WithSimd for Halves {
            type Output = ();
            fn with_simd<S: Simd>(self, s: S) {
                let all: Vec<u16> = (0..=u16::MAX).filter(|&b| f16::from_bits(b).is_finite()).collect();
                for v in all.chunks_exact(S::F32_LANES) {
                    let mut got = vec![f32::NAN; S::F32_LANES];
                    s.partial_store_f32s(&mut got, f16s(s, v));
                    for (&bits, got) in v.iter().zip(got) {
                        assert_eq!(got.to_bits(), f16::from_bits(bits).to_f32().to_bits(), "{bits:#x}");
                    }
                }
                let all: Vec<i8> = (i8::MIN..=i8::MAX).collect();
                for v in all.chunks_exact(S::F32_LANES) {
                    let mut got = vec![f32::NAN; S::F32_LANES];
                    s.partial_store_f32s(&mut got, int8s(s, v));
                    assert!(v.iter().zip(got).all(|(&v, got)| got == f32::from(v)));
                }
            }
        }
        for arch in archs() {
            arch.dispatch(Halves);
        }
    }
}
