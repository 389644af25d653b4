//! How the weights of a layer are trained.

use crate::layer::{bad_option, is_default, is_yes, yes};
use crate::lowering::Lowering;
use crate::variables::permuted;
use crate::{Constraint, Initializer, Regularizer, Result, Weights};
use rand_chacha::ChaCha8Rng;
use recurve_graph::ops::{self, Extent};
use recurve_vocabulary::CellKind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How the weights of a layer are drawn and trained, in Keras's words. Nothing of it changes a result at inference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct WeightOptions {
    /// Whether training changes the weights. A [`crate::BatchNormalization`] whose weights are not trained uses its
    /// running mean and variance in training too, and leaves them as they are.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub trainable: bool,
    /// Penalties for variables that are trained.
    #[serde(default, skip_serializing_if = "is_default")]
    pub regularizers: BTreeMap<Variable, Regularizer>,
    /// A penalty for the outputs of each call, divided by the number of sequences. Keras ignores it inside of a
    /// `TimeDistributed`, and so does Recurve.
    #[serde(default, skip_serializing_if = "is_default")]
    pub activity_regularizer: Option<Regularizer>,
    /// What is made of variables after each step.
    #[serde(default, skip_serializing_if = "is_default")]
    pub constraints: BTreeMap<Variable, Constraint>,
    /// How variables are drawn when a network is built, in place of how the layer draws them by itself.
    #[serde(default, skip_serializing_if = "is_default")]
    pub initializers: BTreeMap<Variable, Initializer>,
    /// What a file asks for that training cannot do. A network with such a layer runs, but is not trained.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unsupported: Vec<String>,
}

impl Default for WeightOptions {
    fn default() -> Self {
        Self {
            trainable: true,
            regularizers: BTreeMap::new(),
            activity_regularizer: None,
            constraints: BTreeMap::new(),
            initializers: BTreeMap::new(),
            unsupported: Vec::new(),
        }
    }
}

macro_rules! variables {
    ($($(#[$doc:meta])* $name:ident $regularizer:literal $constraint:literal $initializer:literal;)*) => {
        /// A variable of a layer, as Keras's options name it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum Variable {
            $($(#[$doc])* $name,)*
        }

        impl Variable {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Keras's name of the option with its regularizer.
            pub const fn regularizer(self) -> &'static str {
                match self {
                    $(Self::$name => $regularizer,)*
                }
            }

            /// Keras's name of the option with its constraint.
            pub const fn constraint(self) -> &'static str {
                match self {
                    $(Self::$name => $constraint,)*
                }
            }

            /// Keras's name of the option with its initializer.
            pub const fn initializer(self) -> &'static str {
                match self {
                    $(Self::$name => $initializer,)*
                }
            }
        }
    };
}
variables! {
    /// The matrix or kernel.
    Kernel "kernel_regularizer" "kernel_constraint" "kernel_initializer";
    /// The matrix of h.
    Recurrent "recurrent_regularizer" "recurrent_constraint" "recurrent_initializer";
    /// The bias. Both of a recurrent layer are one variable, `[2, …]`.
    Bias "bias_regularizer" "bias_constraint" "bias_initializer";
    /// The table of an embedding.
    Embeddings "embeddings_regularizer" "embeddings_constraint" "embeddings_initializer";
    /// The `weight` of a normalization.
    Gamma "gamma_regularizer" "gamma_constraint" "gamma_initializer";
    /// The `bias` of a normalization.
    Beta "beta_regularizer" "beta_constraint" "beta_initializer";
    /// The slopes of a `PReLU`.
    Alpha "alpha_regularizer" "alpha_constraint" "alpha_initializer";
    /// The kernel of a convolution of each channel on its own.
    Depthwise "depthwise_regularizer" "depthwise_constraint" "depthwise_initializer";
    /// The kernel that joins the channels of a separable convolution.
    Pointwise "pointwise_regularizer" "pointwise_constraint" "pointwise_initializer";
}

/// Weights with the options that are theirs.
#[derive(Debug)]
pub(crate) struct WeightGroup<'a> {
    pub(crate) options: &'a WeightOptions,
    /// The class of the layer.
    pub(crate) class: &'static str,
    /// The cell of a recurrent layer.
    pub(crate) cell: Option<CellKind>,
    /// The features of its input.
    pub(crate) features: usize,
    pub(crate) weights: Vec<(String, Vec<usize>)>,
}

