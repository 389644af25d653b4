// Layer normalization over the last axis, in place: one workgroup per row.
struct Params {
    rows: u32,
    width: u32,
    groups_x: u32,
    // Index of the first element.
    offset: u32,
    // Index of the first element of gain and offset.
    affine_offset: u32,
    epsilon: f32,
    unused0: u32,
    unused1: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
// Gain and offset, [2, width]
@group(0) @binding(1) var<storage, read> affine: array<f32>;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;

var<workgroup> partial: array<f32, WORKGROUP>;

#import workgroup_sum

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y * p.groups_x + group.x;
    let base = p.offset + min(row, p.rows - 1u) * p.width;
    var sum = 0.0;
    for (var i = lane; i < p.width; i += WORKGROUP) { sum += x[base + i]; }
    let mean = total(lane, sum) / f32(p.width);
    sum = 0.0;
    for (var i = lane; i < p.width; i += WORKGROUP) {
        let v = x[base + i] - mean;
        sum += v * v;
    }
    let scale = 1.0 / sqrt(total(lane, sum) / f32(p.width) + p.epsilon);
    if row < p.rows {
        for (var i = lane; i < p.width; i += WORKGROUP) {
            x[base + i] = (x[base + i] - mean) * scale * affine[p.affine_offset + i]
                + affine[p.affine_offset + p.width + i];
        }
    }
}
