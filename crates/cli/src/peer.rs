//! ONNX Runtime beside Recurve: a small Python program, run as a child in a temporary folder.

use recurve::{HostArray, OnnxModel, StatePair, read_array, write_host_array};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use tempfile::TempDir;

const PROGRAM: &str = include_str!("onnxruntime.py");

/// Names by which Python is looked for.
const PYTHONS: [&str; 2] = ["python3", "python"];

/// What the program writes of values.
#[derive(Deserialize)]
struct Written {
    version: String,
    values: Vec<Named>,
    #[serde(default)]
    threads: usize,
    #[serde(default)]
    providers: Vec<String>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    file: PathBuf,
}

/// Values of a model's graph, by name, as ONNX Runtime computes them.
pub(crate) struct Values {
    /// The version of ONNX Runtime.
    pub(crate) version: String,
    files: HashMap<String, PathBuf>,
    folder: TempDir,
}

impl Values {
    /// A value, unless ONNX Runtime did not give it.
    pub(crate) fn get(&self, name: &str) -> Option<HostArray> {
        read_array(&self.folder.path().join(self.files.get(name)?), name).ok()
    }

    fn new(written: Written, folder: TempDir) -> Self {
        let files = written.values.into_iter().map(|v| (v.name, v.file)).collect();
        Self { version: written.version, files, folder }
    }
}

/// A folder with the program, its task and the inputs.
fn prepared(model: &Path, inputs: &[(String, HostArray)], mut task: Value) -> Result<TempDir, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let mut list = Vec::new();
    for (n, (name, array)) in inputs.iter().enumerate() {
        let file = format!("input{n}.npy");
        write_host_array(&folder.path().join(&file), name, array)?;
        list.push(json!({ "name": name, "file": file }));
    }
    task["model"] = json!(model.canonicalize().map_err(|e| format!("{}: {e}", model.display()))?);
    task["inputs"] = json!(list);
    // What limits Recurve's threads limits those of ONNX Runtime.
    let threads = std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse::<usize>().ok()).filter(|n| *n > 0);
    task["threads"] = json!(threads);
    std::fs::write(folder.path().join("task.json"), task.to_string())?;
    std::fs::write(folder.path().join("onnxruntime_of_recurve.py"), PROGRAM)?;
    Ok(folder)
}

/// The program as a child, which may be told how often to call.
fn start(folder: &Path, takes_input: bool) -> Result<Child, String> {
    let mut why = String::new();
    for python in PYTHONS {
        let mut command = Command::new(python);
        command.arg("-B").arg(folder.join("onnxruntime_of_recurve.py")).arg(folder);
        command.stdin(if takes_input { Stdio::piped() } else { Stdio::null() });
        match command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
            Ok(child) => return Ok(child),
            Err(e) => why = format!("`{python}`: {e}"),
        }
    }
    Err(format!("`--against onnxruntime` runs Python, which cannot be started: {why}"))
}

/// What the program says went wrong: the last line of its errors.
fn complaint(text: &str) -> String {
    let last = text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it ended without a word");
    format!("`--against onnxruntime`: {}", last.trim())
}

/// Every value of a model's graph for these inputs, by ONNX Runtime.
///
/// # Errors
/// If there is no Python, it has no ONNX Runtime, or that does not run the model.
pub(crate) fn values(path: &Path, model: &OnnxModel, inputs: &[(String, HostArray)]) -> Result<Values, Box<dyn Error>> {
    let names: Vec<&str> = model.graph().values().map(|(_, v)| &v.name[..]).collect();
    let folder = prepared(path, inputs, json!({ "what": "values", "values": names }))?;
    let out = start(folder.path(), false)?.wait_with_output()?;
    if !out.status.success() {
        return Err(complaint(&String::from_utf8_lossy(&out.stderr)).into());
    }
    let text = std::fs::read_to_string(folder.path().join("values.json"))?;
    Ok(Values::new(serde_json::from_str(&text)?, folder))
}

/// A model in ONNX Runtime that is called whenever we say so.
pub(crate) struct Timed {
    child: Child,
    input: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
    /// Threads of a call.
    pub(crate) threads: usize,
    /// Where ONNX Runtime computes, best first.
    pub(crate) providers: Vec<String>,
    /// The outputs of the first call.
    pub(crate) first: Values,
}

impl Timed {
    /// Starts ONNX Runtime and makes one call.
    ///
    /// # Errors
    /// As [`values`].
    pub(crate) fn start(
        path: &Path,
        inputs: &[(String, HostArray)],
        states: &[StatePair],
        cpu: bool,
    ) -> Result<Self, Box<dyn Error>> {
        let states: Vec<_> = states.iter().map(|s| json!([s.input, s.output])).collect();
        let folder = prepared(path, inputs, json!({ "what": "time", "states": states, "cpu": cpu }))?;
        let mut child = start(folder.path(), true)?;
        let (input, output) = (child.stdin.take(), child.stdout.take().expect("it is a pipe"));
        let mut replies = BufReader::new(output);
        let line = reply(&mut replies, &mut child)?;
        let mut about: Written = serde_json::from_str(&line)?;
        let (threads, providers) = (about.threads, std::mem::take(&mut about.providers));
        Ok(Self { child, input, replies, threads, providers, first: Values::new(about, folder) })
    }

    /// The seconds of so many calls, the states going from one to the next.
    pub(crate) fn call(&mut self, count: usize) -> Result<Vec<f64>, Box<dyn Error>> {
        let input = self.input.as_mut().expect("open until the end");
        // If the child is gone, its errors say why.
        let _ = writeln!(input, "{count}").and_then(|()| input.flush());
        let line = reply(&mut self.replies, &mut self.child)?;
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        // At the end of its input the program ends.
        self.input = None;
        let _ = self.child.wait();
    }
}

/// A line that the program prints.
fn reply(replies: &mut BufReader<ChildStdout>, child: &mut Child) -> Result<String, Box<dyn Error>> {
    let mut line = String::new();
    if replies.read_line(&mut line)? > 0 {
        return Ok(line);
    }
    let mut errors = String::new();
    if let Some(mut e) = child.stderr.take() {
        e.read_to_string(&mut errors)?;
    }
    Err(complaint(&errors).into())
}
