//! The operators, one file each: inputs, shape rule, run on a device, f64 reference.

mod activate;
mod argmax;
mod binary;
mod concat;
mod control;
mod first_given;
mod gather;
mod if_given;
mod layer_norm;
mod linear;
mod mask;
mod matmul;
mod recurrent;
mod reduce;
mod reshape;
mod rnn;
mod slice;
mod softmax;
mod transpose;

pub use activate::Activate;
pub use argmax::ArgMax;
pub use binary::Binary;
pub use concat::Concat;
pub use control::{If, Loop, Scan, ScanAxis};
pub use first_given::FirstGiven;
pub use gather::Gather;
pub use if_given::IfGiven;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use mask::Mask;
pub use matmul::MatMul;
pub use recurrent::{PARTS, Recurrent};
pub use reduce::Reduce;
pub use reshape::{Extent, Reshape};
pub use rnn::Rnn;
pub use slice::Slice;
pub use softmax::Softmax;
pub use transpose::Transpose;

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
