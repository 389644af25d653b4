//! Layers that only training uses.

use crate::Result;
use crate::layer::{LayerModule, Shape, bad_input, bad_option};
use crate::lowering::{Flow, Lowered, Lowering, Place};
use serde::{Deserialize, Serialize};

macro_rules! of_training {
    ($($(#[$doc:meta])* $name:ident, $class:literal, $argument:ident, $(#[$what:meta])*, $fits:expr, $range:literal, $rank:expr;)*) => { $(
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
            fn lower(&self, _: &Place<'_>, x: &Flow, _: &mut Lowering) -> Result<Lowered> {
                Ok(Lowered::one(x.value.clone(), x.mask.clone()))
            }
        }
    )* };
}

of_training! {
    /// Dropout. It does nothing, because Recurve only runs inference.
    Dropout, "Dropout", rate,
        /// The share of elements that training drops, in `[0, 1)`.
        , |rate| (0.0..1.0).contains(&rate), "in [0, 1)", None;
    /// Dropout of whole channels of `[batch, timesteps, channels]`. It does nothing at inference.
    SpatialDropout1d, "SpatialDropout1D", rate,
        /// The share of channels that training drops, in `[0, 1)`.
        , |rate| (0.0..1.0).contains(&rate), "in [0, 1)", Some(3);
    /// Dropout of whole channels of values of four dimensions. It does nothing at inference.
    SpatialDropout2d, "SpatialDropout2D", rate,
        /// The share of channels that training drops, in `[0, 1)`.
        , |rate| (0.0..1.0).contains(&rate), "in [0, 1)", Some(4);
    /// Adds noise in training. It does nothing at inference.
    GaussianNoise, "GaussianNoise", stddev,
        /// The standard deviation of the noise, in `[0, 1]`.
        , |stddev| (0.0..=1.0).contains(&stddev), "in [0, 1]", None;
    /// Multiplies by noise in training. It does nothing at inference.
    GaussianDropout, "GaussianDropout", rate,
        /// The share of dropout with the same effect, in `[0, 1)`.
        , |rate| (0.0..1.0).contains(&rate), "in [0, 1)", None;
    /// Dropout that keeps mean and variance. It does nothing at inference.
    AlphaDropout, "AlphaDropout", rate,
        /// The share of elements that training drops, in `[0, 1)`.
        , |rate| (0.0..1.0).contains(&rate), "in [0, 1)", None;
}
