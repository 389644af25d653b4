//! Shared by Recurve's tests: the devices they run on, random layers with their f64 reference, and readers of fixtures.

#![forbid(unsafe_code)]

pub mod conformance;
pub mod fuzz;
pub mod gradients;
pub mod node_tests;
pub mod numerics;
pub mod onnx;
pub mod parity;
pub mod skips;
pub mod training;

use recurve::testing::{Agreement, Mismatch, Tolerance, compare};
use recurve::{
    Candidate, Cell, CellKind, Device, Direction, DirectionWeights, ForwardArgs, MaskedOutput, Recurrent,
    RecurrentConfig, Strategy, Tensor, WeightStorage,
};
use recurve_reference as reference;
use recurve_vocabulary::round_to_int8;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The GPU that the tests use: the one named by `RECURVE_TEST_DEVICE`, else a hardware GPU, else a software one.
///
/// # Panics
/// If there is none, because GPU tests are never skipped.
pub fn gpu() -> Device {
    static GPU: OnceLock<Device> = OnceLock::new();
    GPU.get_or_init(|| match std::env::var("RECURVE_TEST_DEVICE") {
        Ok(name) => Device::by_name(&name).expect("RECURVE_TEST_DEVICE names a device"),
        Err(_) => Device::all().into_iter().find(|d| d.gpu().is_some()).expect(
            "the tests need a GPU adapter: run `cargo xtask test`, which installs a software one on \
             Debian, or install mesa-vulkan-drivers and libvulkan1",
        ),
    })
    .clone()
}

/// Every way in which a recurrent layer can run. With `RECURVE_TEST_PATHS=cpu` only the CPU, for the additional runs of
/// `cargo xtask test` with fewer vector instructions.
pub fn paths() -> Vec<(Device, Strategy)> {
    let cpu = (Device::Cpu, Strategy::Auto);
    if std::env::var("RECURVE_TEST_PATHS").is_ok_and(|v| v == "cpu") {
        return vec![cpu];
    }
    vec![cpu, (gpu(), Strategy::Scan), (gpu(), Strategy::Step)]
}

/// The GPU; `None` with `RECURVE_TEST_PATHS=cpu`, and then the test is recorded as skipped.
pub fn wanted_gpu() -> Option<Device> {
    let gpu = paths().into_iter().map(|(device, _)| device).find(|d| d.gpu().is_some());
    if gpu.is_none() {
        skips::skip("a GPU among RECURVE_TEST_PATHS");
    }
    gpu
}

/// How a call runs on a GPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// The strategy.
    pub strategy: Strategy,
    /// Whether the layer is tuned for the shape first.
    pub tuned: bool,
}

impl From<Strategy> for How {
    fn from(strategy: Strategy) -> Self {
        Self { strategy, tuned: false }
    }
}

/// The GPU, opened again: no other test uses this device, so its counters only count the caller's work.
pub fn own_gpu() -> Device {
    Device::by_name(&format!("{}:{}", gpu().backend(), gpu().name())).expect("it was there before")
}

/// The CPU and the GPU.
pub fn devices() -> [Device; 2] {
    [Device::Cpu, gpu()]
}

/// A random number generator with a seed.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// A number in `[0, n)`.
    pub fn below(&mut self, n: usize) -> usize {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    /// Numbers in `[-scale, scale]`.
    pub fn floats(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| (self.below(1 << 24) as f32 / (1 << 23) as f32 - 1.0) * scale).collect()
    }
}

/// The content of unwritten memory in tests; no layer computes this value.
pub const SENTINEL: f32 = -12345.5;

/// Puts tensors full of [`SENTINEL`] into the pool, so that outputs of these sizes initially contain it.
pub fn poison(device: &Device, counts: &[usize]) {
    let held: Vec<_> = counts
        .iter()
        .flat_map(|&n| [n, n])
        .map(|n| Tensor::full(&[n], SENTINEL, recurve::DType::F32, device).expect("memory for a test"))
        .collect();
    drop(held);
}

/// A random recurrent layer with its input and states.
#[derive(Clone, Debug)]
pub struct Case {
    /// The cell.
    pub cell: Cell,
    /// The directions with their weights.
    pub directions: Vec<(Direction, DirectionWeights<f32>)>,
    /// Input, `[B, T, I]`.
    pub x: Vec<f32>,
    /// Batch size `B`, timesteps `T`, input features `I`, hidden units `H`.
    pub sizes: [usize; 4],
    /// Initial h, `[D, B, H]`.
    pub h0: Option<Vec<f32>>,
    /// Initial c, `[D, B, H]`; for an sLSTM c, n and m, `[D, B, 3·H]`.
    pub c0: Option<Vec<f32>>,
    /// Lengths, `[B]`.
    pub lengths: Option<Vec<u32>>,
    /// Mask, `[B, T]`.
    pub mask: Option<Vec<u32>>,
    /// The output where the mask is zero.
    pub masked_output: MaskedOutput,
    /// How weights are stored.
    pub weights: WeightStorage,
}

