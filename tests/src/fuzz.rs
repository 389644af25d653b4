//! The differential fuzzer of recurrent cells: random layers, run in every way that a device has, and compared with the
//! f64 reference.
//!
//! A [`Plan`] describes a case completely, except for the numbers, which are drawn from its seed. Plans are drawn from
//! a seed, can be written as a line of JSON, and are simplified when they fail. `tests/tests/fuzz.rs` runs a fixed
//! number of plans and all of `fixtures/fuzz_cells.txt`; `cargo xtask fuzz cells` runs as many as it is told.

use crate::{Case, Random, numerics, poison, wide};
use recurve::testing::{Mismatch, Tolerance, compare};
use recurve::{
    Activation, Bias, CallArgs, Candidate, Cell, CellKind, Device, Direction, DirectionWeights, ForwardArgs,
    LayerError, MaskedOutput, Merge, Outputs, Recurrent, RecurrentConfig, RecurrentLayer, RecurrentSpec, State,
    Strategy, Tensor, TensorError, WeightStorage, Weights, Zoneout,
};
use recurve_reference as reference;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The directions of a plan, in the order of the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Directions {
    /// One direction, forward.
    Forward,
    /// One direction, reverse.
    Reverse,
    /// Both directions, forward first.
    Both,
    /// Both directions, reverse first.
    ReverseFirst,
}

impl Directions {
    fn list(self) -> &'static [Direction] {
        match self {
            Self::Forward => &[Direction::Forward],
            Self::Reverse => &[Direction::Reverse],
            Self::Both => &[Direction::Forward, Direction::Reverse],
            Self::ReverseFirst => &[Direction::Reverse, Direction::Forward],
        }
    }
}

/// Which timesteps of a plan are valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Valid {
    /// All.
    All,
    /// Random lengths; 0 and T occur.
    Lengths,
    /// A mask with holes.
    Holes,
    /// A mask that excludes the beginning of each sequence.
    Left,
    /// A mask that excludes all timesteps.
    Nothing,
}

/// The function that a plan calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    /// [`Recurrent::forward`], by strategies and by candidates.
    Kernel,
    /// [`Recurrent::forward_tokens`].
    Tokens,
    /// [`RecurrentLayer::forward_with`], with any number of layers.
    Layer,
    /// [`RecurrentLayer::step`], once per timestep.
    Steps,
}

/// The description of a case, except for the numbers, which are drawn from the seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The seed of weights, inputs, states and valid timesteps.
    pub seed: u64,
    /// The function that is called.
    pub door: Door,
    /// Batch size `B`, timesteps `T`, input features `I`, hidden units `H`.
    pub sizes: [usize; 4],
    /// Number of stacked layers, `L`.
    pub layers: usize,
    /// The directions of each layer.
    pub directions: Directions,
    /// The cell.
    pub cell: Cell,
    /// The candidate's activation in the second direction, if it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<Activation>,
    /// The biases.
    pub bias: Bias,
    /// How weight matrices are stored.
    pub storage: WeightStorage,
    /// Weights are uniform in ± this value divided by the square root of the number of products.
    pub scale: f32,
    /// Whether there are random initial states.
    pub states: bool,
    /// Which timesteps are valid.
    pub valid: Valid,
    /// Whether outputs repeat h where the mask is zero, instead of being zero.
    pub repeat: bool,
    /// Whether the input is `[T, B, I]`.
    pub time_major: bool,
    /// Whether outputs of a reverse direction come in the order in which they were computed.
    pub reading_order: bool,
    /// Whether only the final states are computed.
    pub last: bool,
    /// Number of timesteps of a chunk of the projection; 0 for the default.
    pub chunk: usize,
}

/// A plan as one line of JSON, which [`std::str::FromStr`] reads.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl std::str::FromStr for Plan {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let plan: Self = serde_json::from_str(s).map_err(|e| e.to_string())?;
        if plan == plan.clone().normal() {
            Ok(plan)
        } else {
            Err(format!("contradicts itself; perhaps {}", plan.normal()))
        }
    }
}

fn pick<T: Copy>(r: &mut Random, from: &[T]) -> T {
    from[r.below(from.len())]
}

fn percent(r: &mut Random, p: usize) -> bool {
    r.below(100) < p
}

/// A size of at most 300. Small sizes, and sizes around those of vectors, workgroups and tiles, are more likely.
fn size(r: &mut Random) -> usize {
    const EDGES: [usize; 22] = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 257];
    match r.below(10) {
        0..5 => 1 + r.below(40),
        5..8 => pick(r, &EDGES),
        _ => 1 + r.below(300),
    }
}

fn activation(r: &mut Random) -> Activation {
    match r.below(16) {
        0 | 1 => Activation::Sigmoid,
        2 | 3 => Activation::Tanh,
        4 => Activation::Relu,
        5 => Activation::HARD_SIGMOID_KERAS2,
        6 => Activation::HARD_SIGMOID_KERAS3,
        7 => Activation::Affine { alpha: 0.5, beta: 0.1 },
        8 => Activation::LeakyRelu { alpha: 0.1 },
        9 => Activation::ThresholdedRelu { alpha: 0.2 },
        10 => Activation::ScaledTanh { alpha: 1.2, beta: 0.7 },
        11 => Activation::Elu { alpha: 0.8 },
        12 => Activation::Softsign,
        13 => Activation::Softplus,
        14 => Activation::Positive,
        _ => Activation::Linear,
    }
}

