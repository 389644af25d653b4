//! Normalizations: by layers, groups, instances, batches and norms.

use super::prelude::*;
use super::{Binary, ExpandLike, Extent, ReduceOver, Reshape, ReshapeTo, SumTo, Where, operation_error, place_of};
use crate::operator::given;
use crate::{Data, ValueId};
use recurve_tensor::{Error, Function, Normalization, Reduction};
use recurve_vocabulary::Activation;
use smallvec::{SmallVec, smallvec};

/// What is normalised together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Together {
    /// All axes from this one on, from the end if it is negative; scale and offset are broadcast to them.
    Layer(i64),
    /// The same, divided by the root of the mean square; without offset.
    RootMeanSquare(i64),
    /// The axes behind the second; scale and offset are `[C]`.
    Instance,
    /// So many groups of channels. Scale and offset are for each channel, or for each group (before opset 21).
    Group {
        /// How many.
        groups: usize,
        /// See above.
        by_group: bool,
    },
}

/// `(x - mean) / √(variance + epsilon) · scale + offset`. Of layers mean and `1 / √(variance + epsilon)` are further
/// outputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalize {
    /// What is normalised together.
    pub together: Together,
    /// Added to the variance.
    pub epsilon: f32,
}

impl Normalize {
    const fn is_layer(&self) -> bool {
        matches!(self.together, Together::Layer(_) | Together::RootMeanSquare(_))
    }

    /// The first axis that is normalised, of so many.
    fn axis(&self, rank: usize) -> Result<usize, Fault> {
        let (Together::Layer(axis) | Together::RootMeanSquare(axis)) = self.together else { return Ok(2) };
        let bad = || Fault::Attribute("axis", format!("is {axis}, but there are {rank} dimensions"));
        place_of(axis, rank).ok_or_else(bad)
    }
}

/// What is normalised over some axes, as nodes of a gradient.
pub(super) struct Normal {
    /// `(x - mean) / √(variance + epsilon)`
    pub(super) y: ValueId,
    /// `1 / √(variance + epsilon)`
    pub(super) inverse: ValueId,
    axes: Vec<usize>,
    centered: bool,
}

impl Normal {
    pub(super) fn new(
        g: &mut Gradients<'_>,
        x: ValueId,
        axes: Vec<usize>,
        centered: bool,
        epsilon: f32,
    ) -> crate::Result<Self> {
        let mean = |g: &mut Gradients<'_>, v| g.node(ReduceOver::kept(Reduction::Mean, &axes), &[v]);
        let mut around = x;
        if centered {
            let mean = mean(g, x)?;
            around = g.node(Binary::Sub, &[x, mean])?;
        }
        let squared = g.times(around, around)?;
        let variance = mean(g, squared)?;
        let inverse = inverse_root(g, variance, epsilon)?;
        let y = g.times(around, inverse)?;
        Ok(Self { y, inverse, axes, centered })
    }

    /// The gradient of x from that of y: `(dy - mean dy - y mean(y dy)) · inverse`.
    pub(super) fn back(&self, g: &mut Gradients<'_>, dy: ValueId) -> crate::Result<ValueId> {
        let mean = |g: &mut Gradients<'_>, v| g.node(ReduceOver::kept(Reduction::Mean, &self.axes), &[v]);
        let weighted = g.times(dy, self.y)?;
        let share = mean(g, weighted)?;
        let taken = g.times(self.y, share)?;
        let mut d = g.node(Binary::Sub, &[dy, taken])?;
        if self.centered {
            let mean = mean(g, dy)?;
            d = g.node(Binary::Sub, &[d, mean])?;
        }
        g.times(d, self.inverse)
    }
}

/// `1 / √(variance + epsilon)`
fn inverse_root(g: &mut Gradients<'_>, variance: ValueId, epsilon: f32) -> crate::Result<ValueId> {
    let epsilon = g.number(epsilon)?;
    let sum = g.node(Binary::Add, &[variance, epsilon])?;
    let root = g.map(Function::Sqrt, sum)?;
    g.map(Function::Reciprocal, root)
}

/// Numbers for each channel `[C]`, as they are broadcast to `[N, C, …]` of so many dimensions.
fn column(g: &mut Gradients<'_>, v: ValueId, rank: usize) -> crate::Result<ValueId> {
    let ones = core::iter::repeat_n(Extent::Size(1), rank - 2);
    g.node(Reshape(core::iter::once(Extent::Axes(0, 1)).chain(ones).collect()), &[v])
}

