//! The description of a layer, and its checks.

use crate::{Cell, CellKind, Direction, DirectionWeights, WeightStorage};
use half::f16;
use recurve_tensor::cpu::host;
use recurve_tensor::{Activation, Error, Result};
use recurve_vocabulary::Rest;
use std::borrow::Cow;

/// The description and weights of a [`crate::Recurrent`].
#[derive(Clone, Debug)]
pub struct RecurrentConfig<'a> {
    /// The cell.
    pub cell: Cell,
    /// Number of features of the input.
    pub input_size: usize,
    /// Number of hidden units of each layer and direction.
    pub hidden_size: usize,
    /// The weights of the stacked layers, lowest first, each with one or two directions, the same in every layer. A
    /// layer reads the outputs of all directions of the layer below. Gates are in Recurve's order (LSTM i f g o, GRU r
    /// z n, sLSTM i f z o).
    pub layers: Vec<&'a [(Direction, &'a DirectionWeights<f32>)]>,
    /// The cell of the second direction if it differs from the first, as ONNX's `activations` allows. It must have the
    /// same kind and state size.
    pub second_cell: Option<Cell>,
    /// How the weight matrices are stored.
    pub weights: WeightStorage,
    /// Keeps the struct open for more fields: a literal ends in `..` and a default.
    #[doc(hidden)]
    pub rest: Rest,
}

impl<'a> RecurrentConfig<'a> {
    /// A single layer with one cell and f32 weights.
    pub fn new(
        cell: Cell,
        input_size: usize,
        hidden_size: usize,
        directions: &'a [(Direction, &'a DirectionWeights<f32>)],
    ) -> Self {
        Self {
            cell,
            input_size,
            hidden_size,
            layers: vec![directions],
            second_cell: None,
            weights: WeightStorage::F32,
            rest: Rest::default(),
        }
    }

    /// Number of features that a layer reads.
    pub(crate) fn features(&self, layer: usize) -> usize {
        let below = || self.layers[0].len().saturating_mul(self.cell.state_size(self.hidden_size));
        if layer == 0 { self.input_size } else { below() }
    }

    /// The cells of the first and the second direction.
    pub(crate) fn cells(&self) -> [Cell; 2] {
        [self.cell, self.second_cell.unwrap_or(self.cell)]
    }
}

/// One layer with one cell: both directions, or one of two whose cells differ.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LevelConfig<'a> {
    pub(crate) cell: Cell,
    pub(crate) input_size: usize,
    pub(crate) hidden_size: usize,
    pub(crate) directions: &'a [(Direction, &'a DirectionWeights<f32>)],
    pub(crate) weights: WeightStorage,
}

impl LevelConfig<'_> {
    pub(crate) fn reading(&self) -> Vec<Direction> {
        self.directions.iter().map(|d| d.0).collect()
    }
}

const NEW: &str = "Recurrent::new";

fn bad(argument: &'static str, message: String) -> Error {
    Error::Argument { operation: NEW, argument, message }
}

/// Checks the whole description for [`crate::Recurrent::new`].
pub(crate) fn check_config(config: &RecurrentConfig<'_>) -> Result<()> {
    let (i, h) = (config.input_size, config.hidden_size);
    if i == 0 || h == 0 {
        return Err(bad("input_size, hidden_size", format!("must be at least 1, but they are {i} and {h}")));
    }
    let Some(first) = config.layers.first() else {
        return Err(bad("layers", "must be at least one, but there is none".into()));
    };
    if !matches!(first.len(), 1 | 2) {
        return Err(bad("directions", format!("must be one or two, but there are {}", first.len())));
    }
    // Ensures that no product of sizes below overflows, neither for one matrix nor for all gates.
    if i.max(h).checked_mul(h).and_then(|n| n.checked_mul(64)).is_none() {
        return Err(bad("input_size, hidden_size", format!("are too large to be counted: {i} and {h}")));
    }
    let cells = config.cells();
    if cells[0].kind != cells[1].kind || cells[0].projection != cells[1].projection {
        return Err(bad("second_cell", "must be of the first one's kind and state size".into()));
    }
    for cell in &cells[..first.len()] {
        check_cell(cell, h)?;
    }
    for (layer, directions) in config.layers.iter().enumerate() {
        if !directions.iter().map(|d| d.0).eq(first.iter().map(|d| d.0)) {
            return Err(bad("layers", format!("must read in the same directions, but layer {layer} does not")));
        }
        for (cell, (_, w)) in cells.iter().zip(*directions) {
            check_weights(cell, w, config.features(layer), h, layer)?;
        }
    }
    Ok(())
}

