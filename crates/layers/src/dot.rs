//! Products of two values along an axis of each.

use crate::Result;
use crate::layer::{LayerModule, Shape, axis_of, bad_input, bad_option, is_default, setters};
use crate::lowering::{Flow, Lowered, Lowering, Place};
use recurve_graph::ops::{self, Extent};
use recurve_tensor::Reduction;
use serde::{Deserialize, Serialize};

/// The sum of the products of two values along an axis of each, for each element of the batch. The output has the other
/// axes of the first, then those of the second; `[batch, 1]` if there are none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Dot {
    /// The axis of each value; negative ones count from the end. It cannot be the batch.
    pub axes: [isize; 2],
    /// Whether the values are divided by their norm along the axis before, which gives the cosine.
    #[serde(default, skip_serializing_if = "is_default")]
    pub normalize: bool,
}

impl Dot {
    /// Products along these axes of the first and the second value. Keras's single number stands for both.
    pub fn new(axes: [isize; 2]) -> Self {
        Self { axes, normalize: false }
    }
    setters! {
        /// Whether the values are divided by their norm along the axis before.
        normalize: bool;
    }

    /// The axes of two inputs that fit.
    fn places(&self, name: &str, shapes: &[&Shape]) -> Result<[usize; 2]> {
        let &[first, second] = shapes else {
            return Err(bad_option(name, "inputs", format!("must be two, but there are {}", shapes.len())));
        };
        let a = axis_of(name, "axes", self.axes[0], first.len())?;
        let b = axis_of(name, "axes", self.axes[1], second.len())?;
        let differ = |a: Option<usize>, b: Option<usize>| a.is_some() && b.is_some() && a != b;
        if differ(first[a], second[b]) || differ(first[0], second[0]) {
            let expected = format!("the same batch, and as much on axis {b} as the first has on axis {a}, ");
            return Err(bad_input(name, &(expected + &crate::summary::show(first)), second));
        }
        Ok([a, b])
    }
}

/// The indices below `rank` but 0 and one other.
fn others(rank: usize, but: usize) -> Vec<usize> {
    (1..rank).filter(|&n| n != but).collect()
}

impl LayerModule for Dot {
    fn class_name(&self) -> &'static str {
        "Dot"
    }
    fn features(&self, _: &str, _: &Shape) -> Result<usize> {
        Ok(0)
    }
    fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
        self.all_output_shapes(name, &[shape])
    }
    fn all_output_shapes(&self, name: &str, shapes: &[&Shape]) -> Result<Vec<Vec<Option<usize>>>> {
        let axes = self.places(name, shapes)?;
        let mut out = vec![shapes[0][0].or(shapes[1][0])];
        for (shape, axis) in shapes.iter().zip(axes) {
            out.extend(others(shape.len(), axis).iter().map(|&n| shape[n]));
        }
        if out.len() == 1 {
            out.push(Some(1));
        }
        if out.len() > recurve_tensor::MAX_RANK {
            return Err(bad_option(name, "inputs", format!("give {} dimensions, which are too many", out.len())));
        }
        Ok(vec![out])
    }
    fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
        let axes = self.places(at.name, at.shapes)?;
        let values = [&x.value, &x.others[0].value];
        // Matrices [batch, other axes, axis] and [batch, axis, other axes].
        let [left, right] = [0, 1].map(|n| {
            let (axis, rank) = (axes[n], at.shapes[n].len());
            let mut value = values[n].clone();
            if self.normalize {
                value = normalized(at, &value, axis, into);
            }
            let rest = others(rank, axis);
            let order: Vec<usize> = match n {
                0 => std::iter::once(0).chain(rest).chain([axis]).collect(),
                _ => [0, axis].into_iter().chain(rest).collect(),
            };
            if !order.iter().copied().eq(0..rank) {
                value = into.node(at.name, ops::Transpose(order), &[&value]);
            }
            let parts = if n == 0 { [(1, rank - 2), (rank - 1, 1)] } else { [(1, 1), (2, rank - 2)] };
            let parts = std::iter::once((0, 1)).chain(parts).map(|(first, count)| Extent::Axes(first, count));
            into.node(at.name, ops::Reshape(parts.collect()), &[&value])
        });
        let product = into.node(at.name, ops::MatMul, &[&left, &right]);
        let ranks = [at.shapes[0].len(), at.shapes[1].len()];
        let dims = match ranks {
            [3, 3] => return Ok(Lowered::one(product, None)),
            [2, _] if ranks[1] <= 3 => vec![Extent::Axes(0, 1), Extent::Axes(1, 2)],
            [3, 2] => vec![Extent::Axes(0, 1), Extent::Axes(1, 2)],
            _ => {
                let out = self.all_output_shapes(at.name, at.shapes)?.swap_remove(0);
                let size = |d: &Option<usize>| d.map(Extent::Size);
                let sizes: Option<Vec<Extent>> = out[1..].iter().map(size).collect();
                let message = "must have known sizes behind the batch if one of them has more than three dimensions";
                let sizes = sizes.ok_or_else(|| bad_option(at.name, "inputs", message))?;
                std::iter::once(Extent::Axes(0, 1)).chain(sizes).collect()
            }
        };
        Ok(Lowered::one(into.node(at.name, ops::Reshape(dims), &[&product]), None))
    }
    fn per_timestep(&self) -> bool {
        false
    }
}

/// Adds the division by the norm along an axis, which counts as at least 1e-7.
fn normalized(at: &Place<'_>, x: &str, axis: usize, into: &mut Lowering) -> String {
    let norm =
        ops::ReduceOver { reduction: Reduction::L2, axes: vec![axis as i64], keep_dims: true, noop: false, int: None };
    let norm = into.node(at.name, norm, &[x]);
    let least = into.constant(at.name, &[1], &[1e-7]);
    let norm = into.node(at.name, ops::Binary::Max, &[&norm, &least]);
    into.node(at.name, ops::Binary::Div, &[x, &norm])
}
