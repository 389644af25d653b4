//! Many to one: is a review positive or negative? An LSTM reads the words, and its last output is classified.
//!
//! `cargo run --release --example classifier`

use recurve::{Device, Model, Tensor};
use std::error::Error;
use std::path::Path;

const WORDS: [&str; 16] = [
    "<pad>", "the", "film", "plot", "acting", "is", "was", "and", "not", "very", "good", "great", "fun", "bad", "dull",
    "awful",
];

/// The probability that each review is positive. Reviews are padded to the same length; the embedding's `mask_zero`
/// makes the LSTM skip the padding.
pub(crate) fn classify(models: &Path, device: &Device, reviews: &[&str]) -> Result<Vec<f32>, Box<dyn Error>> {
    let model = Model::open(models.join("sentiment.safetensors"), device)?;
    let rows: Vec<Vec<&str>> = reviews.iter().map(|r| r.split_whitespace().collect()).collect();
    let width = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut ids = vec![0; rows.len() * width];
    for (row, out) in rows.iter().zip(ids.chunks_exact_mut(width)) {
        for (word, id) in row.iter().zip(out) {
            let known = WORDS.iter().position(|w| w == word);
            *id = known.ok_or_else(|| format!("`{word}` is not among the words this model knows"))? as u32;
        }
    }
    let tokens = Tensor::from_u32(&ids, &[rows.len(), width], device)?;
    Ok(model.run([("tokens", &tokens)])?.to_vec()?)
}

#[allow(dead_code, reason = "the tests include this file and call the function above")]
fn main() -> Result<(), Box<dyn Error>> {
    let device = Device::best()?;
    let reviews = [
        "the plot was very good and the acting was great and the film is fun",
        "the film is not good",
        "the acting was not bad and the film is not dull and the plot was awful",
    ];
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    for (review, p) in reviews.iter().zip(classify(&models, &device, &reviews)?) {
        println!("{:4}  {p:.3}  {review}", if p > 0.5 { "good" } else { "bad" });
    }
    Ok(())
}
