//! Weight matrices in panels of a few vector registers, as f32, f16 or int8, and how vectors of them come
//! into registers.

use super::pack::Line;
use super::product::panel_width;
use crate::config::{NEW, check_int8, to_f16};
use crate::{WeightSource, WeightStorage};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use core::any::Any;
use half::f16;
use pulp::{Simd, WithSimd};
#[cfg(target_arch = "aarch64")]
use recurve_tensor::cpu::simd;
use recurve_tensor::cpu::threads::prelude::*;
use recurve_tensor::cpu::{host, simd_arch, simd_lanes, threads_for};
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
    let mut v = host::<Line>(NEW, (count * size_of::<T>()).div_ceil(size_of::<Line>()))?;
    let data: &mut [T] = bytemuck::cast_slice_mut(&mut v);
    data[..count].iter_mut().enumerate().for_each(|(i, o)| *o = f(i));
    Ok(v)
}

/// Elements of a matrix that are read at once, about.
const READ: usize = 1 << 18;

impl Matrix {
    /// Packs the rows of a matrix of `k` columns from row `first` on: those of `units` units for each of `gates` gates.
    pub(super) fn new(
        source: &dyn WeightSource,
        first: usize,
        [gates, units, k]: [usize; 3],
        lanes: usize,
        weights: WeightStorage,
    ) -> Result<Self> {
        let rows = Rows { source, first, gates, units, k, lanes };
        let elements = match weights {
            WeightStorage::F32 => Elements::F32(rows.pack(|v, _| Ok(v))?),
            WeightStorage::F16 => Elements::F16(rows.pack(|v, _| to_f16(v))?),
            WeightStorage::Int8 => {
                let scales = rows.scales()?;
                let values = rows.pack(|v, row| Ok(int8(v, scales[row])))?;
                // A matrix of one column has the same order of rows.
                let scale = Rows { source: &scales, first: 0, k: 1, ..rows }.pack(|v, _| Ok(v))?;
                Elements::Int8(values, scale)
            }
            other => {
                let (operation, feature) = ("Recurrent::new", other.name());
                return Err(Error::Unsupported { operation, feature, device: Device::Cpu.to_string() });
            }
        };
        Ok(Self { k, width: panel_width(gates), elements })
    }
}

/// A matrix `[units, k]` in memory, as rows or, with `transposed`, as the columns of `[k, units]`.
#[derive(Clone, Copy)]
pub(super) struct Plain<'a> {
    pub(super) data: &'a [f32],
    /// From row to row in memory.
    pub(super) stride: usize,
    pub(super) units: usize,
    pub(super) k: usize,
    pub(super) transposed: bool,
}

impl Matrix {
    /// Packs another matrix, in the same memory if it is large enough.
    pub(super) fn set(&mut self, m: Plain<'_>) -> Result<()> {
        let (lanes, width) = (simd_lanes(), panel_width(1));
        let panel = m.k * width * lanes;
        let panels = m.units.div_ceil(width * lanes);
        let lines = (panels * panel).div_ceil(Line::FLOATS);
        let Elements::F32(memory) = &mut self.elements else { unreachable!("always f32") };
        if memory.len() < lines {
            *memory = Vec::new();
            *memory = host(NEW, lines)?;
        }
        (self.k, self.width) = (m.k, width);
        let packed: &mut [f32] = &mut bytemuck::cast_slice_mut(memory)[..panels * panel];
        let one = |(n, out): (usize, &mut [f32])| simd_arch().dispatch(Panel { m, first: n * width * lanes, out });
        if threads_for(m.units * m.k) > 1 {
            packed.par_chunks_mut(panel).enumerate().for_each(one);
        } else {
            packed.chunks_mut(panel).enumerate().for_each(one);
        }
        Ok(())
    }
}

/// One panel of a matrix, `[k, units of a panel]`, from unit `first` on.
struct Panel<'a> {
    m: Plain<'a>,
    first: usize,
    out: &'a mut [f32],
}

impl WithSimd for Panel<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        /// Rows and columns that are moved at once, in registers.
        const SIDE: usize = 8;
        let Self { m, first, out } = self;
        let width = out.len() / m.k;
        let count = width.min(m.units - first);
        if count < width {
            out.fill(0.0);
        }
        if m.transposed {
            for (out, row) in out.chunks_exact_mut(width).zip(m.data.chunks(m.stride)) {
                out[..count].copy_from_slice(&row[first..first + count]);
            }
            return;
        }
        let row = |unit: usize| &m.data[(first + unit) * m.stride..][..m.k];
        for unit in (0..count).step_by(SIDE) {
            let mut k = 0;
            if unit + SIDE <= count {
                let mut rows = [row(unit); SIDE];
                for (n, r) in rows.iter_mut().enumerate() {
                    *r = row(unit + n);
                }
                while k + SIDE <= m.k {
                    let mut block = [[0.0; SIDE]; SIDE];
                    for n in 0..SIDE {
                        block[n].copy_from_slice(&rows[n][k..k + SIDE]);
                    }
                    for i in 0..SIDE {
                        let out = &mut out[(k + i) * width + unit..][..SIDE];
                        for n in 0..SIDE {
                            out[n] = block[n][i];
                        }
                    }
                    k += SIDE;
                }
            }
            for unit in unit..count.min(unit + SIDE) {
                let row = row(unit);
                for k in k..m.k {
                    out[k * width + unit] = row[k];
                }
            }
        }
    }
}

