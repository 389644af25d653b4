//! Calls one after the other, whose states stay on the device.

use crate::arrays::{Output, Taken, Wanted, take};
use crate::error::{OrRaise, compute};
use crate::fork;
use crate::runner::{Loaded, Runner, dictionary, onnx_outputs, taken};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use recurve::{HostArray, HostData, Input, Model, NetworkState, OnnxSession, StatePair, Tensor};
use recurve_graph::Data;
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Session>()
}

enum Inner {
    Onnx(Box<OnnxSession>),
    /// A network, with the states of its recurrent layers after the last call.
    Network(Arc<Model>, Option<Box<NetworkState>>),
}

/// Calls of one model, one after the other, whose states stay on the device. They begin with zeros.
///
/// Made by `Model.session`. It is a context manager, which closes it. Several threads may use it; their calls come one
/// after the other.
#[pyclass(module = "recurve", frozen)]
pub(crate) struct Session {
    loaded: Loaded,
    /// `None` once it is closed.
    inner: Mutex<Option<Inner>>,
}

impl Session {
    /// Runs `f` on the session, without holding the interpreter.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        f: impl FnOnce(&mut Inner) -> Result<T, recurve::Error> + Send,
    ) -> PyResult<T> {
        fork::check(self.loaded.device())?;
        let done = compute(py, || {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner.as_mut().map(f)
        })?;
        done.ok_or_else(|| PyRuntimeError::new_err("the session is closed"))?.or_raise()
    }
}

/// The states of a network by name: those of the first recurrent layer are `0.h` and, if it has one, `0.c`.
fn named(state: Option<&NetworkState>) -> impl Iterator<Item = (String, &Tensor)> {
    let all = state.into_iter().flat_map(NetworkState::states).enumerate();
    all.flat_map(|(n, s)| [Some((format!("{n}.h"), &s.h)), s.c.as_ref().map(|c| (format!("{n}.c"), c))]).flatten()
}

/// A state of a network as it is now.
fn network_state(state: Option<&NetworkState>, name: &str) -> Result<HostArray, recurve::Error> {
    let Some((_, t)) = named(state).find(|(n, _)| n == name) else {
        let names: Vec<_> = named(state).map(|(n, _)| format!("`{n}`")).collect();
        let names = if names.is_empty() { "none before the first call".into() } else { names.join(", ") };
        let message = format!("is no state of this session; its states are {names}");
        return Err(recurve::Error::Input { name: name.into(), message });
    };
    Ok(HostArray { shape: t.dims().to_vec(), data: HostData::Float(t.to_vec()?) })
}

fn step(
    model: &Model,
    state: &mut Option<Box<NetworkState>>,
    inputs: Vec<(String, Taken)>,
) -> Result<Vec<(String, Output)>, recurve::Error> {
    let device = model.device();
    let inputs = inputs.into_iter().map(|(name, x)| Ok((name, x.input(device)?)));
    let inputs = inputs.collect::<Result<Vec<(String, Input)>, recurve::Error>>()?;
    let inputs = model.inputs(inputs.iter().map(|(n, x)| (&n[..], x.clone())))?;
    let (values, next) = model.network().forward_named_from(&inputs.named(), &inputs.args(), state.as_deref())?;
    let outputs = model.info().network.outputs.iter().zip(&values);
    let outputs = outputs.map(|(o, t)| Ok((o.name.clone(), Output::of(t)?))).collect::<Result<_, recurve::Error>>()?;
    *state = Some(Box::new(next));
    Ok(outputs)
}

#[pymethods]
impl Session {
    #[new]
    #[pyo3(signature = (runner, batch = 1, states = None))]
    fn new(py: Python<'_>, runner: &Runner, batch: usize, states: Option<Vec<(String, String)>>) -> PyResult<Self> {
        let loaded = runner.loaded.clone();
        if batch == 0 {
            return Err(PyValueError::new_err("`batch` must be at least 1, but it is 0"));
        }
        let inner = match &loaded {
            Loaded::Onnx(m, _) => {
                let pairs = states
                    .map(|s| s.into_iter().map(|(input, output)| StatePair { input, output }).collect::<Vec<_>>());
                let made = compute(py, || match &pairs {
                    None => OnnxSession::new(m.clone(), batch),
                    Some(pairs) => OnnxSession::with_states(m.clone(), pairs, batch),
                })?;
                Inner::Onnx(Box::new(made.or_raise()?))
            }
            Loaded::Network(_) if states.is_some() => {
                return Err(PyTypeError::new_err(
                    "`states` names the states of an ONNX file; those of a network's layers are found by themselves",
                ));
            }
            Loaded::Network(m) => {
                // Refuses a network that cannot go on where a call has ended, as one that reads sequences backwards.
                m.network().check_goes_on().or_raise()?;
                Inner::Network(m.clone(), None)
            }
        };
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
        let outputs = self.with(py, |inner| match inner {
            Inner::Onnx(session) => {
                let device = session.model().device().clone();
                let inputs = inputs.into_iter().map(|(name, x)| Ok((name, x.data(&device)?)));
                let inputs = inputs.collect::<Result<Vec<(String, Data)>, recurve::Error>>()?;
                let outputs = session.run_data(inputs.iter().map(|(n, x)| (&n[..], x.clone())))?;
                onnx_outputs(session.model(), outputs)
            }
            Inner::Network(model, state) => step(model, state, inputs),
        })?;
        dictionary(py, outputs)
    }

    /// Makes every state zero again.
    fn reset(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |inner| match inner {
            Inner::Onnx(session) => session.reset(),
            Inner::Network(_, state) => {
                *state = None;
                Ok(())
            }
        })
    }

    /// The names of the states.
    #[getter]
    fn states(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.with(py, |inner| match inner {
            Inner::Onnx(session) => Ok(session.states().map(|s| s.input).collect()),
            Inner::Network(_, state) => Ok(named(state.as_deref()).map(|(n, _)| n).collect()),
        })
    }

    /// A state as it is now.
    ///
    /// Parameters
    /// ----------
    /// name : str
    ///     One of `states`.
    fn state<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let array = self.with(py, |inner| match inner {
            Inner::Onnx(session) => session.state(name),
            Inner::Network(_, state) => network_state(state.as_deref(), name),
        })?;
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
        let wanted = match &self.loaded {
            Loaded::Onnx(m, _) => {
                m.inputs().iter().find(|i| i.name == name).map_or(Wanted::Floats, |i| i.kind.dtype.into())
            }
            Loaded::Network(_) => {
                return Err(PyTypeError::new_err(
                    "the states of a network's layers can be read and reset, but not set",
                ));
            }
        };
        let array = match take(name, array, wanted)? {
            Taken::Floats(v, shape) => HostArray { shape, data: HostData::Float((*v).as_ref().to_vec()) },
            Taken::Whole(v, shape) => HostArray { shape, data: HostData::Int(v) },
        };
        self.with(py, |inner| match inner {
            Inner::Onnx(session) => session.set_state(name, &array),
            Inner::Network(..) => unreachable!("refused above"),
        })
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
