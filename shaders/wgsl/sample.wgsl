// One token a row out of logits: the largest of `logit / temperature + noise` among the `top_k` largest
// logits, the noise Gumbel's (Gumbel 1954), which draws from the softmax. The first NaN, if there is one. A
// workgroup per row.
#import nan

struct Params {
    rows: u32,
    width: u32,
    groups_x: u32,
    // How many of the largest logits take part; logits equal to the last of them do too.
    top_k: u32,
    inverse_temperature: f32,
    seed: u32,
    position: u32,
    unused: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<u32>;

var<workgroup> best: array<f32, WORKGROUP>;
var<workgroup> place: array<u32, WORKGROUP>;

// PCG's output function (Jarzynski & Olano 2020) as a hash.
fn pcg(v: u32) -> u32 {
    let s = v * 747796405u + 2891336453u;
    let w = ((s >> ((s >> 28u) + 4u)) ^ s) * 277803737u;
    return (w >> 22u) ^ w;
}

// In (0, 1), from 23 bits, so that adding a half is exact and no logarithm below sees its pole.
fn uniform_of(row: u32, i: u32) -> f32 {
    let bits = pcg(pcg(pcg(pcg(p.seed) ^ p.position) ^ row) ^ i);
    return (f32(bits >> 9u) + 0.5) / 8388608.0;
}

// Floats as integers in the same order.
fn ordered(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

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
    // The largest threshold that at least top_k logits reach, bit by bit.
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
            let noisy = unless_nan(x, x * p.inverse_temperature - log(-log(uniform_of(row, i))));
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
