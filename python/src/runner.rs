//! Models that run: networks, and graphs of ONNX files.

use crate::arrays::{Output, Taken, take};
use crate::device::{self, PyDevice};
use crate::error::{OrRaise, Unsupported, compute};
use crate::{fork, nn};
use pyo3::exceptions::{PyOSError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};
use recurve::{AnyModel, Device, ExportOptions, Model, OnnxModel};
use recurve_graph::{Data, Dim, Element, ValueType};
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Runner>()
}

/// A model on a device.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub(crate) model: AnyModel,
    /// Where an ONNX file is.
    source: Option<Source>,
}

/// Where the bytes of an ONNX file are, which are needed again when the model is pickled.
#[derive(Clone)]
pub(crate) enum Source {
    File(PathBuf),
    Bytes(Arc<[u8]>),
}

impl Loaded {
    /// A network.
    pub(crate) fn network(model: Model) -> Self {
        Self { model: AnyModel::Network(Arc::new(model)), source: None }
    }

    /// The model's name; that of an ONNX file is the file's.
    pub(crate) fn name(&self) -> String {
        match (&self.model, &self.source) {
            (AnyModel::Network(m), _) => m.info().name.clone(),
            (AnyModel::Onnx(_), Some(Source::File(path))) => {
                path.file_stem().map_or_else(|| "model".into(), |s| s.to_string_lossy().into_owned())
            }
            (AnyModel::Onnx(_), _) => "model".into(),
        }
    }
}

/// A model on a device, which any number of threads may run at the same time. `recurve.Model` is the class for users.
#[pyclass(module = "recurve._recurve", frozen)]
pub(crate) struct Runner {
    pub(crate) loaded: Loaded,
    /// The text that the device was asked for with.
    pub(crate) selector: String,
}

/// An input or an output: its name, its shape (of numbers, names of sizes and `None`; `None` if the number of dimensions
/// is not known) and its element type.
fn described<'py>(py: Python<'py>, name: &str, kind: &ValueType) -> PyResult<Bound<'py, PyTuple>> {
    let dim = |d: &Dim| match d {
        Dim::Size(n) => Ok(n.into_pyobject(py)?.into_any()),
        Dim::Symbol(s) => Ok(s.as_ref().into_pyobject(py)?.into_any()),
        _ => Ok(py.None().into_bound(py)),
    };
    let shape = match kind.unranked {
        true => py.None().into_bound(py),
        false => PyTuple::new(py, kind.dims.iter().map(dim).collect::<PyResult<Vec<_>>>()?)?.into_any(),
    };
    (name, shape, kind.dtype.array_type()).into_pyobject(py)
}

impl Runner {
    pub(crate) fn new(loaded: Loaded, selector: String) -> Self {
        Self { loaded, selector }
    }

    /// The model's network.
    pub(crate) fn network(&self) -> PyResult<&Arc<Model>> {
        match &self.loaded.model {
            AnyModel::Network(m) => Ok(m),
            AnyModel::Onnx(_) => Err(PyTypeError::new_err(
                "this model is the graph of an ONNX file, which has no layers and no training",
            )),
        }
    }
}

/// The inputs of a call, taken by name. What the model knows by no such name is refused when it runs.
pub(crate) fn taken(loaded: &Loaded, inputs: &Bound<'_, PyDict>) -> PyResult<Vec<(String, Taken)>> {
    let mut all = Vec::with_capacity(inputs.len());
    for (key, value) in inputs {
        let Ok(name) = key.extract::<String>() else {
            let got = key.get_type().name()?;
            return Err(PyTypeError::new_err(format!(
                "the inputs must be named by texts, but there is a key of type {got}"
            )));
        };
        let wanted = loaded.model.input_element(&name).or_raise()?.into();
        let array = take(&name, &value, wanted)?;
        all.push((name, array));
    }
    Ok(all)
}

