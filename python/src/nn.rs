//! What the modules of `recurve.nn` compute with, and arrays that stay on a device. Shapes are checked in Python, where
//! the messages are PyTorch's, and again by the layers.

use crate::arrays::{self, Borrowed, Output, Taken, Wanted, take};
use crate::device;
use crate::error::{OrRaise, compute};
use crate::fork;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use recurve::{
    Activation, Bias, CallArgs, Cell, Device, LayerError, MatmulOptions, Merge, RecurrentLayer, RecurrentSpec, State,
    TensorError, WeightFile, WeightSummary, Weights,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Tensor>()?;
    m.add_class::<RecurrentModule>()?;
    m.add_class::<LinearModule>()?;
    m.add_class::<EmbeddingModule>()?;
    m.add_function(wrap_pyfunction!(weights_of, m)?)
}

/// The weights of a file whose names begin with `prefix` and a dot, without that part of their names; all of them
/// without a prefix.
#[pyfunction]
fn weights_of<'py>(py: Python<'py>, path: PathBuf, prefix: &str) -> PyResult<Bound<'py, PyDict>> {
    let read = || {
        let all = Weights::open(&path)?;
        let own = if prefix.is_empty() { all.clone() } else { all.under(prefix) };
        if own.iter().next().is_none() {
            let available = all.iter().map(|(name, _)| format!("`{name}`")).take(8).collect::<Vec<_>>().join(", ");
            return Err(LayerError::MissingWeight { name: format!("{prefix}.…"), available });
        }
        let read = own.iter().map(|(name, w)| Ok((name.to_owned(), w.shape().to_vec(), w.to_vec()?)));
        read.collect::<Result<Vec<_>, LayerError>>()
    };
    let arrays = compute(py, read)?.or_raise()?;
    let named = PyDict::new(py);
    for (name, shape, elements) in arrays {
        named.set_item(name, arrays::floats(py, &elements, &shape)?)?;
    }
    Ok(named)
}

/// What a file of weights without a description of layers holds, and what can be done with it; `None` for other files.
pub(crate) fn listing(path: &Path) -> Option<String> {
    let file = WeightFile::open(path).ok()?;
    Some(format!(
        "{}\n\nWeights alone are no model. Load them into modules of your own, \
         `module.load_state_dict(recurve.nn.load_weights(path, prefix))`, or name the layers in a file of TOML \
         (docs/pytorch.md) and open that.",
        WeightSummary::of(&file)
    ))
}

/// An f32 array on a device.
#[pyclass(frozen, module = "recurve._recurve")]
struct Tensor(recurve::Tensor);

#[pymethods]
impl Tensor {
    /// Copies an array to a device.
    #[new]
    fn new(array: &Bound<'_, PyAny>, device: &Bound<'_, PyAny>) -> PyResult<Self> {
        let device = device::given(device)?.0;
        let (floats, shape) = floats("array", array)?;
        let made = || recurve::Tensor::from_f32((*floats).as_ref(), &shape, &device);
        Ok(Self(compute(array.py(), made)?.or_raise()?))
    }

    /// The dimensions.
    #[getter]
    fn shape(&self) -> Vec<usize> {
        self.0.dims().to_vec()
    }

    /// The name of the device.
    #[getter]
    fn device(&self) -> String {
        self.0.device().to_string()
    }

    /// A new array with its elements.
    fn numpy<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        fork::check(&self.0.device())?;
        array(py, || Ok(self.0.clone()))
    }
}

/// The elements and the shape of an array of floats.
fn floats(name: &str, value: &Bound<'_, PyAny>) -> PyResult<(Arc<Borrowed>, Vec<usize>)> {
    match take(name, value, Wanted::Floats)? {
        Taken::Floats(floats, shape) => Ok((floats, shape)),
        Taken::Whole(..) => unreachable!("floats were asked for"),
    }
}

/// An operand of a module: an array, or a tensor on a device.
enum Operand {
    Array(Arc<Borrowed>, Vec<usize>),
    Tensor(recurve::Tensor),
}

