//! The trait that every kind of layer implements, and the enum of all kinds.

use crate::config::one_input;
use crate::lowering::{Flow, Lowered, Lowering, Place};
use crate::summary::show;
use crate::{
    Add, Average, Concatenate, Dense, Dropout, Embedding, Error, Initializer, Masking, Multiply, RecurrentSpec, Result,
    StackedRnnCells, Subtract, TimeDistributed, Weights, init,
};
use serde::{Deserialize, Serialize};

/// A shape; `None` stands for any size.
pub(crate) type Shape = [Option<usize>];

/// What every kind of layer implements. In the methods, `name` is the layer's name for error messages, `shape` is the
/// shape of its input, and `features` is the result of [`Self::features`].
pub(crate) trait LayerModule {
    /// The name of Keras's class.
    fn class_name(&self) -> &'static str;

    /// The size of the last dimension of the input; for an [`Embedding`] the number of ids. Checks the input's shape.
    ///
    /// # Errors
    /// [`Error::Input`] if the shape does not suit the layer, [`Error::Option`] if options contradict each other.
    fn features(&self, name: &str, shape: &Shape) -> Result<usize>;

    /// The names and shapes of the weights.
    fn weights(&self, features: usize, prefix: &str) -> Vec<(String, Vec<usize>)>;

    /// Makes initial weights. By default matrices are Glorot-uniform and vectors zero.
    ///
    /// # Errors
    /// Out of memory.
    fn initialize(&self, features: usize, prefix: &str, seed: u64, into: &mut Weights) -> Result<()> {
        initialize(self.weights(features, prefix), Initializer::GlorotUniform, seed, into)
    }

    /// The shapes of the outputs.
    ///
    /// # Errors
    /// As [`Self::features`].
    fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>>;

    /// The shapes of the outputs for all inputs. By default a layer has one input.
    ///
    /// # Errors
    /// As [`Self::features`]; [`Error::Option`] for a wrong number of inputs.
    fn all_output_shapes(&self, name: &str, shapes: &[&Shape]) -> Result<Vec<Vec<Option<usize>>>> {
        self.output_shapes(name, one_input(name, shapes)?)
    }

    /// Adds the layer's nodes to a graph.
    ///
    /// # Errors
    /// [`Error::Option`] if options contradict each other.
    fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered>;

    /// Whether the output has a time dimension.
    fn keeps_time(&self) -> bool {
        true
    }

    /// Whether its input is `[T, B, …]`.
    fn time_major(&self) -> bool {
        false
    }

    /// Whether its input is ids.
    fn takes_ids(&self) -> bool {
        false
    }

    /// Whether it, or a layer inside it, starts with the state of the previous call.
    fn is_stateful(&self) -> bool {
        false
    }

    /// Checks that the layer can run a single timestep.
    ///
    /// # Errors
    /// [`Error::Option`] if it cannot.
    fn check_step(&self, _name: &str) -> Result<()> {
        Ok(())
    }

    /// Checks that rows of a batch can be separate streams whose states the caller keeps.
    ///
    /// # Errors
    /// [`Error::Option`] for a layer that computes a mask, or keeps a state that the caller cannot hold.
    fn check_streams(&self, _name: &str) -> Result<()> {
        Ok(())
    }
}

/// Makes initial weights: matrices by `how`, vectors zero.
pub(crate) fn initialize(
    shapes: Vec<(String, Vec<usize>)>,
    how: Initializer,
    seed: u64,
    into: &mut Weights,
) -> Result<()> {
    let mut rng = recurve_tensor::random::rng(seed);
    for (name, dims) in shapes {
        let data = match dims[..] {
            [r, c] => how.matrix(r, c, c, &mut rng)?,
            _ => init::zeros(&dims)?,
        };
        into.insert(name, &dims, data)?;
    }
    Ok(())
}

pub(crate) fn bad_input(name: &str, expected: &str, shape: &Shape) -> Error {
    Error::Input { layer: name.into(), expected: expected.into(), got: show(shape) }
}

pub(crate) fn bad_option(name: &str, argument: &'static str, message: impl Into<String>) -> Error {
    Error::Option { layer: name.into(), argument, message: message.into() }
}

/// The number of features of a sequence.
pub(crate) fn sequence(name: &str, time_major: bool, shape: &Shape) -> Result<usize> {
    match shape {
        &[_, _, Some(f)] => Ok(f),
        _ if time_major => Err(bad_input(name, "[timesteps, batch, features] with known features", shape)),
        _ => Err(bad_input(name, "[batch, timesteps, features] with known features", shape)),
    }
}

/// The description of a layer of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum LayerConfig {
    /// [`Embedding`]
    Embedding(Embedding),
    /// [`crate::SimpleRnn`], [`crate::Lstm`], [`crate::Gru`], [`crate::IndRnn`], [`crate::MinGru`],
    /// [`crate::MinLstm`], [`crate::SLstm`], [`crate::Bidirectional`]
    Recurrent(RecurrentSpec),
    /// [`StackedRnnCells`]
    StackedRnnCells(StackedRnnCells),
    /// [`TimeDistributed`]
    TimeDistributed(TimeDistributed),
    /// [`Masking`]
    Masking(Masking),
    /// [`Dense`]
    Dense(Dense),
    /// [`Dropout`]
    Dropout(Dropout),
    /// [`Concatenate`]
    Concatenate(Concatenate),
    /// [`Add`]
    Add(Add),
    /// [`Subtract`]
    Subtract(Subtract),
    /// [`Multiply`]
    Multiply(Multiply),
    /// [`Average`]
    Average(Average),
}

macro_rules! into_config {
    ($($name:ident),*) => { $(
        impl From<$name> for LayerConfig {
            fn from(l: $name) -> Self {
                Self::$name(l)
            }
        }
    )* };
}
into_config!(Embedding, StackedRnnCells, TimeDistributed, Masking, Dense, Dropout);
into_config!(Concatenate, Add, Subtract, Multiply, Average);

impl LayerConfig {
    /// The implementation of this kind of layer.
    pub(crate) fn module(&self) -> &dyn LayerModule {
        match self {
            Self::Embedding(l) => l,
            Self::Recurrent(l) => l,
            Self::StackedRnnCells(l) => l,
            Self::TimeDistributed(l) => l,
            Self::Masking(l) => l,
            Self::Dense(l) => l,
            Self::Dropout(l) => l,
            Self::Concatenate(l) => l,
            Self::Add(l) => l,
            Self::Subtract(l) => l,
            Self::Multiply(l) => l,
            Self::Average(l) => l,
        }
    }

    /// The name of Keras's class.
    pub fn class_name(&self) -> &'static str {
        self.module().class_name()
    }
}

/// Whether a field has its default value, which files leave out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
