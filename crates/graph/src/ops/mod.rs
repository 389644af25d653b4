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
mod conv;
mod conv_gradient;
mod cross_entropy;
mod ctc;
mod cum_sum;
mod depth_to_space;
mod descend;
mod einsum;
mod expand;
mod first_given;
mod gather;
mod gather_at;
mod identity;
mod if_given;
mod layer_norm;
mod like;
mod linear;
mod made;
mod map;
mod mask;
mod matmul;
mod moves;
mod noise;
mod normalize;
mod pad;
mod pool;
mod recurrent;
mod reduce;
mod reduce_over;
mod reshape;
mod reshape_to;
mod resize;
mod reverse_sequence;
mod rnn;
mod scatter;
mod shape_of;
mod slice;
mod slice_by;
mod slope;
mod softmax;
mod softmax_over;
mod spectrum;
mod top_k;
mod training;
mod transpose;
mod trilu;
mod weights;
mod window;

pub use activate::Activate;
pub use argmax::ArgMax;
pub use binary::{Binary, Whole};
pub use cast::{Cast, Target};
pub use choose::Where;
pub use compress::{Compress, NonZero, OneHot};
pub use concat::Concat;
pub use control::{If, Loop, Scan, ScanAxis};
pub use conv::{Conv, ConvTranspose};
pub use conv_gradient::{ConvGradient, Convolution};
pub use cross_entropy::{CrossEntropy, CrossEntropyGradient};
pub use ctc::{Ctc, CtcGradient};
pub use cum_sum::CumSum;
pub use depth_to_space::{BlockOrder, DepthToSpace, SpaceToDepth};
pub use descend::Descend;
pub use einsum::Einsum;
pub use expand::{Expand, SumTiles, Tile};
pub use first_given::FirstGiven;
pub use gather::{Gather, SumRows};
pub use gather_at::{GatherAt, GatherElements, GatherTuples, SumAlong, SumTuples};
pub use identity::{AllTrue, Identity};
pub use if_given::IfGiven;
pub use layer_norm::LayerNorm;
pub use like::{ExpandLike, SumTo};
pub use linear::Linear;
pub use made::{ConstantOfShape, EyeLike, Range};
pub use map::Map;
pub use mask::Mask;
pub use matmul::{Gemm, MatMul};
pub use noise::Draw;
pub use normalize::{BatchNorm, LpNorm, Normalize, Together};
pub use pad::{Pad, PadBack, PadMode};
pub use pool::{GlobalPool, Pool, PoolGradient};
pub use recurrent::{PARTS, Recurrent};
pub use reduce::Reduce;
pub use reduce_over::ReduceOver;
pub use reshape::{Extent, Reshape};
pub use reshape_to::{Flatten, ReshapeTo, Squeeze, Unsqueeze};
pub use resize::{Coordinates, Interpolation, Nearest, Policy, Resize, ResizeBack};
pub use reverse_sequence::ReverseSequence;
pub use rnn::{Rnn, Tokens};
pub use scatter::{ScatterElements, ScatterTuples};
pub use shape_of::{ShapeOf, Size};
pub use slice::{PadLike, Slice};
pub use slice_by::{SliceBack, SliceBy, Split};
pub use slope::ActivationGradient;
pub use softmax::Softmax;
pub use softmax_over::{Shares, SoftmaxOver};
pub use spectrum::{CosineWindow, Cosines, Dft, MelWeights, Stft};
pub use top_k::{ArgExtreme, TopK};
pub use training::{RecurrentGradient, RecurrentTraining};
pub use transpose::Transpose;
pub use trilu::Trilu;
pub use window::{Padding, Windows};

/// What every operator's file imports.
mod prelude {
    pub(super) use crate::operator::{array, float, ids, one, required};
    pub(super) use crate::{Array, Call, Dim, Fault, Gradients, Operator, Outputs, Slot, ValueType};
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

/// The place of an axis of so many, which counts from the end if it is negative.
fn place_of(axis: i64, rank: usize) -> Option<usize> {
    let place = if axis < 0 { axis.checked_add_unsigned(rank as u64)? } else { axis };
    usize::try_from(place).ok().filter(|&p| p < rank)
}

/// A fault that only shows when an operator runs.
fn operation_error(operator: &dyn Operator, fault: Fault) -> Error {
    let operation = operator.name();
    match fault {
        Fault::Input(n, expected) => {
            let slots = operator.slots();
            let argument = slots[n.min(slots.len() - 1)].name();
            Error::Argument { operation, argument, message: format!("must be {expected}") }
        }
        Fault::Attribute(argument, message) => Error::Argument { operation, argument, message },
    }
}

/// A tensor as it is, and whole numbers as f32.
fn operand<'a>(call: &Call<'a>, index: usize) -> recurve_tensor::Result<Cow<'a, Tensor>> {
    match call.data(index) {
        Data::Tensor(t) if t.dtype().is_float() => Ok(Cow::Borrowed(t)),
        _ => call.floats(index),
    }
}

/// An operator whose inputs are whole numbers in host memory, by its definition in f64, which is exact up to 2^53.
fn on_host<T: Operator>(operator: &T, call: &Call<'_>) -> recurve_tensor::Result<Outputs> {
    let ints: Vec<Option<IntArray>> = (0..call.inputs.len())
        .map(|i| call.get(i).map(|_| call.ints(i)).transpose())
        .collect::<recurve_tensor::Result<_>>()?;
    let kinds: Vec<Option<ValueType>> = ints
        .iter()
        .map(|i| i.as_ref().map(|i| ValueType::new(Element::Int(Int::I64), i.dims().iter().copied())))
        .collect();
    let kinds: Vec<Option<&ValueType>> = kinds.iter().map(Option::as_ref).collect();
    operator.output_types(&kinds).map_err(|fault| operation_error(operator, fault))?;
    let wide = |i: &IntArray| Array::new(i.dims(), i.data().iter().map(|&v| v as f64).collect());
    let arrays: Vec<Option<Array>> = ints.iter().map(|i| i.as_ref().map(wide)).collect();
    let arrays: Vec<Option<&Array>> = arrays.iter().map(Option::as_ref).collect();
    let whole = |a: Array| IntArray::new(&a.dims, a.data.iter().map(|&v| v as i64).collect::<Vec<_>>());
    Ok(operator.reference(&arrays).into_iter().map(|a| a.map(|a| whole(a).into())).collect())
}

use crate::{Array, Call, Data, Element, Fault, Int, IntArray, Operator, Outputs, ValueType};
use recurve_tensor::{Error, Tensor};
use std::borrow::Cow;
