//! How the weights of a layer are trained, as a file says it.

use super::layers::Mapped;
use super::options::Options;
use crate::files::short;
use recurve_layers::{ActivityRegularization, Constraint, OrthogonalMode, Regularizer, Variable, WeightOptions};
use serde_json::{Map, Value};

/// The name of the option with the penalty for outputs.
const ACTIVITY: &str = "activity_regularizer";

/// An option that training cannot do, in words.
fn named(option: &str, value: &Value) -> String {
    format!("`{}` = {}", short(option), short(&value.to_string()))
}

impl Options<'_> {
    /// Takes the options of the weights. What training cannot do is kept by name.
    pub(super) fn weight_options(&mut self) -> WeightOptions {
        let mut options = WeightOptions::default();
        options.trainable = self.trainable;
        options.initializers = self.initializers();
        for (name, value) in self.take_ending(&["_regularizer", "_constraint"]) {
            let of = |option: fn(Variable) -> &'static str| Variable::ALL.iter().copied().find(|v| option(*v) == name);
            let known = match (of(Variable::regularizer), of(Variable::constraint)) {
                (Some(variable), _) => regularizer(&value).map(|r| options.regularizers.extend([(variable, r)])),
                (_, Some(variable)) => constraint(&value).map(|c| options.constraints.extend([(variable, c)])),
                _ if name == ACTIVITY => regularizer(&value).map(|r| options.activity_regularizer = Some(r)),
                _ => None,
            };
            if known.is_none() {
                options.unsupported.push(named(&name, &value));
            }
        }
        options
    }
}

/// Moves what a layer asks for to what training cannot do: everything of its weights but penalties that are sums over
/// all elements of a matrix.
pub(super) fn keep_sums_of_matrices(options: &mut WeightOptions, why: &str) {
    for (variable, regularizer) in std::mem::take(&mut options.regularizers) {
        let sums = matches!(regularizer, Regularizer::L1L2 { .. }) && variable != Variable::Bias;
        if sums {
            options.regularizers.insert(variable, regularizer);
        } else {
            options.unsupported.push(format!("`{}` of {why}", variable.regularizer()));
        }
    }
    for (variable, _) in std::mem::take(&mut options.constraints) {
        options.unsupported.push(format!("`{}` of {why}", variable.constraint()));
    }
}

/// Moves the penalty for outputs to what training cannot do.
pub(super) fn without_activity(options: &mut WeightOptions, why: &str) {
    if options.activity_regularizer.take().is_some() {
        options.unsupported.push(format!("`{ACTIVITY}` of {why}"));
    }
}

impl Mapped {
    /// The same with options that belong to the whole layer.
    pub(super) fn with_options(mut self, class: &str, mut options: WeightOptions) -> Self {
        if !options.trainable {
            self = self.frozen();
        }
        let wrapper = matches!(class, "TimeDistributed" | "Bidirectional" | "RNN");
        let several = self.has_several_outputs();
        let after = self.after.is_some();
        if let [own] = &mut self.layer.weight_options_mut()[..]
            && !wrapper
        {
            own.regularizers.append(&mut options.regularizers);
            own.constraints.append(&mut options.constraints);
            own.unsupported.append(&mut options.unsupported);
            own.initializers.append(&mut options.initializers);
            if !after && let Some(regularizer) = options.activity_regularizer.take() {
                own.activity_regularizer = Some(regularizer);
            }
        }
        // What is left belongs to what the layer gives.
        for variable in options.regularizers.keys() {
            options.unsupported.push(format!("`{}` of a {}", variable.regularizer(), short(class)));
        }
        for variable in options.constraints.keys() {
            options.unsupported.push(format!("`{}` of a {}", variable.constraint(), short(class)));
        }
        if several {
            without_activity(&mut options, "a layer with several outputs");
        }
        if options.activity_regularizer.is_none() && options.unsupported.is_empty() {
            return self;
        }
        let mut behind = ActivityRegularization::new(0.0, 0.0);
        behind.weight_options.activity_regularizer = options.activity_regularizer;
        behind.weight_options.unsupported = options.unsupported;
        if several {
            // Behind the first output would be no place for it.
            if let Some(own) = self.layer.weight_options_mut().into_iter().next() {
                own.unsupported.append(&mut behind.weight_options.unsupported);
            }
            return self;
        }
        self.activity = Some(behind);
        self
    }
}

