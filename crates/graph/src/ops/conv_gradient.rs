//! Gradients of convolutions.

use super::prelude::*;
use super::window::{each, tap_place};
use super::{Conv, ConvTranspose};
use recurve_tensor::{Error, MatmulOptions, Reduction, Window};
use smallvec::SmallVec;

/// A convolution or its transpose.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Convolution {
    /// [`Conv`]
    Plain(Conv),
    /// [`ConvTranspose`]
    Transposed(ConvTranspose),
}

/// The gradient of x or of the weight of a convolution. Inputs: the gradient of the result; the weight for that of x, or
/// x for that of the weight; and what the gradient is of, of which only the shape matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvGradient {
    /// What it is the gradient of.
    pub of: Convolution,
    /// Of the weight, not of x.
    pub weight: bool,
}

const NAME: &str = "ConvGradient";

/// Elements of the columns that a product takes at a time.
const COLUMNS: usize = 1 << 24;

type Placed = (SmallVec<[Window; 3]>, SmallVec<[usize; 3]>);

impl Convolution {
    const fn groups(&self) -> usize {
        match self {
            Self::Plain(c) => c.groups,
            Self::Transposed(c) => c.groups,
        }
    }

    /// The windows, and the sizes of the result's last axes.
    fn place(&self, x: &[usize], weight: &[usize]) -> Result<Placed> {
        let Some(sizes) = weight.get(2..) else {
            return Err(bad("weight", format!("must have {} dimensions, but it is {weight:?}", x.len())));
        };
        let (windows, counts) = match self {
            Self::Plain(c) => c.windows.place(NAME, sizes, x, |n, size, len| c.windows.along(n, size, len))?,
            Self::Transposed(c) => c.windows.place(NAME, sizes, x, |n, size, len| c.along(n, size, len))?,
        };
        Ok((windows.into_iter().collect(), counts.into_iter().collect()))
    }

    /// The dimensions of the result.
    fn result(&self, x: &[usize], weight: &[usize], last: &[usize]) -> Vec<usize> {
        let channels = match self {
            Self::Plain(_) => weight[0],
            Self::Transposed(c) => weight[1] * c.groups,
        };
        [&[x[0], channels], last].concat()
    }

    /// Calls `f` with the places of the elements of x, of the weight and of the result of every product.
    fn products(&self, x: &[usize], weight: &[usize], mut f: impl FnMut([usize; 3])) {
        let (windows, last) = self.place(x, weight).expect("inputs that fit");
        let y = self.result(x, weight, &last);
        let flat = |dims: &[usize], at: &[usize]| dims.iter().zip(at).fold(0, |n, (&d, &i)| n * d + i);
        let (windowed, seen, transposed) = match self {
            Self::Plain(_) => (&y[..], x, false),
            Self::Transposed(_) => (x, &y[..], true),
        };
        // Channels of a group of what windows are counted of; the weight has as many rows.
        let rows = weight[0] / self.groups();
        each(&[windowed, &weight[1..]].concat(), |at| {
            let (o, rest) = at.split_at(windowed.len());
            let mut place = vec![o[0], o[1] / rows * weight[1] + rest[0]];
            for (n, w) in windows.iter().enumerate() {
                let Some(i) = tap_place(w, o[n + 2], rest[n + 1], seen[n + 2]) else { return };
                place.push(i);
            }
            let (own, other) = (flat(windowed, o), flat(seen, &place));
            let tap = flat(weight, &[&[o[1]], rest].concat());
            f(if transposed { [own, tap, other] } else { [other, tap, own] });
        });
    }

    /// Adds the gradients of a node's inputs.
    pub(super) fn gradient(self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (dy, x, weight) = (g.of_only_output(), g.input(0), g.input(1));
        if g.wants(0) {
            let dx = g.node(ConvGradient { of: self.clone(), weight: false }, &[dy, weight, x])?;
            g.give(0, dx);
        }
        if g.wants(1) {
            let dw = g.node(ConvGradient { of: self, weight: true }, &[dy, x, weight])?;
            g.give(1, dw);
        }
        if g.wants(2) {
            if g.kind(dy).unranked {
                return Err(g.missing("the number of dimensions of its result is not known before a run"));
            }
            let axes = (0..g.kind(dy).rank() as i64).filter(|&n| n != 1).collect();
            let sum = super::ReduceOver { reduction: Reduction::Sum, axes, keep_dims: false, noop: false, int: None };
            let d = g.node(sum, &[dy])?;
            g.give(2, d);
        }
        Ok(())
    }
}

fn bad(argument: &'static str, message: String) -> Error {
    Error::Argument { operation: NAME, argument, message }
}

/// The elements between the first that a window looks at and behind the last that one does.
const fn needed(w: &Window, count: usize) -> usize {
    (count - 1) * w.stride + (w.size - 1) * w.dilation + 1
}

