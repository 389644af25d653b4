//! What is drawn of a model: boxes with what they do, and what depends on what.

use recurve::{ActivationFunction, LayerConfig, Model, OnnxModel, RecurrentSpec, StatePair, thousands};
use recurve_graph::{Constant, Graph, Node, Source, ValueId, ops};
use std::collections::{HashMap, HashSet};

/// What a box is, which gives it its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    Input,
    Output,
    StateIn,
    StateOut,
    Recurrent,
    /// Convolutions and other products.
    Product,
    Embedding,
    /// Normalizations, pooling and the like.
    Other,
    /// What chooses and repeats.
    Control,
    /// What moves elements or computes them one by one.
    Small,
}

/// A box.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) kind: Kind,
    pub(crate) title: String,
    /// At the right of the title.
    pub(crate) note: String,
    pub(crate) name: String,
    pub(crate) shape: String,
    pub(crate) params: usize,
}

impl Item {
    fn new(kind: Kind, title: impl Into<String>, name: impl Into<String>, shape: impl Into<String>) -> Self {
        let (title, name, shape) = (title.into(), name.into(), shape.into());
        Self { kind, title, note: String::new(), name, shape, params: 0 }
    }
}

/// Boxes and the dependencies between them.
#[derive(Clone, Debug, Default)]
pub struct Diagram {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) items: Vec<Item>,
    /// From one box to another.
    pub(crate) edges: Vec<(usize, usize)>,
}

/// A layer by its class, with what is inside it.
fn class_of(layer: &LayerConfig) -> (Kind, String, String) {
    let units = |r: &RecurrentSpec| {
        let layers = if r.num_layers > 1 { format!("{} layers, ", r.num_layers) } else { String::new() };
        format!("{layers}{} units", r.units)
    };
    match layer {
        LayerConfig::Recurrent(r) => {
            let cell = r.cell.kind.class_name();
            let title = if r.bidirectional.is_some() { format!("Bidirectional {cell}") } else { cell.into() };
            (Kind::Recurrent, title, units(r))
        }
        LayerConfig::StackedRnnCells(s) => {
            let cells: Vec<_> = s.cells.iter().map(|c| format!("{} {}", c.cell.kind.class_name(), c.units)).collect();
            (Kind::Recurrent, format!("Stacked {}", cells.join(", ")), String::new())
        }
        LayerConfig::TimeDistributed(t) => {
            let (kind, title, note) = class_of(&t.layer);
            (kind, format!("TimeDistributed {title}"), note)
        }
        LayerConfig::Embedding(e) => (Kind::Embedding, "Embedding".into(), format!("{} ids", thousands(e.input_dim))),
        LayerConfig::Dense(_) => (Kind::Product, "Dense".into(), String::new()),
        LayerConfig::Activation(a) => {
            let name = match a.activation {
                ActivationFunction::Elementwise(f) => format!("{f:?}"),
                f => format!("{f:?}"),
            };
            (Kind::Small, "Activation".into(), name.split(' ').next().unwrap_or_default().into())
        }
        other => {
            let class = other.class_name();
            let is = |words: &[&str]| words.iter().any(|w| class.contains(w));
            let kind = if is(&["Conv", "Attention", "Dot"]) {
                Kind::Product
            } else if is(&["Pooling", "Normalization", "Softmax"]) {
                Kind::Other
            } else {
                Kind::Small
            };
            (kind, class.into(), String::new())
        }
    }
}

