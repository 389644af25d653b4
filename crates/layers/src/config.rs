//! The description of a network, as data.

use crate::layer::{Shape, bad_option};
use crate::{Error, LayerConfig, Result};
use recurve_tensor::DType;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

/// The description of a network without its weights: values flow from its inputs through layers to its outputs.
///
/// [`crate::Sequential`] and [`crate::Functional`] make one, and model files store it. The names of the weights of
/// layer N start with `layers.N.`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct NetworkConfig {
    /// The inputs.
    pub inputs: Vec<InputConfig>,
    /// The layers.
    pub layers: Vec<NamedLayer>,
    /// The outputs.
    pub outputs: Vec<OutputConfig>,
}

/// An input of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct InputConfig {
    /// Its name.
    pub name: String,
    /// Its shape; `None` stands for any size.
    pub shape: Vec<Option<usize>>,
    /// Whether it holds ids (U32) rather than floats (f32).
    #[serde(default, skip_serializing_if = "crate::layer::is_default")]
    pub ids: bool,
}

/// A layer of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct NamedLayer {
    /// Its name.
    pub name: String,
    /// The layer.
    pub layer: LayerConfig,
    /// The inputs of each call of the layer. Several calls share the layer's weights.
    pub calls: Vec<Vec<ValueRef>>,
}

/// An output of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct OutputConfig {
    /// Its name.
    pub name: String,
    /// The value that is returned.
    pub value: ValueRef,
}

/// Refers to an input of a network, or to an output of a call of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ValueRef {
    /// The name of the input or of the layer.
    pub of: String,
    /// The call of the layer, from 0.
    #[serde(default, skip_serializing_if = "crate::layer::is_default")]
    pub call: usize,
    /// The index of the output, from 0.
    #[serde(default, skip_serializing_if = "crate::layer::is_default")]
    pub output: usize,
}

impl InputConfig {
    /// An input of floats with this name and shape; `None` stands for any size.
    pub fn new(name: impl Into<String>, shape: &[Option<usize>]) -> Self {
        Self { name: name.into(), shape: shape.to_vec(), ids: false }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        if self.ids { DType::U32 } else { DType::F32 }
    }
}

impl NamedLayer {
    /// A layer with this name and the inputs of each of its calls.
    pub fn new(name: impl Into<String>, layer: impl Into<LayerConfig>, calls: Vec<Vec<ValueRef>>) -> Self {
        Self { name: name.into(), layer: layer.into(), calls }
    }
}

impl OutputConfig {
    /// An output with this name.
    pub fn new(name: impl Into<String>, value: ValueRef) -> Self {
        Self { name: name.into(), value }
    }
}

impl ValueRef {
    /// Refers to an input, or to the only output of a layer that is called once.
    pub fn new(of: impl Into<String>) -> Self {
        Self { of: of.into(), call: 0, output: 0 }
    }
}

/// Shows `lstm`, or with indices other than 0, `lstm call 1 output 2`.
impl std::fmt::Display for ValueRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.of)?;
        if self.call > 0 {
            write!(f, " call {}", self.call)?;
        }
        if self.output > 0 {
            write!(f, " output {}", self.output)?;
        }
        Ok(())
    }
}

/// One call of a layer, with the shapes of its inputs.
pub(crate) struct Visit<'a> {
    pub(crate) name: &'a str,
    /// The prefix of the names of its weights.
    pub(crate) prefix: &'a str,
    pub(crate) layer: &'a LayerConfig,
    /// The index of the layer.
    pub(crate) index: usize,
    pub(crate) call: usize,
    pub(crate) inputs: &'a [ValueRef],
    pub(crate) shapes: &'a [&'a Shape],
    /// The shapes of the outputs.
    pub(crate) outputs: &'a [Vec<Option<usize>>],
}

impl NetworkConfig {
    /// A network of these inputs, layers and outputs, which is checked when it is used.
    pub const fn new(inputs: Vec<InputConfig>, layers: Vec<NamedLayer>, outputs: Vec<OutputConfig>) -> Self {
        Self { inputs, layers, outputs }
    }

