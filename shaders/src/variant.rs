//! The variants of each kernel: which constants it takes, and samples of all of them for tests.

use crate::{ComposeError, Composed, Defines, Shader, Value, compose, snippet};

/// A kernel with its constants: what one pipeline is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// The kernel.
    pub shader: Shader,
    /// Its constants.
    pub defines: Defines,
}

/// How an element is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// 32-bit float.
    F32,
    /// 16-bit float; needs the device feature SHADER_F16.
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

/// An activation as the shaders know it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ActivationCode {
    /// The case of `activate` in `shared/activations.wgsl`; 0 is the identity.
    pub code: u32,
    /// Its first parameter.
    pub alpha: f32,
    /// Its second parameter.
    pub beta: f32,
}

/// The family of a recurrent cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// SimpleRNN.
    Rnn,
    /// LSTM.
    Lstm {
        /// `f = 1 - i`
        coupled: bool,
    },
    /// GRU.
    Gru {
        /// Reset gate after the product.
        reset_after: bool,
    },
}

/// A recurrent cell as the shaders know it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CellCode {
    /// The family.
    pub family: Family,
    /// Activation of the gates.
    pub gate: ActivationCode,
    /// Activation of the candidate.
    pub candidate: ActivationCode,
    /// Activation of the cell state.
    pub output: ActivationCode,
    /// Clip of activation inputs.
    pub clip: Option<f32>,
    /// LSTM: peepholes; GRU with reset_after: a recurrent bias.
    pub extra: bool,
    /// Sequences have lengths of their own.
    pub lengths: bool,
    /// How recurrent weights are stored.
    pub weights: Element,
}

impl CellCode {
    fn defines(&self, hidden: u32, k4: u32, k_unroll: u32) -> Defines {
        let d = Defines::new()
            .with("H", hidden)
            .with("K4", k4)
            .with("K_UNROLL", k_unroll)
            .with("WEIGHT", self.weights.alias())
            .with("HAS_LENGTHS", self.lengths)
            .with("HAS_CLIP", self.clip.is_some())
            .with("CLIP", self.clip.unwrap_or(0.0))
            .with("GATE_CODE", self.gate.code)
            .with("GATE_ALPHA", self.gate.alpha)
            .with("GATE_BETA", self.gate.beta)
            .with("CANDIDATE_CODE", self.candidate.code)
            .with("CANDIDATE_ALPHA", self.candidate.alpha)
            .with("CANDIDATE_BETA", self.candidate.beta)
            .with("OUTPUT_CODE", self.output.code)
            .with("OUTPUT_ALPHA", self.output.alpha)
            .with("OUTPUT_BETA", self.output.beta);
        match self.family {
            Family::Rnn => d,
            Family::Lstm { coupled } => d.with("COUPLED", coupled).with("HAS_EXTRA", self.extra),
            Family::Gru { .. } => d.with("HAS_EXTRA", self.extra),
        }
    }

    /// Number of vec4 of k per hidden unit, padded so that unrolling and slicing come out even.
    pub const fn k4(hidden: u32, multiple: u32) -> u32 {
        hidden.div_ceil(4).next_multiple_of(multiple)
    }

    const fn gates(&self) -> u32 {
        match self.family {
            Family::Rnn => 1,
            Family::Lstm { .. } => 4,
            Family::Gru { .. } => 3,
        }
    }
}

/// Geometry of a `*_scan` kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// H
    pub hidden: u32,
    /// Padded vec4 of k per unit; a multiple of `k_unroll`.
    pub k4: u32,
    /// Lanes of a workgroup.
    pub workgroup: u32,
    /// Batch rows of a workgroup.
    pub batch_tile: u32,
    /// vec4 of k per loop iteration.
    pub k_unroll: u32,
    /// Each lane keeps its weights in an array of its own. Only for software rasterisers: on a GPU
    /// an array indexed at run time spills to memory.
    pub resident: bool,
}

impl Scan {
    /// Hidden units of a lane.
    pub const fn units(&self) -> u32 {
        self.hidden.div_ceil(self.workgroup)
    }

    /// vec4s of workgroup memory.
    pub const fn tile(&self, family: Family) -> u32 {
        let buffers = if matches!(family, Family::Gru { reset_after: false }) { 3 } else { 2 };
        buffers * self.batch_tile * self.k4
    }

    /// Loop iterations of an invocation in one timestep, at most.
    pub const fn iterations_per_step(&self, family: Family) -> u32 {
        let products = if matches!(family, Family::Gru { reset_after: false }) { 2 } else { 1 };
        1 + products * self.units() * (self.k4 / self.k_unroll)
    }

    /// Loop iterations of an invocation before the first timestep, at most.
    pub const fn iterations_at_start(&self, family: Family) -> u32 {
        let own = if self.resident { self.units() * self.k4 } else { 0 };
        self.tile(family).div_ceil(self.workgroup) + own
    }

