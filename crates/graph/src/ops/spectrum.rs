//! Fourier transforms, as products with matrices of sines and cosines.

use super::prelude::*;
use super::{operation_error, place_of};
use crate::operator::given;
use crate::{Data, Element, HostInputs, Packed};
use core::f64::consts::TAU;
use recurve_tensor::{Device, Error};
use smallvec::SmallVec;
use std::sync::{Mutex, PoisonError};

/// The most elements of a matrix: 256 MiB.
const MOST: usize = 1 << 26;

/// A transform of `len` numbers with `parts` each, real or complex, as a matrix `[len · parts, bins · out_parts]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Transform {
    len: usize,
    parts: usize,
    length: usize,
    inverse: bool,
    onesided: bool,
}

impl Transform {
    fn bins(&self) -> usize {
        if self.onesided && !self.inverse { self.length / 2 + 1 } else { self.length }
    }

    fn out_parts(&self) -> usize {
        if self.onesided && self.inverse { 1 } else { 2 }
    }

    /// What element `i`, part `part`, adds to result `k`: the factors of its real and its imaginary part.
    fn factors(&self, i: usize, part: usize, k: usize) -> [f64; 2] {
        let half = self.length / 2 + 1;
        let used = if self.inverse && self.onesided { half } else { self.length };
        if i >= used {
            return [0.0; 2];
        }
        let turns = (i as u128 * k as u128 % self.length as u128) as f64 / self.length as f64;
        let (sin, cos) = (TAU * turns).sin_cos();
        let sin = if self.inverse { sin } else { -sin };
        let weight = match (self.inverse, self.onesided) {
            (false, _) => 1.0,
            // Each of the spectrum's half stands for itself and for the one that mirrors it.
            (true, true) if i > 0 && 2 * i != self.length => 2.0 / self.length as f64,
            (true, _) => 1.0 / self.length as f64,
        };
        let [real, imaginary] = if part == 0 { [cos, sin] } else { [-sin, cos] };
        [real * weight, imaginary * weight]
    }

    fn matrix(&self, operation: &'static str) -> Result<Vec<f32>> {
        let (bins, out) = (self.bins(), self.out_parts());
        let count = [self.len, self.parts, bins, out].into_iter().try_fold(1usize, usize::checked_mul);
        let Some(count) = count.filter(|&n| n <= MOST) else {
            let message = format!("is {} for {} elements, which is too long for a product", self.length, self.len);
            return Err(Error::Argument { operation, argument: "dft_length", message });
        };
        let mut matrix = recurve_tensor::cpu::host::<f32>(operation, count)?;
        let mut next = matrix.iter_mut();
        for i in 0..self.len {
            for part in 0..self.parts {
                for k in 0..bins {
                    for factor in &self.factors(i, part, k)[..out] {
                        *next.next().expect("as many as counted") = *factor as f32;
                    }
                }
            }
        }
        Ok(matrix)
    }

    /// Of rows `[rows, len · parts]`.
    fn apply(&self, operation: &'static str, rows: &Tensor, cache: Option<&Packed>) -> Result<Tensor> {
        let cache = cache.and_then(|c| c.downcast_ref::<Cache>());
        let lock = || cache.map(|c| c.0.lock().unwrap_or_else(PoisonError::into_inner));
        let found = lock().and_then(|all| all.iter().find(|(t, _)| t == self).map(|(_, m)| m.clone()));
        let matrix = match found {
            Some(matrix) => matrix,
            None => {
                let dims = [self.len * self.parts, self.bins() * self.out_parts()];
                let made = Tensor::from_f32(&self.matrix(operation)?, &dims, &rows.device())?;
                if let Some(mut all) = lock() {
                    if all.len() == Cache::MOST {
                        all.remove(0);
                    }
                    all.push((*self, made.clone()));
                }
                made
            }
        };
        rows.matmul(&matrix)
    }

