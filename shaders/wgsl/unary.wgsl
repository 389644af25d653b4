// out = act(x), and the conversion between f32 and f16 storage.
#import activations
#import elements

struct Params {
    count: u32,
    groups_x: u32,
    alpha: f32,
    beta: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<ELEMENT>;
@group(0) @binding(2) var<storage, read_write> out: array<RESULT>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let e = element_index(group, lane, p.groups_x);
    if e < p.count {
        out[e] = RESULT(activate(ACTIVATION, p.alpha, p.beta, f32(x[e])));
    }
}
