//! Constants, and graphs inside nodes.

use super::prelude::*;
use crate::onnx::import::Opsets;
use crate::onnx::tensor;
use recurve_graph::{Constant, Int};

/// Brings a node into the graph, if it is one of these.
///
/// # Errors
/// Why it cannot be.
pub(super) fn lower(cx: &mut Context<'_>, node: &Node<'_>, _opsets: &Opsets) -> Lowered<bool> {
    match (node.domain(), node.operator()) {
        ("", "Constant") => constant(cx, node)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn constant(cx: &mut Context<'_>, node: &Node<'_>) -> Lowered {
    let (dims, numbers) = if let Some(t) = node.tensor("value") {
        tensor::constant(t, None)?
    } else if let Some(v) = node.float("value_float")? {
        (vec![], Constant::Float([v].into()))
    } else if let Some(v) = node.floats("value_floats") {
        (vec![v.len()], Constant::Float(v.into()))
    } else if let Some(v) = node.int("value_int")? {
        (vec![], Constant::Int(Int::I64, [v].into()))
    } else if let Some(v) = node.ints("value_ints") {
        (vec![v.len()], Constant::Int(Int::I64, v.into()))
    } else {
        return Err("has no value that is a tensor, a float or an integer".into());
    };
    let id = cx.constant(&dims, numbers)?;
    cx.bind(node, 0, id)
}
