//! Exact gradients of the definitions: a number that records how it was computed.
//!
//! [`gradient`] runs a definition with [`Var`] in the place of `f64`. Every operation adds a node with its operands and
//! its partial derivatives to a list of the thread; going through the list from its end gives the gradient by the chain
//! rule.
//!
//! Where a function has a corner, the side that its definition takes there counts. For the activations this is
//! PyTorch's choice: 0 for ReLU at 0, and for a clamped value at its limits; alpha for leaky ReLU and ELU at 0.

use crate::{Drawn, Real, Recurrence, recurrence_with};
use core::cell::RefCell;
use core::cmp::Ordering;
use core::ops::{Add, Div, Mul, Neg, Sub};
use recurve_vocabulary::DirectionWeights;

/// A number inside [`gradient`].
#[derive(Clone, Copy, Debug)]
pub struct Var {
    value: f64,
    /// The node that computed it; [`CONSTANT`] if no input of the gradient took part.
    node: u32,
}

const CONSTANT: u32 = u32::MAX;

/// An operation: its operands and the partial derivatives by them.
#[derive(Clone, Copy)]
struct Node {
    operands: [u32; 2],
    slopes: [f64; 2],
}

thread_local! {
    static TAPE: RefCell<Vec<Node>> = const { RefCell::new(Vec::new()) };
}

/// A node for a value. An operand that is a constant is left out.
fn record(value: f64, operands: [Var; 2], slopes: [f64; 2]) -> Var {
    if operands.iter().all(|v| v.node == CONSTANT) {
        return Var { value, node: CONSTANT };
    }
    push(value, Node { operands: operands.map(|v| v.node), slopes })
}

fn push(value: f64, node: Node) -> Var {
    TAPE.with_borrow_mut(|tape| {
        let index =
            u32::try_from(tape.len()).ok().filter(|&n| n != CONSTANT).expect("a definition of fewer operations");
        tape.push(node);
        Var { value, node: index }
    })
}

impl Var {
    /// A number that is not an input.
    pub const fn constant(value: f64) -> Self {
        Self { value, node: CONSTANT }
    }

    /// The value.
    pub const fn value(self) -> f64 {
        self.value
    }

    /// The result of a function of this number, with its derivative.
    fn map(self, value: f64, slope: f64) -> Self {
        record(value, [self, Self::constant(0.0)], [slope, 0.0])
    }
}

impl PartialEq for Var {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl PartialOrd for Var {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.value.partial_cmp(&other.value)
    }
}

impl Add for Var {
    type Output = Self;
    fn add(self, b: Self) -> Self {
        record(self.value + b.value, [self, b], [1.0, 1.0])
    }
}

impl Sub for Var {
    type Output = Self;
    fn sub(self, b: Self) -> Self {
        record(self.value - b.value, [self, b], [1.0, -1.0])
    }
}

impl Mul for Var {
    type Output = Self;
    fn mul(self, b: Self) -> Self {
        record(self.value * b.value, [self, b], [b.value, self.value])
    }
}

impl Div for Var {
    type Output = Self;
    fn div(self, b: Self) -> Self {
        let value = self.value / b.value;
        record(value, [self, b], [1.0 / b.value, -value / b.value])
    }
}

impl Neg for Var {
    type Output = Self;
    fn neg(self) -> Self {
        self.map(-self.value, -1.0)
    }
}

