//! A network as a graph of operators.
//!
//! A [`Graph`] is data: values with a name, an element type and a shape in which batch and time may be unknown, and
//! nodes that compute values from other values. Every value is defined once and never overwritten, and there are no
//! cycles (static single assignment). [`GraphBuilder`] takes values and nodes in any order, refers to them by name, and
//! reports an error with the name of the node. An [`Executor`] runs a graph on a device; `Graph::reference` computes the
//! same in f64 (feature `reference`).
//!
//! Each operator is a file in [`ops`] with its shape rule, its run on a device and its f64 reference.

#![forbid(unsafe_code)]

mod array;
mod cells;
mod data;
mod error;
mod executor;
mod gradient;
mod graph;
mod operator;
pub mod ops;
mod passes;
mod value;

pub use array::Array;
pub use data::{Data, IntArray};
pub use error::{Error, Result};
pub use executor::{Executor, Frame};
pub use gradient::Gradients;
pub use graph::{Assembly, Constant, Graph, GraphBuilder, Node, Source, Value, ValueId};
pub use operator::{Call, Fault, HostInputs, Kept, Operator, Outputs, Packed, RunOptions, Slot};
pub use value::{Dim, Element, Int, ValueType};
