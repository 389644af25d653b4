//! What can go wrong with graphs.

/// The result of an operation on graphs.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// What went wrong with a graph.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A node could not run.
    #[error("node `{node}` ({operator}): {source}")]
    Run {
        /// The node.
        node: String,
        /// Its operator.
        operator: &'static str,
        /// The reason.
        source: recurve_tensor::Error,
    },
    /// A device or a tensor, outside any node.
    #[error(transparent)]
    Tensor(#[from] recurve_tensor::Error),
    /// A value does not fit a node.
    #[error("node `{node}` ({operator}): `{input}` must be {expected}, but it is {got}")]
    Operand {
        /// The node.
        node: String,
        /// Its operator.
        operator: &'static str,
        /// The operand.
        input: &'static str,
        /// What is wanted, in words.
        expected: String,
        /// The type that came, or nothing.
        got: String,
    },
    /// An attribute of a node has a value that it cannot have.
    #[error("node `{node}` ({operator}): `{attribute}` {message}")]
    Attribute {
        /// The node.
        node: String,
        /// Its operator.
        operator: &'static str,
        /// The attribute.
        attribute: &'static str,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// A node has another number of inputs or outputs than its operator.
    #[error("node `{node}` ({operator}) must have {expected} {what}, but it has {got}")]
    Arity {
        /// The node.
        node: String,
        /// Its operator.
        operator: &'static str,
        /// Inputs or outputs.
        what: &'static str,
        /// How many it must have.
        expected: String,
        /// How many it has.
        got: usize,
    },
    /// Nothing makes a value that something uses.
    #[error("`{user}` needs the value `{value}`, which nothing makes")]
    MissingValue {
        /// The node, or the graph where an output is meant.
        user: String,
        /// The value.
        value: String,
    },
    /// Two values have the same name.
    #[error("the value `{value}` is made twice: by {first} and by {second}")]
    Duplicate {
        /// The name.
        value: String,
        /// Who made it first.
        first: String,
        /// Who made it again.
        second: String,
    },
    /// Nodes need each other's values.
    #[error("the nodes {} form a cycle", show(nodes))]
    Cycle {
        /// They, in the order of the cycle.
        nodes: Vec<String>,
    },
    /// A graph without outputs computes nothing.
    #[error("the graph has no outputs")]
    NoOutputs,
    /// An input of a run is missing or does not fit.
    #[error("the input `{name}` must be {expected}, but it is {got}")]
    Input {
        /// Its name.
        name: String,
        /// What is wanted.
        expected: String,
        /// What came.
        got: String,
    },
    /// A parameter is not there.
    #[error("the parameter `{name}` is missing")]
    MissingParameter {
        /// Its name.
        name: String,
    },
    /// A parameter is to be replaced that the graph does not have.
    #[error("the graph has no parameter `{name}`")]
    UnknownParameter {
        /// Its name.
        name: String,
    },
    /// A parameter has another shape than the graph says.
    #[error("the parameter `{name}` must have shape {expected:?}, but it has {got:?}")]
    ParameterShape {
        /// Its name.
        name: String,
        /// The shape wanted.
        expected: Vec<usize>,
        /// The shape that came.
        got: Vec<usize>,
    },
}

/// Names, of many of them the first.
fn show(names: &[String]) -> String {
    const MOST: usize = 8;
    let shown: Vec<_> = names.iter().take(MOST).map(|n| format!("`{n}`")).collect();
    match names.len().checked_sub(MOST) {
        Some(more @ 1..) => format!("{} and {more} more", shown.join(", ")),
        _ => shown.join(", "),
    }
}
