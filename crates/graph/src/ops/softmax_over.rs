//! Softmax, its logarithm and the maximum's place along any axis.

use super::prelude::*;
use super::{Extent, Reshape};
use crate::ValueId;
use crate::operator::given;
use recurve_tensor::{Error, Function, Reduction};
use smallvec::SmallVec;

/// What is made of the elements along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shares {
    /// `e^x / Σ e^x`
    Softmax,
    /// `ln(e^x / Σ e^x)`
    LogSoftmax,
    /// 1 at the first of the largest, 0 elsewhere.
    Hardmax,
}

/// [`Shares`] along an axis, which counts from the end if it is negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoftmaxOver {
    /// What is computed.
    pub shares: Shares,
    /// The axis.
    pub axis: i64,
    /// All axes from this one on together, as before opset 13.
    pub flattened: bool,
}

/// The most elements along an axis of a [`Shares::Hardmax`], which is a look-up in a matrix of so many rows.
const MOST: usize = 4096;

impl SoftmaxOver {
    fn resolved(&self, rank: usize) -> Result<usize, String> {
        let axis = super::place_of(self.axis, rank);
        // Flattened, what is behind the last axis is one element.
        let axis = axis.or_else(|| (self.flattened && self.axis == rank as i64).then_some(rank));
        axis.ok_or_else(|| format!("is {}, but there are {rank} dimensions", self.axis))
    }

    /// Over the last axis.
    fn last(&self, x: &Tensor) -> Result<Tensor> {
        match self.shares {
            Shares::Softmax => x.softmax(),
            Shares::LogSoftmax => x.log_softmax(),
            Shares::Hardmax => {
                let width = x.shape().last();
                if width > MOST {
                    let message = format!("has {width} elements along the axis, but at most {MOST} are supported");
                    return Err(Error::Argument { operation: "Hardmax", argument: "x", message });
                }
                let rows = x.reshape(&[x.shape().count() / width, width])?;
                let places = rows.argmax(1)?.reshape(&[rows.dims()[0]])?;
                let mut unit = recurve_tensor::cpu::host::<f32>("Hardmax", width * width)?;
                unit.iter_mut().step_by(width + 1).for_each(|v| *v = 1.0);
                Tensor::from_f32(&unit, &[width, width], &x.device())?.gather(&places)?.reshape(x.dims())
            }
        }
    }
}

/// The gradient of a softmax `y` along an axis: `y (dy - Σ y dy)`.
pub(super) fn gradient(g: &mut Gradients<'_>, dy: ValueId, y: ValueId, axis: usize) -> crate::Result<ValueId> {
    let weighted = g.times(dy, y)?;
    let total = g.node(super::Reduce { reduction: Reduction::Sum, axis }, &[weighted])?;
    let rest = g.node(super::Binary::Sub, &[dy, total])?;
    g.times(y, rest)
}

impl Operator for SoftmaxOver {
    fn name(&self) -> &'static str {
        match self.shares {
            Shares::Softmax => "Softmax",
            Shares::LogSoftmax => "LogSoftmax",
            Shares::Hardmax => "Hardmax",
        }
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("x")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let x = given(inputs, 0)?;
        if !x.dtype.is_float() {
            return Err(Fault::Input(0, "floats".into()));
        }
        if !x.unranked {
            self.resolved(x.rank()).map_err(|message| Fault::Attribute("axis", message))?;
        }
        Ok(vec![x.clone()])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let x = call.floats(0)?;
        let dims = x.dims();
        let axis = self.resolved(dims.len()).map_err(|message| Error::Argument {
            operation: self.name(),
            argument: "axis",
            message,
        })?;
        let behind: usize = dims.get(axis + 1..).unwrap_or_default().iter().product();
        if self.flattened || behind == 1 {
            let width = if self.flattened { dims[axis..].iter().product() } else { dims[axis] };
            if dims.last() == Some(&width) {
                return Ok(one(self.last(&x)?));
            }
            let y = self.last(&x.reshape(&[x.shape().count() / width, width])?)?;
            return Ok(one(y.reshape(dims)?));
        }
        let x3 = x.reshape(&[x.shape().count() / (dims[axis] * behind), dims[axis], behind])?;
        let y = self.last(&x3.transpose(&[0, 2, 1])?)?.transpose(&[0, 2, 1])?;
        Ok(one(y.reshape(dims)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let axis = self.resolved(x.dims.len()).expect("inputs that fit");
        let end = if self.flattened { x.dims.len() } else { axis + 1 };
        let len: usize = x.dims[axis..end].iter().product();
        let inner: usize = x.dims[end..].iter().product();
        let mut y = x.clone();
        for outer in 0..x.data.len() / (len * inner) {
            for column in 0..inner {
                let places: SmallVec<[usize; 16]> = (0..len).map(|i| (outer * len + i) * inner + column).collect();
                let values: Vec<f64> = places.iter().map(|&p| x.data[p]).collect();
                let highest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = values.iter().map(|v| (v - highest).exp()).sum();
                let first = values.iter().position(|v| v.is_nan() || *v == highest);
                for (i, (&p, v)) in places.iter().zip(&values).enumerate() {
                    y.data[p] = match self.shares {
                        Shares::Softmax => (v - highest).exp() / sum,
                        Shares::LogSoftmax => v - highest - sum.ln(),
                        Shares::Hardmax => f64::from(u8::from(first == Some(i))),
                    };
                }
            }
        }
        vec![Some(y)]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (dy, y) = (g.of_only_output(), g.output(0));
        let rank = g.kind(y).rank();
        let axis = self.resolved(rank).map_err(|m| g.missing(&m))?;
        let (mut dy, mut y, mut axis) = (dy, y, axis);
        let flattened = self.flattened && axis + 1 != rank;
        if flattened {
            let rows = || Reshape(vec![Extent::Axes(0, axis), Extent::Axes(axis, rank - axis)]);
            (dy, y) = (g.node(rows(), &[dy])?, g.node(rows(), &[y])?);
            axis = 1;
        }
        let dx = match self.shares {
            Shares::Softmax => gradient(g, dy, y, axis)?,
            Shares::LogSoftmax => {
                let total = g.node(super::Reduce { reduction: Reduction::Sum, axis }, &[dy])?;
                let shares = g.map(Function::Exp, y)?;
                let taken = g.times(shares, total)?;
                g.node(super::Binary::Sub, &[dy, taken])?
            }
            Shares::Hardmax => return Ok(()),
        };
        if flattened {
            return g.give_reshaped(0, dx);
        }
        g.give(0, dx);
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