    /// The variant for a cell.
    pub fn variant(&self, cell: &CellCode) -> Variant {
        let defines = cell
            .defines(self.hidden, self.k4, self.k_unroll)
            .with("WORKGROUP", self.workgroup)
            .with("BATCH_TILE", self.batch_tile)
            .with("UNITS", self.units())
            .with("H_TILE", self.tile(cell.family))
            .with("RESIDENT", self.resident)
            .with("GATES", cell.gates())
            .with("OWN", self.units() * self.k4 * cell.gates());
        match cell.family {
            Family::Rnn => Variant { shader: Shader::RnnScan, defines },
            Family::Lstm { .. } => Variant { shader: Shader::LstmScan, defines },
            Family::Gru { reset_after } => {
                Variant { shader: Shader::GruScan, defines: defines.with("RESET_AFTER", reset_after) }
            }
        }
    }
}

/// Geometry of a `*_step` kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// H
    pub hidden: u32,
    /// Padded vec4 of k per unit; a multiple of `k_split * k_unroll`.
    pub k4: u32,
    /// Hidden units of a workgroup.
    pub unit_tile: u32,
    /// Slices of k of a workgroup.
    pub k_split: u32,
    /// Batch rows of a workgroup.
    pub batch_tile: u32,
    /// vec4 of k per loop iteration.
    pub k_unroll: u32,
}

impl Step {
    /// The variant for a cell. `phase` is 0, or 1 and 2 for the two dispatches of a GRU without
    /// `reset_after`.
    pub fn variant(&self, cell: &CellCode, phase: u32) -> Variant {
        let defines = cell
            .defines(self.hidden, self.k4, self.k_unroll)
            .with("WORKGROUP", self.unit_tile * self.k_split)
            .with("UNIT_TILE", self.unit_tile)
            .with("K_SPLIT", self.k_split)
            .with("K_SLICE", self.k4 / self.k_split)
            .with("BATCH_TILE", self.batch_tile)
            .with("SUMS", self.k_split * self.batch_tile * cell.gates() * self.unit_tile);
        match cell.family {
            Family::Rnn => Variant { shader: Shader::RnnStep, defines },
            Family::Lstm { .. } => Variant { shader: Shader::LstmStep, defines },
            Family::Gru { .. } => Variant { shader: Shader::GruStep, defines: defines.with("PHASE", phase) },
        }
    }
}

/// How a workgroup of `matmul.wgsl` shares out its results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatmulTile {
    /// Lanes along the rows, of 64 in all.
    pub lanes_m: u32,
    /// Groups of four rows of a lane.
    pub row_vecs: u32,
    /// Groups of four columns of a lane.
    pub column_vecs: u32,
}

impl MatmulTile {
    /// 16 × 64 results: for few rows.
    pub const FLAT: Self = Self { lanes_m: 4, row_vecs: 1, column_vecs: 1 };
    /// 16 × 256 results: for few rows on a software rasteriser, which gains more by reuse than by
    /// many workgroups.
    pub const WIDE: Self = Self { lanes_m: 2, row_vecs: 2, column_vecs: 2 };
    /// 32 × 32 results: many workgroups out of a small product.
    pub const SMALL: Self = Self { lanes_m: 8, row_vecs: 1, column_vecs: 1 };
    /// 64 × 64 results: each element loaded into workgroup memory serves 64 products.
    pub const LARGE: Self = Self { lanes_m: 8, row_vecs: 2, column_vecs: 2 };

    /// Rows and columns of results.
    pub const fn size(self) -> (u32, u32) {
        (self.lanes_m * 4 * self.row_vecs, 64 / self.lanes_m * 4 * self.column_vecs)
    }
}

/// Lanes of a workgroup of the elementwise kernels.
const LANES: u32 = 256;

impl Variant {
    /// Lanes of a workgroup of the elementwise kernels.
    pub const ELEMENTWISE_LANES: u32 = LANES;

    fn elementwise(shader: Shader, element: Element) -> Self {
        let defines = Defines::new().with("WORKGROUP", LANES).with("ELEMENT", element.alias());
        Self { shader, defines }
    }

    fn and(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.defines = self.defines.with(name, value);
        self
    }

    /// `binary.wgsl`; operation 0 add, 1 subtract, 2 multiply, 3 divide.
    pub fn binary(element: Element, operation: u32) -> Self {
        Self::elementwise(Shader::Binary, element).and("OPERATION", operation)
    }

    /// `copy.wgsl`
    pub fn copy(element: Element) -> Self {
        Self::elementwise(Shader::Copy, element)
    }

    /// `fill.wgsl`
    pub fn fill(element: Element) -> Self {
        Self::elementwise(Shader::Fill, element)
    }

    /// `gather.wgsl`
    pub fn gather(element: Element) -> Self {
        Self::elementwise(Shader::Gather, element)
    }

    /// `unary.wgsl` with the code of an [`ActivationCode`].
    pub fn unary(element: Element, result: Element, activation: u32) -> Self {
        Self::elementwise(Shader::Unary, element).and("RESULT", result.alias()).and("ACTIVATION", activation)
    }

