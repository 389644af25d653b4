//! Shapes, and elements by their places.

use super::prelude::*;
use crate::onnx::tensor::{self, DataType};
use recurve_graph::{Constant, Element, Int, ValueId};
use recurve_tensor::{Extreme, Update};

/// Brings a node into the graph, if it is one of these.
///
/// # Errors
/// Why it cannot be.
pub(super) fn lower(cx: &mut Context<'_>, node: &Node<'_>) -> Lowered<bool> {
    if !node.domain().is_empty() {
        return Ok(false);
    }
    let axis = |default: i64| node.int("axis").map(|a| a.unwrap_or(default));
    match node.operator() {
        "Shape" => {
            let (start, end) = (node.int("start")?.unwrap_or(0), node.int("end")?);
            plain(cx, node, ops::ShapeOf { start, end }, 1..=1)
        }
        "Size" => plain(cx, node, ops::Size, 1..=1),
        "Reshape" => plain(cx, node, ops::ReshapeTo { allow_zero: node.flag("allowzero", false)? }, 2..=2),
        "Flatten" => plain(cx, node, ops::Flatten { axis: axis(1)? }, 1..=1),
        "Squeeze" => numbers(cx, node, ops::Squeeze, ("axes", 13), 1..=2),
        "Unsqueeze" => numbers(cx, node, ops::Unsqueeze, ("axes", 13), 2..=2),
        "Expand" => plain(cx, node, ops::Expand, 2..=2),
        "Tile" => plain(cx, node, ops::Tile, 2..=2),
        "Transpose" => {
            let perm = node.ints("perm").unwrap_or_default();
            let axes: Option<Vec<usize>> = perm.iter().map(|&a| usize::try_from(a).ok()).collect();
            let axes = axes.ok_or_else(|| format!("attribute `perm` must name each axis once, but it is {perm:?}"))?;
            plain(cx, node, ops::Transpose(axes), 1..=1)
        }
        "Concat" => {
            let axis = node.int("axis")?.ok_or("attribute `axis` is missing")?;
            let axis = isize::try_from(axis).map_err(|_| format!("attribute `axis` is {axis}"))?;
            let mut inputs = cx.inputs(node)?;
            // Floats without elements along the axis add nothing.
            let adds = |id: &Option<ValueId>| {
                let kind = id.map(|id| cx.kind(id)).filter(|t| t.dtype.is_float() && !t.unranked);
                let at = kind.map(|t| if axis < 0 { axis.saturating_add(t.rank() as isize) } else { axis });
                let dim = kind.zip(at).and_then(|(t, at)| t.dims.get(usize::try_from(at).ok()?));
                dim != Some(&recurve_graph::Dim::Size(0))
            };
            let kept: Vec<_> = inputs.iter().copied().filter(adds).collect();
            if !kept.is_empty() {
                inputs = kept;
            }
            if inputs.is_empty() {
                return Err("has no inputs".into());
            }
            cx.outputs(node, ops::Concat { axis }, &inputs)?;
            Ok(true)
        }
        "Split" => {
            let parts = match node.int("num_outputs")? {
                None => node.outputs().len(),
                Some(n) if usize::try_from(n) == Ok(node.outputs().len()) && !node.has_input(1) => node.outputs().len(),
                Some(n) => {
                    let got = node.outputs().len();
                    return Err(
                        format!("attribute `num_outputs` is {n}, with {got} outputs and no sizes expected").into()
                    );
                }
            };
            let split = ops::Split { axis: axis(0)?, parts };
            numbers(cx, node, split, ("split", 13), 1..=2)
        }
        "Slice" => slice(cx, node),
        "Pad" => pad(cx, node),
        "Gather" => plain(cx, node, ops::GatherAt { axis: axis(0)? }, 2..=2),
        "GatherElements" => plain(cx, node, ops::GatherElements { axis: axis(0)? }, 2..=2),
        "GatherND" => {
            let batch = node.int("batch_dims")?.unwrap_or(0);
            let batch_dims =
                usize::try_from(batch).map_err(|_| format!("attribute `batch_dims` must not be {batch}"))?;
            plain(cx, node, ops::GatherTuples { batch_dims }, 2..=2)
        }
        "Scatter" | "ScatterElements" => {
            let (update, int) = (update(node)?, int_of(cx, node)?);
            plain(cx, node, ops::ScatterElements { axis: axis(0)?, update, int }, 3..=3)
        }
        "ScatterND" => {
            let (update, int) = (update(node)?, int_of(cx, node)?);
            plain(cx, node, ops::ScatterTuples::new(update, int), 3..=3)
        }
        "ConstantOfShape" => constant_of_shape(cx, node),
        "Range" => plain(cx, node, ops::Range, 3..=3),
        "EyeLike" => {
            let dtype = match node.int("dtype")? {
                None => None,
                Some(n) => Some(DataType::of(i32::try_from(n).unwrap_or(0))?.element()),
            };
            plain(cx, node, ops::EyeLike { k: node.int("k")?.unwrap_or(0), dtype }, 1..=1)
        }
        "Trilu" => plain(cx, node, ops::Trilu { upper: node.flag("upper", true)? }, 1..=2),
        "OneHot" => plain(cx, node, ops::OneHot { axis: axis(-1)? }, 3..=3),
        "NonZero" => plain(cx, node, ops::NonZero, 1..=1),
        "ReverseSequence" => {
            let (batch, time) = (node.int("batch_axis")?.unwrap_or(1), node.int("time_axis")?.unwrap_or(0));
            let time_major = match (batch, time) {
                (1, 0) => true,
                (0, 1) => false,
                _ => {
                    return Err(format!(
                        "attributes `batch_axis` and `time_axis` must be 0 and 1 or 1 and 0, but they are {batch} and {time}"
                    )
                    .into());
                }
            };
            plain(cx, node, ops::ReverseSequence { time_major }, 2..=2)
        }
        "DepthToSpace" => {
            let (block, order) = blocks(node)?;
            plain(cx, node, ops::DepthToSpace { block, order }, 1..=1)
        }
        "SpaceToDepth" => {
            let (block, order) = blocks(node)?;
            plain(cx, node, ops::SpaceToDepth { block, order }, 1..=1)
        }
        "CumSum" => {
            let (exclusive, reverse) = (node.flag("exclusive", false)?, node.flag("reverse", false)?);
            let int = int_of(cx, node)?;
            plain(cx, node, ops::CumSum { exclusive, reverse, int }, 2..=2)
        }
        "TopK" => {
            let largest = node.flag("largest", true)?;
            // Sorted is one of the orders that unsorted may be.
            node.flag("sorted", true)?;
            let top_k = ops::TopK { axis: axis(-1)?, largest };
            if node.opset >= 10 {
                return plain(cx, node, top_k, 2..=2);
            }
            let k = node.int("k")?.ok_or("attribute `k` is missing")?;
            let (x, k) = (cx.input(node, 0)?, cx.ints(&[k])?);
            cx.outputs(node, top_k, &[Some(x), Some(k)])?;
            Ok(true)
        }
        name @ ("ArgMax" | "ArgMin") => {
            let which = Extreme { smallest: name == "ArgMin", last: node.flag("select_last_index", false)? };
            plain(cx, node, ops::ArgExtreme { axis: axis(0)?, which, keep: node.flag("keepdims", true)? }, 1..=1)
        }
        "Compress" => plain(cx, node, ops::Compress { axis: node.int("axis")? }, 2..=2),
        "Resize" => resize(cx, node),
        "Upsample" => upsample(cx, node),
        "Unique" => Err("is not supported: how many elements it gives depends on all of them".into()),
        _ => Ok(false),
    }
}

