//! The variants of each kernel: the constants it takes, and samples of all variants for tests.

use crate::{ComposeError, Composed, Defines, Fused, Shader, Value, compose, snippet};
use recurve_vocabulary::{Activation, Cell, CellKind, Decay, Descent, Zoneout};

/// A kernel with its constants, from which one pipeline is compiled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    pub(crate) shader: Shader,
    name: &'static str,
    pub(crate) defines: Defines,
    /// The size of workgroup memory, in bytes, for kernels whose layout the host chooses by it. `None` for other
    /// kernels, which need at most the [`Variant::LEAST_WORKGROUP_BYTES`] that every device has.
    pub workgroup_bytes: Option<u32>,
}

/// The size of a workgroup variable in bytes, as WebGPU counts it against the limit.
pub(crate) const fn counted(bytes: u32) -> u32 {
    bytes.next_multiple_of(16)
}

/// The storage type of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// 32-bit float.
    F32,
    /// 16-bit float; requires the device feature SHADER_F16.
    F16,
    /// 32-bit unsigned integer.
    U32,
}

impl Element {
    const fn alias(self) -> Value {
        match self {
            Self::F32 => Value::TypeF32,
            Self::F16 => Value::TypeF16,
            Self::U32 => Value::TypeU32,
        }
    }
}

/// How the valid timesteps of a call are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Valid {
    /// All timesteps are valid.
    #[default]
    All,
    /// By the length of each sequence.
    Lengths,
    /// By a mask.
    Mask,
}

/// A recurrent cell, and further properties that its shaders are specialised by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CellCode {
    /// The cell.
    pub cell: Cell,
    /// Whether there are peepholes (LSTM) or a separate recurrent bias (GRU with `reset_after`) that are not all zero.
    pub extra: bool,
    /// How the valid timesteps are given.
    pub valid: Valid,
    /// How recurrent weights are stored.
    pub weights: Element,
}

impl CellCode {
    fn defines(&self, hidden: u32, k4: u32, k_unroll: u32) -> Defines {
        let Cell { gates, candidate, output, clip, clip_output, zoneout, .. } = self.cell;
        let d = Defines::new()
            .with("H", hidden)
            .with("K4", k4)
            .with("K_UNROLL", k_unroll)
            .with("WEIGHT", self.weights.alias())
            .with("HAS_LENGTHS", self.valid == Valid::Lengths)
            .with("HAS_MASK", self.valid == Valid::Mask)
            .with("HAS_ZONEOUT", zoneout.is_some())
            .with("ZONEOUT_H", zoneout.map_or(0.0, |z| z.h))
            .with("ZONEOUT_C", zoneout.map_or(0.0, |z| z.c))
            .with("HAS_CLIP", clip.is_some())
            .with("CLIP", clip.unwrap_or(0.0))
            .with("CLIP_OUTPUT", clip_output);
        let functions = [
            (gates[0], ["GATE0_CODE", "GATE0_ALPHA", "GATE0_BETA"]),
            (gates[1], ["GATE1_CODE", "GATE1_ALPHA", "GATE1_BETA"]),
            (gates[2], ["GATE2_CODE", "GATE2_ALPHA", "GATE2_BETA"]),
            (candidate, ["CANDIDATE_CODE", "CANDIDATE_ALPHA", "CANDIDATE_BETA"]),
            (output, ["OUTPUT_CODE", "OUTPUT_ALPHA", "OUTPUT_BETA"]),
        ];
        let d = functions.into_iter().fold(d, |d, (f, names)| {
            let [alpha, beta] = f.parameters();
            d.with(names[0], f.code()).with(names[1], alpha).with(names[2], beta)
        });
        match self.cell.kind {
            CellKind::Lstm { coupled } => d.with("COUPLED", coupled),
            CellKind::SLstm { exponential_forget, .. } => d.with("EXPONENTIAL_FORGET", exponential_forget),
            _ => d,
        }
    }

    /// The constants of a kernel with this cell's snippet.
    fn fused_defines(&self, hidden: u32, k4: u32, k_unroll: u32) -> Defines {
        self.fused().defines(self.defines(hidden, k4, k_unroll)).with("HAS_EXTRA", self.extra)
    }

    /// The number of vec4s along k per hidden unit, padded to a multiple of `multiple`, as unrolling and slicing need.
    pub const fn k4(hidden: u32, multiple: u32) -> u32 {
        hidden.div_ceil(4).next_multiple_of(multiple)
    }

    const fn gates(&self) -> u32 {
        self.cell.kind.gates() as u32
    }

    /// The description of its snippet.
    ///
    /// # Panics
    /// For kinds of cells without a snippet.
    pub(crate) const fn fused(&self) -> Fused {
        Fused::of(self.cell.kind).expect("hosts choose the skeletons for cells that have a snippet")
    }

    /// Whether its units exchange values in the middle of a timestep.
    pub const fn exchanges(&self) -> bool {
        matches!(Fused::of(self.cell.kind), Some(f) if f.exchanges())
    }
}

/// The layout of `scan.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Number of hidden units, `H`.
    pub hidden: u32,
    /// Number of vec4s along k per unit, padded to a multiple of `k_split * k_unroll`.
    pub k4: u32,
    /// Number of lanes of a workgroup; a multiple of `k_split`.
    pub workgroup: u32,
    /// Number of batch rows of a workgroup.
    pub batch_tile: u32,
    /// Number of vec4s along k per loop iteration.
    pub k_unroll: u32,
    /// Number of lanes that share the sums of a unit: 1, 2, 4 or 8. More than 1 only if a lane has one unit, and not
    /// for cells with an exchange.
    pub k_split: u32,
    /// Whether shared sums are added by subgroup shuffles instead of through workgroup memory.
    pub subgroups: bool,
    /// Where a lane's weights are kept.
    pub kept: Kept,
}

/// Where a lane's weights are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// In memory, read in every timestep.
    Memory,
    /// In registers, loaded once. Only if a lane has one unit, and not for cells with an exchange.
    Registers,
    /// In an array of the lane, loaded once. Only for software rasterisers: on a hardware GPU an array that is indexed
    /// at run time spills to memory. Not with `k_split`.
    Array,
}

impl Scan {
    const fn unit_lanes(&self) -> u32 {
        self.workgroup / self.k_split
    }

    /// Number of hidden units per lane.
    pub const fn units(&self) -> u32 {
        self.hidden.div_ceil(self.unit_lanes())
    }

    /// Number of vec4s along k per lane.
    pub const fn k_slice(&self) -> u32 {
        self.k4 / self.k_split
    }

    /// Number of vec4s of h in workgroup memory, which also holds as many floats.
    const fn tile(&self) -> u32 {
        self.batch_tile * self.k4
    }

    /// Number of floats of workgroup memory for shared sums.
    const fn partial(&self, gates: u32) -> u32 {
        if self.k_split > 1 && !self.subgroups { gates * self.batch_tile * self.workgroup } else { 0 }
    }

    /// Size of workgroup memory, in bytes.
    pub const fn workgroup_bytes(&self, cell: &CellCode) -> u32 {
        32 * self.tile() + counted(4 * self.partial(cell.gates()))
    }

    /// The layout with the number of rows reduced until it fits into `bytes` of workgroup memory. Even one row may be
    /// too large.
    #[must_use]
    pub const fn within(mut self, bytes: u32, cell: &CellCode) -> Self {
        while self.batch_tile > 1 && self.workgroup_bytes(cell) > bytes {
            self.batch_tile /= 2;
        }
        self
    }

    /// Largest number of loop iterations of an invocation in one timestep.
    pub const fn iterations_per_step(&self, cell: &CellCode) -> u32 {
        let products = if cell.exchanges() { 2 } else { 1 };
        1 + products * (self.units() * (self.k_slice() / self.k_unroll) + self.tile().div_ceil(self.workgroup))
    }

    /// Largest number of loop iterations of an invocation before the first timestep.
    pub const fn iterations_at_start(&self) -> u32 {
        let own = if matches!(self.kept, Kept::Array) { self.units() * self.k4 } else { 0 };
        5 * self.tile().div_ceil(self.workgroup) + own
    }

    /// The variant for a cell.
    ///
    /// # Panics
    /// If the fields violate their documentation.
    pub fn variant(&self, cell: &CellCode) -> Variant {
        self.assert_sound(cell);
        let partial = self.partial(cell.gates());
        let defines = cell
            .fused_defines(self.hidden, self.k4, self.k_unroll)
            .with("WORKGROUP", self.workgroup)
            .with("BATCH_TILE", self.batch_tile)
            .with("UNITS", self.units())
            .with("UNIT_LANES", self.unit_lanes())
            .with("K_SPLIT", self.k_split)
            .with("K_SLICE", self.k_slice())
            .with("SPLIT", self.k_split > 1)
            .with("SUBGROUPS", self.k_split > 1 && self.subgroups)
            .with("PARTIAL", partial > 0)
            .with("PARTIAL_SUMS", partial)
            .with("REGISTERS", self.kept == Kept::Registers)
            .with("RESIDENT", self.kept == Kept::Array)
            .with("H_TILE", self.tile())
            .with("H_FLOATS", 4 * self.tile())
            .with("OWN", self.units() * self.k4 * cell.gates());
        let [name, ..] = cell.fused().names;
        Variant { shader: Shader::Scan, name, defines, workgroup_bytes: Some(self.workgroup_bytes(cell)) }
    }
}

