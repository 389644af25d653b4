// Softmax over the last axis: one workgroup per row, three passes (maximum, sum, quotient). A NaN makes its whole row
// NaN through the sum. With LOGARITHM it is the logarithm of the quotient, with SUM that of the sum, one for each row.
#import nan

struct Params {
    rows: u32,
    width: u32,
    groups_x: u32,
    unused: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<ELEMENT>;
@group(0) @binding(2) var<storage, read_write> out: array<ELEMENT>;

var<workgroup> partial: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y * p.groups_x + group.x;
    let base = min(row, p.rows - 1u) * p.width;
    var highest = f32(x[base]);
    for (var i = lane; i < p.width; i += WORKGROUP) {
        highest = max(highest, f32(x[base + i]));
    }
    partial[lane] = highest;
    workgroupBarrier();
    for (var offset = WORKGROUP / 2u; offset > 0u; offset /= 2u) {
        if lane < offset { partial[lane] = max(partial[lane], partial[lane + offset]); }
        workgroupBarrier();
    }
    highest = partial[0];
    // The sum of a row whose largest is infinite is taken from its exponentials as they are.
    if SUM && (bitcast<u32>(highest) & 0x7fffffffu) == 0x7f800000u { highest = 0.0; }
    workgroupBarrier();
    var sum = 0.0;
    for (var i = lane; i < p.width; i += WORKGROUP) {
        let v = f32(x[base + i]);
        sum += unless_nan(v, exp(v - highest));
    }
    partial[lane] = sum;
    workgroupBarrier();
    for (var offset = WORKGROUP / 2u; offset > 0u; offset /= 2u) {
        if lane < offset { partial[lane] += partial[lane + offset]; }
        workgroupBarrier();
    }
    let total = partial[0];
    if SUM {
        if row < p.rows && lane == 0u { out[row] = ELEMENT(unless_nan(total, highest + log(total))); }
    } else if row < p.rows {
        for (var i = lane; i < p.width; i += WORKGROUP) {
            let v = f32(x[base + i]) - highest;
            if LOGARITHM {
                out[base + i] = ELEMENT(unless_nan(total, v - log(total)));
            } else {
                out[base + i] = ELEMENT(unless_nan(total, exp(v) / total));
            }
        }
    }
}
