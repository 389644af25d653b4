//! A model of either kind, network or ONNX graph, for programs that run whatever file they are given.

use crate::files::short;
use crate::{Error, HostArray, HostData, Input, Model, OnnxModel, OnnxSession, OnnxValue, Result, StatePair};
use recurve_graph::{Data, Dim, Element, ValueType};
use recurve_layers::NetworkState;
use recurve_tensor::{DType, Device, Tensor};
use std::path::Path;
use std::sync::Arc;

/// A model on a device: a network of layers, or the graph of an ONNX file. Clones share it.
#[derive(Clone, Debug)]
pub enum AnyModel {
    /// A network of layers.
    Network(Arc<Model>),
    /// The graph of an ONNX file.
    Onnx(Arc<OnnxModel>),
}

/// What a model gives: the name and the element type of each output, with its elements.
type Named = Vec<(String, Element, Data)>;

/// The type of a network's input or output.
fn network_type(dtype: DType, shape: &[Option<usize>]) -> ValueType {
    ValueType::new(dtype, shape.iter().map(|d| d.map_or(Dim::Any, Dim::Size)))
}

/// A value for a network.
fn input(data: Data) -> Input {
    match data {
        Data::Tensor(t) => Input::Device(t),
        Data::Ints(i) => Input::Host(HostArray { shape: i.dims().to_vec(), data: HostData::Int(i.data().to_vec()) }),
    }
}

/// Whether these are the bytes of a file of ours or of Keras, or an archive; everything else is taken for ONNX, whose
/// files have no mark.
fn is_network(bytes: &[u8]) -> bool {
    let safetensors = bytes.len() > 8 && bytes[4..8] == [0; 4] && bytes[8] == b'{';
    safetensors || bytes.starts_with(b"PK") || Model::is_keras(bytes)
}