impl Plan {
    /// Draws the plan for a seed, of at most `work` multiply-adds.
    pub fn draw(seed: u64, work: usize) -> Self {
        let r = &mut Random(seed);
        let kinds = [
            Cell::RNN,
            Cell::LSTM,
            Cell::LSTM,
            Cell { kind: CellKind::Lstm { coupled: true }, ..Cell::LSTM },
            Cell::GRU,
            Cell::GRU,
            Cell::GRU_RESET_BEFORE,
            Cell::INDRNN,
            Cell::MINGRU,
            Cell::MINLSTM,
            Cell::SLSTM,
            Cell::with_kind(CellKind::SLstm { heads: 3, exponential_forget: true }),
        ];
        let mut cell = pick(r, &kinds);
        if percent(r, 30) {
            // A minimal LSTM divides by the sum of its gates, which must not both be 0.
            if cell.kind != CellKind::MinLstm {
                cell.gates = [activation(r), activation(r), activation(r)];
            }
        }
        if percent(r, 30) {
            cell.candidate = activation(r);
        }
        if percent(r, 20) {
            cell.output = activation(r);
        }
        cell.clip = percent(r, 20).then(|| pick(r, &[0.3, 0.9, 3.0]));
        cell.layer_norm = percent(r, 15).then(|| pick(r, &[1e-5, 1e-3]));
        cell.zoneout = percent(r, 20).then(|| Zoneout { h: pick(r, &[0.0, 0.1, 0.5]), c: pick(r, &[0.0, 0.2, 0.4]) });
        let [t, i, h] = [(); 3].map(|()| size(r));
        let b = if percent(r, 40) { 1 } else { size(r).min(1 + r.below(80)) };
        cell.projection = percent(r, 15).then(|| 1 + r.below(h));
        let mut plan = Self {
            seed: r.below(usize::MAX) as u64,
            door: pick(
                r,
                &[Door::Kernel, Door::Kernel, Door::Kernel, Door::Tokens, Door::Layer, Door::Layer, Door::Steps],
            ),
            sizes: [b, t, i, h],
            layers: pick(r, &[1, 2, 2, 3, 4]),
            directions: pick(
                r,
                &[
                    Directions::Forward,
                    Directions::Forward,
                    Directions::Reverse,
                    Directions::Both,
                    Directions::ReverseFirst,
                ],
            ),
            second: percent(r, 10).then(|| activation(r)),
            cell: Cell { peepholes: percent(r, 25), ..cell },
            bias: pick(r, &[Bias::Double, Bias::Double, Bias::Single, Bias::None]),
            storage: pick(
                r,
                &[WeightStorage::F32, WeightStorage::F32, WeightStorage::F32, WeightStorage::F16, WeightStorage::Int8],
            ),
            scale: pick(r, &[0.5, 1.0, 1.0, 1.0, 2.0, 4.0]),
            states: percent(r, 60),
            valid: pick(
                r,
                &[Valid::All, Valid::All, Valid::Lengths, Valid::Lengths, Valid::Holes, Valid::Left, Valid::Nothing],
            ),
            repeat: percent(r, 50),
            time_major: percent(r, 30),
            reading_order: percent(r, 20),
            last: percent(r, 20),
            chunk: if percent(r, 40) { 1 + r.below(5) } else { 0 },
        }
        .normal();
        // Sequences and batches are reduced first, so that large layers occur too.
        while plan.work() > work && plan.sizes[..2] != [1, 1] {
            let n = usize::from(plan.sizes[1] >= plan.sizes[0]);
            plan.sizes[n] = (plan.sizes[n] / 2).max(1);
        }
        while plan.work() > work && plan.layers > 1 {
            plan.layers -= 1;
        }
        plan.normal()
    }

    /// Number of multiply-adds.
    fn work(&self) -> usize {
        let [b, t, i, h] = self.sizes;
        let (g, d, w) = (self.cell().kind.gates(), self.directions.list().len(), self.width());
        let first = i + w;
        let others = (self.layers - 1) * (d * w + w);
        b * t * d * g * h * (first + others)
    }

    /// The cell of the first direction.
    pub fn cell(&self) -> Cell {
        self.cell
    }

    fn width(&self) -> usize {
        self.cell().state_size(self.sizes[3])
    }

