//! Layers that change the size of a value along its timesteps, or its height and width: padding, cropping, repetition.

use crate::layer::{LayerModule, Shape, bad_input, bad_option, is_default, setters};
use crate::lowering::{Flow, Lowered, Lowering, Place};
use crate::spatial::PerAxis;
use crate::{DataFormat, Result};
use recurve_graph::ops::{self, Coordinates, Extent, PadMode, Policy};
use serde::{Deserialize, Serialize};

/// Elements before and behind an axis, at most.
const MAX: usize = 1 << 30;

/// Before and behind each axis of a layer.
trait Borders: Copy {
    fn pairs(&self) -> &[[usize; 2]];
}

impl Borders for [usize; 2] {
    fn pairs(&self) -> &[[usize; 2]] {
        std::slice::from_ref(self)
    }
}

impl Borders for [[usize; 2]; 2] {
    fn pairs(&self) -> &[[usize; 2]] {
        self
    }
}

/// Checks that numbers are not too large.
fn check(name: &str, argument: &'static str, borders: &[[usize; 2]]) -> Result<()> {
    match borders.iter().flatten().find(|&&n| n > MAX) {
        None => Ok(()),
        Some(n) => Err(bad_option(name, argument, format!("must be at most {MAX}, but it is {n}"))),
    }
}

/// What all layers of this file have, whose axes begin at `$format.first_axis()`.
macro_rules! data_format {
    () => {
        setters! {
            /// Where the channels stand.
            data_format: DataFormat;
        }
    };
}

macro_rules! zero_padding {
    ($(#[$doc:meta])* $name:ident, $class:literal, $borders:ty) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[non_exhaustive]
        pub struct $name {
            /// Zeros before and behind each axis.
            pub padding: $borders,
            /// Where the channels stand.
            #[serde(default, skip_serializing_if = "is_default")]
            pub data_format: DataFormat,
        }

        impl $name {
            /// So many zeros before and behind each axis.
            pub fn new(padding: $borders) -> Self {
                Self { padding, data_format: DataFormat::ChannelsLast }
            }
            data_format!();
        }

        impl LayerModule for $name {
            fn class_name(&self) -> &'static str {
                $class
            }
            fn features(&self, name: &str, shape: &Shape) -> Result<usize> {
                check(name, "padding", self.padding.pairs())?;
                self.data_format.channels(name, self.padding.pairs().len(), shape)
            }
            fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
                self.features(name, shape)?;
                let mut out = shape.to_vec();
                for (n, [before, behind]) in self.padding.pairs().iter().enumerate() {
                    let axis = self.data_format.first_axis() + n;
                    out[axis] = out[axis].map(|len| len.saturating_add(before + behind));
                }
                Ok(vec![out])
            }
            fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
                let rank = at.shape.len();
                let mut pads = vec![0; 2 * rank];
                for (n, [before, behind]) in self.padding.pairs().iter().enumerate() {
                    let axis = self.data_format.first_axis() + n;
                    (pads[axis], pads[axis + rank]) = (*before as i64, *behind as i64);
                }
                let pads = into.ints(at.name, &pads);
                Ok(Lowered::one(into.node(at.name, ops::Pad(PadMode::Constant(0.0)), &[&x.value, &pads]), None))
            }
            fn per_timestep(&self) -> bool {
                false
            }
        }
    };
}

zero_padding! {
    /// Zeros before and behind the timesteps of `[batch, timesteps, channels]`.
    ZeroPadding1d, "ZeroPadding1D", [usize; 2]
}
zero_padding! {
    /// Zeros around the height and width of `[batch, height, width, channels]`: before and behind each.
    ZeroPadding2d, "ZeroPadding2D", [[usize; 2]; 2]
}

/// The shape of an input without borders.
fn cropped(name: &str, shape: &Shape, first: usize, borders: &[[usize; 2]]) -> Result<Vec<Option<usize>>> {
    let mut out = shape.to_vec();
    for (n, [before, behind]) in borders.iter().enumerate() {
        let axis = first + n;
        let Some(len) = shape[axis] else { continue };
        let left = len.checked_sub(before + behind).filter(|&left| left > 0);
        let expected = || format!("more than {} elements on axis {axis}", before + behind);
        out[axis] = Some(left.ok_or_else(|| bad_input(name, &expected(), shape))?);
    }
    Ok(out)
}

