//! Writing a network as an ONNX file: each node of its graph becomes nodes of ONNX's operators.

mod layers;
mod operators;
mod recurrent;
mod writer;

use super::proto::{ModelProto, OperatorSetIdProto, StringStringEntryProto};
use crate::files::{short, write_file};
use crate::{Error, Model, Result};
use prost::Message;
use recurve_graph::Dim;
use recurve_layers::{Network, NetworkConfig};
use recurve_vocabulary::Rest;
use std::path::Path;
use std::sync::Arc;
use writer::Writer;

/// The operator set of `ai.onnx` that is written: the first with `LayerNormalization`.
const OPERATOR_SET: i64 = 17;
/// The version of the file format that came with it.
const IR_VERSION: i64 = 8;

/// What an exported model takes and gives besides the network's inputs and outputs. ONNX's inputs are all required, so
/// what is asked for here must be given in every call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportOptions {
    /// An input `lengths`, `[B]` int32: the number of valid timesteps of each sequence.
    pub lengths: bool,
    /// An input `mask`, `[B, T]` bool: which timesteps are valid. Not together with `lengths`.
    pub mask: bool,
    /// The states of recurrent layers as inputs `LAYER_h_in`, `LAYER_c_in` and outputs `LAYER_h_out`, `LAYER_c_out`,
    /// `[L·D, B, H]`. Without it every call starts with zeros.
    pub states: bool,
    /// Keeps the struct open for more fields: a literal ends in `..` and a default.
    #[doc(hidden)]
    pub rest: Rest,
}

impl Model {
    /// Writes the network as an ONNX file of operator set 17. An existing file is replaced only once the new one is
    /// complete.
    ///
    /// # Errors
    /// [`Error::Export`] for what ONNX cannot express, [`Error::Io`].
    pub fn save_onnx(&self, path: impl AsRef<Path>, options: &ExportOptions) -> Result<()> {
        let path = path.as_ref();
        let bytes = self.to_onnx(options)?;
        write_file(path, |w| w.write_all(&bytes)).map_err(|e| Error::Io { path: path.into(), source: Arc::new(e) })
    }

    /// The bytes of the file that [`Self::save_onnx`] writes.
    ///
    /// # Errors
    /// [`Error::Export`] for what ONNX cannot express.
    pub fn to_onnx(&self, options: &ExportOptions) -> Result<Vec<u8>> {
        let info = self.info();
        let graph = graph(self.network(), &info.network, &info.name, options)
            .map_err(|(node, message)| Error::Export { node, message })?;
        let entry = |key: &str, value: &Option<String>| {
            value.as_ref().map(|value| StringStringEntryProto { key: key.into(), value: value.clone() })
        };
        let model = ModelProto {
            ir_version: IR_VERSION,
            producer_name: "recurve".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(graph),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPERATOR_SET }],
            metadata_props: [entry("license", &info.license), entry("source", &info.source)]
                .into_iter()
                .flatten()
                .collect(),
            functions: Vec::new(),
        };
        let bytes = model.encoded_len();
        if bytes > i32::MAX as usize {
            let message = format!("takes {bytes} bytes, but an ONNX file holds at most {}", i32::MAX);
            return Err(Error::Export { node: info.name.clone(), message });
        }
        Ok(model.encode_to_vec())
    }
}

/// What the graph of a network puts before the names of its outputs.
const OUTPUT: &str = "output.";

/// Why something cannot be written: the node, and what about it.
type Fault = (String, String);

fn graph(
    network: &Network,
    config: &NetworkConfig,
    name: &str,
    options: &ExportOptions,
) -> Result<super::proto::GraphProto, Fault> {
    let fault = |what: &str, message: &str| Err((what.to_owned(), message.to_owned()));
    if options.lengths && options.mask {
        return fault("lengths", "cannot be an input together with `mask`");
    }
    let graph = network.graph();
    for (wanted, what) in [(options.lengths, "lengths"), (options.mask, "mask")] {
        if wanted && graph.find(what).is_none_or(|id| graph.users(id).next().is_none()) {
            return fault(what, "is taken by no recurrent layer of this network, so it cannot be an input");
        }
        if config.inputs.iter().any(|i| i.name == what) {
            return fault(what, "is the name of an input of this network already");
        }
    }
    if let Some(layer) = network.stateful_layers().next().filter(|_| !options.states) {
        return fault(layer, "is stateful: its state can only be written as an input and an output (`states`)");
    }
    let mut w = Writer::new(graph, network.weights());
    w.reserve(config.outputs.iter().map(|o| o.name.as_str()));
    for (id, input) in graph.inputs().iter().zip(&config.inputs) {
        w.input(*id, &input.name, &graph.value(*id).kind.dims);
    }
    // Both in the order of the layers, h before c.
    let mut ends = graph.outputs().iter().filter(|(name, _)| !name.starts_with(OUTPUT)).map(|(_, id)| *id);
    let mut states = Vec::new();
    for &id in &graph.inputs()[config.inputs.len()..] {
        let (batch, time) = (Dim::symbol("batch"), Dim::symbol("time"));
        match graph.value(id).name.as_str() {
            "lengths" if options.lengths => w.input(id, "lengths", &[batch]),
            "mask" if options.mask => w.input(id, "mask", &[batch, time]),
            "lengths" | "mask" => {}
            state => {
                let (end, layer) = (ends.next(), graph.users(id).next());
                let (Some(end), Some(layer), Some((_, part))) = (end, layer, state.rsplit_once('.')) else {
                    return fault(state, "belongs to no layer");
                };
                if options.states {
                    let layer = format!("{}_{part}", graph.nodes()[layer].name);
                    let name = w.free(&format!("{layer}_in"));
                    w.input(id, &name, &graph.value(end).kind.dims);
                    states.push((end, w.free(&format!("{}_out", name.strip_suffix("_in").unwrap_or(&name)))));
                }
            }
        }
    }
    for node in graph.nodes() {
        operators::write(&mut w, node).map_err(|message| (node.name.clone(), message))?;
    }
    let outputs = graph.outputs().iter().filter_map(|(name, id)| Some((*id, name.strip_prefix(OUTPUT)?.to_owned())));
    for (id, name) in outputs.chain(states) {
        w.output(id, &name).map_err(|message| (name, message))?;
    }
    Ok(w.finish(if name.is_empty() { "recurve" } else { name }))
}

/// Words for an operator that has no form in ONNX here.
fn unsupported(operator: &str) -> String {
    format!("operator {} cannot be written as ONNX", short(operator))
}
