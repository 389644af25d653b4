//! Sums, means, extremes, products and norms over any axes.

use super::prelude::*;
use crate::operator::given;
use crate::{Data, Element, Int, IntArray};
use recurve_tensor::{Error, Function, Reduction};
use smallvec::SmallVec;

/// Reduces axes, each by its place, from the end if it is negative: those of the second input if there is one. Without
/// any all axes are reduced, or none if `noop`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReduceOver {
    /// What is computed.
    pub reduction: Reduction,
    /// The axes, if the second input does not say them.
    pub axes: Vec<i64>,
    /// Axes that are reduced stay, with size 1.
    pub keep_dims: bool,
    /// No axes means none, not all.
    pub noop: bool,
    /// The type of x, if it is one of whole numbers.
    pub int: Option<Int>,
}

impl ReduceOver {
    /// Over these axes, which stay with size 1.
    pub(super) fn kept(reduction: Reduction, axes: &[usize]) -> Self {
        let axes = axes.iter().map(|&a| a as i64).collect();
        Self { reduction, axes, keep_dims: true, noop: true, int: None }
    }

    /// Which of so many axes are reduced.
    fn resolved(&self, axes: &[i64], rank: usize) -> Result<SmallVec<[usize; 6]>, String> {
        if axes.is_empty() {
            return Ok(if self.noop { SmallVec::new() } else { (0..rank).collect() });
        }
        let mut all = SmallVec::new();
        for &axis in axes {
            let place = if axis < 0 { axis.checked_add_unsigned(rank as u64) } else { Some(axis) };
            match place.and_then(|p| usize::try_from(p).ok()).filter(|&p| p < rank) {
                Some(place) if !all.contains(&place) => all.push(place),
                Some(_) => return Err(format!("name an axis twice: {axes:?}")),
                None => return Err(format!("are {axes:?}, but there are {rank} dimensions")),
            }
        }
        all.sort_unstable();
        Ok(all)
    }

    fn dims<D: Clone>(&self, dims: &[D], axes: &[usize], one: &D) -> SmallVec<[D; 6]> {
        let kept = dims.iter().enumerate().filter(|(n, _)| self.keep_dims || !axes.contains(n));
        kept.map(|(n, d)| if axes.contains(&n) { one.clone() } else { d.clone() }).collect()
    }

    /// The same of whole numbers, which wrap.
    fn whole(&self, x: &IntArray, axes: &[usize]) -> Result<IntArray> {
        let bad = |message: &str| Error::Argument { operation: self.name(), argument: "x", message: message.into() };
        let ones = x.dims().iter().enumerate().map(|(n, &d)| if axes.contains(&n) { 1 } else { d });
        let ones: SmallVec<[usize; 6]> = ones.collect();
        let counted = ones.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let counted = counted.ok_or_else(|| bad("has dimensions that are too large"))?;
        let mut out = recurve_tensor::cpu::host::<i64>(self.name(), counted)?;
        // What a reduction of nothing is; truth values have no other type.
        let of_none = match self.reduction {
            Reduction::Product => 1,
            Reduction::Max => self.int.map_or(0, |int| int.range().0),
            Reduction::Min => self.int.map_or(1, |int| int.range().1),
            Reduction::Mean if x.data().is_empty() && counted > 0 => return Err(bad("has no elements")),
            _ => 0,
        };
        out.fill(of_none);
        let mut seen = recurve_tensor::cpu::host::<u8>(self.name(), counted)?;
        let mut at: SmallVec<[usize; 6]> = SmallVec::from_elem(0, ones.len());
        for &v in x.data() {
            let place = at.iter().zip(&ones).fold(0, |p, (&i, &d)| p * d + if d == 1 { 0 } else { i });
            let o = &mut out[place];
            *o = match self.reduction {
                Reduction::Sum | Reduction::Mean | Reduction::LogSum => o.wrapping_add(v),
                Reduction::L1 => o.wrapping_add(v.wrapping_abs()),
                Reduction::L2 | Reduction::SumSquare => o.wrapping_add(v.wrapping_mul(v)),
                Reduction::Product => o.wrapping_mul(v),
                Reduction::Max if seen[place] > 0 => v.max(*o),
                Reduction::Min if seen[place] > 0 => v.min(*o),
                Reduction::Max | Reduction::Min => v,
                _ => return Err(bad("is of whole numbers; cast it to floats first")),
            };
            seen[place] = 1;
            for n in (0..at.len()).rev() {
                at[n] += 1;
                if at[n] < x.dims()[n] {
                    break;
                }
                at[n] = 0;
            }
        }
        let count = axes.iter().map(|&n| x.dims()[n]).product::<usize>().max(1) as i64;
        for o in &mut out {
            *o = match self.reduction {
                Reduction::Mean => *o / count,
                Reduction::L2 => (*o as f64).sqrt() as i64,
                Reduction::LogSum => (*o as f64).ln() as i64,
                _ => *o,
            };
            if let Some(int) = self.int {
                *o = int.wrap(*o);
            }
        }
        Ok(IntArray::new(&self.dims(x.dims(), axes, &1), out))
    }
}