/// A node whose inputs are those of the operator.
fn plain(
    cx: &mut Context<'_>,
    node: &Node<'_>,
    operator: impl recurve_graph::Operator + 'static,
    count: core::ops::RangeInclusive<usize>,
) -> Lowered<bool> {
    let inputs = cx.inputs(node)?;
    if !count.contains(&inputs.len()) {
        return Err(format!("has {} inputs, expected {} to {}", inputs.len(), count.start(), count.end()).into());
    }
    cx.outputs(node, operator, &inputs)?;
    Ok(true)
}

/// A node whose second input was an attribute before an opset.
fn numbers(
    cx: &mut Context<'_>,
    node: &Node<'_>,
    operator: impl recurve_graph::Operator + 'static,
    (attribute, since): (&str, i64),
    count: core::ops::RangeInclusive<usize>,
) -> Lowered<bool> {
    if node.opset >= since {
        return plain(cx, node, operator, count);
    }
    let x = cx.input(node, 0)?;
    let numbers = match node.ints(attribute) {
        Some(numbers) => Some(cx.ints(numbers)?),
        None if count.contains(&1) => None,
        None => return Err(format!("attribute `{attribute}` is missing").into()),
    };
    cx.outputs(node, operator, &[Some(x), numbers])?;
    Ok(true)
}

/// The type of whole numbers of the first input.
fn int_of(cx: &mut Context<'_>, node: &Node<'_>) -> Lowered<Option<Int>> {
    let x = cx.input(node, 0)?;
    Ok(match cx.kind(x).dtype {
        Element::Int(int) => Some(int),
        _ => None,
    })
}

