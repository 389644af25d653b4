//! Products, convolutions, pooling, normalisation, reductions.

use super::prelude::*;

/// Brings a node into the graph, if it is one of these.
///
/// # Errors
/// Why it cannot be.
pub(super) fn lower(_cx: &mut Context<'_>, node: &Node<'_>) -> Lowered<bool> {
    match (node.domain(), node.operator()) {
        _ => return Ok(false),
    }
}