/// Outputs by name, as a dictionary of arrays.
pub(crate) fn dictionary<'py>(py: Python<'py>, outputs: Vec<(String, Output)>) -> PyResult<Bound<'py, PyDict>> {
    let all = PyDict::new(py);
    for (name, output) in outputs {
        all.set_item(name, output.into_array(py)?)?;
    }
    Ok(all)
}

/// Inputs as values on a device.
pub(crate) fn on_device(device: &Device, inputs: Vec<(String, Taken)>) -> Result<Vec<(String, Data)>, recurve::Error> {
    inputs.into_iter().map(|(name, x)| Ok((name, x.data(device)?))).collect()
}

/// What a run gives, in host memory.
pub(crate) fn in_memory(outputs: Vec<(String, Element, Data)>) -> Result<Vec<(String, Output)>, recurve::Error> {
    outputs.into_iter().map(|(name, element, data)| Ok((name, Output::of_data(&data, element)?))).collect()
}

/// Values by name, as the arguments of a run.
pub(crate) fn by_name(inputs: &[(String, Data)]) -> impl Iterator<Item = (&str, Data)> {
    inputs.iter().map(|(n, d)| (&n[..], d.clone()))
}

#[pymethods]
impl Runner {
    /// Opens a file.
    #[staticmethod]
    #[pyo3(signature = (path, device, weights = None))]
    fn open(py: Python<'_>, path: PathBuf, device: &Bound<'_, PyAny>, weights: Option<PathBuf>) -> PyResult<Self> {
        let (device, selector) = device::given(device)?;
        let loaded = compute(py, || {
            Ok(match &weights {
                Some(weights) => Loaded::network(Model::open_keras(&path, weights, &device)?),
                None => {
                    let model = AnyModel::open(&path, &device)?;
                    let source = matches!(model, AnyModel::Onnx(_)).then(|| Source::File(path.clone()));
                    Loaded { model, source }
                }
            })
        })?;
        let loaded: Result<Loaded, recurve::Error> = loaded;
        if let Err(e @ recurve::Error::NoDescription { .. }) = &loaded
            && let Some(listing) = nn::listing(&path)
        {
            return Err(Unsupported::new_err(format!("{e}\n\n{listing}")));
        }
        Ok(Self::new(loaded.or_raise()?, selector))
    }

    /// Reads the bytes of a file; `onnx` tells whether it is an ONNX file.
    #[staticmethod]
    fn from_bytes(py: Python<'_>, bytes: &[u8], onnx: bool, device: &Bound<'_, PyAny>) -> PyResult<Self> {
        let (device, selector) = device::given(device)?;
        let loaded = compute(py, || {
            Ok(match onnx {
                true => {
                    let model = AnyModel::Onnx(Arc::new(OnnxModel::from_bytes(bytes.to_vec(), &device)?));
                    Loaded { model, source: Some(Source::Bytes(bytes.into())) }
                }
                false => Loaded::network(Model::from_bytes(bytes, &device)?),
            })
        })?;
        let loaded: Result<Loaded, recurve::Error> = loaded;
        Ok(Self::new(loaded.or_raise()?, selector))
    }

