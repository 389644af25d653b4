//! Weights in tiles as wide as a vector register.

use super::weights::{Matrix, memory};
use crate::config::{NEW, WeightsView, Whole};
use crate::{Cell, CellKind, WeightSource, WeightStorage};
use recurve_tensor::cpu::host;
use recurve_tensor::{Error, Result};

/// A cache line of floats: the unit of memory for everything the kernels stream, so that no vector
/// load straddles two lines.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Line([f32; 16]);

impl Line {
    pub(super) const FLOATS: usize = 16;
}

/// One direction's weights. A tile is `lanes` adjacent hidden units, one per vector lane; the last one is padded with
/// zeros.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) cell: Cell,
    pub(super) kind: CellKind,
    pub(super) hidden: usize,
    /// Number of elements of h.
    pub(super) width: usize,
    pub(super) tiles: usize,
    lanes: usize,
    pub(super) w_ih: Matrix,
    /// Without the candidate's rows for a GRU without reset_after; empty where no unit reads another.
    pub(super) w_hh: Matrix,
    /// The candidate's rows for a GRU without reset_after, else empty.
    pub(super) w_hn: Matrix,
    /// The projection of h, or empty.
    pub(super) w_hr: Matrix,
    /// The biases, `[tiles, G, lanes]`.
    bias: Vec<Line>,
    /// LSTM: peepholes `[tiles, 3, lanes]`; GRU with reset_after: b_hn `[tiles, lanes]`; IndRNN: u
    /// `[tiles, lanes]`; else empty.
    extra: Vec<Line>,
    pub(super) has_peepholes: bool,
    pub(super) norm: Option<Norm>,
}

/// Layer normalization: gains and offsets. The biases are added into the offsets.
#[derive(Debug)]
pub(super) struct Norm {
    pub(super) epsilon: f32,
    /// For `W_ih x`, `[tiles, G, lanes]`.
    pub(super) ih: Affine,
    /// For `W_hh h`, `[tiles, G, lanes]`.
    pub(super) hh: Affine,
    /// For c, `[tiles, lanes]`.
    pub(super) c: Affine,
}

/// A gain and an offset of each element; zero in the padding.
#[derive(Debug)]
pub(super) struct Affine {
    gain: Vec<Line>,
    offset: Vec<Line>,
}

impl Affine {
    pub(super) fn gain(&self) -> &[f32] {
        bytemuck::cast_slice(&self.gain)
    }

    pub(super) fn offset(&self) -> &[f32] {
        bytemuck::cast_slice(&self.offset)
    }
}