/// The layout of `grid.wgsl`. Not for cells with an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Number of hidden units, `H`.
    pub hidden: u32,
    /// Number of vec4s along k per unit, padded to a multiple of `k_split`.
    pub k4: u32,
    /// Number of hidden units of a workgroup.
    pub unit_tile: u32,
    /// Number of slices of k in a workgroup; at least `batch_tile`.
    pub k_split: u32,
    /// Number of batch rows of a workgroup.
    pub batch_tile: u32,
    /// Whether each lane keeps its weights in registers.
    pub registers: bool,
}

impl Grid {
    /// Number of elements of the exchange buffer before the first h.
    pub const HEAD: usize = 4;

    /// Size of workgroup memory, in bytes.
    pub const fn workgroup_bytes(&self, cell: &CellCode) -> u32 {
        counted(16 * self.batch_tile * self.k4) + counted(4 * self.sums(cell)) + counted(4)
    }

    const fn sums(&self, cell: &CellCode) -> u32 {
        self.k_split * self.batch_tile * cell.gates() * self.unit_tile
    }

    /// Number of vec4s along k per lane.
    pub const fn k_slice(&self) -> u32 {
        self.k4 / self.k_split
    }

    /// Largest number of loop iterations of an invocation in one timestep, without waiting.
    pub const fn iterations_per_step(&self) -> u32 {
        1 + (self.batch_tile * self.hidden).div_ceil(self.unit_tile * self.k_split) + self.k_slice()
    }

    /// The variant for a cell.
    ///
    /// # Panics
    /// If the fields violate their documentation.
    pub fn variant(&self, cell: &CellCode) -> Variant {
        self.assert_sound(cell);
        let defines = cell
            .fused_defines(self.hidden, self.k4, 1)
            .with("WORKGROUP", self.unit_tile * self.k_split)
            .with("UNIT_TILE", self.unit_tile)
            .with("K_SPLIT", self.k_split)
            .with("K_SLICE", self.k_slice())
            .with("BATCH_TILE", self.batch_tile)
            .with("H_TILE", 4 * self.batch_tile * self.k4)
            .with("SUMS", self.sums(cell))
            .with("REGISTERS", self.registers);
        let [.., name] = cell.fused().names;
        Variant { shader: Shader::Grid, name, defines, workgroup_bytes: Some(self.workgroup_bytes(cell)) }
    }
}

/// The layout of `step.wgsl` and `stack_wave.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Number of hidden units, `H`.
    pub hidden: u32,
    /// Number of vec4s along k per unit, padded to a multiple of `k_split * k_unroll`.
    pub k4: u32,
    /// Number of hidden units of a workgroup.
    pub unit_tile: u32,
    /// Number of slices of k in a workgroup.
    pub k_split: u32,
    /// Number of batch rows of a workgroup.
    pub batch_tile: u32,
    /// Number of vec4s along k per loop iteration.
    pub k_unroll: u32,
}

impl Step {
    /// Largest number of loop iterations of an invocation of `step`; `stack_wave` has up to twice as many.
    pub const fn iterations(&self) -> u32 {
        self.k4 / self.k_split / self.k_unroll + self.batch_tile.div_ceil(self.k_split)
    }

    const fn sums(&self, parts: u32) -> u32 {
        self.k_split * self.batch_tile * parts * self.unit_tile
    }

    /// Largest size of workgroup memory, in bytes.
    pub const fn workgroup_bytes(&self, cell: &CellCode) -> u32 {
        counted(4 * self.sums(cell.gates()))
    }

    /// The variant for a cell. `phase` is 0; for a cell with an exchange, 1 and 2 for its two dispatches.
    ///
    /// # Panics
    /// If the fields violate their documentation.
    pub fn variant(&self, cell: &CellCode, phase: u32) -> Variant {
        self.assert_sound();
        assert!(cell.exchanges() == (phase > 0), "phases are for cells with an exchange");
        let fused = cell.fused();
        // The gates whose products this dispatch computes, and the gates whose inputs it adds to them.
        let (from, summed, inputs) = match phase {
            0 => (0, fused.gates, fused.added),
            1 => (0, fused.of_h, fused.added),
            _ => (fused.of_h, 1, 0),
        };
        let defines = cell
            .fused_defines(self.hidden, self.k4, self.k_unroll)
            .with("WORKGROUP", self.unit_tile * self.k_split)
            .with("UNIT_TILE", self.unit_tile)
            .with("K_SPLIT", self.k_split)
            .with("K_SLICE", self.k4 / self.k_split)
            .with("BATCH_TILE", self.batch_tile)
            .with("FROM", from)
            .with("SUMMED", summed)
            .with("INPUTS", inputs)
            .with("SUMS", self.sums(summed))
            .with("WHOLE", phase == 0)
            .with("FIRST", phase == 1)
            .with("SECOND", phase == 2);
        let [_, name, _] = fused.names;
        Variant { shader: Shader::Step, name, defines, workgroup_bytes: Some(counted(4 * self.sums(summed))) }
    }
}

impl Step {
    /// The variant of `stack_wave.wgsl` for a cell without an exchange. `k4` must be a multiple of `k_split`, and
    /// `k_unroll` must be 1.
    ///
    /// # Panics
    /// If the fields violate their documentation.
    pub fn wave(&self, cell: &CellCode) -> Variant {
        self.assert_sound();
        assert!(!cell.exchanges(), "a wave has no exchange in the middle of a step");
        let fused = cell.fused();
        let parts = fused.gates + u32::from(fused.is_apart());
        let defines = cell
            .fused_defines(self.hidden, self.k4, self.k_unroll)
            .with("WORKGROUP", self.unit_tile * self.k_split)
            .with("UNIT_TILE", self.unit_tile)
            .with("K_SPLIT", self.k_split)
            .with("K_SLICE", self.k4 / self.k_split)
            .with("BATCH_TILE", self.batch_tile)
            .with("SUM_PARTS", parts)
            .with("SUMS", self.sums(parts));
        Variant { defines, ..Variant::stated(Shader::StackWave, counted(4 * self.sums(parts))) }
    }
}

/// The layout of the `general_*` kernels: LSTM and GRU with layer normalization or a projection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct General {
    /// Number of hidden units, `H`.
    pub hidden: u32,
    /// Number of elements of h.
    pub width: u32,
    /// Number of vec4s along k per row of `W_hh`.
    pub k4: u32,
    /// Number of lanes of a workgroup; a power of two.
    pub workgroup: u32,
    /// Whether `W_hr` projects h.
    pub projection: bool,
    /// Epsilon of the layer normalization.
    pub layer_norm: Option<f32>,
}

impl General {
    /// Number of floats of `extra` for one direction: peepholes, then gain and offset of `W_hh h` and of c.
    pub const fn extra(gates: u32, hidden: u32) -> u32 {
        (5 + 2 * gates) * hidden
    }

    /// Size of workgroup memory of `general_scan`, in bytes.
    pub const fn workgroup_bytes(&self, gates: u32) -> u32 {
        let projected = if self.projection { 16 * self.hidden.div_ceil(4) } else { 0 };
        32 * self.k4 + projected + self.step_workgroup_bytes(gates)
    }

    /// Size of workgroup memory of `general_step`, in bytes.
    pub const fn step_workgroup_bytes(&self, gates: u32) -> u32 {
        counted(4 * gates * self.hidden) + counted(4 * self.workgroup)
    }

    /// Largest number of loop iterations of an invocation of `general_scan` in one timestep.
    pub const fn iterations_per_step(&self, gates: u32) -> u32 {
        let (rows, units) = ((gates * self.hidden).div_ceil(self.workgroup), self.hidden.div_ceil(self.workgroup));
        let sums = 2 * (rows + units) + 4 * 32;
        let packs = self.k4.div_ceil(self.workgroup) + self.hidden.div_ceil(4 * self.workgroup);
        1 + rows * (1 + self.k4) + units * (3 + self.hidden.div_ceil(4)) + packs + sums
    }

    /// Largest number of loop iterations of an invocation of `general_step`.
    pub const fn iterations_of_step(&self, gates: u32) -> u32 {
        let (rows, units) = ((gates * self.hidden).div_ceil(self.workgroup), self.hidden.div_ceil(self.workgroup));
        3 * rows + 5 * units + 4 * 8
    }

