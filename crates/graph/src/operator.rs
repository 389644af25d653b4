//! What an operator is.

use crate::{Array, Executor, ValueType};
use core::fmt;
use recurve_kernels::Strategy;
use recurve_tensor::{DType, Device, Tensor};
use smallvec::SmallVec;
use std::any::Any;

/// An input of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Always there.
    Required(&'static str),
    /// May be left out.
    Optional(&'static str),
    /// The last input: any number of them, at least one.
    Many(&'static str),
    /// The last input: any number of them, of which each may be left out.
    Rest(&'static str),
}

impl Slot {
    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Required(n) | Self::Optional(n) | Self::Many(n) | Self::Rest(n) => n,
        }
    }

    /// Whether it may be left out.
    pub const fn is_optional(self) -> bool {
        matches!(self, Self::Optional(_) | Self::Rest(_))
    }
}

/// Why an operator refuses its operands.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// An input is of the wrong type; which one, and what it must be.
    Input(usize, String),
    /// An attribute has a value that it cannot have; which one, and why.
    Attribute(&'static str, String),
}

/// What a node gives, one tensor an output; `None` for outputs that nobody wants.
pub type Outputs = SmallVec<[Option<Tensor>; 3]>;

/// What an operator made of its parameters, once for a device.
pub type Packed = Box<dyn Any + Send + Sync>;

/// What a run takes beside the inputs.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct RunOptions {
    /// How a GPU runs recurrences.
    pub strategy: Strategy,
    /// Find the fastest way of running each recurrence of this size on the GPU first, as
    /// [`recurve_kernels::Recurrent::tune`] does.
    pub tune: bool,
}

/// One run of a node.
pub struct Call<'a> {
    /// The inputs; `None` where one was left out, and where it is among [`Operator::host_inputs`].
    pub inputs: &'a [Option<&'a Tensor>],
    /// Which outputs are used.
    pub wanted: &'a [bool],
    /// What [`Operator::pack`] made.
    pub packed: Option<&'a Packed>,
    /// The caller's choices.
    pub options: &'a RunOptions,
}

impl<'a> Call<'a> {
    /// An input that the operator cannot do without.
    ///
    /// # Panics
    /// If it is not there: the executor runs no node without its required inputs.
    pub fn input(&self, index: usize) -> &'a Tensor {
        self.inputs[index].expect("the executor runs no node without its required inputs")
    }
}

/// The parameters and constants of a node in host memory.
pub struct HostInputs<'a> {
    pub(crate) executor: &'a Executor,
    pub(crate) node: usize,
}

/// A kind of node.
///
/// Checks belong into [`Self::output_types`], as far as types show what is wrong; what only values show is
/// refused by [`Self::run`], which checks shapes again by what it calls.
pub trait Operator: fmt::Debug + Send + Sync {
    /// Its name, as ONNX has it where it is one of ONNX's.
    fn name(&self) -> &'static str;

    /// Its inputs, in order.
    fn slots(&self) -> &[Slot];

    /// The types of its outputs.
    ///
    /// # Errors
    /// A [`Fault`] if operands do not fit.
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault>;

    /// The first input that is packed instead of being on the device; those from there on must be parameters or
    /// constants.
    fn host_inputs(&self) -> Option<usize> {
        None
    }

    /// Brings parameters into the form that [`Self::run`] wants on this device.
    ///
    /// # Errors
    /// Errors of the device, and of the parameters' values.
    fn pack(&self, _: &HostInputs<'_>, _: &Device) -> crate::Result<Option<Packed>> {
        Ok(None)
    }

    /// Computes the outputs on the inputs' device.
    ///
    /// # Errors
    /// What operations on tensors refuse, and errors of the device.
    fn run(&self, call: &Call<'_>) -> recurve_tensor::Result<Outputs>;

    /// Computes the outputs in f64, for inputs that fit; `None` is an input that was left out, or an output that
    /// the operator does not have for these inputs.
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>>;

    /// The operator itself, for passes that look for one.
    fn as_any(&self) -> &dyn Any;
}

/// The type of an input that must be there.
pub(crate) fn required<'a>(inputs: &[Option<&'a ValueType>], index: usize) -> Result<&'a ValueType, Fault> {
    inputs.get(index).copied().flatten().ok_or_else(|| Fault::Input(index, "given".into()))
}

/// An input of a float type.
pub(crate) fn float<'a>(inputs: &[Option<&'a ValueType>], index: usize) -> Result<&'a ValueType, Fault> {
    let t = required(inputs, index)?;
    if t.dtype.is_float() { Ok(t) } else { Err(Fault::Input(index, "f32 or f16".into())) }
}

/// An input of U32.
pub(crate) fn ids<'a>(inputs: &[Option<&'a ValueType>], index: usize) -> Result<&'a ValueType, Fault> {
    let t = required(inputs, index)?;
    if t.dtype == DType::U32 { Ok(t) } else { Err(Fault::Input(index, "u32".into())) }
}

/// One output.
pub(crate) fn one(t: Tensor) -> Outputs {
    smallvec::smallvec![Some(t)]
}

/// The array of a required input.
pub(crate) fn array<'a>(inputs: &[Option<&'a Array>], index: usize) -> &'a Array {
    inputs[index].expect("a required input of the reference")
}
