//! Pooling: maxima and means of windows, or of all timesteps.

use crate::layer::{LayerModule, Shape, bad_option, is_default, setters};
use crate::lowering::{Flow, Lowered, Lowering, Place};
use crate::spatial::{Moving, PerAxis, timesteps};
use crate::{DataFormat, Padding, Result};
use recurve_graph::ops;
use recurve_tensor::{Pooling, Reduction};
use serde::{Deserialize, Serialize};

macro_rules! pooling {
    ($(#[$doc:meta])* $name:ident, $class:literal, $size:ty, $pooling:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[non_exhaustive]
        pub struct $name {
            /// Elements of a window along each axis.
            pub pool_size: $size,
            /// Elements from one window to the next; `None` for `pool_size`.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub strides: Option<$size>,
            /// What stands around the input; it counts in no window. Causal is not possible.
            #[serde(default, skip_serializing_if = "is_default")]
            pub padding: Padding,
            /// Where the channels stand.
            #[serde(default, skip_serializing_if = "is_default")]
            pub data_format: DataFormat,
        }

        impl $name {
            /// Pooling of windows of this size that stand side by side.
            pub fn new(pool_size: $size) -> Self {
                Self { pool_size, strides: None, padding: Padding::Valid, data_format: DataFormat::ChannelsLast }
            }
            /// Elements from one window to the next, `pool_size` by default.
            #[must_use]
            pub fn strides(mut self, strides: $size) -> Self {
                self.strides = Some(strides);
                self
            }
            setters! {
                /// What stands around the input.
                padding: Padding;
                /// Where the channels stand.
                data_format: DataFormat;
            }
            /// The windows.
            fn moving(&self) -> Moving<'_> {
                Moving {
                    argument: "pool_size",
                    sizes: self.pool_size.list(),
                    strides: self.strides.as_ref().unwrap_or(&self.pool_size).list(),
                    dilations: &[],
                    padding: self.padding,
                    format: self.data_format,
                }
            }
        }

        impl LayerModule for $name {
            fn class_name(&self) -> &'static str {
                $class
            }
            fn features(&self, name: &str, shape: &Shape) -> Result<usize> {
                self.moving().check(name, false)?;
                self.data_format.channels(name, self.pool_size.list().len(), shape)
            }
            fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
                let channels = self.features(name, shape)?;
                Ok(vec![self.moving().output(name, shape, channels)?])
            }
            fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
                let rank = at.shape.len();
                let first = self.data_format.to_first(at.name, &x.value, rank, into);
                let pool = ops::Pool { pooling: $pooling, windows: self.moving().windows(), column_major: false };
                let y = into.node(at.name, pool, &[&first]);
                Ok(Lowered::one(self.data_format.back(at.name, &y, rank, into), None))
            }
            timesteps!();
        }
    };
}

pooling! {
    /// Maxima over windows of timesteps of `[batch, timesteps, channels]`.
    MaxPooling1d, "MaxPooling1D", usize, Pooling::Max
}
pooling! {
    /// Maxima over windows of `[batch, height, width, channels]`.
    MaxPooling2d, "MaxPooling2D", [usize; 2], Pooling::Max
}
pooling! {
    /// Means over windows of timesteps of `[batch, timesteps, channels]`. Padding does not count.
    AveragePooling1d, "AveragePooling1D", usize, Pooling::Average { padded: false }
}
pooling! {
    /// Means over windows of `[batch, height, width, channels]`. Padding does not count.
    AveragePooling2d, "AveragePooling2D", [usize; 2], Pooling::Average { padded: false }
}

macro_rules! global {
    ($(#[$doc:meta])* $name:ident, $class:literal, $axes:literal, $reduction:expr, $masked:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[non_exhaustive]
        pub struct $name {
            /// Where the channels stand.
            #[serde(default, skip_serializing_if = "is_default")]
            pub data_format: DataFormat,
            /// Whether the axes that are pooled stay, with size 1.
            #[serde(default, skip_serializing_if = "is_default")]
            pub keepdims: bool,
        }

        impl $name {
            /// Pooling with channels last, which removes the other axes.
            pub fn new() -> Self {
                Self::default()
            }
            setters! {
                /// Where the channels stand.
                data_format: DataFormat;
                /// Whether the axes that are pooled stay, with size 1.
                keepdims: bool;
            }
        }

        impl LayerModule for $name {
            fn class_name(&self) -> &'static str {
                $class
            }
            fn features(&self, name: &str, shape: &Shape) -> Result<usize> {
                self.data_format.channels(name, $axes, shape)
            }
            fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
                let channels = Some(self.features(name, shape)?);
                let ones = [Some(1); $axes];
                Ok(vec![match (self.keepdims, self.data_format) {
                    (false, _) => vec![shape[0], channels],
                    (true, DataFormat::ChannelsLast) => [&[shape[0]], &ones[..], &[channels]].concat(),
                    (true, DataFormat::ChannelsFirst) => [&[shape[0], channels], &ones[..]].concat(),
                }])
            }
            fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
                let first = self.data_format.first_axis() as i64;
                let over = |reduction| ops::ReduceOver {
                    reduction,
                    axes: (first..first + $axes).collect(),
                    keep_dims: self.keepdims,
                    noop: false,
                    int: None,
                };
                let plain = into.node(at.name, over($reduction), &[&x.value]);
                if !$masked {
                    return Ok(Lowered::one(plain, None));
                }
                if x.mask.is_some() && self.data_format == DataFormat::ChannelsFirst {
                    return Err(bad_option(at.name, "data_format", "must be channels_last for an input with a mask"));
                }
                if self.data_format == DataFormat::ChannelsFirst {
                    return Ok(Lowered::one(plain, None));
                }
                let (Some(mask), always) = into.mask_alone(at.name, x) else {
                    return Ok(Lowered::one(plain, None));
                };
                let valid = into.factors(at.name, &mask);
                let zero = into.constant(at.name, &[1], &[0.0]);
                let kept = into.node(at.name, ops::Where, &[&valid, &x.value, &zero]);
                let sum = into.node(at.name, over(Reduction::Sum), &[&kept]);
                let mut count = into.node(at.name, over(Reduction::Sum), &[&valid]);
                if into.trains() {
                    // One sequence without a timestep must not spoil the weights.
                    let one = into.constant(at.name, &[1], &[1.0]);
                    count = into.node(at.name, ops::Binary::Max, &[&count, &one]);
                }
                let mean = into.node(at.name, ops::Binary::Div, &[&sum, &count]);
                Ok(Lowered::one(into.if_masked(at.name, always, mean, &plain), None))
            }
            fn per_timestep(&self) -> bool {
                false
            }
        }
    };
}

global! {
    /// The maximum of all timesteps of `[batch, timesteps, channels]`. As in Keras, a mask of the input is ignored.
    GlobalMaxPooling1d, "GlobalMaxPooling1D", 1, Reduction::Max, false
}
global! {
    /// The maximum over the height and width of `[batch, height, width, channels]`.
    GlobalMaxPooling2d, "GlobalMaxPooling2D", 2, Reduction::Max, false
}
global! {
    /// The mean of all timesteps of `[batch, timesteps, channels]`; with a mask, of those that are valid. Where none is,
    /// the mean is NaN, as in Keras, but 0 in training.
    GlobalAveragePooling1d, "GlobalAveragePooling1D", 1, Reduction::Mean, true
}
global! {
    /// The mean over the height and width of `[batch, height, width, channels]`.
    GlobalAveragePooling2d, "GlobalAveragePooling2D", 2, Reduction::Mean, false
}
