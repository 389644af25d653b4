//! Values, nodes, graphs, and the builder of graphs.

use crate::operator::Slot;
use crate::{
    Array, Call, Data, Element, Error, Fault, Int, IntArray, Kept, Operator, Outputs, Result, RunOptions, ValueType,
};
use recurve_tensor::{DType, Device, Tensor};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

/// Identifies a value of a graph. What a value is computed from is less than it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub(crate) usize);

/// Whole numbers whose values a type knows, at most: of shapes, indices and the like.
const MAX_KNOWN: usize = 1024;

/// A constant with its dimensions.
type Folded = (Vec<usize>, Constant);

/// Elements of what is computed before a run, at most.
const MAX_FOLDED: usize = 1 << 24;

/// Numbers that stand in the graph itself.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Constant {
    /// Elements of type f32.
    Float(Arc<[f32]>),
    /// Elements of type u32.
    Id(Arc<[u32]>),
    /// whole numbers of a type
    Int(Int, Arc<[i64]>),
    /// truth values, 0 and 1
    Bool(Arc<[i64]>),
}

impl Constant {
    /// The element type.
    pub const fn dtype(&self) -> Element {
        match self {
            Self::Float(_) => Element::F32,
            Self::Id(_) => Element::U32,
            Self::Int(int, _) => Element::Int(*int),
            Self::Bool(_) => Element::Bool,
        }
    }

    /// The numbers in this shape.
    pub(crate) fn data(&self, dims: &[usize], device: &Device) -> recurve_tensor::Result<Data> {
        Ok(match self {
            Self::Float(v) => Tensor::from_f32(v, dims, device)?.into(),
            Self::Id(v) => Tensor::from_u32(v, dims, device)?.into(),
            Self::Int(_, v) | Self::Bool(v) => IntArray::new(dims, v.clone()).into(),
        })
    }

    /// What stands at a value of this element type, as a constant.
    ///
    /// # Errors
    /// Those of reading a tensor.
    pub(crate) fn of(data: &Data, dtype: Element) -> recurve_tensor::Result<Self> {
        Ok(match (dtype, data) {
            (Element::Int(int), _) => Self::Int(int, data.to_ints()?.data().into()),
            (Element::Bool, _) => Self::Bool(data.to_ints()?.data().into()),
            (_, Data::Tensor(t)) if t.dtype() == DType::U32 => Self::Id(t.to_vec_u32()?.into()),
            (_, data) => Self::Float(data.to_f32(&Device::Cpu)?.to_vec()?.into()),
        })
    }

    /// The numbers in f64.
    pub(crate) fn array(&self, dims: &[usize]) -> Array {
        let data = match self {
            Self::Float(v) => v.iter().map(|&v| v.into()).collect(),
            Self::Id(v) => v.iter().map(|&v| v.into()).collect(),
            Self::Int(_, v) | Self::Bool(v) => v.iter().map(|&v| v as f64).collect(),
        };
        Array::new(dims, data)
    }

    /// What a type knows of the numbers.
    pub(crate) fn known(&self, rank: usize) -> Option<Vec<Option<i64>>> {
        match self {
            Self::Int(_, v) | Self::Bool(v) if rank <= 1 && v.len() <= MAX_KNOWN => {
                Some(v.iter().copied().map(Some).collect())
            }
            _ => None,
        }
    }

    /// Number of elements.
    pub fn count(&self) -> usize {
        match self {
            Self::Float(v) => v.len(),
            Self::Id(v) => v.len(),
            Self::Int(_, v) | Self::Bool(v) => v.len(),
        }
    }
}

/// What defines a value.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Source {
    /// An input of the graph; the number is its index in [`Graph::inputs`].
    Input(usize),
    /// A weight, which the executor looks up by the value's name.
    Parameter,
    /// A constant, stored in the graph.
    Constant(Constant),
    /// An output of a node.
    Node {
        /// The index of the node.
        node: usize,
        /// The index of the output among the node's outputs.
        output: usize,
    },
}