    /// `reduce.wgsl`; operation 0 sum, 1 mean, 2 maximum, 3 minimum.
    pub fn reduce(element: Element, operation: u32) -> Self {
        Self::elementwise(Shader::Reduce, element)
            .and("RESULT", element.alias())
            .and("OPERATION", operation)
            .and("ARGMAX", false)
    }

    /// `reduce.wgsl`, the index of the first maximum.
    pub fn argmax(element: Element) -> Self {
        Self::elementwise(Shader::Reduce, element).and("RESULT", Value::TypeU32).and("OPERATION", 0).and("ARGMAX", true)
    }

    /// `softmax.wgsl`
    pub fn softmax(element: Element) -> Self {
        let defines = Defines::new().with("WORKGROUP", 64).with("ELEMENT", element.alias());
        Self { shader: Shader::Softmax, defines }
    }

    /// `matmul.wgsl`; `weights` is the storage of B.
    pub fn matmul(
        element: Element,
        weights: Element,
        transposed: bool,
        bias: bool,
        activation: u32,
        tile: MatmulTile,
    ) -> Self {
        let tile_k = 16;
        let (m, n) = tile.size();
        let defines = Defines::new()
            .with("ELEMENT", element.alias())
            .with("WEIGHT", weights.alias())
            .with("TRANSPOSED", transposed)
            .with("HAS_BIAS", bias)
            .with("ACTIVATION", activation)
            .with("TILE_K", tile_k)
            .with("TILE_M", m)
            .with("TILE_N", n)
            .with("LANES_M", tile.lanes_m)
            .with("LANES_N", 64 / tile.lanes_m)
            .with("ROW_VECS", tile.row_vecs)
            .with("COLUMN_VECS", tile.column_vecs)
            .with("LINES", 64 / tile_k)
            .with("A_LOADS", m * tile_k / 64)
            .with("B_LOADS", n * tile_k / 64)
            .with("A_TILE", tile_k * m / 4)
            .with("B_TILE", tile_k * n / 4);
        Self { shader: Shader::Matmul, defines }
    }

    /// `loop_probe.wgsl`
    pub fn loop_probe() -> Self {
        Self { shader: Shader::LoopProbe, defines: Defines::new() }
    }

    /// The variant's module.
    ///
    /// # Errors
    /// [`ComposeError`] if the source and the constants do not fit; a defect of this crate.
    pub fn compose(&self) -> Result<Composed, ComposeError> {
        compose(self.shader.stem(), self.shader.source(), &self.defines, snippet)
    }
}

/// Variants that between them take every branch of every kernel.
pub fn samples() -> Vec<Variant> {
    use Element::{F16, F32, U32};
    let mut out = vec![Variant::loop_probe(), Variant::argmax(F32), Variant::argmax(F16)];
    for e in [F32, F16] {
        out.extend((0..4).map(|op| Variant::binary(e, op)));
        out.extend((0..4).map(|op| Variant::reduce(e, op)));
        out.extend([Variant::softmax(e), Variant::gather(e)]);
        for r in [F32, F16] {
            out.extend((0..12).map(|a| Variant::unary(e, r, a)));
        }
        for w in [F32, F16] {
            for (transposed, bias) in [(false, false), (true, true)] {
                for tile in [MatmulTile::FLAT, MatmulTile::WIDE, MatmulTile::SMALL, MatmulTile::LARGE] {
                    out.extend([0, 2].map(|a| Variant::matmul(e, w, transposed, bias, a, tile)));
                }
            }
        }
    }
    for e in [F32, F16, U32] {
        out.extend([Variant::copy(e), Variant::fill(e)]);
    }

    let plain = |code| ActivationCode { code, alpha: 0.0, beta: 0.0 };
    let odd = ActivationCode { code: 4, alpha: 0.2, beta: 0.5 };
    let families = [
        Family::Rnn,
        Family::Lstm { coupled: false },
        Family::Lstm { coupled: true },
        Family::Gru { reset_after: true },
        Family::Gru { reset_after: false },
    ];
    for family in families {
        for (extra, lengths, clip, weights, gate) in
            [(false, false, None, F32, plain(1)), (true, true, Some(3.0), F32, odd), (true, false, None, F16, plain(1))]
        {
            let cell = CellCode { family, gate, candidate: plain(2), output: plain(2), clip, extra, lengths, weights };
            for (hidden, workgroup, batch_tile, k_unroll) in [(3, 32, 1, 1), (128, 128, 4, 4), (300, 128, 2, 2)] {
                let k4 = CellCode::k4(hidden, k_unroll);
                for resident in [false, true] {
                    out.push(Scan { hidden, k4, workgroup, batch_tile, k_unroll, resident }.variant(&cell));
                }
            }
            for (hidden, batch_tile) in [(3, 1), (130, 4)] {
                let step =
                    Step { hidden, k4: CellCode::k4(hidden, 8), unit_tile: 16, k_split: 4, batch_tile, k_unroll: 2 };
                let split = family == Family::Gru { reset_after: false };
                out.extend((if split { 1..3 } else { 0..1 }).map(|phase| step.variant(&cell, phase)));
            }
        }
    }
    out
}
