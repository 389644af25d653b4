//! Constants, and graphs inside nodes.

use super::prelude::*;
use crate::onnx::import::{Inner, Opsets};
use crate::onnx::tensor;
use recurve_graph::ops::ScanAxis;
use recurve_graph::{Assembly, Constant, Dim, Element, Int, ValueId, ValueType};
use std::sync::Arc;

/// Brings a node into the graph, if it is one of these.
///
/// # Errors
/// Why it cannot be.
pub(super) fn lower(cx: &mut Context<'_>, node: &Node<'_>, opsets: &Opsets) -> Lowered<bool> {
    match (node.domain(), node.operator()) {
        ("", "Constant") => constant(cx, node)?,
        ("", "If") => if_else(cx, node, opsets)?,
        ("", "Loop") => repeat(cx, node, opsets)?,
        ("", "Scan") => scan(cx, node, opsets)?,
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

fn if_else(cx: &mut Context<'_>, node: &Node<'_>, opsets: &Opsets) -> Lowered {
    let cond = cx.input(node, 0)?;
    let (yes, no) = (node.graph("then_branch")?, node.graph("else_branch")?);
    for g in [yes, no] {
        if g.output.len() != node.outputs().len() {
            let (got, wanted) = (g.output.len(), node.outputs().len());
            return Err(format!("has a branch with {got} outputs, but {wanted} are used").into());
        }
    }
    if let Some([v]) = cx.kind(cond).content().as_deref() {
        return cx.unfolded(node, if *v != 0 { yes } else { no }, opsets);
    }
    let (a, b) = (cx.inner(yes, opsets, &[])?, cx.inner(no, opsets, &[])?);
    let inputs: Vec<_> = [cond].into_iter().chain(a.1).chain(b.1).map(Some).collect();
    cx.outputs(node, ops::If { branches: [a.0, b.0].map(Arc::new) }, &inputs)
}

/// Finds types of what is carried that hold in every run: a dimension that the body changes is open.
fn settle(
    types: &mut [ValueType],
    mut import: impl FnMut(&[ValueType]) -> Lowered<(Vec<ValueType>, Inner)>,
) -> Lowered<Inner> {
    loop {
        let (after, inner) = import(types)?;
        let mut same = true;
        for (t, after) in types.iter_mut().zip(&after) {
            if after.dtype != t.dtype {
                return Err(format!("carries {}, which the body turns into {}", t.dtype, after.dtype).into());
            }
            if t.unranked {
                continue;
            }
            if after.unranked || after.rank() != t.rank() {
                (*t, same) = (ValueType::unranked(t.dtype), false);
                continue;
            }
            for (d, _) in t.dims.iter_mut().zip(&after.dims).filter(|(d, after)| **d != Dim::Any && d != after) {
                (*d, same) = (Dim::Any, false);
            }
        }
        // Each time a type becomes more open, so this ends.
        if same {
            return Ok(inner);
        }
    }
}

fn all_inputs(cx: &mut Context<'_>, node: &Node<'_>, from: usize) -> Lowered<Vec<ValueId>> {
    (from..node.inputs().len()).map(|n| cx.input(node, n)).collect()
}

fn repeat(cx: &mut Context<'_>, node: &Node<'_>, opsets: &Opsets) -> Lowered {
    let (most, cond) = (cx.optional(node, 0)?, cx.optional(node, 1)?);
    let first = all_inputs(cx, node, 2)?;
    let body = node.graph("body")?;
    let count = first.len();
    if body.output.len() <= count {
        return Err(
            format!("carries {count} values, but its body gives {}", body.output.len().saturating_sub(1)).into()
        );
    }
    let kinds = [Element::Int(Int::I64), Element::Bool].map(|e| ValueType::new(e, [0usize; 0]));
    let mut types: Vec<ValueType> = first.iter().map(|id| cx.kind(*id).clone().with_known(None::<Vec<_>>)).collect();
    let inner = settle(&mut types, |t| {
        let all: Vec<ValueType> = kinds.iter().chain(t).cloned().collect();
        let inner = cx.inner(body, opsets, &all)?;
        let outputs = inner.0.outputs()[1..=count].iter().map(|(_, id)| inner.0.value(*id).kind.clone()).collect();
        Ok((outputs, inner))
    })?;
    let inputs: Vec<_> = [most, cond].into_iter().chain(first.into_iter().chain(inner.1).map(Some)).collect();
    cx.outputs(node, ops::Loop { body: [Arc::new(inner.0)], carried: count }, &inputs)
}

fn scan(cx: &mut Context<'_>, node: &Node<'_>, opsets: &Opsets) -> Lowered {
    if node.opset < 9 {
        return scan_of_batch(cx, node, opsets);
    }
    let all = all_inputs(cx, node, 0)?;
    let body = node.graph("body")?;
    let elements =
        node.int("num_scan_inputs")?.and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=all.len()).contains(n));
    let elements = elements.ok_or("attribute `num_scan_inputs` must be from 1 to the number of inputs")?;
    let count = all.len() - elements;
    let given = body.output.len().checked_sub(count).ok_or("carries more values than its body gives")?;
    let axes = |axes: &str, directions: &str, count: usize| -> Lowered<Vec<ScanAxis>> {
        let (a, d) = (node.ints(axes), node.ints(directions));
        for (name, list) in [(axes, a), (directions, d)] {
            if list.is_some_and(|l| l.len() != count) {
                return Err(format!("attribute `{name}` must have {count} numbers").into());
            }
        }
        let one = |n: usize| ScanAxis { axis: a.map_or(0, |a| a[n]), reverse: d.is_some_and(|d| d[n] != 0) };
        Ok((0..count).map(one).collect())
    };
    let inputs = axes("scan_input_axes", "scan_input_directions", elements)?;
    let outputs = axes("scan_output_axes", "scan_output_directions", given)?;
    let mut elements = Vec::new();
    for (id, s) in all[count..].iter().zip(&inputs) {
        let mut t = cx.kind(*id).clone().with_known(None::<Vec<_>>);
        if !t.unranked {
            let rank = t.rank() as i64;
            let at = if s.axis < 0 { s.axis + rank } else { s.axis };
            if !(0..rank).contains(&at) {
                return Err(format!("attribute `scan_input_axes` has {}, but an input is {t}", s.axis).into());
            }
            t.dims.remove(at as usize);
        }
        elements.push(t);
    }
    let mut types: Vec<ValueType> =
        all[..count].iter().map(|id| cx.kind(*id).clone().with_known(None::<Vec<_>>)).collect();
    let inner = settle(&mut types, |t| {
        let formal: Vec<ValueType> = t.iter().chain(&elements).cloned().collect();
        let inner = cx.inner(body, opsets, &formal)?;
        let outputs = inner.0.outputs()[..count].iter().map(|(_, id)| inner.0.value(*id).kind.clone()).collect();
        Ok((outputs, inner))
    })?;
    let operands: Vec<_> = all.into_iter().chain(inner.1).map(Some).collect();
    cx.outputs(node, ops::Scan { body: [Arc::new(inner.0)], carried: count, inputs, outputs }, &operands)
}

