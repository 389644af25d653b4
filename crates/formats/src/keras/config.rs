//! The JSON description of a Keras model: its layers and how they are called, in the forms of Keras 1, 2 and 3.

use crate::LayerProblem;
use crate::files::{short, short_message};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// Brackets, commas and colons of a description, at most: each may become a value in memory.
const MAX_MARKS: usize = 1 << 19;
/// Models in models, and wrappers in wrappers, at most.
pub(super) const MAX_DEPTH: usize = 32;

/// The version of Keras that wrote a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) major: u32,
    pub(super) minor: u32,
    /// Whether it is the Keras inside TensorFlow, which numbers itself `2.2.4-tf`.
    pub(super) tf: bool,
}

impl Version {
    /// Parses a version such as `2.2.4-tf`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.trim().split('.');
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next().and_then(|n| n.parse().ok()).unwrap_or(0);
        Some(Self { major, minor, tf: text.contains("-tf") })
    }

    /// Whether it is older than this version of Keras by itself (not the one inside TensorFlow).
    pub(super) fn alone_before(self, major: u32, minor: u32) -> bool {
        !self.tf && (self.major, self.minor) < (major, minor)
    }
}

/// A model in a description.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) name: String,
    pub(super) trainable: bool,
    pub(super) layers: Vec<Entry>,
    pub(super) inputs: Vec<Ref>,
    pub(super) outputs: Vec<Ref>,
}

/// A layer of a model.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) class: String,
    pub(super) what: What,
    /// The calls.
    pub(super) calls: Vec<Call>,
    /// Whether the file has it as a layer; an input that only the first layer's shape says is none.
    pub(super) stored: bool,
}

/// A call of a layer.
#[derive(Debug, Default)]
pub(super) struct Call {
    pub(super) inputs: Vec<Ref>,
    /// The mask that is given, which Keras 3 also writes where it finds the mask by itself.
    pub(super) mask: Vec<Ref>,
}

impl From<Ref> for Call {
    fn from(input: Ref) -> Self {
        Self { inputs: vec![input], mask: Vec::new() }
    }
}

/// An operation outside of layers. Only those are read that Keras 3 writes for masks.
#[derive(Debug)]
pub(super) struct Operation {
    /// Where it is defined.
    pub(super) module: String,
    pub(super) axis: Option<i64>,
    /// The numbers among its arguments.
    pub(super) numbers: Vec<f64>,
}

/// What a layer is.
#[derive(Debug)]
pub(super) enum What {
    /// An operation outside of layers.
    Operation(Operation),
    /// An input of the model, with its shape if that is known.
    Input(Option<Vec<Option<usize>>>),
    /// A layer, with its options.
    Layer(Map<String, Value>),
    /// A model that is used as a layer, inside so many `TimeDistributed`.
    Model(Model, usize),
}

/// Refers to an output of a call of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ref {
    pub(super) layer: String,
    pub(super) node: usize,
    pub(super) tensor: usize,
}

impl Ref {
    fn of(layer: &str) -> Self {
        Self { layer: layer.into(), node: 0, tensor: 0 }
    }
}

/// Parses JSON of limited size.
pub(super) fn json(text: &[u8]) -> Result<Value, String> {
    if text.iter().filter(|b| matches!(b, b'[' | b'{' | b',' | b':')).count() > MAX_MARKS {
        return Err(format!("the description has more than {MAX_MARKS} values"));
    }
    serde_json::from_slice(text).map_err(|e| format!("the description is no JSON: {}", short_message(&e.to_string())))
}

/// The class of an object: its name, and where it is defined if the file says so.
pub(super) fn class_of(object: &Value) -> Option<(&str, Option<&str>)> {
    Some((object.get("class_name")?.as_str()?, object.get("module").and_then(Value::as_str)))
}

/// Whether a class is one of Keras's layers or models, and not an operation or somebody's own.
fn is_layer(object: &Value) -> Result<(), String> {
    let Some((class, module)) = class_of(object) else { return Err("has no class".into()) };
    let custom = object.get("registered_name").and_then(Value::as_str).is_some_and(|n| n.contains('>'));
    let own = || format!("is the class `{}` of somebody's own code, which is not in the file", short(class));
    match module {
        _ if custom || class.contains('>') => Err(own()),
        None => Ok(()),
        Some(m) if m == "keras" || m.starts_with("keras.") || m.starts_with("tf_keras.") => Ok(()),
        Some(_) => Err(own()),
    }
}

