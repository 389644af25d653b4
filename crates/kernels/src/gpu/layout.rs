//! Strategies with their geometry.

use crate::Strategy;
use recurve_shaders::{Grid, Kept, Scan, Step};

/// A strategy with its layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One workgroup a tile of rows.
    Scan(Scan),
    /// A dispatch a step.
    Step(Step),
    /// Workgroups that exchange h.
    Grid(Grid),
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