/// The sums of the products of windows of `seen`, `[N, C, …]`, with one number each, `[N, M, …]`: `[M, C / groups, …]`
/// with the sizes of the windows.
fn sums(numbers: &Tensor, seen: &Tensor, windows: &[Window], groups: usize) -> Result<Tensor> {
    let (n, m, c) = (numbers.dims()[0], numbers.dims()[1], seen.dims()[1]);
    let counts = &numbers.dims()[2..];
    let axes = windows.len();
    let taps: usize = windows.iter().map(|w| w.size).product();
    let places: usize = counts.iter().product();
    let mut dims = vec![m, c / groups];
    dims.extend(windows.iter().map(|w| w.size));
    // All that windows look at, with zeros around.
    let mut whole = seen.clone();
    let (mut wide, mut at) = (seen.dims()[..2].to_vec(), vec![0; 2]);
    for (d, (w, &count)) in windows.iter().zip(counts).enumerate() {
        let all = needed(w, count);
        let len = whole.dims()[d + 2].min(all.saturating_sub(w.before));
        if len == 0 {
            return Tensor::full(&dims, 0.0, DType::F32, &seen.device());
        }
        whole = if len < whole.dims()[d + 2] { whole.slice(d + 2, 0..len)? } else { whole };
        wide.push(all);
        at.push(w.before);
    }
    if wide != whole.dims() {
        whole = whole.padded(&wide, &at, 0.0)?;
    }
    let own = super::moves::strides(&wide);
    let step = (COLUMNS / (c * taps * places).max(1)).clamp(1, n);
    let mut total: Option<Tensor> = None;
    for first in (0..n).step_by(step) {
        let count = step.min(n - first);
        let (whole, numbers) = match count == n {
            true => (whole.clone(), numbers.clone()),
            false => (whole.slice(0, first..first + count)?, numbers.slice(0, first..first + count)?),
        };
        // The columns of the windows: with three axes one element of the outermost at a time.
        let inner = axes.min(2);
        let outer = axes - inner;
        let (spans, along) = (&windows[outer..], &own[2 + outer..]);
        let mut shape = vec![count * c];
        shape.extend(spans.iter().map(|w| w.size));
        shape.extend(counts);
        let mut strides = vec![own[1]];
        strides.extend(spans.iter().zip(along).map(|(w, s)| w.dilation as isize * s));
        strides.extend(windows.iter().zip(&own[2..]).map(|(w, s)| w.stride as isize * s));
        let columns = match outer {
            0 => whole.strided(&shape, 0, &strides)?,
            _ => {
                let inner_taps: usize = spans.iter().map(|w| w.size).product();
                let part = |tap: usize| {
                    let offset = tap * windows[0].dilation * own[2] as usize;
                    whole.strided(&shape, offset, &strides)?.reshape(&[count * c, inner_taps, places])
                };
                let parts = (0..windows[0].size).map(part).collect::<Result<Vec<_>>>()?;
                recurve_tensor::concat(&parts.iter().collect::<Vec<_>>(), 1)?
            }
        };
        let columns = columns.reshape(&[count * groups, c / groups * taps, places])?;
        let rows = numbers.reshape(&[count * groups, m / groups, places])?;
        let options = MatmulOptions { transpose_rhs: true, ..MatmulOptions::default() };
        let parts = rows.matmul_with(&columns, &options)?.reshape(&[count, m * (c / groups) * taps])?;
        let sum = parts.reduce(Reduction::Sum, 0)?;
        total = Some(match total {
            Some(total) => total.add(&sum)?,
            None => sum,
        });
    }
    total.expect("a tensor has elements").reshape(&dims)
}

impl Operator for ConvGradient {
    fn name(&self) -> &'static str {
        NAME
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("dy"), Slot::Required("other"), Slot::Required("like")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        super::like::like(inputs, 2)
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let (dy, other, like) = (call.floats(0)?, call.floats(1)?, call.data(2).dims());
        let (x, weight) = if self.weight { (other.dims(), like) } else { (like, other.dims()) };
        let (windows, last) = self.of.place(x, weight)?;
        let result = self.of.result(x, weight, &last);
        if dy.dims() != result {
            return Err(bad("dy", format!("must be {result:?}, but its shape is {}", dy.shape())));
        }
        let groups = self.of.groups();
        Ok(one(match (&self.of, self.weight) {
            (Convolution::Plain(_), false) => dy.conv_transpose(&other, None, &windows, groups, &x[2..])?,
            (Convolution::Plain(_), true) => sums(&dy, &other, &windows, groups)?,
            (Convolution::Transposed(_), true) => sums(&other, &dy, &windows, groups)?,
            (Convolution::Transposed(_), false) => {
                // Windows over the result, as many as x has elements.
                let (mut dy, mut windows) = (dy.into_owned(), windows);
                for (d, w) in windows.iter_mut().enumerate() {
                    let (all, len) = (needed(w, x[d + 2]), last[d]);
                    if len + w.before > all && all > w.before {
                        dy = dy.slice(d + 2, 0..all - w.before)?;
                    }
                    w.after = all.saturating_sub(w.before + len);
                }
                dy.conv(&other, None, &windows, groups)?
            }
        }))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let [dy, other, like] = [0, 1, 2].map(|n| array(inputs, n));
        let (x, weight) = if self.weight { (&other.dims, &like.dims) } else { (&like.dims, &other.dims) };
        let mut out = Array::from_fn(&like.dims, |_| 0.0);
        self.of.products(x, weight, |[x, w, y]| {
            let (own, other_at) = if self.weight { (w, x) } else { (x, w) };
            out.data[own] += dy.data[y] * other.data[other_at];
        });
        vec![Some(out)]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
