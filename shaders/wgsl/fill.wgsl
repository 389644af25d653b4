// Sets every element to one value.
#import elements

struct Params {
    count: u32,
    groups_x: u32,
    value: f32,
    unused: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> out: array<ELEMENT>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let e = element_index(group, lane, p.groups_x);
    if e < p.count { out[e] = ELEMENT(p.value); }
}
