//! What layers share that move windows over one or two axes.

use crate::Result;
use crate::layer::{Shape, bad_input, bad_option};
use crate::lowering::Lowering;
use recurve_graph::ops::{self, Windows};
use serde::{Deserialize, Serialize};

/// Where the channels of a value stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DataFormat {
    /// Behind the other axes: `[batch, timesteps, channels]` or `[batch, height, width, channels]`.
    #[default]
    ChannelsLast,
    /// Behind the batch: `[batch, channels, timesteps]` or `[batch, channels, height, width]`.
    ChannelsFirst,
}

/// What stands before and behind the elements over which windows move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Padding {
    /// Nothing.
    #[default]
    Valid,
    /// As much as gives one window for every `strides` elements; of an odd number more behind.
    Same,
    /// As much before as a window needs to end at each element, so that no output depends on later inputs.
    Causal,
}

/// From the first to the last element of a window, at most.
const MAX_EXTENT: usize = 1 << 30;

/// Numbers along the axes of a layer: one, or one for each of two axes.
pub(crate) trait PerAxis: Copy + PartialEq {
    /// 1 for each axis.
    const ONES: Self;
    /// The numbers.
    fn list(&self) -> &[usize];
}

impl PerAxis for usize {
    const ONES: Self = 1;
    fn list(&self) -> &[usize] {
        std::slice::from_ref(self)
    }
}

impl PerAxis for [usize; 2] {
    const ONES: Self = [1; 2];
    fn list(&self) -> &[usize] {
        self
    }
}

/// For `#[serde(default)]` and `skip_serializing_if` of numbers that are usually 1.
pub(crate) fn ones<T: PerAxis>() -> T {
    T::ONES
}
pub(crate) fn is_ones<T: PerAxis>(numbers: &T) -> bool {
    *numbers == T::ONES
}

impl DataFormat {
    /// The axis of the channels, of so many.
    pub(crate) const fn channel_axis(self, rank: usize) -> usize {
        match self {
            Self::ChannelsLast => rank - 1,
            Self::ChannelsFirst => 1,
        }
    }

    /// The first of the other axes behind the batch.
    pub(crate) const fn first_axis(self) -> usize {
        match self {
            Self::ChannelsLast => 1,
            Self::ChannelsFirst => 2,
        }
    }

    /// What the shape of an input over so many axes looks like.
    fn expected(self, axes: usize) -> &'static str {
        match (self, axes) {
            (Self::ChannelsLast, 1) => "[batch, timesteps, channels] with known channels",
            (Self::ChannelsFirst, 1) => "[batch, channels, timesteps] with known channels",
            (Self::ChannelsLast, _) => "[batch, height, width, channels] with known channels",
            (Self::ChannelsFirst, _) => "[batch, channels, height, width] with known channels",
        }
    }

    /// Checks the number of dimensions of an input over so many axes, and that the channels are known. Returns them.
    pub(crate) fn channels(self, name: &str, axes: usize, shape: &Shape) -> Result<usize> {
        let channels = if shape.len() == axes + 2 { shape[self.channel_axis(axes + 2)] } else { None };
        channels.filter(|&c| c > 0).ok_or_else(|| bad_input(name, self.expected(axes), shape))
    }

    /// A value in the layout of the graph's operators, channels first.
    pub(crate) fn to_first(self, layer: &str, x: &str, rank: usize, into: &mut Lowering) -> String {
        if self == Self::ChannelsFirst {
            return x.into();
        }
        let axes = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
        into.node(layer, ops::Transpose(axes), &[x])
    }

    /// The reverse of [`Self::to_first`].
    pub(crate) fn back(self, layer: &str, x: &str, rank: usize, into: &mut Lowering) -> String {
        if self == Self::ChannelsFirst {
            return x.into();
        }
        let axes = std::iter::once(0).chain(2..rank).chain([1]).collect();
        into.node(layer, ops::Transpose(axes), &[x])
    }
}

