//! Layers that draw random numbers in training and do nothing at inference.

use crate::Result;
use crate::layer::{LayerModule, Shape, bad_input, bad_option, is_default};
use crate::lowering::{Flow, Lowered, Lowering, Place};
use recurve_graph::ops::{self, Extent};
use recurve_tensor::Noise;
use recurve_vocabulary::Activation;
use serde::{Deserialize, Serialize};

/// What a layer makes of a value `x` of so many dimensions in training.
type InTraining = fn(f32, &str, &str, usize, &mut Lowering) -> String;

/// Normal numbers in the shape of x.
fn normal(name: &str, x: &str, rank: usize, into: &mut Lowering) -> String {
    into.draw(name, Noise::Normal, (0..rank).map(|n| Extent::Axes(n, 1)).collect(), x)
}

fn affine(name: &str, x: &str, alpha: f32, beta: f32, into: &mut Lowering) -> String {
    into.node(name, ops::Activate(Activation::Affine { alpha, beta }), &[x])
}

/// `x + stddev · noise`
fn with_noise(stddev: f32, name: &str, x: &str, rank: usize, into: &mut Lowering) -> String {
    let noise = normal(name, x, rank, into);
    let noise = affine(name, &noise, stddev, 0.0, into);
    into.node(name, ops::Binary::Add, &[x, &noise])
}

/// `x · (1 + √(rate / (1 - rate)) noise)`
fn times_noise(rate: f32, name: &str, x: &str, rank: usize, into: &mut Lowering) -> String {
    let noise = normal(name, x, rank, into);
    let factors = affine(name, &noise, (rate / (1.0 - rate)).sqrt(), 1.0, into);
    into.node(name, ops::Binary::Mul, &[x, &factors])
}

/// Where kept `a x + b`, else `a α + b`, with which SELU's mean and variance stay (Klambauer et al. 2017).
fn alpha_dropped(rate: f32, name: &str, x: &str, dims: Vec<Extent>, into: &mut Lowering) -> String {
    // -alpha · scale of SELU.
    const ALPHA: f32 = -1.673_263_2 * 1.050_701;
    let a = 1.0 / ((1.0 - rate) * (1.0 + rate * ALPHA * ALPHA)).sqrt();
    let b = -a * rate * ALPHA;
    let dropped = into.draw(name, Noise::Bernoulli { rate }, dims, x);
    let alpha = into.constant(name, &[1], &[ALPHA]);
    let y = into.node(name, ops::Where, &[&dropped, &alpha, x]);
    affine(name, &y, a, b, into)
}

macro_rules! of_training {
    ($($(#[$doc:meta])* $name:ident, $class:literal, $argument:ident, $(#[$what:meta])*, $fits:expr, $range:literal, $rank:expr, $training:expr;)*) => { $(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[non_exhaustive]
        pub struct $name {
            $(#[$what])*
            pub $argument: f32,
        }

        impl $name {
            /// The layer with this option.
            pub fn new($argument: f32) -> Self {
                Self { $argument }
            }
        }

        impl LayerModule for $name {
            fn class_name(&self) -> &'static str {
                $class
            }
            fn features(&self, name: &str, shape: &Shape) -> Result<usize> {
                let fits: fn(f32) -> bool = $fits;
                if !fits(self.$argument) {
                    let message = format!(concat!("must be ", $range, ", but it is {}"), self.$argument);
                    return Err(bad_option(name, stringify!($argument), message));
                }
                let rank: Option<usize> = $rank;
                match rank {
                    Some(rank) if shape.len() != rank => Err(bad_input(name, &format!("of {rank} dimensions"), shape)),
                    _ => Ok(0),
                }
            }
            fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
                self.features(name, shape)?;
                Ok(vec![shape.to_vec()])
            }
            fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
                if !into.trains() || self.$argument == 0.0 {
                    return Ok(Lowered::one(x.value.clone(), x.mask.clone()));
                }
                let training: InTraining = $training;
                let y = training(self.$argument, at.name, &x.value, at.shape.len(), into);
                Ok(Lowered::one(y, x.mask.clone()))
            }
        }
    )* };
}

