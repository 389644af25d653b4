//! Convolutions.

use crate::layer::{LayerModule, Shape, bad_option, is_default, is_yes, setters, yes};
use crate::lowering::{Flow, Lowered, Lowering, Place};
use crate::spatial::{Moving, PerAxis, is_ones, ones, timesteps};
use crate::weight_options::{own_weights, weight_setters};
use crate::{DataFormat, Padding, Result, WeightOptions};
use recurve_graph::ops;
use recurve_vocabulary::Activation;
use serde::{Deserialize, Serialize};

/// Options that all convolutions have.
macro_rules! options {
    ($size:ty) => {
        setters! {
            /// Elements from one window to the next, 1 by default.
            strides: $size;
            /// What stands around the input.
            padding: Padding;
            /// Elements from one element of a window to the next, 1 by default.
            dilation_rate: $size;
            /// Where the channels stand.
            data_format: DataFormat;
            /// The activation.
            activation: Activation;
            /// Whether there is a bias.
            use_bias: bool;
        }
        /// The windows.
        fn moving(&self) -> Moving<'_> {
            Moving {
                argument: "kernel_size",
                sizes: self.kernel_size.list(),
                strides: self.strides.list(),
                dilations: self.dilation_rate.list(),
                padding: self.padding,
                format: self.data_format,
            }
        }
    };
}

/// Checks that a number is at least 1.
fn some(name: &str, argument: &'static str, n: usize) -> Result<()> {
    if n > 0 { Ok(()) } else { Err(bad_option(name, argument, "must be at least 1, but it is 0")) }
}

/// The shape of a kernel.
fn kernel(out: usize, channels: usize, sizes: &[usize]) -> Vec<usize> {
    [&[out, channels], sizes].concat()
}

/// A weight and a bias, if there is one.
fn weight_and_bias(prefix: &str, weight: Vec<usize>, bias: Option<usize>) -> Vec<(String, Vec<usize>)> {
    let bias = bias.map(|n| (format!("{prefix}.bias"), vec![n]));
    std::iter::once((format!("{prefix}.weight"), weight)).chain(bias).collect()
}

/// Adds an operator over windows, and the activation behind it. `weights` are those of the operator.
fn convolved(
    at: &Place<'_>,
    x: &Flow,
    format: DataFormat,
    add: impl FnOnce(&str, &mut Lowering) -> String,
    activation: Activation,
    into: &mut Lowering,
) -> Lowered {
    let rank = at.shape.len();
    let first = format.to_first(at.name, &x.value, rank, into);
    let mut y = add(&first, into);
    if activation != Activation::Linear {
        y = into.node(at.name, ops::Activate(activation), &[&y]);
    }
    Lowered::one(format.back(at.name, &y, rank, into), None)
}

/// Adds an operator with its weights.
fn weighted(
    at: &Place<'_>,
    operator: impl recurve_graph::Operator + 'static,
    x: &str,
    weights: &[String],
    into: &mut Lowering,
) -> String {
    let inputs: Vec<&str> = std::iter::once(x).chain(weights.iter().map(String::as_str)).collect();
    into.node(at.name, operator, &inputs)
}