    /// A chain of layers with an input named `input` and an output named `output`. If the last layer has several
    /// outputs, they are named `output`, `output_1` and so on.
    ///
    /// # Errors
    /// [`Error::Input`] if a layer cannot take the output of the one before it, [`Error::Option`] if options contradict
    /// each other, there is no layer, or a layer before the last has several outputs.
    pub fn sequential(layers: &[LayerConfig], input_shape: &[Option<usize>]) -> Result<Self> {
        Self::sequential_named(layers, input_shape, ["input", "output"])
    }

    /// [`Self::sequential`] with other names for the input and the output.
    ///
    /// # Errors
    /// As [`Self::sequential`].
    pub fn sequential_named(
        layers: &[LayerConfig],
        input_shape: &[Option<usize>],
        [input_name, output_name]: [&str; 2],
    ) -> Result<Self> {
        let Some(first) = layers.first() else {
            return Err(bad_option("sequential", "layers", "is empty"));
        };
        let ids = first.module().takes_ids();
        let input = InputConfig { name: input_name.into(), shape: input_shape.to_vec(), ids };
        let mut config = Self { inputs: vec![input], layers: Vec::new(), outputs: Vec::new() };
        let (mut shape, mut from) = (input_shape.to_vec(), ValueRef::new(input_name));
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        for (n, layer) in layers.iter().enumerate() {
            let name = loop {
                let number = numbers.entry(layer.class_name()).or_default();
                let name = numbered(layer.class_name(), *number);
                *number += 1;
                if name != input_name {
                    break name;
                }
            };
            let outputs = layer.module().all_output_shapes(&name, &[&shape])?;
            if outputs.len() > 1 && n + 1 < layers.len() {
                return Err(bad_option(
                    &name,
                    "return_state or merge_mode",
                    "gives several outputs, which only the last layer of a Sequential may do",
                ));
            }
            if n + 1 == layers.len() {
                config.outputs = (0..outputs.len())
                    .map(|output| OutputConfig {
                        name: if output == 0 { output_name.into() } else { format!("{output_name}_{output}") },
                        value: ValueRef { output, ..ValueRef::new(name.as_str()) },
                    })
                    .collect();
            }
            config.layers.push(NamedLayer { name: name.clone(), layer: layer.clone(), calls: vec![vec![from]] });
            from = ValueRef::new(name);
            shape.clone_from(&outputs[0]);
        }
        Ok(config)
    }

    /// Whether it is a chain of layers, as [`Self::sequential`] makes it.
    pub fn is_sequential(&self) -> bool {
        let [input] = &self.inputs[..] else { return false };
        let before = std::iter::once(&input.name).chain(self.layers.iter().map(|l| &l.name));
        let chained = |(of, layer): (&String, &NamedLayer)| matches!(&layer.calls[..], [call] if matches!(&call[..], [v] if *v == ValueRef::new(of.as_str())));
        let last = self.layers.last().map(|l| &l.name);
        let at_the_end =
            |(n, o): (usize, &OutputConfig)| Some(&o.value.of) == last && (o.value.call, o.value.output) == (0, n);
        before.zip(&self.layers).all(chained) && self.outputs.iter().enumerate().all(at_the_end)
    }

    /// An unused name for a layer of a class, as Keras chooses it: `dense`, then `dense_1` and so on.
    pub(crate) fn free_name(&self, class: &str) -> String {
        let names = self.layers.iter().map(|l| &l.name).chain(self.inputs.iter().map(|i| &i.name));
        let taken: HashSet<&String> = names.collect();
        (0..).map(|n| numbered(class, n)).find(|n| !taken.contains(n)).expect("there are more numbers than layers")
    }

    /// Calls `visit` with the name and shape of every weight that the layers need. Stops at the first error of `visit`.
    ///
    /// # Errors
    /// [`Error::Input`] and [`Error::Option`] as [`crate::Network::new`]; those of `visit`.
    pub fn visit_weights(&self, mut visit: impl FnMut(&str, &[usize]) -> Result<()>) -> Result<()> {
        self.walk(|v| match v.call {
            0 => v.weights()?.iter().try_for_each(|(name, dims)| visit(name, dims)),
            _ => Ok(()),
        })?;
        Ok(())
    }

