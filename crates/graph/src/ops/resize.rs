//! Values at places between elements: `Resize`.

use super::moves::{Fill, along, axis_of, bad, content, fault, permuted, product, whole};
use super::prelude::*;
use crate::Data;
use crate::operator::given;
use recurve_tensor::{Device, MatmulOptions};

/// What an element of the result is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Interpolation {
    /// The nearest element.
    Nearest(Nearest),
    /// The two around it.
    Linear,
    /// The four around it, by a cubic of this coefficient.
    Cubic(f32),
}

/// Which element is the nearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Nearest {
    /// The nearer one, of two as near the first.
    PreferFloor,
    /// The nearer one, of two as near the last.
    PreferCeil,
    /// The one before.
    Floor,
    /// The one behind.
    Ceil,
}

/// Where an element of the result stands among those of `x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Coordinates {
    /// `half_pixel`
    HalfPixel,
    /// `half_pixel_symmetric`
    HalfPixelSymmetric,
    /// `pytorch_half_pixel`
    PytorchHalfPixel,
    /// `align_corners`
    AlignCorners,
    /// `asymmetric`
    Asymmetric,
    /// `tf_crop_and_resize`
    CropAndResize,
}

/// What sizes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// They are the sizes.
    Stretch,
    /// The aspect ratio stays, and no axis becomes larger.
    NotLarger,
    /// The aspect ratio stays, and no axis becomes smaller.
    NotSmaller,
}

/// `x` in other sizes, which the second input has or which follow from scales: attributes, or the third input. The
/// fourth input is the region where it is no attribute.
#[derive(Clone, Debug, PartialEq)]
pub struct Resize {
    /// What an element is made of.
    pub interpolation: Interpolation,
    /// Where it stands.
    pub coordinates: Coordinates,
    /// The axes that scales, sizes and region refer to; none for all.
    pub axes: Option<Vec<i64>>,
    /// By how much each axis is scaled.
    pub scales: Option<Vec<f32>>,
    /// Of [`Coordinates::CropAndResize`] where the region begins along each axis, then where it ends, as shares.
    pub region: Option<Vec<f32>>,
    /// Where an axis becomes smaller, elements in between count too.
    pub antialias: bool,
    /// Places beyond the ends have no weight.
    pub exclude_outside: bool,
    /// What stands outside of `x` with [`Coordinates::CropAndResize`].
    pub extrapolation: f32,
    /// What sizes mean.
    pub policy: Policy,
}

const RESIZE: &str = "Resize";

/// Weights of an axis, at most.
const MAX_WEIGHTS: usize = 1 << 28;

/// How an axis is resized.
#[derive(Clone, Copy, Debug)]
struct Line {
    axis: usize,
    from: usize,
    to: usize,
    scale: f64,
    region: [f64; 2],
}

impl Line {
    /// The place of the only element that has a weight; below zero outside.
    fn nearest(&self, weights: &Weights) -> i64 {
        let Some((first, w)) = weights else { return -1 };
        (first + i64::from(w[1] > w[0])).clamp(0, self.from as i64 - 1)
    }

    /// All weights of an axis, `[to, from]`.
    fn matrix(&self, weights: &[Weights], device: &Device) -> Result<Tensor> {
        let count = super::moves::count(RESIZE, &[self.to, self.from])?;
        if count > MAX_WEIGHTS {
            let message = format!("make {} elements of {}, which takes more weights than are held", self.to, self.from);
            return Err(bad(RESIZE, "scales", message));
        }
        let last = self.from as i64 - 1;
        let mut matrix = recurve_tensor::cpu::host::<f32>(RESIZE, count)?;
        for (row, weights) in matrix.chunks_exact_mut(self.from).zip(weights) {
            let Some((first, weights)) = weights else { continue };
            for (n, w) in weights.iter().enumerate() {
                row[(first + n as i64).clamp(0, last) as usize] += *w as f32;
            }
        }
        Tensor::from_f32(&matrix, &[self.to, self.from], device)
    }

