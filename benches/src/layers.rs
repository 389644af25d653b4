//! Measures a recurrent layer on several devices with several strategies. All results are verified, then all are timed
//! in turn.

use crate::{Peaks, quantile};
use recurve::testing::{Mismatch, Tolerance, compare};
use recurve::{
    Bias, Candidate, Cell, CellKind, Device, Direction, DirectionWeights, ForwardArgs, Initializer, LayerConfig,
    LayerError, Recurrent, RecurrentConfig, Sequential, SimpleRnn, Strategy, Tensor, TensorError, WeightStorage,
};
use recurve_reference as reference;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What to measure: one layer with one direction and random weights.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The cell.
    pub cell: Cell,
    /// Timesteps `T`, batch size `B`, input features `I`, hidden units `H`.
    pub shape: [usize; 4],
    /// How weight matrices are stored.
    pub weights: WeightStorage,
    /// The devices to measure.
    pub devices: &'a [Device],
    /// The strategies or layouts of a GPU to measure.
    pub ways: Ways,
    /// Minimum number of timed runs of each way of running.
    pub runs: usize,
    /// Minimum time for each way of running, in seconds.
    pub seconds: f64,
}

/// Which of a GPU's ways of running a layer are measured. The CPU has only one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ways {
    /// This strategy.
    One(Strategy),
    /// The fastest one, which is measured once and then stored.
    Tuned,
    /// `scan`, `step` and `grid`, except those that the device refuses.
    Strategies,
    /// Every layout of every strategy, except those that the device refuses.
    Candidates,
}

/// The times of a case on one device, run in one way.
#[derive(Clone, Debug)]
pub struct Row {
    /// The device's name.
    pub device: String,
    /// `cpu`, or the backend of a GPU.
    pub backend: &'static str,
    /// The driver of a GPU.
    pub driver: String,
    /// The cell's name.
    pub cell: &'static str,
    /// Timesteps `T`, batch size `B`, input features `I`, hidden units `H`.
    pub shape: [usize; 4],
    /// How weight matrices are stored.
    pub dtype: &'static str,
    /// The strategy that ran.
    pub strategy: &'static str,
    /// The median time in ms, from the input in host memory to all outputs in host memory.
    pub median: f64,
    /// The 10th percentile of the times, in ms.
    pub p10: f64,
    /// The 90th percentile of the times, in ms.
    pub p90: f64,
    /// The median of the times that the GPU measured, in ms; `None` if it cannot measure time.
    pub gpu_ms: Option<f64>,
    /// The median of the host's time for encoding and submitting commands, in ms.
    pub encode_ms: Option<f64>,
    /// Floating-point operations of the matrix products, in 1e9 per second.
    pub gflops: f64,
    /// The shortest possible time by the measured peak rates of the device, divided by the median.
    pub roofline: f64,
    /// The layout of a candidate, or how the strategy differed from the one asked for.
    pub layout: String,
}

/// Why a case was not measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// A result differs from the reference.
    #[error("{device}: {mismatch}")]
    Wrong {
        /// The device.
        device: String,
        /// The difference.
        mismatch: Mismatch,
    },
    /// The layer cannot be made.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The device cannot run it.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// One way of running a case.
#[derive(Clone, Copy)]
struct Way {
    strategy: Strategy,
    tuned: bool,
    candidate: Option<Candidate>,
}

/// A layer on a device, one way of running it, and memory for its results.
struct Run<'a> {
    device: &'a Device,
    layer: Rc<Recurrent>,
    way: Way,
    shape: [usize; 4],
    y: Vec<f32>,
    h: Vec<f32>,
    c: Vec<f32>,
    by: Strategy,
    times: Vec<f64>,
    gpu_ms: Vec<f64>,
    encode_ms: Vec<f64>,
}

impl<'a> Run<'a> {
    fn new(device: &'a Device, layer: Rc<Recurrent>, way: Way, shape: [usize; 4]) -> Self {
        let [t, b, _, h] = shape;
        let carried = layer.cell().kind.carried();
        Self {
            device,
            layer,
            way,
            shape,
            y: vec![f32::NAN; b * t * h],
            h: vec![f32::NAN; b * h],
            c: vec![f32::NAN; b * carried * h],
            by: Strategy::Auto,
            times: Vec::new(),
            gpu_ms: Vec::new(),
            encode_ms: Vec::new(),
        }
    }

    /// Runs the layer as a user would: uploads the input, reads all outputs and states back.
    fn call(&mut self, x: &[f32]) -> Result<(), TensorError> {
        let [t, b, i, _] = self.shape;
        let x = Tensor::from_f32(x, &[b, t, i], self.device)?;
        let Way { strategy, candidate, .. } = self.way;
        let out = self.layer.forward(&x, &ForwardArgs { strategy, candidate, ..ForwardArgs::default() })?;
        self.by = out.strategy;
        let all = out.y.as_ref().expect("all outputs were asked for");
        match &out.c {
            Some(c) => Tensor::read_many([(all, &mut self.y), (&out.h, &mut self.h), (c, &mut self.c)]),
            None => Tensor::read_many([(all, &mut self.y), (&out.h, &mut self.h)]),
        }
    }

