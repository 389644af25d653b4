//! Products, convolutions, pooling, normalisation, reductions, spectra.

use super::elementwise::as_float;
use super::prelude::*;
use recurve_graph::ops::{Extent, Padding, Windows};
use recurve_graph::{Element, Int};
use recurve_tensor::{Pooling, Reduction};

/// Brings a node into the graph, if it is one of these.
///
/// # Errors
/// Why it cannot be.
pub(super) fn lower(cx: &mut Context<'_>, node: &Node<'_>) -> Lowered<bool> {
    if !node.domain().is_empty() {
        return Ok(false);
    }
    let inputs = cx.inputs(node)?;
    let epsilon = || node.float("epsilon").map(|e| e.unwrap_or(1e-5));
    match node.operator() {
        "MatMul" => cx.outputs(node, ops::MatMul, &inputs)?,
        "Gemm" => {
            let gemm = ops::Gemm {
                alpha: node.float("alpha")?.unwrap_or(1.0),
                beta: node.float("beta")?.unwrap_or(1.0),
                transpose_a: node.flag("transA", false)?,
                transpose_b: node.flag("transB", false)?,
            };
            cx.outputs(node, gemm, &inputs)?;
        }
        "Einsum" => {
            let equation = node.text("equation")?.ok_or("attribute `equation` is missing")?.to_owned();
            cx.outputs(node, ops::Einsum { equation }, &inputs)?;
        }
        "Conv" => {
            let conv = ops::Conv { windows: windows(node)?, groups: groups(node)? };
            cx.outputs(node, conv, &inputs)?;
        }
        "ConvInteger" => conv_integer(cx, node)?,
        "ConvTranspose" => {
            let conv = ops::ConvTranspose {
                windows: windows(node)?,
                groups: groups(node)?,
                output_padding: sizes(node, "output_padding", 0)?,
                output_shape: node.ints("output_shape").map(|_| sizes(node, "output_shape", 1)).transpose()?,
            };
            cx.outputs(node, conv, &inputs)?;
        }
        "MaxPool" => {
            let column_major = node.flag("storage_order", false)?;
            pool(cx, node, Pooling::Max, column_major)?;
        }
        "AveragePool" => {
            let padded = node.flag("count_include_pad", false)?;
            pool(cx, node, Pooling::Average { padded }, false)?;
        }
        "LpPool" => pool(cx, node, Pooling::Norm { p: norm(node)? }, false)?,
        "GlobalAveragePool" => cx.outputs(node, ops::GlobalPool(Reduction::Mean), &inputs)?,
        "GlobalMaxPool" => cx.outputs(node, ops::GlobalPool(Reduction::Max), &inputs)?,
        "GlobalLpPool" => {
            let reduction = match norm(node)? {
                1 => Reduction::L1,
                2 => Reduction::L2,
                p => return Err(format!("attribute `p` is {p}, but only 1 and 2 are supported").into()),
            };
            cx.outputs(node, ops::GlobalPool(reduction), &inputs)?;
        }
        "BatchNormalization" => {
            if node.flag("training_mode", false)? || node.outputs().len() > 1 {
                return Err("is in training mode, which is not supported; export the model for inference".into());
            }
            if !node.flag("spatial", true)? {
                return Err("attribute `spatial` is 0, which is not supported".into());
            }
            // How running means were made says nothing about what is done with them.
            node.float("momentum")?;
            cx.outputs(node, ops::BatchNorm { epsilon: epsilon()? }, &inputs)?;
        }
        "InstanceNormalization" => normalize(cx, node, ops::Together::Instance)?,
        "LayerNormalization" => normalize(cx, node, ops::Together::Layer(node.int("axis")?.unwrap_or(-1)))?,
        "RMSNormalization" => normalize(cx, node, ops::Together::RootMeanSquare(node.int("axis")?.unwrap_or(-1)))?,
        "GroupNormalization" => {
            let groups = node.int("num_groups")?.ok_or("attribute `num_groups` is missing")?;
            let groups = usize::try_from(groups).map_err(|_| format!("attribute `num_groups` is {groups}"))?;
            normalize(cx, node, ops::Together::Group { groups, by_group: node.opset < 21 })?;
        }
        "LpNormalization" => {
            let absolute = match norm(node)? {
                1 => true,
                2 => false,
                p => return Err(format!("attribute `p` is {p}, but only 1 and 2 are possible").into()),
            };
            cx.outputs(node, ops::LpNorm { axis: node.int("axis")?.unwrap_or(-1), absolute }, &inputs)?;
        }
        "Softmax" => shares(cx, node, ops::Shares::Softmax)?,
        "LogSoftmax" => shares(cx, node, ops::Shares::LogSoftmax)?,
        "Hardmax" => shares(cx, node, ops::Shares::Hardmax)?,
        "DFT" => {
            let axis = if node.opset < 20 { node.int("axis")?.unwrap_or(1) } else { -2 };
            let dft = ops::Dft { axis, inverse: node.flag("inverse", false)?, onesided: node.flag("onesided", false)? };
            cx.outputs(node, dft, &inputs)?;
        }
        "STFT" => cx.outputs(node, ops::Stft { onesided: node.flag("onesided", true)? }, &inputs)?,
        "HannWindow" => cosines(cx, node, ops::Cosines::Hann)?,
        "HammingWindow" => cosines(cx, node, ops::Cosines::Hamming)?,
        "BlackmanWindow" => cosines(cx, node, ops::Cosines::Blackman)?,
        "MelWeightMatrix" => {
            float_output(node)?;
            cx.outputs(node, ops::MelWeights, &inputs)?;
        }
        operator => match reduction(operator) {
            Some(reduction) => reduce(cx, node, reduction)?,
            None => return Ok(false),
        },
    }
    Ok(true)
}

