// The largest elements of each row in order, the first of those that are equal. The rank of an element is the number
// of those that come before it: a lane counts `columns` of its row, from `first` on, and if that was the last of
// them writes its element where it ranks.
#import elements
#import nan

struct Params {
    count: u32,
    groups_x: u32,
    width: u32,
    k: u32,
    first: u32,
    columns: u32,
    // 1, or -1 for the smallest.
    sign: f32,
    unused: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
// [rows, width]
@group(0) @binding(2) var<storage, read_write> ranks: array<u32>;
// [rows, k]
@group(0) @binding(3) var<storage, read_write> values: array<f32>;
@group(0) @binding(4) var<storage, read_write> places: array<u32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let e = element_index(group, lane, p.groups_x);
    if e >= p.count { return; }
    let row = e / p.width;
    let column = e % p.width;
    let v = x[e] * p.sign;
    var rank = 0u;
    if p.first > 0u { rank = ranks[e]; }
    for (var i = p.first; i < p.first + p.columns; i++) {
        let w = x[row * p.width + i] * p.sign;
        if is_above(w, v) || (!is_above(v, w) && i < column) { rank++; }
    }
    if p.first + p.columns < p.width {
        ranks[e] = rank;
    } else if rank < p.k {
        values[row * p.k + rank] = x[e];
        places[row * p.k + rank] = column;
    }
}
