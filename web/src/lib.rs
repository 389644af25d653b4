//! Recurve for JavaScript. `js/engine.js` uses what stands here; the package's users use `js/index.js`.

#![forbid(unsafe_code)]
#![expect(missing_docs, reason = "the package's interface is described in js/index.d.ts")]

mod arrays;
#[cfg(feature = "threads")]
pub mod threads;

use arrays::{Taken, described, output, take};
use js_sys::{Array, Object, Reflect};
use recurve::{AnyModel, AnySession, Device, DeviceSelector, Model, StatePair, without_blocking};
use recurve_graph::{Data, Element, ValueType};
use recurve_web_errors::{Result, thrown, thrown_with};
use wasm_bindgen::prelude::*;

/// Keeps the message of a panic, which ends the module.
#[wasm_bindgen(start)]
fn start() {
    recurve_web_errors::keep_panics();
}

/// The message of the panic that ended this module.
#[wasm_bindgen]
pub fn panic_message() -> Option<String> {
    recurve_web_errors::panic_message()
}

/// Whether a file that begins with these bytes, 64 or all, is one of Keras, which the module `recurve_keras` reads.
#[wasm_bindgen]
pub fn is_keras(start: &[u8]) -> bool {
    Model::is_keras(start)
}

/// Sets a property of a new object, which cannot fail.
fn set(object: &Object, key: &str, value: impl Into<JsValue>) {
    let _ = Reflect::set(object, &JsValue::from_str(key), &value.into());
}

#[wasm_bindgen(js_name = Device)]
pub struct JsDevice(Device);

#[wasm_bindgen(js_class = Device)]
impl JsDevice {
    pub fn wasm() -> Self {
        Self(Device::Cpu)
    }

    /// Opens the GPU. A software adapter is taken too: the page decides which of its devices is faster.
    pub async fn webgpu() -> Result<Self> {
        let any = DeviceSelector::Gpu { backend: None, name: Some(String::new()) };
        Ok(Self(Device::open_async(&any).await.map_err(|e| thrown(&e))?))
    }

    #[wasm_bindgen(getter)]
    pub fn kind(&self) -> String {
        (if self.0.gpu().is_some() { "webgpu" } else { "wasm" }).into()
    }

    #[wasm_bindgen(getter)]
    pub fn name(&self) -> String {
        self.0.name()
    }

    /// Ends the GPU's device as a reset of the GPU would.
    pub fn destroy(&self) {
        if let Some(gpu) = self.0.gpu() {
            gpu.destroy();
        }
    }

    /// Why the device was lost, if it was.
    #[wasm_bindgen(getter)]
    pub fn lost(&self) -> Option<String> {
        self.0.gpu().and_then(recurve::Gpu::lost)
    }
}

/// A model on a device.
#[wasm_bindgen]
pub struct Runner {
    model: AnyModel,
    name: String,
}

/// Inputs by name, on a device.
fn inputs(model: &AnyModel, given: &JsValue) -> Result<Vec<(String, Data)>> {
    let taken = take(given, |name| model.input_element(name).map_err(|e| thrown(&e)))?;
    let device = model.device();
    let brought = |(name, x): (String, Taken)| Ok((name, x.data(device).map_err(|e| thrown(&e))?));
    taken.into_iter().map(brought).collect()
}

/// Outputs in JavaScript's memory.
async fn outputs(values: Vec<(String, Element, Data)>) -> Result<Object> {
    let all = Object::new();
    for (name, element, data) in values {
        let array = output(element, data).await?;
        set(&all, &name, array);
    }
    Ok(all)
}

fn by_name(inputs: &[(String, Data)]) -> impl Iterator<Item = (&str, Data)> {
    inputs.iter().map(|(n, d)| (&n[..], d.clone()))
}

#[wasm_bindgen]
impl Runner {
    /// Reads a file.
    pub async fn open(bytes: Vec<u8>, name: String, device: &JsDevice) -> Result<Self> {
        let device = &device.0;
        let model = without_blocking(|| AnyModel::from_bytes(bytes.clone(), device)).await.map_err(|e| thrown(&e))?;
        settled(device).await?;
        Ok(Self { model, name })
    }