/// The outputs of a [`Case`].
#[derive(Clone, Debug)]
pub struct Outputs<T> {
    /// Outputs, `[B, T, D·H]`.
    pub y: Vec<T>,
    /// Final h, `[D, B, H]`.
    pub h: Vec<T>,
    /// Final c, `[D, B, H]`; for an sLSTM c, n and m, `[D, B, 3·H]`; empty for other cells.
    pub c: Vec<T>,
}

/// A random c with this number of rows, if the cell has a c.
pub fn random_c(r: &mut Random, cell: &Cell, hidden: usize, rows: usize) -> Option<Vec<f32>> {
    let width = cell.state_sizes(hidden).1?;
    let mut c = r.floats(rows * width, 1.0);
    if matches!(cell.kind, CellKind::SLstm { .. }) {
        // The normalizer n of a state must be above 0.
        c.chunks_exact_mut(width).for_each(|row| row[hidden..2 * hidden].iter_mut().for_each(|n| *n = 1.0 + *n / 2.0));
    }
    Some(c)
}

impl Case {
    /// A case with weights uniform in ±1/√H, both biases, and these directions.
    pub fn random(seed: u64, cell: Cell, directions: &[Direction], sizes: [usize; 4]) -> Self {
        let mut r = Random(seed);
        let [b, t, i, h] = sizes;
        let g = cell.kind.gates();
        let scale = 1.0 / (h as f32).sqrt();
        let width = cell.state_size(h);
        let minimal = matches!(cell.kind, CellKind::MinGru | CellKind::MinLstm);
        let norm = |r: &mut Random, n: usize| {
            if cell.layer_norm.is_none() {
                return Vec::new();
            }
            // Gains around 1, offsets around 0.
            let mut v = r.floats(2 * n, 0.5);
            v[..n].iter_mut().for_each(|g| *g += 1.0);
            v
        };
        let directions = directions
            .iter()
            .map(|&d| {
                let w = DirectionWeights {
                    w_ih: r.floats(g * h * i, scale),
                    w_hh: r.floats(cell.kind.recurrent_weights(h, width), scale),
                    b_ih: r.floats(g * h, scale),
                    b_hh: if minimal { Vec::new() } else { r.floats(g * h, scale) },
                    peepholes: Vec::new(),
                    w_hr: r.floats(cell.projection.map_or(0, |p| p * h), scale),
                    norm_ih: norm(&mut r, g * h),
                    norm_hh: norm(&mut r, g * h),
                    norm_c: if cell.kind.has_cell_state() { norm(&mut r, h) } else { Vec::new() },
                    ..DirectionWeights::default()
                };
                (d, w)
            })
            .collect();
        Self {
            cell,
            directions,
            x: r.floats(b * t * i, 1.0),
            sizes,
            h0: None,
            c0: None,
            lengths: None,
            mask: None,
            masked_output: MaskedOutput::Zero,
            weights: WeightStorage::F32,
        }
    }

    /// Number of elements of h.
    pub fn width(&self) -> usize {
        self.cell.state_size(self.sizes[3])
    }

    /// Number of elements of c, or of c, n and m of an sLSTM; 0 for other cells.
    pub fn c_width(&self) -> usize {
        self.cell.state_sizes(self.sizes[3]).1.unwrap_or(0)
    }

    /// Adds random initial states.
    #[must_use]
    pub fn with_states(mut self, seed: u64) -> Self {
        let mut r = Random(seed);
        let rows = self.directions.len() * self.sizes[0];
        self.h0 = Some(r.floats(rows * self.width(), 1.0));
        self.c0 = random_c(&mut r, &self.cell, self.sizes[3], rows);
        self
    }

    /// Adds a random mask with holes, and sets the outputs where it is zero.
    #[must_use]
    pub fn with_mask(mut self, seed: u64, masked_output: MaskedOutput) -> Self {
        let mut r = Random(seed);
        self.mask = Some((0..self.sizes[0] * self.sizes[1]).map(|_| u32::from(r.below(3) > 0)).collect());
        self.masked_output = masked_output;
        self
    }

    /// Stores weights as f16. The matrices are rounded, so that the reference uses the stored values; the u of an
    /// IndRNN is a vector and is not rounded.
    #[must_use]
    pub fn with_f16_weights(mut self) -> Self {
        self.weights = WeightStorage::F16;
        let pointwise = self.cell.kind.is_pointwise();
        for (_, w) in &mut self.directions {
            let recurrent = if pointwise { &mut [][..] } else { &mut w.w_hh };
            for v in [&mut w.w_ih, recurrent, &mut w.w_hr].into_iter().flatten() {
                *v = half::f16::from_f32(*v).to_f32();
            }
        }
        self
    }

