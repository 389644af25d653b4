//! Commands that are recorded and not yet submitted, as plain data.
//!
//! Commands are kept until something is read, until all slots for parameters are used, or until they are as much work
//! as one submission may be. Nothing here calls the device.

use super::engine::Bound;
use super::{GpuBuffer, Pipeline};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// One dispatch of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Dispatch<'a> {
    /// The kernel.
    pub pipeline: &'a Arc<Pipeline>,
    /// The buffers for bindings 1, 2, …. A buffer that is written may not appear twice.
    pub buffers: &'a [&'a Arc<GpuBuffer>],
    /// The bytes of the parameter struct.
    pub params: &'a [u8],
    /// Number of workgroups in each dimension.
    pub groups: [u32; 3],
    /// Approximate number of multiply-adds, or of elements where nothing is multiplied.
    pub work: u64,
}

/// A recorded dispatch. It keeps its buffers alive through its bind group, which the pool does not count as a use: a
/// buffer may be reused at once, because commands run in the order of recording.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) bound: Bound,
    /// Offset of its parameters in the uniform buffer, in bytes.
    pub(super) offset: u32,
    pub(super) groups: [u32; 3],
}

/// Largest number of dispatches between submissions.
pub(super) const SLOTS: usize = 4096;

/// Commands and their parameters, one slot each.
#[derive(Debug)]
pub(super) struct Recording {
    commands: Vec<Command>,
    params: Vec<u8>,
    /// Distance between the parameters of two commands, in bytes.
    slot: usize,
    /// Multiply-adds of all recorded commands.
    work: u64,
    /// Number of dispatches since the device was opened.
    dispatches: u64,
}

impl Recording {
    pub(super) fn new(slot: usize) -> Self {
        Self { commands: Vec::new(), params: Vec::new(), slot, work: 0, dispatches: 0 }
    }

    /// Whether the recorded commands must be submitted before a dispatch of this much work is added.
    pub(super) fn is_full_for(&self, work: u64, max_work: u64) -> bool {
        self.commands.len() == SLOTS || (self.work > 0 && self.work.saturating_add(work) > max_work)
    }

    pub(super) fn push(&mut self, d: &Dispatch<'_>, bound: Bound) {
        let offset = self.commands.len() * self.slot;
        self.params.resize(offset, 0);
        self.params.extend_from_slice(d.params);
        self.work = self.work.saturating_add(d.work);
        self.dispatches += 1;
        d.pipeline.recorded.fetch_add(1, Ordering::Relaxed);
        let (pipeline, offset) = (d.pipeline.clone(), offset as u32);
        self.commands.push(Command { pipeline, bound, offset, groups: d.groups });
    }

    pub(super) fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// The parameters of all commands, as they are written to the uniform buffer.
    pub(super) fn params(&self) -> &[u8] {
        &self.params
    }

    /// Removes all commands after they have been submitted.
    pub(super) fn clear(&mut self) {
        self.commands.clear();
        self.params.clear();
        self.work = 0;
    }

    pub(super) fn dispatches(&self) -> u64 {
        self.dispatches
    }
}
