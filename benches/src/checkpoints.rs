//! Memory and time of a step of training with all timesteps kept, and with the states of a few.

use crate::counting;
use recurve::train::{Batch, Loss, Sgd, StepOptions, Training};
use recurve::{Cell, Dense, Device, LayerConfig, RecurrentSpec, Sequential, Tensor};
use recurve_benches::quantile;
use std::error::Error;
use std::time::Instant;

const CELLS: [Cell; 3] = [Cell::LSTM, Cell::GRU, Cell::RNN];
const TIMESTEPS: [usize; 4] = [256, 1024, 4096, 16_384];
/// B, I, H.
const SIZES: [usize; 3] = [4, 32, 64];

/// The bytes of a first step in use at once, of the host and of a GPU's pool, and the median milliseconds of a later one.
fn measure(cell: Cell, timesteps: usize, checkpoints: bool, device: &Device) -> Result<(u64, f64), Box<dyn Error>> {
    let [b, i, h] = SIZES;
    let layers = Sequential::new().add(LayerConfig::Recurrent(RecurrentSpec::new(cell, h))).add(Dense::new(1));
    let network = layers.build(&[None, None, Some(i)], device)?;
    let options = StepOptions::new(Loss::mean_squared_error(), Sgd::keras()).checkpoints(checkpoints);
    let mut training = Training::new(&network, options)?;
    let x = Tensor::rand_uniform(&[b, timesteps, i], -1.0..1.0, 1, device)?;
    let y = Tensor::rand_uniform(&[b, 1], -1.0..1.0, 2, device)?;
    device.synchronize()?;
    device.trim();
    let pool = || device.gpu().map_or(0, |g| g.bytes_held());
    let (before, held) = (counting::start(), pool());
    let mut times = Vec::new();
    let mut most = 0;
    for n in 0..4 {
        let start = Instant::now();
        training.step(&Batch::new(&[&x], &[&y]))?.loss.to_vec()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        if n == 0 {
            most = counting::most() - before;
        }
    }
    let bytes = if device.gpu().is_some() { pool() - held } else { most };
    Ok((bytes, quantile(&times[1..], 0.5)))
}

/// Rows of CSV for each cell and number of timesteps.
pub(crate) fn run(device: &str) -> Result<(), Box<dyn Error>> {
    let device = Device::open(&device.parse()?)?;
    let [b, i, h] = SIZES;
    println!("# {device}");
    println!("cell,T,B,I,H,all_kept_mb,checkpoints_mb,all_kept_ms,checkpoints_ms");
    for cell in CELLS {
        for t in TIMESTEPS {
            let [(all, all_ms), (few, few_ms)] = [measure(cell, t, false, &device)?, measure(cell, t, true, &device)?];
            let mb = |bytes: u64| bytes as f64 / 1e6;
            println!("{},{t},{b},{i},{h},{:.1},{:.1},{all_ms:.1},{few_ms:.1}", cell.kind.name(), mb(all), mb(few));
        }
    }
    Ok(())
}