fn check_cell(cell: &Cell, hidden: usize) -> Result<()> {
    let name = cell.kind.name();
    let known = matches!(cell.kind, CellKind::Rnn | CellKind::Lstm { .. } | CellKind::Gru { .. });
    let known = known || matches!(cell.kind, CellKind::SLstm { .. });
    if !known && !matches!(cell.kind, CellKind::IndRnn | CellKind::MinGru | CellKind::MinLstm) {
        return Err(bad("cell", format!("is a {name}, which has no kernels")));
    }
    if let CellKind::SLstm { heads, .. } = cell.kind {
        if heads == 0 || !hidden.is_multiple_of(heads) {
            return Err(bad("heads", format!("must divide the {hidden} hidden units, but there are {heads}")));
        }
        if cell.gates[..2] != [Activation::Sigmoid; 2] {
            return Err(bad("gates", "of an sLSTM are exponential: only the third, that of o, can be changed".into()));
        }
    }
    if let Some(clip) = cell.clip
        && !(clip.is_finite() && clip > 0.0)
    {
        return Err(bad("clip", format!("must be finite and above 0, but it is {clip}")));
    }
    if cell.peepholes && !matches!(cell.kind, CellKind::Lstm { .. }) {
        return Err(bad("peepholes", format!("belong to an LSTM, but the cell is a {name}")));
    }
    if cell.clip_output && !matches!(cell.kind, CellKind::Lstm { .. }) {
        return Err(bad("clip_output", format!("belongs to an LSTM, but the cell is a {name}")));
    }
    if cell.clip_output && cell.clip.is_none() {
        return Err(bad("clip_output", "needs a `clip`, but there is none".into()));
    }
    for f in cell.gates.into_iter().chain([cell.candidate, cell.output]) {
        recurve_tensor::kernel::check_activation(f)?;
    }
    let lstm = matches!(cell.kind, CellKind::Lstm { .. });
    match cell.projection {
        Some(_) if !lstm => return Err(bad("projection", format!("belongs to an LSTM, but the cell is a {name}"))),
        Some(p) if p == 0 || p >= hidden => {
            return Err(bad(
                "projection",
                format!("must be at least 1 and below {hidden} hidden units, but it is {p}"),
            ));
        }
        _ => {}
    }
    if let Some(epsilon) = cell.layer_norm {
        if !(lstm || cell.kind == (CellKind::Gru { reset_after: true })) {
            let kind = if matches!(cell.kind, CellKind::Gru { .. }) { "gru without reset_after" } else { name };
            return Err(bad(
                "layer_norm",
                format!("belongs to an LSTM or to a GRU with reset_after, but the cell is a {kind}"),
            ));
        }
        if !(epsilon.is_finite() && epsilon > 0.0) {
            return Err(bad("layer_norm", format!("needs a finite epsilon above 0, but it is {epsilon}")));
        }
    }
    if let Some(z) = cell.zoneout {
        if !(lstm || matches!(cell.kind, CellKind::Rnn | CellKind::Gru { .. })) {
            return Err(bad("zoneout", format!("belongs to a SimpleRNN, LSTM or GRU, but the cell is a {name}")));
        }
        if !((0.0..1.0).contains(&z.h) && (0.0..1.0).contains(&z.c)) {
            return Err(bad("zoneout", format!("must be in [0, 1), but it is {} and {}", z.h, z.c)));
        }
        if z.c != 0.0 && !lstm {
            return Err(bad("zoneout", format!("of c belongs to an LSTM, but the cell is a {name}")));
        }
    }
    Ok(())
}

