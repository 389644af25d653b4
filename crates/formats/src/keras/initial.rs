//! How the weights of a layer are drawn, as a description says it. This counts where a network gets initial weights; a
//! file has the weights themselves.

use super::options::Options;
use super::trained::{class, number};
use crate::files::short;
use recurve_layers::{Fan, Initializer, RecurrentSpec, Spread, Variable};
use recurve_vocabulary::CellKind;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The end of the names of such options.
const END: &str = "_initializer";

/// Variables that are not drawn, with the initializers that they have.
const FIXED: [(&str, Initializer); 2] =
    [("moving_mean_initializer", Initializer::Zeros), ("moving_variance_initializer", Initializer::Ones)];

impl Options<'_> {
    /// Takes the initializers of a network with initial weights. What cannot be drawn is a problem.
    pub(super) fn initializers(&mut self) -> BTreeMap<Variable, Initializer> {
        let mut all = BTreeMap::new();
        if !self.context.initial {
            return all;
        }
        for (name, value) in self.take_ending(&[END]) {
            let refused = |why: &str| format!("`{}` = {}{why}", short(&name), short(&value.to_string()));
            let how = match initializer(&value) {
                Ok(how) => how,
                Err(why) => {
                    self.problem(refused(&format!(" is not supported: {why}")));
                    continue;
                }
            };
            if let Some(variable) = Variable::ALL.iter().find(|v| v.initializer() == name) {
                all.insert(*variable, how);
            } else if !FIXED.iter().any(|(fixed, own)| *fixed == name && *own == how) {
                self.problem(refused(" is not supported"));
            }
        }
        all
    }

    /// Moves the initializers of a cell from the options of its weights to those of the cell.
    pub(super) fn recurrent_initializers(&mut self, spec: &mut RecurrentSpec) {
        if !self.context.initial {
            return;
        }
        if matches!(spec.cell.kind, CellKind::Lstm { .. }) {
            spec.unit_forget_bias = self.flag(&["unit_forget_bias"], true);
        }
        for (variable, how) in std::mem::take(&mut spec.weight_options.initializers) {
            let identity = matches!(how, Initializer::Identity { .. });
            let place = match variable {
                Variable::Kernel => &mut spec.kernel_initializer,
                Variable::Recurrent => &mut spec.recurrent_initializer,
                Variable::Bias => &mut spec.bias_initializer,
                other => {
                    self.problem(format!("`{}` is not supported", other.initializer()));
                    continue;
                }
            };
            if identity && matches!(spec.cell.kind, CellKind::Gru { .. }) {
                // Keras's first gate is another one.
                self.problem(format!("`{}` is an identity, which a GRU does not have", variable.initializer()));
            } else if variable == Variable::Bias && reads_shape(how) {
                let message = "depends on the shape, which is not supported for the biases of recurrent layers";
                self.problem(format!("`{}` {message}", variable.initializer()));
            } else {
                *place = how;
            }
        }
    }
}

/// Whether what is drawn depends on the shape of the variable.
fn reads_shape(how: Initializer) -> bool {
    !matches!(
        how,
        Initializer::Zeros
            | Initializer::Ones
            | Initializer::Constant { .. }
            | Initializer::RandomUniform { .. }
            | Initializer::RandomNormal { .. }
            | Initializer::TruncatedNormal { .. }
    )
}

/// An initializer that a description names, by a name or with its options; otherwise why it cannot be drawn.
fn initializer(value: &Value) -> Result<Initializer, String> {
    let Some((class, mut o)) = class(value) else { return Err("it is no initializer of Keras's own".into()) };
    let mut take = |name: &str, default: f32| {
        number(&mut o, name, default).ok_or_else(|| format!("its `{name}` is not one number"))
    };
    // Names and classes, and those of earlier versions.
    let made = match &class[..] {
        "zeros" | "Zeros" | "zero" => Initializer::Zeros,
        "ones" | "Ones" | "one" => Initializer::Ones,
        "constant" | "Constant" => Initializer::Constant { value: take("value", 0.0)? },
        "glorot_uniform" | "GlorotUniform" => Initializer::GlorotUniform,
        "glorot_normal" | "GlorotNormal" => Initializer::GlorotNormal,
        "he_uniform" | "HeUniform" => Initializer::HeUniform,
        "he_normal" | "HeNormal" => Initializer::HeNormal,
        "lecun_uniform" | "LecunUniform" => Initializer::LecunUniform,
        "lecun_normal" | "LecunNormal" => Initializer::LecunNormal,
        "random_uniform" | "RandomUniform" | "uniform" => {
            Initializer::RandomUniform { low: take("minval", -0.05)?, high: take("maxval", 0.05)? }
        }
        "random_normal" | "RandomNormal" | "normal" => {
            Initializer::RandomNormal { mean: take("mean", 0.0)?, std: take("stddev", 0.05)? }
        }
        "truncated_normal" | "TruncatedNormal" => {
            Initializer::TruncatedNormal { mean: take("mean", 0.0)?, std: take("stddev", 0.05)? }
        }
        "orthogonal" | "Orthogonal" | "OrthogonalInitializer" => match take("gain", 1.0)? {
            1.0 => Initializer::Orthogonal,
            gain => Initializer::ScaledOrthogonal { gain },
        },
        "identity" | "Identity" | "IdentityInitializer" => Initializer::Identity { gain: take("gain", 1.0)? },
        "variance_scaling" | "VarianceScaling" => {
            let scale = take("scale", 1.0)?;
            let mode = match text(&mut o, "mode", "fan_in")?.as_str() {
                "fan_in" => Fan::FanIn,
                "fan_out" => Fan::FanOut,
                "fan_avg" => Fan::FanAvg,
                other => return Err(format!("its `mode` is `{}`", short(other))),
            };
            let distribution = match text(&mut o, "distribution", "truncated_normal")?.as_str() {
                // The word of earlier versions.
                "truncated_normal" | "normal" => Spread::TruncatedNormal,
                "untruncated_normal" => Spread::UntruncatedNormal,
                "uniform" => Spread::Uniform,
                other => return Err(format!("its `distribution` is `{}`", short(other))),
            };
            Initializer::VarianceScaling { scale, mode, distribution }
        }
        other => return Err(format!("`{}` is not known", short(other))),
    };
    if o.remove("seed").is_some_and(|seed| !seed.is_null()) {
        return Err("it has a `seed` of its own, but the seed is that of the whole network".into());
    }
    o.remove("dtype");
    match o.iter().find(|(_, value)| !value.is_null()) {
        Some((name, _)) => Err(format!("its `{}` is not known", short(name))),
        None => Ok(made),
    }
}

/// Takes a text.
fn text(options: &mut Map<String, Value>, name: &str, default: &str) -> Result<String, String> {
    match options.remove(name) {
        None | Some(Value::Null) => Ok(default.into()),
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!("its `{name}` is {}", short(&other.to_string()))),
    }
}
