//! The operators, one file each: inputs, shape rule, run on a device, f64 reference.

mod activate;
mod argmax;
mod binary;
mod broadcast;
mod cast;
mod choose;
mod compress;
mod concat;
mod control;
mod cum_sum;
mod depth_to_space;
mod expand;
mod first_given;
mod gather;
mod gather_at;
mod identity;
mod if_given;
mod layer_norm;
mod linear;
mod made;
mod map;
mod mask;
mod matmul;
mod moves;
mod pad;
mod recurrent;
mod reduce;
mod reshape;
mod reshape_to;
mod resize;
mod reverse_sequence;
mod rnn;
mod scatter;
mod shape_of;
mod slice;
mod slice_by;
mod softmax;
mod top_k;
mod transpose;
mod trilu;

pub use activate::Activate;
pub use argmax::ArgMax;
pub use binary::{Binary, Whole};
pub use cast::{Cast, Target};
pub use choose::Where;
pub use compress::{Compress, NonZero, OneHot};
pub use concat::Concat;
pub use control::{If, Loop, Scan, ScanAxis};
pub use cum_sum::CumSum;
pub use depth_to_space::{BlockOrder, DepthToSpace, SpaceToDepth};
pub use expand::{Expand, Tile};
pub use first_given::FirstGiven;
pub use gather::Gather;
pub use gather_at::{GatherAt, GatherElements, GatherTuples};
pub use identity::{AllTrue, Identity};
pub use if_given::IfGiven;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use made::{ConstantOfShape, EyeLike, Range};
pub use map::Map;
pub use mask::Mask;
pub use matmul::MatMul;
pub use pad::{Pad, PadMode};
pub use recurrent::{PARTS, Recurrent};
pub use reduce::Reduce;
pub use reshape::{Extent, Reshape};
pub use reshape_to::{Flatten, ReshapeTo, Squeeze, Unsqueeze};
pub use resize::{Coordinates, Interpolation, Nearest, Policy, Resize};
pub use reverse_sequence::ReverseSequence;
pub use rnn::Rnn;
pub use scatter::{ScatterElements, ScatterTuples};
pub use shape_of::{ShapeOf, Size};
pub use slice::Slice;
pub use slice_by::{SliceBy, Split};
pub use softmax::Softmax;
pub use top_k::{ArgExtreme, TopK};
pub use transpose::Transpose;
pub use trilu::Trilu;

/// What every operator's file imports.
mod prelude {
    pub(super) use crate::operator::{array, float, ids, one, required};
    pub(super) use crate::{Array, Call, Dim, Fault, Operator, Outputs, Slot, ValueType};
    pub(super) use recurve_tensor::{DType, Result, Tensor};
    pub(super) use std::any::Any;
}

/// Checks that a type has this axis.
fn check_axis(t: &ValueType, axis: usize) -> Result<(), Fault> {
    if axis < t.rank() {
        return Ok(());
    }
    Err(Fault::Attribute(
        "axis",
        format!("must be below {}, the number of dimensions of {t}, but it is {axis}", t.rank()),
    ))
}

use crate::{Fault, ValueType};
