//! Cells that are written out operator by operator, found and replaced by the operator that computes them at once.
//!
//! A step is found by what its nodes compute, from its last node back: gates are functions of sums of products with
//! constant weights, and their roles follow from where they are used. A step is replaced if nothing else reads the
//! values inside it. Steps with the same weights, each of which starts with the states of the one before, become one
//! layer over a sequence; so do the bodies of `Scan` and `Loop` that are one step.

mod loops;
mod sequence;
mod step;
mod sums;
mod turned;

use crate::ops::{If, Loop, Rnn, Scan};
use crate::{Constant, Graph, Node, Operator, Result, Source, Value, ValueId, ValueType};
use recurve_vocabulary::{CellKind, Direction};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// How deep graphs may be inside others.
const MAX_DEPTH: usize = 32;

impl Graph {
    /// The graph with cells that are written out operator by operator replaced by [`Rnn`], where that computes the same
    /// and nothing else reads what is inside them, and a line about each cell that was found: what became of it, or why
    /// it stays as it is.
    pub fn with_cells(self) -> (Self, Vec<String>) {
        self.with_cells_within(MAX_DEPTH)
    }

    fn with_cells_within(self, depth: usize) -> (Self, Vec<String>) {
        let mut pass = Pass::new(self);
        pass.layers();
        pass.subgraphs(depth);
        pass.steps();
        pass.turned();
        pass.finish()
    }
}

/// A graph that is being changed. Nodes and values are only added, until the end.
struct Pass {
    graph: Graph,
    /// Of each value the nodes that read it.
    users: Vec<Vec<usize>>,
    /// Nodes that the outputs needed at first.
    needed: Vec<bool>,
    names: HashSet<String>,
    /// Of values that have been replaced, what took their place.
    replaced: HashMap<ValueId, ValueId>,
    lines: Vec<String>,
}

impl Pass {
    fn new(graph: Graph) -> Self {
        let needed = graph.needed(graph.outputs.iter().map(|(_, id)| *id));
        let mut users = vec![Vec::new(); graph.values.len()];
        for (n, node) in graph.nodes.iter().enumerate().filter(|(n, _)| needed[*n]) {
            for id in node.inputs.iter().flatten() {
                if users[id.0].last() != Some(&n) {
                    users[id.0].push(n);
                }
            }
        }
        let names = graph.values.iter().map(|v| v.name.clone()).collect();
        Self { graph, users, needed, names, replaced: HashMap::new(), lines: Vec::new() }
    }

    fn maker(&self, id: ValueId) -> Option<usize> {
        match self.graph.values[id.0].source {
            Source::Node { node, .. } => Some(node),
            _ => None,
        }
    }

