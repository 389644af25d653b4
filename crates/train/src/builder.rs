//! Nodes of one purpose.

use crate::{Error, Result};
use recurve_graph::ops::{Activate, Binary, Cast, CumSum, ExpandLike, Extent, Map, ReduceOver, Reshape, Target, Where};
use recurve_graph::{Assembly, Constant, Dim, Element, Int, Operator, ValueId, ValueType};
use recurve_tensor::{Activation, Function, Reduction};
use std::sync::Arc;

/// Adds nodes that bear a name.
pub(crate) struct Builder<'a> {
    pub(crate) assembly: &'a mut Assembly,
    pub(crate) name: &'static str,
}

impl Builder<'_> {
    pub(crate) fn kind(&self, id: ValueId) -> &ValueType {
        &self.assembly.value(id).kind
    }

    pub(crate) fn rank(&self, id: ValueId) -> usize {
        self.kind(id).rank()
    }

    pub(crate) fn nodes(
        &mut self,
        operator: impl Operator + 'static,
        inputs: &[ValueId],
        outputs: usize,
    ) -> Result<Vec<ValueId>> {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        Ok(self.assembly.derived(self.name, Arc::new(operator), &inputs, outputs)?)
    }

    pub(crate) fn node(&mut self, operator: impl Operator + 'static, inputs: &[ValueId]) -> Result<ValueId> {
        Ok(self.nodes(operator, inputs, 1)?[0])
    }

    pub(crate) fn number(&mut self, v: f32) -> Result<ValueId> {
        Ok(self.assembly.number(v)?)
    }

    pub(crate) fn constant(&mut self, dims: &[usize], numbers: Constant) -> Result<ValueId> {
        let name = self.assembly.fresh(self.name);
        Ok(self.assembly.constant(&name, dims, numbers)?)
    }

    pub(crate) fn floats(&mut self, numbers: &[f32]) -> Result<ValueId> {
        self.constant(&[numbers.len()], Constant::Float(numbers.into()))
    }

    pub(crate) fn map(&mut self, function: Function, x: ValueId) -> Result<ValueId> {
        self.node(Map { function, element: Element::F32 }, &[x])
    }

    pub(crate) fn affine(&mut self, x: ValueId, alpha: f32, beta: f32) -> Result<ValueId> {
        self.node(Activate(Activation::Affine { alpha, beta }), &[x])
    }

    pub(crate) fn binary(&mut self, operator: Binary, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.node(operator, &[a, b])
    }

    pub(crate) fn choose(&mut self, condition: ValueId, x: ValueId, y: ValueId) -> Result<ValueId> {
        self.node(Where, &[condition, x, y])
    }

    /// A reduction of the last axis, which is dropped or stays with size 1.
    pub(crate) fn over_last(&mut self, reduction: Reduction, x: ValueId, keep_dims: bool) -> Result<ValueId> {
        self.node(ReduceOver { reduction, axes: vec![-1], keep_dims, noop: false, int: None }, &[x])
    }

    /// A reduction of all elements, `[1]`.
    pub(crate) fn over_all(&mut self, reduction: Reduction, x: ValueId) -> Result<ValueId> {
        let all = ReduceOver { reduction, axes: vec![], keep_dims: false, noop: false, int: None };
        let y = self.node(all, &[x])?;
        self.node(Reshape(vec![Extent::Size(1)]), &[y])
    }

    pub(crate) fn as_f32(&mut self, argument: &'static str, x: ValueId) -> Result<ValueId> {
        match self.kind(x).dtype {
            Element::F32 => Ok(x),
            from @ (Element::U32 | Element::Int(_) | Element::Bool) => self.node(Cast { from, to: Target::F32 }, &[x]),
            _ => Err(self.operand(argument, "f32, whole numbers or truth values", x)),
        }
    }

    pub(crate) fn as_bool(&mut self, argument: &'static str, x: ValueId) -> Result<ValueId> {
        match self.kind(x).dtype {
            Element::Bool => Ok(x),
            from @ (Element::F32 | Element::U32 | Element::Int(_)) => self.node(Cast { from, to: Target::Bool }, &[x]),
            _ => Err(self.operand(argument, "f32, whole numbers or truth values", x)),
        }
    }

    /// That a value does not fit.
    pub(crate) fn operand(&self, argument: &'static str, expected: impl Into<String>, got: ValueId) -> Error {
        Error::Operand { of: self.name, argument, expected: expected.into(), got: self.kind(got).to_string() }
    }

    /// The size of the last axis, if it is known.
    pub(crate) fn last(&self, x: ValueId) -> Option<usize> {
        self.kind(x).dims.last().and_then(Dim::size)
    }

    /// With a last axis of size 1 more.
    pub(crate) fn column(&mut self, x: ValueId) -> Result<ValueId> {
        let dims = (0..self.rank(x)).map(|n| Extent::Axes(n, 1)).chain([Extent::Size(1)]);
        self.node(Reshape(dims.collect()), &[x])
    }

    pub(crate) fn without_last(&mut self, x: ValueId) -> Result<ValueId> {
        let rank = self.rank(x);
        self.node(Reshape::without(rank - 1, rank), &[x])
    }

    /// Which timesteps of `[B, T, …]` are valid, or of `[T, B, …]`, by the lengths `[B]`.
    pub(crate) fn valid_steps(&mut self, x: ValueId, lengths: ValueId, time_major: bool) -> Result<ValueId> {
        let one = self.number(1.0)?;
        let rows = vec![Extent::Axes(0, 1), Extent::Axes(1, 1), Extent::Axes(2, self.rank(x) - 2)];
        let rows = self.node(Reshape(rows), &[x])?;
        let rows = self.over_last(Reduction::Sum, rows, false)?;
        let ones = self.node(ExpandLike, &[one, rows])?;
        let axis = self.constant(&[1], Constant::Int(Int::I64, [i64::from(!time_major)].into()))?;
        let steps = self.node(CumSum { exclusive: false, reverse: false, int: None }, &[ones, axis])?;
        let lengths = self.as_f32("lengths", lengths)?;
        let lengths = if time_major { lengths } else { self.column(lengths)? };
        self.binary(Binary::LessOrEqual, steps, lengths)
    }

    /// Whether two values may have the same shape.
    pub(crate) fn fits(&self, a: ValueId, b: ValueId) -> bool {
        let (a, b) = (self.kind(a), self.kind(b));
        a.rank() == b.rank() && a.dims.iter().zip(&b.dims).all(|(a, b)| a.meet(b).is_some())
    }

    /// Checks that two values may have the same shape.
    pub(crate) fn same_shape(&self, argument: &'static str, x: ValueId, like: ValueId) -> Result<()> {
        match self.fits(x, like) {
            true => Ok(()),
            false => Err(self.operand(argument, format!("of the shape {}", self.kind(like)), x)),
        }
    }

    /// A value that belongs to `values`: of their shape, with an axis of size 1 more, or with fewer of the last axes, if
    /// that is allowed.
    pub(crate) fn in_shape_of(
        &mut self,
        argument: &'static str,
        x: ValueId,
        values: ValueId,
        fewer: bool,
    ) -> Result<ValueId> {
        let (rank, wanted) = (self.rank(x), self.rank(values));
        let given = x;
        let x = match self.last(x) {
            Some(1) if rank == wanted + 1 => self.without_last(x)?,
            _ if fewer && rank > 0 && rank < wanted && !self.kind(x).unranked => {
                let dims = (0..rank).map(|n| Extent::Axes(n, 1)).chain((rank..wanted).map(|_| Extent::Size(1)));
                self.node(Reshape(dims.collect()), &[x])?
            }
            _ => x,
        };
        let (a, b) = (self.kind(x), self.kind(values));
        let fits = |(n, (a, b)): (usize, (&Dim, &Dim))| n >= rank || a.meet(b).is_some();
        if a.rank() == wanted && a.dims.iter().zip(&b.dims).enumerate().all(fits) {
            return Ok(x);
        }
        let expected = format!("of the shape of the values, {}", self.kind(values));
        Err(self.operand(argument, expected, given))
    }
}
