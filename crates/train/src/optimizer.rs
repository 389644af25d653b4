//! Optimisers.

use crate::builder::Builder;
use crate::error::{check, check_range};
use crate::{Clip, Error, Result};
use recurve_graph::ops::Descend;
use recurve_graph::{Assembly, Dim, Element, ValueId};
use recurve_tensor::{Decay, Descent};
use serde::{Deserialize, Serialize};

/// Whose arithmetic is computed where Keras and PyTorch differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Form {
    /// Keras's. A weight decay d with a learning rate r first multiplies the parameter by `1 - r d`.
    #[default]
    Keras,
    /// PyTorch's. A weight decay d adds `d w` to the gradient, except with [`Adam::adamw_pytorch`].
    Pytorch,
}

/// Gradient descent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sgd {
    /// The learning rate r.
    pub learning_rate: f64,
    /// The part μ of the old sum of the gradients.
    pub momentum: f64,
    /// PyTorch's `dampening` d; 0 in Keras's form.
    pub dampening: f64,
    /// Looks ahead by the momentum.
    pub nesterov: bool,
    /// The weight decay.
    pub weight_decay: f64,
    /// Keras: `m ← μ m - r g`, `w ← w + m`, with Nesterov `w ← w + μ m - r g`. PyTorch: `m ← μ m + (1 - d) g`, in the
    /// first step `m ← g`, and `w ← w - r m`, with Nesterov `w ← w - r (g + μ m)`. They differ where the learning rate
    /// changes.
    pub form: Form,
}

/// RMSprop.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RmsProp {
    /// The learning rate r.
    pub learning_rate: f64,
    /// The part of the old mean: Keras's `rho`, PyTorch's `alpha`.
    pub rho: f64,
    /// The part of the old sum of changes.
    pub momentum: f64,
    /// The number ε that keeps the divisor from 0.
    pub epsilon: f64,
    /// Divides by the deviation of the gradients from their mean. A variance that rounding makes negative is 0.
    pub centered: bool,
    /// The weight decay.
    pub weight_decay: f64,
    /// Keras divides by `√(v + ε)` and adds up `r g / √(v + ε)`, PyTorch by `√v + ε` and multiplies the sum by r.
    pub form: Form,
}

/// Adam, and AdamW.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Adam {
    /// The learning rate r.
    pub learning_rate: f64,
    /// The part of the old mean of the gradients.
    pub beta_1: f64,
    /// The part of the old mean of their squares.
    pub beta_2: f64,
    /// The number ε that keeps the divisor from 0.
    pub epsilon: f64,
    /// Divides by the largest mean of squares so far.
    pub amsgrad: bool,
    /// The weight decay.
    pub weight_decay: f64,
    /// The weight decay multiplies the parameter, as in AdamW, instead of being added to the gradient. Keras's form
    /// always does so.
    pub decoupled: bool,
    /// With `c = 1 - β^t` for step t, Keras divides `r √c₂ / c₁ m` by `√v + ε`, PyTorch `r / c₁ m` by `√(v / c₂) + ε`.
    /// With `amsgrad` both take the largest v before it is divided by c₂.
    pub form: Form,
}

/// Adagrad.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Adagrad {
    /// The learning rate r.
    pub learning_rate: f64,
    /// What the sums of squares are at first.
    pub initial_accumulator: f64,
    /// PyTorch's `lr_decay` d: the learning rate of step t is `r / (1 + (t - 1) d)`.
    pub learning_rate_decay: f64,
    /// The number ε that keeps the divisor from 0.
    pub epsilon: f64,
    /// The weight decay.
    pub weight_decay: f64,
    /// Keras divides by `√(v + ε)`, PyTorch by `√v + ε`.
    pub form: Form,
}

/// Lion, as Keras has it; PyTorch has none.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Lion {
    /// The learning rate.
    pub learning_rate: f64,
    /// The part of the state in the mean whose sign is taken.
    pub beta_1: f64,
    /// The part of the old state in the new one.
    pub beta_2: f64,
    /// The weight decay, which multiplies the parameter.
    pub weight_decay: f64,
}

