//! How the weights of a layer are trained.

use crate::Result;
use crate::layer::{bad_option, is_default, is_yes, yes};
use serde::{Deserialize, Serialize};

/// How the weights of a layer are trained, in Keras's words. Nothing of it changes a result at inference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct WeightOptions {
    /// Whether training changes the weights. A [`crate::BatchNormalization`] whose weights are not trained uses its
    /// running mean and variance in training too, and leaves them as they are.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub trainable: bool,
    /// What a file asks for that training cannot do. A network with such a layer runs, but is not trained.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unsupported: Vec<String>,
}

impl Default for WeightOptions {
    fn default() -> Self {
        Self { trainable: true, unsupported: Vec::new() }
    }
}

impl WeightOptions {
    /// Checks that a layer with this name can be trained.
    fn check(&self, name: &str) -> Result<()> {
        match self.unsupported.first() {
            Some(what) => Err(bad_option(name, "weight_options", format!("ask for {what}, which training cannot do"))),
            None => Ok(()),
        }
    }
}

/// Weights with the options that are theirs.
#[derive(Debug)]
pub(crate) struct WeightGroup<'a> {
    pub(crate) options: &'a WeightOptions,
    pub(crate) weights: Vec<(String, Vec<usize>)>,
}

impl WeightGroup<'_> {
    /// Checks that the layer can be trained.
    pub(crate) fn check(&self, layer: &str) -> Result<()> {
        self.options.check(layer)
    }

    /// The names of the weights that training leaves as they are.
    pub(crate) fn frozen(&self) -> impl Iterator<Item = &str> {
        self.weights.iter().map(|(name, _)| &**name).filter(|name| !self.options.trainable || is_running(name))
    }
}

/// Whether a weight is a running mean or variance, which no gradient changes.
fn is_running(name: &str) -> bool {
    name.contains(".running_")
}

/// Methods of [`crate::layer::LayerModule`] for a layer that has its weights itself.
macro_rules! own_weights {
    () => {
        fn weight_options(&self) -> Option<&crate::WeightOptions> {
            Some(&self.weight_options)
        }
        fn weight_options_mut(&mut self) -> Vec<&mut crate::WeightOptions> {
            vec![&mut self.weight_options]
        }
    };
}
pub(crate) use own_weights;

/// Methods of a builder for the options of its weights; `$spec` is the field that holds them, if they are not fields of
/// the builder itself.
macro_rules! weight_setters {
    ($(. $spec:tt)?) => {
        /// Whether training changes the weights, which is the default.
        #[must_use]
        pub fn trainable(mut self, on: bool) -> Self {
            self$(.$spec)?.weight_options.trainable = on;
            self
        }
    };
}
pub(crate) use weight_setters;