    /// Stores weights as int8 with a scale per row. The matrices are rounded, so that the reference uses the stored
    /// values.
    #[must_use]
    pub fn with_int8_weights(mut self) -> Self {
        self.weights = WeightStorage::Int8;
        let rows = self.cell.kind.gates() * self.sizes[3];
        let pointwise = self.cell.kind.is_pointwise();
        for (_, w) in &mut self.directions {
            let width = w.w_hr.len() / self.sizes[3];
            let round = |m: &mut Vec<f32>, rows: usize| {
                let k = (m.len() / rows.max(1)).max(1);
                m.chunks_mut(k).for_each(round_to_int8);
            };
            round(&mut w.w_ih, rows);
            if !pointwise {
                round(&mut w.w_hh, rows);
            }
            round(&mut w.w_hr, width);
        }
        self
    }

    /// Adds lengths, which include 0 and T if there are enough sequences.
    #[must_use]
    pub fn with_lengths(mut self) -> Self {
        let [b, t, ..] = self.sizes;
        self.lengths = Some((0..b).map(|n| ((n + 1) * 7 % (t + 1)) as u32).collect());
        self
    }

    /// Removes the lengths.
    #[must_use]
    pub fn without_lengths(mut self) -> Self {
        self.lengths = None;
        self
    }

    /// Adds random peepholes.
    #[must_use]
    pub fn with_peepholes(mut self, seed: u64) -> Self {
        assert!(matches!(self.cell.kind, CellKind::Lstm { .. }));
        self.cell.peepholes = true;
        let mut r = Random(seed);
        for (_, w) in &mut self.directions {
            w.peepholes = r.floats(3 * self.sizes[3], 0.5);
        }
        self
    }

    /// Whether a device supports the case. If not, that is recorded as a skip, and the layer must be refused with the
    /// reason.
    pub fn runs_on(&self, device: &Device) -> bool {
        if self.weights != WeightStorage::F16 || skips::has_f16(device) {
            return true;
        }
        let refused = self.build(device).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(refused.contains("f16"), "f16 weights on a device without f16: {refused:?}");
        false
    }

    /// Makes the layer on a device.
    pub fn layer(&self, device: &Device) -> Recurrent {
        self.build(device).expect("a valid layer")
    }

    fn build(&self, device: &Device) -> Result<Recurrent, recurve::TensorError> {
        let pairs: Vec<_> = self.directions.iter().map(|(d, w)| (*d, w)).collect();
        let config = RecurrentConfig {
            weights: self.weights,
            ..RecurrentConfig::new(self.cell, self.sizes[2], self.sizes[3], &pairs)
        };
        Recurrent::new(&config, device)
    }

    /// The outputs on a device; `budget` limits the projection of a chunk of timesteps, in bytes.
    pub fn run(&self, device: &Device, strategy: Strategy, budget: usize) -> Outputs<f32> {
        self.run_with(&self.layer(device), strategy, None, budget).0
    }

    /// The outputs of an existing layer, to which a candidate may belong, and the strategy that computed them.
    pub fn run_with(
        &self,
        layer: &Recurrent,
        strategy: Strategy,
        candidate: Option<Candidate>,
        budget: usize,
    ) -> (Outputs<f32>, Strategy) {
        let device = &layer.device();
        let [b, t, i, _] = self.sizes;
        let d = self.directions.len();
        let (w, c) = (self.width(), self.c_width());
        poison(device, &[b * t * d * w, d * b * w, d * b * c.max(1)]);
        let tensor = |v: &[f32], dims: &[usize]| Tensor::from_f32(v, dims, device).expect("upload");
        let x = tensor(&self.x, &[b, t, i]);
        let h0 = self.h0.as_ref().map(|v| tensor(v, &[d, b, w]));
        let c0 = self.c0.as_ref().map(|v| tensor(v, &[d, b, c]));
        let lengths = self.lengths.as_ref().map(|v| Tensor::from_u32(v, &[b], device).expect("upload"));
        let mask = self.mask.as_ref().map(|v| Tensor::from_u32(v, &[b, t], device).expect("upload"));
        let args = ForwardArgs {
            h0: h0.as_ref(),
            c0: c0.as_ref(),
            lengths: lengths.as_ref(),
            mask: mask.as_ref(),
            masked_output: self.masked_output,
            strategy,
            candidate,
            projection_budget: budget,
            ..ForwardArgs::default()
        };
        let out = layer.forward(&x, &args).expect("a valid call");
        let outputs = Outputs {
            y: out.y.expect("all outputs").to_vec().expect("read"),
            h: out.h.to_vec().expect("read"),
            c: out.c.map(|c| c.to_vec().expect("read")).unwrap_or_default(),
        };
        (outputs, out.strategy)
    }

