//! The ways in which a GPU runs a layer.

use crate::gpu::Layout;
use crate::recurrent::LayerId;

/// How a GPU runs the recurrence. All strategies give the same results within the error bounds of the kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// The strategy that [`crate::Recurrent::tune`] found for this shape, else a default that depends on shape and
    /// adapter.
    #[default]
    Auto,
    /// The whole sequence in one dispatch (several where the device limits loops): one workgroup per tile of batch rows
    /// and direction, with h in workgroup memory. For small and medium H. For the minimal cells it is a parallel scan
    /// of depth O(log T).
    Scan,
    /// One dispatch per timestep over tiles of hidden units, batch rows and directions. For large H
    /// and large batches.
    Step,
    /// The whole sequence in one dispatch of several workgroups, each with its own hidden units, which exchange h
    /// through memory after every timestep.
    ///
    /// No GPU API guarantees that workgroups run at the same time, so this is refused if it needs more than a probe saw
    /// run at the same time. If they still wait in vain, they stop after a limited time, the same call is computed by
    /// `step`, and later calls that need as many workgroups are refused. A call waits for the device.
    /// [`Strategy::Auto`] uses it only after [`crate::Recurrent::tune`] found it to be the fastest.
    Grid,
}

impl Strategy {
    /// The name in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Scan => "scan",
            Self::Step => "step",
            Self::Grid => "grid",
        }
    }
}

/// One way to run a layer at some shape on a GPU: a strategy and its layout, from [`crate::Recurrent::candidates`].
/// Candidates differ only in speed; their results agree within the error bounds of the kernels.
///
/// A candidate is tied to the layer and the shape for which it was listed; a call of another layer or shape refuses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub(crate) layout: Layout,
    pub(crate) layer: LayerId,
    pub(crate) batch: usize,
    pub(crate) timesteps: usize,
}

impl Candidate {
    /// Its strategy.
    pub const fn strategy(&self) -> Strategy {
        self.layout.strategy()
    }
}

/// Shows the strategy and what distinguishes its layouts, such as `scan rows 1 split 4 subgroups registers`.
impl core::fmt::Display for Candidate {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.layout.fmt(f)
    }
}
