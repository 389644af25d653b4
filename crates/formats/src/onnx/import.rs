//! From the messages of a file to a graph.

use super::node::Node;
use super::nodes;
use super::proto::{
    AttributeProto, DimensionValue, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    ValueInfoProto,
};
use super::tensor::{self, DataType};
use crate::files::short;
use core::fmt;
use recurve_graph::ops::{Cast, Target};
use recurve_graph::{Assembly, Constant, Dim, Element, Graph, Int, Operator, ValueId, ValueType};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

/// What of a file cannot be run, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The node's name; empty where the whole file is meant.
    pub node: String,
    /// Its operator.
    pub operator: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.node[..], &self.operator[..]) {
            ("", "") => f.write_str(&self.message),
            (node, operator) => write!(f, "node `{node}` ({operator}): {}", self.message),
        }
    }
}

/// Why a node cannot be run.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// In words that follow the node's name.
    Words(String),
    /// The graph refuses it.
    Graph(recurve_graph::Error),
    /// It needs a value that an earlier problem left out.
    Follows,
}

impl From<String> for Refusal {
    fn from(words: String) -> Self {
        Self::Words(words)
    }
}

impl From<&str> for Refusal {
    fn from(words: &str) -> Self {
        Self::Words(words.into())
    }
}

impl From<recurve_graph::Error> for Refusal {
    fn from(e: recurve_graph::Error) -> Self {
        Self::Graph(e)
    }
}

/// The result of bringing a node into the graph.
pub(crate) type Lowered<T = ()> = Result<T, Refusal>;

/// A graph that is being made: the file's own, or one inside a node.
struct Scope {
    assembly: Assembly,
    names: HashMap<String, ValueId>,
    /// Names whose maker was refused.
    missing: HashSet<String>,
    /// Of values that are floats, the type that the file gives them, where it is not float32.
    floats: HashMap<ValueId, DataType>,
    /// Values of the graph around this one that it uses, in the order of its last inputs.
    captured: Vec<ValueId>,
}

/// Brings nodes into a graph. Importers of operators see the values of the graph that they are in by their ids.
pub(crate) struct Context<'a> {
    /// The program that wrote the file.
    pub producer: &'a str,
    folder: Option<&'a Path>,
    functions: HashMap<(&'a str, &'a str, &'a str), &'a FunctionProto>,
    scopes: Vec<Scope>,
    /// Functions that are being inlined.
    calls: Vec<(String, String)>,
    fresh: usize,
    /// Graphs that take the place of their nodes, one in another.
    depth: usize,
    pub problems: Vec<Problem>,
    /// What a user should know of how the file is read.
    pub notes: Vec<String>,
}

/// Functions in functions, and graphs in graphs, at most.
const MAX_DEPTH: usize = 32;
/// Nodes of a file with its functions written out, at most.
const MAX_NODES: usize = 1 << 20;

/// The versions of ONNX's own operators that are read.
const OPSETS: core::ops::RangeInclusive<i64> = 7..=25;

/// What a file says beside its graph.
pub(crate) struct Imported {
    pub graph: Graph,
    /// The types of the inputs and outputs as the file has them.
    pub inputs: Vec<DataType>,
    pub outputs: Vec<DataType>,
    pub notes: Vec<String>,
}