/// Adds the cut of borders.
fn crop(at: &Place<'_>, x: &Flow, first: usize, borders: &[[usize; 2]], into: &mut Lowering) -> Lowered {
    let starts: Vec<i64> = borders.iter().map(|[before, _]| *before as i64).collect();
    let ends: Vec<i64> =
        borders.iter().map(|[_, behind]| if *behind == 0 { i64::MAX } else { -(*behind as i64) }).collect();
    let axes: Vec<i64> = (first as i64..).take(borders.len()).collect();
    let [starts, ends, axes] = [starts, ends, axes].map(|numbers| into.ints(at.name, &numbers));
    Lowered::one(into.node(at.name, ops::SliceBy, &[&x.value, &starts, &ends, &axes]), None)
}

/// Cuts timesteps off both ends of `[batch, timesteps, channels]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Cropping1d {
    /// Timesteps that are cut off the beginning and the end.
    pub cropping: [usize; 2],
}

impl Cropping1d {
    /// Cuts so many timesteps off the beginning and the end.
    pub fn new(cropping: [usize; 2]) -> Self {
        Self { cropping }
    }
}

impl LayerModule for Cropping1d {
    fn class_name(&self) -> &'static str {
        "Cropping1D"
    }
    fn features(&self, name: &str, shape: &Shape) -> Result<usize> {
        check(name, "cropping", self.cropping.pairs())?;
        DataFormat::ChannelsLast.channels(name, 1, shape)
    }
    fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
        self.features(name, shape)?;
        Ok(vec![cropped(name, shape, 1, self.cropping.pairs())?])
    }
    fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
        Ok(crop(at, x, 1, self.cropping.pairs(), into))
    }
    fn per_timestep(&self) -> bool {
        false
    }
}

/// Cuts borders off `[batch, height, width, channels]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Cropping2d {
    /// Elements that are cut off both ends of the height, and of the width.
    pub cropping: [[usize; 2]; 2],
    /// Where the channels stand.
    #[serde(default, skip_serializing_if = "is_default")]
    pub data_format: DataFormat,
}

impl Cropping2d {
    /// Cuts so many elements off both ends of the height, and of the width.
    pub fn new(cropping: [[usize; 2]; 2]) -> Self {
        Self { cropping, data_format: DataFormat::ChannelsLast }
    }
    data_format!();
}

impl LayerModule for Cropping2d {
    fn class_name(&self) -> &'static str {
        "Cropping2D"
    }
    fn features(&self, name: &str, shape: &Shape) -> Result<usize> {
        check(name, "cropping", self.cropping.pairs())?;
        self.data_format.channels(name, 2, shape)
    }
    fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
        self.features(name, shape)?;
        Ok(vec![cropped(name, shape, self.data_format.first_axis(), self.cropping.pairs())?])
    }
    fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
        Ok(crop(at, x, self.data_format.first_axis(), self.cropping.pairs(), into))
    }
    fn per_timestep(&self) -> bool {
        false
    }
}

/// How elements between those of the input are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum UpSampling {
    /// Each element is repeated.
    #[default]
    Nearest,
    /// Between the two nearest along each axis, in proportion.
    Bilinear,
}

/// Checks how often elements are repeated.
fn check_times(name: &str, times: &[usize]) -> Result<()> {
    match times.iter().all(|n| (1..=MAX).contains(n)) {
        true => Ok(()),
        false => Err(bad_option(name, "size", format!("must be from 1 to {MAX}, but it is {times:?}"))),
    }
}

/// The shape of an input whose axes become so many times larger.
fn enlarged(shape: &Shape, first: usize, times: &[usize]) -> Vec<Option<usize>> {
    let mut out = shape.to_vec();
    for (n, times) in times.iter().enumerate() {
        out[first + n] = out[first + n].map(|len| len.saturating_mul(*times));
    }
    out
}

