//! The commands for ONNX files.

use crate::arguments::{check_output, read_inputs};
use crate::terminal::{print_json, progress, say};
use crate::{FAILED, Outcome, audio, check, run, summary};
use recurve::testing::{GraphCheck, NodeCheck, Tolerance, check_onnx};
use recurve::{Device, HostArray, HostData, OnnxModel, OnnxValue, write_array};
use recurve_graph::Dim;
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;
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

pub(crate) fn run_model(a: &run::Arguments) -> Outcome {
    if let Some(wav) = &a.wav {
        return audio::run(a, wav);
    }
    a.outputs.iter().try_for_each(|f| check_output(&f.path))?;
    let model = OnnxModel::open(&a.model, &Device::open(&a.device)?)?;
    let names = |all: &[OnnxValue]| all.iter().map(|v| format!("`{}`", v.name)).collect::<Vec<_>>().join(", ");
    if let Some(f) = a.outputs.iter().find(|f| model.outputs().iter().all(|o| o.name != f.name)) {
        return Err(format!("output `{}`: this model has {}", f.name, names(model.outputs())).into());
    }
    if a.text.is_some() {
        return Err("`--text` is for models with a vocabulary, which an ONNX file does not have".into());
    }
    if a.inputs.is_empty() {
        let wanted: Vec<_> = model.inputs().iter().map(|i| format!("--input {}=FILE", i.name)).collect();
        return Err(format!("nothing to run on: give `{}`", wanted.join(" ")).into());
    }
    let inputs = read_inputs(&a.inputs)?;
    let call = || model.run(inputs.iter().map(|(n, x)| (n.as_str(), x)));
    // Compiling kernels is not what the time printed is about.
    call()?;
    let started = Instant::now();
    let all = call()?;
    let ms = started.elapsed().as_secs_f64() * 1e3;
    for f in &a.outputs {
        for (_, y) in all.iter().filter(|(name, _)| *name == f.name) {
            write_array(&f.path, f.array.as_ref().unwrap_or(&f.name), &y.shape, &y.to_f32())?;
        }
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
            "outputs": outputs.collect::<Vec<_>>(), "notes": model.notes(), "ms": ms,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    say(format_args!("device: {}", model.device()))?;
    say(format_args!("model:  {} ({})", a.model.display(), model.producer()))?;
    say_notes(&model)?;
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
    let model = OnnxModel::open(&a.model, &Device::open(&a.device)?)?;
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
            "nodes": nodes.collect::<Vec<_>>(), "total_params": params, "notes": model.notes(),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    say(format_args!("model:  {} ({})", a.model.display(), model.producer()))?;
    say_notes(&model)?;
    for (what, values) in [("input", model.inputs()), ("output", model.outputs())] {
        for v in values {
            say(format_args!("{what:7} {}: {}", v.name, v.kind))?;
        }
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

pub(crate) fn check_model(a: &check::Arguments) -> Outcome {
    let model = OnnxModel::open(&a.model, &Device::Cpu)?;
    let inputs = if a.inputs.is_empty() {
        let made = model.inputs().iter().enumerate().map(|(n, i)| Ok((i.name.clone(), made_up(i, n, a)?)));
        made.collect::<Result<Vec<_>, String>>()?
    } else {
        read_inputs(&a.inputs)?
    };
    let named: Vec<_> = inputs.iter().map(|(n, x)| (n.as_str(), x)).collect();
    let devices = if a.devices.is_empty() {
        Device::all()
    } else {
        a.devices.iter().map(Device::open).collect::<Result<_, _>>()?
    };
    let bar = progress(devices.len());
    let mut reports: Vec<GraphCheck> = Vec::new();
    for device in devices {
        bar.set_message(device.to_string());
        reports.push(check_onnx(&model, &named, &device, Tolerance::new(a.tolerance))?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let passed = reports.iter().all(GraphCheck::passed);
    if a.json {
        let node = |n: &NodeCheck| {
            json!({
                "node": n.node, "operator": n.operator, "value": n.value, "shape": n.shape,
                "passed": n.result.is_ok(), "worst_error": n.result.as_ref().ok(),
                "error": n.result.as_ref().err(),
            })
        };
        let all = reports
            .iter()
            .map(|r| json!({ "device": r.device, "nodes": r.nodes.iter().map(node).collect::<Vec<_>>() }));
        print_json(
            &json!({ "model": a.model.display().to_string(), "passed": passed, "devices": all.collect::<Vec<_>>() }),
        )?;
    } else {
        reports.iter().try_for_each(say)?;
        say(if passed { "every device agrees with the f64 reference" } else { "FAILED" })?;
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// Elements of an input that is made up, at most.
const MAX_ELEMENTS: usize = 1 << 26;

/// Varied input of the right shape and type, the same every time. Open dimensions are the batch, then the length.
fn made_up(input: &OnnxValue, seed: usize, a: &check::Arguments) -> Result<HostArray, String> {
    if input.kind.unranked {
        return Err(format!(
            "input `{}` has no shape in the file: give it by `--input {}=FILE`",
            input.name, input.name
        ));
    }
    let mut open = [a.batch, a.seq].into_iter();
    let shape: Vec<usize> =
        input.kind.dims.iter().map(|d| d.size().unwrap_or_else(|| open.next().unwrap_or(1))).collect();
    let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= MAX_ELEMENTS);
    let count = count.ok_or_else(|| format!("input `{}` of shape {shape:?} is too large to be made up", input.name))?;
    // A multiplicative sequence (Lehmer); any spread of values does.
    let mut state = 0x2545_F491u64 + seed as u64;
    let mut next = move || {
        state = state * 48_271 % 0x7fff_ffff;
        state
    };
    let data = match input.kind.dtype {
        e if e.is_float() => HostData::Float((0..count).map(|_| (next() % 20_001) as f32 * 1e-4 - 1.0).collect()),
        recurve_graph::Element::Bool => HostData::Int((0..count).map(|_| (next() % 2) as i64).collect()),
        _ => HostData::Int(vec![1; count]),
    };
    Ok(HostArray { shape, data })
}