impl Sgd {
    /// With Keras's defaults: the learning rate 0.01.
    pub const fn keras() -> Self {
        let form = Form::Keras;
        Self { learning_rate: 0.01, momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0, form }
    }

    /// With PyTorch's defaults: the learning rate 0.001.
    pub const fn pytorch() -> Self {
        Self { learning_rate: 0.001, form: Form::Pytorch, ..Self::keras() }
    }
}

impl RmsProp {
    /// With Keras's defaults: learning rate 0.001, rho 0.9, epsilon 1e-7.
    pub const fn keras() -> Self {
        Self {
            learning_rate: 0.001,
            rho: 0.9,
            momentum: 0.0,
            epsilon: 1e-7,
            centered: false,
            weight_decay: 0.0,
            form: Form::Keras,
        }
    }

    /// With PyTorch's defaults: learning rate 0.01, alpha 0.99, epsilon 1e-8.
    pub const fn pytorch() -> Self {
        Self { learning_rate: 0.01, rho: 0.99, epsilon: 1e-8, form: Form::Pytorch, ..Self::keras() }
    }
}

impl Adam {
    /// With Keras's defaults: learning rate 0.001, epsilon 1e-7.
    pub const fn keras() -> Self {
        Self {
            learning_rate: 0.001,
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-7,
            amsgrad: false,
            weight_decay: 0.0,
            decoupled: true,
            form: Form::Keras,
        }
    }

    /// With the defaults of PyTorch's `Adam`: learning rate 0.001, epsilon 1e-8.
    pub const fn pytorch() -> Self {
        Self { epsilon: 1e-8, decoupled: false, form: Form::Pytorch, ..Self::keras() }
    }

    /// With the defaults of Keras's `AdamW`: weight decay 0.004.
    pub const fn adamw_keras() -> Self {
        Self { weight_decay: 0.004, ..Self::keras() }
    }

    /// With the defaults of PyTorch's `AdamW`: weight decay 0.01.
    pub const fn adamw_pytorch() -> Self {
        Self { weight_decay: 0.01, decoupled: true, ..Self::pytorch() }
    }
}

impl Adagrad {
    /// With Keras's defaults: learning rate 0.001, sums of 0.1 at first, epsilon 1e-7.
    pub const fn keras() -> Self {
        Self {
            learning_rate: 0.001,
            initial_accumulator: 0.1,
            learning_rate_decay: 0.0,
            epsilon: 1e-7,
            weight_decay: 0.0,
            form: Form::Keras,
        }
    }

    /// With PyTorch's defaults: learning rate 0.01, sums of 0 at first, epsilon 1e-10.
    pub const fn pytorch() -> Self {
        Self { learning_rate: 0.01, initial_accumulator: 0.0, epsilon: 1e-10, form: Form::Pytorch, ..Self::keras() }
    }
}

impl Lion {
    /// With Keras's defaults: learning rate 0.001, betas 0.9 and 0.99.
    pub const fn keras() -> Self {
        Self { learning_rate: 0.001, beta_1: 0.9, beta_2: 0.99, weight_decay: 0.0 }
    }
}

/// An optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Optimizer {
    /// Gradient descent.
    Sgd(Sgd),
    /// RMSprop.
    #[serde(rename = "rmsprop")]
    RmsProp(RmsProp),
    /// Adam, and AdamW.
    Adam(Adam),
    /// Adagrad.
    Adagrad(Adagrad),
    /// Lion.
    Lion(Lion),
}

macro_rules! kinds {
    ($($kind:ident { $($field:ident: $ty:ty),* })*) => {
        $(
            impl $kind {
                $(
                    #[doc = concat!("The same with another `", stringify!($field), "`.")]
                    #[must_use]
                    pub const fn $field(self, $field: $ty) -> Self {
                        Self { $field, ..self }
                    }
                )*
            }

            impl Default for $kind {
                /// With Keras's defaults.
                fn default() -> Self {
                    Self::keras()
                }
            }

            impl From<$kind> for Optimizer {
                fn from(of: $kind) -> Self {
                    Self::$kind(of)
                }
            }
        )*
    };
}
kinds! {
    Sgd { learning_rate: f64, momentum: f64, dampening: f64, nesterov: bool, weight_decay: f64 }
    RmsProp { learning_rate: f64, rho: f64, momentum: f64, epsilon: f64, centered: bool, weight_decay: f64 }
    Adam { learning_rate: f64, beta_1: f64, beta_2: f64, epsilon: f64, amsgrad: bool, weight_decay: f64 }
    Adagrad {
        learning_rate: f64, initial_accumulator: f64, learning_rate_decay: f64, epsilon: f64, weight_decay: f64
    }
    Lion { learning_rate: f64, beta_1: f64, beta_2: f64, weight_decay: f64 }
}