/// Scan of operator set 8, which runs over the second axis of each row of a batch by itself: one scan in another.
fn scan_of_batch(cx: &mut Context<'_>, node: &Node<'_>, opsets: &Opsets) -> Lowered {
    if node.has_input(0) {
        return Err("`sequence_lens` is not supported: leave it out, or convert the file to operator set 9".into());
    }
    let all = all_inputs(cx, node, 1)?;
    let body = node.graph("body")?;
    let elements =
        node.int("num_scan_inputs")?.and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=all.len()).contains(n));
    let elements = elements.ok_or("attribute `num_scan_inputs` must be from 1 to the number of inputs")?;
    let count = all.len() - elements;
    let given = body.output.len().checked_sub(count).ok_or("carries more values than its body gives")?;
    let directions = node.ints("directions");
    if directions.is_some_and(|d| d.len() != elements) {
        return Err(format!("attribute `directions` must have {elements} numbers").into());
    }
    // Rows of the batch, and elements of a row.
    let mut rows = Vec::new();
    for id in &all {
        let t = cx.kind(*id);
        if t.unranked || t.rank() <= usize::from(rows.len() >= count) {
            return Err("its inputs must have a batch, and those it runs over timesteps".into());
        }
        rows.push(t.with_dims(t.dims[1..].to_vec()));
    }
    let element = |t: &ValueType| t.with_dims(t.dims[1..].to_vec());
    let steps: Vec<ValueType> = rows[count..].iter().map(element).collect();
    let mut types = rows[..count].to_vec();
    let inner = settle(&mut types, |t| {
        let formal: Vec<ValueType> = t.iter().chain(&steps).cloned().collect();
        let inner = cx.inner(body, opsets, &formal)?;
        let outputs = inner.0.outputs()[..count].iter().map(|(_, id)| inner.0.value(*id).kind.clone()).collect();
        Ok((outputs, inner))
    })?;
    let (inner, captured) = inner;
    let mut row = Assembly::new(true);
    let around: Vec<ValueType> = captured.iter().map(|id| cx.kind(*id).clone()).collect();
    let mut formal = Vec::new();
    for (n, t) in rows.iter().chain(&around).enumerate() {
        formal.push(Some(row.input(&format!("input {n}"), t.clone().with_known(None::<Vec<_>>), false)?));
    }
    let reverse = |n: usize| directions.is_some_and(|d| d[n] != 0);
    let first = ScanAxis { axis: 0, reverse: false };
    let over = ops::Scan {
        body: [Arc::new(inner)],
        carried: count,
        inputs: (0..elements).map(|n| ScanAxis { axis: 0, reverse: reverse(n) }).collect(),
        outputs: vec![first; given],
    };
    let names: Vec<String> = (0..count + given).map(|n| format!("output {n}")).collect();
    let made = row.node(node.label(), Arc::new(over), &formal, &names)?;
    let row = row.finish(names.into_iter().zip(made).collect())?;
    let rows = ops::Scan {
        body: [Arc::new(row)],
        carried: 0,
        inputs: vec![first; all.len()],
        outputs: vec![first; count + given],
    };
    let operands: Vec<_> = all.into_iter().chain(captured).map(Some).collect();
    cx.outputs(node, rows, &operands)
}
