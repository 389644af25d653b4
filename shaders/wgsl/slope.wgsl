// out = dy · f'(x), with f' told from f(x) or from x.
#import slopes
#import elements

struct Params {
    count: u32,
    groups_x: u32,
    alpha: f32,
    beta: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dy: array<ELEMENT>;
@group(0) @binding(2) var<storage, read> value: array<ELEMENT>;
@group(0) @binding(3) var<storage, read_write> out: array<ELEMENT>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let e = element_index(group, lane, p.groups_x);
    if e < p.count {
        out[e] = dy[e] * slope(ACTIVATION, p.alpha, p.beta, FROM_INPUT, value[e]);
    }
}