/// A parameter in a graph, with its gradient and the states of an optimiser.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Parameter {
    /// The parameter.
    pub value: ValueId,
    /// Its gradient.
    pub gradient: ValueId,
    /// Its states, in the order of [`Optimizer::states`].
    pub states: Vec<ValueId>,
    /// Whether the weight decay is applied to it.
    pub decays: bool,
}

impl Parameter {
    /// A parameter to which the weight decay is applied.
    pub fn new(value: ValueId, gradient: ValueId, states: impl Into<Vec<ValueId>>) -> Self {
        Self { value, gradient, states: states.into(), decays: true }
    }

    /// Whether the weight decay is applied to it.
    #[must_use]
    pub fn decays(self, decays: bool) -> Self {
        Self { decays, ..self }
    }
}

/// A parameter after a step.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Updated {
    /// The parameter.
    pub value: ValueId,
    /// Its states.
    pub states: Vec<ValueId>,
}

impl Optimizer {
    /// Its name, as in Keras.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Sgd(_) => "sgd",
            Self::RmsProp(_) => "rmsprop",
            Self::Adam(_) => "adam",
            Self::Adagrad(_) => "adagrad",
            Self::Lion(_) => "lion",
        }
    }

    /// The learning rate, from which a schedule may start.
    pub const fn learning_rate(&self) -> f64 {
        match self {
            Self::Sgd(o) => o.learning_rate,
            Self::RmsProp(o) => o.learning_rate,
            Self::Adam(o) => o.learning_rate,
            Self::Adagrad(o) => o.learning_rate,
            Self::Lion(o) => o.learning_rate,
        }
    }

    const fn weight_decay(&self) -> f64 {
        match self {
            Self::Sgd(o) => o.weight_decay,
            Self::RmsProp(o) => o.weight_decay,
            Self::Adam(o) => o.weight_decay,
            Self::Adagrad(o) => o.weight_decay,
            Self::Lion(o) => o.weight_decay,
        }
    }

    /// The names of the states that it keeps for each parameter, each of the parameter's shape.
    pub const fn states(&self) -> &'static [&'static str] {
        match self {
            Self::Sgd(o) => match o.momentum == 0.0 {
                true => &[],
                false => &["momentum"],
            },
            Self::RmsProp(o) => match (o.momentum == 0.0, o.centered) {
                (true, false) => &["velocity"],
                (true, true) => &["velocity", "average_gradient"],
                (false, false) => &["velocity", "momentum"],
                (false, true) => &["velocity", "momentum", "average_gradient"],
            },
            Self::Adam(o) => match o.amsgrad {
                false => &["momentum", "velocity"],
                true => &["momentum", "velocity", "velocity_hat"],
            },
            Self::Adagrad(_) => &["accumulator"],
            Self::Lion(_) => &["momentum"],
        }
    }

    /// What every element of the states is before the first step.
    pub const fn initial_state(&self) -> f32 {
        match self {
            Self::Adagrad(o) => o.initial_accumulator as f32,
            _ => 0.0,
        }
    }

    /// The arithmetic.
    const fn rule(&self) -> Descent {
        match self {
            Self::Sgd(o) => Descent::Gradient { momentum: o.momentum != 0.0 },
            Self::RmsProp(o) => Descent::Root { momentum: o.momentum != 0.0, centered: o.centered },
            Self::Adam(o) => Descent::Moments { amsgrad: o.amsgrad },
            Self::Adagrad(_) => Descent::Root { momentum: false, centered: false },
            Self::Lion(_) => Descent::Sign,
        }
    }

    fn decay(&self) -> Decay {
        let (form, decoupled) = match self {
            Self::Sgd(o) => (o.form, false),
            Self::RmsProp(o) => (o.form, false),
            Self::Adam(o) => (o.form, o.decoupled),
            Self::Adagrad(o) => (o.form, false),
            Self::Lion(_) => (Form::Keras, true),
        };
        match (self.weight_decay() == 0.0, form == Form::Keras || decoupled) {
            (true, _) => Decay::None,
            (false, true) => Decay::Parameter,
            (false, false) => Decay::Gradient,
        }
    }

    /// Checks the options.
    ///
    /// # Errors
    /// [`Error::Option`] for the first that is out of range.
    pub fn check(&self) -> Result<()> {
        let of = self.name();
        let part = |argument, v| check_range(of, argument, v, 0.0, 1.0);
        let positive = |argument, v| check_range(of, argument, v, 0.0, f64::INFINITY);
        positive("learning_rate", self.learning_rate())?;
        positive("weight_decay", self.weight_decay())?;
        match self {
            Self::Sgd(o) => {
                part("momentum", o.momentum)?;
                let dampening = o.dampening == 0.0 || o.form == Form::Pytorch;
                check(of, "dampening", dampening, || "is of PyTorch's form only".into())?;
                check(of, "dampening", o.dampening.is_finite(), || {
                    format!("must be finite, but it is {}", o.dampening)
                })?;
                let ahead = o.form == Form::Keras || (o.momentum > 0.0 && o.dampening == 0.0);
                check(of, "nesterov", !o.nesterov || ahead, || "needs a momentum, and no dampening".into())
            }
            Self::RmsProp(o) => {
                part("rho", o.rho)?;
                part("momentum", o.momentum)?;
                positive("epsilon", o.epsilon)
            }
            Self::Adam(o) => {
                part("beta_1", o.beta_1)?;
                part("beta_2", o.beta_2)?;
                positive("epsilon", o.epsilon)?;
                let decoupled = o.decoupled || o.form != Form::Keras;
                check(of, "decoupled", decoupled, || "must hold in Keras's form".into())
            }
            Self::Adagrad(o) => {
                positive("initial_accumulator", o.initial_accumulator)?;
                positive("learning_rate_decay", o.learning_rate_decay)?;
                positive("epsilon", o.epsilon)
            }
            Self::Lion(o) => {
                part("beta_1", o.beta_1)?;
                part("beta_2", o.beta_2)
            }
        }
    }

    /// The numbers of a step, of which the first is 1, with a learning rate: the input `rates` of [`Self::add`].
    ///
    /// # Errors
    /// [`Error::Option`] for options out of range, a learning rate that is negative or not finite, or step 0.
    pub fn rates(&self, learning_rate: f64, step: u64) -> Result<[f32; Descent::RATES]> {
        self.check()?;
        check_range(self.name(), "learning_rate", learning_rate, 0.0, f64::INFINITY)?;
        check(self.name(), "step", step > 0, || "must be at least 1, but it is 0".into())?;
        let r = learning_rate;
        let decay = self.weight_decay() * if self.decay() == Decay::Parameter { r } else { 1.0 };
        // 1 - β^t
        let rest = |beta: f64| -(step as f64 * beta.ln()).exp_m1();
        let numbers = match self {
            Self::Sgd(Sgd { momentum, nesterov, form: Form::Keras, .. }) => match nesterov {
                _ if *momentum == 0.0 => [decay, 0.0, 0.0, 0.0, -r, 0.0, 0.0, 0.0],
                true => [decay, *momentum, -r, *momentum, -r, 0.0, 0.0, 0.0],
                false => [decay, *momentum, -r, 1.0, 0.0, 0.0, 0.0, 0.0],
            },
            Self::Sgd(Sgd { momentum, dampening, nesterov, .. }) => {
                let (old, new) = if step == 1 { (0.0, 1.0) } else { (*momentum, 1.0 - dampening) };
                match nesterov {
                    _ if *momentum == 0.0 => [decay, 0.0, 0.0, 0.0, -r, 0.0, 0.0, 0.0],
                    true => [decay, old, new, -r * momentum, -r, 0.0, 0.0, 0.0],
                    false => [decay, old, new, -r, 0.0, 0.0, 0.0, 0.0],
                }
            }
            Self::RmsProp(RmsProp { rho, momentum, epsilon, form, .. }) => match form {
                Form::Keras => [decay, *rho, 1.0 - rho, *epsilon, 0.0, *momentum, r, 1.0],
                Form::Pytorch => [decay, *rho, 1.0 - rho, 0.0, *epsilon, *momentum, 1.0, r],
            },
            Self::Adam(Adam { beta_1, beta_2, epsilon, form, .. }) => {
                let (first, second) = (rest(*beta_1), rest(*beta_2).sqrt());
                let (rate, root) = match form {
                    Form::Keras => (r * second / first, 1.0),
                    Form::Pytorch => (r / first, 1.0 / second),
                };
                [decay, 1.0 - beta_1, 1.0 - beta_2, rate, root, *epsilon, 0.0, 0.0]
            }
            Self::Adagrad(Adagrad { learning_rate_decay, epsilon, form, .. }) => {
                let r = r / (1.0 + (step - 1) as f64 * learning_rate_decay);
                let (inside, outside) = if *form == Form::Keras { (*epsilon, 0.0) } else { (0.0, *epsilon) };
                [decay, 1.0, 1.0, inside, outside, 0.0, 1.0, r]
            }
            Self::Lion(Lion { beta_1, beta_2, .. }) => {
                [decay, *beta_1, 1.0 - beta_1, *beta_2, 1.0 - beta_2, r, 0.0, 0.0]
            }
        };
        Ok(numbers.map(|v| v as f32))
    }

    /// Adds nodes that update parameters: gradients are limited by `clip`, and each parameter and its states are
    /// computed by one node, over the old ones where nothing else needs them. `rates` are those of [`Self::rates`], f32
    /// `[8]`, so that nothing of the graph depends on the learning rate or the step.
    ///
    /// # Errors
    /// [`Error::Option`] for options out of range, [`Error::Operand`] for values whose shape is not that of the
    /// parameter, or another number of states; errors of the graph.
    pub fn add(
        &self,
        assembly: &mut Assembly,
        parameters: &[Parameter],
        rates: ValueId,
        clip: Option<Clip>,
    ) -> Result<Vec<Updated>> {
        self.check()?;
        let of = self.name();
        let b = Builder { assembly, name: of };
        for p in parameters {
            let kind = b.kind(p.value);
            let dims = &kind.dims;
            if kind.dtype != Element::F32 || kind.unranked {
                return Err(b.operand("parameter", "f32 of a known number of dimensions", p.value));
            }
            if p.states.len() != self.states().len() {
                let expected = format!("{} values: {}", self.states().len(), self.states().join(", "));
                return Err(Error::Operand {
                    of,
                    argument: "states",
                    expected,
                    got: format!("{} values", p.states.len()),
                });
            }
            for (argument, &id) in [("gradient", &p.gradient)].into_iter().chain(p.states.iter().map(|s| ("states", s)))
            {
                let other = b.kind(id);
                let same = |(a, b): (&Dim, &Dim)| a.meet(b).is_some();
                let fits = other.dtype == Element::F32
                    && other.rank() == dims.len()
                    && !other.unranked
                    && other.dims.iter().zip(dims).all(same);
                if !fits {
                    return Err(b.operand(argument, format!("of the shape of the parameter, {kind}"), id));
                }
            }
        }
        let gradients: Vec<ValueId> = parameters.iter().map(|p| p.gradient).collect();
        let gradients = match clip {
            Some(clip) => clip.add(assembly, &gradients)?,
            None => gradients,
        };
        let mut b = Builder { assembly, name: of };
        let mut done = Vec::with_capacity(parameters.len());
        for (p, gradient) in parameters.iter().zip(gradients) {
            let decay = if p.decays { self.decay() } else { Decay::None };
            let inputs: Vec<ValueId> = [p.value, gradient, rates].into_iter().chain(p.states.iter().copied()).collect();
            let mut outputs = b.nodes(Descend { rule: self.rule(), decay }, &inputs, 1 + p.states.len())?;
            let states = outputs.split_off(1);
            done.push(Updated { value: outputs[0], states });
        }
        Ok(done)
    }
}