/// The graph of a file.
///
/// # Errors
/// Everything that cannot be run.
pub(crate) fn import(model: &ModelProto, folder: Option<&Path>) -> Result<Imported, Vec<Problem>> {
    let whole = |message: &str| vec![Problem { node: String::new(), operator: String::new(), message: message.into() }];
    let graph = model.graph.as_ref().ok_or_else(|| whole("the file has no graph"))?;
    let key = |f: &'_ FunctionProto| (f.domain.clone(), f.name.clone(), f.overload.clone());
    let mut seen = HashSet::new();
    if let Some(twice) = model.functions.iter().find(|f| !seen.insert(key(f))) {
        return Err(whole(&format!("the function `{}` is defined twice", short(&twice.name))));
    }
    let functions = model.functions.iter().map(|f| ((domain(&f.domain), &f.name[..], &f.overload[..]), f)).collect();
    let mut cx = Context {
        producer: &model.producer_name,
        folder,
        functions,
        scopes: Vec::new(),
        calls: Vec::new(),
        fresh: 0,
        depth: 0,
        problems: Vec::new(),
        notes: Vec::new(),
    };
    let opsets = Opsets::of(&model.opset_import).map_err(|message| whole(&message))?;
    let made = cx.graph(graph, &opsets, None);
    match made {
        Some((graph_made, _)) if cx.problems.is_empty() => {
            let kinds = |infos: &[ValueInfoProto], names: &[String]| -> Vec<DataType> {
                let kind = |n: &String| infos.iter().find(|i| i.name == *n).and_then(|i| data_type(i).ok());
                names.iter().map(|n| kind(n).unwrap_or(DataType::Float)).collect()
            };
            let names = |ids: &[ValueId]| ids.iter().map(|id| graph_made.value(*id).name.clone()).collect::<Vec<_>>();
            let inputs = kinds(&graph.input, &names(graph_made.inputs()));
            let outs: Vec<String> = graph_made.outputs().iter().map(|(n, _)| n.clone()).collect();
            let outputs = kinds(&graph.output, &outs);
            Ok(Imported { inputs, outputs, notes: cx.notes, graph: graph_made })
        }
        _ => Err(cx.problems),
    }
}

/// ONNX's own operators have two names for their set.
fn domain(name: &str) -> &str {
    if name == "ai.onnx" { "" } else { name }
}

/// The versions of the operator sets that a graph or a function uses.
#[derive(Clone)]
pub(crate) struct Opsets(HashMap<String, i64>);

impl Opsets {
    fn of(imports: &[OperatorSetIdProto]) -> Result<Self, String> {
        let all: HashMap<String, i64> = imports.iter().map(|o| (domain(&o.domain).to_owned(), o.version)).collect();
        match all.get("") {
            Some(version) if !OPSETS.contains(version) => {
                Err(format!("the file uses operator set {version}, but those from 7 to 25 are supported"))
            }
            _ => Ok(Self(all)),
        }
    }
}

fn data_type(info: &ValueInfoProto) -> Result<DataType, String> {
    let tensor = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    DataType::of(tensor.ok_or("is no tensor, which is not supported")?.elem_type)
}

/// The type of an input of a graph.
pub(super) fn value_type(info: &ValueInfoProto) -> Result<ValueType, String> {
    let element = data_type(info)?.element();
    let shape = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()).and_then(|t| t.shape.as_ref());
    let Some(shape) = shape else { return Ok(ValueType::unranked(element)) };
    let dims = shape.dim.iter().map(|d| match &d.value {
        Some(DimensionValue::DimValue(n)) if *n > 0 => usize::try_from(*n).map(Dim::Size).map_err(|e| e.to_string()),
        // Whole numbers may be none: no axes, for example.
        Some(DimensionValue::DimValue(0)) if element.is_whole() => Ok(Dim::Size(0)),
        Some(DimensionValue::DimValue(0)) => Err("has a dimension of 0".into()),
        // Some writers say -1 of what is open.
        Some(DimensionValue::DimValue(_)) => Ok(Dim::Any),
        Some(DimensionValue::DimParam(name)) if !name.is_empty() => Ok(Dim::symbol(name)),
        _ => Ok(Dim::Any),
    });
    Ok(ValueType::new(element, dims.collect::<Result<Vec<_>, _>>()?))
}

/// A graph inside a node, and the values around it that it uses.
pub(crate) type Inner = (Graph, Vec<ValueId>);

impl<'a> Context<'a> {
    fn scope(&mut self) -> &mut Scope {
        self.scopes.last_mut().expect("inside a graph")
    }

