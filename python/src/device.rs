//! Devices by name.

use crate::error::{OrRaise, compute};
use crate::fork;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use recurve::{AdapterSummary, Device};
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<PyDevice>()?;
    m.add_class::<Adapter>()?;
    m.add_function(wrap_pyfunction!(devices, m)?)
}

/// Devices that are open, by the texts that asked for them: all models of one text share a device.
static OPEN: LazyLock<Mutex<HashMap<String, Device>>> = LazyLock::new(Mutex::default);

fn open(selector: &str) -> Result<Device, recurve::TensorError> {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = open.get(selector)
        && device.synchronize().is_ok()
    {
        return Ok(device.clone());
    }
    open.remove(selector);
    let device = Device::by_name(selector)?;
    fork::opened(&device);
    open.insert(selector.to_owned(), device.clone());
    Ok(device)
}

/// A device on which models run: the CPU or a GPU.
///
/// Parameters
/// ----------
/// selector : str, default "auto"
///     ``"auto"`` (a hardware GPU if there is one, else the CPU), ``"cpu"``, ``"gpu"``, ``"gpu:NAME"``, ``"vulkan"``,
///     ``"metal"``, ``"dx12"``, ``"gl"``, a backend with a part of the adapter's name, ``"vulkan:llvmpipe"``, or a place on
///     the PCI bus, ``"pci:0000:65:00.0"``.
#[pyclass(name = "Device", module = "recurve", frozen)]
pub(crate) struct PyDevice {
    pub(crate) device: Device,
    /// The text that opens it again.
    pub(crate) selector: String,
}

#[pymethods]
impl PyDevice {
    #[new]
    #[pyo3(signature = (selector = "auto"))]
    fn new(py: Python<'_>, selector: &str) -> PyResult<Self> {
        fork::check_selector(selector)?;
        let device = compute(py, || open(selector))?.or_raise()?;
        Ok(Self { device, selector: selector.to_owned() })
    }

    /// The device's name.
    #[getter]
    fn name(&self) -> String {
        self.device.name()
    }

    /// ``"cpu"``, ``"vulkan"``, ``"metal"``, ``"dx12"`` or ``"gl"``.
    #[getter]
    fn backend(&self) -> &'static str {
        self.device.backend()
    }

    /// The text that the device was asked for with.
    #[getter]
    fn selector(&self) -> &str {
        &self.selector
    }

    /// Waits until the device has done what it was given.
    fn synchronize(&self, py: Python<'_>) -> PyResult<()> {
        compute(py, || self.device.synchronize())?.or_raise()
    }

    /// Gives memory that nothing uses now back to the system.
    fn trim(&self, py: Python<'_>) -> PyResult<()> {
        compute(py, || self.device.trim())
    }

    fn __repr__(&self) -> String {
        format!("<recurve.Device {}>", self.device)
    }

    fn __str__(&self) -> String {
        self.device.to_string()
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err(format!(
            "a device cannot be pickled; pickle its selector, {:?}, and open it where it is needed",
            self.selector
        )))
    }
}

/// A device, or the text that opens one, as an argument.
pub(crate) fn given(value: &Bound<'_, PyAny>) -> PyResult<(Device, String)> {
    if let Ok(device) = value.cast::<PyDevice>() {
        fork::check(&device.get().device)?;
        return Ok((device.get().device.clone(), device.get().selector.clone()));
    }
    let Ok(selector) = value.extract::<String>() else {
        let got = value.get_type().name()?;
        return Err(PyTypeError::new_err(format!("`device` must be a text such as \"auto\" or a Device, not {got}")));
    };
    fork::check_selector(&selector)?;
    let device = compute(value.py(), || open(&selector))?.or_raise()?;
    Ok((device, selector))
}

/// An adapter that the system offers, or the CPU.
#[pyclass(module = "recurve", frozen)]
pub(crate) struct Adapter {
    /// Name given by the driver.
    #[pyo3(get)]
    name: String,
    /// ``"cpu"``, ``"vulkan"``, ``"metal"``, ``"dx12"`` or ``"gl"``.
    #[pyo3(get)]
    backend: String,
    /// ``"CPU"``, ``"discrete GPU"``, ``"integrated GPU"``, ``"virtual GPU"``, ``"GPU"`` or ``"software"``.
    #[pyo3(get)]
    kind: String,
    /// Its place on the PCI bus as in ``nvidia-smi``, such as ``"0000:65:00.0"``; None where the driver does not tell.
    #[pyo3(get)]
    pci: Option<String>,
    /// Name and version of the driver.
    #[pyo3(get)]
    driver: String,
    /// Whether float16 can be stored on it.
    #[pyo3(get)]
    float16: bool,
}

impl From<AdapterSummary> for Adapter {
    fn from(a: AdapterSummary) -> Self {
        let (backend, kind) = (a.backend.to_owned(), a.kind.to_string());
        let pci = a.pci.map(|place| place.to_string());
        Self { name: a.name, backend, kind, pci, driver: a.driver, float16: a.f16 }
    }
}

#[pymethods]
impl Adapter {
    /// The text that opens it.
    #[getter]
    fn selector(&self) -> String {
        if self.backend == "cpu" { "cpu".into() } else { format!("{}:{}", self.backend, self.name) }
    }

    fn __repr__(&self) -> String {
        format!("<recurve.Adapter {:?} ({})>", self.selector(), self.kind)
    }
}

/// The devices of this machine: the CPU first, then every adapter of Vulkan, Metal and Direct3D 12.
///
/// Returns
/// -------
/// list of Adapter
///     Each with `name`, `backend`, `kind`, `pci`, `driver`, `float16` and the `selector` that opens it.
#[pyfunction]
fn devices(py: Python<'_>) -> PyResult<Vec<Adapter>> {
    let cpu = Adapter {
        name: Device::Cpu.name(),
        backend: "cpu".into(),
        kind: "CPU".into(),
        pci: None,
        driver: String::new(),
        float16: true,
    };
    let found = compute(py, Device::adapters)?;
    Ok(std::iter::once(cpu).chain(found.into_iter().map(Adapter::from)).collect())
}
