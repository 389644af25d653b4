//! Reads Keras files for the modules that compute, which read Recurve's own. Pages without Keras files do not load it.

#![forbid(unsafe_code)]
#![expect(missing_docs, reason = "only js/engine.js uses this")]

use recurve::Model;
use recurve_web_errors::{Result, thrown};
use wasm_bindgen::prelude::*;

#[wasm_bindgen(start)]
fn start() {
    recurve_web_errors::keep_panics();
}

#[wasm_bindgen]
pub fn panic_message() -> Option<String> {
    recurve_web_errors::panic_message()
}

/// A model file of Recurve, and what a user should know of how the Keras file was read.
#[wasm_bindgen(getter_with_clone)]
pub struct Converted {
    pub bytes: Vec<u8>,
    pub notes: Vec<String>,
}

#[wasm_bindgen]
pub fn convert(bytes: Vec<u8>) -> Result<Converted> {
    let (bytes, notes) = Model::keras_to_native(bytes).map_err(|e| thrown(&e))?;
    Ok(Converted { bytes, notes })
}
