//! Encoder and decoder: numbers written as words become digits. The encoder's final state is the decoder's initial
//! state; the decoder generates digits on the device.
//!
//! `cargo run --release --example translate`

use recurve::{CallArgs, Device, GenerateOptions, Model, Sampling, Tensor};
use std::error::Error;
use std::path::Path;

const WORDS: [&str; 30] = [
    "<pad>",
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
    "thirty",
    "forty",
    "fifty",
    "sixty",
    "seventy",
    "eighty",
    "ninety",
    "hundred",
];
/// The decoder's tokens by id; `^` (1) marks the start of a number and `$` its end.
const DIGITS: &str = "$^0123456789";

/// The digits of each number, given in words.
pub(crate) fn translate(models: &Path, device: &Device, numbers: &[&str]) -> Result<Vec<String>, Box<dyn Error>> {
    let encoder = Model::open(models.join("numbers_encoder.safetensors"), device)?;
    let decoder = Model::open(models.join("numbers_decoder.safetensors"), device)?;
    let rows: Vec<Vec<&str>> = numbers.iter().map(|n| n.split_whitespace().collect()).collect();
    let width = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut ids = vec![0; rows.len() * width];
    for (row, out) in rows.iter().zip(ids.chunks_exact_mut(width)) {
        for (word, id) in row.iter().zip(out) {
            let known = WORDS.iter().position(|w| w == word);
            *id = known.ok_or_else(|| format!("`{word}` is not among the words this model knows"))? as u32;
        }
    }
    let words = Tensor::from_u32(&ids, &[rows.len(), width], device)?;
    let (_, state) = encoder.network().forward_from(&words, &CallArgs::default(), None)?;
    let begin = Tensor::from_u32(&vec![1; rows.len()], &[rows.len(), 1], device)?;
    let options =
        GenerateOptions { max_new_tokens: 4, sampling: Sampling::Greedy, seed: 0, ..GenerateOptions::default() };
    let (tokens, _) = decoder.network().generate(&begin, Some(&state), &options)?;
    let digits: Vec<char> = DIGITS.chars().collect();
    let text = |row: &[u32]| row.iter().map(|&id| digits[id as usize]).take_while(|c| *c != '$').collect();
    Ok(tokens.to_vec_u32()?.chunks_exact(4).map(text).collect())
}

#[allow(dead_code, reason = "the tests include this file and call the function above")]
fn main() -> Result<(), Box<dyn Error>> {
    let device = Device::best()?;
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    let numbers = ["seven", "forty two", "three hundred sixteen", "nine hundred ninety nine"];
    for (words, digits) in numbers.iter().zip(translate(&models, &device, &numbers)?) {
        println!("{words}: {digits}");
    }
    Ok(())
}