    /// A graph; of one inside a node the types of the inputs are those given. `None` if there were problems, which
    /// have been noted.
    fn graph(&mut self, g: &GraphProto, opsets: &Opsets, inputs: Option<&[ValueType]>) -> Option<Inner> {
        let before = self.problems.len();
        self.scopes.push(Scope {
            assembly: Assembly::new(true),
            names: HashMap::new(),
            missing: HashSet::new(),
            floats: HashMap::new(),
            captured: Vec::new(),
        });
        if !g.sparse_initializer.is_empty() {
            self.whole("sparse initializers are not supported".into());
        }
        let initialized: HashSet<&str> = g.initializer.iter().map(|t| &t.name[..]).collect();
        for (n, info) in g.input.iter().filter(|i| inputs.is_some() || !initialized.contains(&i.name[..])).enumerate() {
            let kind = match inputs {
                Some(kinds) => kinds.get(n).cloned().ok_or_else(|| "is one too many".into()),
                None => value_type(info),
            };
            let id = kind.and_then(|k| self.scope().assembly.input(&info.name, k, false).map_err(|e| e.to_string()));
            match id {
                Ok(id) => {
                    self.scope().names.insert(info.name.clone(), id);
                    if let Ok(kind) = data_type(info) {
                        self.set_float(id, kind);
                    }
                }
                Err(message) => {
                    self.scope().missing.insert(info.name.clone());
                    self.whole(format!("input `{}` {message}", short(&info.name)));
                }
            }
        }
        for t in &g.initializer {
            let folder = self.folder;
            let made = tensor::constant(t, folder).and_then(|(dims, numbers)| {
                self.scope().assembly.constant(&t.name, &dims, numbers).map_err(|e| e.to_string())
            });
            match made {
                Ok(id) => {
                    self.scope().names.insert(t.name.clone(), id);
                    if let Ok(kind) = DataType::of(t.data_type) {
                        self.set_float(id, kind);
                    }
                }
                Err(message) => {
                    self.scope().missing.insert(t.name.clone());
                    self.whole(message);
                }
            }
        }
        for node in &g.node {
            self.node(node, node.attribute.clone(), opsets);
        }
        let mut outputs = Vec::new();
        for o in &g.output {
            match self.lookup(&o.name) {
                Some(id) => {
                    let rounded = self.rounded(&o.name, id, data_type(o).ok());
                    outputs.push((o.name.clone(), rounded));
                }
                None if self.scope().missing.contains(&o.name) => {}
                None => self.whole(format!("nothing makes the output `{}`", short(&o.name))),
            }
        }
        let scope = self.scopes.pop().expect("pushed above");
        if self.problems.len() > before {
            return None;
        }
        match scope.assembly.finish(outputs) {
            Ok(graph) => Some((graph, scope.captured)),
            Err(e) => {
                self.whole(e.to_string());
                None
            }
        }
    }

    /// Notes which type of floats the file gives a value.
    pub(crate) fn set_float(&mut self, id: ValueId, kind: DataType) {
        match kind {
            DataType::Float16 | DataType::BFloat16 | DataType::Double => drop(self.scope().floats.insert(id, kind)),
            _ => drop(self.scope().floats.remove(&id)),
        }
    }

    /// Which type of floats the file gives a value.
    pub(crate) fn float_of(&self, id: ValueId) -> DataType {
        self.scopes.last().and_then(|s| s.floats.get(&id)).copied().unwrap_or(DataType::Float)
    }

    /// The outputs of a node are floats as its first operand that is one, unless its importer has said otherwise.
    fn pass_floats_on(&mut self, proto: &NodeProto) {
        let ids = |cx: &Self, names: &[String]| -> Vec<ValueId> {
            let names = names.iter().filter_map(|n| cx.scopes.last().and_then(|s| s.names.get(n)).copied());
            names.filter(|id| cx.kind(*id).dtype.is_float()).collect()
        };
        let Some(first) = ids(self, &proto.input).first().copied() else { return };
        let kind = self.float_of(first);
        for id in ids(self, &proto.output) {
            if kind != DataType::Float && !self.scope().floats.contains_key(&id) {
                self.set_float(id, kind);
            }
        }
    }