fn update(node: &Node<'_>) -> Lowered<Update> {
    Ok(match node.text("reduction")?.unwrap_or("none") {
        "none" => Update::Replace,
        "add" => Update::Add,
        "mul" => Update::Mul,
        "max" => Update::Max,
        "min" => Update::Min,
        other => return Err(format!("attribute `reduction` is {other:?}, not none, add, mul, max or min").into()),
    })
}

fn blocks(node: &Node<'_>) -> Lowered<(usize, ops::BlockOrder)> {
    let size = node.int("blocksize")?.ok_or("attribute `blocksize` is missing")?;
    let block = usize::try_from(size).ok().filter(|&b| b > 0);
    let block = block.ok_or_else(|| format!("attribute `blocksize` must be at least 1, but it is {size}"))?;
    let order = match node.text("mode")?.unwrap_or("DCR") {
        "DCR" => ops::BlockOrder::BlockFirst,
        "CRD" => ops::BlockOrder::ChannelFirst,
        other => return Err(format!("attribute `mode` is {other:?}, not DCR or CRD").into()),
    };
    Ok((block, order))
}

fn slice(cx: &mut Context<'_>, node: &Node<'_>) -> Lowered<bool> {
    if node.opset >= 10 {
        return plain(cx, node, ops::SliceBy, 3..=5);
    }
    let x = cx.input(node, 0)?;
    let needed = |name: &str| node.ints(name).ok_or_else(|| format!("attribute `{name}` is missing"));
    let (starts, ends) = (cx.ints(needed("starts")?)?, cx.ints(needed("ends")?)?);
    let axes = node.ints("axes").map(|a| cx.ints(a)).transpose()?;
    cx.outputs(node, ops::SliceBy, &[Some(x), Some(starts), Some(ends), axes])?;
    Ok(true)
}

/// The numbers of an input that is a constant, or else the input; neither if it is left out or has no elements.
fn floats(cx: &mut Context<'_>, node: &Node<'_>, index: usize) -> Lowered<(Option<Vec<f32>>, Option<ValueId>)> {
    let Some(id) = cx.optional(node, index)? else { return Ok((None, None)) };
    Ok(match cx.constant_of(id) {
        Some(Constant::Float(v)) => (Some(v.to_vec()).filter(|v| !v.is_empty()), None),
        _ => (None, Some(id)),
    })
}

fn pad(cx: &mut Context<'_>, node: &Node<'_>) -> Lowered<bool> {
    let old = node.opset < 11;
    let mut value = if old { node.float("value")?.unwrap_or(0.0).into() } else { 0.0 };
    // A constant is no operand: a device then has nothing to read.
    let mut operand = if old { None } else { cx.optional(node, 2)? };
    match operand.and_then(|id| cx.constant_of(id)) {
        Some(Constant::Float(v)) if v.len() == 1 => (value, operand) = (v[0].into(), None),
        Some(Constant::Bool(v)) if v.len() == 1 => (value, operand) = (v[0] as f64, None),
        _ => {}
    }
    let mode = match node.text("mode")?.unwrap_or("constant") {
        "constant" => ops::PadMode::Constant(value),
        "reflect" => ops::PadMode::Reflect,
        "edge" => ops::PadMode::Edge,
        "wrap" if node.opset >= 19 => ops::PadMode::Wrap,
        other => return Err(format!("attribute `mode` is {other:?}, not constant, reflect, edge or wrap").into()),
    };
    if !matches!(mode, ops::PadMode::Constant(_)) {
        operand = None;
    }
    let x = cx.input(node, 0)?;
    if old {
        let pads = cx.ints(node.ints("pads").ok_or("attribute `pads` is missing")?)?;
        cx.outputs(node, ops::Pad(mode), &[Some(x), Some(pads)])?;
        return Ok(true);
    }
    let (pads, axes) = (cx.input(node, 1)?, cx.optional(node, 3)?);
    cx.outputs(node, ops::Pad(mode), &[Some(x), Some(pads), operand, axes])?;
    Ok(true)
}

fn constant_of_shape(cx: &mut Context<'_>, node: &Node<'_>) -> Lowered<bool> {
    let one = |n: usize| if n == 1 { Ok(()) } else { Err(format!("attribute `value` must be one number, not {n}")) };
    let (dtype, float, int) = match node.tensor("value") {
        None => (Element::F32, 0.0, 0),
        Some(t) => {
            let (_, numbers) = tensor::constant(t, None)?;
            one(numbers.count())?;
            match &numbers {
                Constant::Float(v) => (Element::F32, v[0], 0),
                Constant::Int(int, v) => (Element::Int(*int), 0.0, v[0]),
                Constant::Bool(v) => (Element::Bool, 0.0, v[0]),
                _ => return Err("attribute `value` is of an unknown type".into()),
            }
        }
    };
    plain(cx, node, ops::ConstantOfShape { dtype, float, int }, 1..=1)
}

