//! `recurve bench`

use crate::arguments::{check_output, parse_device, parse_size, write_output};
use crate::terminal::{complain, print_json, progress, say};
use crate::{FAILED, Outcome};
use clap::ValueEnum;
use plotters::prelude::*;
use recurve::testing::{Tolerance, compare};
use recurve::{
    Candidate, Cell, CellKind, Device, DeviceSelector, Direction, DirectionWeights, ForwardArgs, Initializer,
    LayerConfig, Recurrent, RecurrentConfig, Sequential, SimpleRnn, Strategy, Tensor, TensorError, Tuning,
    WeightStorage,
};
use recurve_reference as reference;
use serde_json::json;
use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Cells.
    #[arg(long, value_delimiter = ',', default_value = "lstm")]
    cell: Vec<CellName>,
    /// Timesteps T.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "16,64,256,1024",
        value_parser = parse_size,
        allow_negative_numbers = true
    )]
    seq: Vec<usize>,
    /// Sequences B.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1",
        value_parser = parse_size,
        allow_negative_numbers = true
    )]
    batch: Vec<usize>,
    /// Input features I.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "128",
        value_parser = parse_size,
        allow_negative_numbers = true
    )]
    input: Vec<usize>,
    /// Hidden units H.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "128",
        value_parser = parse_size,
        allow_negative_numbers = true
    )]
    hidden: Vec<usize>,
    /// One shape T,B,I,H in place of the combinations of the four lists; may be repeated.
    #[arg(long = "shape", value_name = "T,B,I,H", value_parser = parse_shape, allow_negative_numbers = true)]
    shapes: Vec<[usize; 4]>,
    /// How weight matrices are stored; sums are f32 either way.
    #[arg(long, default_value = "f32")]
    weights: StorageName,
    /// Devices, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "auto", value_parser = parse_device)]
    device: Vec<DeviceSelector>,
    /// How a GPU runs the recurrence.
    #[arg(long, default_value = "auto")]
    strategy: StrategyName,
    /// Timed runs of each row, at least.
    #[arg(long, default_value = "15", value_parser = parse_size, allow_negative_numbers = true)]
    runs: usize,
    /// Seconds spent on each row, at least; the rows of a shape and cell are run in turn.
    #[arg(long, default_value = "0.5", value_parser = parse_seconds, allow_negative_numbers = true)]
    seconds: f64,
    /// Write the rows as CSV.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write a plot of time against sequence length as SVG.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum CellName {
    Lstm,
    Gru,
    Rnn,
    #[value(name = "indrnn")]
    IndRnn,
    #[value(name = "mingru")]
    MinGru,
    #[value(name = "minlstm")]
    MinLstm,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum StorageName {
    F32,
    F16,
    Int8,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum StrategyName {
    /// By the default rule.
    Auto,
    Scan,
    Step,
    Grid,
    /// The fastest by measurement, which is kept for the next time.
    Tuned,
    /// `scan`, `step` and `grid` side by side.
    All,
    /// Every layout of every strategy side by side.
    Candidates,
}

fn parse_shape(s: &str) -> Result<[usize; 4], String> {
    let n: Vec<usize> = s.split(',').map(parse_size).collect::<Result<_, _>>()?;
    n.try_into().map_err(|_| "four numbers T,B,I,H are needed".into())
}

/// A day at most.
fn parse_seconds(s: &str) -> Result<f64, String> {
    match s.trim().parse() {
        Ok(v) if (0.0..=86400.0).contains(&v) => Ok(v),
        _ => Err("a number of seconds from 0 to 86400 is needed".into()),
    }
}

/// Combinations of shapes and cells, at most.
const MAX_ROWS: usize = 100_000;

/// Elements of the input, the outputs and the weights of a shape, at most: 2 GiB.
const MAX_ELEMENTS: u128 = 1 << 29;

/// Fails if a shape would not fit into memory.
fn check_shape(shape: [usize; 4]) -> Result<(), String> {
    let [t, b, i, h] = shape.map(|n| n as u128);
    // Four gates, of which no cell has more.
    let elements = t * b * (i + h) + 4 * h * (i + h);
    if elements <= MAX_ELEMENTS {
        return Ok(());
    }
    Err(format!(
        "T={t} B={b} I={i} H={h} needs {elements} numbers for the input, the outputs and the weights, but at most \
         {MAX_ELEMENTS} are used"
    ))
}

/// The columns of the CSV, in order.
const COLUMNS: &str =
    "device,backend,driver,cell,T,B,I,H,dtype,strategy,ms_median,ms_p10,ms_p90,gpu_ms,encode_ms,gflops,roofline,layout";

struct Row {
    device: String,
    backend: &'static str,
    driver: String,
    cell: &'static str,
    shape: [usize; 4],
    dtype: &'static str,
    strategy: &'static str,
    median: f64,
    p10: f64,
    p90: f64,
    gpu_ms: Option<f64>,
    encode_ms: Option<f64>,
    gflops: f64,
    /// Share of what the device could do: its least possible time by its measured peaks over the median.
    roofline: f64,
    layout: String,
}

/// How one row is run.
#[derive(Clone, Copy)]
struct Way {
    strategy: Strategy,
    tuning: Tuning,
    candidate: Option<Candidate>,
}

pub(crate) fn run(a: &Arguments) -> Outcome {
    let lists = [&a.seq, &a.batch, &a.input, &a.hidden].map(Vec::len);
    let count =
        if a.shapes.is_empty() { lists.iter().fold(1, |n: usize, &l| n.saturating_mul(l)) } else { a.shapes.len() };
    let rows = count.saturating_mul(a.cell.len());
    if rows > MAX_ROWS {
        return Err(format!("that is {rows} combinations, but at most {MAX_ROWS} are run").into());
    }
    let shapes = if a.shapes.is_empty() { combinations(a) } else { a.shapes.clone() };
    shapes.iter().copied().try_for_each(check_shape)?;
    if a.csv.is_some() && a.csv == a.svg {
        return Err("`--csv` and `--svg` name the same file".into());
    }
    // Hours of measuring are not to end in a name that was wrong from the beginning.
    [&a.csv, &a.svg].into_iter().flatten().try_for_each(|path| check_output(path))?;
    let devices = a.device.iter().map(Device::open).collect::<Result<Vec<_>, _>>()?;
    let mut cases = Vec::new();
    for &shape in &shapes {
        cases.extend(a.cell.iter().map(|&cell| (shape, cell)));
    }
    let mut peaks = Peaks::default();
    let bar = progress(cases.len());
    let mut rows = Vec::new();
    for (shape, cell) in cases {
        bar.set_message(format!("{shape:?}"));
        let made = match measure(a, shape, cell, &devices, &mut peaks) {
            Ok(made) => made,
            Err(Failure::Wrong(message)) => {
                bar.finish_and_clear();
                complain(format_args!("error: the result is wrong, so it was not timed: {message}"));
                return Ok(ExitCode::from(FAILED));
            }
            Err(Failure::Cannot(e)) => return Err(e),
        };
        for row in made {
            if !a.json {
                bar.suspend(|| print_row(&row, rows.is_empty()))?;
            }
            rows.push(row);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if let Some(path) = &a.csv {
        write_output(path, csv(&rows).as_bytes())?;
    }
    if let Some(path) = &a.svg {
        write_output(path, draw(&rows)?.as_bytes())?;
    }
    if a.json {
        print_json(&json!(rows.iter().map(Row::json).collect::<Vec<_>>()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What devices can do at most, measured when it is first asked for.
#[derive(Default)]
struct Peaks {
    flops: Vec<(Device, f64)>,
    bandwidth: Vec<(Device, usize, f64)>,
}

impl Peaks {
    fn flops(&mut self, device: &Device) -> Result<f64, TensorError> {
        if let Some((_, known)) = self.flops.iter().find(|p| p.0 == *device) {
            return Ok(*known);
        }
        let rate = device.peak_flops()?;
        self.flops.push((device.clone(), rate));
        Ok(rate)
    }

    fn bandwidth(&mut self, device: &Device, bytes: usize) -> Result<f64, TensorError> {
        if let Some((.., known)) = self.bandwidth.iter().find(|p| p.0 == *device && p.1 == bytes) {
            return Ok(*known);
        }
        let rate = device.peak_bandwidth(bytes)?;
        self.bandwidth.push((device.clone(), bytes, rate));
        Ok(rate)
    }

    /// The least seconds for a shape: the input products at the peak of multiply-adds, then for every
    /// timestep the larger of its multiply-adds and of one reading of the recurrent weights from the
    /// memory in which they fit. What is read once (inputs, outputs, input weights) is left out, and so is
    /// everything that is no product.
    fn least(
        &mut self,
        device: &Device,
        kind: CellKind,
        [t, b, i, h]: [usize; 4],
        weight: usize,
    ) -> Result<f64, TensorError> {
        let flops = self.flops(device)?;
        let recurrent = kind.recurrent_weights(h, h);
        let products = |n: usize| 2.0 * (b * t) as f64 * n as f64 / flops;
        let reading = match recurrent * weight {
            0 => 0.0,
            bytes => (t * bytes) as f64 / self.bandwidth(device, bytes)?,
        };
        Ok(products(kind.gates() * h * i) + products(recurrent).max(reading))
    }
}

fn combinations(a: &Arguments) -> Vec<[usize; 4]> {
    let mut all = Vec::new();
    for &b in &a.batch {
        for &i in &a.input {
            for &h in &a.hidden {
                all.extend(a.seq.iter().map(|&t| [t, b, i, h]));
            }
        }
    }
    all
}

enum Failure {
    /// The result disagrees with the reference.
    Wrong(String),
    /// The case could not be run.
    Cannot(Box<dyn Error>),
}

impl<E: Into<Box<dyn Error>>> From<E> for Failure {
    fn from(e: E) -> Self {
        Self::Cannot(e.into())
    }
}

/// Weights of PyTorch's usual scale.
fn weights(cell: Cell, i: usize, h: usize) -> Result<DirectionWeights<f32>, Box<dyn Error>> {
    let torch = Initializer::TorchUniform;
    let layer = SimpleRnn::new(h).kernel_initializer(torch).recurrent_initializer(torch).bias_initializer(torch);
    let LayerConfig::Recurrent(mut spec) = layer.into() else { unreachable!("a SimpleRNN is recurrent") };
    spec.cell = cell.into();
    let minimal = cell.kind.recurrent_weights(1, 1) == 0;
    spec.bias = if minimal { recurve::Bias::Single } else { recurve::Bias::Double };
    let network = Sequential::new()
        .add(LayerConfig::Recurrent(spec.clone()))
        .seed(7)
        .build(&[None, None, Some(i)], &Device::Cpu)?;
    Ok(spec.direction_weights(i, network.weights(), "layers.0", 0)?.remove(0))
}

/// A layer on a device with one way of running it, and memory for what it returns.
struct Run<'a> {
    device: &'a Device,
    layer: std::rc::Rc<Recurrent>,
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

impl Run<'_> {
    /// What a user does: the input goes up, all outputs and states come down.
    fn call(&mut self, x: &[f32]) -> Result<(), TensorError> {
        let [t, b, i, _] = self.shape;
        let x = Tensor::from_f32(x, &[b, t, i], self.device)?;
        let Way { strategy, tuning, candidate } = self.way;
        let out = self.layer.forward(&x, &ForwardArgs { strategy, tuning, candidate, ..ForwardArgs::default() })?;
        self.by = out.strategy;
        let all = out.y.as_ref().expect("all outputs were asked for");
        match &out.c {
            Some(c) => Tensor::read_many([(all, &mut self.y), (&out.h, &mut self.h), (c, &mut self.c)]),
            None => Tensor::read_many([(all, &mut self.y), (&out.h, &mut self.h)]),
        }
    }

    /// A call on the clock; the GPU's own times beside it.
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
}

/// Quantiles of a list that is not empty.
fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * q).round() as usize]
}

/// All devices and ways for one shape and cell: each verified, then timed in turn.
fn measure(
    a: &Arguments,
    shape: [usize; 4],
    cell: CellName,
    devices: &[Device],
    peaks: &mut Peaks,
) -> Result<Vec<Row>, Failure> {
    let [t, b, i, h] = shape;
    let cell = match cell {
        CellName::Lstm => Cell::LSTM,
        CellName::Gru => Cell::GRU,
        CellName::Rnn => Cell::RNN,
        CellName::IndRnn => Cell::INDRNN,
        CellName::MinGru => Cell::MINGRU,
        CellName::MinLstm => Cell::MINLSTM,
    };
    let w = weights(cell, i, h)?;
    let x: Vec<f32> = (0..b * t * i).map(|n| ((n * 7919 + 13) % 2003) as f32 / 1001.5 - 1.0).collect();
    let directions = [(Direction::Forward, &w)];
    let stored = match a.weights {
        StorageName::F32 => WeightStorage::F32,
        StorageName::F16 => WeightStorage::F16,
        StorageName::Int8 => WeightStorage::Int8,
    };
    let config = RecurrentConfig { weights: stored, ..RecurrentConfig::new(cell, i, h, &directions) };
    let tolerance = match stored {
        WeightStorage::F16 => Tolerance::F16,
        WeightStorage::Int8 => Tolerance::new(0.1),
        _ if matches!(cell.kind, CellKind::Rnn | CellKind::IndRnn) => Tolerance::new(1e-4),
        _ => Tolerance::F32,
    };
    let want = expected(cell, &w, &x, shape);

    let mut runs = Vec::new();
    let several = matches!(a.strategy, StrategyName::All | StrategyName::Candidates);
    for device in devices {
        let layer = std::rc::Rc::new(Recurrent::new(&config, device)?);
        let by = |strategy| Way { strategy, tuning: Tuning::Rule, candidate: None };
        let ways = match (device, a.strategy) {
            (Device::Cpu, _) | (_, StrategyName::Auto) => vec![by(Strategy::Auto)],
            (_, StrategyName::Scan) => vec![by(Strategy::Scan)],
            (_, StrategyName::Step) => vec![by(Strategy::Step)],
            (_, StrategyName::Grid) => vec![by(Strategy::Grid)],
            (_, StrategyName::Tuned) => vec![Way { tuning: Tuning::Measure, ..by(Strategy::Auto) }],
            (_, StrategyName::All) => [Strategy::Scan, Strategy::Step, Strategy::Grid].map(by).to_vec(),
            (_, StrategyName::Candidates) => {
                let all = layer.candidates(b, t)?;
                all.into_iter().map(|c| Way { candidate: Some(c), ..by(c.strategy()) }).collect()
            }
        };
        for way in ways {
            let mut run = Run {
                device,
                layer: layer.clone(),
                way,
                shape,
                y: vec![f32::NAN; b * t * h],
                h: vec![f32::NAN; b * h],
                c: vec![f32::NAN; b * h],
                by: Strategy::Auto,
                times: Vec::new(),
                gpu_ms: Vec::new(),
                encode_ms: Vec::new(),
            };
            match run.call(&x) {
                Ok(()) => {}
                Err(e) if several => {
                    complain(format_args!("left out: {e}"));
                    continue;
                }
                Err(e) => return Err(e.into()),
            }
            compare(&run.y[..want.len()], &want, tolerance).map_err(|e| Failure::Wrong(format!("{device}: {e}")))?;
            // A device on which `grid` gave up refuses it from then on.
            match run.call(&x) {
                Err(e) if several => eprintln!("left out: {e}"),
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
    let started = Instant::now();
    let least = Duration::from_secs_f64(a.seconds * runs.len() as f64);
    let mut rounds = 0;
    while rounds < a.runs || (started.elapsed() < least && rounds < 100_000) {
        let mut failed = None;
        runs.retain_mut(|run| match run.time(&x) {
            Ok(()) => true,
            Err(e) if several && run.way.strategy == Strategy::Grid => {
                eprintln!("left out: {e}");
                false
            }
            Err(e) => {
                failed = Some(e);
                true
            }
        });
        if let Some(e) = failed {
            return Err(e.into());
        }
        rounds += 1;
    }
    let mut rows = Vec::new();
    for run in &runs {
        let median = quantile(&run.times, 0.5);
        // Waiting longer must not change what was right.
        compare(&run.y[..want.len()], &want, tolerance).map_err(|e| Failure::Wrong(format!("{}: {e}", run.device)))?;
        let middle = |v: &[f64]| (!v.is_empty()).then(|| quantile(v, 0.5)).filter(|&ms| ms > 0.0);
        let weight = match stored {
            WeightStorage::F32 => 4,
            WeightStorage::F16 => 2,
            WeightStorage::Int8 => 1,
        };
        let products = cell.kind.gates() * h * i + cell.kind.recurrent_weights(h, h);
        rows.push(Row {
            device: run.device.name(),
            backend: run.device.backend(),
            driver: run.device.gpu().map_or_else(String::new, |g| g.summary().driver.clone()),
            cell: cell.kind.name(),
            shape,
            dtype: stored.name(),
            strategy: if *run.device == Device::Cpu { "cpu" } else { run.by.name() },
            median,
            p10: quantile(&run.times, 0.1),
            p90: quantile(&run.times, 0.9),
            gpu_ms: middle(&run.gpu_ms),
            encode_ms: middle(&run.encode_ms),
            gflops: 2.0 * (b * t) as f64 * products as f64 / median * 1e-6,
            roofline: peaks.least(run.device, cell.kind, shape, weight)? / (median * 1e-3),
            layout: match run.way {
                Way { candidate: Some(c), .. } => c.to_string(),
                Way { tuning: Tuning::Measure, .. } => "tuned".into(),
                _ if run.by != run.way.strategy && run.way.strategy == Strategy::Grid => "grid gave up".into(),
                _ => String::new(),
            },
        });
    }
    for device in devices {
        if let Some(gpu) = device.gpu() {
            gpu.set_profiling(false);
        }
    }
    Ok(rows)
}

/// The outputs of the first sequence by the reference, of as many timesteps as are cheap.
fn expected(cell: Cell, w: &DirectionWeights<f32>, x: &[f32], [t, _, i, h]: [usize; 4]) -> Vec<f64> {
    let per_step = cell.kind.gates() * h * (i + h);
    let steps = (100_000_000 / per_step).clamp(1, t);
    let wide = |v: &[f32]| v.iter().map(|&v| v.into()).collect::<Vec<f64>>();
    let weights = w.widen();
    let out = reference::recurrence(&reference::Recurrence {
        cell,
        direction: Direction::Forward,
        weights: &weights,
        x: &wide(&x[..steps * i]),
        batch: 1,
        timesteps: steps,
        input_size: i,
        hidden_size: h,
        h0: None,
        c0: None,
        lengths: None,
        mask: None,
        masked_output: reference::MaskedOutput::Zero,
    });
    out.y
}

fn number(v: Option<f64>) -> String {
    v.map_or_else(String::new, |v| format!("{v:.4}"))
}

fn csv(rows: &[Row]) -> String {
    let quoted =
        |s: &str| if s.contains([',', '"']) { format!("\"{}\"", s.replace('"', "\"\"")) } else { s.to_owned() };
    let mut out = format!("{COLUMNS}\n");
    for r in rows {
        let [t, b, i, h] = r.shape;
        let _ = writeln!(
            out,
            "{},{},{},{},{t},{b},{i},{h},{},{},{:.4},{:.4},{:.4},{},{},{:.3},{:.3},{}",
            quoted(&r.device),
            r.backend,
            quoted(&r.driver),
            r.cell,
            r.dtype,
            r.strategy,
            r.median,
            r.p10,
            r.p90,
            number(r.gpu_ms),
            number(r.encode_ms),
            r.gflops,
            r.roofline,
            r.layout
        );
    }
    out
}

impl Row {
    fn json(&self) -> serde_json::Value {
        let [t, b, i, h] = self.shape;
        json!({
            "device": self.device, "backend": self.backend, "driver": self.driver, "cell": self.cell,
            "T": t, "B": b, "I": i, "H": h, "dtype": self.dtype, "strategy": self.strategy,
            "ms_median": self.median, "ms_p10": self.p10, "ms_p90": self.p90, "gpu_ms": self.gpu_ms,
            "encode_ms": self.encode_ms, "gflops": self.gflops,
            "roofline": self.roofline, "layout": self.layout,
        })
    }
}

fn print_row(r: &Row, first: bool) -> Result<(), Box<dyn Error>> {
    if first {
        say(format_args!(
            "{:7} {:>6} {:>4} {:>5} {:>5}  {:8} {:>10} {:>10} {:>10} {:>9} {:>8}  device",
            "cell", "T", "B", "I", "H", "strategy", "ms median", "p10", "p90", "GFLOP/s", "roofline"
        ))?;
    }
    let [t, b, i, h] = r.shape;
    say(format_args!(
        "{:7} {t:6} {b:4} {i:5} {h:5}  {:8} {:10.3} {:10.3} {:10.3} {:9.2} {:7.0}%  {} [{}] {}",
        r.cell,
        r.strategy,
        r.median,
        r.p10,
        r.p90,
        r.gflops,
        100.0 * r.roofline,
        r.device,
        r.backend,
        r.layout
    ))
}

/// Time against T, both logarithmic, a line for every other combination.
fn draw(rows: &[Row]) -> Result<String, Box<dyn Error>> {
    let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for r in rows {
        let [t, b, i, h] = r.shape;
        let name = format!("{} B={b} I={i} H={h} {} {} {}", r.cell, r.strategy, r.backend, r.layout);
        let point = (t as f64, r.median);
        match lines.iter_mut().find(|l| l.0 == name) {
            Some(l) => l.1.push(point),
            None => lines.push((name, vec![point])),
        }
    }
    let points = || lines.iter().flat_map(|l| &l.1);
    let range = |f: fn(&(f64, f64)) -> f64| {
        let low = points().map(f).fold(f64::INFINITY, f64::min);
        let high = points().map(f).fold(0.0, f64::max);
        (low / 1.5)..(high * 1.5)
    };
    let (x, mut y) = (range(|p| p.0), range(|p| p.1));
    // Room for the legend above the lines.
    y.end *= 1.4f64.powi(lines.len() as i32);
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, (900, 560)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("Forward pass: time against sequence length", ("sans-serif", 22))
        .margin(16)
        .x_label_area_size(46)
        .y_label_area_size(70)
        .build_cartesian_2d(x.log_scale(), y.log_scale())?;
    chart
        .configure_mesh()
        .x_desc("timesteps T")
        .y_desc("ms, median")
        .x_label_formatter(&|t| t.to_string())
        .y_label_formatter(&|ms| ms.to_string())
        .label_style(("sans-serif", 14))
        .light_line_style(WHITE)
        .draw()?;
    for (n, (name, mut points)) in lines.into_iter().enumerate() {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let colour = Palette99::pick(n).to_rgba();
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart.draw_series(points.into_iter().map(|p| Circle::new(p, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 13))
        .draw()?;
    area.present()?;
    drop((chart, area));
    Ok(svg)
}
