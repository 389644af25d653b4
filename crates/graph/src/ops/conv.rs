//! Convolution and its transpose.

use super::Convolution;
use super::prelude::*;
use super::weights::Filters;
use super::window::{Windows, each, tap_place};
use crate::operator::given;
use crate::{HostInputs, Packed};
use recurve_tensor::Device;
use smallvec::SmallVec;
use std::borrow::Cow;

/// Convolution over one to three axes: `[N, C, …]` with a weight `[M, C / groups, …]` gives `[N, M, …]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conv {
    /// The windows.
    pub windows: Windows,
    /// Groups of channels that do not see each other.
    pub groups: usize,
}

/// The transpose of a [`Conv`]: `[N, C, …]` with a weight `[C, M / groups, …]` gives `[N, M, …]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvTranspose {
    /// The windows.
    pub windows: Windows,
    /// Groups of channels that do not see each other.
    pub groups: usize,
    /// Elements more at the end of each axis; none if there are no numbers.
    pub output_padding: Vec<usize>,
    /// The sizes of the result's axes, in place of padding.
    pub output_shape: Option<Vec<usize>>,
}

/// The channels in and out, the axes of x and the sizes of windows as far as types know them; `None` for the rank of
/// neither.
type Known = (ValueType, Dim, Vec<Dim>, Vec<Option<usize>>);

fn known(
    inputs: &[Option<&ValueType>],
    windows: &Windows,
    groups: usize,
    transposed: bool,
) -> Result<Option<Known>, Fault> {
    let (x, w) = (given(inputs, 0)?, given(inputs, 1)?);
    for (n, t) in [(0, x), (1, w)] {
        if !t.dtype.is_float() {
            return Err(Fault::Input(n, "floats".into()));
        }
    }
    if groups == 0 {
        return Err(Fault::Attribute("group", "must be at least 1, but it is 0".into()));
    }
    let Some(rank) = [x, w].into_iter().find(|t| !t.unranked).map(ValueType::rank) else {
        if !windows.sizes.is_empty() {
            windows.check(windows.sizes.len())?;
        }
        return Ok(None);
    };
    if rank < 3 {
        return Err(Fault::Input(usize::from(x.unranked), "of at least 3 dimensions".into()));
    }
    windows.check(rank - 2)?;
    let any = vec![Dim::Any; rank];
    let dims = |t: &ValueType| if t.unranked { any.clone() } else { t.dims.clone() };
    let (xs, ws) = (dims(x), dims(w));
    if ws.len() != rank {
        return Err(Fault::Input(1, format!("of {rank} dimensions, as x")));
    }
    if let Some(c) = xs[1].size()
        && c % groups != 0
    {
        return Err(Fault::Attribute("group", format!("must divide the {c} channels of {x}, but it is {groups}")));
    }
    let (own, other) = if transposed { (xs[1].size(), &ws[0]) } else { (xs[1].size().map(|c| c / groups), &ws[1]) };
    if let (Some(own), Some(other)) = (own, other.size())
        && own != other
    {
        return Err(Fault::Input(1, format!("for {own} channels of x in each group")));
    }
    let out = if transposed { ws[1].times(&Dim::Size(groups)) } else { ws[0].clone() };
    if let (Some(m), false) = (out.size(), transposed)
        && m % groups != 0
    {
        return Err(Fault::Attribute("group", format!("must divide the {m} channels of {w}, but it is {groups}")));
    }
    if let Some(bias) = inputs.get(2).copied().flatten()
        && !bias.unranked
        && !matches!(&bias.dims[..], [n] if n.meet(&out).is_some())
    {
        return Err(Fault::Input(2, format!("[{out}]")));
    }
    let mut sizes: Vec<Option<usize>> = ws[2..].iter().map(Dim::size).collect();
    for (size, &own) in sizes.iter_mut().zip(&windows.sizes) {
        if size.is_some_and(|s| s != own) {
            let message = format!("is {:?}, but the weight is {w}", windows.sizes);
            return Err(Fault::Attribute("kernel_shape", message));
        }
        *size = Some(own);
    }
    let batch = x.with_dims(vec![xs[0].clone(), out.clone()]);
    Ok(Some((batch, out, xs[2..].to_vec(), sizes)))
}

/// What the windows are of a weight that is there.
fn sizes(windows: &Windows, weight: &[usize]) -> SmallVec<[usize; 3]> {
    let own = weight.get(2..).unwrap_or_default();
    if windows.sizes.is_empty() { own.into() } else { windows.sizes.as_slice().into() }
}