fn check_weights(cell: &Cell, w: &DirectionWeights<f32>, i: usize, h: usize, layer: usize) -> Result<()> {
    let kind = cell.kind;
    let width = cell.state_size(h);
    let rows = kind.gates() * h;
    let check = |argument, got: usize, wanted: usize, letters: &str| {
        if got == wanted {
            return Ok(());
        }
        let place = if layer == 0 { String::new() } else { format!(" of layer {layer}") };
        Err(bad(argument, format!("must have {wanted} elements{place}, {letters}, but it has {got}")))
    };
    let optional = |argument, got: usize, wanted: usize, letters: &str| {
        if got == 0 { Ok(()) } else { check(argument, got, wanted, letters) }
    };
    check("w_ih", w.w_ih.len(), rows * i, "[G·H, I]")?;
    let letters = match kind {
        CellKind::IndRnn => "[H]",
        CellKind::SLstm { .. } => "[G·H, H / heads]",
        _ if cell.projection.is_some() => "[G·H, P]",
        _ => "[G·H, H]",
    };
    check("w_hh", w.w_hh.len(), kind.recurrent_weights(h, width), letters)?;
    optional("b_ih", w.b_ih.len(), rows, "[G·H]")?;
    optional("b_hh", w.b_hh.len(), rows, "[G·H]")?;
    if !w.peepholes.is_empty() && !matches!(kind, CellKind::Lstm { .. }) {
        return Err(bad("peepholes", format!("belong to an LSTM, but the cell is a {}", kind.name())));
    }
    check("peepholes", w.peepholes.len(), if cell.peepholes { 3 * h } else { 0 }, "[3·H] with peepholes")?;
    check("w_hr", w.w_hr.len(), cell.projection.map_or(0, |p| p * h), "[P, H] with a projection")?;
    let norm = |n: usize| if cell.layer_norm.is_some() { 2 * n } else { 0 };
    check("norm_ih", w.norm_ih.len(), norm(rows), "[2, G·H] with layer normalization")?;
    check("norm_hh", w.norm_hh.len(), norm(rows), "[2, G·H] with layer normalization")?;
    let c = if kind.has_cell_state() { norm(h) } else { 0 };
    check("norm_c", w.norm_c.len(), c, "[2, H] with layer normalization of an LSTM")
}

/// The weights in the form in which they are packed: matrices with heads are expanded to full matrices, and matrices
/// stored as f16 are rounded. Checks that the values fit their storage type.
pub(crate) fn stored(
    w: &DirectionWeights<f32>,
    kind: CellKind,
    hidden: usize,
    weights: WeightStorage,
) -> Result<Cow<'_, DirectionWeights<f32>>> {
    let mut w = rounded(w, kind, weights)?;
    if matches!(kind, CellKind::SLstm { heads: 2.., .. }) {
        let columns = kind.columns(hidden);
        // Zeros where a unit belongs to another head.
        let mut whole = host(NEW, kind.gates() * hidden * hidden)?;
        for (row, (whole, own)) in whole.chunks_exact_mut(hidden).zip(w.w_hh.chunks_exact(columns)).enumerate() {
            whole[row % hidden / columns * columns..][..columns].copy_from_slice(own);
        }
        w.to_mut().w_hh = whole;
    }
    Ok(w)
}

/// The weights with matrices rounded if they are stored as f16. Checks that the values fit their storage type.
fn rounded(
    w: &DirectionWeights<f32>,
    kind: CellKind,
    weights: WeightStorage,
) -> Result<Cow<'_, DirectionWeights<f32>>> {
    // The u of an IndRNN is a vector, so it is not rounded.
    let recurrent = if kind.is_pointwise() { &[][..] } else { &w.w_hh };
    match weights {
        WeightStorage::F32 => return Ok(Cow::Borrowed(w)),
        WeightStorage::Int8 => {
            return match [&w.w_ih, recurrent, &w.w_hr].into_iter().flatten().find(|v| !v.is_finite()) {
                None => Ok(Cow::Borrowed(w)),
                Some(v) => Err(bad("weights", format!("cannot be int8: they must be finite, but one is {v}"))),
            };
        }
        WeightStorage::F16 => {}
        other => return Err(bad("weights", format!("cannot be stored as {}", other.name()))),
    }
    let round = |v: &[f32]| -> Result<Vec<f32>> {
        let mut out = host(NEW, v.len())?;
        for (out, &v) in out.iter_mut().zip(v) {
            *out = f16::from_f32(v).to_f32();
            if !out.is_finite() {
                return Err(bad("weights", format!("cannot be f16: the largest number is 65504, but one is {v}")));
            }
        }
        Ok(out)
    };
    Ok(Cow::Owned(DirectionWeights {
        w_ih: round(&w.w_ih)?,
        w_hh: if kind.is_pointwise() { w.w_hh.clone() } else { round(&w.w_hh)? },
        w_hr: round(&w.w_hr)?,
        b_ih: w.b_ih.clone(),
        b_hh: w.b_hh.clone(),
        peepholes: w.peepholes.clone(),
        norm_ih: w.norm_ih.clone(),
        norm_hh: w.norm_hh.clone(),
        norm_c: w.norm_c.clone(),
        rest: w.rest,
    }))
}
