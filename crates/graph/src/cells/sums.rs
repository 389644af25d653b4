//! Sums of products with constant weights, along the last axis of a value.

use super::Pass;
use crate::ops::{Binary, Concat, GatherAt, Gemm, Identity, MatMul, ReshapeTo, SliceBy, Split, Squeeze};
use crate::{Constant, Element, Source, ValueId};
use core::ops::Range;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How deep sums may be nested; deeper ones are not looked at.
const MAX_DEPTH: usize = 48;

/// What a product is of: a value, or one element along an axis of a value.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub root: ValueId,
    /// The axis and the place along it.
    pub pick: Option<(usize, usize)>,
    /// The value itself, if the graph has it.
    pub value: Option<ValueId>,
}

impl PartialEq for Part {
    fn eq(&self, other: &Self) -> bool {
        (self.root, self.pick) == (other.root, other.pick)
    }
}

impl Part {
    pub(super) fn of(value: ValueId) -> Self {
        Self { root: value, pick: None, value: Some(value) }
    }
}

/// A constant matrix, or some of its rows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Matrix {
    elements: Arc<[f32]>,
    dims: [usize; 2],
    transposed: bool,
    rows: Range<usize>,
    scale: f32,
}

impl Matrix {
    pub(super) fn rows(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn negated(self) -> Self {
        Self { scale: -self.scale, ..self }
    }

    pub(super) fn at(&self, row: usize, column: usize) -> f32 {
        let row = self.rows.start + row;
        let (r, c) = if self.transposed { (column, row) } else { (row, column) };
        self.elements[r * self.dims[1] + c] * self.scale
    }
}

/// `part · matrix`, of which some columns are meant; without a matrix the part itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Product {
    pub part: Part,
    pub matrix: Option<Matrix>,
    pub columns: Range<usize>,
}

/// Products and a constant vector, added.
#[derive(Clone, Debug, Default)]
pub(super) struct Sum {
    /// Elements along the last axis; 1 of a scalar, which is broadcast.
    pub width: usize,
    pub products: Vec<Product>,
    pub bias: Vec<f64>,
    /// The nodes that compute it and nothing else.
    pub nodes: BTreeSet<usize>,
    /// Nodes that compute it for all timesteps at once.
    pub shared: BTreeSet<usize>,
}

impl Sum {
    pub(super) fn columns(mut self, range: &Range<usize>) -> Option<Self> {
        if range.end > self.width || range.is_empty() {
            return None;
        }
        self.width = range.len();
        for p in &mut self.products {
            p.columns = p.columns.start + range.start..p.columns.start + range.end;
        }
        self.bias = self.bias[range.clone()].to_vec();
        Some(self)
    }

    fn plus(mut self, mut other: Self, sign: f64) -> Option<Self> {
        let widened = |s: &mut Self, width: usize| {
            if s.products.is_empty() && s.width == 1 {
                (s.bias, s.width) = (vec![s.bias[0]; width], width);
            }
        };
        widened(&mut self, other.width);
        widened(&mut other, self.width);
        if self.width != other.width || sign < 0.0 && !other.products.is_empty() {
            return None;
        }
        self.bias.iter_mut().zip(&other.bias).for_each(|(a, b)| *a += sign * b);
        self.products.append(&mut other.products);
        self.nodes.append(&mut other.nodes);
        self.shared.append(&mut other.shared);
        Some(self)
    }
}

impl Pass {
    /// The elements of a constant of floats, with its dimensions.
    pub(super) fn floats(&self, id: ValueId) -> Option<(&Arc<[f32]>, Vec<usize>)> {
        match &self.graph.values[id.0].source {
            Source::Constant(Constant::Float(v)) => Some((v, self.graph.values[id.0].kind.shape()?)),
            _ => None,
        }
    }

    /// The one number of a constant of floats whose elements are all the same.
    pub(super) fn uniform(&self, id: ValueId) -> Option<f32> {
        let (v, _) = self.floats(id)?;
        let first = *v.first()?;
        v.iter().all(|x| *x == first).then_some(first)
    }

