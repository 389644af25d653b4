//! What can go wrong with layers.

use recurve_tensor::Tensor;

/// The result of a layer operation.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// What went wrong with a layer or a network.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error of a device or a tensor.
    #[error(transparent)]
    Tensor(#[from] recurve_tensor::Error),
    /// An error of a file of weights.
    #[error(transparent)]
    File(#[from] recurve_weights::Error),
    /// An error of the graph that the layers make.
    #[error(transparent)]
    Graph(recurve_graph::Error),
    /// The device has too little memory for a call.
    #[error(
        "inputs of shape {shapes} need too much memory: {source}; lower the batch size or the number of timesteps of a \
         call (`forward_from` goes on where another call ended)"
    )]
    OutOfMemory {
        /// The shapes of the inputs.
        shapes: String,
        /// What did not fit: [`recurve_tensor::Error::OutOfMemory`] or [`recurve_tensor::Error::TooLarge`].
        source: recurve_tensor::Error,
    },
    /// The shape of an input does not suit a layer.
    #[error("layer `{layer}`: the input must be {expected}, but its shape is {got}")]
    Input {
        /// The layer's name.
        layer: String,
        /// The required shape, in words.
        expected: String,
        /// The shape of the input; `None` stands for any size.
        got: String,
    },
    /// An option of a layer has an invalid value.
    #[error("layer `{layer}`: `{argument}` {message}")]
    Option {
        /// The layer's name.
        layer: String,
        /// The option.
        argument: &'static str,
        /// What is wrong with the value, and which values are valid.
        message: String,
    },
    /// A required weight is missing.
    #[error("weight `{name}` is missing; there is {available}")]
    MissingWeight {
        /// Its name.
        name: String,
        /// The names of the weights that were given, abbreviated.
        available: String,
    },
    /// A weight is not used by any layer.
    #[error("weight `{name}` belongs to no layer")]
    ExtraWeight {
        /// Its name.
        name: String,
    },
    /// A weight does not have the shape that its layer needs.
    #[error("weight `{name}` must have shape {expected:?}, but it has {got:?}")]
    WeightShape {
        /// Its name.
        name: String,
        /// The required shape.
        expected: Vec<usize>,
        /// The shape of the weight.
        got: Vec<usize>,
    },
    /// A weight does not have the number of dimensions that its layer needs.
    #[error("weight `{name}` must have {expected} dimensions, but its shape is {got:?}")]
    WeightRank {
        /// Its name.
        name: String,
        /// The required number of dimensions.
        expected: usize,
        /// The shape of the weight.
        got: Vec<usize>,
    },
    /// A weight belongs to a variant of the cell that is not supported.
    #[error("weight `{name}` belongs to {feature}, which is not supported")]
    Unsupported {
        /// Its name.
        name: String,
        /// The variant.
        feature: &'static str,
    },
}

impl From<recurve_graph::Error> for Error {
    /// Errors of an operation are returned as they are, without the name of the node that ran it.
    fn from(e: recurve_graph::Error) -> Self {
        match e {
            recurve_graph::Error::Run { source, .. } | recurve_graph::Error::Tensor(source) => Self::Tensor(source),
            other => Self::Graph(other),
        }
    }
}

impl Error {
    /// The error of a call with these inputs: lack of memory names their shapes.
    pub(crate) fn of_call(self, inputs: &[&Tensor]) -> Self {
        match self {
            Self::Tensor(source) if source.is_lack_of_memory() => {
                let shapes = inputs.iter().map(|x| x.shape().to_string()).collect::<Vec<_>>().join(", ");
                Self::OutOfMemory { shapes, source }
            }
            other => other,
        }
    }
}
