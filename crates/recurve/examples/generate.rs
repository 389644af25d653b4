//! One to many: names of stars, letter by letter. Each letter is drawn on the device and is the next input; the names
//! are read back once, at the end.
//!
//! `cargo run --release --example generate`

use recurve::{Device, GenerateOptions, Model, Sampling, Tensor};
use std::error::Error;
use std::path::Path;

/// The letters by id; `^` marks the start of a name and `$` its end.
const LETTERS: &str = "$^abcdefghiklmnoprstuvwxyz";

/// Continues names by 16 letters. All `beginnings` must have the same length.
pub(crate) fn continue_names(
    models: &Path,
    device: &Device,
    beginnings: &[&str],
    sampling: Sampling,
    seed: u32,
) -> Result<Vec<String>, Box<dyn Error>> {
    let model = Model::open(models.join("stars.safetensors"), device)?;
    let letters: Vec<char> = LETTERS.chars().collect();
    let mut ids = Vec::new();
    for name in beginnings {
        for c in std::iter::once('^').chain(name.chars()) {
            let known = letters.iter().position(|l| *l == c);
            ids.push(known.ok_or_else(|| format!("`{c}` is not a letter this model knows"))? as u32);
        }
    }
    let prompt = Tensor::from_u32(&ids, &[beginnings.len(), ids.len() / beginnings.len()], device)?;
    let options = GenerateOptions { max_new_tokens: 16, sampling, seed, ..GenerateOptions::default() };
    let (tokens, _) = model.network().generate(&prompt, None, &options)?;
    let text = |row: &[u32]| row.iter().map(|&id| letters[id as usize]).take_while(|c| *c != '$').collect();
    Ok(tokens.to_vec_u32()?.chunks_exact(16).map(text).collect())
}

#[allow(dead_code, reason = "the tests include this file and call the function above")]
fn main() -> Result<(), Box<dyn Error>> {
    let device = Device::best()?;
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    let beginnings = ["a", "a", "m", "s"];
    for (seed, (name, sampling)) in (0..).zip([
        ("greedy", Sampling::Greedy),
        ("temperature 0.7", Sampling::Random { temperature: 0.7, top_k: None }),
        ("temperature 1.5, the best 4", Sampling::Random { temperature: 1.5, top_k: Some(4) }),
    ]) {
        let ends = continue_names(&models, &device, &beginnings, sampling, seed)?;
        let names: Vec<_> = beginnings.iter().zip(ends).map(|(b, e)| format!("{b}{e}")).collect();
        println!("{name}: {}", names.join(", "));
    }
    Ok(())
}
