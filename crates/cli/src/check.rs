//! The command `recurve check`.

use crate::arguments::{NamedFile, Wanted, names, open_model, parse_device, parse_size, read_inputs};
use crate::terminal::{print_json, progress, say};
use crate::{FAILED, Outcome};
use clap::ValueEnum;
use recurve::testing::{
    Agreement, CheckError, CrossCheck, LayerCheck, Mismatch, Tolerance, check_size, compare_arrays, cross_check,
    example_inputs,
};
use recurve::{Device, DeviceSelector, HostArray, HostData, Input, Model};
use serde_json::json;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The model file: Recurve's own, ONNX, Keras (.keras, .h5, or a JSON description), or a description in TOML of a
    /// network of PyTorch's weights.
    pub(crate) model: PathBuf,
    /// The file with the weights of a Keras description (JSON) that has none.
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: Option<PathBuf>,
    /// An input (.npy, .npz, .wav or .txt); without any, made-up input of `--batch` and `--seq`.
    #[arg(long = "input", value_name = "NAME=FILE")]
    pub(crate) inputs: Vec<NamedFile>,
    /// Compare an output with an array (.npy or .npz), instead of every layer or node with the reference.
    #[arg(long = "expect", value_name = "NAME=FILE", requires = "inputs")]
    pub(crate) expect: Vec<NamedFile>,
    /// Compare every node of an ONNX file with this program, which Python must have, instead of the reference.
    #[arg(long)]
    pub(crate) against: Option<Against>,
    /// Devices to check; every one there is, software included, unless given.
    #[arg(long = "device", value_delimiter = ',', value_parser = parse_device)]
    pub(crate) devices: Vec<DeviceSelector>,
    /// Sequences of the made-up input.
    #[arg(long, default_value = "2", value_parser = parse_size, allow_negative_numbers = true)]
    pub(crate) batch: usize,
    /// Timesteps of the made-up input.
    #[arg(long, default_value = "32", value_parser = parse_size, allow_negative_numbers = true)]
    pub(crate) seq: usize,
    /// Error allowed, absolute and relative: 2e-5 unless given, with `--expect` and `--against` 1e-4.
    #[arg(long, value_parser = parse_tolerance, allow_negative_numbers = true)]
    tolerance: Option<f64>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A program whose numbers a model's are held against.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Against {
    /// ONNX Runtime
    Onnxruntime,
}

impl Arguments {
    /// The devices to check.
    pub(crate) fn devices(&self) -> Result<Vec<Device>, recurve::TensorError> {
        match &self.devices[..] {
            [] => Ok(Device::all()),
            some => some.iter().map(Device::open).collect(),
        }
    }

    /// The error allowed. Other programs round as we do, but not the reference.
    pub(crate) fn tolerance(&self) -> f64 {
        let rounded = self.against.is_some() || !self.expect.is_empty();
        self.tolerance.unwrap_or(if rounded { 1e-4 } else { 2e-5 })
    }
}

/// Arrays that outputs must be, by name.
pub(crate) struct Expected(Vec<(String, HostArray)>);

/// An output beside what is expected.
pub(crate) type Compared = Vec<(String, Result<Agreement, Mismatch>)>;

/// Reads what is expected.
pub(crate) fn expected(a: &Arguments) -> Result<Expected, Box<dyn Error>> {
    let all = a.expect.iter().map(|f| Ok((f.name.clone(), f.read()?)));
    Ok(Expected(all.collect::<Result<_, Box<dyn Error>>>()?))
}

impl Expected {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares the outputs that are named.
    pub(crate) fn compare(&self, outputs: &[(String, HostArray)], tolerance: Tolerance) -> Result<Compared, String> {
        let one = |(name, want): &(String, HostArray)| {
            let Some((_, got)) = outputs.iter().find(|(n, _)| n == name) else {
                return Err(format!(
                    "`--expect {name}`: this model has {}",
                    names(outputs.iter().map(|(n, _)| &n[..]))
                ));
            };
            Ok((name.clone(), compare_arrays(got, want, tolerance)))
        };
        self.0.iter().map(one).collect()
    }