    /// The product of an axis with the weights, or from the result's axis back.
    fn times(&self, x: &Data, matrix: &Tensor, forward: bool, device: &Device) -> Result<Data> {
        let rank = x.dims().len();
        let mut axes: Vec<usize> = (0..rank).collect();
        axes.swap(self.axis, rank - 1);
        let turned = permuted(RESIZE, x, &axes)?;
        let mut dims = turned.dims().to_vec();
        let rows = product(&dims[..rank - 1]);
        let (from, to) = if forward { (self.from, self.to) } else { (self.to, self.from) };
        let options = MatmulOptions { transpose_rhs: forward, ..MatmulOptions::default() };
        let flat = turned.to_f32(device)?.reshape(&[rows, from])?.matmul_with(matrix, &options)?;
        dims[rank - 1] = to;
        permuted(RESIZE, &flat.reshape(&dims)?.into(), &axes)
    }
}

/// What the inputs say.
#[derive(Clone, Copy, Debug, Default)]
struct Given<'a> {
    sizes: Option<&'a [i64]>,
    scales: Option<&'a [f32]>,
    region: Option<&'a [f32]>,
}

/// What an element is made of: from this element on so many, with these weights. Places beyond the ends are the
/// first or the last element.
type Weights = Option<(i64, Vec<f64>)>;

