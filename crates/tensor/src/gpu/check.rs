//! Checks of a dispatch before it is recorded.

use super::{Dispatch, Gpu};
use crate::{Error, Result};

impl Gpu {
    /// Returns an error unless a dispatch stays inside its buffers. Kernels index without checks, and this makes that
    /// sound.
    pub(super) fn check(&self, d: &Dispatch<'_>) -> Result<()> {
        let p = d.pipeline;
        let refuse = |message: String| Err(Error::Argument { operation: p.stem, argument: "dispatch", message });
        let limit = self.max_workgroups();
        if let Some(&workgroups) = d.groups.iter().find(|&&n| n > limit) {
            let device = self.summary().name.clone();
            return Err(Error::Workgroups { operation: p.stem, workgroups: workgroups.into(), limit, device });
        }
        if p.device != self.inner().id || d.buffers.iter().any(|b| b.device != self.inner().id) {
            return Err(Error::Device {
                operation: p.stem,
                argument: "dispatch",
                expected: self.summary().name.clone(),
                got: "another device".into(),
            });
        }
        if d.params.len() != p.params_size as usize || d.buffers.len() != p.writes.len() {
            return refuse(format!("has {} bytes of parameters and {} buffers", d.params.len(), d.buffers.len()));
        }
        // A kernel may assume that the buffer it writes is not one that it reads.
        for (n, b) in d.buffers.iter().enumerate() {
            let again = d.buffers[..n].iter().zip(&p.writes).any(|(o, &w)| o.is(b) && (w || p.writes[n]));
            if again {
                return refuse(format!("writes its buffer {n}, which it binds twice"));
            }
        }
        let reach = match p.bounds.reach(d.params, d.groups) {
            Ok(reach) => reach,
            Err(what) => return refuse(format!("has {what}")),
        };
        for (n, (b, reach)) in d.buffers.iter().zip(reach).enumerate() {
            if reach > b.raw.size() {
                return refuse(format!("reaches {reach} bytes into its buffer {n}, which has {}", b.raw.size()));
            }
        }
        Ok(())
    }
}
