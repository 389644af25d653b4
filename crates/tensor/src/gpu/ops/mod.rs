//! General operations on a GPU, one file per kernel. Their operands have been checked (`crate::ops`).

mod binary;
mod conv;
mod copy;
mod cross_entropy;
mod ctc;
mod cumulate;
mod fill;
mod function;
mod gather;
mod layer_norm;
mod mask;
mod matmul;
mod matmul_direct;
mod matvec;
mod noise;
mod normalize;
mod peak;
mod pool;
mod reduce;
mod sample;
mod scatter;
mod select;
mod slope;
mod softmax;
mod sum_rows;
mod sum_runs;
mod take;
mod top_k;
mod unary;
mod update;

pub use copy::strided_copy;
pub use gather::gather_rows;
pub use layer_norm::{Rows, layer_norm_rows};
pub use matmul::{StridedMatmul, strided_matmul, strided_matmul_within};

use super::Gpu;
use crate::{DType, MAX_RANK, Shape};
use recurve_shaders::{Element, Variant};

impl DType {
    /// The corresponding element type of the shaders.
    pub const fn element(self) -> Element {
        match self {
            Self::F32 => Element::F32,
            Self::F16 => Element::F16,
            Self::U32 => Element::U32,
        }
    }
}

impl Gpu {
    /// The workgroups for one lane per element, spread over two dimensions, and their number in the first dimension.
    pub(crate) fn elementwise_groups(&self, count: usize) -> ([u32; 3], u32) {
        self.groups((count as u64).div_ceil(Variant::ELEMENTWISE_LANES.into()))
    }

    /// At least so many workgroups, and how many of them are side by side along x.
    fn groups(&self, all: u64) -> ([u32; 3], u32) {
        let x = all.min(self.max_workgroups().into());
        ([x as u32, all.div_ceil(x) as u32, 1], x as u32)
    }
}

/// The dimensions and two sets of strides, padded in front to [`MAX_RANK`] dimensions, in the layout of the kernels.
fn padded(shape: &Shape, first: &[usize; MAX_RANK], second: &[usize; MAX_RANK]) -> [[u32; 4]; MAX_RANK] {
    let mut dims = [[1, 0, 0, 0]; MAX_RANK];
    let skip = MAX_RANK - shape.rank();
    for (d, &size) in shape.dims().iter().enumerate() {
        dims[skip + d] = [size as u32, first[d] as u32, second[d] as u32, 0];
    }
    dims
}

/// Axes that indices go into, as the kernels read them.
fn axes(axes: &[(usize, usize); MAX_RANK]) -> [[u32; 4]; MAX_RANK] {
    axes.map(|(size, stride)| [size as u32, stride as u32, 0, 0])
}

/// Splits a length into parts of at most `most` (at least 1). Yields their starts and lengths.
fn parts(len: u32, most: u32) -> impl Iterator<Item = (u32, u32)> {
    let mut first = 0;
    core::iter::from_fn(move || {
        let part = (first, most.max(1).min(len - first));
        first += part.1;
        (part.1 > 0).then_some(part)
    })
}
