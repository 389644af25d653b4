//! Collects the nodes and initializers of an ONNX graph.

use super::super::proto::{
    AttributeProto, Dimension, DimensionValue, GraphProto, NodeProto, TensorProto, TensorShapeProto, TensorTypeProto,
    TypeProto, ValueInfoProto, attribute_kind,
};
use recurve_graph::{Constant, Dim, Graph, Int, Node, Source, ValueId, ValueType};
use recurve_layers::Weights;
use std::collections::{HashMap, HashSet};

/// Numbers of element types in ONNX.
pub(super) mod element {
    pub(in super::super) const FLOAT: i32 = 1;
    pub(in super::super) const INT32: i32 = 6;
    pub(in super::super) const INT64: i32 = 7;
    pub(in super::super) const BOOL: i32 = 9;
}

/// A value of an attribute.
pub(super) enum Attr<'a> {
    Float(f32),
    Int(i64),
    Text(&'a str),
    Floats(&'a [f32]),
    Ints(&'a [i64]),
    Texts(&'a [&'a str]),
    Graph(GraphProto),
    Tensor(TensorProto),
}

/// A value that has been written: its name and its element type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) name: String,
    pub(super) element: i32,
}

pub(super) struct Writer<'a> {
    graph: &'a Graph,
    weights: &'a Weights,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    inputs: Vec<ValueInfoProto>,
    outputs: Vec<ValueInfoProto>,
    /// What each value of the graph is; none for those that do not exist because an optional input is not there.
    values: HashMap<ValueId, Written>,
    /// Constants of whole numbers that are there already.
    ints: HashMap<(Vec<i64>, bool), String>,
    names: HashSet<String>,
    /// The name of the layer that is being written.
    scope: String,
}

fn attribute(name: &str, value: Attr<'_>) -> AttributeProto {
    let mut a = AttributeProto { name: name.into(), ..AttributeProto::default() };
    let text = |s: &str| s.as_bytes().to_vec().into();
    a.kind = match value {
        Attr::Float(v) => {
            a.f = Some(v);
            attribute_kind::FLOAT
        }
        Attr::Int(v) => {
            a.i = Some(v);
            attribute_kind::INT
        }
        Attr::Text(v) => {
            a.s = Some(text(v));
            attribute_kind::STRING
        }
        Attr::Floats(v) => {
            a.floats = v.into();
            attribute_kind::FLOATS
        }
        Attr::Ints(v) => {
            a.ints = v.into();
            attribute_kind::INTS
        }
        Attr::Texts(v) => {
            a.strings = v.iter().map(|s| text(s)).collect();
            attribute_kind::STRINGS
        }
        Attr::Graph(v) => {
            a.g = Some(v);
            attribute_kind::GRAPH
        }
        Attr::Tensor(v) => {
            a.t = Some(v);
            attribute_kind::TENSOR
        }
    };
    a
}

/// A tensor of f32.
pub(super) fn float_tensor(name: &str, dims: &[usize], data: &[f32]) -> TensorProto {
    let raw: Vec<u8> = data.iter().flat_map(|v| v.to_le_bytes()).collect();
    tensor(name, dims, element::FLOAT, raw)
}

fn tensor(name: &str, dims: &[usize], kind: i32, raw: Vec<u8>) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.iter().map(|&d| d as i64).collect(),
        data_type: kind,
        raw_data: Some(raw.into()),
        ..TensorProto::default()
    }
}

