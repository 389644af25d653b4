//! How far a dispatch of each kernel reaches into its buffers, computed from its parameters.
//!
//! Kernels index without checks. This module makes that sound: before a dispatch is recorded, the number of bytes that
//! it may access in each buffer is compared with the size of the buffer. A change to an index in a kernel requires a
//! change to the kernel's arm here.

use crate::params::{
    Binary, Conv, Copy, CrossEntropy, CtcGradient, CtcLabels, CtcPaths, Cumulate, Fill, Gather, GridProbe, LayerNorm,
    Mask, Matmul, Noise, Normalize, Peak, Pool, Recurrent, Reduce, Sample, Scatter, Select, Softmax, SumRows, SumRuns,
    Take, TopK, TrainInput, TrainNorm, Unary, Update,
};
use crate::{CellCode, General, Grid, Kept, Pointwise, Scan, Shader, Step, TrainScan, Value, Variant};
use arrayvec::ArrayVec;
use recurve_vocabulary::Descent;

/// For each storage buffer, in order of binding, the bytes from its start that a dispatch may access.
pub type Reach = ArrayVec<u64, 8>;

/// The constants of a variant that determine its reach.
#[derive(Clone, Debug)]
pub struct Bounds {
    shader: Shader,
    /// Sizes of the types ELEMENT, RESULT and WEIGHT, in bytes.
    element: u64,
    result: u64,
    weight: u64,
    /// Number of hidden units, `H`.
    hidden: u64,
    /// Number of vec4s along k per unit, `K4`.
    k4: u64,
    /// Number of elements of h.
    width: u64,
    gates: u64,
    /// Number of elements of a unit's states besides h.
    carried: u64,
    /// Number of elements of `extra` for one direction, if it is read.
    extra: u64,
    lengths: bool,
    mask: bool,
    /// The kernel's `bool` constant: HAS_BIAS, READ, FROM_GATES, APPLY or PROJECTION.
    switch: bool,
    phase: u64,
    /// Whether the operand B of a product is [n, k].
    transposed: bool,
    /// The constants ARGMAX and PLACED of `reduce`, WHOLE and COUNT of `sample`, WHOLE of `train_scan`, MERGED of
    /// `sum_rows`.
    argmax: bool,
    /// SUM of `softmax`, LOGITS and REVERSE of CTC, SMOOTH of `cross_entropy`.
    sum: bool,
    logits: bool,
    smooth: bool,
    reverse: bool,
    /// CHANNELS of a lane of `conv`.
    channels: u64,
    /// STATES of `update`.
    states: u64,
    /// HAS_SCALE
    scale: bool,
    placed: bool,
    whole: bool,
    count: bool,
    training: TrainingBounds,
}

/// The constants of `train_forward` and `train_backward` that determine their reach, and BACKWARD of `train_norm`.
#[derive(Clone, Copy, Debug)]
struct TrainingBounds {
    kept: u64,
    products: u64,
    back: u64,
    trace: u64,
    carry: u64,
    dropout: u64,
    drawn_h: bool,
    drawn_c: bool,
    backward: bool,
}

/// The error for a size of zero.
const EMPTY: &str = "a size of zero";
const TIMELINE: &str = "steps outside the sequence or its projected chunk";
const GROUPS: &str = "more workgroups than rows, directions or layers";

/// A product that saturates instead of overflowing.
fn times<const N: usize>(factors: [u64; N]) -> u64 {
    factors.into_iter().fold(1, u64::saturating_mul)
}

/// A sum that saturates instead of overflowing.
fn plus<const N: usize>(terms: [u64; N]) -> u64 {
    terms.into_iter().fold(0, u64::saturating_add)
}

fn reach<const N: usize>(bytes: [u64; N]) -> Result<Reach, &'static str> {
    Ok(bytes.into_iter().collect())
}

fn positive<const N: usize>(sizes: [u32; N]) -> Result<(), &'static str> {
    if sizes.contains(&0) { Err(EMPTY) } else { Ok(()) }
}

/// Reads the parameter struct from bytes of any alignment.
fn read<P: bytemuck::AnyBitPattern>(params: &[u8]) -> Result<P, &'static str> {
    bytemuck::try_pod_read_unaligned(params).map_err(|_| "parameters of another size")
}

/// The number of elements from the start of a buffer to the last one that `dims` (size, first stride, second stride)
/// reach from an offset.
fn strided(dims: &[[u32; 4]; 6], stride: usize, offset: u32) -> u64 {
    dims.iter()
        .fold(plus([offset.into(), 1]), |end, d| end.saturating_add(times([(d[0] - 1).into(), d[stride].into()])))
}

