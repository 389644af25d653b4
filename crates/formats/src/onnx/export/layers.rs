//! The operators of layers around recurrent ones: convolutions, pooling, normalizations, moves of elements.

use super::writer::{Attr, Writer, Written, element};
use recurve_graph::{Dim, Node, ops};
use recurve_tensor::{Function, Pooling, Reduction};
use std::any::Any;

/// The attributes of windows over so many axes.
struct Windows {
    sizes: Vec<i64>,
    strides: Vec<i64>,
    dilations: Vec<i64>,
    pads: Option<Vec<i64>>,
}

impl Windows {
    /// Those of an operator over the last axes of x; `sizes` are those of the weight if the operator has none.
    fn new(w: &ops::Windows, sizes: &[usize], x: &[Dim]) -> Result<Self, String> {
        let sizes = if w.sizes.is_empty() { sizes } else { &w.sizes };
        let axes = sizes.len();
        let all = |n: &[usize]| if n.is_empty() { vec![1; axes] } else { n.to_vec() };
        let (strides, dilations) = (all(&w.strides), all(&w.dilations));
        let pads = match &w.padding {
            ops::Padding::Explicit(pads) if pads.is_empty() => Some(vec![[0; 2]; axes]),
            ops::Padding::Explicit(pads) => Some(pads.clone()),
            // ONNX Runtime has no dilation with padding that it finds itself.
            ops::Padding::SameUpper => (0..axes)
                .map(|n| {
                    let extent = (sizes[n] - 1) * dilations[n] + 1;
                    let total = match (strides[n], x.get(n + 2).and_then(Dim::size)) {
                        (1, _) => extent - 1,
                        (stride, Some(len)) => ((len.div_ceil(stride) - 1) * stride + extent).saturating_sub(len),
                        _ => return None,
                    };
                    Some([total / 2, total - total / 2])
                })
                .collect(),
            other => return Err(format!("padding {other:?} cannot be written as ONNX")),
        };
        if w.ceil {
            return Err("windows beyond the padding cannot be written as ONNX".into());
        }
        let whole = |n: &[usize]| n.iter().map(|&n| n as i64).collect::<Vec<_>>();
        let pads = pads.map(|p| [0, 1].iter().flat_map(|&end| p.iter().map(move |p| p[end] as i64)).collect());
        Ok(Self { sizes: whole(sizes), strides: whole(&strides), dilations: whole(&dilations), pads })
    }

    fn attributes(&self) -> Vec<(&'static str, Attr<'_>)> {
        let pads = match &self.pads {
            Some(pads) => ("pads", Attr::Ints(pads)),
            None => ("auto_pad", Attr::Text("SAME_UPPER")),
        };
        vec![("kernel_shape", Attr::Ints(&self.sizes)), ("strides", Attr::Ints(&self.strides)), pads]
    }
}