    /// Removes options that contradict each other or that the cell or the called function does not have.
    #[must_use]
    fn normal(mut self) -> Self {
        let mut cell = self.cell();
        let lstm = matches!(cell.kind, CellKind::Lstm { .. });
        let h = self.sizes[3];
        self.sizes = self.sizes.map(|n| n.max(1));
        cell.projection = cell.projection.filter(|&p| lstm && p < h && p > 0);
        cell.layer_norm = cell.layer_norm.filter(|_| lstm || cell.kind == CellKind::Gru { reset_after: true });
        let slstm = matches!(cell.kind, CellKind::SLstm { .. });
        cell.zoneout = cell.zoneout.filter(|_| !cell.kind.is_pointwise() && !slstm);
        if slstm {
            cell.gates[..2].fill(Activation::Sigmoid);
        }
        if let CellKind::SLstm { heads, .. } = &mut cell.kind
            && !h.is_multiple_of(*heads)
        {
            *heads = 1;
        }
        if let Some(z) = &mut cell.zoneout
            && !lstm
        {
            z.c = 0.0;
        }
        cell.peepholes &= lstm;
        self.cell = cell;
        if matches!(cell.kind, CellKind::MinGru | CellKind::MinLstm) && self.bias == Bias::Double {
            self.bias = Bias::Single;
        }
        match self.door {
            Door::Kernel | Door::Tokens => self.layers = 1,
            Door::Layer | Door::Steps => {
                // Options that only the kernels' own functions have.
                (self.second, self.chunk, self.last) = (None, 0, false);
                if self.directions == Directions::ReverseFirst {
                    self.directions = Directions::Both;
                }
                // A layer that reads backwards follows Keras's order.
                self.reading_order = self.directions == Directions::Reverse;
            }
        }
        if self.door == Door::Steps {
            (self.directions, self.valid, self.reading_order) = (Directions::Forward, Valid::All, false);
        }
        if self.directions.list().len() == 1 {
            self.second = None;
        }
        if !matches!(self.valid, Valid::Holes | Valid::Left | Valid::Nothing) {
            self.repeat = false;
        }
        self
    }

    /// Plans that are slightly simpler.
    fn simpler(&self) -> Vec<Self> {
        let mut all = Vec::new();
        let mut add = |change: &dyn Fn(&mut Self)| {
            let mut plan = self.clone();
            change(&mut plan);
            let plan = plan.normal();
            if plan != *self && !all.contains(&plan) {
                all.push(plan);
            }
        };
        for n in 0..4 {
            for smaller in [1, self.sizes[n] / 2, self.sizes[n] - self.sizes[n].min(1)] {
                add(&|p| {
                    p.sizes[n] = smaller.max(1);
                    let h = p.sizes[3];
                    p.cell.projection = p.cell.projection.map(|s| s.min(h.max(2) - 1));
                });
            }
        }
        add(&|p| p.layers = 1);
        add(&|p| p.layers = (p.layers - 1).max(1));
        add(&|p| p.door = Door::Kernel);
        add(&|p| p.door = Door::Layer);
        add(&|p| p.directions = Directions::Forward);
        add(&|p| p.directions = Directions::Reverse);
        add(&|p| p.second = None);
        add(&|p| p.bias = Bias::None);
        add(&|p| p.storage = WeightStorage::F32);
        add(&|p| p.scale = 1.0);
        add(&|p| p.states = false);
        add(&|p| p.valid = Valid::All);
        add(&|p| p.valid = Valid::Holes);
        add(&|p| p.repeat = false);
        add(&|p| p.time_major = false);
        add(&|p| p.reading_order = false);
        add(&|p| p.last = false);
        add(&|p| p.chunk = 0);
        add(&|p| p.cell.peepholes = false);
        let mut cell = |change: &dyn Fn(&mut Cell)| {
            add(&|p| change(&mut p.cell));
        };
        cell(&|c| c.clip = None);
        cell(&|c| c.projection = None);
        cell(&|c| c.layer_norm = None);
        cell(&|c| c.zoneout = None);
        cell(&|c| c.output = Activation::Tanh);
        cell(&|c| c.candidate = Activation::Tanh);
        for n in 0..3 {
            cell(&|c| c.gates[n] = Activation::Sigmoid);
        }
        cell(&|c| c.kind = CellKind::Rnn);
        all
    }
}

/// The numbers of a plan.
struct Numbers {
    /// For each layer its directions with their weights.
    layers: Vec<Vec<(Direction, DirectionWeights<f32>)>>,
    /// The input, `[B, T, I]`.
    x: Vec<f32>,
    /// A table `[V, I]` and ids `[B, T]`, which select the rows of `x`.
    tokens: Option<(Vec<f32>, Vec<u32>)>,
    /// The initial h, `[L·D, B, W]`.
    h0: Option<Vec<f32>>,
    /// The initial c, `[L·D, B, H]`.
    c0: Option<Vec<f32>>,
    /// Lengths, `[B]`.
    lengths: Option<Vec<u32>>,
    /// Mask, `[B, T]`.
    mask: Option<Vec<u32>>,
}

const VOCABULARY: usize = 13;