    /// Whole numbers that are known before a run.
    pub(super) fn ints(&self, id: ValueId) -> Option<Vec<i64>> {
        match &self.graph.values[id.0].source {
            Source::Constant(Constant::Int(_, v)) => Some(v.to_vec()),
            _ => self.graph.values[id.0].kind.content(),
        }
    }

    pub(super) fn rank(&self, id: ValueId) -> Option<usize> {
        let kind = &self.graph.values[id.0].kind;
        (!kind.unranked).then(|| kind.rank())
    }

    pub(super) fn size(&self, id: ValueId, axis: usize) -> Option<usize> {
        self.graph.values[id.0].kind.dims.get(axis).and_then(crate::Dim::size)
    }

    /// The elements along the last axis.
    pub(super) fn width(&self, id: ValueId) -> Option<usize> {
        self.size(id, self.rank(id)?.checked_sub(1)?)
    }

    fn axis(&self, id: ValueId, axis: i64) -> Option<usize> {
        let rank = self.rank(id)?;
        let at = if axis < 0 { axis + rank as i64 } else { axis };
        usize::try_from(at).ok().filter(|&a| a < rank)
    }

    /// The value that a node passes on as it is.
    pub(super) fn plain(&self, mut id: ValueId) -> ValueId {
        while let Some((node, _)) = self.made::<Identity>(id) {
            match self.input(node, 0) {
                Some(x) => id = x,
                None => break,
            }
        }
        id
    }

    /// Of a value that is some elements along one axis of another: that value, the axis, and which.
    pub(super) fn cut(&self, id: ValueId) -> Option<(usize, ValueId, usize, Range<usize>)> {
        if let Some((node, split)) = self.made::<Split>(id) {
            let x = self.input(node, 0)?;
            let axis = self.axis(x, split.axis)?;
            let place = self.graph.nodes[node].outputs.iter().position(|o| *o == id)?;
            let sizes: Vec<usize> = match self.input(node, 1) {
                Some(sizes) => self.ints(sizes)?.into_iter().map(|n| n as usize).collect(),
                None => {
                    let size = self.size(x, axis)?;
                    let each = size.div_ceil(split.parts.max(1));
                    (0..split.parts).map(|n| size.saturating_sub(n * each).min(each)).collect()
                }
            };
            let start: usize = sizes.get(..place)?.iter().sum();
            return Some((node, x, axis, start..start + sizes.get(place)?));
        }
        let (node, _) = self.made::<SliceBy>(id)?;
        let x = self.input(node, 0)?;
        let [starts, ends] = [1, 2].map(|n| self.input(node, n).and_then(|i| self.ints(i)));
        let (starts, ends) = (starts?, ends?);
        let axes = self.input(node, 3).map(|i| self.ints(i));
        let steps = self.input(node, 4).map(|i| self.ints(i));
        let axes = axes.unwrap_or_else(|| Some((0..starts.len() as i64).collect()))?;
        if !steps.unwrap_or_else(|| Some(vec![1; starts.len()]))?.iter().all(|&s| s == 1) {
            return None;
        }
        let mut found = None;
        for (n, &axis) in axes.iter().enumerate() {
            let axis = self.axis(x, axis)?;
            let Some(size) = self.size(x, axis) else {
                // The whole of an axis whose size is not known.
                match (starts.get(n)?, ends.get(n)?) {
                    (0, end) if *end >= i64::from(i32::MAX) => continue,
                    // The first ones of it, where the type says how many there are.
                    (&start, &end) if start >= 0 && end > start && found.is_none() => {
                        if self.size(id, axis) != Some((end - start) as usize) {
                            return None;
                        }
                        found = Some((node, x, axis, start as usize..end as usize));
                        continue;
                    }
                    _ => return None,
                }
            };
            let place = |v: i64| (if v < 0 { v.saturating_add(size as i64) } else { v }).clamp(0, size as i64) as usize;
            let range = place(*starts.get(n)?)..place(*ends.get(n)?);
            if range == (0..size) {
                continue;
            }
            if range.is_empty() || found.is_some() {
                return None;
            }
            found = Some((node, x, axis, range));
        }
        found
    }

