//! Encoding and submitting recorded commands, and measuring their time.
//!
//! All commands become one pass of one submission. Their parameters are written to one uniform buffer once per
//! submission and addressed by dynamic offsets, so that a dispatch needs neither a buffer nor a bind group of its own.

use super::recording::SLOTS;
use super::wait::Signal;
use super::{Dispatch, Gpu, GpuBuffer, Recorder, lock};
use crate::{Error, Result};
use arrayvec::ArrayVec;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// The bind group of a pipeline and its buffers.
#[derive(Clone, Debug)]
pub(super) struct Bound(wgpu::BindGroup);

type BindKey = (u32, ArrayVec<u64, 8>);

#[derive(Debug)]
pub(super) struct Engine {
    ring: wgpu::Buffer,
    bind_groups: HashMap<BindKey, Bound>,
    bind_groups_made: u64,
    /// The last submission.
    pub(super) last: Option<wgpu::SubmissionIndex>,
    profile: Option<Profiler>,
}

/// The time, in milliseconds, that work on a GPU took; see [`Gpu::take_profile`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Profile {
    /// Time on the GPU, from the start of each pass to its end.
    pub gpu_ms: f64,
    /// Time on the host for setting pipelines and bind groups and for encoding dispatches.
    pub calls_ms: f64,
    /// Time on the host for finishing command buffers, in which wgpu validates the commands and adds barriers.
    pub finish_ms: f64,
    /// Time on the host for submitting command buffers to the driver.
    pub submit_ms: f64,
}

impl Profile {
    /// Total time on the host.
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
    /// The passes measured since profiling began: a staging buffer with two timestamps for each.
    measured: Vec<wgpu::Buffer>,
    spent: Profile,
}

/// A copy from the start of a buffer to a staging buffer: source, target, number of bytes.
pub(super) type StagedCopy<'a> = (&'a GpuBuffer, &'a wgpu::Buffer, u64);

/// Largest number of cached bind groups; when it is exceeded, the cache is emptied.
const MAX_BIND_GROUPS: usize = 4096;

impl Engine {
    /// `slot` is the distance between the parameters of two commands, in bytes.
    pub(super) fn new(device: &wgpu::Device, queue: &wgpu::Queue, slot: usize, features: wgpu::Features) -> Self {
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
        Self { ring, bind_groups: HashMap::new(), bind_groups_made: 0, last: None, profile }
    }

    /// Drops all cached bind groups, which keep their buffers alive. Recorded commands keep their own.
    pub(super) fn forget_bind_groups(&mut self) {
        self.bind_groups.clear();
    }

    pub(super) fn bind_groups_made(&self) -> u64 {
        self.bind_groups_made
    }

    /// The bind group of a dispatch, made on first use.
    fn bound(&mut self, device: &wgpu::Device, d: &Dispatch<'_>) -> Bound {
        let key: BindKey = (d.pipeline.id, d.buffers.iter().map(|b| b.id).collect());
        if let Some(bound) = self.bind_groups.get(&key) {
            return bound.clone();
        }
        let mut entries = ArrayVec::<_, 9>::new();
        entries.push(wgpu::BindGroupEntry {
            binding: 0,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: &self.ring,
                offset: 0,
                size: wgpu::BufferSize::new(d.pipeline.params_size.into()),
            }),
        });
        for (binding, b) in (1..).zip(d.buffers) {
            entries.push(wgpu::BindGroupEntry { binding, resource: b.raw.as_entire_binding() });
        }
        let made = Bound(device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(d.pipeline.stem),
            layout: &d.pipeline.layout,
            entries: &entries,
        }));
        if self.bind_groups.len() >= MAX_BIND_GROUPS {
            self.bind_groups.clear();
        }
        self.bind_groups_made += 1;
        self.bind_groups.insert(key, made.clone());
        made
    }
}

impl Gpu {
    /// See [`crate::kernel::GpuKernels`].
    pub(crate) fn record(&self, d: Dispatch<'_>) -> Result<()> {
        self.check_alive()?;
        self.check(&d)?;
        if d.groups.contains(&0) {
            return Ok(());
        }
        let mut r = lock(&self.inner().recorder);
        if r.recording.is_full_for(d.work, self.max_work()) {
            self.submit(&mut r, &[])?;
        }
        let pending = self.inner().epoch.load(Ordering::Relaxed) + 1;
        for b in d.buffers {
            b.used.store(pending, Ordering::Relaxed);
        }
        let bound = r.engine.bound(&self.inner().device, &d);
        r.recording.push(&d, bound);
        Ok(())
    }

