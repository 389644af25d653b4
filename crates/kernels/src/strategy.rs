//! The ways in which a GPU runs a layer.

use crate::recurrent::LayerId;

/// How a GPU runs the recurrence. Results agree within the bounds of the kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
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

/// A strategy with its layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One workgroup a tile of rows.
    Scan(recurve_shaders::Scan),
    /// A dispatch a step.
    Step(recurve_shaders::Step),
    /// Workgroups that exchange h.
    Grid(recurve_shaders::Grid),
    /// The one layout of a strategy, for the cells that have no other.
    Other(Strategy),
}

impl Layout {
    pub(crate) const fn strategy(&self) -> Strategy {
        match self {
            Self::Scan(_) => Strategy::Scan,
            Self::Step(_) => Strategy::Step,
            Self::Grid(_) => Strategy::Grid,
            Self::Other(s) => *s,
        }
    }
}

impl core::fmt::Display for Layout {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.strategy().name())?;
        match self {
            Self::Scan(s) => {
                write!(f, " rows {} split {}", s.batch_tile, s.k_split)?;
                f.write_str(if s.k_split > 1 && s.subgroups { " subgroups" } else { "" })?;
                f.write_str(match s.kept {
                    recurve_shaders::Kept::Memory => "",
                    recurve_shaders::Kept::Registers => " registers",
                    recurve_shaders::Kept::Array => " array",
                })
            }
            Self::Step(s) => write!(f, " rows {} units {} split {}", s.batch_tile, s.unit_tile, s.k_split),
            Self::Grid(g) => {
                write!(f, " rows {} units {} split {}", g.batch_tile, g.unit_tile, g.k_split)?;
                f.write_str(if g.registers { " registers" } else { "" })
            }
            Self::Other(_) => Ok(()),
        }
    }
}
