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
        /// The required shape, in words or letters.
        expected: String,
        /// The shape of the argument.
        got: Shape,
    },
    /// A tensor has the wrong element type for an operation.
    #[error("{operation}: `{argument}` must be {expected}, but it is {got}")]
    DType {
        /// The operation.
        operation: &'static str,
        /// The argument.
        argument: &'static str,
        /// The required element types.
        expected: &'static str,
        /// The element type of the argument.
        got: DType,
    },
    /// Operands are on different devices.
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
        /// The device of this operand.
        got: String,
    },
    /// An argument has an invalid value.
    #[error("{operation}: `{argument}` {message}")]
    Argument {
        /// The operation.
        operation: &'static str,
        /// The argument.
        argument: &'static str,
        /// What is wrong with the value, and which values are valid.
        message: String,
    },
    /// An index, such as a token id, is past the last row.
    #[error("{operation}: `{argument}` contains {index}, but there are only {len} rows (0 to {})", len - 1)]
    Index {
        /// The operation.
        operation: &'static str,
        /// The argument.
        argument: &'static str,
        /// The largest index in the argument.
        index: u64,
        /// Number of rows.
        len: usize,
    },
    /// A number cannot be represented in the element type.
    #[error("{operation}: `{argument}` contains {got} at element {index}, but only {expected} can be stored")]
    Range {
        /// The operation.
        operation: &'static str,
        /// The argument.
        argument: &'static str,
        /// The numbers that can be represented.
        expected: &'static str,
        /// The first number that cannot.
        got: i64,
        /// The index of that number.
        index: usize,
    },
    /// A tensor is larger than the device can hold in one buffer.
    #[error("{operation}: needs a buffer of {bytes} bytes, but {device} allows at most {limit}")]
    TooLarge {
        /// The operation.
        operation: &'static str,
        /// The size that is needed, in bytes.
        bytes: u64,
        /// The largest size of a buffer, in bytes.
        limit: u64,
        /// The device.
        device: String,
    },
    /// An operation needs more workgroups in one dimension of a dispatch than the device allows.
    #[error(
        "{operation}: needs {workgroups} workgroups in one dimension of a dispatch, but {device} runs at most {limit}"
    )]
    Workgroups {
        /// The operation.
        operation: &'static str,
        /// The number of workgroups that is needed.
        workgroups: u64,
        /// The largest number of workgroups in one dimension.
        limit: u32,
        /// The device.
        device: String,
    },
    /// No device matches a request.
    #[error("no device matches `{wanted}`; {available}")]
    NoDevice {
        /// The request.
        wanted: String,
        /// The devices that exist.
        available: String,
    },
    /// The device lacks a required feature.
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
    #[error("{device} is out of memory: {operation} {}", shortage(*bytes, *in_use, *limit))]
    OutOfMemory {
        /// The operation.
        operation: &'static str,
        /// The size that was requested, in bytes; 0 if unknown.
        bytes: u64,
        /// The size of the tensors on the device, in bytes; 0 if unknown.
        in_use: u64,
        /// The limit that the program has set, in bytes.
        limit: Option<u64>,
        /// The device.
        device: String,
    },
    /// The device is lost: unplugged, reset by its driver, or destroyed. Its tensors are lost; a new device can be
    /// opened.
    #[error("the device was lost: {reason}; open a new one")]
    DeviceLost {
        /// The driver's reason.
        reason: String,
    },
    /// The GPU API rejected a command, which is a bug in Recurve or in the driver.
    #[error("GPU error in {operation}: {message}")]
    Gpu {
        /// The operation.
        operation: &'static str,
        /// wgpu's message.
        message: String,
    },
}

/// How much memory is needed, in use and allowed.
fn shortage(bytes: u64, in_use: u64, limit: Option<u64>) -> String {
    let mut text = match bytes {
        0 => "needs more".to_owned(),
        _ => format!("needs {bytes} bytes"),
    };
    if in_use > 0 {
        text.push_str(&format!(" beside {in_use} in use"));
    }
    if let Some(limit) = limit {
        text.push_str(&format!(", and {limit} are allowed"));
    }
    text
}

impl Error {
    /// Whether less data at a time would need no more than there is: [`Self::OutOfMemory`] and [`Self::TooLarge`].
    pub fn is_lack_of_memory(&self) -> bool {
        matches!(self, Self::OutOfMemory { .. } | Self::TooLarge { .. })
    }

    /// Lack of memory of which only the operation and the requested size are known; 0 if not even that.
    pub(crate) fn memory(operation: &'static str, bytes: u64, device: impl Into<String>) -> Self {
        Self::OutOfMemory { operation, bytes, in_use: 0, limit: None, device: device.into() }
    }

    /// The error for an operand that is on another device than the others.
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