impl Packed {
    pub(super) fn new(
        cell: &Cell,
        w: &WeightsView<'_>,
        input: usize,
        hidden: usize,
        lanes: usize,
        weights: WeightStorage,
    ) -> Result<Self> {
        let g = cell.kind.gates();
        let tiles = hidden.div_ceil(lanes);
        let width = cell.state_size(hidden);
        let separate = cell.kind == CellKind::Gru { reset_after: false };
        let pointwise = cell.kind.is_pointwise();
        let at = |v: &[f32], i: usize| v.get(i).copied().unwrap_or(0.0);
        // Index in [tiles, outer, gates, lanes] to (unit, outer, gate).
        let place = |n: usize, outer: usize, gates: usize| {
            let (tile, rest) = (n / (outer * gates * lanes), n % (outer * gates * lanes));
            (tile * lanes + rest % lanes, rest / (gates * lanes), rest / lanes % gates)
        };
        let np = tiles * g * lanes;
        // `gates` gates from `first` on of a `[G·units, k]` matrix.
        let matrix = |m: &dyn WeightSource, units: usize, k: usize, gates: usize, first: usize| {
            Matrix::new(m, first * units, [gates, units, k], lanes, weights)
        };
        let recurrent = Whole::new(w, cell, hidden);
        let has_peepholes = cell.peepholes;
        let extra = match cell.kind {
            CellKind::Lstm { .. } if has_peepholes => memory(tiles * 3 * lanes, |n| {
                let (j, _, p) = place(n, 1, 3);
                if j < hidden { w.peepholes[p * hidden + j] } else { 0.0 }
            })?,
            CellKind::IndRnn => {
                let mut u = host(NEW, hidden)?;
                w.w_hh.read(0, &mut u);
                memory(tiles * lanes, |j| at(&u, j))?
            }
            CellKind::Gru { reset_after: true } => {
                memory(tiles * lanes, |j| if j < hidden { w.separate_bias(cell.kind, hidden, j) } else { 0.0 })?
            }
            _ => Vec::new(),
        };
        // The part of `[G·H]` values and of a bias that belongs to an element in packed order.
        let affine = |values: &[f32], bias: &[f32], gates: usize| {
            let (gain, offset) = values.split_at(values.len() / 2);
            let pick = |v: &[f32], bias: &[f32]| {
                memory(tiles * gates * lanes, |n| {
                    let (j, _, gate) = place(n, 1, gates);
                    if j < hidden { at(v, gate * hidden + j) + at(bias, gate * hidden + j) } else { 0.0 }
                })
            };
            Ok::<_, Error>(Affine { gain: pick(gain, &[])?, offset: pick(offset, bias)? })
        };
        let norm = match cell.layer_norm {
            Some(epsilon) => Some(Norm {
                epsilon,
                ih: affine(&w.norm_ih, &w.b_ih, g)?,
                hh: affine(&w.norm_hh, &w.b_hh, g)?,
                c: affine(&w.norm_c, &[], 1)?,
            }),
            None => None,
        };
        // With layer normalization the biases are added after it, as part of its offsets.
        let added = norm.is_none();
        Ok(Self {
            cell: *cell,
            kind: cell.kind,
            hidden,
            width,
            tiles,
            lanes,
            w_ih: matrix(w.w_ih, hidden, input, g, 0)?,
            w_hh: match cell.kind {
                _ if pointwise => Matrix::default(),
                _ => matrix(&recurrent, hidden, width, if separate { 2 } else { g }, 0)?,
            },
            w_hn: if separate { matrix(&recurrent, hidden, hidden, 1, 2)? } else { Matrix::default() },
            w_hr: match cell.projection {
                Some(_) => matrix(w.w_hr, width, hidden, 1, 0)?,
                None => Matrix::default(),
            },
            bias: memory(np, |n| {
                let (j, _, gate) = place(n, 1, g);
                if added && j < hidden { w.projection_bias(cell.kind, hidden, gate * hidden + j) } else { 0.0 }
            })?,
            extra,
            has_peepholes,
            norm,
        })
    }

    /// Whether all sums of a row are needed before the gates of any unit.
    pub(super) fn whole_rows(&self) -> bool {
        self.norm.is_some() || self.width != self.hidden
    }

    /// The number of tiles that are processed together for this many rows: few enough that their sums stay in the first
    /// cache.
    pub(super) fn band(&self, rows: usize) -> usize {
        const BYTES: usize = 16 << 10;
        let tile = rows * self.tile_floats() * size_of::<f32>();
        // Whole panels.
        let together = self.w_hh.width.max(1);
        if self.whole_rows() { self.tiles } else { (BYTES / tile).max(1).next_multiple_of(together).min(self.tiles) }
    }

    /// Whether its gates are sigmoids, its other activations are tanh, and it has no further options.
    pub(super) fn is_plain(&self) -> bool {
        let c = &self.cell;
        let tanh = recurve_tensor::Activation::Tanh;
        c.gates == [recurve_tensor::Activation::Sigmoid; 3]
            && c.candidate == tanh
            && c.output == tanh
            && c.clip.is_none()
            && c.zoneout.is_none()
            && !self.has_peepholes
            && !self.whole_rows()
            && matches!(c.kind, CellKind::Rnn | CellKind::Lstm { coupled: false } | CellKind::Gru { .. })
    }

    /// The number of vectors of a tile's states besides h, at least 1.
    pub(super) fn carried(&self) -> usize {
        self.kind.carried().max(1)
    }

    /// The number of floats of one tile of all gates.
    pub(super) fn tile_floats(&self) -> usize {
        self.kind.gates() * self.lanes
    }

    /// The number of tiles of h.
    pub(super) fn width_tiles(&self) -> usize {
        self.width.div_ceil(self.lanes)
    }

    /// The number of columns of the input projection.
    pub(super) fn columns(&self) -> usize {
        self.padded_hidden() * self.kind.gates()
    }

    /// The number of hidden units, rounded up to whole tiles.
    pub(super) fn padded_hidden(&self) -> usize {
        self.tiles * self.lanes
    }

    pub(super) fn bias(&self) -> &[f32] {
        bytemuck::cast_slice(&self.bias)
    }

    pub(super) fn extra(&self) -> &[f32] {
        bytemuck::cast_slice(&self.extra)
    }
}
