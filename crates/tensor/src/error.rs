//! What can go wrong with devices and tensors.

use crate::{DType, Device, Shape};

/// The result of a tensor operation.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// What went wrong with a device or a tensor.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor has the wrong shape for an operation.
    #[error("{operation}: `{argument}` must be {expected}, but its shape is {got}")]
    Shape {
        /// The operation.
        operation: &'static str,
        /// The argument.
        argument: &'static str,
        /// The shape wanted, in words or letters.
        expected: String,
        /// The shape that came.
        got: Shape,
    },
    /// A tensor has the wrong element type for an operation.
    #[error("{operation}: `{argument}` must be {expected}, but it is {got}")]
    DType {
        /// The operation.
        operation: &'static str,
        /// The argument.
        argument: &'static str,
        /// The element types wanted.
        expected: &'static str,
        /// The element type that came.
        got: DType,
    },
    /// Operands live on different devices.
    #[error(
        "{operation}: `{argument}` is on {got}, but the other operands are on {expected}; move it with `to_device`"
    )]
    Device {
        /// The operation.
        operation: &'static str,
        /// The argument.
        argument: &'static str,
        /// The device of the other operands.
        expected: String,
        /// The device of this one.
        got: String,
    },
    /// An argument has a value that the operation cannot take.
    #[error("{operation}: `{argument}` {message}")]
    Argument {
        /// The operation.
        operation: &'static str,
        /// The argument.
        argument: &'static str,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// An index, such as a token id, points past the end.
    #[error("{operation}: `{argument}` contains {index}, but there are only {len} rows (0 to {})", len - 1)]
    Index {
        /// The operation.
        operation: &'static str,
        /// The argument.
        argument: &'static str,
        /// The largest index that came.
        index: u64,
        /// Number of rows.
        len: usize,
    },
    /// A number is outside of what the element type holds.
    #[error("{operation}: `{argument}` contains {got} at element {index}, but only {expected} can be held")]
    Range {
        /// The operation.
        operation: &'static str,
        /// The argument.
        argument: &'static str,
        /// The numbers that can be held.
        expected: &'static str,
        /// The first number that cannot.
        got: i64,
        /// Where it is.
        index: usize,
    },
    /// A tensor is larger than the device can hold in one buffer.
    #[error("{operation}: needs a buffer of {bytes} bytes, but {device} allows at most {limit}")]
    TooLarge {
        /// The operation.
        operation: &'static str,
        /// Bytes wanted.
        bytes: u64,
        /// Most bytes of one buffer.
        limit: u64,
        /// The device.
        device: String,
    },
    /// An operation would take more workgroups in one dimension of a dispatch than the device can count.
    #[error(
        "{operation}: needs {workgroups} workgroups in one dimension of a dispatch, but {device} runs at most {limit}"
    )]
    Workgroups {
        /// The operation.
        operation: &'static str,
        /// Workgroups wanted.
        workgroups: u64,
        /// Most workgroups in one dimension.
        limit: u32,
        /// The device.
        device: String,
    },
    /// No adapter fits the request.
    #[error("no device matches `{wanted}`; {available}")]
    NoDevice {
        /// The request.
        wanted: String,
        /// What there is.
        available: String,
    },
    /// The device lacks a feature.
    #[error("{operation}: {device} does not support {feature}")]
    Unsupported {
        /// The operation.
        operation: &'static str,
        /// The feature.
        feature: &'static str,
        /// The device.
        device: String,
    },
    /// The device ran out of memory.
    #[error("{device} is out of memory ({operation}, {bytes} bytes)")]
    OutOfMemory {
        /// The operation.
        operation: &'static str,
        /// Bytes wanted; 0 if unknown.
        bytes: u64,
        /// The device.
        device: String,
    },
    /// The device is gone: unplugged, reset by its driver, or destroyed. Its tensors are lost; a
    /// new device can be opened.
    #[error("the device was lost: {reason}; open a new one")]
    DeviceLost {
        /// The driver's reason.
        reason: String,
    },
    /// The GPU API refused a command: a defect of Recurve or of the driver.
    #[error("GPU error in {operation}: {message}")]
    Gpu {
        /// The operation.
        operation: &'static str,
        /// wgpu's message.
        message: String,
    },
}

impl Error {
    /// An operand that is on another device than the others.
    pub fn device(operation: &'static str, argument: &'static str, expected: &Device, got: &Device) -> Self {
        let (expected, mut got) = (expected.to_string(), got.to_string());
        if expected == got {
            got.push_str(", opened a second time");
        }
        Self::Device { operation, argument, expected, got }
    }

    pub(crate) fn shape(
        operation: &'static str,
        argument: &'static str,
        expected: impl Into<String>,
        got: &Shape,
    ) -> Self {
        Self::Shape { operation, argument, expected: expected.into(), got: *got }
    }
}