    /// Of a value that is one element along an axis of another, without that axis: the nodes that take it, the value,
    /// the axis and the place.
    pub(super) fn picked(&self, id: ValueId) -> Option<(Vec<usize>, ValueId, usize, usize)> {
        if let Some((node, gather)) = self.made::<GatherAt>(id) {
            let (x, index) = (self.input(node, 0)?, self.input(node, 1)?);
            let axis = self.axis(x, gather.axis)?;
            let &[at] = &self.ints(index)?[..] else { return None };
            let at = if at < 0 { at + self.size(x, axis)? as i64 } else { at };
            let at = usize::try_from(at).ok()?;
            return (self.rank(index)? == 0).then_some((vec![node], x, axis, at));
        }
        let (node, inner) = match (self.made::<Squeeze>(id), self.made::<ReshapeTo>(id)) {
            (Some((node, _)), _) | (_, Some((node, _))) => (node, self.input(node, 0)?),
            _ => return None,
        };
        let (cut, x, axis, range) = self.cut(inner)?;
        let (before, after) = (&self.graph.values[inner.0].kind, &self.graph.values[id.0].kind);
        if range.len() != 1 || before.unranked || after.unranked {
            return None;
        }
        if self.made::<Squeeze>(id).is_some() {
            let axes = self.ints(self.input(node, 1)?)?;
            if axes.len() != 1 || self.axis(inner, axes[0]) != Some(axis) {
                return None;
            }
        } else {
            let mut dims = before.dims.clone();
            dims.remove(axis);
            let open = dims.iter().filter(|d| d.size().is_none()).count();
            if dims != after.dims || open > 1 || dims.contains(&crate::Dim::Any) {
                return None;
            }
        }
        Some((vec![cut, node], x, axis, range.start))
    }

    /// A value as a part: by what it is an element of, if it is one.
    pub(super) fn part(&self, id: ValueId) -> Part {
        let plain = self.plain(id);
        match self.picked(plain) {
            Some((_, root, axis, at)) => Part { root: self.plain(root), pick: Some((axis, at)), value: Some(plain) },
            None => Part::of(plain),
        }
    }

    /// A value as a sum of products; that of the value itself if it is none.
    pub(super) fn sum(&self, id: ValueId) -> Option<Sum> {
        self.sum_within(id, MAX_DEPTH)
    }

    fn sum_within(&self, id: ValueId, depth: usize) -> Option<Sum> {
        if let Some(constant) = self.constant_sum(id) {
            return constant;
        }
        if self.graph.values[id.0].kind.dtype != Element::F32 {
            return None;
        }
        let found = if depth == 0 { None } else { self.composed(id, depth - 1) };
        found.or_else(|| {
            let width = self.width(id)?;
            let product = Product { part: self.part(id), matrix: None, columns: 0..width };
            Some(Sum { width, products: vec![product], bias: vec![0.0; width], ..Sum::default() })
        })
    }

    /// A constant as a sum without products; the inner `None` if it is no vector.
    fn constant_sum(&self, id: ValueId) -> Option<Option<Sum>> {
        let (v, dims) = self.floats(id)?;
        let width = dims.last().copied().unwrap_or(1);
        let rows: Vec<&[f32]> = v.chunks(width.max(1)).collect();
        let vector = rows.first().filter(|first| rows.iter().all(|r| r == *first));
        Some(vector.map(|row| Sum { width, bias: row.iter().map(|&v| v.into()).collect(), ..Sum::default() }))
    }

