//! General operations: argument checks and the CPU implementation. The GPU implementation of each is in the file of the
//! same name in `gpu/ops`.

mod binary;
mod broadcast;
mod conv;
mod copy;
mod cross_entropy;
mod ctc;
mod cumulate;
mod einsum;
mod function;
mod gather;
mod layer_norm;
mod lengths;
mod mask;
mod matmul;
mod noise;
mod normalize;
pub(crate) mod peak;
mod pool;
mod reduce;
mod sample;
mod scatter;
mod select;
mod slope;
mod softmax;
mod take;
mod top_k;
mod unary;
mod update;
mod window;

pub use binary::Operation;
pub(crate) use broadcast::Broadcast;
pub(crate) use conv::Conv;
pub use copy::{Span, concat};
#[cfg(feature = "gpu")]
pub(crate) use cross_entropy::shares;
pub use ctc::CtcRule;
pub use einsum::{Equation, Label, Labels, einsum};
pub use function::Function;
pub use matmul::MatmulOptions;
pub use noise::Noise;
pub use normalize::{Normalization, Normalized};
pub(crate) use pool::Pool;
pub use pool::Pooling;
#[cfg(feature = "gpu")]
pub(crate) use reduce::Before;
pub(crate) use reduce::{After, Axis};
pub use reduce::{Extreme, Reduction};
pub use sample::SampleOptions;
pub use scatter::{Scatter, Update};
pub use take::{Indices, Take};
pub use unary::check_activation;
#[cfg(feature = "gpu")]
pub(crate) use window::Sliding;
pub use window::{MAX_WINDOWS, Window};

use crate::{Error, MAX_RANK, Result, Shape, Tensor};

/// Calls `f` for every element of `shape`, in order, with its offsets under two sets of strides.
fn walk(shape: &Shape, first: &[usize; MAX_RANK], second: &[usize; MAX_RANK], mut f: impl FnMut(usize, usize)) {
    let dims = shape.dims();
    let mut at = [0usize; MAX_RANK];
    let (mut a, mut b) = (0, 0);
    for _ in 0..shape.count() {
        f(a, b);
        for d in (0..dims.len()).rev() {
            at[d] += 1;
            a += first[d];
            b += second[d];
            if at[d] < dims[d] {
                break;
            }
            a -= first[d] * dims[d];
            b -= second[d] * dims[d];
            at[d] = 0;
        }
    }
}

impl Tensor {
    fn check_float(&self, operation: &'static str, argument: &'static str) -> Result<()> {
        self.check_dtype(operation, argument, "f32 or f16", self.dtype().is_float())
    }

    fn check_axis(&self, operation: &'static str, axis: usize) -> Result<()> {
        if axis < self.shape().rank() {
            return Ok(());
        }
        Err(Error::Argument {
            operation,
            argument: "axis",
            message: format!("is {axis}, but the shape {} has {} dimensions", self.shape(), self.shape().rank()),
        })
    }
}