impl Real for Var {
    const ZERO: Self = Self::constant(0.0);
    const ONE: Self = Self::constant(1.0);
    fn from_f32(v: f32) -> Self {
        Self::constant(v.into())
    }
    fn to_f64(self) -> f64 {
        self.value
    }
    fn exp(self) -> Self {
        let value = self.value.exp();
        self.map(value, value)
    }
    fn ln_1p(self) -> Self {
        self.map(self.value.ln_1p(), 1.0 / (1.0 + self.value))
    }
    fn exp_m1(self) -> Self {
        self.map(self.value.exp_m1(), self.value.exp())
    }
    fn tanh(self) -> Self {
        let value = self.value.tanh();
        self.map(value, 1.0 - value * value)
    }
    fn sqrt(self) -> Self {
        let value = self.value.sqrt();
        self.map(value, 0.5 / value)
    }
    /// The derivative at 0 is -1: the definitions of softplus and of ln σ add `|x|` to a branch that then has the right
    /// derivative there.
    fn abs(self) -> Self {
        self.map(self.value.abs(), if self.value > 0.0 { 1.0 } else { -1.0 })
    }
}

/// The gradient of the sum of outputs times their weights by every input. `f` gets the inputs as numbers and returns the
/// outputs, each with its weight (the gradient of a loss by that output).
///
/// # Panics
/// If `f` computes a gradient itself.
pub fn gradient(inputs: &[f64], f: impl FnOnce(&[Var]) -> Vec<(Var, f64)>) -> Vec<f64> {
    /// Empties the list, also where `f` panics.
    struct Clear;
    impl Drop for Clear {
        fn drop(&mut self) {
            TAPE.take();
        }
    }
    assert!(TAPE.with_borrow(Vec::is_empty), "gradient computed inside a gradient");
    let _clear = Clear;
    let none = Node { operands: [CONSTANT; 2], slopes: [0.0; 2] };
    let vars: Vec<Var> = inputs.iter().map(|&value| push(value, none)).collect();
    let outputs = f(&vars);
    let tape = TAPE.take();
    let mut by = vec![0.0; tape.len()];
    for (output, weight) in outputs {
        if output.node != CONSTANT {
            by[output.node as usize] += weight;
        }
    }
    for (n, node) in tape.iter().enumerate().rev() {
        let own = by[n];
        // A node that contributes nothing may have an infinite derivative.
        if own != 0.0 {
            for (&operand, slope) in node.operands.iter().zip(node.slopes) {
                if operand != CONSTANT {
                    by[operand as usize] += own * slope;
                }
            }
        }
    }
    by.truncate(inputs.len());
    by
}

/// The gradient of a loss by everything that [`crate::recurrence`] reads.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RecurrenceGradient {
    /// By the input, `[B, T, I]`.
    pub x: Vec<f64>,
    /// By the initial h, `[B, W]`, also where it is not given.
    pub h0: Vec<f64>,
    /// By the initial c, `[B, C·H]`, also where it is not given; empty for cells without one.
    pub c0: Vec<f64>,
    /// By each weight; empty where the layer has none.
    pub weights: DirectionWeights<f64>,
}

