//! Descriptions in TOML that assemble a network from the weights of a file. `docs/pytorch.md` specifies them.

use super::names::Names;
use crate::files::{self, short, short_message, some_names};
use crate::native::ModelInfo;
use crate::{Error, Result, TextSpec};
use recurve_layers::{
    ActivationFunction, Error as LayerError, InputConfig, LayerConfig, NamedLayer, Network, NetworkConfig,
    OutputConfig, RecurrentSpec, ValueRef, Weights,
};
use recurve_tensor::Device;
use recurve_vocabulary::{Bias, Cell, CellKind, Merge};
use recurve_weights::WeightFile;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::Spanned;

/// Largest size of a description, in bytes.
const MAX_TEXT: u64 = 1 << 24;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    /// The file of the weights, in the folder of the description.
    weights: String,
    /// The part of a checkpoint that the weights are.
    part: Option<String>,
    name: Option<String>,
    license: Option<String>,
    source: Option<String>,
    /// Names of weights that no layer uses, with `*` for any text.
    #[serde(default)]
    ignore: Vec<String>,
    #[serde(default)]
    inputs: Vec<Input>,
    layers: Vec<Spanned<toml::Table>>,
    #[serde(default)]
    outputs: Vec<Output>,
    text: Option<TextSpec>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    name: String,
    shape: Vec<Size>,
    ids: Option<bool>,
}

/// A size, or a name for any size.
#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Known(usize),
    Any(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Output {
    name: String,
    value: String,
}

/// Whether a path is that of a description.
pub(crate) fn is_description(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("toml"))
}

/// The network that a description assembles.
pub(crate) fn open(path: &Path, device: &Device) -> Result<(ModelInfo, Network)> {
    let bad = |message: String| Error::Description { path: path.into(), message };
    let text = read(path)?;
    let line = |at: usize| 1 + text.bytes().take(at).filter(|b| *b == b'\n').count();
    let d: Description = toml::from_str(&text).map_err(|e| {
        let place = e.span().map(|s| format!("line {}: ", line(s.start))).unwrap_or_default();
        bad(format!("{place}{}", short_message(e.message())))
    })?;
    let file = WeightFile::open_part(below(path, &d.weights)?, d.part.as_deref())?;
    let names = Names::of(&file);
    let inputs = d.inputs.iter().map(Input::config).collect::<Result<_, _>>().map_err(bad)?;
    let mut made = Assembled { file: &file, names: &names, inputs, layers: Vec::new() };
    for table in d.layers {
        let line = line(table.span().start);
        made.add(table.into_inner()).map_err(|(name, message)| {
            let name = name.map(|n| format!(", layer `{}`", short(&n))).unwrap_or_default();
            bad(format!("line {line}{name}: {message}"))
        })?;
    }
    let network = made.network(&d.outputs).map_err(bad)?;
    let info = ModelInfo {
        name: d.name.unwrap_or_else(|| path.file_stem().unwrap_or_default().to_string_lossy().into_owned()),
        license: d.license,
        source: d.source,
        network,
        text: d.text,
    };
    info.check(path)?;
    let weights = made.weights(&info.network, &d.ignore, path)?;
    let fits = |source| Error::Layers { path: path.into(), source };
    let network = Network::new(&info.network, Arc::new(weights), device).map_err(fits)?;
    info.check_text(&network, path)?;
    Ok((info, network))
}

fn read(path: &Path) -> Result<String> {
    let io = |e| Error::Io { path: path.into(), source: Arc::new(e) };
    let (file, len) = files::open(path).map_err(io)?;
    if len > MAX_TEXT {
        let message = format!("has {len} bytes, but at most {MAX_TEXT} are read");
        return Err(Error::Description { path: path.into(), message });
    }
    let mut text = String::new();
    file.take(MAX_TEXT).read_to_string(&mut text).map_err(io)?;
    Ok(text)
}

/// The path of a file that a description names, which must be in its folder or below it.
fn below(path: &Path, name: &str) -> Result<PathBuf> {
    let bad = |message: String| Error::Description { path: path.into(), message };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let io = |p: &Path, e| Error::Io { path: p.into(), source: Arc::new(e) };
    let joined = folder.join(name);
    let outside = || bad(format!("weights `{}` are not in the folder of the description", short(name)));
    if Path::new(name).is_absolute() {
        return Err(outside());
    }
    let full = joined.canonicalize().map_err(|e| io(&joined, e))?;
    if !full.starts_with(folder.canonicalize().map_err(|e| io(folder, e))?) {
        return Err(outside());
    }
    Ok(joined)
}

