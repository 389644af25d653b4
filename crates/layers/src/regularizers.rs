//! Penalties that are added to the loss.

use crate::Result;
use crate::layer::bad_option;
use crate::lowering::Lowering;
use crate::weight_options::KerasVariable;
use recurve_graph::ops::{self, Extent};
use recurve_tensor::Reduction;
use recurve_vocabulary::Activation;
use serde::{Deserialize, Serialize};

/// A penalty that training adds to the loss, in Keras's words.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Regularizer {
    /// `l1 · Σ |x| + l2 · Σ x²`: Keras's `L1`, `L2` and `L1L2`.
    L1L2 {
        /// The factor of the sum of absolute values.
        l1: f32,
        /// The factor of the sum of squares.
        l2: f32,
    },
    /// Keras's `OrthogonalRegularizer`: the mean absolute product of any two rows or columns of a matrix, each divided by
    /// its norm, times half of `factor` for each of both orders.
    Orthogonal {
        /// The factor.
        factor: f32,
        /// Which vectors are to be orthogonal, of the matrix as Keras has it: that of a `Dense` is `[inputs, units]`.
        mode: OrthogonalMode,
    },
}

/// Which vectors of a matrix are to be orthogonal to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OrthogonalMode {
    /// The rows.
    #[default]
    Rows,
    /// The columns.
    Columns,
}

impl Regularizer {
    /// Keras's `L1`. Its default factor is 0.01.
    pub const fn l1(l1: f32) -> Self {
        Self::L1L2 { l1, l2: 0.0 }
    }

    /// Keras's `L2`. Its default factor is 0.01.
    pub const fn l2(l2: f32) -> Self {
        Self::L1L2 { l1: 0.0, l2 }
    }

    /// Keras's `L1L2`.
    pub const fn l1_l2(l1: f32, l2: f32) -> Self {
        Self::L1L2 { l1, l2 }
    }

    /// Keras's `OrthogonalRegularizer`. Its defaults are 0.01 and rows.
    pub const fn orthogonal(factor: f32, mode: OrthogonalMode) -> Self {
        Self::Orthogonal { factor, mode }
    }

    /// Checks that the factors are numbers that Keras takes.
    pub(crate) fn check(&self, layer: &str, argument: &'static str) -> Result<()> {
        let (a, b) = match *self {
            Self::L1L2 { l1, l2 } => (l1, l2),
            Self::Orthogonal { factor, .. } => (factor, 0.0),
        };
        match [a, b].iter().find(|f| !(f.is_finite() && **f >= 0.0)) {
            Some(f) => {
                let message = format!("must have factors that are finite and not negative, but one is {f}");
                Err(bad_option(layer, argument, message))
            }
            None => Ok(()),
        }
    }

    /// Adds the penalty of a variable to a graph.
    pub(crate) fn of_variable(&self, layer: &str, variable: &KerasVariable, into: &mut Lowering) -> Result<()> {
        match *self {
            Self::L1L2 { .. } => {
                for weight in &variable.weights {
                    self.add_sums(layer, into, |reduction, into| reduced(layer, reduction, None, weight, into));
                }
            }
            Self::Orthogonal { factor, mode } => {
                let dims = variable.keras_dims();
                let &[rows, columns] = &dims[..] else {
                    let message =
                        format!("is orthogonal, which is of matrices, but the variable has {} axes", dims.len());
                    return Err(bad_option(layer, variable.variable.regularizer(), message));
                };
                let count = if mode == OrthogonalMode::Rows { rows } else { columns };
                if count < 2 {
                    let message = format!("is orthogonal, which is of two or more vectors, but there are {count}");
                    return Err(bad_option(layer, variable.variable.regularizer(), message));
                }
                let matrix = variable.joined(layer, into);
                // In which of both orders the vectors are rows here.
                let turned = (variable.order == [1, 0]) != (mode == OrthogonalMode::Columns);
                let turn = |x: &str, into: &mut Lowering| into.node(layer, ops::Transpose(vec![1, 0]), &[x]);
                let rows = if turned { turn(&matrix, into) } else { matrix };
                let norms = reduced(layer, Reduction::L2, Some(vec![1]), &rows, into);
                let least = into.constant(layer, &[1], &[1e-7]);
                let norms = into.node(layer, ops::Binary::Max, &[&norms, &least]);
                let unit = into.node(layer, ops::Binary::Div, &[&rows, &norms]);
                let across = turn(&unit, into);
                let products = into.node(layer, ops::MatMul, &[&unit, &across]);
                // The products of vectors with themselves do not count.
                let all = reduced(layer, Reduction::L1, None, &products, into);
                let own = reduced(layer, Reduction::SumSquare, None, &unit, into);
                let others = into.node(layer, ops::Binary::Sub, &[&all, &own]);
                let pairs = count as f64 * (count as f64 - 1.0) / 2.0;
                let alpha = (f64::from(factor) * 0.5 / pairs) as f32;
                let penalty = scaled(layer, alpha, &others, into);
                into.add_penalty(layer, &penalty);
            }
        }
        Ok(())
    }

    /// Adds the penalty of outputs of a layer, divided by their number of sequences, which is the size of this axis.
    pub(crate) fn of_outputs(&self, layer: &str, (value, rank, axis): (&str, usize, usize), into: &mut Lowering) {
        // The mean over the sequences.
        self.add_sums(layer, into, |reduction, into| {
            let others: Vec<i64> = (0..rank as i64).filter(|&n| n != axis as i64).collect();
            let each = match reduction {
                Reduction::L1 => into.map(layer, recurve_tensor::Function::Abs, value),
                _ => into.node(layer, ops::Binary::Mul, &[value, value]),
            };
            let each = if others.is_empty() { each } else { reduced(layer, Reduction::Sum, Some(others), &each, into) };
            reduced(layer, Reduction::Mean, None, &each, into)
        });
    }

    /// Adds the penalties that are sums, each times its factor, if it is not 0.
    fn add_sums(&self, layer: &str, into: &mut Lowering, sum: impl Fn(Reduction, &mut Lowering) -> String) {
        if let Self::L1L2 { l1, l2 } = *self {
            for (factor, reduction) in [(l1, Reduction::L1), (l2, Reduction::SumSquare)] {
                if factor != 0.0 {
                    let sum = sum(reduction, into);
                    let penalty = scaled(layer, factor, &sum, into);
                    into.add_penalty(layer, &penalty);
                }
            }
        }
    }
}

/// A reduction over some axes, which stay with size 1, or over all, `[1]`.
fn reduced(layer: &str, reduction: Reduction, axes: Option<Vec<i64>>, x: &str, into: &mut Lowering) -> String {
    let keep_dims = axes.is_some();
    let over = ops::ReduceOver { reduction, axes: axes.unwrap_or_default(), keep_dims, noop: false, int: None };
    let y = into.node(layer, over, &[x]);
    if keep_dims { y } else { into.node(layer, ops::Reshape(vec![Extent::Size(1)]), &[&y]) }
}

fn scaled(layer: &str, alpha: f32, x: &str, into: &mut Lowering) -> String {
    into.node(layer, ops::Activate(Activation::Affine { alpha, beta: 0.0 }), &[x])
}