    /// The same in f64.
    fn reference(&self, row: &[f64]) -> Vec<f64> {
        let out = self.out_parts();
        let mut y = vec![0.0; self.bins() * out];
        for (k, y) in y.chunks_exact_mut(out).enumerate() {
            for (n, v) in row.iter().enumerate() {
                let factors = self.factors(n / self.parts, n % self.parts, k);
                y.iter_mut().zip(factors).for_each(|(y, f)| *y += v * f);
            }
        }
        y
    }
}

/// Matrices that have been used.
#[derive(Debug, Default)]
struct Cache(Mutex<SmallVec<[(Transform, Tensor); 2]>>);

impl Cache {
    const MOST: usize = 4;
}

/// A discrete Fourier transform along an axis of `[…, 1]` or, complex, `[…, 2]`. Optional inputs are the length, to
/// which the axis is cut or filled with zeros, and the axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dft {
    /// The axis, from the end if it is negative, where no input says it.
    pub axis: i64,
    /// The inverse transform.
    pub inverse: bool,
    /// Real numbers to the first half of their spectrum, or back.
    pub onesided: bool,
}

impl Dft {
    /// The axis and the transform of a tensor with these dimensions.
    fn plan(&self, dims: &[usize], length: Option<i64>, axis: i64) -> Result<(usize, Transform), Fault> {
        let axis = self.place(axis, dims.len())?;
        let parts = dims[dims.len() - 1];
        self.check_parts(parts)?;
        let len = dims[axis];
        let default = if self.inverse && self.onesided { 2 * (len as i64 - 1) } else { len as i64 };
        let length = length.unwrap_or(default);
        let bad = || Fault::Input(1, format!("at least 1, and below 2^31, but it is {length}"));
        let length = usize::try_from(length).ok().filter(|&n| (1..1 << 31).contains(&n)).ok_or_else(bad)?;
        Ok((axis, Transform { len, parts, length, inverse: self.inverse, onesided: self.onesided }))
    }

    fn place(&self, axis: i64, rank: usize) -> Result<usize, Fault> {
        let place = place_of(axis, rank).filter(|&p| p + 1 < rank);
        place.ok_or_else(|| Fault::Attribute("axis", format!("is {axis}, but must be one of {rank} but the last")))
    }

    fn check_parts(&self, parts: usize) -> Result<(), Fault> {
        match (parts, self.onesided, self.inverse) {
            (1, true, true) => Err(Fault::Input(0, "complex, […, 2], for the inverse of a one-sided transform".into())),
            (2, true, false) => Err(Fault::Input(0, "real, […, 1], for a one-sided transform".into())),
            (1 | 2, ..) => Ok(()),
            _ => Err(Fault::Input(0, "[…, 1] or […, 2]".into())),
        }
    }
}

/// The one number of an input.
fn scalar(call: &Call<'_>, index: usize, name: &'static str) -> Result<Option<i64>> {
    let Some(_) = call.get(index) else { return Ok(None) };
    match call.ints(index)?.data() {
        [v] => Ok(Some(*v)),
        other => {
            let message = format!("must be one number, but there are {}", other.len());
            Err(Error::Argument { operation: "a Fourier transform", argument: name, message })
        }
    }
}

/// The one number of an input, if types know it.
fn known_scalar(inputs: &[Option<&ValueType>], index: usize) -> Option<Option<i64>> {
    match inputs.get(index).copied().flatten() {
        None => Some(None),
        Some(t) => t.content().and_then(|c| c.first().copied()).map(Some),
    }
}