macro_rules! conv {
    ($(#[$doc:meta])* $name:ident, $class:literal, $size:ty) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[non_exhaustive]
        pub struct $name {
            /// Number of output channels.
            pub filters: usize,
            /// Elements of a window along each axis.
            pub kernel_size: $size,
            /// Elements from one window to the next.
            #[serde(default = "ones", skip_serializing_if = "is_ones")]
            pub strides: $size,
            /// What stands around the input.
            #[serde(default, skip_serializing_if = "is_default")]
            pub padding: Padding,
            /// Elements from one element of a window to the next.
            #[serde(default = "ones", skip_serializing_if = "is_ones")]
            pub dilation_rate: $size,
            /// Groups of channels that do not see each other.
            #[serde(default = "ones", skip_serializing_if = "is_ones")]
            pub groups: usize,
            /// Where the channels stand.
            #[serde(default, skip_serializing_if = "is_default")]
            pub data_format: DataFormat,
            /// The activation function.
            #[serde(default, skip_serializing_if = "is_default")]
            pub activation: Activation,
            /// Whether there is a bias.
            #[serde(default = "yes", skip_serializing_if = "is_yes")]
            pub use_bias: bool,
        /// How the weights are trained.
        #[serde(default, skip_serializing_if = "is_default")]
        pub weight_options: WeightOptions,
        }

        impl $name {
            /// A convolution with so many output channels and windows of this size, with Keras's defaults.
            pub fn new(filters: usize, kernel_size: $size) -> Self {
                Self {
                    filters,
                    kernel_size,
                    strides: ones(),
                    padding: Padding::Valid,
                    dilation_rate: ones(),
                    groups: 1,
                    data_format: DataFormat::ChannelsLast,
                    activation: Activation::Linear,
                    use_bias: true,
                    weight_options: WeightOptions::default(),
                }
            }
            setters! {
                /// Groups of channels that do not see each other, 1 by default.
                groups: usize;
            }
            options!($size);
            weight_setters!(
                Kernel kernel_regularizer kernel_constraint,
                Bias bias_regularizer bias_constraint
            );
        }

        impl LayerModule for $name {
            own_weights!();
            fn class_name(&self) -> &'static str {
                $class
            }
            fn features(&self, name: &str, shape: &Shape) -> Result<usize> {
                self.moving().check(name, true)?;
                some(name, "filters", self.filters)?;
                some(name, "groups", self.groups)?;
                let channels = self.data_format.channels(name, self.kernel_size.list().len(), shape)?;
                for (what, n) in [("filters", self.filters), ("channels of the input", channels)] {
                    if n % self.groups != 0 {
                        let message = format!("must divide the {n} {what}, but it is {}", self.groups);
                        return Err(bad_option(name, "groups", message));
                    }
                }
                Ok(channels)
            }
            fn weights(&self, shapes: &[&Shape], prefix: &str) -> Vec<(String, Vec<usize>)> {
                let sizes = self.kernel_size.list();
                let channels = self.data_format.channels("", sizes.len(), shapes[0]).expect("checked before");
                let weight = kernel(self.filters, channels / self.groups, sizes);
                weight_and_bias(prefix, weight, self.use_bias.then_some(self.filters))
            }
            fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
                self.features(name, shape)?;
                Ok(vec![self.moving().output(name, shape, self.filters)?])
            }
            fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
                let weights = into.parameters(self.weights(at.shapes, at.prefix));
                let conv = ops::Conv { windows: self.moving().windows(), groups: self.groups };
                let add = |x: &str, into: &mut Lowering| weighted(at, conv, x, &weights, into);
                Ok(convolved(at, x, self.data_format, add, self.activation, into))
            }
            timesteps!();
        }
    };
}

conv! {
    /// A convolution over the timesteps of `[batch, timesteps, channels]`.
    Conv1d, "Conv1D", usize
}
conv! {
    /// A convolution over the height and width of `[batch, height, width, channels]`.
    Conv2d, "Conv2D", [usize; 2]
}

macro_rules! depthwise {
    ($(#[$doc:meta])* $name:ident, $class:literal, $size:ty) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[non_exhaustive]
        pub struct $name {
            /// Elements of a window along each axis.
            pub kernel_size: $size,
            /// Output channels for each input channel.
            #[serde(default = "ones", skip_serializing_if = "is_ones")]
            pub depth_multiplier: usize,
            /// Elements from one window to the next.
            #[serde(default = "ones", skip_serializing_if = "is_ones")]
            pub strides: $size,
            /// What stands around the input.
            #[serde(default, skip_serializing_if = "is_default")]
            pub padding: Padding,
            /// Elements from one element of a window to the next.
            #[serde(default = "ones", skip_serializing_if = "is_ones")]
            pub dilation_rate: $size,
            /// Where the channels stand.
            #[serde(default, skip_serializing_if = "is_default")]
            pub data_format: DataFormat,
            /// The activation function.
            #[serde(default, skip_serializing_if = "is_default")]
            pub activation: Activation,
            /// Whether there is a bias.
            #[serde(default = "yes", skip_serializing_if = "is_yes")]
            pub use_bias: bool,
        /// How the weights are trained.
        #[serde(default, skip_serializing_if = "is_default")]
        pub weight_options: WeightOptions,
        }

        impl $name {
            /// A convolution with windows of this size, with Keras's defaults.
            pub fn new(kernel_size: $size) -> Self {
                Self {
                    kernel_size,
                    depth_multiplier: 1,
                    strides: ones(),
                    padding: Padding::Valid,
                    dilation_rate: ones(),
                    data_format: DataFormat::ChannelsLast,
                    activation: Activation::Linear,
                    use_bias: true,
                    weight_options: WeightOptions::default(),
                }
            }
            setters! {
                /// Output channels for each input channel, 1 by default.
                depth_multiplier: usize;
            }
            options!($size);
            weight_setters!(
                Depthwise depthwise_regularizer depthwise_constraint,
                Bias bias_regularizer bias_constraint
            );
        }

        impl LayerModule for $name {
            own_weights!();
            fn class_name(&self) -> &'static str {
                $class
            }
            fn features(&self, name: &str, shape: &Shape) -> Result<usize> {
                self.moving().check(name, false)?;
                some(name, "depth_multiplier", self.depth_multiplier)?;
                self.data_format.channels(name, self.kernel_size.list().len(), shape)
            }
            fn weights(&self, shapes: &[&Shape], prefix: &str) -> Vec<(String, Vec<usize>)> {
                let sizes = self.kernel_size.list();
                let channels = self.data_format.channels("", sizes.len(), shapes[0]).expect("checked before");
                let out = channels.saturating_mul(self.depth_multiplier);
                weight_and_bias(prefix, kernel(out, 1, sizes), self.use_bias.then_some(out))
            }
            fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
                let out = self.features(name, shape)?.saturating_mul(self.depth_multiplier);
                Ok(vec![self.moving().output(name, shape, out)?])
            }
            fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
                let weights = into.parameters(self.weights(at.shapes, at.prefix));
                let conv = ops::Conv { windows: self.moving().windows(), groups: at.features };
                let add = |x: &str, into: &mut Lowering| weighted(at, conv, x, &weights, into);
                Ok(convolved(at, x, self.data_format, add, self.activation, into))
            }
            timesteps!();
        }
    };
}

