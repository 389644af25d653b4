// For each row of `width` elements: 1 if any element differs from `value`, else 0. A dispatch tests `columns` of the
// elements; a later one combines its result with that of the dispatch before.
#import elements
#import nan

struct Params {
    count: u32,
    groups_x: u32,
    width: u32,
    value: f32,
    first: u32,
    columns: u32,
    unused0: u32,
    unused1: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<ELEMENT>;
@group(0) @binding(2) var<storage, read_write> out: array<u32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = element_index(group, lane, p.groups_x);
    if row >= p.count { return; }
    var differs = 0u;
    if p.first > 0u { differs = out[row]; }
    for (var i = p.first; i < p.first + p.columns; i++) {
        let v = x[row * p.width + i];
        if v != ELEMENT(p.value) || is_nan(f32(v)) { differs = 1u; }
    }
    out[row] = differs;
}
