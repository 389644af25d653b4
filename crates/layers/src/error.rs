//! What can go wrong with layers.

/// The result of a layer operation.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// What went wrong with a layer or a network.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A device or a tensor.
    #[error(transparent)]
    Tensor(#[from] recurve_tensor::Error),
    /// A file of weights.
    #[error(transparent)]
    File(#[from] recurve_weights::Error),
    /// The graph that the layers make.
    #[error(transparent)]
    Graph(recurve_graph::Error),
    /// An input does not fit a layer.
    #[error("layer `{layer}`: the input must be {expected}, but its shape is {got}")]
    Input {
        /// The layer's name.
        layer: String,
        /// The shape wanted, in words.
        expected: String,
        /// The shape that came; `None` stands for any size.
        got: String,
    },
    /// An option of a layer has a value that it cannot take.
    #[error("layer `{layer}`: `{argument}` {message}")]
    Option {
        /// The layer's name.
        layer: String,
        /// The option.
        argument: &'static str,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// A weight is not there.
    #[error("weight `{name}` is missing; there is {available}")]
    MissingWeight {
        /// Its name.
        name: String,
        /// What there is, abbreviated.
        available: String,
    },
    /// A weight that no layer uses.
    #[error("weight `{name}` belongs to no layer")]
    ExtraWeight {
        /// Its name.
        name: String,
    },
    /// A weight has another shape than its layer needs.
    #[error("weight `{name}` must have shape {expected:?}, but it has {got:?}")]
    WeightShape {
        /// Its name.
        name: String,
        /// The shape wanted.
        expected: Vec<usize>,
        /// The shape that came.
        got: Vec<usize>,
    },
    /// A weight has another number of dimensions than its layer needs.
    #[error("weight `{name}` must have {expected} dimensions, but its shape is {got:?}")]
    WeightRank {
        /// Its name.
        name: String,
        /// The number of dimensions wanted.
        expected: usize,
        /// The shape that came.
        got: Vec<usize>,
    },
    /// A weight that belongs to a variant of the cell which is not supported.
    #[error("weight `{name}` belongs to {feature}, which is not supported")]
    Unsupported {
        /// Its name.
        name: String,
        /// The variant.
        feature: &'static str,
    },
}

impl From<recurve_graph::Error> for Error {
    /// What an operation refused is the caller's own: which node ran it is a matter of the network.
    fn from(e: recurve_graph::Error) -> Self {
        match e {
            recurve_graph::Error::Run { source, .. } | recurve_graph::Error::Tensor(source) => Self::Tensor(source),
            other => Self::Graph(other),
        }
    }
}