    /// The shapes of the outputs; `None` stands for any size.
    ///
    /// # Errors
    /// [`Error::Input`] and [`Error::Option`] as [`crate::Network::new`].
    pub fn output_shapes(&self) -> Result<Vec<Vec<Option<usize>>>> {
        let shapes = self.walk(|_| Ok(()))?;
        Ok(self.outputs.iter().map(|o| shapes[&o.value].clone()).collect())
    }

    /// Calls `visit` for every call of a layer, in an order in which the shapes of its inputs are known. Returns the
    /// shapes of all values.
    pub(crate) fn walk(
        &self,
        mut visit: impl FnMut(&Visit<'_>) -> Result<()>,
    ) -> Result<HashMap<ValueRef, Vec<Option<usize>>>> {
        self.check_names()?;
        // For each value whether it holds ids, and its shape.
        let mut known: HashMap<ValueRef, (bool, Vec<Option<usize>>)> =
            self.inputs.iter().map(|i| (ValueRef::new(i.name.as_str()), (i.ids, i.shape.clone()))).collect();
        let mut features: Vec<Option<usize>> = vec![None; self.layers.len()];
        let mut weights = vec![None; self.layers.len()];
        for (index, call) in self.order()? {
            let NamedLayer { name, layer, calls } = &self.layers[index];
            let inputs = &calls[call][..];
            let find = |v| known.get(v).ok_or_else(|| bad_option(name, "inputs", self.why_missing(v)));
            let values = inputs.iter().map(find).collect::<Result<Vec<_>>>()?;
            let ids = layer.module().takes_ids();
            if let Some((value, _)) = inputs.iter().zip(&values).find(|(_, v)| v.0 != ids) {
                let kinds = if ids { ["ids", "floats"] } else { ["floats", "ids"] };
                let message = format!("must be {}, but `{value}` holds {}", kinds[0], kinds[1]);
                return Err(bad_option(name, "inputs", message));
            }
            let shapes: Vec<&Shape> = values.iter().map(|v| &v.1[..]).collect();
            let outputs = layer.module().all_output_shapes(name, &shapes)?;
            let own = layer.module().features(name, shapes[0])?;
            if *features[index].get_or_insert(own) != own {
                let first = features[index].unwrap_or_default();
                let message = format!("is called with {own} features and with {first}, but its weights are shared");
                return Err(bad_option(name, "calls", message));
            }
            let prefix = format!("layers.{index}");
            let own = layer.module().weights(&shapes, &prefix);
            if *weights[index].get_or_insert_with(|| own.clone()) != own {
                let message = "are of different shapes, for which the shared weights do not fit";
                return Err(bad_option(name, "calls", message));
            }
            let (prefix, shapes, outputs) = (&prefix[..], &shapes[..], &outputs[..]);
            visit(&Visit { name, prefix, layer, index, call, inputs, shapes, outputs })?;
            for (output, shape) in outputs.iter().enumerate() {
                known.insert(ValueRef { of: name.clone(), call, output }, (false, shape.clone()));
            }
        }
        for o in &self.outputs {
            if !known.contains_key(&o.value) {
                return Err(bad_option("network", "outputs", format!("`{}`: {}", o.name, self.why_missing(&o.value))));
            }
        }
        Ok(known.into_iter().map(|(v, (_, shape))| (v, shape)).collect())
    }

    /// Sorts all calls so that each comes after those it depends on.
    fn order(&self) -> Result<Vec<(usize, usize)>> {
        let places: HashMap<&str, usize> = self.layers.iter().enumerate().map(|(n, l)| (&l.name[..], n)).collect();
        // For each call, the number of calls that it depends on, and the calls that depend on it.
        let mut open: HashMap<(usize, usize), usize> = HashMap::new();
        let mut waiting: HashMap<(usize, usize), Vec<(usize, usize)>> = HashMap::new();
        let mut order = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            for (call, inputs) in layer.calls.iter().enumerate() {
                let mut count = 0;
                for value in inputs {
                    match places.get(&value.of[..]) {
                        Some(&of) if value.call < self.layers[of].calls.len() => {
                            waiting.entry((of, value.call)).or_default().push((index, call));
                            count += 1;
                        }
                        None if self.inputs.iter().any(|i| *value == ValueRef::new(i.name.as_str())) => {}
                        _ => return Err(bad_option(&layer.name, "inputs", self.why_missing(value))),
                    }
                }
                if count == 0 {
                    order.push((index, call));
                } else {
                    open.insert((index, call), count);
                }
            }
        }
        let mut next = 0;
        while let Some(done) = order.get(next) {
            for user in waiting.remove(done).unwrap_or_default() {
                let count = open.get_mut(&user).expect("it waits");
                *count -= 1;
                if *count == 0 {
                    open.remove(&user);
                    order.push(user);
                }
            }
            next += 1;
        }
        match open.keys().min() {
            None => Ok(order),
            Some(&(index, _)) => {
                let message = "are outputs of layers that wait for this one's, or for each other's";
                Err(bad_option(&self.layers[index].name, "inputs", message))
            }
        }
    }