impl Input {
    fn config(&self) -> Result<InputConfig, String> {
        let size = |s: &Size| match s {
            Size::Known(n) => Ok(Some(*n)),
            Size::Any(name) if name.is_empty() => Err(format!("input `{}`: a size has no name", short(&self.name))),
            Size::Any(_) => Ok(None),
        };
        let mut config = InputConfig::new(&self.name, &self.shape.iter().map(size).collect::<Result<Vec<_>, _>>()?);
        config.ids = self.ids.unwrap_or(false);
        Ok(config)
    }
}

/// Layers that are made one after the other.
struct Assembled<'a> {
    file: &'a WeightFile,
    names: &'a Names,
    inputs: Vec<InputConfig>,
    /// Each layer with the prefixes of its weights: one, or one for each of its cells.
    layers: Vec<(NamedLayer, Vec<String>)>,
}

/// An error, with the name of the layer where it is known.
type Wrong = (Option<String>, String);

/// Fields of a recurrent layer that are not its cell's.
const OF_THE_LAYER: [&str; 18] = [
    "units",
    "num_layers",
    "bidirectional",
    "bias",
    "return_sequences",
    "return_state",
    "stateful",
    "go_backwards",
    "time_major",
    "zero_output_for_mask",
    "dropout",
    "recurrent_dropout",
    "weight_storage",
    "unit_forget_bias",
    "kernel_initializer",
    "recurrent_initializer",
    "bias_initializer",
    "weight_options",
];

