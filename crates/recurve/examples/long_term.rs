//! Long-term dependencies: how much does one timestep still influence the state after many more? In a SimpleRNN the
//! influence disappears; an LSTM and a GRU with suitable biases keep it.
//!
//! There is no training. Every cell runs twice over the same sequence, except for a small change in the first timestep.
//! The plot shows the distance between the two runs after each further timestep, relative to the distance after the
//! first. The gates' biases are those of Tallec & Ollivier 2018 for memories of up to T steps: b_f = ln(u), b_i =
//! -ln(u) with u uniform in [1, T - 1]; for the GRU b_z = ln(u). A SimpleRNN has no such biases; its recurrent weights
//! are orthogonal, the best known choice (Saxe et al. 2013).
//!
//! `cargo run --release --example long_term [FILE.svg]`

use plotters::prelude::*;
use recurve::{Device, Gru, Lstm, Network, RecurrentSpec, Sequential, SimpleRnn, Tensor, Weights};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

/// H, I and T.
const UNITS: usize = 64;
const FEATURES: usize = 8;
pub(crate) const STEPS: usize = 300;

/// Pseudo-random numbers in [0, 1) from a linear congruential generator.
struct Numbers(u32);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as f32 / (1 << 24) as f32
    }
}

/// A layer with initial weights, and gate biases for memories of up to T steps.
fn layer(spec: RecurrentSpec, device: &Device) -> Result<Network, Box<dyn Error>> {
    let gates = spec.cell.kind.gates();
    let network = Sequential::new()
        .seed(7)
        .add(recurve::LayerConfig::Recurrent(spec))
        .build(&[None, None, Some(FEATURES)], &Device::Cpu)?;
    let mut weights: Weights = (**network.weights()).clone();
    let mut r = Numbers(1);
    let name = "layers.0.bias_ih_l0";
    let mut bias = weights.require(name)?.to_vec()?;
    for j in 0..UNITS {
        let memory = (1.0 + r.next() * (STEPS - 2) as f32).ln();
        match gates {
            // LSTM: the biases of i and f.
            4 => (bias[j], bias[UNITS + j]) = (-memory, memory),
            // GRU: the bias of z.
            3 => bias[UNITS + j] = memory,
            _ => {}
        }
    }
    weights.insert(name, &[gates * UNITS], bias)?;
    Ok(Network::new(network.config(), Arc::new(weights), device)?)
}

/// The name of a cell, and a value after each timestep.
type Line = (&'static str, Vec<f64>);

/// For each cell, the remaining influence of the first timestep after each further one.
pub(crate) fn influence(device: &Device) -> Result<Vec<Line>, Box<dyn Error>> {
    let mut r = Numbers(2);
    let x: Vec<f32> = (0..STEPS * FEATURES).map(|_| r.next() * 2.0 - 1.0).collect();
    let mut changed = x.clone();
    changed[..FEATURES].iter_mut().for_each(|v| *v += 0.5);
    let both = Tensor::from_f32(&[x, changed].concat(), &[2, STEPS, FEATURES], device)?;
    let cells: [(&str, RecurrentSpec); 3] = [
        ("SimpleRNN", SimpleRnn::new(UNITS).return_sequences(true).into()),
        ("LSTM", Lstm::new(UNITS).return_sequences(true).into()),
        ("GRU", Gru::new(UNITS).return_sequences(true).into()),
    ];
    let mut all = Vec::new();
    for (name, spec) in cells {
        let network = layer(spec, device)?;
        let y = network.forward(&both)?.to_vec()?;
        let (a, b) = y.split_at(STEPS * UNITS);
        let distance = |t: usize| -> f64 {
            let rows = a[t * UNITS..][..UNITS].iter().zip(&b[t * UNITS..][..UNITS]);
            rows.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
        };
        let first = distance(0);
        all.push((name, (0..STEPS).map(|t| distance(t) / first).collect()));
    }
    Ok(all)
}

#[allow(dead_code, reason = "the tests include this file and call the function above")]
fn main() -> Result<(), Box<dyn Error>> {
    let device = Device::best()?;
    let lines = influence(&device)?;
    println!("share of the first timestep's influence that is left after t more");
    println!("{:>10} {:>10} {:>10} {:>10}", "t", lines[0].0, lines[1].0, lines[2].0);
    for t in [1, 10, 30, 100, 299] {
        println!("{t:10} {:10.2e} {:10.2e} {:10.2e}", lines[0].1[t], lines[1].1[t], lines[2].1[t]);
    }
    let path = std::env::args().nth(1).unwrap_or_else(|| "long_term.svg".into());
    draw(Path::new(&path), &lines)?;
    println!("plotted in {path}");
    Ok(())
}

/// Plots the influence against t on a logarithmic axis.
#[allow(dead_code, reason = "the tests include this file and call the function above")]
fn draw(path: &Path, lines: &[Line]) -> Result<(), Box<dyn Error>> {
    // Where the two runs are equal in f32, the distance is zero.
    let floor = 1e-8;
    let area = SVGBackend::new(path, (900, 520)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("What is left of the first timestep", ("sans-serif", 22))
        .margin(16)
        .x_label_area_size(46)
        .y_label_area_size(70)
        .build_cartesian_2d(0f64..STEPS as f64, (floor..10.0).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("timesteps since")
        .y_desc("share of its influence on h")
        .y_label_formatter(&|v| format!("{v:.0e}"))
        .label_style(("sans-serif", 14))
        .light_line_style(WHITE)
        .draw()?;
    for (n, (name, line)) in lines.iter().enumerate() {
        let colour = Palette99::pick(n).to_rgba();
        let points = line.iter().enumerate().map(|(t, &v)| (t as f64, v.max(floor)));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 14))
        .draw()?;
    area.present()?;
    Ok(())
}
