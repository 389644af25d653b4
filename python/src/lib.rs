//! The compiled part of the Python package `recurve`.

mod arrays;
mod device;
mod error;
mod fork;
mod inspect;
mod network;
mod nn;
mod runner;
mod session;
mod trainer;

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
fn _recurve(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    error::register(m)?;
    arrays::register(m)?;
    device::register(m)?;
    network::register(m)?;
    runner::register(m)?;
    fork::register(m)?;
    session::register(m)?;
    inspect::register(m)?;
    nn::register(m)?;
    trainer::register(m)
}
