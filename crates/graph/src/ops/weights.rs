//! Weights of products and convolutions in the forms that the CPU computes with.

use crate::{HostInputs, Result};
use recurve_kernels::{Dense, DenseCall, DenseConv};
use recurve_tensor::kernel::TensorKernels;
use recurve_tensor::{DType, Error, MAX_RANK, MatmulOptions, Shape, Tensor, Window};
use recurve_vocabulary::Activation;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::sync::OnceLock;

/// Elements of a column from where on a product by parts of columns is faster, which the packed form does not have.
const MOST: usize = 4096;

/// The weight and the bias of a product as far as they are there before a run.
pub(super) struct Product {
    weight: Option<Factor>,
    bias: Option<Tensor>,
}

enum Factor {
    Packed(Dense),
    Plain(Tensor),
}

/// A bias that is there before a run.
fn bias(host: &HostInputs<'_>, index: usize) -> Result<Option<Tensor>> {
    if host.is_fixed(index) { host.tensor(index) } else { Ok(None) }
}

impl Product {
    /// Of the inputs 1 and 2 of a node: a weight `[units, features]` if it is transposed, else `[features, units]`.
    pub(super) fn new(host: &HostInputs<'_>, transposed: bool) -> Result<Self> {
        let mut weight = None;
        if host.is_fixed(1) {
            let dims = host.dims(1);
            let (units, k) = if transposed { (dims[0], dims[1]) } else { (dims[1], dims[0]) };
            weight = if k > MOST {
                host.tensor(1)?.map(Factor::Plain)
            } else {
                let packed = match host.floats(1)?.expect("it is there") {
                    w if transposed => Dense::of_rows(&w, units, k),
                    w => Dense::of_columns(&w, units, k),
                };
                host.give_back(1);
                Some(Factor::Packed(packed.map_err(|e| host.error(e))?))
            };
        }
        Ok(Self { weight, bias: bias(host, 2)? })
    }

    /// The product with x; a weight or a bias that comes from the run is used where there was none before.
    pub(super) fn run(
        &self,
        x: &Tensor,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        transposed: bool,
        activation: Activation,
    ) -> recurve_tensor::Result<Tensor> {
        let bias = self.bias.as_ref().or(bias);
        let dense = match (&self.weight, weight) {
            (Some(Factor::Packed(dense)), _) => dense,
            (Some(Factor::Plain(w)), _) | (None, Some(w)) => {
                let options = MatmulOptions { transpose_rhs: transposed, bias, activation, ..MatmulOptions::default() };
                return x.matmul_with(w, &options);
            }
            (None, None) => unreachable!("the executor runs no node without its weight"),
        };
        let (operation, k, units) = ("matmul", dense.k(), dense.units());
        let bad = |argument, expected, got: &Tensor| Error::Shape { operation, argument, expected, got: *got.shape() };
        if x.dims().len() < 2 || x.shape().last() != k {
            let expected = format!("[…, rows, {k}] for a weight of {k} features and {units} units");
            return Err(bad("self", expected, x));
        }
        if let Some(b) = bias.filter(|b| b.dims() != [units]) {
            return Err(bad("bias", format!("[{units}]"), b));
        }
        let dtype = x.dtype();
        let (x, bias) = (as_f32(x)?, bias.map(as_f32).transpose()?);
        let mut dims: SmallVec<[usize; MAX_RANK]> = x.dims().into();
        *dims.last_mut().expect("two at least") = units;
        let shape = Shape::new(&dims).ok_or_else(|| bad("self", "smaller".into(), &x))?;
        let call = DenseCall {
            x: x.cpu_f32().expect("f32 on the CPU"),
            stride: k,
            count: shape.count() / units,
            bias: bias.as_ref().map(|b| b.cpu_f32().expect("f32 on the CPU")),
            activation,
        };
        Tensor::cpu_write(shape, |out| dense.rows(&call, out))?.to_dtype(dtype)
    }
}

fn as_f32(t: &Tensor) -> recurve_tensor::Result<Cow<'_, Tensor>> {
    match t.dtype() {
        DType::F32 => Ok(Cow::Borrowed(t)),
        _ => t.to_dtype(DType::F32).map(Cow::Owned),
    }
}

/// The weight and the bias of a convolution as far as they are there before a run.
pub(super) struct Filters {
    pub(super) weight: Option<Tensor>,
    pub(super) bias: Option<Tensor>,
    /// The weight packed, once a call has few windows.
    packed: OnceLock<DenseConv>,
}

impl Filters {
    /// Of the inputs 1 and 2 of a node.
    pub(super) fn new(host: &HostInputs<'_>) -> Result<Self> {
        let weight = if host.is_fixed(1) { host.tensor(1)? } else { None };
        Ok(Self { weight, bias: bias(host, 2)?, packed: OnceLock::new() })
    }

    /// The convolution, if it is one that the packed form is for. The operands have not been checked.
    pub(super) fn run(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        windows: &[Window],
        counts: &[usize],
        groups: usize,
    ) -> recurve_tensor::Result<Option<Tensor>> {
        let Some(weight) = &self.weight else { return Ok(None) };
        let (dims, rank) = (weight.dims(), windows.len() + 2);
        let count = counts.iter().fold(1usize, |n, &c| n.saturating_mul(c));
        let fits = dims.len() == rank
            && x.dims().len() == rank
            && x.dtype() == DType::F32
            && groups > 0
            && dims[0].is_multiple_of(groups)
            && x.dims()[1] == dims[1].saturating_mul(groups)
            && dims[2..].iter().zip(windows).all(|(&d, w)| d == w.size)
            && bias.is_none_or(|b| b.dims() == [dims[0]] && b.dtype() == DType::F32);
        if !fits || count > DenseConv::WINDOWS || !DenseConv::suits(dims, groups) {
            return Ok(None);
        }
        let packed = match self.packed.get() {
            Some(packed) => packed,
            None => {
                let made = DenseConv::new(weight.cpu_f32().expect("f32 on the CPU"), dims, groups)?;
                self.packed.get_or_init(|| made)
            }
        };
        let bias = bias.map(|b| b.cpu_f32().expect("f32 on the CPU"));
        packed.forward(x, bias, windows, counts, Activation::Linear).map(Some)
    }
}
