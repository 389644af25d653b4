//! The interface of operators.

use crate::{Array, Data, Executor, Gradients, Graph, IntArray, ValueType};
use core::fmt;
use recurve_kernels::Strategy;
use recurve_tensor::{DType, Device, Tensor};
use smallvec::SmallVec;
use std::any::Any;
use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

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

/// What a node gives, one value an output; `None` for outputs that nobody wants.
pub type Outputs = SmallVec<[Option<Data>; 4]>;

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

/// What a node keeps from run to run on a device: tables that it makes of whole numbers and shapes, which are mostly the
/// same in every run.
#[derive(Debug, Default)]
pub struct Kept(Mutex<Option<Arc<dyn Any + Send + Sync>>>);

/// The arguments of one run of a node.
pub struct Call<'a> {
    /// The inputs; `None` where one was left out, and where it is packed ([`Operator::host_inputs`]) or given away
    /// ([`Self::take`]).
    pub inputs: &'a [Option<&'a Data>],
    /// Inputs that the operator [reuses](Operator::reuses) and that nothing needs after this node, by their index.
    pub own: RefCell<SmallVec<[(usize, Data); 4]>>,
    /// Which outputs are used.
    pub wanted: &'a [bool],
    /// The result of [`Operator::pack`].
    pub packed: Option<&'a Packed>,
    /// The node's subgraphs on the device, one an entry of [`Operator::subgraphs`].
    pub subgraphs: &'a [Executor],
    /// Where tensors are.
    pub device: &'a Device,
    /// The caller's choices.
    pub options: &'a RunOptions,
    /// What the node keeps from run to run.
    pub kept: &'a Kept,
}

impl<'a> Call<'a> {
    /// An input, if it was not left out.
    pub fn get(&self, index: usize) -> Option<&'a Data> {
        self.inputs.get(index).copied().flatten()
    }

    /// An input that the operator cannot do without.
    ///
    /// # Panics
    /// If it is not there: the executor runs no node without its required inputs.
    pub fn data(&self, index: usize) -> &'a Data {
        self.inputs[index].expect("the executor runs no node without its required inputs")
    }

    /// An input that is a tensor by its type: F32, F16 or U32.
    ///
    /// # Panics
    /// If it is not there, or is no tensor.
    pub fn input(&self, index: usize) -> &'a Tensor {
        self.data(index).as_tensor().expect("a tensor by its type")
    }

    /// An input, if it was not left out, that is a tensor by its type.
    ///
    /// # Panics
    /// If it is no tensor.
    pub fn optional(&self, index: usize) -> Option<&'a Tensor> {
        self.get(index).map(|d| d.as_tensor().expect("a tensor by its type"))
    }

    /// An input as f32 on the device.
    ///
    /// # Errors
    /// Those of [`Data::to_f32`].
    pub fn floats(&self, index: usize) -> recurve_tensor::Result<Cow<'a, Tensor>> {
        self.data(index).to_f32(self.device)
    }

    /// An input as whole numbers in host memory.
    ///
    /// # Errors
    /// Those of [`Data::to_ints`].
    pub fn ints(&self, index: usize) -> recurve_tensor::Result<IntArray> {
        self.data(index).to_ints()
    }

    /// The first input, if nothing needs it after this node and the operator [reuses](Operator::reuses_first) it.
    pub fn take_first(&self) -> Option<Data> {
        self.take(0)
    }

    /// An input, if nothing needs it after this node and the operator [reuses](Operator::reuses) it.
    pub fn take(&self, index: usize) -> Option<Data> {
        let mut own = self.own.borrow_mut();
        let place = own.iter().position(|(n, _)| *n == index)?;
        Some(own.swap_remove(place).1)
    }

    /// What an earlier run of the node has kept, if it fits this one; else what `make` makes, which is kept in its
    /// place.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn kept<T: Any + Send + Sync>(
        &self,
        fits: impl FnOnce(&T) -> bool,
        make: impl FnOnce() -> recurve_tensor::Result<T>,
    ) -> recurve_tensor::Result<Arc<T>> {
        let lock = || self.kept.0.lock().unwrap_or_else(PoisonError::into_inner);
        let there = lock().clone().and_then(|k| k.downcast::<T>().ok());
        if let Some(there) = there.filter(|t| fits(t)) {
            return Ok(there);
        }
        let made = Arc::new(make()?);
        *lock() = Some(made.clone());
        Ok(made)
    }

    /// The inputs that were not left out, if they all are whole numbers in host memory.
    pub fn all_ints(&self) -> Option<SmallVec<[&'a IntArray; 4]>> {
        let ints = self.inputs.iter().flatten().map(|d| match d {
            Data::Ints(i) => Some(i),
            Data::Tensor(_) => None,
        });
        ints.collect()
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

    /// Whether the inputs from [`Self::host_inputs`] on may also be values of a run. Those that are come with the
    /// others to [`Self::run`], those that are not are packed.
    fn takes_any_weights(&self) -> bool {
        false
    }

    /// Whether it packs inputs on this device; otherwise they come to [`Self::run`] as tensors, if it
    /// [takes](Self::takes_any_weights) such.
    fn packs_on(&self, _: &Device) -> bool {
        true
    }

    /// Whether it writes its result into the memory of its first input where nothing else needs it
    /// ([`Call::take_first`]).
    fn reuses_first(&self) -> bool {
        false
    }

    /// Whether it writes a result into the memory of this input where nothing else needs it ([`Call::take`]).
    fn reuses(&self, index: usize) -> bool {
        index == 0 && self.reuses_first()
    }

    /// Whether the outputs depend on nothing but the dimensions of the inputs.
    fn sees_dims_only(&self) -> bool {
        false
    }

    /// Brings parameters into the form that [`Self::run`] wants on this device.
    ///
    /// # Errors
    /// Errors of the device, and [`crate::Error`]s for invalid parameters.
    fn pack(&self, _: &HostInputs<'_>, _: &Device) -> crate::Result<Option<Packed>> {
        Ok(None)
    }

    /// The graphs that it runs: the branches of an `If`, the body of a loop.
    fn subgraphs(&self) -> &[Arc<Graph>] {
        &[]
    }

    /// Whether the outputs are functions of the inputs; otherwise it is run anew in every run.
    fn is_pure(&self) -> bool {
        true
    }

    /// Whether another operator makes the same of the same parameters, so that one of both is enough.
    fn packs_like(&self, _: &dyn Operator) -> bool {
        false
    }

    /// Computes the outputs on the device.
    ///
    /// # Errors
    /// Errors of the tensor operations that it calls, and of the device.
    fn run(&self, call: &Call<'_>) -> recurve_tensor::Result<Outputs>;

    /// Computes the outputs in f64 from inputs of valid types. An input that was left out is `None`, and so is an
    /// output that does not exist for these inputs.
    #[cfg(feature = "reference")]
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>>;

    /// Computes the outputs in f64. Without the feature `reference` it can be called on an operator of a known type, not
    /// on a `dyn Operator`, so the linker leaves out those that nothing calls.
    #[cfg(not(feature = "reference"))]
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>>
    where
        Self: Sized;

    /// Adds nodes that compute the gradients of the inputs that [`Gradients::wants`] from those of the outputs, and
    /// [gives](Gradients::give) them. An input that is given none does not change the outputs smoothly: its gradient is
    /// zero.
    ///
    /// # Errors
    /// [`crate::Error::NoGradient`] if the operator has none; errors of adding nodes.
    #[cfg(feature = "training")]
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        Err(g.missing("the operator has none"))
    }

    /// Adds nodes that compute gradients. Without the feature `training` it cannot be called on a `dyn Operator`, so the
    /// linker leaves it out.
    ///
    /// # Errors
    /// As with the feature.
    #[cfg(not(feature = "training"))]
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()>
    where
        Self: Sized,
    {
        Err(g.missing("the operator has none"))
    }

    /// `self`, so that a pass can look for a certain operator.
    fn as_any(&self) -> &dyn Any;
}