    /// An output, rounded to its type in the file.
    fn rounded(&mut self, name: &str, id: ValueId, kind: Option<DataType>) -> ValueId {
        let to = match kind {
            Some(DataType::Float16) => Target::F16,
            Some(DataType::BFloat16) => Target::Bf16,
            _ => return id,
        };
        if !self.kind(id).dtype.is_float() || self.scopes.len() > 1 {
            return id;
        }
        let value = self.unused(self.scopes.len() - 1, name);
        let cast = Arc::new(Cast { from: Element::F32, to });
        match self.scope().assembly.node(name, cast, &[Some(id)], &[value]) {
            Ok(made) => made[0],
            Err(_) => id,
        }
    }

    /// Notes a problem of the whole file.
    fn whole(&mut self, message: String) {
        self.problems.push(Problem { node: String::new(), operator: String::new(), message });
    }

    /// A value by its name in the file, from here or from a graph around.
    fn lookup(&mut self, name: &str) -> Option<ValueId> {
        self.lookup_at(self.scopes.len() - 1, name)
    }

    fn lookup_at(&mut self, level: usize, name: &str) -> Option<ValueId> {
        if let Some(id) = self.scopes[level].names.get(name) {
            return Some(*id);
        }
        if level == 0 || self.scopes[level].missing.contains(name) {
            return None;
        }
        let outer = self.lookup_at(level - 1, name)?;
        let around = &self.scopes[level - 1].assembly;
        let kind = around.value(outer).kind.clone();
        let constant = around.constant_of(outer).cloned();
        let inner_name = self.unused(level, name);
        let scope = &mut self.scopes[level];
        let id = match constant {
            Some(numbers) => scope.assembly.constant(&inner_name, &kind.shape()?, numbers).ok()?,
            None => {
                scope.captured.push(outer);
                scope.assembly.input(&inner_name, kind, false).ok()?
            }
        };
        scope.names.insert(name.into(), id);
        if let Some(float) = self.scopes[level - 1].floats.get(&outer).copied() {
            self.scopes[level].floats.insert(id, float);
        }
        Some(id)
    }

    /// A name like this one that no value of a graph has.
    fn unused(&mut self, level: usize, like: &str) -> String {
        if self.scopes[level].assembly.find(like).is_none() && !like.is_empty() {
            return like.into();
        }
        loop {
            self.fresh += 1;
            let name = format!("{like}.{}", self.fresh);
            if self.scopes[level].assembly.find(&name).is_none() {
                return name;
            }
        }
    }

    /// Brings a node into the graph, or notes why it cannot be.
    fn node(&mut self, proto: &NodeProto, attributes: Vec<AttributeProto>, opsets: &Opsets) {
        let set = domain(&proto.domain);
        let refused = |cx: &mut Self, message: String| {
            let (node, operator) = (short(label(proto)), short(&proto.op_type));
            let operator = if set.is_empty() { operator } else { format!("{}.{operator}", short(set)) };
            cx.problems.push(Problem { node, operator, message });
        };
        self.fresh += 1;
        if self.fresh > MAX_NODES {
            if self.fresh == MAX_NODES + 1 {
                refused(self, format!("is one of more than {MAX_NODES} nodes, functions written out"));
            }
            return;
        }
        if let Some(function) = self.functions.get(&(set, &proto.op_type[..], &proto.overload[..])).copied() {
            if let Err(message) = self.inline(proto, function, &attributes) {
                self.forget(proto);
                refused(self, message);
            }
            return;
        }
        let Some(opset) = opsets.0.get(set).copied() else {
            self.forget(proto);
            return refused(self, format!("is of the operator set `{}`, which the file does not import", short(set)));
        };
        let node = Node::new(proto, attributes, opset);
        let lowered = nodes::lower(self, &node, opsets).and_then(|()| Ok(node.finish()?));
        let casts = set.is_empty() && matches!(&*proto.op_type, "Cast" | "CastLike" | "QuantizeLinear");
        if lowered.is_ok() && !casts {
            self.pass_floats_on(proto);
        }
        if let Err(e) = lowered {
            self.forget(proto);
            match e {
                Refusal::Words(message) => refused(self, message),
                Refusal::Graph(e) => {
                    let text = e.to_string();
                    // The problem names the node by itself.
                    let own = format!("node `{}` (", label(proto));
                    let text = match text.strip_prefix(&own).and_then(|t| t.split_once("): ")) {
                        Some((_, message)) => message.to_owned(),
                        None => text,
                    };
                    refused(self, text);
                }
                Refusal::Follows => {}
            }
        }
    }