/// A named value.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Value {
    /// Its name, unique in the graph.
    pub name: String,
    /// Its element type and shape.
    pub kind: ValueType,
    /// What defines it.
    pub source: Source,
    /// Whether it is an input that callers may leave out.
    pub optional: bool,
}

/// An operator with its operands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Node {
    /// Its name, which errors quote.
    pub name: String,
    /// The operator.
    pub operator: Arc<dyn Operator>,
    /// Its inputs; `None` where one is left out.
    pub inputs: Vec<Option<ValueId>>,
    /// Its outputs.
    pub outputs: Vec<ValueId>,
}

/// A checked graph: every node comes after the nodes that it depends on, and all types fit.
#[derive(Clone, Debug)]
pub struct Graph {
    pub(crate) values: Vec<Value>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) inputs: Vec<ValueId>,
    pub(crate) outputs: Vec<(String, ValueId)>,
}

impl Graph {
    /// The nodes; each comes after the nodes that it depends on.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A value by its id.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0]
    }

    /// Every value.
    pub fn values(&self) -> impl Iterator<Item = (ValueId, &Value)> {
        self.values.iter().enumerate().map(|(n, v)| (ValueId(n), v))
    }

    /// The value with this name, if there is one.
    pub fn find(&self, name: &str) -> Option<ValueId> {
        self.values.iter().position(|v| v.name == name).map(ValueId)
    }

    /// The inputs, in the order in which runs take them.
    pub fn inputs(&self) -> &[ValueId] {
        &self.inputs
    }

    /// The outputs, each with the name it has for callers.
    pub fn outputs(&self) -> &[(String, ValueId)] {
        &self.outputs
    }

    /// The values that are parameters.
    pub fn parameters(&self) -> impl Iterator<Item = &Value> {
        self.values.iter().filter(|v| v.source == Source::Parameter)
    }

    /// The indices of the nodes that use a value.
    pub fn users(&self, id: ValueId) -> impl Iterator<Item = usize> {
        let uses = move |n: &Node| n.inputs.contains(&Some(id));
        self.nodes.iter().enumerate().filter(move |(_, n)| uses(n)).map(|(n, _)| n)
    }

    /// For each node whether one of these values depends on it, directly or through other nodes.
    pub(crate) fn needed(&self, values: impl IntoIterator<Item = ValueId>) -> Vec<bool> {
        let mut needed = vec![false; self.nodes.len()];
        let mut open: Vec<ValueId> = values.into_iter().collect();
        while let Some(v) = open.pop() {
            if let Source::Node { node, .. } = self.values[v.0].source
                && !needed[node]
            {
                needed[node] = true;
                open.extend(self.nodes[node].inputs.iter().flatten());
            }
        }
        needed
    }

    /// Computes every value in f64 with the operators' references; `None` where an optional input was left out.
    /// `inputs` are in the order of [`Self::inputs`].
    ///
    /// # Errors
    /// [`Error::Input`] if a required input is missing or does not fit its type, [`Error::MissingParameter`].
    #[cfg(feature = "reference")]
    pub fn reference(
        &self,
        inputs: &[Option<Array>],
        parameter: impl Fn(&str) -> Option<Array>,
    ) -> Result<Vec<Option<Array>>> {
        let mut all: Vec<Option<Array>> = Vec::with_capacity(self.values.len());
        for value in &self.values {
            all.push(match &value.source {
                Source::Input(n) => {
                    let given = inputs.get(*n).cloned().flatten();
                    if !given.as_ref().map_or(value.optional, |a| value.kind.has_dims(&a.dims)) {
                        let got = given.map_or_else(|| "missing".into(), |a| format!("{:?}", a.dims));
                        return Err(Error::Input { name: value.name.clone(), expected: value.kind.to_string(), got });
                    }
                    given
                }
                Source::Parameter => {
                    let missing = || Error::MissingParameter { name: value.name.clone() };
                    Some(parameter(&value.name).ok_or_else(missing)?)
                }
                Source::Constant(c) => {
                    let dims: Vec<usize> = value.kind.sizes().collect();
                    Some(c.array(&dims))
                }
                Source::Node { .. } => None,
            });
        }
        for node in &self.nodes {
            let operands: Vec<_> = node.inputs.iter().map(|i| i.and_then(|i| all[i.0].as_ref())).collect();
            if !complete(node, |i| operands[i].is_some()) {
                continue;
            }
            let results = node.operator.reference(&operands);
            for (&id, result) in node.outputs.iter().zip(results) {
                all[id.0] = result;
            }
        }
        Ok(all)
    }
}