/// Adds the repetition of each element along axes.
fn repeat(at: &Place<'_>, x: &Flow, first: usize, times: &[usize], into: &mut Lowering) -> String {
    let rank = at.shape.len();
    let mut value = x.value.clone();
    for (n, &times) in times.iter().enumerate().filter(|(_, times)| **times > 1) {
        let axis = first + n;
        let mut apart: Vec<Extent> = (0..rank).map(|n| Extent::Axes(n, 1)).collect();
        apart.insert(axis + 1, Extent::Size(1));
        let mut repeats = vec![1; rank + 1];
        repeats[axis + 1] = times as i64;
        let together = (0..rank).map(|n| match n {
            n if n < axis => Extent::Axes(n, 1),
            n if n == axis => Extent::Axes(n, 2),
            n => Extent::Axes(n + 1, 1),
        });
        let repeats = into.ints(at.name, &repeats);
        value = into.node(at.name, ops::Reshape(apart), &[&value]);
        value = into.node(at.name, ops::Tile, &[&value, &repeats]);
        value = into.node(at.name, ops::Reshape(together.collect()), &[&value]);
    }
    value
}

/// Repeats each timestep of `[batch, timesteps, channels]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct UpSampling1d {
    /// How often each timestep stands in the output.
    pub size: usize,
}

impl UpSampling1d {
    /// Each timestep so often.
    pub fn new(size: usize) -> Self {
        Self { size }
    }
}

impl LayerModule for UpSampling1d {
    fn class_name(&self) -> &'static str {
        "UpSampling1D"
    }
    fn features(&self, name: &str, shape: &Shape) -> Result<usize> {
        check_times(name, self.size.list())?;
        DataFormat::ChannelsLast.channels(name, 1, shape)
    }
    fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
        self.features(name, shape)?;
        Ok(vec![enlarged(shape, 1, self.size.list())])
    }
    fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
        Ok(Lowered::one(repeat(at, x, 1, self.size.list(), into), None))
    }
    fn per_timestep(&self) -> bool {
        false
    }
}

/// Makes the height and width of `[batch, height, width, channels]` larger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct UpSampling2d {
    /// How many times larger the height and the width become.
    pub size: [usize; 2],
    /// How elements in between are made.
    #[serde(default, skip_serializing_if = "is_default")]
    pub interpolation: UpSampling,
    /// Where the channels stand.
    #[serde(default, skip_serializing_if = "is_default")]
    pub data_format: DataFormat,
}

impl UpSampling2d {
    /// Repeats each element so often along the height and the width.
    pub fn new(size: [usize; 2]) -> Self {
        Self { size, interpolation: UpSampling::Nearest, data_format: DataFormat::ChannelsLast }
    }
    setters! {
        /// How elements in between are made.
        interpolation: UpSampling;
    }
    data_format!();
}

impl LayerModule for UpSampling2d {
    fn class_name(&self) -> &'static str {
        "UpSampling2D"
    }
    fn features(&self, name: &str, shape: &Shape) -> Result<usize> {
        check_times(name, &self.size)?;
        self.data_format.channels(name, 2, shape)
    }
    fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
        self.features(name, shape)?;
        Ok(vec![enlarged(shape, self.data_format.first_axis(), &self.size)])
    }
    fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
        let first = self.data_format.first_axis();
        if self.interpolation == UpSampling::Nearest {
            return Ok(Lowered::one(repeat(at, x, first, &self.size, into), None));
        }
        let resize = ops::Resize {
            interpolation: ops::Interpolation::Linear,
            coordinates: Coordinates::HalfPixel,
            axes: Some(vec![first as i64, first as i64 + 1]),
            scales: Some(self.size.iter().map(|&n| n as f32).collect()),
            region: None,
            antialias: false,
            exclude_outside: false,
            extrapolation: 0.0,
            policy: Policy::Stretch,
        };
        Ok(Lowered::one(into.node(at.name, resize, &[&x.value]), None))
    }
    fn per_timestep(&self) -> bool {
        false
    }
}