    /// Submits the recorded commands, followed by copies to staging buffers.
    pub(super) fn flush(&self, copies: &[StagedCopy<'_>]) -> Result<()> {
        self.check_alive()?;
        let mut r = lock(&self.inner().recorder);
        self.submit(&mut r, copies)
    }

    pub(super) fn submit(&self, r: &mut Recorder, copies: &[StagedCopy<'_>]) -> Result<()> {
        let Recorder { memory, recording, engine } = r;
        if recording.commands().is_empty() && copies.is_empty() && memory.staged == 0 {
            return self.check_errors("submit");
        }
        let commands = recording.commands();
        let measured = engine.profile.as_ref().is_some_and(|p| p.on);
        // A browser has no clock here, so it is read only while measuring.
        let clock = || measured.then(Instant::now);
        let started = clock();
        let inner = self.inner();
        let starved = inner.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = inner.device.push_error_scope(wgpu::ErrorFilter::Validation);
        if !recording.params().is_empty() {
            inner.queue.write_buffer(&engine.ring, 0, recording.params());
        }
        let mut encoder = inner.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let operation = commands.last().map_or("read", |c| c.pipeline.stem);
        if !commands.is_empty() {
            let profile = engine.profile.as_mut().filter(|p| p.on);
            {
                let timestamp_writes = profile.as_ref().map(|p| wgpu::ComputePassTimestampWrites {
                    query_set: &p.queries,
                    beginning_of_pass_write_index: Some(0),
                    end_of_pass_write_index: Some(1),
                });
                let mut pass = encoder
                    .begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some("recurve"), timestamp_writes });
                let mut current = None;
                for c in commands {
                    if current != Some(c.pipeline.id) {
                        pass.set_pipeline(&c.pipeline.pipeline);
                        current = Some(c.pipeline.id);
                    }
                    pass.set_bind_group(0, &c.bound.0, &[c.offset]);
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
        let called = clock();
        let buffer = encoder.finish();
        let finished = clock();
        engine.last = Some(inner.queue.submit([buffer]));
        memory.staged = 0;
        if let (Some(p), Some(started), Some(called), Some(finished)) = (&mut engine.profile, started, called, finished)
        {
            let ms = |from: Instant, to: Instant| (to - from).as_secs_f64() * 1e3;
            p.spent.calls_ms += ms(started, called);
            p.spent.finish_ms += ms(called, finished);
            p.spent.submit_ms += ms(finished, Instant::now());
        }
        inner.epoch.fetch_add(1, Ordering::Relaxed);
        recording.clear();
        let refused = self.caught(operation, validation);
        if self.caught(operation, starved).is_some() {
            return Err(Error::memory(operation, 0, &*self.summary().name));
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

    /// Submits the recorded commands and resolves when they have run.
    pub(crate) async fn synchronize_async(&self) -> Result<()> {
        self.flush(&[])?;
        let done = Signal::default();
        let callback = done.clone();
        self.inner().queue.on_submitted_work_done(move || callback.complete(Ok(())));
        self.wait(&done, "wait").await?;
        self.late_errors().await
    }

    /// Submits the recorded commands without waiting, so that the GPU works while the host continues.
    ///
    /// # Errors
    /// Errors of the recorded commands.
    pub fn submit_recorded(&self) -> Result<()> {
        self.flush(&[])
    }

    /// Waits for a submission. In a browser, which cannot block, it returns at once.
    pub(super) fn wait_for(&self, submission: wgpu::SubmissionIndex) -> Result<()> {
        let submission_index = Some(submission);
        let polled = self.inner().device.poll(wgpu::PollType::Wait { submission_index, timeout: None });
        self.check_alive()?;
        match polled {
            Ok(_) => Ok(()),
            Err(e) => Err(Error::Gpu { operation: "wait", message: e.to_string() }),
        }
    }

    /// Starts or stops measuring passes; see [`Self::take_profile`]. Returns false if the device cannot measure time.
    pub fn set_profiling(&self, on: bool) -> bool {
        match &mut lock(&self.inner().recorder).engine.profile {
            Some(p) => {
                p.on = on;
                true
            }
            None => false,
        }
    }

    /// The times of everything submitted while profiling was on, since the last call.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] or [`Error::Gpu`] if the times cannot be read.
    pub fn take_profile(&self) -> Result<Profile> {
        let (measured, period, mut spent) = match &mut lock(&self.inner().recorder).engine.profile {
            Some(p) => (std::mem::take(&mut p.measured), p.period_ns, std::mem::take(&mut p.spent)),
            None => return Ok(Profile::default()),
        };
        for b in measured {
            let mut t = [0u64; 2];
            self.block_on(self.read_mappable(&b, bytemuck::cast_slice_mut(&mut t)))?;
            spent.gpu_ms += t[1].saturating_sub(t[0]) as f64 * f64::from(period) * 1e-6;
        }
        Ok(spent)
    }
}
