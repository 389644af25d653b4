//! Arrays of JavaScript's in and out.

use crate::set;
use js_sys::{
    Array, BigInt64Array, BigUint64Array, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array, Object,
    Reflect, Uint8Array, Uint8ClampedArray, Uint16Array, Uint32Array,
};
use recurve::{Device, HostArray, HostData, Tensor, TensorError, without_blocking};
use recurve_graph::{Data, Dim, Element, Int, IntArray, ValueType};
use recurve_web_errors::{Result, thrown, thrown_with};
use std::sync::Arc;
use wasm_bindgen::{JsCast, JsValue};

/// An array that came in.
pub(crate) struct Taken {
    dims: Vec<usize>,
    elements: Elements,
}

enum Elements {
    Floats(Vec<f32>),
    Whole(Vec<i64>),
}

impl Taken {
    /// The array as a value of a graph.
    pub(crate) fn data(self, device: &Device) -> std::result::Result<Data, TensorError> {
        Ok(match self.elements {
            Elements::Floats(v) if *device == Device::Cpu => Tensor::from_shared(Arc::new(v), &self.dims)?.into(),
            Elements::Floats(v) => Tensor::from_f32(&v, &self.dims, device)?.into(),
            Elements::Whole(v) => IntArray::new(&self.dims, v).into(),
        })
    }

    pub(crate) fn host(self) -> HostArray {
        let data = match self.elements {
            Elements::Floats(v) => HostData::Float(v),
            Elements::Whole(v) => HostData::Int(v),
        };
        HostArray { shape: self.dims, data }
    }
}

/// What a value is, for errors.
fn described_value(v: &JsValue) -> String {
    if v.is_null() {
        return "null".into();
    }
    match v.dyn_ref::<Object>() {
        Some(o) => format!("an object of class {}", o.constructor().name()),
        None => v.js_typeof().as_string().unwrap_or_default(),
    }
}

fn bad(name: &str, message: &str) -> JsValue {
    thrown_with("Input", &format!("input `{}`: {message}", name.chars().take(200).collect::<String>()))
}

/// Inputs by name. `element` gives the type of an input, or refuses a name.
pub(crate) fn take(given: &JsValue, element: impl Fn(&str) -> Result<Element>) -> Result<Vec<(String, Taken)>> {
    let Some(object) = given.dyn_ref::<Object>().filter(|o| !Array::is_array(o) && !o.is_function()) else {
        let got = described_value(given);
        return Err(thrown_with("Input", &format!("expected inputs by name, {{ name: {{ data, dims }} }}, got {got}")));
    };
    let mut all = Vec::new();
    for key in Object::keys(object) {
        let name = key.as_string().unwrap_or_default();
        let array = Reflect::get(object, &key)?;
        let element = element(&name)?;
        all.push((name.clone(), one(&name, &array, element)?));
    }
    Ok(all)
}

/// One input, `{ data, dims }`.
pub(crate) fn one(name: &str, array: &JsValue, element: Element) -> Result<Taken> {
    if !array.is_object() {
        return Err(bad(name, &format!("expected {{ data, dims }}, got {}", described_value(array))));
    }
    let data = Reflect::get(array, &"data".into())?;
    let elements = match element.is_float() {
        true => Elements::Floats(floats(name, &data)?),
        false => Elements::Whole(whole(name, &data)?),
    };
    let count = match &elements {
        Elements::Floats(v) => v.len(),
        Elements::Whole(v) => v.len(),
    };
    let dims = dims(name, &Reflect::get(array, &"dims".into())?, count)?;
    Ok(Taken { dims, elements })
}

fn dims(name: &str, given: &JsValue, count: usize) -> Result<Vec<usize>> {
    let expected = "`dims` must be an array of whole numbers from 1";
    let dims = if given.is_undefined() {
        vec![count]
    } else if let Some(given) = given.dyn_ref::<Array>() {
        let size = |d: JsValue| match d.as_f64() {
            Some(n) if n >= 1.0 && n.fract() == 0.0 && n <= f64::from(u32::MAX) => Ok(n as usize),
            _ => {
                let text = d.as_f64().map_or_else(|| described_value(&d), |n| n.to_string());
                Err(bad(name, &format!("{expected}, but there is {text}")))
            }
        };
        given.iter().map(size).collect::<Result<Vec<usize>>>()?
    } else {
        return Err(bad(name, &format!("{expected}, but it is {}", described_value(given))));
    };
    let product = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    if product != Some(count) {
        let product = product.map_or_else(|| "more than memory holds".into(), |n| n.to_string());
        return Err(bad(name, &format!("`dims` are {dims:?}, which is {product} elements, but `data` has {count}")));
    }
    if count == 0 {
        return Err(bad(name, "has no elements"));
    }
    Ok(dims)
}

/// Memory for so many elements.
fn memory<T: Clone + Default>(count: u32) -> Result<Vec<T>> {
    let mut v = Vec::new();
    let refused = |_| thrown_with("OutOfMemory", &format!("not enough memory for {count} elements"));
    v.try_reserve_exact(count as usize).map_err(refused)?;
    v.resize(count as usize, T::default());
    Ok(v)
}

fn not_numbers(name: &str, data: &JsValue, needed: &str) -> JsValue {
    bad(name, &format!("`data` must be a typed array or an array of {needed}, but it is {}", described_value(data)))
}

macro_rules! typed {
    ($data:expr, $convert:expr, $($array:ty),*) => {
        $(if let Some(a) = $data.dyn_ref::<$array>() {
            let mut v = memory(a.length())?;
            a.copy_to(&mut v);
            return Ok(v.into_iter().map($convert).collect());
        })*
    };
}