/// The layers of one of Recurve's own models.
pub(crate) fn of_native(model: &Model) -> Diagram {
    let summary = model.summary();
    let network = &model.info().network;
    let mut d = Diagram {
        title: summary.name.clone(),
        subtitle: format!("{} parameters in {} layers", thousands(summary.total_params), summary.layers.len()),
        ..Diagram::default()
    };
    let mut places: HashMap<&str, usize> = HashMap::new();
    for i in &network.inputs {
        let dims: Vec<_> = i.shape.iter().map(|d| d.map_or("None".into(), |n| n.to_string())).collect();
        places.insert(&i.name, d.items.len());
        let mut item = Item::new(Kind::Input, "Input", i.name.as_str(), format!("({})", dims.join(", ")));
        item.note = if i.ids { "ids".into() } else { "f32".into() };
        d.items.push(item);
    }
    for (l, named) in summary.layers.iter().zip(&network.layers) {
        let (kind, title, note) = class_of(&named.layer);
        places.insert(&l.name, d.items.len());
        let shape = l.output_shape();
        d.items.push(Item { note, params: l.params, ..Item::new(kind, title, l.name.as_str(), shape) });
    }
    let mut seen = HashSet::new();
    for l in &summary.layers {
        for from in &l.connected_to {
            let edge = (places[&from.of[..]], places[&l.name[..]]);
            // A layer that is called several times may follow itself, or one that follows it.
            if edge.0 < edge.1 && seen.insert(edge) {
                d.edges.push(edge);
            }
        }
    }
    for o in &network.outputs {
        let from = places[&o.value.of[..]];
        let shape = summary.layers.iter().find(|l| l.name == o.value.of);
        let shape = shape.and_then(|l| l.output_shapes.get(o.value.output)).map_or(String::new(), |s| {
            let dims: Vec<_> = s.iter().map(|d| d.map_or("None".into(), |n| n.to_string())).collect();
            format!("({})", dims.join(", "))
        });
        d.edges.push((from, d.items.len()));
        d.items.push(Item::new(Kind::Output, "Output", o.name.as_str(), shape));
    }
    d
}

/// Words in the names of operators that take time; the others move elements or compute them one by one.
const HEAVY: [&str; 18] = [
    "Conv",
    "MatMul",
    "Gemm",
    "Einsum",
    "Linear",
    "Pool",
    "Normalization",
    "Softmax",
    "RNN",
    "LSTM",
    "GRU",
    "Recurrent",
    "FT",
    "Resize",
    "TopK",
    "MelWeight",
    "Embedding",
    "Scan",
];

/// Boxes of a graph that is drawn node by node, at most.
const FEW: usize = 30;

/// Numbers that stand in a constant, once.
fn parameters(graph: &Graph, node: &Node, seen: &mut HashSet<ValueId>) -> usize {
    let count = |id: &ValueId| match &graph.value(*id).source {
        Source::Constant(c @ Constant::Float(_)) if seen.insert(*id) => c.count(),
        _ => 0,
    };
    node.inputs.iter().flatten().map(count).sum()
}

fn is_constant(graph: &Graph, id: ValueId) -> bool {
    matches!(graph.value(id).source, Source::Constant(_) | Source::Parameter)
}

/// What a node is called, what it is, and more about it.
fn described(graph: &Graph, node: &Node) -> (Kind, String, String) {
    let operator = node.operator.as_any();
    let name = node.operator.name();
    let inner = node.operator.subgraphs();
    if !inner.is_empty() {
        let nodes = |g: &Graph| g.nodes().len();
        let many = |n: usize| if n == 1 { "1 node".into() } else { format!("{n} nodes") };
        let note = match inner {
            [a, b] => format!("then {}, else {}", many(nodes(a)), nodes(b)),
            all => many(all.iter().map(|g| nodes(g)).sum::<usize>()),
        };
        let cells = inner.iter().flat_map(|g| g.nodes()).map(|n| n.operator.name());
        let cell = cells.into_iter().find(|n| ["RNN", "LSTM", "GRU"].contains(n));
        return (Kind::Control, cell.map_or(name.into(), |c| format!("{name} with {c}")), note);
    }
    if let Some(rnn) = operator.downcast_ref::<ops::Rnn>() {
        let cell = rnn.directions[0].1.kind.class_name();
        let title = match &rnn.directions[..] {
            [(recurve::Direction::Forward, _)] => cell.into(),
            [_] => format!("{cell} backwards"),
            _ => format!("Bidirectional {cell}"),
        };
        return (Kind::Recurrent, title, format!("{} units", rnn.hidden_size));
    }
    if let Some(r) = operator.downcast_ref::<ops::Recurrent>() {
        return (Kind::Recurrent, r.cell.kind.class_name().into(), format!("{} units", r.hidden_size));
    }
    if let Some(ops::Activate(f)) = operator.downcast_ref::<ops::Activate>() {
        // Without its parameters.
        let text = format!("{f:?}");
        return (Kind::Small, text.split(' ').next().unwrap_or_default().into(), String::new());
    }
    let table = name == "Gather"
        && node.inputs.first().copied().flatten().is_some_and(|id| {
            is_constant(graph, id) && graph.value(id).kind.dtype.is_float() && graph.value(id).kind.rank() == 2
        });
    let kind = if table {
        Kind::Embedding
    } else if ["Conv", "MatMul", "Gemm", "Einsum", "Linear"].iter().any(|w| name.contains(w)) {
        Kind::Product
    } else if name != "Transpose" && HEAVY.iter().any(|w| name.contains(w)) {
        Kind::Other
    } else {
        Kind::Small
    };
    (kind, name.into(), String::new())
}

