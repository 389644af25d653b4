//! Errors of JavaScript, with the same text.

use js_sys::{Error as JsError, Reflect};
use recurve::{Error, TensorError};
use std::error::Error as _;
use std::sync::Mutex;
use wasm_bindgen::JsValue;

pub(crate) type Result<T> = std::result::Result<T, JsValue>;

/// What kind of error it is, for `RecurveError.kind`.
pub(crate) trait Kind: std::error::Error {
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

impl Kind for Error {
    fn kind(&self) -> &'static str {
        let mut cause = self.source();
        while let Some(e) = cause {
            if let Some(e) = e.downcast_ref::<TensorError>() {
                return e.kind();
            }
            cause = e.source();
        }
        match self {
            Self::Input { .. } | Self::Run(_) => "Input",
            Self::Onnx { .. } => "OnnxFile",
            Self::Keras { .. } => "KerasFile",
            _ => "File",
        }
    }
}

pub(crate) fn thrown(e: &impl Kind) -> JsValue {
    thrown_with(e.kind(), &e.to_string())
}

pub(crate) fn thrown_with(kind: &str, text: &str) -> JsValue {
    let e = JsError::new(text);
    e.set_name("RecurveError");
    let _ = Reflect::set(&e, &"kind".into(), &kind.into());
    e.into()
}

static PANIC: Mutex<Option<String>> = Mutex::new(None);

pub(crate) fn keep_panics() {
    std::panic::set_hook(Box::new(|info| {
        if let Ok(mut last) = PANIC.lock() {
            *last = Some(info.to_string());
        }
    }));
}

pub(crate) fn panic_message() -> Option<String> {
    PANIC.lock().ok().and_then(|last| last.clone())
}
