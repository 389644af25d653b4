//! Models that run: networks, and graphs of ONNX files.

use crate::arrays::{Output, Taken, name_of, take};
use crate::device::{self, PyDevice};
use crate::error::{OrRaise, Unsupported, compute};
use crate::{fork, nn};
use pyo3::exceptions::{PyOSError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};
use recurve::{Device, ExportOptions, Input, Model, OnnxModel};
use recurve_graph::{Data, Dim, Element, ValueType};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Runner>()
}

/// A model on a device.
#[derive(Clone)]
pub(crate) enum Loaded {
    /// A network of layers.
    Network(Arc<Model>),
    /// The graph of an ONNX file.
    Onnx(Arc<OnnxModel>, Source),
}

/// Where the bytes of an ONNX file are, which are needed again when the model is pickled.
#[derive(Clone)]
pub(crate) enum Source {
    File(PathBuf),
    Bytes(Arc<[u8]>),
}

impl Loaded {
    pub(crate) fn device(&self) -> &Device {
        match self {
            Self::Network(m) => m.device(),
            Self::Onnx(m, _) => m.device(),
        }
    }

    /// The model's name; that of an ONNX file is the file's.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Network(m) => m.info().name.clone(),
            Self::Onnx(_, Source::Bytes(_)) => "model".into(),
            Self::Onnx(_, Source::File(path)) => {
                path.file_stem().map_or_else(|| "model".into(), |s| s.to_string_lossy().into_owned())
            }
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

fn is_onnx(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx"))
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
    (name, shape, name_of(kind.dtype)).into_pyobject(py)
}

impl Runner {
    pub(crate) fn new(loaded: Loaded, selector: String) -> Self {
        Self { loaded, selector }
    }