    /// The results on each device.
    pub(crate) fn json(&self, outputs: &[(String, Compared)]) -> serde_json::Value {
        let one = |(name, result): &(String, Result<Agreement, Mismatch>)| {
            json!({
                "output": name, "passed": result.is_ok(), "worst_error": result.as_ref().ok().map(|r| r.worst_error),
                "error": result.as_ref().err().map(ToString::to_string),
            })
        };
        let device = |(device, all): &(String, Compared)| json!({ "device": device, "outputs": all.iter().map(one).collect::<Vec<_>>() });
        outputs.iter().map(device).collect()
    }
}

/// Prints how outputs compare with what is expected.
pub(crate) fn say_expected(outputs: &[(String, Compared)]) -> Result<(), Box<dyn Error>> {
    for (device, all) in outputs {
        say(device)?;
        for (name, result) in all {
            match result {
                Ok(r) => {
                    say(format_args!("  {name}: ok    worst error {:.2e} of {} elements", r.worst_error, r.count))?
                }
                Err(e) => say(format_args!("  {name}: WRONG {e}"))?,
            }
        }
        say("")?;
    }
    Ok(())
}

fn parse_tolerance(s: &str) -> Result<f64, String> {
    match s.trim().parse::<f64>() {
        Ok(v) if v.is_finite() && v >= 0.0 => Ok(v),
        _ => Err("a finite number of at least 0 is needed".into()),
    }
}

pub(crate) fn run(a: &Arguments) -> Outcome {
    if a.against.is_some() {
        return Err("`--against` is for ONNX files".into());
    }
    let expected = expected(a)?;
    let model = open_model(&a.model, a.weights.as_deref(), &Device::Cpu)?;
    let inputs = if a.inputs.is_empty() {
        example_inputs(&model, a.batch, a.seq)?
    } else {
        read_inputs(&a.inputs, model.info().network.inputs.iter().map(Wanted::from))?
    };
    for (name, x) in inputs.iter().filter(|(n, _)| model.info().network.inputs.iter().any(|i| i.name == *n)) {
        check_size(&model, name, &x.shape)?;
    }
    let named: Vec<_> = inputs.iter().map(|(n, x)| (n.as_str(), x.clone())).collect();
    let devices = a.devices()?;
    if !expected.is_empty() {
        return check_outputs(a, &model, &named, &devices, &expected);
    }
    let bar = progress(devices.len());
    let mut all = CrossCheck::default();
    for device in devices {
        bar.set_message(device.to_string());
        let report = match cross_check(&model, &named, &[device], Tolerance::new(a.tolerance())) {
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

/// Compares outputs on each device with what is expected.
fn check_outputs(
    a: &Arguments,
    model: &Model,
    inputs: &[(&str, HostArray)],
    devices: &[Device],
    expected: &Expected,
) -> Outcome {
    let mut outputs = Vec::new();
    for device in devices {
        let here = model.to_device(device)?;
        let all = here.run_all(inputs.iter().map(|(n, x)| (*n, Input::Host(x.clone()))))?;
        let read = |(name, y): (String, recurve::Tensor)| {
            let array = HostArray { shape: y.dims().to_vec(), data: HostData::Float(y.to_vec()?) };
            Ok::<_, recurve::TensorError>((name, array))
        };
        let all = all.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
        outputs.push((device.to_string(), expected.compare(&all, Tolerance::new(a.tolerance()))?));
    }
    let passed = outputs.iter().flat_map(|(_, o)| o).all(|o| o.1.is_ok());
    if a.json {
        print_json(&json!({ "model": model.info().name, "passed": passed, "expected": expected.json(&outputs) }))?;
    } else {
        say_expected(&outputs)?;
        say(if passed { "every device gives what is expected" } else { "FAILED" })?;
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
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