    /// Largest number of loop iterations of an invocation of `general_scan` before and after the timesteps.
    pub const fn iterations_at_start(&self) -> u32 {
        5 * self.k4.div_ceil(self.workgroup) + 3 * self.hidden.div_ceil(self.workgroup) + 5
    }

    fn defines(&self, cell: &CellCode) -> Defines {
        self.assert_sound();
        cell.defines(self.hidden, self.k4, 1)
            .with("WORKGROUP", self.workgroup)
            .with("W", self.width)
            .with("GATES", cell.gates())
            .with("RAW", cell.gates() * self.hidden)
            .with("EXTRA", Self::extra(cell.gates(), self.hidden))
            .with("IS_LSTM", matches!(cell.cell.kind, CellKind::Lstm { .. }))
            .with("LAYER_NORM", self.layer_norm.is_some())
            .with("EPSILON", self.layer_norm.unwrap_or(0.0))
    }

    /// Adds the constant for coupled gates, which the shader needs for a GRU too.
    fn complete(&self, cell: &CellCode) -> Defines {
        let d = self.defines(cell);
        if matches!(cell.cell.kind, CellKind::Lstm { .. }) { d } else { d.with("COUPLED", false) }
    }

    /// The variant of `general_scan.wgsl` for a cell.
    pub fn scan(&self, cell: &CellCode) -> Variant {
        let h4 = self.hidden.div_ceil(4);
        let defines = self.complete(cell).with("H_TILE", self.k4).with("H_FLOATS", 4 * self.k4).with("H4", h4);
        let defines = defines.with("PROJECTION", self.projection);
        Variant { defines, ..Variant::stated(Shader::GeneralScan, self.workgroup_bytes(cell.gates())) }
    }

    /// The variant of `general_step.wgsl` for a cell. `phase` is 0; with a projection, 1 and 2 for the dispatches
    /// before and after it.
    pub fn step(&self, cell: &CellCode, phase: u32) -> Variant {
        let defines = self.complete(cell).with("PHASE", phase);
        Variant { defines, ..Variant::stated(Shader::GeneralStep, self.step_workgroup_bytes(cell.gates())) }
    }
}

/// The kernels of cells whose units do not depend on each other: IndRNN, minGRU and minLSTM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pointwise {
    /// Number of hidden units, `H`.
    pub hidden: u32,
}

impl Pointwise {
    /// Number of lanes of a workgroup of `pointwise_scan`; each lane computes one unit.
    pub const LANES: u32 = 64;
    /// Number of timesteps of a block of `linear_scan`.
    pub const BLOCK: u32 = 32;
    /// Number of units of a workgroup of `linear_scan`.
    pub const COLUMNS: u32 = 8;

    fn defines(&self, cell: &CellCode, workgroup: u32) -> Defines {
        cell.defines(self.hidden, 0, 1).with("GATES", cell.gates()).with("WORKGROUP", workgroup).with(
            "KIND",
            match cell.cell.kind {
                CellKind::IndRnn => 0,
                CellKind::MinGru => 1,
                CellKind::MinLstm => 2,
                other => panic!("{other:?} is not pointwise"),
            },
        )
    }

    fn blocks(&self, cell: &CellCode) -> Defines {
        self.defines(cell, Self::BLOCK * Self::COLUMNS).with("BLOCK", Self::BLOCK).with("COLUMNS", Self::COLUMNS)
    }

    /// The variant of `pointwise_scan.wgsl` for a cell.
    pub fn scan(&self, cell: &CellCode) -> Variant {
        Variant::fixed(Shader::PointwiseScan, self.defines(cell, Self::LANES))
    }

    /// The variant of `linear_scan.wgsl` for a cell; `from_gates` for the first level.
    pub fn linear_scan(&self, cell: &CellCode, from_gates: bool) -> Variant {
        Variant::fixed(Shader::LinearScan, self.blocks(cell).with("FROM_GATES", from_gates))
    }

    /// The variant of `linear_carry.wgsl` for a cell; `apply` for the first level.
    pub fn linear_carry(&self, cell: &CellCode, apply: bool) -> Variant {
        Variant::fixed(Shader::LinearCarry, self.blocks(cell).with("APPLY", apply))
    }
}

/// The kernels `train_*` of a recurrent layer: of what it keeps and of the gradients of its sums.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Training {
    /// The cell and how valid timesteps are given. `extra` says that a GRU has a separate recurrent bias that is not
    /// part of an offset of a layer normalization.
    pub code: CellCode,
    /// Number of hidden units, `H`.
    pub hidden: u32,
    /// Number of lanes of a workgroup; a power of two.
    pub workgroup: u32,
    /// Whether sums of gates are kept instead of their values.
    pub sums: bool,
    /// Number of gates with factors on h of their own: 0, 1 for all gates, or all gates.
    pub dropout: u32,
    /// Whether shares of the old h in the new one were drawn.
    pub drawn_h: bool,
    /// The same for c.
    pub drawn_c: bool,
}

impl Training {
    const fn gates(&self) -> u32 {
        self.code.gates()
    }

    const fn norm(&self) -> bool {
        self.code.cell.layer_norm.is_some()
    }

    const fn reset_after(&self) -> bool {
        matches!(self.code.cell.kind, CellKind::Gru { reset_after: true })
    }

    /// Whether a second product stands within a timestep: that of a projection, or that of a candidate.
    pub const fn in_phases(&self) -> bool {
        self.code.cell.projection.is_some() || matches!(self.code.cell.kind, CellKind::Gru { reset_after: false })
    }

    /// Number of elements of h.
    pub const fn width(&self) -> u32 {
        self.code.cell.state_size(self.hidden as usize) as u32
    }

    /// Number of states of H elements besides h.
    pub const fn carried(&self) -> u32 {
        self.code.cell.kind.carried() as u32
    }

    /// Number of gates whose sums are kept, and of recurrent sums that are kept apart.
    pub const fn kept(&self) -> u32 {
        self.gates() + self.reset_after() as u32
    }

    /// Number of gates whose products are of h.
    pub const fn products(&self) -> u32 {
        match self.code.cell.kind {
            kind if kind.is_pointwise() => 0,
            CellKind::Gru { reset_after: false } => 2,
            _ => self.gates(),
        }
    }

    /// Number of products of the gradients of sums that come back to h with factors of their own.
    pub const fn back(&self) -> u32 {
        if self.dropout > 1 || self.products() == 0 { self.products() } else { 1 }
    }

    /// Number of floats of one direction of weights that are vectors: peepholes, and gain and offset of c; a separate
    /// recurrent bias; u of an IndRNN.
    pub const fn extra(&self) -> u32 {
        match self.code.cell.kind {
            CellKind::Lstm { .. } if self.code.cell.peepholes || self.norm() => 5 * self.hidden,
            CellKind::Gru { reset_after: true } if self.code.extra && !self.norm() => self.hidden,
            CellKind::IndRnn => self.hidden,
            _ => 0,
        }
    }

    /// The floats of those whose gradients rows add up over time.
    pub const fn vectors(&self) -> u32 {
        if matches!(self.code.cell.kind, CellKind::Gru { .. }) { 0 } else { self.extra() }
    }

    /// Where the gradients of the recurrent sums begin in a row, if they differ from those of the sums or will be
    /// changed; else 0.
    pub const fn hidden_at(&self) -> u32 {
        if self.norm() || self.reset_after() { self.gates() * self.hidden } else { 0 }
    }

    /// With layer normalization: where the gradients of `W_hh h` begin in a row, and those of `W_ih x`.
    pub const fn normed_at(&self) -> [u32; 2] {
        [2 * self.gates() * self.hidden, 3 * self.gates() * self.hidden]
    }

    /// Where what a second product reads in the forward pass begins in a row; 0 if there is none.
    pub const fn second_at(&self) -> u32 {
        if !self.in_phases() {
            return 0;
        }
        match (self.norm(), self.reset_after()) {
            (true, _) => 4 * self.gates() * self.hidden,
            (false, true) => 2 * self.gates() * self.hidden,
            (false, false) => self.gates() * self.hidden,
        }
    }

    /// Where what comes back to a projected h begins in a row; 0 if there is no projection.
    pub const fn by_h_at(&self) -> u32 {
        if self.code.cell.projection.is_some() { self.second_at() + self.hidden } else { 0 }
    }

    /// Number of floats of a row of the gradients.
    pub const fn trace(&self) -> u32 {
        let blocks = match (self.norm(), self.reset_after()) {
            (true, _) => 4 * self.gates() * self.hidden,
            (false, true) => 2 * self.gates() * self.hidden,
            (false, false) => self.gates() * self.hidden,
        };
        let second = if self.in_phases() { self.hidden } else { 0 };
        let by_h = if self.code.cell.projection.is_some() { self.width() } else { 0 };
        blocks + second + by_h
    }

    /// Number of floats of a batch row that the gradient carries from timestep to timestep.
    pub const fn carry(&self) -> u32 {
        self.width() + self.carried() * self.hidden + self.vectors()
    }