    /// The model's network.
    pub(crate) fn network(&self) -> PyResult<&Arc<Model>> {
        match &self.loaded {
            Loaded::Network(m) => Ok(m),
            Loaded::Onnx(..) => Err(PyTypeError::new_err(
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
        let wanted = match loaded {
            Loaded::Network(m) => {
                let own = m.info().network.inputs.iter().find(|i| i.name == name);
                // Lengths and masks are whole numbers too.
                own.map_or(recurve::DType::U32, |i| i.dtype()).into()
            }
            Loaded::Onnx(m, _) => {
                let own = m.inputs().iter().find(|i| i.name == name);
                own.map_or(Element::F32, |i| i.kind.dtype).into()
            }
        };
        if !is_known(loaded, &name) {
            return Err(PyValueError::new_err(format!(
                "input `{name}`: this model has no such input; it has {}",
                names(loaded)
            )));
        }
        let array = take(&name, &value, wanted)?;
        all.push((name, array));
    }
    Ok(all)
}

fn is_known(loaded: &Loaded, name: &str) -> bool {
    match loaded {
        Loaded::Network(m) => {
            let own = &m.info().network.inputs;
            own.iter().any(|i| i.name == name) || own.len() == 1 && ["lengths", "mask"].contains(&name)
        }
        Loaded::Onnx(m, _) => m.inputs().iter().any(|i| i.name == name),
    }
}

fn names(loaded: &Loaded) -> String {
    let list = |all: Vec<&str>| all.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    match loaded {
        Loaded::Network(m) => {
            let own = &m.info().network.inputs;
            let more = if own.len() == 1 { " and, optionally, `lengths` or `mask`" } else { "" };
            format!("{}{more}", list(own.iter().map(|i| &i.name[..]).collect()))
        }
        Loaded::Onnx(m, _) => list(m.inputs().iter().map(|i| &i.name[..]).collect()),
    }
}

/// Outputs by name, as a dictionary of arrays.
pub(crate) fn dictionary<'py>(py: Python<'py>, outputs: Vec<(String, Output)>) -> PyResult<Bound<'py, PyDict>> {
    let all = PyDict::new(py);
    for (name, output) in outputs {
        all.set_item(name, output.into_array(py)?)?;
    }
    Ok(all)
}

/// What runs of an ONNX model give, in host memory.
pub(crate) fn onnx_outputs(
    model: &OnnxModel,
    outputs: Vec<(String, Data)>,
) -> Result<Vec<(String, Output)>, recurve::Error> {
    let kind = |name: &str| model.outputs().iter().find(|o| o.name == name).map_or(Element::F32, |o| o.kind.dtype);
    let all = outputs.into_iter().map(|(name, data)| {
        let output = Output::of_data(&data, kind(&name))?;
        Ok((name, output))
    });
    all.collect()
}

fn run(loaded: &Loaded, inputs: Vec<(String, Taken)>) -> Result<Vec<(String, Output)>, recurve::Error> {
    match loaded {
        Loaded::Network(m) => {
            let device = m.device();
            let inputs = inputs.into_iter().map(|(name, x)| Ok((name, x.input(device)?)));
            let inputs = inputs.collect::<Result<Vec<(String, Input)>, recurve::Error>>()?;
            let outputs = m.run_all(inputs.iter().map(|(n, x)| (&n[..], x.clone())))?;
            outputs.into_iter().map(|(name, t)| Ok((name, Output::of(&t)?))).collect()
        }
        Loaded::Onnx(m, _) => {
            let device = m.device();
            let inputs = inputs.into_iter().map(|(name, x)| Ok((name, x.data(device)?)));
            let inputs = inputs.collect::<Result<Vec<(String, Data)>, recurve::Error>>()?;
            let outputs = m.run_data(inputs.iter().map(|(n, x)| (&n[..], x.clone())))?;
            onnx_outputs(m, outputs)
        }
    }
}

#[pymethods]
impl Runner {
    /// Opens a file.
    #[staticmethod]
    #[pyo3(signature = (path, device, weights = None))]
    fn open(py: Python<'_>, path: PathBuf, device: &Bound<'_, PyAny>, weights: Option<PathBuf>) -> PyResult<Self> {
        let (device, selector) = device::given(device)?;
        let loaded = compute(py, || {
            Ok(match (is_onnx(&path), &weights) {
                (true, None) => Loaded::Onnx(Arc::new(OnnxModel::open(&path, &device)?), Source::File(path.clone())),
                (_, Some(weights)) => Loaded::Network(Arc::new(Model::open_keras(&path, weights, &device)?)),
                (false, None) => Loaded::Network(Arc::new(Model::open(&path, &device)?)),
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
                    let model = OnnxModel::from_bytes(bytes.to_vec(), &device)?;
                    Loaded::Onnx(Arc::new(model), Source::Bytes(bytes.into()))
                }
                false => Loaded::Network(Arc::new(Model::from_bytes(bytes, &device)?)),
            })
        })?;
        let loaded: Result<Loaded, recurve::Error> = loaded;
        Ok(Self::new(loaded.or_raise()?, selector))
    }

    /// The bytes that `from_bytes` reads.
    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        match &self.loaded {
            Loaded::Network(m) => Ok(PyBytes::new(py, &compute(py, || m.to_bytes())?.or_raise()?)),
            Loaded::Onnx(_, Source::Bytes(bytes)) => Ok(PyBytes::new(py, bytes)),
            Loaded::Onnx(_, Source::File(path)) => match compute(py, || std::fs::read(path))? {
                Ok(bytes) => Ok(PyBytes::new(py, &bytes)),
                Err(e) => Err(PyOSError::new_err(format!(
                    "{}: {e}; a model of an ONNX file can be copied to another process only while the file is there",
                    path.display()
                ))),
            },
        }
    }

    /// Whether this is the graph of an ONNX file.
    #[getter]
    fn is_onnx(&self) -> bool {
        matches!(self.loaded, Loaded::Onnx(..))
    }

