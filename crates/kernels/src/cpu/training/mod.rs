//! Recurrent layers with their gradients on the CPU.

use crate::training::{BackwardCall, Gradients, Trained, TrainingCall};
use recurve_tensor::{Device, Error, Result};

/// The kernels of a layer.
#[derive(Debug, Default)]
pub(crate) struct CpuTraining {}

impl CpuTraining {
    pub(crate) fn forward(&self, _call: &TrainingCall<'_>) -> Result<Trained> {
        Err(Error::Unsupported {
            operation: "TrainingLayer::forward",
            feature: "training",
            device: Device::Cpu.to_string(),
        })
    }

    pub(crate) fn backward(&self, _call: &BackwardCall<'_>) -> Result<Gradients> {
        Err(Error::Unsupported {
            operation: "TrainingLayer::backward",
            feature: "training",
            device: Device::Cpu.to_string(),
        })
    }
}