/// Whether all required inputs of a node are given.
pub(crate) fn complete(node: &Node, given: impl Fn(usize) -> bool) -> bool {
    let slots = node.operator.slots();
    (0..node.inputs.len()).all(|i| slots[i.min(slots.len() - 1)].is_optional() || given(i))
}

/// A node of the builder, which refers to values by name.
#[derive(Clone, Debug)]
struct Draft {
    name: String,
    operator: Arc<dyn Operator>,
    inputs: Vec<Option<String>>,
    outputs: Vec<String>,
}

#[derive(Clone, Debug)]
struct Given {
    name: String,
    kind: ValueType,
    source: Source,
    optional: bool,
}

/// Collects values and nodes in any order and builds a [`Graph`] from them.
///
/// ```
/// use recurve_graph::{GraphBuilder, ValueType, ops};
/// use recurve_tensor::{Activation, DType};
/// # fn main() -> Result<(), recurve_graph::Error> {
/// let mut g = GraphBuilder::new();
/// g.input("x", ValueType::new(DType::F32, [None, Some(3)]));
/// g.parameter("w", &[3, 2]);
/// g.node("product", ops::MatMul, &["x", "w"], &["p"]);
/// g.node("relu", ops::Activate(Activation::Relu), &["p"], &["y"]);
/// g.output("y", "y");
/// let graph = g.build()?;
/// assert_eq!(graph.value(graph.outputs()[0].1).kind.to_string(), "f32 [?, 2]");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct GraphBuilder {
    given: Vec<Given>,
    nodes: Vec<Draft>,
    outputs: Vec<(String, String)>,
}

impl GraphBuilder {
    /// A builder with no values and no nodes.
    pub fn new() -> Self {
        Self::default()
    }

    fn give(&mut self, name: &str, kind: ValueType, source: Source, optional: bool) {
        self.given.push(Given { name: name.into(), kind, source, optional });
    }

    /// Adds an input.
    pub fn input(&mut self, name: &str, kind: ValueType) {
        self.give(name, kind, Source::Input(0), false);
    }

    /// Adds an input that callers may leave out. If they do, a node that requires it does not run, and its outputs do
    /// not exist either.
    pub fn optional_input(&mut self, name: &str, kind: ValueType) {
        self.give(name, kind, Source::Input(0), true);
    }

    /// Adds a parameter of f32. Adding the same parameter again has no effect.
    pub fn parameter(&mut self, name: &str, dims: &[usize]) {
        let kind = ValueType::new(DType::F32, dims.iter().copied());
        let again = |g: &Given| g.name == name && g.source == Source::Parameter && g.kind == kind;
        if !self.given.iter().any(again) {
            self.give(name, kind, Source::Parameter, false);
        }
    }

    /// Adds a constant.
    pub fn constant(&mut self, name: &str, dims: &[usize], numbers: Constant) {
        let kind = ValueType::new(numbers.dtype(), dims.iter().copied()).with_known(numbers.known(dims.len()));
        self.give(name, kind, Source::Constant(numbers), false);
    }

    /// Adds a node. An empty input name leaves out an optional input.
    pub fn node(&mut self, name: &str, operator: impl Operator + 'static, inputs: &[&str], outputs: &[&str]) {
        self.nodes.push(Draft {
            name: name.into(),
            operator: Arc::new(operator),
            inputs: inputs.iter().map(|&i| (!i.is_empty()).then(|| i.to_owned())).collect(),
            outputs: outputs.iter().map(|&o| o.to_owned()).collect(),
        });
    }