/// Whether one shape can be broadcast to another.
fn broadcasts_to(own: &[usize], dims: &[usize]) -> bool {
    own.len() <= dims.len() && own.iter().rev().zip(dims.iter().rev()).all(|(&a, &b)| a == 1 || a == b)
}

impl Operator for Normalize {
    fn name(&self) -> &'static str {
        match self.together {
            Together::Layer(_) => "LayerNormalization",
            Together::RootMeanSquare(_) => "RMSNormalization",
            Together::Instance => "InstanceNormalization",
            Together::Group { .. } => "GroupNormalization",
        }
    }
    fn slots(&self) -> &[Slot] {
        match self.together {
            Together::Layer(_) => &[Slot::Required("x"), Slot::Required("scale"), Slot::Optional("offset")],
            Together::RootMeanSquare(_) => &[Slot::Required("x"), Slot::Required("scale")],
            _ => &[Slot::Required("x"), Slot::Required("scale"), Slot::Required("offset")],
        }
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let x = given(inputs, 0)?;
        for i in 0..inputs.len() {
            if inputs[i].is_some_and(|t| !t.dtype.is_float()) {
                return Err(Fault::Input(i, "floats".into()));
            }
        }
        if !(self.epsilon.is_finite() && self.epsilon >= 0.0) {
            let message = format!("must be finite and at least 0, but it is {}", self.epsilon);
            return Err(Fault::Attribute("epsilon", message));
        }
        let mut stats = ValueType::unranked(x.dtype);
        if !x.unranked {
            let axis = self.axis(x.rank())?;
            if !self.is_layer() && x.rank() < 2 {
                return Err(Fault::Input(0, "[N, C, …]".into()));
            }
            let channels = x.dims.get(1).and_then(Dim::size);
            let count = match self.together {
                Together::Group { groups, .. } if groups == 0 || channels.is_some_and(|c| c % groups != 0) => {
                    let message = format!("must divide the channels of {x}, but it is {groups}");
                    return Err(Fault::Attribute("num_groups", message));
                }
                Together::Group { groups, by_group: true } => Dim::Size(groups),
                _ if self.is_layer() => Dim::Any,
                _ => x.dims[1].clone(),
            };
            for i in 1..inputs.len() {
                let Some(t) = inputs[i].filter(|t| !t.unranked) else { continue };
                let fits = match self.is_layer() {
                    true => t.shape().zip(x.shape()).is_none_or(|(own, dims)| broadcasts_to(&own, &dims)),
                    false => matches!(&t.dims[..], [n] if n.meet(&count).is_some()),
                };
                if !fits {
                    return Err(Fault::Input(i, format!("a number for each channel of {x}")));
                }
            }
            let dims = x.dims.iter().enumerate().map(|(n, d)| if n < axis { d.clone() } else { Dim::Size(1) });
            stats = x.with_dims(dims.collect());
        }
        Ok(match self.together {
            Together::Layer(_) => vec![x.clone(), stats.clone(), stats],
            _ => vec![x.clone()],
        })
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let x = call.floats(0)?;
        let dims = x.dims();
        let axis = self.axis(dims.len()).map_err(|fault| operation_error(self, fault))?;
        if !self.is_layer() && dims.len() < 2 {
            return Err(operation_error(self, Fault::Input(0, "[N, C, …]".into())));
        }
        let scale = call.floats(1)?;
        let offset = call.get(2).map(|_| call.floats(2)).transpose()?;
        let behind: usize = dims[axis..].iter().product();
        let (width, inner) = match self.together {
            Together::Layer(_) | Together::RootMeanSquare(_) => (behind, 1),
            Together::Instance => (behind, behind),
            Together::Group { groups, by_group } => {
                if groups == 0 || !dims[1].is_multiple_of(groups) {
                    let message = format!("must divide the {} channels of {}, but it is {groups}", dims[1], x.shape());
                    return Err(operation_error(self, Fault::Attribute("num_groups", message)));
                }
                let width = dims[1] / groups * behind;
                (width, if by_group { width } else { behind })
            }
        };
        let whole = |t: &Tensor| !self.is_layer() || t.dims() == &dims[axis..];
        let centered = !matches!(self.together, Together::RootMeanSquare(_));
        let plain = Normalization { width, centered, epsilon: self.epsilon, scale: None, offset: None, inner };
        let out = if whole(&scale) && offset.as_deref().is_none_or(whole) {
            let flat = |t: &Tensor| t.reshape(&[t.shape().count()]);
            let (scale, offset) = (flat(&scale)?, offset.as_deref().map(flat).transpose()?);
            x.normalize(&Normalization { scale: Some(&scale), offset: offset.as_ref(), ..plain })?
        } else {
            let mut out = x.normalize(&Normalization { inner: 1, ..plain })?;
            out.y = out.y.mul(&scale)?;
            if let Some(offset) = &offset {
                out.y = out.y.add(offset)?;
            }
            if out.y.dims() != dims {
                let expected = format!("of a shape that can be broadcast to {}", x.shape());
                return Err(operation_error(self, Fault::Input(1, expected)));
            }
            out
        };
        if !matches!(self.together, Together::Layer(_)) {
            return Ok(one(out.y));
        }
        let stats: SmallVec<[usize; 6]> = dims.iter().enumerate().map(|(n, &d)| if n < axis { d } else { 1 }).collect();
        let wanted = |n: usize, t: &Tensor| -> Result<Option<Data>> {
            call.wanted.get(n).copied().unwrap_or(false).then(|| t.reshape(&stats).map(Data::from)).transpose()
        };
        Ok(smallvec![Some(out.y.into()), wanted(1, &out.mean)?, wanted(2, &out.inverse)?])
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (x, scale) = (array(inputs, 0), array(inputs, 1));
        let offset = inputs.get(2).copied().flatten();
        let axis = self.axis(x.dims.len()).expect("inputs that fit");
        let behind: usize = x.dims[axis..].iter().product();
        let width = match self.together {
            Together::Group { groups, .. } => x.dims[1] / groups * behind,
            _ => behind,
        };
        let centered = !matches!(self.together, Together::RootMeanSquare(_));
        let n = width as f64;
        let stats: Vec<(f64, f64)> = x
            .data
            .chunks_exact(width)
            .map(|row| {
                let mean = if centered { row.iter().sum::<f64>() / n } else { 0.0 };
                let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
                (mean, 1.0 / (variance + f64::from(self.epsilon)).sqrt())
            })
            .collect();
        let mut flat = 0;
        let y = Array::from_fn(&x.dims, |at| {
            let (mean, inverse) = stats[flat / width];
            flat += 1;
            let place = match self.together {
                Together::Layer(_) | Together::RootMeanSquare(_) => at.to_vec(),
                Together::Group { groups, by_group: true } => vec![at[1] / (x.dims[1] / groups)],
                _ => vec![at[1]],
            };
            (x.data[flat - 1] - mean) * inverse * scale.at(&place) + offset.map_or(0.0, |o| o.at(&place))
        });
        if !matches!(self.together, Together::Layer(_)) {
            return vec![Some(y)];
        }
        let dims: Vec<usize> = x.dims.iter().enumerate().map(|(n, &d)| if n < axis { d } else { 1 }).collect();
        let (mean, inverse) = stats.into_iter().unzip();
        vec![Some(y), Some(Array::new(&dims, mean)), Some(Array::new(&dims, inverse))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (x, scale) = (g.input(0), g.input(1));
        if g.kind(x).unranked {
            return Err(g.missing("the number of dimensions of its input is not known before a run"));
        }
        let rank = g.kind(x).rank();
        let axis = self.axis(rank).map_err(|_| g.missing("it has no such axis"))?;
        let (groups, by_group) = match self.together {
            Together::Group { groups, by_group } => (Some(groups), by_group),
            _ => (None, false),
        };
        // Groups are normalised as [N, groups, …].
        let grouped = |g: &mut Gradients<'_>, v| match groups {
            Some(n) => {
                let shape = g.whole(&[0, n as i64, -1])?;
                g.node(ReshapeTo::default(), &[v, shape])
            }
            None => Ok(v),
        };
        let like_x = |g: &mut Gradients<'_>, v| match groups {
            Some(_) => g.node(Reshape((0..rank).map(Extent::Like).collect()), &[v, x]),
            None => Ok(v),
        };
        let axes: Vec<usize> = if groups.is_some() { vec![2] } else { (axis..rank).collect() };
        let centered = !matches!(self.together, Together::RootMeanSquare(_));
        let rows = grouped(g, x)?;
        let normal = Normal::new(g, rows, axes.clone(), centered, self.epsilon)?;
        let mut dx = None;
        if let Some(dy) = g.of_output(0) {
            let (dy, y, wide) = match by_group {
                true => (grouped(g, dy)?, normal.y, 3),
                false => (dy, like_x(g, normal.y)?, rank),
            };
            let broadcast = |g: &mut Gradients<'_>, v| if self.is_layer() { Ok(v) } else { column(g, v, wide) };
            let scale = broadcast(g, scale)?;
            for (index, weighted) in [(1, true), (2, false)] {
                if g.wants(index) {
                    let own = g.input(index);
                    let own = broadcast(g, own)?;
                    let d = if weighted { g.times(dy, y)? } else { dy };
                    let d = g.node(SumTo, &[d, own])?;
                    if self.is_layer() {
                        g.give(index, d);
                    } else {
                        g.give_reshaped(index, d)?;
                    }
                }
            }
            if g.wants(0) {
                let d = g.times(dy, scale)?;
                let d = if by_group { d } else { grouped(g, d)? };
                let d = normal.back(g, d)?;
                dx = Some(like_x(g, d)?);
            }
        }
        if g.wants(0) {
            let count = super::reduce_over::count(g, x, &axes)?;
            // The mean's is 1 / n, that of 1 / deviation -y / (n · deviation²).
            for index in [1, 2] {
                let Some(d) = g.of_output(index) else { continue };
                let mut d = g.node(Binary::Div, &[d, count])?;
                if index == 2 {
                    let squared = g.times(normal.inverse, normal.inverse)?;
                    let d2 = g.times(d, squared)?;
                    let d2 = g.times(d2, normal.y)?;
                    d = g.map(Function::Neg, d2)?;
                }
                let d = g.node(ExpandLike, &[d, x])?;
                dx = Some(match dx {
                    Some(other) => g.node(Binary::Add, &[other, d])?,
                    None => d,
                });
            }
        }
        if let Some(dx) = dx {
            g.give(0, dx);
        }
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// `(x - mean) / √(variance + epsilon) · scale + offset` with numbers for each channel of `[N, C, …]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNorm {
    /// Added to the variance.
    pub epsilon: f32,
}