impl Assembled<'_> {
    /// Adds the layer of a table.
    fn add(&mut self, table: toml::Table) -> Result<(), Wrong> {
        let Ok(Value::Object(mut options)) = serde_json::to_value(table) else {
            return Err((None, "is no table of options".into()));
        };
        let text = |options: &mut Map<String, Value>, key: &str| match options.remove(key) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(_) => Err((None, format!("`{key}` must be a text"))),
        };
        let name = text(&mut options, "name")?;
        let from = prefixes(options.remove("from")).map_err(|m| (name.clone(), m))?;
        let name = name.or_else(|| from.first().cloned());
        let kind = text(&mut options, "kind").and_then(|k| k.ok_or((None, "`kind` is missing".into())));
        let kind = kind.map_err(|(_, m)| (name.clone(), m))?;
        let name = name.unwrap_or_else(|| {
            let same = self.layers.iter().filter(|(l, _)| l.layer.class_name().eq_ignore_ascii_case(&kind)).count();
            if same == 0 { kind.to_lowercase() } else { format!("{}_{same}", kind.to_lowercase()) }
        });
        let wrong = |message: String| (Some(name.clone()), message);
        let inputs = match (options.remove("input"), options.remove("inputs")) {
            (Some(_), Some(_)) => return Err(wrong("has both `input` and `inputs`".into())),
            (Some(Value::String(one)), None) => vec![self.value(&one)],
            (None, Some(Value::Array(all))) => {
                let texts = all.iter().map(|v| v.as_str().map(|s| self.value(s))).collect::<Option<Vec<_>>>();
                texts.ok_or_else(|| wrong("`inputs` must be a list of names".into()))?
            }
            (None, None) => Vec::new(),
            _ => return Err(wrong("`input` must be a name, and `inputs` a list of names".into())),
        };
        let layer = self.layer(&kind, options, &from).map_err(wrong)?;
        let inputs = if inputs.is_empty() { vec![self.before(&layer, &from).map_err(wrong)?] } else { inputs };
        // An input that an embedding reads holds ids.
        if takes_ids(&layer) {
            for input in self.inputs.iter_mut().filter(|i| inputs.iter().any(|v| v.of == i.name)) {
                input.ids = true;
            }
        }
        self.layers.push((NamedLayer::new(name, layer, vec![inputs]), from));
        Ok(())
    }

    /// A value by its name: `rnn`, or `rnn:1` for the second output of a layer.
    fn value(&self, text: &str) -> ValueRef {
        let known = |name: &str| self.layers.iter().any(|(l, _)| l.name == name);
        match text.rsplit_once(':') {
            Some((of, output)) if known(of) && !known(text) => match output.parse() {
                Ok(output) => {
                    let mut value = ValueRef::new(of);
                    value.output = output;
                    value
                }
                Err(_) => ValueRef::new(text),
            },
            _ => ValueRef::new(text),
        }
    }

    /// What a layer reads that names no inputs: the layer before it, or the only input, which the first layer's weights
    /// describe if the file does not.
    fn before(&mut self, layer: &LayerConfig, from: &[String]) -> Result<ValueRef, String> {
        if let Some((last, _)) = self.layers.last() {
            return Ok(ValueRef::new(&last.name));
        }
        if self.inputs.is_empty() {
            let shape = match layer {
                LayerConfig::Embedding(_) => vec![None, None],
                LayerConfig::Recurrent(_) => {
                    let [_, features] = self.need(&from[0], "weight_ih_l0")?;
                    vec![None, None, Some(features)]
                }
                _ => return Err("the shape of its input is not known: describe it in `[[inputs]]`".into()),
            };
            self.inputs.push(InputConfig::new("input", &shape));
        }
        match &self.inputs[..] {
            [one] => Ok(ValueRef::new(&one.name)),
            _ => Err("must say which of the inputs it reads: `input = \"NAME\"`".into()),
        }
    }

    /// The name in the file of a weight of a layer. Cells of PyTorch's have no number of a layer in their names.
    fn find(&self, prefix: &str, part: &str) -> Option<&str> {
        let join = |part: &str| if prefix.is_empty() { part.to_owned() } else { format!("{prefix}.{part}") };
        let name = join(part);
        let of_cell = || join(part.strip_suffix("_l0").unwrap_or(part));
        let own = &self.names.own;
        let full = own.get(&name).or_else(|| own.get(&of_cell()));
        // The names as they are in the file are valid too.
        full.map(String::as_str).or_else(|| self.file.names().find(|n| **n == name || **n == of_cell()))
    }

    fn shape(&self, prefix: &str, part: &str) -> Option<&[usize]> {
        self.file.shape(self.find(prefix, part)?)
    }

    /// A shape that must be there.
    fn need<const N: usize>(&self, prefix: &str, part: &str) -> Result<[usize; N], String> {
        let Some(shape) = self.shape(prefix, part) else {
            let near: Vec<&str> = self.names.own.keys().map(String::as_str).filter(|n| n.starts_with(prefix)).collect();
            let there = match near.len() {
                0 => format!("no weight begins with `{}`", short(prefix)),
                _ => format!("there is {}", some_names(near.iter().copied())),
            };
            return Err(format!("needs a weight `{part}` under `{}`, but {there}", short(prefix)));
        };
        shape.try_into().map_err(|_| {
            let name = self.find(prefix, part).unwrap_or_default();
            format!("needs a weight `{}` of {N} dimensions, but its shape is {shape:?}", short(name))
        })
    }

    /// The description of a layer: what its weights say, then what the options say.
    fn layer(&self, kind: &str, options: Map<String, Value>, from: &[String]) -> Result<LayerConfig, String> {
        let plain: String = kind.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect();
        let made = |v: Value| serde_json::from_value(v).map_err(|e| short_message(&e.to_string()));
        let one = || match from {
            [one] => Ok(one.as_str()),
            _ => Err("needs `from`, the beginning of the names of its weights".to_owned()),
        };
        if let Some(cell) = cell(&plain) {
            return Ok(LayerConfig::Recurrent(self.recurrent(cell, options, one()?)?));
        }
        match &*plain {
            "dense" | "linear" => {
                let [units, _] = self.need(one()?, "weight")?;
                let use_bias = self.shape(one()?, "bias").is_some();
                let base = json!({ "type": "dense", "units": units, "use_bias": use_bias, "activation": { "name": "linear" } });
                made(overlaid(base, options))
            }
            "embedding" => {
                let [ids, size] = self.need(one()?, "weight")?;
                made(overlaid(json!({ "type": "embedding", "input_dim": ids, "output_dim": size }), options))
            }
            "stackedrnncells" => self.stacked(options, from),
            "conv1d" | "conv2d" | "conv1dtranspose" | "convtranspose1d" | "conv2dtranspose" | "convtranspose2d"
            | "depthwiseconv1d" | "depthwiseconv2d" => made(overlaid(self.convolution(&plain, one()?)?, options)),
            "batchnormalization" | "batchnorm" | "batchnorm1d" | "batchnorm2d" => {
                let [_] = self.need(one()?, "running_mean")?;
                let (scale, center) = (self.shape(one()?, "weight").is_some(), self.shape(one()?, "bias").is_some());
                let base = json!({ "type": "batch_normalization", "epsilon": 1e-5, "scale": scale, "center": center });
                made(overlaid(base, options))
            }
            "layernormalization" | "layernorm" => {
                let Some(shape) = self.shape(one()?, "weight") else {
                    return Err(format!("needs a weight `weight` under `{}`", short(one()?)));
                };
                let axes: Vec<isize> = (1..=shape.len() as isize).rev().map(|n| -n).collect();
                let center = self.shape(one()?, "bias").is_some();
                let base = json!({ "type": "layer_normalization", "epsilon": 1e-5, "axis": axes, "center": center });
                made(overlaid(base, options))
            }
            "timedistributed" => {
                let mut options = options;
                let Some(Value::Object(mut inner)) = options.remove("layer") else {
                    return Err("needs `layer`, the layer that is applied to every timestep".into());
                };
                let Some(Value::String(kind)) = inner.remove("kind") else {
                    return Err("`layer` needs a `kind`".into());
                };
                let inner = self.layer(&kind, inner, from).map_err(|m| format!("`layer`: {m}"))?;
                made(overlaid(json!({ "type": "time_distributed", "layer": inner }), options))
            }
            "activation" if from.is_empty() => made(activation(options)),
            _ if !from.is_empty() => Err(format!(
                "kind `{}` is not known to have weights: kinds with `from` are LSTM, GRU, RNN, IndRNN, minGRU, minLSTM, \
                 sLSTM, StackedRNNCells, Dense (Linear), Embedding, TimeDistributed, Conv1d, Conv2d, Conv1dTranspose, \
                 Conv2dTranspose, DepthwiseConv1d, DepthwiseConv2d, BatchNorm, LayerNorm",
                short(kind)
            )),
            _ => made(overlaid(json!({ "type": snake(kind) }), options)),
        }
    }

    fn recurrent(&self, cell: Cell, options: Map<String, Value>, from: &str) -> Result<RecurrentSpec, String> {
        let [rows, _] = self.need(from, "weight_ih_l0")?;
        let gates = cell.kind.gates();
        if rows % gates != 0 || rows == 0 {
            let name = self.find(from, "weight_ih_l0").unwrap_or_default();
            return Err(format!("`{}` has {rows} rows, which {gates} gates cannot share", short(name)));
        }
        let units = rows / gates;
        let has = |part: &str| self.shape(from, part);
        let mut cell = cell;
        if let Some(&[size, _]) = has("weight_hr_l0") {
            cell.projection = Some(size);
        }
        cell.peepholes = has("weight_peephole_l0").is_some();
        if let (CellKind::SLstm { heads, .. }, Some(&[_, columns])) = (&mut cell.kind, has("weight_hh_l0")) {
            *heads = units.checked_div(columns).unwrap_or(1).max(1);
        }
        let mut spec = RecurrentSpec::new(cell, units);
        spec.num_layers = (1..).find(|n| has(&format!("weight_ih_l{n}")).is_none()).unwrap_or(1);
        spec.bidirectional = has("weight_ih_l0_reverse").map(|_| Merge::Concat);
        spec.bias = match (has("bias_ih_l0"), has("bias_hh_l0")) {
            (None, None) => Bias::None,
            (Some(_), None) => Bias::Single,
            _ => Bias::Double,
        };
        spec.return_sequences = true;
        let (mut layer, mut own) = (Map::new(), Map::new());
        for (key, value) in options {
            let place = if OF_THE_LAYER.contains(&key.as_str()) { &mut layer } else { &mut own };
            place.insert(key, value);
        }
        let mut base = serde_json::to_value(&spec).map_err(|e| e.to_string())?;
        // Gates that differ from each other are given in place of the one function of all.
        if own.contains_key("recurrent_activation")
            && let Some(cell) = base["cell"].as_object_mut()
        {
            cell.remove("gate_activations");
        }
        base["cell"] = overlaid(base["cell"].take(), own);
        serde_json::from_value(overlaid(base, layer)).map_err(|e| short_message(&e.to_string()))
    }

    /// What the weights of a convolution say.
    fn convolution(&self, plain: &str, from: &str) -> Result<Value, String> {
        let two = plain.contains("2d");
        let (rows, columns, kernel) = if two {
            let [a, b, h, w] = self.need(from, "weight")?;
            (a, b, json!([h, w]))
        } else {
            let [a, b, n] = self.need(from, "weight")?;
            (a, b, json!(n))
        };
        let dimensions = if two { "2d" } else { "1d" };
        let mut base = json!({ "kernel_size": kernel, "use_bias": self.shape(from, "bias").is_some() });
        let kind = match (plain.contains("transpose"), plain.starts_with("depthwise")) {
            (true, _) => {
                base["filters"] = json!(columns);
                format!("conv{dimensions}_transpose")
            }
            (_, true) => format!("depthwise_conv{dimensions}"),
            _ => {
                base["filters"] = json!(rows);
                format!("conv{dimensions}")
            }
        };
        base["type"] = json!(kind);
        Ok(base)
    }

    fn stacked(&self, mut options: Map<String, Value>, from: &[String]) -> Result<LayerConfig, String> {
        let Some(Value::Array(cells)) = options.remove("cells") else {
            return Err("needs `cells`, a list of tables with a `kind` each".into());
        };
        if cells.len() != from.len() {
            return Err(format!("has {} cells, but `from` has {} names", cells.len(), from.len()));
        }
        let mut specs = Vec::new();
        for (n, (own, from)) in cells.into_iter().zip(from).enumerate() {
            let Value::Object(mut own) = own else { return Err(format!("cell {n} is no table")) };
            let kind = match own.remove("kind") {
                Some(Value::String(kind)) => kind,
                _ => return Err(format!("cell {n} needs a `kind`")),
            };
            let plain: String = kind.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect();
            let cell = cell(&plain).ok_or_else(|| format!("cell {n}: kind `{}` is no cell", short(&kind)))?;
            let mut spec = self.recurrent(cell, own, from).map_err(|m| format!("cell {n}: {m}"))?;
            spec.return_sequences = false;
            specs.push(spec);
        }
        let base = json!({ "type": "stacked_rnn_cells", "cells": specs, "return_sequences": true });
        serde_json::from_value(overlaid(base, options)).map_err(|e| short_message(&e.to_string()))
    }

    fn network(&self, outputs: &[Output]) -> Result<NetworkConfig, String> {
        let Some((last, _)) = self.layers.last() else { return Err("has no layers".into()) };
        let outputs = match outputs {
            [] => vec![OutputConfig::new("output", ValueRef::new(&last.name))],
            _ => outputs.iter().map(|o| OutputConfig::new(&o.name, self.value(&o.value))).collect(),
        };
        let layers = self.layers.iter().map(|(l, _)| l.clone()).collect();
        Ok(NetworkConfig::new(self.inputs.clone(), layers, outputs))
    }

    /// The weights that the network needs, by its own names. Every weight of the file must be needed or ignored.
    fn weights(&self, network: &NetworkConfig, ignore: &[String], path: &Path) -> Result<Weights> {
        let fits = |source| Error::Layers { path: path.into(), source };
        let bad = |message: String| Error::Description { path: path.into(), message };
        let mut wanted: Vec<(String, &str)> = Vec::new();
        let visited = network.visit_weights(|name, expected| {
            let mut parts = name.splitn(3, '.').skip(1);
            let index = parts.next().and_then(|n| n.parse::<usize>().ok()).expect("layers.N.NAME");
            let part = parts.next().expect("layers.N.NAME");
            let (_, from) = &self.layers[index];
            let (prefix, part) = match part.strip_prefix("cells.").and_then(|p| p.split_once('.')) {
                Some((n, part)) => (n.parse::<usize>().ok().and_then(|n| from.get(n)), part),
                None => (from.first(), part),
            };
            let prefix = prefix.map_or("", String::as_str);
            let full = if prefix.is_empty() { part.to_owned() } else { format!("{prefix}.{part}") };
            let Some(found) = self.find(prefix, part) else {
                let available = some_names(self.names.own.keys().map(String::as_str).collect::<Vec<_>>().into_iter());
                return Err(LayerError::MissingWeight { name: full, available });
            };
            let got = self.file.shape(found).expect("a name of the file");
            if got != expected {
                let (expected, got) = (expected.to_vec(), got.to_vec());
                return Err(LayerError::WeightShape { name: found.into(), expected, got });
            }
            wanted.push((name.to_owned(), found));
            Ok(())
        });
        visited.map_err(fits)?;
        let mut used: BTreeSet<&str> = wanted.iter().map(|(_, found)| *found).collect();
        // The number of batches that training has seen changes nothing.
        let norms: Vec<&str> = used.iter().filter_map(|n| n.strip_suffix("running_mean")).collect();
        let counts = norms.iter().map(|norm| format!("{norm}num_batches_tracked"));
        let counts: Vec<&str> = counts.filter_map(|n| self.file.names().find(|own| **own == n)).collect();
        used.extend(counts);
        let left: Vec<&str> = self
            .names
            .own
            .iter()
            .filter(|(name, full)| {
                let known = |p: &String| matches(p, name) || matches(p, full);
                !used.contains(&***full) && !ignore.iter().any(known)
            })
            .map(|(name, _)| name.as_str())
            .collect();
        if !left.is_empty() {
            let message = format!(
                "no layer uses the weights {}; name them in `ignore` if that is right",
                some_names(left.into_iter())
            );
            return Err(bad(message));
        }
        let unneeded =
            ignore.iter().find(|p| !self.names.own.iter().any(|(n, full)| matches(p, n) || matches(p, full)));
        if let Some(p) = unneeded {
            return Err(bad(format!("`ignore`: no weight has the name `{}`", short(p))));
        }
        // A weight that several layers use is read once.
        let mut read = HashMap::new();
        let mut weights = Vec::new();
        for (name, found) in wanted {
            let weight = match read.get(found) {
                Some(weight) => recurve_weights::Weight::clone(weight),
                None => {
                    let weight = self.file.weight(found)?.expect("a name of the file");
                    read.insert(found, weight.clone());
                    weight
                }
            };
            weights.push((name, weight));
        }
        Ok(weights.into_iter().collect())
    }
}

