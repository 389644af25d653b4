//! Recurve's shaders as data: WGSL sources, the composer that specialises them, host structs of their parameters, and
//! their reflection by naga. This crate uses no GPU API, so everything in it can be tested on any machine.

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
    CellCode, DirectTile, Element, General, Grid, Kept, MatmulTile, Pointwise, SampleStage, Scan, Step, TrainScan,
    Training, Valid, Variant, samples,
};
