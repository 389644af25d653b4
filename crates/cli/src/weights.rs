//! The command `recurve summary` for files of weights without a description of layers.

use crate::terminal::{print_json, say};
use crate::{Outcome, summary};
use recurve::{WeightFile, WeightSummary};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;

/// Whether a path is that of a file of weights, safetensors or PyTorch's, that is no model of Recurve.
pub(crate) fn is_weights(path: &Path) -> bool {
    WeightFile::open(path).is_ok_and(|f| !f.metadata().contains_key("recurve"))
}

pub(crate) fn summarize(a: &summary::Arguments) -> Outcome {
    if !a.states.is_empty() {
        return Err("`--state` is for ONNX models".into());
    }
    let found = WeightSummary::of(&WeightFile::open(&a.model)?);
    if a.json {
        let mut all = serde_json::to_value(&found)?;
        all["model"] = json!(a.model.display().to_string());
        print_json(&all)?;
    } else {
        say(format_args!("{}", a.model.display()))?;
        say(&found)?;
    }
    Ok(ExitCode::SUCCESS)
}