depthwise! {
    /// A convolution of each channel of `[batch, timesteps, channels]` on its own. Output channel
    /// `c · depth_multiplier + m` is the m-th of input channel c.
    DepthwiseConv1d, "DepthwiseConv1D", usize
}
depthwise! {
    /// A convolution of each channel of `[batch, height, width, channels]` on its own. Output channel
    /// `c · depth_multiplier + m` is the m-th of input channel c.
    DepthwiseConv2d, "DepthwiseConv2D", [usize; 2]
}

macro_rules! separable {
    ($(#[$doc:meta])* $name:ident, $class:literal, $size:ty) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[non_exhaustive]
        pub struct $name {
            /// Number of output channels.
            pub filters: usize,
            /// Elements of a window along each axis.
            pub kernel_size: $size,
            /// Channels that the first convolution makes of each input channel.
            #[serde(default = "ones", skip_serializing_if = "is_ones")]
            pub depth_multiplier: usize,
            /// Elements from one window to the next.
            #[serde(default = "ones", skip_serializing_if = "is_ones")]
            pub strides: $size,
            /// What stands around the input.
            #[serde(default, skip_serializing_if = "is_default")]
            pub padding: Padding,
            /// Elements from one element of a window to the next.
            #[serde(default = "ones", skip_serializing_if = "is_ones")]
            pub dilation_rate: $size,
            /// Where the channels stand.
            #[serde(default, skip_serializing_if = "is_default")]
            pub data_format: DataFormat,
            /// The activation function.
            #[serde(default, skip_serializing_if = "is_default")]
            pub activation: Activation,
            /// Whether there is a bias.
            #[serde(default = "yes", skip_serializing_if = "is_yes")]
            pub use_bias: bool,
        /// How the weights are trained.
        #[serde(default, skip_serializing_if = "is_default")]
        pub weight_options: WeightOptions,
        }

        impl $name {
            /// A convolution with so many output channels and windows of this size, with Keras's defaults.
            pub fn new(filters: usize, kernel_size: $size) -> Self {
                Self {
                    filters,
                    kernel_size,
                    depth_multiplier: 1,
                    strides: ones(),
                    padding: Padding::Valid,
                    dilation_rate: ones(),
                    data_format: DataFormat::ChannelsLast,
                    activation: Activation::Linear,
                    use_bias: true,
                    weight_options: WeightOptions::default(),
                }
            }
            setters! {
                /// Channels that the first convolution makes of each input channel, 1 by default.
                depth_multiplier: usize;
            }
            options!($size);
            weight_setters!(
                Depthwise depthwise_regularizer depthwise_constraint,
                Pointwise pointwise_regularizer pointwise_constraint,
                Bias bias_regularizer bias_constraint
            );
        }

        impl LayerModule for $name {
            own_weights!();
            fn class_name(&self) -> &'static str {
                $class
            }
            fn features(&self, name: &str, shape: &Shape) -> Result<usize> {
                self.moving().check(name, false)?;
                some(name, "filters", self.filters)?;
                some(name, "depth_multiplier", self.depth_multiplier)?;
                self.data_format.channels(name, self.kernel_size.list().len(), shape)
            }
            fn weights(&self, shapes: &[&Shape], prefix: &str) -> Vec<(String, Vec<usize>)> {
                let sizes = self.kernel_size.list();
                let channels = self.data_format.channels("", sizes.len(), shapes[0]).expect("checked before");
                let between = channels.saturating_mul(self.depth_multiplier);
                let pointwise = kernel(self.filters, between, &vec![1; sizes.len()]);
                let mut all = weight_and_bias(&format!("{prefix}.depthwise"), kernel(between, 1, sizes), None);
                let bias = self.use_bias.then_some(self.filters);
                all.extend(weight_and_bias(&format!("{prefix}.pointwise"), pointwise, bias));
                all
            }
            fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
                self.features(name, shape)?;
                Ok(vec![self.moving().output(name, shape, self.filters)?])
            }
            fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
                let weights = into.parameters(self.weights(at.shapes, at.prefix));
                let depthwise = ops::Conv { windows: self.moving().windows(), groups: at.features };
                let pointwise = ops::Conv { windows: ops::Windows::default(), groups: 1 };
                let add = |x: &str, into: &mut Lowering| {
                    let between = weighted(at, depthwise, x, &weights[..1], into);
                    weighted(at, pointwise, &between, &weights[1..], into)
                };
                Ok(convolved(at, x, self.data_format, add, self.activation, into))
            }
            timesteps!();
        }
    };
}