impl Operand {
    fn of(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(match value.cast::<Tensor>() {
            Ok(tensor) => Self::Tensor(tensor.get().0.clone()),
            Err(_) => {
                let (floats, shape) = floats(name, value)?;
                Self::Array(floats, shape)
            }
        })
    }

    fn optional(name: &str, value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Self>> {
        value.map(|v| Self::of(name, v)).transpose()
    }

    /// The operand on a device. A tensor that is elsewhere is moved, as an array is.
    fn on(self, device: &Device) -> Result<recurve::Tensor, TensorError> {
        match self {
            Self::Array(floats, shape) => floats.tensor(&shape, device),
            Self::Tensor(tensor) if tensor.device() == *device => Ok(tensor),
            Self::Tensor(tensor) => tensor.to_device(device),
        }
    }
}

/// Computes a tensor, and gives it as an array with memory of its own.
fn array<'py>(
    py: Python<'py>,
    f: impl FnOnce() -> Result<recurve::Tensor, LayerError> + Send,
) -> PyResult<Bound<'py, PyAny>> {
    compute(py, || Ok::<_, LayerError>(Output::of(&f()?)?))?.or_raise()?.into_array(py)
}

/// Whole numbers of an array of u32, on a device.
fn whole(name: &str, value: &Bound<'_, PyAny>) -> PyResult<(Vec<i64>, Vec<usize>)> {
    match take(name, value, Wanted::Whole)? {
        Taken::Whole(numbers, shape) => Ok((numbers, shape)),
        Taken::Floats(..) => unreachable!("whole numbers were asked for"),
    }
}

/// Stacked recurrent layers with weights by PyTorch's names.
#[pyclass(frozen, module = "recurve._recurve")]
struct RecurrentModule {
    layer: RecurrentLayer,
    device: Device,
}

#[pymethods]
impl RecurrentModule {
    #[new]
    #[expect(clippy::too_many_arguments, reason = "called in one place, by position")]
    fn new(
        cell: &str,
        hidden_size: usize,
        num_layers: usize,
        bias: bool,
        bidirectional: bool,
        proj_size: usize,
        time_major: bool,
        weights: &Bound<'_, PyDict>,
        device: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let py = weights.py();
        let device = device::given(device)?.0;
        let cell = match cell {
            "rnn_tanh" => Cell::RNN,
            "rnn_relu" => Cell { candidate: Activation::Relu, ..Cell::RNN },
            "lstm" => Cell { projection: (proj_size > 0).then_some(proj_size), ..Cell::LSTM },
            "gru" => Cell::GRU,
            other => return Err(PyValueError::new_err(format!("there is no cell `{other}`"))),
        };
        let mut spec = RecurrentSpec::new(cell, hidden_size);
        spec.num_layers = num_layers;
        spec.bidirectional = bidirectional.then_some(Merge::Concat);
        spec.bias = if bias { Bias::Double } else { Bias::None };
        spec.return_sequences = true;
        spec.time_major = time_major;
        let mut all = Weights::new();
        for (name, value) in weights {
            let name: String = name.extract()?;
            let (floats, shape) = floats(&name, &value)?;
            all.insert(name, &shape, (*floats).as_ref().to_vec()).or_raise()?;
        }
        let first = all.require("weight_ih_l0").or_raise()?;
        let features = first.shape().last().copied().unwrap_or(0);
        let layer = compute(py, || RecurrentLayer::new("module", &spec, features, &all, "", &device))?.or_raise()?;
        Ok(Self { layer, device })
    }

