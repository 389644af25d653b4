//! The native model file: one safetensors file whose `__metadata__` holds, under `recurve`, a JSON
//! description of the layers. `docs/model-file.md` specifies it.

use crate::{Error, Result, TextSpec, files};
use recurve_layers::{Error as LayerError, LayerConfig, Network, NetworkConfig, RecurrentSpec, Weights};
use recurve_tensor::{DType, Device};
use recurve_weights::{Weight, WeightFile};
use safetensors::tensor::{SafeTensorError, TensorView, serialize, serialize_to_file};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

/// The latest version of the description that this program reads. A chain of layers is written as version 1, any other
/// network as version 2.
pub const FORMAT_VERSION: u64 = 2;

/// The key of the description in the metadata of the file.
const KEY: &str = "recurve";

/// The key of the record of a training in the metadata, and what the names of its tensors start with.
const TRAINING_KEY: &str = "recurve_training";
const TRAINING_PREFIX: &str = "training.";

/// The longest record of a training in bytes, which leaves room for the rest of the header.
const MAX_TRAINING: usize = 1 << 23;

/// What a training keeps in a model file besides the model, so that it can go on: a text, and tensors such as the states
/// of an optimiser. Who opens the file as a model does not see them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TrainingRecord {
    /// Anything but tensors.
    pub text: String,
    /// The tensors.
    pub tensors: Weights,
}

impl TrainingRecord {
    /// A record.
    pub fn new(text: impl Into<String>, tensors: Weights) -> Self {
        Self { text: text.into(), tensors }
    }

    /// Reads the record of a model file, with the description and the weights of the model. The file is mapped, and must
    /// not be changed while weights of it exist ([`WeightFile::open`]).
    ///
    /// # Errors
    /// [`Error::NoTraining`] if the file has none; otherwise as [`Model::open`](crate::Model::open).
    pub fn open(path: impl AsRef<Path>) -> Result<(ModelInfo, Weights, Self)> {
        let file = WeightFile::open(path)?;
        let (info, weights) = read(&file)?;
        let text = file.metadata().get(TRAINING_KEY).ok_or_else(|| Error::NoTraining { path: file.path().into() })?;
        let own = |name: &str| Some(name.strip_prefix(TRAINING_PREFIX)?.to_owned());
        let tensors = file.weights().filter_map(|w| match w {
            Ok((name, w)) => own(name).map(|name| Ok((name, w))),
            Err(e) => Some(Err(e)),
        });
        Ok((info, weights, Self { text: text.clone(), tensors: tensors.collect::<Result<_, _>>()? }))
    }
}

/// The contents of a model file besides its weights.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ModelInfo {
    /// The model's name.
    pub name: String,
    /// The licence of the weights, an SPDX expression.
    pub license: Option<String>,
    /// Where the weights come from.
    pub source: Option<String>,
    /// The inputs, layers and outputs.
    pub network: NetworkConfig,
    /// How text becomes input and output becomes labels, for models that read text.
    pub text: Option<TextSpec>,
}

/// The form of a [`ModelInfo`] in a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    version: u64,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    license: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// Version 1, for a chain of layers: the name of the input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    input: Option<String>,
    /// Version 1: the shape of the input; `null` stands for any size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    input_shape: Option<Vec<Option<usize>>>,
    /// Version 1: the name of the output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    layers: Option<Vec<LayerConfig>>,
    /// Version 2: the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network: Option<NetworkConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<TextSpec>,
}

impl Description {
    fn new(info: &ModelInfo) -> Self {
        let ModelInfo { name, license, source, network, text } = info.clone();
        let layers: Vec<LayerConfig> = network.layers.iter().map(|l| l.layer.clone()).collect();
        let (input, output) = (&network.inputs[0], &network.outputs[0].name);
        let chain = NetworkConfig::sequential_named(&layers, &input.shape, [&input.name, output]);
        let mut all = Self {
            version: FORMAT_VERSION,
            name,
            license,
            source,
            input: None,
            input_shape: None,
            output: None,
            layers: None,
            network: None,
            text,
        };
        // Written as version 1, so that programs that only read version 1 can open it.
        if chain.is_ok_and(|c| c == network) {
            all.version = 1;
            (all.input, all.input_shape) = (Some(input.name.clone()), Some(input.shape.clone()));
            (all.output, all.layers) = (Some(output.clone()), Some(layers));
        } else {
            all.network = Some(network);
        }
        all
    }

