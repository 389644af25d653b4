//! Every kernel and every shared snippet, by the stem of its file.

macro_rules! registry {
    ($($(#[$doc:meta])* $name:ident = $stem:literal),* $(,)?) => {
        /// A kernel: one WGSL file with the entry point `main`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Shader {
            $($(#[$doc])* $name),*
        }

        /// Every kernel.
        pub const SHADERS: &[Shader] = &[$(Shader::$name),*];

        impl Shader {
            /// The stem of the kernel's file, shared by its host code, test and bench.
            pub const fn stem(self) -> &'static str {
                match self { $(Self::$name => $stem),* }
            }

            /// The kernel's source, before composition.
            pub const fn source(self) -> &'static str {
                match self { $(Self::$name => include_str!(concat!("../wgsl/", $stem, ".wgsl"))),* }
            }
        }
    };
}

registry! {
    /// Elementwise arithmetic with broadcasting.
    Binary = "binary",
    /// Strided copy.
    Copy = "copy",
    /// One value everywhere.
    Fill = "fill",
    /// Rows of a table by id.
    Gather = "gather",
    /// A whole sequence of a cell with layer normalization or a projection.
    GeneralScan = "general_scan",
    /// One timestep of a cell with layer normalization or a projection, behind its product.
    GeneralStep = "general_step",
    /// A whole sequence by workgroups that exchange h.
    Grid = "grid",
    /// Whether workgroups of a dispatch run at the same time.
    GridProbe = "grid_probe",
    /// Layer normalization over the last axis.
    LayerNorm = "layer_norm",
    /// Composed prefixes handed down to the steps of a minimal cell.
    LinearCarry = "linear_carry",
    /// Prefixes of the linear maps of a minimal cell's steps.
    LinearScan = "linear_scan",
    /// Counts executed loop iterations.
    LoopProbe = "loop_probe",
    /// Rows that differ from a value.
    Mask = "mask",
    /// Matrix product.
    Matmul = "matmul",
    /// Matrix product with few rows.
    Matvec = "matvec",
    /// Multiply-adds or reads, as fast as they go.
    Peak = "peak",
    /// Cells whose units do not read each other, a step after the other.
    PointwiseScan = "pointwise_scan",
    /// Reduction over one axis.
    Reduce = "reduce",
    /// A token a row out of logits.
    Sample = "sample",
    /// A whole sequence.
    Scan = "scan",
    /// Softmax over the last axis.
    Softmax = "softmax",
    /// One wave through stacked layers.
    StackWave = "stack_wave",
    /// One timestep.
    Step = "step",
    /// Whether neighbouring lanes are neighbours in their subgroup.
    SubgroupProbe = "subgroup_probe",
    /// Activations and conversion.
    Unary = "unary",
}

macro_rules! snippets {
    ($($folder:literal: $($name:literal),* $(,)?;)*) => {
        /// The snippet that `#import NAME` names: its name and its text.
        pub fn snippet(name: &str) -> Option<(&'static str, &'static str)> {
            match name {
                $($($name => Some(($name, include_str!(concat!("../wgsl/", $folder, "/", $name, ".wgsl")))),)*)*
                _ => None,
            }
        }
    };
}

snippets!(
    "cells":
    "gru",
    "lstm",
    "rnn",
    "slstm";
    "shared":
    "activations",
    "elements",
    "exchange",
    "general_cell",
    "h_tile",
    "joined",
    "minimal_cell",
    "nan",
    "product",
    "recurrent",
    "scan_begin",
    "workgroup_sum";
);
