//! The operators, by groups. Each function says whether the operator is one of its own.

mod compute;
mod control;
mod elementwise;
mod recurrent;
mod shape;

use super::import::{Context, Lowered, Opsets};
use super::node::Node;

/// Brings a node into the graph.
///
/// # Errors
/// Why it cannot be.
pub(super) fn lower(cx: &mut Context<'_>, node: &Node<'_>, opsets: &Opsets) -> Lowered {
    let known = elementwise::lower(cx, node)?
        || shape::lower(cx, node)?
        || compute::lower(cx, node)?
        || recurrent::lower(cx, node)?
        || control::lower(cx, node, opsets)?;
    if known { Ok(()) } else { Err("is an operator that is not supported".into()) }
}

/// What every group's file begins with.
mod prelude {
    pub(super) use crate::onnx::import::{Context, Lowered};
    pub(super) use crate::onnx::node::Node;
    pub(super) use recurve_graph::ops;
}