impl Plan {
    fn numbers(&self) -> Numbers {
        let r = &mut Random(self.seed);
        let [b, t, i, h] = self.sizes;
        let (cell, dirs, w) = (self.cell(), self.directions.list(), self.width());
        let layers = (0..self.layers).map(|l| {
            let input = if l == 0 { i } else { dirs.len() * w };
            let mut case = Case::random(r.below(usize::MAX) as u64, cell, dirs, [1, 1, input, h]);
            if self.cell.peepholes {
                case = case.with_peepholes(r.below(usize::MAX) as u64);
            }
            for (_, w) in &mut case.directions {
                // Weights are drawn within ±1/√H; this scales them for the number of features.
                let narrower = self.scale * (h as f32 / input as f32).sqrt().min(1.0);
                w.w_ih.iter_mut().for_each(|v| *v *= narrower);
                match cell.kind {
                    // The u of an IndRNN: with values above 1 its states would grow without bound.
                    CellKind::IndRnn => w.w_hh = r.floats(h, self.scale.min(1.0)),
                    _ => w.w_hh.iter_mut().for_each(|v| *v *= self.scale),
                }
                if self.bias != Bias::Double {
                    w.b_hh.clear();
                }
                if self.bias == Bias::None {
                    w.b_ih.clear();
                }
            }
            let case = match self.storage {
                WeightStorage::F32 => case,
                WeightStorage::F16 => case.with_f16_weights(),
                WeightStorage::Int8 => case.with_int8_weights(),
                other => panic!("{} has no case", other.name()),
            };
            case.directions
        });
        let layers: Vec<_> = layers.collect();
        let mut x = r.floats(b * t * i, 1.0);
        let tokens = (self.door == Door::Tokens).then(|| {
            let table = r.floats(VOCABULARY * i, 1.0);
            let ids: Vec<u32> = (0..b * t).map(|_| r.below(VOCABULARY) as u32).collect();
            x = ids.iter().flat_map(|&id| table[id as usize * i..][..i].to_vec()).collect();
            (table, ids)
        });
        let rows = self.layers * dirs.len() * b;
        let h0 = self.states.then(|| r.floats(rows * w, 1.0));
        let c0 = if self.states { crate::random_c(r, &cell, h, rows) } else { None };
        let lengths = (self.valid == Valid::Lengths)
            .then(|| (0..b).map(|_| if percent(r, 20) { pick(r, &[0, t]) } else { r.below(t + 1) } as u32).collect());
        let mask = match self.valid {
            Valid::All | Valid::Lengths => None,
            Valid::Holes => Some((0..b * t).map(|_| u32::from(r.below(3) > 0) * (1 + r.below(9) as u32)).collect()),
            Valid::Left => {
                let first: Vec<usize> = (0..b).map(|_| r.below(t + 1)).collect();
                Some((0..b * t).map(|n| u32::from(n % t >= first[n / t])).collect())
            }
            Valid::Nothing => Some(vec![0; b * t]),
        };
        Numbers { layers, x, tokens, h0, c0, lengths, mask }
    }

    fn cell_of(&self, direction: usize) -> Cell {
        match self.second {
            Some(a) if direction == 1 => Cell { candidate: a, ..self.cell() },
            _ => self.cell(),
        }
    }

    fn masked_output(&self) -> MaskedOutput {
        if self.repeat { MaskedOutput::Repeat } else { MaskedOutput::Zero }
    }

    /// The reference outputs in f64. With `rounding`, every number is changed at random by about that relative amount
    /// first.
    fn truth(&self, n: &Numbers, rounding: Option<(f64, u64)>) -> crate::Outputs<f64> {
        let [b, t, i, h] = self.sizes;
        let (dirs, w) = (self.directions.list(), self.width());
        let d = dirs.len();
        let mut r = Random(rounding.map_or(0, |r| r.1));
        let mut near = |v: &[f32]| -> Vec<f64> {
            let Some((size, _)) = rounding else { return wide(v) };
            v.iter().zip(r.floats(v.len(), 1.0)).map(|(&v, e)| f64::from(v) * (1.0 + size * f64::from(e))).collect()
        };
        let mut x = near(&n.x);
        let (h0, c0) = (n.h0.as_deref().map(&mut near), n.c0.as_deref().map(&mut near));
        let lengths: Option<Vec<usize>> = n.lengths.as_ref().map(|l| l.iter().map(|&v| v as usize).collect());
        let mask: Option<Vec<bool>> = n.mask.as_ref().map(|m| m.iter().map(|&v| v != 0).collect());
        let (mut hs, mut cs) = (Vec::new(), Vec::new());
        for (l, layer) in n.layers.iter().enumerate() {
            let input = if l == 0 { i } else { d * w };
            let mut y = vec![0.0; b * t * d * w];
            for (n, (direction, weights)) in layer.iter().enumerate() {
                let mut wide = DirectionWeights {
                    w_ih: near(&weights.w_ih),
                    w_hh: near(&weights.w_hh),
                    b_ih: near(&weights.b_ih),
                    b_hh: near(&weights.b_hh),
                    peepholes: near(&weights.peepholes),
                    w_hr: near(&weights.w_hr),
                    norm_ih: near(&weights.norm_ih),
                    norm_hh: near(&weights.norm_hh),
                    norm_c: near(&weights.norm_c),
                    ..DirectionWeights::default()
                };
                if let Some((size, seed)) = rounding {
                    // The errors of sums and activations do not depend on the size of the weights, so biases are
                    // changed too.
                    wide.b_ih.resize(self.cell().kind.gates() * h, 0.0);
                    let off = Random(seed ^ 7).floats(wide.b_ih.len(), 1.0);
                    wide.b_ih.iter_mut().zip(off).for_each(|(v, e)| *v += size * f64::from(e));
                }
                let cw = self.cell().state_sizes(h).1.unwrap_or(h);
                let at = (l * d + n) * b;
                let out = reference::recurrence(&reference::Recurrence {
                    cell: self.cell_of(n),
                    direction: *direction,
                    weights: &wide,
                    x: &x,
                    batch: b,
                    timesteps: t,
                    input_size: input,
                    hidden_size: h,
                    h0: h0.as_ref().map(|v| &v[at * w..][..b * w]),
                    c0: c0.as_ref().map(|v| &v[at * cw..][..b * cw]),
                    lengths: lengths.as_deref(),
                    mask: mask.as_deref(),
                    masked_output: self.masked_output(),
                });
                let flip = self.reading_order && *direction == Direction::Reverse && l + 1 == self.layers;
                for (row, values) in out.y.chunks_exact(w).enumerate() {
                    let row = if flip { row / t * t + (t - 1 - row % t) } else { row };
                    y[row * d * w + n * w..][..w].copy_from_slice(values);
                }
                hs.extend(out.h);
                cs.extend(out.c);
            }
            x = y;
        }
        crate::Outputs { y: x, h: hs, c: cs }
    }

