//! The allowed errors for each cell, device and weight storage, and their measurement: the table of `docs/numerics.md`.

use crate::{Case, gpu};
use recurve::testing::{Tolerance, compare};
use recurve::{Activation, Cell, CellKind, Device, Direction, Strategy, WeightStorage, Zoneout};
use recurve_tensor::bounds;
use std::fmt::Write as _;

/// Where a layer runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The CPU.
    Cpu,
    /// A GPU, with `scan` and with `step`.
    Gpu,
}

/// A row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// The cell's name.
    pub name: &'static str,
    /// The cell.
    pub cell: Cell,
    /// Where the layer runs.
    pub place: Place,
    /// How weight matrices are stored.
    pub weights: WeightStorage,
    /// Largest allowed absolute error.
    pub bound: f64,
    /// The reason for the bound.
    pub reason: &'static str,
}

/// Batch size `B`, timesteps `T`, input features `I`, hidden units `H` of the measurement.
pub const SIZES: [usize; 4] = [2, 1024, 16, 64];

const GATED: &str =
    "sums of 64 products, and the activations; each timestep shrinks earlier errors, so they do not add up over T";
const PLAIN: &str = "sums of 64 products, and the activations; earlier errors shrink less than in gated cells";
const IND: &str =
    "with ReLU and u near 1 or -1, earlier errors hardly shrink: they add up over about 1/(1 - abs(u)) timesteps";
const MINIMAL: &str =
    "gates do not depend on h, so errors do not feed back; `scan` composes the timesteps in another order";
const EXPONENTIAL: &str =
    "sums of 64 products; exponential gates turn their rounding into relative errors, and c is divided by n";
const NORM: &str = "division by a standard deviation, which magnifies rounding errors where it is small";
const PROJECTED: &str = "as for the plain LSTM, plus another sum of 64 products";
const HALF: &str = "weights rounded to f16, each with a relative error of up to 4.9e-4; the sums stay f32";

const INT8: &str = "weights rounded to multiples of 1/127 of the largest in their row, with an error of at most half \
    of that; the sums stay f32";

/// The cells of the table, with their bounds for f32 weights and the reasons.
fn cells() -> Vec<(&'static str, Cell, f64, &'static str)> {
    let zoneout = Some(Zoneout { h: 0.1, c: 0.1 });
    vec![
        ("SimpleRNN", Cell::RNN, 5e-6, PLAIN),
        ("LSTM", Cell::LSTM, 3e-6, GATED),
        ("LSTM, coupled gates", Cell { kind: CellKind::Lstm { coupled: true }, ..Cell::LSTM }, 3e-6, GATED),
        ("LSTM, proj_size 24", Cell { projection: Some(24), ..Cell::LSTM }, 3e-6, PROJECTED),
        ("LSTM, zoneout", Cell { zoneout, ..Cell::LSTM }, 3e-6, GATED),
        ("LSTM, layer normalization", Cell { layer_norm: Some(1e-5), ..Cell::LSTM }, 5e-5, NORM),
        ("GRU, reset after the product", Cell::GRU, 3e-6, GATED),
        ("GRU, reset before the product", Cell::GRU_RESET_BEFORE, 3e-6, GATED),
        ("GRU, layer normalization", Cell { layer_norm: Some(1e-5), ..Cell::GRU }, 5e-5, NORM),
        ("IndRNN", Cell::INDRNN, 1e-5, IND),
        ("minGRU", Cell::MINGRU, 3e-6, MINIMAL),
        ("minLSTM", Cell::MINLSTM, 3e-6, MINIMAL),
        ("sLSTM", Cell::SLSTM, 1e-5, EXPONENTIAL),
        ("minGRU, log-space", Cell { candidate: Activation::Positive, ..Cell::MINGRU }, 3e-6, MINIMAL),
    ]
}

/// The table's bound with f32 weights for a cell, which may have several of the options.
///
/// # Panics
/// If the table does not contain the cell's kind.
pub fn bound(cell: &Cell) -> f64 {
    let same = |c: &Cell| std::mem::discriminant(&c.kind) == std::mem::discriminant(&cell.kind);
    let alike =
        cells().into_iter().filter(|(_, c, ..)| same(c) && (c.layer_norm.is_none() || cell.layer_norm.is_some()));
    alike.map(|(_, _, bound, _)| bound).reduce(f64::max).expect("the table has a row for every family")
}

/// The rows of the table.
pub fn rows() -> Vec<Row> {
    let mut all = Vec::new();
    for (name, cell, bound, reason) in cells() {
        for place in [Place::Cpu, Place::Gpu] {
            all.push(Row { name, cell, place, weights: WeightStorage::F32, bound, reason });
            // Rounded weights make a different network; layer normalization magnifies that difference too.
            let half = if cell.layer_norm.is_some() { 5e-2 } else { 5e-3 };
            all.push(Row { name, cell, place, weights: WeightStorage::F16, bound: half, reason: HALF });
            if place == Place::Cpu {
                let bound = if cell.layer_norm.is_some() { 6e-1 } else { 3e-2 };
                all.push(Row { name, cell, place, weights: WeightStorage::Int8, bound, reason: INT8 });
            }
        }
    }
    all
}

impl Row {
    /// The device for the row.
    fn device(&self) -> Device {
        match self.place {
            Place::Cpu => Device::Cpu,
            Place::Gpu => gpu(),
        }
    }

