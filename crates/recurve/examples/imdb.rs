//! Sentiment of film reviews: the IMDB chapter of the Keras book, trained here.
//!
//! Reviews of the 10,000 most common words, cut and padded in front to 500, go through an embedding of 32 numbers, one
//! recurrent layer of 32 units and one sigmoid unit, with RMSprop, the binary cross-entropy and a fifth of the reviews to
//! validate with.
//!
//! `cargo run --release --example imdb -- --data FILE [--layer simple_rnn|lstm|gru] [--epochs N] [--batch N]
//! [--device NAME] [--seed N] [--plot curves.svg] [--save model.safetensors] [--json]`
//!
//! The reviews are not part of this project. `benches/peers/imdb_data.py` makes FILE from Keras's `imdb.npz`, which
//! `keras.datasets.imdb.load_data()` fetches.

use clap::Parser;
use flate2::read::GzDecoder;
use recurve::train::{
    Array, Callback, Dataset, FitOptions, Logs, Loss, OutputMetric, Padding, Position, ProgressBar, RmsProp, Sequences,
    StepOptions, Trainer,
};
use recurve::{Activation, Dense, Device, Embedding, Gru, LayerConfig, Lstm, Model, Sequential, SimpleRnn};
use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The number of words, the length of a review, the size of a word's vector, the units of the layer.
const WORDS: usize = 10_000;
const LENGTH: usize = 500;
const SIZE: usize = 32;

#[derive(Parser)]
#[command(about = "Trains on film reviews to tell good ones from bad ones.")]
struct Arguments {
    /// The reviews, as benches/peers/imdb_data.py writes them.
    #[arg(long)]
    data: PathBuf,
    /// The recurrent layer.
    #[arg(long, default_value = "lstm", value_parser = ["simple_rnn", "lstm", "gru"])]
    layer: String,
    #[arg(long, default_value_t = 10)]
    epochs: usize,
    /// Reviews a step.
    #[arg(long, default_value_t = 128)]
    batch: usize,
    /// auto, cpu, gpu, or a backend and a name such as vulkan:nvidia.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Decides the initial weights and the order of the reviews.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Draws loss and accuracy, in a file .svg or .png.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Saves the trained model, which `recurve run` and `recurve check` read.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Prints one line of JSON an epoch.
    #[arg(long)]
    json: bool,
}

/// Reads reviews to train and to test with: a gzip stream of "IMDB10K1", how many there are of each, and for each review
/// its label, its length and its words.
pub(crate) fn read(path: &Path) -> Result<[Dataset; 2], Box<dyn Error>> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
    GzDecoder::new(file).read_to_end(&mut bytes).map_err(|e| format!("{}: {e}", path.display()))?;
    let short = || format!("{}: ends too early", path.display());
    let mut rest = &bytes[..];
    let mut take = |n: usize| -> Result<&[u8], String> {
        let (own, others) = rest.split_at_checked(n).ok_or_else(short)?;
        rest = others;
        Ok(own)
    };
    if take(8)? != b"IMDB10K1" {
        return Err(format!("{}: is no file of reviews", path.display()).into());
    }
    let mut counts = [0; 2];
    for count in &mut counts {
        *count = u32::from_le_bytes(take(4)?.try_into()?) as usize;
    }
    let mut parts = Vec::new();
    for count in counts {
        let (mut labels, mut reviews) = (Vec::new(), Vec::new());
        for _ in 0..count {
            labels.push(f32::from(take(1)?[0]));
            let length = u16::from_le_bytes(take(2)?.try_into()?) as usize;
            let words = take(2 * length)?.chunks_exact(2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]])));
            reviews.push(words.collect::<Vec<_>>());
        }
        let reviews = Sequences::of_ids(reviews, Padding::new().length(LENGTH))?;
        parts.push(Dataset::new(reviews, Array::f32(labels, &[count, 1])?)?);
    }
    Ok(parts.try_into().expect("two parts"))
}

/// The model of the chapter, not trained yet.
pub(crate) fn trainer(layer: &str, seed: u64, device: &Device) -> Result<Trainer, Box<dyn Error>> {
    let layer: LayerConfig = match layer {
        "simple_rnn" => SimpleRnn::new(SIZE).into(),
        "lstm" => Lstm::new(SIZE).into(),
        "gru" => Gru::new(SIZE).into(),
        other => return Err(format!("there is no layer {other}").into()),
    };
    let network = Sequential::new()
        .add(Embedding::new(WORDS, SIZE))
        .add(layer)
        .add(Dense::new(1).activation(Activation::Sigmoid))
        .seed(seed)
        .build(&[None, Some(LENGTH)], device)?;
    let loss = Loss::binary_crossentropy();
    let accuracy = OutputMetric::accuracy(&loss)?;
    Ok(Trainer::compile(&network, StepOptions::new(loss, RmsProp::keras()).metric(accuracy).seed(seed))?)
}

/// Prints a line of JSON an epoch.
struct Lines(Instant);

impl Callback for Lines {
    fn epoch_begin(&mut self, _: &mut Trainer, _: Position) -> recurve::train::Result<()> {
        self.0 = Instant::now();
        Ok(())
    }

    fn epoch_end(&mut self, _: &mut Trainer, at: Position, logs: &mut Logs) -> recurve::train::Result<()> {
        let seconds = self.0.elapsed().as_secs_f64();
        let numbers: String = logs.iter().map(|(name, v)| format!("\"{name}\":{v:.6},")).collect();
        println!("{{\"epoch\":{},{numbers}\"seconds\":{seconds:.3}}}", at.epoch + 1);
        Ok(())
    }
}

#[allow(dead_code, reason = "the tests include this file and call the functions above")]
fn main() -> Result<(), Box<dyn Error>> {
    let a = Arguments::parse();
    let device = Device::by_name(&a.device)?;
    let [train, test] = read(&a.data)?;
    let mut trainer = trainer(&a.layer, a.seed, &device)?;
    let options = FitOptions::new().epochs(a.epochs).batch_size(a.batch).validation_split(0.2);
    let options = if a.json { options.callback(Lines(Instant::now())) } else { options.callback(ProgressBar::new()) };
    let history = trainer.fit(&train, options)?;
    let scores = trainer.evaluate(&test, a.batch)?;
    let [loss, accuracy] = ["loss", "accuracy"].map(|n| scores.get(n).unwrap_or(f64::NAN));
    if a.json {
        println!("{{\"test_loss\":{loss:.6},\"test_accuracy\":{accuracy:.6}}}");
    } else {
        println!("test: loss {loss:.4}  accuracy {accuracy:.4}");
    }
    if let Some(path) = &a.plot {
        history.save_plot(path)?;
    }
    if let Some(path) = &a.save {
        Model::new("imdb", trainer.network()?).save(path)?;
    }
    Ok(())
}
