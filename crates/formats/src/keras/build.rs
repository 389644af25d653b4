//! A description as a network: models inside models are written out, and every layer gets its place among the stored
//! weights.

use super::config::{Call, Entry, Model, Operation, Parser, Ref, What};
use super::layers::{self, Mapped, Part, unique};
use super::masks::{self, Mask};
use super::options::{Context, Options};
use super::trained::without_activity;
use recurve_layers::{
    ActivationLayer, InputConfig, LayerConfig, NamedLayer, NetworkConfig, OutputConfig, TimeDistributed, ValueRef,
};
use std::collections::{HashMap, HashSet};

/// Layers, and calls of layers, at most.
const MAX_LAYERS: usize = 1 << 12;

/// How a file of Keras 3 numbers its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// Each layer of a class counts, in groups called `layers`.
    Layers,
    /// Layers with weights count twice, in groups of this name, which TensorFlow's Keras 2.12 and 2.13 wrote.
    Dependencies,
}

impl Naming {
    /// The name of the group with a model's layers.
    pub(super) const fn group(self) -> &'static str {
        match self {
            Self::Layers => "layers",
            Self::Dependencies => "_layer_checkpoint_dependencies",
        }
    }
}

/// A layer that is no model.
pub(super) struct Leaf {
    pub(super) name: String,
    pub(super) class: String,
    pub(super) parts: Vec<Part>,
    /// Its group in a file of Keras 3.
    pub(super) place: String,
    trainable: bool,
    /// Its index in the network; `None` if the layer is refused.
    pub(super) index: Option<usize>,
    /// The indices of the layers behind it: a function, a penalty.
    after: Vec<usize>,
    calls: usize,
}

/// Where a variable is used: its leaf, its part, and its place in the part.
pub(super) type Place = (usize, usize, usize);

/// The variables of a layer of the whole file, in the order in which Keras 1 and 2 store them.
pub(super) struct Group {
    pub(super) name: String,
    pub(super) class: String,
    pub(super) variables: Vec<Place>,
}

/// A network without weights, and where its weights are.
pub(super) struct Built {
    pub(super) config: NetworkConfig,
    pub(super) leaves: Vec<Leaf>,
    pub(super) groups: Vec<Group>,
    pub(super) notes: Vec<String>,
}

/// What a call of a layer gives.
#[derive(Clone)]
enum Given {
    /// The outputs of a call of one layer.
    Call(String, usize),
    /// Several values.
    Values(Vec<ValueRef>),
    /// A mask, from an operation outside of layers.
    Mask(Mask),
}

impl Given {
    fn at(&self, tensor: usize) -> Option<ValueRef> {
        match self {
            Self::Call(of, call) => {
                let mut value = ValueRef::new(of.as_str());
                (value.call, value.output) = (*call, tensor);
                Some(value)
            }
            Self::Values(values) => values.get(tensor).cloned(),
            Self::Mask(_) => None,
        }
    }
}

struct Builder<'a> {
    context: Context,
    naming: Naming,
    parser: &'a mut Parser,
    leaves: Vec<Leaf>,
    /// The leaves by name.
    by_name: HashMap<String, usize>,
    layers: Vec<NamedLayer>,
    notes: Vec<String>,
    calls: usize,
    /// The masks of values, as Keras finds them.
    masks: HashMap<ValueRef, Mask>,
}

