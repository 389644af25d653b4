//! RNN, GRU and LSTM.

use super::prelude::*;
use recurve_graph::{Constant, ValueId};
use recurve_vocabulary::{Activation, Cell, CellKind, Direction};

/// Brings a node into the graph, if it is one of these.
///
/// # Errors
/// Why it cannot be.
pub(super) fn lower(cx: &mut Context<'_>, node: &Node<'_>) -> Lowered<bool> {
    let kind = match (node.domain(), node.operator()) {
        ("", "RNN") => CellKind::Rnn,
        ("", "GRU") => CellKind::Gru { reset_after: node.flag("linear_before_reset", false)? },
        ("", "LSTM") | ("com.microsoft", "DynamicQuantizeLSTM") => {
            CellKind::Lstm { coupled: node.flag("input_forget", false)? }
        }
        _ => return Ok(false),
    };
    let unsaid = kind == CellKind::Gru { reset_after: false } && node.int("linear_before_reset")?.is_none();
    if unsaid && cx.producer.eq_ignore_ascii_case("pytorch") {
        cx.notes.push(format!(
            "node `{}` (GRU): PyTorch's GRU applies the reset gate after the product, which ONNX calls \
             `linear_before_reset` = 1, but this node does not have the attribute. Some versions of PyTorch's exporter \
             leave it out; the outputs are then not PyTorch's",
            node.label()
        ));
    }
    let directions = match node.text("direction")?.unwrap_or("forward") {
        "forward" => vec![Direction::Forward],
        "reverse" => vec![Direction::Reverse],
        "bidirectional" => vec![Direction::Forward, Direction::Reverse],
        other => {
            return Err(format!("attribute `direction` is {other:?}, not forward, reverse or bidirectional").into());
        }
    };
    let quantized = !node.domain().is_empty();
    // The quantized operator has no layout.
    let batch_first = !quantized && node.flag("layout", false)?;
    let clip = node.float("clip")?;
    if clip.is_some_and(|c| c.is_nan() || c <= 0.0) {
        return Err("attribute `clip` must be above 0".into());
    }
    let cell = Cell { clip, ..Cell::with_kind(kind) };
    let cells = activations(node, cell, directions.len())?;

    let mut inputs = cx.inputs(node)?;
    if quantized {
        inputs = dequantized(cx, node, directions.len(), &inputs)?;
    }
    let get = |n: usize| inputs.get(n).copied().flatten();
    let hidden = match node.int("hidden_size")? {
        Some(h) => usize::try_from(h).ok().filter(|h| *h > 0),
        // R is [directions, gates · hidden, hidden].
        None => get(2).and_then(|r| cx.kind(r).dims.last().and_then(recurve_graph::Dim::size)),
    };
    let hidden_size = hidden.ok_or("attribute `hidden_size` must be at least 1")?;
    let directions = directions.into_iter().zip(cells).collect();
    let rnn = ops::Rnn { directions, hidden_size, batch_first, merged: false, tokens: None };
    // X, W, R, B, sequence_lens, initial_h, initial_c, P
    let order = [get(0), get(4), get(5), get(6), get(1), get(2), get(3), get(7)];
    if inputs.len() > 8 {
        return Err(format!("has {} inputs, but at most 8 have a meaning", inputs.len()).into());
    }
    cx.outputs(node, rnn, &order)?;
    Ok(true)
}

/// The inputs of an LSTM, of those of one with quantized weights.
fn dequantized(
    cx: &mut Context<'_>,
    node: &Node<'_>,
    directions: usize,
    inputs: &[Option<ValueId>],
) -> Lowered<Vec<Option<ValueId>>> {
    if inputs.len() > 12 {
        return Err(format!("has {} inputs, but at most 12 have a meaning", inputs.len()).into());
    }
    let mut all: Vec<Option<ValueId>> = inputs.iter().copied().take(8).collect();
    for (weight, scale) in [(1, 8), (2, 10)] {
        all[weight] = Some(dequantized_weight(cx, node, directions, [weight, scale, scale + 1])?);
    }
    cx.notes.push(format!(
        "node `{}` (DynamicQuantizeLSTM): its weights are read as floats, and what is multiplied by them is not \
         quantized; ONNX Runtime rounds X and the states to 8 bits before each product, so its numbers differ by as \
         much",
        node.label()
    ));
    Ok(all)
}