/// Whether a class is a model.
fn is_model(class: &str, config: &Value) -> bool {
    class == "Sequential"
        || (matches!(class, "Functional" | "Model" | "Network" | "Container") && config.get("layers").is_some())
}

/// Reads descriptions, and collects what is wrong with them.
#[derive(Default)]
pub(super) struct Parser {
    pub(super) problems: Vec<LayerProblem>,
}

impl Parser {
    pub(super) fn problem(&mut self, layer: &str, class: &str, message: impl Into<String>) {
        self.problems.push(LayerProblem { layer: short(layer), class: short(class), message: message.into() });
    }

    /// The model of a whole file.
    pub(super) fn top(&mut self, root: &Value) -> Option<Model> {
        let Some((class, _)) = class_of(root) else {
            self.problem("", "", "the description has no `class_name`, so it is not that of a Keras model");
            return None;
        };
        let config = root.get("config").unwrap_or(&Value::Null);
        if let Err(e) = is_layer(root) {
            self.problem("model", class, e);
            return None;
        }
        if !is_model(class, config) {
            self.problem("model", class, "is no Sequential or functional model, so its code is not in the file");
            return None;
        }
        self.model(root, class, config, "model", 0)
    }

    fn model(&mut self, object: &Value, class: &str, config: &Value, default: &str, depth: usize) -> Option<Model> {
        let name = config.get("name").and_then(Value::as_str).unwrap_or(default).to_owned();
        if depth > MAX_DEPTH {
            self.problem(&name, class, format!("is a model inside more than {MAX_DEPTH} models"));
            return None;
        }
        let trainable = config.get("trainable") != Some(&Value::Bool(false));
        let Some(layers) = config.get("layers").unwrap_or(config).as_array() else {
            self.problem(&name, class, "has no list of layers");
            return None;
        };
        let mut model = if class == "Sequential" {
            self.sequential(object, config, name, layers, depth)?
        } else {
            self.functional(config, name, class, layers, depth)?
        };
        model.trainable = trainable;
        let mut seen = HashSet::new();
        if let Some(twice) = model.layers.iter().find(|l| !seen.insert(&l.name)) {
            let (layer, class) = (twice.name.clone(), twice.class.clone());
            self.problem(&layer, &class, "has the name of another layer");
            return None;
        }
        Some(model)
    }

    fn sequential(
        &mut self,
        object: &Value,
        config: &Value,
        name: String,
        layers: &[Value],
        depth: usize,
    ) -> Option<Model> {
        let mut entries: Vec<Entry> = Vec::with_capacity(layers.len() + 1);
        let mut before: Option<String> = None;
        for layer in layers {
            let entry = self.entry(layer, depth)?;
            if before.is_none() && !matches!(entry.what, What::Input(_)) {
                // The shape of the input is that of the first layer, or of the last time that the model was built.
                let first = layer.get("config").unwrap_or(&Value::Null);
                let built = [
                    first.get("batch_input_shape"),
                    first.get("batch_shape"),
                    config.get("build_input_shape"),
                    object.get("build_config").and_then(|b| b.get("input_shape")),
                ];
                let inner = match &entry.what {
                    What::Model(m, 0) => m.layers.iter().find_map(|l| match &l.what {
                        What::Input(shape) => shape.clone(),
                        _ => None,
                    }),
                    _ => None,
                };
                let shape = built.into_iter().flatten().find_map(shape).or(inner);
                let name = format!("{}_input", entry.name);
                before = Some(name.clone());
                let class = "InputLayer".into();
                entries.push(Entry { name, class, what: What::Input(shape), calls: Vec::new(), stored: false });
            }
            let calls = before.iter().map(|b| Ref::of(b).into()).collect();
            before = Some(entry.name.clone());
            if matches!(entry.what, What::Input(_)) && !entries.is_empty() {
                self.problem(&entry.name, &entry.class, "is an input in the middle of a Sequential");
                continue;
            }
            entries.push(Entry { calls, ..entry });
        }
        let (Some(first), Some(last)) = (entries.first(), &before) else {
            self.problem(&name, "Sequential", "has no layers");
            return None;
        };
        let (inputs, outputs) = (vec![Ref::of(&first.name)], vec![Ref::of(last)]);
        if matches!(first.what, What::Input(_)) {
            entries[0].calls.clear();
        }
        Some(Model { name, trainable: true, layers: entries, inputs, outputs })
    }

