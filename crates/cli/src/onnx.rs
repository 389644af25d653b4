//! The commands for ONNX files.

use crate::arguments::{Wanted, check_output, names, near, read_inputs};
use crate::front_end::{FrontEnd, Spec};
use crate::terminal::{print_json, say};
use crate::{Outcome, audio, run, summary};
use recurve::testing::example_onnx_inputs;
use recurve::{
    Device, HostArray, HostData, OnnxModel, OnnxSession, OnnxStreams, OnnxValue, StatePair, write_host_array,
};
use recurve_graph::Dim;
use serde_json::{Value, json};
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
    let zeros = model.initial_states(&states, &inputs);
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

/// Inputs that are made up. The file of a model of audio says its frame and its constants; otherwise open dimensions are
/// the batch and the length.
pub(crate) fn example(
    model: &OnnxModel,
    path: &Path,
    (batch, seq): (usize, usize),
) -> Result<Vec<(String, HostArray)>, recurve::Error> {
    let Some(front) = audio_of(model, path) else { return example_onnx_inputs(model, batch, seq, &[]) };
    let constants = front.constants(0);
    let mut shapes = vec![(front.spec.stages[0].input.clone(), front.shape(0).to_vec())];
    shapes.extend(constants.iter().map(|(name, a)| (name.clone(), a.shape.clone())));
    let mut all = example_onnx_inputs(model, 1, 1, &shapes)?;
    for (name, array) in &mut all {
        if let Some((_, constant)) = constants.iter().find(|(n, _)| n == name) {
            array.clone_from(constant);
        }
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
