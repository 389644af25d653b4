//! The command `recurve bench MODEL`: the time of a call of a model, and of a frame where it has states.

use crate::arguments::{NamedFile, Wanted, read_inputs};
use crate::bench::Arguments;
use crate::peer::Timed;
use crate::terminal::{complain, print_json, progress, say};
use crate::{FAILED, Outcome, onnx};
use recurve::testing::{Tolerance, compare_arrays, example_inputs};
use recurve::{Device, Input, Model, OnnxModel, OnnxSession, Streams};
use serde_json::{Value, json};
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

/// Seconds of calls, and what is known of them.
struct Times {
    all: Vec<f64>,
}

impl Times {
    fn new(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        Self { all }
    }

    fn median(&self) -> f64 {
        self.all[self.all.len() / 2]
    }

    fn least(&self) -> f64 {
        self.all[0]
    }

    fn json(&self) -> Value {
        json!({
            "ms_median": self.median() * 1e3, "ms_min": self.least() * 1e3, "per_second": 1.0 / self.median(),
            "runs": self.all.len(),
        })
    }
}

/// One line of the results.
struct Measured {
    device: String,
    what: &'static str,
    /// The shapes of the inputs.
    shapes: String,
    ours: Times,
    peer: Option<Times>,
    /// Seconds of audio of a call.
    audio: Option<f64>,
}

/// Seconds of calls that are made in a row, at least, so that what one program leaves in the caches serves its own.
const ROW: f64 = 0.01;

/// Calls ours and another's in turn, until both were called often and long enough.
fn measure(
    a: &Arguments,
    mut call: impl FnMut() -> Result<(), Box<dyn Error>>,
    mut peer: Option<&mut Timed>,
) -> Result<(Times, Option<Times>), Box<dyn Error>> {
    let mut timed = || {
        let started = Instant::now();
        call()?;
        Ok::<_, Box<dyn Error>>(started.elapsed().as_secs_f64())
    };
    // The first calls compile kernels and fill pools.
    let first = (0..3).map(|_| timed()).collect::<Result<Vec<_>, _>>()?;
    if let Some(peer) = &mut peer {
        peer.call(3)?;
    }
    let count = ((ROW / first[2].max(1e-9)).ceil() as usize).clamp(1, 1000);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let started = Instant::now();
    while ours.len() < a.runs || started.elapsed().as_secs_f64() < a.seconds {
        for _ in 0..count {
            ours.push(timed()?);
        }
        if let Some(peer) = &mut peer {
            theirs.extend(peer.call(count)?);
        }
    }
    Ok((Times::new(ours), peer.map(|_| Times::new(theirs))))
}

fn shapes<'a>(inputs: impl Iterator<Item = (&'a str, &'a [usize])>) -> String {
    inputs.map(|(n, d)| format!("{n} {d:?}")).collect::<Vec<_>>().join(", ")
}

/// Runs the benchmark of one model.
pub(crate) fn run(a: &Arguments, path: &Path, files: &[NamedFile]) -> Outcome {
    let (one, batches, lengths) = ([1], &a.batch[..], &a.seq[..]);
    let batches = if batches.is_empty() { &one[..] } else { batches };
    let lengths = if lengths.is_empty() { &[32][..] } else { lengths };
    let devices = a.device.iter().map(Device::open).collect::<Result<Vec<_>, _>>()?;
    let bar = progress(devices.len() * batches.len() * lengths.len());
    let mut all = Vec::new();
    let mut about = None;
    for device in &devices {
        for &batch in batches {
            for &seq in lengths {
                bar.set_message(format!("{device}"));
                let made = match onnx::is_onnx(path) {
                    true => of_onnx(a, path, files, device, (batch, seq), &mut about),
                    false => of_native(a, path, files, device, (batch, seq)),
                };
                match made? {
                    Ok(made) => all.extend(made),
                    Err(wrong) => {
                        bar.finish_and_clear();
                        complain(format_args!("error: the result is wrong, so it was not timed: {wrong}"));
                        return Ok(ExitCode::from(FAILED));
                    }
                }
                bar.inc(1);
                // Given inputs have one shape.
                if !files.is_empty() {
                    break;
                }
            }
            if !files.is_empty() {
                break;
            }
        }
    }
    bar.finish_and_clear();
    // Models whose shapes are fixed give the same line for every batch and length.
    all.dedup_by(|a, b| (&a.device, a.what, &a.shapes) == (&b.device, b.what, &b.shapes));
    print(a, path, &all, about.as_deref())
}

/// Lines, or why the results are wrong.
type Lines = Result<Vec<Measured>, String>;