    /// Makes a value an output of the graph, called `name`.
    pub fn output(&mut self, name: &str, value: &str) {
        self.outputs.push((name.into(), value.into()));
    }

    /// Checks everything that was added and builds the graph.
    ///
    /// # Errors
    /// [`Error::Duplicate`] if two values have one name, [`Error::MissingValue`], [`Error::Cycle`],
    /// [`Error::Arity`], [`Error::Operand`] and [`Error::Attribute`] with the node's name, and
    /// [`Error::NoOutputs`].
    pub fn build(self) -> Result<Graph> {
        self.assemble(false)
    }

    /// [`Self::build`], in which nodes whose outputs depend on constants and known shapes alone are computed at once
    /// and become constants, so that the types of later nodes may depend on their elements.
    ///
    /// # Errors
    /// As [`Self::build`]; [`Error::Run`] if such a node cannot be computed.
    pub fn build_folded(self) -> Result<Graph> {
        self.assemble(true)
    }

    fn assemble(self, fold: bool) -> Result<Graph> {
        let Self { given, nodes, outputs } = self;
        if outputs.is_empty() {
            return Err(Error::NoOutputs);
        }
        // What defines each name.
        let mut makers: HashMap<&str, Option<usize>> = HashMap::new();
        let label =
            |maker: Option<usize>| maker.map_or("the graph's inputs".into(), |n| format!("`{}`", nodes[n].name));
        let made = given.iter().map(|g| (&*g.name, None));
        let made =
            made.chain(nodes.iter().enumerate().flat_map(|(n, d)| d.outputs.iter().map(move |o| (&**o, Some(n)))));
        for (name, maker) in made {
            if let Some(first) = makers.insert(name, maker) {
                return Err(Error::Duplicate { value: name.into(), first: label(first), second: label(maker) });
            }
        }
        let maker = |value: &str, user: &str| {
            makers.get(value).copied().ok_or_else(|| Error::MissingValue { user: user.into(), value: value.into() })
        };
        for (_, value) in &outputs {
            maker(value, "the graph")?;
        }
        let order = order(&nodes, maker)?;

        let mut assembly = Assembly::new(fold);
        for g in given {
            assembly.give(g.name, g.kind, g.source, g.optional)?;
        }
        for n in order {
            let draft = &nodes[n];
            let find = |i: &String| assembly.find(i).expect("its maker comes before it");
            let inputs: Vec<_> = draft.inputs.iter().map(|i| i.as_ref().map(find)).collect();
            assembly.node(&draft.name, draft.operator.clone(), &inputs, &draft.outputs)?;
        }
        let find = |value: &str| assembly.find(value).expect("made, as was checked");
        let outputs = outputs.into_iter().map(|(name, value)| (name, find(&value))).collect();
        assembly.finish(outputs)
    }
}

/// A graph that grows node by node, each after those that it needs, so that the types of values are known as soon
/// as they are made.
#[derive(Clone, Debug)]
pub struct Assembly {
    graph: Graph,
    names: HashMap<String, ValueId>,
    fold: bool,
}

impl Assembly {
    /// Nothing yet. With `fold` nodes whose outputs depend on constants and known shapes alone are computed at once.
    pub fn new(fold: bool) -> Self {
        let graph = Graph { values: Vec::new(), nodes: Vec::new(), inputs: Vec::new(), outputs: Vec::new() };
        Self { graph, names: HashMap::new(), fold }
    }

    /// The nodes so far.
    pub fn nodes(&self) -> &[Node] {
        &self.graph.nodes
    }

    /// How many values there are so far.
    pub(crate) fn count(&self) -> usize {
        self.graph.values.len()
    }

    /// The value with this name.
    pub fn find(&self, name: &str) -> Option<ValueId> {
        self.names.get(name).copied()
    }

