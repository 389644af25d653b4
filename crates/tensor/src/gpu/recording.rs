//! What is recorded and not yet submitted, as plain data.
//!
//! A dispatch is kept until something is read, as many have gathered as there are slots for parameters, or as
//! much work as a device may be given at once. Nothing here calls the device.

use super::engine::Bound;
use super::{GpuBuffer, Pipeline};
use std::sync::Arc;
use std::sync::atomic::Ordering;

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

/// A recorded dispatch. It holds what it binds, but no reference that the pool counts: a buffer may be handed
/// out again at once, because commands run in the order of recording.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) bound: Bound,
    /// Of its parameters in the ring.
    pub(super) offset: u32,
    pub(super) groups: [u32; 3],
}

/// Dispatches between submissions.
pub(super) const SLOTS: usize = 4096;

/// Commands with their parameters, one slot each.
#[derive(Debug)]
pub(super) struct Recording {
    commands: Vec<Command>,
    params: Vec<u8>,
    /// Bytes from one command's parameters to the next one's.
    slot: usize,
    /// Multiply-adds of the commands.
    work: u64,
    /// Dispatches since the device was opened.
    dispatches: u64,
}

impl Recording {
    pub(super) fn new(slot: usize) -> Self {
        Self { commands: Vec::new(), params: Vec::new(), slot, work: 0, dispatches: 0 }
    }

    /// Whether a dispatch of so much work has to wait until the others are submitted.
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

    /// The parameters of all commands, as the ring is to hold them.
    pub(super) fn params(&self) -> &[u8] {
        &self.params
    }

    /// Forgets the commands, which have been submitted.
    pub(super) fn clear(&mut self) {
        self.commands.clear();
        self.params.clear();
        self.work = 0;
    }

    pub(super) fn dispatches(&self) -> u64 {
        self.dispatches
    }
}
