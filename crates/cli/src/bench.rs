//! The command `recurve bench`.

use crate::arguments::{NamedFile, check_output, parse_device, parse_size, parse_state, write_output};
use crate::check::Against;
use crate::terminal::{complain, print_json, progress, say};
use crate::{FAILED, Outcome, bench_model};
use clap::ValueEnum;
use plotters::prelude::*;
use recurve::{Cell, Device, DeviceSelector, StatePair, Strategy, WeightStorage};
use recurve_benches::{Case, Failure, Peaks, Row, Ways, measure};
use serde_json::json;
use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A model to time, Recurve's own or ONNX; without one, recurrent layers are timed.
    model: Option<PathBuf>,
    /// Cells to time.
    #[arg(long, value_delimiter = ',', default_value = "lstm", conflicts_with = "model")]
    cell: Vec<CellName>,
    /// Timesteps (T): 16,64,256,1024 unless given, of a model 32.
    #[arg(long, value_delimiter = ',', value_parser = parse_size, allow_negative_numbers = true)]
    pub(crate) seq: Vec<usize>,
    /// Batch sizes (B): 1 unless given.
    #[arg(long, value_delimiter = ',', value_parser = parse_size, allow_negative_numbers = true)]
    pub(crate) batch: Vec<usize>,
    /// Input features (I): 128 unless given; of a model an input, NAME=FILE, instead of made-up ones.
    #[arg(long, value_name = "I|NAME=FILE", allow_negative_numbers = true)]
    input: Vec<BenchInput>,
    /// An output of an ONNX model that is an input of the next call, instead of those that names show.
    #[arg(long = "state", value_name = "IN=OUT", value_parser = parse_state, requires = "model")]
    pub(crate) states: Vec<StatePair>,
    /// Call an ONNX model in this program too, in turn; Python must have it.
    #[arg(long, requires = "model")]
    pub(crate) against: Option<Against>,
    /// Hidden units (H).
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "128",
        value_parser = parse_size,
        allow_negative_numbers = true,
        conflicts_with = "model"
    )]
    hidden: Vec<usize>,
    /// A shape T,B,I,H, instead of combinations of the four lists; may be repeated.
    #[arg(long = "shape", value_name = "T,B,I,H", value_parser = parse_shape, allow_negative_numbers = true, conflicts_with = "model")]
    shapes: Vec<[usize; 4]>,
    /// How weight matrices are stored; sums are f32 in every case.
    #[arg(long, default_value = "f32", conflicts_with = "model")]
    weights: StorageName,
    /// Devices, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "auto", value_parser = parse_device)]
    pub(crate) device: Vec<DeviceSelector>,
    /// How a GPU runs the recurrence.
    #[arg(long, default_value = "auto", conflicts_with = "model")]
    strategy: StrategyName,
    /// Minimum number of timed runs of each row.
    #[arg(long, default_value = "15", value_parser = parse_size, allow_negative_numbers = true)]
    pub(crate) runs: usize,
    /// Minimum time for each row, in seconds; the rows of a shape and cell are run in turn.
    #[arg(long, default_value = "0.5", value_parser = parse_seconds, allow_negative_numbers = true)]
    pub(crate) seconds: f64,
    /// Write the rows to a CSV file.
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    csv: Option<PathBuf>,
    /// Write a plot of time against sequence length to an SVG file.
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    svg: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The input of layers or of a model.
#[derive(Clone, Debug)]
enum BenchInput {
    /// Numbers of features.
    Features(Vec<usize>),
    /// An input of a model.
    File(NamedFile),
}

impl std::str::FromStr for BenchInput {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        if s.contains('=') {
            return s.parse().map(Self::File);
        }
        s.split(',').map(parse_size).collect::<Result<_, _>>().map(Self::Features)
    }
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
    #[value(name = "slstm")]
    SLstm,
}