/// Writes what a node computes from these inputs; `None` if the operator is another one.
///
/// # Errors
/// Why it cannot be written.
pub(super) fn write(w: &mut Writer<'_>, node: &Node, inputs: &[Option<Written>]) -> Result<Option<Written>, String> {
    let any: &dyn Any = node.operator.as_any();
    let names: Vec<&str> = inputs.iter().map(|i| i.as_ref().map_or("", |v| &v.name)).collect();
    let x = *names.first().ok_or("has no input")?;
    let mut kind = inputs[0].as_ref().map_or(element::FLOAT, |v| v.element);
    let weight = |w: &Writer<'_>| -> Vec<usize> {
        node.inputs.get(1).copied().flatten().map_or(Vec::new(), |id| w.kind(id).sizes().skip(2).collect())
    };
    let dims: Vec<Dim> = node.inputs.first().copied().flatten().map_or(Vec::new(), |id| w.kind(id).dims.clone());
    let unsupported = || super::unsupported(node.operator.name());
    let name = if let Some(conv) = any.downcast_ref::<ops::Conv>() {
        let windows = Windows::new(&conv.windows, &weight(w), &dims)?;
        let mut attributes = windows.attributes();
        attributes.extend([("dilations", Attr::Ints(&windows.dilations)), ("group", Attr::Int(conv.groups as i64))]);
        w.node("Conv", &names, attributes)
    } else if let Some(conv) = any.downcast_ref::<ops::ConvTranspose>() {
        let windows = Windows::new(&conv.windows, &weight(w), &dims)?;
        let extra: Vec<i64> = conv.output_padding.iter().map(|&n| n as i64).collect();
        if conv.output_shape.is_some() || extra.len() != windows.sizes.len() {
            return Err(unsupported());
        }
        let mut attributes = windows.attributes();
        attributes.extend([("dilations", Attr::Ints(&windows.dilations)), ("group", Attr::Int(conv.groups as i64))]);
        attributes.push(("output_padding", Attr::Ints(&extra)));
        w.node("ConvTranspose", &names, attributes)
    } else if let Some(pool) = any.downcast_ref::<ops::Pool>() {
        let windows = Windows::new(&pool.windows, &[], &dims)?;
        if windows.dilations.iter().any(|&d| d != 1) {
            return Err(unsupported());
        }
        match pool.pooling {
            Pooling::Max => w.node("MaxPool", &[x], windows.attributes()),
            Pooling::Average { padded: false } => w.node("AveragePool", &[x], windows.attributes()),
            _ => return Err(unsupported()),
        }
    } else if let Some(reduce) = any.downcast_ref::<ops::ReduceOver>() {
        if names.len() > 1 || reduce.axes.is_empty() || reduce.int.is_some() {
            return Err(unsupported());
        }
        let keep = ("keepdims", Attr::Int(reduce.keep_dims.into()));
        match reduce.reduction {
            Reduction::Sum => {
                let axes = w.ints(&reduce.axes);
                w.node("ReduceSum", &[x, &axes], vec![keep])
            }
            Reduction::Mean | Reduction::Max | Reduction::Min | Reduction::L2 => {
                w.node(node.operator.name(), &[x], vec![("axes", Attr::Ints(&reduce.axes)), keep])
            }
            _ => return Err(unsupported()),
        }
    } else if let Some(ops::Pad(mode)) = any.downcast_ref() {
        if *mode != ops::PadMode::Constant(0.0) {
            return Err(unsupported());
        }
        w.op("Pad", &names)
    } else if any.is::<ops::Tile>() || any.is::<ops::SliceBy>() {
        w.op(node.operator.name(), &names)
    } else if let Some(ops::ReshapeTo { allow_zero: false }) = any.downcast_ref() {
        w.op("Reshape", &names)
    } else if let Some(trilu) = any.downcast_ref::<ops::Trilu>() {
        w.node("Trilu", &names, vec![("upper", Attr::Int(trilu.upper.into()))])
    } else if any.is::<ops::Where>() {
        let [Some(condition), Some(value), Some(_)] = inputs else { return Err(unsupported()) };
        let holds = match condition.element {
            element::BOOL => condition.name.clone(),
            _ => w.node("Cast", &[&condition.name], vec![("to", Attr::Int(element::BOOL.into()))]),
        };
        kind = value.element;
        w.op("Where", &[&holds, names[1], names[2]])
    } else if any.is::<ops::BatchNorm>() {
        let Some(ops::BatchNorm { epsilon }) = any.downcast_ref() else { return Err(unsupported()) };
        w.node("BatchNormalization", &names, vec![("epsilon", Attr::Float(*epsilon))])
    } else if let Some(normalize) = any.downcast_ref::<ops::Normalize>() {
        let ops::Together::Layer(axis) = normalize.together else { return Err(unsupported()) };
        let attributes = vec![("axis", Attr::Int(axis)), ("epsilon", Attr::Float(normalize.epsilon))];
        w.node("LayerNormalization", &names, attributes)
    } else if let Some(softmax) = any.downcast_ref::<ops::SoftmaxOver>() {
        if softmax.flattened || softmax.shares == ops::Shares::Hardmax {
            return Err(unsupported());
        }
        w.node(node.operator.name(), &[x], vec![("axis", Attr::Int(softmax.axis))])
    } else if let Some(resize) = any.downcast_ref::<ops::Resize>() {
        resized(w, node, resize, x)?.ok_or_else(unsupported)?
    } else if let Some(map) = any.downcast_ref::<ops::Map>() {
        mapped(w, map.function, x).ok_or_else(unsupported)?
    } else {
        return Ok(None);
    };
    Ok(Some(Written { name, element: kind }))
}