    /// Later nodes that need this one's values are not problems of their own.
    fn forget(&mut self, proto: &NodeProto) {
        let outputs = proto.output.iter().filter(|o| !o.is_empty()).cloned();
        self.scope().missing.extend(outputs);
    }

    /// A call of a function: its nodes, with its names for their values.
    fn inline(
        &mut self,
        call: &NodeProto,
        function: &FunctionProto,
        attributes: &[AttributeProto],
    ) -> Result<(), String> {
        let key = (function.domain.clone(), function.name.clone());
        if self.calls.contains(&key) || self.calls.len() >= MAX_DEPTH {
            return Err("is a function that calls itself, or too deep in others".into());
        }
        if call.input.len() > function.input.len() || call.output.len() > function.output.len() {
            return Err(format!(
                "has {} inputs and {} outputs, but the function has {} and {}",
                call.input.len(),
                call.output.len(),
                function.input.len(),
                function.output.len()
            ));
        }
        let known = |a: &&AttributeProto| {
            function.attribute.contains(&a.name) || function.attribute_proto.iter().any(|d| d.name == a.name)
        };
        if let Some(unknown) = attributes.iter().find(|a| !known(a)) {
            return Err(format!("attribute `{}` is not one of the function's", short(&unknown.name)));
        }
        let opsets = Opsets::of(&function.opset_import)?;
        let mut inside = HashMap::new();
        for (formal, actual) in function.input.iter().zip(&call.input).filter(|(_, a)| !a.is_empty()) {
            match self.lookup(actual) {
                Some(id) => drop(inside.insert(formal.clone(), id)),
                None if self.scope().missing.contains(actual) => {
                    self.forget(call);
                    return Ok(());
                }
                None => return Err(format!("needs the value `{}`, which nothing makes", short(actual))),
            }
        }
        let around = core::mem::replace(&mut self.scope().names, inside);
        let lost = core::mem::take(&mut self.scope().missing);
        self.calls.push(key);
        for node in &function.node {
            let own = node.attribute.iter().filter_map(|a| {
                if a.ref_attr_name.is_empty() {
                    return Some(a.clone());
                }
                let given = attributes.iter().chain(&function.attribute_proto).find(|g| g.name == a.ref_attr_name);
                given.map(|g| AttributeProto { name: a.name.clone(), ..g.clone() })
            });
            self.node(node, own.collect(), &opsets);
        }
        self.calls.pop();
        let mut names = core::mem::replace(&mut self.scope().names, around);
        let inner = core::mem::replace(&mut self.scope().missing, lost);
        for (formal, actual) in function.output.iter().zip(&call.output).filter(|(_, a)| !a.is_empty()) {
            match names.remove(formal) {
                Some(id) => drop(self.scope().names.insert(actual.clone(), id)),
                None if inner.contains(formal) => drop(self.scope().missing.insert(actual.clone())),
                None => return Err(format!("nothing in the function makes `{}`", short(formal))),
            }
        }
        Ok(())
    }

