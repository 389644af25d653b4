//! All kernels and all shared snippets, by the stem of their files.

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
            /// The stem of the kernel's file; its host code, test and benchmark have the same stem.
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
    /// Convolution and its transpose.
    Conv = "conv",
    /// Strided copies.
    Copy = "copy",
    /// Cross-entropies of rows of logits, and their gradient.
    CrossEntropy = "cross_entropy",
    /// The gradient of CTC.
    CtcGradient = "ctc_gradient",
    /// What the passes of CTC read of labels.
    CtcLabels = "ctc_labels",
    /// The paths of CTC, from the first timestep on or from the last.
    CtcPaths = "ctc_paths",
    /// Running sums along an axis.
    Cumulate = "cumulate",
    /// Fills a tensor with one value.
    Fill = "fill",
    /// Elementwise functions that are not activations.
    Function = "function",
    /// Selects rows of a table by id.
    Gather = "gather",
    /// A whole sequence of a cell with layer normalization or a projection.
    GeneralScan = "general_scan",
    /// One timestep of a cell with layer normalization or a projection, after its matrix product.
    GeneralStep = "general_step",
    /// A whole sequence, computed by workgroups that exchange h.
    Grid = "grid",
    /// Finds out whether workgroups of a dispatch run at the same time.
    GridProbe = "grid_probe",
    /// Layer normalization over the last axis.
    LayerNorm = "layer_norm",
    /// Applies the prefixes of `linear_scan` to the timesteps of a minimal cell.
    LinearCarry = "linear_carry",
    /// Prefixes (compositions) of the linear maps that a minimal cell's timesteps are.
    LinearScan = "linear_scan",
    /// Counts executed loop iterations.
    LoopProbe = "loop_probe",
    /// Compares rows with the value of padding.
    Mask = "mask",
    /// Matrix product.
    Matmul = "matmul",
    /// Matrix product without workgroup memory.
    MatmulDirect = "matmul_direct",
    /// Matrix product for few rows.
    Matvec = "matvec",
    /// Random numbers.
    Noise = "noise",
    /// Normalization of rows.
    Normalize = "normalize",
    /// Measures the peak rate of multiply-adds or of reads.
    Peak = "peak",
    /// A whole sequence of a cell whose units do not depend on each other, timestep by timestep.
    PointwiseScan = "pointwise_scan",
    /// Pooling.
    Pool = "pool",
    /// Reduction over one axis.
    Reduce = "reduce",
    /// Draws one token per row of logits.
    Sample = "sample",
    /// A whole sequence, one workgroup per tile of batch rows and direction.
    Scan = "scan",
    /// Updates at indices.
    Scatter = "scatter",
    /// A choice between two operands with broadcasting.
    Select = "select",
    /// Gradients of activation functions.
    Slope = "slope",
    /// Softmax over the last axis.
    Softmax = "softmax",
    /// One wave of a wavefront through stacked layers.
    StackWave = "stack_wave",
    /// One timestep.
    Step = "step",
    /// Finds out whether adjacent lanes are adjacent in their subgroup.
    SubgroupProbe = "subgroup_probe",
    /// Rows added by their ids.
    SumRows = "sum_rows",
    /// Sums of rows with equal ids within short ranges, before `SumRows`.
    SumRuns = "sum_runs",
    /// Elements at indices.
    Take = "take",
    /// The largest elements of each row.
    TopK = "top_k",
    /// One timestep of the gradient of a recurrent layer.
    TrainBackward = "train_backward",
    /// One timestep of a recurrent layer that keeps what its gradient needs.
    TrainForward = "train_forward",
    /// The input of a recurrent layer with time first, without what stands at timesteps that are not valid.
    TrainInput = "train_input",
    /// Layer normalization of sums of gates, and its gradient.
    TrainNorm = "train_norm",
    /// Timesteps of a recurrent layer that keeps what its gradient needs, with their products.
    TrainScan = "train_scan",
    /// Timesteps of the gradient of a recurrent layer, with their products.
    TrainScanBack = "train_scan_back",
    /// Activation functions and conversion between element types.
    Unary = "unary",
    /// One step of an optimiser.
    Update = "update",
}

macro_rules! snippets {
    ($($folder:literal: $($name:literal),* $(,)?;)*) => {
        /// The snippet for `#import NAME`: its name and its text.
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
    "ctc",
    "elements",
    "exchange",
    "general_cell",
    "h_tile",
    "index",
    "joined",
    "logarithm",
    "minimal_cell",
    "nan",
    "place",
    "product",
    "recurrent",
    "scan_begin",
    "slopes",
    "train_tile",
    "training",
    "unfolded",
    "workgroup_sum";
);
