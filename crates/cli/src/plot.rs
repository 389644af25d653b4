//! The command `recurve plot`.

use crate::arguments::{check_output, open_model, parse_device, parse_state, write_output};
use crate::terminal::{print_json, say};
use crate::{Outcome, onnx};
use recurve::{Device, DeviceSelector, OnnxModel, OnnxSession, StatePair};
use recurve_pictures::Diagram;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The model file: Recurve's own, ONNX, Keras (.keras, .h5, or a JSON description), or a description in TOML of a
    /// network of PyTorch's weights.
    model: PathBuf,
    /// The file with the weights of a Keras description (JSON) that has none.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// The file to write, .svg or .png.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Draw every node of an ONNX file, instead of one box for small operators that follow each other.
    #[arg(long)]
    every_node: bool,
    /// An output of an ONNX model that is an input of the next call, instead of those that names show.
    #[arg(long = "state", value_name = "IN=OUT", value_parser = parse_state)]
    states: Vec<StatePair>,
    /// The device to load the model on.
    #[arg(long, default_value = "cpu", value_parser = parse_device)]
    device: DeviceSelector,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(a: &Arguments) -> Outcome {
    let extension = a.output.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    if !["svg", "png"].contains(&extension.as_str()) {
        return Err(format!("{}: the name must end in .svg or .png", a.output.display()).into());
    }
    check_output(&a.output)?;
    let device = Device::open(&a.device)?;
    let diagram = if onnx::is_onnx(&a.model) {
        let model = Arc::new(OnnxModel::open(&a.model, &device)?);
        let states = onnx::states(&model, &a.states);
        OnnxSession::with_states(model.clone(), &states, 1)?;
        let name = a.model.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Diagram::of_onnx(&model, &states, &name, a.every_node)
    } else if a.every_node || !a.states.is_empty() {
        return Err("`--every-node` and `--state` are for ONNX files".into());
    } else {
        Diagram::of_model(&open_model(&a.model, a.weights.as_deref(), &device)?)
    };
    let bytes = if extension == "png" { diagram.png()? } else { diagram.svg().into_bytes() };
    write_output(&a.output, &bytes)?;
    if a.json {
        print_json(&json!({ "model": diagram.title(), "output": a.output, "boxes": diagram.boxes() }))?;
    } else {
        say(format_args!("wrote {}", a.output.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
