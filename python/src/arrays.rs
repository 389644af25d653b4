//! Arrays of numpy's in and out.

use crate::error::OrRaise;
use numpy::npyffi::flags::NPY_ARRAY_WRITEABLE;
use numpy::npyffi::objects::_PyArray_GET_ITEM_DATA;
use numpy::prelude::*;
use numpy::{PyArrayDyn, PyUntypedArray};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::IntoPyDict;
use recurve::{Device, HostArray, HostData, Tensor, TensorError};
use recurve_graph::{Data, Element, IntArray};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(borrows, m)?)
}

/// What an input holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Floats. Whole numbers and truth values become floats.
    Floats,
    /// Whole numbers: ids, lengths, truth values.
    Whole,
}

impl From<Element> for Wanted {
    fn from(e: Element) -> Self {
        if e.is_float() { Self::Floats } else { Self::Whole }
    }
}

/// An array that came in.
pub(crate) enum Taken {
    /// f32 elements in the caller's memory, or in that of a copy.
    Floats(Arc<Borrowed>, Vec<usize>),
    /// Whole numbers.
    Whole(Vec<i64>, Vec<usize>),
}

impl Taken {
    /// The array as a value of a graph, on its device.
    pub(crate) fn data(self, device: &Device) -> Result<Data, TensorError> {
        Ok(match self {
            Self::Floats(floats, shape) => floats.tensor(&shape, device)?.into(),
            Self::Whole(numbers, shape) => IntArray::new(&shape, numbers).into(),
        })
    }

    /// The array in memory of its own.
    pub(crate) fn host(&self) -> HostArray {
        match self {
            Self::Floats(v, shape) => {
                HostArray { shape: shape.clone(), data: HostData::Float((**v).as_ref().to_vec()) }
            }
            Self::Whole(v, shape) => HostArray { shape: shape.clone(), data: HostData::Int(v.clone()) },
        }
    }
}

/// The elements of an array of numpy's, which is kept and which nobody may write to through it meanwhile.
pub(crate) struct Borrowed {
    array: Py<PyArrayDyn<f32>>,
    elements: *const f32,
    count: usize,
}

#[expect(unsafe_code, reason = "an array is held by its pointer")]
mod shared {
    use super::Borrowed;

    // SAFETY: the elements are only read, `array` keeps them, and their memory does not move: numpy refuses to resize
    // an array that somebody else holds. Python may drop `array` on any thread.
    unsafe impl Send for Borrowed {}
    // SAFETY: as above.
    unsafe impl Sync for Borrowed {}

    impl AsRef<[f32]> for Borrowed {
        fn as_ref(&self) -> &[f32] {
            // SAFETY: `take` has checked that there are so many elements in C order, aligned and of this machine's
            // byte order.
            unsafe { std::slice::from_raw_parts(self.elements, self.count) }
        }
    }
}

/// Which arrays are borrowed and were writeable before, by their addresses, and how many times. Only the first of them
/// takes the flag from an array, and only the last gives it back.
static WRITEABLE: LazyLock<Mutex<HashMap<usize, usize>>> = LazyLock::new(Mutex::default);

/// Sets or clears the flag that lets Python write to an array; says what it was.
#[expect(unsafe_code, reason = "the flag has no safe function without a call into Python")]
fn set_writeable(array: &Bound<'_, PyArrayDyn<f32>>, on: bool) -> bool {
    // SAFETY: the array exists and the interpreter is held.
    let flags = unsafe { &mut (*_PyArray_GET_ITEM_DATA(array.as_array_ptr())).flags };
    let was = *flags & NPY_ARRAY_WRITEABLE != 0;
    *flags = if on { *flags | NPY_ARRAY_WRITEABLE } else { *flags & !NPY_ARRAY_WRITEABLE };
    was
}

impl Borrowed {
    fn new(array: &Bound<'_, PyArrayDyn<f32>>) -> Self {
        let mut all = WRITEABLE.lock().unwrap_or_else(PoisonError::into_inner);
        let key = array.as_ptr() as usize;
        match all.get_mut(&key) {
            Some(count) => *count += 1,
            None if set_writeable(array, false) => drop(all.insert(key, 1)),
            None => {}
        }
        Self { elements: array.data().cast_const(), count: array.len(), array: array.clone().unbind() }
    }