    /// The outputs of the f64 reference.
    pub fn reference(&self) -> Outputs<f64> {
        let [b, t, i, h] = self.sizes;
        let d = self.directions.len();
        let wide = |v: &[f32]| v.iter().map(|&v| v.into()).collect::<Vec<f64>>();
        let lengths: Option<Vec<usize>> = self.lengths.as_ref().map(|l| l.iter().map(|&v| v as usize).collect());
        let wd = self.width();
        let mask: Option<Vec<bool>> = self.mask.as_ref().map(|m| m.iter().map(|&v| v != 0).collect());
        let mut out = Outputs { y: vec![0.0; b * t * d * wd], h: Vec::new(), c: Vec::new() };
        for (n, (direction, w)) in self.directions.iter().enumerate() {
            let weights = w.widen();
            let part =
                |s: &Option<Vec<f32>>, size: usize| s.as_ref().map(|s| wide(&s[n * b * size..(n + 1) * b * size]));
            let (h0, c0) = (part(&self.h0, wd), part(&self.c0, self.c_width()));
            let one = reference::recurrence(&reference::Recurrence {
                cell: self.cell,
                direction: *direction,
                weights: &weights,
                x: &wide(&self.x),
                batch: b,
                timesteps: t,
                input_size: i,
                hidden_size: h,
                h0: h0.as_deref(),
                c0: c0.as_deref(),
                lengths: lengths.as_deref(),
                mask: mask.as_deref(),
                masked_output: self.masked_output,
            });
            for (row, values) in one.y.chunks_exact(wd).enumerate() {
                out.y[row * d * wd + n * wd..][..wd].copy_from_slice(values);
            }
            out.h.extend(one.h);
            out.c.extend(one.c);
        }
        out
    }

    /// Runs on a device and compares everything with the reference. Returns the largest error; 0 for a case that the
    /// device [does not support](Self::runs_on).
    pub fn check(
        &self,
        want: &Outputs<f64>,
        device: &Device,
        strategy: Strategy,
        budget: usize,
        tolerance: Tolerance,
    ) -> f64 {
        if !self.runs_on(device) {
            return 0.0;
        }
        let got = self.run(device, strategy, budget);
        let mut worst = 0.0f64;
        for (name, got, want) in [("y", &got.y, &want.y), ("h", &got.h, &want.h), ("c", &got.c, &want.c)] {
            if want.is_empty() {
                assert!(got.is_empty(), "{name} came, but none was expected");
                continue;
            }
            match compare(got, want, tolerance) {
                Ok(a) => worst = worst.max(a.worst_error),
                Err(e) => panic!(
                    "{:?} {:?} B,T,I,H {:?} lengths {:?} mask {:?} states {} on {device} by {}: {name}: {e}",
                    self.cell,
                    self.directions.iter().map(|d| d.0).collect::<Vec<_>>(),
                    self.sizes,
                    self.lengths,
                    self.mask,
                    self.h0.is_some(),
                    strategy.name(),
                ),
            }
        }
        worst
    }
}

/// Converts to f64 for [`compare`].
pub fn wide(v: &[f32]) -> Vec<f64> {
    v.iter().map(|&v| v.into()).collect()
}

/// Compares with values that another framework has rounded to f32.
///
/// # Errors
/// As [`compare`].
pub fn compare_f32(got: &[f32], want: &[f32], tolerance: Tolerance) -> Result<Agreement, Mismatch> {
    compare(got, &wide(want), tolerance)
}

/// The folder of fixtures.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// An array of a fixture.
#[derive(Clone, Debug)]
pub struct Golden {
    /// The dimensions.
    pub shape: Vec<usize>,
    /// The elements.
    pub data: Vec<f32>,
}

/// Arrays by name.
pub type Arrays = BTreeMap<String, Golden>;

/// The arrays of a safetensors fixture, grouped by case; they are named `CASE/ARRAY`.
///
/// # Panics
/// If the fixture is missing or damaged.
pub fn golden(file: &str) -> BTreeMap<String, Arrays> {
    let bytes = std::fs::read(fixtures().join(file)).expect("the fixture is in the repository");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let mut cases: BTreeMap<String, Arrays> = BTreeMap::new();
    for (name, view) in tensors.tensors() {
        let (case, array) = name.split_once('/').expect("CASE/ARRAY");
        let data = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let golden = Golden { shape: view.shape().to_vec(), data };
        cases.entry(case.into()).or_default().insert(array.into(), golden);
    }
    cases
}
