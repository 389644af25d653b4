// The logarithms of the probabilities of all beginnings of CTC's paths that end at a timestep and a place, [batch,
// timesteps, 2 · labels + 1], and the loss of each sequence; or, REVERSE, those of all ends that begin there. One
// workgroup per sequence goes through the timesteps; one that is not valid repeats what was before it. So that sums keep
// their digits, the largest of a timestep is taken from all of it now and then, and added up in the loss.
#import nan
#import logarithm
#import ctc

struct Params {
    batch: u32,
    timesteps: u32,
    classes: u32,
    labels: u32,
    blank: u32,
    // The timesteps of this dispatch, in the order of the pass.
    first: u32,
    steps: u32,
    groups_x: u32,
    zero_infinity: u32,
    unused0: u32,
    unused1: u32,
    unused2: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> info: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> sums: array<f32>;
@group(0) @binding(4) var<storage, read> valid: array<u32>;
@group(0) @binding(5) var<storage, read_write> paths: array<f32>;
// Between dispatches what was taken from the timesteps.
@group(0) @binding(6) var<storage, read_write> loss: array<f32>;

// Timesteps after which the largest is taken away.
const EVERY: u32 = 16u;

var<workgroup> partial: array<f32, WORKGROUP>;

// ln(e^a + e^b + e^c)
fn joined(a: f32, b: f32, c: f32) -> f32 {
    let high = higher(a, higher(b, c));
    let sum = exp(a - high) + exp(b - high) + exp(c - high);
    return unless_nan(high, high + natural_logarithm(sum));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let w = group.y * p.groups_x + group.x;
    let alive = w < p.batch;
    let row = min(w, p.batch - 1u);
    let width = 2u * p.labels + 1u;
    let places = places_of(row);
    // A workgroup without a sequence has none of the places.
    let all = select(0u, places, alive);
    var taken = 0.0;
    if p.first > 0u && !REVERSE { taken = loss[row]; }
    for (var k = p.first; k < p.first + p.steps; k++) {
        let at = row * p.timesteps + select(k, p.timesteps - 1u - k, REVERSE);
        let before = select(at - 1u, at + 1u, REVERSE) * width;
        let counts = is_valid(row, at % p.timesteps);
        for (var q = lane; q < all; q += WORKGROUP) {
            // q counts from the place where the pass begins.
            let s = select(q, places - 1u - q, REVERSE);
            let label = label_at(row, s);
            var a = select(LOW, 0.0, q == 0u);
            var b = select(LOW, 0.0, q == 1u);
            var c = LOW;
            if k > 0u {
                a = paths[before + s];
                if q > 0u { b = paths[before + select(s - 1u, s + 1u, REVERSE)]; }
                // From label to label without a blank, unless they are equal.
                if q > 1u && s % 2u == 1u {
                    let other = select(s - 2u, s + 2u, REVERSE);
                    if label_at(row, other) != label { c = paths[before + other]; }
                }
            }
            var v = a;
            if counts { v = floored(joined(a, b, c) + emission(at, label)); }
            paths[at * width + s] = v;
        }
        storageBarrier();
        if k % EVERY == EVERY - 1u {
            var own = LOW;
            for (var q = lane; q < all; q += WORKGROUP) {
                own = higher(own, paths[at * width + q]);
            }
            let highest = highest_of(lane, own);
            let part = select(highest, 0.0, !is_nan(highest) && highest <= 0.5 * LOW);
            for (var q = lane; q < all; q += WORKGROUP) {
                paths[at * width + q] = floored(paths[at * width + q] - part);
            }
            taken += part;
            storageBarrier();
        }
    }
    if lane == 0u && alive && !REVERSE {
        var v = taken;
        if p.first + p.steps == p.timesteps {
            let end = (row * p.timesteps + p.timesteps - 1u) * width;
            var last = paths[end + places - 1u];
            if places > 1u { last = joined(last, paths[end + places - 2u], LOW); }
            v = -(taken + last);
            let none = !is_nan(last) && last <= 0.5 * LOW;
            if none { v = select(infinity_of(1.0), 0.0, p.zero_infinity == 1u); }
            if is_bad(row) { v = nan_of(v); }
        }
        loss[row] = v;
    }
}
