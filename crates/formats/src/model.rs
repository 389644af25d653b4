//! A model: a network with the name, the source and the text handling from its file.

use crate::arrays::{HostArray, HostData};
use crate::files::short;
use crate::keras_kind::{Imported, kind_of, kind_of_bytes};
use crate::native::{self, ModelInfo, TrainingRecord};
use crate::{Error, Reading, Result, keras, pytorch};
use recurve_layers::{CallArgs, Network, Weights};
use recurve_tensor::cpu::host;
use recurve_tensor::{DType, Device, Tensor};
use recurve_weights::WeightFile;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// A model from a file, on a device.
#[derive(Debug)]
pub struct Model {
    info: ModelInfo,
    network: Network,
    /// The id of each token of the vocabulary, computed when text is first read.
    ids: OnceLock<HashMap<String, u32>>,
    /// What a user should know of how the file is read.
    notes: Vec<String>,
}

/// An input of a model.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Input {
    /// An array in host memory.
    Host(HostArray),
    /// A tensor, which must be on the model's device.
    Device(Tensor),
}

/// Types that can be given to [`Model::run`] as inputs.
pub trait IntoInput {
    /// Converts the value to an input.
    fn into_input(self) -> Input;
}

impl IntoInput for Input {
    fn into_input(self) -> Input {
        self
    }
}
impl IntoInput for HostArray {
    fn into_input(self) -> Input {
        Input::Host(self)
    }
}
impl IntoInput for &Tensor {
    fn into_input(self) -> Input {
        Input::Device(self.clone())
    }
}
/// The ids of one sequence, as `[1, T]`.
impl IntoInput for &[u32] {
    fn into_input(self) -> Input {
        let data = HostData::Int(self.iter().map(|&v| v.into()).collect());
        Input::Host(HostArray { shape: vec![1, self.len()], data })
    }
}
impl IntoInput for &Vec<u32> {
    fn into_input(self) -> Input {
        self.as_slice().into_input()
    }
}

/// The inputs of a model as tensors on its device.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModelInputs {
    /// The inputs in the model's description, by name and in its order.
    pub inputs: Vec<(String, Tensor)>,
    /// The number of valid timesteps of each sequence, `[B]`.
    pub lengths: Option<Tensor>,
    /// Which timesteps are valid, `[B, T]`.
    pub mask: Option<Tensor>,
}

impl ModelInputs {
    /// The inputs in the model's description, as [`Network::forward_named`] takes them.
    pub fn named(&self) -> Vec<(&str, &Tensor)> {
        self.inputs.iter().map(|(name, x)| (&name[..], x)).collect()
    }

    /// Lengths and mask, as arguments of a call.
    pub fn args(&self) -> CallArgs<'_> {
        CallArgs { lengths: self.lengths.as_ref(), mask: self.mask.as_ref(), ..CallArgs::default() }
    }
}

impl From<Imported> for Model {
    fn from(Imported { info, network, notes }: Imported) -> Self {
        Self { info, network, ids: OnceLock::new(), notes }
    }
}