/// The reduction of an array over axes, which become 1.
pub(super) fn reduced(x: &Array, reduction: Reduction, axes: &[usize]) -> Array {
    let dims: Vec<usize> = x.dims.iter().enumerate().map(|(n, &d)| if axes.contains(&n) { 1 } else { d }).collect();
    let mut groups = vec![Vec::new(); dims.iter().product()];
    let mut flat = 0;
    super::window::each(&x.dims, |at| {
        let place = at.iter().zip(&dims).fold(0, |p, (&i, &d)| p * d + if d == 1 { 0 } else { i });
        groups[place].push(x.data[flat]);
        flat += 1;
    });
    let one = |v: &Vec<f64>| {
        let sum = |f: fn(f64) -> f64| v.iter().map(|&v| f(v)).sum::<f64>();
        match reduction {
            Reduction::Sum => sum(|v| v),
            Reduction::Mean => sum(|v| v) / v.len() as f64,
            Reduction::Max => v.iter().fold(f64::NEG_INFINITY, |m, &v| if m.is_nan() || v <= m { m } else { v }),
            Reduction::Min => v.iter().fold(f64::INFINITY, |m, &v| if m.is_nan() || v >= m { m } else { v }),
            Reduction::Product => v.iter().product(),
            Reduction::L1 => sum(f64::abs),
            Reduction::L2 => sum(|v| v * v).sqrt(),
            Reduction::SumSquare => sum(|v| v * v),
            Reduction::LogSum => sum(|v| v).ln(),
            Reduction::LogSumExp => sum(f64::exp).ln(),
            // A reduction without a definition here gives NaN, which agrees with nothing.
            _ => f64::NAN,
        }
    };
    Array::new(&dims, groups.iter().map(one).collect())
}

/// How many elements there are along axes together.
pub(super) fn count(g: &mut Gradients<'_>, x: crate::ValueId, axes: &[usize]) -> crate::Result<crate::ValueId> {
    let known = axes.iter().map(|&a| g.kind(x).dims[a].size()).try_fold(1, |n, d| Some(n * d?));
    if let Some(n) = known {
        return g.number(n as f32);
    }
    // The sum of ones.
    let one = g.number(1.0)?;
    let ones = g.node(super::ExpandLike, &[one, x])?;
    g.node(ReduceOver::kept(Reduction::Sum, axes), &[ones])
}

/// Adds the gradient of a reduction over axes, whether or not they are kept.
pub(super) fn gradient(g: &mut Gradients<'_>, reduction: Reduction, axes: &[usize]) -> crate::Result<()> {
    use super::{Binary, Extent, Reshape};
    let (dy, x) = (g.of_only_output(), g.input(0));
    if g.kind(x).unranked {
        return Err(g.missing("the number of dimensions of its input is not known before a run"));
    }
    let rank = g.kind(x).rank();
    let extents = |n: usize| if axes.contains(&n) { Extent::Size(1) } else { Extent::Like(n) };
    // Both with the reduced axes, of size 1.
    let kept = |g: &mut Gradients<'_>, v| g.node(Reshape((0..rank).map(extents).collect()), &[v, x]);
    let dy = kept(g, dy)?;
    let output = g.output(0);
    let y = kept(g, output)?;
    let dx = match reduction {
        Reduction::Sum => return g.give_repeated(0, dy),
        Reduction::Mean => {
            let count = count(g, x, axes)?;
            let share = g.node(Binary::Div, &[dy, count])?;
            return g.give_repeated(0, share);
        }
        Reduction::SumSquare => {
            let two = g.number(2.0)?;
            let twice = g.times(x, two)?;
            g.times(twice, dy)?
        }
        Reduction::L1 => {
            let sign = g.map(Function::Sign, x)?;
            g.times(sign, dy)?
        }
        Reduction::L2 => {
            // x / y, but 0 where all are 0
            let zero = g.number(0.0)?;
            let empty = g.node(Binary::Equal, &[y, zero])?;
            let share = g.node(Binary::Div, &[x, y])?;
            let share = g.node(super::Where, &[empty, zero, share])?;
            g.times(share, dy)?
        }
        Reduction::LogSum => {
            let sum = g.map(Function::Exp, y)?;
            let d = g.node(Binary::Div, &[dy, sum])?;
            return g.give_repeated(0, d);
        }
        Reduction::LogSumExp => {
            let below = g.node(Binary::Sub, &[x, y])?;
            let share = g.map(Function::Exp, below)?;
            g.times(share, dy)?
        }
        Reduction::Max | Reduction::Min => {
            // Equal elements share the gradient.
            let zero = g.number(0.0)?;
            let one = g.number(1.0)?;
            let extreme = g.node(Binary::Equal, &[x, y])?;
            let ones = g.node(super::Where, &[extreme, one, zero])?;
            let count = g.node(super::ReduceOver::kept(Reduction::Sum, axes), &[ones])?;
            let share = g.node(Binary::Div, &[dy, count])?;
            g.times(ones, share)?
        }
        Reduction::Product => {
            // The product of the others: 0 where one of them is 0, else that of all that are not 0, but for x itself.
            let (zero, one) = (g.number(0.0)?, g.number(1.0)?);
            let empty = g.node(Binary::Equal, &[x, zero])?;
            let factors = g.node(super::Where, &[empty, one, x])?;
            let product = g.node(super::ReduceOver::kept(Reduction::Product, axes), &[factors])?;
            let others = g.node(Binary::Div, &[product, factors])?;
            let own = g.node(super::Where, &[empty, one, zero])?;
            let zeros = g.node(super::ReduceOver::kept(Reduction::Sum, axes), &[own])?;
            let none = g.node(Binary::Equal, &[zeros, own])?;
            let slope = g.node(super::Where, &[none, others, zero])?;
            g.times(slope, dy)?
        }
        other => return Err(g.missing(&format!("{other:?} has none"))),
    };
    g.give(0, dx);
    Ok(())
}

