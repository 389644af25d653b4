//! Derivatives of functions of one operand.

use super::prelude::*;
use super::{Binary, Where};
use crate::ValueId;
use core::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};
use recurve_tensor::Function;
use recurve_vocabulary::Activation;

/// The gradient of x for `y = f(x)`: `dy · f'(x)`. The second input is y, or x if [`Activation::slope_needs_input`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ActivationGradient(pub Activation);

impl Operator for ActivationGradient {
    fn name(&self) -> &'static str {
        "ActivationGradient"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("dy"), Slot::Required("value")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let (dy, value) = (float(inputs, 0)?, float(inputs, 1)?);
        let same = dy.rank() == value.rank() && dy.dims.iter().zip(&value.dims).all(|(a, b)| a.meet(b).is_some());
        if same { Ok(vec![value.clone()]) } else { Err(Fault::Input(1, format!("of the shape of dy, {dy}"))) }
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        Ok(one(call.input(0).activation_gradient(call.input(1), self.0)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (dy, value) = (array(inputs, 0), array(inputs, 1));
        let slope = |v: f64| match self.0.slope_needs_input() {
            true => recurve_reference::slope(self.0, v),
            false => of_result(self.0, v),
        };
        let data = dy.data.iter().zip(&value.data).map(|(&dy, &v)| dy * slope(v));
        vec![Some(Array::new(&value.dims, data.collect()))]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The derivative of a function whose result is y.
fn of_result(f: Activation, y: f64) -> f64 {
    let wide = f64::from;
    let either = |holds: bool, then: f64, or: f64| if holds { then } else { or };
    match f {
        _ if y.is_nan() => y,
        Activation::Linear => 1.0,
        Activation::Sigmoid => y * (1.0 - y),
        Activation::Tanh => 1.0 - y * y,
        Activation::Relu | Activation::ThresholdedRelu { .. } => either(y > 0.0, 1.0, 0.0),
        Activation::HardSigmoid { alpha, .. } => either(y > 0.0 && y < 1.0, wide(alpha), 0.0),
        Activation::Affine { alpha, .. } => wide(alpha),
        Activation::LeakyRelu { alpha } => either(y > 0.0, 1.0, wide(alpha)),
        Activation::ScaledTanh { alpha: 0.0, .. } => 0.0,
        Activation::ScaledTanh { alpha, beta } => wide(beta) * (wide(alpha) - y * y / wide(alpha)),
        Activation::Elu { alpha } => either(y > 0.0, 1.0, y + wide(alpha)),
        Activation::Softsign => (1.0 - y.abs()).powi(2),
        Activation::Softplus => 1.0 - (-y).exp(),
        Activation::Positive => either(y < 0.5, y * (1.0 - y), 1.0),
        // A function without a definition here gives NaN, which agrees with nothing.
        _ => f64::NAN,
    }
}

/// Adds the gradient of the only input of a node `y = f(x)`.
pub(super) fn of_function(g: &mut Gradients<'_>, f: Function, dy: ValueId, x: ValueId) -> crate::Result<()> {
    let y = g.output(0);
    let square = |g: &mut Gradients<'_>, v: ValueId| g.times(v, v);
    let affine = |g: &mut Gradients<'_>, v: ValueId, alpha: f32, beta: f32| {
        g.node(super::Activate(Activation::Affine { alpha, beta }), &[v])
    };
    // dy / √(alpha v² + beta)
    let by_root = |g: &mut Gradients<'_>, alpha: f32, beta: f32| {
        let squared = g.times(x, x)?;
        let inner = g.node(super::Activate(Activation::Affine { alpha, beta }), &[squared])?;
        let root = g.map(Function::Sqrt, inner)?;
        g.node(Binary::Div, &[dy, root])
    };
    let negative = |g: &mut Gradients<'_>, v: ValueId| g.map(Function::Neg, v);
    let factor = match f {
        Function::Identity | Function::RoundF16 | Function::RoundBf16 => {
            g.give(0, dy);
            return Ok(());
        }
        // Constant but for jumps, or whole numbers and truth values.
        Function::Ceil
        | Function::Floor
        | Function::Round
        | Function::Sign
        | Function::IsInf { .. }
        | Function::IsNan
        | Function::Not
        | Function::NonZero
        | Function::Whole { .. } => return Ok(()),
        Function::Abs => g.map(Function::Sign, x)?,
        Function::Neg => {
            let dx = negative(g, dy)?;
            g.give(0, dx);
            return Ok(());
        }
        Function::Exp => y,
        Function::Log => g.map(Function::Reciprocal, x)?,
        Function::Sqrt => {
            let twice = affine(g, y, 2.0, 0.0)?;
            g.map(Function::Reciprocal, twice)?
        }
        Function::Reciprocal => {
            let squared = square(g, y)?;
            negative(g, squared)?
        }
        Function::Sin => g.map(Function::Cos, x)?,
        Function::Cos => {
            let sine = g.map(Function::Sin, x)?;
            negative(g, sine)?
        }
        Function::Tan => {
            let squared = square(g, y)?;
            affine(g, squared, 1.0, 1.0)?
        }
        Function::Sinh => g.map(Function::Cosh, x)?,
        Function::Cosh => g.map(Function::Sinh, x)?,
        Function::Asin | Function::Acos | Function::Asinh => {
            let dx = by_root(g, if f == Function::Asinh { 1.0 } else { -1.0 }, 1.0)?;
            let dx = if f == Function::Acos { negative(g, dx)? } else { dx };
            g.give(0, dx);
            return Ok(());
        }
        Function::Acosh => {
            let dx = by_root(g, 1.0, -1.0)?;
            g.give(0, dx);
            return Ok(());
        }
        Function::Atan | Function::Atanh => {
            let squared = square(g, x)?;
            let inner = affine(g, squared, if f == Function::Atan { 1.0 } else { -1.0 }, 1.0)?;
            g.map(Function::Reciprocal, inner)?
        }
        Function::Erf => {
            let squared = square(g, x)?;
            let inner = negative(g, squared)?;
            let bell = g.map(Function::Exp, inner)?;
            affine(g, bell, FRAC_2_SQRT_PI, 0.0)?
        }
        Function::Clip { low, high } => {
            // As PyTorch's clamp: 1 at the limits too.
            let (low, high) = (g.number(low)?, g.number(high)?);
            let above = g.node(Binary::GreaterOrEqual, &[x, low])?;
            let below = g.node(Binary::LessOrEqual, &[x, high])?;
            let zero = g.number(0.0)?;
            let dx = g.node(Where, &[above, dy, zero])?;
            let dx = g.node(Where, &[below, dx, zero])?;
            g.give(0, dx);
            return Ok(());
        }
        Function::Celu { alpha } => {
            let scaled = affine(g, x, 1.0 / alpha, 0.0)?;
            let grown = g.map(Function::Exp, scaled)?;
            below_zero(g, x, grown, 1.0)?
        }
        Function::Selu { alpha, gamma } => {
            let grown = g.map(Function::Exp, x)?;
            let grown = affine(g, grown, alpha * gamma, 0.0)?;
            below_zero(g, x, grown, gamma)?
        }
        Function::HardSwish => {
            // x / 3 + 1/2 between -3 and 3
            let inner = affine(g, x, 1.0 / 3.0, 0.5)?;
            let (low, high) = (g.number(-3.0)?, g.number(3.0)?);
            let (zero, one) = (g.number(0.0)?, g.number(1.0)?);
            let below = g.node(Binary::Less, &[x, low])?;
            let above = g.node(Binary::Greater, &[x, high])?;
            let inner = g.node(Where, &[below, zero, inner])?;
            g.node(Where, &[above, one, inner])?
        }
        Function::Gelu => {
            // Φ(x) + x φ(x)
            let scaled = affine(g, x, FRAC_1_SQRT_2, 0.0)?;
            let erf = g.map(Function::Erf, scaled)?;
            let cumulated = affine(g, erf, 0.5, 0.5)?;
            let squared = square(g, x)?;
            let inner = affine(g, squared, -0.5, 0.0)?;
            let bell = g.map(Function::Exp, inner)?;
            let bell = affine(g, bell, 0.5 * FRAC_1_SQRT_2 * FRAC_2_SQRT_PI, 0.0)?;
            let bell = g.times(x, bell)?;
            g.node(Binary::Add, &[cumulated, bell])?
        }
        Function::GeluTanh => {
            // t = tanh(c (x + 0.044715 x³)): (1 + t) / 2 + x (1 - t²) c (1 + 3 · 0.044715 x²) / 2
            let c = core::f32::consts::FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
            let squared = square(g, x)?;
            let poly = affine(g, squared, 0.044_715 * c, c)?;
            let inner = g.times(x, poly)?;
            let t = g.node(super::Activate(Activation::Tanh), &[inner])?;
            let half = affine(g, t, 0.5, 0.5)?;
            let t2 = square(g, t)?;
            let rest = affine(g, t2, -0.5, 0.5)?;
            let slope = affine(g, squared, 3.0 * 0.044_715 * c, c)?;
            let slope = g.times(x, slope)?;
            let slope = g.times(slope, rest)?;
            g.node(Binary::Add, &[half, slope])?
        }
        Function::Mish => {
            // t = tanh(softplus(x)): t + x (1 - t²) σ(x)
            let soft = g.node(super::Activate(Activation::Softplus), &[x])?;
            let t = g.node(super::Activate(Activation::Tanh), &[soft])?;
            let t2 = square(g, t)?;
            let rest = affine(g, t2, -1.0, 1.0)?;
            let sigmoid = g.node(super::Activate(Activation::Sigmoid), &[x])?;
            let slope = g.times(x, rest)?;
            let slope = g.times(slope, sigmoid)?;
            g.node(Binary::Add, &[t, slope])?
        }
        Function::Swish { alpha } => {
            // s = σ(alpha x): s + alpha y (1 - s)
            let scaled = affine(g, x, alpha, 0.0)?;
            let s = g.node(super::Activate(Activation::Sigmoid), &[scaled])?;
            let rest = affine(g, s, -alpha, alpha)?;
            let slope = g.times(y, rest)?;
            g.node(Binary::Add, &[s, slope])?
        }
        other => return Err(g.missing(&format!("{other:?} has none"))),
    };
    let dx = g.times(dy, factor)?;
    g.give(0, dx);
    Ok(())
}

/// `above` where x is above 0, else another value.
fn below_zero(g: &mut Gradients<'_>, x: ValueId, below: ValueId, above: f32) -> crate::Result<ValueId> {
    let (zero, above) = (g.number(0.0)?, g.number(above)?);
    let holds = g.node(Binary::Greater, &[x, zero])?;
    g.node(Where, &[holds, above, below])
}
