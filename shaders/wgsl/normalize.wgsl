// Rows less their mean, if CENTERED, divided by their deviation, times a scale and plus an offset for each channel: a
// workgroup a row. The channel of element i is i / inner % channels. Mean and 1 / deviation of each row come out too.
#import workgroup_sum

struct Params {
    rows: u32,
    width: u32,
    groups_x: u32,
    channels: u32,
    inner: u32,
    epsilon: f32,
    unused0: u32,
    unused1: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> scale: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<storage, read_write> means: array<f32>;
@group(0) @binding(6) var<storage, read_write> inverses: array<f32>;

var<workgroup> partial: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y * p.groups_x + group.x;
    let base = min(row, p.rows - 1u) * p.width;
    var mean = 0.0;
#if CENTERED
    var first = 0.0;
    for (var i = lane; i < p.width; i += WORKGROUP) { first += x[base + i]; }
    mean = total(lane, first) / f32(p.width);
#end
    var sum = 0.0;
    for (var i = lane; i < p.width; i += WORKGROUP) {
        let v = x[base + i] - mean;
        sum += v * v;
    }
    let inverse = 1.0 / sqrt(total(lane, sum) / f32(p.width) + p.epsilon);
    if row >= p.rows { return; }
    if lane == 0u {
        means[row] = mean;
        inverses[row] = inverse;
    }
    for (var i = lane; i < p.width; i += WORKGROUP) {
        let channel = (base + i) / p.inner % p.channels;
        var v = (x[base + i] - mean) * inverse;
#if HAS_SCALE
        v *= scale[channel];
#end
#if HAS_BIAS
        v += bias[channel];
#end
        out[base + i] = v;
    }
}
