//! The native model file: one safetensors file whose `__metadata__` holds, under `recurve`, a JSON
//! description of the layers. `docs/model-file.md` specifies it.

use crate::{Error, Result, TextSpec, files};
use recurve_layers::{Error as LayerError, LayerConfig, Network, RecurrentSpec, Weights};
use recurve_tensor::{DType, Device};
use safetensors::tensor::{Dtype, Metadata, SafeTensorError, TensorView, serialize_to_file};
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::{BufReader, Read};
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

/// Bytes of a header, at most: enough for a vocabulary of a million words.
const MAX_HEADER: u64 = 1 << 24;
/// Tensors, entries of the metadata, bytes of a name and dimensions, at most.
const MAX_TENSORS: usize = 1 << 16;
const MAX_METADATA: usize = 1 << 10;
const MAX_NAME: usize = 1 << 8;
const MAX_DIMENSIONS: usize = 8;

/// Reads a model file. Everything that the header says is checked before there is memory for any weight.
pub(crate) fn read(path: &Path, device: &Device) -> Result<(ModelInfo, Network)> {
    let (file, len) = files::open(path).map_err(|e| Error::Io { path: path.into(), source: Arc::new(e) })?;
    read_from(&mut BufReader::new(file), len, path, device)
}

/// Reads a model file of `len` bytes; errors name `path`.
pub(crate) fn read_from(r: &mut dyn Read, len: u64, path: &Path, device: &Device) -> Result<(ModelInfo, Network)> {
    let damaged = |message: String| Error::Damaged { path: path.into(), message };
    let fits = |source| Error::Layers { path: path.into(), source };
    let header = read_header(r, len, path)?;
    let text = header.metadata().as_ref().and_then(|m| m.get(KEY));
    let info = describe(text.ok_or_else(|| Error::NoDescription { path: path.into() })?, path)?;

    // What the layers need is held against what the header promises.
    let (tensors, names) = (header.tensors(), header.offset_keys());
    let mut needed = HashSet::new();
    Network::visit_weights(&info.layers, &info.input_shape, |name, expected| {
        let Some(tensor) = tensors.get(name) else {
            let available = files::some_names(names.iter().map(String::as_str));
            return Err(LayerError::MissingWeight { name: name.into(), available });
        };
        needed.insert(name.to_owned());
        if tensor.shape == expected {
            return Ok(());
        }
        Err(LayerError::WeightShape { name: name.into(), expected: expected.to_vec(), got: tensor.shape.clone() })
    })
    .map_err(fits)?;
    if let Some(name) = names.iter().find(|name| !needed.contains(*name)) {
        return Err(fits(LayerError::ExtraWeight { name: name.clone() }));
    }
    for (name, tensor) in &tensors {
        if !matches!(tensor.dtype, Dtype::F32 | Dtype::F16) {
            return Err(Error::DType { path: path.into(), name: name.clone(), got: format!("{:?}", tensor.dtype) });
        }
    }
    let mut weights = Weights::new();
    for name in names {
        let tensor = tensors[&name];
        let count = tensor.shape.iter().product();
        let data = match tensor.dtype {
            Dtype::F16 => files::elements(r, count, |b| Ok(half::f16::from_le_bytes(b).to_f32())),
            _ => files::elements(r, count, |b| Ok(f32::from_le_bytes(b))),
        };
        let data = data.map_err(|message| damaged(format!("tensor `{name}` {message}")))?;
        weights.insert(name, &tensor.shape, data).map_err(fits)?;
    }
    let network = Network::new(&info.layers, &info.input_shape, Arc::new(weights), device).map_err(fits)?;
    if let Some(t) = &info.text {
        check_text(t, &network).map_err(|message| Error::Description { path: path.into(), message })?;
    }
    Ok((info, network))
}

/// The header of a file of `len` bytes, of which it accounts for every one.
fn read_header(r: &mut dyn Read, len: u64, path: &Path) -> Result<Metadata> {
    let damaged = |message: String| Error::Damaged { path: path.into(), message };
    let mut size = [0; 8];
    r.read_exact(&mut size).map_err(|e| damaged(files::cut(e)))?;
    let size = u64::from_le_bytes(size);
    if size > MAX_HEADER || size > len.saturating_sub(8) {
        return Err(damaged(format!(
            "the header should have {size} bytes, the file has {len}, at most {MAX_HEADER} are read"
        )));
    }
    let mut text = files::room(size as usize).map_err(damaged)?;
    r.take(size).read_to_end(&mut text).map_err(|e| damaged(files::cut(e)))?;
    let text = str::from_utf8(&text).map_err(|_| damaged("the header is no text".into()))?;
    let json = |e: serde_json::Error| damaged(files::short_message(&e.to_string()));
    // The library's parser keeps one of two tensors that share a name.
    let Names { twice, count, longest } = serde_json::from_str(text).map_err(json)?;
    if let Some(name) = twice {
        return Err(Error::Twice { path: path.into(), name: files::short(&name) });
    }
    if count > MAX_TENSORS || longest > MAX_NAME {
        return Err(damaged(format!(
            "it has {count} tensors and a name of {longest} bytes, but at most {MAX_TENSORS} and {MAX_NAME} are read"
        )));
    }
    let header: Metadata = serde_json::from_str(text).map_err(json)?;
    if let Some((name, tensor)) = header.tensors().into_iter().find(|(_, t)| t.shape.len() > MAX_DIMENSIONS) {
        let got = tensor.shape.len();
        return Err(damaged(format!("tensor `{name}` has {got} dimensions, but at most {MAX_DIMENSIONS} are read")));
    }
    let data = len - 8 - size;
    if header.data_len() as u64 != data {
        return Err(damaged(format!("the tensors take {} bytes, but {data} follow the header", header.data_len())));
    }
    Ok(header)
}

/// The names in a header, tensors and metadata alike.
#[derive(Default)]
struct Names {
    /// The first one that is there twice.
    twice: Option<String>,
    count: usize,
    longest: usize,
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Self::default())
    }
}

impl<'de> Visitor<'de> for Names {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(mut self, mut map: M) -> Result<Self, M::Error> {
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                let inner: Self = map.next_value()?;
                if inner.count > MAX_METADATA {
                    return Err(M::Error::custom(format_args!("at most {MAX_METADATA} entries of metadata are read")));
                }
                self.twice = self.twice.or(inner.twice);
            } else {
                map.next_value::<IgnoredAny>()?;
                self.longest = self.longest.max(name.len());
                self.count += 1;
            }
            if seen.contains(&name) {
                self.twice.get_or_insert(name);
            } else if seen.len() <= MAX_TENSORS {
                seen.insert(name);
            }
        }
        Ok(self)
    }
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
    let bytes: Vec<(&str, &[usize], Vec<u8>)> = network
        .weights()
        .iter()
        .map(|(n, a)| (n, &a.shape[..], a.data.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let damaged = |e: SafeTensorError| match e {
        SafeTensorError::IoError(e) => io(e),
        other => Error::Damaged { path: path.into(), message: other.to_string() },
    };
    let views = bytes
        .iter()
        .map(|(n, shape, data)| Ok((*n, TensorView::new(Dtype::F32, shape.to_vec(), data)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(damaged)?;
    let beside = files::Beside::create(path).map_err(io)?;
    serialize_to_file(views, Some(HashMap::from([(KEY.to_owned(), json)])), beside.path()).map_err(damaged)?;
    beside.keep().map_err(io)
}
