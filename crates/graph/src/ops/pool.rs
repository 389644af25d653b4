//! Pooling over windows, and over whole axes.

use super::prelude::*;
use super::window::{Windows, each, tap_place};
use crate::operator::given;
use crate::{Data, Element, Int};
use recurve_tensor::{Device, Error, Function, Indices, Operation, Pooling, Reduction, Scatter, Update, Window};
use smallvec::{SmallVec, smallvec};

/// Maxima, means or norms of windows over one to three axes of `[N, C, …]`. Maxima have a second output, where they
/// stand in the whole of x.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// What is made of a window.
    pub pooling: Pooling,
    /// The windows, with their sizes.
    pub windows: Windows,
    /// The second output counts the last axes as if the first of them were the innermost.
    pub column_major: bool,
}

impl Operator for Pool {
    fn name(&self) -> &'static str {
        match self.pooling {
            Pooling::Max => "MaxPool",
            Pooling::Average { .. } => "AveragePool",
            Pooling::Norm { .. } => "LpPool",
        }
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("x")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let x = given(inputs, 0)?;
        let whole = matches!(x.dtype, Element::Int(_)) && self.pooling == Pooling::Max;
        if !x.dtype.is_float() && !whole {
            return Err(Fault::Input(0, "floats, or whole numbers for a maximum".into()));
        }
        let axes = self.windows.sizes.len();
        self.windows.check(axes)?;
        let mut y = if x.unranked {
            let mut y = ValueType::new(x.dtype, [Dim::Any, Dim::Any]);
            y.dims.extend(vec![Dim::Any; axes]);
            y
        } else {
            let [n, c, rest @ ..] = &x.dims[..] else {
                return Err(Fault::Input(0, format!("of {} dimensions", axes + 2)));
            };
            if rest.len() != axes {
                return Err(Fault::Input(0, format!("of {} dimensions", axes + 2)));
            }
            let sizes: Vec<_> = self.windows.sizes.iter().copied().map(Some).collect();
            let along = |n, size, len| self.windows.along(n, size, len);
            let mut dims = vec![n.clone(), c.clone()];
            dims.extend(self.windows.types(rest, &sizes, along)?);
            x.with_dims(dims)
        };
        y.known = None;
        let places = ValueType { dtype: Element::Int(Int::I64), ..y.clone() };
        Ok(if self.pooling == Pooling::Max { vec![y, places] } else { vec![y] })
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let host;
        let x = match call.data(0) {
            Data::Ints(i) => {
                host = i.to_tensor(&Device::Cpu)?;
                &host
            }
            Data::Tensor(t) => t,
        };
        let along = |n, size, len| self.windows.along(n, size, len);
        let (windows, counts) = self.windows.place(self.name(), &self.windows.sizes, x.dims(), along)?;
        let wanted = |n: usize| call.wanted.get(n).copied().unwrap_or(false);
        let mut y: Option<Data> = None;
        if wanted(0) {
            y = Some(x.pool(self.pooling, &windows, &counts)?.into());
        }
        let mut places: Option<Data> = None;
        if wanted(1) {
            places = Some(x.max_pool_indices(&windows, &counts, self.column_major)?.into());
        }
        if let Data::Ints(_) = call.data(0) {
            let whole = |d: Option<Data>| d.map(|d| d.to_ints().map(Data::from)).transpose();
            (y, places) = (whole(y)?, whole(places)?);
        }
        Ok(if self.pooling == Pooling::Max { smallvec![y, places] } else { smallvec![y] })
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let along = |n, size, len| self.windows.along(n, size, len);
        let sizes = &self.windows.sizes;
        let (windows, counts) = self.windows.place(self.name(), sizes, &x.dims, along).expect("inputs that fit");
        let dims = [&x.dims[..2], &counts[..]].concat();
        let mut places = Array::from_fn(&dims, |_| 0.0);
        let mut next = places.data.iter_mut();
        let y = Array::from_fn(&dims, |o| {
            let (mut values, mut padding, mut best) = (Vec::new(), 0, (f64::NEG_INFINITY, 0));
            each(sizes, |tap| {
                let mut at = o[..2].to_vec();
                let mut on_padding = true;
                for (n, w) in windows.iter().enumerate() {
                    let len = x.dims[n + 2];
                    on_padding &= o[n + 2] * w.stride + tap[n] * w.dilation < w.before + len + w.after;
                    at.extend(tap_place(w, o[n + 2], tap[n], len));
                }
                if at.len() < x.dims.len() {
                    padding += usize::from(on_padding);
                    return;
                }
                let v = x.at(&at);
                let row = |axes: &mut dyn Iterator<Item = usize>| axes.fold(0, |p, n| p * x.dims[n] + at[n]);
                let place = match self.column_major {
                    true => {
                        let plane: usize = x.dims[2..].iter().product();
                        row(&mut (0..2)) * plane + row(&mut (2..at.len()).rev())
                    }
                    false => row(&mut (0..at.len())),
                };
                if values.is_empty() || v > best.0 || v.is_nan() && !best.0.is_nan() {
                    best = (v, place);
                }
                values.push(v);
            });
            *next.next().expect("as many") = best.1 as f64;
            match self.pooling {
                Pooling::Max => best.0,
                Pooling::Average { padded } => {
                    let n = values.len() + if padded { padding } else { 0 };
                    values.iter().sum::<f64>() / n.max(1) as f64
                }
                Pooling::Norm { p } => {
                    values.iter().map(|v| v.abs().powi(p as i32)).sum::<f64>().powf(1.0 / f64::from(p))
                }
            }
        });
        if self.pooling == Pooling::Max { vec![Some(y), Some(places)] } else { vec![Some(y)] }
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let Some(dy) = g.of_output(0) else { return Ok(()) };
        let x = g.input(0);
        let dx = g.node(PoolGradient(self.clone()), &[dy, x])?;
        g.give(0, dx);
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The gradient of x of a [`Pool`]: of a maximum it goes to the first of the largest elements of a window, of a mean to
/// all of them alike, of a norm by their shares. Inputs: `dy` and x.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolGradient(pub Pool);

const GRADIENT: &str = "PoolGradient";

/// The numbers of elements that windows share, as a node keeps them.
struct Shares {
    dims: Vec<usize>,
    counts: Tensor,
}

impl Pool {
    /// How many elements count in each window along an axis.
    fn counted(w: &Window, len: usize, count: usize, padded: bool) -> Vec<usize> {
        let (begin, end) = if padded { (0, w.before + len + w.after) } else { (w.before, w.before + len) };
        let inside = |o: usize| (0..w.size).filter(move |t| (begin..end).contains(&(o * w.stride + t * w.dilation)));
        (0..count).map(|o| inside(o).count()).collect()
    }