/// Titles in their order, those that follow each other counted.
fn listed(titles: &[&str]) -> String {
    let mut all: Vec<(&str, usize)> = Vec::new();
    for t in titles {
        match all.last_mut() {
            Some((last, n)) if last == t => *n += 1,
            _ => all.push((t, 1)),
        }
    }
    let shown: Vec<_> = all.iter().map(|(t, n)| if *n > 1 { format!("{t} ×{n}") } else { (*t).into() }).collect();
    shown.join(" · ")
}

/// The nodes of an ONNX file; of many, those that are small and follow each other are one box, unless `every` is set.
pub(crate) fn of_onnx(model: &OnnxModel, states: &[StatePair], title: &str, every: bool) -> Diagram {
    let graph = model.graph();
    let nodes = graph.nodes();
    let about: Vec<_> = nodes.iter().map(|n| described(graph, n)).collect();
    let small = |n: usize| about[n].0 == Kind::Small;
    let maker = |id: ValueId| match graph.value(id).source {
        Source::Node { node, .. } => Some(node),
        _ => None,
    };
    let mut before: Vec<Vec<usize>> = Vec::new();
    let mut after: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (n, node) in nodes.iter().enumerate() {
        let mut from: Vec<usize> = node.inputs.iter().flatten().filter_map(|id| maker(*id)).collect();
        from.dedup();
        from.iter().for_each(|&f| after[f].push(n));
        before.push(from);
    }
    let mut group: Vec<usize> = (0..nodes.len()).collect();
    let collapsed = !every && nodes.len() > FEW;
    // Nodes that no output needs are left out.
    let mut needed = vec![!collapsed; nodes.len()];
    let mut open: Vec<usize> = graph.outputs().iter().filter_map(|(_, id)| maker(*id)).collect();
    while let Some(n) = open.pop() {
        if !std::mem::replace(&mut needed[n], true) {
            open.extend(&before[n]);
        }
    }
    if collapsed {
        // A node's level is how many nodes that are not small lead to it; a small one has the greatest that its users
        // allow. Small nodes of one level that follow each other are one box: no way leads out of it and back, since
        // it would lead through a node of a higher level.
        let mut level = vec![0usize; nodes.len()];
        for n in 0..nodes.len() {
            let least = before[n].iter().map(|&f| level[f]).max().unwrap_or(0);
            level[n] = least + usize::from(!small(n));
        }
        for n in (0..nodes.len()).rev().filter(|&n| small(n)) {
            let users = after[n].iter().map(|&u| if small(u) { level[u] } else { level[u] - 1 });
            level[n] = users.min().unwrap_or(level[n]);
        }
        for n in (0..nodes.len()).filter(|&n| small(n)) {
            for &f in before[n].iter().filter(|&&f| small(f) && level[f] == level[n]) {
                let (a, b) = (root(&mut group, f), root(&mut group, n));
                group[b] = a;
            }
        }
        // Functions of one operand after a node that nothing else uses belong to it.
        for n in 0..nodes.len() {
            let own = root(&mut group, n);
            let [user] = after[n][..] else { continue };
            let is_output = |n: usize| graph.outputs().iter().any(|(_, id)| maker(*id) == Some(n));
            if small(n) || is_output(n) || !small(user) {
                continue;
            }
            let its = root(&mut group, user);
            let members: Vec<usize> = (0..nodes.len()).filter(|&m| root(&mut group, m) == its).collect();
            let inside = |m: &usize| members.contains(m) || *m == n;
            if members.len() <= 3
                && members.iter().all(|&m| before[m].iter().all(&inside) && one_operand(graph, &nodes[m]))
            {
                group[its] = own;
            }
        }
        (0..nodes.len()).for_each(|n| group[n] = root(&mut group, n));
    }

    let mut d = Diagram { title: title.into(), ..Diagram::default() };
    let mut sources: HashMap<ValueId, usize> = HashMap::new();
    let shape = |id: ValueId| graph.value(id).kind.to_string();
    for &id in graph.inputs() {
        let name = &graph.value(id).name;
        let kind = if states.iter().any(|s| s.input == *name) { Kind::StateIn } else { Kind::Input };
        sources.insert(id, d.items.len());
        d.items.push(Item::new(kind, if kind == Kind::Input { "Input" } else { "State" }, name.as_str(), shape(id)));
    }
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    (0..nodes.len()).filter(|&n| needed[n]).for_each(|n| members[group[n]].push(n));
    let mut place = vec![usize::MAX; nodes.len()];
    let mut counted = HashSet::new();
    let names: Vec<&str> = nodes.iter().map(|n| &n.name[..]).collect();
    let common = common_prefix(&names);
    for all in members.iter().filter(|m| !m.is_empty()) {
        let titles: Vec<&str> = all.iter().map(|&n| &about[n].1[..]).collect();
        let main = all.iter().copied().find(|&n| !small(n)).unwrap_or(all[all.len() - 1]);
        let (kind, own, note) = &about[main];
        let then: Vec<&str> = all.iter().filter(|&&n| n != main).map(|&n| &about[n].1[..]).collect();
        let title = match kind {
            Kind::Small => listed(&titles),
            _ if then.is_empty() => own.clone(),
            _ => format!("{own} + {}", listed(&then).replace(" · ", " + ")),
        };
        // What leaves the box.
        let leaves = |n: usize| {
            let used = |id: &&ValueId| {
                let outside = graph.users(**id).any(|u| needed[u] && group[u] != group[n]);
                outside || graph.outputs().iter().any(|(_, o)| o == *id)
            };
            nodes[n].outputs.iter().filter(used).copied().collect::<Vec<_>>()
        };
        let out: Vec<ValueId> = all.iter().flat_map(|&n| leaves(n)).collect();
        let shape = match &out[..] {
            [] => String::new(),
            [id] => shape(*id),
            [id, ..] => format!("{} and {} more", shape(*id), out.len() - 1),
        };
        let mut item = Item::new(*kind, title, names[main][common..].trim_start_matches('/'), shape);
        item.note.clone_from(note);
        if *kind == Kind::Small && all.len() > 1 {
            item.note = format!("{} nodes", all.len());
        }
        item.params = all.iter().map(|&n| parameters(graph, &nodes[n], &mut counted)).sum();
        all.iter().for_each(|&n| place[n] = d.items.len());
        d.items.push(item);
    }
    let mut seen = HashSet::new();
    for (n, node) in nodes.iter().enumerate().filter(|(n, _)| needed[*n]) {
        for id in node.inputs.iter().flatten() {
            let from = maker(*id).map(|m| place[m]).or_else(|| sources.get(id).copied());
            if let Some(from) = from.filter(|f| *f != place[n] && seen.insert((*f, place[n]))) {
                d.edges.push((from, place[n]));
            }
        }
    }
    for (name, id) in graph.outputs() {
        let kind = if states.iter().any(|s| s.output == *name) { Kind::StateOut } else { Kind::Output };
        let from = maker(*id).map(|m| place[m]).or_else(|| sources.get(id).copied());
        d.edges.extend(from.map(|f| (f, d.items.len())));
        let title = if kind == Kind::Output { "Output" } else { "Next state" };
        d.items.push(Item::new(kind, title, name.as_str(), shape(*id)));
    }
    let params: usize = d.items.iter().map(|i| i.params).sum();
    let boxes = members.iter().filter(|m| !m.is_empty()).count();
    let shown = if boxes < nodes.len() { format!(" in {boxes} boxes") } else { String::new() };
    d.subtitle = format!("{} nodes{shown}, {} parameters, {}", nodes.len(), thousands(params), model.producer());
    d
}

/// The first node of a box.
fn root(group: &mut [usize], mut n: usize) -> usize {
    while group[n] != n {
        group[n] = group[group[n]];
        n = group[n];
    }
    n
}

/// Whether a node has one input that is no constant.
fn one_operand(graph: &Graph, node: &Node) -> bool {
    node.inputs.iter().flatten().filter(|id| !is_constant(graph, **id)).count() == 1
}

/// Bytes of the folders that all names with folders are in.
fn common_prefix(names: &[&str]) -> usize {
    let Some(first) = names.first() else { return 0 };
    let same = |n: &&str| n.bytes().zip(first.bytes()).take_while(|(a, b)| a == b).count();
    let common = names.iter().map(same).min().unwrap_or(0);
    first.as_bytes()[..common].iter().rposition(|b| *b == b'/').map_or(0, |n| n + 1)
}
