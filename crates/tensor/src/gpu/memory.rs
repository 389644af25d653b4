//! GPU memory: the pool of buffers, uploads, and staging buffers for reading back.

use super::wait::Signal;
use super::{Gpu, lock};
use crate::pool::Pool;
use crate::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A buffer in GPU memory.
#[derive(Debug)]
pub struct GpuBuffer {
    pub(crate) raw: wgpu::Buffer,
    pub(super) device: u64,
    pub(super) id: u64,
    /// The number of the last submission that uses it.
    pub(super) used: AtomicU64,
}

impl GpuBuffer {
    /// Whether both are the same buffer.
    pub(super) fn is(&self, other: &Self) -> bool {
        (self.device, self.id) == (other.device, other.id)
    }
}

/// Largest size of uploads between two submissions, in bytes. Another such amount may be on its way to the device.
const STAGED_BYTES: usize = 64 << 20;

/// The pools of buffers, and the sizes of pending uploads.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) pool: Pool<u64, GpuBuffer>,
    next_id: u64,
    /// Size of the uploads in staging memory that wait for a submission, in bytes.
    pub(super) staged: u64,
    /// The last submission that was made because of uploads.
    last_upload: Option<wgpu::SubmissionIndex>,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self { pool: Pool::new(), next_id: 0, staged: 0, last_upload: None }
    }
}

/// Rounds a size up to a multiple of an eighth of a power of two, which gives few size classes and wastes little.
fn size_class(bytes: u64) -> u64 {
    let bytes = bytes.max(256);
    bytes.next_multiple_of((bytes.next_power_of_two() / 8).clamp(256, 8 << 20))
}

impl Gpu {
    /// Limits the memory of this device's tensors, in bytes, including memory that is kept for reuse. An operation that
    /// would exceed the limit returns [`Error::OutOfMemory`]; tensors that exist stay. `None`, as at first, leaves the
    /// limit to the driver; some drivers move memory to the host, which is slow, before they refuse any. Memory for
    /// uploads and for reading back does not count.
    pub fn set_memory_limit(&self, bytes: Option<u64>) {
        self.inner().memory_limit.store(bytes.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The limit of [`Self::set_memory_limit`].
    pub fn memory_limit(&self) -> Option<u64> {
        Some(self.inner().memory_limit.load(Ordering::Relaxed)).filter(|&limit| limit < u64::MAX)
    }

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
        if let Some(b) = r.memory.pool.take(class, fits) {
            r.memory.pool.put_back(class, b.clone());
            return Ok(b);
        }
        if r.memory.pool.is_wasteful(|b| b.raw.size()) {
            r.trim();
        }
        let raw = match self.create_buffer(class, r.memory.pool.bytes(), operation) {
            // Unused buffers may be enough for a second attempt. Their memory is free once the commands that use them
            // have run.
            Err(Error::OutOfMemory { .. }) => {
                r.trim();
                self.submit(&mut r, &[])?;
                let last = r.engine.last.clone();
                drop(r);
                last.map_or(Ok(()), |index| self.wait_for(index))?;
                r = lock(&self.inner().recorder);
                self.create_buffer(class, r.memory.pool.bytes(), operation)?
            }
            other => other?,
        };
        r.memory.next_id += 1;
        let b = Arc::new(GpuBuffer { raw, device: self.inner().id, id: r.memory.next_id, used: AtomicU64::new(0) });
        r.memory.pool.put_new(class, b.clone(), class);
        Ok(b)
    }

    /// A new buffer beside those of the pool, which have `held` bytes.
    fn create_buffer(&self, size: u64, held: u64, operation: &'static str) -> Result<wgpu::Buffer> {
        let limit = self.memory_limit();
        let lack = || {
            let device = self.summary().name.clone();
            Err(Error::OutOfMemory { operation, bytes: size, in_use: held, limit, device })
        };
        if limit.is_some_and(|limit| held.saturating_add(size) > limit) {
            return lack();
        }
        let device = &self.inner().device;
        let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let raw = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(operation),
            size,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let refused = self.caught(operation, validation);
        if self.caught(operation, memory).is_some() {
            return lack();
        }
        self.check_alive()?;
        match refused {
            Some(e) => Err(Error::Gpu { operation, message: e.to_string() }),
            None => Ok(raw),
        }
    }

    /// A buffer with the contents `data`. Waits for earlier uploads if too many bytes of them are pending.
    ///
    /// # Errors
    /// As [`Self::buffer`].
    pub(crate) fn upload(&self, data: &[u8], operation: &'static str) -> Result<Arc<GpuBuffer>> {
        // The write takes effect before all commands that are recorded but not submitted, so it must not go to a buffer
        // that they use.
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

    /// Limits the staging memory of uploads: if `bytes` more would exceed the limit, submits the pending ones, and
    /// waits for those of the previous such submission.
    fn make_room_for(&self, bytes: u64) -> Result<()> {
        let before = {
            let mut r = lock(&self.inner().recorder);
            if r.memory.staged + bytes <= STAGED_BYTES as u64 {
                r.memory.staged += bytes;
                return Ok(());
            }
            self.submit(&mut r, &[])?;
            r.memory.staged = bytes;
            let last = r.engine.last.clone();
            std::mem::replace(&mut r.memory.last_upload, last)
        };
        match before {
            Some(index) => self.wait_for(index),
            None => Ok(()),
        }
    }
}

/// A staging buffer for reading back, which returns to the pool when dropped.
#[derive(Debug)]
pub(super) struct Staging<'a> {
    gpu: &'a Gpu,
    pub(super) buffer: Arc<wgpu::Buffer>,
    /// Number of bytes to read, rounded up to the alignment of copies.
    pub(super) bytes: u64,
    /// The request to map the buffer, once it has been made.
    pub(super) mapping: Option<Signal>,
}

impl Gpu {
    /// A staging buffer of this size.
    pub(super) fn staging(&self, bytes: usize) -> Result<Staging<'_>> {
        const OPERATION: &str = "read";
        self.check_alive()?;
        let bytes = (bytes as u64).next_multiple_of(4);
        let class = bytes.next_power_of_two().max(256);
        let taken = lock(&self.inner().staging).take(class, |_| true);
        let buffer = match taken {
            Some(b) => b,
            None => {
                let memory = self.inner().device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
                let raw = self.inner().device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("read-back"),
                    size: class,
                    usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                    mapped_at_creation: false,
                });
                if self.caught(OPERATION, memory).is_some() {
                    return Err(Error::memory(OPERATION, class, &*self.summary().name));
                }
                lock(&self.inner().staging).count_new(class);
                Arc::new(raw)
            }
        };
        Ok(Staging { gpu: self, buffer, bytes, mapping: None })
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        let mut pool = lock(&self.gpu.inner().staging);
        let class = self.buffer.size();
        match &self.mapping {
            None => pool.put_back(class, self.buffer.clone()),
            Some(m) if m.succeeded() => {
                self.buffer.unmap();
                pool.put_back(class, self.buffer.clone());
            }
            // Mapping failed, or is still pending because its future was dropped: such a buffer cannot be reused.
            Some(_) => pool.count_lost(class),
        }
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
