//! Recurrent layers with their gradients on a GPU. No kernels for it exist yet, so every call is refused.

use crate::training::{BackwardCall, Gradients, Trained, TrainingCall};
use recurve_tensor::gpu::Gpu;
use recurve_tensor::{Device, Error, Result};

fn refused<T>(gpu: &Gpu, operation: &'static str) -> Result<T> {
    let device = Device::Gpu(gpu.clone()).to_string();
    Err(Error::Unsupported { operation, feature: "the training of recurrent layers", device })
}

pub(crate) fn forward(gpu: &Gpu, _: &TrainingCall<'_>) -> Result<Trained> {
    refused(gpu, "TrainingLayer::forward")
}

pub(crate) fn backward(gpu: &Gpu, _: &BackwardCall<'_>) -> Result<Gradients> {
    refused(gpu, "TrainingLayer::backward")
}
