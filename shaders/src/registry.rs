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
            /// The stem of the kernel's file, shared by its host code, reference, test and bench.
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
    /// Whether workgroups of a dispatch run at the same time.
    GridProbe = "grid_probe",
    /// A whole GRU sequence by workgroups that exchange h.
    GruGrid = "gru_grid",
    /// A whole GRU sequence.
    GruScan = "gru_scan",
    /// One GRU timestep.
    GruStep = "gru_step",
    /// Layer normalization over the last axis.
    LayerNorm = "layer_norm",
    /// Composed prefixes handed down to the steps of a minimal cell.
    LinearCarry = "linear_carry",
    /// Prefixes of the linear maps of a minimal cell's steps.
    LinearScan = "linear_scan",
    /// Counts executed loop iterations.
    LoopProbe = "loop_probe",
    /// A whole LSTM sequence by workgroups that exchange h.
    LstmGrid = "lstm_grid",
    /// A whole LSTM sequence.
    LstmScan = "lstm_scan",
    /// One LSTM timestep.
    LstmStep = "lstm_step",
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
    /// A whole SimpleRNN sequence by workgroups that exchange h.
    RnnGrid = "rnn_grid",
    /// A whole SimpleRNN sequence.
    RnnScan = "rnn_scan",
    /// One SimpleRNN timestep.
    RnnStep = "rnn_step",
    /// A token a row out of logits.
    Sample = "sample",
    /// Softmax over the last axis.
    Softmax = "softmax",
    /// One wave through stacked layers.
    StackWave = "stack_wave",
    /// Whether neighbouring lanes are neighbours in their subgroup.
    SubgroupProbe = "subgroup_probe",
    /// Activations and conversion.
    Unary = "unary",
}

macro_rules! snippets {
    ($($name:literal),* $(,)?) => {
        /// The snippet that `#import NAME` names: its name and its text.
        pub fn snippet(name: &str) -> Option<(&'static str, &'static str)> {
            match name {
                $($name => Some(($name, include_str!(concat!("../wgsl/shared/", $name, ".wgsl")))),)*
                _ => None,
            }
        }
    };
}

snippets!(
    "grid",
    "grid_begin",
    "grid_wait",
    "h_tile",
    "joined",
    "product",
    "activations",
    "elements",
    "general_cell",
    "lstm_cell",
    "minimal_cell",
    "nan",
    "recurrent",
    "scan_begin",
    "step_begin",
    "workgroup_sum"
);
