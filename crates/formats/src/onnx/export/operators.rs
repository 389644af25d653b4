//! The other operators of networks.

use super::layers;
use super::recurrent::{self, turned};
use super::unsupported;
use super::writer::{Attr, Writer, Written, element};
use recurve_graph::{Dim, Node, ops};
use recurve_tensor::Reduction;
use recurve_vocabulary::Activation;

/// Writes a node. What it computes does not exist if an input that it needs does not.
///
/// # Errors
/// Why it cannot be written.
pub(super) fn write(w: &mut Writer<'_>, node: &Node) -> Result<(), String> {
    w.enter(&node.name);
    let any = node.operator.as_any();
    if let Some(r) = any.downcast_ref() {
        return recurrent::write(w, node, r);
    }
    let Some(inputs) = w.operands(node)? else { return Ok(()) };
    let given = |n: usize| inputs.get(n).and_then(Option::as_ref);
    let x = || given(0).map(|v| v.name.as_str()).ok_or("has no input");
    let second = || given(1).map(|v| v.name.as_str()).ok_or("has no second input");
    let mut kind = given(0).map_or(element::FLOAT, |v| v.element);

    let name = if any.is::<ops::FirstGiven>() {
        let Some(first) = inputs.iter().flatten().next() else { return Ok(()) };
        kind = first.element;
        first.name.clone()
    } else if any.is::<ops::IfGiven>() || any.is::<ops::Identity>() {
        x()?.to_owned()
    } else if let Some(ops::Activate(f)) = any.downcast_ref() {
        activate(w, *f, x()?)
    } else if let Some(linear) = any.downcast_ref::<ops::Linear>() {
        let weight = match (linear.transposed, node.inputs[1]) {
            (false, _) => second()?.to_owned(),
            (true, Some(id)) if w.is_host(id) => {
                let (dims, data) = w.host(id)?;
                w.floats("weight", &[dims[1], dims[0]], &turned(&data, dims[0]))
            }
            (true, _) => w.transpose(second()?, &[1, 0]),
        };
        let mut y = w.op("MatMul", &[x()?, &weight]);
        if let Some(bias) = given(2) {
            y = w.op("Add", &[&y, &bias.name]);
        }
        activate(w, linear.activation, &y)
    } else if any.is::<ops::Gather>() {
        let ids = match given(1) {
            // A mask selects one of two rows.
            Some(v) if v.element == element::BOOL => {
                w.node("Cast", &[&v.name], vec![("to", Attr::Int(element::INT64.into()))])
            }
            _ => second()?.to_owned(),
        };
        w.op("Gather", &[x()?, &ids])
    } else if let Some(concat) = any.downcast_ref::<ops::Concat>() {
        let all: Vec<String> = inputs.iter().flatten().map(|v| v.name.clone()).collect();
        w.concat(&all, concat.axis as i64)
    } else if let Some(binary) = any.downcast_ref::<ops::Binary>() {
        use ops::Binary::{Add, Div, Max, Min, Mul, PRelu, Pow, Sub};
        match binary {
            Add | Sub | Mul | Div | Pow | Max | Min | PRelu => w.op(node.operator.name(), &[x()?, second()?]),
            _ => return Err(unsupported(node.operator.name())),
        }
    } else if let Some(mask) = any.downcast_ref() {
        kind = element::BOOL;
        written_mask(w, *mask, x()?)?
    } else if let Some(reshape) = any.downcast_ref() {
        let like = given(1).map(|v| v.name.as_str());
        reshaped(w, node, reshape, x()?, like)
    } else if let Some(slice) = any.downcast_ref::<ops::Slice>() {
        let start = slice.start as i64;
        let end = start + slice.len as i64;
        // The end of the axis, counted from there, has no number of its own.
        w.slice(x()?, slice.axis as i64, start, if start < 0 && end == 0 { i64::MAX } else { end }, 1)
    } else if let Some(ops::Transpose(axes)) = any.downcast_ref() {
        let axes: Vec<i64> = axes.iter().map(|&a| a as i64).collect();
        match axes.is_empty() {
            true => w.op("Transpose", &[x()?]),
            false => w.transpose(x()?, &axes),
        }
    } else if any.is::<ops::Softmax>() {
        w.node("Softmax", &[x()?], vec![("axis", Attr::Int(-1))])
    } else if let Some(norm) = any.downcast_ref::<ops::LayerNorm>() {
        let (dims, data) = w.host(node.inputs[1].ok_or("has no gain and offset")?)?;
        let gain = w.floats("gain", &dims[1..], &data[..dims[1]]);
        let offset = w.floats("offset", &dims[1..], &data[dims[1]..]);
        w.node("LayerNormalization", &[x()?, &gain, &offset], vec![("epsilon", Attr::Float(norm.epsilon))])
    } else if let Some(reduce) = any.downcast_ref::<ops::Reduce>() {
        let axes = [reduce.axis as i64];
        match reduce.reduction {
            Reduction::Sum => {
                let axes = w.ints(&axes);
                w.op("ReduceSum", &[x()?, &axes])
            }
            Reduction::Mean | Reduction::Max | Reduction::Min => {
                w.node(node.operator.name(), &[x()?], vec![("axes", Attr::Ints(&axes))])
            }
            _ => return Err(unsupported(node.operator.name())),
        }
    } else if any.is::<ops::MatMul>() {
        w.op("MatMul", &[x()?, second()?])
    } else if let Some(arg) = any.downcast_ref::<ops::ArgMax>() {
        kind = element::INT64;
        w.node("ArgMax", &[x()?], vec![("axis", Attr::Int(arg.axis as i64))])
    } else if let Some(written) = layers::write(w, node, &inputs)? {
        kind = written.element;
        written.name
    } else {
        return Err(unsupported(node.operator.name()));
    };
    w.define(node.outputs[0], Written { name, element: kind });
    Ok(())
}

