//! General operations, each for the CPU and for GPUs; a file per kernel.

mod binary;
mod copy;
mod gather;
mod layer_norm;
mod mask;
mod matmul;
mod matvec;
mod peak;
mod reduce;
mod sample;
mod softmax;
mod unary;

pub(crate) use binary::Operation;
pub use copy::{Span, concat, strided_copy};
pub use gather::gather_rows;
pub use layer_norm::{Rows, layer_norm_rows};
pub use matmul::{MatmulOptions, StridedMatmul, strided_matmul};
pub use reduce::Reduction;
pub use sample::SampleOptions;
pub use unary::check_activation;

use crate::gpu::Gpu;
use crate::{Error, MAX_RANK, Result, Shape, Tensor};
use recurve_shaders::Variant;

impl Gpu {
    /// Workgroups for one lane per element, folded over two dimensions, and the first of them.
    pub(crate) fn elementwise_groups(&self, count: usize) -> ([u32; 3], u32) {
        let groups = (count as u64).div_ceil(Variant::ELEMENTWISE_LANES.into());
        let x = groups.min(self.max_workgroups().into());
        ([x as u32, groups.div_ceil(x) as u32, 1], x as u32)
    }
}

/// Dimensions padded in front to [`MAX_RANK`] with size 1, as the kernels read them.
fn padded(shape: &Shape, first: &[usize; MAX_RANK], second: &[usize; MAX_RANK]) -> [[u32; 4]; MAX_RANK] {
    let mut dims = [[1, 0, 0, 0]; MAX_RANK];
    let skip = MAX_RANK - shape.rank();
    for (d, &size) in shape.dims().iter().enumerate() {
        dims[skip + d] = [size as u32, first[d] as u32, second[d] as u32, 0];
    }
    dims
}

/// A length in parts of at most `most`, at least 1: their beginnings and lengths.
fn parts(len: u32, most: u32) -> impl Iterator<Item = (u32, u32)> {
    let mut first = 0;
    core::iter::from_fn(move || {
        let part = (first, most.max(1).min(len - first));
        first += part.1;
        (part.1 > 0).then_some(part)
    })
}

/// Calls `f` with the offsets under two sets of strides of every element of `shape`, in order.
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