impl Operator for Conv {
    fn name(&self) -> &'static str {
        "Conv"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("x"), Slot::Required("weight"), Slot::Optional("bias")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let Some((mut y, _, axes, sizes)) = known(inputs, &self.windows, self.groups, false)? else {
            return Ok(vec![ValueType::unranked(given(inputs, 0)?.dtype)]);
        };
        y.dims.extend(self.windows.types(&axes, &sizes, |n, size, len| self.windows.along(n, size, len))?);
        Ok(vec![y])
    }
    fn host_inputs(&self) -> Option<usize> {
        Some(1)
    }
    fn takes_any_weights(&self) -> bool {
        true
    }
    fn packs_on(&self, device: &Device) -> bool {
        *device == Device::Cpu
    }
    fn pack(&self, host: &HostInputs<'_>, _: &Device) -> crate::Result<Option<Packed>> {
        Ok(Some(Box::new(Filters::new(host)?)))
    }
    fn packs_like(&self, other: &dyn Operator) -> bool {
        other.as_any().downcast_ref::<Self>().is_some_and(|o| o.groups == self.groups)
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let filters = call.packed.and_then(|p| p.downcast_ref::<Filters>());
        let x = call.floats(0)?;
        let w = match filters.and_then(|f| f.weight.as_ref()) {
            Some(w) => Cow::Borrowed(w),
            None => call.floats(1)?,
        };
        let bias = match (filters.and_then(|f| f.bias.as_ref()), call.get(2)) {
            (Some(b), _) => Some(Cow::Borrowed(b)),
            (None, Some(_)) => Some(call.floats(2)?),
            (None, None) => None,
        };
        let sizes = sizes(&self.windows, w.dims());
        let along = |n, size, len| self.windows.along(n, size, len);
        let (windows, counts) = self.windows.place("Conv", &sizes, x.dims(), along)?;
        if let Some(filters) = filters
            && let Some(y) = filters.run(&x, bias.as_deref(), &windows, &counts, self.groups)?
        {
            return Ok(one(y));
        }
        Ok(one(x.conv(&w, bias.as_deref(), &windows, self.groups)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (x, w) = (array(inputs, 0), array(inputs, 1));
        let bias = inputs.get(2).copied().flatten();
        let along = |n, size, len| self.windows.along(n, size, len);
        let sizes = &w.dims[2..];
        let (windows, counts) = self.windows.place("Conv", sizes, &x.dims, along).expect("inputs that fit");
        let (m, inputs) = (w.dims[0], w.dims[1]);
        let dims = [&[x.dims[0], m], &counts[..]].concat();
        vec![Some(Array::from_fn(&dims, |o| {
            let first = o[1] / (m / self.groups) * inputs;
            let mut sum = bias.map_or(0.0, |b| b.data[o[1]]);
            each(&[&[inputs], sizes].concat(), |tap| {
                let mut at = vec![o[0], first + tap[0]];
                for (n, w) in windows.iter().enumerate() {
                    let Some(place) = tap_place(w, o[n + 2], tap[n + 1], x.dims[n + 2]) else { return };
                    at.push(place);
                }
                sum += x.at(&at) * w.at(&[&[o[1]], tap].concat());
            });
            sum
        }))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        Convolution::Plain(self.clone()).gradient(g)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl ConvTranspose {
    pub(super) fn along(&self, n: usize, size: usize, len: usize) -> Option<(recurve_tensor::Window, usize)> {
        let extra = self.output_padding.get(n).copied().unwrap_or(0);
        let wanted = self.output_shape.as_ref().and_then(|s| s.get(n).copied());
        self.windows.transposed(n, size, len, extra, wanted)
    }
}

impl Operator for ConvTranspose {
    fn name(&self) -> &'static str {
        "ConvTranspose"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("x"), Slot::Required("weight"), Slot::Optional("bias")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let Some((mut y, _, axes, sizes)) = known(inputs, &self.windows, self.groups, true)? else {
            return Ok(vec![ValueType::unranked(given(inputs, 0)?.dtype)]);
        };
        for (what, numbers) in
            [("output_padding", Some(&self.output_padding)), ("output_shape", self.output_shape.as_ref())]
        {
            if let Some(numbers) =
                numbers.filter(|n| n.len() != axes.len() && !(n.is_empty() && what != "output_shape"))
            {
                let message = format!("must be a number for each of {} axes, but is {numbers:?}", axes.len());
                return Err(Fault::Attribute(what, message));
            }
        }
        let mut dims = self.windows.types(&axes, &sizes, |n, size, len| self.along(n, size, len))?;
        if let Some(shape) = &self.output_shape {
            dims = shape.iter().copied().map(Dim::Size).collect();
        }
        y.dims.extend(dims);
        Ok(vec![y])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let (x, w) = (call.floats(0)?, call.floats(1)?);
        let bias = call.get(2).map(|_| call.floats(2)).transpose()?;
        let sizes = sizes(&self.windows, w.dims());
        let along = |n, size, len| self.along(n, size, len);
        let (windows, out) = self.windows.place("ConvTranspose", &sizes, x.dims(), along)?;
        Ok(one(x.conv_transpose(&w, bias.as_deref(), &windows, self.groups, &out)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (x, w) = (array(inputs, 0), array(inputs, 1));
        let bias = inputs.get(2).copied().flatten();
        let along = |n, size, len| self.along(n, size, len);
        let sizes = &w.dims[2..];
        let (windows, out) = self.windows.place("ConvTranspose", sizes, &x.dims, along).expect("inputs that fit");
        let (inputs, outputs) = (x.dims[1] / self.groups, w.dims[1]);
        let dims = [&[x.dims[0], outputs * self.groups], &out[..]].concat();
        let mut y = Array::from_fn(&dims, |o| bias.map_or(0.0, |b| b.data[o[1]]));
        each(&[&x.dims[..], &[outputs], sizes].concat(), |at| {
            let (i, rest) = at.split_at(x.dims.len());
            let group = i[1] / inputs;
            let mut place = i[0] * dims[1] + group * outputs + rest[0];
            for (n, w) in windows.iter().enumerate() {
                let Some(o) = tap_place(w, i[n + 2], rest[n + 1], out[n]) else { return };
                place = place * out[n] + o;
            }
            y.data[place] += x.at(i) * w.at(&[&[i[1]], rest].concat());
        });
        vec![Some(y)]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        Convolution::Transposed(self.clone()).gradient(g)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