    /// A value.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.graph.values[id.0]
    }

    /// The numbers of a value that is a constant.
    pub fn constant_of(&self, id: ValueId) -> Option<&Constant> {
        match &self.graph.values[id.0].source {
            Source::Constant(c) => Some(c),
            _ => None,
        }
    }

    fn add(&mut self, name: String, kind: ValueType, source: Source, optional: bool) -> Result<ValueId> {
        let id = ValueId(self.graph.values.len());
        let label = |g: &Graph, source: &Source| match source {
            Source::Node { node, .. } => g.nodes.get(*node).map_or("this node".into(), |n| format!("`{}`", n.name)),
            _ => "the graph's inputs".into(),
        };
        if let Some(first) = self.names.get(&name) {
            let (first, second) = (&self.graph.values[first.0].source, &source);
            let (first, second) = (label(&self.graph, first), label(&self.graph, second));
            return Err(Error::Duplicate { value: name, first, second });
        }
        self.names.insert(name.clone(), id);
        self.graph.values.push(Value { name, kind, source, optional });
        Ok(id)
    }

    fn give(&mut self, name: String, kind: ValueType, source: Source, optional: bool) -> Result<ValueId> {
        let source = match source {
            Source::Input(_) => Source::Input(self.graph.inputs.len()),
            Source::Constant(c) => {
                let count: usize = kind.sizes().product();
                if count != c.count() {
                    let expected = format!("of {count} elements for its shape");
                    return Err(Error::Input { name, expected, got: format!("of {}", c.count()) });
                }
                Source::Constant(c)
            }
            other => other,
        };
        let input = matches!(source, Source::Input(_));
        let id = self.add(name, kind, source, optional)?;
        if input {
            self.graph.inputs.push(id);
        }
        Ok(id)
    }

    /// A value that the caller gives.
    ///
    /// # Errors
    /// [`Error::Duplicate`].
    pub fn input(&mut self, name: &str, kind: ValueType, optional: bool) -> Result<ValueId> {
        self.give(name.into(), kind, Source::Input(0), optional)
    }

    /// Numbers that stand in the graph itself.
    ///
    /// # Errors
    /// [`Error::Duplicate`]; [`Error::Input`] if there are more or fewer than the shape has.
    pub fn constant(&mut self, name: &str, dims: &[usize], numbers: Constant) -> Result<ValueId> {
        let kind = ValueType::new(numbers.dtype(), dims.iter().copied()).with_known(numbers.known(dims.len()));
        self.give(name.into(), kind, Source::Constant(numbers), false)
    }

    /// A node with its outputs, in the order of their names.
    ///
    /// # Errors
    /// [`Error::Arity`], [`Error::Operand`] and [`Error::Attribute`] with the node's name, [`Error::Duplicate`];
    /// [`Error::Run`] if a node of constants cannot be computed.
    pub fn node(
        &mut self,
        name: &str,
        operator: Arc<dyn Operator>,
        inputs: &[Option<ValueId>],
        outputs: &[String],
    ) -> Result<Vec<ValueId>> {
        let kinds = self.graph.types(name, &*operator, inputs, outputs.len())?;
        let folded =
            if self.fold { self.graph.folded(name, &*operator, inputs, &kinds[..outputs.len()])? } else { None };
        if let Some(constants) = folded {
            let constants = outputs.iter().zip(kinds).zip(constants).map(|((name, kind), (dims, numbers))| {
                let known = numbers.known(dims.len());
                let kind = ValueType::new(kind.dtype, dims).with_known(known);
                self.add(name.clone(), kind, Source::Constant(numbers), false)
            });
            return constants.collect();
        }
        let node = self.graph.nodes.len();
        let made = outputs
            .iter()
            .zip(kinds)
            .enumerate()
            .map(|(output, (name, kind))| self.add(name.clone(), kind, Source::Node { node, output }, false));
        let made = made.collect::<Result<Vec<_>>>()?;
        let (name, inputs) = (name.into(), inputs.to_vec());
        self.graph.nodes.push(Node { name, operator, inputs, outputs: made.clone() });
        Ok(made)
    }

    /// The graph with its outputs, by the names under which they come out. Constants that nothing uses are dropped.
    ///
    /// # Errors
    /// [`Error::NoOutputs`].
    pub fn finish(self, outputs: Vec<(String, ValueId)>) -> Result<Graph> {
        let Self { mut graph, .. } = self;
        if outputs.is_empty() {
            return Err(Error::NoOutputs);
        }
        graph.outputs = outputs;
        graph.forget_unused();
        Ok(graph)
    }
}

