// Selects rows of a table for a range of ids. The host has checked the ids against a bound that it knows; ids are also
// clamped here, so none reads past the table.
#import elements

struct Params {
    count: u32,
    groups_x: u32,
    width: u32,
    // The first element of the range in `ids`, and the first element of its rows in `out`.
    ids_offset: u32,
    out_offset: u32,
    // Number of rows of the table.
    rows: u32,
    unused0: u32,
    unused1: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> table: array<ELEMENT>;
@group(0) @binding(2) var<storage, read> ids: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<ELEMENT>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let e = element_index(group, lane, p.groups_x);
    if e < p.count {
        let row = min(ids[p.ids_offset + e / p.width], p.rows - 1u);
        out[p.out_offset + e] = table[row * p.width + e % p.width];
    }
}