    fn functional(
        &mut self,
        config: &Value,
        name: String,
        class: &str,
        layers: &[Value],
        depth: usize,
    ) -> Option<Model> {
        let mut entries = Vec::with_capacity(layers.len());
        for layer in layers {
            let Some(mut entry) = self.entry(layer, depth) else { continue };
            let nodes = layer.get("inbound_nodes").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            for node in nodes {
                if let What::Operation(operation) = &mut entry.what {
                    let (mut refs, mut numbers) = (Vec::new(), Vec::new());
                    arguments(node.get("args").unwrap_or(&Value::Null), &mut refs, &mut numbers);
                    operation.numbers = numbers;
                    entry.calls.push(Call { inputs: refs, mask: Vec::new() });
                    continue;
                }
                match call(node) {
                    Ok(refs) => entry.calls.push(refs),
                    Err(e) => {
                        self.problem(&entry.name, &entry.class, e);
                        entry.calls.push(Call::default());
                    }
                }
            }
            entries.push(entry);
        }
        let refs = |key: &str| {
            let mut refs = Vec::new();
            collect(config.get(key).unwrap_or(&Value::Null), &mut refs, &mut Vec::new()).map(|()| refs)
        };
        match (refs("input_layers"), refs("output_layers")) {
            (Ok(inputs), Ok(outputs)) if !inputs.is_empty() && !outputs.is_empty() => {
                Some(Model { name, trainable: true, layers: entries, inputs, outputs })
            }
            _ => {
                self.problem(&name, class, "has no list of its inputs and outputs");
                None
            }
        }
    }

    /// A layer of a model.
    fn entry(&mut self, object: &Value, depth: usize) -> Option<Entry> {
        let config = object.get("config").unwrap_or(&Value::Null);
        let text = |v: Option<&Value>| v.and_then(Value::as_str).map(str::to_owned);
        let name = text(config.get("name")).or_else(|| text(object.get("name"))).unwrap_or_default();
        let Some((class, _)) = class_of(object) else {
            self.problem(&name, "", "has no class");
            return None;
        };
        let entry = |what| Entry { name: name.clone(), class: class.to_owned(), what, calls: Vec::new(), stored: true };
        if let Some(module) = operation(object, config) {
            let axis = config.get("axis").and_then(Value::as_i64);
            return Some(entry(What::Operation(Operation { module: short(module), axis, numbers: Vec::new() })));
        }
        if let Err(e) = is_layer(object) {
            self.problem(&name, class, e);
            // Known to the layers that read it, so that they are looked at too.
            return Some(entry(What::Layer(Map::new())));
        }
        if class == "InputLayer" {
            let given = ["batch_shape", "batch_input_shape"].into_iter().find_map(|k| config.get(k)).and_then(shape);
            for key in ["sparse", "ragged"] {
                if config.get(key) == Some(&Value::Bool(true)) {
                    self.problem(&name, class, format!("`{key}` inputs are not supported"));
                }
            }
            return Some(entry(What::Input(given)));
        }
        // A model may be inside TimeDistributed, which then holds for each of its layers.
        let (mut inner, mut timed) = (object, 0);
        while let Some(("TimeDistributed", _)) = class_of(inner)
            && let Some(next) = inner.get("config").and_then(|c| c.get("layer"))
        {
            (inner, timed) = (next, timed + 1);
        }
        if let Some((inside, _)) = class_of(inner)
            && let inner_config = inner.get("config").unwrap_or(&Value::Null)
            && is_model(inside, inner_config)
            && is_layer(inner).is_ok()
        {
            if timed > MAX_DEPTH {
                self.problem(&name, class, format!("is inside more than {MAX_DEPTH} layers"));
                return None;
            }
            let model = self.model(inner, inside, inner_config, &name, depth + 1)?;
            // The list of layers of an old Sequential has no name.
            let own = if name.is_empty() { model.name.clone() } else { name.clone() };
            return Some(Entry { name: own, ..entry(What::Model(model, timed)) });
        }
        match config {
            Value::Object(options) => Some(entry(What::Layer(options.clone()))),
            _ => {
                self.problem(&name, class, "has no options");
                None
            }
        }
    }
}