/// The names in `from`: none, one, or one for each cell.
fn prefixes(from: Option<Value>) -> Result<Vec<String>, String> {
    match from {
        None => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one]),
        Some(Value::Array(all)) => {
            let texts = all.into_iter().map(|v| if let Value::String(s) = v { Some(s) } else { None });
            texts.collect::<Option<_>>().ok_or_else(|| "`from` must be a name or a list of names".into())
        }
        Some(_) => Err("`from` must be a name or a list of names".into()),
    }
}

fn takes_ids(layer: &LayerConfig) -> bool {
    match layer {
        LayerConfig::Embedding(_) => true,
        LayerConfig::TimeDistributed(t) => takes_ids(&t.layer),
        _ => false,
    }
}

/// The cell of a kind, without the underscores and in lower case.
fn cell(kind: &str) -> Option<Cell> {
    Some(match kind.strip_suffix("cell").unwrap_or(kind) {
        "lstm" => Cell::LSTM,
        "gru" => Cell::GRU,
        "rnn" | "simplernn" => Cell::RNN,
        "indrnn" => Cell::INDRNN,
        "mingru" => Cell::MINGRU,
        "minlstm" => Cell::MINLSTM,
        "slstm" => Cell::SLSTM,
        _ => return None,
    })
}

/// `base` with more fields, or other values of its own. A function may be given by its name alone.
fn overlaid(mut base: Value, options: Map<String, Value>) -> Value {
    let function = |v: Value| if v.is_string() { json!({ "name": v }) } else { v };
    if let Value::Object(fields) = &mut base {
        for (key, value) in options {
            let value = match value {
                Value::Array(all) if key == "gate_activations" => all.into_iter().map(function).collect(),
                value if key.ends_with("activation") => function(value),
                value => value,
            };
            fields.insert(key, value);
        }
    }
    base
}

