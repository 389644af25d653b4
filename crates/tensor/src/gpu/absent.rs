//! Replacements for the GPU types in a build without the feature `gpu`: types that have no value, with the methods that
//! the rest of this crate calls.

pub(crate) use crate::cpu::ready as block_on;

use crate::ops::{After, Axis, Broadcast, Conv, Operation, Pool, Span};
use crate::{
    Activation, AdapterSummary, CtcRule, DType, Decay, Descent, Error, Extreme, Function, MatmulOptions, Noise,
    Normalization, Normalized, PciAddress, Pooling, Reduction, Result, SampleOptions, Scatter, Shape, Take, Tensor,
    Update,
};
use core::convert::Infallible;
use std::sync::Arc;

/// An open GPU. This program is built without the feature `gpu`, so no value of this type exists.
#[derive(Clone, Debug)]
pub struct Gpu(Infallible);

/// A buffer on a GPU. This program is built without the feature `gpu`, so no value of this type exists.
#[derive(Debug)]
pub struct GpuBuffer(Infallible);

impl Gpu {
    pub(crate) async fn open(backend: Option<&str>, name: Option<&str>) -> Result<Self> {
        let backend = backend.unwrap_or("gpu");
        Err(Error::NoDevice {
            wanted: name.map_or_else(|| backend.to_owned(), |name| format!("{backend}:{name}")),
            available: "this program was built without the feature `gpu`, so there is only the CPU".into(),
        })
    }

    pub(crate) async fn open_at(address: PciAddress) -> Result<Self> {
        Self::open(Some("pci"), Some(&address.to_string())).await
    }

    pub(crate) async fn open_all() -> Vec<Self> {
        Vec::new()
    }

    pub(crate) async fn adapters() -> Vec<AdapterSummary> {
        Vec::new()
    }
}

/// Defines methods that can never be called, because `self` has no value.
macro_rules! never {
    ($($(#[$doc:meta])* $visibility:vis fn $name:ident(&self $(, $argument:ty)*) -> $result:ty;)*) => {
        impl Gpu {
            $($(#[$doc])* $visibility fn $name(&self $(, _: $argument)*) -> $result {
                match self.0 {}
            })*
        }
    };
}

never! {
    /// What is known about the adapter.
    pub fn summary(&self) -> &AdapterSummary;
    pub(crate) fn same(&self, &Self) -> bool;
    /// Whether tensors can be stored as f16.
    pub fn has_f16(&self) -> bool;
    /// Why the device was lost, if it was.
    pub fn lost(&self) -> Option<String>;
    /// Destroys the device.
    pub fn destroy(&self) -> ();
    /// Limits the memory of this device's tensors, in bytes.
    pub fn set_memory_limit(&self, Option<u64>) -> ();
    /// The limit of [`Self::set_memory_limit`].
    pub fn memory_limit(&self) -> Option<u64>;
    pub(crate) fn trim(&self) -> ();
    pub(crate) fn buffers_made(&self) -> u64;
    pub(crate) fn buffer(&self, u64, &'static str) -> Result<Arc<GpuBuffer>>;
    pub(crate) fn upload(&self, &[u8], &'static str) -> Result<Arc<GpuBuffer>>;
    pub(crate) fn descend(&self, Vec<Tensor>, &Tensor, &Tensor, Descent, Decay) -> Result<Vec<Tensor>>;
    pub(crate) fn fill(&self, Shape, f32, DType) -> Result<Tensor>;
    pub(crate) fn binary(&self, [&Tensor; 2], Operation, &Broadcast<2>) -> Result<Tensor>;
    pub(crate) fn assemble(&self, Shape, &[&Tensor], impl Iterator<Item = Span>, &'static str) -> Result<Tensor>;
    pub(crate) fn copy_into(&self, &Tensor, &Tensor, &Span) -> Result<()>;
    pub(crate) fn cross_entropy(&self, &Tensor, &Tensor, [&Tensor; 2], f32) -> Result<Tensor>;
    pub(crate) fn cross_entropy_gradient(&self, &Tensor, &Tensor, [&Tensor; 2], f32) -> Result<Tensor>;
    pub(crate) fn ctc(&self, &Tensor, &Tensor, Option<&Tensor>, CtcRule) -> Result<(Tensor, Tensor)>;
    pub(crate) fn ctc_gradient(&self, &Tensor, &Tensor, Option<&Tensor>, CtcRule, [&Tensor; 3]) -> Result<Tensor>;
    pub(crate) fn cumulate(&self, &Tensor, &Axis, bool, bool) -> Result<Tensor>;
    pub(crate) fn function(&self, &Tensor, Function) -> Result<Tensor>;
    pub(crate) fn gather(&self, &Tensor, &Tensor, Shape) -> Result<Tensor>;
    pub(crate) fn layer_norm(&self, &Tensor, &Tensor, f32) -> Result<Tensor>;
    pub(crate) fn log_sums(&self, &Tensor, Shape, usize) -> Result<Option<Tensor>>;
    pub(crate) fn mask(&self, &Tensor, f32, Shape, usize) -> Result<Tensor>;
    pub(crate) fn matmul(&self, &Tensor, &Tensor, &MatmulOptions<'_>, Shape, [usize; 4]) -> Result<Tensor>;
    pub(crate) fn peak_flops(&self) -> Result<f64>;
    pub(crate) fn peak_bandwidth(&self, usize) -> Result<f64>;
    pub(crate) fn conv(&self, &Conv<'_>) -> Result<Tensor>;
    pub(crate) fn max_pool_indices(&self, &Pool<'_>, bool) -> Result<Tensor>;
    pub(crate) fn noise(&self, Shape, Noise, &Tensor, u32) -> Result<Tensor>;
    pub(crate) fn normalize(&self, &Tensor, &Normalization<'_>) -> Result<Normalized>;
    pub(crate) fn pool(&self, &Pool<'_>, Pooling) -> Result<Tensor>;
    pub(crate) fn reduce(&self, &Tensor, Reduction, After, &Axis) -> Result<Tensor>;
    pub(crate) fn argmax(&self, &Tensor, &Axis, Extreme) -> Result<Tensor>;
    pub(crate) fn sample(&self, &Tensor, &SampleOptions, usize) -> Result<Tensor>;
    pub(crate) fn scatter(&self, &Tensor, &Tensor, &Tensor, &Scatter, Update) -> Result<()>;
    pub(crate) fn select(&self, [&Tensor; 3], &Broadcast<3>) -> Result<Tensor>;
    pub(crate) fn slope(&self, &Tensor, &Tensor, Activation) -> Result<Tensor>;
    pub(crate) fn softmax(&self, &Tensor, bool) -> Result<Tensor>;
    pub(crate) fn sum_rows(&self, &Tensor, &Tensor, usize) -> Result<Tensor>;
    pub(crate) fn take(&self, &Tensor, &Tensor, &Take, f32) -> Result<Tensor>;
    pub(crate) fn top_k(&self, &Tensor, Shape, usize, bool) -> Result<(Tensor, Tensor)>;
    pub(crate) fn unary(&self, &Tensor, DType, Activation) -> Result<Tensor>;
}

impl Gpu {
    pub(crate) fn block_on<T>(&self, _: impl Future<Output = Result<T>>) -> Result<T> {
        match self.0 {}
    }

    pub(crate) async fn synchronize_async(&self) -> Result<()> {
        match self.0 {}
    }

    pub(crate) async fn read_async<const N: usize>(&self, _: [(&GpuBuffer, &mut [u8]); N]) -> Result<()> {
        match self.0 {}
    }
}