/// Windows that a layer moves over its input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moving<'a> {
    /// The name of the option with their sizes.
    pub(crate) argument: &'static str,
    pub(crate) sizes: &'a [usize],
    pub(crate) strides: &'a [usize],
    /// Empty for windows without gaps.
    pub(crate) dilations: &'a [usize],
    pub(crate) padding: Padding,
    pub(crate) format: DataFormat,
}

impl Moving<'_> {
    fn dilation(&self, axis: usize) -> usize {
        self.dilations.get(axis).copied().unwrap_or(1)
    }

    /// Checks the options. `causal` tells whether the layer knows that padding.
    pub(crate) fn check(&self, name: &str, causal: bool) -> Result<()> {
        for (argument, numbers) in
            [(self.argument, self.sizes), ("strides", self.strides), ("dilation_rate", self.dilations)]
        {
            if !numbers.iter().all(|n| (1..=MAX_EXTENT).contains(n)) {
                let message = format!("must be from 1 to {MAX_EXTENT}, but it is {numbers:?}");
                return Err(bad_option(name, argument, message));
            }
        }
        let causal = causal && self.sizes.len() == 1;
        match self.padding {
            Padding::Causal if !causal => Err(bad_option(name, "padding", "cannot be causal for this layer")),
            _ if (0..self.sizes.len()).any(|n| self.extent(n).is_none()) => {
                Err(bad_option(name, self.argument, format!("is too large: {:?}", self.sizes)))
            }
            _ => Ok(()),
        }
    }

    /// From the first to the last element of a window along an axis; `None` if that is too much.
    fn extent(&self, axis: usize) -> Option<usize> {
        self.sizes[axis].checked_sub(1)?.checked_mul(self.dilation(axis))?.checked_add(1).filter(|&n| n <= MAX_EXTENT)
    }

    /// The shape of the output with so many channels.
    pub(crate) fn output(&self, name: &str, shape: &Shape, channels: usize) -> Result<Vec<Option<usize>>> {
        let mut out = shape.to_vec();
        out[self.format.channel_axis(shape.len())] = Some(channels);
        for (n, &stride) in self.strides.iter().enumerate() {
            let axis = self.format.first_axis() + n;
            let Some(len) = shape[axis] else { continue };
            let extent = self.extent(n).expect("checked not to be too large");
            let count = match self.padding {
                Padding::Valid => len.checked_sub(extent).map(|rest| rest / stride + 1),
                Padding::Same | Padding::Causal => Some(len.div_ceil(stride)).filter(|&n| n > 0),
            };
            let expected = || format!("at least {extent} elements on axis {axis}, one window");
            out[axis] = Some(count.ok_or_else(|| bad_input(name, &expected(), shape))?);
        }
        Ok(out)
    }

    /// The windows of the graph's operators.
    pub(crate) fn windows(&self) -> Windows {
        let padding = match self.padding {
            Padding::Valid => ops::Padding::Explicit(Vec::new()),
            Padding::Same => ops::Padding::SameUpper,
            Padding::Causal => {
                let before = |n| self.extent(n).expect("checked not to be too large") - 1;
                ops::Padding::Explicit((0..self.sizes.len()).map(|n| [before(n), 0]).collect())
            }
        };
        Windows {
            sizes: self.sizes.to_vec(),
            strides: self.strides.to_vec(),
            dilations: self.dilations.to_vec(),
            padding,
            ceil: false,
        }
    }

    /// Whether a window sees one timestep alone.
    pub(crate) fn per_timestep(&self) -> bool {
        let first = self.sizes[0] == 1 && self.strides[0] == 1;
        first && self.format == DataFormat::ChannelsLast
    }

    /// Whether each timestep has its own window.
    pub(crate) fn keeps_time(&self) -> bool {
        let each = self.strides[0] == 1 && (self.padding != Padding::Valid || self.sizes[0] == 1);
        each && self.format == DataFormat::ChannelsLast
    }
}

/// Implements `LayerModule`'s methods that say which timesteps a layer with windows sees.
macro_rules! timesteps {
    () => {
        fn per_timestep(&self) -> bool {
            self.moving().per_timestep()
        }
        fn keeps_time(&self, x: &Flow) -> bool {
            self.moving().keeps_time() && x.time
        }
    };
}
pub(crate) use timesteps;