    /// The bound of `docs/numerics.md`, absolute and relative, adapted to this plan. That bound holds for sums of 16 +
    /// 64 products in one layer; the error of a sum grows with the square root of the number of products, and every
    /// layer adds its own. Weights are rounded to their storage type before the reference is computed, so this rounding
    /// is no error.
    pub fn tolerance(&self) -> Tolerance {
        let [_, _, i, _] = self.sizes;
        let widest = if self.layers > 1 { i.max(self.directions.list().len() * self.width()) } else { i };
        let products = (widest + self.width().max(self.sizes[3])) as f64;
        Tolerance::new(numerics::bound(&self.cell()) * (products / 80.0).sqrt().max(1.0) * self.layers as f64)
    }
}

/// The result of a plan on a device.
struct Got {
    y: Option<Vec<f32>>,
    h: Vec<f32>,
    c: Option<Vec<f32>>,
}

enum Stop {
    /// The device refuses the plan with a typed error.
    Refused,
    Failed(String),
}

impl From<TensorError> for Stop {
    fn from(e: TensorError) -> Self {
        match e {
            TensorError::Unsupported { .. } | TensorError::Argument { argument: "strategy", .. } => Self::Refused,
            e => Self::Failed(e.to_string()),
        }
    }
}

impl From<LayerError> for Stop {
    fn from(e: LayerError) -> Self {
        match e {
            LayerError::Tensor(e) => e.into(),
            e => Self::Failed(e.to_string()),
        }
    }
}

/// Which of a device's ways of running a plan are tried.
#[derive(Clone, Copy, Debug)]
pub enum Choice<'a> {
    /// One strategy and one layout, chosen by the plan's seed.
    Some,
    /// All of them.
    All,
    /// The one with this name, as in [`Fault`].
    Named(&'a str),
}

/// A failure of a plan.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The strategy or layout; empty on the CPU.
    pub way: String,
    /// What went wrong.
    pub message: String,
}

/// The result of running a plan on a device.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Number of ways whose results agree with the reference.
    pub passed: usize,
    /// Number of ways that the device refused.
    pub refused: usize,
    /// Number of ways whose results were compared with the plan's own sensitivity to rounding, because that exceeds the
    /// bound.
    pub sensitive: usize,
    /// The failures.
    pub faults: Vec<Fault>,
    /// The largest error as a fraction of the bound, over results that were compared with the bound.
    pub worst: f64,
}

/// A way of running a layer.
#[derive(Clone, Copy)]
enum Way {
    By(Strategy),
    Layout(Candidate),
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By(s) => f.write_str(s.name()),
            Self::Layout(c) => write!(f, "layout {c}"),
        }
    }
}

/// The layer of a plan on a device.
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
enum Subject {
    Kernel(Recurrent),
    Layer(RecurrentLayer),
}

