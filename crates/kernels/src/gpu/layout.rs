//! Strategies and their layouts.

use crate::Strategy;
use recurve_shaders::{Grid, Kept, Scan, Step};

/// A strategy with the layout of its workgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One workgroup per tile of rows runs the whole sequence.
    Scan(Scan),
    /// One dispatch per timestep.
    Step(Step),
    /// Workgroups that exchange h run the whole sequence.
    Grid(Grid),
    /// A strategy of cells that have only one layout for it.
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
                    Kept::Memory => "",
                    Kept::Registers => " registers",
                    Kept::Array => " array",
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
