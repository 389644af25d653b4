//! What every kind of layer says about itself, and the one place where the kinds are told apart.

use crate::config::one_input;
use crate::lowering::{Flow, Lowered, Lowering, Place};
use crate::summary::show;
use crate::{
    Add, Average, Concatenate, Dense, Dropout, Embedding, Error, Initializer, Masking, Multiply, RecurrentSpec, Result,
    StackedRnnCells, Subtract, TimeDistributed, Weights, init,
};
use serde::{Deserialize, Serialize};

/// A shape, `None` standing for any size.
pub(crate) type Shape = [Option<usize>];

/// What every kind of layer says about itself. `name` is the layer's, for errors; `shape` is that of its input;
/// `features` is what [`Self::features`] says of it.
pub(crate) trait LayerModule {
    /// Keras's name of the class.
    fn class_name(&self) -> &'static str;

    /// The size of the last dimension of the input (of an [`Embedding`] the number of ids), where the input fits.
    ///
    /// # Errors
    /// [`Error::Input`] if it does not, [`Error::Option`] if the description contradicts itself.
    fn features(&self, name: &str, shape: &Shape) -> Result<usize>;

    /// Names and shapes of the weights.
    fn weights(&self, features: usize, prefix: &str) -> Vec<(String, Vec<usize>)>;

    /// Fresh weights: matrices by Glorot and Bengio, vectors zero, unless a layer has ways of its own.
    ///
    /// # Errors
    /// Lack of memory.
    fn initialize(&self, features: usize, prefix: &str, seed: u64, into: &mut Weights) -> Result<()> {
        initialize(self.weights(features, prefix), Initializer::GlorotUniform, seed, into)
    }

    /// The shapes that come out.
    ///
    /// # Errors
    /// As [`Self::features`].
    fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>>;

    /// The shapes that come out, for all that goes in: one input, unless a layer says otherwise.
    ///
    /// # Errors
    /// As [`Self::features`]; [`Error::Option`] for another number of inputs.
    fn all_output_shapes(&self, name: &str, shapes: &[&Shape]) -> Result<Vec<Vec<Option<usize>>>> {
        self.output_shapes(name, one_input(name, shapes)?)
    }

    /// Adds its nodes to a graph.
    ///
    /// # Errors
    /// [`Error::Option`] if the description contradicts itself.
    fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered>;

    /// Whether the output has a time dimension.
    fn keeps_time(&self) -> bool {
        true
    }

    /// Whether it reads `[T, B, …]`.
    fn time_major(&self) -> bool {
        false
    }

    /// Whether ids go in.
    fn takes_ids(&self) -> bool {
        false
    }

    /// Whether it or a layer inside it begins with the state of the call before.
    fn is_stateful(&self) -> bool {
        false
    }

    /// Whether a single timestep can run.
    ///
    /// # Errors
    /// [`Error::Option`] if it cannot.
    fn check_step(&self, _name: &str) -> Result<()> {
        Ok(())
    }

    /// Whether rows of a batch can be streams of their own, whose states the caller keeps.
    ///
    /// # Errors
    /// [`Error::Option`] for what finds padding by itself, or remembers what the caller cannot keep.
    fn check_streams(&self, _name: &str) -> Result<()> {
        Ok(())
    }
}

/// Fresh weights: matrices as `how` says, vectors zero.
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

/// The features of a sequence.
pub(crate) fn sequence(name: &str, time_major: bool, shape: &Shape) -> Result<usize> {
    match shape {
        &[_, _, Some(f)] => Ok(f),
        _ if time_major => Err(bad_input(name, "[timesteps, batch, features] with known features", shape)),
        _ => Err(bad_input(name, "[batch, timesteps, features] with known features", shape)),
    }
}

/// A layer of a network as data.
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
    /// What this kind of layer says about itself.
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

    /// Keras's name of the class.
    pub fn class_name(&self) -> &'static str {
        self.module().class_name()
    }
}

/// Whether a field has the value that files leave out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
