//! Replacements for layers on a GPU in a build without the feature `gpu`: types that have no value, with the methods
//! that the rest of this crate calls.

use crate::call::{Call, RecurrentOutput};
use crate::config::LevelConfig;
use crate::{Cell, Strategy};
use core::convert::Infallible;
use recurve_tensor::gpu::Gpu;
use recurve_tensor::{Error, Result, Tensor};

/// Refuses every call of a layer for training, as [`GpuLayer::new`] does every layer.
pub(crate) mod training {
    use crate::training::{BackwardCall, Gradients, Trained, TrainingCall};
    use recurve_tensor::gpu::Gpu;
    use recurve_tensor::{Error, Result};

    fn refused<T>(gpu: &Gpu, operation: &'static str) -> Result<T> {
        let feature = "recurrent layers, because recurve-kernels was built without its feature `gpu`";
        Err(Error::Unsupported { operation, feature, device: gpu.summary().name.clone() })
    }

    pub(crate) fn forward(gpu: &Gpu, _: &TrainingCall<'_>) -> Result<Trained> {
        refused(gpu, "TrainingLayer::forward")
    }

    pub(crate) fn backward(gpu: &Gpu, _: &BackwardCall<'_>) -> Result<Gradients> {
        refused(gpu, "TrainingLayer::backward")
    }
}

#[derive(Debug)]
pub(crate) struct GpuLayer(Infallible);

pub(crate) type TokenRows = Infallible;

#[derive(Debug)]
pub(crate) struct Wave(Infallible);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout(Infallible);

impl GpuLayer {
    /// Refuses every layer: `recurve-tensor` may have been built with GPUs while this crate was not.
    pub(crate) fn new(_: &LevelConfig<'_>, gpu: &Gpu) -> Result<Self> {
        Err(Error::Unsupported {
            operation: "Recurrent::new",
            feature: "recurrent layers, because recurve-kernels was built without its feature `gpu`",
            device: gpu.summary().name.clone(),
        })
    }

    pub(crate) fn token_rows(&self, _: &Tensor) -> Result<TokenRows> {
        match self.0 {}
    }

    pub(crate) fn every_layout(&self, _: usize, _: usize) -> Result<Vec<Layout>> {
        match self.0 {}
    }

    pub(crate) fn admitted(&self, _: Layout, _: usize) -> Result<Layout> {
        match self.0 {}
    }

    pub(crate) fn choose(&self, _: Strategy, _: usize, _: usize) -> Result<Layout> {
        match self.0 {}
    }

    pub(crate) fn forward(&self, _: Layout, _: &Call<'_>) -> Result<RecurrentOutput> {
        match self.0 {}
    }

    pub(crate) fn tune(&self, _: usize, _: usize) -> Result<()> {
        match self.0 {}
    }
}

impl Wave {
    pub(crate) fn fits(_: Cell) -> bool {
        false
    }

    pub(crate) fn new(levels: &[&GpuLayer]) -> Result<Self> {
        match levels[0].0 {}
    }

    pub(crate) fn is_chosen(levels: &[&GpuLayer], _: &Call<'_>, _: Strategy) -> bool {
        match levels[0].0 {}
    }

    pub(crate) fn forward(&self, _: &GpuLayer, _: &Call<'_>) -> Result<RecurrentOutput> {
        match self.0 {}
    }
}

impl Layout {
    pub(crate) const fn strategy(&self) -> Strategy {
        match self.0 {}
    }
}

impl core::fmt::Display for Layout {
    fn fmt(&self, _: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {}
    }
}