    /// An input that must be there.
    ///
    /// # Errors
    /// If it is left out, or nothing makes it.
    pub(crate) fn input(&mut self, node: &Node<'_>, index: usize) -> Lowered<ValueId> {
        self.optional(node, index)?.ok_or_else(|| format!("input {index} is missing").into())
    }

    /// An input that may be left out.
    ///
    /// # Errors
    /// If nothing makes it.
    pub(crate) fn optional(&mut self, node: &Node<'_>, index: usize) -> Lowered<Option<ValueId>> {
        let Some(name) = node.inputs().get(index).filter(|n| !n.is_empty()) else { return Ok(None) };
        match self.lookup(name) {
            Some(id) => Ok(Some(id)),
            None if self.scopes.iter().any(|s| s.missing.contains(name)) => Err(Refusal::Follows),
            None => Err(format!("needs the value `{}`, which nothing before it makes", short(name)).into()),
        }
    }

    /// All inputs.
    ///
    /// # Errors
    /// If nothing makes one.
    pub(crate) fn inputs(&mut self, node: &Node<'_>) -> Lowered<Vec<Option<ValueId>>> {
        (0..node.inputs().len()).map(|n| self.optional(node, n)).collect()
    }

    /// The type of a value.
    pub(crate) fn kind(&self, id: ValueId) -> &ValueType {
        &self.scopes.last().expect("inside a graph").assembly.value(id).kind
    }

    /// The numbers of a value that is a constant.
    pub(crate) fn constant_of(&self, id: ValueId) -> Option<&Constant> {
        self.scopes.last().expect("inside a graph").assembly.constant_of(id)
    }

    /// A new constant.
    ///
    /// # Errors
    /// If its numbers do not fit its dimensions.
    pub(crate) fn constant(&mut self, dims: &[usize], numbers: Constant) -> Lowered<ValueId> {
        let name = self.unused(self.scopes.len() - 1, "constant");
        Ok(self.scope().assembly.constant(&name, dims, numbers)?)
    }

    /// New integers along one dimension.
    ///
    /// # Errors
    /// None that can occur.
    pub(crate) fn ints(&mut self, numbers: &[i64]) -> Lowered<ValueId> {
        self.constant(&[numbers.len()], Constant::Int(Int::I64, numbers.into()))
    }

    /// A new float without dimensions.
    ///
    /// # Errors
    /// None that can occur.
    pub(crate) fn float(&mut self, number: f32) -> Lowered<ValueId> {
        self.constant(&[], Constant::Float([number].into()))
    }

    /// Refuses floats without elements as an operand of an operator that computes with them.
    fn refuse_empty(&self, operator: &dyn Operator, ids: &[Option<ValueId>]) -> Lowered {
        if matches!(operator.name(), "Shape" | "Size" | "If" | "Loop" | "Scan") {
            return Ok(());
        }
        let empty = |id: &&ValueId| {
            let kind = self.kind(**id);
            kind.dtype.is_float() && kind.dims.contains(&Dim::Size(0))
        };
        match ids.iter().flatten().find(empty) {
            None => Ok(()),
            Some(id) => {
                let value = self.scopes.last().expect("inside a graph").assembly.value(*id);
                let (name, kind) = (short(&value.name), &value.kind);
                Err(format!("needs `{name}`, {kind}: floats without elements are not supported").into())
            }
        }
    }

    /// A new value by an operator, on the way to what the node gives.
    ///
    /// # Errors
    /// If the operator refuses its operands.
    pub(crate) fn emit(
        &mut self,
        node: &Node<'_>,
        operator: impl Operator + 'static,
        inputs: &[Option<ValueId>],
    ) -> Lowered<ValueId> {
        self.refuse_empty(&operator, inputs)?;
        let name = self.unused(self.scopes.len() - 1, node.label());
        Ok(self.scope().assembly.node(node.label(), Arc::new(operator), inputs, &[name])?[0])
    }

