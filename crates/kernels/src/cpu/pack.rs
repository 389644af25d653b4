//! Weights in tiles as wide as a vector register.

use crate::{Cell, CellKind, DirectionWeights};

/// A cache line of floats: the unit of memory for everything the kernels stream, so that no vector
/// load straddles two lines.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Line([f32; 16]);

impl Line {
    pub(super) const FLOATS: usize = 16;
}

/// One direction's weights. A tile is `lanes` neighbouring hidden units; the last is padded with
/// zeros.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) cell: Cell,
    pub(super) kind: CellKind,
    pub(super) hidden: usize,
    pub(super) tiles: usize,
    lanes: usize,
    /// `[tiles, I, G, lanes]`
    w_ih: Vec<Line>,
    /// `[tiles, H, G, lanes]`; without the candidate's rows for a GRU without reset_after.
    w_hh: Vec<Line>,
    /// `[tiles, H, lanes]`, the candidate's rows for a GRU without reset_after, else empty.
    w_hn: Vec<Line>,
    /// `[tiles, G, lanes]`
    bias: Vec<Line>,
    /// LSTM: peepholes `[tiles, 3, lanes]`; GRU with reset_after: b_hn `[tiles, lanes]`; else empty.
    extra: Vec<Line>,
    pub(super) has_peepholes: bool,
}

/// Memory filled through `f`, which is given the index of each float.
fn lines(floats: usize, f: impl Fn(usize) -> f32) -> Vec<Line> {
    let mut v = vec![Line::default(); floats.div_ceil(Line::FLOATS)];
    let data: &mut [f32] = bytemuck::cast_slice_mut(&mut v);
    data[..floats].iter_mut().enumerate().for_each(|(i, o)| *o = f(i));
    v
}

impl Packed {
    pub(super) fn new(cell: &Cell, w: &DirectionWeights<f32>, input: usize, hidden: usize, lanes: usize) -> Self {
        let g = cell.kind.gates();
        let tiles = hidden.div_ceil(lanes);
        let separate = cell.kind == CellKind::Gru { reset_after: false };
        let at = |v: &[f32], i: usize| v.get(i).copied().unwrap_or(0.0);
        // Index in [tiles, outer, gates, lanes] to (unit, outer, gate).
        let place = |n: usize, outer: usize, gates: usize| {
            let (tile, rest) = (n / (outer * gates * lanes), n % (outer * gates * lanes));
            (tile * lanes + rest % lanes, rest / (gates * lanes), rest / lanes % gates)
        };
        let np = tiles * g * lanes;
        // `gates` gates from `first` on of a `[G·H, width]` matrix.
        let matrix = |m: &[f32], width: usize, gates: usize, first: usize| {
            lines(tiles * width * gates * lanes, |n| {
                let (j, k, gate) = place(n, width, gates);
                if j < hidden { m[((first + gate) * hidden + j) * width + k] } else { 0.0 }
            })
        };
        let has_peepholes = !w.peepholes.is_empty();
        let extra = match cell.kind {
            CellKind::Lstm { .. } if has_peepholes => lines(tiles * 3 * lanes, |n| {
                let (j, _, p) = place(n, 1, 3);
                if j < hidden { w.peepholes[p * hidden + j] } else { 0.0 }
            }),
            CellKind::Gru { reset_after: true } => {
                lines(tiles * lanes, |j| if j < hidden { at(&w.b_hh, 2 * hidden + j) } else { 0.0 })
            }
            _ => Vec::new(),
        };
        Self {
            cell: *cell,
            kind: cell.kind,
            hidden,
            tiles,
            lanes,
            w_ih: matrix(&w.w_ih, input, g, 0),
            w_hh: matrix(&w.w_hh, hidden, if separate { 2 } else { g }, 0),
            w_hn: if separate { matrix(&w.w_hh, hidden, 1, 2) } else { Vec::new() },
            bias: lines(np, |n| {
                let (j, _, gate) = place(n, 1, g);
                let row = gate * hidden + j;
                // With reset_after the recurrent bias of the candidate is inside the reset gate.
                let inside = cell.kind == CellKind::Gru { reset_after: true } && gate == 2;
                if j < hidden { at(&w.b_ih, row) + if inside { 0.0 } else { at(&w.b_hh, row) } } else { 0.0 }
            }),
            extra,
            has_peepholes,
        }
    }

    /// Columns of the projection.
    pub(super) fn columns(&self) -> usize {
        self.padded_hidden() * self.kind.gates()
    }

    /// H padded to whole tiles.
    pub(super) fn padded_hidden(&self) -> usize {
        self.tiles * self.lanes
    }

    pub(super) fn w_ih(&self) -> &[f32] {
        bytemuck::cast_slice(&self.w_ih)
    }

    pub(super) fn w_hh(&self) -> &[f32] {
        bytemuck::cast_slice(&self.w_hh)
    }

    pub(super) fn w_hn(&self) -> &[f32] {
        bytemuck::cast_slice(&self.w_hn)
    }

    pub(super) fn bias(&self) -> &[f32] {
        bytemuck::cast_slice(&self.bias)
    }

    pub(super) fn extra(&self) -> &[f32] {
        bytemuck::cast_slice(&self.extra)
    }
}
