//! The options of a layer. Each is taken by name; what is left at the end is not supported, and refused by name.

use super::config::{Parser, Version};
use crate::files::short;
use recurve_layers::ActivationFunction;
use recurve_vocabulary::Activation;
use serde_json::{Map, Value};

/// What holds for a whole file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    /// The version of Keras that wrote it.
    pub(super) version: Version,
    /// Whether its kernels of convolutions are reversed, as those of Theano are, if the file says so.
    pub(super) reversed: Option<bool>,
    /// Whether the network gets initial weights, so that the initializers count.
    pub(super) initial: bool,
}

/// Options that change nothing at inference.
const IDLE: [&str; 22] = [
    "name",
    "batch_input_shape",
    "batch_shape",
    "input_shape",
    "input_dtype",
    "input_length",
    "input_dim",
    "build_config",
    "autocast",
    "seed",
    "noise_shape",
    "implementation",
    "unroll",
    "consume_less",
    "init",
    "inner_init",
    "forget_bias_init",
    "unit_forget_bias",
    "renorm_momentum",
    "renorm_clipping",
    "supports_masking",
    "synchronized",
];
/// The ending of such options.
const IDLE_END: &str = "_initializer";

/// The options of a layer that have not been taken yet.
pub(super) struct Options<'a> {
    pub(super) layer: &'a str,
    pub(super) class: &'a str,
    pub(super) context: Context,
    /// Whether the weights are trained: neither this layer nor one around it says no.
    pub(super) trainable: bool,
    map: Map<String, Value>,
    parser: &'a mut Parser,
    notes: &'a mut Vec<String>,
}

impl<'a> Options<'a> {
    pub(super) fn new(
        (layer, class): (&'a str, &'a str),
        map: &Map<String, Value>,
        context: Context,
        parser: &'a mut Parser,
        notes: &'a mut Vec<String>,
    ) -> Self {
        let trainable = is_trainable(map);
        Self { layer, class, context, trainable, map: map.clone(), parser, notes }
    }

    /// The options of a layer inside this one, which has its name in messages.
    pub(super) fn inner<'b>(&'b mut self, class: &'b str, map: &Map<String, Value>) -> Options<'b> {
        let (layer, context) = (self.layer, self.context);
        let trainable = self.trainable && is_trainable(map);
        let (parser, notes) = (&mut *self.parser, &mut *self.notes);
        Options { layer, class, context, trainable, map: map.clone(), parser, notes }
    }

    pub(super) fn problem(&mut self, message: impl Into<String>) {
        self.parser.problem(self.layer, self.class, message);
    }

    /// An option by any of its names; `None` if it is not there or null.
    pub(super) fn take(&mut self, names: &[&str]) -> Option<Value> {
        names.iter().filter_map(|n| self.map.remove(*n)).find(|v| !v.is_null())
    }