impl Plan {
    fn subject(&self, n: &Numbers, device: &Device) -> Result<Subject, Stop> {
        let [_, _, i, h] = self.sizes;
        if matches!(self.door, Door::Kernel | Door::Tokens) {
            let pairs: Vec<_> = n.layers[0].iter().map(|(d, w)| (*d, w)).collect();
            let config = RecurrentConfig {
                second_cell: self.second.map(|_| self.cell_of(1)),
                weights: self.storage,
                ..RecurrentConfig::new(self.cell(), i, h, &pairs)
            };
            return Ok(Subject::Kernel(Recurrent::new(&config, device)?));
        }
        let mut spec = RecurrentSpec::new(self.cell(), h);
        spec.cell = self.cell;
        spec.num_layers = self.layers;
        spec.bidirectional = (self.directions == Directions::Both).then_some(Merge::Concat);
        spec.go_backwards = self.directions == Directions::Reverse;
        spec.bias = self.bias;
        spec.time_major = self.time_major;
        spec.zero_output_for_mask = !self.repeat;
        spec.weight_storage = self.storage;
        spec.return_sequences = true;
        let mut weights = Weights::new();
        let rows = self.cell().kind.gates() * h;
        for (l, layer) in n.layers.iter().enumerate() {
            for (end, (_, w)) in ["", "_reverse"].iter().zip(layer) {
                let parts = [
                    ("weight_ih", &w.w_ih, [rows, w.w_ih.len() / rows]),
                    ("weight_hh", &w.w_hh, [rows, w.w_hh.len() / rows]),
                    ("bias_ih", &w.b_ih, [rows, 0]),
                    ("bias_hh", &w.b_hh, [rows, 0]),
                    ("weight_hr", &w.w_hr, [w.w_hr.len() / h, h]),
                    ("weight_peephole", &w.peepholes, [3, h]),
                    ("norm_ih", &w.norm_ih, [2, rows]),
                    ("norm_hh", &w.norm_hh, [2, rows]),
                    ("norm_c", &w.norm_c, [2, h]),
                ];
                for (name, data, shape) in parts {
                    let vector =
                        name.starts_with("bias") || (name == "weight_hh" && self.cell().kind == CellKind::IndRnn);
                    let shape = if vector { &shape[..1] } else { &shape[..] };
                    if !data.is_empty() {
                        let name = format!("net.{name}_l{l}{end}");
                        weights.insert(name, shape, data.clone()).map_err(|e| Stop::Failed(e.to_string()))?;
                    }
                }
            }
        }
        Ok(Subject::Layer(RecurrentLayer::new("case", &spec, i, &weights, "net", device)?))
    }

    /// All ways of running the plan's layer.
    fn ways(&self, subject: &Subject, device: &Device) -> Result<Vec<Way>, Stop> {
        if *device == Device::Cpu {
            return Ok(vec![Way::By(Strategy::Auto)]);
        }
        let mut all = [Strategy::Auto, Strategy::Scan, Strategy::Step].map(Way::By).to_vec();
        match (subject, self.door) {
            (Subject::Kernel(k), _) => {
                all.extend(k.candidates(self.sizes[0], self.sizes[1])?.into_iter().map(Way::Layout));
            }
            // Steps always use the default strategy.
            (_, Door::Steps) => all.truncate(1),
            _ => {}
        }
        Ok(all)
    }

    fn run(&self, n: &Numbers, subject: &Subject, device: &Device, way: Way) -> Result<Got, Stop> {
        let [b, t, i, h] = self.sizes;
        let (d, w) = (self.directions.list().len(), self.width());
        let rows = self.layers * d;
        let c_width = self.cell().state_sizes(h).1.unwrap_or(h);
        poison(device, &[b * t * d * w, rows * b * w, rows * b * c_width]);
        let float = |v: &[f32], dims: &[usize]| Tensor::from_f32(v, dims, device);
        let turned = |x: Tensor, axes: &[usize]| if self.time_major { x.transpose(axes) } else { Ok(x) };
        let h0 = n.h0.as_ref().map(|v| float(v, &[rows, b, w])).transpose()?;
        let c0 = n.c0.as_ref().map(|v| float(v, &[rows, b, c_width])).transpose()?;
        let lengths = n.lengths.as_ref().map(|v| Tensor::from_u32(v, &[b], device)).transpose()?;
        let mask = n.mask.as_ref().map(|v| Tensor::from_u32(v, &[b, t], device)).transpose()?;
        let x = || turned(float(&n.x, &[b, t, i])?, &[1, 0, 2]);
        let (y, h, c) = match subject {
            Subject::Kernel(layer) => {
                let row = 4 * d * b * self.cell().kind.gates() * h;
                let args = ForwardArgs {
                    h0: h0.as_ref(),
                    c0: c0.as_ref(),
                    lengths: lengths.as_ref(),
                    mask: mask.as_ref(),
                    masked_output: self.masked_output(),
                    time_major: self.time_major,
                    outputs: if self.last { Outputs::Last } else { Outputs::All },
                    reading_order: self.reading_order,
                    strategy: if let Way::By(s) = way { s } else { Strategy::Auto },
                    candidate: if let Way::Layout(c) = way { Some(c) } else { None },
                    projection_budget: if self.chunk == 0 { 64 << 20 } else { self.chunk * row },
                    ..ForwardArgs::default()
                };
                let out = match &n.tokens {
                    Some((table, ids)) => {
                        let table = layer.token_table(&float(table, &[VOCABULARY, i])?)?;
                        let ids = turned(Tensor::from_u32(ids, &[b, t], device)?, &[1, 0])?;
                        layer.forward_tokens(&ids, &table, &args)?
                    }
                    None => layer.forward(&x()?, &args)?,
                };
                (out.y, out.h, out.c)
            }
            Subject::Layer(layer) if self.door == Door::Steps => {
                let mut state = h0.map(|h| State { h, c: c0 });
                let mut all = Vec::with_capacity(t);
                for s in 0..t {
                    let x: Vec<f32> = (0..b).flat_map(|b| n.x[(b * t + s) * i..][..i].to_vec()).collect();
                    let (y, next) = layer.step(&float(&x, &[b, i])?, state.as_ref())?;
                    all.push(if self.time_major { y.reshape(&[1, b, w])? } else { y.reshape(&[b, 1, w])? });
                    state = Some(next);
                }
                let y = recurve::concat(&all.iter().collect::<Vec<_>>(), usize::from(!self.time_major))?;
                let State { h, c } = state.expect("at least one step");
                (Some(y), h, c)
            }
            Subject::Layer(layer) => {
                let state = h0.map(|h| State { h, c: c0 });
                let args = CallArgs {
                    state: state.as_ref(),
                    lengths: lengths.as_ref(),
                    mask: mask.as_ref(),
                    strategy: if let Way::By(s) = way { s } else { Strategy::Auto },
                    ..CallArgs::default()
                };
                let (y, state) = layer.forward_with(&x()?, &args)?;
                (Some(y), state.h, state.c)
            }
        };
        let dims = if self.time_major { [t, b, d * w] } else { [b, t, d * w] };
        let shape = |t: &Tensor, want: &[usize], name| match t.dims() == want {
            true => Ok(()),
            false => Err(Stop::Failed(format!("{name} has shape {}, expected {want:?}", t.shape()))),
        };
        y.as_ref().map(|y| shape(y, &dims, "y")).transpose()?;
        shape(&h, &[rows, b, w], "h")?;
        c.as_ref().map(|c| shape(c, &[rows, b, c_width], "c")).transpose()?;
        let y = y.map(|y| turned(y, &[1, 0, 2])?.to_vec()).transpose()?;
        Ok(Got { y, h: h.to_vec()?, c: c.map(|c| c.to_vec()).transpose()? })
    }