impl Operator for Dft {
    fn name(&self) -> &'static str {
        "DFT"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("x"), Slot::Optional("dft_length"), Slot::Optional("axis")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let x = given(inputs, 0)?;
        if !x.dtype.is_float() {
            return Err(Fault::Input(0, "floats".into()));
        }
        if x.unranked {
            return Ok(vec![ValueType::unranked(x.dtype)]);
        }
        let rank = x.rank();
        if rank < 2 {
            return Err(Fault::Input(0, "[…, 1] or […, 2]".into()));
        }
        if let Some(parts) = x.dims[rank - 1].size() {
            self.check_parts(parts)?;
        }
        let (length, axis) = (known_scalar(inputs, 1), known_scalar(inputs, 2));
        let mut dims = x.dims.clone();
        dims[rank - 1] = Dim::Size(if self.inverse && self.onesided { 1 } else { 2 });
        let Some(axis) = axis else {
            dims[..rank - 1].fill(Dim::Any);
            return Ok(vec![x.with_dims(dims)]);
        };
        let axis = self.place(axis.unwrap_or(self.axis), rank)?;
        let out = match (length, x.dims[axis].size()) {
            (None, _) => Dim::Any,
            (Some(None), None) if self.onesided => Dim::Any,
            (Some(None), None) => x.dims[axis].clone(),
            (Some(length), len) => {
                let mut shape = vec![1; rank];
                shape[axis] = len.unwrap_or(2);
                shape[rank - 1] = if self.onesided && self.inverse { 2 } else { 1 };
                Dim::Size(self.plan(&shape, length, axis as i64)?.1.bins())
            }
        };
        dims[axis] = out;
        Ok(vec![x.with_dims(dims)])
    }
    fn pack(&self, _: &HostInputs<'_>, _: &Device) -> crate::Result<Option<Packed>> {
        Ok(Some(Box::new(Cache::default())))
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let x = call.floats(0)?;
        if x.dims().len() < 2 {
            return Err(operation_error(self, Fault::Input(0, "[…, 1] or […, 2]".into())));
        }
        let (length, axis) = (scalar(call, 1, "dft_length")?, scalar(call, 2, "axis")?);
        let (axis, t) =
            self.plan(x.dims(), length, axis.unwrap_or(self.axis)).map_err(|fault| operation_error(self, fault))?;
        // The axis next to the parts, and the others before it.
        let rank = x.dims().len();
        let mut order: SmallVec<[usize; 6]> = (0..rank - 1).filter(|&n| n != axis).collect();
        order.extend([axis, rank - 1]);
        let moved = if axis + 2 == rank { x.into_owned() } else { x.transpose(&order)? };
        let mut dims: SmallVec<[usize; 6]> = moved.dims().into();
        let rows = moved.shape().count() / (t.len * t.parts);
        let y = t.apply(self.name(), &moved.reshape(&[rows, t.len * t.parts])?, call.packed)?;
        dims[rank - 2..].copy_from_slice(&[t.bins(), t.out_parts()]);
        let y = y.reshape(&dims)?;
        if axis + 2 == rank {
            return Ok(one(y));
        }
        let back: SmallVec<[usize; 6]> =
            (0..rank).map(|n| order.iter().position(|&o| o == n).expect("every axis is there")).collect();
        Ok(one(y.transpose(&back)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let number = |i: usize| inputs.get(i).copied().flatten().map(|a| a.data[0] as i64);
        let (axis, t) = self.plan(&x.dims, number(1), number(2).unwrap_or(self.axis)).expect("inputs that fit");
        let mut dims = x.dims.clone();
        let rank = dims.len();
        (dims[axis], dims[rank - 1]) = (t.bins(), t.out_parts());
        vec![Some(Array::from_fn(&dims, |at| {
            let mut from = at.to_vec();
            let terms = (0..t.len * t.parts).map(|n| {
                (from[axis], from[rank - 1]) = (n / t.parts, n % t.parts);
                x.at(&from) * t.factors(n / t.parts, n % t.parts, at[axis])[at[rank - 1]]
            });
            terms.sum()
        }))]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Fourier transforms of windows of a signal, `[B, L, 1]` or complex `[B, L, 2]`. Inputs are the signal, how far windows
/// are apart, the window, and its length; the result is `[B, windows, bins, 2]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stft {
    /// The first half of the spectrum of real numbers.
    pub onesided: bool,
}

impl Stft {
    /// The transform of a window and how many there are.
    fn plan(
        &self,
        signal: [usize; 2],
        step: i64,
        window: Option<usize>,
        length: Option<i64>,
    ) -> Result<(Transform, usize), Fault> {
        let [len, parts] = signal;
        if !(parts == 1 || parts == 2 && !self.onesided) {
            let expected =
                if self.onesided { "real, […, 1], for a one-sided transform" } else { "[…, 1] or […, 2]" };
            return Err(Fault::Input(0, expected.into()));
        }
        let length = match (length, window) {
            (Some(n), _) => usize::try_from(n).map_err(|_| Fault::Input(3, format!("at least 1, but it is {n}")))?,
            (None, Some(n)) => n,
            (None, None) => len,
        };
        if window.is_some_and(|n| n != length) {
            return Err(Fault::Input(2, format!("of {length} elements, the length of a frame")));
        }
        let step = usize::try_from(step).ok().filter(|&n| n > 0);
        let step = step.ok_or_else(|| Fault::Input(1, "at least 1".into()))?;
        if length == 0 || length > len {
            return Err(Fault::Input(0, format!("of at least {length} elements, the length of a frame")));
        }
        let t = Transform { len: length, parts, length, inverse: false, onesided: self.onesided };
        Ok((t, (len - length) / step + 1))
    }
}

impl Operator for Stft {
    fn name(&self) -> &'static str {
        "STFT"
    }
    fn slots(&self) -> &[Slot] {
        &[
            Slot::Required("signal"),
            Slot::Required("frame_step"),
            Slot::Optional("window"),
            Slot::Optional("frame_length"),
        ]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let x = given(inputs, 0)?;
        if !x.dtype.is_float() {
            return Err(Fault::Input(0, "floats".into()));
        }
        let (batch, signal) = match &x.dims[..] {
            _ if x.unranked => (Dim::Any, None),
            [b, l] => (b.clone(), l.size().map(|l| [l, 1])),
            [b, l, c] => (b.clone(), l.size().zip(c.size()).map(|(l, c)| [l, c])),
            _ => return Err(Fault::Input(0, "[B, L, 1] or [B, L, 2]".into())),
        };
        let window = match inputs.get(2).copied().flatten() {
            None => Some(None),
            Some(t) => t.dims.first().and_then(Dim::size).map(Some),
        };
        let (step, length) = (known_scalar(inputs, 1).flatten(), known_scalar(inputs, 3));
        let bins = |length: usize| if self.onesided { length / 2 + 1 } else { length };
        let (mut count, mut out) = (Dim::Any, Dim::Any);
        match (signal, step, window, length) {
            (Some(signal), Some(step), Some(window), Some(length)) => {
                let (t, n) = self.plan(signal, step, window, length)?;
                (count, out) = (Dim::Size(n), Dim::Size(t.bins()));
            }
            (_, _, _, Some(Some(n))) => out = usize::try_from(n).ok().map(bins).into(),
            (_, _, Some(Some(n)), _) => out = Dim::Size(bins(n)),
            _ => {}
        }
        Ok(vec![ValueType::new(x.dtype, [batch, count, out, Dim::Size(2)])])
    }
    fn pack(&self, _: &HostInputs<'_>, _: &Device) -> crate::Result<Option<Packed>> {
        Ok(Some(Box::new(Cache::default())))
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let x = call.floats(0)?;
        let (batch, signal) = match *x.dims() {
            [b, l] => (b, [l, 1]),
            [b, l, c] => (b, [l, c]),
            _ => return Err(operation_error(self, Fault::Input(0, "[B, L, 1] or [B, L, 2]".into()))),
        };
        let step = scalar(call, 1, "frame_step")?.unwrap_or(0);
        let length = scalar(call, 3, "frame_length")?;
        let window = call.get(2).map(|_| call.floats(2)).transpose()?;
        let size = window.as_ref().map(|w| w.shape().count());
        let (t, count) = self.plan(signal, step, size, length).map_err(|fault| operation_error(self, fault))?;
        let x = x.reshape(&[batch, signal[0], signal[1]])?;
        let mut frames = x.frames(1, t.len, step as usize, count)?;
        if let Some(window) = window {
            frames = frames.mul(&window.reshape(&[t.len, 1])?)?;
        }
        let rows = frames.reshape(&[batch * count, t.len * t.parts])?;
        Ok(one(t.apply(self.name(), &rows, call.packed)?.reshape(&[batch, count, t.bins(), 2])?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let parts = x.dims.get(2).copied().unwrap_or(1);
        let step = array(inputs, 1).data[0] as usize;
        let window = inputs.get(2).copied().flatten();
        let length = inputs.get(3).copied().flatten().map(|a| a.data[0] as i64);
        let size = window.map(|w| w.data.len());
        let (t, count) = self.plan([x.dims[1], parts], step as i64, size, length).expect("inputs that fit");
        let mut y = Vec::new();
        for signal in x.data.chunks_exact(x.dims[1] * parts) {
            for n in 0..count {
                let frame = &signal[n * step * parts..][..t.len * parts];
                let weight = |i: usize| window.map_or(1.0, |w| w.data[i / parts]);
                let frame: Vec<f64> = frame.iter().enumerate().map(|(i, v)| v * weight(i)).collect();
                y.extend(t.reference(&frame));
            }
        }
        vec![Some(Array::new(&[x.dims[0], count, t.bins(), 2], y))]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A window of cosines for a Fourier transform: `a0 - a1 cos(2π n / N) + a2 cos(4π n / N)`, of as many elements as
/// the input says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CosineWindow {
    /// Which one.
    pub kind: Cosines,
    /// N is the number of elements, not one less.
    pub periodic: bool,
}

/// A window's factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cosines {
    /// 1/2, 1/2, 0
    Hann,
    /// 25/46, 21/46, 0
    Hamming,
    /// 0.42, 0.5, 0.08
    Blackman,
}

impl CosineWindow {
    fn at(&self, n: usize, size: usize) -> f64 {
        let [a0, a1, a2] = match self.kind {
            Cosines::Hann => [0.5, 0.5, 0.0],
            Cosines::Hamming => [25.0 / 46.0, 21.0 / 46.0, 0.0],
            Cosines::Blackman => [0.42, 0.5, 0.08],
        };
        let whole = if self.periodic { size } else { size - 1 };
        let turn = TAU * n as f64 / whole as f64;
        a0 - a1 * turn.cos() + a2 * (2.0 * turn).cos()
    }

    fn size(&self, size: i64) -> Result<usize, Fault> {
        // One element alone has no turn to stand in.
        let least = if self.periodic { 1 } else { 2 };
        let size = usize::try_from(size).ok().filter(|n| (least..=MOST).contains(n));
        size.ok_or_else(|| Fault::Input(0, format!("a size from {least} to {MOST}")))
    }
}

impl Operator for CosineWindow {
    fn name(&self) -> &'static str {
        match self.kind {
            Cosines::Hann => "HannWindow",
            Cosines::Hamming => "HammingWindow",
            Cosines::Blackman => "BlackmanWindow",
        }
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("size")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let size = given(inputs, 0)?;
        if !matches!(size.dtype, Element::Int(_)) {
            return Err(Fault::Input(0, "a whole number".into()));
        }
        let dim = match known_scalar(inputs, 0).flatten() {
            Some(n) => Dim::Size(self.size(n)?),
            None => Dim::Any,
        };
        Ok(vec![ValueType::new(DType::F32, [dim])])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let size = scalar(call, 0, "size")?.unwrap_or(0);
        let size = self.size(size).map_err(|fault| operation_error(self, fault))?;
        let mut all = recurve_tensor::cpu::host::<f32>(self.name(), size)?;
        all.iter_mut().enumerate().for_each(|(n, v)| *v = self.at(n, size) as f32);
        Ok(one(Tensor::from_f32(&all, &[size], call.device)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let size = self.size(array(inputs, 0).data[0] as i64).expect("inputs that fit");
        vec![Some(Array::from_fn(&[size], |n| self.at(n[0], size)))]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Weights that make the bins of a spectrum to bands of the mel scale: `[dft_length / 2 + 1, bands]`. Inputs are the
/// number of bands, the transform's length, the sample rate, and the lowest and the highest frequency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MelWeights;

impl MelWeights {
    fn matrix(bands: i64, length: i64, rate: i64, low: f64, high: f64) -> Result<Array, Fault> {
        let whole = |v: i64, n: usize| {
            let v = usize::try_from(v).ok().filter(|v| (1..1 << 24).contains(v));
            v.ok_or_else(|| Fault::Input(n, "from 1 to 2^24".into()))
        };
        let (bands, length, rate) = (whole(bands, 0)?, whole(length, 1)?, whole(rate, 2)?);
        let bins = length / 2 + 1;
        if bins.saturating_mul(bands) > MOST {
            return Err(Fault::Input(0, "fewer, for the matrix is too large".into()));
        }
        let mel = |hertz: f64| 2595.0 * (1.0 + hertz / 700.0).log10();
        let step = (mel(high) - mel(low)) / (bands + 2) as f64;
        let edge = |n: usize| {
            let hertz = 700.0 * (10f64.powf((n as f64 * step + mel(low)) / 2595.0) - 1.0);
            ((length + 1) as f64 * hertz / rate as f64).floor()
        };
        let edges: Vec<f64> = (0..bands + 2).map(edge).collect();
        if !edges.iter().all(|e| (0.0..bins as f64).contains(e)) {
            return Err(Fault::Input(4, format!("frequencies within the {bins} bins of the spectrum")));
        }
        let mut weights = Array::new(&[bins, bands], vec![0.0; bins * bands]);
        for band in 0..bands {
            let [left, center, right] = [0, 1, 2].map(|n| edges[band + n] as usize);
            let mut set = |bin: usize, v: f64| weights.data[bin * bands + band] = v;
            if left == center {
                set(center, 1.0);
            }
            for bin in left..=center {
                if left < center {
                    set(bin, (bin - left) as f64 / (center - left) as f64);
                }
            }
            for bin in center..right {
                set(bin, (right - bin) as f64 / (right - center) as f64);
            }
        }
        Ok(weights)
    }
}

impl Operator for MelWeights {
    fn name(&self) -> &'static str {
        "MelWeightMatrix"
    }
    fn slots(&self) -> &[Slot] {
        const SLOTS: [Slot; 5] = [
            Slot::Required("num_mel_bins"),
            Slot::Required("dft_length"),
            Slot::Required("sample_rate"),
            Slot::Required("lower_edge_hertz"),
            Slot::Required("upper_edge_hertz"),
        ];
        &SLOTS
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        for i in 0..5 {
            let t = given(inputs, i)?;
            if t.dtype.is_float() != (i > 2) {
                return Err(Fault::Input(i, if i > 2 { "a float" } else { "a whole number" }.into()));
            }
        }
        let known = |i| known_scalar(inputs, i).flatten().and_then(|n| usize::try_from(n).ok());
        Ok(vec![ValueType::new(DType::F32, [Dim::from(known(1).map(|n| n / 2 + 1)), known(0).into()])])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let whole = |i, name| scalar(call, i, name).map(|v| v.unwrap_or(0));
        let float = |i: usize| -> Result<f64> {
            let v = match call.data(i) {
                Data::Tensor(t) => t.to_vec()?,
                Data::Ints(n) => n.data().iter().map(|&v| v as f32).collect(),
            };
            Ok(v.first().copied().map_or(f64::NAN, f64::from))
        };
        let (bands, length) = (whole(0, "num_mel_bins")?, whole(1, "dft_length")?);
        let weights = Self::matrix(bands, length, whole(2, "sample_rate")?, float(3)?, float(4)?)
            .map_err(|fault| operation_error(self, fault))?;
        let narrow: Vec<f32> = weights.data.iter().map(|&v| v as f32).collect();
        Ok(one(Tensor::from_f32(&narrow, &weights.dims, call.device)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let [bands, length, rate, low, high] = [0, 1, 2, 3, 4].map(|i| array(inputs, i).data[0]);
        vec![Some(Self::matrix(bands as i64, length as i64, rate as i64, low, high).expect("inputs that fit"))]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
