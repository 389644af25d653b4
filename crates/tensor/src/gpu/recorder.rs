//! Recording dispatches and submitting them together.
//!
//! A dispatch is kept as data until something is read, the parameter ring is full, or as much work has
//! gathered as a device may be given at once. Then all of them are encoded into one pass of one command
//! encoder and submitted. Parameters travel through
//! a uniform ring that is written once per submission and addressed by dynamic offsets, so that
//! neither buffers nor bind groups are made per dispatch.

use super::{Gpu, Pipeline, lock};
use crate::pool::Pool;
use crate::{Error, Result};
use arrayvec::ArrayVec;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Memory on a GPU.
#[derive(Debug)]
pub struct GpuBuffer {
    pub(crate) raw: wgpu::Buffer,
    pub(super) device: u64,
    id: u64,
    /// The submission that last uses it.
    used: AtomicU64,
}

impl GpuBuffer {
    /// Whether both are the same memory.
    pub(super) fn is(&self, other: &Self) -> bool {
        (self.device, self.id) == (other.device, other.id)
    }
}

/// One kernel launch.
#[derive(Clone, Copy, Debug)]
pub struct Dispatch<'a> {
    /// The kernel.
    pub pipeline: &'a Arc<Pipeline>,
    /// Buffers for bindings 1, 2, …. A buffer that is written may not appear twice.
    pub buffers: &'a [&'a Arc<GpuBuffer>],
    /// The parameter struct.
    pub params: &'a [u8],
    /// Workgroups.
    pub groups: [u32; 3],
    /// Multiply-adds, or elements where nothing is multiplied, about.
    pub work: u64,
}

#[derive(Debug)]
struct Command {
    pipeline: Arc<Pipeline>,
    bind_group: wgpu::BindGroup,
    offset: u32,
    groups: [u32; 3],
}

type BindKey = (u32, ArrayVec<u64, 8>);

#[derive(Debug)]
pub(crate) struct Recorder {
    pool: Pool<u64, GpuBuffer>,
    commands: Vec<Command>,
    params: Vec<u8>,
    ring: wgpu::Buffer,
    slot: usize,
    bind_groups: HashMap<BindKey, wgpu::BindGroup>,
    bind_groups_made: u64,
    dispatches: u64,
    /// Of the commands.
    work: u64,
    /// Bytes of uploads that wait for a submission in staging memory.
    staged: u64,
    /// The last submission, and the last one that uploads made.
    last: Option<wgpu::SubmissionIndex>,
    last_upload: Option<wgpu::SubmissionIndex>,
    next_id: u64,
    profile: Option<Profiler>,
}

/// Milliseconds that work on a GPU took; see [`Gpu::take_profile`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Profile {
    /// The GPU's own time, from the beginning of each pass to its end.
    pub gpu_ms: f64,
    /// The host's time for calls that name pipelines, bind groups and dispatches.
    pub calls_ms: f64,
    /// The host's time for closing command buffers: wgpu checks what was called and puts barriers between.
    pub finish_ms: f64,
    /// The host's time for handing them to the driver.
    pub submit_ms: f64,
}

impl Profile {
    /// The host's time in all.
    pub fn encode_ms(&self) -> f64 {
        self.calls_ms + self.finish_ms + self.submit_ms
    }
}

#[derive(Debug)]
struct Profiler {
    queries: wgpu::QuerySet,
    resolve: wgpu::Buffer,
    period_ns: f32,
    on: bool,
    /// Passes measured since profiling began, as staging buffers with two timestamps each.
    measured: Vec<wgpu::Buffer>,
    spent: Profile,
}

/// A copy of the beginning of a buffer to a staging buffer: source, target, bytes.
pub(super) type StagedCopy<'a> = (&'a GpuBuffer, &'a wgpu::Buffer, u64);

/// Dispatches between submissions.
const SLOTS: usize = 4096;
/// Bytes of uploads between submissions. As much again may be on its way to the device.
const STAGED_BYTES: usize = 64 << 20;
/// Bind groups kept; beyond that the cache starts over.
const MAX_BIND_GROUPS: usize = 4096;

