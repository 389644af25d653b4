//! Host structs of the kernels' parameters. A test compares the offset of every field with naga's layout.

use bytemuck::{Pod, Zeroable};

macro_rules! params {
    ($($(#[$doc:meta])* $name:ident { $($field:ident : $ty:ty),* $(,)? })*) => {
        /// Size of the largest parameter struct in bytes.
        pub const LARGEST: usize = {
            let (sizes, mut largest, mut n) = ([$(size_of::<$name>()),*], 0, 0);
            while n < sizes.len() {
                if sizes[n] > largest {
                    largest = sizes[n];
                }
                n += 1;
            }
            largest
        };

        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
            #[expect(missing_docs, reason = "the fields are documented in the WGSL struct they mirror")]
            pub struct $name { $(pub $field: $ty),* }

            impl $name {
                /// The name, offset and size of each field, in order.
                pub const FIELDS: &'static [(&'static str, usize, usize)] = &[
                    $((stringify!($field), core::mem::offset_of!($name, $field), size_of::<$ty>())),*
                ];
            }
        )*
    };
}

params! {
    /// Parameters of `matmul.wgsl`, `matmul_direct.wgsl` and `matvec.wgsl`.
    Matmul {
        m: u32, n: u32, k: u32, a_inner: u32, a_outer_stride: u32, a_inner_stride: u32,
        a_offset: u32, b_offset: u32, c_offset: u32, a_batch: u32, b_batch: u32, c_batch: u32,
        bias_offset: u32, columns: u32, depth: u32, part: u32, alpha: f32, beta: f32,
    }
    /// Parameters of `binary.wgsl`.
    Binary { count: u32, groups_x: u32, unused0: u32, unused1: u32, dims: [[u32; 4]; 6] }
    /// Parameters of `select.wgsl`.
    Select { count: u32, groups_x: u32, unused0: u32, unused1: u32, dims: [[u32; 4]; 6] }
    /// Parameters of `copy.wgsl`.
    Copy { count: u32, groups_x: u32, source_offset: u32, target_offset: u32, dims: [[u32; 4]; 6] }
    /// Parameters of `conv.wgsl`.
    Conv {
        count: u32, groups_x: u32, base: u32, groups: u32, inputs: u32, outputs: u32, first: u32, terms: u32,
        sizes: [[u32; 4]; 3], steps: [[u32; 4]; 3],
    }
    /// Parameters of `pool.wgsl`.
    Pool {
        count: u32, groups_x: u32, planes: u32, options: u32, power: f32, lowest: f32, unused0: u32, unused1: u32,
        sizes: [[u32; 4]; 3], steps: [[u32; 4]; 3],
    }
    /// Parameters of `noise.wgsl`.
    Noise {
        count: u32, groups_x: u32, stream: u32, limit: u32, value: f32, unused0: u32, unused1: u32, unused2: u32,
    }
    /// Parameters of `normalize.wgsl`.
    Normalize {
        rows: u32, width: u32, groups_x: u32, channels: u32, inner: u32, epsilon: f32, unused0: u32, unused1: u32,
    }
    /// Parameters of `unary.wgsl`, `function.wgsl` and `slope.wgsl`.
    Unary { count: u32, groups_x: u32, alpha: f32, beta: f32 }
    /// Parameters of `update.wgsl`.
    Update { count: u32, groups_x: u32, unused0: u32, unused1: u32 }
    /// Parameters of `cross_entropy.wgsl`.
    CrossEntropy {
        count: u32, groups_x: u32, width: u32, unused0: u32, own: f32, share: f32, unused1: u32, unused2: u32,
    }
    /// Parameters of `ctc_labels.wgsl`.
    CtcLabels {
        count: u32, groups_x: u32, labels: u32, classes: u32, blank: u32, unused0: u32, unused1: u32, unused2: u32,
    }
    /// Parameters of `ctc_paths.wgsl`.
    CtcPaths {
        batch: u32, timesteps: u32, classes: u32, labels: u32, blank: u32, first: u32, steps: u32, groups_x: u32,
        zero_infinity: u32, unused0: u32, unused1: u32, unused2: u32,
    }
    /// Parameters of `ctc_gradient.wgsl`.
    CtcGradient {
        batch: u32, timesteps: u32, classes: u32, labels: u32, blank: u32, groups_x: u32, unused0: u32,
        unused1: u32,
    }
    /// Parameters of `softmax.wgsl`.
    Softmax { rows: u32, width: u32, groups_x: u32, unused: u32 }
    /// Parameters of `reduce.wgsl`.
    Reduce {
        results: u32, groups_x: u32, axis: u32, inner: u32, blocks: u32, divisor: f32, whole: u32,
        last: u32,
    }
    /// Parameters of `fill.wgsl`.
    Fill { count: u32, groups_x: u32, value: f32, unused: u32 }
    /// Parameters of `gather.wgsl`.
    Gather {
        count: u32, groups_x: u32, width: u32, ids_offset: u32, out_offset: u32, rows: u32,
        unused0: u32, unused1: u32,
    }
    /// Parameters of `take.wgsl`.
    Take {
        count: u32, groups_x: u32, components: u32, component_stride: u32, fill: f32, unused0: u32,
        unused1: u32, unused2: u32, dims: [[u32; 4]; 6], axes: [[u32; 4]; 6],
    }
    /// Parameters of `scatter.wgsl`.
    Scatter {
        count: u32, groups_x: u32, components: u32, component_stride: u32, first: u32, steps: u32,
        index_step: u32, update_step: u32, dims: [[u32; 4]; 6], axes: [[u32; 4]; 6],
    }
    /// Parameters of `sum_rows.wgsl`.
    SumRows {
        count: u32, rows: u32, width: u32, groups_x: u32, columns: u32, column_blocks: u32, row_blocks: u32,
        shift: u32, slice: u32, unused: u32, first: u32, steps: u32,
    }
    /// Parameters of `sum_runs.wgsl`.
    SumRuns {
        count: u32, rows: u32, width: u32, groups_x: u32, columns: u32, column_blocks: u32, chunks: u32,
        unused: u32,
    }
    /// Parameters of `cumulate.wgsl`.
    Cumulate {
        count: u32, groups_x: u32, axis: u32, inner: u32, first: u32, steps: u32, exclusive: u32,
        reverse: u32,
    }
    /// Parameters of `top_k.wgsl`.
    TopK {
        count: u32, groups_x: u32, width: u32, k: u32, first: u32, columns: u32, sign: f32, unused: u32,
    }
    /// Parameters of `loop_probe.wgsl`.
    LoopProbe { iterations: u32, unused0: u32, unused1: u32, unused2: u32 }
    /// Parameters of `grid_probe.wgsl`.
    GridProbe { groups: u32, rounds: u32, spin_limit: u32, unused: u32 }
    /// Parameters of `peak.wgsl`.
    Peak { iterations: u32, count: u32, lanes: u32, factor: f32 }
    /// Parameters of `subgroup_probe.wgsl`.
    SubgroupProbe { seed: u32, unused0: u32, unused1: u32, unused2: u32 }
    /// Parameters of `layer_norm.wgsl`.
    LayerNorm {
        rows: u32, width: u32, groups_x: u32, offset: u32, affine_offset: u32, epsilon: f32,
        unused0: u32, unused1: u32,
    }
    /// Parameters of `mask.wgsl`.
    Mask {
        count: u32, groups_x: u32, width: u32, value: f32, first: u32, columns: u32, unused0: u32,
        unused1: u32,
    }
    /// Parameters of `sample.wgsl`.
    Sample {
        rows: u32, width: u32, groups_x: u32, top_k: u32, inverse_temperature: f32, seed: u32,
        position: u32, round: u32,
    }
    /// Parameters of `train_norm.wgsl`.
    TrainNorm {
        rows: u32, groups_x: u32, width: u32, batch: u32, timesteps: u32, first_time: u32, source: u32,
        goal: u32, stride: u32, standard: u32, scale: u32, norm_stride: u32, epsilon: f32, unused0: u32,
        unused1: u32, unused2: u32,
    }
    /// Parameters of `train_input.wgsl`.
    TrainInput {
        count: u32, groups_x: u32, width: u32, batch: u32, timesteps: u32, row_stride: u32,
        time_stride: u32, unused: u32,
    }
    /// Parameters of the recurrent kernels (`shared/recurrent.wgsl`).
    Recurrent {
        steps: u32, first_step: u32, timesteps: u32, batch: u32, chunk_first: u32,
        chunk_steps: u32, y_batch: u32, y_time: u32, flags: u32, directions: u32, patience: u32,
        first_row: u32, zoneout_h: u32, zoneout_c: u32, dropout: u32, spread: u32,
    }
}

/// Options of a call, stored as bits in the field `flags` of the recurrent kernels' parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Whether outputs are written.
    pub writes_y: bool,
    /// Whether the outputs of a reverse direction are stored in the order in which they are computed.
    pub reading_order: bool,
    /// Whether the first and the second direction run backwards.
    pub reverse: [bool; 2],
    /// Whether h is zero before the first timestep, whatever its buffer contains.
    pub zero_h: bool,
    /// Whether c is zero before the first timestep, whatever its buffer contains.
    pub zero_c: bool,
    /// Whether the output at a timestep that is not valid repeats h instead of being zero.
    pub repeats: bool,
}

impl Flags {
    /// The bits that the kernels read.
    pub const fn bits(self) -> u32 {
        let Self { writes_y, reading_order, reverse: [first, second], zero_h, zero_c, repeats } = self;
        let all = [writes_y, reading_order, first, second, zero_h, zero_c, repeats];
        let (mut bits, mut n) = (0, 0);
        while n < all.len() {
            bits |= (all[n] as u32) << n;
            n += 1;
        }
        bits
    }
}
