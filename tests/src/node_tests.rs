//! ONNX's node tests: a folder a case, with `model.onnx` and `test_data_set_0/{input,output}_N.pb`.

use crate::onnx::{CaseError, caught};
use recurve::{Device, Error, HostArray, OnnxModel, read_tensor};
use recurve_graph::Array;
use std::path::{Path, PathBuf};

/// A case: a model, what goes in and what must come out.
#[derive(Clone, Debug)]
pub struct NodeTest {
    model: PathBuf,
    inputs: Vec<HostArray>,
    outputs: Vec<HostArray>,
}

/// How far a value may be from the one expected, relative and absolute. The cases' own numbers are those of float32
/// by NumPy.
pub const RELATIVE: f64 = 1e-4;
/// See [`RELATIVE`].
pub const ABSOLUTE: f64 = 1e-5;

/// The folders of cases below `folder`, in order.
///
/// # Errors
/// If the folder cannot be read.
pub fn folders(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(folder)?.map(|e| Ok(e?.path())).collect::<std::io::Result<_>>()?;
    all.retain(|p| p.join("model.onnx").exists());
    all.sort();
    Ok(all)
}

impl NodeTest {
    /// Reads a case.
    ///
    /// # Errors
    /// What is missing or damaged.
    pub fn read(folder: &Path) -> Result<Self, CaseError> {
        let all = |kind: &str| {
            let files = (0..).map(|n| folder.join(format!("test_data_set_0/{kind}_{n}.pb"))).take_while(|p| p.exists());
            files.map(|p| read_tensor(&p).map_err(|e| CaseError::Refused(e.to_string()))).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self { model: folder.join("model.onnx"), inputs: all("input")?, outputs: all("output")? })
    }

    /// Runs it on a device; the worst error beside what is allowed, as a share of it. Never panics.
    ///
    /// # Errors
    /// [`CaseError::Refused`] if the model was refused by a typed error, [`CaseError::Failed`] if it gave other
    /// values or panicked.
    pub fn run(&self, device: &Device) -> Result<f64, CaseError> {
        caught(|| {
            let model = OnnxModel::open(&self.model, device).map_err(|e| match e {
                Error::Onnx { problems, .. } => {
                    let all: Vec<_> = problems.iter().map(|p| format!("{} {}", p.operator, p.message)).collect();
                    CaseError::Refused(all.join("; "))
                }
                e => CaseError::Refused(e.to_string()),
            })?;
            let named: Vec<_> = model.inputs().iter().map(|i| i.name.clone()).collect();
            let inputs = named.iter().map(String::as_str).zip(&self.inputs);
            let got = model.run(inputs).map_err(|e| CaseError::Refused(e.to_string()))?;
            self.compare(got.iter().map(|(name, a)| (&name[..], &a.shape[..], a.to_f64())))
        })
    }

    /// Holds the operators' own truth in f64 against what is expected.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn reference(&self) -> Result<f64, CaseError> {
        caught(|| {
            let model = OnnxModel::open(&self.model, &Device::Cpu).map_err(|e| CaseError::Refused(e.to_string()))?;
            let inputs: Vec<_> = self.inputs.iter().map(|a| Some(Array::new(&a.shape, a.to_f64()))).collect();
            let graph = model.graph();
            let all = graph.reference(&inputs, |_| None).map_err(|e| CaseError::Refused(e.to_string()))?;
            let ids: Vec<_> = graph.values().map(|(id, _)| id).collect();
            let place = |id| ids.iter().position(|i| *i == id).expect("a value of the graph");
            let outputs = graph.outputs().iter().map(|(name, id)| (&name[..], all[place(*id)].as_ref()));
            let outputs: Vec<_> = outputs
                .map(|(name, a)| a.map(|a| (name, &a.dims[..], a.data.clone())).ok_or_else(|| no_output(name)))
                .collect::<Result<_, _>>()?;
            self.compare(outputs.into_iter())
        })
    }

    fn compare<'a>(&self, got: impl Iterator<Item = (&'a str, &'a [usize], Vec<f64>)>) -> Result<f64, CaseError> {
        let fail = |message: String| Err(CaseError::Failed(message));
        let mut worst = 0.0f64;
        let mut count = 0;
        for ((name, dims, got), want) in got.zip(&self.outputs) {
            count += 1;
            if dims != want.shape {
                return fail(format!("`{name}` has shape {dims:?}, expected {:?}", want.shape));
            }
            for (n, (g, w)) in got.iter().zip(want.to_f64()).enumerate() {
                let same = *g == w || g.is_nan() && w.is_nan();
                let share = if same { 0.0 } else { (g - w).abs() / (ABSOLUTE + RELATIVE * w.abs()) };
                if share.is_nan() || share > 1.0 {
                    return fail(format!("`{name}` is {g} at element {n}, expected {w}"));
                }
                worst = worst.max(share);
            }
        }
        if count == self.outputs.len() && count > 0 { Ok(worst) } else { fail(format!("{count} outputs came")) }
    }
}

fn no_output(name: &str) -> CaseError {
    CaseError::Failed(format!("the reference has no `{name}`"))
}