/// A function of one operand.
pub(super) fn activate(w: &mut Writer<'_>, f: Activation, x: &str) -> String {
    let alpha = |a: f32| vec![("alpha", Attr::Float(a))];
    match f {
        Activation::Linear => x.into(),
        Activation::Sigmoid => w.op("Sigmoid", &[x]),
        Activation::Tanh => w.op("Tanh", &[x]),
        Activation::Relu => w.op("Relu", &[x]),
        Activation::HardSigmoid { alpha, beta } => {
            w.node("HardSigmoid", &[x], vec![("alpha", Attr::Float(alpha)), ("beta", Attr::Float(beta))])
        }
        Activation::Affine { alpha, beta } => {
            let (alpha, beta) = (w.scalar(alpha), w.scalar(beta));
            let x = w.op("Mul", &[x, &alpha]);
            w.op("Add", &[&x, &beta])
        }
        Activation::LeakyRelu { alpha: a } => w.node("LeakyRelu", &[x], alpha(a)),
        Activation::ThresholdedRelu { alpha: a } => w.node("ThresholdedRelu", &[x], alpha(a)),
        Activation::ScaledTanh { alpha, beta } => {
            let (alpha, beta) = (w.scalar(alpha), w.scalar(beta));
            let x = w.op("Mul", &[x, &beta]);
            let x = w.op("Tanh", &[&x]);
            w.op("Mul", &[&x, &alpha])
        }
        Activation::Elu { alpha: a } => w.node("Elu", &[x], alpha(a)),
        Activation::Softsign => w.op("Softsign", &[x]),
        Activation::Softplus => w.op("Softplus", &[x]),
        // x + 0.5 from zero on, else the sigmoid; and any function that comes later would fail its test.
        _ => {
            let (zero, half) = (w.scalar(0.0), w.scalar(0.5));
            let above = w.op("GreaterOrEqual", &[x, &zero]);
            let (raised, below) = (w.op("Add", &[x, &half]), w.op("Sigmoid", &[x]));
            w.op("Where", &[&above, &raised, &below])
        }
    }
}

/// Which timesteps are valid, as truth values.
fn written_mask(w: &mut Writer<'_>, mask: ops::Mask, x: &str) -> Result<String, String> {
    match mask {
        ops::Mask::Ids(id) => {
            let id = w.int(id.into());
            let same = w.op("Equal", &[x, &id]);
            Ok(w.op("Not", &[&same]))
        }
        ops::Mask::Features(value) => {
            let value = w.scalar(value);
            let same = w.op("Equal", &[x, &value]);
            let differs = w.op("Not", &[&same]);
            let differs = w.node("Cast", &[&differs], vec![("to", Attr::Int(element::FLOAT.into()))]);
            let axes = vec![("axes", Attr::Ints(&[-1])), ("keepdims", Attr::Int(0))];
            let any = w.node("ReduceMax", &[&differs], axes);
            Ok(w.node("Cast", &[&any], vec![("to", Attr::Int(element::BOOL.into()))]))
        }
        other => Err(format!("mask {other:?} cannot be written as ONNX")),
    }
}

/// A reshape: sizes that are known as they are, one that is not as -1, those of the same place as 0; where that is not
/// enough, sizes computed from the shapes.
fn reshaped(w: &mut Writer<'_>, node: &Node, r: &ops::Reshape, x: &str, like: Option<&str>) -> String {
    let known = w.kind(node.outputs[0]).dims.clone();
    let mut open = 0;
    let sizes: Vec<i64> =
        r.0.iter()
            .zip(&known)
            .enumerate()
            .map(|(n, (extent, dim))| match (dim, extent) {
                (Dim::Size(size), _) => *size as i64,
                (_, ops::Extent::Axes(axis, 1)) if *axis == n => 0,
                _ => {
                    open += 1;
                    -1
                }
            })
            .collect();
    if open <= 1 {
        let sizes = w.ints(&sizes);
        return w.op("Reshape", &[x, &sizes]);
    }
    let mut parts = Vec::new();
    for (extent, size) in r.0.iter().zip(&sizes) {
        let part = match (*extent, size) {
            (_, 1..) => w.ints(&[*size]),
            (ops::Extent::Axes(first, count), _) => {
                let shape = w.op("Shape", &[x]);
                let own = w.slice(&shape, 0, first as i64, (first + count) as i64, 1);
                if count == 1 { own } else { w.op("ReduceProd", &[&own]) }
            }
            (ops::Extent::Like(axis), _) => {
                let shape = w.op("Shape", &[like.unwrap_or(x)]);
                w.slice(&shape, 0, axis as i64, axis as i64 + 1, 1)
            }
            _ => w.ints(&[*size]),
        };
        parts.push(part);
    }
    let shape = w.concat(&parts, 0);
    w.op("Reshape", &[x, &shape])
}