/// In f32, where sums are exact as long as they are below 2^24. What is padded is the zero point, 0 once that is
/// subtracted.
fn conv_integer(cx: &mut Context<'_>, node: &Node<'_>) -> Lowered {
    let conv = ops::Conv { windows: windows(node)?, groups: groups(node)? };
    let mut operands = [cx.input(node, 0)?, cx.input(node, 1)?];
    for (n, x) in operands.iter_mut().enumerate() {
        let rank = cx.kind(*x).rank();
        *x = as_float(cx, node, *x)?;
        let Some(zero) = cx.optional(node, n + 2)? else { continue };
        let mut zero = as_float(cx, node, zero)?;
        let kind = cx.kind(zero);
        if kind.unranked || kind.rank() > 1 {
            return Err("a zero point must be one number, or one for each channel of `w`".into());
        }
        if kind.rank() == 1 && kind.shape().as_deref() != Some(&[1]) {
            if n == 0 || rank < 3 {
                return Err("`x_zero_point` must be one number".into());
            }
            let dims = core::iter::once(Extent::Axes(0, 1)).chain(vec![Extent::Size(1); rank - 1]).collect();
            zero = cx.emit(node, ops::Reshape(dims), &[Some(zero)])?;
        }
        *x = cx.emit(node, ops::Binary::Sub, &[Some(*x), Some(zero)])?;
    }
    let y = cx.emit(node, conv, &operands.map(Some))?;
    cx.outputs(node, ops::Cast { from: Element::F32, to: ops::Target::Int(Int::I32) }, &[Some(y)])
}

fn reduction(operator: &str) -> Option<Reduction> {
    Some(match operator {
        "ReduceSum" => Reduction::Sum,
        "ReduceMean" => Reduction::Mean,
        "ReduceMax" => Reduction::Max,
        "ReduceMin" => Reduction::Min,
        "ReduceProd" => Reduction::Product,
        "ReduceL1" => Reduction::L1,
        "ReduceL2" => Reduction::L2,
        "ReduceSumSquare" => Reduction::SumSquare,
        "ReduceLogSum" => Reduction::LogSum,
        "ReduceLogSumExp" => Reduction::LogSumExp,
        _ => return None,
    })
}

fn reduce(cx: &mut Context<'_>, node: &Node<'_>, reduction: Reduction) -> Lowered {
    let inputs = cx.inputs(node)?;
    // From this version on the axes are an input.
    let by_input = node.opset >= if reduction == Reduction::Sum { 13 } else { 18 };
    let (axes, noop) = match by_input {
        true => (Vec::new(), node.flag("noop_with_empty_axes", false)?),
        false => (node.ints("axes").unwrap_or_default().to_vec(), false),
    };
    if !by_input && inputs.len() > 1 {
        return Err(
            format!("has {} inputs, but axes are an attribute in operator set {}", inputs.len(), node.opset).into()
        );
    }
    let x = cx.input(node, 0)?;
    let int = match cx.kind(x).dtype {
        Element::Int(int) => Some(int),
        _ => None,
    };
    let over = ops::ReduceOver { reduction, axes, keep_dims: node.flag("keepdims", true)?, noop, int };
    cx.outputs(node, over, &inputs)
}