    /// An option whose null is not the same as its absence.
    pub(super) fn raw(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name)
    }

    /// All options whose names have one of these endings, but those that are null.
    pub(super) fn take_ending(&mut self, ends: &[&str]) -> Vec<(String, Value)> {
        let ending = |name: &String| ends.iter().any(|e| name.ends_with(e));
        let (taken, left) =
            std::mem::take(&mut self.map).into_iter().partition::<Map<_, _>, _>(|(name, _)| ending(name));
        self.map = left;
        taken.into_iter().filter(|(_, value)| !value.is_null()).collect()
    }

    /// Puts an option back.
    pub(super) fn put(&mut self, name: &str, value: Value) {
        self.map.insert(name.into(), value);
    }

    fn wrong(&mut self, name: &str, wanted: &str, got: &Value) {
        let got = short(&got.to_string());
        self.problem(format!("`{name}` must be {wanted}, but it is {got}"));
    }

    pub(super) fn flag(&mut self, names: &[&str], default: bool) -> bool {
        match self.take(names) {
            None => default,
            Some(Value::Bool(on)) => on,
            Some(other) => {
                self.wrong(names[0], "true or false", &other);
                default
            }
        }
    }

    /// A number of at least 1; a problem if it is not there.
    pub(super) fn size(&mut self, names: &[&str]) -> Option<usize> {
        let value = self.take(names);
        let size = value.as_ref().and_then(whole).filter(|&n| n > 0);
        if size.is_none() {
            self.wrong(names[0], "a whole number of at least 1", &value.unwrap_or_default());
        }
        size
    }

    /// A number of at least 1, by default 1.
    pub(super) fn count(&mut self, names: &[&str]) -> usize {
        match self.take(names) {
            None => 1,
            Some(value) => {
                self.put(names[0], value);
                self.size(names).unwrap_or(1)
            }
        }
    }

    /// An option that must be 1.
    pub(super) fn only_one(&mut self, names: &[&str]) {
        if let Some(value) = self.take(names)
            && value != 1
        {
            self.wrong(names[0], "1", &value);
        }
    }

    /// A whole number, which may be negative.
    pub(super) fn axis(&mut self, names: &[&str], default: isize) -> isize {
        match self.take(names) {
            None => default,
            Some(value) => {
                // Some versions write the only axis in a list.
                let one = value.as_array().filter(|l| l.len() == 1).map_or(&value, |l| &l[0]);
                match one.as_i64().and_then(|n| isize::try_from(n).ok()) {
                    Some(n) => n,
                    None => {
                        self.wrong(names[0], "a whole number", &value);
                        default
                    }
                }
            }
        }
    }

    pub(super) fn number(&mut self, names: &[&str], default: f32) -> f32 {
        match self.take(names) {
            None => default,
            Some(value) => {
                // A number may be stored as an array of numpy.
                let inner = value.get("config").and_then(|c| c.get("value")).or_else(|| value.get("value"));
                match inner.unwrap_or(&value).as_f64() {
                    Some(n) => n as f32,
                    None => {
                        self.wrong(names[0], "a number", &value);
                        default
                    }
                }
            }
        }
    }

    /// A share of elements that training drops.
    pub(super) fn rate(&mut self, names: &[&str]) -> f32 {
        self.number(names, 0.0)
    }

    /// The dimensions of what a dropout draws.
    pub(super) fn noise_shape(&mut self) -> Option<Vec<Option<usize>>> {
        let value = self.take(&["noise_shape"])?;
        let size = |v: &Value| if v.is_null() { Some(None) } else { whole(v).filter(|&n| n > 0).map(Some) };
        let sizes = value.as_array().and_then(|list| list.iter().map(size).collect());
        if sizes.is_none() {
            self.wrong("noise_shape", "a list of sizes above 0 and of null", &value);
        }
        sizes
    }

    pub(super) fn text(&mut self, names: &[&str], default: &str) -> String {
        match self.take(names) {
            None => default.into(),
            Some(Value::String(text)) => text,
            Some(other) => {
                self.wrong(names[0], "a text", &other);
                default.into()
            }
        }
    }

    /// A list of whole numbers.
    pub(super) fn list(&mut self, names: &[&str]) -> Option<Vec<isize>> {
        let value = self.take(names)?;
        let number = |v: &Value| v.as_i64().and_then(|n| isize::try_from(n).ok());
        let list = match &value {
            Value::Array(list) => list.iter().map(number).collect(),
            one => number(one).map(|n| vec![n]),
        };
        if list.is_none() {
            self.wrong(names[0], "whole numbers", &value);
        }
        list
    }

    /// `N` numbers of at least `least`: one for each axis, or one for all.
    pub(super) fn sizes<const N: usize>(&mut self, names: &[&str], least: usize) -> Option<[usize; N]> {
        let value = self.take(names)?;
        let each = match &value {
            Value::Array(list) => list.iter().map(whole).collect::<Option<Vec<_>>>(),
            one => whole(one).map(|n| vec![n; N]),
        };
        let sizes = each.and_then(|e| <[usize; N]>::try_from(e).ok()).filter(|s| s.iter().all(|&n| n >= least));
        if sizes.is_none() {
            let many = if N == 1 { "a whole number".into() } else { format!("{N} whole numbers") };
            self.wrong(names[0], &format!("{many} of at least {least}"), &value);
        }
        sizes
    }

    /// Numbers before and behind each of `N` axes: one for all, one for each axis, or both for each.
    pub(super) fn borders<const N: usize>(&mut self, names: &[&str], default: usize) -> [[usize; 2]; N] {
        let Some(value) = self.take(names) else { return [[default; 2]; N] };
        let pair = |v: &Value| match v {
            Value::Array(both) => match &both[..] {
                [a, b] => Some([whole(a)?, whole(b)?]),
                [one] => whole(one).map(|n| [n; 2]),
                _ => None,
            },
            one => whole(one).map(|n| [n; 2]),
        };
        let each = match &value {
            Value::Array(list) if N > 1 || list.iter().any(Value::is_array) => list.iter().map(pair).collect(),
            one => pair(one).map(|p| vec![p; N]),
        };
        match each.and_then(|e: Vec<_>| <[[usize; 2]; N]>::try_from(e).ok()) {
            Some(borders) => borders,
            None => {
                self.wrong(names[0], "whole numbers before and behind each axis", &value);
                [[default; 2]; N]
            }
        }
    }

    /// An activation function; `linear` if it is not there.
    pub(super) fn function(&mut self, names: &[&str], default: Activation) -> ActivationFunction {
        let Some(value) = self.take(names) else { return default.into() };
        match function(&value, self.context.version) {
            Ok(f) => f,
            Err(e) => {
                self.problem(format!("`{}` is {e}", names[0]));
                default.into()
            }
        }
    }

    /// An activation function that a recurrent cell can have.
    pub(super) fn activation(&mut self, names: &[&str], default: Activation) -> Activation {
        match self.function(names, default) {
            ActivationFunction::Elementwise(f) => f,
            other => {
                self.problem(format!("`{}` is {other:?}, which recurrent layers do not have", names[0]));
                default
            }
        }
    }

    /// Checks that nothing is left. Floats of another width are computed as f32, which is noted.
    pub(super) fn finish(mut self) {
        self.flag(&["trainable"], true);
        if let Some(dtype) = self.take(&["dtype", "dtype_policy"]) {
            let policy = dtype.get("config").and_then(|c| c.get("name")).unwrap_or(&dtype);
            match policy.as_str() {
                Some(p) if p.contains("_from_") || p.starts_with("float8") || p.starts_with("int4") => {
                    self.problem(format!("its weights are quantized (`{}`), which is not supported", short(p)));
                }
                Some("float32" | "int8" | "uint8" | "int16" | "int32" | "int64" | "bool") => {}
                Some(p) => {
                    let note = format!("layers of the type `{}` are computed in float32", short(p));
                    if !self.notes.contains(&note) {
                        self.notes.push(note);
                    }
                }
                None => self.wrong("dtype", "the name of a type", &dtype),
            }
        }
        let left = std::mem::take(&mut self.map);
        for (name, value) in left {
            let idle = IDLE.contains(&&name[..]) || name.ends_with(IDLE_END);
            if !idle && !value.is_null() {
                let value = short(&value.to_string());
                self.problem(format!("`{}` = {value} is not supported", short(&name)));
            }
        }
    }
}