    /// What the node gives, by an operator with these inputs.
    ///
    /// # Errors
    /// If the operator refuses its operands.
    pub(crate) fn outputs(
        &mut self,
        node: &Node<'_>,
        operator: impl Operator + 'static,
        inputs: &[Option<ValueId>],
    ) -> Lowered {
        self.refuse_empty(&operator, inputs)?;
        let level = self.scopes.len() - 1;
        let mut names = Vec::new();
        for o in node.outputs() {
            let name = if o.is_empty() { "unused" } else { o };
            let mut name = self.unused(level, name);
            // Of one node, none of which is in the graph yet.
            while names.contains(&name) {
                self.fresh += 1;
                name = format!("{o}.{}", self.fresh);
            }
            names.push(name);
        }
        let made = self.scope().assembly.node(node.label(), Arc::new(operator), inputs, &names)?;
        made.into_iter().enumerate().try_for_each(|(n, id)| self.bind(node, n, id))
    }

    /// Says that output `index` of the node is this value.
    ///
    /// # Errors
    /// If the name is taken.
    pub(crate) fn bind(&mut self, node: &Node<'_>, index: usize, id: ValueId) -> Lowered {
        let Some(name) = node.outputs().get(index).filter(|o| !o.is_empty()) else { return Ok(()) };
        match self.scope().names.insert(name.clone(), id) {
            None => Ok(()),
            Some(_) => Err(format!("makes `{}`, which is there already", short(name)).into()),
        }
    }

    /// The nodes of a graph in place of the node that it belongs to, whose outputs are then the graph's.
    ///
    /// # Errors
    /// If nothing makes an output.
    pub(crate) fn unfolded(&mut self, node: &Node<'_>, g: &GraphProto, opsets: &Opsets) -> Lowered {
        if self.depth >= MAX_DEPTH {
            return Err(format!("is more than {MAX_DEPTH} graphs deep").into());
        }
        let around = self.scope().names.clone();
        for t in &g.initializer {
            let (dims, numbers) = tensor::constant(t, self.folder)?;
            let id = self.constant(&dims, numbers)?;
            self.scope().names.insert(t.name.clone(), id);
        }
        self.depth += 1;
        for inner in &g.node {
            self.node(inner, inner.attribute.clone(), opsets);
        }
        self.depth -= 1;
        let found: Vec<_> = g.output.iter().map(|o| self.lookup(&o.name)).collect();
        self.scope().names = around;
        for (n, (id, o)) in found.into_iter().zip(&g.output).enumerate() {
            match id {
                Some(id) => self.bind(node, n, id)?,
                None if self.scope().missing.contains(&o.name) => return Err(Refusal::Follows),
                None => return Err(format!("has a graph in which nothing makes `{}`", short(&o.name)).into()),
            }
        }
        Ok(())
    }

    /// A graph of this node, with the types of its own inputs, and the values of this graph that it uses: they come
    /// after its own inputs.
    ///
    /// # Errors
    /// If something in it cannot be run, which has been noted.
    pub(crate) fn inner(&mut self, g: &GraphProto, opsets: &Opsets, inputs: &[ValueType]) -> Lowered<Inner> {
        if self.scopes.len() >= MAX_DEPTH {
            return Err(format!("is more than {MAX_DEPTH} graphs deep").into());
        }
        if g.input.len() != inputs.len() {
            return Err(format!("has a graph with {} inputs, expected {}", g.input.len(), inputs.len()).into());
        }
        self.graph(g, opsets, Some(inputs)).ok_or(Refusal::Follows)
    }
}

/// What a node is called: its name, or that of its first output.
fn label(proto: &NodeProto) -> &str {
    if proto.name.is_empty() { proto.output.iter().find(|o| !o.is_empty()).map_or("", |o| o) } else { &proto.name }
}