    /// Compares a result with the reference. Returns the largest error as a fraction of the bound, or `None` if the
    /// plan is more sensitive to rounding than the bound assumes and the result is within that sensitivity.
    fn judge(&self, n: &Numbers, want: &crate::Outputs<f64>, got: &Got) -> Result<Option<f64>, String> {
        if got.y.is_none() != self.last {
            return Err("y is there where only the last state was asked for, or the reverse".into());
        }
        if got.c.is_some() != self.cell().kind.has_cell_state() {
            return Err("c is there where the cell has none, or the reverse".into());
        }
        let tolerance = self.tolerance();
        let mut arrays: Vec<(&str, &[f32], &[f64])> = vec![("h", &got.h, &want.h)];
        arrays.extend(got.c.as_deref().map(|c| ("c", c, &want.c[..])));
        arrays.extend(got.y.as_deref().map(|y| ("y", y, &want.y[..])));
        let mut worst = Some(0.0f64);
        for (name, got, want) in arrays {
            match compare(got, want, tolerance) {
                Ok(_) => {
                    let share =
                        |(&g, &w): (&f32, &f64)| (f64::from(g) - w).abs() / (tolerance.abs + tolerance.rel * w.abs());
                    let most = got.iter().zip(want).map(share).fold(0.0, f64::max);
                    worst = worst.map(|w| w.max(most));
                }
                Err(e @ Mismatch::Value { .. }) => {
                    self.judge_by_sensitivity(n, name, got, want).map_err(|s| format!("{name}: {e}; {s}"))?;
                    worst = None;
                }
                Err(e) => return Err(format!("{name}: {e}")),
            }
        }
        Ok(worst)
    }