/// Makes the network of a description.
pub(super) fn build(model: &Model, context: Context, naming: Naming, parser: &mut Parser) -> Option<Built> {
    let mut b = Builder {
        context,
        naming,
        parser,
        leaves: Vec::new(),
        by_name: HashMap::new(),
        layers: Vec::new(),
        notes: Vec::new(),
        calls: 0,
        masks: HashMap::new(),
    };
    b.declare(model, "", 0, true);
    let mut inputs = Vec::new();
    let mut values = Vec::new();
    for (n, wanted) in model.inputs.iter().enumerate() {
        let entry = model.layers.iter().find(|l| l.name == wanted.layer);
        let shape = match entry.map(|e| &e.what) {
            Some(What::Input(Some(shape))) => shape.clone(),
            Some(What::Input(None)) => {
                let message = "the model has no input shape: it was saved before it was built";
                b.parser.problem("", "", message);
                Vec::new()
            }
            _ => {
                b.parser.problem(&wanted.layer, "", format!("is said to be input {n}, but is no input"));
                Vec::new()
            }
        };
        inputs.push(InputConfig::new(wanted.layer.as_str(), &shape));
        values.push(ValueRef::new(wanted.layer.as_str()));
    }
    let outputs = b.run(model, "", &values)?;
    // A layer that takes ids says what its input is.
    for input in &mut inputs {
        let reads = |l: &&NamedLayer| l.calls.iter().flatten().any(|v| v.of == input.name);
        input.ids = b.layers.iter().filter(reads).any(|l| takes_ids(&l.layer));
    }
    let mut names = HashSet::new();
    let outputs = model.outputs.iter().zip(outputs).map(|(wanted, value)| {
        let free = (0..).map(|n| if n == 0 { wanted.layer.clone() } else { format!("{}_{n}", wanted.layer) });
        let name = free.into_iter().find(|n| names.insert(n.clone())).expect("there are more numbers than outputs");
        OutputConfig::new(name, value)
    });
    let config = NetworkConfig::new(inputs, Vec::new(), outputs.collect());
    let groups = model.layers.iter().filter(|l| l.stored).map(|l| b.group(l)).collect();
    let Builder { leaves, layers, notes, .. } = b;
    let mut config = config;
    config.layers = layers;
    Some(Built { config, leaves, groups, notes })
}

fn takes_ids(layer: &LayerConfig) -> bool {
    match layer {
        LayerConfig::Embedding(_) => true,
        LayerConfig::TimeDistributed(t) => takes_ids(&t.layer),
        _ => false,
    }
}

/// A layer inside so many `TimeDistributed`.
fn timed(layer: LayerConfig, times: usize) -> LayerConfig {
    (0..times).fold(layer, |layer, _| TimeDistributed::new(layer).into())
}