/// ONNX's name of a reduction.
pub(super) const fn name(reduction: Reduction) -> &'static str {
    match reduction {
        Reduction::Sum => "ReduceSum",
        Reduction::Mean => "ReduceMean",
        Reduction::Max => "ReduceMax",
        Reduction::Min => "ReduceMin",
        Reduction::Product => "ReduceProd",
        Reduction::L1 => "ReduceL1",
        Reduction::L2 => "ReduceL2",
        Reduction::SumSquare => "ReduceSumSquare",
        Reduction::LogSum => "ReduceLogSum",
        Reduction::LogSumExp => "ReduceLogSumExp",
        _ => "Reduce",
    }
}

impl Operator for ReduceOver {
    fn name(&self) -> &'static str {
        name(self.reduction)
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("x"), Slot::Optional("axes")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let x = given(inputs, 0)?;
        let extreme = matches!(self.reduction, Reduction::Max | Reduction::Min);
        if x.dtype == Element::Bool && !extreme {
            return Err(Fault::Input(0, "numbers".into()));
        }
        let stated = inputs.get(1).copied().flatten();
        let axes = match stated {
            Some(t) => t.content(),
            None => Some(self.axes.clone()),
        };
        if x.unranked {
            return Ok(vec![ValueType::unranked(x.dtype)]);
        }
        let Some(axes) = axes else {
            // How many there are may be known all the same.
            let count = stated.and_then(|t| t.dims.first()?.size()).filter(|&n| n > 0);
            let rank = match (self.keep_dims, count) {
                (true, _) => Some(x.rank()),
                (false, Some(n)) => x.rank().checked_sub(n),
                (false, None) => None,
            };
            return Ok(vec![match rank {
                Some(rank) => x.with_dims(vec![Dim::Any; rank]),
                None => ValueType::unranked(x.dtype),
            }]);
        };
        let axes = self.resolved(&axes, x.rank()).map_err(|message| match stated {
            Some(_) => Fault::Input(1, format!("axes of {x}; they {message}")),
            None => Fault::Attribute("axes", message),
        })?;
        let y = x.with_dims(self.dims(&x.dims, &axes, &Dim::Size(1)).into_vec());
        let known = x.content().filter(|_| x.rank() <= 1).and_then(|content| {
            let x = IntArray::new(&x.shape()?, content);
            self.whole(&x, &axes).ok()
        });
        Ok(vec![y.with_known(known.map(|k| k.data().iter().copied().map(Some).collect::<Vec<_>>()))])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let x = call.data(0);
        let stated = call.get(1).map(|_| call.ints(1)).transpose()?;
        let axes = stated.as_ref().map_or(&self.axes[..], |s| s.data());
        let axes = self.resolved(axes, x.dims().len()).map_err(|message| Error::Argument {
            operation: self.name(),
            argument: "axes",
            message,
        })?;
        if let Data::Ints(x) = x {
            return Ok(one(self.whole(x, &axes)?));
        }
        let x = call.floats(0)?;
        let y = x.reduce_axes(self.reduction, &axes)?;
        if self.keep_dims || axes.is_empty() {
            return Ok(one(y));
        }
        Ok(one(y.reshape(&self.dims(x.dims(), &axes, &1))?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let axes = match inputs.get(1).copied().flatten() {
            Some(a) => a.data.iter().map(|&v| v as i64).collect(),
            None => self.axes.clone(),
        };
        let axes = self.resolved(&axes, x.dims.len()).expect("inputs that fit");
        let dims = self.dims(&x.dims, &axes, &1);
        let mut y = reduced(x, self.reduction, &axes).reshaped(&dims);
        if x.data.is_empty() {
            // An extreme of no whole numbers is the other end of their range; truth values have no other type.
            let (least, most) = self.int.map_or((0, 1), Int::range);
            y.data.iter_mut().for_each(|v| *v = v.clamp(least as f64, most as f64));
        }
        vec![Some(y)]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let x = g.input(0);
        let axes = match g.get(1) {
            Some(stated) => g.kind(stated).content(),
            None => Some(self.axes.clone()),
        };
        let axes = axes.ok_or_else(|| g.missing("its axes are not known before a run"))?;
        let axes = self.resolved(&axes, g.kind(x).rank()).map_err(|m| g.missing(&m))?;
        gradient(g, self.reduction, &axes)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
