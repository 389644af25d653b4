//! Forward and backward passes of recurrent layers.

use recurve::{Cell, Device, Direction};
use recurve_benches::quantile;
use recurve_kernels::Wanted;
use recurve_tests::training::TrainingCase;
use std::time::Instant;

/// T, B, I, H.
const SIZES: [[usize; 4]; 9] = [
    [16, 1, 128, 128],
    [64, 1, 128, 128],
    [256, 1, 128, 128],
    [1024, 1, 128, 128],
    [128, 1, 256, 256],
    [128, 32, 256, 256],
    [100, 16, 512, 512],
    [25, 1, 1024, 1024],
    [64, 64, 64, 64],
];

/// The processor time of this thread in milliseconds, where the system tells it: not disturbed by other programs, and
/// all of it with one thread.
fn processor_time() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<f64>().ok()? / 1e6)
}

/// The median of the calls in milliseconds, and their mean processor time.
fn measure(seconds: f64, mut call: impl FnMut()) -> (f64, Option<f64>) {
    call();
    let (start, before) = (Instant::now(), processor_time());
    let mut times = Vec::new();
    while times.len() < 5 || start.elapsed().as_secs_f64() < seconds {
        let start = Instant::now();
        call();
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let used = processor_time().zip(before).map(|(now, before)| (now - before) / times.len() as f64);
    (quantile(&times, 0.5), used)
}

/// Rows of CSV for LSTM, GRU and SimpleRNN at each size, with gradients by weights, input and initial states. `wanted`
/// is a part of the rows to measure, `seconds` for how long each pass is repeated.
pub(crate) fn run(wanted: &str, seconds: f64) {
    println!("cell,T,B,I,H,forward_ms,backward_ms,forward_cpu_ms,backward_cpu_ms");
    for cell in [Cell::LSTM, Cell::GRU, Cell::RNN] {
        for [t, b, i, h] in SIZES {
            let name = format!("{},{t},{b},{i},{h}", cell.kind.name());
            if !name.contains(wanted) {
                continue;
            }
            let mut case = TrainingCase::random(1, cell, &[Direction::Forward], [b, t, i, h]);
            (case.dh, case.dc) = (None, None);
            let layer = case.layer();
            let tensors = case.tensors(&layer, &Device::Cpu).expect("memory for a bench");
            let (weights, args) = (tensors.weights(), tensors.args());
            let forward = || layer.forward(&tensors.x, &weights, &args).expect("a valid call");
            let reserve = forward().reserve;
            let (ahead, ahead_cpu) = measure(seconds, || drop(forward()));
            let (back, back_cpu) = measure(seconds, || {
                let by = tensors.by();
                let g = layer.backward(&tensors.x, &weights, &args, &reserve, &by, Wanted::default());
                drop(g.expect("a valid call"));
            });
            let text = |v: Option<f64>| v.map_or(String::new(), |v| format!("{v:.3}"));
            println!("{name},{ahead:.3},{back:.3},{},{}", text(ahead_cpu), text(back_cpu));
        }
    }
}
