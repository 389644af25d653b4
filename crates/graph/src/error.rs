//! What can go wrong with graphs.

/// The result of an operation on graphs.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// What went wrong with a graph.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operation of a node failed.
    #[error("node `{node}` ({operator}): {source}")]
    Run {
        /// The node.
        node: String,
        /// Its operator.
        operator: &'static str,
        /// The reason.
        source: recurve_tensor::Error,
    },
    /// An error of a device or a tensor outside any node.
    #[error(transparent)]
    Tensor(#[from] recurve_tensor::Error),
    /// The type or shape of a node's input is wrong.
    #[error("node `{node}` ({operator}): `{input}` must be {expected}, but it is {got}")]
    Operand {
        /// The node.
        node: String,
        /// Its operator.
        operator: &'static str,
        /// The name of the input.
        input: &'static str,
        /// The type or shape it must have, in words.
        expected: String,
        /// The type it has, or that it is missing.
        got: String,
    },
    /// An attribute of a node has an invalid value.
    #[error("node `{node}` ({operator}): `{attribute}` {message}")]
    Attribute {
        /// The node.
        node: String,
        /// Its operator.
        operator: &'static str,
        /// The attribute.
        attribute: &'static str,
        /// What is wrong with the value, and which values are valid.
        message: String,
    },
    /// A node has the wrong number of inputs or outputs.
    #[error("node `{node}` ({operator}) must have {expected} {what}, but it has {got}")]
    Arity {
        /// The node.
        node: String,
        /// Its operator.
        operator: &'static str,
        /// `inputs` or `outputs`.
        what: &'static str,
        /// How many it must have.
        expected: String,
        /// How many it has.
        got: usize,
    },
    /// A value is used, but no input, parameter, constant or node defines it.
    #[error("`{user}` needs the value `{value}`, which nothing defines")]
    MissingValue {
        /// The node that uses it, or the graph if it is one of the graph's outputs.
        user: String,
        /// The value.
        value: String,
    },
    /// Two values have the same name.
    #[error("the value `{value}` is defined twice: by {first} and by {second}")]
    Duplicate {
        /// The name.
        value: String,
        /// What defines it first.
        first: String,
        /// What defines it again.
        second: String,
    },
    /// Nodes depend on each other in a cycle.
    #[error("the nodes {} form a cycle", show(nodes))]
    Cycle {
        /// Their names, in the order of the cycle.
        nodes: Vec<String>,
    },
    /// A graph without outputs, which would compute nothing.
    #[error("the graph has no outputs")]
    NoOutputs,
    /// An input given to a run is missing or has the wrong type or shape.
    #[error("the input `{name}` must be {expected}, but it is {got}")]
    Input {
        /// Its name.
        name: String,
        /// The type and shape it must have.
        expected: String,
        /// The type and shape it has, or that it is missing.
        got: String,
    },
    /// A parameter that the graph needs was not given.
    #[error("the parameter `{name}` is missing")]
    MissingParameter {
        /// Its name.
        name: String,
    },
    /// The gradient of a node is needed, but cannot be computed.
    #[error("node `{node}` ({operator}) has no gradient: {reason}")]
    NoGradient {
        /// The node.
        node: String,
        /// Its operator.
        operator: &'static str,
        /// Why there is none.
        reason: String,
    },
    /// The parameter to replace does not exist in the graph.
    #[error("the graph has no parameter `{name}`")]
    UnknownParameter {
        /// Its name.
        name: String,
    },
    /// A parameter does not have the shape that the graph states.
    #[error("the parameter `{name}` must have shape {expected:?}, but it has {got:?}")]
    ParameterShape {
        /// Its name.
        name: String,
        /// The shape that the graph states.
        expected: Vec<usize>,
        /// The shape of the weight that was given.
        got: Vec<usize>,
    },
}

/// A list of names for a message; of a long list only the first few.
fn show(names: &[String]) -> String {
    const MOST: usize = 8;
    let shown: Vec<_> = names.iter().take(MOST).map(|n| format!("`{n}`")).collect();
    match names.len().checked_sub(MOST) {
        Some(more @ 1..) => format!("{} and {more} more", shown.join(", ")),
        _ => shown.join(", "),
    }
}