impl CellName {
    fn cell(self) -> Cell {
        match self {
            Self::Lstm => Cell::LSTM,
            Self::Gru => Cell::GRU,
            Self::Rnn => Cell::RNN,
            Self::IndRnn => Cell::INDRNN,
            Self::MinGru => Cell::MINGRU,
            Self::MinLstm => Cell::MINLSTM,
            Self::SLstm => Cell::SLSTM,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum StorageName {
    F32,
    F16,
    Int8,
}

impl StorageName {
    fn storage(self) -> WeightStorage {
        match self {
            Self::F32 => WeightStorage::F32,
            Self::F16 => WeightStorage::F16,
            Self::Int8 => WeightStorage::Int8,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum StrategyName {
    /// The default for the shape and the device.
    Auto,
    Scan,
    Step,
    Grid,
    /// The fastest one, which is measured once and then stored.
    Tuned,
    /// `scan`, `step` and `grid`, in turn.
    All,
    /// Every layout of every strategy, in turn.
    Candidates,
}

impl StrategyName {
    fn ways(self) -> Ways {
        match self {
            Self::Auto => Ways::One(Strategy::Auto),
            Self::Scan => Ways::One(Strategy::Scan),
            Self::Step => Ways::One(Strategy::Step),
            Self::Grid => Ways::One(Strategy::Grid),
            Self::Tuned => Ways::Tuned,
            Self::All => Ways::Strategies,
            Self::Candidates => Ways::Candidates,
        }
    }
}

fn parse_shape(s: &str) -> Result<[usize; 4], String> {
    let n: Vec<usize> = s.split(',').map(parse_size).collect::<Result<_, _>>()?;
    n.try_into().map_err(|_| "four numbers T,B,I,H are needed".into())
}

/// Parses a time in seconds, at most a day.
fn parse_seconds(s: &str) -> Result<f64, String> {
    match s.trim().parse() {
        Ok(v) if (0.0..=86400.0).contains(&v) => Ok(v),
        _ => Err("a number of seconds from 0 to 86400 is needed".into()),
    }
}

/// Largest number of combinations of shapes and cells.
const MAX_ROWS: usize = 100_000;

/// Largest total number of elements of input, outputs and weights of a shape: 2 GiB.
const MAX_ELEMENTS: u128 = 1 << 29;

/// Checks that a shape fits into memory.
fn check_shape(shape: [usize; 4]) -> Result<(), String> {
    let [t, b, i, h] = shape.map(|n| n as u128);
    // For a cell with four gates; no cell has more.
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

pub(crate) fn run(a: &Arguments) -> Outcome {
    let (mut features, mut files) = (Vec::new(), Vec::new());
    for input in &a.input {
        match input {
            BenchInput::Features(n) => features.extend(n),
            BenchInput::File(f) => files.push(f.clone()),
        }
    }
    match &a.model {
        Some(_) if !features.is_empty() => return Err("`--input` of a model is NAME=FILE".into()),
        Some(model) => return bench_model::run(a, model, &files),
        None if !files.is_empty() => return Err("`--input NAME=FILE` is for a model, which is not given".into()),
        None => {}
    }
    let lists = Lists {
        seq: or(&a.seq, &[16, 64, 256, 1024]),
        batch: or(&a.batch, &[1]),
        input: or(&features, &[128]),
        hidden: &a.hidden,
    };
    layers(a, &lists)
}

fn or<'a>(given: &'a [usize], otherwise: &'a [usize]) -> &'a [usize] {
    if given.is_empty() { otherwise } else { given }
}

/// The sizes whose combinations are timed.
struct Lists<'a> {
    seq: &'a [usize],
    batch: &'a [usize],
    input: &'a [usize],
    hidden: &'a [usize],
}

fn layers(a: &Arguments, sizes: &Lists<'_>) -> Outcome {
    let lists = [sizes.seq, sizes.batch, sizes.input, sizes.hidden].map(<[usize]>::len);
    let count =
        if a.shapes.is_empty() { lists.iter().fold(1, |n: usize, &l| n.saturating_mul(l)) } else { a.shapes.len() };
    let rows = count.saturating_mul(a.cell.len());
    if rows > MAX_ROWS {
        return Err(format!("that is {rows} combinations, but at most {MAX_ROWS} are run").into());
    }
    let shapes = if a.shapes.is_empty() { combinations(sizes) } else { a.shapes.clone() };
    shapes.iter().copied().try_for_each(check_shape)?;
    if a.csv.is_some() && a.csv == a.svg {
        return Err("`--csv` and `--svg` name the same file".into());
    }
    // Unwritable output files are reported before the measurement, which may take hours.
    [&a.csv, &a.svg].into_iter().flatten().try_for_each(|path| check_output(path))?;
    let devices = a.device.iter().map(Device::open).collect::<Result<Vec<_>, _>>()?;
    let mut cases = Vec::new();
    for &shape in &shapes {
        cases.extend(a.cell.iter().map(|cell| Case {
            cell: cell.cell(),
            shape,
            weights: a.weights.storage(),
            devices: &devices,
            ways: a.strategy.ways(),
            runs: a.runs,
            seconds: a.seconds,
        }));
    }
    let mut peaks = Peaks::default();
    let bar = progress(cases.len());
    let mut rows = Vec::new();
    for case in cases {
        bar.set_message(format!("{:?}", case.shape));
        let left_out = |e: &recurve::TensorError| bar.suspend(|| complain(format_args!("left out: {e}")));
        let made = match measure(&case, &mut peaks, left_out) {
            Ok(made) => made,
            Err(wrong @ Failure::Wrong { .. }) => {
                bar.finish_and_clear();
                complain(format_args!("error: the result is wrong, so it was not timed: {wrong}"));
                return Ok(ExitCode::from(FAILED));
            }
            Err(e) => return Err(e.into()),
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
        print_json(&json!(rows.iter().map(row_json).collect::<Vec<_>>()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn combinations(sizes: &Lists<'_>) -> Vec<[usize; 4]> {
    let mut all = Vec::new();
    for &b in sizes.batch {
        for &i in sizes.input {
            for &h in sizes.hidden {
                all.extend(sizes.seq.iter().map(|&t| [t, b, i, h]));
            }
        }
    }
    all
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

fn row_json(r: &Row) -> serde_json::Value {
    let [t, b, i, h] = r.shape;
    json!({
        "device": r.device, "backend": r.backend, "driver": r.driver, "cell": r.cell,
        "T": t, "B": b, "I": i, "H": h, "dtype": r.dtype, "strategy": r.strategy,
        "ms_median": r.median, "ms_p10": r.p10, "ms_p90": r.p90, "gpu_ms": r.gpu_ms,
        "encode_ms": r.encode_ms, "gflops": r.gflops,
        "roofline": r.roofline, "layout": r.layout,
    })
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

/// A plot of time against T on logarithmic axes, with one line for every other combination.
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
    // Leaves room for the legend above the lines.
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
