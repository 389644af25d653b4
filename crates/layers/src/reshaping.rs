//! Layers that give their input another shape.

use crate::layer::{LayerModule, Shape, bad_input, bad_option, is_default, setters};
use crate::lowering::{Flow, Lowered, Lowering, Place};
use crate::{DataFormat, Result};
use recurve_graph::ops::{self, Extent};
use recurve_tensor::MAX_RANK;
use serde::{Deserialize, Serialize};

/// The number of elements behind the batch; `None` if it is not known.
fn count(dims: &Shape) -> Option<usize> {
    dims.iter().try_fold(1usize, |all, &d| Some(all.saturating_mul(d?)))
}

/// Joins all axes behind the batch: `[batch, …]` becomes `[batch, elements]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Flatten {
    /// With channels first, the channels are moved behind the other axes before.
    #[serde(default, skip_serializing_if = "is_default")]
    pub data_format: DataFormat,
}

impl Flatten {
    /// Joins the axes in their order.
    pub fn new() -> Self {
        Self::default()
    }
    setters! {
        /// With channels first, the channels are moved behind the other axes before.
        data_format: DataFormat;
    }
}

impl LayerModule for Flatten {
    fn class_name(&self) -> &'static str {
        "Flatten"
    }
    fn features(&self, name: &str, shape: &Shape) -> Result<usize> {
        if shape.len() > 1 { Ok(0) } else { Err(bad_input(name, "[batch, …] with at least two dimensions", shape)) }
    }
    fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
        self.features(name, shape)?;
        Ok(vec![vec![shape[0], count(&shape[1..])]])
    }
    fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
        let rank = at.shape.len();
        let mut value = x.value.clone();
        if self.data_format == DataFormat::ChannelsFirst && rank > 2 {
            let axes = std::iter::once(0).chain(2..rank).chain([1]).collect();
            value = into.node(at.name, ops::Transpose(axes), &[&value]);
        }
        let flat = ops::Reshape(vec![Extent::Axes(0, 1), Extent::Axes(1, rank - 1)]);
        Ok(Lowered::one(into.node(at.name, flat, &[&value]), None))
    }
    fn per_timestep(&self) -> bool {
        false
    }
}

/// Gives the axes behind the batch other sizes and keeps the order of the elements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Reshape {
    /// The sizes of the axes behind the batch. One of them may be -1, which stands for what is left.
    pub target_shape: Vec<isize>,
}

impl Reshape {
    /// Axes of these sizes behind the batch.
    pub fn new(target_shape: &[isize]) -> Self {
        Self { target_shape: target_shape.to_vec() }
    }
}

impl LayerModule for Reshape {
    fn class_name(&self) -> &'static str {
        "Reshape"
    }
    fn features(&self, name: &str, shape: &Shape) -> Result<usize> {
        self.output_shapes(name, shape)?;
        Ok(0)
    }
    fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
        let bad = |message: String| Err(bad_option(name, "target_shape", message));
        let target = &self.target_shape;
        if target.len() >= MAX_RANK {
            return bad(format!("must be at most {} sizes, but there are {}", MAX_RANK - 1, target.len()));
        }
        let open = target.iter().filter(|&&n| n == -1).count();
        if open > 1 || target.iter().any(|&n| n == 0 || n < -1) {
            return bad(format!("must be sizes of at least 1, one of which may be -1, but it is {target:?}"));
        }
        let Some(rest) = shape.get(1..) else {
            return Err(bad_input(name, "[batch, …]", shape));
        };
        let known = target.iter().filter(|&&n| n != -1).fold(1usize, |all, n| all.saturating_mul(n.unsigned_abs()));
        let all = count(rest);
        let fits = all.is_none_or(|all| if open == 1 { all.is_multiple_of(known) && all > 0 } else { all == known });
        if !fits {
            return bad(format!("is {target:?}, which {} elements do not fill", all.unwrap_or_default()));
        }
        let size = |&n: &isize| if n == -1 { all.map(|all| all / known) } else { Some(n.unsigned_abs()) };
        Ok(vec![std::iter::once(shape[0]).chain(target.iter().map(size)).collect()])
    }
    fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
        // 0 stands for the size that the input has.
        let sizes: Vec<i64> = std::iter::once(0).chain(self.target_shape.iter().map(|&n| n as i64)).collect();
        let sizes = into.ints(at.name, &sizes);
        let reshape = ops::ReshapeTo { allow_zero: false };
        Ok(Lowered::one(into.node(at.name, reshape, &[&x.value, &sizes]), None))
    }
    fn per_timestep(&self) -> bool {
        false
    }
}

/// Puts the axes behind the batch into another order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Permute {
    /// For each axis of the output behind the batch, the axis of the input, from 1.
    pub dims: Vec<usize>,
}

impl Permute {
    /// The axes of the input, from 1, in the order of the output.
    pub fn new(dims: &[usize]) -> Self {
        Self { dims: dims.to_vec() }
    }
}

impl LayerModule for Permute {
    fn class_name(&self) -> &'static str {
        "Permute"
    }
    fn features(&self, name: &str, shape: &Shape) -> Result<usize> {
        let mut sorted = self.dims.clone();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(1..=self.dims.len()) {
            let message = format!("must be the axes from 1 on, each once, but it is {:?}", self.dims);
            return Err(bad_option(name, "dims", message));
        }
        match shape.len() == self.dims.len() + 1 {
            true => Ok(0),
            false => Err(bad_input(name, &format!("of {} dimensions", self.dims.len() + 1), shape)),
        }
    }
    fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
        self.features(name, shape)?;
        Ok(vec![std::iter::once(shape[0]).chain(self.dims.iter().map(|&d| shape[d])).collect()])
    }
    fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
        let axes = std::iter::once(0).chain(self.dims.iter().copied()).collect();
        Ok(Lowered::one(into.node(at.name, ops::Transpose(axes), &[&x.value]), None))
    }
    fn per_timestep(&self) -> bool {
        false
    }
}

/// Repeats a vector: `[batch, features]` becomes `[batch, n, features]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RepeatVector {
    /// How often.
    pub n: usize,
}

impl RepeatVector {
    /// So often.
    pub fn new(n: usize) -> Self {
        Self { n }
    }
}

impl LayerModule for RepeatVector {
    fn class_name(&self) -> &'static str {
        "RepeatVector"
    }
    fn features(&self, name: &str, shape: &Shape) -> Result<usize> {
        if self.n == 0 || self.n > 1 << 30 {
            return Err(bad_option(name, "n", format!("must be from 1 to 2^30, but it is {}", self.n)));
        }
        if shape.len() == 2 { Ok(0) } else { Err(bad_input(name, "[batch, features]", shape)) }
    }
    fn output_shapes(&self, name: &str, shape: &Shape) -> Result<Vec<Vec<Option<usize>>>> {
        self.features(name, shape)?;
        Ok(vec![vec![shape[0], Some(self.n), shape[1]]])
    }
    fn lower(&self, at: &Place<'_>, x: &Flow, into: &mut Lowering) -> Result<Lowered> {
        let apart = ops::Reshape(vec![Extent::Axes(0, 1), Extent::Size(1), Extent::Axes(1, 1)]);
        let one = into.node(at.name, apart, &[&x.value]);
        let times = into.ints(at.name, &[1, self.n as i64, 1]);
        Ok(Lowered::one(into.node(at.name, ops::Tile, &[&one, &times]), None))
    }
    fn per_timestep(&self) -> bool {
        false
    }
}