/// As [`strided`], of strides that may be negative, of two's complement.
fn strided_both_ways(dims: &[[u32; 4]; 6], stride: usize, offset: u32) -> Result<u64, &'static str> {
    let (mut first, mut last) = (i128::from(offset), i128::from(offset));
    for d in dims {
        let reach = i128::from(d[0] - 1) * i128::from(d[stride] as i32);
        *(if reach < 0 { &mut first } else { &mut last }) += reach;
    }
    match first < 0 {
        true => Err("elements before the first"),
        false => Ok(u64::try_from(last).unwrap_or(u64::MAX).saturating_add(1)),
    }
}

/// Elements up to the last that indices into axes, of (size, stride), add to those that `end` reaches.
fn indexed(axes: &[[u32; 4]; 6], components: u32, end: u64) -> Result<u64, &'static str> {
    let axes = axes.get(..components as usize).ok_or("more indices than axes")?;
    positive([components])?;
    axes.iter().try_for_each(|a| positive([a[0]]))?;
    Ok(axes.iter().fold(end, |end, a| end.saturating_add(times([(a[0] - 1).into(), a[1].into()]))))
}

/// Elements that windows look at, windows, and elements of one, from `(seen, windows, size, stride)` and `(dilation,
/// before, after)` of three axes.
fn window_sizes(sizes: &[[u32; 4]; 3], steps: &[[u32; 4]; 3]) -> Result<[u64; 3], &'static str> {
    for (size, step) in sizes.iter().zip(steps) {
        positive(*size)?;
        positive([step[0]])?;
        let [seen, windows, taps, stride] = size.map(u64::from);
        let [dilation, before, after, _] = step.map(u64::from);
        let last = plus([times([windows - 1, stride]), times([taps - 1, dilation])]);
        if last >= 1 << 31 || seen + before >= 1 << 31 || after >= 1 << 31 {
            return Err("windows that reach too far");
        }
    }
    Ok([0, 1, 2].map(|n| times(sizes.map(|s| s[n].into()))))
}

impl Variant {
    /// The constants from which the reach of this variant's dispatches is computed.
    pub fn bounds(&self) -> Bounds {
        let number = |name| match self.defines.get(name) {
            Some(Value::U32(v)) => u64::from(v),
            _ => 0,
        };
        let flag = |name| matches!(self.defines.get(name), Some(Value::Bool(true)));
        let bytes = |name| match self.defines.get(name) {
            Some(Value::TypeF16) => 2,
            _ => 4,
        };
        let gates = number("GATES");
        let hidden = number("H");
        let extra = match self.shader {
            Shader::GeneralScan
            | Shader::GeneralStep
            | Shader::TrainForward
            | Shader::TrainBackward
            | Shader::TrainScan => number("EXTRA"),
            Shader::PointwiseScan if number("KIND") == 0 => hidden,
            _ if flag("HAS_EXTRA") => number("EXTRA_PARTS") * hidden,
            _ => 0,
        };
        let switches = ["HAS_BIAS", "READ", "FROM_GATES", "APPLY", "PROJECTION"];
        Bounds {
            shader: self.shader,
            element: bytes("ELEMENT"),
            result: bytes("RESULT"),
            weight: bytes("WEIGHT"),
            hidden,
            k4: number("K4"),
            width: if self.defines.get("W").is_some() { number("W") } else { hidden },
            gates,
            carried: number("CARRIED"),
            extra,
            lengths: flag("HAS_LENGTHS"),
            mask: flag("HAS_MASK"),
            switch: switches.into_iter().any(flag),
            phase: if flag("FIRST") {
                1
            } else if flag("SECOND") {
                2
            } else {
                number("PHASE")
            },
            transposed: matches!(self.shader, Shader::Matvec | Shader::MatmulDirect) || flag("TRANSPOSED"),
            argmax: flag("ARGMAX"),
            sum: flag("SUM"),
            logits: flag("LOGITS"),
            smooth: flag("SMOOTH"),
            reverse: flag("REVERSE"),
            channels: number("CHANNELS").max(1),
            states: number("STATES").min(Descent::MOST_STATES as u64),
            scale: flag("HAS_SCALE"),
            placed: flag("PLACED"),
            whole: flag("WHOLE") || flag("MERGED"),
            count: flag("COUNT"),
            training: TrainingBounds {
                kept: number("KEPT"),
                products: number("PRODUCT"),
                back: number("BACK"),
                trace: number("TRACE"),
                carry: number("CARRY"),
                dropout: number("DROPOUT"),
                drawn_h: flag("DRAWN_H"),
                drawn_c: flag("DRAWN_C"),
                backward: flag("BACKWARD"),
            },
        }
    }
}