/// The name of a class of Keras's own, in any of the forms that files have, and its options; `None` for one of somebody's
/// own.
pub(super) fn class(value: &Value) -> Option<(String, Map<String, Value>)> {
    if let Value::String(name) = value {
        return Some((name.clone(), Map::new()));
    }
    let own = value.get("registered_name").and_then(Value::as_str).is_some_and(|n| n.contains('>'));
    let foreign = value.get("module").and_then(Value::as_str).is_some_and(|m| !m.starts_with("keras."));
    let name = value.get("class_name").and_then(Value::as_str).filter(|n| !own && !foreign && !n.contains('>'))?;
    let options = value.get("config").and_then(Value::as_object).cloned().unwrap_or_default();
    Some((name.to_owned(), options))
}

/// Takes a number, which may be stored as an array of numpy; `None` if it is none.
pub(super) fn number(options: &mut Map<String, Value>, name: &str, default: f32) -> Option<f32> {
    let value = options.remove(name).unwrap_or_default();
    if value.is_null() {
        return Some(default);
    }
    let inner = value.get("config").and_then(|c| c.get("value")).or_else(|| value.get("value"));
    inner.unwrap_or(&value).as_f64().map(|v| v as f32)
}

/// Takes the axes of norms.
fn axes(options: &mut Map<String, Value>) -> Option<Vec<isize>> {
    let one = |v: &Value| v.as_i64().and_then(|n| isize::try_from(n).ok());
    match options.remove("axis") {
        None => Some(vec![0]),
        Some(Value::Array(list)) => list.iter().map(one).collect(),
        Some(other) => Some(vec![one(&other)?]),
    }
}

/// A penalty that a file names; `None` if it is not known.
fn regularizer(value: &Value) -> Option<Regularizer> {
    let (class, mut o) = class(value)?;
    // Keras 2 has a function of this name with other defaults.
    let default = if *value == "l1_l2" { 0.01 } else { 0.0 };
    let made = match &class[..] {
        "L1" | "l1" => Regularizer::l1(number(&mut o, "l1", 0.01)?),
        "L2" | "l2" => Regularizer::l2(number(&mut o, "l2", 0.01)?),
        "L1L2" | "l1l2" | "l1_l2" => Regularizer::l1_l2(number(&mut o, "l1", default)?, number(&mut o, "l2", default)?),
        "OrthogonalRegularizer" | "orthogonal_regularizer" => {
            let mode = match o.remove("mode").unwrap_or_else(|| "rows".into()).as_str()? {
                "rows" => OrthogonalMode::Rows,
                "columns" => OrthogonalMode::Columns,
                _ => return None,
            };
            Regularizer::orthogonal(number(&mut o, "factor", 0.01)?, mode)
        }
        _ => return None,
    };
    o.values().all(Value::is_null).then_some(made)
}

/// A constraint that a file names; `None` if it is not known.
fn constraint(value: &Value) -> Option<Constraint> {
    let (class, mut o) = class(value)?;
    let made = match &class[..] {
        "MaxNorm" | "max_norm" | "maxnorm" => {
            Constraint::max_norm(number(&mut o, "max_value", 2.0)?).axis(&axes(&mut o)?)
        }
        "NonNeg" | "non_neg" | "nonneg" => Constraint::NonNeg,
        "UnitNorm" | "unit_norm" | "unitnorm" => Constraint::unit_norm().axis(&axes(&mut o)?),
        "MinMaxNorm" | "min_max_norm" => {
            let [low, high, rate] =
                [("min_value", 0.0), ("max_value", 1.0), ("rate", 1.0)].map(|(n, d)| number(&mut o, n, d));
            Constraint::min_max_norm(low?, high?, rate?).axis(&axes(&mut o)?)
        }
        _ => return None,
    };
    o.values().all(Value::is_null).then_some(made)
}