    /// The array as a tensor: on the CPU of the same memory, on a GPU a copy.
    pub(crate) fn tensor(self: Arc<Self>, shape: &[usize], device: &Device) -> Result<Tensor, TensorError> {
        match device {
            Device::Cpu => Tensor::from_shared(self, shape),
            Device::Gpu(_) => Tensor::from_f32((*self).as_ref(), shape, device),
        }
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        // Without an interpreter there is nobody who could write.
        Python::try_attach(|py| {
            let mut all = WRITEABLE.lock().unwrap_or_else(PoisonError::into_inner);
            let array = self.array.bind(py);
            let key = array.as_ptr() as usize;
            if let Some(count) = all.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    all.remove(&key);
                    set_writeable(array, true);
                }
            }
        });
    }
}

fn numpy(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static NUMPY: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    Ok(NUMPY.get_or_try_init(py, || PyModule::import(py, "numpy").map(Bound::unbind))?.bind(py))
}

/// An array of numpy's of anything that can be one, by the rules of `recurve/_dlpack.py`.
fn as_array<'py>(name: &str, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyUntypedArray>> {
    static AS_NUMPY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    if value.is_exact_instance_of::<PyUntypedArray>() {
        return Ok(value.cast::<PyUntypedArray>()?.clone());
    }
    let py = value.py();
    let as_numpy = AS_NUMPY.get_or_try_init(py, || {
        Ok::<_, PyErr>(PyModule::import(py, "recurve._dlpack")?.getattr("as_numpy")?.unbind())
    })?;
    Ok(as_numpy.bind(py).call1((value, format!("input `{name}`")))?.cast_into::<PyUntypedArray>()?)
}

/// The f32 array that can be borrowed, if this is one: in C order, aligned, of this machine's byte order.
fn borrowable<'a, 'py>(array: &'a Bound<'py, PyUntypedArray>) -> Option<&'a Bound<'py, PyArrayDyn<f32>>> {
    let floats = array.cast::<PyArrayDyn<f32>>().ok()?;
    (array.is_c_contiguous() && array.is_aligned()).then_some(floats)
}

/// Takes an array, or anything that numpy makes one of, as an input.
pub(crate) fn take(name: &str, value: &Bound<'_, PyAny>, wanted: Wanted) -> PyResult<Taken> {
    let array = as_array(name, value)?;
    let shape = array.shape().to_vec();
    if shape.contains(&0) {
        return Err(PyValueError::new_err(format!("input `{name}`: is empty, its shape is {}", tuple(&shape))));
    }
    if wanted == Wanted::Floats
        && let Some(floats) = borrowable(&array)
    {
        return Ok(Taken::Floats(Arc::new(Borrowed::new(floats)), shape));
    }
    let py = array.py();
    let numpy = numpy(py)?;
    let dtype = array.dtype();
    let as_type = |to: &str| {
        let options = [("dtype", to), ("order", "C")].into_py_dict(py)?;
        numpy.call_method("array", (&array,), Some(&options))
    };
    let is_bfloat16 = || dtype.str().is_ok_and(|s| s == "bfloat16");
    match (dtype.kind(), wanted) {
        (b'f' | b'i' | b'u' | b'b', Wanted::Floats) => {
            let floats = as_type("float32")?;
            let floats = floats.cast::<PyArrayDyn<f32>>()?;
            Ok(Taken::Floats(Arc::new(Borrowed::new(floats)), shape))
        }
        (b'V', Wanted::Floats) if is_bfloat16() => {
            let floats = as_type("float32")?;
            let floats = floats.cast::<PyArrayDyn<f32>>()?;
            Ok(Taken::Floats(Arc::new(Borrowed::new(floats)), shape))
        }
        (b'i' | b'u' | b'b', Wanted::Whole) => {
            if dtype.kind() == b'u' && dtype.itemsize() == 8 {
                let most: u64 = array.call_method0("max")?.extract()?;
                if i64::try_from(most).is_err() {
                    return Err(PyValueError::new_err(format!(
                        "input `{name}`: holds {most}, which is more than int64 holds"
                    )));
                }
            }
            let whole = as_type("int64")?;
            let whole = whole.cast::<PyArrayDyn<i64>>()?;
            Ok(Taken::Whole(whole.to_vec()?, shape))
        }
        (b'f' | b'V', Wanted::Whole) if dtype.kind() == b'f' || is_bfloat16() => Err(PyTypeError::new_err(format!(
            "input `{name}`: holds floats ({dtype}), but whole numbers are needed; convert them, `array.astype(\"int64\")`"
        ))),
        _ => {
            let needed = if wanted == Wanted::Floats { "numbers" } else { "whole numbers" };
            Err(PyTypeError::new_err(format!(
                "input `{name}`: holds elements of type {dtype}, but {needed} are needed"
            )))
        }
    }
}