// These assertions ensure that every index into workgroup memory and into a lane's own arrays is in range. Layouts are
// made in few places, so a wrong one is a bug in Recurve.
impl Scan {
    pub(crate) fn assert_sound(&self, cell: &CellCode) {
        let Self { hidden, k4, workgroup, batch_tile, k_unroll, k_split, .. } = *self;
        let exchanges = cell.exchanges();
        let sound = hidden > 0
            && batch_tile > 0
            && matches!(k_split, 1 | 2 | 4 | 8)
            && workgroup > 0
            && workgroup.is_multiple_of(k_split)
            && slices(hidden, k4, k_split, k_unroll)
            && (k_split == 1 || (self.units() == 1 && !exchanges))
            && match self.kept {
                Kept::Memory => true,
                Kept::Registers => self.units() == 1 && !exchanges,
                Kept::Array => k_split == 1,
            };
        assert!(sound, "{self:?}");
    }
}

impl Grid {
    pub(crate) fn assert_sound(&self, cell: &CellCode) {
        let tiles = self.hidden > 0 && self.unit_tile > 0 && self.batch_tile > 0 && self.batch_tile <= self.k_split;
        assert!(tiles && !cell.exchanges() && slices(self.hidden, self.k4, self.k_split, 1), "{self:?}");
    }
}

impl Step {
    pub(crate) fn assert_sound(&self) {
        let tiles = self.hidden > 0 && self.unit_tile > 0 && self.batch_tile > 0;
        assert!(tiles && slices(self.hidden, self.k4, self.k_split, self.k_unroll), "{self:?}");
    }
}

impl TrainScan {
    pub(crate) fn assert_sound(&self) {
        let Self { training, workgroup, batch_tile, k4, k_split, held, k_unroll, whole, .. } = *self;
        let exchanges = training.in_phases();
        let tiles = matches!(batch_tile, 1 | 2 | 4) && k_split.is_power_of_two() && workgroup.is_multiple_of(k_split);
        let sound = training.is_plain()
            && training.hidden > 0
            && workgroup > 0
            && tiles
            && 4 * k4 >= training.hidden
            && k4.is_multiple_of(k_split)
            && (!self.subgroups || k_split <= 8)
            && held <= self.k_slice()
            && k_unroll > 0
            && (self.k_slice() - held).is_multiple_of(k_unroll)
            && (!whole || self.spread() == 1)
            && (!exchanges || (whole && (k_split == 1 || self.subgroups)));
        assert!(sound, "{self:?}");
    }
}

impl General {
    pub(crate) fn assert_sound(&self) {
        let widths = self.width > 0 && self.width <= self.hidden && (self.projection || self.width == self.hidden);
        assert!(widths && slices(self.width, self.k4, 1, 1) && self.workgroup.is_power_of_two(), "{self:?}");
    }
}

/// Whether `k_split` slices of whole unrolled iterations make up `k4` vec4s, which hold at least `width` elements.
fn slices(width: u32, k4: u32, k_split: u32, k_unroll: u32) -> bool {
    let parts = u64::from(k_split) * u64::from(k_unroll);
    parts > 0 && u64::from(k4).is_multiple_of(parts) && 4 * u64::from(k4) >= u64::from(width)
}