    const fn cell_norm(&self) -> bool {
        self.norm() && matches!(self.code.cell.kind, CellKind::Lstm { .. })
    }

    /// Size of workgroup memory of `train_forward` and `train_backward`, in bytes.
    const fn workgroup_bytes(&self) -> u32 {
        if self.cell_norm() { counted(4 * self.workgroup) } else { 0 }
    }

    /// Whether one workgroup has all units of a row, because it adds something up over them.
    pub const fn is_whole(&self) -> bool {
        self.cell_norm()
    }

    /// Largest number of loop iterations of an invocation of `train_forward` and `train_backward`.
    pub const fn iterations(&self) -> u32 {
        let units = if self.cell_norm() { self.hidden.div_ceil(self.workgroup) } else { 1 };
        (4 + self.gates()) * units + self.width().div_ceil(self.workgroup) + 4 * 32
    }

    /// The number of the kind of cell in the kernels.
    fn kind(&self) -> u32 {
        match self.code.cell.kind {
            CellKind::Rnn => 0,
            CellKind::Lstm { .. } => 1,
            CellKind::Gru { reset_after: true } => 2,
            CellKind::Gru { reset_after: false } => 3,
            CellKind::IndRnn => 4,
            CellKind::MinGru => 5,
            CellKind::MinLstm => 6,
            CellKind::SLstm { .. } => 7,
            other => panic!("{other:?} has no kernel of training"),
        }
    }

    /// Whether the cell is one that `train_scan` and `train_scan_back` compute: a SimpleRNN, LSTM or GRU without
    /// further options, of which the values of gates are kept.
    pub const fn is_plain(&self) -> bool {
        let Cell { kind, peepholes, projection, layer_norm, clip, zoneout, .. } = self.code.cell;
        let kind = matches!(kind, CellKind::Rnn | CellKind::Lstm { coupled: false } | CellKind::Gru { .. });
        let drawn = self.dropout > 0 || self.drawn_h || self.drawn_c;
        let options = peepholes || projection.is_some() || layer_norm.is_some() || clip.is_some() || zoneout.is_some();
        kind && !options && !drawn && !self.sums
    }

    fn defines(&self, phase: u32) -> Defines {
        assert!(self.hidden > 0 && self.workgroup.is_power_of_two() && self.width() <= self.hidden, "{self:?}");
        let kind = self.code.cell.kind;
        let d = self.code.defines(self.hidden, 0, 1);
        let d = if matches!(kind, CellKind::Lstm { .. }) { d } else { d.with("COUPLED", false) };
        d.with("KIND", self.kind())
            .with("SLSTM", matches!(kind, CellKind::SLstm { .. }))
            .with("GATES", self.gates())
            .with("KEPT", self.kept())
            .with("W", self.width())
            .with("CARRIED", self.carried())
            .with("EXTRA", self.extra())
            .with("PHASE", phase)
            .with("SUMS", self.sums)
            .with("PEEPHOLES", self.code.cell.peepholes)
            .with("CELL_NORM", self.cell_norm())
            .with("EPSILON", self.code.cell.layer_norm.unwrap_or(0.0))
            .with("DROPOUT", self.dropout)
            .with("DRAWN_H", self.drawn_h)
            .with("DRAWN_C", self.drawn_c)
            .with("WORKGROUP", self.workgroup)
    }

    /// The variant of `train_forward.wgsl`. `phase` is 0, or 1 and 2 before and after a second product; 3 applies
    /// factors to the initial h.
    ///
    /// # Panics
    /// If the fields violate their documentation.
    pub fn forward(&self, phase: u32) -> Variant {
        let defines = self.defines(phase).with("PRODUCT", self.products());
        Variant { defines, ..Variant::stated(Shader::TrainForward, self.workgroup_bytes()) }
    }

    /// The variant of `train_backward.wgsl`. `phase` is 0, or 1 and 2 before and after a second product; 3 ends the
    /// pass.
    ///
    /// # Panics
    /// If the fields violate their documentation.
    pub fn backward(&self, phase: u32) -> Variant {
        let defines = self
            .defines(phase)
            .with("BACK", self.back())
            .with("HIDDEN", self.hidden_at())
            .with("SECOND", self.second_at())
            .with("BY_H", self.by_h_at())
            .with("TRACE", self.trace())
            .with("CARRY", self.carry());
        Variant { defines, ..Variant::stated(Shader::TrainBackward, self.workgroup_bytes()) }
    }

    fn valid(&self) -> Defines {
        let valid = self.code.valid;
        Defines::new().with("HAS_LENGTHS", valid == Valid::Lengths).with("HAS_MASK", valid == Valid::Mask)
    }

    /// Number of lanes of a workgroup of `train_norm.wgsl`.
    pub const NORM_LANES: u32 = 64;

    /// The variant of `train_norm.wgsl`.
    pub fn layer_norm(&self, backward: bool) -> Variant {
        let defines = self.valid().with("WORKGROUP", Self::NORM_LANES).with("BACKWARD", backward);
        Variant::fixed(Shader::TrainNorm, defines)
    }

    /// The variant of `train_input.wgsl`.
    pub fn input(&self) -> Variant {
        Variant::fixed(Shader::TrainInput, self.valid().with("WORKGROUP", LANES))
    }
}

/// The layout of `train_scan.wgsl` or `train_scan_back.wgsl`, for [`Training::is_plain`] cells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainScan {
    /// The cell and what is kept of it.
    pub training: Training,
    /// Whether it is the backward pass.
    pub backward: bool,
    /// Number of lanes of a workgroup; a multiple of `k_split`.
    pub workgroup: u32,
    /// Number of batch rows of a workgroup: 1, 2 or 4.
    pub batch_tile: u32,
    /// Number of vec4s of a gate along k per unit; a multiple of `k_split`.
    pub k4: u32,
    /// Number of lanes that share the sums of a unit, a power of two.
    pub k_split: u32,
    /// Whether shared sums are added by subgroup shuffles instead of through workgroup memory; at most 8 lanes.
    pub subgroups: bool,
    /// Number of vec4s along k of which a lane keeps the weights in registers.
    pub held: u32,
    /// Number of vec4s along k per loop iteration; divides those that are not held.
    pub k_unroll: u32,
    /// Whether a workgroup has all units and runs over many timesteps; else a dispatch is one timestep.
    pub whole: bool,
}

impl TrainScan {
    /// Number of hidden units of a workgroup.
    pub const fn units(&self) -> u32 {
        self.workgroup / self.k_split
    }

    /// Number of workgroups that share the units of a row.
    pub const fn spread(&self) -> u32 {
        self.training.hidden.div_ceil(self.units())
    }

    const fn exchanges(&self) -> bool {
        matches!(self.training.code.cell.kind, CellKind::Gru { reset_after: false })
    }

    /// Number of vec4s of a row that a unit's first product reads.
    const fn depth(&self) -> u32 {
        if self.backward { self.training.products() * self.k4 } else { self.k4 }
    }

    /// Number of vec4s along k per lane.
    pub const fn k_slice(&self) -> u32 {
        self.depth() / self.k_split
    }

    /// Number of sums of a unit's first product.
    const fn sums(&self) -> u32 {
        if self.backward { 1 } else { self.training.products() }
    }

    /// Number of floats of the weights that a lane reads for one vec4 along k.
    pub const fn floats(&self) -> u32 {
        4 * self.sums()
    }

    const fn partial(&self) -> bool {
        self.k_split > 1 && !self.subgroups
    }

    const fn rows(&self) -> u32 {
        self.batch_tile.div_ceil(self.k_split)
    }

    const fn partial_sums(&self) -> u32 {
        if self.partial() { self.sums() * self.batch_tile * self.workgroup } else { 0 }
    }

    const fn tile(&self) -> u32 {
        self.batch_tile * self.depth()
    }

    /// Size of workgroup memory, in bytes.
    pub const fn workgroup_bytes(&self) -> u32 {
        16 * self.tile() * (1 + self.whole as u32) + counted(4 * self.partial_sums())
    }

    /// Largest number of loop iterations of an invocation in one timestep.
    pub const fn iterations_per_step(&self) -> u32 {
        let pack = if self.whole { self.tile().div_ceil(self.workgroup) } else { 0 };
        let joined = if self.partial() { self.rows() * self.k_split } else { 0 };
        let second = if self.exchanges() { pack + self.k4 / self.k_split } else { 0 };
        1 + (self.k_slice() - self.held) / self.k_unroll + joined + pack + second
    }

    /// Largest number of loop iterations of an invocation before the first timestep.
    pub const fn iterations_at_start(&self) -> u32 {
        self.tile().div_ceil(self.workgroup)
    }