fn of_onnx(
    a: &Arguments,
    path: &Path,
    files: &[NamedFile],
    device: &Device,
    sizes: (usize, usize),
    about: &mut Option<String>,
) -> Result<Lines, Box<dyn Error>> {
    let model = Arc::new(OnnxModel::open(path, device)?);
    let mut inputs = onnx::example(&model, path, sizes);
    let states = onnx::states(&model, &a.states);
    if !files.is_empty() {
        let mut given = read_inputs(files, model.inputs().iter().map(Wanted::from))?;
        let zeros = model.initial_states(&states, &given);
        given.extend(zeros);
        inputs = Ok(given);
    }
    let mut inputs = inputs?;
    let is_state = |name: &str| states.iter().any(|s| s.input == *name);
    for (_, array) in inputs.iter_mut().filter(|(n, _)| is_state(n)) {
        let count = array.shape.iter().product();
        array.data = match array.data {
            recurve::HostData::Int(_) => recurve::HostData::Int(vec![0; count]),
            _ => recurve::HostData::Float(vec![0.0; count]),
        };
    }
    let mut session = OnnxSession::with_states(model.clone(), &states, sizes.0)?;
    for (name, array) in inputs.iter().filter(|(n, _)| is_state(n)) {
        session.set_state(name, array)?;
    }
    let own: Vec<_> = inputs.iter().filter(|(n, _)| !is_state(n)).map(|(n, x)| (n.as_str(), x)).collect();
    let first = session.run(own.iter().copied())?;
    let mut peer = a.against.map(|_| Timed::start(path, &inputs, &states, *device == Device::Cpu)).transpose()?;
    if let Some(peer) = &peer {
        for (name, y) in &first {
            let Some(want) = peer.first.get(name) else { continue };
            // Wide, because errors of a deep network add up; what is wrong is wrong by far more.
            if let Err(e) = compare_arrays(y, &want, Tolerance::new(1e-2)) {
                return Ok(Err(format!("output `{name}` on {device} beside ONNX Runtime {}: {e}", peer.first.version)));
            }
        }
        let providers: Vec<_> = peer.providers.iter().map(|p| p.trim_end_matches("ExecutionProvider")).collect();
        let (version, threads) = (&peer.first.version, peer.threads);
        *about = Some(format!("ONNX Runtime {version} ({}), {threads} threads", providers.join(", ")));
    }
    let call = || {
        session.run(own.iter().copied())?;
        Ok(())
    };
    let (ours, theirs) = measure(a, call, peer.as_mut())?;
    let audio = onnx::audio_of(&model, path).map(|f| f.spec.seconds());
    Ok(Ok(vec![Measured {
        device: device.to_string(),
        what: if states.is_empty() { "call" } else { "frame" },
        shapes: shapes(own.iter().map(|(n, x)| (*n, &x.shape[..]))),
        ours,
        peer: theirs,
        audio,
    }]))
}

fn of_native(
    a: &Arguments,
    path: &Path,
    files: &[NamedFile],
    device: &Device,
    (batch, seq): (usize, usize),
) -> Result<Lines, Box<dyn Error>> {
    if a.against.is_some() || !a.states.is_empty() {
        return Err("`--against` and `--state` are for ONNX files".into());
    }
    let model = Model::open(path, device)?;
    let own = &model.info().network.inputs;
    let inputs = if files.is_empty() {
        example_inputs(&model, batch, seq)?
    } else {
        read_inputs(files, own.iter().map(Wanted::from))?
    };
    let call = || {
        let all = model.run_all(inputs.iter().map(|(n, x)| (n.as_str(), Input::Host(x.clone()))))?;
        all.iter().try_for_each(|(_, y)| y.to_vec().map(drop))?;
        Ok(())
    };
    let line =
        |what, shapes, ours| Measured { device: device.to_string(), what, shapes, ours, peer: None, audio: None };
    let (ours, _) = measure(a, call, None)?;
    let mut lines = vec![line("call", shapes(inputs.iter().map(|(n, x)| (&n[..], &x.shape[..]))), ours)];
    // A network that reads forwards runs frame by frame too.
    if let Ok(mut streams) = Streams::new(model.network()) {
        let features = &model.network().input_shape()[2..];
        let size: usize = features.iter().flatten().product();
        let frame: Vec<f32> = (0..size).map(|n| (n % 17) as f32 * 0.1 - 0.8).collect();
        let ids: Vec<_> = (0..batch).map(|_| streams.join()).collect();
        let frames: Vec<_> = ids.iter().map(|id| (*id, &frame[..])).collect();
        let call = || {
            streams.step(&frames)?.to_vecs()?;
            Ok(())
        };
        let (ours, _) = measure(a, call, None)?;
        lines.push(line("frame", format!("{batch} streams of {size} features"), ours));
    }
    Ok(Ok(lines))
}

fn print(a: &Arguments, path: &Path, all: &[Measured], about: Option<&str>) -> Outcome {
    if a.json {
        let line = |m: &Measured| {
            let mut line = m.ours.json();
            line["device"] = json!(m.device);
            line["what"] = json!(m.what);
            line["inputs"] = json!(m.shapes);
            line["times_real_time"] = json!(m.audio.map(|s| s / m.ours.median()));
            if let Some(peer) = &m.peer {
                line["peer"] = peer.json();
                line["ratio"] = json!(m.ours.median() / peer.median());
            }
            line
        };
        let rows: Vec<_> = all.iter().map(line).collect();
        print_json(&json!({ "model": path.display().to_string(), "rows": rows, "against": about }))?;
        return Ok(ExitCode::SUCCESS);
    }
    say(format_args!("model:  {}", path.display()))?;
    let mut device = "";
    for m in all {
        if m.device != device {
            say(format_args!("device: {}", m.device))?;
            device = &m.device;
        }
        say(format_args!("a {}: {}", m.what, m.shapes))?;
        say(format_args!("  {:22} {:>12} {:>12} {:>12}", "", "median ms", "least ms", "a second"))?;
        let line = |who: &str, t: &Times, more: String| {
            let (median, least) = (t.median(), t.least());
            say(format_args!("  {who:22} {:12.4} {:12.4} {:12.1}{more}", median * 1e3, least * 1e3, 1.0 / median))
        };
        let real = m.audio.map_or(String::new(), |s| format!("   {:.1} times real time", s / m.ours.median()));
        line("recurve", &m.ours, real)?;
        if let Some(peer) = &m.peer {
            line("onnxruntime", peer, String::new())?;
            say(format_args!("  recurve takes {:.3} of the time of onnxruntime", m.ours.median() / peer.median()))?;
        }
    }
    if let Some(about) = about {
        say(format_args!("beside {about}, in turn"))?;
    }
    Ok(ExitCode::SUCCESS)
}