/// Whether a layer with these options says that its weights are trained.
fn is_trainable(map: &Map<String, Value>) -> bool {
    map.get("trainable") != Some(&Value::Bool(false))
}

/// A whole number that is not negative.
fn whole(v: &Value) -> Option<usize> {
    let one = v.as_array().filter(|l| l.len() == 1).map_or(v, |l| &l[0]);
    one.as_u64().and_then(|n| usize::try_from(n).ok())
}

/// The function that a file names, as the version that wrote it meant it; otherwise what it is.
fn function(value: &Value, version: Version) -> Result<ActivationFunction, String> {
    use ActivationFunction as F;
    let name = match value {
        Value::String(name) => name,
        Value::Object(object) => {
            let config = object.get("config").unwrap_or(&Value::Null);
            match (object.get("class_name").and_then(Value::as_str).unwrap_or_default(), config) {
                // A function by its name.
                ("function", Value::String(name)) => name,
                (class, Value::Object(options)) => return object_function(class, options),
                (class, _) => return Err(format!("`{}`, which is not supported", short(class))),
            }
        }
        other => return Err(format!("{}, and not a function", short(&other.to_string()))),
    };
    Ok(match &name[..] {
        "linear" => Activation::Linear.into(),
        "sigmoid" => Activation::Sigmoid.into(),
        "tanh" => Activation::Tanh.into(),
        "relu" => Activation::Relu.into(),
        "hard_sigmoid" if version.major < 3 => Activation::HARD_SIGMOID_KERAS2.into(),
        "hard_sigmoid" => Activation::HARD_SIGMOID_KERAS3.into(),
        "elu" => Activation::Elu { alpha: 1.0 }.into(),
        "softplus" => Activation::Softplus.into(),
        "softsign" => Activation::Softsign.into(),
        "leaky_relu" => Activation::LeakyRelu { alpha: 0.2 }.into(),
        "softmax" => F::Softmax,
        "log_softmax" => F::LogSoftmax,
        "gelu" => F::Gelu,
        "silu" | "swish" => F::Silu,
        "selu" => F::Selu,
        "mish" => F::Mish,
        "exponential" => F::Exponential,
        "hard_silu" | "hard_swish" => F::HardSilu,
        "relu6" => F::Relu6,
        "celu" => F::Celu { alpha: 1.0 },
        "hard_tanh" => F::HardTanh,
        "log_sigmoid" => F::LogSigmoid,
        "tanh_shrink" => F::TanhShrink,
        "soft_shrink" => F::SoftShrink { threshold: 0.5 },
        "squareplus" => F::SquarePlus { b: 4.0 },
        other => return Err(format!("the function `{}`, which is not supported", short(other))),
    })
}

/// The function of a layer that is used as an activation.
fn object_function(class: &str, options: &Map<String, Value>) -> Result<ActivationFunction, String> {
    let number = |names: &[&str], default: f32| {
        names.iter().find_map(|n| options.get(*n)).and_then(Value::as_f64).map_or(default, |n| n as f32)
    };
    let absent = |name: &str, idle: f64| options.get(name).is_none_or(|v| v.is_null() || v.as_f64() == Some(idle));
    Ok(match class {
        "LeakyReLU" => Activation::LeakyRelu { alpha: number(&["negative_slope", "alpha"], 0.3) }.into(),
        "ELU" => Activation::Elu { alpha: number(&["alpha"], 1.0) }.into(),
        "ThresholdedReLU" => Activation::ThresholdedRelu { alpha: number(&["theta"], 1.0) }.into(),
        "ReLU" if absent("max_value", f64::NAN) && absent("threshold", 0.0) => match number(&["negative_slope"], 0.0) {
            0.0 => Activation::Relu.into(),
            alpha => Activation::LeakyRelu { alpha }.into(),
        },
        "Softmax" if absent("axis", -1.0) => ActivationFunction::Softmax,
        other => return Err(format!("a `{}`, which is not supported as an activation", short(other))),
    })
}
