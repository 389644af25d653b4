//! ONNX's node tests: a folder a case, with `model.onnx` and `test_data_set_0/{input,output}_N.pb`.

use crate::onnx::{CaseError, caught};
use flate2::read::GzDecoder;
use prost::Message;
use recurve::{Device, Error, HostArray, HostData, OnnxModel, read_tensor, tensor_from_bytes};
use recurve_graph::Array;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A case: a model, what goes in and what must come out.
#[derive(Clone, Debug)]
pub struct NodeTest {
    model: Vec<u8>,
    inputs: Vec<HostArray>,
    outputs: Vec<HostArray>,
}

#[derive(Clone, PartialEq, Message)]
struct Cases {
    #[prost(message, repeated, tag = "1")]
    cases: Vec<Case>,
}

#[derive(Clone, PartialEq, Message)]
struct Case {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "vec", tag = "2")]
    model: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "3")]
    inputs: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "4")]
    outputs: Vec<Vec<u8>>,
}

/// How far a value may be from the one expected, relative and absolute. The cases' own numbers are those of float32
/// by NumPy.
pub const RELATIVE: f64 = 1e-4;
/// See [`RELATIVE`].
pub const ABSOLUTE: f64 = 1e-5;
/// The same of outputs that the file has as another float type, half precision among them, which NumPy rounds to
/// after every operator: some units of bfloat16, whose last bit is 2^-8 of a number.
const HALF: [f64; 2] = [1e-2, 4e-3];

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
        let model = std::fs::read(folder.join("model.onnx")).map_err(|e| CaseError::Failed(e.to_string()))?;
        Ok(Self { model, inputs: all("input")?, outputs: all("output")? })
    }

    /// The cases of `fixtures/onnx_nodes.bin.gz`, by name.
    ///
    /// # Panics
    /// If the file is damaged.
    pub fn fixtures() -> Vec<(String, Self)> {
        let packed = include_bytes!("../fixtures/onnx_nodes.bin.gz");
        let mut bytes = Vec::new();
        GzDecoder::new(&packed[..]).read_to_end(&mut bytes).expect("a gzip file");
        let read = |all: Vec<Vec<u8>>| -> Vec<HostArray> {
            all.into_iter().map(|b| tensor_from_bytes(b).expect("a tensor of the fixture")).collect()
        };
        let cases = Cases::decode(&*bytes).expect("the message of the fixture").cases.into_iter();
        cases.map(|c| (c.name, Self { model: c.model, inputs: read(c.inputs), outputs: read(c.outputs) })).collect()
    }

    /// The case with another output, for controls: a changed element, NaN, or another shape.
    ///
    /// # Panics
    /// If its first output is not of floats.
    #[must_use]
    pub fn spoiled(mut self, change: usize) -> Self {
        let HostData::Float(v) = &mut self.outputs[0].data else { panic!("no floats") };
        match change {
            0 => v[0] += 1e-3,
            1 => v[0] = f32::NAN,
            _ => self.outputs[0].shape.insert(0, 1),
        }
        self
    }

    /// Runs it on a device; the worst error beside what is allowed, as a share of it. Never panics.
    ///
    /// # Errors
    /// [`CaseError::Refused`] if the model was refused by a typed error, [`CaseError::Failed`] if it gave other
    /// values or panicked.
    pub fn run(&self, device: &Device) -> Result<f64, CaseError> {
        caught(|| {
            let model = OnnxModel::from_bytes(self.model.clone(), device).map_err(|e| match e {
                Error::Onnx { problems, .. } => {
                    let all: Vec<_> = problems.iter().map(|p| format!("{} {}", p.operator, p.message)).collect();
                    CaseError::Refused(all.join("; "))
                }
                e => CaseError::Refused(e.to_string()),
            })?;
            let named: Vec<_> = model.inputs().iter().map(|i| i.name.clone()).collect();
            let inputs = named.iter().map(String::as_str).zip(&self.inputs);
            let got = model.run(inputs).map_err(|e| CaseError::Refused(e.to_string()))?;
            self.compare(&model, got.iter().map(|(name, a)| (&name[..], &a.shape[..], a.to_f64())))
        })
    }

    /// Holds the operators' own truth in f64 against what is expected.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn reference(&self) -> Result<f64, CaseError> {
        caught(|| {
            let model = OnnxModel::from_bytes(self.model.clone(), &Device::Cpu)
                .map_err(|e| CaseError::Refused(e.to_string()))?;
            let inputs: Vec<_> = self.inputs.iter().map(|a| Some(Array::new(&a.shape, a.to_f64()))).collect();
            let graph = model.graph();
            let all = graph.reference(&inputs, |_| None).map_err(|e| CaseError::Refused(e.to_string()))?;
            let ids: Vec<_> = graph.values().map(|(id, _)| id).collect();
            let place = |id| ids.iter().position(|i| *i == id).expect("a value of the graph");
            let outputs = graph.outputs().iter().map(|(name, id)| (&name[..], all[place(*id)].as_ref()));
            let outputs: Vec<_> = outputs
                .map(|(name, a)| a.map(|a| (name, &a.dims[..], a.data.clone())).ok_or_else(|| no_output(name)))
                .collect::<Result<_, _>>()?;
            self.compare(&model, outputs.into_iter())
        })
    }

    fn compare<'a>(
        &self,
        model: &OnnxModel,
        got: impl Iterator<Item = (&'a str, &'a [usize], Vec<f64>)>,
    ) -> Result<f64, CaseError> {
        let fail = |message: String| Err(CaseError::Failed(message));
        let mut worst = 0.0f64;
        let mut count = 0;
        for (((name, dims, got), want), output) in got.zip(&self.outputs).zip(model.outputs()) {
            count += 1;
            let [relative, absolute] = if output.converted { HALF } else { [RELATIVE, ABSOLUTE] };
            if dims != want.shape {
                return fail(format!("`{name}` has shape {dims:?}, expected {:?}", want.shape));
            }
            for (n, (g, w)) in got.iter().zip(want.to_f64()).enumerate() {
                let same = *g == w || g.is_nan() && w.is_nan();
                let share = if same { 0.0 } else { (g - w).abs() / (absolute + relative * w.abs()) };
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