/// Rows of a matrix that are to be packed.
#[derive(Clone, Copy)]
struct Rows<'a> {
    source: &'a dyn WeightSource,
    /// The first row, of `gates · units`.
    first: usize,
    gates: usize,
    units: usize,
    k: usize,
    lanes: usize,
}

impl Rows<'_> {
    /// The elements in packed order, each made by `element` from a weight and the number of its row. A vector's rows
    /// are read at once, or parts of them one after another if they are long.
    fn pack<T: bytemuck::Pod>(self, element: impl Fn(f32, usize) -> Result<T>) -> Result<Vec<Line>> {
        /// Columns that are moved at once: those of a cache line.
        const SPAN: usize = Line::FLOATS;
        let Self { source, first, gates, units, k, lanes } = self;
        let width = panel_width(gates);
        let vectors = units.div_ceil(lanes) * gates;
        let panel = k * width * lanes;
        let bytes = vectors.div_ceil(width) * panel * size_of::<T>();
        let mut out = host::<Line>(NEW, bytes.div_ceil(size_of::<Line>()))?;
        let packed: &mut [T] = bytemuck::cast_slice_mut(&mut out);
        let columns = (READ / lanes).min(k);
        let mut block = host::<f32>(NEW, lanes * columns)?;
        for vector in 0..vectors {
            let (unit, gate) = (vector / gates * lanes, vector % gates);
            let (row, count) = (gate * units + unit, lanes.min(units - unit));
            let packed = &mut packed[vector / width * panel + vector % width * lanes..];
            for column in (0..k).step_by(columns) {
                let n = columns.min(k - column);
                let together = if n == k { count } else { 1 };
                let block = &mut block[..count * n];
                for (i, part) in block.chunks_exact_mut(together * n).enumerate() {
                    source.read((first + row + i) * k + column, part);
                }
                for from in (0..n).step_by(SPAN) {
                    for (lane, values) in block.chunks_exact(n).enumerate() {
                        let values = &values[from..n.min(from + SPAN)];
                        let places = packed[(column + from) * width * lanes + lane..].iter_mut();
                        for (place, &v) in places.step_by(width * lanes).zip(values) {
                            *place = element(v, row + lane)?;
                        }
                    }
                }
            }
        }
        Ok(out)
    }

    /// What one counts for in each row, stored as int8.
    fn scales(self) -> Result<Vec<f32>> {
        let Self { source, first, gates, units, k, .. } = self;
        let mut scales = host::<f32>(NEW, gates * units)?;
        let together = (READ / k).max(1);
        let mut block = host::<f32>(NEW, together.min(scales.len()) * k)?;
        for (n, scales) in scales.chunks_mut(together).enumerate() {
            let block = &mut block[..scales.len() * k];
            source.read((first + n * together) * k, block);
            check_int8(block)?;
            scales.iter_mut().zip(block.chunks_exact(k)).for_each(|(scale, row)| *scale = int8_scale(row));
        }
        Ok(scales)
    }
}

/// Inputs of a row that a product's inner loop takes in one turn.
pub(super) const GROUP: usize = 4;

/// Elements of a matrix whose panels are `N` vectors wide.
pub(super) trait Stored: Copy {
    /// A panel's elements.
    type Panel<S: Simd, const N: usize>: Copy;

    fn panel<S: Simd, const N: usize>(self, panel: usize, k: usize) -> Self::Panel<S, N>;

    /// The weights of input `i`.
    fn load<S: Simd, const N: usize>(s: S, panel: Self::Panel<S, N>, i: usize) -> [S::f32s; N];

    /// The weights of input `u` of group `i`, of [`GROUP`] inputs each.
    #[inline(always)]
    fn load_of<S: Simd, const N: usize>(s: S, panel: Self::Panel<S, N>, i: usize, u: usize) -> [S::f32s; N] {
        Self::load(s, panel, i * GROUP + u)
    }

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

    #[inline(always)]
    fn load_of<S: Simd, const N: usize>(_: S, panel: &'a [[S::f32s; N]], i: usize, u: usize) -> [S::f32s; N] {
        panel.as_chunks::<GROUP>().0[i][u]
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
    use pulp::Arch;

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