impl Graph {
    /// Drops the numbers of constants that nothing uses.
    pub(crate) fn forget_unused(&mut self) {
        let mut used = vec![false; self.values.len()];
        let inputs = self.nodes.iter().flat_map(|n| n.inputs.iter().flatten());
        inputs.chain(self.outputs.iter().map(|(_, id)| id)).for_each(|id| used[id.0] = true);
        for (value, used) in self.values.iter_mut().zip(used) {
            if let (Source::Constant(c), false) = (&mut value.source, used) {
                *c = Constant::Float([].into());
                value.kind = ValueType::new(Element::F32, [0usize]);
            }
        }
    }

    /// What a node's outputs are, if constants and what types know of elements say it.
    fn folded(
        &self,
        name: &str,
        operator: &dyn Operator,
        inputs: &[Option<ValueId>],
        kinds: &[ValueType],
    ) -> Result<Option<Vec<Folded>>> {
        let known = |kind: &ValueType| {
            let (dims, content) = (kind.shape()?, kind.content()?);
            match kind.dtype {
                Element::Int(int) => Some((dims, Constant::Int(int, content.into()))),
                Element::Bool => Some((dims, Constant::Bool(content.into()))),
                _ => None,
            }
        };
        if let Some(all) = kinds.iter().map(known).collect() {
            return Ok(Some(all));
        }
        let least: usize = kinds.iter().map(|k| k.sizes().fold(1usize, usize::saturating_mul)).sum();
        if inputs.iter().all(Option::is_none) && kinds.iter().any(|k| k.shape().is_none()) || least > MAX_FOLDED {
            return Ok(None);
        }
        let Some(outputs) = self.computed(name, operator, inputs, kinds.len())? else {
            return Ok(None);
        };
        let constants = kinds.iter().zip(outputs).map(|(kind, output)| match output {
            Some(data) => Ok(Some((data.dims().to_vec(), Constant::of(&data, kind.dtype)?))),
            None => Ok(None),
        });
        constants.collect()
    }

    /// What a node gives if its inputs are all constants; `None` otherwise.
    pub(crate) fn computed(
        &self,
        name: &str,
        operator: &dyn Operator,
        inputs: &[Option<ValueId>],
        outputs: usize,
    ) -> Result<Option<Outputs>> {
        let constant = |id: &ValueId| matches!(self.values[id.0].source, Source::Constant(_));
        let packs = operator.host_inputs().is_some() && !operator.takes_any_weights();
        let folds = !packs && operator.subgraphs().is_empty() && operator.is_pure();
        if !folds || !inputs.iter().flatten().all(constant) {
            return Ok(None);
        }
        let operands = inputs.iter().map(|i| i.map(|i| self.constant(i)).transpose());
        let operands = operands.collect::<Result<Vec<_>>>()?;
        let slots = operator.slots();
        if (0..inputs.len()).any(|i| operands[i].is_none() && !slots[i.min(slots.len() - 1)].is_optional()) {
            return Ok(None);
        }
        let operands: Vec<_> = operands.iter().map(Option::as_ref).collect();
        let (wanted, options) = (vec![true; outputs], RunOptions::default());
        let call = Call {
            inputs: &operands,
            wanted: &wanted,
            packed: None,
            subgraphs: &[],
            device: &Device::Cpu,
            options: &options,
            own: RefCell::default(),
            kept: &Kept::default(),
        };
        let run = |source| Error::Run { node: name.into(), operator: operator.name(), source };
        operator.run(&call).map(Some).map_err(run)
    }

    /// A constant on the CPU.
    fn constant(&self, id: ValueId) -> Result<Data> {
        let value = &self.values[id.0];
        let dims: Vec<usize> = value.kind.sizes().collect();
        let Source::Constant(numbers) = &value.source else { unreachable!("only asked of constants") };
        Ok(numbers.data(&dims, &Device::Cpu)?)
    }