/// A value with elements between the nearest two.
fn resized(w: &mut Writer<'_>, node: &Node, r: &ops::Resize, x: &str) -> Result<Option<String>, String> {
    let (Some(axes), Some(scales)) = (&r.axes, &r.scales) else { return Ok(None) };
    let plain = node.inputs.len() == 1 && r.interpolation == ops::Interpolation::Linear && !r.antialias;
    if !plain || r.coordinates != ops::Coordinates::HalfPixel || r.exclude_outside || r.policy != ops::Policy::Stretch {
        return Ok(None);
    }
    let rank = w.kind(node.inputs[0].ok_or("has no input")?).rank();
    let mut all = vec![1.0; rank];
    for (axis, scale) in axes.iter().zip(scales) {
        let place = usize::try_from(*axis).ok().and_then(|a| all.get_mut(a));
        *place.ok_or("has an axis that its input has not")? = *scale;
    }
    let scales = w.floats("scales", &[rank], &all);
    Ok(Some(w.node("Resize", &[x, "", &scales], vec![("mode", Attr::Text("linear"))])))
}

/// A function of one operand; `None` if it has no form here.
fn mapped(w: &mut Writer<'_>, f: Function, x: &str) -> Option<String> {
    let scaled = |w: &mut Writer<'_>, x: &str, by: f32| {
        let by = w.scalar(by);
        w.op("Mul", &[x, &by])
    };
    Some(match f {
        Function::Exp => w.op("Exp", &[x]),
        Function::Sqrt => w.op("Sqrt", &[x]),
        Function::HardSwish => w.op("HardSwish", &[x]),
        Function::Clip { low, high } => {
            let (low, high) = (w.scalar(low), w.scalar(high));
            w.op("Clip", &[x, &low, &high])
        }
        Function::Selu { alpha, gamma } => {
            w.node("Selu", &[x], vec![("alpha", Attr::Float(alpha)), ("gamma", Attr::Float(gamma))])
        }
        Function::Celu { alpha } => w.node("Celu", &[x], vec![("alpha", Attr::Float(alpha))]),
        Function::Swish { alpha } => {
            let inner = if alpha == 1.0 { x.to_owned() } else { scaled(w, x, alpha) };
            let gate = w.op("Sigmoid", &[&inner]);
            w.op("Mul", &[x, &gate])
        }
        Function::Mish => {
            let soft = w.op("Softplus", &[x]);
            let gate = w.op("Tanh", &[&soft]);
            w.op("Mul", &[x, &gate])
        }
        Function::Gelu | Function::GeluTanh => {
            let share = if f == Function::Gelu {
                let inner = scaled(w, x, core::f32::consts::FRAC_1_SQRT_2);
                w.op("Erf", &[&inner])
            } else {
                let square = w.op("Mul", &[x, x]);
                let cube = w.op("Mul", &[&square, x]);
                let cube = scaled(w, &cube, 0.044_715);
                let sum = w.op("Add", &[x, &cube]);
                let inner = scaled(w, &sum, (2.0 / core::f32::consts::PI).sqrt());
                w.op("Tanh", &[&inner])
            };
            let one = w.scalar(1.0);
            let share = w.op("Add", &[&share, &one]);
            let both = w.op("Mul", &[x, &share]);
            scaled(w, &both, 0.5)
        }
        _ => return None,
    })
}