    /// Runs and times the layer; also takes the times that the GPU measured.
    fn time(&mut self, x: &[f32]) -> Result<(), TensorError> {
        let one = Instant::now();
        self.call(x)?;
        self.times.push(one.elapsed().as_secs_f64() * 1e3);
        if let Some(gpu) = self.device.gpu() {
            let spent = gpu.take_profile()?;
            self.gpu_ms.push(spent.gpu_ms);
            self.encode_ms.push(spent.encode_ms());
        }
        Ok(())
    }

    /// Compares the outputs of the last call with the reference, for the first timesteps.
    fn verify(&self, truth: &Truth) -> Result<(), Failure> {
        let got = &self.y[..truth.y.len()];
        match compare(got, &truth.y, truth.tolerance) {
            Ok(_) => Ok(()),
            Err(mismatch) => Err(Failure::Wrong { device: self.device.to_string(), mismatch }),
        }
    }

    fn row(&self, case: &Case<'_>, peaks: &mut Peaks) -> Result<Row, TensorError> {
        let Case { cell, shape, weights, .. } = *case;
        let [t, b, i, h] = shape;
        let median = quantile(&self.times, 0.5);
        let middle = |v: &[f64]| (!v.is_empty()).then(|| quantile(v, 0.5)).filter(|&ms| ms > 0.0);
        let bytes = match weights {
            WeightStorage::F32 => 4,
            WeightStorage::F16 => 2,
            WeightStorage::Int8 => 1,
            // The layer was made, so its storage is one of these.
            _ => unreachable!("a storage type that is not measured"),
        };
        let products = cell.kind.gates() * h * i + cell.kind.recurrent_weights(h, h);
        Ok(Row {
            device: self.device.name(),
            backend: self.device.backend(),
            driver: self.device.gpu().map_or_else(String::new, |g| g.summary().driver.clone()),
            cell: cell.kind.name(),
            shape,
            dtype: weights.name(),
            strategy: if *self.device == Device::Cpu { "cpu" } else { self.by.name() },
            median,
            p10: quantile(&self.times, 0.1),
            p90: quantile(&self.times, 0.9),
            gpu_ms: middle(&self.gpu_ms),
            encode_ms: middle(&self.encode_ms),
            gflops: 2.0 * (b * t) as f64 * products as f64 / median * 1e-6,
            roofline: peaks.least(self.device, cell.kind, shape, bytes)? / (median * 1e-3),
            layout: match self.way {
                Way { candidate: Some(c), .. } => c.to_string(),
                Way { tuned: true, .. } => "tuned".into(),
                _ if self.by != self.way.strategy && self.way.strategy == Strategy::Grid => "grid gave up".into(),
                _ => String::new(),
            },
        })
    }
}

/// Measures a case on all its devices in all its ways. Each is verified, then timed in turn, then verified again. If
/// several ways are compared, those that a device refuses are left out, and `left_out` is called with the reason.
///
/// # Errors
/// [`Failure`]; a case with a wrong result is not timed.
pub fn measure(
    case: &Case<'_>,
    peaks: &mut Peaks,
    mut left_out: impl FnMut(&TensorError),
) -> Result<Vec<Row>, Failure> {
    let [t, b, i, h] = case.shape;
    let w = weights(case.cell, i, h)?;
    let x: Vec<f32> = (0..b * t * i).map(|n| ((n * 7919 + 13) % 2003) as f32 / 1001.5 - 1.0).collect();
    let truth = Truth::new(case, &w, &x);
    let mut runs = verified(case, &w, &x, &truth, &mut left_out)?;
    time(case, &mut runs, &x, &mut left_out)?;
    let mut rows = Vec::new();
    for run in &runs {
        // Verified again, because the results must stay right over many runs.
        run.verify(&truth)?;
        rows.push(run.row(case, peaks)?);
    }
    for gpu in case.devices.iter().filter_map(Device::gpu) {
        gpu.set_profiling(false);
    }
    Ok(rows)
}

/// The ways of running a case whose results are right, warmed up, with the GPUs' time measurement switched on.
fn verified<'a>(
    case: &Case<'a>,
    w: &DirectionWeights<f32>,
    x: &[f32],
    truth: &Truth,
    left_out: &mut impl FnMut(&TensorError),
) -> Result<Vec<Run<'a>>, Failure> {
    let [t, b, i, h] = case.shape;
    let directions = [(Direction::Forward, w)];
    let config = RecurrentConfig { weights: case.weights, ..RecurrentConfig::new(case.cell, i, h, &directions) };
    let several = case.several();
    let mut runs = Vec::new();
    for device in case.devices {
        let layer = Rc::new(Recurrent::new(&config, device)?);
        for way in ways(case.ways, device, &layer, b, t)? {
            let mut run = Run::new(device, layer.clone(), way, case.shape);
            match run.call(x) {
                Err(e) if several => {
                    left_out(&e);
                    continue;
                }
                other => other?,
            }
            run.verify(truth)?;
            // After `grid` has given up on a device, the device refuses it.
            match run.call(x) {
                Err(e) if several => left_out(&e),
                other => {
                    other?;
                    runs.push(run);
                }
            }
        }
        if let Some(gpu) = device.gpu() {
            gpu.set_profiling(true);
            gpu.take_profile()?;
        }
    }
    Ok(runs)
}

