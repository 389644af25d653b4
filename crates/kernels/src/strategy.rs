//! The ways in which a GPU runs a layer.

use crate::gpu::Layout;
use crate::recurrent::LayerId;

/// How a GPU runs the recurrence. Results agree within the bounds of the kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// What [`crate::Recurrent::tune`] found for this shape, else by a rule from the shape and the adapter.
    #[default]
    Auto,
    /// The whole sequence in one dispatch (more where the device limits loops): h in workgroup
    /// memory, one workgroup per tile of batch rows and direction. For small and middling H. The
    /// minimal cells compose their steps instead, in a depth of O(log T).
    Scan,
    /// One dispatch per timestep over tiles of hidden units, batch rows and directions. For large H
    /// and large batches.
    Step,
    /// The whole sequence in one dispatch of several workgroups, each with its own hidden units, that
    /// exchange h through memory after every step. No API promises that they run at the same time: it is
    /// refused where more would be needed than a probe saw run together. They wait a bounded time, and if in vain
    /// the same call ends by `step`, with the right result, and later ones that need as many are refused. A call
    /// waits for the device. Never chosen by the default rule, but by [`crate::Recurrent::tune`].
    Grid,
}

impl Strategy {
    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Scan => "scan",
            Self::Step => "step",
            Self::Grid => "grid",
        }
    }
}

/// One way to run a layer at some shape on a GPU: a strategy with a layout, as [`crate::Recurrent::candidates`] lists
/// them. They differ in speed only; their results agree within the bounds of the kernels.
///
/// A candidate belongs to the layer and the shape it was listed for, and is refused by every other.
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

/// The strategy and what distinguishes its layouts, like `scan rows 1 split 4 subgroups registers`.
impl core::fmt::Display for Candidate {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.layout.fmt(f)
    }
}
