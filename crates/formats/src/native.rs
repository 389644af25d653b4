//! The native model file: one safetensors file whose `__metadata__` holds, under `recurve`, a JSON
//! description of the layers. `docs/model-file.md` specifies it.

use crate::{Error, Result, TextSpec, files};
use recurve_layers::{Error as LayerError, LayerConfig, Network, RecurrentSpec, Weights};
use recurve_tensor::{DType, Device};
use recurve_weights::WeightFile;
use safetensors::tensor::{SafeTensorError, TensorView, serialize_to_file};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

/// The version of the description that this program writes, and the latest that it reads.
pub const FORMAT_VERSION: u64 = 1;

/// The key of the description in the file's metadata.
const KEY: &str = "recurve";

/// What a model file says beside its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelInfo {
    /// [`FORMAT_VERSION`]
    pub version: u64,
    /// The model's name.
    pub name: String,
    /// The licence of the weights, an SPDX expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Where the weights come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The name of the input.
    pub input: String,
    /// The shape of the input, null standing for any size.
    pub input_shape: Vec<Option<usize>>,
    /// The name of the output.
    pub output: String,
    /// The layers.
    pub layers: Vec<LayerConfig>,
    /// How text goes in and what comes out, for models that read text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextSpec>,
}

/// Sizes beyond these are no model but a mistake or an attack.
const MAX_LAYERS: usize = 1 << 12;
const MAX_SIZE: usize = 1 << 24;

impl ModelInfo {
    fn check(&self, path: &Path) -> Result<()> {
        let limit = |field: &'static str, got: usize, limit: usize| {
            if got <= limit { Ok(()) } else { Err(Error::Absurd { path: path.into(), field, got, limit }) }
        };
        limit("layers", self.layers.len(), MAX_LAYERS)?;
        limit("dimensions of input_shape", self.input_shape.len(), MAX_DIMENSIONS)?;
        // They stand in errors and in tables.
        for (field, name) in
            [("bytes of name", &self.name), ("bytes of input", &self.input), ("bytes of output", &self.output)]
        {
            limit(field, name.len(), MAX_NAME)?;
            // To a terminal they would be commands.
            if name.chars().any(char::is_control) {
                let message = format!("{} has control characters in it", field.trim_start_matches("bytes of "));
                return Err(Error::Description { path: path.into(), message });
            }
        }
        for &d in self.input_shape.iter().flatten() {
            limit("input_shape", d, MAX_SIZE)?;
        }
        self.layers.iter().try_for_each(|layer| check_layer(layer, &limit))?;
        if let Some(t) = &self.text {
            t.check().map_err(|message| Error::Description { path: path.into(), message })?;
        }
        Ok(())
    }
}

/// Holds every size of a layer against its limit.
fn check_layer(layer: &LayerConfig, limit: &impl Fn(&'static str, usize, usize) -> Result<()>) -> Result<()> {
    let recurrent = |r: &RecurrentSpec| {
        limit("units", r.units, MAX_SIZE)?;
        limit("proj_size", r.cell.projection.unwrap_or(0), MAX_SIZE)?;
        limit("num_layers", r.num_layers, MAX_LAYERS)
    };
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
        _ => Ok(()),
    }
}

/// Bytes of a name and dimensions, at most.
const MAX_NAME: usize = 1 << 8;
const MAX_DIMENSIONS: usize = 8;

