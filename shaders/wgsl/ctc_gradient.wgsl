// The gradient of CTC's input, one workgroup per sequence and timestep: by each class less the probability that a path
// has it there, which follows from its beginnings and ends; from LOGITS with the class's own probability added.
#import nan
#import ctc
#import workgroup_sum

struct Params {
    batch: u32,
    timesteps: u32,
    classes: u32,
    labels: u32,
    blank: u32,
    groups_x: u32,
    unused0: u32,
    unused1: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> info: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> sums: array<f32>;
@group(0) @binding(4) var<storage, read> valid: array<u32>;
@group(0) @binding(5) var<storage, read> beginnings: array<f32>;
// Those of the ends, which become the shares of the places.
@group(0) @binding(6) var<storage, read_write> shares: array<f32>;
// The losses, then their gradients.
@group(0) @binding(7) var<storage, read> losses: array<f32>;
@group(0) @binding(8) var<storage, read_write> out: array<f32>;

const NONE: u32 = 0x7fffffffu;

var<workgroup> partial: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let w = group.y * p.groups_x + group.x;
    let alive = w < p.batch * p.timesteps;
    let at = min(w, p.batch * p.timesteps - 1u);
    let row = at / p.timesteps;
    let base = at * (2u * p.labels + 1u);
    let loss = losses[row];
    let dy = losses[p.batch + row];
    let nothing = (bitcast<u32>(dy) & 0x7fffffffu) == 0u || !is_valid(row, at % p.timesteps);
    // Without a path there is no loss, or it is infinite. Both have the bits of an infinity or beyond.
    let hopeless = (bitcast<u32>(loss) & 0x7fffffffu) >= 0x7f800000u;
    let places = select(0u, places_of(row), alive && !nothing && !hopeless);
    var own = LOW + LOW;
    for (var s = lane; s < places; s += WORKGROUP) {
        let v = beginnings[base + s] + shares[base + s] - emission(at, label_at(row, s));
        shares[base + s] = v;
        own = higher(own, v);
    }
    let highest = highest_of(lane, own);
    var sum = 0.0;
    var blanks = 0.0;
    for (var s = lane; s < places; s += WORKGROUP) {
        let v = shares[base + s] - highest;
        let e = unless_nan(v, exp(v));
        shares[base + s] = e;
        sum += e;
        if s % 2u == 0u { blanks += e; }
    }
    sum = total(lane, sum);
    blanks = total(lane, blanks);
    // Without a path there is a sum of zeros: with `zero_infinity` there is no gradient.
    let spent = nothing || (places > 0u && !is_nan(highest) && highest <= 0.25 * LOW);
    if alive {
        for (var c = lane; c < p.classes; c += WORKGROUP) {
            var v = 0.0;
            if LOGITS { v = dy * exp(x[at * p.classes + c] - sums[at]); }
            if spent { v = 0.0; }
            if hopeless && !nothing { v = nan_of(loss); }
            out[at * p.classes + c] = v;
        }
    }
    storageBarrier();
    if places == 0u || spent { return; }
    let scale = dy / sum;
    let links = info_of(row);
    for (var i = lane; i < places / 2u; i += WORKGROUP) {
        let link = info[links + i];
        if link > NONE {
            var share = shares[base + 2u * i + 1u];
            var next = link & NONE;
            while next < p.labels {
                share += shares[base + 2u * next + 1u];
                next = info[links + next] & NONE;
            }
            out[at * p.classes + label_at(row, 2u * i + 1u)] -= scale * share;
        }
    }
    if lane == 0u { out[at * p.classes + p.blank] -= scale * blanks; }
}
