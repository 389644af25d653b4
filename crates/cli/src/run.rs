//! The command `recurve run`.

use crate::Outcome;
use crate::arguments::{
    NamedFile, Wanted, check_output, names, near, open_model, parse_device, parse_state, read_inputs, say_notes,
};
use crate::terminal::{print_json, say};
use recurve::{Device, DeviceSelector, Input, Model, NamedLayer, Reading, StatePair, Tensor, write_array};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The model file: Recurve's own, ONNX, Keras (.keras, .h5, or a JSON description), or a description in TOML of a
    /// network of PyTorch's weights; with --wav also the TOML file that names models of audio.
    pub(crate) model: PathBuf,
    /// The file with the weights of a Keras description (JSON) that has none.
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: Option<PathBuf>,
    /// An input: .npy, .npz (NAME=FILE.npz:ARRAY where the array is not called NAME), .wav, or numbers in a .txt.
    #[arg(long = "input", value_name = "NAME=FILE")]
    pub(crate) inputs: Vec<NamedFile>,
    /// Where to write an output (.npy or .npz).
    #[arg(long = "output", value_name = "NAME=FILE")]
    pub(crate) outputs: Vec<NamedFile>,
    /// Text, for a model with a vocabulary.
    #[arg(long, conflicts_with = "inputs")]
    pub(crate) text: Option<String>,
    /// Stop after this node of an ONNX file (or layer of a model), and give what it makes as outputs.
    #[arg(long, value_name = "NODE", conflicts_with_all = ["text", "wav"])]
    pub(crate) until: Option<String>,
    /// An output of an ONNX model that is an input of the next call, instead of those that names show.
    #[arg(long = "state", value_name = "IN=OUT", value_parser = parse_state)]
    pub(crate) states: Vec<StatePair>,
    /// A recording for an ONNX model of audio, or a folder of them; MODEL.toml says what the model takes.
    #[arg(long, value_name = "FILE.wav", conflicts_with_all = ["inputs", "text", "outputs"])]
    pub(crate) wav: Vec<PathBuf>,
    /// Where to write the audio that the model makes; of several recordings, the folder.
    #[arg(short = 'o', long = "wav-output", value_name = "FILE.wav", requires = "wav")]
    pub(crate) wav_output: Option<PathBuf>,
    /// What the model takes, where it is not in MODEL.toml.
    #[arg(long, value_name = "FILE.toml", requires = "wav")]
    pub(crate) audio: Option<PathBuf>,
    /// auto, cpu, gpu, gpu:NAME, vulkan, metal, dx12, gl or pci:0000:65:00.0.
    #[arg(long, default_value = "auto", value_parser = parse_device)]
    pub(crate) device: DeviceSelector,
    /// Say of an ONNX file which cells run as recurrent layers, and why others do not.
    #[arg(long, conflicts_with = "wav")]
    pub(crate) explain: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(a: &Arguments) -> Outcome {
    a.outputs.iter().try_for_each(|f| check_output(&f.path))?;
    if !a.wav.is_empty() {
        return Err("`--wav` is for ONNX models, and for TOML files that name them (see docs/audio.md)".into());
    }
    if !a.states.is_empty() {
        return Err("`--state` is for ONNX models".into());
    }
    if a.explain {
        return Err("`--explain` is for ONNX models".into());
    }
    let device = Device::open(&a.device)?;
    let model = open_model(&a.model, a.weights.as_deref(), &device)?;
    let own: Vec<&str> = match &a.until {
        Some(layer) => vec![layer],
        None => model.info().network.outputs.iter().map(|o| &o.name[..]).collect(),
    };
    if let Some(f) = a.outputs.iter().find(|f| !own.contains(&&f.name[..])) {
        let is = if own.len() == 1 { "output is" } else { "outputs are" };
        return Err(format!("output `{}`: this model's {is} {}", f.name, names(own.into_iter())).into());
    }
    match &a.text {
        Some(text) => read_text(a, &model, text),
        None => arrays(a, &model),
    }
}

