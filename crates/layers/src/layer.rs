//! The trait that every kind of layer implements, and the enum of all kinds.

use crate::config::one_input;
use crate::lowering::{Flow, Lowered, Lowering, Place};
use crate::summary::show;
use crate::weight_options::WeightGroup;
use crate::{
    ActivationLayer, ActivityRegularization, Add, AdditiveAttention, AlphaDropout, Attention, Average,
    AveragePooling1d, AveragePooling2d, BatchNormalization, Concatenate, Conv1d, Conv1dTranspose, Conv2d,
    Conv2dTranspose, Cropping1d, Cropping2d, Dense, DepthwiseConv1d, DepthwiseConv2d, Dot, Dropout, Elu, Embedding,
    Error, Flatten, GaussianDropout, GaussianNoise, GlobalAveragePooling1d, GlobalAveragePooling2d, GlobalMaxPooling1d,
    GlobalMaxPooling2d, Initializer, LayerNormalization, LeakyRelu, Masking, MaxPooling1d, MaxPooling2d, Maximum,
    Minimum, Multiply, PRelu, Permute, RecurrentSpec, Relu, RepeatVector, Reshape, Result, SeparableConv1d,
    SeparableConv2d, Softmax, SpatialDropout1d, SpatialDropout2d, StackedRnnCells, Subtract, TimeDistributed,
    UpSampling1d, UpSampling2d, WeightOptions, Weights, ZeroPadding1d, ZeroPadding2d, init,
};
use recurve_vocabulary::CellKind;
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

    /// The names and shapes of the weights for inputs of these shapes, which [`Self::features`] has checked.
    fn weights(&self, _shapes: &[&Shape], _prefix: &str) -> Vec<(String, Vec<usize>)> {
        Vec::new()
    }

    /// How its own weights are trained; `None` for a layer that has none.
    fn weight_options(&self) -> Option<&WeightOptions> {
        None
    }

    /// The same, to be changed, with those of layers inside it.
    fn weight_options_mut(&mut self) -> Vec<&mut WeightOptions> {
        Vec::new()
    }

    /// The weights with their options, those of layers inside it too.
    fn weight_groups<'a>(&'a self, shapes: &[&Shape], prefix: &str) -> Vec<WeightGroup<'a>> {
        let group = |options| WeightGroup {
            options,
            class: self.class_name(),
            cell: self.cell_kind(),
            features: shapes.first().map_or(0, |shape| self.features("", shape).unwrap_or(0)),
            weights: self.weights(shapes, prefix),
        };
        self.weight_options().map(group).into_iter().collect()
    }

    /// The cell of a recurrent layer, whose gates Keras may have in another order.
    fn cell_kind(&self) -> Option<CellKind> {
        None
    }

    /// Whether [`Self::lower`] adds the penalty for its outputs itself.
    fn adds_penalty(&self) -> bool {
        false
    }

    /// Makes initial weights. By default matrices and kernels are Glorot-uniform and vectors zero.
    ///
    /// # Errors
    /// Out of memory.
    fn initialize(&self, shapes: &[&Shape], prefix: &str, seed: u64, into: &mut Weights) -> Result<()> {
        initialize(self.weights(shapes, prefix), Initializer::GlorotUniform, seed, into)
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

    /// Whether each timestep of the output depends on the same timestep of the inputs alone, and of a recurrent layer on
    /// its state.
    fn per_timestep(&self) -> bool {
        true
    }

    /// Whether axis 1 of the output (axis 0 in a time-major network) is the timesteps of the network's input, for these
    /// inputs.
    fn keeps_time(&self, x: &Flow) -> bool {
        self.per_timestep() && x.time && x.others.iter().all(|o| o.time)
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
    fn check_step(&self, name: &str) -> Result<()> {
        if self.per_timestep() {
            return Ok(());
        }
        let message = format!("cannot run a single timestep: {} reads several at once", self.class_name());
        Err(bad_option(name, "step", message))
    }

    /// Checks that rows of a batch can be separate streams whose states the caller keeps.
    ///
    /// # Errors
    /// [`Error::Option`] for a layer that computes a mask, or keeps a state that the caller cannot hold.
    fn check_streams(&self, _name: &str) -> Result<()> {
        Ok(())
    }
}

/// Makes initial weights: matrices and kernels by `how`, vectors zero.
pub(crate) fn initialize(
    shapes: Vec<(String, Vec<usize>)>,
    how: Initializer,
    seed: u64,
    into: &mut Weights,
) -> Result<()> {
    let mut rng = recurve_tensor::random::rng(seed);
    for (name, dims) in shapes {
        let data = match dims[..] {
            [_, _, ..] => how.kernel(&dims, dims[1], &mut rng)?,
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

/// The size of the last dimension of the first input, which [`LayerModule::features`] has checked.
pub(crate) fn last(shapes: &[&Shape]) -> usize {
    shapes[0].last().copied().flatten().expect("checked to have known features")
}

/// The place of an axis that may count from the end and is not the batch.
pub(crate) fn axis_of(name: &str, argument: &'static str, axis: isize, rank: usize) -> Result<usize> {
    let place = if axis < 0 { axis.checked_add_unsigned(rank) } else { Some(axis) };
    match place.and_then(|a| usize::try_from(a).ok()) {
        Some(place) if place > 0 && place < rank => Ok(place),
        _ => {
            let message = format!("must be one of {rank} axes except the first, the batch, but it is {axis}");
            Err(bad_option(name, argument, message))
        }
    }
}

/// For `#[serde(default)]` and `skip_serializing_if` of a field that is usually set.
pub(crate) fn yes() -> bool {
    true
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
pub(crate) fn is_yes(b: &bool) -> bool {
    *b
}
/// The same for an axis that is usually the last.
pub(crate) fn last_axis() -> isize {
    -1
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
pub(crate) fn is_last(axis: &isize) -> bool {
    *axis == -1
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
    /// [`SpatialDropout1d`]
    SpatialDropout1d(SpatialDropout1d),
    /// [`SpatialDropout2d`]
    SpatialDropout2d(SpatialDropout2d),
    /// [`GaussianNoise`]
    GaussianNoise(GaussianNoise),
    /// [`GaussianDropout`]
    GaussianDropout(GaussianDropout),
    /// [`AlphaDropout`]
    AlphaDropout(AlphaDropout),
    /// [`Conv1d`]
    Conv1d(Conv1d),
    /// [`Conv2d`]
    Conv2d(Conv2d),
    /// [`Conv1dTranspose`]
    Conv1dTranspose(Conv1dTranspose),
    /// [`Conv2dTranspose`]
    Conv2dTranspose(Conv2dTranspose),
    /// [`DepthwiseConv1d`]
    DepthwiseConv1d(DepthwiseConv1d),
    /// [`DepthwiseConv2d`]
    DepthwiseConv2d(DepthwiseConv2d),
    /// [`SeparableConv1d`]
    SeparableConv1d(SeparableConv1d),
    /// [`SeparableConv2d`]
    SeparableConv2d(SeparableConv2d),
    /// [`MaxPooling1d`]
    MaxPooling1d(MaxPooling1d),
    /// [`MaxPooling2d`]
    MaxPooling2d(MaxPooling2d),
    /// [`AveragePooling1d`]
    AveragePooling1d(AveragePooling1d),
    /// [`AveragePooling2d`]
    AveragePooling2d(AveragePooling2d),
    /// [`GlobalMaxPooling1d`]
    GlobalMaxPooling1d(GlobalMaxPooling1d),
    /// [`GlobalMaxPooling2d`]
    GlobalMaxPooling2d(GlobalMaxPooling2d),
    /// [`GlobalAveragePooling1d`]
    GlobalAveragePooling1d(GlobalAveragePooling1d),
    /// [`GlobalAveragePooling2d`]
    GlobalAveragePooling2d(GlobalAveragePooling2d),
    /// [`ZeroPadding1d`]
    ZeroPadding1d(ZeroPadding1d),
    /// [`ZeroPadding2d`]
    ZeroPadding2d(ZeroPadding2d),
    /// [`Cropping1d`]
    Cropping1d(Cropping1d),
    /// [`Cropping2d`]
    Cropping2d(Cropping2d),
    /// [`UpSampling1d`]
    UpSampling1d(UpSampling1d),
    /// [`UpSampling2d`]
    UpSampling2d(UpSampling2d),
    /// [`BatchNormalization`]
    BatchNormalization(BatchNormalization),
    /// [`LayerNormalization`]
    LayerNormalization(LayerNormalization),
    /// [`Flatten`]
    Flatten(Flatten),
    /// [`Reshape`]
    Reshape(Reshape),
    /// [`Permute`]
    Permute(Permute),
    /// [`RepeatVector`]
    RepeatVector(RepeatVector),
    /// [`ActivityRegularization`]
    ActivityRegularization(ActivityRegularization),
    /// [`ActivationLayer`]
    Activation(ActivationLayer),
    /// [`LeakyRelu`]
    LeakyRelu(LeakyRelu),
    /// [`PRelu`]
    PRelu(PRelu),
    /// [`Elu`]
    Elu(Elu),
    /// [`Relu`]
    Relu(Relu),
    /// [`Softmax`]
    Softmax(Softmax),
    /// [`Attention`]
    Attention(Attention),
    /// [`AdditiveAttention`]
    AdditiveAttention(AdditiveAttention),
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
    /// [`Maximum`]
    Maximum(Maximum),
    /// [`Minimum`]
    Minimum(Minimum),
    /// [`Dot`]
    Dot(Dot),
}

/// Methods of a builder, each of which sets the field of its name.
macro_rules! setters {
    ($($(#[$doc:meta])* $field:ident: $type:ty;)*) => { $(
        $(#[$doc])*
        #[must_use]
        pub fn $field(mut self, $field: $type) -> Self {
            self.$field = $field;
            self
        }
    )* };
}
pub(crate) use setters;

macro_rules! into_config {
    ($($name:ident),*) => { $(
        impl From<$name> for LayerConfig {
            fn from(l: $name) -> Self {
                Self::$name(l)
            }
        }
    )* };
}
into_config!(ActivityRegularization, Embedding, StackedRnnCells, TimeDistributed, Masking);
into_config!(Dense, Dropout, SpatialDropout1d, SpatialDropout2d, GaussianNoise, GaussianDropout, AlphaDropout);
into_config!(
    Conv1d,
    Conv2d,
    Conv1dTranspose,
    Conv2dTranspose,
    DepthwiseConv1d,
    DepthwiseConv2d,
    SeparableConv1d,
    SeparableConv2d
);
into_config!(MaxPooling1d, MaxPooling2d, AveragePooling1d, AveragePooling2d);
into_config!(GlobalMaxPooling1d, GlobalMaxPooling2d, GlobalAveragePooling1d, GlobalAveragePooling2d);
into_config!(ZeroPadding1d, ZeroPadding2d, Cropping1d, Cropping2d, UpSampling1d, UpSampling2d);
into_config!(BatchNormalization, LayerNormalization);
into_config!(Flatten, Reshape, Permute, RepeatVector);
into_config!(LeakyRelu, PRelu, Elu, Relu, Softmax);
into_config!(Attention, AdditiveAttention);
into_config!(Concatenate, Add, Subtract, Multiply, Average, Maximum, Minimum, Dot);

impl From<ActivationLayer> for LayerConfig {
    fn from(l: ActivationLayer) -> Self {
        Self::Activation(l)
    }
}

/// The implementation of each kind of layer.
macro_rules! kinds {
    ($($kind:ident),*) => {
        /// The implementation of this kind of layer.
        pub(crate) fn module(&self) -> &dyn LayerModule {
            match self {
                $(Self::$kind(l) => l,)*
            }
        }
        /// The same, to change its options.
        pub(crate) fn module_mut(&mut self) -> &mut dyn LayerModule {
            match self {
                $(Self::$kind(l) => l,)*
            }
        }
    };
}

impl LayerConfig {
    kinds!(
        Embedding,
        Recurrent,
        StackedRnnCells,
        TimeDistributed,
        Masking,
        Dense,
        Dropout,
        SpatialDropout1d,
        SpatialDropout2d,
        GaussianNoise,
        GaussianDropout,
        AlphaDropout,
        Conv1d,
        Conv2d,
        Conv1dTranspose,
        Conv2dTranspose,
        DepthwiseConv1d,
        DepthwiseConv2d,
        SeparableConv1d,
        SeparableConv2d,
        MaxPooling1d,
        MaxPooling2d,
        AveragePooling1d,
        AveragePooling2d,
        GlobalMaxPooling1d,
        GlobalMaxPooling2d,
        GlobalAveragePooling1d,
        GlobalAveragePooling2d,
        ZeroPadding1d,
        ZeroPadding2d,
        Cropping1d,
        Cropping2d,
        UpSampling1d,
        UpSampling2d,
        BatchNormalization,
        LayerNormalization,
        Flatten,
        Reshape,
        Permute,
        RepeatVector,
        ActivityRegularization,
        Activation,
        LeakyRelu,
        PRelu,
        Elu,
        Relu,
        Softmax,
        Attention,
        AdditiveAttention,
        Concatenate,
        Add,
        Subtract,
        Multiply,
        Average,
        Maximum,
        Minimum,
        Dot
    );

    /// Whether training changes its weights, those of layers inside it too.
    #[must_use]
    pub fn trainable(mut self, on: bool) -> Self {
        self.weight_options_mut().into_iter().for_each(|o| o.trainable = on);
        self
    }

    /// The options of its weights, those of layers inside it too.
    pub fn weight_options_mut(&mut self) -> Vec<&mut WeightOptions> {
        self.module_mut().weight_options_mut()
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
