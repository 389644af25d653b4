//! Looking at a model: its picture, the table of its layers, and the comparison with the f64 reference.

use crate::device;
use crate::error::{OrRaise, compute};
use crate::runner::{Runner, taken};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use recurve::testing::{
    CheckError, GraphCheck, Tolerance, check_onnx, check_size, cross_check, example_inputs, example_onnx_inputs,
};
use recurve::{AnyModel, Device, Error, HostArray, Model, OnnxModel};
use recurve_pictures::Diagram;

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Check>()?;
    m.add_function(wrap_pyfunction!(picture, m)?)?;
    m.add_function(wrap_pyfunction!(layers, m)?)?;
    m.add_function(wrap_pyfunction!(check, m)?)
}

/// The picture of a model.
///
/// Parameters
/// ----------
/// runner : Runner
///     The model.
/// kind : str
///     ``"svg"`` or ``"png"``.
/// every_node : bool
///     Whether every node of an ONNX file has a box, instead of one box for small ones that follow each other.
///
/// Returns
/// -------
/// bytes
///     The contents of a file of this kind.
#[pyfunction]
fn picture<'py>(py: Python<'py>, runner: &Runner, kind: &str, every_node: bool) -> PyResult<Bound<'py, PyBytes>> {
    if !["svg", "png"].contains(&kind) {
        return Err(PyValueError::new_err(format!("a picture is \"svg\" or \"png\", not {kind:?}")));
    }
    let drawn = compute(py, || {
        let diagram = match &runner.loaded.model {
            AnyModel::Network(m) => Diagram::of_model(m),
            AnyModel::Onnx(m) => Diagram::of_onnx(m, &m.states(), &runner.loaded.name(), every_node),
        };
        if kind == "png" { diagram.png() } else { Ok(diagram.svg().into_bytes()) }
    })?;
    Ok(PyBytes::new(py, &drawn.or_raise()?))
}

/// A layer in the table of a network: its name, its class, the shape of its output, the number of its parameters and
/// the names of what it is connected to.
type Layer = (String, String, String, usize, Vec<String>);

/// The layers of a network, in order; none of an ONNX file.
#[pyfunction]
fn layers(runner: &Runner) -> Vec<Layer> {
    let AnyModel::Network(m) = &runner.loaded.model else { return Vec::new() };
    let summary = m.summary();
    let all = summary.layers.iter().map(|l| {
        let from = l.connected_to.iter().map(ToString::to_string).collect();
        (l.name.clone(), l.class.to_string(), l.output_shape(), l.params, from)
    });
    all.collect()
}

/// How a model compares with the f64 reference, layer by layer or node by node. It is true if everything agrees.
#[pyclass(module = "recurve", frozen)]
pub(crate) struct Check {
    /// Whether every device agrees with the reference.
    #[pyo3(get)]
    passed: bool,
    /// The largest absolute error; infinite if an array could not be compared.
    #[pyo3(get)]
    worst_error: f64,
    /// The names of the devices that were compared.
    #[pyo3(get)]
    devices: Vec<String>,
    /// The report.
    text: String,
}

#[pymethods]
impl Check {
    fn __bool__(&self) -> bool {
        self.passed
    }

    fn __str__(&self) -> &str {
        &self.text
    }

    fn __repr__(&self) -> String {
        let word = if self.passed { "passed" } else { "FAILED" };
        format!("<recurve.Check {word}, worst error {:.2e}>\n{}", self.worst_error, self.text)
    }
}