    /// Checks the description and converts it.
    fn into_info(self, path: &Path) -> Result<ModelInfo> {
        let bad = |message: &str| Error::Description { path: path.into(), message: message.into() };
        let old = (self.input, self.input_shape, self.output, self.layers);
        let network = match (self.version, old, self.network) {
            (1, (Some(input), Some(shape), Some(output), Some(layers)), None) => {
                check_layers(layers.iter(), path)?;
                check_input(&input, &shape, path)?;
                check_text_of("bytes of output", &output, path)?;
                let made = NetworkConfig::sequential_named(&layers, &shape, [&input, &output]);
                made.map_err(|source| Error::Layers { path: path.into(), source })?
            }
            (1, ..) => {
                return Err(bad("version 1 has `input`, `input_shape`, `output` and `layers`, and no `network`"));
            }
            (_, (None, None, None, None), Some(network)) => network,
            _ => return Err(bad("version 2 has `network`, and no `input`, `input_shape`, `output` or `layers`")),
        };
        let info = ModelInfo { name: self.name, license: self.license, source: self.source, network, text: self.text };
        info.check(path)?;
        Ok(info)
    }
}

/// Limits on sizes. Larger values are errors or attacks, not real models.
const MAX_LAYERS: usize = 1 << 12;
const MAX_SIZE: usize = 1 << 24;

fn limit(path: &Path, field: &'static str, got: usize, limit: usize) -> Result<()> {
    if got <= limit { Ok(()) } else { Err(Error::Absurd { path: path.into(), field, got, limit }) }
}

/// Checks a name, which may appear in error messages and tables.
fn check_text_of(what: &'static str, name: &str, path: &Path) -> Result<()> {
    limit(path, what, name.len(), MAX_NAME)?;
    // A terminal would interpret control characters as commands.
    if name.chars().any(char::is_control) {
        let message = format!("{} has control characters in it", what.trim_start_matches("bytes of "));
        return Err(Error::Description { path: path.into(), message });
    }
    Ok(())
}

fn check_input(name: &str, shape: &[Option<usize>], path: &Path) -> Result<()> {
    check_text_of("bytes of input", name, path)?;
    limit(path, "dimensions of input_shape", shape.len(), MAX_DIMENSIONS)?;
    shape.iter().flatten().try_for_each(|&d| limit(path, "input_shape", d, MAX_SIZE))
}

fn check_layers<'a>(layers: impl ExactSizeIterator<Item = &'a LayerConfig>, path: &Path) -> Result<()> {
    limit(path, "layers", layers.len(), MAX_LAYERS)?;
    let mut layers = layers;
    layers.try_for_each(|layer| check_layer(layer, &|field, got, most| limit(path, field, got, most)))
}

impl ModelInfo {
    /// Checks names and sizes.
    pub(crate) fn check(&self, path: &Path) -> Result<()> {
        let NetworkConfig { inputs, layers, outputs, .. } = &self.network;
        check_text_of("bytes of name", &self.name, path)?;
        check_layers(layers.iter().map(|l| &l.layer), path)?;
        limit(path, "inputs", inputs.len(), MAX_LAYERS)?;
        limit(path, "outputs", outputs.len(), MAX_LAYERS)?;
        let calls = layers.iter().flat_map(|l| &l.calls);
        limit(path, "calls", calls.clone().count(), MAX_LAYERS)?;
        limit(path, "inputs of layers", calls.map(Vec::len).sum(), MAX_LAYERS)?;
        inputs.iter().try_for_each(|i| check_input(&i.name, &i.shape, path))?;
        layers.iter().try_for_each(|l| check_text_of("bytes of a layer's name", &l.name, path))?;
        outputs.iter().try_for_each(|o| check_text_of("bytes of output", &o.name, path))?;
        if let Some(t) = &self.text {
            t.check().map_err(|message| Error::Description { path: path.into(), message })?;
        }
        Ok(())
    }