separable! {
    /// A [`DepthwiseConv1d`] and behind it a convolution with windows of one timestep, which joins the channels. Its
    /// weights are those of two PyTorch modules named `depthwise` and `pointwise`.
    SeparableConv1d, "SeparableConv1D", usize
}
separable! {
    /// A [`DepthwiseConv2d`] and behind it a convolution with windows of one element, which joins the channels. Its
    /// weights are those of two PyTorch modules named `depthwise` and `pointwise`.
    SeparableConv2d, "SeparableConv2D", [usize; 2]
}

/// How a transposed convolution is placed along an axis: what is cut off before and behind, and what is added behind.
#[derive(Clone, Copy, Debug)]
struct Span {
    before: usize,
    behind: usize,
    extra: usize,
}

impl Span {
    /// Keras's rule. `extent` is that of a window.
    fn new(extent: usize, stride: usize, padding: Padding, output_padding: Option<usize>) -> Self {
        // What stands on both sides of the input, spread by the stride, over which the windows move.
        let (left, right) = match (padding, output_padding) {
            (Padding::Same, None) => {
                let both = stride + extent - 2;
                let left = both.div_ceil(2).min(extent - 1);
                (left, both - left)
            }
            (Padding::Same, Some(extra)) => {
                let both = (extent + extent % 2 + extra).saturating_sub(2);
                let left = both.div_ceil(2).min(extent - 1);
                (left, both - left)
            }
            (_, None) => (extent - 1, extent - 1 + stride.saturating_sub(extent)),
            (_, Some(extra)) => (extent - 1, extent - 1 + extra),
        };
        let whole = extent - 1;
        Self { before: whole - left, behind: whole.saturating_sub(right), extra: right.saturating_sub(whole) }
    }

    /// The size of the output.
    fn len(self, len: usize, extent: usize, stride: usize) -> Option<usize> {
        let whole = len.checked_sub(1)?.checked_mul(stride)?.checked_add(extent)?.checked_add(self.extra)?;
        whole.checked_sub(self.before)?.checked_sub(self.behind).filter(|&n| n > 0)
    }
}