    fn composed(&self, id: ValueId, depth: usize) -> Option<Sum> {
        let node = self.maker(id)?;
        let with = |mut s: Sum| {
            s.nodes.insert(node);
            s
        };
        if self.operator::<Identity>(node).is_some() {
            return self.sum_within(self.input(node, 0)?, depth).map(with);
        }
        match self.operator::<Binary>(node) {
            Some(operation @ (Binary::Add | Binary::Sub)) => {
                let sign = if *operation == Binary::Add { 1.0 } else { -1.0 };
                let [a, b] = [0, 1].map(|n| self.input(node, n).and_then(|i| self.sum_within(i, depth)));
                return a?.plus(b?, sign).map(with);
            }
            Some(_) => return None,
            None => {}
        }
        if self.operator::<MatMul>(node).is_some() {
            let weight = self.matrix(self.input(node, 1)?, false, 1.0)?;
            return self.products(self.input(node, 0)?, &weight).map(with);
        }
        if let Some(&Gemm { alpha, beta, transpose_a: false, transpose_b }) = self.operator::<Gemm>(node) {
            let weight = self.matrix(self.input(node, 1)?, transpose_b, alpha)?;
            let sum = self.products(self.input(node, 0)?, &weight)?;
            let sum = match self.input(node, 2) {
                None => sum,
                // c may be what was added before: `x · W + (h · R + b)`.
                Some(c) => {
                    let mut c = self.sum_within(c, depth)?;
                    if beta != 1.0 {
                        if !c.products.is_empty() {
                            return None;
                        }
                        c.bias.iter_mut().for_each(|v| *v *= f64::from(beta));
                    }
                    sum.plus(c, 1.0)?
                }
            };
            return Some(with(sum));
        }
        if let Some((_, x, axis, range)) = self.cut(id)
            && axis + 1 == self.rank(x)?
        {
            return self.sum_within(x, depth)?.columns(&range).map(with);
        }
        // What all timesteps have together, taken apart: the products are of the elements.
        let (nodes, root, axis, at) = self.picked(id)?;
        let all = self.sum_within(root, depth)?;
        let real = all
            .products
            .iter()
            .all(|p| p.matrix.is_some() && p.part.pick.is_none() && self.rank(p.part.root) == self.rank(root));
        if !real || all.products.is_empty() || axis + 1 == self.rank(root)? {
            return None;
        }
        let mut sum = all;
        sum.shared.append(&mut sum.nodes);
        // A split serves every timestep.
        sum.shared.extend(nodes.iter().filter(|&&n| self.operator::<Split>(n).is_some()));
        sum.nodes = nodes.into_iter().filter(|&n| self.operator::<Split>(n).is_none()).collect();
        for p in &mut sum.products {
            p.part = Part { root: p.part.root, pick: Some((axis, at)), value: None };
        }
        Some(sum)
    }

    fn matrix(&self, id: ValueId, transposed: bool, scale: f32) -> Option<Matrix> {
        let (elements, dims) = self.floats(self.plain(id))?;
        let &[a, b] = &dims[..] else { return None };
        let rows = 0..if transposed { b } else { a };
        Some(Matrix { elements: elements.clone(), dims: [a, b], transposed, rows, scale })
    }

    /// `x · weight`, where x may be values side by side.
    fn products(&self, x: ValueId, weight: &Matrix) -> Option<Sum> {
        let width = weight.dims[usize::from(!weight.transposed)];
        let mut sum = Sum { width, bias: vec![0.0; width], ..Sum::default() };
        let x = self.plain(x);
        let joined = self.made::<Concat>(x).filter(|(_, c)| self.axis(x, c.axis as i64).map(|a| a + 1) == self.rank(x));
        let parts = match joined {
            Some((node, _)) => {
                sum.nodes.insert(node);
                self.graph.nodes[node].inputs.iter().flatten().copied().collect()
            }
            None => vec![x],
        };
        let mut first = 0;
        let alone = parts.len() == 1;
        for p in parts {
            let rows = if alone { weight.rows.len() } else { self.width(p)? };
            // Zeros that stand in the graph add nothing.
            if self.uniform(p) != Some(0.0) {
                let matrix = Matrix { rows: first..first + rows, ..weight.clone() };
                sum.products.push(Product { part: self.part(p), matrix: Some(matrix), columns: 0..width });
            }
            first += rows;
        }
        (first == weight.rows.len()).then_some(sum)
    }
}
