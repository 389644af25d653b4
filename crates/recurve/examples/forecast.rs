//! A time series and what comes next: a GRU reads the last `--window` values and forecasts the next `--horizon`.
//!
//! Without `--csv` the series is made up: days of 24 and weeks of 168 values, a slow rise, and noise that remembers itself.
//! The first four fifths are trained on. The rest is forecast, each stretch from true values alone, and compared with the
//! forecast that every value is the one of `--season` values before.
//!
//! `cargo run --release --example forecast -- [--csv FILE [--column N]] [--epochs N] [--window N] [--horizon N]
//! [--season N] [--device NAME] [--seed N] [--plot FILE.svg] [--save FILE]`

use clap::Parser;
use plotters::prelude::*;
use recurve::train::{Adam, Array, Dataset, FitOptions, Loss, StepOptions, Trainer};
use recurve::{Dense, Device, Gru, Model, Sequential, Tensor};
use std::error::Error;
use std::path::{Path, PathBuf};

#[derive(Parser)]
#[command(about = "Trains on a time series and forecasts what follows.")]
pub(crate) struct Arguments {
    /// Values in a file of lines whose columns stand between commas; lines without a number are left out.
    #[arg(long)]
    csv: Option<PathBuf>,
    /// The number of the column, from 0 on.
    #[arg(long, default_value_t = 0)]
    column: usize,
    #[arg(long, default_value_t = 20)]
    epochs: usize,
    /// How many values are read for a forecast.
    #[arg(long, default_value_t = 96)]
    window: usize,
    /// How many values are forecast.
    #[arg(long, default_value_t = 24)]
    horizon: usize,
    /// The period of the simple forecast that this one is compared with.
    #[arg(long, default_value_t = 24)]
    season: usize,
    /// auto, cpu, gpu, or a backend and a name such as vulkan:nvidia.
    #[arg(long, default_value = "auto")]
    device: String,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where the picture goes.
    #[arg(long, default_value = "forecast.svg")]
    plot: PathBuf,
    /// Saves the trained model.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

/// A made-up series.
pub(crate) fn made_up(count: usize, seed: u64) -> Result<Vec<f32>, Box<dyn Error>> {
    let noise = Tensor::rand_uniform(&[count], -1.0..1.0, seed, &Device::Cpu)?.to_vec()?;
    let mut last = 0.0;
    let wave = |t: usize, period: f32, shift: f32| (t as f32 / period * std::f32::consts::TAU + shift).sin();
    Ok((0..count)
        .map(|t| {
            last = 0.8 * last + noise[t];
            let day = 8.0 * wave(t, 24.0, -2.0) + 3.0 * wave(t, 12.0, 0.7);
            let week = if t % 168 >= 120 { 0.4 } else { 1.0 };
            50.0 + 0.002 * t as f32 + week * day + last
        })
        .collect())
}

fn series(path: &Path, column: usize) -> Result<Vec<f32>, Box<dyn Error>> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let values = text.lines().filter_map(|line| line.split(',').nth(column)?.trim().parse::<f32>().ok());
    Ok(values.filter(|v| v.is_finite()).collect())
}

/// A forecast of the end of a series.
pub(crate) struct Forecast {
    /// The place of the first value that was forecast.
    pub(crate) first: usize,
    pub(crate) values: Vec<f32>,
    /// The mean absolute errors of the forecast and of the simple one.
    pub(crate) errors: [f64; 2],
}