impl Bounds {
    /// The bytes that a dispatch of `groups` workgroups with these parameters may access.
    ///
    /// # Errors
    /// What is wrong with the parameters: a size of zero, by which a kernel divides; timesteps outside the sequence;
    /// more workgroups than rows. For parameters that pass, no sum or product of them overflows in the kernel, as long
    /// as every buffer is shorter than 4 GiB.
    pub fn reach(&self, params: &[u8], groups: [u32; 3]) -> Result<Reach, &'static str> {
        let [gx, gy, gz] = groups.map(u64::from);
        let e = self.element;
        match self.shader {
            Shader::Binary => {
                let p: Binary = read(params)?;
                positive(p.dims.map(|d| d[0]))?;
                let [x, y] = [1, 2].map(|stride| strided(&p.dims, stride, 0));
                reach([times([x, e]), times([y, e]), u64::from(p.count) * e])
            }
            Shader::Conv => {
                let p: Conv = read(params)?;
                let batch = p.steps[0][3];
                positive([batch, p.groups, p.inputs, p.outputs])?;
                let [seen, windows, taps] = window_sizes(&p.sizes, &p.steps)?;
                let (from, to) = if self.transposed { (windows, seen) } else { (seen, windows) };
                let [batch, groups, inputs, outputs] = [batch, p.groups, p.inputs, p.outputs].map(u64::from);
                // Lanes beyond the last one, or terms beyond the last one, do not read.
                let blocks = outputs.div_ceil(self.channels);
                if u64::from(p.base) + u64::from(p.count) > times([batch, groups, blocks, to])
                    || u64::from(p.first) + u64::from(p.terms) > times([inputs, taps])
                {
                    return Err("elements beyond the result");
                }
                let bias = if self.switch { times([groups, outputs, 4]) } else { 0 };
                reach([
                    times([batch, groups, inputs, from, 4]),
                    times([groups, inputs, outputs, taps, 4]),
                    bias,
                    times([batch, groups, outputs, to, 4]),
                ])
            }
            Shader::Normalize => {
                let p: Normalize = read(params)?;
                positive([p.rows, p.width, p.channels, p.inner])?;
                let (rows, channels) = (u64::from(p.rows), u64::from(p.channels) * 4);
                let bytes = times([rows, p.width.into(), 4]);
                let [scale, bias] = [self.scale, self.switch].map(|there| if there { channels } else { 0 });
                reach([bytes, scale, bias, bytes, rows * 4, rows * 4])
            }
            Shader::Pool => {
                let p: Pool = read(params)?;
                positive([p.planes])?;
                let [seen, windows, _] = window_sizes(&p.sizes, &p.steps)?;
                let planes = u64::from(p.planes);
                if u64::from(p.count) > times([planes, windows]) {
                    return Err("elements beyond the result");
                }
                reach([times([planes, seen, 4]), u64::from(p.count) * 4])
            }
            Shader::Copy => {
                let p: Copy = read(params)?;
                positive(p.dims.map(|d| d[0]))?;
                let source = strided_both_ways(&p.dims, 1, p.source_offset)?;
                let target = strided(&p.dims, 2, p.target_offset);
                reach([times([source, e]), times([target, e])])
            }
            Shader::Cumulate => {
                let p: Cumulate = read(params)?;
                positive([p.count, p.axis, p.inner])?;
                if u64::from(p.first) + u64::from(p.steps) > p.axis.into() {
                    return Err("elements beyond the axis");
                }
                let outer = u64::from(p.count - 1) / u64::from(p.inner) + 1;
                let bytes = times([outer, p.axis.into(), p.inner.into(), 4]);
                reach([bytes, bytes])
            }
            Shader::Fill => reach([u64::from(read::<Fill>(params)?.count) * e]),
            Shader::Select => {
                let p: Select = read(params)?;
                positive(p.dims.map(|d| d[0]))?;
                let [condition, x, y] = [1, 2, 3].map(|stride| strided(&p.dims, stride, 0));
                reach([times([condition, 4]), times([x, 4]), times([y, 4]), u64::from(p.count) * 4])
            }
            Shader::Function => {
                let count = u64::from(read::<Unary>(params)?.count);
                reach([count * e, count * 4])
            }
            Shader::Noise => reach([8, u64::from(read::<Noise>(params)?.count) * 4]),
            Shader::Slope => {
                let count = u64::from(read::<Unary>(params)?.count) * 4;
                reach([count; 3])
            }
            Shader::Unary => {
                let count = u64::from(read::<Unary>(params)?.count);
                reach([count * e, count * self.result])
            }
            Shader::Update => {
                let count = u64::from(read::<Update>(params)?.count) * 4;
                let mut bytes = Reach::from_iter([4 * Descent::RATES as u64, count, count]);
                bytes.extend((0..self.states).map(|_| count));
                Ok(bytes)
            }
            Shader::Gather => {
                let p: Gather = read(params)?;
                positive([p.rows, p.width, p.count])?;
                let (count, width) = (u64::from(p.count), u64::from(p.width));
                let ids = u64::from(p.ids_offset) + (count - 1) / width + 1;
                // An id past the end of the table is clamped to the last row.
                reach([times([p.rows.into(), width, e]), ids * 4, (u64::from(p.out_offset) + count) * e])
            }
            Shader::LayerNorm => {
                let p: LayerNorm = read(params)?;
                positive([p.rows, p.width])?;
                let (rows, width) = (u64::from(p.rows), u64::from(p.width));
                let affine = u64::from(p.affine_offset) + 2 * width;
                reach([affine * 4, times([plus([p.offset.into(), times([rows, width])]), 4])])
            }
            Shader::Mask => {
                let p: Mask = read(params)?;
                if u64::from(p.first) + u64::from(p.columns) > p.width.into() {
                    return Err("elements beyond the row");
                }
                reach([times([p.count.into(), p.width.into(), e]), u64::from(p.count) * 4])
            }
            Shader::Matmul | Shader::MatmulDirect | Shader::Matvec => {
                let p: Matmul = read(params)?;
                positive([p.m, p.n, p.k, p.a_inner])?;
                // `matvec` has one workgroup per row; the others clamp their rows to m.
                let m = if self.shader == Shader::Matvec { gy } else { p.m.into() };
                let (n, k) = (u64::from(p.n), u64::from(p.k));
                let (columns, depth) = (u64::from(p.columns), u64::from(p.depth));
                if n > columns || k > depth {
                    return Err("a part larger than the whole");
                }
                let b = match self.transposed {
                    true => plus([times([n - 1, depth]), k]),
                    false => plus([times([k - 1, columns]), n]),
                };
                let inner = u64::from(p.a_inner);
                let row = |r: u64| {
                    plus([times([r / inner, p.a_outer_stride.into()]), times([r % inner, p.a_inner_stride.into()])])
                };
                // The row that reaches furthest is the last one, or the last one of the last complete group.
                let last = m.saturating_sub(1);
                let rows = row(last).max(if last < inner { 0 } else { row(last / inner * inner - 1) });
                let batch = |stride: u32| times([gz.saturating_sub(1), stride.into()]);
                let bias = if self.switch { u64::from(p.bias_offset) + n } else { 0 };
                reach([
                    times([plus([p.a_offset.into(), batch(p.a_batch), rows, k]), e]),
                    times([plus([p.b_offset.into(), batch(p.b_batch), b]), self.weight]),
                    bias * e,
                    times([plus([p.c_offset.into(), batch(p.c_batch), times([last, columns]), n]), e]),
                ])
            }
            Shader::Reduce => {
                let p: Reduce = read(params)?;
                positive([p.results, p.axis, p.inner, p.blocks])?;
                if p.blocks > p.axis || (self.argmax && !self.placed && p.axis > p.whole) {
                    return Err("elements beyond the axis");
                }
                let outer = u64::from(p.results - 1) / (u64::from(p.inner) * u64::from(p.blocks)) + 1;
                let elements = |axis: u32, bytes: u64| times([outer, axis.into(), p.inner.into(), bytes]);
                let results = u64::from(p.results);
                match self.argmax {
                    false => reach([elements(p.axis, e), results * self.result]),
                    true => {
                        positive([p.whole])?;
                        let places = if self.placed { elements(p.axis, 4) } else { 0 };
                        reach([elements(p.whole, e), places, results * 4])
                    }
                }
            }
            Shader::Softmax => {
                let p: Softmax = read(params)?;
                positive([p.rows, p.width])?;
                let bytes = times([p.rows.into(), p.width.into(), e]);
                reach([bytes, if self.sum { times([p.rows.into(), e]) } else { bytes }])
            }
            Shader::CrossEntropy => {
                let p: CrossEntropy = read(params)?;
                positive([p.count, p.width])?;
                let (count, width) = (u64::from(p.count), u64::from(p.width));
                let backward = self.training.backward;
                let rows = if backward { (count - 1) / width + 1 } else { count };
                let means = if backward || self.smooth { rows * 4 } else { 0 };
                reach([times([rows, width, 4]), rows * 4, rows * 4, means, count * 4])
            }
            Shader::CtcLabels => {
                let p: CtcLabels = read(params)?;
                positive([p.count, p.labels, p.classes])?;
                let (labels, count) = (u64::from(p.labels), u64::from(p.count));
                let rows = (count - 1) / (2 * labels + 1) + 1;
                reach([times([rows, labels, 4]), count * 4])
            }
            Shader::CtcPaths => {
                let p: CtcPaths = read(params)?;
                if u64::from(p.first) + u64::from(p.steps) > p.timesteps.into() {
                    return Err(TIMELINE);
                }
                let [info, x, sums, valid, paths] = self.ctc([p.batch, p.timesteps, p.classes, p.labels, p.blank])?;
                let losses = if self.reverse { 0 } else { u64::from(p.batch) * 4 };
                reach([info, x, sums, valid, paths, losses])
            }
            Shader::CtcGradient => {
                let p: CtcGradient = read(params)?;
                let [info, x, sums, valid, paths] = self.ctc([p.batch, p.timesteps, p.classes, p.labels, p.blank])?;
                reach([info, x, sums, valid, paths, paths, u64::from(p.batch) * 8, x])
            }
            Shader::Sample => {
                let p: Sample = read(params)?;
                positive([p.rows, p.width])?;
                let rows = u64::from(p.rows);
                let logits = times([rows, p.width.into(), 4]);
                if self.whole {
                    return reach([logits, rows * 4]);
                }
                if !self.count {
                    let counts = if p.top_k < p.width { times([32, rows, 4]) } else { 0 };
                    return reach([logits, counts, logits]);
                }
                if gy > rows || p.round > 31 {
                    return Err(GROUPS);
                }
                reach([logits, times([u64::from(p.round) + 1, rows, 4])])
            }
            Shader::Scatter => {
                let p: Scatter = read(params)?;
                positive(p.dims.map(|d| d[0]))?;
                positive([p.steps])?;
                let out = indexed(&p.axes, p.components, strided(&p.dims, 1, 0))?;
                let last = u64::from(p.first) + u64::from(p.steps) - 1;
                let component = times([(p.components - 1).into(), p.component_stride.into()]);
                let indices = plus([strided(&p.dims, 2, 0), times([last, p.index_step.into()]), component]);
                let updates = plus([strided(&p.dims, 3, 0), times([last, p.update_step.into()])]);
                reach([indices, updates, out].map(|n| times([n, 4])))
            }
            Shader::SumRows => {
                let p: SumRows = read(params)?;
                positive([p.count, p.rows, p.width, p.columns, p.row_blocks, p.column_blocks, p.slice])?;
                if p.columns > Variant::SUM_ROWS_LANES {
                    return Err("more columns than lanes");
                }
                if 1u32.checked_shl(p.shift) != Some(p.row_blocks) {
                    return Err("a number of blocks that is not the power of two it is said to be");
                }
                let height = p.rows.div_ceil(p.row_blocks);
                if self.whole && height.saturating_mul(p.columns) > Variant::SUM_ROWS_SUMS {
                    return Err("more sums than workgroup memory has");
                }
                let (count, width) = (u64::from(p.count), u64::from(p.width));
                let slices = count.div_ceil(p.slice.into());
                reach([count * 4, times([count, width, 4]), times([slices, p.rows.into(), width, 4])])
            }
            Shader::SumRuns => {
                let p: SumRuns = read(params)?;
                positive([p.count, p.rows, p.width, p.columns, p.column_blocks, p.chunks])?;
                if p.columns > Variant::SUM_RUNS_CHUNK || p.rows > u32::MAX / Variant::SUM_RUNS_CHUNK {
                    return Err("more columns than lanes, or ids that do not fit beside their places");
                }
                let chunk = Variant::SUM_RUNS_CHUNK;
                if p.count.div_ceil(chunk) != p.chunks {
                    return Err("a number of chunks that does not fit the rows");
                }
                let (count, width, all) = (u64::from(p.count), p.width.into(), times([p.chunks.into(), chunk.into()]));
                reach([count * 4, times([count, width, 4]), times([all, 4]), times([all, width, 4])])
            }
            Shader::Take => {
                let p: Take = read(params)?;
                positive(p.dims.map(|d| d[0]))?;
                let data = indexed(&p.axes, p.components, strided(&p.dims, 1, 0))?;
                let component = times([(p.components - 1).into(), p.component_stride.into()]);
                let indices = plus([strided(&p.dims, 2, 0), component]);
                reach([times([data, e]), times([indices, 4]), u64::from(p.count) * e])
            }
            Shader::TopK => {
                let p: TopK = read(params)?;
                positive([p.count, p.width, p.k])?;
                if u64::from(p.first) + u64::from(p.columns) > p.width.into() || p.k > p.width {
                    return Err("elements beyond the row");
                }
                let rows = u64::from(p.count - 1) / u64::from(p.width) + 1;
                let (all, best) = (times([rows, p.width.into(), 4]), times([rows, p.k.into(), 4]));
                reach([all, all, best, best])
            }
            Shader::LoopProbe => reach([12]),
            Shader::SubgroupProbe => reach([256 * 4]),
            Shader::GridProbe => {
                let p: GridProbe = read(params)?;
                if gx > p.groups.into() {
                    return Err(GROUPS);
                }
                reach([times([plus([1, times([u64::from(p.rounds) + 1, p.groups.into()])]), 4])])
            }
            Shader::Peak => {
                let p: Peak = read(params)?;
                positive([p.count])?;
                reach([if self.switch { u64::from(p.count) * 16 } else { 16 }, times([gx, 256, 4])])
            }
            Shader::TrainInput => {
                let p: TrainInput = read(params)?;
                positive([p.count, p.width, p.batch, p.timesteps])?;
                let (batch, timesteps) = (u64::from(p.batch), u64::from(p.timesteps));
                let rows = u64::from(p.count - 1) / u64::from(p.width) + 1;
                if rows > times([batch, timesteps]) {
                    return Err("rows beyond the timesteps");
                }
                let last = [times([batch - 1, p.row_stride.into()]), times([timesteps - 1, p.time_stride.into()])];
                let x = plus([last[0], last[1], p.width.into()]);
                reach([times([x, 4]), self.valid(batch, timesteps), u64::from(p.count) * 4])
            }
            Shader::TrainNorm => {
                let p: TrainNorm = read(params)?;
                positive([p.rows, p.width, p.batch, p.timesteps])?;
                let (rows, width) = (u64::from(p.rows), u64::from(p.width));
                let (batch, timesteps) = (u64::from(p.batch), u64::from(p.timesteps));
                if plus([p.first_time.into(), rows.div_ceil(batch)]) > timesteps {
                    return Err(TIMELINE);
                }
                let end = |first: u32, stride: u32, width: u64| {
                    times([plus([first.into(), times([rows - 1, stride.into()]), width]), 4])
                };
                let goal = if self.training.backward { end(p.goal, p.stride, width) } else { 0 };
                let x = end(p.source, p.stride, width).max(goal);
                let norms = end(p.standard, p.norm_stride, width).max(end(p.scale, p.norm_stride, 1));
                reach([2 * width * 4, self.valid(batch, timesteps), x, norms])
            }
            _ => self.recurrent(&read(params)?, groups),
        }
    }

    /// The bytes of what the passes of CTC read, and of the paths, from batch, timesteps, classes, labels and blank.
    fn ctc(&self, sizes: [u32; 5]) -> Result<[u64; 5], &'static str> {
        positive([sizes[0], sizes[1], sizes[2], sizes[3]])?;
        if sizes[4] >= sizes[2] {
            return Err("a blank that is no class");
        }
        let [batch, timesteps, classes, labels, _] = sizes.map(u64::from);
        let (rows, width) = (times([batch, timesteps]), 2 * labels + 1);
        let sums = if self.logits { times([rows, 4]) } else { 0 };
        Ok([
            times([batch, width, 4]),
            times([rows, classes, 4]),
            sums,
            self.valid(batch, timesteps),
            times([rows, width, 4]),
        ])
    }

    /// The bytes of lengths or of a mask.
    fn valid(&self, batch: u64, timesteps: u64) -> u64 {
        match (self.lengths, self.mask) {
            (true, _) => batch * 4,
            (_, true) => times([batch, timesteps, 4]),
            _ => 0,
        }
    }

    /// The bytes of `extra` in the kernels of training.
    fn drawn(&self, p: &Recurrent, d: u64) -> u64 {
        let &Self { hidden: h, width: w, training: t, .. } = self;
        let (batch, timesteps) = (u64::from(p.batch), u64::from(p.timesteps));
        let there = |there: bool, first: u32, count: u64| if there { plus([first.into(), count]) } else { 0 };
        let all = [
            d * self.extra,
            there(t.drawn_h, p.zoneout_h, times([d, timesteps, batch, w])),
            there(t.drawn_c, p.zoneout_c, times([d, timesteps, batch, h])),
            there(t.dropout > 0, p.dropout, times([d, t.dropout, batch, w])),
        ];
        times([all.into_iter().fold(0, u64::max), 4])
    }

    fn recurrent(&self, p: &Recurrent, groups: [u32; 3]) -> Result<Reach, &'static str> {
        let [gx, gy, gz] = groups.map(u64::from);
        positive([p.timesteps, p.batch, p.directions, p.chunk_steps])?;
        let &Self { hidden: h, k4, width: w, gates: g, .. } = self;
        let (batch, timesteps) = (u64::from(p.batch), u64::from(p.timesteps));
        let (first, chunk) = (u64::from(p.first_step), u64::from(p.chunk_first));
        let (end, chunk_end) = (first + u64::from(p.steps), chunk + u64::from(p.chunk_steps));
        let inside = first >= chunk && end <= chunk_end && end <= timesteps;
        let on_time = |running: bool| if running && !inside { Err(TIMELINE) } else { Ok(()) };
        // The number of directions, and the number of rows in kernels that have one workgroup per row.
        let (d, rows) = match self.shader {
            Shader::Scan | Shader::TrainScan | Shader::TrainScanBack => (gy, 0),
            Shader::GeneralScan | Shader::GeneralStep | Shader::TrainForward | Shader::TrainBackward => {
                (gy, u64::from(p.first_row) + gx)
            }
            Shader::PointwiseScan => (gz, u64::from(p.first_row) + gy),
            _ => (gz, 0),
        };
        if d > p.directions.into() || rows > batch {
            return Err(GROUPS);
        }
        let valid = self.valid(batch, timesteps);
        let y = match p.flags & 1 {
            0 => 0,
            _ => {
                let parts = if self.shader == Shader::StackWave { 1 } else { d };
                let last = [times([batch - 1, p.y_batch.into()]), times([timesteps - 1, p.y_time.into()])];
                times([plus([last[0], last[1], times([parts, w])]), 4])
            }
        };
        let projection = times([d, p.chunk_steps.into(), batch, g * h, 4]);
        let weights = times([d, k4, g * h, 4 * self.weight]);
        let extra = times([d, self.extra, 4]);
        // The bytes of a state with `width` elements per row.
        let state = |width: u64| times([d, batch, width, 4]);
        let carried = state(self.carried * h);
        let tile = times([d, batch, k4, 16]);
        let exchange = || {
            let slots = plus([times([end - chunk, p.directions.into()]), d]);
            times([plus([Grid::HEAD as u64, times([slots, batch, h])]), 4])
        };
        match self.shader {
            Shader::LinearScan if !self.switch => {}
            Shader::LinearCarry if !self.switch => {}
            // Dispatches after the end of the first layer read no projection.
            Shader::StackWave => on_time(first < timesteps)?,
            Shader::Step | Shader::GeneralStep | Shader::TrainForward | Shader::TrainBackward if p.steps != 1 => {
                return Err(TIMELINE);
            }
            Shader::TrainScan | Shader::TrainScanBack if p.steps == 0 || (!self.whole && p.steps != 1) => {
                return Err(TIMELINE);
            }
            _ => on_time(true)?,
        }
        match self.shader {
            Shader::Scan => reach([projection, weights, extra, valid, state(h), carried, y]),
            Shader::Step => match self.phase {
                0 => reach([projection, weights, valid, tile, extra, tile, carried, y]),
                1 => reach([projection, weights, 0, tile, tile, state(h)]),
                _ => reach([projection, weights, valid, tile, tile, state(h), tile, y]),
            },
            Shader::Grid => reach([projection, weights, extra, valid, exchange(), carried, y]),
            Shader::StackWave => {
                // The projection of the first layer only.
                let projection = times([p.chunk_steps.into(), batch, g * h, 4]);
                let extra = times([d, (g + 3) * h, 4]);
                reach([projection, times([2, weights]), extra, valid, tile, tile, carried, y])
            }
            Shader::GeneralScan => {
                let w_hr = if self.switch { times([d, h.div_ceil(4), w, 4 * self.weight]) } else { 0 };
                reach([projection, weights, w_hr, extra, valid, state(w), state(h), y])
            }
            Shader::GeneralStep => {
                let product = if self.phase == 2 { state(w) } else { state(g * h) };
                let m = if self.phase == 1 { state(h) } else { 0 };
                reach([projection, product, extra, valid, state(w), state(h), m, y])
            }
            Shader::TrainForward | Shader::TrainBackward => {
                let t = self.training;
                let states = |width: u64| times([d, timesteps + 1, batch, width, 4]);
                let all = |width: u64| times([d, timesteps, batch, width, 4]);
                let (gates, extra) = (all(t.kept * h), self.drawn(p, d));
                let c = self.carried * h;
                if self.shader == Shader::TrainForward {
                    let product = if self.phase == 2 { state(w) } else { state(t.products * h) };
                    let seen = if self.phase == 1 { state(h) } else { state(t.dropout * w) };
                    reach([product, extra, valid, states(w), states(c), gates, seen, y])
                } else {
                    let states = states(if self.carried > 0 { c } else { w });
                    let product = if self.phase == 2 { state(h) } else { state(t.back * w) };
                    reach([gates, states, valid, extra, y, product, all(t.trace), state(t.carry)])
                }
            }
            Shader::TrainScan | Shader::TrainScanBack => {
                let t = self.training;
                let states = |width: u64| times([d, timesteps + 1, batch, width, 4]);
                let all = |width: u64| times([d, timesteps, batch, width, 4]);
                let (gates, c) = (all(t.kept * h), self.carried * h);
                if self.shader == Shader::TrainScan {
                    reach([weights, extra, valid, states(h), states(c), gates, y])
                } else {
                    let states = states(if self.carried > 0 { c } else { h });
                    reach([gates, states, valid, weights, y, all(t.trace), state(t.carry)])
                }
            }
            Shader::PointwiseScan => reach([projection, extra, valid, state(h), y]),
            Shader::LinearScan | Shader::LinearCarry => {
                let columns = times([batch, h]);
                let steps = u64::from(p.steps);
                let maps = |items: u64| times([d, items, columns, 8]);
                let blocks = maps(steps.div_ceil(Pointwise::BLOCK.into()));
                let all = maps(steps);
                match (self.shader, self.switch) {
                    (Shader::LinearScan, true) => reach([all, blocks, valid, projection]),
                    (Shader::LinearScan, false) => reach([all, blocks, 0, all]),
                    (_, apply) => {
                        // The level above is read only if there is more than one block.
                        let above = if gy > 1 { blocks } else { 0 };
                        if apply { reach([above, all, valid, state(h), state(h), y]) } else { reach([above, all, 0]) }
                    }
                }
            }
            other => unreachable!("{} has an arm of its own", other.stem()),
        }
    }
}