    /// Unbounded activations, large weights and the jumps of ThresholdedRelu can magnify rounding errors. To find out
    /// by how much, the plan's numbers are rounded at random, and the change of the reference outputs is measured.
    fn judge_by_sensitivity(&self, n: &Numbers, name: &str, got: &[f32], want: &[f64]) -> Result<(), String> {
        let width = if name == "c" { self.sizes[3] } else { self.width() };
        let mut moved = vec![0.0f64; want.len()];
        let cell = self.cell();
        let steps = [cell.candidate, cell.output, self.cell_of(1).candidate].into_iter().chain(cell.gates);
        // Whether a value crosses a jump is a matter of chance, so more trials are needed.
        let jumps = steps.into_iter().any(|a| matches!(a, Activation::ThresholdedRelu { .. }));
        let trials = if jumps { 48 } else { 8 };
        for trial in 0..trials {
            let off = self.truth(n, Some((ROUNDING, self.seed ^ (trial + 1))));
            let off = match name {
                "y" => &off.y,
                "h" => &off.h,
                _ => &off.c,
            };
            moved.iter_mut().zip(off.iter().zip(want)).for_each(|(m, (a, b))| *m = m.max((a - b).abs()));
        }
        let tolerance = self.tolerance();
        for (n, (got, want)) in got.chunks(width).zip(want.chunks(width)).enumerate() {
            let row = moved[n * width..][..width].iter().fold(0.0f64, |a, &b| a.max(b));
            for (j, (&g, &w)) in got.iter().zip(want).enumerate() {
                let allowed = tolerance.abs + tolerance.rel * w.abs() + SAFETY * row;
                let error = (f64::from(g) - w).abs();
                // NaN never agrees.
                if error.is_nan() || error > allowed {
                    let at = n * width + j;
                    return Err(format!(
                        "element {at} is off by {error:.2e}, while rounding the plan's numbers by {ROUNDING:.0e} moves its row by {row:.2e}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Runs the plan on a device. `None` if the reference outputs are useless for a comparison: not finite, too large
    /// for f32 to have digits left, or changed by a hundredth when the plan's numbers are rounded.
    pub fn check(&self, device: &Device, choice: Choice<'_>) -> Option<Report> {
        let numbers = self.numbers();
        let want = self.truth(&numbers, None);
        let large = |v: &Vec<f64>| v.iter().any(|v| v.is_nan() || v.abs() >= 1e6);
        if [&want.y, &want.h, &want.c].into_iter().any(large) || self.is_chaotic(&numbers, &want) {
            return None;
        }
        let mut report = Report::default();
        let subject = catch(|| self.subject(&numbers, device));
        let ways = match &subject {
            Ok(s) => catch(|| self.ways(s, device)),
            Err(Stop::Refused) => Err(Stop::Refused),
            Err(Stop::Failed(e)) => Err(Stop::Failed(e.clone())),
        };
        let (subject, ways) = match (subject, ways) {
            (Ok(s), Ok(w)) => (s, w),
            (_, Err(Stop::Failed(message))) => {
                report.faults.push(Fault { way: String::new(), message });
                return Some(report);
            }
            _ => {
                report.refused += 1;
                return Some(report);
            }
        };
        let r = &mut Random(self.seed ^ 0x5EED);
        let layouts = ways.iter().filter(|w| matches!(w, Way::Layout(_))).count();
        let strategies = ways.len() - layouts;
        let chosen = [r.below(strategies), strategies + r.below(layouts.max(1))];
        for (at, way) in ways.iter().enumerate() {
            let name = way.to_string();
            let wanted = match choice {
                Choice::All => true,
                Choice::Named(n) => n == name,
                Choice::Some => chosen.contains(&at),
            };
            if !wanted {
                continue;
            }
            let outcome = catch(|| self.run(&numbers, &subject, device, *way))
                .and_then(|got| self.judge(&numbers, &want, &got).map_err(Stop::Failed));
            match outcome {
                Ok(Some(worst)) => {
                    report.passed += 1;
                    report.worst = report.worst.max(worst);
                }
                Ok(None) => {
                    report.passed += 1;
                    report.sensitive += 1;
                }
                Err(Stop::Refused) => report.refused += 1,
                Err(Stop::Failed(message)) => report.faults.push(Fault { way: name, message }),
            }
        }
        Some(report)
    }

    /// Whether rounding its numbers once changes the plan's outputs so much that a comparison would mean nothing. Only
    /// computed for plans where this is possible: with bounded gates and weights of usual scale it is not.
    fn is_chaotic(&self, n: &Numbers, want: &crate::Outputs<f64>) -> bool {
        let off = self.truth(n, Some((ROUNDING, self.seed ^ 0xC4A05)));
        let far = |a: &[f64], b: &[f64]| {
            a.iter().zip(b).any(|(a, b)| a.is_nan() || (a - b).abs() * SAFETY >= 1e-2 * (1.0 + b.abs()))
        };
        far(&off.y, &want.y) || far(&off.h, &want.h) || far(&off.c, &want.c)
    }

    /// The simplest plan that still fails on this device, among those tried within some tens of seconds.
    #[must_use]
    pub fn shrink(&self, device: &Device) -> Self {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(40);
        let mut best = self.clone();
        loop {
            let fails = |p: &Self| p.check(device, Choice::All).is_some_and(|r| !r.faults.is_empty());
            match best.simpler().into_iter().find(|p| std::time::Instant::now() < end && fails(p)) {
                Some(p) => best = p,
                None => return best,
            }
        }
    }
}

/// The relative amount by which numbers are changed to measure sensitivity: eight roundings of f32.
const ROUNDING: f64 = 5e-7;

/// A result may differ by this many times the measured sensitivity: a device rounds every sum of every timestep, each
/// by up to the square root of the number of products, while the trial rounds each number once.
const SAFETY: f64 = 16.0;

/// Runs `f`, and treats a panic like any other failure.
fn catch<T>(f: impl FnOnce() -> Result<T, Stop>) -> Result<T, Stop> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(Stop::Failed(format!("panic: {}", text.unwrap_or_default())))
    })
}

/// The seed of the n-th plan of a run.
pub fn seed_of(run: u64, n: u64) -> u64 {
    Random(run ^ n.wrapping_mul(0x9E37_79B9_7F4A_7C15)).below(usize::MAX) as u64
}