    /// The variant. With `ends` it adds what comes back to the initial h after the backward pass.
    ///
    /// # Panics
    /// If the fields violate their documentation.
    pub fn variant(&self, ends: bool) -> Variant {
        self.assert_sound();
        let t = &self.training;
        let layout = Self { whole: self.whole && !ends, ..*self };
        let defines = t
            .code
            .defines(t.hidden, self.k4, self.k_unroll)
            .with("KIND", t.kind())
            .with("GATES", t.gates())
            .with("KEPT", t.kept())
            .with("W", t.width())
            .with("CARRIED", t.carried())
            .with("SUMS", t.sums)
            .with("WORKGROUP", self.workgroup)
            .with("BATCH_TILE", self.batch_tile)
            .with("UNIT_LANES", self.units())
            .with("K_SPLIT", self.k_split)
            .with("K_SLICE", self.k_slice())
            .with("DEPTH4", self.depth())
            .with("OF_H", t.products())
            .with("HELD", self.held)
            .with("ROWS", self.rows())
            .with("SUBGROUPS", self.k_split > 1 && self.subgroups)
            .with("PARTIAL", self.partial())
            .with("PARTIAL_SUMS", self.partial_sums())
            .with("WHOLE", layout.whole)
            .with("EXCHANGE", self.exchanges());
        let (shader, defines) = if self.backward {
            let defines = defines
                .with("PHASE", if ends { 3 } else { 0 })
                .with("ENDS", ends)
                .with("HIDDEN", t.hidden_at())
                .with("SECOND", t.second_at())
                .with("TRACE", t.trace())
                .with("CARRY", t.carry());
            (Shader::TrainScanBack, defines)
        } else {
            (Shader::TrainScan, defines.with("EXTRA", t.extra()))
        };
        Variant { defines, ..Variant::stated(shader, layout.workgroup_bytes()) }
    }
}

/// How the lanes of a workgroup of `matmul.wgsl` share a tile of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatmulTile {
    /// Number of lanes along the rows, of 64 lanes in total.
    pub lanes_m: u32,
    /// Number of groups of four rows per lane.
    pub row_vecs: u32,
    /// Number of groups of four columns per lane.
    pub column_vecs: u32,
    /// Whether the inner loop over a tile is unrolled: faster, but slow to compile.
    pub unrolled: bool,
}

impl MatmulTile {
    /// 16 × 64 results, for few rows.
    pub const FLAT: Self = Self { lanes_m: 4, row_vecs: 1, column_vecs: 1, unrolled: true };
    /// 16 × 256 results, for few rows on a software rasteriser, where reusing loaded elements matters more than having
    /// many workgroups.
    pub const WIDE: Self = Self { lanes_m: 2, row_vecs: 2, column_vecs: 2, unrolled: true };
    /// 32 × 32 results, which gives many workgroups for a small product.
    pub const SMALL: Self = Self { lanes_m: 8, row_vecs: 1, column_vecs: 1, unrolled: true };
    /// 64 × 64 results: each element that is loaded into workgroup memory is used in 64 products.
    pub const LARGE: Self = Self { lanes_m: 8, row_vecs: 2, column_vecs: 2, unrolled: true };

    /// Numbers of rows and columns of results.
    pub const fn size(self) -> (u32, u32) {
        (self.lanes_m * 4 * self.row_vecs, 64 / self.lanes_m * 4 * self.column_vecs)
    }

    /// Number of elements along k that are in workgroup memory at once.
    const K: u32 = 16;

    /// Size of workgroup memory, in bytes.
    pub const fn workgroup_bytes(&self) -> u32 {
        let (m, n) = self.size();
        4 * Self::K * (m + n)
    }
}

/// How the lanes of a workgroup of `matmul_direct.wgsl` share its results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectTile {
    /// Number of rows per lane.
    pub rows: u32,
    /// Number of lanes along the columns; a power of two up to `LANES`.
    pub lanes_n: u32,
}

impl DirectTile {
    /// Number of lanes of a workgroup.
    const LANES: u32 = 32;
    /// Number of columns per lane.
    const COLUMNS: u32 = 8;

    /// The tile for `m` rows and `n` columns.
    pub fn for_product(m: u32, n: u32) -> Self {
        let lanes_n = n.div_ceil(Self::COLUMNS).next_power_of_two().min(Self::LANES);
        Self { rows: m.next_power_of_two().min(8), lanes_n }
    }

    /// Numbers of rows and columns of results of a workgroup.
    pub const fn size(self) -> (u32, u32) {
        (Self::LANES / self.lanes_n * self.rows, self.lanes_n * Self::COLUMNS)
    }
}

/// The stage that a dispatch of `sample.wgsl` runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleStage {
    /// Draws one token per row, with one workgroup per row.
    Whole,
    /// Counts the logits of a part of a row that reach a threshold; one dispatch for each bit of the threshold.
    Count,
    /// Computes the top-k logits with their noise.
    Noise,
}

/// Number of lanes of a workgroup of the elementwise kernels.
const LANES: u32 = 256;

impl Variant {
    /// The kernel.
    pub const fn shader(&self) -> Shader {
        self.shader
    }

    /// The name of its pipeline: the stem of the kernel's file, with the name of the cell in front if the kernel
    /// includes a cell's snippet.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Whether so much code is unrolled that Direct3D's FXC takes seconds to compile it. Devices that use FXC do not
    /// use such variants.
    pub fn is_long(&self) -> bool {
        let is = |name, value: bool| self.defines.get(name) == Some(Value::from(value));
        let large = self.defines.get("COLUMN_VECS") == Some(Value::from(2u32));
        let held = matches!(self.defines.get("HELD"), Some(Value::U32(n)) if n > 0);
        held || is("REGISTERS", true)
            || is("RESIDENT", true)
            || (self.shader == Shader::Matmul && (large || is("IN_PARTS", false)))
    }

    /// Number of lanes of a workgroup of the elementwise kernels.
    pub const ELEMENTWISE_LANES: u32 = LANES;

    /// Largest workgroup memory that Direct3D allows, in bytes. No sample exceeds it.
    pub const DIRECT3D_WORKGROUP_BYTES: u32 = 32 << 10;
    /// Workgroup memory that every device has, in bytes; WebGPU guarantees it.
    pub const LEAST_WORKGROUP_BYTES: u32 = 16 << 10;

    const fn fixed(shader: Shader, defines: Defines) -> Self {
        Self { shader, name: shader.stem(), defines, workgroup_bytes: None }
    }

    /// A variant without constants, whose workgroup memory is stated.
    fn stated(shader: Shader, workgroup_bytes: u32) -> Self {
        Self { workgroup_bytes: Some(workgroup_bytes), ..Self::fixed(shader, Defines::new()) }
    }

    fn elementwise(shader: Shader, element: Element) -> Self {
        Self::fixed(shader, Defines::new().with("WORKGROUP", LANES).with("ELEMENT", element.alias()))
    }

    fn and(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.defines = self.defines.with(name, value);
        self
    }

    /// Operations of [`Self::binary`].
    pub const OPERATIONS: u32 = 19;
    /// Functions of [`Self::function`].
    pub const FUNCTIONS: u32 = 38;

    /// Variant of `binary.wgsl`; the operations are numbered in its text.
    pub fn binary(element: Element, operation: u32) -> Self {
        Self::elementwise(Shader::Binary, element).and("OPERATION", operation)
    }

    /// Variant of `copy.wgsl`.
    pub fn copy(element: Element) -> Self {
        Self::elementwise(Shader::Copy, element)
    }

    /// Variant of `fill.wgsl`.
    pub fn fill(element: Element) -> Self {
        Self::elementwise(Shader::Fill, element)
    }

    /// Variant of `function.wgsl`; the functions are numbered in its text, their parameters are those of a dispatch.
    pub fn function(element: Element, function: u32) -> Self {
        Self::elementwise(Shader::Function, element).and("FUNCTION", function)
    }

    /// Variant of `gather.wgsl`.
    pub fn gather(element: Element) -> Self {
        Self::elementwise(Shader::Gather, element)
    }

    /// Variant of `unary.wgsl`; alpha and beta are parameters of a dispatch.
    pub fn unary(element: Element, result: Element, activation: Activation) -> Self {
        Self::elementwise(Shader::Unary, element).and("RESULT", result.alias()).and("ACTIVATION", activation.code())
    }

    /// Variant of `noise.wgsl`; kind 0 dropout, 1 zeros and ones, 2 uniform, 3 normal.
    pub fn noise(kind: u32) -> Self {
        Self::elementwise(Shader::Noise, Element::F32).and("KIND", kind)
    }

    /// Variant of `slope.wgsl`; alpha and beta are parameters of a dispatch.
    pub fn slope(activation: Activation) -> Self {
        Self::elementwise(Shader::Slope, Element::F32)
            .and("ACTIVATION", activation.code())
            .and("FROM_INPUT", activation.slope_needs_input())
    }

