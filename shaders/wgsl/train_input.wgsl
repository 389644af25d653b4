// The input with time first, [T, B, I], with zeros at timesteps that are not valid, so that nothing in them reaches a
// sum over all timesteps.
#import elements

struct Params {
    count: u32,
    groups_x: u32,
    width: u32,
    batch: u32,
    timesteps: u32,
    // Distances of batch rows and timesteps in the input.
    row_stride: u32,
    time_stride: u32,
    unused: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
// lengths [B] or mask [B, T]
@group(0) @binding(2) var<storage, read> valid: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let e = element_index(group, lane, p.groups_x);
    if e >= p.count { return; }
    let row = e / p.width % p.batch;
    let t = e / p.width / p.batch;
    var alive = true;
    if HAS_LENGTHS { alive = t < valid[row]; }
    if HAS_MASK { alive = valid[row * p.timesteps + t] != 0u; }
    out[e] = select(0.0, x[row * p.row_stride + t * p.time_stride + e % p.width], alive);
}