/// Times all runs in turn, for several rounds, so that other load on the machine affects all equally.
fn time(
    case: &Case<'_>,
    runs: &mut Vec<Run<'_>>,
    x: &[f32],
    left_out: &mut impl FnMut(&TensorError),
) -> Result<(), TensorError> {
    let started = Instant::now();
    let least = Duration::from_secs_f64(case.seconds * runs.len() as f64);
    let mut rounds = 0;
    while rounds < case.runs || (started.elapsed() < least && rounds < 100_000) {
        let mut failed = None;
        runs.retain_mut(|run| match run.time(x) {
            Ok(()) => true,
            Err(e) if case.several() && run.way.strategy == Strategy::Grid => {
                left_out(&e);
                false
            }
            Err(e) => {
                failed = Some(e);
                true
            }
        });
        failed.map_or(Ok(()), Err)?;
        rounds += 1;
    }
    Ok(())
}

impl Case<'_> {
    /// Whether several ways are compared, some of which a device may refuse.
    fn several(&self) -> bool {
        matches!(self.ways, Ways::Strategies | Ways::Candidates)
    }
}

fn ways(ways: Ways, device: &Device, layer: &Recurrent, b: usize, t: usize) -> Result<Vec<Way>, TensorError> {
    let by = |strategy| Way { strategy, tuned: false, candidate: None };
    Ok(match (device, ways) {
        (Device::Cpu, _) => vec![by(Strategy::Auto)],
        (_, Ways::One(strategy)) => vec![by(strategy)],
        (_, Ways::Tuned) => {
            layer.tune(b, t)?;
            vec![Way { tuned: true, ..by(Strategy::Auto) }]
        }
        (_, Ways::Strategies) => [Strategy::Scan, Strategy::Step, Strategy::Grid].map(by).to_vec(),
        (_, Ways::Candidates) => {
            let all = layer.candidates(b, t)?;
            all.into_iter().map(|c| Way { candidate: Some(c), ..by(c.strategy()) }).collect()
        }
    })
}

/// Random weights of the usual scale (PyTorch's initialization).
fn weights(cell: Cell, i: usize, h: usize) -> Result<DirectionWeights<f32>, LayerError> {
    let torch = Initializer::TorchUniform;
    let layer = SimpleRnn::new(h).kernel_initializer(torch).recurrent_initializer(torch).bias_initializer(torch);
    let LayerConfig::Recurrent(mut spec) = layer.into() else { unreachable!("a SimpleRNN is recurrent") };
    spec.cell = cell;
    let minimal = cell.kind.recurrent_weights(h, h) == 0;
    spec.bias = if minimal { Bias::Single } else { Bias::Double };
    let network = Sequential::new()
        .add(LayerConfig::Recurrent(spec.clone()))
        .seed(7)
        .build(&[None, None, Some(i)], &Device::Cpu)?;
    Ok(spec.direction_weights(i, network.weights(), "layers.0", 0)?.remove(0))
}

/// The expected outputs of the first sequence, for the timesteps that f64 computes in reasonable time.
struct Truth {
    y: Vec<f64>,
    tolerance: Tolerance,
}

impl Truth {
    fn new(case: &Case<'_>, w: &DirectionWeights<f32>, x: &[f32]) -> Self {
        let Case { cell, shape: [t, _, i, h], weights, .. } = *case;
        let per_step = cell.kind.gates() * h * (i + h);
        let steps = (100_000_000 / per_step).clamp(1, t);
        let wide = |v: &[f32]| v.iter().map(|&v| v.into()).collect::<Vec<f64>>();
        let out = reference::recurrence(&reference::Recurrence {
            cell,
            direction: Direction::Forward,
            weights: &w.widen(),
            x: &wide(&x[..steps * i]),
            batch: 1,
            timesteps: steps,
            input_size: i,
            hidden_size: h,
            h0: None,
            c0: None,
            lengths: None,
            mask: None,
            masked_output: recurve::MaskedOutput::Zero,
        });
        let tolerance = match weights {
            WeightStorage::F16 => Tolerance::F16,
            WeightStorage::Int8 => Tolerance::new(0.1),
            _ if matches!(cell.kind, CellKind::Rnn | CellKind::IndRnn) => Tolerance::new(1e-4),
            _ => Tolerance::F32,
        };
        Self { y: out.y, tolerance }
    }
}