    /// The types of a node's outputs, if its inputs fit.
    pub(crate) fn types(
        &self,
        name: &str,
        what: &dyn Operator,
        inputs: &[Option<ValueId>],
        outputs: usize,
    ) -> Result<Vec<ValueType>> {
        let operator = what.name();
        let (node, slots) = (name.to_owned(), what.slots());
        let many = matches!(slots.last(), Some(Slot::Many(_) | Slot::Rest(_)));
        let least = slots.iter().rposition(|s| !s.is_optional()).map_or(0, |n| n + 1);
        if inputs.len() < least || (!many && inputs.len() > slots.len()) {
            let expected = match many {
                true => format!("at least {least}"),
                false if least == slots.len() => least.to_string(),
                false => format!("{least} to {}", slots.len()),
            };
            return Err(Error::Arity { node, operator, what: "inputs", expected, got: inputs.len() });
        }
        let slot = |i: usize| slots[i.min(slots.len() - 1)];
        let operand = |i: usize, expected: String, got: String| {
            Err(Error::Operand { node: node.clone(), operator, input: slot(i).name(), expected, got })
        };
        let described = |i: usize| match inputs.get(i).copied().flatten() {
            Some(id) => format!("`{}`, {}", self.values[id.0].name, self.values[id.0].kind),
            None => "left out".into(),
        };
        for (i, input) in inputs.iter().enumerate() {
            if input.is_none() && !slot(i).is_optional() {
                return operand(i, "given".into(), "left out".into());
            }
            let packed = !what.takes_any_weights() && what.host_inputs().is_some_and(|first| i >= first);
            if let Some(id) = input
                && packed
                && !matches!(self.values[id.0].source, Source::Parameter | Source::Constant(_))
            {
                return operand(i, "a parameter or a constant".into(), described(i));
            }
        }
        let kinds: Vec<_> = inputs.iter().map(|i| i.map(|i| &self.values[i.0].kind)).collect();
        let types = match what.output_types(&kinds) {
            Ok(types) => types,
            Err(Fault::Input(i, expected)) => return operand(i, expected, described(i)),
            Err(Fault::Attribute(attribute, message)) => {
                return Err(Error::Attribute { node, operator, attribute, message });
            }
        };
        if outputs > types.len() || outputs == 0 {
            let expected = if types.len() == 1 { "1".into() } else { format!("1 to {}", types.len()) };
            return Err(Error::Arity { node, operator, what: "outputs", expected, got: outputs });
        }
        Ok(types)
    }
}

/// Sorts the nodes so that each comes after those it depends on; otherwise the given order is kept.
fn order(nodes: &[Draft], maker: impl Fn(&str, &str) -> Result<Option<usize>>) -> Result<Vec<usize>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; nodes.len()];
    let mut order = Vec::with_capacity(nodes.len());
    // The path of nodes being visited, each with the next input to look at. A loop instead of recursion, because a
    // graph may be deep enough to overflow the stack.
    let mut path: Vec<(usize, usize)> = Vec::new();
    for start in 0..nodes.len() {
        if marks[start] != Mark::New {
            continue;
        }
        marks[start] = Mark::Open;
        path.push((start, 0));
        while let Some((node, next)) = path.last_mut() {
            let draft = &nodes[*node];
            let Some(input) = draft.inputs.get(*next) else {
                marks[*node] = Mark::Done;
                order.push(*node);
                path.pop();
                continue;
            };
            *next += 1;
            let Some(value) = input else { continue };
            let Some(needed) = maker(value, &draft.name)? else { continue };
            match marks[needed] {
                Mark::Done => {}
                Mark::New => {
                    marks[needed] = Mark::Open;
                    path.push((needed, 0));
                }
                Mark::Open => {
                    let from = path.iter().position(|(n, _)| *n == needed).expect("an open node is on the path");
                    let nodes = path[from..].iter().map(|(n, _)| nodes[*n].name.clone()).collect();
                    return Err(Error::Cycle { nodes });
                }
            }
        }
    }
    Ok(order)
}
