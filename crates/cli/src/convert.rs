//! The command `recurve convert`.

use crate::Outcome;
use crate::arguments::{check_output, open_model};
use crate::onnx::is_onnx;
use crate::terminal::say;
use recurve::{Device, ExportOptions};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The model file: Recurve's own, or Keras (.keras, .h5, or a JSON description).
    pub(crate) model: PathBuf,
    /// The file with the weights of a Keras description (JSON) that has none.
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: Option<PathBuf>,
    /// The file to write: `.onnx`, or `.safetensors` for Recurve's own format.
    #[arg(short, long)]
    pub(crate) output: PathBuf,
    /// ONNX: an input `lengths`, the number of valid timesteps of each sequence.
    #[arg(long, conflicts_with = "mask")]
    pub(crate) lengths: bool,
    /// ONNX: an input `mask`, which says of each timestep whether it is valid.
    #[arg(long)]
    pub(crate) mask: bool,
    /// ONNX: the states of recurrent layers as inputs and outputs, for streams.
    #[arg(long)]
    pub(crate) states: bool,
}

pub(crate) fn run(a: &Arguments) -> Outcome {
    if is_onnx(&a.model) {
        let message =
            "is an ONNX file, which `recurve run` takes as it is; it has no layers to write in another format";
        return Err(format!("{}: {message}", a.model.display()).into());
    }
    check_output(&a.output)?;
    let model = open_model(&a.model, a.weights.as_deref(), &Device::Cpu)?;
    let options = ExportOptions { lengths: a.lengths, mask: a.mask, states: a.states, ..ExportOptions::default() };
    let extension = a.output.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    match extension.as_str() {
        "onnx" => model.save_onnx(&a.output, &options)?,
        "safetensors" if options == ExportOptions::default() => model.save(&a.output)?,
        "safetensors" => return Err("`--lengths`, `--mask` and `--states` are for ONNX files".into()),
        _ => return Err(format!("{}: the name must end in .onnx or .safetensors", a.output.display()).into()),
    }
    if extension == "onnx" && model.info().text.is_some() {
        say("note: the vocabulary is not in the ONNX file: it takes ids")?;
    }
    say(format_args!("wrote {}", a.output.display()))?;
    Ok(ExitCode::SUCCESS)
}