    /// Checks that the network suits the text handling, if there is some.
    pub(crate) fn check_text(&self, network: &Network, path: &Path) -> Result<()> {
        let checked = self.text.as_ref().map_or(Ok(()), |t| check_text(t, network));
        checked.map_err(|message| Error::Description { path: path.into(), message })
    }
}

/// Checks every size of a layer against its limit.
fn check_layer(layer: &LayerConfig, limit: &impl Fn(&'static str, usize, usize) -> Result<()>) -> Result<()> {
    let recurrent = |r: &RecurrentSpec| {
        limit("units", r.units, MAX_SIZE)?;
        limit("proj_size", r.cell.projection.unwrap_or(0), MAX_SIZE)?;
        limit("num_layers", r.num_layers, MAX_LAYERS)
    };
    let sizes = |all: &[(&'static str, usize)]| all.iter().try_for_each(|&(what, n)| limit(what, n, MAX_SIZE));
    let both = |what: &'static str, [a, b]: [usize; 2]| sizes(&[(what, a), (what, b)]);
    match layer {
        LayerConfig::Recurrent(r) => recurrent(r),
        LayerConfig::StackedRnnCells(s) => {
            limit("cells", s.cells.len(), MAX_LAYERS)?;
            s.cells.iter().try_for_each(recurrent)
        }
        LayerConfig::TimeDistributed(t) => check_layer(&t.layer, limit),
        LayerConfig::Embedding(e) => {
            limit("input_dim", e.input_dim, MAX_SIZE)?;
            limit("output_dim", e.output_dim, MAX_SIZE)
        }
        LayerConfig::Dense(d) => limit("units", d.units, MAX_SIZE),
        LayerConfig::Conv1d(c) => {
            sizes(&[("filters", c.filters), ("kernel_size", c.kernel_size), ("strides", c.strides)])
        }
        LayerConfig::Conv2d(c) => {
            sizes(&[("filters", c.filters)])?;
            both("kernel_size", c.kernel_size)?;
            both("strides", c.strides)
        }
        LayerConfig::Conv1dTranspose(c) => {
            sizes(&[("filters", c.filters), ("kernel_size", c.kernel_size), ("strides", c.strides)])
        }
        LayerConfig::Conv2dTranspose(c) => {
            sizes(&[("filters", c.filters)])?;
            both("kernel_size", c.kernel_size)?;
            both("strides", c.strides)
        }
        LayerConfig::DepthwiseConv1d(c) => {
            sizes(&[("depth_multiplier", c.depth_multiplier), ("kernel_size", c.kernel_size)])
        }
        LayerConfig::DepthwiseConv2d(c) => {
            sizes(&[("depth_multiplier", c.depth_multiplier)])?;
            both("kernel_size", c.kernel_size)
        }
        LayerConfig::SeparableConv1d(c) => {
            sizes(&[("filters", c.filters), ("depth_multiplier", c.depth_multiplier), ("kernel_size", c.kernel_size)])
        }
        LayerConfig::SeparableConv2d(c) => {
            sizes(&[("filters", c.filters), ("depth_multiplier", c.depth_multiplier)])?;
            both("kernel_size", c.kernel_size)
        }
        LayerConfig::ZeroPadding1d(p) => both("padding", p.padding),
        LayerConfig::ZeroPadding2d(p) => p.padding.iter().try_for_each(|&p| both("padding", p)),
        LayerConfig::UpSampling1d(u) => limit("size", u.size, MAX_SIZE),
        LayerConfig::UpSampling2d(u) => both("size", u.size),
        LayerConfig::RepeatVector(r) => limit("n", r.n, MAX_SIZE),
        LayerConfig::Reshape(r) => {
            limit("sizes of target_shape", r.target_shape.len(), MAX_DIMENSIONS)?;
            r.target_shape.iter().try_for_each(|n| limit("target_shape", n.unsigned_abs(), MAX_SIZE))
        }
        LayerConfig::Permute(p) => limit("dims", p.dims.len(), MAX_DIMENSIONS),
        LayerConfig::LayerNormalization(l) => limit("axes", l.axis.len(), MAX_DIMENSIONS),
        LayerConfig::PRelu(p) => limit("shared_axes", p.shared_axes.len(), MAX_DIMENSIONS),
        _ => Ok(()),
    }
}

/// Limits on the bytes of a name and on the number of dimensions.
const MAX_NAME: usize = 1 << 8;
const MAX_DIMENSIONS: usize = 8;

/// Makes the network of a model file. The whole header is checked before any weight is read.
pub(crate) fn load(file: &WeightFile, device: &Device) -> Result<(ModelInfo, Network)> {
    let path = file.path();
    let (info, weights) = read(file)?;
    let network = Network::new(&info.network, Arc::new(weights), device);
    let network = network.map_err(|source| Error::Layers { path: path.into(), source })?;
    info.check_text(&network, path)?;
    Ok((info, network))
}

/// The description and the weights of a model file, whose header is checked.
fn read(file: &WeightFile) -> Result<(ModelInfo, Weights)> {
    let path = file.path();
    let fits = |source| Error::Layers { path: path.into(), source };
    let text = file.metadata().get(KEY).ok_or_else(|| Error::NoDescription { path: path.into() })?;
    let info = describe(text, path)?;

    // The weights that the layers need are compared with the tensors in the header.
    let mut needed = HashSet::new();
    let visited = info.network.visit_weights(|name, expected| {
        let Some(shape) = file.shape(name) else {
            return Err(LayerError::MissingWeight { name: name.into(), available: files::some_names(file.names()) });
        };
        needed.insert(name.to_owned());
        if shape == expected {
            return Ok(());
        }
        Err(LayerError::WeightShape { name: name.into(), expected: expected.to_vec(), got: shape.to_vec() })
    });
    visited.map_err(fits)?;
    let training = file.metadata().contains_key(TRAINING_KEY);
    let known = |name: &str| needed.contains(name) || training && name.starts_with(TRAINING_PREFIX);
    if let Some(name) = file.names().find(|name| !known(name)) {
        return Err(fits(LayerError::ExtraWeight { name: name.into() }));
    }
    // Model files have the types that are written.
    let narrow = |name: &&str| file.dtype(name).is_some_and(|t| ["F32", "F16", "BF16"].contains(&t));
    if let Some(name) = file.names().find(|n| !narrow(n)) {
        let got = file.dtype(name).unwrap_or_default().into();
        return Err(recurve_weights::Error::DType { path: path.into(), name: name.into(), got }.into());
    }
    let own = file.weights().filter(|w| w.as_ref().map_or(true, |(name, _)| needed.contains(*name)));
    let weights = own.map(|w| w.map(|(name, w)| (name.to_owned(), w))).collect::<Result<_, _>>()?;
    Ok((info, weights))
}

/// Parses and checks the description.
fn describe(text: &str, path: &Path) -> Result<ModelInfo> {
    let bad =
        |e: serde_json::Error| Error::Description { path: path.into(), message: files::short_message(&e.to_string()) };
    // The version is read first, because a later version may have fields that this program does not know.
    #[derive(Deserialize)]
    struct Version {
        version: u64,
    }
    let Version { version } = serde_json::from_str(text).map_err(bad)?;
    if version == 0 || version > FORMAT_VERSION {
        return Err(Error::Version { path: path.into(), got: version, supported: FORMAT_VERSION });
    }
    serde_json::from_str::<Description>(text).map_err(bad)?.into_info(path)
}

/// Checks that the network takes ids and gives logits for every label at each id.
fn check_text(text: &TextSpec, network: &Network) -> Result<(), String> {
    let (labels, tokens) = (text.labels.len(), text.vocabulary.len());
    let NetworkConfig { inputs, outputs, .. } = network.config();
    if inputs.len() != 1 || outputs.len() != 1 || network.input_dtype() != DType::U32 || inputs[0].shape.len() != 2 {
        return Err("`text` needs a network that takes ids [batch, timesteps]".into());
    }
    match network.output_shapes()[0][..] {
        [_, _, Some(width)] if width == labels => {}
        [_, _, Some(width)] => {
            return Err(format!("text.labels has {labels} labels, but the network has {width} outputs"));
        }
        _ => return Err("`text` needs a network that gives [batch, timesteps, labels]".into()),
    }
    if let Some(e) = network.layers().find_map(|l| if let LayerConfig::Embedding(e) = l { Some(e) } else { None })
        && tokens > e.input_dim
    {
        return Err(format!("text.vocabulary has {tokens} tokens, but the embedding only {} ids", e.input_dim));
    }
    Ok(())
}

/// Writes a model file. An existing file is replaced only once the new one is complete.
pub(crate) fn write(path: &Path, info: &ModelInfo, network: &Network, training: Option<&TrainingRecord>) -> Result<()> {
    let beside = files::Beside::create(path).map_err(io(path))?;
    packed(path, info, network.weights(), training, |views, metadata| {
        serialize_to_file(views, metadata, beside.path())
    })?;
    beside.keep().map_err(io(path))
}

/// The bytes of a model file.
pub(crate) fn to_bytes(info: &ModelInfo, weights: &Weights) -> Result<Vec<u8>> {
    packed(Path::new(files::MEMORY), info, weights, None, |views, metadata| serialize(views, metadata))
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> Error {
    move |e| Error::Io { path: path.into(), source: Arc::new(e) }
}

/// Hands the tensors and the metadata of a model file to what writes them.
fn packed<T>(
    path: &Path,
    info: &ModelInfo,
    weights: &Weights,
    training: Option<&TrainingRecord>,
    write: impl FnOnce(Vec<(&str, TensorView<'_>)>, Option<HashMap<String, String>>) -> Result<T, SafeTensorError>,
) -> Result<T> {
    // A model that exceeds the limits for opening is not written.
    info.check(path)?;
    let json = serde_json::to_string(&Description::new(info))
        .map_err(|e| Error::Description { path: path.into(), message: e.to_string() })?;
    // Weights of other types, from files of PyTorch, are written as the f32 that they are used as.
    let stored = |w: &Weight| -> Result<Weight> {
        if w.dtype().is_narrow_float() { Ok(w.clone()) } else { Ok(Weight::new(w.shape(), w.to_vec()?)?) }
    };
    let mut metadata = HashMap::from([(KEY.to_owned(), json)]);
    let mut all: Vec<_> = weights.iter().map(|(name, w)| (name.to_owned(), w)).collect();
    if let Some(record) = training {
        limit(path, "bytes of the training's record", record.text.len(), MAX_TRAINING)?;
        metadata.insert(TRAINING_KEY.to_owned(), record.text.clone());
        all.extend(record.tensors.iter().map(|(name, w)| (format!("{TRAINING_PREFIX}{name}"), w)));
        let names = all.iter().map(|(name, _)| name.len());
        limit(path, "bytes of a tensor's name", names.max().unwrap_or(0), MAX_NAME)?;
    }
    let weights = all.into_iter().map(|(name, w)| Ok((name, stored(w)?))).collect::<Result<Vec<_>>>()?;
    let weights: Vec<_> = weights.iter().map(|(name, w)| (&**name, w, w.bytes())).collect();
    let failed = |e: SafeTensorError| match e {
        SafeTensorError::IoError(e) => io(path)(e),
        other => io(path)(std::io::Error::other(other)),
    };
    let views = weights
        .iter()
        .map(|(name, w, bytes)| Ok((*name, TensorView::new(w.dtype().into(), w.shape().to_vec(), bytes)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    let written = write(views, Some(metadata)).map_err(failed)?;
    weights.iter().for_each(|(_, w, _)| w.give_back());
    Ok(written)
}