impl WeightGroup<'_> {
    /// Checks that the layer can be trained.
    pub(crate) fn check(&self, layer: &str) -> Result<()> {
        if let Some(what) = self.options.unsupported.first() {
            let message = format!("ask for {what}, which training does not support");
            return Err(bad_option(layer, "weight_options", message));
        }
        let own = variables_of(self.class);
        let missing = |option| Err(bad_option(layer, option, format!("is not an option of {}", self.class)));
        for (variable, regularizer) in &self.options.regularizers {
            regularizer.check(layer, variable.regularizer())?;
            if !own.contains(variable) {
                return missing(variable.regularizer());
            }
        }
        for (variable, constraint) in &self.options.constraints {
            constraint.check(layer, variable.constraint())?;
            if !own.contains(variable) {
                return missing(variable.constraint());
            }
        }
        match &self.options.activity_regularizer {
            Some(Regularizer::Orthogonal { .. }) => {
                Err(bad_option(layer, "activity_regularizer", "is orthogonal, which is supported for weights only"))
            }
            Some(other) => other.check(layer, "activity_regularizer"),
            None => Ok(()),
        }
    }

    /// Draws the variables that have an initializer, and puts them in the place of what the layer has drawn.
    ///
    /// # Errors
    /// [`crate::Error::Option`] for a variable that the layer does not have; those of the initializers.
    pub(crate) fn draw(&self, layer: &str, rng: &mut ChaCha8Rng, into: &mut Weights) -> Result<()> {
        if self.options.initializers.is_empty() {
            return Ok(());
        }
        let own = variables_of(self.class);
        if let Some(variable) = self.options.initializers.keys().find(|v| !own.contains(v)) {
            return Err(bad_option(layer, variable.initializer(), format!("is not an option of {}", self.class)));
        }
        for variable in self.variables() {
            if let Some(how) = self.options.initializers.get(&variable.variable) {
                let drawn = variable.draw(*how, rng)?;
                variable.store(self.cell, &drawn, into)?;
            }
        }
        Ok(())
    }

    /// The names of the weights that training leaves as they are.
    pub(crate) fn frozen(&self) -> impl Iterator<Item = &str> {
        self.weights.iter().map(|(name, _)| &**name).filter(|name| !self.options.trainable || is_running(name))
    }

    /// The variables, as Keras has them.
    pub(crate) fn variables(&self) -> Vec<KerasVariable> {
        let mut all: Vec<KerasVariable> = Vec::new();
        for (name, own) in self.weights.iter().filter(|(name, _)| !is_running(name)) {
            let second = name.contains("bias_hh_l");
            match all.last_mut().filter(|_| second) {
                // Both biases of a recurrent layer are rows of one variable.
                Some(bias) => {
                    bias.weights.push(name.clone());
                    (bias.dims, bias.order) = ([&[2], &own[..]].concat(), vec![0, 1]);
                }
                None => all.extend(self.variable(name, own)),
            }
        }
        all
    }

    /// The variable that a weight is, if Keras's options have a word for it.
    fn variable(&self, name: &str, own: &[usize]) -> Option<KerasVariable> {
        let (before, last) = name.rsplit_once('.').unwrap_or(("", name));
        let part = last.split_once("_l").map_or(last, |(part, _)| part);
        let rank = own.len();
        // A kernel has its inputs and outputs behind the axes of its windows, and in the other order.
        let turned = || (2..rank).chain([1, 0]).collect::<Vec<_>>();
        let depthwise = self.class.starts_with("Depthwise") || before.ends_with(".depthwise");
        let (mut dims, mut order) = (own.to_vec(), (0..rank).collect::<Vec<_>>());
        let variable = match (self.class, part) {
            ("Embedding", "weight") => Variable::Embeddings,
            ("BatchNormalization" | "LayerNormalization", "weight") => Variable::Gamma,
            ("BatchNormalization" | "LayerNormalization", "bias") => Variable::Beta,
            ("PReLU", "weight") => Variable::Alpha,
            (_, "weight") if depthwise => {
                let channels = self.features.max(1);
                (dims[0], dims[1]) = (channels, own[0] / channels);
                order = (2..rank).chain([0, 1]).collect();
                Variable::Depthwise
            }
            (_, "weight") => {
                order = turned();
                if before.ends_with(".pointwise") { Variable::Pointwise } else { Variable::Kernel }
            }
            (_, "weight_ih") => {
                order = turned();
                Variable::Kernel
            }
            (_, "weight_hh") => {
                if rank == 2 {
                    order = turned();
                }
                Variable::Recurrent
            }
            (_, "bias" | "bias_ih") => Variable::Bias,
            _ => return None,
        };
        Some(KerasVariable { variable, weights: vec![name.to_owned()], own: own.to_vec(), dims, order })
    }
}

/// The variables that a layer of a class can have.
fn variables_of(class: &str) -> &'static [Variable] {
    use Variable as V;
    match class {
        "Embedding" => &[V::Embeddings],
        "BatchNormalization" | "LayerNormalization" => &[V::Gamma, V::Beta],
        "PReLU" => &[V::Alpha],
        "Attention" | "AdditiveAttention" | "ActivityRegularization" => &[],
        "Dense" | "Conv1D" | "Conv2D" | "Conv1DTranspose" | "Conv2DTranspose" => &[V::Kernel, V::Bias],
        "DepthwiseConv1D" | "DepthwiseConv2D" => &[V::Depthwise, V::Bias],
        "SeparableConv1D" | "SeparableConv2D" => &[V::Depthwise, V::Pointwise, V::Bias],
        _ => &[V::Kernel, V::Recurrent, V::Bias],
    }
}