fn floats(name: &str, data: &JsValue) -> Result<Vec<f32>> {
    if let Some(a) = data.dyn_ref::<Float32Array>() {
        let mut v = memory(a.length())?;
        a.copy_to(&mut v);
        return Ok(v);
    }
    typed!(data, |v| v as f32, Float64Array, Int32Array, Uint8Array, Int8Array, Int16Array, Uint16Array, Uint32Array);
    typed!(data, |v| v as f32, BigInt64Array, BigUint64Array);
    if let Some(a) = data.dyn_ref::<Uint8ClampedArray>() {
        return Ok(a.to_vec().into_iter().map(f32::from).collect());
    }
    let Some(a) = data.dyn_ref::<Array>() else { return Err(not_numbers(name, data, "numbers")) };
    let one = |v: JsValue| match v.as_f64().or_else(|| v.as_bool().map(f64::from)) {
        Some(v) => Ok(v as f32),
        None => Err(bad(name, &format!("`data` must hold numbers, but there is {}", described_value(&v)))),
    };
    a.iter().map(one).collect()
}

fn whole(name: &str, data: &JsValue) -> Result<Vec<i64>> {
    typed!(data, i64::from, Int32Array, Uint8Array, Int8Array, Int16Array, Uint16Array, Uint32Array);
    if let Some(a) = data.dyn_ref::<BigInt64Array>() {
        return Ok(a.to_vec());
    }
    if let Some(a) = data.dyn_ref::<BigUint64Array>() {
        let fits = |v: u64| i64::try_from(v).map_err(|_| bad(name, &format!("holds {v}, which is more than int64")));
        return a.to_vec().into_iter().map(fits).collect();
    }
    if let Some(a) = data.dyn_ref::<Uint8ClampedArray>() {
        return Ok(a.to_vec().into_iter().map(i64::from).collect());
    }
    if data.is_instance_of::<Float32Array>() || data.is_instance_of::<Float64Array>() {
        return Err(bad(name, "holds floats, but whole numbers are needed"));
    }
    let Some(a) = data.dyn_ref::<Array>() else { return Err(not_numbers(name, data, "whole numbers")) };
    let one = |v: JsValue| {
        let number = v.as_f64().or_else(|| v.as_bool().map(f64::from));
        match number {
            Some(v) if v.fract() == 0.0 && v.abs() <= js_sys::Number::MAX_SAFE_INTEGER => Ok(v as i64),
            _ => i64::try_from(v.clone()).map_err(|_| {
                let got = number.map_or_else(|| described_value(&v), |n| n.to_string());
                bad(name, &format!("`data` must hold whole numbers, but there is {got}"))
            }),
        }
    };
    a.iter().map(one).collect()
}

/// `{ name, type, dims }` of an input or output.
pub(crate) fn described(name: &str, kind: &ValueType) -> Object {
    let object = Object::new();
    set(&object, "name", name);
    set(&object, "type", kind.dtype.array_type());
    let dim = |d: &Dim| match d {
        Dim::Size(n) => JsValue::from_f64(*n as f64),
        Dim::Symbol(s) => JsValue::from_str(s),
        _ => JsValue::NULL,
    };
    let dims: JsValue = match kind.unranked {
        true => JsValue::NULL,
        false => kind.dims.iter().map(dim).collect::<Array>().into(),
    };
    set(&object, "dims", dims);
    object
}

fn array(data: impl Into<JsValue>, dims: &[usize], name: &str) -> Object {
    let object = Object::new();
    set(&object, "data", data);
    set(&object, "dims", dims.iter().map(|d| JsValue::from_f64(*d as f64)).collect::<Array>());
    set(&object, "type", name);
    object
}

/// Whole numbers in the typed array of their type.
fn numbers(v: &[i64], dims: &[usize], element: Element) -> Object {
    let name = element.array_type();
    macro_rules! of {
        ($array:ty, $t:ty) => {
            <$array>::from(&v.iter().map(|v| *v as $t).collect::<Vec<_>>()[..]).into()
        };
    }
    let data: JsValue = match name {
        "bool" | "uint8" => of!(Uint8Array, u8),
        "int8" => of!(Int8Array, i8),
        "int16" => of!(Int16Array, i16),
        "uint16" => of!(Uint16Array, u16),
        "int32" => of!(Int32Array, i32),
        "uint32" => of!(Uint32Array, u32),
        "uint64" => of!(BigUint64Array, u64),
        _ => BigInt64Array::from(v).into(),
    };
    array(data, dims, name)
}

/// A value of a graph in JavaScript's memory.
pub(crate) async fn output(element: Element, data: Data) -> Result<Object> {
    if element.is_float() {
        let t = without_blocking(|| data.to_f32(&Device::Cpu).map(std::borrow::Cow::into_owned)).await;
        let t = t.map_err(|e| thrown(&e))?;
        if let Some(v) = t.cpu_f32() {
            return Ok(array(Float32Array::from(v), t.dims(), "float32"));
        }
        let v = t.to_vec_async().await.map_err(|e| thrown(&e))?;
        return Ok(array(Float32Array::from(&v[..]), t.dims(), "float32"));
    }
    let whole = without_blocking(|| data.to_ints()).await.map_err(|e| thrown(&e))?;
    Ok(numbers(whole.data(), whole.dims(), element))
}

/// An array in host memory in JavaScript's.
pub(crate) fn host(a: HostArray) -> Object {
    match a.data {
        HostData::Int(v) => numbers(&v, &a.shape, Element::Int(Int::I64)),
        _ => array(Float32Array::from(&a.to_f32()[..]), &a.shape, "float32"),
    }
}