impl Resize {
    fn lines(&self, dims: &[usize], given: Given<'_>) -> Result<Vec<Line>> {
        let Given { sizes, scales, region } = given;
        let scales = self.scales.as_deref().or(scales);
        let rank = dims.len();
        let axes: Vec<usize> = match &self.axes {
            Some(axes) => axes.iter().map(|&a| axis_of(RESIZE, a, rank)).collect::<Result<_>>()?,
            None => (0..rank).collect(),
        };
        if (1..axes.len()).any(|n| axes[..n].contains(&axes[n])) {
            return Err(bad(RESIZE, "axes", format!("must be different ones, but they are {axes:?}")));
        }
        let each = |argument: &'static str, n: usize| match n == axes.len() {
            true => Ok(()),
            false => {
                Err(bad(RESIZE, argument, format!("must be one for each of {} axes, but they are {n}", axes.len())))
            }
        };
        let region = self.region.as_deref().or(region).unwrap_or_default();
        if self.coordinates == Coordinates::CropAndResize && region.len() != 2 * axes.len() {
            let message = format!("must be two numbers for each of {} axes, but they are {region:?}", axes.len());
            return Err(bad(RESIZE, "roi", message));
        }
        let region = |n: usize| match self.coordinates {
            Coordinates::CropAndResize => [region[n].into(), region[n + axes.len()].into()],
            _ => [0.0, 1.0],
        };
        let (scales, sizes): (Vec<f64>, Vec<f64>) = match (scales, sizes) {
            (Some(scales), None) => {
                each("scales", scales.len())?;
                let size = |(&s, &a): (&f32, &usize)| (f64::from(s), (f64::from(s) * dims[a] as f64).floor());
                scales.iter().zip(&axes).map(size).unzip()
            }
            (None, Some(sizes)) => {
                each("sizes", sizes.len())?;
                let scales = sizes.iter().zip(&axes).map(|(&s, &a)| s as f64 / dims[a] as f64);
                let one = match self.policy {
                    Policy::Stretch => None,
                    Policy::NotLarger => Some(scales.clone().fold(f64::INFINITY, f64::min)),
                    Policy::NotSmaller => Some(scales.clone().fold(f64::NEG_INFINITY, f64::max)),
                };
                match one {
                    None => (scales.collect(), sizes.iter().map(|&s| s as f64).collect()),
                    Some(one) => axes.iter().map(|&a| (one, (one * dims[a] as f64 + 0.5).floor())).unzip(),
                }
            }
            _ => return Err(bad(RESIZE, "scales", "or sizes must be given, and not both")),
        };
        let line = |n: usize| {
            let (to, scale) = (sizes[n], scales[n]);
            // A table of weights is made for each axis.
            if !(to >= 1.0 && to <= f64::from(1 << 24) && scale > 0.0 && scale.is_finite()) {
                let message = format!("make {to} elements of the {} along axis {}", dims[axes[n]], axes[n]);
                return Err(bad(RESIZE, "scales", message));
            }
            Ok(Line { axis: axes[n], from: dims[axes[n]], to: to as usize, scale, region: region(n) })
        };
        (0..axes.len()).map(line).collect()
    }

    /// Where an element of the result stands among those of `x`.
    fn place(&self, l: &Line, i: usize) -> f64 {
        let (i, from, length) = (i as f64, l.from as f64, l.scale * l.from as f64);
        match self.coordinates {
            Coordinates::HalfPixel => (i + 0.5) / l.scale - 0.5,
            Coordinates::HalfPixelSymmetric => {
                let offset = from / 2.0 * (1.0 - l.to as f64 / length);
                offset + (i + 0.5) / l.scale - 0.5
            }
            Coordinates::PytorchHalfPixel if length == 1.0 => -0.5,
            Coordinates::PytorchHalfPixel => (i + 0.5) / l.scale - 0.5,
            Coordinates::AlignCorners if length == 1.0 => 0.0,
            Coordinates::AlignCorners => i * (from - 1.0) / (length - 1.0),
            Coordinates::Asymmetric => i / l.scale,
            Coordinates::CropAndResize => {
                let [start, end] = l.region;
                let within = if length == 1.0 {
                    (end - start) * (from - 1.0) / 2.0
                } else {
                    i * (end - start) * (from - 1.0) / (length - 1.0)
                };
                within + start * (from - 1.0)
            }
        }
    }

    fn weights(&self, l: &Line, i: usize) -> Weights {
        let x = self.place(l, i);
        if self.coordinates == Coordinates::CropAndResize && !(x >= 0.0 && x <= (l.from - 1) as f64) {
            return None;
        }
        // An element itself is reached from the one before it.
        let ratio = if x == x.floor() { 1.0 } else { x - x.floor() };
        let scale = if self.antialias { l.scale.min(1.0) } else { 1.0 };
        let cubic = |a: f64, x: f64| match x.abs() {
            x if x <= 1.0 => (a + 2.0) * x.powi(3) - (a + 3.0) * x.powi(2) + 1.0,
            x if x < 2.0 => a * x.powi(3) - 5.0 * a * x.powi(2) + 8.0 * a * x - 4.0 * a,
            _ => 0.0,
        };
        let spread = |support: f64, f: &dyn Fn(f64) -> f64| {
            let start = (-support / scale).floor() + 1.0;
            let count = 2.0 - 2.0 * start;
            (0..count as i64).map(|n| f((start + n as f64 - ratio) * scale)).collect::<Vec<_>>()
        };
        let mut weights = match self.interpolation {
            Interpolation::Nearest(nearest) => {
                let second = match nearest {
                    _ if ratio == 1.0 => true,
                    Nearest::PreferFloor => ratio > 0.5,
                    Nearest::PreferCeil => ratio >= 0.5,
                    Nearest::Floor => false,
                    Nearest::Ceil => true,
                };
                vec![f64::from(u8::from(!second)), f64::from(u8::from(second))]
            }
            Interpolation::Linear => spread(1.0, &|x| (1.0 - x.abs()).clamp(0.0, 1.0)),
            Interpolation::Cubic(a) => spread(2.0, &|x| cubic(a.into(), x)),
        };
        let first = x.ceil() as i64 - weights.len() as i64 / 2;
        if self.exclude_outside {
            let outside = |n: usize| !(0..l.from as i64).contains(&(first + n as i64));
            (0..weights.len()).filter(|&n| outside(n)).for_each(|n| weights[n] = 0.0);
        }
        let sum: f64 = weights.iter().sum();
        if (self.exclude_outside || self.antialias) && sum != 0.0 {
            weights.iter_mut().for_each(|w| *w /= sum);
        }
        Some((first, weights))
    }

    /// Whether an axis stays as it is.
    fn is_same(l: &Line) -> bool {
        l.from == l.to && (l.scale - 1.0).abs() < 1e-9 && l.region == [0.0, 1.0]
    }
}