impl AnyModel {
    /// Opens a file, whose ending tells its kind: [`OnnxModel::open`] for `.onnx`, otherwise [`Model::open`].
    ///
    /// # Errors
    /// Theirs.
    pub fn open(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let path = path.as_ref();
        Ok(match path.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx")) {
            true => Self::Onnx(Arc::new(OnnxModel::open(path, device)?)),
            false => Self::Network(Arc::new(Model::open(path, device)?)),
        })
    }

    /// Reads the bytes of a file, which tell its kind: [`Model::from_bytes`] or [`OnnxModel::from_bytes`].
    ///
    /// # Errors
    /// Theirs.
    pub fn from_bytes(bytes: Vec<u8>, device: &Device) -> Result<Self> {
        Ok(match is_network(&bytes) {
            true => Self::Network(Arc::new(Model::from_bytes(&bytes, device)?)),
            false => Self::Onnx(Arc::new(OnnxModel::from_bytes(bytes, device)?)),
        })
    }

    /// The same model on another device.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        Ok(match self {
            Self::Network(m) => Self::Network(Arc::new(m.to_device(device)?)),
            Self::Onnx(m) => Self::Onnx(Arc::new(m.to_device(device)?)),
        })
    }

    /// The device.
    pub fn device(&self) -> &Device {
        match self {
            Self::Network(m) => m.device(),
            Self::Onnx(m) => m.device(),
        }
    }

    /// The inputs: names and types.
    pub fn inputs(&self) -> Vec<(String, ValueType)> {
        match self {
            Self::Network(m) => {
                let all = &m.info().network.inputs;
                all.iter().map(|i| (i.name.clone(), network_type(i.dtype(), &i.shape))).collect()
            }
            Self::Onnx(m) => types(m.inputs()),
        }
    }

    /// The outputs: names and types.
    pub fn outputs(&self) -> Vec<(String, ValueType)> {
        match self {
            Self::Network(m) => {
                let all = m.info().network.outputs.iter().zip(m.network().output_shapes());
                all.map(|(o, shape)| (o.name.clone(), network_type(DType::F32, shape))).collect()
            }
            Self::Onnx(m) => types(m.outputs()),
        }
    }

    /// What a user should know of how the file is read.
    pub fn notes(&self) -> &[String] {
        match self {
            Self::Network(m) => m.notes(),
            Self::Onnx(m) => m.notes(),
        }
    }

    /// The element type of an input, by its name. Of a network with one input, `lengths` and `mask` are inputs too.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such input.
    pub fn input_element(&self, name: &str) -> Result<Element> {
        let (found, names, more) = match self {
            Self::Network(m) => {
                let all = &m.info().network.inputs;
                let found = all.iter().find(|i| i.name == name).map(|i| i.dtype().into());
                let one = all.len() == 1;
                let also = (one && ["lengths", "mask"].contains(&name)).then_some(Element::U32);
                let names: Vec<_> = all.iter().map(|i| format!("`{}`", short(&i.name))).collect();
                (found.or(also), names, if one { " and, optionally, `lengths` or `mask`" } else { "" })
            }
            Self::Onnx(m) => {
                let found = m.inputs().iter().find(|i| i.name == name).map(|i| i.kind.dtype);
                (found, m.inputs().iter().map(|i| format!("`{}`", short(&i.name))).collect(), "")
            }
        };
        let message = || format!("this model has no such input; it has {}{more}", names.join(", "));
        found.ok_or_else(|| Error::Input { name: short(name), message: message() })
    }

    /// Runs the model on inputs by name: tensors on its device, or whole numbers in host memory. Returns all outputs.
    ///
    /// # Errors
    /// Those of [`Model::run_all`] and [`OnnxModel::run_data`].
    pub fn run<'a>(&self, inputs: impl IntoIterator<Item = (&'a str, Data)>) -> Result<Named> {
        match self {
            Self::Network(m) => step(m, inputs, None).map(|(outputs, _)| outputs),
            Self::Onnx(m) => Ok(with_elements(m, m.run_data(inputs)?)),
        }
    }

    /// A table of layers, shapes and numbers of parameters; of an ONNX graph, its inputs, outputs, states and recurrent
    /// layers.
    pub fn summary(&self, name: &str) -> String {
        let m = match self {
            Self::Network(m) => return m.summary().to_string(),
            Self::Onnx(m) => m,
        };
        let mut text = format!("Model: \"{name}\"\n");
        for (what, values) in [("input", m.inputs()), ("output", m.outputs())] {
            for v in values {
                text.push_str(&format!("{what:<7} {}: {}\n", v.name, v.kind));
            }
        }
        for s in m.states() {
            text.push_str(&format!("state   {} <- {}\n", s.input, s.output));
        }
        for line in m.explain() {
            text.push_str(&format!("cell    {line}\n"));
        }
        text.push_str(&format!("{} nodes", m.graph().nodes().len()));
        text
    }
}

fn types(values: &[OnnxValue]) -> Vec<(String, ValueType)> {
    values.iter().map(|v| (v.name.clone(), v.kind.clone())).collect()
}

fn with_elements(model: &OnnxModel, outputs: Vec<(String, Data)>) -> Named {
    let element = |name: &str| model.outputs().iter().find(|o| o.name == name).map_or(Element::F32, |o| o.kind.dtype);
    outputs.into_iter().map(|(name, data)| (name.clone(), element(&name), data)).collect()
}

/// One call of a network that goes on from a state.
fn step<'a>(
    model: &Model,
    inputs: impl IntoIterator<Item = (&'a str, Data)>,
    state: Option<&NetworkState>,
) -> Result<(Named, NetworkState)> {
    let inputs = model.inputs(inputs.into_iter().map(|(name, data)| (name, input(data))))?;
    let (values, next) = model.network().forward_named_from(&inputs.named(), &inputs.args(), state)?;
    let names = model.info().network.outputs.iter();
    Ok((names.zip(values).map(|(o, t)| (o.name.clone(), Element::F32, t.into())).collect(), next))
}

/// Calls of one model, one after the other, whose states stay on the device. They begin as zeros.
#[derive(Debug)]
#[non_exhaustive]
pub enum AnySession {
    /// Of a network, with the states of its recurrent layers after the last call.
    Network(Arc<Model>, Option<Box<NetworkState>>),
    /// Of an ONNX graph.
    Onnx(Box<OnnxSession>),
}