impl Operator for BatchNorm {
    fn name(&self) -> &'static str {
        "BatchNormalization"
    }
    fn slots(&self) -> &[Slot] {
        const SLOTS: [Slot; 5] = [
            Slot::Required("x"),
            Slot::Required("scale"),
            Slot::Required("offset"),
            Slot::Required("mean"),
            Slot::Required("variance"),
        ];
        &SLOTS
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let x = given(inputs, 0)?;
        let channels = match &x.dims[..] {
            _ if x.unranked => Dim::Any,
            [_, channels, ..] => channels.clone(),
            _ => return Err(Fault::Input(0, "[N, C, …]".into())),
        };
        for i in 0..5 {
            let t = given(inputs, i)?;
            let fits = i == 0 || t.unranked || matches!(&t.dims[..], [n] if n.meet(&channels).is_some());
            if !t.dtype.is_float() || !fits {
                return Err(Fault::Input(i, format!("floats, [{channels}], for {x}")));
            }
        }
        if !(self.epsilon.is_finite() && self.epsilon >= 0.0) {
            let message = format!("must be finite and at least 0, but it is {}", self.epsilon);
            return Err(Fault::Attribute("epsilon", message));
        }
        Ok(vec![x.clone()])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let x = call.floats(0)?;
        let [scale, offset, mean, variance] = [1, 2, 3, 4].map(|i| call.floats(i));
        let channels = [&*scale?, &*offset?, &*mean?, &*variance?];
        Ok(one(x.batch_norm(channels, self.epsilon)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let [x, scale, offset, mean, variance] = [0, 1, 2, 3, 4].map(|i| array(inputs, i));
        vec![Some(Array::from_fn(&x.dims, |at| {
            let [scale, offset, mean, variance] = [scale, offset, mean, variance].map(|a| a.data[at[1]]);
            (x.at(at) - mean) / (variance + f64::from(self.epsilon)).sqrt() * scale + offset
        }))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (dy, x) = (g.of_only_output(), g.input(0));
        if g.kind(x).unranked {
            return Err(g.missing("the number of dimensions of its input is not known before a run"));
        }
        let rank = g.kind(x).rank();
        let [scale, mean, variance] = [1, 3, 4].map(|i| g.input(i));
        let inverse = inverse_root(g, variance, self.epsilon)?;
        let slope = g.times(scale, inverse)?;
        if g.wants(0) {
            let slope = column(g, slope, rank)?;
            let dx = g.times(dy, slope)?;
            g.give(0, dx);
        }
        let of_channels = |g: &mut Gradients<'_>, d| {
            let one = column(g, scale, rank)?;
            let sum = g.node(SumTo, &[d, one])?;
            g.node(Reshape(vec![Extent::Axes(0, rank - 1)]), &[sum])
        };
        if g.wants(2) || g.wants(3) {
            let sum = of_channels(g, dy)?;
            g.give(2, sum);
            let d = g.times(sum, slope)?;
            let d = g.map(Function::Neg, d)?;
            g.give(3, d);
        }
        if g.wants(1) || g.wants(4) {
            let mean = column(g, mean, rank)?;
            let around = g.node(Binary::Sub, &[x, mean])?;
            let weighted = g.times(dy, around)?;
            let sum = of_channels(g, weighted)?;
            let dscale = g.times(sum, inverse)?;
            g.give(1, dscale);
            // -scale / (2 · deviation²) of that of the scale
            let half = g.number(-0.5)?;
            let d = g.times(dscale, slope)?;
            let d = g.times(d, inverse)?;
            let d = g.times(d, half)?;
            g.give(4, d);
        }
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// x divided by its norm along an axis, from the end if it is negative; 0 where that is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LpNorm {
    /// The axis.
    pub axis: i64,
    /// Sum of absolute values, not root of the sum of squares.
    pub absolute: bool,
}

impl Operator for LpNorm {
    fn name(&self) -> &'static str {
        "LpNormalization"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("x")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let x = given(inputs, 0)?;
        if !x.dtype.is_float() {
            return Err(Fault::Input(0, "floats".into()));
        }
        if !x.unranked && place_of(self.axis, x.rank()).is_none() {
            return Err(Fault::Attribute("axis", format!("is {}, but there are {} dimensions", self.axis, x.rank())));
        }
        Ok(vec![x.clone()])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let x = call.floats(0)?;
        let rank = x.dims().len();
        let Some(axis) = place_of(self.axis, rank) else {
            let message = format!("is {}, but there are {rank} dimensions", self.axis);
            return Err(Error::Argument { operation: self.name(), argument: "axis", message });
        };
        let norm = x.reduce(if self.absolute { Reduction::L1 } else { Reduction::L2 }, axis)?;
        // So little that it changes no norm but 0, where all elements are 0.
        let norm = norm.activation(Activation::Affine { alpha: 1.0, beta: f32::MIN_POSITIVE })?;
        Ok(one(x.div(&norm)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let axis = place_of(self.axis, x.dims.len()).expect("inputs that fit");
        let reduction = if self.absolute { Reduction::L1 } else { Reduction::L2 };
        let norm = super::reduce_over::reduced(x, reduction, &[axis]);
        vec![Some(Array::from_fn(&x.dims, |at| if norm.at(at) == 0.0 { 0.0 } else { x.at(at) / norm.at(at) }))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (dy, x, y) = (g.of_only_output(), g.input(0), g.output(0));
        if g.kind(x).unranked {
            return Err(g.missing("the number of dimensions of its input is not known before a run"));
        }
        let axis = place_of(self.axis, g.kind(x).rank()).ok_or_else(|| g.missing("it has no such axis"))?;
        let over = |reduction| ReduceOver::kept(reduction, &[axis]);
        let norm = g.node(over(if self.absolute { Reduction::L1 } else { Reduction::L2 }), &[x])?;
        let slope = if self.absolute { g.map(Function::Sign, x)? } else { y };
        // (dy - slope · Σ y dy) / norm, but 0 where all are 0
        let weighted = g.times(y, dy)?;
        let sum = g.node(over(Reduction::Sum), &[weighted])?;
        let taken = g.times(slope, sum)?;
        let d = g.node(Binary::Sub, &[dy, taken])?;
        let d = g.node(Binary::Div, &[d, norm])?;
        let zero = g.number(0.0)?;
        let empty = g.node(Binary::Equal, &[norm, zero])?;
        let dx = g.node(Where, &[empty, zero, d])?;
        g.give(0, dx);
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
