//! The description of a layer, and its checks.

use crate::{Cell, CellKind, Direction, DirectionWeights, WeightSource, WeightStorage};
use half::f16;
use recurve_tensor::{Activation, Error, Result};
use recurve_vocabulary::Rest;

/// What a [`crate::Recurrent`] is made of. Its weight matrices are in host memory, or where else an `M` reads them.
#[derive(Clone, Debug)]
pub struct RecurrentConfig<'a, M = Vec<f32>> {
    /// The cell.
    pub cell: Cell,
    /// Number of features of the input.
    pub input_size: usize,
    /// Number of hidden units of each layer and direction.
    pub hidden_size: usize,
    /// The weights of the stacked layers, the lowest first: of one or two directions, the same in each layer. A
    /// layer reads the outputs of all directions of the one below. Gates are in Recurve's order (LSTM i f g o,
    /// GRU r z n, sLSTM i f z o).
    pub layers: Vec<&'a [(Direction, &'a DirectionWeights<f32, M>)]>,
    /// The cell of the second direction where it is another, as ONNX's `activations` may say; of
    /// the same kind and state size.
    pub second_cell: Option<Cell>,
    /// How the weight matrices are stored.
    pub weights: WeightStorage,
    /// Keeps the struct open for more fields: a literal ends in `..` and a default.
    #[doc(hidden)]
    pub rest: Rest,
}

impl<'a, M> RecurrentConfig<'a, M> {
    /// One layer with one cell and f32 weights.
    pub fn new(
        cell: Cell,
        input_size: usize,
        hidden_size: usize,
        directions: &'a [(Direction, &'a DirectionWeights<f32, M>)],
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

/// One direction's weights, with its matrices wherever they are.
pub(crate) type WeightsView<'a> = DirectionWeights<f32, &'a dyn WeightSource>;

/// One layer, or one direction of it, with one cell.
#[derive(Clone, Copy)]
pub(crate) struct LevelConfig<'a> {
    pub(crate) cell: Cell,
    pub(crate) input_size: usize,
    pub(crate) hidden_size: usize,
    pub(crate) directions: &'a [(Direction, WeightsView<'a>)],
    pub(crate) weights: WeightStorage,
}

impl LevelConfig<'_> {
    pub(crate) fn reading(&self) -> Vec<Direction> {
        self.directions.iter().map(|d| d.0).collect()
    }
}

pub(crate) const NEW: &str = "Recurrent::new";

fn bad(argument: &'static str, message: String) -> Error {
    Error::Argument { operation: NEW, argument, message }
}

/// Everything that [`crate::Recurrent::new`] asks of its description.
pub(crate) fn check_config<M: WeightSource>(config: &RecurrentConfig<'_, M>) -> Result<()> {
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

pub(crate) fn check_cell(cell: &Cell, hidden: usize) -> Result<()> {
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

fn check_weights<M: WeightSource>(
    cell: &Cell,
    w: &DirectionWeights<f32, M>,
    i: usize,
    h: usize,
    layer: usize,
) -> Result<()> {
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
    check("w_ih", w.w_ih.count(), rows * i, "[G·H, I]")?;
    let letters = match kind {
        CellKind::IndRnn => "[H]",
        CellKind::SLstm { .. } => "[G·H, H / heads]",
        _ if cell.projection.is_some() => "[G·H, P]",
        _ => "[G·H, H]",
    };
    check("w_hh", w.w_hh.count(), kind.recurrent_weights(h, width), letters)?;
    optional("b_ih", w.b_ih.len(), rows, "[G·H]")?;
    optional("b_hh", w.b_hh.len(), rows, "[G·H]")?;
    if !w.peepholes.is_empty() && !matches!(kind, CellKind::Lstm { .. }) {
        return Err(bad("peepholes", format!("belong to an LSTM, but the cell is a {}", kind.name())));
    }
    check("peepholes", w.peepholes.len(), if cell.peepholes { 3 * h } else { 0 }, "[3·H] with peepholes")?;
    check("w_hr", w.w_hr.count(), cell.projection.map_or(0, |p| p * h), "[P, H] with a projection")?;
    let norm = |n: usize| if cell.layer_norm.is_some() { 2 * n } else { 0 };
    check("norm_ih", w.norm_ih.len(), norm(rows), "[2, G·H] with layer normalization")?;
    check("norm_hh", w.norm_hh.len(), norm(rows), "[2, G·H] with layer normalization")?;
    let c = if kind.has_cell_state() { norm(h) } else { 0 };
    check("norm_c", w.norm_c.len(), c, "[2, H] with layer normalization of an LSTM")
}

/// A weight as f16.
pub(crate) fn to_f16(v: f32) -> Result<f16> {
    match f16::from_f32(v) {
        half if half.is_finite() => Ok(half),
        _ => Err(bad("weights", format!("cannot be f16: the largest number is 65504, but one is {v}"))),
    }
}

/// Whether weights can be int8.
pub(crate) fn check_int8(weights: &[f32]) -> Result<()> {
    match weights.iter().find(|v| !v.is_finite()) {
        None => Ok(()),
        Some(v) => Err(bad("weights", format!("cannot be int8: they must be finite, but one is {v}"))),
    }
}

/// The recurrent weights of all units, `[G·H, W]`: with zeros where a cell with heads has none, because the unit
/// belongs to another head.
pub(crate) struct Whole<'a> {
    own: &'a dyn WeightSource,
    /// Columns that there are, those of a head.
    columns: usize,
    width: usize,
}

impl<'a> Whole<'a> {
    pub(crate) fn new(w: &WeightsView<'a>, cell: &Cell, hidden: usize) -> Self {
        let width = cell.state_size(hidden);
        Self { own: w.w_hh, columns: cell.kind.columns(width), width }
    }
}

impl WeightSource for Whole<'_> {
    fn count(&self) -> usize {
        self.own.count() / self.columns * self.width
    }
    fn read(&self, start: usize, out: &mut [f32]) {
        if self.columns == self.width {
            return self.own.read(start, out);
        }
        out.fill(0.0);
        let end = start + out.len();
        for row in start / self.width..end.div_ceil(self.width) {
            let first = row * self.width + row % self.width / self.columns * self.columns;
            let (from, to) = (first.max(start), (first + self.columns).min(end));
            if from < to {
                self.own.read(row * self.columns + from - first, &mut out[from - start..to - start]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_blocks_of_a_whole_matrix() {
        // Two gates of four units in two heads.
        let own: Vec<f32> = (1..=16).map(|v| v as f32).collect();
        let rows = |n: usize| {
            let (a, b) = (own[2 * n], own[2 * n + 1]);
            if n % 4 < 2 { [a, b, 0.0, 0.0] } else { [0.0, 0.0, a, b] }
        };
        let expected: Vec<f32> = (0..8).flat_map(rows).collect();
        let whole = Whole { own: &own, columns: 2, width: 4 };
        assert_eq!(whole.count(), 32);
        for start in 0..32 {
            for end in start..=32 {
                let mut out = vec![f32::NAN; end - start];
                whole.read(start, &mut out);
                assert_eq!(out, expected[start..end]);
            }
        }
    }
}