    /// The bytes that `from_bytes` reads.
    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        match (&self.loaded.model, &self.loaded.source) {
            (AnyModel::Network(m), _) => Ok(PyBytes::new(py, &compute(py, || m.to_bytes())?.or_raise()?)),
            (AnyModel::Onnx(_), Some(Source::Bytes(bytes))) => Ok(PyBytes::new(py, bytes)),
            (AnyModel::Onnx(_), Some(Source::File(path))) => match compute(py, || std::fs::read(path))? {
                Ok(bytes) => Ok(PyBytes::new(py, &bytes)),
                Err(e) => Err(PyOSError::new_err(format!(
                    "{}: {e}; a model of an ONNX file can be copied to another process only while the file is there",
                    path.display()
                ))),
            },
            (AnyModel::Onnx(_), None) => unreachable!("an ONNX model has a source"),
        }
    }

    /// Whether this is the graph of an ONNX file.
    #[getter]
    fn is_onnx(&self) -> bool {
        matches!(self.loaded.model, AnyModel::Onnx(_))
    }

    /// Whether a call may give the lengths of sequences as ``lengths``, besides the inputs.
    #[getter]
    fn takes_lengths(&self) -> bool {
        match &self.loaded.model {
            AnyModel::Network(m) => m.network().takes_lengths(),
            AnyModel::Onnx(_) => false,
        }
    }

    /// The model's name.
    #[getter]
    fn name(&self) -> String {
        self.loaded.name()
    }

    /// The device.
    #[getter]
    fn device(&self) -> PyDevice {
        PyDevice { device: self.loaded.model.device().clone(), selector: self.selector.clone() }
    }

    /// The same model on another device.
    fn to(&self, py: Python<'_>, device: &Bound<'_, PyAny>) -> PyResult<Self> {
        let (device, selector) = device::given(device)?;
        let model = compute(py, || self.loaded.model.to_device(&device))?.or_raise()?;
        Ok(Self::new(Loaded { model, source: self.loaded.source.clone() }, selector))
    }

    /// Name, shape and element type of each input.
    fn inputs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let all = self.loaded.model.inputs().into_iter().map(|(name, kind)| described(py, &name, &kind));
        PyList::new(py, all.collect::<PyResult<Vec<_>>>()?)
    }

    /// Name, shape and element type of each output.
    fn outputs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let all = self.loaded.model.outputs().into_iter().map(|(name, kind)| described(py, &name, &kind));
        PyList::new(py, all.collect::<PyResult<Vec<_>>>()?)
    }

    /// Runs the model on arrays by name and returns all outputs by name.
    fn run<'py>(&self, py: Python<'py>, inputs: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
        fork::check(self.loaded.model.device())?;
        let inputs = taken(&self.loaded, inputs)?;
        let model = &self.loaded.model;
        let outputs = compute(py, || {
            let inputs = on_device(model.device(), inputs)?;
            in_memory(model.run(by_name(&inputs))?)
        })?;
        let outputs = outputs.or_raise()?;
        dictionary(py, outputs)
    }

    /// What a user should know of how the file is read.
    #[getter]
    fn notes(&self) -> Vec<String> {
        self.loaded.model.notes().to_vec()
    }

    /// A line about each recurrent layer of an ONNX file: what it runs as.
    fn explain(&self) -> Vec<String> {
        match &self.loaded.model {
            AnyModel::Network(_) => Vec::new(),
            AnyModel::Onnx(m) => m.explain().to_vec(),
        }
    }

    /// A table of layers, shapes and numbers of parameters.
    fn summary(&self) -> String {
        self.loaded.model.summary(&self.loaded.name())
    }

    /// The states that an ONNX file takes in and gives out: pairs of names.
    fn states(&self) -> Vec<(String, String)> {
        match &self.loaded.model {
            AnyModel::Network(_) => Vec::new(),
            AnyModel::Onnx(m) => m.states().into_iter().map(|s| (s.input, s.output)).collect(),
        }
    }

    /// Writes Recurve's own file.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let model = self.network()?;
        compute(py, || model.save(&path))?.or_raise()
    }

    /// Writes an ONNX file.
    fn save_onnx(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let model = self.network()?;
        compute(py, || model.save_onnx(&path, &ExportOptions::default()))?.or_raise()
    }

    /// The labels of a text's ambiguous characters, for a model with a vocabulary: position, character and label.
    fn read_text(&self, py: Python<'_>, text: &str) -> PyResult<Vec<(usize, String, String)>> {
        let model = self.network()?;
        let readings = compute(py, || model.read_text(text))?.or_raise()?;
        Ok(readings.into_iter().map(|r| (r.index, r.character.to_string(), r.label)).collect())
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err("pickle the model that this belongs to"))
    }
}
