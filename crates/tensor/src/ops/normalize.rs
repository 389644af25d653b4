//! Normalization of rows, with a scale and an offset for each channel (`normalize.wgsl`).

use super::binary::Operation;
use super::reduce::sum;
use crate::{DType, Device, Error, Reduction, Result, Shape, Tensor};

/// How rows of a tensor are normalised. The channel of element i of the tensor, row-major, is
/// `i / inner % channels`.
#[derive(Clone, Copy, Debug)]
pub struct Normalization<'a> {
    /// Elements of a row; the rows make up the tensor.
    pub width: usize,
    /// The mean is taken off first; else rows are divided by the root of their mean square.
    pub centered: bool,
    /// Added to the variance.
    pub epsilon: f32,
    /// `[channels]`, multiplied with what is normalised.
    pub scale: Option<&'a Tensor>,
    /// `[channels]`, added at the end.
    pub offset: Option<&'a Tensor>,
    /// Neighbouring elements of one channel.
    pub inner: usize,
}

/// What [`Tensor::normalize`] gives.
#[derive(Clone, Debug)]
pub struct Normalized {
    /// The elements, in the shape of the tensor.
    pub y: Tensor,
    /// The mean of each row, zero if rows are not centred.
    pub mean: Tensor,
    /// `1 / √(variance + epsilon)` of each row.
    pub inverse: Tensor,
}

impl Normalization<'_> {
    /// The number of channels; 1 if there is neither scale nor offset.
    pub(crate) fn channels(&self) -> usize {
        self.scale.or(self.offset).map_or(1, |t| t.shape().count())
    }
}

impl Tensor {
    /// `(x - mean) / √(variance + epsilon) · scale + offset`, row by row, the variance that of the elements
    /// themselves.
    ///
    /// Mean and variance are off as those of [`Self::layer_norm`].
    ///
    /// # Errors
    /// [`Error::DType`] unless all are f32; [`Error::Shape`] if scale and offset are not vectors of one length;
    /// [`Error::Argument`] if the width does not divide the elements, `inner` and the channels do not divide them, or
    /// epsilon is not finite or below 0; [`Error::Device`] if they are on different devices.
    pub fn normalize(&self, how: &Normalization<'_>) -> Result<Normalized> {
        let operation = "normalize";
        self.check_dtype(operation, "self", "f32", self.dtype() == DType::F32)?;
        let count = self.shape().count();
        let channels = how.channels();
        for (argument, t) in [("scale", how.scale), ("offset", how.offset)] {
            let Some(t) = t else { continue };
            t.check_dtype(operation, argument, "f32", t.dtype() == DType::F32)?;
            self.check_same_device(t, operation, argument)?;
            if t.dims() != [channels] {
                return Err(Error::shape(operation, argument, format!("[{channels}]"), t.shape()));
            }
        }
        let bad = |argument, message| Err(Error::Argument { operation, argument, message });
        if how.width == 0 || !count.is_multiple_of(how.width) {
            return bad("width", format!("is {}, but must divide the {count} elements of {}", how.width, self.shape()));
        }
        let block = channels.checked_mul(how.inner).filter(|&n| n > 0);
        if block.is_none_or(|n| !count.is_multiple_of(n)) {
            let message = format!("is {} for {channels} channels, which do not make up {}", how.inner, self.shape());
            return bad("inner", message);
        }
        if !(how.epsilon.is_finite() && how.epsilon >= 0.0) {
            return bad("epsilon", format!("must be finite and at least 0, but it is {}", how.epsilon));
        }
        match self.device() {
            Device::Cpu => self.normalize_on_cpu(how),
            Device::Gpu(gpu) => gpu.normalize(self, how),
        }
    }

    /// `(x - mean) / √(variance + epsilon) · scale + offset` with a number of each for every channel of `[N, C, …]`:
    /// `[scale, offset, mean, variance]`, `[C]` each.
    ///
    /// # Errors
    /// [`Error::DType`] unless all are f32; [`Error::Shape`] if they do not fit; [`Error::Argument`] if epsilon is not
    /// finite or below 0; [`Error::Device`] if they are on different devices.
    pub fn batch_norm(&self, channels: [&Self; 4], epsilon: f32) -> Result<Self> {
        let operation = "batch_norm";
        self.check_dtype(operation, "self", "f32", self.dtype() == DType::F32)?;
        let &[_, count, ref rest @ ..] = self.dims() else {
            return Err(Error::shape(operation, "self", "[N, C, …]", self.shape()));
        };
        let inner: usize = rest.iter().product();
        for (argument, t) in ["scale", "offset", "mean", "variance"].into_iter().zip(channels) {
            t.check_dtype(operation, argument, "f32", t.dtype() == DType::F32)?;
            self.check_same_device(t, operation, argument)?;
            if t.dims() != [count] {
                return Err(Error::shape(operation, argument, format!("[{count}]"), t.shape()));
            }
        }
        if !(epsilon.is_finite() && epsilon >= 0.0) {
            let message = format!("must be finite and at least 0, but it is {epsilon}");
            return Err(Error::Argument { operation, argument: "epsilon", message });
        }
        let [scale, offset, mean, variance] = channels;
        if let Device::Gpu(_) = self.device() {
            let column = |t: &Self| t.reshape(&[count, 1]);
            let x = self.reshape(&[self.dims()[0], count, inner])?;
            let slope = scale.binary(&variance.with_number(epsilon, Operation::Add, false)?, Operation::DivRoot)?;
            let y = x.sub(&column(mean)?)?.mul(&column(&slope)?)?.add(&column(offset)?)?;
            return y.reshape(self.dims());
        }
        Self::cpu_write(*self.shape(), |out| {
            let x = self.cpu_f32().expect("f32 on the CPU");
            let [scale, offset, mean, variance] =
                [scale, offset, mean, variance].map(|t| t.cpu_f32().expect("f32 on the CPU"));
            for (n, (x, out)) in x.chunks_exact(inner).zip(out.chunks_exact_mut(inner)).enumerate() {
                let c = n % count;
                let (mean, slope, offset) = (mean[c], scale[c] / (variance[c] + epsilon).sqrt(), offset[c]);
                out.iter_mut().zip(x).for_each(|(o, &x)| *o = (x - mean) * slope + offset);
            }
            Ok(())
        })
    }