impl AnySession {
    /// A session for `batch` sequences at once; of an ONNX graph, over these states or those that
    /// [`OnnxModel::states`] finds.
    ///
    /// # Errors
    /// Those of [`OnnxSession::with_states`]; an error of a layer if the network cannot go on where a call has ended;
    /// [`Error::Input`] if `states` is given for a network, whose states are known.
    pub fn new(model: &AnyModel, batch: usize, states: Option<&[StatePair]>) -> Result<Self> {
        let bad = |name: &str, message: &str| Err(Error::Input { name: name.into(), message: message.into() });
        if batch == 0 {
            return bad("batch", "must be at least 1, but it is 0");
        }
        match (model, states) {
            (AnyModel::Onnx(m), None) => Ok(Self::Onnx(OnnxSession::new(m.clone(), batch)?.into())),
            (AnyModel::Onnx(m), Some(s)) => Ok(Self::Onnx(OnnxSession::with_states(m.clone(), s, batch)?.into())),
            (AnyModel::Network(_), Some(_)) => {
                bad("states", "names the states of an ONNX file; those of a network's layers are found by themselves")
            }
            (AnyModel::Network(m), None) => {
                m.network().check_goes_on()?;
                Ok(Self::Network(m.clone(), None))
            }
        }
    }

    /// The names of the states. Those of a network are known after the first call: of the first recurrent layer they
    /// are `0.h` and, if it has one, `0.c`.
    pub fn states(&self) -> Vec<String> {
        match self {
            Self::Network(_, state) => named(state.as_deref()).map(|(n, _)| n).collect(),
            Self::Onnx(s) => s.states().map(|s| s.input).collect(),
        }
    }

    /// One call: the inputs that are no states, by name; the outputs that are no states.
    ///
    /// # Errors
    /// As [`AnyModel::run`]; the states are then as they were.
    pub fn run<'a>(&mut self, inputs: impl IntoIterator<Item = (&'a str, Data)>) -> Result<Named> {
        match self {
            Self::Network(model, state) => {
                let (outputs, next) = step(model, inputs, state.as_deref())?;
                *state = Some(Box::new(next));
                Ok(outputs)
            }
            Self::Onnx(s) => {
                let outputs = s.run_data(inputs)?;
                Ok(with_elements(s.model(), outputs))
            }
        }
    }

    /// A state as it is now.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such state; errors of the device.
    pub fn state(&self, name: &str) -> Result<HostArray> {
        match self {
            Self::Onnx(s) => s.state(name),
            Self::Network(_, state) => {
                let Some((_, t)) = named(state.as_deref()).find(|(n, _)| n == name) else {
                    let names: Vec<_> = self.states().iter().map(|n| format!("`{n}`")).collect();
                    let names = if names.is_empty() { "none before the first call".into() } else { names.join(", ") };
                    let message = format!("is no state of this session; its states are {names}");
                    return Err(Error::Input { name: short(name), message });
                };
                Ok(HostArray { shape: t.dims().to_vec(), data: HostData::Float(t.to_vec()?) })
            }
        }
    }

    /// Puts an array in the place of a state of an ONNX graph.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such state, the array does not fit, or this is a network; errors of the device.
    pub fn set_state(&mut self, name: &str, array: &HostArray) -> Result<()> {
        match self {
            Self::Onnx(s) => s.set_state(name, array),
            Self::Network(..) => {
                let message = "is a state of a network's layers, which can be read and reset, but not set".into();
                Err(Error::Input { name: short(name), message })
            }
        }
    }

    /// Makes every state zero again.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn reset(&mut self) -> Result<()> {
        match self {
            Self::Network(_, state) => *state = None,
            Self::Onnx(s) => s.reset()?,
        }
        Ok(())
    }
}

/// The states of a network by name.
fn named(state: Option<&NetworkState>) -> impl Iterator<Item = (String, &Tensor)> {
    let all = state.into_iter().flat_map(NetworkState::states).enumerate();
    all.flat_map(|(n, s)| [Some((format!("{n}.h"), &s.h)), s.c.as_ref().map(|c| (format!("{n}.c"), c))]).flatten()
}