/// The type of an input that must be there, whose number of dimensions may be unknown.
pub(crate) fn given<'a>(inputs: &[Option<&'a ValueType>], index: usize) -> Result<&'a ValueType, Fault> {
    inputs.get(index).copied().flatten().ok_or_else(|| Fault::Input(index, "given".into()))
}

/// The type of an input that must be there, with a known number of dimensions.
pub(crate) fn required<'a>(inputs: &[Option<&'a ValueType>], index: usize) -> Result<&'a ValueType, Fault> {
    match given(inputs, index)? {
        t if t.unranked => Err(Fault::Input(index, "of a known number of dimensions".into())),
        t => Ok(t),
    }
}

/// An input of a float type.
pub(crate) fn float<'a>(inputs: &[Option<&'a ValueType>], index: usize) -> Result<&'a ValueType, Fault> {
    let t = required(inputs, index)?;
    if t.dtype.is_float() { Ok(t) } else { Err(Fault::Input(index, "f32 or f16".into())) }
}

/// The type of a required input whose elements are u32.
pub(crate) fn ids<'a>(inputs: &[Option<&'a ValueType>], index: usize) -> Result<&'a ValueType, Fault> {
    let t = required(inputs, index)?;
    if t.dtype == DType::U32 { Ok(t) } else { Err(Fault::Input(index, "u32".into())) }
}

/// One output.
pub(crate) fn one(t: impl Into<Data>) -> Outputs {
    smallvec::smallvec![Some(t.into())]
}

/// The array of a required input.
pub(crate) fn array<'a>(inputs: &[Option<&'a Array>], index: usize) -> &'a Array {
    inputs[index].expect("a required input of the reference")
}
