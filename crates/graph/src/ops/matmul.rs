//! Matrix products.

use super::prelude::*;
use super::{on_host, operand};
use crate::operator::given;
use recurve_tensor::MatmulOptions;
use recurve_vocabulary::Activation;

/// `a · b`: `[…, m, k] · […, k, n]`, leading dimensions broadcast; a vector is a row on the left and a column on the
/// right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatMul;

/// The dimensions of both sides as matrices, and whether each was a vector.
fn matrices<D: Clone>(a: &[D], b: &[D], one: &D) -> (Vec<D>, Vec<D>, bool, bool) {
    let (row, column) = (a.len() == 1, b.len() == 1);
    let left = if row { vec![one.clone(), a[0].clone()] } else { a.to_vec() };
    let right = if column { vec![b[0].clone(), one.clone()] } else { b.to_vec() };
    (left, right, row, column)
}

impl Operator for MatMul {
    fn name(&self) -> &'static str {
        "MatMul"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("a"), Slot::Required("b")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let (a, b) = (given(inputs, 0)?, given(inputs, 1)?);
        if a.dtype == crate::Element::Bool {
            return Err(Fault::Input(0, "numbers".into()));
        }
        if a.dtype != b.dtype && !(a.dtype.is_float() && b.dtype.is_float()) {
            return Err(Fault::Input(1, format!("{}, as the other side", a.dtype)));
        }
        if a.unranked || b.unranked {
            return Ok(vec![ValueType::unranked(a.dtype)]);
        }
        if a.rank() == 0 {
            return Err(Fault::Input(0, "[…, m, k]".into()));
        }
        let one = Dim::Size(1);
        let bad = |k: &Dim| Fault::Input(1, format!("[k, n] or […, k, n] with k = {k}, for {a}"));
        if b.rank() == 0 {
            return Err(bad(a.dims.last().expect("it has dimensions")));
        }
        let (left, right, row, column) = matrices(&a.dims, &b.dims, &one);
        let ([la @ .., m, k], [lb @ .., rows, n]) = (&left[..], &right[..]) else {
            unreachable!("both have two dimensions")
        };
        rows.meet(k).ok_or_else(|| bad(k))?;
        let rank = la.len().max(lb.len());
        let dim = |own: &[Dim], i: usize| (i + own.len()).checked_sub(rank).map_or(one.clone(), |i| own[i].clone());
        let mut dims = Vec::new();
        for i in 0..rank {
            dims.push(dim(la, i).broadcast(&dim(lb, i)).ok_or_else(|| bad(k))?);
        }
        if !row {
            dims.push(m.clone());
        }
        if !column {
            dims.push(n.clone());
        }
        Ok(vec![a.with_dims(dims)])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        if call.all_ints().is_some() {
            return on_host(self, call);
        }
        let (a, b) = (operand(call, 0)?, operand(call, 1)?);
        let (left, right) = (a.dims().len(), b.dims().len());
        if left != 1 && right != 1 {
            return Ok(one(a.matmul(&b)?));
        }
        let a = if left == 1 { a.reshape(&[1, a.dims()[0]])? } else { a.into_owned() };
        let b = if right == 1 { b.reshape(&[b.dims()[0], 1])? } else { b.into_owned() };
        let y = a.matmul(&b)?;
        let mut dims: smallvec::SmallVec<[usize; 6]> = y.dims().into();
        if right == 1 {
            dims.pop();
        }
        if left == 1 {
            dims.remove(y.dims().len() - 2);
        }
        Ok(one(y.reshape(&dims)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (a, b) = (array(inputs, 0), array(inputs, 1));
        let (left, right, row, column) = matrices(&a.dims, &b.dims, &1);
        let (x, y) = (a.reshaped(&left), b.reshaped(&right));
        let rank = left.len().max(right.len());
        let dim = |own: &[usize], i: usize| (i + own.len()).checked_sub(rank).map_or(1, |i| own[i]);
        let mut dims: Vec<usize> = (0..rank - 2).map(|i| dim(&left, i).max(dim(&right, i))).collect();
        dims.extend([left[left.len() - 2], right[right.len() - 1]]);
        let mut product = Array::from_fn(&dims, |i| {
            let (mut at, mut bt) = (i.to_vec(), i.to_vec());
            let terms = (0..x.last()).map(|p| {
                (at[rank - 1], bt[rank - 2]) = (p, p);
                x.at(&at) * y.at(&bt)
            });
            terms.sum()
        });
        if column {
            product.dims.pop();
        }
        if row {
            product.dims.remove(rank - 2);
        }
        vec![Some(product)]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (dy, a, b) = (g.of_only_output(), g.input(0), g.input(1));
        if g.kind(a).unranked || g.kind(b).unranked {
            return Err(g.missing("the number of dimensions of a side is not known before a run"));
        }
        let (left, right) = (g.kind(a).rank(), g.kind(b).rank());
        if left < 2 || right < 2 {
            return of_vectors(g, dy, a, b);
        }
        let turned = |g: &mut Gradients<'_>, v: crate::ValueId, rank: usize| {
            let mut axes: Vec<usize> = (0..rank).collect();
            axes.swap(rank - 2, rank - 1);
            g.node(super::Transpose(axes), &[v])
        };
        if g.wants(0) {
            let bt = turned(g, b, right)?;
            let da = g.node(Self, &[dy, bt])?;
            g.give_sum(0, da)?;
        }
        if g.wants(1) {
            let at = turned(g, a, left)?;
            let db = g.node(Self, &[at, dy])?;
            g.give_sum(1, db)?;
        }
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Adds the gradient of a [`MatMul`] with a vector on one side or both: as a product of matrices.
fn of_vectors(g: &mut Gradients<'_>, dy: crate::ValueId, a: crate::ValueId, b: crate::ValueId) -> crate::Result<()> {
    use super::{Extent, Reshape, SumTo, Transpose};
    let (left, right) = (g.kind(a).rank(), g.kind(b).rank());
    let (row, column) = (left == 1, right == 1);
    let whole = Extent::Axes(0, 1);
    let x = if row { g.node(Reshape(vec![Extent::Size(1), whole]), &[a])? } else { a };
    let y = if column { g.node(Reshape(vec![whole, Extent::Size(1)]), &[b])? } else { b };
    let batch = left.max(right).max(2) - 2;
    let mut extents: Vec<_> = (0..batch).map(|n| Extent::Axes(n, 1)).collect();
    extents.push(if row { Extent::Size(1) } else { Extent::Axes(batch, 1) });
    extents.push(if column { Extent::Size(1) } else { Extent::Axes(batch + usize::from(!row), 1) });
    let dy = g.node(Reshape(extents), &[dy])?;
    for (index, own, other) in [(0, x, y), (1, y, x)] {
        if g.wants(index) {
            let rank = g.kind(other).rank();
            let mut axes: Vec<usize> = (0..rank).collect();
            axes.swap(rank - 2, rank - 1);
            let turned = g.node(Transpose(axes), &[other])?;
            let d = g.node(MatMul, &if index == 0 { [dy, turned] } else { [turned, dy] })?;
            let d = g.node(SumTo, &[d, own])?;
            g.give_reshaped(index, d)?;
        }
    }
    Ok(())
}

/// `alpha · a · b + beta · c` of matrices, each of the first two transposed or not; c is broadcast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gemm {
    /// Multiplied with the product.
    pub alpha: f32,
    /// Multiplied with c.
    pub beta: f32,
    /// a is `[k, m]`.
    pub transpose_a: bool,
    /// b is `[n, k]`.
    pub transpose_b: bool,
}

impl Gemm {
    /// `aᵀ · b`
    pub(super) const fn of_columns() -> Self {
        Self { alpha: 1.0, beta: 0.0, transpose_a: true, transpose_b: false }
    }
}

impl Operator for Gemm {
    fn name(&self) -> &'static str {
        "Gemm"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("a"), Slot::Required("b"), Slot::Optional("c")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let (a, b) = (given(inputs, 0)?, given(inputs, 1)?);
        if a.dtype != b.dtype && !(a.dtype.is_float() && b.dtype.is_float()) {
            return Err(Fault::Input(1, format!("{}, as the other side", a.dtype)));
        }
        let sides = |t: &ValueType, transposed: bool, index: usize| match &t.dims[..] {
            _ if t.unranked => Ok((Dim::Any, Dim::Any)),
            [x, y] if transposed => Ok((y.clone(), x.clone())),
            [x, y] => Ok((x.clone(), y.clone())),
            _ => Err(Fault::Input(index, "of two dimensions".into())),
        };
        let (m, k) = sides(a, self.transpose_a, 0)?;
        let (rows, n) = sides(b, self.transpose_b, 1)?;
        rows.meet(&k).ok_or_else(|| Fault::Input(1, format!("of k = {k} rows, for {a}")))?;
        let y = ValueType::new(a.dtype, [m.clone(), n.clone()]);
        if let Some(c) = inputs.get(2).copied().flatten().filter(|c| !c.unranked) {
            let fits =
                |own: Option<&Dim>, d: &Dim| own.is_none_or(|own| own.size() == Some(1) || own.meet(d).is_some());
            let mut back = c.dims.iter().rev();
            if c.rank() > 2 || !fits(back.next(), &n) || !fits(back.next(), &m) {
                return Err(Fault::Input(2, format!("of a shape that can be broadcast to {y}")));
            }
        }
        Ok(vec![y])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        if call.all_ints().is_some() {
            return on_host(self, call);
        }
        let (a, b) = (call.floats(0)?, call.floats(1)?);
        let a = if self.transpose_a { a.transpose(&[1, 0])? } else { a.into_owned() };
        let c = call.get(2).filter(|_| self.beta != 0.0).map(|_| call.floats(2)).transpose()?;
        let n = b.dims().get(usize::from(!self.transpose_b)).copied().unwrap_or(0);
        let plain = self.alpha == 1.0 && self.beta == 1.0;
        let bias = match &c {
            Some(c) if plain && c.shape().count() == n && c.dims().last() == Some(&n) => Some(c.reshape(&[n])?),
            _ => None,
        };
        let scaled = |by: f32| Activation::Affine { alpha: by, beta: 0.0 };
        let activation = if self.alpha == 1.0 { Activation::Linear } else { scaled(self.alpha) };
        let options = MatmulOptions {
            transpose_rhs: self.transpose_b,
            bias: bias.as_ref(),
            activation,
            ..MatmulOptions::default()
        };
        let y = a.matmul_with(&b, &options)?;
        Ok(one(match c {
            Some(c) if bias.is_none() => {
                let c = if self.beta == 1.0 { c.into_owned() } else { c.activation(scaled(self.beta))? };
                let sum = y.add(&c)?;
                if sum.dims() != y.dims() {
                    let message = format!("must be broadcast to {}, but its shape is {}", y.shape(), c.shape());
                    return Err(recurve_tensor::Error::Argument { operation: "Gemm", argument: "c", message });
                }
                sum
            }
            _ => y,
        }))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (a, b) = (array(inputs, 0), array(inputs, 1));
        let c = inputs.get(2).copied().flatten();
        let side =
            |t: &Array, transposed: bool, i: usize, j: usize| if transposed { t.at(&[j, i]) } else { t.at(&[i, j]) };
        let (m, k) = if self.transpose_a { (a.dims[1], a.dims[0]) } else { (a.dims[0], a.dims[1]) };
        let n = b.dims[usize::from(!self.transpose_b)];
        vec![Some(Array::from_fn(&[m, n], |i| {
            let terms = (0..k).map(|p| side(a, self.transpose_a, i[0], p) * side(b, self.transpose_b, p, i[1]));
            f64::from(self.alpha) * terms.sum::<f64>() + c.map_or(0.0, |c| f64::from(self.beta) * c.at(i))
        }))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (dy, a, b) = (g.of_only_output(), g.input(0), g.input(1));
        let plain =
            |transpose_a: bool, transpose_b: bool| Self { alpha: self.alpha, beta: 0.0, transpose_a, transpose_b };
        if g.wants(0) {
            let da = if self.transpose_a {
                g.node(plain(self.transpose_b, true), &[b, dy])?
            } else {
                g.node(plain(false, !self.transpose_b), &[dy, b])?
            };
            g.give(0, da);
        }
        if g.wants(1) {
            let db = if self.transpose_b {
                g.node(plain(true, self.transpose_a), &[dy, a])?
            } else {
                g.node(plain(!self.transpose_a, false), &[a, dy])?
            };
            g.give(1, db);
        }
        if g.wants(2) {
            let scale = g.number(self.beta)?;
            let dc = if self.beta == 1.0 { dy } else { g.times(dy, scale)? };
            g.give_sum(2, dc)?;
        }
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
