// Shared by all recurrent kernels: parameters, activations with clip, and the positions that timestep s reads and
// writes. Requires H, the activation constants, and the binding `valid`: lengths `[B]` or a mask `[B, T]` if the call
// has either.
#import activations

struct Params {
    // The number of steps of this dispatch and the first of them, counted in reading order.
    steps: u32,
    first_step: u32,
    // Number of timesteps T and batch size B.
    timesteps: u32,
    batch: u32,
    // The first step and the number of steps whose input projection is in the buffer.
    chunk_first: u32,
    chunk_steps: u32,
    // Strides of the output, in elements.
    y_batch: u32,
    y_time: u32,
    // Options of the call: a sum of the constants below.
    flags: u32,
    directions: u32,
    // The number of unsuccessful loads after which a lane of a grid kernel gives up.
    patience: u32,
    // The row of the first workgroup, in kernels with one workgroup per row.
    first_row: u32,
    // In the kernels of training: where shares of the old h and c, and factors on h, begin in `extra`; the number of
    // workgroups that share the units of a row.
    zoneout_h: u32,
    zoneout_c: u32,
    dropout: u32,
    spread: u32,
}

// Outputs are written. The next bit: those of a reverse direction are in the order in which they are computed.
const WRITES_Y: u32 = 1u;
const READING_ORDER: u32 = 2u;
// The first direction is reverse; the next bit is for the second direction.
const REVERSE: u32 = 4u;
// h, or with the next bit c, is zero before the first step, whatever its buffer contains.
const ZERO_H: u32 = 16u;
const ZERO_C: u32 = 32u;
// The output at a timestep that is not valid repeats h instead of being zero.
const REPEATS: u32 = 64u;

fn is_reverse(p_flags: u32, d: u32) -> bool {
    return (p_flags & (REVERSE << d)) != 0u;
}

// The timestep of step s in the input.
fn time_of(s: u32, timesteps: u32, reverse: bool) -> u32 {
    return select(s, timesteps - 1u - s, reverse);
}

// The index of step s in the projected chunk, whose layout is by time.
fn slot_of(s: u32, first: u32, count: u32, reverse: bool) -> u32 {
    return select(s - first, first + count - 1u - s, reverse);
}

fn clipped(x: f32) -> f32 {
    if HAS_CLIP {
        return unless_nan(x, clamp(x, -CLIP, CLIP));
    }
    return x;
}

// Whether timestep t of a row is valid. If not, the state does not change.
fn is_alive(row: u32, t: u32, timesteps: u32) -> bool {
    if HAS_LENGTHS { return t < valid[row]; }
    if HAS_MASK { return valid[row * timesteps + t] != 0u; }
    return true;
}

// The output for a state h.
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
