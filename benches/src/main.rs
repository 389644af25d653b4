//! Measurements that `recurve bench` does not make: accuracy against f64, and allocations of repeated calls.
//!
//! ```text
//! cargo run --release -p recurve-benches -- accuracy    worst error per cell, device and T, as CSV
//! cargo run --release -p recurve-benches -- steady      allocations and buffers of a second forward, as CSV
//! cargo run --release -p recurve-benches -- step        one step of a small LSTM beside a loop written by hand, as CSV
//! cargo run --release -p recurve-benches -- training [CELL,T,B,I,H [SECONDS [DEVICE [FORM…]]]]
//!                                                       forward and backward passes, as CSV: on the CPU, or on a GPU
//!                                                       in these forms (scan, step, products, auto)
//! cargo run --release -p recurve-benches -- checkpoints [DEVICE]
//!                                                       memory and time of a step of training for long sequences, with
//!                                                       all timesteps kept and with checkpoints, as CSV
//! cargo run --release -p recurve-benches -- cross_entropy [DEVICE]
//!                                                       loss and gradient of the sparse cross-entropy as one operator
//!                                                       and as several, as CSV
//! cargo run --release -p recurve-benches -- encode      the host's time for each dispatch of `step`, as CSV
//! cargo run --release -p recurve-benches -- model FILE.onnx [DEVICE [SIZES]]
//!                                                       calls of an ONNX model with its states fed back, as CSV;
//!                                                       SIZES of the open dimensions of each input, such as 1,576
//! cargo run --release -p recurve-benches -- nodes FILE.onnx [DEVICE [SIZES]]
//!                                                       time and allocations of each node of such a call, as CSV
//! cargo run --release -p recurve-benches -- functions [STRIDE]
//!                                                       worst errors of activations by every float, as CSV
//! ```

mod checkpoints;
mod cross_entropy;
mod functions;
mod training;

use recurve::testing::Tolerance;
use recurve::{Cell, Device, Direction, ForwardArgs, HostArray, HostData, OnnxModel, OnnxSession, Strategy, Tensor};
use recurve_benches::quantile;
use recurve_graph::RunOptions;
use recurve_kernels::TrainingForm;
use recurve_tests::{Case, paths};
use std::alloc::{GlobalAlloc, Layout, System};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

#[expect(unsafe_code, reason = "an allocator is unsafe to implement")]
mod counting {
    //! The system's allocator, with a counter.

    use super::{AtomicU64, GlobalAlloc, Layout, Ordering, System};

    pub(crate) static CALLS: AtomicU64 = AtomicU64::new(0);
    pub(crate) static BYTES: AtomicU64 = AtomicU64::new(0);
    /// Bytes in use, and the largest number since [`start`].
    static LIVE: AtomicU64 = AtomicU64::new(0);
    static MOST: AtomicU64 = AtomicU64::new(0);

    /// Begins to look for the largest number of bytes in use, and returns that of now.
    pub(crate) fn start() -> u64 {
        let live = LIVE.load(Ordering::Relaxed);
        MOST.store(live, Ordering::Relaxed);
        live
    }

    /// The largest number of bytes in use since [`start`].
    pub(crate) fn most() -> u64 {
        MOST.load(Ordering::Relaxed)
    }

    pub(crate) struct Counting;

    // SAFETY: every call is forwarded to the system's allocator unchanged.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            CALLS.fetch_add(1, Ordering::Relaxed);
            let size = layout.size() as u64;
            BYTES.fetch_add(size, Ordering::Relaxed);
            MOST.fetch_max(LIVE.fetch_add(size, Ordering::Relaxed) + size, Ordering::Relaxed);
            // SAFETY: the caller fulfils the contract of `System.alloc`.
            unsafe { System.alloc(layout) }
        }
        unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
            LIVE.fetch_sub(layout.size() as u64, Ordering::Relaxed);
            // SAFETY: the caller fulfils the contract of `System.dealloc`.
            unsafe { System.dealloc(ptr, layout) }
        }
    }
}

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