    /// Variant of `update.wgsl`; the rates are an operand.
    pub fn update(rule: Descent, decay: Decay) -> Self {
        let [momentum, centered, amsgrad] = rule.options();
        let states = rule.states();
        Self::elementwise(Shader::Update, Element::F32)
            .and("RULE", rule.code())
            .and("DECAY", decay.code())
            .and("MOMENTUM", momentum)
            .and("CENTERED", centered)
            .and("AMSGRAD", amsgrad)
            .and("AVERAGE", if momentum { 2 } else { 1 })
            .and("STATES", states as u32)
            .and("HAS_FIRST", states > 0)
            .and("HAS_SECOND", states > 1)
            .and("HAS_THIRD", states > 2)
    }

    /// Largest number of elements that a lane of `reduce.wgsl` reduces, and so of its loop iterations.
    pub const REDUCE_BLOCK: u32 = 128;

    /// Variant of `reduce.wgsl`; operation 0 sum, divided by the divisor, 1 product, 2 maximum, 3 minimum. `before` 1 is the
    /// absolute value, 2 the square; `after` 1 the root, 2 the logarithm, 3 zero in place of an infinity.
    pub fn reduce(element: Element, result: Element, operation: u32, before: u32, after: u32) -> Self {
        Self::elementwise(Shader::Reduce, element)
            .and("RESULT", result.alias())
            .and("OPERATION", operation)
            .and("BEFORE", before)
            .and("AFTER", after)
            .and("ARGMAX", false)
            .and("PLACED", false)
    }

    /// Variant of `reduce.wgsl` for the index of the first or the last maximum or minimum; with `placed` the input has
    /// indices from an earlier pass.
    pub fn argmax(element: Element, placed: bool) -> Self {
        Self::elementwise(Shader::Reduce, element)
            .and("RESULT", Value::TypeU32)
            .and("OPERATION", 0)
            .and("BEFORE", 0)
            .and("AFTER", 0)
            .and("ARGMAX", true)
            .and("PLACED", placed)
    }

    /// Variant of `take.wgsl`; indices are f32, or U32.
    pub fn take(element: Element, index: Element) -> Self {
        Self::elementwise(Shader::Take, element).and("INDEX", index.alias()).and("WHOLE", index == Element::U32)
    }

    /// Variant of `scatter.wgsl`; operation 0 replace, 1 add, 2 multiply, 3 maximum, 4 minimum. Indices are f32, or U32.
    pub fn scatter(index: Element, operation: u32) -> Self {
        let defines = Defines::new().with("WORKGROUP", LANES).with("INDEX", index.alias());
        Self::fixed(Shader::Scatter, defines).and("WHOLE", index == Element::U32).and("OPERATION", operation)
    }

    /// Variant of `cumulate.wgsl`.
    pub fn cumulate() -> Self {
        Self::fixed(Shader::Cumulate, Defines::new().with("WORKGROUP", LANES))
    }

    /// Lanes of a workgroup of `sum_rows.wgsl`, and so the most columns that it adds.
    pub const SUM_ROWS_LANES: u32 = 64;
    /// Ids that a workgroup of `sum_rows.wgsl` looks at in a step.
    pub const SUM_ROWS_LIST: u32 = 512;
    /// Sums that a workgroup of `sum_rows.wgsl` can keep in its memory.
    pub const SUM_ROWS_SUMS: u32 = 2048;
    /// Rows that are loaded before the first is added; divides [`Self::SUM_ROWS_LIST`].
    pub const SUM_ROWS_AHEAD: u32 = 16;

    /// Variant of `sum_rows.wgsl`; `merged` adds what `sum_runs.wgsl` made.
    pub fn sum_rows(merged: bool) -> Self {
        let defines = Defines::new().with("WORKGROUP", Self::SUM_ROWS_LANES).with("MERGED", merged);
        let run = Self::SUM_ROWS_LIST / Self::SUM_ROWS_LANES;
        let defines = defines.with("RUN", run).with("AHEAD", Self::SUM_ROWS_AHEAD).with("SUMS", Self::SUM_ROWS_SUMS);
        Self::fixed(Shader::SumRows, defines)
    }

    /// Rows of a chunk of `sum_runs.wgsl`, and lanes of its workgroup.
    pub const SUM_RUNS_CHUNK: u32 = 256;
    /// Rows of a chunk that are loaded before the first is added.
    pub const SUM_RUNS_AHEAD: u32 = 8;

    /// Variant of `sum_runs.wgsl`.
    pub fn sum_runs() -> Self {
        Self::fixed(
            Shader::SumRuns,
            Defines::new().with("CHUNK", Self::SUM_RUNS_CHUNK).with("AHEAD", Self::SUM_RUNS_AHEAD),
        )
    }

    /// Variant of `top_k.wgsl`.
    pub fn top_k() -> Self {
        Self::fixed(Shader::TopK, Defines::new().with("WORKGROUP", LANES))
    }

    /// Variant of `softmax.wgsl`.
    /// `select.wgsl`
    /// Variant of `select.wgsl`.
    pub fn select() -> Self {
        Self::elementwise(Shader::Select, Element::F32)
    }

    /// Variant of `softmax.wgsl`; `logarithm` gives its logarithm.
    pub fn softmax(element: Element, logarithm: bool) -> Self {
        let defines =
            Defines::new().with("WORKGROUP", 64).with("ELEMENT", element.alias()).with("LOGARITHM", logarithm);
        Self::fixed(Shader::Softmax, defines).and("SUM", false)
    }

    /// Variant of `softmax.wgsl` for the logarithm of the sum of a row's exponentials.
    pub fn log_sum() -> Self {
        let defines =
            Defines::new().with("WORKGROUP", 64).with("ELEMENT", Element::F32.alias()).with("LOGARITHM", false);
        Self::fixed(Shader::Softmax, defines).and("SUM", true)
    }

    /// Variant of `cross_entropy.wgsl`; labels are f32, or U32.
    pub fn cross_entropy(label: Element, backward: bool, smooth: bool) -> Self {
        let defines = Defines::new().with("WORKGROUP", LANES).with("INDEX", label.alias());
        let of_labels = Self::fixed(Shader::CrossEntropy, defines).and("WHOLE", label == Element::U32);
        of_labels.and("BACKWARD", backward).and("SMOOTH", smooth)
    }

    /// Lanes of a workgroup of `ctc_paths.wgsl` and `ctc_gradient.wgsl`.
    pub const CTC_LANES: u32 = 64;

    /// Variant of `ctc_labels.wgsl`; labels are f32, or U32.
    pub fn ctc_labels(label: Element) -> Self {
        let defines = Defines::new().with("WORKGROUP", LANES).with("INDEX", label.alias());
        Self::fixed(Shader::CtcLabels, defines).and("WHOLE", label == Element::U32)
    }

    /// Variant of `ctc_paths.wgsl`; from logits, or from logarithms of probabilities.
    pub fn ctc_paths(logits: bool, valid: Valid, reverse: bool) -> Self {
        Self::ctc(Shader::CtcPaths, logits, valid).and("REVERSE", reverse)
    }

    /// Variant of `ctc_gradient.wgsl`, as [`Self::ctc_paths`].
    pub fn ctc_gradient(logits: bool, valid: Valid) -> Self {
        Self::ctc(Shader::CtcGradient, logits, valid)
    }

    fn ctc(shader: Shader, logits: bool, valid: Valid) -> Self {
        let defines = Defines::new().with("WORKGROUP", Self::CTC_LANES).with("LOGITS", logits);
        Self::fixed(shader, defines).and("HAS_LENGTHS", valid == Valid::Lengths).and("HAS_MASK", valid == Valid::Mask)
    }

    /// Number of channels that a lane of `conv.wgsl` computes if a group has as many.
    pub const CONV_CHANNELS: u32 = 4;

    /// Variant of `conv.wgsl`; a lane computes one channel, or [`Self::CONV_CHANNELS`] if they are `many`.
    pub fn conv(transposed: bool, bias: bool, many: bool) -> Self {
        Self::elementwise(Shader::Conv, Element::F32)
            .and("TRANSPOSED", transposed)
            .and("HAS_BIAS", bias)
            .and("CHANNELS", if many { Self::CONV_CHANNELS } else { 1 })
    }

    /// Variant of `pool.wgsl`; operation 0 maximum, 1 mean, 2 norm, 3 place of the maximum.
    pub fn pool(operation: u32) -> Self {
        let result = if operation == 3 { Value::TypeU32 } else { Value::TypeF32 };
        Self::elementwise(Shader::Pool, Element::F32)
            .and("OPERATION", operation)
            .and("PLACES", operation == 3)
            .and("RESULT", result)
    }

    /// Variant of `normalize.wgsl`.
    pub fn normalize(centered: bool, scale: bool, offset: bool) -> Self {
        let defines = Defines::new()
            .with("WORKGROUP", 64)
            .with("CENTERED", centered)
            .with("HAS_SCALE", scale)
            .with("HAS_BIAS", offset);
        Self::fixed(Shader::Normalize, defines)
    }

