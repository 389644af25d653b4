//! The native model file: one safetensors file whose `__metadata__` holds, under `recurve`, a JSON
//! description of the layers. `docs/model-file.md` specifies it.

use crate::{Error, Result, TextSpec};
use recurve_layers::{LayerConfig, Network, RecurrentSpec, Weights};
use recurve_tensor::{DType, Device};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize_to_file};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
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
        limit("proj_size", r.cell.proj_size.unwrap_or(0), MAX_SIZE)?;
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

/// Reads a model file.
pub(crate) fn read(path: &Path, device: &Device) -> Result<(ModelInfo, Network)> {
    let bytes = std::fs::read(path).map_err(|e| Error::Io { path: path.into(), source: Arc::new(e) })?;
    let damaged = |e: safetensors::SafeTensorError| Error::Damaged { path: path.into(), message: e.to_string() };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(damaged)?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(damaged)?;
    let text = header
        .metadata()
        .as_ref()
        .and_then(|m| m.get(KEY))
        .ok_or_else(|| Error::NoDescription { path: path.into() })?;
    let bad = |message: String| Error::Description { path: path.into(), message };
    // The version first: a later one may have fields that this program cannot know.
    #[derive(Deserialize)]
    struct Version {
        version: u64,
    }
    let Version { version } = serde_json::from_str(text).map_err(|e| bad(e.to_string()))?;
    if version == 0 || version > FORMAT_VERSION {
        return Err(Error::Version { path: path.into(), got: version, supported: FORMAT_VERSION });
    }
    let info: ModelInfo = serde_json::from_str(text).map_err(|e| bad(e.to_string()))?;
    info.check(path)?;

    let fits = |source| Error::Layers { path: path.into(), source };
    let mut weights = Weights::new();
    for (name, view) in tensors.tensors() {
        let data: Vec<f32> = match view.dtype() {
            Dtype::F32 => view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Dtype::F16 => {
                view.data().chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
            }
            other => return Err(Error::DType { path: path.into(), name, got: format!("{other:?}") }),
        };
        weights.insert(name, view.shape(), data).map_err(fits)?;
    }
    let network = Network::new(&info.layers, &info.input_shape, Arc::new(weights), device).map_err(fits)?;
    if let Some(t) = &info.text {
        check_text(t, &network).map_err(|message| Error::Description { path: path.into(), message })?;
    }
    Ok((info, network))
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

/// Writes a model file.
pub(crate) fn write(path: &Path, info: &ModelInfo, network: &Network) -> Result<()> {
    let json =
        serde_json::to_string(info).map_err(|e| Error::Description { path: path.into(), message: e.to_string() })?;
    let bytes: Vec<(&str, &[usize], Vec<u8>)> = network
        .weights()
        .iter()
        .map(|(n, a)| (n, &a.shape[..], a.data.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let damaged = |e: safetensors::SafeTensorError| match e {
        safetensors::SafeTensorError::IoError(e) => Error::Io { path: path.into(), source: Arc::new(e) },
        other => Error::Damaged { path: path.into(), message: other.to_string() },
    };
    let views = bytes
        .iter()
        .map(|(n, shape, data)| Ok((*n, TensorView::new(Dtype::F32, shape.to_vec(), data)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(damaged)?;
    serialize_to_file(views, Some(HashMap::from([(KEY.to_owned(), json)])), path).map_err(damaged)
}