/// A shape as Python writes it.
pub(crate) fn tuple(shape: &[usize]) -> String {
    match shape {
        [one] => format!("({one},)"),
        all => format!("({})", all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    }
}

/// An output in host memory, to become an array once the interpreter is held.
pub(crate) enum Output {
    /// f32 elements on the CPU.
    Floats(Tensor),
    /// Whole numbers, and the name of numpy's type for them.
    Whole(IntArray, &'static str),
}

impl Output {
    /// Brings a tensor to host memory.
    pub(crate) fn of(tensor: &Tensor) -> Result<Self, TensorError> {
        if tensor.dtype() == recurve::DType::U32 {
            return Ok(Self::Whole(IntArray::new(tensor.dims(), tensor.to_vec_i64()?), "int64"));
        }
        Ok(Self::Floats(tensor.to_device(&Device::Cpu)?.to_dtype(recurve::DType::F32)?))
    }

    /// Brings a value of a graph to host memory.
    pub(crate) fn of_data(data: &Data, element: Element) -> Result<Self, TensorError> {
        match (data, element) {
            (Data::Tensor(t), e) if e.is_float() => Self::of(t),
            (data, e) => Ok(Self::Whole(data.to_ints()?, e.array_type())),
        }
    }

    /// The array, whose memory is its own.
    pub(crate) fn into_array(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        match self {
            Self::Floats(t) => {
                let elements = t.cpu_f32().expect("f32 elements on the CPU");
                Ok(floats(py, elements, t.dims())?.into_any())
            }
            Self::Whole(numbers, name) => {
                let flat = numpy::PyArray1::from_slice(py, numbers.data());
                let shaped = flat.reshape(numbers.dims().to_vec())?;
                if name == "int64" {
                    return Ok(shaped.into_any());
                }
                shaped.call_method1("astype", (name,))
            }
        }
    }
}

/// An array of its own with these elements.
#[expect(unsafe_code, reason = "the array's memory is written once, before anybody sees it")]
pub(crate) fn floats<'py>(py: Python<'py>, elements: &[f32], shape: &[usize]) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
    /// From here on other threads of Python run while the elements are copied.
    const LARGE: usize = 1 << 18;
    // SAFETY: every element is written before the array is returned.
    let array = unsafe { PyArrayDyn::<f32>::new(py, shape, false) };
    // SAFETY: the array is new, in C order, and nobody else has it.
    let out = unsafe { array.as_slice_mut() }?;
    assert_eq!(out.len(), elements.len(), "a shape has as many elements as its tensor");
    if elements.len() < LARGE {
        out.copy_from_slice(elements);
    } else {
        py.detach(|| out.copy_from_slice(elements));
    }
    Ok(array)
}

/// The address that a call would read an array's elements from: the array's own if it is taken as it is.
///
/// Parameters
/// ----------
/// array : array_like
///     What would be given to a model on the CPU, for an input of floats.
///
/// Returns
/// -------
/// int
///     The address of the first element.
#[pyfunction]
fn borrows(array: &Bound<'_, PyAny>) -> PyResult<usize> {
    match take("array", array, Wanted::Floats)? {
        Taken::Floats(floats, shape) => {
            // What the CPU computes with.
            let t = Tensor::from_shared(floats, &shape).or_raise()?;
            Ok(t.cpu_f32().expect("f32 elements on the CPU").as_ptr() as usize)
        }
        Taken::Whole(..) => unreachable!("floats were asked for"),
    }
}