    /// Variant of `matmul.wgsl`; `weights` is the storage type of B.
    pub fn matmul(
        element: Element,
        weights: Element,
        transposed: bool,
        bias: bool,
        activation: Activation,
        tile: MatmulTile,
    ) -> Self {
        let tile_k = MatmulTile::K;
        let (m, n) = tile.size();
        let defines = Self::product(element, weights, bias, activation)
            .with("TRANSPOSED", transposed)
            .with("TILE_K", tile_k)
            .with("IN_PARTS", !tile.unrolled)
            .with("K_UNROLL", if tile.unrolled { tile_k } else { 4 })
            .with("TILE_M", m)
            .with("TILE_N", n)
            .with("LANES_M", tile.lanes_m)
            .with("LANES_N", 64 / tile.lanes_m)
            .with("ROW_VECS", tile.row_vecs)
            .with("COLUMN_VECS", tile.column_vecs)
            .with("LINES", 64 / tile_k)
            .with("A_LOADS", m * tile_k / 256)
            .with("B_LOADS", n * tile_k / 256)
            .with("A_TILE", tile_k * m / 4)
            .with("B_TILE", tile_k * n / 4);
        Self { defines, ..Self::stated(Shader::Matmul, tile.workgroup_bytes()) }
    }

    /// What the kernels of products have in common.
    fn product(element: Element, weights: Element, bias: bool, activation: Activation) -> Defines {
        Defines::new()
            .with("ELEMENT", element.alias())
            .with("WEIGHT", weights.alias())
            .with("HAS_BIAS", bias)
            .with("ACTIVATION", activation.code())
    }

    /// Variant of `matmul_direct.wgsl`. With `wide` it reads vec4s; k, offsets and strides must then be multiples of 4.
    pub fn matmul_direct(
        element: Element,
        weights: Element,
        bias: bool,
        activation: Activation,
        tile: DirectTile,
        wide: bool,
    ) -> Self {
        let defines = Self::product(element, weights, bias, activation)
            .with("WIDE", wide)
            .with("STEP", if wide { 4u32 } else { 1 })
            .with("WORKGROUP", DirectTile::LANES)
            .with("LANES_N", tile.lanes_n)
            .with("ROWS", tile.rows)
            .with("COLUMNS", DirectTile::COLUMNS);
        Self::fixed(Shader::MatmulDirect, defines)
    }

    /// Variant of `matvec.wgsl`. With `wide` it reads vec4s; k, offsets and strides must then be multiples of 4.
    pub fn matvec(element: Element, weights: Element, bias: bool, activation: Activation, wide: bool) -> Self {
        let defines = Self::product(element, weights, bias, activation)
            .with("WIDE", wide)
            .with("WORKGROUP", Self::MATVEC_LANES)
            .with("LANES_K", Self::MATVEC_LANES_K);
        Self::fixed(Shader::Matvec, defines)
    }

    /// Number of lanes of a workgroup of `matvec.wgsl`.
    const MATVEC_LANES: u32 = 128;
    /// Number of results of a workgroup of `matvec.wgsl`.
    pub const MATVEC_COLUMNS: u32 = 8;
    /// Number of lanes per result.
    pub const MATVEC_LANES_K: u32 = Self::MATVEC_LANES / Self::MATVEC_COLUMNS;

    /// Variant of `layer_norm.wgsl`.
    pub fn layer_norm() -> Self {
        Self::fixed(Shader::LayerNorm, Defines::new().with("WORKGROUP", 64))
    }

    /// Variant of `mask.wgsl`.
    pub fn mask(element: Element) -> Self {
        Self::elementwise(Shader::Mask, element)
    }

    /// Number of logits that a workgroup of `sample.wgsl` counts.
    pub const SAMPLE_SPAN: u32 = 1024;

    /// Variant of `sample.wgsl`.
    pub fn sample(stage: SampleStage) -> Self {
        let defines = Defines::new()
            .with("WORKGROUP", if stage == SampleStage::Noise { LANES } else { 64 })
            .with("WHOLE", stage == SampleStage::Whole)
            .with("COUNT", stage == SampleStage::Count)
            .with("SPAN", Self::SAMPLE_SPAN);
        Self::fixed(Shader::Sample, defines)
    }

    /// Variant of `loop_probe.wgsl`.
    pub fn loop_probe() -> Self {
        Self::fixed(Shader::LoopProbe, Defines::new())
    }

    /// Variant of `grid_probe.wgsl`.
    pub fn grid_probe() -> Self {
        Self::fixed(Shader::GridProbe, Defines::new())
    }

    /// Variant of `peak.wgsl`.
    pub fn peak(read: bool) -> Self {
        Self::fixed(Shader::Peak, Defines::new().with("READ", read))
    }

    /// Variant of `subgroup_probe.wgsl`.
    pub fn subgroup_probe() -> Self {
        Self::fixed(Shader::SubgroupProbe, Defines::new())
    }

    /// Composes the variant's WGSL module.
    ///
    /// # Errors
    /// [`ComposeError`] if the source and the constants do not match, which would be a bug in this crate.
    pub fn compose(&self) -> Result<Composed, ComposeError> {
        compose(self.shader.stem(), self.shader.source(), &self.defines, snippet)
    }

    /// For tests: [`Self::compose`] with loops that end after `limit` iterations of an invocation, as some software
    /// rasterisers end them.
    ///
    /// # Errors
    /// As [`Self::compose`].
    pub fn compose_ending_loops(&self, limit: u32) -> Result<Composed, ComposeError> {
        let composed = self.compose()?;
        Ok(Composed { source: crate::compose::end_loops(&composed.source, limit), ..composed })
    }
}