impl Model {
    /// Opens a model file: Recurve's own; one of Keras (`.keras`, HDF5, or a JSON description with its weights beside it
    /// under the same stem), which its contents tell; or a description in TOML of a network whose weights are in a file
    /// of PyTorch or a safetensors file (`docs/pytorch.md`).
    ///
    /// A native file, and the file of weights of a description in TOML, is mapped: a weight is read from it when a
    /// device first needs it. The file must not be changed while the model exists ([`WeightFile::open`]);
    /// [`Self::save`] replaces the file by another one, which does not affect models that have the old one open. A Keras
    /// file is read as a whole.
    ///
    /// # Errors
    /// One variant of [`Error`] for each kind of invalid file.
    pub fn open(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let path = path.as_ref();
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx")) {
            return Err(Error::OtherKind { path: path.into(), kind: "an ONNX file", with: "OnnxModel::open" });
        }
        if let Some(kind) = kind_of(path) {
            return Ok(keras::open(path, kind, None, device)?.into());
        }
        let (info, network) = match pytorch::is_description(path) {
            true => pytorch::open(path, device)?,
            false => native::load(&WeightFile::open(path)?, device)?,
        };
        Ok(Self { info, network, ids: OnceLock::new(), notes: Vec::new() })
    }

    /// Opens a Keras model whose weights are in a file of their own: `config` is a JSON description (what
    /// `Model.to_json` gives), or any file that has one, and `weights` what `Model.save_weights` wrote, or any file that
    /// has weights.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_keras(config: impl AsRef<Path>, weights: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let (config, weights) = (config.as_ref(), weights.as_ref());
        let Some(kind) = kind_of(config) else {
            // A file that cannot be opened says so.
            crate::files::open(config).map_err(|e| Error::Io { path: config.into(), source: Arc::new(e) })?;
            let message = "is no description of a Keras model: JSON, .keras or HDF5".into();
            return Err(Error::Description { path: config.into(), message });
        };
        Ok(keras::open(config, kind, Some(weights), device)?.into())
    }

    /// Makes a model of a Keras description, what `Model.to_json` gives, with initial weights: those that the
    /// initializers in it draw. The same seed gives the same weights on every machine.
    ///
    /// # Errors
    /// [`Error::Network`] with everything that is not supported; errors of the layers and the device;
    /// [`Error::NoFeature`] without the feature `keras`.
    pub fn from_keras_json(json: &str, seed: u64, device: &Device) -> Result<Self> {
        Ok(keras::initial(json, seed, device)?.into())
    }

    /// The shapes of the outputs of a Keras description, in its order; `None` stands for any size. Nothing is built.
    ///
    /// # Errors
    /// As [`Self::from_keras_json`].
    pub fn keras_output_shapes(json: &str) -> Result<Vec<Vec<Option<usize>>>> {
        Ok(keras::described(json)?.0.network.output_shapes()?)
    }

    /// The same model with these weights.
    ///
    /// # Errors
    /// As [`Network::new`]; errors of the device.
    pub fn with_weights(&self, weights: Arc<Weights>) -> Result<Self> {
        let network = Network::new(self.network.config(), weights, self.device())?;
        Ok(Self { info: self.info.clone(), network, ids: self.ids.clone(), notes: self.notes.clone() })
    }

    /// The same model in which training changes the weights of layers for which `trained` says so, and leaves those of
    /// layers for which it says no. Layers for which it says nothing stay as they are.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn with_trainable(&self, trained: impl Fn(&str) -> Option<bool>) -> Result<Self> {
        let mut info = self.info.clone();
        for layer in &mut info.network.layers {
            if let Some(on) = trained(&layer.name) {
                layer.layer = layer.layer.clone().trainable(on);
            }
        }
        let network = Network::new(&info.network, self.network.weights().clone(), self.device())?;
        Ok(Self { info, network, ids: self.ids.clone(), notes: self.notes.clone() })
    }

    /// Reads a model from the bytes of a native model file, or of a Keras file with weights, such as those of
    /// `include_bytes!`. The bytes are copied.
    ///
    /// # Errors
    /// As [`Self::open`]; the errors name "bytes in memory" as the file.
    pub fn from_bytes(bytes: &[u8], device: &Device) -> Result<Self> {
        if let Some(kind) = kind_of_bytes(bytes) {
            return Ok(keras::from_bytes(bytes, kind, device)?.into());
        }
        let mut own = host("Model::from_bytes", bytes.len())?;
        own.copy_from_slice(bytes);
        let (info, network) = native::load(&WeightFile::from_bytes(own)?, device)?;
        Ok(Self { info, network, ids: OnceLock::new(), notes: Vec::new() })
    }

    /// Whether a file is one of Keras: HDF5, `.keras`, or a description in JSON. `start` is the file, or at least its
    /// first 64 bytes, so an HDF5 file that begins with a block of somebody else's is not found.
    pub fn is_keras(start: &[u8]) -> bool {
        kind_of_bytes(start).is_some()
    }

    /// The bytes of the native model file ([`Self::save`]) with what is in a Keras file with weights, and what a user
    /// should know of how it was read ([`Self::notes`], which a native file does not hold). No network is made, so faults
    /// that only a network finds are told when the native file is opened.
    ///
    /// # Errors
    /// As [`Self::from_bytes`]; [`Error::NoKeras`] if it is no such file.
    pub fn keras_to_native(bytes: Vec<u8>) -> Result<(Vec<u8>, Vec<String>)> {
        match kind_of_bytes(&bytes) {
            Some(kind) => keras::to_native(bytes, kind),
            None => Err(Error::NoKeras { path: crate::files::MEMORY.into() }),
        }
    }

    /// Makes a model from a network.
    pub fn new(name: &str, network: Network) -> Self {
        let info =
            ModelInfo { name: name.into(), license: None, source: None, network: network.config().clone(), text: None };
        Self { info, network, ids: OnceLock::new(), notes: Vec::new() }
    }

    /// Writes the native model file; weights keep their storage type. An existing file is replaced only once the new
    /// one is complete.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written, [`Error::Absurd`] if it exceeds the limits for opening it again.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        native::write(path.as_ref(), &self.info, &self.network, None)
    }

    /// The bytes of the file that [`Self::save`] writes, which [`Self::from_bytes`] reads.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        native::to_bytes(&self.info, self.network.weights())
    }

    /// [`Self::save`] with the record of a training in the same file.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub fn save_training(&self, path: impl AsRef<Path>, record: &TrainingRecord) -> Result<()> {
        native::write(path.as_ref(), &self.info, &self.network, Some(record))
    }

    /// The same model on another device.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let (info, network) = (self.info.clone(), self.network.to_device(device)?);
        Ok(Self { info, network, ids: self.ids.clone(), notes: self.notes.clone() })
    }

    /// The contents of the file besides its weights.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// What a user should know of how the file is read.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The network, for replacing its weights.
    pub fn network_mut(&mut self) -> &mut Network {
        &mut self.network
    }

    /// The device.
    pub fn device(&self) -> &Device {
        self.network.device()
    }

    /// A table of layers, shapes and numbers of parameters.
    pub fn summary(&self) -> recurve_layers::Summary {
        let mut summary = self.network.summary();
        summary.name.clone_from(&self.info.name);
        summary
    }

    /// Runs the model on inputs given by name and returns its first output. For a model with one input, `lengths` (the
    /// number of valid timesteps of each sequence) or `mask` (which timesteps are valid) may be given too.
    ///
    /// # Errors
    /// [`Error::Input`] if an input is missing, unknown, given twice or of the wrong kind; errors of the layers and the
    /// device.
    pub fn run<'a, I: IntoInput>(&self, inputs: impl IntoIterator<Item = (&'a str, I)>) -> Result<Tensor> {
        Ok(self.run_all(inputs)?.swap_remove(0).1)
    }

    /// [`Self::run`], returning all outputs by name.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_all<'a, I: IntoInput>(
        &self,
        inputs: impl IntoIterator<Item = (&'a str, I)>,
    ) -> Result<Vec<(String, Tensor)>> {
        let inputs = self.inputs(inputs)?;
        let (values, _) = self.network.forward_named_from(&inputs.named(), &inputs.args(), None)?;
        Ok(self.info.network.outputs.iter().map(|o| o.name.clone()).zip(values).collect())
    }

    /// Brings inputs to the model's device.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn inputs<'a, I: IntoInput>(&self, inputs: impl IntoIterator<Item = (&'a str, I)>) -> Result<ModelInputs> {
        let own = &self.info.network.inputs;
        let mut given: Vec<Option<Tensor>> = vec![None; own.len()];
        let (mut lengths, mut mask) = (None, None);
        for (name, input) in inputs {
            let (place, dtype) = match own.iter().position(|i| i.name == name) {
                Some(n) => (&mut given[n], own[n].dtype()),
                None if name == "lengths" && own.len() == 1 => (&mut lengths, DType::U32),
                None if name == "mask" && own.len() == 1 => (&mut mask, DType::U32),
                None => {
                    let names = own.iter().map(|i| format!("`{}`", i.name)).collect::<Vec<_>>().join(", ");
                    let more = if own.len() == 1 { " and, optionally, `lengths` or `mask`" } else { "" };
                    let message = format!("this model has no such input; it has {names}{more}");
                    return Err(Error::Input { name: short(name), message });
                }
            };
            if place.is_some() {
                return Err(Error::Input { name: name.into(), message: "is given twice".into() });
            }
            *place = Some(match input.into_input() {
                Input::Device(t) => t,
                Input::Host(a) => a.to_tensor(name, dtype, self.device())?,
            });
        }
        let missing = |name: &str| Error::Input { name: name.into(), message: "is missing".into() };
        let inputs = own.iter().zip(given).map(|(i, x)| Ok((i.name.clone(), x.ok_or_else(|| missing(&i.name))?)));
        Ok(ModelInputs { inputs: inputs.collect::<Result<_>>()?, lengths, mask })
    }

    /// The labels of a text's ambiguous characters, for a model with a vocabulary.
    ///
    /// # Errors
    /// [`Error::Input`] if the model has no vocabulary; errors of the layers and the device.
    pub fn read_text(&self, text: &str) -> Result<Vec<Reading>> {
        let Some(spec) = &self.info.text else {
            let message = "this model has no vocabulary, so it cannot read text".into();
            return Err(Error::Input { name: "text".into(), message });
        };
        let logits = self.run([(
            self.info.network.inputs[0].name.as_str(),
            &spec.encode(self.ids.get_or_init(|| spec.ids()), text),
        )])?;
        Ok(spec.readings(text, &logits.softmax()?.to_vec()?))
    }
}
