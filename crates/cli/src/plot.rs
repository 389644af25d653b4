//! The command `recurve plot`.

use crate::arguments::{check_output, parse_device, write_output};
use crate::terminal::{print_json, say};
use crate::{Outcome, picture};
use recurve::{Device, DeviceSelector, Model};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The model file.
    model: PathBuf,
    /// The file to write, .svg or .png.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
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
    let model = Model::open(&a.model, &Device::open(&a.device)?)?;
    let svg = picture::svg(&model.summary(), &model.info().network.inputs);
    let bytes = if extension == "png" { picture::png(&svg)? } else { svg.into_bytes() };
    write_output(&a.output, &bytes)?;
    if a.json {
        print_json(&json!({ "model": model.info().name, "output": a.output }))?;
    } else {
        say(format_args!("wrote {}", a.output.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