    /// The message for a reference to a value that does not exist.
    fn why_missing(&self, value: &ValueRef) -> String {
        match self.layers.iter().find(|l| l.name == value.of) {
            Some(l) if value.call < l.calls.len() => {
                format!("`{value}` is not there: the layer has fewer outputs")
            }
            Some(l) => format!("`{value}` is not there: the layer is called {} times", l.calls.len()),
            None => format!("`{value}` is neither an input nor a layer"),
        }
    }

    fn check_names(&self) -> Result<()> {
        let bad = |argument, message: String| Err(bad_option("network", argument, message));
        for (argument, count) in
            [("inputs", self.inputs.len()), ("layers", self.layers.len()), ("outputs", self.outputs.len())]
        {
            if count == 0 {
                return bad(argument, "is empty".into());
            }
        }
        let mut seen = HashSet::new();
        let flowing = self.inputs.iter().map(|i| ("inputs", &i.name));
        for (argument, name) in flowing.chain(self.layers.iter().map(|l| ("layers", &l.name))) {
            if name.is_empty() || !seen.insert(name) {
                return bad(argument, format!("must have unique names, but `{name}` is empty or occurs twice"));
            }
        }
        seen.clear();
        if let Some(o) = self.outputs.iter().find(|o| o.name.is_empty() || !seen.insert(&o.name)) {
            return bad("outputs", format!("must have unique names, but `{}` is empty or occurs twice", o.name));
        }
        match self.layers.iter().find(|l| l.calls.is_empty() || l.calls.iter().any(Vec::is_empty)) {
            Some(l) => Err(bad_option(&l.name, "calls", "must be at least one, each with an input")),
            None => Ok(()),
        }
    }
}

impl Visit<'_> {
    /// The names and shapes of its weights.
    pub(crate) fn weights(&self) -> Result<Vec<(String, Vec<usize>)>> {
        let module = self.layer.module();
        module.features(self.name, self.shapes[0])?;
        Ok(module.weights(self.shapes, self.prefix))
    }
}

/// The name of the layer with this number of a class.
fn numbered(class: &str, number: usize) -> String {
    match number {
        0 => snake_case(class),
        n => format!("{}_{n}", snake_case(class)),
    }
}

/// Converts a class name such as `SimpleRNN` to `simple_rnn`, and `PReLU` to `p_re_lu`, as Keras names layers.
fn snake_case(class: &str) -> String {
    let mut out = String::new();
    let letters: Vec<char> = class.chars().collect();
    for (n, c) in letters.iter().enumerate() {
        let after_lower = n > 0 && letters[n - 1].is_lowercase();
        let before_lower = n > 0 && letters.get(n + 1).is_some_and(|next| next.is_lowercase());
        if c.is_uppercase() && (after_lower || before_lower) {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// The single input that most layers have.
///
/// # Errors
/// [`Error::Option`] if there are several.
pub(crate) fn one_input<'a>(name: &str, shapes: &[&'a Shape]) -> Result<&'a Shape, Error> {
    match shapes {
        &[one] => Ok(one),
        _ => Err(bad_option(name, "inputs", format!("must be one, but there are {}", shapes.len()))),
    }
}
