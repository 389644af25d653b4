//! The command `recurve check` for ONNX files.

use crate::arguments::{Wanted, read_inputs};
use crate::check::{Against, Arguments, expected, say_expected};
use crate::terminal::{print_json, progress, say};
use crate::{FAILED, Outcome, onnx, peer};
use recurve::testing::{GraphCheck, NodeCheck, Tolerance, check_onnx, check_onnx_values};
use recurve::{Device, OnnxModel};
use serde_json::json;
use std::process::ExitCode;

pub(crate) fn run(a: &Arguments) -> Outcome {
    let expected = expected(a)?;
    let model = OnnxModel::open(&a.model, &Device::Cpu)?;
    let inputs = if a.inputs.is_empty() {
        onnx::example(&model, &a.model, (a.batch, a.seq))?
    } else {
        let mut given = read_inputs(&a.inputs, model.inputs().iter().map(Wanted::from))?;
        let zeros = model.initial_states(&model.states(), &given);
        given.extend(zeros);
        given
    };
    let named: Vec<_> = inputs.iter().map(|(n, x)| (n.as_str(), x)).collect();
    let devices = a.devices()?;
    let bar = progress(devices.len());
    // Wrong inputs are refused here, with the model's words.
    model.data(named.iter().copied())?;
    let peer = a.against.map(|Against::Onnxruntime| peer::values(&a.model, &model, &inputs)).transpose()?;
    let mut reports: Vec<GraphCheck> = Vec::new();
    let mut outputs = Vec::new();
    for device in devices {
        bar.set_message(device.to_string());
        let tolerance = Tolerance::new(a.tolerance());
        if let Some(peer) = &peer {
            reports.push(check_onnx_values(&model, &named, &device, tolerance, |name| peer.get(name))?);
        } else if expected.is_empty() {
            reports.push(check_onnx(&model, &named, &device, tolerance)?);
        }
        if !expected.is_empty() {
            let all = model.to_device(&device)?.run(named.iter().copied())?;
            outputs.push((device.to_string(), expected.compare(&all, tolerance)?));
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let passed = reports.iter().all(GraphCheck::passed) && outputs.iter().flat_map(|(_, o)| o).all(|o| o.1.is_ok());
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
        print_json(&json!({
            "model": a.model.display().to_string(), "passed": passed, "devices": all.collect::<Vec<_>>(),
            "against": peer.as_ref().map(|p| &p.version), "expected": expected.json(&outputs),
        }))?;
    } else {
        reports.iter().try_for_each(say)?;
        say_expected(&outputs)?;
        say(match (passed, &peer) {
            (false, _) => "FAILED".into(),
            (true, Some(peer)) => format!("every device agrees with ONNX Runtime {}", peer.version),
            (true, None) if reports.is_empty() => "every device gives what is expected".into(),
            (true, None) => "every device agrees with the f64 reference".into(),
        })?;
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}
