//! GPUs through wgpu: opening an adapter, buffers, pipelines, recording and reading back.

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
pub use ops::{Rows, StridedMatmul, gather_rows, layer_norm_rows, strided_copy, strided_matmul};
pub use pipeline::Pipeline;
pub(crate) use pollster::block_on;
pub use recording::Dispatch;

use crate::device::AdapterSummary;
use crate::pool::Pool;
use engine::Engine;
use memory::Memory;
use recording::Recording;
use recurve_shaders::Variant;
use scope::Late;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wait::Waiting;

/// An open GPU. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Gpu(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    /// Tells open devices apart.
    id: u64,
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) limits: wgpu::Limits,
    pub(crate) features: wgpu::Features,
    summary: AdapterSummary,
    waiting: Arc<Waiting>,
    /// What error scopes have not said yet.
    late: Late,
    /// The last error that no scope caught.
    uncaptured: Arc<Mutex<Option<String>>>,
    pipelines: Mutex<HashMap<Variant, Arc<Pipeline>>>,
    recorder: Mutex<Recorder>,
    staging: Mutex<Pool<u64, wgpu::Buffer>>,
    max_loop_iterations: AtomicU32,
    max_work: AtomicU64,
    /// Iterations after which kernels end their loops, for tests; 0 for never.
    ended_loops: AtomicU32,
    neighbour_sums: AtomicBool,
    /// 0 where not yet known.
    concurrent_workgroups: AtomicU32,
    /// Submissions so far; a buffer remembers the last one that used it.
    epoch: AtomicU64,
}

/// What one lock guards: the order in which commands are recorded is the order in which memory may be reused.
#[derive(Debug)]
struct Recorder {
    memory: Memory,
    recording: Recording,
    engine: Engine,
}

impl Recorder {
    fn new(device: &wgpu::Device, queue: &wgpu::Queue, limits: &wgpu::Limits, features: wgpu::Features) -> Self {
        // 128 bytes hold the largest parameter struct.
        let slot = (limits.min_uniform_buffer_offset_alignment as usize).max(128);
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
    // Nothing that runs under these locks leaves them half changed when it panics.
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    /// Facts about the adapter.
    pub fn summary(&self) -> &AdapterSummary {
        &self.0.summary
    }

    /// Whether both are the same open device.
    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether tensors may be stored as f16.
    pub fn has_f16(&self) -> bool {
        self.0.features.contains(wgpu::Features::SHADER_F16)
    }

    /// Whether code that is written out at length may take seconds to compile, as Direct3D's FXC does, which wgpu
    /// uses where it finds no DXC.
    pub fn compiles_slowly(&self) -> bool {
        self.summary().backend == "dx12"
    }

    /// Lanes of a workgroup, at most.
    pub fn max_workgroup_lanes(&self) -> u32 {
        let l = &self.0.limits;
        l.max_compute_invocations_per_workgroup.min(l.max_compute_workgroup_size_x)
    }

    /// Bytes of workgroup memory.
    pub fn max_workgroup_bytes(&self) -> u32 {
        self.0.limits.max_compute_workgroup_storage_size
    }

    /// Workgroups of a dispatch in one dimension.
    pub fn max_workgroups(&self) -> u32 {
        self.0.limits.max_compute_workgroups_per_dimension
    }

    /// Multiply-adds of one submission, and of one dispatch where it can be split: what a slow device of its
    /// kind does in about half a second. Drivers reset a device that works on one submission for some seconds, and
    /// nothing else gets its turn before.
    pub fn max_work(&self) -> u64 {
        self.0.max_work.load(Ordering::Relaxed)
    }

    /// Bytes of one buffer, at most; always below 4 GiB, because kernels count elements and bytes in 32 bits.
    pub fn max_buffer_bytes(&self) -> u64 {
        let l = &self.0.limits;
        l.max_storage_buffer_binding_size.min(l.max_buffer_size).min((!255u32).into())
    }

    /// Destroys the device, as an unplugged or reset GPU would be. Everything on it is lost and
    /// every further use is [`Error::DeviceLost`]; other devices are not affected.
    pub fn destroy(&self) {
        self.0.device.destroy();
        let _ = self.0.device.poll(wgpu::PollType::Poll);
        self.0.waiting.lose("destroyed by the program".into());
    }

    pub(crate) fn trim(&self) {
        lock(&self.0.recorder).trim();
        lock(&self.0.staging).trim(wgpu::Buffer::size);
    }

    pub(crate) fn buffers_made(&self) -> u64 {
        lock(&self.0.recorder).memory.pool.made() + lock(&self.0.staging).made()
    }

    /// Bind groups made since the device was opened.
    pub fn bind_groups_made(&self) -> u64 {
        lock(&self.0.recorder).engine.bind_groups_made()
    }

    /// Dispatches and submissions since the device was opened.
    pub fn work_counts(&self) -> (u64, u64) {
        (lock(&self.0.recorder).recording.dispatches(), self.0.epoch.load(Ordering::Relaxed))
    }

    /// Bytes of buffers held for tensors, in use or idle.
    pub fn bytes_held(&self) -> u64 {
        lock(&self.0.recorder).memory.pool.bytes()
    }
}