fn resize(cx: &mut Context<'_>, node: &Node<'_>) -> Lowered<bool> {
    let old = node.opset < 11;
    let interpolation = match (node.text("mode")?.unwrap_or("nearest"), node.text("nearest_mode")?) {
        ("nearest", nearest) => ops::Interpolation::Nearest(match nearest.unwrap_or("round_prefer_floor") {
            // Before opset 11 the element before was taken.
            _ if old => ops::Nearest::Floor,
            "round_prefer_floor" => ops::Nearest::PreferFloor,
            "round_prefer_ceil" => ops::Nearest::PreferCeil,
            "floor" => ops::Nearest::Floor,
            "ceil" => ops::Nearest::Ceil,
            other => return Err(format!("attribute `nearest_mode` is {other:?}, which is unknown").into()),
        }),
        ("linear" | "bilinear", _) => ops::Interpolation::Linear,
        ("cubic", _) => ops::Interpolation::Cubic(node.float("cubic_coeff_a")?.unwrap_or(-0.75)),
        (other, _) => return Err(format!("attribute `mode` is {other:?}, not nearest, linear or cubic").into()),
    };
    // It has a meaning for cubics alone.
    node.float("cubic_coeff_a")?;
    let coordinates = match node.text("coordinate_transformation_mode")?.unwrap_or("half_pixel") {
        _ if old => ops::Coordinates::Asymmetric,
        "half_pixel" => ops::Coordinates::HalfPixel,
        "half_pixel_symmetric" => ops::Coordinates::HalfPixelSymmetric,
        "pytorch_half_pixel" => ops::Coordinates::PytorchHalfPixel,
        "align_corners" => ops::Coordinates::AlignCorners,
        "asymmetric" => ops::Coordinates::Asymmetric,
        "tf_crop_and_resize" => ops::Coordinates::CropAndResize,
        other => {
            return Err(
                format!("attribute `coordinate_transformation_mode` is {other:?}, which is not supported").into()
            );
        }
    };
    let policy = match node.text("keep_aspect_ratio_policy")?.unwrap_or("stretch") {
        "stretch" => ops::Policy::Stretch,
        "not_larger" => ops::Policy::NotLarger,
        "not_smaller" => ops::Policy::NotSmaller,
        other => return Err(format!("attribute `keep_aspect_ratio_policy` is {other:?}, which is unknown").into()),
    };
    let antialias = node.flag("antialias", false)?;
    if antialias && matches!(interpolation, ops::Interpolation::Nearest(_)) {
        return Err("attribute `antialias` has no meaning where the nearest element is taken".into());
    }
    let x = cx.input(node, 0)?;
    let at = if old { 1 } else { 2 };
    let sizes = if old { None } else { cx.optional(node, 3)? };
    let (scales, computed) = floats(cx, node, at)?;
    let (region, roi) = match coordinates {
        ops::Coordinates::CropAndResize => floats(cx, node, 1)?,
        _ => (None, None),
    };
    let resize = ops::Resize {
        interpolation,
        coordinates,
        axes: node.ints("axes").map(<[i64]>::to_vec),
        scales,
        region,
        antialias,
        exclude_outside: node.flag("exclude_outside", false)?,
        extrapolation: node.float("extrapolation_value")?.unwrap_or(0.0),
        policy,
    };
    finish_resize(cx, node, resize, [Some(x), sizes, computed, roi])
}

fn finish_resize(
    cx: &mut Context<'_>,
    node: &Node<'_>,
    resize: ops::Resize,
    inputs: [Option<ValueId>; 4],
) -> Lowered<bool> {
    if (resize.scales.is_some() || inputs[2].is_some()) == inputs[1].is_some() {
        return Err("must have either scales or sizes".into());
    }
    cx.outputs(node, resize, &inputs)?;
    Ok(true)
}

fn upsample(cx: &mut Context<'_>, node: &Node<'_>) -> Lowered<bool> {
    let interpolation = match node.text("mode")?.unwrap_or("nearest") {
        "nearest" => ops::Interpolation::Nearest(ops::Nearest::Floor),
        "linear" | "bilinear" => ops::Interpolation::Linear,
        other => return Err(format!("attribute `mode` is {other:?}, not nearest or linear").into()),
    };
    let x = cx.input(node, 0)?;
    let (scales, computed) = match node.opset {
        ..9 => (node.floats("scales").map(<[f32]>::to_vec), None),
        _ => floats(cx, node, 1)?,
    };
    let resize = ops::Resize {
        interpolation,
        coordinates: ops::Coordinates::Asymmetric,
        axes: None,
        scales,
        region: None,
        antialias: false,
        exclude_outside: false,
        extrapolation: 0.0,
        policy: ops::Policy::Stretch,
    };
    finish_resize(cx, node, resize, [Some(x), None, computed, None])
}