    fn normalize_on_cpu(&self, how: &Normalization<'_>) -> Result<Normalized> {
        let x = self.cpu_f32().expect("f32 on the CPU");
        let (width, inner, channels) = (how.width, how.inner, how.channels());
        let rows = Shape::checked("normalize", &[x.len() / width])?;
        let [scale, offset] = [how.scale, how.offset].map(|t| t.map(|t| t.cpu_f32().expect("f32 on the CPU")));
        let n = width as f64;
        let mean = Self::cpu_write(rows, |out| {
            match how.centered {
                true => out.iter_mut().zip(x.chunks_exact(width)).for_each(|(o, x)| *o = (total(x, |v| v) / n) as f32),
                false => out.fill(0.0),
            }
            Ok(())
        })?;
        let means = mean.cpu_f32().expect("f32 on the CPU");
        let inverse = Self::cpu_write(rows, |out| {
            for ((o, x), mean) in out.iter_mut().zip(x.chunks_exact(width)).zip(means) {
                let variance = (total(x, |v| (v - mean) * (v - mean)) / n) as f32;
                *o = 1.0 / (variance + how.epsilon).sqrt();
            }
            Ok(())
        })?;
        let inverses = inverse.cpu_f32().expect("f32 on the CPU");
        let y = Self::cpu_write(*self.shape(), |out| {
            let pairs = x.chunks_exact(width).zip(out.chunks_exact_mut(width));
            for (row, ((x, out), (&mean, &inverse))) in pairs.zip(means.iter().zip(inverses)).enumerate() {
                if inner == 1 && channels == width || scale.is_none() && offset.is_none() {
                    out.iter_mut().zip(x).for_each(|(o, &x)| *o = (x - mean) * inverse);
                    if let Some(scale) = scale {
                        out.iter_mut().zip(scale).for_each(|(o, &s)| *o *= s);
                    }
                    if let Some(offset) = offset {
                        out.iter_mut().zip(offset).for_each(|(o, &b)| *o += b);
                    }
                    continue;
                }
                let mut at = row * width;
                let (mut x, mut out) = (x, out);
                while !x.is_empty() {
                    let run = (inner - at % inner).min(x.len());
                    let channel = at / inner % channels;
                    let (s, b) = (scale.map_or(1.0, |s| s[channel]), offset.map_or(0.0, |o| o[channel]));
                    let (now, later) = out.split_at_mut(run);
                    now.iter_mut().zip(&x[..run]).for_each(|(o, &x)| *o = (x - mean) * inverse * s + b);
                    (x, out, at) = (&x[run..], later, at + run);
                }
            }
            Ok(())
        })?;
        Ok(Normalized { y, mean, inverse })
    }

    /// [`Self::normalize`] out of other operations, for rows that are too wide for one workgroup.
    #[cfg_attr(not(feature = "gpu"), expect(dead_code, reason = "only GPUs need it"))]
    pub(crate) fn normalize_in_steps(&self, how: &Normalization<'_>) -> Result<Normalized> {
        let count = self.shape().count();
        let x = self.reshape(&[count / how.width, how.width])?;
        let mean = match how.centered {
            true => x.reduce(Reduction::Mean, 1)?,
            false => Self::zeros(&[count / how.width, 1], DType::F32, &self.device())?,
        };
        let x = if how.centered { x.sub(&mean)? } else { x };
        let variance = x.mul(&x)?.reduce(Reduction::Mean, 1)?.with_number(how.epsilon, Operation::Add, false)?;
        let inverse = variance.with_number(1.0, Operation::DivRoot, true)?;
        let mut y = x.binary(&variance, Operation::DivRoot)?;
        let channels = how.channels();
        y = y.reshape(&[count / (channels * how.inner), channels, how.inner])?;
        if let Some(scale) = how.scale {
            y = y.mul(&scale.reshape(&[channels, 1])?)?;
        }
        if let Some(offset) = how.offset {
            y = y.add(&offset.reshape(&[channels, 1])?)?;
        }
        let rows = [count / how.width];
        Ok(Normalized { y: y.reshape(self.dims())?, mean: mean.reshape(&rows)?, inverse: inverse.reshape(&rows)? })
    }
}

/// A sum of what is made of elements, in f64.
fn total(x: &[f32], f: impl Fn(f32) -> f32) -> f64 {
    let (eights, rest) = x.as_chunks::<8>();
    let mut sums = [0.0f64; 8];
    for eight in eights {
        sums.iter_mut().zip(eight).for_each(|(s, &v)| *s += f64::from(f(v)));
    }
    sums.iter().sum::<f64>() + sum(rest.iter().map(|&v| f(v)))
}