/// Whole numbers of an attribute, of at least `least`; none if it is not there.
fn sizes(node: &Node<'_>, name: &str, least: usize) -> Result<Vec<usize>, String> {
    let numbers = node.ints(name).unwrap_or_default();
    let all: Option<_> = numbers.iter().map(|&n| usize::try_from(n).ok().filter(|&n| n >= least)).collect();
    all.ok_or_else(|| format!("attribute `{name}` must be numbers of at least {least}, but it is {numbers:?}"))
}

fn groups(node: &Node<'_>) -> Result<usize, String> {
    let groups = node.int("group")?.unwrap_or(1);
    usize::try_from(groups).map_err(|_| format!("attribute `group` is {groups}"))
}

fn norm(node: &Node<'_>) -> Result<u32, String> {
    let p = node.int("p")?.unwrap_or(2);
    u32::try_from(p).ok().filter(|&p| p > 0).ok_or_else(|| format!("attribute `p` is {p}"))
}

fn windows(node: &Node<'_>) -> Result<Windows, String> {
    let pads = sizes(node, "pads", 0)?;
    let place = node.text("auto_pad")?.unwrap_or("NOTSET");
    if !matches!(place, "NOTSET" | "") && pads.iter().any(|&p| p > 0) {
        return Err(format!("attribute `auto_pad` is {place}, and there are `pads` too: only one can be"));
    }
    let mut ceil = node.flag("ceil_mode", false)?;
    let padding = match place {
        "NOTSET" | "" => {
            if pads.len() % 2 != 0 {
                return Err(format!("attribute `pads` must be two numbers for each axis, but it is {pads:?}"));
            }
            let (before, after) = pads.split_at(pads.len() / 2);
            Padding::Explicit(before.iter().zip(after).map(|(&b, &a)| [b, a]).collect())
        }
        "SAME_UPPER" => Padding::SameUpper,
        "SAME_LOWER" => Padding::SameLower,
        "VALID" => {
            // Its formula gives whole windows whatever the mode.
            ceil = false;
            Padding::Explicit(Vec::new())
        }
        other => {
            return Err(format!("attribute `auto_pad` is {other:?}, not NOTSET, SAME_UPPER, SAME_LOWER or VALID"));
        }
    };
    Ok(Windows {
        sizes: sizes(node, "kernel_shape", 1)?,
        strides: sizes(node, "strides", 1)?,
        dilations: sizes(node, "dilations", 1)?,
        padding,
        ceil,
    })
}

fn pool(cx: &mut Context<'_>, node: &Node<'_>, pooling: Pooling, column_major: bool) -> Lowered {
    let windows = windows(node)?;
    if windows.sizes.is_empty() {
        return Err("attribute `kernel_shape` is missing".into());
    }
    let inputs = cx.inputs(node)?;
    cx.outputs(node, ops::Pool { pooling, windows, column_major }, &inputs)
}

fn normalize(cx: &mut Context<'_>, node: &Node<'_>, together: ops::Together) -> Lowered {
    match node.int("stash_type")?.unwrap_or(1) {
        // Floats and doubles, which are computed as floats.
        1 | 11 => {}
        other => return Err(format!("attribute `stash_type` is {other}, but only 1, f32, is supported").into()),
    }
    let epsilon = node.float("epsilon")?.unwrap_or(1e-5);
    let inputs = cx.inputs(node)?;
    cx.outputs(node, ops::Normalize { together, epsilon }, &inputs)
}

fn shares(cx: &mut Context<'_>, node: &Node<'_>, shares: ops::Shares) -> Lowered {
    let flattened = node.opset < 13;
    let axis = node.int("axis")?.unwrap_or(if flattened { 1 } else { -1 });
    let inputs = cx.inputs(node)?;
    cx.outputs(node, ops::SoftmaxOver { shares, axis, flattened }, &inputs)
}

/// Refuses an output type that is no float.
fn float_output(node: &Node<'_>) -> Result<(), String> {
    match node.int("output_datatype")?.unwrap_or(1) {
        1 | 10 | 11 | 16 => Ok(()),
        other => Err(format!("attribute `output_datatype` is {other}, but only floats are supported")),
    }
}

fn cosines(cx: &mut Context<'_>, node: &Node<'_>, kind: ops::Cosines) -> Lowered {
    float_output(node)?;
    let periodic = node.flag("periodic", true)?;
    let inputs = cx.inputs(node)?;
    cx.outputs(node, ops::CosineWindow { kind, periodic }, &inputs)
}
