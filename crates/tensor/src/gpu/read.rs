//! Reading back, blocking and async.

use super::{Gpu, GpuBuffer, lock};
use crate::{Error, Result};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// What a mapping's callback and the one who waits for it share.
#[derive(Default)]
struct Mapping {
    result: Option<Result<(), wgpu::BufferAsyncError>>,
    waker: Option<Waker>,
}

impl Gpu {
    /// Reads the beginning of a buffer, running everything recorded so far.
    ///
    /// # Errors
    /// Whatever went wrong in what was recorded, [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub(crate) fn read(&self, buffer: &GpuBuffer, out: &mut [u8]) -> Result<()> {
        self.read_many([(buffer, out)])
    }

    /// [`Self::read`] of several buffers in one submission.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn read_many<const N: usize>(&self, reads: [(&GpuBuffer, &mut [u8]); N]) -> Result<()> {
        let mut staged = arrayvec::ArrayVec::<_, N>::new();
        for (_, out) in &reads {
            staged.push(self.staging(out.len())?);
        }
        let copies: [_; N] = std::array::from_fn(|n| (reads[n].0, &*staged[n].0, staged[n].1));
        self.flush(&copies)?;
        for ((_, out), (staging, bytes)) in reads.into_iter().zip(staged) {
            self.read_mapped(&staging, bytes, out)?;
            self.recycle(staging);
        }
        Ok(())
    }

    /// [`Self::read`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) async fn read_async(&self, buffer: &GpuBuffer, out: &mut [u8]) -> Result<()> {
        let (staging, bytes) = self.staging(out.len())?;
        self.flush(&[(buffer, &staging, bytes)])?;
        let shared = map(&staging, bytes);
        // Somebody has to drive the device until the mapping is done; the executor need not.
        let device = self.inner().device.clone();
        std::thread::spawn(move || {
            let _ = device.poll(wgpu::PollType::wait_indefinitely());
        });
        Mapped(&shared).await;
        self.finish(&shared, &staging, bytes, out)?;
        self.recycle(staging);
        Ok(())
    }

    /// A staging buffer for this many bytes, and that number rounded up to what copies take.
    fn staging(&self, bytes: usize) -> Result<(Arc<wgpu::Buffer>, u64)> {
        self.check_alive()?;
        let bytes = (bytes as u64).next_multiple_of(4);
        let class = bytes.next_power_of_two().max(256);
        let taken = lock(&self.inner().staging).take(class, |_| true);
        let staging = match taken {
            Some(b) => b,
            None => {
                let memory = self.inner().device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
                let raw = self.inner().device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("read-back"),
                    size: class,
                    usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                    mapped_at_creation: false,
                });
                if pollster::block_on(memory.pop()).is_some() {
                    let device = self.summary().name.clone();
                    return Err(Error::OutOfMemory { operation: "read", bytes: class, device });
                }
                lock(&self.inner().staging).count_new(class);
                Arc::new(raw)
            }
        };
        Ok((staging, bytes))
    }

    fn recycle(&self, staging: Arc<wgpu::Buffer>) {
        lock(&self.inner().staging).put_back(staging.size(), staging);
    }

    pub(super) fn read_mapped(&self, staging: &wgpu::Buffer, bytes: u64, out: &mut [u8]) -> Result<()> {
        let shared = map(staging, bytes);
        self.wait()?;
        // Another thread that polls may have taken the callback over and not called it yet, so the
        // end of our own wait does not mean that it has run. It is about to: the work is done.
        let waited = Instant::now();
        while lock(&shared).result.is_none() && waited.elapsed() < Duration::from_secs(10) {
            self.wait()?;
            std::thread::yield_now();
        }
        self.finish(&shared, staging, bytes, out)
    }

    fn finish(&self, shared: &Mutex<Mapping>, staging: &wgpu::Buffer, bytes: u64, out: &mut [u8]) -> Result<()> {
        self.check_alive()?;
        let failed = |message: String| Error::Gpu { operation: "read", message };
        match lock(shared).result.take() {
            Some(Ok(())) => {}
            Some(Err(e)) => return Err(failed(e.to_string())),
            None => return Err(failed("the mapping did not complete".into())),
        }
        let view = staging.get_mapped_range(..bytes).map_err(|e| failed(e.to_string()))?;
        out.copy_from_slice(&view[..out.len()]);
        drop(view);
        staging.unmap();
        Ok(())
    }
}

fn map(staging: &wgpu::Buffer, bytes: u64) -> Arc<Mutex<Mapping>> {
    let shared = Arc::new(Mutex::new(Mapping::default()));
    let callback = shared.clone();
    staging.map_async(wgpu::MapMode::Read, ..bytes, move |result| {
        let mut m = lock(&callback);
        m.result = Some(result);
        if let Some(w) = m.waker.take() {
            w.wake();
        }
    });
    shared
}

struct Mapped<'a>(&'a Mutex<Mapping>);

impl Future for Mapped<'_> {
    type Output = ();
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut m = lock(self.0);
        if m.result.is_some() {
            return Poll::Ready(());
        }
        m.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
