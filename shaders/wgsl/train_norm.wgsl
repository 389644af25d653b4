// Layer normalization of rows of a table, and its gradient: one workgroup per row. A row is a batch row of a timestep.
// The forward pass writes the standardized elements and their factor to `norms`, zeros for a timestep that is not valid,
// and replaces the elements. BACKWARD reads the gradients of the results and writes those of the elements elsewhere in
// the row.
struct Params {
    rows: u32,
    groups_x: u32,
    // Number of elements that are normalized together.
    width: u32,
    // Number of batch rows, of timesteps, and the timestep of the first row.
    batch: u32,
    timesteps: u32,
    first_time: u32,
    // The first element in the table, BACKWARD the first result, and the distance of rows.
    source: u32,
    goal: u32,
    stride: u32,
    // The first standardized element in `norms`, the first factor, and the distance of rows.
    standard: u32,
    scale: u32,
    norm_stride: u32,
    epsilon: f32,
    unused0: u32,
    unused1: u32,
    unused2: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
// Gain and offset, [2, width]
@group(0) @binding(1) var<storage, read> affine: array<f32>;
// lengths [B] or mask [B, T]
@group(0) @binding(2) var<storage, read> valid: array<u32>;
@group(0) @binding(3) var<storage, read_write> x: array<f32>;
#if BACKWARD
@group(0) @binding(4) var<storage, read> norms: array<f32>;
#else
@group(0) @binding(4) var<storage, read_write> norms: array<f32>;
#end

var<workgroup> partial: array<f32, WORKGROUP>;

#import workgroup_sum

fn is_alive(row: u32, t: u32) -> bool {
    if HAS_LENGTHS { return t < valid[row]; }
    if HAS_MASK { return valid[row * p.timesteps + t] != 0u; }
    return true;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let own = group.y * p.groups_x + group.x;
    let row = min(own, p.rows - 1u);
    let base = p.source + row * p.stride;
    let standard = p.standard + row * p.norm_stride;
    let at_scale = p.scale + row * p.norm_stride;
    var sum = 0.0;
#if BACKWARD
    var along = 0.0;
    for (var i = lane; i < p.width; i += WORKGROUP) {
        let by = x[base + i] * affine[i];
        sum += by;
        along += by * norms[standard + i];
    }
    sum = total(lane, sum) / f32(p.width);
    along = total(lane, along) / f32(p.width);
    let goal = p.goal + row * p.stride;
    if own < p.rows {
        for (var i = lane; i < p.width; i += WORKGROUP) {
            x[goal + i] = (x[base + i] * affine[i] - sum - norms[standard + i] * along) * norms[at_scale];
        }
    }
#else
    for (var i = lane; i < p.width; i += WORKGROUP) { sum += x[base + i]; }
    let mean = total(lane, sum) / f32(p.width);
    sum = 0.0;
    for (var i = lane; i < p.width; i += WORKGROUP) {
        let v = x[base + i] - mean;
        sum += v * v;
    }
    let scale = 1.0 / sqrt(total(lane, sum) / f32(p.width) + p.epsilon);
    let alive = is_alive(row % p.batch, p.first_time + row / p.batch);
    if own < p.rows {
        for (var i = lane; i < p.width; i += WORKGROUP) {
            let v = (x[base + i] - mean) * scale;
            norms[standard + i] = select(0.0, v, alive);
            x[base + i] = v * affine[i] + affine[p.width + i];
        }
        if lane == 0u { norms[at_scale] = select(0.0, scale, alive); }
    }
#end
}