/// A weight `[directions, in, gates · hidden]` of 8 bits as floats `[directions, gates · hidden, in]`.
fn dequantized_weight(
    cx: &mut Context<'_>,
    node: &Node<'_>,
    directions: usize,
    [weight, scale, zero]: [usize; 3],
) -> Lowered<ValueId> {
    let name = if weight == 1 { "W" } else { "R" };
    let (w, s) = (cx.input(node, weight)?, cx.input(node, scale)?);
    let dims = cx.kind(w).shape();
    let (Some(dims), Some(Constant::Int(_, q)), Some(Constant::Float(scales))) =
        (dims, cx.constant_of(w).cloned(), cx.constant_of(s).cloned())
    else {
        return Err(format!("`{name}` and its scale must be constants, of whole numbers and of floats").into());
    };
    let zeros = match cx.optional(node, zero)?.map(|z| cx.constant_of(z).cloned()) {
        None => None,
        Some(Some(Constant::Int(_, z))) => Some(z),
        Some(_) => return Err(format!("the zero point of `{name}` must be a constant of whole numbers").into()),
    };
    let &[d, rows, columns] = &dims[..] else {
        return Err(format!("`{name}` must have three dimensions, but it is {dims:?}").into());
    };
    let fits = |n: usize| n == d || n == d * columns || n == 1;
    if d != directions || !fits(scales.len()) || zeros.as_ref().is_some_and(|z| !fits(z.len())) {
        return Err(format!(
            "`{name}` is {dims:?} with {} scales and {} zero points; expected {directions} directions, and one of both \
             for each direction or each column",
            scales.len(),
            zeros.map_or(0, |z| z.len())
        )
        .into());
    }
    // One for all, one a direction, or one a column.
    let place = |n: usize, direction: usize, column: usize| match n {
        1 => 0,
        n if n == d => direction,
        _ => direction * columns + column,
    };
    let mut floats = Vec::with_capacity(q.len());
    for direction in 0..d {
        for column in 0..columns {
            let scale = scales[place(scales.len(), direction, column)];
            let zero = zeros.as_ref().map_or(0, |z| z[place(z.len(), direction, column)]);
            let at = |row: usize| q[(direction * rows + row) * columns + column];
            floats.extend((0..rows).map(|row| (at(row) - zero) as f32 * scale));
        }
    }
    cx.constant(&[d, columns, rows], Constant::Float(floats.into()))
}

/// The cell of each direction with the functions that the node names.
fn activations(node: &Node<'_>, cell: Cell, directions: usize) -> Lowered<Vec<Cell>> {
    let mut cells = vec![cell; directions];
    let names = node.texts("activations")?.unwrap_or_default();
    let (alphas, betas) = (node.floats("activation_alpha"), node.floats("activation_beta"));
    let (mut alpha, mut beta) = (Consumed(alphas.unwrap_or_default()), Consumed(betas.unwrap_or_default()));
    let per = match cell.kind {
        CellKind::Rnn => 1,
        CellKind::Lstm { .. } => 3,
        _ => 2,
    };
    if !names.is_empty() {
        if names.len() != per * directions {
            return Err(
                format!("attribute `activations` has {} functions, not {}", names.len(), per * directions).into()
            );
        }
        for (cell, names) in cells.iter_mut().zip(names.chunks(per)) {
            let all = names.iter().map(|n| activation(n, &mut alpha, &mut beta)).collect::<Result<Vec<_>, _>>()?;
            match all[..] {
                [f] => cell.candidate = f,
                [f, g] => (cell.gates, cell.candidate) = ([f; 3], g),
                [f, g, h, ..] => (cell.gates, cell.candidate, cell.output) = ([f; 3], g, h),
                [] => {}
            }
        }
    }
    if !(alpha.0.is_empty() && beta.0.is_empty()) {
        return Err("attribute `activation_alpha` or `activation_beta` has more values than the functions use".into());
    }
    Ok(cells)
}

/// The values of `activation_alpha` or `activation_beta`, which only the functions that have the parameter consume, in
/// their order, as ONNX Runtime reads the specification.
struct Consumed<'a>(&'a [f32]);

impl Consumed<'_> {
    fn next(&mut self, default: f32) -> f32 {
        match self.0.split_first() {
            Some((&v, rest)) => {
                self.0 = rest;
                v
            }
            None => default,
        }
    }
}

fn activation(name: &str, alpha: &mut Consumed<'_>, beta: &mut Consumed<'_>) -> Result<Activation, String> {
    // Names count without case, and the defaults are those of the ONNX operators.
    Ok(match name.to_ascii_lowercase().as_str() {
        "sigmoid" => Activation::Sigmoid,
        "tanh" => Activation::Tanh,
        "relu" => Activation::Relu,
        "softsign" => Activation::Softsign,
        "softplus" => Activation::Softplus,
        "hardsigmoid" => Activation::HardSigmoid { alpha: alpha.next(0.2), beta: beta.next(0.5) },
        "affine" => Activation::Affine { alpha: alpha.next(1.0), beta: beta.next(0.0) },
        "leakyrelu" => Activation::LeakyRelu { alpha: alpha.next(0.01) },
        "thresholdedrelu" => Activation::ThresholdedRelu { alpha: alpha.next(1.0) },
        "scaledtanh" => Activation::ScaledTanh { alpha: alpha.next(1.0), beta: beta.next(1.0) },
        "elu" => Activation::Elu { alpha: alpha.next(1.0) },
        _ => return Err(format!("attribute `activations` names {name:?}, which is not supported")),
    })
}