macro_rules! transposed {
    ($(#[$doc:meta])* $name:ident, $class:literal, $size:ty) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[non_exhaustive]
        pub struct $name {
            /// Number of output channels.
            pub filters: usize,
            /// Elements of a window along each axis.
            pub kernel_size: $size,
            /// Elements from one window to the next in the output.
            #[serde(default = "ones", skip_serializing_if = "is_ones")]
            pub strides: $size,
            /// What is cut off the output; causal is not possible.
            #[serde(default, skip_serializing_if = "is_default")]
            pub padding: Padding,
            /// Elements added to the size that follows from the padding; `None` for Keras's default.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub output_padding: Option<$size>,
            /// Elements from one element of a window to the next.
            #[serde(default = "ones", skip_serializing_if = "is_ones")]
            pub dilation_rate: $size,
            /// Where the channels stand.
            #[serde(default, skip_serializing_if = "is_default")]
            pub data_format: DataFormat,
            /// The activation function.
            #[serde(default, skip_serializing_if = "is_default")]
            pub activation: Activation,
            /// Whether there is a bias.
            #[serde(default = "yes", skip_serializing_if = "is_yes")]
            pub use_bias: bool,
        /// How the weights are trained.
        #[serde(default, skip_serializing_if = "is_default")]
        pub weight_options: WeightOptions,
        }

        impl $name {
            /// A transposed convolution with so many output channels and windows of this size, with Keras's defaults.
            pub fn new(filters: usize, kernel_size: $size) -> Self {
                Self {
                    filters,
                    kernel_size,
                    strides: ones(),
                    padding: Padding::Valid,
                    output_padding: None,
                    dilation_rate: ones(),
                    data_format: DataFormat::ChannelsLast,
                    activation: Activation::Linear,
                    use_bias: true,
                    weight_options: WeightOptions::default(),
                }
            }
            /// Elements added to the size that follows from the padding.
            #[must_use]
            pub fn output_padding(mut self, extra: $size) -> Self {
                self.output_padding = Some(extra);
                self
            }
            options!($size);
            weight_setters!(
                Kernel kernel_regularizer kernel_constraint,
                Bias bias_regularizer bias_constraint
            );

            /// For each axis the extent of a window and where the result stands.
            fn spans(&self) -> impl Iterator<Item = (usize, usize, Span)> {
                let (sizes, strides, rates) = (self.kernel_size, self.strides, self.dilation_rate);
                let (padding, extra) = (self.padding, self.output_padding);
                (0..sizes.list().len()).map(move |n| {
                    let (stride, extent) = (strides.list()[n], (sizes.list()[n] - 1) * rates.list()[n] + 1);
                    (extent, stride, Span::new(extent, stride, padding, extra.map(|e| e.list()[n])))
                })
            }
        }

        impl LayerModule for $name {
            own_weights!();
            fn class_name(&self) -> &'static str {
                $class
            }
            fn features(&self, name: &str, shape: &Shape) -> Result<usize> {
                self.moving().check(name, false)?;
                some(name, "filters", self.filters)?;
                if let Some(extra) = self.output_padding
                    && extra.list().iter().zip(self.strides.list()).any(|(extra, stride)| extra >= stride)
                {
                    let message = format!("must be less than strides, {:?}, but it is {extra:?}", self.strides);
                    return Err(bad_option(name, "output_padding", message));
                }
                self.data_format.channels(name, self.kernel_size.list().len(), shape)
            }
            fn weights(&self, shapes: &[&Shape], prefix: &str) -> Vec<(String, Vec<usize>)> {
                let sizes = self.kernel_size.list();
                let channels = self.data_format.channels("", sizes.len(), shapes[0]).expect("checked before");
                let bias = self.use_bias.then_some(self.filters);
                weight_and_bias(prefix, kernel(channels, self.filters, sizes), bias)
            }
            fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
                self.features(name, shape)?;
                let mut out = shape.to_vec();
                out[self.data_format.channel_axis(shape.len())] = Some(self.filters);
                for (n, (extent, stride, span)) in self.spans().enumerate() {
                    let axis = self.data_format.first_axis() + n;
                    let Some(len) = shape[axis] else { continue };
                    let size = span.len(len, extent, stride);
                    let message = || format!("leaves nothing of axis {axis}, {len} elements");
                    out[axis] = Some(size.ok_or_else(|| bad_option(name, "padding", message()))?);
                }
                Ok(vec![out])
            }
            fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
                let weights = into.parameters(self.weights(at.shapes, at.prefix));
                let cut = self.spans().map(|(.., s)| [s.before, s.behind]).collect();
                let windows = ops::Windows { padding: ops::Padding::Explicit(cut), ..self.moving().windows() };
                let output_padding = self.spans().map(|(.., s)| s.extra).collect();
                let conv = ops::ConvTranspose { windows, groups: 1, output_padding, output_shape: None };
                let add = |x: &str, into: &mut Lowering| weighted(at, conv, x, &weights, into);
                Ok(convolved(at, x, self.data_format, add, self.activation, into))
            }
            fn per_timestep(&self) -> bool {
                self.moving().per_timestep()
            }
        }
    };
}

transposed! {
    /// The transpose of a [`Conv1d`]: makes more timesteps of `[batch, timesteps, channels]`.
    Conv1dTranspose, "Conv1DTranspose", usize
}
transposed! {
    /// The transpose of a [`Conv2d`]: makes `[batch, height, width, channels]` larger.
    Conv2dTranspose, "Conv2DTranspose", [usize; 2]
}