    /// The outputs as an array, and the final h and c on the device.
    fn forward<'py>(
        &self,
        py: Python<'py>,
        x: &Bound<'py, PyAny>,
        h0: Option<&Bound<'py, PyAny>>,
        c0: Option<&Bound<'py, PyAny>>,
        lengths: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyAny>, Tensor, Option<Tensor>)> {
        fork::check(&self.device)?;
        let x = Operand::of("input", x)?;
        let (h0, c0) = (Operand::optional("h_0", h0)?, Operand::optional("c_0", c0)?);
        let lengths = lengths.map(|l| whole("lengths", l)).transpose()?;
        let run = || {
            let x = x.on(&self.device)?;
            let state = self.state(h0, c0)?;
            let lengths = lengths.map(|(l, shape)| recurve::Tensor::from_i64(&l, &shape, &self.device)).transpose()?;
            let args = CallArgs { state: state.as_ref(), lengths: lengths.as_ref(), ..CallArgs::default() };
            let (y, state) = self.layer.forward_with(&x, &args)?;
            Ok::<_, LayerError>((Output::of(&y)?, state))
        };
        let (y, state) = compute(py, run)?.or_raise()?;
        Ok((y.into_array(py)?, Tensor(state.h), state.c.map(Tensor)))
    }

    /// The final h and c of one timestep, on the device. The input is `[1, B, I]`.
    fn step<'py>(
        &self,
        py: Python<'py>,
        x: &Bound<'py, PyAny>,
        h0: Option<&Bound<'py, PyAny>>,
        c0: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<(Tensor, Option<Tensor>)> {
        fork::check(&self.device)?;
        let x = Operand::of("input", x)?;
        let (h0, c0) = (Operand::optional("h_0", h0)?, Operand::optional("c_0", c0)?);
        let run = || {
            let x = x.on(&self.device)?;
            let state = self.state(h0, c0)?;
            let rows = [x.dims()[1], self.layer.input_size()];
            Ok::<_, LayerError>(self.layer.step(&x.reshape(&rows)?, state.as_ref())?.1)
        };
        let state = compute(py, run)?.or_raise()?;
        Ok((Tensor(state.h), state.c.map(Tensor)))
    }
}

impl RecurrentModule {
    /// The initial state on the device. PyTorch has both of an LSTM's states or none.
    fn state(&self, h0: Option<Operand>, c0: Option<Operand>) -> Result<Option<State>, LayerError> {
        let Some(h0) = h0 else { return Ok(None) };
        let c = c0.map(|c| c.on(&self.device)).transpose()?;
        Ok(Some(State { h: h0.on(&self.device)?, c }))
    }
}

/// A matrix `[out, in]` and a bias on a device.
#[pyclass(frozen, module = "recurve._recurve")]
struct LinearModule {
    weight: recurve::Tensor,
    bias: Option<recurve::Tensor>,
    device: Device,
}

#[pymethods]
impl LinearModule {
    #[new]
    fn new(weight: &Bound<'_, PyAny>, bias: Option<&Bound<'_, PyAny>>, device: &Bound<'_, PyAny>) -> PyResult<Self> {
        let bias = bias.map(|b| Tensor::new(b, device)).transpose()?.map(|t| t.0);
        let weight = Tensor::new(weight, device)?.0;
        Ok(Self { device: weight.device(), weight, bias })
    }

    /// The products as an array.
    fn forward<'py>(&self, py: Python<'py>, x: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        fork::check(&self.device)?;
        let x = Operand::of("input", x)?;
        array(py, || {
            let options = MatmulOptions { transpose_rhs: true, bias: self.bias.as_ref(), ..MatmulOptions::default() };
            Ok(x.on(&self.device)?.matmul_with(&self.weight, &options)?)
        })
    }
}

/// A table `[rows, size]` on a device.
#[pyclass(frozen, module = "recurve._recurve")]
struct EmbeddingModule {
    table: recurve::Tensor,
    device: Device,
}

#[pymethods]
impl EmbeddingModule {
    #[new]
    fn new(table: &Bound<'_, PyAny>, device: &Bound<'_, PyAny>) -> PyResult<Self> {
        let table = Tensor::new(table, device)?.0;
        Ok(Self { device: table.device(), table })
    }

    /// The rows as an array.
    fn forward<'py>(&self, py: Python<'py>, ids: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        fork::check(&self.device)?;
        let (ids, shape) = whole("input", ids)?;
        array(py, || Ok(self.table.gather(&recurve::Tensor::from_i64(&ids, &shape, &self.device)?)?))
    }
}
