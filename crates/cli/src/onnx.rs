//! The commands for ONNX files.

use crate::arguments::{Wanted, check_output, names, near, read_inputs};
use crate::front_end::{FrontEnd, Spec};
use crate::terminal::{print_json, say};
use crate::{Outcome, audio, run, summary};
use recurve::{
    Device, HostArray, HostData, OnnxModel, OnnxSession, OnnxStreams, OnnxValue, StatePair, write_host_array,
};
use recurve_graph::Dim;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

/// Whether a path is that of an ONNX file.
pub(crate) fn is_onnx(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx"))
}

/// How a type is shown: its elements and its dimensions.
fn shown(v: &OnnxValue) -> Value {
    let dims = |d: &Dim| d.size().map_or_else(|| json!(d.to_string()), |n| json!(n));
    let shape = if v.kind.unranked { Value::Null } else { v.kind.dims.iter().map(dims).collect() };
    json!({ "name": v.name, "type": v.kind.dtype.to_string(), "shape": shape })
}

fn say_notes(model: &OnnxModel) -> Result<(), Box<dyn std::error::Error>> {
    model.notes().iter().try_for_each(|n| say(format_args!("note:   {n}")))
}

/// The states of a model: those that the user states, else the model's own.
pub(crate) fn states(model: &OnnxModel, stated: &[StatePair]) -> Vec<StatePair> {
    if stated.is_empty() { model.states() } else { stated.to_vec() }
}

/// Zeros for the states that are not among the inputs. A dimension without a size has that of the inputs' dimension
/// of its name, or is 1.
pub(crate) fn initial_states(
    model: &OnnxModel,
    states: &[StatePair],
    inputs: &[(String, HostArray)],
) -> Vec<(String, HostArray)> {
    let mut sizes: HashMap<&Dim, usize> = HashMap::new();
    for v in model.inputs() {
        let given = inputs.iter().find(|(n, a)| *n == v.name && a.shape.len() == v.kind.dims.len());
        let named = given.into_iter().flat_map(|(_, a)| v.kind.dims.iter().zip(&a.shape));
        sizes.extend(named.filter(|(d, _)| matches!(d, Dim::Symbol(_))).map(|(d, n)| (d, *n)));
    }
    let missing = states.iter().filter(|s| inputs.iter().all(|(n, _)| *n != s.input));
    let zeros = missing.filter_map(|s| {
        let v = model.inputs().iter().find(|v| v.name == s.input && !v.kind.unranked)?;
        let size = |d: &Dim| d.size().or_else(|| sizes.get(d).copied()).unwrap_or(1);
        let shape: Vec<usize> = v.kind.dims.iter().map(size).collect();
        let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= MAX_ELEMENTS)?;
        let data = match v.kind.dtype.is_whole() {
            true => HostData::Int(vec![0; count]),
            false => HostData::Float(vec![0.0; count]),
        };
        Some((s.input.clone(), HostArray { shape, data }))
    });
    zeros.collect()
}

fn say_cells(model: &OnnxModel) -> Result<(), Box<dyn std::error::Error>> {
    if model.explain().is_empty() {
        say("cells:  none")?;
    }
    model.explain().iter().try_for_each(|line| say(format_args!("cell:   {line}")))
}

