// What every recurrent kernel shares: parameters, activations with clip, and where step s reads
// and writes. Requires H, the activation constants, and the binding `valid`: lengths `[B]` or a mask
// `[B, T]` if the call has either.
#import activations

struct Params {
    // Steps to run in this dispatch and the first of them, counted in reading order.
    steps: u32,
    first_step: u32,
    // T and B.
    timesteps: u32,
    batch: u32,
    // The steps whose input projection is in the buffer.
    chunk_first: u32,
    chunk_steps: u32,
    // Strides of the output in elements.
    y_batch: u32,
    y_time: u32,
    // What the call asks for, of the constants below.
    flags: u32,
    directions: u32,
    // Loads in vain after which a lane of a grid kernel gives up.
    patience: u32,
    // The row of the first workgroup, in kernels with a workgroup a row.
    first_row: u32,
    unused0: u32,
    unused1: u32,
    unused2: u32,
    unused3: u32,
}

// Outputs are written; those of a direction that runs backwards in the order in which they are computed.
const WRITES_Y: u32 = 1u;
const READING_ORDER: u32 = 2u;
// The first direction runs backwards; the second one's flag is the next bit.
const REVERSE: u32 = 4u;
// h or c is zero before the first step, whatever its buffer holds.
const ZERO_H: u32 = 16u;
const ZERO_C: u32 = 32u;
// Where a timestep does not count the output repeats h, in place of zero.
const REPEATS: u32 = 64u;

fn is_reverse(p_flags: u32, d: u32) -> bool {
    return (p_flags & (REVERSE << d)) != 0u;
}

// The timestep of step s.
fn time_of(s: u32, timesteps: u32, reverse: bool) -> u32 {
    return select(s, timesteps - 1u - s, reverse);
}

// Where step s stands in the projected chunk, which is laid out by time.
fn slot_of(s: u32, first: u32, count: u32, reverse: bool) -> u32 {
    return select(s - first, first + count - 1u - s, reverse);
}

fn clipped(x: f32) -> f32 {
    if HAS_CLIP {
        return unless_nan(x, clamp(x, -CLIP, CLIP));
    }
    return x;
}

// Whether timestep t of a row is valid. The state stands still where it is not.
fn is_alive(row: u32, t: u32, timesteps: u32) -> bool {
    if HAS_LENGTHS { return t < valid[row]; }
    if HAS_MASK { return valid[row * timesteps + t] != 0u; }
    return true;
}

// What the output shows of h.
fn shown(h: f32, alive: bool, p_flags: u32) -> f32 {
    return select(0.0, h, alive || (p_flags & REPEATS) != 0u);
}

fn gate0(x: f32) -> f32 {
    return activate(GATE0_CODE, GATE0_ALPHA, GATE0_BETA, clipped(x));
}

fn gate1(x: f32) -> f32 {
    return activate(GATE1_CODE, GATE1_ALPHA, GATE1_BETA, clipped(x));
}

fn gate2(x: f32) -> f32 {
    return activate(GATE2_CODE, GATE2_ALPHA, GATE2_BETA, clipped(x));
}

fn candidate_activation(x: f32) -> f32 {
    return activate(CANDIDATE_CODE, CANDIDATE_ALPHA, CANDIDATE_BETA, clipped(x));
}

fn output_activation(x: f32) -> f32 {
    if CLIP_OUTPUT {
        return activate(OUTPUT_CODE, OUTPUT_ALPHA, OUTPUT_BETA, clipped(x));
    }
    return activate(OUTPUT_CODE, OUTPUT_ALPHA, OUTPUT_BETA, x);
}