    /// A number for each window, added to every element that it looks at.
    fn spread(dy: &Tensor, x: &[usize], windows: &[Window]) -> Result<Tensor> {
        let planes = x[0] * x[1];
        let taps: SmallVec<[usize; 5]> = [1, 1].into_iter().chain(windows.iter().map(|w| w.size)).collect();
        let own: SmallVec<[usize; 5]> = [planes, 1].into_iter().chain(dy.dims()[2..].iter().copied()).collect();
        let ones = Tensor::full(&taps, 1.0, DType::F32, &dy.device())?;
        dy.reshape(&own)?.conv_transpose(&ones, None, windows, 1, &x[2..])?.reshape(x)
    }
}

impl Operator for PoolGradient {
    fn name(&self) -> &'static str {
        GRADIENT
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("dy"), Slot::Required("x")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        super::like::like(inputs, 1)
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let (dy, x, pool) = (call.floats(0)?, call.floats(1)?, &self.0);
        let along = |n, size, len| pool.windows.along(n, size, len);
        let (windows, counts) = pool.windows.place(GRADIENT, &pool.windows.sizes, x.dims(), along)?;
        let dims = [&x.dims()[..2], &counts[..]].concat();
        if dy.dims() != dims {
            let message = format!("must be {dims:?}, but its shape is {}", dy.shape());
            return Err(Error::Argument { operation: GRADIENT, argument: "dy", message });
        }
        let number = |v: f32| Tensor::full(&[1], v, DType::F32, call.device);
        Ok(one(match pool.pooling {
            Pooling::Max => {
                let places = x.max_pool_indices(&windows, &counts, false)?;
                let zeros = Tensor::full(x.dims(), 0.0, DType::F32, call.device)?;
                let how = Scatter::apart(zeros.shape(), places.shape(), dims[0] * dims[1])?;
                zeros.scatter_into(&how, Indices::Device(&places), &dy, Update::Add)?
            }
            Pooling::Average { padded } => {
                let shares = call.kept(
                    |s: &Shares| s.dims == x.dims(),
                    || {
                        let mut counted = vec![1];
                        for (n, w) in windows.iter().enumerate() {
                            let next = Pool::counted(w, x.dims()[n + 2], counts[n], padded);
                            counted = counted.iter().flat_map(|a| next.iter().map(move |b| a * b)).collect();
                        }
                        let counted: Vec<f32> = counted.iter().map(|&n| n.max(1) as f32).collect();
                        let counts = Tensor::from_f32(&counted, &dims[2..], call.device)?;
                        Ok(Shares { dims: x.dims().to_vec(), counts })
                    },
                )?;
                Pool::spread(&dy.div(&shares.counts)?, x.dims(), &windows)?
            }
            Pooling::Norm { p } => {
                // |x|^(p - 1) sign x · dy / y^(p - 1); a window whose norm is 0 has no other elements.
                let y = x.pool(pool.pooling, &windows, &counts)?;
                let empty = y.binary(&number(0.0)?, Operation::Equal)?.to_dtype(DType::F32)?;
                let y = empty.select(&number(1.0)?, &y)?;
                let share = dy.mul(&y.binary(&number(1.0 - p as f32)?, Operation::Pow)?)?;
                let slope = x.map(Function::Abs)?.binary(&number(p as f32 - 1.0)?, Operation::Pow)?;
                Pool::spread(&share, x.dims(), &windows)?.mul(&slope)?.mul(&x.map(Function::Sign)?)?
            }
        }))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (dy, x, pool) = (array(inputs, 0), array(inputs, 1), &self.0);
        let along = |n, size, len| pool.windows.along(n, size, len);
        let sizes = &pool.windows.sizes;
        let (windows, _) = pool.windows.place(GRADIENT, sizes, &x.dims, along).expect("inputs that fit");
        let pooled = pool.reference(&[Some(x)]);
        let mut out = Array::from_fn(&x.dims, |_| 0.0);
        let mut flat = 0;
        each(&dy.dims, |o| {
            let d = dy.data[flat];
            flat += 1;
            let (mut places, mut padding) = (Vec::new(), 0);
            each(sizes, |tap| {
                let mut at = o[..2].to_vec();
                let mut on_padding = true;
                for (n, w) in windows.iter().enumerate() {
                    let len = x.dims[n + 2];
                    on_padding &= o[n + 2] * w.stride + tap[n] * w.dilation < w.before + len + w.after;
                    at.extend(tap_place(w, o[n + 2], tap[n], len));
                }
                if at.len() == x.dims.len() {
                    places.push(at.iter().zip(&x.dims).fold(0, |n, (&i, &d)| n * d + i));
                } else {
                    padding += usize::from(on_padding);
                }
            });
            let y = pooled[0].as_ref().expect("an output").at(o);
            match pool.pooling {
                Pooling::Max => {
                    if let Some(&first) = places.iter().find(|&&p| x.data[p] == y || x.data[p].is_nan()) {
                        out.data[first] += d;
                    }
                }
                Pooling::Average { padded } => {
                    let n = (places.len() + if padded { padding } else { 0 }).max(1);
                    places.iter().for_each(|&p| out.data[p] += d / n as f64);
                }
                Pooling::Norm { .. } if y == 0.0 => {}
                Pooling::Norm { p: power } => {
                    let power = power as i32 - 1;
                    let slope = |v: f64| v.abs().powi(power) * if v == 0.0 { 0.0 } else { v.signum() };
                    places.iter().for_each(|&p| out.data[p] += d * slope(x.data[p]) / y.powi(power));
                }
            }
        });
        vec![Some(out)]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// One number for all axes of `[N, C, …]` behind the second, which become 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlobalPool(pub Reduction);

impl Operator for GlobalPool {
    fn name(&self) -> &'static str {
        match self.0 {
            Reduction::Mean => "GlobalAveragePool",
            Reduction::Max => "GlobalMaxPool",
            _ => "GlobalLpPool",
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
        if x.unranked {
            return Ok(vec![ValueType::unranked(x.dtype)]);
        }
        if x.rank() < 2 {
            return Err(Fault::Input(0, "[N, C, …]".into()));
        }
        let dims = x.dims.iter().enumerate().map(|(n, d)| if n < 2 { d.clone() } else { Dim::Size(1) });
        Ok(vec![x.with_dims(dims.collect())])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let x = call.floats(0)?;
        let axes: smallvec::SmallVec<[usize; 4]> = (2..x.dims().len()).collect();
        Ok(one(x.reduce_axes(self.0, &axes)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let axes: Vec<usize> = (2..x.dims.len()).collect();
        vec![Some(super::reduce_over::reduced(x, self.0, &axes))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let axes: Vec<usize> = (2..g.kind(g.input(0)).rank()).collect();
        super::reduce_over::gradient(g, self.0, &axes)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
