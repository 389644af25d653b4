//! Reads Keras files for the modules that compute, which read Recurve's own. Pages without Keras files do not load it.

#![forbid(unsafe_code)]
#![expect(missing_docs, reason = "only js/engine.js uses this")]

use js_sys::{Array, Uint8Array};
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

/// A model file of Recurve, and what a user should know of how the Keras file was read: `[bytes, notes]`.
#[wasm_bindgen]
pub fn convert(bytes: Vec<u8>) -> Result<Array> {
    let (bytes, notes) = Model::keras_to_native(bytes).map_err(|e| thrown(&e))?;
    let notes: Array = notes.iter().map(|n| JsValue::from_str(n)).collect();
    Ok(Array::of2(&Uint8Array::from(&bytes[..]), &notes))
}
