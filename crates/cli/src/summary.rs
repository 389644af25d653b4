//! The command `recurve summary`.

use crate::Outcome;
use crate::arguments::{open_model, parse_device, parse_state, say_notes};
use crate::terminal::{print_json, say};
use recurve::{Device, DeviceSelector, StatePair};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The model file: Recurve's own, ONNX, Keras (.keras, .h5, or a JSON description), a description in TOML, or a file of
    /// weights (safetensors, PyTorch's).
    pub(crate) model: PathBuf,
    /// The file with the weights of a Keras description (JSON) that has none.
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: Option<PathBuf>,
    /// The device to load the model on.
    #[arg(long, default_value = "cpu", value_parser = parse_device)]
    pub(crate) device: DeviceSelector,
    /// An output of an ONNX model that is an input of the next call, instead of those that names show.
    #[arg(long = "state", value_name = "IN=OUT", value_parser = parse_state)]
    pub(crate) states: Vec<StatePair>,
    /// Say of an ONNX file which cells run as recurrent layers, and why others do not.
    #[arg(long)]
    pub(crate) explain: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(a: &Arguments) -> Outcome {
    if a.explain {
        return Err("`--explain` is for ONNX models".into());
    }
    if !a.states.is_empty() {
        return Err("`--state` is for ONNX models".into());
    }
    let model = open_model(&a.model, a.weights.as_deref(), &Device::open(&a.device)?)?;
    let summary = model.summary();
    if a.json {
        let layers: Vec<_> = summary
            .layers
            .iter()
            .map(|l| {
                json!({
                    "name": l.name, "class": l.class, "input_shape": l.input_shape,
                    "output_shapes": l.output_shapes, "params": l.params,
                    "connected_to": l.connected_to.iter().map(ToString::to_string).collect::<Vec<_>>(),
                })
            })
            .collect();
        print_json(&json!({
            "model": summary.name, "license": model.info().license, "source": model.info().source,
            "notes": model.notes(), "layers": layers, "total_params": summary.total_params,
        }))?;
    } else {
        say(summary)?;
        say_notes(model.notes())?;
    }
    Ok(ExitCode::SUCCESS)
}
