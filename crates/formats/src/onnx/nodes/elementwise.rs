//! Elementwise operators.

use super::prelude::*;
use crate::onnx::tensor::DataType;
use recurve_graph::ops::{Binary, Cast, Extent, Map, Target, Whole};
use recurve_graph::{Constant, Element, Int, ValueId};
use recurve_tensor::{Activation, Function, Reduction};

/// Brings a node into the graph, if it is one of these.
///
/// # Errors
/// Why it cannot be.
pub(super) fn lower(cx: &mut Context<'_>, node: &Node<'_>) -> Lowered<bool> {
    if !node.domain().is_empty() {
        return Ok(false);
    }
    if let Some(f) = function(node)? {
        let x = cx.input(node, 0)?;
        let element = cx.kind(x).dtype;
        cx.outputs(node, Map { function: f, element }, &[Some(x)])?;
        return Ok(true);
    }
    if let Some(f) = activation(node)? {
        let x = cx.input(node, 0)?;
        match (f, cx.kind(x).dtype) {
            (Activation::Relu, element @ Element::Int(int)) => {
                let zero = cx.constant(&[], Constant::Int(int, [0].into()))?;
                cx.outputs(node, Whole { operation: Binary::Max, element }, &[Some(x), Some(zero)])?;
            }
            _ => cx.outputs(node, ops::Activate(f), &[Some(x)])?,
        }
        return Ok(true);
    }
    match node.operator() {
        "Add" => pair(cx, node, Binary::Add)?,
        "Sub" => pair(cx, node, Binary::Sub)?,
        "Mul" => pair(cx, node, Binary::Mul)?,
        "Div" => pair(cx, node, Binary::Div)?,
        "PRelu" => pair(cx, node, Binary::PRelu)?,
        "Equal" => pair(cx, node, Binary::Equal)?,
        "Less" => pair(cx, node, Binary::Less)?,
        "LessOrEqual" => pair(cx, node, Binary::LessOrEqual)?,
        "Greater" => pair(cx, node, Binary::Greater)?,
        "GreaterOrEqual" => pair(cx, node, Binary::GreaterOrEqual)?,
        "And" => pair(cx, node, Binary::And)?,
        "Or" => pair(cx, node, Binary::Or)?,
        "Xor" => pair(cx, node, Binary::Xor)?,
        "BitwiseAnd" => pair(cx, node, Binary::BitAnd)?,
        "BitwiseOr" => pair(cx, node, Binary::BitOr)?,
        "BitwiseXor" => pair(cx, node, Binary::BitXor)?,
        "BitwiseNot" => bitwise_not(cx, node)?,
        "BitShift" => match node.text("direction")? {
            Some("LEFT") => pair(cx, node, Binary::ShiftLeft)?,
            Some("RIGHT") => pair(cx, node, Binary::ShiftRight)?,
            _ => return Err("attribute `direction` must be LEFT or RIGHT".into()),
        },
        "Mod" => modulo(cx, node)?,
        "Pow" => power(cx, node)?,
        "Max" => many(cx, node, Binary::Max, false)?,
        "Min" => many(cx, node, Binary::Min, false)?,
        "Sum" => many(cx, node, Binary::Add, false)?,
        "Mean" => many(cx, node, Binary::Add, true)?,
        "Clip" => clip(cx, node)?,
        "Identity" => {
            let x = cx.input(node, 0)?;
            cx.outputs(node, ops::Identity, &[Some(x)])?;
        }
        "Where" => {
            let [mut condition, x, y] = [cx.input(node, 0)?, cx.input(node, 1)?, cx.input(node, 2)?];
            // A constant that chooses between floats is brought to the device once.
            if cx.constant_of(condition).is_some() && cx.kind(x).dtype.is_float() {
                condition = as_float(cx, node, condition)?;
            }
            let all = [condition, x, y].map(Some);
            cx.outputs(node, ops::Where, &all)?;
        }
        "Cast" => {
            // They say how floats of 8 bits are rounded, which are refused.
            let _ = (node.int("saturate")?, node.text("round_mode")?);
            let to = node.int("to")?.ok_or("attribute `to` is missing")?;
            cast(cx, node, data_type(to)?)?;
        }
        "CastLike" => {
            let _ = (node.int("saturate")?, node.text("round_mode")?);
            let like = cx.input(node, 1)?;
            let to = match cx.kind(like).dtype {
                Element::Int(int) => DataType::Int(int),
                Element::Bool => DataType::Bool,
                _ => cx.float_of(like),
            };
            cast(cx, node, to)?;
        }
        "Dropout" => dropout(cx, node)?,
        "QuantizeLinear" => quantize(cx, node)?,
        "DequantizeLinear" => dequantize(cx, node)?,
        "DynamicQuantizeLinear" => dynamic_quantize(cx, node)?,
        "MatMulInteger" => matmul_integer(cx, node)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Operators that are a function of one operand.
fn function(node: &Node<'_>) -> Lowered<Option<Function>> {
    Ok(Some(match node.operator() {
        "Abs" => Function::Abs,
        "Acos" => Function::Acos,
        "Acosh" => Function::Acosh,
        "Asin" => Function::Asin,
        "Asinh" => Function::Asinh,
        "Atan" => Function::Atan,
        "Atanh" => Function::Atanh,
        "Ceil" => Function::Ceil,
        "Cos" => Function::Cos,
        "Cosh" => Function::Cosh,
        "Erf" => Function::Erf,
        "Exp" => Function::Exp,
        "Floor" => Function::Floor,
        "IsInf" => Function::IsInf {
            negative: node.flag("detect_negative", true)?,
            positive: node.flag("detect_positive", true)?,
        },
        "IsNaN" => Function::IsNan,
        "Log" => Function::Log,
        "Neg" => Function::Neg,
        "Not" => Function::Not,
        "Reciprocal" => Function::Reciprocal,
        "Round" => Function::Round,
        "Sign" => Function::Sign,
        "Sin" => Function::Sin,
        "Sinh" => Function::Sinh,
        "Sqrt" => Function::Sqrt,
        "Tan" => Function::Tan,
        "Celu" => match node.float("alpha")?.unwrap_or(1.0) {
            alpha if alpha != 0.0 && alpha.is_finite() => Function::Celu { alpha },
            alpha => return Err(format!("attribute `alpha` must be finite and not 0, but it is {alpha}").into()),
        },
        "Selu" => Function::Selu {
            alpha: node.float("alpha")?.unwrap_or(1.673_263_2),
            gamma: node.float("gamma")?.unwrap_or(1.050_701),
        },
        "HardSwish" => Function::HardSwish,
        "Gelu" => match node.text("approximate")?.unwrap_or("none") {
            "none" => Function::Gelu,
            "tanh" => Function::GeluTanh,
            _ => return Err("attribute `approximate` must be none or tanh".into()),
        },
        "Mish" => Function::Mish,
        "Swish" => Function::Swish { alpha: node.float("alpha")?.unwrap_or(1.0) },
        _ => return Ok(None),
    }))
}

/// Operators that are an activation of cells too.
fn activation(node: &Node<'_>) -> Lowered<Option<Activation>> {
    let alpha = |default: f32| node.float("alpha").map(|a| a.unwrap_or(default));
    Ok(Some(match node.operator() {
        "Sigmoid" => Activation::Sigmoid,
        "Tanh" => Activation::Tanh,
        "Relu" => Activation::Relu,
        "Softplus" => Activation::Softplus,
        "Softsign" => Activation::Softsign,
        "Elu" => Activation::Elu { alpha: alpha(1.0)? },
        "LeakyRelu" => Activation::LeakyRelu { alpha: alpha(0.01)? },
        "ThresholdedRelu" => Activation::ThresholdedRelu { alpha: alpha(1.0)? },
        "HardSigmoid" => Activation::HardSigmoid { alpha: alpha(0.2)?, beta: node.float("beta")?.unwrap_or(0.5) },
        _ => return Ok(None),
    }))
}

fn two(cx: &mut Context<'_>, node: &Node<'_>) -> Lowered<[Option<ValueId>; 2]> {
    Ok([cx.input(node, 0)?, cx.input(node, 1)?].map(Some))
}

/// A function of two operands, by their type.
fn pair(cx: &mut Context<'_>, node: &Node<'_>, operation: Binary) -> Lowered {
    let inputs = two(cx, node)?;
    combined(cx, node, operation, inputs, true).map(drop)
}

/// A function of two operands, by their type: what the node gives if it is the `last` step, else one on the way.
fn combined(
    cx: &mut Context<'_>,
    node: &Node<'_>,
    operation: Binary,
    inputs: [Option<ValueId>; 2],
    last: bool,
) -> Lowered<Option<ValueId>> {
    let element = inputs[0].map_or(Element::F32, |id| cx.kind(id).dtype);
    match (element.is_whole(), last) {
        (true, true) => cx.outputs(node, Whole { operation, element }, &inputs).map(|()| None),
        (true, false) => cx.emit(node, Whole { operation, element }, &inputs).map(Some),
        (false, true) => cx.outputs(node, operation, &inputs).map(|()| None),
        (false, false) => cx.emit(node, operation, &inputs).map(Some),
    }
}

/// Any number of operands, one after another; then perhaps divided by how many there are.
fn many(cx: &mut Context<'_>, node: &Node<'_>, operation: Binary, mean: bool) -> Lowered {
    let count = node.inputs().len();
    let mut value = cx.input(node, 0)?;
    for n in 1..count {
        let inputs = [Some(value), Some(cx.input(node, n)?)];
        match combined(cx, node, operation, inputs, n + 1 == count && !mean)? {
            Some(next) => value = next,
            None => return Ok(()),
        }
    }
    if !mean {
        return cx.bind(node, 0, value);
    }
    let divisor = cx.float(count as f32)?;
    cx.outputs(node, Binary::Div, &[Some(value), Some(divisor)])
}

fn bitwise_not(cx: &mut Context<'_>, node: &Node<'_>) -> Lowered {
    let x = cx.input(node, 0)?;
    let element @ Element::Int(int) = cx.kind(x).dtype else { return Err("`X` must be whole numbers".into()) };
    let ones = cx.constant(&[], Constant::Int(int, [int.wrap(-1)].into()))?;
    cx.outputs(node, Whole { operation: Binary::BitXor, element }, &[Some(x), Some(ones)])
}

fn modulo(cx: &mut Context<'_>, node: &Node<'_>) -> Lowered {
    let (inputs, fmod) = (two(cx, node)?, node.flag("fmod", false)?);
    if !fmod && node.opset < 28 && inputs[0].is_some_and(|id| cx.kind(id).dtype.is_float()) {
        return Err("attribute `fmod` must be 1 for floats before operator set 28".into());
    }
    combined(cx, node, if fmod { Binary::Remainder } else { Binary::Modulo }, inputs, true).map(drop)
}

fn power(cx: &mut Context<'_>, node: &Node<'_>) -> Lowered {
    let [a, b] = [cx.input(node, 0)?, cx.input(node, 1)?];
    let [from, exponent] = [a, b].map(|id| cx.kind(id).dtype);
    match (from, exponent.is_float()) {
        (Element::Int(_), true) => {
            // As floats, of which the whole part is taken.
            let wide = as_float(cx, node, a)?;
            let y = cx.emit(node, Binary::Pow, &[Some(wide), Some(b)])?;
            let Element::Int(int) = from else { unreachable!("matched above") };
            cx.outputs(node, Cast { from: Element::F32, to: Target::Int(int) }, &[Some(y)])
        }
        (Element::Int(int), false) => {
            let to = Cast { from: exponent, to: Target::Int(int) };
            let b = if exponent == from { b } else { cx.emit(node, to, &[Some(b)])? };
            cx.outputs(node, Whole { operation: Binary::Pow, element: from }, &[Some(a), Some(b)])
        }
        _ => {
            let b = as_float(cx, node, b)?;
            cx.outputs(node, Binary::Pow, &[Some(a), Some(b)])
        }
    }
}

/// The value as floats.
pub(super) fn as_float(cx: &mut Context<'_>, node: &Node<'_>, id: ValueId) -> Lowered<ValueId> {
    match cx.kind(id).dtype {
        from if from.is_whole() => cx.emit(node, Cast { from, to: Target::F32 }, &[Some(id)]),
        _ => Ok(id),
    }
}

/// The one number of a float constant.
fn number(cx: &Context<'_>, id: ValueId) -> Option<f32> {
    match cx.constant_of(id)? {
        Constant::Float(v) if v.len() == 1 => Some(v[0]),
        _ => None,
    }
}

fn clip(cx: &mut Context<'_>, node: &Node<'_>) -> Lowered {
    let x = cx.input(node, 0)?;
    let element = cx.kind(x).dtype;
    // What is left out is the least and the largest finite number: infinities are cut too.
    if node.opset < 11 {
        let low = node.float("min")?.unwrap_or(f32::MIN);
        let high = node.float("max")?.unwrap_or(f32::MAX);
        return cx.outputs(node, Map { function: Function::Clip { low, high }, element }, &[Some(x)]);
    }
    let (low, high) = (cx.optional(node, 1)?, cx.optional(node, 2)?);
    if let Element::Int(int) = element {
        let (least, largest) = match int {
            Int::U64 => (0, -1),
            _ => int.range(),
        };
        let mut end = |id: Option<ValueId>, open: i64| match id {
            Some(id) => Ok(id),
            None => cx.constant(&[], Constant::Int(int, [open].into())),
        };
        let (low, high) = (end(low, least)?, end(high, largest)?);
        return clip_between(cx, node, x, low, high);
    }
    let fixed = |id: Option<ValueId>, open: f32| match id {
        None => Some(open),
        Some(id) => number(cx, id).filter(|v| !v.is_nan()),
    };
    if let (Some(low), Some(high)) = (fixed(low, f32::MIN), fixed(high, f32::MAX)) {
        return cx.outputs(node, Map { function: Function::Clip { low, high }, element }, &[Some(x)]);
    }
    let low = low.map_or_else(|| cx.float(f32::MIN), Ok)?;
    let high = high.map_or_else(|| cx.float(f32::MAX), Ok)?;
    clip_between(cx, node, x, low, high)
}

fn clip_between(cx: &mut Context<'_>, node: &Node<'_>, x: ValueId, low: ValueId, high: ValueId) -> Lowered {
    let y = combined(cx, node, Binary::Max, [Some(x), Some(low)], false)?;
    combined(cx, node, Binary::Min, [y, Some(high)], true).map(drop)
}

fn data_type(number: i64) -> Lowered<DataType> {
    let number = i32::try_from(number).map_err(|_| format!("element type number {number} is unknown"))?;
    Ok(DataType::of(number)?)
}

const fn target(to: DataType) -> Target {
    match to {
        DataType::Float | DataType::Double => Target::F32,
        DataType::Float16 => Target::F16,
        DataType::BFloat16 => Target::Bf16,
        DataType::Int(int) => Target::Int(int),
        DataType::Bool => Target::Bool,
    }
}

fn cast(cx: &mut Context<'_>, node: &Node<'_>, to: DataType) -> Lowered {
    let x = cx.input(node, 0)?;
    let from = cx.kind(x).dtype;
    let y = cx.emit(node, Cast { from, to: target(to) }, &[Some(x)])?;
    cx.set_float(y, to);
    cx.bind(node, 0, y)
}

fn dropout(cx: &mut Context<'_>, node: &Node<'_>) -> Lowered {
    let x = cx.input(node, 0)?;
    // Without training nothing is random, and nothing is scaled.
    let _ = (node.int("seed")?, node.float("ratio")?);
    if let Some(training) = cx.optional(node, 2)? {
        let ratio = match cx.optional(node, 1)? {
            Some(id) => number(cx, id),
            None => Some(0.5),
        };
        let training = cx.kind(training).content();
        if training.as_deref() != Some(&[0]) && ratio != Some(0.0) {
            return Err("`training_mode` must be a constant that is false: there is no training here".into());
        }
    }
    if node.has_output(1) {
        if node.opset < 10 {
            return Err("its second output is supported from operator set 10 on".into());
        }
        let mask = cx.emit(node, ops::AllTrue, &[Some(x)])?;
        cx.bind(node, 1, mask)?;
    }
    let y = cx.emit(node, ops::Identity, &[Some(x)])?;
    cx.bind(node, 0, y)
}

/// How scales and zero points lie beside the elements that they belong to.
enum Granularity {
    /// One for all.
    Tensor,
    /// One for each index of an axis; the axes that follow it.
    Axis(usize),
    /// One for so many elements along an axis: the axis, the number of blocks and their size.
    Blocks { axis: usize, rank: usize, count: usize, size: usize },
}

impl Granularity {
    fn of(cx: &Context<'_>, node: &Node<'_>, x: ValueId, scale: ValueId) -> Lowered<Self> {
        let (axis, block) = (node.int("axis")?.unwrap_or(1), node.int("block_size")?.unwrap_or(0));
        let (x, scale) = (cx.kind(x), cx.kind(scale));
        if scale.unranked {
            return Err("the scale must have a known number of dimensions".into());
        }
        if scale.rank() == 0 || block == 0 && scale.shape().as_deref() == Some(&[1]) {
            return Ok(Self::Tensor);
        }
        if x.unranked {
            return Err("`x` must have a known number of dimensions where there is more than one scale".into());
        }
        let rank = x.rank();
        let at = if axis < 0 { axis + rank as i64 } else { axis };
        let at = usize::try_from(at).ok().filter(|&a| a < rank);
        let at = at.ok_or_else(|| format!("attribute `axis` must be from -{rank} to {rank} - 1, but it is {axis}"))?;
        if block == 0 {
            return match scale.rank() {
                1 => Ok(Self::Axis(rank - at - 1)),
                _ => Err("the scale must have one dimension, or attribute `block_size` be given".into()),
            };
        }
        let size = usize::try_from(block).map_err(|_| format!("attribute `block_size` is {block}"))?;
        if scale.rank() != rank {
            return Err("the scale must have as many dimensions as `x` where attribute `block_size` is given".into());
        }
        match (x.dims[at].size(), scale.dims[at].size()) {
            (Some(n), Some(count)) if count.checked_mul(size) == Some(n) => {
                Ok(Self::Blocks { axis: at, rank, count, size })
            }
            _ => Err(format!("axis {at} must be so many whole blocks of {size} as there are scales").into()),
        }
    }

    /// A scale or a zero point, so that it can be broadcast.
    fn beside(&self, cx: &mut Context<'_>, node: &Node<'_>, id: ValueId) -> Lowered<ValueId> {
        let dims = match *self {
            Self::Tensor | Self::Axis(0) => return Ok(id),
            Self::Axis(after) => [Extent::Axes(0, 1)].into_iter().chain(vec![Extent::Size(1); after]).collect(),
            Self::Blocks { axis, rank, count, .. } => Self::split(axis, rank, [count, 1]),
        };
        cx.emit(node, ops::Reshape(dims), &[Some(id)])
    }

    /// Every axis as it is, but for one that becomes two.
    fn split(axis: usize, rank: usize, parts: [usize; 2]) -> Vec<Extent> {
        let before = (0..axis).map(|n| Extent::Axes(n, 1));
        before.chain(parts.map(Extent::Size)).chain((axis + 1..rank).map(|n| Extent::Axes(n, 1))).collect()
    }

    /// The elements, so that scales can be broadcast with them.
    fn divided(&self, cx: &mut Context<'_>, node: &Node<'_>, x: ValueId) -> Lowered<ValueId> {
        match *self {
            Self::Blocks { axis, rank, count, size } => {
                cx.emit(node, ops::Reshape(Self::split(axis, rank, [count, size])), &[Some(x)])
            }
            _ => Ok(x),
        }
    }

    /// The elements as they were.
    fn joined(&self, cx: &mut Context<'_>, node: &Node<'_>, x: ValueId) -> Lowered<ValueId> {
        match *self {
            Self::Blocks { axis, rank, .. } => {
                let before = (0..axis).map(|n| Extent::Axes(n, 1));
                let dims = before.chain([Extent::Axes(axis, 2)]).chain((axis + 2..=rank).map(|n| Extent::Axes(n, 1)));
                cx.emit(node, ops::Reshape(dims.collect()), &[Some(x)])
            }
            _ => Ok(x),
        }
    }
}

/// Attribute `output_dtype`, if it says something.
fn output_type(node: &Node<'_>) -> Lowered<Option<DataType>> {
    node.int("output_dtype")?.filter(|&n| n != 0).map(data_type).transpose()
}

fn quantize(cx: &mut Context<'_>, node: &Node<'_>) -> Lowered {
    // It says how floats of 8 bits are rounded, which are refused.
    let _ = node.int("saturate")?;
    if let Some(precision) = node.int("precision")?.filter(|&n| n != 0) {
        match data_type(precision)? {
            DataType::Float => {}
            _ => return Err("attribute `precision` must be float32".into()),
        }
    }
    let (x, scale, zero) = (cx.input(node, 0)?, cx.input(node, 1)?, cx.optional(node, 2)?);
    let int = match (zero.map(|z| cx.kind(z).dtype), output_type(node)?) {
        (Some(Element::Int(int)), _) | (None, Some(DataType::Int(int))) => int,
        (None, None) => Int::U8,
        _ => return Err("gives another type than whole numbers, which is not supported".into()),
    };
    let granularity = Granularity::of(cx, node, x, scale)?;
    let x = as_float(cx, node, x)?;
    let x = granularity.divided(cx, node, x)?;
    let scale = granularity.beside(cx, node, scale)?;
    let zero = match zero {
        Some(zero) => {
            let zero = as_float(cx, node, zero)?;
            Some(granularity.beside(cx, node, zero)?)
        }
        None => None,
    };
    let y = quantized(cx, node, x, scale, zero, int)?;
    let y = granularity.joined(cx, node, y)?;
    cx.outputs(node, Cast { from: Element::F32, to: Target::Int(int) }, &[Some(y)])
}

/// `x / scale` rounded, the zero point added, cut to the numbers of a type.
fn quantized(
    cx: &mut Context<'_>,
    node: &Node<'_>,
    x: ValueId,
    scale: ValueId,
    zero: Option<ValueId>,
    int: Int,
) -> Lowered<ValueId> {
    let y = cx.emit(node, Binary::Div, &[Some(x), Some(scale)])?;
    // The quotient is an f32 before it is rounded: halves of the truth are those of the devices.
    let y = cx.emit(node, Cast { from: Element::F32, to: Target::F32 }, &[Some(y)])?;
    let mut y = cx.emit(node, Map { function: Function::Round, element: Element::F32 }, &[Some(y)])?;
    if let Some(zero) = zero {
        y = cx.emit(node, Binary::Add, &[Some(y), Some(zero)])?;
    }
    let (low, high) = int.range();
    let function = Function::Clip { low: low as f32, high: high as f32 };
    cx.emit(node, Map { function, element: Element::F32 }, &[Some(y)])
}

fn dequantize(cx: &mut Context<'_>, node: &Node<'_>) -> Lowered {
    let (x, scale, zero) = (cx.input(node, 0)?, cx.input(node, 1)?, cx.optional(node, 2)?);
    let to = match output_type(node)?.map(target) {
        None | Some(Target::F32) => Target::F32,
        Some(to @ (Target::F16 | Target::Bf16)) => to,
        Some(_) => return Err("attribute `output_dtype` must be a float type".into()),
    };
    let granularity = Granularity::of(cx, node, x, scale)?;
    let y = as_float(cx, node, x)?;
    let mut y = granularity.divided(cx, node, y)?;
    if let Some(zero) = zero {
        let zero = as_float(cx, node, zero)?;
        let zero = granularity.beside(cx, node, zero)?;
        y = cx.emit(node, Binary::Sub, &[Some(y), Some(zero)])?;
    }
    let scale = granularity.beside(cx, node, scale)?;
    let y = cx.emit(node, Binary::Mul, &[Some(y), Some(scale)])?;
    let y = granularity.joined(cx, node, y)?;
    cx.outputs(node, Cast { from: Element::F32, to }, &[Some(y)])
}

fn dynamic_quantize(cx: &mut Context<'_>, node: &Node<'_>) -> Lowered {
    let x = cx.input(node, 0)?;
    let kind = cx.kind(x);
    if kind.unranked {
        return Err("`x` must have a known number of dimensions".into());
    }
    let flat = ops::Reshape(vec![Extent::Axes(0, kind.rank())]);
    let flat = cx.emit(node, flat, &[Some(x)])?;
    // What lies between the extremes and 0.
    let mut ends = [flat; 2];
    for (end, reduction) in ends.iter_mut().zip([Reduction::Min, Reduction::Max]) {
        let extreme = cx.emit(node, ops::Reduce { reduction, axis: 0 }, &[Some(flat)])?;
        let extreme = cx.emit(node, ops::Reshape(Vec::new()), &[Some(extreme)])?;
        let (low, high) = match reduction {
            Reduction::Min => (f32::NEG_INFINITY, 0.0),
            _ => (0.0, f32::INFINITY),
        };
        let function = Function::Clip { low, high };
        *end = cx.emit(node, Map { function, element: Element::F32 }, &[Some(extreme)])?;
    }
    let [low, high] = ends.map(Some);
    let range = cx.emit(node, Binary::Sub, &[high, low])?;
    let steps = cx.float(255.0)?;
    let scale = cx.emit(node, Binary::Div, &[Some(range), Some(steps)])?;
    // Where everything is 0 any scale will do; ONNX Runtime gives 1.
    let empty = cx.emit(node, Map { function: Function::Not, element: Element::F32 }, &[Some(range)])?;
    let one = cx.float(1.0)?;
    let scale = cx.emit(node, ops::Where, &[Some(empty), Some(one), Some(scale)])?;
    // The scale that is given is an f32, and by that one the elements are divided.
    let scale = cx.emit(node, Cast { from: Element::F32, to: Target::F32 }, &[Some(scale)])?;
    let mut zero = cx.emit(node, Binary::Div, &[low, Some(scale)])?;
    for function in [Function::Neg, Function::Clip { low: 0.0, high: 255.0 }, Function::Round] {
        zero = cx.emit(node, Map { function, element: Element::F32 }, &[Some(zero)])?;
    }
    let y = quantized(cx, node, x, scale, Some(zero), Int::U8)?;
    let cast = Cast { from: Element::F32, to: Target::Int(Int::U8) };
    let y = cx.emit(node, cast, &[Some(y)])?;
    let zero = cx.emit(node, cast, &[Some(zero)])?;
    [y, scale, zero].into_iter().enumerate().try_for_each(|(n, id)| cx.bind(node, n, id))
}

/// In f32, where sums are exact as long as they are below 2^24.
fn matmul_integer(cx: &mut Context<'_>, node: &Node<'_>) -> Lowered {
    let mut operands = [cx.input(node, 0)?, cx.input(node, 1)?];
    for (n, x) in operands.iter_mut().enumerate() {
        *x = as_float(cx, node, *x)?;
        let Some(zero) = cx.optional(node, n + 2)? else { continue };
        let mut zero = as_float(cx, node, zero)?;
        let kind = cx.kind(zero);
        // One for each row of `A`.
        if n == 0 && kind.rank() == 1 && kind.shape().as_deref() != Some(&[1]) {
            zero = cx.emit(node, ops::Reshape(vec![Extent::Axes(0, 1), Extent::Size(1)]), &[Some(zero)])?;
        }
        *x = cx.emit(node, Binary::Sub, &[Some(*x), Some(zero)])?;
    }
    let y = cx.emit(node, ops::MatMul, &operands.map(Some))?;
    cx.outputs(node, Cast { from: Element::F32, to: Target::Int(Int::I32) }, &[Some(y)])
}
