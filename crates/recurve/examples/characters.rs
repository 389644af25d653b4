//! A character model: learns to continue a text, letter by letter, and then writes on its own.
//!
//! The text is cut in pieces of `--length` characters. An embedding, one recurrent layer and a dense layer give, for each
//! character of a piece, the logits of the next one. The letters that are written are drawn on the device and read back
//! once, at the end.
//!
//! `cargo run --release --example characters -- --text FILE [--layer simple_rnn|lstm|gru] [--units N] [--epochs N]
//! [--length N] [--batch N] [--begin TEXT] [--write N] [--temperature X] [--device NAME] [--seed N] [--save FILE]`

use clap::Parser;
use recurve::train::{Adam, Array, Clip, Dataset, FitOptions, Form, Loss, Metric, OutputMetric, StepOptions, Trainer};
use recurve::{
    Dense, Device, Embedding, GenerateOptions, Gru, LayerConfig, Lstm, Model, Sampling, Sequential, SimpleRnn, Tensor,
};
use std::collections::BTreeSet;
use std::error::Error;
use std::path::PathBuf;

#[derive(Parser)]
#[command(about = "Trains on a text and writes on in its manner.")]
pub(crate) struct Arguments {
    /// The text to learn from, in UTF-8.
    #[arg(long)]
    text: PathBuf,
    /// The recurrent layer.
    #[arg(long, default_value = "lstm", value_parser = ["simple_rnn", "lstm", "gru"])]
    layer: String,
    #[arg(long, default_value_t = 128)]
    units: usize,
    #[arg(long, default_value_t = 10)]
    epochs: usize,
    /// Characters of a piece.
    #[arg(long, default_value_t = 100)]
    length: usize,
    /// Pieces a step.
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// The beginning of what is written; without one, that of the text.
    #[arg(long)]
    begin: Option<String>,
    /// How many characters are written.
    #[arg(long, default_value_t = 400)]
    write: usize,
    /// Below 1 the likely letters become more likely.
    #[arg(long, default_value_t = 0.8)]
    temperature: f32,
    /// auto, cpu, gpu, or a backend and a name such as vulkan:nvidia.
    #[arg(long, default_value = "auto")]
    device: String,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Saves the trained model.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

/// Trains on a text. Returns the perplexity of each epoch, and what the model writes then.
pub(crate) fn learn(a: &Arguments, text: &str, device: &Device) -> Result<(Vec<f64>, String), Box<dyn Error>> {
    let letters: Vec<char> = text.chars().collect::<BTreeSet<_>>().into_iter().collect();
    let id = |c: char| {
        let place = letters.binary_search(&c).map_err(|_| format!("`{c}` is not in the text"));
        place.map(|n| n as u32)
    };
    let ids = text.chars().map(id).collect::<Result<Vec<_>, _>>()?;
    let pieces = ids.len().saturating_sub(1) / a.length.max(1);
    if a.length == 0 || pieces < a.batch {
        return Err(format!("a text of {} characters has less than {} pieces", ids.len(), a.batch).into());
    }
    let used = pieces * a.length;
    let inputs = Array::u32(ids[..used].to_vec(), &[pieces, a.length])?;
    let targets = Array::u32(ids[1..=used].to_vec(), &[pieces, a.length])?;
    let data = Dataset::new(inputs, targets)?;

    let layer: LayerConfig = match &*a.layer {
        "simple_rnn" => SimpleRnn::new(a.units).return_sequences(true).into(),
        "gru" => Gru::new(a.units).return_sequences(true).into(),
        _ => Lstm::new(a.units).return_sequences(true).into(),
    };
    let network = Sequential::new()
        .add(Embedding::new(letters.len(), a.units.min(64)))
        .add(layer)
        .add(Dense::new(letters.len()))
        .seed(a.seed)
        .build(&[None, None], device)?;
    let perplexity = OutputMetric::new(Metric::Perplexity { from_logits: true });
    let options =
        StepOptions::new(Loss::sparse_categorical_crossentropy().from_logits(), Adam::keras().learning_rate(0.003));
    let options = options.clip(Clip::GlobalNorm { norm: 1.0, form: Form::Keras }).metric(perplexity).seed(a.seed);
    let mut trainer = Trainer::compile(&network, options)?;
    let history = trainer.fit(&data, FitOptions::new().epochs(a.epochs).batch_size(a.batch))?;

    let trained = trainer.network()?;
    let begin: Vec<u32> = match &a.begin {
        Some(text) => text.chars().map(id).collect::<Result<_, _>>()?,
        None => ids[..a.length.min(20)].to_vec(),
    };
    let prompt = Tensor::from_u32(&begin, &[1, begin.len()], device)?;
    let options = GenerateOptions {
        max_new_tokens: a.write,
        sampling: Sampling::Random { temperature: a.temperature, top_k: None },
        seed: a.seed as u32,
        ..GenerateOptions::default()
    };
    let (tokens, _) = trained.generate(&prompt, None, &options)?;
    let all = begin.into_iter().chain(tokens.to_vec_u32()?);
    let written = all.map(|id| letters[id as usize]).collect();
    if let Some(path) = &a.save {
        Model::new("characters", trained).save(path)?;
    }
    Ok((history.get("perplexity"), written))
}

#[allow(dead_code, reason = "the tests include this file and call the function above")]
fn main() -> Result<(), Box<dyn Error>> {
    let a = Arguments::parse();
    let text = std::fs::read_to_string(&a.text).map_err(|e| format!("{}: {e}", a.text.display()))?;
    let device = Device::by_name(&a.device)?;
    let (perplexity, written) = learn(&a, &text, &device)?;
    for (epoch, p) in perplexity.iter().enumerate() {
        println!("epoch {:2}: perplexity {p:.3}", epoch + 1);
    }
    println!("\n{written}");
    Ok(())
}
