//! Long-term dependencies, trained: the adding problem (Hochreiter & Schmidhuber 1997).
//!
//! Each timestep has a number between 0 and 1 and a mark. Two timesteps are marked, one in each half of the sequence, and
//! the sum of their numbers is asked for at the end. To answer 1 in every case has the mean squared error 1/6, which is
//! what a network without memory reaches.
//!
//! Every cell is trained for the same number of steps at several lengths. The biases of the gates begin at values for
//! memories of up to T steps (Tallec & Ollivier 2018): b_f = ln(u), b_i = -ln(u) with u uniform in [1, T - 1]; for the GRU
//! b_z = ln(u). The recurrent weights of the SimpleRNN begin orthogonal. Gradients are limited to the norm 1.
//!
//! `cargo run --release --example adding -- [--steps N] [--lengths 50,100,200,400] [--device NAME] [--plot FILE.svg]`

use clap::Parser;
use plotters::prelude::*;
use recurve::train::{Adam, Batch, Clip, Form, Loss, StepOptions, Training};
use recurve::{Dense, Device, Gru, LayerConfig, Lstm, Network, Sequential, SimpleRnn, Tensor, Weights};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The units of a layer, and the sequences of a step.
const UNITS: usize = 64;
const BATCH: usize = 64;

/// The mean squared error of the answer 1.
const BLIND: f64 = 1.0 / 6.0;

#[derive(Parser)]
#[command(about = "Trains three cells to add two numbers of a long sequence.")]
struct Arguments {
    /// Steps of training for each cell and length.
    #[arg(long, default_value_t = 1500)]
    steps: usize,
    /// Numbers of timesteps.
    #[arg(long, value_delimiter = ',', default_value = "50,100,200,400")]
    lengths: Vec<usize>,
    /// auto, cpu, gpu, or a backend and a name such as vulkan:nvidia.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Decides the weights and the sequences.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the picture goes.
    #[arg(long, default_value = "adding.svg")]
    plot: PathBuf,
}

/// The sequences `[B, T, 2]` and the sums `[B, 1]` of a step.
fn examples(timesteps: usize, seed: u64, device: &Device) -> Result<[Tensor; 2], Box<dyn Error>> {
    let cpu = Device::Cpu;
    let numbers = Tensor::rand_uniform(&[BATCH, timesteps], 0.0..1.0, seed, &cpu)?.to_vec()?;
    let places = Tensor::rand_uniform(&[BATCH, 2], 0.0..1.0, seed + (1 << 40), &cpu)?.to_vec()?;
    let half = timesteps / 2;
    let (mut x, mut y) = (Vec::with_capacity(2 * numbers.len()), Vec::with_capacity(BATCH));
    for (numbers, places) in numbers.chunks_exact(timesteps).zip(places.chunks_exact(2)) {
        // A number that was rounded to 1 stays in its half.
        let place = |p: f32, size: usize| ((p * size as f32) as usize).min(size - 1);
        let marked = [place(places[0], half), half + place(places[1], timesteps - half)];
        for (t, &v) in numbers.iter().enumerate() {
            x.extend([v, f32::from(u8::from(marked.contains(&t)))]);
        }
        y.push(numbers[marked[0]] + numbers[marked[1]]);
    }
    Ok([Tensor::from_f32(&x, &[BATCH, timesteps, 2], device)?, Tensor::from_f32(&y, &[BATCH, 1], device)?])
}

/// A layer and a unit that gives the sum, with gates whose biases suit so many timesteps.
fn network(cell: &str, timesteps: usize, seed: u64, device: &Device) -> Result<Network, Box<dyn Error>> {
    let layer: LayerConfig = match cell {
        "SimpleRNN" => SimpleRnn::new(UNITS).into(),
        "LSTM" => Lstm::new(UNITS).into(),
        _ => Gru::new(UNITS).into(),
    };
    let network = Sequential::new().add(layer).add(Dense::new(1)).seed(seed);
    let network = network.build(&[None, None, Some(2)], &Device::Cpu)?;
    let mut weights: Weights = (**network.weights()).clone();
    let name = "layers.0.bias_ih_l0";
    let mut bias = weights.require(name)?.to_vec()?;
    let memories = Tensor::rand_uniform(&[UNITS], 1.0..(timesteps - 1) as f32, seed, &Device::Cpu)?.to_vec()?;
    for (j, memory) in memories.iter().map(|u| u.ln()).enumerate() {
        match bias.len() / UNITS {
            // LSTM: the biases of i and f.
            4 => (bias[j], bias[UNITS + j]) = (-memory, memory),
            // GRU: the bias of z.
            3 => bias[UNITS + j] = memory,
            _ => {}
        }
    }
    weights.insert(name, &[bias.len()], bias)?;
    Ok(Network::new(network.config(), Arc::new(weights), device)?)
}