of_training! {
    /// Dropout of whole channels of `[batch, timesteps, channels]`. It does nothing at inference.
    SpatialDropout1d, "SpatialDropout1D", rate,
        /// The share of channels that training drops, in `[0, 1]`. With 1 all are 0.
        , |rate| (0.0..=1.0).contains(&rate), "in [0, 1]", Some(3),
        |rate, name, x, rank, into| into.dropped(name, rate, x, rank, &[1]);
    /// Dropout of whole channels of values of four dimensions. It does nothing at inference.
    SpatialDropout2d, "SpatialDropout2D", rate,
        /// The share of channels that training drops, in `[0, 1]`. With 1 all are 0.
        , |rate| (0.0..=1.0).contains(&rate), "in [0, 1]", Some(4),
        |rate, name, x, rank, into| into.dropped(name, rate, x, rank, &[1, 2]);
    /// Adds noise in training. It does nothing at inference.
    GaussianNoise, "GaussianNoise", stddev,
        /// The standard deviation of the noise, in `[0, 1]`.
        , |stddev| (0.0..=1.0).contains(&stddev), "in [0, 1]", None, with_noise;
    /// Multiplies by noise in training. It does nothing at inference.
    GaussianDropout, "GaussianDropout", rate,
        /// The share of dropout with the same effect, in `[0, 1)`.
        , |rate| (0.0..1.0).contains(&rate), "in [0, 1)", None, times_noise;
}

/// What is wrong with the dimensions of what is drawn, or these dimensions for a value of this shape.
fn drawn(noise_shape: Option<&[Option<usize>]>, shape: &Shape) -> Result<Vec<Extent>, String> {
    let Some(noise_shape) = noise_shape else {
        return Ok((0..shape.len()).map(|n| Extent::Axes(n, 1)).collect());
    };
    if noise_shape.len() != shape.len() {
        return Err(format!("must have {} sizes, one for each axis, but it has {}", shape.len(), noise_shape.len()));
    }
    let each = noise_shape.iter().zip(shape).enumerate().map(|(n, (wanted, size))| match (wanted, size) {
        (Some(1), _) => Ok(Extent::Size(1)),
        (None, _) => Ok(Extent::Axes(n, 1)),
        (Some(wanted), Some(size)) if wanted == size => Ok(Extent::Axes(n, 1)),
        (Some(wanted), Some(size)) => Err(format!("is {wanted} on axis {n}, which has {size} elements")),
        (Some(wanted), None) => {
            Err(format!("is {wanted} on axis {n}, whose size differs from batch to batch; give none or 1"))
        }
    });
    each.collect()
}

macro_rules! with_noise_shape {
    ($($(#[$doc:meta])* $name:ident, $class:literal, $(#[$what:meta])*, $fits:expr, $range:literal, $training:expr;)*) => { $(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[non_exhaustive]
        pub struct $name {
            $(#[$what])*
            pub rate: f32,
            /// The dimensions of what is drawn, `None` for the size of the value, 1 for one draw for the whole axis.
            /// Without it every element is drawn by itself.
            #[serde(default, skip_serializing_if = "is_default")]
            pub noise_shape: Option<Vec<Option<usize>>>,
        }

        impl $name {
            /// The layer with this rate.
            pub fn new(rate: f32) -> Self {
                Self { rate, noise_shape: None }
            }
            /// The dimensions of what is drawn, as in Keras.
            #[must_use]
            pub fn noise_shape(mut self, noise_shape: &[Option<usize>]) -> Self {
                self.noise_shape = Some(noise_shape.to_vec());
                self
            }
        }

        impl LayerModule for $name {
            fn class_name(&self) -> &'static str {
                $class
            }
            fn features(&self, name: &str, _: &Shape) -> Result<usize> {
                let fits: fn(f32) -> bool = $fits;
                if !fits(self.rate) {
                    return Err(bad_option(name, "rate", format!(concat!("must be ", $range, ", but it is {}"), self.rate)));
                }
                Ok(0)
            }
            fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
                self.features(name, shape)?;
                Ok(vec![shape.to_vec()])
            }
            fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
                if !into.trains() || self.rate == 0.0 {
                    return Ok(Lowered::one(x.value.clone(), x.mask.clone()));
                }
                let dims = drawn(self.noise_shape.as_deref(), at.shape);
                let dims = dims.map_err(|message| bad_option(at.name, "noise_shape", message))?;
                let training: fn(f32, &str, &str, Vec<Extent>, &mut Lowering) -> String = $training;
                let y = training(self.rate, at.name, &x.value, dims, into);
                Ok(Lowered::one(y, x.mask.clone()))
            }
        }
    )* };
}

with_noise_shape! {
    /// Dropout: training sets elements to 0 and divides the others by the share that is kept. It does nothing at inference.
    Dropout, "Dropout",
        /// The share of elements that training drops, in `[0, 1]`. With 1 all are 0.
        , |rate| (0.0..=1.0).contains(&rate), "in [0, 1]",
        |rate, name, x, dims, into| {
            let factors = into.draw(name, Noise::Dropout { rate }, dims, x);
            into.node(name, ops::Binary::Mul, &[x, &factors])
        };
    /// Dropout that keeps mean and variance. It does nothing at inference.
    AlphaDropout, "AlphaDropout",
        /// The share of elements that training drops, in `[0, 1)`.
        , |rate| (0.0..1.0).contains(&rate), "in [0, 1)", alpha_dropped;
}