/// A value's declaration. Without dimensions only the element type is stated.
pub(super) fn declaration(name: &str, kind: i32, dims: Option<&[Dim]>) -> ValueInfoProto {
    let dim = |d: &Dim| Dimension {
        value: match d {
            Dim::Size(n) => Some(DimensionValue::DimValue(*n as i64)),
            Dim::Symbol(name) => Some(DimensionValue::DimParam(name.to_string())),
            _ => None,
        },
    };
    let shape = dims.map(|d| TensorShapeProto { dim: d.iter().map(dim).collect() });
    let kind = TypeProto { tensor_type: Some(TensorTypeProto { elem_type: kind, shape }) };
    ValueInfoProto { name: name.into(), r#type: Some(kind) }
}

impl<'a> Writer<'a> {
    pub(super) fn new(graph: &'a Graph, weights: &'a Weights) -> Self {
        Self {
            graph,
            weights,
            nodes: Vec::new(),
            initializers: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            values: HashMap::new(),
            ints: HashMap::new(),
            names: graph.parameters().map(|p| p.name.clone()).collect(),
            scope: String::new(),
        }
    }

    /// Keeps names free for outputs.
    pub(super) fn reserve<'n>(&mut self, names: impl Iterator<Item = &'n str>) {
        self.names.extend(names.map(str::to_owned));
    }

    /// A name like this one that is not used yet.
    pub(super) fn free(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut n = 1;
        while !self.names.insert(name.clone()) {
            name = format!("{wanted}_{n}");
            n += 1;
        }
        name
    }

    /// What follows belongs to this layer.
    pub(super) fn enter(&mut self, layer: &str) {
        self.scope = layer.into();
    }

    pub(super) fn kind(&self, id: ValueId) -> &'a ValueType {
        &self.graph.value(id).kind
    }

    /// Declares an input of the model.
    pub(super) fn input(&mut self, id: ValueId, name: &str, dims: &[Dim]) {
        self.names.insert(name.into());
        let kind = match (name, self.kind(id).dtype) {
            ("lengths", _) => element::INT32,
            ("mask", _) => element::BOOL,
            (_, e) if e.is_float() => element::FLOAT,
            _ => element::INT64,
        };
        self.inputs.push(declaration(name, kind, Some(dims)));
        self.values.insert(id, Written { name: name.into(), element: kind });
    }

    /// Declares an output of the model: the value itself under this name if a node computes it and it is no other output
    /// already, else an `Identity` of it.
    pub(super) fn output(&mut self, id: ValueId, name: &str) -> Result<(), String> {
        let Some(value) = self.value(id)? else {
            return Err("does not exist without an input that is left out".into());
        };
        self.names.insert(name.into());
        let computed = self.nodes.iter().any(|n| n.output.contains(&value.name));
        if computed && self.outputs.iter().all(|o| o.name != value.name) {
            self.nodes.iter_mut().for_each(|n| rename(n, &value.name, name));
            self.values.values_mut().filter(|v| v.name == value.name).for_each(|v| v.name = name.into());
        } else {
            self.nodes.push(NodeProto {
                name: name.into(),
                op_type: "Identity".into(),
                input: vec![value.name],
                output: vec![name.into()],
                ..NodeProto::default()
            });
        }
        self.outputs.push(declaration(name, value.element, Some(&self.kind(id).dims)));
        Ok(())
    }

    /// A value of the graph; none if it does not exist without an optional input that is not there.
    pub(super) fn value(&mut self, id: ValueId) -> Result<Option<Written>, String> {
        if let Some(v) = self.values.get(&id) {
            return Ok(Some(v.clone()));
        }
        let graph = self.graph;
        let value = graph.value(id);
        let dims: Vec<usize> = value.kind.sizes().collect();
        let (element, tensor) = match &value.source {
            Source::Input(_) | Source::Node { .. } => return Ok(None),
            Source::Parameter => {
                let data = self.host(id)?.1;
                (element::FLOAT, float_tensor(&value.name, &dims, &data))
            }
            Source::Constant(c) => {
                let name = self.free(&value.name);
                constant(&name, &dims, c)?
            }
            _ => return Err(format!("value {} comes from nowhere that is known", value.name)),
        };
        let written = Written { name: tensor.name.clone(), element };
        self.initializers.push(tensor);
        self.values.insert(id, written.clone());
        Ok(Some(written))
    }

    /// The inputs of a node; none if a required one does not exist.
    pub(super) fn operands(&mut self, node: &Node) -> Result<Option<Vec<Option<Written>>>, String> {
        let slots = node.operator.slots();
        let mut all = Vec::with_capacity(node.inputs.len());
        for (n, id) in node.inputs.iter().enumerate() {
            let value = match id {
                Some(id) => self.value(*id)?,
                None => None,
            };
            if value.is_none() && !slots[n.min(slots.len() - 1)].is_optional() {
                return Ok(None);
            }
            all.push(value);
        }
        Ok(Some(all))
    }

    /// States what a value of the graph is.
    pub(super) fn define(&mut self, id: ValueId, value: Written) {
        self.values.insert(id, value);
    }

    /// The shape and the elements of a parameter or a constant of floats.
    pub(super) fn host(&self, id: ValueId) -> Result<(Vec<usize>, Vec<f32>), String> {
        let value = self.graph.value(id);
        let data = match &value.source {
            Source::Parameter => {
                let weight =
                    self.weights.get(&value.name).ok_or_else(|| format!("weight {} is missing", value.name))?;
                weight.to_vec().map_err(|e| e.to_string())?
            }
            Source::Constant(Constant::Float(v)) => v.to_vec(),
            _ => return Err(format!("value {} is computed, but here it must be a weight", value.name)),
        };
        Ok((value.kind.sizes().collect(), data))
    }

    /// Whether a value is a weight or a constant of floats.
    pub(super) fn is_host(&self, id: ValueId) -> bool {
        matches!(self.graph.value(id).source, Source::Parameter | Source::Constant(Constant::Float(_)))
    }

    /// Adds an initializer of f32.
    pub(super) fn floats(&mut self, what: &str, dims: &[usize], data: &[f32]) -> String {
        let name = self.free(&format!("{}/{what}", self.scope));
        self.initializers.push(float_tensor(&name, dims, data));
        name
    }

    /// Adds a single f32.
    pub(super) fn scalar(&mut self, v: f32) -> String {
        self.floats("constant", &[], &[v])
    }

    /// Whole numbers along one dimension.
    pub(super) fn ints(&mut self, v: &[i64]) -> String {
        self.whole(v, false)
    }

    /// One whole number, without dimensions.
    pub(super) fn int(&mut self, v: i64) -> String {
        self.whole(&[v], true)
    }

    fn whole(&mut self, v: &[i64], scalar: bool) -> String {
        if let Some(name) = self.ints.get(&(v.to_vec(), scalar)) {
            return name.clone();
        }
        let shown = v.iter().map(ToString::to_string).collect::<Vec<_>>().join("_");
        let name = self.free(&format!("{}_{shown}", if scalar { "int" } else { "ints" }));
        let dims: &[usize] = if scalar { &[] } else { &[v.len()] };
        let raw = v.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.initializers.push(tensor(&name, dims, element::INT64, raw));
        self.ints.insert((v.to_vec(), scalar), name.clone());
        name
    }

    /// Adds a node with so many outputs, and returns their names.
    pub(super) fn nodes(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: Vec<(&str, Attr<'_>)>,
        outputs: usize,
    ) -> Vec<String> {
        let outputs: Vec<String> = (0..outputs).map(|_| self.free(&format!("{}/{op}", self.scope))).collect();
        let given = inputs.iter().rposition(|i| !i.is_empty()).map_or(0, |n| n + 1);
        self.nodes.push(NodeProto {
            name: outputs[0].clone(),
            op_type: op.into(),
            input: inputs[..given].iter().map(|&s| s.to_owned()).collect(),
            output: outputs.clone(),
            attribute: attributes.into_iter().map(|(name, value)| attribute(name, value)).collect(),
            ..NodeProto::default()
        });
        outputs
    }

    /// Adds a node with one output.
    pub(super) fn node(&mut self, op: &str, inputs: &[&str], attributes: Vec<(&str, Attr<'_>)>) -> String {
        self.nodes(op, inputs, attributes, 1).swap_remove(0)
    }

    /// Adds a node without attributes.
    pub(super) fn op(&mut self, op: &str, inputs: &[&str]) -> String {
        self.node(op, inputs, Vec::new())
    }

    /// Exchanges or moves axes.
    pub(super) fn transpose(&mut self, x: &str, axes: &[i64]) -> String {
        self.node("Transpose", &[x], vec![("perm", Attr::Ints(axes))])
    }

    /// Elements `start..end` along an axis, every `step`-th.
    pub(super) fn slice(&mut self, x: &str, axis: i64, start: i64, end: i64, step: i64) -> String {
        let parts = [&[start][..], &[end], &[axis], &[step]].map(|v| self.ints(v));
        let [start, end, axis, by] = &parts;
        let inputs = [x, start, end, axis, by];
        self.op("Slice", if step == 1 { &inputs[..4] } else { &inputs })
    }

    /// Adds axes of size 1.
    pub(super) fn unsqueeze(&mut self, x: &str, axes: &[i64]) -> String {
        let axes = self.ints(axes);
        self.op("Unsqueeze", &[x, &axes])
    }

    /// Removes axes of size 1.
    pub(super) fn squeeze(&mut self, x: &str, axes: &[i64]) -> String {
        let axes = self.ints(axes);
        self.op("Squeeze", &[x, &axes])
    }

    /// Joins values along an axis; a single one stays as it is.
    pub(super) fn concat(&mut self, all: &[String], axis: i64) -> String {
        match all {
            [one] => one.clone(),
            _ => {
                let all: Vec<&str> = all.iter().map(String::as_str).collect();
                self.node("Concat", &all, vec![("axis", Attr::Int(axis))])
            }
        }
    }

    /// The nodes that `write` adds, as a graph of their own, which may use all values of this one.
    pub(super) fn subgraph(
        &mut self,
        inputs: Vec<ValueInfoProto>,
        write: impl FnOnce(&mut Self) -> Vec<ValueInfoProto>,
    ) -> GraphProto {
        let outer = std::mem::take(&mut self.nodes);
        let output = write(self);
        let node = std::mem::replace(&mut self.nodes, outer);
        let name = format!("{}/body", self.scope);
        GraphProto { node, name, input: inputs, output, ..GraphProto::default() }
    }

    /// The graph, without what no output depends on.
    pub(super) fn finish(mut self, name: &str) -> GraphProto {
        let mut needed: HashSet<String> = self.outputs.iter().map(|o| o.name.clone()).collect();
        let mut kept = Vec::new();
        for node in self.nodes.into_iter().rev() {
            if node.output.iter().any(|o| needed.contains(o)) {
                uses(&node, &mut needed);
                kept.push(node);
            }
        }
        kept.reverse();
        self.initializers.retain(|t| needed.contains(&t.name));
        GraphProto {
            node: kept,
            name: name.into(),
            initializer: self.initializers,
            input: self.inputs,
            output: self.outputs,
            sparse_initializer: Vec::new(),
        }
    }
}

/// Gives a value another name in a node and its graphs.
fn rename(node: &mut NodeProto, from: &str, to: &str) {
    node.input.iter_mut().chain(&mut node.output).filter(|n| *n == from).for_each(|n| *n = to.to_owned());
    for graph in node.attribute.iter_mut().filter_map(|a| a.g.as_mut()) {
        graph.output.iter_mut().filter(|o| o.name == from).for_each(|o| o.name = to.to_owned());
        graph.node.iter_mut().for_each(|n| rename(n, from, to));
    }
}

/// Adds the names of the values that a node and its graphs use.
fn uses(node: &NodeProto, into: &mut HashSet<String>) {
    into.extend(node.input.iter().cloned());
    for graph in node.attribute.iter().filter_map(|a| a.g.as_ref()) {
        into.extend(graph.output.iter().map(|o| o.name.clone()));
        graph.node.iter().for_each(|n| uses(n, into));
    }
}

fn constant(name: &str, dims: &[usize], c: &Constant) -> Result<(i32, TensorProto), String> {
    let whole = |v: &[i64]| v.iter().flat_map(|v| v.to_le_bytes()).collect();
    let (kind, raw) = match c {
        Constant::Float(v) => return Ok((element::FLOAT, float_tensor(name, dims, v))),
        Constant::Id(v) => (element::INT64, v.iter().flat_map(|&v| i64::from(v).to_le_bytes()).collect()),
        Constant::Int(Int::I64, v) => (element::INT64, whole(v)),
        Constant::Int(Int::I32, v) => (element::INT32, v.iter().flat_map(|&v| (v as i32).to_le_bytes()).collect()),
        Constant::Bool(v) => (element::BOOL, v.iter().map(|&v| u8::from(v != 0)).collect()),
        other => return Err(format!("a constant of {} cannot be written as ONNX", other.dtype())),
    };
    Ok((kind, tensor(name, dims, kind, raw)))
}
