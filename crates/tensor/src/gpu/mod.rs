//! GPUs through wgpu: opening adapters, buffers, pipelines, recording and reading back.

mod adapter;
mod check;
mod engine;
mod kernel;
mod memory;
mod ops;
#[expect(unsafe_code, reason = "kernels are compiled without run-time checks")]
mod pipeline;
mod probe;
mod read;
mod recording;
mod scope;
mod wait;

pub use engine::Profile;
pub use kernel::GpuKernels;
pub use memory::GpuBuffer;
pub use ops::{Rows, StridedMatmul, gather_rows, layer_norm_rows, strided_copy, strided_matmul, strided_matmul_within};
pub use pipeline::Pipeline;
pub(crate) use pollster::block_on;
pub use recording::Dispatch;

use crate::device::AdapterSummary;
use crate::pool::Pool;
use engine::Engine;
use memory::Memory;
use recording::Recording;
use recurve_shaders::{Variant, params};
use scope::Late;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wait::Waiting;

/// An open GPU. Clones refer to the same device.
#[derive(Clone, Debug)]
pub struct Gpu(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    /// Distinguishes open devices.
    id: u64,
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) limits: wgpu::Limits,
    pub(crate) features: wgpu::Features,
    summary: AdapterSummary,
    waiting: Arc<Waiting>,
    /// Error scopes whose result is not known yet.
    late: Late,
    /// The last error that no error scope caught.
    uncaptured: Arc<Mutex<Option<String>>>,
    pipelines: Mutex<HashMap<Variant, Arc<Pipeline>>>,
    recorder: Mutex<Recorder>,
    staging: Mutex<Pool<u64, wgpu::Buffer>>,
    max_loop_iterations: AtomicU32,
    max_work: AtomicU64,
    /// In bytes; `u64::MAX` for none.
    memory_limit: AtomicU64,
    /// Number of iterations after which kernels end their loops, for tests; 0 for no limit.
    ended_loops: AtomicU32,
    neighbour_sums: AtomicBool,
    software: AtomicBool,
    /// The result of the probe; 0 while it has not run.
    concurrent_workgroups: AtomicU32,
    /// Number of submissions so far; each buffer stores the last one that used it.
    epoch: AtomicU64,
}

/// The state behind one lock. A buffer may be reused at once only because commands run in the order of recording, so
/// recording and memory share the lock.
#[derive(Debug)]
struct Recorder {
    memory: Memory,
    recording: Recording,
    engine: Engine,
}

impl Recorder {
    fn new(device: &wgpu::Device, queue: &wgpu::Queue, limits: &wgpu::Limits, features: wgpu::Features) -> Self {
        let slot = params::LARGEST.next_multiple_of(limits.min_uniform_buffer_offset_alignment as usize);
        Self {
            memory: Memory::new(),
            recording: Recording::new(slot),
            engine: Engine::new(device, queue, slot, features),
        }
    }

    fn trim(&mut self) {
        self.engine.forget_bind_groups();
        self.memory.pool.trim(|b| b.raw.size());
    }
}

pub(crate) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under one of these locks leaves no value half changed.
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    /// What is known about the adapter.
    pub fn summary(&self) -> &AdapterSummary {
        &self.0.summary
    }

    /// Whether both are the same open device.
    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether tensors can be stored as f16.
    pub fn has_f16(&self) -> bool {
        self.0.features.contains(wgpu::Features::SHADER_F16)
    }

    /// Whether kernels are laid out for a software implementation, which runs on the CPU.
    pub fn is_software(&self) -> bool {
        self.0.software.load(Ordering::Relaxed)
    }

    /// Whether compiling long unrolled shaders may take seconds, as with Direct3D's compiler FXC, which wgpu uses where
    /// DXC is not installed.
    pub fn compiles_slowly(&self) -> bool {
        self.summary().backend == "dx12"
    }

    /// Largest number of lanes (invocations) of a workgroup.
    pub fn max_workgroup_lanes(&self) -> u32 {
        let l = &self.0.limits;
        l.max_compute_invocations_per_workgroup.min(l.max_compute_workgroup_size_x)
    }

    /// Size of workgroup memory, in bytes.
    pub fn max_workgroup_bytes(&self) -> u32 {
        self.0.limits.max_compute_workgroup_storage_size
    }

    /// Largest number of workgroups of a dispatch in one dimension.
    pub fn max_workgroups(&self) -> u32 {
        self.0.limits.max_compute_workgroups_per_dimension
    }

    /// Largest number of multiply-adds of a submission, and of a dispatch that can be split: what a slow device of its
    /// kind computes in about half a second. A driver resets a device that spends several seconds on one submission,
    /// and other programs wait meanwhile.
    pub fn max_work(&self) -> u64 {
        self.0.max_work.load(Ordering::Relaxed)
    }

    /// Largest size of a buffer, in bytes. Always below 4 GiB, because kernels count elements and bytes in 32 bits.
    pub fn max_buffer_bytes(&self) -> u64 {
        let l = &self.0.limits;
        l.max_storage_buffer_binding_size.min(l.max_buffer_size).min((!255u32).into())
    }

    /// Destroys the device, as unplugging or resetting a GPU would. Its contents are lost, and every later use is
    /// [`Error::DeviceLost`]; other devices are not affected.
    pub fn destroy(&self) {
        self.0.device.destroy();
        let _ = self.0.device.poll(wgpu::PollType::Poll);
        self.0.waiting.lose("destroyed by the program".into());
    }

    /// Why the device was lost, if it was. Every use of it is [`Error::DeviceLost`] then.
    pub fn lost(&self) -> Option<String> {
        self.0.waiting.lost().cloned()
    }

    pub(crate) fn trim(&self) {
        lock(&self.0.recorder).trim();
        lock(&self.0.staging).trim(wgpu::Buffer::size);
    }

    pub(crate) fn buffers_made(&self) -> u64 {
        lock(&self.0.recorder).memory.pool.made() + lock(&self.0.staging).made()
    }

    /// The number of bind groups made since the device was opened.
    pub fn bind_groups_made(&self) -> u64 {
        lock(&self.0.recorder).engine.bind_groups_made()
    }

    /// The numbers of dispatches and of submissions since the device was opened.
    pub fn work_counts(&self) -> (u64, u64) {
        (lock(&self.0.recorder).recording.dispatches(), self.0.epoch.load(Ordering::Relaxed))
    }

    /// Size of all buffers of the pool, used or unused, in bytes.
    pub fn bytes_held(&self) -> u64 {
        lock(&self.0.recorder).memory.pool.bytes()
    }
}