/// Trains on the first four fifths of a series and forecasts the rest.
pub(crate) fn forecast(a: &Arguments, series: &[f32], device: &Device) -> Result<Forecast, Box<dyn Error>> {
    let (window, horizon) = (a.window, a.horizon);
    let split = series.len() * 4 / 5;
    if window == 0 || horizon == 0 || a.season == 0 || a.season > split || split < window + horizon + 32 {
        return Err(
            format!("{} values are too few for windows of {window} and forecasts of {horizon}", series.len()).into()
        );
    }
    if series.len() - split < horizon {
        return Err(format!("the last fifth of {} values is shorter than a forecast", series.len()).into());
    }
    let mean = series[..split].iter().sum::<f32>() / split as f32;
    let variance = series[..split].iter().map(|v| (v - mean).powi(2)).sum::<f32>() / split as f32;
    let deviation = variance.sqrt().max(f32::MIN_POSITIVE);
    let scaled: Vec<f32> = series.iter().map(|v| (v - mean) / deviation).collect();

    let count = split - window - horizon + 1;
    let all = |at: usize, size: usize| (0..count).flat_map(|n| scaled[n + at..][..size].iter().copied()).collect();
    let data = Dataset::new(
        Array::f32(all(0, window), &[count, window, 1])?,
        Array::f32(all(window, horizon), &[count, horizon])?,
    )?;
    let network = Sequential::new()
        .add(Gru::new(48))
        .add(Dense::new(horizon))
        .seed(a.seed)
        .build(&[None, None, Some(1)], device)?;
    let options = StepOptions::new(Loss::huber(1.0), Adam::keras().learning_rate(0.003)).seed(a.seed);
    let mut trainer = Trainer::compile(&network, options)?;
    trainer.fit(&data, FitOptions::new().epochs(a.epochs).batch_size(32))?;

    let trained = trainer.network()?;
    let starts: Vec<usize> = (split..=series.len() - horizon).step_by(horizon).collect();
    let x: Vec<f32> = starts.iter().flat_map(|&at| scaled[at - window..at].iter().copied()).collect();
    let y = trained.forward(&Tensor::from_f32(&x, &[starts.len(), window, 1], device)?)?.to_vec()?;
    let values: Vec<f32> = y.iter().map(|v| v * deviation + mean).collect();
    let truth = &series[split..][..values.len()];
    // The simple forecast only knows what lies before its stretch, as this one does.
    let simple = |n: usize| {
        let at = split + n;
        let back = (n % horizon / a.season + 1) * a.season;
        series[at - back]
    };
    let error = |of: &dyn Fn(usize) -> f32| {
        let sum: f64 = truth.iter().enumerate().map(|(n, t)| f64::from((of(n) - t).abs())).sum();
        sum / truth.len() as f64
    };
    let errors = [error(&|n| values[n]), error(&simple)];
    if let Some(path) = &a.save {
        Model::new("forecast", trained).save(path)?;
    }
    Ok(Forecast { first: split, values, errors })
}

#[allow(dead_code, reason = "the tests include this file and call the functions above")]
fn main() -> Result<(), Box<dyn Error>> {
    let a = Arguments::parse();
    let device = Device::by_name(&a.device)?;
    let series = match &a.csv {
        Some(path) => series(path, a.column)?,
        None => made_up(24 * 7 * 12, a.seed)?,
    };
    let made = forecast(&a, &series, &device)?;
    println!("mean absolute error of {} forecast values: {:.3}", made.values.len(), made.errors[0]);
    println!("of the values {} before: {:.3}", a.season, made.errors[1]);
    draw(&a.plot, &series, &made)?;
    println!("plotted in {}", a.plot.display());
    Ok(())
}

/// Plots the forecast beside the truth, at most the last 240 values.
#[allow(dead_code, reason = "the tests include this file and call the functions above")]
fn draw(path: &Path, series: &[f32], made: &Forecast) -> Result<(), Box<dyn Error>> {
    let end = made.first + made.values.len();
    let start = made.first.max(end.saturating_sub(240));
    let points = |values: &[f32], first: usize| {
        (start..end).map(|t| (t as f64, f64::from(values[t - first]))).collect::<Vec<_>>()
    };
    let lines = [("truth", points(series, 0)), ("forecast", points(&made.values, made.first))];
    let all = lines.iter().flat_map(|(_, line)| line).map(|p| p.1);
    let (low, high) = all.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
    let room = 0.05 * (high - low).max(1e-6);
    let area = SVGBackend::new(path, (1000, 480)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("Forecast and truth", ("sans-serif", 22))
        .margin(16)
        .x_label_area_size(46)
        .y_label_area_size(60)
        .build_cartesian_2d(start as f64..end as f64, low - room..high + room)?;
    chart
        .configure_mesh()
        .x_desc("time")
        .y_desc("value")
        .x_label_formatter(&|v| format!("{v:.0}"))
        .label_style(("sans-serif", 14))
        .light_line_style(WHITE)
        .draw()?;
    for (n, (name, line)) in lines.into_iter().enumerate() {
        let colour = Palette99::pick(1 - n).to_rgba();
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 14))
        .draw()?;
    area.present()?;
    Ok(())
}