/// The mean squared error on new sequences after so many steps.
pub(crate) fn error_after(
    cell: &str,
    timesteps: usize,
    steps: usize,
    seed: u64,
    device: &Device,
) -> Result<f64, Box<dyn Error>> {
    if timesteps < 4 {
        return Err(format!("a length must be at least 4, but it is {timesteps}").into());
    }
    let rate = if cell == "SimpleRNN" { 0.001 } else { 0.003 };
    let options = StepOptions::new(Loss::mean_squared_error(), Adam::keras().learning_rate(rate))
        .clip(Clip::GlobalNorm { norm: 1.0, form: Form::Keras })
        .seed(seed);
    let mut training = Training::new(&network(cell, timesteps, seed, device)?, options)?;
    for step in 0..steps as u64 {
        let [x, y] = examples(timesteps, (seed << 20) + step, device)?;
        training.step(&Batch::new(&[&x], &[&y]))?;
    }
    let trained = training.network()?;
    let (mut sum, mut count) = (0.0, 0);
    for n in 0..4 {
        let [x, y] = examples(timesteps, (1 << 50) + n, device)?;
        for (p, y) in trained.forward(&x)?.to_vec()?.iter().zip(y.to_vec()?) {
            sum += f64::from(p - y).powi(2);
            count += 1;
        }
    }
    Ok(sum / f64::from(count))
}

#[allow(dead_code, reason = "the tests include this file and call the functions above")]
fn main() -> Result<(), Box<dyn Error>> {
    let a = Arguments::parse();
    let device = Device::by_name(&a.device)?;
    println!("mean squared error after {} steps; {BLIND:.3} is that of an answer without memory", a.steps);
    println!("{:>10} {:>10} {:>10} {:>10}", "T", "SimpleRNN", "LSTM", "GRU");
    let mut lines = ["SimpleRNN", "LSTM", "GRU"].map(|name| (name, Vec::new()));
    for &timesteps in &a.lengths {
        print!("{timesteps:>10}");
        for (cell, line) in &mut lines {
            let error = error_after(cell, timesteps, a.steps, a.seed, &device)?;
            line.push((timesteps as f64, error));
            print!(" {error:>10.5}");
            std::io::Write::flush(&mut std::io::stdout())?;
        }
        println!();
    }
    draw(&a.plot, &lines)?;
    println!("plotted in {}", a.plot.display());
    Ok(())
}

/// Plots the errors against the number of timesteps.
#[allow(dead_code, reason = "the tests include this file and call the functions above")]
fn draw(path: &Path, lines: &[(&str, Vec<(f64, f64)>)]) -> Result<(), Box<dyn Error>> {
    let last = lines[0].1.iter().map(|p| p.0).fold(0.0, f64::max);
    let area = SVGBackend::new(path, (900, 520)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("Adding two numbers of a long sequence", ("sans-serif", 22))
        .margin(16)
        .x_label_area_size(46)
        .y_label_area_size(80)
        .build_cartesian_2d(0f64..last * 1.05, (1e-5..1.0).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("timesteps")
        .y_desc("mean squared error")
        .y_label_formatter(&|v| format!("{v:.0e}"))
        .label_style(("sans-serif", 14))
        .light_line_style(WHITE)
        .draw()?;
    let blind = [(0.0, BLIND), (last * 1.05, BLIND)];
    chart
        .draw_series(LineSeries::new(blind, BLACK.mix(0.5).stroke_width(1)))?
        .label("no memory")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], BLACK.mix(0.5).stroke_width(1)));
    for (n, (name, line)) in lines.iter().enumerate() {
        let colour = Palette99::pick(n).to_rgba();
        let points: Vec<(f64, f64)> = line.iter().map(|&(t, e)| (t, e.max(1e-5))).collect();
        chart
            .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart.draw_series(points.into_iter().map(|p| Circle::new(p, 4, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 14))
        .draw()?;
    area.present()?;
    Ok(())
}