/// The gradient of a loss by input, initial states and weights of a layer, from its gradient by the outputs `dy` (`[B, T,
/// W]`), the final h `dh` (`[B, W]`) and the final c `dc` (`[B, C·H]`); zeros where one is `None`. `drawn` is what
/// training has drawn for the call.
pub fn recurrence_gradient(
    a: &Recurrence<'_, f64>,
    drawn: &Drawn<'_, f64>,
    dy: Option<&[f64]>,
    dh: Option<&[f64]>,
    dc: Option<&[f64]>,
) -> RecurrenceGradient {
    let w = a.weights;
    let (width, carried) = a.cell.state_sizes(a.hidden_size);
    let state = |s: Option<&[f64]>, n: usize| s.map_or_else(|| vec![0.0; a.batch * n], <[f64]>::to_vec);
    let (h0, c0) = (state(a.h0, width), state(a.c0, carried.unwrap_or(0)));
    let parts: [&[f64]; 12] =
        [a.x, &h0, &c0, &w.w_ih, &w.w_hh, &w.b_ih, &w.b_hh, &w.peepholes, &w.w_hr, &w.norm_ih, &w.norm_hh, &w.norm_c];
    let all = gradient(&parts.concat(), |vars| {
        let [x, h0, c0, w_ih, w_hh, b_ih, b_hh, peepholes, w_hr, norm_ih, norm_hh, norm_c] = split(&parts, vars);
        let weights =
            DirectionWeights { w_ih, w_hh, b_ih, b_hh, peepholes, w_hr, norm_ih, norm_hh, norm_c, rest: w.rest };
        let constants = |v: Option<&[f64]>| v.map(|v| v.iter().map(|&v| Var::constant(v)).collect::<Vec<_>>());
        let recurrent = constants(drawn.recurrent_dropout);
        let [zoneout_h, zoneout_c] = [drawn.zoneout_h, drawn.zoneout_c].map(constants);
        let out = recurrence_with(
            &Recurrence {
                cell: a.cell,
                direction: a.direction,
                weights: &weights,
                x: &x,
                batch: a.batch,
                timesteps: a.timesteps,
                input_size: a.input_size,
                hidden_size: a.hidden_size,
                h0: Some(&h0),
                c0: carried.map(|_| &c0[..]),
                lengths: a.lengths,
                mask: a.mask,
                masked_output: a.masked_output,
            },
            &Drawn {
                recurrent_dropout: recurrent.as_deref(),
                zoneout_h: zoneout_h.as_deref(),
                zoneout_c: zoneout_c.as_deref(),
            },
        );
        let mut weighted = Vec::new();
        for (out, by) in [(out.y, dy), (out.h, dh), (out.c, dc)] {
            if let Some(by) = by {
                assert_eq!(out.len(), by.len(), "a gradient for each element");
                weighted.extend(out.into_iter().zip(by.iter().copied()));
            }
        }
        weighted
    });
    let [x, h0, c0, w_ih, w_hh, b_ih, b_hh, peepholes, w_hr, norm_ih, norm_hh, norm_c] = split(&parts, &all);
    let weights = DirectionWeights { w_ih, w_hh, b_ih, b_hh, peepholes, w_hr, norm_ih, norm_hh, norm_c, rest: w.rest };
    RecurrenceGradient { x, h0, c0, weights }
}

/// Values in parts that are as long as those of `like`.
fn split<T: Copy, const N: usize>(like: &[&[f64]; N], mut values: &[T]) -> [Vec<T>; N] {
    like.map(|part| {
        let (own, rest) = values.split_at(part.len());
        values = rest;
        own.to_vec()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activate;
    use recurve_vocabulary::Activation;

    #[test]
    fn derivatives_by_hand() {
        // x² y + x / y at (3, 2), and a number that does not depend on them.
        let got = gradient(&[3.0, 2.0], |v| vec![(v[0] * v[0] * v[1] + v[0] / v[1], 2.0), (Var::ONE, 5.0)]);
        assert_eq!(got, [2.0 * (12.0 + 0.5), 2.0 * (9.0 - 0.75)]);
        assert_eq!(gradient(&[1.0], |_| vec![(Var::ONE, 1.0)]), [0.0]);
    }

    /// At corners, and for functions of `|x|` at 0.
    #[test]
    fn derivatives_at_corners() {
        use Activation::*;
        for (f, x, want) in [
            (Relu, 0.0, 0.0),
            (HardSigmoid { alpha: 0.25, beta: 0.5 }, 2.0, 0.0),
            (HardSigmoid { alpha: 0.25, beta: 0.5 }, -2.0, 0.0),
            (HardSigmoid { alpha: 0.25, beta: 0.5 }, 1.9, 0.25),
            (LeakyRelu { alpha: 0.5 }, 0.0, 0.5),
            (Elu { alpha: 0.75 }, 0.0, 0.75),
            (ThresholdedRelu { alpha: 0.5 }, 0.5, 0.0),
            (Softsign, 0.0, 1.0),
            (Softplus, 0.0, 0.5),
            (Positive, 0.0, 1.0),
        ] {
            assert_eq!(gradient(&[x], |v| vec![(activate(f, v[0]), 1.0)]), [want], "{f:?} at {x}");
        }
    }
}
