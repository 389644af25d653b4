// Draws one token per row of logits: the index of the largest `logit / temperature + noise` among the `top_k` largest
// logits. With Gumbel noise (Gumbel 1954) this is a draw from the softmax. If there are NaNs, it is the index of the
// first. For short rows one workgroup per row does everything (WHOLE). For others, COUNT finds the threshold of the top
// k, one bit per dispatch, and the last stage writes the logits with their noise, of which `reduce` finds the largest.
#import nan

struct Params {
    rows: u32,
    width: u32,
    groups_x: u32,
    // The number of largest logits that can be drawn; logits equal to the last of them can be drawn too.
    top_k: u32,
    inverse_temperature: f32,
    seed: u32,
    position: u32,
    // COUNT: the index of the threshold's bit, from the highest.
    round: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
#if WHOLE
@group(0) @binding(2) var<storage, read_write> out: array<u32>;

var<workgroup> best: array<f32, WORKGROUP>;
var<workgroup> place: array<u32, WORKGROUP>;
#else
#if COUNT
// For each bit, the number of logits that reach the threshold with this bit set, [32, rows]
@group(0) @binding(2) var<storage, read_write> counts: array<atomic<u32>>;

var<workgroup> place: array<u32, WORKGROUP>;
#else
@group(0) @binding(2) var<storage, read> counts: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
#end
#end

// PCG's output function (Jarzynski & Olano 2020) as a hash.
fn pcg(v: u32) -> u32 {
    let s = v * 747796405u + 2891336453u;
    let w = ((s >> ((s >> 28u) + 4u)) ^ s) * 277803737u;
    return (w >> 22u) ^ w;
}

// A number in (0, 1) from 23 bits, so that adding 0.5 is exact and both logarithms below are finite.
fn uniform_of(row: u32, i: u32) -> f32 {
    let bits = pcg(pcg(pcg(pcg(p.seed) ^ p.position) ^ row) ^ i);
    return (f32(bits >> 9u) + 0.5) / 8388608.0;
}

// Maps floats to integers with the same order.
fn ordered(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

fn gumbel(row: u32, i: u32) -> f32 {
    return -log(-log(uniform_of(row, i)));
}

#if WHOLE
fn count_from(base: u32, lane: u32, least: u32) -> u32 {
    var n = 0u;
    for (var i = lane; i < p.width; i += WORKGROUP) { n += u32(ordered(logits[base + i]) >= least); }
    place[lane] = n;
    workgroupBarrier();
    for (var offset = WORKGROUP / 2u; offset > 0u; offset /= 2u) {
        if lane < offset { place[lane] += place[lane + offset]; }
        workgroupBarrier();
    }
    n = place[0];
    workgroupBarrier();
    return n;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y * p.groups_x + group.x;
    let base = min(row, p.rows - 1u) * p.width;
    // Finds, bit by bit, the largest threshold that at least top_k logits reach.
    var least = 0u;
    if p.top_k < p.width {
        for (var bit = 0x80000000u; bit > 0u; bit >>= 1u) {
            if count_from(base, lane, least | bit) >= p.top_k { least |= bit; }
        }
    }
    var value = -3.4e38;
    var at = 0xffffffffu;
    for (var i = lane; i < p.width; i += WORKGROUP) {
        let x = logits[base + i];
        if ordered(x) >= least || is_nan(x) {
            let noisy = unless_nan(x, x * p.inverse_temperature + gumbel(row, i));
            if at == 0xffffffffu || is_above(noisy, value) {
                value = noisy;
                at = i;
            }
        }
    }
    best[lane] = value;
    place[lane] = at;
    workgroupBarrier();
    for (var offset = WORKGROUP / 2u; offset > 0u; offset /= 2u) {
        if lane < offset {
            let other = place[lane + offset];
            if other != 0xffffffffu
                && (place[lane] == 0xffffffffu || is_above(best[lane + offset], best[lane])
                    || (!is_above(best[lane], best[lane + offset]) && other < place[lane])) {
                best[lane] = best[lane + offset];
                place[lane] = other;
            }
        }
        workgroupBarrier();
    }
    if lane == 0u && row < p.rows { out[row] = min(place[0], p.width - 1u); }
}
#else
// The bits of a row's threshold that are known after some rounds: a bit is set if at least top_k logits reach the
// threshold with it.
fn threshold(row: u32, rounds: u32) -> u32 {
    var least = 0u;
    for (var r = 0u; r < rounds; r++) {
#if COUNT
        let reached = atomicLoad(&counts[r * p.rows + row]);
#else
        let reached = counts[r * p.rows + row];
#end
        if reached >= p.top_k { least |= 0x80000000u >> r; }
    }
    return least;
}

#if COUNT
@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y;
    let least = threshold(row, p.round) | (0x80000000u >> p.round);
    let end = min((group.x + 1u) * SPAN, p.width);
    var n = 0u;
    for (var i = group.x * SPAN + lane; i < end; i += WORKGROUP) {
        n += u32(ordered(logits[row * p.width + i]) >= least);
    }
    place[lane] = n;
    workgroupBarrier();
    for (var offset = WORKGROUP / 2u; offset > 0u; offset /= 2u) {
        if lane < offset { place[lane] += place[lane + offset]; }
        workgroupBarrier();
    }
    if lane == 0u { atomicAdd(&counts[p.round * p.rows + row], place[0]); }
}
#else
#import elements

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let e = element_index(group, lane, p.groups_x);
    if e >= p.rows * p.width { return; }
    let row = e / p.width;
    var least = 0u;
    if p.top_k < p.width { least = threshold(row, 32u); }
    let x = logits[e];
    var noisy = -3.4e38;
    if ordered(x) >= least || is_nan(x) {
        noisy = unless_nan(x, x * p.inverse_temperature + gumbel(row, e % p.width));
    }
    out[e] = noisy;
}
#end
#end