pub(crate) fn run_model(a: &run::Arguments) -> Outcome {
    if !a.wav.is_empty() {
        return audio::run(a);
    }
    a.outputs.iter().try_for_each(|f| check_output(&f.path))?;
    let model = Arc::new(OnnxModel::open(&a.model, &Device::open(&a.device)?)?);
    let made: Vec<String> = match &a.until {
        None => model.outputs().iter().map(|v| v.name.clone()).collect(),
        Some(node) => {
            let graph = model.graph();
            let Some(n) = model.find_node(node) else {
                let nodes = graph.nodes();
                let values = nodes.iter().flat_map(|n| &n.outputs).map(|o| &graph.value(*o).name[..]);
                let near = near(node, nodes.iter().map(|n| &n.name[..]).chain(values));
                return Err(format!(
                    "`--until {node}`: there is no such node, or it was computed when the file was opened; near it are {near}"
                )
                .into());
            };
            graph.nodes()[n].outputs.iter().map(|o| graph.value(*o).name.clone()).collect()
        }
    };
    if let Some(f) = a.outputs.iter().find(|f| !made.contains(&f.name)) {
        let of = if a.until.is_some() { "this node makes" } else { "this model has" };
        return Err(format!("output `{}`: {of} {}", f.name, names(made.iter().map(|n| &n[..]))).into());
    }
    if a.text.is_some() {
        return Err("`--text` is for models with a vocabulary, which an ONNX file does not have".into());
    }
    let states = states(&model, &a.states);
    // Refuses what the user states wrongly.
    OnnxSession::with_states(model.clone(), &states, 1)?;
    if a.inputs.is_empty() {
        let others = model.inputs().iter().filter(|i| states.iter().all(|s| s.input != i.name));
        let wanted: Vec<_> = others.map(|i| format!("--input {}=FILE", i.name)).collect();
        return Err(format!("nothing to run on: give `{}`", wanted.join(" ")).into());
    }
    let mut inputs = read_inputs(&a.inputs, model.inputs().iter().map(Wanted::from))?;
    let zeros = initial_states(&model, &states, &inputs);
    let begun: Vec<String> = zeros.iter().map(|(n, _)| n.clone()).collect();
    inputs.extend(zeros);
    let call = || {
        let given = inputs.iter().map(|(n, x)| (n.as_str(), x));
        match &a.until {
            None => model.run(given),
            Some(node) => model.run_until(node, given),
        }
    };
    // Compiling kernels is not what the time printed is about.
    call()?;
    let started = Instant::now();
    let all = call()?;
    let ms = started.elapsed().as_secs_f64() * 1e3;
    for f in &a.outputs {
        let Some((_, y)) = all.iter().find(|(name, _)| *name == f.name) else {
            return Err(format!("output `{}` has no elements here", f.name).into());
        };
        write_host_array(&f.path, f.array.as_ref().unwrap_or(&f.name), y)?;
    }
    if a.json {
        let data = |y: &HostArray| match &y.data {
            _ if !a.outputs.is_empty() => Value::Null,
            HostData::Int(v) => json!(v),
            _ => json!(y.to_f32()),
        };
        let outputs = all.iter().map(|(name, y)| json!({ "output": name, "shape": y.shape, "data": data(y) }));
        print_json(&json!({
            "model": a.model.display().to_string(), "device": model.device().to_string(),
            "outputs": outputs.collect::<Vec<_>>(), "notes": model.notes(), "until": a.until,
            "states_from_zero": begun, "cells": model.explain(), "ms": ms,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    say(format_args!("device: {}", model.device()))?;
    say(format_args!("model:  {} ({})", a.model.display(), model.producer()))?;
    say_notes(&model)?;
    if a.explain {
        say_cells(&model)?;
    }
    if !begun.is_empty() {
        say(format_args!("states: {} begin as zeros", names(begun.iter().map(|n| &n[..]))))?;
    }
    if let Some(n) = a.until.as_ref().and_then(|node| model.find_node(node)) {
        let node = &model.graph().nodes()[n];
        say(format_args!("until:  node `{}` ({}), number {} of {}", node.name, node.operator.name(), n + 1, {
            model.graph().nodes().len()
        }))?;
    }
    for (name, y) in &all {
        say(format_args!("{name}: shape {:?}", y.shape))?;
        if a.outputs.is_empty() {
            let shown: Vec<_> = match &y.data {
                HostData::Int(v) => v.iter().take(8).map(ToString::to_string).collect(),
                _ => y.to_f32().iter().take(8).map(|v| format!("{v:.6}")).collect(),
            };
            let more = if y.shape.iter().product::<usize>() > 8 { " …" } else { "" };
            say(format_args!("  {}{more}", shown.join(" ")))?;
        }
    }
    say(format_args!("{ms:.2} ms"))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn summarize(a: &summary::Arguments) -> Outcome {
    let model = Arc::new(OnnxModel::open(&a.model, &Device::open(&a.device)?)?);
    let states = states(&model, &a.states);
    OnnxSession::with_states(model.clone(), &states, 1)?;
    let batched = OnnxStreams::with_states(model.clone(), &states);
    let kind =
        |s: &StatePair| model.inputs().iter().find(|v| v.name == s.input).map_or(String::new(), |v| v.kind.to_string());
    let graph = model.graph();
    let params: usize = graph
        .values()
        .map(|(_, v)| match &v.source {
            recurve_graph::Source::Constant(c) if matches!(c, recurve_graph::Constant::Float(_)) => c.count(),
            _ => 0,
        })
        .sum();
    let kinds = |n: &recurve_graph::Node| {
        n.outputs.iter().map(|o| graph.value(*o).kind.to_string()).collect::<Vec<_>>().join(", ")
    };
    if a.json {
        let nodes = graph.nodes().iter().map(|n| {
            let inputs = n.inputs.iter().map(|i| i.map(|i| &graph.value(i).name));
            json!({
                "name": n.name, "operator": n.operator.name(), "output": kinds(n),
                "inputs": inputs.collect::<Vec<_>>(),
            })
        });
        print_json(&json!({
            "model": a.model.display().to_string(), "producer": model.producer(),
            "metadata": model.metadata().iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "inputs": model.inputs().iter().map(shown).collect::<Vec<_>>(),
            "outputs": model.outputs().iter().map(shown).collect::<Vec<_>>(),
            "states": states
                .iter()
                .map(|s| json!({ "input": s.input, "output": s.output, "type": kind(s), "begins": "zeros" }))
                .collect::<Vec<_>>(),
            "streams_share_a_call": batched.is_ok(),
            "nodes": nodes.collect::<Vec<_>>(), "total_params": params, "notes": model.notes(),
            "cells": model.explain(),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    say(format_args!("model:  {} ({})", a.model.display(), model.producer()))?;
    say_notes(&model)?;
    if a.explain {
        say_cells(&model)?;
    }
    for (what, values) in [("input", model.inputs()), ("output", model.outputs())] {
        for v in values {
            say(format_args!("{what:7} {}: {}", v.name, v.kind))?;
        }
    }
    for s in &states {
        say(format_args!("state   {} → {}: {}, begins as zeros", s.input, s.output, kind(s)))?;
    }
    let unmatched = || {
        let inputs = model.inputs().iter().filter_map(|i| i.kind.shape().filter(|d| d.len() > 1).map(|d| (d, i)));
        let mut pairs = inputs.flat_map(|(d, i)| {
            let same = model.outputs().iter().filter(move |o| o.kind.shape().as_ref() == Some(&d));
            same.map(move |o| format!("--state {}={}", i.name, o.name))
        });
        pairs.next().map(|first| pairs.last().unwrap_or(first))
    };
    if states.is_empty()
        && let Some(hint) = unmatched()
    {
        say(format_args!("states: none by their names; if there are some, state them, as in `{hint}`"))?;
    }
    match &batched {
        Ok(_) => say("streams: many can share a call")?,
        Err(_) if !states.is_empty() => say("streams: one a call, the file fixes the batch")?,
        Err(_) => {}
    }
    say("")?;
    let width = graph.nodes().iter().map(|n| n.name.chars().count()).max().unwrap_or(0).clamp(4, 40);
    let kind = graph.nodes().iter().map(|n| n.operator.name().len()).max().unwrap_or(0).max(8);
    say(format_args!("{:width$}  {:kind$}  output", "node", "operator"))?;
    for n in graph.nodes() {
        say(format_args!("{:width$}  {:kind$}  {}", n.name, n.operator.name(), kinds(n)))?;
    }
    say(format_args!("\n{} nodes, {} parameters", graph.nodes().len(), recurve::thousands(params)))?;
    Ok(ExitCode::SUCCESS)
}

/// Elements of an input that is made up, at most.
const MAX_ELEMENTS: usize = 1 << 26;

/// Inputs that are made up: varied numbers of the right shapes and types, the same every time. The file of a model of
/// audio says its frame and its constants; otherwise open dimensions are the batch and the length, by their names or
/// in this order.
pub(crate) fn example(
    model: &OnnxModel,
    path: &Path,
    (batch, seq): (usize, usize),
) -> Result<Vec<(String, HostArray)>, String> {
    let front = audio_of(model, path);
    let (batch, seq) = if front.is_some() { (1, 1) } else { (batch, seq) };
    let mut sizes: HashMap<Dim, usize> = HashMap::new();
    let mut all = Vec::new();
    for (n, v) in model.inputs().iter().enumerate() {
        if let Some((_, constant)) = front.iter().flat_map(|f| f.constants(0)).find(|(name, _)| *name == v.name) {
            all.push((v.name.clone(), constant.clone()));
            continue;
        }
        let shape = match &front {
            Some(f) if f.spec.stages[0].input == v.name => f.shape(0).to_vec(),
            _ if v.kind.unranked => {
                let name = &v.name;
                return Err(format!("input `{name}` has no shape in the file: give it by `--input {name}=FILE`"));
            }
            _ => sized(v, (batch, seq), &mut sizes),
        };
        all.push((v.name.clone(), made_up(v, shape, n)?));
    }
    Ok(all)
}

/// What the file beside a model of audio says, if there is one that fits.
pub(crate) fn audio_of(model: &OnnxModel, path: &Path) -> Option<FrontEnd> {
    let spec = path.with_extension("toml");
    let spec = spec.is_file().then(|| Spec::read(&spec).ok())??;
    spec.models(path).ok()?;
    FrontEnd::new(spec, [model]).ok()
}

/// The shape of an input whose open dimensions are a batch and a length.
fn sized(v: &OnnxValue, (batch, seq): (usize, usize), sizes: &mut HashMap<Dim, usize>) -> Vec<usize> {
    let mut open = [batch, seq].into_iter();
    let size = |d: &Dim| {
        if let Some(n) = d.size().or_else(|| sizes.get(d).copied()) {
            return n;
        }
        let by_order = open.next().unwrap_or(1);
        let name = d.to_string().to_lowercase();
        let is = |words: &[&str]| words.iter().any(|w| name.contains(w));
        let n = match d {
            Dim::Symbol(_) if is(&["batch"]) || ["n", "b", "bs"].contains(&&name[..]) => batch,
            Dim::Symbol(_) if is(&["seq", "time", "len", "frame"]) || name == "t" => seq,
            _ => by_order,
        };
        if matches!(d, Dim::Symbol(_)) {
            sizes.insert(d.clone(), n);
        }
        n
    };
    v.kind.dims.iter().map(size).collect()
}

fn made_up(v: &OnnxValue, shape: Vec<usize>, seed: usize) -> Result<HostArray, String> {
    let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= MAX_ELEMENTS);
    let count = count.ok_or_else(|| format!("input `{}` of shape {shape:?} is too large to be made up", v.name))?;
    // A multiplicative sequence (Lehmer); any spread of values does.
    let mut state = 0x2545_F491u64 + seed as u64;
    let mut next = move || {
        state = state * 48_271 % 0x7fff_ffff;
        state
    };
    let data = match v.kind.dtype {
        e if e.is_float() => HostData::Float((0..count).map(|_| (next() % 20_001) as f32 * 1e-4 - 1.0).collect()),
        recurve_graph::Element::Bool => HostData::Int((0..count).map(|_| (next() % 2) as i64).collect()),
        _ => HostData::Int(vec![1; count]),
    };
    Ok(HostArray { shape, data })
}
