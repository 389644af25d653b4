//! The interface between the snippet of each fused cell, `wgsl/cells/NAME.wgsl`, and the kernels that include it:
//! `scan`, `step`, `grid` and `stack_wave`.
//!
//! A snippet computes the cell's part of a timestep for one hidden unit:
//!
//! ```text
//! fn extra_of(at: u32) -> vec3<f32>       what the unit has in `extra`, whose first element is at `at`
//! fn cell(sums, rest, old, parts) -> vec4 the new h and what else is carried, from
//!     sums: vec4<f32>                     the sums of the gates, inputs included where they are added
//!     rest: f32                           the input of the last gate where it is not added to its sum
//!     old: vec4<f32>                      the old h and what else is carried
//!     parts: vec3<f32>                    `extra_of` this unit
//! ```
//!
//! If the last product of a cell is not of h but of values that the units compute from the other sums, its snippet also
//! has `fn exchanged(sums, h_old) -> vec2<f32>`. The first component is this unit's element of that product's operand;
//! the second one is passed on to `cell` as `sums.x`. `rest` is then the whole sum of the last gate. The kernels have a
//! second phase for such cells.
//!
//! The kernels apply zoneout to h; the snippet does everything else.

use crate::{Defines, Value};
use recurve_vocabulary::{Cell, CellKind};

/// The description of a cell's snippet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fused {
    /// The name of the snippet.
    pub snippet: &'static str,
    /// The names of its pipelines of `scan`, `step` and `grid`.
    pub names: [&'static str; 3],
    /// Number of gates, `G`.
    pub gates: u32,
    /// Number of gates, from the first, whose products are of h: all, or all but the last.
    pub of_h: u32,
    /// Number of gates, from the first, whose inputs are added to their sums: all, or all but the last.
    pub added: u32,
    /// Number of states besides h.
    pub carried: u32,
    /// Number of elements of `extra` per unit, up to 3.
    pub extra: u32,
}

impl Fused {
    /// The description of a cell's snippet; `None` if the cell has none.
    pub const fn of(kind: CellKind) -> Option<Self> {
        Some(match kind {
            CellKind::Rnn => {
                let names = ["rnn_scan", "rnn_step", "rnn_grid"];
                Self { snippet: "rnn", names, gates: 1, of_h: 1, added: 1, carried: 0, extra: 0 }
            }
            CellKind::Lstm { .. } => {
                let names = ["lstm_scan", "lstm_step", "lstm_grid"];
                Self { snippet: "lstm", names, gates: 4, of_h: 4, added: 4, carried: 1, extra: 3 }
            }
            CellKind::Gru { reset_after } => {
                let names = ["gru_scan", "gru_step", "gru_grid"];
                let of_h = if reset_after { 3 } else { 2 };
                Self { snippet: "gru", names, gates: 3, of_h, added: 2, carried: 0, extra: 1 }
            }
            CellKind::SLstm { .. } => {
                let names = ["slstm_scan", "slstm_step", "slstm_grid"];
                Self { snippet: "slstm", names, gates: 4, of_h: 4, added: 4, carried: 3, extra: 0 }
            }
            _ => return None,
        })
    }

    /// One cell for each snippet and each option that changes its text.
    pub const CELLS: [Cell; 7] = [
        Cell::RNN,
        Cell::LSTM,
        Cell::with_kind(CellKind::Lstm { coupled: true }),
        Cell::GRU,
        Cell::GRU_RESET_BEFORE,
        Cell::SLSTM,
        Cell::with_kind(CellKind::SLstm { heads: 1, exponential_forget: true }),
    ];

    /// Whether units exchange values in the middle of a timestep.
    pub const fn exchanges(&self) -> bool {
        self.of_h < self.gates
    }

    /// Whether the input of the last gate is passed separately instead of being added to its sum.
    pub const fn is_apart(&self) -> bool {
        self.added < self.gates
    }

    /// The constants that the kernels need for this cell.
    pub(crate) fn defines(&self, defines: Defines) -> Defines {
        defines
            .with("CELL", Value::Snippet(self.snippet))
            .with("GATES", self.gates)
            .with("OF_H", self.of_h)
            .with("ADDED", self.added)
            .with("APART", self.is_apart())
            .with("EXCHANGE", self.exchanges())
            .with("CARRIED", self.carried)
            .with("EXTRA_PARTS", self.extra)
    }
}