impl Recorder {
    pub(crate) fn new(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        limits: &wgpu::Limits,
        features: wgpu::Features,
    ) -> Self {
        // 128 bytes hold the largest parameter struct.
        let slot = (limits.min_uniform_buffer_offset_alignment as usize).max(128);
        let ring = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("parameters"),
            size: (slot * SLOTS) as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let profile = features.contains(wgpu::Features::TIMESTAMP_QUERY).then(|| Profiler {
            queries: device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("pass times"),
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            }),
            resolve: device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("pass times"),
                size: 16,
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            }),
            period_ns: queue.get_timestamp_period(),
            on: false,
            measured: Vec::new(),
            spent: Profile::default(),
        });
        Self {
            pool: Pool::new(),
            commands: Vec::new(),
            params: Vec::new(),
            ring,
            slot,
            bind_groups: HashMap::new(),
            bind_groups_made: 0,
            dispatches: 0,
            work: 0,
            staged: 0,
            last: None,
            last_upload: None,
            next_id: 0,
            profile,
        }
    }

    pub(crate) fn trim(&mut self) {
        // Recorded commands hold their bind groups, so buffers they use outlive the pool's.
        self.bind_groups.clear();
        self.pool.trim(|b| b.raw.size());
    }

    pub(crate) fn buffers_made(&self) -> u64 {
        self.pool.made()
    }

    pub(crate) fn bind_groups_made(&self) -> u64 {
        self.bind_groups_made
    }

    pub(crate) fn dispatches_recorded(&self) -> u64 {
        self.dispatches
    }

    pub(crate) fn bytes_held(&self) -> u64 {
        self.pool.bytes()
    }
}

/// Sizes in steps of an eighth of a power of two: few classes, little waste.
fn size_class(bytes: u64) -> u64 {
    let bytes = bytes.max(256);
    bytes.next_multiple_of((bytes.next_power_of_two() / 8).clamp(256, 8 << 20))
}