fn read_text(a: &Arguments, model: &Model, text: &str) -> Outcome {
    if !a.outputs.is_empty() {
        return Err("`--output` goes with `--input`; with `--text` the readings are printed".into());
    }
    // Run once before timing, so that the printed time does not include compilation.
    model.read_text(text)?;
    let started = Instant::now();
    let readings = model.read_text(text)?;
    let ms = started.elapsed().as_secs_f64() * 1e3;
    if a.json {
        let list: Vec<_> = readings
            .iter()
            .map(|r| {
                json!({
                    "index": r.index, "character": r.character.to_string(), "label": r.label,
                    "probability": r.probability,
                })
            })
            .collect();
        print_json(&json!({
            "model": model.info().name, "device": model.device().to_string(), "text": text,
            "readings": list, "ms": ms,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    say(format_args!("device: {}", model.device()))?;
    say(format_args!("model:  {}", model.info().name))?;
    say(annotated(text, &readings))?;
    for r in &readings {
        say(format_args!("{:4}  {}  {:8} {:5.1} %", r.index + 1, r.character, r.label, r.probability * 100.0))?;
    }
    if readings.is_empty() {
        say("no character in this text is ambiguous to the model")?;
    }
    say(format_args!("{ms:.2} ms for {} characters", text.chars().count()))?;
    Ok(ExitCode::SUCCESS)
}

/// The text with a label after each ambiguous character.
fn annotated(text: &str, readings: &[Reading]) -> String {
    let mut out = String::new();
    let mut next = readings.iter().peekable();
    for (i, c) in text.chars().enumerate() {
        out.push(c);
        if let Some(r) = next.next_if(|r| r.index == i) {
            out.push_str(&format!("({})", r.label));
        }
    }
    out
}

fn arrays(a: &Arguments, model: &Model) -> Outcome {
    if a.inputs.is_empty() {
        let text = if model.info().text.is_some() { ", or `--text TEXT`" } else { "" };
        let wanted: Vec<_> = model.info().network.inputs.iter().map(|i| format!("--input {}=FILE", i.name)).collect();
        return Err(format!("nothing to run on: give `{}`{text}", wanted.join(" ")).into());
    }
    let inputs = read_inputs(&a.inputs, model.info().network.inputs.iter().map(Wanted::from))?;
    if let Some(layer) = &a.until {
        // As a trace names them.
        let calls = |l: &NamedLayer| {
            let call = |n: usize| if n == 0 { l.name.clone() } else { format!("{} call {n}", l.name) };
            (0..l.calls.len()).map(call).collect::<Vec<_>>()
        };
        let layers: Vec<String> = model.info().network.layers.iter().flat_map(calls).collect();
        if !layers.contains(layer) {
            let near = near(layer, layers.iter().map(String::as_str));
            return Err(format!("`--until {layer}`: this model has no such layer; it has {near}").into());
        }
    }
    let call = || -> recurve::Result<_> {
        let given = inputs.iter().map(|(n, x)| (n.as_str(), Input::Host(x.clone())));
        let all = match &a.until {
            None => model.run_all(given)?,
            Some(layer) => layer_output(model, given, layer)?,
        };
        all.into_iter().map(|(name, y)| Ok((name, y.dims().to_vec(), y.to_vec()?))).collect::<recurve::Result<Vec<_>>>()
    };
    call()?;
    let started = Instant::now();
    let all = call()?;
    let ms = started.elapsed().as_secs_f64() * 1e3;
    for f in &a.outputs {
        for (_, dims, data) in all.iter().filter(|(name, ..)| *name == f.name) {
            write_array(&f.path, f.array.as_ref().unwrap_or(&f.name), dims, data)?;
        }
    }
    if a.json {
        let data = |data: &Vec<f32>| if a.outputs.is_empty() { json!(data) } else { json!(null) };
        let (name, dims, first) = &all[0];
        let mut out = json!({
            "model": model.info().name, "device": model.device().to_string(), "output": name, "shape": dims,
            "data": data(first), "ms": ms,
        });
        if all.len() > 1 {
            let each = all.iter().map(|(name, dims, v)| json!({ "output": name, "shape": dims, "data": data(v) }));
            out["outputs"] = each.collect();
        }
        print_json(&out)?;
    } else {
        say(format_args!("device: {}", model.device()))?;
        say(format_args!("model:  {}", model.info().name))?;
        say_notes(model.notes())?;
        for (name, dims, data) in &all {
            say(format_args!("{name}: shape {dims:?}"))?;
            if a.outputs.is_empty() {
                let shown: Vec<_> = data.iter().take(8).map(|v| format!("{v:.6}")).collect();
                say(format_args!("  {}{}", shown.join(" "), if data.len() > 8 { " …" } else { "" }))?;
            }
        }
        say(format_args!("{ms:.2} ms"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The first output of a layer.
fn layer_output<'a>(
    model: &Model,
    inputs: impl Iterator<Item = (&'a str, Input)>,
    layer: &str,
) -> recurve::Result<Vec<(String, Tensor)>> {
    let inputs = model.inputs(inputs)?;
    let all = model.network().forward_traced(&inputs.named(), &inputs.args())?;
    Ok(all.into_iter().filter(|(name, _)| name == layer).collect())
}
