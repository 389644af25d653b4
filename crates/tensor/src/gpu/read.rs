//! Reading back. Written once, as futures; the blocking functions run them with [`Gpu::block_on`].

use super::memory::Staging;
use super::wait::Signal;
use super::{Gpu, GpuBuffer};
use crate::{Error, Result};
use arrayvec::ArrayVec;

impl Gpu {
    /// Reads the start of a buffer, after running all recorded commands.
    ///
    /// # Errors
    /// As [`Self::read_async`].
    pub(crate) fn read(&self, buffer: &GpuBuffer, out: &mut [u8]) -> Result<()> {
        self.block_on(self.read_async([(buffer, out)]))
    }

    /// Reads the start of each buffer in one submission, after running all recorded commands.
    ///
    /// # Errors
    /// Errors of the recorded commands, [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub(crate) async fn read_async<const N: usize>(&self, reads: [(&GpuBuffer, &mut [u8]); N]) -> Result<()> {
        let mut staged = ArrayVec::<Staging<'_>, N>::new();
        for (_, out) in &reads {
            staged.push(self.staging(out.len())?);
        }
        let copies: [_; N] = std::array::from_fn(|n| (reads[n].0, &*staged[n].buffer, staged[n].bytes));
        self.flush(&copies)?;
        staged.iter_mut().for_each(|s| s.mapping = Some(map(&s.buffer, s.bytes)));
        for ((_, out), s) in reads.into_iter().zip(&staged) {
            let mapping = s.mapping.as_ref().expect("mapped above");
            self.copy_mapped(&s.buffer, s.bytes, mapping, out).await?;
        }
        self.late_errors().await
    }

    /// Reads the first bytes of a buffer that can be mapped and does not belong to the pool.
    pub(super) async fn read_mappable(&self, buffer: &wgpu::Buffer, out: &mut [u8]) -> Result<()> {
        let bytes = out.len() as u64;
        self.copy_mapped(buffer, bytes, &map(buffer, bytes), out).await
    }

    async fn copy_mapped(&self, buffer: &wgpu::Buffer, bytes: u64, mapping: &Signal, out: &mut [u8]) -> Result<()> {
        const OPERATION: &str = "read";
        self.wait(mapping, OPERATION).await?;
        let failed = |e: wgpu::MapRangeError| Error::Gpu { operation: OPERATION, message: e.to_string() };
        let view = buffer.get_mapped_range(..bytes).map_err(failed)?;
        out.copy_from_slice(&view[..out.len()]);
        Ok(())
    }
}

fn map(buffer: &wgpu::Buffer, bytes: u64) -> Signal {
    let mapped = Signal::default();
    let callback = mapped.clone();
    buffer.map_async(wgpu::MapMode::Read, ..bytes, move |result| callback.complete(result.map_err(|e| e.to_string())));
    mapped
}