    /// Whether a call may give the lengths of sequences as ``lengths``, besides the inputs.
    #[getter]
    fn takes_lengths(&self) -> bool {
        match &self.loaded {
            Loaded::Network(m) => m.network().takes_lengths(),
            Loaded::Onnx(..) => false,
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
        PyDevice { device: self.loaded.device().clone(), selector: self.selector.clone() }
    }

    /// The same model on another device.
    fn to(&self, py: Python<'_>, device: &Bound<'_, PyAny>) -> PyResult<Self> {
        let (device, selector) = device::given(device)?;
        let moved = compute(py, || {
            Ok(match &self.loaded {
                Loaded::Network(m) => Loaded::Network(Arc::new(m.to_device(&device)?)),
                Loaded::Onnx(m, source) => Loaded::Onnx(Arc::new(m.to_device(&device)?), source.clone()),
            })
        })?;
        let moved: Result<Loaded, recurve::Error> = moved;
        Ok(Self::new(moved.or_raise()?, selector))
    }

    /// Name, shape and element type of each input.
    fn inputs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        match &self.loaded {
            Loaded::Network(m) => {
                let all = m.info().network.inputs.iter();
                let all = all.map(|i| described(py, &i.name, &network_type(i.dtype(), &i.shape)));
                PyList::new(py, all.collect::<PyResult<Vec<_>>>()?)
            }
            Loaded::Onnx(m, _) => {
                let all = m.inputs().iter().map(|v| described(py, &v.name, &v.kind));
                PyList::new(py, all.collect::<PyResult<Vec<_>>>()?)
            }
        }
    }

    /// Name, shape and element type of each output.
    fn outputs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        match &self.loaded {
            Loaded::Network(m) => {
                let all = m.info().network.outputs.iter().zip(m.network().output_shapes());
                let all = all.map(|(o, shape)| described(py, &o.name, &network_type(recurve::DType::F32, shape)));
                PyList::new(py, all.collect::<PyResult<Vec<_>>>()?)
            }
            Loaded::Onnx(m, _) => {
                let all = m.outputs().iter().map(|v| described(py, &v.name, &v.kind));
                PyList::new(py, all.collect::<PyResult<Vec<_>>>()?)
            }
        }
    }

    /// Runs the model on arrays by name and returns all outputs by name.
    fn run<'py>(&self, py: Python<'py>, inputs: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
        fork::check(self.loaded.device())?;
        let inputs = taken(&self.loaded, inputs)?;
        let outputs = compute(py, || run(&self.loaded, inputs))?.or_raise()?;
        dictionary(py, outputs)
    }

    /// What a user should know of how the file is read.
    #[getter]
    fn notes(&self) -> Vec<String> {
        match &self.loaded {
            Loaded::Network(m) => m.notes().to_vec(),
            Loaded::Onnx(m, _) => m.notes().to_vec(),
        }
    }

    /// A line about each recurrent layer of an ONNX file: what it runs as.
    fn explain(&self) -> Vec<String> {
        match &self.loaded {
            Loaded::Network(_) => Vec::new(),
            Loaded::Onnx(m, _) => m.explain().to_vec(),
        }
    }

    /// A table of layers, shapes and numbers of parameters.
    fn summary(&self) -> String {
        match &self.loaded {
            Loaded::Network(m) => m.summary().to_string(),
            Loaded::Onnx(m, _) => onnx_summary(&self.loaded.name(), m),
        }
    }

    /// The states that an ONNX file takes in and gives out: pairs of names.
    fn states(&self) -> Vec<(String, String)> {
        match &self.loaded {
            Loaded::Network(_) => Vec::new(),
            Loaded::Onnx(m, _) => m.states().into_iter().map(|s| (s.input, s.output)).collect(),
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

/// The type of a network's input or output.
fn network_type(dtype: recurve::DType, shape: &[Option<usize>]) -> ValueType {
    ValueType::new(dtype, shape.iter().map(|d| d.map_or(Dim::Any, Dim::Size)))
}

/// What an ONNX file is, as text.
fn onnx_summary(name: &str, m: &OnnxModel) -> String {
    let mut text = format!("Model: \"{name}\"\n");
    for (what, values) in [("input", m.inputs()), ("output", m.outputs())] {
        for v in values {
            text.push_str(&format!("{what:<7} {}: {}\n", v.name, v.kind));
        }
    }
    for s in m.states() {
        text.push_str(&format!("state   {} <- {}\n", s.input, s.output));
    }
    for line in m.explain() {
        text.push_str(&format!("cell    {line}\n"));
    }
    text.push_str(&format!("{} nodes", m.graph().nodes().len()));
    text
}
