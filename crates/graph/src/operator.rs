//! The interface of operators.

use crate::{Array, Executor, ValueType};
use core::fmt;
use recurve_kernels::Strategy;
use recurve_tensor::{DType, Device, Tensor};
use smallvec::SmallVec;
use std::any::Any;

/// The declaration of an operator's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Slot {
    /// Must be given.
    Required(&'static str),
    /// May be left out.
    Optional(&'static str),
    /// The last declaration: one or more inputs, all required.
    Many(&'static str),
    /// The last declaration: any number of inputs, each of which may be left out.
    Rest(&'static str),
}

impl Slot {
    /// The name of the input.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Required(n) | Self::Optional(n) | Self::Many(n) | Self::Rest(n) => n,
        }
    }

    /// Whether an input of this declaration may be left out.
    pub const fn is_optional(self) -> bool {
        matches!(self, Self::Optional(_) | Self::Rest(_))
    }
}

/// Why an operator rejects its inputs or attributes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// An input has the wrong type or shape: the index of the input, and what it must be.
    Input(usize, String),
    /// An attribute has an invalid value: its name, and why.
    Attribute(&'static str, String),
}

/// The outputs of a node, one tensor each; `None` for an output that is not wanted.
pub type Outputs = SmallVec<[Option<Tensor>; 3]>;

/// An operator's parameters in the form that it computes with on a device.
pub type Packed = Box<dyn Any + Send + Sync>;

/// Options of a run.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct RunOptions {
    /// How GPUs run recurrent layers.
    pub strategy: Strategy,
    /// Before running, measure the ways of running each recurrent layer at this shape and keep the fastest, as
    /// [`recurve_kernels::Recurrent::tune`] does.
    pub tune: bool,
}

/// The arguments of one run of a node.
pub struct Call<'a> {
    /// The inputs; `None` where one was left out, and for those from [`Operator::host_inputs`] on.
    pub inputs: &'a [Option<&'a Tensor>],
    /// For each output whether it is used.
    pub wanted: &'a [bool],
    /// The result of [`Operator::pack`].
    pub packed: Option<&'a Packed>,
    /// Options of the run.
    pub options: &'a RunOptions,
}

impl<'a> Call<'a> {
    /// A required input.
    ///
    /// # Panics
    /// If it was left out, which cannot happen: the executor runs no node without its required inputs.
    pub fn input(&self, index: usize) -> &'a Tensor {
        self.inputs[index].expect("the executor runs no node without its required inputs")
    }
}

/// The parameters and constants of a node in host memory.
pub struct HostInputs<'a> {
    pub(crate) executor: &'a Executor,
    pub(crate) node: usize,
}

/// An operator: what a node computes.
///
/// [`Self::output_types`] checks whatever the types of the inputs show. What only the elements show is checked by
/// [`Self::run`].
pub trait Operator: fmt::Debug + Send + Sync {
    /// Its name; that of the ONNX operator where there is one.
    fn name(&self) -> &'static str;

    /// The declarations of its inputs, in order.
    fn slots(&self) -> &[Slot];

    /// The types of its outputs for inputs of these types.
    ///
    /// # Errors
    /// A [`Fault`] if an input or an attribute is invalid.
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault>;

    /// The index of the first input that [`Self::pack`] consumes; it and all later inputs must be parameters or
    /// constants and are not brought to the device as they are.
    fn host_inputs(&self) -> Option<usize> {
        None
    }

    /// Packs the parameters into the form that [`Self::run`] computes with on this device.
    ///
    /// # Errors
    /// Errors of the device, and [`crate::Error`]s for invalid parameters.
    fn pack(&self, _: &HostInputs<'_>, _: &Device) -> crate::Result<Option<Packed>> {
        Ok(None)
    }

    /// Computes the outputs on the inputs' device.
    ///
    /// # Errors
    /// Errors of the tensor operations that it calls, and of the device.
    fn run(&self, call: &Call<'_>) -> recurve_tensor::Result<Outputs>;

    /// Computes the outputs in f64 from inputs of valid types. An input that was left out is `None`, and so is an
    /// output that does not exist for these inputs.
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>>;

    /// `self`, so that a pass can look for a certain operator.
    fn as_any(&self) -> &dyn Any;
}

/// The type of a required input.
pub(crate) fn required<'a>(inputs: &[Option<&'a ValueType>], index: usize) -> Result<&'a ValueType, Fault> {
    inputs.get(index).copied().flatten().ok_or_else(|| Fault::Input(index, "given".into()))
}

/// The type of a required input whose elements are floats.
pub(crate) fn float<'a>(inputs: &[Option<&'a ValueType>], index: usize) -> Result<&'a ValueType, Fault> {
    let t = required(inputs, index)?;
    if t.dtype.is_float() { Ok(t) } else { Err(Fault::Input(index, "f32 or f16".into())) }
}

/// The type of a required input whose elements are u32.
pub(crate) fn ids<'a>(inputs: &[Option<&'a ValueType>], index: usize) -> Result<&'a ValueType, Fault> {
    let t = required(inputs, index)?;
    if t.dtype == DType::U32 { Ok(t) } else { Err(Fault::Input(index, "u32".into())) }
}

/// A single output.
pub(crate) fn one(t: Tensor) -> Outputs {
    smallvec::smallvec![Some(t)]
}

/// The array of a required input.
pub(crate) fn array<'a>(inputs: &[Option<&'a Array>], index: usize) -> &'a Array {
    inputs[index].expect("a required input of the reference")
}
