//! The command `recurve check`.

use crate::arguments::{NamedFile, parse_device, parse_size, read_inputs};
use crate::terminal::{print_json, progress, say};
use crate::{FAILED, Outcome};
use recurve::testing::{CheckError, CrossCheck, LayerCheck, Tolerance, cross_check};
use recurve::{Device, DeviceSelector, HostArray, HostData, InputConfig, LayerConfig, Model, NamedLayer};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The model file: Recurve's own, or ONNX.
    pub(crate) model: PathBuf,
    /// An input array (.npy or .npz); without any, made-up input of `--batch` and `--seq`.
    #[arg(long = "input", value_name = "NAME=FILE")]
    pub(crate) inputs: Vec<NamedFile>,
    /// Devices to check; every one there is, software included, unless given.
    #[arg(long = "device", value_delimiter = ',', value_parser = parse_device)]
    pub(crate) devices: Vec<DeviceSelector>,
    /// Sequences of the made-up input.
    #[arg(long, default_value = "2", value_parser = parse_size, allow_negative_numbers = true)]
    pub(crate) batch: usize,
    /// Timesteps of the made-up input.
    #[arg(long, default_value = "32", value_parser = parse_size, allow_negative_numbers = true)]
    pub(crate) seq: usize,
    /// Error allowed, absolute and relative.
    #[arg(long, default_value = "2e-5", value_parser = parse_tolerance, allow_negative_numbers = true)]
    pub(crate) tolerance: f64,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_tolerance(s: &str) -> Result<f64, String> {
    match s.trim().parse::<f64>() {
        Ok(v) if v.is_finite() && v >= 0.0 => Ok(v),
        _ => Err("a finite number of at least 0 is needed".into()),
    }
}

/// Largest number of elements of all layers' outputs together: the reference keeps all of them as f64.
const MAX_ELEMENTS: u128 = 1 << 28;

/// Checks that the outputs of all layers for an input of this shape fit into memory.
fn check_size(model: &Model, shape: &[usize]) -> Result<(), String> {
    let any = |n: usize, d: Option<usize>| d.unwrap_or_else(|| shape.get(n).copied().unwrap_or(1)) as u128;
    let elements =
        |dims: &Vec<Option<usize>>| dims.iter().enumerate().fold(1u128, |all, (n, d)| all.saturating_mul(any(n, *d)));
    let summary = model.summary();
    let outputs = summary.layers.iter().flat_map(|l| &l.output_shapes).map(elements);
    let all = outputs.fold(0u128, u128::saturating_add);
    if all <= MAX_ELEMENTS {
        return Ok(());
    }
    Err(format!(
        "an input of shape {shape:?} makes {all} outputs in all layers, but at most {MAX_ELEMENTS} are checked at once"
    ))
}

pub(crate) fn run(a: &Arguments) -> Outcome {
    let model = Model::open(&a.model, &Device::Cpu)?;
    let inputs = if a.inputs.is_empty() {
        let own = &model.info().network.inputs;
        own.iter().map(|i| Ok((i.name.clone(), made_up(&model, i, a.batch, a.seq)?))).collect::<Result<_, String>>()?
    } else {
        read_inputs(&a.inputs)?
    };
    for (_, x) in inputs.iter().filter(|(n, _)| model.info().network.inputs.iter().any(|i| i.name == *n)) {
        check_size(&model, &x.shape)?;
    }
    let named: Vec<_> = inputs.iter().map(|(n, x)| (n.as_str(), x.clone())).collect();
    let devices = if a.devices.is_empty() {
        Device::all()
    } else {
        a.devices.iter().map(Device::open).collect::<Result<_, _>>()?
    };
    let bar = progress(devices.len());
    let mut all = CrossCheck::default();
    for device in devices {
        bar.set_message(device.to_string());
        let report = match cross_check(&model, &named, &[device], Tolerance::new(a.tolerance)) {
            Ok(report) | Err(CheckError::Mismatch(report)) => report,
            Err(e) => return Err(e.into()),
        };
        all.devices.extend(report.devices);
        bar.inc(1);
    }
    bar.finish_and_clear();
    if a.json {
        let devices: Vec<_> = all
            .devices
            .iter()
            .map(|d| {
                let layers: Vec<_> = d.layers.iter().map(layer).collect();
                json!({ "device": d.device, "layers": layers, "first_wrong_alone": d.alone.as_ref().map(layer) })
            })
            .collect();
        print_json(&json!({ "model": model.info().name, "passed": all.passed(), "devices": devices }))?;
    } else {
        say(&all)?;
        say(if all.passed() { "every device agrees with the f64 reference" } else { "FAILED" })?;
    }
    Ok(if all.passed() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// The result of a layer as JSON.
fn layer(l: &LayerCheck) -> serde_json::Value {
    let error = l.result.as_ref().err().map(ToString::to_string);
    let worst = l.result.as_ref().ok();
    json!({
        "layer": l.layer, "shape": l.shape, "passed": l.result.is_ok(), "error": error,
        "worst_error": worst.map(|a| a.worst_error),
        "worst_index": worst.map(|a| a.worst_index),
    })
}

/// The number of ids that every embedding that reads an input has; embeddings may be inside other layers.
fn id_count(model: &Model, input: &str) -> usize {
    fn of(layer: &LayerConfig) -> usize {
        match layer {
            LayerConfig::Embedding(e) => e.input_dim,
            LayerConfig::TimeDistributed(t) => of(&t.layer),
            _ => usize::MAX,
        }
    }
    let reads = |l: &&NamedLayer| l.calls.iter().flatten().any(|v| v.of == input);
    let counts = model.info().network.layers.iter().filter(reads).map(|l| of(&l.layer));
    counts.min().unwrap_or(1).clamp(1, u32::MAX as usize)
}

/// Generated input of the right shape and type, the same in every run.
fn made_up(model: &Model, input: &InputConfig, batch: usize, seq: usize) -> Result<HostArray, String> {
    let any = [batch, seq];
    let shape: Vec<usize> =
        input.shape.iter().enumerate().map(|(n, d)| d.unwrap_or(*any.get(n).unwrap_or(&1))).collect();
    check_size(model, &shape)?;
    let count = shape.iter().fold(1u128, |all, &d| all.saturating_mul(d as u128));
    if count > MAX_ELEMENTS {
        return Err(format!(
            "an input of shape {shape:?} is larger than the {MAX_ELEMENTS} elements that are generated"
        ));
    }
    // A multiplicative sequence (Lehmer); any varied values would do.
    let mut state = 0x2545_F491u64;
    let mut next = move || {
        state = state * 48_271 % 0x7fff_ffff;
        state
    };
    let data = if input.ids {
        let ids = id_count(model, &input.name) as u64;
        HostData::Int((0..count).map(|_| (next() % ids) as i64).collect())
    } else {
        HostData::Float((0..count).map(|_| (next() % 20_001) as f32 * 1e-4 - 1.0).collect())
    };
    Ok(HostArray { shape, data })
}
