//! Networks of layers that Python describes, and their weights as Keras has them.

use crate::arrays::floats;
use crate::device;
use crate::error::{OrRaise, compute};
use crate::runner::{Loaded, Runner};
use numpy::prelude::*;
use numpy::{PyArrayDyn, PyReadonlyArrayDyn};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use recurve::{Error, Model, NetworkVariable};
use std::collections::HashMap;
use std::sync::Arc;

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(build_network, m)?)?;
    m.add_function(wrap_pyfunction!(network_shapes, m)?)?;
    m.add_function(wrap_pyfunction!(network_layers, m)?)?;
    m.add_function(wrap_pyfunction!(network_variables, m)?)?;
    m.add_function(wrap_pyfunction!(network_weights, m)?)?;
    m.add_function(wrap_pyfunction!(network_with_weights, m)?)?;
    m.add_function(wrap_pyfunction!(network_with_trainable, m)?)?;
    m.add_function(wrap_pyfunction!(network_reset_states, m)?)
}

/// The network of a model that Keras's JSON describes, with initial weights from a seed.
#[pyfunction]
fn build_network(py: Python<'_>, json: &str, seed: u64, device: &Bound<'_, PyAny>) -> PyResult<Runner> {
    let (device, selector) = device::given(device)?;
    let model = compute(py, || Model::from_keras_json(json, seed, &device))?.or_raise()?;
    Ok(Runner::new(Loaded::network(model), selector))
}

/// The shapes of the outputs of such a model, which is not built.
#[pyfunction]
fn network_shapes<'py>(py: Python<'py>, json: &str) -> PyResult<Vec<Bound<'py, PyTuple>>> {
    let shapes = compute(py, || Model::keras_output_shapes(json))?.or_raise()?;
    shapes.into_iter().map(|shape| PyTuple::new(py, shape)).collect()
}

/// The name and the class of each layer.
#[pyfunction]
fn network_layers(runner: &Runner) -> PyResult<Vec<(String, &'static str)>> {
    let layers = &runner.network()?.info().network.layers;
    Ok(layers.iter().map(|l| (l.name.clone(), l.layer.class_name())).collect())
}

fn variables(model: &Model) -> Result<Vec<NetworkVariable>, Error> {
    Ok(model.network().variables()?)
}

/// A variable: its layer, its name, its direction, its shape, and whether it is trained.
type Row<'py> = (String, String, &'static str, Bound<'py, PyTuple>, bool);

/// The variables in Keras's order.
#[pyfunction]
fn network_variables<'py>(py: Python<'py>, runner: &Runner) -> PyResult<Vec<Row<'py>>> {
    let row = |v: NetworkVariable| {
        let shape = PyTuple::new(py, v.shape())?;
        Ok((v.layer().to_owned(), v.name().to_owned(), v.direction(), shape, v.is_trainable()))
    };
    variables(runner.network()?).or_raise()?.into_iter().map(row).collect()
}

/// The variable with this place.
fn at(all: &[NetworkVariable], index: usize) -> PyResult<&NetworkVariable> {
    let count = all.len();
    all.get(index)
        .ok_or_else(|| PyValueError::new_err(format!("there are {count} variables, and none is number {index}")))
}

/// The values of the variables with these places, in Keras's layout.
#[pyfunction]
fn network_weights<'py>(
    py: Python<'py>,
    runner: &Runner,
    indices: Vec<usize>,
) -> PyResult<Vec<Bound<'py, PyArrayDyn<f32>>>> {
    let model = runner.network()?;
    let all = variables(model).or_raise()?;
    let one = |index| {
        let variable = at(&all, index)?;
        let data = compute(py, || variable.read(model.network().weights()))?.or_raise()?;
        floats(py, &data, variable.shape())
    };
    indices.into_iter().map(one).collect()
}

/// The same model with other values of some variables, in Keras's layout, by their places.
#[pyfunction]
fn network_with_weights(py: Python<'_>, runner: &Runner, values: &Bound<'_, PyDict>) -> PyResult<Runner> {
    let model = runner.network()?.clone();
    let all = variables(&model).or_raise()?;
    let mut weights = (**model.network().weights()).clone();
    for (index, value) in values {
        let variable = at(&all, index.extract()?)?;
        let array: PyReadonlyArrayDyn<'_, f32> = value.extract()?;
        if array.shape() != variable.shape() {
            return Err(PyValueError::new_err(format!(
                "`{}.{}` has the shape {:?}, but {:?} is given",
                variable.layer(),
                variable.name(),
                variable.shape(),
                array.shape()
            )));
        }
        let data: Vec<f32> = array.as_array().iter().copied().collect();
        compute(py, || variable.write(data, &mut weights))?.or_raise()?;
    }
    let changed = compute(py, || model.with_weights(Arc::new(weights)))?.or_raise()?;
    Ok(Runner::new(Loaded::network(changed), runner.selector.clone()))
}

/// The same model whose layers of these names are trained, or are not.
#[pyfunction]
fn network_with_trainable(py: Python<'_>, runner: &Runner, flags: HashMap<String, bool>) -> PyResult<Runner> {
    let model = runner.network()?.clone();
    let changed = compute(py, || model.with_trainable(|name| flags.get(name).copied()))?.or_raise()?;
    Ok(Runner::new(Loaded::network(changed), runner.selector.clone()))
}

/// Makes the kept states of stateful layers zero again.
#[pyfunction]
fn network_reset_states(py: Python<'_>, runner: &Runner) -> PyResult<()> {
    let model = runner.network()?.clone();
    compute(py, || model.network().reset_states())
}