impl Gpu {
    /// A buffer of at least `bytes` with unspecified contents.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub(crate) fn buffer(&self, bytes: u64, operation: &'static str) -> Result<Arc<GpuBuffer>> {
        self.buffer_where(bytes, operation, |_| true)
    }

    fn buffer_where(
        &self,
        bytes: u64,
        operation: &'static str,
        fits: impl Fn(&GpuBuffer) -> bool,
    ) -> Result<Arc<GpuBuffer>> {
        let limit = self.max_buffer_bytes();
        if bytes > limit {
            return Err(Error::TooLarge { operation, bytes, limit, device: self.summary().name.clone() });
        }
        self.check_alive()?;
        let class = size_class(bytes).min(limit & !3);
        let mut r = lock(&self.inner().recorder);
        if let Some(b) = r.pool.take(class, fits) {
            r.pool.put_back(class, b.clone());
            return Ok(b);
        }
        if r.pool.is_wasteful(|b| b.raw.size()) {
            r.trim();
        }
        let raw = match self.create_buffer(class, operation) {
            // What is idle may be what is missing.
            Err(Error::OutOfMemory { .. }) => {
                r.trim();
                self.create_buffer(class, operation)?
            }
            other => other?,
        };
        r.next_id += 1;
        let b = Arc::new(GpuBuffer { raw, device: self.inner().id, id: r.next_id, used: AtomicU64::new(0) });
        r.pool.put_new(class, b.clone(), class);
        Ok(b)
    }

    fn create_buffer(&self, size: u64, operation: &'static str) -> Result<wgpu::Buffer> {
        let device = &self.inner().device;
        let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let raw = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(operation),
            size,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let refused = pollster::block_on(validation.pop());
        if pollster::block_on(memory.pop()).is_some() {
            return Err(Error::OutOfMemory { operation, bytes: size, device: self.summary().name.clone() });
        }
        self.check_alive()?;
        match refused {
            Some(e) => Err(Error::Gpu { operation, message: e.to_string() }),
            None => Ok(raw),
        }
    }

    /// A buffer holding `data`.
    ///
    /// # Errors
    /// As [`Self::buffer`].
    pub(crate) fn upload(&self, data: &[u8], operation: &'static str) -> Result<Arc<GpuBuffer>> {
        // The write takes effect before everything that is recorded but not yet submitted, so the
        // buffer must be one that none of that uses.
        let pending = self.inner().epoch.load(Ordering::Relaxed) + 1;
        let b = self.buffer_where(data.len() as u64, operation, |b| b.used.load(Ordering::Relaxed) < pending)?;
        let whole = data.len() & !3;
        for (n, piece) in data[..whole].chunks(STAGED_BYTES).enumerate() {
            self.make_room_for(piece.len() as u64)?;
            self.inner().queue.write_buffer(&b.raw, (n * STAGED_BYTES) as u64, piece);
        }
        if whole < data.len() {
            let mut last = [0; 4];
            last[..data.len() - whole].copy_from_slice(&data[whole..]);
            self.inner().queue.write_buffer(&b.raw, whole as u64, &last);
        }
        Ok(b)
    }

    /// Keeps the staging memory of uploads small: submits what waits there if it has become much, and then waits
    /// until the device has what was submitted so before.
    fn make_room_for(&self, bytes: u64) -> Result<()> {
        let before = {
            let mut r = lock(&self.inner().recorder);
            if r.staged + bytes <= STAGED_BYTES as u64 {
                r.staged += bytes;
                return Ok(());
            }
            self.submit(&mut r, &[])?;
            r.staged = bytes;
            let last = r.last.clone();
            std::mem::replace(&mut r.last_upload, last)
        };
        match before {
            Some(index) => self.wait_for(Some(index)),
            None => Ok(()),
        }
    }

    /// See [`crate::kernel::GpuKernels`].
    pub(crate) fn record(&self, d: Dispatch<'_>) -> Result<()> {
        self.check_alive()?;
        self.check(&d)?;
        if d.groups.contains(&0) {
            return Ok(());
        }
        let mut r = lock(&self.inner().recorder);
        if r.commands.len() == SLOTS || (r.work > 0 && r.work.saturating_add(d.work) > self.max_work()) {
            self.submit(&mut r, &[])?;
        }
        r.work = r.work.saturating_add(d.work);
        let pending = self.inner().epoch.load(Ordering::Relaxed) + 1;
        for b in d.buffers {
            b.used.store(pending, Ordering::Relaxed);
        }
        let key: BindKey = (d.pipeline.id, d.buffers.iter().map(|b| b.id).collect());
        let bind_group = match r.bind_groups.get(&key) {
            Some(g) => g.clone(),
            None => {
                let made = self.bind(&r, &d);
                if r.bind_groups.len() >= MAX_BIND_GROUPS {
                    r.bind_groups.clear();
                }
                r.bind_groups_made += 1;
                r.bind_groups.insert(key, made.clone());
                made
            }
        };
        let offset = r.commands.len() * r.slot;
        r.params.resize(offset, 0);
        r.params.extend_from_slice(d.params);
        r.dispatches += 1;
        d.pipeline.recorded.fetch_add(1, Ordering::Relaxed);
        r.commands.push(Command { pipeline: d.pipeline.clone(), bind_group, offset: offset as u32, groups: d.groups });
        Ok(())
    }

    fn bind(&self, r: &Recorder, d: &Dispatch<'_>) -> wgpu::BindGroup {
        let mut entries = ArrayVec::<_, 9>::new();
        entries.push(wgpu::BindGroupEntry {
            binding: 0,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: &r.ring,
                offset: 0,
                size: wgpu::BufferSize::new(d.pipeline.params_size.into()),
            }),
        });
        for (binding, b) in (1..).zip(d.buffers) {
            entries.push(wgpu::BindGroupEntry { binding, resource: b.raw.as_entire_binding() });
        }
        self.inner().device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(d.pipeline.stem),
            layout: &d.pipeline.layout,
            entries: &entries,
        })
    }

    /// Submits what is recorded, followed by copies to staging buffers.
    pub(super) fn flush(&self, copies: &[StagedCopy<'_>]) -> Result<()> {
        self.check_alive()?;
        let mut r = lock(&self.inner().recorder);
        self.submit(&mut r, copies)
    }

    fn submit(&self, r: &mut Recorder, copies: &[StagedCopy<'_>]) -> Result<()> {
        if r.commands.is_empty() && copies.is_empty() && r.staged == 0 {
            return self.check_errors("submit");
        }
        let Recorder { commands, params, ring, profile, work, staged, last, .. } = r;
        let started = std::time::Instant::now();
        let inner = self.inner();
        let memory = inner.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = inner.device.push_error_scope(wgpu::ErrorFilter::Validation);
        if !params.is_empty() {
            inner.queue.write_buffer(ring, 0, params);
        }
        let mut encoder = inner.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let operation = commands.last().map_or("read", |c| c.pipeline.stem);
        if !commands.is_empty() {
            let profile = profile.as_mut().filter(|p| p.on);
            {
                let timestamp_writes = profile.as_ref().map(|p| wgpu::ComputePassTimestampWrites {
                    query_set: &p.queries,
                    beginning_of_pass_write_index: Some(0),
                    end_of_pass_write_index: Some(1),
                });
                let mut pass = encoder
                    .begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some("recurve"), timestamp_writes });
                let mut current = None;
                for c in commands.iter() {
                    if current != Some(c.pipeline.id) {
                        pass.set_pipeline(&c.pipeline.pipeline);
                        current = Some(c.pipeline.id);
                    }
                    pass.set_bind_group(0, &c.bind_group, &[c.offset]);
                    let [x, y, z] = c.groups;
                    pass.dispatch_workgroups(x, y, z);
                }
            }
            if let Some(p) = profile {
                let staging = inner.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("pass times"),
                    size: 16,
                    usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                    mapped_at_creation: false,
                });
                encoder.resolve_query_set(&p.queries, 0..2, &p.resolve, 0);
                encoder.copy_buffer_to_buffer(&p.resolve, 0, &staging, 0, 16);
                p.measured.push(staging);
            }
        }
        for (source, target, bytes) in copies {
            encoder.copy_buffer_to_buffer(&source.raw, 0, target, 0, *bytes);
        }
        let called = std::time::Instant::now();
        let buffer = encoder.finish();
        let finished = std::time::Instant::now();
        *last = Some(inner.queue.submit([buffer]));
        (*work, *staged) = (0, 0);
        if let Some(p) = profile.as_mut().filter(|p| p.on) {
            let ms = |from: std::time::Instant, to: std::time::Instant| (to - from).as_secs_f64() * 1e3;
            p.spent.calls_ms += ms(started, called);
            p.spent.finish_ms += ms(called, finished);
            p.spent.submit_ms += ms(finished, std::time::Instant::now());
        }
        inner.epoch.fetch_add(1, Ordering::Relaxed);
        commands.clear();
        params.clear();
        let refused = pollster::block_on(validation.pop());
        if pollster::block_on(memory.pop()).is_some() {
            return Err(Error::OutOfMemory { operation, bytes: 0, device: self.summary().name.clone() });
        }
        self.check_alive()?;
        if let Some(e) = refused {
            return Err(Error::Gpu { operation, message: e.to_string() });
        }
        self.check_errors(operation)
    }

    fn check_errors(&self, operation: &'static str) -> Result<()> {
        self.check_alive()?;
        match lock(&self.inner().uncaptured).take() {
            Some(message) => Err(Error::Gpu { operation, message }),
            None => Ok(()),
        }
    }

    /// Submits what is recorded and waits for it.
    pub(crate) fn synchronize(&self) -> Result<()> {
        self.flush(&[])?;
        self.wait()
    }

    /// Submits what is recorded without waiting, so that the device works while the host goes on.
    ///
    /// # Errors
    /// What was wrong with it.
    pub fn submit_recorded(&self) -> Result<()> {
        self.flush(&[])
    }

    pub(super) fn wait(&self) -> Result<()> {
        self.wait_for(None)
    }

    /// Waits for a submission, or for the last one.
    fn wait_for(&self, submission_index: Option<wgpu::SubmissionIndex>) -> Result<()> {
        let polled = self.inner().device.poll(wgpu::PollType::Wait { submission_index, timeout: None });
        self.check_alive()?;
        match polled {
            Ok(_) => Ok(()),
            Err(e) => Err(Error::Gpu { operation: "wait", message: e.to_string() }),
        }
    }

    /// Starts or stops measuring passes; see [`Self::take_profile`]. Returns false if the device
    /// cannot measure.
    pub fn set_profiling(&self, on: bool) -> bool {
        match &mut lock(&self.inner().recorder).profile {
            Some(p) => {
                p.on = on;
                true
            }
            None => false,
        }
    }

    /// The times since the last call, over everything submitted while profiling was on.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] or [`Error::Gpu`] if the times cannot be read.
    pub fn take_profile(&self) -> Result<Profile> {
        let (measured, period, mut spent) = match &mut lock(&self.inner().recorder).profile {
            Some(p) => (std::mem::take(&mut p.measured), p.period_ns, std::mem::take(&mut p.spent)),
            None => return Ok(Profile::default()),
        };
        for b in measured {
            let mut t = [0u64; 2];
            self.read_mapped(&b, 16, bytemuck::cast_slice_mut(&mut t))?;
            spent.gpu_ms += t[1].saturating_sub(t[0]) as f64 * f64::from(period) * 1e-6;
        }
        Ok(spent)
    }
}

#[cfg(test)]
mod tests {
    use super::size_class;

    #[test]
    fn size_classes_waste_little() {
        for bytes in [1, 4, 256, 257, 1000, 1 << 20, (1 << 20) + 4, (1 << 27) - 4, 1 << 27] {
            let c = size_class(bytes);
            assert!(c >= bytes && c.is_multiple_of(4));
            assert!(c <= bytes + bytes / 4 + 256, "{bytes} -> {c}");
            assert_eq!(size_class(c), c);
        }
    }
}