const CELLS: [Cell; 4] = [Cell::LSTM, Cell::GRU, Cell::GRU_RESET_BEFORE, Cell::RNN];

fn training(args: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let row = args.first().map_or("", |row| row);
    let seconds = args.get(1).map_or(Ok(1.0), |s| s.parse())?;
    let device = args.get(2).map_or(Ok(Device::Cpu), |name| Device::by_name(name))?;
    if device == Device::Cpu {
        training::run(row, seconds);
        return Ok(());
    }
    let all = [TrainingForm::Auto, TrainingForm::Scan, TrainingForm::Step, TrainingForm::Products];
    let named = |name: &String| all.into_iter().find(|f| f.name() == name).ok_or(format!("no form `{name}`"));
    let forms = args.iter().skip(3).map(named).collect::<Result<Vec<_>, _>>()?;
    let forms = if forms.is_empty() { vec![TrainingForm::Auto] } else { forms };
    Ok(training::run_gpu(&device, row, seconds, &forms)?)
}

fn name(cell: Cell) -> &'static str {
    if cell == Cell::GRU_RESET_BEFORE { "gru_reset_before" } else { cell.kind.name() }
}

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("accuracy") => accuracy(),
        Some("steady") => steady(),
        Some("step") => step(),
        Some("encode") => encode(),
        Some("training") => {
            if let Err(e) = training(&std::env::args().skip(2).collect::<Vec<_>>()) {
                eprintln!("error: {e}; usage: recurve-benches training [ROW [SECONDS [DEVICE [FORM…]]]]");
                return ExitCode::from(2);
            }
        }
        Some(name @ ("checkpoints" | "cross_entropy")) => {
            let device = std::env::args().nth(2).unwrap_or_else(|| "cpu".into());
            let run = if name == "checkpoints" { checkpoints::run } else { cross_entropy::run };
            if let Err(e) = run(&device) {
                eprintln!("error: {e}");
                return ExitCode::from(2);
            }
        }
        Some(what @ ("model" | "nodes")) => {
            let (Some(path), device) = (std::env::args().nth(2), std::env::args().nth(3)) else {
                eprintln!("usage: recurve-benches {what} FILE.onnx [DEVICE [SIZES]]");
                return ExitCode::from(2);
            };
            let sizes = std::env::args().nth(4).unwrap_or_else(|| "1".into());
            if let Err(e) = model(&path, device.as_deref().unwrap_or("cpu"), &sizes, what == "nodes") {
                eprintln!("error: {e}");
                return ExitCode::from(2);
            }
        }
        Some("functions") => match std::env::args().nth(2).map_or(Ok(1), |s| s.parse()) {
            Ok(stride) if stride > 0 => functions::run(stride),
            _ => {
                eprintln!("STRIDE must be a number of at least 1");
                return ExitCode::from(2);
            }
        },
        _ => {
            eprintln!(
                "usage: recurve-benches accuracy | steady | step | training [ROW [SECONDS [DEVICE [FORM…]]]] | checkpoints [DEVICE] | cross_entropy [DEVICE] | encode | model FILE.onnx | nodes FILE.onnx | functions [STRIDE]"
            );
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// Times calls of an ONNX model, or with `nodes` the nodes of a call. Floats but for the states are one number, ids are
/// each of those below their count, out of order. The open dimensions of each input have these sizes, in order; those that are not named are 1.
fn model(path: &str, device: &str, sizes: &str, nodes: bool) -> Result<(), Box<dyn std::error::Error>> {
    let sizes: Vec<usize> = sizes.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let device = Device::open(&device.parse()?)?;
    let model = Arc::new(OnnxModel::open(path, &device)?);
    let mut session = OnnxSession::new(model.clone(), 1)?;
    let states: Vec<String> = session.states().map(|s| s.input).collect();
    let inputs: Vec<(String, HostArray)> = model
        .inputs()
        .iter()
        .filter(|i| nodes || !states.contains(&i.name))
        .map(|i| {
            let mut open = sizes.iter();
            let size = |d: &recurve_graph::Dim| d.size().unwrap_or_else(|| open.next().copied().unwrap_or(1));
            let shape: Vec<usize> = i.kind.dims.iter().map(size).collect();
            let count = shape.iter().product();
            let data = if i.kind.dtype.is_float() {
                HostData::Float(vec![0.1; count])
            } else {
                // A sample rate, or ids.
                let id = |n: usize| if shape.is_empty() { 16000 } else { (n * 101 % count) as i64 };
                HostData::Int((0..count).map(id).collect())
            };
            (i.name.clone(), HostArray { shape, data })
        })
        .collect();
    if nodes {
        return times(&model, &inputs);
    }
    let mut outputs = Vec::new();
    let mut call = || session.run_into(inputs.iter().map(|(n, a)| (n.as_str(), a)), &mut outputs);
    for _ in 0..20 {
        call()?;
    }
    let before = counting::CALLS.load(Ordering::Relaxed);
    call()?;
    let allocations = counting::CALLS.load(Ordering::Relaxed) - before;
    let mut rounds = Vec::new();
    let started = Instant::now();
    while rounds.len() < 20 || started.elapsed().as_secs_f64() < 2.0 {
        let first = Instant::now();
        call()?;
        rounds.push(first.elapsed().as_secs_f64() * 1e6);
    }
    rounds.sort_by(f64::total_cmp);
    println!("model,device,nodes,calls,median_us,min_us,allocations");
    let (nodes, count) = (model.graph().nodes().len(), rounds.len());
    println!("{path},{device},{nodes},{count},{:.1},{:.1},{allocations}", quantile(&rounds, 0.5), rounds[0]);
    Ok(())
}

/// The median and the minimum of each node's time over many calls, and its allocations in the last one.
fn times(model: &OnnxModel, inputs: &[(String, HostArray)]) -> Result<(), Box<dyn std::error::Error>> {
    let executor = model.executor();
    let data = model.data(inputs.iter().map(|(n, a)| (n.as_str(), a)))?;
    let nodes = executor.graph().nodes();
    let mut rounds = vec![Vec::new(); nodes.len()];
    let mut allocations = vec![0; nodes.len()];
    let started = Instant::now();
    for round in 0.. {
        let mut frame = executor.begin_data(&data, false)?;
        for (n, times) in rounds.iter_mut().enumerate() {
            let before = counting::CALLS.load(Ordering::Relaxed);
            let first = Instant::now();
            executor.advance(&mut frame, n + 1, &RunOptions::default())?;
            let took = first.elapsed().as_secs_f64() * 1e6;
            allocations[n] = counting::CALLS.load(Ordering::Relaxed) - before;
            if round >= 20 {
                times.push(took);
            }
        }
        executor.recycle(frame);
        if round >= 40 && started.elapsed().as_secs_f64() > 2.0 {
            break;
        }
    }
    println!("node,operator,median_us,min_us,allocations");
    for ((node, times), allocations) in nodes.iter().zip(&mut rounds).zip(allocations) {
        times.sort_by(f64::total_cmp);
        let (name, median) = (node.operator.name(), quantile(times, 0.5));
        println!("{},{name},{median:.2},{:.2},{allocations}", node.name, times[0]);
    }
    Ok(())
}

fn accuracy() {
    println!("cell,device,strategy,T,B,I,H,worst_error");
    for cell in CELLS {
        for t in [1, 16, 256, 1024] {
            let case = Case::random(t as u64, cell, &[Direction::Forward], [1, t, 128, 128]);
            let want = case.reference();
            for (device, strategy) in paths() {
                let any = Tolerance::new(f64::MAX);
                let worst = case.check(&want, &device, strategy, 64 << 20, any);
                println!("{},{},{},{t},1,128,128,{worst:.3e}", name(cell), device.backend(), strategy.name());
            }
        }
    }
}

fn steady() {
    println!("cell,device,strategy,host_allocations,host_bytes,buffers_made,bind_groups_made");
    for cell in CELLS {
        for (device, strategy) in paths() {
            measure(cell, &device, strategy);
        }
    }
}

/// Counts allocations during one forward, from input to outputs in host memory, of a shape that has run before.
fn measure(cell: Cell, device: &Device, strategy: Strategy) {
    let case = Case::random(1, cell, &[Direction::Forward], [8, 64, 128, 128]);
    let layer = case.layer(device);
    let args = ForwardArgs { strategy, ..ForwardArgs::default() };
    let mut y = vec![0.0; 8 * 64 * 128];
    let mut run = || {
        let x = Tensor::from_f32(&case.x, &[8, 64, 128], device).expect("memory for a bench");
        let out = layer.forward(&x, &args).expect("a valid call");
        out.y.expect("all outputs").read_into(&mut y).expect("a working device");
    };
    for _ in 0..5 {
        run();
    }
    let counts = || {
        (
            counting::CALLS.load(Ordering::Relaxed),
            counting::BYTES.load(Ordering::Relaxed),
            device.buffers_made(),
            device.gpu().map_or(0, recurve::Gpu::bind_groups_made),
        )
    };
    let before = counts();
    run();
    let after = counts();
    println!(
        "{},{},{},{},{},{},{}",
        name(cell),
        device.backend(),
        strategy.name(),
        after.0 - before.0,
        after.1 - before.1,
        after.2 - before.2,
        after.3 - before.3
    );
}

/// Where the host's time goes for T dispatches of `step`: Recurve's recording, wgpu's calls, closing the command
/// buffer, submitting it. Medians in microseconds per dispatch.
fn encode() {
    println!("device,T,B,I,H,dispatches,record_us,calls_us,finish_us,submit_us,encode_us,gpu_us");
    for (device, _) in paths().into_iter().filter(|(d, s)| d.gpu().is_some() && *s == Strategy::Step) {
        let gpu = device.gpu().expect("filtered");
        gpu.set_profiling(true);
        for t in [64, 256, 1024] {
            let case = Case::random(1, Cell::LSTM, &[Direction::Forward], [1, t, 128, 128]);
            let layer = case.layer(&device);
            let x = Tensor::from_f32(&case.x, &[1, t, 128], &device).expect("memory for a bench");
            let args = ForwardArgs { strategy: Strategy::Step, ..ForwardArgs::default() };
            let mut rows = Vec::new();
            let mut dispatches = 0;
            for _ in 0..15 {
                let before = gpu.work_counts().0;
                let start = std::time::Instant::now();
                let out = layer.forward(&x, &args).expect("a valid call");
                let record = start.elapsed().as_secs_f64() * 1e3;
                dispatches = gpu.work_counts().0 - before;
                out.h.to_vec().expect("a working device");
                let p = gpu.take_profile().expect("a working device");
                rows.push([record, p.calls_ms, p.finish_ms, p.submit_ms, p.encode_ms(), p.gpu_ms]);
            }
            let medians: Vec<_> = (0..6)
                .map(|n| {
                    let of_part: Vec<_> = rows.iter().map(|r| r[n]).collect();
                    format!("{:.3}", quantile(&of_part, 0.5) * 1e3 / dispatches as f64)
                })
                .collect();
            println!("{},{t},1,128,128,{dispatches},{}", device.backend(), medians.join(","));
        }
        gpu.set_profiling(false);
    }
}

/// An LSTM as one would write it by hand for a single model: sizes known at compile time, gates i f g o side by side,
/// so that the compiler vectorizes the products; `exp` and `tanh` of the standard library.
struct ByHand<const I: usize, const H: usize, const G: usize> {
    w_ih: [[f32; G]; I],
    w_hh: [[f32; G]; H],
    bias: [f32; G],
}

impl<const I: usize, const H: usize, const G: usize> ByHand<I, H, G> {
    fn new(w: &recurve::DirectionWeights<f32>) -> Self {
        Self {
            w_ih: std::array::from_fn(|k| std::array::from_fn(|j| w.w_ih[j * I + k])),
            w_hh: std::array::from_fn(|k| std::array::from_fn(|j| w.w_hh[j * H + k])),
            bias: std::array::from_fn(|j| w.b_ih[j] + w.b_hh[j]),
        }
    }

    #[inline(never)]
    fn step(&self, x: &[f32; I], h: &mut [f32; H], c: &mut [f32; H]) {
        let mut gates = self.bias;
        for (x, w) in x.iter().zip(&self.w_ih) {
            gates.iter_mut().zip(w).for_each(|(g, w)| *g += w * x);
        }
        for (h, w) in h.iter().zip(&self.w_hh) {
            gates.iter_mut().zip(w).for_each(|(g, w)| *g += w * h);
        }
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        for j in 0..H {
            let [i, f, g, o] = [0, 1, 2, 3].map(|g| gates[g * H + j]);
            c[j] = sigmoid(f) * c[j] + sigmoid(i) * g.tanh();
            h[j] = sigmoid(o) * c[j].tanh();
        }
    }
}

/// Nanoseconds per call: the median and the minimum of many rounds of a thousand calls.
fn nanoseconds(name: &str, mut call: impl FnMut()) {
    const CALLS: u32 = 1000;
    let rounds: Vec<f64> = (0..300)
        .map(|_| {
            let start = std::time::Instant::now();
            (0..CALLS).for_each(|_| call());
            start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
        })
        .collect();
    let before = counting::CALLS.load(Ordering::Relaxed);
    (0..CALLS).for_each(|_| call());
    let allocations = (counting::CALLS.load(Ordering::Relaxed) - before) as f64 / f64::from(CALLS);
    println!("{name},{:.1},{:.1},{allocations}", quantile(&rounds, 0.5), quantile(&rounds, 0.0));
}

/// One timestep of an LSTM with I = 1, H = 16, B = 1, as audio plug-ins run it for every sample.
fn step() {
    const H: usize = 16;
    let case = Case::random(1, Cell::LSTM, &[Direction::Forward], [1, 1, 1, H]);
    let layer = case.layer(&Device::Cpu);
    println!("# LSTM I = 1, H = {H}, B = 1; {}", Device::Cpu);
    println!("what,ns_median,ns_min,allocations");

    let by_hand = ByHand::<1, H, { 4 * H }>::new(&case.directions[0].1);
    let (mut h, mut c) = ([0.0; H], [0.0; H]);
    let mut x = [0.5f32];
    nanoseconds("loop written by hand", || {
        by_hand.step(&x, &mut h, &mut c);
        // The next sample depends on the output, so that the compiler cannot leave out a call.
        x[0] = 0.5 + 0.25 * h[0];
    });
    let expected = h;

    let (mut h, mut c) = ([0.0; H], [0.0; H]);
    let mut x = [0.5f32];
    nanoseconds("Recurrent::step_in_place", || {
        layer.step_in_place(&x, &mut h, &mut c).expect("a valid call");
        x[0] = 0.5 + 0.25 * h[0];
    });
    for (got, want) in h.iter().zip(expected) {
        assert!((got - want).abs() < 1e-5, "{got} by the layer, {want} by hand");
    }

    let x = Tensor::from_f32(&x, &[1, 1, 1], &Device::Cpu).expect("memory for a bench");
    let mut state: Option<(Tensor, Tensor)> = None;
    nanoseconds("Recurrent::forward over one timestep", || {
        let args = ForwardArgs {
            h0: state.as_ref().map(|s| &s.0),
            c0: state.as_ref().map(|s| &s.1),
            outputs: recurve::Outputs::Last,
            ..ForwardArgs::default()
        };
        let out = layer.forward(&x, &args).expect("a valid call");
        state = Some((out.h, out.c.expect("an LSTM has a c")));
    });
}
