//! Processes that were forked, as `multiprocessing` does on Linux by default before Python 3.14: a fork copies the
//! memory of a process, but only the thread that asked for it. The threads of a call are gone then, so a forked process
//! has a pool of its own; a GPU that was opened before cannot be used.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use recurve::Device;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let forked = wrap_pyfunction!(after_fork, m)?;
    let os = m.py().import("os")?;
    // Windows has no forks.
    if let Some(register_at_fork) = os.getattr_opt("register_at_fork")? {
        let options = pyo3::types::PyDict::new(m.py());
        options.set_item("after_in_child", forked)?;
        register_at_fork.call((), Some(&options))?;
    }
    Ok(())
}

/// How many forks lie between the process that imported the module and this one.
static FORKS: AtomicUsize = AtomicUsize::new(0);

/// Whether a GPU was opened, here or before a fork.
static OPENED: AtomicBool = AtomicBool::new(false);

/// Whether a GPU was opened before this process was forked.
static LOST: AtomicBool = AtomicBool::new(false);

/// The pool of this process, and its number of forks.
static POOL: Mutex<Option<(usize, Arc<ThreadPool>)>> = Mutex::new(None);

#[pyfunction]
fn after_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    LOST.store(OPENED.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// Runs `f` where there are threads to share its work with; refuses if the system gives none.
pub(crate) fn on_threads<T: Send>(f: impl FnOnce() -> T + Send) -> Result<T, ThreadPoolBuildError> {
    match FORKS.load(Ordering::Relaxed) {
        // The pool that all Rust code of this process shares.
        0 => Ok(f()),
        forks => Ok(pool(forks)?.install(f)),
    }
}

/// The pool of a forked process.
fn pool(forks: usize) -> Result<Arc<ThreadPool>, ThreadPoolBuildError> {
    let mut own = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((made, pool)) = &*own
        && *made == forks
    {
        return Ok(pool.clone());
    }
    let pool = Arc::new(ThreadPoolBuilder::new().build()?);
    // The threads of another process's pool cannot be told to end.
    std::mem::forget(own.replace((forks, pool.clone())));
    Ok(pool)
}

/// Notes that a device was opened in this process.
pub(crate) fn opened(device: &Device) {
    if device.gpu().is_some() {
        OPENED.store(true, Ordering::Relaxed);
    }
}

/// Refuses a GPU in a process that was forked after one was opened: its driver's threads and queues are not there.
pub(crate) fn check(device: &Device) -> PyResult<()> {
    if LOST.load(Ordering::Relaxed) && device.gpu().is_some() { Err(refusal()) } else { Ok(()) }
}

/// As [`check`], for a text that may open a GPU.
pub(crate) fn check_selector(selector: &str) -> PyResult<()> {
    if LOST.load(Ordering::Relaxed) && selector != "cpu" { Err(refusal()) } else { Ok(()) }
}

fn refusal() -> PyErr {
    PyRuntimeError::new_err(
        "this process was forked after a GPU was opened, and a GPU does not survive that; begin processes with \
         multiprocessing.get_context(\"spawn\") or \"forkserver\", or use device=\"cpu\"",
    )
}
