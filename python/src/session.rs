//! Calls one after the other, whose states stay on the device.

use crate::arrays::{Output, Wanted, take};
use crate::error::{OrRaise, compute};
use crate::fork;
use crate::runner::{Loaded, Runner, by_name, dictionary, in_memory, on_device, taken};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use recurve::{AnyModel, AnySession, HostData, StatePair};
use std::sync::{Mutex, PoisonError};

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Session>()
}

/// Calls of one model, one after the other, whose states stay on the device. They begin with zeros.
///
/// Made by `Model.session`. It is a context manager, which closes it. Several threads may use it; their calls come one
/// after the other.
#[pyclass(module = "recurve", frozen)]
pub(crate) struct Session {
    loaded: Loaded,
    /// `None` once it is closed.
    inner: Mutex<Option<AnySession>>,
}

impl Session {
    /// Runs `f` on the session, without holding the interpreter.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        f: impl FnOnce(&mut AnySession) -> Result<T, recurve::Error> + Send,
    ) -> PyResult<T> {
        fork::check(self.loaded.model.device())?;
        let done = compute(py, || {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner.as_mut().map(f)
        })?;
        done.ok_or_else(|| PyRuntimeError::new_err("the session is closed"))?.or_raise()
    }
}

#[pymethods]
impl Session {
    #[new]
    #[pyo3(signature = (runner, batch = 1, states = None))]
    fn new(py: Python<'_>, runner: &Runner, batch: usize, states: Option<Vec<(String, String)>>) -> PyResult<Self> {
        let loaded = runner.loaded.clone();
        let pairs =
            states.map(|s| s.into_iter().map(|(input, output)| StatePair { input, output }).collect::<Vec<_>>());
        let inner = compute(py, || AnySession::new(&loaded.model, batch, pairs.as_deref()))?.or_raise()?;
        Ok(Self { loaded, inner: Mutex::new(Some(inner)) })
    }

    /// One call: the inputs that are no states, by name.
    ///
    /// Parameters
    /// ----------
    /// inputs : dict of str to array_like
    ///     The inputs, without the states.
    ///
    /// Returns
    /// -------
    /// dict of str to numpy.ndarray
    ///     The outputs, without the states.
    fn run<'py>(&self, py: Python<'py>, inputs: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
        let inputs = taken(&self.loaded, inputs)?;
        let device = self.loaded.model.device();
        let outputs = self.with(py, |inner| {
            let inputs = on_device(device, inputs)?;
            in_memory(inner.run(by_name(&inputs))?)
        })?;
        dictionary(py, outputs)
    }

    /// Makes every state zero again.
    fn reset(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, AnySession::reset)
    }

    /// The names of the states.
    #[getter]
    fn states(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.with(py, |inner| Ok(inner.states()))
    }

    /// A state as it is now.
    ///
    /// Parameters
    /// ----------
    /// name : str
    ///     One of `states`.
    fn state<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let array = self.with(py, |inner| inner.state(name))?;
        let shape = array.shape.clone();
        let output = match array.data {
            HostData::Float(v) => return Ok(crate::arrays::floats(py, &v, &shape)?.into_any()),
            HostData::Int(v) => Output::Whole(recurve_graph::IntArray::new(&shape, v), "int64"),
            _ => return Err(PyTypeError::new_err(format!("the state `{name}` is of a type that numpy has not"))),
        };
        output.into_array(py)
    }

    /// Puts an array in the place of a state of an ONNX file.
    ///
    /// Parameters
    /// ----------
    /// name : str
    ///     One of `states`.
    /// array : array_like
    ///     Of the state's shape.
    fn set_state(&self, py: Python<'_>, name: &str, array: &Bound<'_, PyAny>) -> PyResult<()> {
        let wanted = match &self.loaded.model {
            AnyModel::Onnx(_) => self.loaded.model.input_element(name).map_or(Wanted::Floats, Into::into),
            AnyModel::Network(_) => Wanted::Floats,
        };
        let array = take(name, array, wanted)?.host();
        self.with(py, |inner| inner.set_state(name, &array))
    }

    /// Ends the session; its states are gone.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        compute(py, || drop(self.inner.lock().unwrap_or_else(PoisonError::into_inner).take()))
    }

    /// Whether it is closed.
    #[getter]
    fn closed(&self, py: Python<'_>) -> PyResult<bool> {
        compute(py, || self.inner.lock().unwrap_or_else(PoisonError::into_inner).is_none())
    }

    fn __enter__(this: Bound<'_, Self>) -> Bound<'_, Self> {
        this
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _kind: &Bound<'_, PyAny>,
        _error: &Bound<'_, PyAny>,
        _trace: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.close(py)
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err("a session cannot be pickled: its states are on a device"))
    }
}
