//! Forward and backward passes of recurrent layers.

use recurve::{Cell, Device, Direction, TensorError};
use recurve_benches::quantile;
use recurve_kernels::{TrainingForm, Wanted};
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

/// The shape of row 21 of the seeds, reviews of films: T 500, B 128.
const OF_REVIEWS: [usize; 4] = [500, 128, 32, 32];

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

/// The cells and sizes of the rows, of which `wanted` is a part.
fn rows(wanted: &str) -> impl Iterator<Item = (String, Cell, [usize; 4])> {
    [Cell::LSTM, Cell::GRU, Cell::RNN]
        .into_iter()
        .flat_map(|cell| SIZES.into_iter().chain([OF_REVIEWS]).map(move |size| (cell, size)))
        .map(|(cell, size)| (format!("{},{}", cell.kind.name(), size.map(|n| n.to_string()).join(",")), cell, size))
        .filter(move |row| row.0.contains(wanted))
}

/// Rows of CSV for a GPU: both passes until their end, the forward pass, the backward pass over time alone, and of both
/// passes the time on the GPU and that of the host for encoding.
pub(crate) fn run_gpu(device: &Device, wanted: &str, seconds: f64, forms: &[TrainingForm]) -> Result<(), TensorError> {
    let gpu = device.gpu().expect("the caller has chosen a GPU");
    println!("# {device}");
    println!("cell,T,B,I,H,form,both_ms,forward_ms,over_time_ms,gpu_ms,host_ms");
    for (name, cell, [t, b, i, h]) in rows(wanted) {
        for form in forms {
            let mut case = TrainingCase::random(1, cell, &[Direction::Forward], [b, t, i, h]);
            (case.dh, case.dc, case.form) = (None, None, *form);
            let layer = case.layer();
            let tensors = case.tensors(&layer, device)?;
            let (weights, args) = (tensors.weights(), tensors.args());
            let by = tensors.by();
            let of_weights = Wanted { states: false, ..Wanted::default() };
            let over_time = Wanted { x: false, weights: false, ..Wanted::default() };
            let pass = |wanted: Option<Wanted>| {
                let out = layer.forward(&tensors.x, &weights, &args)?;
                if let Some(wanted) = wanted {
                    layer.backward(&tensors.x, &weights, &args, &out.reserve, &by, wanted)?;
                }
                device.synchronize()
            };
            if let Err(e) = pass(None) {
                eprintln!("{name},{}: {e}", form.name());
                continue;
            }
            let timed = |wanted| measure(seconds, || pass(wanted).expect("it has run before")).0;
            let (both, ahead) = (timed(Some(of_weights)), timed(None));
            let back = timed(Some(over_time)) - ahead;
            let profiled = gpu.set_profiling(true);
            for _ in 0..3 {
                pass(Some(of_weights))?;
            }
            let profile = gpu.take_profile()?;
            gpu.set_profiling(false);
            let text = |ms: f64| if profiled { format!("{:.3}", ms / 3.0) } else { String::new() };
            let (on_gpu, host) = (text(profile.gpu_ms), text(profile.encode_ms()));
            println!("{name},{},{both:.3},{ahead:.3},{back:.3},{on_gpu},{host}", form.name());
        }
    }
    Ok(())
}

/// Rows of CSV for LSTM, GRU and SimpleRNN at each size, with gradients by weights, input and initial states. `wanted`
/// is a part of the rows to measure, `seconds` for how long each pass is repeated.
pub(crate) fn run(wanted: &str, seconds: f64) {
    println!("cell,T,B,I,H,forward_ms,backward_ms,forward_cpu_ms,backward_cpu_ms");
    for (name, cell, [t, b, i, h]) in rows(wanted) {
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
