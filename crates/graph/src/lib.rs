//! A network as a graph of operators.
//!
//! A [`Graph`] is data: values with a name, an element type and a shape whose batch and time may be open, and
//! nodes that compute values from others. Every value has one producer, so there are no loops and nothing is
//! overwritten. [`GraphBuilder`] takes nodes in any order, by the names of their values, and refuses what does
//! not fit together with the name of the node. An [`Executor`] runs a graph on a device; [`Graph::reference`]
//! computes the same in f64.
//!
//! An operator is one file in [`ops`]: the shapes it gives, what it does on a device, and its truth in f64.

#![forbid(unsafe_code)]

mod array;
mod data;
mod error;
mod executor;
mod graph;
mod operator;
pub mod ops;
mod passes;
mod value;

pub use array::Array;
pub use data::{Data, IntArray};
pub use error::{Error, Result};
pub use executor::{Executor, Frame};
pub use graph::{Assembly, Constant, Graph, GraphBuilder, Node, Source, Value, ValueId};
pub use operator::{Call, Fault, HostInputs, Operator, Outputs, Packed, RunOptions, Slot};
pub use value::{Dim, Element, Int, ValueType};
