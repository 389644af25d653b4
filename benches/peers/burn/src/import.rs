//! Has Burn write Rust code for the ONNX files `FOLDER/NAME/model.onnx`: `import FOLDER`.
//!
//! `FOLDER/cases.rs` is the part of `run` that has all of it. `FOLDER/NAME/refused.txt` says why the code of a file
//! cannot be compiled; `run` then says that.

#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Burn's import reports every error by a panic, whose text is returned.
fn import(case: &Path) -> Result<(), String> {
    let made = std::panic::catch_unwind(|| {
        let model = case.join("model.onnx");
        burn_onnx::ModelGen::new().input(&model.to_string_lossy()).out_dir(&case.to_string_lossy()).run_from_cli();
    });
    made.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&s| s.to_owned())).unwrap_or_default();
        if text.starts_with("Failed to parse ONNX file") { text } else { format!("the import panics: {text}") }
    })
}

/// The names of the inputs as `forward` has them, in its order.
fn parameters(code: &str) -> Option<Vec<&str>> {
    let list = code.split_once("pub fn forward(")?.1.split_once("&self")?.1.split_once("->")?.0;
    let names = list.split(':').map(|part| part.rsplit([',', ' ', '\n']).next().unwrap_or_default());
    let mut names: Vec<_> = names.collect();
    names.pop();
    Some(names)
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("usage: import FOLDER")?);
    let (mut modules, mut arms) = (String::new(), String::new());
    for case in std::fs::read_dir(&folder)? {
        let case = case?.path();
        if !case.is_dir() {
            continue;
        }
        let name = case.file_name().and_then(|n| n.to_str()).ok_or("a name that is no text")?;
        let said = std::fs::read_to_string(case.join("refused.txt"));
        if let Err(why) = said.map_or_else(|_| import(&case), Err) {
            writeln!(arms, "        {name:?} => Err({why:?}.into()),")?;
            continue;
        }
        let path = case.join("model.rs");
        let code = std::fs::read_to_string(&path)?;
        let names = parameters(&code).ok_or("no forward")?;
        let given = names.iter().map(|n| format!("given(inputs, {n:?})?")).collect::<Vec<_>>().join(", ");
        writeln!(modules, "mod case_{name} {{\n    include!({path:?});\n}}")?;
        let call = format!("case_{name}::Model::default().forward({given})");
        writeln!(arms, "        {name:?} => Ok(Outputs::all({call})),")?;
    }
    let run = "fn run(name: &str, inputs: &Path) -> Outcome<Vec<Output>> {\n    match name {\n";
    let rest = "        _ => Err(format!(\"no case {name}\").into()),\n    }\n}\n";
    std::fs::write(folder.join("cases.rs"), format!("{modules}\n{run}{arms}{rest}"))?;
    Ok(())
}