/// Where an operation outside of layers is defined; `None` for a layer. HDF5 files of Keras 3 do not say where a class is
/// defined, but all its layers, and no operation, have the option `trainable`.
fn operation<'a>(object: &'a Value, config: &Value) -> Option<&'a str> {
    let new = || object.get("inbound_nodes").and_then(|n| n.get(0)).is_some_and(|n| n.get("args").is_some());
    match class_of(object)? {
        (_, Some(module)) => (module.starts_with("keras.") && module.contains(".ops.")).then_some(module),
        (_, None) => (new() && config.get("trainable").is_none()).then_some("keras.ops"),
    }
}

/// A shape with the batch; `null` stands for any size.
fn shape(value: &Value) -> Option<Vec<Option<usize>>> {
    let size = |v: &Value| match v {
        Value::Null => Some(None),
        v => v.as_u64().and_then(|n| usize::try_from(n).ok()).map(Some),
    };
    // Some versions write a shape as an object that holds it.
    let list = value.as_array().or_else(|| value.get("items")?.as_array())?;
    list.iter().map(size).collect()
}

/// The values and the numbers among the arguments of an operation.
fn arguments(value: &Value, refs: &mut Vec<Ref>, numbers: &mut Vec<f64>) {
    match value {
        Value::Number(number) => numbers.extend(number.as_f64()),
        Value::Array(list) => list.iter().for_each(|v| arguments(v, refs, numbers)),
        value => drop(collect(value, refs, &mut Vec::new())),
    }
}

/// A call, in the form of any version.
fn call(node: &Value) -> Result<Call, String> {
    let (mut refs, mut options) = (Vec::new(), Vec::new());
    if let (Some(args), Some(kwargs)) = (node.get("args"), node.get("kwargs").and_then(Value::as_object)) {
        collect(args, &mut refs, &mut options)?;
        options.push(kwargs);
    } else {
        collect(node, &mut refs, &mut options)?;
    }
    let (mut states, mut mask) = (Vec::new(), Vec::new());
    for (key, value) in options.into_iter().flatten() {
        match (&key[..], value) {
            (_, Value::Null | Value::Bool(false)) => {}
            ("initial_state", value) => collect(value, &mut states, &mut Vec::new())?,
            ("mask", value) => collect(value, &mut mask, &mut Vec::new())?,
            _ => return Err(format!("is called with `{}`, which is not supported", short(key))),
        }
    }
    refs.extend(states);
    if refs.is_empty() { Err("is called without inputs".into()) } else { Ok(Call { inputs: refs, mask }) }
}

/// Finds the values that an argument refers to, in order, and the options beside them.
fn collect<'a>(value: &'a Value, refs: &mut Vec<Ref>, options: &mut Vec<&'a Map<String, Value>>) -> Result<(), String> {
    match value {
        Value::Null | Value::Bool(false) => Ok(()),
        Value::Object(object) if object.get("class_name").is_some_and(|c| c == "__keras_tensor__") => {
            let history = object.get("config").and_then(|c| c.get("keras_history")).and_then(Value::as_array);
            refs.push(history.and_then(|h| reference(h)).ok_or("is called with a value that is not there")?);
            Ok(())
        }
        // Several values by name, in the order of the names.
        Value::Object(object) => {
            let mut names: Vec<&String> = object.keys().collect();
            names.sort();
            names.into_iter().try_for_each(|n| collect(&object[n], refs, options))
        }
        Value::Array(list) => match reference(list) {
            Some(found) => {
                refs.push(found);
                options.extend(list.get(3).and_then(Value::as_object));
                Ok(())
            }
            None => list.iter().try_for_each(|v| collect(v, refs, options)),
        },
        _ => Err("is called with a constant, which is not supported".into()),
    }
}

/// `[layer, call, output]`, which may be followed by options.
fn reference(list: &[Value]) -> Option<Ref> {
    match list {
        [Value::String(layer), node, tensor] | [Value::String(layer), node, tensor, _] => {
            let number = |v: &Value| v.as_u64().and_then(|n| usize::try_from(n).ok());
            Some(Ref { layer: layer.clone(), node: number(node)?, tensor: number(tensor)? })
        }
        _ => None,
    }
}