/// A variable of Keras's: one weight, or two that are its rows.
#[derive(Clone, Debug)]
pub(crate) struct KerasVariable {
    pub(crate) variable: Variable,
    pub(crate) weights: Vec<String>,
    /// The dimensions of each weight.
    pub(crate) own: Vec<usize>,
    /// The dimensions of the whole, with the axes of Recurve.
    pub(crate) dims: Vec<usize>,
    /// For each axis of Keras's its place among these.
    pub(crate) order: Vec<usize>,
}

impl KerasVariable {
    /// The dimensions that the variable has in Keras.
    pub(crate) fn keras_dims(&self) -> Vec<usize> {
        self.order.iter().map(|&n| self.dims[n]).collect()
    }

    /// Keras's name of the variable in a layer of this class.
    pub(crate) fn name(&self, class: &str) -> &'static str {
        match self.variable {
            Variable::Recurrent => "recurrent_kernel",
            Variable::Bias => "bias",
            Variable::Embeddings => "embeddings",
            Variable::Gamma => "gamma",
            Variable::Beta => "beta",
            Variable::Alpha => "alpha",
            Variable::Depthwise if class.starts_with("Separable") => "depthwise_kernel",
            Variable::Pointwise => "pointwise_kernel",
            Variable::Kernel | Variable::Depthwise => "kernel",
        }
    }

    /// What an initializer draws for it, in Keras's layout. The fans are those that Keras finds.
    fn draw(&self, how: Initializer, rng: &mut ChaCha8Rng) -> Result<Vec<f32>> {
        let dims = self.keras_dims();
        let rank = dims.len();
        if rank < 2 {
            return Ok(how.kernel(&dims, dims[0], rng)?);
        }
        // An initializer has the outputs and inputs before the axes of a window.
        let turned: Vec<usize> = [rank - 1, rank - 2].into_iter().chain(0..rank - 2).collect();
        let sizes: Vec<usize> = turned.iter().map(|&n| dims[n]).collect();
        let drawn = how.kernel(&sizes, sizes[1], rng)?;
        let back: Vec<usize> = (2..rank).chain([1, 0]).collect();
        permuted(&drawn, &sizes, &back)
    }

    /// Whether it is a weight as it is.
    pub(crate) fn is_weight(&self) -> bool {
        self.weights.len() == 1 && self.own == self.dims
    }

    /// The shape of each weight as a part of the whole.
    pub(crate) fn part(&self) -> ops::Reshape {
        let first = if self.weights.len() > 1 { 1 } else { self.dims[0] };
        let dims = std::iter::once(first).chain(self.dims[1..].iter().copied());
        ops::Reshape(dims.map(Extent::Size).collect())
    }

    /// Adds the whole to a graph, with the axes of Recurve.
    pub(crate) fn joined(&self, layer: &str, into: &mut Lowering) -> String {
        if self.is_weight() {
            return self.weights[0].clone();
        }
        let parts: Vec<String> = self.weights.iter().map(|w| into.node(layer, self.part(), &[w])).collect();
        match &parts[..] {
            [one] => one.clone(),
            many => {
                let many: Vec<&str> = many.iter().map(String::as_str).collect();
                into.node(layer, ops::Concat { axis: 0 }, &many)
            }
        }
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

/// Methods of a builder for the options of its weights: those of all layers, and for each of its variables a regularizer
/// and a constraint. `$spec` is the field that holds them, if they are not fields of the builder itself.
macro_rules! weight_setters {
    ($(. $spec:tt)? $($variable:ident $regularizer:ident $constraint:ident),*) => {
        fn own_options(&mut self) -> &mut crate::WeightOptions {
            &mut self$(.$spec)?.weight_options
        }
        /// Whether training changes the weights, which is the default.
        #[must_use]
        pub fn trainable(mut self, on: bool) -> Self {
            self.own_options().trainable = on;
            self
        }
        /// A penalty for the outputs of each call, divided by the number of sequences.
        #[must_use]
        pub fn activity_regularizer(mut self, regularizer: crate::Regularizer) -> Self {
            self.own_options().activity_regularizer = Some(regularizer);
            self
        }
        $(
            #[doc = concat!("A penalty for its `", stringify!($variable), "`, as [`crate::Variable`] names it.")]
            #[must_use]
            pub fn $regularizer(mut self, regularizer: crate::Regularizer) -> Self {
                self.own_options().regularizers.insert(crate::Variable::$variable, regularizer);
                self
            }
            #[doc = concat!("What is made of its `", stringify!($variable), "` after each step.")]
            #[must_use]
            pub fn $constraint(mut self, constraint: crate::Constraint) -> Self {
                self.own_options().constraints.insert(crate::Variable::$variable, constraint);
                self
            }
        )*
    };
}
pub(crate) use weight_setters;
