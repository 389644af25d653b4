// The cross-entropy of rows of logits with the numbers of their classes: a value for each row, from the logarithm of its
// sum of exponentials; or, BACKWARD, the gradient of each logit. `share` is what a smoothed target has in every class,
// `own` what it has more in its own class.
#import nan
#import elements

struct Params {
    // Rows, or logits.
    count: u32,
    groups_x: u32,
    width: u32,
    unused0: u32,
    own: f32,
    share: f32,
    unused1: u32,
    unused2: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> labels: array<INDEX>;
@group(0) @binding(3) var<storage, read> sums: array<f32>;
// The means of the rows, read if a share is not 0; or the gradients of the values.
@group(0) @binding(4) var<storage, read> rows: array<f32>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

// The class of a row, or `width` if the label is none.
fn class_of(row: u32) -> u32 {
#if WHOLE
    return min(labels[row], p.width);
#else
    let label = labels[row];
    if is_nan(label) || !(label >= 0.0 && label < f32(p.width)) { return p.width; }
    return min(u32(label), p.width);
#end
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let e = element_index(group, lane, p.groups_x);
    if e >= p.count { return; }
    if BACKWARD {
        let row = e / p.width;
        let dy = rows[row];
        let counts = (bitcast<u32>(dy) & 0x7fffffffu) != 0u;
        let wanted = p.share + select(0.0, p.own, e % p.width == class_of(row));
        let v = x[e] - sums[row];
        out[e] = select(0.0, dy * (unless_nan(v, exp(v)) - wanted), counts);
    } else {
        let label = class_of(e);
        let v = sums[e] - p.own * x[e * p.width + min(label, p.width - 1u)];
        let mean = select(0.0, rows[e], SMOOTH);
        out[e] = select(v - p.share * f32(p.width) * mean, nan_of(v), label == p.width);
    }
}