/// A layer `Activation`: its function is one of its own, or one that other layers have too, by its name or as a table.
fn activation(mut options: Map<String, Value>) -> Value {
    if let Some(function) = options.get_mut("activation") {
        let own = serde_json::from_value::<ActivationFunction>(function.clone()).is_ok();
        if function.is_string() && !own {
            *function = json!({ "name": function });
        }
        if function.get("name").is_some() {
            *function = json!({ "elementwise": function });
        }
    }
    options.insert("type".into(), "activation".into());
    options.into()
}

/// A name such as `TimeDistributed` as files have it, `time_distributed`.
fn snake(kind: &str) -> String {
    let mut out = String::new();
    for (n, c) in kind.chars().enumerate() {
        if c.is_uppercase() && n > 0 && !out.ends_with('_') {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// Whether a name is what a pattern says, in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, n));
            p += 1;
        } else if pattern.get(p) == Some(&name[n]) {
            (p, n) = (p + 1, n + 1);
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            (p, n) = (at + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&b| b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_names() {
        for (pattern, name, same) in [
            ("a.b", "a.b", true),
            ("a.*", "a.b.c", true),
            ("*.bias", "a.bias", true),
            ("*.bias", "a.bias_hh", false),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcd", false),
            ("*", "", true),
            ("", "a", false),
            ("a", "A", false),
        ] {
            assert_eq!(matches(pattern, name), same, "{pattern} {name}");
        }
    }
}