/// Variants that together take every branch of every kernel.
pub fn samples() -> Vec<Variant> {
    use Activation::{Linear, Sigmoid, Tanh};
    use Element::{F16, F32, U32};
    let mut out = vec![
        Variant::loop_probe(),
        Variant::grid_probe(),
        Variant::subgroup_probe(),
        Variant::peak(false),
        Variant::peak(true),
        Variant::argmax(F32, false),
        Variant::argmax(F16, false),
        Variant::argmax(F32, true),
        Variant::argmax(F16, true),
        Variant::layer_norm(),
        Variant::normalize(true, true, true),
        Variant::normalize(true, false, false),
        Variant::normalize(false, true, false),
        Variant::sample(SampleStage::Whole),
        Variant::sample(SampleStage::Count),
        Variant::sample(SampleStage::Noise),
        Variant::mask(F32),
        Variant::mask(F16),
        Variant::mask(U32),
        Variant::select(),
        Variant::function(U32, 0),
    ];
    out.extend((0..Variant::FUNCTIONS).map(|f| Variant::function(F32, f)));
    out.extend((0..4).map(Variant::pool));
    out.extend((0..4).map(Variant::noise));
    let below = [Activation::LeakyRelu { alpha: -1.0 }, Activation::Elu { alpha: -1.0 }];
    let below = below.into_iter().chain([Activation::ThresholdedRelu { alpha: -1.0 }]);
    out.extend(Activation::ALL.into_iter().chain(below).map(Variant::slope));
    out.extend(Descent::ALL.into_iter().flat_map(|rule| Decay::ALL.map(|decay| Variant::update(rule, decay))));
    for transposed in [false, true] {
        out.extend([(false, false), (true, true)].map(|(bias, many)| Variant::conv(transposed, bias, many)));
    }
    for e in [F32, F16] {
        out.extend((0..Variant::OPERATIONS).map(|op| Variant::binary(e, op)));
        for r in [F32, F16] {
            out.extend([0, 1, 2, 3].map(|op| Variant::reduce(e, r, op, 0, 0)));
            out.extend([(0, 1, 0), (0, 2, 1), (0, 0, 2), (2, 0, 3)].map(|(op, b, a)| Variant::reduce(e, r, op, b, a)));
        }
        out.extend([Variant::softmax(e, false), Variant::softmax(e, true), Variant::gather(e)]);
        for r in [F32, F16] {
            out.extend(Activation::ALL.map(|a| Variant::unary(e, r, a)));
        }
        for w in [F32, F16] {
            out.extend([false, true].map(|wide| Variant::matvec(e, w, wide, Tanh, wide)));
            for (m, n) in [(1, 1), (3, 100), (100, 512)] {
                let tile = DirectTile::for_product(m, n);
                out.extend([false, true].map(|wide| Variant::matmul_direct(e, w, wide, Tanh, tile, wide)));
            }
            for (transposed, bias) in [(false, false), (true, true)] {
                for tile in [MatmulTile::FLAT, MatmulTile::WIDE, MatmulTile::SMALL, MatmulTile::LARGE] {
                    out.extend([Linear, Tanh].map(|a| Variant::matmul(e, w, transposed, bias, a, tile)));
                    let tile = MatmulTile { unrolled: false, ..tile };
                    out.push(Variant::matmul(e, w, transposed, bias, Tanh, tile));
                }
            }
        }
    }
    for e in [F32, F16, U32] {
        out.extend([Variant::copy(e), Variant::fill(e)]);
        out.extend([F32, U32].map(|index| Variant::take(e, index)));
    }
    for index in [F32, U32] {
        out.extend((0..5).map(|operation| Variant::scatter(index, operation)));
    }
    out.extend([
        Variant::cumulate(),
        Variant::sum_rows(true),
        Variant::sum_rows(false),
        Variant::sum_runs(),
        Variant::top_k(),
        Variant::log_sum(),
    ]);
    for label in [F32, U32] {
        let passes = [(false, false), (false, true), (true, false)];
        out.extend(passes.map(|(backward, smooth)| Variant::cross_entropy(label, backward, smooth)));
        out.push(Variant::ctc_labels(label));
    }
    for valid in [Valid::All, Valid::Lengths, Valid::Mask] {
        for logits in [false, true] {
            out.extend([false, true].map(|reverse| Variant::ctc_paths(logits, valid, reverse)));
            out.push(Variant::ctc_gradient(logits, valid));
        }
    }

    let cell = |kind, (extra, valid, options, weights, gate): (bool, Valid, bool, Element, Activation)| CellCode {
        cell: Cell {
            gates: [gate, Sigmoid, Sigmoid],
            clip: options.then_some(3.0),
            clip_output: options,
            zoneout: options.then_some(Zoneout { h: 0.1, c: 0.2 }),
            ..Cell::with_kind(kind)
        },
        extra,
        valid,
        weights,
    };
    let options = [
        (false, Valid::All, false, F32, Sigmoid),
        (true, Valid::Lengths, true, F32, Activation::HARD_SIGMOID_KERAS2),
        (true, Valid::Mask, false, F16, Sigmoid),
    ];
    for kind in Fused::CELLS.map(|c| c.kind) {
        for o in options {
            let cell = cell(kind, o);
            for (hidden, workgroup, batch_tile, k_unroll) in [(3, 32, 1, 1), (128, 128, 4, 4), (300, 128, 2, 2)] {
                let k4 = CellCode::k4(hidden, k_unroll);
                let scan = Scan {
                    hidden,
                    k4,
                    workgroup,
                    batch_tile,
                    k_unroll,
                    k_split: 1,
                    subgroups: false,
                    kept: Kept::Memory,
                };
                out.extend([Kept::Memory, Kept::Array].map(|kept| Scan { kept, ..scan }.variant(&cell)));
                if cell.exchanges() {
                    continue;
                }
                let k4 = CellCode::k4(hidden, 8);
                for (k_split, subgroups) in [(2, true), (4, false), (8, true)] {
                    let workgroup = (hidden * k_split).next_multiple_of(32).min(1024);
                    let split = Scan { k4, workgroup, k_split, subgroups, k_unroll: 1, ..scan };
                    let split = split.within(Variant::DIRECT3D_WORKGROUP_BYTES, &cell);
                    if split.units() == 1 {
                        out.push(split.variant(&cell));
                        out.push(Scan { kept: Kept::Registers, ..split }.variant(&cell));
                    }
                }
                for registers in [false, true] {
                    let (unit_tile, k_split) = (16, 8);
                    out.push(Grid { hidden, k4, unit_tile, k_split, batch_tile, registers }.variant(&cell));
                }
            }
            for (hidden, batch_tile) in [(3, 1), (130, 4)] {
                let step =
                    Step { hidden, k4: CellCode::k4(hidden, 8), unit_tile: 16, k_split: 4, batch_tile, k_unroll: 2 };
                let split = cell.exchanges();
                out.extend((if split { 1..3 } else { 0..1 }).map(|phase| step.variant(&cell, phase)));
                if !split {
                    out.push(Step { k_unroll: 1, ..step }.wave(&cell));
                }
            }
        }
    }
    for kind in [CellKind::IndRnn, CellKind::MinGru, CellKind::MinLstm] {
        for o in options {
            let (cell, pointwise) = (cell(kind, o), Pointwise { hidden: 33 });
            out.push(pointwise.scan(&cell));
            if kind != CellKind::IndRnn {
                out.extend([false, true].map(|first| pointwise.linear_scan(&cell, first)));
                out.extend([false, true].map(|first| pointwise.linear_carry(&cell, first)));
            }
        }
    }
    for kind in
        [CellKind::Lstm { coupled: false }, CellKind::Lstm { coupled: true }, CellKind::Gru { reset_after: true }]
    {
        for (o, layer_norm) in options.into_iter().zip([None, Some(1e-5), Some(1e-3)]) {
            let cell = cell(kind, o);
            for projection in [false, matches!(kind, CellKind::Lstm { .. })] {
                let width = if projection { 7 } else { 33 };
                let k4 = CellCode::k4(width, 1);
                let general = General { hidden: 33, width, k4, workgroup: 64, projection, layer_norm };
                out.push(general.scan(&cell));
                out.extend((if projection { 1..3 } else { 0..1 }).map(|phase| general.step(&cell, phase)));
            }
        }
    }
    out.extend(training_samples());
    out
}

/// Variants that take every branch of the kernels `train_*`.
fn training_samples() -> Vec<Variant> {
    let all = [
        Cell::RNN,
        Cell::LSTM,
        Cell::with_kind(CellKind::Lstm { coupled: true }),
        Cell::GRU,
        Cell::GRU_RESET_BEFORE,
        Cell::INDRNN,
        Cell::MINGRU,
        Cell::MINLSTM,
        Cell::SLSTM,
        Cell::with_kind(CellKind::SLstm { heads: 1, exponential_forget: true }),
    ];
    let mut out = Vec::new();
    for cell in all {
        let lstm = matches!(cell.kind, CellKind::Lstm { .. });
        let zoned = lstm || matches!(cell.kind, CellKind::Rnn | CellKind::Gru { .. });
        let norm = lstm || cell.kind == CellKind::Gru { reset_after: true };
        let minimal = matches!(cell.kind, CellKind::MinGru | CellKind::MinLstm);
        for (n, valid) in [Valid::All, Valid::Lengths, Valid::Mask].into_iter().enumerate() {
            let options = n > 0;
            let cell = Cell {
                gates: [
                    if options { Activation::HARD_SIGMOID_KERAS2 } else { cell.gates[0] },
                    cell.gates[1],
                    cell.gates[2],
                ],
                clip: options.then_some(3.0),
                clip_output: options && lstm,
                zoneout: (options && zoned).then_some(Zoneout { h: 0.1, c: if lstm { 0.2 } else { 0.0 } }),
                peepholes: options && lstm,
                projection: (options && lstm).then_some(7),
                layer_norm: (n == 2 && norm).then_some(1e-3),
                ..cell
            };
            let code = CellCode { cell, extra: options, valid, weights: Element::F32 };
            let gates = cell.kind.gates() as u32;
            let training = Training {
                code,
                hidden: 33,
                workgroup: 64,
                sums: options,
                dropout: if minimal { 0 } else { [0, 1, gates][n] },
                drawn_h: n == 2 && zoned,
                drawn_c: n == 2 && lstm,
            };
            for phase in if training.in_phases() { 1..4 } else { 0..1 } {
                out.extend([training.forward(phase), training.backward(phase)]);
            }
            if !training.in_phases() {
                out.extend([training.forward(3), training.backward(3)]);
            }
            if norm {
                out.extend([training.layer_norm(false), training.layer_norm(true)]);
            }
            out.push(training.input());
            if !options {
                train_scan_samples(&training, &mut out);
            }
        }
    }
    out
}

/// Variants that take every branch of the kernels `train_scan` and `train_scan_back`, for a cell without options.
fn train_scan_samples(training: &Training, out: &mut Vec<Variant>) {
    if !training.is_plain() {
        return;
    }
    let exchanges = training.in_phases();
    for (n, valid) in [Valid::All, Valid::Lengths, Valid::Mask].into_iter().enumerate() {
        let code = CellCode { valid, extra: n > 0, ..training.code };
        let training = Training { code, ..*training };
        let layouts =
            [(1u32, false, 0, true, 4), (4, true, 1, true, 2), (8, false, 0, false, 4), (2, false, 2, true, 1)];
        for (k_split, subgroups, held, whole, batch_tile) in layouts {
            if exchanges && (!whole || (k_split > 1 && !subgroups)) {
                continue;
            }
            for backward in [false, true] {
                let workgroup = if whole { (33 * k_split).next_multiple_of(32) } else { 64 };
                let k4 = 9u32.next_multiple_of(k_split);
                let layout = TrainScan {
                    training,
                    backward,
                    workgroup,
                    batch_tile,
                    k4,
                    k_split,
                    subgroups,
                    held,
                    k_unroll: 1,
                    whole,
                };
                out.push(layout.variant(false));
                if backward {
                    out.push(layout.variant(true));
                }
            }
        }
    }
}