impl Operator for Resize {
    fn name(&self) -> &'static str {
        RESIZE
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("X"), Slot::Optional("sizes"), Slot::Optional("scales"), Slot::Optional("roi")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let x = given(inputs, 0)?;
        if !x.dtype.is_float() && !matches!(self.interpolation, Interpolation::Nearest(_)) {
            return Err(Fault::Input(0, "floats, unless the nearest element is taken".into()));
        }
        let second = inputs.get(1).copied().flatten();
        if second.is_some_and(|t| !t.dtype.is_whole()) {
            return Err(Fault::Input(1, "whole numbers".into()));
        }
        let sizes = second.map(|_| content(inputs, 1));
        let computed = inputs.iter().skip(2).any(Option::is_some);
        if let (Some(dims), None | Some(Some(_)), false) = (x.shape(), &sizes, computed) {
            let mut out = dims.clone();
            let sizes = sizes.as_ref().and_then(Option::as_deref);
            let lines = self.lines(&dims, Given { sizes, ..Given::default() }).map_err(fault)?;
            lines.iter().for_each(|l| out[l.axis] = l.to);
            return Ok(vec![ValueType::new(x.dtype, out)]);
        }
        if x.unranked {
            return Ok(vec![ValueType::unranked(x.dtype)]);
        }
        let mut dims = x.dims.clone();
        let axes = self.axes.clone().unwrap_or_else(|| (0..x.rank() as i64).collect());
        for (n, &axis) in axes.iter().enumerate() {
            let axis = axis_of(RESIZE, axis, x.rank()).map_err(fault)?;
            let size = match (&sizes, &self.scales) {
                (Some(Some(sizes)), _) if self.policy == Policy::Stretch => {
                    sizes.get(n).and_then(|&s| usize::try_from(s).ok())
                }
                (None, Some(scales)) if scales.get(n) == Some(&1.0) => {
                    continue;
                }
                (None, Some(scales)) => match (x.dims[axis].size(), scales.get(n)) {
                    (Some(d), Some(&s)) => Some((d as f64 * f64::from(s)).floor() as usize),
                    _ => None,
                },
                _ => None,
            };
            dims[axis] = size.into();
        }
        Ok(vec![x.with_dims(dims)])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let mut x = call.data(0).clone();
        let sizes = if call.get(1).is_some() { Some(call.ints(1)?) } else { None };
        let floats = |i: usize| if call.get(i).is_some() { call.floats(i)?.to_vec().map(Some) } else { Ok(None) };
        let (scales, region) = (floats(2)?, floats(3)?);
        let sizes = sizes.as_ref().map(crate::IntArray::data);
        let given = Given { sizes, scales: scales.as_deref(), region: region.as_deref() };
        if x.dims().contains(&0) {
            return Err(bad(RESIZE, "X", "has no elements"));
        }
        for l in self.lines(x.dims(), given)? {
            if Self::is_same(&l) {
                continue;
            }
            let weights: Vec<Weights> = (0..l.to).map(|i| self.weights(&l, i)).collect();
            let fill = Fill { int: self.extrapolation as i64, float: self.extrapolation };
            if let Interpolation::Nearest(_) = self.interpolation {
                let places: Vec<i64> = weights.iter().map(|w| l.nearest(w)).collect();
                x = along(RESIZE, &x, l.axis, (&places, &[l.to]), fill)?;
                continue;
            }
            // A product with the weights of every element.
            let matrix = l.matrix(&weights, call.device)?;
            x = l.times(&x, &matrix, true, call.device)?;
            if weights.iter().any(Option::is_none) {
                let places: Vec<i64> =
                    weights.iter().enumerate().map(|(i, w)| if w.is_some() { i as i64 } else { -1 }).collect();
                x = along(RESIZE, &x, l.axis, (&places, &[l.to]), fill)?;
            }
        }
        Ok(one(x))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let mut x = array(inputs, 0).clone();
        let get = |i: usize| inputs.get(i).copied().flatten();
        let narrow = |a: &Array| a.data.iter().map(|&v| v as f32).collect::<Vec<_>>();
        let (sizes, scales, region) = (get(1).map(whole), get(2).map(narrow), get(3).map(narrow));
        let given = Given { sizes: sizes.as_deref(), scales: scales.as_deref(), region: region.as_deref() };
        for l in self.lines(&x.dims, given).expect("sizes that fit") {
            if Self::is_same(&l) {
                continue;
            }
            let mut dims = x.dims.clone();
            dims[l.axis] = l.to;
            x = Array::from_fn(&dims, |i| {
                let Some((first, weights)) = self.weights(&l, i[l.axis]) else { return self.extrapolation.into() };
                let mut at = i.to_vec();
                let part = |(n, w): (usize, &f64)| {
                    at[l.axis] = (first + n as i64).clamp(0, l.from as i64 - 1) as usize;
                    w * x.at(&at)
                };
                weights.iter().enumerate().map(part).sum()
            });
        }
        vec![Some(x)]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let mut inputs = vec![Some(g.of_only_output()), g.get(0)];
        inputs.extend((1..g.inputs()).map(|i| g.get(i)));
        let dx = g.nodes(ResizeBack(self.clone()), &inputs, 1)?[0];
        g.give(0, dx);
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The gradient of x of a [`Resize`]: what each element was weighted with, times `dy`. Inputs: `dy`, then those of the
/// resizing, of whose first only the shape matters.
#[derive(Clone, Debug, PartialEq)]
pub struct ResizeBack(pub Resize);

const BACK: &str = "ResizeBack";

impl Operator for ResizeBack {
    fn name(&self) -> &'static str {
        BACK
    }
    fn slots(&self) -> &[Slot] {
        &[
            Slot::Required("dy"),
            Slot::Required("like"),
            Slot::Optional("sizes"),
            Slot::Optional("scales"),
            Slot::Optional("roi"),
        ]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        super::like::like(inputs, 1)
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let (mut x, like) = (call.data(0).clone(), call.data(1).dims());
        let sizes = if call.get(2).is_some() { Some(call.ints(2)?) } else { None };
        let floats = |i: usize| if call.get(i).is_some() { call.floats(i)?.to_vec().map(Some) } else { Ok(None) };
        let (scales, region) = (floats(3)?, floats(4)?);
        let sizes = sizes.as_ref().map(crate::IntArray::data);
        let given = Given { sizes, scales: scales.as_deref(), region: region.as_deref() };
        let lines = self.0.lines(like, given)?;
        let mut dims = like.to_vec();
        lines.iter().for_each(|l| dims[l.axis] = l.to);
        if x.dims() != dims {
            return Err(bad(BACK, "dy", format!("must be {dims:?}, but its shape is {:?}", x.dims())));
        }
        for l in lines.iter().filter(|l| !Resize::is_same(l)) {
            let weights: Vec<Weights> = (0..l.to).map(|i| self.0.weights(l, i)).collect();
            x = match self.0.interpolation {
                Interpolation::Nearest(_) => {
                    let places: Vec<i64> = weights.iter().map(|w| l.nearest(w)).collect();
                    super::moves::added(&*x.to_f32(call.device)?, l.axis, &places, l.from)?.into()
                }
                _ => l.times(&x, &l.matrix(&weights, call.device)?, false, call.device)?,
            };
        }
        Ok(one(x))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (mut x, like) = (array(inputs, 0).clone(), array(inputs, 1));
        let get = |i: usize| inputs.get(i).copied().flatten();
        let narrow = |a: &Array| a.data.iter().map(|&v| v as f32).collect::<Vec<_>>();
        let (sizes, scales, region) = (get(2).map(whole), get(3).map(narrow), get(4).map(narrow));
        let given = Given { sizes: sizes.as_deref(), scales: scales.as_deref(), region: region.as_deref() };
        for l in self.0.lines(&like.dims, given).expect("sizes that fit") {
            if Resize::is_same(&l) {
                continue;
            }
            let mut dims = x.dims.clone();
            dims[l.axis] = l.from;
            let inner: usize = dims[l.axis + 1..].iter().product();
            let mut out = Array::from_fn(&dims, |_| 0.0);
            for (n, row) in x.data.chunks_exact(inner).enumerate() {
                let Some((first, weights)) = self.0.weights(&l, n % l.to) else { continue };
                for (i, w) in weights.iter().enumerate() {
                    let place = (first + i as i64).clamp(0, l.from as i64 - 1) as usize;
                    let at = (n / l.to * l.from + place) * inner;
                    out.data[at..at + inner].iter_mut().zip(row).for_each(|(o, v)| *o += w * v);
                }
            }
            x = out;
        }
        vec![Some(x)]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
