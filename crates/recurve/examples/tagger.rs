//! Many to many: how is each character of a Chinese sentence pronounced? A bidirectional LSTM labels every character.
//!
//! `cargo run --release --example tagger`

use recurve::{Device, Model};
use std::error::Error;
use std::path::Path;

/// The characters that have several pronunciations, and the one that the model chooses here.
pub(crate) fn readings(models: &Path, device: &Device, text: &str) -> Result<Vec<(char, String)>, Box<dyn Error>> {
    let model = Model::open(models.join("g2pm.safetensors"), device)?;
    Ok(model.read_text(text)?.into_iter().map(|r| (r.character, r.label)).collect())
}

#[allow(dead_code, reason = "the tests include this file and call the function above")]
fn main() -> Result<(), Box<dyn Error>> {
    let device = Device::best()?;
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    for text in ["然而，他红了20年以后，他竟退出了大家的视线。", "这条路很长，他长大了。"]
    {
        let found = readings(&models, &device, text)?;
        let shown: Vec<_> = found.iter().map(|(c, r)| format!("{c} {r}")).collect();
        println!("{text}: {}", shown.join(", "));
    }
    Ok(())
}