fn of_network(
    model: &Model,
    given: Option<Vec<(String, HostArray)>>,
    (batch, seq): (usize, usize),
    devices: &[Device],
    tolerance: Tolerance,
) -> Result<Check, Error> {
    let inputs = match given {
        Some(inputs) => inputs,
        None => example_inputs(model, batch, seq)?,
    };
    for (name, x) in inputs.iter().filter(|(n, _)| model.info().network.inputs.iter().any(|i| i.name == *n)) {
        check_size(model, name, &x.shape)?;
    }
    let named: Vec<_> = inputs.iter().map(|(n, x)| (&n[..], x.clone())).collect();
    let report = match cross_check(model, &named, devices, tolerance) {
        Ok(report) | Err(CheckError::Mismatch(report)) => report,
        Err(CheckError::Run(e)) => return Err(e),
        Err(e) => return Err(Error::Input { name: "inputs".into(), message: e.to_string() }),
    };
    Ok(Check {
        passed: report.passed(),
        worst_error: report.worst_error(),
        devices: report.devices.iter().map(|d| d.device.clone()).collect(),
        text: report.to_string(),
    })
}

fn of_onnx(
    model: &OnnxModel,
    given: Option<Vec<(String, HostArray)>>,
    (batch, seq): (usize, usize),
    devices: &[Device],
    tolerance: Tolerance,
) -> Result<Check, Error> {
    let inputs = match given {
        Some(mut inputs) => {
            let zeros = model.initial_states(&model.states(), &inputs);
            inputs.extend(zeros);
            inputs
        }
        None => example_onnx_inputs(model, batch, seq, &[])?,
    };
    let named: Vec<_> = inputs.iter().map(|(n, x)| (&n[..], x)).collect();
    // Wrong inputs are refused here, with the model's words.
    model.data(named.iter().copied())?;
    let reports = devices.iter().map(|d| check_onnx(model, &named, d, tolerance));
    let reports = reports.collect::<Result<Vec<GraphCheck>, Error>>()?;
    let errors = reports.iter().flat_map(|r| &r.nodes).map(|n| n.result.as_ref().map_or(f64::INFINITY, |e| *e));
    Ok(Check {
        passed: !reports.is_empty() && reports.iter().all(GraphCheck::passed),
        worst_error: errors.fold(0.0, f64::max),
        devices: reports.iter().map(|r| r.device.clone()).collect(),
        text: reports.iter().map(ToString::to_string).collect(),
    })
}

/// The devices to check: those given, or every one there is for `"all"`.
fn wanted(runner: &Runner, given: &Bound<'_, PyAny>) -> PyResult<Vec<Device>> {
    if given.is_none() {
        return Ok(vec![runner.loaded.model.device().clone()]);
    }
    if given.extract::<&str>().is_ok_and(|s| s == "all") {
        return compute(given.py(), Device::all);
    }
    if let Ok(all) = given.cast::<pyo3::types::PyList>() {
        return all.iter().map(|d| Ok(device::given(&d)?.0)).collect();
    }
    Ok(vec![device::given(given)?.0])
}

/// Compares a model on devices with the f64 reference; see `Model.check`.
#[pyfunction]
fn check(
    runner: &Runner,
    inputs: Option<&Bound<'_, PyDict>>,
    sizes: (usize, usize),
    tolerance: (f64, f64),
    devices: &Bound<'_, PyAny>,
) -> PyResult<Check> {
    let ((batch, seq), (rtol, atol)) = (sizes, tolerance);
    for (name, value) in [("batch", batch), ("seq", seq)] {
        if value == 0 {
            return Err(PyValueError::new_err(format!("`{name}` must be at least 1, but it is 0")));
        }
    }
    for (name, value) in [("rtol", rtol), ("atol", atol)] {
        if !value.is_finite() || value < 0.0 {
            return Err(PyValueError::new_err(format!("`{name}` must be a finite number of at least 0, got {value}")));
        }
    }
    let py = devices.py();
    let devices = wanted(runner, devices)?;
    let given = inputs.map(|inputs| taken(&runner.loaded, inputs)).transpose()?;
    let report = compute(py, || {
        let given = given.map(|all| all.into_iter().map(|(name, x)| (name, x.host())).collect());
        let tolerance = Tolerance { abs: atol, rel: rtol };
        match &runner.loaded.model {
            AnyModel::Network(m) => of_network(m, given, (batch, seq), &devices, tolerance),
            AnyModel::Onnx(m) => of_onnx(m, given, (batch, seq), &devices, tolerance),
        }
    })?;
    report.or_raise()
}