/// Makes the network of a model file. Everything that its header says is checked before any weight is read.
pub(crate) fn load(file: &WeightFile, device: &Device) -> Result<(ModelInfo, Network)> {
    let path = file.path();
    let fits = |source| Error::Layers { path: path.into(), source };
    let text = file.metadata().get(KEY).ok_or_else(|| Error::NoDescription { path: path.into() })?;
    let info = describe(text, path)?;

    // What the layers need is held against what the header promises.
    let mut needed = HashSet::new();
    Network::visit_weights(&info.layers, &info.input_shape, |name, expected| {
        let Some(shape) = file.shape(name) else {
            return Err(LayerError::MissingWeight { name: name.into(), available: files::some_names(file.names()) });
        };
        needed.insert(name.to_owned());
        if shape == expected {
            return Ok(());
        }
        Err(LayerError::WeightShape { name: name.into(), expected: expected.to_vec(), got: shape.to_vec() })
    })
    .map_err(fits)?;
    if let Some(name) = file.names().find(|name| !needed.contains(*name)) {
        return Err(fits(LayerError::ExtraWeight { name: name.into() }));
    }
    let weights = Arc::new(Weights::try_from(file)?);
    let network = Network::new(&info.layers, &info.input_shape, weights, device).map_err(fits)?;
    if let Some(t) = &info.text {
        check_text(t, &network).map_err(|message| Error::Description { path: path.into(), message })?;
    }
    Ok((info, network))
}

/// The description, checked.
fn describe(text: &str, path: &Path) -> Result<ModelInfo> {
    let bad =
        |e: serde_json::Error| Error::Description { path: path.into(), message: files::short_message(&e.to_string()) };
    // The version first: a later one may have fields that this program cannot know.
    #[derive(Deserialize)]
    struct Version {
        version: u64,
    }
    let Version { version } = serde_json::from_str(text).map_err(bad)?;
    if version == 0 || version > FORMAT_VERSION {
        return Err(Error::Version { path: path.into(), got: version, supported: FORMAT_VERSION });
    }
    let info: ModelInfo = serde_json::from_str(text).map_err(bad)?;
    info.check(path)?;
    Ok(info)
}

/// Whether a network gives a label's worth of logits for every id of a text.
fn check_text(text: &TextSpec, network: &Network) -> Result<(), String> {
    let (labels, tokens) = (text.labels.len(), text.vocabulary.len());
    if network.input_dtype() != DType::U32 || network.input_shape().len() != 2 {
        return Err("`text` needs a network that takes ids [batch, timesteps]".into());
    }
    let summary = network.summary();
    let output = summary.layers.last().and_then(|l| l.output_shapes.first());
    match output.map(|shape| &shape[..]) {
        Some(&[_, _, Some(width)]) if width == labels => {}
        Some(&[_, _, Some(width)]) => {
            return Err(format!("text.labels has {labels} labels, but the network has {width} outputs"));
        }
        _ => return Err("`text` needs a network that gives [batch, timesteps, labels]".into()),
    }
    if let Some(LayerConfig::Embedding(e)) = network.configs().first()
        && tokens > e.input_dim
    {
        return Err(format!("text.vocabulary has {tokens} tokens, but the embedding only {} ids", e.input_dim));
    }
    Ok(())
}

/// Writes a model file. What stood there before is lost only once the new file is complete.
pub(crate) fn write(path: &Path, info: &ModelInfo, network: &Network) -> Result<()> {
    let io = |e: std::io::Error| Error::Io { path: path.into(), source: Arc::new(e) };
    // What could not be opened again is not written.
    info.check(path)?;
    let json =
        serde_json::to_string(info).map_err(|e| Error::Description { path: path.into(), message: e.to_string() })?;
    let weights: Vec<_> = network.weights().iter().map(|(name, w)| (name, w, w.bytes())).collect();
    let failed = |e: SafeTensorError| match e {
        SafeTensorError::IoError(e) => io(e),
        other => io(std::io::Error::other(other)),
    };
    let views = weights
        .iter()
        .map(|(name, w, bytes)| Ok((*name, TensorView::new(w.dtype().into(), w.shape().to_vec(), bytes)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    let beside = files::Beside::create(path).map_err(io)?;
    serialize_to_file(views, Some(HashMap::from([(KEY.to_owned(), json)])), beside.path()).map_err(failed)?;
    weights.iter().for_each(|(_, w, _)| w.give_back());
    beside.keep().map_err(io)
}