impl Builder<'_> {
    /// Makes all layers of a model, inside models of which all are trained or one is not.
    fn declare(&mut self, model: &Model, prefix: &str, times: usize, outside: bool) {
        let trained = outside && model.trainable;
        let mut numbers = HashMap::new();
        for entry in model.layers.iter().filter(|e| e.stored && !matches!(e.what, What::Operation(_))) {
            let name = format!("{prefix}{}", entry.name);
            let before = self.leaves.len();
            match &entry.what {
                What::Input(_) | What::Operation(_) => {}
                What::Layer(map) => {
                    let problems = self.parser.problems.len();
                    let mapped = if map.is_empty() && self.known_bad(entry) {
                        None
                    } else {
                        let mut o =
                            Options::new((&name, &entry.class), map, self.context, self.parser, &mut self.notes);
                        let mapped = layers::layer(&mut o, 0);
                        if mapped.is_some() {
                            o.finish();
                        }
                        mapped
                    };
                    if mapped.is_none() && self.parser.problems.len() == problems && !self.known_bad(entry) {
                        self.parser.problem(&name, &entry.class, "cannot be read");
                    }
                    let mapped = mapped.map(|m| if trained { m } else { m.frozen() });
                    self.leaf(entry, name, mapped, model.trainable, times);
                }
                What::Model(inner, deeper) => {
                    self.declare(inner, &format!("{name}/"), times + deeper, trained);
                }
            }
            // The number of the group is known only once it is known whether the layer has weights.
            let own = &mut self.leaves[before..];
            let weighted = own.iter().any(|l| !l.parts.is_empty());
            let step = if weighted && self.naming == Naming::Dependencies { 2 } else { 1 };
            let group = unique(group_class(entry), &mut numbers, step);
            let wrapped = match &entry.what {
                What::Model(_, deeper) => "/layer".repeat(*deeper),
                _ => String::new(),
            };
            for leaf in own {
                let below = std::mem::take(&mut leaf.place);
                let slash = if below.is_empty() { "" } else { "/" };
                leaf.place = format!("{}/{group}{wrapped}{slash}{below}", self.naming.group());
            }
        }
    }

    /// Whether a problem of this layer has been found already.
    fn known_bad(&self, entry: &Entry) -> bool {
        self.parser.problems.iter().any(|p| p.layer == entry.name && p.class == entry.class)
    }

    fn leaf(&mut self, entry: &Entry, name: String, mapped: Option<Mapped>, inside: bool, times: usize) {
        let trainable = match &entry.what {
            What::Layer(map) => map.get("trainable") != Some(&serde_json::Value::Bool(false)),
            _ => true,
        };
        let mut leaf = Leaf {
            name: name.clone(),
            class: entry.class.clone(),
            parts: Vec::new(),
            place: String::new(),
            trainable: trainable && inside,
            index: None,
            after: Vec::new(),
            calls: 0,
        };
        if let Some(Mapped { mut layer, parts, after, activity }) = mapped {
            if times > 0 {
                // Keras counts it once for each timestep.
                let own = layer.weight_options_mut();
                own.into_iter().for_each(|o| without_activity(o, "a model inside of TimeDistributed"));
            }
            leaf.parts = parts;
            leaf.index = Some(self.layers.len());
            self.layers.push(NamedLayer::new(name.as_str(), timed(layer, times), Vec::new()));
            if let Some(function) = after {
                leaf.after.push(self.layers.len());
                let function = timed(ActivationLayer::new(function).into(), times);
                self.layers.push(NamedLayer::new(format!("{name}/activation"), function, Vec::new()));
            }
            if let Some(mut activity) = activity {
                if times > 0 {
                    without_activity(&mut activity.weight_options, "a model inside of TimeDistributed");
                }
                leaf.after.push(self.layers.len());
                let activity = timed(activity.into(), times);
                self.layers.push(NamedLayer::new(format!("{name}/activity"), activity, Vec::new()));
            }
        }
        if self.leaves.len() == MAX_LAYERS {
            self.parser.problem(&name, &entry.class, format!("is beyond the {MAX_LAYERS} layers that are read"));
        }
        self.by_name.insert(name, self.leaves.len());
        self.leaves.push(leaf);
    }

    /// Calls a model with these values and returns its outputs.
    fn run(&mut self, model: &Model, prefix: &str, given: &[ValueRef]) -> Option<Vec<ValueRef>> {
        if model.inputs.len() != given.len() {
            let message = format!("has {} inputs, but is called with {}", model.inputs.len(), given.len());
            self.parser.problem(prefix.trim_end_matches('/'), "", message);
            return None;
        }
        let places: HashMap<&str, usize> = model.layers.iter().enumerate().map(|(n, l)| (&l.name[..], n)).collect();
        // The first call of a layer has the number 0, or 1 where a model was called once when it was made.
        let mut first: HashMap<usize, usize> = HashMap::new();
        let all = model.layers.iter().flat_map(|l| &l.calls);
        let refs = all.flat_map(|c| c.inputs.iter().chain(&c.mask)).chain(&model.outputs);
        for r in refs {
            if let Some(&place) = places.get(&r.layer[..]) {
                let least = first.entry(place).or_insert(r.node);
                *least = (*least).min(r.node);
            }
        }
        let mut values: HashMap<(usize, usize), Given> = HashMap::new();
        for (r, value) in model.inputs.iter().zip(given) {
            match places.get(&r.layer[..]) {
                Some(&place) => drop(values.insert((place, 0), Given::Values(vec![value.clone()]))),
                None => {
                    self.parser.problem(&r.layer, "", "is said to be an input, but is not there");
                    return None;
                }
            }
        }
        let find = |values: &HashMap<_, Given>, r: &Ref| {
            let place = *places.get(&r.layer[..])?;
            let got: Option<&Given> = values.get(&(place, r.node.checked_sub(first[&place])?));
            got.cloned()
        };
        let there = |values: &HashMap<_, Given>, r: &Ref| match find(values, r) {
            Some(Given::Values(v)) => r.tensor < v.len(),
            got => got.is_some(),
        };
        let mut open: Vec<(usize, usize)> =
            model.layers.iter().enumerate().flat_map(|(n, l)| (0..l.calls.len()).map(move |c| (n, c))).collect();
        while !open.is_empty() {
            let before = open.len();
            let mut left = Vec::new();
            for (place, call) in open {
                let entry = &model.layers[place];
                let Call { inputs, mask } = &entry.calls[call];
                if !inputs.iter().chain(mask).all(|r| there(&values, r)) {
                    left.push((place, call));
                    continue;
                }
                let got = match &entry.what {
                    // A call that could not be read, which is a problem already.
                    What::Input(_) | What::Layer(_) | What::Model(..) if inputs.is_empty() => {
                        Given::Call(entry.name.clone(), 0)
                    }
                    What::Operation(operation) => {
                        self.operate(entry, operation, inputs.iter().map(|r| find(&values, r)))
                    }
                    _ => {
                        let mask = self.given_mask(mask.iter().map(|r| find(&values, r)));
                        let mut inputs: Vec<Option<ValueRef>> =
                            inputs.iter().map(|r| find(&values, r)?.at(r.tensor)).collect();
                        for (input, r) in inputs.iter_mut().zip(&entry.calls[call].inputs) {
                            if input.is_none() {
                                self.outside(model, r);
                                // Stands for the value; nothing is run any more.
                                *input = Some(ValueRef::new(r.layer.as_str()));
                            }
                        }
                        self.call(entry, prefix, inputs.into_iter().flatten().collect(), mask)?
                    }
                };
                values.insert((place, call), got);
            }
            if left.len() == before {
                let (place, _) = left[0];
                let (name, class) = (&model.layers[place].name, &model.layers[place].class);
                self.parser.problem(name, class, "is called with values that are not there, or that wait for it");
                return None;
            }
            open = left;
        }
        let outputs: Option<Vec<ValueRef>> =
            model.outputs.iter().map(|r| find(&values, r).and_then(|g| g.at(r.tensor))).collect();
        if outputs.is_none() {
            model.outputs.iter().for_each(|r| self.outside(model, r));
            self.parser.problem(prefix.trim_end_matches('/'), "", "has an output that is not there");
        }
        outputs
    }

    /// Notes the problem that a value is that of an operation outside of layers.
    fn outside(&mut self, model: &Model, r: &Ref) {
        let Some(entry) = model.layers.iter().find(|l| l.name == r.layer) else { return };
        if let What::Operation(operation) = &entry.what
            && !self.known_bad(entry)
        {
            let message = format!(
                "is the operation `{}.{}`, and operations outside of layers are not supported",
                operation.module, entry.class
            );
            self.parser.problem(&entry.name, &entry.class, message);
        }
    }

    /// The result of an operation outside of layers: a mask. What it is if it is none is a problem only where a layer
    /// reads it.
    fn operate(&mut self, entry: &Entry, operation: &Operation, inputs: impl Iterator<Item = Option<Given>>) -> Given {
        let inputs: Vec<Result<Mask, ValueRef>> = inputs
            .flatten()
            .filter_map(|given| match given {
                Given::Mask(mask) => Some(Ok(mask)),
                other => other.at(0).map(Err),
            })
            .collect();
        Given::Mask(masks::operate(&entry.class, operation, &inputs))
    }

    /// The mask that is given to a call.
    fn given_mask(&self, masks: impl Iterator<Item = Option<Given>>) -> Option<Mask> {
        let mut masks = masks.flatten().map(|given| match given {
            Given::Mask(mask) => mask,
            _ => Mask::unknown(),
        });
        let first = masks.next()?;
        Some(if masks.next().is_none() { first } else { Mask::unknown() })
    }

    fn call(&mut self, entry: &Entry, prefix: &str, inputs: Vec<ValueRef>, mask: Option<Mask>) -> Option<Given> {
        self.calls += 1;
        if self.calls > MAX_LAYERS {
            self.parser.problem("", "", format!("the model calls its layers more than {MAX_LAYERS} times"));
            return None;
        }
        let name = format!("{prefix}{}", entry.name);
        // Recurve finds masks as Keras does, so one that is given must be the one that is found.
        let found = inputs.first().and_then(|i| self.masks.get(i));
        if let Some(mask) = mask
            && found.is_none_or(|found| !found.same(&mask))
        {
            self.parser.problem(&name, &entry.class, "is called with a mask of its own, which is not supported");
        }
        match &entry.what {
            // An input that is called is the value itself.
            What::Input(_) => Some(Given::Values(inputs)),
            What::Operation(_) => None,
            What::Model(model, _) => Some(Given::Values(self.run(model, &format!("{name}/"), &inputs)?)),
            What::Layer(_) => {
                let leaf = &mut self.leaves[*self.by_name.get(&name)?];
                let call = leaf.calls;
                leaf.calls += 1;
                let (mut passed, mut outputs) = (None, 1);
                if let Some(index) = leaf.index {
                    let layer = &self.layers[index].layer;
                    passed = masks::passed(layer, &inputs, &self.masks);
                    outputs = masks::masked_outputs(layer);
                    let recurrent = matches!(layer, LayerConfig::Recurrent(_) | LayerConfig::StackedRnnCells(_));
                    let masked = self.masks.contains_key(&inputs[0]);
                    if recurrent && inputs.len() > 1 && masked && self.context.version.major == 3 {
                        let message = "gets initial states and a masked input, whose mask Keras 3 does not look at; \
                                       this is not supported";
                        self.parser.problem(&name, &entry.class, message);
                    }
                    self.layers[index].calls.push(inputs);
                }
                let leaf = &self.leaves[*self.by_name.get(&name)?];
                if let Some(mask) = passed {
                    let names = std::iter::once(&name).chain(leaf.after.iter().map(|&n| &self.layers[n].name));
                    for of in names {
                        for output in 0..outputs {
                            let mut value = ValueRef::new(of.as_str());
                            (value.call, value.output) = (call, output);
                            self.masks.insert(value, mask.clone());
                        }
                    }
                }
                let mut given = name;
                for &after in &leaf.after {
                    let value = Given::Call(given, call).at(0).expect("a call has any output");
                    self.layers[after].calls.push(vec![value]);
                    given = self.layers[after].name.clone();
                }
                Some(Given::Call(given, call))
            }
        }
    }

    /// The variables of a layer of the file, models with all that is in them.
    fn group(&self, entry: &Entry) -> Group {
        let (trained, other) = self.ordered(entry, "");
        let variables = trained.into_iter().chain(other).collect();
        Group { name: entry.name.clone(), class: entry.class.clone(), variables }
    }

    /// The variables of a layer that are trained, and the others.
    fn ordered(&self, entry: &Entry, prefix: &str) -> (Vec<Place>, Vec<Place>) {
        let name = format!("{prefix}{}", entry.name);
        let (mut trained, mut other) = (Vec::new(), Vec::new());
        match &entry.what {
            What::Input(_) | What::Operation(_) => {}
            What::Layer(_) => {
                let Some(&n) = self.by_name.get(&name) else { return (trained, other) };
                let leaf = &self.leaves[n];
                for (p, part) in leaf.parts.iter().enumerate() {
                    for (v, variable) in part.variables.iter().enumerate() {
                        let list = if variable.trained && leaf.trainable { &mut trained } else { &mut other };
                        list.push((n, p, v));
                    }
                }
            }
            What::Model(model, _) => {
                for inner in model.layers.iter().filter(|l| l.stored) {
                    let (t, o) = self.ordered(inner, &format!("{name}/"));
                    if model.trainable {
                        trained.extend(t);
                        other.extend(o);
                    } else {
                        other.extend(t.into_iter().chain(o));
                    }
                }
            }
        }
        (trained, other)
    }
}

/// The class by which the group of a layer is named.
fn group_class(entry: &Entry) -> &str {
    match &entry.what {
        What::Model(_, 1..) => "TimeDistributed",
        _ => &entry.class,
    }
}