    fn operator<T: Operator + 'static>(&self, node: usize) -> Option<&T> {
        self.graph.nodes[node].operator.as_any().downcast_ref()
    }

    /// The node that makes a value, if it has this operator.
    fn made<T: Operator + 'static>(&self, id: ValueId) -> Option<(usize, &T)> {
        let node = self.maker(id)?;
        Some((node, self.operator(node)?))
    }

    fn input(&self, node: usize, index: usize) -> Option<ValueId> {
        self.graph.nodes[node].inputs.get(index).copied().flatten()
    }

    fn is_output(&self, id: ValueId) -> bool {
        self.graph.outputs.iter().any(|(_, o)| *o == id)
    }

    fn label(&self, id: ValueId) -> &str {
        self.maker(id).map_or(&self.graph.values[id.0].name, |n| &self.graph.nodes[n].name)
    }

    /// Whether nodes other than these read a value, or it is an output.
    fn is_read_outside(&self, id: ValueId, nodes: &BTreeSet<usize>) -> bool {
        self.is_output(id) || self.users[id.0].iter().any(|u| !nodes.contains(u))
    }

    /// Why nodes cannot be replaced: a value that is made inside them, and not one of these, is read outside.
    fn leak(&self, nodes: &BTreeSet<usize>, given: &[ValueId]) -> Option<String> {
        let made = nodes.iter().flat_map(|&n| &self.graph.nodes[n].outputs);
        let value = made.filter(|o| !given.contains(o)).find(|o| self.is_read_outside(**o, nodes))?;
        let name = &self.graph.values[value.0].name;
        let reader = self.users[value.0].iter().find(|u| !nodes.contains(u));
        Some(match reader {
            Some(&u) => format!("`{name}` inside it is also read by node `{}`", self.graph.nodes[u].name),
            None => format!("`{name}` inside it is an output"),
        })
    }

    fn unused(&mut self, like: &str) -> String {
        let mut name = like.to_owned();
        let mut n = 0;
        while !self.names.insert(name.clone()) {
            n += 1;
            name = format!("{like}.{n}");
        }
        name
    }

    fn constant(&mut self, dims: &[usize], numbers: Constant) -> ValueId {
        let name = self.unused("constant");
        let kind = ValueType::new(numbers.dtype(), dims.iter().copied()).with_known(numbers.known(dims.len()));
        self.graph.values.push(Value { name, kind, source: Source::Constant(numbers), optional: false });
        self.users.push(Vec::new());
        ValueId(self.graph.values.len() - 1)
    }

    fn floats_of(&mut self, dims: &[usize], elements: Vec<f32>) -> ValueId {
        self.constant(dims, Constant::Float(elements.into()))
    }

    fn ints_of(&mut self, numbers: &[i64]) -> ValueId {
        self.constant(&[numbers.len()], Constant::Int(crate::Int::I64, numbers.into()))
    }

    fn place_of(&mut self, place: usize) -> ValueId {
        self.constant(&[], Constant::Int(crate::Int::I64, [place as i64].into()))
    }

    /// A new node with so many outputs.
    fn emit(
        &mut self,
        name: &str,
        operator: impl Operator + 'static,
        inputs: &[Option<ValueId>],
        outputs: usize,
    ) -> Result<Vec<ValueId>> {
        let kinds = self.graph.types(name, &operator, inputs, outputs)?;
        let node = self.graph.nodes.len();
        let mut made = Vec::new();
        for (output, kind) in kinds.into_iter().take(outputs).enumerate() {
            let name = self.unused(name);
            self.graph.values.push(Value { name, kind, source: Source::Node { node, output }, optional: false });
            self.users.push(Vec::new());
            made.push(ValueId(self.graph.values.len() - 1));
        }
        for id in inputs.iter().flatten() {
            self.users[id.0].push(node);
        }
        let (name, inputs) = (name.into(), inputs.to_vec());
        self.graph.nodes.push(Node { name, operator: Arc::new(operator), inputs, outputs: made.clone() });
        self.needed.push(true);
        Ok(made)
    }

    fn emit_one(
        &mut self,
        name: &str,
        operator: impl Operator + 'static,
        inputs: &[Option<ValueId>],
    ) -> Result<ValueId> {
        Ok(self.emit(name, operator, inputs, 1)?[0])
    }

    /// Lets everything that reads a value read another one, which takes its name.
    fn replace(&mut self, old: ValueId, new: ValueId) {
        for u in core::mem::take(&mut self.users[old.0]) {
            for i in self.graph.nodes[u].inputs.iter_mut().flatten().filter(|i| **i == old) {
                *i = new;
            }
            self.users[new.0].push(u);
        }
        for (_, o) in self.graph.outputs.iter_mut().filter(|(_, o)| *o == old) {
            *o = new;
        }
        if !matches!(self.graph.values[new.0].source, Source::Input(_)) {
            let (a, b) = (old.0.min(new.0), old.0.max(new.0));
            let (left, right) = self.graph.values.split_at_mut(b);
            core::mem::swap(&mut left[a].name, &mut right[0].name);
        }
    }

    /// Takes back what was added since there were so many nodes and values, which nothing else uses.
    fn forget(&mut self, (nodes, values): (usize, usize)) {
        self.graph.nodes.truncate(nodes);
        self.needed.truncate(nodes);
        for v in self.graph.values.drain(values..) {
            self.names.remove(&v.name);
        }
        self.users.truncate(values);
        self.users.iter_mut().for_each(|u| u.retain(|n| *n < nodes));
    }

    fn mark(&self) -> (usize, usize) {
        (self.graph.nodes.len(), self.graph.values.len())
    }

    /// Says which layers the file has as such.
    fn layers(&mut self) {
        for n in (0..self.graph.nodes.len()).filter(|n| self.needed[*n]) {
            let Some(rnn) = self.operator::<Rnn>(n) else { continue };
            let kind = rnn.directions[0].1.kind;
            let direction = match rnn.directions[..] {
                [(Direction::Forward, _)] => "forward",
                [_] => "reverse",
                _ => "bidirectional",
            };
            let name = &self.graph.nodes[n].name;
            let line =
                format!("node `{name}`: {} {} of {} units, {direction}", article(kind), named(kind), rnn.hidden_size);
            self.lines.push(line);
        }
    }

    /// Looks into the graphs inside nodes.
    fn subgraphs(&mut self, depth: usize) {
        for n in 0..self.graph.nodes.len() {
            if !self.needed[n] || self.graph.nodes[n].operator.subgraphs().is_empty() || depth == 0 {
                continue;
            }
            if self.loop_of_a_cell(n) {
                continue;
            }
            let name = self.graph.nodes[n].name.clone();
            let mut inner = |g: &Arc<Graph>| {
                let (graph, lines) = Graph::clone(g).with_cells_within(depth - 1);
                self.lines.extend(lines.into_iter().map(|l| format!("inside node `{name}`: {l}")));
                Arc::new(graph)
            };
            let operator = self.graph.nodes[n].operator.clone();
            let any = operator.as_any();
            if let Some(op) = any.downcast_ref::<If>() {
                let branches = [inner(&op.branches[0]), inner(&op.branches[1])];
                self.graph.nodes[n].operator = Arc::new(If { branches });
            } else if let Some(op) = any.downcast_ref::<Loop>() {
                let body = [inner(&op.body[0])];
                self.graph.nodes[n].operator = Arc::new(Loop { body, carried: op.carried });
            } else if let Some(op) = any.downcast_ref::<Scan>() {
                let body = [inner(&op.body[0])];
                self.graph.nodes[n].operator = Arc::new(Scan { body, ..op.clone() });
            }
        }
    }

    /// The graph with its nodes in order, without those that the outputs no longer need.
    fn finish(self) -> (Graph, Vec<String>) {
        let Self { mut graph, needed: before, lines, .. } = self;
        let now = graph.needed(graph.outputs.iter().map(|(_, id)| *id));
        let keep: Vec<bool> = before.iter().zip(&now).map(|(before, now)| *now || !before).collect();
        // A node that was not needed before stays only if everything that it reads does.
        let mut order: Vec<usize> = Vec::new();
        let mut place = vec![None; graph.nodes.len()];
        let mut seen = vec![false; graph.nodes.len()];
        let mut path: Vec<(usize, usize)> = Vec::new();
        for start in (0..graph.nodes.len()).filter(|n| keep[*n]) {
            if !core::mem::replace(&mut seen[start], true) {
                path.push((start, 0));
            }
            while let Some((n, next)) = path.last_mut() {
                let Some(input) = graph.nodes[*n].inputs.get(*next) else {
                    let reads = graph.nodes[*n].inputs.iter().flatten();
                    let there = |id: &ValueId| match graph.values[id.0].source {
                        Source::Node { node, .. } => place[node].is_some(),
                        _ => true,
                    };
                    if reads.into_iter().all(there) {
                        place[*n] = Some(order.len());
                        order.push(*n);
                    }
                    path.pop();
                    continue;
                };
                *next += 1;
                if let Some(id) = input
                    && let Source::Node { node, .. } = graph.values[id.0].source
                    && keep[node]
                    && !core::mem::replace(&mut seen[node], true)
                {
                    path.push((node, 0));
                }
            }
        }
        let mut nodes: Vec<Option<Node>> = graph.nodes.into_iter().map(Some).collect();
        graph.nodes = order.iter().filter_map(|&n| nodes[n].take()).collect();
        for v in &mut graph.values {
            if let Source::Node { node, .. } = &mut v.source {
                match place[*node] {
                    Some(at) => *node = at,
                    None => v.source = Source::Constant(Constant::Float([].into())),
                }
            }
        }
        graph.forget_unused();
        (graph, lines)
    }
}

/// What a kind of cell is called in the lines.
fn named(kind: CellKind) -> &'static str {
    match kind {
        CellKind::Rnn => "RNN",
        other => other.class_name(),
    }
}

fn article(kind: CellKind) -> &'static str {
    if matches!(kind, CellKind::Gru { .. }) { "a" } else { "an" }
}
