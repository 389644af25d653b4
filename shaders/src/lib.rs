//! The shaders of Recurve as data: WGSL sources, the composer that specialises them, the host
//! structs of their parameters, and what naga reflects of them. There is no GPU API here, so all
//! of it is checked on any machine.

#![forbid(unsafe_code)]

mod cells;
mod compose;
pub mod params;
mod reach;
mod reflect;
mod registry;
mod variant;

pub use cells::Fused;
pub use compose::{ComposeError, Composed, Defines, Origin, Target, Value, compose};
pub use reach::{Bounds, Reach};
pub use reflect::{Binding, BindingKind, ReflectError, Reflection, reflect};
pub use registry::{SHADERS, Shader, snippet};
pub use variant::{
    CellCode, Element, General, Grid, Kept, MatmulTile, Pointwise, SampleStage, Scan, Step, Valid, Variant, samples,
};