    /// The same model on another device.
    pub async fn to(&self, device: &JsDevice) -> Result<Self> {
        let model = without_blocking(|| self.model.to_device(&device.0)).await.map_err(|e| thrown(&e))?;
        settled(&device.0).await?;
        Ok(Self { model, name: self.name.clone() })
    }

    pub fn describe(&self) -> Object {
        let all = Object::new();
        set(&all, "name", &self.name);
        set(&all, "summary", self.model.summary(&self.name));
        let values =
            |of: Vec<(String, ValueType)>| of.iter().map(|(name, kind)| described(name, kind)).collect::<Array>();
        set(&all, "inputs", values(self.model.inputs()));
        set(&all, "outputs", values(self.model.outputs()));
        let stateful = matches!(&self.model, AnyModel::Network(m) if m.network().is_stateful());
        set(&all, "stateful", stateful);
        set(&all, "notes", self.model.notes().iter().map(|n| JsValue::from_str(n)).collect::<Array>());
        all
    }

    /// Runs the model.
    pub async fn run(&self, given: JsValue) -> Result<Object> {
        let inputs = inputs(&self.model, &given)?;
        outputs(without_blocking(|| self.model.run(by_name(&inputs))).await.map_err(|e| thrown(&e))?).await
    }

    pub fn session(&self, batch: f64, states: Option<Vec<Array>>) -> Result<Session> {
        if batch.fract() != 0.0 || !(1.0..=f64::from(u32::MAX)).contains(&batch) {
            return Err(thrown_with("Input", &format!("`batch`: expected a whole number of at least 1, got {batch}")));
        }
        let pair = |p: Array| match (p.get(0).as_string(), p.get(1).as_string()) {
            (Some(input), Some(output)) => Ok(StatePair { input, output }),
            _ => Err(thrown_with("Input", "`states`: expected pairs of names, [input, output]")),
        };
        let states = states.map(|s| s.into_iter().map(pair).collect::<Result<Vec<_>>>()).transpose()?;
        let session = AnySession::new(&self.model, batch as usize, states.as_deref()).map_err(|e| thrown(&e))?;
        Ok(Session { model: self.model.clone(), session })
    }

    pub async fn read_text(&self, text: String) -> Result<Array> {
        let AnyModel::Network(model) = &self.model else {
            return Err(thrown_with("Input", "input `text`: this model has no vocabulary, so it cannot read text"));
        };
        let readings = without_blocking(|| model.read_text(&text)).await.map_err(|e| thrown(&e))?;
        let one = |r: recurve::Reading| {
            let object = Object::new();
            set(&object, "index", r.index as f64);
            set(&object, "character", r.character.to_string());
            set(&object, "label", r.label);
            object
        };
        Ok(readings.into_iter().map(one).collect())
    }
}

/// Waits until weights are on a device. Errors of bringing them there come late.
async fn settled(device: &Device) -> Result<()> {
    device.synchronize_async().await.map_err(|e| thrown(&e))
}

/// Calls one after the other, whose states stay on the device.
#[wasm_bindgen]
pub struct Session {
    model: AnyModel,
    session: AnySession,
}

#[wasm_bindgen]
impl Session {
    pub async fn run(&mut self, given: JsValue) -> Result<Object> {
        let inputs = inputs(&self.model, &given)?;
        let session = &mut self.session;
        outputs(without_blocking(|| session.run(by_name(&inputs))).await.map_err(|e| thrown(&e))?).await
    }

    pub fn states(&self) -> Vec<String> {
        self.session.states()
    }

    pub async fn state(&self, name: String) -> Result<Object> {
        let array = without_blocking(|| self.session.state(&name)).await.map_err(|e| thrown(&e))?;
        Ok(arrays::host(array))
    }

    pub fn set_state(&mut self, name: &str, array: JsValue) -> Result<()> {
        let element = match &self.model {
            AnyModel::Onnx(m) => m.inputs().iter().find(|i| i.name == name).map_or(Element::F32, |i| i.kind.dtype),
            _ => Element::F32,
        };
        let array = arrays::one(name, &array, element)?.host();
        self.session.set_state(name, &array).map_err(|e| thrown(&e))
    }

    pub fn reset(&mut self) -> Result<()> {
        self.session.reset().map_err(|e| thrown(&e))
    }
}
