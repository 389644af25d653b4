//! Errors of JavaScript, with the same text, for the modules of the package.

#![forbid(unsafe_code)]

use js_sys::{Error as JsError, Reflect};
use recurve::{Error, LayerError, TensorError, WeightError};
use std::sync::Mutex;
use wasm_bindgen::JsValue;

/// A result for JavaScript.
pub type Result<T> = std::result::Result<T, JsValue>;

/// What kind of error it is, for `RecurveError.kind`.
pub trait Kind: std::fmt::Display {
    /// The kind.
    fn kind(&self) -> &'static str;
}

impl Kind for TensorError {
    fn kind(&self) -> &'static str {
        match self {
            Self::DeviceLost { .. } => "DeviceLost",
            Self::OutOfMemory { .. } | Self::TooLarge { .. } => "OutOfMemory",
            Self::Unsupported { .. } => "Unsupported",
            Self::NoDevice { .. } => "NoDevice",
            Self::Gpu { .. } => "Gpu",
            _ => "Input",
        }
    }
}

impl Kind for recurve_graph::Error {
    fn kind(&self) -> &'static str {
        match self {
            Self::Run { source, .. } | Self::Tensor(source) => source.kind(),
            _ => "Input",
        }
    }
}

impl Kind for LayerError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Tensor(source) | Self::OutOfMemory { source, .. } => source.kind(),
            Self::File(source) => source.kind(),
            Self::Graph(source) => source.kind(),
            Self::Unsupported { .. } => "Unsupported",
            _ => "Input",
        }
    }
}

impl Kind for WeightError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Memory(source) => source.kind(),
            _ => "File",
        }
    }
}

impl Kind for Error {
    fn kind(&self) -> &'static str {
        match self {
            Self::Weights(source) => source.kind(),
            Self::Layers { source, .. } => match source.kind() {
                // What a file says, not a caller.
                "Input" => "File",
                kind => kind,
            },
            Self::Run(source) => source.kind(),
            Self::Input { .. } => "Input",
            Self::Onnx { .. } => "OnnxFile",
            Self::Keras { .. } => "KerasFile",
            _ => "File",
        }
    }
}

/// The error to throw.
pub fn thrown(e: &impl Kind) -> JsValue {
    thrown_with(e.kind(), &e.to_string())
}

/// An error of this kind to throw.
pub fn thrown_with(kind: &str, text: &str) -> JsValue {
    let e = JsError::new(text);
    e.set_name("RecurveError");
    let _ = Reflect::set(&e, &"kind".into(), &kind.into());
    e.into()
}

static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Keeps the message of the first panic. A panic ends the module.
pub fn keep_panics() {
    std::panic::set_hook(Box::new(|info| {
        // The first panic is the cause of those that follow in other threads.
        if let Ok(mut first) = PANIC.lock() {
            first.get_or_insert_with(|| info.to_string());
        }
    }));
}

/// The message of the panic that ended this module.
pub fn panic_message() -> Option<String> {
    PANIC.lock().ok().and_then(|last| last.clone())
}