    /// The largest error over all outputs and strategies, compared with the f64 reference with the original weights;
    /// `None` if the device does not support the row.
    ///
    /// # Panics
    /// If it exceeds the bound.
    pub fn measure(&self) -> Option<f64> {
        let exact = Case::random(11, self.cell, &[Direction::Forward], SIZES);
        let want = exact.reference();
        let case = match self.weights {
            WeightStorage::F32 => exact,
            WeightStorage::F16 => exact.with_f16_weights(),
            WeightStorage::Int8 => exact.with_int8_weights(),
            other => panic!("{} has no case", other.name()),
        };
        if !case.runs_on(&self.device()) {
            return None;
        }
        let strategies: &[Strategy] = match self.place {
            Place::Cpu => &[Strategy::Auto],
            Place::Gpu => &[Strategy::Scan, Strategy::Step],
        };
        let mut worst = 0.0f64;
        for &strategy in strategies {
            let got = case.run(&self.device(), strategy, 64 << 20);
            for (got, want) in [(&got.y, &want.y), (&got.h, &want.h), (&got.c, &want.c)] {
                if !want.is_empty() {
                    let tolerance = Tolerance { abs: self.bound, rel: 0.0 };
                    let a = compare(got, want, tolerance)
                        .unwrap_or_else(|e| panic!("{} on {} by {}: {e}", self.name, self.device(), strategy.name()));
                    worst = worst.max(a.worst_error);
                }
            }
        }
        Some(worst)
    }

    /// The largest error as the page shows it.
    ///
    /// # Panics
    /// As [`Row::measure`].
    pub fn worst_seen(&self) -> String {
        self.measure().map_or_else(|| "not run".into(), |worst| format!("{worst:.1e}"))
    }

    /// The columns of the row except the measured one.
    fn columns(&self) -> [String; 4] {
        let place = if self.place == Place::Cpu { "CPU" } else { "GPU" };
        let dtype = self.weights.name();
        [self.name.into(), place.into(), dtype.into(), format!("{:.0e}", self.bound)]
    }
}

/// The text of `docs/numerics.md`, with the largest error of each row given by `measure`.
pub fn document(measure: impl Fn(&Row) -> String) -> String {
    let [b, t, i, h] = SIZES;
    let mut text = format!(
        "# Numerics\n\
         Generated by `cargo xtask docs` from the table of bounds that the tests check on every device \
         (`tests/src/numerics.rs`); a test checks that \
         this page agrees with it.\n\n\
         Largest absolute errors against the f64 reference, B = {b}, T = {t}, I = {i}, H = {h}, weights uniform in \
         ±1/√H, inputs in [-1, 1], all outputs and final states. For the GPU the larger error of `scan` and `step`. \
         The weights column is the storage type of the weight \
         matrices; sums, states and activations are always f32.\n\n\
         | cell | device | weights | bound | worst seen | reason |\n|---|---|---|---|---|---|\n"
    );
    for row in rows() {
        let [name, place, dtype, bound] = row.columns();
        let worst = measure(&row);
        writeln!(text, "| {name} | {place} | {dtype} | {bound} | {worst} | {} |", row.reason)
            .expect("a string takes any text");
    }
    let activations: String = activations();
    write!(
        text,
        "\n## Between runs and between calls\n\
         - The same input on the same device with the same strategy gives the same bits; tested over 100 runs for \
         every cell.\n\
         - T calls of one timestep give the same bits as one call of T timesteps, with the same strategy, for every \
         cell, except minGRU and minLSTM with `scan`, which composes timesteps in an order that depends on T (tested \
         within 1e-6).\n\
         - Two strategies, or two devices, differ by rounding: each is within its bound of the reference, so they are \
         within the sum of their bounds of each other.\n\
         - A batch row's result does not depend on the other rows (tested within 1e-6; a device may choose another \
         tile size).\n\n\
         ## Activations\n\
         Largest errors over every f32 (`recurve_tensor::bounds`; `cargo run --release -p recurve-benches -- \
         functions` \
         measures them). All are valid for every x and saturate without NaN.\n\n\
         | function | where | absolute error |\n|---|---|---|\n\
         {activations}\
         | softplus, elu, scaled_tanh, positive | everywhere | 6e-7, relative above 1 |\n\
         | the others | everywhere | rounding of f32 |\n\n\
         NaN stays NaN on every device: in activations, clip, products, reductions and whole layers. WGSL lets \
         drivers assume that there is no NaN, so the shaders test bits where they compare or clamp; that \
         sums and products keep NaN depends on the driver.\n\n\
         The recurrent weights of an sLSTM's heads are multiplied as one matrix with zeros between the heads, so a \
         NaN in the \
         h of one head becomes NaN in the others, from the next timestep on. The n of an sLSTM is above 0 after the \
         first valid timestep, so the quotient c / n is finite for all gates.\n\n\
         A minLSTM divides by f + i. If both gates are below 1e-37, the sum is set to 1e-37, so the state becomes \
         zero and never NaN.\n",
    )
    .expect("a string takes any text");
    text
}

/// The rows for sigmoid and tanh.
fn activations() -> String {
    let gates = "gates of a SimpleRNN, LSTM or GRU without options, CPU";
    let other = "everything else on the CPU";
    let rows = [
        ("sigmoid", gates, bounds::RATIO_SIGMOID),
        ("tanh", gates, bounds::RATIO_TANH),
        ("sigmoid(x) tanh(y)", gates, bounds::RATIO_PRODUCT),
        ("sigmoid", other, bounds::SIGMOID),
        ("tanh", other, bounds::TANH),
        ("sigmoid, tanh", "GPU, if `exp` and division are only as accurate as WGSL requires", bounds::GPU),
    ];
    rows.iter().map(|(function, place, bound)| format!("| {function} | {place} | {bound:e} |\n")).collect()
}
